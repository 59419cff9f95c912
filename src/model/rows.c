#include "model/rows.h"

size_t rows_place(const struct row_order *order, size_t r)
{
    if (!order->head_rows) return r;
    size_t at = r % order->head_rows, half = order->rotary / 2;
    size_t to = at < half            ? 2 * at
                : at < order->rotary ? 2 * (at - half) + 1
                                     : at;
    return r - at + to;
}

enum dtype rows_quantized(enum model_quantize quantize, enum dtype type,
                          size_t cols)
{
    static const enum dtype types[][4] = {
        [QUANTIZE_NONE] = {DTYPE_F32},
        [QUANTIZE_W8A8_INT8] = {DTYPE_INT8, DTYPE_F32},
        [QUANTIZE_INT8] = {DTYPE_INT8_G128, DTYPE_Q8_0, DTYPE_F32},
        [QUANTIZE_INT4] = {DTYPE_INT4_G128, DTYPE_INT4_G64, DTYPE_INT4_G32,
                           DTYPE_F32},
    };
    const enum dtype *t = types[quantize]; /* best first */
    if (type > DTYPE_BF16) return type;
    while (*t != DTYPE_F32 && !dtype_row_bytes(*t, cols))
        t++;
    return *t == DTYPE_F32 ? type : *t;
}

const void *rows_row(void *arg, size_t r, void *room)
{
    const struct rows *rows = arg;
    const struct matrix *m = rows->matrix;
    const size_t place = rows_place(&rows->order, r);
    if (m->form == MATRIX_AS_IS)
        return m->bytes + place * dtype_row_bytes(m->type, m->cols);
    matrix_rows(m, place, 1, room);
    return room;
}
