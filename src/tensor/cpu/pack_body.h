/* tensor/cpu/pack_body.h - words of 16 rows to steps, blocks of K formats to
 * runs, for the instruction set of the file that includes it. panel.c has the
 * plain twin, tensor/quant.c what K formats are. */
#ifndef BATON_TENSOR_CPU_PACK_BODY_H
#define BATON_TENSOR_CPU_PACK_BODY_H

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/vec.h"

enum { UNITS = 4 * L / PACK_UNIT }; /* of a vector */

/* Part part of so many of what is packed next, into the second level cache: to
 * wait for memory at the end of all, or to read a row of it here and there,
 * takes up to half as long again. */
ALWAYS void pack_ask(const struct pack_ahead *a, size_t part, size_t parts)
{
    const size_t end = (part + 1) * a->lines / parts;
    for (size_t line = part * a->lines / parts; line < end; line++)
        __builtin_prefetch(a->at + line * STEP, 0, 2);
}

/* L words of rows r .. r + L - 1, units of them at so many bytes of a row,
 * turned: a step for each word. */
static void pack_square(const struct pack *p, const size_t at[UNITS],
                        uint8_t *const steps[L], size_t r)
{
    const uint8_t *row = p->rows + r * p->row_bytes;
    const bool whole = at[UNITS - 1] - at[0] == (UNITS - 1) * PACK_UNIT;
    const vi flip = vi_set((int32_t)p->flip);
    vf m[L];
    if (whole)
        UNROLLED (i, L)
            m[i] = (vf)(vi_load(row + i * p->row_bytes + at[0]) ^ flip);
    else
        UNROLLED (i, L)
            m[i] = (vf)(vi_of_units(row + i * p->row_bytes, at) ^ flip);
    vf_transpose(m);
    for (size_t i = 0; i < L; i++) {
        if (!p->halves) {
            vi_store(steps[i] + 4 * r, (vi)m[i]);
            continue;
        }
        half_vec low = __builtin_convertvector((vu)m[i] & 0xffff, half_vec);
        half_vec high = __builtin_convertvector((vu)m[i] >> 16, half_vec);
        memcpy(steps[i] + 2 * r, &low, sizeof low);
        memcpy(steps[i] + STEP / 2 + 2 * r, &high, sizeof high);
    }
}

/* pack_unit and pack_step of one after another, which divide. */
static void pack_words(const struct pack *p)
{
    const size_t squares = p->words / PACK_WORDS * (PACK_WORDS / L);
    size_t block = p->head, unit = 0, word = 0;
    uint8_t *step = p->to;
    for (size_t s = 0; s < squares; s++) {
        pack_ask(&p->ahead, s, squares);
        size_t at[UNITS];
        uint8_t *steps[L];
        for (size_t i = 0; i < UNITS; i++) {
            at[i] = block + unit * PACK_UNIT;
            if (++unit < p->block_units) continue;
            unit = 0;
            block += p->block_bytes;
        }
        for (size_t i = 0; i < L; i++, step += STEP) {
            steps[i] = step;
            if (++word < p->part_words) continue;
            word = 0;
            step += p->part_gap;
        }
        for (size_t r = 0; r < ROWS; r += L)
            pack_square(p, at, steps, r);
    }
}

/* --- K formats ----------------------------------------------------------- */

/* Where the parts of a block's words begin. */
enum {
    Q4_K_WORDS = 36,
    Q5_K_WORDS = 44,
    Q6_K_WORDS = 52, /* and half a word, d */
    K_SCALES = 1,    /* q4_k, q5_k: behind d, dmin */
    Q5_K_FIFTHS = 4,
    Q4_K_NIBBLES = 4,
    Q5_K_NIBBLES = 12,
    Q6_K_UPPER = 32,
    Q6_K_SCALES = 48
};

/* The first n >= L words of L blocks, row_bytes apart: words[i] has the i-th of
 * each. */
ALWAYS void kpack_words(const uint8_t *block, size_t row_bytes, size_t n,
                        vi *words)
{
    for (size_t s = 0; s < n; s += L) {
        const size_t at = s + L <= n ? s : n - L;
        vf m[L];
        UNROLLED (i, L)
            m[i] = (vf)vi_load(block + (size_t)i * row_bytes + 4 * at);
        vf_transpose(m);
        UNROLLED (i, L)
            words[at + (size_t)i] = (vi)m[i];
    }
}

/* A run's steps from 8 words: their low nibbles (shift 0) or high ones (4). */
ALWAYS void kpack_steps(const vi *words, int shift, uint8_t *run)
{
    for (int j = 0; j < 4; j++) {
        vi low = words[j] >> shift & 0x0f0f0f0f;
        vi high = words[4 + j] >> shift & 0x0f0f0f0f;
        vi_store(run + STEP * j, low | high << 4);
    }
}

