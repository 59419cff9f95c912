/* The thread pool, and the limits measured with it. */
#include "tests/test.h"

#include "base/mem.h"
#include "tensor/cpu/pool.h"
#include "tensor/roofline.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>

struct sums {
    atomic_uint *seen; /* of each chunk */
    atomic_uint in_use[8];
    size_t plain[8]; /* not atomic: one caller at a time */
};

static void count(void *arg, size_t chunk, int worker)
{
    struct sums *s = arg;
    assert_int_equal(atomic_fetch_add(&s->in_use[worker], 1), 0);
    atomic_fetch_add(&s->seen[chunk], 1);
    s->plain[worker]++;
    atomic_fetch_sub(&s->in_use[worker], 1);
}

static void count_range(void *arg, size_t first, size_t n, int worker)
{
    assert_true(n > 0);
    for (size_t i = 0; i < n; i++)
        count(arg, first + i, worker);
}

/* One by one and in ranges, whoever takes them from whom. */
static void every_chunk_runs_once(void **state)
{
    (void)state;
    static const int threads[] = {1, 2, 3, 8};
    for (int i = 0; i < 4; i++) {
        struct pool *pool;
        struct pool_options options = {.threads = threads[i]};
        assert_int_equal(pool_create(&pool, &options, NULL), 0);
        assert_int_equal(pool_threads(pool), threads[i]);
        for (size_t n = 0; n < 400; n += 1 + n / 3) {
            struct sums sums = {.seen = mem_must(n, sizeof(atomic_uint))};
            for (unsigned round = 1; round <= 20; round++) {
                pool_run(pool, count, &sums, n);
                for (size_t c = 0; c < n; c++)
                    assert_int_equal(atomic_load(&sums.seen[c]), 2 * round - 1);
                pool_run_ranges(pool, count_range, &sums, n);
                for (size_t c = 0; c < n; c++)
                    assert_int_equal(atomic_load(&sums.seen[c]), 2 * round);
            }
            size_t all = 0;
            for (int w = 0; w < 8; w++)
                all += sums.plain[w];
            assert_int_equal(all, 2 * 20 * n);
            mem_free(sums.seen);
        }
        pool_destroy(pool);
    }
}

/* The one that holds the first chunk waits until others have taken all
 * that is left, of its own share too. */
struct held {
    struct pool *pool;
    atomic_size_t left;
};

static void hold(void *arg, size_t first, size_t n, int worker)
{
    struct held *h = arg;
    (void)worker;
    atomic_fetch_sub(&h->left, n);
    while (first == 0 && atomic_load(&h->left))
        sched_yield();
}

static void what_a_held_worker_has_left_is_taken(void **state)
{
    (void)state;
    struct held h = {0};
    struct pool_options options = {.threads = 3};
    assert_int_equal(pool_create(&h.pool, &options, NULL), 0);
    for (int round = 0; round < 100; round++) {
        atomic_store(&h.left, 100);
        pool_run_ranges(h.pool, hold, &h, 100);
        assert_int_equal(atomic_load(&h.left), 0);
    }
    pool_destroy(h.pool);
}

/* What each chunk writes is there afterwards, without a lock of ours. */
static void square(void *arg, size_t chunk, int worker)
{
    (void)worker;
    ((size_t *)arg)[chunk] = chunk * chunk;
}

static void results_are_visible_and_pools_are_cheap(void **state)
{
    (void)state;
    size_t before = mem_live(), squares[64];
    for (int i = 0; i < 50; i++) {
        struct pool *pool;
        struct pool_options options = {.threads = 2 + i % 3, .spin_us = i % 2};
        assert_int_equal(pool_create(&pool, &options, NULL), 0);
        for (int round = 0; round < 20; round++) {
            memset(squares, 0, sizeof squares);
            pool_run(pool, square, squares, 64);
            for (size_t c = 0; c < 64; c++)
                assert_int_equal(squares[c], c * c);
        }
        pool_destroy(pool);
    }
    assert_int_equal(mem_live(), before);
}

