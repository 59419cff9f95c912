#include "tests/test.h"

#include "tests/xfer/stranger.h"
#include "xfer/store.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { MS = 10000 };

struct fixture {
    struct xfer_store *store;
    struct xfer_store_client *a, *b;
};

static void start(struct fixture *f)
{
    struct why why = {0};
    if (xfer_store_serve("tcp://127.0.0.1:0", NULL, &f->store, &why) ||
        xfer_store_connect(xfer_store_url(f->store), NULL, MS, &f->a, &why) ||
        xfer_store_connect(xfer_store_url(f->store), NULL, MS, &f->b, &why))
        fail_msg("%s", why.text);
}

static void stop(struct fixture *f)
{
    xfer_store_disconnect(f->a);
    xfer_store_disconnect(f->b);
    xfer_store_stop(f->store);
}

static void expect(struct xfer_store_client *c, const char *key,
                   const char *value)
{
    char *got;
    size_t n;
    assert_int_equal(xfer_store_get(c, key, 0, MS, &got, &n, NULL), 0);
    assert_int_equal(n, strlen(value));
    assert_string_equal(got, value);
    xfer_store_free(got);
}

static void values_are_kept_for_all(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    char *got;
    int64_t number;
    uint64_t total;
    assert_int_equal(xfer_store_get(f.a, "k", 0, MS, &got, NULL, NULL),
                     ERR_NOT_FOUND);
    assert_int_equal(xfer_store_set(f.a, "k", "one", 3, MS, NULL), 0);
    expect(f.b, "k", "one");
    assert_int_equal(xfer_store_append(f.b, "k", "+two", 4, MS, &total, NULL),
                     0);
    assert_int_equal(total, 7);
    expect(f.a, "k", "one+two");
    assert_int_equal(xfer_store_add(f.a, "n", 5, MS, &number, NULL), 0);
    assert_int_equal(xfer_store_add(f.b, "n", -7, MS, &number, NULL), 0);
    assert_int_equal(number, -2);
    expect(f.a, "n", "-2");
    assert_int_equal(xfer_store_add(f.a, "k", 1, MS, &number, NULL),
                     ERR_FORMAT);
    assert_int_equal(xfer_store_add(f.a, "n", INT64_MIN, MS, &number, NULL),
                     ERR_RANGE);
    assert_int_equal(xfer_store_remove(f.a, "k", MS, NULL), 0);
    assert_int_equal(xfer_store_remove(f.b, "k", MS, NULL), ERR_NOT_FOUND);
    stop(&f);
}

static void tables_are_written_in_pieces(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    char *got;
    size_t n;
    uint64_t now;
    assert_int_equal(xfer_store_write(f.a, "t", 6, "xy", 2, MS, &now, NULL), 0);
    assert_int_equal(now, 8);
    assert_int_equal(xfer_store_write(f.b, "t", 1, "ab", 2, MS, &now, NULL), 0);
    assert_int_equal(now, 8);
    assert_int_equal(xfer_store_get(f.a, "t", 0, MS, &got, &n, NULL), 0);
    assert_int_equal(n, 8);
    assert_memory_equal(got, "\0ab\0\0\0xy", 8);
    xfer_store_free(got);
    assert_int_equal(xfer_store_write(f.a, "t", 8, "", 0, MS, &now, NULL), 0);
    assert_int_equal(now, 8);
    uint64_t end = 10 << 20;
    assert_int_equal(xfer_store_write(f.a, "t", end, "z", 1, MS, NULL, NULL),
                     ERR_RANGE);
    assert_int_equal(
        xfer_store_write(f.a, "t", UINT64_MAX, "z", 1, MS, NULL, NULL),
        ERR_RANGE);
    assert_int_equal(
        xfer_store_write(f.a, "t", end - 1, "z", 1, MS, &now, NULL), 0);
    assert_int_equal(now, end);
    stop(&f);
}

