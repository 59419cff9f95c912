#include "serve/ask.h"
#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "http/resume.h"
#include "serve/assets.h"
#include "text/grammar.h"
#include "text/tokenizer.h"

#include <string.h>

uint64_t ask_room(uint64_t room, uint32_t sample, uint32_t prompt_count)
{
    return (room + (uint64_t)sample * prompt_count) & INT64_MAX;
}

int ask_create(struct ask **out, const char *body, size_t n, struct why *why)
{
    *out = NULL;
    json_t *root;
    int rc = json_parse(&root, body, n, why);
    if (rc) return rc;
    if (!json_is_object(root)) {
        json_decref(root);
        return err_set(why, ERR_FORMAT, "The request body must be an object.");
    }
    struct ask *ask = mem_must(1, sizeof *ask);
    ask->body = root;
    ask->grammar_open = ask->grammar_after = -1;
    *out = ask;
    return 0;
}

bool ask_first_room(const char *body, size_t n, uint64_t *room)
{
    json_t *root;
    if (json_parse(&root, body, n, NULL)) return false;
    const json_t *v = json_object_get(root, "bootstrap_room");
    if (json_is_array(v)) v = json_array_get(v, 0);
    bool found = json_is_integer(v) && json_integer_value(v) >= 0;
    if (found) *room = (uint64_t)json_integer_value(v);
    json_decref(root);
    return found;
}

static void prompt_fini(struct prompt *prompt)
{
    params_fini(&prompt->params);
    mem_free(prompt->tokens);
    mem_free(prompt->logprob_ids);
    mem_free(prompt->rid);
    grammar_drop(prompt->grammar);
}

void ask_destroy(struct ask *ask)
{
    if (!ask) return;
    for (uint32_t i = 0; i < ask->prompt_count; i++)
        prompt_fini(&ask->prompts[i]);
    mem_free(ask->prompts);
    json_decref(ask->params);
    json_decref(ask->body);
    mem_free(ask);
}

int ask_set_prompts(struct ask *ask, size_t count, struct why *why)
{
    if (count == 0)
        return err_set(why, ERR_INVALID, "The batch holds no prompt.");
    if (count > ASK_MAX_OUTPUTS)
        return err_set(why, ERR_INVALID, "%zu prompts, at most %d are taken.",
                       count, ASK_MAX_OUTPUTS);
    ask->prompts = mem_must(count, sizeof *ask->prompts);
    ask->prompt_count = (uint32_t)count;
    for (size_t i = 0; i < count; i++)
        ask->prompts[i].logprob_start = -1;
    return 0;
}

const json_t *ask_member(const json_t *object, const char *key)
{
    const json_t *v = json_object_get(object, key);
    return json_is_null(v) ? NULL : v;
}

static bool asks_for_nothing(const json_t *v)
{
    return !v || json_is_false(v) ||
           (json_is_string(v) && json_string_length(v) == 0) ||
           (json_is_array(v) && json_array_size(v) == 0) ||
           (json_is_object(v) && json_object_size(v) == 0);
}

int ask_refuse(const json_t *object, const char *const *names, size_t count,
               struct why *why)
{
    for (size_t i = 0; i < count; i++) {
        if (!asks_for_nothing(ask_member(object, names[i])))
            return err_set(why, ERR_UNSUPPORTED,
                           "%s is not supported by this server.", names[i]);
    }
    return 0;
}

int ask_option(const struct ask *ask, const char *key, size_t i,
               const json_t **out, struct why *why)
{
    const json_t *v = ask_member(ask->body, key);
    *out = v;
    if (!v || !ask->batch || !json_is_array(v)) return 0;
    if (json_array_size(v) != ask->prompt_count)
        return err_set(why, ERR_INVALID,
                       "The length of %s should be equal to the batch size: "
                       "%zu, not %u.",
                       key, json_array_size(v), ask->prompt_count);
    *out = json_array_get(v, i);
    if (json_is_null(*out)) *out = NULL;
    return 0;
}

