/* model/rows.h - the rows of a matrix as a device is given them: in the
 * model's order and in the type asked for. Internal to model/. */
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

/* All rows of m, in order, as rows of type; the caller's: mem_free. *out is
 * NULL where they lie so in the file, at m->bytes. */
int rows_make(void **out, const struct matrix *m, enum dtype type,
              const struct row_order *order, int threads, struct why *why);

#endif
