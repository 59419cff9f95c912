/* The cpu device: its memory, its weights, and the operations that are
 * simple enough to need no file of their own. */
#include "tensor/cpu/cpu.h"

#include "base/mem.h"

#if defined(__x86_64__)
#include "tensor/cpu/amx.h"

#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* --- instruction sets -------------------------------------------------- */

static bool has_any(void)
{
    return true;
}

#if defined(__x86_64__)
/* clang 14 does not know "f16c" by name. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C;
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           has_f16c();
}

/* CPUID leaf 7.1, EAX: names that old compilers do not know. */
static bool has_leaf71(unsigned bit)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> bit & 1;
}

static bool has_avxvnni(void)
{
    return has_avx2() && has_leaf71(4);
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

static bool has_avx512bf16(void)
{
    return has_avx512() && has_leaf71(5);
}

static bool has_amxint8(void)
{
    return has_avx512bf16() && amx_has_int8();
}

static bool has_amxbf16(void)
{
    return has_avx512bf16() && amx_has_bf16();
}
#elif defined(__aarch64__)
static bool has_neondot(void)
{
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
}

static bool has_neoni8mm(void)
{
    unsigned long both = HWCAP2_I8MM | HWCAP2_BF16;
    return has_neondot() && (getauxval(AT_HWCAP2) & both) == both;
}
#endif

static const struct isa {
    const char *name;
    const struct kernels *kernels;
    bool (*has)(void);
} isas[] = {
#if defined(__x86_64__)
    {"amxbf16", &kernels_amxbf16, has_amxbf16},
    {"amxint8", &kernels_amxint8, has_amxint8},
    {"avx512bf16", &kernels_avx512bf16, has_avx512bf16},
    {"avx512", &kernels_avx512, has_avx512},
    {"avxvnni", &kernels_avxvnni, has_avxvnni},
    {"avx2", &kernels_avx2, has_avx2},
#elif defined(__aarch64__)
    {"neoni8mm", &kernels_neoni8mm, has_neoni8mm},
    {"neondot", &kernels_neondot, has_neondot},
    {"neon", &kernels_neon, has_any},
#endif
    {"generic", &kernels_generic, has_any},
    {"amxplain", &kernels_amxplain, has_any}, /* only where asked for */
};

/* What there would be to say about the processor's best; "": nothing. */
static const char *isa_refusal(void)
{
#if defined(__x86_64__)
    return amx_refusal() ? amx_refusal() : "";
#else
    return "";
#endif
}

const struct kernels *kernels_choose(const char *limit)
{
    bool below = !limit;
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        below = below || strcmp(isas[i].name, limit) == 0;
        if (below && isas[i].has()) return isas[i].kernels;
    }
    return NULL; /* limit is no name of ours */
}

int kernels_unknown(const char *limit, struct why *why)
{
    return err_set(why, ERR_INVALID,
                   "cpu: isa \"%s\" is not one of " KERNELS_NAMES, limit);
}

/* How processors take what is asked for ahead of its use. Into the first level
 * cache Zen 5 (AMD's family 26) has some 90 lines under way at a time, Zen 4 24
 * and Intel's 10 to 16, fewer than memory could deliver meanwhile: these had
 * better ask into the second level, or for nothing. docs/speed.md has what was
 * measured, on both of AMD's. */
static bool takes_many_lines(void)
{
#if defined(__x86_64__)
    unsigned a, b, c, d;
    if (!__get_cpuid(0, &a, &b, &c, &d) || b != signature_AMD_ebx ||
        !__get_cpuid(1, &a, &b, &c, &d))
        return false;
    return (a >> 8 & 15) + (a >> 20 & 255) >= 26;
#else
    return false;
#endif
}

/* --- life -------------------------------------------------------------- */

static void rooms_free(struct cpu *cpu)
{
    host_free(cpu->words);
    host_free(cpu->marks);
    host_free(cpu->rope.cs);
    host_free(cpu->rope.positions);
    host_free(cpu->plans);
    cpu->plans = NULL;
    cpu->words = NULL;
    cpu->marks = NULL;
    cpu->rope.cs = NULL;
    cpu->rope.positions = NULL;
    cpu->rope.tokens = cpu->rows = cpu->cols = 0;
}

static void cpu_close(struct device *dev)
{
    struct cpu *cpu = (struct cpu *)dev;
    pool_destroy(cpu->pool);
    rooms_free(cpu);
    host_free(cpu->scratch);
    host_free(cpu->partials);
    mem_free(cpu);
}

static void *host_array(size_t rows, size_t cols, size_t size)
{
    size_t n;
    if (__builtin_mul_overflow(rows, cols, &n) ||
        __builtin_mul_overflow(n, size, &n))
        return NULL;
    return host_alloc(n);
}

