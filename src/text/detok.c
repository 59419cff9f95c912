#include "text/detok.h"
#include "text/tokenizer_impl.h"
#include "text/utf8.h"

#include <string.h>

void detok_init_within(struct detok *d, const struct tokenizer *tokenizer,
                       bool skip_special)
{
    *d = (struct detok){.tokenizer = tokenizer, .skip_special = skip_special};
}

void detok_init(struct detok *d, const struct tokenizer *tokenizer,
                bool skip_special)
{
    detok_init_within(d, tokenizer, skip_special);
    d->first = true;
    d->strip = tokenizer->decoder.strip_count;
}

/* Whole characters go out. */
static void give(struct detok *d, struct buf *out, const char *s, size_t n)
{
    const char *strip = d->tokenizer->decoder.strip;
    size_t len = d->strip ? strlen(strip) : 0;
    while (d->strip && n) {
        d->strip--;
        if (n < len || memcmp(s, strip, len) != 0) {
            d->strip = 0;
            break;
        }
        s += len;
        n -= len;
    }
    buf_add(out, s, n);
}

static void give_broken(struct detok *d, struct buf *out, size_t count)
{
    while (count--)
        give(d, out, "\xef\xbf\xbd", 3);
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
        give_broken(d, out, 1);
    else
        give(d, out, bytes, len);
    d->held_len = 0;
    return len - used;
}

/* Bytes of byte-level tokens. */
static void feed_bytes(struct detok *d, const char *s, size_t n,
                       struct buf *out)
{
    size_t i = 0, len;
    if (d->held_len) i = settle_held(d, s, n, out);
    while (i < n) {
        size_t good = utf8_valid(s + i, n - i);
        give(d, out, s + i, good);
        i += good;
        if (i == n) break;
        if (utf8_scan(s + i, n - i, &len) == UTF8_UNFINISHED) {
            memcpy(d->held, s + i, len);
            d->held_len = (unsigned char)len;
        } else {
            give_broken(d, out, 1);
        }
        i += len;
    }
}

/* A byte token. */
static void feed_byte(struct detok *d, char byte, struct buf *out)
{
    size_t len;
    d->in_bytes = true;
    d->held[d->held_len++] = (unsigned char)byte;
    int32_t cp = utf8_scan((const char *)d->held, d->held_len, &len);
    if (cp == UTF8_UNFINISHED && !d->broken) return;
    if (cp < 0) d->broken = true;
    if (d->broken)
        give_broken(d, out, d->held_len);
    else
        give(d, out, (const char *)d->held, d->held_len);
    d->held_len = 0;
}

/* The first token of a text loses its marks; they stand for no space then. */
static void feed_unmarked(struct detok *d, int32_t id, struct buf *out)
{
    const char *mark = d->tokenizer->decoder.replace, *found;
    size_t n, len = strlen(mark);
    const char *s = lexicon_bytes(d->tokenizer->lexicon, id, &n);
    while ((found = memmem(s, n, mark, len))) {
        give(d, out, s, (size_t)(found - s));
        n -= (size_t)(found - s) + len;
        s = found + len;
    }
    give(d, out, s, n);
}

void detok_feed(struct detok *d, int32_t id, struct buf *out)
{
    const struct tokenizer *t = d->tokenizer;
    size_t n;
    if (d->skip_special && tokenizer_is_special(t, id)) return;
    const char *s = tokenizer_token_bytes(t, id, &n);
    if (!s) return;
    bool first = d->first;
    d->first = false;
    if (!t->shown) {
        feed_bytes(d, s, n, out);
    } else if (t->flags[id] & TOKENIZER_IS_BYTE) {
        feed_byte(d, *s, out);
    } else {
        detok_flush(d, out);
        if (first && t->decoder.drop_marks)
            feed_unmarked(d, id, out);
        else
            give(d, out, s, n);
    }
}

void detok_flush(struct detok *d, struct buf *out)
{
    give_broken(d, out, d->in_bytes ? d->held_len : d->held_len != 0);
    d->held_len = 0;
    d->in_bytes = d->broken = false;
}
