/* text/bpe.h - a byte-level vocabulary and its merges.
 *
 * Files spell tokens in GPT-2's byte alphabet (a space is "Ġ"): here they are
 * kept as the bytes they mean. First all tokens, then all merges, then any
 * number of threads merge. */
#ifndef BATON_TEXT_BPE_H
#define BATON_TEXT_BPE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bpe;

/* Room for token ids [0, tokens) with text_bytes of spelling together, and for
 * merges. ERR_NOMEM. */
int bpe_create(struct bpe **out, size_t tokens, size_t text_bytes,
               size_t merges, struct why *why);
void bpe_destroy(struct bpe *b); /* NULL is fine */

/* How the spelling is to be read. */
enum bpe_spelling {
    BPE_MAPPED, /* byte alphabet; spelled outside of it, as it stands */
    BPE_UNFOUND /* the same, but no text is ever this token */
};
/* ERR_FORMAT: id taken or out of room, spelling not UTF-8 or too long. */
int bpe_add_token(struct bpe *b, uint32_t id, const char *spelling, size_t n,
                  enum bpe_spelling how, struct why *why);
/* Merges come best first. ERR_FORMAT: a part or the whole is no token. */
int bpe_add_merge(struct bpe *b, const char *left, size_t left_len,
                  const char *right, size_t right_len, struct why *why);
/* What becomes of a byte that has no token: -1, it is left out. */
void bpe_set_unknown(struct bpe *b, int32_t id);
/* A piece that is a token is that token, reached by merges or not. */
void bpe_set_ignore_merges(struct bpe *b, bool ignore);

size_t bpe_tokens(const struct bpe *b);
bool bpe_has(const struct bpe *b, int32_t id);
/* NULL and 0: nobody's id. */
const char *bpe_bytes(const struct bpe *b, int32_t id, size_t *len);
/* The token whose bytes these are, or -1. */
int32_t bpe_find(const struct bpe *b, const char *bytes, size_t n);
/* Likewise by its spelling in the byte alphabet; outside of it -1. */
int32_t bpe_find_spelled(const struct bpe *b, const char *spelling, size_t n);
/* Whether id is spelled so. */
bool bpe_is(const struct bpe *b, int32_t id, const char *spelling, size_t n);
/* Whether every byte that occurs in UTF-8 has a token. */
bool bpe_covers_utf8(const struct bpe *b);

/* What is kept from one piece of a text to the next: zero it, and one thread
 * uses it at a time. */
struct bpe_scratch {
    struct bpe_part *parts;
    struct bpe_entry *entries;
    uint64_t *order;
    size_t cap;      /* parts; entries and order hold three times as many */
    uint32_t *heads; /* of the entries of each rank */
    uint64_t *bits;  /* ranks that have entries */
    struct bpe_seen *seen; /* short pieces and what became of them */
    size_t misses;
};
void bpe_scratch_fini(struct bpe_scratch *scratch);

/* Ids of a piece, n >= 1. ids has room for n; returns how many, or ERR_NOMEM
 * (only for pieces of more than 64 bytes). */
int64_t bpe_merge(const struct bpe *b, struct bpe_scratch *scratch,
                  const char *piece, size_t n, int32_t *ids);

#endif
