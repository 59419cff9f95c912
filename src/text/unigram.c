/* Tokens are a trie whose edges lie in one hash table: (node, byte) leads to a
 * node. Node 0 is the root. */
#include "text/unigram.h"
#include "base/mem.h"
#include "text/utf8.h"

#include <math.h>
#include <string.h>

struct edge {
    uint32_t from_byte; /* node << 8 | byte, plus 1; 0: free */
    uint32_t to;
};

struct unigram {
    const struct lexicon *l;
    double *scores;
    struct edge *edges;
    int32_t *token_of; /* of each node, or -1 */
    size_t edge_mask;
    uint32_t node_count;
    int32_t unknown;
    double unknown_score;
    bool byte_fallback;
};

/* Source: K_UNK_PENALTY of Hugging Face's unigram model. */
static const double unknown_penalty = 10;

enum { MAX_NODES = 1 << 24 };

static struct edge *edge_slot(const struct unigram *u, uint32_t node,
                              unsigned char byte)
{
    uint32_t key = (node << 8 | byte) + 1;
    size_t i = (key * UINT64_C(0x9e3779b97f4a7c15)) >> 32 & u->edge_mask;
    while (u->edges[i].from_byte && u->edges[i].from_byte != key)
        i = (i + 1) & u->edge_mask;
    return &u->edges[i];
}

static void trie_add(struct unigram *u, const char *s, size_t n, int32_t id)
{
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)s[i];
        struct edge *e = edge_slot(u, node, byte);
        if (!e->from_byte) {
            *e = (struct edge){(node << 8 | byte) + 1, u->node_count};
            u->token_of[u->node_count++] = -1;
        }
        node = e->to;
    }
    u->token_of[node] = id;
}

static int make_trie(struct unigram *u, const bool *known, struct why *why)
{
    size_t bytes = 1, size = 16, n, count = lexicon_count(u->l);
    for (size_t id = 0; id < count; id++) {
        lexicon_bytes(u->l, (int32_t)id, &n);
        if (n > UNIGRAM_MAX_TOKEN)
            return err_set(why, ERR_UNSUPPORTED, "token %zu: %zu bytes long",
                           id, n);
        bytes += n;
    }
    if (bytes >= MAX_NODES)
        return err_set(why, ERR_UNSUPPORTED, "tokens of %zu bytes", bytes);
    while (size < bytes + bytes / 2)
        size *= 2;
    u->edge_mask = size - 1;
    u->edges = mem_try(size, sizeof *u->edges, 64);
    u->token_of = mem_try(bytes, sizeof *u->token_of, 0);
    if (!u->edges || !u->token_of)
        return err_set(why, ERR_NOMEM, "vocabulary of %zu tokens", count);
    u->token_of[0] = -1;
    u->node_count = 1;
    for (size_t id = 0; id < count; id++) {
        const char *s = lexicon_bytes(u->l, (int32_t)id, &n);
        if (n && (!known || known[id])) trie_add(u, s, n, (int32_t)id);
    }
    return 0;
}

static int copy_scores(struct unigram *u, const double *scores,
                       const bool *known, struct why *why)
{
    size_t count = lexicon_count(u->l);
    double least = INFINITY;
    u->scores = mem_try(count, sizeof *u->scores, 0);
    if (!u->scores)
        return err_set(why, ERR_NOMEM, "vocabulary of %zu tokens", count);
    for (size_t id = 0; id < count; id++) {
        if (!isfinite(scores[id]))
            return err_set(why, ERR_FORMAT, "score of token %zu", id);
        u->scores[id] = scores[id];
        bool counts = lexicon_has(u->l, (int32_t)id) && (!known || known[id]);
        if (counts && scores[id] < least) least = scores[id];
    }
    u->unknown_score = least - unknown_penalty;
    return 0;
}

