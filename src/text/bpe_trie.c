/* Tokens are parted by one more byte each time a node gets its children: a
 * radix sort from the front that goes where the next token by id leads. */
#include "text/bpe_trie.h"
#include "base/mem.h"

#include <string.h>

struct range {
    uint32_t from, to;
};

struct build {
    const struct lexicon *l;
    struct bpe_node *nodes;
    struct range *ranges;  /* in ids: the tokens below a node, empty once it
                            * has its children */
    unsigned char *based;  /* bases in use */
    uint32_t *ids, *other; /* other: for parting */
    uint32_t cap, lowest, end;
};

enum { MOST_NODES = 1 << 24, TRIES = 24 };

static bool is_free(const struct build *w, uint32_t at)
{
    return w->nodes[at].token == BPE_TRIE_FREE;
}

/* Room for places below cap. */
static int grow(struct build *w, uint32_t cap)
{
    if (cap <= w->cap) return 0;
    if (cap > MOST_NODES) return ERR_RANGE;
    cap += cap / 2;
    void *nodes = mem_retry(w->nodes, cap * sizeof *w->nodes);
    if (nodes) w->nodes = nodes;
    void *ranges = mem_retry(w->ranges, cap * sizeof *w->ranges);
    if (ranges) w->ranges = ranges;
    void *based = mem_retry(w->based, cap);
    if (based) w->based = based;
    if (!nodes || !ranges || !based) return ERR_NOMEM;
    memset(w->based + w->cap, 0, cap - w->cap);
    for (uint32_t i = w->cap; i < cap; i++) {
        w->nodes[i].base_label = 0;
        w->nodes[i].token = BPE_TRIE_FREE;
    }
    w->cap = cap;
    return 0;
}

static uint32_t next_free(const struct build *w, uint32_t at)
{
    while (at < w->end && !is_free(w, at))
        at++;
    return at;
}

/* A base for children by these bytes, ascending: where the first of a few free
 * places suits, else behind all. Places up to 256 behind `end` are there. */
static uint32_t find_base(struct build *w, const unsigned char *bytes,
                          size_t count)
{
    uint32_t at = w->lowest = next_free(w, w->lowest);
    for (int i = 0; i < TRIES && at < w->end; i++, at = next_free(w, at + 1)) {
        uint32_t base = at - bytes[0];
        size_t k = 1;
        if (w->based[base]) continue;
        while (k < count && is_free(w, base + bytes[k]))
            k++;
        if (k == count) return base;
    }
    w->lowest = at; /* the gaps before have had their chances */
    at = w->end;
    while (w->based[at - bytes[0]])
        at++;
    return at - bytes[0];
}

static unsigned key_of(const struct build *w, uint32_t id, size_t depth)
{
    size_t n;
    const char *s = lexicon_bytes(w->l, (int32_t)id, &n);
    return n > depth ? 1 + (unsigned char)s[depth] : 0;
}

/* The children of a node: their bytes, ascending, and where the tokens of each
 * end; they begin where those before end, the first ones at `from`. */
struct parts {
    uint32_t from, ends[256];
    unsigned char bytes[256];
    size_t count;
};

static void part_many(struct build *w, struct range r, size_t depth,
                      struct parts *out)
{
    uint32_t ends[257] = {0};
    for (uint32_t i = r.from; i < r.to; i++)
        ends[key_of(w, w->ids[i], depth)]++;
    out->from = r.from + ends[0];
    for (uint32_t k = 0, at = r.from; k < 257; k++) {
        uint32_t count = ends[k];
        if (k && count) out->bytes[out->count++] = (unsigned char)(k - 1);
        ends[k] = at;
        at += count;
    }
    for (uint32_t i = r.from; i < r.to; i++)
        w->other[ends[key_of(w, w->ids[i], depth)]++] = w->ids[i];
    memcpy(w->ids + r.from, w->other + r.from,
           (r.to - r.from) * sizeof *w->ids);
    for (size_t k = 0; k < out->count; k++)
        out->ends[k] = ends[1 + out->bytes[k]];
}

enum { FEW = 16 };

