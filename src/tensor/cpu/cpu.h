/* tensor/cpu/cpu.h - the parts of the cpu device that its files share. */
#ifndef BATON_TENSOR_CPU_CPU_H
#define BATON_TENSOR_CPU_CPU_H

#include "tensor/cpu/kernels.h"
#include "tensor/cpu/pool.h"
#include "tensor/device_ops.h"

struct panel_block; /* weights.c */

struct cpu_weight {
    struct weight plain; /* its bytes: while some panels are not packed */
    const void *panels;
    size_t panel_bytes, panel_count;
    size_t packed; /* the first ones; others are packed as they are used */
    void *own;     /* the panels, or */
    struct panel_block *block; /* where they lie; or neither: the caller's */
};

/* How the attention of a sequence is shared out. */
struct attend_plan {
    size_t chunk;    /* its first */
    size_t tasks;    /* tiles, or groups of kv heads */
    size_t segments; /* chunks of a task; 1: one does all of its KV */
    size_t part_floats;
    float *parts;           /* [tasks][segments] of part_floats; NULL: whole */
    _Atomic uint32_t *done; /* [tasks] segments; 0 between calls */
};
enum { ATTEND_COUNTERS = 1024 };

struct cpu {
    struct device device;
    const struct kernels *kernels;
    bool many_lines;   /* see takes_many_lines */
    size_t tile_slabs; /* see long_tile_slabs */
    struct pool *pool;

    /* Of device_reserve: the largest call, and room for its activations as
     * the kernels want them (rounded, or regrouped). */
    size_t rows, cols;
    uint32_t *words;    /* [rows + PAST_TOKENS][cols, whole slabs] */
    struct mark *marks; /* the same of cols / 32                   */

    /* Cosines and sines that were asked for last, since all layers and heads
     * of a step want the same ones. */
    struct {
        float *cs;           /* [rows][OP_HEAD_DIM_MAX]: cos, then sin */
        uint32_t *positions; /* [rows] */
        float freqs[OP_HEAD_DIM_MAX / 2];
        size_t rotary, tokens;
        float scale;
    } rope;

    struct panel_block *blocks; /* of weights, the newest first */

    char *scratch; /* [threads] of scratch_bytes */
    size_t scratch_bytes;

    /* Attention's, see attention.c. */
    uint64_t attends;          /* calls so far */
    struct attend_plan *plans; /* [rows] */
    float *partials;
    _Atomic uint32_t counters[ATTEND_COUNTERS];
};

/* At least so many bytes for each worker, between operations; what is in it is
 * lost. ERR_NOMEM: there is what there was. */
int cpu_scratch_reserve(struct cpu *cpu, size_t bytes, struct why *why);
static inline void *cpu_scratch(const struct cpu *cpu, int worker)
{
    return cpu->scratch + (size_t)worker * cpu->scratch_bytes;
}

/* The best that the processor has and that is not above limit (one of
 * KERNELS_NAMES; NULL: no limit). NULL: no such limit. */
const struct kernels *kernels_choose(const char *limit);
int kernels_unknown(const char *limit, struct why *why); /* ERR_INVALID */

enum { SCRATCH_ALIGN = 4096 };

/* Bytes that a worker's part of each operation wants; of op_linear at most so
 * many columns. */
size_t linear_scratch_bytes(size_t cols);
size_t attention_scratch_bytes(void);
/* The same of a weight that is not packed yet, of which so many panels are at
 * a time. */
size_t linear_later_bytes(const struct cpu_weight *w);
enum { PARTIALS_BYTES = 8 << 20 };

int cpu_weight_create(struct weight **out, const struct weight *plain,
                      const struct weight_rows *from, struct why *why);
void cpu_weight_destroy(struct weight *w);
size_t cpu_weight_pack(struct weight *w, size_t bytes);
/* Packs panels first .. first + count - 1 to there. */
void cpu_panels_pack(const struct cpu *cpu, const struct cpu_weight *w,
                     size_t first, size_t count, char *to);
size_t cpu_packed_bytes(enum dtype type, size_t rows, size_t cols);
const void *cpu_packed(const struct weight *w);
int cpu_weight_map(struct weight **out, const struct weight *plain,
                   const void *packed, struct why *why);
void cpu_layout(const struct cpu *cpu, char *text, size_t n);
void cpu_linear(struct device *dev, const struct input *x, size_t tokens,
                const struct linear *list, size_t count);
void cpu_expect(struct device *dev, size_t tokens, const struct linear *list,
                size_t count);
void cpu_kv_write(struct device *dev, const struct op_kv *kv,
                  const struct op_seq *seqs, size_t seq_count, const float *k,
                  const float *v, const struct turn *turn);
/* So that rope.cs has the cosines and sines of the sequences' rows. */
void cpu_sines(struct cpu *cpu, const struct turn *turn,
               const struct op_seq *seqs, size_t seq_count);
void cpu_attention(struct device *dev, float *out, const struct query *query,
                   const struct op_kv *kv, const struct op_seq *seqs,
                   size_t seq_count);
void cpu_experts(struct device *dev, float *x, const float *y,
                 const float *scores, size_t tokens, const struct experts *e,
                 float *room);

#endif
