#include "tests/test.h"
#include "tests/temp.h"
#include "base/buf.h"
#include "base/mem.h"
#include "model/safetensors.h"
#include "tensor/tensor.h"

static const char two[] =
    "{\"__metadata__\":{\"format\":\"pt\"},"
    "\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
    "\"b\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[16,22]}}";

/* A file of header and n bytes of data that count up. */
static void build(struct buf *file, const char *header, size_t n)
{
    uint64_t len = strlen(header);
    buf_init(file, 1 << 20);
    buf_add(file, &len, sizeof len);
    buf_puts(file, header);
    for (size_t i = 0; i < n; i++)
        buf_putc(file, (char)i);
}

static void refuse(const char *header, size_t n, int code, const char *word,
                   const char *other)
{
    struct buf file;
    struct safetensors *s;
    struct why why = {0};
    size_t live = mem_live();
    build(&file, header, n);
    int rc = safetensors_parse(&s, "f.safetensors", file.data, file.len, &why);
    assert_int_equal(rc, code);
    assert_null(s);
    assert_non_null(strstr(why.text, "f.safetensors"));
    if (!strstr(why.text, word) || !strstr(why.text, other))
        fail_msg("\"%s\" lacks \"%s\" or \"%s\"", why.text, word, other);
    buf_fini(&file);
    assert_int_equal(mem_live(), live);
}

static void tensors_come_back(void **state)
{
    (void)state;
    struct buf file;
    struct safetensors *s;
    build(&file, two, 22);
    assert_int_equal(safetensors_parse(&s, "f", file.data, file.len, NULL), 0);
    assert_int_equal(safetensors_tensor_count(s), 2);
    const struct stored_tensor *a = safetensors_find(s, "a");
    const struct stored_tensor *b = safetensors_find(s, "b");
    assert_int_equal(a->type, DTYPE_F32);
    assert_int_equal(a->dims, 2);
    assert_int_equal(a->shape[1], 2);
    assert_int_equal(a->size, 16);
    assert_int_equal(b->type, DTYPE_BF16);
    assert_int_equal(b->shape[0], 3);
    assert_int_equal(b->bytes[0], 16);
    assert_null(safetensors_find(s, "__metadata__"));
    safetensors_close(s);
    buf_fini(&file);
}

static void lies_are_refused(void **state)
{
    (void)state;
#define A    "\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}"
#define B(o) ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":" o "}"
    refuse("{" A, 16, ERR_FORMAT, "JSON", "line");
    refuse("[]", 0, ERR_FORMAT, "object", "");
    refuse("{" A "}", 15, ERR_FORMAT, "a ends", "cut short");
    refuse("{" A "}", 17, ERR_FORMAT, "16 of 17", "");
    refuse("{" A "," A "}", 16, ERR_FORMAT, "duplicate", "");
    refuse("{" A B("[12,16]") "}", 20, ERR_FORMAT, "b", "share");
    refuse("{" A B("[12,16]") "}", 16, ERR_FORMAT, "fill", "");
    refuse("{" A B("[20,24]") "}", 24, ERR_FORMAT, "fill 20 of 24", "");
    refuse("{" A B("[16,22]") "}", 22, ERR_FORMAT, "b", "[1] of F32");
    refuse("{" A B("[20,16]") "}", 20, ERR_FORMAT, "b", "data_offsets");
    refuse("{" A B("[-4,0]") "}", 20, ERR_FORMAT, "b", "data_offsets");
    refuse("{" A B("[16]") "}", 20, ERR_FORMAT, "b", "data_offsets");
    refuse("{" A B("[16,20.0]") "}", 20, ERR_FORMAT, "b", "data_offsets");
    refuse("{\"a\":1}", 0, ERR_FORMAT, "a", "object");
    refuse("{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, ERR_FORMAT, "a",
           "dtype");
    refuse("{\"a\":{\"dtype\":\"Q4\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
           ERR_UNSUPPORTED, "a", "Q4");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],"
           "\"data_offsets\":[0,4]}}",
           4, ERR_FORMAT, "a", "shape[0]");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],"
           "\"data_offsets\":[0,4]}}",
           4, ERR_FORMAT, "a", "shape");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,"
           "4611686018427387904],\"data_offsets\":[0,4]}}",
           4, ERR_FORMAT, "a", "F32");
    refuse("{\"\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
           ERR_FORMAT, "name", "");
#undef A
#undef B
}

