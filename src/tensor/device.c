/* The doors of device.h and ops.h: they check what a caller can get wrong,
 * leave out empty work, and forward to the device's table. */
#include "tensor/device_ops.h"

#include "base/clock.h"

#include <assert.h>
#include <string.h>

static const struct kind {
    const char *name;
    int (*open)(struct device **, const struct device_options *, struct why *);
    const char *missing; /* why there is no open */
} kinds[] = {
    {"cpu", device_cpu_open, NULL},
    {"ref", device_ref_open, NULL},
    {"cuda", NULL, "this build has no CUDA device"},
    {"ascend", NULL, "this build has no Ascend device"},
};

int device_open(struct device **out, const struct device_options *options,
                struct why *why)
{
    *out = NULL;
    const char *name = options->kind ? options->kind : "auto";
    if (strcmp(name, "auto") == 0) name = "cpu"; /* the best there is so far */
    if (options->threads < 0)
        return err_set(why, ERR_INVALID, "device: %d threads",
                       options->threads);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].name, name) != 0) continue;
        if (!kinds[i].open)
            return err_set(why, ERR_UNSUPPORTED, "device \"%s\": %s", name,
                           kinds[i].missing);
        return kinds[i].open(out, options, why);
    }
    return err_set(why, ERR_UNSUPPORTED,
                   "device \"%s\": not one of auto, cpu, cuda, ascend, ref",
                   name);
}

void device_close(struct device *dev)
{
    if (dev) dev->ops->close(dev);
}

const char *device_describe(const struct device *dev)
{
    return dev->text;
}

int device_threads(const struct device *dev)
{
    return dev->threads;
}

int device_alloc(struct device *dev, void **out, size_t bytes, struct why *why)
{
    return dev->ops->alloc(dev, out, bytes, why);
}

void device_free(struct device *dev, void *ptr)
{
    dev->ops->free(dev, ptr);
}

void device_write(struct device *dev, void *to, const void *host, size_t n)
{
    if (n) dev->ops->write(dev, to, host, n);
}

bool device_is_host(const struct device *dev)
{
    return dev->ops->read == host_device_read;
}

void device_read(struct device *dev, void *host, const void *from, size_t n)
{
    if (n) dev->ops->read(dev, host, from, n);
}

int device_sync(struct device *dev, struct why *why)
{
    return dev->ops->sync(dev, why);
}

void device_share(struct device *dev, void (*fn)(void *, size_t, int),
                  void *arg, size_t count)
{
    if (dev->ops->share) {
        dev->ops->share(dev, fn, arg, count);
        return;
    }
    for (size_t i = 0; i < count; i++)
        fn(arg, i, 0);
}

int device_reserve(struct device *dev, size_t rows, size_t cols,
                   struct why *why)
{
    return dev->ops->reserve(dev, rows, cols, why);
}

int weight_create(struct weight **out, struct device *dev, enum dtype type,
                  size_t rows, size_t cols, const void *bytes, struct why *why)
{
    const struct weight_rows from = {.type = type, .bytes = bytes};
    return weight_create_from(out, dev, type, rows, cols, &from, why);
}

static bool is_matrix(enum dtype type, size_t rows, size_t cols)
{
    size_t row = dtype_row_bytes(type, cols), all;
    return rows && row && !__builtin_mul_overflow(rows, row, &all);
}

int weight_create_from(struct weight **out, struct device *dev, enum dtype type,
                       size_t rows, size_t cols, const struct weight_rows *from,
                       struct why *why)
{
    *out = NULL;
    assert(from->type == type || dtype_rounds(from->type, type));
    if (!is_matrix(type, rows, cols) || !is_matrix(from->type, rows, cols))
        return err_set(why, ERR_INVALID, "a matrix of %zu x %zu in %s", rows,
                       cols, dtype_name(type));
    struct weight plain = {dev, type, rows, cols, NULL};
    return dev->ops->weight_create(out, &plain, from, why);
}

size_t weight_pack(struct weight *w, size_t bytes)
{
    const struct device_ops *ops = w->dev->ops;
    return ops->weight_pack ? ops->weight_pack(w, bytes) : 0;
}

