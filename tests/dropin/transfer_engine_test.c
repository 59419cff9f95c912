/* Mooncake's C functions between two processes. */
#include "tests/dropin/child.h"

#include "dropin/transfer_engine_c.h"

#include <pthread.h>

static void target(FILE *in, FILE *out)
{
    char name[300], line[200];
    unsigned char *memory = calloc(1, CHILD_BYTES);
    transfer_engine_t e =
        createTransferEngine("P2PHANDSHAKE", "127.0.0.1", "127.0.0.1", 0, 1);
    buffer_entry_t buffers[2] = {{memory, CHILD_BYTES / 2},
                                 {memory + CHILD_BYTES / 2, CHILD_BYTES / 2}};
    if (!e || !installTransport(e, "tcp", NULL) || discoverTopology(e) ||
        registerLocalMemoryBatch(e, buffers, 2, "cpu:0") ||
        getLocalIpAndPort(e, name, sizeof name))
        _exit(1);
    fprintf(out, "%s %lu\n", name, (unsigned long)memory);
    fflush(out);
    while (fgets(line, sizeof line, in)) {
        long answer = 0;
        if (strncmp(line, "sum", 3) == 0) answer = sum_of(memory, CHILD_BYTES);
        if (strncmp(line, "note", 4) == 0) {
            int n = 0;
            notify_msg_t *list;
            while (!(list = getNotifsFromEngine(e, &n)))
                usleep(100);
            answer = n * 1000 + (long)strlen(list[0].name) * 10 +
                     (long)strlen(list[0].msg);
            freeNotifsMsgBuf(list, n);
        }
        fprintf(out, "%ld\n", answer);
        fflush(out);
    }
    void *starts[2] = {memory, memory + CHILD_BYTES / 2};
    if (unregisterLocalMemoryBatch(e, starts, 2)) _exit(2);
    destroyTransferEngine(e);
    free(memory);
}

struct side {
    struct child c;
    transfer_engine_t e;
    segment_id_t segment;
    unsigned char *mine;
};

static void side_start(struct side *s)
{
    child_start(&s->c, target);
    s->e = createTransferEngine("P2PHANDSHAKE", "127.0.0.1:0", "", 0, 0);
    assert_non_null(s->e);
    s->mine = malloc(CHILD_BYTES);
    for (int i = 0; i < CHILD_BYTES; i++)
        s->mine[i] = (unsigned char)(i * 11 + i / 999);
    assert_int_equal(registerLocalMemory(s->e, s->mine, CHILD_BYTES, "*", 0),
                     0);
    s->segment = openSegment(s->e, s->c.name);
    assert_true(s->segment > 0);
    assert_int_equal(openSegment(s->e, s->c.name), s->segment);
}

static void side_end(struct side *s)
{
    destroyTransferEngine(s->e);
    child_end(&s->c, 0);
    free(s->mine);
}

static void batch_wait(struct side *s, batch_id_t batch, size_t tasks,
                       int expected)
{
    for (size_t i = 0; i < tasks; i++) {
        struct transfer_status st = {.status = STATUS_WAITING};
        while (st.status == STATUS_WAITING || st.status == STATUS_PENDING)
            assert_int_equal(getTransferStatus(s->e, batch, i, &st), 0);
        assert_int_equal(st.status, expected);
        assert_int_equal(st.transferred_bytes > 0,
                         expected == STATUS_COMPLETED);
    }
}

