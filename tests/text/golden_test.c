/* What Hugging Face made of the same texts and templates; the scripts
 * tools/golden/tok_golden.py and tmpl_golden.py made the files. */
#include "tests/text/golden.h"

#include "base/mem.h"
#include "text/chat.h"
#include "text/detok.h"
#include "text/template.h"

#define TOK  "tests/golden/tokenizer/"
#define TMPL "tests/golden/template/"

static void expect_line(const struct tokenizer *t, const json_t *text,
                        const char *line, const char *name, size_t index)
{
    struct token_list list = {0};
    struct buf got;
    buf_init(&got, 1 << 20);
    buf_puts(&got, "");
    assert_int_equal(tokenizer_encode(t, json_string_value(text),
                                      json_string_length(text), 0, &list),
                     0);
    for (size_t i = 0; i < list.count; i++)
        buf_printf(&got, "%s%d", i ? " " : "", (int)list.ids[i]);
    if (strcmp(got.data, line))
        fail_msg("%s, text %zu \"%s\"\n got %s\nwant %s", name, index,
                 json_string_value(text), got.data, line);
    buf_fini(&got);
    token_list_fini(&list);
}

static void expect_ids(const struct tokenizer *t, const char *name)
{
    char path[200];
    char *line = NULL;
    size_t cap = 0, i;
    json_t *text, *texts = golden_json(TOK "texts.json");
    snprintf(path, sizeof path, TOK "%s.ids", name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    json_array_foreach (texts, i, text) {
        ssize_t n = getline(&line, &cap, f);
        assert_true(n > 0);
        line[n - 1] = 0;
        expect_line(t, text, line, name, i);
    }
    assert_true(i > 300);
    free(line);
    fclose(f);
    json_decref(texts);
}

static struct tokenizer *open_at(const char *dir, const char *name)
{
    char json[4096], config[4096];
    struct tokenizer *t = NULL;
    struct why why = {0};
    snprintf(json, sizeof json, "%s/%s/tokenizer.json", dir, name);
    snprintf(config, sizeof config, "%s/%s/tokenizer_config.json", dir, name);
    const struct tokenizer_paths beside = {.config = config};
    if (tokenizer_open(&t, json, &beside, &why)) fail_msg("%s", why.text);
    return t;
}

static void small_vocabularies_of_every_kind(void **state)
{
    (void)state;
    static const char *const names[] = {
        "tiny_qwen",       "tiny_llama",         "tiny_deepseek",
        "tiny_smollm",     "tiny_prefix",        "tiny_other",
        "tiny_spm",        "tiny_metaspace",     "tiny_joined",
        "tiny_unigram",    "tiny_unigram_bytes", "tiny_parts",
        "tiny_parts_more", "tiny_precompiled"};
    size_t before = mem_live();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[200];
        struct tokenizer *t = NULL;
        struct why why = {0};
        snprintf(path, sizeof path, TOK "%s.json", names[i]);
        if (tokenizer_open(&t, path, NULL, &why)) fail_msg("%s", why.text);
        expect_ids(t, names[i]);
        if (i < 4) assert_int_equal(tokenizer_adds_bos(t), i == 1);
        tokenizer_destroy(t);
    }
    assert_int_equal(mem_live(), before);
}

static void special_tokens_go_around(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int32_t first, last;
    } cases[] = {{TOK "tiny_spm.json", 1, 2}, {TOK "tiny_parts.json", 1, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tokenizer *t = NULL;
        struct token_list list = {0};
        assert_int_equal(tokenizer_open(&t, cases[i].name, NULL, NULL), 0);
        tokenizer_encode(t, "Hello", 5, TOKENIZER_ADD_SPECIAL, &list);
        assert_int_equal(list.ids[0], cases[i].first);
        assert_int_equal(list.ids[list.count - 1], cases[i].last);
        token_list_fini(&list);
        tokenizer_destroy(t);
    }
}

static void qwen3(void **state)
{
    (void)state;
    struct tokenizer *t = open_at(golden_data(), "qwen3");
    expect_ids(t, "qwen3");
    assert_int_equal(tokenizer_bos(t), -1);
    assert_int_equal(tokenizer_eos(t), 151645);
    assert_string_equal(tokenizer_named_text(t, TOKENIZER_EOS), "<|im_end|>");
    assert_int_equal(tokenizer_find(t, "<|im_start|>"), 151644);
    assert_true(tokenizer_is_special(t, 151644));
    assert_false(tokenizer_is_special(t, 151667)); /* <think> */
    assert_true(tokenizer_is_added(t, 151667));
    tokenizer_destroy(t);
}

