/* One real side, and opposite to it a peer that speaks raw frames as SGLang
 * of generation W2 or W4 does (docs/wire.md), with no code of src/pd/. */
#include "tests/pd/pair.h"

#include "http/server.h"

#include <inttypes.h>
#include <zmq.h>

enum { PAGE = 4, PAGES = 64, ROWS = 8, AUX_ITEMS = 10, FRAMES = 16 };
static const uint32_t aux_bytes[AUX_ITEMS] = {64,  64, 64,  64, 512,
                                              512, 64, 128, 64, 64};

/* A message received: the frames' bytes, each closed by a 0. */
struct letter {
    size_t count;
    struct {
        size_t len;
        char bytes[600];
    } frame[FRAMES];
};

struct peer {
    struct rig *rig;
    struct xfer *xfer;
    struct xfer_mem *kv[2]; /* each KV buffer a registration of its own */
    struct xfer_mem *aux[AUX_ITEMS];
    void *context, *pull, *push;
    uint16_t port;
    struct letter in;
};

static void *bytes_of(struct xfer_mem *mem)
{
    return xfer_mem_base(mem);
}

static void peer_open(struct peer *p, struct rig *rig)
{
    memset(p, 0, sizeof *p);
    p->rig = rig;
    const struct xfer_options xo = {.lanes = 1, .workers = 1};
    assert_int_equal(xfer_open(&p->xfer, &xo, NULL), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(
            xfer_alloc(p->xfer, PAGES * PAGE * 16, 0, &p->kv[i], NULL), 0);
    for (int i = 0; i < AUX_ITEMS; i++)
        assert_int_equal(
            xfer_alloc(p->xfer, ROWS * aux_bytes[i], 0, &p->aux[i], NULL), 0);
    p->context = zmq_ctx_new();
    p->pull = zmq_socket(p->context, ZMQ_PULL);
    assert_int_equal(zmq_bind(p->pull, "tcp://127.0.0.1:*"), 0);
    char name[64];
    size_t n = sizeof name;
    zmq_getsockopt(p->pull, ZMQ_LAST_ENDPOINT, name, &n);
    p->port = (uint16_t)atoi(strrchr(name, ':') + 1);
}

static void peer_connect(struct peer *p, uint16_t port)
{
    char to[64];
    snprintf(to, sizeof to, "tcp://127.0.0.1:%u", port);
    if (p->push) zmq_close(p->push);
    p->push = zmq_socket(p->context, ZMQ_PUSH);
    assert_int_equal(zmq_connect(p->push, to), 0);
}

static void peer_close(struct peer *p)
{
    int none = 0;
    if (p->push) {
        zmq_setsockopt(p->push, ZMQ_LINGER, &none, sizeof none);
        zmq_close(p->push);
    }
    if (p->pull) zmq_close(p->pull);
    zmq_ctx_term(p->context);
    xfer_close(p->xfer);
}

static bool peer_receive(struct peer *p)
{
    int more = 1;
    size_t size = sizeof more;
    for (p->in.count = 0; more; p->in.count++) {
        assert_true(p->in.count < FRAMES);
        char *bytes = p->in.frame[p->in.count].bytes;
        int n = zmq_recv(p->pull, bytes, 599, ZMQ_DONTWAIT);
        if (n < 0) return false;
        assert_true(n < 600);
        bytes[n] = 0;
        p->in.frame[p->in.count].len = (size_t)n;
        zmq_getsockopt(p->pull, ZMQ_RCVMORE, &more, &size);
    }
    return true;
}

/* The next message has these frames; NULL: any. */
static void peer_hears(struct peer *p, size_t count, const char *const *want)
{
    UNTIL(p->rig, peer_receive(p));
    assert_int_equal(p->in.count, count);
    for (size_t i = 0; i < count; i++)
        if (want[i]) assert_string_equal(p->in.frame[i].bytes, want[i]);
}
#define HEARS(p, ...)                                                     \
    peer_hears(p, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *), \
               (const char *[]){__VA_ARGS__})

struct part {
    const void *bytes;
    size_t len;
};
static struct part text(const char *s)
{
    return (struct part){s, strlen(s)};
}

static void peer_says(struct peer *p, const struct part *parts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        assert_true(zmq_send(p->push, parts[i].bytes, parts[i].len,
                             i + 1 < count ? ZMQ_SNDMORE : 0) >= 0);
}

/* ---- what the toy's KV looks like ------------------------------------------ */

