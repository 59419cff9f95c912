/* A text says the same words again and again: short ones are looked up in a
 * memo of what became of them. Others are matched against the vocabulary or
 * merged.
 *
 * Where they are merged, most still are one token. lexicon_find sees that at
 * once, but merges must be able to reach the token; `whole` remembers that they
 * do once it was worked out. It is a memo of a pure function: threads may race
 * to store the same value. */
#include "text/bpe_impl.h"
#include "base/mem.h"
#include "text/bpe_memo.h"
#include "text/utf8.h"

#include <string.h>

/* Making one. */

int bpe_create(struct bpe **out, const struct lexicon *l, size_t merges,
               struct why *why)
{
    struct bpe *b = mem_must(1, sizeof *b);
    b->l = l;
    b->merge_cap = merges;
    b->unknown = -1;
    if (merges < TAG_INDEX_MOST && tag_index_init(&b->pair_index, merges)) {
        b->pairs = mem_try(merges, sizeof *b->pairs, 64);
        b->whole = mem_try(lexicon_count(l), sizeof *b->whole, 0);
    }
    if (!b->pairs || !b->whole) {
        bpe_destroy(b);
        return err_set(why, ERR_NOMEM, "vocabulary of %zu merges", merges);
    }
    *out = b;
    return 0;
}

void bpe_destroy(struct bpe *b)
{
    if (!b) return;
    mem_free(b->pairs);
    tag_index_fini(&b->pair_index);
    mem_free(b->whole);
    bpe_match_destroy(b->match);
    mem_free(b);
}

static bool starts_with_space(const char *s, size_t n)
{
    return n >= LEXICON_SPACE_BYTES &&
           !memcmp(s, LEXICON_SPACE, LEXICON_SPACE_BYTES);
}

