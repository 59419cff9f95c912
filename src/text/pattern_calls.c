#include "text/pattern_calls.h"

#include "base/mem.h"
#include "text/pattern_schema.h"
#include "text/pattern_tags.h"
#include "text/reply_impl.h"
#include "text/tokenizer.h"

#include <string.h>

enum { BLANKS = 4 };

struct calls {
    struct pattern *p;
    struct pattern_json j;
    const struct tokenizer *tokenizer;
    const struct toolcall_format *format;
    const struct reasoning_format *reasoning;
    bool inside, must, one;
    const json_t *tools;
    struct why *why;
};

/* ---- the spec as text, and back ---- */

static json_t *first_name(const char *names)
{
    return json_stringn(names, strcspn(names, "|"));
}

static bool is_strict(const json_t *function)
{
    return json_is_true(json_object_get(function, "strict"));
}

void pattern_calls_text(const struct calls_spec *spec, struct buf *out)
{
    size_t i;
    const json_t *tool;
    json_t *tools = json_array();
    json_array_foreach (spec->tools, i, tool) {
        json_t *function = json_object_get(tool, "function"),
               *name = json_object_get(function, "name"),
               *parameters = json_object_get(function, "parameters"),
               *one = json_object();
        if (!spec->name || !strcmp(spec->name, json_string_value(name))) {
            json_object_set(one, "name", name);
            if (parameters && (spec->must || is_strict(function)))
                json_object_set(one, "parameters", parameters);
            json_array_append(tools, one);
        }
        json_decref(one);
    }
    json_t *all = json_pack(
        "{so sb sb sb so}", "format", first_name(spec->format->names), "inside",
        spec->inside, "must", spec->must, "one", spec->one, "tools", tools);
    if (spec->reasoning && !spec->over)
        json_object_set_new(all, "reasoning",
                            first_name(spec->reasoning->names));
    char *text = json_dumps(all, JSON_COMPACT);
    if (text)
        buf_puts(out, text);
    else
        out->failed = true;
    mem_free(text);
    json_decref(all);
}

static int read_spec(struct calls *c, const json_t *text, struct why *why)
{
    const char *format = NULL, *reasoning = NULL;
    size_t i;
    const json_t *tool;
    if (!json_is_object(text))
        return err_set(why, ERR_INVALID, "calls: no object");
    int rc = json_get_string(text, "format", &format, why);
    if (!rc) rc = json_get_string(text, "reasoning", &reasoning, why);
    if (!rc) rc = json_get_bool(text, "inside", &c->inside, why);
    if (!rc) rc = json_get_bool(text, "must", &c->must, why);
    if (!rc) rc = json_get_bool(text, "one", &c->one, why);
    if (rc) return rc;
    c->format = format ? toolcall_find(format) : NULL;
    c->reasoning = reasoning ? reasoning_find(reasoning) : NULL;
    c->tools = json_object_get(text, "tools");
    if (!c->format || (reasoning && !c->reasoning))
        return err_set(why, ERR_INVALID, "calls: no such format");
    if (!json_is_array(c->tools) || !json_array_size(c->tools))
        return err_set(why, ERR_INVALID, "calls: no function is offered");
    json_array_foreach (c->tools, i, tool)
        if (!json_string_length(json_object_get(tool, "name")))
            return err_set(why, ERR_INVALID, "calls: a function has no name");
    return 0;
}

/* ---- parts ---- */

static pattern_node written(struct calls *c, const char *text)
{
    return pattern_tags_written(c->p, c->tokenizer, text);
}

/* Any text, but none of the tags (NULL: no such tag). */
static pattern_node free_text(struct calls *c, const char *tag,
                              const char *other, bool tokens, char first_not)
{
    const char *tags[2];
    size_t count = 0;
    if (tag) tags[count++] = tag;
    if (other) tags[count++] = other;
    return pattern_tags_none(c->p, tokens ? c->tokenizer : NULL, tags, count,
                             first_not);
}

static pattern_node list(struct calls *c, pattern_node a, pattern_node b,
                         pattern_node d)
{
    return pattern_json_list(&c->j, a, b, d);
}

static pattern_node either(struct calls *c, pattern_node a, pattern_node b)
{
    pattern_node all = pattern_choice(c->p);
    pattern_add(c->p, all, a);
    pattern_add(c->p, all, b);
    return all;
}

