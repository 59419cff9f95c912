/* op_linear on every instruction set: close to "ref", and the same bits
 * however the rows are batched and the work is shared. */
#include "tests/tensor/ops_help.h"

static struct weight *make(struct device *dev, enum dtype type, size_t rows,
                           size_t cols, const void *bytes)
{
    struct weight *w;
    struct why why = {0};
    if (weight_create(&w, dev, type, rows, cols, bytes, &why))
        fail_msg("%s", why.text);
    return w;
}

/* sum |x w| of one output. */
static double magnitude(enum dtype type, const void *bytes, size_t row,
                        size_t cols, const float *x)
{
    float *w = floats(cols);
    dtype_decode(type, (const char *)bytes + row * dtype_row_bytes(type, cols),
                 w, cols);
    double sum = 0;
    for (size_t c = 0; c < cols; c++)
        sum += fabs((double)w[c] * x[c]);
    mem_free(w);
    return sum;
}

static void compare(struct device *cpu, struct device *ref, enum dtype type,
                    size_t rows, size_t cols, size_t tokens, uint64_t *seed)
{
    void *bytes = random_matrix(type, rows, cols, seed);
    float *x = random_floats(tokens * cols, seed);
    float *bias = random_floats(rows, seed);
    float *start = random_floats(tokens * rows, seed);
    float *got = floats(tokens * rows), *want = floats(tokens * rows);
    struct weight *w = make(cpu, type, rows, cols, bytes);
    struct weight *r = make(ref, type, rows, cols, bytes);
    for (int kind = 0; kind < 4; kind++) {
        const float *b = kind & 1 ? bias : NULL;
        bool add = kind & 2;
        memcpy(got, start, tokens * rows * sizeof *got);
        memcpy(want, start, tokens * rows * sizeof *got);
        struct linear mine = {got, w, b, add}, its = {want, r, b, add};
        op_linear(cpu, &(struct input){.x = x}, tokens, &mine, 1);
        op_linear(ref, &(struct input){.x = x}, tokens, &its, 1);
        for (size_t t = 0; t < tokens; t++)
            for (size_t i = 0; i < rows; i++) {
                size_t at = t * rows + i;
                double limit =
                    1e-5 * magnitude(type, bytes, i, cols, x + t * cols) + 1e-6;
                if (!(fabs((double)got[at] - want[at]) <= limit))
                    fail_msg("%s %s %zux%zu token %zu row %zu: %.9g not %.9g",
                             device_describe(cpu), dtype_name(type), rows, cols,
                             t, i, got[at], want[at]);
            }
    }
    weight_destroy(w);
    weight_destroy(r);
    mem_free(bytes), mem_free(x), mem_free(bias), mem_free(start);
    mem_free(got), mem_free(want);
}

static void products_are_close_to_ref(void **state)
{
    (void)state;
    static const struct {
        size_t rows, cols, tokens;
    } shapes[] = {{1, 1, 1},    {17, 7, 2},    {16, 32, 1},   {33, 96, 5},
                  {5, 160, 3},  {40, 301, 13}, {66, 544, 7},  {1, 256, 1},
                  {19, 256, 4}, {130, 512, 6}, {64, 1024, 25}};
    struct device *ref = open_ref();
    for (int i = 0; i < PRODUCT_ISAS; i++) {
        struct device *cpu = open_cpu(i, 2);
        if (!cpu) continue;
        uint64_t seed = 1;
        for (enum dtype type = 0; type < DTYPE_COUNT; type++)
            for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
                if (dtype_row_bytes(type, shapes[s].cols) &&
                    !left_out(s + type))
                    compare(cpu, ref, type, shapes[s].rows, shapes[s].cols,
                            shapes[s].tokens, &seed);
        device_close(cpu);
    }
    device_close(ref);
}

