#include "tests/test.h"

#include "base/clock.h"
#include "base/mem.h"
#include "engine/sample.h"

#include <math.h>

enum { VOCAB = 1201, LONG = 40000 };

static struct sampler *new_sampler(uint32_t vocab)
{
    struct sampler *s;
    assert_int_equal(sampler_create(&s, vocab, NULL), 0);
    return s;
}

/* Gaussian-like logits on a coarse grid, so that ties happen. */
static void random_logits(float *x, uint32_t n, float spread, uint64_t *seed)
{
    for (uint32_t i = 0; i < n; i++) {
        double sum = -3;
        for (int j = 0; j < 6; j++)
            sum += rng_unit(seed);
        x[i] = roundf((float)sum * spread * 64) / 64;
    }
}

static const float *sorting;
static int by_logit(const void *a, const void *b)
{
    int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    if (sorting[i] != sorting[j]) return sorting[i] < sorting[j] ? 1 : -1;
    return i - j;
}

/* The definition, by a full sort and in double. */
static int32_t reference_pick(const float *x, uint32_t n,
                              const struct sampling *p, uint32_t position)
{
    static int32_t order[LONG];
    static double kept[LONG];
    for (uint32_t i = 0; i < n; i++)
        order[i] = (int32_t)i;
    sorting = x;
    qsort(order, n, sizeof *order, by_logit);
    if (sampling_is_greedy(p)) return order[0];
    double top = (double)x[order[0]], t = (double)p->temperature, z = 0;
    for (uint32_t i = 0; i < n; i++)
        z += exp(((double)x[i] - top) / t);
    double before = 0, mass = 0;
    memset(kept, 0, sizeof kept);
    for (uint32_t i = 0; i < n; i++) {
        double w = exp(((double)x[order[i]] - top) / t);
        bool in = (p->top_k < 0 || i < (uint32_t)p->top_k) &&
                  (p->top_p == 1 || before <= (double)p->top_p * z) &&
                  w >= (double)p->min_p;
        if (in) mass += kept[order[i]] = w;
        before += w;
    }
    double target = sample_unit(p->seed, position) * mass, sum = 0;
    int32_t best = -1;
    for (uint32_t i = 0; i < n; i++) {
        if (kept[i] == 0) continue;
        best = (int32_t)i;
        if ((sum += kept[i]) > target) break;
    }
    return best;
}

static void every_cut_agrees_with_a_full_sort(void **state)
{
    (void)state;
    static const float temperatures[] = {0, 0.3f, 1, 2.5f};
    static const int32_t ks[] = {-1, 1, 2, 50, 1100, 5000};
    static const float top_ps[] = {1, 0.999f, 0.9f, 0.5f, 0.01f};
    static const float min_ps[] = {0, 1e-7f, 0.05f, 1};
    static const float spreads[] = {0, 0.2f, 3, 12};
    struct sampler *s = new_sampler(VOCAB);
    static float x[VOCAB];
    uint64_t seed = 5;
    for (size_t i = 0; i < 4 * 4 * 6 * 5 * 4; i++) {
        size_t at = i;
        random_logits(x, VOCAB, spreads[at % 4], &seed);
        struct sampling p;
        sampling_init(&p);
        p.temperature = temperatures[(at /= 4) % 4];
        p.top_k = ks[(at /= 4) % 6];
        p.top_p = top_ps[(at /= 6) % 5];
        p.min_p = min_ps[at /= 5];
        p.seed = i;
        for (uint32_t position = 0; position < 3; position++)
            assert_int_equal(sample_pick(s, x, &p, position),
                             reference_pick(x, VOCAB, &p, position));
    }
    sampler_destroy(s);
}

/* The last part first, and the others in no order. */
static void any_order(void *arg, void (*fn)(void *, size_t, int), void *fn_arg,
                      size_t count)
{
    (*(int *)arg)++;
    for (size_t i = 0; i < count; i++)
        fn(fn_arg, (count - 1) * (i + 1) % count, (int)(i % 3));
}

