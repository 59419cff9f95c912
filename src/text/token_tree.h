/* text/token_tree.h - the bytes of all tokens as a tree, in the order of a walk
 * from the root. Immutable.
 *
 * Added tokens are no text: instead of bytes they have PATTERN_TOKEN and their
 * id (text/pattern.h), which is no UTF-8. Ordinary tokens with that byte in
 * them, which could only be part of it, are left out. */
#ifndef BATON_TEXT_TOKEN_TREE_H
#define BATON_TEXT_TOKEN_TREE_H

#include <stddef.h>
#include <stdint.h>

struct tokenizer;

enum { TOKEN_TREE_DEPTH = 255 }; /* longer tokens are left out */

struct token_tree {
    const struct tokenizer *tokenizer;
    uint32_t vocab, count;
    struct token_node {
        int32_t token;       /* whose bytes end here; -1: none */
        uint32_t skip;       /* the first node that is not below this one */
        uint8_t byte, depth; /* depth: 1 below the root */
    } * nodes;
    int32_t *twin; /* [vocab] another token of the same bytes; -1: none */
};

struct token_tree *token_tree_create(const struct tokenizer *tokenizer);
/* What a token stands for in patterns; NULL: it is left out. own: room for an
 * added token's. */
const uint8_t *token_tree_bytes(const struct tokenizer *tokenizer,
                                int32_t token, uint8_t own[4], size_t *len);
void token_tree_destroy(struct token_tree *tree); /* NULL is fine */

#endif
