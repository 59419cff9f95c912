#include "tests/text/vocab.h"

#include "base/mem.h"
#include "tests/temp.h"
#include "tests/text/golden.h"
#include "text/chat.h"

static struct tokenizer *tokenizer;

static int setup(void **state)
{
    (void)state;
    static struct vocab v;
    vocab_init(&v);
    v.spec.bos = vocab_add(&v, "<s>", TOKEN_CONTROL);
    v.spec.chat_template = "{% for m in messages %}{{ m.role }}:{{ m.content }}"
                           "{% endfor %}";
    tokenizer = vocab_create(&v);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tokenizer_destroy(tokenizer);
    return 0;
}

/* request: {"messages", "tools", "kwargs"}. */
static int render(const char *source, const char *request, struct buf *out,
                  struct why *why)
{
    struct chat *chat = NULL;
    json_t *json = NULL;
    assert_int_equal(json_parse(&json, request, strlen(request), NULL), 0);
    char *before = json_dumps(json, 0);
    int rc = chat_create(&chat, tokenizer, source, why);
    struct chat_request r = {json_object_get(json, "messages"),
                             json_object_get(json, "tools"),
                             json_object_get(json, "kwargs"), true};
    if (!rc) rc = chat_render(chat, &r, out, why);
    char *after = json_dumps(json, 0);
    assert_string_equal(before, after);
    free(before);
    free(after);
    chat_destroy(chat);
    json_decref(json);
    return rc;
}

static void expect(const char *source, const char *request, const char *want)
{
    struct buf out;
    struct why why = {0};
    buf_init(&out, 1 << 20);
    buf_puts(&out, "");
    if (render(source, request, &out, &why)) fail_msg("%s", why.text);
    assert_string_equal(out.data, want);
    buf_fini(&out);
}

static void refuse(const char *source, const char *request, const char *said)
{
    struct buf out;
    struct why why = {0};
    buf_init(&out, 1 << 20);
    assert_int_equal(render(source, request, &out, &why), ERR_INVALID);
    if (!strstr(why.text, said)) fail_msg("%s", why.text);
    assert_int_equal(out.len, 0);
    buf_fini(&out);
}

#define HI "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]"

static void variables_are_those_of_transformers(void **state)
{
    (void)state;
    expect(NULL, HI "}", "user:hi");
    expect("{{ bos_token }}|{{ eos_token is defined }}|{{ tools is none }}|"
           "{{ documents is none }}|{{ add_generation_prompt }}|{{ k }}",
           HI ", \"kwargs\": {\"k\": 1, \"messages\": 2}}",
           "<s>|False|True|True|True|1");
    expect("{{ tools | tojson }}", HI ", \"tools\": [{\"a\": 1}]}",
           "[{\"a\": 1}]");
}

/* A file of dir where json is an object; its name is left in path. */
static void write_json(const char *dir, const char *name, const json_t *json,
                       char path[200])
{
    snprintf(path, 200, "%s/%s", dir, name);
    if (!json_is_object(json)) return;
    char *text = json_dumps(json, 0);
    temp_write(dir, name, text, strlen(text));
    free(text);
}

/* What a folder's files name, against transformers. */
static void special_tokens_are_those_of_transformers(void **state)
{
    (void)state;
    json_t *all = golden_json("tests/golden/template/special.json"), *c;
    const char *template = json_string_value(json_object_get(all, "template"));
    size_t i;
    assert_true(json_array_size(json_object_get(all, "cases")) > 10);
    json_array_foreach (json_object_get(all, "cases"), i, c) {
        char *dir = temp_dir(), config[200], names[200];
        const struct tokenizer_paths beside = {config, names, NULL};
        struct tokenizer *own = NULL, *shared = tokenizer;
        struct why why = {0};
        write_json(dir, "tokenizer_config.json", json_object_get(c, "config"),
                   config);
        write_json(dir, "special_tokens_map.json", json_object_get(c, "map"),
                   names);
        if (tokenizer_open(&own, "tests/golden/tokenizer/tiny_qwen.json",
                           &beside, &why))
            fail_msg("%s", why.text);
        assert_int_equal(tokenizer_bos(own),
                         json_integer_value(json_object_get(c, "bos")));
        assert_int_equal(tokenizer_eos(own),
                         json_integer_value(json_object_get(c, "eos")));
        tokenizer = own;
        expect(template, HI "}", json_string_value(json_object_get(c, "text")));
        tokenizer = shared;
        tokenizer_destroy(own);
        temp_remove(dir);
    }
    json_decref(all);
}