static void parts_of_a_long_row_come_in_any_order(void **state)
{
    (void)state;
    static const float temperatures[] = {2e-6f, 0.3f, 2.5f};
    static const int32_t ks[] = {-1, 50, 30000};
    static const float top_ps[] = {1, 0.95f, 0.3f};
    static const float min_ps[] = {0, 0.02f};
    static const float spreads[] = {0, 0.01f, 3, 12};
    struct sampler *alone = new_sampler(LONG), *shared = new_sampler(LONG);
    int runs = 0;
    sampler_share(shared, &(struct share){any_order, &runs});
    static float x[LONG];
    uint64_t seed = 6;
    for (size_t i = 0; i < 4 * 3 * 3 * 3 * 2; i++) {
        size_t at = i;
        random_logits(x, LONG, spreads[at % 4], &seed);
        for (uint32_t k = 0; k < LONG && i % 5 == 4; k += 3)
            x[k] = -INFINITY; /* as a grammar does */
        struct sampling p;
        sampling_init(&p);
        p.temperature = temperatures[(at /= 4) % 3];
        p.top_k = ks[(at /= 3) % 3];
        p.top_p = top_ps[(at /= 3) % 3];
        p.min_p = min_ps[at / 3];
        p.seed = i;
        int32_t token = sample_pick(alone, x, &p, 7);
        assert_int_equal(token, reference_pick(x, LONG, &p, 7));
        assert_int_equal(sample_pick(shared, x, &p, 7), token);
        float top[3];
        int32_t ids[3];
        struct logprob_ask ask = {1, token, 3, NULL, 0};
        struct logprob_room room = {top, ids, NULL};
        struct token_logprob one, two;
        sample_logprobs(alone, x, &ask, &room, &one);
        sample_logprobs(shared, x, &ask, &room, &two);
        assert_true(one.logprob == two.logprob);
    }
    assert_true(runs > 1000);
    sampler_destroy(alone);
    sampler_destroy(shared);
}

static void draws_follow_the_distribution(void **state)
{
    (void)state;
    enum { N = 7, DRAWS = 40000 };
    const float x[N] = {0, 1, -1, 2, 0.5f, -INFINITY, 1.5f};
    struct sampler *s = new_sampler(N);
    struct sampling p;
    sampling_init(&p);
    p.temperature = 0.8f;
    p.seed = 99;
    int counts[N] = {0};
    double z = 0;
    for (int i = 0; i < N; i++)
        z += exp((double)x[i] / 0.8);
    for (uint32_t i = 0; i < DRAWS; i++)
        counts[sample_pick(s, x, &p, i)]++;
    for (int i = 0; i < N; i++) {
        double share = exp((double)x[i] / 0.8) / z;
        double sigma = sqrt(DRAWS * share * (1 - share));
        assert_true(fabs(counts[i] - DRAWS * share) <= 5 * sigma);
    }
    sampler_destroy(s);
}

static void a_draw_depends_on_seed_and_position_alone(void **state)
{
    (void)state;
    double sum = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        double u = sample_unit(42, i);
        assert_true(u >= 0 && u < 1);
        assert_true(u == sample_unit(42, i));
        assert_true(u != sample_unit(43, i) && u != sample_unit(42, i + 1));
        sum += u;
    }
    assert_true(fabs(sum / 1000 - 0.5) < 0.05);
}

static void greedy_ties_go_to_the_lowest_id(void **state)
{
    (void)state;
    struct sampler *s = new_sampler(9);
    struct sampling p;
    sampling_init(&p);
    p.temperature = 0;
    for (int first = 0; first < 9; first++) {
        float x[9];
        for (int i = 0; i < 9; i++)
            x[i] = i >= first ? 3 : (float)i / 9;
        assert_int_equal(sample_pick(s, x, &p, 0), first);
    }
    float zeros[9] = {-1, -0.0f, 0, 0, 0, 0, 0, 0, 0};
    assert_int_equal(sample_pick(s, zeros, &p, 0), 1);
    sampler_destroy(s);
}

