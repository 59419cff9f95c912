/* tensor/ops.h - the contract of every operation.
 *
 * Activations are float32, row-major, contiguous, in device memory. Letters:
 * t tokens (rows), h heads, g kv heads, d head_dim. No pointer may be NULL
 * unless it says so; outputs do not overlap inputs unless it says so.
 *
 * The rule that disaggregation stands on: row i of a result depends on row i
 * of the inputs (and, in attention, on the cached tokens before it) and on
 * nothing else: not on t, not on the other rows, not on how a prompt was cut
 * into chunks, not on the number of threads. Every device keeps it bit for
 * bit; tests/tensor/ proves it for each kernel path. Across devices and
 * instruction sets results agree within the stated tolerance to "ref", which
 * sums in float64; where none is stated it is 2e-6 |ref| plus 2e-6 times the
 * largest magnitude in the row. A NaN or infinity in a row of the input makes
 * what depends on it NaN or infinite, and nothing else. Empty calls (no rows)
 * are fine and do nothing. */
#ifndef BATON_TENSOR_OPS_H
#define BATON_TENSOR_OPS_H

#include "tensor/device.h"

#include <stdbool.h>

enum { OP_HEAD_DIM_MAX = 256 }; /* the largest d of rope and attention */

/* out[t, cols] = row ids[t] of table [vocab, cols], decoded to float32:
 * dtype_decode's values exactly. 0 <= ids[t] < vocab. */
void op_embed(struct device *dev, float *out, const struct weight *table,
              const int32_t *ids, size_t tokens);

/* out[r,:] = x[r,:] / sqrt(mean(x[r,:]^2) + eps) * gain[:]   (out may be x)
 * Source: RMSNorm (Zhang, Sennrich 2019) as in transformers' llama, qwen3. */
void op_rmsnorm(struct device *dev, float *out, const float *x,
                const float *gain, size_t rows, size_t cols, float eps);

/* What products read: rows as they lie in memory, or made of them on the way,
 * so that what only products want is nowhere written and read again:
 *     x[t,:]
 *     op_rmsnorm's of x[t,:], where gain is not NULL
 *     silu(x[t,:]) * up[t,:], elementwise, where up is not NULL
 * gain or up is NULL. Rows that are made are float32 before products round
 * them. silu(g) = g / (1 + exp(-g)). */
struct input {
    const float *x;    /* [t, cols] */
    const float *gain; /* [cols] */
    float eps;
    const float *up; /* [t, cols] */
};

/* For each of count products that share the input, x being its rows:
 *   out[t, w.rows] (+)= x[t, w.cols] . w^T  (+ bias[w.rows])
 * Weights in F32 and F16 multiply float32 by float32. Weights in BF16 multiply
 * x rounded to bf16, nearest even, and sum in float32: what processors with
 * such products do (in an order of their own, and with 0 for what is
 * subnormal), and what models of that type were trained with. An element is
 * within 1e-5 * sum |x w| of ref.
 * All other formats multiply integers. In each run B of columns (32 of them in
 * GGUF's formats; the format's group in int8_g128 and int4_gN; the whole row
 * in int8) a row of x is rounded once to int8, nearest even, with the scale s
 * of that run:
 *
 *     s = max|x| / 127         xi[c] = round(x[c] * (127 / max|x|))
 *
 * (xi = 0 and s = 0 where max|x| < 1e-30; s = NaN where an x is not finite),
 * and the weights mean w[c] = d[c] q[c] - m with integers q (int4_gN: q less
 * z), one d for a run (Q6_K: 16 columns) and one m (0 but in Q4_1, Q4_K,
 * Q5_K), so that
 *
 *     out = sum over B of s * (sum_c d[c] q[c] xi[c]) - m * (s * sum_c xi[c])
 *
 * Sums of integers are exact; their scaled values add up in float32 in an
 * order that is fixed by w alone. Within 1e-5 * sum |x w| of ref, which
 * rounds x in the same way. The lists' w have the same cols, their outputs
 * are different memory. */
struct linear {
    float *out;
    const struct weight *w;
    const float *bias; /* NULL: none */
    bool add;          /* out += (residual) instead of out = */
};
void op_linear(struct device *dev, const struct input *x, size_t tokens,
               const struct linear *list, size_t count);

/* The op_linear that will follow the next operation: a device may fetch
 * weights while parts of it wait. Changes no result. */
void op_expect(struct device *dev, size_t tokens, const struct linear *list,
               size_t count);

/* What heads of q and k [t, h, d] go through before attention, on the way into
 * op_kv_write and op_attention: each is normed as op_rmsnorm would, where gain
 * is not NULL (Qwen3), and then its pairs (i, i + rotary/2) of the first rotary
 * elements are rotated by positions[t] * freqs[i] (float32 radians, cos and sin
 * in float64), times scale (1 but for yarn). rotary is even and at most d, d <=
 * OP_HEAD_DIM_MAX.
 *   gain [d]. freqs [rotary / 2], positions [t] in host memory.
 * Source: RoPE (Su 2021) in the half-split form of transformers. */