static void kv_of(const struct ask *ask, uint32_t at, float k[4], float v[4])
{
    uint64_t digest = 0;
    for (uint32_t i = 0; i <= at; i++)
        digest = toy_digest(digest, ask->prompt[i], i);
    memset(k, 0, 16);
    memset(v, 0, 16);
    k[0] = (float)ask->prompt[at];
    k[1] = (float)at;
    v[0] = (float)(digest >> 44);
}

static void kv_landed(const struct peer *p, const struct ask *ask,
                      const int32_t *pages, uint32_t from)
{
    for (uint32_t at = from; at < ask->spec.token_count; at++) {
        float k[4], v[4];
        kv_of(ask, at, k, v);
        size_t slot =
            (size_t)pages[(at - from) / PAGE] * PAGE + (at - from) % PAGE;
        const float *kv = bytes_of(p->kv[0]);
        assert_memory_equal(kv + 4 * slot, k, 16);
        kv = bytes_of(p->kv[1]);
        assert_memory_equal(kv + 4 * slot, v, 16);
    }
}

/* ---- a fake decode ------------------------------------------------------------ */

struct scene {
    struct rig rig;
    struct side side;
    struct peer peer;
    uint16_t rank_port;
    struct ask ask;
    struct leg leg;
    /* Of the next REGISTER; what a test changes. */
    uint32_t buffers, aux_items;
    const char *item_len, *tp_size, *state;
};

static void scene_open(struct scene *s)
{
    log_init(LOG_ERROR, "test");
    memset(s, 0, sizeof *s);
    rig_init(&s->rig);
    struct side_options o = side_defaults(PD_PREFILL);
    o.before = brake_before;
    o.pages = 100;
    o.prefix_cache = true;
    side_open(&s->side, &s->rig, &o);
    peer_open(&s->peer, &s->rig);
    /* its address, as a stock decode asks for it */
    struct reply reply;
    do
        rig_http(&s->rig, &reply, "GET", s->side.port,
                 "/route?engine_rank=0&target_dp_group=0&target_pp_rank=0",
                 NULL);
    while (reply.status != 200 && (buf_fini(&reply.body), true));
    unsigned port;
    const char *at = strstr(reply.body.data, "\"rank_port\":");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "\"rank_port\":%u", &port), 1);
    buf_fini(&reply.body);
    s->rank_port = (uint16_t)port;
    peer_connect(&s->peer, s->rank_port);
    s->buffers = 2;
    s->aux_items = 10;
    s->item_len = "64"; /* 4 tokens of 4 floats */
    s->tp_size = "1";
    s->state = "";
    ask_init(&s->ask, 10, 4, 1);
}

static void scene_close(struct scene *s)
{
    if (s->side.node)
        UNTIL(&s->rig,
              side_rooms(&s->side) == side_stats(&s->side).by_state[PD_ORPHAN]);
    side_close(&s->side);
    peer_close(&s->peer);
    rig_fini(&s->rig);
}

static void says_register(struct scene *s, size_t frames)
{
    struct peer *p = &s->peer;
    uint64_t kv[4] = {0}, aux[AUX_ITEMS];
    char port[8];
    for (int i = 0; i < 2; i++)
        kv[i] = (uintptr_t)bytes_of(p->kv[i]);
    for (int i = 0; i < AUX_ITEMS; i++)
        aux[i] = (uintptr_t)bytes_of(p->aux[i]);
    snprintf(port, sizeof port, "%u", p->port);
    const struct part parts[14] = {text("None"),
                                   text("127.0.0.1"),
                                   text(port),
                                   text(xfer_name(p->xfer)),
                                   {kv, s->buffers * 8},
                                   {aux, s->aux_items * 8},
                                   text(s->state),
                                   text("0"),
                                   text(s->tp_size),
                                   text(s->item_len),
                                   text(""),
                                   text(""),
                                   text(""),
                                   text("")};
    peer_says(p, parts, frames);
}

static void says_request(struct scene *s, size_t frames, const char *room,
                         const int32_t *pages, size_t page_count,
                         const char *prefix)
{
    struct peer *p = &s->peer;
    char port[8];
    snprintf(port, sizeof port, "%u", p->port);
    const struct part parts[9] = {text(room),
                                  text("127.0.0.1"),
                                  text(port),
                                  text(xfer_name(p->xfer)),
                                  {pages, page_count * 4},
                                  text("3"),
                                  text(""),
                                  text("1"),
                                  text(prefix)};
    peer_says(p, parts, frames);
}

static void says_abort(struct scene *s, const char *room)
{
    char port[8];
    snprintf(port, sizeof port, "%u", s->peer.port);
    const struct part parts[4] = {text("ABORT"), text(room), text("127.0.0.1"),
                                  text(port)};
    peer_says(&s->peer, parts, 4);
}

