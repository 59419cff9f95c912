/* What requests yield does not depend on who else is there, or on how it is
 * computed. */
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

/* While nothing is to be done weights are packed, one call after another;
 * between steps one call each; and none once there is nothing left. */
static void weights_are_packed_beside_requests(void **state)
{
    (void)state;
    struct rig_options o = rig_defaults();
    o.packs = 1 << 30;
    rig_init(&rig, &o);
    struct toy *toy = rig.toy;
    while (toy->packed[false] < 10)
        sched_yield();
    uint64_t seed = 12;
    for (uint64_t id = 1; id <= 2; id++) {
        asked_random(&asked[id], 20, 1, &seed);
        struct sampling *p = &asked[id].spec.sampling;
        p->ignore_eos = true;
        p->max_new_tokens = 30;
        p->stop_id_count = 0;
        toy->packed[true] = 0;
        rig_submit(&rig, id, &asked[id].spec);
        rig_until_done(&rig, (uint32_t)id);
        asked_check(&asked[id], &rig.seen[id]);
        if (id == 2) break;
        assert_in_range(toy->packed[true], 29, 32);
        toy->packs = 1;
        while (toy->packs)
            sched_yield();
    }
    assert_int_equal(toy->packed[true], 0);
    rig_fini(&rig);
}

TESTS(T(weights_are_packed_beside_requests),
      T(one_request_yields_what_the_model_says),
      T(batches_chunks_and_prefix_hits_change_nothing),
      T(retraction_changes_nothing),
      T(a_repeated_prompt_is_found_but_for_its_last_token),
      T(logprobs_are_those_of_the_rows),
      T(alternatives_and_asked_ids_come_with_each_token),
      T(text_ends_where_a_stop_string_starts), T(output_keeps_to_its_grammar),
      T(a_foreign_first_token_may_break_a_grammar),
      T(unseeded_requests_differ_seeded_ones_do_not))
