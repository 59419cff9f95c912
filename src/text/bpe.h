/* text/bpe.h - merges: a piece of text to tokens of a lexicon.
 *
 * A piece starts as its bytes (byte-level) or characters (SentencePiece's
 * kind), then the best pair of neighbours, the leftmost among equals, is merged
 * until no pair is a merge. First all adds and sets, then bpe_finish, then any
 * number of threads merge. */
#ifndef BATON_TEXT_BPE_H
#define BATON_TEXT_BPE_H

#include "text/lexicon.h"
#include "text/pieces.h"

struct bpe;

/* Over the tokens of l, which must outlive it. ERR_NOMEM. */
int bpe_create(struct bpe **out, const struct lexicon *l, size_t merges,
               struct why *why);
void bpe_destroy(struct bpe *b); /* NULL is fine */

/* Merges come best first, spelled as in the file. ERR_FORMAT: a part or the
 * whole is no token. */
int bpe_add_merge(struct bpe *b, const char *left, size_t left_len,
                  const char *right, size_t right_len, struct why *why);
/* By ids, with a rank of one's own below the number of merges: 0 is best. */
void bpe_add_pair(struct bpe *b, int32_t left, int32_t right, int32_t into,
                  uint32_t rank);
/* What becomes of a byte or character that has no token: -1, it is left out.
 * fuse: neighbours become one. */
void bpe_set_unknown(struct bpe *b, int32_t id, bool fuse);
/* A character that has no token becomes its bytes' tokens, where all are. */
void bpe_set_byte_fallback(struct bpe *b, bool fallback);
/* A piece that is a token is that token, reached by merges or not. */
void bpe_set_ignore_merges(struct bpe *b, bool ignore);
/* All pieces are merged, as is the definition; without it long ones of a
 * byte-level vocabulary are cut into the same tokens faster. */
void bpe_set_plain(struct bpe *b, bool plain);
/* ERR_NOMEM. */
int bpe_finish(struct bpe *b, struct why *why);

/* What is kept from one piece of a text to the next; one thread uses it at a
 * time. */
struct bpe_scratch {
    struct bpe_part *parts;
    uint64_t *heap;
    size_t cap;                /* parts; heap holds three times as many */
    struct bpe_memo_set *memo; /* short pieces and what became of them  */
    size_t memo_mask;
    size_t short_merged; /* pieces the memo did not have          */
    uint64_t *dead;      /* bits of places in a piece             */
    size_t dead_cap;
    uint64_t work; /* pairs looked up and heap places touched */
};
/* For a text of so many bytes, or more: the memo takes as much, up to 512 KB.
 * ERR_NOMEM. */
int bpe_scratch_init(struct bpe_scratch *scratch, size_t bytes);
void bpe_scratch_fini(struct bpe_scratch *scratch); /* a zeroed one is fine */

/* Ids of pieces. ids has room for one a byte, and for BPE_SPARE more, whose
 * contents are lost; returns how many, or ERR_NOMEM. Time is n log n at most,
 * but for the first long piece or the many first short ones: then what matching
 * needs is made. */
enum { BPE_SPARE = 4 };
int64_t bpe_merge(const struct bpe *b, struct bpe_scratch *scratch,
                  const struct pieces *pieces, int32_t *ids);

#endif