static void cas_swaps_only_what_was_expected(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    char *found;
    size_t n;
    struct xfer_store_bytes none = {NULL, 0}, x = {"x", 1}, y = {"y", 1};
    assert_int_equal(xfer_store_cas(f.a, "c", none, x, MS, &found, &n, NULL),
                     0);
    assert_int_equal(n, 0); /* was absent, so it is x now */
    xfer_store_free(found);
    assert_int_equal(xfer_store_cas(f.b, "c", y, y, MS, &found, &n, NULL), 0);
    assert_string_equal(found, "x");
    xfer_store_free(found);
    expect(f.a, "c", "x");
    assert_int_equal(xfer_store_cas(f.b, "c", x, y, MS, &found, &n, NULL), 0);
    xfer_store_free(found);
    expect(f.a, "c", "y");
    stop(&f);
}

static void binary_and_large_values(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    size_t n = (10 << 20) - 7, got_n;
    char *big = malloc(n + 1000), *got;
    struct why why = {0};
    for (size_t i = 0; i < n; i += 100000)
        memset(big + i, (int)(i >> 13), n - i < 100000 ? n - i : 100000);
    assert_int_equal(xfer_store_set(f.a, "big", big, n, MS, NULL), 0);
    assert_int_equal(xfer_store_get(f.b, "big", 0, MS, &got, &got_n, NULL), 0);
    assert_int_equal(got_n, n);
    assert_memory_equal(got, big, n);
    xfer_store_free(got);
    assert_int_equal(xfer_store_append(f.a, "big", big, 1000, MS, NULL, &why),
                     ERR_RANGE);
    assert_int_equal(xfer_store_set(f.a, "big", big, n + 1000, MS, &why),
                     ERR_RANGE);
    /* The store as a whole has a limit too; then it still serves. */
    int rc = 0;
    for (int i = 0; i < 40 && !rc; i++) {
        char key[16];
        snprintf(key, sizeof key, "big%d", i);
        rc = xfer_store_set(f.a, key, big, n, MS, &why);
    }
    assert_int_equal(rc, ERR_NOMEM);
    assert_int_equal(xfer_store_remove(f.a, "big0", MS, NULL), 0);
    assert_int_equal(xfer_store_set(f.a, "big", big, n, MS, NULL), 0);
    free(big);
    stop(&f);
}

struct getter {
    struct xfer_store_client *client;
    char *value;
    int rc;
};

static void *get_later(void *arg)
{
    struct getter *g = arg;
    g->rc = xfer_store_get(g->client, "later", 1, MS, &g->value, NULL, NULL);
    return NULL;
}

static void wait_for(sem_t *called)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 60;
    if (sem_timedwait(called, &until)) fail_msg("nobody called");
}

struct watcher {
    sem_t called;
    char value[32];
    int rc, count;
};

static void on_value(void *arg, int rc, const void *value, size_t n)
{
    struct watcher *w = arg;
    w->rc = rc;
    w->count++;
    if (!rc)
        snprintf(w->value, sizeof w->value, "%.*s", (int)n,
                 (const char *)value);
    sem_post(&w->called);
}

static void waiting_ends_with_the_key(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    struct getter g = {.client = f.a};
    struct watcher w = {.rc = 1}, never = {.rc = 1};
    pthread_t thread;
    struct why why = {0};
    char *got;
    sem_init(&w.called, 0, 0);
    sem_init(&never.called, 0, 0);
    assert_int_equal(xfer_store_get(f.a, "later", 1, 30, &got, NULL, &why),
                     ERR_TIMEOUT);
    assert_int_equal(xfer_store_watch(f.a, "later", on_value, &w, &why), 0);
    assert_int_equal(xfer_store_watch(f.b, "never", on_value, &never, &why), 0);
    pthread_create(&thread, NULL, get_later, &g);
    /* A client that waits can still ask. */
    assert_int_equal(xfer_store_set(f.a, "other", "1", 1, MS, NULL), 0);
    assert_int_equal(xfer_store_set(f.b, "later", "now", 3, MS, NULL), 0);
    pthread_join(thread, NULL);
    assert_int_equal(g.rc, 0);
    assert_string_equal(g.value, "now");
    xfer_store_free(g.value);
    wait_for(&w.called);
    assert_string_equal(w.value, "now");
    stop(&f);
    assert_int_equal(w.count, 1);
    assert_int_equal(never.rc, ERR_CANCELED);
    sem_destroy(&w.called);
    sem_destroy(&never.called);
}

