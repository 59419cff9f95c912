/* Answers drawn from grammars of calls come apart into calls that fit, in every
 * format, with tags that are tokens and with tags that are text. */
#include "tests/test.h"
#include "tests/text/golden.h"
#include "tests/text/vocab.h"

#include "base/clock.h"
#include "base/mem.h"
#include "json/json.h"
#include "text/grammar.h"
#include "text/pattern_calls.h"
#include "text/reply.h"

#define DS(what) "<｜tool▁" what "｜>"
static const char *const tags[] = {
    "<tool_call>",     "</tool_call>",  "<|python_tag|>", "[TOOL_CALLS]",
    DS("calls▁begin"), DS("calls▁end"), DS("sep"),        "<think>",
    DS("call▁begin"),  DS("call▁end"),  "</think>",       "<other>"};
static const char *const formats[] = {"qwen25",  "qwen3_coder", "llama3",
                                      "mistral", "deepseekv3",  "deepseekv31"};
enum { FORMATS = sizeof formats / sizeof *formats };

#define WEATHER                                                              \
    "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\","    \
    "\"enum\":[\"Ulm\",\"Zürich\"]},\"days\":{\"type\":\"integer\","        \
    "\"minimum\":1,\"maximum\":9},\"deep\":{\"type\":\"array\",\"maxItems\"" \
    ":2,\"items\":{\"type\":\"boolean\"}}},\"required\":[\"city\"]}"
#define NOTE                                                            \
    "{\"type\":\"object\",\"properties\":{\"k\":{\"type\":\"string\"}," \
    "\"on\":{\"type\":\"boolean\"}},\"required\":[\"k\",\"on\"]}"
#define TOOL(name, more) \
    "{\"type\":\"function\",\"function\":{\"name\":\"" name "\"" more "}}"
static const char tools_text[] = "[" TOOL(
    "get_weather",
    ",\"strict\":true,"
    "\"parameters\":" WEATHER) "," TOOL("note", ",\"parameters"
                                                "\":" NOTE ",\"strict\":"
                                                "true") "," TOOL("now", "") "]";

/* All bytes, some words, perhaps the tags, an end. */
struct world {
    struct tokenizer *tokenizer;
    struct grammars *grammars;
    json_t *tools;
    int32_t end;
};

static void world_init(struct world *w, bool tokens)
{
    static const char *const words[] = {
        "{\"",  "name", "\": \"", "\", \"",  "get",
        "true", "Ulm",  "}\n",    "<t",      "ool",
        "``",   "\n</", "think",  "</think", "\n</parameter>\n"};
    static struct vocab v;
    vocab_init(&v);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t at = v.spec.token_count++;
        v.types[at] = TOKEN_NORMAL;
        v.tokens[at] = vocab_spell(&v, words[i], strlen(words[i]));
    }
    for (size_t i = 0; tokens && i < sizeof tags / sizeof *tags; i++)
        vocab_add(&v, tags[i], i % 2 ? TOKEN_CONTROL : TOKEN_USER_DEFINED);
    w->end = v.spec.eos = vocab_add(&v, "<end>", TOKEN_CONTROL);
    w->tokenizer = vocab_create(&v);
    w->grammars = grammars_create(w->tokenizer);
    assert_int_equal(
        json_parse(&w->tools, tools_text, sizeof tools_text - 1, NULL), 0);
}

static void world_fini(struct world *w)
{
    grammars_destroy(w->grammars);
    tokenizer_destroy(w->tokenizer);
    json_decref(w->tools);
}

static int get(struct world *w, const struct calls_spec *spec,
               struct grammar **out, struct why *why)
{
    struct buf text;
    buf_init(&text, 1 << 20);
    pattern_calls_text(spec, &text);
    int rc =
        grammars_get(w->grammars, GRAMMAR_CALLS, text.data, text.len, out, why);
    buf_fini(&text);
    return rc;
}