int cpu_scratch_reserve(struct cpu *cpu, size_t bytes, struct why *why)
{
    if (bytes <= cpu->scratch_bytes) return 0;
    const size_t threads = (size_t)cpu->device.threads;
    size_t all, each = (bytes + SCRATCH_ALIGN - 1) & -(size_t)SCRATCH_ALIGN;
    char *scratch = NULL;
    if (each && !__builtin_mul_overflow(threads, each, &all))
        scratch = host_alloc(all);
    if (!scratch)
        return err_set(why, ERR_NOMEM,
                       "%zu bytes of scratch memory for each "
                       "of %zu threads",
                       bytes, threads);
    host_free(cpu->scratch);
    cpu->scratch = scratch;
    cpu->scratch_bytes = each;
    return 0;
}

static int cpu_reserve(struct device *dev, size_t rows, size_t cols,
                       struct why *why)
{
    struct cpu *cpu = (struct cpu *)dev;
    rooms_free(cpu);
    /* Whole slabs: of one column a word, and of four with a mark a run. */
    size_t words = (cols + SLAB_STEPS - 1) / SLAB_STEPS * SLAB_STEPS;
    size_t marks =
        (cols / 4 + SLAB_STEPS) / SLAB_STEPS * (4 * SLAB_STEPS / RUN);
    cpu->words = host_array(rows + PAST_TOKENS, words, sizeof *cpu->words);
    cpu->marks = host_array(rows + PAST_TOKENS, marks, sizeof *cpu->marks);
    cpu->rope.cs = host_array(rows, OP_HEAD_DIM_MAX, sizeof *cpu->rope.cs);
    cpu->rope.positions = host_array(rows, 1, sizeof *cpu->rope.positions);
    cpu->plans = host_array(rows, sizeof *cpu->plans, 1);
    if (!cpu->words || !cpu->marks || !cpu->rope.cs || !cpu->rope.positions ||
        !cpu->plans) {
        rooms_free(cpu);
        return err_set(why, ERR_NOMEM, "activations of %zu rows of %zu", rows,
                       cols);
    }
    cpu->rows = rows;
    cpu->cols = cols;
    return cpu_scratch_reserve(cpu, linear_scratch_bytes(cols), why);
}

static void cpu_share(struct device *dev, void (*fn)(void *, size_t, int),
                      void *arg, size_t count)
{
    pool_run(((struct cpu *)dev)->pool, fn, arg, count);
}

static uint64_t cpu_busy_ns(struct device *dev, bool on)
{
    return pool_busy_ns(((struct cpu *)dev)->pool, on);
}

/* --- rows -------------------------------------------------------------- */

struct job {
    struct cpu *cpu;
    float *out;
    const float *a, *b;
    const struct weight *w;
    const void *index; /* ids or rows */
    size_t rows, cols;
    float eps;
    size_t chunk_rows;
};

enum { CHUNK_FLOATS = 4096 }; /* less is not worth another thread */

/* Runs fn on chunks of whole rows, of about CHUNK_FLOATS each. */
static void rows_run(struct job *job, void (*fn)(void *, size_t, int),
                     size_t row_floats)
{
    job->chunk_rows = CHUNK_FLOATS / row_floats;
    if (job->chunk_rows == 0) job->chunk_rows = 1;
    pool_run(job->cpu->pool, fn, job,
             (job->rows + job->chunk_rows - 1) / job->chunk_rows);
}

static size_t chunk_end(const struct job *job, size_t chunk)
{
    size_t end = (chunk + 1) * job->chunk_rows;
    return end < job->rows ? end : job->rows;
}

static void embed_rows(void *arg, size_t chunk, int worker)
{
    (void)worker;
    struct job *job = arg;
    const int32_t *ids = job->index;
    const struct cpu_weight *w = (const struct cpu_weight *)job->w;
    const enum dtype type = w->plain.type;
    for (size_t t = chunk * job->chunk_rows; t < chunk_end(job, chunk); t++) {
        size_t row = (size_t)ids[t], panel = row / ROWS;
        float *out = job->out + t * job->cols;
        if (panel < w->packed)
            panel_decode(type, job->cols,
                         (const char *)w->panels + panel * w->panel_bytes,
                         ids[t] % ROWS, out);
        else
            dtype_decode(type,
                         (const char *)w->plain.bytes +
                             row * dtype_row_bytes(type, job->cols),
                         out, job->cols);
    }
}

static void cpu_embed(struct device *dev, float *out,
                      const struct weight *table, const int32_t *ids,
                      size_t tokens)
{
    struct job job = {.cpu = (struct cpu *)dev,
                      .out = out,
                      .w = table,
                      .index = ids,
                      .rows = tokens,
                      .cols = table->cols};
    rows_run(&job, embed_rows, table->cols);
}

static void norm_rows(void *arg, size_t chunk, int worker)
{
    (void)worker;
    struct job *job = arg;
    for (size_t r = chunk * job->chunk_rows; r < chunk_end(job, chunk); r++)
        job->cpu->kernels->rmsnorm(job->out + r * job->cols,
                                   job->a + r * job->cols, job->b, job->cols,
                                   job->eps);
}