static pattern_node blanks(struct calls *c)
{
    pattern_node one =
        either(c, pattern_text(c->p, "\n", 1), pattern_text(c->p, " ", 1));
    return pattern_repeat(c->p, one, 0, BLANKS);
}

/* ---- arguments as XML ---- */

static const char param_end[] = "\n</parameter>\n";

static int refuse_string(struct calls *c, const char *param, const char *what)
{
    return err_set(c->why, ERR_UNSUPPORTED,
                   "the parameter %.60s: %.20s of a string cannot be kept in "
                   "this tool-call format",
                   param, what);
}

static int choose_text(struct calls *c, const char *param, const json_t *of,
                       pattern_node *out)
{
    size_t i;
    const json_t *v;
    *out = pattern_choice(c->p);
    json_array_foreach (of, i, v) {
        if (!json_is_string(v) || strstr(json_string_value(v), "</parameter>"))
            return refuse_string(c, param, "enum");
        pattern_add(
            c->p, *out,
            pattern_text(c->p, json_string_value(v), json_string_length(v)));
    }
    return 0;
}

static int xml_string(struct calls *c, const char *param, const json_t *schema,
                      pattern_node *out)
{
    static const char *const unkept[] = {"pattern", "minLength", "maxLength",
                                         "$ref",    "anyOf",     "oneOf",
                                         "allOf",   "not"};
    for (size_t i = 0; i < sizeof unkept / sizeof *unkept; i++)
        if (json_object_get(schema, unkept[i]))
            return refuse_string(c, param, unkept[i]);
    const json_t *v = json_object_get(schema, "const"),
                 *list = json_object_get(schema, "enum");
    if (v) {
        json_t *only = json_pack("[O]", v);
        int rc = choose_text(c, param, only, out);
        json_decref(only);
        return rc;
    }
    if (json_is_array(list)) return choose_text(c, param, list, out);
    *out = free_text(c, "</parameter>", NULL, false, 0);
    return 0;
}

static pattern_node xml_param(struct calls *c, pattern_node name,
                              pattern_node value)
{
    pattern_node head =
        list(c, written(c, "<parameter="), name, pattern_text(c->p, ">\n", 2));
    return list(c, head, value, written(c, param_end));
}