static void names_that_are_no_tokens(void **state)
{
    (void)state;
    static const struct {
        const char *names;
        int rc;
        const char *said;
    } rows[] = {
        {"{\"eos_token\":\"<none>\"}", ERR_FORMAT,
         "eos_token <none> is no token"},
        {"{\"pad_token\":\"<none>\"}", 0, "<none>"},
        {"[]", ERR_FORMAT, "special_tokens_map"},
        {"{\"pad_token\":", ERR_FORMAT, "special_tokens_map"},
        {"", ERR_FORMAT, "special_tokens_map"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *dir = temp_dir(), names[200];
        const struct tokenizer_paths beside = {NULL, names, NULL};
        struct tokenizer *t = NULL;
        struct why why = {0};
        snprintf(names, sizeof names, "%s/special_tokens_map.json", dir);
        temp_write(dir, "special_tokens_map.json", rows[i].names,
                   strlen(rows[i].names));
        int rc = tokenizer_open(&t, "tests/golden/tokenizer/tiny_qwen.json",
                                &beside, &why);
        assert_int_equal(rc, rows[i].rc);
        const char *said =
            rc ? why.text : tokenizer_named_text(t, TOKENIZER_PAD);
        if (!strstr(said, rows[i].said)) fail_msg("%s", said);
        if (!rc) tokenizer_destroy(t);
        temp_remove(dir);
    }
}

#define PARTS                                                           \
    "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": "    \
    "\"text\", \"text\": \"a\"}, {\"type\": \"text\", \"text\": \"b\"}" \
    "]}]}"

static void content_parts_go_as_the_template_takes_them(void **state)
{
    (void)state;
    expect(NULL, PARTS, "user:a b");
    expect("{% for m in messages %}{% for p in m['content'] %}[{{ p.text }}]"
           "{% endfor %}{% endfor %}",
           PARTS, "[a][b]");
    refuse(NULL,
           "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": "
           "\"image_url\", \"image_url\": {}}]}]}",
           "is no text");
}

#define CALLS                                                           \
    "{\"messages\": [{\"role\": \"assistant\", \"content\": null, "     \
    "\"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": " \
    "\"{\\\"x\\\": 1}\"}}]}]}"
#define ARGUMENTS "messages[0].tool_calls[0].function.arguments"

static void null_content_and_arguments_are_repaired(void **state)
{
    (void)state;
    expect("{{ messages[0].content + '!' }}", CALLS, "!");
    expect("{{ messages[0].content is none }}", CALLS, "True");
    expect("{{ " ARGUMENTS ".x }}", CALLS, "1");
    expect("{{ 'a' + " ARGUMENTS " }}", CALLS, "a{\"x\": 1}");
}

static void what_is_no_conversation_is_refused(void **state)
{
    (void)state;
    refuse(NULL, "{}", "messages is no list");
    refuse(NULL, "{\"messages\": [1]}", "message 0");
    refuse(NULL, "{\"messages\": [{\"content\": \"x\"}]}", "no role");
    refuse(NULL, "{\"messages\": [], \"tools\": {}}", "tools");
    refuse("{{ raise_exception('alternate!') }}", HI "}", "alternate!");
}

static void a_bad_template_is_refused_when_made(void **state)
{
    (void)state;
    struct chat *chat = NULL;
    struct why why = {0};
    size_t before = mem_live();
    assert_int_equal(chat_create(&chat, tokenizer, "{% include 'x' %}", &why),
                     ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "line 1: tag include"));
    assert_int_equal(mem_live(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(variables_are_those_of_transformers),
        T(special_tokens_are_those_of_transformers),
        T(names_that_are_no_tokens),
        T(content_parts_go_as_the_template_takes_them),
        T(null_content_and_arguments_are_repaired),
        T(what_is_no_conversation_is_refused),
        T(a_bad_template_is_refused_when_made)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