/* --- the prompt's tokens --- */

int ask_encode(const struct ask_env *env, struct prompt *prompt,
               const char *text, size_t n, bool add_special, struct why *why)
{
    struct token_list list = {0};
    int rc = tokenizer_encode(assets_tokenizer(env->assets), text, n,
                              add_special ? TOKENIZER_ADD_SPECIAL : 0, &list);
    if (rc) {
        token_list_fini(&list);
        return err_set(why, rc, "The prompt of %zu bytes cannot be encoded: %s",
                       n, err_text(rc));
    }
    prompt->tokens = list.ids;
    prompt->token_count = (uint32_t)list.count;
    return 0;
}

static int read_ids(const struct ask_env *env, const json_t *ids, int32_t *out,
                    struct why *why)
{
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *v = json_array_get(ids, i);
        if (!json_is_integer(v))
            return err_set(why, ERR_FORMAT,
                           "A prompt of token ids holds whole numbers only.");
        json_int_t id = json_integer_value(v);
        if (id < 0 || id >= env->vocab)
            return err_set(why, ERR_INVALID,
                           "The token id %lld is not in the vocabulary "
                           "[0, %u).",
                           (long long)id, env->vocab);
        out[i] = (int32_t)id;
    }
    return 0;
}

int ask_take_ids(const struct ask_env *env, struct prompt *prompt,
                 const json_t *ids, struct why *why)
{
    size_t count = json_array_size(ids);
    prompt->tokens = mem_try(count + 1, sizeof *prompt->tokens, 0);
    if (!prompt->tokens) return err_set(why, ERR_NOMEM, "%zu ids", count);
    prompt->token_count = (uint32_t)count;
    return read_ids(env, ids, prompt->tokens, why);
}

/* The output of a request that goes on here, behind its prompt. */
static int take_output(const struct ask *ask, const struct ask_env *env,
                       struct why *why)
{
    const json_t *ids = ask_member(ask->body, RESUME_MEMBER);
    if (!ids) return 0;
    struct prompt *prompt = &ask->prompts[0];
    if (!json_is_array(ids))
        return err_set(why, ERR_FORMAT,
                       RESUME_MEMBER " must be a list of ids.");
    if (!ask->stream || ask->batch || prompt->want_logprobs ||
        prompt->logprob_start >= 0)
        return err_set(why, ERR_INVALID,
                       RESUME_MEMBER " needs a stream of one output without "
                                     "logprobs.");
    size_t count = json_array_size(ids);
    if (count > env->context)
        return err_set(why, ERR_INVALID,
                       RESUME_MEMBER " has %zu ids, more than the context of "
                                     "%u.",
                       count, env->context);
    int32_t *tokens =
        mem_try(prompt->token_count + count + 1, sizeof *tokens, 0);
    if (!tokens) return err_set(why, ERR_NOMEM, "%zu ids", count);
    memcpy(tokens, prompt->tokens, prompt->token_count * sizeof *tokens);
    mem_free(prompt->tokens);
    prompt->tokens = tokens;
    prompt->output_count = (uint32_t)count;
    return read_ids(env, ids, tokens + prompt->token_count, why);
}

/* --- what ask_finish checks and fills --- */

/* SGLang's length rules of the tokenizer's side: both halves of a pair refuse
 * in the same way before either works. What the pool can hold is the engine's
 * to say: a prefill's refusal then reaches the decode through the node. */
