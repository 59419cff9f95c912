/* From the trees of a pattern to automata: a nondeterministic one for all
 * rules, then sets of its states. */
#include "text/pattern_impl.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { NFA_MAX = 1 << 18, WORK_MAX = 16 << 20, NESTED_MAX = 4000 };

/* SPLIT leads on without reading; 0: nowhere. */
enum kind { BYTE, SPLIT, CALL, ACCEPT };

struct nfa_state {
    uint8_t kind, lo, hi;
    uint32_t rule;
    uint32_t a, b;
};

/* A state of the result while it is made: the reading, calling and accepting
 * NFA states in it, ascending. */
struct set {
    uint32_t at, count; /* in maker.items */
    uint64_t hash;
};

struct maker {
    const struct pattern *pattern;
    struct automaton *out;
    struct nfa_state *nfa;
    uint32_t nfa_count, nfa_cap;
    struct set *sets; /* [out->state_count] */
    uint32_t state_cap, call_cap;
    uint32_t *items;
    size_t item_count, item_cap;
    uint32_t *slots; /* hash table of sets of this rule */
    uint32_t slot_count;
    uint32_t first;        /* state of this rule */
    uint32_t *mark, epoch; /* [nfa_count] */
    uint32_t *todo, *found;
    uint32_t found_count;
    uint64_t work;
    bool too_large, empty;
    int depth;
};

/* ---- the tree as NFA states, from its end to its beginning ---- */

static uint32_t state(struct maker *m, enum kind kind, uint32_t a, uint32_t b)
{
    if (m->nfa_count >= NFA_MAX) {
        m->too_large = true;
        return 1;
    }
    if (m->nfa_count == m->nfa_cap) {
        m->nfa_cap *= 2;
        m->nfa = mem_remust(m->nfa, m->nfa_cap * sizeof *m->nfa);
    }
    m->nfa[m->nfa_count] =
        (struct nfa_state){.kind = (uint8_t)kind, .a = a, .b = b};
    return m->nfa_count++;
}

static uint32_t byte_state(struct maker *m, uint32_t lo, uint32_t hi,
                           uint32_t then)
{
    uint32_t s = state(m, BYTE, then, 0);
    m->nfa[s].lo = (uint8_t)lo;
    m->nfa[s].hi = (uint8_t)hi;
    return s;
}

static uint32_t build(struct maker *m, pattern_node node, uint32_t then);

static uint32_t build_repeat(struct maker *m, const struct node *n,
                             uint32_t then)
{
    uint32_t min = n->a, max = n->b, s = then;
    if (max == UINT32_MAX) {
        uint32_t loop = state(m, SPLIT, 0, then);
        uint32_t once = build(m, n->first, loop);
        m->nfa[loop].a = once;
        s = loop;
        max = min;
    }
    for (uint32_t i = min; i < max && !m->too_large; i++)
        s = state(m, SPLIT, build(m, n->first, s), then);
    for (uint32_t i = 0; i < min && !m->too_large; i++)
        s = build(m, n->first, s);
    return s;
}

/* Children from the last to the first: a list is read forward, so its members
 * are put on a stack first. */
static uint32_t build_sequence(struct maker *m, const struct node *n,
                               uint32_t then)
{
    uint32_t count = 0, i = 0;
    for (pattern_node c = n->first; c; c = m->pattern->nodes[c].next)
        count++;
    pattern_node *list = mem_must(count + 1, sizeof *list);
    for (pattern_node c = n->first; c; c = m->pattern->nodes[c].next)
        list[i++] = c;
    while (i-- > 0)
        then = build(m, list[i], then);
    mem_free(list);
    return then;
}

static uint32_t build_choice(struct maker *m, const struct node *n,
                             uint32_t then)
{
    uint32_t s = 0;
    for (pattern_node c = n->first; c; c = m->pattern->nodes[c].next) {
        uint32_t one = build(m, c, then);
        s = s ? state(m, SPLIT, one, s) : one;
    }
    if (!s) m->empty = true;
    return s ? s : 1;
}

