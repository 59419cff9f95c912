/* tokenizer.json: the vocabulary and the merges, nearly all of the file, are
 * read where they stand; the rest is a few small objects for jansson. What is
 * not known to be done exactly is refused by name. */
#include "base/buf.h"
#include "base/mem.h"
#include "text/tokenizer_impl.h"

#include <string.h>

static int bad_json(const struct jread *r, const char *json, struct why *why)
{
    size_t at = (size_t)((r->bad ? r->bad : r->at) - json);
    return err_set(why, ERR_FORMAT, "not JSON at byte %zu", at);
}

/* The object that comes next. Its members of interest are skipped once here;
 * one that is an object itself may be read on the way. */
static int read_members(struct jread *r, struct tokenizer_member *members,
                        size_t count, const char *what, struct why *why)
{
    struct buf scratch;
    struct jslice key, value;
    bool first = true;
    int rc = 0;
    buf_init(&scratch, TOKENIZER_MAX_FILE);
    jread_open(r, '{');
    while (!rc && !r->bad && jread_more(r, '{', &first)) {
        if (!jread_key(r, &scratch, &key)) break;
        struct tokenizer_member *m = members, *end = members + count;
        while (m < end && (strlen(m->name) != key.len ||
                           memcmp(m->name, key.data, key.len)))
            m++;
        jread_peek(r); /* past blanks */
        const char *from = r->at;
        if (m == end && !what)
            jread_skip(r, &value);
        else if (m == end)
            rc = err_set(why, ERR_UNSUPPORTED, "%s with \"%.*s\"", what,
                         (int)(key.len < 64 ? key.len : 64), key.data);
        else if (m->value.data)
            rc = err_set(why, ERR_FORMAT, "two members \"%s\"", m->name);
        else if (m->inner && jread_peek(r) == '{') {
            rc = read_members(r, m->inner, m->inner_count, m->name, why);
            m->value = (struct jslice){from, (size_t)(r->at - from)};
        } else if (jread_skip(r, &value))
            m->value = value;
    }
    buf_fini(&scratch);
    return rc;
}

int tokenizer_members(const char *json, size_t n,
                      struct tokenizer_member *members, size_t count,
                      const char *what, struct why *why)
{
    struct jread r;
    jread_init(&r, json, n);
    int rc = read_members(&r, members, count, what, why);
    return !rc && !jread_end(&r) ? bad_json(&r, json, why) : rc;
}

int tokenizer_member_tree(json_t **out, const struct tokenizer_member *m,
                          struct why *why)
{
    struct why inner = {0};
    *out = NULL;
    if (!m->value.data) return 0;
    int rc = json_parse(out, m->value.data, m->value.len, &inner);
    if (rc) return err_set(why, rc, "%s: %s", m->name, inner.text);
    if (json_is_null(*out)) {
        json_decref(*out);
        *out = NULL;
    }
    return 0;
}

/* The model. */

enum {
    M_TYPE,
    M_DROPOUT, /* up to M_MERGES: BPE only */
    M_PREFIX,
    M_SUFFIX,
    M_UNK,
    M_FUSE,
    M_IGNORE,
    M_MERGES,
    M_UNK_ID, /* unigram only */
    M_FALLBACK,
    M_VOCAB,
    M_COUNT
};

static bool slice_is(const struct tokenizer_member *m, const char *text)
{
    return m->value.len == strlen(text) &&
           !memcmp(m->value.data, text, m->value.len);
}

static bool absent(const struct tokenizer_member *m)
{
    return !m->value.data || slice_is(m, "null");
}

static bool is_true(const struct tokenizer_member *m)
{
    return m->value.data && slice_is(m, "true");
}

static bool is_unigram(const struct tokenizer_member *m)
{
    return !absent(&m[M_TYPE]) && slice_is(&m[M_TYPE], "\"Unigram\"");
}

static int check_model(const struct tokenizer_member *m, enum lexicon_kind kind,
                       struct why *why)
{
    bool unigram = is_unigram(m);
    if (!unigram && (absent(&m[M_TYPE]) || !slice_is(&m[M_TYPE], "\"BPE\"")))
        return err_set(
            why, ERR_UNSUPPORTED, "model of type %.*s",
            (int)(m[M_TYPE].value.len < 64 ? m[M_TYPE].value.len : 64),
            m[M_TYPE].value.data ? m[M_TYPE].value.data : "none");
    for (int i = M_DROPOUT; i <= M_SUFFIX; i++) {
        bool off =
            absent(&m[i]) || slice_is(&m[i], "\"\"") || slice_is(&m[i], "0.0");
        if (!off)
            return err_set(why, ERR_UNSUPPORTED, "model with %s", m[i].name);
    }
    bool fallback = is_true(&m[M_FALLBACK]);
    if (kind == LEXICON_BYTES && (unigram || fallback))
        return err_set(why, ERR_UNSUPPORTED, "byte-level %s",
                       unigram ? "Unigram" : "BPE with byte_fallback");
    if (absent(&m[M_VOCAB]) || (!unigram && absent(&m[M_MERGES])))
        return err_set(why, ERR_FORMAT, "model without vocab or merges");
    return 0;
}

