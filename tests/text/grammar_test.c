/* Grammars against what they mean: which texts they take (PCRE2 and a table
 * say), and which tokens may come next (each tried by itself says). */
#include "tests/test.h"
#include "tests/text/vocab.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "json/json.h"
#include "text/grammar.h"
#include "text/regex.h"
#include "text/utf8.h"

static struct tokenizer *tokenizer;
static struct grammars *all;
static int32_t end;
static uint32_t vocab_; /* what matcher_allowed says */

/* An ordinary token that no merge makes. */
static void vocab_word(struct vocab *v, const char *bytes)
{
    size_t at = v->spec.token_count++;
    v->types[at] = TOKEN_NORMAL;
    v->tokens[at] = vocab_spell(v, bytes, strlen(bytes));
}

/* All bytes, some longer tokens, two of the same bytes. */
static int setup(void **state)
{
    (void)state;
    static const char *const words[] = {
        "{\"",  "\":",   "\": ",   "\",",   "\"}",   "ab",   "abc", "true",
        "fals", "nul",   "12",     "123",   ".5",    "e-",   ", ",  "}]",
        "\"a",  "a\"",   "a\": 1", "[[",    "]]",    "[]",   "{}",  "0.",
        "\\u",  "\\\"",  "00",     "--",    "null",  "name", "ag",  "\"}]",
        "x,y",  "red\"", "\"gr",   "aaaaa", "aaaab", "2024-"};
    static struct vocab v;
    vocab_init(&v);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        vocab_word(&v, words[i]);
    end = vocab_add(&v, "<end>", TOKEN_CONTROL);
    v.spec.eos = end;
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

static struct grammar *compile(enum grammar_kind kind, const char *text)
{
    struct grammar *g;
    struct why why = {0};
    if (grammars_get(all, kind, text, strlen(text), &g, &why))
        fail_msg("%s: %s", text, why.text);
    return g;
}

static int32_t byte_token(unsigned char c)
{
    static int32_t ids[256];
    static bool known;
    for (int32_t id = 0; !known && id < (int32_t)tokenizer_vocab(tokenizer);
         id++) {
        size_t n;
        const char *bytes = tokenizer_token_bytes(tokenizer, id, &n);
        if (n == 1 && !tokenizer_is_added(tokenizer, id))
            ids[(unsigned char)bytes[0]] = id;
    }
    known = true;
    return ids[c];
}

/* -1: the text cannot be an answer's beginning; 0: it can; 1: it is whole. */
static int takes(struct grammar *g, const char *text, size_t n)
{
    struct matcher *m = matcher_create(g, &end, 1, -1, -1);
    int result = 0;
    for (size_t i = 0; i < n && !result; i++)
        if (!matcher_accept(m, byte_token((unsigned char)text[i]))) result = -1;
    if (!result) result = matcher_accept(m, end);
    matcher_destroy(m);
    return result;
}

static bool allowed(const uint64_t *mask, int32_t token)
{
    return mask[token / 64] >> token % 64 & 1;
}

/* The mask behind some tokens says of each token what trying it says. */
static void check_mask(struct grammar *g, const int32_t *tokens, size_t n)
{
    struct matcher *m = matcher_create(g, &end, 1, -1, -1);
    for (size_t i = 0; i < n; i++)
        assert_true(matcher_accept(m, tokens[i]));
    const uint64_t *mask = matcher_allowed(m, &vocab_);
    for (int32_t t = 0; t < (int32_t)tokenizer_vocab(tokenizer); t++) {
        struct matcher *one = matcher_create(g, &end, 1, -1, -1);
        for (size_t i = 0; i < n; i++)
            matcher_accept(one, tokens[i]);
        bool ok = matcher_accept(one, t);
        if (ok != allowed(mask, t))
            fail_msg("token %d behind %zu others: %d by itself", t, n, ok);
        matcher_destroy(one);
    }
    matcher_destroy(m);
}

/* An answer of allowed tokens, drawn; its text. Ends when it may with a chance
 * of one in four. */
static bool answer(struct grammar *g, uint64_t *seed, struct buf *out,
                   size_t check)
{
    enum { LONGEST = 150 };
    int32_t tokens[LONGEST];
    struct matcher *m = matcher_create(g, &end, 1, -1, -1);
    buf_reset(out);
    size_t n = 0;
    while (n < LONGEST && !matcher_ended(m)) {
        const uint64_t *mask = matcher_allowed(m, &vocab_);
        int32_t some[1024], count = 0;
        for (int32_t t = 0; t < (int32_t)tokenizer_vocab(tokenizer); t++)
            if (allowed(mask, t)) some[count++] = t;
        assert_true(count > 0);
        assert_int_equal(matcher_must_end(m), count == 1 && some[0] == end);
        int32_t t = some[rng_next(seed) % (uint64_t)count];
        if (allowed(mask, end) && rng_next(seed) % 4 == 0) t = end;
        if (n % check == check - 1) check_mask(g, tokens, n);
        assert_true(matcher_accept(m, t));
        tokens[n++] = t;
        size_t len;
        const char *bytes = tokenizer_token_bytes(tokenizer, t, &len);
        if (t != end) buf_add(out, bytes, len);
    }
    bool ended = matcher_ended(m);
    matcher_destroy(m);
    buf_putc(out, 0);
    out->len--;
    return ended;
}

/* ---- regular expressions ---- */

static const char *const regexes[] = {
    "abc",
    "a*b+c?",
    "(ab|a|abc)(c|bc)",
    "[a-c]{2,4}x",
    "[^ab\\n]+",
    "\\d{3}-\\d{4}",
    "(\\+?[0-9]{1,3} )?[0-9]+",
    "\\w+@\\w+\\.(com|org)",
    "(a|b)*abb",
    "a{0,3}b{2}",
    "(?:x|y)+?z",
    "(?P<n>q)w",
    ".{1,5}",
    "\\x41\\u00e9[\\u00e0-\\u00ff]?",
    "[!-~]+\\s[a-z]",
    "(yes|no|perhaps), (red|green|blue)",
    "^anchored$",
};

static bool matches_whole(const struct regex *r, const char *text, size_t n)
{
    struct regex_walk w;
    assert_int_equal(regex_walk_begin(&w, r, text, n), 0);
    bool whole = regex_walk_next(&w) == 1 && w.from == 0 && w.to == n;
    regex_walk_end(&w);
    return whole;
}

static void regexes_take_what_pcre2_takes(void **state)
{
    (void)state;
    static const char alphabet[] = "abcxyzqw0123-+ @.,\n";
    uint64_t seed = 1;
    uint32_t taken = 0;
    struct buf text;
    buf_init(&text, 1 << 20);
    for (size_t i = 0; i < sizeof regexes / sizeof *regexes; i++) {
        char source[256];
        struct regex *r;
        struct grammar *g = compile(GRAMMAR_REGEX, regexes[i]);
        /* \z: the whole text; \u is not PCRE2's */
        snprintf(source, sizeof source, "\\A(?:%s)\\z", regexes[i]);
        if (strstr(source, "\\u"))
            snprintf(source, sizeof source,
                     "\\A(?:A\xc3\xa9[\xc3\xa0-\xc3\xbf]?)\\z");
        struct why why = {0};
        if (regex_compile(&r, source, strlen(source), &why))
            fail_msg("%s", why.text);
        for (int k = 0; k < 40; k++) { /* texts of its own */
            if (!answer(g, &seed, &text, 23)) continue;
            if (!matches_whole(r, text.data, text.len))
                fail_msg("%s does not take %s", regexes[i], text.data);
            taken++;
            assert_int_equal(takes(g, text.data, text.len), 1);
            if (!text.len) continue;
            /* ... and such with one character changed */
            text.data[rng_next(&seed) % text.len] =
                alphabet[rng_next(&seed) % (sizeof alphabet - 1)];
            if (utf8_valid(text.data, text.len) < text.len) continue;
            assert_int_equal(takes(g, text.data, text.len) == 1,
                             matches_whole(r, text.data, text.len));
        }
        regex_destroy(r);
        grammar_drop(g);
    }
    assert_true(taken > 200);
    buf_fini(&text);
}

static void bad_regexes_are_refused_by_name(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"a(b", ") is missing"},
        {"a)", ") too many"},
        {"[a", "] is missing"},
        {"*a", "nothing to repeat"},
        {"a{2,1}", "n below m"},
        {"a{99999}", "too many repetitions"},
        {"(?=a)", "kind of group"},
        {"(?<=a)b", "kind of group"},
        {"a\\1", "escape"},
        {"\\bword", "escape"},
        {"\\p{L}", "escape"},
        {"a^b", "^ and $"},
        {"[z-a]", "no range"},
        {"a\\", "ends behind"},
        {"(a{1000}){1000}", "large"},
        {"a++", "possessive"},
        {"\xff", "UTF-8"},
        {"x\\u12", "hex digit"},
        {"[^\\d\\D]", "empty"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct grammar *g;
        struct why why = {0};
        assert_int_not_equal(grammars_get(all, GRAMMAR_REGEX, rows[i][0],
                                          strlen(rows[i][0]), &g, &why),
                             0);
        if (!strstr(why.text, rows[i][1]))
            fail_msg("%s: %s", rows[i][0], why.text);
    }
}

