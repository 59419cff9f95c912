#include "tests/engine/letters.h"
#include "tests/engine/rig.h"

#include "text/stop.h"

static struct rig rig;
static struct asked asked[RIG_REQUESTS];

static void one_request_yields_what_the_model_says(void **state)
{
    (void)state;
    struct rig_options o = rig_defaults();
    rig_init(&rig, &o);
    uint64_t seed = 1;
    for (uint64_t id = 1; id <= 40; id++) {
        asked_random(&asked[id], 60, 40, &seed);
        rig_submit(&rig, id, &asked[id].spec);
        rig_until_done(&rig, (uint32_t)id);
        asked_check(&asked[id], &rig.seen[id]);
    }
    rig_fini(&rig);
}

static uint32_t run_all(const struct rig_options *o, uint32_t count,
                        uint32_t longest, uint32_t most_new, uint64_t seed)
{
    rig_init(&rig, o);
    rig_hold(&rig);
    for (uint64_t id = 1; id <= count; id++) {
        asked_random(&asked[id], longest, most_new, &seed);
        rig_submit(&rig, id, &asked[id].spec);
    }
    rig_go(&rig);
    rig_until_done(&rig, count);
    uint32_t retractions = 0;
    for (uint64_t id = 1; id <= count; id++) {
        asked_check(&asked[id], &rig.seen[id]);
        retractions += rig.seen[id].retractions;
    }
    return retractions;
}

static void batches_chunks_and_prefix_hits_change_nothing(void **state)
{
    (void)state;
    static const uint32_t chunks[] = {1, 3, 16, 500};
    static const uint32_t page_tokens[] = {1, 4, 32};
    for (int i = 0; i < 24; i++) {
        struct rig_options o = rig_defaults();
        o.engine.chunk_tokens = chunks[i % 4];
        o.page_tokens = page_tokens[i % 3];
        o.engine.prefix_cache = i % 2;
        o.engine.max_running = i % 5 ? 8 : 1;
        run_all(&o, 40, 120, 30, (uint64_t)i);
        assert_true(rig.toy->most_tokens <=
                    o.engine.chunk_tokens + o.engine.max_running);
        struct engine_stats s;
        rig_flush(&rig);
        engine_stats_get(rig.engine, &s);
        assert_int_equal(s.requests, 40);
        if (!o.engine.prefix_cache) assert_int_equal(s.cached_tokens, 0);
        if (o.engine.max_running > 1 && o.engine.chunk_tokens > 1) {
            assert_true(rig.toy->mixed > 0);
            assert_in_range(rig.toy->most_seqs, 4, 8);
        }
        rig_fini(&rig);
    }
}

static void retraction_changes_nothing(void **state)
{
    (void)state;
    uint32_t retractions = 0;
    for (int i = 0; i < 12; i++) {
        struct rig_options o = rig_defaults();
        o.page_tokens = i % 3 ? 4 : 1;
        o.pages = 160 / o.page_tokens;
        o.engine.prefix_cache = i % 2;
        o.engine.reserved_decode_tokens = 1;
        retractions += run_all(&o, 40, 60, 80, 100 + (uint64_t)i);
        rig_fini(&rig);
    }
    assert_true(retractions > 50);
}

static void a_repeated_prompt_is_found_but_for_its_last_token(void **state)
{
    (void)state;
    struct rig_options o = rig_defaults();
    rig_init(&rig, &o);
    uint64_t seed = 3;
    for (uint64_t id = 1; id <= 3; id++) {
        asked_random(&asked[id], 1, 4, &seed);
        asked[id].spec.token_count = id == 3 ? 33 : 32;
        asked[id].spec.cache_key = 5;
        asked[id].spec.sampling.max_new_tokens = 6;
        for (int i = 0; i < 33; i++)
            asked[id].prompt[i] = i;
        rig_submit(&rig, id, &asked[id].spec);
        rig_until_done(&rig, (uint32_t)id);
        asked_check(&asked[id], &rig.seen[id]);
    }
    assert_int_equal(rig.seen[1].cached, 0);
    assert_int_equal(rig.seen[2].cached, 28);
    assert_int_equal(rig.seen[3].cached, 32);
    rig_fini(&rig);
}

/* Logprobs of tokens and of the prompt, whatever the chunks and the number
 * of logit rows in a step. */
