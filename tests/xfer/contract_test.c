/* The contract of xfer/transport.h, over every way: the same tests against a
 * target in another process (and, for self, in this one), data verified; and
 * against one in a simulated machine room, whose network splits, delays and
 * loses what is sent. */
#include "tests/test.h"

#include "tests/xfer/pem.h"
#include "tests/xfer/sim_target.h"
#include "tests/xfer/ways.h"

#include <poll.h>

/* As "lanes", with certificates on both sides. */
static const struct way tls_way = {"tls", XFER_VIA_TCP, 2, "tcp, 2 lanes"};

/* The same engine over sim.h, with several seeds each; what is sent arrives
 * late, in pieces, and in one row packets are lost. */
static const struct simulated {
    struct way way;
    const char *host; /* of the initiator */
    uint64_t delay_us, lose_one_in;
} simulated[] = {
    {{"simulated tcp", XFER_VIA_TCP, 1, "tcp, 1 lane"}, "10.0.0.2", 100, 0},
    {{"simulated lanes", XFER_VIA_TCP, 3, "tcp, 3 lanes"}, "10.0.0.2", 3000, 0},
    {{"simulated loss", XFER_VIA_TCP, 2, "tcp, 2 lanes"}, "10.0.0.2", 100, 500},
    {{"simulated unix", XFER_VIA_UNIX, 2, "unix"}, SIM_TARGET_HOST, 100, 0},
    {{"simulated cma", XFER_VIA_CMA | XFER_VIA_TCP, 1, "cma"},
     SIM_TARGET_HOST,
     100,
     0},
    {{"simulated memfd", XFER_VIA_MEMFD | XFER_VIA_TCP, 1, "memfd mapping"},
     SIM_TARGET_HOST,
     100,
     0},
};
enum { SIMULATED = sizeof simulated / sizeof *simulated };

#if defined __SANITIZE_ADDRESS__
enum { SEEDS = 2 };
#else
enum { SEEDS = 8 };
#endif

static const struct simulated *simulation_of(const struct way *way)
{
    for (size_t i = 0; i < SIMULATED; i++)
        if (way == &simulated[i].way) return &simulated[i];
    return NULL;
}

/* One initiator, one target, and what the target's memory should be. */
struct pair {
    const struct way *way;
    struct xfer *x;
    struct xfer_peer *peer;
    struct target t;
    struct xfer_mem *local, *self_shared, *self_own;
    char *mine; /* TARGET_BYTES, registered */
    struct pem pem;
    char *mirror; /* of the target's shared, then own memory */
};

static bool over_tls(const struct way *way)
{
    return way == &tls_way;
}

static bool is_self(const struct pair *p)
{
    return p->way->via == XFER_VIA_SELF;
}

static void pair_end(struct pair *p)
{
    xfer_close(p->x);
    target_end(&p->t, 0);
    if (over_tls(p->way)) pem_drop(&p->pem);
    unsetenv("BATON_TEST_PEM");
    munmap(p->mine, TARGET_BYTES);
    munmap(p->mirror, 2 * TARGET_BYTES);
}

