/* SentencePiece's vocabularies: merges ordered by score, unigrams, and what is
 * done to text before and after, by one of three sets of rules. */
#include "base/mem.h"
#include "text/tokenizer_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* SentencePiece's space, U+2581. */
#define SPACE       "\xe2\x96\x81"
#define SPACE_BYTES 3

static bool is_word(int32_t type)
{
    return type == TOKEN_NORMAL || type == TOKEN_USER_DEFINED;
}

/* transformers' LlamaTokenizer keeps everything in one vocabulary, so that
 * merges may run through any of it. */
static bool is_llama(const struct tokenizer_spec *spec)
{
    return spec->rules == TOKENIZER_RULES_LLAMA ||
           spec->rules == TOKENIZER_RULES_LLAMA_LEGACY;
}

static int add_listed(struct tokenizer *t, const struct tokenizer_spec *spec,
                      struct why *why)
{
    int rc = 0;
    for (size_t i = 0; i < spec->added_count && !rc; i++)
        rc = tokenizer_add_added(t, &spec->added[i], false, why);
    return rc;
}

/* SentencePiece leaves a user-defined symbol as it is and goes on around it;
 * the others cut the text there. */
static int add_special(struct tokenizer *t, const struct tokenizer_spec *spec,
                       size_t id, struct why *why)
{
    struct added_token added = tokenizer_spec_added(spec, id);
    if (tokenizer_is_added(t, added.id)) return 0; /* listed */
    return spec->rules == TOKENIZER_RULES_SENTENCEPIECE && !added.special
               ? tokenizer_add_symbol(t, &added, why)
               : tokenizer_add_added(t, &added, false, why);
}

