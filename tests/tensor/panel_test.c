/* Packing by every instruction set gives the bytes of packing in plain C, and
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
        op_linear(dev, x, TOKENS, &a, 1);
        weight_destroy(made);
        op_linear(dev, x, TOKENS, &b, 1);
        assert_memory_equal(got, want, sizeof got);
        weight_destroy(mapped);
        mem_free(packed);
    }
    mem_free(x);
    device_close(dev);
}

TESTS(T(packing_is_the_same_everywhere), T(mapped_weights_are_weights))
