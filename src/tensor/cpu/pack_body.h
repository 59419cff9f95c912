/* tensor/cpu/pack_body.h - words of 16 rows to steps, for the instruction set
 * of the file that includes it. panel.c has the plain twin. */
#ifndef BATON_TENSOR_CPU_PACK_BODY_H
#define BATON_TENSOR_CPU_PACK_BODY_H

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/vec.h"

enum { UNITS = 4 * L / PACK_UNIT }; /* of a vector */

/* L words of L rows, turned: words [u * 4, ...) of rows r ... */
static void pack_square(const struct pack *p, size_t u, size_t r)
{
    size_t at[UNITS];
    vf m[L];
    for (size_t i = 0; i < UNITS; i++)
        at[i] = pack_unit(p, u + i);
    UNROLLED (i, L)
        m[i] = (vf)(vi_of_units(p->rows + (r + i) * p->row_bytes, at) ^
                    vi_set((int32_t)p->flip));
    vf_transpose(m);
    for (size_t i = 0; i < L; i++) {
        uint8_t *step = pack_step(p, u * (PACK_UNIT / 4) + i);
        if (!p->halves) {
            vi_store(step + 4 * r, (vi)m[i]);
            continue;
        }
        half_vec low = __builtin_convertvector((vu)m[i] & 0xffff, half_vec);
        half_vec high = __builtin_convertvector((vu)m[i] >> 16, half_vec);
        memcpy(step + 2 * r, &low, sizeof low);
        memcpy(step + STEP / 2 + 2 * r, &high, sizeof high);
    }
}

static void pack_words(const struct pack *p)
{
    for (size_t u = 0; u < p->words / PACK_WORDS * (PACK_WORDS / 4); u += UNITS)
        for (size_t r = 0; r < ROWS; r += L)
            pack_square(p, u, r);
}

#endif
