/* Packing: any row format of tensor.h into the panels of kernels.h, and rows
 * of panels back to floats. */
#include "tensor/cpu/kernels.h"

#include "base/checksum.h"
#include "tensor/device_ops.h"
#include "tensor/quant.h"

#include <assert.h>
#include <string.h>

/* Steps of 4-bit, of 8-bit integers. */
static bool is_nibbles(enum dtype type)
{
    return type == DTYPE_Q4_0 || type >= DTYPE_INT4_G32;
}

static bool is_bytes(enum dtype type)
{
    return type == DTYPE_Q8_0 || type == DTYPE_INT8 || type == DTYPE_INT8_G128;
}

static bool has_zeros(enum dtype type)
{
    return type >= DTYPE_INT4_G32;
}

bool panel_has_pairs(enum dtype type)
{
    return is_nibbles(type) || (is_bytes(type) && type != DTYPE_INT8);
}

struct pairs panel_pairs(enum dtype type)
{
    size_t columns = dtype_block_elems(type);
    size_t steps = columns / (is_nibbles(type) ? 8 : 4) * STEP;
    return (struct pairs){columns, steps, 2 * steps + 2 * ROWS * 2};
}

size_t panel_scales(size_t cols)
{
    return cols / 4 * STEP;
}

size_t panel_zeros(enum dtype type, size_t cols)
{
    struct pairs p = panel_pairs(type);
    return (cols / p.columns + 1) / 2 * p.bytes;
}

static size_t packed_bytes(enum dtype type, size_t cols)
{
    if (type == DTYPE_F32) return cols * ROWS * 4;
    if (type == DTYPE_F16) return cols * ROWS * 2;
    if (type == DTYPE_BF16) return (cols + 1) / 2 * STEP;
    if (type == DTYPE_INT8) return panel_scales(cols) + ROWS * sizeof(float);
    if (has_zeros(type))
        return panel_zeros(type, cols) + cols / quant_group(type, cols) * ROWS;
    if (panel_has_pairs(type)) return panel_zeros(type, cols);
    struct panel_format f = panel_format(type);
    return cols / RUN / (size_t)f.runs * (size_t)(f.head + f.runs * f.run);
}

