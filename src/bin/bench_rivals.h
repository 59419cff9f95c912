/* bin/bench_rivals.h - other programs that move bytes, run beside ours.
 *
 * Each is started as two child processes over loopback, measures itself, and
 * is read from what it prints. One that is not installed is no error. */
#ifndef BATON_BIN_BENCH_RIVALS_H
#define BATON_BIN_BENCH_RIVALS_H

#include "base/err.h"

struct rival {
    const char *name, *unit, *what;
    /* One measurement; python: for those that need one, or NULL.
     * ERR_NOT_FOUND: not installed. */
    int (*run)(const char *python, double *out, struct why *why);
};

/* "GB/s" (1e9 bytes) and "us" a write. */
extern const struct rival bench_rivals[];
extern const int bench_rival_count;

#endif