/* All rows in one call are the standard; others must give the same bits. */
static void same_bits(struct device *cpu, struct device *other, enum dtype type,
                      size_t rows, size_t cols, size_t tokens, uint64_t *seed)
{
    void *bytes = random_matrix(type, rows, cols, seed);
    float *x = random_floats(tokens * cols, seed);
    float *want = floats(tokens * rows), *got = floats(tokens * rows);
    struct weight *w = make(cpu, type, rows, cols, bytes);
    struct linear all = {want, w, NULL, false};
    op_linear(cpu, &(struct input){.x = x}, tokens, &all, 1);
    for (int split = 0; split < 4; split++) { /* by one, then at random */
        memset(got, 0, tokens * rows * sizeof *got);
        for (size_t t = 0, n; t < tokens; t += n) {
            n = split ? 1 + rng_next(seed) % 20 : 1;
            if (n > tokens - t) n = tokens - t;
            struct linear part = {got + t * rows, w, NULL, false};
            op_linear(cpu, &(struct input){.x = x + t * cols}, n, &part, 1);
        }
        if (memcmp(got, want, tokens * rows * sizeof *got) != 0)
            fail_msg("%s %s %zux%zu: bits depend on the batch",
                     device_describe(cpu), dtype_name(type), rows, cols);
    }
    struct weight *v = make(other, type, rows, cols, bytes);
    for (size_t n = 1; n <= tokens; n += n < 33 ? 1 : 9) {
        struct linear part = {got, v, NULL, false};
        memset(got, 0x55, tokens * rows * sizeof *got);
        op_linear(other, &(struct input){.x = x}, n, &part, 1);
        for (size_t i = n * rows; i < tokens * rows; i++)
            if (memcmp(&got[i], "UUUU", 4) != 0)
                fail_msg("%s %s: %zu tokens write row %zu",
                         device_describe(cpu), dtype_name(type), n, i / rows);
        if (memcmp(got, want, n * rows * sizeof *got) != 0)
            fail_msg("%s %s %zux%zu: bits depend on the threads",
                     device_describe(cpu), dtype_name(type), rows, cols);
    }
    weight_destroy(w);
    weight_destroy(v);
    mem_free(bytes), mem_free(x), mem_free(want), mem_free(got);
}

static void rows_have_the_same_bits_in_any_batch(void **state)
{
    (void)state;
    for (int i = 0; i < PRODUCT_ISAS; i++) {
        struct device *cpu = open_cpu(i, 1);
        if (!cpu) continue;
        struct device *other = open_cpu(i, 3);
        uint64_t seed = 2;
        for (enum dtype type = 0; type < DTYPE_COUNT; type++) {
            same_bits(cpu, other, type, 21, 1280, 35, &seed);
            if (left_out(1)) continue;
            same_bits(cpu, other, type, 150, 768, 40, &seed);
            if (type <= DTYPE_BF16)
                same_bits(cpu, other, type, 37, 263, 23, &seed);
            else if (type <= DTYPE_Q4_1)
                same_bits(cpu, other, type, 37, 1312, 35, &seed);
        }
        same_bits(cpu, other, DTYPE_Q4_1, 20, 64, 1030, &seed);
        same_bits(cpu, other, DTYPE_BF16, 20, 18, 1030, &seed);
        same_bits(cpu, other, DTYPE_Q4_0, 250, 64, 395, &seed);
        same_bits(cpu, other, DTYPE_BF16, 250, 18, 395, &seed);
        device_close(cpu);
        device_close(other);
    }
}

static void a_list_shares_one_input(void **state)
{
    (void)state;
    enum { COLS = 256, TOKENS = 9 };
    static const enum dtype types[] = {DTYPE_Q8_0, DTYPE_F32, DTYPE_Q4_K,
                                       DTYPE_BF16, DTYPE_Q6_K};
    static const size_t rows[] = {48, 20, 130, 16, 7};
    struct device *cpu = open_device("cpu", NULL, 2);
    uint64_t seed = 3;
    float *x = random_floats(TOKENS * COLS, &seed);
    for (size_t tokens = 1; tokens <= TOKENS; tokens += 4) {
        struct linear list[5], one[5];
        void *bytes[5];
        for (int i = 0; i < 5; i++) {
            bytes[i] = random_matrix(types[i], rows[i], COLS, &seed);
            list[i] = (struct linear){
                floats(tokens * rows[i]),
                make(cpu, types[i], rows[i], COLS, bytes[i]), NULL, false};
            one[i] = list[i];
            one[i].out = floats(tokens * rows[i]);
            op_linear(cpu, &(struct input){.x = x}, tokens, &one[i], 1);
        }
        op_linear(cpu, &(struct input){.x = x}, tokens, list, 5);
        for (int i = 0; i < 5; i++) {
            assert_memory_equal(list[i].out, one[i].out,
                                tokens * rows[i] * sizeof(float));
            struct weight *w;
            memcpy(&w, &list[i].w, sizeof w);
            weight_destroy(w);
            mem_free(list[i].out), mem_free(one[i].out), mem_free(bytes[i]);
        }
    }
    mem_free(x);
    device_close(cpu);
}

