/* model/arch.h - what the architectures share: the bound weights, the room
 * for activations, and the row that each adds to model.c's table. Internal to
 * model/.
 *
 * Letters in shapes: t tokens, h heads, g kv heads, d head size, f the
 * feed-forward size, n hidden, V vocabulary. */
#ifndef BATON_MODEL_ARCH_H
#define BATON_MODEL_ARCH_H

#include "model/model.h"

struct arch {
    const char *name;  /* GGUF's general.architecture, config's model_type */
    const char *class; /* config's architectures[0]                        */
    bool qk_norm;
    /* GGUF files of this architecture hold the rows of q and k in the order
     * of interleaved rope (pairs 2i, 2i+1); load.c puts them back. */
    bool gguf_interleaved;
    uint32_t head_dim, context; /* when config.json names none; 0: hidden/h */
    void (*forward)(struct model *m, const struct batch *b,
                    struct kv_pool *pool);
};
extern const struct arch arch_llama, arch_qwen3;

/* By name, or by class where name is NULL; NULL where there is none. */
const struct arch *arch_find(const char *name, const char *class);

struct layer {
    float *attn_norm;         /* [n] */
    struct weight *q, *k, *v; /* [h*d, n] [g*d, n] [g*d, n] */
    float *q_bias;            /* [h*d] NULL: none, as the next three */
    float *k_bias, *v_bias;   /* [g*d] */
    float *q_norm, *k_norm;   /* [d] */
    struct weight *o;         /* [n, h*d] */
    float *o_bias;            /* [n] */
    float *ffn_norm;          /* [n] */
    struct weight *gate, *up; /* [f, n] */
    struct weight *down;      /* [n, f] */
};

struct model {
    const struct arch *arch;
    struct model_config config;
    struct device *dev;
    struct load *load;    /* the files, and what was made of them */
    struct weight *embed; /* [V, n] */
    size_t embed_bytes;
    struct weight *head; /* [V, n], embed's where tied */
    float *final_norm;   /* [n] */
    struct layer *layers;
    struct rope rope;
    float *rope_freqs; /* [d/2] host */

    uint32_t max_tokens, max_logits;
    float *x;         /* [t, n] the residual stream                  */
    float *y;         /* [t, n] x normed, what the products read     */
    float *q, *k, *v; /* [t, h, d] [t, g, d] [t, g, d]               */
    float *a;         /* [t, h, d] what attention found              */
    float *gate, *up; /* [t, f]                                      */
    float *last;      /* [logit rows, n]                             */
    float *logits;    /* [logit rows, V] on the device               */
    float *host;      /* logits in host memory; NULL: they lie there */
    uint64_t fingerprint;
};

/* The steps that the forward passes share:
 * x = the embedding of the batch's ids;
 * x += down(silu(gate(y)) * up(y)) with y = norm(x), for t rows;
 * logits = head(norm(the asked rows of x)). */
void forward_embed(struct model *m, const struct batch *b);
void forward_swiglu(struct model *m, const struct layer *l, size_t t);
void forward_logits(struct model *m, const struct batch *b);

#endif
