/* A tokenizer from the arrays of a GGUF file. Of a byte-level vocabulary the
 * name of the split stands for all that the file does not say: the splitter,
 * NFC, whether whole words skip the merges, and whether the family starts with
 * bos. Sources: each family's tokenizer.json, and llama.cpp's names for them.
 * SentencePiece's vocabularies follow its normalizer and models. */
#include "base/mem.h"
#include "text/tokenizer_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* SentencePiece's space, U+2581. */
#define SPACE       "\xe2\x96\x81"
#define SPACE_BYTES 3

/* Byte-level. */

static int split_gpt2(struct pretok *p)
{
    return pretok_add(p, PRETOK_GPT2, NULL);
}

static int split_digits_gpt2(struct pretok *p)
{
    int rc = pretok_add_digits(p, true, NULL);
    return rc ? rc : pretok_add(p, PRETOK_GPT2, NULL);
}

static int split_llama3(struct pretok *p)
{
    return pretok_add(p, PRETOK_LLAMA3, NULL);
}

static int split_qwen2(struct pretok *p)
{
    return pretok_add(p, PRETOK_QWEN2, NULL);
}

static int split_deepseek3(struct pretok *p)
{
    int rc = pretok_add(p, PRETOK_NUMBERS3, NULL);
    if (!rc) rc = pretok_add(p, PRETOK_CJK, NULL);
    return rc ? rc : pretok_add(p, PRETOK_DEEPSEEK3, NULL);
}

static const struct family {
    const char *name;
    int (*split)(struct pretok *p);
    bool nfc, ignore_merges, adds_bos;
} families[] = {
    {"default", split_gpt2, false, false, false},
    {"gpt-2", split_gpt2, false, false, false},
    {"smollm", split_digits_gpt2, false, false, false},
    {"starcoder", split_digits_gpt2, false, false, false},
    {"llama-bpe", split_llama3, false, true, true},
    {"llama3", split_llama3, false, true, true},
    {"llama-v3", split_llama3, false, true, true},
    {"qwen2", split_qwen2, true, false, false},
    {"deepseek-r1-qwen", split_qwen2, true, false, true},
    {"deepseek-v3", split_deepseek3, false, false, true},
};

static const struct family *find_family(const char *name)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (!strcmp(families[i].name, name)) return &families[i];
    return NULL;
}

static int32_t type_of(const struct tokenizer_spec *spec, size_t id)
{
    return spec->types ? spec->types[id] : TOKEN_NORMAL;
}

static int add_token(struct tokenizer *t, const struct tokenizer_spec *spec,
                     size_t id, bool found, struct why *why)
{
    const struct tokenizer_text *text = &spec->tokens[id];
    return lexicon_add(t->lexicon, (uint32_t)id, text->data, text->len, found,
                       why);
}

static int add_added(struct tokenizer *t, const struct tokenizer_spec *spec,
                     size_t id, bool special, struct why *why)
{
    struct added_token added = {.text = spec->tokens[id].data,
                                .len = spec->tokens[id].len,
                                .id = (int32_t)id,
                                .special = special};
    return tokenizer_add_added(t, &added, false, why);
}

static int bad_type(size_t id, int32_t type, struct why *why)
{
    return err_set(why, ERR_UNSUPPORTED, "token %zu: type %d", id, (int)type);
}

static int add_byte_level_tokens(struct tokenizer *t,
                                 const struct tokenizer_spec *spec,
                                 struct why *why)
{
    int rc = 0;
    for (size_t i = 0; i < spec->token_count && !rc; i++) {
        int32_t type = type_of(spec, i);
        switch (type) {
        case TOKEN_NORMAL:
        case TOKEN_UNKNOWN: rc = add_token(t, spec, i, true, why); break;
        case TOKEN_CONTROL:
        case TOKEN_USER_DEFINED:
            rc = add_added(t, spec, i, type == TOKEN_CONTROL, why);
            break;
        case TOKEN_UNUSED: break;
        default: rc = bad_type(i, type, why);
        }
    }
    return rc;
}

static int add_merges(struct tokenizer *t, const struct tokenizer_spec *spec,
                      struct why *why)
{
    int rc = 0;
    for (size_t i = 0; i < spec->merge_count && !rc; i++) {
        const struct tokenizer_text *m = &spec->merges[i];
        const char *gap = m->len ? memchr(m->data, ' ', m->len) : NULL;
        if (!gap)
            return err_set(why, ERR_FORMAT, "merge %zu: no space in it", i);
        size_t left = (size_t)(gap - m->data);
        rc = bpe_add_merge(t->bpe, m->data, left, gap + 1, m->len - left - 1,
                           why);
    }
    return rc;
}

