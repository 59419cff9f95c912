#include "text/tokenizer_impl.h"
#include "base/mem.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Making one. */

int tokenizer_begin(struct tokenizer *t, enum lexicon_kind kind, size_t tokens,
                    size_t text_bytes, struct why *why)
{
    if (tokens == 0 || tokens > TOKENIZER_MAX_TOKENS)
        return err_set(why, ERR_FORMAT, "vocabulary of %zu tokens", tokens);
    added_create(&t->raw);
    added_create(&t->normalized);
    if (!t->normal) normal_create(&t->normal);
    if (!t->pretok) pretok_create(&t->pretok);
    buf_init(&t->shown_text, UINT32_MAX);
    t->bos = t->eos = t->eot = -1;
    t->flags = mem_try(tokens, 1, 0);
    if (!t->flags)
        return err_set(why, ERR_NOMEM, "vocabulary of %zu tokens", tokens);
    return lexicon_create(&t->lexicon, kind, tokens, text_bytes, why);
}

static int add_as(struct tokenizer *t, const struct added_token *token,
                  bool normalized, struct why *why)
{
    struct lexicon *l = t->lexicon;
    int rc = 0;
    if (!lexicon_has(l, token->id))
        rc = lexicon_add(l, (uint32_t)token->id, token->text, token->len, false,
                         why);
    if (rc) return rc;
    t->flags[token->id] =
        (unsigned char)(TOKENIZER_IS_ADDED |
                        (token->special ? TOKENIZER_IS_SPECIAL : 0));
    return added_add(normalized ? t->normalized : t->raw, token, why);
}

static int check_added(const struct tokenizer *t,
                       const struct added_token *token, struct why *why)
{
    const struct lexicon *l = t->lexicon;
    int32_t id = token->id;
    size_t n = token->len;
    if (id < 0 || (size_t)id >= lexicon_count(l))
        return err_set(why, ERR_FORMAT, "added token id %d", (int)id);
    int32_t there = lexicon_find_spelled(l, token->text, n);
    if (lexicon_has(l, id) ? !lexicon_is(l, id, token->text, n) : there >= 0)
        return err_set(why, ERR_FORMAT,
                       "added token %d \"%.*s\" disagrees with the vocabulary",
                       (int)id, (int)n, token->text);
    return 0;
}

int tokenizer_add_symbol(struct tokenizer *t, const struct added_token *token,
                         struct why *why)
{
    int rc = check_added(t, token, why);
    return rc ? rc : add_as(t, token, true, why);
}

int tokenizer_add_added(struct tokenizer *t, const struct added_token *token,
                        bool normalized, struct why *why)
{
    int rc = check_added(t, token, why);
    if (rc || !normalized) return rc ? rc : add_as(t, token, false, why);
    struct normal_scratch scratch = {0};
    struct added_token same = *token;
    rc = normal_run(t->normal, &scratch, false, &same.text, &same.len);
    rc = rc ? err_set(why, rc, "added token of %zu bytes", token->len)
            : add_as(t, &same, true, why);
    normal_scratch_fini(&scratch);
    return rc;
}

/* Appends s with every occurrence of what replaced. */
static void replace_all(struct buf *out, const char *s, size_t n,
                        const struct tokenizer_decoder *d)
{
    size_t what = strlen(d->replace);
    const char *found;
    while ((found = memmem(s, n, d->replace, what))) {
        size_t before = (size_t)(found - s);
        buf_add(out, s, before);
        buf_puts(out, d->with);
        s = found + what;
        n -= before + what;
    }
    buf_add(out, s, n);
}

static void show(struct tokenizer *t, int32_t id, const char *s, size_t n)
{
    const struct tokenizer_decoder *d = &t->decoder;
    struct buf *out = &t->shown_text;
    int byte = d->byte_fallback ? lexicon_byte_spelled(s, n) : -1;
    t->shown[id].at = (uint32_t)out->len;
    if (byte >= 0) {
        t->flags[id] |= TOKENIZER_IS_BYTE;
        buf_putc(out, (char)byte);
    } else if (d->replace) {
        replace_all(out, s, n, d);
    } else {
        buf_add(out, s, n);
    }
    t->shown[id].len = (uint32_t)(out->len - t->shown[id].at);
}

/* What the decoder makes of each token. Added tokens are decoded as they were
 * normalized. */