static void *aux_row(const struct peer *p, int item)
{
    return (char *)bytes_of(p->aux[item]) + 3 * aux_bytes[item];
}

static void stock_decode_is_served(size_t reg, size_t request, uint32_t aux)
{
    static const int32_t scattered[] = {9, 10, 4};
    struct scene s;
    scene_open(&s);
    s.aux_items = aux;
    says_register(&s, reg);
    s.ask.spec.want_logprobs = true;
    for (uint64_t room = 81; room <= 83; room++) { /* one REGISTER for all */
        char name[8];
        snprintf(name, sizeof name, "%u", (unsigned)room);
        memset(bytes_of(s.peer.kv[0]), 0xee, PAGES * PAGE * 16);
        memset(bytes_of(s.peer.kv[1]), 0xee, PAGES * PAGE * 16);
        says_request(&s, request, name, scattered, 3, "0");
        leg_start(&s.leg, &s.side, &s.ask.spec, 0, room);
        HEARS(&s.peer, name, "4", "0"); /* three frames, no more */
        kv_landed(&s.peer, &s.ask, scattered, 0);
        assert_memory_equal(aux_row(&s.peer, 0), s.ask.want, 4);
        int32_t cached;
        memcpy(&cached, aux_row(&s.peer, 1), 4);
        assert_int_equal(cached, room == 81 ? 0 : 8);
        assert_memory_equal(aux_row(&s.peer, 3), s.ask.want, 4);
        uint64_t landed;
        memcpy(&landed, aux_row(&s.peer, 9), 8);
        assert_int_equal(landed, aux == 10 ? room : 0);
        UNTIL(&s.rig, s.leg.done);
        assert_int_equal(s.leg.finish, FINISH_LENGTH);
        assert_int_equal(s.leg.tokens[0], s.ask.want[0]);
    }
    scene_close(&s);
}

static void stock_decodes_of_both_generations_are_served(void **state)
{
    (void)state;
    stock_decode_is_served(10, 8, 9);
    stock_decode_is_served(12, 8, 10); /* early 2026 */
    stock_decode_is_served(14, 9, 10);
}

static void a_decodes_own_prefix_is_not_sent(void **state)
{
    (void)state;
    static const int32_t rest[] = {7, 5};
    struct scene s;
    scene_open(&s);
    says_register(&s, 14);
    says_request(&s, 9, "1", rest, 2, "4");
    memset(bytes_of(s.peer.kv[0]), 0, PAGES * PAGE * 16);
    leg_start(&s.leg, &s.side, &s.ask.spec, 0, 1);
    HEARS(&s.peer, "1", "4", "0");
    kv_landed(&s.peer, &s.ask, rest, 4);
    scene_close(&s);
}

static uint32_t brake_at; /* the step to stand still before */

static bool brake_at_step(struct toy *toy)
{
    return toy->steps != brake_at || brake_before(toy);
}

static void each_chunk_is_there_while_the_next_is_computed(void **state)
{
    (void)state;
    static const int32_t pages[] = {3, 4, 5, 6, 20, 21, 22, 23, 40, 41, 42};
    struct scene s;
    scene_open(&s);
    s.side.toy->before = brake_at_step;
    ask_init(&s.ask, 42, 4, 1); /* chunks of 16, 16 and 10 */
    says_register(&s, 14);
    brake_at = 2;
    brake_pull();
    leg_start(&s.leg, &s.side, &s.ask.spec, 0, 1);
    says_request(&s, 9, "1", pages, 11, "0");
    UNTIL(&s.rig, sem_trywait(&brake.reached) == 0);
    UNTIL(&s.rig, side_stats(&s.side).kv_bytes == 32 * 2 * 16);
    uint32_t all = s.ask.spec.token_count;
    s.ask.spec.token_count = 32;
    kv_landed(&s.peer, &s.ask, pages, 0);
    s.ask.spec.token_count = all;
    brake_release();
    HEARS(&s.peer, "1", "4", "0");
    kv_landed(&s.peer, &s.ask, pages, 0);
    UNTIL(&s.rig, s.leg.done);
    scene_close(&s);
}

/* A REGISTER that does not fit: each room of it fails, with the reason. */
static void unfit(void (*spoil)(struct scene *s), const char *reason)
{
    static const int32_t pages[] = {1, 2, 3};
    struct scene s;
    scene_open(&s);
    log_init(LOG_ERROR, "test");
    spoil(&s);
    says_register(&s, 14);
    leg_start(&s.leg, &s.side, &s.ask.spec, 0, 1);
    says_request(&s, 9, "1", pages, 3, "0");
    HEARS(&s.peer, "1", "0", "0");
    UNTIL(&s.rig, s.leg.done);
    leg_aborted(&s.leg, 500, reason);
    scene_close(&s);
}