static bool ends_with_space(const char *s, size_t n)
{
    return n >= LEXICON_SPACE_BYTES &&
           !memcmp(s + n - LEXICON_SPACE_BYTES, LEXICON_SPACE,
                   LEXICON_SPACE_BYTES);
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
    struct bpe_pair *pair = bpe_pair_find(b, left, right);
    if (!pair) {
        pair = &b->pairs[b->pair_count];
        tag_index_add(&b->pair_index, bpe_pair_hash(left, right),
                      b->pair_count++);
    }
    *pair = (struct bpe_pair){left, right, rank, into};
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

void bpe_set_plain(struct bpe *b, bool plain)
{
    b->plain = plain;
}

int bpe_finish(struct bpe *b, struct why *why)
{
    for (int c = 0; c < 0x80; c++) {
        char byte = (char)c;
        b->start_of[c] = lexicon_find(b->l, &byte, 1);
    }
    b->words = lexicon_kind(b->l) == LEXICON_TEXT && !b->crosses_space &&
               lexicon_find(b->l, LEXICON_SPACE, LEXICON_SPACE_BYTES) >= 0;
    int rc = b->plain ? 0 : bpe_match_create(&b->match, b);
    return rc ? err_set(why, rc, "vocabulary of %u merges", b->merge_count) : 0;
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

void bpe_scratch_fini(struct bpe_scratch *s)
{
    mem_free(s->parts);
    mem_free(s->heap);
    mem_free(s->memo);
    mem_free(s->dead);
    *s = (struct bpe_scratch){0};
}

enum { SETS_MIN = 16, SETS_MAX = 8192 };

int bpe_scratch_init(struct bpe_scratch *s, size_t bytes)
{
    size_t sets = SETS_MIN;
    while (sets < SETS_MAX && sets * sizeof *s->memo < bytes)
        sets *= 2;
    *s = (struct bpe_scratch){.memo = mem_try(sets, sizeof *s->memo, 64),
                              .memo_mask = sets - 1};
    return s->memo ? 0 : ERR_NOMEM;
}

/* Matching is faster, but first makes a table, which takes a third of the time
 * of loading. So short pieces do not ask for it, until they were many. */
enum { MATCH_FROM = 16, MATCH_AFTER = 1024 };

static bool is_to_match(const struct bpe *b, struct bpe_scratch *s, size_t n)
{
    return b->match && (n >= MATCH_FROM || bpe_match_ready(b) ||
                        ++s->short_merged > MATCH_AFTER);
}

static int64_t merge_parts(const struct bpe *b, struct bpe_scratch *s,
                           const char *piece, size_t n, int32_t *ids)
{
    size_t parts = to_parts(b, piece, n, ids);
    return n > BPE_SHORT ? bpe_merge_long(b, s, ids, parts)
                         : (int64_t)bpe_merge_short(b, s, ids, parts);
}

static int64_t merge_new(const struct bpe *b, struct bpe_scratch *s,
                         const char *word, size_t n, int32_t *ids,
                         bool ignore_merges)
{
    if (is_to_match(b, s, n)) {
        int64_t count = bpe_match(b, s, word, n, ids, ignore_merges);
        if (count != BPE_GAVE_UP) return count;
    }
    int32_t whole = lexicon_find(b->l, word, n);
    if (whole >= 0 &&
        (ignore_merges ||
         atomic_load_explicit(&b->whole[whole], memory_order_relaxed))) {
        ids[0] = whole;
        return 1;
    }
    int64_t count = merge_parts(b, s, word, n, ids);
    if (whole >= 0 && count == 1 && ids[0] == whole)
        atomic_store_explicit(&b->whole[whole], 1, memory_order_relaxed);
    return count;
}

/* end: of what may be read. */
static inline int64_t merge_word(const struct bpe *b, struct bpe_scratch *s,
                                 const char *word, size_t n, const char *end,
                                 int32_t *ids, bool ignore_merges)
{
    if (n > WORD_KEY_BYTES) return merge_new(b, s, word, n, ids, ignore_merges);
    struct word_key key = word_key(word, n, end);
    struct bpe_memo_set *set = &s->memo[word_key_hash(key) & s->memo_mask];
    const struct bpe_memo_place *known = bpe_memo_find(set, key);
    if (known) {
        memcpy(ids, known->ids, sizeof known->ids);
        return (int64_t)bpe_memo_count(known);
    }
    int64_t count = merge_new(b, s, word, n, ids, ignore_merges);
    if (count >= 0 && count <= BPE_MEMO_IDS)
        bpe_memo_add(set, key, ids, (size_t)count);
    return count;
}

/* To where the next "▁" begins that follows something else. */
static size_t word_len(const char *s, size_t n)
{
    size_t i = 0;
    while (starts_with_space(s + i, n - i))
        i += LEXICON_SPACE_BYTES;
    const char *next =
        i < n ? memmem(s + i, n - i, LEXICON_SPACE, LEXICON_SPACE_BYTES) : NULL;
    return next ? (size_t)(next - s) : n;
}

static int64_t merge_words(const struct bpe *b, struct bpe_scratch *s,
                           const char *piece, size_t n, const char *end,
                           int32_t *ids)
{
    int64_t count = 0;
    if (b->ignore_merges) {
        ids[0] = lexicon_find(b->l, piece, n);
        if (ids[0] >= 0) return 1;
    }
    while (n) {
        size_t len = word_len(piece, n);
        int64_t got = merge_word(b, s, piece, len, end, ids + count, false);
        if (got < 0) return got;
        count += got;
        piece += len;
        n -= len;
    }
    return count;
}

int64_t bpe_merge(const struct bpe *b, struct bpe_scratch *s,
                  const struct pieces *p, int32_t *ids)
{
    const char *piece = p->text;
    int64_t count = 0;
    for (size_t i = 0; i < p->count; piece += p->lens[i++]) {
        int64_t got =
            b->words ? merge_words(b, s, piece, p->lens[i], p->end, ids + count)
                     : merge_word(b, s, piece, p->lens[i], p->end, ids + count,
                                  b->ignore_merges);
        if (got < 0) return got;
        count += got;
    }
    return count;
}
