/* text/unigram.h - SentencePiece's unigram model: of all ways to put a piece
 * together from tokens, the one with the greatest sum of scores (Viterbi; Kudo
 * 2018). Sums, ties and unknown characters are those of Hugging Face's
 * Unigram::encode_optimized. Immutable once made; any thread encodes. */
#ifndef BATON_TEXT_UNIGRAM_H
#define BATON_TEXT_UNIGRAM_H

#include "text/lexicon.h"

struct unigram;

/* No token of an encoder may be longer: time is text times longest token. */
enum { UNIGRAM_MAX_TOKEN = 1024 };

/* scores: one for each id of l, copied; l must outlive it. known: whether text
 * can be the id, NULL: all that l has. Neighbouring characters without a token
 * become one unknown, or their bytes' tokens with byte_fallback where all are.
 * ERR_FORMAT, ERR_UNSUPPORTED (a token too long), ERR_NOMEM. */
int unigram_create(struct unigram **out, const struct lexicon *l,
                   const double *scores, const bool *known, int32_t unknown,
                   bool byte_fallback, struct why *why);
void unigram_destroy(struct unigram *u); /* NULL is fine */

/* Memory kept from piece to piece: zero it, one thread at a time. */
struct unigram_scratch {
    struct unigram_node *nodes;
    size_t cap;
    uint64_t work; /* steps through the trie */
};
void unigram_scratch_fini(struct unigram_scratch *scratch);

/* Ids of a piece of valid UTF-8, n >= 1. ids has room for n. How many, or
 * ERR_NOMEM. */
int64_t unigram_encode(const struct unigram *u, struct unigram_scratch *scratch,
                       const char *piece, size_t n, int32_t *ids);

#endif
