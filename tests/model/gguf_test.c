#include "tests/test.h"
#include "tests/temp.h"
#include "tests/model/gguf_build.h"
#include "base/mem.h"
#include "model/gguf.h"
#include "tensor/tensor.h"

#include <unistd.h>

static const float values[8] = {1, 2, 3, 4, 5, 6, 7, 8};
static const uint64_t two_by_four[] = {2, 4};

/* A small file with a key of each kind and two tensors. */
static void sample(struct gguf_build *b)
{
    const char *words[] = {"a", "", "longer word"};
    const int32_t ints[] = {3, -1, 7};
    gguf_build_init(b);
    gguf_build_string(b, "general.architecture", "llama");
    gguf_build_u32(b, "x.count", 42);
    gguf_build_f32(b, "x.eps", 0.5f);
    gguf_build_bool(b, "x.yes", true);
    gguf_build_strings(b, "x.words", words, 3);
    gguf_build_ints(b, "x.ints", ints, 3);
    gguf_build_floats(b, "x.floats", (const float[]){0.5f, -2.0f}, 2);
    gguf_build_tensor(b, "t.a", 0, 2, two_by_four, values, sizeof values);
    gguf_build_tensor(b, "t.b", 0, 1, (uint64_t[]){3}, values, 12);
}

static void finish(struct gguf_build *b, struct buf *file)
{
    buf_init(file, 1 << 20);
    gguf_build_finish(b, 3, file);
    gguf_build_fini(b);
}

/* The sample as an open file; version as the file claims it. */
static struct gguf *open_sample(struct buf *file, int version)
{
    struct gguf_build b;
    struct gguf *g;
    struct why why = {0};
    sample(&b);
    finish(&b, file);
    file->data[4] = (char)version;
    if (gguf_parse(&g, "f", file->data, file->len, &why))
        fail_msg("%s", why.text);
    return g;
}

/* Expects a refusal whose text has every one of the words. */
static void refuse(const struct buf *file, int code, const char *word,
                   const char *other)
{
    struct gguf *g;
    struct why why = {0};
    int rc = gguf_parse(&g, "f.gguf", file->data, file->len, &why);
    assert_int_equal(rc, code);
    assert_null(g);
    assert_non_null(strstr(why.text, "f.gguf"));
    if (!strstr(why.text, word) || !strstr(why.text, other))
        fail_msg("\"%s\" lacks \"%s\" or \"%s\"", why.text, word, other);
}

static void refuse_built(struct gguf_build *b, int code, const char *word,
                         const char *other)
{
    struct buf file;
    finish(b, &file);
    refuse(&file, code, word, other);
    buf_fini(&file);
}

