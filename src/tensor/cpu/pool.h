/* tensor/cpu/pool.h - workers that share one job at a time.
 *
 * pool_run cuts a job into chunks 0 .. count-1 that whoever is free takes
 * next; the caller works too, so a job never waits for a worker to wake up,
 * only for chunks that are already under way. Which thread computes a chunk
 * must not matter for its result.
 *
 * Idle workers watch for the next job for a few tens of microseconds, then
 * sleep in the kernel: an idle machine stays idle, and a competing process
 * costs its share and no more. One thread at a time calls pool_run.
 *
 * Where cores belong to several nodes (base/nodes.h), workers are spread over
 * the nodes and each stays on its own. A job's chunks are shared out in order,
 * so what two jobs walk in the same order is near to those who walk it: first
 * touched by a job, memory lies where later ones read it. */
#ifndef BATON_TENSOR_CPU_POOL_H
#define BATON_TENSOR_CPU_POOL_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pool;

struct pool_options {
    int threads; /* the caller included, >= 1                        */
    int spin_us; /* how long to watch before sleeping; 0: the default */
};

/* ERR_NOMEM, ERR_IO (no thread). */
int pool_create(struct pool **out, const struct pool_options *options,
                struct why *why);
void pool_destroy(struct pool *pool); /* NULL is fine */
int pool_threads(const struct pool *pool);
int pool_nodes(const struct pool *pool); /* that its workers stay on, or 1 */

/* Calls fn(arg, chunk, worker) once for each chunk < count; worker is below
 * pool_threads and no two calls with the same one overlap (so it may index
 * scratch memory). Returns when all are done; what they wrote is visible. Of
 * several nodes the caller stays on worker 0's from then on. */
void pool_run(struct pool *pool, void (*fn)(void *, size_t chunk, int worker),
              void *arg, size_t count);

/* The same in ranges: fn(arg, first, count, worker) is called with chunks
 * first .. first + count - 1, each of which is in one range. A worker takes
 * half of what its share has left, then half of that: long ranges where
 * there is much to do, single chunks at the end, where nobody should wait.
 * count of a call is never 0; without other workers there is one call. */
void pool_run_ranges(struct pool *pool,
                     void (*fn)(void *, size_t first, size_t count, int worker),
                     void *arg, size_t count);

/* As pool_run, but each chunk is run on the node whose workers take it first in
 * other jobs of as many bytes: for memory that is touched for the first
 * time. */
void pool_run_near(struct pool *pool,
                   void (*fn)(void *, size_t chunk, int worker), void *arg,
                   size_t count);

/* The calling thread may run on all cores again that it could use before
 * pool_run: for one that calls now and then, and starts other threads. */
void pool_leave(void);

/* What worker will read first in a job that is to come. Having done its part
 * of the next pool_run of several chunks it reads that into its cache while it
 * waits, until pool_ahead_end at the latest. */
void pool_ahead(struct pool *pool, int worker, const void *at, size_t bytes);

/* Nobody reads any of that any more, nor will: before such memory is given
 * back. By the thread that calls pool_run. */
void pool_ahead_end(struct pool *pool);

/* How long the workers together have been in fn so far, counted while on. */
uint64_t pool_busy_ns(struct pool *pool, bool on);

/* Cores this process may use: its affinity mask and its cgroup's quota. */
int pool_usable_cores(void);

#endif