size_t panel_bytes(enum dtype type, size_t cols)
{
    return (packed_bytes(type, cols) + STEP - 1) / STEP * STEP;
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

/* How the words of a type of floats or steps lie in its rows. Nibbles stand
 * there as in a panel, bytes but for the sign. */
static struct pack pack_of(enum dtype type, size_t cols)
{
    const bool nibbles = is_nibbles(type) || type == DTYPE_Q4_1;
    size_t payload = nibbles ? cols / 2 : cols;
    switch (type) {
    case DTYPE_F32: payload = cols * 4; break;
    case DTYPE_F16:
    case DTYPE_BF16: payload = cols * 2; break;
    default: break;
    }
    struct pack p = {.row_bytes = dtype_row_bytes(type, cols),
                     .words = payload / 4,
                     .part_words = payload / 4 + 1,
                     .block_units = 1,
                     .block_bytes = PACK_UNIT,
                     .flip = is_bytes(type) ? 0x80808080 : 0,
                     .halves = type == DTYPE_F16};
    if (!dtype_is_block(type)) return p;
    if (type == DTYPE_INT8) {
        p.head = 4;
        return p;
    }
    if (type == DTYPE_Q4_1) {
        struct panel_format f = panel_format(type);
        p.part_words = (size_t)f.run / STEP;
        p.part_gap = (size_t)f.head;
    } else {
        struct pairs pairs = panel_pairs(type);
        p.part_words = 2 * pairs.steps / STEP;
        p.part_gap = pairs.bytes - 2 * pairs.steps;
    }
    size_t block = dtype_block_elems(type) / (nibbles ? 2 : 1);
    p.block_units = block / PACK_UNIT;
    p.block_bytes = dtype_block_bytes(type);
    p.head = p.block_bytes - block; /* of a block: scale, zero point */
    return p;
}

/* The panel that begins with row first, if there is one. */
static struct pack_ahead ahead_of(const struct weight *w, size_t first)
{
    size_t rows = w->rows - first < ROWS ? w->rows - first : ROWS;
    size_t bytes = dtype_row_bytes(w->type, w->cols);
    return (struct pack_ahead){(const uint8_t *)w->bytes + first * bytes,
                               rows * bytes / STEP};
}

/* Words first .. of some rows, without a kernel. */
static void words_pack(const struct pack *p, size_t rows, size_t first)
{
    enum { TILE = 64 }; /* so that reads and writes both stay in the cache */
    for (size_t i = first; i < p->words; i += TILE)
        for (size_t r = 0; r < rows; r++)
            for (size_t w = i; w < p->words && w < i + TILE; w++) {
                const uint8_t *from = p->rows + r * p->row_bytes +
                                      pack_unit(p, w / 4) + w % 4 * 4;
                uint32_t word;
                memcpy(&word, from, 4);
                word ^= p->flip;
                uint8_t *step = pack_step(p, w);
                memcpy(step + (p->halves ? 2 : 4) * r, &word,
                       p->halves ? 2 : 4);
                if (p->halves)
                    memcpy(step + STEP / 2 + 2 * r, (uint8_t *)&word + 2, 2);
            }
}

/* BF16 or F16 with an odd last column. */
static void last_pack(const struct pack *p, size_t rows)
{
    for (size_t r = 0; r < rows; r++)
        memcpy(pack_step(p, p->words) + (p->halves ? 2 : 4) * r,
               p->rows + r * p->row_bytes + p->words * 4, 2);
}

/* Of Q4_1, before each run. */
static void heads_pack(const struct weight *w, const struct pack *p,
                       size_t rows, uint8_t *panel)
{
    for (size_t r = 0; r < rows; r++) {
        const uint8_t *block = p->rows + r * p->row_bytes;
        uint8_t *head = panel + 2 * r;
        for (size_t i = 0; i < w->cols / RUN; i++) {
            memcpy(head, block, 2);
            memcpy(head + 32, block + 2, 2);
            block += p->block_bytes;
            head += p->part_words * STEP + p->part_gap;
        }
    }
}

static void scales_pack(const struct weight *w, const struct pack *p,
                        size_t rows, uint8_t *panel)
{
    if (w->type == DTYPE_INT8) {
        for (size_t r = 0; r < rows; r++)
            memcpy(panel + panel_scales(w->cols) + 4 * r,
                   p->rows + r * p->row_bytes, 4);
        return;
    }
    const struct pairs pairs = panel_pairs(w->type);
    const size_t groups = w->cols / pairs.columns, block = p->block_bytes;
    uint8_t *zeros = panel + panel_zeros(w->type, w->cols);
    for (size_t r = 0; r < rows; r++) {
        const uint8_t *d = p->rows + r * p->row_bytes;
        uint8_t *to = panel + pairs_scales(pairs, 0) + 2 * r;
        for (size_t g = 0; g + 1 < groups; g += 2, to += pairs.bytes) {
            memcpy(to, d + g * block, 2);
            memcpy(to + ROWS * 2, d + (g + 1) * block, 2);
        }
        if (groups % 2) memcpy(to, d + (groups - 1) * block, 2);
        if (!has_zeros(w->type)) continue;
        for (size_t g = 0; g < groups; g++)
            zeros[g * ROWS + r] = d[g * block + 2];
    }
}

static void steps_pack(const struct kernels *k, const struct weight *w,
                       size_t first, size_t rows, uint8_t *panel)
{
    struct pack p = pack_of(w->type, w->cols);
    p.rows = (const uint8_t *)w->bytes + first * p.row_bytes;
    p.ahead = ahead_of(w, first + rows);
    p.to = panel + (w->type == DTYPE_Q4_1 ? p.part_gap : 0);
    size_t done = 0;
    if (k && rows == ROWS) {
        k->pack(&p);
        done = p.words / PACK_WORDS * PACK_WORDS;
    }
    words_pack(&p, rows, done);
    if (w->type == DTYPE_Q4_1)
        heads_pack(w, &p, rows, panel);
    else if (dtype_is_block(w->type))
        scales_pack(w, &p, rows, panel);
    else if (p.words * 4 < p.row_bytes)
        last_pack(&p, rows);
}

static void runs_pack(const struct kernels *k, const struct weight *w,
                      size_t first, size_t rows, uint8_t *panel)
{
    struct panel_format f = panel_format(w->type);
    size_t runs = (size_t)f.runs, block = (size_t)(f.head + f.runs * f.run);
    size_t row_bytes = dtype_row_bytes(w->type, w->cols);
    if (k && rows == ROWS) {
        const struct pack_ahead ahead = ahead_of(w, first + rows);
        k->pack_k(w->type, (const uint8_t *)w->bytes + first * row_bytes,
                  row_bytes, w->cols / dtype_block_elems(w->type), &ahead,
                  panel);
        return;
    }
    for (size_t i = 0; i < w->cols / RUN; i++) {
        uint8_t *head = panel + i / runs * block;
        uint8_t *run = head + f.head + (int)(i % runs) * f.run;
        for (size_t r = 0; r < rows; r++) {
            const uint8_t *row =
                (const uint8_t *)w->bytes + (first + r) * row_bytes;
            struct quant32 b;
            quant_unpack(&b, w->type, row, i);
            run_pack(w->type, &b, i % runs == 0, head, run, (int)r);
        }
    }
}

void panel_pack(const struct kernels *k, const struct weight *w, size_t first,
                void *panel)
{
    size_t rows = w->rows - first < ROWS ? w->rows - first : ROWS;
    if (w->type >= DTYPE_Q4_K && w->type <= DTYPE_Q6_K)
        runs_pack(k, w, first, rows, panel);
    else
        steps_pack(k, w, first, rows, panel);
}

uint64_t panel_layout(void)
{
    enum { COLS = 256 };
    uint8_t rows[(ROWS + 3) * COLS * 4], panel[ROWS * COLS * 4 + STEP];
    uint64_t word = 1, sum = 0;
    for (size_t i = 0; i < sizeof rows; i++) {
        word = word * 6364136223846793005u + 1442695040888963407u;
        rows[i] = (uint8_t)(word >> 56);
    }
    for (enum dtype type = 0; type < DTYPE_COUNT; type++) {
        const struct weight w = {NULL, type, ROWS + 3, COLS, rows};
        for (size_t first = 0; first < w.rows; first += ROWS) {
            size_t bytes = panel_bytes(type, COLS);
            assert(bytes <= sizeof panel);
            memset(panel, 0, bytes);
            panel_pack(NULL, &w, first, panel);
            const uint64_t both[] = {sum, checksum64(panel, bytes)};
            sum = checksum64(both, sizeof both);
        }
    }
    return sum;
}

/* --- and back: one row --------------------------------------------------- */

static uint16_t get16(const uint8_t *p)
{
    uint16_t value;
    memcpy(&value, p, 2);
    return value;
}

static void floats_row(enum dtype type, size_t cols, const uint8_t *panel,
                       int row, float *out)
{
    for (size_t c = 0; c < cols; c++) {
        size_t at = c * ROWS + (size_t)row;
        if (type == DTYPE_BF16) at = (c / 2 * ROWS + (size_t)row) * 2 + c % 2;
        if (type == DTYPE_F32)
            memcpy(out + c, panel + at * 4, 4);
        else if (type == DTYPE_F16)
            out[c] = f16_to_f32(get16(panel + at * 2));
        else
            out[c] = bf16_to_f32(get16(panel + at * 2));
    }
}

/* Integers of the 32 columns whose steps begin at run. */
static void nibbles_row(int8_t q[RUN], const uint8_t *run, int zero)
{
    for (int c = 0; c < 16; c++) {
        uint8_t two = run[c / 4 * STEP + c % 4];
        q[c] = (int8_t)((two & 15) - zero);
        q[c + 16] = (int8_t)((two >> 4) - zero);
    }
}

/* Where the run-th run's steps and its scale are in a panel. */
struct run_at {
    size_t steps, scale;
};

static struct run_at run_find(enum dtype type, size_t cols, size_t run)
{
    size_t bytes = (is_nibbles(type) ? 4 : 8) * STEP;
    if (type == DTYPE_INT8)
        return (struct run_at){run * bytes, panel_scales(cols)};
    struct pairs p = panel_pairs(type);
    size_t runs = p.columns / RUN, group = run / runs;
    return (struct run_at){pairs_steps(p, group) + run % runs * bytes,
                           pairs_scales(p, group)};
}

static void steps_row(enum dtype type, size_t cols, const uint8_t *panel,
                      int row, float *out)
{
    const uint8_t *zeros =
        has_zeros(type) ? panel + panel_zeros(type, cols) : NULL;
    size_t group = quant_group(type, cols);
    for (size_t c = 0; c < cols; c += RUN) {
        struct run_at at = run_find(type, cols, c / RUN);
        const uint8_t *steps = panel + at.steps + 4 * row;
        int8_t q[RUN];
        if (is_nibbles(type))
            nibbles_row(q, steps,
                        zeros ? zeros[c / group * ROWS + (size_t)row] : 8);
        else
            for (size_t i = 0; i < RUN; i++)
                q[i] = (int8_t)(steps[i / 4 * STEP + i % 4] - 128);
        float d;
        if (type == DTYPE_INT8)
            memcpy(&d, panel + at.scale + row * 4, 4);
        else
            d = f16_to_f32(get16(panel + at.scale + row * 2));
        for (size_t i = 0; i < RUN; i++)
            out[c + i] = d * q[i];
    }
}

/* What run_pack and, of Q4_1, steps_pack did, undone. */
static void run_unpack(struct quant32 *b, enum dtype type, const uint8_t *head,
                       const uint8_t *run, int row)
{
    const uint8_t *rest = run + 256 + row, *high = run + 256 + 4 * row;
    *b = (struct quant32){.d = get16(head + 2 * row), .scale = {1, 1}};
    nibbles_row(b->q, run + 4 * row, 0);
    if (type != DTYPE_Q6_K) b->dmin = get16(head + 32 + 2 * row);
    if (type == DTYPE_Q4_1) {
        b->dmin ^= 0x8000;
        b->min = 1;
        return;
    }
    if (type == DTYPE_Q6_K) {
        for (int c = 0; c < RUN; c++) {
            int two = high[c / 16 * STEP + c % 4] >> (c / 4 % 4 * 2) & 3;
            b->q[c] = (int8_t)(b->q[c] + two * 16 - 32);
        }
        b->scale[0] = (int8_t)rest[128];
        b->scale[1] = (int8_t)rest[144];
        return;
    }
    if (type == DTYPE_Q5_K) {
        for (int c = 0; c < RUN; c++)
            b->q[c] = (int8_t)(b->q[c] + (high[c % 4] >> (c / 4) & 1) * 16);
        rest += 64;
    }
    b->scale[0] = b->scale[1] = (int8_t)rest[0];
    b->min = rest[16];
}

static void runs_row(enum dtype type, size_t cols, const uint8_t *panel,
                     int row, float *out)
{
    struct panel_format f = panel_format(type);
    size_t runs = (size_t)f.runs, block = (size_t)(f.head + f.runs * f.run);
    for (size_t i = 0; i < cols / RUN; i++) {
        const uint8_t *head = panel + i / runs * block;
        struct quant32 b;
        run_unpack(&b, type, head, head + f.head + (int)(i % runs) * f.run,
                   row);
        quant_floats(&b, out + i * RUN);
    }
}

void panel_decode(enum dtype type, size_t cols, const void *panel, int row,
                  float *out)
{
    if (!dtype_is_block(type))
        floats_row(type, cols, panel, row, out);
    else if (is_bytes(type) || is_nibbles(type))
        steps_row(type, cols, panel, row, out);
    else
        runs_row(type, cols, panel, row, out);
}

/* --- forms ---------------------------------------------------------------- */

enum form kernels_form(const struct kernels *k, enum dtype type)
{
    switch (type) {
    case DTYPE_F32:
    case DTYPE_F16: return FORM_F32;
    case DTYPE_BF16: return k->bf16 ? FORM_BF16 : FORM_F32;
    case DTYPE_INT8: return FORM_ROW;
    case DTYPE_INT8_G128:
    case DTYPE_INT4_G128: return FORM_128;
    case DTYPE_INT4_G64: return FORM_64;
    case DTYPE_Q8_0:
    case DTYPE_Q4_0:
    case DTYPE_INT4_G32: return FORM_32;
    case DTYPE_Q6_K: return FORM_16;
    default: return FORM_MIN;
    }
}

size_t form_columns(enum form form)
{
    return form == FORM_F32 ? 1 : form == FORM_BF16 ? 2 : 4;
}

struct acts acts_of(enum dtype type, size_t cols)
{
    if (type == DTYPE_BF16) return (struct acts){ACTS_BF16, 0};
    if (!dtype_is_block(type)) return (struct acts){ACTS_F32, 0};
    return (struct acts){ACTS_INT8, quant_group(type, cols)};
}
