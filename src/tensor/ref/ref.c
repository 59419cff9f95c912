/* The plain C twin: what every operation means, one thread, no tricks. Sums
 * run in float64 and are rounded once, so that a kernel's distance to "ref"
 * is its own rounding. */
#include "tensor/device_ops.h"
#include "tensor/quant.h"

#include "base/mem.h"

#include <math.h>
#include <string.h>

static void ref_close(struct device *dev)
{
    mem_free(dev);
}

static int ref_reserve(struct device *dev, size_t rows, size_t cols,
                       struct why *why)
{
    (void)dev, (void)rows, (void)cols, (void)why;
    return 0;
}

/* Row r of w, in its type, to to. */
static void row_create(const struct weight *w, const struct weight_rows *from,
                       size_t r, uint8_t *to, void *room, float *values)
{
    const void *row = weight_row_at(from, r, w->cols, room);
    if (from->type == w->type) {
        memcpy(to, row, dtype_row_bytes(w->type, w->cols));
        return;
    }
    dtype_decode(from->type, row, values, w->cols);
    dtype_encode(w->type, values, to, w->cols);
}

static int ref_weight_create(struct weight **out, const struct weight *plain,
                             const struct weight_rows *from, struct why *why)
{
    size_t row = dtype_row_bytes(plain->type, plain->cols);
    uint8_t *copy = host_alloc(plain->rows * row);
    void *room = mem_try(dtype_row_bytes(from->type, plain->cols), 1, 0);
    float *values = mem_try(plain->cols, sizeof *values, 0);
    if (!copy || !room || !values) {
        host_free(copy), mem_free(room), mem_free(values);
        return err_set(why, ERR_NOMEM, "a matrix of %zu bytes",
                       plain->rows * row);
    }
    for (size_t r = 0; r < plain->rows; r++)
        row_create(plain, from, r, copy + r * row, room, values);
    mem_free(room), mem_free(values);
    *out = mem_must(1, sizeof **out);
    **out = *plain;
    (*out)->bytes = copy;
    return 0;
}

static void ref_weight_destroy(struct weight *w)
{
    host_free((void *)(uintptr_t)w->bytes);
    mem_free(w);
}

static const void *weight_row(const struct weight *w, size_t row)
{
    return (const char *)w->bytes + row * dtype_row_bytes(w->type, w->cols);
}

static void ref_embed(struct device *dev, float *out,
                      const struct weight *table, const int32_t *ids,
                      size_t tokens)
{
    (void)dev;
    for (size_t t = 0; t < tokens; t++)
        dtype_decode(table->type, weight_row(table, (size_t)ids[t]),
                     out + t * table->cols, table->cols);
}

static void ref_rmsnorm(struct device *dev, float *out, const float *x,
                        const float *gain, size_t rows, size_t cols, float eps)
{
    (void)dev;
    for (size_t r = 0; r < rows; r++, x += cols, out += cols) {
        double squares = 0;
        for (size_t c = 0; c < cols; c++)
            squares += (double)x[c] * x[c];
        double inverse = 1 / sqrt(squares / (double)cols + eps);
        for (size_t c = 0; c < cols; c++)
            out[c] = (float)(x[c] * inverse * gain[c]);
    }
}

/* The contract's formula of block formats, for 32 columns. */
static double block_dot(const struct quant32 *w, const float *x)
{
    int8_t q[QUANT_COLS];
    float s = quant_round(q, x, QUANT_COLS);
    int32_t dot[2] = {0}, sum = 0;
    for (int c = 0; c < QUANT_COLS; c++) {
        dot[c / 16] += w->q[c] * q[c];
        sum += q[c];
    }
    double d = f16_to_f32(w->d), min = (double)f16_to_f32(w->dmin) * w->min;
    return (d * w->scale[0] * dot[0] + d * w->scale[1] * dot[1] - min * sum) *
           s;
}

/* The same of our formats, for the columns that share scales; xi is room for
 * so many. */
static double group_dot(enum dtype type, const void *row, size_t first,
                        const float *x, size_t cols, int8_t *xi)
{
    int8_t q[QUANT_COLS];
    float s = quant_round(xi, x + first, cols), d = 0;
    int32_t dot = 0;
    for (size_t c = 0; c < cols; c++) {
        if (c % QUANT_COLS == 0)
            d = quant_ints(q, type, row, (first + c) / QUANT_COLS);
        dot += q[c % QUANT_COLS] * xi[c];
    }
    return (double)s * d * dot;
}

static double row_dot(const struct weight *w, size_t row, const float *x,
                      int8_t *xi)
{
    const char *bytes = weight_row(w, row);
    double sum = 0;
    if (dtype_is_own(w->type)) {
        size_t cols = quant_group(w->type, w->cols);
        for (size_t c = 0; c < w->cols; c += cols)
            sum += group_dot(w->type, bytes, c, x, cols, xi);
        return sum;
    }
    if (dtype_is_block(w->type)) {
        for (size_t b = 0; b < w->cols / QUANT_COLS; b++) {
            struct quant32 block;
            quant_unpack(&block, w->type, bytes, b);
            sum += block_dot(&block, x + b * QUANT_COLS);
        }
        return sum;
    }
    for (size_t c = 0; c < w->cols; c++) {
        float value;
        dtype_decode(w->type, bytes + c * dtype_block_bytes(w->type), &value,
                     1);
        float xc =
            w->type == DTYPE_BF16 ? bf16_to_f32(f32_to_bf16(x[c])) : x[c];
        sum += (double)value * xc;
    }
    return sum;
}

