#include "text/tokenizer_impl.h"
#include "base/buf.h"
#include "base/mem.h"
#include "text/unicode.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Making one. */

int tokenizer_begin(struct tokenizer *t, size_t tokens, size_t text_bytes,
                    size_t merges, struct why *why)
{
    if (tokens == 0 || tokens > TOKENIZER_MAX_TOKENS)
        return err_set(why, ERR_FORMAT, "vocabulary of %zu tokens", tokens);
    added_create(&t->raw);
    added_create(&t->normalized);
    t->bos = t->eos = t->eot = -1;
    t->flags = mem_try(tokens, 1, 0);
    if (!t->flags)
        return err_set(why, ERR_NOMEM, "vocabulary of %zu tokens", tokens);
    return bpe_create(&t->bpe, tokens, text_bytes, merges, why);
}

int tokenizer_add_added(struct tokenizer *t, const struct added_token *token,
                        bool normalized, struct why *why)
{
    int32_t id = token->id;
    size_t n = token->len;
    if (id < 0 || (size_t)id >= bpe_tokens(t->bpe))
        return err_set(why, ERR_FORMAT, "added token id %d", (int)id);
    int32_t there = bpe_find_spelled(t->bpe, token->text, n);
    if (bpe_has(t->bpe, id) ? !bpe_is(t->bpe, id, token->text, n) : there >= 0)
        return err_set(why, ERR_FORMAT,
                       "added token %d \"%.*s\" disagrees with the vocabulary",
                       (int)id, (int)n, token->text);
    int rc = 0;
    if (!bpe_has(t->bpe, id))
        rc = bpe_add_token(t->bpe, (uint32_t)id, token->text, n, BPE_UNFOUND,
                           why);
    if (rc) return rc;
    t->flags[id] = (unsigned char)(TOKENIZER_IS_ADDED |
                                   (token->special ? TOKENIZER_IS_SPECIAL : 0));
    if (!normalized) return added_add(t->raw, token, why);
    if (!t->nfc) return added_add(t->normalized, token, why);
    struct buf nfc;
    buf_init(&nfc, TOKENIZER_MAX_FILE);
    unicode_nfc(&nfc, token->text, n);
    struct added_token same = *token;
    same.text = nfc.data;
    same.len = nfc.len;
    rc = nfc.failed ? err_set(why, ERR_NOMEM, "added token of %zu bytes", n)
                    : added_add(t->normalized, &same, why);
    buf_fini(&nfc);
    return rc;
}

int tokenizer_finish(struct tokenizer *t, struct why *why)
{
    int rc = added_build(t->raw, why);
    return rc ? rc : added_build(t->normalized, why);
}

void tokenizer_destroy(struct tokenizer *t)
{
    if (!t) return;
    bpe_destroy(t->bpe);
    pretok_destroy(t->pretok);
    added_destroy(t->raw);
    added_destroy(t->normalized);
    mem_free(t->flags);
    mem_free(t->bos_text);
    mem_free(t->eos_text);
    mem_free(t->chat_template);
    mem_free(t);
}

/* From a Hugging Face folder's files. */

int tokenizer_parse(struct tokenizer **out, const char *json, size_t json_len,
                    const char *config, size_t config_len, struct why *why)
{
    struct tokenizer *t = mem_must(1, sizeof *t);
    int rc = tokenizer_json_read(t, json, json_len, why);
    if (!rc && config) rc = tokenizer_config_read(t, config, config_len, why);
    if (rc) {
        tokenizer_destroy(t);
        return rc;
    }
    *out = t;
    return 0;
}

static int read_file(struct buf *out, const char *path, struct why *why)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        int code = errno == ENOENT ? ERR_NOT_FOUND : ERR_IO;
        return err_sys(why, code, errno, "%s", path);
    }
    size_t got = 1;
    while (got) {
        enum { CHUNK = 1 << 20 };
        char *to = buf_grow(out, CHUNK);
        if (!to) break;
        got = fread(to, 1, CHUNK, f);
        out->len += got;
    }
    int broken = ferror(f);
    fclose(f);
    if (broken) return err_set(why, ERR_IO, "%s: cannot be read", path);
    if (out->failed)
        return err_set(why, ERR_FORMAT, "%s: more than %zu bytes", path,
                       out->max);
    return 0;
}

