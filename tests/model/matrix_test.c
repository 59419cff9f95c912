/* Matrices in every form that files hold them in, against what the packages
 * that write such files say they mean (tools/golden/weight_formats.py); and
 * broken ones. */
#include "tests/test.h"
#include "tests/model/gguf_build.h"
#include "base/mem.h"
#include "model/config.h"
#include "model/gguf.h"
#include "model/matrix.h"
#include "model/safetensors.h"

#include <math.h>

enum { ROWS = 32, COLS = 64 };

static const struct form {
    const char *name;
    enum quant_method method;
    uint32_t block_rows, block_cols;
    enum dtype type;
    double relative; /* how far a value may be, 0: equal */
} forms[] = {
    {"awq", QUANT_AWQ, 0, 0, DTYPE_INT4_G32, 0},
    {"gptq", QUANT_GPTQ, 0, 0, DTYPE_INT4_G32, 0},
    {"gptq_order", QUANT_GPTQ, 0, 0, DTYPE_BF16, 0x1p-8},
    {"packed", QUANT_INT8, 0, 0, DTYPE_INT4_G32, 0},
    {"packed_zeros", QUANT_INT8, 0, 0, DTYPE_INT4_G64, 0},
    {"packed8", QUANT_INT8, 0, 0, DTYPE_INT8_G128, 0},
    {"fp8_blocks", QUANT_FP8, 5, 48, DTYPE_BF16, 0x1p-8},
    {"fp8_rows", QUANT_FP8, 128, 128, DTYPE_BF16, 0x1p-8},
    {"fp8_one", QUANT_FP8, 128, 128, DTYPE_BF16, 0x1p-8},
    {"int8", QUANT_INT8, 0, 0, DTYPE_INT8, 0},
    {"slim", QUANT_INT8, 0, 0, DTYPE_INT8, 0},
};
#define COUNT(a) (sizeof(a) / sizeof *(a))

static struct model_config config_of(const struct form *f)
{
    struct model_config c = {0};
    c.quant.method = f->method;
    c.quant.block_rows = f->block_rows;
    c.quant.block_cols = f->block_cols;
    return c;
}

static const float *expected(const struct model_files *files, const char *name,
                             const char *what)
{
    char text[64];
    snprintf(text, sizeof text, "%s.%s", name, what);
    const struct stored_tensor *t = model_files_find(files, text);
    assert_non_null(t);
    float *values = mem_must(t->size, 1);
    memcpy(values, t->bytes, t->size);
    return values;
}

/* All rows at once and one by one, decoded. */
static float *decoded(const struct matrix *m)
{
    size_t row = dtype_row_bytes(m->type, m->cols);
    uint8_t *all = mem_must(m->rows, row), *one = mem_must(1, row);
    float *values = mem_must((size_t)m->rows * m->cols, sizeof *values);
    matrix_rows(m, 0, m->rows, all);
    for (size_t r = 0; r < m->rows; r++) {
        matrix_rows(m, r, 1, one);
        assert_memory_equal(one, all + r * row, row);
        dtype_decode(m->type, one, values + r * m->cols, m->cols);
    }
    mem_free(all), mem_free(one);
    return values;
}

static void compare(const char *name, const float *got, const float *want,
                    size_t n, double relative)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <=
              relative * fabs((double)want[i])))
            fail_msg("%s[%zu]: %g, not %g", name, i, (double)got[i],
                     (double)want[i]);
}

