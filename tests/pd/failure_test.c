/* Every failure on either side reaches the other side and the client. */
#include "tests/pd/pair.h"

/* After whatever failed, both sides serve. */
static void still_serves(struct pair *pair)
{
    struct ask ask;
    struct leg p, d;
    ask_init(&ask, 30, 12, 77);
    both(pair, &ask, &p, &d, 1000);
    UNTIL(&pair->rig, p.done && d.done);
    ask_answered(&ask, &d);
    quiet(pair);
}

/* Both legs are on their way and the prefill's engine stands in a step. */
static void both_computing(struct pair *pair, struct ask *ask, struct leg *p,
                           struct leg *d)
{
    ask_init(ask, 60, 10, 5);
    brake_pull();
    both(pair, ask, p, d, 5);
    UNTIL(&pair->rig, sem_trywait(&brake.reached) == 0 &&
                          side_stats(&pair->d).by_state[PD_WAIT] == 1);
}

static void the_decodes_client_leaves(void **state)
{
    (void)state;
    struct pair pair;
    struct ask ask;
    struct leg p, d;
    pair_begin();
    pair_open(&pair);
    both_computing(&pair, &ask, &p, &d);
    pd_node_abort(pair.d.node, d.id, 499, "client left");
    UNTIL(&pair.rig, d.done && side_rooms(&pair.d) == 0); /* ABORT_ACK */
    leg_aborted(&d, 499, "client left");
    brake_release();
    UNTIL(&pair.rig, p.done);
    leg_aborted(&p, 500, "the decode aborted the request");
    quiet(&pair);
    still_serves(&pair);
    pair_close(&pair);
}

static void the_prefills_client_leaves(void **state)
{
    (void)state;
    struct pair pair;
    struct ask ask;
    struct leg p, d;
    pair_begin();
    pair_open(&pair);
    both_computing(&pair, &ask, &p, &d);
    pd_node_abort(pair.p.node, p.id, 499, "Aborted by AbortReq.");
    UNTIL(&pair.rig, d.done);
    leg_aborted(&d, 499, "Aborted by AbortReq.");
    brake_release();
    UNTIL(&pair.rig, p.done);
    leg_aborted(&p, 499, "Aborted by AbortReq.");
    quiet(&pair);
    still_serves(&pair);
    pair_close(&pair);
}

/* What a prefill refuses before its node sees it, in either order. */
static void a_refused_body_reaches_the_decode(void **state)
{
    (void)state;
    struct pair pair;
    struct ask ask;
    struct leg d;
    pair_begin();
    pair_open(&pair);
    ask_init(&ask, 30, 10, 5);
    leg_start(&d, &pair.d, &ask.spec, pair.p.port, 5);
    UNTIL(&pair.rig, side_stats(&pair.p).by_state[PD_ORPHAN] == 1);
    pd_node_refuse(pair.p.node, 5, 400, "text must be a string");
    UNTIL(&pair.rig, d.done);
    leg_aborted(&d, 400, "text must be a string");
    pd_node_refuse(pair.p.node, 6, 400, "too long");
    leg_start(&d, &pair.d, &ask.spec, pair.p.port, 6);
    UNTIL(&pair.rig, d.done);
    leg_aborted(&d, 400, "too long");
    pd_node_refuse(pair.d.node, 7, 400, "a decode has nobody to tell");
    quiet(&pair);
    still_serves(&pair);
    pair_close(&pair);
}

static bool break_once(struct toy *toy)
{
    toy->before = NULL;
    return false;
}

static void the_prefills_engine_fails(void **state)
{
    (void)state;
    struct pair pair;
    struct ask ask;
    struct leg p, d;
    pair_begin();
    prefill_options.before = break_once;
    pair_open(&pair);
    ask_init(&ask, 60, 10, 5);
    both(&pair, &ask, &p, &d, 5);
    UNTIL(&pair.rig, p.done && d.done);
    assert_int_equal(p.finish, FINISH_ABORT);
    leg_aborted(&d, p.status, p.message);
    assert_non_null(strstr(d.message, "the toy broke"));
    quiet(&pair);
    still_serves(&pair);
    pair_close(&pair);
}

static void the_decodes_engine_fails(void **state)
{
    (void)state;
    struct pair pair;
    struct ask ask;
    struct leg p, d;
    pair_begin();
    decode_options.before = break_once;
    pair_open(&pair);
    ask_init(&ask, 60, 10, 5);
    ask.spec.sampling.ignore_eos = true;
    both(&pair, &ask, &p, &d, 5);
    UNTIL(&pair.rig, p.done && d.done);
    assert_int_equal(p.finish, FINISH_LENGTH); /* its part was done */
    leg_aborted(&d, d.status, "the toy broke");
    still_serves(&pair);
    pair_close(&pair);
}

