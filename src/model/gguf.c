/* Metadata values are left where they are in the file: opening walks over
 * them once, checks their lengths and notes where each begins. Only keys and
 * strings that stand alone are copied, to end them with a 0. Getters of
 * metadata: gguf_get.c. */
#include "model/gguf_impl.h"
#include "base/mem.h"
#include "tensor/tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PARTS = 4096 }; /* of a split model */

/* ggml's numbers of tensor types, those that exist but that no operation
 * takes included, so that an error can name them. */
static const struct {
    uint32_t id;
    int type;
    const char *name;
    uint32_t elems, bytes; /* of a block of those that matrix.h converts */
} tensor_types[] = {
    {0, DTYPE_F32, "f32", 0, 0},    {1, DTYPE_F16, "f16", 0, 0},
    {2, DTYPE_Q4_0, "q4_0", 0, 0},  {3, DTYPE_Q4_1, "q4_1", 0, 0},
    {6, -1, "q5_0", 32, 22},        {7, -1, "q5_1", 32, 24},
    {8, DTYPE_Q8_0, "q8_0", 0, 0},  {9, -1, "q8_1", 0, 0},
    {10, -1, "q2_k", 256, 84},      {11, -1, "q3_k", 256, 110},
    {12, DTYPE_Q4_K, "q4_k", 0, 0}, {13, DTYPE_Q5_K, "q5_k", 0, 0},
    {14, DTYPE_Q6_K, "q6_k", 0, 0}, {15, -1, "q8_k", 0, 0},
    {16, -1, "iq2_xxs", 0, 0},      {17, -1, "iq2_xs", 0, 0},
    {18, -1, "iq3_xxs", 0, 0},      {19, -1, "iq1_s", 0, 0},
    {20, -1, "iq4_nl", 32, 18},     {21, -1, "iq3_s", 0, 0},
    {22, -1, "iq2_s", 0, 0},        {23, -1, "iq4_xs", 256, 136},
    {24, -1, "i8", 0, 0},           {25, -1, "i16", 0, 0},
    {26, -1, "i32", 0, 0},          {27, -1, "i64", 0, 0},
    {28, -1, "f64", 0, 0},          {29, -1, "iq1_m", 0, 0},
    {30, DTYPE_BF16, "bf16", 0, 0}, {34, -1, "tq1_0", 0, 0},
    {35, -1, "tq2_0", 0, 0},        {39, -1, "mxfp4", 0, 0},
};

/* A place in the file, moving forward. */
struct reader {
    const char *name;
    const uint8_t *bytes;
    size_t size, at;
    struct why *why;
};

static int too_short(struct reader *r, const char *what)
{
    return err_set(r->why, ERR_FORMAT,
                   "%s: ends at byte %zu, within %s that begins at byte %zu",
                   r->name, r->size, what, r->at);
}

static int read_u32(struct reader *r, uint32_t *out, const char *what)
{
    if (r->size - r->at < sizeof *out) return too_short(r, what);
    memcpy(out, r->bytes + r->at, sizeof *out);
    r->at += sizeof *out;
    return 0;
}

static int read_u64(struct reader *r, uint64_t *out, const char *what)
{
    if (r->size - r->at < sizeof *out) return too_short(r, what);
    memcpy(out, r->bytes + r->at, sizeof *out);
    r->at += sizeof *out;
    return 0;
}

static int read_string(struct reader *r, struct gguf_string *out,
                       const char *what)
{
    uint64_t n = 0;
    int rc = read_u64(r, &n, what);
    if (rc) return rc;
    if (n > r->size - r->at)
        return err_set(r->why, ERR_FORMAT,
                       "%s: %s at byte %zu claims %llu bytes, %zu are left",
                       r->name, what, r->at - sizeof n, (unsigned long long)n,
                       r->size - r->at);
    out->data = (const char *)r->bytes + r->at;
    out->len = n;
    r->at += n;
    return 0;
}

