/* op_experts on every instruction set: close to "ref"; a token gives the same
 * bits alone and in any batch; ties, and a token of NaN. */
#include "tests/tensor/ops_help.h"

enum { N = 96, F = 64, COUNT_MAX = 9, TOKENS = 37 };

struct mixture {
    void *bytes[3 * COUNT_MAX];
    struct weight *w[3 * COUNT_MAX];
    struct experts e;
    float *room;
};

/* The same weights on any device. */
static void mixture_make(struct mixture *m, struct device *dev, enum dtype type,
                         uint32_t count, uint32_t used, bool normed)
{
    uint64_t seed = 5;
    struct why why = {0};
    for (uint32_t i = 0; i < 3 * count; i++) {
        size_t rows = i < 2 * count ? F : N, cols = i < 2 * count ? N : F;
        m->bytes[i] = random_matrix(type, rows, cols, &seed);
        if (weight_create(&m->w[i], dev, type, rows, cols, m->bytes[i], &why))
            fail_msg("%s", why.text);
    }
    m->e = (struct experts){count, used,         normed,
                            m->w,  m->w + count, m->w + 2 * count};
    m->room = floats(EXPERTS_ROOM(TOKENS, N, F, used));
}

static void mixture_fini(struct mixture *m)
{
    for (uint32_t i = 0; i < 3 * m->e.count; i++) {
        weight_destroy(m->w[i]);
        mem_free(m->bytes[i]);
    }
    mem_free(m->room);
}

static const struct {
    enum dtype type;
    uint32_t count, used;
    bool normed;
} shapes[] = {{DTYPE_F32, 8, 2, true},
              {DTYPE_Q8_0, 9, 3, false},
              {DTYPE_BF16, 4, 4, true},
              {DTYPE_Q4_1, 1, 1, false}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static float *run(struct device *dev, const struct mixture *m, const float *x,
                  const float *y, const float *scores, size_t tokens)
{
    float *out = floats(tokens * N);
    memcpy(out, x, tokens * N * sizeof *out);
    op_experts(dev, out, y, scores, tokens, &m->e, m->room);
    return out;
}

static void experts_are_close_and_alone(void **state)
{
    (void)state;
    for (size_t s = 0; s < SHAPES; s++) {
        uint64_t seed = 90 + s;
        struct mixture m;
        struct device *ref = open_ref();
        float *x = random_floats(TOKENS * N, &seed);
        float *y = random_floats(TOKENS * N, &seed);
        float *scores = random_floats(TOKENS * shapes[s].count, &seed);
        mixture_make(&m, ref, shapes[s].type, shapes[s].count, shapes[s].used,
                     shapes[s].normed);
        float *want = run(ref, &m, x, y, scores, TOKENS);
        mixture_fini(&m);
        device_close(ref);
        for (int i = 0; i < ISAS; i++) {
            struct device *cpu = open_cpu(i, 2);
            if (!cpu) continue;
            mixture_make(&m, cpu, shapes[s].type, shapes[s].count,
                         shapes[s].used, shapes[s].normed);
            float *got = run(cpu, &m, x, y, scores, TOKENS);
            /* a gate that rounds apart may round another way to int8, bf16 */
            enum dtype type = shapes[s].type;
            check_close(got, want, TOKENS * N,
                        type == DTYPE_F32    ? 1e-3
                        : type == DTYPE_BF16 ? 0.4
                                             : 5e-2,
                        1e-4);
            for (size_t t = 0; t < TOKENS; t++) {
                float *one = run(cpu, &m, x + t * N, y + t * N,
                                 scores + t * shapes[s].count, 1);
                assert_memory_equal(one, got + t * N, N * sizeof *one);
                mem_free(one);
            }
            mem_free(got);
            mixture_fini(&m);
            device_close(cpu);
        }
        mem_free(x), mem_free(y), mem_free(scores), mem_free(want);
    }
}

/* Equal scores: the experts of lower index, with equal weights. */
static void ties_take_the_lower_index(void **state)
{
    (void)state;
    uint64_t seed = 95;
    float scores[8] = {1, 3, 2, 3, 3, 2, 1, 0}, *zeros = floats(N);
    float *y = random_floats(N, &seed);
    struct device *dev = open_device("cpu", NULL, 1);
    struct mixture m;
    mixture_make(&m, dev, DTYPE_F32, 8, 2, true);
    float *got = run(dev, &m, zeros, y, scores, 1);
    scores[4] = 0; /* now 1 and 3 are plainly the two */
    float *want = run(dev, &m, zeros, y, scores, 1);
    assert_memory_equal(got, want, N * sizeof *got);
    mixture_fini(&m);
    device_close(dev);
    mem_free(got), mem_free(want), mem_free(y), mem_free(zeros);
}

static void a_token_of_nan_spoils_no_other(void **state)
{
    (void)state;
    uint64_t seed = 97;
    struct device *dev = open_device("cpu", NULL, 2);
    struct mixture m;
    float *x = random_floats(3 * N, &seed), *y = random_floats(3 * N, &seed);
    float *scores = random_floats(3 * 8, &seed);
    mixture_make(&m, dev, DTYPE_F32, 8, 2, true);
    float *want = run(dev, &m, x, y, scores, 3);
    scores[8 + 5] = NAN;
    float *got = run(dev, &m, x, y, scores, 3);
    assert_memory_equal(got, want, N * sizeof *got);
    assert_memory_equal(got + 2 * N, want + 2 * N, N * sizeof *got);
    for (size_t c = 0; c < N; c++)
        assert_true(isnan(got[N + c]));
    mixture_fini(&m);
    device_close(dev);
    mem_free(x), mem_free(y), mem_free(scores), mem_free(got), mem_free(want);
}

TESTS(T(experts_are_close_and_alone), T(ties_take_the_lower_index),
      T(a_token_of_nan_spoils_no_other))
