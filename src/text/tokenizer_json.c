/* tokenizer.json: the vocabulary and the merges, nearly all of the file, are
 * read where they stand; the rest is a few small objects for jansson. What is
 * not known to be done exactly is refused by name. */
#include "base/buf.h"
#include "base/mem.h"
#include "text/jread.h"
#include "text/tokenizer_impl.h"

#include <string.h>

/* Members of an object, as slices of the file; data NULL: absent. */
struct member {
    const char *name;
    struct jslice value;
};

static int bad_json(const struct jread *r, const char *json, struct why *why)
{
    size_t at = (size_t)((r->bad ? r->bad : r->at) - json);
    return err_set(why, ERR_FORMAT, "not JSON at byte %zu", at);
}

/* what names the object, of which other members are refused; NULL: they are
 * passed over. */
static int read_members(const char *json, size_t n, struct member *members,
                        size_t count, const char *what, struct why *why)
{
    struct jread r;
    struct buf scratch;
    struct jslice key, value;
    bool first = true;
    int rc = 0;
    jread_init(&r, json, n);
    buf_init(&scratch, TOKENIZER_MAX_FILE);
    jread_open(&r, '{');
    while (!rc && !r.bad && jread_more(&r, '{', &first)) {
        if (!jread_key(&r, &scratch, &key)) break;
        struct member *m = members, *end = members + count;
        while (m < end && (strlen(m->name) != key.len ||
                           memcmp(m->name, key.data, key.len)))
            m++;
        if (m == end && !what)
            jread_skip(&r, &value);
        else if (m == end)
            rc = err_set(why, ERR_UNSUPPORTED, "%s with \"%.*s\"", what,
                         (int)(key.len < 64 ? key.len : 64), key.data);
        else if (m->value.data)
            rc = err_set(why, ERR_FORMAT, "two members \"%s\"", m->name);
        else if (jread_skip(&r, &value))
            m->value = value;
    }
    if (!rc && !jread_end(&r)) rc = bad_json(&r, json, why);
    buf_fini(&scratch);
    return rc;
}

/* A small section as a tree; *out NULL where it is absent or null. */
static int parse_member(json_t **out, const struct member *m, struct why *why)
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

static const char *type_of(const json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));
    return type ? type : "(no type)";
}

static bool is_type(const json_t *object, const char *type)
{
    return !strcmp(type_of(object), type);
}

static bool flag(const json_t *object, const char *key, bool fallback)
{
    const json_t *value = json_object_get(object, key);
    return json_is_boolean(value) ? json_is_true(value) : fallback;
}

/* Calls each on every part of a Sequence, or on the one part that it is. */
static int each_part(struct tokenizer *t, const json_t *part, const char *list,
                     int (*each)(struct tokenizer *t, const json_t *part,
                                 struct why *why),
                     struct why *why)
{
    if (!part) return 0;
    if (!is_type(part, "Sequence")) return each(t, part, why);
    const json_t *parts = json_object_get(part, list);
    int rc = json_is_array(parts)
                 ? 0
                 : err_set(why, ERR_FORMAT, "Sequence without %s", list);
    for (size_t i = 0; i < json_array_size(parts) && !rc; i++)
        rc = each(t, json_array_get(parts, i), why);
    return rc;
}

static int normalizer(struct tokenizer *t, const json_t *part, struct why *why)
{
    if (!is_type(part, "NFC"))
        return err_set(why, ERR_UNSUPPORTED, "normalizer %s", type_of(part));
    t->nfc = true;
    return 0;
}

static int byte_level(struct tokenizer *t, const json_t *part, struct why *why)
{
    if (flag(part, "add_prefix_space", true))
        return err_set(why, ERR_UNSUPPORTED, "ByteLevel with add_prefix_space");
    if (flag(part, "use_regex", true)) pretok_add(t->pretok, PRETOK_GPT2);
    return 0;
}

