/* The body of /v1/chat/completions. Fields: docs/api.md; source: openai_ask.c.
 */
#include "base/buf.h"
#include "serve/assets.h"
#include "serve/openai.h"
#include "text/chat.h"
#include "text/grammar.h"
#include "text/pattern_calls.h"
#include "text/tokenizer.h"

#include <string.h>

static int join(const json_t *parts, json_t **out, struct why *why)
{
    struct why inner = {0};
    *out = chat_join_parts(parts, &inner);
    return *out ? 0 : err_set(why, inner.code, "%s", inner.text);
}

/* Calls of an earlier answer, with their arguments as text or object. */
static int check_tool_calls(const json_t *calls, struct why *why)
{
    size_t i;
    const json_t *call;
    if (!calls) return 0;
    if (!json_is_array(calls))
        return err_set(why, ERR_FORMAT, "tool_calls must be a list.");
    json_array_foreach (calls, i, call) {
        const json_t *function = json_object_get(call, "function");
        const json_t *arguments = ask_member(function, "arguments");
        if (!json_is_string(json_object_get(function, "name")))
            return err_set(why, ERR_FORMAT,
                           "A tool call must have a function with a name.");
        if (arguments && !json_is_string(arguments) &&
            !json_is_object(arguments))
            return err_set(why, ERR_FORMAT,
                           "The arguments of a tool call must be JSON text or "
                           "an object.");
    }
    return 0;
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
    rc = check_tool_calls(ask_member(message, "tool_calls"), why);
    if (rc) return rc;
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

/* --- tools --- */

static int check_function(const json_t *function, struct why *why)
{
    const char *name = NULL;
    bool strict = false;
    if (!json_is_object(function))
        return err_set(why, ERR_FORMAT,
                       "A tool must have a function, an object.");
    int rc = json_get_string(function, "name", &name, why);
    if (!rc) rc = json_get_bool(function, "strict", &strict, why);
    if (rc) return rc;
    if (!name || !*name)
        return err_set(why, ERR_FORMAT, "A tool's function must have a name.");
    return 0;
}

static int check_tools(const json_t *tools, struct why *why)
{
    size_t i;
    json_t *tool;
    if (!tools) return 0;
    if (!json_is_array(tools))
        return err_set(why, ERR_FORMAT, "tools must be a list.");
    json_array_foreach (tools, i, tool) {
        const char *type = "function";
        if (!json_is_object(tool))
            return err_set(why, ERR_FORMAT, "A tool must be an object.");
        int rc = json_get_string(tool, "type", &type, why);
        if (!rc && strcmp(type, "function") != 0)
            rc = err_set(why, ERR_UNSUPPORTED,
                         "A tool of type \"%.40s\" is not supported by this "
                         "server.",
                         type);
        if (!rc) rc = check_function(json_object_get(tool, "function"), why);
        if (rc) return rc;
    }
    return 0;
}

static bool is_offered(const json_t *tools, const char *name)
{
    size_t i;
    const json_t *tool;
    json_array_foreach (tools, i, tool) {
        const json_t *function = json_object_get(tool, "function");
        if (!strcmp(json_string_value(json_object_get(function, "name")), name))
            return true;
    }
    return false;
}

/* What tool_choice asks for. */
struct choice {
    bool none, must;
    const char *name; /* must: this one, or NULL: any */
};

static int read_choice(const json_t *v, struct choice *choice, struct why *why)
{
    const char *word = json_string_value(v);
    *choice = (struct choice){0};
    if (!v || (word && strcmp(word, "auto") == 0)) return 0;
    if (word && strcmp(word, "none") == 0) {
        choice->none = true;
        return 0;
    }
    choice->must = true;
    if (word && strcmp(word, "required") == 0) return 0;
    choice->name = json_string_value(
        json_object_get(json_object_get(v, "function"), "name"));
    if (choice->name) return 0;
    return err_set(why, ERR_FORMAT,
                   "tool_choice must be \"none\", \"auto\", \"required\" or "
                   "{\"type\": \"function\", \"function\": {\"name\": "
                   "...}}.");
}

static int check_choice(struct choice *choice, const json_t *tools,
                        const struct ask_env *env, struct why *why)
{
    if (!choice->must) return 0;
    if (!tools)
        return err_set(why, ERR_INVALID,
                       "Tools cannot be empty if tool choice is set to "
                       "required or to a function.");
    if (choice->name && !is_offered(tools, choice->name))
        return err_set(why, ERR_INVALID,
                       "tool_choice: no function \"%.64s\" is among the tools.",
                       choice->name);
    if (!env->toolcall)
        return err_set(why, ERR_UNSUPPORTED,
                       "tool_choice other than auto and none needs a server "
                       "with --tool-call-parser.");
    return 0;
}

static int take_tools(struct ask *ask, const struct ask_env *env,
                      struct choice *choice, struct why *why)
{
    const json_t *tools = ask_member(ask->body, "tools");
    bool parallel = true;
    int rc = check_tools(tools, why);
    if (!rc)
        rc = json_get_bool(ask->body, "parallel_tool_calls", &parallel, why);
    if (!rc)
        rc = read_choice(ask_member(ask->body, "tool_choice"), choice, why);
    if (rc) return rc;
    if (choice->none || json_array_size(tools) == 0) tools = NULL;
    ask->reply.tools = tools;
    ask->reply.one_call = !parallel;
    if (tools) ask->reply.toolcall = env->toolcall;
    return check_choice(choice, tools, env, why);
}

/* --- reasoning --- */

static int take_reasoning(struct ask *ask, const struct ask_env *env,
                          struct why *why)
{
    bool separate = true, stream = true;
    int rc = json_get_bool(ask->body, "separate_reasoning", &separate, why);
    if (!rc) rc = json_get_bool(ask->body, "stream_reasoning", &stream, why);
    if (separate) ask->reply.reasoning = env->reasoning;
    ask->reply.whole_reasoning = !stream;
    return rc;
}

/* Whether the answer begins inside of the reasoning, and whether none can come
 * any more: by the prompt, then by the beginning of the answer that is
 * given. */
struct beginning {
    bool inside, over;
};

static struct beginning beginning_of(const struct reasoning_format *format,
                                     const struct buf *prompt,
                                     const json_t *final)
{
    struct beginning b = {0};
    if (!format) return b;
    b.inside = reasoning_begins(format, prompt->data, prompt->len);
    b.over = reasoning_is_over(format, prompt->data, prompt->len);
    if (!final) return b;
    b.inside = reasoning_goes_on(format, b.inside, json_string_value(final),
                                 json_string_length(final));
    b.over = !b.inside;
    return b;
}

static bool thinking_is_off(const json_t *body)
{
    const json_t *more = json_object_get(body, "chat_template_kwargs");
    return json_is_false(json_object_get(more, "enable_thinking")) ||
           json_is_false(json_object_get(more, "thinking"));
}

/* Where a form of the answer holds: behind the reasoning. Whether there is any
 * may be for the model to say, by the tag that it begins with, unless it was
 * told not to think. */
static void place_form(struct ask *ask, const struct ask_env *env,
                       struct beginning at)
{
    const struct reasoning_format *format = env->reasoning;
    const struct tokenizer *t = assets_tokenizer(env->assets);
    if (!format || at.over) return;
    int32_t open = tokenizer_find(t, reasoning_begin_tag(format));
    if (!at.inside && (open < 0 || thinking_is_off(ask->body))) return;
    ask->grammar_open = at.inside ? -1 : open;
    ask->grammar_after = tokenizer_find(t, reasoning_end_tag(format));
}

static bool any_strict(const json_t *tools)
{
    size_t i;
    const json_t *tool;
    json_array_foreach (tools, i, tool)
        if (json_is_true(
                json_object_get(json_object_get(tool, "function"), "strict")))
            return true;
    return false;
}

/* Calls that must come, and those of strict functions, are held to their form.
 * An answer that has another form cannot have calls. */
static int hold_calls(struct ask *ask, const struct ask_env *env,
                      const struct choice *choice, bool over, struct why *why)
{
    struct ask_reply *reply = &ask->reply;
    struct prompt *prompt = &ask->prompts[0];
    if (!choice->must && !any_strict(reply->tools)) return 0;
    if (!reply->toolcall || !env->grammars)
        return err_set(why, ERR_UNSUPPORTED,
                       "strict functions need a server with "
                       "--tool-call-parser.");
    const struct params *p = &prompt->params;
    if (p->json_schema || p->regex || p->ebnf || p->structural_tag) {
        if (!choice->must) return 0;
        return err_set(why, ERR_INVALID,
                       "A tool_choice that needs a call and another form of "
                       "the output (response_format, json_schema, regex, ebnf, "
                       "structural_tag) exclude each other.");
    }
    const struct calls_spec spec = {.format = reply->toolcall,
                                    .reasoning = reply->reasoning,
                                    .inside = reply->in_reasoning,
                                    .over = over,
                                    .must = choice->must,
                                    .one = reply->one_call,
                                    .name = choice->name,
                                    .tools = reply->tools};
    struct buf text;
    buf_init(&text, (size_t)1 << 30);
    pattern_calls_text(&spec, &text);
    int rc = text.failed ? err_set(why, ERR_NOMEM, "The tools are too large.")
                         : grammars_get(env->grammars, GRAMMAR_CALLS, text.data,
                                        text.len, &prompt->grammar, why);
    buf_fini(&text);
    reply->tag_ends_reasoning = true;
    ask->grammar_open = ask->grammar_after = -1;
    return rc;
}

/* Where the answer begins. Reasoning that the prompt has opened and nobody
 * takes apart is closed before a call that must come. */
static int begin_answer(struct ask *ask, const struct ask_env *env,
                        const struct choice *choice, const json_t *final,
                        struct buf *text, struct why *why)
{
    struct ask_reply *reply = &ask->reply;
    struct beginning at = beginning_of(reply->reasoning, text, final);
    reply->in_reasoning = at.inside;
    place_form(ask, env, beginning_of(env->reasoning, text, final));
    if (final)
        buf_add(text, json_string_value(final), json_string_length(final));
    if (choice->must && !reply->reasoning) {
        const struct reasoning_format *format = reasoning_find("qwen3");
        if (reasoning_begins(format, text->data, text->len))
            reasoning_close(format, text);
    }
    if (text->failed)
        return err_set(why, ERR_NOMEM, "The rendered prompt is too large.");
    return hold_calls(ask, env, choice, at.over, why);
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
    struct choice choice;
    json_t *final = NULL;
    int rc = take_tools(ask, env, &choice, why);
    if (!rc) rc = take_reasoning(ask, env, why);
    if (!rc) rc = take_variables(ask, variables, why);
    if (!rc) rc = take_final_message(ask, messages, &final, why);
    if (!rc)
        rc = assets_render_chat(env->assets, messages, ask->reply.tools,
                                variables, text, why);
    if (!rc) rc = begin_answer(ask, env, &choice, final, text, why);
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
    if (!rc) rc = openai_get_top(ask->body, "top_logprobs", 20, &top, why);
    if (!rc && wanted) openai_set_logprobs(ask, (uint32_t)top, false);
    if (!rc && top && !wanted)
        return err_set(why, ERR_INVALID,
                       "top_logprobs needs logprobs to be true.");
    return rc;
}

static int parse_chat(struct ask *ask, const struct ask_env *env,
                      struct why *why)
{
    int rc = openai_take_common(ask, why);
    if (!rc) rc = ask_set_prompts(ask, 1, why);
    if (!rc) rc = take_chat_logprobs(ask, why);
    if (!rc)
        rc = openai_take_params(ask, env,
                                env->model_defaults
                                    ? assets_generation_defaults(env->assets)
                                    : NULL,
                                LENGTH_CONTEXT, why);
    if (!rc) rc = take_messages(ask, env, why);
    if (!rc && ask->reply.toolcall && toolcall_is_special(ask->reply.toolcall))
        ask->prompts[0].params.sampling.skip_special_tokens = false;
    if (!rc) rc = ask_finish(ask, env, why);
    return rc;
}

int ask_parse_chat(struct ask **out, const struct ask_env *env,
                   const char *body, size_t n, struct why *why)
{
    return openai_parse(out, env, body, n, why, parse_chat);
}
