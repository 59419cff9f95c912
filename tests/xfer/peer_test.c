/* Peers that die, hang, restart, are shut out or are strangers. */
#include "tests/test.h"

#include "base/mem.h"
#include "tests/xfer/stranger.h"
#include "tests/xfer/target.h"
#include "tests/xfer/ways.h"
#include "xfer/hmac.h"
#include "xfer/wire.h"

#include <poll.h>

enum { MS = 20000, BATCHES = 60 };

struct fixture {
    struct xfer *x;
    struct xfer_mem *mem;
    struct xfer_peer *peer;
    struct target t;
    unsigned via;
};

static void start_beating(struct fixture *f, unsigned via, unsigned beat_ms)
{
    struct xfer_options opt = {.via = via, .heartbeat_ms = beat_ms};
    struct why why = {0};
    *f = (struct fixture){.via = via};
    assert_int_equal(xfer_open(&f->x, &opt, &why), 0);
    assert_int_equal(xfer_alloc(f->x, TARGET_BYTES, 0, &f->mem, &why), 0);
    memset(xfer_mem_base(f->mem), 0x33, TARGET_BYTES);
    target_start(&f->t, target_via(via), 0, 1, "");
    assert_int_equal(xfer_peer_open(f->x, f->t.name, &f->peer, &why), 0);
    if (xfer_peer_wait(f->peer, MS, &why)) fail_msg("%s", why.text);
}

static void start(struct fixture *f, unsigned via)
{
    start_beating(f, via, 0);
}

static void stop(struct fixture *f)
{
    xfer_close(f->x);
    target_end(&f->t, 0);
}

static struct xfer_op whole(struct fixture *f)
{
    return (struct xfer_op){.kind = XFER_WRITE,
                            .local = xfer_mem_base(f->mem),
                            .remote = f->t.shared,
                            .bytes = TARGET_BYTES};
}

/* Batches that do not touch each other's memory, here or there. */
static void submit_many(struct fixture *f)
{
    struct why why = {0};
    uint64_t part = TARGET_BYTES / BATCHES;
    for (uint64_t i = 0; i < BATCHES; i++) {
        struct xfer_op op = {.kind = i % 2 ? XFER_READ : XFER_WRITE,
                             .local = (char *)xfer_mem_base(f->mem) + i * part,
                             .remote =
                                 (i % 3 ? f->t.own : f->t.shared) + i * part,
                             .bytes = part};
        struct xfer_batch batch = {.ops = &op,
                                   .count = 1,
                                   .tag = i,
                                   .note = i % 4 ? NULL : "note",
                                   .note_bytes = 4};
        assert_int_equal(xfer_submit_batch(f->peer, &batch, &why), 0);
    }
}

/* Every batch completes, with 0 or a word about the peer. Returns how many
 * failed. */
static int completions(struct fixture *f)
{
    struct xfer_done done;
    int failed = 0;
    for (uint64_t i = 0; i < BATCHES; i++) {
        assert_int_equal(xfer_wait(f->x, i, MS, &done), 0);
        assert_true(done.rc == 0 || done.rc == ERR_PEER);
        if (done.rc) assert_true(strlen(done.text) > 0);
        failed += done.rc != 0;
    }
    return failed;
}

static void wait_down(struct fixture *f)
{
    struct pollfd none = {.fd = -1};
    for (int i = 0; i < MS / 5; i++) {
        if (xfer_peer_state(f->peer, NULL) == XFER_DOWN) return;
        poll(&none, 0, 5);
    }
    fail_msg("peer is not down");
}

