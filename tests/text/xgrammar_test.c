/* EBNF and structural tags take the texts that xgrammar takes (tests/golden/
 * xgrammar.json), and what cannot be had is refused with its line or name. */
#include "tests/test.h"
#include "tests/text/golden.h"
#include "tests/text/vocab.h"

#include "base/mem.h"
#include "text/grammar.h"

static struct tokenizer *tokenizer;
static struct grammars *all;
static int32_t end;

static int setup(void **state)
{
    (void)state;
    static struct vocab v; /* ids of bytes are the bytes */
    vocab_init(&v);
    end = v.spec.eos = vocab_add(&v, "<end>", TOKEN_CONTROL);
    tokenizer = vocab_create(&v);
    all = grammars_create(tokenizer);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    grammars_destroy(all);
    tokenizer_destroy(tokenizer);
    return 0;
}

static bool takes(struct grammar *g, const char *text, size_t n)
{
    struct matcher *m = matcher_create(g, &end, 1, -1, -1);
    bool all_taken = true;
    for (size_t i = 0; i < n && all_taken; i++)
        all_taken = matcher_accept(m, (unsigned char)text[i]);
    all_taken = all_taken && matcher_accept(m, end);
    matcher_destroy(m);
    return all_taken;
}

static int compile(const char *source, struct grammar **g, struct why *why)
{
    return grammars_get(all, GRAMMAR_EBNF, source, strlen(source), g, why);
}

static void grammars_take_what_xgrammar_takes(void **state)
{
    (void)state;
    size_t i, k, yes = 0, no = 0;
    json_t *golden = golden_json("tests/golden/xgrammar.json"), *of, *text;
    json_array_foreach (json_object_get(golden, "cases"), i, of) {
        const char *source = json_string_value(json_object_get(of, "grammar"));
        struct grammar *g;
        struct why why = {0};
        bool ebnf = json_is_true(json_object_get(of, "ebnf"));
        int rc = grammars_get(all, ebnf ? GRAMMAR_EBNF : GRAMMAR_STRUCTURE,
                              source, strlen(source), &g, &why);
        if (!!rc != json_is_true(json_object_get(of, "error")))
            fail_msg("%s: %s", source, why.text);
        if (rc) continue;
        json_array_foreach (json_object_get(of, "texts"), k, text) {
            const json_t *t = json_array_get(text, 0);
            bool want = json_is_true(json_array_get(text, 1));
            if (takes(g, json_string_value(t), json_string_length(t)) != want)
                fail_msg("%s: %s: not %d", source, json_string_value(t), want);
            *(want ? &yes : &no) += 1;
        }
        grammar_drop(g);
    }
    assert_true(yes > 50);
    assert_true(no > 100);
    json_decref(golden);
}

static void what_is_not_done_is_named_with_its_line(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"root ::= (=\"a\") \"b\"", "line 1: look-ahead"},
        {"root ::= \"a\"\n\n b", "line 3: there is no rule b"},
        {"root ::= \"a\"\nroot ::= \"b\"", "line 2: defined twice: root"},
        {"root ::= root \"a\" | \"b\"", "defined by itself"},
        {"root ::= ws root \"a\" | \"b\"\nws ::= \" \"*", "defined by itself"},
        {"root ::= \"\\q\"", "unknown escape"},
        {"root ::= \"\\ud800\"", "no character"},
        {"root ::= [z-a]", "line 1: a class: "},
        {"root ::= []", "empty class"},
        {"root ::= \"a\"{99999}", "repetitions"},
        {"root ::= \"a\"{2", "} is missing"},
        {"root ::= &", "not expected: &"},
        {"root ::= )", "a rule must begin"},
        {"\"a\"", "a rule must begin"},
        {"", "there is no rule root"},
        {"root ::= TagDispatch(\"a\")", "no rule TagDispatch"},
        {"root ::= \"\xff\"", "UTF-8"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct grammar *g;
        struct why why = {0};
        int rc = compile(rows[i][0], &g, &why);
        assert_int_not_equal(rc, 0);
        assert_int_equal(why.code, rc);
        if (!strstr(why.text, rows[i][1]))
            fail_msg("%s: %s", rows[i][0], why.text);
    }
}

