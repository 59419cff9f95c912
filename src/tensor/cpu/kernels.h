/* tensor/cpu/kernels.h - the inner loops of the cpu device, once per
 * instruction set, and the layouts that they share.
 *
 * Weights live in panels of 16 rows, one after another, each with all its
 * columns. A panel is mostly steps: 64 bytes that hold, for each of 16 rows,
 * 4 bytes of neighbouring columns (4 of int8, 2 of bf16, 1 of f32). A step
 * meets 4 bytes of activations, broadcast, in one instruction for 16 outputs;
 * nothing is summed across lanes. Rows past the matrix's last are zeros.
 *
 *   F32, F16   [cols][16]             BF16   [cols / 2, rounded up][16][2]
 *   INT8       [cols / 4][16][4] q + 128, then d[16] f32
 *   INT8_G128, pairs of groups of 128 or 32 columns, the last may be half
 *   Q8_0       empty: { [2][columns / 4][16][4] q + 128, d[2][16] f16 }
 *   Q4_0       the same with [2][4][16][4] bytes of two nibbles q + 8
 *   INT4_GN    the same with [2][N / 32][4][16][4] bytes of two nibbles q,
 *              then [cols / N][16] z u8
 *   others     [cols / 32 / runs] of { head; [runs] of run }, see the table:
 *
 *              runs  head                    run of 32 columns
 *     Q4_1       1   d[16], m[16] f16        256 nibbles q
 *     Q4_K       8   d[16], dmin[16] f16     256 nibbles q, scale[16], min[16]
 *     Q5_K       8   d[16], dmin[16] f16     256 nibbles, 64 fifth bits, the
 *                                            bytes scale[16], min[16]
 *     Q6_K       8   d[16] f16               256 nibbles, 128 upper bits of
 *                                            q + 32, scale[2][16]
 *
 * Bytes of 32 columns are [8 groups][16 rows][4 columns], group j being
 * columns 4j .. 4j + 3. A nibble byte has group j (0..3) in its low half and
 * j + 4 in the high one. Bit j of a fifth-bits byte [16][4] belongs to group
 * j; bits 2i of upper-bits byte v [2][16][4] belong to group 4 * v + i. A
 * panel's bytes are rounded up to 64. */
#ifndef BATON_TENSOR_CPU_KERNELS_H
#define BATON_TENSOR_CPU_KERNELS_H

#include "tensor/ops.h"

enum {
    ROWS = 16,    /* of a panel */
    RUN = 32,     /* columns of GGUF's scales */
    STEP = 64,    /* bytes: 4 for each row */
    SEGMENT = 256 /* tokens of KV that are reduced on their own */
};

/* A panel's bytes; cols as weight_create takes them. */
size_t panel_bytes(enum dtype type, size_t cols);
/* Packs rows first .. first + 15 of w (fewer at its end) into zeroed bytes.
 * kernels NULL: in plain C, which specifies it. */
struct kernels;
void panel_pack(const struct kernels *k, const struct weight *w, size_t first,
                void *panel);
/* A number for how all types are packed: another one once that changes. */
uint64_t panel_layout(void);
/* Row row (0..15) of a panel as dtype_decode gives it. */
void panel_decode(enum dtype type, size_t cols, const void *panel, int row,
                  float *out);

/* Of the formats that come in pairs of groups, all in bytes. A walk through
 * the memory of a panel meets each scale beside its weights: one stream, which
 * is what processors read fastest. */
struct pairs {
    size_t columns; /* of a group               */
    size_t steps;   /* of a group               */
    size_t bytes;   /* of a pair, its d behind  */
};
bool panel_has_pairs(enum dtype type);
struct pairs panel_pairs(enum dtype type);

/* Where group g's steps and scales are. */
static inline size_t pairs_steps(struct pairs p, size_t g)
{
    return g / 2 * p.bytes + g % 2 * p.steps;
}
static inline size_t pairs_scales(struct pairs p, size_t g)
{
    return g / 2 * p.bytes + 2 * p.steps + g % 2 * (ROWS * 2);
}

