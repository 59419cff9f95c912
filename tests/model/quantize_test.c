/* baton quantize's folders give the very logits of quantizing while loading,
 * and those stay near the float model's. */
#include "tests/temp.h"
#include "tests/model/random_model.h"
#include "tests/model/rig.h"
#include "model/quantize.h"

#include <math.h>
#include <sys/stat.h>

enum { TOKENS = 24 };

static float *logits_of(const char *path, const char *device,
                        enum model_quantize quantize, uint32_t *vocab)
{
    static const uint32_t whole[] = {TOKENS};
    struct rig r;
    int32_t ids[TOKENS];
    rig_open_as(&r, path, device, 16, DTYPE_F32, quantize);
    for (int i = 0; i < TOKENS; i++)
        ids[i] = (i * 37 + 11) % (int)r.vocab;
    float *logits = rig_logits(&r, ids, TOKENS, whole, 1);
    *vocab = r.vocab;
    rig_close(&r);
    return logits;
}

static double distance(const float *a, const float *b, size_t n)
{
    double sum = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        all += (double)b[i] * b[i];
    }
    return sqrt(sum / all);
}

static int quantize_folder(const char *in, const char *out,
                           enum model_quantize kind, struct why *why)
{
    const struct quantize_options o = {.in = in, .out = out, .kind = kind};
    return model_quantize(&o, why);
}

static void folders_equal_quantizing_on_load(void **state)
{
    (void)state;
    static const struct {
        enum model_quantize kind;
        double most; /* of the logits' rms, from the float model */
    } cases[] = {{QUANTIZE_W8A8_INT8, 0.05},
                 {QUANTIZE_INT8, 0.05},
                 {QUANTIZE_INT4, 0.4}};
    const char *mode = getenv("BATON_MODE"); /* ref is one slow thread */
    const bool slow = mode && !strcmp(mode, "tsan");
    struct random_model *m = random_model_named("llama-256");
    char *dir = temp_dir(), in[4096], out[4096];
    uint32_t vocab;
    snprintf(in, sizeof in, "%s/in", dir);
    random_model_write_folder(m, in, 2);
    float *plain = logits_of(in, "cpu", QUANTIZE_NONE, &vocab);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct why why = {0};
        snprintf(out, sizeof out, "%s/out%zu", dir, i);
        if (quantize_folder(in, out, cases[i].kind, &why))
            fail_msg("%s", why.text);
        float *want = logits_of(in, "cpu", cases[i].kind, &vocab);
        float *got = logits_of(out, "cpu", QUANTIZE_NONE, &vocab);
        float *ref =
            logits_of(out, slow ? "cpu" : "ref", QUANTIZE_NONE, &vocab);
        size_t n = (size_t)TOKENS * vocab;
        assert_memory_equal(got, want, n * sizeof *got);
        double far = distance(got, plain, n), off = distance(got, ref, n);
        printf("kind %d: %.4f of rms from float, %.5f from ref\n",
               (int)cases[i].kind, far, off);
        assert_true(far > 0 && far <= cases[i].most);
        /* sums round apart, and now and then an activation to its neighbour */
        assert_true(off <= 0.01);
        mem_free(got), mem_free(want), mem_free(ref);
    }
    mem_free(plain);
    random_model_free(m);
    temp_remove(dir);
}

static uint64_t fingerprint_of(const char *path, enum model_quantize quantize)
{
    struct rig r;
    rig_open_as(&r, path, "ref", 16, DTYPE_F32, quantize);
    uint64_t f = model_fingerprint(r.model);
    rig_close(&r);
    return f;
}

/* KV of rounded weights is not KV of the float model. */
static void roundings_have_fingerprints_of_their_own(void **state)
{
    (void)state;
    struct random_model *m = random_model_named("llama-plain");
    char *dir = temp_dir(), in[4096];
    snprintf(in, sizeof in, "%s/in", dir);
    random_model_write_folder(m, in, 1);
    uint64_t plain = fingerprint_of(in, QUANTIZE_NONE);
    uint64_t rows = fingerprint_of(in, QUANTIZE_W8A8_INT8);
    assert_true(rows == fingerprint_of(in, QUANTIZE_W8A8_INT8));
    assert_true(plain != rows && plain != fingerprint_of(in, QUANTIZE_INT4));
    random_model_free(m);
    temp_remove(dir);
}

/* Experts and a tied head, in groups of 32; the rest of the folder is there. */
static void experts_are_rounded_too(void **state)
{
    (void)state;
    struct random_model *m = random_model_named("qwen3moe-mixed");
    char *dir = temp_dir(), in[4096], out[4096], file[4200];
    struct stat st;
    struct why why = {0};
    uint32_t vocab;
    snprintf(in, sizeof in, "%s/in", dir);
    snprintf(out, sizeof out, "%s/out", dir);
    random_model_write_folder(m, in, 1);
    if (quantize_folder(in, out, QUANTIZE_INT4, &why)) fail_msg("%s", why.text);
    struct model_survey s;
    const struct model_options options = {.path = out};
    assert_int_equal(model_survey(&s, &options, &why), 0);
    assert_int_equal(s.types[DTYPE_INT4_G32].count, 43); /* 16 + 9 + 18 */
    float *got = logits_of(out, "cpu", QUANTIZE_NONE, &vocab);
    for (size_t i = 0; i < (size_t)TOKENS * vocab; i++)
        assert_true(isfinite(got[i]));
    mem_free(got);
    snprintf(file, sizeof file, "%s/tokenizer.json", out);
    assert_int_equal(stat(file, &st), 0);
    random_model_free(m);
    temp_remove(dir);
}

static void what_cannot_be_rounded_is_refused(void **state)
{
    (void)state;
    struct random_model *m = random_model_named("llama-plain");
    char *dir = temp_dir(), in[4096], out[4096], gguf[4096];
    struct why why = {0};
    snprintf(in, sizeof in, "%s/in", dir);
    snprintf(out, sizeof out, "%s/out", dir);
    snprintf(gguf, sizeof gguf, "%s/m.gguf", dir);
    random_model_write_folder(m, in, 1);
    random_model_write_gguf(m, gguf, DTYPE_F32, false);
    assert_int_equal(quantize_folder(gguf, out, QUANTIZE_INT4, &why),
                     ERR_INVALID);
    assert_non_null(strstr(why.text, "GGUF"));
    assert_int_equal(quantize_folder(in, out, QUANTIZE_INT8, &why),
                     ERR_UNSUPPORTED); /* no 128 columns anywhere */
    assert_non_null(strstr(why.text, "groups of 128"));
    assert_int_equal(quantize_folder(in, out, QUANTIZE_INT4, &why), 0);
    assert_int_equal(quantize_folder(in, out, QUANTIZE_INT4, &why), ERR_EXISTS);
    assert_int_equal(quantize_folder(out, in, QUANTIZE_INT4, &why),
                     ERR_INVALID);
    assert_non_null(strstr(why.text, "quantized already"));
    random_model_free(m);
    temp_remove(dir);
}

TESTS(T(folders_equal_quantizing_on_load), T(experts_are_rounded_too),
      T(roundings_have_fingerprints_of_their_own),
      T(what_cannot_be_rounded_is_refused))