static void more_buffers(struct scene *s)
{
    s->buffers = 4;
}
static void other_page(struct scene *s)
{
    s->item_len = "128";
}
static void other_tp(struct scene *s)
{
    s->tp_size = "4";
}
static void few_aux(struct scene *s)
{
    s->aux_items = 6;
}
static void with_state(struct scene *s)
{
    s->state = ("\x01\0\0\0\x08\0\0\0"); /* cut by its zeros: malformed */
}

static void decodes_that_do_not_fit_are_told(void **state)
{
    (void)state;
    unfit(more_buffers, "it has 4 KV buffers, we have 2 (another model?)");
    unfit(other_page, "has 128 bytes, ours has 64");
    unfit(other_tp, "its attn_tp_size is 4, this prefill needs 1");
    unfit(few_aux, "it has 6 aux items, 9 are needed");
    /* a REGISTER that cannot be read registers nobody */
    unfit(with_state, "session has not registered");
}

static void requests_that_do_not_fit_fail_their_room(void **state)
{
    (void)state;
    static const int32_t pages[] = {1, 2, 3, 4};
    struct scene s;
    scene_open(&s);
    says_register(&s, 14);
    leg_start(&s.leg, &s.side, &s.ask.spec, 0, 1);
    says_request(&s, 9, "1", pages, 4, "0");
    HEARS(&s.peer, "1", "0", "0");
    UNTIL(&s.rig, s.leg.done);
    leg_aborted(&s.leg, 500, "the decode asks for 4 pages, the prompt has 3");

    leg_start(&s.leg, &s.side, &s.ask.spec, 0, 2);
    says_request(&s, 9, "2", pages, 2, "3");
    HEARS(&s.peer, "2", "0", "0");
    UNTIL(&s.rig, s.leg.done);
    leg_aborted(&s.leg, 500, "decode_prefix_len 3 is no number of whole pages");

    /* a page that is not in its memory: the target's engine says no */
    static const int32_t wild[] = {1, 2, 1000000};
    leg_start(&s.leg, &s.side, &s.ask.spec, 0, 3);
    says_request(&s, 9, "3", wild, 3, "0");
    HEARS(&s.peer, "3", "0", "0");
    UNTIL(&s.rig, s.leg.done);
    leg_aborted(&s.leg, 500,
                "Prefill transfer failed for request "
                "bootstrap_room=3 with exception");
    scene_close(&s);
}

static void garbage_and_duplicates_change_nothing(void **state)
{
    (void)state;
    static const int32_t pages[] = {9, 10, 4};
    struct scene s;
    scene_open(&s);
    const struct part noise[] = {text("noise"), text("\xff\xfe"), text("")};
    peer_says(&s.peer, noise, 3);
    peer_says(&s.peer, noise, 1);
    says_register(&s, 9);
    says_request(&s, 4, "1", pages, 3, "0");
    says_register(&s, 14);
    says_register(&s, 14);
    says_request(&s, 9, "1", pages + 1, 2, "0"); /* replaced by the next */
    says_request(&s, 9, "1", pages, 3, "0");
    says_abort(&s, "554"); /* answered: all before it is known */
    HEARS(&s.peer, "ABORT_ACK", "554");
    brake_pull();
    leg_start(&s.leg, &s.side, &s.ask.spec, 0, 1);
    UNTIL(&s.rig, sem_trywait(&brake.reached) == 0);
    says_request(&s, 9, "1", pages, 3, "0"); /* again, too late */
    /* a dummy and an unknown word, then something that is answered */
    const struct part dummy[] = {text("1"),   text("127.0.0.1"), text("1"),
                                 text("h:1"), text(""),          text(""),
                                 text(""),    text("1"),         text("0")};
    peer_says(&s.peer, dummy, 9);
    says_abort(&s, "555");
    HEARS(&s.peer, "ABORT_ACK", "555");
    brake_release();
    HEARS(&s.peer, "1", "4", "0");
    kv_landed(&s.peer, &s.ask, pages, 0);
    UNTIL(&s.rig, s.leg.done);
    assert_int_equal(s.leg.finish, FINISH_LENGTH);
    scene_close(&s);
}

