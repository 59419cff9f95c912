/* text/tokenizer_impl.h - the inside of a tokenizer, for the files that make
 * one: tokenizer.c from arrays, tokenizer_json.c from tokenizer.json. */
#ifndef BATON_TEXT_TOKENIZER_IMPL_H
#define BATON_TEXT_TOKENIZER_IMPL_H

#include "json/json.h"
#include "text/added.h"
#include "text/bpe.h"
#include "text/pretok.h"
#include "text/tokenizer.h"

/* What a post-processor puts on one side of a text. */
enum { TOKENIZER_MAX_AROUND = 16 };
struct tokenizer_around {
    int32_t ids[TOKENIZER_MAX_AROUND];
    size_t count;
};

struct tokenizer {
    struct bpe *bpe;
    struct pretok *pretok;
    struct added *raw;        /* found in the text as it comes    */
    struct added *normalized; /* found in what is left, after NFC */
    bool nfc;
    unsigned char *flags; /* of each id: TOKENIZER_IS_ bits */
    struct tokenizer_around before, after;
    int32_t bos, eos, eot;
    char *bos_text, *eos_text; /* NULL: none */
    char *chat_template;
};
enum { TOKENIZER_IS_ADDED = 1, TOKENIZER_IS_SPECIAL = 2 };

/* The steps, in this order, on a zeroed struct. tokenizer_destroy takes what
 * is half built. */
int tokenizer_begin(struct tokenizer *t, size_t tokens, size_t text_bytes,
                    size_t merges, struct why *why);
/* Adds the token to the vocabulary where its id is free yet. */
int tokenizer_add_added(struct tokenizer *t, const struct added_token *token,
                        bool normalized, struct why *why);
int tokenizer_finish(struct tokenizer *t, struct why *why);

int tokenizer_json_read(struct tokenizer *t, const char *json, size_t n,
                        struct why *why);
/* After tokenizer_json_read and tokenizer_finish. */
int tokenizer_config_read(struct tokenizer *t, const char *config, size_t n,
                          struct why *why);

#endif
