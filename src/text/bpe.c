/* Short pieces look through all pairs each time; long ones keep a heap.
 *
 * Most pieces are one token. lexicon_find sees that at once, but merges must be
 * able to reach the token; `whole` remembers that they do once it was worked
 * out. It is a memo of a pure function: threads may race to store the same
 * value. */
#include "text/bpe.h"
#include "base/mem.h"
#include "text/utf8.h"

#include <stdatomic.h>
#include <string.h>

struct pair_slot {
    uint64_t pair; /* left id << 32 | right id; NO_PAIR: free */
    uint32_t rank, id;
};
#define NO_PAIR UINT64_MAX
#define NO_RANK UINT32_MAX

/* SentencePiece's space, U+2581. */
#define SPACE       "\xe2\x96\x81"
#define SPACE_BYTES 3

struct bpe {
    const struct lexicon *l;
    struct pair_slot *pairs;
    atomic_uchar *whole;
    size_t merge_cap, pair_mask;
    uint32_t merge_count;
    int32_t unknown;
    bool ignore_merges, fuse_unknown, byte_fallback;
    bool crosses_space;     /* some merge joins "x" with "▁y"  */
    bool words;             /* so text falls apart before each "▁" */
    int32_t start_of[0x80]; /* token of one byte or ASCII character */
};

static uint64_t mix(uint64_t x)
{
    x *= 0x9e3779b97f4a7c15u;
    return x ^ x >> 32;
}

static struct pair_slot *pair_slot(const struct bpe *b, uint64_t pair)
{
    size_t i = mix(mix(pair)) & b->pair_mask;
    while (b->pairs[i].pair != pair && b->pairs[i].pair != NO_PAIR)
        i = (i + 1) & b->pair_mask;
    return &b->pairs[i];
}

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* Making one. */

int bpe_create(struct bpe **out, const struct lexicon *l, size_t merges,
               struct why *why)
{
    struct bpe *b = mem_must(1, sizeof *b);
    size_t pairs = 16;
    while (pairs < merges + merges / 2)
        pairs *= 2;
    b->l = l;
    b->merge_cap = merges;
    b->pair_mask = pairs - 1;
    b->unknown = -1;
    if (merges < NO_RANK) {
        b->pairs = mem_try(pairs, sizeof *b->pairs, 64);
        b->whole = mem_try(lexicon_count(l), sizeof *b->whole, 0);
    }
    if (!b->pairs || !b->whole) {
        bpe_destroy(b);
        return err_set(why, ERR_NOMEM, "vocabulary of %zu merges", merges);
    }
    for (size_t i = 0; i < pairs; i++)
        b->pairs[i].pair = NO_PAIR;
    *out = b;
    return 0;
}

void bpe_destroy(struct bpe *b)
{
    if (!b) return;
    mem_free(b->pairs);
    mem_free(b->whole);
    mem_free(b);
}

static bool starts_with_space(const char *s, size_t n)
{
    return n >= SPACE_BYTES && !memcmp(s, SPACE, SPACE_BYTES);
}

static bool ends_with_space(const char *s, size_t n)
{
    return n >= SPACE_BYTES && !memcmp(s + n - SPACE_BYTES, SPACE, SPACE_BYTES);
}

static bool joins_at_space(const struct bpe *b, int32_t left, int32_t right)
{
    size_t l_len, r_len;
    const char *l = lexicon_bytes(b->l, left, &l_len);
    const char *r = lexicon_bytes(b->l, right, &r_len);
    return starts_with_space(r, r_len) && !ends_with_space(l, l_len);
}

void bpe_add_pair(struct bpe *b, int32_t left, int32_t right, int32_t into,
                  uint32_t rank)
{
    if (lexicon_kind(b->l) == LEXICON_TEXT && !b->crosses_space)
        b->crosses_space = joins_at_space(b, left, right);
    *pair_slot(b, pair_of(left, right)) =
        (struct pair_slot){pair_of(left, right), rank, (uint32_t)into};
    b->merge_count++;
}

enum { MERGE_BYTES = 4096 };

