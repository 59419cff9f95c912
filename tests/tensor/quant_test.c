/* The element types against gguf's own arithmetic (tools/golden/
 * quant_vectors.py) and against the rules of IEEE 754. */
#include "tests/test.h"

#include "base/clock.h"
#include "tensor/tensor.h"

#include <math.h>

static uint8_t file[8192];

static size_t golden_read(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "tests/golden/tensor/%s.bin", name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(file, 1, sizeof file, f);
    fclose(f);
    return n;
}

static void blocks_decode_and_encode_as_gguf_does(void **state)
{
    (void)state;
    for (enum dtype type = DTYPE_Q8_0; type <= DTYPE_Q6_K; type++) {
        size_t n = golden_read(dtype_name(type)), at = 4;
        uint32_t blocks, count;
        memcpy(&blocks, file, 4);
        size_t elems = blocks * dtype_block_elems(type);
        size_t bytes = dtype_row_bytes(type, elems);
        assert_true(blocks > 0 && bytes == blocks * dtype_block_bytes(type));
        float values[1024];
        dtype_decode(type, file + at, values, elems);
        assert_memory_equal(values, file + at + bytes, elems * 4);
        at += bytes + elems * 4;
        if (type > DTYPE_Q4_1) {
            assert_int_equal(at, n);
            continue;
        }
        memcpy(&count, file + at, 4);
        at += 4;
        memcpy(values, file + at, count * 4);
        at += count * 4;
        uint8_t encoded[1024];
        dtype_encode(type, values, encoded, count);
        assert_memory_equal(encoded, file + at, n - at);
        assert_int_equal(n - at, dtype_row_bytes(type, count));
    }
}

static uint32_t bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}

static void every_half_survives_the_round_trip(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = f16_to_f32((uint16_t)h), b = bf16_to_f32((uint16_t)h);
        if (isnan(f)) {
            assert_true(isnan(f16_to_f32(f32_to_f16(f))));
            assert_true((h & 0x7c00) == 0x7c00 && (h & 0x3ff));
        } else {
            assert_int_equal(f32_to_f16(f), h);
        }
        if (isnan(b))
            assert_true(isnan(bf16_to_f32(f32_to_bf16(b))));
        else
            assert_int_equal(f32_to_bf16(b), h);
    }
    assert_true(f16_to_f32(0x3c00) == 1 && f16_to_f32(0xc000) == -2);
    assert_true(f16_to_f32(0x0001) == 0x1p-24f && f16_to_f32(0x7bff) == 65504);
}