static void logprobs_are_those_of_the_rows(void **state)
{
    (void)state;
    static const uint32_t logit_rows[] = {0, 9, 24, 200};
    for (int i = 0; i < 8; i++) {
        struct rig_options o = rig_defaults();
        o.engine.logit_rows = logit_rows[i % 4];
        o.engine.chunk_tokens = i < 4 ? 50 : 7;
        o.pages = i % 3 ? 512 : 60;
        rig_init(&rig, &o);
        uint64_t seed = 50 + (uint64_t)i;
        for (uint64_t id = 1; id <= 20; id++) {
            asked_random(&asked[id], 100, 20, &seed);
            struct request_spec *spec = &asked[id].spec;
            spec->want_logprobs = true;
            spec->top_logprobs = 3;
            spec->logprob_start =
                (int32_t)(rng_next(&seed) % spec->token_count);
            if (id % 5 == 0) spec->sampling.max_new_tokens = 0;
            if (id % 5 == 0) spec->sampling.min_new_tokens = 0;
            rig_submit(&rig, id, spec);
        }
        rig_until_done(&rig, 20);
        struct sampler *sampler;
        assert_int_equal(sampler_create(&sampler, TOY_VOCAB, NULL), 0);
        for (uint64_t id = 1; id <= 20; id++) {
            const struct request_spec *spec = &asked[id].spec;
            const struct seen *s = &rig.seen[id];
            if (spec->sampling.max_new_tokens)
                asked_check(&asked[id], s);
            else
                assert_int_equal(s->count, 0);
            uint32_t start = (uint32_t)spec->logprob_start;
            assert_int_equal(s->inputs, spec->token_count - start);
            assert_true(isnan(s->input_logprobs[0]));
            uint64_t digest = 0;
            float row[TOY_VOCAB], values[3];
            int32_t ids[3];
            struct logprob_room room = {values, ids, NULL};
            struct token_logprob want;
            for (uint32_t at = 0; at < spec->token_count; at++) {
                if (at > start) {
                    toy_logits(digest, row);
                    sample_logprobs(
                        sampler, row,
                        &(struct logprob_ask){1, spec->tokens[at], 3, NULL, 0},
                        &room, &want);
                    assert_true(s->input_logprobs[at - start] == want.logprob);
                }
                digest = toy_digest(digest, spec->tokens[at], at);
            }
            const struct sampling *p = &spec->sampling;
            const int32_t end = TOY_END;
            for (uint32_t n = 0; n < s->count; n++) {
                toy_logits(digest, row);
                struct sample_history h = {s->tokens, n, &end, 1, NULL};
                float t = sampling_is_greedy(p) ? 1 : p->temperature;
                sample_logprobs(
                    sampler, sample_adjust(sampler, row, p, &h),
                    &(struct logprob_ask){t, s->tokens[n], 3, NULL, 0}, &room,
                    &want);
                assert_true(s->logprobs[n] == want.logprob);
                digest =
                    toy_digest(digest, s->tokens[n], spec->token_count + n);
            }
        }
        sampler_destroy(sampler);
        rig_fini(&rig);
    }
}

static void alternatives_and_asked_ids_come_with_each_token(void **state)
{
    (void)state;
    struct rig_options o = rig_defaults();
    rig_init(&rig, &o);
    uint64_t seed = 4;
    const int32_t ids[] = {'a', 'b'};
    asked_random(&asked[1], 10, 5, &seed);
    asked[1].spec.want_logprobs = true;
    asked[1].spec.top_logprobs = 128;
    asked[1].spec.logprob_start = 0;
    asked[1].spec.logprob_ids = ids;
    asked[1].spec.logprob_id_count = 2;
    asked[1].spec.sampling.temperature = 0;
    asked[1].spec.sampling.repetition_penalty = 1;
    rig_submit(&rig, 1, &asked[1].spec);
    struct engine_event *e = rig_take(&rig);
    assert_int_equal(e->kind, EVENT_TOKEN);
    assert_true(e->has_logprob);
    assert_int_equal(e->logprob.top_count, 128);
    assert_int_equal(e->logprob.top_ids[0], e->token);
    assert_true(e->logprob.top_values[0] == e->logprob.logprob);
    assert_int_equal(e->logprob.id_count, 2);
    for (int i = 0; i < 128; i++)
        for (int j = 0; j < 2; j++)
            if (e->logprob.top_ids[i] == ids[j])
                assert_true(e->logprob.top_values[i] ==
                            e->logprob.id_values[j]);
    assert_int_equal(e->input_logprob_count, asked[1].spec.token_count);
    for (uint32_t i = 1; i < e->input_logprob_count; i++) {
        assert_int_equal(e->input_logprobs[i].token, asked[1].prompt[i]);
        assert_int_equal(e->input_logprobs[i].top_count, 128);
        assert_int_equal(e->input_logprobs[i].id_count, 2);
        assert_true(e->input_logprobs[i].id_values[1] < 0);
    }
    rig_note(&rig, e);
    engine_event_free(rig.engine, e);
    rig_until_done(&rig, 1);
    rig_fini(&rig);
}