/* Any parameters: the schema says nothing of them. */
static pattern_node xml_any(struct calls *c)
{
    static const uint8_t ranges[][2] = {
        {'-', '.'}, {'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
    pattern_node letter = pattern_choice(c->p);
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        pattern_add(c->p, letter,
                    pattern_bytes(c->p, ranges[i][0], ranges[i][1]));
    pattern_node one = xml_param(c, pattern_repeat(c->p, letter, 1, -1),
                                 free_text(c, "</parameter>", NULL, false, 0));
    return pattern_repeat(c->p, one, 0, -1);
}

static bool is_required(const json_t *schema, const char *key)
{
    size_t i;
    const json_t *v;
    json_array_foreach (json_object_get(schema, "required"), i, v)
        if (json_is_string(v) && !strcmp(json_string_value(v), key))
            return true;
    return false;
}

static int xml_arguments(struct calls *c, const json_t *schema,
                         pattern_node *out)
{
    const char *key;
    json_t *of;
    json_t *properties = json_object_get(schema, "properties");
    if (!json_object_size(properties)) {
        bool bare = !properties && !json_object_get(schema, "required");
        *out = bare ? xml_any(c) : 0;
        return 0;
    }
    *out = pattern_sequence(c->p);
    json_object_foreach (properties, key, of) {
        pattern_node value;
        const char *type = json_string_value(json_object_get(of, "type"));
        int rc = type && !strcmp(type, "string")
                     ? xml_string(c, key, of, &value)
                     : pattern_schema_part(&c->j, schema, of, &value, c->why);
        if (rc) return rc;
        pattern_node name = pattern_text(c->p, key, strlen(key));
        int min = is_required(schema, key);
        pattern_add(c->p, *out,
                    pattern_repeat(c->p, xml_param(c, name, value), min, 1));
    }
    return 0;
}

/* ---- calls ---- */

static int arguments(struct calls *c, const json_t *schema, pattern_node *out)
{
    const char *type = json_string_value(json_object_get(schema, "type"));
    bool xml = c->format->body == toolcall_body_xml;
    if (!schema || json_is_null(schema) ||
        (json_is_object(schema) && !json_object_size(schema))) {
        *out = xml ? xml_any(c) : pattern_json_call_object(&c->j);
        return 0;
    }
    if (!json_is_object(schema) || (type && strcmp(type, "object") != 0))
        return err_set(c->why, ERR_INVALID,
                       "its parameters must be the schema of an object");
    if (xml) return xml_arguments(c, schema, out);
    return pattern_schema_part(&c->j, schema, schema, out, c->why);
}

/* The function's name as the format has it: in JSON, or as it is. */
static pattern_node name_of(struct calls *c, const char *name)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    if (c->format->body == toolcall_body_object)
        buf_json(&b, name, strlen(name));
    else
        buf_puts(&b, name);
    pattern_node node = pattern_text(c->p, b.data, b.len);
    buf_fini(&b);
    return node;
}

/* Defines the rule of a call: lead, one of the names, its arguments, tail. */
static int define_call(struct calls *c, uint32_t rule)
{
    size_t i;
    const json_t *tool;
    pattern_node any = pattern_choice(c->p);
    json_array_foreach (c->tools, i, tool) {
        const char *name = json_string_value(json_object_get(tool, "name"));
        struct why inner = {0}, *why = c->why;
        pattern_node args;
        c->why = &inner;
        int rc = arguments(c, json_object_get(tool, "parameters"), &args);
        c->why = why;
        if (rc)
            return err_set(why, rc, "The function \"%.64s\": %s", name,
                           why_text(&inner, rc));
        uint32_t own = pattern_rule(c->p);
        pattern_define(c->p, own, args);
        pattern_add(c->p, any,
                    list(c, name_of(c, name),
                         written(c, c->format->write.follow),
                         pattern_call(c->p, own)));
    }
    pattern_define(c->p, rule,
                   list(c, written(c, c->format->write.lead), any,
                        written(c, c->format->write.tail)));
    return 0;
}

static pattern_node all_calls(struct calls *c, uint32_t call)
{
    pattern_node more = list(c, written(c, c->format->write.joint),
                             pattern_call(c->p, call), 0);
    pattern_node some = list(c, pattern_call(c->p, call),
                             pattern_repeat(c->p, more, 0, c->one ? 0 : -1), 0);
    return list(c, written(c, c->format->write.begin), some,
                written(c, c->format->write.end));
}

static pattern_node answer(struct calls *c, uint32_t call)
{
    const struct toolcall_format *f = c->format;
    if (c->must) return all_calls(c, call);
    char first_not = f->bare ? '{' : 0;
    pattern_node text = free_text(c, f->section, f->call, true, first_not);
    pattern_node both =
        list(c, free_text(c, f->section, f->call, true, first_not),
             f->bare ? written(c, f->section) : 0, all_calls(c, call));
    if (f->bare)
        both = either(c, both, list(c, blanks(c), all_calls(c, call), 0));
    return either(c, text, both);
}

/* Reasoning up to its end, blanks, then the answer; or, where no call must
 * come, reasoning that is not closed. */
static pattern_node thought(struct calls *c, uint32_t call)
{
    const char *end = c->reasoning->end;
    pattern_node closed =
        list(c, free_text(c, end, NULL, true, 0), written(c, end),
             list(c, blanks(c), answer(c, call), 0));
    if (c->must) return closed;
    return either(c, closed, free_text(c, end, NULL, true, 0));
}

int pattern_calls(struct pattern *p, const struct tokenizer *tokenizer,
                  const json_t *text, struct why *why)
{
    struct calls c = {
        .p = p, .j = {.p = p}, .tokenizer = tokenizer, .why = why};
    int rc = read_spec(&c, text, why);
    if (rc) return rc;
    uint32_t whole = pattern_rule(p), call = pattern_rule(p);
    rc = define_call(&c, call);
    if (rc) return rc;
    pattern_node tree;
    if (!c.reasoning)
        tree = answer(&c, call);
    else if (c.inside)
        tree = thought(&c, call);
    else
        tree = either(&c, answer(&c, call),
                      list(&c, blanks(&c), written(&c, c.reasoning->begin),
                           thought(&c, call)));
    pattern_define(p, whole, tree);
    return 0;
}