static void llama3_1(void **state)
{
    (void)state;
    struct token_list list = {0};
    struct tokenizer *t = open_at(golden_data(), "llama3_1");
    expect_ids(t, "llama3_1");
    assert_int_equal(tokenizer_bos(t), 128000);
    assert_int_equal(tokenizer_eos(t), 128009);
    assert_int_equal(
        tokenizer_encode(t, "Hello", 5, TOKENIZER_ADD_SPECIAL, &list), 0);
    assert_int_equal(list.count, 2);
    assert_int_equal(list.ids[0], 128000);
    token_list_fini(&list);
    tokenizer_destroy(t);
}

static void deepseek_v3(void **state)
{
    (void)state;
    struct tokenizer *t = open_at(golden_data(), "deepseek_v3");
    expect_ids(t, "deepseek_v3");
    assert_true(tokenizer_adds_bos(t)); /* tokenizer_config.json says so */
    assert_int_equal(tokenizer_bos(t), 0);
    tokenizer_destroy(t);
}

/* Decoding what was encoded gives the text, where NFC changes nothing. */
static void ids_decode_to_the_text(void **state)
{
    (void)state;
    struct tokenizer *t = NULL;
    json_t *text, *texts = golden_json(TOK "texts.json");
    size_t i;
    assert_int_equal(tokenizer_open(&t, TOK "tiny_deepseek.json", NULL, NULL),
                     0);
    json_array_foreach (texts, i, text) {
        struct token_list list = {0};
        struct detok d;
        struct buf out;
        if (strstr(json_string_value(text), "<m>")) continue; /* eats blanks */
        if (strstr(json_string_value(text), "cafe\u0301!")) continue;
        buf_init(&out, 1 << 20);
        buf_puts(&out, "");
        detok_init(&d, t, false);
        tokenizer_encode(t, json_string_value(text), json_string_length(text),
                         0, &list);
        for (size_t k = 0; k < list.count; k++)
            detok_feed(&d, list.ids[k], &out);
        detok_flush(&d, &out);
        assert_int_equal(out.len, json_string_length(text));
        assert_memory_equal(out.data, json_string_value(text), out.len);
        buf_fini(&out);
        token_list_fini(&list);
    }
    json_decref(texts);
    tokenizer_destroy(t);
}

/* Renders, or returns the error. */
static int render(const char *source, size_t len, const json_t *variables,
                  struct buf *out, struct why *why)
{
    struct template *t = NULL;
    int rc = template_compile(&t, source, len, why);
    if (!rc) rc = template_render(t, variables, out, why);
    template_destroy(t);
    return rc;
}

static void expect_text(const char *source, size_t len, const json_t *variables,
                        const json_t *expected)
{
    struct buf out;
    struct why why = {0};
    const json_t *text = json_object_get(expected, "text");
    buf_init(&out, 1 << 24);
    buf_puts(&out, "");
    int rc = render(source, len, variables, &out, &why);
    if (!text) {
        if (!rc) fail_msg("%s\nrenders, jinja2 raises", source);
    } else if (rc) {
        fail_msg("%s\n%s", source, why.text);
    } else if (out.len != json_string_length(text) ||
               memcmp(out.data, json_string_value(text), out.len)) {
        fail_msg("%s\n got %s\nwant %s", source, out.data,
                 json_string_value(text));
    }
    buf_fini(&out);
}

static void templates_render_as_in_jinja2(void **state)
{
    (void)state;
    json_t *cases = golden_json(TMPL "cases.json");
    json_t *variables = golden_json(TMPL "variables.json");
    size_t i, before = mem_live();
    json_t *one;
    json_array_foreach (cases, i, one) {
        const json_t *source = json_object_get(one, "template");
        expect_text(json_string_value(source), json_string_length(source),
                    variables, one);
    }
    assert_true(i > 80);
    assert_int_equal(mem_live(), before);
    json_decref(cases);
    json_decref(variables);
}

TESTS(T(small_vocabularies_of_every_kind), T(special_tokens_go_around),
      T(qwen3), T(llama3_1), T(deepseek_v3), T(ids_decode_to_the_text),
      T(templates_render_as_in_jinja2))
