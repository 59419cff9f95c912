#include "text/token_tree.h"

#include "base/mem.h"
#include "text/pattern.h"
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

struct word {
    const unsigned char *bytes;
    size_t len;
    int32_t token;
};

static int by_bytes(const void *a, const void *b)
{
    const struct word *x = a, *y = b;
    size_t n = x->len < y->len ? x->len : y->len;
    int order = memcmp(x->bytes, y->bytes, n);
    if (order) return order;
    if (x->len != y->len) return x->len < y->len ? -1 : 1;
    return x->token < y->token ? -1 : 1;
}

const uint8_t *token_tree_bytes(const struct tokenizer *t, int32_t token,
                                uint8_t own[4], size_t *len)
{
    if (tokenizer_is_added(t, token)) {
        pattern_token_bytes(token, own);
        *len = 4;
        return own;
    }
    const char *text = tokenizer_token_bytes(t, token, len);
    if (!text || !*len || *len > TOKEN_TREE_DEPTH ||
        memchr(text, PATTERN_TOKEN, *len))
        return NULL;
    return (const uint8_t *)text;
}

/* own: [vocab] */
static uint32_t collect(const struct tokenizer *t, struct word *words,
                        uint8_t (*own)[4], size_t *bytes)
{
    uint32_t count = 0;
    for (int32_t id = 0; id < (int32_t)tokenizer_vocab(t); id++) {
        size_t len;
        const uint8_t *text = token_tree_bytes(t, id, own[id], &len);
        if (!text) continue;
        words[count++] = (struct word){text, len, id};
        *bytes += len;
    }
    return count;
}

static void build(struct token_tree *tree, const struct word *words,
                  uint32_t count)
{
    uint32_t path[TOKEN_TREE_DEPTH + 1]; /* nodes of the last word */
    size_t deep = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct word *w = &words[i];
        size_t same = 0;
        while (same < deep && same < w->len &&
               tree->nodes[path[same]].byte == w->bytes[same])
            same++;
        while (deep > same)
            tree->nodes[path[--deep]].skip = tree->count;
        for (; deep < w->len; deep++) {
            path[deep] = tree->count;
            tree->nodes[tree->count++] =
                (struct token_node){.token = -1,
                                    .byte = w->bytes[deep],
                                    .depth = (uint8_t)(deep + 1)};
        }
        struct token_node *end = &tree->nodes[path[deep - 1]];
        tree->twin[w->token] = end->token;
        end->token = w->token;
    }
    while (deep > 0)
        tree->nodes[path[--deep]].skip = tree->count;
}

struct token_tree *token_tree_create(const struct tokenizer *tokenizer)
{
    struct token_tree *tree = mem_must(1, sizeof *tree);
    tree->tokenizer = tokenizer;
    tree->vocab = (uint32_t)tokenizer_vocab(tokenizer);
    tree->twin = mem_must(tree->vocab, sizeof *tree->twin);
    struct word *words = mem_must(tree->vocab, sizeof *words);
    uint8_t(*own)[4] = mem_must(tree->vocab, sizeof *own);
    size_t bytes = 0;
    uint32_t count = collect(tokenizer, words, own, &bytes);
    qsort(words, count, sizeof *words, by_bytes);
    tree->nodes = mem_must(bytes + 1, sizeof *tree->nodes);
    build(tree, words, count);
    tree->nodes =
        mem_remust(tree->nodes, (tree->count + 1) * sizeof *tree->nodes);
    mem_free(words);
    mem_free(own);
    return tree;
}

void token_tree_destroy(struct token_tree *tree)
{
    if (!tree) return;
    mem_free(tree->nodes);
    mem_free(tree->twin);
    mem_free(tree);
}
