#include "model/safetensors.h"
#include "model/file.h"
#include "base/mem.h"
#include "json/json.h"
#include "tensor/tensor.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_HEADER ((size_t)100 << 20) /* the reference reader's limit */
#define MAX_SHARDS 4096

/* Element types by the format's names; type -1: known, not computed with. */
static const struct {
    const char *name;
    unsigned bytes;
    int type;
} element_types[] = {
    {"F32", 4, DTYPE_F32}, {"F16", 2, DTYPE_F16}, {"BF16", 2, DTYPE_BF16},
    {"F64", 8, -1},        {"I64", 8, -1},        {"U64", 8, -1},
    {"I32", 4, -1},        {"U32", 4, -1},        {"I16", 2, -1},
    {"U16", 2, -1},        {"I8", 1, -1},         {"U8", 1, -1},
    {"BOOL", 1, -1},       {"F8_E4M3", 1, -1},    {"F8_E5M2", 1, -1},
    {"F8_E8M0", 1, -1},
};

struct shard {
    char *path; /* errors and stored_tensor.file */
    struct model_file file;
};

struct safetensors {
    struct shard *shards;
    size_t shard_count;
    struct stored_table tensors;
};

/* What read_entry needs to know of the shard. */
struct body {
    const char *path;
    const uint8_t *bytes; /* behind the header */
    uint64_t size;
    struct why *why;
};

static int entry_type(const struct body *b, const char *name,
                      const json_t *entry, struct stored_tensor *t,
                      unsigned *bytes)
{
    const char *type = json_string_value(json_object_get(entry, "dtype"));
    if (!type)
        return err_set(b->why, ERR_FORMAT, "%s: tensor %s has no dtype",
                       b->path, name);
    for (size_t i = 0; i < sizeof element_types / sizeof *element_types; i++)
        if (!strcmp(type, element_types[i].name)) {
            t->type = element_types[i].type;
            t->type_name = element_types[i].name;
            *bytes = element_types[i].bytes;
            return 0;
        }
    return err_set(b->why, ERR_UNSUPPORTED,
                   "%s: tensor %s has dtype \"%.32s\", which is not known",
                   b->path, name, type);
}

static int entry_shape(const struct body *b, const char *name,
                       const json_t *entry, struct stored_tensor *t)
{
    const json_t *shape = json_object_get(entry, "shape");
    size_t dims = json_array_size(shape);
    if (!json_is_array(shape) || dims > STORED_MAX_DIMS)
        return err_set(b->why, ERR_FORMAT,
                       "%s: tensor %s: shape is no list of at most %d numbers",
                       b->path, name, STORED_MAX_DIMS);
    t->dims = (uint32_t)dims;
    for (size_t i = 0; i < dims; i++) {
        const json_t *n = json_array_get(shape, i);
        if (!json_is_integer(n) || json_integer_value(n) < 0)
            return err_set(b->why, ERR_FORMAT,
                           "%s: tensor %s: shape[%zu] is no whole number",
                           b->path, name, i);
        t->shape[i] = (uint64_t)json_integer_value(n);
    }
    return 0;
}

static int entry_place(const struct body *b, const char *name,
                       const json_t *entry, struct stored_tensor *t,
                       unsigned element)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0);
    const json_t *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) ||
        !json_is_integer(end) || json_integer_value(begin) < 0 ||
        json_integer_value(end) < json_integer_value(begin))
        return err_set(b->why, ERR_FORMAT,
                       "%s: tensor %s: data_offsets are not [begin, end]",
                       b->path, name);
    uint64_t from = (uint64_t)json_integer_value(begin);
    uint64_t to = (uint64_t)json_integer_value(end), elements, bytes;
    if (to > b->size)
        return err_set(b->why, ERR_FORMAT,
                       "%s: tensor %s ends at offset %llu, the file at %llu; "
                       "was it cut short?",
                       b->path, name, (unsigned long long)to,
                       (unsigned long long)b->size);
    char text[128];
    if (stored_elements(t->shape, t->dims, &elements) ||
        __builtin_mul_overflow(elements, element, &bytes) || bytes != to - from)
        return err_set(b->why, ERR_FORMAT,
                       "%s: tensor %s: %s of %s are not the %llu bytes at "
                       "offset %llu",
                       b->path, name, stored_shape_text(t, text, sizeof text),
                       t->type_name, (unsigned long long)(to - from),
                       (unsigned long long)from);
    t->bytes = b->bytes + from;
    t->size = bytes;
    return 0;
}

