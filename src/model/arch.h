/* model/arch.h - what the architectures share: the bound weights, the room
 * for activations, and the row that each adds to model.c's table. Internal to
 * model/.
 *
 * Letters in shapes: t tokens, h heads, g kv heads, d head size, f the
 * feed-forward size, n hidden, V vocabulary. */
#ifndef BATON_MODEL_ARCH_H
#define BATON_MODEL_ARCH_H

#include "model/model.h"

/* How a config speaks of sliding windows. */
enum arch_window {
    ARCH_WINDOW_NEVER,  /* not at all */
    ARCH_WINDOW_LATER,  /* switched on for layers from max_window_layers on */
    ARCH_WINDOW_ALL,    /* switched on for all layers */
    ARCH_WINDOW_ALWAYS, /* all layers, where sliding_window is not null */
};

struct arch {
    const char *name;  /* config's model_type */
    const char *gguf;  /* GGUF's general.architecture; NULL: none of its own */
    const char *class; /* config's architectures[0] */
    bool qk_norm;
    bool qkv_bias; /* q, k and v always have a bias, o never has */
    bool experts;  /* feed-forward layers may be mixtures of experts */
    enum arch_window window;
    /* GGUF files of this architecture hold the rows of q and k in the order
     * of interleaved rope (pairs 2i, 2i+1); load.c puts them back. */
    bool gguf_interleaved;
    uint32_t head_dim, context; /* when config.json names none; 0: hidden/h */
    void (*forward)(struct model *m, const struct batch *b,
                    struct kv_pool *pool);
};
extern const struct arch arch_llama, arch_mistral, arch_qwen2, arch_qwen3,
    arch_qwen3_moe;

/* By name, or by class where name is NULL; NULL where there is none. */
const struct arch *arch_find(const char *name, const char *class);
const struct arch *arch_find_gguf(const char *gguf);
/* All names (or classes) into text, for people; returns text. */
char *arch_list(bool classes, char *text, size_t n);

struct layer {
    float *attn_norm;           /* [n] */
    struct weight *q, *k, *v;   /* [h*d, n] [g*d, n] [g*d, n] */
    float *q_bias;              /* [h*d] NULL: none, as all biases */
    float *k_bias, *v_bias;     /* [g*d] */
    float *q_norm, *k_norm;     /* [d] */
    struct weight *o;           /* [n, h*d] */
    float *o_bias;              /* [n] */
    float *ffn_norm;            /* [n] */
    struct weight *gate, *up;   /* [f, n] */
    struct weight *down;        /* [n, f] */
    float *gate_bias, *up_bias; /* [f] */
    float *down_bias;           /* [n] */
    /* Instead of these three, where router is not NULL: */
    struct weight *router; /* [experts, n] */
    struct experts experts;
    struct weight **expert_weights; /* what experts points into */
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
    /* One block of device memory, and where its arrays lie in this step. q, k,
     * v and a share their place with gate and up, and with room. */
    float *activations;
    float *x;         /* [t, n] the residual stream                  */
    float *y;         /* [t, n] x normed, of experts; else the asked
                       * rows, [logit rows, n]                         */
    float *scores;    /* [t, experts] the router's                   */
    float *q, *k, *v; /* [t, h, d] [t, g, d] [t, g, d]               */
    float *a;         /* [t, h, d] what attention found              */
    float *gate, *up; /* [t, f]                                      */
    float *room;      /* of op_experts                               */
    float *last;      /* [logit rows, n]                             */
    float *logits;    /* [logit rows, V] on the device               */
    float *host;      /* logits in host memory; NULL: they lie there */
    struct asked {    /* see forward_asked; arrays of [logit rows]   */
        struct batch batch;
        struct op_seq *seqs;
        uint32_t *positions, *rows;
    } asked;
    uint64_t fingerprint;
};

/* What the products of attention, and of the feed-forward part, read:
 * norm(x). How heads of q or k are turned, gain NULL: without a norm. */
struct input attention_input(const struct model *m, const struct layer *l);
struct input ffn_input(const struct model *m, const struct layer *l);
struct turn head_turn(const struct model *m, const struct batch *b,
                      const float *gain);

/* Of a batch's last layer all rows' k and v are wanted (of later tokens'
 * attention), and for the rest only the rows whose logits are asked. Whether
 * some are not, so that layer i has to tell them apart; makes x that of the
 * asked rows, and returns the batch of them. */
bool forward_parts(const struct model *m, const struct batch *b, uint32_t i);
const struct batch *forward_asked(struct model *m, const struct batch *b);

/* The steps that the forward passes share:
 * x = the embedding of the batch's ids;
 * x += down(silu(gate(y)) * up(y)) with y = norm(x), for t rows;
 * the same of the experts that each row chooses;
 * logits = head(norm(the asked rows of x)). */
void forward_embed(struct model *m, const struct batch *b);
void forward_swiglu(struct model *m, const struct layer *l, size_t t);
void forward_experts(struct model *m, const struct layer *l, size_t t);
void forward_logits(struct model *m, const struct batch *b);

/* Tells the device that layer l's products, of its attention or of its
 * feed-forward part, come after the next operation; l may be past the last
 * layer, then it is the head. */
void expect_attention(struct model *m, const struct layer *l, size_t t);
void expect_ffn(struct model *m, const struct layer *l, size_t t);

/* Passes that several rows of the table share. */
void llama_forward(struct model *m, const struct batch *b,
                   struct kv_pool *pool);
/* x += o(attention(y)) with y = norm(x), of layer i, heads normed. Returns the
 * rows that go on: b, or after the last layer's those that are asked. */
const struct batch *qwen3_attention(struct model *m, const struct batch *b,
                                    struct kv_pool *pool, uint32_t i);

/* The window of layer i, 0: none. */
static inline uint32_t layer_window(const struct model_config *c, uint32_t i)
{
    return layer_set_has(&c->sliding, i) ? c->window : 0;
}

#endif
