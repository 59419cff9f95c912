/* Weights that are packed later: what op_linear and op_embed say of them has
 * the bits of those that are packed, before, while and after they become so. */
#include "tests/tensor/ops_help.h"

enum { ROWS_ = 16 * 21 + 5, MOST = 130, EMBEDDED = 40 };

struct made {
    struct device *dev;
    enum dtype type;
    size_t cols;
    void *bytes; /* [ROWS_] */
    struct weight *now, *later;
    float *x, *bias;
    int32_t ids[EMBEDDED];
};

static struct weight *make(const struct made *m, bool stay)
{
    const struct weight_rows from = {
        .type = m->type, .stay = stay, .bytes = m->bytes};
    struct weight *w;
    struct why why = {0};
    if (weight_create_from(&w, m->dev, m->type, ROWS_, m->cols, &from, &why))
        fail_msg("%s", why.text);
    return w;
}

static void products(const struct made *m, const struct weight *w,
                     size_t tokens, float *out)
{
    memset(out, 0x55, MOST * ROWS_ * sizeof *out);
    const struct linear l = {out, w, m->bias, false};
    op_linear(m->dev, &(struct input){.x = m->x}, tokens, &l, 1);
}

/* Few tokens, several groups of them, a batch, and tiles in one and in more
 * blocks. */
static const size_t tokens[] = {1, 11, 16, 50, MOST};
enum { CALLS = sizeof tokens / sizeof *tokens };

/* What all of w's products and rows of it as a table are, the caller's. */
static float *results(const struct made *m, const struct weight *w)
{
    const size_t each = MOST * ROWS_;
    float *out = floats(CALLS * each + EMBEDDED * m->cols);
    for (size_t i = 0; i < CALLS; i++)
        products(m, w, tokens[i], out + i * each);
    op_embed(m->dev, out + CALLS * each, w, m->ids, EMBEDDED);
    return out;
}

static void same_bits(const struct made *m, const float *want, const char *when)
{
    const size_t each = MOST * ROWS_;
    float *got = results(m, m->later);
    for (size_t i = 0; i < CALLS; i++)
        if (memcmp(got + i * each, want + i * each, each * sizeof *got) != 0)
            fail_msg("%s, %s, %zu columns, %zu tokens, %s packed",
                     device_describe(m->dev), dtype_name(m->type), m->cols,
                     tokens[i], when);
    assert_memory_equal(got + CALLS * each, want + CALLS * each,
                        EMBEDDED * m->cols * sizeof *got);
    mem_free(got);
}

static void pack(struct device *dev, enum dtype type, size_t cols,
                 uint64_t *seed)
{
    struct made m = {.dev = dev, .type = type, .cols = cols};
    m.bytes = random_matrix(type, ROWS_, cols, seed);
    m.x = random_floats(MOST * cols, seed);
    m.bias = random_floats(ROWS_, seed);
    for (int i = 0; i < EMBEDDED; i++)
        m.ids[i] = i ? (int32_t)(rng_next(seed) % ROWS_) : ROWS_ - 1;
    m.now = make(&m, false);
    m.later = make(&m, true);
    assert_int_equal(weight_pack(m.now, 1), 0);
    float *want = results(&m, m.now);
    const size_t all = weight_packed_bytes(dev, type, ROWS_, cols);
    same_bits(&m, want, "not");
    size_t done = weight_pack(m.later, 1);
    assert_in_range(done, 1, all / 21);
    same_bits(&m, want, "hardly");
    done += weight_pack(m.later, all / 2);
    assert_in_range(done, all / 2, all - 1);
    same_bits(&m, want, "half");
    done += weight_pack(m.later, all);
    assert_int_equal(done, all);
    assert_int_equal(weight_pack(m.later, all), 0);
    memset(m.bytes, 0, ROWS_ * dtype_row_bytes(type, cols)); /* not needed */
    same_bits(&m, want, "all");
    assert_memory_equal(weight_packed(m.now), weight_packed(m.later), all);
    weight_destroy(m.now);
    weight_destroy(m.later);
    mem_free(want);
    mem_free(m.bytes);
    mem_free(m.x);
    mem_free(m.bias);
}

static void weights_packed_later_have_the_same_bits(void **state)
{
    (void)state;
    static const size_t cols[] = {256, 1024, 301};
    for (int i = 0; i < PRODUCT_ISAS; i++) {
        struct device *dev = open_cpu(i, 2);
        if (!dev) continue;
        uint64_t seed = 1;
        for (enum dtype type = 0; type < DTYPE_COUNT; type++)
            for (size_t c = 0; c < sizeof cols / sizeof *cols; c++)
                if (dtype_row_bytes(type, cols[c]) && !left_out(c + type) &&
                    (i == ISAS - 1 || (i + c + type) % 3 == 0))
                    pack(dev, type, cols[c], &seed);
        device_close(dev);
    }
}

/* Rows that are made on the way, or rounded, are not put off, nor does "ref"
 * put off any. */
static void others_are_packed_at_once(void **state)
{
    (void)state;
    enum { SIDE = 64 };
    uint64_t seed = 3;
    struct device *both[] = {open_ref(), open_device("cpu", NULL, 1)};
    void *bytes = random_matrix(DTYPE_F32, SIDE, 2 * SIDE, &seed);
    for (int i = 0; i < 2; i++)
        for (int rounded = 0; rounded < 2; rounded++) {
            const struct weight_rows from = {
                .type = DTYPE_F32, .stay = true, .bytes = bytes};
            struct weight *w;
            if (i && !rounded) continue;
            assert_int_equal(
                weight_create_from(&w, both[i],
                                   rounded ? DTYPE_INT8_G128 : DTYPE_F32, SIDE,
                                   rounded ? 2 * SIDE : SIDE, &from, NULL),
                0);
            assert_int_equal(weight_pack(w, 1), 0);
            weight_destroy(w);
        }
    mem_free(bytes);
    device_close(both[0]);
    device_close(both[1]);
}

TESTS(T(weights_packed_later_have_the_same_bits), T(others_are_packed_at_once))
