/* Byte-level pieces without merging.
 *
 * Cut what merging makes of a piece between two of its tokens, and each side
 * merges as before: no merge crossed the cut, and which one is next inside of a
 * side does not depend on the other. So tokens are the piece's merge exactly if
 * each is its own bytes' merge and each neighbouring two are their bytes'
 * merge; and as the start of a piece up to a place has one merge alone, a
 * search from left to right comes to each place at most once. It tries the
 * longest token first, which is nearly always right, and goes back where no
 * token fits its left neighbour.
 *
 * Whether two stay apart: walk back in time. The merge that came last, of those
 * that made the left one's right edge and the right one's left edge, is
 * undone, until nothing is left; if ever the two that touch had a merge better
 * than the one just undone, it would have come first. This needs merges that
 * come later to be worse, in each of the two by itself. Vocabularies are made
 * so; a token that is not makes its piece merge the plain way. */
#include "text/bpe_impl.h"
#include "text/bpe_trie.h"
#include "base/mem.h"

#include <pthread.h>
#include <string.h>

/* Of nodes, beside the token. */
enum {
    ID_BITS = 24,
    ID_MASK = (1 << ID_BITS) - 1,
    SOUND = 1 << 24,    /* merges reach the token, later ones worse */
    FALSE_ONE = 1 << 25 /* merges do not reach it */
};

/* How merges make a token. age: 0 not known yet, LEAF a byte, else the rank of
 * the last merge from OLDEST on. */
struct made {
    _Atomic uint32_t age;
    _Atomic int32_t left, right;
};
#define LEAF     1u
#define OLDEST   2u
#define UNSOUND  (UINT32_MAX - 1)
#define NOT_MADE UINT32_MAX

enum { MEMO = 1 << 15 };

struct bpe_match {
    pthread_mutex_t making;
    atomic_bool trie_made;
    struct bpe_node *trie; /* NULL: too large a vocabulary */
    struct made *made;
    _Atomic uint64_t *memo; /* pairs: left << 26 | right << 2 | 2 | apart */
};

static bool fits(const struct bpe *b)
{
    if (lexicon_kind(b->l) != LEXICON_BYTES || b->merge_cap > ID_MASK ||
        lexicon_count(b->l) > ID_MASK)
        return false;
    for (int byte = 0; byte < 256; byte++)
        if (lexicon_byte(b->l, (unsigned char)byte) < 0) return false;
    return true;
}

int bpe_match_create(struct bpe_match **out, const struct bpe *b)
{
    if (!fits(b)) return 0;
    struct bpe_match *m = mem_must(1, sizeof *m);
    m->made = mem_try(lexicon_count(b->l), sizeof *m->made, 0);
    m->memo = mem_try(MEMO, sizeof *m->memo, 64);
    pthread_mutex_init(&m->making, NULL);
    if (!m->made || !m->memo) {
        bpe_match_destroy(m);
        return ERR_NOMEM;
    }
    for (int byte = 0; byte < 256; byte++)
        m->made[lexicon_byte(b->l, (unsigned char)byte)].age = LEAF;
    *out = m;
    return 0;
}

void bpe_match_destroy(struct bpe_match *m)
{
    if (!m) return;
    pthread_mutex_destroy(&m->making);
    mem_free(m->trie);
    mem_free(m->made);
    mem_free(m->memo);
    mem_free(m);
}

/* The trie costs a third of loading, and many a process never needs it. */
static int make_trie(struct bpe_match *m, const struct lexicon *l)
{
    int rc = 0;
    pthread_mutex_lock(&m->making);
    if (!m->trie_made) {
        rc = bpe_trie_build(&m->trie, l);
        if (rc == ERR_RANGE) rc = 0;
        m->trie_made = !rc;
    }
    pthread_mutex_unlock(&m->making);
    return rc;
}

/* How tokens are made, learned when one is met first. A memo of a pure
 * function: threads may race to store the same values. */

static uint32_t age_of(const struct bpe *b, struct bpe_scratch *s, int32_t id);