static void safetensors_forms_mean_what_their_packers_say(void **state)
{
    (void)state;
    struct model_files files = {.path = (char[]){"formats"}};
    struct why why = {0};
    if (safetensors_open(&files.shards, "tests/golden/model/formats", &why))
        fail_msg("%s", why.text);
    for (size_t i = 0; i < COUNT(forms); i++) {
        const struct form *f = &forms[i];
        struct model_config c = config_of(f);
        struct matrix m;
        uint32_t cols = f->type == DTYPE_INT8_G128 ? 128 : COLS;
        if (matrix_find(&m, &files, &c, f->name, ROWS, cols, 0, 0, &why))
            fail_msg("%s", why.text);
        assert_int_equal(m.type, f->type);
        const float *want = expected(&files, f->name, "expected");
        float *got = decoded(&m), bias[ROWS];
        compare(f->name, got, want, (size_t)ROWS * cols, f->relative);
        assert_int_equal(matrix_bias(&m, bias), !strcmp(f->name, "slim"));
        mem_free(got), mem_free((void *)(uintptr_t)want);
    }
    const struct form *slim = &forms[COUNT(forms) - 1];
    struct model_config c = config_of(slim);
    struct matrix m;
    float bias[ROWS];
    const float *want = expected(&files, "slim", "expected_bias");
    assert_int_equal(
        matrix_find(&m, &files, &c, "slim", ROWS, COLS, 0, 0, &why), 0);
    assert_true(matrix_bias(&m, bias));
    compare("bias", bias, want, ROWS, 1e-5);
    mem_free((void *)(uintptr_t)want);
    safetensors_close(files.shards);
}

static void gguf_forms_mean_what_gguf_py_says(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint32_t rows, cols;
        enum dtype type;
        double relative;
    } cases[] = {
        {"q5_0", 3, 64, DTYPE_Q8_0, 0},
        {"q5_1", 3, 64, DTYPE_F16, 0x1p-9},
        {"q2_k", 2, 256, DTYPE_F16, 0x1p-9},
        {"q3_k", 2, 256, DTYPE_Q6_K, 0},
        {"iq4_nl", 3, 64, DTYPE_Q8_0, 0},
        {"iq4_xs", 2, 256, DTYPE_F16, 0x1p-9},
    };
    struct model_files files = {.path = (char[]){"formats.gguf"}};
    struct why why = {0};
    if (gguf_open(&files.gguf, "tests/golden/model/formats.gguf", &why))
        fail_msg("%s", why.text);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct model_config c = {0};
        struct matrix m;
        if (matrix_find(&m, &files, &c, cases[i].name, cases[i].rows,
                        cases[i].cols, 0, 0, &why))
            fail_msg("%s", why.text);
        assert_int_equal(m.type, cases[i].type);
        const float *want = expected(&files, cases[i].name, "expected");
        float *got = decoded(&m);
        compare(cases[i].name, got, want, (size_t)cases[i].rows * cases[i].cols,
                cases[i].relative);
        mem_free(got), mem_free((void *)(uintptr_t)want);
    }
    gguf_close(files.gguf);
}

/* A safetensors file of zeros with the given header entries. */
static struct safetensors *make_file(const char *entries, size_t bytes,
                                     char **room)
{
    struct safetensors *s;
    struct why why = {0};
    uint64_t n = strlen(entries);
    *room = mem_must(8 + n + bytes, 1);
    memcpy(*room, &n, 8);
    memcpy(*room + 8, entries, n);
    if (safetensors_parse(&s, "made.safetensors", *room, 8 + n + bytes, &why))
        fail_msg("%s", why.text);
    return s;
}

#define T_(name, dtype, shape, from, to)                     \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape \
    ",\"data_offsets\":[" #from "," #to "]}"

