/* text/tokenizer.h - text to token ids and back, exact to Hugging Face's
 * `tokenizers`: byte-level BPE, SentencePiece's BPE and unigram.
 *
 *     text -> added tokens cut out (text/added.h) -> text/normal.h
 *          -> pieces (text/pretok.h) -> text/bpe.h or text/unigram.h -> ids
 *
 * A tokenizer is immutable once made: any number of threads may use it at the
 * same time without a lock. It comes from a Hugging Face folder's
 * tokenizer.json or from the arrays of a GGUF file; what it cannot do exactly
 * is refused when it is made, with the construct's name.
 *
 * Text may hold any bytes. Each maximal broken UTF-8 sequence counts as
 * U+FFFD, which is what Python's decode(errors="replace") hands to Hugging
 * Face. Encoding takes time linear in the text, up to a logarithm, except in a
 * pre-tokenizer's expression that has no scanner (text/pretok.h): PCRE2 bounds
 * each match, and gives up on text that would take longer. */
#ifndef BATON_TEXT_TOKENIZER_H
#define BATON_TEXT_TOKENIZER_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tokenizer;
struct added_token; /* text/added.h */

/* The largest files and vocabularies taken. */
#define TOKENIZER_MAX_FILE   ((size_t)256 << 20)
#define TOKENIZER_MAX_TOKENS ((size_t)1 << 24)

/* Where a vocabulary comes from arrays: the keys of a GGUF file. All memory is
 * the caller's and may go when tokenizer_create returns. */
enum tokenizer_kind {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,      /* found in text, hidden when decoded  */
    TOKEN_USER_DEFINED = 4, /* found in text, an ordinary word     */
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6, /* "<0x0A>", of SentencePiece only */
};
struct tokenizer_text {
    const char *data;
    size_t len;
};
/* What is done to text for SentencePiece's vocabularies. */
enum tokenizer_rules {
    TOKENIZER_RULES_GGUF, /* llama.cpp's: SentencePiece's normalizer for
                                    * each stretch between added tokens       */
    TOKENIZER_RULES_SENTENCEPIECE, /* the same, but the space in front is for
                                    * the start of the text alone, and user-
                                    * defined symbols stand within a stretch  */
    TOKENIZER_RULES_LLAMA,       /* transformers' LlamaTokenizer: no normalizer,
                                    * a space in front unless there is one,
                                    * merges in the order of ids              */
    TOKENIZER_RULES_LLAMA_LEGACY /* the same, a space after added tokens too */
};
struct tokenizer_spec {
    const char *model;                   /* tokenizer.ggml.model: "gpt2" is
                                          * byte-level, "llama" SentencePiece's
                                          * BPE, "t5" its unigram            */
    const char *pre;                     /* tokenizer.ggml.pre; NULL: "default",
                                          * which is GPT-2's split           */
    const struct tokenizer_text *tokens; /* index is id, in the byte alphabet
                                          * of GPT-2, as the file has them   */
    size_t token_count;
    const int32_t *types; /* enum tokenizer_kind each; NULL: all normal */
    const float *scores;  /* each; needed by "llama" and "t5" only      */
    const struct tokenizer_text *merges; /* "left right", best first; "gpt2" */
    size_t merge_count;
    int32_t bos, eos, eot, unk; /* -1: the file names none. unk: of "llama"
                                 * and "t5", "gpt2" has no use for it */
    int add_bos;                /* 1, 0, or -1: the file does not say, and
                                 * the model or the split decides          */
    int add_eos;                /* 1: yes                                  */
    int add_space_prefix;       /* of "llama" and "t5": 0: no              */
    bool squeeze_spaces;        /* likewise: remove_extra_whitespaces      */
    enum tokenizer_rules rules; /* likewise                                */
    struct tokenizer_text charsmap; /* likewise: text/charsmap.h; len 0: none */
    const struct added_token *added; /* of the model's folder, beside or behind
                                      * tokens: ids ascend without a gap from
                                      * token_count on                      */
    size_t added_count;
    const char *chat_template; /* NULL: none. Copied. */
};

/* What lies beside a tokenizer in its folder; each NULL, or data NULL, or no
 * such file: it is not there.
 * config   tokenizer_config.json: names special tokens and the chat template;
 *          its add_bos_token, where given, overrules the post-processor of
 *          tokenizer.json, as in transformers
 * names    special_tokens_map.json: names special tokens, instead of config,
 *          where that has no added_tokens_decoder, as in transformers
 * added    added_tokens.json: beside a tokenizer.model the tokens that config
 *          does not describe itself */