static void nobody_asks_the_prefill(void **state)
{
    (void)state;
    struct pair pair;
    struct ask ask;
    struct leg p, d;
    pair_begin();
    prefill_options.pd.bootstrap_timeout_ms = 1000; /* enough for a pair */
    pair_open(&pair);
    ask_init(&ask, 10, 4, 1);
    leg_start(&p, &pair.p, &ask.spec, 0, 1);
    UNTIL(&pair.rig, p.done);
    leg_aborted(&p, 500,
                "Prefill bootstrap failed for request "
                "bootstrap_room=1 with exception Request 1 timed out "
                "after 1.0s in KVPoll.Bootstrapping");
    /* the one who asks afterwards hears so at once */
    leg_start(&d, &pair.d, &ask.spec, pair.p.port, 1);
    UNTIL(&pair.rig, d.done);
    leg_aborted(&d, 500, "");
    quiet(&pair);
    still_serves(&pair);
    pair_close(&pair);
}

static void the_prefills_request_never_comes(void **state)
{
    (void)state;
    struct pair pair;
    struct ask ask;
    struct leg d;
    pair_begin();
    decode_options.pd.waiting_timeout_ms = 1000; /* also for the ABORT_ACK */
    pair_open(&pair);
    ask_init(&ask, 10, 4, 1);
    leg_start(&d, &pair.d, &ask.spec, pair.p.port, 1);
    UNTIL(&pair.rig, d.done);
    leg_aborted(&d, 500,
                "Decode transfer failed for request bootstrap_room=1 "
                "with exception Request 1 timed out after 1.0s in "
                "KVPoll.WaitingForInput");
    UNTIL(&pair.rig, side_rooms(&pair.d) == 0); /* ABORT was acked */
    /* its request, late, is refused: the decode is not there any more */
    struct leg p;
    struct why why = {0};
    assert_int_equal(leg_try(&p, &pair.p, &ask.spec, 0, 1, &why), ERR_PEER);
    assert_non_null(strstr(why.text, "the decode aborted the request"));
    quiet(&pair);
    pair_close(&pair);
}

static void an_orphan_expires(void **state)
{
    (void)state;
    struct pair pair;
    struct ask ask;
    struct leg d;
    pair_begin();
    prefill_options.pd.bootstrap_timeout_ms = 100;
    pair_open(&pair);
    ask_init(&ask, 10, 4, 1);
    leg_start(&d, &pair.d, &ask.spec, pair.p.port, 1);
    UNTIL(&pair.rig, d.done);
    leg_aborted(&d, 500, "no request came for this room");
    quiet(&pair);
    pair_close(&pair);
}

static void orphans_are_bounded(void **state)
{
    (void)state;
    enum { ROOMS = 12 };
    struct pair pair;
    struct ask ask;
    struct leg d[ROOMS];
    pair_begin();
    prefill_options.pd.max_requests = 3; /* 6 may wait */
    pair_open(&pair);
    ask_init(&ask, 10, 4, 1);
    for (uint64_t i = 0; i < ROOMS; i++)
        leg_start(&d[i], &pair.d, &ask.spec, pair.p.port, i);
    UNTIL(&pair.rig, side_stats(&pair.p).by_state[PD_ORPHAN] == 6 &&
                         side_rooms(&pair.d) == 6);
    for (int i = 0; i < ROOMS; i++) /* in the order of their arrival */
        if (d[i].done)
            leg_aborted(&d[i], 500, "too many rooms wait for their request");
        else
            pd_node_abort(pair.d.node, d[i].id, 499, "enough");
    UNTIL(&pair.rig, side_rooms(&pair.d) == 0);
    pair_close(&pair);
}

