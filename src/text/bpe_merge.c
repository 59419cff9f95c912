/* Merging as it is defined: the best pair of neighbours first, the leftmost
 * among equals. Short pieces look through all pairs each time; long ones keep a
 * heap. */
#include "text/bpe_impl.h"
#include "base/mem.h"

/* Short pieces. */

/* Keys are rank << 32 | place, so that the best merge is the least key and is
 * found without a branch. A part that was merged into its left neighbour keeps
 * its place, without a rank; next and prev lead around it. */
struct short_merge {
    uint64_t key[BPE_SHORT]; /* of a part with the next */
    int32_t into[BPE_SHORT];
    unsigned char next[BPE_SHORT], prev[BPE_SHORT];
};
#define NO_KEY UINT64_MAX

static inline void look_short(const struct bpe *b, struct short_merge *m,
                              size_t i, int32_t left, int32_t right)
{
    const struct bpe_pair *pair = bpe_pair_find(b, left, right);
    m->key[i] = pair ? (uint64_t)pair->rank << 32 | i : NO_KEY;
    m->into[i] = pair ? pair->into : -1;
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

static inline size_t merge_short(const struct bpe *b, struct bpe_scratch *s,
                                 int32_t *ids, size_t count,
                                 struct bpe_last *last)
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
        if (last)
            *last =
                (struct bpe_last){ids[best], ids[gone], (uint32_t)(key >> 32)};
        ids[best] = m.into[best];
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

size_t bpe_merge_short(const struct bpe *b, struct bpe_scratch *s, int32_t *ids,
                       size_t count)
{
    return merge_short(b, s, ids, count, NULL);
}

size_t bpe_merge_told(const struct bpe *b, struct bpe_scratch *s, int32_t *ids,
                      size_t count, struct bpe_last *last)
{
    return merge_short(b, s, ids, count, last);
}

/* Long pieces: a heap of rank << 32 | position. What a merge made stale stays
 * in it and is passed over when it comes up. */

struct bpe_part {
    int32_t id; /* -1: merged into its left neighbour */
    uint32_t prev, next;
    uint32_t rank; /* of the merge with next; BPE_NO_RANK: none */
    int32_t into;
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
    part->rank = BPE_NO_RANK;
    if (part->next == END) return false;
    m->work++;
    const struct bpe_pair *pair =
        bpe_pair_find(m->b, part->id, m->parts[part->next].id);
    if (!pair) return false;
    part->rank = pair->rank;
    part->into = pair->into;
    return true;
}

static uint64_t key_of(const struct long_merge *m, uint32_t at)
{
    return (uint64_t)m->parts[at].rank << 32 | at;
}

static void merge_at(struct long_merge *m, uint32_t at)
{
    struct bpe_part *part = &m->parts[at], *gone = &m->parts[part->next];
    part->id = part->into;
    part->next = gone->next;
    gone->id = -1;
    gone->rank = BPE_NO_RANK;
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

int64_t bpe_merge_long(const struct bpe *b, struct bpe_scratch *s, int32_t *ids,
                       size_t count)
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
