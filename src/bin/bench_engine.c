/* bin/bench_engine.c - prompts and decode steps of a model.
 *
 * Every figure is printed beside the machine's own limit, measured in the
 * same run: a fraction says more than a rate on a shared machine. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/opt.h"
#include "bin/bench_rig.h"
#include "bin/bench_turns.h"
#include "bin/commands.h"
#include "bin/cpu_isa.h"
#include "bin/kv_type.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
        rc = rig_decode(r, (uint32_t)(b->prompt + i), next, why);
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
        rc = rig_prefill(r, b, s, &next[s], why);
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
    int rc = rig_prefill(r, b, 0, next, why); /* warms pages and caches */
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

static void print_result(const struct bench *b, struct rig *r,
                         const struct result *res)
{
    const struct model_config *c = model_config(r->model);
    const struct kv_shape *shape = kv_pool_shape(r->pool);
    double token_gop = rig_token_ops(r) * 1e-9;
    double token_gb = rig_step_bytes(b, r) / (double)b->batch * 1e-9;
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

int bench_engine_main(int argc, char **argv)
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
        rc = b.turns ? bench_turns_take(&rig, &b, &why)
                     : run_all(&rig, &b, &res, &why);
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