static uint32_t learn(const struct bpe *b, struct bpe_scratch *s, int32_t id)
{
    struct made *made = &b->match->made[id];
    struct bpe_last last = {0};
    int32_t ids[BPE_SHORT];
    size_t n;
    const char *bytes = lexicon_bytes(b->l, id, &n);
    uint32_t age = NOT_MADE;
    if (n > BPE_SHORT) return UNSOUND;
    for (size_t i = 0; i < n; i++)
        ids[i] = lexicon_byte(b->l, (unsigned char)bytes[i]);
    if (bpe_merge_told(b, s, ids, n, &last) == 1 && ids[0] == id) {
        age = last.rank + OLDEST;
        if (age_of(b, s, last.left) >= age || age_of(b, s, last.right) >= age)
            age = UNSOUND;
        atomic_store_explicit(&made->left, last.left, memory_order_relaxed);
        atomic_store_explicit(&made->right, last.right, memory_order_relaxed);
    }
    atomic_store_explicit(&made->age, age, memory_order_release);
    return age;
}

static uint32_t age_of(const struct bpe *b, struct bpe_scratch *s, int32_t id)
{
    uint32_t age =
        atomic_load_explicit(&b->match->made[id].age, memory_order_acquire);
    return age ? age : learn(b, s, id);
}

/* Both are sound: so is what they were made of, and known. */
static bool walk_back(const struct bpe *b, struct bpe_scratch *s, int32_t left,
                      int32_t right)
{
    const struct made *made = b->match->made;
    uint32_t limit = BPE_NO_RANK; /* ages below would have come first */
    for (;; s->work++) {
        const struct bpe_pair *p = bpe_pair_find(b, left, right);
        if (p && p->rank + OLDEST < limit) return false;
        uint32_t l = made[left].age, r = made[right].age;
        if (l == LEAF && r == LEAF) return true;
        if (l > r) { /* of two alike the left one is first */
            limit = l;
            left = made[left].right;
        } else {
            limit = r + 1;
            right = made[right].left;
        }
    }
}

static inline bool apart(const struct bpe *b, struct bpe_scratch *s,
                         int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)left << 26 | (uint64_t)right << 2 | 2;
    _Atomic uint64_t *memo = &b->match->memo[key * 0x9e3779b97f4a7c15u >> 49];
    uint64_t known = atomic_load_explicit(memo, memory_order_relaxed);
    s->work++;
    if ((known & ~(uint64_t)1) == key) return known & 1;
    bool stay = walk_back(b, s, left, right);
    atomic_store_explicit(memo, key | stay, memory_order_relaxed);
    return stay;
}

/* The tokens that a text starts with, shortest first. */
struct starts {
    uint32_t node[BPE_SHORT + 1]; /* the last is no token's */
    int32_t token[BPE_SHORT + 1];
    unsigned char len[BPE_SHORT + 1];
};

static inline size_t gather(const struct bpe_node *trie, const char *s,
                            size_t n, struct starts *out)
{
    size_t count = 0;
    uint32_t at = BPE_TRIE_ROOT;
    for (size_t i = 0; i < n; i++) {
        at = bpe_trie_child(trie, at, (unsigned char)s[i]);
        if (!at) break;
        int32_t token =
            atomic_load_explicit(&trie[at].token, memory_order_acquire);
        out->node[count] = at;
        out->token[count] = token;
        out->len[count] = (unsigned char)(i + 1);
        count += token != BPE_TRIE_NONE;
    }
    return count;
}

/* What is known of a token met first, noted at its node. */
static int32_t judge(const struct bpe *b, struct bpe_scratch *s, uint32_t node,
                     int32_t token)
{
    uint32_t age = age_of(b, s, token);
    token = age == UNSOUND    ? BPE_TRIE_LONG
            : age == NOT_MADE ? token | FALSE_ONE
                              : token | SOUND;
    atomic_store_explicit(&b->match->trie[node].token, token,
                          memory_order_release);
    return token;
}

/* Places from which no token leads on. */
enum { FEW = 512 };

