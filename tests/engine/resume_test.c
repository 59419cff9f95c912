/* Requests that go on with output from elsewhere: each must end as if it had
 * never been interrupted, wherever it was. */
#include "tests/engine/letters.h"

enum { N = 60 };

static struct rig rig, prefill;
static struct asked asked[RIG_REQUESTS], again[RIG_REQUESTS];
static int32_t tokens[RIG_REQUESTS][512];

/* again[id]: asked[id] with the first k tokens of its output. */
static void with_output(uint64_t id, const int32_t *output, uint32_t k)
{
    struct request_spec *spec = &again[id].spec;
    *spec = asked[id].spec;
    uint32_t prompt = spec->token_count;
    assert_true(prompt + k <= 512);
    memcpy(tokens[id], spec->tokens, prompt * sizeof **tokens);
    memcpy(tokens[id] + prompt, output, k * sizeof **tokens);
    spec->tokens = tokens[id];
    spec->token_count = prompt + k;
    spec->output_count = k;
}

/* As if rig had seen the request's first k tokens too. */
static void resume(uint64_t id, const int32_t *output, uint32_t k)
{
    struct seen *s = &rig.seen[id];
    memcpy(s->tokens, output, k * sizeof *output);
    s->count = k;
    with_output(id, output, k);
    rig_submit(&rig, id, &again[id].spec);
}

static void ask(struct grammars *all, uint64_t id, uint64_t *seed)
{
    ask_with_stops(&asked[id], seed);
    struct request_spec *spec = &asked[id].spec;
    spec->grammar = id % 5 ? NULL : some_grammar(all, id / 5);
    spec->grammar_open = id % 3 ? -1 : 'x';
    spec->grammar_after = id % 2 ? -1 : 'e';
}

/* How much of its output a request of rig comes with, always less than all. */
static uint32_t part_of(const struct seen *s, uint64_t *seed)
{
    return s->count > 1 ? (uint32_t)(rng_next(seed) % s->count) : 0;
}

static void a_resumed_request_ends_as_it_would_have(void **state)
{
    (void)state;
    struct tokenizer *t = letters();
    struct grammars *all = grammars_create(t);
    uint32_t resumed = 0, retractions = 0;
    for (int i = 0; i < 6; i++) {
        struct rig_options o = rig_defaults();
        o.engine.tokenizer = t;
        o.engine.reserved_decode_tokens = 1;
        o.engine.prefix_cache = i % 2;
        o.pages = i < 3 ? 1000 : 40;
        rig_init(&rig, &o);
        uint64_t seed = 40 + (uint64_t)i;
        rig_hold(&rig);
        for (uint64_t id = 1; id <= N; id++) {
            ask(all, id, &seed);
            rig_submit(&rig, id, &asked[id].spec);
        }
        rig_go(&rig);
        rig_until_done(&rig, N);
        for (int round = 0; round < 3; round++) {
            static int32_t output[RIG_REQUESTS][512];
            uint32_t count[RIG_REQUESTS];
            for (uint64_t id = 1; id <= N; id++) {
                check_text(t, &asked[id], &rig.seen[id]);
                retractions += round ? rig.seen[id].retractions : 0;
                memcpy(output[id], rig.seen[id].tokens, sizeof output[id]);
                count[id] = part_of(&rig.seen[id], &seed);
                resumed += count[id] > 0;
            }
            rig_forget(&rig);
            rig_hold(&rig); /* together they lack pages */
            for (uint64_t id = 1; id <= N; id++)
                resume(id, output[id], count[id]);
            rig_go(&rig);
            rig_until_done(&rig, N);
        }
        for (uint64_t id = 1; id <= N; id++)
            grammar_drop(asked[id].spec.grammar);
        rig_fini(&rig);
    }
    assert_true(resumed > 600);
    assert_true(retractions > 20);
    grammars_destroy(all);
    tokenizer_destroy(t);
}

