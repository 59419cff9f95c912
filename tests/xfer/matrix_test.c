/* Every way with sizes from a byte to 64 MiB (a GiB where BATON_TEST_GIB is
 * set), unaligned, in up to 100 000 operations and strided, there and back.
 * The target's process hashes what lies around each range; here a mirror says
 * what it should be. */
#include "tests/test.h"

#include "tests/xfer/target.h"
#include "tests/xfer/ways.h"

enum { GUARD = 64, MS = 120000 };
#ifdef __SANITIZE_THREAD__ /* slow */
enum { ALL = 24 << 20 };
#else
enum { ALL = 64 << 20 };
#endif

struct fixture {
    const struct way *way;
    struct target t;
    struct xfer *x;
    struct xfer_peer *peer;
    size_t bytes;      /* of each of these */
    char *from, *back; /* ours: written from, read into */
    char *mirror;      /* what the target's memory should be */
    uint64_t theirs;   /* the target's, or, by way self, ours */
    unsigned cases;
};

static bool is_self(const struct fixture *f)
{
    return f->way->via == XFER_VIA_SELF;
}

static void start(struct fixture *f, const struct way *way, size_t bytes)
{
    struct xfer_options opt = {.via = way->via, .lanes = (unsigned)way->lanes};
    struct xfer_mem *mem;
    struct why why = {0};
    char command[60];
    *f = (struct fixture){.way = way, .bytes = bytes};
    f->from = bytes_new(bytes);
    f->back = bytes_new(bytes);
    bytes_random(f->from, bytes, 1);
    int rc = xfer_open(&f->x, &opt, &why);
    if (rc == ERR_UNSUPPORTED) SKIP("%s", why.text);
    assert_int_equal(rc, 0);
    assert_int_equal(xfer_register(f->x, f->from, bytes, NULL, 0, &mem, &why),
                     0);
    assert_int_equal(xfer_register(f->x, f->back, bytes, NULL, 0, &mem, &why),
                     0);
    if (is_self(f)) {
        assert_int_equal(xfer_alloc(f->x, bytes, 0, &mem, &why), 0);
        f->theirs = (uintptr_t)xfer_mem_base(mem);
        snprintf(f->t.name, sizeof f->t.name, "%s", xfer_name(f->x));
    } else {
        bool map = way->via & XFER_VIA_MEMFD;
        target_start(&f->t, target_via(way->via), 0, way->lanes, "");
        snprintf(command, sizeof command, "%s %zu", map ? "more" : "register",
                 bytes);
        f->theirs = target_ask(&f->t, command);
    }
    assert_int_equal(xfer_peer_open(f->x, f->t.name, &f->peer, &why), 0);
    if (xfer_peer_wait(f->peer, MS, &why)) fail_msg("%s", why.text);
}

static void stop(struct fixture *f)
{
    xfer_close(f->x);
    target_end(&f->t, 0);
    munmap(f->from, f->bytes);
    munmap(f->back, f->bytes);
    if (f->mirror) munmap(f->mirror, f->bytes);
}

static uint64_t remote_hash(struct fixture *f, size_t at, size_t n)
{
    char command[100];
    if (is_self(f)) return target_hash((char *)(uintptr_t)f->theirs + at, n);
    snprintf(command, sizeof command, "hash %" PRIu64 " %zu", f->theirs + at,
             n);
    return target_ask(&f->t, command);
}

static void transfer(struct fixture *f, const struct xfer_op *ops, size_t n)
{
    struct why why = {0};
    if (xfer_transfer(f->peer, ops, n, MS, &why))
        fail_msg("%s, case %u: %s", f->way->name, f->cases, why.text);
}

/* Writes, looks at [first, last) of the target and what is around it, reads
 * the same back, and looks at it. Offsets are those of remote. */
static void there_and_back(struct fixture *f, struct xfer_op *ops, size_t n,
                           size_t first, size_t last)
{
    f->cases++;
    transfer(f, ops, n);
    for (size_t i = 0; i < n; i++) {
        const struct xfer_op *op = &ops[i];
        for (uint32_t row = 0; row < (op->rows ? op->rows : 1); row++)
            memcpy(f->mirror + (op->remote - f->theirs) +
                       row * op->remote_pitch,
                   (char *)op->local + row * op->local_pitch, op->bytes);
    }
    first = (first < GUARD ? 0 : first - GUARD) & ~(size_t)7;
    last = last + GUARD > f->bytes ? f->bytes : (last + GUARD) & ~(size_t)7;
    if (remote_hash(f, first, last - first) !=
        target_hash(f->mirror + first, last - first))
        fail_msg("%s, case %u: wrong bytes at the target", f->way->name,
                 f->cases);
    for (size_t i = 0; i < n; i++) {
        ops[i].kind = XFER_READ;
        ops[i].local = f->back + (ops[i].remote - f->theirs);
        ops[i].local_pitch = ops[i].remote_pitch;
    }
    memset(f->back + first, 0x55, last - first);
    transfer(f, ops, n);
    size_t right = 0, others = 0;
    for (size_t i = 0; i < n; i++)
        for (uint32_t row = 0; row < (ops[i].rows ? ops[i].rows : 1); row++) {
            char *at = (char *)ops[i].local + row * ops[i].local_pitch;
            right += !memcmp(at, f->mirror + (at - f->back), ops[i].bytes);
            memset(at, 0x55, ops[i].bytes);
            others++;
        }
    assert_int_equal(right, others);
    char fives[4096];
    memset(fives, 0x55, sizeof fives);
    for (size_t i = first; i < last; i += sizeof fives) {
        size_t part = last - i < sizeof fives ? last - i : sizeof fives;
        others += memcmp(f->back + i, fives, part) != 0;
    }
    assert_int_equal(right, others); /* nothing but what was asked for */
}

