/* bin/bench_attention.c - attention alone, over a KV cache of random bytes.
 *
 * --rows new tokens of one sequence (a chunk of a prompt), or with --rows 1 a
 * decode step of --batch sequences. A decode step reads other caches each
 * time, in all much more than the processor's own, as a model's layers do. */
#include "base/clock.h"
#include "base/mem.h"
#include "base/opt.h"
#include "bin/commands.h"
#include "bin/cpu_isa.h"
#include "bin/memory.h"
#include "tensor/ops.h"
#include "tensor/roofline.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 64, RUNS = 15, CACHE_BYTES = 1024 << 20, LAYERS_MAX = 4096 };

struct bench {
    const char *isa, *kv_dtype;
    int64_t threads, heads, kv_heads, head_dim, depth, rows, batch;
};

#define AT(f) offsetof(struct bench, f)
static const struct opt options[] = {
    {"cpu-isa", OPT_CHOICE, AT(isa), "best", .choices = CPU_ISA_CHOICES,
     .help = "most instructions"},
    {"kv-cache-dtype", OPT_CHOICE, AT(kv_dtype), "bf16",
     .choices = "f32|f16|bf16|int8", .help = "KV cache"},
    {"threads", OPT_INT, AT(threads), "0", 0, 1024,
     .help = "compute workers, 0: one a core"},
    {"heads", OPT_INT, AT(heads), "16", 1, 1024, .help = "of q"},
    {"kv-heads", OPT_INT, AT(kv_heads), "8", 1, 1024, .help = "of k and v"},
    {"head-dim", OPT_INT, AT(head_dim), "128", 1, OP_HEAD_DIM_MAX,
     .help = "elements of a head"},
    {"depth", OPT_INT, AT(depth), "2048", 1, 1 << 20,
     .help = "tokens of a sequence, the new ones among them"},
    {"rows", OPT_INT, AT(rows), "1", 1, 1 << 14, .help = "new tokens"},
    {"batch", OPT_INT, AT(batch), "1", 1, 1024,
     .help = "sequences, with --rows 1"},
};

static enum dtype kv_type(const char *name)
{
    return strcmp(name, "f32") == 0    ? DTYPE_F32
           : strcmp(name, "f16") == 0  ? DTYPE_F16
           : strcmp(name, "int8") == 0 ? DTYPE_KV8
                                       : DTYPE_BF16;
}

/* n random values in (-1, 1). */
static float *values(size_t n)
{
    float *x = mem_must(n, sizeof *x);
    uint64_t seed = 1;
    for (size_t i = 0; i < n; i++)
        x[i] = 2 * (float)rng_unit(&seed) - 1;
    return x;
}

struct rig {
    struct device *dev;
    struct op_kv *layers; /* [layer_count] */
    char *slab;           /* of all layers */
    size_t layer_count, page_count;
    uint32_t *pages;
    struct op_seq *seqs;
    size_t seq_count, rows;
    float *q, *out;
};

/* A layer's K and V, at at: one random token in all places. */
static void layer_fill(struct rig *r, struct op_kv *kv, char *at)
{
    size_t token = op_kv_token_bytes(kv->type, kv->kv_heads, kv->head_dim);
    size_t tokens = r->page_count * PAGE;
    kv->k = at;
    kv->v = at + tokens * token;
    float *x = values((size_t)kv->kv_heads * kv->head_dim);
    struct op_seq one = {0, 1, 1, r->pages};
    op_kv_write(r->dev, kv, &one, 1, x, x, NULL);
    mem_free(x);
    const char *from = (char *)kv->k + r->pages[0] * PAGE * token;
    for (size_t t = 0; t < tokens; t++) {
        memmove((char *)kv->k + t * token, from, token);
        memmove((char *)kv->v + t * token, from, token);
    }
}

