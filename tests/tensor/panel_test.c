/* Packing and rounding by every instruction set give the bytes of plain C, and
 * those mean what the rows meant. */
#include "tests/tensor/ops_help.h"

#include "tensor/cpu/cpu.h"

static void check_rows(enum dtype type, const struct weight *w, size_t first,
                       const void *panel)
{
    float *got = floats(w->cols), *want = floats(w->cols);
    size_t bytes = dtype_row_bytes(type, w->cols);
    for (size_t r = first; r < w->rows && r < first + ROWS; r++) {
        panel_decode(type, w->cols, panel, (int)(r - first), got);
        dtype_decode(type, (const char *)w->bytes + r * bytes, want, w->cols);
        assert_memory_equal(got, want, w->cols * sizeof *got);
    }
    mem_free(got), mem_free(want);
}

static void compare(enum dtype type, size_t rows, size_t cols, uint64_t *seed)
{
    size_t bytes = panel_bytes(type, cols);
    char *plain = mem_must(bytes, 1), *fast = mem_must(bytes, 1);
    const struct weight w = {NULL, type, rows, cols,
                             random_matrix(type, rows, cols, seed)};
    for (size_t first = 0; first < rows; first += ROWS) {
        memset(plain, 0, bytes);
        panel_pack(NULL, &w, first, plain);
        check_rows(type, &w, first, plain);
        for (int i = 0; i < ISAS; i++) {
            const struct kernels *k = kernels_choose(isas[i].isa);
            memset(fast, 0, bytes);
            panel_pack(k, &w, first, fast);
            if (memcmp(fast, plain, bytes) != 0)
                fail_msg("%s %s %zu x %zu", k->name, dtype_name(type), rows,
                         cols);
        }
    }
    mem_free(plain), mem_free(fast), mem_free((void *)(uintptr_t)w.bytes);
}

static void packing_is_the_same_everywhere(void **state)
{
    (void)state;
    static const size_t cols[] = {1, 7, 16, 32, 33, 64, 96, 128, 256, 301, 512};
    uint64_t seed = 1;
    for (enum dtype type = 0; type < DTYPE_COUNT; type++)
        for (size_t c = 0; c < sizeof cols / sizeof *cols; c++)
            if (dtype_row_bytes(type, cols[c]))
                for (size_t rows = 13; rows < 36; rows += 11)
                    compare(type, rows, cols[c], &seed);
}

/* A weight of another's bytes is that weight. */
static void mapped_weights_are_weights(void **state)
{
    (void)state;
    enum { ROWS_ = 40, COLS = 256, TOKENS = 3 };
    uint64_t seed = 2;
    struct device *dev = open_device("cpu", NULL, 2);
    float *x = random_floats(TOKENS * COLS, &seed);
    assert_non_null(device_layout(dev));
    for (enum dtype type = 0; type < DTYPE_COUNT; type++) {
        struct weight *made, *mapped;
        float got[TOKENS * ROWS_], want[TOKENS * ROWS_];
        void *bytes = random_matrix(type, ROWS_, COLS, &seed);
        assert_int_equal(
            weight_create(&made, dev, type, ROWS_, COLS, bytes, NULL), 0);
        mem_free(bytes);
        size_t n = weight_packed_bytes(dev, type, ROWS_, COLS);
        void *packed = mem_try(n, 1, 64);
        memcpy(packed, weight_packed(made), n);
        assert_int_equal(
            weight_map(&mapped, dev, type, ROWS_, COLS, packed, NULL), 0);
        const struct linear a = {want, made, NULL, false};
        const struct linear b = {got, mapped, NULL, false};
        op_linear(dev, &(struct input){.x = x}, TOKENS, &a, 1);
        weight_destroy(made);
        op_linear(dev, &(struct input){.x = x}, TOKENS, &b, 1);
        assert_memory_equal(got, want, sizeof got);
        weight_destroy(mapped);
        mem_free(packed);
    }
    mem_free(x);
    device_close(dev);
}

/* Values of which some are no numbers, too large or too small, or lie halfway
 * between integers once they are scaled. */
