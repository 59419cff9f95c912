/* tensor/device.h - a place that holds tensors and computes on them.
 *
 * Kinds: "cpu" (fast kernels, chosen at run time by what the processor has)
 * and "ref" (the plain C twin that specifies every operation). A device is a
 * table of operations (tensor/ops.h has the contracts) plus memory; adding
 * one is a folder here and a row in device.c. One thread (the engine's) calls
 * a device; the device spreads the work over its own workers and every call
 * returns when its result is there, or, on an accelerator, is ordered behind
 * it (device_sync waits). */
#ifndef BATON_TENSOR_DEVICE_H
#define BATON_TENSOR_DEVICE_H

#include "base/err.h"
#include "tensor/tensor.h"

#include <stdbool.h>

struct device;

struct device_options {
    const char *kind; /* "auto", "cpu", "ref", "cuda", "ascend"            */
    int threads;      /* compute workers, 0: as many as usable cores       */
    const char *isa;  /* cpu: NULL for the best, or "avx2", "avx512", ...:
                         the most it may use (tests, comparisons)          */
};

/* ERR_UNSUPPORTED: a kind that this machine or build does not have. */
int device_open(struct device **out, const struct device_options *options,
                struct why *why);
void device_close(struct device *dev); /* weights first; NULL is fine */

/* "cpu avx512-vnni, 2 threads": for logs and /get_server_info. */
const char *device_describe(const struct device *dev);
int device_threads(const struct device *dev);

/* Zeroed device memory for activations, touched only as it is used. */
int device_alloc(struct device *dev, void **out, size_t bytes, struct why *why);
void device_free(struct device *dev, void *ptr);
/* Is its memory host memory, so that results can be read where they lie? */
bool device_is_host(const struct device *dev);
/* Copies between host and device memory, in order with the operations. */
void device_write(struct device *dev, void *to, const void *host, size_t n);
void device_read(struct device *dev, void *host, const void *from, size_t n);
/* Waits for all that was asked; ERR_IO and the reason when it failed. */
int device_sync(struct device *dev, struct why *why);

/* Host work for its workers, between operations: fn(arg, i, worker) once for
 * each i < count, worker < device_threads, no two calls of one worker at a
 * time. Which worker does what must not matter. */
void device_share(struct device *dev, void (*fn)(void *, size_t i, int worker),
                  void *arg, size_t count);

/* Room for activations: the most rows and columns (the widest input of any
 * op_linear) of one call. Before the first operation; may be repeated. */
int device_reserve(struct device *dev, size_t rows, size_t cols,
                   struct why *why);

/* A matrix [rows, cols] made ready for op_linear and op_embed. bytes are read
 * during the call only (they are usually a mapped file): the device packs a
 * copy as its kernels want it. ERR_UNSUPPORTED, ERR_NOMEM. */
struct weight;
int weight_create(struct weight **out, struct device *dev, enum dtype type,
                  size_t rows, size_t cols, const void *bytes, struct why *why);
/* The same of rows that are made on the way: row r is where row says, which may
 * be room (a row's bytes) that it fills; it is called on any of the device's
 * threads, several at a time. Rows are of the weight's type or, where
 * dtype_rounds, become it as dtype_decode and dtype_encode say. */
struct weight_rows {
    enum dtype type;
    /* bytes stay as they are until weight_pack returns 0, or weight_destroy:
     * the device may put off its copy, and what it has not packed when an
     * operation wants it is packed on the way, with the same results. */
    bool stay;
    const void *bytes; /* all rows, one after another; NULL: */
    const void *(*row)(void *arg, size_t r, void *room);
    void *arg;
};
int weight_create_from(struct weight **out, struct device *dev, enum dtype type,
                       size_t rows, size_t cols, const struct weight_rows *from,
                       struct why *why);
void weight_destroy(struct weight *w);
/* Packs so many bytes more (or some more than that) of a weight that the
 * device has put off, on its workers, between operations. How many; 0: all of
 * it is packed. */
size_t weight_pack(struct weight *w, size_t bytes);
/* Weights may outlive the process, in a file: the name of the form in which
 * this device keeps them (under equal names equal weights are equal bytes);
 * NULL: it cannot. The bytes of a weight in that form, and where they lie. */
const char *device_layout(const struct device *dev);
size_t weight_packed_bytes(const struct device *dev, enum dtype type,
                           size_t rows, size_t cols);
const void *weight_packed(const struct weight *w);
/* The weight that is these bytes, aligned to 64, which stay the caller's, and
 * as they are, until weight_destroy. */
int weight_map(struct weight **out, struct device *dev, enum dtype type,
               size_t rows, size_t cols, const void *packed, struct why *why);
size_t weight_rows(const struct weight *w);
size_t weight_cols(const struct weight *w);

#endif