static int rig_open(struct rig *r, const struct bench *b, struct why *why)
{
    const struct device_options dev = {"cpu", (int)b->threads,
                                       cpu_isa_limit(b->isa)};
    int rc = device_open(&r->dev, &dev, why);
    r->seq_count = b->rows > 1 ? 1 : (size_t)b->batch;
    r->rows = b->rows > 1 ? (size_t)b->rows : r->seq_count;
    if (!rc) rc = device_reserve(r->dev, r->rows, 64, why);
    if (rc) return rc;
    size_t per_seq = ((size_t)b->depth + PAGE - 1) / PAGE;
    r->page_count = per_seq * r->seq_count + 1;
    r->pages = mem_must(r->page_count, sizeof *r->pages);
    for (size_t i = 0; i + 1 < r->page_count; i++)
        r->pages[i] = (uint32_t)i + 1;
    r->seqs = mem_must(r->seq_count, sizeof *r->seqs);
    for (size_t s = 0; s < r->seq_count; s++)
        r->seqs[s] =
            (struct op_seq){(uint32_t)s, (uint32_t)b->rows, (uint32_t)b->depth,
                            r->pages + s * per_seq};
    size_t n = r->rows * (size_t)(b->heads * b->head_dim);
    r->q = values(n);
    r->out = mem_must(n, sizeof *r->out);
    struct op_kv kv = {.type = kv_type(b->kv_dtype),
                       .page_tokens = PAGE,
                       .kv_heads = (uint32_t)b->kv_heads,
                       .head_dim = (uint32_t)b->head_dim};
    size_t bytes = 2 * r->page_count * PAGE *
                   op_kv_token_bytes(kv.type, kv.kv_heads, kv.head_dim);
    r->layer_count = b->rows > 1 ? 1 : CACHE_BYTES / bytes + 2;
    if (r->layer_count > LAYERS_MAX) r->layer_count = LAYERS_MAX;
    r->layers = mem_must(r->layer_count, sizeof *r->layers);
    r->slab = mem_try(r->layer_count, bytes, 2 << 20);
    if (!r->slab) return err_set(why, ERR_NOMEM, "KV cache");
    memory_wish(r->slab, r->layer_count * bytes);
    fprintf(stderr, "writing %.0f MB of KV\n",
            (double)(r->layer_count * bytes) * 1e-6);
    for (size_t l = 0; l < r->layer_count; l++) {
        r->layers[l] = kv;
        layer_fill(r, &r->layers[l], r->slab + l * bytes);
    }
    return 0;
}

static void rig_close(struct rig *r)
{
    mem_free(r->layers);
    mem_free(r->slab);
    mem_free(r->pages);
    mem_free(r->seqs);
    mem_free(r->q);
    mem_free(r->out);
    device_close(r->dev);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median seconds of a call. */
static double measure(struct rig *r, const struct bench *b)
{
    double times[RUNS];
    const struct query q = {r->q, NULL, (size_t)b->heads,
                            1 / sqrtf((float)b->head_dim), 0};
    for (int run = -1; run < RUNS; run++) { /* the first warms up */
        uint64_t start = clock_ns();
        for (size_t l = 0; l < r->layer_count; l++)
            op_attention(r->dev, r->out, &q, &r->layers[l], r->seqs,
                         r->seq_count);
        if (run >= 0)
            times[run] =
                (double)(clock_ns() - start) * 1e-9 / (double)r->layer_count;
    }
    qsort(times, RUNS, sizeof *times, by_value);
    return times[RUNS / 2];
}

static void print_result(const struct bench *b, const struct rig *r,
                         const struct roofline *limit, double seconds)
{
    const struct op_kv *kv = &r->layers[0];
    printf("%s, KV %s, %" PRId64 " / %" PRId64 " heads of %" PRId64
           ", depth %" PRId64 "\n",
           device_describe(r->dev), b->kv_dtype, b->heads, b->kv_heads,
           b->head_dim, b->depth);
    if (b->rows > 1) {
        double seen = (double)b->depth - ((double)b->rows - 1) / 2;
        double ops = 4 * seen * (double)(b->rows * b->heads * b->head_dim);
        double rate = ops / seconds * 1e-9;
        printf("%" PRId64 " rows: %.3f ms, %.0f GFLOP/s, %.0f %% of f32 (%.0f "
               "GFLOP/s)\n",
               b->rows, seconds * 1e3, rate, 100 * rate / limit->f32_gflop_s,
               limit->f32_gflop_s);
        return;
    }
    double bytes =
        2.0 * (double)(b->depth * b->batch) *
        (double)op_kv_token_bytes(kv->type, kv->kv_heads, kv->head_dim);
    double rate = bytes / seconds * 1e-9;
    printf("decode batch %" PRId64 ": %.1f us, %.1f GB/s, %.0f %% of the read "
           "bandwidth (%.1f GB/s)\n",
           b->batch, seconds * 1e6, rate, 100 * rate / limit->read_gb_s,
           limit->read_gb_s);
}

int bench_attention_main(int argc, char **argv)
{
    struct bench b = {0};
    struct rig rig = {0};
    struct roofline limit = {0};
    struct why why = {0};
    size_t count = sizeof options / sizeof *options;
    int rc = opt_parse(options, count, &b, argc, argv, NULL, NULL, &why);
    if (rc == 1) {
        opt_help(options, count, "baton bench attention [--depth N ...]");
        return 0;
    }
    if (!rc && (b.heads % b.kv_heads || b.rows > b.depth))
        rc = err_set(&why, ERR_INVALID,
                     "--heads must be a multiple of --kv-heads, and --rows "
                     "at most --depth");
    bool usage = rc != 0;
    if (!rc) rc = rig_open(&rig, &b, &why);
    if (!rc) rc = roofline_measure(device_threads(rig.dev), NULL, &limit, &why);
    if (rc)
        fprintf(stderr, "baton bench attention: %s\n", why_text(&why, rc));
    else
        print_result(&b, &rig, &limit, measure(&rig, &b));
    rig_close(&rig);
    return rc ? usage ? 2 : 1 : 0;
}