static void batches_are_polled(void **state)
{
    (void)state;
    struct side s;
    enum { N = 32 };
    struct transfer_request r[N], back[1];
    side_start(&s);
    size_t part = CHILD_BYTES / N;
    for (size_t i = 0; i < N; i++)
        r[i] = (struct transfer_request){.opcode = OPCODE_WRITE,
                                         .source = s.mine + i * part,
                                         .target_id = s.segment,
                                         .target_offset = s.c.addr + i * part,
                                         .length = part};
    batch_id_t batch = allocateBatchID(s.e, N + 1);
    assert_int_not_equal(batch, INVALID_BATCH);
    assert_int_equal(submitTransfer(s.e, batch, r, N / 2), 0);
    assert_int_equal(submitTransfer(s.e, batch, r + N / 2, N / 2), 0);
    batch_wait(&s, batch, N, STATUS_COMPLETED);
    assert_int_equal(child_ask(&s.c, "sum"), sum_of(s.mine, CHILD_BYTES));
    back[0] = r[0];
    back[0].opcode = OPCODE_READ;
    back[0].source = s.mine + CHILD_BYTES / 2;
    assert_int_equal(submitTransfer(s.e, batch, back, 1), 0);
    assert_int_equal(submitTransfer(s.e, batch, back, 1), TE_TOO_MANY_REQUESTS);
    batch_wait(&s, batch, N + 1, STATUS_COMPLETED);
    assert_memory_equal(s.mine, s.mine + CHILD_BYTES / 2, part);
    assert_int_equal(freeBatchID(s.e, batch), 0);
    assert_int_equal(freeBatchID(s.e, batch), TE_INVALID_ARGUMENT);
    struct transfer_status st;
    assert_int_equal(getTransferStatus(s.e, batch, 0, &st),
                     TE_INVALID_ARGUMENT);
    char links[400];
    assert_int_equal(showLinks(s.e, links, sizeof links, 1), 0);
    assert_non_null(strstr(links, s.c.name));
    assert_int_equal(showLinks(s.e, links, 5, 0), TE_MEMORY);
    side_end(&s);
}

static void notes_come_after_the_bytes(void **state)
{
    (void)state;
    struct side s;
    notify_msg_t note = {(char[]){"id"}, (char[]){"7"}};
    side_start(&s);
    struct transfer_request r[2] = {
        {OPCODE_WRITE, s.mine, s.segment, s.c.addr, 1000},
        {OPCODE_READ, s.mine + 5000, s.segment, s.c.addr, 1000}};
    batch_id_t batch = allocateBatchID(s.e, 8);
    assert_int_equal(submitTransferWithNotify(s.e, batch, r, 1, note), 0);
    assert_int_equal(child_ask(&s.c, "note"), 1021);
    /* Of two kinds: waits for both. */
    assert_int_equal(submitTransferWithNotify(s.e, batch, r, 2, note), 0);
    assert_int_equal(child_ask(&s.c, "note"), 1021);
    batch_wait(&s, batch, 3, STATUS_COMPLETED);
    assert_int_equal(genNotifyInEngine(s.e, (uint64_t)s.segment, note), 0);
    assert_int_equal(child_ask(&s.c, "note"), 1021);
    assert_int_equal(genNotifyInEngine(s.e, 99, note), TE_INVALID_ARGUMENT);
    assert_int_equal(freeBatchID(s.e, batch), 0);
    side_end(&s);
}

/* What two threads do with one batch. */
struct both {
    struct side *s;
    batch_id_t batch;
    struct transfer_request *r;
    size_t count;
    pthread_barrier_t start;
    int rc;
};

static void *submit_too(void *arg)
{
    struct both *b = arg;
    pthread_barrier_wait(&b->start);
    b->rc = submitTransfer(b->s->e, b->batch, b->r, b->count);
    return NULL;
}

static void *submit_and_tell(void *arg)
{
    struct both *b = arg;
    pthread_barrier_wait(&b->start);
    b->rc =
        submitTransferWithNotify(b->s->e, b->batch, b->r, b->count,
                                 (notify_msg_t){(char[]){"id"}, (char[]){"7"}});
    return NULL;
}

/* Writes and reads in turn, so that each is a group of its own. */
static void requests_mix(struct side *s, struct transfer_request *r, size_t n)
{
    for (size_t i = 0; i < n; i++)
        r[i] = (struct transfer_request){i % 2 ? OPCODE_READ : OPCODE_WRITE,
                                         s->mine + i * 4096, s->segment,
                                         s->c.addr + i * 4096, 4096};
}

