/* Any bytes, whole and in pieces of 7, must give the same events. */
#include "base/err.h"
#include "http/sse.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void note(void *arg, const char *event, size_t n)
{
    struct buf *b = arg;
    if (event[n]) abort();
    buf_printf(b, "%zu:", n);
    buf_add(b, event, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct buf whole, cut;
    struct sse_parser p;
    buf_init(&whole, 1 << 24);
    buf_init(&cut, 1 << 24);
    sse_init(&p, 256);
    int rc = sse_feed(&p, text, size, note, &whole);
    sse_fini(&p);
    sse_init(&p, 256);
    int rc_cut = 0;
    for (size_t at = 0; at < size && !rc_cut; at += 7)
        rc_cut =
            sse_feed(&p, text + at, size - at < 7 ? size - at : 7, note, &cut);
    sse_fini(&p);
    if (rc != rc_cut || whole.len != cut.len ||
        (whole.len && memcmp(whole.data, cut.data, whole.len) != 0))
        abort();
    buf_fini(&whole);
    buf_fini(&cut);
    return 0;
}