static void sizes(struct fixture *f)
{
    static const size_t at[] = {1,
                                2,
                                3,
                                7,
                                8,
                                9,
                                63,
                                64,
                                65,
                                255,
                                256,
                                257,
                                511,
                                512,
                                513,
                                4095,
                                4096,
                                4097,
                                65535,
                                65536,
                                65537,
                                99999,
                                1u << 20,
                                (1u << 20) - 1,
                                (1u << 20) + 1,
                                (4u << 20) + 1,
                                16u << 20};
    static const size_t shifts[][2] = {{0, 0}, {1, 0}, {0, 1}, {3, 5}, {63, 7}};
    for (size_t s = 0; s < sizeof at / sizeof *at; s++)
        for (size_t i = 0; i < 5; i++) {
            if (at[s] > 1 << 20 && i != 3) continue;
            size_t remote = 4096 * (f->cases % 100) + shifts[i][1];
            struct xfer_op op = {.local = f->from + 64 * (f->cases % 1000) +
                                          shifts[i][0],
                                 .remote = f->theirs + remote,
                                 .bytes = at[s]};
            there_and_back(f, &op, 1, remote, remote + at[s]);
        }
    struct xfer_op op = {
        .local = f->from, .remote = f->theirs, .bytes = f->bytes};
    there_and_back(f, &op, 1, 0, f->bytes);
}

/* count operations of 1 to 300 bytes, in no order, with and without gaps. */
static void operations(struct fixture *f, size_t count)
{
    struct xfer_op *ops = calloc(count, sizeof *ops);
    uint64_t seed = count;
    size_t at = 11;
    for (size_t i = 0; i < count; i++) {
        size_t n = 1 + rng_next(&seed) % 300;
        ops[i] = (struct xfer_op){.local = f->from + f->bytes - at - n,
                                  .remote = f->theirs + at,
                                  .bytes = n};
        at += n + rng_next(&seed) % 3;
    }
    for (size_t i = count; i > 1; i--) {
        size_t j = rng_next(&seed) % i;
        struct xfer_op last = ops[i - 1];
        ops[i - 1] = ops[j];
        ops[j] = last;
    }
    there_and_back(f, ops, count, 11, at);
    free(ops);
}

static void strided(struct fixture *f)
{
    static const uint64_t rows[] = {2, 17, 129, 5000}, bytes[] = {1, 100, 4096},
                          gaps[][2] = {{0, 0}, {0, 24}, {9, 0}, {8, 1}};
    for (size_t r = 0; r < 4; r++)
        for (size_t b = 0; b < 3; b++)
            for (size_t g = 0; g < 4; g++) {
                struct xfer_op op = {
                    .rows = (uint32_t)rows[r],
                    .local = f->from + f->cases,
                    .remote = f->theirs + 100 + g,
                    .bytes = bytes[b],
                    .local_pitch = bytes[b] + gaps[g][0],
                    .remote_pitch = bytes[b] + gaps[g][1],
                };
                there_and_back(f, &op, 1, 100 + g,
                               100 + g + rows[r] * op.remote_pitch);
            }
}

static void every_way_moves_everything(void **state)
{
    static const size_t counts[] = {1,    2,    255,  256,   257,
                                    1023, 1024, 1025, 10000, 100000};
    struct fixture f;
    start(&f, *state, ALL);
    f.mirror = bytes_new(ALL);
    sizes(&f);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        operations(&f, counts[i]);
    strided(&f);
    stop(&f);
}

static void a_gib_there_and_back(void **state)
{
    size_t bytes = (size_t)1 << 30;
    struct fixture f;
    if (!getenv("BATON_TEST_GIB"))
        SKIP("a GiB by every way: needs 3 GiB, set BATON_TEST_GIB");
    start(&f, *state, bytes);
    struct xfer_op op = {.local = f.from, .remote = f.theirs, .bytes = bytes};
    transfer(&f, &op, 1);
    assert_int_equal(remote_hash(&f, 0, bytes), target_hash(f.from, bytes));
    op.kind = XFER_READ;
    op.local = f.back;
    transfer(&f, &op, 1);
    assert_memory_equal(f.back, f.from, bytes);
    stop(&f);
}

/* The ways that are real here. Under the thread sanitizer not "all", a
 * mixture of them. */
static bool is_in_the_matrix(const struct way *way)
{
#ifdef __SANITIZE_THREAD__
    if (way->via == XFER_VIA_ALL) return false;
#endif
    return !(way->via & XFER_VIA_RDMA);
}

int main(int argc, char **argv)
{
    if (argc == 6 && !strcmp(argv[1], "--target")) return target_main(argv + 2);
    struct CMUnitTest tests[2 * WAY_COUNT];
    size_t n = 0;
    for (size_t i = 0; i < WAY_COUNT; i++) {
        void *way = (void *)(uintptr_t)&ways[i];
        if (!is_in_the_matrix(way)) continue;
        tests[n++] = (struct CMUnitTest){
            ways[i].name, every_way_moves_everything, NULL, NULL, way};
        tests[n++] =
            (struct CMUnitTest){"a GiB", a_gib_there_and_back, NULL, NULL, way};
    }
    return _cmocka_run_group_tests("matrix", tests, n, NULL, NULL);
}