/* ---- JSON Schema ---- */

#define PERSON                                                              \
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},"  \
    "\"age\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":150},"         \
    "\"tags\":{\"type\":\"array\",\"items\":{\"enum\":[\"red\",\"green\"]}" \
    "}},\"required\":[\"name\",\"age\"]}"
#define TREE                                                                 \
    "{\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":{\"type\"" \
    ":\"integer\"},\"k\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs"  \
    "/n\"}}},\"required\":[\"v\"]}},\"$ref\":\"#/$defs/n\"}"

static const struct {
    const char *schema, *yes[6], *no[8];
} schemas[] = {
    {"{\"type\":\"boolean\"}", {"true", "false"}, {"True", "1", "", "true "}},
    {"{\"type\":\"null\"}", {"null"}, {"nul", "0"}},
    {"{\"type\":[\"integer\",\"null\"]}", {"null", "-5", "0"}, {"1.5", "05"}},
    {"{\"type\":\"number\"}",
     {"0", "-1.5", "2e10", "3.25E-3", "-0"},
     {"01", ".5", "1.", "+1", "1e", "NaN", "--1"}},
    {"{\"type\":\"string\"}",
     {"\"\"", "\"a b\"", "\"\\n\\u00e9\"", "\"\xc3\xa9\xf0\x9f\x98\x80\""},
     {"\"", "a", "\"\n\"", "\"\\x\"", "\"\\u12\"", "\"\xc3\"", "\"\xff\""}},
    {"{\"type\":\"string\",\"minLength\":2,\"maxLength\":3}",
     {"\"ab\"", "\"abc\"", "\"\\n\xc3\xa9\""},
     {"\"a\"", "\"abcd\"", "\"\""}},
    {"{\"type\":\"string\",\"pattern\":\"^[a-c]+$\"}",
     {"\"a\"", "\"abc\""},
     {"\"\"", "\"d\"", "\"ad\""}},
    {"{\"type\":\"string\",\"pattern\":\"b\"}",
     {"\"b\"", "\"abc\"", "\"\\\"b\\n\""},
     {"\"\"", "\"ac\""}},
    {"{\"type\":\"string\",\"pattern\":\"^\\\"\\\\\\\\$\"}",
     {"\"\\\"\\\\\""},
     {"\"\\\"\"", "\"\"\""}},
    {"{\"type\":\"string\",\"format\":\"date\"}",
     {"\"2024-12-31\""},
     {"\"2024-13-01\"", "\"24-01-01\""}},
    {"{\"type\":\"string\",\"format\":\"email\"}", {"\"anything\""}, {"1"}},
    {"{\"enum\":[\"a\\\"b\",1,null,{\"x\":[1]}]}",
     {"\"a\\\"b\"", "1", "null", "{\"x\":[1]}"},
     {"\"a\"", "2", "{\"x\":1}"}},
    {"{\"const\":5}", {"5"}, {"6", "5.0"}},
    {"{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"string\"}]}",
     {"5", "\"5\""},
     {"null", "5.5"}},
    {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}",
     {"[]", "[1]", "[1,2]", "[1, 2]", "[ ]", "[\n  1,\n  2\n]"},
     {"[1,]", "[,1]", "[1 2]", "[\"1\"]", "[1,  2]", "[1\n,2]"}},
    {"{\"type\":\"array\",\"minItems\":1,\"maxItems\":2}",
     {"[1]", "[{},\"x\"]"},
     {"[]", "[1,2,3]"}},
    {"{\"prefixItems\":[{\"type\":\"integer\"},{\"const\":\"x\"}],\"items\":"
     "{\"type\":\"null\"},\"maxItems\":3}",
     {"[1,\"x\"]", "[1,\"x\",null]"},
     {"[]", "[1]", "[\"x\",1]", "[1,\"x\",null,null]"}},
    {"{\"prefixItems\":[{\"type\":\"integer\"}]}", {"[1]"}, {"[1,2]", "[]"}},
    {PERSON,
     {"{\"name\":\"x\",\"age\":5}", "{\"name\": \"\", \"age\": 150}",
      "{\"name\":\"x\",\"age\":5,\"tags\":[\"red\"]}",
      "{\n  \"name\": \"x\",\n  \"age\": 0\n}"},
     {"{}", "{\"name\":\"x\"}", "{\"age\":5,\"name\":\"x\"}",
      "{\"name\":\"x\",\"age\":151}", "{\"name\":\"x\",\"age\":5,\"z\":1}",
      "{\"name\":\"x\",\"age\":5,}", "{\"name\":\"x\",\"age\":-1}",
      "{\"name\":\"x\",\"age\":5,\"tags\":[\"blue\"]}"}},
    {"{\"properties\":{\"a\":{\"type\":\"null\"},\"b\":{\"type\":\"null\"},"
     "\"c\":{\"type\":\"null\"}},\"required\":[\"b\"]}",
     {"{\"b\":null}", "{\"a\":null,\"b\":null}", "{\"b\":null,\"c\":null}",
      "{\"a\":null,\"b\":null,\"c\":null}"},
     {"{}", "{\"a\":null}", "{\"c\":null}", "{\"a\":null,\"c\":null}",
      "{,\"b\":null}", "{\"b\":null,\"a\":null}"}},
    {"{\"properties\":{\"a\":{\"type\":\"null\"},\"b\":{\"type\":\"null\"}}}",
     {"{}", "{\"a\":null}", "{\"b\":null}", "{\"a\":null,\"b\":null}"},
     {"{\"b\":null,\"b\":null}", "{,}"}},
    {"{\"properties\":{\"a\":{\"type\":\"null\"}},\"additionalProperties\":"
     "{\"type\":\"integer\"}}",
     {"{}", "{\"a\":null}", "{\"x\":1}", "{\"a\":null,\"x\":1,\"y\":2}"},
     {"{\"a\":null,\"x\":null}", "{\"x\":\"\"}"}},
    {"{\"type\":\"object\"}",
     {"{}", "{\"a\":[{},{\"b\":null}]}", "{\"a\":1,\"b\":\"}\"}"},
     {"[]", "{\"a\"}", "{\"a\":1,}", "{1:2}"}},
    {"{}", {"1", "[]", "\"x\"", "{\"a\":{}}"}, {"", "x", "[1"}},
    {"true", {"[[[]]]"}, {"]"}},
    {TREE,
     {"{\"v\":1}", "{\"v\":1,\"k\":[]}",
      "{\"v\":1,\"k\":[{\"v\":2,\"k\":[{\"v\":3}]},{\"v\":4}]}"},
     {"{}", "{\"k\":[]}", "{\"v\":1,\"k\":[{}]}",
      "{\"v\":1,\"k\":[{\"v\":2}}"}},
    {"{\"type\":\"integer\",\"minimum\":-12,\"maximum\":105}",
     {"-12", "-1", "0", "9", "105", "99"},
     {"-13", "106", "-0", "00", "1000", "-99"}},
    {"{\"type\":\"integer\",\"exclusiveMinimum\":18}",
     {"19", "20", "100", "999999999999999999"},
     {"18", "5", "-19", "1000000000000000000", "0"}},
    {"{\"type\":\"integer\",\"maximum\":-7}", {"-7", "-8", "-70"}, {"-6", "0"}},
    {"{\"allOf\":[{\"$ref\":\"#/definitions/x\"}],\"definitions\":{\"x\":"
     "{\"const\":1}},\"title\":\"t\",\"description\":\"d\",\"default\":1}",
     {"1"},
     {"2"}},
};