static void abort_is_acked_in_every_state(void **state)
{
    (void)state;
    static const int32_t pages[] = {9, 10, 4};
    struct scene s;
    struct why why = {0};
    scene_open(&s);
    says_register(&s, 14);
    /* before anything: the request that comes is refused */
    says_abort(&s, "1");
    HEARS(&s.peer, "ABORT_ACK", "1");
    assert_int_equal(leg_try(&s.leg, &s.side, &s.ask.spec, 0, 1, &why),
                     ERR_PEER);
    /* an early REQUEST is taken back */
    says_request(&s, 9, "2", pages, 3, "0");
    says_abort(&s, "2");
    HEARS(&s.peer, "ABORT_ACK", "2");
    assert_int_equal(leg_try(&s.leg, &s.side, &s.ask.spec, 0, 2, &why),
                     ERR_PEER);
    /* waiting for the REQUEST */
    leg_start(&s.leg, &s.side, &s.ask.spec, 0, 3);
    says_abort(&s, "3");
    HEARS(&s.peer, "ABORT_ACK", "3");
    UNTIL(&s.rig, s.leg.done);
    leg_aborted(&s.leg, 500, "the decode aborted the request");
    /* computing */
    brake_pull();
    leg_start(&s.leg, &s.side, &s.ask.spec, 0, 4);
    says_request(&s, 9, "4", pages, 3, "0");
    UNTIL(&s.rig, sem_trywait(&brake.reached) == 0);
    says_abort(&s, "4");
    HEARS(&s.peer, "ABORT_ACK", "4"); /* though the engine stands still */
    brake_release();
    UNTIL(&s.rig, s.leg.done);
    leg_aborted(&s.leg, 500, "the decode aborted the request");
    /* a new life of an aborted room */
    says_request(&s, 9, "1", pages, 3, "0");
    leg_start(&s.leg, &s.side, &s.ask.spec, 0, 1);
    HEARS(&s.peer, "1", "4", "0");
    scene_close(&s);
}

static void a_decode_that_dies_fails_its_rooms(void **state)
{
    (void)state;
    static const int32_t pages[] = {9, 10, 4};
    struct scene s;
    scene_open(&s);
    says_register(&s, 14);
    brake_pull();
    leg_start(&s.leg, &s.side, &s.ask.spec, 0, 1);
    says_request(&s, 9, "1", pages, 3, "0");
    UNTIL(&s.rig, sem_trywait(&brake.reached) == 0);
    zmq_close(s.peer.pull);
    s.peer.pull = NULL;
    UNTIL(&s.rig, side_rooms(&s.side) == 0);
    brake_release();
    UNTIL(&s.rig, s.leg.done);
    char want[128];
    snprintf(want, sizeof want,
             "Losing connection with decode instance (127.0.0.1:%u)",
             s.peer.port);
    leg_aborted(&s.leg, 500, want);
    scene_close(&s);
}

/* The connection to the decode breaks and the decode is there again, with its
 * REQUEST, before the prefill has heard of it. What came over it shows that it
 * was there at all: else nothing breaks. */
static void decode_blinks(struct scene *s)
{
    struct peer *p = &s->peer;
    char at[64];
    says_abort(s, "77");
    HEARS(p, "ABORT_ACK", "77");
    uint64_t until = clock_ms() + RIG_WAIT_MS;
    snprintf(at, sizeof at, "tcp://127.0.0.1:%u", p->port);
    zmq_close(p->pull);
    p->pull = zmq_socket(p->context, ZMQ_PULL);
    while (zmq_bind(p->pull, at)) /* libzmq closes on a thread of its own */
        if (clock_ms() > until) fail_msg("the port is still taken");
}

static void a_decode_taken_for_lost_is_told(void **state)
{
    (void)state;
    static const int32_t pages[] = {9, 10, 4};
    for (int orphan = 0; orphan < 2; orphan++) {
        struct scene s;
        scene_open(&s);
        says_register(&s, 14);
        brake_pull();
        if (!orphan) leg_start(&s.leg, &s.side, &s.ask.spec, 0, 1);
        says_request(&s, 9, "1", pages, 3, "0");
        if (orphan)
            UNTIL(&s.rig, side_stats(&s.side).by_state[PD_ORPHAN] == 1);
        else
            UNTIL(&s.rig, sem_trywait(&brake.reached) == 0);
        decode_blinks(&s);
        HEARS(&s.peer, "1", "0", "0");
        brake_release();
        if (!orphan) {
            UNTIL(&s.rig, s.leg.done);
            leg_aborted(&s.leg, 500, "Losing connection with decode instance");
        }
        /* Forgotten until it registers again. */
        says_request(&s, 9, "2", pages, 3, "0");
        HEARS(&s.peer, "2", "0", "0");
        says_register(&s, 14);
        says_request(&s, 9, "3", pages, 3, "0");
        leg_start(&s.leg, &s.side, &s.ask.spec, 0, 3);
        HEARS(&s.peer, "3", "4", "0");
        kv_landed(&s.peer, &s.ask, pages, 0);
        UNTIL(&s.rig, s.leg.done);
        scene_close(&s);
    }
}