static void over_long_prompts_are_refused_on_both_sides(void **state)
{
    (void)state;
    struct pair pair;
    struct ask ask;
    struct leg p, d;
    struct why why = {0};
    pair_begin();
    prefill_options.context = 100;
    pair_open(&pair);
    ask_init(&ask, 120, 4, 1);
    /* the decode has room for it and has asked already */
    leg_start(&d, &pair.d, &ask.spec, pair.p.port, 1);
    UNTIL(&pair.rig, side_stats(&pair.p).by_state[PD_ORPHAN] == 1);
    assert_int_equal(leg_try(&p, &pair.p, &ask.spec, 0, 1, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "longer than the model's context length"));
    UNTIL(&pair.rig, d.done);
    leg_aborted(&d, 400, "longer than the model's context length");
    /* the decode comes second */
    assert_int_equal(leg_try(&p, &pair.p, &ask.spec, 0, 2, &why), ERR_INVALID);
    leg_start(&d, &pair.d, &ask.spec, pair.p.port, 2);
    UNTIL(&pair.rig, d.done);
    leg_aborted(&d, 400, "longer than the model's context length");
    /* only the sum of prompt and output is too long */
    ask_init(&ask, 60, 50, 1);
    assert_int_equal(leg_try(&p, &pair.p, &ask.spec, 0, 3, &why), ERR_INVALID);
    leg_start(&d, &pair.d, &ask.spec, pair.p.port, 3);
    UNTIL(&pair.rig, d.done);
    leg_aborted(&d, 400, "Requested token count exceeds");
    quiet(&pair);
    /* too long for the decode: the prefill's leg ends too */
    ask_init(&ask, 90, 4, 2);
    still_serves(&pair);
    ask.spec.token_count = 450;
    leg_start(&p, &pair.p,
              &(struct request_spec){.tokens = ask.prompt,
                                     .token_count = 5,
                                     .sampling = ask.spec.sampling,
                                     .logprob_start = -1},
              0, 4);
    assert_int_equal(leg_try(&d, &pair.d, &ask.spec, pair.p.port, 4, &why),
                     ERR_INVALID);
    UNTIL(&pair.rig, p.done);
    leg_aborted(&p, 500, "the decode aborted the request");
    quiet(&pair);
    pair_close(&pair);
}

static void legs_with_different_prompts_are_found_out(void **state)
{
    (void)state;
    struct pair pair;
    struct ask one, other;
    struct leg p, d;
    pair_begin();
    pair_open(&pair);
    ask_init(&one, 10, 4, 1);
    ask_init(&other, 10, 4, 2);
    leg_start(&p, &pair.p, &one.spec, 0, 1);
    leg_start(&d, &pair.d, &other.spec, pair.p.port, 1);
    UNTIL(&pair.rig, p.done && d.done);
    leg_aborted(&p, 500, "is not this one (10 tokens)");
    leg_aborted(&d, 500, "is not this one (10 tokens)");
    quiet(&pair);
    pair_close(&pair);
}

static void no_pages_for_the_decode(void **state)
{
    (void)state;
    struct pair pair;
    struct ask big, small;
    struct leg p[2], d[2];
    pair_begin();
    decode_options.pages = 40;                     /* 160 tokens */
    decode_options.pd.bootstrap_timeout_ms = 1000; /* enough with pages */
    pair_open(&pair);
    still_serves(&pair);
    ask_init(&big, 120, 8, 1);
    ask_init(&small, 80, 4, 3);
    brake_pull();
    leg_start(&p[0], &pair.p, &big.spec, 0, 1);
    leg_start(&d[0], &pair.d, &big.spec, pair.p.port, 1);
    UNTIL(&pair.rig, side_stats(&pair.d).by_state[PD_WAIT] == 1);
    leg_start(&p[1], &pair.p, &small.spec, 0, 2);
    leg_start(&d[1], &pair.d, &small.spec, pair.p.port, 2);
    UNTIL(&pair.rig, d[1].done && p[1].done);
    leg_aborted(&d[1], 500,
                "Decode handshake failed for request "
                "bootstrap_room=2 with exception Request 2 timed "
                "out after 1.0s in KVPoll.Bootstrapping");
    leg_aborted(&p[1], 500, "the decode aborted the request");
    brake_release();
    UNTIL(&pair.rig, d[0].done);
    ask_answered(&big, &d[0]);
    pair_close(&pair);
}

static void mismatch(struct side_options *of, const char *text)
{
    struct pair pair;
    struct ask ask;
    struct leg d;
    (void)of;
    pair_open(&pair);
    ask_init(&ask, 10, 4, 1);
    leg_start(&d, &pair.d, &ask.spec, pair.p.port, 1);
    UNTIL(&pair.rig, d.done);
    leg_aborted(&d, 500, text);
    pair_close(&pair);
}

static void servers_that_do_not_fit_say_why(void **state)
{
    (void)state;
    pair_begin();
    prefill_options.page_tokens = 16;
    mismatch(&prefill_options, "its page size is 16, ours is 4");
    pair_begin();
    prefill_options.pd.fingerprint = 8;
    mismatch(&prefill_options, "serves another model: its fingerprint is "
                               "0000000000000008, ours is 0000000000000007");
}

static void no_prefill_there(void **state)
{
    (void)state;
    struct pair pair;
    struct ask ask;
    struct leg d;
    pair_begin();
    pair_open(&pair);
    ask_init(&ask, 10, 4, 1);
    leg_start(&d, &pair.d, &ask.spec, free_port(), 1);
    UNTIL(&pair.rig, d.done);
    leg_aborted(&d, 500, "Could not fetch prefill parallel info");
    quiet(&pair);
    pair_close(&pair);
}

/* The prefill's process is as good as gone: its node and transfer engine
 * close while the decode waits. The heartbeat is far too slow to see it. */