static void probes_find_out(void **state)
{
    (void)state;
    struct fixture f;
    struct why why = {0};
    uint64_t rtt_ns = 0;
    start_beating(&f, XFER_VIA_ALL, 100);
    assert_int_equal(xfer_peer_probe(f.peer, MS, &rtt_ns, &why), 0);
    assert_true(rtt_ns > 0);
    target_stop(&f.t);
    assert_int_equal(xfer_peer_probe(f.peer, 1, NULL, &why), ERR_TIMEOUT);
    assert_int_equal(xfer_peer_probe(f.peer, MS, NULL, &why), ERR_PEER);
    kill(f.t.pid, SIGCONT);
    int rc = ERR_PEER;
    for (int tries = 0; rc && tries < 100; tries++)
        rc = xfer_peer_probe(f.peer, MS, &rtt_ns, &why);
    if (rc) fail_msg("%s", why.text);
    struct xfer_peer *self;
    assert_int_equal(xfer_peer_open(f.x, xfer_name(f.x), &self, &why), 0);
    assert_int_equal(xfer_peer_probe(self, MS, NULL, &why), 0);
    target_end(&f.t, SIGKILL);
    wait_down(&f);
    assert_int_equal(xfer_peer_probe(f.peer, MS, NULL, &why), ERR_PEER);
    assert_non_null(strstr(why.text, "onnect"));
    xfer_close(f.x);
}

static unsigned vias[] = {XFER_VIA_ALL,  XFER_VIA_CMA | XFER_VIA_TCP,
                          XFER_VIA_UNIX, XFER_VIA_TCP,
                          XFER_VIA_RDMA, XFER_VIA_UCX};
static size_t via_count = sizeof vias / sizeof *vias;

static void killed_peer_fails_what_is_open(void **state)
{
    (void)state;
    for (size_t i = 0; i < via_count; i++) {
        struct fixture f;
        start(&f, vias[i]);
        submit_many(&f);
        target_end(&f.t, SIGKILL);
        completions(&f);
        wait_down(&f);
        struct why why = {0};
        struct xfer_op op = whole(&f);
        assert_int_equal(xfer_transfer(f.peer, &op, 1, MS, &why), ERR_PEER);
        assert_non_null(strstr(why.text, "onnect"));
        stop(&f);
    }
}

static void hung_peer_is_dead_after_three_beats(void **state)
{
    (void)state;
    for (size_t i = 0; i < via_count; i++) {
        struct fixture f;
        start_beating(&f, vias[i], 200);
        target_stop(&f.t);
        submit_many(&f);
        int failed = completions(&f);
        if (vias[i] == XFER_VIA_TCP) assert_true(failed > 0);
        wait_down(&f);
        struct xfer_stats stats;
        xfer_stats_get(f.x, &stats);
        assert_true(stats.peers_hung > 0);
        /* Awake again, it is a peer like any other. */
        kill(f.t.pid, SIGCONT);
        struct why why = {0};
        struct xfer_op op = whole(&f);
        int rc = ERR_PEER;
        for (int tries = 0; rc && tries < 100; tries++)
            rc = xfer_transfer(f.peer, &op, 1, MS, &why);
        if (rc) fail_msg("%s", why.text);
        stop(&f);
    }
}

/* Until the engine has met the peer's next life. */
static void wait_other_epoch(struct fixture *f, const struct xfer_epoch *first)
{
    struct pollfd none = {.fd = -1};
    struct xfer_epoch now;
    for (int i = 0; i < MS / 5; i++) {
        if (xfer_peer_epoch(f->peer, &now) && memcmp(&now, first, sizeof now))
            return;
        poll(&none, 0, 5);
    }
    fail_msg("peer did not come back");
}