int bpe_add_merge(struct bpe *b, const char *left, size_t left_len,
                  const char *right, size_t right_len, struct why *why)
{
    char bytes[MERGE_BYTES];
    size_t l = 0, r = 0;
    int32_t into = -1;
    if (b->merge_count == b->merge_cap)
        return err_set(why, ERR_FORMAT, "more merges than announced");
    int32_t left_id = lexicon_find_spelled(b->l, left, left_len);
    int32_t right_id = lexicon_find_spelled(b->l, right, right_len);
    if (left_id >= 0 && right_id >= 0) {
        const char *from = lexicon_bytes(b->l, left_id, &l);
        const char *then = lexicon_bytes(b->l, right_id, &r);
        if (l + r > sizeof bytes)
            return err_set(why, ERR_UNSUPPORTED, "merge %u: %zu bytes long",
                           b->merge_count, l + r);
        memcpy(bytes, from, l);
        memcpy(bytes + l, then, r);
        into = lexicon_find(b->l, bytes, l + r);
    }
    if (into < 0)
        return err_set(why, ERR_FORMAT,
                       "merge %u \"%.*s %.*s\": not all tokens", b->merge_count,
                       (int)left_len, left, (int)right_len, right);
    bpe_add_pair(b, left_id, right_id, into, b->merge_count);
    return 0;
}

void bpe_set_unknown(struct bpe *b, int32_t id, bool fuse)
{
    b->unknown = id;
    b->fuse_unknown = fuse;
}

void bpe_set_byte_fallback(struct bpe *b, bool fallback)
{
    b->byte_fallback = fallback;
}

void bpe_set_ignore_merges(struct bpe *b, bool ignore)
{
    b->ignore_merges = ignore;
}

void bpe_finish(struct bpe *b)
{
    for (int c = 0; c < 0x80; c++) {
        char byte = (char)c;
        b->start_of[c] = lexicon_find(b->l, &byte, 1);
    }
    b->words = lexicon_kind(b->l) == LEXICON_TEXT && !b->crosses_space &&
               lexicon_find(b->l, SPACE, SPACE_BYTES) >= 0;
}

/* What a piece starts from. */

static size_t to_bytes(const struct bpe *b, const char *piece, size_t n,
                       int32_t *ids)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t id = lexicon_byte(b->l, (unsigned char)piece[i]);
        if (id < 0) id = b->unknown;
        if (id >= 0) ids[count++] = id;
    }
    return count;
}

static bool has_bytes(const struct bpe *b, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (lexicon_byte(b->l, (unsigned char)s[i]) < 0) return false;
    return b->byte_fallback;
}

/* An unknown character waits for its neighbour, to be fused with it; bytes do
 * not end the wait, as in Hugging Face's BPE::merge_word. */
static size_t to_chars(const struct bpe *b, const char *piece, size_t n,
                       int32_t *ids)
{
    size_t count = 0, len;
    bool waiting = false;
    for (size_t i = 0; i < n; i += len) {
        unsigned char first = (unsigned char)piece[i];
        len = utf8_len(first);
        int32_t id = first < 0x80 ? b->start_of[first]
                                  : lexicon_find(b->l, piece + i, len);
        if (id >= 0) {
            if (waiting) ids[count++] = b->unknown;
            waiting = false;
            ids[count++] = id;
        } else if (has_bytes(b, piece + i, len)) {
            for (size_t k = 0; k < len; k++)
                ids[count++] = lexicon_byte(b->l, (unsigned char)piece[i + k]);
        } else if (b->unknown >= 0) {
            if (waiting && !b->fuse_unknown) ids[count++] = b->unknown;
            waiting = true;
        }
    }
    if (waiting) ids[count++] = b->unknown;
    return count;
}

static size_t to_parts(const struct bpe *b, const char *piece, size_t n,
                       int32_t *ids)
{
    return lexicon_kind(b->l) == LEXICON_BYTES ? to_bytes(b, piece, n, ids)
                                               : to_chars(b, piece, n, ids);
}

/* Short pieces. */

enum { SHORT = 64 };

/* Keys are rank << 32 | place, so that the best merge is the least key and is
 * found without a branch. A part that was merged into its left neighbour keeps
 * its place, without a rank; next and prev lead around it. */
struct short_merge {
    uint64_t key[SHORT]; /* of a part with the next */
    uint32_t into[SHORT];
    unsigned char next[SHORT], prev[SHORT];
};
#define NO_KEY UINT64_MAX

static inline void look_short(const struct bpe *b, struct short_merge *m,
                              size_t i, int32_t left, int32_t right)
{
    const struct pair_slot *slot = pair_slot(b, pair_of(left, right));
    m->key[i] = slot->pair == NO_PAIR ? NO_KEY : (uint64_t)slot->rank << 32 | i;
    m->into[i] = slot->id;
}

static inline uint64_t least_key(const uint64_t *keys, size_t count)
{
    uint64_t a = NO_KEY, b = NO_KEY;
    size_t i = 0;
    for (; i + 1 < count; i += 2) {
        a = keys[i] < a ? keys[i] : a;
        b = keys[i + 1] < b ? keys[i + 1] : b;
    }
    if (i < count) a = keys[i] < a ? keys[i] : a;
    return a < b ? a : b;
}

