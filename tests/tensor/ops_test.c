/* The operations but op_attention, and of op_linear what it reads: close to
 * "ref", the same bits in any batch, and "ref" itself against values worked
 * out by hand. How heads are turned is seen in a cache of floats. */
#include "tests/tensor/ops_help.h"

#include "tensor/trace.h"

/* The rows that products read, by a product that leaves them as they are: they
 * are finite, or alone. */
static void rows_made(struct device *dev, float *out, const struct input *x,
                      size_t tokens, size_t cols)
{
    float *one = floats(cols * cols);
    for (size_t i = 0; i < cols; i++)
        one[i * cols + i] = 1;
    struct weight *w;
    assert_int_equal(weight_create(&w, dev, DTYPE_F32, cols, cols, one, NULL),
                     0);
    struct linear l = {out, w, NULL, false};
    op_linear(dev, x, tokens, &l, 1);
    weight_destroy(w);
    mem_free(one);
}

/* Heads [tokens, heads, d] turned. */
static void heads_made(struct device *dev, float *out, const float *x,
                       const struct turn *turn, uint32_t tokens, size_t heads,
                       size_t d)
{
    float *v = floats(tokens * heads * d);
    uint32_t pages[128];
    assert_true(tokens <= 128);
    for (uint32_t t = 0; t < tokens; t++)
        pages[t] = t;
    const struct op_kv kv = {out,        v, DTYPE_F32, 1, (uint32_t)heads,
                             (uint32_t)d};
    const struct op_seq seq = {0, tokens, tokens, pages};
    op_kv_write(dev, &kv, &seq, 1, x, v, turn);
    mem_free(v);
}

static void ref_means_what_the_contract_says(void **state)
{
    (void)state;
    struct device *ref = open_ref();
    float x[4] = {3, 4, 0, 0}, gain[4] = {1, 2, 1, 1}, out[4];
    op_rmsnorm(ref, out, x, gain, 2, 2, 0);
    float root = (float)sqrt(12.5);
    check_close(out, (float[]){3 / root, 8 / root}, 2, 1e-6, 0);
    assert_true(isnan(out[2])); /* 0 / 0 without eps */

    float heads[4] = {1, 2, 3, 4}, turned[4], freqs[1] = {0.5f};
    struct rope rope = {freqs, 2, 1};
    struct turn turn = {NULL, 0, &rope, (uint32_t[]){2}};
    heads_made(ref, turned, heads, &turn, 1, 1, 4);
    check_close(turned,
                (float[]){(float)(cos(1) - 2 * sin(1)),
                          (float)(2 * cos(1) + sin(1)), 3, 4},
                4, 1e-6, 0);

    float g[2] = {0, 2}, up[2] = {5, 3};
    rows_made(ref, out, &(struct input){.x = g, .up = up}, 1, 2);
    check_close(out, (float[]){0, (float)(6 / (1 + exp(-2)))}, 2, 1e-6, 0);

    /* One head of dimension 2, three tokens, a page each, in odd order. */
    float k[8] = {0, 0, 2, 0, 0, 0, 1, 0}, v[8] = {0, 0, 6, 1, 0, 0, 9, 4};
    struct op_kv kv = {k, v, DTYPE_F32, 1, 1, 2};
    uint32_t pages[] = {3, 1, 2};
    struct op_seq seq = {0, 1, 3, pages};
    float new_k[2] = {3, 7}, new_v[2] = {2, 2}, q[2] = {1, 0};
    op_kv_write(ref, &kv, &seq, 1, new_k, new_v, NULL);
    assert_true(k[4] == 3 && k[5] == 7 && v[4] == 2);
    const struct query query = {.q = q, .heads = 1, .scale = 1};
    op_attention(ref, out, &query, &kv, &seq, 1);
    double e1 = exp(1), e2 = exp(2), e3 = exp(3), all = e1 + e2 + e3;
    check_close(out,
                (float[]){(float)((9 * e1 + 6 * e2 + 2 * e3) / all),
                          (float)((4 * e1 + 1 * e2 + 2 * e3) / all)},
                2, 1e-6, 0);
    device_close(ref);
}

typedef void on_cpu(struct device *cpu, struct device *ref);

static void on_each_isa(on_cpu *test)
{
    struct device *ref = open_ref();
    for (int i = 0; i < ISAS; i++) {
        struct device *cpu = open_cpu(i, 2);
        if (!cpu) continue;
        test(cpu, ref);
        device_close(cpu);
    }
    device_close(ref);
}