const void *weight_row_at(const struct weight_rows *from, size_t r, size_t cols,
                          void *room)
{
    if (!from->bytes) return from->row(from->arg, r, room);
    return (const char *)from->bytes + r * dtype_row_bytes(from->type, cols);
}

const char *device_layout(const struct device *dev)
{
    return dev->layout[0] ? dev->layout : NULL;
}

size_t weight_packed_bytes(const struct device *dev, enum dtype type,
                           size_t rows, size_t cols)
{
    return dev->ops->packed_bytes(type, rows, cols);
}

const void *weight_packed(const struct weight *w)
{
    return w->dev->ops->packed(w);
}

int weight_map(struct weight **out, struct device *dev, enum dtype type,
               size_t rows, size_t cols, const void *packed, struct why *why)
{
    *out = NULL;
    const struct weight plain = {dev, type, rows, cols, NULL};
    return dev->ops->weight_map(out, &plain, packed, why);
}

void weight_destroy(struct weight *w)
{
    if (w) w->dev->ops->weight_destroy(w);
}

size_t weight_rows(const struct weight *w)
{
    return w->rows;
}

size_t weight_cols(const struct weight *w)
{
    return w->cols;
}

/* --- the trace ---------------------------------------------------------- */

static uint64_t busy_ns(struct device *dev)
{
    return dev->ops->busy_ns ? dev->ops->busy_ns(dev, dev->trace) : 0;
}

void device_trace(struct device *dev, struct trace *trace)
{
    dev->trace = trace;
    busy_ns(dev);
}

struct span {
    uint64_t ns, busy;
};

static struct span span_begin(struct device *dev)
{
    if (!dev->trace) return (struct span){0};
    return (struct span){clock_ns(), busy_ns(dev)};
}

static struct trace_row *row_find(struct trace *trace,
                                  const struct trace_row *like)
{
    struct trace_row *row = trace->rows, *end = row + trace->count;
    for (; row < end; row++)
        if (strcmp(row->op, like->op) == 0 && row->rows == like->rows &&
            row->cols == like->cols && row->type == like->type)
            return row;
    if (trace->count == TRACE_ROWS) return NULL;
    trace->count++;
    *row = *like;
    return row;
}

static void span_count(struct device *dev, struct span begin,
                       const struct trace_row *what, uint64_t bytes,
                       uint64_t ops)
{
    uint64_t now = clock_ns();
    struct trace_row *row = row_find(dev->trace, what);
    if (!row) return;
    row->calls++;
    row->ns += now - begin.ns;
    row->busy_ns += busy_ns(dev) - begin.busy;
    row->bytes += bytes;
    row->ops += ops;
}

static void span_end(struct device *dev, struct span begin, const char *op)
{
    if (dev->trace) span_count(dev, begin, &(struct trace_row){.op = op}, 0, 0);
}

static void linear_end(struct device *dev, struct span begin,
                       const struct linear *list, size_t count, size_t tokens)
{
    if (!dev->trace) return;
    const struct weight *w = list->w;
    struct trace_row row = {.op = "linear", .cols = w->cols, .type = w->type};
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        w = list[i].w;
        row.rows += w->rows;
        bytes += w->rows * dtype_row_bytes(w->type, w->cols);
    }
    span_count(dev, begin, &row, bytes, 2 * row.rows * row.cols * tokens);
}

/* Two products of d for each head and token that a row sees. */
static uint64_t attention_ops(const struct op_kv *kv, const struct op_seq *seqs,
                              size_t seq_count, size_t heads, uint32_t window)
{
    uint64_t seen = 0;
    for (const struct op_seq *s = seqs; s < seqs + seq_count; s++)
        for (uint32_t i = 1; i <= s->rows; i++) {
            uint32_t n = s->kv_len - s->rows + i;
            seen += window && n > window ? window : n;
        }
    return 4 * seen * heads * kv->head_dim;
}

/* --- operations --------------------------------------------------------- */

