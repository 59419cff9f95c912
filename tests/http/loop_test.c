#include "tests/http/rig.h"

#include "base/mem.h"

#include <signal.h>

struct seen {
    struct rig rig;
    int count;
    struct loop_timer *timer;
    struct loop_watch *watch;
    int pipe[2];
};

static void count_post(void *arg)
{
    struct seen *seen = arg;
    seen->count++;
}

static void stop_loop(void *arg)
{
    struct seen *seen = arg;
    loop_stop(seen->rig.loop);
}

enum { POSTS = 5000 };

static void *post_many(void *arg)
{
    struct seen *seen = arg;
    for (int i = 0; i < POSTS; i++)
        while (loop_post(seen->rig.loop, count_post, seen) == ERR_AGAIN)
            sched_yield();
    return NULL;
}

static void posts_of_threads_all_arrive(void **state)
{
    (void)state;
    size_t before = mem_live();
    struct seen seen = {0};
    rig_init(&seen.rig);
    rig_run(&seen.rig);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, post_many, &seen);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    while (loop_post(seen.rig.loop, stop_loop, &seen))
        sched_yield();
    pthread_join(seen.rig.thread, NULL);
    assert_int_equal(seen.count, 3 * POSTS);
    loop_destroy(seen.rig.loop);
    inbox_destroy(seen.rig.words);
    assert_int_equal(mem_live(), before);
}

static void full_posts_are_refused(void **state)
{
    (void)state;
    struct seen seen = {0};
    rig_init(&seen.rig);
    int posted = 0;
    while (loop_post(seen.rig.loop, count_post, &seen) == 0)
        posted++;
    assert_int_equal(posted, 16384);
    loop_stop(seen.rig.loop); /* before the run: it returns after a turn */
    loop_run(seen.rig.loop);
    loop_destroy(seen.rig.loop); /* frees what was never called */
    inbox_destroy(seen.rig.words);
}

static void third_tick_stops(void *arg)
{
    struct seen *seen = arg;
    if (++seen->count < 3) return;
    loop_timer_destroy(seen->timer); /* its own callback may */
    seen->timer = NULL;
    loop_stop(seen->rig.loop);
}

static void never(void *arg)
{
    (void)arg;
    fail_msg("an unset timer fired");
}

static void timers_repeat_and_can_be_unset(void **state)
{
    (void)state;
    struct seen seen = {0};
    rig_init(&seen.rig);
    seen.timer = loop_timer_create(seen.rig.loop, third_tick_stops, &seen);
    loop_timer_set(seen.timer, 1, 1);
    struct loop_timer *unset = loop_timer_create(seen.rig.loop, never, NULL);
    loop_timer_set(unset, 1, 0);
    loop_timer_unset(unset);
    loop_run(seen.rig.loop);
    assert_int_equal(seen.count, 3);
    loop_timer_destroy(unset);
    loop_destroy(seen.rig.loop);
    inbox_destroy(seen.rig.words);
}

static void read_one(void *arg, unsigned ready)
{
    struct seen *seen = arg;
    char c;
    assert_int_equal(ready, LOOP_READ);
    assert_int_equal(read(seen->pipe[0], &c, 1), 1);
    if (c == 'x') {
        loop_watch_destroy(seen->watch);
        loop_stop(seen->rig.loop);
    } else {
        seen->count++;
    }
}

static void descriptors_are_watched_level_triggered(void **state)
{
    (void)state;
    struct seen seen = {0};
    rig_init(&seen.rig);
    assert_int_equal(pipe(seen.pipe), 0);
    assert_int_equal(write(seen.pipe[1], "abcx", 4), 4);
    assert_int_equal(loop_watch_create(&seen.watch, seen.rig.loop, seen.pipe[0],
                                       0, read_one, &seen),
                     0);
    loop_watch_set(seen.watch, LOOP_READ);
    loop_run(seen.rig.loop);
    assert_int_equal(seen.count, 3);
    struct loop_watch *bad;
    close(seen.pipe[0]);
    close(seen.pipe[1]);
    assert_int_equal(loop_watch_create(&bad, seen.rig.loop, seen.pipe[0],
                                       LOOP_READ, read_one, &seen),
                     ERR_IO);
    loop_destroy(seen.rig.loop);
    inbox_destroy(seen.rig.words);
}

static void *take_number(void *arg)
{
    struct seen *seen = arg;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* Relaxed: the loop is not told in an order that a race checker sees. */
    __atomic_store_n(&seen->pipe[1], fd, __ATOMIC_RELAXED);
    return NULL;
}

/* The watch is gone, and its number is another thread's socket before the
 * kernel has heard of either. */
static void let_go(void *arg, unsigned ready)
{
    struct seen *seen = arg;
    (void)ready;
    loop_watch_destroy(seen->watch);
    close(seen->pipe[0]);
    pthread_create(&seen->rig.thread, NULL, take_number, seen);
    while (__atomic_load_n(&seen->pipe[1], __ATOMIC_RELAXED) < 0)
        sched_yield();
    loop_timer_set(seen->timer, 1, 0);
}

static void a_number_let_go_may_be_anothers(void **state)
{
    (void)state;
    struct seen seen = {0};
    rig_init(&seen.rig);
    assert_int_equal(pipe(seen.pipe), 0);
    assert_int_equal(write(seen.pipe[1], "x", 1), 1);
    close(seen.pipe[1]);
    seen.pipe[1] = -1;
    assert_int_equal(loop_watch_create(&seen.watch, seen.rig.loop, seen.pipe[0],
                                       LOOP_READ, let_go, &seen),
                     0);
    seen.timer = loop_timer_create(seen.rig.loop, stop_loop, &seen);
    loop_run(seen.rig.loop);
    pthread_join(seen.rig.thread, NULL);
    assert_int_equal(seen.pipe[1], seen.pipe[0]);
    close(seen.pipe[1]);
    loop_timer_destroy(seen.timer);
    loop_destroy(seen.rig.loop);
    inbox_destroy(seen.rig.words);
}

static void note_signal(void *arg, int signal)
{
    struct seen *seen = arg;
    seen->count = signal;
    loop_stop(seen->rig.loop);
}

static void signals_arrive_in_the_loop(void **state)
{
    (void)state;
    struct seen seen = {0};
    rig_init(&seen.rig);
    const int signals[] = {SIGTERM, SIGUSR1};
    assert_int_equal(
        loop_signals(seen.rig.loop, signals, 2, note_signal, &seen, NULL), 0);
    kill(getpid(), SIGUSR1);
    loop_run(seen.rig.loop);
    assert_int_equal(seen.count, SIGUSR1);
    loop_destroy(seen.rig.loop);
    inbox_destroy(seen.rig.words);
}

TESTS(T(posts_of_threads_all_arrive), T(full_posts_are_refused),
      T(timers_repeat_and_can_be_unset),
      T(descriptors_are_watched_level_triggered),
      T(a_number_let_go_may_be_anothers), T(signals_arrive_in_the_loop))
