/* tokenizer_config.json: bos, eos, the chat template. Only the members that
 * matter become trees: others may hold numbers beyond any integer, as Llama's
 * model_max_length of 1e30. */
#include "base/mem.h"
#include "text/tokenizer_impl.h"

#include <string.h>

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
    mem_free(*text);
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

int tokenizer_config_read(struct tokenizer *t, const char *text, size_t n,
                          struct why *why)
{
    struct tokenizer_member m[C_COUNT] = {
        [C_BOS] = {.name = "bos_token"},
        [C_EOS] = {.name = "eos_token"},
        [C_ADD_BOS] = {.name = "add_bos_token"},
        [C_ADD_EOS] = {.name = "add_eos_token"},
        [C_TEMPLATE] = {.name = "chat_template"},
    };
    json_t *tree[C_COUNT] = {0};
    struct why inner = {0};
    int rc = tokenizer_members(text, n, m, C_COUNT, NULL, &inner);
    for (int i = 0; i < C_COUNT && !rc; i++)
        rc = tokenizer_member_tree(&tree[i], &m[i], &inner);
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