/* Text */

static void text_ends_where_a_stop_string_starts(void **state)
{
    (void)state;
    struct tokenizer *t = letters();
    uint32_t stopped = 0, retractions = 0;
    for (int i = 0; i < 6; i++) {
        struct rig_options o = rig_defaults();
        o.engine.tokenizer = t;
        if (i % 2) o.pages = 40;
        o.engine.reserved_decode_tokens = 1;
        rig_init(&rig, &o);
        uint64_t seed = 900 + (uint64_t)i;
        for (uint64_t id = 1; id <= 60; id++) {
            ask_with_stops(&asked[id], &seed);
            rig_submit(&rig, id, &asked[id].spec);
        }
        rig_until_done(&rig, 60);
        for (uint64_t id = 1; id <= 60; id++) {
            check_text(t, &asked[id], &rig.seen[id]);
            stopped += rig.seen[id].finish.kind == FINISH_STOP_TEXT;
            retractions += rig.seen[id].retractions;
        }
        rig_fini(&rig);
    }
    assert_true(stopped > 50 && retractions > 10);
    tokenizer_destroy(t);
}

static void output_keeps_to_its_grammar(void **state)
{
    (void)state;
    enum { N = 80 };
    struct tokenizer *t = letters();
    struct grammars *all = grammars_create(t);
    uint32_t whole = 0;
    for (int i = 0; i < 2; i++) {
        struct rig_options o = rig_defaults();
        o.engine.tokenizer = t;
        if (i) o.pages = 60; /* retraction */
        o.engine.reserved_decode_tokens = 1;
        rig_init(&rig, &o);
        uint64_t seed = 70;
        for (uint64_t id = 1; id <= N; id++) {
            asked_random(&asked[id], 60, 90, &seed);
            struct request_spec *spec = &asked[id].spec;
            spec->sampling.stop_id_count = 0;
            spec->grammar = some_grammar(all, id);
            spec->grammar_after = id % 7 && id % 11 ? -1 : 'e';
            spec->grammar_open = id % 11 ? -1 : (int32_t)('x' + id % 3);
            rig_submit(&rig, id, spec);
            grammar_drop(spec->grammar); /* the engine has its own */
            spec->grammar = NULL;
        }
        rig_until_done(&rig, N);
        for (uint64_t id = 1; id <= N; id++) {
            struct asked *a = &asked[id];
            a->spec.grammar = some_grammar(all, id);
            check_text(t, a, &rig.seen[id]); /* toy_expect follows it too */
            grammar_drop(a->spec.grammar);
            whole += a->spec.grammar_after < 0 &&
                     rig.seen[id].finish.kind == FINISH_STOP_TOKEN;
        }
        rig_fini(&rig);
    }
    assert_true(whole > 20);
    grammars_destroy(all);
    tokenizer_destroy(t);
}

static void a_foreign_first_token_may_break_a_grammar(void **state)
{
    (void)state;
    struct tokenizer *t = letters();
    struct grammars *all = grammars_create(t);
    struct rig_options o = rig_defaults();
    o.engine.tokenizer = t;
    rig_init(&rig, &o);
    uint64_t seed = 6;
    asked_random(&asked[1], 20, 9, &seed);
    struct request_spec *spec = &asked[1].spec;
    spec->role = ROLE_DECODE;
    spec->grammar = some_grammar(all, 0);
    spec->grammar_open = spec->grammar_after = -1;
    rig_submit(&rig, 1, spec);
    while (!rig.seen[1].reserved)
        rig_next(&rig);
    struct engine_event first = {.token = 'z'};
    engine_admit(rig.engine, 1, &first);
    rig_until_done(&rig, 1);
    assert_int_equal(rig.seen[1].finish.kind, FINISH_ABORT);
    assert_non_null(strstr(rig.seen[1].note, "grammar"));
    grammar_drop(spec->grammar);
    rig_fini(&rig);
    grammars_destroy(all);
    tokenizer_destroy(t);
}

