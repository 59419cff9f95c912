/* text/pattern.h - what an answer may look like, as a tree of byte patterns,
 * and the automaton that it becomes.
 *
 * A pattern has rules; rule 0 is the whole. A rule's tree is made of byte
 * ranges, texts, sequences, choices, repetitions, and calls of rules (which
 * may be recursive, but must read a byte before they come back to
 * themselves). Each rule becomes a deterministic automaton over bytes, a call
 * an edge that pushes where to go on. A node belongs to one place of one tree.
 *
 * A token that is no text, an added one, is PATTERN_TOKEN, a byte that UTF-8
 * does not have, and its id.
 *
 * Sources: Thompson's construction and the subset construction; the calls are
 * those of a recursive transition network (Woods, 1970). */
#ifndef BATON_TEXT_PATTERN_H
#define BATON_TEXT_PATTERN_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pattern;
typedef uint32_t pattern_node; /* 0: the text "" */

struct pattern *pattern_create(void);
void pattern_destroy(struct pattern *p); /* NULL is fine */

/* A new rule; without a tree it is the text "". */
uint32_t pattern_rule(struct pattern *p);
void pattern_define(struct pattern *p, uint32_t rule, pattern_node tree);

pattern_node pattern_bytes(struct pattern *p, uint8_t lo, uint8_t hi);
pattern_node pattern_text(struct pattern *p, const char *text, size_t n);
/* An added token. */
enum { PATTERN_TOKEN = 0xff };
pattern_node pattern_token(struct pattern *p, int32_t id);
void pattern_token_bytes(int32_t id, uint8_t out[4]);
/* Any bytes in which none of the texts (not empty, not long) stands, and
 * between them `other` any number of times (0: nothing), which must begin with
 * PATTERN_TOKEN. first_not (0: none): not this byte behind nothing but
 * blanks. */
pattern_node pattern_without(struct pattern *p, const char *const *texts,
                             size_t count, pattern_node other, char first_not);
pattern_node pattern_call(struct pattern *p, uint32_t rule);
/* min .. max times, max -1: any number. */
pattern_node pattern_repeat(struct pattern *p, pattern_node what, int min,
                            int max);
/* Lists, filled by pattern_add: one after the other; one of them (none added:
 * nothing matches); those that are not left out, in order, with `between`
 * between each two. */
pattern_node pattern_sequence(struct pattern *p);
pattern_node pattern_choice(struct pattern *p);
pattern_node pattern_joined(struct pattern *p, pattern_node between);
void pattern_add(struct pattern *p, pattern_node list, pattern_node item);
/* Of pattern_joined: item may be left out. */
void pattern_add_optional(struct pattern *p, pattern_node list,
                          pattern_node item);

/* Code points lo .. hi as UTF-8, surrogates left out. */
struct code_range {
    uint32_t lo, hi;
};
pattern_node pattern_code_points(struct pattern *p,
                                 const struct code_range *ranges, size_t count);

/* ---- */

enum { AUTOMATON_STATES_MAX = 16384 };

/* Immutable. State 0 is dead. */
struct automaton {
    uint32_t state_count;
    uint32_t (*next)[256]; /* [state_count] by byte */
    struct automaton_state {
        bool accepts;              /* its rule may end here                  */
        bool reads;                /* some byte leads on                     */
        uint32_t call, call_count; /* into calls                   */
    } * states;
    struct automaton_call {
        uint32_t rule, then; /* state to go on in */
    } * calls;
    uint32_t call_total;
    uint32_t *rule_start; /* [rule_count] */
    uint32_t rule_count;
};

/* ERR_RANGE: it would be larger than AUTOMATON_STATES_MAX, or take too long
 * to make; ERR_INVALID: a rule calls itself without reading a byte. */
int automaton_create(struct automaton *out, const struct pattern *pattern,
                     struct why *why);
void automaton_fini(struct automaton *a);

#endif