static int read_entry(struct safetensors *s, const struct body *b,
                      const char *name, const json_t *entry)
{
    struct stored_tensor t = {0};
    unsigned element = 0;
    if (!stored_name_ok(name, strlen(name)))
        return err_set(b->why, ERR_FORMAT,
                       "%s: a tensor's name is empty, too long or not "
                       "printable",
                       b->path);
    if (!json_is_object(entry))
        return err_set(b->why, ERR_FORMAT, "%s: tensor %s is no object",
                       b->path, name);
    int rc = entry_type(b, name, entry, &t, &element);
    if (rc || (rc = entry_shape(b, name, entry, &t)) ||
        (rc = entry_place(b, name, entry, &t, element)))
        return rc;
    return stored_add(&s->tensors, &t, name, strlen(name), b->path, b->why);
}

static int read_entries(struct safetensors *s, const struct body *b,
                        json_t *header)
{
    int rc = stored_reserve(&s->tensors, json_object_size(header), b->why);
    const char *name;
    json_t *entry;
    uint64_t filled = 0;
    json_object_foreach (header, name, entry) {
        if (rc) return rc;
        if (!strcmp(name, "__metadata__")) continue;
        rc = read_entry(s, b, name, entry);
        if (!rc) filled += s->tensors.list[s->tensors.count - 1].size;
    }
    if (rc) return rc;
    /* With no overlap (stored_index) an equal sum means no hole either. */
    if (filled != b->size)
        return err_set(b->why, ERR_FORMAT,
                       "%s: tensors fill %llu of %llu bytes behind the header",
                       b->path, (unsigned long long)filled,
                       (unsigned long long)b->size);
    return 0;
}

static int read_shard(struct safetensors *s, const char *path,
                      const uint8_t *bytes, size_t size, struct why *why)
{
    uint64_t n;
    if (size < sizeof n)
        return err_set(why, ERR_FORMAT, "%s: %zu bytes are no safetensors file",
                       path, size);
    memcpy(&n, bytes, sizeof n);
    if (n > MAX_HEADER || n > size - sizeof n)
        return err_set(why, ERR_FORMAT,
                       "%s: claims a header of %llu bytes in a file of %zu; "
                       "was it cut short?",
                       path, (unsigned long long)n, size);
    json_t *header;
    struct why inner = {0};
    int rc = json_parse(&header, (const char *)bytes + sizeof n, n, &inner);
    if (rc) return err_set(why, rc, "%s: header: %s", path, inner.text);
    struct body b = {.path = path,
                     .bytes = bytes + sizeof n + n,
                     .size = size - sizeof n - n,
                     .why = why};
    if (json_is_object(header))
        rc = read_entries(s, &b, header);
    else
        rc = err_set(why, ERR_FORMAT, "%s: header is no JSON object", path);
    json_decref(header);
    return rc;
}

int safetensors_parse(struct safetensors **out, const char *name,
                      const void *bytes, size_t n, struct why *why)
{
    *out = NULL;
    struct safetensors *s = mem_must(1, sizeof *s);
    s->shards = mem_must(1, sizeof *s->shards);
    s->shards[0].path = mem_dup(name);
    s->shard_count = 1;
    int rc = read_shard(s, s->shards[0].path, bytes, n, why);
    if (!rc) rc = stored_index(&s->tensors, why);
    if (rc)
        safetensors_close(s);
    else
        *out = s;
    return rc;
}

static char *join(const char *folder, const char *name)
{
    size_t n = strlen(folder) + strlen(name) + 2;
    char *path = mem_must(n, 1);
    snprintf(path, n, "%s/%s", folder, name);
    return path;
}

/* The shards that the index names, each once. A name must stay inside the
 * folder. */
