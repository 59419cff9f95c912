/* tensor/cpu/kernels.h - the inner loops of the cpu device, once per
 * instruction set, and the layouts that they share.
 *
 * Weights live in panels of 16 rows, one after another, each with all its
 * columns, so that a vector of weights is 16 rows at the same columns: one
 * broadcast activation serves 16 outputs and nothing is summed across lanes.
 * Rows past the matrix's last are zeros. A panel is
 *
 *   F32        [cols][16] f32          F16     [cols][16] f16
 *   BF16       [cols rounded up to 2 / 2][16][2] bf16
 *   blocks     [cols / 32 / runs] of { head; [runs] of run }, see the table:
 *
 *              runs  head                    run of 32 columns
 *     Q8_0       1   d[16] f16               512 bytes q + 128
 *     Q4_0       1   d[16] f16               256 nibbles q + 8
 *     Q4_1       1   d[16], m[16] f16        256 nibbles q
 *     Q4_K       8   d[16], dmin[16] f16     256 nibbles q, scale[16], min[16]
 *     Q5_K       8   d[16], dmin[16] f16     256 nibbles, 64 fifth bits, the
 *                                            bytes scale[16], min[16]
 *     Q6_K       8   d[16] f16               256 nibbles, 128 upper bits of
 *                                            q + 32, scale[2][16]
 *
 * Bytes q are [8 groups][16 rows][4 columns], group j being columns 4j ..
 * 4j + 3. A nibble byte has group j (0..3) in its low half and j + 4 in the
 * high one. Bit j of a fifth-bits byte [16][4] belongs to group j; bits 2i of
 * upper-bits byte v [2][16][4] belong to group 4 * v + i.
 *
 * Activations for block formats are rounded once into struct xrun. */
#ifndef BATON_TENSOR_CPU_KERNELS_H
#define BATON_TENSOR_CPU_KERNELS_H

#include "tensor/ops.h"

enum {
    ROWS = 16,    /* of a panel */
    RUN = 32,     /* columns that share a scale */
    SEGMENT = 256 /* tokens of KV that are reduced on their own */
};

/* One run of one row of activations: a cache line. Weights are stored as
 * unsigned q + offset; a kernel starts its integer sum at -offset * sum q. */
struct xrun {
    int8_t q[RUN];
    float s, s_sum; /* scale; s * sum of q */
    int32_t zero[2];
    int32_t less8, less128; /* -8 and -128 times the sum of q */
    int32_t less32[2];      /* -32 times the sums of q[0..15], q[16..31] */
};

/* A run of a panel, unpacked for use by many tokens: w = d q + e, or (Q6_K)
 * w = d q in columns 0..15 and e q in columns 16..31. */
struct wrun {
    uint8_t q[8][ROWS][4];
    float d[ROWS], e[ROWS];
};

/* A panel's bytes; cols as weight_create takes them. */
size_t panel_bytes(enum dtype type, size_t cols);
/* Packs rows first .. first + 15 of w (fewer at its end). */
void panel_pack(const struct weight *w, size_t first, void *panel);

/* Counts and bytes of the table above. */
struct panel_format {
    int runs, head, run;
};
static inline struct panel_format panel_format(enum dtype type)
{
    switch (type) {
    case DTYPE_Q8_0: return (struct panel_format){1, 32, 512};
    case DTYPE_Q4_0: return (struct panel_format){1, 32, 256};
    case DTYPE_Q4_1: return (struct panel_format){1, 64, 256};
    case DTYPE_Q4_K: return (struct panel_format){8, 64, 256 + 32};
    case DTYPE_Q5_K: return (struct panel_format){8, 64, 256 + 64 + 32};
    default: return (struct panel_format){8, 32, 256 + 128 + 32}; /* Q6_K */
    }
}

/* Sums of up to PANELS_MAX panels times a group of tokens. */
enum { PANELS_MAX = 8, TOKENS_MAX = 12 };

struct tile {
    enum dtype type;
    const void *panels; /* the first; panel i lies i * panel_stride behind */
    size_t panel_stride;
    size_t panel_count;
    size_t cols;
    const void *x; /* blocks: struct xrun [cols / 32][tokens]
                      others: float [cols][tokens] */
    float *sums;   /* [panel_count][tokens][16] */
};

/* Attention of some rows of a sequence. Rows are numbered token by token,
 * within a token by heads: row n is token n / per_token of the new ones and
 * the n % per_token-th head of this call. A tile has any rows of one kv head,
 * so that a block of K and V is made ready once for all of them; direct: the
 * rows of one token and of one or more kv heads. */