struct vocab_sink {
    struct lexicon *l; /* NULL: only look at the ids */
    double *scores;    /* of a unigram's tokens, or NULL */
    uint32_t limit;    /* greatest id + 1 */
};

static int vocab_token(struct vocab_sink *sink, uint32_t id,
                       const struct jslice *text, struct why *why)
{
    if (id >= TOKENIZER_MAX_TOKENS)
        return err_set(why, ERR_FORMAT, "token id %u", id);
    if (id >= sink->limit) sink->limit = id + 1;
    if (!sink->l) return 0;
    return lexicon_add(sink->l, id, text->data, text->len, true, why);
}

/* {"text": id, ...} */
static int read_ids(const struct jslice *json, struct vocab_sink *sink,
                    struct why *why)
{
    struct jread r;
    struct buf scratch;
    struct jslice key;
    uint32_t id;
    bool first = true;
    int rc = 0;
    jread_init(&r, json->data, json->len);
    buf_init(&scratch, TOKENIZER_MAX_FILE);
    jread_open(&r, '{');
    while (!rc && !r.bad && jread_more(&r, '{', &first)) {
        if (!jread_key(&r, &scratch, &key) || !jread_uint(&r, &id)) break;
        rc = vocab_token(sink, id, &key, why);
    }
    if (!rc && !jread_end(&r)) rc = bad_json(&r, json->data, why);
    buf_fini(&scratch);
    return rc;
}

/* [["text", score], ...] */
static int read_scores(const struct jslice *json, struct vocab_sink *sink,
                       struct why *why)
{
    struct jread r;
    struct buf scratch;
    struct jslice text;
    double score;
    bool first = true;
    int rc = 0;
    jread_init(&r, json->data, json->len);
    buf_init(&scratch, TOKENIZER_MAX_FILE);
    jread_open(&r, '[');
    for (uint32_t id = 0; !rc && !r.bad && jread_more(&r, '[', &first); id++) {
        bool inner = true;
        if (!jread_open(&r, '[') || !jread_more(&r, '[', &inner) ||
            !jread_string(&r, &scratch, &text) ||
            !jread_more(&r, '[', &inner) || !jread_real(&r, &score) ||
            jread_more(&r, '[', &inner) || r.bad)
            break;
        rc = vocab_token(sink, id, &text, why);
        if (!rc && sink->scores) sink->scores[id] = score;
    }
    if (!rc && !jread_end(&r)) rc = bad_json(&r, json->data, why);
    buf_fini(&scratch);
    return rc;
}

static int read_vocab(const struct tokenizer_member *m, struct vocab_sink *sink,
                      struct why *why)
{
    return is_unigram(m) ? read_scores(&m[M_VOCAB].value, sink, why)
                         : read_ids(&m[M_VOCAB].value, sink, why);
}

/* No fewer than there are: each has its quotes ("a b") or its bracket. */
static size_t most_merges(const struct jslice *json)
{
    struct jread r;
    bool first = true;
    size_t count = 0;
    jread_init(&r, json->data, json->len);
    if (!jread_open(&r, '[') || !jread_more(&r, '[', &first)) return 0;
    char mark = jread_peek(&r) == '"' ? '"' : '[';
    for (size_t i = 0; i < json->len; i++)
        count += json->data[i] == mark;
    return mark == '"' ? count / 2 : count;
}

/* "a b" as older files have it, ["a", "b"] as newer ones. */
static bool read_merge(struct jread *r, struct buf scratch[2],
                       struct jslice *left, struct jslice *right)
{
    if (jread_peek(r) == '"') {
        if (!jread_string(r, &scratch[0], left)) return false;
        const char *gap = left->len ? memchr(left->data, ' ', left->len) : NULL;
        size_t n = gap ? (size_t)(gap - left->data) : left->len;
        *right = gap ? (struct jslice){gap + 1, left->len - n - 1}
                     : (struct jslice){"", 0};
        left->len = n;
        return true;
    }
    bool first = true;
    return jread_open(r, '[') && jread_more(r, '[', &first) &&
           jread_string(r, &scratch[0], left) && jread_more(r, '[', &first) &&
           jread_string(r, &scratch[1], right) && !jread_more(r, '[', &first) &&
           !r->bad;
}