/* Of each byte of n words the width bits at shift, beside one another. */
ALWAYS vi kpack_bits(const vi *words, int n, int width, int shift)
{
    const int32_t mask = width == 1 ? 0x01010101 : 0x03030303;
    vi all = {0};
    for (int i = 0; i < n; i++)
        all |= (words[i] >> shift & mask) << width * i;
    return all;
}

ALWAYS void kpack_byte(vi word, int i, uint8_t *to)
{
    byte_vec b = __builtin_convertvector(word >> 8 * i, byte_vec);
    memcpy(to, &b, sizeof b);
}

ALWAYS void kpack_half(vi word, int i, uint8_t *to)
{
    half_vec h = __builtin_convertvector((vu)word >> 16 * i, half_vec);
    memcpy(to, &h, sizeof h);
}

/* A block of L rows. Scales and mins have 6 bits; of the last four runs' the
 * upper two stand above the first four's. */
ALWAYS void pack_k45(bool five, const uint8_t *block, size_t row_bytes,
                     uint8_t *head, size_t r)
{
    vi w[Q5_K_WORDS];
    kpack_words(block, row_bytes, five ? Q5_K_WORDS : Q4_K_WORDS, w);
    kpack_half(w[0], 0, head + 2 * r);
    kpack_half(w[0], 1, head + 32 + 2 * r);
    const vi *s = w + K_SCALES;
    const vi scales[2] = {
        s[0] & 0x3f3f3f3f,
        (s[2] & 0x0f0f0f0f) | (s[0] >> 2 & 0x30303030),
    };
    const vi mins[2] = {
        s[1] & 0x3f3f3f3f,
        (s[2] >> 4 & 0x0f0f0f0f) | (s[1] >> 2 & 0x30303030),
    };
    const vi *nibbles = w + (five ? Q5_K_NIBBLES : Q4_K_NIBBLES);
    uint8_t *run = head + 64;
    for (int j = 0; j < 8; j++) {
        kpack_steps(nibbles + j / 2 * 8, j % 2 * 4, run + 4 * r);
        run += 256;
        if (five) {
            vi_store(run + 4 * r, kpack_bits(w + Q5_K_FIFTHS, 8, 1, j));
            run += 64;
        }
        kpack_byte(scales[j / 4], j % 4, run + r);
        kpack_byte(mins[j / 4], j % 4, run + 16 + r);
        run += 32;
    }
}

ALWAYS void pack_k6(const uint8_t *block, size_t row_bytes, uint8_t *head,
                    size_t r)
{
    vi w[Q6_K_WORDS];
    kpack_words(block, row_bytes, Q6_K_WORDS, w);
    for (size_t i = 0; i < L; i++)
        memcpy(head + 2 * (r + i), block + i * row_bytes + 4 * Q6_K_WORDS, 2);
    uint8_t *run = head + 32;
    for (int j = 0; j < 8; j++) {
        const int half = j / 4, k = j % 4; /* of its half */
        const vi *upper = w + Q6_K_UPPER + half * 8;
        kpack_steps(w + half * 16 + k % 2 * 8, k / 2 * 4, run + 4 * r);
        run += 256;
        vi_store(run + 4 * r, kpack_bits(upper, 4, 2, 2 * k));
        vi_store(run + 64 + 4 * r, kpack_bits(upper + 4, 4, 2, 2 * k));
        run += 128;
        kpack_byte(w[Q6_K_SCALES + j / 2], j % 2 * 2, run + r);
        kpack_byte(w[Q6_K_SCALES + j / 2], j % 2 * 2 + 1, run + 16 + r);
        run += 32;
    }
}

static void pack_k(enum dtype type, const uint8_t *rows, size_t row_bytes,
                   size_t blocks, const struct pack_ahead *ahead,
                   uint8_t *panel)
{
    const struct panel_format f = panel_format(type);
    const size_t bytes = dtype_block_bytes(type);
    for (size_t b = 0; b < blocks; b++, panel += f.head + f.runs * f.run) {
        pack_ask(ahead, b, blocks);
        for (size_t r = 0; r < ROWS; r += L) {
            const uint8_t *block = rows + r * row_bytes + b * bytes;
            switch (type) {
            case DTYPE_Q4_K: pack_k45(false, block, row_bytes, panel, r); break;
            case DTYPE_Q5_K: pack_k45(true, block, row_bytes, panel, r); break;
            default: pack_k6(block, row_bytes, panel, r);
            }
        }
    }
}

#endif