static void silu_mul(float *out, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(gate[i] / (1 + exp(-(double)gate[i])) * up[i]);
}

/* Row t of x, in room where it has to be made. */
static const float *input_row(const struct input *x, size_t t, size_t cols,
                              float *room)
{
    const float *row = x->x + t * cols;
    if (x->gain)
        ref_rmsnorm(NULL, room, row, x->gain, 1, cols, x->eps);
    else if (x->up)
        silu_mul(room, row, x->up + t * cols, cols);
    else
        return row;
    return room;
}

static void ref_linear(struct device *dev, const struct input *x, size_t tokens,
                       const struct linear *list, size_t count)
{
    (void)dev;
    int8_t *xi = mem_must(list->w->cols, 1); /* a row of x, rounded */
    float *room = mem_must(list->w->cols, sizeof *room);
    for (const struct linear *l = list; l < list + count; l++) {
        for (size_t t = 0; t < tokens; t++) {
            const float *row = input_row(x, t, l->w->cols, room);
            for (size_t r = 0; r < l->w->rows; r++) {
                float *out = &l->out[t * l->w->rows + r];
                double y = row_dot(l->w, r, row, xi);
                if (l->bias) y += l->bias[r];
                *out = (float)(l->add ? *out + y : y);
            }
        }
    }
    mem_free(xi), mem_free(room);
}

/* Heads [heads, d] of token t, in place. turn NULL: they stay as they are. */
static void heads_turn(float *x, const struct turn *turn, size_t t,
                       size_t heads, size_t d)
{
    if (!turn) return;
    const struct rope *rope = turn->rope;
    size_t half = rope->rotary / 2;
    if (turn->gain) ref_rmsnorm(NULL, x, x, turn->gain, heads, d, turn->eps);
    for (size_t i = 0; i < half; i++) {
        float angle = (float)turn->positions[t] * rope->freqs[i];
        double c = cos(angle) * rope->scale, s = sin(angle) * rope->scale;
        for (size_t h = 0; h < heads; h++) {
            float *p = x + h * d + i;
            double a = p[0], b = p[half];
            p[0] = (float)(a * c - b * s);
            p[half] = (float)(b * c + a * s);
        }
    }
}

static void token_encode(const struct op_kv *kv, const float *x, void *out)
{
    size_t g = kv->kv_heads, d = kv->head_dim;
    if (kv->type != DTYPE_KV8) {
        dtype_encode(kv->type, x, out, g * d);
        return;
    }
    int8_t *q = out;
    for (size_t h = 0; h < g; h++) {
        float scale = quant_round(q + h * d, x + h * d, d);
        memcpy(q + g * d + h * sizeof scale, &scale, sizeof scale);
    }
}

static void ref_kv_write(struct device *dev, const struct op_kv *kv,
                         const struct op_seq *seqs, size_t seq_count,
                         const float *k, const float *v,
                         const struct turn *turn)
{
    (void)dev;
    size_t g = kv->kv_heads, d = kv->head_dim, n = g * d;
    float *turned = mem_must(n, sizeof *turned);
    for (const struct op_seq *s = seqs; s < seqs + seq_count; s++) {
        for (size_t i = 0; i < s->rows; i++) {
            size_t at = kv_offset(kv, s->pages, s->kv_len - s->rows + i);
            size_t row = (s->first_row + i) * n;
            memcpy(turned, k + row, n * sizeof *turned);
            heads_turn(turned, turn, s->first_row + i, g, d);
            token_encode(kv, turned, (char *)kv->k + at);
            token_encode(kv, v + row, (char *)kv->v + at);
        }
    }
    mem_free(turned);
}

/* Head g of a token's K or V as float32. */
static void head_decode(const struct op_kv *kv, const void *token, size_t g,
                        float *out)
{
    size_t d = kv->head_dim;
    if (kv->type != DTYPE_KV8) {
        const char *from = token;
        dtype_decode(kv->type, from + g * d * dtype_block_bytes(kv->type), out,
                     d);
        return;
    }
    const int8_t *q = token;
    float scale;
    memcpy(&scale, q + kv->kv_heads * d + g * sizeof scale, sizeof scale);
    for (size_t i = 0; i < d; i++)
        out[i] = scale * q[g * d + i];
}

/* One head of q as it meets K: scaled, and rounded as K was. */
static void q_round(double *out, const float *q, enum dtype kv, size_t d,
                    float scale)
{
    float x[OP_HEAD_DIM_MAX] = {0};
    int8_t bytes[OP_HEAD_DIM_MAX] = {0};
    for (size_t i = 0; i < d; i++)
        x[i] = q[i] * scale;
    float s = kv == DTYPE_KV8 ? quant_round(bytes, x, d) : 1;
    for (size_t i = 0; i < d; i++)
        out[i] = kv == DTYPE_KV8    ? (double)s * bytes[i]
                 : kv == DTYPE_BF16 ? bf16_to_f32(f32_to_bf16(x[i]))
                                    : x[i];
}

