/* The peer is killed or stopped in each state that a link can be in, as target
 * and as initiator. Whatever the state: every batch completes, every wait
 * ends, and memory that is ours again is not touched any more. What a peer
 * does after it goes on again, or after a new one took its place, works. */
#include "tests/test.h"

#include "tests/xfer/target.h"
#include "tests/xfer/ways.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>

enum { MS = 20000, BEAT_MS = 150, BATCHES = 24, PART = TARGET_BYTES / BATCHES };

/* The moments of a signal after the start, us; processes start slowly under
 * the thread sanitizer. */
#ifdef __SANITIZE_THREAD__
static const unsigned moments[] = {0, 700};
#else
static const unsigned moments[] = {0, 50, 150, 400, 900, 2000};
#endif
enum { MOMENTS = sizeof moments / sizeof *moments };

static unsigned vias[] = {XFER_VIA_MEMFD | XFER_VIA_TCP,
                          XFER_VIA_CMA | XFER_VIA_TCP, XFER_VIA_UNIX,
                          XFER_VIA_TCP, XFER_VIA_UCX};
static size_t via_count = sizeof vias / sizeof *vias;

struct fixture {
    struct xfer *x;
    struct xfer_mem *mem;
    struct xfer_peer *peer;
    struct target t;
    char *mine;  /* registered as mem */
    bool shared; /* and of xfer_alloc: gone once it is deregistered */
    unsigned via;
};

