#include "text/grammar.h"

#include "base/mem.h"
#include "json/json.h"
#include "text/grammar_walk.h"
#include "text/pattern_calls.h"
#include "text/pattern_ebnf.h"
#include "text/pattern_regex.h"
#include "text/pattern_schema.h"
#include "text/pattern_structure.h"
#include "text/token_tree.h"
#include "text/tokenizer.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum {
    KEPT = 32,             /* grammars, ...                           */
    KEPT_STATES = 1 << 15, /* ... of so many states (1 KiB each)      */
    KEPT_BYTES = 4 << 20,  /* of what is known of a grammar's states  */
    TEXT_MAX = 256 << 10,
};

/* What a state allows whatever its stack, and the tokens that leave its rule:
 * these need the stack. */
struct reach {
    uint64_t *bits; /* NULL: they are in list, being few */
    int32_t *list;  /* allowed, then unsure */
    uint32_t allowed, unsure;
};

struct grammar {
    atomic_uint refs;
    const struct token_tree *tree;
    struct automaton automaton;
    pthread_mutex_t lock;             /* of making reaches */
    _Atomic(struct reach *) *reaches; /* [state_count] made when wanted */
    size_t kept_bytes;
    /* Of struct grammars. */
    enum grammar_kind kind;
    char *text;
    size_t text_bytes;
};

struct grammars {
    const struct tokenizer *tokenizer;
    struct token_tree *tree;    /* NULL: not wanted yet */
    struct grammar *kept[KEPT]; /* the latest first */
};

struct matcher {
    struct grammar *grammar;
    struct walk_stacks stacks;
    struct walk walk;
    int32_t *ends;
    size_t end_count;
    int32_t open;  /* >= 0: the first token is to come, and may be this */
    int32_t after; /* >= 0: and open < 0: it holds behind this */
    uint64_t *mask;
    bool fresh; /* mask is of this position */
    bool ended;
};

/* ---- compiling ---- */

static int pattern_of(struct pattern *p, const struct tokenizer *tokenizer,
                      enum grammar_kind kind, const char *text, size_t n,
                      struct why *why)
{
    if (kind == GRAMMAR_EBNF) return pattern_ebnf(p, text, n, why);
    if (kind == GRAMMAR_REGEX) {
        pattern_node tree;
        uint32_t whole = pattern_rule(p);
        int rc = pattern_regex(p, &tree, text, n, REGEX_WHOLE, why);
        if (!rc) pattern_define(p, whole, tree);
        return rc;
    }
    json_t *schema;
    int rc = json_parse(&schema, text, n, why);
    if (rc) return rc;
    if (kind == GRAMMAR_CALLS)
        rc = pattern_calls(p, tokenizer, schema, why);
    else if (kind == GRAMMAR_STRUCTURE)
        rc = pattern_structure(p, tokenizer, schema, why);
    else
        rc = pattern_schema(p, schema, why);
    json_decref(schema);
    return rc;
}

static int compile(struct grammar **out, const struct token_tree *tree,
                   enum grammar_kind kind, const char *text, size_t n,
                   struct why *why)
{
    static const char *const names[] = {"json_schema", "regex", "ebnf",
                                        "structural_tag", "tools"};
    struct automaton automaton;
    struct why inner = {0};
    struct pattern *p = pattern_create();
    int rc = pattern_of(p, tree->tokenizer, kind, text, n, why);
    if (!rc) {
        rc = automaton_create(&automaton, p, &inner);
        if (rc) err_set(why, rc, "%s: %s", names[kind], why_text(&inner, rc));
    }
    pattern_destroy(p);
    if (rc) return rc;
    struct grammar *g = mem_must(1, sizeof *g);
    g->refs = 1;
    g->tree = tree;
    g->automaton = automaton;
    g->kind = kind;
    g->text = mem_dup_n(text, n);
    g->text_bytes = n;
    g->reaches = mem_must(automaton.state_count, sizeof *g->reaches);
    pthread_mutex_init(&g->lock, NULL);
    *out = g;
    return 0;
}