static void cpu_rmsnorm(struct device *dev, float *out, const float *x,
                        const float *gain, size_t rows, size_t cols, float eps)
{
    struct job job = {.cpu = (struct cpu *)dev,
                      .out = out,
                      .a = x,
                      .b = gain,
                      .rows = rows,
                      .cols = cols,
                      .eps = eps};
    rows_run(&job, norm_rows, cols);
}

static void gather_rows(void *arg, size_t chunk, int worker)
{
    (void)worker;
    struct job *job = arg;
    const uint32_t *rows = job->index;
    for (size_t r = chunk * job->chunk_rows; r < chunk_end(job, chunk); r++)
        memcpy(job->out + r * job->cols, job->a + rows[r] * job->cols,
               job->cols * sizeof *job->a);
}

static void cpu_gather(struct device *dev, float *out, const float *x,
                       const uint32_t *rows, size_t count, size_t cols)
{
    struct job job = {.cpu = (struct cpu *)dev,
                      .out = out,
                      .a = x,
                      .index = rows,
                      .rows = count,
                      .cols = cols};
    rows_run(&job, gather_rows, cols);
}

/* --- the table --------------------------------------------------------- */

static const struct device_ops cpu_ops = {
    .close = cpu_close,
    .alloc = host_device_alloc,
    .free = host_device_free,
    .write = host_device_write,
    .read = host_device_read,
    .sync = host_device_sync,
    .share = cpu_share,
    .busy_ns = cpu_busy_ns,
    .reserve = cpu_reserve,
    .weight_create = cpu_weight_create,
    .weight_destroy = cpu_weight_destroy,
    .weight_pack = cpu_weight_pack,
    .packed_bytes = cpu_packed_bytes,
    .packed = cpu_packed,
    .weight_map = cpu_weight_map,
    .embed = cpu_embed,
    .rmsnorm = cpu_rmsnorm,
    .linear = cpu_linear,
    .expect = cpu_expect,
    .kv_write = cpu_kv_write,
    .attention = cpu_attention,
    .experts = cpu_experts,
    .gather = cpu_gather,
};

/* How many slabs a tile of sums that are not in groups takes at a time. Four
 * panels of one slab are 32 KiB. A first level cache that has no more does not
 * keep them from one group of tokens to the next; then they may as well be
 * longer, as long as a quarter of the second level has them, and sums go to
 * memory and back less often. As measured, docs/speed.md. */
static size_t long_tile_slabs(void)
{
    enum { SLAB_BYTES = PANELS_MAX * SLAB_STEPS * STEP, MOST = 8 };
    long first = sysconf(_SC_LEVEL1_DCACHE_SIZE);
    long second = sysconf(_SC_LEVEL2_CACHE_SIZE); /* 0: it is not said */
    if (first <= 0 || first > SLAB_BYTES || second < 4 * SLAB_BYTES) return 1;
    size_t slabs = (size_t)second / 4 / SLAB_BYTES;
    return slabs < MOST ? slabs : MOST;
}

int device_cpu_open(struct device **out, const struct device_options *options,
                    struct why *why)
{
    const struct kernels *kernels = kernels_choose(options->isa);
    if (!kernels) return kernels_unknown(options->isa, why);
    struct cpu *cpu = mem_must(1, sizeof *cpu);
    cpu->device.ops = &cpu_ops;
    cpu->kernels = kernels;
    cpu->many_lines = takes_many_lines();
    cpu->tile_slabs = long_tile_slabs();
    struct pool_options pool = {.threads = options->threads};
    if (pool.threads == 0) pool.threads = pool_usable_cores();
    int rc = pool_create(&cpu->pool, &pool, why);
    if (rc) goto fail;
    cpu->device.threads = pool.threads;
    rc = cpu_scratch_reserve(cpu, attention_scratch_bytes(), why);
    if (rc) goto fail;
    cpu->partials = host_alloc(PARTIALS_BYTES);
    if (!cpu->partials) {
        rc = err_set(why, ERR_NOMEM, "memory for partial sums");
        goto fail;
    }
    const char *refusal = isa_refusal();
    char nodes[40] = "";
    if (pool_nodes(cpu->pool) > 1)
        snprintf(nodes, sizeof nodes, " on %d nodes", pool_nodes(cpu->pool));
    snprintf(cpu->device.text, sizeof cpu->device.text,
             "cpu %s, %d thread%s%s%s%s", kernels->name, pool.threads,
             pool.threads == 1 ? "" : "s", nodes,
             *refusal ? "; AMX is there, but not used: " : "", refusal);
    cpu_layout(cpu, cpu->device.layout, sizeof cpu->device.layout);
    *out = &cpu->device;
    return 0;

fail:
    cpu_close(&cpu->device);
    return rc;
}