static void awkward_floats(float *x, size_t n, int kind, uint64_t *seed)
{
    static const float odd[] = {NAN,      INFINITY, -INFINITY, 3e38f,
                                -0.0f,    1e-40f,   -1e-38f,   0,
                                0x1p-24f, 65520,    -1e-6f,    127};
    for (size_t i = 0; i < n; i++) {
        x[i] = random_float(seed) * (kind == 4 ? 1e-37f : 0.02f);
        if (kind == 1 && rng_next(seed) % 16 == 0) /* not all of a group */
            x[i] = odd[rng_next(seed) % (sizeof odd / sizeof *odd)];
        if (kind == 2) /* d is 1, halves are ties */
            x[i] = i % 32 ? (float)(int)(rng_next(seed) % 507 - 253) / 2 : 127;
        if (kind == 3) x[i] = i % 64 < 32 ? 0 : -fabsf(x[i]);
        if (kind == 5) x[i] = i % 32 ? (float)(rng_next(seed) % 61) / 4 : 15;
    }
}

enum { AWKWARD = 6 };

static void round_as(enum dtype from, enum dtype to, size_t n, int kind,
                     uint64_t *seed)
{
    size_t bytes = dtype_row_bytes(to, n);
    float *x = floats(n), *values = floats(n);
    char *in = mem_must(dtype_row_bytes(from, n) + 1, 1);
    char *want = mem_must(bytes, 1), *got = mem_must(bytes, 1);
    awkward_floats(x, n, kind, seed);
    dtype_encode(from, x, in + 1, n); /* files align nothing */
    dtype_decode(from, in + 1, values, n);
    dtype_encode(to, values, want, n);
    for (int i = 0; i < ISAS; i++) {
        const struct kernels *k = kernels_choose(isas[i].isa);
        memset(got, 0, bytes);
        k->round(from, to, in + 1, got, n);
        if (memcmp(got, want, bytes) != 0)
            fail_msg("%s: %zu %s to %s, kind %d", k->name, n, dtype_name(from),
                     dtype_name(to), kind);
    }
    mem_free(x), mem_free(values), mem_free(in);
    mem_free(want), mem_free(got);
}

static void rounding_is_the_same_everywhere(void **state)
{
    (void)state;
    static const size_t cols[] = {32, 64, 96, 128, 640, 1024};
    uint64_t seed = 3;
    for (enum dtype to = 0; to < DTYPE_COUNT; to++)
        for (enum dtype from = 0; from < DTYPE_COUNT; from++)
            for (size_t c = 0; c < sizeof cols / sizeof *cols; c++)
                for (int kind = 0; kind < AWKWARD; kind++)
                    if (dtype_rounds(from, to) && dtype_row_bytes(to, cols[c]))
                        round_as(from, to, cols[c], kind, &seed);
    assert_false(dtype_rounds(DTYPE_BF16, DTYPE_Q4_0));
    assert_false(dtype_rounds(DTYPE_Q8_0, DTYPE_INT8));
}

enum { FROM_ROWS = 37, FROM_COLS = 256 };

struct upside_down {
    const char *bytes;
    size_t row_bytes;
};

/* The last row first; every other one lies where it lies. */
static const void *row_from_below(void *arg, size_t r, void *room)
{
    const struct upside_down *u = arg;
    const char *at = u->bytes + (FROM_ROWS - 1 - r) * u->row_bytes;
    return r % 2 ? memcpy(room, at, u->row_bytes) : at;
}

/* What a device makes of rows that come one by one, of type from, is what it
 * makes of a matrix of them in its own type. */
static void check_from(struct device *dev, enum dtype from, enum dtype to,
                       uint64_t *seed)
{
    char *bytes = random_matrix(from, FROM_ROWS, FROM_COLS, seed);
    const size_t in = dtype_row_bytes(from, FROM_COLS);
    const size_t row = dtype_row_bytes(to, FROM_COLS);
    struct upside_down u = {bytes, in};
    char *plain = mem_must(FROM_ROWS, row);
    float values[FROM_COLS];
    for (size_t r = 0; r < FROM_ROWS; r++) {
        const char *at = bytes + (FROM_ROWS - 1 - r) * in;
        if (from == to) {
            memcpy(plain + r * row, at, row);
            continue;
        }
        dtype_decode(from, at, values, FROM_COLS);
        dtype_encode(to, values, plain + r * row, FROM_COLS);
    }
    struct weight *w[2];
    const struct weight_rows rows = {
        .type = from, .row = row_from_below, .arg = &u};
    assert_int_equal(
        weight_create(&w[0], dev, to, FROM_ROWS, FROM_COLS, plain, NULL), 0);
    assert_int_equal(
        weight_create_from(&w[1], dev, to, FROM_ROWS, FROM_COLS, &rows, NULL),
        0);
    int32_t ids[FROM_ROWS];
    float *a = floats(FROM_ROWS * FROM_COLS),
          *b = floats(FROM_ROWS * FROM_COLS);
    for (int i = 0; i < FROM_ROWS; i++)
        ids[i] = i;
    op_embed(dev, a, w[0], ids, FROM_ROWS);
    op_embed(dev, b, w[1], ids, FROM_ROWS);
    assert_memory_equal(a, b, FROM_ROWS * FROM_COLS * sizeof *a);
    weight_destroy(w[0]), weight_destroy(w[1]);
    mem_free(a), mem_free(b), mem_free(plain), mem_free(bytes);
}

