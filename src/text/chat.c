#include "text/chat.h"
#include "base/mem.h"
#include "text/template.h"

#include <string.h>

struct chat {
    struct template *template;
    char *named[TOKENIZER_NAMED]; /* "" where there is none */
    bool content_is_list, content_may_be_none;
};

int chat_create(struct chat **out, const struct tokenizer *t,
                const char *source, struct why *why)
{
    if (!source) source = tokenizer_chat_template(t);
    if (!source)
        return err_set(why, ERR_NOT_FOUND, "the model has no chat template");
    struct template *compiled;
    int rc = template_compile(&compiled, source, strlen(source), why);
    if (rc) return rc;
    struct chat *chat = mem_must(1, sizeof *chat);
    chat->template = compiled;
    for (int i = 0; i < TOKENIZER_NAMED; i++)
        chat->named[i] =
            mem_dup(tokenizer_named_text(t, (enum tokenizer_named)i));
    chat->content_is_list = template_loops_over(compiled, "content");
    chat->content_may_be_none = template_asks_none(compiled, "content");
    *out = chat;
    return 0;
}

void chat_destroy(struct chat *chat)
{
    if (!chat) return;
    template_destroy(chat->template);
    for (int i = 0; i < TOKENIZER_NAMED; i++)
        mem_free(chat->named[i]);
    mem_free(chat);
}

json_t *chat_join_parts(const json_t *parts, struct why *why)
{
    struct buf text;
    size_t i;
    json_t *part, *joined = NULL;
    int rc = 0;
    buf_init(&text, (size_t)1 << 30);
    json_array_foreach (parts, i, part) {
        const char *type = "text";
        const json_t *piece = json_object_get(part, "text");
        rc = json_get_string(part, "type", &type, why);
        if (!rc && strcmp(type, "text") != 0)
            rc = err_set(why, ERR_INVALID,
                         "Message content of type \"%.40s\" is not supported "
                         "by this server: it is no text.",
                         type);
        else if (!rc && !json_is_string(piece))
            rc = err_set(why, ERR_INVALID, "A text part must have a text.");
        if (rc) break;
        if (i) buf_putc(&text, ' ');
        buf_add(&text, json_string_value(piece), json_string_length(piece));
    }
    if (!rc && !text.failed)
        joined = json_stringn(text.data ? text.data : "", text.len);
    if (!rc && !joined) err_set(why, ERR_NOMEM, "The message is too large.");
    buf_fini(&text);
    return joined;
}

static int fix_content(const struct chat *chat, json_t *message,
                       struct why *why)
{
    const json_t *content = json_object_get(message, "content");
    json_t *fixed = NULL;
    if (json_is_array(content) && !chat->content_is_list) {
        fixed = chat_join_parts(content, why);
        if (!fixed) return why ? why->code : ERR_INVALID;
    } else if (!chat->content_may_be_none &&
               (!content || json_is_null(content))) {
        fixed = json_string("");
    }
    if (fixed && json_object_set_new(message, "content", fixed))
        return err_set(why, ERR_NOMEM, "message");
    return 0;
}

/* Parses the arguments of tool calls that are strings of JSON objects. */
static void parse_arguments(json_t *message, bool *parsed)
{
    size_t i;
    json_t *call;
    json_array_foreach (json_object_get(message, "tool_calls"), i, call) {
        json_t *function = json_object_get(call, "function"), *object = NULL;
        const json_t *text = json_object_get(function, "arguments");
        if (!json_is_string(text) ||
            json_parse(&object, json_string_value(text),
                       json_string_length(text), NULL))
            continue;
        if (json_is_object(object) &&
            !json_object_set(function, "arguments", object))
            *parsed = true;
        json_decref(object);
    }
}

static int set_all(json_t *into, const json_t *from)
{
    return from && json_object_update(into, (json_t *)(uintptr_t)from);
}

static json_t *make_variables(const struct chat *chat,
                              const struct chat_request *request,
                              json_t *messages)
{
    json_t *v = json_object();
    int failed = 0;
    for (int i = 0; i < TOKENIZER_NAMED; i++)
        if (*chat->named[i])
            failed |=
                json_object_set_new(v, tokenizer_name((enum tokenizer_named)i),
                                    json_string(chat->named[i]));
    failed |= json_object_set_new(v, "documents", json_null());
    failed |= set_all(v, request->kwargs);
    failed |= json_object_set(v, "messages", messages);
    failed |= json_object_set_new(
        v, "tools",
        request->tools ? json_incref((json_t *)(uintptr_t)request->tools)
                       : json_null());
    failed |= json_object_set_new(v, "add_generation_prompt",
                                  json_boolean(request->add_generation_prompt));
    if (!failed) return v;
    json_decref(v);
    return NULL;
}

static int check(const struct chat_request *request, struct why *why)
{
    size_t i;
    json_t *message;
    if (!json_is_array(request->messages))
        return err_set(why, ERR_INVALID, "messages is no list");
    json_array_foreach (request->messages, i, message) {
        if (!json_is_object(message) ||
            !json_is_string(json_object_get(message, "role")))
            return err_set(why, ERR_INVALID, "message %zu has no role", i);
    }
    if (request->tools && !json_is_array(request->tools))
        return err_set(why, ERR_INVALID, "tools is no list");
    if (request->kwargs && !json_is_object(request->kwargs))
        return err_set(why, ERR_INVALID, "template kwargs is no object");
    return 0;
}

static int render(const struct chat *chat, const struct chat_request *request,
                  json_t *messages, struct buf *out, struct why *why)
{
    json_t *variables = make_variables(chat, request, messages);
    if (!variables) return err_set(why, ERR_NOMEM, "template variables");
    int rc = template_render(chat->template, variables, out, why);
    json_decref(variables);
    return rc;
}

int chat_render(const struct chat *chat, const struct chat_request *request,
                struct buf *out, struct why *why)
{
    struct why first = {0};
    bool parsed = false;
    size_t i;
    json_t *message;
    int rc = check(request, why);
    if (rc) return rc;
    json_t *messages = json_deep_copy(request->messages);
    if (!messages) return err_set(why, ERR_NOMEM, "messages");
    json_array_foreach (messages, i, message) {
        rc = rc ? rc : fix_content(chat, message, &first);
    }
    json_t *with_objects = rc ? NULL : json_deep_copy(messages);
    json_array_foreach (with_objects, i, message) {
        parse_arguments(message, &parsed);
    }
    if (!rc) rc = render(chat, request, with_objects, out, &first);
    /* A template that wants arguments as text fails on objects. */
    if (rc == ERR_INVALID && parsed &&
        !render(chat, request, messages, out, NULL))
        rc = 0;
    json_decref(with_objects);
    json_decref(messages);
    return rc ? err_set(why, rc, "%s", why_text(&first, rc)) : 0;
}
