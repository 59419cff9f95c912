#include "model/matrix.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- finding ---------------------------------------------------------- */

struct finder {
    const struct model_files *files;
    const char *base;
    struct why *why;
    char name[192]; /* of the tensor that was asked for last */
};

static const struct stored_tensor *part(struct finder *f, const char *suffix)
{
    snprintf(f->name, sizeof f->name, "%s.%s", f->base, suffix);
    return model_files_find(f->files, f->name);
}

static int part_missing(struct finder *f)
{
    return err_set(f->why, ERR_FORMAT, "%s: tensor %s is missing",
                   f->files->path, f->name);
}

static int part_refused(struct finder *f, const struct stored_tensor *t)
{
    return err_set(f->why, ERR_UNSUPPORTED,
                   "%s: tensor %s is stored as %s, which is not supported",
                   t->file, t->name, t->type_name);
}

static int part_shape(struct finder *f, const struct stored_tensor *t,
                      uint64_t rows, uint64_t cols)
{
    char text[128];
    if (t->dims == 2 && t->shape[0] == rows && t->shape[1] == cols) return 0;
    return err_set(f->why, ERR_FORMAT,
                   "%s: tensor %s has shape %s, the config asks for [%llu, "
                   "%llu]",
                   t->file, t->name, stored_shape_text(t, text, sizeof text),
                   (unsigned long long)rows, (unsigned long long)cols);
}

static bool is_float(const struct stored_tensor *t)
{
    return t->type == DTYPE_F32 || t->type == DTYPE_F16 ||
           t->type == DTYPE_BF16;
}

/* A part that must be there, of a type, [rows, cols]. */
static int need_part(struct finder *f, const char *suffix, const char *type,
                     uint64_t rows, uint64_t cols,
                     const struct stored_tensor **out)
{
    const struct stored_tensor *t = part(f, suffix);
    if (!t) return part_missing(f);
    if (type ? strcmp(t->type_name, type) != 0 : !is_float(t))
        return part_refused(f, t);
    *out = t;
    return part_shape(f, t, rows, cols);
}

static float element(const struct stored_tensor *t, size_t i)
{
    float value;
    dtype_decode((enum dtype)t->type,
                 t->bytes + i * dtype_block_bytes((enum dtype)t->type), &value,
                 1);
    return value;
}

static size_t elements(const struct stored_tensor *t)
{
    return t->size / dtype_block_bytes((enum dtype)t->type);
}

/* An int32 of a packed tensor. */
static uint32_t word(const struct stored_tensor *t, size_t i)
{
    uint32_t v;
    memcpy(&v, t->bytes + 4 * i, 4);
    return v;
}

/* A tensor that may only be there if it says nothing. */
static int must_be_zero(struct finder *f, const char *suffix)
{
    const struct stored_tensor *t = part(f, suffix);
    for (size_t i = 0; t && i < t->size; i++)
        if (t->bytes[i])
            return err_set(f->why, ERR_UNSUPPORTED,
                           "%s: tensor %s is not all zero, which is not "
                           "supported",
                           t->file, t->name);
    return 0;
}

/* Scales of whole rows or of the whole matrix: [rows, 1], [rows], [1], []. */
static int row_scales(struct finder *f, struct matrix *m)
{
    const struct stored_tensor *t = part(f, "weight_scale");
    char text[128];
    if (!t) return part_missing(f);
    if (!is_float(t)) return part_refused(f, t);
    bool tail = t->dims < 2 || (t->dims == 2 && t->shape[1] == 1);
    size_t count = elements(t);
    if (!tail || (count != m->rows && count != 1))
        return err_set(f->why, ERR_UNSUPPORTED,
                       "%s: tensor %s has shape %s; one scale for each of %u "
                       "rows is supported",
                       t->file, t->name,
                       stored_shape_text(t, text, sizeof text), m->rows);
    m->scales = t;
    m->scale_rows = count == 1 ? m->rows : 1;
    m->scale_cols = m->cols;
    return 0;
}

static uint32_t parts_of(uint32_t n, uint32_t size)
{
    return n / size + (n % size != 0);
}