static int write_shown(struct tokenizer *t, struct why *why)
{
    size_t count = lexicon_count(t->lexicon), n;
    if (!t->decoder.replace && !t->decoder.byte_fallback) return 0;
    t->shown = mem_try(count, sizeof *t->shown, 0);
    for (size_t id = 0; id < count && t->shown; id++) {
        const char *s = lexicon_bytes(t->lexicon, (int32_t)id, &n);
        if (n) show(t, (int32_t)id, s, n);
    }
    for (size_t i = 0; i < added_count(t->normalized) && t->shown; i++) {
        const struct added_token *token = added_at(t->normalized, i);
        show(t, token->id, token->text, token->len);
    }
    if (t->shown && !t->shown_text.failed) return 0;
    return err_set(why, ERR_NOMEM, "vocabulary of %zu tokens", count);
}

int tokenizer_finish(struct tokenizer *t, struct why *why)
{
    int rc = t->bpe ? bpe_finish(t->bpe, why) : 0;
    if (!rc) rc = added_build(t->raw, why);
    if (!rc) rc = added_build(t->normalized, why);
    return rc ? rc : write_shown(t, why);
}

void tokenizer_destroy(struct tokenizer *t)
{
    if (!t) return;
    bpe_destroy(t->bpe);
    unigram_destroy(t->unigram);
    lexicon_destroy(t->lexicon);
    normal_destroy(t->normal);
    pretok_destroy(t->pretok);
    added_destroy(t->raw);
    added_destroy(t->normalized);
    mem_free(t->flags);
    mem_free(t->decoder.replace);
    mem_free(t->decoder.with);
    mem_free(t->shown);
    buf_fini(&t->shown_text);
    for (int i = 0; i < TOKENIZER_NAMED; i++)
        mem_free(t->named[i]);
    mem_free(t->chat_template);
    mem_free(t);
}

/* From a Hugging Face folder's files. */