static void pair_start(struct pair *p, const struct way *way)
{
    struct xfer_options opt = {
        .via = way->via, .lanes = (unsigned)way->lanes, .token = "secret"};
    struct why why = {0};
    char text[200];
    const struct simulated *sim = simulation_of(way);
    *p = (struct pair){.way = way};
    if (sim) opt.host = sim->host;
    if (over_tls(way) && pem_make(&p->pem)) SKIP("no openssl program");
    if (over_tls(way)) setenv("BATON_TEST_PEM", p->pem.dir, 1);
    opt.tls_cert = opt.tls_ca = over_tls(way) ? p->pem.cert : NULL;
    opt.tls_key = over_tls(way) ? p->pem.key : NULL;
    p->mine = bytes_new(TARGET_BYTES);
    p->mirror = bytes_new(2 * TARGET_BYTES);
    int rc = xfer_open(&p->x, &opt, &why);
    if (rc == ERR_UNSUPPORTED && over_tls(way)) pem_drop(&p->pem);
    if (rc == ERR_UNSUPPORTED) SKIP("%s", why.text);
    assert_int_equal(rc, 0);
    assert_int_equal(
        xfer_register(p->x, p->mine, TARGET_BYTES, NULL, 0, &p->local, &why),
        0);
    if (is_self(p)) {
        assert_int_equal(
            xfer_alloc(p->x, TARGET_BYTES, 0, &p->self_shared, &why), 0);
        assert_int_equal(xfer_alloc(p->x, TARGET_BYTES, 0, &p->self_own, &why),
                         0);
        snprintf(p->t.name, sizeof p->t.name, "%s", xfer_name(p->x));
        p->t.shared = (uintptr_t)xfer_mem_base(p->self_shared);
        p->t.shared_key = xfer_mem_key(p->self_shared);
        p->t.own = (uintptr_t)xfer_mem_base(p->self_own);
        p->t.own_key = xfer_mem_key(p->self_own);
    } else if (sim) {
        sim_target_start(&p->t, target_via(way->via), way->lanes, "secret");
    } else {
        target_start(&p->t, target_via(way->via), 0, way->lanes, "secret");
    }
    assert_int_equal(xfer_peer_open(p->x, p->t.name, &p->peer, &why), 0);
    rc = xfer_peer_wait(p->peer, 10000, &why);
    if (rc) fail_msg("%s: %s", way->name, why.text);
    xfer_peer_explain(p->peer, text, sizeof text);
    if (!sim && strstr(text, "cma not permitted") && getenv("BATON_EMULATOR")) {
        pair_end(p);
        SKIP("the emulator has no process_vm_writev");
    }
    if (strncmp(text, way->explained, strlen(way->explained)) != 0)
        fail_msg("%s is explained as: %s", way->name, text);
}

static char *mirror_of(struct pair *p, uint64_t addr)
{
    if (addr - p->t.shared < TARGET_BYTES)
        return p->mirror + (addr - p->t.shared);
    return p->mirror + TARGET_BYTES + (addr - p->t.own);
}

static uint64_t remote_hash(struct pair *p, uint64_t addr)
{
    return is_self(p) ? target_hash((void *)(uintptr_t)addr, TARGET_BYTES)
                      : target_hash_of(&p->t, addr);
}

static void check_memory(struct pair *p)
{
    assert_int_equal(remote_hash(p, p->t.shared),
                     target_hash(p->mirror, TARGET_BYTES));
    assert_int_equal(remote_hash(p, p->t.own),
                     target_hash(p->mirror + TARGET_BYTES, TARGET_BYTES));
}

/* Applies a WRITE to the mirror. */
static void mirror_apply(struct pair *p, const struct xfer_op *op)
{
    uint32_t rows = op->rows ? op->rows : 1;
    for (uint32_t row = 0; row < rows; row++)
        memcpy(mirror_of(p, op->remote + row * op->remote_pitch),
               (char *)op->local + row * op->local_pitch, op->bytes);
}

static void transfer(struct pair *p, const struct xfer_op *ops, size_t n)
{
    struct why why = {0};
    int rc = xfer_transfer(p->peer, ops, n, 20000, &why);
    if (rc) fail_msg("%s: %s", p->way->name, why.text);
}

/* ---- what holds for every way ---- */

/* Both directions, both memories, sizes around every boundary, unaligned. */
static void sizes(struct pair *p)
{
    static const size_t at[] = {
        1,      2,    7,    63,    64,    65,      511,
        512,    4095, 4097, 65535, 65537, 1 << 20, (1 << 20) + 3,
        3000001};
    char *back = p->mine + TARGET_BYTES / 2;
    bytes_random(p->mine, TARGET_BYTES, 1);
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        uint64_t base = i % 2 ? p->t.shared : p->t.own;
        struct xfer_op op = {.kind = XFER_WRITE,
                             .local = p->mine + i,
                             .remote = base + 3 * i + 1,
                             .bytes = at[i],
                             .key = i % 3   ? 0
                                    : i % 2 ? p->t.shared_key
                                            : p->t.own_key};
        transfer(p, &op, 1);
        mirror_apply(p, &op);
        if (at[i] > TARGET_BYTES / 2 - 100) continue;
        op.kind = XFER_READ;
        op.local = back + 5;
        memset(back, 0, at[i] + 10);
        transfer(p, &op, 1);
        assert_memory_equal(back + 5, p->mine + i, at[i]);
        assert_int_equal(back[4] | back[at[i] + 5], 0);
        bytes_random(p->mine, TARGET_BYTES, i);
    }
    check_memory(p);
}

