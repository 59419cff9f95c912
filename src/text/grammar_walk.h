/* text/grammar_walk.h - positions in an automaton, for grammar.c. A position
 * is a state that reads and a stack; stacks share what they have in common. */
#ifndef BATON_TEXT_GRAMMAR_WALK_H
#define BATON_TEXT_GRAMMAR_WALK_H

#include "text/pattern.h"

enum {
    WALK_POSITIONS = 64, /* at once; more are forgotten */
    WALK_DEPTH = 512     /* of a stack; deeper ones are forgotten */
};

/* 0 is the empty stack. */
struct walk_stacks {
    struct walk_stack {
        uint32_t parent, then; /* below; the state to return to */
        uint32_t child, next;  /* the newest above; its next older sibling */
        uint32_t depth;
    } * list;
    uint32_t count, cap;
};
void walk_stacks_init(struct walk_stacks *s);
void walk_stacks_fini(struct walk_stacks *s);
/* Forgets all but the first count. */
void walk_stacks_cut(struct walk_stacks *s, uint32_t count);

struct walk {
    struct walk_position {
        uint32_t state, stack;
    } at[WALK_POSITIONS];
    uint32_t count;
    bool ends; /* the empty stack's rule may end here */
};

/* At the beginning of rule 0. */
void walk_begin(const struct automaton *a, struct walk_stacks *s,
                struct walk *out);
/* Behind one byte more. */
void walk_step(const struct automaton *a, struct walk_stacks *s,
               const struct walk *in, uint8_t byte, struct walk *out);

static inline bool walk_is_dead(const struct walk *w)
{
    return !w->count && !w->ends;
}

#endif