static void rows_that_are_no_numbers_are_refused(void **state)
{
    (void)state;
    struct sampler *s = new_sampler(11);
    struct sampling p;
    sampling_init(&p);
    for (int greedy = 0; greedy < 2; greedy++) {
        p.temperature = greedy ? 0 : 1;
        for (int i = 0; i < 11; i++) {
            float x[11] = {0};
            x[i] = NAN;
            assert_int_equal(sample_pick(s, x, &p, 0), -1);
            x[i] = INFINITY;
            assert_int_equal(sample_pick(s, x, &p, 0), -1);
            for (int j = 0; j < 11; j++)
                x[j] = -INFINITY;
            assert_int_equal(sample_pick(s, x, &p, 0), -1);
            x[i] = -5;
            assert_int_equal(sample_pick(s, x, &p, 0), i);
        }
    }
    sampler_destroy(s);
}

static void penalties_and_bias_follow_the_formula(void **state)
{
    (void)state;
    struct sampler *s = new_sampler(8);
    const float x[8] = {1, -1, 2, 0.5f, -2, 3, 0, 4};
    const int32_t output[] = {2, 4, 2, 2};
    const int32_t stop_ids[] = {5}, ends[] = {7, 100};
    const int32_t bias_ids[] = {0, 2};
    const float bias[] = {-1.5f, 10};
    struct sampling p;
    sampling_init(&p);
    struct sample_history h = {output, 4, ends, 2, NULL};
    assert_ptr_equal(sample_adjust(s, x, &p, &h), x); /* nothing asked */
    p.frequency_penalty = 0.5f;
    p.presence_penalty = 0.25f;
    p.repetition_penalty = 1.5f;
    p.bias_ids = bias_ids;
    p.bias_values = bias;
    p.bias_count = 2;
    p.stop_ids = stop_ids;
    p.stop_id_count = 1;
    p.min_new_tokens = 5;
    const float *y = sample_adjust(s, x, &p, &h);
    const float want[8] = {1 - 1.5f,
                           -1,
                           (2 - 3 * 0.5f - 0.25f) / 1.5f + 10,
                           0.5f,
                           (-2 - 0.5f - 0.25f) * 1.5f,
                           -INFINITY,
                           0,
                           -INFINITY};
    assert_memory_equal(y, want, sizeof want);
    y = sample_adjust(s, x, &p, &h); /* counts were left clean */
    assert_memory_equal(y, want, sizeof want);
    p.min_new_tokens = 4;
    assert_true(sample_adjust(s, x, &p, &h)[7] == 4);
    p.repetition_penalty = 0; /* allowed: the largest number, no infinity */
    assert_int_equal(sample_pick(s, sample_adjust(s, x, &p, &h), &p, 0), 2);
    sampler_destroy(s);
}

static void logprobs_are_a_log_softmax(void **state)
{
    (void)state;
    struct sampler *s = new_sampler(VOCAB);
    static float x[VOCAB];
    static int32_t order[VOCAB];
    uint64_t seed = 8;
    for (int round = 0; round < 20; round++) {
        random_logits(x, VOCAB, (float)round, &seed);
        float t = round % 2 ? 1 : 0.7f;
        double z = 0;
        for (int i = 0; i < VOCAB; i++) {
            z += exp((double)x[i] / (double)t);
            order[i] = i;
        }
        sorting = x;
        qsort(order, VOCAB, sizeof *order, by_logit);
        float top_values[SAMPLE_TOP_MAX], id_values[2];
        int32_t top_ids[SAMPLE_TOP_MAX], ids[2] = {17, VOCAB - 1};
        struct logprob_ask ask = {t, 5, (uint32_t)round * 6, ids, 2};
        struct logprob_room room = {top_values, top_ids, id_values};
        struct token_logprob out;
        sample_logprobs(s, x, &ask, &room, &out);
#define WANT(id) ((double)x[id] / (double)t - log(z))
        assert_int_equal(out.token, 5);
        assert_true(fabs((double)out.logprob - WANT(5)) < 2e-5);
        assert_int_equal(out.top_count, round * 6);
        for (uint32_t i = 0; i < out.top_count; i++) {
            assert_int_equal(out.top_ids[i], order[i]);
            assert_true(fabs((double)out.top_values[i] - WANT(order[i])) <
                        2e-5);
        }
        for (int i = 0; i < 2; i++)
            assert_true(fabs((double)id_values[i] - WANT(ids[i])) < 2e-5);
    }
    sampler_destroy(s);
    s = new_sampler(3);
    float few[3], top_values[5];
    int32_t top_ids[5];
    memcpy(few, (float[3]){1, 3, 2}, sizeof few);
    struct token_logprob out;
    sample_logprobs(s, few, &(struct logprob_ask){1, 0, 5, NULL, 0},
                    &(struct logprob_room){top_values, top_ids, NULL}, &out);
    assert_int_equal(out.top_count, 3);
    assert_int_equal(top_ids[0], 1);
    assert_int_equal(top_ids[2], 0);
    sampler_destroy(s);
}

