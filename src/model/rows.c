#include "model/rows.h"

#include "base/mem.h"
#include "model/spread.h"

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

struct convert {
    const struct matrix *m;
    const struct row_order *order;
    enum dtype type;
    uint8_t *out;
};

static void convert_rows(void *arg, size_t first, size_t end)
{
    const struct convert *c = arg;
    const struct matrix *m = c->m;
    const size_t row_bytes = dtype_row_bytes(c->type, m->cols);
    uint8_t *row = mem_must(dtype_row_bytes(m->type, m->cols), 1);
    float *values = mem_must(m->cols, sizeof *values);
    for (size_t r = first; r < end; r++) {
        uint8_t *out = c->out + r * row_bytes;
        if (c->type == m->type) {
            matrix_rows(m, rows_place(c->order, r), 1, out);
        } else {
            matrix_rows(m, rows_place(c->order, r), 1, row);
            dtype_decode(m->type, row, values, m->cols);
            dtype_encode(c->type, values, out, m->cols);
        }
    }
    mem_free(row);
    mem_free(values);
}

static bool misaligned(const struct matrix *m)
{
    return (uintptr_t)m->bytes % (m->type == DTYPE_F32 ? 4 : 2) != 0;
}

int rows_make(void **out, const struct matrix *m, enum dtype type,
              const struct row_order *order, int threads, struct why *why)
{
    *out = NULL;
    if (m->form == MATRIX_AS_IS && type == m->type && !misaligned(m) &&
        !order->head_rows)
        return 0;
    size_t row_bytes = dtype_row_bytes(type, m->cols);
    *out = mem_try(m->rows, row_bytes, 0);
    if (!*out)
        return err_set(why, ERR_NOMEM, "%s: %zu bytes for a copy of %s",
                       m->main->file, m->rows * row_bytes, m->main->name);
    struct convert c = {m, order, type, *out};
    spread_rows(m->rows, threads, convert_rows, &c);
    return 0;
}