/* Where the scales (d) of INT8, the zero points (z) of INT4_GN begin. */
size_t panel_scales(size_t cols);
size_t panel_zeros(enum dtype type, size_t cols);

/* Counts and bytes of the table above. */
struct panel_format {
    int runs, head, run;
};
static inline struct panel_format panel_format(enum dtype type)
{
    switch (type) {
    case DTYPE_Q4_1: return (struct panel_format){1, 64, 256};
    case DTYPE_Q4_K: return (struct panel_format){8, 64, 256 + 32};
    case DTYPE_Q5_K: return (struct panel_format){8, 64, 256 + 64 + 32};
    default: return (struct panel_format){8, 32, 256 + 128 + 32}; /* Q6_K */
    }
}

/* Where run n of a panel is, and its head; what comes behind n runs that fill
 * their blocks. */
static inline size_t run_head(struct panel_format f, size_t n)
{
    size_t runs = (size_t)f.runs;
    return n / runs * (size_t)(f.head + f.runs * f.run);
}
static inline size_t run_at(struct panel_format f, size_t n)
{
    return run_head(f, n) +
           (size_t)(f.head + (int)(n % (size_t)f.runs) * f.run);
}

/* What most types' panels are made of: words of 4 bytes of ROWS rows turned
 * into steps. A row's words lie in units of 16 bytes, several to a block. */
enum { PACK_UNIT = 16, PACK_WORDS = 16 };
struct pack_ahead { /* what is packed next, to be asked for meanwhile */
    const uint8_t *at;
    size_t lines;
};
struct pack {
    const uint8_t *rows; /* [ROWS] of row_bytes */
    size_t row_bytes, words;
    size_t head, block_units, block_bytes; /* see pack_unit */
    uint32_t flip;                         /* bits of each word */
    bool halves; /* a step is [2][ROWS] halves of words, not [ROWS] words */
    struct pack_ahead ahead;
    uint8_t *to;
    size_t part_words, part_gap; /* after so many steps, so many bytes are
                                    left free */
};
static inline size_t pack_unit(const struct pack *p, size_t unit)
{
    return p->head + unit / p->block_units * p->block_bytes +
           unit % p->block_units * PACK_UNIT;
}
static inline uint8_t *pack_step(const struct pack *p, size_t word)
{
    return p->to + word * STEP + word / p->part_words * p->part_gap;
}

/* Four panels of it and what else a tile needs fit a first level cache of 48
 * KiB. Shorter ones bring sums to memory and back more often. */
enum { SLAB_STEPS = 128 };

/* Activations are made ready once for all products that take them in the same
 * way, in groups of a few tokens that one tile multiplies at a time:
 *
 *   words [SLAB_STEPS][tokens] of 4 bytes, as a step of weights asks for
 *   marks [columns of a slab / acts.group, at least 1][tokens] of integers
 *
 * of one slab of columns; words [tokens][SLAB_STEPS] where they lie by_token.
 * From slab to slab it is words_stride bytes and marks_stride marks further:
 * what a slab's tiles need one after another lies in one piece. Behind all of
 * it is room for PAST_TOKENS more tokens, since tiles and groups of streams may
 * have more rows than there are tokens. */
struct mark {
    float s, s_sum;    /* scale; s * sum                  */
    int32_t sum, half; /* of q; of q in the first columns */
};
enum { HALF = 16 };        /* those "first columns" */
enum { GROUP_MOST = 128 }; /* columns that share a scale, if not all do */

/* How a type takes them. */
enum acts_kind { ACTS_F32, ACTS_BF16, ACTS_INT8, ACTS_KINDS };
enum { PAST_TOKENS = 15 };
enum { ACTS_ROWS = 4 }; /* as many as are made ready side by side */
struct acts {
    enum acts_kind kind;
    size_t group; /* INT8: columns that share a scale */
};
struct acts_room {
    void *words;
    struct mark *marks;
    size_t words_stride, marks_stride;
    /* Within a slab and of one token: bytes from a step's word to the next
     * one's, marks from a group of columns to the next. */
    size_t words_step, marks_step;
};
struct acts acts_of(enum dtype type, size_t cols);