static void schemas_take_their_texts_and_no_others(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
        struct grammar *g = compile(GRAMMAR_JSON_SCHEMA, schemas[i].schema);
        for (int k = 0; k < 6 && schemas[i].yes[k]; k++)
            if (takes(g, schemas[i].yes[k], strlen(schemas[i].yes[k])) != 1)
                fail_msg("%s: not %s", schemas[i].schema, schemas[i].yes[k]);
        for (int k = 0; k < 8 && schemas[i].no[k]; k++)
            if (takes(g, schemas[i].no[k], strlen(schemas[i].no[k])) == 1)
                fail_msg("%s: takes %s", schemas[i].schema, schemas[i].no[k]);
        grammar_drop(g);
    }
}

static void drawn_answers_are_json(void **state)
{
    (void)state;
    uint64_t seed = 5;
    uint32_t ended = 0;
    struct buf text;
    buf_init(&text, 1 << 20);
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
        struct grammar *g = compile(GRAMMAR_JSON_SCHEMA, schemas[i].schema);
        for (int k = 0; k < 20; k++) {
            if (!answer(g, &seed, &text, 37)) continue;
            json_error_t error;
            json_t *json =
                json_loads(text.data, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
            /* A lone surrogate's escape is valid JSON, but not to jansson. */
            if (!json && !strstr(text.data, "\\u"))
                fail_msg("%s: %s: %s", schemas[i].schema, text.data,
                         error.text);
            json_decref(json);
            ended++;
        }
        grammar_drop(g);
    }
    assert_true(ended > 200);
    buf_fini(&text);
}

