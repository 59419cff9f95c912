/* text/tokenizer_impl.h - the inside of a tokenizer, for the files that make
 * one: tokenizer_spec.c and tokenizer_spm.c from arrays, tokenizer_model.c from
 * tokenizer.model, tokenizer_json.c and tokenizer_parts.c from tokenizer.json,
 * tokenizer_config.c from tokenizer_config.json. */
#ifndef BATON_TEXT_TOKENIZER_IMPL_H
#define BATON_TEXT_TOKENIZER_IMPL_H

#include "json/json.h"
#include "text/added.h"
#include "text/bpe.h"
#include "text/jread.h"
#include "text/lexicon.h"
#include "text/normal.h"
#include "text/pretok.h"
#include "text/tokenizer.h"
#include "text/unigram.h"

/* What a post-processor puts on one side of a text. */
enum { TOKENIZER_MAX_AROUND = 16 };
struct tokenizer_around {
    int32_t ids[TOKENIZER_MAX_AROUND];
    size_t count;
};

/* How ids become text again. In a byte-level vocabulary all of it is off: the
 * bytes of the tokens one after another are the text. */
struct tokenizer_decoder {
    char *replace, *with; /* in each token; NULL: nothing */
    bool byte_fallback;   /* "<0x0A>" is a byte */
    /* At the start of the text: */
    bool drop_marks; /* the first token loses what would be replaced */
    char strip[5];   /* a character, taken off up to strip_count times */
    size_t strip_count;
};

/* What an id stands for, where it is not what the lexicon has. */
struct tokenizer_shown {
    uint32_t at, len;
};

struct tokenizer {
    struct lexicon *lexicon;
    struct bpe *bpe;         /* this */
    struct unigram *unigram; /* or that */
    struct normal *normal;
    struct pretok *pretok;
    struct added *raw;        /* found in the text as it comes        */
    struct added *normalized; /* found in what is left, after normal  */
    unsigned char *flags;     /* of each id: TOKENIZER_IS_ bits */
    struct tokenizer_decoder decoder;
    struct tokenizer_shown *shown; /* NULL: the lexicon's */
    struct buf shown_text;
    struct tokenizer_around before, after;
    int32_t bos, eos, eot;
    char *named[TOKENIZER_NAMED]; /* NULL: none */
    char *chat_template;
};
enum {
    TOKENIZER_IS_ADDED = 1,
    TOKENIZER_IS_SPECIAL = 2,
    TOKENIZER_IS_BYTE = 4
};

/* The steps, in this order, on a zeroed struct: the normalizer and the
 * pre-tokenizer, where they are not to do nothing; begin; the tokens, then the
 * merges or scores; the added tokens; finish. tokenizer_destroy takes what is
 * half built. */
int tokenizer_begin(struct tokenizer *t, enum lexicon_kind kind, size_t tokens,
                    size_t text_bytes, struct why *why);
/* Adds the token to the lexicon where its id is free yet. normalized: it is
 * sought after the normalizer, which is then done to it too. */
int tokenizer_add_added(struct tokenizer *t, const struct added_token *token,
                        bool normalized, struct why *why);
/* Sought after the normalizer, which leaves it alone. */
int tokenizer_add_symbol(struct tokenizer *t, const struct added_token *token,
                         struct why *why);
int tokenizer_finish(struct tokenizer *t, struct why *why);

/* Of a tokenizer_spec's token: its type, put into the lexicon, as an added
 * one. */
int32_t tokenizer_spec_type(const struct tokenizer_spec *spec, size_t id);
int tokenizer_spec_add(struct tokenizer *t, const struct tokenizer_spec *spec,
                       size_t id, bool found, struct why *why);
struct added_token tokenizer_spec_added(const struct tokenizer_spec *spec,
                                        size_t id);
/* After tokenizer_begin: models "llama" and "t5". */
int tokenizer_spm_build(struct tokenizer *t, const struct tokenizer_spec *spec,
                        bool unigram, struct why *why);

/* A member of a JSON object, as a slice of its text; data NULL: absent. inner:
 * members of its own that are wanted, where it is an object; others refused. */
struct tokenizer_member {
    const char *name;
    struct jslice value;
    struct tokenizer_member *inner;
    size_t inner_count;
};
/* what names the object, of which other members are refused; NULL: they are
 * passed over. */
int tokenizer_members(const char *json, size_t n,
                      struct tokenizer_member *members, size_t count,
                      const char *what, struct why *why);
/* A boolean member of an object; fallback where it is none. */
bool tokenizer_flag(const json_t *object, const char *key, bool fallback);
/* A small section as a tree; *out NULL where it is absent or null. */
int tokenizer_member_tree(json_t **out, const struct tokenizer_member *m,
                          struct why *why);

int tokenizer_json_read(struct tokenizer *t, const char *json, size_t n,
                        struct why *why);
/* The small sections of tokenizer.json, NULL where absent. decoder and
 * pre_tokenizer also say in *kind how tokens are spelled. post_processor comes
 * last: it looks for its tokens. */
int tokenizer_read_normalizer(struct tokenizer *t, const json_t *section,
                              struct why *why);
int tokenizer_read_pre_tokenizer(struct tokenizer *t, const json_t *section,
                                 enum lexicon_kind *kind, struct why *why);
int tokenizer_read_decoder(struct tokenizer *t, const json_t *section,
                           enum lexicon_kind kind, struct why *why);
int tokenizer_read_post_processor(struct tokenizer *t, const json_t *section,
                                  struct why *why);

/* After tokenizer_json_read and tokenizer_finish: config and names. */
int tokenizer_config_read(struct tokenizer *t,
                          const struct tokenizer_texts *beside,
                          struct why *why);

#endif
