/* text/bpe_memo.h - short pieces of a text and the ids they became.
 *
 * A text says the same words again and again. Each short piece has a set of two
 * places, one cache line, in which the later one pushes out the earlier. */
#ifndef BATON_TEXT_BPE_MEMO_H
#define BATON_TEXT_BPE_MEMO_H

#include "text/word_key.h"

enum { BPE_MEMO_IDS = 4 };

struct bpe_memo_place {
    struct word_key key; /* how many ids in the top four bits; all 0: free */
    int32_t ids[BPE_MEMO_IDS];
};

struct bpe_memo_set {
    _Alignas(64) struct bpe_memo_place places[2];
};

static inline bool bpe_memo_is(const struct bpe_memo_place *p,
                               struct word_key key)
{
    uint64_t top = (uint64_t)15 << WORD_KEY_TOP;
    return word_key_same((struct word_key){p->key.low, p->key.high & ~top},
                         key);
}

static inline size_t bpe_memo_count(const struct bpe_memo_place *p)
{
    return p->key.high >> WORD_KEY_TOP;
}

/* The piece's place in its set, or NULL. */
static inline const struct bpe_memo_place *bpe_memo_find(
    const struct bpe_memo_set *set, struct word_key key)
{
    const struct bpe_memo_place *p = set->places;
    p += !bpe_memo_is(p, key);
    return bpe_memo_is(p, key) ? p : NULL;
}

static inline void bpe_memo_add(struct bpe_memo_set *set, struct word_key key,
                                const int32_t *ids, size_t count)
{
    struct bpe_memo_place *p = set->places;
    p[1] = p[0];
    p->key.low = key.low;
    p->key.high = key.high | (uint64_t)count << WORD_KEY_TOP;
    memcpy(p->ids, ids, count * sizeof *ids);
}

#endif