static void sampling_is_checked_with_sglangs_words(void **state)
{
    (void)state;
    const int32_t ids[] = {5, 10};
    const float values[] = {1, NAN};
    struct sampling good;
    sampling_init(&good);
    assert_int_equal(sampling_check(&good, 10, NULL), 0);
    const struct {
        size_t offset;
        float value;
        const char *text;
    } floats[] = {
#define F(f, v, t) {offsetof(struct sampling, f), v, t}
        F(temperature, -1, "temperature must be non-negative, got -1.0."),
        F(temperature, NAN, "temperature must be non-negative, got nan."),
        F(top_p, 2, "top_p must be in (0, 1], got 2.0."),
        F(top_p, 0, "top_p must be in (0, 1], got 0.0."),
        F(top_p, NAN, "top_p must be in (0, 1], got nan."),
        F(min_p, 1.1f, "min_p must be in [0, 1], got 1.1."),
        F(frequency_penalty, -2.5f,
          "frequency_penalty must be in [-2, 2], got -2.5."),
        F(presence_penalty, 3, "presence_penalty must be in [-2, 2], got 3.0."),
        F(repetition_penalty, -0.1f,
          "repetition_penalty must be in [0, 2], got -0.1."),
    };
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) {
        struct sampling p = good;
        struct why why = {0};
        memcpy((char *)&p + floats[i].offset, &floats[i].value, sizeof(float));
        assert_int_equal(sampling_check(&p, 10, &why), ERR_INVALID);
        assert_string_equal(why.text, floats[i].text);
    }
    struct why why = {0};
    struct sampling p = good;
    p.top_k = 0;
    assert_int_equal(sampling_check(&p, 10, &why), ERR_INVALID);
    assert_string_equal(why.text,
                        "top_k must be -1 (disable) or at least 1, got 0.");
    p = good;
    p.min_new_tokens = 129;
    assert_int_equal(sampling_check(&p, 10, &why), ERR_INVALID);
    assert_string_equal(why.text, "min_new_tokens must be in [0, "
                                  "max_new_tokens(128)], got 129.");
    p = good;
    p.stop_ids = ids;
    p.stop_id_count = 2;
    assert_int_equal(sampling_check(&p, 11, NULL), 0);
    assert_int_equal(sampling_check(&p, 10, &why), ERR_INVALID);
    assert_string_equal(why.text, "stop_token_ids must be in [0, 9], got 10.");
    p = good;
    p.bias_ids = ids;
    p.bias_values = values;
    p.bias_count = 1;
    assert_int_equal(sampling_check(&p, 10, NULL), 0);
    p.bias_count = 2;
    assert_int_equal(sampling_check(&p, 11, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "logit_bias"));
}

TESTS(T(every_cut_agrees_with_a_full_sort),
      T(parts_of_a_long_row_come_in_any_order),
      T(draws_follow_the_distribution),
      T(a_draw_depends_on_seed_and_position_alone),
      T(greedy_ties_go_to_the_lowest_id),
      T(rows_that_are_no_numbers_are_refused),
      T(penalties_and_bias_follow_the_formula), T(logprobs_are_a_log_softmax),
      T(sampling_is_checked_with_sglangs_words))
