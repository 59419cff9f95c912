/* text/lexicon.h - the tokens of a vocabulary: id to text and back.
 *
 * Byte-level vocabularies spell their tokens in GPT-2's alphabet (a space is
 * "Ġ"): here they are kept as the bytes they mean. Others (SentencePiece's) are
 * kept as they stand. First all adds, then any thread looks. */
#ifndef BATON_TEXT_LEXICON_H
#define BATON_TEXT_LEXICON_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lexicon;

/* SentencePiece's space, U+2581. */
#define LEXICON_SPACE       "\xe2\x96\x81"
#define LEXICON_SPACE_BYTES 3

enum lexicon_kind {
    LEXICON_BYTES, /* byte alphabet; spelled outside of it, as it stands */
    LEXICON_TEXT   /* as it stands */
};

/* Room for ids [0, tokens) with text_bytes of spelling together. ERR_NOMEM. */
int lexicon_create(struct lexicon **out, enum lexicon_kind kind, size_t tokens,
                   size_t text_bytes, struct why *why);
void lexicon_destroy(struct lexicon *l); /* NULL is fine */

/* found: text can be this token; false for what only added tokens are.
 * ERR_FORMAT: id taken or out of room, spelling not UTF-8 or too long. */
int lexicon_add(struct lexicon *l, uint32_t id, const char *spelling, size_t n,
                bool found, struct why *why);

enum lexicon_kind lexicon_kind(const struct lexicon *l);
size_t lexicon_count(const struct lexicon *l); /* ids, nobody's included */
bool lexicon_has(const struct lexicon *l, int32_t id);
/* Whether text can be it; id is somebody's or nobody's. */
bool lexicon_found(const struct lexicon *l, int32_t id);
/* NULL and 0: nobody's id. */
const char *lexicon_bytes(const struct lexicon *l, int32_t id, size_t *len);
/* The token whose bytes these are, or -1. */
int32_t lexicon_find(const struct lexicon *l, const char *bytes, size_t n);
/* Likewise by its spelling in the file; not UTF-8, or outside of the byte
 * alphabet: -1. */
int32_t lexicon_find_spelled(const struct lexicon *l, const char *spelling,
                             size_t n);
/* Whether id is spelled so. */
bool lexicon_is(const struct lexicon *l, int32_t id, const char *spelling,
                size_t n);
/* The token for a single byte, or -1: of its own in LEXICON_BYTES, "<0x0A>" in
 * LEXICON_TEXT. */
int32_t lexicon_byte(const struct lexicon *l, unsigned char byte);
/* Whether every byte that occurs in UTF-8 has a token. */
bool lexicon_covers_utf8(const struct lexicon *l);

/* The byte that a token spelled "<0x0A>" stands for, or -1. */
int lexicon_byte_spelled(const char *spelling, size_t n);

#endif