/* Disaggregation: KV crosses between two engines as bytes of pages. */

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

/* Ends by force */

static uint32_t free_pages(void)
{
    struct engine_stats s;
    engine_stats_get(rig.engine, &s);
    return s.pages_free;
}

static void aborts_of_any_state_end_once_and_leak_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        struct rig_options o = rig_defaults();
        o.pages = 40;
        o.engine.reserved_decode_tokens = 1;
        rig_init(&rig, &o);
        uint64_t seed = 70 + (uint64_t)i;
        enum { N = 250 };
        bool held[N + 1] = {false};
        for (uint64_t id = 1; id <= N; id++) {
            asked_random(&asked[id], 60, 60, &seed);
            asked[id].spec.role = (enum request_role)(rng_next(&seed) % 3);
            rig_submit(&rig, id, &asked[id].spec);
            uint64_t other = 1 + rng_next(&seed) % id;
            bool hold = rng_next(&seed) % 2;
            uint64_t what = rng_next(&seed) % 4;
            if (what == 0) {
                engine_abort(rig.engine, other, 499, "gone", hold);
                held[other] |= hold;
            } else if (what == 1) {
                engine_release(rig.engine, other);
            } else if (what == 2) {
                struct engine_event first = {.token = 'a'};
                engine_admit(rig.engine, other, &first);
            }
            struct engine_event *e;
            for (int n = (int)(rng_next(&seed) % 6); n > 0; n--) {
                if (!(e = inbox_take(engine_events(rig.engine)))) break;
                /* A DECODE that was admitted here has no KV at all. */
                rig_note(&rig, e);
                engine_event_free(rig.engine, e);
            }
        }
        for (uint64_t id = 1; id <= N; id++)
            engine_abort(rig.engine, id, 499, "gone", false);
        rig_until_done(&rig, N);
        for (uint64_t id = 1; id <= N; id++)
            if (held[id]) engine_release(rig.engine, id);
        assert_int_equal(rig_flush(&rig), 0);
        assert_int_equal(rig_flush(&rig), 0); /* stats are of its turn */
        rig.toy->broken = false;
        assert_int_equal(free_pages(), 40);
        rig_fini(&rig);
    }
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

static bool never(struct toy *toy)
{
    (void)toy;
    return false;
}

static void a_failing_step_ends_its_requests_alone(void **state)
{
    (void)state;
    struct rig_options o = rig_defaults();
    rig_init(&rig, &o);
    uint64_t seed = 2;
    for (uint64_t id = 1; id <= 6; id++) {
        asked_random(&asked[id], 9, 9, &seed);
        asked[id].spec.role = id % 2 ? ROLE_WHOLE : ROLE_PREFILL;
        if (id == 6) asked[id].spec.role = ROLE_WHOLE;
        rig.toy->before = id <= 2 ? never : NULL;
        rig.toy->nan = id == 3 || id == 4;
        rig_submit(&rig, id, &asked[id].spec);
        rig_until_done(&rig, (uint32_t)id);
        struct seen *s = &rig.seen[id];
        if (id >= 5) {
            asked_check(&asked[id], s);
            continue;
        }
        assert_int_equal(s->finish.kind, FINISH_ABORT);
        assert_int_equal(s->finish.status, 500);
        assert_non_null(strstr(s->note, id <= 2 ? "toy broke" : "NaN"));
        assert_int_equal(s->count, 0);
    }
    rig_fini(&rig);
}

static bool grows_so_far(void *arg, size_t bytes)
{
    size_t *left = arg;
    if (bytes > *left) return false;
    *left -= bytes;
    return true;
}

