#include "text/jread.h"
#include "text/utf8.h"

#include <math.h>
#include <string.h>

enum { MAX_DEPTH = 64 };

void jread_init(struct jread *r, const char *json, size_t n)
{
    *r = (struct jread){.at = json, .end = json + n};
}

static bool fail(struct jread *r)
{
    if (!r->bad) r->bad = r->at;
    return false;
}

static inline char peek(struct jread *r)
{
    if (r->at < r->end && (unsigned char)*r->at > ' ' && !r->bad) return *r->at;
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' ||
                              *r->at == '\r' || *r->at == '\t'))
        r->at++;
    return r->at < r->end && !r->bad ? *r->at : 0;
}

char jread_peek(struct jread *r)
{
    return peek(r);
}

static inline bool take(struct jread *r, char c)
{
    if (peek(r) != c || !c) return fail(r);
    r->at++;
    return true;
}

bool jread_open(struct jread *r, char c)
{
    if (r->depth == MAX_DEPTH || !take(r, c)) return fail(r);
    r->depth++;
    return true;
}

bool jread_more(struct jread *r, char c, bool *first)
{
    char close = c == '{' ? '}' : ']';
    if (peek(r) == close) {
        r->at++;
        r->depth--;
        return false;
    }
    if (!*first && !take(r, ',')) return false;
    *first = false;
    return peek(r) ? true : fail(r);
}

bool jread_key(struct jread *r, struct buf *scratch, struct jslice *out)
{
    return jread_string(r, scratch, out) && take(r, ':');
}

static int hex4(const char *s)
{
    int v = 0;
    for (int i = 0; i < 4; i++) {
        char c = s[i];
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0) return -1;
        v = v << 4 | d;
    }
    return v;
}

/* After "\u"; both halves of a surrogate pair. */
static bool unicode_escape(struct jread *r, struct buf *scratch)
{
    int cp = r->end - r->at >= 4 ? hex4(r->at) : -1;
    if (cp < 0) return fail(r);
    r->at += 4;
    if (cp >= 0xd800 && cp < 0xe000) {
        int low = r->end - r->at >= 6 && r->at[0] == '\\' && r->at[1] == 'u'
                      ? hex4(r->at + 2)
                      : -1;
        if (cp >= 0xdc00 || low < 0xdc00 || low > 0xdfff) return fail(r);
        r->at += 6;
        cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
    }
    utf8_add(scratch, (uint32_t)cp);
    return true;
}

static bool escape(struct jread *r, struct buf *scratch)
{
    if (r->end - r->at < 2) return fail(r);
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    char c = r->at[1];
    r->at += 2;
    if (c == 'u') return unicode_escape(r, scratch);
    const char *name = c ? strchr(names, c) : NULL;
    if (!name) return fail(r);
    buf_putc(scratch, values[name - names]);
    return true;
}

#define EACH(byte) ((byte)*UINT64_C(0x0101010101010101))

/* Whether one of eight bytes is below 0x20, a quote or a backslash. (A byte
 * above such a one may be reported too; the first one is right.) */
static inline uint64_t ends_plain(uint64_t w)
{
    uint64_t quote = w ^ EACH(0x22), slash = w ^ EACH(0x5c);
    uint64_t found = ((w - EACH(0x20)) & ~w) | ((quote - EACH(1)) & ~quote) |
                     ((slash - EACH(1)) & ~slash);
    return found & EACH(0x80);
}

static inline void plain(struct jread *r)
{
    const char *at = r->at;
    for (uint64_t w; r->end - at >= 8; at += 8) {
        memcpy(&w, at, 8);
        uint64_t found = ends_plain(w);
        if (!found) continue;
        r->at = at + __builtin_ctzll(found) / 8; /* little-endian */
        return;
    }
    while (at < r->end && *at != '"' && *at != '\\' &&
           (unsigned char)*at >= 0x20)
        at++;
    r->at = at;
}