static void integers_keep_their_limits(void **state)
{
    (void)state;
    uint64_t seed = 9;
    for (int i = 0; i < 60; i++) {
        int64_t a = (int64_t)(rng_next(&seed) % 4000) - 2000;
        int64_t b = a + (int64_t)(rng_next(&seed) % (i % 2 ? 30 : 3000));
        char schema[128], text[32];
        snprintf(schema, sizeof schema,
                 "{\"type\":\"integer\",\"minimum\":%lld,\"maximum\":%lld}",
                 (long long)a, (long long)b);
        struct grammar *g = compile(GRAMMAR_JSON_SCHEMA, schema);
        for (int64_t x = a - 25; x <= b + 25; x += x < a + 25 ? 1 : 7) {
            int n = snprintf(text, sizeof text, "%lld", (long long)x);
            assert_int_equal(takes(g, text, (size_t)n) == 1, x >= a && x <= b);
        }
        grammar_drop(g);
    }
}

static void bad_schemas_are_refused_by_name(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"{", "line 1"},
        {"5", "must be an object"},
        {"false", "must be an object"},
        {"{\"type\":\"integer\",\"multipleOf\":5}", "multipleOf"},
        {"{\"type\":\"object\",\"properties\":{\"q\":{\"not\":{}}}}", "at q"},
        {"{\"type\":\"number\",\"minimum\":1}", "minimum"},
        {"{\"type\":\"strin\"}", "is no type"},
        {"{\"$ref\":\"#/nowhere\"}", "names nothing"},
        {"{\"$ref\":\"http://x\"}", "names nothing"},
        {"{\"$ref\":\"#\"}", "defined by itself"},
        {"{\"anyOf\":[]}", "not empty"},
        {"{\"anyOf\":[{}],\"type\":\"null\"}", "beside other keywords"},
        {"{\"allOf\":[{},{}]}", "more than one"},
        {"{\"properties\":{},\"required\":[\"x\"]}", "required"},
        {"{\"type\":\"array\",\"uniqueItems\":true}", "uniqueItems"},
        {"{\"type\":\"string\",\"minLength\":5,\"maxLength\":4}", "below"},
        {"{\"type\":\"string\",\"maxLength\":100000}", "too large"},
        {"{\"type\":\"integer\",\"minimum\":5,\"maximum\":4}", "no value"},
        {"{\"type\":\"string\",\"pattern\":\"(\"}", "regex"},
        {"{\"type\":\"array\",\"items\":{\"type\":\"string\",\"pattern\":"
         "\"(a{99}b{99}){999}\"}}",
         "too large"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct grammar *g;
        struct why why = {0};
        if (!grammars_get(all, GRAMMAR_JSON_SCHEMA, rows[i][0],
                          strlen(rows[i][0]), &g, &why))
            fail_msg("taken: %s", rows[i][0]);
        if (!strstr(why.text, rows[i][1]))
            fail_msg("%s: %s", rows[i][0], why.text);
    }
}

