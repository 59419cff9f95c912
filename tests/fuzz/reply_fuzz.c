/* A model's answer: two bytes choose the parsers, the third where it is split.
 * Whole, split and by bytes it must come apart the same way, into whole
 * characters where it is made of those. */
#include "text/reply.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

static const char tools_text[] =
    "[{\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{\"a\":{"
    "\"type\":\"string\"},\"b\":{\"type\":\"integer\"}}}}}]";

struct heard {
    struct buf parts[3]; /* reasoning, content, calls */
    bool valid;
};

static void hear(void *arg, const struct reply_event *e)
{
    struct heard *h = arg;
    int part = e->kind < REPLY_CALL ? (int)e->kind : 2;
    if (!e->len) abort();
    if (h->valid && utf8_valid(e->text, e->len) != e->len) abort();
    if (e->kind == REPLY_CALL) buf_printf(&h->parts[part], "|%u ", e->call);
    buf_add(&h->parts[part], e->text, e->len);
}

static void take_apart(const struct reply_options *options, const char *text,
                       size_t n, size_t step, struct heard *h)
{
    struct reply_options o = *options;
    for (int i = 0; i < 3; i++) {
        buf_init(&h->parts[i], 1 << 24);
        buf_puts(&h->parts[i], "");
    }
    h->valid = utf8_valid(text, n) == n;
    o.sink = hear;
    o.arg = h;
    struct reply *reply = reply_create(&o);
    for (size_t i = 0; i < n; i += step)
        reply_feed(reply, text + i, n - i < step ? n - i : step);
    reply_end(reply);
    reply_destroy(reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const reasoning[] = {"", "qwen3", "deepseek-r1", "kimi"};
    static const char *const calls[] = {"",           "qwen25",  "qwen3_coder",
                                        "llama3",     "mistral", "deepseekv3",
                                        "deepseekv31"};
    if (size < 3) return 0;
    json_t *tools;
    if (json_parse(&tools, tools_text, sizeof tools_text - 1, NULL)) abort();
    const struct reply_options o = {
        .reasoning = reasoning_find(reasoning[data[0] % 4]),
        .in_reasoning = data[0] & 64,
        .tag_ends_reasoning = data[0] & 32,
        .toolcall = toolcall_find(calls[data[1] % 7]),
        .tools = tools};
    struct heard whole = {0}, split = {0}, bytes = {0};
    const char *text = (const char *)data + 3;
    size_t n = size - 3;
    take_apart(&o, text, n, n + 1, &whole);
    take_apart(&o, text, n, data[2] + 1u, &split);
    take_apart(&o, text, n, 1, &bytes);
    for (int i = 0; i < 3; i++) {
        if (strcmp(whole.parts[i].data, split.parts[i].data) ||
            strcmp(whole.parts[i].data, bytes.parts[i].data))
            abort();
        buf_fini(&whole.parts[i]);
        buf_fini(&split.parts[i]);
        buf_fini(&bytes.parts[i]);
    }
    json_decref(tools);
    return 0;
}