static int find_fp8(struct finder *f, struct matrix *m,
                    const struct model_config *c)
{
    m->form = MATRIX_FP8;
    m->type = DTYPE_BF16;
    if (!part(f, "weight_scale_inv")) return row_scales(f, m);
    m->scale_rows = c->quant.block_rows;
    m->scale_cols = c->quant.block_cols;
    return need_part(f, "weight_scale_inv", NULL,
                     parts_of(m->rows, m->scale_rows),
                     parts_of(m->cols, m->scale_cols), &m->scales);
}

/* Of msmodelslim's static form only what the weights mean is used: scales and
 * offsets of activations are ours. */
static int find_int8(struct finder *f, struct matrix *m)
{
    m->form = MATRIX_INT8;
    m->type = dtype_row_bytes(DTYPE_INT8, m->cols) ? DTYPE_INT8 : DTYPE_BF16;
    int rc = row_scales(f, m);
    if (!rc) rc = must_be_zero(f, "weight_offset");
    if (!rc) rc = must_be_zero(f, "weight_zero_point");
    const struct stored_tensor *bias = rc ? NULL : part(f, "quant_bias");
    if (rc || !bias) return rc;
    if (strcmp(bias->type_name, "I32") != 0) return part_refused(f, bias);
    const struct stored_tensor *offset = part(f, "input_offset");
    if (!offset) return part_missing(f);
    if (!is_float(offset) && strcmp(offset->type_name, "I8") != 0)
        return part_refused(f, offset);
    const struct stored_tensor *scale = part(f, "input_scale");
    if (!scale) return part_missing(f);
    if (!is_float(scale)) return part_refused(f, scale);
    if (bias->dims != 1 || bias->shape[0] != m->rows || scale->size == 0 ||
        offset->size == 0)
        return err_set(f->why, ERR_FORMAT,
                       "%s: tensor %s or its scales have another shape",
                       bias->file, bias->name);
    m->partial = bias;
    m->offset = offset;
    m->input_scale = scale;
    return 0;
}

/* Whether float16 holds all scales about as well as they are stored. */
static bool scales_fit(const struct stored_tensor *t)
{
    if (t->type == DTYPE_F16) return true;
    for (size_t i = 0; i < elements(t); i++) {
        float s = fabsf(element(t, i));
        if (!(s == 0 || (s >= 0x1p-14f && s <= 65504))) return false;
    }
    return true;
}

/* The type of ours whose groups share scales of group columns. */
static enum dtype group_type(const struct matrix *m)
{
    static const enum dtype int4[] = {DTYPE_INT4_G128, DTYPE_INT4_G64,
                                      DTYPE_INT4_G32};
    if (!scales_fit(m->scales) || m->order) return DTYPE_BF16;
    if (m->bits == 8)
        return m->scale_cols % 128 || m->cols % 128 ? DTYPE_BF16
                                                    : DTYPE_INT8_G128;
    for (size_t i = 0; i < 3; i++)
        if (m->scale_cols % dtype_block_elems(int4[i]) == 0) return int4[i];
    return DTYPE_BF16;
}

/* Groups of a tensor of scales with count of them along the columns. */
static int set_groups(struct finder *f, struct matrix *m, uint64_t count)
{
    if (count == 0 || m->cols % count || m->cols / count % 8)
        return err_set(f->why, ERR_FORMAT,
                       "%s: %llu groups in tensor %s do not divide %u columns",
                       f->files->path, (unsigned long long)count, f->name,
                       m->cols);
    m->scale_rows = 1;
    m->scale_cols = m->cols / (uint32_t)count;
    return 0;
}

/* g_idx says which group a column is of: kept only where it is not what
 * everybody would think. */
