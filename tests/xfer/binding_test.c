/* Bindings: peers by name, memory by address, batches by number. */
#include "tests/test.h"

#include "xfer/binding.h"
#include "xfer/store.h"

#include <netinet/in.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MS = 10000, BYTES = 1 << 20 };

/* Two engines of this process that reach each other by TCP and sockets. */
struct pair {
    struct xfer_binding *a, *b;
    char name_a[300], name_b[300];
    unsigned char *mine, *theirs;
};

static void binding_open(struct xfer_binding **out, char *name)
{
    struct why why = {0};
    if (xfer_binding_open(out, XFER_WORLD_BATON, "127.0.0.1", &why))
        fail_msg("%s", why.text);
    xfer_binding_name(*out, name, 300);
}

static uint64_t num(const void *p)
{
    return (uintptr_t)p;
}

static void pair_start(struct pair *p)
{
    struct why why = {0};
    uint64_t bytes = BYTES, addr;
    binding_open(&p->a, p->name_a);
    binding_open(&p->b, p->name_b);
    p->mine = calloc(2, BYTES);
    p->theirs = calloc(2, BYTES);
    addr = num(p->mine);
    assert_int_equal(
        xfer_binding_register(p->a, &addr, &bytes, 1, "*", 0, &why), 0);
    addr = num(p->theirs);
    assert_int_equal(
        xfer_binding_register(p->b, &addr, &bytes, 1, "cpu:0", 0, &why), 0);
}

static void pair_end(struct pair *p)
{
    xfer_binding_close(p->a);
    xfer_binding_close(p->b);
    free(p->mine);
    free(p->theirs);
}

static void lists_travel_both_ways(void **state)
{
    (void)state;
    struct pair p;
    struct why why = {0};
    enum { N = 1000 };
    uint64_t local[N], remote[N], bytes[N];
    pair_start(&p);
    for (int i = 0; i < BYTES; i++)
        p.mine[i] = (unsigned char)(i * 7 + i / 251);
    for (size_t i = 0; i < N; i++) {
        local[i] = num(p.mine + i * 1000);
        remote[i] = num(p.theirs + (N - 1 - i) * 1000);
        bytes[i] = i % 1001; /* 0 .. 1000 */
    }
    int rc = xfer_binding_transfer(p.a, p.name_b, XFER_WRITE, N, local, remote,
                                   bytes, NULL, -1, &why);
    if (rc) fail_msg("%s", why.text);
    for (size_t i = 0; i < N; i++)
        assert_memory_equal(p.theirs + (N - 1 - i) * 1000, p.mine + i * 1000,
                            bytes[i]);
    memset(p.mine, 0, BYTES);
    uint64_t id, whole = BYTES;
    struct xfer_done done;
    uint64_t from = num(p.theirs), to = num(p.mine);
    assert_int_equal(xfer_binding_submit(p.a, p.name_b, XFER_READ, 1, &to,
                                         &from, &whole, NULL, &id, &why),
                     0);
    assert_int_not_equal(id, 0);
    assert_int_equal(xfer_binding_finish(p.a, id, MS, &done), 0);
    assert_int_equal(done.rc, 0);
    assert_int_equal(done.bytes, BYTES);
    assert_memory_equal(p.mine, p.theirs, BYTES);
    assert_int_equal(xfer_binding_finish(p.a, id, MS, &done), ERR_NOT_FOUND);
    pair_end(&p);
}

