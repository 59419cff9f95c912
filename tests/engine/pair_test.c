/* Disaggregation: KV crosses between two engines as bytes of pages. */
#include "tests/engine/letters.h"
#include "tests/engine/rig.h"

#include "text/stop.h"

static struct rig rig;
static struct asked asked[RIG_REQUESTS];

static struct rig prefill;

static void a_pair_yields_what_one_server_does(void **state)
{
    (void)state;
    enum { N = 60 };
    struct tokenizer *t = letters();
    struct grammars *all = grammars_create(t);
    static const uint32_t sizes[] = {4, 1, 16};
    uint32_t retractions = 0, hits = 0;
    uint64_t kept = 0, kept_told = 0;
    for (int i = 0; i < 9; i++) {
        struct rig_options o = rig_defaults();
        o.engine.tokenizer = t;
        o.page_tokens = sizes[i % 3];
        o.pages = 240 / sizes[i % 3];
        rig_init(&prefill, &o);
        o.page_tokens = sizes[i / 3];
        o.pages = (i % 2 ? 160u : 1000u) / sizes[i / 3];
        o.engine.reserved_decode_tokens = 1;
        o.engine.prefix_cache = i % 4 == 1;
        rig_init(&rig, &o);
        uint64_t seed = 300 + (uint64_t)i;
        for (uint64_t id = 1; id <= N; id++) {
            ask_with_stops(&asked[id], &seed);
            struct request_spec *spec = &asked[id].spec;
            spec->want_logprobs = id % 2;
            spec->logprob_start = id % 3 ? -1 : 0;
            spec->role = ROLE_DECODE;
            spec->own_prefix = id % 4;
            spec->grammar = id % 5 ? NULL : some_grammar(all, id / 5);
            spec->grammar_open = id % 3 ? -1 : 'x';
            spec->grammar_after = id % 3 ? -1 : 'e';
            rig_submit(&rig, id, spec);
        }
        pair_run(&prefill, &rig, asked, N);
        float alone[N + 1][60];
        for (uint64_t id = 1; id <= N; id++) {
            const struct seen *s = &rig.seen[id], *p = &prefill.seen[id];
            check_text(t, &asked[id], s);
            assert_int_equal(s->cached, p->cached);
            assert_int_equal(p->finish.kind, FINISH_LENGTH);
            assert_int_equal(p->count, 1);
            assert_int_equal(p->kv_tokens, asked[id].spec.token_count);
            assert_int_equal(s->inputs, 0);
            assert_int_equal(p->inputs,
                             id % 3 ? 0 : asked[id].spec.token_count);
            memcpy(alone[id], s->logprobs, sizeof alone[id]);
            retractions += s->retractions;
            hits += p->cached;
            assert_true(o.engine.prefix_cache || s->kept == 0);
            kept += s->kept;
        }
        struct engine_stats stats;
        engine_stats_get(rig.engine, &stats);
        kept_told += stats.kept_tokens;
        rig_fini(&rig);
        rig_fini(&prefill);

        o = rig_defaults(); /* and the logprobs, bit for bit */
        o.engine.tokenizer = t;
        rig_init(&rig, &o);
        for (uint64_t id = 1; id <= N; id++) {
            asked[id].spec.role = ROLE_WHOLE;
            rig_submit(&rig, id, &asked[id].spec);
        }
        rig_until_done(&rig, N);
        for (uint64_t id = 1; id <= N; id++) {
            assert_memory_equal(rig.seen[id].logprobs, alone[id],
                                rig.seen[id].count * sizeof(float));
            grammar_drop(asked[id].spec.grammar);
        }
        rig_fini(&rig);
    }
    /* They depend on who is faster: usually 110, 3500, 700. */
    assert_true(retractions > 10 && hits > 500 && kept > 100);
    assert_int_equal(kept, kept_told);
    grammars_destroy(all);
    tokenizer_destroy(t);
}