static void norms(struct device *cpu, struct device *ref)
{
    static const size_t cols[] = {1, 5, 16, 64, 80, 576, 1024, 1027};
    uint64_t seed = 11;
    for (size_t i = 0; i < sizeof cols / sizeof *cols; i++) {
        size_t rows = 67, n = rows * cols[i];
        float *x = random_floats(n, &seed),
              *gain = random_floats(cols[i], &seed);
        float *got = floats(n), *want = floats(n);
        op_rmsnorm(cpu, got, x, gain, rows, cols[i], 1e-6f);
        op_rmsnorm(ref, want, x, gain, rows, cols[i], 1e-6f);
        check_close(got, want, n, 2e-6 * largest(want, n), 2e-6);
        for (size_t r = 0; r < rows; r++) /* by one, in place */
            op_rmsnorm(cpu, x + r * cols[i], x + r * cols[i], gain, 1, cols[i],
                       1e-6f);
        assert_memory_equal(x, got, n * sizeof *x);
        mem_free(x), mem_free(gain), mem_free(got), mem_free(want);
    }
}

static void silus(struct device *cpu, struct device *ref)
{
    uint64_t seed = 12;
    enum { TOKENS = 60, COLS = 131, N = TOKENS * COLS };
    float *g = random_floats(N, &seed), *up = random_floats(N, &seed);
    float *got = floats(N), *want = floats(N);
    for (int i = 0; i < 4000; i++)
        g[i] = (float)(i - 2000) * 0.06f;
    struct input x = {.x = g, .up = up};
    rows_made(cpu, got, &x, TOKENS, COLS);
    rows_made(ref, want, &x, TOKENS, COLS);
    check_close(got, want, N, 1e-36, 2e-6);
    for (size_t t = 0, n; t < TOKENS; t += n) { /* other cuts */
        n = 1 + rng_next(&seed) % 14;
        if (n > TOKENS - t) n = TOKENS - t;
        struct input part = {.x = g + t * COLS, .up = up + t * COLS};
        rows_made(cpu, want + t * COLS, &part, n, COLS);
    }
    assert_memory_equal(want, got, N * sizeof *got);

    float odd[5] = {NAN, INFINITY, -INFINITY, 1e38f, -1e38f}, ones[5], out[5];
    for (int i = 0; i < 5; i++)
        ones[i] = 1;
    rows_made(cpu, out, &(struct input){.x = odd, .up = ones}, 5, 1);
    assert_true(isnan(out[0]) && out[1] == INFINITY && out[3] == 1e38f);
    assert_true(out[4] == 0);
    mem_free(g), mem_free(up), mem_free(got), mem_free(want);
}

/* Rows that are made on the way are those made before, to the bit. */
static void made_alike(struct device *cpu, enum dtype type, size_t tokens)
{
    enum { ROWS_ = 40, COLS = 512, MOST = 270 };
    static float norm[MOST * COLS], silu[MOST * COLS];
    float out[2][MOST * ROWS_];
    uint64_t seed = 17 + type;
    float *x = random_floats(tokens * COLS, &seed);
    float *up = random_floats(tokens * COLS, &seed);
    float *gain = random_floats(COLS, &seed);
    void *bytes = random_matrix(type, ROWS_, COLS, &seed);
    struct weight *w;
    assert_int_equal(weight_create(&w, cpu, type, ROWS_, COLS, bytes, NULL), 0);
    struct linear l[2] = {{out[0], w, NULL, false}, {out[1], w, NULL, false}};
    const struct input made[] = {{.x = x, .gain = gain, .eps = 1e-5f},
                                 {.x = x, .up = up}},
                       before[] = {{.x = norm}, {.x = silu}};
    op_rmsnorm(cpu, norm, x, gain, tokens, COLS, 1e-5f);
    rows_made(cpu, silu, &made[1], tokens, COLS);
    for (int i = 0; i < 2; i++) {
        op_linear(cpu, &made[i], tokens, &l[0], 1);
        op_linear(cpu, &before[i], tokens, &l[1], 1);
        assert_memory_equal(out[0], out[1], tokens * ROWS_ * sizeof(float));
    }
    weight_destroy(w);
    mem_free(x), mem_free(up), mem_free(gain), mem_free(bytes);
}

