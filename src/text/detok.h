/* text/detok.h - token ids to text, one id at a time, never half a character.
 *
 * A character's bytes may be spread over several tokens: they are kept back
 * until the character is whole. Bytes that can never become a character come
 * out as U+FFFD, one for each maximal broken sequence, so that the parts put
 * together are what Hugging Face decodes from all ids at once.
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
    unsigned char held_len; /* 0..3 bytes of an unfinished character */
    unsigned char held[4];
};

void detok_init(struct detok *d, const struct tokenizer *tokenizer,
                bool skip_special);
/* Appends what is whole now to out; out->failed says when it was full. */
void detok_feed(struct detok *d, int32_t id, struct buf *out);
/* The end: an unfinished character becomes U+FFFD. d can be used again. */
void detok_flush(struct detok *d, struct buf *out);

#endif