static size_t merge_short(const struct bpe *b, struct bpe_scratch *s,
                          int32_t *ids, size_t count)
{
    struct short_merge m;
    size_t kept = 0;
    if (!count) return 0;
    for (size_t i = 0; i < count; i++) {
        m.next[i] = (unsigned char)(i + 1);
        m.prev[i] = (unsigned char)(i - 1);
        if (i + 1 < count) look_short(b, &m, i, ids[i], ids[i + 1]);
    }
    s->work += count;
    for (uint64_t key; (key = least_key(m.key, count - 1)) != NO_KEY;) {
        size_t best = (uint32_t)key, gone = m.next[best], next = m.next[gone];
        s->work += 2;
        ids[best] = (int32_t)m.into[best];
        m.key[gone] = m.key[best] = NO_KEY;
        m.next[best] = (unsigned char)next;
        if (next < count) {
            m.prev[next] = (unsigned char)best;
            look_short(b, &m, best, ids[best], ids[next]);
        }
        if (!best) continue;
        size_t prev = m.prev[best];
        look_short(b, &m, prev, ids[prev], ids[best]);
    }
    for (size_t i = 0; i < count; i = m.next[i])
        ids[kept++] = ids[i];
    return kept;
}

/* Long pieces: a heap of rank << 32 | position. What a merge made stale stays
 * in it and is passed over when it comes up. */

struct bpe_part {
    int32_t id; /* -1: merged into its left neighbour */
    uint32_t prev, next;
    uint32_t rank, into; /* of the merge with next; NO_RANK: none */
};
#define END UINT32_MAX

struct long_merge {
    const struct bpe *b;
    struct bpe_part *parts;
    uint64_t *heap;
    size_t heap_count;
    uint64_t work;
};

static void push(struct long_merge *m, uint64_t key)
{
    size_t i = m->heap_count++;
    for (; i && m->heap[(i - 1) / 2] > key; i = (i - 1) / 2, m->work++)
        m->heap[i] = m->heap[(i - 1) / 2];
    m->heap[i] = key;
}

static void sink_from(struct long_merge *m, size_t i, uint64_t key)
{
    for (;; m->work++) {
        size_t child = 2 * i + 1;
        if (child >= m->heap_count) break;
        if (child + 1 < m->heap_count && m->heap[child + 1] < m->heap[child])
            child++;
        if (m->heap[child] >= key) break;
        m->heap[i] = m->heap[child];
        i = child;
    }
    m->heap[i] = key;
}

static uint64_t pop(struct long_merge *m)
{
    uint64_t top = m->heap[0], last = m->heap[--m->heap_count];
    if (m->heap_count) sink_from(m, 0, last);
    return top;
}

/* The rank of the part with its right neighbour; whether it has one. */
static bool look(struct long_merge *m, uint32_t at)
{
    struct bpe_part *part = &m->parts[at];
    part->rank = NO_RANK;
    if (part->next == END) return false;
    m->work++;
    const struct pair_slot *slot =
        pair_slot(m->b, pair_of(part->id, m->parts[part->next].id));
    if (slot->pair == NO_PAIR) return false;
    part->rank = slot->rank;
    part->into = slot->id;
    return true;
}

static uint64_t key_of(const struct long_merge *m, uint32_t at)
{
    return (uint64_t)m->parts[at].rank << 32 | at;
}

static void merge_at(struct long_merge *m, uint32_t at)
{
    struct bpe_part *part = &m->parts[at], *gone = &m->parts[part->next];
    part->id = (int32_t)part->into;
    part->next = gone->next;
    gone->id = -1;
    gone->rank = NO_RANK;
    if (part->next != END) m->parts[part->next].prev = at;
    if (part->prev != END && look(m, part->prev))
        push(m, key_of(m, part->prev));
    if (look(m, at)) push(m, key_of(m, at));
}

static int scratch_reserve(struct bpe_scratch *s, size_t count)
{
    if (count <= s->cap) return 0;
    if (count >= END / 3) return ERR_NOMEM;
    count += count / 2;
    mem_free(s->parts);
    mem_free(s->heap);
    s->cap = 0;
    s->parts = mem_try(count, sizeof *s->parts, 0);
    s->heap = mem_try(3 * count, sizeof *s->heap, 0);
    if (!s->parts || !s->heap) return ERR_NOMEM;
    s->cap = count;
    return 0;
}

void bpe_scratch_fini(struct bpe_scratch *s)
{
    mem_free(s->parts);
    mem_free(s->heap);
    mem_free(s->seen);
    *s = (struct bpe_scratch){0};
}

