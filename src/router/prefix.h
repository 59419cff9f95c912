/* router/prefix.h - which worker was sent what beginnings of prompts.
 *
 * A prompt, as its JSON text stands in the body, is cut into blocks of
 * PREFIX_BLOCK bytes; each block has a hash of it and all before it. A worker
 * has a table of the blocks it was sent, which forgets those that were not
 * seen for longest. How many blocks of a prompt it knows, from the first on,
 * tells how much of the prompt's KV its prefix cache may have.
 *
 * Not exact: blocks may be taken for others (64-bit hashes), and worker and
 * table forget by rules of their own. A wrong guess costs time, never truth.
 *
 * Source: sglang_router's cache_aware policy keeps a radix tree of text for
 * each worker; the flat form is ours. */
#ifndef BATON_ROUTER_PREFIX_H
#define BATON_ROUTER_PREFIX_H

#include <stddef.h>
#include <stdint.h>

enum { PREFIX_BLOCK = 128 };

struct prefix {
    uint64_t *blocks;
    size_t count; /* whole blocks of the prompt */
};
void prefix_init(struct prefix *prefix, const char *text, size_t n);
void prefix_fini(struct prefix *prefix);

struct prefix_table;
/* Of the blocks of about text_bytes bytes; 8 bytes a block. */
struct prefix_table *prefix_table_create(size_t text_bytes);
void prefix_table_destroy(struct prefix_table *table); /* NULL is fine */

/* How many blocks it knows, from the first on without a gap. */
size_t prefix_table_match(const struct prefix_table *table,
                          const struct prefix *prefix);
/* They are known from now on, the first of them longest. */
void prefix_table_note(struct prefix_table *table, const struct prefix *prefix);
void prefix_table_clear(struct prefix_table *table);
size_t prefix_table_count(const struct prefix_table *table); /* of blocks */

#endif
