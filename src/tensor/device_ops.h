/* tensor/device_ops.h - what a kind of device provides. Internal to tensor/:
 * callers use device.h and ops.h, whose functions check and forward.
 *
 * A backend embeds struct device and struct weight at the start of its own.
 * Contracts are those of device.h and ops.h; a member here has the name of
 * the function there. Arguments have been checked; t, rows, n are never 0. */
#ifndef BATON_TENSOR_DEVICE_OPS_H
#define BATON_TENSOR_DEVICE_OPS_H

#include "tensor/ops.h"
#include "tensor/trace.h"

struct device {
    const struct device_ops *ops;
    int threads;
    struct trace *trace; /* NULL: nobody asks */
    char text[128];      /* device_describe */
    char layout[64];     /* device_layout; "": none, then the three operations
                            that are about it may be NULL */
};

struct weight {
    struct device *dev;
    enum dtype type;
    size_t rows, cols;
    const void *bytes; /* [rows] of dtype_row_bytes(type, cols), or NULL */
};

struct device_ops {
    void (*close)(struct device *dev);
    int (*alloc)(struct device *dev, void **out, size_t bytes, struct why *why);
    void (*free)(struct device *dev, void *ptr);
    void (*write)(struct device *dev, void *to, const void *host, size_t n);
    void (*read)(struct device *dev, void *host, const void *from, size_t n);
    int (*sync)(struct device *dev, struct why *why);
    /* NULL: it has no workers on the host, the caller does it */
    void (*share)(struct device *dev, void (*fn)(void *, size_t, int),
                  void *arg, size_t count);
    /* NULL: it cannot say; how long all workers together computed so far,
     * counted while on. */
    uint64_t (*busy_ns)(struct device *dev, bool on);
    int (*reserve)(struct device *dev, size_t rows, size_t cols,
                   struct why *why);

    /* plain: dev, type, rows and cols, to be copied into *out. */
    int (*weight_create)(struct weight **out, const struct weight *plain,
                         const struct weight_rows *from, struct why *why);
    void (*weight_destroy)(struct weight *w);
    /* NULL: it puts nothing off */
    size_t (*weight_pack)(struct weight *w, size_t bytes);
    size_t (*packed_bytes)(enum dtype type, size_t rows, size_t cols);
    const void *(*packed)(const struct weight *w);
    int (*weight_map)(struct weight **out, const struct weight *plain,
                      const void *packed, struct why *why);

    void (*embed)(struct device *dev, float *out, const struct weight *table,
                  const int32_t *ids, size_t tokens);
    void (*rmsnorm)(struct device *dev, float *out, const float *x,
                    const float *gain, size_t rows, size_t cols, float eps);
    void (*linear)(struct device *dev, const struct input *x, size_t tokens,
                   const struct linear *list, size_t count);
    /* NULL: it does not care */
    void (*expect)(struct device *dev, size_t tokens, const struct linear *list,
                   size_t count);
    void (*kv_write)(struct device *dev, const struct op_kv *kv,
                     const struct op_seq *seqs, size_t seq_count,
                     const float *k, const float *v, const struct turn *turn);
    void (*attention)(struct device *dev, float *out, const struct query *query,
                      const struct op_kv *kv, const struct op_seq *seqs,
                      size_t seq_count);
    void (*experts)(struct device *dev, float *x, const float *y,
                    const float *scores, size_t tokens, const struct experts *e,
                    float *room);
    void (*gather)(struct device *dev, float *out, const float *x,
                   const uint32_t *rows, size_t count, size_t cols);
};

/* The rows of device.c's table. */
int device_ref_open(struct device **out, const struct device_options *options,
                    struct why *why);
int device_cpu_open(struct device **out, const struct device_options *options,
                    struct why *why);

/* Host memory, zeroed, aligned to 64 bytes, touched only as it is used; in
 * huge pages where it is large and the system has them. NULL: none left. */
void *host_alloc(size_t bytes);
void host_free(void *ptr); /* NULL is fine */

/* alloc, free, write, read and sync of devices that compute in host memory. */
int host_device_alloc(struct device *dev, void **out, size_t bytes,
                      struct why *why);
void host_device_free(struct device *dev, void *ptr);
void host_device_write(struct device *dev, void *to, const void *host,
                       size_t n);
void host_device_read(struct device *dev, void *host, const void *from,
                      size_t n);
int host_device_sync(struct device *dev, struct why *why);

/* Where row r is; room as weight_rows has it. */
const void *weight_row_at(const struct weight_rows *from, size_t r, size_t cols,
                          void *room);

/* The experts of each token, ascending, and their weights: [tokens, used]. */
void experts_choose(const struct experts *e, const float *scores, size_t tokens,
                    uint32_t *ids, float *weights);

/* The byte offset of token t of a sequence in one layer's K or V. */
static inline size_t kv_offset(const struct op_kv *kv, const uint32_t *pages,
                               size_t t)
{
    int shift = __builtin_ctz(kv->page_tokens); /* no division per token */
    size_t token =
        ((size_t)pages[t >> shift] << shift) + (t & (kv->page_tokens - 1));
    return token * op_kv_token_bytes(kv->type, kv->kv_heads, kv->head_dim);
}

#endif