static void wrong_parts_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *entries;
        size_t bytes;
        enum quant_method method;
        int code;
        const char *word;
    } cases[] = {
        {"{" T_("x.weight", "F8_E4M3", "[8,64]", 0, 512) "}", 512, QUANT_FP8,
         ERR_FORMAT, "x.weight_scale is missing"},
        {"{" T_("x.weight", "F8_E4M3", "[8,64]", 0,
                512) "," T_("x.weight_scale_inv", "F32", "[2,1]", 512, 520) "}",
         520, QUANT_FP8, ERR_FORMAT, "x.weight_scale_inv has shape [2, 1]"},
        {"{" T_("x.weight", "I8", "[8,64]", 0,
                512) "," T_("x.weight_scale", "F32", "[7,1]", 512, 540) "}",
         540, QUANT_INT8, ERR_UNSUPPORTED, "x.weight_scale has shape"},
        {"{" T_("x.weight", "I8", "[8,32]", 0,
                256) "," T_("x.weight_scale", "F32", "[8,1]", 256, 288) "}",
         288, QUANT_INT8, ERR_FORMAT, "x.weight has shape [8, 32]"},
        {"{" T_("x.qweight", "I32", "[64,1]", 0, 256) "}", 256, QUANT_AWQ,
         ERR_FORMAT, "x.scales is missing"},
        {"{" T_("x.qweight", "I32", "[64,1]", 0, 256) "}", 256, QUANT_NONE,
         ERR_FORMAT, "x.weight is missing"},
        {"{" T_("x.qweight", "I32", "[64,1]", 0,
                256) "," T_("x.scales", "F16", "[3,8]", 256, 304) "}",
         304, QUANT_AWQ, ERR_FORMAT, "3 groups in tensor x.scales"},
        {"{" T_("x.qweight", "I32", "[64,1]", 0, 256) "," T_(
             "x.scales", "F16", "[2,8]", 256,
             288) "," T_("x.qzeros", "I32", "[2,2]", 288, 304) "}",
         304, QUANT_AWQ, ERR_FORMAT, "x.qzeros has shape [2, 2]"},
        {"{" T_("x.qweight", "F32", "[8,8]", 0, 256) "," T_(
             "x.scales", "F16", "[2,8]", 256,
             288) "," T_("x.qzeros", "I32", "[2,1]", 288, 296) "}",
         296, QUANT_GPTQ, ERR_UNSUPPORTED, "x.qweight is stored as F32"},
        {"{" T_("x.weight_packed", "I32", "[8,9]", 0,
                288) "," T_("x.weight_scale", "F16", "[8,2]", 288, 320) "}",
         320, QUANT_INT8, ERR_FORMAT, "x.weight_packed has shape [8, 9]"},
        {"{" T_("x.weight", "F8_E5M2", "[8,64]", 0, 512) "}", 512, QUANT_FP8,
         ERR_UNSUPPORTED, "F8_E5M2"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *room;
        struct model_files files = {.path = (char[]){"made"}};
        struct model_config c = {.quant = {cases[i].method, false, 128, 128}};
        struct why why = {0};
        struct matrix m;
        files.shards = make_file(cases[i].entries, cases[i].bytes, &room);
        int rc = matrix_find(&m, &files, &c, "x", 8, 64, 0, 0, &why);
        if (rc != cases[i].code || !strstr(why.text, cases[i].word))
            fail_msg("case %zu: %s \"%s\" lacks \"%s\"", i, err_name(rc),
                     why.text, cases[i].word);
        safetensors_close(files.shards);
        mem_free(room);
    }
}

/* A group number past the groups would read past the scales. */
static void group_numbers_are_checked(void **state)
{
    (void)state;
    char *room;
    struct model_files files = {.path = (char[]){"made"}};
    struct model_config c = {.quant = {QUANT_GPTQ, false, 128, 128}};
    struct why why = {0};
    struct matrix m;
    files.shards = make_file(
        "{" T_("x.qweight", "I32", "[8,8]", 0, 256) "," T_(
            "x.scales", "F16", "[2,8]", 256,
            288) "," T_("x.qzeros", "I32", "[2,1]", 288,
                        296) "," T_("x.g_idx", "I32", "[64]", 296, 552) "}",
        552, &room);
    int32_t bad = 2;
    uint64_t header;
    memcpy(&header, room, 8);
    memcpy(room + 8 + header + 296 + 4 * 5, &bad, 4);
    assert_int_equal(matrix_find(&m, &files, &c, "x", 8, 64, 0, 0, &why),
                     ERR_FORMAT);
    assert_non_null(strstr(why.text, "x.g_idx[5] names group 2 of 2"));
    safetensors_close(files.shards);
    mem_free(room);
}

TESTS(T(safetensors_forms_mean_what_their_packers_say),
      T(gguf_forms_mean_what_gguf_py_says), T(wrong_parts_are_refused_by_name),
      T(group_numbers_are_checked))
