/* The best pair of neighbours, the leftmost among equals, is merged until no
 * pair is a merge. Short pieces look through all pairs each time; long ones
 * keep lists of pairs by rank, so that n bytes cost n log n at most.
 *
 * Most pieces are one token. bpe_find sees that at once, but merges must be
 * able to reach the token; `whole` remembers that they do once it was worked out. It
 * is a memo of a pure function: threads may race to store the same value. */
#include "text/bpe.h"
#include "base/mem.h"
#include "text/utf8.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct token {
    uint32_t at, len;
};

/* Up to 8 bytes of a token are their own key, more are hashed. */
struct word_slot {
    uint64_t key;
    uint32_t len; /* 0: free */
    int32_t id;
};

struct pair_slot {
    uint64_t pair; /* left id << 32 | right id; NO_PAIR: free */
    uint32_t rank, id;
};
#define NO_PAIR UINT64_MAX

struct bpe {
    struct token *tokens;
    char *arena;
    struct word_slot *words;
    struct pair_slot *pairs;
    atomic_uchar *whole;
    size_t token_count, arena_len, arena_cap, merge_cap;
    size_t word_mask, pair_mask;
    uint32_t merge_count;
    int32_t unknown;
    bool ignore_merges;
    int32_t byte_id[256];
};

/* GPT-2's alphabet: printable Latin-1 stands for itself, the other 68 bytes
 * in order for U+0100 and up. */
static bool printable(unsigned b)
{
    return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
}

static int alphabet_byte(uint32_t cp)
{
    static const unsigned char other[68] = {
        0,   1,   2,   3,   4,   5,   6,   7,   8,   9,   10,  11,  12,  13,
        14,  15,  16,  17,  18,  19,  20,  21,  22,  23,  24,  25,  26,  27,
        28,  29,  30,  31,  32,  127, 128, 129, 130, 131, 132, 133, 134, 135,
        136, 137, 138, 139, 140, 141, 142, 143, 144, 145, 146, 147, 148, 149,
        150, 151, 152, 153, 154, 155, 156, 157, 158, 159, 160, 173};
    if (cp < 256) return printable(cp) ? (int)cp : -1;
    return cp < 256 + sizeof other ? other[cp - 256] : -1;
}

/* Spelling to bytes in out (n at most). False: it leaves the alphabet. */
static bool unspell(const char *s, size_t n, char *out, size_t *out_len)
{
    size_t count = 0, len;
    for (size_t i = 0; i < n; i += len) {
        int byte = alphabet_byte(utf8_get(s + i, &len));
        if (byte < 0) return false;
        out[count++] = (char)byte;
    }
    *out_len = count;
    return true;
}

static uint64_t load(const char *s, size_t n)
{
    uint64_t v = 0;
    if (n == 8) {
        memcpy(&v, s, 8);
        return v;
    }
    if (n >= 4) {
        uint32_t lo, hi;
        memcpy(&lo, s, 4);
        memcpy(&hi, s + n - 4, 4);
        return lo | (uint64_t)hi << (8 * (n - 4));
    }
    const unsigned char *u = (const unsigned char *)s;
    return u[0] | (uint64_t)u[n / 2] << (8 * (n / 2)) |
           (uint64_t)u[n - 1] << (8 * (n - 1));
}

static uint64_t mix(uint64_t x)
{
    x *= 0x9e3779b97f4a7c15u;
    return x ^ x >> 32;
}

static uint64_t word_key(const char *s, size_t n)
{
    if (n <= 8) return load(s, n);
    uint64_t h = n;
    for (; n > 8; s += 8, n -= 8)
        h = mix(h ^ load(s, 8)) + 0x2545f4914f6cdd1du;
    return mix(h ^ load(s, n));
}

static size_t word_start(const struct bpe *b, uint64_t key, size_t n)
{
    return mix(key + n) & b->word_mask;
}

static const struct word_slot *word_find(const struct bpe *b, const char *s,
                                         size_t n)
{
    uint64_t key = word_key(s, n);
    size_t i = word_start(b, key, n);
    for (; b->words[i].len; i = (i + 1) & b->word_mask) {
        const struct word_slot *w = &b->words[i];
        if (w->key != key || w->len != n) continue;
        if (n <= 8 || !memcmp(b->arena + b->tokens[w->id].at, s, n)) return w;
    }
    return NULL;
}