/* What is no number in one row of x stays in that row. */
static void no_number_stays_in_its_row(void **state)
{
    (void)state;
    enum { ROWS_ = 33, COLS = 256, TOKENS = 13 };
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    uint64_t seed = 4;
    for (int i = 0; i < PRODUCT_ISAS; i++) {
        struct device *cpu = open_cpu(i, 2);
        if (!cpu) continue;
        for (enum dtype type = 0; type < DTYPE_COUNT; type++) {
            void *bytes = random_matrix(type, ROWS_, COLS, &seed);
            float *x = random_floats(TOKENS * COLS, &seed);
            float *clean = floats(TOKENS * ROWS_),
                  *out = floats(TOKENS * ROWS_);
            struct weight *w = make(cpu, type, ROWS_, COLS, bytes);
            struct linear l = {clean, w, NULL, false};
            op_linear(cpu, &(struct input){.x = x}, TOKENS, &l, 1);
            x[5 * COLS + 77] = bad[type % 3];
            l.out = out;
            op_linear(cpu, &(struct input){.x = x}, TOKENS, &l, 1);
            for (size_t t = 0; t < TOKENS; t++)
                for (size_t r = 0; r < ROWS_; r++) {
                    size_t at = t * ROWS_ + r;
                    if (t == 5)
                        assert_false(isfinite(out[at]));
                    else
                        assert_memory_equal(&out[at], &clean[at], 4);
                }
            op_linear(cpu, &(struct input){.x = x + 5 * COLS}, 1, &l, 1);
            for (size_t r = 0; r < ROWS_; r++)
                assert_false(isfinite(out[r]));
            weight_destroy(w);
            mem_free(bytes), mem_free(x), mem_free(clean), mem_free(out);
        }
        device_close(cpu);
    }
}

static void extreme_rows_keep_their_meaning(void **state)
{
    (void)state;
    enum { COLS = 160 };
    float weights[COLS], x[3 * COLS] = {0}, out[3], want[3], one;
    for (int c = 0; c < COLS; c++) {
        weights[c] = c % 2 ? 1.0f : -1.0f;
        x[COLS + c] = 1e-38f * (float)c; /* rounds to zeros */
        x[2 * COLS + c] = c < 32 ? 1e30f : 1e-3f * (float)c; /* two scales */
    }
    uint8_t bytes[34 * COLS / 32];
    dtype_encode(DTYPE_Q8_0, weights, bytes, COLS);
    struct device *ref = open_ref();
    struct weight *r = make(ref, DTYPE_Q8_0, 1, COLS, bytes);
    struct linear its = {want, r, NULL, false};
    op_linear(ref, &(struct input){.x = x}, 3, &its, 1);
    assert_true(want[0] == 0 && want[1] == 0 && isfinite(want[2]));
    for (int i = 0; i < PRODUCT_ISAS; i++) {
        struct device *cpu = open_cpu(i, 1);
        if (!cpu) continue;
        struct weight *w = make(cpu, DTYPE_Q8_0, 1, COLS, bytes);
        struct linear mine = {out, w, NULL, false};
        op_linear(cpu, &(struct input){.x = x}, 3, &mine, 1);
        check_close(out, want, 3, 1e20, 1e-5);
        assert_true(out[0] == 0 && out[1] == 0);
        for (size_t t = 0; t < 3; t++) {
            mine.out = &one;
            op_linear(cpu, &(struct input){.x = x + t * COLS}, 1, &mine, 1);
            assert_memory_equal(&one, &out[t], sizeof one);
        }
        weight_destroy(w);
        device_close(cpu);
    }
    weight_destroy(r);
    device_close(ref);
}

