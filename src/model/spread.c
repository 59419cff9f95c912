#include "model/spread.h"

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>

enum { MAX_THREADS = 64 };

struct share {
    void (*fn)(void *arg, size_t first, size_t end);
    void *arg;
    size_t first, end;
    pthread_t thread;
    bool started;
};

static void *run(void *arg)
{
    struct share *s = arg;
    if (s->first < s->end) s->fn(s->arg, s->first, s->end);
    return NULL;
}

static int usable_cores(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

void spread_rows(size_t rows, void (*fn)(void *arg, size_t first, size_t end),
                 void *arg)
{
    struct share shares[MAX_THREADS];
    size_t n = (size_t)usable_cores();
    if (n > MAX_THREADS) n = MAX_THREADS;
    size_t each = (rows / n + 7) / 8 * 8 + 8;
    for (size_t i = 0; i < n; i++) {
        size_t first = i * each < rows ? i * each : rows;
        size_t end = first + each < rows ? first + each : rows;
        shares[i] =
            (struct share){.fn = fn, .arg = arg, .first = first, .end = end};
        shares[i].started =
            i > 0 && first < end &&
            !pthread_create(&shares[i].thread, NULL, run, &shares[i]);
    }
    for (size_t i = 0; i < n; i++)
        if (!shares[i].started) run(&shares[i]);
    for (size_t i = 0; i < n; i++)
        if (shares[i].started) pthread_join(shares[i].thread, NULL);
}