/* ---- a fake prefill --------------------------------------------------------------- */

struct stock {
    struct rig rig;
    struct side side; /* a decode */
    struct peer peer;
    struct http_server *server;
    bool w4;
    uint16_t port;
    struct ask ask;
    struct leg leg;
    char room[8];
    struct letter reg; /* the last REGISTER */
    struct xfer_peer *to;
};

static void stock_route(void *arg, struct http_request *request)
{
    struct stock *s = arg;
    const char *w4 = http_request_query(request, "prefill_dp_rank");
    const char *w2 = http_request_query(request, "engine_rank");
    char rank[64];
    snprintf(rank, sizeof rank, "{\"rank_ip\":\"127.0.0.1\",\"rank_port\":%u}",
             s->peer.port);
    if (w4 && !s->w4)
        http_reply_text(request, 400, "Missing inputs for bootstrap server.");
    else if (strcmp(w4 ? w4 : w2, "-1") != 0)
        http_reply_text(request, 200, rank);
    else if (w4)
        http_reply_text(request, 200,
                        "{\"attn_tp_size\":1,\"attn_cp_size\":1,\"dp_size\":1,"
                        "\"pp_size\":1,\"page_size\":4,"
                        "\"kv_cache_dtype\":\"auto\","
                        "\"follow_bootstrap_room\":true}");
    else
        http_reply_text(request, 200,
                        "{\"prefill_attn_tp_size\":1,\"prefill_dp_size\":1,"
                        "\"prefill_pp_size\":1}");
}

static void stock_health(void *arg, struct http_request *request)
{
    (void)arg;
    http_reply_text(request, 200, "OK");
}

static const struct http_route stock_routes[] = {
    {HTTP_GET, "/route", stock_route}, {HTTP_GET, "/health", stock_health}};

static void stock_open(struct stock *s, bool w4)
{
    log_init(LOG_ERROR, "test");
    memset(s, 0, sizeof *s);
    s->w4 = w4;
    rig_init(&s->rig);
    struct side_options o = side_defaults(PD_DECODE);
    o.pd.heartbeat_interval_ms = 50;
    o.prefix_cache = true; /* a stock prefill sends all the same */
    side_open(&s->side, &s->rig, &o);
    peer_open(&s->peer, &s->rig);
    const struct http_server_options server = {
        .routes = stock_routes, .route_count = 2, .arg = s};
    assert_int_equal(http_server_open(&s->server, s->rig.loop, &server, NULL),
                     0);
    s->port = (uint16_t)http_server_port(s->server);
}

static void stock_close(struct stock *s)
{
    UNTIL(&s->rig, side_rooms(&s->side) == 0);
    side_close(&s->side);
    http_server_close(s->server);
    peer_close(&s->peer);
    rig_fini(&s->rig);
}

/* Starts a leg and takes its REQUEST (and the first time its REGISTER). */
static void stock_asked(struct stock *s, uint64_t room, uint32_t tokens)
{
    snprintf(s->room, sizeof s->room, "%u", (unsigned)room);
    ask_init(&s->ask, tokens, 12, room);
    leg_start(&s->leg, &s->side, &s->ask.spec, s->port, room);
    if (!s->to) {
        UNTIL(&s->rig, peer_receive(&s->peer));
        s->reg = s->peer.in;
        assert_int_equal(s->reg.count, s->w4 ? 14 : 10);
        assert_string_equal(s->reg.frame[0].bytes, "None");
        assert_int_equal(s->reg.frame[4].len, 16);
        assert_int_equal(s->reg.frame[5].len, s->w4 ? 80 : 72);
        assert_string_equal(s->reg.frame[9].bytes, "64");
        peer_connect(&s->peer, (uint16_t)atoi(s->reg.frame[2].bytes));
        assert_int_equal(
            xfer_peer_open(s->peer.xfer, s->reg.frame[3].bytes, &s->to, NULL),
            0);
    }
    UNTIL(&s->rig, peer_receive(&s->peer));
    assert_int_equal(s->peer.in.count, s->w4 ? 9 : 8);
    assert_string_equal(s->peer.in.frame[0].bytes, s->room);
    assert_int_equal(s->peer.in.frame[4].len, (tokens + PAGE - 1) / PAGE * 4);
    assert_string_equal(s->peer.in.frame[7].bytes, "1");
    if (s->w4) assert_string_equal(s->peer.in.frame[8].bytes, "0");
}