static void restarted_peer_works_at_once(void **state)
{
    (void)state;
    for (size_t i = 0; i < via_count; i++) {
        struct fixture f;
        struct xfer_epoch first, second;
        struct why why = {0};
        char name[64];
        start(&f, vias[i]);
        struct xfer_op op = whole(&f);
        assert_int_equal(xfer_transfer(f.peer, &op, 1, MS, &why), 0);
        assert_true(xfer_peer_epoch(f.peer, &first));
        snprintf(name, sizeof name, "%s", f.t.name);
        target_end(&f.t, SIGKILL);
        target_start(&f.t, target_via(f.via), atoi(strrchr(name, ':') + 1), 1,
                     "");
        assert_string_equal(f.t.name, name);
        wait_other_epoch(&f, &first);
        op = whole(&f);
        if (xfer_transfer(f.peer, &op, 1, MS, &why)) fail_msg("%s", why.text);
        assert_true(xfer_peer_epoch(f.peer, &second));
        assert_memory_not_equal(&first, &second, sizeof first);
        /* What was meant for its former life does not arrive. */
        struct xfer_batch batch = {
            .ops = &op, .count = 1, .tag = 5, .epoch = &first};
        struct xfer_done done;
        assert_int_equal(xfer_submit_batch(f.peer, &batch, &why), 0);
        assert_int_equal(xfer_wait(f.x, 5, MS, &done), 0);
        assert_int_equal(done.rc, ERR_STALE);
        batch.epoch = &second;
        assert_int_equal(xfer_submit_batch(f.peer, &batch, &why), 0);
        assert_int_equal(xfer_wait(f.x, 5, MS, &done), 0);
        assert_int_equal(done.rc, 0);
        stop(&f);
    }
}

/* After expel nothing of ours lands there; then we may come again. */
static void expelled_initiator_touches_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < via_count; i++) {
        struct fixture f;
        char command[100];
        start(&f, vias[i]);
        submit_many(&f);
        snprintf(command, sizeof command, "expel %s", xfer_name(f.x));
        assert_int_equal(target_ask(&f.t, command), 0);
        completions(&f);
        struct why why = {0};
        struct xfer_op op = whole(&f);
        int rc = ERR_PEER;
        for (int tries = 0; rc && tries < 100; tries++)
            rc = xfer_transfer(f.peer, &op, 1, MS, &why);
        if (rc) fail_msg("%s", why.text);
        stop(&f);
    }
}

/* After it is over nothing that came, waits or comes by a pass is done. */
static void a_pass_is_for_one_and_ends(void **state)
{
    (void)state;
    for (size_t i = 0; i < via_count; i++) {
        struct fixture f;
        struct xfer_peer *by_pass;
        struct xfer_done done;
        struct why why = {0};
        char pass[100], command[110], again[100];
        start(&f, vias[i]);
        target_pass(&f.t, pass);
        assert_int_equal(xfer_peer_open(f.x, pass, &by_pass, &why), 0);
        assert_string_equal(xfer_peer_name(by_pass), pass);
        struct xfer_op op = whole(&f);
        if (xfer_transfer(by_pass, &op, 1, MS, &why)) fail_msg("%s", why.text);
        memset(xfer_mem_base(f.mem), 0x44, TARGET_BYTES);
        for (uint64_t tag = 0; tag < 9; tag++)
            assert_int_equal(xfer_submit(by_pass, &op, 1, tag, &why), 0);
        snprintf(command, sizeof command, "expel %s", pass);
        assert_int_equal(target_ask(&f.t, command), 0);
        snprintf(command, sizeof command, "fill %" PRIu64 " %d %d", f.t.shared,
                 TARGET_BYTES, 0x55);
        uint64_t filled = target_ask(&f.t, command);
        for (uint64_t tag = 9; tag < 18; tag++)
            assert_int_equal(xfer_submit(by_pass, &op, 1, tag, &why), 0);
        for (uint64_t tag = 0; tag < 18; tag++) {
            assert_int_equal(xfer_wait(f.x, tag, MS, &done), 0);
            assert_true(done.rc == ERR_STALE || done.rc == ERR_PEER ||
                        (done.rc == 0 && tag < 9));
        }
        assert_int_equal(xfer_transfer(by_pass, &op, 1, MS, &why), ERR_STALE);
        assert_non_null(strstr(why.text, "pass is over"));
        assert_int_equal(target_hash_of(&f.t, f.t.shared), filled);
        /* Nobody else is concerned, and there are more passes. */
        op.remote = f.t.own;
        if (xfer_transfer(f.peer, &op, 1, MS, &why)) fail_msg("%s", why.text);
        target_pass(&f.t, again);
        assert_string_not_equal(again, pass);
        xfer_peer_close(by_pass);
        assert_int_equal(xfer_peer_open(f.x, again, &by_pass, &why), 0);
        if (xfer_transfer(by_pass, &op, 1, MS, &why)) fail_msg("%s", why.text);
        stop(&f);
    }
}

