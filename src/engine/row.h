/* engine/row.h - the passes over a whole row of logits that sampling needs.
 *
 * A row is cut into blocks of ROW_BLOCK; the last one may be short. Largest
 * values and weights are the same bits on every instruction set: elements are
 * computed alike and sums have 16 lanes everywhere. Pure functions. */
#ifndef BATON_ENGINE_ROW_H
#define BATON_ENGINE_ROW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ROW_BLOCK = 256 };

/* Each block's largest value, and the row's (*top). False when an element is
 * NaN or the largest is not finite. */
bool row_tops(const float *x, uint32_t n, float *tops, float *top);

/* The weight of x is exp((x - top) * inverse), x <= top: within 2 units in
 * the last place, 1 at top, 0 below exp(-87). */
struct row_scale {
    float top;
    float inverse; /* 1 / temperature, > 0 */
};
/* Weights of n <= ROW_BLOCK elements; out has room for ROW_BLOCK. */
void row_weights(const struct row_scale *k, const float *x, uint32_t n,
                 float *out);
/* Each block's sum of weights; returns the sum of these. */
double row_masses(const struct row_scale *k, const float *x, uint32_t n,
                  double *masses);

#endif