static void inputs(struct device *cpu, struct device *ref)
{
    static const enum dtype types[] = {DTYPE_F32,  DTYPE_F16,  DTYPE_BF16,
                                       DTYPE_Q8_0, DTYPE_Q6_K, DTYPE_INT8};
    static const size_t tokens[] = {1, 3, 9, 47, 270};
    (void)ref;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        for (size_t n = 0; n < sizeof tokens / sizeof *tokens; n++)
            if (!left_out(i + n)) made_alike(cpu, types[i], tokens[n]);
}

/* Heads of some shape, once with a gain and once without. */
static void heads_turned(struct device *cpu, struct device *ref, size_t heads,
                         size_t d, size_t rotary, const float *gain)
{
    enum { TOKENS = 70 };
    uint64_t seed = 13 + d;
    uint32_t positions[TOKENS];
    float freqs[64];
    for (size_t f = 0; f < rotary / 2; f++)
        freqs[f] = (float)pow(1e4, -2.0 * (double)f / (double)rotary);
    for (int t = 0; t < TOKENS; t++)
        positions[t] = (uint32_t)(rng_next(&seed) % 40000);
    const struct rope rope = {freqs, rotary, 1.25f};
    const struct turn turn = {gain, 1e-6f, &rope, positions};
    size_t row = heads * d, n = TOKENS * row;
    float *x = random_floats(n, &seed), *got = floats(n), *want = floats(n);
    heads_made(ref, want, x, &turn, TOKENS, heads, d);
    for (int twice = 0; twice < 2; twice++) { /* the second: known sines */
        heads_made(cpu, got, x, &turn, TOKENS, heads, d);
        check_close(got, want, n, 4e-6 * largest(want, n), 2e-6);
    }
    for (size_t t = 0; t < TOKENS; t++) {
        struct turn one = turn;
        one.positions += t;
        if (gain) /* in two steps: the same */
            op_rmsnorm(cpu, x + t * row, x + t * row, gain, heads, d, 1e-6f);
        one.gain = NULL;
        heads_made(cpu, want + t * row, x + t * row, &one, 1, heads, d);
    }
    assert_memory_equal(want, got, n * sizeof *x);
    mem_free(x), mem_free(got), mem_free(want);
}

static void ropes(struct device *cpu, struct device *ref)
{
    static const struct {
        size_t heads, d, rotary;
    } shapes[] = {{3, 64, 64}, {1, 128, 128}, {9, 80, 80},
                  {2, 96, 32}, {4, 64, 2},    {3, 64, 0}};
    uint64_t seed = 18;
    float *gain = random_floats(128, &seed);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        heads_turned(cpu, ref, shapes[i].heads, shapes[i].d, shapes[i].rotary,
                     NULL);
        heads_turned(cpu, ref, shapes[i].heads, shapes[i].d, shapes[i].rotary,
                     gain);
    }
    mem_free(gain);
}

static void rows_copied(struct device *cpu, struct device *ref)
{
    uint64_t seed = 14;
    struct why why = {0};
    for (enum dtype type = 0; type < DTYPE_COUNT; type++) {
        enum { VOCAB = 50, COLS = 512, TOKENS = 90 };
        void *bytes = random_matrix(type, VOCAB, COLS, &seed);
        struct weight *w, *r;
        assert_int_equal(weight_create(&w, cpu, type, VOCAB, COLS, bytes, &why),
                         0);
        assert_int_equal(weight_create(&r, ref, type, VOCAB, COLS, bytes, &why),
                         0);
        assert_int_equal(weight_rows(w), VOCAB);
        assert_int_equal(weight_cols(w), COLS);
        int32_t ids[TOKENS];
        uint32_t rows[TOKENS];
        for (int t = 0; t < TOKENS; t++) {
            ids[t] = (int32_t)(rng_next(&seed) % VOCAB);
            rows[t] = (uint32_t)(rng_next(&seed) % TOKENS);
        }
        float *got = floats(TOKENS * COLS), *want = floats(TOKENS * COLS);
        float *picked = floats(TOKENS * COLS);
        op_embed(cpu, got, w, ids, TOKENS);
        op_embed(ref, want, r, ids, TOKENS);
        assert_memory_equal(got, want, TOKENS * COLS * sizeof *got);
        dtype_decode(
            type, (char *)bytes + (size_t)ids[7] * dtype_row_bytes(type, COLS),
            picked, COLS);
        assert_memory_equal(got + 7 * COLS, picked, COLS * sizeof *got);
        op_gather(cpu, picked, got, rows, TOKENS, COLS);
        for (int t = 0; t < TOKENS; t++)
            assert_memory_equal(picked + t * COLS, got + rows[t] * COLS,
                                COLS * sizeof *got);
        weight_destroy(w);
        weight_destroy(r);
        mem_free(bytes), mem_free(got), mem_free(want), mem_free(picked);
    }
}