static int split(struct tokenizer *t, const json_t *part, struct why *why)
{
    const json_t *pattern = json_object_get(part, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex");
    const char *behavior = json_string_value(json_object_get(part, "behavior"));
    bool invert = flag(part, "invert", false);
    if (!json_is_string(regex))
        return err_set(why, ERR_UNSUPPORTED, "Split by other than a Regex");
    bool isolated = behavior && !strcmp(behavior, "Isolated");
    bool removed = behavior && !strcmp(behavior, "Removed") && invert;
    if (!isolated && !removed)
        return err_set(why, ERR_UNSUPPORTED, "Split with behavior %s%s",
                       behavior ? behavior : "missing",
                       invert ? ", inverted" : "");
    return pretok_add_regex(t->pretok, json_string_value(regex),
                            json_string_length(regex), isolated, false, why);
}

static int pre_tokenizer(struct tokenizer *t, const json_t *part,
                         struct why *why)
{
    if (is_type(part, "ByteLevel")) return byte_level(t, part, why);
    if (is_type(part, "Split")) return split(t, part, why);
    if (!is_type(part, "Digits"))
        return err_set(why, ERR_UNSUPPORTED, "pre_tokenizer %s", type_of(part));
    pretok_add_digits(t->pretok, flag(part, "individual_digits", false));
    return 0;
}

/* Whether ByteLevel is among the parts, and nothing that is not known. */
static int decoder(struct tokenizer *t, const json_t *part, struct why *why)
{
    (void)t;
    if (is_type(part, "ByteLevel")) return 0;
    return err_set(why, ERR_UNSUPPORTED, "decoder %s", type_of(part));
}

static int add_around(struct tokenizer_around *around, const json_t *processor,
                      const char *name, struct why *why)
{
    const json_t *ids = json_object_get(
        json_object_get(json_object_get(processor, "special_tokens"), name),
        "ids");
    size_t i;
    json_t *id;
    if (!json_is_array(ids))
        return err_set(why, ERR_FORMAT, "TemplateProcessing: no ids for %s",
                       name);
    json_array_foreach (ids, i, id) {
        json_int_t v = json_integer_value(id);
        if (!json_is_integer(id) || v < 0 || v > INT32_MAX)
            return err_set(why, ERR_FORMAT, "TemplateProcessing: id of %s",
                           name);
        if (around->count == TOKENIZER_MAX_AROUND)
            return err_set(why, ERR_UNSUPPORTED,
                           "TemplateProcessing with more than %d tokens",
                           TOKENIZER_MAX_AROUND);
        around->ids[around->count++] = (int32_t)v;
    }
    return 0;
}

static int template_processing(struct tokenizer *t, const json_t *part,
                               struct why *why)
{
    const json_t *single = json_object_get(part, "single");
    bool text_seen = false;
    size_t i;
    json_t *item;
    json_array_foreach (single, i, item) {
        const json_t *special = json_object_get(item, "SpecialToken");
        if (!special) {
            if (text_seen || !json_object_get(item, "Sequence"))
                return err_set(why, ERR_UNSUPPORTED,
                               "TemplateProcessing: part %zu", i);
            text_seen = true;
            continue;
        }
        const char *name = json_string_value(json_object_get(special, "id"));
        int rc = add_around(text_seen ? &t->after : &t->before, part,
                            name ? name : "", why);
        if (rc) return rc;
    }
    if (!text_seen)
        return err_set(why, ERR_FORMAT, "TemplateProcessing without a text");
    return 0;
}

static int post_processor(struct tokenizer *t, const json_t *part,
                          struct why *why)
{
    if (is_type(part, "ByteLevel")) return 0; /* only moves offsets */
    if (is_type(part, "TemplateProcessing"))
        return template_processing(t, part, why);
    return err_set(why, ERR_UNSUPPORTED, "post_processor %s", type_of(part));
}

/* The model. */

enum {
    M_TYPE,
    M_DROPOUT,
    M_UNK,
    M_PREFIX,
    M_SUFFIX,
    M_FUSE,
    M_FALLBACK,
    M_IGNORE,
    M_VOCAB,
    M_MERGES,
    M_COUNT
};

static bool slice_is(const struct member *m, const char *text)
{
    return m->value.len == strlen(text) &&
           !memcmp(m->value.data, text, m->value.len);
}

static bool absent(const struct member *m)
{
    return !m->value.data || slice_is(m, "null");
}

static int check_model(const struct member *m, struct why *why)
{
    if (absent(&m[M_TYPE]) || !slice_is(&m[M_TYPE], "\"BPE\""))
        return err_set(
            why, ERR_UNSUPPORTED, "model of type %.*s",
            (int)(m[M_TYPE].value.len < 64 ? m[M_TYPE].value.len : 64),
            m[M_TYPE].value.data ? m[M_TYPE].value.data : "none");
    for (int i = M_DROPOUT; i <= M_FALLBACK; i++) {
        bool off = absent(&m[i]) || slice_is(&m[i], "\"\"") ||
                   slice_is(&m[i], "false") || slice_is(&m[i], "0.0");
        if (!off && i != M_UNK && i != M_FUSE)
            return err_set(why, ERR_UNSUPPORTED, "BPE with %s", m[i].name);
    }
    if (absent(&m[M_VOCAB]) || absent(&m[M_MERGES]))
        return err_set(why, ERR_FORMAT, "BPE without vocab or merges");
    return 0;
}

struct vocab_sink {
    struct bpe *bpe; /* NULL: only look at the ids */
    uint32_t limit;  /* greatest id + 1 */
};

static int read_vocab(const struct jslice *json, struct vocab_sink *sink,
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
        if (id >= TOKENIZER_MAX_TOKENS)
            rc = err_set(why, ERR_FORMAT, "token id %u", id);
        else if (id >= sink->limit)
            sink->limit = id + 1;
        if (!rc && sink->bpe)
            rc = bpe_add_token(sink->bpe, id, key.data, key.len, BPE_MAPPED,
                               why);
    }
    if (!rc && !jread_end(&r)) rc = bad_json(&r, json->data, why);
    buf_fini(&scratch);
    return rc;
}

