#include "tests/serve/rig.h"

#include "text/tokenizer.h"

static char *path_in(const char *dir, const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void write_text(const char *dir, const char *name, const char *text)
{
    temp_write(dir, name, text, strlen(text));
}

/* A Hugging Face folder over the bytes' letters. */
static char *folder(void)
{
    char *dir = temp_dir();
    struct buf json;
    buf_init(&json, 1 << 20);
    buf_puts(&json,
             "{\"added_tokens\":[{\"id\":256,\"content\":\"<s>\",\"special\":"
             "true}],\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"use_regex\":"
             "true,\"add_prefix_space\":false},\"decoder\":{\"type\":"
             "\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"merges\":[],"
             "\"vocab\":{");
    for (unsigned b = 0; b < 256; b++) {
        char letter[5] = {0};
        utf8_put(letter, vocab_letter(b));
        buf_puts(&json, b ? ",\"" : "\"");
        buf_json(&json, letter, strlen(letter));
        buf_printf(&json, "\":%u", b);
    }
    buf_puts(&json, "}}}");
    temp_write(dir, "tokenizer.json", json.data, json.len);
    buf_fini(&json);
    write_text(dir, "tokenizer_config.json",
               "{\"bos_token\":\"<s>\",\"chat_template\":"
               "\"config:{{ bos_token }}{{ messages[0].content }}\"}");
    return dir;
}

static void expect_chat(const struct assets_options *options, const char *text)
{
    struct assets *assets;
    struct why why = {0};
    if (assets_open(&assets, options, &why)) fail_msg("%s", why.text);
    json_t *messages = json_pack("[{s:s,s:s}]", "role", "user", "content", "x");
    json_t *variables = json_pack("{s:s,s:s}", "mood", "good", "messages", "?");
    struct buf out;
    buf_init(&out, 1000);
    if (assets_render_chat(assets, messages, NULL, variables, &out, &why))
        fail_msg("%s", why.text);
    assert_string_equal(out.data, text);
    buf_fini(&out);
    json_decref(messages);
    json_decref(variables);
    assets_close(assets);
}

static void the_nearest_template_wins(void **state)
{
    (void)state;
    char *dir = folder();
    struct assets_options options = {.model_path = dir};
    expect_chat(&options, "config:<s>x");
    write_text(dir, "chat_template.jinja", "file:{{ mood }}");
    expect_chat(&options, "file:good");
    write_text(dir, "mine.jinja", "mine:{% if tools %}?{% endif %}");
    options.chat_template = mem_dup(path_in(dir, "mine.jinja"));
    expect_chat(&options, "mine:");
    write_text(dir, "special_tokens_map.json", "{\"pad_token\":\"<p>\"}");
    write_text(dir, "mine.jinja", "{{ bos_token }}{{ pad_token }}");
    expect_chat(&options, "<s><p>");
    mem_free((void *)(uintptr_t)options.chat_template);
    temp_remove(dir);
}

static void expect_error(const struct assets_options *options, int rc,
                         const char *text)
{
    struct assets *assets;
    struct why why = {0};
    size_t before = mem_live();
    assert_int_equal(assets_open(&assets, options, &why), rc);
    assert_null(assets);
    if (!strstr(why.text, text)) fail_msg("%s without %s", why.text, text);
    assert_int_equal(mem_live(), before);
}

static void what_is_missing_is_named(void **state)
{
    (void)state;
    char *dir = folder();
    struct assets_options options = {.model_path = dir,
                                     .chat_template = "chatml"};
    expect_error(&options, ERR_NOT_FOUND, "--chat-template chatml");
    options.chat_template = NULL;
    write_text(dir, "chat_template.jinja", "\n{% nonsense %}");
    expect_error(&options, ERR_UNSUPPORTED, "chat_template.jinja: line 2");
    write_text(dir, "chat_template.jinja", "{{ x");
    expect_error(&options, ERR_FORMAT, "chat_template.jinja: line 1");
    assert_int_equal(remove(path_in(dir, "tokenizer.json")), 0);
    expect_error(&options, ERR_NOT_FOUND, "no tokenizer.json");
    options.model_path = "/nowhere";
    expect_error(&options, ERR_NOT_FOUND, "/nowhere");
    temp_remove(dir);
}

static void generation_defaults_fill_what_is_missing(void **state)
{
    (void)state;
    char *dir = folder();
    write_text(dir, "generation_config.json",
               "{\"temperature\":0.5,\"top_k\":0,\"top_p\":0.95,"
               "\"eos_token_id\":7,\"min_p\":null}");
    struct assets_options options = {.model_path = dir};
    struct assets *assets;
    assert_int_equal(assets_open(&assets, &options, NULL), 0);
    json_t *params = json_pack("{s:f}", "top_p", 0.25);
    generation_defaults_apply(assets_generation_defaults(assets), params);
    expect_at(params, "temperature", "0.5");
    expect_at(params, "top_k", "-1");
    expect_at(params, "top_p", "0.25");
    assert_int_equal(json_object_size(params), 3);
    json_decref(params);
    assets_close(assets);
    temp_remove(dir);
}

static void a_tokenizer_may_come_from_elsewhere(void **state)
{
    (void)state;
    char *dir = folder(), *other = temp_dir();
    rig_write_gguf(other, "gguf:{{ eos_token }}", false);
    struct assets_options options = {.model_path = dir};
    options.tokenizer_path = path_in(other, "model.gguf");
    expect_chat(&options, "gguf:<|end|>");
    struct assets *assets;
    assert_int_equal(assets_open(&assets, &options, NULL), 0);
    assert_int_equal(tokenizer_find(assets_tokenizer(assets), "<|end|>"), 256);
    assert_null(assets_generation_defaults(assets));
    assets_close(assets);
    temp_remove(dir);
    temp_remove(other);
}

TESTS(T(the_nearest_template_wins), T(what_is_missing_is_named),
      T(generation_defaults_fill_what_is_missing),
      T(a_tokenizer_may_come_from_elsewhere))
