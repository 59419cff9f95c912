/* tests/text/golden_texts.h - the texts of tools/golden/tok_texts.py: text i is
 * a pure function of i and of words.json. Change both or none. */
#ifndef BATON_TESTS_TEXT_GOLDEN_TEXTS_H
#define BATON_TESTS_TEXT_GOLDEN_TEXTS_H

#include "tests/text/golden.h"
#include "base/clock.h"
#include "text/utf8.h"

enum { GOLDEN_TEXTS = 20000, GOLDEN_DOCUMENT_BYTES = 1 << 20 };

struct golden_texts {
    json_t *prose, *code, *emoji, *special, *words;
};

static inline void golden_texts_open(struct golden_texts *g)
{
    g->words = golden_json("tests/golden/tokenizer/words.json");
    g->prose = json_object_get(g->words, "prose");
    g->code = json_object_get(g->words, "code");
    g->emoji = json_object_get(g->words, "emoji");
    g->special = json_object_get(g->words, "special");
}

static inline uint64_t golden_below(uint64_t *rng, uint64_t n)
{
    return rng_next(rng) % n;
}

static inline void golden_word(struct buf *out, uint64_t *rng,
                               const json_t *words)
{
    const json_t *word =
        json_array_get(words, golden_below(rng, json_array_size(words)));
    buf_add(out, json_string_value(word), json_string_length(word));
}

static inline void golden_scalar(struct buf *out, uint32_t cp)
{
    utf8_add(out, cp >= 0xd800 && cp < 0xe000 ? cp - 0x800 : cp);
}

static inline uint32_t golden_row(uint64_t *rng)
{
    static const uint32_t rows[][2] = {
        {0x80, 431},   {0xf900, 13},  {0x10000, 64}, {0x12000, 25},
        {0x13000, 37}, {0x16000, 4},  {0x16800, 16}, {0x17000, 4},
        {0x18800, 8},  {0x1af00, 10}, {0x1cc00, 36}, {0x1e000, 64},
        {0x20000, 8},  {0x2a600, 8},  {0x2eb00, 10}, {0x30000, 4},
        {0x31300, 4},  {0xe0000, 4}};
    uint32_t all = 0, count = sizeof rows / sizeof *rows;
    for (uint32_t i = 0; i < count; i++)
        all += rows[i][1];
    uint32_t n = (uint32_t)golden_below(rng, all), i = 0;
    while (n >= rows[i][1])
        n -= rows[i++][1];
    return rows[i][0] + 128 * n;
}

#define GOLDEN_PICK(rng, list) \
    (list)[golden_below(rng, sizeof(list) / sizeof *(list))]