static int list_shards(struct safetensors *s, const char *folder,
                       const char *path, const json_t *map, struct why *why)
{
    const char *tensor;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)map, tensor, value) {
        const char *file = json_string_value(value);
        if (!file || !*file || strchr(file, '/') || strlen(file) > 255)
            return err_set(why, ERR_FORMAT,
                           "%s: weight_map of \"%.200s\" is no file name", path,
                           tensor);
        char *shard = join(folder, file);
        size_t i = 0;
        while (i < s->shard_count && strcmp(s->shards[i].path, shard))
            i++;
        if (i < s->shard_count || i == MAX_SHARDS) {
            mem_free(shard);
            if (i == MAX_SHARDS)
                return err_set(why, ERR_UNSUPPORTED, "%s: over %d shards", path,
                               MAX_SHARDS);
            continue;
        }
        s->shards[s->shard_count++].path = shard;
    }
    return 0;
}

/* Every tensor of the index must be where the index says. */
static int check_index(const struct safetensors *s, const char *path,
                       const json_t *map, struct why *why)
{
    const char *name;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)map, name, value) {
        const struct stored_tensor *t = stored_find(&s->tensors, name);
        const char *file = json_string_value(value);
        if (!t || strcmp(strrchr(t->file, '/') + 1, file))
            return err_set(why, ERR_FORMAT,
                           "%s: tensor %.200s is not in its shard %s", path,
                           name, file);
    }
    return 0;
}

static int open_shards(struct safetensors *s, struct why *why)
{
    for (size_t i = 0; i < s->shard_count; i++) {
        struct shard *shard = &s->shards[i];
        int rc = model_file_open(&shard->file, shard->path, why);
        if (!rc)
            rc = read_shard(s, shard->path, shard->file.bytes, shard->file.size,
                            why);
        if (rc) return rc;
    }
    return stored_index(&s->tensors, why);
}

static int open_index(struct safetensors *s, const char *folder,
                      const char *path, struct why *why)
{
    json_t *index;
    int rc = json_read(&index, path, MAX_HEADER, why);
    if (rc) return rc;
    const json_t *map = json_object_get(index, "weight_map");
    if (!json_object_size(map))
        rc = err_set(why, ERR_FORMAT, "%s: has no weight_map", path);
    if (!rc) rc = list_shards(s, folder, path, map, why);
    if (!rc) rc = open_shards(s, why);
    if (!rc) rc = check_index(s, path, map, why);
    json_decref(index);
    return rc;
}

/* The file called name or, where there is none, the only one whose name ends
 * in tail. NULL: no such file, or several. */
static char *find_one(const char *folder, const char *name, const char *tail)
{
    char *usual = join(folder, name), *found = NULL;
    if (access(usual, F_OK) == 0) return usual;
    mem_free(usual);
    DIR *dir = opendir(folder);
    size_t count = 0, n = strlen(tail);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        size_t len = strlen(e->d_name);
        if (len <= n || strcmp(e->d_name + len - n, tail) != 0) continue;
        if (count++ == 0) found = join(folder, e->d_name);
    }
    if (dir) closedir(dir);
    if (count == 1) return found;
    mem_free(found);
    return NULL;
}

int safetensors_open(struct safetensors **out, const char *folder,
                     struct why *why)
{
    *out = NULL;
    struct safetensors *s = mem_must(1, sizeof *s);
    s->shards = mem_must(MAX_SHARDS, sizeof *s->shards);
    char *index = find_one(folder, "model.safetensors.index.json",
                           ".safetensors.index.json");
    int rc;
    if (index) {
        rc = open_index(s, folder, index, why);
    } else {
        char *only = find_one(folder, "model.safetensors", ".safetensors");
        s->shards[s->shard_count++].path =
            only ? only : join(folder, "model.safetensors");
        rc = open_shards(s, why);
    }
    mem_free(index);
    if (rc)
        safetensors_close(s);
    else
        *out = s;
    return rc;
}

void safetensors_close(struct safetensors *s)
{
    if (!s) return;
    for (size_t i = 0; i < s->shard_count; i++) {
        model_file_close(&s->shards[i].file);
        mem_free(s->shards[i].path);
    }
    mem_free(s->shards);
    stored_fini(&s->tensors);
    mem_free(s);
}

size_t safetensors_tensor_count(const struct safetensors *s)
{
    return s->tensors.count;
}

const struct stored_tensor *safetensors_tensor(const struct safetensors *s,
                                               size_t index)
{
    return &s->tensors.list[index];
}

const struct stored_tensor *safetensors_find(const struct safetensors *s,
                                             const char *name)
{
    return stored_find(&s->tensors, name);
}
