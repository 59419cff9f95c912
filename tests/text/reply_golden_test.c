/* SGLang's parsers and ours take the same answers apart in the same way:
 * tests/golden/reply/cases.json, which tools/golden/reply_golden.py wrote. Each
 * is fed whole, by bytes, and in two pieces cut at every byte. */
#include "tests/test.h"
#include "tests/text/golden.h"

#include "base/mem.h"
#include "text/reply.h"

struct heard {
    struct buf reasoning, content, name, arguments;
    json_t *calls; /* [[name, arguments], ...] as the golden file has them */
};

/* The arguments of the call that came last: JSON, or a text that is none. */
static void end_call(struct heard *h)
{
    if (!h->name.len) return;
    json_t *value;
    if (json_parse(&value, h->arguments.data, h->arguments.len, NULL))
        value = json_stringn(h->arguments.data, h->arguments.len);
    json_array_append_new(h->calls,
                          json_pack("[s%o]", h->name.data, h->name.len, value));
    buf_reset(&h->name);
    buf_reset(&h->arguments);
}

static void hear(void *arg, const struct reply_event *event)
{
    struct heard *h = arg;
    struct buf *to[] = {&h->reasoning, &h->content, &h->name, &h->arguments};
    if (event->kind == REPLY_CALL) end_call(h);
    buf_add(to[event->kind], event->text, event->len);
}

static json_t *stripped(const struct buf *b)
{
    size_t from = 0, to = b->len;
    while (from < to && strchr(" \n", b->data[from]))
        from++;
    while (to > from && strchr(" \n", b->data[to - 1]))
        to--;
    return json_stringn(from < to ? b->data + from : "", to - from);
}

/* What the answer comes to when it is cut at `cut`, or, with 0, into bytes. */
static json_t *take_apart(const struct reply_options *options, const char *text,
                          size_t cut)
{
    struct heard h = {.calls = json_array()};
    struct buf *all[] = {&h.reasoning, &h.content, &h.name, &h.arguments};
    for (size_t i = 0; i < 4; i++)
        buf_init(all[i], 1 << 20);
    struct reply_options o = *options;
    o.sink = hear;
    o.arg = &h;
    struct reply *reply = reply_create(&o);
    size_t n = strlen(text), step = cut ? cut : 1;
    for (size_t i = 0; i < n; i += step, step = cut ? n - cut : 1)
        reply_feed(reply, text + i, step);
    reply_end(reply);
    assert_false(reply_failed(reply));
    reply_destroy(reply);
    end_call(&h);
    json_t *out = json_pack("{soso so}", "reasoning", stripped(&h.reasoning),
                            "content", stripped(&h.content), "calls", h.calls);
    for (size_t i = 0; i < 4; i++)
        buf_fini(all[i]);
    return out;
}

static const json_t *wanted(const json_t *of)
{
    size_t i;
    const json_t *out, *ours = json_object_get(of, "ours");
    if (ours) return ours;
    json_array_foreach (json_object_get(of, "sglang"), i, out) {
        const char *by = json_string_value(
            json_object_get(json_object_get(out, "by"), "0.5.23"));
        if (by && strncmp(by, "whole", 5) == 0) return out;
    }
    fail_msg("a case without an outcome");
    return NULL;
}

static void check(const json_t *of, const json_t *tools)
{
    const json_t *want = wanted(of);
    const char *text = json_string_value(json_object_get(of, "text")),
               *reasoning = json_string_value(json_object_get(of, "reasoning")),
               *toolcall = json_string_value(json_object_get(of, "toolcall"));
    struct reply_options o = {
        .reasoning = reasoning ? reasoning_find(reasoning) : NULL,
        .toolcall = toolcall ? toolcall_find(toolcall) : NULL,
        .tools = tools};
    /* A name may say that the answer begins inside. */
    o.in_reasoning = json_is_true(json_object_get(of, "inside")) ||
                     (o.reasoning && reasoning_begins(o.reasoning, "", 0));
    for (size_t cut = 0; cut <= strlen(text); cut++) {
        json_t *got = take_apart(&o, text, cut);
        const char *key;
        json_t *part;
        json_object_foreach (got, key, part) {
            if (json_equal(part, json_object_get(want, key))) continue;
            char *a = json_dumps(part, JSON_ENCODE_ANY),
                 *b = json_dumps(json_object_get(want, key), JSON_ENCODE_ANY);
            fail_msg("%s, cut at %zu: %s\n got %s\nwant %s", text, cut, key, a,
                     b);
        }
        json_decref(got);
    }
}

static void answers_come_apart_as_with_sglang(void **state)
{
    (void)state;
    size_t i, ours = 0;
    json_t *golden = golden_json("tests/golden/reply/cases.json"), *of;
    json_t *cases = json_object_get(golden, "cases");
    json_array_foreach (cases, i, of) {
        check(of, json_object_get(golden, "tools"));
        ours += json_object_get(of, "ours") != NULL;
    }
    assert_true(json_array_size(cases) >= 80);
    assert_true(ours < json_array_size(cases) / 4);
    json_decref(golden);
}

TESTS(T(answers_come_apart_as_with_sglang))
