/* json/json.h - jansson, opened the same way everywhere.
 *
 * Foreign JSON is strict UTF-8; duplicate keys are refused (two readers could
 * see two values); NUL inside strings is allowed, so use json_string_length.
 * Small getters with a default save the three-line dance at each field. A
 * json_t is reference counted and belongs to one thread at a time. */
#ifndef BATON_JSON_JSON_H
#define BATON_JSON_JSON_H

#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Any JSON value. ERR_FORMAT names the line and what was wrong. */
int json_parse(json_t **out, const char *bytes, size_t n, struct why *why);
/* A whole file, at most max_bytes. ERR_IO, ERR_FORMAT; the text names path. */
int json_read(json_t **out, const char *path, size_t max_bytes,
              struct why *why);

/* A member of object, or the default where it is absent or null. A member of
 * another type is ERR_FORMAT, named by key; out keeps the default then. */
int json_get_int(const json_t *object, const char *key, int64_t *out,
                 struct why *why);
int json_get_real(const json_t *object, const char *key, double *out,
                  struct why *why); /* takes whole numbers too */
int json_get_bool(const json_t *object, const char *key, bool *out,
                  struct why *why);
/* Borrowed from object; NULL default. */
int json_get_string(const json_t *object, const char *key, const char **out,
                    struct why *why);

#endif