static void errors_say_what_is_wrong(void **state)
{
    (void)state;
    struct pair p;
    struct why why = {0};
    pair_start(&p);
    uint64_t local = num(p.mine), remote = num(p.theirs), bytes = 100, id;
    uint64_t behind = num(p.theirs + BYTES - 50);
    struct xfer_done done;
    assert_int_equal(xfer_binding_transfer(p.a, p.name_b, XFER_WRITE, 1, &local,
                                           &behind, &bytes, NULL, -1, &why),
                     ERR_RANGE);
    assert_non_null(strstr(why.text, p.name_b));
    uint64_t wild = num(p.mine + BYTES);
    assert_int_equal(xfer_binding_transfer(p.a, p.name_b, XFER_WRITE, 1, &wild,
                                           &remote, &bytes, NULL, -1, &why),
                     ERR_RANGE);
    static const char *const not_names[] = {"nobody", "a:b:c", "", "h:99999"};
    for (size_t i = 0; i < 4; i++)
        assert_true(xfer_binding_transfer(p.a, not_names[i], XFER_WRITE, 1,
                                          &local, &remote, &bytes, NULL, -1,
                                          &why) < 0);
    assert_int_equal(xfer_binding_submit(p.a, "127.0.0.1:1", XFER_WRITE, 1,
                                         &local, &remote, &bytes, NULL, &id,
                                         &why),
                     0);
    assert_int_equal(xfer_binding_finish(p.a, id, MS, &done), 0);
    assert_int_equal(done.rc, ERR_PEER);
    assert_int_equal(xfer_binding_probe(p.a, "127.0.0.1:1", MS, &why),
                     ERR_PEER);
    assert_int_equal(xfer_binding_probe(p.a, p.name_b, MS, &why), 0);
    xfer_binding_close(p.b);
    assert_int_equal(xfer_binding_transfer(p.a, p.name_b, XFER_WRITE, 1, &local,
                                           &remote, &bytes, NULL, -1, &why),
                     ERR_PEER);
    /* A closed one is no crash. */
    assert_int_equal(xfer_binding_transfer(p.b, p.name_a, XFER_WRITE, 1,
                                           &remote, &local, &bytes, NULL, -1,
                                           &why),
                     ERR_INVALID);
    assert_int_equal(xfer_binding_port(p.b), 0);
    pair_end(&p);
}

static void a_restarted_peer_works_at_once(void **state)
{
    (void)state;
    struct pair p;
    struct why why = {0};
    pair_start(&p);
    uint64_t local = num(p.mine), remote = num(p.theirs), bytes = BYTES;
    for (int i = 0; i < 3; i++) {
        memset(p.mine, i + 1, BYTES);
        /* The end of the former life may meet one transfer, not two. */
        int rc = ERR_PEER;
        for (int try = 0; try < 2 && rc == ERR_PEER; try++)
            rc = xfer_binding_transfer(p.a, p.name_b, XFER_WRITE, 1, &local,
                                       &remote, &bytes, NULL, -1, &why);
        if (rc) fail_msg("%s", why.text);
        assert_int_equal(p.theirs[BYTES - 1], i + 1);
        xfer_binding_close(p.b);
        assert_int_equal(
            xfer_binding_open(&p.b, XFER_WORLD_BATON, p.name_b, &why), 0);
        assert_int_equal(
            xfer_binding_register(p.b, &remote, &bytes, 1, NULL, 0, &why), 0);
    }
    pair_end(&p);
}

static void registrations_are_counted(void **state)
{
    (void)state;
    struct pair p;
    struct why why = {0};
    pair_start(&p);
    uint64_t whole = num(p.theirs), inner = num(p.theirs + 4096);
    uint64_t local = num(p.mine), small = 4096, bytes = BYTES, n = 8192;
    /* Inside of what is registered: fine. Over its end: not. */
    assert_int_equal(
        xfer_binding_register(p.b, &inner, &small, 1, NULL, 0, &why), 0);
    assert_int_equal(
        xfer_binding_register(p.b, &whole, &bytes, 1, NULL, 0, &why), 0);
    uint64_t two[2] = {num(p.theirs + BYTES + 100), num(p.theirs + BYTES - 9)};
    uint64_t sizes[2] = {100, 100};
    assert_int_equal(xfer_binding_register(p.b, two, sizes, 2, NULL, 0, &why),
                     ERR_EXISTS);
    assert_int_equal(xfer_binding_unregister(p.b, two, 2, &why),
                     ERR_NOT_FOUND); /* none of the two was kept */
    assert_int_equal(xfer_binding_unregister(p.b, &whole, 1, &why), 0);
    assert_int_equal(xfer_binding_unregister(p.b, &whole, 1, &why), 0);
    /* The inner one keeps it. */
    assert_int_equal(xfer_binding_transfer(p.a, p.name_b, XFER_WRITE, 1, &local,
                                           &inner, &n, NULL, -1, &why),
                     0);
    assert_int_equal(xfer_binding_unregister(p.b, &inner, 1, &why), 0);
    assert_int_equal(xfer_binding_transfer(p.a, p.name_b, XFER_WRITE, 1, &local,
                                           &inner, &n, NULL, -1, &why),
                     ERR_RANGE);
    assert_int_equal(xfer_binding_unregister(p.b, &inner, 1, &why),
                     ERR_NOT_FOUND);
    pair_end(&p);
}