int tokenizer_open(struct tokenizer **out, const char *json_path,
                   const char *config_path, struct why *why)
{
    struct buf json, config;
    struct why inner = {0};
    buf_init(&json, TOKENIZER_MAX_FILE);
    buf_init(&config, TOKENIZER_MAX_FILE);
    bool has_config = config_path != NULL;
    int rc = read_file(&json, json_path, why);
    if (!rc && has_config) {
        rc = read_file(&config, config_path, &inner);
        has_config = rc != ERR_NOT_FOUND;
        if (rc == ERR_NOT_FOUND) rc = 0;
        if (rc) err_set(why, rc, "%s", inner.text);
    }
    if (!rc) {
        rc = tokenizer_parse(out, json.data ? json.data : "", json.len,
                             has_config ? config.data ? config.data : "" : NULL,
                             config.len, &inner);
        if (rc) err_set(why, rc, "%s: %s", json_path, why_text(&inner, rc));
    }
    buf_fini(&json);
    buf_fini(&config);
    return rc;
}

/* From a GGUF file's arrays. The name of the split stands for all that the
 * file does not say: the splitter, NFC, whether whole words skip the merges,
 * and whether the family starts with bos. Sources: each family's
 * tokenizer.json, and llama.cpp's names for them. */

static void split_gpt2(struct pretok *p)
{
    pretok_add(p, PRETOK_GPT2);
}

static void split_digits_gpt2(struct pretok *p)
{
    pretok_add_digits(p, true);
    pretok_add(p, PRETOK_GPT2);
}

static void split_llama3(struct pretok *p)
{
    pretok_add(p, PRETOK_LLAMA3);
}

static void split_qwen2(struct pretok *p)
{
    pretok_add(p, PRETOK_QWEN2);
}

static void split_deepseek3(struct pretok *p)
{
    pretok_add(p, PRETOK_NUMBERS3);
    pretok_add(p, PRETOK_CJK);
    pretok_add(p, PRETOK_DEEPSEEK3);
}

static const struct family {
    const char *name;
    void (*split)(struct pretok *p);
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
    {"deepseek-v3", split_deepseek3, false, false, true},
};

static const struct family *find_family(const char *name)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (!strcmp(families[i].name, name)) return &families[i];
    return NULL;
}

