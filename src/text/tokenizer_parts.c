/* The small sections of tokenizer.json: normalizer, pre_tokenizer, decoder,
 * post_processor. What is not known to be done exactly is refused by name. */
#include "base/mem.h"
#include "text/tokenizer_impl.h"

#include <string.h>

static const char *type_of(const json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));
    return type ? type : "(no type)";
}

static bool is_type(const json_t *object, const char *type)
{
    return !strcmp(type_of(object), type);
}

bool tokenizer_flag(const json_t *object, const char *key, bool fallback)
{
    const json_t *value = json_object_get(object, key);
    return json_is_boolean(value) ? json_is_true(value) : fallback;
}

/* A member that must be text; "" and an error otherwise. */
static int text_of(const json_t *part, const char *key, const char **text,
                   size_t *n, struct why *why)
{
    const json_t *value = json_object_get(part, key);
    *text = json_is_string(value) ? json_string_value(value) : "";
    *n = json_string_length(value);
    if (json_is_string(value)) return 0;
    return err_set(why, ERR_FORMAT, "%s without %s", type_of(part), key);
}

/* A "pattern": {"String": text} or {"Regex": text}. */
static int pattern_of(const json_t *part, const char **text, size_t *n,
                      bool *is_regex, struct why *why)
{
    const json_t *pattern = json_object_get(part, "pattern");
    *is_regex = json_object_get(pattern, "Regex") != NULL;
    if (*is_regex) return text_of(pattern, "Regex", text, n, why);
    if (!json_object_get(pattern, "String"))
        return err_set(why, ERR_FORMAT, "%s without a pattern", type_of(part));
    return text_of(pattern, "String", text, n, why);
}

struct reader {
    struct tokenizer *t;
    enum lexicon_kind kind;
    int stage; /* of a decoder: how far it has come */
};

typedef int read_part(struct reader *r, const json_t *part, struct why *why);

/* Calls each on every part of Sequences, or on the one part that it is. */
static int each_part(struct reader *r, const json_t *part, const char *list,
                     int depth, read_part *each, struct why *why)
{
    if (!part) return 0;
    if (!is_type(part, "Sequence")) return each(r, part, why);
    const json_t *parts = json_object_get(part, list);
    if (!json_is_array(parts))
        return err_set(why, ERR_FORMAT, "Sequence without %s", list);
    if (depth > 4) return err_set(why, ERR_UNSUPPORTED, "Sequences too deep");
    int rc = 0;
    for (size_t i = 0; i < json_array_size(parts) && !rc; i++)
        rc = each_part(r, json_array_get(parts, i), list, depth + 1, each, why);
    return rc;
}

/* Normalizers. */

static int replace(struct normal *n, const json_t *part, struct why *why)
{
    const char *from, *to;
    size_t from_len, to_len;
    bool regex;
    int rc = pattern_of(part, &from, &from_len, &regex, why);
    if (!rc) rc = text_of(part, "content", &to, &to_len, why);
    if (rc) return rc;
    return normal_add_replace(n, from, from_len, regex, to, to_len, why);
}

static int prepend(struct normal *n, const json_t *part, struct why *why)
{
    const char *text;
    size_t len;
    int rc = text_of(part, "prepend", &text, &len, why);
    return rc ? rc : normal_add_prepend(n, text, len, why);
}

static int precompiled(struct normal *n, const json_t *part, struct why *why)
{
    const char *text;
    size_t len;
    struct charsmap *map;
    int rc = text_of(part, "precompiled_charsmap", &text, &len, why);
    if (!rc) rc = charsmap_create_base64(&map, text, len, why);
    return rc ? rc : normal_add_precompiled(n, map, why);
}

static int normalizer(struct reader *r, const json_t *part, struct why *why)
{
    static const char *const forms[] = {"NFC", "NFD", "NFKC", "NFKD"};
    struct normal *n = r->t->normal;
    for (int i = 0; i < 4; i++)
        if (is_type(part, forms[i]))
            return normal_add_form(n, (enum unicode_form)i, why);
    if (is_type(part, "Lowercase")) return normal_add_lower(n, why);
    if (is_type(part, "Replace")) return replace(n, part, why);
    if (is_type(part, "Prepend")) return prepend(n, part, why);
    if (is_type(part, "Precompiled")) return precompiled(n, part, why);
    if (is_type(part, "Strip"))
        return normal_add_strip(n, tokenizer_flag(part, "strip_left", true),
                                tokenizer_flag(part, "strip_right", true), why);
    return err_set(why, ERR_UNSUPPORTED, "normalizer %s", type_of(part));
}

