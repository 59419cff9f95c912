/* One real side, and opposite to it a peer that speaks raw frames as SGLang
 * of generation W2 or W4 does (docs/wire.md), with no code of src/pd/. */
#include "tests/pd/stock.h"

#include <inttypes.h>

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

/* ---- a fake decode ------------------------------------------------------ */

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
                                   text(p->session),
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
                                  text(p->session),
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

/* The decode has given the pages to somebody else: it says nothing, but what
 * it was known by is over. What the prefill writes then is refused. */
static void a_decode_that_has_shut_the_prefill_out(void **state)
{
    (void)state;
    static const int32_t pages[] = {9, 10, 4};
    struct scene s;
    scene_open(&s);
    char *kv = bytes_of(s.peer.kv[0]), was[PAGES * PAGE * 16];
    xfer_pass(s.peer.xfer, s.peer.session);
    says_register(&s, 14);
    says_request(&s, 9, "1", pages, 3, "0");
    leg_start(&s.leg, &s.side, &s.ask.spec, 0, 1);
    HEARS(&s.peer, "1", "4", "0"); /* so its link is there */
    UNTIL(&s.rig, s.leg.done);
    brake_pull();
    leg_start(&s.leg, &s.side, &s.ask.spec, 0, 2);
    says_request(&s, 9, "2", pages, 3, "0");
    UNTIL(&s.rig, sem_trywait(&brake.reached) == 0);
    assert_int_equal(xfer_expel(s.peer.xfer, s.peer.session, 20000), 0);
    memset(kv, 0x77, sizeof was);
    memcpy(was, kv, sizeof was);
    brake_release();
    HEARS(&s.peer, "2", "0", "0");
    UNTIL(&s.rig, s.leg.done);
    leg_aborted(&s.leg, 500, "Prefill transfer failed");
    /* A REQUEST of then, that it finds only now. */
    says_request(&s, 9, "3", pages, 3, "0");
    leg_start(&s.leg, &s.side, &s.ask.spec, 0, 3);
    HEARS(&s.peer, "3", "0", "0");
    UNTIL(&s.rig, s.leg.done);
    leg_aborted(&s.leg, 500, "pass is over");
    assert_memory_equal(kv, was, sizeof was);
    xfer_pass(s.peer.xfer, s.peer.session);
    says_register(&s, 14);
    says_request(&s, 9, "4", pages, 3, "0");
    leg_start(&s.leg, &s.side, &s.ask.spec, 0, 4);
    HEARS(&s.peer, "4", "4", "0");
    kv_landed(&s.peer, &s.ask, pages, 0);
    UNTIL(&s.rig, s.leg.done);
    scene_close(&s);
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
        UNTIL(&s.rig, side_rooms(&s.side) == 0);
        /* Its transfer engine lives, but the pages are not its any more. */
        int rc = ERR_PEER; /* until its engine has seen it */
        for (int tries = 0; rc == ERR_PEER && tries < 100; tries++)
            rc = late_write(&s, s.to);
        assert_int_equal(rc, ERR_STALE);
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
      T(a_decode_that_has_shut_the_prefill_out),
      T(stock_prefills_of_both_generations_are_used), T(a_stock_prefill_fails),
      T(after_a_failure_the_decode_registers_again),
      T(aux_rows_that_cannot_be_right_are_refused),
      T(quarantine_ends_with_the_peers_word),
      T(a_prefill_that_dies_fails_its_rooms))