/* Our own pass is a target like any other: it can be shut out. */
static void passes_of_ourselves(void **state)
{
    (void)state;
    struct xfer *x;
    struct xfer_mem *mem;
    struct xfer_peer *peer;
    struct why why = {0};
    char pass[XFER_NAME_MAX + 1], text[100];
    assert_int_equal(xfer_open(&x, NULL, &why), 0);
    assert_int_equal(xfer_alloc(x, 8192, 0, &mem, &why), 0);
    char *base = xfer_mem_base(mem);
    struct xfer_op op = {
        .local = base, .remote = (uintptr_t)base + 4096, .bytes = 4096};
    memset(base, 7, 4096);
    xfer_pass(x, pass);
    assert_int_equal(xfer_peer_open(x, pass, &peer, &why), 0);
    if (xfer_transfer(peer, &op, 1, MS, &why)) fail_msg("%s", why.text);
    assert_memory_equal(base, base + 4096, 4096);
    xfer_peer_explain(peer, text, sizeof text);
    assert_null(strstr(text, "self"));
    assert_int_equal(xfer_expel(x, pass, MS), 0);
    int rc = ERR_PEER; /* until its end is seen */
    for (int tries = 0; rc == ERR_PEER && tries < 100; tries++)
        rc = xfer_transfer(peer, &op, 1, MS, &why);
    assert_int_equal(rc, ERR_STALE);
    xfer_close(x);
}

static void closing_ends_every_batch(void **state)
{
    (void)state;
    for (size_t i = 0; i < via_count; i++) {
        struct fixture f;
        struct xfer_done done[BATCHES + 1];
        start(&f, vias[i]);
        submit_many(&f);
        xfer_stop(f.x);
        assert_int_equal(xfer_poll(f.x, done, BATCHES + 1), BATCHES);
        struct why why = {0};
        struct xfer_op op = whole(&f);
        assert_int_equal(xfer_submit(f.peer, &op, 1, 0, &why), ERR_CANCELED);
        xfer_peer_close(f.peer);
        xfer_deregister(f.mem);
        stop(&f);
    }
}

static void target_that_closes_is_noticed(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, XFER_VIA_ALL);
    target_ask(&f.t, "close");
    wait_down(&f);
    stop(&f);
}

/* A batch for a peer that is not there yet waits for the attempt, fails with
 * its reason, and the next one works once the peer is there. */
static void peer_that_starts_later(void **state)
{
    (void)state;
    struct fixture f;
    struct why why = {0};
    char name[64];
    start(&f, XFER_VIA_TCP);
    snprintf(name, sizeof name, "%s", f.t.name);
    target_end(&f.t, SIGKILL);
    xfer_peer_close(f.peer);
    assert_int_equal(xfer_peer_open(f.x, name, &f.peer, &why), 0);
    struct xfer_op op = whole(&f);
    assert_int_equal(xfer_transfer(f.peer, &op, 1, MS, &why), ERR_PEER);
    assert_non_null(strstr(why.text, "Connection refused"));
    target_start(&f.t, target_via(f.via), atoi(strrchr(name, ':') + 1), 1, "");
    op = whole(&f);
    if (xfer_transfer(f.peer, &op, 1, MS, &why)) fail_msg("%s", why.text);
    stop(&f);
}