bool jread_string(struct jread *r, struct buf *scratch, struct jslice *out)
{
    if (!take(r, '"')) return false;
    const char *from = r->at;
    plain(r);
    if (r->at < r->end && *r->at == '"') {
        *out = (struct jslice){from, (size_t)(r->at++ - from)};
        return true;
    }
    buf_reset(scratch);
    buf_add(scratch, from, (size_t)(r->at - from));
    while (r->at < r->end && *r->at == '\\') {
        if (!escape(r, scratch)) return false;
        from = r->at;
        plain(r);
        buf_add(scratch, from, (size_t)(r->at - from));
    }
    if (scratch->failed || r->at == r->end || *r->at != '"') return fail(r);
    r->at++;
    *out = (struct jslice){scratch->data ? scratch->data : "", scratch->len};
    return true;
}

bool jread_uint(struct jread *r, uint32_t *out)
{
    uint64_t v = 0;
    char c = jread_peek(r);
    if (c < '0' || c > '9') return fail(r);
    const char *from = r->at;
    for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++) {
        v = v * 10 + (uint64_t)(*r->at - '0');
        if (v > UINT32_MAX) return fail(r);
    }
    if (*from == '0' && r->at - from > 1) return fail(r);
    *out = (uint32_t)v;
    return true;
}

/* Source: f64_from_parts of serde_json without its feature float_roundtrip,
 * which is how Hugging Face's tokenizers read a score: digits up to 64 bits,
 * then one multiplication or division, so the last bit may be off. */
static double from_parts(uint64_t digits, int64_t exponent)
{
    double f = (double)digits;
    while (exponent < -308 && f != 0) {
        f /= 1e308;
        exponent += 308;
    }
    double power = exp10((double)(exponent < 0 ? -exponent : exponent));
    return exponent < 0 ? f / power : f * power;
}

/* Digits into *value; one that no longer fits is left out, and *left_out counts
 * those. */
static size_t read_digits(struct jread *r, uint64_t *value, int64_t *left_out)
{
    const char *from = r->at;
    bool full = false;
    for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++) {
        uint64_t digit = (uint64_t)(*r->at - '0');
        full = full || *value > (UINT64_MAX - digit) / 10;
        if (full)
            ++*left_out;
        else
            *value = *value * 10 + digit;
    }
    return (size_t)(r->at - from);
}

static bool is_at(const struct jread *r, char c)
{
    return r->at < r->end && *r->at == c;
}

bool jread_real(struct jread *r, double *out)
{
    uint64_t digits = 0, power = 0;
    int64_t big = 0, lost = 0, unused = 0;
    bool negative = jread_peek(r) == '-', down = false;
    if (negative) r->at++;
    if (!read_digits(r, &digits, &big)) return fail(r);
    if (is_at(r, '.')) {
        r->at++;
        size_t n = read_digits(r, &digits, &lost);
        if (!n) return fail(r);
        big -= (int64_t)n - lost;
    }
    if (is_at(r, 'e') || is_at(r, 'E')) {
        r->at++;
        down = is_at(r, '-');
        if (down || is_at(r, '+')) r->at++;
        if (!read_digits(r, &power, &unused)) return fail(r);
        if (power > 10000) power = 10000;
    }
    big += down ? -(int64_t)power : (int64_t)power;
    *out = from_parts(digits, big);
    if (negative) *out = -*out;
    return true;
}

static bool skip_string(struct jread *r)
{
    r->at++;
    for (;;) {
        plain(r);
        if (r->at == r->end || (unsigned char)*r->at < 0x20) return fail(r);
        if (*r->at++ == '"') return true;
        if (r->at < r->end) r->at++; /* what a backslash guards */
    }
}

bool jread_skip(struct jread *r, struct jslice *out)
{
    if (!jread_peek(r)) return fail(r);
    const char *from = r->at;
    int depth = 0;
    do {
        char c = peek(r);
        if (!c) return fail(r);
        if (c == '"') {
            if (!skip_string(r)) return false;
        } else if (c == '{' || c == '[') {
            if (++depth > MAX_DEPTH) return fail(r);
            r->at++;
        } else if (c == '}' || c == ']') {
            if (--depth < 0) return fail(r);
            r->at++;
        } else if (depth) {
            r->at++;
        } else {
            while (r->at < r->end && *r->at != ',' && *r->at != '}' &&
                   *r->at != ']' && (unsigned char)*r->at > 0x20)
                r->at++;
        }
    } while (depth);
    *out = (struct jslice){from, (size_t)(r->at - from)};
    return r->at > from ? true : fail(r);
}

bool jread_end(struct jread *r)
{
    return !r->bad && !jread_peek(r) && r->at == r->end;
}