int unigram_create(struct unigram **out, const struct lexicon *l,
                   const double *scores, const bool *known, int32_t unknown,
                   bool byte_fallback, struct why *why)
{
    if (!lexicon_has(l, unknown))
        return err_set(why, ERR_FORMAT, "unigram without an unknown token");
    struct unigram *u = mem_must(1, sizeof *u);
    u->l = l;
    u->unknown = unknown;
    u->byte_fallback = byte_fallback;
    int rc = copy_scores(u, scores, known, why);
    if (!rc) rc = make_trie(u, known, why);
    if (rc)
        unigram_destroy(u);
    else
        *out = u;
    return rc;
}

void unigram_destroy(struct unigram *u)
{
    if (!u) return;
    mem_free(u->scores);
    mem_free(u->edges);
    mem_free(u->token_of);
    mem_free(u);
}

/* The best way to get to a place of the piece. */
struct unigram_node {
    double score;
    uint32_t start; /* of the last token on that way; NOWHERE: none yet */
    int32_t id;
};
#define NOWHERE UINT32_MAX

static void reach(struct unigram_node *node, double score, size_t start,
                  int32_t id)
{
    if (node->start == NOWHERE || score > node->score)
        *node = (struct unigram_node){score, (uint32_t)start, id};
}

static void search(const struct unigram *u, struct unigram_scratch *s,
                   const char *piece, size_t n)
{
    size_t len;
    for (size_t i = 0; i <= n; i++)
        s->nodes[i] = (struct unigram_node){0, NOWHERE, -1};
    for (size_t at = 0; at < n; at += len) {
        double so_far = s->nodes[at].score;
        uint32_t node = 0;
        bool single = false;
        len = utf8_len((unsigned char)piece[at]);
        for (size_t i = at; i < n; i++) {
            const struct edge *e = edge_slot(u, node, (unsigned char)piece[i]);
            s->work++;
            if (!e->from_byte) break;
            node = e->to;
            int32_t id = u->token_of[node];
            if (id < 0) continue;
            reach(&s->nodes[i + 1], so_far + u->scores[id], at, id);
            if (i + 1 - at == len) single = true;
        }
        if (!single)
            reach(&s->nodes[at + len], so_far + u->unknown_score, at,
                  u->unknown);
    }
}

/* Writes the ids of an unknown stretch backwards, ending before end. */
static int32_t *settle(const struct unigram *u, const char *s, size_t n,
                       int32_t *end)
{
    int32_t id = lexicon_find(u->l, s, n);
    bool bytes = id < 0 && u->byte_fallback;
    for (size_t i = 0; i < n && bytes; i++)
        bytes = lexicon_byte(u->l, (unsigned char)s[i]) >= 0;
    if (!bytes) {
        *--end = id < 0 ? u->unknown : id;
        return end;
    }
    for (size_t i = n; i-- > 0;)
        *--end = lexicon_byte(u->l, (unsigned char)s[i]);
    return end;
}

void unigram_scratch_fini(struct unigram_scratch *s)
{
    mem_free(s->nodes);
    *s = (struct unigram_scratch){0};
}

int64_t unigram_encode(const struct unigram *u, struct unigram_scratch *s,
                       const char *piece, size_t n, int32_t *ids)
{
    if (n >= NOWHERE) return ERR_NOMEM;
    if (n >= s->cap) {
        mem_free(s->nodes);
        s->cap = 0;
        s->nodes = mem_try(n + n / 2 + 64, sizeof *s->nodes, 0);
        if (!s->nodes) return ERR_NOMEM;
        s->cap = n + n / 2 + 64;
    }
    search(u, s, piece, n);
    int32_t *end = ids + n, *at = end;
    size_t to = n;
    while (to) {
        size_t from = s->nodes[to].start;
        int32_t id = s->nodes[to].id;
        while (id == u->unknown && from && s->nodes[from].id == id)
            from = s->nodes[from].start;
        if (id == u->unknown)
            at = settle(u, piece + from, to - from, at);
        else
            *--at = id;
        to = from;
    }
    memmove(ids, at, (size_t)(end - at) * sizeof *ids);
    return end - at;
}