static int read_merges(const struct jslice *json, struct bpe *bpe,
                       struct why *why)
{
    struct jread r;
    struct buf scratch[2];
    struct jslice left, right;
    bool first = true, read = true;
    int rc = 0;
    jread_init(&r, json->data, json->len);
    buf_init(&scratch[0], TOKENIZER_MAX_FILE);
    buf_init(&scratch[1], TOKENIZER_MAX_FILE);
    jread_open(&r, '[');
    while (!rc && read && jread_more(&r, '[', &first)) {
        read = read_merge(&r, scratch, &left, &right);
        if (read)
            rc = bpe_add_merge(bpe, left.data, left.len, right.data, right.len,
                               why);
    }
    if (!rc && (!read || !jread_end(&r))) rc = bad_json(&r, json->data, why);
    buf_fini(&scratch[0]);
    buf_fini(&scratch[1]);
    return rc;
}

static int unknown_token(struct tokenizer *t, const struct tokenizer_member *m,
                         struct why *why)
{
    json_t *unk;
    bool fuse = is_true(&m[M_FUSE]);
    int rc = tokenizer_member_tree(&unk, &m[M_UNK], why);
    if (rc || !unk) return rc;
    int32_t id = json_is_string(unk)
                     ? lexicon_find_spelled(t->lexicon, json_string_value(unk),
                                            json_string_length(unk))
                     : -1;
    json_decref(unk);
    if (id < 0) return err_set(why, ERR_FORMAT, "unk_token is no token");
    if (fuse && lexicon_kind(t->lexicon) == LEXICON_BYTES &&
        !lexicon_covers_utf8(t->lexicon))
        return err_set(why, ERR_UNSUPPORTED, "byte-level BPE with fuse_unk");
    bpe_set_unknown(t->bpe, id, fuse);
    return 0;
}

static int build_bpe(struct tokenizer *t, const struct tokenizer_member *m,
                     struct why *why)
{
    size_t merges = most_merges(&m[M_MERGES].value);
    int rc = bpe_create(&t->bpe, t->lexicon, merges, why);
    if (rc) return rc;
    bpe_set_ignore_merges(t->bpe, is_true(&m[M_IGNORE]));
    bpe_set_byte_fallback(t->bpe, is_true(&m[M_FALLBACK]));
    rc = read_merges(&m[M_MERGES].value, t->bpe, why);
    return rc ? rc : unknown_token(t, m, why);
}

static int build_unigram(struct tokenizer *t, const struct tokenizer_member *m,
                         const double *scores, struct why *why)
{
    struct jread r;
    uint32_t unknown = 0;
    jread_init(&r, m[M_UNK_ID].value.data, m[M_UNK_ID].value.len);
    if (absent(&m[M_UNK_ID]) || !jread_uint(&r, &unknown) || !jread_end(&r) ||
        unknown > INT32_MAX)
        return err_set(why, ERR_UNSUPPORTED, "Unigram without unk_id");
    return unigram_create(&t->unigram, t->lexicon, scores, NULL,
                          (int32_t)unknown, is_true(&m[M_FALLBACK]), why);
}

static int added_room(const json_t *added, uint32_t *limit, size_t *bytes,
                      struct why *why)
{
    size_t i;
    json_t *item;
    json_array_foreach (added, i, item) {
        const json_t *id = json_object_get(item, "id");
        json_int_t v = json_integer_value(id);
        if (!json_is_integer(id) || v < 0 ||
            v >= (json_int_t)TOKENIZER_MAX_TOKENS)
            return err_set(why, ERR_FORMAT, "added token %zu: bad id", i);
        if (v >= *limit) *limit = (uint32_t)v + 1;
        *bytes += json_string_length(json_object_get(item, "content"));
    }
    return 0;
}

/* Reads the vocabulary into a lexicon, then the model on top of it. */
static int fill(struct tokenizer *t, const struct tokenizer_member *m,
                size_t count, struct why *why)
{
    struct vocab_sink sink = {.l = t->lexicon};
    bool unigram = is_unigram(m);
    if (unigram) {
        sink.scores = mem_try(count, sizeof *sink.scores, 0);
        if (!sink.scores)
            return err_set(why, ERR_NOMEM, "vocabulary of %zu tokens", count);
    }
    int rc = read_vocab(m, &sink, why);
    if (!rc)
        rc = unigram ? build_unigram(t, m, sink.scores, why)
                     : build_bpe(t, m, why);
    mem_free(sink.scores);
    return rc;
}