static void memory_that_does_not_come_is_an_answer(void **state)
{
    (void)state;
    struct rig_options o = rig_defaults();
    size_t left = 12 * 4 * 4 * sizeof(float) * 2; /* 12 pages */
    o.may_grow = grows_so_far;
    o.arg = &left;
    rig_init(&rig, &o);
    uint64_t seed = 2;
    for (uint64_t id = 1; id <= 9; id++) {
        asked_random(&asked[id], 1, 12, &seed);
        asked[id].spec.token_count = id == 5 ? 60 : 20;
        rig_submit(&rig, id, &asked[id].spec);
    }
    rig_until_done(&rig, 9);
    for (uint64_t id = 1; id <= 9; id++)
        if (id != 5) asked_check(&asked[id], &rig.seen[id]);
    assert_int_equal(rig.seen[5].finish.kind, FINISH_ABORT);
    assert_int_equal(rig.seen[5].finish.status, 503);
    rig_fini(&rig);
}

static void what_can_never_fit_is_refused_in_sglangs_words(void **state)
{
    (void)state;
    struct rig_options o = rig_defaults();
    o.engine.context = 100;
    o.pages = 20; /* 80 tokens */
    o.engine.max_queued = 2;
    rig_init(&rig, &o);
    struct asked *a = &asked[1];
    uint64_t seed = 1;
    asked_random(a, 1, 1, &seed);
    struct request_spec *spec = &a->spec;
    const struct {
        uint32_t prompt, max_new;
        const char *text;
    } cases[] = {
        {0, 1, "no tokens"},
        {100, 1,
         "The input (100 tokens) is longer than the model's context length "
         "(100 tokens)."},
        {60, 40,
         "Requested token count exceeds the model's maximum context length "
         "of 100 tokens. You requested a total of 100 tokens: 60 tokens from "
         "the input messages and 40 tokens for the completion."},
        {75, 5,
         "Input length (75 tokens) exceeds the maximum allowed length (74 "
         "tokens). Use a shorter input or enable --allow-auto-truncate."},
    };
    for (int i = 0; i < 4; i++) {
        struct why why = {0};
        spec->token_count = cases[i].prompt;
        spec->sampling.max_new_tokens = cases[i].max_new;
        assert_int_equal(engine_submit(rig.engine, 1, spec, &why), ERR_INVALID);
        assert_non_null(strstr(why.text, cases[i].text));
        struct why same = {0};
        assert_int_equal(engine_check(rig.engine, spec, &same), ERR_INVALID);
        assert_string_equal(same.text, why.text);
    }
    struct why why = {0};
    spec->token_count = 3;
    a->prompt[2] = TOY_VOCAB;
    assert_int_equal(engine_submit(rig.engine, 1, spec, &why), ERR_INVALID);
    assert_string_equal(why.text, "input_ids must be in [0, 259], got 260.");
    a->prompt[2] = 0;
    spec->logprob_start = 3;
    assert_int_equal(engine_submit(rig.engine, 1, spec, &why), ERR_INVALID);
    spec->logprob_start = -1;
    spec->top_logprobs = 129;
    assert_int_equal(engine_submit(rig.engine, 1, spec, &why), ERR_INVALID);
    spec->top_logprobs = 0;
    spec->sampling.stops = stops;
    spec->sampling.stop_count = 1;
    assert_int_equal(engine_submit(rig.engine, 1, spec, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "tokenizer"));
    spec->sampling.stop_count = 0;
    spec->sampling.top_p = 0;
    assert_int_equal(engine_submit(rig.engine, 1, spec, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "top_p"));
    spec->sampling.top_p = 1;

    /* The longest that fits, cut to what the pool holds. */
    spec->token_count = 74;
    spec->sampling.max_new_tokens = 25;
    spec->sampling.ignore_eos = true;
    spec->sampling.stop_id_count = 0;
    for (int i = 0; i < 74; i++)
        a->prompt[i] = i;
    rig_submit(&rig, 1, spec);
    rig_until_done(&rig, 1);
    assert_int_equal(rig.seen[1].count, 4);
    assert_int_equal(rig.seen[1].finish.kind, FINISH_LENGTH);

    /* A full queue says so: nothing can start while 2 is held. */
    spec->role = ROLE_PREFILL;
    rig_submit(&rig, 2, spec);
    while (!rig.seen[2].last_chunk)
        rig_next(&rig);
    spec->cache_key++;
    rig_submit(&rig, 3, spec);
    rig_submit(&rig, 4, spec);
    assert_int_equal(engine_submit(rig.engine, 5, spec, &why), ERR_AGAIN);
    assert_string_equal(why.text, "The request queue is full.");
    for (uint64_t id = 2; id <= 4; id++)
        engine_abort(rig.engine, id, 499, "", false);
    rig_until_done(&rig, 4);
    rig_submit(&rig, 5, spec); /* there is room again */
    engine_abort(rig.engine, 5, 499, "", false);
    rig_until_done(&rig, 5);
    rig_fini(&rig);
}

