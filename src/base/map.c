#include "base/map.h"
#include "base/mem.h"

uint64_t hash_u64(uint64_t x)
{
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    x = (x ^ (x >> 32)) * 0xd6e8feb86659fd93u;
    return x ^ (x >> 32);
}

uint64_t hash_bytes(const void *bytes, size_t n, uint64_t seed)
{
    const unsigned char *p = bytes;
    uint64_t h = 0xcbf29ce484222325u ^ seed;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return hash_u64(h);
}

void map_fini(struct map *m)
{
    mem_free(m->slots);
    *m = (struct map){0};
}

/* The slot of key, or the free one where it would go. cap > count always. */
static size_t find(const struct map *m, uint64_t key)
{
    size_t i = hash_u64(key) & (m->cap - 1);
    while (m->slots[i].value && m->slots[i].key != key)
        i = (i + 1) & (m->cap - 1);
    return i;
}

void *map_get(const struct map *m, uint64_t key)
{
    return m->cap ? m->slots[find(m, key)].value : NULL;
}

static void grow(struct map *m)
{
    struct map old = *m;
    m->cap = old.cap ? old.cap * 2 : 16;
    m->slots = mem_must(m->cap, sizeof *m->slots);
    for (size_t i = 0; i < old.cap; i++)
        if (old.slots[i].value)
            m->slots[find(m, old.slots[i].key)] = old.slots[i];
    mem_free(old.slots);
}

void *map_put(struct map *m, uint64_t key, void *value)
{
    if ((m->count + 1) * 4 > m->cap * 3) grow(m);
    struct map_slot *s = &m->slots[find(m, key)];
    void *former = s->value;
    if (!former) m->count++;
    *s = (struct map_slot){key, value};
    return former;
}

/* Linear probing without tombstones: what follows moves up where it may. */
void *map_remove(struct map *m, uint64_t key)
{
    if (!m->cap) return NULL;
    size_t hole = find(m, key), mask = m->cap - 1;
    void *former = m->slots[hole].value;
    if (!former) return NULL;
    for (size_t i = (hole + 1) & mask; m->slots[i].value; i = (i + 1) & mask) {
        size_t home = hash_u64(m->slots[i].key) & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            m->slots[hole] = m->slots[i];
            hole = i;
        }
    }
    m->slots[hole].value = NULL;
    m->count--;
    return former;
}

void *map_next(const struct map *m, size_t *at, uint64_t *key)
{
    while (*at < m->cap) {
        struct map_slot *s = &m->slots[(*at)++];
        if (!s->value) continue;
        if (key) *key = s->key;
        return s->value;
    }
    return NULL;
}
