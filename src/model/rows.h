/* model/rows.h - the rows of a matrix as a device is given them, and the type
 * that they become there. Internal to model/. */
#ifndef BATON_MODEL_ROWS_H
#define BATON_MODEL_ROWS_H

#include "model/matrix.h"

/* Rows of heads of head_rows each that a GGUF file keeps interleaved, which
 * pairs what is rotated together (the first rotary of a head) and leaves the
 * rest; head_rows 0: rows lie in order. */
struct row_order {
    size_t head_rows, rotary;
};

/* Where row r is stored. */
size_t rows_place(const struct row_order *order, size_t r);

/* What matrices of type and cols columns become; embeddings, heads and routers
 * are not asked for. */
enum dtype rows_quantized(enum model_quantize quantize, enum dtype type,
                          size_t cols);

/* A matrix's rows in the model's order: weight_rows' row, arg a struct rows. */
struct rows {
    const struct matrix *matrix;
    struct row_order order;
};
const void *rows_row(void *arg, size_t r, void *room);

#endif