void op_embed(struct device *dev, float *out, const struct weight *table,
              const int32_t *ids, size_t tokens)
{
    for (size_t t = 0; t < tokens; t++)
        assert(ids[t] >= 0 && (size_t)ids[t] < table->rows);
    if (tokens == 0) return;
    struct span begin = span_begin(dev);
    dev->ops->embed(dev, out, table, ids, tokens);
    span_end(dev, begin, "embed");
}

void op_rmsnorm(struct device *dev, float *out, const float *x,
                const float *gain, size_t rows, size_t cols, float eps)
{
    if (rows == 0 || cols == 0) return;
    struct span begin = span_begin(dev);
    dev->ops->rmsnorm(dev, out, x, gain, rows, cols, eps);
    span_end(dev, begin, "rmsnorm");
}

void op_linear(struct device *dev, const struct input *x, size_t tokens,
               const struct linear *list, size_t count)
{
    assert(!x->gain || !x->up);
    for (size_t i = 1; i < count; i++)
        assert(list[i].w->cols == list[0].w->cols);
    if (tokens == 0 || count == 0) return;
    struct span begin = span_begin(dev);
    dev->ops->linear(dev, x, tokens, list, count);
    linear_end(dev, begin, list, count, tokens);
}

void op_expect(struct device *dev, size_t tokens, const struct linear *list,
               size_t count)
{
    if (tokens && count && dev->ops->expect)
        dev->ops->expect(dev, tokens, list, count);
}

static void turn_check(const struct turn *turn, size_t d)
{
    size_t rotary = turn->rope->rotary;
    assert(rotary % 2 == 0 && rotary <= d && d <= OP_HEAD_DIM_MAX);
    (void)rotary, (void)d;
}

static void kv_check(const struct op_kv *kv)
{
    assert(kv->type == DTYPE_F32 || kv->type == DTYPE_F16 ||
           kv->type == DTYPE_BF16 || kv->type == DTYPE_KV8);
    assert(kv->head_dim <= OP_HEAD_DIM_MAX);
}

void op_kv_write(struct device *dev, const struct op_kv *kv,
                 const struct op_seq *seqs, size_t seq_count, const float *k,
                 const float *v, const struct turn *turn)
{
    kv_check(kv);
    if (turn) turn_check(turn, kv->head_dim);
    for (size_t s = 0; s < seq_count; s++)
        assert(seqs[s].rows <= seqs[s].kv_len);
    if (seq_count == 0) return;
    struct span begin = span_begin(dev);
    dev->ops->kv_write(dev, kv, seqs, seq_count, k, v, turn);
    span_end(dev, begin, "kv_write");
}

void op_attention(struct device *dev, float *out, const struct query *query,
                  const struct op_kv *kv, const struct op_seq *seqs,
                  size_t seq_count)
{
    kv_check(kv);
    assert(query->heads % kv->kv_heads == 0);
    if (query->turn) turn_check(query->turn, kv->head_dim);
    for (size_t s = 0; s < seq_count; s++)
        assert(seqs[s].rows <= seqs[s].kv_len);
    if (seq_count == 0) return;
    struct span begin = span_begin(dev);
    dev->ops->attention(dev, out, query, kv, seqs, seq_count);
    if (dev->trace)
        span_count(
            dev, begin, &(struct trace_row){.op = "attention"}, 0,
            attention_ops(kv, seqs, seq_count, query->heads, query->window));
}

void op_experts(struct device *dev, float *x, const float *y,
                const float *scores, size_t tokens, const struct experts *e,
                float *room)
{
    assert(e->used >= 1 && e->used <= e->count);
    if (tokens == 0) return;
    struct span begin = span_begin(dev);
    dev->ops->experts(dev, x, y, scores, tokens, e, room);
    span_end(dev, begin, "experts");
}

void op_gather(struct device *dev, float *out, const float *x,
               const uint32_t *rows, size_t count, size_t cols)
{
    if (count == 0 || cols == 0) return;
    struct span begin = span_begin(dev);
    dev->ops->gather(dev, out, x, rows, count, cols);
    span_end(dev, begin, "gather");
}