/* A key or a tensor's name. */
static int read_name(struct reader *r, struct gguf_string *out,
                     const char *what)
{
    size_t at = r->at;
    int rc = read_string(r, out, what);
    if (rc || stored_name_ok(out->data, out->len)) return rc;
    return err_set(r->why, ERR_FORMAT,
                   "%s: %s at byte %zu is empty, too long or not printable",
                   r->name, what, at);
}

static int skip_elements(struct reader *r, struct gguf_value *v)
{
    size_t bytes;
    struct gguf_string s;
    if (v->type == GGUF_STRING) {
        /* Each is at least its length; so the count cannot run for ever. */
        for (uint64_t i = 0; i < v->count; i++) {
            int rc = read_string(r, &s, v->key);
            if (rc) return rc;
        }
        return 0;
    }
    if (__builtin_mul_overflow(v->count, gguf_value_bytes[v->type], &bytes) ||
        bytes > r->size - r->at)
        return err_set(r->why, ERR_FORMAT,
                       "%s: key %s at byte %zu claims %llu values of %s, "
                       "%zu bytes are left",
                       r->name, v->key, v->at, (unsigned long long)v->count,
                       gguf_value_names[v->type], r->size - r->at);
    r->at += bytes;
    return 0;
}

static int copy_text(struct reader *r, struct gguf_value *v)
{
    struct reader back = *r;
    struct gguf_string s;
    back.at = (size_t)(v->bytes - r->bytes);
    int rc = read_string(&back, &s, v->key);
    if (rc) return rc;
    v->text = mem_try(s.len + 1, 1, 0);
    if (!v->text)
        return err_set(r->why, ERR_NOMEM, "%s: key %s", r->name, v->key);
    memcpy(v->text, s.data, s.len);
    v->text_len = s.len;
    return 0;
}

static int bad_type(struct reader *r, const struct gguf_value *v, uint32_t type)
{
    return err_set(r->why, ERR_FORMAT,
                   "%s: key %s at byte %zu has type %u%s, which is not known",
                   r->name, v->key, v->at, type,
                   type == GGUF_ARRAY ? " (an array) within an array" : "");
}

static int read_value(struct reader *r, struct gguf_value *v)
{
    struct gguf_string key;
    v->at = r->at;
    int rc = read_name(r, &key, "a key");
    if (rc) return rc;
    v->key = mem_try(key.len + 1, 1, 0);
    if (!v->key) return err_set(r->why, ERR_NOMEM, "%s: keys", r->name);
    memcpy(v->key, key.data, key.len);

    uint32_t type;
    if ((rc = read_u32(r, &type, v->key))) return rc;
    v->count = 1;
    v->array = type == GGUF_ARRAY;
    if (v->array) {
        if ((rc = read_u32(r, &type, v->key)) ||
            (rc = read_u64(r, &v->count, v->key)))
            return rc;
    }
    if (type >= GGUF_COUNT || type == GGUF_ARRAY) return bad_type(r, v, type);
    v->type = (enum gguf_value_type)type;
    v->bytes = r->bytes + r->at;
    if ((rc = skip_elements(r, v))) return rc;
    return v->type == GGUF_STRING && !v->array ? copy_text(r, v) : 0;
}

static int key_order(const void *a, const void *b)
{
    const struct gguf_value *x = a, *y = b;
    return strcmp(x->key, y->key);
}

static int read_values(struct gguf *g, struct reader *r, uint64_t count)
{
    /* key length, one byte of key, type, one byte of value */
    if (count > (r->size - r->at) / 14)
        return err_set(r->why, ERR_FORMAT,
                       "%s: claims %llu keys in a file of %zu bytes", r->name,
                       (unsigned long long)count, r->size);
    g->values = mem_try(count, sizeof *g->values, 0);
    if (!g->values)
        return err_set(r->why, ERR_NOMEM, "%s: %llu keys", r->name,
                       (unsigned long long)count);
    while (g->value_count < count) {
        int rc = read_value(r, &g->values[g->value_count++]);
        if (rc) return rc;
    }
    qsort(g->values, g->value_count, sizeof *g->values, key_order);
    for (size_t i = 1; i < g->value_count; i++)
        if (!strcmp(g->values[i - 1].key, g->values[i].key))
            return err_set(r->why, ERR_FORMAT,
                           "%s: key %s comes twice, at bytes %zu and %zu",
                           r->name, g->values[i].key, g->values[i - 1].at,
                           g->values[i].at);
    return 0;
}

