#include "json/json.h"
#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int json_parse(json_t **out, const char *bytes, size_t n, struct why *why)
{
    json_error_t error;
    *out = NULL;
    /* jansson takes a NUL behind a value for white space. */
    if (n && memchr(bytes, 0, n))
        return err_set(why, ERR_FORMAT, "JSON with a NUL byte");
    *out = json_loadb(bytes, n,
                      JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY,
                      &error);
    if (*out) return 0;
    return err_set(why, ERR_FORMAT, "JSON line %d column %d: %s", error.line,
                   error.column, error.text);
}

int json_read(json_t **out, const char *path, size_t max_bytes, struct why *why)
{
    *out = NULL;
    FILE *f = fopen(path, "rb");
    if (!f) return err_sys(why, ERR_IO, errno, "%s", path);
    int rc = 0;
    size_t len = 0, cap = 1 << 16;
    char *text = mem_must(cap, 1);
    for (size_t got; (got = fread(text + len, 1, cap - len, f)) > 0;) {
        len += got;
        if (len > max_bytes) break;
        if (len == cap) text = mem_remust(text, cap *= 2);
    }
    if (ferror(f))
        rc = err_sys(why, ERR_IO, errno, "%s", path);
    else if (len > max_bytes)
        rc = err_set(why, ERR_FORMAT, "%s: larger than %zu bytes", path,
                     max_bytes);
    fclose(f);
    struct why inner = {0};
    if (!rc && (rc = json_parse(out, text, len, &inner)))
        err_set(why, rc, "%s: %s", path, inner.text);
    mem_free(text);
    return rc;
}

/* The member, NULL where absent or null. */
static const json_t *member(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return json_is_null(v) ? NULL : v;
}

int json_get_int(const json_t *object, const char *key, int64_t *out,
                 struct why *why)
{
    const json_t *v = member(object, key);
    if (!v) return 0;
    if (!json_is_integer(v))
        return err_set(why, ERR_FORMAT, "%s must be a whole number", key);
    *out = json_integer_value(v);
    return 0;
}

int json_get_real(const json_t *object, const char *key, double *out,
                  struct why *why)
{
    const json_t *v = member(object, key);
    if (!v) return 0;
    if (!json_is_number(v))
        return err_set(why, ERR_FORMAT, "%s must be a number", key);
    *out = json_number_value(v);
    return 0;
}

int json_get_bool(const json_t *object, const char *key, bool *out,
                  struct why *why)
{
    const json_t *v = member(object, key);
    if (!v) return 0;
    if (!json_is_boolean(v))
        return err_set(why, ERR_FORMAT, "%s must be true or false", key);
    *out = json_is_true(v);
    return 0;
}

int json_get_string(const json_t *object, const char *key, const char **out,
                    struct why *why)
{
    const json_t *v = member(object, key);
    if (!v) return 0;
    if (!json_is_string(v))
        return err_set(why, ERR_FORMAT, "%s must be a string", key);
    *out = json_string_value(v);
    return 0;
}