enum { ATTEND_ROWS = 192 };
struct attend {
    const float *q; /* of row 0; a token's rows lie d apart */
    float *out;
    size_t token_stride; /* floats from a token to the next, in q and out */
    size_t ratio;        /* heads / kv_heads */
    size_t per_token;    /* ratio * kv heads of this call */
    size_t first, count; /* rows first .. first + count - 1 */
    size_t seen;         /* tokens up to the first new one, itself included */
    size_t window;       /* of these a row sees the last ones; 0: all */
    float scale;
    const struct op_kv *kv;
    const uint32_t *pages;
    size_t head; /* the first kv head */
    bool direct; /* d is a multiple of 32 */
    /* NULL: all segments, and the result goes to out. Otherwise one segment,
     * whose parts go here: [count] of ATTEND_PART floats. To attend_merge: the
     * parts of all segments, [segments][count]. */
    float *parts;
    size_t segment;
    struct attend_scratch *scratch;
};
/* max, sum of p, sum of p v (in the kernel's own order, filled up). */
#define ATTEND_PART(d) ((size_t)(d) + 2 + 32)

struct span {
    size_t from, to; /* [from, to) */
};
struct attend_scratch {
    float q[ATTEND_ROWS * OP_HEAD_DIM_MAX];
    float k[SEGMENT * OP_HEAD_DIM_MAX];
    float v[SEGMENT * OP_HEAD_DIM_MAX];
    float p[ATTEND_ROWS][SEGMENT];
    float sum[ATTEND_ROWS][OP_HEAD_DIM_MAX]; /* of one segment */
    float all[ATTEND_ROWS][OP_HEAD_DIM_MAX]; /* of those merged so far */
    float k_scale[SEGMENT], v_scale[SEGMENT];
    float max[ATTEND_ROWS], total[ATTEND_ROWS];
    float all_max[ATTEND_ROWS], all_total[ATTEND_ROWS];
    struct span span[ATTEND_ROWS]; /* tokens of a segment that it sees */
};

/* Where the sums of a panel and a group of tokens come from and go to, while
 * slabs of columns are added one after another. */
struct tile_sums {
    float *sums; /* [tokens][16] between slabs */
    bool first;  /* the first slab: sums start at 0 */
    /* NULL but for the last slab of a whole panel: then result t goes to
     * out + t * stride, with bias (if not NULL) and what is there (if add). */
    float *out;
    size_t stride;
    const float *bias; /* [16] */
    bool add;
};

struct kernels {
    const char *name;
    /* Group sizes of tokens that kernels come in, largest first, 0-ended. */
    const uint8_t *block_groups, *float_groups;
    size_t fused_tokens; /* use fused for so many */

    /* x [tokens][cols] -> one group for tile.x. */
    void (*group_runs)(struct xrun *out, const float *x, size_t tokens,
                       size_t cols);
    void (*group_floats)(float *out, const float *x, size_t tokens,
                         size_t cols);

    /* sums = panels . x, straight from the packed panels (tokens 1, 2, 4). */
    void (*fused)(const struct tile *tile, size_t tokens);

    /* The same bits in three steps for many tokens: unpack columns
     * [first, first + cols) of one or two panels, then add those columns. */
    void (*unpack_blocks)(enum dtype type, const void *panel, size_t first,
                          size_t cols, struct wrun *out);
    void (*unpack_floats)(enum dtype type, const void *panel, size_t first,
                          size_t cols, float *out /* [cols][16] */);
    void (*tile_blocks)(enum dtype type, const struct wrun *const w[2],
                        size_t panels, size_t runs, const struct xrun *x,
                        size_t tokens, const struct tile_sums sums[2]);
    void (*tile_floats)(const float *const w[2], size_t panels, size_t cols,
                        const float *x, size_t tokens,
                        const struct tile_sums sums[2]);

    void (*rmsnorm)(float *out, const float *x, const float *gain, size_t cols,
                    float eps);
    void (*silu_mul)(float *out, const float *gate, const float *up, size_t n);
    /* cs [rotary]: cosines, then sines */
    void (*rope)(float *x, const float *cs, size_t heads, size_t rotary,
                 size_t d);
    /* A token's K or V [heads, d] to the elements of a KV cache. */
    void (*encode)(enum dtype type, const float *in, void *out, size_t heads,
                   size_t d);
    void (*attend)(const struct attend *a);
    /* Merges the parts of all segments (parts, in order) into out. */
    void (*attend_merge)(const struct attend *a);

    /* For roofline.h: reads all bytes (a multiple of 2048); does rounds of
     * so many operations. The results only keep the work from vanishing. */
    double (*peak_read)(const void *from, size_t bytes);
    double (*peak_floats)(size_t rounds);
    double (*peak_dots)(size_t rounds);
    int floats_round, dots_round;
};

extern const struct kernels kernels_generic, kernels_avx2, kernels_avx512,
    kernels_avx512bf16;

#endif
