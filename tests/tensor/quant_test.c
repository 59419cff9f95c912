/* The element types against gguf's own arithmetic (tools/golden/
 * quant_vectors.py) and against the rules of IEEE 754. */
#include "tests/test.h"

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
    assert_string_equal(dtype_name(DTYPE_Q4_K), "q4_k");
}

static void what_is_no_number_encodes_to_something(void **state)
{
    (void)state;
    float x[32] = {NAN, INFINITY, -INFINITY, 1e38f, -1e38f};
    uint8_t bytes[34];
    for (enum dtype type = DTYPE_Q8_0; type <= DTYPE_Q4_1; type++)
        dtype_encode(type, x, bytes, 32);
    float zeros[32] = {0}, back[32];
    for (enum dtype type = DTYPE_Q8_0; type <= DTYPE_Q4_1; type++) {
        dtype_encode(type, zeros, bytes, 32);
        dtype_decode(type, bytes, back, 32);
        for (int i = 0; i < 32; i++)
            assert_true(back[i] == 0);
    }
}

TESTS(T(blocks_decode_and_encode_as_gguf_does),
      T(every_half_survives_the_round_trip), T(halves_round_to_nearest_even),
      T(only_whole_blocks_are_rows), T(what_is_no_number_encodes_to_something))
