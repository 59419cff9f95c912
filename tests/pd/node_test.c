/* A prefill and a decode in one process, over real sockets and memory. */
#include "tests/pd/pair.h"

static void prefill_answered(const struct ask *ask, const struct leg *leg)
{
    assert_true(leg->done);
    if (leg->finish == FINISH_ABORT) fail_msg("%s", leg->message);
    assert_int_equal(leg->finish, FINISH_LENGTH);
    assert_int_equal(leg->count, 1);
    assert_int_equal(leg->tokens[0], ask->want[0]);
}

static void apart_is_as_together(void **state)
{
    (void)state;
    static const uint32_t pages[] = {1, 4, 16, 4};
    static const uint32_t chunks[] = {7, 16, 64, 3};
    pair_begin();
    for (int i = 0; i < 4; i++) {
        struct pair pair;
        prefill_options.page_tokens = decode_options.page_tokens = pages[i];
        prefill_options.chunk_tokens = chunks[i];
        prefill_options.prefix_cache = i == 3;
        pair_open(&pair);
        for (uint64_t n = 1; n <= 12; n++) {
            struct ask ask;
            struct leg p, d;
            ask_init(&ask, (uint32_t)(n * n), (uint32_t)n * 3, n + 100);
            if (n % 2)
                both(&pair, &ask, &p, &d, n);
            else { /* the decode comes first */
                leg_start(&d, &pair.d, &ask.spec, pair.p.port, n);
                UNTIL(&pair.rig, side_rooms(&pair.p) == 1);
                leg_start(&p, &pair.p, &ask.spec, 0, n);
            }
            UNTIL(&pair.rig, p.done && d.done);
            prefill_answered(&ask, &p);
            ask_answered(&ask, &d);
        }
        struct pd_stats stats = side_stats(&pair.p);
        assert_true(stats.kv_bytes > 0 && stats.transport[0]);
        assert_int_equal(stats.failed_bootstrap + stats.failed_transfer, 0);
        pair_close(&pair);
        pair_begin();
    }
}

static void a_hundred_rooms_at_once(void **state)
{
    (void)state;
    enum { ROOMS = 100 };
    static struct ask asks[ROOMS];
    static struct leg p[ROOMS], d[ROOMS];
    struct pair pair;
    pair_begin();
    prefill_options.prefix_cache = true;
    pair_open(&pair);
    for (uint32_t i = 0; i < ROOMS; i++) {
        ask_init(&asks[i], 20 + i % 50, 10 + i % 7, i + 1);
        both(&pair, &asks[i], &p[i], &d[i], (uint64_t)i << 40);
    }
    for (uint32_t i = 0; i < ROOMS; i++) {
        UNTIL(&pair.rig, p[i].done && d[i].done);
        prefill_answered(&asks[i], &p[i]);
        ask_answered(&asks[i], &d[i]);
    }
    quiet(&pair);
    pair_close(&pair);
}

static void the_prefix_hit_and_logprobs_cross_over(void **state)
{
    (void)state;
    struct pair pair;
    struct ask ask;
    struct leg p, d;
    pair_begin();
    prefill_options.prefix_cache = true;
    pair_open(&pair);
    ask_init(&ask, 33, 5, 1);
    ask.spec.want_logprobs = true;
    ask.spec.top_logprobs = 3;
    for (uint64_t room = 1; room <= 2; room++) {
        both(&pair, &ask, &p, &d, room);
        UNTIL(&pair.rig, p.done && d.done);
        ask_answered(&ask, &d);
        assert_int_equal(p.cached, room == 1 ? 0 : 32);
        assert_int_equal(d.cached, p.cached);
        assert_true(p.logprob < 0 && d.logprob == p.logprob);
        assert_int_equal(d.top_count, 3);
        assert_memory_equal(d.top_ids, p.top_ids, 3 * sizeof(int32_t));
        assert_int_equal(d.top_ids[0], d.tokens[0]); /* greedy */
    }
    quiet(&pair);
    pair_close(&pair);
}

/* A conversation: each turn's prompt is the last one's, its answer and more.
 * The decode has all of it but the new words. */