static void word_put(struct bpe *b, const char *s, size_t n, int32_t id)
{
    uint64_t key = word_key(s, n);
    size_t i = word_start(b, key, n);
    while (b->words[i].len)
        i = (i + 1) & b->word_mask;
    b->words[i] = (struct word_slot){key, (uint32_t)n, id};
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

static size_t table_size(size_t entries)
{
    size_t size = 16;
    while (size < entries + entries / 2)
        size *= 2;
    return size;
}

int bpe_create(struct bpe **out, size_t tokens, size_t text_bytes,
               size_t merges, struct why *why)
{
    struct bpe *b = mem_must(1, sizeof *b);
    size_t words = table_size(tokens), pairs = table_size(merges);
    b->token_count = tokens;
    b->arena_cap = text_bytes;
    b->merge_cap = merges;
    b->word_mask = words - 1;
    b->pair_mask = pairs - 1;
    b->unknown = -1;
    memset(b->byte_id, -1, sizeof b->byte_id);
    if (text_bytes <= UINT32_MAX && tokens <= INT32_MAX) {
        b->tokens = mem_try(tokens, sizeof *b->tokens, 0);
        b->arena = mem_try(text_bytes, 1, 0);
        b->words = mem_try(words, sizeof *b->words, 64);
        b->pairs = mem_try(pairs, sizeof *b->pairs, 64);
        b->whole = mem_try(tokens, sizeof *b->whole, 0);
    }
    if (!b->tokens || !b->arena || !b->words || !b->pairs || !b->whole) {
        bpe_destroy(b);
        return err_set(why, ERR_NOMEM, "vocabulary: %zu tokens, %zu merges",
                       tokens, merges);
    }
    for (size_t i = 0; i < pairs; i++)
        b->pairs[i].pair = NO_PAIR;
    *out = b;
    return 0;
}

void bpe_destroy(struct bpe *b)
{
    if (!b) return;
    mem_free(b->tokens);
    mem_free(b->arena);
    mem_free(b->words);
    mem_free(b->pairs);
    mem_free(b->whole);
    mem_free(b);
}

int bpe_add_token(struct bpe *b, uint32_t id, const char *spelling, size_t n,
                  enum bpe_spelling how, struct why *why)
{
    if (id >= b->token_count)
        return err_set(why, ERR_FORMAT, "token id %u of %zu", id,
                       b->token_count);
    if (utf8_valid(spelling, n) != n)
        return err_set(why, ERR_FORMAT, "token %u is not UTF-8", id);
    struct token *token = &b->tokens[id];
    if (token->len) return err_set(why, ERR_FORMAT, "two tokens of id %u", id);
    if (n == 0) return 0;
    if (n > b->arena_cap - b->arena_len)
        return err_set(why, ERR_FORMAT, "token %u: longer than the file", id);
    char *bytes = b->arena + b->arena_len;
    size_t len;
    bool mapped = unspell(spelling, n, bytes, &len);
    if (!mapped) {
        memcpy(bytes, spelling, n);
        len = n;
    }
    if (mapped && how == BPE_MAPPED) {
        if (word_find(b, bytes, len))
            return err_set(why, ERR_FORMAT, "token %u: two tokens are \"%.*s\"",
                           id, (int)n, spelling);
        if (len == 1) b->byte_id[(unsigned char)bytes[0]] = (int32_t)id;
        word_put(b, bytes, len, (int32_t)id);
    }
    *token = (struct token){(uint32_t)b->arena_len, (uint32_t)len};
    b->arena_len += len;
    return 0;
}

enum { MERGE_BYTES = 4096 };

/* The token spelled so; its bytes are left in bytes, which has room for n. */
static int32_t spelled(const struct bpe *b, const char *spelling, size_t n,
                       char *bytes, size_t *len)
{
    if (utf8_valid(spelling, n) != n || !unspell(spelling, n, bytes, len))
        return -1;
    return bpe_find(b, bytes, *len);
}

int32_t bpe_find_spelled(const struct bpe *b, const char *spelling, size_t n)
{
    char bytes[MERGE_BYTES];
    size_t len;
    return n > sizeof bytes ? -1 : spelled(b, spelling, n, bytes, &len);
}

bool bpe_is(const struct bpe *b, int32_t id, const char *spelling, size_t n)
{
    char bytes[MERGE_BYTES];
    size_t len, have;
    const char *token = bpe_bytes(b, id, &have);
    if (!token || n > sizeof bytes || utf8_valid(spelling, n) != n)
        return false;
    if (unspell(spelling, n, bytes, &len))
        return len == have && !memcmp(bytes, token, len);
    return n == have && !memcmp(spelling, token, n);
}

bool bpe_covers_utf8(const struct bpe *b)
{
    for (int byte = 0; byte < 0xf5; byte++)
        if (b->byte_id[byte] < 0 && byte != 0xc0 && byte != 0xc1) return false;
    return true;
}

int bpe_add_merge(struct bpe *b, const char *left, size_t left_len,
                  const char *right, size_t right_len, struct why *why)
{
    char bytes[MERGE_BYTES];
    if (b->merge_count == b->merge_cap)
        return err_set(why, ERR_FORMAT, "more merges than announced");
    if (left_len + right_len > sizeof bytes)
        return err_set(why, ERR_UNSUPPORTED, "merge %u: %zu bytes long",
                       b->merge_count, left_len + right_len);
    size_t l = 0, r = 0;
    int32_t left_id = spelled(b, left, left_len, bytes, &l);
    int32_t right_id =
        left_id < 0 ? -1 : spelled(b, right, right_len, bytes + l, &r);
    const struct word_slot *whole =
        right_id < 0 ? NULL : word_find(b, bytes, l + r);
    if (!whole)
        return err_set(why, ERR_FORMAT,
                       "merge %u \"%.*s %.*s\": not all tokens", b->merge_count,
                       (int)left_len, left, (int)right_len, right);
    struct pair_slot *slot = pair_slot(b, pair_of(left_id, right_id));
    *slot = (struct pair_slot){pair_of(left_id, right_id), b->merge_count++,
                               (uint32_t)whole->id};
    return 0;
}

void bpe_set_unknown(struct bpe *b, int32_t id)
{
    b->unknown = id;
}

void bpe_set_ignore_merges(struct bpe *b, bool ignore)
{
    b->ignore_merges = ignore;
}

size_t bpe_tokens(const struct bpe *b)
{
    return b->token_count;
}

bool bpe_has(const struct bpe *b, int32_t id)
{
    return id >= 0 && (size_t)id < b->token_count && b->tokens[id].len;
}

const char *bpe_bytes(const struct bpe *b, int32_t id, size_t *len)
{
    *len = 0;
    if (!bpe_has(b, id)) return NULL;
    *len = b->tokens[id].len;
    return b->arena + b->tokens[id].at;
}

int32_t bpe_find(const struct bpe *b, const char *bytes, size_t n)
{
    const struct word_slot *w = n ? word_find(b, bytes, n) : NULL;
    return w ? w->id : -1;
}

/* The parts a piece starts from: its bytes. */
static size_t to_bytes(const struct bpe *b, const char *piece, size_t n,
                       int32_t *ids)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t id = b->byte_id[(unsigned char)piece[i]];
        if (id < 0) id = b->unknown;
        if (id >= 0) ids[count++] = id;
    }
    return count;
}