static int dead_reserve(struct bpe_scratch *s, size_t n)
{
    size_t words = n / 64 + 1;
    if (words > s->dead_cap) {
        mem_free(s->dead);
        s->dead = mem_try(words + words / 2, sizeof *s->dead, 0);
        s->dead_cap = s->dead ? words + words / 2 : 0;
    }
    if (!s->dead) return ERR_NOMEM;
    memset(s->dead, 0, words * sizeof *s->dead);
    return 0;
}

/* The longest of the first count tokens of starts that may follow at a place:
 * its index, count: none, COUNT_ODD: the piece is to be merged. */
struct search {
    const struct bpe *b;
    struct bpe_scratch *s;
    const uint64_t *dead;
};
#define COUNT_ODD SIZE_MAX

static size_t choose(const struct search *w, struct starts *starts,
                     size_t count, size_t at, const int32_t *left)
{
    for (size_t i = count; i--;) {
        size_t to = at + starts->len[i];
        int32_t token = starts->token[i];
        if (token >= 0 && !(token & (SOUND | FALSE_ONE)))
            token = judge(w->b, w->s, starts->node[i], token);
        if (token == BPE_TRIE_LONG) return COUNT_ODD;
        if (token & FALSE_ONE || (w->dead[to / 64] >> to % 64 & 1)) continue;
        starts->token[i] = token &= ID_MASK;
        if (!left || apart(w->b, w->s, *left, token)) return i;
    }
    return count;
}

static int64_t search(const struct search *w, uint64_t *dead, const char *piece,
                      size_t n, int32_t *ids)
{
    uint64_t enough = w->s->work + 16 * n + 1000;
    size_t at = 0, count = 0, most = n;
    while (at < n) {
        struct starts starts;
        size_t found = gather(w->b->match->trie, piece + at,
                              most < n - at ? most : n - at, &starts);
        size_t i =
            choose(w, &starts, found, at, count ? &ids[count - 1] : NULL);
        w->s->work += found;
        if (i == COUNT_ODD || w->s->work > enough) return BPE_GAVE_UP;
        if (i < found) {
            ids[count++] = starts.token[i];
            at += starts.len[i];
            most = n;
            continue;
        }
        if (!count) return BPE_GAVE_UP;
        dead[at / 64] |= (uint64_t)1 << at % 64;
        lexicon_bytes(w->b->l, ids[--count], &most);
        at -= most--;
    }
    return (int64_t)count;
}

/* The token that a piece is, or -1. */
static int32_t token_of(const struct bpe *b, const char *piece, size_t n)
{
    const struct bpe_node *trie = b->match->trie;
    uint32_t at = BPE_TRIE_ROOT;
    if (!trie || n > BPE_TRIE_MAX) return lexicon_find(b->l, piece, n);
    for (size_t i = 0; i < n && at; i++)
        at = bpe_trie_child(trie, at, (unsigned char)piece[i]);
    int32_t token =
        at ? atomic_load_explicit(&trie[at].token, memory_order_relaxed)
           : BPE_TRIE_NONE;
    if (token == BPE_TRIE_LONG) return lexicon_find(b->l, piece, n);
    return token < 0 ? -1 : token & ID_MASK;
}

bool bpe_match_ready(const struct bpe *b)
{
    return atomic_load_explicit(&b->match->trie_made, memory_order_acquire);
}

int64_t bpe_match(const struct bpe *b, struct bpe_scratch *s, const char *piece,
                  size_t n, int32_t *ids, bool whole)
{
    struct bpe_match *m = b->match;
    uint64_t few[FEW / 64] = {0}, *dead = few;
    int rc = 0;
    if (!bpe_match_ready(b)) rc = make_trie(m, b->l);
    if (!rc && n >= FEW) {
        rc = dead_reserve(s, n);
        dead = s->dead;
    }
    if (rc) return rc;
    if (whole && (ids[0] = token_of(b, piece, n)) >= 0) return 1;
    const struct search w = {b, s, dead};
    return m->trie ? search(&w, dead, piece, n, ids) : BPE_GAVE_UP;
}