static void names_are_checked(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",           "host",    "host:",     "host:0",    ":5",
        "host:65536", "::1:5",   "[::1:5",    "host:5x",   "[]:5",
        "ho st:5",    "host:-1", "[::1]x:80", "host:80:80"};
    struct xfer *x;
    struct xfer_peer *peer, *same;
    struct why why = {0};
    assert_int_equal(xfer_open(&x, NULL, &why), 0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (xfer_peer_open(x, wrong[i], &peer, &why) != ERR_INVALID)
            fail_msg("%s was taken", wrong[i]);
    assert_int_equal(xfer_peer_open(x, "[::1]:9", &peer, &why), 0);
    assert_string_equal(xfer_peer_name(peer), "[::1]:9");
    assert_int_equal(xfer_peer_open(x, "[::1]:9", &same, &why), 0);
    assert_ptr_equal(peer, same);
    assert_int_equal(xfer_peer_open(x, "no-such-host.invalid:9", &peer, &why),
                     0);
    assert_int_equal(xfer_peer_wait(peer, MS, &why), ERR_PEER);
    assert_non_null(strstr(why.text, "no-such-host.invalid"));
    xfer_close(x);
    struct xfer_options any = {.host = "0.0.0.0"};
    assert_int_equal(xfer_open(&x, &any, &why), ERR_INVALID);
    any.advertise = "localhost";
    assert_int_equal(xfer_open(&x, &any, &why), 0);
    struct xfer_options taken = {.port = xfer_port(x)};
    struct xfer *other;
    assert_int_equal(xfer_open(&other, &taken, &why), ERR_EXISTS);
    /* Our own name, spelled otherwise, is still this process. */
    char text[100];
    snprintf(text, sizeof text, "127.0.0.1:%u", xfer_port(x));
    assert_int_equal(xfer_peer_open(x, text, &peer, &why), 0);
    assert_int_equal(xfer_peer_wait(peer, MS, &why), 0);
    xfer_peer_explain(peer, text, sizeof text);
    assert_string_equal(text, "self, same process");
    xfer_close(x);
}

static void ipv6_works_where_there_is_some(void **state)
{
    (void)state;
    struct xfer *a, *b;
    struct xfer_mem *from, *to;
    struct xfer_peer *peer;
    struct why why = {0};
    struct xfer_options opt = {.host = "::1", .via = XFER_VIA_TCP};
    if (xfer_open(&a, &opt, &why)) SKIP("%s", why.text);
    assert_int_equal(xfer_open(&b, &opt, &why), 0);
    assert_int_equal(xfer_alloc(a, 100, 0, &to, &why), 0);
    assert_int_equal(xfer_alloc(b, 100, 0, &from, &why), 0);
    assert_int_equal(strncmp(xfer_name(a), "[::1]:", 6), 0);
    assert_int_equal(xfer_peer_open(b, xfer_name(a), &peer, &why), 0);
    struct xfer_op op = {.kind = XFER_READ,
                         .local = xfer_mem_base(from),
                         .remote = (uintptr_t)xfer_mem_base(to),
                         .bytes = 100};
    assert_int_equal(xfer_transfer(peer, &op, 1, MS, &why), 0);
    xfer_close(b);
    xfer_close(a);
}

static void tokens_must_match(void **state)
{
    (void)state;
    struct xfer_options with = {.token = "secret"}, other = {.token = "guess"};
    struct xfer *x, *friend, *stranger;
    struct xfer_peer *peer;
    struct why why = {0};
    assert_int_equal(xfer_open(&x, &with, &why), 0);
    assert_int_equal(xfer_open(&friend, &with, &why), 0);
    assert_int_equal(xfer_open(&stranger, &other, &why), 0);
    assert_int_equal(xfer_peer_open(friend, xfer_name(x), &peer, &why), 0);
    assert_int_equal(xfer_peer_wait(peer, MS, &why), 0);
    assert_int_equal(xfer_peer_open(stranger, xfer_name(x), &peer, &why), 0);
    assert_int_equal(xfer_peer_wait(peer, MS, &why), ERR_AUTH);
    assert_non_null(strstr(why.text, "token"));
    struct pollfd none = {.fd = -1};
    struct xfer_stats stats = {0};
    for (int i = 0; i < MS && !stats.rejected; i++) {
        poll(&none, 0, 1);
        xfer_stats_get(x, &stats);
    }
    assert_true(stats.rejected > 0);
    xfer_close(stranger);
    xfer_close(friend);
    xfer_close(x);
}

