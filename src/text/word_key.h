/* text/word_key.h - a word as a key of two machine words, and its hash.
 *
 * Up to 15 bytes are their own key: little-endian, the length in the four bits
 * above them, the top four bits 0. A longer word's key is a hash of it and its
 * length, with those four bits 0: the bytes are to be compared, too. */
#ifndef BATON_TEXT_WORD_KEY_H
#define BATON_TEXT_WORD_KEY_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { WORD_KEY_BYTES = 15, WORD_KEY_LENGTH = 56, WORD_KEY_TOP = 60 };

struct word_key {
    uint64_t low, high;
};

static inline uint64_t word_key_hash(struct word_key k)
{
    uint64_t h = k.low * 0x9e3779b97f4a7c15u + k.high * 0xd6e8feb86659fd93u;
    h = (h ^ h >> 32) * 0x2545f4914f6cdd1du;
    return h ^ h >> 32;
}

static inline bool word_key_same(struct word_key a, struct word_key b)
{
    return !((a.low ^ b.low) | (a.high ^ b.high));
}

static inline uint64_t word_key_load(const char *s)
{
    uint64_t v;
    memcpy(&v, s, sizeof v);
    return le64toh(v);
}

static inline struct word_key word_key_long(const char *s, size_t n)
{
    uint64_t h = n;
    for (size_t i = 0; i + 8 < n; i += 8)
        h = word_key_hash((struct word_key){h, word_key_load(s + i)});
    return (struct word_key){
        word_key_hash((struct word_key){h, word_key_load(s + n - 8)}), n};
}

/* The key of n bytes, at least 1; end: of what may be read. */
static inline struct word_key word_key(const char *s, size_t n, const char *end)
{
    static const unsigned char window[31] = {255, 255, 255, 255, 255,
                                             255, 255, 255, 255, 255,
                                             255, 255, 255, 255, 255};
    char copy[16] = {0};
    if (n > WORD_KEY_BYTES) return word_key_long(s, n);
    if (end - s < (ptrdiff_t)sizeof copy) s = memcpy(copy, s, n);
    const char *mask = (const char *)window + WORD_KEY_BYTES - n;
    uint64_t high = word_key_load(s + 8) & word_key_load(mask + 8);
    return (struct word_key){word_key_load(s) & word_key_load(mask),
                             high | (uint64_t)n << WORD_KEY_LENGTH};
}

#endif
