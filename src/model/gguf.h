/* model/gguf.h - reader of GGUF files, versions 2 and 3, little-endian.
 *
 *     "GGUF" version tensor_count key_count
 *     key_count    x (key, type, value)            metadata
 *     tensor_count x (name, dims, shape, type, offset)
 *     padding to general.alignment (32), then the tensors' bytes
 *
 * The file is foreign: every length, offset and count is checked before it is
 * believed, keys and names are unique and printable, tensors lie inside the
 * file and do not overlap. An error says which file, which key or tensor and
 * at which byte. Keys and layout: docs/gguf.md of ggml-org/ggml.
 *
 * An open file is immutable: any thread may read it. What the getters hand
 * out is borrowed until gguf_close unless they say otherwise. */
#ifndef BATON_MODEL_GGUF_H
#define BATON_MODEL_GGUF_H

#include "base/err.h"
#include "model/stored.h"

#include <stdbool.h>

struct gguf;

/* Maps path. Of a split model it is the first part, STEM-00001-of-0000N.gguf;
 * the others lie beside it, and their tensors are found as if they were in
 * one file. ERR_NOT_FOUND, ERR_IO, ERR_FORMAT (broken, or another part),
 * ERR_UNSUPPORTED (an old version, big-endian), ERR_NOMEM. */
int gguf_open(struct gguf **out, const char *path, struct why *why);
/* The same over n bytes that stay valid and unchanged until gguf_close; name
 * stands for the path in errors. ERR_UNSUPPORTED for a part of a model. */
int gguf_parse(struct gguf **out, const char *name, const void *bytes, size_t n,
               struct why *why);
void gguf_close(struct gguf *g); /* NULL is fine */

/* Whether path starts as a GGUF file does. */
bool gguf_is(const char *path);

/* Metadata. A getter leaves *out as it was where the key is absent (returns
 * 0); ERR_FORMAT, naming file and key, where it has another type or does not
 * fit. */
bool gguf_has(const struct gguf *g, const char *key);
/* Any whole-number type, not negative. */
int gguf_get_uint(const struct gguf *g, const char *key, uint64_t *out,
                  struct why *why);
/* Any number. */
int gguf_get_real(const struct gguf *g, const char *key, double *out,
                  struct why *why);
int gguf_get_bool(const struct gguf *g, const char *key, bool *out,
                  struct why *why);
/* Ends with 0; a string that holds a 0 byte is ERR_FORMAT. */
int gguf_get_string(const struct gguf *g, const char *key, const char **out,
                    struct why *why);

/* Arrays. An absent key gives NULL and count 0. The array (not the strings,
 * which are borrowed and do not end with 0) is the caller's: mem_free.
 * ERR_NOMEM. Whole numbers of any type that fit become int32_t. */
struct gguf_string {
    const char *data;
    size_t len;
};
int gguf_get_string_array(const struct gguf *g, const char *key,
                          struct gguf_string **out, size_t *count,
                          struct why *why);
int gguf_get_int_array(const struct gguf *g, const char *key, int32_t **out,
                       size_t *count, struct why *why);
int gguf_get_f32_array(const struct gguf *g, const char *key, float **out,
                       size_t *count, struct why *why);

/* All tensors in the order of the file; one by name, NULL where absent. */
size_t gguf_tensor_count(const struct gguf *g);
const struct stored_tensor *gguf_tensor(const struct gguf *g, size_t index);
const struct stored_tensor *gguf_find(const struct gguf *g, const char *name);

#endif