static void engine_start(struct fixture *f, unsigned via, bool shared)
{
    struct xfer_options opt = {.via = via, .heartbeat_ms = BEAT_MS};
    struct why why = {0};
    *f = (struct fixture){.via = via};
    assert_int_equal(xfer_open(&f->x, &opt, &why), 0);
    f->shared = shared;
    if (shared) {
        assert_int_equal(xfer_alloc(f->x, TARGET_BYTES, 0, &f->mem, &why), 0);
        f->mine = xfer_mem_base(f->mem);
        return;
    }
    f->mine = mmap(NULL, TARGET_BYTES, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(f->mine, 0x33, TARGET_BYTES);
    assert_int_equal(
        xfer_register(f->x, f->mine, TARGET_BYTES, NULL, 0, &f->mem, &why), 0);
}

static void start(struct fixture *f, unsigned via)
{
    struct why why = {0};
    engine_start(f, via, false);
    target_start(&f->t, target_via(via), 0, 1, "");
    assert_int_equal(xfer_peer_open(f->x, f->t.name, &f->peer, &why), 0);
    int rc = ERR_PEER; /* so short a silence may be a busy machine's */
    for (int tries = 0; rc == ERR_PEER && tries < 100; tries++)
        rc = xfer_peer_probe(f->peer, MS, NULL, &why);
    if (rc) fail_msg("%s", why.text);
}

static void stop(struct fixture *f)
{
    xfer_close(f->x);
    target_end(&f->t, 0);
    if (!f->shared) munmap(f->mine, TARGET_BYTES);
}

/* Batches that do not touch each other's memory, here or there. */
static void submit_many(struct fixture *f)
{
    struct why why = {0};
    for (uint64_t i = 0; i < BATCHES; i++) {
        uint64_t theirs = i % 3 ? f->t.own : f->t.shared;
        struct xfer_op op = {.kind = i % 2 ? XFER_READ : XFER_WRITE,
                             .local = f->mine + i * PART,
                             .remote = theirs + i * PART,
                             .bytes = PART};
        struct xfer_batch batch = {
            .ops = &op, .count = 1, .tag = i, .note = "n", .note_bytes = 1};
        assert_int_equal(xfer_submit_batch(f->peer, &batch, &why), 0);
    }
}

/* From now on nobody else may write to our memory. */
static void ours_again(struct fixture *f)
{
    if (!f->shared) memset(f->mine, 0xc5, TARGET_BYTES);
}

/* Waits for all; then our memory is ours: returns how many failed. */
static int completions(struct fixture *f)
{
    struct xfer_done done;
    int failed = 0;
    for (uint64_t i = 0; i < BATCHES; i++) {
        assert_int_equal(xfer_wait(f->x, i, MS, &done), 0);
        assert_true(done.rc == 0 || done.rc == ERR_PEER ||
                    done.rc == ERR_CANCELED);
        failed += done.rc != 0;
    }
    ours_again(f);
    return failed;
}

static void check_untouched(const struct fixture *f)
{
    for (size_t i = 0; i < TARGET_BYTES && !f->shared; i++)
        if (f->mine[i] != (char)0xc5) fail_msg("byte %zu was written", i);
}

static uint64_t wait_state(struct fixture *f, enum xfer_state state)
{
    uint64_t start = clock_ms();
    struct pollfd none = {.fd = -1};
    while (xfer_peer_state(f->peer, NULL) != state) {
        if (clock_ms() - start > MS) fail_msg("peer is in another state");
        poll(&none, 0, 1);
    }
    return clock_ms() - start;
}

/* The first may still meet the end of the last life, any a silence. */
static void goes_through(struct fixture *f, const struct xfer_op *op)
{
    struct why why = {0};
    int rc = ERR_PEER;
    for (int tries = 0; rc && tries < 100; tries++)
        rc = xfer_transfer(f->peer, op, 1, MS, &why);
    if (rc) fail_msg("%s", why.text);
}

static void works_again(struct fixture *f)
{
    struct xfer_op op = {
        .local = f->mine, .remote = f->t.shared, .bytes = TARGET_BYTES};
    goes_through(f, &op);
}

static void restart(struct fixture *f)
{
    int port = atoi(strrchr(f->t.name, ':') + 1);
    target_end(&f->t, SIGKILL);
    target_start(&f->t, target_via(f->via), port, 1, "");
    works_again(f);
}

static void spin_us(uint64_t us)
{
    for (uint64_t start = clock_us(); clock_us() - start < us;) {
    }
}

/* ---- idle ---- */

static void idle(void **state)
{
    (void)state;
    uint64_t closed_ms = 0, hung_ms = 0;
    for (size_t i = 0; i < via_count; i++) {
        struct fixture f;
        start(&f, vias[i]);
        works_again(&f);
        kill(f.t.pid, SIGKILL);
        uint64_t ms = wait_state(&f, XFER_DOWN);
        if (ms > closed_ms) closed_ms = ms;
        restart(&f);
        target_stop(&f.t);
        ms = wait_state(&f, XFER_DOWN);
        if (ms > hung_ms) hung_ms = ms;
        kill(f.t.pid, SIGCONT);
        works_again(&f);
        stop(&f);
    }
    print_message("killed: seen after %" PRIu64 " ms at most; stopped: %" PRIu64
                  " ms with heartbeats of %d\n",
                  closed_ms, hung_ms, BEAT_MS);
}

/* ---- on the way to a link ---- */

/* Waits until somebody here has a connection to that name's port: the kernel
 * made it, though nobody there answers. */
static void wait_dialled(const char *name)
{
    char line[256], want[40];
    snprintf(want, sizeof want, "0100007F:%04X 01",
             (unsigned)atoi(strrchr(name, ':') + 1));
    for (uint64_t start = clock_ms();;) {
        FILE *f = fopen("/proc/net/tcp", "r");
        bool there = false;
        assert_non_null(f);
        while (!there && fgets(line, sizeof line, f))
            there = strstr(line, want);
        fclose(f);
        if (there) return;
        if (clock_ms() - start > MS) fail_msg("nobody dials %s", name);
        poll(NULL, 0, 1);
    }
}

static void handshake(void **state)
{
    (void)state;
    for (int kills = 0; kills < 2; kills++) {
        struct fixture f;
        struct why why = {0};
        engine_start(&f, XFER_VIA_ALL, false);
        target_start(&f.t, XFER_VIA_ALL, 0, 1, "");
        target_stop(&f.t); /* the kernel accepts, nobody answers */
        assert_int_equal(xfer_peer_open(f.x, f.t.name, &f.peer, &why), 0);
        submit_many(&f);
        wait_dialled(f.t.name); /* the old life, not the next */
        if (kills)
            restart(&f);
        else
            assert_int_equal(xfer_peer_wait(f.peer, MS, &why), ERR_PEER);
        completions(&f);
        if (!kills) assert_non_null(strstr(why.text, "handshake"));
        kill(f.t.pid, SIGCONT);
        works_again(&f);
        stop(&f);
    }
}

/* A host that does not even accept: its queue of connections is full. */
static void connecting(void **state)
{
    (void)state;
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof in;
    int full = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fds[8];
    assert_int_equal(bind(full, (struct sockaddr *)&in, n), 0);
    assert_int_equal(listen(full, 0), 0);
    getsockname(full, (struct sockaddr *)&in, &n);
    for (int i = 0; i < 8; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        connect(fds[i], (struct sockaddr *)&in, n);
    }
    struct xfer_options opt = {.connect_ms = 200};
    struct xfer *x;
    struct xfer_peer *peer;
    struct why why = {0};
    char name[40];
    snprintf(name, sizeof name, "127.0.0.1:%d", ntohs(in.sin_port));
    assert_int_equal(xfer_open(&x, &opt, &why), 0);
    assert_int_equal(xfer_peer_open(x, name, &peer, &why), 0);
    assert_int_equal(xfer_peer_wait(peer, MS, &why), ERR_PEER);
    assert_non_null(strstr(why.text, "in time"));
    for (int i = 0; i < 8; i++)
        close(fds[i]);
    close(full);
    xfer_close(x);
}

/* ---- the peer is the target ---- */

static void target_is_killed_at_any_moment(void **state)
{
    (void)state;
    for (size_t i = 0; i < via_count; i++)
        for (int m = 0; m < MOMENTS; m++) {
            struct fixture f;
            start(&f, vias[i]);
            submit_many(&f);
            spin_us(moments[m]);
            kill(f.t.pid, SIGKILL);
            completions(&f);
            restart(&f);
            stop(&f);
        }
}

static void target_is_stopped(void **state)
{
    (void)state;
    for (size_t i = 0; i < via_count; i++) {
        struct fixture f;
        start(&f, vias[i]);
        works_again(&f); /* lanes are open */
        submit_many(&f);
        target_stop(&f.t);
        int failed = completions(&f);
        kill(f.t.pid, SIGCONT);
        works_again(&f);
        if (failed) assert_int_equal(xfer_cancel_peer(f.peer), 0);
        stop(&f);
    }
}

/* Cancel waits for what the peer has in hand: until it answers or is dead. */
static void cancel_waits(void **state)
{
    (void)state;
    for (size_t i = 0; i < via_count; i++)
        for (int kills = 0; kills < 2; kills++) {
            struct fixture f;
            start(&f, vias[i]);
            works_again(&f);
            target_stop(&f.t);
            submit_many(&f);
            xfer_cancel_peer(f.peer);
            if (kills) kill(f.t.pid, SIGKILL);
            completions(&f);
            kill(f.t.pid, SIGCONT);
            if (!kills) works_again(&f);
            ours_again(&f);
            check_untouched(&f);
            stop(&f);
        }
}

/* A caller in the middle of a small transfer, alone with its socket. */
static void caller_waits(void **state)
{
    (void)state;
    for (size_t i = 2; i < via_count; i++)
        for (int kills = 0; kills < 2; kills++) {
            struct fixture f;
            struct why why = {0};
            start(&f, vias[i]);
            struct xfer_op op = {
                .local = f.mine, .remote = f.t.own, .bytes = 4096};
            for (int n = 0; n < 10; n++) {
                op.kind = n % 2 ? XFER_READ : XFER_WRITE;
                goes_through(&f, &op);
            }
            target_stop(&f.t);
            if (kills) kill(f.t.pid, SIGKILL);
            assert_int_equal(xfer_transfer(f.peer, &op, 1, MS, &why), ERR_PEER);
            assert_true(why.text[0] != 0);
            kill(f.t.pid, SIGCONT);
            if (!kills) works_again(&f);
            stop(&f);
        }
}

static void *deregister_main(void *arg)
{
    xfer_deregister(arg);
    return NULL;
}

/* Our memory is taken back while the peer, stopped, should answer for it. */
static void deregister_waits_for_the_target(void **state)
{
    (void)state;
    for (size_t i = 0; i < via_count; i++)
        for (int kills = 0; kills < 2; kills++) {
            struct fixture f;
            pthread_t thread;
            start(&f, vias[i]);
            works_again(&f);
            target_stop(&f.t);
            submit_many(&f);
            pthread_create(&thread, NULL, deregister_main, f.mem);
            if (kills) kill(f.t.pid, SIGKILL);
            pthread_join(thread, NULL);
            ours_again(&f);
            kill(f.t.pid, SIGCONT);
            completions(&f);
            check_untouched(&f);
            stop(&f);
        }
}

/* ---- the peer is the initiator ---- */

/* A child that writes to our memory without end. */
static void hammered(struct fixture *f, unsigned via)
{
    char command[200];
    engine_start(f, target_via(via), via & XFER_VIA_MEMFD);
    target_start(&f->t, XFER_VIA_ALL, 0, 1, "");
    snprintf(command, sizeof command, "hammer %u %" PRIu64 " %s", via,
             (uint64_t)(uintptr_t)f->mine, xfer_name(f->x));
    uint64_t rc = 1; /* of the first write; a short silence may end it */
    for (int tries = 0; rc && tries < 100; tries++)
        rc = target_ask(&f->t, command);
    assert_int_equal(rc, 0);
}

static void initiator_is_killed(void **state)
{
    (void)state;
    for (size_t i = 0; i < via_count; i++)
        for (int m = 0; m < MOMENTS; m++) {
            struct fixture f;
            hammered(&f, vias[i]);
            spin_us(moments[m]);
            kill(f.t.pid, SIGKILL);
            xfer_deregister(f.mem);
            ours_again(&f);
            target_end(&f.t, SIGKILL);
            check_untouched(&f);
            stop(&f);
        }
}

/* Deregistration waits for a stopped peer in the middle of a copy, and not for
 * one that is not; in either case nothing arrives afterwards. */
static void initiator_is_stopped(void **state)
{
    (void)state;
    for (size_t i = 0; i < via_count; i++)
        for (int m = 0; m < MOMENTS; m++) {
            struct fixture f;
            struct pollfd none = {.fd = -1};
            pthread_t thread;
            hammered(&f, vias[i]);
            spin_us(moments[m]);
            target_stop(&f.t);
            pthread_create(&thread, NULL, deregister_main, f.mem);
            poll(&none, 0, 20);
            kill(f.t.pid, SIGCONT);
            pthread_join(thread, NULL);
            ours_again(&f);
            int64_t rc = (int64_t)target_answer(&f.t);
            assert_true(rc == ERR_RANGE || rc == ERR_PEER);
            check_untouched(&f);
            stop(&f);
        }
}

int main(int argc, char **argv)
{
    if (argc == 6 && !strcmp(argv[1], "--target")) return target_main(argv + 2);
    via_count = vias_here(vias, via_count);
    const struct CMUnitTest tests[] = {
        T(idle),
        T(handshake),
        T(connecting),
        T(target_is_killed_at_any_moment),
        T(target_is_stopped),
        T(cancel_waits),
        T(caller_waits),
        T(deregister_waits_for_the_target),
        T(initiator_is_killed),
        T(initiator_is_stopped),
    };
    return cmocka_run_group_tests_name("deaths", tests, NULL, NULL);
}