/* Type, and the bytes that it and the shape ask for. */
static int tensor_type(struct reader *r, struct stored_tensor *t, uint32_t id,
                       const char *name)
{
    uint64_t block = 0, block_bytes = 0;
    t->type = -1;
    t->type_name = "a type not known";
    for (size_t i = 0; i < sizeof tensor_types / sizeof *tensor_types; i++)
        if (tensor_types[i].id == id) {
            t->type = tensor_types[i].type;
            t->type_name = tensor_types[i].name;
            block = tensor_types[i].elems;
            block_bytes = tensor_types[i].bytes;
        }
    uint64_t elements;
    int rc = stored_elements(t->shape, t->dims, &elements);
    if (rc || elements == 0)
        return err_set(r->why, ERR_FORMAT,
                       "%s: tensor %s has an impossible shape", r->name, name);
    if (t->type < 0 && !block) return 0;
    uint64_t cols = t->shape[t->dims - 1];
    size_t row = t->type >= 0 ? dtype_row_bytes((enum dtype)t->type, cols)
                 : cols % block == 0 ? cols / block * block_bytes
                                     : 0;
    if (!row)
        return err_set(r->why, ERR_FORMAT,
                       "%s: tensor %s: rows of %llu are no whole blocks of %s",
                       r->name, name, (unsigned long long)cols, t->type_name);
    if (__builtin_mul_overflow(row, elements / cols, &t->size))
        return err_set(r->why, ERR_FORMAT,
                       "%s: tensor %s has an impossible shape", r->name, name);
    return 0;
}

/* bytes holds the offset until the data's beginning is known. */
static int read_tensor(struct gguf *g, struct reader *r)
{
    struct gguf_string name;
    struct stored_tensor t = {0};
    int rc = read_name(r, &name, "a tensor's name");
    if (rc) return rc;
    char text[1025];
    snprintf(text, sizeof text, "%.*s", (int)name.len, name.data);
    size_t at = r->at;
    if ((rc = read_u32(r, &t.dims, text))) return rc;
    if (t.dims < 1 || t.dims > STORED_MAX_DIMS)
        return err_set(r->why, ERR_FORMAT,
                       "%s: tensor %s at byte %zu has %u dimensions", r->name,
                       text, at, t.dims);
    for (uint32_t i = t.dims; i-- > 0;) /* innermost first in the file */
        if ((rc = read_u64(r, &t.shape[i], text))) return rc;
    uint32_t type;
    uint64_t offset;
    if ((rc = read_u32(r, &type, text)) || (rc = read_u64(r, &offset, text)) ||
        (rc = tensor_type(r, &t, type, text)))
        return rc;
    t.bytes = (const uint8_t *)(uintptr_t)offset;
    return stored_add(&g->tensors, &t, name.data, name.len, g->name, r->why);
}

static int place_tensors(struct gguf *g, struct reader *r)
{
    uint64_t align = 32;
    int rc = gguf_get_uint(g, "general.alignment", &align, r->why);
    if (rc) return rc;
    if (align < 8 || align & (align - 1) || align > 1 << 20)
        return err_set(r->why, ERR_FORMAT,
                       "%s: general.alignment is %llu, no power of two from 8",
                       r->name, (unsigned long long)align);
    size_t data = (r->at + align - 1) & ~(align - 1);
    for (size_t i = 0; i < g->tensors.count; i++) {
        struct stored_tensor *t = &g->tensors.list[i];
        uint64_t offset = (uintptr_t)t->bytes;
        if (offset % align)
            return err_set(r->why, ERR_FORMAT,
                           "%s: tensor %s at offset %llu is not aligned to "
                           "%llu",
                           r->name, t->name, (unsigned long long)offset,
                           (unsigned long long)align);
        if (data > r->size || offset > r->size - data ||
            t->size > r->size - data - offset)
            return err_set(r->why, ERR_FORMAT,
                           "%s: tensor %s (%zu bytes at %llu) ends past the "
                           "file's %zu bytes; was it cut short?",
                           r->name, t->name, t->size,
                           (unsigned long long)(data + offset), r->size);
        t->bytes = r->bytes + data + offset;
    }
    return stored_index(&g->tensors, r->why);
}

