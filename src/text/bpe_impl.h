/* text/bpe_impl.h - the inside of text/bpe.h: bpe.c makes one and cuts pieces
 * into words and parts, bpe_merge.c merges parts, which is the specification,
 * bpe_match.c comes to the same ids from the longest tokens. */
#ifndef BATON_TEXT_BPE_IMPL_H
#define BATON_TEXT_BPE_IMPL_H

#include "text/bpe.h"
#include "text/tag_index.h"
#include "text/word_key.h"

#include <stdatomic.h>

struct bpe_pair {
    int32_t left, right;
    uint32_t rank;
    int32_t into;
};
#define BPE_NO_RANK UINT32_MAX

struct bpe {
    const struct lexicon *l;
    struct bpe_pair *pairs; /* in the order of their adds */
    struct tag_index pair_index;
    atomic_uchar *whole;     /* tokens that merges were seen to reach */
    struct bpe_match *match; /* NULL: pieces are merged */
    size_t merge_cap;
    uint32_t merge_count, pair_count;
    int32_t unknown;
    bool ignore_merges, fuse_unknown, byte_fallback, plain;
    bool crosses_space;     /* some merge joins "x" with "▁y"  */
    bool words;             /* so text falls apart before each "▁" */
    int32_t start_of[0x80]; /* token of one byte or ASCII character */
};

static inline uint64_t bpe_pair_hash(int32_t left, int32_t right)
{
    return word_key_hash((struct word_key){(uint32_t)left, (uint32_t)right});
}

/* The merge of two tokens, or NULL. */
static inline struct bpe_pair *bpe_pair_find(const struct bpe *b, int32_t left,
                                             int32_t right)
{
    struct tag_walk w = tag_walk(&b->pair_index, bpe_pair_hash(left, right));
    for (uint32_t i; tag_next(&b->pair_index, &w, &i);)
        if (b->pairs[i].left == left && b->pairs[i].right == right)
            return &b->pairs[i];
    return NULL;
}

/* Merges ids[count] in place, returns how many are left. short: count up to
 * BPE_SHORT. */
enum { BPE_SHORT = 64 };
size_t bpe_merge_short(const struct bpe *b, struct bpe_scratch *s, int32_t *ids,
                       size_t count);
int64_t bpe_merge_long(const struct bpe *b, struct bpe_scratch *s, int32_t *ids,
                       size_t count);
/* As the short one, and says which merge was the last. */
struct bpe_last {
    int32_t left, right;
    uint32_t rank;
};
size_t bpe_merge_told(const struct bpe *b, struct bpe_scratch *s, int32_t *ids,
                      size_t count, struct bpe_last *last);

/* *out stays NULL where the vocabulary does not fit. ERR_NOMEM. */
int bpe_match_create(struct bpe_match **out, const struct bpe *b);
void bpe_match_destroy(struct bpe_match *m); /* NULL is fine */
/* What merging the bytes of a piece would give, or BPE_GAVE_UP. whole: a piece
 * that is a token is that token. The first call makes what it needs; ready:
 * that was done. ERR_NOMEM. */
enum { BPE_GAVE_UP = 0 };
int64_t bpe_match(const struct bpe *b, struct bpe_scratch *s, const char *piece,
                  size_t n, int32_t *ids, bool whole);
bool bpe_match_ready(const struct bpe *b);

#endif
