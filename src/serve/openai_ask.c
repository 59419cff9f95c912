/* The bodies of /v1/completions, and what /v1/chat/completions shares with
 * them. Fields: docs/api.md;
 * source: the OpenAI API reference and SGLang's entrypoints/openai/protocol.py.
 *
 * Sampling parameters are renamed into one object and read by params_parse. */
#include "serve/openai.h"
#include "base/buf.h"
#include "base/mem.h"
#include "serve/assets.h"

#include <stdlib.h>
#include <string.h>

static const struct rename {
    const char *from, *to;
} renames[] = {
    {"max_completion_tokens", "max_new_tokens"},
    {"max_tokens", "max_new_tokens"}, /* this one wins, as in SGLang */
    {"min_tokens", "min_new_tokens"},
    {"temperature", "temperature"},
    {"top_p", "top_p"},
    {"top_k", "top_k"},
    {"min_p", "min_p"},
    {"frequency_penalty", "frequency_penalty"},
    {"presence_penalty", "presence_penalty"},
    {"repetition_penalty", "repetition_penalty"},
    {"stop", "stop"},
    {"stop_token_ids", "stop_token_ids"},
    {"stop_regex", "stop_regex"},
    {"ignore_eos", "ignore_eos"},
    {"n", "n"},
    {"skip_special_tokens", "skip_special_tokens"},
    {"no_stop_trim", "no_stop_trim"},
    {"logit_bias", "logit_bias"},
    {"seed", "sampling_seed"},
    {"regex", "regex"},
    {"ebnf", "ebnf"},
    {"structural_tag", "structural_tag"},
    {"json_schema", "json_schema"},
    {"custom_params", "custom_params"},
};

/* Known, not done here; asking for one is an error, never ignored. */
static const char *const refused[] = {
    "lora_path",
    "custom_logit_processor",
    "session_params",
    "return_hidden_states",
    "input_embeds",
    "suffix",
    "functions",
    "function_call",
    "audio",
    "prediction",
    "return_routed_experts",
    "return_token_ids",
    "return_prompt_token_ids",
    "return_meta_info",
    "task",
};

/* --- what both routes share --- */

/* As a sampling parameter, which is a text. */
static int set_form(struct ask *ask, const char *param, const json_t *form,
                    struct why *why)
{
    char *text = json_dumps(form, JSON_COMPACT | JSON_ENCODE_ANY);
    if (!text) return err_set(why, ERR_NOMEM, "response_format");
    json_object_set_new(ask->params, param, json_string(text));
    free(text);
    return 0;
}

/* {"type": "json_schema", "json_schema": {"schema": {...}}} */
static int take_schema(struct ask *ask, const json_t *format, struct why *why)
{
    const json_t *named = ask_member(format, "json_schema");
    const json_t *schema = ask_member(named, "schema");
    if (!schema)
        return err_set(why, ERR_INVALID,
                       "response_format of type json_schema needs "
                       "json_schema.schema.");
    return set_form(ask, "json_schema", schema, why);
}

static int take_response_format(struct ask *ask, struct why *why)
{
    const json_t *format = ask_member(ask->body, "response_format");
    if (!format) return 0;
    const char *type = NULL;
    if (!json_is_object(format))
        return err_set(why, ERR_FORMAT, "response_format must be an object.");
    int rc = json_get_string(format, "type", &type, why);
    if (rc) return rc;
    if (type && strcmp(type, "text") == 0) return 0;
    if (type && strcmp(type, "json_schema") == 0)
        return take_schema(ask, format, why);
    if (type && strcmp(type, "structural_tag") == 0)
        return set_form(ask, "structural_tag", format, why);
    if (type && strcmp(type, "json_object") == 0) {
        json_object_set_new(ask->params, "json_schema",
                            json_string("{\"type\":\"object\"}"));
        return 0;
    }
    return err_set(why, ERR_UNSUPPORTED,
                   "response_format of type \"%.40s\" is not supported by this "
                   "server.",
                   type ? type : "");
}

/* absent: LENGTH_GIVEN is /v1/completions, where no max_tokens means 16. */
int openai_take_params(struct ask *ask, const struct ask_env *env,
                       const struct generation_defaults *defaults,
                       enum params_length absent, struct why *why)
{
    ask->params = json_object();
    for (size_t i = 0; i < sizeof renames / sizeof *renames; i++) {
        json_t *v = json_object_get(ask->body, renames[i].from);
        if (v && !json_is_null(v))
            json_object_set(ask->params, renames[i].to, v);
    }
    if (defaults) generation_defaults_apply(defaults, ask->params);
    int rc = take_response_format(ask, why);
    if (absent == LENGTH_GIVEN && !ask_member(ask->params, "max_new_tokens"))
        json_object_set_new(ask->params, "max_new_tokens", json_integer(16));
    for (uint32_t i = 0; !rc && i < ask->prompt_count; i++)
        rc = params_parse(&ask->prompts[i].params, ask->params, absent,
                          env->vocab, why);
    return rc;
}