/* Weights in the form that tiles multiply, a slab of columns of one panel:
 * steps of signed integers + 128 as unsigned bytes, of bf16 or of floats;
 * d [groups][16]: f32 where a group is 16 columns or has minima, or is a
 * whole row; otherwise f16. Of FORM_128, 64 and 32 the groups may come in
 * pairs, as in the panel: two side by side, the next two so many bytes on. */
enum form {
    FORM_F32,
    FORM_BF16, /* only where kernels.bf16 */
    FORM_ROW,  /* int8, one scale for all columns */
    FORM_128,  /* int8, groups of so many columns */
    FORM_64,
    FORM_32,
    FORM_16,
    FORM_MIN, /* groups of 32, w = d q + e */
    FORM_COUNT
};
struct slab {
    const uint8_t *steps;
    const void *d;
    const float *e; /* FORM_MIN */
    size_t steps_pair, d_pair;
};

struct slab_room {
    uint8_t steps[SLAB_STEPS][STEP];
    float d[4 * SLAB_STEPS / HALF][ROWS], e[4 * SLAB_STEPS / RUN][ROWS];
};

/* Most panels and tokens of a tile. */
enum { PANELS_MAX = 4, TOKENS_MAX = 6 };

/* The slab behind a slab, which is asked for while that one is multiplied: of
 * each panel so many lines, lines_each of all of them for a group of tokens. */
struct slab_ahead {
    const char *panel;
    size_t panel_bytes, lines, lines_each;
    size_t line, panels; /* the next line of the panel; panels left */
};

/* One slab of a few panels times groups of so many tokens. Or several slabs, of
 * which the last may be short, if tiles may be long (see kernels) and all their
 * steps lie together. */
struct tile {
    struct slab w[PANELS_MAX];
    size_t steps;
    size_t tokens, groups;
    /* Of the first group. */
    const void *words; /* at the slab's first step */
    size_t words_slab; /* bytes from there to the next slab's */
    const struct mark *marks;
    size_t token_marks; /* of a token in a slab */
    /* Where sums are kept from slab to slab, [PANELS_MAX][tokens][16] of each
     * group; first: they start at 0; last: results go to out, or stay here
     * where it is NULL. */
    float *sums;
    bool first, last;
    float *out[PANELS_MAX]; /* result t at t * stride */
    size_t stride;
    const float *bias[PANELS_MAX]; /* [16] or NULL */
    bool add;
    struct slab_ahead *ahead;
};

/* A few panels, all columns, times a group of tokens of streams, or of batch
 * all groups, one behind another: alike in size, so at least four. */
enum { BATCH_LEAST = 9, BATCH_TOKENS = 32 };
static inline size_t batch_group_tokens(size_t left, size_t most)
{
    size_t groups = (left + most - 1) / most;
    return (left + groups - 1) / groups;
}
struct stream {
    bool many_lines; /* the first level cache waits for many at a time */
    enum dtype type;
    const char *panels; /* the first; panel i lies i * panel_bytes behind */
    size_t panel_bytes;
    size_t panel_count;
    size_t cols;
    size_t tokens, results; /* whose results are wanted: the first ones */
    size_t group;           /* of batch: see batch_group_tokens */
    const void *words;
    const struct mark *marks;
    size_t words_stride, marks_stride; /* of batch: bytes, marks of a token */
    /* Of the first panel's first row: result t at t * stride; bias or NULL. So
     * many rows are left from there on. Sums of a panel that has fewer than 16
     * of them stay in part, [tokens][16]. */
    float *out;
    size_t stride, rows;
    const float *bias;
    bool add;
    float *part;
};

struct span {
    size_t from, to; /* [from, to) */
};

/* Attention of some rows of a sequence. Rows are numbered token by token,
 * within a token by heads: row n is token n / per_token of the new ones and
 * the n % per_token-th head of this call. A tile has any rows of one kv head,
 * so that a block of K and V is made ready once for all of them; direct: the
 * rows of one token and of one or more kv heads, no more than ATTEND_ROWS. */