/* One batch of thousands of operations, to both memories, with gaps. */
static void many_operations(struct pair *p)
{
    enum { COUNT = 12000 };
    struct xfer_op *ops = calloc(COUNT, sizeof *ops);
    uint64_t seed = 5, at = 0;
    bytes_random(p->mine, TARGET_BYTES, 2);
    for (size_t i = 0; i < COUNT; i++) {
        uint64_t bytes = rng_next(&seed) % 300; /* 0 too */
        uint64_t remote = (i % 5 ? p->t.shared : p->t.own) + at;
        ops[i] = (struct xfer_op){.kind = XFER_WRITE,
                                  .local = p->mine + TARGET_BYTES - at - bytes,
                                  .remote = remote,
                                  .bytes = bytes};
        mirror_apply(p, &ops[i]);
        at += bytes + rng_next(&seed) % 3;
    }
    transfer(p, ops, COUNT);
    check_memory(p);
    /* The same ranges back, into zeroed memory: as they were. */
    char *copy = bytes_new(TARGET_BYTES);
    memcpy(copy, p->mine, TARGET_BYTES);
    memset(p->mine, 0, TARGET_BYTES);
    for (size_t i = 0; i < COUNT; i++)
        ops[i].kind = XFER_READ;
    transfer(p, ops, COUNT);
    for (size_t i = 0; i < COUNT; i++)
        assert_memory_equal(ops[i].local,
                            copy + ((char *)ops[i].local - p->mine),
                            ops[i].bytes);
    munmap(copy, TARGET_BYTES);
    free(ops);
}

static void strided(struct pair *p)
{
    uint64_t seed = 11;
    for (int round = 0; round < 24; round++) {
        static const uint64_t sizes_of[] = {1, 5, 64, 700, 4096, 70000};
        uint64_t bytes = sizes_of[round % 6];
        uint64_t local_pitch = bytes + rng_next(&seed) % 3 * 40;
        uint64_t remote_pitch = bytes + rng_next(&seed) % 2 * 24;
        uint64_t widest =
            local_pitch > remote_pitch ? local_pitch : remote_pitch;
        uint32_t rows =
            (uint32_t)(1 + rng_next(&seed) % (TARGET_BYTES / widest - 1));
        if (rows > 3000) rows = 3000;
        bytes_random(p->mine, TARGET_BYTES, (uint64_t)round);
        struct xfer_op op = {.kind = XFER_WRITE,
                             .rows = rows,
                             .local = p->mine + 3,
                             .remote = (round % 2 ? p->t.shared : p->t.own) + 1,
                             .bytes = bytes,
                             .local_pitch = local_pitch,
                             .remote_pitch = remote_pitch};
        transfer(p, &op, 1);
        mirror_apply(p, &op);
        memset(p->mine, 0, TARGET_BYTES);
        op.kind = XFER_READ;
        transfer(p, &op, 1);
        for (uint32_t row = 0; row < rows; row++) {
            char *got = p->mine + 3 + row * local_pitch;
            assert_memory_equal(
                got, mirror_of(p, op.remote + row * remote_pitch), bytes);
            if (local_pitch > bytes) assert_int_equal(got[bytes], 0);
        }
    }
    check_memory(p);
}

static void refused(struct pair *p, struct xfer_op op, int expected)
{
    struct why why = {0};
    assert_int_equal(xfer_transfer(p->peer, &op, 1, 20000, &why), expected);
    if (expected != ERR_RANGE) return;
    const char *named = strstr(why.text, "0x"); /* the range, or a part */
    uint64_t addr = named ? strtoull(named, NULL, 16) : 0;
    if (addr < op.remote || addr >= op.remote + TARGET_BYTES * 2)
        fail_msg("%s: %s does not name 0x%" PRIx64, p->way->name, why.text,
                 op.remote);
}

