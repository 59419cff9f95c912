/* tests/model/gguf_build.h - writes GGUF files for tests. Keys and tensors
 * come out in the order they were added. Ends the process on failure. */
#ifndef BATON_TESTS_MODEL_GGUF_BUILD_H
#define BATON_TESTS_MODEL_GGUF_BUILD_H

#include "base/buf.h"

#include <stdbool.h>
#include <stdint.h>

struct gguf_build {
    struct buf keys, infos, data;
    uint64_t key_count, tensor_count;
};

void gguf_build_init(struct gguf_build *b);
void gguf_build_fini(struct gguf_build *b);

void gguf_build_u32(struct gguf_build *b, const char *key, uint32_t v);
void gguf_build_f32(struct gguf_build *b, const char *key, float v);
void gguf_build_bool(struct gguf_build *b, const char *key, bool v);
void gguf_build_string(struct gguf_build *b, const char *key, const char *v);
void gguf_build_strings(struct gguf_build *b, const char *key,
                        const char *const *list, size_t count);
void gguf_build_ints(struct gguf_build *b, const char *key, const int32_t *list,
                     size_t count);
void gguf_build_floats(struct gguf_build *b, const char *key, const float *list,
                       size_t count);

/* ggml's number of a DTYPE_. */
uint32_t gguf_build_type(int dtype);
/* shape is outermost first; n bytes are copied and padded. */
void gguf_build_tensor(struct gguf_build *b, const char *name, uint32_t type,
                       uint32_t dims, const uint64_t *shape, const void *bytes,
                       size_t n);

/* The whole file, added to out (set up by the caller). */
void gguf_build_finish(const struct gguf_build *b, uint32_t version,
                       struct buf *out);

#endif