static void bad_stop_strings_are_refused(void **state)
{
    (void)state;
    struct tokenizer *t = letters();
    struct rig_options o = rig_defaults();
    o.engine.tokenizer = t;
    rig_init(&rig, &o);
    const char *many[STOP_MAX_STRINGS + 1];
    for (int i = 0; i <= STOP_MAX_STRINGS; i++)
        many[i] = "x";
    uint64_t seed = 1;
    asked_random(&asked[1], 9, 9, &seed);
    struct request_spec *spec = &asked[1].spec;
    spec->sampling.stops = many;
    for (int i = 0; i < 2; i++) {
        struct why why = {0};
        spec->sampling.stop_count = i ? 2 : STOP_MAX_STRINGS + 1;
        many[1] = i ? "" : "x";
        assert_int_equal(engine_check(rig.engine, spec, &why), ERR_INVALID);
        assert_true(why.text[0]);
        assert_int_equal(engine_submit(rig.engine, 1, spec, NULL), ERR_INVALID);
    }
    spec->sampling.stop_count = 1;
    assert_int_equal(engine_check(rig.engine, spec, NULL), 0);
    rig_fini(&rig);
    tokenizer_destroy(t);
}

static void submit_survives_every_failed_allocation(void **state)
{
    (void)state;
    struct tokenizer *t = letters();
    struct rig_options o = rig_defaults();
    o.engine.tokenizer = t;
    rig_init(&rig, &o);
    uint64_t seed = 1;
    struct asked *a = &asked[1];
    asked_random(a, 30, 5, &seed);
    const int32_t ids[] = {1, 2};
    const float bias[] = {1, 2};
    a->spec.want_logprobs = true;
    a->spec.top_logprobs = 2;
    a->spec.logprob_start = 0;
    a->spec.logprob_ids = ids;
    a->spec.logprob_id_count = 2;
    a->spec.sampling.stop_ids = a->spec.sampling.bias_ids = ids;
    a->spec.sampling.bias_values = bias;
    a->spec.sampling.stop_id_count = a->spec.sampling.bias_count = 2;
    a->spec.sampling.stops = stops;
    a->spec.sampling.stop_count = 2;
    size_t before = mem_live(), tries = 0;
    int rc;
    do {
        mem_fail_at(++tries);
        rc = engine_submit(rig.engine, 1, &a->spec, NULL);
        assert_true(rc == 0 || rc == ERR_NOMEM);
        if (rc) assert_int_equal(mem_live(), before);
    } while (rc && tries < 100);
    mem_fail_at(0);
    assert_true(tries > 10);
    rig_until_done(&rig, 1);
    rig_fini(&rig);
    tokenizer_destroy(t);
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    struct rig_options o = rig_defaults();
    rig_init(&rig, &o);
    struct engine_options eo = *engine_get_options(rig.engine);
    size_t before = mem_live(), tries = 0;
    struct engine *engine = NULL;
    while (!engine && tries < 100) {
        struct why why = {0};
        mem_fail_at(++tries);
        int rc = engine_create(&engine, &eo, &why);
        assert_int_equal(rc, engine ? 0 : ERR_NOMEM);
        assert_int_equal(why.code, rc);
        assert_true(engine || mem_live() == before);
    }
    mem_fail_at(0);
    assert_true(tries > 15);
    engine_destroy(engine);
    struct why why = {0};
    eo.logit_rows = 1;
    assert_int_equal(engine_create(&engine, &eo, &why), ERR_INVALID);
    eo.chunk_tokens = 0;
    assert_int_equal(engine_create(&engine, &eo, &why), ERR_INVALID);
    rig_fini(&rig);
}

/* Back-pressure */