static int read_header(struct reader *r, uint64_t *tensors, uint64_t *keys)
{
    uint32_t magic, version;
    int rc = read_u32(r, &magic, "the header");
    if (rc) return rc;
    if (memcmp(r->bytes, "GGUF", 4))
        return err_set(r->why, ERR_FORMAT, "%s: is no GGUF file", r->name);
    if ((rc = read_u32(r, &version, "the header"))) return rc;
    if (version && !(version & 0xffff))
        return err_set(r->why, ERR_UNSUPPORTED, "%s: is a big-endian GGUF file",
                       r->name);
    if (version != 2 && version != 3)
        return err_set(r->why, ERR_UNSUPPORTED,
                       "%s: is GGUF version %u; 2 and 3 are read", r->name,
                       version);
    if ((rc = read_u64(r, tensors, "the header"))) return rc;
    return read_u64(r, keys, "the header");
}

static int read_all(struct gguf *g, struct reader *r)
{
    uint64_t tensors, keys;
    int rc = read_header(r, &tensors, &keys);
    if (rc || (rc = read_values(g, r, keys))) return rc;
    /* name length, one byte of name, dims, one dim, type, offset */
    if (tensors > (r->size - r->at) / 33)
        return err_set(r->why, ERR_FORMAT,
                       "%s: claims %llu tensors in a file of %zu bytes",
                       r->name, (unsigned long long)tensors, r->size);
    if ((rc = stored_reserve(&g->tensors, tensors, r->why))) return rc;
    for (uint64_t i = 0; i < tensors; i++)
        if ((rc = read_tensor(g, r))) return rc;
    return place_tensors(g, r);
}

static int parse(struct gguf **out, const char *name, const void *bytes,
                 size_t n, struct why *why)
{
    *out = NULL;
    struct gguf *g = mem_must(1, sizeof *g);
    g->name = mem_dup(name);
    struct reader r = {.name = g->name, .bytes = bytes, .size = n, .why = why};
    int rc = read_all(g, &r);
    if (rc)
        gguf_close(g);
    else
        *out = g;
    return rc;
}

/* --- split models ------------------------------------------------------ */

/* Which part of how many g is; 0 of 1 where it is whole. */
static int read_split(const struct gguf *g, uint64_t *no, uint64_t *count,
                      struct why *why)
{
    *no = 0;
    *count = 1;
    int rc = gguf_get_uint(g, "split.count", count, why);
    if (!rc) rc = gguf_get_uint(g, "split.no", no, why);
    if (!rc && *count == 0) *count = 1;
    if (!rc && (*no >= *count || *count > MAX_PARTS))
        return err_set(why, ERR_FORMAT, "%s: claims to be part %llu of %llu",
                       g->name, (unsigned long long)*no + 1,
                       (unsigned long long)*count);
    return rc;
}

int gguf_parse(struct gguf **out, const char *name, const void *bytes, size_t n,
               struct why *why)
{
    uint64_t no, count;
    int rc = parse(out, name, bytes, n, why);
    if (rc) return rc;
    rc = read_split(*out, &no, &count, why);
    if (!rc && count > 1)
        rc = err_set(why, ERR_UNSUPPORTED,
                     "%s: is one of %llu parts of a split model", name,
                     (unsigned long long)count);
    if (!rc) return 0;
    gguf_close(*out);
    *out = NULL;
    return rc;
}

static int open_file(struct gguf **out, const char *path, struct why *why)
{
    struct model_file file;
    *out = NULL;
    int rc = model_file_open(&file, path, why);
    if (rc) return rc;
    rc = parse(out, path, file.bytes, file.size, why);
    if (rc)
        model_file_close(&file);
    else
        (*out)->file = file;
    return rc;
}