/* The first token alone can end a request on the decode side. */
static void admit_checks_the_first_token(void **state)
{
    (void)state;
    static const struct {
        uint32_t max_new;
        int32_t token;
        enum finish_kind finish;
        uint32_t tokens;
    } cases[] = {
        {1, 'a', FINISH_LENGTH, 1},         {0, 'a', FINISH_LENGTH, 0},
        {9, TOY_END, FINISH_STOP_TOKEN, 1}, {9, 'e', FINISH_STOP_TEXT, 1},
        {9, TOY_VOCAB, FINISH_ABORT, 0},    {9, -1, FINISH_ABORT, 0},
    };
    struct tokenizer *t = letters();
    struct rig_options o = rig_defaults();
    o.engine.tokenizer = t;
    rig_init(&rig, &o);
    uint64_t seed = 6;
    for (uint32_t i = 0; i < 6; i++) {
        uint64_t id = i + 1;
        asked_random(&asked[id], 20, 9, &seed);
        struct request_spec *spec = &asked[id].spec;
        spec->role = ROLE_DECODE;
        spec->sampling.max_new_tokens = cases[i].max_new;
        spec->sampling.min_new_tokens = 0;
        spec->sampling.ignore_eos = false;
        spec->sampling.stops = stops + 4;
        spec->sampling.stop_count = 1;
        rig_submit(&rig, id, spec);
        while (!rig.seen[id].reserved)
            rig_next(&rig);
        struct engine_event first = {.token = cases[i].token,
                                     .cached_tokens = 3};
        engine_admit(rig.engine, id, &first);
        engine_admit(rig.engine, id, &first); /* once is enough */
        rig_until_done(&rig, i + 1);
        assert_int_equal(rig.seen[id].finish.kind, cases[i].finish);
        assert_int_equal(rig.seen[id].count, cases[i].tokens);
        if (cases[i].finish != FINISH_ABORT)
            assert_int_equal(rig.seen[id].cached, 3);
    }
    rig_fini(&rig);
    tokenizer_destroy(t);
}

static void held_pages_stay_out_of_use_until_released(void **state)
{
    (void)state;
    struct rig_options o = rig_defaults();
    o.pages = 10;
    rig_init(&rig, &o);
    uint64_t seed = 1;
    for (uint64_t id = 1; id <= 3; id++) {
        asked_random(&asked[id], 1, 1, &seed);
        asked[id].spec.token_count = 24;
        asked[id].spec.role = id < 3 ? ROLE_DECODE : ROLE_WHOLE;
    }
    rig_submit(&rig, 1, &asked[1].spec);
    while (!rig.seen[1].reserved)
        rig_next(&rig);
    engine_abort(rig.engine, 1, 500, "the peer is silent", true);
    rig_until_done(&rig, 1);
    assert_int_equal(rig.seen[1].finish.kind, FINISH_ABORT);
    assert_int_equal(rig.seen[1].finish.status, 500);
    assert_string_equal(rig.seen[1].note, "the peer is silent");
    engine_abort(rig.engine, 1, 500, "again", false); /* changes nothing */
    rig_submit(&rig, 2, &asked[2].spec);
    assert_int_equal(rig_flush(&rig), ERR_AGAIN); /* 2 waits: no pages */
    assert_false(rig.seen[2].reserved);
    engine_release(rig.engine, 1);
    while (!rig.seen[2].reserved)
        rig_next(&rig);
    engine_abort(rig.engine, 2, 500, "", false);
    rig_submit(&rig, 3, &asked[3].spec);
    rig_until_done(&rig, 3);
    asked_check(&asked[3], &rig.seen[3]);
    rig_fini(&rig);
}

static void prefilled_pages_stay_until_release_then_in_the_cache(void **state)
{
    (void)state;
    struct rig_options o = rig_defaults();
    o.pages = 10;
    rig_init(&rig, &o);
    uint64_t seed = 2;
    for (uint64_t id = 1; id <= 3; id++) {
        asked_random(&asked[id], 1, 1, &seed);
        asked[id].spec.token_count = 24;
        asked[id].spec.role = ROLE_PREFILL;
        asked[id].spec.cache_key = 0;
        for (int i = 0; i < 24; i++)
            asked[id].prompt[i] = id == 2 ? 2 * i : i;
        rig_submit(&rig, id, &asked[id].spec);
    }
    while (!rig.seen[1].last_chunk)
        rig_next(&rig);
    assert_int_equal(rig_flush(&rig), ERR_AGAIN);
    assert_int_equal(rig.seen[2].kv_tokens, 0); /* no pages for it */
    engine_release(rig.engine, 1);
    while (!rig.seen[2].last_chunk)
        rig_next(&rig);
    engine_release(rig.engine, 2);
    while (!rig.seen[3].last_chunk)
        rig_next(&rig);
    assert_in_range(rig.seen[3].cached, 4, 20); /* what 2 left of it */
    engine_release(rig.engine, 3);
    rig_until_done(&rig, 3);
    assert_int_equal(rig_flush(&rig), 0);
    rig_fini(&rig);
}

TESTS(T(a_pair_yields_what_one_server_does), T(admit_checks_the_first_token),
      T(held_pages_stay_out_of_use_until_released),
      T(prefilled_pages_stay_until_release_then_in_the_cache))