int tokenizer_read_normalizer(struct tokenizer *t, const json_t *section,
                              struct why *why)
{
    struct reader r = {.t = t};
    return each_part(&r, section, "normalizers", 0, normalizer, why);
}

/* Pre-tokenizers. */

static int behavior_of(const json_t *part, enum pretok_behavior *out,
                       struct why *why)
{
    static const char *const names[] = {
        [PRETOK_ISOLATED] = "Isolated",
        [PRETOK_REMOVED] = "Removed",
        [PRETOK_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
        [PRETOK_MERGED_WITH_NEXT] = "MergedWithNext",
        [PRETOK_CONTIGUOUS] = "Contiguous"};
    const char *name = json_string_value(json_object_get(part, "behavior"));
    for (int i = 0; name && i <= PRETOK_CONTIGUOUS; i++) {
        *out = (enum pretok_behavior)i;
        if (!strcmp(name, names[i])) return 0;
    }
    return err_set(why, ERR_UNSUPPORTED, "%s with behavior %s", type_of(part),
                   name ? name : "missing");
}

static int byte_level(struct reader *r, const json_t *part, struct why *why)
{
    struct pretok *p = r->t->pretok;
    int rc = 0;
    r->kind = LEXICON_BYTES;
    if (tokenizer_flag(part, "add_prefix_space", true))
        rc = pretok_add_prefix_space(p, why);
    if (!rc && tokenizer_flag(part, "use_regex", true))
        rc = pretok_add(p, PRETOK_GPT2, why);
    return rc;
}

static int split(struct pretok *p, const json_t *part, struct why *why)
{
    struct pretok_split how = {.invert = tokenizer_flag(part, "invert", false)};
    int rc = pattern_of(part, &how.pattern, &how.len, &how.is_regex, why);
    if (!rc) rc = behavior_of(part, &how.behavior, why);
    return rc ? rc : pretok_add_split(p, &how, why);
}

static int punctuation(struct pretok *p, const json_t *part, struct why *why)
{
    enum pretok_behavior behavior = PRETOK_ISOLATED;
    int rc = json_object_get(part, "behavior")
                 ? behavior_of(part, &behavior, why)
                 : 0;
    return rc ? rc : pretok_add_punct(p, behavior, why);
}

static int delimiter(struct pretok *p, const json_t *part, struct why *why)
{
    struct pretok_split how = {.behavior = PRETOK_REMOVED};
    int rc = text_of(part, "delimiter", &how.pattern, &how.len, why);
    return rc ? rc : pretok_add_split(p, &how, why);
}

static int metaspace(struct pretok *p, const json_t *part, struct why *why)
{
    static const char *const schemes[] = {[PRETOK_ALWAYS] = "always",
                                          [PRETOK_FIRST] = "first",
                                          [PRETOK_NEVER] = "never"};
    const char *mark, *scheme;
    size_t len;
    enum pretok_prepend prepend = tokenizer_flag(part, "add_prefix_space", true)
                                      ? PRETOK_ALWAYS
                                      : PRETOK_NEVER;
    scheme = json_string_value(json_object_get(part, "prepend_scheme"));
    for (int i = 0; scheme && i <= PRETOK_NEVER; i++)
        if (!strcmp(scheme, schemes[i])) prepend = (enum pretok_prepend)i;
    if (scheme && strcmp(scheme, schemes[prepend]) != 0)
        return err_set(why, ERR_UNSUPPORTED, "Metaspace with prepend_scheme %s",
                       scheme);
    int rc = text_of(part, "replacement", &mark, &len, why);
    if (!rc && len == 0)
        rc = err_set(why, ERR_FORMAT, "Metaspace without replacement");
    if (rc) return rc;
    return pretok_add_metaspace(p, mark, len, prepend,
                                tokenizer_flag(part, "split", true), why);
}

static int pre_tokenizer(struct reader *r, const json_t *part, struct why *why)
{
    struct pretok *p = r->t->pretok;
    if (r->kind == LEXICON_BYTES) /* its letters stand for bytes from here on */
        return err_set(why, ERR_UNSUPPORTED, "pre_tokenizer %s after ByteLevel",
                       type_of(part));
    if (is_type(part, "ByteLevel")) return byte_level(r, part, why);
    if (is_type(part, "Split")) return split(p, part, why);
    if (is_type(part, "Metaspace")) return metaspace(p, part, why);
    if (is_type(part, "Punctuation")) return punctuation(p, part, why);
    if (is_type(part, "Whitespace")) return pretok_add_words(p, why);
    if (is_type(part, "WhitespaceSplit"))
        return pretok_add_whitespace_split(p, why);
    if (is_type(part, "CharDelimiterSplit")) return delimiter(p, part, why);
    if (is_type(part, "Digits"))
        return pretok_add_digits(
            p, tokenizer_flag(part, "individual_digits", false), why);
    return err_set(why, ERR_UNSUPPORTED, "pre_tokenizer %s", type_of(part));
}

int tokenizer_read_pre_tokenizer(struct tokenizer *t, const json_t *section,
                                 enum lexicon_kind *kind, struct why *why)
{
    struct reader r = {.t = t, .kind = LEXICON_TEXT};
    int rc = each_part(&r, section, "pretokenizers", 0, pre_tokenizer, why);
    *kind = r.kind;
    return rc;
}

/* Decoders. Each token's text is changed first, then bytes become characters,
 * then all is one text whose start is cut. */

enum { D_TOKENS, D_BYTES, D_FUSED, D_CUT };

/* The parts have an order, each at most once. */
static int reach(struct reader *r, const json_t *part, int from, int to,
                 struct why *why)
{
    if (r->stage > from || r->kind == LEXICON_BYTES)
        return err_set(why, ERR_UNSUPPORTED, "decoder %s at that place",
                       type_of(part));
    r->stage = to;
    return 0;
}

static int decoder_replace(struct reader *r, const char *from, size_t from_len,
                           const char *to, size_t to_len, struct why *why)
{
    struct tokenizer_decoder *d = &r->t->decoder;
    if (d->replace || !from_len || strlen(from) != from_len ||
        strlen(to) != to_len)
        return err_set(why, ERR_UNSUPPORTED, "decoder Replace of that kind");
    d->replace = mem_dup(from);
    d->with = mem_dup(to);
    return 0;
}

static int decode_replace(struct reader *r, const json_t *part, struct why *why)
{
    const char *from, *to;
    size_t from_len, to_len;
    bool regex;
    int rc = reach(r, part, D_TOKENS, D_TOKENS, why);
    if (!rc) rc = pattern_of(part, &from, &from_len, &regex, why);
    if (!rc && regex)
        rc = err_set(why, ERR_UNSUPPORTED, "decoder Replace of a Regex");
    if (!rc) rc = text_of(part, "content", &to, &to_len, why);
    return rc ? rc : decoder_replace(r, from, from_len, to, to_len, why);
}

static int decode_metaspace(struct reader *r, const json_t *part,
                            struct why *why)
{
    const char *mark, *scheme;
    size_t len;
    int rc = reach(r, part, D_TOKENS, D_TOKENS, why);
    if (!rc) rc = text_of(part, "replacement", &mark, &len, why);
    if (!rc) rc = decoder_replace(r, mark, len, " ", 1, why);
    scheme = json_string_value(json_object_get(part, "prepend_scheme"));
    r->t->decoder.drop_marks =
        scheme ? strcmp(scheme, "never") != 0
               : tokenizer_flag(part, "add_prefix_space", true);
    return rc;
}

static int decode_strip(struct reader *r, const json_t *part, struct why *why)
{
    struct tokenizer_decoder *d = &r->t->decoder;
    const char *content;
    size_t n;
    json_int_t start = json_integer_value(json_object_get(part, "start"));
    int rc = text_of(part, "content", &content, &n, why);
    if (!rc && r->stage != D_FUSED)
        rc = err_set(why, ERR_UNSUPPORTED, "decoder Strip without Fuse");
    if (!rc) rc = reach(r, part, D_FUSED, D_CUT, why);
    if (rc) return rc;
    if (json_integer_value(json_object_get(part, "stop")) || start < 0 ||
        n == 0 || n >= sizeof d->strip ||
        n != utf8_len((unsigned char)*content))
        return err_set(why, ERR_UNSUPPORTED, "decoder Strip of that kind");
    memcpy(d->strip, content, n);
    d->strip_count = (size_t)start;
    return 0;
}

static int decoder(struct reader *r, const json_t *part, struct why *why)
{
    if (is_type(part, "ByteLevel")) {
        if (r->kind == LEXICON_BYTES) return 0;
        return err_set(why, ERR_UNSUPPORTED,
                       "decoder ByteLevel without its pre_tokenizer");
    }
    if (is_type(part, "Replace")) return decode_replace(r, part, why);
    if (is_type(part, "Metaspace")) return decode_metaspace(r, part, why);
    if (is_type(part, "Strip")) return decode_strip(r, part, why);
    if (is_type(part, "Fuse")) return reach(r, part, D_BYTES, D_FUSED, why);
    if (!is_type(part, "ByteFallback"))
        return err_set(why, ERR_UNSUPPORTED, "decoder %s", type_of(part));
    r->t->decoder.byte_fallback = true;
    return reach(r, part, D_TOKENS, D_BYTES, why);
}

int tokenizer_read_decoder(struct tokenizer *t, const json_t *section,
                           enum lexicon_kind kind, struct why *why)
{
    struct reader r = {.t = t, .kind = kind};
    if (!section) return err_set(why, ERR_UNSUPPORTED, "no decoder");
    return each_part(&r, section, "decoders", 0, decoder, why);
}

/* Post-processors. */

static int add_around(const struct tokenizer *t,
                      struct tokenizer_around *around, const json_t *id,
                      const char *name, struct why *why)
{
    json_int_t v = json_integer_value(id);
    if (!json_is_integer(id) || v < 0 || v > INT32_MAX ||
        !lexicon_has(t->lexicon, (int32_t)v))
        return err_set(why, ERR_FORMAT, "post_processor: %s is no token", name);
    if (around->count == TOKENIZER_MAX_AROUND)
        return err_set(why, ERR_UNSUPPORTED,
                       "post_processor with more than %d tokens",
                       TOKENIZER_MAX_AROUND);
    around->ids[around->count++] = (int32_t)v;
    return 0;
}

static int add_named(const struct tokenizer *t, struct tokenizer_around *around,
                     const json_t *processor, const char *name, struct why *why)
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
        int rc = add_around(t, around, id, name, why);
        if (rc) return rc;
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
        int rc = add_named(t, text_seen ? &t->after : &t->before, part,
                           name ? name : "", why);
        if (rc) return rc;
    }
    if (!text_seen)
        return err_set(why, ERR_FORMAT, "TemplateProcessing without a text");
    return 0;
}

/* cls text sep, each as ["text", id]. */
static int bert_processing(struct tokenizer *t, const json_t *part,
                           struct why *why)
{
    int rc =
        add_around(t, &t->before,
                   json_array_get(json_object_get(part, "cls"), 1), "cls", why);
    return rc ? rc
              : add_around(t, &t->after,
                           json_array_get(json_object_get(part, "sep"), 1),
                           "sep", why);
}

static int post_processor(struct reader *r, const json_t *part, struct why *why)
{
    if (is_type(part, "ByteLevel")) return 0; /* only moves offsets */
    if (is_type(part, "TemplateProcessing"))
        return template_processing(r->t, part, why);
    if (is_type(part, "BertProcessing") || is_type(part, "RobertaProcessing"))
        return bert_processing(r->t, part, why);
    return err_set(why, ERR_UNSUPPORTED, "post_processor %s", type_of(part));
}

int tokenizer_read_post_processor(struct tokenizer *t, const json_t *section,
                                  struct why *why)
{
    struct reader r = {.t = t};
    return each_part(&r, section, "processors", 0, post_processor, why);
}