static void halves_round_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7bff; h++) { /* between neighbours */
        float low = f16_to_f32((uint16_t)h),
              high = f16_to_f32((uint16_t)(h + 1));
        float middle = low + (high - low) / 2;
        assert_int_equal(f32_to_f16(middle), h % 2 ? h + 1 : h);
        assert_int_equal(f32_to_f16(nextafterf(middle, 0)), h);
        assert_int_equal(f32_to_f16(-nextafterf(middle, INFINITY)),
                         0x8000 | (h + 1));
    }
    assert_int_equal(f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(f32_to_f16(65520), 0x7c00);
    assert_int_equal(f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(f32_to_f16(0x1p-25f), 0);
    assert_int_equal(f32_to_f16(nextafterf(0x1p-25f, 1)), 1);
    assert_int_equal(f32_to_f16(0x1p-149f), 0);
    assert_int_equal(f32_to_bf16(1.00390625f), 0x3f80); /* a tie, to even */
    assert_int_equal(f32_to_bf16(1.01171875f), 0x3f82);
    assert_int_equal(f32_to_bf16(3.4e38f), 0x7f80);
    assert_int_equal(bits_of(bf16_to_f32(f32_to_bf16(-0.0f))), 0x80000000);
}

static void only_whole_blocks_are_rows(void **state)
{
    (void)state;
    assert_int_equal(dtype_row_bytes(DTYPE_F32, 7), 28);
    assert_int_equal(dtype_row_bytes(DTYPE_Q8_0, 96), 102);
    assert_int_equal(dtype_row_bytes(DTYPE_Q8_0, 48), 0);
    assert_int_equal(dtype_row_bytes(DTYPE_Q6_K, 32), 0);
    assert_int_equal(dtype_row_bytes(DTYPE_F32, SIZE_MAX / 2), 0);
    assert_int_equal(dtype_row_bytes(DTYPE_INT8, 96), 100);
    assert_int_equal(dtype_row_bytes(DTYPE_INT8, 2 * DTYPE_INT8_COLS_MAX), 0);
    assert_int_equal(dtype_row_bytes(DTYPE_INT4_G64, 128), 70);
    assert_int_equal(dtype_row_bytes(DTYPE_INT4_G128, 64), 0);
    assert_string_equal(dtype_name(DTYPE_Q4_K), "q4_k");
}

static void what_is_no_number_encodes_to_something(void **state)
{
    (void)state;
    float x[128] = {NAN, INFINITY, -INFINITY, 1e38f, -1e38f};
    uint8_t bytes[160];
    float zeros[128] = {0}, back[128];
    for (enum dtype type = DTYPE_Q8_0; type < DTYPE_COUNT; type++) {
        if (type >= DTYPE_Q4_K && type <= DTYPE_Q6_K) continue;
        dtype_encode(type, x, bytes, 128);
        dtype_encode(type, zeros, bytes, 128);
        dtype_decode(type, bytes, back, 128);
        for (int i = 0; i < 128; i++)
            assert_true(back[i] == 0);
    }
}

/* Written by hand, byte by byte, from what tensor.h says. */
static void own_formats_mean_what_the_header_says(void **state)
{
    (void)state;
    uint8_t row[160] = {0};
    float values[128], d = 0.3f;
    memcpy(row, &d, 4);
    for (int i = 0; i < 64; i++)
        row[4 + i] = (uint8_t)(i - 128 + (i > 31 ? 160 : 0));
    dtype_decode(DTYPE_INT8, row, values, 64);
    assert_int_equal(dtype_row_bytes(DTYPE_INT8, 64), 68);
    for (int i = 0; i < 64; i++)
        assert_true(values[i] ==
                    d * (float)(int8_t)(i - 128 + (i > 31 ? 160 : 0)));

    static const enum dtype int4[] = {DTYPE_INT4_G32, DTYPE_INT4_G64,
                                      DTYPE_INT4_G128};
    for (size_t k = 0; k < 3; k++) {
        size_t n = dtype_block_elems(int4[k]);
        uint16_t half = f32_to_f16(-0.25f);
        memcpy(row, &half, 2);
        row[2] = 16;
        for (size_t i = 0; i < n / 2; i++)
            row[3 + i] = (uint8_t)(i % 16 | (15 - i % 16) << 4);
        dtype_decode(int4[k], row, values, n);
        for (size_t i = 0; i < n; i++) {
            int q = (int)(i % 32 < 16 ? i % 16 : 15 - i % 16);
            assert_true(values[i] == -0.25f * (float)(q - 16));
        }
    }
}

static void own_formats_encode_within_half_a_step(void **state)
{
    (void)state;
    uint64_t seed = 5;
    float x[256], back[256];
    uint8_t row[512];
    for (enum dtype type = DTYPE_INT8; type < DTYPE_COUNT; type++) {
        size_t group = type == DTYPE_INT8 ? 256 : dtype_block_elems(type);
        int levels = type <= DTYPE_INT8_G128 ? 254 : 15;
        for (int round = 0; round < 50; round++) {
            for (int i = 0; i < 256; i++)
                x[i] = (float)(rng_unit(&seed) - round * 0.02) * 0.1f;
            dtype_encode(type, x, row, 256);
            dtype_decode(type, row, back, 256);
            for (size_t g = 0; g < 256; g += group) {
                float least = 0, most = 0;
                for (size_t i = g; i < g + group; i++) {
                    least = fminf(least, x[i]);
                    most = fmaxf(most, x[i]);
                }
                if (levels == 254) {
                    most = fmaxf(most, -least);
                    least = -most;
                }
                /* z is rounded too, and so is d, to 11 bits. */
                float step = (most - least) / (float)levels;
                float limit = step * (levels == 15 ? 1.0f : 0.57f);
                for (size_t i = g; i < g + group; i++)
                    if (!(fabsf(x[i] - back[i]) <= limit))
                        fail_msg("%s: %g became %g, step %g", dtype_name(type),
                                 (double)x[i], (double)back[i], (double)step);
            }
        }
    }
}

TESTS(T(blocks_decode_and_encode_as_gguf_does),
      T(every_half_survives_the_round_trip), T(halves_round_to_nearest_even),
      T(only_whole_blocks_are_rows), T(what_is_no_number_encodes_to_something),
      T(own_formats_mean_what_the_header_says),
      T(own_formats_encode_within_half_a_step))
