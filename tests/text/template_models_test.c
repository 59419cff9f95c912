/* Chat templates of real models against jinja2: tools/golden/tmpl_models.py
 * wrote their list, with a hash of each rendering of each conversation. The
 * texts are where tools/fetch-templates put them, in BATON_TEMPLATES, three
 * are in BATON_TEST_DATA; those of packages that it was not asked for are left
 * out. */
#include "tests/text/golden.h"

#include "base/mem.h"
#include "text/template.h"

#include <time.h>
#include <unistd.h>

#define TMPL "tests/golden/template/"

/* The clock of strftime_now stands still, as in the script. */
time_t time(time_t *out)
{
    const time_t now = 1751620087; /* 2025-07-04 09:08:07 UTC */
    if (out) *out = now;
    return now;
}

static uint64_t fnv(const struct buf *text)
{
    uint64_t h = 0xcbf29ce484222325;
    for (size_t i = 0; i < text->len; i++)
        h = (h ^ (unsigned char)text->data[i]) * 0x100000001b3;
    return h;
}

/* What asks for more than jinja2 has, or than is done here, is refused when it
 * is loaded, and nothing else is. */
static const struct {
    const char *name, *said;
} refused[] = {
    {"deepseek-ai-DeepSeek-V3.2", "line 90: filter from_json"},
    {"deepseek-ai-DeepSeek-V4", "line 111: filter from_json"},
    {"deepseek-ai-DeepSeek-V4-Flash-0731", "line 114: filter from_json"},
    {"jamba", "line 158: call with *"},
    {"tencent-Hy3", "line 3: method format"},
};

static void expect_refusal(const char *name, const struct why *why)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if (strcmp(refused[i].name, name) != 0) continue;
        assert_int_equal(why->code, ERR_UNSUPPORTED);
        assert_non_null(strstr(why->text, refused[i].said));
        return;
    }
    fail_msg("%s: %s", name, why->text);
}

/* Of NAME-config: the template in the model's tokenizer_config.json. */
static char *read_config(const char *name)
{
    char path[300];
    const char *folder = getenv("BATON_TEST_DATA"), *end = strrchr(name, '-');
    json_t *config;
    if (!folder || !end || strcmp(end, "-config") != 0) return NULL;
    snprintf(path, sizeof path, "%s/%.*s/tokenizer_config.json", folder,
             (int)(end - name), name);
    if (json_read(&config, path, 1 << 24, NULL)) return NULL;
    char *text =
        mem_dup(json_string_value(json_object_get(config, "chat_template")));
    json_decref(config);
    return text;
}

/* NULL: the text is not here. */
static char *read_template(const char *name, const char *hash)
{
    const char *folder = getenv("BATON_TEMPLATES");
    char path[500];
    snprintf(path, sizeof path, "%s/%s.jinja", folder ? folder : "", hash);
    FILE *f = fopen(path, "rb");
    if (!f) return read_config(name);
    char *text = mem_must(1, 1 << 20);
    text[fread(text, 1, (1 << 20) - 1, f)] = 0;
    fclose(f);
    return text;
}

/* Renders conversation i and compares with the word of the list. */
static void expect_rendering(const struct template *t, const char *name,
                             size_t i, const json_t *variables,
                             const char *want)
{
    struct buf out;
    struct why why = {0};
    char got[32] = "-";
    buf_init(&out, 1 << 24);
    if (!template_render(t, variables, &out, &why))
        snprintf(got, sizeof got, "%016llx", (unsigned long long)fnv(&out));
    if (strcmp(got, want) != 0)
        fail_msg("%s, conversation %zu: %s instead of %s: %s\n%.*s", name, i,
                 got, want, why.text, (int)out.len, out.data);
    buf_fini(&out);
}

/* A line: name, source, licence, the text's hash, a result for each
 * conversation. */
static bool test_line(char *line, const json_t *conversations)
{
    char *rest, *name = strtok_r(line, " ", &rest);
    strtok_r(NULL, " ", &rest);
    strtok_r(NULL, " ", &rest);
    char *text = read_template(name, strtok_r(NULL, " ", &rest)), *want;
    if (!text) return false;
    struct template *t = NULL;
    struct why why = {0};
    if (template_compile(&t, text, strlen(text), &why)) {
        expect_refusal(name, &why);
        mem_free(text);
        return true;
    }
    size_t i = 0;
    for (; (want = strtok_r(NULL, " \n", &rest)); i++)
        expect_rendering(t, name, i, json_array_get(conversations, i), want);
    assert_int_equal(i, json_array_size(conversations));
    template_destroy(t);
    mem_free(text);
    return true;
}

static void models_templates_render_as_in_jinja2(void **state)
{
    (void)state;
    setenv("TZ", "UTC", 1);
    json_t *conversations = golden_json(TMPL "conversations.json");
    size_t before = mem_live(), tested = 0, absent = 0, cap = 0;
    char *line = NULL;
    FILE *list = fopen(TMPL "models.txt", "r");
    assert_non_null(list);
    while (getline(&line, &cap, list) > 0)
        test_line(line, conversations) ? tested++ : absent++;
    fclose(list);
    free(line);
    printf("%zu templates tested, %zu not here\n", tested, absent);
    assert_int_equal(mem_live(), before);
    json_decref(conversations);
    if (!getenv("BATON_TEMPLATES"))
        SKIP("BATON_TEMPLATES is not set: see tools/fetch-templates");
    assert_true(tested >= 60);
}

TESTS(T(models_templates_render_as_in_jinja2))
