/* model/gguf_impl.h - an open GGUF file inside: gguf.c reads it, gguf_get.c
 * looks metadata up. Immutable once open. */
#ifndef BATON_MODEL_GGUF_IMPL_H
#define BATON_MODEL_GGUF_IMPL_H

#include "model/file.h"
#include "model/gguf.h"

enum gguf_value_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_COUNT
};

struct gguf_value {
    char *key;
    enum gguf_value_type type; /* of the value, or of an array's elements */
    bool array;
    uint64_t count;       /* of an array's elements; 1 */
    const uint8_t *bytes; /* of the first element */
    char *text;           /* a lone string, ended with 0 */
    size_t text_len;
    size_t at; /* byte of the file where the key begins */
};

struct gguf {
    char *name;
    struct model_file file;    /* empty: the bytes are the caller's */
    struct gguf_value *values; /* sorted by key once read */
    size_t value_count;
    struct stored_table tensors;
    struct gguf **parts; /* of a split model, but the first: their tensors are
                            in this one's table too */
    size_t part_count;
};

/* Bytes of a value; 0: it says its own length. And what errors call it. */
extern const uint8_t gguf_value_bytes[GGUF_COUNT];
extern const char *const gguf_value_names[GGUF_COUNT];

#endif
