/* Forward passes against transformers (tests/golden/model/, made by
 * tools/golden/make_checkpoints.py) and against themselves. */
#include "tests/model/rig.h"
#include "tests/model/random_model.h"
#include "tests/temp.h"

#include <math.h>

enum { IDS = 48, ROWS = 6, FEW = 12 /* where the arithmetic is tried */ };

static const char *const names[] = {
    "llama-plain", "llama-odd",     "llama-bias",   "llama-256",
    "qwen3-odd",   "qwen3-bf16",    "qwen3-256",    "llama-partial",
    "qwen2-odd",   "qwen3moe",      "qwen2-window", "qwen3-window",
    "mistral",     "qwen3moe-mixed"};
enum {
    GGUF_NAMES = 10
}; /* the rest has no words in GGUF: windows, weights
                             of experts that do not add up to 1 */
static const char *const devices[] = {"cpu", "ref"};
static const uint32_t whole[] = {IDS};
#define COUNT(a) (sizeof(a) / sizeof *(a))

/* "ref" has one thread, so ThreadSanitizer finds nothing there, slowly. */
static size_t device_count(void)
{
    const char *mode = getenv("BATON_MODE");
    return mode && !strcmp(mode, "tsan") ? 1 : COUNT(devices);
}

static void read_list(const json_t *spec, const char *key, int32_t *out,
                      size_t n)
{
    const json_t *list = json_object_get(spec, key);
    assert_int_equal(json_array_size(list), n);
    for (size_t i = 0; i < n; i++)
        out[i] = (int32_t)json_integer_value(json_array_get(list, i));
}

/* The logits [ROWS, vocab] in NAME.npy, format 1.0. */
static float *read_golden(const char *name, size_t vocab)
{
    char path[256];
    unsigned char head[10];
    float *rows = mem_must(ROWS * vocab, sizeof *rows);
    snprintf(path, sizeof path, "tests/golden/model/%s.npy", name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fread(head, 1, sizeof head, f), sizeof head);
    assert_memory_equal(head, "\x93NUMPY\1", 7);
    assert_int_equal(fseek(f, head[8] | head[9] << 8, SEEK_CUR), 0);
    assert_int_equal(fread(rows, sizeof *rows, ROWS * vocab, f), ROWS * vocab);
    assert_int_equal(fgetc(f), EOF);
    fclose(f);
    return rows;
}

static double largest_difference(const float *a, const float *b, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= worst)) worst = d; /* a NaN is the worst */
    }
    return worst;
}

static double rms(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - (b ? (double)b[i] : 0);
        sum += d * d;
    }
    return sqrt(sum / (double)n);
}

/* The largest difference of the golden rows. */
static double golden_difference(struct rig *r, const char *name,
                                const json_t *spec)
{
    int32_t ids[IDS], rows[ROWS];
    read_list(spec, "ids", ids, IDS);
    read_list(spec, "rows", rows, ROWS);
    float *golden = read_golden(name, r->vocab), worst = 0;
    float *logits = rig_logits(r, ids, IDS, whole, 1);
    for (size_t i = 0; i < ROWS; i++) {
        double d = largest_difference(logits + (size_t)rows[i] * r->vocab,
                                      golden + i * r->vocab, r->vocab);
        if (!(d <= (double)worst)) worst = (float)d;
    }
    mem_free(logits);
    mem_free(golden);
    return (double)worst;
}

/* Weights in bf16 multiply activations rounded to bf16 (tensor/ops.h), in the
 * golden logits too. Where two programs' activations lie on the two sides of a
 * rounding, one in 256 of it is seen; without such a case they agree to
 * 5e-7. */
static double nearness(const struct rig *r)
{
    return model_config(r->model)->dtype == DTYPE_BF16 ? 0.03 : 1e-3;
}

static void folders_match_transformers(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(names); i++) {
        struct random_model *m = random_model_named(names[i]);
        char *dir = temp_dir();
        random_model_write_folder(m, dir, i % 2 ? 3 : 1);
        for (size_t d = 0; d < device_count(); d++) {
            struct rig r;
            rig_open(&r, dir, devices[d], 16, DTYPE_F32);
            double worst =
                golden_difference(&r, names[i], random_model_spec(m));
            printf("%-14s %s: at most %.2e from transformers\n", names[i],
                   devices[d], worst);
            assert_true(worst <= nearness(&r));
            rig_close(&r);
        }
        temp_remove(dir);
        random_model_free(m);
    }
}

static void with_model(const char *name, const char *device,
                       uint32_t page_tokens, enum dtype kv,
                       void (*test)(struct rig *r, const int32_t *ids))
{
    struct random_model *m = random_model_named(name);
    char *dir = temp_dir();
    int32_t ids[IDS];
    struct rig r;
    read_list(random_model_spec(m), "ids", ids, IDS);
    random_model_write_folder(m, dir, 1);
    rig_open(&r, dir, device, page_tokens, kv);
    test(&r, ids);
    rig_close(&r);
    temp_remove(dir);
    random_model_free(m);
}

