#include "text/utf8.h"

#include <stdbool.h>
#include <string.h>

/* What the second byte may be, by the first (Unicode table 3-7). */
static void second_range(unsigned char first, unsigned char *lo,
                         unsigned char *hi)
{
    *lo = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    *hi = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
}

int32_t utf8_scan(const char *text, size_t n, size_t *len)
{
    const unsigned char *s = (const unsigned char *)text;
    *len = 1;
    if (s[0] < 0x80) return s[0];
    if (s[0] < 0xc2 || s[0] > 0xf4) return UTF8_BROKEN;
    size_t want = utf8_len(s[0]);
    unsigned char lo, hi;
    second_range(s[0], &lo, &hi);
    for (; *len < want; ++*len) {
        if (*len == n) return UTF8_UNFINISHED;
        if (s[*len] < lo || s[*len] > hi) return UTF8_BROKEN;
        lo = 0x80;
        hi = 0xbf;
    }
    return (int32_t)utf8_get(text, len);
}

size_t utf8_ascii(const char *s, size_t n)
{
    size_t i = 0;
    for (uint64_t w; i + 8 <= n; i += 8) {
        memcpy(&w, s + i, 8);
        if (w & 0x8080808080808080u) break;
    }
    while (i < n && (unsigned char)s[i] < 0x80)
        i++;
    return i;
}

static bool follows(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

/* The length of what is surely a whole character of two or three bytes, 0 of
 * others; utf8_scan knows all. */
static size_t sure_len(const char *s, size_t n)
{
    unsigned char first = (unsigned char)s[0];
    if (n < 3 || first < 0xc2 || !follows(s[1])) return 0;
    if (first < 0xe0) return 2;
    return first > 0xe0 && first < 0xf0 && first != 0xed && follows(s[2]) ? 3
                                                                          : 0;
}

size_t utf8_valid(const char *s, size_t n)
{
    size_t i = 0, len;
    for (;;) {
        i += utf8_ascii(s + i, n - i);
        while (i < n && (unsigned char)s[i] >= 0x80) {
            len = sure_len(s + i, n - i);
            if (!len && utf8_scan(s + i, n - i, &len) < 0) return i;
            i += len;
        }
        if (i == n) return n;
    }
}

void utf8_repair(struct buf *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t good = utf8_valid(s + i, n - i), len;
        buf_add(out, s + i, good);
        i += good;
        if (i == n) break;
        utf8_scan(s + i, n - i, &len);
        utf8_add(out, 0xfffd);
        i += len;
    }
}

size_t utf8_put(char out[4], uint32_t cp)
{
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t len = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = len - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (cp & 63));
        cp >>= 6;
    }
    out[0] = (char)(lead[len] | cp);
    return len;
}

void utf8_add(struct buf *out, uint32_t cp)
{
    char bytes[4];
    buf_add(out, bytes, utf8_put(bytes, cp));
}