static void values_come_back(void **state)
{
    (void)state;
    struct buf file;
    struct gguf *g = open_sample(&file, 3);
    uint64_t u = 1;
    double d = 0;
    bool yes = false;
    const char *text = NULL;
    assert_true(gguf_has(g, "x.count"));
    assert_false(gguf_has(g, "x.coun"));
    assert_int_equal(gguf_get_uint(g, "x.count", &u, NULL), 0);
    assert_int_equal(u, 42);
    assert_int_equal(gguf_get_uint(g, "absent", &u, NULL), 0);
    assert_int_equal(u, 42);
    assert_int_equal(gguf_get_real(g, "x.eps", &d, NULL), 0);
    assert_true(d == 0.5);
    assert_int_equal(gguf_get_real(g, "x.count", &d, NULL), 0);
    assert_true(d == 42);
    assert_int_equal(gguf_get_bool(g, "x.yes", &yes, NULL), 0);
    assert_true(yes);
    assert_int_equal(gguf_get_string(g, "general.architecture", &text, NULL),
                     0);
    assert_string_equal(text, "llama");

    struct gguf_string *words;
    int32_t *ints;
    float *floats;
    size_t n;
    assert_int_equal(gguf_get_string_array(g, "x.words", &words, &n, NULL), 0);
    assert_int_equal(n, 3);
    assert_int_equal(words[1].len, 0);
    assert_int_equal(words[2].len, 11);
    assert_memory_equal(words[2].data, "longer word", 11);
    mem_free(words);
    assert_int_equal(gguf_get_int_array(g, "x.ints", &ints, &n, NULL), 0);
    assert_int_equal(n, 3);
    assert_int_equal(ints[1], -1);
    mem_free(ints);
    assert_int_equal(gguf_get_f32_array(g, "x.floats", &floats, &n, NULL), 0);
    assert_int_equal(n, 2);
    assert_true(floats[0] == 0.5f && floats[1] == -2.0f);
    mem_free(floats);
    assert_int_equal(gguf_get_f32_array(g, "x.ints", &floats, &n, NULL),
                     ERR_FORMAT);
    assert_null(floats);
    assert_int_equal(gguf_get_int_array(g, "absent", &ints, &n, NULL), 0);
    assert_null(ints);

    assert_int_equal(gguf_tensor_count(g), 2);
    const struct stored_tensor *t = gguf_find(g, "t.a");
    assert_int_equal(t->type, DTYPE_F32);
    assert_int_equal(t->dims, 2);
    assert_int_equal(t->shape[0], 2);
    assert_int_equal(t->shape[1], 4);
    assert_int_equal(t->size, sizeof values);
    assert_memory_equal(t->bytes, values, sizeof values);
    assert_null(gguf_find(g, "t.c"));
    gguf_close(g);
    buf_fini(&file);
}

static void wrong_types_name_the_key(void **state)
{
    (void)state;
    struct buf file;
    struct gguf *g = open_sample(&file, 3);
    struct why why = {0};
    uint64_t u;
    double d;
    bool yes;
    const char *text;
    struct gguf_string *words;
    int32_t *ints;
    size_t n;
    assert_int_equal(gguf_get_uint(g, "x.eps", &u, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "x.eps"));
    assert_int_equal(gguf_get_real(g, "x.words", &d, NULL), ERR_FORMAT);
    assert_int_equal(gguf_get_bool(g, "x.count", &yes, NULL), ERR_FORMAT);
    assert_int_equal(gguf_get_string(g, "x.words", &text, NULL), ERR_FORMAT);
    assert_int_equal(gguf_get_string_array(g, "x.ints", &words, &n, NULL),
                     ERR_FORMAT);
    assert_int_equal(gguf_get_int_array(g, "x.words", &ints, &n, NULL),
                     ERR_FORMAT);
    gguf_close(g);
    buf_fini(&file);
}

/* Every prefix is refused with a text that names the file, and leaks
 * nothing. */
static void every_cut_is_refused(void **state)
{
    (void)state;
    struct gguf_build b;
    struct buf file;
    sample(&b);
    finish(&b, &file);
    size_t live = mem_live(), whole = file.len - 20; /* padding at the end */
    for (size_t n = 0; n < whole; n++) {
        struct gguf *g;
        struct why why = {0};
        char *copy = malloc(n + 1); /* so that ASan sees a byte too far */
        memcpy(copy, file.data, n);
        int rc = gguf_parse(&g, "f.gguf", copy, n, &why);
        free(copy);
        assert_int_equal(rc, ERR_FORMAT);
        assert_non_null(strstr(why.text, "f.gguf"));
        assert_int_equal(mem_live(), live);
    }
    buf_fini(&file);
}

