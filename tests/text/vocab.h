/* tests/text/vocab.h - a small vocabulary: 256 bytes (id = byte), then the
 * merges' results in order, then added tokens. */
#ifndef BATON_TESTS_TEXT_VOCAB_H
#define BATON_TESTS_TEXT_VOCAB_H

#include "tests/test.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

enum { VOCAB_MAX = 512 };

struct vocab {
    struct tokenizer_spec spec;
    struct tokenizer_text tokens[VOCAB_MAX], merges[VOCAB_MAX];
    int32_t types[VOCAB_MAX];
    char store[65536];
    size_t used;
};

/* A byte in GPT-2's alphabet. */
static inline uint32_t vocab_letter(unsigned byte)
{
    unsigned other = 256;
    for (unsigned b = 0;; b++) {
        bool plain = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) ||
                     (b >= 0xae && b <= 0xff);
        if (b == byte) return plain ? b : other;
        if (!plain) other++;
    }
}

static inline struct tokenizer_text vocab_spell(struct vocab *v,
                                                const char *bytes, size_t n)
{
    char *start = v->store + v->used;
    for (size_t i = 0; i < n; i++)
        v->used +=
            utf8_put(v->store + v->used, vocab_letter((unsigned char)bytes[i]));
    assert_true(v->used < sizeof v->store - 8);
    return (struct tokenizer_text){start, (size_t)(v->store + v->used - start)};
}

static inline void vocab_init(struct vocab *v)
{
    *v = (struct vocab){.spec = {.model = "gpt2",
                                 .tokens = v->tokens,
                                 .types = v->types,
                                 .merges = v->merges,
                                 .bos = -1,
                                 .eos = -1,
                                 .eot = -1,
                                 .unk = -1,
                                 .add_bos = -1}};
    for (unsigned b = 0; b < 256; b++) {
        char byte = (char)b;
        v->types[b] = TOKEN_NORMAL;
        v->tokens[b] = vocab_spell(v, &byte, 1);
    }
    v->spec.token_count = 256;
}

/* left and right are bytes; the result is the next token. */
static inline int32_t vocab_merge(struct vocab *v, const char *left,
                                  const char *right)
{
    size_t at = v->spec.token_count++;
    char both[64];
    snprintf(both, sizeof both, "%s%s", left, right);
    v->types[at] = TOKEN_NORMAL;
    v->tokens[at] = vocab_spell(v, both, strlen(both));
    struct tokenizer_text merge = vocab_spell(v, left, strlen(left));
    v->store[v->used++] = ' ';
    vocab_spell(v, right, strlen(right));
    merge.len = (size_t)(v->store + v->used - merge.data);
    v->merges[v->spec.merge_count++] = merge;
    return (int32_t)at;
}

static inline int32_t vocab_add(struct vocab *v, const char *text,
                                enum tokenizer_kind kind)
{
    size_t at = v->spec.token_count++;
    v->types[at] = kind;
    v->tokens[at] = (struct tokenizer_text){text, strlen(text)};
    return (int32_t)at;
}

static inline struct tokenizer *vocab_create(const struct vocab *v)
{
    struct tokenizer *t = NULL;
    struct why why = {0};
    if (tokenizer_create(&t, &v->spec, &why)) fail_msg("%s", why.text);
    return t;
}

#endif