enum { SHORT = 64 };

static uint32_t rank_of(const struct bpe *b, int32_t left, int32_t right)
{
    const struct pair_slot *slot = pair_slot(b, pair_of(left, right));
    return slot->pair == NO_PAIR ? UINT32_MAX : slot->rank;
}

static size_t merge_short(const struct bpe *b, int32_t *ids, size_t count)
{
    uint32_t rank[SHORT]; /* of ids[i] with ids[i + 1] */
    for (size_t i = 0; i + 1 < count; i++)
        rank[i] = rank_of(b, ids[i], ids[i + 1]);
    while (count > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < count; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == UINT32_MAX) break;
        ids[best] =
            (int32_t)pair_slot(b, pair_of(ids[best], ids[best + 1]))->id;
        count--;
        size_t tail = count - best - 1;
        memmove(ids + best + 1, ids + best + 2, tail * sizeof *ids);
        if (tail) memmove(rank + best, rank + best + 1, tail * sizeof *rank);
        if (best + 1 < count) rank[best] = rank_of(b, ids[best], ids[best + 1]);
        if (best) rank[best - 1] = rank_of(b, ids[best - 1], ids[best]);
    }
    return count;
}

/* Long pieces. Each part knows the rank of the merge with its right neighbour;
 * each rank has a list of the parts that had it when they were listed. Ranks
 * are taken from the lowest, and a rank's parts from the left. A merge nearly
 * always brings only higher ranks, so the lists are walked once, upward;
 * where it brings a lower one, the rest of the list is put back. */

