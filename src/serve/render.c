#include "serve/render.h"
#include "text/detok.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

#include <math.h>
#include <string.h>

void render_string(struct buf *to, const char *text)
{
    buf_putc(to, '"');
    buf_json(to, text, strlen(text));
    buf_putc(to, '"');
}

static uint32_t count_chars(const char *text, size_t n)
{
    uint32_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)text[i] & 0xc0) != 0x80;
    return count;
}

uint32_t render_token(struct buf *to, const struct tokenizer *t, int32_t id)
{
    size_t n;
    const char *bytes = tokenizer_token_bytes(t, id, &n);
    struct buf text;
    buf_init(&text, (size_t)1 << 24);
    if (bytes) utf8_repair(&text, bytes, n);
    buf_putc(to, '"');
    if (text.len) buf_json(to, text.data, text.len);
    buf_putc(to, '"');
    uint32_t chars = count_chars(text.data, text.len);
    buf_fini(&text);
    return chars;
}

void render_token_bytes(struct buf *to, const struct tokenizer *t, int32_t id)
{
    size_t n;
    const char *bytes = tokenizer_token_bytes(t, id, &n);
    buf_putc(to, '[');
    for (size_t i = 0; bytes && i < n; i++)
        buf_printf(to, i ? ",%u" : "%u", (unsigned char)bytes[i]);
    buf_putc(to, ']');
}

void render_ids_text(struct buf *to, const struct tokenizer *t,
                     const int32_t *ids, size_t count, bool skip_special)
{
    struct buf text;
    buf_init(&text, (size_t)1 << 30);
    struct detok detok;
    detok_init(&detok, t, skip_special);
    for (size_t i = 0; i < count; i++)
        detok_feed(&detok, ids[i], &text);
    detok_flush(&detok, &text);
    if (text.len) buf_json(to, text.data, text.len);
    to->failed |= text.failed;
    buf_fini(&text);
}

void render_float(struct buf *to, float value)
{
    if (!isfinite(value))
        buf_puts(to, "null");
    else
        buf_printf(to, "%.9g", (double)value);
}

void render_next(struct buf *list)
{
    if (list->len) buf_putc(list, ',');
}

void render_items(struct buf *to, const struct buf *list, size_t from)
{
    if (from && from < list->len) from++; /* the comma before the item */
    if (from < list->len) buf_add(to, list->data + from, list->len - from);
}
