#include "text/grammar_walk.h"

#include "base/mem.h"

enum { VISITS = 4096 }; /* of one step: an ambiguous pattern's bound */

void walk_stacks_init(struct walk_stacks *s)
{
    s->cap = 64;
    s->count = 1;
    s->list = mem_must(s->cap, sizeof *s->list);
}

void walk_stacks_fini(struct walk_stacks *s)
{
    mem_free(s->list);
    *s = (struct walk_stacks){0};
}

/* The newest is always its parent's first child. */
void walk_stacks_cut(struct walk_stacks *s, uint32_t count)
{
    while (s->count > count) {
        const struct walk_stack *last = &s->list[--s->count];
        s->list[last->parent].child = last->next;
    }
}

static uint32_t push(struct walk_stacks *s, uint32_t parent, uint32_t then)
{
    for (uint32_t c = s->list[parent].child; c; c = s->list[c].next)
        if (s->list[c].then == then) return c;
    if (s->count == s->cap) {
        s->cap *= 2;
        s->list = mem_remust(s->list, s->cap * sizeof *s->list);
    }
    s->list[s->count] = (struct walk_stack){.parent = parent,
                                            .then = then,
                                            .next = s->list[parent].child,
                                            .depth = s->list[parent].depth + 1};
    s->list[parent].child = s->count;
    return s->count++;
}

static bool add(struct walk *w, uint32_t state, uint32_t stack)
{
    for (uint32_t i = 0; i < w->count; i++)
        if (w->at[i].state == state && w->at[i].stack == stack) return false;
    if (w->count < WALK_POSITIONS)
        w->at[w->count++] = (struct walk_position){state, stack};
    return true;
}

/* Nothing is left to do in a state but to return: a call that goes on there
 * needs no place on the stack. */
static bool only_returns(const struct automaton_state *s)
{
    return s->accepts && !s->reads && !s->call_count;
}

/* The position, and those that it leads to without a byte: into rules that it
 * calls, out of its own where that may end. */
static void enter(const struct automaton *a, struct walk_stacks *s,
                  struct walk *w, uint32_t state, uint32_t stack, int *visits)
{
    const struct automaton_state *at = &a->states[state];
    if (--*visits < 0) return;
    if (at->reads && !add(w, state, stack)) return;
    for (uint32_t i = 0; i < at->call_count; i++) {
        const struct automaton_call *call = &a->calls[at->call + i];
        bool last = only_returns(&a->states[call->then]);
        if (!last && s->list[stack].depth == WALK_DEPTH) continue;
        enter(a, s, w, a->rule_start[call->rule],
              last ? stack : push(s, stack, call->then), visits);
    }
    if (!at->accepts) return;
    if (stack)
        enter(a, s, w, s->list[stack].then, s->list[stack].parent, visits);
    else
        w->ends = true;
}

void walk_begin(const struct automaton *a, struct walk_stacks *s,
                struct walk *out)
{
    int visits = VISITS;
    out->count = 0;
    out->ends = false;
    enter(a, s, out, a->rule_start[0], 0, &visits);
}

void walk_step(const struct automaton *a, struct walk_stacks *s,
               const struct walk *in, uint8_t byte, struct walk *out)
{
    int visits = VISITS;
    out->count = 0;
    out->ends = false;
    for (uint32_t i = 0; i < in->count; i++) {
        uint32_t to = a->next[in->at[i].state][byte];
        if (to) enter(a, s, out, to, in->at[i].stack, &visits);
    }
}