/* Taking a range back more often than it was given does not take it from the
 * ranges inside of it. */
static void inner_ranges_keep_the_outer(void **state)
{
    (void)state;
    struct pair p;
    struct why why = {0};
    pair_start(&p);
    uint64_t whole = num(p.theirs), inner = num(p.theirs + 4096);
    uint64_t local = num(p.mine), small = 4096, n = 8192;
    for (int i = 0; i < 2; i++) /* the second time it is counted */
        assert_int_equal(
            xfer_binding_register(p.b, &inner, &small, 1, NULL, 0, &why), 0);
    assert_int_equal(xfer_binding_unregister(p.b, &whole, 1, &why), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(xfer_binding_unregister(p.b, &whole, 1, &why),
                         ERR_NOT_FOUND);
    assert_int_equal(xfer_binding_transfer(p.a, p.name_b, XFER_WRITE, 1, &local,
                                           &inner, &n, NULL, -1, &why),
                     0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(xfer_binding_unregister(p.b, &inner, 1, &why), 0);
    assert_int_equal(xfer_binding_unregister(p.b, &inner, 1, &why),
                     ERR_NOT_FOUND);
    /* Then it may be given again. */
    assert_int_equal(
        xfer_binding_register(p.b, &whole, &small, 1, NULL, 0, &why), 0);
    assert_int_equal(xfer_binding_unregister(p.b, &whole, 1, &why), 0);
    pair_end(&p);
}

static void buffers_come_and_go(void **state)
{
    (void)state;
    struct pair p;
    struct why why = {0};
    static const size_t sizes[] = {1, 8192, 8193, 100000, 3 << 20, 300 << 20};
    void *at[6];
    pair_start(&p);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 6; i++) {
            at[i] = xfer_binding_alloc(p.b, sizes[i], &why);
            assert_non_null(at[i]);
            unsigned char *last = (unsigned char *)at[i] + sizes[i] - 1;
            assert_int_equal(*last, 0);
            p.mine[i] = (unsigned char)(i + 1);
            uint64_t from = num(p.mine + i), to = num(last), one = 1;
            assert_int_equal(xfer_binding_transfer(p.a, p.name_b, XFER_WRITE, 1,
                                                   &from, &to, &one, NULL, -1,
                                                   &why),
                             0);
            assert_int_equal(*last, i + 1);
        }
        for (int i = 0; i < 6; i++)
            assert_int_equal(xfer_binding_free(p.b, at[i], &why), 0);
        assert_int_equal(xfer_binding_free(p.b, at[0], &why), ERR_NOT_FOUND);
    }
    pair_end(&p);
}

static void notes_follow_their_bytes(void **state)
{
    (void)state;
    struct pair p;
    struct why why = {0};
    char text[XFER_NOTE_MAX];
    size_t name_bytes;
    uint64_t first = 0;
    pair_start(&p);
    uint64_t local = num(p.mine), remote = num(p.theirs), bytes = BYTES;
    memset(p.mine, 0x5a, BYTES);
    struct xfer_binding_note note = {"request-1", "all there"};
    assert_int_equal(xfer_binding_note_take(p.b, text, &name_bytes), 0);
    assert_int_equal(xfer_binding_transfer(p.a, p.name_b, XFER_WRITE, 1, &local,
                                           &remote, &bytes, &note, -1, &why),
                     0);
    int got;
    while ((got = xfer_binding_note_take(p.b, text, &name_bytes)) == 0)
        usleep(100); /* its listener takes it in */
    assert_int_equal(got, 1);
    assert_int_equal(p.theirs[BYTES - 1], 0x5a);
    assert_string_equal(text, "request-1");
    assert_string_equal(text + name_bytes + 1, "all there");
    /* A note alone, and one that is too long. */
    note = (struct xfer_binding_note){"", NULL};
    assert_int_equal(xfer_binding_transfer(p.b, p.name_a, XFER_WRITE, 0, NULL,
                                           NULL, NULL, &note, -1, &why),
                     0);
    while ((got = xfer_binding_note_take(p.a, text, &name_bytes)) == 0)
        usleep(100);
    assert_memory_equal(text, "\0\0", 2);
    memset(text, 'x', sizeof text);
    text[XFER_NOTE_MAX - 2] = 0;
    note.msg = text;
    assert_int_equal(xfer_binding_transfer(p.b, p.name_a, XFER_WRITE, 0, NULL,
                                           NULL, NULL, &note, -1, &why),
                     ERR_RANGE);
    assert_int_equal(xfer_binding_first(p.a, p.name_b, MS, &first, &why), 0);
    assert_int_equal(first, num(p.theirs));
    assert_int_equal(xfer_binding_unregister(p.b, &remote, 1, &why), 0);
    assert_int_equal(xfer_binding_first(p.a, p.name_b, MS, &first, &why),
                     ERR_NOT_FOUND);
    pair_end(&p);
}