static void lies_are_refused(void **state)
{
    (void)state;
    struct gguf_build b;
    struct buf file;
    const uint64_t huge[] = {1ull << 40, 1ull << 40};
    const uint64_t large[] = {1ull << 20, 4};

    sample(&b);
    gguf_build_u32(&b, "x.count", 1);
    refuse_built(&b, ERR_FORMAT, "x.count", "twice");
    sample(&b);
    gguf_build_tensor(&b, "t.a", 0, 2, two_by_four, values, sizeof values);
    refuse_built(&b, ERR_FORMAT, "t.a", "twice");
    sample(&b);
    gguf_build_tensor(&b, "t.big", 0, 2, large, values, sizeof values);
    refuse_built(&b, ERR_FORMAT, "t.big", "cut short");
    sample(&b);
    gguf_build_tensor(&b, "t.huge", 0, 2, huge, values, sizeof values);
    refuse_built(&b, ERR_FORMAT, "t.huge", "shape");
    sample(&b);
    gguf_build_tensor(&b, "t.none", 0, 1, (uint64_t[]){0}, values, 0);
    refuse_built(&b, ERR_FORMAT, "t.none", "shape");
    sample(&b);
    gguf_build_tensor(&b, "t.odd", gguf_build_type(DTYPE_Q8_0), 2, two_by_four,
                      values, sizeof values);
    refuse_built(&b, ERR_FORMAT, "t.odd", "q8_0");
    sample(&b);
    gguf_build_tensor(&b, "t.\n", 0, 2, two_by_four, values, sizeof values);
    refuse_built(&b, ERR_FORMAT, "tensor", "printable");
    sample(&b);
    gguf_build_u32(&b, "general.alignment", 48);
    refuse_built(&b, ERR_FORMAT, "general.alignment", "48");
    sample(&b);
    gguf_build_u32(&b, "split.count", 3);
    refuse_built(&b, ERR_UNSUPPORTED, "3 parts", "split");
    sample(&b);
    b.key_count = 1ull << 60;
    refuse_built(&b, ERR_FORMAT, "claims", "keys");
    sample(&b);
    b.tensor_count = 1ull << 60;
    refuse_built(&b, ERR_FORMAT, "claims", "tensors");
    sample(&b); /* the second tensor begins inside the first */
    memset(b.infos.data + b.infos.len - 8, 0, 8);
    refuse_built(&b, ERR_FORMAT, "t.b", "share");
    sample(&b);
    b.infos.data[b.infos.len - 8] = 4;
    refuse_built(&b, ERR_FORMAT, "t.b", "aligned");

    sample(&b);
    finish(&b, &file);
    file.data[4] = 1;
    refuse(&file, ERR_UNSUPPORTED, "version 1", "");
    memcpy(file.data + 4, "\0\0\0\3", 4);
    refuse(&file, ERR_UNSUPPORTED, "big-endian", "");
    file.data[0] = 'g';
    refuse(&file, ERR_FORMAT, "no GGUF", "");
    buf_fini(&file);
}

static void version_2_reads_alike(void **state)
{
    (void)state;
    struct buf file;
    struct gguf *g = open_sample(&file, 2);
    assert_non_null(gguf_find(g, "t.b"));
    gguf_close(g);
    buf_fini(&file);
}

/* A type that no operation takes may be in the file; binding it is refused
 * elsewhere, by name. */
static void foreign_types_stay_closed(void **state)
{
    (void)state;
    struct gguf_build b;
    struct buf file;
    struct gguf *g;
    sample(&b);
    gguf_build_tensor(&b, "t.q", 6, 1, (uint64_t[]){32}, values, 22);
    finish(&b, &file);
    assert_int_equal(gguf_parse(&g, "f", file.data, file.len, NULL), 0);
    assert_int_equal(gguf_find(g, "t.q")->type, -1);
    assert_string_equal(gguf_find(g, "t.q")->type_name, "q5_0");
    gguf_close(g);
    buf_fini(&file);
}

static void files_are_mapped(void **state)
{
    (void)state;
    struct gguf_build b;
    struct buf file;
    struct gguf *g;
    struct why why = {0};
    char path[] = "/tmp/baton-gguf-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(gguf_open(&g, path, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "empty"));
    assert_false(gguf_is(path));
    sample(&b);
    finish(&b, &file);
    assert_int_equal(write(fd, file.data, file.len), (ssize_t)file.len);
    close(fd);
    buf_fini(&file);
    size_t live = mem_live();
    assert_true(gguf_is(path));
    assert_int_equal(gguf_open(&g, path, &why), 0);
    assert_memory_equal(gguf_find(g, "t.b")->bytes, values, 12);
    gguf_close(g);
    assert_int_equal(mem_live(), live);
    unlink(path);
    assert_int_equal(gguf_open(&g, path, &why), ERR_NOT_FOUND);
    assert_non_null(strstr(why.text, path));
}