/* ---- strangers on the wire ---- */

static int dial(struct xfer *x)
{
    return stranger_dial(xfer_port(x));
}

static void strangers_stop_nobody(void **state)
{
    (void)state;
    struct xfer *x, *b;
    struct xfer_peer *peer;
    struct why why = {0};
    assert_int_equal(xfer_open(&x, NULL, &why), 0);
    assert_int_equal(xfer_open(&b, NULL, &why), 0);
    int silent[200], rude = dial(x), early = dial(x), giant = dial(x);
    for (int i = 0; i < 200; i++)
        silent[i] = dial(x);
    send(rude, "GET / HTTP/1.1\r\nHost: somebody\r\n\r\n", 34, MSG_NOSIGNAL);
    send_header(early, (struct wire_header){
                           .type = WIRE_WRITE, .count = 1, .bytes = 10});
    send_header(giant,
                (struct wire_header){.type = WIRE_HELLO, .bytes = 1ull << 60});
    stranger_expect_closed(rude);
    stranger_expect_closed(early);
    stranger_expect_closed(giant);
    assert_int_equal(xfer_peer_open(b, xfer_name(x), &peer, &why), 0);
    if (xfer_peer_wait(peer, MS, &why)) fail_msg("%s", why.text);
    for (int i = 0; i < 200; i++)
        stranger_expect_closed(silent[i]);
    struct xfer_stats stats;
    xfer_stats_get(x, &stats);
    assert_true(stats.rejected >= 203);
    xfer_close(b);
    xfer_close(x);
}

static void send_write(int fd, struct wire_header h, struct wire_desc d)
{
    uint8_t desc[WIRE_DESC];
    send_header(fd, h);
    wire_desc_encode(&d, desc);
    assert_int_equal(send(fd, desc, sizeof desc, MSG_NOSIGNAL), WIRE_DESC);
}

/* Frames of somebody who has the token and no manners. */
static void malformed_frames_end_the_link(void **state)
{
    (void)state;
    struct xfer *x;
    struct xfer_mem *mem;
    struct wire_header ready, h;
    struct why why = {0};
    assert_int_equal(xfer_open(&x, NULL, &why), 0);
    assert_int_equal(xfer_alloc(x, 4096, 0, &mem, &why), 0);
    uint64_t base = (uintptr_t)xfer_mem_base(mem);
    /* Lanes without a control connection belong to no link. */
    int fd = speak(xfer_port(x), WIRE_DATA_LANE, 1, &ready);
    assert_int_equal(ready.count, -ERR_PEER);
    stranger_expect_closed(fd);
    fd = dial(x);
    close(fd);
    /* Sums that do not match, rows that overlap, frames of the other side. */
    struct wire_desc d = {.addr = base, .bytes = 100, .rows = 1};
    struct wire_desc rows = {.addr = base, .bytes = 50, .rows = 2, .pitch = 9};
    static const uint8_t types[] = {WIRE_DATA, WIRE_DONE,  WIRE_PONG,
                                    WIRE_GONE, WIRE_FENCE, WIRE_HELLO,
                                    WIRE_PING};
    for (int i = 0; i < 2 + (int)sizeof types; i++) {
        int control =
            speak(xfer_port(x), WIRE_CONTROL, 10 + (uint64_t)i, &ready);
        assert_int_equal(ready.count, 0);
        fd = speak(xfer_port(x), WIRE_DATA_LANE, 10 + (uint64_t)i, &ready);
        assert_int_equal(ready.count, 0);
        h = (struct wire_header){.type = WIRE_WRITE, .count = 1, .bytes = 99};
        if (i == 0) send_write(fd, h, d);
        h.bytes = 100;
        if (i == 1) send_write(fd, h, rows);
        h.type = i > 1 ? types[i - 2] : WIRE_WRITE;
        if (i > 1) send_header(fd, h);
        stranger_expect_closed(fd);
        stranger_expect_closed(control);
    }
    /* Half a payload, then nothing: applied as far as it came, no more. */
    int control = speak(xfer_port(x), WIRE_CONTROL, 99, &ready);
    fd = speak(xfer_port(x), WIRE_DATA_LANE, 99, &ready);
    h = (struct wire_header){.type = WIRE_WRITE, .count = 1, .bytes = 100};
    send_write(fd, h, d);
    assert_int_equal(send(fd, "half", 4, MSG_NOSIGNAL), 4);
    xfer_deregister(mem); /* does not wait for the other half */
    close(fd);
    close(control);
    xfer_close(x);
}