static int build_byte_level(struct tokenizer *t,
                            const struct tokenizer_spec *spec, bool *adds_bos,
                            struct why *why)
{
    const char *pre = spec->pre ? spec->pre : "default";
    const struct family *family = find_family(pre);
    if (!family)
        return err_set(why, ERR_UNSUPPORTED, "pre-tokenizer \"%s\"", pre);
    *adds_bos = family->adds_bos;
    int rc = family->split(t->pretok);
    if (!rc && family->nfc) rc = normal_add_form(t->normal, UNICODE_NFC, why);
    if (!rc) rc = add_byte_level_tokens(t, spec, why);
    if (!rc) rc = bpe_create(&t->bpe, t->lexicon, spec->merge_count, why);
    if (rc) return rc;
    /* A byte without a token is left out, whatever the file calls unknown: so
     * do Hugging Face's files of these families, and llama.cpp. */
    bpe_set_ignore_merges(t->bpe, family->ignore_merges);
    return add_merges(t, spec, why);
}

/* SentencePiece. */

static bool is_word(int32_t type)
{
    return type == TOKEN_NORMAL || type == TOKEN_USER_DEFINED;
}

static int add_pieces(struct tokenizer *t, const struct tokenizer_spec *spec,
                      bool *bytes, struct why *why)
{
    int rc = 0;
    for (size_t i = 0; i < spec->token_count && !rc; i++) {
        int32_t type = type_of(spec, i);
        if (type < TOKEN_NORMAL || type > TOKEN_BYTE)
            return bad_type(i, type, why);
        if (is_word(type) && spec->tokens[i].len > UNIGRAM_MAX_TOKEN)
            return err_set(why, ERR_UNSUPPORTED, "token %zu: %zu bytes long", i,
                           spec->tokens[i].len);
        if (type == TOKEN_BYTE) *bytes = true;
        rc = add_token(t, spec, i, is_word(type) || type == TOKEN_BYTE, why);
        if (!rc && type != TOKEN_NORMAL && type != TOKEN_BYTE &&
            type != TOKEN_UNUSED)
            rc = add_added(t, spec, i, type != TOKEN_USER_DEFINED, why);
    }
    return rc;
}

struct scored {
    float score;
    int32_t id;
};

static int by_score(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score) - (x->score > y->score)
                                : (x->id > y->id) - (x->id < y->id);
}

/* All ways to put token id together from two tokens become merges of the given
 * rank; with no model to add to they are only counted. */
static size_t add_splits(struct tokenizer *t, struct bpe *bpe, int32_t id,
                         uint32_t rank)
{
    size_t n, count = 0;
    const char *s = lexicon_bytes(t->lexicon, id, &n);
    for (size_t k = 1; k < n; k++) {
        if (((unsigned char)s[k] & 0xc0) == 0x80) continue;
        int32_t left = lexicon_find(t->lexicon, s, k);
        int32_t right = left < 0 ? -1 : lexicon_find(t->lexicon, s + k, n - k);
        if (right < 0) continue;
        if (bpe) bpe_add_pair(bpe, left, right, id, rank);
        count++;
    }
    return count;
}

/* SentencePiece merges any two neighbours that make a token, the best score
 * first, the leftmost among equals: so equal scores have one rank. */
static int rank_by_score(struct tokenizer *t, const struct tokenizer_spec *spec,
                         struct scored *words, struct why *why)
{
    size_t count = 0, pairs = 0;
    uint32_t rank = 0;
    for (size_t i = 0; i < spec->token_count; i++) {
        if (!is_word(type_of(spec, i))) continue;
        if (!isfinite(spec->scores[i]))
            return err_set(why, ERR_FORMAT, "score of token %zu", i);
        size_t splits = add_splits(t, NULL, (int32_t)i, 0);
        if (splits) words[count++] = (struct scored){spec->scores[i], (int)i};
        pairs += splits;
    }
    int rc = bpe_create(&t->bpe, t->lexicon, pairs, why);
    if (rc) return rc;
    qsort(words, count, sizeof *words, by_score);
    for (size_t i = 0; i < count; i++) {
        if (i && words[i].score != words[i - 1].score) rank++;
        add_splits(t, t->bpe, words[i].id, rank);
    }
    return 0;
}

static int build_merges_by_score(struct tokenizer *t,
                                 const struct tokenizer_spec *spec, bool bytes,
                                 struct why *why)
{
    struct scored *words = mem_try(spec->token_count, sizeof *words, 0);
    if (!words)
        return err_set(why, ERR_NOMEM, "vocabulary of %zu tokens",
                       spec->token_count);
    int rc = rank_by_score(t, spec, words, why);
    mem_free(words);
    if (rc) return rc;
    bpe_set_byte_fallback(t->bpe, bytes);
    bpe_set_unknown(t->bpe, spec->unk, true);
    return 0;
}