int tokenizer_parse(struct tokenizer **out, const char *json, size_t json_len,
                    const struct tokenizer_texts *beside, struct why *why)
{
    struct tokenizer *t = mem_must(1, sizeof *t);
    int rc = tokenizer_json_read(t, json, json_len, why);
    if (!rc && beside) rc = tokenizer_config_read(t, beside, why);
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

/* A file that may be absent; its data is NULL then. */
static int read_optional(struct buf *out, const char *path, struct why *why)
{
    struct why inner = {0};
    if (!path) return 0;
    int rc = read_file(out, path, &inner);
    if (rc == ERR_NOT_FOUND) return 0;
    if (!rc && !out->data) buf_puts(out, "");
    return rc ? err_set(why, rc, "%s", inner.text) : 0;
}

/* The files beside a tokenizer, to be freed by beside_fini in any case. */
struct beside_files {
    struct buf config, names, added;
    struct tokenizer_texts texts;
};

static int beside_read(struct beside_files *b,
                       const struct tokenizer_paths *paths, struct why *why)
{
    buf_init(&b->config, TOKENIZER_MAX_FILE);
    buf_init(&b->names, TOKENIZER_MAX_FILE);
    buf_init(&b->added, TOKENIZER_MAX_FILE);
    int rc = paths ? read_optional(&b->config, paths->config, why) : 0;
    if (!rc && paths) rc = read_optional(&b->names, paths->names, why);
    if (!rc && paths) rc = read_optional(&b->added, paths->added, why);
    b->texts = (struct tokenizer_texts){{b->config.data, b->config.len},
                                        {b->names.data, b->names.len},
                                        {b->added.data, b->added.len}};
    return rc;
}

static void beside_fini(struct beside_files *b)
{
    buf_fini(&b->config);
    buf_fini(&b->names);
    buf_fini(&b->added);
}

int tokenizer_open(struct tokenizer **out, const char *json_path,
                   const struct tokenizer_paths *beside, struct why *why)
{
    struct buf json;
    struct beside_files files;
    struct why inner = {0};
    buf_init(&json, TOKENIZER_MAX_FILE);
    int rc = beside_read(&files, beside, why);
    if (!rc) rc = read_file(&json, json_path, why);
    if (!rc) {
        rc = tokenizer_parse(out, json.data ? json.data : "", json.len,
                             &files.texts, &inner);
        if (rc) err_set(why, rc, "%s: %s", json_path, why_text(&inner, rc));
    }
    buf_fini(&json);
    beside_fini(&files);
    return rc;
}

int tokenizer_open_model(struct tokenizer **out, const char *model_path,
                         const struct tokenizer_paths *beside, struct why *why)
{
    struct buf model;
    struct beside_files files;
    struct why inner = {0};
    buf_init(&model, TOKENIZER_MAX_FILE);
    int rc = beside_read(&files, beside, why);
    if (!rc) rc = read_file(&model, model_path, why);
    if (!rc) {
        const struct tokenizer_text text = {model.data ? model.data : "",
                                            model.len};
        rc = tokenizer_parse_model(out, &text, &files.texts, &inner);
        if (rc) err_set(why, rc, "%s: %s", model_path, why_text(&inner, rc));
    }
    buf_fini(&model);
    beside_fini(&files);
    return rc;
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
    const char *start;       /* of the whole text */
    enum pretok_place place; /* of the stretch at hand */
    struct normal_scratch normal;
    struct bpe_scratch bpe;
    struct unigram_scratch unigram;
    bool plain_special;
};

static int64_t encode_unigram(struct encode *e, const struct pieces *pieces,
                              int32_t *ids)
{
    const char *s = pieces->text;
    int64_t count = 0, got;
    for (size_t i = 0; i < pieces->count;
         s += pieces->lens[i++], count += got) {
        got = unigram_encode(e->t->unigram, &e->unigram, s, pieces->lens[i],
                             ids + count);
        if (got < 0) return got;
    }
    return count;
}

static int encode_pieces(void *arg, const struct pieces *pieces)
{
    struct encode *e = arg;
    size_t bytes = BPE_SPARE;
    for (size_t i = 0; i < pieces->count; i++)
        bytes += pieces->lens[i];
    int rc = reserve(e->list, bytes);
    if (rc) return rc;
    int32_t *ids = e->list->ids + e->list->count;
    int64_t count = e->t->bpe ? bpe_merge(e->t->bpe, &e->bpe, pieces, ids)
                              : encode_unigram(e, pieces, ids);
    if (count < 0) return (int)count;
    e->list->count += (size_t)count;
    return check_max(e->list);
}

static int encode_normalized(void *arg, const struct added_token *token,
                             const char *text, size_t n)
{
    struct encode *e = arg;
    enum pretok_place place = e->place;
    e->place = PRETOK_WITHIN;
    if (token) return add_id(e->list, token->id);
    return pretok_split(e->t->pretok, text, n, place, encode_pieces, e);
}

static int encode_raw(void *arg, const struct added_token *token,
                      const char *text, size_t n)
{
    struct encode *e = arg;
    if (token) return add_id(e->list, token->id);
    bool starts = text == e->start;
    int rc = normal_run(e->t->normal, &e->normal, starts, &text, &n);
    if (rc) return rc;
    e->place = !starts               ? PRETOK_WITHIN
               : e->normal.front_cut ? PRETOK_START_CUT
                                     : PRETOK_START;
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
    buf_init(&repaired, SIZE_MAX / 2);
    if (utf8_valid(text, n) != n) {
        utf8_repair(&repaired, text, n);
        if (repaired.failed) rc = ERR_NOMEM;
        text = repaired.data;
        n = repaired.len;
    }
    e.start = text;
    if (!rc && t->bpe) rc = bpe_scratch_init(&e.bpe, n);
    if (!rc && flags & TOKENIZER_ADD_SPECIAL) rc = add_around(list, &t->before);
    if (!rc) rc = added_split(t->raw, text, n, e.plain_special, encode_raw, &e);
    if (!rc && flags & TOKENIZER_ADD_SPECIAL) rc = add_around(list, &t->after);
    list->work += e.bpe.work + e.unigram.work;
    bpe_scratch_fini(&e.bpe);
    unigram_scratch_fini(&e.unigram);
    normal_scratch_fini(&e.normal);
    buf_fini(&repaired);
    return rc;
}

/* Looking. */

size_t tokenizer_vocab(const struct tokenizer *t)
{
    return lexicon_count(t->lexicon);
}

const char *tokenizer_token_bytes(const struct tokenizer *t, int32_t id,
                                  size_t *len)
{
    if (!t->shown) return lexicon_bytes(t->lexicon, id, len);
    *len = 0;
    if (!lexicon_has(t->lexicon, id)) return NULL;
    *len = t->shown[id].len;
    return t->shown_text.data + t->shown[id].at;
}

int32_t tokenizer_find(const struct tokenizer *t, const char *text)
{
    size_t n = strlen(text);
    const struct added_token *token = added_find(t->raw, text, n);
    if (!token) token = added_find(t->normalized, text, n);
    return token ? token->id : lexicon_find(t->lexicon, text, n);
}

static bool has_flag(const struct tokenizer *t, int32_t id, unsigned flag)
{
    return id >= 0 && (size_t)id < lexicon_count(t->lexicon) &&
           (t->flags[id] & flag);
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

const char *tokenizer_name(enum tokenizer_named which)
{
    static const char *const names[] = {"bos_token", "eos_token", "unk_token",
                                        "sep_token", "pad_token", "cls_token",
                                        "mask_token"};
    return names[which];
}

const char *tokenizer_named_text(const struct tokenizer *t,
                                 enum tokenizer_named which)
{
    return t->named[which] ? t->named[which] : "";
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
    return t->before.count && t->before.ids[0] == t->bos;
}

const char *tokenizer_chat_template(const struct tokenizer *t)
{
    return t->chat_template;
}
