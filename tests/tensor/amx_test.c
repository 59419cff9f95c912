/* Products by tiles: those in plain C everywhere, those by instructions where
 * the processor has them. Integers have the bits of vectors; bf16 those of
 * sums written out here. */
#include "tests/tensor/ops_help.h"

#include "tensor/cpu/cpu.h"

/* Tiles and what shares their vector operations. */
static const struct {
    const char *tiles, *vectors;
    bool pairs;
} pairs[] = {
    {"amxplain", "generic", true},
#if defined(__x86_64__)
    {"amxint8", "avx512bf16", false},
    {"amxbf16", "avx512bf16", true},
#endif
};
enum { PAIRS = sizeof pairs / sizeof *pairs };

/* NULL: not here. */
static struct device *open_named(const char *isa, int threads)
{
    if (strcmp(kernels_choose(isa)->name, isa) != 0) return NULL;
    return open_device("cpu", isa, threads);
}

struct shape {
    size_t rows, cols, tokens;
};

/* One product of random numbers by each of two devices, with what is already
 * in out. */
struct product {
    enum dtype type;
    struct shape s;
    void *bytes;
    float *x, *bias, *out;
};

static struct product product_make(enum dtype type, struct shape s,
                                   uint64_t *seed)
{
    return (struct product){type,
                            s,
                            random_matrix(type, s.rows, s.cols, seed),
                            random_floats(s.tokens * s.cols, seed),
                            random_floats(s.rows, seed),
                            random_floats(s.tokens * s.rows, seed)};
}

static void product_free(struct product *p)
{
    mem_free(p->bytes), mem_free(p->x), mem_free(p->bias), mem_free(p->out);
}

/* The caller frees it. */
static float *product_by(struct device *dev, const struct product *p)
{
    struct weight *w;
    struct why why = {0};
    if (weight_create(&w, dev, p->type, p->s.rows, p->s.cols, p->bytes, &why))
        fail_msg("%s", why.text);
    float *out = floats(p->s.tokens * p->s.rows);
    memcpy(out, p->out, p->s.tokens * p->s.rows * sizeof *out);
    struct linear l = {out, w, p->bias, true};
    op_linear(dev, &(struct input){.x = p->x}, p->s.tokens, &l, 1);
    weight_destroy(w);
    return out;
}

static void check_bits(const struct device *dev, const struct product *p,
                       const float *got, const float *want)
{
    for (size_t i = 0; i < p->s.tokens * p->s.rows; i++)
        if (memcmp(&got[i], &want[i], 4) != 0)
            fail_msg("%s %s %zu x %zu, token %zu row %zu: %a, want %a",
                     device_describe(dev), dtype_name(p->type), p->s.rows,
                     p->s.cols, i / p->s.rows, i % p->s.rows, (double)got[i],
                     (double)want[i]);
}

/* Groups of 32 tokens, half ones, tails; slabs that end within a tile; panels
 * with and without a neighbour, with fewer rows. */
static const struct shape shapes[] = {
    {16, 256, 9},    {33, 256, 16}, {64, 512, 17},  {70, 768, 31},
    {130, 1280, 32}, {48, 256, 33}, {81, 512, 48},  {32, 1024, 65},
    {17, 1536, 70},  {40, 256, 1},  {300, 256, 12},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void integers_have_the_bits_of_vectors(void **state)
{
    (void)state;
    for (int i = 0; i < PAIRS; i++) {
        struct device *tiles = open_named(pairs[i].tiles, 3);
        if (!tiles) continue;
        struct device *vectors = open_named(pairs[i].vectors, 1);
        uint64_t seed = 1;
        for (enum dtype type = 0; type < DTYPE_COUNT; type++)
            for (size_t s = 0; s < SHAPES + 2; s++) {
                struct shape shape = {50, s == SHAPES ? 32 : 672, 40};
                if (s < SHAPES) shape = shapes[s];
                if ((type == DTYPE_BF16 && pairs[i].pairs) ||
                    !dtype_row_bytes(type, shape.cols) || left_out(s + type))
                    continue;
                struct product p = product_make(type, shape, &seed);
                float *got = product_by(tiles, &p);
                float *want = product_by(vectors, &p);
                check_bits(tiles, &p, got, want);
                mem_free(got), mem_free(want), product_free(&p);
            }
        device_close(tiles);
        device_close(vectors);
    }
}

static float normal(float f)
{
    return fabsf(f) < 0x1p-126f ? copysignf(0, f) : f;
}

/* Blocks of 16 pairs of columns: in each, even and odd columns are chains. */
static float pair_sum(const float *x, const uint16_t *w, size_t cols)
{
    float sum = 0;
    for (size_t block = 0; block < cols; block += 32) {
        float chain[2] = {0, 0};
        for (size_t c = block; c < block + 32 && c < cols; c++)
            chain[c % 2] =
                normal(fmaf(normal(bf16_to_f32(f32_to_bf16(x[c]))),
                            normal(bf16_to_f32(w[c])), chain[c % 2]));
        sum = normal(sum + normal(chain[0] + chain[1]));
    }
    return sum;
}

static void pairs_are_summed_in_blocks(void **state)
{
    (void)state;
    static const size_t cols[] = {1,   2,   31,  32,  33,  64, 96,
                                  127, 128, 200, 256, 263, 640};
    for (int i = 0; i < PAIRS; i++) {
        struct device *tiles =
            pairs[i].pairs ? open_named(pairs[i].tiles, 3) : NULL;
        if (!tiles) continue;
        uint64_t seed = 2;
        for (size_t c = 0; c < sizeof cols / sizeof *cols; c++)
            for (size_t tokens = 1; tokens < 70; tokens += tokens / 2 + 3) {
                if (left_out(c + tokens)) continue;
                struct shape s = {53, cols[c], tokens};
                struct product p = product_make(DTYPE_BF16, s, &seed);
                uint16_t *w = p.bytes;
                p.x[0] = 1e-39f, w[0] = 1; /* subnormals */
                if (cols[c] > 40) w[40] = 0x0400, p.x[40] = -1e-20f;
                float *got = product_by(tiles, &p);
                for (size_t t = 0; t < tokens; t++)
                    for (size_t r = 0; r < s.rows; r++)
                        p.out[t * s.rows + r] +=
                            pair_sum(p.x + t * s.cols, w + r * s.cols, s.cols) +
                            p.bias[r];
                check_bits(tiles, &p, got, p.out);
                mem_free(got), product_free(&p);
            }
        device_close(tiles);
    }
}

/* What has tiles says so, or why not. */
static void the_best_is_chosen(void **state)
{
    (void)state;
    struct device *dev = open_device("cpu", NULL, 1);
    printf("%s\n", device_describe(dev));
    assert_null(strstr(device_describe(dev), "amxplain"));
    device_close(dev);
    for (int i = 0; i < PAIRS; i++)
        printf("%s: %s\n", pairs[i].tiles,
               strcmp(kernels_choose(pairs[i].tiles)->name, pairs[i].tiles) == 0
                   ? "run"
                   : "not here");
}

TESTS(T(integers_have_the_bits_of_vectors), T(pairs_are_summed_in_blocks),
      T(the_best_is_chosen))