static void failed_allocations_are_errors(void **state)
{
    (void)state;
    struct gguf_build b;
    struct buf file;
    struct gguf *g = NULL;
    sample(&b);
    finish(&b, &file);
    size_t live = mem_live();
    int tries = 0;
    while (!g && tries < 100) {
        struct why why = {0};
        mem_fail_at((size_t)++tries);
        int rc = gguf_parse(&g, "f", file.data, file.len, &why);
        assert_int_equal(rc, g ? 0 : ERR_NOMEM);
        assert_true(g || mem_live() == live);
    }
    mem_fail_at(0);
    assert_in_range(tries, 8, 99);
    gguf_close(g);
    assert_int_equal(mem_live(), live);
    buf_fini(&file);
}

/* Part no (from 0) of count with one tensor, as a file. */
static void put_part(const char *dir, const char *name, uint32_t no,
                     uint32_t count, const char *tensor)
{
    struct gguf_build b;
    struct buf file;
    gguf_build_init(&b);
    gguf_build_string(&b, "general.architecture", no ? "" : "llama");
    gguf_build_u32(&b, "split.no", no);
    gguf_build_u32(&b, "split.count", count);
    gguf_build_u32(&b, "split.tensors.count", 2);
    gguf_build_tensor(&b, tensor, 0, 2, two_by_four, values, sizeof values);
    finish(&b, &file);
    temp_write(dir, name, file.data, file.len);
    buf_fini(&file);
}

static void refuse_parts(const char *dir, const char *name, int code,
                         const char *word)
{
    char path[4096];
    struct gguf *g;
    struct why why = {0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int rc = gguf_open(&g, path, &why);
    if (rc != code || !strstr(why.text, word))
        fail_msg("%s \"%s\" lacks \"%s\"", err_name(rc), why.text, word);
    assert_null(g);
}

static void split_models_are_one(void **state)
{
    (void)state;
    static const char one[] = "m-00001-of-00002.gguf";
    static const char two[] = "m-00002-of-00002.gguf";
    char *dir = temp_dir(), path[4096];
    struct gguf *g;
    struct why why = {0};
    size_t live = mem_live();
    put_part(dir, one, 0, 2, "t.a");
    refuse_parts(dir, one, ERR_NOT_FOUND, two);
    put_part(dir, two, 1, 2, "t.b");
    snprintf(path, sizeof path, "%s/%s", dir, one);
    if (gguf_open(&g, path, &why)) fail_msg("%s", why.text);
    assert_int_equal(gguf_tensor_count(g), 2);
    const struct stored_tensor *b = gguf_find(g, "t.b");
    assert_non_null(b);
    assert_non_null(strstr(b->file, two));
    assert_memory_equal(b->bytes, values, sizeof values);
    gguf_close(g);

    refuse_parts(dir, two, ERR_FORMAT, "give the first");
    put_part(dir, two, 1, 3, "t.b");
    refuse_parts(dir, one, ERR_FORMAT, "part 2 of 3");
    put_part(dir, two, 1, 2, "t.a");
    refuse_parts(dir, one, ERR_FORMAT, "t.a comes twice");
    put_part(dir, one, 5, 2, "t.a");
    refuse_parts(dir, one, ERR_FORMAT, "part 6 of 2");
    put_part(dir, "other.gguf", 0, 2, "t.a");
    refuse_parts(dir, "other.gguf", ERR_FORMAT, "whose name ends in");
    assert_int_equal(mem_live(), live);
    temp_remove(dir);
}

TESTS(T(values_come_back), T(wrong_types_name_the_key), T(every_cut_is_refused),
      T(lies_are_refused), T(version_2_reads_alike),
      T(foreign_types_stay_closed), T(files_are_mapped),
      T(failed_allocations_are_errors), T(split_models_are_one))
