/* kv/pool.h - the fixed set of KV-cache pages that one process owns.
 *
 * A page holds page_tokens consecutive tokens of one sequence, for every
 * layer. The memory is layer-major, SGLang's order, because the wire needs it
 * (docs/wire.md) and so that runs of consecutive pages merge into one write:
 *
 *     buffer 0 .. layers-1:          K of layer 0, 1, ...
 *     buffer layers .. 2*layers-1:   V of layer 0, 1, ...
 *     each buffer: [page_count][page_tokens] of a token's K or V,
 *                  [kv_heads, head_dim] (DTYPE_KV8: and the heads' scales
 *                  behind them; tensor/ops.h)
 *
 * Page p of buffer b lies at kv_pool_buffer(pool, b) + p * page_bytes. Page 0
 * is padding: it is never given out. Pages are handed out lowest first among
 * those touched before, so that memory is touched only as it is needed.
 *
 * The slab is the caller's (shareable memory where there is a transfer
 * engine). One thread owns a pool (the engine's); nothing here locks. */
#ifndef BATON_KV_POOL_H
#define BATON_KV_POOL_H

#include "base/err.h"
#include "tensor/ops.h"

struct kv_pool;
typedef uint32_t kv_page; /* 1 .. page_count-1 */

struct kv_shape {
    uint32_t layers;      /* layers stored by this rank                    */
    uint32_t kv_heads;    /* K/V heads per layer on this rank              */
    uint32_t head_dim;    /* elements per head                             */
    uint32_t page_tokens; /* tokens per page, a power of two               */
    enum dtype type;      /* DTYPE_F32, F16, BF16 or KV8                    */
};

/* Bytes of one page in one buffer (item_len of the wire); of the slab of
 * page_count pages (padding page included); of one token in all layers.
 * 0 when a field is 0, page_tokens is no power of two, or it overflows. */
size_t kv_shape_page_bytes(const struct kv_shape *shape);
size_t kv_shape_slab_bytes(const struct kv_shape *shape, uint32_t page_count);
size_t kv_shape_token_bytes(const struct kv_shape *shape);

/* may_grow(arg, bytes): asked before pages never touched so far are handed
 * out, for bytes more of real memory; false fails that take with ERR_AGAIN
 * (its caller then evicts: pages that come back need no growth). NULL:
 * always. */
struct kv_pool_options {
    struct kv_shape shape;
    uint32_t page_count; /* with page 0, >= 2 */
    void *slab;          /* kv_shape_slab_bytes, zeroed, outlives the pool */
    bool (*may_grow)(void *arg, size_t bytes);
    void *arg;
};
int kv_pool_create(struct kv_pool **out, const struct kv_pool_options *options,
                   struct why *why);
void kv_pool_destroy(struct kv_pool *pool);

/* Takes n pages, each with one reference: all n or, with ERR_AGAIN, none.
 * ERR_AGAIN may come with n <= free_count when may_grow says no. A reference
 * to or a drop of a free page ends the process: wrong pages are worse. */
int kv_pool_take(struct kv_pool *pool, uint32_t n, kv_page *pages /* [n] */);
void kv_pool_ref(struct kv_pool *pool, kv_page page);
void kv_pool_drop(struct kv_pool *pool, kv_page page); /* last one frees */

const struct kv_shape *kv_pool_shape(const struct kv_pool *pool);
uint32_t kv_pool_page_count(const struct kv_pool *pool); /* with page 0 */
uint32_t kv_pool_free_count(const struct kv_pool *pool);
uint32_t kv_pool_refs(const struct kv_pool *pool, kv_page page);
uint32_t kv_pool_buffer_count(const struct kv_pool *pool); /* 2 * layers */
void *kv_pool_buffer(const struct kv_pool *pool, uint32_t buffer);
/* What op_kv_write and op_attention want for one layer. */
struct op_kv kv_pool_layer(const struct kv_pool *pool, uint32_t layer);

#endif