static void two_submit_to_one_batch(void **state)
{
    (void)state;
    struct side s;
    enum { N = 8 };
    struct transfer_request r[N];
    side_start(&s);
    requests_mix(&s, r, N);
    for (int round = 0; round < 50; round++) {
        struct both b = {.s = &s, .r = r, .count = N};
        pthread_t thread;
        b.batch = allocateBatchID(s.e, N); /* room for one of them */
        pthread_barrier_init(&b.start, NULL, 2);
        pthread_create(&thread, NULL, submit_too, &b);
        pthread_barrier_wait(&b.start);
        int rc = submitTransfer(s.e, b.batch, r, N);
        pthread_join(thread, NULL);
        assert_int_equal(rc < b.rc ? rc : b.rc, TE_TOO_MANY_REQUESTS);
        assert_int_equal(rc > b.rc ? rc : b.rc, 0);
        batch_wait(&s, b.batch, N, STATUS_COMPLETED);
        assert_int_equal(freeBatchID(s.e, b.batch), 0);
        pthread_barrier_destroy(&b.start);
    }
    side_end(&s);
}

/* Others ask for the status, and want to free the batch, meanwhile. */
static void others_look_at_a_batch_that_is_submitted(void **state)
{
    (void)state;
    struct side s;
    enum { N = 8 };
    struct transfer_request r[N];
    side_start(&s);
    requests_mix(&s, r, N);
    for (int round = 0; round < 50; round++) {
        struct both b = {.s = &s, .r = r, .count = N};
        pthread_t thread;
        int over = 0;
        b.batch = allocateBatchID(s.e, N);
        pthread_barrier_init(&b.start, NULL, 2);
        pthread_create(&thread, NULL, submit_and_tell, &b);
        pthread_barrier_wait(&b.start);
        while (over < N) {
            struct transfer_status st;
            if (getTransferStatus(s.e, b.batch, (size_t)over, &st)) continue;
            assert_int_not_equal(st.status, STATUS_FAILED);
            over += st.status == STATUS_COMPLETED;
        }
        int rc;
        while ((rc = freeBatchID(s.e, b.batch)) == TE_BATCH_BUSY) {
        }
        assert_int_equal(rc, 0);
        pthread_join(thread, NULL);
        assert_int_equal(b.rc, 0);
        pthread_barrier_destroy(&b.start);
    }
    long told = 0;
    while (told < 50)
        told += child_ask(&s.c, "note") / 1000;
    assert_int_equal(told, 50);
    side_end(&s);
}

static void a_taken_port_is_another(void **state)
{
    (void)state;
    char name[300], other[300];
    transfer_engine_t a = createTransferEngine("", "127.0.0.1", "", 0, 0);
    assert_int_equal(getLocalIpAndPort(a, name, sizeof name), 0);
    unsigned long port = strtoul(strchr(name, ':') + 1, NULL, 10);
    for (int i = 0; i < 2; i++) { /* the port in the name, or apart */
        transfer_engine_t b =
            i ? createTransferEngine("", "me", "127.0.0.1", port, 0)
              : createTransferEngine("", name, "", 0, 0);
        assert_non_null(b);
        assert_int_equal(getLocalIpAndPort(b, other, sizeof other), 0);
        assert_true(strcmp(name, other) != 0);
        assert_int_equal(strncmp(other, "127.0.0.1:", 10), 0);
        assert_true(openSegment(b, name) > 0);
        destroyTransferEngine(b);
    }
    destroyTransferEngine(a);
}