static int add_pieces(struct tokenizer *t, const struct tokenizer_spec *spec,
                      bool *bytes, struct why *why)
{
    int rc = 0;
    for (size_t i = 0; i < spec->token_count && !rc; i++) {
        int32_t type = tokenizer_spec_type(spec, i);
        if (type < TOKEN_NORMAL || type > TOKEN_BYTE)
            return err_set(why, ERR_UNSUPPORTED, "token %zu: type %d", i,
                           (int)type);
        if (spec->tokens[i].len > UNIGRAM_MAX_TOKEN)
            return err_set(why, ERR_UNSUPPORTED, "token %zu: %zu bytes long", i,
                           spec->tokens[i].len);
        if (type == TOKEN_BYTE) *bytes = true;
        rc = tokenizer_spec_add(
            t, spec, i, is_word(type) || type == TOKEN_BYTE || is_llama(spec),
            why);
    }
    if (!rc) rc = add_listed(t, spec, why);
    for (size_t i = 0; i < spec->token_count && !rc; i++) {
        int32_t type = tokenizer_spec_type(spec, i);
        if (type != TOKEN_NORMAL && type != TOKEN_BYTE && type != TOKEN_UNUSED)
            rc = add_special(t, spec, i, why);
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
 * rank, each of step more than the last; with no model to add to they are only
 * counted. */
static size_t add_splits(struct tokenizer *t, struct bpe *bpe, int32_t id,
                         uint32_t rank, uint32_t step)
{
    size_t n, count = 0;
    const char *s = lexicon_bytes(t->lexicon, id, &n);
    for (size_t k = 1; k < n; k++) {
        if (((unsigned char)s[k] & 0xc0) == 0x80) continue;
        int32_t left = lexicon_find(t->lexicon, s, k);
        int32_t right = left < 0 ? -1 : lexicon_find(t->lexicon, s + k, n - k);
        if (right < 0) continue;
        if (bpe) bpe_add_pair(bpe, left, right, id, rank);
        rank += step;
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
        if (!is_word(tokenizer_spec_type(spec, i))) continue;
        if (!isfinite(spec->scores[i]))
            return err_set(why, ERR_FORMAT, "score of token %zu", i);
        size_t splits = add_splits(t, NULL, (int32_t)i, 0, 0);
        if (splits) words[count++] = (struct scored){spec->scores[i], (int)i};
        pairs += splits;
    }
    int rc = bpe_create(&t->bpe, t->lexicon, pairs, why);
    if (rc) return rc;
    qsort(words, count, sizeof *words, by_score);
    for (size_t i = 0; i < count; i++) {
        if (i && words[i].score != words[i - 1].score) rank++;
        add_splits(t, t->bpe, words[i].id, rank, 0);
    }
    return 0;
}

/* transformers goes by ids instead, with each pair at a rank of its own. */
static int rank_by_id(struct tokenizer *t, size_t count, struct why *why)
{
    size_t pairs = 0;
    uint32_t rank = 0;
    for (size_t i = 0; i < count; i++)
        pairs += add_splits(t, NULL, (int32_t)i, 0, 0);
    int rc = bpe_create(&t->bpe, t->lexicon, pairs, why);
    for (size_t i = 0; i < count && !rc; i++)
        rank += (uint32_t)add_splits(t, t->bpe, (int32_t)i, rank, 1);
    return rc;
}

static int build_merges(struct tokenizer *t, const struct tokenizer_spec *spec,
                        bool bytes, struct why *why)
{
    int rc;
    if (is_llama(spec)) {
        rc = rank_by_id(t, spec->token_count, why);
        if (!rc) bpe_set_byte_fallback(t->bpe, true);
        return rc;
    }
    struct scored *words = mem_try(spec->token_count, sizeof *words, 0);
    if (!words)
        return err_set(why, ERR_NOMEM, "vocabulary of %zu tokens",
                       spec->token_count);
    rc = rank_by_score(t, spec, words, why);
    mem_free(words);
    if (rc) return rc;
    bpe_set_byte_fallback(t->bpe, bytes);
    bpe_set_unknown(t->bpe, spec->unk, true);
    return 0;
}

static int build_unigram(struct tokenizer *t, const struct tokenizer_spec *spec,
                         bool bytes, struct why *why)
{
    size_t count = lexicon_count(t->lexicon);
    double *scores = mem_try(count, sizeof *scores, 0);
    bool *known = mem_try(count, sizeof *known, 0);
    int rc = 0;
    if (!scores || !known)
        rc = err_set(why, ERR_NOMEM, "vocabulary of %zu tokens", count);
    for (size_t i = 0; i < spec->token_count && !rc; i++) {
        scores[i] = (double)spec->scores[i];
        known[i] = tokenizer_spec_type(spec, i) == TOKEN_NORMAL;
    }
    if (!rc)
        rc = unigram_create(&t->unigram, t->lexicon, scores, known, spec->unk,
                            bytes, why);
    mem_free(scores);
    mem_free(known);
    return rc;
}

static int set_rules(struct tokenizer *t, const struct tokenizer_spec *spec,
                     struct why *why)
{
    bool prefix = spec->add_space_prefix != 0;
    if (is_llama(spec))
        return pretok_add_metaspace(t->pretok, SPACE, SPACE_BYTES,
                                    !prefix ? PRETOK_NEVER
                                    : spec->rules == TOKENIZER_RULES_LLAMA
                                        ? PRETOK_FIRST
                                        : PRETOK_ALWAYS,
                                    false, why);
    bool own = spec->rules == TOKENIZER_RULES_SENTENCEPIECE;
    struct normal_sentencepiece rules = {.symbols = own ? t->normalized : NULL,
                                         .squeeze = spec->squeeze_spaces,
                                         .prefix = !prefix ? NORMAL_NONE
                                                   : own   ? NORMAL_FIRST
                                                           : NORMAL_EACH};
    int rc = spec->charsmap.len
                 ? charsmap_create(&rules.map, spec->charsmap.data,
                                   spec->charsmap.len, why)
                 : 0;
    return rc ? rc : normal_add_sentencepiece(t->normal, &rules, why);
}

int tokenizer_spm_build(struct tokenizer *t, const struct tokenizer_spec *spec,
                        bool unigram, struct why *why)
{
    bool bytes = false, prefix = spec->add_space_prefix != 0;
    if (!spec->scores)
        return err_set(why, ERR_FORMAT, "vocabulary without scores");
    int rc = set_rules(t, spec, why);
    if (!rc) rc = add_pieces(t, spec, &bytes, why);
    if (!rc)
        rc = unigram ? build_unigram(t, spec, bytes, why)
                     : build_merges(t, spec, bytes, why);
    t->decoder = (struct tokenizer_decoder){
        .replace = mem_dup(SPACE),
        .with = mem_dup(" "),
        .byte_fallback = bytes || is_llama(spec),
        .strip = " ",
        .strip_count = prefix || spec->squeeze_spaces};
    return rc;
}
