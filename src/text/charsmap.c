#include "text/charsmap.h"
#include "base/mem.h"
#include "text/utf8.h"

#include <string.h>
#include <utf8proc.h>

#define SPACE       "\xe2\x96\x81" /* U+2581 */
#define SPACE_BYTES 3

struct charsmap {
    char *table;
    const unsigned char *units; /* little-endian */
    size_t unit_count;
    const char *texts;
    size_t text_bytes;
};

static uint32_t le32(const unsigned char *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
           (uint32_t)p[3] << 24;
}

static int take(struct charsmap **out, char *table, size_t n, struct why *why)
{
    size_t trie = n >= 4 ? le32((unsigned char *)table) : 0;
    if (trie < 4 || trie % 4 || trie > n - 4)
        return err_set(why, ERR_FORMAT, "charsmap: trie of %zu bytes in %zu",
                       trie, n);
    size_t text_bytes = n - 4 - trie;
    const char *texts = table + 4 + trie;
    size_t good = utf8_valid(texts, text_bytes);
    if (good != text_bytes)
        return err_set(why, ERR_FORMAT, "charsmap: not UTF-8 at byte %zu",
                       4 + trie + good);
    for (size_t i = 0, len; i < text_bytes; i += len + 1) {
        len = strnlen(texts + i, text_bytes - i);
        if (len > CHARSMAP_MAX_TEXT)
            return err_set(why, ERR_UNSUPPORTED,
                           "charsmap: a replacement of %zu bytes", len);
    }
    struct charsmap *m = mem_must(1, sizeof *m);
    *m = (struct charsmap){.table = table,
                           .units = (unsigned char *)table + 4,
                           .unit_count = trie / 4,
                           .texts = texts,
                           .text_bytes = text_bytes};
    *out = m;
    return 0;
}

int charsmap_create(struct charsmap **out, const char *table, size_t n,
                    struct why *why)
{
    char *copy = mem_try(n + 1, 1, 0);
    if (!copy) return err_set(why, ERR_NOMEM, "charsmap of %zu bytes", n);
    memcpy(copy, table, n);
    int rc = take(out, copy, n, why);
    if (rc) mem_free(copy);
    return rc;
}

/* The value of a base64 letter, or -1. */
static int six_bits(char c)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(letters, c) : NULL;
    return at ? (int)(at - letters) : -1;
}

int charsmap_create_base64(struct charsmap **out, const char *text, size_t n,
                           struct why *why)
{
    size_t whole = n, len = 0;
    while (n && whole - n < 2 && text[n - 1] == '=')
        n--;
    if (whole % 4 || n % 4 == 1)
        return err_set(why, ERR_FORMAT, "charsmap: base64 of %zu letters",
                       whole);
    char *table = mem_try(n / 4 * 3 + 3, 1, 0);
    if (!table) return err_set(why, ERR_NOMEM, "charsmap of %zu bytes", n);
    uint32_t bits = 0;
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        int six = six_bits(text[i]);
        if (six < 0)
            rc = err_set(why, ERR_FORMAT, "charsmap: letter %zu of base64", i);
        bits = bits << 6 | (uint32_t)(six & 63);
        if (i % 4 == 0) continue;
        table[len++] = (char)(bits >> (6 - i % 4 * 2));
    }
    if (!rc) rc = take(out, table, len, why);
    if (rc) mem_free(table);
    return rc;
}

void charsmap_destroy(struct charsmap *m)
{
    if (!m) return;
    mem_free(m->table);
    mem_free(m);
}

/* Where a unit's children start, relative to it. Source: Darts-clone's
 * DoubleArrayUnit, as are the bits below. */
static size_t offset_of(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
}

static bool unit_at(const struct charsmap *m, size_t at, uint32_t *unit)
{
    if (at >= m->unit_count) return false;
    *unit = le32(m->units + 4 * at);
    return true;
}

/* The text of a value, if it starts with a whole character or is empty. */
static const char *text_at(const struct charsmap *m, uint32_t value,
                           size_t *len)
{
    if (value >= m->text_bytes) return NULL;
    const char *s = m->texts + value;
    if (((unsigned char)*s & 0xc0) == 0x80) return NULL;
    *len = strnlen(s, m->text_bytes - value);
    return s;
}

/* The text for the longest key, or the shortest, that starts s; NULL: none is
 * one. *used: bytes of the key. */
static const char *find(const struct charsmap *m, bool longest, const char *s,
                        size_t n, size_t *used, size_t *len)
{
    const char *found = NULL;
    uint32_t unit;
    size_t at = 0, text_len;
    if (!unit_at(m, at, &unit)) return NULL;
    at ^= offset_of(unit);
    for (size_t i = 0; i < n && s[i] && (longest || !found); i++) {
        unsigned char byte = (unsigned char)s[i];
        at ^= byte;
        if (!unit_at(m, at, &unit) || (unit & (1u << 31 | 0xff)) != byte) break;
        at ^= offset_of(unit);
        bool ends = unit >> 8 & 1,
             whole = i + 1 == n || ((unsigned char)s[i + 1] & 0xc0) != 0x80;
        if (!ends || !whole || !unit_at(m, at, &unit)) continue;
        const char *text = text_at(m, unit & ~(1u << 31), &text_len);
        if (!text) continue;
        found = text;
        *used = i + 1;
        *len = text_len;
    }
    return found;
}

