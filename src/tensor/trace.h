/* tensor/trace.h - where the time of a device's operations goes.
 *
 * A device that is told to adds up, for each operation and each shape of
 * products, how often it ran, for how long, and for how much of that its
 * workers computed: what is left of workers * ns they waited for each other,
 * woke up, or looked on while one worked alone. */
#ifndef BATON_TENSOR_TRACE_H
#define BATON_TENSOR_TRACE_H

#include "tensor/device.h"

struct trace_row {
    const char *op; /* "linear", "attention", ... */
    /* Of products: all rows of the list, its columns, its first format. */
    size_t rows, cols;
    enum dtype type;
    uint64_t calls, ns;
    uint64_t busy_ns; /* of all workers together; 0: the device cannot say */
    uint64_t bytes;   /* weights that products read */
    uint64_t ops;     /* multiplications and additions of products, attention */
};

enum { TRACE_ROWS = 32 }; /* what comes later is not counted */
struct trace {
    size_t count;
    struct trace_row rows[TRACE_ROWS]; /* in order of first calls */
};

/* From now on; NULL: no more. The trace is the caller's; zeros begin it. */
void device_trace(struct device *dev, struct trace *trace);

#endif