static void part_few(struct build *w, struct range r, size_t depth,
                     struct parts *out)
{
    unsigned keys[FEW];
    uint32_t *ids = w->ids + r.from, count = r.to - r.from;
    out->from = r.from;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t id = ids[i], to = i;
        unsigned key = key_of(w, id, depth);
        for (; to && keys[to - 1] > key; to--) {
            keys[to] = keys[to - 1];
            ids[to] = ids[to - 1];
        }
        keys[to] = key;
        ids[to] = id;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (!keys[i]) {
            out->from++;
            continue;
        }
        if (i && keys[i] == keys[i - 1]) out->count--;
        out->bytes[out->count] = (unsigned char)(keys[i] - 1);
        out->ends[out->count++] = r.from + i + 1;
    }
}

/* Parts a range by the byte at depth, each part in the order of ids; what ends
 * there comes first. */
static void part(struct build *w, struct range r, size_t depth,
                 struct parts *out)
{
    out->count = 0;
    if (r.to - r.from <= FEW)
        part_few(w, r, depth, out);
    else
        part_many(w, r, depth, out);
}

/* The token of all in a range, which share depth bytes, that has no more. */
static int32_t ends_here(const struct build *w, struct range r, size_t depth)
{
    int32_t token = BPE_TRIE_NONE;
    for (uint32_t i = r.from; i < r.to; i++) {
        size_t n;
        lexicon_bytes(w->l, (int32_t)w->ids[i], &n);
        if (n == depth) token = (int32_t)w->ids[i];
        if (depth == BPE_TRIE_MAX && n > depth) return BPE_TRIE_LONG;
    }
    return token;
}

static int add_children(struct build *w, uint32_t at, size_t depth)
{
    struct parts parts;
    part(w, w->ranges[at], depth, &parts);
    w->ranges[at] = (struct range){0};
    if (!parts.count) return 0;
    int rc = grow(w, w->end + 768);
    if (rc) return rc;
    uint32_t base = find_base(w, parts.bytes, parts.count);
    rc = grow(w, base + 512);
    if (rc) return rc;
    w->based[base] = 1;
    w->nodes[at].base_label |= base << 8;
    for (size_t k = 0; k < parts.count; k++) {
        uint32_t to = base + parts.bytes[k];
        struct range r = {k ? parts.ends[k - 1] : parts.from, parts.ends[k]};
        w->nodes[to].base_label = parts.bytes[k];
        w->nodes[to].token = ends_here(w, r, depth + 1);
        w->ranges[to] = r;
        if (to >= w->end) w->end = to + 1;
    }
    return 0;
}

static int plant(struct build *w, const char *s, size_t n)
{
    uint32_t at = BPE_TRIE_ROOT;
    int rc = 0;
    for (size_t i = 0; i < n && i < BPE_TRIE_MAX && !rc; i++) {
        if (w->ranges[at].to) rc = add_children(w, at, i);
        at = bpe_trie_child(w->nodes, at, (unsigned char)s[i]);
    }
    return rc;
}

static int plant_all(struct build *w)
{
    uint32_t count = 0;
    int rc = grow(w, 4096);
    if (rc) return rc;
    for (size_t id = 0; id < lexicon_count(w->l); id++)
        if (lexicon_found(w->l, (int32_t)id)) w->ids[count++] = (uint32_t)id;
    w->nodes[BPE_TRIE_ROOT].token = BPE_TRIE_NONE;
    w->ranges[BPE_TRIE_ROOT] = (struct range){0, count};
    w->based[0] = 1; /* that of leaves: nothing lies below the root */
    w->lowest = w->end = BPE_TRIE_ROOT + 1;
    for (size_t id = 0; id < lexicon_count(w->l) && !rc; id++) {
        size_t n;
        const char *s = lexicon_bytes(w->l, (int32_t)id, &n);
        if (lexicon_found(w->l, (int32_t)id)) rc = plant(w, s, n);
    }
    return rc;
}

int bpe_trie_build(struct bpe_node **out, const struct lexicon *l)
{
    struct build w = {.l = l};
    size_t tokens = lexicon_count(l);
    w.ids = mem_try(tokens, sizeof *w.ids, 0);
    w.other = mem_try(tokens, sizeof *w.other, 0);
    int rc = w.ids && w.other ? plant_all(&w) : ERR_NOMEM;
    mem_free(w.ids);
    mem_free(w.other);
    mem_free(w.ranges);
    mem_free(w.based);
    if (rc)
        mem_free(w.nodes);
    else
        *out = w.nodes;
    return rc;
}