static int add_spec_tokens(struct tokenizer *t,
                           const struct tokenizer_spec *spec, struct why *why)
{
    int rc = 0;
    for (size_t i = 0; i < spec->token_count && !rc; i++) {
        const struct tokenizer_text *text = &spec->tokens[i];
        int32_t type = spec->types ? spec->types[i] : TOKEN_NORMAL;
        struct added_token added = {.text = text->data,
                                    .len = text->len,
                                    .id = (int32_t)i,
                                    .special = type == TOKEN_CONTROL};
        switch (type) {
        case TOKEN_NORMAL:
        case TOKEN_UNKNOWN:
            rc = bpe_add_token(t->bpe, (uint32_t)i, text->data, text->len,
                               BPE_MAPPED, why);
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

static int add_spec_merges(struct tokenizer *t,
                           const struct tokenizer_spec *spec, struct why *why)
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

static char *token_text(const struct tokenizer *t, int32_t id)
{
    size_t len;
    const char *bytes = tokenizer_token_bytes(t, id, &len);
    return bytes ? mem_dup_n(bytes, len) : NULL;
}

static int set_spec_ids(struct tokenizer *t, const struct tokenizer_spec *spec,
                        bool adds_bos, struct why *why)
{
    int32_t ids[] = {spec->bos, spec->eos, spec->eot, spec->unk};
    static const char *const names[] = {"bos", "eos", "eot", "unknown"};
    for (int i = 0; i < 4; i++)
        if (ids[i] < -1 || (ids[i] >= 0 && !bpe_has(t->bpe, ids[i])))
            return err_set(why, ERR_FORMAT, "%s token %d is not there",
                           names[i], (int)ids[i]);
    t->bos = spec->bos;
    t->eos = spec->eos;
    t->eot = spec->eot;
    bpe_set_unknown(t->bpe, spec->unk);
    t->bos_text = token_text(t, t->bos);
    t->eos_text = token_text(t, t->eos);
    if (spec->add_bos >= 0) adds_bos = spec->add_bos;
    if (adds_bos && t->bos >= 0) t->before.ids[t->before.count++] = t->bos;
    if (spec->chat_template) t->chat_template = mem_dup(spec->chat_template);
    return 0;
}

static int build_spec(struct tokenizer *t, const struct tokenizer_spec *spec,
                      struct why *why)
{
    const char *pre = spec->pre ? spec->pre : "default";
    const struct family *family = find_family(pre);
    if (!spec->model || strcmp(spec->model, "gpt2"))
        return err_set(why, ERR_UNSUPPORTED, "tokenizer model \"%s\"",
                       spec->model ? spec->model : "");
    if (!family)
        return err_set(why, ERR_UNSUPPORTED, "pre-tokenizer \"%s\"", pre);
    size_t bytes = 1;
    for (size_t i = 0; i < spec->token_count; i++)
        bytes += spec->tokens[i].len;
    int rc =
        tokenizer_begin(t, spec->token_count, bytes, spec->merge_count, why);
    if (rc) return rc;
    pretok_create(&t->pretok);
    family->split(t->pretok);
    t->nfc = family->nfc;
    bpe_set_ignore_merges(t->bpe, family->ignore_merges);
    rc = add_spec_tokens(t, spec, why);
    if (!rc) rc = add_spec_merges(t, spec, why);
    if (!rc) rc = set_spec_ids(t, spec, family->adds_bos, why);
    return rc ? rc : tokenizer_finish(t, why);
}

int tokenizer_create(struct tokenizer **out, const struct tokenizer_spec *spec,
                     struct why *why)
{
    struct tokenizer *t = mem_must(1, sizeof *t);
    int rc = build_spec(t, spec, why);
    if (rc) {
        tokenizer_destroy(t);
        return rc;
    }
    *out = t;
    return 0;
}

/* Encoding. */

void token_list_fini(struct token_list *list)
{
    mem_free(list->ids);
    *list = (struct token_list){0};
}

static int reserve(struct token_list *list, size_t more)
{
    if (more <= list->cap - list->count) return 0;
    size_t cap = 2 * (list->count + more);
    int32_t *ids = cap < SIZE_MAX / sizeof *ids
                       ? mem_retry(list->ids, cap * sizeof *ids)
                       : NULL;
    if (!ids) return ERR_NOMEM;
    list->ids = ids;
    list->cap = cap;
    return 0;
}

static int check_max(struct token_list *list)
{
    if (!list->max || list->count <= list->max) return 0;
    list->count = list->max;
    return ERR_RANGE;
}

static int add_id(struct token_list *list, int32_t id)
{
    int rc = reserve(list, 1);
    if (rc) return rc;
    list->ids[list->count++] = id;
    return check_max(list);
}

struct encode {
    const struct tokenizer *t;
    struct token_list *list;
    struct buf nfc; /* of one stretch between added tokens */
    struct bpe_scratch scratch;
    bool plain_special;
};

static int encode_piece(void *arg, const char *piece, size_t n)
{
    struct encode *e = arg;
    int rc = reserve(e->list, n);
    if (rc) return rc;
    int64_t count = bpe_merge(e->t->bpe, &e->scratch, piece, n,
                              e->list->ids + e->list->count);
    if (count < 0) return (int)count;
    e->list->count += (size_t)count;
    return check_max(e->list);
}

static int encode_normalized(void *arg, const struct added_token *token,
                             const char *text, size_t n)
{
    struct encode *e = arg;
    if (token) return add_id(e->list, token->id);
    return pretok_split(e->t->pretok, text, n, encode_piece, e);
}

static int encode_raw(void *arg, const struct added_token *token,
                      const char *text, size_t n)
{
    struct encode *e = arg;
    if (token) return add_id(e->list, token->id);
    size_t good = e->t->nfc ? unicode_nfc_prefix(text, n) : n;
    if (good < n) {
        buf_reset(&e->nfc);
        buf_add(&e->nfc, text, good);
        unicode_nfc(&e->nfc, text + good, n - good);
        if (e->nfc.failed) return ERR_NOMEM;
        text = e->nfc.data;
        n = e->nfc.len;
    }
    if (!added_count(e->t->normalized))
        return encode_normalized(e, NULL, text, n);
    return added_split(e->t->normalized, text, n, e->plain_special,
                       encode_normalized, e);
}

static int add_around(struct token_list *list,
                      const struct tokenizer_around *around)
{
    int rc = 0;
    for (size_t i = 0; i < around->count && !rc; i++)
        rc = add_id(list, around->ids[i]);
    return rc;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n,
                     unsigned flags, struct token_list *list)
{
    struct encode e = {
        .t = t, .list = list, .plain_special = flags & TOKENIZER_PLAIN_SPECIAL};
    struct buf repaired;
    int rc = 0;
    buf_init(&e.nfc, SIZE_MAX / 2);
    buf_init(&repaired, SIZE_MAX / 2);
    if (utf8_valid(text, n) != n) {
        utf8_repair(&repaired, text, n);
        if (repaired.failed) rc = ERR_NOMEM;
        text = repaired.data;
        n = repaired.len;
    }
    if (!rc && flags & TOKENIZER_ADD_SPECIAL) rc = add_around(list, &t->before);
    if (!rc) rc = added_split(t->raw, text, n, e.plain_special, encode_raw, &e);
    if (!rc && flags & TOKENIZER_ADD_SPECIAL) rc = add_around(list, &t->after);
    bpe_scratch_fini(&e.scratch);
    buf_fini(&e.nfc);
    buf_fini(&repaired);
    return rc;
}

/* Looking. */

size_t tokenizer_vocab(const struct tokenizer *t)
{
    return bpe_tokens(t->bpe);
}

const char *tokenizer_token_bytes(const struct tokenizer *t, int32_t id,
                                  size_t *len)
{
    return bpe_bytes(t->bpe, id, len);
}

int32_t tokenizer_find(const struct tokenizer *t, const char *text)
{
    size_t n = strlen(text);
    const struct added_token *token = added_find(t->raw, text, n);
    if (!token) token = added_find(t->normalized, text, n);
    return token ? token->id : bpe_find(t->bpe, text, n);
}

static bool has_flag(const struct tokenizer *t, int32_t id, unsigned flag)
{
    return id >= 0 && (size_t)id < bpe_tokens(t->bpe) && (t->flags[id] & flag);
}

bool tokenizer_is_added(const struct tokenizer *t, int32_t id)
{
    return has_flag(t, id, TOKENIZER_IS_ADDED);
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
    return has_flag(t, id, TOKENIZER_IS_SPECIAL);
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->bos;
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->eos;
}

int32_t tokenizer_eot(const struct tokenizer *t)
{
    return t->eot;
}

const char *tokenizer_bos_text(const struct tokenizer *t)
{
    return t->bos_text ? t->bos_text : "";
}

const char *tokenizer_eos_text(const struct tokenizer *t)
{
    return t->eos_text ? t->eos_text : "";
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
    return t->before.count && t->before.ids[0] == t->bos;
}

const char *tokenizer_chat_template(const struct tokenizer *t)
{
    return t->chat_template;
}
