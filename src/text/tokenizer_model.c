/* tokenizer.model, for folders without a tokenizer.json: SentencePiece's file,
 * with what tokenizer_config.json and added_tokens.json add to it. */
#include "base/mem.h"
#include "text/spm.h"
#include "text/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

enum {
    C_CLASS,
    C_LEGACY,
    C_PREFIX,
    C_ADDED,
    C_EXTRA, /* older and newer name */
    C_MORE,
    C_COUNT
};

/* What the files beside the model say; texts lie in the trees. */
struct beside {
    json_t *config[C_COUNT], *added_file;
    struct added_token *added;
    size_t count;
};

static void beside_fini(struct beside *b)
{
    for (int i = 0; i < C_COUNT; i++)
        json_decref(b->config[i]);
    json_decref(b->added_file);
    mem_free(b->added);
}

static int read_trees(struct beside *b, const struct tokenizer_text *config,
                      const struct tokenizer_text *added, struct why *why)
{
    struct tokenizer_member m[C_COUNT] = {
        [C_CLASS] = {.name = "tokenizer_class"},
        [C_LEGACY] = {.name = "legacy"},
        [C_PREFIX] = {.name = "add_prefix_space"},
        [C_ADDED] = {.name = "added_tokens_decoder"},
        [C_EXTRA] = {.name = "additional_special_tokens"},
        [C_MORE] = {.name = "extra_special_tokens"},
    };
    struct why inner = {0};
    int rc = 0;
    if (config->data)
        rc = tokenizer_members(config->data, config->len, m, C_COUNT, NULL,
                               &inner);
    for (int i = 0; i < C_COUNT && !rc; i++)
        rc = tokenizer_member_tree(&b->config[i], &m[i], &inner);
    if (rc) return err_set(why, rc, "tokenizer_config: %s", inner.text);
    if (added->data && !b->config[C_ADDED])
        rc = json_parse(&b->added_file, added->data, added->len, &inner);
    return rc ? err_set(why, rc, "added_tokens: %s", inner.text) : 0;
}

