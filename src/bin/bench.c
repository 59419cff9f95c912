/* bin/bench.c - what this machine can do, and what Baton makes of it.
 *
 * Every figure is printed beside the machine's own limit, measured in the
 * same run: a fraction says more than a rate on a shared machine. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/opt.h"
#include "bin/commands.h"
#include "bin/cpu_isa.h"
#include "bin/kv_type.h"
#include "bin/memory.h"
#include "engine/sample.h"
#include "model/model.h"
#include "tensor/roofline.h"
#include "tensor/trace.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct bench {
    const char *model_path, *device, *isa, *kv_dtype, *quantization,
        *weight_cache;
    int64_t threads, prompt, gen, chunk, batch, repeat;
    bool json, trace, turns;
};

#define AT(f) offsetof(struct bench, f)
static const struct opt options[] = {
    {"model|model-path", OPT_STRING, AT(model_path), .help = "GGUF or folder"},
    {"device", OPT_CHOICE, AT(device), "auto", .choices = "auto|cpu|ref",
     .help = "where to compute"},
    {"cpu-isa", OPT_CHOICE, AT(isa), "best", .choices = CPU_ISA_CHOICES,
     .help = "most instructions"},
    {"kv-cache-dtype", OPT_CHOICE, AT(kv_dtype), "auto",
     .choices = KV_TYPE_CHOICES, .help = "KV cache"},
    {"quantization", OPT_STRING, AT(quantization),
     .help = "round weights: int8, int4, w8a8_int8"},
    {"weight-cache", OPT_STRING, AT(weight_cache),
     .help = "folder for packed weights"},
    {"threads", OPT_INT, AT(threads), "0", 0, 1024,
     .help = "compute workers, 0: one a core"},
    {"prompt", OPT_INT, AT(prompt), "512", 1, 1e6, .help = "prompt tokens"},
    {"gen", OPT_INT, AT(gen), "128", 1, 1e6, .help = "decode steps"},
    {"chunk", OPT_INT, AT(chunk), "512", 1, 1e6, .help = "prefill chunk"},
    {"batch", OPT_INT, AT(batch), "1", 1, 256,
     .help = "sequences decoded together"},
    {"repeat", OPT_INT, AT(repeat), "3", 1, 100, .help = "runs, median kept"},
    {"trace", OPT_FLAG, AT(trace),
     .help = "where the time of prompts and steps goes"},
    {"turns", OPT_FLAG, AT(turns),
     .help = "run what stdin asks for, beside other programs"},
    {"json", OPT_FLAG, AT(json), .help = "one JSON object on stdout"},
};

/* All that one run needs; sequence s owns pages s * per_seq + 1 onward. */
struct rig {
    struct device *device;
    struct model *model;
    struct kv_pool *pool;
    void *slab;
    size_t slab_bytes;
    uint32_t per_seq, batch;
    kv_page *pages;
    int32_t *ids;
    uint32_t *positions, *logit_rows;
    struct op_seq *seqs;
    struct sampler *sampler;
    struct reader *reader; /* between steps */
    const float *logits;   /* [batch, vocab] of the last step */
    uint64_t hash;         /* of the last logits */
    double load_s;         /* until the model was ready */
    struct traced {
        struct trace trace;
        uint64_t ns, times;
    } prompts, steps; /* of all runs */
};

static void rig_close(struct rig *r)
{
    mem_free(r->pages);
    mem_free(r->ids);
    mem_free(r->positions);
    mem_free(r->logit_rows);
    mem_free(r->seqs);
    sampler_destroy(r->sampler);
    reader_destroy(r->reader);
    model_close(r->model);
    kv_pool_destroy(r->pool);
    if (r->slab) munmap(r->slab, r->slab_bytes);
    device_close(r->device);
}