/* Nothing grows beyond its bound, however a schema nests. */
static void hostile_schemas_end_soon(void **state)
{
    (void)state;
    struct buf b;
    struct grammar *g;
    buf_init(&b, 1 << 20);
    for (int kind = 0; kind < 3; kind++) {
        static const char *const open[] = {
            "{\"properties\":{\"a\":", "{\"additionalProperties\":",
            "{\"items\":"};
        static const char *const close[] = {"}}", "}", "}"};
        for (int depth = 60; depth <= 100; depth += 40) {
            buf_reset(&b);
            for (int i = 0; i < depth; i++)
                buf_puts(&b, open[kind]);
            buf_puts(&b, "{\"type\":\"null\"}");
            for (int i = 0; i < depth; i++)
                buf_puts(&b, close[kind]);
            int rc =
                grammars_get(all, GRAMMAR_JSON_SCHEMA, b.data, b.len, &g, NULL);
            assert_int_equal(rc, depth > 63 ? ERR_RANGE : 0);
            if (!rc) grammar_drop(g);
        }
    }
    buf_reset(&b);
    buf_puts(&b, "{\"enum\":[0");
    for (int i = 1; i < 5000; i++)
        buf_printf(&b, ",\"value %d\"", i);
    buf_puts(&b, "]}");
    int rc = grammars_get(all, GRAMMAR_JSON_SCHEMA, b.data, b.len, &g, NULL);
    assert_int_equal(rc, 0);
    assert_int_equal(takes(g, "\"value 4999\"", 12), 1);
    assert_int_equal(takes(g, "\"value 5000\"", 12), -1);
    grammar_drop(g);
    buf_fini(&b);
}