static int count_merges(const struct jslice *json, size_t *count,
                        struct why *why)
{
    struct jread r;
    struct jslice element;
    bool first = true;
    *count = 0;
    jread_init(&r, json->data, json->len);
    jread_open(&r, '[');
    while (!r.bad && jread_more(&r, '[', &first) && jread_skip(&r, &element))
        ++*count;
    return jread_end(&r) ? 0 : bad_json(&r, json->data, why);
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

static int unknown_token(struct tokenizer *t, const struct member *m,
                         struct why *why)
{
    json_t *unk;
    int rc = parse_member(&unk, &m[M_UNK], why);
    if (rc || !unk) return rc;
    int32_t id = json_is_string(unk)
                     ? bpe_find_spelled(t->bpe, json_string_value(unk),
                                        json_string_length(unk))
                     : -1;
    json_decref(unk);
    if (id < 0) return err_set(why, ERR_FORMAT, "unk_token is no token");
    if (!absent(&m[M_FUSE]) && slice_is(&m[M_FUSE], "true") &&
        !bpe_covers_utf8(t->bpe))
        return err_set(why, ERR_UNSUPPORTED, "BPE with fuse_unk");
    bpe_set_unknown(t->bpe, id);
    return 0;
}

static int read_model(struct tokenizer *t, const struct member *model,
                      const json_t *added, struct why *why)
{
    struct member m[M_COUNT] = {
        [M_TYPE] = {"type", {0}},
        [M_DROPOUT] = {"dropout", {0}},
        [M_UNK] = {"unk_token", {0}},
        [M_PREFIX] = {"continuing_subword_prefix", {0}},
        [M_SUFFIX] = {"end_of_word_suffix", {0}},
        [M_FUSE] = {"fuse_unk", {0}},
        [M_FALLBACK] = {"byte_fallback", {0}},
        [M_IGNORE] = {"ignore_merges", {0}},
        [M_VOCAB] = {"vocab", {0}},
        [M_MERGES] = {"merges", {0}},
    };
    struct vocab_sink sink = {0};
    size_t merges, bytes = 1, i;
    json_t *item;
    int rc = read_members(model->value.data, model->value.len, m, M_COUNT,
                          "model", why);
    if (!rc) rc = check_model(m, why);
    if (!rc) rc = read_vocab(&m[M_VOCAB].value, &sink, why);
    if (!rc) rc = count_merges(&m[M_MERGES].value, &merges, why);
    if (rc) return rc;
    json_array_foreach (added, i, item) {
        const json_t *id = json_object_get(item, "id");
        json_int_t v = json_integer_value(id);
        if (!json_is_integer(id) || v < 0 ||
            v >= (json_int_t)TOKENIZER_MAX_TOKENS)
            return err_set(why, ERR_FORMAT, "added token %zu: bad id", i);
        if (v >= sink.limit) sink.limit = (uint32_t)v + 1;
        bytes += json_string_length(json_object_get(item, "content"));
    }
    rc = tokenizer_begin(t, sink.limit, bytes + m[M_VOCAB].value.len, merges,
                         why);
    if (rc) return rc;
    sink.bpe = t->bpe;
    bpe_set_ignore_merges(t->bpe, !absent(&m[M_IGNORE]) &&
                                      slice_is(&m[M_IGNORE], "true"));
    rc = read_vocab(&m[M_VOCAB].value, &sink, why);
    if (!rc) rc = read_merges(&m[M_MERGES].value, t->bpe, why);
    return rc ? rc : unknown_token(t, m, why);
}

static int read_added(struct tokenizer *t, const json_t *added, struct why *why)
{
    size_t i;
    json_t *item;
    json_array_foreach (added, i, item) {
        const json_t *content = json_object_get(item, "content");
        if (!json_is_string(content))
            return err_set(why, ERR_FORMAT, "added token %zu: no content", i);
        bool special = flag(item, "special", false);
        struct added_token token = {
            .text = json_string_value(content),
            .len = json_string_length(content),
            .id = (int32_t)json_integer_value(json_object_get(item, "id")),
            .special = special,
            .single_word = flag(item, "single_word", false),
            .lstrip = flag(item, "lstrip", false),
            .rstrip = flag(item, "rstrip", false)};
        int rc = tokenizer_add_added(t, &token,
                                     flag(item, "normalized", !special), why);
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

static int check_around(const struct tokenizer *t,
                        const struct tokenizer_around *around, struct why *why)
{
    for (size_t i = 0; i < around->count; i++)
        if (!bpe_has(t->bpe, around->ids[i]))
            return err_set(why, ERR_FORMAT, "post_processor: token %d is none",
                           (int)around->ids[i]);
    return 0;
}

static int read_sections(struct tokenizer *t, const struct member *m,
                         json_t *tree[T_COUNT], struct why *why)
{
    if (!m[T_MODEL].value.data) return err_set(why, ERR_FORMAT, "no model");
    if (!tree[T_PRE] || !tree[T_DECODER])
        return err_set(why, ERR_UNSUPPORTED, "no %s: not byte-level",
                       tree[T_PRE] ? "decoder" : "pre_tokenizer");
    pretok_create(&t->pretok);
    int rc = each_part(t, tree[T_NORMALIZER], "normalizers", normalizer, why);
    if (!rc)
        rc = each_part(t, tree[T_PRE], "pretokenizers", pre_tokenizer, why);
    if (!rc) rc = each_part(t, tree[T_DECODER], "decoders", decoder, why);
    if (!rc) rc = read_model(t, &m[T_MODEL], tree[T_ADDED], why);
    if (!rc) rc = read_added(t, tree[T_ADDED], why);
    if (!rc) rc = each_part(t, tree[T_POST], "processors", post_processor, why);
    if (!rc) rc = check_around(t, &t->before, why);
    if (!rc) rc = check_around(t, &t->after, why);
    return rc ? rc : tokenizer_finish(t, why);
}

int tokenizer_json_read(struct tokenizer *t, const char *json, size_t n,
                        struct why *why)
{
    struct member m[T_COUNT] = {
        [T_VERSION] = {"version", {0}},
        [T_TRUNCATION] = {"truncation", {0}},
        [T_PADDING] = {"padding", {0}},
        [T_ADDED] = {"added_tokens", {0}},
        [T_NORMALIZER] = {"normalizer", {0}},
        [T_PRE] = {"pre_tokenizer", {0}},
        [T_POST] = {"post_processor", {0}},
        [T_DECODER] = {"decoder", {0}},
        [T_MODEL] = {"model", {0}},
    };
    json_t *tree[T_COUNT] = {0};
    int rc = read_members(json, n, m, T_COUNT, "tokenizer.json", why);
    for (int i = T_ADDED; i <= T_DECODER && !rc; i++)
        rc = parse_member(&tree[i], &m[i], why);
    if (!rc) rc = read_sections(t, m, tree, why);
    for (int i = 0; i < T_COUNT; i++)
        json_decref(tree[i]);
    if (!rc && t->before.count) t->bos = t->before.ids[0];
    return rc;
}

/* tokenizer_config.json. */

enum { C_BOS, C_EOS, C_ADD_BOS, C_ADD_EOS, C_TEMPLATE, C_COUNT };

/* A token's text: a string, or an object with the string as content. */
static int config_token(const struct tokenizer *t, const char *name,
                        const json_t *token, int32_t *id, char **text,
                        struct why *why)
{
    if (json_is_object(token)) token = json_object_get(token, "content");
    const char *content = json_string_value(token);
    if (!content) return 0;
    *id = tokenizer_find(t, content);
    if (*id < 0)
        return err_set(why, ERR_FORMAT, "tokenizer_config: %s %s is no token",
                       name, content);
    *text = mem_dup(content);
    return 0;
}

/* One template, or a list of named ones, of which "default" counts. */
static const char *config_template(const json_t *all)
{
    size_t i;
    json_t *item;
    if (json_is_string(all)) return json_string_value(all);
    json_array_foreach (all, i, item) {
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name && !strcmp(name, "default"))
            return json_string_value(json_object_get(item, "template"));
    }
    return NULL;
}

static void config_around(struct tokenizer *t, const json_t *bos,
                          const json_t *eos)
{
    if (!json_is_boolean(bos) && !json_is_boolean(eos)) return;
    t->before.count = t->after.count = 0;
    if (t->bos >= 0 && json_is_true(bos))
        t->before.ids[t->before.count++] = t->bos;
    if (t->eos >= 0 && json_is_true(eos))
        t->after.ids[t->after.count++] = t->eos;
}

/* Only the members that matter become trees: others may hold numbers beyond
 * any integer, as Llama's model_max_length of 1e30. */
int tokenizer_config_read(struct tokenizer *t, const char *text, size_t n,
                          struct why *why)
{
    struct member m[C_COUNT] = {
        [C_BOS] = {"bos_token", {0}},
        [C_EOS] = {"eos_token", {0}},
        [C_ADD_BOS] = {"add_bos_token", {0}},
        [C_ADD_EOS] = {"add_eos_token", {0}},
        [C_TEMPLATE] = {"chat_template", {0}},
    };
    json_t *tree[C_COUNT] = {0};
    struct why inner = {0};
    int rc = read_members(text, n, m, C_COUNT, NULL, &inner);
    for (int i = 0; i < C_COUNT && !rc; i++)
        rc = parse_member(&tree[i], &m[i], &inner);
    if (rc) err_set(why, rc, "tokenizer_config: %s", inner.text);
    if (!rc)
        rc = config_token(t, "bos_token", tree[C_BOS], &t->bos, &t->bos_text,
                          why);
    if (!rc)
        rc = config_token(t, "eos_token", tree[C_EOS], &t->eos, &t->eos_text,
                          why);
    if (!rc) {
        const char *chat = config_template(tree[C_TEMPLATE]);
        config_around(t, tree[C_ADD_BOS], tree[C_ADD_EOS]);
        if (chat) t->chat_template = mem_dup(chat);
    }
    for (int i = 0; i < C_COUNT; i++)
        json_decref(tree[i]);
    return rc;
}