/* One head of one row over tokens from .. visible - 1 of its sequence. Two
 * walks instead of an array of scores: the first finds the largest one. */
static void attend(float *out, const float *q, const struct op_kv *kv,
                   const uint32_t *pages, size_t g, size_t from, size_t visible,
                   float scale)
{
    size_t d = kv->head_dim;
    double most = -INFINITY, total = 0, sum[OP_HEAD_DIM_MAX] = {0};
    double scaled[OP_HEAD_DIM_MAX];
    q_round(scaled, q, kv->type, d, scale);
    for (int walk = 0; walk < 2; walk++) {
        for (size_t t = from; t < visible; t++) {
            size_t at = kv_offset(kv, pages, t);
            float row[OP_HEAD_DIM_MAX];
            head_decode(kv, (const char *)kv->k + at, g, row);
            double score = 0;
            for (size_t i = 0; i < d; i++)
                score += scaled[i] * row[i];
            if (walk == 0) {
                if (score > most) most = score;
                continue;
            }
            double p = exp(score - most);
            total += p;
            head_decode(kv, (const char *)kv->v + at, g, row);
            for (size_t i = 0; i < d; i++)
                sum[i] += p * row[i];
        }
    }
    for (size_t i = 0; i < d; i++)
        out[i] = (float)(sum[i] / total);
}

static void ref_attention(struct device *dev, float *out,
                          const struct query *query, const struct op_kv *kv,
                          const struct op_seq *seqs, size_t seq_count)
{
    (void)dev;
    size_t heads = query->heads, window = query->window, d = kv->head_dim;
    float q[OP_HEAD_DIM_MAX];
    for (const struct op_seq *s = seqs; s < seqs + seq_count; s++) {
        for (size_t i = 0; i < s->rows; i++) {
            size_t visible = s->kv_len - s->rows + i + 1;
            size_t from = window && visible > window ? visible - window : 0;
            for (size_t h = 0; h < heads; h++) {
                size_t t = s->first_row + i, at = (t * heads + h) * d;
                memcpy(q, query->q + at, d * sizeof *q);
                heads_turn(q, query->turn, t, 1, d);
                attend(out + at, q, kv, s->pages, h * kv->kv_heads / heads,
                       from, visible, query->scale);
            }
        }
    }
}

/* What expert e makes of one row y. */
static void expert_row(struct device *dev, float *out, const float *y,
                       const struct experts *e, uint32_t id, float *gate,
                       float *up)
{
    const struct linear gate_up[] = {{gate, e->gate[id], NULL, false},
                                     {up, e->up[id], NULL, false}};
    const struct linear down = {out, e->down[id], NULL, false};
    ref_linear(dev, &(struct input){.x = y}, 1, gate_up, 2);
    ref_linear(dev, &(struct input){.x = gate, .up = up}, 1, &down, 1);
}

static void ref_experts(struct device *dev, float *x, const float *y,
                        const float *scores, size_t tokens,
                        const struct experts *e, float *room)
{
    size_t n = e->gate[0]->cols, f = e->gate[0]->rows;
    float *out = room, *gate = out + n, *up = gate + f, *weights = up + f;
    uint32_t *ids = (uint32_t *)(weights + e->used);
    for (size_t t = 0; t < tokens; t++) {
        experts_choose(e, scores + t * e->count, 1, ids, weights);
        for (uint32_t i = 0; i < e->used; i++) {
            expert_row(dev, out, y + t * n, e, ids[i], gate, up);
            for (size_t c = 0; c < n; c++)
                x[t * n + c] += weights[i] * out[c];
        }
    }
}

static void ref_gather(struct device *dev, float *out, const float *x,
                       const uint32_t *rows, size_t count, size_t cols)
{
    (void)dev;
    for (size_t i = 0; i < count; i++)
        memcpy(out + i * cols, x + rows[i] * cols, cols * sizeof *x);
}

static const struct device_ops ref_ops = {
    .close = ref_close,
    .alloc = host_device_alloc,
    .free = host_device_free,
    .write = host_device_write,
    .read = host_device_read,
    .sync = host_device_sync,
    .reserve = ref_reserve,
    .weight_create = ref_weight_create,
    .weight_destroy = ref_weight_destroy,
    .embed = ref_embed,
    .rmsnorm = ref_rmsnorm,
    .linear = ref_linear,
    .kv_write = ref_kv_write,
    .attention = ref_attention,
    .experts = ref_experts,
    .gather = ref_gather,
};

int device_ref_open(struct device **out, const struct device_options *options,
                    struct why *why)
{
    (void)options, (void)why;
    struct device *dev = mem_must(1, sizeof *dev);
    dev->ops = &ref_ops;
    dev->threads = 1;
    strcpy(dev->text, "ref, 1 thread");
    *out = dev;
    return 0;
}
