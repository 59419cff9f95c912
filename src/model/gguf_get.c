/* Metadata of a GGUF file, found by key and checked against what is asked
 * for. */
#include "base/mem.h"
#include "model/gguf_impl.h"

#include <string.h>

const uint8_t gguf_value_bytes[GGUF_COUNT] = {1, 1, 2, 2, 4, 4, 4,
                                              1, 0, 0, 8, 8, 8};
const char *const gguf_value_names[GGUF_COUNT] = {
    "u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
    "bool", "string", "array", "u64", "i64", "f64"};

static const struct gguf_value *find(const struct gguf *g, const char *key)
{
    size_t low = 0, high = g->value_count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = strcmp(key, g->values[mid].key);
        if (!order) return &g->values[mid];
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

static int mismatch(const struct gguf *g, const struct gguf_value *v,
                    const char *wanted, struct why *why)
{
    return err_set(why, ERR_FORMAT, "%s: key %s is %s%s, not %s", g->name,
                   v->key, v->array ? "an array of " : "",
                   gguf_value_names[v->type], wanted);
}

/* Element i of a value of a whole-number type; false for other types, and
 * for what passes INT64_MAX. */
static bool whole(const struct gguf_value *v, uint64_t i, int64_t *out)
{
    const uint8_t *p = v->bytes + i * gguf_value_bytes[v->type];
    uint64_t u = 0;
    memcpy(&u, p, v->type == GGUF_STRING ? 0 : gguf_value_bytes[v->type]);
    switch (v->type) {
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32: *out = (int64_t)u; return true;
    case GGUF_I8: *out = (int8_t)u; return true;
    case GGUF_I16: *out = (int16_t)u; return true;
    case GGUF_I32: *out = (int32_t)u; return true;
    case GGUF_I64: *out = (int64_t)u; return true;
    case GGUF_U64: *out = (int64_t)u; return u <= INT64_MAX;
    default: return false;
    }
}

bool gguf_has(const struct gguf *g, const char *key)
{
    return find(g, key) != NULL;
}

int gguf_get_uint(const struct gguf *g, const char *key, uint64_t *out,
                  struct why *why)
{
    const struct gguf_value *v = find(g, key);
    int64_t i;
    if (!v) return 0;
    if (v->array || !whole(v, 0, &i) || i < 0)
        return mismatch(g, v, "a whole number, not negative", why);
    *out = (uint64_t)i;
    return 0;
}

int gguf_get_real(const struct gguf *g, const char *key, double *out,
                  struct why *why)
{
    const struct gguf_value *v = find(g, key);
    int64_t i;
    float f;
    if (!v) return 0;
    if (v->array) return mismatch(g, v, "a number", why);
    if (v->type == GGUF_F32) {
        memcpy(&f, v->bytes, sizeof f);
        *out = f;
    } else if (v->type == GGUF_F64) {
        memcpy(out, v->bytes, sizeof *out);
    } else if (whole(v, 0, &i)) {
        *out = (double)i;
    } else {
        return mismatch(g, v, "a number", why);
    }
    return 0;
}

int gguf_get_bool(const struct gguf *g, const char *key, bool *out,
                  struct why *why)
{
    const struct gguf_value *v = find(g, key);
    if (!v) return 0;
    if (v->array || v->type != GGUF_BOOL || v->bytes[0] > 1)
        return mismatch(g, v, "true or false", why);
    *out = v->bytes[0] == 1;
    return 0;
}

int gguf_get_string(const struct gguf *g, const char *key, const char **out,
                    struct why *why)
{
    const struct gguf_value *v = find(g, key);
    if (!v) return 0;
    if (v->array || v->type != GGUF_STRING)
        return mismatch(g, v, "a string", why);
    if (strlen(v->text) != v->text_len)
        return err_set(why, ERR_FORMAT, "%s: key %s holds a 0 byte", g->name,
                       key);
    *out = v->text;
    return 0;
}

static int no_room(const struct gguf *g, const struct gguf_value *v,
                   struct why *why)
{
    return err_set(why, ERR_NOMEM, "%s: key %s: %llu values", g->name, v->key,
                   (unsigned long long)v->count);
}

int gguf_get_string_array(const struct gguf *g, const char *key,
                          struct gguf_string **out, size_t *count,
                          struct why *why)
{
    *out = NULL;
    *count = 0;
    const struct gguf_value *v = find(g, key);
    if (!v) return 0;
    if (!v->array || v->type != GGUF_STRING)
        return mismatch(g, v, "an array of strings", why);
    struct gguf_string *list = mem_try(v->count, sizeof *list, 0);
    if (!list) return no_room(g, v, why);
    const uint8_t *p = v->bytes;
    for (uint64_t i = 0; i < v->count; i++) { /* lengths were checked */
        uint64_t n;
        memcpy(&n, p, sizeof n);
        list[i] = (struct gguf_string){(const char *)p + sizeof n, n};
        p += sizeof n + n;
    }
    *out = list;
    *count = v->count;
    return 0;
}

int gguf_get_int_array(const struct gguf *g, const char *key, int32_t **out,
                       size_t *count, struct why *why)
{
    *out = NULL;
    *count = 0;
    const struct gguf_value *v = find(g, key);
    if (!v) return 0;
    if (!v->array) return mismatch(g, v, "an array of whole numbers", why);
    int32_t *list = mem_try(v->count, sizeof *list, 0);
    if (!list) return no_room(g, v, why);
    for (uint64_t i = 0; i < v->count; i++) {
        int64_t n;
        if (!whole(v, i, &n) || n < INT32_MIN || n > INT32_MAX) {
            mem_free(list);
            return mismatch(g, v, "an array of 32-bit whole numbers", why);
        }
        list[i] = (int32_t)n;
    }
    *out = list;
    *count = v->count;
    return 0;
}

int gguf_get_f32_array(const struct gguf *g, const char *key, float **out,
                       size_t *count, struct why *why)
{
    *out = NULL;
    *count = 0;
    const struct gguf_value *v = find(g, key);
    if (!v) return 0;
    if (!v->array || v->type != GGUF_F32)
        return mismatch(g, v, "an array of 32-bit floats", why);
    float *list = mem_try(v->count, sizeof *list, 0);
    if (!list) return no_room(g, v, why);
    memcpy(list, v->bytes, v->count * sizeof *list);
    *out = list;
    *count = v->count;
    return 0;
}
