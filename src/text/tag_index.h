/* text/tag_index.h - a hash table of what lies in an array elsewhere.
 *
 * Buckets have eight places, each the number of an element and eight bits of
 * its hash, by which nearly all others are passed over unread, all eight at
 * once. A place takes four bytes and a bucket half a line of cache, so that a
 * large vocabulary's table is a megabyte; and elements lie as they were added,
 * which in vocabularies is the common ones first. First all adds, then any
 * thread looks. */
#ifndef BATON_TEXT_TAG_INDEX_H
#define BATON_TEXT_TAG_INDEX_H

#include "base/mem.h"

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { TAG_BUCKET = 8, TAG_INDEX_MOST = 1 << 24 /* elements */ };

struct tag_bucket {
    unsigned char numbers[TAG_BUCKET][3];
    unsigned char tags[TAG_BUCKET]; /* 0: free */
};

struct tag_index {
    struct tag_bucket *buckets;
    size_t mask;
};

/* Room for count elements. False: no memory, or more than the most. */
static inline bool tag_index_init(struct tag_index *x, size_t count)
{
    size_t buckets = 2;
    while (buckets * TAG_BUCKET < count + count / 2)
        buckets *= 2;
    x->mask = buckets - 1;
    x->buckets = count <= TAG_INDEX_MOST
                     ? mem_try(buckets, sizeof *x->buckets, 64)
                     : NULL;
    return x->buckets;
}

static inline void tag_index_fini(struct tag_index *x)
{
    mem_free(x->buckets);
}

#define TAG_EACH 0x0101010101010101u

/* The top bit of each byte that is 0, and perhaps of some above the first. */
static inline uint64_t tag_zeros(uint64_t v)
{
    return (v - TAG_EACH) & ~v & 0x80 * TAG_EACH;
}

/* A walk over the elements that may have a hash. */
struct tag_walk {
    size_t at;
    uint64_t tag, tags, found; /* of the bucket; found: top bits of bytes */
};

static inline const struct tag_bucket *tag_bucket(const struct tag_index *x,
                                                  const struct tag_walk *w)
{
    return &x->buckets[w->at & x->mask];
}

static inline void tag_look(const struct tag_index *x, struct tag_walk *w)
{
    memcpy(&w->tags, tag_bucket(x, w)->tags, sizeof w->tags);
    w->tags = le64toh(w->tags);
    w->found = tag_zeros(w->tags ^ w->tag * TAG_EACH);
}

static inline struct tag_walk tag_walk(const struct tag_index *x, uint64_t hash)
{
    uint64_t tag = hash >> 56;
    struct tag_walk w = {.at = hash, .tag = tag + !tag};
    tag_look(x, &w);
    return w;
}

/* The next element that may have the hash. */
static inline bool tag_next(const struct tag_index *x, struct tag_walk *w,
                            uint32_t *number)
{
    while (!w->found) {
        if (tag_zeros(w->tags)) return false;
        w->at++;
        tag_look(x, w);
    }
    size_t i = (size_t)__builtin_ctzll(w->found) / 8;
    memcpy(number, tag_bucket(x, w)->numbers[i], sizeof *number);
    *number = le32toh(*number) & (TAG_INDEX_MOST - 1); /* three bytes */
    w->found &= w->found - 1;
    return true;
}

static inline void tag_index_add(struct tag_index *x, uint64_t hash,
                                 uint32_t number)
{
    struct tag_walk w = tag_walk(x, hash);
    uint64_t free;
    for (; !(free = tag_zeros(w.tags)); tag_look(x, &w))
        w.at++;
    struct tag_bucket *b = &x->buckets[w.at & x->mask];
    size_t i = (size_t)__builtin_ctzll(free) / 8;
    b->tags[i] = (unsigned char)w.tag;
    for (size_t k = 0; k < sizeof b->numbers[i]; k++)
        b->numbers[i][k] = (unsigned char)(number >> 8 * k);
}

#endif