/* A word for a name leads to whoever announced it. */
static void names_are_looked_up(void **state)
{
    (void)state;
    struct pair p;
    struct xfer_store *store;
    struct why why = {0};
    pair_start(&p);
    uint64_t local = num(p.mine), remote = num(p.theirs), bytes = BYTES;
    assert_int_equal(xfer_store_serve("tcp://127.0.0.1:0", NULL, &store, &why),
                     0);
    const char *url = xfer_store_url(store);
    assert_int_equal(xfer_binding_join(p.b, url, "decode-7", MS, &why), 0);
    assert_int_equal(xfer_binding_join(p.b, url, "again", MS, &why),
                     ERR_EXISTS);
    assert_int_equal(xfer_binding_probe(p.a, "decode-7", MS, &why),
                     ERR_NOT_FOUND); /* a is no client of the store yet */
    assert_int_equal(xfer_binding_join(p.a, url, p.name_a, MS, &why), 0);
    int rc = ERR_NOT_FOUND; /* the announcement may still be on its way */
    for (int i = 0; i < MS && rc == ERR_NOT_FOUND; i++) {
        rc = xfer_binding_transfer(p.a, "decode-7", XFER_WRITE, 1, &local,
                                   &remote, &bytes, NULL, -1, &why);
        if (rc) usleep(1000);
    }
    if (rc) fail_msg("%s", why.text);
    assert_int_equal(xfer_binding_probe(p.a, "decode-8", MS, &why),
                     ERR_NOT_FOUND);
    /* Without the store what is an address, or known, still works. */
    xfer_store_stop(store);
    assert_int_equal(xfer_binding_probe(p.a, p.name_b, MS, &why), 0);
    assert_int_equal(xfer_binding_probe(p.a, "decode-7", MS, &why), 0);
    assert_int_equal(xfer_binding_probe(p.a, "decode-9", MS, &why), ERR_PEER);
    pair_end(&p);
}

/* Who comes back under its name at another address is found there, and who
 * does not is not looked for at the old one. */
static void names_move(void **state)
{
    (void)state;
    struct pair p;
    struct xfer_store *store;
    struct why why = {0};
    pair_start(&p);
    uint64_t local = num(p.mine), remote = num(p.theirs), bytes = BYTES;
    assert_int_equal(xfer_store_serve("tcp://127.0.0.1:0", NULL, &store, &why),
                     0);
    const char *url = xfer_store_url(store);
    assert_int_equal(xfer_binding_join(p.a, url, p.name_a, MS, &why), 0);
    for (int life = 0; life < 3; life++) {
        int rc = ERR_PEER;
        assert_int_equal(xfer_binding_join(p.b, url, "decode-7", MS, &why), 0);
        for (int i = 0; i < MS && rc; i++) { /* the store hears of both */
            rc = xfer_binding_transfer(p.a, "decode-7", XFER_WRITE, 1, &local,
                                       &remote, &bytes, NULL, -1, &why);
            if (rc) usleep(1000);
        }
        if (rc) fail_msg("%s", why.text);
        struct xfer_binding *old = p.b;
        binding_open(&p.b, p.name_b); /* while the old one has its port */
        xfer_binding_close(old);
        assert_int_equal(
            xfer_binding_register(p.b, &remote, &bytes, 1, NULL, 0, &why), 0);
    }
    int rc = ERR_PEER;
    for (int i = 0; i < MS && rc == ERR_PEER; i++) {
        rc = xfer_binding_probe(p.a, "decode-7", MS, &why);
        if (rc) usleep(1000);
    }
    assert_int_equal(rc, ERR_NOT_FOUND);
    xfer_store_stop(store);
    pair_end(&p);
}

