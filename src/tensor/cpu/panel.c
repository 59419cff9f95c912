/* Packing: any row format of tensor.h into the panels of kernels.h. */
#include "tensor/cpu/kernels.h"

#include "tensor/device_ops.h"
#include "tensor/quant.h"

#include <string.h>

size_t panel_bytes(enum dtype type, size_t cols)
{
    if (type == DTYPE_F32) return cols * ROWS * 4;
    if (type == DTYPE_F16) return cols * ROWS * 2;
    if (type == DTYPE_BF16) return (cols + 1) / 2 * ROWS * 4;
    struct panel_format f = panel_format(type);
    return cols / RUN / (size_t)f.runs * (size_t)(f.head + f.runs * f.run);
}

static void put16(uint8_t *p, uint16_t value)
{
    memcpy(p, &value, 2);
}

/* A run of a K format's row, into that row's places in its panel. */
static void run_pack(enum dtype type, const struct quant32 *b, bool first,
                     uint8_t *head, uint8_t *run, int row)
{
    if (first) {
        put16(head + 2 * row, b->d);
        if (type != DTYPE_Q6_K) put16(head + 32 + 2 * row, b->dmin);
    }
    uint8_t q[RUN];
    int offset = type == DTYPE_Q6_K ? 32 : 0;
    for (int c = 0; c < RUN; c++)
        q[c] = (uint8_t)(b->q[c] + offset);

    run += row * 4;
    uint8_t low[16], high[8] = {0};
    for (int c = 0; c < 16; c++)
        low[c] = (uint8_t)((q[c] & 15) | q[c + 16] << 4);
    for (int j = 0; j < 4; j++)
        memcpy(run + 64 * j, low + 4 * j, 4);
    uint8_t *rest = run + 256 - 3 * row; /* bytes [..][16] at this row */
    if (type == DTYPE_Q4_K) {
        rest[0] = (uint8_t)b->scale[0];
        rest[16] = b->min;
    } else if (type == DTYPE_Q5_K) {
        for (int c = 0; c < RUN; c++)
            high[c % 4] |= (uint8_t)(q[c] >> 4 << (c / 4));
        memcpy(run + 256, high, 4);
        rest[64] = (uint8_t)b->scale[0];
        rest[64 + 16] = b->min;
    } else if (type == DTYPE_Q6_K) {
        for (int c = 0; c < RUN; c++)
            high[c / 16 * 4 + c % 4] |= (uint8_t)(q[c] >> 4 << (c / 4 % 4 * 2));
        memcpy(run + 256, high, 4);
        memcpy(run + 256 + 64, high + 4, 4);
        rest[128] = (uint8_t)b->scale[0];
        rest[128 + 16] = (uint8_t)b->scale[1];
    }
}

/* Q4_0, Q4_1 and Q8_0 need no unpacking: a row's bytes are those of a panel
 * already (nibbles of columns i and i + 16 share a byte), but for the sign of
 * Q8_0. Here the block of one row goes to its places. */
static void plain_pack(enum dtype type, const uint8_t *block, uint8_t *head,
                       uint8_t *run, size_t row)
{
    size_t scales = type == DTYPE_Q4_1 ? 2 : 1;
    for (size_t i = 0; i < scales; i++)
        memcpy(head + 32 * i + 2 * row, block + 2 * i, 2);
    const uint8_t *q = block + 2 * scales;
    uint32_t flip = type == DTYPE_Q8_0 ? 0x80808080 : 0;
    for (size_t j = 0; j < (type == DTYPE_Q8_0 ? 8 : 4); j++) {
        uint32_t four;
        memcpy(&four, q + 4 * j, 4);
        four ^= flip;
        memcpy(run + 64 * j + 4 * row, &four, 4);
    }
}

static void blocks_pack(const struct weight *w, size_t first, size_t rows,
                        uint8_t *panel)
{
    struct panel_format f = panel_format(w->type);
    size_t runs = (size_t)f.runs, block = (size_t)(f.head + f.runs * f.run);
    size_t row_bytes = dtype_row_bytes(w->type, w->cols);
    for (size_t i = 0; i < w->cols / RUN; i++) {
        uint8_t *head = panel + i / runs * block;
        uint8_t *run = head + f.head + (int)(i % runs) * f.run;
        for (size_t r = 0; r < rows; r++) {
            const uint8_t *row =
                (const uint8_t *)w->bytes + (first + r) * row_bytes;
            if (w->type <= DTYPE_Q4_1) {
                plain_pack(w->type, row + i * dtype_block_bytes(w->type), head,
                           run, r);
                continue;
            }
            struct quant32 b;
            quant_unpack(&b, w->type, row, i);
            run_pack(w->type, &b, i % runs == 0, head, run, (int)r);
        }
    }
}

/* Tiles of a few columns, so that the rows' reads and the panel's writes
 * both stay in the cache. size is 2 or 4 bytes; pairs keeps two columns of
 * 2 bytes together. */
static void floats_pack(const struct weight *w, size_t first, size_t rows,
                        uint8_t *panel, size_t unit)
{
    size_t row_bytes = dtype_row_bytes(w->type, w->cols);
    size_t units = row_bytes / unit;
    enum { TILE = 64 };
    for (size_t u = 0; u < units; u += TILE) {
        size_t end = u + TILE < units ? u + TILE : units;
        for (size_t r = 0; r < rows; r++) {
            const uint8_t *row =
                (const uint8_t *)w->bytes + (first + r) * row_bytes;
            if (unit == 4)
                for (size_t i = u; i < end; i++)
                    memcpy(panel + (i * ROWS + r) * 4, row + i * 4, 4);
            else
                for (size_t i = u; i < end; i++)
                    memcpy(panel + (i * ROWS + r) * 2, row + i * 2, 2);
        }
    }
    if (unit * units < row_bytes) /* BF16 with an odd last column */
        for (size_t r = 0; r < rows; r++)
            memcpy(panel + (units * ROWS + r) * 4,
                   (const uint8_t *)w->bytes + (first + r) * row_bytes +
                       units * 4,
                   2);
}

void panel_pack(const struct weight *w, size_t first, void *panel)
{
    size_t rows = w->rows - first < ROWS ? w->rows - first : ROWS;
    if (dtype_is_block(w->type))
        blocks_pack(w, first, rows, panel);
    else
        floats_pack(w, first, rows, panel, w->type == DTYPE_F16 ? 2 : 4);
}
