/* A tokenizer from the arrays of a GGUF file. Of a byte-level vocabulary the
 * name of the split stands for all that the file does not say: the splitter,
 * NFC, whether whole words skip the merges, and whether the family starts with
 * bos. Sources: each family's tokenizer.json, and llama.cpp's names for them.
 * SentencePiece's vocabularies are tokenizer_spm.c's. */
#include "base/mem.h"
#include "text/tokenizer_impl.h"

#include <string.h>

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

int32_t tokenizer_spec_type(const struct tokenizer_spec *spec, size_t id)
{
    return spec->types ? spec->types[id] : TOKEN_NORMAL;
}

int tokenizer_spec_add(struct tokenizer *t, const struct tokenizer_spec *spec,
                       size_t id, bool found, struct why *why)
{
    const struct tokenizer_text *text = &spec->tokens[id];
    return lexicon_add(t->lexicon, (uint32_t)id, text->data, text->len, found,
                       why);
}

struct added_token tokenizer_spec_added(const struct tokenizer_spec *spec,
                                        size_t id)
{
    return (struct added_token){.text = spec->tokens[id].data,
                                .len = spec->tokens[id].len,
                                .id = (int32_t)id,
                                .special = tokenizer_spec_type(spec, id) !=
                                           TOKEN_USER_DEFINED};
}

static int add_byte_level_tokens(struct tokenizer *t,
                                 const struct tokenizer_spec *spec,
                                 struct why *why)
{
    int rc = 0;
    for (size_t i = 0; i < spec->token_count && !rc; i++) {
        int32_t type = tokenizer_spec_type(spec, i);
        struct added_token added = tokenizer_spec_added(spec, i);
        switch (type) {
        case TOKEN_NORMAL:
        case TOKEN_UNKNOWN:
            rc = tokenizer_spec_add(t, spec, i, true, why);
            break;
        case TOKEN_CONTROL:
        case TOKEN_USER_DEFINED:
            rc = tokenizer_add_added(t, &added, false, why);
            break;
        case TOKEN_UNUSED: break;
        default:
            rc = err_set(why, ERR_UNSUPPORTED, "token %zu: type %d", i,
                         (int)type);
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
    bool adds_bos = !unigram && spec->rules == TOKENIZER_RULES_GGUF;
    size_t bytes = 1, count = spec->token_count;
    if (!byte_level && !unigram && strcmp(model, "llama"))
        return err_set(why, ERR_UNSUPPORTED, "tokenizer model \"%s\"", model);
    for (size_t i = 0; i < spec->token_count; i++)
        bytes += spec->tokens[i].len;
    for (size_t i = 0; i < spec->added_count; i++) {
        bytes += spec->added[i].len;
        if ((size_t)spec->added[i].id >= count) count++;
    }
    int rc = tokenizer_begin(t, byte_level ? LEXICON_BYTES : LEXICON_TEXT,
                             count, bytes, why);
    if (!rc)
        rc = byte_level ? build_byte_level(t, spec, &adds_bos, why)
                        : tokenizer_spm_build(t, spec, unigram, why);
    if (!rc) rc = check_ids(t, spec, why);
    if (!rc) rc = tokenizer_finish(t, why);
    if (rc) return rc;
    set_around(t, spec, adds_bos);
    t->named[TOKENIZER_BOS] = token_text(t, t->bos);
    t->named[TOKENIZER_EOS] = token_text(t, t->eos);
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