static void check_chunks(struct rig *r, const int32_t *ids)
{
    static const struct {
        uint32_t sizes[4], count;
    } chunks[] = {{{16}, 1}, {{1, 5, 30, 12}, 4}, {{40, 1}, 2}};
    size_t bytes = (size_t)IDS * r->vocab * sizeof(float);
    float *want = rig_logits(r, ids, IDS, whole, 1);
    for (size_t i = 0; i < COUNT(chunks); i++) {
        float *got = rig_logits(r, ids, IDS, chunks[i].sizes, chunks[i].count);
        assert_memory_equal(got, want, bytes);
        mem_free(got);
    }
    mem_free(want);
}

static void chunks_change_no_bit(void **state)
{
    (void)state;
    if (device_count() > 1)
        with_model("qwen3-odd", "ref", 16, DTYPE_F32, check_chunks);
    with_model("qwen3-odd", "cpu", 16, DTYPE_F32, check_chunks);
    with_model("llama-odd", "cpu", 1, DTYPE_F16, check_chunks);
    with_model("llama-bias", "cpu", 128, DTYPE_BF16, check_chunks);
    with_model("qwen3moe-mixed", "cpu", 16, DTYPE_F16, check_chunks);
    with_model("qwen2-window", "cpu", 4, DTYPE_F16, check_chunks);
}

/* Three sequences of unequal length, prefilled and then decoded side by side,
 * give the bits that each gives alone. */
static void check_batch(struct rig *r, const int32_t *ids)
{
    static const uint32_t tokens[] = {IDS, 20, 9}, prompt[] = {37, 14, 1};
    struct rig_seq seqs[3], *list[] = {&seqs[0], &seqs[1], &seqs[2]};
    uint32_t rows[3];
    for (size_t i = 0; i < 3; i++) {
        rig_seq_open(r, &seqs[i], ids + i, tokens[i] - (uint32_t)i);
        rows[i] = prompt[i];
    }
    rig_step(r, list, rows, 3);
    for (;;) { /* one token of each that has some left */
        struct rig_seq *running[3];
        uint32_t count = 0;
        for (size_t i = 0; i < 3; i++) {
            if (seqs[i].done == tokens[i] - i) continue;
            rows[count] = 1;
            running[count++] = &seqs[i];
        }
        if (!count) break;
        rig_step(r, running, rows, count);
    }
    for (size_t i = 0; i < 3; i++) {
        uint32_t n = tokens[i] - (uint32_t)i;
        float *alone = rig_logits(r, ids + i, n, whole, 1);
        assert_memory_equal(alone, seqs[i].logits,
                            (size_t)n * r->vocab * sizeof *alone);
        mem_free(alone);
        mem_free(seqs[i].logits);
    }
}

/* A second chunk of two sequences: which of its rows are asked, in whatever
 * order, changes no logit, and none of the tokens behind it. */
static void check_asked(struct rig *r, const int32_t *ids)
{
    static const uint32_t begin[] = {12, 7}, rows[] = {20, 9}, one[] = {1, 1};
    static const struct {
        uint32_t rows[5], count;
    } asked[] = {{{28}, 1},
                 {{19, 28}, 2},
                 {{3, 4, 5, 28}, 4},
                 {{28, 0, 0, 1, 19}, 5},
                 {{0}, 0}};
    enum { A = 33, B = 17 }; /* tokens in all */
    struct rig_seq a, b, *list[] = {&a, &b};
    rig_seq_open(r, &a, ids, A);
    rig_seq_open(r, &b, ids + 3, B);
    rig_step(r, list, begin, 2);
    const float *all = rig_forward(r, list, rows, 2, NULL, 0);
    size_t row = r->vocab * sizeof *all;
    float *want = mem_must(29 * r->vocab, sizeof *want);
    memcpy(want, all, 29 * row);
    for (size_t i = 0; i < COUNT(asked); i++) {
        const float *got =
            rig_forward(r, list, rows, 2, asked[i].rows, asked[i].count);
        for (uint32_t k = 0; k < asked[i].count; k++)
            assert_memory_equal(got + k * r->vocab,
                                want + asked[i].rows[k] * r->vocab, row);
    }
    a.done += rows[0], b.done += rows[1];
    rig_step(r, list, one, 2);
    float *alone = rig_logits(r, ids, A, whole, 1);
    assert_memory_equal(alone + (A - 1) * r->vocab,
                        a.logits + (A - 1) * r->vocab, row);
    mem_free(alone);
    mem_free(a.logits);
    mem_free(b.logits);
    mem_free(want);
}

