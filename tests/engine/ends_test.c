/* Ends by force, refusals, failures; what steps allocate. */
#include "tests/engine/letters.h"
#include "tests/engine/rig.h"

#include "text/stop.h"

static struct rig rig;
static struct asked asked[RIG_REQUESTS];

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

TESTS(T(aborts_of_any_state_end_once_and_leak_nothing),
      T(a_failing_step_ends_its_requests_alone),
      T(memory_that_does_not_come_is_an_answer),
      T(what_can_never_fit_is_refused_in_sglangs_words),
      T(bad_stop_strings_are_refused),
      T(submit_survives_every_failed_allocation),
      T(create_survives_every_failed_allocation),
      T(a_slow_owner_stops_steps_but_not_aborts),
      T(more_ends_than_the_inbox_holds_arrive_in_order),
      T(destroy_does_not_wait_for_anybody),
      T(a_thousand_steps_allocate_nothing))
