/* engine/row.h - the passes over a whole row of logits that sampling needs.
 *
 * A row is cut into blocks of ROW_BLOCK; the last one may be short. Largest
 * values and weights are the same bits on every instruction set: elements are
 * computed alike and sums have 16 lanes everywhere. Pure functions. */
#ifndef BATON_ENGINE_ROW_H
#define BATON_ENGINE_ROW_H

#include <stddef.h>
#include <stdint.h>

enum { ROW_BLOCK = 256 };

/* Each block's largest value; NaN where an element is. */
void row_tops(const float *x, uint32_t n, float *tops);

/* The weight of x is exp((x - top) * inverse), x <= top: within 2 units in
 * the last place, 1 at top, 0 below exp(-87). */
struct row_scale {
    float top;
    float inverse; /* 1 / temperature, > 0 */
};
/* Weights of all elements, and each block's sum of them. Room for whole blocks:
 * what is behind n weighs 0. */
void row_weigh(const struct row_scale *k, const float *x, uint32_t n,
               float *weights, double *masses);

/* Of the elements above each of some floors, which descend: how many there are,
 * and what they weigh together. tops are the blocks'. */
enum { ROW_FLOORS = 7 };
struct row_above {
    uint32_t count[ROW_FLOORS];
    double mass[ROW_FLOORS];
};
void row_split(const float *x, const float *weights, const float *tops,
               uint32_t n, const float floors[ROW_FLOORS],
               struct row_above *out);

/* The elements of a block in (lo, hi], as ids from first on; returns how many.
 * ids has room for a whole block. */
uint32_t row_between(const float *x, uint32_t n, float lo, float hi,
                     int32_t first, int32_t *ids);

/* The sum of a block's weights that are at least least, of elements above a
 * floor. */
double row_kept(const float *x, const float *weights, uint32_t n, float floor,
                float least);

#endif