static int read_model(struct tokenizer *t, enum lexicon_kind kind,
                      const struct tokenizer_member *m, const json_t *added,
                      struct why *why)
{
    struct vocab_sink sink = {0};
    int rc = check_model(m, kind, why);
    if (!rc) rc = read_vocab(m, &sink, why);
    if (rc) return rc;
    size_t bytes = m[M_VOCAB].value.len + 1;
    rc = added_room(added, &sink.limit, &bytes, why);
    if (!rc) rc = tokenizer_begin(t, kind, sink.limit, bytes, why);
    return rc ? rc : fill(t, m, sink.limit, why);
}

static int read_added(struct tokenizer *t, const json_t *added, struct why *why)
{
    size_t i;
    json_t *item;
    json_array_foreach (added, i, item) {
        const json_t *content = json_object_get(item, "content");
        if (!json_is_string(content))
            return err_set(why, ERR_FORMAT, "added token %zu: no content", i);
        bool special = tokenizer_flag(item, "special", false);
        struct added_token token = {
            .text = json_string_value(content),
            .len = json_string_length(content),
            .id = (int32_t)json_integer_value(json_object_get(item, "id")),
            .special = special,
            .single_word = tokenizer_flag(item, "single_word", false),
            .lstrip = tokenizer_flag(item, "lstrip", false),
            .rstrip = tokenizer_flag(item, "rstrip", false)};
        int rc = tokenizer_add_added(
            t, &token, tokenizer_flag(item, "normalized", !special), why);
        if (rc) return rc;
    }
    return 0;
}

enum {
    T_VERSION,
    T_TRUNCATION, /* what a batch is cut and filled to: not for one text */
    T_PADDING,
    T_ADDED,
    T_NORMALIZER,
    T_PRE,
    T_POST,
    T_DECODER,
    T_MODEL,
    T_COUNT
};

static int read_sections(struct tokenizer *t, const struct tokenizer_member *m,
                         json_t *tree[T_COUNT], struct why *why)
{
    enum lexicon_kind kind = LEXICON_TEXT;
    if (!m[T_MODEL].value.data) return err_set(why, ERR_FORMAT, "no model");
    if (*m[T_MODEL].value.data != '{')
        return err_set(why, ERR_FORMAT, "model is no object");
    normal_create(&t->normal);
    pretok_create(&t->pretok);
    int rc = tokenizer_read_normalizer(t, tree[T_NORMALIZER], why);
    if (!rc) rc = tokenizer_read_pre_tokenizer(t, tree[T_PRE], &kind, why);
    if (!rc) rc = tokenizer_read_decoder(t, tree[T_DECODER], kind, why);
    if (!rc) rc = read_model(t, kind, m[T_MODEL].inner, tree[T_ADDED], why);
    if (!rc) rc = read_added(t, tree[T_ADDED], why);
    if (!rc) rc = tokenizer_read_post_processor(t, tree[T_POST], why);
    return rc ? rc : tokenizer_finish(t, why);
}

int tokenizer_json_read(struct tokenizer *t, const char *json, size_t n,
                        struct why *why)
{
    struct tokenizer_member model[M_COUNT] = {
        [M_TYPE] = {.name = "type"},
        [M_DROPOUT] = {.name = "dropout"},
        [M_UNK] = {.name = "unk_token"},
        [M_PREFIX] = {.name = "continuing_subword_prefix"},
        [M_SUFFIX] = {.name = "end_of_word_suffix"},
        [M_FUSE] = {.name = "fuse_unk"},
        [M_FALLBACK] = {.name = "byte_fallback"},
        [M_IGNORE] = {.name = "ignore_merges"},
        [M_VOCAB] = {.name = "vocab"},
        [M_MERGES] = {.name = "merges"},
        [M_UNK_ID] = {.name = "unk_id"},
    };
    struct tokenizer_member m[T_COUNT] = {
        [T_VERSION] = {.name = "version"},
        [T_TRUNCATION] = {.name = "truncation"},
        [T_PADDING] = {.name = "padding"},
        [T_ADDED] = {.name = "added_tokens"},
        [T_NORMALIZER] = {.name = "normalizer"},
        [T_PRE] = {.name = "pre_tokenizer"},
        [T_POST] = {.name = "post_processor"},
        [T_DECODER] = {.name = "decoder"},
        [T_MODEL] = {.name = "model", .inner = model, .inner_count = M_COUNT},
    };
    json_t *tree[T_COUNT] = {0};
    int rc = tokenizer_members(json, n, m, T_COUNT, "tokenizer.json", why);
    for (int i = T_ADDED; i <= T_DECODER && !rc; i++)
        rc = tokenizer_member_tree(&tree[i], &m[i], why);
    if (!rc) rc = read_sections(t, m, tree, why);
    for (int i = 0; i < T_COUNT; i++)
        json_decref(tree[i]);
    if (!rc && t->before.count) t->bos = t->before.ids[0];
    return rc;
}