static void what_no_tag_can_have_is_named(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"[]", "an object is needed"},
        {"{}", "a format must be an object with a type"},
        {"{\"format\":{\"type\":\"qwen_xml_parameter\"}}",
         "a format of type qwen_xml_parameter"},
        {"{\"format\":{\"type\":\"any_text\",\"most\":1}}",
         "unknown member most"},
        {"{\"format\":{\"type\":\"any_text\"},\"x\":1}", "unknown member x"},
        {"{\"structures\":[{\"begin\":\"<a>\",\"schema\":{\"not\":{}},"
         "\"end\":\"\"}],\"triggers\":[\"<a\"]}",
         "not"},
        {"{\"structures\":[{\"begin\":\"<a>\",\"schema\":{},\"end\":\"\"}],"
         "\"triggers\":[\"<b\"]}",
         "no trigger begins the tag <a>"},
        {"{\"structures\":[],\"triggers\":[\"<b\"]}", "needed: structures"},
        {"{\"structures\":[{}],\"triggers\":[\"\"]}", "a text is empty"},
        {"{\"structures\":[{\"begin\":\"a\",\"end\":3}],\"triggers\":[\"a\"]}",
         "needed: end"},
        {"{\"format\":{\"type\":\"const_string\"}}", "needed: value"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct grammar *g;
        struct why why = {0};
        int rc = grammars_get(all, GRAMMAR_STRUCTURE, rows[i][0],
                              strlen(rows[i][0]), &g, &why);
        assert_int_not_equal(rc, 0);
        assert_int_equal(why.code, rc);
        if (!strstr(why.text, rows[i][1]))
            fail_msg("%s: %s", rows[i][0], why.text);
    }
}

/* The older form, as SGLang's function-calling examples have it. */
static void structures_are_triggered(void **state)
{
    (void)state;
    static const char form[] =
        "{\"type\":\"structural_tag\",\"structures\":[{\"begin\":"
        "\"<function=f>\",\"schema\":{\"properties\":{\"a\":{\"type\":"
        "\"boolean\"}},\"required\":[\"a\"]},\"end\":\"</function>\"}],"
        "\"triggers\":[\"<function=\"]}";
    static const char *const yes[] = {
        "", "words < <func", "<function=f>{\"a\": true}</function>",
        "I call <function=f>{\"a\":false}</function> and that is all"};
    static const char *const no[] = {"<function=g>{\"a\":true}</function>",
                                     "<function=f>{}</function>",
                                     "<function=f>{\"a\":true}", "<function="};
    struct grammar *g;
    struct why why = {0};
    if (grammars_get(all, GRAMMAR_STRUCTURE, form, sizeof form - 1, &g, &why))
        fail_msg("%s", why.text);
    for (size_t i = 0; i < 4; i++) {
        assert_true(takes(g, yes[i], strlen(yes[i])));
        assert_false(takes(g, no[i], strlen(no[i])));
    }
    grammar_drop(g);
}

/* A rule that goes on in itself as its last part needs no stack; one in its
 * middle does, and there the depth has a bound that says no, not yes. */
static void rules_may_go_on_in_themselves(void **state)
{
    (void)state;
    struct grammar *list, *nest;
    struct why why = {0};
    char text[6001];
    memset(text, 'a', 6000);
    assert_int_equal(
        compile("root ::= \"a\" more\nmore ::= root | \"\"", &list, &why), 0);
    assert_true(takes(list, text, 6000));
    assert_int_equal(compile("root ::= \"a\" root \"b\" | \"\"", &nest, &why),
                     0);
    memset(text + 3000, 'b', 3000);
    assert_true(takes(nest, text + 2600, 800));
    assert_false(takes(nest, text, 6000));
    grammar_drop(list);
    grammar_drop(nest);
}

static void hostile_grammars_end_soon(void **state)
{
    (void)state;
    struct buf b;
    struct grammar *g;
    struct why why = {0};
    buf_init(&b, 1 << 20);
    buf_puts(&b, "root ::= ");
    for (int i = 0; i < 60000; i++)
        buf_puts(&b, "(");
    buf_putc(&b, 0);
    assert_int_equal(compile(b.data, &g, &why), ERR_RANGE);
    buf_reset(&b);
    buf_puts(&b, "root ::= \"a\"");
    for (int i = 0; i < 200; i++)
        buf_puts(&b, "{10000}");
    buf_putc(&b, 0);
    assert_int_equal(compile(b.data, &g, &why), ERR_RANGE);
    buf_reset(&b);
    for (int i = 0; i < 1500; i++)
        buf_printf(&b, "r%d ::= r%d\n", i, i + 1);
    buf_putc(&b, 0);
    assert_int_equal(compile(b.data, &g, &why), ERR_RANGE);
    buf_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(grammars_take_what_xgrammar_takes),
        T(what_is_not_done_is_named_with_its_line),
        T(what_no_tag_can_have_is_named),
        T(structures_are_triggered),
        T(rules_may_go_on_in_themselves),
        T(hostile_grammars_end_soon),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
