/* text/pretok.h - cuts text into the pieces that are merged one by one.
 *
 * A pretok is a row of stages, each cutting the pieces of the one before.
 * The patterns of the known model families run as hand-written scanners;
 * any other regular expression runs in PCRE2 (Unicode 14; its \s takes U+180E
 * too). Tests hold each scanner against PCRE2. Immutable after the adds; any thread splits. */
#ifndef BATON_TEXT_PRETOK_H
#define BATON_TEXT_PRETOK_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct pretok;

/* The patterns with a scanner; PRETOK_LIST names each in docs and tests. */
enum pretok_pattern {
    PRETOK_GPT2,      /* GPT-2's, and ByteLevel's own                   */
    PRETOK_QWEN2,     /* one number a piece                             */
    PRETOK_LLAMA3,    /* up to three numbers a piece                    */
    PRETOK_DEEPSEEK3, /* after the next two                             */
    PRETOK_NUMBERS3,  /* up to three numbers, apart from the rest       */
    PRETOK_CJK,       /* ideographs and kana, apart from the rest       */
    PRETOK_PATTERNS
};
/* The expression that a scanner stands for. */
const char *pretok_regex(enum pretok_pattern pattern);

void pretok_create(struct pretok **out);
void pretok_destroy(struct pretok *p); /* NULL is fine */

void pretok_add(struct pretok *p, enum pretok_pattern pattern);
/* Each number apart from the rest, by Rust's is_numeric; or runs of them. */
void pretok_add_digits(struct pretok *p, bool individual);
/* A scanner where the expression is a known one, PCRE2 otherwise (always, with
 * plain). keep_gaps: what lies between matches is pieces too. ERR_FORMAT,
 * ERR_UNSUPPORTED: it matches nothing at all, or looks around it with \G. */
int pretok_add_regex(struct pretok *p, const char *regex, size_t n,
                     bool keep_gaps, bool plain, struct why *why);

/* Calls sink for each piece in order; stops at the first code other than 0 and
 * returns it. text is valid UTF-8. ERR_NOMEM; ERR_RANGE when an expression gave
 * up on hostile text. */
int pretok_split(const struct pretok *p, const char *text, size_t n,
                 int (*sink)(void *arg, const char *piece, size_t n),
                 void *arg);

#endif