enum { ATTEND_TILE = 1024, ATTEND_ROWS = 256 };
struct attend {
    uint64_t call;  /* of op_attention; what it reads does not change in it */
    const float *q; /* of row 0; a token's rows lie d apart */
    float *out;
    const struct turn *turn; /* that q goes through; NULL: none */
    const float *cs;     /* of the first new token; [OP_HEAD_DIM_MAX] each */
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
    /* Direct: whose K this worker will likely read behind it, to be asked for
     * meanwhile: tokens [from, to) in these pages. NULL: nobody's. */
    const uint32_t *then_pages;
    struct span then;
    /* NULL: all segments, and the result goes to out. Otherwise one segment,
     * whose parts go here: [count] of ATTEND_PART floats. To merge: the
     * parts of all segments, [segments][count]. */
    float *parts;
    size_t segment;
    struct attend_scratch *scratch;
};
/* max, sum of p, sum of p v (in the kernel's own order, filled up). */
#define ATTEND_PART(d) ((size_t)(d) + 2 + 32)

/* K and V of a segment of one kv head as tiles want them, and which they are:
 * what the next tile of the head sees of them it need not make ready again. */
struct attend_kv {
    _Alignas(64) float k[SEGMENT * OP_HEAD_DIM_MAX];
    float v[SEGMENT * OP_HEAD_DIM_MAX];
    float k_scale[SEGMENT], v_scale[SEGMENT];
    uint64_t call;
    const uint32_t *pages;
    size_t head, t0;
    struct span span;
};

/* A tile's rows have scores and sums of a segment a band at a time, which stays
 * in the caches of a core with them; a direct one's all at once. Arrays of
 * vectors first: whole lines, as the block is. */
enum { ATTEND_KEPT = 2 /* segments */, ATTEND_BAND = 48 };
struct attend_scratch {
    float q[ATTEND_TILE * OP_HEAD_DIM_MAX]; /* of q_of, from q_first on */
    float p[ATTEND_ROWS][SEGMENT];          /* of the band, as what follows */
    float part[ATTEND_ROWS * OP_HEAD_DIM_MAX];
    float max[ATTEND_ROWS], total[ATTEND_ROWS];
    float all[ATTEND_TILE * OP_HEAD_DIM_MAX]; /* of those merged so far */
    struct attend_kv kept[ATTEND_KEPT];
    uint64_t q_call;
    const float *q_of;
    size_t q_first;
    struct attend_kv *kv; /* of this segment; of a direct one only scales */
    /* Of q in bytes: scales, what its sums begin with. */
    float q_scale[ATTEND_TILE];
    int32_t q_start[ATTEND_TILE];
    float all_max[ATTEND_TILE], all_total[ATTEND_TILE];
    /* A row's new token; floats from attend.q or out to it; the tokens of a
     * segment that it sees. */
    size_t token[ATTEND_TILE], at[ATTEND_TILE];
    struct span span[ATTEND_TILE];
    size_t band; /* its first row */
    float *sum;  /* of the band and one segment: part, or all of the first */
};

/* An instruction set's attention, in files of its own: tables that differ in
 * their products share it. */
struct attention {
    void (*run)(const struct attend *a);
    /* Merges the parts of all segments (parts, in order) into out. */
    void (*merge)(const struct attend *a);
};

/* How many tokens are multiplied at a time, largest groups first, 1 last,
 * 0-ended, and how their words lie. */
struct groups {
    const uint8_t *sizes;
    bool by_token;
};

struct kernels {
    const char *name;
    bool bf16;                  /* multiplies pairs of bf16 */
    const uint8_t *tile_panels; /* of a form's tiles */
    bool tiles_long; /* they take several slabs, where sums are not in groups */
    struct groups tiles[ACTS_KINDS], streams[ACTS_KINDS];
    /* sizes[0]: the most, see batch_group_tokens. [1]: where groups of columns
     * have scales of their own. */
    struct groups batches[2];
    /* Beyond so many tokens tiles are faster than streams: their sums are
     * shorter chains, and integers are taken apart once for all. */
    uint8_t few[ACTS_KINDS];