static void every_cut_is_refused(void **state)
{
    (void)state;
    struct buf file;
    build(&file, two, 22);
    for (size_t n = 0; n < file.len; n++) {
        struct safetensors *s;
        struct why why = {0};
        char *copy = malloc(n + 1);
        memcpy(copy, file.data, n);
        assert_int_equal(safetensors_parse(&s, "f.st", copy, n, &why),
                         ERR_FORMAT);
        assert_non_null(strstr(why.text, "f.st"));
        free(copy);
    }
    buf_fini(&file);
}

/* --- folders ---------------------------------------------------------- */

static void put_shard(const char *dir, const char *name, const char *header,
                      size_t n)
{
    struct buf file;
    build(&file, header, n);
    temp_write(dir, name, file.data, file.len);
    buf_fini(&file);
}

static void put_shards(const char *dir)
{
    put_shard(dir, "s1.safetensors",
              "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],"
              "\"data_offsets\":[0,4]}}",
              4);
    put_shard(dir, "s2.safetensors",
              "{\"b\":{\"dtype\":\"F16\",\"shape\":[2],"
              "\"data_offsets\":[0,4]}}",
              4);
}

static void put_index(const char *dir, const char *text)
{
    temp_write(dir, "model.safetensors.index.json", text, strlen(text));
}

static void refuse_folder(const char *dir, int code, const char *word)
{
    struct safetensors *s;
    struct why why = {0};
    size_t live = mem_live();
    assert_int_equal(safetensors_open(&s, dir, &why), code);
    if (!strstr(why.text, word))
        fail_msg("\"%s\" lacks \"%s\"", why.text, word);
    assert_int_equal(mem_live(), live);
}

static void folders_open(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct safetensors *s;
    struct why why = {0};
    refuse_folder(dir, ERR_NOT_FOUND, "model.safetensors");
    put_shard(dir, "model.safetensors", two, 22);
    assert_int_equal(safetensors_open(&s, dir, &why), 0);
    assert_non_null(safetensors_find(s, "b"));
    safetensors_close(s);

    put_shards(dir); /* an index goes before the single file */
    put_index(dir, "{\"weight_map\":{\"a\":\"s1.safetensors\","
                   "\"b\":\"s2.safetensors\"}}");
    assert_int_equal(safetensors_open(&s, dir, &why), 0);
    assert_int_equal(safetensors_tensor_count(s), 2);
    assert_int_equal(safetensors_find(s, "b")->type, DTYPE_F16);
    safetensors_close(s);
    temp_remove(dir);
}

static void bad_folders_are_refused(void **state)
{
    (void)state;
    char *dir = temp_dir();
    put_shards(dir);
    put_index(dir, "{\"weight_map\":{\"a\":\"s1.safetensors\","
                   "\"b\":\"s1.safetensors\"}}");
    refuse_folder(dir, ERR_FORMAT, "b is not in its shard");
    put_index(dir, "{\"weight_map\":{\"a\":\"s1.safetensors\","
                   "\"c\":\"s2.safetensors\"}}");
    refuse_folder(dir, ERR_FORMAT, "c is not in its shard");
    put_index(dir, "{\"weight_map\":{\"a\":\"s1.safetensors\","
                   "\"b\":\"s3.safetensors\"}}");
    refuse_folder(dir, ERR_NOT_FOUND, "s3.safetensors");
    put_index(dir, "{\"weight_map\":{\"a\":\"../s1.safetensors\"}}");
    refuse_folder(dir, ERR_FORMAT, "no file name");
    put_index(dir, "{\"weight_map\":{\"a\":7}}");
    refuse_folder(dir, ERR_FORMAT, "no file name");
    put_index(dir, "{}");
    refuse_folder(dir, ERR_FORMAT, "weight_map");
    put_index(dir, "{");
    refuse_folder(dir, ERR_FORMAT, "index.json");

    put_shard(dir, "s2.safetensors", two, 22); /* has a as well */
    put_index(dir, "{\"weight_map\":{\"a\":\"s1.safetensors\","
                   "\"b\":\"s2.safetensors\"}}");
    refuse_folder(dir, ERR_FORMAT, "a comes twice");
    put_shard(dir, "s2.safetensors", two, 9);
    refuse_folder(dir, ERR_FORMAT, "cut short");
    temp_remove(dir);
}

TESTS(T(tensors_come_back), T(lies_are_refused), T(every_cut_is_refused),
      T(folders_open), T(bad_folders_are_refused))