static void a_slow_owner_stops_steps_but_not_aborts(void **state)
{
    (void)state;
    enum { LONG = 300, N = 32 };
    struct rig_options o = rig_defaults();
    o.pages = 4000;
    rig_init(&rig, &o);
    uint64_t seed = 3;
    rig_hold(&rig); /* or the first might run to its end alone */
    for (uint64_t id = 1; id <= N; id++) {
        asked_random(&asked[id], 4, 1, &seed);
        asked[id].spec.sampling.max_new_tokens = LONG;
        asked[id].spec.sampling.ignore_eos = true;
        rig_submit(&rig, id, &asked[id].spec);
    }
    rig_go(&rig);
    /* The owner takes events and keeps them; the engine stops by itself:
     * only then does this flush's answer stand last, behind a full house. */
    static struct engine_event *kept[8192];
    uint32_t count = 0;
    while (count < 1024)
        kept[count++] = rig_take(&rig);
    engine_flush(rig.engine, 1);
    do
        kept[count] = rig_take(&rig);
    while (kept[count++]->kind != EVENT_FLUSHED);
    uint32_t steps = rig.toy->steps;
    engine_abort(rig.engine, 1, 499, "left", false);
    do
        kept[count] = rig_take(&rig);
    while (kept[count++]->kind != EVENT_DONE);
    assert_int_equal(kept[count - 1]->id, 1);
    assert_int_equal(rig.toy->steps, steps); /* none since */
    assert_true(count <= 1024 + 2 * 8 + 2);
    for (uint32_t i = 0; i < count; i++) {
        rig_note(&rig, kept[i]);
        engine_event_free(rig.engine, kept[i]);
    }
    rig_until_done(&rig, N);
    for (uint64_t id = 2; id <= N; id++)
        asked_check(&asked[id], &rig.seen[id]);
    rig_fini(&rig);
}

static void more_ends_than_the_inbox_holds_arrive_in_order(void **state)
{
    (void)state;
    struct rig_options o = rig_defaults();
    rig_init(&rig, &o);
    uint64_t seed = 3;
    asked_random(&asked[1], 4, 1, &seed);
    for (uint64_t id = 1; id <= 3000; id++) {
        rig_submit(&rig, id, &asked[1].spec);
        engine_abort(rig.engine, id, 499, "", false);
    }
    uint64_t last = 0;
    while (last < 3000) {
        struct engine_event *e = rig_take(&rig);
        if (e->kind == EVENT_DONE) assert_int_equal(e->id, ++last);
        engine_event_free(rig.engine, e);
    }
    rig_fini(&rig);
}

static void destroy_does_not_wait_for_anybody(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        struct rig_options o = rig_defaults();
        o.pages = i % 2 ? 60 : 2000;
        rig_init(&rig, &o);
        uint64_t seed = (uint64_t)i;
        for (uint64_t id = 1; id <= 200; id++) {
            asked_random(&asked[id], 60, 100, &seed);
            asked[id].spec.role = (enum request_role)(id % 3);
            asked[id].spec.logprob_start = 0;
            asked[id].spec.want_logprobs = true;
            rig_submit(&rig, id, &asked[id].spec);
            struct engine_event first = {.token = 'a'};
            engine_admit(rig.engine, id, &first);
        }
        if (i % 3) rig_next(&rig);
        engine_destroy(rig.engine);
        rig.engine = NULL;
        rig.toy->broken = false; /* admitted without KV */
        rig_fini(&rig);
    }
}

/* The step loop */

static size_t live_at[2];

static bool count_memory(struct toy *toy)
{
    if (toy->steps == 300) live_at[0] = mem_live();
    if (toy->steps == 1300) live_at[1] = mem_live();
    return true;
}

