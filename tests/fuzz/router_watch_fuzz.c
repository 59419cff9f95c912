/* Any stream of a decode, in pieces whose size the first byte says: passed on
 * and held are the stream without the comments that were understood, whatever
 * the pieces, and the ids kept are digits and commas. */
#include "base/err.h"
#include "router/watch.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void pass(void *arg, const char *bytes, size_t n)
{
    buf_add(arg, bytes, n);
}

static int feed(struct watch *w, struct buf *passed, const char *text, size_t n,
                size_t piece)
{
    int rc = 0;
    watch_init(w, 1 << 20);
    buf_init(passed, 1 << 20);
    for (size_t at = 0; !rc && at < n; at += piece)
        rc = watch_feed(w, text + at, n - at < piece ? n - at : piece, pass,
                        passed);
    return rc;
}

static int same(const struct buf *a, const struct buf *b)
{
    return a->len == b->len && (!a->len || !memcmp(a->data, b->data, a->len));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct watch once, often;
    struct buf p, q;
    char text[64];
    if (!size) return 0;
    const char *stream = (const char *)data + 1;
    int rc = feed(&once, &p, stream, size - 1, size);
    int again = feed(&often, &q, stream, size - 1, 1 + data[0] % 32u);
    if (rc != again) abort();
    if (!rc) {
        if (!same(&p, &q) || !same(&once.held, &often.held) ||
            !same(&once.ids, &often.ids))
            abort();
        if (p.len + once.held.len > size - 1) abort();
    }
    for (size_t i = 0; i < once.ids.len; i++)
        if (!strchr("0123456789,", once.ids.data[i])) abort();
    watch_lost(&once, text, sizeof text);
    watch_fini(&once);
    watch_fini(&often);
    buf_fini(&p);
    buf_fini(&q);
    return 0;
}
