/* text/detok.h - token ids to text, one id at a time, never half a character.
 *
 * A character's bytes may be spread over several tokens: they are kept back
 * until the character is whole. What can never become a character comes out as
 * U+FFFD, so that the parts put together are what Hugging Face decodes from all
 * ids at once: in a byte-level vocabulary one for each maximal broken sequence,
 * with SentencePiece's byte tokens one for each byte of a run of them. Of such
 * a run characters that were whole before it broke have been given out, where
 * Hugging Face, knowing the end, gives U+FFFD for their bytes too.
 *
 * One detok per running sequence, in the caller's memory, no allocation. It
 * borrows the tokenizer and belongs to one thread at a time. */
#ifndef BATON_TEXT_DETOK_H
#define BATON_TEXT_DETOK_H

#include "base/buf.h"
#include "text/tokenizer.h"

struct detok {
    const struct tokenizer *tokenizer;
    bool skip_special;
    bool first;             /* no token has come yet */
    bool in_bytes, broken;  /* inside a run of byte tokens, one that broke */
    unsigned char held_len; /* 0..3 bytes of an unfinished character */
    unsigned char held[4];
    size_t strip; /* characters yet to be taken off the start */
};

/* The ids are a whole text: the space that SentencePiece puts in front of one
 * is taken off again. */
void detok_init(struct detok *d, const struct tokenizer *tokenizer,
                bool skip_special);
/* The ids go on where other text ended: nothing is taken off. */
void detok_init_within(struct detok *d, const struct tokenizer *tokenizer,
                       bool skip_special);
/* Appends what is whole now to out; out->failed says when it was full. */
void detok_feed(struct detok *d, int32_t id, struct buf *out);
/* The end: an unfinished character becomes U+FFFD. */
void detok_flush(struct detok *d, struct buf *out);

#endif