static void reach_destroy(struct reach *r)
{
    if (!r) return;
    mem_free(r->bits);
    mem_free(r->list);
    mem_free(r);
}

struct grammar *grammar_take(struct grammar *g)
{
    atomic_fetch_add(&g->refs, 1);
    return g;
}

void grammar_drop(struct grammar *g)
{
    if (!g || atomic_fetch_sub(&g->refs, 1) > 1) return;
    for (uint32_t s = 0; s < g->automaton.state_count; s++)
        reach_destroy(atomic_load(&g->reaches[s]));
    mem_free(g->reaches);
    automaton_fini(&g->automaton);
    pthread_mutex_destroy(&g->lock);
    mem_free(g->text);
    mem_free(g);
}

struct grammars *grammars_create(const struct tokenizer *tokenizer)
{
    struct grammars *all = mem_must(1, sizeof *all);
    all->tokenizer = tokenizer;
    return all;
}

void grammars_destroy(struct grammars *all)
{
    if (!all) return;
    for (int i = 0; i < KEPT; i++)
        grammar_drop(all->kept[i]);
    token_tree_destroy(all->tree);
    mem_free(all);
}

/* Kept grammar i, or a new one in its place, becomes the first; those that are
 * too many states behind it are kept no longer. */
static struct grammar *keep(struct grammars *all, int i, struct grammar *g)
{
    uint32_t states = 0;
    memmove(all->kept + 1, all->kept, (size_t)i * sizeof *all->kept);
    all->kept[0] = g;
    for (int k = 0; k < KEPT && all->kept[k]; k++) {
        states += all->kept[k]->automaton.state_count;
        if (states <= KEPT_STATES) continue;
        grammar_drop(all->kept[k]);
        all->kept[k] = NULL;
    }
    return grammar_take(g);
}

int grammars_get(struct grammars *all, enum grammar_kind kind, const char *text,
                 size_t n, struct grammar **out, struct why *why)
{
    int i = 0;
    for (; i < KEPT && all->kept[i]; i++) {
        struct grammar *g = all->kept[i];
        if (g->kind == kind && g->text_bytes == n &&
            memcmp(g->text, text, n) == 0) {
            *out = keep(all, i, g);
            return 0;
        }
    }
    if (n > TEXT_MAX)
        return err_set(why, ERR_RANGE, "a grammar of %zu bytes is over %d", n,
                       TEXT_MAX);
    if (!all->tree) all->tree = token_tree_create(all->tokenizer);
    struct grammar *g;
    int rc = compile(&g, all->tree, kind, text, n, why);
    if (rc) return rc;
    if (i == KEPT) grammar_drop(all->kept[--i]);
    *out = keep(all, i, g);
    return 0;
}

/* ---- what a state allows ---- */

struct finder {
    const struct token_tree *tree;
    uint64_t *bits;
    int32_t *unsure; /* [vocab] */
    uint32_t allowed_count, unsure_count;
};

static void allow(struct finder *f, int32_t token)
{
    for (; token >= 0; token = f->tree->twin[token]) {
        f->bits[token / 64] |= 1ull << token % 64;
        f->allowed_count++;
    }
}

static void doubt(struct finder *f, int32_t token)
{
    for (; token >= 0; token = f->tree->twin[token])
        f->unsure[f->unsure_count++] = token;
}

/* One walk over the tree of tokens. left[d]: the rule may have ended within
 * the first d bytes, so that the rest may be its caller's. */