static int find_order(struct finder *f, struct matrix *m, const char *suffix)
{
    const struct stored_tensor *t = part(f, suffix);
    uint32_t groups = m->cols / m->scale_cols;
    if (!t) return 0;
    if (strcmp(t->type_name, "I32") != 0) return part_refused(f, t);
    if (t->dims != 1 || t->shape[0] != m->cols)
        return err_set(f->why, ERR_FORMAT,
                       "%s: tensor %s is no list of %u columns", t->file,
                       t->name, m->cols);
    for (uint32_t c = 0; c < m->cols; c++) {
        if (word(t, c) >= groups)
            return err_set(f->why, ERR_FORMAT,
                           "%s: tensor %s[%u] names group %d of %u", t->file,
                           t->name, c, (int)word(t, c), groups);
        if (word(t, c) != c / m->scale_cols) m->order = t;
    }
    return 0;
}

static int find_scattered(struct finder *f, struct matrix *m,
                          const struct model_config *c)
{
    bool awq = c->quant.method == QUANT_AWQ;
    m->form = awq ? MATRIX_AWQ : MATRIX_GPTQ;
    m->bits = 4;
    m->zero_shift = !awq && !c->quant.zeros_as_is;
    if (m->rows % 8 || m->cols % 8)
        return err_set(f->why, ERR_FORMAT, "%s: %s: %u x %u in words of 8",
                       f->files->path, f->base, m->rows, m->cols);
    const struct stored_tensor *scales = part(f, "scales");
    if (!scales) return part_missing(f);
    int rc = set_groups(f, m, scales->dims == 2 ? scales->shape[0] : 0);
    if (rc) return rc;
    uint32_t groups = m->cols / m->scale_cols;
    rc = need_part(f, "scales", NULL, groups, m->rows, &m->scales);
    if (!rc) rc = need_part(f, "qzeros", "I32", groups, m->rows / 8, &m->zeros);
    if (!rc)
        rc =
            awq ? need_part(f, "qweight", "I32", m->cols, m->rows / 8, &m->main)
                : need_part(f, "qweight", "I32", m->cols / 8, m->rows,
                            &m->main);
    if (!rc && !awq) rc = find_order(f, m, "g_idx");
    if (!rc) m->type = group_type(m);
    return rc;
}

static int find_packed(struct finder *f, struct matrix *m)
{
    const struct stored_tensor *t = part(f, "weight_packed");
    const struct stored_tensor *scales = part(f, "weight_scale");
    if (!scales) return part_missing(f);
    int rc = set_groups(f, m, scales->dims == 2 ? scales->shape[1] : 0);
    if (rc) return rc;
    uint32_t groups = m->cols / m->scale_cols;
    m->form = MATRIX_PACKED;
    m->bits = t->dims == 2 && t->shape[1] == m->cols / 4 ? 8 : 4;
    rc = need_part(f, "weight_packed", "I32", m->rows, m->cols * m->bits / 32,
                   &m->main);
    if (!rc)
        rc = need_part(f, "weight_scale", NULL, m->rows, groups, &m->scales);
    if (!rc && part(f, "weight_zero_point")) {
        if (m->bits == 8 || m->rows % 8)
            return part_refused(f, part(f, "weight_zero_point"));
        rc = need_part(f, "weight_zero_point", "I32", m->rows / 8, groups,
                       &m->zeros);
    }
    if (!rc) rc = find_order(f, m, "weight_g_idx");
    if (!rc) m->type = group_type(m);
    return rc;
}

static int find_weight(struct finder *f, struct matrix *m,
                       const struct model_config *c, uint32_t expert,
                       uint32_t experts)
{
    const struct stored_tensor *t = m->main;
    uint64_t rows = (uint64_t)m->rows * (experts ? experts : 1);
    struct stored_tensor flat = *t;
    if (experts && t->dims == 3 && t->shape[0] == experts &&
        t->shape[1] == m->rows) {
        flat.dims = 2; /* one matrix above the other */
        flat.shape[0] = rows;
        flat.shape[1] = t->shape[2];
    }
    int rc = part_shape(f, &flat, rows, m->cols);
    if (rc) return rc;
    m->bytes = t->bytes + (experts ? t->size / experts * expert : 0);
    if (t->type >= 0) {
        m->form = MATRIX_AS_IS;
        m->type = (enum dtype)t->type;
        return 0;
    }
    if (f->files->gguf && matrix_gguf_type(t->type_name, &m->type)) {
        m->form = MATRIX_GGUF;
        return 0;
    }
    if (!strcmp(t->type_name, "F8_E4M3")) return find_fp8(f, m, c);
    if (!strcmp(t->type_name, "I8")) return find_int8(f, m);
    return part_refused(f, t);
}