static void a_thousand_steps_allocate_nothing(void **state)
{
    (void)state;
    struct tokenizer *t = letters();
    struct rig_options o = rig_defaults();
    o.engine.tokenizer = t;
    o.engine.context = 2000;
    o.pages = 8 * 400;
    rig_init(&rig, &o);
    rig.toy->before = count_memory;
    uint64_t seed = 9;
    rig_hold(&rig);
    for (uint64_t id = 1; id <= 8; id++) {
        asked_random(&asked[id], 30, 1, &seed);
        struct sampling *p = &asked[id].spec.sampling;
        p->max_new_tokens = 1500;
        p->ignore_eos = true;
        p->stops = (const char *const[]){"no such thing"};
        p->stop_count = 1;
        asked[id].spec.want_logprobs = true;
        asked[id].spec.top_logprobs = 5;
        rig_submit(&rig, id, &asked[id].spec);
    }
    rig_go(&rig);
    /* Warm: as many events as can be out have been out. Steps begin while
     * fewer than 1024 are, so 1023 and one step's; the flush's answer stands
     * last when the house is full. */
    static struct engine_event *kept[1024 + 16];
    uint32_t count = 0;
    do
        kept[count++] = rig_take(&rig);
    while (count < 1024);
    engine_flush(rig.engine, 1);
    do
        kept[count] = rig_take(&rig);
    while (kept[count++]->kind != EVENT_FLUSHED);
    while (count > 1023)
        engine_event_free(rig.engine, kept[--count]);
    for (int i = 0; i < 8; i++)
        kept[count++] = rig_take(&rig);
    while (count)
        engine_event_free(rig.engine, kept[--count]);
    while (rig.done < 8) {
        struct engine_event *e = rig_take(&rig);
        rig.done += e->kind == EVENT_DONE;
        engine_event_free(rig.engine, e);
    }
    assert_true(live_at[0] > 0);
    assert_int_equal(live_at[1], live_at[0]);
    struct engine_stats s;
    rig_flush(&rig);
    rig_flush(&rig);
    engine_stats_get(rig.engine, &s);
    assert_int_equal(s.steps, rig.toy->steps);
    assert_int_equal(s.output_tokens, 8 * 1500);
    assert_true(s.host_us + s.model_us + s.sample_us <= s.step_us + 3);
    assert_int_equal(s.running + s.queued + s.held, 0);
    assert_int_equal(s.pages_free, s.pages_total);
    rig_fini(&rig);
    tokenizer_destroy(t);
}

static void unseeded_requests_differ_seeded_ones_do_not(void **state)
{
    (void)state;
    struct rig_options o = rig_defaults();
    rig_init(&rig, &o);
    uint64_t seed = 9;
    for (uint64_t id = 1; id <= 4; id++) {
        asked_random(&asked[id], 1, 1, &seed);
        asked[id].prompt[0] = 'a';
        struct sampling *p = &asked[id].spec.sampling;
        sampling_init(p);
        p->max_new_tokens = 40;
        p->ignore_eos = true;
        p->seeded = id > 2;
        p->seed = 7;
        rig_submit(&rig, id, &asked[id].spec);
    }
    rig_until_done(&rig, 4);
    size_t bytes = 40 * sizeof(int32_t);
    assert_memory_equal(rig.seen[3].tokens, rig.seen[4].tokens, bytes);
    assert_memory_not_equal(rig.seen[1].tokens, rig.seen[2].tokens, bytes);
    assert_memory_not_equal(rig.seen[1].tokens, rig.seen[3].tokens, bytes);
    rig_fini(&rig);
}

TESTS(T(one_request_yields_what_the_model_says),
      T(batches_chunks_and_prefix_hits_change_nothing),
      T(retraction_changes_nothing),
      T(a_repeated_prompt_is_found_but_for_its_last_token),
      T(logprobs_are_those_of_the_rows),
      T(alternatives_and_asked_ids_come_with_each_token),
      T(text_ends_where_a_stop_string_starts), T(output_keeps_to_its_grammar),
      T(a_foreign_first_token_may_break_a_grammar),
      T(a_pair_yields_what_one_server_does), T(admit_checks_the_first_token),
      T(aborts_of_any_state_end_once_and_leak_nothing),
      T(held_pages_stay_out_of_use_until_released),
      T(prefilled_pages_stay_until_release_then_in_the_cache),
      T(a_failing_step_ends_its_requests_alone),
      T(memory_that_does_not_come_is_an_answer),
      T(what_can_never_fit_is_refused_in_sglangs_words),
      T(bad_stop_strings_are_refused),
      T(submit_survives_every_failed_allocation),
      T(create_survives_every_failed_allocation),
      T(a_slow_owner_stops_steps_but_not_aborts),
      T(more_ends_than_the_inbox_holds_arrive_in_order),
      T(destroy_does_not_wait_for_anybody),
      T(a_thousand_steps_allocate_nothing),
      T(unseeded_requests_differ_seeded_ones_do_not))