static void kv_written(struct device *cpu, struct device *ref)
{
    uint64_t seed = 15;
    enum { PAGES = 12, PAGE_TOKENS = 4, G = 3, D = 20, ROWS_ = 19 };
    enum { ELEMS = PAGES * PAGE_TOKENS * G * D };
    uint32_t first[] = {7, 3, 9, 1}, second[] = {2, 11};
    struct op_seq seqs[] = {
        {0, 13, 15, first}, {13, 0, 3, second}, {13, 6, 6, second}};
    float *k = random_floats(ROWS_ * G * D, &seed);
    float *v = random_floats(ROWS_ * G * D, &seed);
    k[5] = NAN, k[6] = INFINITY, k[7] = 1e-8f, k[8] = 65520, v[9] = 3e38f;
    const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_KV8};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        enum dtype type = types[t];
        float *mine[2] = {floats(ELEMS), floats(ELEMS)};
        float *its[2] = {floats(ELEMS), floats(ELEMS)};
        struct op_kv a = {mine[0], mine[1], type, PAGE_TOKENS, G, D};
        struct op_kv b = {its[0], its[1], type, PAGE_TOKENS, G, D};
        op_kv_write(cpu, &a, seqs, 3, k, v, NULL);
        op_kv_write(ref, &b, seqs, 3, k, v, NULL);
        for (int i = 0; i < 2; i++) {
            assert_memory_equal(mine[i], its[i], ELEMS * sizeof(float));
            mem_free(mine[i]), mem_free(its[i]);
        }
    }
    mem_free(k), mem_free(v);
}

/* What is turned on the way into the cache is what is turned before. */
static void kv_turned(struct device *cpu, struct device *ref)
{
    enum { G = 3, D = 64, ROWS_ = 29, TOKENS = 32 };
    uint64_t seed = 16;
    uint32_t pages[] = {1, 0}, positions[ROWS_];
    float freqs[D / 2], *gain = random_floats(D, &seed);
    float *k = random_floats(ROWS_ * G * D, &seed);
    float *v = random_floats(ROWS_ * G * D, &seed);
    float *turned = floats(ROWS_ * G * D);
    for (int i = 0; i < D / 2; i++)
        freqs[i] = (float)pow(1e4, -2.0 * i / D);
    for (uint32_t i = 0; i < ROWS_; i++)
        positions[i] = 3 + i * 7;
    struct device *both[] = {cpu, ref};
    struct op_seq seq = {0, ROWS_, ROWS_, pages};
    struct rope rope = {freqs, D, 1};
    for (int i = 0; i < 4; i++) {
        struct device *dev = both[i / 2];
        struct turn turn = {i % 2 ? gain : NULL, 1e-6f, &rope, positions};
        float *all[4];
        for (int n = 0; n < 4; n++)
            all[n] = floats(TOKENS * G * D);
        struct op_kv a = {all[0], all[1], DTYPE_BF16, 16, G, D};
        struct op_kv b = {all[2], all[3], DTYPE_BF16, 16, G, D};
        op_kv_write(dev, &a, &seq, 1, k, v, &turn);
        assert_memory_not_equal(all[0], all[1], 64);
        heads_made(dev, turned, k, &turn, ROWS_, G, D);
        op_kv_write(dev, &b, &seq, 1, turned, v, NULL);
        for (int n = 0; n < 2; n++)
            assert_memory_equal(all[n], all[n + 2], TOKENS * G * D * 2);
        for (int n = 0; n < 4; n++)
            mem_free(all[n]);
    }
    mem_free(k), mem_free(v), mem_free(turned), mem_free(gain);
}

static void norms_are_close_and_alone(void **state)
{
    (void)state;
    on_each_isa(norms);
}

static void silu_is_close_and_alone(void **state)
{
    (void)state;
    on_each_isa(silus);
}

static void rows_made_on_the_way_are_the_same(void **state)
{
    (void)state;
    on_each_isa(inputs);
}

static void rope_is_close_and_alone(void **state)
{
    (void)state;
    on_each_isa(ropes);
}

static void embed_and_gather_copy_rows(void **state)
{
    (void)state;
    on_each_isa(rows_copied);
}

static void kv_is_rounded_into_its_pages(void **state)
{
    (void)state;
    on_each_isa(kv_written);
    on_each_isa(kv_turned);
}