static void what_is_wrong_fails(void **state)
{
    (void)state;
    struct side s;
    side_start(&s);
    struct transfer_request r[3] = {
        {OPCODE_WRITE, s.mine, s.segment, s.c.addr + CHILD_BYTES, 1000},
        {OPCODE_WRITE, s.mine, 99, s.c.addr, 1000},
        {OPCODE_WRITE, &s, s.segment, s.c.addr, 8}};
    batch_id_t batch = allocateBatchID(s.e, 3);
    assert_int_equal(submitTransfer(s.e, batch, r, 1), 0);
    batch_wait(&s, batch, 1, STATUS_FAILED);
    assert_int_equal(submitTransfer(s.e, batch, r + 1, 1), TE_INVALID_ARGUMENT);
    assert_int_equal(submitTransfer(s.e, batch, r + 2, 1),
                     TE_ADDRESS_NOT_REGISTERED);
    assert_int_equal(submitTransfer(s.e, 12345, r, 1), TE_INVALID_ARGUMENT);
    assert_int_equal(freeBatchID(s.e, batch), 0);
    assert_true(openSegment(s.e, "127.0.0.1:1") < 0);
    assert_true(openSegment(s.e, "nobody") < 0);
    assert_int_equal(closeSegment(s.e, s.segment), 0);
    assert_int_equal(closeSegment(s.e, s.segment), TE_INVALID_ARGUMENT);
    assert_int_equal(registerLocalMemory(s.e, s.mine + 10, CHILD_BYTES, "*", 1),
                     TE_ADDRESS_OVERLAPPED);
    char vram[16];
    assert_int_equal(registerLocalMemory(s.e, vram, 16, "cuda:0", 1),
                     TE_NOT_IMPLEMENTED);
    assert_int_equal(unregisterLocalMemory(s.e, s.mine), 0);
    assert_int_equal(unregisterLocalMemory(s.e, s.mine),
                     TE_ADDRESS_NOT_REGISTERED);
    assert_null(createTransferEngine("P2PHANDSHAKE", NULL, NULL, 0, 0));
    assert_null(createTransferEngine("P2PHANDSHAKE", "a b", "", 0, 0));
    assert_int_equal(allocateBatchID(NULL, 1) == INVALID_BATCH, 1);
    side_end(&s);
}

/* Memory registered for our own transfers alone is out of reach for peers. */
static void local_memory_stays_local(void **state)
{
    (void)state;
    char mine[64] = "secret", theirs[64] = "x";
    char name[300];
    transfer_engine_t a = createTransferEngine("", "127.0.0.1", "", 0, 0);
    transfer_engine_t b = createTransferEngine("", "127.0.0.1", "", 0, 0);
    assert_int_equal(registerLocalMemory(a, mine, 64, "*", 0), 0);
    assert_int_equal(registerLocalMemory(b, theirs, 64, "*", 1), 0);
    assert_int_equal(getLocalIpAndPort(a, name, sizeof name), 0);
    segment_id_t of_a = openSegment(b, name);
    assert_int_equal(getLocalIpAndPort(b, name, sizeof name), 0);
    segment_id_t of_b = openSegment(a, name);
    struct side s = {.e = b};
    struct transfer_request r = {OPCODE_READ, theirs, of_a,
                                 (uint64_t)(uintptr_t)mine, 64};
    batch_id_t batch = allocateBatchID(b, 1);
    assert_int_equal(submitTransfer(b, batch, &r, 1), 0);
    batch_wait(&s, batch, 1, STATUS_FAILED);
    assert_string_equal(theirs, "x");
    r = (struct transfer_request){OPCODE_WRITE, mine, of_b,
                                  (uint64_t)(uintptr_t)theirs, 64};
    s.e = a;
    batch = allocateBatchID(a, 1);
    assert_int_equal(submitTransfer(a, batch, &r, 1), 0);
    batch_wait(&s, batch, 1, STATUS_COMPLETED);
    assert_string_equal(theirs, "secret");
    destroyTransferEngine(a);
    destroyTransferEngine(b);
}

TESTS(T(batches_are_polled), T(notes_come_after_the_bytes),
      T(two_submit_to_one_batch), T(others_look_at_a_batch_that_is_submitted),
      T(a_taken_port_is_another), T(what_is_wrong_fails),
      T(local_memory_stays_local))