/* The mask behind some tokens says of each token what trying it says. */
static void check_mask(struct world *w, struct grammar *g,
                       const int32_t *tokens, int n)
{
    uint32_t vocab;
    struct matcher *m = matcher_create(g, &w->end, 1, -1, -1);
    for (int i = 0; i < n; i++)
        assert_true(matcher_accept(m, tokens[i]));
    const uint64_t *mask = matcher_allowed(m, &vocab);
    for (uint32_t t = 0; t < vocab; t++) {
        struct matcher *one = matcher_create(g, &w->end, 1, -1, -1);
        for (int i = 0; i < n; i++)
            matcher_accept(one, tokens[i]);
        if (matcher_accept(one, (int32_t)t) != (mask[t / 64] >> t % 64 & 1))
            fail_msg("token %u behind %d others", t, n);
        matcher_destroy(one);
    }
    matcher_destroy(m);
}

/* An answer of allowed tokens; those that lead to an end are liked better the
 * longer it is. False: it grew too long. */
static bool draw(struct world *w, struct grammar *g, uint64_t *seed,
                 struct buf *out)
{
    struct matcher *m = matcher_create(g, &w->end, 1, -1, -1);
    int32_t tokens[3000];
    int check = (int)(rng_next(seed) % 150);
    buf_reset(out);
    for (int n = 0; n < 3000 && !matcher_ended(m); n++) {
        if (n == check) check_mask(w, g, tokens, n);
        uint32_t vocab, start, t;
        const uint64_t *mask = matcher_allowed(m, &vocab);
        static const char likely[] = "\"}</>\n`|]";
        start = t = (uint32_t)(rng_next(seed) % vocab);
        if (rng_next(seed) % 3 == 0)
            start = t = (unsigned char)likely[rng_next(seed) % 9];
        if (rng_next(seed) % 8 == 0)
            start = t = 256 + (uint32_t)(rng_next(seed) % (vocab - 256));
        while (!(mask[t / 64] >> t % 64 & 1)) {
            t = (t + 1) % vocab;
            assert_int_not_equal(t, start); /* something can follow */
        }
        if (n > 20 && mask[w->end / 64] >> w->end % 64 & 1)
            t = (uint32_t)w->end;
        assert_true(matcher_accept(m, (int32_t)t));
        size_t len;
        const char *bytes =
            tokenizer_token_bytes(w->tokenizer, (int32_t)t, &len);
        tokens[n] = (int32_t)t;
        if ((int32_t)t != w->end) buf_add(out, bytes, len);
    }
    bool ended = matcher_ended(m);
    matcher_destroy(m);
    return ended;
}

struct heard {
    struct buf reasoning, content, name, arguments;
    uint32_t calls;
};

static void check_call(const struct heard *h)
{
    json_t *v;
    bool weather = strcmp(h->name.data, "get_weather") == 0;
    if (json_parse(&v, h->arguments.data, h->arguments.len, NULL)) {
        /* A lone surrogate's escape is valid JSON, but not to jansson. */
        if (strstr(h->arguments.data, "\\u")) return;
        fail_msg("%s %s", h->name.data, h->arguments.data);
    }
    const char *key;
    json_t *of;
    if (strcmp(h->name.data, "now") == 0) { /* says nothing of them */
        assert_true(json_is_object(v));
        json_decref(v);
        return;
    }
    assert_non_null(json_object_get(v, weather ? "city" : "k"));
    assert_true(weather || json_object_get(v, "on"));
    json_object_foreach (v, key, of) {
        const char *s = json_string_value(of);
        bool fits =
            weather && !strcmp(key, "city")
                ? s && (!strcmp(s, "Ulm") || !strcmp(s, "Zürich"))
            : weather && !strcmp(key, "days")
                ? json_integer_value(of) >= 1 && json_integer_value(of) <= 9
            : weather && !strcmp(key, "deep")
                ? json_is_array(of) && json_array_size(of) <= 2
            : !weather && !strcmp(key, "k")  ? s != NULL
            : !weather && !strcmp(key, "on") ? json_is_boolean(of)
                                             : false;
        if (!fits) fail_msg("%s %s", h->name.data, h->arguments.data);
    }
    json_decref(v);
}

static void end_call(struct heard *h)
{
    if (h->name.len) check_call(h);
    buf_reset(&h->name);
    buf_reset(&h->arguments);
}