/* The contract's formula by hand, in integers: "ref" keeps it. */
static void ref_rounds_over_the_group(void **state)
{
    (void)state;
    enum { COLS = 256 };
    struct device *ref = open_ref();
    uint64_t seed = 6;
    for (enum dtype type = DTYPE_INT8; type < DTYPE_COUNT; type++) {
        size_t group = type == DTYPE_INT8 ? COLS : dtype_block_elems(type);
        float *x = random_floats(COLS, &seed), w[COLS], out;
        x[40] *= 9; /* one scale for all its neighbours */
        void *bytes = random_matrix(type, 1, COLS, &seed);
        dtype_decode(type, bytes, w, COLS);
        double want = 0;
        for (size_t g = 0; g < COLS; g += group) {
            double most = largest(x + g, group), sum = 0;
            for (size_t c = g; c < g + group; c++)
                sum += w[c] * nearbyint(x[c] * (127 / most));
            want += sum * most / 127;
        }
        struct weight *r = make(ref, type, 1, COLS, bytes);
        struct linear l = {&out, r, NULL, false};
        op_linear(ref, &(struct input){.x = x}, 1, &l, 1);
        assert_true(fabs(want - out) <=
                    1e-5 * magnitude(type, bytes, 0, COLS, x));
        weight_destroy(r);
        mem_free(x), mem_free(bytes);
    }
    device_close(ref);
}

static void wrong_matrices_and_devices_are_refused(void **state)
{
    (void)state;
    struct why why = {0};
    struct device *dev = NULL;
    static const char *const missing[] = {"cuda", "ascend", "tpu"};
    for (int i = 0; i < 3; i++) {
        struct device_options none = {missing[i], 0, NULL};
        assert_int_equal(device_open(&dev, &none, &why), ERR_UNSUPPORTED);
        assert_non_null(strstr(why.text, missing[i]));
        assert_null(dev);
    }
    struct device_options odd = {"cpu", 0, "avx1024"};
    assert_int_equal(device_open(&dev, &odd, &why), ERR_INVALID);
    struct device_options negative = {"cpu", -1, NULL};
    assert_int_equal(device_open(&dev, &negative, &why), ERR_INVALID);

    struct device_options best = {"auto", 0, NULL};
    size_t before = mem_live();
    assert_int_equal(device_open(&dev, &best, &why), 0);
    assert_true(device_threads(dev) >= 1);
    assert_non_null(strstr(device_describe(dev), "cpu"));
    struct weight *w = NULL;
    uint8_t bytes[64] = {0};
    assert_int_equal(weight_create(&w, dev, DTYPE_Q8_0, 1, 48, bytes, &why),
                     ERR_INVALID);
    assert_int_equal(weight_create(&w, dev, DTYPE_F32, 0, 4, bytes, &why),
                     ERR_INVALID);
    assert_int_equal(
        weight_create(&w, dev, DTYPE_F32, SIZE_MAX / 8, 4, bytes, &why),
        ERR_INVALID);
    mem_fail_at(1);
    assert_int_equal(weight_create(&w, dev, DTYPE_F32, 4, 4, bytes, &why),
                     ERR_NOMEM);
    mem_fail_at(0);
    void *p;
    assert_int_equal(device_alloc(dev, &p, SIZE_MAX - 8, &why), ERR_NOMEM);
    assert_int_equal(device_alloc(dev, &p, 100, &why), 0);
    device_write(dev, p, "baton", 6);
    char back[6];
    device_read(dev, back, p, 6);
    assert_string_equal(back, "baton");
    assert_int_equal(device_sync(dev, &why), 0);
    device_free(dev, p);
    for (size_t n = 1; n <= 4; n++) {
        mem_fail_at(n);
        assert_int_equal(device_reserve(dev, 8, 64, &why), ERR_NOMEM);
        mem_fail_at(0);
    }
    assert_int_equal(device_reserve(dev, 8, 64, &why), 0);
    device_close(dev);
    assert_int_equal(mem_live(), before);
    device_close(NULL);
}

TESTS(T(products_are_close_to_ref), T(rows_have_the_same_bits_in_any_batch),
      T(a_list_shares_one_input), T(no_number_stays_in_its_row),
      T(extreme_rows_keep_their_meaning), T(ref_rounds_over_the_group),
      T(wrong_matrices_and_devices_are_refused))
