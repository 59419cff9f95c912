/* The bodies of /v1/completions and /v1/chat/completions. Fields: docs/api.md;
 * source: the OpenAI API reference and SGLang's entrypoints/openai/protocol.py.
 *
 * Sampling parameters are renamed into one object and read by params_parse. */
#include "base/buf.h"
#include "base/mem.h"
#include "serve/ask.h"
#include "serve/assets.h"
#include "text/chat.h"

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
    "structural_tag",
    "return_routed_experts",
    "return_token_ids",
    "return_prompt_token_ids",
    "return_meta_info",
    "task",
};

/* --- what both routes share --- */

/* absent: LENGTH_GIVEN is /v1/completions, where no max_tokens means 16. */
static int take_params(struct ask *ask, const struct ask_env *env,
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
    if (absent == LENGTH_GIVEN && !ask_member(ask->params, "max_new_tokens"))
        json_object_set_new(ask->params, "max_new_tokens", json_integer(16));
    int rc = 0;
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

static int check_response_format(const struct ask *ask, struct why *why)
{
    const json_t *format = ask_member(ask->body, "response_format");
    if (!format) return 0;
    const char *type = NULL;
    if (!json_is_object(format))
        return err_set(why, ERR_FORMAT, "response_format must be an object.");
    int rc = json_get_string(format, "type", &type, why);
    if (rc) return rc;
    if (type && strcmp(type, "text") == 0) return 0;
    return err_set(why, ERR_UNSUPPORTED,
                   "response_format of type \"%.40s\" is not supported by this "
                   "server.",
                   type ? type : "");
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

static int take_common(struct ask *ask, struct why *why)
{
    ask->model = "default";
    int rc = json_get_string(ask->body, "model", &ask->model, why);
    if (!rc)
        rc = ask_refuse(ask->body, refused, sizeof refused / sizeof *refused,
                        why);
    if (!rc) rc = check_response_format(ask, why);
    if (!rc) rc = check_best_of(ask, why);
    if (!rc) rc = take_stream_options(ask, why);
    return rc;
}

static int get_top(const json_t *body, const char *key, int64_t max,
                   int64_t *out, struct why *why)
{
    int rc = json_get_int(body, key, out, why);
    if (rc) return rc;
    if (*out < 0 || *out > max)
        return err_set(why, ERR_INVALID, "%s must be in [0, %lld], got %lld.",
                       key, (long long)max, (long long)*out);
    return 0;
}

static void set_logprobs(struct ask *ask, uint32_t top, bool input)
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
    int rc = take_common(ask, why);
    if (!rc) rc = json_get_bool(ask->body, "echo", &ask->echo, why);
    if (!rc) rc = take_prompts(ask, env, why);
    if (rc) return rc;
    if (ask_member(ask->body, "logprobs")) {
        int64_t top = 0;
        rc = get_top(ask->body, "logprobs", 128, &top, why);
        if (rc) return rc;
        set_logprobs(ask, (uint32_t)top, ask->echo);
    }
    rc = take_params(ask, env, NULL, LENGTH_GIVEN, why);
    if (!rc) rc = ask_finish(ask, env, why);
    return rc;
}

/* --- chat --- */

static int join(const json_t *parts, json_t **out, struct why *why)
{
    struct why inner = {0};
    *out = chat_join_parts(parts, &inner);
    return *out ? 0 : err_set(why, inner.code, "%s", inner.text);
}

static int check_message(json_t *message, struct why *why)
{
    static const char *const roles[] = {"system", "user",     "assistant",
                                        "tool",   "function", "developer"};
    const char *role = NULL;
    if (!json_is_object(message))
        return err_set(why, ERR_FORMAT, "A message must be an object.");
    int rc = json_get_string(message, "role", &role, why);
    if (rc) return rc;
    size_t i = 0, count = sizeof roles / sizeof *roles;
    while (i < count && role && strcmp(role, roles[i]) != 0)
        i++;
    if (!role || i == count)
        return err_set(why, ERR_FORMAT,
                       "A message's role must be one of "
                       "system, user, assistant, tool, "
                       "function, developer.");
    const json_t *content = ask_member(message, "content");
    if (!content || json_is_string(content)) return 0;
    if (!json_is_array(content))
        return err_set(why, ERR_FORMAT,
                       "A message's content must be text or a list of parts.");
    json_t *joined;
    rc = join(content, &joined, why);
    if (!rc) json_decref(joined);
    return rc;
}

/* continue_final_message: the last assistant message is taken off and comes
 * behind the generation prompt, for the model to go on with. */
static int take_final_message(struct ask *ask, json_t *messages, json_t **final,
                              struct why *why)
{
    *final = NULL;
    bool wanted = false;
    int rc = json_get_bool(ask->body, "continue_final_message", &wanted, why);
    if (rc || !wanted) return rc;
    size_t count = json_array_size(messages);
    json_t *last = json_array_get(messages, count - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    if (strcmp(role, "assistant") != 0 || count < 2) return 0;
    json_t *content = json_object_get(last, "content");
    if (json_is_array(content))
        rc = join(content, final, why);
    else
        *final = json_incref(content);
    json_array_remove(messages, count - 1);
    return rc;
}

/* tool_choice: auto and none; the others need constrained decoding. */
static int take_tools(struct ask *ask, const json_t **tools, struct why *why)
{
    *tools = ask_member(ask->body, "tools");
    const json_t *choice = ask_member(ask->body, "tool_choice");
    const char *word = choice ? json_string_value(choice) : "auto";
    if (*tools && !json_is_array(*tools))
        return err_set(why, ERR_FORMAT, "tools must be a list.");
    if (!word || (strcmp(word, "auto") != 0 && strcmp(word, "none") != 0))
        return err_set(why, ERR_UNSUPPORTED,
                       "tool_choice other than auto and none is not supported "
                       "by this server.");
    if (json_array_size(*tools) == 0 || strcmp(word, "none") == 0)
        *tools = NULL;
    return 0;
}

/* reasoning_effort and chat_template_kwargs become the template's variables. */
static int take_variables(struct ask *ask, json_t *variables, struct why *why)
{
    json_t *effort = json_object_get(ask->body, "reasoning_effort");
    json_t *more = json_object_get(ask->body, "chat_template_kwargs");
    if (effort && !json_is_null(effort))
        json_object_set(variables, "reasoning_effort", effort);
    if (!more || json_is_null(more)) return 0;
    if (!json_is_object(more))
        return err_set(why, ERR_FORMAT,
                       "chat_template_kwargs must be an object.");
    json_object_update(variables, more);
    return 0;
}

static int render(struct ask *ask, const struct ask_env *env, json_t *messages,
                  json_t *variables, struct buf *text, struct why *why)
{
    const json_t *tools;
    json_t *final = NULL;
    int rc = take_tools(ask, &tools, why);
    if (!rc) rc = take_variables(ask, variables, why);
    if (!rc) rc = take_final_message(ask, messages, &final, why);
    if (!rc)
        rc = assets_render_chat(env->assets, messages, tools, variables, text,
                                why);
    if (!rc && final)
        buf_add(text, json_string_value(final), json_string_length(final));
    if (!rc && text->failed)
        rc = err_set(why, ERR_NOMEM, "The rendered prompt is too large.");
    json_decref(final);
    return rc;
}

static int take_messages(struct ask *ask, const struct ask_env *env,
                         struct why *why)
{
    json_t *messages = json_object_get(ask->body, "messages");
    if (!json_is_array(messages))
        return err_set(why, ERR_FORMAT, "messages must be a list.");
    if (json_array_size(messages) == 0)
        return err_set(why, ERR_INVALID, "Messages cannot be empty.");
    int rc = 0;
    for (size_t i = 0; !rc && i < json_array_size(messages); i++)
        rc = check_message(json_array_get(messages, i), why);
    if (rc) return rc;
    struct buf text;
    buf_init(&text, (size_t)1 << 30);
    json_t *variables = json_object();
    rc = render(ask, env, messages, variables, &text, why);
    /* The template wrote bos and the rest itself. */
    if (!rc)
        rc = ask_encode(env, &ask->prompts[0], text.data ? text.data : "",
                        text.len, false, why);
    json_decref(variables);
    buf_fini(&text);
    return rc;
}

static int take_chat_logprobs(struct ask *ask, struct why *why)
{
    bool wanted = false;
    int64_t top = 0;
    int rc = json_get_bool(ask->body, "logprobs", &wanted, why);
    if (!rc) rc = get_top(ask->body, "top_logprobs", 20, &top, why);
    if (!rc && wanted) set_logprobs(ask, (uint32_t)top, false);
    if (!rc && top && !wanted)
        return err_set(why, ERR_INVALID,
                       "top_logprobs needs logprobs to be true.");
    return rc;
}

static int parse_chat(struct ask *ask, const struct ask_env *env,
                      struct why *why)
{
    int rc = take_common(ask, why);
    if (!rc) rc = ask_set_prompts(ask, 1, why);
    if (!rc) rc = take_chat_logprobs(ask, why);
    if (!rc)
        rc = take_params(ask, env,
                         env->model_defaults
                             ? assets_generation_defaults(env->assets)
                             : NULL,
                         LENGTH_CONTEXT, why);
    if (!rc) rc = take_messages(ask, env, why);
    if (!rc) rc = ask_finish(ask, env, why);
    return rc;
}

static int parse(struct ask **out, const struct ask_env *env, const char *body,
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
    return parse(out, env, body, n, why, parse_completion);
}

int ask_parse_chat(struct ask **out, const struct ask_env *env,
                   const char *body, size_t n, struct why *why)
{
    return parse(out, env, body, n, why, parse_chat);
}