static void what_the_decode_has_is_not_sent_again(void **state)
{
    (void)state;
    enum { TURNS = 6, WORDS = 20, PAGE = 4, KV = 2 * 16, AUX_ROW = 1600 };
    struct pair pair;
    struct ask ask, turn;
    struct leg p, d;
    pair_begin();
    prefill_options.prefix_cache = decode_options.prefix_cache = true;
    pair_open(&pair);
    ask_init(&ask, WORDS, 10, 3);
    uint64_t moved = 0, kept = 0;
    for (uint64_t room = 1; room <= TURNS; room++) {
        ask.spec.tokens = ask.prompt;
        ask.want_count = toy_expect(&ask.spec, ask.want, &ask.want_finish);
        both(&pair, &ask, &p, &d, room);
        UNTIL(&pair.rig, p.done && d.done);
        ask_answered(&ask, &d);
        uint32_t n = ask.spec.token_count;
        moved += (n - kept) * KV + AUX_ROW;
        assert_int_equal(side_stats(&pair.p).kv_bytes, moved);
        /* The last token of the answer was never computed. */
        kept = (n + d.count - 1) / PAGE * PAGE;
        memcpy(ask.prompt + n, d.tokens, d.count * sizeof *d.tokens);
        ask_init(&turn, WORDS, 10, 100 + room);
        memcpy(ask.prompt + n + d.count, turn.prompt, WORDS * 4);
        ask.spec.token_count = n + d.count + WORDS;
    }
    assert_true(side_engine(&pair.d).kept_tokens > 100);
    quiet(&pair);
    pair_close(&pair);
}

static void the_fake_peer_needs_none(void **state)
{
    (void)state;
    struct pair pair;
    struct ask ask;
    pair_begin();
    pair_open(&pair);
    ask_init(&ask, 4, 8, 1);
    ask.spec.sampling.ignore_eos = true;
    ask.want_count = toy_expect(&ask.spec, ask.want, &ask.want_finish);
    const struct pd_meeting fake = {.host = "2.2.2.2", .has_room = true};
    struct leg p = {0}, d = {0};
    assert_int_equal(pd_node_submit(pair.p.node, &ask.spec, &fake, leg_event,
                                    &p, &p.id, NULL),
                     0);
    assert_int_equal(pd_node_submit(pair.d.node, &ask.spec, &fake, leg_event,
                                    &d, &d.id, NULL),
                     0);
    UNTIL(&pair.rig, p.done && d.done);
    prefill_answered(&ask, &p);
    ask_answered(&ask, &d);
    pair_close(&pair);
}

static void a_colocated_node_passes_everything(void **state)
{
    (void)state;
    struct rig rig;
    struct side s;
    struct ask ask;
    struct leg leg = {0};
    rig_init(&rig);
    struct side_options o = side_defaults(PD_NULL);
    side_open(&s, &rig, &o);
    ask_init(&ask, 50, 20, 5);
    assert_int_equal(
        pd_node_submit(s.node, &ask.spec, NULL, leg_event, &leg, &leg.id, NULL),
        0);
    UNTIL(&rig, leg.done);
    ask_answered(&ask, &leg);
    side_close(&s);
    rig_fini(&rig);
}

static void requests_that_cannot_meet_are_refused(void **state)
{
    (void)state;
    struct pair pair;
    struct ask ask;
    pair_begin();
    pair_open(&pair);
    ask_init(&ask, 4, 8, 1);
    const struct {
        struct pd_meeting meeting;
        const char *text;
    } rows[] = {
        {{0}, "without bootstrap host"},
        {{.host = "127.0.0.1"}, "without boostrap room id"},
        {{.host = "127.0.0.1", .has_room = true, .room = 1ull << 63}, "2^63"},
    };
    struct side *sides[] = {&pair.p, &pair.d};
    for (int i = 0; i < 6; i++) {
        struct leg leg = {0};
        struct why why = {0};
        assert_int_equal(pd_node_submit(sides[i % 2]->node, &ask.spec,
                                        &rows[i / 2].meeting, leg_event, &leg,
                                        &leg.id, &why),
                         ERR_INVALID);
        assert_non_null(strstr(why.text, rows[i / 2].text));
    }
    struct leg p, d, again;
    struct why why = {0};
    leg_start(&p, &pair.p, &ask.spec, 0, 9);
    assert_int_equal(leg_try(&again, &pair.p, &ask.spec, 0, 9, &why),
                     ERR_EXISTS);
    assert_non_null(strstr(why.text, "bootstrap_room 9 is in use"));
    leg_start(&d, &pair.d, &ask.spec, pair.p.port, 9);
    assert_int_equal(leg_try(&again, &pair.d, &ask.spec, pair.p.port, 9, &why),
                     ERR_EXISTS);
    UNTIL(&pair.rig, p.done && d.done);
    ask_answered(&ask, &d); /* the refusals did not disturb it */
    quiet(&pair);
    pair_close(&pair);
}

TESTS(T(apart_is_as_together), T(a_hundred_rooms_at_once),
      T(the_prefix_hit_and_logprobs_cross_over),
      T(what_the_decode_has_is_not_sent_again), T(the_fake_peer_needs_none),
      T(a_colocated_node_passes_everything),
      T(requests_that_cannot_meet_are_refused))
