#include "http/sse.h"
#include "base/err.h"

#include <string.h>

void sse_add(struct buf *out, const char *data, size_t n)
{
    for (;;) {
        const char *end = memchr(data, '\n', n);
        size_t len = end ? (size_t)(end - data) : n;
        buf_puts(out, "data: ");
        buf_add(out, data, len);
        buf_putc(out, '\n');
        if (!end) break;
        data += len + 1;
        n -= len + 1;
    }
    buf_putc(out, '\n');
}

void sse_init(struct sse_parser *p, size_t max_bytes)
{
    *p = (struct sse_parser){.has_data = false};
    buf_init(&p->line, max_bytes);
    buf_init(&p->data, max_bytes);
}

void sse_fini(struct sse_parser *p)
{
    buf_fini(&p->line);
    buf_fini(&p->data);
}

static void end_line(struct sse_parser *p,
                     void (*event)(void *arg, const char *data, size_t n),
                     void *arg)
{
    const char *line = p->line.data;
    size_t n = p->line.len;
    if (n == 0) {
        if (p->has_data)
            event(arg, p->data.data ? p->data.data : "", p->data.len);
        buf_reset(&p->data);
        p->has_data = false;
        return;
    }
    if (n >= 4 && memcmp(line, "data", 4) == 0 && (n == 4 || line[4] == ':')) {
        size_t from = n == 4 ? 4 : n > 5 && line[5] == ' ' ? 6 : 5;
        if (p->has_data) buf_putc(&p->data, '\n');
        buf_add(&p->data, line + from, n - from);
        p->has_data = true;
    }
    buf_reset(&p->line);
}

int sse_feed(struct sse_parser *p, const char *bytes, size_t n,
             void (*event)(void *arg, const char *data, size_t n), void *arg)
{
    while (n) {
        if (p->after_cr && *bytes == '\n') {
            p->after_cr = false;
            bytes++, n--;
            continue;
        }
        p->after_cr = false;
        size_t len = 0;
        while (len < n && bytes[len] != '\n' && bytes[len] != '\r')
            len++;
        buf_add(&p->line, bytes, len);
        if (len < n) {
            p->after_cr = bytes[len] == '\r';
            if (!p->line.failed) end_line(p, event, arg);
            len++;
        }
        if (p->line.failed || p->data.failed) return ERR_RANGE;
        bytes += len;
        n -= len;
    }
    return 0;
}