/* With a part of what the toy would say, as if elsewhere it had. */
static void resume_toy(uint64_t id, uint64_t *seed)
{
    enum finish_kind finish;
    int32_t output[512];
    struct request_spec *spec = &asked[id].spec;
    uint32_t n = toy_expect(spec, output, &finish);
    /* A stop string may end it sooner: then not so much is said. */
    spec->sampling.stop_count = 0;
    spec->role = ROLE_DECODE;
    spec->own_prefix = id % 4;
    resume(id, output, (uint32_t)(rng_next(seed) % n));
}

static void a_pair_resumes_what_another_began(void **state)
{
    (void)state;
    struct tokenizer *t = letters();
    struct grammars *all = grammars_create(t);
    static const uint32_t sizes[] = {4, 1, 16};
    uint32_t kept = 0;
    for (int i = 0; i < 6; i++) {
        struct rig_options o = rig_defaults();
        o.engine.tokenizer = t;
        o.page_tokens = sizes[i % 3];
        o.pages = 480 / sizes[i % 3];
        rig_init(&prefill, &o);
        o.page_tokens = sizes[i / 2];
        o.pages = (i % 2 ? 200u : 4000u) / sizes[i / 2];
        o.engine.reserved_decode_tokens = 1;
        o.engine.prefix_cache = i >= 2;
        rig_init(&rig, &o);
        /* Again, when prefix caches know of prompts and outputs. */
        for (int round = 0; round < 2; round++) {
            uint64_t seed = 70 + (uint64_t)i;
            for (uint64_t id = 1; id <= N; id++) {
                ask(all, id, &seed);
                resume_toy(id, &seed);
            }
            pair_run(&prefill, &rig, again, N);
            for (uint64_t id = 1; id <= N; id++) {
                const struct seen *s = &rig.seen[id], *p = &prefill.seen[id];
                check_text(t, &asked[id], s);
                assert_int_equal(p->kv_tokens, again[id].spec.token_count);
                assert_true(s->cached <= asked[id].spec.token_count);
                kept += s->kept > asked[id].spec.token_count;
                grammar_drop(asked[id].spec.grammar);
            }
            rig_forget(&rig);
            rig_forget(&prefill);
        }
        rig_fini(&rig);
        rig_fini(&prefill);
    }
    assert_true(kept > 20);
    grammars_destroy(all);
    tokenizer_destroy(t);
}

static void refused(const char *part)
{
    struct why why = {0};
    for (int role = ROLE_WHOLE; role <= ROLE_DECODE; role++) {
        again[1].spec.role = (enum request_role)role;
        assert_int_equal(engine_submit(rig.engine, 1, &again[1].spec, &why),
                         ERR_INVALID);
        assert_non_null(strstr(why.text, part));
    }
}

static void what_has_ended_or_lost_its_logprobs_is_not_resumed(void **state)
{
    (void)state;
    struct tokenizer *t = letters();
    struct rig_options o = rig_defaults();
    o.engine.tokenizer = t;
    rig_init(&rig, &o);
    uint64_t seed = 5;
    asked_random(&asked[1], 20, 20, &seed);
    asked[1].spec.sampling.max_new_tokens = 8;
    asked[1].spec.sampling.min_new_tokens = 0;
    asked[1].spec.sampling.ignore_eos = false;
    int32_t output[9] = {'a', 'b', 'c', 'd', 'e', 'f', 'a', 'b', 'c'};
    with_output(1, output, 8);
    refused("the request ended with token 8");
    with_output(1, output, 9);
    refused("the request ended with token 8");
    output[3] = TOY_END;
    with_output(1, output, 6);
    refused("the request ended with token 4");
    output[3] = TOY_VOCAB;
    with_output(1, output, 6);
    refused("must be in [0,");
    with_output(1, output, 2);
    again[1].spec.want_logprobs = true;
    refused("cannot have logprobs");
    again[1].spec.want_logprobs = false;
    again[1].spec.logprob_start = 0;
    refused("cannot have logprobs");
    with_output(1, output, 2);
    again[1].spec.output_count = again[1].spec.token_count;
    refused("no tokens");
    rig_fini(&rig);
    tokenizer_destroy(t);
}

TESTS(T(a_resumed_request_ends_as_it_would_have),
      T(a_pair_resumes_what_another_began),
      T(what_has_ended_or_lost_its_logprobs_is_not_resumed))
