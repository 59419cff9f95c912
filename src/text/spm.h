/* text/spm.h - tokenizer.model, SentencePiece's file: one message of protocol
 * buffers. The few fields that say how to encode are read here; the rest (how
 * it was trained) is passed over. Source: sentencepiece_model.proto.
 *
 * The file is not trusted: lengths are held against what is there, and every
 * error names the byte. */
#ifndef BATON_TEXT_SPM_H
#define BATON_TEXT_SPM_H

#include "base/err.h"
#include "text/tokenizer.h"

/* Texts lie in the file's bytes. */
struct spm {
    struct tokenizer_text *pieces; /* index is id */
    float *scores;
    int32_t *types; /* enum tokenizer_kind */
    size_t count;
    bool unigram;                   /* else BPE */
    bool byte_fallback;             /* 256 byte pieces are there */
    int32_t unk, bos, eos;          /* -1: none. unk is always there */
    struct tokenizer_text charsmap; /* text/charsmap.h; len 0: none */
    bool dummy_prefix, squeeze;     /* of the normalizer */
};

/* ERR_FORMAT; ERR_UNSUPPORTED: word and character models, white space that is
 * no prefix of words, a denormalizer; ERR_NOMEM. */
int spm_read(struct spm *out, const char *bytes, size_t n, struct why *why);
void spm_fini(struct spm *m); /* zeroed is fine */

#endif