static void find(struct finder *f, const struct automaton *a, uint32_t state)
{
    const struct token_tree *t = f->tree;
    struct walk *walks = mem_must(TOKEN_TREE_DEPTH + 1, sizeof *walks);
    bool left[TOKEN_TREE_DEPTH + 1] = {false};
    struct walk_stacks stacks;
    walk_stacks_init(&stacks);
    walks[0].at[0] = (struct walk_position){state, 0};
    walks[0].count = 1;
    for (uint32_t i = 0; i < t->count;) {
        const struct token_node *n = &t->nodes[i];
        struct walk *now = &walks[n->depth];
        walk_step(a, &stacks, &walks[n->depth - 1], n->byte, now);
        left[n->depth] = left[n->depth - 1] || now->ends;
        if (!walk_is_dead(now))
            allow(f, n->token);
        else if (left[n->depth])
            doubt(f, n->token);
        i++;
        if (now->count) continue;
        for (; left[n->depth] && i < n->skip; i++)
            doubt(f, t->nodes[i].token);
        i = n->skip;
    }
    walk_stacks_fini(&stacks);
    mem_free(walks);
}

/* The result in its smallest form; *bytes: its size. */
static struct reach *reach_create(const struct grammar *g, uint32_t state,
                                  size_t *bytes)
{
    const struct token_tree *t = g->tree;
    size_t words = (t->vocab + 63) / 64, in_list = 0;
    struct finder f = {.tree = t};
    f.bits = mem_must(words, sizeof *f.bits);
    f.unsure = mem_must(t->vocab, sizeof *f.unsure);
    find(&f, &g->automaton, state);
    struct reach *r = mem_must(1, sizeof *r);
    bool few = f.allowed_count < words;
    size_t listed = (few ? f.allowed_count : 0) + f.unsure_count;
    r->allowed = few ? f.allowed_count : 0;
    r->unsure = f.unsure_count;
    r->list = mem_must(listed + 1, sizeof *r->list);
    for (size_t w = 0; few && w < words; w++)
        for (uint64_t left = f.bits[w]; left; left &= left - 1)
            r->list[in_list++] = (int32_t)(w * 64) + __builtin_ctzll(left);
    memcpy(r->list + in_list, f.unsure, f.unsure_count * sizeof *f.unsure);
    *bytes = sizeof *r + listed * sizeof *r->list;
    if (few) {
        mem_free(f.bits);
    } else {
        r->bits = f.bits;
        *bytes += words * sizeof *f.bits;
    }
    mem_free(f.unsure);
    return r;
}

/* *temporary: the caller destroys it, there was no room to keep it. */
static struct reach *reach_of(struct grammar *g, uint32_t state,
                              bool *temporary)
{
    size_t bytes;
    struct reach *r = atomic_load(&g->reaches[state]);
    *temporary = false;
    if (r) return r;
    pthread_mutex_lock(&g->lock);
    r = atomic_load(&g->reaches[state]);
    if (!r) {
        r = reach_create(g, state, &bytes);
        *temporary = g->kept_bytes + bytes > KEPT_BYTES;
        if (!*temporary) {
            g->kept_bytes += bytes;
            atomic_store(&g->reaches[state], r);
        }
    }
    pthread_mutex_unlock(&g->lock);
    return r;
}

/* ---- matchers ---- */

struct matcher *matcher_create(struct grammar *grammar, const int32_t *ends,
                               size_t end_count, int32_t open, int32_t after)
{
    struct matcher *m = mem_must(1, sizeof *m);
    m->grammar = grammar_take(grammar);
    m->ends = mem_must(end_count + 1, sizeof *m->ends);
    memcpy(m->ends, ends, end_count * sizeof *ends);
    m->end_count = end_count;
    m->open = after < 0 ? -1 : open;
    m->after = after;
    m->mask = mem_must((grammar->tree->vocab + 63) / 64, sizeof *m->mask);
    walk_stacks_init(&m->stacks);
    walk_begin(&grammar->automaton, &m->stacks, &m->walk);
    return m;
}

void matcher_destroy(struct matcher *m)
{
    if (!m) return;
    walk_stacks_fini(&m->stacks);
    mem_free(m->ends);
    mem_free(m->mask);
    grammar_drop(m->grammar);
    mem_free(m);
}

