/* TLS: who is let in, and what is said to those who are not. That it moves
 * bytes is in contract_test.c. */
#include "tests/test.h"

#include "tests/xfer/pem.h"
#include "xfer/xfer.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MS = 20000, BYTES = 1 << 20 };

static struct pem ours, other; /* each is its own CA */

struct side {
    struct xfer *x;
    struct xfer_mem *mem;
};

static void side_open(struct side *s, const char *cert, const char *key,
                      const char *ca)
{
    struct xfer_options opt = {
        .via = XFER_VIA_TCP, .tls_cert = cert, .tls_key = key, .tls_ca = ca};
    struct why why = {0};
    if (xfer_open(&s->x, &opt, &why)) fail_msg("%s", why.text);
    assert_int_equal(xfer_alloc(s->x, BYTES, 0, &s->mem, &why), 0);
}

static int transfer(struct side *from, struct side *to, struct why *why)
{
    struct xfer_peer *peer;
    struct xfer_op op = {.local = xfer_mem_base(from->mem),
                         .remote = (uintptr_t)xfer_mem_base(to->mem),
                         .bytes = BYTES};
    assert_int_equal(xfer_peer_open(from->x, xfer_name(to->x), &peer, why), 0);
    return xfer_transfer(peer, &op, 1, MS, why);
}

static void both_end(struct side *a, struct side *b)
{
    xfer_close(a->x);
    xfer_close(b->x);
}

static void same_ca_is_let_in(void **state)
{
    (void)state;
    struct side a, b;
    struct why why = {0};
    side_open(&a, ours.cert, ours.key, ours.cert);
    side_open(&b, ours.cert, ours.key, ours.cert);
    memset(xfer_mem_base(a.mem), 0x5c, BYTES);
    if (transfer(&a, &b, &why)) fail_msg("%s", why.text);
    assert_memory_equal(xfer_mem_base(a.mem), xfer_mem_base(b.mem), BYTES);
    both_end(&a, &b);
}

/* The transfer ends with ERR_AUTH and words that have said in them, and the
 * target has counted somebody whom it did not let in. */
static void refused(struct side *a, struct side *b, const char *said)
{
    struct why why = {0};
    struct xfer_stats stats = {0};
    int rc = transfer(a, b, &why);
    if (rc != ERR_AUTH || !strstr(why.text, said))
        fail_msg("%s: %s", err_name(rc), why.text);
    for (int i = 0; i < MS && !stats.rejected; i++) {
        struct xfer_done none;
        xfer_stats_get(b->x, &stats);
        if (!stats.rejected) xfer_wait(b->x, 1, 1, &none); /* 1 ms */
    }
    assert_true(stats.rejected > 0);
    assert_int_equal(stats.target_bytes_in, 0);
    both_end(a, b);
}

static void strangers_certificate_is_refused(void **state)
{
    (void)state;
    struct side a, b;
    /* The target's is not of our CA. */
    side_open(&a, ours.cert, ours.key, ours.cert);
    side_open(&b, other.cert, other.key, ours.cert);
    refused(&a, &b, "certificate");
    /* Ours is not of the target's. */
    side_open(&a, other.cert, other.key, ours.cert);
    side_open(&b, ours.cert, ours.key, ours.cert);
    refused(&a, &b, "unknown ca");
}

static void plain_and_tls_do_not_meet(void **state)
{
    (void)state;
    struct side a, b;
    side_open(&a, NULL, NULL, NULL);
    side_open(&b, ours.cert, ours.key, ours.cert);
    refused(&a, &b, "speaks TLS");
    side_open(&a, ours.cert, ours.key, ours.cert);
    side_open(&b, NULL, NULL, NULL);
    refused(&a, &b, "TLS");
}

static int try_open(const char *cert, const char *key, const char *ca,
                    struct why *why)
{
    struct xfer_options opt = {.tls_cert = cert, .tls_key = key, .tls_ca = ca};
    struct xfer *x;
    memset(why, 0, sizeof *why);
    return xfer_open(&x, &opt, why);
}

static void bad_files_are_named(void **state)
{
    (void)state;
    struct why why;
    assert_int_equal(try_open(ours.cert, NULL, ours.cert, &why), ERR_INVALID);
    assert_int_equal(try_open("/no/cert", ours.key, ours.cert, &why),
                     ERR_INVALID);
    assert_non_null(strstr(why.text, "/no/cert"));
    assert_int_equal(try_open(ours.cert, other.key, ours.cert, &why),
                     ERR_INVALID);
    assert_non_null(strstr(why.text, other.key));
    assert_int_equal(try_open(ours.cert, ours.key, ours.key, &why),
                     ERR_INVALID);
}

#ifndef __SANITIZE_THREAD__
/* Handshake after handshake with the target, until the process is gone. */
static void *hammer(void *arg)
{
    struct side *to = arg;
    struct xfer_options opt = {.via = XFER_VIA_TCP,
                               .tls_cert = ours.cert,
                               .tls_key = ours.key,
                               .tls_ca = ours.cert};
    for (;;) {
        struct xfer *x;
        struct xfer_peer *peer;
        struct why why = {0};
        if (xfer_open(&x, &opt, &why)) continue;
        if (xfer_peer_open(x, xfer_name(to->x), &peer, &why) == 0)
            xfer_peer_wait(peer, MS, &why);
        xfer_close(x);
    }
    return NULL;
}

/* Called last by exit. Without the leak check, which would find what the
 * library keeps for each thread: that ends with threads, not with exit. */
static int linger_ms;
static void linger(void)
{
    if (!linger_ms) return;
    poll(NULL, 0, linger_ms);
    _exit(0);
}

/* Its threads use the library while a handler of that one's own, which runs in
 * exit, frees what they use; some while later the process is gone. */
static void a_process_may_exit_at_any_moment(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        pid_t child = fork(); /* while this process has no threads */
        if (child == 0) {
            struct side to;
            struct xfer_stats stats = {0};
            pthread_t thread;
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            linger_ms = 20;
            side_open(&to, ours.cert, ours.key, ours.cert);
            for (int n = 0; n < 3; n++)
                pthread_create(&thread, NULL, hammer, &to);
            while (stats.accepted < 5)
                xfer_stats_get(to.x, &stats);
            exit(0);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
}

#endif

static void no_libssl(void **state)
{
    (void)state;
    SKIP("there is no libssl");
}

/* In a foreign root (an emulated machine) there may be none. */
static bool there_is_libssl(void)
{
    struct why why;
    return try_open("/", "/", "/", &why) != ERR_UNSUPPORTED;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(same_ca_is_let_in),
        T(strangers_certificate_is_refused),
        T(plain_and_tls_do_not_meet),
        T(bad_files_are_named),
/* A thread that ends tells the library so, which races with its handler. */
#ifndef __SANITIZE_THREAD__
        T(a_process_may_exit_at_any_moment),
#endif
    };
    const struct CMUnitTest none[] = {T(no_libssl)};
#ifndef __SANITIZE_THREAD__
    atexit(linger); /* before any use of the library */
#endif
    if (!there_is_libssl()) return cmocka_run_group_tests(none, NULL, NULL);
    if (pem_make(&ours) || pem_make(&other)) return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    pem_drop(&ours);
    pem_drop(&other);
    return rc;
}