/* Waits until w was called with value. */
static void watcher_expect(struct watcher *w, const char *value)
{
    wait_for(&w->called);
    assert_int_equal(w->rc, 0);
    assert_string_equal(w->value, value);
}

static void who_announces_is_there_while_connected(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    struct xfer_store_client *c;
    struct watcher w = {.rc = 1};
    struct why why = {0};
    char *got;
    sem_init(&w.called, 0, 0);
    const char *url = xfer_store_url(f.store);
    assert_int_equal(xfer_store_watch_left(f.b, "who/", on_value, &w, &why), 0);
    assert_int_equal(xfer_store_connect(url, NULL, MS, &c, &why), 0);
    assert_int_equal(xfer_store_announce(c, "other/c", "1", 1, &why), 0);
    assert_int_equal(xfer_store_announce(c, "who/c", "here", 4, &why), 0);
    assert_int_equal(xfer_store_get(f.a, "who/c", 1, MS, &got, NULL, NULL), 0);
    assert_string_equal(got, "here");
    xfer_store_free(got);
    /* What was announced, then set by somebody else, is nobody's. */
    assert_int_equal(xfer_store_announce(c, "who/b", "c", 1, &why), 0);
    assert_int_equal(xfer_store_get(f.a, "who/b", 1, MS, &got, NULL, NULL), 0);
    xfer_store_free(got);
    assert_int_equal(xfer_store_set(f.a, "who/b", "set", 3, MS, NULL), 0);
    xfer_store_disconnect(c);
    watcher_expect(&w, "who/c");
    assert_int_equal(xfer_store_get(f.a, "who/c", 0, MS, &got, NULL, NULL),
                     ERR_NOT_FOUND);
    assert_int_equal(xfer_store_get(f.a, "other/c", 0, MS, &got, NULL, NULL),
                     ERR_NOT_FOUND);
    expect(f.a, "who/b", "set");
    /* The next one is told too. */
    assert_int_equal(xfer_store_connect(url, NULL, MS, &c, &why), 0);
    assert_int_equal(xfer_store_announce(c, "who/d", "", 0, &why), 0);
    assert_int_equal(xfer_store_get(f.a, "who/d", 1, MS, &got, NULL, NULL), 0);
    xfer_store_free(got);
    xfer_store_disconnect(c);
    watcher_expect(&w, "who/d");
    stop(&f);
    assert_int_equal(w.rc, ERR_CANCELED);
    assert_int_equal(w.count, 3);
    sem_destroy(&w.called);
}

/* A client that says nothing any more is taken for dead: its announcement
 * goes, and nobody waited for it meanwhile. */
static void a_silent_client_is_dropped(void **state)
{
    (void)state;
    struct fixture f;
    int pipe_fds[2];
    char url[100] = "";
    assert_int_equal(pipe(pipe_fds), 0);
    pid_t child = fork(); /* while this process has no threads */
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        struct xfer_store_client *c;
        if (read(pipe_fds[0], url, sizeof url - 1) <= 0 ||
            xfer_store_connect(url, NULL, MS, &c, NULL) ||
            xfer_store_announce(c, "who/child", "1", 1, NULL))
            _exit(1);
        for (;;)
            pause();
    }
    start(&f);
    struct watcher w = {.rc = 1};
    struct why why = {0};
    char *got;
    sem_init(&w.called, 0, 0);
    assert_int_equal(xfer_store_watch_left(f.b, "who/", on_value, &w, &why), 0);
    snprintf(url, sizeof url, "%s", xfer_store_url(f.store));
    assert_true(write(pipe_fds[1], url, strlen(url)) > 0);
    assert_int_equal(xfer_store_get(f.a, "who/child", 1, MS, &got, NULL, NULL),
                     0);
    xfer_store_free(got);
    kill(child, SIGSTOP);
    watcher_expect(&w, "who/child"); /* after 5 s */
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    stop(&f);
    sem_destroy(&w.called);
}