struct silent {
    struct pair *p;
    char name[32];
};

static void *wait_in_vain(void *arg)
{
    struct silent *s = arg;
    uint64_t local = num(s->p->mine), remote = 1, bytes = 100;
    struct why why = {0};
    int rc = xfer_binding_transfer(s->p->a, s->name, XFER_WRITE, 1, &local,
                                   &remote, &bytes, NULL, MS, &why);
    return (void *)(intptr_t)rc;
}

static void close_ends_what_runs(void **state)
{
    (void)state;
    struct pair p;
    struct silent s = {.p = &p};
    pthread_t thread;
    void *rc;
    pair_start(&p);
    /* A peer that takes the connection and says nothing. */
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&in, n), 0);
    assert_int_equal(listen(fd, 4), 0);
    getsockname(fd, (struct sockaddr *)&in, &n);
    snprintf(s.name, sizeof s.name, "127.0.0.1:%u", ntohs(in.sin_port));
    pthread_create(&thread, NULL, wait_in_vain, &s);
    xfer_binding_close(p.a);
    pthread_join(thread, &rc);
    assert_true((intptr_t)rc < 0);
    close(fd);
    pair_end(&p); /* closing twice is fine */
}

static void setenv_all(const char *const (*pairs)[2], size_t n)
{
    for (size_t i = 0; i < n; i++)
        setenv(pairs[i][0], pairs[i][1], 1);
}

static char logged[20000];

static void on_line(int level, const char *line)
{
    (void)level;
    size_t n = strlen(logged);
    snprintf(logged + n, sizeof logged - n, "%s\n", line);
}

/* Names that users have set are taken, or explained once. */
static void the_environment_is_read(void **state)
{
    (void)state;
    static const char *const set[][2] = {
        {"MC_MIN_RPC_PORT", "21000"},     {"MC_MAX_PRC_PORT", "21999"},
        {"MC_TCP_LANES_PER_PEER", "4"},   {"MC_TRANSFER_TIMEOUT", "7"},
        {"MC_SLICE_SIZE", "65536"},       {"MC_GID_INDEX", "3"},
        {"BATON_RDMA_DEVICE", "none0:1"}, {"BATON_TRANSFER_VIA", "tcp,memfd"}};
    struct xfer_binding *b;
    struct why why = {0};
    setenv_all(set, 8);
    xfer_log_sink(on_line);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            xfer_binding_open(&b, XFER_WORLD_MOONCAKE, "127.0.0.1", &why), 0);
        int port = xfer_binding_port(b);
        assert_in_range(port, 21000, 21999);
        xfer_binding_close(b);
    }
    char *told = strstr(logged, "MC_SLICE_SIZE is set and not used: ");
    assert_non_null(told);
    assert_null(strstr(told + 1, "MC_SLICE_SIZE"));
    assert_non_null(strstr(logged, "MC_GID_INDEX"));
    assert_null(strstr(logged, "MC_TRANSFER_TIMEOUT"));
    /* Another world has other names. */
    assert_int_equal(
        xfer_binding_open(&b, XFER_WORLD_MEMFABRIC, "127.0.0.1", &why), 0);
    xfer_binding_close(b);
    xfer_log_sink(NULL);
    setenv("MC_TRANSFER_TIMEOUT", "soon", 1);
    assert_int_equal(
        xfer_binding_open(&b, XFER_WORLD_MOONCAKE, "127.0.0.1", &why),
        ERR_INVALID);
    assert_non_null(strstr(why.text, "MC_TRANSFER_TIMEOUT is \"soon\""));
    setenv("BATON_TRANSFER_VIA", "tcp", 1);
    setenv("BATON_TLS_CERT", "/nowhere.pem", 1); /* not all three */
    assert_true(xfer_binding_open(&b, XFER_WORLD_BATON, "127.0.0.1", &why) < 0);
    unsetenv("BATON_TLS_CERT");
    setenv("BATON_TRANSFER_VIA", "pigeon", 1);
    assert_int_equal(xfer_binding_open(&b, XFER_WORLD_BATON, "127.0.0.1", &why),
                     ERR_INVALID);
    for (size_t i = 0; i < 8; i++)
        unsetenv(set[i][0]);
}