static void hear(void *arg, const struct reply_event *event)
{
    struct heard *h = arg;
    struct buf *to[] = {&h->reasoning, &h->content, &h->name, &h->arguments};
    if (event->kind == REPLY_CALL) {
        end_call(h);
        h->calls++;
    }
    buf_add(to[event->kind], event->text, event->len);
}

/* Takes an answer apart; its calls are checked. */
static void listen(const struct calls_spec *spec, const struct buf *text,
                   struct heard *h)
{
    struct buf *all[] = {&h->reasoning, &h->content, &h->name, &h->arguments};
    for (size_t i = 0; i < 4; i++)
        buf_init(all[i], 1 << 20);
    const struct reply_options o = {.reasoning = spec->reasoning,
                                    .in_reasoning = spec->inside,
                                    .tag_ends_reasoning = true,
                                    .toolcall = spec->format,
                                    .tools = spec->tools,
                                    .sink = hear,
                                    .arg = h};
    struct reply *reply = reply_create(&o);
    reply_feed(reply, text->data, text->len);
    reply_end(reply);
    assert_false(reply_failed(reply));
    reply_destroy(reply);
    end_call(h);
    for (size_t i = 0; i < 4; i++)
        buf_puts(all[i], "");
}

static void heard_fini(struct heard *h)
{
    struct buf *all[] = {&h->reasoning, &h->content, &h->name, &h->arguments};
    for (size_t i = 0; i < 4; i++)
        buf_fini(all[i]);
}

/* Draws from the spec's grammar; how many answers ended, and in calls. */
static void try(struct world *w, const struct calls_spec *spec, int times,
                uint64_t *seed, uint32_t *ended, uint32_t *called)
{
    struct grammar *g;
    struct why why = {0};
    struct buf text;
    buf_init(&text, 1 << 20);
    if (get(w, spec, &g, &why)) fail_msg("%s", why.text);
    for (int i = 0; i < times; i++) {
        struct heard h = {0};
        if (!draw(w, g, seed, &text)) continue;
        listen(spec, &text, &h);
        ++*ended;
        *called += h.calls > 0;
        if (spec->must &&
            (h.calls == 0 || h.content.len || (spec->one && h.calls != 1)))
            fail_msg("%u calls, content %s, of %.*s", h.calls, h.content.data,
                     (int)text.len, text.data);
        if (spec->one) assert_in_range(h.calls, 0, 1);
        heard_fini(&h);
    }
    grammar_drop(g);
    buf_fini(&text);
}

static void calls_that_must_come_fit(void **state)
{
    (void)state;
    uint64_t seed = 3;
    for (int tokens = 0; tokens < 2; tokens++) {
        struct world w;
        world_init(&w, tokens);
        for (int i = 0; i < FORMATS; i++) {
            uint32_t ended = 0, called = 0;
            struct calls_spec s = {.format = toolcall_find(formats[i]),
                                   .tools = w.tools,
                                   .must = true};
            try(&w, &s, 12, &seed, &ended, &called);
            s.one = true;
            try(&w, &s, 6, &seed, &ended, &called);
            s.reasoning = reasoning_find("qwen3");
            try(&w, &s, 6, &seed, &ended, &called);
            s.inside = true;
            s.name = "get_weather";
            try(&w, &s, 6, &seed, &ended, &called);
            assert_int_equal(called, ended);
            assert_true(ended >= 20);
        }
        world_fini(&w);
    }
}

static void calls_in_any_text_fit(void **state)
{
    (void)state;
    uint64_t seed = 4;
    for (int tokens = 0; tokens < 2; tokens++) {
        struct world w;
        world_init(&w, tokens);
        uint32_t ended = 0, called = 0;
        for (int i = 0; i < FORMATS; i++) {
            struct calls_spec s = {.format = toolcall_find(formats[i]),
                                   .tools = w.tools};
            try(&w, &s, 40, &seed, &ended, &called);
            s.reasoning = reasoning_find("kimi");
            s.one = true;
            try(&w, &s, 20, &seed, &ended, &called);
        }
        assert_true(ended >= 300);
        assert_true(tokens == 0 || called >= 10);
        world_fini(&w);
    }
}

