/* text/normal.h - what is done to text before it is cut into pieces: a row of
 * steps, as Hugging Face's normalizers do them. Immutable after the adds; any
 * thread runs. */
#ifndef BATON_TEXT_NORMAL_H
#define BATON_TEXT_NORMAL_H

#include "base/buf.h"
#include "base/err.h"
#include "text/charsmap.h"
#include "text/unicode.h"

struct normal;

void normal_create(struct normal **out);
void normal_destroy(struct normal *n); /* NULL is fine */

/* Texts are copied. ERR_UNSUPPORTED: too many steps, or as said. */
int normal_add_form(struct normal *n, enum unicode_form form, struct why *why);
int normal_add_lower(struct normal *n, struct why *why);
/* Takes white space off the ends. */
int normal_add_strip(struct normal *n, bool left, bool right, struct why *why);
/* Puts text in front of what is not empty. */
int normal_add_prepend(struct normal *n, const char *text, size_t len,
                       struct why *why);
/* Every match from the left, none overlapping. regex: from is an expression for
 * PCRE2 (ERR_FORMAT, ERR_UNSUPPORTED: it may match nothing). */
int normal_add_replace(struct normal *n, const char *from, size_t from_len,
                       bool regex, const char *to, size_t to_len,
                       struct why *why);
/* Hugging Face's Precompiled. Takes the map, even when it fails. */
int normal_add_precompiled(struct normal *n, struct charsmap *map,
                           struct why *why);
/* SentencePiece's own normalizer (text/charsmap.h). Takes map; symbols stay the
 * caller's and outlive this. */
enum normal_prefix { NORMAL_EACH, NORMAL_FIRST, NORMAL_NONE };
struct normal_sentencepiece {
    struct charsmap *map;        /* NULL: none */
    const struct added *symbols; /* NULL: none */
    bool squeeze;
    enum normal_prefix prefix; /* U+2581 in front of each text that is run, of
                                * the one that starts the whole, of none */
};
int normal_add_sentencepiece(struct normal *n,
                             const struct normal_sentencepiece *rules,
                             struct why *why);

/* Memory of a run; zero it. */
struct normal_scratch {
    struct buf bufs[2];
    bool front_cut; /* the last run took characters off the start */
};
void normal_scratch_fini(struct normal_scratch *s);

/* Replaces valid text by what it becomes, which is itself or lies in scratch.
 * starts: nothing is in front of it. ERR_NOMEM; ERR_RANGE when an expression
 * gave up on hostile text. */
int normal_run(const struct normal *n, struct normal_scratch *scratch,
               bool starts, const char **text, size_t *len);

#endif