static int dial(const char *url)
{
    return stranger_dial(atoi(strrchr(url, ':') + 1));
}

static void strangers_stop_nobody(void **state)
{
    (void)state;
    struct fixture f;
    start(&f);
    const char *url = xfer_store_url(f.store);
    int silent[100];
    for (int i = 0; i < 100; i++)
        silent[i] = dial(url);
    int rude = dial(url);
    assert_int_equal(
        send(rude, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27, MSG_NOSIGNAL), 27);
    stranger_expect_closed(rude);
    /* A length of 4 GiB, and a request before hello. */
    static const unsigned char giant[16] = {0xff, 0xff, 0xff, 0xff, 16};
    static const unsigned char early[16] = {16, 0, 0, 0, 17};
    int fds[2] = {dial(url), dial(url)};
    assert_int_equal(send(fds[0], giant, 16, MSG_NOSIGNAL), 16);
    assert_int_equal(send(fds[1], early, 16, MSG_NOSIGNAL), 16);
    assert_int_equal(send(fds[1], early, 16, MSG_NOSIGNAL), 16);
    stranger_expect_closed(fds[0]);
    stranger_expect_closed(fds[1]);
    assert_int_equal(xfer_store_set(f.a, "k", "v", 1, MS, NULL), 0);
    expect(f.b, "k", "v");
    struct xfer_store_client *late;
    assert_int_equal(xfer_store_connect(url, NULL, MS, &late, NULL), 0);
    expect(late, "k", "v");
    xfer_store_disconnect(late);
    for (int i = 0; i < 100; i++)
        stranger_expect_closed(silent[i]); /* after a second at the latest */
    stop(&f);
}

static void expect_later(struct xfer_store_client *c, const char *key,
                         const char *value)
{
    char *got;
    assert_int_equal(xfer_store_get(c, key, 1, MS, &got, NULL, NULL), 0);
    assert_string_equal(got, value);
    xfer_store_free(got);
}

static void a_second_server_becomes_a_client(void **state)
{
    (void)state;
    struct xfer_store *store, *second;
    struct xfer_store_client *c;
    struct why why = {0};
    char url[64];
    assert_int_equal(xfer_store_serve("tcp://127.0.0.1:0", NULL, &store, &why),
                     0);
    snprintf(url, sizeof url, "%s", xfer_store_url(store));
    assert_int_equal(xfer_store_serve(url, NULL, &second, &why), ERR_EXISTS);
    assert_null(second);
    assert_int_equal(xfer_store_connect(url, NULL, MS, &c, &why), 0);
    struct watcher w = {.rc = 1};
    sem_init(&w.called, 0, 0);
    assert_int_equal(xfer_store_watch(c, "k", on_value, &w, &why), 0);
    assert_int_equal(xfer_store_announce(c, "me", "here", 4, &why), 0);
    expect_later(c, "me", "here");
    /* The server goes: calls say so; it comes back: they work again. */
    xfer_store_stop(store);
    int rc = ERR_TIMEOUT; /* it may not have heard of it yet */
    for (int tries = 0; rc == ERR_TIMEOUT && tries < 200; tries++)
        rc = xfer_store_set(c, "k", "v", 1, 50, &why);
    assert_int_equal(rc, ERR_PEER);
    assert_non_null(strstr(why.text, url));
    assert_int_equal(xfer_store_serve(url, NULL, &store, &why), 0);
    assert_int_equal(xfer_store_set(c, "k", "v", 1, MS, &why), 0);
    wait_for(&w.called);
    assert_string_equal(w.value, "v");
    sem_destroy(&w.called);
    expect_later(c, "me", "here"); /* announced anew */
    xfer_store_disconnect(c);
    xfer_store_stop(store);
    /* A client may come before its server. */
    assert_int_equal(xfer_store_open(url, NULL, &c, &why), 0);
    assert_int_equal(xfer_store_announce(c, "me", "early", 5, &why), 0);
    assert_int_equal(xfer_store_wait(c, 20, &why), ERR_PEER);
    assert_int_equal(xfer_store_serve(url, NULL, &store, &why), 0);
    assert_int_equal(xfer_store_wait(c, MS, &why), 0);
    expect_later(c, "me", "early");
    xfer_store_disconnect(c);
    xfer_store_stop(store);
    why.text[0] = 0;
    assert_int_equal(xfer_store_open(url, NULL, &c, &why), 0);
    assert_int_equal(xfer_store_meet(c, 1, &why), ERR_PEER);
    xfer_store_disconnect(c);
    char expected[200];
    snprintf(expected, sizeof expected, "config store %s: Connection refused",
             url);
    assert_string_equal(why.text, expected);
    assert_int_equal(xfer_store_connect(url, NULL, 60, &c, &why), ERR_PEER);
}

