/* tokenizer_config.json and special_tokens_map.json: special tokens, the chat
 * template. Which of the files counts: transformers 5
 * (tokenization_utils_base). Only the members that matter become trees: others
 * may hold numbers beyond any integer, as Llama's model_max_length of 1e30. */
#include "base/mem.h"
#include "text/tokenizer_impl.h"

#include <string.h>

enum {
    C_ADD_BOS = TOKENIZER_NAMED, /* behind the tokens */
    C_ADD_EOS,
    C_TEMPLATE,
    C_COUNT
};

/* A token's text: a string, or an object with the string as content. Of bos and
 * eos the id is wanted, too. */
static int named_token(struct tokenizer *t, int which, const json_t *token,
                       struct why *why)
{
    if (json_is_object(token)) token = json_object_get(token, "content");
    const char *content = json_string_value(token);
    if (!content) return 0;
    int32_t *id = which == TOKENIZER_BOS   ? &t->bos
                  : which == TOKENIZER_EOS ? &t->eos
                                           : NULL;
    if (id) *id = tokenizer_find(t, content);
    if (id && *id < 0)
        return err_set(why, ERR_FORMAT, "tokenizer_config: %s %s is no token",
                       tokenizer_name((enum tokenizer_named)which), content);
    mem_free(t->named[which]);
    t->named[which] = mem_dup(content);
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

static void named_members(struct tokenizer_member *m)
{
    for (int i = 0; i < TOKENIZER_NAMED; i++)
        m[i].name = tokenizer_name((enum tokenizer_named)i);
}

/* The members of config into trees; *described: it has its added tokens. */
static int read_config(json_t **tree, const struct tokenizer_text *config,
                       bool *described, struct why *why)
{
    enum { M_ADDED = C_COUNT, M_COUNT };
    struct tokenizer_member m[M_COUNT] = {
        [C_ADD_BOS] = {.name = "add_bos_token"},
        [C_ADD_EOS] = {.name = "add_eos_token"},
        [C_TEMPLATE] = {.name = "chat_template"},
        [M_ADDED] = {.name = "added_tokens_decoder"},
    };
    struct why inner = {0};
    named_members(m);
    int rc =
        tokenizer_members(config->data, config->len, m, M_COUNT, NULL, &inner);
    for (int i = 0; i < C_COUNT && !rc; i++)
        rc = tokenizer_member_tree(&tree[i], &m[i], &inner);
    *described = m[M_ADDED].value.data;
    return rc ? err_set(why, rc, "tokenizer_config: %s", inner.text) : 0;
}

/* What it has takes the place of config's, null too. */
static int read_names(json_t **tree, const struct tokenizer_text *names,
                      struct why *why)
{
    struct tokenizer_member m[TOKENIZER_NAMED] = {{0}};
    struct why inner = {0};
    named_members(m);
    int rc = tokenizer_members(names->data, names->len, m, TOKENIZER_NAMED,
                               NULL, &inner);
    for (int i = 0; i < TOKENIZER_NAMED && !rc; i++) {
        if (!m[i].value.data) continue;
        json_decref(tree[i]);
        tree[i] = NULL;
        rc = tokenizer_member_tree(&tree[i], &m[i], &inner);
    }
    return rc ? err_set(why, rc, "special_tokens_map: %s", inner.text) : 0;
}

int tokenizer_config_read(struct tokenizer *t,
                          const struct tokenizer_texts *beside, struct why *why)
{
    json_t *tree[C_COUNT] = {0};
    bool described = false;
    int rc = 0;
    if (beside->config.data)
        rc = read_config(tree, &beside->config, &described, why);
    if (!rc && beside->names.data && !described)
        rc = read_names(tree, &beside->names, why);
    for (int i = 0; i < TOKENIZER_NAMED && !rc; i++)
        rc = named_token(t, i, tree[i], why);
    if (!rc) {
        const char *chat = config_template(tree[C_TEMPLATE]);
        config_around(t, tree[C_ADD_BOS], tree[C_ADD_EOS]);
        if (chat) t->chat_template = mem_dup(chat);
    }
    for (int i = 0; i < C_COUNT; i++)
        json_decref(tree[i]);
    return rc;
}
