/* base/buf.h - growable bytes with a maximum.
 *
 * Zero a struct buf and call buf_init; it owns data until buf_fini or
 * buf_detach. data is always followed by a 0 byte once anything was added.
 * When an addition would pass max (or memory is gone), nothing is added and
 * failed stays set: append freely, look once. One thread at a time. */
#ifndef BATON_BASE_BUF_H
#define BATON_BASE_BUF_H

#include <stdarg.h>
#include <stddef.h>

struct buf {
    char *data;
    size_t len; /* bytes used, without the closing 0 */
    size_t cap;
    size_t max;
    int failed;
};

void buf_init(struct buf *b, size_t max);
void buf_fini(struct buf *b);
void buf_reset(struct buf *b);   /* len = 0, failed = 0, memory kept */
char *buf_detach(struct buf *b); /* caller mem_frees; b is empty again */

/* Room for n more bytes; NULL (and failed) past max. */
char *buf_grow(struct buf *b, size_t n);
void buf_add(struct buf *b, const void *bytes, size_t n);
void buf_puts(struct buf *b, const char *text);
void buf_putc(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void buf_drop_front(struct buf *b, size_t n);

/* Appends text as a JSON string's inside (no quotes): valid UTF-8 passes
 * through, control characters, quote and backslash are escaped. */
void buf_json(struct buf *b, const char *text, size_t n);

#endif
