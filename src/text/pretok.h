/* text/pretok.h - cuts text into the pieces that are encoded one by one.
 *
 * A pretok is a row of stages, each cutting the pieces of the one before, as
 * Hugging Face's pre-tokenizers do. The patterns of the known model families
 * run as hand-written scanners; any other regular expression runs in PCRE2
 * (text/regex.h). DeepSeek V3's three stages run as one. Tests hold each
 * scanner against PCRE2. Immutable after the adds; any thread splits. Each add:
 * ERR_UNSUPPORTED past 8 stages. */
#ifndef BATON_TEXT_PRETOK_H
#define BATON_TEXT_PRETOK_H

#include "base/err.h"
#include "text/pieces.h"

#include <stdbool.h>
#include <stddef.h>

struct pretok;

/* The patterns with a scanner. */
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

/* What becomes of a match; text between matches is a piece always. */
enum pretok_behavior {
    PRETOK_ISOLATED, /* a piece of its own              */
    PRETOK_REMOVED,
    PRETOK_MERGED_WITH_PREVIOUS, /* one match joins the text before it */
    PRETOK_MERGED_WITH_NEXT,     /* likewise the text after it         */
    PRETOK_CONTIGUOUS            /* neighbouring matches are one piece */
};

void pretok_create(struct pretok **out);
void pretok_destroy(struct pretok *p); /* NULL is fine */

int pretok_add(struct pretok *p, enum pretok_pattern pattern, struct why *why);

/* Splits at an expression, or at a text that occurs. invert: what matches and
 * what lies between change places. A scanner where the expression is a known
 * one, PCRE2 otherwise (always, with plain). Errors of regex_compile. */
struct pretok_split {
    const char *pattern;
    size_t len;
    bool is_regex, invert, plain;
    enum pretok_behavior behavior;
};
int pretok_add_split(struct pretok *p, const struct pretok_split *how,
                     struct why *why);
/* Each number apart from the rest, by Rust's is_numeric; or runs of them. */
int pretok_add_digits(struct pretok *p, bool individual, struct why *why);
/* At each character of punctuation; at white space, which goes. */
int pretok_add_punct(struct pretok *p, enum pretok_behavior behavior,
                     struct why *why);
int pretok_add_whitespace_split(struct pretok *p, struct why *why);
/* Runs of word characters, runs of others, without white space. */
int pretok_add_words(struct pretok *p, struct why *why);

enum pretok_prepend { PRETOK_ALWAYS, PRETOK_FIRST, PRETOK_NEVER };
/* Spaces become mark, which also is put in front of a piece that has none
 * there (FIRST: only of one that starts the whole text; where a normalizer made
 * several characters of the first one and they fall apart before, Hugging Face
 * takes each for the start, and this does not); split: a piece before each
 * mark. */
int pretok_add_metaspace(struct pretok *p, const char *mark, size_t len,
                         enum pretok_prepend prepend, bool split,
                         struct why *why);
/* A space in front of each piece that starts with none. */
int pretok_add_prefix_space(struct pretok *p, struct why *why);

/* Calls sink with all pieces in order, some at a time; stops at the first code
 * other than 0 and returns it. text is valid UTF-8. Pieces lie in text, or in
 * memory that is gone after the call. ERR_NOMEM; ERR_RANGE when an expression
 * gave up on hostile text. */
enum pretok_place {
    PRETOK_WITHIN,
    PRETOK_START,    /* text starts the whole text */
    PRETOK_START_CUT /* likewise, and lost characters there: its first piece
                      * does not count as the first once it was cut out */
};
int pretok_split(const struct pretok *p, const char *text, size_t n,
                 enum pretok_place place,
                 int (*sink)(void *arg, const struct pieces *pieces),
                 void *arg);

#endif
