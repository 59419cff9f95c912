/* text/regex.h - the expressions of tokenizer.json in PCRE2: UTF, with the
 * Unicode classes (version 14; its \s takes U+180E too). Immutable; any thread
 * matches. */
#ifndef BATON_TEXT_REGEX_H
#define BATON_TEXT_REGEX_H

#include "base/err.h"

#include <stddef.h>

struct regex;

/* ERR_FORMAT; ERR_UNSUPPORTED: it may match nothing at all, or takes single
 * bytes. */
int regex_compile(struct regex **out, const char *source, size_t n,
                  struct why *why);
void regex_destroy(struct regex *r); /* NULL is fine */

/* A walk over the matches in valid text, from the left, none overlapping. */
struct regex_walk {
    const struct regex *regex;
    const char *text;
    size_t len;
    void *match;
    size_t from, to; /* of the match last found */
};
int regex_walk_begin(struct regex_walk *w, const struct regex *r,
                     const char *text, size_t n); /* ERR_NOMEM */
/* 1: the next one is in from and to; 0: there is none; ERR_RANGE: gave up. */
int regex_walk_next(struct regex_walk *w);
void regex_walk_end(struct regex_walk *w);

#endif