/* Wrong ranges, keys and directions are refused, and nothing else suffers. */
static void bad_ranges(struct pair *p)
{
    struct xfer_op good = {.kind = XFER_WRITE,
                           .local = p->mine,
                           .remote = p->t.shared,
                           .bytes = 100};
    struct xfer_op op = good;
    op.remote = p->t.shared + TARGET_BYTES - 99;
    refused(p, op, ERR_RANGE);
    op.kind = XFER_READ;
    refused(p, op, ERR_RANGE);
    op.remote = 4096;
    refused(p, op, ERR_RANGE);
    op = good;
    op.remote = p->t.own - 1;
    refused(p, op, ERR_RANGE);
    op = good;
    op.rows = 1000; /* the last row leaves */
    op.local_pitch = 100;
    op.remote_pitch = TARGET_BYTES / 999 + 1;
    op.remote += 50;
    refused(p, op, ERR_RANGE);
    op = good;
    op.key = p->t.shared_key + 1;
    refused(p, op, ERR_STALE);
    if (!is_self(p)) {
        op = good;
        op.remote = p->t.secret + 4096;
        refused(p, op, ERR_RANGE); /* may only be read */
        op.kind = XFER_READ;
        transfer(p, &op, 1);
    }
    struct why why = {0};
    op = good;
    op.local = &why;
    assert_int_equal(xfer_submit(p->peer, &op, 1, 1, &why), ERR_RANGE);
    op = good;
    op.rows = 2;
    assert_int_equal(xfer_submit(p->peer, &op, 1, 1, &why), ERR_INVALID);
    /* One bad operation among many good ones. */
    struct xfer_op mixed[50];
    for (size_t i = 0; i < 50; i++)
        mixed[i] = good;
    mixed[31].remote = 64;
    assert_int_equal(xfer_transfer(p->peer, mixed, 50, 20000, &why), ERR_RANGE);
    transfer(p, &good, 1);
    mirror_apply(p, &good);
    check_memory(p);
}

/* Two halves that lie side by side and were registered apart. */
static void register_halves(struct xfer *x, char *at, size_t half,
                            struct xfer_mem *out[2])
{
    for (int i = 0; i < 2; i++)
        assert_int_equal(xfer_register(x, at + (size_t)i * half, half, NULL, 0,
                                       &out[i], NULL),
                         0);
}

/* Operations that touch on both sides, where one registration ends and the
 * next begins, here and there: each is checked for itself, and none that lies
 * in both is taken. */
static void neighbours(struct pair *p)
{
    enum { HALF = 64 << 10, SIDE = 1000 };
    struct xfer_mem *here[2], *there[2] = {NULL, NULL};
    char *local = bytes_new(2 * HALF), *own = NULL;
    uint64_t remote;
    if (is_self(p)) {
        own = bytes_new(2 * HALF);
        register_halves(p->x, own, HALF, there);
        remote = (uintptr_t)own;
    } else {
        remote = target_ask(&p->t, "halves 65536");
    }
    register_halves(p->x, local, HALF, here);
    bytes_random(local, 2 * HALF, 3);
    bytes_random(p->mine, 2 * SIDE, 4);
    struct xfer_op ops[2];
    for (int i = 0; i < 2; i++)
        ops[i] = (struct xfer_op){.local = local + HALF - SIDE + i * SIDE,
                                  .remote =
                                      remote + HALF - SIDE + (uint64_t)i * SIDE,
                                  .bytes = SIDE};
    transfer(p, ops, 2);
    ops[0].kind = ops[1].kind = XFER_READ;
    memcpy(p->mine, ops[0].local, 2 * SIDE);
    memset(ops[0].local, 0, 2 * SIDE);
    transfer(p, ops, 2);
    assert_memory_equal(ops[0].local, p->mine, 2 * SIDE);
    struct xfer_op both = {
        .local = p->mine, .remote = ops[0].remote, .bytes = 2 * SIDE};
    refused(p, both, ERR_RANGE);
    both.kind = XFER_READ;
    refused(p, both, ERR_RANGE);
    both.local = ops[0].local;
    both.remote = p->t.shared;
    struct why why = {0};
    assert_int_equal(xfer_submit(p->peer, &both, 1, 1, &why), ERR_RANGE);
    for (int i = 0; i < 2; i++) {
        xfer_deregister(here[i]);
        if (own) xfer_deregister(there[i]);
    }
    munmap(local, 2 * HALF);
    if (own) munmap(own, 2 * HALF);
}