/* Two chains: before anything was there, and behind something. An item is
 * built for both only where both can be. */
static uint32_t build_joined(struct maker *m, const struct node *n,
                             uint32_t then)
{
    uint32_t count = 0, i = 0, fresh = then, behind = then;
    for (pattern_node c = n->first; c; c = m->pattern->nodes[c].next)
        count++;
    pattern_node *list = mem_must(count + 1, sizeof *list);
    uint32_t must = count; /* the first that must be there */
    for (pattern_node c = n->first; c; c = m->pattern->nodes[c].next) {
        if (!m->pattern->nodes[c].optional && must == count) must = i;
        list[i++] = c;
    }
    while (i-- > 0 && !m->too_large) {
        bool optional = m->pattern->nodes[list[i]].optional;
        uint32_t after = behind;
        if (i > 0) {
            uint32_t later = build(m, n->a, build(m, list[i], after));
            behind = optional ? state(m, SPLIT, later, after) : later;
        }
        if (i > must) continue;
        uint32_t first = build(m, list[i], after);
        fresh = optional ? state(m, SPLIT, first, fresh) : first;
    }
    mem_free(list);
    return fresh;
}

/* Texts that must not come: `bytes` of them, each with its NUL. Position i is
 * that the bytes of its text before i came last, and no more of any text;
 * position `bytes` is before anything but blanks. */
struct texts {
    const char *of;
    size_t bytes;
    uint8_t first_not;
};
enum { NOWHERE = UINT32_MAX, TEXTS_MAX = 250 };

/* The position behind c (Aho and Corasick, looked for anew each time: texts are
 * short). */
static uint32_t position_behind(const struct texts *t, size_t at, uint8_t c)
{
    char seen[TEXTS_MAX + 1];
    size_t from = at, n;
    if (at == t->bytes && t->first_not) {
        if (c == t->first_not) return NOWHERE;
        if (c && strchr(" \n\t\r", c)) return (uint32_t)at;
        from = at = 0;
    }
    while (from && t->of[from - 1])
        from--;
    n = at - from;
    memcpy(seen, t->of + from, n);
    seen[n++] = (char)c;
    for (size_t k = 0, len; k < t->bytes; k += len + 1) {
        len = strlen(t->of + k);
        if (len <= n && memcmp(t->of + k, seen + n - len, len) == 0)
            return NOWHERE;
    }
    for (size_t i = 0; i < n; i++) /* the longest end of what came */
        for (size_t k = 0; k < t->bytes; k += strlen(t->of + k) + 1)
            if (strncmp(t->of + k, seen + i, n - i) == 0)
                return (uint32_t)(k + n - i);
    return 0;
}

static uint32_t build_without(struct maker *m, const struct node *n,
                              uint32_t then)
{
    const struct texts t = {m->pattern->texts + n->a, n->b, n->first_not};
    uint32_t zero = m->nfa_count;
    if (t.bytes > TEXTS_MAX) m->too_large = true;
    for (size_t at = 0; at <= t.bytes; at++)
        state(m, SPLIT, 0, then);
    uint32_t other = n->first ? build(m, n->first, zero) : 0;
    for (size_t at = 0; at <= t.bytes && !m->too_large; at++) {
        uint32_t list = other;
        for (unsigned lo = 0, hi; lo < PATTERN_TOKEN; lo = hi) {
            uint32_t to = position_behind(&t, at, (uint8_t)lo);
            for (hi = lo + 1; hi < PATTERN_TOKEN; hi++)
                if (position_behind(&t, at, (uint8_t)hi) != to) break;
            if (to == NOWHERE) continue;
            list = state(m, SPLIT, byte_state(m, lo, hi - 1, zero + to), list);
        }
        if (!m->too_large) m->nfa[zero + at].a = list;
    }
    return zero + (n->first_not ? (uint32_t)t.bytes : 0);
}