/* A peer that asks and asks and never listens is not read any more. */
static void answers_nobody_reads_do_not_pile_up(void **state)
{
    (void)state;
    struct xfer *x;
    struct wire_header ready;
    struct why why = {0};
    uint8_t pings[512 * WIRE_HEADER];
    for (size_t i = 0; i < sizeof pings; i += WIRE_HEADER)
        wire_header_encode(&(struct wire_header){.type = WIRE_PING}, pings + i);
    assert_int_equal(xfer_open(&x, NULL, &why), 0);
    int fd = speak(xfer_port(x), WIRE_CONTROL, 5, &ready);
    size_t before = mem_live();
    struct pollfd pfd = {.fd = fd, .events = POLLOUT};
    while (poll(&pfd, 1, 300) == 1)
        assert_true(send(fd, pings, sizeof pings, MSG_DONTWAIT) > 0);
    assert_true(mem_live() < before + 2000);
    /* As soon as it listens it is answered again. */
    for (uint8_t bytes[WIRE_HEADER]; !pfd.revents; poll(&pfd, 1, 0))
        recv_all(fd, bytes, sizeof bytes);
    close(fd);
    xfer_close(x);
}

/* A peer that is dialled but does not speak our protocol, or not at all. */
static void servers_that_are_no_engines(void **state)
{
    (void)state;
    struct xfer *x;
    struct xfer_peer *peer;
    struct why why = {0};
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof in;
    char name[40];
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&in, n), 0);
    assert_int_equal(listen(fd, 10), 0);
    getsockname(fd, (struct sockaddr *)&in, &n);
    snprintf(name, sizeof name, "127.0.0.1:%d", ntohs(in.sin_port));
    assert_int_equal(xfer_open(&x, NULL, &why), 0);
    assert_int_equal(xfer_peer_open(x, name, &peer, &why), 0);
    assert_int_equal(xfer_peer_wait(peer, MS, &why), ERR_PEER);
    assert_non_null(strstr(why.text, "no handshake in time"));
    int talker = accept(fd, NULL, NULL); /* the first attempt, given up */
    close(talker);
    xfer_peer_close(peer);
    close(fd);
    xfer_close(x);
}

/* ---- memory ---- */