static int64_t merge_long(const struct bpe *b, struct bpe_scratch *s,
                          int32_t *ids, size_t count)
{
    int rc = scratch_reserve(s, count);
    if (rc) return rc;
    if (!count) return 0;
    struct long_merge m = {.b = b, .parts = s->parts, .heap = s->heap};
    for (uint32_t i = 0; i < count; i++)
        m.parts[i] = (struct bpe_part){
            .id = ids[i], .prev = i - 1, .next = i + 1 < count ? i + 1 : END};
    for (uint32_t i = 0; i < count; i++)
        if (look(&m, i)) m.heap[m.heap_count++] = key_of(&m, i);
    for (size_t i = m.heap_count / 2; i-- > 0;)
        sink_from(&m, i, m.heap[i]);
    while (m.heap_count) {
        uint64_t key = pop(&m);
        uint32_t at = (uint32_t)key;
        if (m.parts[at].rank == key >> 32) merge_at(&m, at);
    }
    s->work += m.work;
    size_t kept = 0;
    for (uint32_t at = 0; at != END; at = m.parts[at].next)
        ids[kept++] = m.parts[at].id;
    return (int64_t)kept;
}

/* A text says the same words again and again: what became of those that are not
 * one token is kept, once a text has shown to be long enough for that. Each
 * piece has one place; a later piece of the same place takes it. */

enum { SEEN_BYTES = 28, SEEN_IDS = 8, SEEN = 4096, SEEN_AFTER = 256 };

struct bpe_seen {
    char bytes[SEEN_BYTES];
    unsigned char len, count; /* len 0: free */
    int32_t ids[SEEN_IDS];
};

static struct bpe_seen *seen_place(struct bpe_scratch *s, const char *piece,
                                   size_t n)
{
    if (n > SEEN_BYTES) return NULL;
    if (!s->seen && ++s->misses > SEEN_AFTER)
        s->seen = mem_try(SEEN, sizeof *s->seen, 64); /* may do without */
    return s->seen ? &s->seen[mix(lexicon_key(piece, n) + n) % SEEN] : NULL;
}

static int64_t merge_seen(const struct bpe *b, struct bpe_scratch *s,
                          const char *piece, size_t n, int32_t *ids)
{
    struct bpe_seen *seen = seen_place(s, piece, n);
    if (seen && seen->len == n && !memcmp(seen->bytes, piece, n)) {
        memcpy(ids, seen->ids, seen->count * sizeof *ids);
        return seen->count;
    }
    size_t count = merge_short(b, s, ids, to_parts(b, piece, n, ids));
    if (seen && count <= SEEN_IDS) {
        memcpy(seen->bytes, piece, n);
        memcpy(seen->ids, ids, count * sizeof *ids);
        seen->len = (unsigned char)n;
        seen->count = (unsigned char)count;
    }
    return (int64_t)count;
}

static int64_t merge_word(const struct bpe *b, struct bpe_scratch *scratch,
                          const char *piece, size_t n, int32_t *ids,
                          bool ignore_merges)
{
    int32_t word = lexicon_find(b->l, piece, n);
    if (word >= 0 &&
        (ignore_merges ||
         atomic_load_explicit(&b->whole[word], memory_order_relaxed))) {
        ids[0] = word;
        return 1;
    }
    int64_t count =
        n > SHORT ? merge_long(b, scratch, ids, to_parts(b, piece, n, ids))
                  : merge_seen(b, scratch, piece, n, ids);
    if (word >= 0 && count == 1 && ids[0] == word)
        atomic_store_explicit(&b->whole[word], 1, memory_order_relaxed);
    return count;
}

/* To where the next "▁" begins that follows something else. */
static size_t word_len(const char *s, size_t n)
{
    size_t i = 0;
    while (starts_with_space(s + i, n - i))
        i += SPACE_BYTES;
    const char *next = i < n ? memmem(s + i, n - i, SPACE, SPACE_BYTES) : NULL;
    return next ? (size_t)(next - s) : n;
}

int64_t bpe_merge(const struct bpe *b, struct bpe_scratch *scratch,
                  const char *piece, size_t n, int32_t *ids)
{
    if (!b->words)
        return merge_word(b, scratch, piece, n, ids, b->ignore_merges);
    int64_t count = 0;
    if (b->ignore_merges) {
        ids[0] = lexicon_find(b->l, piece, n);
        if (ids[0] >= 0) return 1;
    }
    while (n) {
        size_t len = word_len(piece, n);
        int64_t got = merge_word(b, scratch, piece, len, ids + count, false);
        if (got < 0) return got;
        count += got;
        piece += len;
        n -= len;
    }
    return count;
}