static uint64_t at_u64(const char *bytes, size_t i)
{
    uint64_t v;
    memcpy(&v, bytes + 8 * i, 8);
    return v;
}

static void put(struct stock *s, const void *local, uint64_t remote, size_t n)
{
    const struct xfer_op op = {.kind = XFER_WRITE,
                               .rows = 1,
                               .local = (void *)(uintptr_t)local,
                               .remote = remote,
                               .bytes = n};
    struct why why = {0};
    if (xfer_transfer(s->to, &op, 1, 20000, &why)) fail_msg("%s", why.text);
}

/* The KV of the prompt into the pages of the REQUEST, and the aux row. */
static void stock_writes(struct stock *s, int32_t token, uint64_t room)
{
    float *k = bytes_of(s->peer.kv[0]), *v = bytes_of(s->peer.kv[1]);
    uint32_t tokens = s->ask.spec.token_count;
    const char *pages = s->peer.in.frame[4].bytes;
    uint64_t row = (uint64_t)atoi(s->peer.in.frame[5].bytes);
    for (uint32_t at = 0; at < tokens; at++)
        kv_of(&s->ask, at, k + 4 * at, v + 4 * at);
    for (uint32_t i = 0; i < (tokens + PAGE - 1) / PAGE; i++) {
        int32_t page;
        memcpy(&page, pages + 4 * i, 4);
        assert_true(page > 0);
        uint64_t at = (uint64_t)page * 64;
        put(s, k + i * 16, at_u64(s->reg.frame[4].bytes, 0) + at, 64);
        put(s, v + i * 16, at_u64(s->reg.frame[4].bytes, 1) + at, 64);
    }
    memcpy(bytes_of(s->peer.aux[0]), &token, 4);
    memcpy(bytes_of(s->peer.aux[9]), &room, 8);
    for (size_t i = 0; i < (s->w4 ? 10 : 9); i++)
        put(s, bytes_of(s->peer.aux[i]),
            at_u64(s->reg.frame[5].bytes, i) + row * aux_bytes[i],
            aux_bytes[i]);
}

static void stock_status(struct stock *s, const char *room, const char *status)
{
    const struct part parts[3] = {text(room), text(status), text("0")};
    peer_says(&s->peer, parts, 3);
}

static void stock_prefills_of_both_generations_are_used(void **state)
{
    (void)state;
    for (int w4 = 0; w4 < 2; w4++) {
        struct stock s;
        stock_open(&s, w4);
        for (uint64_t room = 21; room < 25; room++) {
            stock_asked(&s, room, 3 * (uint32_t)room);
            stock_status(&s, "987654", "4"); /* of a room long gone */
            stock_status(&s, s.room, "7");   /* malformed */
            stock_writes(&s, s.ask.want[0], room);
            stock_status(&s, s.room, "4");
            UNTIL(&s.rig, s.leg.done);
            ask_answered(&s.ask, &s.leg);
            stock_status(&s, s.room, "4"); /* twice: nothing */
            stock_status(&s, s.room, "0");
        }
        stock_close(&s);
    }
}

static void a_stock_prefill_fails(void **state)
{
    (void)state;
    struct stock s;
    stock_open(&s, true);
    stock_asked(&s, 3, 20);
    stock_status(&s, "3", "0");
    UNTIL(&s.rig, s.leg.done);
    leg_aborted(&s.leg, 500,
                "Decode transfer failed for request bootstrap_room=3");
    stock_close(&s);
}