/* Every batch once, in xfer_poll, with the descriptor readable before. */
static void completions(struct pair *p)
{
    enum { COUNT = 400 };
    unsigned char seen[COUNT] = {0};
    struct xfer_done done[16];
    struct why why = {0};
    for (size_t i = 0; i < COUNT; i++) {
        struct xfer_op op = {.kind = i % 2 ? XFER_WRITE : XFER_READ,
                             .local = p->mine + i * 8000,
                             .remote = p->t.own + i * 8000,
                             .bytes = i * 20};
        assert_int_equal(xfer_submit(p->peer, &op, 1, i, &why), 0);
        if (i % 2) mirror_apply(p, &op);
    }
    for (size_t count = 0; count < COUNT;) {
        struct pollfd pfd = {.fd = xfer_fd(p->x), .events = POLLIN};
        assert_int_equal(poll(&pfd, 1, 20000), 1);
        size_t n = xfer_poll(p->x, done, 16);
        assert_true(n > 0);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(done[i].rc, 0);
            assert_int_equal(done[i].bytes, done[i].tag * 20);
            assert_int_equal(seen[done[i].tag]++, 0);
        }
        count += n;
    }
    assert_int_equal(xfer_poll(p->x, done, 16), 0);
    struct pollfd pfd = {.fd = xfer_fd(p->x), .events = POLLIN};
    assert_int_equal(poll(&pfd, 1, 0), 0);
    struct xfer_stats stats;
    xfer_stats_get(p->x, &stats);
    assert_int_equal(stats.batches_open, 0);
    check_memory(p);
}

/* A canceled batch that is complete writes and reads nothing any more. */
static void cancel(struct pair *p)
{
    struct xfer_op ops[8];
    struct xfer_done done;
    struct why why = {0};
    memset(p->mine, 0x11, TARGET_BYTES);
    size_t part = TARGET_BYTES / 8;
    int canceled = 0;
    transfer(p,
             &(struct xfer_op){.local = p->mine,
                               .remote = p->t.shared,
                               .bytes = TARGET_BYTES},
             1);
    for (int round = 0; round < 8 || (!canceled && round < 500); round++) {
        for (size_t i = 0; i < 8; i++)
            ops[i] = (struct xfer_op){.kind = XFER_WRITE,
                                      .local = p->mine + i * part,
                                      .remote = p->t.shared + i * part,
                                      .bytes = part};
        assert_int_equal(xfer_submit(p->peer, ops, 8, 77, &why), 0);
        xfer_cancel(p->x, 77);
        assert_int_equal(xfer_wait(p->x, 77, 20000, &done), 0);
        assert_true(done.rc == 0 || done.rc == ERR_CANCELED);
        canceled += done.rc == ERR_CANCELED;
        /* From now on the source is ours again: this must not arrive. */
        memset(p->mine, 0xee, TARGET_BYTES);
        transfer(p,
                 &(struct xfer_op){.kind = XFER_READ,
                                   .local = p->mine,
                                   .remote = p->t.shared,
                                   .bytes = TARGET_BYTES},
                 1);
        assert_null(memchr(p->mine, 0xee, TARGET_BYTES));
        memset(p->mine, 0x11, TARGET_BYTES);
    }
    assert_true(canceled > 0);
    assert_int_equal(xfer_cancel(p->x, 77), 0);
}