/* Memory that workers read ahead may go as soon as they were told to end. */
static void what_is_read_ahead_may_go(void **state)
{
    (void)state;
    static const int threads[] = {1, 2, 3};
    enum { BYTES = 1 << 20, ROUNDS = 500 };
    for (int i = 0; i < 3; i++) {
        struct pool *pool;
        struct pool_options options = {.threads = threads[i], .spin_us = 1000};
        assert_int_equal(pool_create(&pool, &options, NULL), 0);
        for (int round = 0; round < ROUNDS; round++) {
            size_t squares[8];
            char *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            assert_true(p != MAP_FAILED);
            for (int w = 0; w < threads[i]; w++)
                pool_ahead(pool, w, p, BYTES);
            for (int job = 0; job < round % 3; job++) /* told only, or read */
                pool_run(pool, square, squares, 8);
            pool_ahead_end(pool);
            assert_int_equal(munmap(p, BYTES), 0);
            pool_run(pool, square, squares, 8);
        }
        pool_destroy(pool);
    }
}

struct meeting {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int here;
};

/* Two chunks that wait for each other: only two threads can finish them, so
 * a sleeping worker must have been woken. */
static void meet(void *arg, size_t chunk, int worker)
{
    (void)chunk, (void)worker;
    struct meeting *m = arg;
    pthread_mutex_lock(&m->lock);
    m->here++;
    pthread_cond_broadcast(&m->changed);
    while (m->here % 2)
        pthread_cond_wait(&m->changed, &m->lock);
    pthread_mutex_unlock(&m->lock);
}

static void sleepers_are_woken(void **state)
{
    (void)state;
    struct pool *pool;
    struct pool_options options = {.threads = 2, .spin_us = 1};
    assert_int_equal(pool_create(&pool, &options, NULL), 0);
    struct meeting m = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0};
    for (int i = 0; i < 300; i++)
        pool_run(pool, meet, &m, 2);
    assert_int_equal(m.here, 600);
    pool_destroy(pool);
}

static void a_pool_that_cannot_be_is_refused(void **state)
{
    (void)state;
    struct pool *pool;
    struct why why = {0};
    struct pool_options options = {.threads = 0};
    assert_int_equal(pool_create(&pool, &options, &why), ERR_INVALID);
    options.threads = 1 << 20;
    assert_int_equal(pool_create(&pool, &options, &why), ERR_INVALID);
    options.threads = 2;
    for (size_t n = 1; n <= 2; n++) {
        mem_fail_at(n);
        assert_int_equal(pool_create(&pool, &options, &why), ERR_NOMEM);
        assert_null(pool);
    }
    mem_fail_at(0);
    pool_destroy(NULL);
    assert_true(pool_usable_cores() >= 1);
}

static void the_roofline_has_all_its_parts(void **state)
{
    (void)state;
    struct roofline r;
    struct why why = {0};
    assert_int_equal(roofline_measure(2, NULL, &r, &why), 0);
    assert_int_equal(r.threads, 2);
    assert_true(r.read_gb_s > 0.01 && r.f32_gflop_s > 0.01);
    assert_true(r.int8_gop_s > 0.01 && r.read_bytes >= 1 << 20 && r.isa[0]);
    printf("2 threads, %s: read %.1f GB/s, f32 %.0f GFLOP/s, int8 %.0f GOP/s\n",
           r.isa, r.read_gb_s, r.f32_gflop_s, r.int8_gop_s);
    assert_true(r.bf16_gflop_s == 0 || r.bf16_gflop_s > 0.01);
    assert_int_equal(roofline_measure(-1, NULL, &r, &why), ERR_INVALID);
}

static void a_reader_counts_what_it_reads(void **state)
{
    (void)state;
    struct reader *r;
    struct why why = {0};
    assert_int_equal(reader_create(&r, 2, NULL, &why), 0);
    assert_true(reader_rate(r) == 0);
    for (int i = 0; i < 9; i++) /* to the end of its memory, and on */
        reader_read(r);
    assert_true(reader_rate(r) > 0.01);
    assert_true(reader_rate(r) == 0);
    reader_destroy(r);
    assert_int_equal(reader_create(&r, 1, "avx1024", &why), ERR_INVALID);
    assert_null(r);
    reader_destroy(r);
}

TESTS(T(every_chunk_runs_once), T(what_a_held_worker_has_left_is_taken),
      T(results_are_visible_and_pools_are_cheap), T(what_is_read_ahead_may_go),
      T(sleepers_are_woken), T(a_pool_that_cannot_be_is_refused),
      T(the_roofline_has_all_its_parts), T(a_reader_counts_what_it_reads))