struct rope {
    const float *freqs;
    size_t rotary;
    float scale;
};
struct turn {
    const float *gain;
    float eps;
    const struct rope *rope;
    const uint32_t *positions;
};

/* Where the tokens of a batch live in the paged KV cache (kv/pool.h). */
struct op_seq {
    uint32_t first_row;    /* its rows are first_row .. first_row + rows - 1 */
    uint32_t rows;         /* new tokens of this step                        */
    uint32_t kv_len;       /* tokens with KV once this step's are written    */
    const uint32_t *pages; /* [ceil(kv_len / page_tokens)] host memory       */
};
struct op_kv {
    void *k, *v;          /* one layer: [pages][page_tokens] of a token      */
    enum dtype type;      /* DTYPE_F32, F16, BF16 or KV8                     */
    uint32_t page_tokens; /* a power of two                                  */
    uint32_t kv_heads;    /* g */
    uint32_t head_dim;    /* d */
};

/* A token's K (or V) is [g, d] elements; KV8: [g, d] int8 q and then [g]
 * float32 s, little-endian and not aligned, that mean
 * s[head] * q, and that are rounded from x[d] as op_linear rounds a run:
 * s = max|x| / 127, q = round(x * (127 / max|x|)), nearest even. */
static inline size_t op_kv_token_bytes(enum dtype type, size_t g, size_t d)
{
    size_t scale = type == DTYPE_KV8 ? sizeof(float) : 0;
    return g * (d * dtype_block_bytes(type) + scale);
}

/* Rounds k, v [t, g, d] into the cache: row first_row + i of sequence s goes
 * to its token kv_len - rows + i. k is turned first; turn NULL: as it is. */
void op_kv_write(struct device *dev, const struct op_kv *kv,
                 const struct op_seq *seqs, size_t seq_count, const float *k,
                 const float *v, const struct turn *turn);

/* out[t,h,:] = softmax(q[t,h,:] . K[0..pos(t), h*g/heads] * scale) V[...]
 *   q, out [t, heads, d]; q is turned first; the KV of this step is already
 * written; heads is a multiple of g, d <= OP_HEAD_DIM_MAX. Causal: row i of a
 * sequence sees its tokens 0 .. kv_len - rows + i; with a window (not 0) only
 * the last window of these, its own among them. q * scale is rounded as K was:
 * to bfloat16 (nearest even) where KV is BF16, each head to int8 where it is
 * KV8, whose products with K are integers. Sums in float32; KV is walked
 * in segments of 256 tokens at fixed positions, each reduced on its own and
 * merged in order, so the order of sums depends on the position alone.
 * Tolerance to ref: 2e-5 max|v| + 1e-5 |ref| while scores are below 100;
 * beyond, what a score's float32 rounding does to its exponential comes on
 * top. With BF16 and KV8 a device may round the softmax's weights to bfloat16
 * too, before it multiplies and sums them: then 4e-3 max|v| is added. Slots
 * of tokens that no row sees are not read.
 * Source: paged attention (Kwon 2023), online softmax (Milakov 2018), sliding
 * windows (Mistral 7B, 2023) as sliding_window of transformers counts them. */
struct query {
    const float *q;
    const struct turn *turn; /* NULL: q as it is */
    size_t heads;
    float scale;
    uint32_t window;
};
void op_attention(struct device *dev, float *out, const struct query *query,
                  const struct op_kv *kv, const struct op_seq *seqs,
                  size_t seq_count);

/* A mixture of experts, one layer of it. For each token the experts with the
 * used largest scores are chosen (of equals those of lower index), with
 *
 *     weight[e] = softmax(scores[t,:])[e]    and, where normed, divided by
 *                                            the sum of the chosen ones'
 *
 * and for them, in ascending order of e, what is computed in float32 is
 *
 *     x[t,:] += weight[e] * (silu(y[t,:] . gate[e]^T) * (y[t,:] . up[e]^T))
 *                           . down[e]^T
 *
 * with op_linear's inputs and products. room is device memory
 * for EXPERTS_ROOM floats, undefined before and after.
 *   x, y [t, n]; scores [t, count]; gate, up [f, n] and down [n, f] of each.
 * Source: Qwen3MoeSparseMoeBlock of transformers. */
struct experts {
    uint32_t count, used; /* 1 <= used <= count */
    bool normed;
    struct weight *const *gate, *const *up, *const *down; /* [count] host */
};
#define EXPERTS_ROOM(tokens, n, f, used)                       \
    (((tokens) > (used) ? (size_t)(tokens) : (size_t)(used)) * \
         ((size_t)(n) + 2 * (size_t)(f)) +                     \
     3 * (size_t)(tokens) * (size_t)(used))
void op_experts(struct device *dev, float *x, const float *y,
                const float *scores, size_t tokens, const struct experts *e,
                float *room);

/* out[i,:] = x[rows[i],:] for count rows of cols values; rows in host
 * memory. */
void op_gather(struct device *dev, float *out, const float *x,
               const uint32_t *rows, size_t count, size_t cols);

#endif
