#include "router/body.h"
#include "base/clock.h"
#include "http/resume.h"

#include <inttypes.h>
#include <string.h>

static const char *const own_keys[] = {"bootstrap_host", "bootstrap_port",
                                       "bootstrap_room", RESUME_MEMBER};
enum { OWN_KEYS = sizeof own_keys / sizeof *own_keys };

static bool key_in(struct skim key, const char *const names[], size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (skim_key_is(key, names[i])) return true;
    return false;
}

static size_t element_count(struct skim array)
{
    struct skim value;
    size_t count = 0;
    for (size_t at = 0; skim_element_next(array, &at, &value);)
        count++;
    return count;
}

/* 0: one prompt. text is asked first, then input_ids, as mini_lb does. */
static size_t batch_of(struct skim text, struct skim ids)
{
    if (text.n && skim_kind(text) != 'n') return element_count(text);
    struct skim first = {NULL, 0};
    size_t at = 0;
    skim_element_next(ids, &at, &first);
    return skim_kind(first) == '[' ? element_count(ids) : 0;
}

int body_parse(struct body *out, const char *text, size_t n, bool lists,
               struct why *why)
{
    *out = (struct body){.batch = 0};
    int rc = skim_check(&out->object, text, n, why);
    if (rc) return rc;
    if (skim_kind(out->object) != '{')
        return err_set(why, ERR_FORMAT, "the body must be a JSON object");
    struct skim key, value, text_value = {NULL, 0}, ids = {NULL, 0};
    for (size_t at = 0; skim_member_next(out->object, &at, &key, &value);) {
        if (skim_key_is(key, "stream"))
            out->stream = skim_true(value);
        else if (skim_key_is(key, "return_logprob"))
            out->logprobs = skim_true(value);
        else if (skim_key_is(key, "rid"))
            out->rid = skim_true(value);
        else if (skim_key_is(key, "text"))
            text_value = value;
        else if (skim_key_is(key, "input_ids"))
            ids = value;
        else if (skim_key_is(key, "prompt") || skim_key_is(key, "messages"))
            out->prompt = value;
    }
    if (ids.n) out->prompt = ids;
    if (text_value.n && skim_kind(text_value) != 'n') out->prompt = text_value;
    if (lists) out->batch = batch_of(text_value, ids);
    if (out->batch > BODY_BATCH_MAX)
        return err_set(why, ERR_RANGE, "a batch of %zu prompts is over %d",
                       out->batch, BODY_BATCH_MAX);
    return 0;
}

/* "key": value, or a list of batch values. */
static void add_field(struct buf *out, const char *key, size_t batch,
                      void (*add)(struct buf *out, const char *host, int port),
                      const char *host, int port)
{
    buf_printf(out, "\"%s\": ", key);
    if (batch) buf_putc(out, '[');
    for (size_t i = 0; i < (batch ? batch : 1); i++) {
        if (i) buf_puts(out, ", ");
        add(out, host, port);
    }
    if (batch) buf_putc(out, ']');
}

static void add_host(struct buf *out, const char *host, int port)
{
    (void)port;
    buf_putc(out, '"');
    buf_json(out, host, strlen(host));
    buf_putc(out, '"');
}

static void add_port(struct buf *out, const char *host, int port)
{
    (void)host;
    if (port < 0)
        buf_puts(out, "null");
    else
        buf_printf(out, "%d", port);
}

/* Rooms come from the system's generator, 64 at a time: a call for each would
 * be a tenth of the router's system calls. */
static uint64_t fresh_room(void)
{
    static _Thread_local uint64_t drawn[64];
    static _Thread_local size_t left;
    if (!left) {
        random_bytes(drawn, sizeof drawn);
        left = 64;
    }
    return drawn[--left] >> 1;
}

static void add_room(struct buf *out, const char *host, int port)
{
    (void)host;
    (void)port;
    buf_printf(out, "%" PRIu64, fresh_room());
}

static void add_resume(struct buf *out, const struct body_resume *resume)
{
    buf_printf(out, ", \"" RESUME_MEMBER "\": [%s]", resume->ids->data);
    if (!*resume->rid) return;
    buf_puts(out, ", \"rid\": \"");
    buf_json(out, resume->rid, strlen(resume->rid));
    buf_putc(out, '"');
}