static void rows_may_come_one_by_one(void **state)
{
    (void)state;
    uint64_t seed = 4;
    struct device *both[] = {open_device("cpu", NULL, 2), open_ref()};
    for (int i = 0; i < 2; i++) {
        for (enum dtype to = 0; to < DTYPE_COUNT; to++)
            for (enum dtype from = 0; from < DTYPE_COUNT; from++)
                if (from == to || dtype_rounds(from, to))
                    check_from(both[i], from, to, &seed);
        device_close(both[i]);
    }
}

/* Wider than the scratch memory of a worker so far; and no memory for it. */
static void wide_rows_get_their_room(void **state)
{
    (void)state;
    enum { COLS = 2048 * 128 };
    struct device *dev = open_device("cpu", NULL, 2);
    uint64_t seed = 5;
    struct weight *w;
    struct why why = {0};
    char *bytes = random_matrix(DTYPE_BF16, 1, COLS, &seed);
    struct upside_down u = {bytes, 0};
    const struct weight_rows rows = {
        .type = DTYPE_BF16, .row = row_from_below, .arg = &u};
    mem_fail_at(1);
    assert_int_equal(weight_create_from(&w, dev, DTYPE_INT8_G128, FROM_ROWS,
                                        COLS, &rows, &why),
                     ERR_NOMEM);
    mem_fail_at(0);
    assert_int_equal(weight_create_from(&w, dev, DTYPE_INT8_G128, FROM_ROWS,
                                        COLS, &rows, &why),
                     0);
    float *x = floats(COLS), *y = floats(COLS), *values = floats(COLS);
    char *row = mem_must(dtype_row_bytes(DTYPE_INT8_G128, COLS), 1);
    dtype_decode(DTYPE_BF16, bytes, values, COLS);
    dtype_encode(DTYPE_INT8_G128, values, row, COLS);
    dtype_decode(DTYPE_INT8_G128, row, y, COLS);
    op_embed(dev, x, w, &(int32_t){FROM_ROWS - 1}, 1);
    assert_memory_equal(x, y, COLS * sizeof *x);
    weight_destroy(w);
    device_close(dev);
    mem_free(x), mem_free(y), mem_free(values), mem_free(row), mem_free(bytes);
}

/* Where there is no memory for a large block, a small one will do. */
static void blocks_may_be_small(void **state)
{
    (void)state;
    enum { ROWS_MADE = 64, COLS = 1024 };
    struct device *dev = open_device("cpu", NULL, 1);
    uint64_t seed = 6;
    struct weight *w;
    struct why why = {0};
    char *bytes = random_matrix(DTYPE_F32, ROWS_MADE, COLS, &seed);
    mem_fail_at(1);
    assert_int_equal(
        weight_create(&w, dev, DTYPE_F32, ROWS_MADE, COLS, bytes, &why), 0);
    mem_fail_at(0);
    float *x = floats(COLS);
    op_embed(dev, x, w, &(int32_t){ROWS_MADE - 1}, 1);
    assert_memory_equal(x, bytes + (ROWS_MADE - 1) * COLS * sizeof *x,
                        COLS * sizeof *x);
    weight_destroy(w);
    device_close(dev);
    mem_free(x), mem_free(bytes);
}

TESTS(T(packing_is_the_same_everywhere), T(rounding_is_the_same_everywhere),
      T(rows_may_come_one_by_one), T(wide_rows_get_their_room),
      T(blocks_may_be_small), T(mapped_weights_are_weights))
