/* text/bpe_trie.h - the tokens that a text starts with, byte by byte.
 *
 * A trie in a double array: the child of a node by a byte lies at base + byte
 * if its label is that byte, since no two nodes share a base. Nodes are placed
 * in the order of the tokens that brought them, and vocabularies have the
 * common ones first: what texts touch lies close together. */
#ifndef BATON_TEXT_BPE_TRIE_H
#define BATON_TEXT_BPE_TRIE_H

#include "text/lexicon.h"

#include <stdatomic.h>

struct bpe_node {
    uint32_t base_label;   /* base << 8 | label */
    _Atomic int32_t token; /* or one of these; the owner may mark it */
};
enum {
    BPE_TRIE_ROOT = 256,
    BPE_TRIE_MAX = 64,  /* bytes of the longest token that it has */
    BPE_TRIE_NONE = -1, /* no token ends here */
    BPE_TRIE_LONG = -2, /* of tokens of more bytes this is the start */
    BPE_TRIE_FREE = -3
};

/* Of all tokens that text can become. ERR_NOMEM; ERR_RANGE: too many nodes.
 * mem_free takes it back. */
int bpe_trie_build(struct bpe_node **out, const struct lexicon *l);

/* The child's place, or 0. */
static inline uint32_t bpe_trie_child(const struct bpe_node *nodes, uint32_t at,
                                      unsigned char byte)
{
    uint32_t to = (nodes[at].base_label >> 8) + byte;
    return (unsigned char)nodes[to].base_label == byte &&
                   atomic_load_explicit(&nodes[to].token,
                                        memory_order_relaxed) != BPE_TRIE_FREE
               ? to
               : 0;
}

#endif