static void the_grammar_begins_behind_a_reasoning(void **state)
{
    (void)state;
    struct grammar *g = compile(GRAMMAR_REGEX, "ab");
    int32_t think_end = byte_token('!');
    struct matcher *m = matcher_create(g, &end, 1, -1, think_end);
    assert_null(matcher_allowed(m, &vocab_));
    assert_true(matcher_accept(m, byte_token('z')));
    assert_false(matcher_must_end(m));
    assert_true(matcher_accept(m, think_end));
    assert_true(allowed(matcher_allowed(m, &vocab_), byte_token('a')));
    assert_false(allowed(matcher_allowed(m, &vocab_), byte_token('z')));
    assert_true(matcher_accept(m, byte_token('a')));
    assert_true(matcher_accept(m, byte_token('b')));
    assert_true(matcher_must_end(m));
    assert_false(matcher_accept(m, byte_token('b')));
    assert_false(matcher_accept(m, end));
    matcher_destroy(m);
    grammar_drop(g);
}

/* Whether there is a reasoning is the first token's to say. */
static void the_output_may_begin_with_a_reasoning(void **state)
{
    (void)state;
    struct grammar *g = compile(GRAMMAR_REGEX, "ab");
    int32_t think = byte_token('<'), think_end = byte_token('!');
    for (int thinks = 0; thinks < 2; thinks++) {
        struct matcher *m = matcher_create(g, &end, 1, think, think_end);
        const uint64_t *mask = matcher_allowed(m, &vocab_);
        assert_true(allowed(mask, think));
        assert_true(allowed(mask, byte_token('a')));
        assert_false(allowed(mask, byte_token('z')));
        assert_false(allowed(mask, think_end));
        assert_false(matcher_must_end(m));
        if (thinks) {
            assert_true(matcher_accept(m, think));
            assert_null(matcher_allowed(m, &vocab_));
            assert_true(matcher_accept(m, byte_token('z')));
            assert_true(matcher_accept(m, think_end));
        }
        assert_true(matcher_accept(m, byte_token('a')));
        mask = matcher_allowed(m, &vocab_);
        assert_true(allowed(mask, byte_token('b')));
        assert_false(allowed(mask, think)); /* at the beginning alone */
        assert_false(matcher_accept(m, think));
        matcher_destroy(m);
    }
    struct matcher *m = matcher_create(g, &end, 1, think, think_end);
    assert_false(matcher_accept(m, think_end)); /* nor does it end then */
    matcher_destroy(m);
    m = matcher_create(g, &end, 1, think, -1);
    assert_false(allowed(matcher_allowed(m, &vocab_), think));
    matcher_destroy(m);
    grammar_drop(g);
}

