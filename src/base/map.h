/* base/map.h - a hash map from u64 to a non-NULL pointer. Owned by one
 * thread; values are borrowed. Grows by mem_must. */
#ifndef BATON_BASE_MAP_H
#define BATON_BASE_MAP_H

#include <stddef.h>
#include <stdint.h>

struct map {
    struct map_slot {
        uint64_t key;
        void *value; /* NULL: free */
    } * slots;
    size_t cap, count;
};

void map_fini(struct map *m);
void *map_get(const struct map *m, uint64_t key);        /* NULL: absent */
void *map_put(struct map *m, uint64_t key, void *value); /* former value */
void *map_remove(struct map *m, uint64_t key);           /* former value */
/* Walks all: start with *at = 0; NULL at the end. No changes meanwhile. */
void *map_next(const struct map *m, size_t *at, uint64_t *key);

/* 64-bit hashes: of bytes (FNV-1a, then mixed), and of one number. */
uint64_t hash_bytes(const void *bytes, size_t n, uint64_t seed);
uint64_t hash_u64(uint64_t x);

#endif