struct bpe_part {
    int32_t id; /* -1: merged into its left neighbour */
    uint32_t prev, next;
    uint32_t rank, into; /* of the merge with next; NO_RANK: none */
};

struct bpe_entry {
    uint32_t at, next; /* next: index + 1 of the entry listed before, or 0 */
};

struct long_merge {
    const struct bpe *b;
    struct bpe_part *parts;
    struct bpe_entry *entries;
    uint64_t *order;
    uint32_t *heads;
    uint64_t *bits;
    uint32_t entry_count;
    uint32_t lowest; /* no rank below has entries */
};
#define END     UINT32_MAX
#define NO_RANK UINT32_MAX

static void list_entry(struct long_merge *m, uint32_t rank, uint32_t entry)
{
    m->entries[entry].next = m->heads[rank];
    m->heads[rank] = entry + 1;
    m->bits[rank / 64] |= (uint64_t)1 << rank % 64;
    if (rank < m->lowest) m->lowest = rank;
}

static void consider(struct long_merge *m, uint32_t at)
{
    struct bpe_part *part = &m->parts[at];
    part->rank = NO_RANK;
    if (part->next == END) return;
    const struct pair_slot *slot =
        pair_slot(m->b, pair_of(part->id, m->parts[part->next].id));
    if (slot->pair == NO_PAIR) return;
    part->rank = slot->rank;
    part->into = slot->id;
    m->entries[m->entry_count].at = at;
    list_entry(m, slot->rank, m->entry_count++);
}

static void merge_at(struct long_merge *m, uint32_t at)
{
    struct bpe_part *part = &m->parts[at], *gone = &m->parts[part->next];
    part->id = (int32_t)part->into;
    part->next = gone->next;
    gone->id = -1;
    gone->rank = NO_RANK;
    if (part->next != END) m->parts[part->next].prev = at;
    if (part->prev != END) consider(m, part->prev);
    consider(m, at);
}