static bool flag(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

static int by_id(const void *a, const void *b)
{
    const struct added_token *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static bool names(const json_t *list, const char *text)
{
    size_t i;
    json_t *item;
    json_array_foreach (list, i, item) {
        const json_t *content =
            json_is_object(item) ? json_object_get(item, "content") : item;
        const char *name = json_string_value(content);
        if (name && !strcmp(name, text)) return true;
    }
    return false;
}

/* {"32000": {"content": "<pad>", "special": true, ...}, ...} */
static int add_described(struct beside *b, const char *key, const json_t *value,
                         struct why *why)
{
    char *end;
    const json_t *content = json_object_get(value, "content");
    unsigned long id = strtoul(key, &end, 10);
    if (*end || end == key || *key < '0' || *key > '9' ||
        id >= TOKENIZER_MAX_TOKENS || !json_string_length(content))
        return err_set(why, ERR_FORMAT,
                       "tokenizer_config: added token \"%.64s\"", key);
    b->added[b->count++] =
        (struct added_token){.text = json_string_value(content),
                             .len = json_string_length(content),
                             .id = (int32_t)id,
                             .special = flag(value, "special"),
                             .single_word = flag(value, "single_word"),
                             .lstrip = flag(value, "lstrip"),
                             .rstrip = flag(value, "rstrip")};
    return 0;
}

/* {"<pad>": 32000, ...} */
static int add_named(struct beside *b, const char *key, const json_t *value,
                     struct why *why)
{
    json_int_t id = json_integer_value(value);
    if (!json_is_integer(value) || id < 0 ||
        id >= (json_int_t)TOKENIZER_MAX_TOKENS || !*key)
        return err_set(why, ERR_FORMAT, "added_tokens: token \"%.64s\"", key);
    b->added[b->count++] =
        (struct added_token){.text = key,
                             .len = strlen(key),
                             .id = (int32_t)id,
                             .special = names(b->config[C_EXTRA], key) ||
                                        names(b->config[C_MORE], key)};
    return 0;
}

/* Sorted, and no id left out behind the model's: transformers would move those
 * after it. */
static int check_ids(struct beside *b, size_t pieces, struct why *why)
{
    if (b->count) qsort(b->added, b->count, sizeof *b->added, by_id);
    size_t expected = pieces;
    for (size_t i = 0; i < b->count; i++) {
        size_t id = (size_t)b->added[i].id;
        if (id < pieces) continue;
        if (id != expected++)
            return err_set(why, ERR_UNSUPPORTED,
                           "added token %zu where %zu would be next", id,
                           expected - 1);
    }
    return 0;
}

static int read_added(struct beside *b, size_t pieces, struct why *why)
{
    bool described = b->config[C_ADDED] != NULL;
    json_t *all = described ? b->config[C_ADDED] : b->added_file, *value;
    const char *key;
    int rc = 0;
    if (!all) return 0;
    if (!json_is_object(all))
        return err_set(why, ERR_FORMAT, "added tokens that are no object");
    b->added = mem_try(json_object_size(all) + 1, sizeof *b->added, 0);
    if (!b->added) return err_set(why, ERR_NOMEM, "added tokens");
    json_object_foreach (all, key, value) {
        rc = described ? add_described(b, key, value, why)
                       : add_named(b, key, value, why);
        if (rc) return rc;
    }
    return check_ids(b, pieces, why);
}

/* A list of special tokens has no ids: they must be known by now. */
static int check_extra(const struct tokenizer *t, const json_t *list,
                       struct why *why)
{
    size_t i;
    json_t *item;
    json_array_foreach (list, i, item) {
        const json_t *content =
            json_is_object(item) ? json_object_get(item, "content") : item;
        const char *name = json_string_value(content);
        int32_t id = name ? tokenizer_find(t, name) : -1;
        if (!name || !tokenizer_is_added(t, id))
            return err_set(why, ERR_UNSUPPORTED,
                           "tokenizer_config: special token \"%.64s\" has no "
                           "id in added_tokens_decoder",
                           name ? name : "");
    }
    return 0;
}

/* The class that says to transformers which rules to follow. Where it does not
 * name Llama's, the model's own rules hold (transformers 5 would leave out the
 * space in front, which no model was trained without). */
static enum tokenizer_rules rules_of(const struct beside *b,
                                     const struct spm *m)
{
    const char *class = json_string_value(b->config[C_CLASS]);
    bool llama = class && (!strcmp(class, "LlamaTokenizer") ||
                           !strcmp(class, "LlamaTokenizerFast"));
    if (!llama || m->unigram) return TOKENIZER_RULES_SENTENCEPIECE;
    return json_is_true(b->config[C_LEGACY]) ? TOKENIZER_RULES_LLAMA_LEGACY
                                             : TOKENIZER_RULES_LLAMA;
}

static int make(struct tokenizer **out, const struct spm *m,
                const struct beside *b, struct why *why)
{
    enum tokenizer_rules rules = rules_of(b, m);
    bool own = rules == TOKENIZER_RULES_SENTENCEPIECE;
    struct tokenizer_spec spec = {.model = m->unigram ? "t5" : "llama",
                                  .tokens = m->pieces,
                                  .token_count = m->count,
                                  .types = m->types,
                                  .scores = m->scores,
                                  .bos = m->bos,
                                  .eos = m->eos,
                                  .eot = -1,
                                  .unk = m->unk,
                                  .add_space_prefix =
                                      own ? m->dummy_prefix
                                          : !json_is_false(b->config[C_PREFIX]),
                                  .squeeze_spaces = own && m->squeeze,
                                  .rules = rules,
                                  .charsmap = m->charsmap,
                                  .added = b->added,
                                  .added_count = b->count};
    int rc = tokenizer_create(out, &spec, why);
    if (!rc) rc = check_extra(*out, b->config[C_EXTRA], why);
    if (!rc) rc = check_extra(*out, b->config[C_MORE], why);
    return rc;
}

int tokenizer_parse_model(struct tokenizer **out,
                          const struct tokenizer_text *model,
                          const struct tokenizer_texts *beside, struct why *why)
{
    struct spm m = {0};
    struct beside b = {0};
    struct tokenizer *t = NULL;
    int rc = spm_read(&m, model->data, model->len, why);
    if (!rc) rc = read_trees(&b, &beside->config, &beside->added, why);
    if (!rc) rc = read_added(&b, m.count, why);
    if (!rc) rc = make(&t, &m, &b, why);
    if (!rc) rc = tokenizer_config_read(t, beside, why);
    spm_fini(&m);
    beside_fini(&b);
    if (rc)
        tokenizer_destroy(t);
    else
        *out = t;
    return rc;
}