static void the_prefill_shuts_down(void **state)
{
    (void)state;
    struct pair pair;
    struct ask ask;
    struct leg p, d;
    pair_begin();
    pair_open(&pair);
    still_serves(&pair); /* so its connection to the decode is there */
    both_computing(&pair, &ask, &p, &d);
    pd_node_close(pair.p.node);
    pair.p.node = NULL;
    leg_aborted(&p, 503, "shutting down");
    UNTIL(&pair.rig, d.done);
    leg_aborted(&d, 503, "shutting down");
    UNTIL(&pair.rig, side_rooms(&pair.d) == 0);
    brake_release();
    pair_close(&pair);
}

static void the_decode_shuts_down(void **state)
{
    (void)state;
    struct pair pair;
    struct ask ask;
    struct leg p, d;
    pair_begin();
    pair_open(&pair);
    both_computing(&pair, &ask, &p, &d);
    pd_node_close(pair.d.node);
    pair.d.node = NULL;
    leg_aborted(&d, 503, "shutting down");
    brake_release();
    UNTIL(&pair.rig, p.done);
    assert_int_equal(p.finish, FINISH_ABORT);
    UNTIL(&pair.rig, side_rooms(&pair.p) == 0);
    pair_close(&pair);
}

static void closing_ends_requests_in_every_state(void **state)
{
    (void)state;
    enum { ROOMS = 10 };
    struct pair pair;
    struct ask ask[ROOMS];
    struct leg p[ROOMS], d[ROOMS];
    pair_begin();
    pair_open(&pair);
    brake_pull();
    for (uint32_t i = 0; i < ROOMS; i++) {
        ask_init(&ask[i], 30 + i, 20, i);
        if (i % 3 != 1) leg_start(&p[i], &pair.p, &ask[i].spec, 0, i);
        if (i % 3 != 2)
            leg_start(&d[i], &pair.d, &ask[i].spec,
                      i == 9 ? free_port() : pair.p.port, i);
    }
    UNTIL(&pair.rig, sem_trywait(&brake.reached) == 0);
    pd_node_close(pair.d.node);
    pd_node_close(pair.p.node);
    pair.d.node = pair.p.node = NULL;
    for (uint32_t i = 0; i < ROOMS; i++) {
        if (i % 3 != 1) assert_true(p[i].done);
        if (i % 3 != 2) assert_true(d[i].done);
    }
    brake_release();
    pair_close(&pair);
}

static void aborts_at_any_moment_leave_nothing_behind(void **state)
{
    (void)state;
    enum { ROOMS = 60 };
    static struct ask ask[ROOMS];
    static struct leg p[ROOMS], d[ROOMS];
    struct pair pair;
    uint64_t seed = 11;
    pair_begin();
    prefill_options.chunk_tokens = 8;
    prefill_options.prefix_cache = decode_options.prefix_cache = true;
    pair_open(&pair);
    for (uint32_t i = 0; i < ROOMS; i++) { /* each prompt comes thrice */
        ask_init(&ask[i], 20 + i % 20 * 3, 20, i % 20);
        both(&pair, &ask[i], &p[i], &d[i], i);
        for (uint64_t turns = rng_next(&seed) % 4; turns; turns--)
            rig_turn(&pair.rig);
        uint64_t who = rng_next(&seed) % 4;
        uint32_t victim = (uint32_t)(rng_next(&seed) % (i + 1));
        if (who == 0) pd_node_abort(pair.p.node, p[victim].id, 500, "p");
        if (who == 1) pd_node_abort(pair.d.node, d[victim].id, 500, "d");
    }
    for (uint32_t i = 0; i < ROOMS; i++) {
        UNTIL(&pair.rig, p[i].done && d[i].done);
        if (d[i].finish != FINISH_ABORT) ask_answered(&ask[i], &d[i]);
    }
    /* A room whose both clients left before they met stays marked a while. */
    UNTIL(&pair.rig,
          side_rooms(&pair.d) == 0 &&
              side_rooms(&pair.p) == side_stats(&pair.p).by_state[PD_ORPHAN]);
    pair_close(&pair);
}

TESTS(T(a_refused_body_reaches_the_decode), T(the_decodes_client_leaves),
      T(the_prefills_client_leaves), T(the_prefills_engine_fails),
      T(the_decodes_engine_fails), T(nobody_asks_the_prefill),
      T(the_prefills_request_never_comes), T(an_orphan_expires),
      T(orphans_are_bounded), T(over_long_prompts_are_refused_on_both_sides),
      T(legs_with_different_prompts_are_found_out), T(no_pages_for_the_decode),
      T(servers_that_do_not_fit_say_why), T(no_prefill_there),
      T(the_prefill_shuts_down), T(the_decode_shuts_down),
      T(closing_ends_requests_in_every_state),
      T(aborts_at_any_moment_leave_nothing_behind))