static void registrations(void **state)
{
    (void)state;
    struct xfer *x;
    struct xfer_mem *a, *b, *mems[1000];
    struct why why = {0};
    static char bytes[1000][64];
    assert_int_equal(xfer_open(&x, NULL, &why), 0);
    for (int i = 0; i < 1000; i += 2)
        assert_int_equal(
            xfer_register(x, bytes[i], 64, "cpu", 0, &mems[i], &why), 0);
    for (int i = 999; i > 0; i -= 2)
        assert_int_equal(
            xfer_register(x, bytes[i], 64, "cpu", 0, &mems[i], &why), 0);
    assert_int_equal(xfer_register(x, bytes[4] + 63, 2, "cpu", 0, &a, &why),
                     ERR_EXISTS);
    assert_ptr_equal(xfer_mem_find(x, bytes[7]), mems[7]);
    assert_null(xfer_mem_find(x, bytes[7] + 1));
    for (int i = 0; i < 1000; i += 3)
        xfer_deregister(mems[i]);
    assert_null(xfer_mem_find(x, bytes[3]));
    assert_int_equal(xfer_register(x, bytes[3], 64, "cuda:0", 0, &a, &why),
                     ERR_UNSUPPORTED);
    assert_int_equal(xfer_register(x, bytes[3], 0, NULL, 0, &a, &why),
                     ERR_INVALID);
    assert_int_equal(xfer_register(x, bytes[3], 64, NULL, 8, &a, &why),
                     ERR_INVALID);
    assert_int_equal(xfer_register(x, bytes[3], 64, NULL, 0, &a, &why), 0);
    assert_int_not_equal(xfer_mem_key(a), xfer_mem_key(mems[1]));
    /* Far more than this machine has; only what is touched takes room. */
    assert_int_equal(xfer_alloc(x, (size_t)1 << 36, 0, &b, &why), 0);
    char *big = xfer_mem_base(b);
    big[0] = 1;
    big[((size_t)1 << 36) - 1] = 2;
    assert_int_equal(big[4096], 0);
    struct xfer_peer *self;
    assert_int_equal(xfer_peer_open(x, xfer_name(x), &self, &why), 0);
    struct xfer_op op = {.kind = XFER_WRITE,
                         .local = big,
                         .remote = (uintptr_t)big + ((size_t)1 << 35),
                         .bytes = 10};
    assert_int_equal(xfer_transfer(self, &op, 1, MS, &why), 0);
    assert_int_equal(big[(size_t)1 << 35], 1);
    xfer_close(x);
}

/* Whatever cannot be allocated is an error that starts nothing. */
static void submit_survives_every_failed_allocation(void **state)
{
    (void)state;
    struct fixture f;
    start(&f, XFER_VIA_ALL);
    size_t before = mem_live();
    struct xfer_op op = whole(&f);
    int rc = ERR_NOMEM, tries = 0;
    while (rc) {
        struct why why = {0};
        mem_fail_at((size_t)++tries);
        rc = xfer_submit(f.peer, &op, 1, 9, &why);
        mem_fail_at(0);
        if (!rc) break;
        assert_int_equal(rc, ERR_NOMEM);
        assert_int_equal(why.code, ERR_NOMEM);
        assert_int_equal(mem_live(), before);
    }
    assert_true(tries > 2);
    struct xfer_done done;
    assert_int_equal(xfer_wait(f.x, 9, MS, &done), 0);
    assert_int_equal(done.rc, 0);
    stop(&f);
}

static void nothing_is_leaked(void **state)
{
    (void)state;
    size_t before = mem_live();
    struct fixture f;
    start(&f, XFER_VIA_ALL);
    submit_many(&f);
    completions(&f);
    stop(&f);
    assert_int_equal(mem_live(), before);
}

int main(int argc, char **argv)
{
    if (argc == 6 && !strcmp(argv[1], "--target")) return target_main(argv + 2);
    via_count = vias_here(vias, via_count);
    const struct CMUnitTest tests[] = {
        T(probes_find_out),
        T(killed_peer_fails_what_is_open),
        T(hung_peer_is_dead_after_three_beats),
        T(restarted_peer_works_at_once),
        T(expelled_initiator_touches_nothing),
        T(a_pass_is_for_one_and_ends),
        T(passes_of_ourselves),
        T(closing_ends_every_batch),
        T(target_that_closes_is_noticed),
        T(peer_that_starts_later),
        T(names_are_checked),
        T(ipv6_works_where_there_is_some),
        T(tokens_must_match),
        T(strangers_stop_nobody),
        T(malformed_frames_end_the_link),
        T(answers_nobody_reads_do_not_pile_up),
        T(servers_that_are_no_engines),
        T(registrations),
        T(submit_survives_every_failed_allocation),
        T(nothing_is_leaked),
    };
    return cmocka_run_group_tests_name("peers", tests, NULL, NULL);
}