static int rig_open_pool(struct rig *r, const struct bench *b, struct why *why)
{
    const struct model_config *c = model_config(r->model);
    struct kv_pool_options po = {.shape = {c->layers, c->kv_heads, c->head_dim,
                                           64, kv_type_of(b->kv_dtype, c)}};
    r->batch = (uint32_t)b->batch;
    r->per_seq = (uint32_t)(b->prompt + b->gen + 63) / 64;
    po.page_count = r->per_seq * r->batch + 1;
    r->slab_bytes = kv_shape_slab_bytes(&po.shape, po.page_count);
    r->slab = mmap(NULL, r->slab_bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (r->slab == MAP_FAILED) {
        r->slab = NULL;
        return err_set(why, ERR_NOMEM, "KV cache of %zu bytes", r->slab_bytes);
    }
    memory_wish(r->slab, r->slab_bytes);
    memset(r->slab, 0, r->slab_bytes); /* touched before any run */
    po.slab = r->slab;
    int rc = kv_pool_create(&r->pool, &po, why);
    if (rc) return rc;
    r->pages = mem_must(po.page_count, sizeof *r->pages);
    size_t rows = (size_t)(b->chunk > b->batch ? b->chunk : b->batch);
    r->ids = mem_must(rows, sizeof *r->ids);
    r->positions = mem_must(rows, sizeof *r->positions);
    r->logit_rows = mem_must(r->batch, sizeof *r->logit_rows);
    r->seqs = mem_must(r->batch, sizeof *r->seqs);
    return kv_pool_take(r->pool, po.page_count - 1, r->pages);
}

static int rig_open(struct rig *r, const struct bench *b, struct why *why)
{
    struct device_options dev = {b->device, (int)b->threads,
                                 cpu_isa_limit(b->isa)};
    int rc = device_open(&r->device, &dev, why);
    if (rc) return rc;
    int64_t rows = b->chunk > b->batch ? b->chunk : b->batch;
    struct model_options mo = {.path = b->model_path,
                               .max_tokens = (uint32_t)rows,
                               .max_logits = (uint32_t)b->batch,
                               .weight_cache = b->weight_cache};
    if (b->quantization) {
        rc = model_quantize_parse(&mo.quantize, b->quantization, why);
        if (rc) return rc;
    }
    uint64_t start = clock_ns();
    rc = model_open(&r->model, r->device, &mo, why);
    r->load_s = (double)(clock_ns() - start) * 1e-9;
    if (!rc) { /* done before anything is measured */
        model_save_cache(r->model);
        model_wait_cache(r->model);
        rc = sampler_create(&r->sampler, model_config(r->model)->vocab, why);
    }
    return rc ? rc : rig_open_pool(r, b, why);
}

/* The largest, as a server's greedy request takes it. */
static int32_t pick(struct rig *r, const float *logits)
{
    static const struct sampling greedy = {.top_k = 1};
    return sample_pick(r->sampler, logits, &greedy, 0);
}

/* The prompt of sequence s, chunk by chunk; the last row's argmax to next. */
static int prefill(struct rig *r, const struct bench *b, uint32_t s,
                   int32_t *next, struct why *why)
{
    uint32_t vocab = model_config(r->model)->vocab;
    uint64_t seed = 1 + s;
    for (int64_t done = 0; done < b->prompt;) {
        int64_t n = b->prompt - done < b->chunk ? b->prompt - done : b->chunk;
        for (int64_t i = 0; i < n; i++) {
            r->ids[i] = (int32_t)(rng_next(&seed) % vocab);
            r->positions[i] = (uint32_t)(done + i);
        }
        done += n;
        bool last = done == b->prompt;
        r->seqs[0] = (struct op_seq){0, (uint32_t)n, (uint32_t)done,
                                     r->pages + (size_t)s * r->per_seq};
        r->logit_rows[0] = (uint32_t)n - 1;
        struct batch step = {(uint32_t)n, r->ids,        r->positions, 1,
                             r->seqs,     last ? 1u : 0, r->logit_rows};
        const float *logits;
        int rc = model_forward(r->model, &step, r->pool, &logits, why);
        if (rc) return rc;
        if (!last) continue;
        *next = pick(r, logits);
    }
    return 0;
}

/* One token for every sequence. */
static int decode(struct rig *r, uint32_t position, int32_t *next,
                  struct why *why)
{
    uint32_t vocab = model_config(r->model)->vocab;
    for (uint32_t s = 0; s < r->batch; s++) {
        r->ids[s] = next[s];
        r->positions[s] = position;
        r->logit_rows[s] = s;
        r->seqs[s] = (struct op_seq){s, 1, position + 1,
                                     r->pages + (size_t)s * r->per_seq};
    }
    struct batch step = {r->batch, r->ids,   r->positions, r->batch,
                         r->seqs,  r->batch, r->logit_rows};
    const float *logits;
    int rc = model_forward(r->model, &step, r->pool, &logits, why);
    if (rc) return rc;
    for (uint32_t s = 0; s < r->batch; s++)
        next[s] = pick(r, logits + (size_t)s * vocab);
    r->logits = logits;
    return 0;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, size_t n)
{
    qsort(v, n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

struct result {
    double prefill_rate, decode_rate;     /* medians, tokens/s              */
    double prefill_spread, decode_spread; /* (max - min) / median of runs   */
    /* Medians, of rates by what the machine could do at the time: a rate of
     * prefill by a GOP/s, of decode by a GB/s. */
    double prefill_by_int8, prefill_by_bf16, prefill_by_f32, decode_by_read,
        decode_by_mean_read;
    struct roofline limit; /* medians */
    double mean_read;      /* GB/s between the steps, likewise */
};

/* Rates of a run, tokens/s, and what was read between its steps, GB/s. */
struct rates {
    double prefill, decode, read;
};

/* b->gen steps; returns their time in *ns. Every 20 ms of them something is
 * read. */
static int decode_all(struct rig *r, const struct bench *b, int32_t *next,
                      uint64_t *ns, struct why *why)
{
    enum { READ_EVERY_NS = 20000000 };
    uint64_t begin = clock_ns(), now = begin;
    int rc = 0;
    *ns = 0;
    for (int64_t i = 0; i < b->gen && !rc; i++) {
        rc = decode(r, (uint32_t)(b->prompt + i), next, why);
        now = clock_ns();
        if (now - begin < READ_EVERY_NS && i + 1 < b->gen) continue;
        *ns += now - begin;
        reader_read(r->reader);
        begin = clock_ns();
    }
    return rc;
}

/* One run, timed; the logits of its last step are noted. */
static int run_one(struct rig *r, const struct bench *b, int32_t *next,
                   struct rates *out, struct why *why)
{
    int rc = 0;
    if (b->trace) device_trace(r->device, &r->prompts.trace);
    uint64_t start = clock_ns(), steps_ns = 0;
    for (uint32_t s = 0; s < r->batch && !rc; s++)
        rc = prefill(r, b, s, &next[s], why);
    uint64_t prompts_ns = clock_ns() - start;
    if (b->trace) device_trace(r->device, &r->steps.trace);
    if (!rc) rc = decode_all(r, b, next, &steps_ns, why);
    device_trace(r->device, NULL);
    if (rc) return rc;
    r->prompts.ns += prompts_ns;
    r->prompts.times += r->batch;
    r->steps.ns += steps_ns;
    r->steps.times += (uint64_t)b->gen;
    *out = (struct rates){
        .prefill = (double)b->prompt * r->batch * 1e9 / (double)prompts_ns,
        .decode = (double)b->gen * r->batch * 1e9 / (double)steps_ns,
        .read = reader_rate(r->reader),
    };
    size_t floats = (size_t)r->batch * model_config(r->model)->vocab;
    r->hash = hash_bytes(r->logits, floats * sizeof(float), 0);
    return 0;
}

/* What the machine can do is measured before and after each run, and a run is
 * set against the mean of both: other guests of the host come and go. */
enum { COLUMNS = 12 };
static int run_all(struct rig *r, const struct bench *b, struct result *out,
                   struct why *why)
{
    size_t n = (size_t)b->repeat;
    double *all = mem_must(COLUMNS * n, sizeof *all);
    double *column[COLUMNS];
    for (size_t i = 0; i < COLUMNS; i++)
        column[i] = all + i * n;
    int32_t *next = mem_must(r->batch, sizeof *next);
    int threads = device_threads(r->device);
    struct roofline before, after;
    int rc = prefill(r, b, 0, next, why); /* warms pages and caches */
    if (!rc) rc = reader_create(&r->reader, threads, NULL, why);
    if (!rc) rc = roofline_measure(threads, NULL, &before, why);
    for (size_t run = 0; run < n && !rc; run++, before = after) {
        struct rates rates;
        rc = run_one(r, b, next, &rates, why);
        if (!rc) rc = roofline_measure(threads, NULL, &after, why);
        if (rc) break;
        double pre = rates.prefill, dec = rates.decode;
        double read = (before.read_gb_s + after.read_gb_s) / 2;
        double f32 = (before.f32_gflop_s + after.f32_gflop_s) / 2;
        double int8 = (before.int8_gop_s + after.int8_gop_s) / 2;
        double bf16 = (before.bf16_gflop_s + after.bf16_gflop_s) / 2;
        const double values[COLUMNS] = {
            pre,       dec,        read,       f32,
            int8,      bf16,       pre / int8, bf16 > 0 ? pre / bf16 : 0,
            pre / f32, dec / read, rates.read, dec / rates.read};
        for (size_t i = 0; i < COLUMNS; i++)
            column[i][run] = values[i];
        if (!b->json)
            fprintf(stderr,
                    "run %zu of %zu: prefill %.1f decode %.1f tok/s, read "
                    "%.1f GB/s, between steps %.1f, int8 %.0f GOP/s\n",
                    run + 1, n, pre, dec, read, rates.read, int8);
    }
    if (!rc) {
        out->prefill_rate = median(column[0], n);
        out->decode_rate = median(column[1], n);
        out->limit.read_gb_s = median(column[2], n);
        out->limit.f32_gflop_s = median(column[3], n);
        out->limit.int8_gop_s = median(column[4], n);
        out->limit.bf16_gflop_s = median(column[5], n);
        out->prefill_by_int8 = median(column[6], n);
        out->prefill_by_bf16 = median(column[7], n);
        out->prefill_by_f32 = median(column[8], n);
        out->decode_by_read = median(column[9], n);
        out->mean_read = median(column[10], n);
        out->decode_by_mean_read = median(column[11], n);
        out->prefill_spread =
            (column[0][n - 1] - column[0][0]) / out->prefill_rate;
        out->decode_spread =
            (column[1][n - 1] - column[1][0]) / out->decode_rate;
    }
    mem_free(all);
    mem_free(next);
    return rc;
}

/* Operations of one token's products in one layer. */
static double layer_ops(const struct model_config *c)
{
    double q = (double)c->heads * c->head_dim,
           kv = (double)c->kv_heads * c->head_dim;
    return 2 * (c->hidden * (2 * q + 2 * kv) + 3.0 * c->hidden * c->ffn);
}

/* Of one prompt token, without the head and what the last layer leaves out of
 * a long prompt: all but k and v. */
static double token_ops(const struct model_config *c)
{
    double kv = (double)c->kv_heads * c->head_dim;
    return (c->layers - 1) * layer_ops(c) + 4 * kv * c->hidden;
}

/* Of a step. */
static double step_ops(const struct bench *b, const struct model_config *c)
{
    return (double)b->batch *
           (c->layers * layer_ops(c) + 2.0 * c->hidden * c->vocab);
}

/* What a step in the middle of b->gen reads: weights once, and KV. */
static double step_bytes(const struct bench *b, const struct rig *r)
{
    double depth = (double)b->prompt + (double)b->gen / 2;
    return (double)model_step_bytes(r->model) +
           depth * (double)b->batch *
               (double)kv_shape_token_bytes(kv_pool_shape(r->pool));
}

static void print_result(const struct bench *b, struct rig *r,
                         const struct result *res)
{
    const struct model_config *c = model_config(r->model);
    const struct kv_shape *shape = kv_pool_shape(r->pool);
    double token_gop = token_ops(c) * 1e-9;
    double token_gb = step_bytes(b, r) / (double)b->batch * 1e-9;
    double gops = token_gop * res->prefill_rate;
    double gbs = token_gb * res->decode_rate;
    double of_int8 = token_gop * res->prefill_by_int8;
    double of_bf16 = token_gop * res->prefill_by_bf16;
    double of_f32 = token_gop * res->prefill_by_f32;
    double of_read = token_gb * res->decode_by_read;
    double of_mean = token_gb * res->decode_by_mean_read;
    const struct roofline *lim = &res->limit;
    if (b->json) {
        struct buf path;
        buf_init(&path, 1 << 16);
        buf_json(&path, b->model_path, strlen(b->model_path));
        printf("{\"model\":\"%s\",\"arch\":\"%s\",\"weights\":\"%s\","
               "\"weight_bytes\":%zu,\"kv_dtype\":\"%s\",\"device\":\"%s\","
               "\"threads\":%d,\"prompt\":%" PRId64 ",\"gen\":%" PRId64
               ",\"batch\":%" PRId64 ",\"chunk\":%" PRId64
               ",\"repeat\":%" PRId64 ",\n",
               path.data, c->arch, dtype_name(model_weight_type(r->model)),
               model_weight_bytes(r->model), dtype_name(shape->type),
               device_describe(r->device), device_threads(r->device), b->prompt,
               b->gen, b->batch, b->chunk, b->repeat);
        buf_fini(&path);
        printf(" \"prefill_tokens_per_s\":%.2f,\"prefill_spread\":%.3f,"
               "\"prefill_gops\":%.1f,\"decode_tokens_per_s\":%.2f,"
               "\"decode_spread\":%.3f,\"decode_gb_per_s\":%.3f,\n",
               res->prefill_rate, res->prefill_spread, gops, res->decode_rate,
               res->decode_spread, gbs);
        printf(" \"read_gb_per_s\":%.2f,\"f32_gflops\":%.1f,"
               "\"bf16_gflops\":%.1f,\"int8_gops\":%.1f,"
               "\"prefill_fraction_of_int8\":%.3f,"
               "\"prefill_fraction_of_bf16\":%.3f,"
               "\"prefill_fraction_of_f32\":%.3f,"
               "\"decode_fraction_of_read\":%.3f,"
               "\"read_between_steps_gb_per_s\":%.2f,"
               "\"decode_fraction_of_read_between_steps\":%.3f,"
               "\"load_s\":%.3f,"
               "\"logits_hash\":\"%016" PRIx64 "\"}\n",
               lim->read_gb_s, lim->f32_gflop_s, lim->bf16_gflop_s,
               lim->int8_gop_s, of_int8, of_bf16, of_f32, of_read,
               res->mean_read, of_mean, r->load_s, r->hash);
        return;
    }
    printf("%s: %s, %s weights, KV %s, %s\n", b->model_path, c->arch,
           dtype_name(model_weight_type(r->model)), dtype_name(shape->type),
           device_describe(r->device));
    printf("machine, same run: read %.1f GB/s, f32 %.0f GFLOP/s, bf16 %.0f "
           "GFLOP/s, int8 %.0f GOP/s\n",
           lim->read_gb_s, lim->f32_gflop_s, lim->bf16_gflop_s,
           lim->int8_gop_s);
    printf("prefill %" PRId64 " tokens: %8.1f tok/s  %7.1f GOP/s  %4.1f %% of "
           "int8, %4.1f %% of bf16, %4.1f %% of f32  (spread %.0f %%)\n",
           b->prompt, res->prefill_rate, gops, 100 * of_int8, 100 * of_bf16,
           100 * of_f32, 100 * res->prefill_spread);
    printf("decode batch %-3" PRId64 "   : %8.1f tok/s  %7.2f GB/s   %4.1f %% "
           "of read at best, %.1f %% of the %.1f GB/s read between steps  "
           "(spread %.0f %%)\n",
           b->batch, res->decode_rate, gbs, 100 * of_read, 100 * of_mean,
           res->mean_read, 100 * res->decode_spread);
    printf("ready after %.3f s; logits %016" PRIx64 "\n", r->load_s, r->hash);
}

/* By operation and shape: the calls of a prompt or step, its time, and the
 * workers' time that was not computing in it. What is missing to the whole is
 * host work. */
static void print_trace(const struct traced *t, const char *what, int threads)
{
    double times = (double)t->times, all = (double)t->ns, rest = all;
    printf("%-36s %6s %10s %7s %7s %7s %7s\n", what, "calls", "us", "share",
           "idle", "GB/s", "GOP/s");
    for (size_t i = 0; i < t->trace.count; i++) {
        const struct trace_row *row = &t->trace.rows[i];
        double ns = (double)row->ns;
        char name[64];
        int n = snprintf(name, sizeof name, "%s", row->op);
        if (row->rows)
            snprintf(name + n, sizeof name - (size_t)n, " %zu x %zu %s",
                     row->rows, row->cols, dtype_name(row->type));
        printf("%-36s %6.0f %10.1f %6.1f%% %6.1f%%", name,
               (double)row->calls / times, ns / times * 1e-3, 100 * ns / all,
               100 * (1 - (double)row->busy_ns / (threads * ns)));
        if (row->ops)
            printf(" %7.1f %7.0f", (double)row->bytes / ns,
                   (double)row->ops / ns);
        printf("\n");
        rest -= ns;
    }
    printf("%-36s %6s %10.1f %6.1f%%\n", "between them", "",
           rest / times * 1e-3, 100 * rest / all);
}

/* --- turns: a line of stdin asks, a line of stdout answers ---------------- */

struct turns {
    struct rig *rig;
    const struct bench *b;
    int32_t *next;
    uint32_t position; /* of the next step */
};

/* n steps after an untimed one, again from behind the prompt where b->gen has
 * no room for them; answers the seconds of the n. */
static int turn_steps(struct turns *t, int64_t n, struct why *why)
{
    if (n < 1 || n + 1 > t->b->gen)
        return err_set(why, ERR_INVALID, "1 to %" PRId64 " steps a turn",
                       t->b->gen - 1);
    if (t->position + n + 1 > t->b->prompt + t->b->gen)
        t->position = (uint32_t)t->b->prompt;
    uint64_t begin = 0;
    for (int64_t i = -1; i < n; i++) {
        if (i == 0) begin = clock_ns();
        int rc = decode(t->rig, t->position++, t->next, why);
        if (rc) return rc;
    }
    printf("%.9f\n", (double)(clock_ns() - begin) * 1e-9);
    return 0;
}

static int turn_prompt(struct turns *t, struct why *why)
{
    uint64_t begin = clock_ns();
    int rc = prefill(t->rig, t->b, 0, &t->next[0], why);
    if (!rc) printf("%.9f\n", (double)(clock_ns() - begin) * 1e-9);
    return rc;
}

static int turn_take(struct turns *t, const char *line, struct why *why)
{
    int64_t n;
    if (sscanf(line, "steps %" SCNd64, &n) == 1) return turn_steps(t, n, why);
    if (strcmp(line, "prompt\n") == 0) return turn_prompt(t, why);
    if (strcmp(line, "read\n") == 0) {
        reader_read(t->rig->reader);
        printf("%.3f\n", reader_rate(t->rig->reader));
        return 0;
    }
    if (strcmp(line, "limits\n") == 0) {
        struct roofline r;
        int threads = device_threads(t->rig->device);
        int rc = roofline_measure(threads, NULL, &r, why);
        if (!rc) printf("%.1f %.1f\n", r.int8_gop_s, r.bf16_gflop_s);
        return rc;
    }
    return err_set(why, ERR_INVALID,
                   "a turn is \"steps N\", \"prompt\", \"read\" or \"limits\"");
}

/* Says first what a turn is worth: the bytes that a step reads, and the
 * operations of its products and of a prompt's. Then until the end of stdin; "read" is
 * answered in GB/s, "limits" in GOP/s of int8 and of bf16. */
static int turns_all(struct rig *r, const struct bench *b, struct why *why)
{
    const struct model_config *c = model_config(r->model);
    struct turns t = {r, b, mem_must(r->batch, sizeof *t.next),
                      (uint32_t)b->prompt};
    int rc = reader_create(&r->reader, device_threads(r->device), NULL, why);
    for (uint32_t s = 0; s < r->batch && !rc; s++)
        rc = prefill(r, b, s, &t.next[s], why);
    if (!rc)
        printf("{\"weights\":\"%s\",\"step_bytes\":%.0f,"
               "\"step_ops\":%.0f,\"prompt_ops\":%.0f}\n",
               dtype_name(model_weight_type(r->model)), step_bytes(b, r),
               step_ops(b, c), token_ops(c) * (double)b->prompt);
    char line[64];
    while (!rc && fflush(stdout) == 0 && fgets(line, sizeof line, stdin))
        rc = turn_take(&t, line, why);
    mem_free(t.next);
    return rc;
}

static int engine_main(int argc, char **argv)
{
    struct bench b = {0};
    struct why why = {0};
    size_t count = sizeof options / sizeof *options;
    int rc = opt_parse(options, count, &b, argc, argv, NULL, NULL, &why);
    if (rc == 1) {
        opt_help(options, count, "baton bench engine --model M [--json]");
        return 0;
    }
    if (!rc && !b.model_path)
        rc = err_set(&why, ERR_INVALID, "--model is required");
    if (!rc && b.turns && b.trace)
        rc = err_set(&why, ERR_INVALID, "--turns knows no --trace");
    if (rc) {
        fprintf(stderr, "baton bench engine: %s\n", why_text(&why, rc));
        return 2;
    }
    struct rig rig = {0};
    struct result res = {0};
    rc = rig_open(&rig, &b, &why);
    if (!rc)
        rc =
            b.turns ? turns_all(&rig, &b, &why) : run_all(&rig, &b, &res, &why);
    if (rc)
        fprintf(stderr, "baton bench engine: %s\n", why_text(&why, rc));
    else if (!b.turns)
        print_result(&b, &rig, &res);
    if (!rc && b.trace) {
        int threads = device_threads(rig.device);
        print_trace(&rig.prompts, "a prompt", threads);
        print_trace(&rig.steps, "a decode step", threads);
    }
    rig_close(&rig);
    return rc ? 1 : 0;
}

/* --- the commands of bench --- */

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} benches[] = {
    {"engine", engine_main, "prompts and decode steps of a model (--model M)"},
    {"attention", bench_attention_main, "attention alone, over random KV"},
    {"tokenizer", bench_tokenizer_main, "text to tokens and back (--model M)"},
    {"xfer", bench_xfer_main, "transfers between two processes' memory"},
    {"roofline", bench_roofline_main, "what the machine can do at most"},
};
enum { BENCHES = sizeof benches / sizeof *benches };

static int usage(FILE *to)
{
    fprintf(to, "usage: baton bench WHAT [options]\n\n");
    for (size_t i = 0; i < BENCHES; i++)
        fprintf(to, "  %-14s %s\n", benches[i].name, benches[i].help);
    return to == stdout ? 0 : 2;
}

int bench_main(int argc, char **argv)
{
    if (argc < 2) return usage(stderr);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return usage(stdout);
    for (size_t i = 0; i < BENCHES; i++)
        if (strcmp(argv[1], benches[i].name) == 0)
            return benches[i].run(argc - 1, argv + 1);
    fprintf(stderr, "baton bench: nothing is called \"%s\"\n\n", argv[1]);
    return usage(stderr);
}