static int take_stream_options(struct ask *ask, struct why *why)
{
    int rc = json_get_bool(ask->body, "stream", &ask->stream, why);
    const json_t *options = ask_member(ask->body, "stream_options");
    if (rc || !options) return rc;
    if (!json_is_object(options))
        return err_set(why, ERR_FORMAT, "stream_options must be an object.");
    rc = json_get_bool(options, "include_usage", &ask->usage_event, why);
    if (!rc)
        rc = json_get_bool(options, "continuous_usage_stats",
                           &ask->usage_always, why);
    return rc;
}

/* best_of asks to generate more samples than are given back. */
static int check_best_of(const struct ask *ask, struct why *why)
{
    int64_t best_of = 1, n = 1;
    int rc = json_get_int(ask->body, "best_of", &best_of, why);
    if (!rc) rc = json_get_int(ask->body, "n", &n, why);
    if (rc || best_of == n || best_of == 1) return rc;
    return err_set(why, ERR_UNSUPPORTED,
                   "best_of other than n is not supported by this server.");
}

int openai_take_common(struct ask *ask, struct why *why)
{
    ask->model = "default";
    int rc = json_get_string(ask->body, "model", &ask->model, why);
    if (!rc)
        rc = ask_refuse(ask->body, refused, sizeof refused / sizeof *refused,
                        why);
    if (!rc) rc = check_best_of(ask, why);
    if (!rc) rc = take_stream_options(ask, why);
    return rc;
}

int openai_get_top(const json_t *body, const char *key, int64_t max,
                   int64_t *out, struct why *why)
{
    int rc = json_get_int(body, key, out, why);
    if (rc) return rc;
    if (*out < 0 || *out > max)
        return err_set(why, ERR_INVALID, "%s must be in [0, %lld], got %lld.",
                       key, (long long)max, (long long)*out);
    return 0;
}

void openai_set_logprobs(struct ask *ask, uint32_t top, bool input)
{
    for (uint32_t i = 0; i < ask->prompt_count; i++) {
        ask->prompts[i].want_logprobs = true;
        ask->prompts[i].top_logprobs = top;
        ask->prompts[i].logprob_start = input ? 0 : -1;
    }
}

/* --- completions --- */

static int take_prompt(struct ask *ask, const struct ask_env *env, uint32_t i,
                       const json_t *v, struct why *why)
{
    struct prompt *prompt = &ask->prompts[i];
    if (json_is_array(v)) return ask_take_ids(env, prompt, v, why);
    if (!json_is_string(v))
        return err_set(why, ERR_FORMAT,
                       "prompt must be a string, a list of strings, a list of "
                       "token ids, or a list of those.");
    prompt->text = json_string_value(v);
    prompt->text_len = json_string_length(v);
    return ask_encode(env, prompt, prompt->text, prompt->text_len, true, why);
}

static int take_prompts(struct ask *ask, const struct ask_env *env,
                        struct why *why)
{
    const json_t *v = ask_member(ask->body, "prompt");
    if (!v) return err_set(why, ERR_FORMAT, "prompt is missing.");
    const json_t *first = json_array_get(v, 0);
    ask->batch = json_is_array(v) && !json_is_integer(first);
    int rc = ask_set_prompts(ask, ask->batch ? json_array_size(v) : 1, why);
    for (uint32_t i = 0; !rc && i < ask->prompt_count; i++)
        rc = take_prompt(ask, env, i, ask->batch ? json_array_get(v, i) : v,
                         why);
    return rc;
}

static int parse_completion(struct ask *ask, const struct ask_env *env,
                            struct why *why)
{
    int rc = openai_take_common(ask, why);
    if (!rc) rc = json_get_bool(ask->body, "echo", &ask->echo, why);
    if (!rc) rc = take_prompts(ask, env, why);
    if (rc) return rc;
    if (ask_member(ask->body, "logprobs")) {
        int64_t top = 0;
        rc = openai_get_top(ask->body, "logprobs", 128, &top, why);
        if (rc) return rc;
        openai_set_logprobs(ask, (uint32_t)top, ask->echo);
    }
    rc = openai_take_params(ask, env, NULL, LENGTH_GIVEN, why);
    if (!rc) rc = ask_finish(ask, env, why);
    return rc;
}

int openai_parse(struct ask **out, const struct ask_env *env, const char *body,
                 size_t n, struct why *why,
                 int (*read)(struct ask *, const struct ask_env *,
                             struct why *))
{
    int rc = ask_create(out, body, n, why);
    if (!rc) rc = read(*out, env, why);
    if (!rc) return 0;
    ask_destroy(*out);
    *out = NULL;
    return rc;
}

int ask_parse_completion(struct ask **out, const struct ask_env *env,
                         const char *body, size_t n, struct why *why)
{
    return openai_parse(out, env, body, n, why, parse_completion);
}