static int build_unigram(struct tokenizer *t, const struct tokenizer_spec *spec,
                         bool bytes, struct why *why)
{
    double *scores = mem_try(spec->token_count, sizeof *scores, 0);
    bool *known = mem_try(spec->token_count, sizeof *known, 0);
    int rc = 0;
    if (!scores || !known)
        rc = err_set(why, ERR_NOMEM, "vocabulary of %zu tokens",
                     spec->token_count);
    for (size_t i = 0; i < spec->token_count && !rc; i++) {
        scores[i] = (double)spec->scores[i];
        known[i] = type_of(spec, i) == TOKEN_NORMAL;
    }
    if (!rc)
        rc = unigram_create(&t->unigram, t->lexicon, scores, known, spec->unk,
                            bytes, why);
    mem_free(scores);
    mem_free(known);
    return rc;
}

static int build_sentencepiece(struct tokenizer *t,
                               const struct tokenizer_spec *spec, bool unigram,
                               struct why *why)
{
    bool bytes = false;
    int rc = 0;
    if (!spec->scores)
        return err_set(why, ERR_FORMAT, "vocabulary without scores");
    if (spec->squeeze_spaces) rc = normal_add_squeeze(t->normal, why);
    if (!rc && spec->add_space_prefix != 0)
        rc = normal_add_prepend(t->normal, SPACE, SPACE_BYTES, why);
    if (!rc)
        rc = normal_add_replace(t->normal, " ", 1, false, SPACE, SPACE_BYTES,
                                why);
    if (!rc) rc = add_pieces(t, spec, &bytes, why);
    if (!rc)
        rc = unigram ? build_unigram(t, spec, bytes, why)
                     : build_merges_by_score(t, spec, bytes, why);
    t->decoder =
        (struct tokenizer_decoder){.replace = mem_dup(SPACE),
                                   .with = mem_dup(" "),
                                   .byte_fallback = bytes,
                                   .strip = " ",
                                   .strip_count = spec->add_space_prefix != 0};
    return rc;
}

/* All. */

static char *token_text(const struct tokenizer *t, int32_t id)
{
    size_t len;
    const char *bytes = tokenizer_token_bytes(t, id, &len);
    return bytes ? mem_dup_n(bytes, len) : NULL;
}

static int check_ids(struct tokenizer *t, const struct tokenizer_spec *spec,
                     struct why *why)
{
    int32_t ids[] = {spec->bos, spec->eos, spec->eot, spec->unk};
    static const char *const names[] = {"bos", "eos", "eot", "unknown"};
    for (int i = 0; i < 4; i++)
        if (ids[i] < -1 || (ids[i] >= 0 && !lexicon_has(t->lexicon, ids[i])))
            return err_set(why, ERR_FORMAT, "%s token %d is not there",
                           names[i], (int)ids[i]);
    t->bos = spec->bos;
    t->eos = spec->eos;
    t->eot = spec->eot;
    return 0;
}

static void set_around(struct tokenizer *t, const struct tokenizer_spec *spec,
                       bool adds_bos)
{
    if (spec->add_bos >= 0) adds_bos = spec->add_bos;
    if (adds_bos && t->bos >= 0) t->before.ids[t->before.count++] = t->bos;
    if (spec->add_eos > 0 && t->eos >= 0)
        t->after.ids[t->after.count++] = t->eos;
}

static int build(struct tokenizer *t, const struct tokenizer_spec *spec,
                 struct why *why)
{
    const char *model = spec->model ? spec->model : "";
    bool byte_level = !strcmp(model, "gpt2"), unigram = !strcmp(model, "t5");
    bool adds_bos = !unigram;
    size_t bytes = 1;
    if (!byte_level && !unigram && strcmp(model, "llama"))
        return err_set(why, ERR_UNSUPPORTED, "tokenizer model \"%s\"", model);
    for (size_t i = 0; i < spec->token_count; i++)
        bytes += spec->tokens[i].len;
    int rc = tokenizer_begin(t, byte_level ? LEXICON_BYTES : LEXICON_TEXT,
                             spec->token_count, bytes, why);
    if (!rc)
        rc = byte_level ? build_byte_level(t, spec, &adds_bos, why)
                        : build_sentencepiece(t, spec, unigram, why);
    if (!rc) rc = check_ids(t, spec, why);
    if (!rc) rc = tokenizer_finish(t, why);
    if (rc) return rc;
    set_around(t, spec, adds_bos);
    t->bos_text = token_text(t, t->bos);
    t->eos_text = token_text(t, t->eos);
    if (spec->chat_template) t->chat_template = mem_dup(spec->chat_template);
    return 0;
}

int tokenizer_create(struct tokenizer **out, const struct tokenizer_spec *spec,
                     struct why *why)
{
    struct tokenizer *t = mem_must(1, sizeof *t);
    int rc = build(t, spec, why);
    if (rc) {
        tokenizer_destroy(t);
        return rc;
    }
    *out = t;
    return 0;
}