static unsigned notes_got(struct pair *p, unsigned count)
{
    char command[40];
    if (is_self(p)) return target_notes(p->x, count);
    snprintf(command, sizeof command, "notes %u", count);
    return (unsigned)target_ask(&p->t, command);
}

static int note_only(struct pair *p, uint64_t tag, size_t bytes)
{
    struct target_note says = {.hash = target_hash(NULL, 0)};
    struct why why = {0};
    return xfer_submit_batch(
        p->peer,
        &(struct xfer_batch){.tag = tag, .note = &says, .note_bytes = bytes},
        &why);
}

/* The target reads of bytes only when they are there. */
static void notes(struct pair *p)
{
    enum { COUNT = 40, FULL = 1024 };
    struct xfer_done done;
    struct why why = {0};
    size_t part = TARGET_BYTES / COUNT / 8 * 8;
    bytes_random(p->mine, TARGET_BYTES, 77);
    if (!is_self(p)) target_tell(&p->t, "notes 40");
    for (uint64_t i = 0; i < COUNT; i++) {
        struct xfer_op ops[2] = {{.local = p->mine + i * part,
                                  .remote = p->t.shared + i * part,
                                  .bytes = part},
                                 {.local = p->mine + i * part,
                                  .remote = p->t.own + i * part,
                                  .bytes = part}};
        struct target_note says = {ops[i % 2].remote, part,
                                   target_hash(ops[0].local, part)};
        struct xfer_batch batch = {.ops = ops,
                                   .count = 2,
                                   .tag = i,
                                   .note = &says,
                                   .note_bytes = sizeof says};
        assert_int_equal(xfer_submit_batch(p->peer, &batch, &why), 0);
        mirror_apply(p, &ops[0]);
        mirror_apply(p, &ops[1]);
    }
    assert_int_equal(
        is_self(p) ? target_notes(p->x, COUNT) : target_answer(&p->t), COUNT);
    for (uint64_t i = 0; i < COUNT; i++) {
        assert_int_equal(xfer_wait(p->x, i, 20000, &done), 0);
        assert_int_equal(done.rc, 0);
    }
    /* The queue has an end, and room again once the target has read. */
    for (uint64_t i = 0; i <= FULL; i++)
        assert_int_equal(note_only(p, i, sizeof(struct target_note)), 0);
    for (uint64_t i = 0; i <= FULL; i++) {
        assert_int_equal(xfer_wait(p->x, i, 20000, &done), 0);
        assert_int_equal(done.rc, i < FULL ? 0 : ERR_AGAIN);
    }
    assert_int_equal(notes_got(p, FULL), FULL);
    assert_int_equal(note_only(p, 1, sizeof(struct target_note)), 0);
    assert_int_equal(xfer_wait(p->x, 1, 20000, &done), 0);
    assert_int_equal(done.rc, 0);
    assert_int_equal(notes_got(p, 1), 1);
    assert_int_equal(note_only(p, 1, XFER_NOTE_MAX + 1), ERR_INVALID);
    check_memory(p);
}

/* A canceled batch says nothing, another one does. */
static void canceled_notes(struct pair *p)
{
    struct xfer_done done;
    struct why why = {0};
    unsigned expected = 0;
    for (uint64_t i = 0; i < 40; i++) {
        struct xfer_op op = {.local = p->mine,
                             .remote = p->t.own,
                             .bytes = TARGET_BYTES >> i / 4};
        struct target_note says = {.hash = target_hash(NULL, 0)};
        struct xfer_batch batch = {.ops = &op,
                                   .count = 1,
                                   .tag = i,
                                   .note = &says,
                                   .note_bytes = sizeof says};
        assert_int_equal(xfer_submit_batch(p->peer, &batch, &why), 0);
        xfer_cancel(p->x, i);
        assert_int_equal(xfer_wait(p->x, i, 20000, &done), 0);
        assert_true(done.rc == 0 || done.rc == ERR_CANCELED);
        expected += done.rc == 0;
    }
    assert_int_equal(note_only(p, 1, sizeof(struct target_note)), 0);
    assert_int_equal(notes_got(p, expected + 1), expected + 1);
    assert_int_equal(xfer_wait(p->x, 1, 20000, &done), 0);
}