/* Where `from` gets to by a token's bytes, into *to, which is another. */
static void follow(struct matcher *m, const struct walk *from, int32_t token,
                   struct walk *to)
{
    size_t n;
    uint8_t own[4];
    const uint8_t *bytes =
        token_tree_bytes(m->grammar->tree->tokenizer, token, own, &n);
    struct walk other;
    to->count = 0;
    to->ends = false;
    for (size_t i = 0; bytes && i < n; i++) { /* by turns, last into *to */
        struct walk *next = (n - i) % 2 ? to : &other;
        walk_step(&m->grammar->automaton, &m->stacks, from, bytes[i], next);
        from = next;
        if (from->count) continue;
        to->count = 0;
        to->ends = from->ends && i + 1 == n;
        return;
    }
}

static void add_position(struct matcher *m, const struct walk_position *at)
{
    bool temporary;
    struct reach *r = reach_of(m->grammar, at->state, &temporary);
    size_t words = (m->grammar->tree->vocab + 63) / 64;
    for (size_t w = 0; r->bits && w < words; w++)
        m->mask[w] |= r->bits[w];
    for (uint32_t i = 0; i < r->allowed; i++)
        m->mask[r->list[i] / 64] |= 1ull << r->list[i] % 64;
    struct walk from, to;
    from.at[0] = *at;
    from.count = 1;
    uint32_t stacks = m->stacks.count;
    for (uint32_t i = r->allowed; i < r->allowed + r->unsure; i++) {
        int32_t token = r->list[i];
        uint64_t bit = 1ull << token % 64;
        if (m->mask[token / 64] & bit) continue;
        follow(m, &from, token, &to);
        if (!walk_is_dead(&to)) m->mask[token / 64] |= bit;
        walk_stacks_cut(&m->stacks, stacks);
    }
    if (temporary) reach_destroy(r);
}

const uint64_t *matcher_allowed(struct matcher *m, uint32_t *vocab)
{
    *vocab = m->grammar->tree->vocab;
    if (m->after >= 0 && m->open < 0) return NULL;
    if (m->fresh) return m->mask;
    memset(m->mask, 0, (m->grammar->tree->vocab + 63) / 64 * sizeof *m->mask);
    for (uint32_t i = 0; i < m->walk.count; i++)
        add_position(m, &m->walk.at[i]);
    for (size_t i = 0; i < m->end_count; i++) {
        if (m->ends[i] < 0 || (uint32_t)m->ends[i] >= *vocab) continue;
        uint64_t bit = 1ull << m->ends[i] % 64;
        if (m->walk.ends)
            m->mask[m->ends[i] / 64] |= bit;
        else if (tokenizer_is_added(m->grammar->tree->tokenizer, m->ends[i]))
            m->mask[m->ends[i] / 64] &= ~bit;
    }
    if (m->open >= 0 && (uint32_t)m->open < *vocab)
        m->mask[m->open / 64] |= 1ull << m->open % 64;
    m->fresh = true;
    return m->mask;
}

bool matcher_must_end(const struct matcher *m)
{
    return m->after < 0 && !m->walk.count;
}

bool matcher_ended(const struct matcher *m)
{
    return m->ended;
}

bool matcher_accept(struct matcher *m, int32_t token)
{
    struct walk to;
    m->fresh = false;
    if (m->open >= 0) {
        if (token != m->open) m->after = -1;
        m->open = -1;
        if (m->after >= 0) return true;
    }
    if (m->after >= 0) {
        if (token == m->after) m->after = -1;
        return true;
    }
    for (size_t i = 0; i < m->end_count; i++) {
        if (m->ends[i] != token) continue;
        m->ended = m->walk.ends;
        if (!m->ended &&
            !tokenizer_is_added(m->grammar->tree->tokenizer, token))
            continue;
        m->walk.count = 0;
        m->walk.ends = false;
        return m->ended;
    }
    follow(m, &m->walk, token, &to);
    memcpy(m->walk.at, to.at, to.count * sizeof *to.at);
    m->walk.count = to.count;
    m->walk.ends = to.ends;
    return !walk_is_dead(&to);
}