int matrix_find(struct matrix *out, const struct model_files *files,
                const struct model_config *config, const char *base,
                uint32_t rows, uint32_t cols, uint32_t expert, uint32_t experts,
                struct why *why)
{
    struct finder f = {.files = files, .base = base, .why = why};
    struct matrix m = {.rows = rows, .cols = cols, .bits = 4};
    int rc;
    if ((m.main = part(&f, "weight")))
        rc = find_weight(&f, &m, config, expert, experts);
    else if (files->shards && part(&f, "weight_packed"))
        rc = find_packed(&f, &m);
    else if (files->shards && part(&f, "qweight") &&
             (config->quant.method == QUANT_AWQ ||
              config->quant.method == QUANT_GPTQ))
        rc = find_scattered(&f, &m, config);
    else
        rc = (part(&f, "weight"), part_missing(&f));
    if (rc) return rc;
    if (!m.bytes) m.bytes = m.main->bytes;
    m.size = m.main->size / (experts ? experts : 1);
    if (m.scales) m.size += m.scales->size;
    if (m.zeros) m.size += m.zeros->size;
    *out = m;
    return 0;
}

/* --- rows ------------------------------------------------------------- */

static float scale_at(const struct matrix *m, size_t row, size_t col)
{
    size_t per_row = parts_of(m->cols, m->scale_cols);
    size_t r = row / m->scale_rows, c = col / m->scale_cols;
    if (m->form == MATRIX_AWQ || m->form == MATRIX_GPTQ)
        return element(m->scales, c * m->rows + r);
    return element(m->scales, r * per_row + c);
}

/* Where AWQ keeps row r of eight in a word. */
static const uint8_t awq_place[8] = {0, 4, 1, 5, 2, 6, 3, 7};

static uint32_t zero_at(const struct matrix *m, size_t row, size_t group)
{
    if (!m->zeros) return m->bits == 8 ? 128 : 8;
    size_t groups = m->cols / m->scale_cols, place = row % 8;
    size_t at = group * (m->rows / 8) + row / 8;
    if (m->form == MATRIX_AWQ) place = awq_place[row % 8];
    if (m->form == MATRIX_PACKED) at = row / 8 * groups + group;
    return (word(m->zeros, at) >> (4 * place) & 15) + m->zero_shift;
}

/* Columns col .. col + 7 of a row, as stored. */
static void values_at(const struct matrix *m, size_t row, size_t col,
                      uint8_t q[8])
{
    if (m->form == MATRIX_AWQ) {
        for (size_t i = 0; i < 8; i++)
            q[i] = word(m->main, (col + i) * (m->rows / 8) + row / 8) >>
                       (4 * awq_place[row % 8]) &
                   15;
        return;
    }
    if (m->bits == 8) {
        memcpy(q, m->bytes + row * m->cols + col, 8);
        return;
    }
    uint32_t v = m->form == MATRIX_GPTQ
                     ? word(m->main, col / 8 * m->rows + row)
                     : word(m->main, row * (m->cols / 8) + col / 8);
    for (size_t i = 0; i < 8; i++)
        q[i] = v >> (4 * i) & 15;
}

static void put_half(uint8_t *out, float value)
{
    uint16_t h = f32_to_f16(value);
    memcpy(out, &h, 2);
}

/* Blocks of f16 scale, zero and nibbles (tensor/tensor.h); of f16 scale and
 * bytes for int8_g128. */