    /* Up to ACTS_ROWS rows of x made ready; where each one goes. They may be of
     * several groups. */
    void (*acts_floats)(const struct acts_room to[], const float *x,
                        size_t rows, size_t cols, bool round_bf16);
    void (*acts_bf16)(const struct acts_room to[], const float *x, size_t rows,
                      size_t cols); /* only where bf16 */
    void (*acts_int8)(const struct acts_room to[], const float *x, size_t rows,
                      size_t cols, size_t group);

    /* Few tokens: straight from the panels. */
    void (*stream)(const struct stream *s);
    /* The same for BATCH_LEAST to BATCH_TOKENS tokens, where those are few.
     * NULL: group by group. */
    void (*batch)(const struct stream *s);

    /* Many tokens, the same bits: columns [first, first + cols) of a panel
     * become a slab, which is in room where it is not in the panel itself (at
     * most SLAB_STEPS steps); then tile by tile. */
    void (*unpack)(enum dtype type, size_t all_cols, const void *panel,
                   size_t first, size_t cols, struct slab_room *room,
                   struct slab *out);
    void (*tile)(enum form form, const struct tile *tile);
    /* Before and after some tiles of one form, on their thread. Or NULL. */
    void (*tiles_begin)(enum form form);
    void (*tiles_end)(void);
    /* Whether the instructions that it stands on compute what they are said
     * to. NULL: no doubt. */
    bool (*check)(void);

    /* The first words / PACK_WORDS * PACK_WORDS words. */
    void (*pack)(const struct pack *p);
    /* ROWS rows of a K format, so many blocks of 256 columns. */
    void (*pack_k)(enum dtype type, const uint8_t *rows, size_t row_bytes,
                   size_t blocks, const struct pack_ahead *ahead,
                   uint8_t *panel);
    /* A row of n floats of a type to one that dtype_rounds names: the bytes of
     * dtype_decode, then dtype_encode. */
    void (*round)(enum dtype from, enum dtype to, const void *in, void *out,
                  size_t n);

    void (*rmsnorm)(float *out, const float *x, const float *gain, size_t cols,
                    float eps);
    void (*silu_mul)(float *out, const float *gate, const float *up, size_t n);
    /* A token's heads [heads, d]. cs [rotary]: its cosines, then sines */
    void (*turn)(float *out, const float *x, const struct turn *turn,
                 const float *cs, size_t heads, size_t d);
    /* A token's K or V [heads, d] to the elements of a KV cache. */
    void (*encode)(enum dtype type, const float *in, void *out, size_t heads,
                   size_t d);
    const struct attention *attention;

    /* For roofline.h: reads all bytes (a multiple of 256 streams) at so many
     * places in turn; does rounds of so many operations. The results only keep
     * the work from vanishing. */
    double (*peak_read)(const void *from, size_t bytes, size_t streams);
    double (*peak_floats)(size_t rounds);
    double (*peak_dots)(size_t rounds);
    double (*peak_bf16)(size_t rounds); /* NULL: no pairs of bf16 */
    int floats_round, dots_round, bf16_round;
};

/* The form of a type's slabs, and the columns of one of their steps. */
enum form kernels_form(const struct kernels *k, enum dtype type);
size_t form_columns(enum form form);

extern const struct kernels kernels_generic, kernels_amxplain;
extern const struct attention attention_generic;
#if defined(__x86_64__)
extern const struct kernels kernels_avx2, kernels_avxvnni, kernels_avx512,
    kernels_avx512bf16, kernels_amxint8, kernels_amxbf16;
extern const struct attention attention_avx2, attention_avxvnni,
    attention_avx512, attention_avx512bf16;
#define KERNELS_NAMES \
    "generic, avx2, avxvnni, avx512, avx512bf16, amxint8, amxbf16, amxplain"
#elif defined(__aarch64__)
extern const struct kernels kernels_neon, kernels_neondot, kernels_neoni8mm;
extern const struct attention attention_neon, attention_neondot,
    attention_neoni8mm;
#define KERNELS_NAMES "generic, neon, neondot, neoni8mm, amxplain"
#else
#define KERNELS_NAMES "generic, amxplain"
#endif

#endif
