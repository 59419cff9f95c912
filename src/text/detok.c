#include "text/detok.h"
#include "text/utf8.h"

#include <string.h>

void detok_init(struct detok *d, const struct tokenizer *tokenizer,
                bool skip_special)
{
    *d = (struct detok){.tokenizer = tokenizer, .skip_special = skip_special};
}

/* Settles the bytes held and those of s up to the first character that starts
 * in s; returns how many bytes of s that took. */
static size_t settle_held(struct detok *d, const char *s, size_t n,
                          struct buf *out)
{
    char bytes[8];
    size_t take = n < 4 ? n : 4, len, used = d->held_len;
    memcpy(bytes, d->held, used);
    memcpy(bytes + used, s, take);
    int32_t cp = utf8_scan(bytes, used + take, &len);
    if (cp == UTF8_UNFINISHED) {
        memcpy(d->held, bytes, len);
        d->held_len = (unsigned char)len;
        return n;
    }
    if (cp == UTF8_BROKEN)
        utf8_add(out, 0xfffd);
    else
        buf_add(out, bytes, len);
    d->held_len = 0;
    return len - used;
}

void detok_feed(struct detok *d, int32_t id, struct buf *out)
{
    size_t n, i = 0, len;
    if (d->skip_special && tokenizer_is_special(d->tokenizer, id)) return;
    const char *s = tokenizer_token_bytes(d->tokenizer, id, &n);
    if (!n) return;
    if (d->held_len) i = settle_held(d, s, n, out);
    while (i < n) {
        size_t good = utf8_valid(s + i, n - i);
        buf_add(out, s + i, good);
        i += good;
        if (i == n) break;
        if (utf8_scan(s + i, n - i, &len) == UTF8_UNFINISHED) {
            memcpy(d->held, s + i, len);
            d->held_len = (unsigned char)len;
        } else {
            utf8_add(out, 0xfffd);
        }
        i += len;
    }
}

void detok_flush(struct detok *d, struct buf *out)
{
    if (d->held_len) utf8_add(out, 0xfffd);
    d->held_len = 0;
}