static uint32_t build(struct maker *m, pattern_node node, uint32_t then)
{
    const struct node *n = &m->pattern->nodes[node];
    uint32_t s = then;
    if (m->too_large) return 1;
    if (++m->depth > NESTED_MAX) m->too_large = true;
    switch (n->kind) {
    case NODE_TEXT:
        for (uint32_t i = n->b; i-- > 0;) {
            uint8_t c = (uint8_t)m->pattern->texts[n->a + i];
            s = byte_state(m, c, c, s);
        }
        break;
    case NODE_BYTES: s = byte_state(m, n->a, n->b, then); break;
    case NODE_WITHOUT: s = build_without(m, n, then); break;
    case NODE_CALL:
        s = state(m, CALL, then, 0);
        m->nfa[s].rule = n->a;
        break;
    case NODE_REPEAT: s = build_repeat(m, n, then); break;
    case NODE_SEQUENCE: s = build_sequence(m, n, then); break;
    case NODE_CHOICE: s = build_choice(m, n, then); break;
    case NODE_JOINED: s = build_joined(m, n, then); break;
    }
    m->depth--;
    return s;
}

/* ---- sets of NFA states ---- */

/* Adds s and all it leads to without reading to the set that is being found. */
static void reach(struct maker *m, uint32_t s)
{
    uint32_t n = 0;
    m->todo[n++] = s;
    while (n) {
        s = m->todo[--n];
        if (!s || m->mark[s] == m->epoch) continue;
        m->mark[s] = m->epoch;
        m->work++;
        if (m->nfa[s].kind != SPLIT) {
            m->found[m->found_count++] = s;
            continue;
        }
        m->todo[n++] = m->nfa[s].b;
        m->todo[n++] = m->nfa[s].a;
    }
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t new_state(struct maker *m, uint64_t hash)
{
    struct automaton *a = m->out;
    if (a->state_count == AUTOMATON_STATES_MAX) {
        m->too_large = true;
        return 0;
    }
    if (a->state_count == m->state_cap) {
        m->state_cap *= 2;
        a->next = mem_remust(a->next, m->state_cap * sizeof *a->next);
        a->states = mem_remust(a->states, m->state_cap * sizeof *a->states);
        m->sets = mem_remust(m->sets, m->state_cap * sizeof *m->sets);
    }
    if (m->item_count + m->found_count > m->item_cap) {
        m->item_cap = 2 * m->item_cap + m->found_count;
        m->items = mem_remust(m->items, m->item_cap * sizeof *m->items);
    }
    uint32_t s = a->state_count++;
    memset(a->next[s], 0, sizeof a->next[s]);
    a->states[s] = (struct automaton_state){0};
    m->sets[s] = (struct set){(uint32_t)m->item_count, m->found_count, hash};
    memcpy(m->items + m->item_count, m->found,
           m->found_count * sizeof *m->found);
    m->item_count += m->found_count;
    return s;
}

/* The state of the set found, which is emptied. */
static uint32_t state_of_found(struct maker *m)
{
    qsort(m->found, m->found_count, sizeof *m->found, by_number);
    uint64_t hash = 1469598103934665603u;
    for (uint32_t i = 0; i < m->found_count; i++)
        hash = (hash ^ m->found[i]) * 1099511628211u;
    uint32_t at = (uint32_t)(hash >> 20) & (m->slot_count - 1);
    for (;; at = (at + 1) & (m->slot_count - 1)) {
        uint32_t s = m->slots[at];
        if (s < m->first) break; /* free, or of a former rule */
        const struct set *set = &m->sets[s];
        if (set->hash == hash && set->count == m->found_count &&
            memcmp(m->items + set->at, m->found,
                   set->count * sizeof *m->found) == 0) {
            m->found_count = 0;
            return s;
        }
    }
    uint32_t s = new_state(m, hash);
    m->slots[at] = s;
    m->found_count = 0;
    return s;
}

static uint32_t state_behind(struct maker *m, uint32_t nfa)
{
    m->epoch++;
    reach(m, nfa);
    return state_of_found(m);
}

static void add_call(struct maker *m, uint32_t s, uint32_t rule, uint32_t then)
{
    struct automaton *a = m->out;
    if (a->call_total == m->call_cap) {
        m->call_cap = 2 * m->call_cap + 16;
        a->calls = mem_remust(a->calls, m->call_cap * sizeof *a->calls);
    }
    if (!a->states[s].call_count++) a->states[s].call = a->call_total;
    a->calls[a->call_total++] = (struct automaton_call){rule, then};
}

/* Where each byte leads to from state s. */
static void fill_bytes(struct maker *m, uint32_t s)
{
    bool cut[257] = {false};
    uint32_t at = m->sets[s].at, count = m->sets[s].count;
    for (uint32_t i = 0; i < count; i++) {
        const struct nfa_state *n = &m->nfa[m->items[at + i]];
        if (n->kind == BYTE) cut[n->lo] = cut[n->hi + 1] = true;
    }
    for (uint32_t lo = 0, hi; lo < 256 && !m->too_large; lo = hi) {
        for (hi = lo + 1; hi < 256 && !cut[hi];)
            hi++;
        m->epoch++;
        for (uint32_t i = 0; i < count; i++) {
            const struct nfa_state *n = &m->nfa[m->items[at + i]];
            if (n->kind == BYTE && n->lo <= lo && n->hi >= lo) reach(m, n->a);
        }
        m->work += count;
        if (m->work > WORK_MAX) m->too_large = true;
        if (!m->found_count) continue;
        uint32_t to = state_of_found(m);
        for (uint32_t b = lo; b < hi; b++)
            m->out->next[s][b] = to;
        m->out->states[s].reads = true;
    }
}

static void fill_rest(struct maker *m, uint32_t s)
{
    uint32_t at = m->sets[s].at, count = m->sets[s].count;
    for (uint32_t i = 0; i < count && !m->too_large; i++) {
        struct nfa_state n = m->nfa[m->items[at + i]];
        if (n.kind == ACCEPT) m->out->states[s].accepts = true;
        if (n.kind == CALL) add_call(m, s, n.rule, state_behind(m, n.a));
    }
}

static void make_rule(struct maker *m, uint32_t rule, uint32_t start)
{
    struct automaton *a = m->out;
    m->first = a->state_count;
    a->rule_start[rule] = state_behind(m, start);
    for (uint32_t s = a->rule_start[rule]; s < a->state_count && !m->too_large;
         s++) {
        fill_bytes(m, s);
        fill_rest(m, s);
    }
}

/* ---- calls ---- */

/* Which rules may be empty, and what they call before they read a byte. */
struct calls_check {
    const struct automaton *a;
    uint8_t *empty, *seen;     /* [rule_count] seen: 1 at it, 2 done */
    uint32_t *mark, epoch;     /* [state_count] */
    uint32_t *list, list_used; /* of states */
};

/* Appends to the list the states that a rule can be in before it reads; true:
 * it may end in one of them. */
static bool list_first_states(struct calls_check *c, uint32_t rule)
{
    bool ends = false;
    uint32_t from = c->list_used;
    c->mark[c->a->rule_start[rule]] = ++c->epoch;
    c->list[c->list_used++] = c->a->rule_start[rule];
    for (uint32_t at = from; at < c->list_used; at++) {
        const struct automaton_state *s = &c->a->states[c->list[at]];
        ends = ends || s->accepts;
        for (uint32_t i = 0; i < s->call_count; i++) {
            const struct automaton_call *call = &c->a->calls[s->call + i];
            if (!c->empty[call->rule] || c->mark[call->then] == c->epoch)
                continue;
            c->mark[call->then] = c->epoch;
            c->list[c->list_used++] = call->then;
        }
    }
    return ends;
}

static bool calls_itself(struct calls_check *c, uint32_t rule)
{
    if (c->seen[rule]) return c->seen[rule] == 1;
    c->seen[rule] = 1;
    uint32_t from = c->list_used;
    list_first_states(c, rule);
    uint32_t to = c->list_used;
    for (uint32_t at = from; at < to; at++) {
        const struct automaton_state *s = &c->a->states[c->list[at]];
        for (uint32_t i = 0; i < s->call_count; i++)
            if (calls_itself(c, c->a->calls[s->call + i].rule)) return true;
    }
    c->seen[rule] = 2;
    return false;
}

static int check_calls(const struct automaton *a, struct why *why)
{
    struct calls_check c = {.a = a};
    int rc = 0;
    c.empty = mem_must(a->rule_count, 1);
    c.seen = mem_must(a->rule_count, 1);
    c.mark = mem_must(a->state_count, sizeof *c.mark);
    c.list = mem_must(a->state_count, sizeof *c.list);
    for (bool more = true; more;) {
        more = false;
        for (uint32_t r = 0; r < a->rule_count; r++) {
            c.list_used = 0;
            if (c.empty[r] || !list_first_states(&c, r)) continue;
            c.empty[r] = more = true;
        }
    }
    c.list_used = 0;
    for (uint32_t r = 0; r < a->rule_count && !rc; r++)
        if (calls_itself(&c, r))
            rc = err_set(why, ERR_INVALID,
                         "it is defined by itself, without an end");
    mem_free(c.empty);
    mem_free(c.seen);
    mem_free(c.mark);
    mem_free(c.list);
    return rc;
}

static int make(struct maker *m, struct why *why)
{
    const struct pattern *p = m->pattern;
    uint32_t *starts = mem_must(p->rule_count, sizeof *starts);
    uint32_t accept = state(m, ACCEPT, 0, 0); /* 1, of every rule */
    for (uint32_t r = 0; r < p->rule_count && !m->too_large; r++)
        starts[r] = build(m, p->rules[r], accept);
    m->mark = mem_must(m->nfa_count, sizeof *m->mark);
    m->todo = mem_must(2 * (size_t)m->nfa_count + 2, sizeof *m->todo);
    m->found = mem_must(m->nfa_count, sizeof *m->found);
    for (uint32_t r = 0; r < p->rule_count && !m->too_large; r++)
        make_rule(m, r, starts[r]);
    mem_free(starts);
    if (m->empty) return err_set(why, ERR_INVALID, "nothing can match it");
    if (m->too_large)
        return err_set(why, ERR_RANGE, "it is too large (at most %d states)",
                       AUTOMATON_STATES_MAX);
    return check_calls(m->out, why);
}

int automaton_create(struct automaton *out, const struct pattern *pattern,
                     struct why *why)
{
    *out =
        (struct automaton){.state_count = 1, .rule_count = pattern->rule_count};
    out->rule_start = mem_must(pattern->rule_count, sizeof *out->rule_start);
    struct maker m = {.pattern = pattern,
                      .out = out,
                      .nfa_count = 1,
                      .nfa_cap = 256,
                      .state_cap = 64,
                      .slot_count = 4 * AUTOMATON_STATES_MAX};
    m.nfa = mem_must(m.nfa_cap, sizeof *m.nfa);
    m.sets = mem_must(m.state_cap, sizeof *m.sets);
    m.slots = mem_must(m.slot_count, sizeof *m.slots);
    out->next = mem_must(m.state_cap, sizeof *out->next);
    out->states = mem_must(m.state_cap, sizeof *out->states);
    int rc = make(&m, why);
    mem_free(m.nfa);
    mem_free(m.sets);
    mem_free(m.items);
    mem_free(m.slots);
    mem_free(m.mark);
    mem_free(m.todo);
    mem_free(m.found);
    if (rc) automaton_fini(out);
    return rc;
}

void automaton_fini(struct automaton *a)
{
    mem_free(a->next);
    mem_free(a->states);
    mem_free(a->calls);
    mem_free(a->rule_start);
    *a = (struct automaton){0};
}