static void group_row(const struct matrix *m, size_t row, uint8_t *out)
{
    size_t n = dtype_block_elems(m->type);
    for (size_t c = 0; c < m->cols; c += n) {
        uint8_t q[128];
        put_half(out, scale_at(m, row, c));
        for (size_t i = 0; i < n; i += 8)
            values_at(m, row, c + i, q + i);
        if (m->bits == 8) {
            for (size_t i = 0; i < n; i++)
                out[2 + i] = q[i] ^ 0x80; /* less 128 */
        } else {
            out[2] = (uint8_t)zero_at(m, row, c / m->scale_cols);
            for (size_t i = 0; i < n; i++) {
                uint8_t *to = out + 3 + i / 32 * 16 + i % 16;
                *to = (uint8_t)(i % 32 < 16 ? q[i] : *to | q[i] << 4);
            }
        }
        out += dtype_block_bytes(m->type);
    }
}

/* The value of an E4M3 byte: 4 bits of exponent, 3 of fraction, no infinity. */
static float fp8_value(uint8_t b)
{
    int e = b >> 3 & 15, f = b & 7;
    float v = e ? ldexpf((float)(8 + f), e - 10) : ldexpf((float)f, -9);
    if ((b & 127) == 127) v = NAN;
    return b & 128 ? -v : v;
}

/* A row of what m's type cannot hold otherwise, as floats. */
static void decode_row(const struct matrix *m, size_t row, float *out)
{
    const uint8_t *stored = m->bytes + row * m->cols;
    uint8_t q[8];
    for (size_t c = 0; c < m->cols; c++) {
        size_t group = m->order ? word(m->order, c) : c / m->scale_cols;
        if (m->form == MATRIX_FP8) {
            out[c] = fp8_value(stored[c]);
        } else if (m->form == MATRIX_INT8) {
            out[c] = (float)(int8_t)stored[c];
        } else {
            if (c % 8 == 0) values_at(m, row, c, q);
            out[c] = (float)((int)q[c % 8] - (int)zero_at(m, row, group));
        }
        out[c] *= scale_at(m, row, group * m->scale_cols);
    }
}

static void one_row(const struct matrix *m, size_t row, uint8_t *out)
{
    size_t stored;
    float d;
    switch (m->form) {
    case MATRIX_AS_IS:
        stored = dtype_row_bytes(m->type, m->cols);
        memcpy(out, m->bytes + row * stored, stored);
        return;
    case MATRIX_GGUF:
        stored = m->size / m->rows;
        matrix_gguf_row(m->main->type_name, m->bytes + row * stored, m->cols,
                        out);
        return;
    case MATRIX_INT8:
        if (m->type != DTYPE_INT8) break;
        d = scale_at(m, row, 0);
        memcpy(out, &d, sizeof d);
        memcpy(out + sizeof d, m->bytes + row * m->cols, m->cols);
        return;
    case MATRIX_AWQ:
    case MATRIX_GPTQ:
    case MATRIX_PACKED:
        if (m->type == DTYPE_BF16) break;
        group_row(m, row, out);
        return;
    case MATRIX_FP8: break;
    }
    float *values = mem_must(m->cols, sizeof *values);
    decode_row(m, row, values);
    dtype_encode(m->type, values, out, m->cols);
    mem_free(values);
}

void matrix_rows(const struct matrix *m, size_t first, size_t count, void *out)
{
    uint8_t *to = out;
    for (size_t r = first; r < first + count; r++) {
        one_row(m, r, to);
        to += dtype_row_bytes(m->type, m->cols);
    }
}

/* quant_bias = round(bias / deq) - offset * sum of the row's integers, where
 * deq = the activations' scale times the row's. */
bool matrix_bias(const struct matrix *m, float *out)
{
    if (!m->partial) return false;
    double scale = element(m->input_scale, 0);
    double offset = m->offset->type < 0 ? (int8_t)m->offset->bytes[0]
                                        : element(m->offset, 0);
    for (size_t r = 0; r < m->rows; r++) {
        int64_t sum = 0;
        for (size_t c = 0; c < m->cols; c++)
            sum += (int8_t)m->bytes[r * m->cols + c];
        double bias = (int32_t)word(m->partial, r) + offset * (double)sum;
        out[r] = (float)(bias * scale * scale_at(m, r, 0));
    }
    return true;
}