struct tokenizer_paths {
    const char *config, *names, *added;
};
struct tokenizer_texts {
    struct tokenizer_text config, names, added;
};

/* beside may be NULL. ERR_NOT_FOUND: no file json_path; ERR_IO, ERR_FORMAT,
 * ERR_UNSUPPORTED (names the construct), ERR_NOMEM. */
int tokenizer_open(struct tokenizer **out, const char *json_path,
                   const struct tokenizer_paths *beside, struct why *why);
/* The same from memory. */
int tokenizer_parse(struct tokenizer **out, const char *json, size_t json_len,
                    const struct tokenizer_texts *beside, struct why *why);

/* For a folder that has SentencePiece's tokenizer.model and no tokenizer.json.
 * Where config's tokenizer_class is LlamaTokenizer the ids are those of
 * transformers 5, else those of SentencePiece; bos goes in front only where
 * config says so. */
int tokenizer_open_model(struct tokenizer **out, const char *model_path,
                         const struct tokenizer_paths *beside, struct why *why);
/* The same from memory. */
int tokenizer_parse_model(struct tokenizer **out,
                          const struct tokenizer_text *model,
                          const struct tokenizer_texts *beside,
                          struct why *why);

int tokenizer_create(struct tokenizer **out, const struct tokenizer_spec *spec,
                     struct why *why);
void tokenizer_destroy(struct tokenizer *t); /* NULL is fine */

/* A list of ids that grows; zero it first. max bounds count (0: no bound). */
struct token_list {
    int32_t *ids;
    size_t count, cap, max;
    uint64_t work; /* steps that the model took, for tests of growth */
};
void token_list_fini(struct token_list *list);

enum {
    TOKENIZER_ADD_SPECIAL = 1,  /* what the post-processor puts around one text:
                                 * bos for Llama 3 and DeepSeek */
    TOKENIZER_PLAIN_SPECIAL = 2 /* text that looks like a special token is
                                 * ordinary text (HF encode_special_tokens).
                                 * Without it all added tokens are found. */
};

/* Appends text's ids. ERR_NOMEM; ERR_RANGE once list->max is passed, list then
 * holds what fitted, and where PCRE2 gave up on hostile text. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n,
                     unsigned flags, struct token_list *list);

/* Ids are [0, vocab). A few may be nobody's; they decode to nothing. */
size_t tokenizer_vocab(const struct tokenizer *t);
/* The bytes an id stands for in a text, part of a character perhaps; borrowed
 * for the tokenizer's life. Ids outside: NULL and *len 0. */
const char *tokenizer_token_bytes(const struct tokenizer *t, int32_t id,
                                  size_t *len);
/* The id of an added token's text ("<|im_end|>"), else of an ordinary token
 * whose bytes (of SentencePiece: whose spelling) are text; -1: none. */
int32_t tokenizer_find(const struct tokenizer *t, const char *text);
bool tokenizer_is_added(const struct tokenizer *t, int32_t id);
/* Hidden when decoding with skip_special (text/detok.h). */
bool tokenizer_is_special(const struct tokenizer *t, int32_t id);

/* -1 where the files name none. */
int32_t tokenizer_bos(const struct tokenizer *t);
int32_t tokenizer_eos(const struct tokenizer *t);
int32_t tokenizer_eot(const struct tokenizer *t); /* end of turn, GGUF only */
/* The special tokens that have a name, of which chat templates may ask. */
enum tokenizer_named {
    TOKENIZER_BOS,
    TOKENIZER_EOS,
    TOKENIZER_UNK,
    TOKENIZER_SEP,
    TOKENIZER_PAD,
    TOKENIZER_CLS,
    TOKENIZER_MASK,
    TOKENIZER_NAMED
};
const char *tokenizer_name(enum tokenizer_named which); /* "bos_token" ... */
/* Its text; "" where the files name none (GGUF: but bos and eos). Borrowed. */
const char *tokenizer_named_text(const struct tokenizer *t,
                                 enum tokenizer_named which);
/* Whether TOKENIZER_ADD_SPECIAL puts bos in front. */
bool tokenizer_adds_bos(const struct tokenizer *t);
/* The chat template's source, borrowed; NULL where there is none. */
const char *tokenizer_chat_template(const struct tokenizer *t);

#endif