static int check_length(const struct ask_env *env, struct prompt *prompt,
                        struct why *why)
{
    uint32_t n = prompt->token_count, context = env->context;
    struct params *p = &prompt->params;
    uint64_t total = (uint64_t)n + p->sampling.max_new_tokens;
    if (n == 0) return err_set(why, ERR_INVALID, "The prompt is empty.");
    if (n >= context)
        return err_set(why, ERR_INVALID,
                       "The input (%u tokens) is longer than the model's "
                       "context length (%u tokens).",
                       n, context);
    if (p->length == LENGTH_GIVEN && total >= context)
        return err_set(why, ERR_INVALID,
                       "Requested token count exceeds the model's maximum "
                       "context length of %u tokens. You requested a total of "
                       "%llu tokens: %u tokens from the input messages and %u "
                       "tokens for the completion. Please reduce the number "
                       "of tokens in the input messages or the completion to "
                       "fit within the limit.",
                       context, (unsigned long long)total, n,
                       p->sampling.max_new_tokens);
    uint32_t left = context - n - 1;
    if (p->sampling.max_new_tokens > left) p->sampling.max_new_tokens = left;
    if (p->sampling.min_new_tokens > left) p->sampling.min_new_tokens = left;
    return 0;
}

static char *random_rid(void)
{
    unsigned char bytes[16];
    random_bytes(bytes, sizeof bytes);
    char *rid = mem_must(1, 33);
    for (int i = 0; i < 16; i++)
        snprintf(rid + 2 * i, 3, "%02x", bytes[i]);
    return rid;
}

/* rid: one string (a batch numbers it), a list of strings, or none. */
static int take_rid(struct ask *ask, uint32_t i, struct why *why)
{
    const json_t *v;
    int rc = ask_option(ask, "rid", i, &v, why);
    if (rc) return rc;
    if (v && (!json_is_string(v) ||
              strlen(json_string_value(v)) != json_string_length(v)))
        return err_set(why, ERR_FORMAT, "rid must be a string without NUL.");
    struct prompt *prompt = &ask->prompts[i];
    if (!v || json_string_length(v) == 0) {
        prompt->rid = random_rid();
        prompt->made_rid = true;
        return 0;
    }
    const char *given = json_string_value(v);
    bool shared = ask->batch && json_is_string(ask_member(ask->body, "rid"));
    size_t n = strlen(given) + 16;
    prompt->rid = mem_try(n, 1, 0);
    if (!prompt->rid) return err_set(why, ERR_NOMEM, "rid of %zu bytes", n);
    if (shared)
        snprintf(prompt->rid, n, "%s_%u", given, i);
    else
        snprintf(prompt->rid, n, "%s", given);
    return 0;
}

static int take_port(struct ask *ask, uint32_t i, struct why *why)
{
    const json_t *v;
    int rc = ask_option(ask, "bootstrap_port", i, &v, why);
    if (rc || !v) return rc;
    json_int_t port = json_integer_value(v);
    if (!json_is_integer(v) || port < 0 || port > 65535)
        return err_set(why, ERR_FORMAT,
                       "bootstrap_port must be a port number or null.");
    ask->prompts[i].meeting.port = (uint16_t)port;
    return 0;
}

/* One room for a batch counts up; a list names each prompt's own. */
static int take_room(struct ask *ask, uint32_t i, struct why *why)
{
    const json_t *v;
    int rc = ask_option(ask, "bootstrap_room", i, &v, why);
    if (rc) return rc;
    struct prompt *prompt = &ask->prompts[i];
    if (!v)
        return err_set(why, ERR_INVALID,
                       "Invalid request: Disaggregated request received "
                       "without boostrap room id. req.rid='%.200s'",
                       prompt->rid);
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return err_set(why, ERR_FORMAT,
                       "bootstrap_room must be a whole number in [0, 2^63).");
    bool shared = !json_is_array(ask_member(ask->body, "bootstrap_room"));
    uint64_t room = (uint64_t)json_integer_value(v);
    prompt->meeting.has_room = true;
    prompt->meeting.room = (room + (shared ? i : 0)) & INT64_MAX;
    return 0;
}

