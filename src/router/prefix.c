#include "router/prefix.h"

#include "base/map.h"
#include "base/mem.h"

#include <string.h>

/* Blocks of one set, the latest first; 0: none. A cache line. */
enum { WAYS = 8 };
struct set {
    uint64_t blocks[WAYS];
};

struct prefix_table {
    struct set *sets;
    size_t mask, count;
};

void prefix_init(struct prefix *p, const char *text, size_t n)
{
    p->count = n / PREFIX_BLOCK;
    p->blocks = p->count ? mem_must(p->count, sizeof *p->blocks) : NULL;
    uint64_t hash = 1;
    for (size_t i = 0; i < p->count; i++) {
        for (int at = 0; at < PREFIX_BLOCK; at += 8, text += 8) {
            uint64_t word;
            memcpy(&word, text, 8);
            hash = hash_u64(hash ^ word);
        }
        p->blocks[i] = hash ? hash : 1;
    }
}

void prefix_fini(struct prefix *p)
{
    mem_free(p->blocks);
    *p = (struct prefix){0};
}

struct prefix_table *prefix_table_create(size_t text_bytes)
{
    struct prefix_table *t = mem_must(1, sizeof *t);
    size_t sets = 1;
    while (sets * WAYS * PREFIX_BLOCK < text_bytes)
        sets *= 2;
    t->sets = mem_must(sets, sizeof *t->sets);
    t->mask = sets - 1;
    return t;
}

void prefix_table_destroy(struct prefix_table *t)
{
    if (!t) return;
    mem_free(t->sets);
    mem_free(t);
}

static struct set *set_of(const struct prefix_table *t, uint64_t block)
{
    return &t->sets[block & t->mask];
}

static int way_of(const struct set *set, uint64_t block)
{
    int way = 0;
    while (way < WAYS && set->blocks[way] != block)
        way++;
    return way;
}

size_t prefix_table_match(const struct prefix_table *t, const struct prefix *p)
{
    size_t n = 0;
    while (n < p->count && way_of(set_of(t, p->blocks[n]), p->blocks[n]) < WAYS)
        n++;
    return n;
}

void prefix_table_note(struct prefix_table *t, const struct prefix *p)
{
    for (size_t i = p->count; i-- > 0;) {
        struct set *set = set_of(t, p->blocks[i]);
        int way = way_of(set, p->blocks[i]);
        if (way == WAYS) t->count += !set->blocks[--way];
        memmove(set->blocks + 1, set->blocks, (size_t)way * sizeof(uint64_t));
        set->blocks[0] = p->blocks[i];
    }
}

void prefix_table_clear(struct prefix_table *t)
{
    memset(t->sets, 0, (t->mask + 1) * sizeof *t->sets);
    t->count = 0;
}

size_t prefix_table_count(const struct prefix_table *t)
{
    return t->count;
}