/* By characters: 1 the text is a whole answer, 0 it is the beginning of one. */
static int takes(struct world *w, struct grammar *g, const char *text)
{
    struct token_list ids = {0};
    assert_int_equal(
        tokenizer_encode(w->tokenizer, text, strlen(text), 0, &ids), 0);
    struct matcher *m = matcher_create(g, &w->end, 1, -1, -1);
    int result = 0;
    for (size_t i = 0; i < ids.count && !result; i++)
        if (!matcher_accept(m, ids.ids[i])) result = -1;
    if (!result) result = matcher_accept(m, w->end);
    matcher_destroy(m);
    token_list_fini(&ids);
    return result;
}

#define CALL(name, args)                                         \
    "<tool_call>\n{\"name\": \"" name "\", \"arguments\": " args \
    "}\n</tool_call>"

static void texts_are_taken_or_not(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int must, any, thinks; /* must: not in reasoning; thinks: must, in it */
    } rows[] = {
        {CALL("get_weather", "{\"city\": \"Ulm\"}"), 1, 1, 0},
        {CALL("note", "{\"k\":\"}</\",\"on\":true}"), 1, 1, 0},
        {CALL("get_weather", "{\"city\": \"Bonn\"}"), -1, -1, 0},
        {CALL("get_weather", "{}"), -1, -1, 0},
        {CALL("other", "{}"), -1, -1, 0},
        {CALL("note", "{\"k\":\"\",\"on\":true}") "\n" CALL(
             "note", "{\"k\":\"\",\"on\":false}"),
         1, 1, 0},
        {CALL("note", "{\"k\":\"\",\"on\":true}") " and more", -1, -1, 0},
        {"Look: " CALL("note", "{\"k\":\"\",\"on\":true}"), -1, 1, 0},
        {"Look: <tool_calls> <tool", -1, 1, 0},
        {"Look: <tool_call> words", -1, -1, 0},
        {"<other> tokens <end", -1, 1, 0},
        {"", 0, 1, 0},
        {"I <tool_call> think</think>\n\n" CALL("note",
                                                "{\"k\":\"\",\"on\":true}"),
         -1, -1, 1},
        {"I think</think>\n\nso", -1, 1, -1},
    };
    for (int tokens = 0; tokens < 2; tokens++) {
        struct world w;
        struct grammar *g[3];
        struct why why = {0};
        world_init(&w, tokens);
        struct calls_spec s = {.format = toolcall_find("qwen25"),
                               .tools = w.tools};
        assert_int_equal(get(&w, &s, &g[1], &why), 0);
        s.must = true;
        assert_int_equal(get(&w, &s, &g[0], &why), 0);
        s.inside = true;
        s.reasoning = reasoning_find("qwen3");
        assert_int_equal(get(&w, &s, &g[2], &why), 0);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            const int want[] = {rows[i].must, rows[i].any, rows[i].thinks};
            for (int k = 0; k < 3; k++)
                if (takes(&w, g[k], rows[i].text) != want[k])
                    fail_msg("%s: grammar %d, tokens %d, not %d", rows[i].text,
                             k, tokens, want[k]);
        }
        for (int k = 0; k < 3; k++)
            grammar_drop(g[k]);
        world_fini(&w);
    }
}

static void world_open(struct world *w, const char *dir, const char *folder,
                       const char *end)
{
    char path[512];
    struct why why = {0};
    snprintf(path, sizeof path, "%s/%s/tokenizer.json", dir, folder);
    if (tokenizer_open(&w->tokenizer, path, NULL, &why))
        fail_msg("%s", why.text);
    w->grammars = grammars_create(w->tokenizer);
    w->end = tokenizer_find(w->tokenizer, end);
    assert_true(w->end >= 0);
    assert_int_equal(
        json_parse(&w->tools, tools_text, sizeof tools_text - 1, NULL), 0);
}