static void grammars_are_kept_and_shared(void **state)
{
    (void)state;
    struct grammar *a = compile(GRAMMAR_REGEX, "kept"), *b;
    b = compile(GRAMMAR_REGEX, "kept");
    assert_ptr_equal(a, b);
    grammar_drop(b);
    b = compile(GRAMMAR_REGEX, "kept?");
    assert_ptr_not_equal(a, b);
    grammar_drop(b);
    for (int i = 0; i < 100; i++) {
        char text[32];
        snprintf(text, sizeof text, "other %d", i);
        grammar_drop(compile(GRAMMAR_REGEX, text));
    }
    assert_int_equal(takes(a, "kept", 4), 1); /* ours still */
    /* Large ones push each other out, and the small ones. */
    struct grammar *small = compile(GRAMMAR_REGEX, "small");
    for (int i = 0; i < 6; i++) {
        char text[48];
        snprintf(text, sizeof text, "(a|b)*a(a|b){12}|c%d", i);
        grammar_drop(compile(GRAMMAR_REGEX, text));
    }
    b = compile(GRAMMAR_REGEX, "small");
    assert_ptr_not_equal(b, small);
    grammar_drop(b);
    grammar_drop(small);
    grammar_drop(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(regexes_take_what_pcre2_takes),
        T(bad_regexes_are_refused_by_name),
        T(schemas_take_their_texts_and_no_others),
        T(drawn_answers_are_json),
        T(integers_keep_their_limits),
        T(bad_schemas_are_refused_by_name),
        T(hostile_schemas_end_soon),
        T(the_grammar_begins_behind_a_reasoning),
        T(the_output_may_begin_with_a_reasoning),
        T(grammars_are_kept_and_shared),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