static void deregistered(struct pair *p, uint64_t addr, const char *command)
{
    struct xfer_op op = {.kind = XFER_WRITE,
                         .local = p->mine,
                         .remote = addr,
                         .bytes = TARGET_BYTES};
    struct xfer_done done;
    struct why why = {0};
    memset(p->mine, 0x22, TARGET_BYTES);
    for (uint64_t i = 0; i < 6; i++)
        assert_int_equal(xfer_submit(p->peer, &op, 1, 100 + i, &why), 0);
    if (is_self(p))
        xfer_deregister(addr == p->t.own ? p->self_own : p->self_shared);
    else
        target_ask(&p->t, command);
    for (uint64_t i = 0; i < 6; i++) {
        assert_int_equal(xfer_wait(p->x, 100 + i, 20000, &done), 0);
        assert_true(done.rc == 0 || done.rc == ERR_RANGE);
    }
    refused(p, op, ERR_RANGE);
}

/* The target takes memory back in the middle of writes to it; what it then
 * puts there stays. */
static void deregister(struct pair *p)
{
    deregistered(p, p->t.own, "drop own");
    if (!is_self(p)) {
        memset(p->mirror + TARGET_BYTES, 0x5a, TARGET_BYTES);
        assert_int_equal(remote_hash(p, p->t.own),
                         target_hash(p->mirror + TARGET_BYTES, TARGET_BYTES));
        /* New memory is reachable as soon as it is registered. */
        uint64_t more = target_ask(&p->t, "more 4194304");
        struct xfer_op op = {.kind = XFER_WRITE,
                             .local = p->mine,
                             .remote = more + 5,
                             .bytes = 100000};
        transfer(p, &op, 1);
    }
    deregistered(p, p->t.shared, "drop shared");
}

static void keep_the_contract(const struct way *way)
{
    struct pair p;
    pair_start(&p, way);
    sizes(&p);
    many_operations(&p);
    strided(&p);
    bad_ranges(&p);
    neighbours(&p);
    completions(&p);
    notes(&p);
    canceled_notes(&p);
    cancel(&p);
    deregister(&p);
    pair_end(&p);
}

static void initiator_main(void *arg)
{
    keep_the_contract(arg);
}

/* The first process of a simulation. */
static void director_main(void *arg)
{
    const struct simulated *sim = simulation_of(arg);
    sim_delay(sim->delay_us);
    sim_lose(sim->lose_one_in);
    struct sim_proc *p = sim_start(sim->host, initiator_main, arg);
    while (sim_alive(p))
        sim_sleep(100);
    if (sim_blocks(p) || sim_files(p))
        sim_fail("the initiator leaves %zu blocks and %zu descriptors",
                 sim_blocks(p), sim_files(p));
}

static void every_way_keeps_the_contract(void **state)
{
    const struct simulated *sim = simulation_of(*state);
    if (!sim) {
        keep_the_contract(*state);
        return;
    }
#ifdef __SANITIZE_THREAD__
    SKIP("fibers of one thread: nothing for the thread sanitizer to see");
#endif
    const char *one = getenv("BATON_SIM_SEED");
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        sim_run(one ? strtoull(one, NULL, 10) : seed, director_main, *state);
}

int main(int argc, char **argv)
{
    if (argc == 6 && !strcmp(argv[1], "--target")) return target_main(argv + 2);
    enum { REAL = WAY_COUNT + 1, ALL = REAL + SIMULATED };
    struct CMUnitTest tests[ALL];
    for (size_t i = 0; i < ALL; i++) {
        const struct way *way = i < WAY_COUNT ? &ways[i]
                                : i < REAL    ? &tls_way
                                              : &simulated[i - REAL].way;
        tests[i] = (struct CMUnitTest){way->name, every_way_keeps_the_contract,
                                       NULL, NULL, (void *)(uintptr_t)way};
    }
    return cmocka_run_group_tests_name("contract", tests, NULL, NULL);
}