static void names_are_of_many_forms(void **state)
{
    (void)state;
    static const char *const good[] = {"localhost", "127.0.0.1:0",
                                       "::1",       "[::1]",
                                       "[::1]:0",   "127.0.0.1:0:npu_3"};
    static const char *const bad[] = {"",    "[",           "[]",
                                      "a b", "127.0.0.1:x", "127.0.0.1:70000"};
    struct xfer_binding *b;
    struct why why = {0};
    for (size_t i = 0; i < 6; i++) {
        int rc = xfer_binding_open(&b, XFER_WORLD_MOONCAKE, good[i], &why);
        if (rc && strchr(good[i], '1') == strrchr(good[i], '1'))
            continue; /* no IPv6 here */
        if (rc) fail_msg("%s: %s", good[i], why.text);
        assert_true(xfer_binding_port(b) > 0);
        xfer_binding_close(b);
    }
    for (size_t i = 0; i < 6; i++)
        assert_true(xfer_binding_open(&b, XFER_WORLD_MOONCAKE, bad[i], &why) <
                    0);
    /* An address that is not this machine's: told, not bound. */
    char name[300];
    assert_int_equal(xfer_binding_open(&b, XFER_WORLD_BATON, "192.0.2.7", &why),
                     0);
    xfer_binding_name(b, name, sizeof name);
    assert_int_equal(strncmp(name, "192.0.2.7:", 10), 0);
    xfer_binding_close(b);
}

/* A pass of an engine is a name like others, ":npu_N" behind it or not. */
static void a_pass_is_a_name(void **state)
{
    (void)state;
    struct xfer *x;
    struct xfer_mem *mem;
    struct xfer_binding *b;
    struct why why = {0};
    char pass[XFER_NAME_MAX + 1], npu[300], name[300];
    assert_int_equal(xfer_open(&x, NULL, &why), 0);
    assert_int_equal(xfer_alloc(x, 2 * BYTES, 0, &mem, &why), 0);
    binding_open(&b, name);
    unsigned char *theirs = xfer_mem_base(mem), *mine = calloc(1, BYTES);
    uint64_t bytes = BYTES, from = num(mine), to[2] = {num(theirs)};
    to[1] = to[0] + BYTES;
    memset(mine, 5, BYTES);
    assert_int_equal(xfer_binding_register(b, &from, &bytes, 1, "*", 0, &why),
                     0);
    xfer_pass(x, pass);
    snprintf(npu, sizeof npu, "%s:npu_0", pass);
    for (int i = 0; i < 2; i++) {
        const char *peer = i ? npu : pass;
        if (xfer_binding_transfer(b, peer, XFER_WRITE, 1, &from, &to[i], &bytes,
                                  NULL, MS, &why))
            fail_msg("%s", why.text);
        assert_memory_equal(mine, theirs + i * BYTES, BYTES);
    }
    assert_int_equal(xfer_expel(x, pass, MS), 0);
    assert_true(xfer_binding_transfer(b, pass, XFER_WRITE, 1, &from, to, &bytes,
                                      NULL, MS, &why) < 0);
    xfer_binding_close(b);
    xfer_close(x);
    free(mine);
}

TESTS(T(lists_travel_both_ways), T(a_pass_is_a_name),
      T(errors_say_what_is_wrong), T(a_restarted_peer_works_at_once),
      T(registrations_are_counted), T(inner_ranges_keep_the_outer),
      T(names_move), T(buffers_come_and_go), T(notes_follow_their_bytes),
      T(names_are_looked_up), T(close_ends_what_runs),
      T(the_environment_is_read), T(names_are_of_many_forms))