static void nothing(struct device *cpu, struct device *ref)
{
    struct device *both[] = {cpu, ref};
    for (int i = 0; i < 2; i++) {
        float x[1] = {1};
        struct weight *w;
        assert_int_equal(weight_create(&w, both[i], DTYPE_F32, 1, 1, x, NULL),
                         0);
        struct rope rope = {x, 0, 1};
        struct op_kv kv = {x, x, DTYPE_F32, 1, 1, 1};
        struct op_seq none = {0, 0, 0, NULL};
        struct linear l = {x, w, NULL, false};
        op_embed(both[i], x, w, NULL, 0);
        op_rmsnorm(both[i], x, x, x, 0, 1, 1);
        op_linear(both[i], &(struct input){.x = x}, 0, &l, 1);
        op_linear(both[i], &(struct input){.x = x}, 1, &l, 0);
        struct turn turn = {NULL, 0, &rope, NULL};
        struct query query = {.q = x, .turn = &turn, .heads = 1, .scale = 1};
        op_kv_write(both[i], &kv, NULL, 0, x, x, NULL);
        op_kv_write(both[i], &kv, &none, 1, x, x, &turn);
        op_attention(both[i], x, &query, &kv, NULL, 0);
        op_attention(both[i], x, &query, &kv, &none, 1);
        op_gather(both[i], x, x, NULL, 0, 1);
        assert_true(x[0] == 1);
        weight_destroy(w);
    }
}

static void empty_calls_do_nothing(void **state)
{
    (void)state;
    on_each_isa(nothing);
}

/* What is expected changes nothing; each shape has its row. */
static void traced(struct device *cpu, struct device *ref)
{
    enum { COLS = 64, TOKENS = 2 };
    struct device *both[] = {cpu, ref};
    uint64_t seed = 3;
    float *x = random_floats(TOKENS * COLS, &seed);
    void *bytes = random_matrix(DTYPE_Q8_0, 96, COLS, &seed);
    for (int i = 0; i < 2; i++) {
        struct trace trace = {0};
        struct weight *w[2];
        float out[2][TOKENS * 96], again[2][TOKENS * 96], y[COLS];
        for (size_t n = 0; n < 2; n++)
            assert_int_equal(weight_create(&w[n], both[i], DTYPE_Q8_0,
                                           96 - 32 * n, COLS, bytes, NULL),
                             0);
        struct linear list[] = {{out[0], w[0], NULL, false},
                                {out[1], w[1], NULL, false}};
        op_linear(both[i], &(struct input){.x = x}, TOKENS, list, 2);
        device_trace(both[i], &trace);
        op_expect(both[i], TOKENS, list, 2);
        op_rmsnorm(both[i], y, x, x, 1, COLS, 1);
        list[0].out = again[0];
        list[1].out = again[1];
        op_linear(both[i], &(struct input){.x = x}, TOKENS, list, 2);
        op_linear(both[i], &(struct input){.x = x}, TOKENS, list, 2);
        device_trace(both[i], NULL);
        op_linear(both[i], &(struct input){.x = x}, TOKENS, list, 1);
        assert_memory_equal(again[0], out[0], sizeof out[0]);
        assert_memory_equal(again[1], out[1], TOKENS * 64 * sizeof(float));
        assert_int_equal(trace.count, 2);
        assert_string_equal(trace.rows[0].op, "rmsnorm");
        assert_int_equal(trace.rows[0].calls, 1);
        const struct trace_row *linear = &trace.rows[1];
        assert_string_equal(linear->op, "linear");
        assert_true(linear->calls == 2 && linear->rows == 96 + 64 &&
                    linear->cols == COLS && linear->type == DTYPE_Q8_0);
        assert_int_equal(linear->bytes,
                         2 * (96 + 64) * dtype_row_bytes(DTYPE_Q8_0, COLS));
        weight_destroy(w[0]), weight_destroy(w[1]);
    }
    mem_free(x), mem_free(bytes);
}

static void a_trace_counts_calls_and_bytes(void **state)
{
    (void)state;
    on_each_isa(traced);
}

TESTS(T(ref_means_what_the_contract_says), T(norms_are_close_and_alone),
      T(silu_is_close_and_alone), T(rows_made_on_the_way_are_the_same),
      T(rope_is_close_and_alone), T(embed_and_gather_copy_rows),
      T(kv_is_rounded_into_its_pages), T(empty_calls_do_nothing),
      T(a_trace_counts_calls_and_bytes))