static inline void golden_part(const struct golden_texts *g, struct buf *out,
                               uint64_t *rng, uint64_t kind, uint32_t base)
{
    static const uint32_t seasoning[] = {' ', '\n', '.', ',', '-',  '\'',  '"',
                                         '1', ' ',  '9', '_', 0xe9, 0x4e2d};
    static const uint32_t blanks[] = {
        0x20,   0x20,   0x20,   0x9,    0xa,    0xd,    0xb,    0xc,    0x1c,
        0x1f,   0x85,   0xa0,   0x1680, 0x180e, 0x2003, 0x2009, 0x200b, 0x2028,
        0x2029, 0x202f, 0x205f, 0x2060, 0x3000, 0xfeff, 0x0,    0x1,    0x7,
        0x8,    0x1b,   0x7f,   0x80,   0x9f,   0x2581, 0x61};
    static const uint32_t numbers[] = {
        0x30,   0x31,   0x32,   0x35,    0x39,    0x2e,   0x2c,   0x20,
        0x2d,   0xb2,   0xbd,   0x661,   0x6f5,   0x967,  0x2167, 0x2460,
        0x3007, 0x4e09, 0xff11, 0x1d7d8, 0x10140, 0x1f101};
    static const char *const quotes[] = {
        "'",  "'",  "\u2019", "s",      "S",  "t", "re", "VE",
        "ve", "ll", "LL",     "m",      "d",  "D", " ",  "\u017f",
        "a",  "'s", "K",      "\u212a", "\"", "\n"};
    static const uint32_t marks[] = {0x300,  0x301,  0x308,  0x323,   0x327,
                                     0x345,  0x5b0,  0x64b,  0x93c,   0x94d,
                                     0xe38,  0xf71,  0x1161, 0x11a8,  0x20d0,
                                     0x3099, 0xfe0f, 0x302a, 0x1d165, 0x898};
    static const uint32_t bases[] = {
        'a',    'e',    'o',   'A',   'E',  ' ',   'u',   0x915,  0x1100,
        0xac00, 0x304b, 0x5d0, 0x627, 0xe9, 0x344, 0x958, 0x2126, 0xfb01};
    size_t from = out->len, len;
    switch (kind) {
    case 0:
    case 1:
        if (golden_below(rng, 4)) buf_putc(out, ' ');
        golden_word(out, rng, g->prose);
        break;
    case 2: golden_word(out, rng, g->code); break;
    case 3: golden_scalar(out, GOLDEN_PICK(rng, blanks)); break;
    case 4:
    case 5:
    case 6:
        if (golden_below(rng, 5) == 0)
            golden_scalar(out, GOLDEN_PICK(rng, seasoning));
        else
            golden_scalar(out, base + (uint32_t)golden_below(rng, 128));
        break;
    case 7: golden_scalar(out, (uint32_t)golden_below(rng, 0x110000)); break;
    case 8: golden_word(out, rng, g->emoji); break;
    case 9:
        if (golden_below(rng, 3) == 0)
            golden_scalar(out, GOLDEN_PICK(rng, bases));
        else
            golden_scalar(out, GOLDEN_PICK(rng, marks));
        break;
    case 10:
        if (golden_below(rng, 2))
            buf_putc(out, (char)golden_below(rng, 256));
        else
            buf_putc(out, (char)(0x20 + golden_below(rng, 95)));
        break;
    case 11: golden_scalar(out, GOLDEN_PICK(rng, numbers)); break;
    case 12: golden_word(out, rng, g->special); break;
    case 13: {
        golden_part(g, out, rng, golden_below(rng, 13), base);
        len = out->len - from;
        uint64_t times = golden_below(rng, 12);
        times *= golden_below(rng, 12);
        for (char one[256]; times; times--) {
            assert_true(len < sizeof one);
            memcpy(one, out->data + from, len);
            buf_add(out, one, len);
        }
        break;
    }
    case 14: buf_puts(out, GOLDEN_PICK(rng, quotes)); break;
    default: golden_part(g, out, rng, golden_below(rng, 15), base);
    }
}

static inline void golden_document(const struct golden_texts *g,
                                   struct buf *out, uint64_t k);

/* Appends text i; those from GOLDEN_TEXTS on are documents of 1 MB. */
static inline void golden_text(const struct golden_texts *g, struct buf *out,
                               uint64_t i)
{
    uint64_t rng = i + 1;
    if (i >= GOLDEN_TEXTS) {
        golden_document(g, out, i - GOLDEN_TEXTS);
        return;
    }
    uint64_t kind = golden_below(&rng, 16);
    uint32_t base = golden_row(&rng);
    for (uint64_t n = golden_below(&rng, 24); n; n--)
        golden_part(g, out, &rng, kind, base);
}

static inline void golden_document(const struct golden_texts *g,
                                   struct buf *out, uint64_t k)
{
    static const char *const runs[] = {"a",  " ",          "1",      "\u4e2d",
                                       "\n", ".",          "\u00e9", "ab",
                                       "'s", "\U0001f600", "\u0301"};
    size_t start = out->len;
    for (size_t r = 0; k == 1 && r < sizeof runs / sizeof *runs; r++)
        for (size_t n = 100000 / strlen(runs[r]); n; n--)
            buf_puts(out, runs[r]);
    for (uint64_t i = 0; k == 0 && out->len - start < GOLDEN_DOCUMENT_BYTES;
         i++)
        golden_text(g, out, i * 7 % GOLDEN_TEXTS);
}

#define GOLDEN_HASH_START UINT64_C(0xcbf29ce484222325)
#define GOLDEN_HASH_PRIME UINT64_C(0x100000001b3)

static inline uint64_t golden_hash_ids(uint64_t h, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint32_t)ids[i]) * GOLDEN_HASH_PRIME;
    return ~h * GOLDEN_HASH_PRIME;
}

static inline uint64_t golden_hash_bytes(uint64_t h, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i += 8) {
        uint64_t word = 0;
        memcpy(&word, s + i, n - i < 8 ? n - i : 8);
        h = (h ^ word) * GOLDEN_HASH_PRIME;
    }
    return (h ^ n) * GOLDEN_HASH_PRIME;
}

#endif
