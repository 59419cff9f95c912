/* text/utf8.h - UTF-8, checked and unchecked. Any thread. */
#ifndef BATON_TEXT_UTF8_H
#define BATON_TEXT_UTF8_H

#include "base/buf.h"

#include <stddef.h>
#include <stdint.h>

enum {
    UTF8_BROKEN = -1,    /* can never become a character     */
    UTF8_UNFINISHED = -2 /* may become one with further bytes */
};

/* The code point at s, n >= 1 bytes; or one of the above. *len: its bytes; of a
 * broken sequence the maximal part to be replaced by one U+FFFD (Unicode 3.9,
 * "substitution of maximal subparts"); of an unfinished one all n. */
int32_t utf8_scan(const char *s, size_t n, size_t *len);

/* Bytes of the longest prefix that is whole, valid UTF-8. */
size_t utf8_valid(const char *s, size_t n);

/* Bytes of the longest prefix that is ASCII. */
size_t utf8_ascii(const char *s, size_t n);

/* Appends s with each maximal broken sequence replaced by U+FFFD. */
void utf8_repair(struct buf *out, const char *s, size_t n);

/* Writes cp (a scalar value) and returns its length, 1 to 4. */
size_t utf8_put(char out[4], uint32_t cp);
void utf8_add(struct buf *out, uint32_t cp);

/* Of valid text: the length of the character that starts with this byte, and
 * the character itself. */
static inline size_t utf8_len(unsigned char first)
{
    return first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

static inline uint32_t utf8_get(const char *text, size_t *len)
{
    const unsigned char *s = (const unsigned char *)text;
    *len = utf8_len(s[0]);
    switch (*len) {
    case 1: return s[0];
    case 2: return (s[0] & 31u) << 6 | (s[1] & 63u);
    case 3: return (s[0] & 15u) << 12 | (s[1] & 63u) << 6 | (s[2] & 63u);
    default:
        return (s[0] & 7u) << 18 | (s[1] & 63u) << 12 | (s[2] & 63u) << 6 |
               (s[3] & 63u);
    }
}

#endif
