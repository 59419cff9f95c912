#include "tests/engine/rig.h"

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
    for (uint64_t id = 1; id <= count; id++) {
        asked_random(&asked[id], longest, most_new, &seed);
        rig_submit(&rig, id, &asked[id].spec);
    }
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

TESTS(T(one_request_yields_what_the_model_says),
      T(batches_chunks_and_prefix_hits_change_nothing),
      T(retraction_changes_nothing),
      T(a_repeated_prompt_is_found_but_for_its_last_token))