/* The models' own tokens of their own formats. */
static void real_vocabularies_have_their_tags(void **state)
{
    (void)state;
#define ARGS "{\"city\": \"Zürich\", \"days\": 3}"
    static const struct {
        const char *folder, *end, *format, *text;
        uint32_t tags; /* added tokens in it */
    } rows[] = {
        {"qwen3", "<|im_end|>", "qwen25", CALL("get_weather", ARGS), 2},
        {"qwen3", "<|im_end|>", "qwen3_coder",
         "<tool_call>\n<function=get_weather>\n<parameter=city>\nUlm\n"
         "</parameter>\n</function>\n</tool_call>",
         2},
        {"llama3_1", "<|eot_id|>", "llama3",
         "{\"name\": \"get_weather\", \"parameters\": " ARGS "}", 0},
        {"deepseek_v3", "<｜end▁of▁sentence｜>", "deepseekv3",
         DS("calls▁begin") DS("call▁begin") "function" DS(
             "sep") "get_weather\n```json\n" ARGS "\n```" DS("call▁end")
             DS("calls▁end"),
         5},
        {"deepseek_v3", "<｜end▁of▁sentence｜>", "deepseekv31",
         DS("calls▁begin") DS("call▁begin") "get_weather" DS("sep")
             ARGS DS("call▁end") DS("calls▁end"),
         5},
    };
    const char *dir = golden_data();
    struct world w = {0};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!i || strcmp(rows[i].folder, rows[i - 1].folder) != 0) {
            if (i) world_fini(&w);
            world_open(&w, dir, rows[i].folder, rows[i].end);
        }
        struct token_list ids = {0};
        size_t n = strlen(rows[i].text);
        assert_int_equal(
            tokenizer_encode(w.tokenizer, rows[i].text, n, 0, &ids), 0);
        uint32_t found = 0;
        for (size_t k = 0; k < ids.count; k++)
            found += tokenizer_is_added(w.tokenizer, ids.ids[k]);
        assert_int_equal(found, rows[i].tags);
        token_list_fini(&ids);
        for (int must = 0; must < 2; must++) {
            struct grammar *g;
            struct why why = {0};
            const struct calls_spec s = {.format =
                                             toolcall_find(rows[i].format),
                                         .tools = w.tools,
                                         .must = must};
            if (get(&w, &s, &g, &why)) fail_msg("%s", why.text);
            assert_int_equal(takes(&w, g, rows[i].text), 1);
            grammar_drop(g);
        }
    }
    world_fini(&w);
}

static void what_cannot_be_held_is_refused_by_name(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
        {"qwen25", "{\"type\":\"string\"}", "schema of an object"},
        {"qwen25", "[]", "schema of an object"},
        {"qwen25", "{\"properties\":{\"a\":{\"not\":{}}}}",
         "\"f\": json_schema"},
        {"llama3", "{\"properties\":{\"a\":{\"$ref\":\"#/x\"}}}",
         "names nothing"},
        {"qwen3_coder",
         "{\"properties\":{\"a\":{\"type\":\"string\",\"minLength\":3}}}",
         "the parameter a: minLength"},
        {"qwen3_coder",
         "{\"properties\":{\"a\":{\"type\":\"string\",\"enum\":[1]}}}", "enum"},
    };
    struct world w;
    world_init(&w, true);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[400];
        json_t *tools;
        struct grammar *g;
        struct why why = {0};
        int n = snprintf(text, sizeof text,
                         "[" TOOL("f", ",\"parameters\":%s") "]", rows[i][1]);
        assert_int_equal(json_parse(&tools, text, (size_t)n, NULL), 0);
        const struct calls_spec s = {
            .format = toolcall_find(rows[i][0]), .tools = tools, .must = true};
        int rc = get(&w, &s, &g, &why);
        assert_int_not_equal(rc, 0);
        assert_int_equal(why.code, rc);
        if (!strstr(why.text, rows[i][2]))
            fail_msg("%s: %s", rows[i][1], why.text);
        json_decref(tools);
    }
    world_fini(&w);
}

TESTS(T(calls_that_must_come_fit), T(calls_in_any_text_fit),
      T(texts_are_taken_or_not), T(real_vocabularies_have_their_tags),
      T(what_cannot_be_held_is_refused_by_name))