static int by_position(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Empties the rank's list into order: position << 32 | entry, ascending. */
static size_t take_list(struct long_merge *m, uint32_t rank)
{
    size_t count = 0;
    bool falling = true; /* as it is when the list was made from the left */
    for (uint32_t e = m->heads[rank]; e; e = m->entries[e - 1].next) {
        m->order[count] = (uint64_t)m->entries[e - 1].at << 32 | (e - 1);
        falling = falling && (!count || m->order[count] < m->order[count - 1]);
        count++;
    }
    m->heads[rank] = 0;
    m->bits[rank / 64] &= ~((uint64_t)1 << rank % 64);
    if (!falling) {
        qsort(m->order, count, sizeof *m->order, by_position);
        return count;
    }
    for (size_t i = 0; i < count / 2; i++) {
        uint64_t swap = m->order[i];
        m->order[i] = m->order[count - 1 - i];
        m->order[count - 1 - i] = swap;
    }
    return count;
}

static void merge_rank(struct long_merge *m, uint32_t rank)
{
    size_t count = take_list(m, rank), i = 0;
    while (i < count && m->lowest >= rank) {
        uint32_t at = (uint32_t)(m->order[i++] >> 32);
        if (m->parts[at].rank == rank) merge_at(m, at);
    }
    for (; i < count; i++)
        list_entry(m, rank, (uint32_t)m->order[i]);
}

/* The lowest rank that has entries, which becomes m->lowest. */
static bool next_rank(struct long_merge *m)
{
    size_t words = m->b->merge_count / 64 + 1, w = m->lowest / 64;
    while (w < words && !m->bits[w])
        w++;
    if (w >= words) return false;
    m->lowest = (uint32_t)(w * 64 + (size_t)__builtin_ctzll(m->bits[w]));
    return true;
}

static int scratch_reserve(const struct bpe *b, struct bpe_scratch *s,
                           size_t count)
{
    if (count >= END / 3) return ERR_NOMEM;
    if (!s->heads) s->heads = mem_try(b->merge_count, sizeof *s->heads, 0);
    if (!s->bits)
        s->bits = mem_try(b->merge_count / 64 + 1, sizeof *s->bits, 0);
    if (count > s->cap) {
        mem_free(s->parts);
        mem_free(s->entries);
        mem_free(s->order);
        s->cap = 0;
        s->parts = mem_try(count, sizeof *s->parts, 0);
        s->entries = mem_try(3 * count, sizeof *s->entries, 0);
        s->order = mem_try(3 * count, sizeof *s->order, 0);
        if (s->parts && s->entries && s->order) s->cap = count;
    }
    return s->heads && s->bits && s->cap ? 0 : ERR_NOMEM;
}

void bpe_scratch_fini(struct bpe_scratch *s)
{
    mem_free(s->parts);
    mem_free(s->entries);
    mem_free(s->order);
    mem_free(s->heads);
    mem_free(s->bits);
    mem_free(s->seen);
    *s = (struct bpe_scratch){0};
}

/* In place; ids become the parts that are left. */
static int64_t merge_long(const struct bpe *b, struct bpe_scratch *s,
                          int32_t *ids, size_t count)
{
    if (!count) return 0; /* bytes without tokens are left out */
    int rc = scratch_reserve(b, s, count);
    if (rc) return rc;
    /* Each merge lists two entries and removes one part. */
    struct long_merge m = {b,        s->parts, s->entries, s->order,
                           s->heads, s->bits,  0,          NO_RANK};
    for (uint32_t i = 0; i < count; i++)
        m.parts[i] = (struct bpe_part){.id = ids[i],
                                       .prev = i ? i - 1 : END,
                                       .next = i + 1 < count ? i + 1 : END};
    for (uint32_t i = 0; i < count; i++)
        consider(&m, i);
    while (next_rank(&m))
        merge_rank(&m, m.lowest);
    int64_t left = 0;
    for (uint32_t i = 0; i != END; i = m.parts[i].next)
        ids[left++] = m.parts[i].id;
    return left;
}

/* Texts repeat their words: what became of those that are not one token is
 * kept, once a text has shown to be long enough for that. Each piece has one
 * place; a later piece of the same place takes it. */

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
    return s->seen ? &s->seen[mix(word_key(piece, n) + n) % SEEN] : NULL;
}

static int64_t merge_seen(const struct bpe *b, struct bpe_scratch *s,
                          const char *piece, size_t n, int32_t *ids)
{
    struct bpe_seen *seen = seen_place(s, piece, n);
    if (seen && seen->len == n && !memcmp(seen->bytes, piece, n)) {
        memcpy(ids, seen->ids, seen->count * sizeof *ids);
        return seen->count;
    }
    size_t count = merge_short(b, ids, to_bytes(b, piece, n, ids));
    if (seen && count <= SEEN_IDS) {
        memcpy(seen->bytes, piece, n);
        memcpy(seen->ids, ids, count * sizeof *ids);
        seen->len = (unsigned char)n;
        seen->count = (unsigned char)count;
    }
    return (int64_t)count;
}

int64_t bpe_merge(const struct bpe *b, struct bpe_scratch *scratch,
                  const char *piece, size_t n, int32_t *ids)
{
    const struct word_slot *word = word_find(b, piece, n);
    if (word) {
        ids[0] = word->id;
        if (b->ignore_merges ||
            atomic_load_explicit(&b->whole[word->id], memory_order_relaxed))
            return 1;
    }
    if (n > SHORT)
        return merge_long(b, scratch, ids, to_bytes(b, piece, n, ids));
    int64_t count = merge_seen(b, scratch, piece, n, ids);
    if (word && count == 1 && ids[0] == word->id)
        atomic_store_explicit(&b->whole[word->id], 1, memory_order_relaxed);
    return count;
}