/* Opens part no (from 0) and takes its tensors into g's table. */
static int open_part(struct gguf *g, const char *stem, uint64_t no,
                     uint64_t count, struct why *why)
{
    char path[4096];
    uint64_t is_no, is_count;
    struct gguf *part;
    snprintf(path, sizeof path, "%s-%05u-of-%05u.gguf", stem, (unsigned)no + 1,
             (unsigned)count);
    int rc = open_file(&part, path, why);
    if (rc) return rc;
    g->parts[g->part_count++] = part;
    if ((rc = read_split(part, &is_no, &is_count, why))) return rc;
    if (is_no != no || is_count != count)
        return err_set(why, ERR_FORMAT, "%s: claims to be part %llu of %llu",
                       path, (unsigned long long)is_no + 1,
                       (unsigned long long)is_count);
    size_t n = part->tensors.count;
    if ((rc = stored_reserve(&g->tensors, n, why))) return rc;
    for (size_t i = 0; i < n && !rc; i++) {
        const struct stored_tensor *t = &part->tensors.list[i];
        rc = stored_add(&g->tensors, t, t->name, strlen(t->name), t->file, why);
    }
    return rc;
}

/* path is STEM-00001-of-0000N.gguf and g what it holds. */
static int open_parts(struct gguf *g, const char *path, uint64_t no,
                      uint64_t count, struct why *why)
{
    char stem[4096], tail[64];
    uint64_t tensors = 0;
    int n = snprintf(tail, sizeof tail, "-00001-of-%05u.gguf", (unsigned)count);
    size_t len = strlen(path);
    if (no != 0 || len < (size_t)n || len >= sizeof stem ||
        strcmp(path + len - n, tail) != 0)
        return err_set(why, ERR_FORMAT,
                       "%s: is part %llu of a split model; give the first, "
                       "whose name ends in %s",
                       path, (unsigned long long)no + 1, tail);
    snprintf(stem, sizeof stem, "%.*s", (int)(len - (size_t)n), path);
    g->parts = mem_must(count, sizeof(struct gguf *));
    int rc = 0;
    for (uint64_t i = 1; i < count && !rc; i++)
        rc = open_part(g, stem, i, count, why);
    if (!rc) rc = gguf_get_uint(g, "split.tensors.count", &tensors, why);
    if (!rc && tensors && tensors != g->tensors.count)
        rc = err_set(why, ERR_FORMAT, "%s: %zu tensors in all parts, not %llu",
                     path, g->tensors.count, (unsigned long long)tensors);
    return rc ? rc : stored_index(&g->tensors, why);
}

int gguf_open(struct gguf **out, const char *path, struct why *why)
{
    uint64_t no, count;
    int rc = open_file(out, path, why);
    if (rc) return rc;
    rc = read_split(*out, &no, &count, why);
    if (!rc && count > 1) rc = open_parts(*out, path, no, count, why);
    if (!rc) return 0;
    gguf_close(*out);
    *out = NULL;
    return rc;
}

void gguf_close(struct gguf *g)
{
    if (!g) return;
    for (size_t i = 0; i < g->value_count; i++) {
        mem_free(g->values[i].key);
        mem_free(g->values[i].text);
    }
    mem_free(g->values);
    for (size_t i = 0; i < g->part_count; i++)
        gguf_close(g->parts[i]);
    mem_free(g->parts);
    stored_fini(&g->tensors);
    model_file_close(&g->file);
    mem_free(g->name);
    mem_free(g);
}

bool gguf_is(const char *path)
{
    char magic[4] = {0};
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    bool yes = fread(magic, 1, 4, f) == 4 && !memcmp(magic, "GGUF", 4);
    fclose(f);
    return yes;
}

/* --- tensors ---------------------------------------------------------- */

size_t gguf_tensor_count(const struct gguf *g)
{
    return g->tensors.count;
}

const struct stored_tensor *gguf_tensor(const struct gguf *g, size_t index)
{
    return &g->tensors.list[index];
}

const struct stored_tensor *gguf_find(const struct gguf *g, const char *name)
{
    return stored_find(&g->tensors, name);
}