int body_build(const struct body *body, const char *host, int port,
               const struct body_resume *resume, struct buf *out)
{
    buf_putc(out, '{');
    add_field(out, own_keys[0], body->batch, add_host, host, port);
    buf_puts(out, ", ");
    add_field(out, own_keys[1], body->batch, add_port, host, port);
    buf_puts(out, ", ");
    add_field(out, own_keys[2], body->batch, add_room, host, port);
    if (resume) add_resume(out, resume);
    /* The members between dropped ones pass in whole runs. */
    const char *run = NULL, *run_end = NULL;
    struct skim key, value;
    for (size_t at = 0; skim_member_next(body->object, &at, &key, &value);) {
        bool drop = key_in(key, own_keys, OWN_KEYS) ||
                    (resume && *resume->rid && skim_key_is(key, "rid"));
        if (!drop) {
            if (!run) run = key.at;
            run_end = value.at + value.n;
        } else if (run) {
            buf_puts(out, ", ");
            buf_add(out, run, (size_t)(run_end - run));
            run = NULL;
        }
    }
    if (run) {
        buf_puts(out, ", ");
        buf_add(out, run, (size_t)(run_end - run));
    }
    buf_putc(out, '}');
    return out->failed ? ERR_NOMEM : 0;
}

/* ------------------------------------------------------------------------ */

static const char *const merged_keys[] = {
    "input_token_logprobs", "input_top_logprobs", "input_token_ids_logprobs"};
enum { MERGED = 3 };

static void add_span(struct buf *out, struct skim s)
{
    buf_add(out, s.at, s.n);
}

/* What stands between an array's brackets. */
static struct skim inside(struct skim array)
{
    struct skim s = {array.at + 1, array.n - 2};
    while (s.n && strchr(" \t\r\n", s.at[0]))
        s.at++, s.n--;
    while (s.n && strchr(" \t\r\n", s.at[s.n - 1]))
        s.n--;
    return s;
}

static void add_joined(struct buf *out, struct skim a, struct skim b)
{
    struct skim in_a = inside(a);
    struct skim in_b = skim_kind(b) == '[' ? inside(b) : (struct skim){b.at, 0};
    buf_putc(out, '[');
    add_span(out, in_a);
    if (in_a.n && in_b.n) buf_puts(out, ", ");
    add_span(out, in_b);
    buf_putc(out, ']');
}

/* decode's meta_info; of each list that prefill has, both parts. */
static void merge_meta(struct skim prefill, struct skim decode, struct buf *out)
{
    struct skim lists[MERGED], key, value;
    bool seen[MERGED] = {false};
    for (int i = 0; i < MERGED; i++) {
        lists[i] = skim_member(prefill, merged_keys[i]);
        if (skim_kind(lists[i]) != '[') lists[i].n = 0;
    }
    const char *comma = "";
    buf_putc(out, '{');
    for (size_t at = 0; skim_member_next(decode, &at, &key, &value);) {
        int which = -1;
        for (int i = 0; i < MERGED; i++)
            if (lists[i].n && skim_key_is(key, merged_keys[i])) which = i;
        buf_puts(out, comma);
        comma = ", ";
        add_span(out, key);
        buf_puts(out, ": ");
        char kind = skim_kind(value);
        if (which >= 0) seen[which] = true;
        if (which >= 0 && (kind == '[' || kind == 'n'))
            add_joined(out, lists[which], value);
        else
            add_span(out, value);
    }
    for (int i = 0; i < MERGED; i++) {
        if (!lists[i].n || seen[i]) continue;
        buf_printf(out, "%s\"%s\": ", comma, merged_keys[i]);
        comma = ", ";
        add_span(out, lists[i]);
    }
    buf_putc(out, '}');
}

static void merge_one(struct skim prefill, struct skim decode, struct buf *out)
{
    struct skim from = skim_member(prefill, "meta_info");
    struct skim into = skim_member(decode, "meta_info");
    if (skim_kind(from) != '{' || skim_kind(into) != '{') {
        add_span(out, decode);
        return;
    }
    const char *end = decode.at + decode.n;
    buf_add(out, decode.at, (size_t)(into.at - decode.at));
    merge_meta(from, into, out);
    buf_add(out, into.at + into.n, (size_t)(end - into.at) - into.n);
}

void body_merge(const char *prefill, size_t prefill_n, const char *decode,
                size_t decode_n, struct buf *out)
{
    struct skim p, d, one, other;
    if (skim_check(&p, prefill, prefill_n, NULL) ||
        skim_check(&d, decode, decode_n, NULL)) {
        buf_add(out, decode, decode_n);
        return;
    }
    if (skim_kind(p) != '[' || skim_kind(d) != '[') {
        merge_one(p, d, out);
        return;
    }
    const char *comma = "";
    size_t at_p = 0;
    buf_putc(out, '[');
    for (size_t at = 0; skim_element_next(d, &at, &one);) {
        buf_puts(out, comma);
        comma = ", ";
        if (skim_element_next(p, &at_p, &other))
            merge_one(other, one, out);
        else
            add_span(out, one);
    }
    buf_putc(out, ']');
}
