/* text/grammar.h - output that cannot but have a given form.
 *
 *     JSON Schema, regex, EBNF, ... --> pattern --> automaton over bytes
 *     token so far + automaton --> the tokens that may come next
 *
 * A grammar is compiled once for a vocabulary and shared; a matcher follows one
 * output. A position in the automaton is a state and a stack of places to
 * return to; an output may have several. For each state the tokens that stay
 * within its rule are found once, by one walk over the tree of all tokens'
 * bytes; those that leave it, few, are tried with the real stack at each step.
 *
 * A token that is part of a character is allowed where the character may
 * follow. Added tokens are allowed where a grammar of calls has them (tags, any
 * text); end tokens of them only where the whole may end.
 *
 * Sources: Willard and Louf, "Efficient Guided Generation for LLMs" (2023);
 * Dong et al., "XGrammar" (2024), for the split into tokens that need the
 * stack and those that do not. */
#ifndef BATON_TEXT_GRAMMAR_H
#define BATON_TEXT_GRAMMAR_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tokenizer; /* text/tokenizer.h */

enum grammar_kind {
    GRAMMAR_JSON_SCHEMA,
    GRAMMAR_REGEX,
    GRAMMAR_EBNF,
    GRAMMAR_STRUCTURE, /* structural tags */
    GRAMMAR_CALLS      /* text/pattern_calls.h */
};

/* The grammars of a tokenizer, those used lately kept. One thread. tokenizer
 * is borrowed; grammars taken from here must be dropped before destroy. */
struct grammars;
struct grammars *grammars_create(const struct tokenizer *tokenizer);
void grammars_destroy(struct grammars *all); /* NULL is fine */

/* *out is a reference of the caller's. The first call sorts the vocabulary
 * (0.1 s for 150 000 tokens). ERR_FORMAT, ERR_INVALID, ERR_UNSUPPORTED (named),
 * ERR_RANGE (too large): text/pattern_schema.h, _regex.h, _ebnf.h,
 * _structure.h, * _calls.h. */
struct grammar;
int grammars_get(struct grammars *all, enum grammar_kind kind, const char *text,
                 size_t n, struct grammar **out, struct why *why);
/* Any thread. */
struct grammar *grammar_take(struct grammar *grammar);
void grammar_drop(struct grammar *grammar); /* NULL is fine */

/* What one output may become. One thread at a time; different matchers of a
 * grammar at the same time. */
struct matcher;
/* Takes a reference. ends: the tokens that end the output, copied. after: the
 * grammar holds only behind this token (a reasoning's end); -1: at once. open:
 * with it, that is so where the output begins with this token (which the first
 * may then be, too); else it holds at once. -1: however the output begins. */
struct matcher *matcher_create(struct grammar *grammar, const int32_t *ends,
                               size_t end_count, int32_t open, int32_t after);
void matcher_destroy(struct matcher *matcher); /* NULL is fine */

/* The bits of the tokens that may come next, bit id % 64 of word id / 64, for
 * ids below *vocab: none beyond may. NULL: any may. Good until
 * matcher_accept. */
const uint64_t *matcher_allowed(struct matcher *matcher, uint32_t *vocab);
/* Only an end token can follow. */
bool matcher_must_end(const struct matcher *matcher);
/* The token that came. False: it was not allowed; nothing is any more. */
bool matcher_accept(struct matcher *matcher, int32_t token);
/* The whole is there and an end token came. */
bool matcher_ended(const struct matcher *matcher);

#endif