static void asked_rows_change_no_bit(void **state)
{
    (void)state;
    if (device_count() > 1)
        with_model("qwen3-odd", "ref", 16, DTYPE_F32, check_asked);
    with_model("llama-odd", "cpu", 1, DTYPE_F16, check_asked);
    with_model("qwen3-odd", "cpu", 16, DTYPE_BF16, check_asked);
    with_model("qwen3moe-mixed", "cpu", 16, DTYPE_F16, check_asked);
    with_model("qwen2-window", "cpu", 4, DTYPE_KV8, check_asked);
}

static void batches_change_no_bit(void **state)
{
    (void)state;
    if (device_count() > 1)
        with_model("llama-plain", "ref", 16, DTYPE_F16, check_batch);
    with_model("llama-odd", "cpu", 16, DTYPE_F16, check_batch);
    with_model("qwen3-odd", "cpu", 16, DTYPE_F32, check_batch);
    with_model("qwen3moe", "cpu", 16, DTYPE_F32, check_batch);
    with_model("qwen3-window", "cpu", 16, DTYPE_F16, check_batch);
}

static float *gguf_logits(const struct random_model *m, const char *dir,
                          const char *device, enum dtype type, bool decoded,
                          uint32_t *vocab)
{
    char path[256];
    int32_t ids[IDS];
    struct rig r;
    snprintf(path, sizeof path, "%s/m.gguf", dir);
    random_model_write_gguf(m, path, type, decoded);
    read_list(random_model_spec(m), "ids", ids, IDS);
    rig_open(&r, path, device, 16, DTYPE_F32);
    float *logits = rig_logits(&r, ids, FEW, whole, 1);
    *vocab = r.vocab;
    rig_close(&r);
    return logits;
}

/* The same weights from a GGUF file: rows of q and k come back from their
 * interleaved order, rope scaling from its keys or divisors. */
static void gguf_matches_transformers(void **state)
{
    (void)state;
    for (size_t i = 0; i < GGUF_NAMES; i++) {
        struct random_model *m = random_model_named(names[i]);
        char *dir = temp_dir(), path[256];
        const char *type = json_string_value(json_object_get(
            json_object_get(random_model_spec(m), "config"), "torch_dtype"));
        enum dtype own = !strcmp(type, "bfloat16")  ? DTYPE_BF16
                         : !strcmp(type, "float16") ? DTYPE_F16
                                                    : DTYPE_F32;
        struct rig r;
        snprintf(path, sizeof path, "%s/m.gguf", dir);
        random_model_write_gguf(m, path, own, false);
        rig_open(&r, path, "cpu", 16, DTYPE_F32);
        assert_true(golden_difference(&r, names[i], random_model_spec(m)) <=
                    nearness(&r));
        rig_close(&r);
        temp_remove(dir);
        random_model_free(m);
    }
}

/* Block formats, against float32 arithmetic over the very values that the
 * blocks hold: what is left is the rounding of activations to 8 bits. And for
 * those that we can round to, against the model as it was. Bounds are parts
 * of the logits' rms. */
static void block_formats_stay_close(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum dtype type;
        double activations, weights;
    } cases[] = {
        {"llama-256", DTYPE_Q8_0, 0.03, 0.04},
        {"llama-256", DTYPE_Q4_0, 0.03, 0.40},
        {"llama-256", DTYPE_Q4_1, 0.03, 0.40},
        {"llama-256", DTYPE_Q4_K, 0.03, INFINITY},
        {"llama-256", DTYPE_Q5_K, 0.03, INFINITY},
        {"llama-256", DTYPE_Q6_K, 0.03, INFINITY},
        {"qwen3-256", DTYPE_Q4_1, 0.03, 0.40},
        {"qwen3-256", DTYPE_Q6_K, 0.03, INFINITY},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct random_model *m = random_model_named(cases[i].name);
        char *dir = temp_dir();
        uint32_t vocab;
        enum dtype type = cases[i].type;
        float *plain = gguf_logits(m, dir, "cpu", DTYPE_F32, false, &vocab);
        float *exact = gguf_logits(m, dir, "cpu", type, true, &vocab);
        size_t n = (size_t)FEW * vocab;
        for (size_t d = 0; d < device_count(); d++) {
            float *got = gguf_logits(m, dir, devices[d], type, false, &vocab);
            double a = rms(got, exact, n) / rms(exact, NULL, n);
            double w = rms(got, plain, n) / rms(plain, NULL, n);
            printf("%-10s %s %s: %.4f of rms from its values", cases[i].name,
                   dtype_name(type), devices[d], a);
            if (isfinite(cases[i].weights)) printf(", %.4f from f32", w);
            printf("\n");
            assert_true(a <= cases[i].activations);
            assert_true(!(w > cases[i].weights));
            assert_true(a > 0); /* it is another arithmetic indeed */
            mem_free(got);
        }
        mem_free(exact);
        mem_free(plain);
        temp_remove(dir);
        random_model_free(m);
    }
}

TESTS(T(folders_match_transformers), T(chunks_change_no_bit),
      T(batches_change_no_bit), T(asked_rows_change_no_bit),
      T(gguf_matches_transformers), T(block_formats_stay_close))