/* Hugging Face's. */

/* Marks that Unicode 15.1 to 17.0 assigned, of less than 4 bytes: they extend a
 * cluster in Hugging Face's tables (measured against tokenizers 0.23.3, code
 * point by code point) and are unknown to utf8proc's 15.0. */
static bool new_mark(uint32_t cp)
{
    return cp == 0x897 || (cp >= 0x1acf && cp <= 0x1add) ||
           (cp >= 0x1ae0 && cp <= 0x1aeb);
}

/* Bytes of the grapheme cluster at s. */
static size_t cluster(const char *s, size_t n)
{
    size_t end, len;
    uint32_t before = utf8_get(s, &end), next;
    utf8proc_int32_t state = 0;
    while (end < n) {
        next = utf8_get(s + end, &len);
        if (before < 0x80 && next < 0x80 && (before != '\r' || next != '\n'))
            break;
        if (!new_mark(next) &&
            utf8proc_grapheme_break_stateful((utf8proc_int32_t)before,
                                             (utf8proc_int32_t)next, &state))
            break;
        end += len;
        before = next;
    }
    return end;
}

void charsmap_precompiled(const struct charsmap *m, struct buf *out,
                          const char *s, size_t n)
{
    enum { SHORT_CLUSTER = 6 };
    size_t used, len;
    for (size_t i = 0; i < n;) {
        size_t end = i + cluster(s + i, n - i);
        const char *text = NULL;
        if (end - i < SHORT_CLUSTER)
            text = find(m, false, s + i, end - i, &used, &len);
        if (text) {
            buf_add(out, text, len);
            i = end;
        }
        for (size_t step; i < end; i += step) {
            step = utf8_len((unsigned char)s[i]);
            text = find(m, false, s + i, step, &used, &len);
            buf_add(out, text ? text : s + i, text ? len : step);
        }
    }
}

/* SentencePiece's. Source: Normalizer::Normalize and NormalizePrefix. */

/* What comes next becomes this; *used: bytes of s that it stands for. */
static const char *next_part(const struct charsmap_rules *rules, const char *s,
                             size_t n, size_t *used, size_t *len)
{
    const struct added_token *symbol =
        rules->symbols ? added_longest(rules->symbols, s, n) : NULL;
    const char *text = NULL;
    if (symbol) {
        *used = *len = symbol->len;
        return s;
    }
    if (rules->map) text = find(rules->map, true, s, n, used, len);
    if (text) return text;
    *used = *len = utf8_len((unsigned char)*s);
    return s;
}

static void add_escaped(struct buf *out, const char *s, size_t n)
{
    const char *space;
    while (n && (space = memchr(s, ' ', n))) {
        size_t before = (size_t)(space - s);
        buf_add(out, s, before);
        buf_add(out, SPACE, SPACE_BYTES);
        s = space + 1;
        n -= before + 1;
    }
    buf_add(out, s, n);
}

static size_t leading_spaces(const struct charsmap_rules *rules, const char *s,
                             size_t n)
{
    size_t i = 0, used, len;
    while (i < n) {
        const char *part = next_part(rules, s + i, n - i, &used, &len);
        if (len != 1 || *part != ' ') break;
        i += used;
    }
    return i;
}

static void drop_trailing(struct buf *out)
{
    size_t n = out->len;
    while (n >= SPACE_BYTES &&
           !memcmp(out->data + n - SPACE_BYTES, SPACE, SPACE_BYTES))
        n -= SPACE_BYTES;
    if (n == out->len) return;
    out->data[n] = 0;
    out->len = n;
}

void charsmap_sentencepiece(const struct charsmap_rules *rules, bool prefix,
                            struct buf *out, const char *s, size_t n)
{
    bool plain = !rules->map && !rules->squeeze &&
                 !(rules->symbols && added_count(rules->symbols));
    bool after_space = rules->squeeze;
    size_t i = rules->squeeze ? leading_spaces(rules, s, n) : 0, used, len;
    if (i == n) return;
    if (prefix) buf_add(out, SPACE, SPACE_BYTES);
    if (plain) {
        add_escaped(out, s, n);
        return;
    }
    for (; i < n; i += used) {
        const char *part = next_part(rules, s + i, n - i, &used, &len);
        while (after_space && len && *part == ' ') {
            part++;
            len--;
        }
        if (!len) continue;
        add_escaped(out, part, len);
        after_space = rules->squeeze && part[len - 1] == ' ';
    }
    if (rules->squeeze) drop_trailing(out);
}
