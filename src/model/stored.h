/* model/stored.h - tensors as a model file stores them, found by name.
 *
 * gguf.h and safetensors.h both hold a table of these; load.h binds them to a
 * device. bytes point into the mapped file, names belong to the table. */
#ifndef BATON_MODEL_STORED_H
#define BATON_MODEL_STORED_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define STORED_MAX_DIMS 4

struct stored_tensor {
    const char *name;
    const char *file;      /* that holds it, for people                     */
    const char *type_name; /* "BF16", "q4_1": likewise                      */
    int type;              /* enum dtype, or -1: one that no operation takes */
    uint32_t dims;         /* 0 .. STORED_MAX_DIMS                           */
    uint64_t shape[STORED_MAX_DIMS]; /* outermost first: [rows, cols]        */
    const uint8_t *bytes;
    size_t size; /* of bytes; 0 where the type is unknown */
};

/* Zero it, stored_reserve, stored_add each, stored_index, then look up. */
struct stored_table {
    struct stored_tensor *list;
    size_t count, cap;
    const struct stored_tensor **by_name; /* sorted, once indexed */
};

/* Room for count more. ERR_NOMEM: an absurd count, or memory is gone. */
int stored_reserve(struct stored_table *table, size_t count, struct why *why);
/* Adds a tensor within what was reserved; name and file of tensor are
 * replaced: the n bytes of name are copied, file is borrowed. */
int stored_add(struct stored_table *table, const struct stored_tensor *tensor,
               const char *name, size_t n, const char *file, struct why *why);
/* Sorts; again after more were added. ERR_FORMAT: a name comes twice, or two
 * tensors share bytes. */
int stored_index(struct stored_table *table, struct why *why);
const struct stored_tensor *stored_find(const struct stored_table *table,
                                        const char *name); /* or NULL */
void stored_fini(struct stored_table *table);

/* "[3, 64]" into text, at most n bytes with the closing 0; returns text. */
char *stored_shape_text(const struct stored_tensor *t, char *text, size_t n);

/* Elements of shape; 0 with ERR_FORMAT's meaning when it passes 2^62. */
int stored_elements(const uint64_t *shape, uint32_t dims, uint64_t *out);

/* Whether n bytes are a name fit for people: printable, 1 .. 1024 bytes. */
int stored_name_ok(const char *name, size_t n);

#endif