static int take_host(struct ask *ask, const struct ask_env *env, uint32_t i,
                     struct why *why)
{
    const json_t *v;
    int rc = ask_option(ask, "bootstrap_host", i, &v, why);
    if (rc) return rc;
    if (v && !json_is_string(v))
        return err_set(why, ERR_FORMAT, "bootstrap_host must be a string.");
    struct prompt *prompt = &ask->prompts[i];
    prompt->meeting.host = json_string_value(v);
    /* The prefill side answers whoever comes for the room. */
    if (!v && env->mode == PD_PREFILL) prompt->meeting.host = "";
    if (!prompt->meeting.host)
        return err_set(why, ERR_INVALID,
                       "A decode server needs bootstrap_host: the prefill "
                       "server's address. req.rid='%.200s'",
                       prompt->rid);
    return 0;
}

static int take_meeting(struct ask *ask, const struct ask_env *env, uint32_t i,
                        struct why *why)
{
    if (env->mode == PD_NULL) return 0;
    int rc = take_port(ask, i, why);
    if (!rc) rc = take_room(ask, i, why);
    if (!rc) rc = take_host(ask, env, i, why);
    return rc;
}

/* cache_salt and extra_key name a private part of the prefix cache. */
static int take_cache_key(struct ask *ask, uint32_t i, struct why *why)
{
    static const char *const names[] = {"cache_salt", "extra_key"};
    uint64_t key = 0;
    for (size_t k = 0; k < 2; k++) {
        const json_t *v;
        int rc = ask_option(ask, names[k], i, &v, why);
        if (rc) return rc;
        if (!v) continue;
        if (!json_is_string(v))
            return err_set(why, ERR_FORMAT, "%s must be a string.", names[k]);
        if (json_string_length(v) == 0) continue;
        key = hash_bytes(json_string_value(v), json_string_length(v), key);
    }
    ask->prompts[i].cache_key = key;
    return 0;
}

static int check_samples(struct ask *ask, struct why *why)
{
    ask->sample_count = ask->prompts[0].params.n;
    for (uint32_t i = 1; i < ask->prompt_count; i++) {
        if (ask->prompts[i].params.n != ask->sample_count)
            return err_set(why, ERR_INVALID,
                           "The parallel_sample_num should be the same for all "
                           "samples in sample params.");
    }
    uint64_t outputs = (uint64_t)ask->prompt_count * ask->sample_count;
    if (outputs > ASK_MAX_OUTPUTS)
        return err_set(why, ERR_INVALID,
                       "%llu outputs asked for, at most %d are given.",
                       (unsigned long long)outputs, ASK_MAX_OUTPUTS);
    if (ask->sample_count > 1) ask->batch = true;
    return 0;
}

static int take_grammar(const struct ask_env *env, struct prompt *prompt,
                        struct why *why)
{
    const struct params *p = &prompt->params;
    const struct {
        const char *text;
        enum grammar_kind kind;
    } forms[] = {{p->json_schema, GRAMMAR_JSON_SCHEMA},
                 {p->regex, GRAMMAR_REGEX},
                 {p->ebnf, GRAMMAR_EBNF},
                 {p->structural_tag, GRAMMAR_STRUCTURE}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (!forms[i].text) continue;
        if (!env->grammars)
            return err_set(why, ERR_UNSUPPORTED,
                           "A form of the output needs a tokenizer.");
        return grammars_get(env->grammars, forms[i].kind, forms[i].text,
                            strlen(forms[i].text), &prompt->grammar, why);
    }
    return 0;
}

int ask_finish(struct ask *ask, const struct ask_env *env, struct why *why)
{
    int rc = 0;
    for (uint32_t i = 0; !rc && i < ask->prompt_count; i++) {
        rc = check_length(env, &ask->prompts[i], why);
        if (!rc) rc = take_rid(ask, i, why);
        if (!rc) rc = take_meeting(ask, env, i, why);
        if (!rc) rc = take_cache_key(ask, i, why);
        if (!rc) rc = take_grammar(env, &ask->prompts[i], why);
    }
    if (!rc) rc = check_samples(ask, why);
    if (!rc) rc = take_output(ask, env, why);
    return rc;
}