/* A Baton prefill says why it failed; it may have forgotten the decode. */
static void after_a_failure_the_decode_registers_again(void **state)
{
    (void)state;
    struct stock s;
    stock_open(&s, true);
    stock_asked(&s, 3, 20);
    const struct part status[5] = {text("3"), text("0"), text("0"), text("503"),
                                   text("Losing connection with decode")};
    peer_says(&s.peer, status, 5);
    UNTIL(&s.rig, s.leg.done);
    leg_aborted(&s.leg, 503, "Losing connection with decode");
    ask_init(&s.ask, 20, 12, 4);
    leg_start(&s.leg, &s.side, &s.ask.spec, s.port, 4);
    HEARS(&s.peer, "None", "127.0.0.1", NULL, s.reg.frame[3].bytes, NULL, NULL,
          NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
    UNTIL(&s.rig, peer_receive(&s.peer));
    assert_string_equal(s.peer.in.frame[0].bytes, "4");
    stock_writes(&s, s.ask.want[0], 4);
    stock_status(&s, "4", "4");
    UNTIL(&s.rig, s.leg.done);
    ask_answered(&s.ask, &s.leg);
    stock_close(&s);
}

static void aux_rows_that_cannot_be_right_are_refused(void **state)
{
    (void)state;
    struct stock s;
    stock_open(&s, true);
    const struct {
        int32_t token;
        uint64_t room;
    } rows[] = {{1, 999}, {1, 0}, {TOY_VOCAB, 4}, {-1, 5}};
    for (uint64_t i = 0; i < 4; i++) {
        stock_asked(&s, 2 + i, 20);
        stock_writes(&s, rows[i].token, rows[i].room);
        stock_status(&s, s.room, "4");
        UNTIL(&s.rig, s.leg.done);
        leg_aborted(&s.leg, 500,
                    i < 2 ? "Metadata corruption detected - bootstrap_room "
                            "mismatch"
                          : "is not in the vocabulary");
    }
    stock_close(&s);
}

static void quarantine_ends_with_the_peers_word(void **state)
{
    (void)state;
    for (int w4 = 0; w4 < 2; w4++) {
        struct stock s;
        stock_open(&s, w4);
        uint32_t pages = side_engine(&s.side).pages_total;
        const char *words[] = {"4", "0"};
        for (uint64_t i = 0; i < 2; i++) {
            stock_asked(&s, 11 + i, 20);
            pd_node_abort(s.side.node, s.leg.id, 499, "client left");
            UNTIL(&s.rig, s.leg.done);
            leg_aborted(&s.leg, 499, "client left");
            if (w4) HEARS(&s.peer, "ABORT", s.room, "127.0.0.1", NULL);
            /* its pages stay out of use, whatever happens meanwhile */
            UNTIL(&s.rig, side_engine(&s.side).quarantined == 1);
            assert_int_equal(side_stats(&s.side).quarantined, 1);
            assert_int_equal(side_engine(&s.side).pages_free, pages - 5);
            assert_false(peer_receive(&s.peer)); /* W2 hears no ABORT */
            stock_status(&s, s.room, words[i]);
            UNTIL(&s.rig, side_engine(&s.side).pages_free == pages);
            assert_int_equal(side_rooms(&s.side), 0);
        }
        if (w4) {
            stock_asked(&s, 13, 20);
            pd_node_abort(s.side.node, s.leg.id, 499, "client left");
            HEARS(&s.peer, "ABORT", "13", "127.0.0.1", NULL);
            const struct part ack[] = {text("ABORT_ACK"), text("13")};
            peer_says(&s.peer, ack, 2);
            UNTIL(&s.rig, side_engine(&s.side).pages_free == pages);
            UNTIL(&s.rig, s.leg.done);
        }
        stock_close(&s);
    }
}

static void a_prefill_that_dies_fails_its_rooms(void **state)
{
    (void)state;
    for (int heart = 0; heart < 2; heart++) {
        struct stock s;
        stock_open(&s, true);
        stock_asked(&s, 3, 20);
        if (heart) { /* no more heartbeat, or its socket ends */
            http_server_close(s.server);
            s.server = NULL;
        } else {
            zmq_close(s.peer.pull);
            s.peer.pull = NULL;
        }
        UNTIL(&s.rig, s.leg.done);
        char want[128];
        snprintf(want, sizeof want,
                 "Losing connection with prefill instance (bootstrap_addr: "
                 "127.0.0.1:%u)",
                 s.port);
        leg_aborted(&s.leg, 500, want);
        /* Its transfer engine may live: the pages wait for its word. */
        stock_status(&s, "3", "0");
        stock_close(&s);
    }
}

TESTS(T(stock_decodes_of_both_generations_are_served),
      T(a_decodes_own_prefix_is_not_sent),
      T(each_chunk_is_there_while_the_next_is_computed),
      T(decodes_that_do_not_fit_are_told),
      T(requests_that_do_not_fit_fail_their_room),
      T(garbage_and_duplicates_change_nothing),
      T(abort_is_acked_in_every_state), T(a_decode_that_dies_fails_its_rooms),
      T(a_decode_taken_for_lost_is_told),
      T(stock_prefills_of_both_generations_are_used), T(a_stock_prefill_fails),
      T(after_a_failure_the_decode_registers_again),
      T(aux_rows_that_cannot_be_right_are_refused),
      T(quarantine_ends_with_the_peers_word),
      T(a_prefill_that_dies_fails_its_rooms))