/* So short a wait ends before the first attempt; xfer_store_meet knows how
 * that one went. */
static void a_first_attempt_is_waited_for(void **state)
{
    (void)state;
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof in;
    int mute = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(mute, (struct sockaddr *)&in, n), 0);
    assert_int_equal(listen(mute, 8), 0);
    getsockname(mute, (struct sockaddr *)&in, &n);
    char url[64];
    snprintf(url, sizeof url, "tcp://127.0.0.1:%d", ntohs(in.sin_port));
    struct xfer_store_client *c;
    struct why why = {0};
    assert_int_equal(xfer_store_open(url, NULL, &c, &why), 0);
    assert_int_equal(xfer_store_wait(c, 1, &why), ERR_PEER);
    assert_int_equal(xfer_store_meet(c, 1, &why), ERR_PEER);
    assert_non_null(strstr(why.text, "no greeting"));
    xfer_store_disconnect(c);
    close(mute);
}

static void the_token_is_asked_for(void **state)
{
    (void)state;
    struct xfer_store *store;
    struct xfer_store_client *c;
    struct why why = {0};
    const struct xfer_store_auth secret = {.token = "secret"},
                                 guess = {.token = "guess"};
    assert_int_equal(
        xfer_store_serve("tcp://127.0.0.1:0", &secret, &store, &why), 0);
    const char *url = xfer_store_url(store);
    assert_int_equal(xfer_store_connect(url, &secret, MS, &c, &why), 0);
    assert_int_equal(xfer_store_set(c, "k", "v", 1, MS, &why), 0);
    xfer_store_disconnect(c);
    assert_int_equal(xfer_store_connect(url, &guess, MS, &c, &why), ERR_AUTH);
    assert_int_equal(xfer_store_connect(url, NULL, MS, &c, &why), ERR_AUTH);
    assert_non_null(strstr(why.text, "token does not match"));
    xfer_store_stop(store);
    assert_int_equal(xfer_store_serve("127.0.0.1:1", NULL, &store, &why),
                     ERR_INVALID);
    assert_int_equal(xfer_store_serve("tcp://::1:1", NULL, &store, &why),
                     ERR_INVALID);
}

TESTS(T(values_are_kept_for_all), T(tables_are_written_in_pieces),
      T(who_announces_is_there_while_connected), T(a_silent_client_is_dropped),
      T(cas_swaps_only_what_was_expected), T(binary_and_large_values),
      T(waiting_ends_with_the_key), T(strangers_stop_nobody),
      T(a_second_server_becomes_a_client), T(a_first_attempt_is_waited_for),
      T(the_token_is_asked_for))
