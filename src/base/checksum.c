#include "base/checksum.h"

#include <string.h>

enum { LANES = 8 };
static const uint64_t ODD = 0x9e3779b97f4a7c15; /* 2^64 / golden ratio */

static inline uint64_t mix(uint64_t lane, uint64_t word)
{
    uint64_t x = (lane ^ word) * ODD;
    return x << 29 | x >> 35;
}

static inline uint64_t word_at(const unsigned char *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return word;
}

uint64_t checksum64(const void *bytes, size_t n)
{
    const unsigned char *p = bytes, *end = p + n;
    uint64_t a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = 7, h = 8;
    for (; (size_t)(end - p) >= 8 * LANES; p += 8 * LANES) {
        a = mix(a, word_at(p));
        b = mix(b, word_at(p + 8));
        c = mix(c, word_at(p + 16));
        d = mix(d, word_at(p + 24));
        e = mix(e, word_at(p + 32));
        f = mix(f, word_at(p + 40));
        g = mix(g, word_at(p + 48));
        h = mix(h, word_at(p + 56));
    }
    uint64_t sum = n;
    for (; (size_t)(end - p) >= 8; p += 8)
        sum = mix(sum, word_at(p));
    uint64_t last = 0;
    memcpy(&last, p, (size_t)(end - p));
    sum = mix(sum, last);
    const uint64_t lanes[LANES] = {a, b, c, d, e, f, g, h};
    for (int i = 0; i < LANES; i++)
        sum = mix(sum, lanes[i]);
    return sum ^ sum >> 32;
}
