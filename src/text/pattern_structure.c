#include "text/pattern_structure.h"

#include "text/pattern_regex.h"
#include "text/pattern_schema.h"
#include "text/pattern_tags.h"

#include <string.h>

enum { NESTED_MAX = 32, TEXTS_MAX = 16 };

struct structure {
    struct pattern *p;
    struct pattern_json j;
    const struct tokenizer *tokenizer;
    int depth;
    struct why *why;
};

/* Texts that any text must not have in it. */
struct texts {
    const char *texts[TEXTS_MAX];
    size_t count;
};

static int refuse(struct structure *s, int code, const char *what,
                  const char *name)
{
    return err_set(s->why, code, "structural_tag: %s%.60s", what, name);
}

static int format(struct structure *s, const json_t *of,
                  const struct texts *without, pattern_node *out);

/* ---- members ---- */

/* Refuses what is not among names (a NULL behind the last). */
static int only(struct structure *s, const json_t *of, const char *const *names)
{
    const char *key;
    json_t *v;
    json_object_foreach ((json_t *)(uintptr_t)of, key, v) {
        size_t i = 0;
        while (names[i] && strcmp(names[i], key) != 0)
            i++;
        if (!names[i])
            return refuse(s, ERR_UNSUPPORTED, "unknown member ", key);
    }
    return 0;
}

static int text_of(struct structure *s, const json_t *v, const char *name,
                   const char **out)
{
    *out = json_string_value(v);
    if (!*out || strlen(*out) != json_string_length(v))
        return refuse(s, ERR_INVALID, "a text is needed: ", name);
    return 0;
}

static int list_of(struct structure *s, const json_t *of, const char *name,
                   const json_t **out)
{
    *out = json_object_get(of, name);
    if (!json_is_array(*out) || !json_array_size(*out))
        return refuse(s, ERR_INVALID, "a list is needed: ", name);
    return 0;
}

static int add_text(struct structure *s, struct texts *to, const char *text)
{
    if (!*text) return refuse(s, ERR_INVALID, "a text is empty", "");
    if (to->count == TEXTS_MAX)
        return refuse(s, ERR_RANGE, "too many triggers and ends", "");
    to->texts[to->count++] = text;
    return 0;
}

static pattern_node any_text(struct structure *s, const struct texts *without)
{
    return pattern_tags_none(s->p, s->tokenizer, without->texts, without->count,
                             0);
}

static pattern_node pair(struct structure *s, pattern_node a, pattern_node b)
{
    return pattern_json_list(&s->j, a, b, 0);
}

/* ---- tags ---- */

/* The ends of a tag: one or more texts; empty: it ends with its content. */
static int read_ends(struct structure *s, const json_t *ends,
                     struct texts *inside, pattern_node *out)
{
    const char *text;
    size_t i;
    const json_t *v;
    if (json_is_string(ends)) {
        int rc = text_of(s, ends, "end", &text);
        *out = pattern_tags_written(s->p, s->tokenizer, text);
        return rc || !*text ? rc : add_text(s, inside, text);
    }
    if (!json_is_array(ends) || !json_array_size(ends))
        return refuse(s, ERR_INVALID, "a text or list is needed: end", "");
    *out = pattern_choice(s->p);
    json_array_foreach (ends, i, v) {
        int rc = text_of(s, v, "end", &text);
        if (!rc) rc = add_text(s, inside, text);
        if (rc) return rc;
        pattern_add(s->p, *out, pattern_tags_written(s->p, s->tokenizer, text));
    }
    return 0;
}

/* begin, content, end; of the older form schema is the content. */
static int tag(struct structure *s, const json_t *of, pattern_node *out)
{
    static const char *const names[] = {"type",   "begin", "content",
                                        "schema", "end",   NULL};
    struct texts inside = {.count = 0};
    const char *begin;
    pattern_node content, end = 0;
    const json_t *schema = json_object_get(of, "schema");
    int rc = json_is_object(of)
                 ? only(s, of, names)
                 : refuse(s, ERR_INVALID, "a tag is no object", "");
    if (!rc) rc = text_of(s, json_object_get(of, "begin"), "begin", &begin);
    if (!rc) rc = read_ends(s, json_object_get(of, "end"), &inside, &end);
    if (rc) return rc;
    rc = schema ? pattern_schema_part(&s->j, schema, schema, &content, s->why)
                : format(s, json_object_get(of, "content"), &inside, &content);
    if (rc) return rc;
    uint32_t rule = pattern_rule(s->p); /* its content stands here alone */
    pattern_define(s->p, rule, content);
    *out = pattern_json_list(&s->j,
                             pattern_tags_written(s->p, s->tokenizer, begin),
                             pattern_call(s->p, rule), end);
    return 0;
}

/* One of the tags, a rule; with triggers each begins with one of them. */
static int one_of_tags(struct structure *s, const json_t *tags,
                       const struct texts *triggers, uint32_t *rule)
{
    size_t i;
    const json_t *of;
    pattern_node all = pattern_choice(s->p);
    json_array_foreach (tags, i, of) {
        pattern_node one;
        int rc = tag(s, of, &one);
        if (rc) return rc;
        const char *begin = json_string_value(json_object_get(of, "begin"));
        bool fits = !triggers;
        for (size_t t = 0; triggers && t < triggers->count; t++)
            fits |= strncmp(begin, triggers->texts[t],
                            strlen(triggers->texts[t])) == 0;
        if (!fits)
            return refuse(s, ERR_INVALID, "no trigger begins the tag ", begin);
        pattern_add(s->p, all, one);
    }
    *rule = pattern_rule(s->p);
    pattern_define(s->p, *rule, all);
    return 0;
}

static int counts(struct structure *s, const json_t *of, bool *some, bool *one)
{
    *some = *one = false;
    int rc = json_get_bool(of, "at_least_one", some, s->why);
    if (!rc) rc = json_get_bool(of, "stop_after_first", one, s->why);
    return rc;
}

/* Any text with tags in it. With at_least_one it begins with one. */
static int triggered(struct structure *s, const json_t *of,
                     const char *tags_key, const struct texts *without,
                     pattern_node *out)
{
    struct texts triggers = {.count = 0}, both = *without;
    const json_t *list, *tags, *v;
    const char *text;
    bool some, single;
    size_t i;
    uint32_t rule;
    int rc = list_of(s, of, "triggers", &list);
    if (!rc) rc = list_of(s, of, tags_key, &tags);
    if (!rc) rc = counts(s, of, &some, &single);
    if (rc) return rc;
    json_array_foreach (list, i, v) {
        rc = text_of(s, v, "triggers", &text);
        if (!rc) rc = add_text(s, &triggers, text);
        if (!rc) rc = add_text(s, &both, text);
        if (rc) return rc;
    }
    json_array_foreach (json_object_get(of, "excludes"), i, v) {
        rc = text_of(s, v, "excludes", &text);
        if (!rc) rc = add_text(s, &both, text);
        if (rc) return rc;
    }
    rc = one_of_tags(s, tags, &triggers, &rule);
    if (rc) return rc;
    pattern_node first = pattern_call(s->p, rule);
    if (!some) first = pair(s, any_text(s, &both), first);
    if (!single) {
        pattern_node more =
            pair(s, any_text(s, &both), pattern_call(s->p, rule));
        first =
            pattern_json_list(&s->j, first, pattern_repeat(s->p, more, 0, -1),
                              any_text(s, &both));
    }
    *out = pattern_choice(s->p);
    if (!some) pattern_add(s->p, *out, any_text(s, &both));
    pattern_add(s->p, *out, first);
    return 0;
}

static int separated(struct structure *s, const json_t *of, pattern_node *out)
{
    const json_t *tags;
    const char *separator;
    bool some, single;
    uint32_t rule;
    int rc = list_of(s, of, "tags", &tags);
    if (!rc)
        rc = text_of(s, json_object_get(of, "separator"), "separator",
                     &separator);
    if (!rc) rc = counts(s, of, &some, &single);
    if (!rc) rc = one_of_tags(s, tags, NULL, &rule);
    if (rc) return rc;
    pattern_node more =
        pair(s, pattern_tags_written(s->p, s->tokenizer, separator),
             pattern_call(s->p, rule));
    pattern_node all = pair(s, pattern_call(s->p, rule),
                            pattern_repeat(s->p, more, 0, single ? 0 : -1));
    *out = pattern_repeat(s->p, all, some, 1);
    return 0;
}

/* ---- formats ---- */

static int elements(struct structure *s, const json_t *of, bool choice,
                    const struct texts *without, pattern_node *out)
{
    size_t i;
    const json_t *list, *v;
    int rc = list_of(s, of, "elements", &list);
    if (rc) return rc;
    *out = choice ? pattern_choice(s->p) : pattern_sequence(s->p);
    json_array_foreach (list, i, v) {
        pattern_node one;
        rc = format(s, v, without, &one);
        if (rc) return rc;
        pattern_add(s->p, *out, one);
    }
    return 0;
}

static int by_type(struct structure *s, const json_t *of, const char *type,
                   const struct texts *without, pattern_node *out)
{
    static const char *const names[] = {
        "type",      "value",    "json_schema",  "pattern",          "elements",
        "begin",     "content",  "end",          "triggers",         "tags",
        "separator", "excludes", "at_least_one", "stop_after_first", NULL};
    const char *text;
    const json_t *schema = json_object_get(of, "json_schema");
    int rc = only(s, of, names);
    if (rc) return rc;
    if (!strcmp(type, "const_string")) {
        rc = text_of(s, json_object_get(of, "value"), "value", &text);
        if (!rc) *out = pattern_tags_written(s->p, s->tokenizer, text);
        return rc;
    }
    if (!strcmp(type, "json_schema"))
        return pattern_schema_part(&s->j, schema, schema, out, s->why);
    if (!strcmp(type, "regex")) {
        rc = text_of(s, json_object_get(of, "pattern"), "pattern", &text);
        return rc ? rc
                  : pattern_regex(s->p, out, text, strlen(text), REGEX_WHOLE,
                                  s->why);
    }
    if (!strcmp(type, "any_text")) {
        if (json_object_get(of, "excludes"))
            return refuse(s, ERR_UNSUPPORTED, "any_text with ", "excludes");
        *out = any_text(s, without);
        return 0;
    }
    if (!strcmp(type, "sequence")) return elements(s, of, false, without, out);
    if (!strcmp(type, "or")) return elements(s, of, true, without, out);
    if (!strcmp(type, "tag")) return tag(s, of, out);
    if (!strcmp(type, "triggered_tags"))
        return triggered(s, of, "tags", without, out);
    if (!strcmp(type, "tags_with_separator")) return separated(s, of, out);
    return refuse(s, ERR_UNSUPPORTED, "a format of type ", type);
}

static int format(struct structure *s, const json_t *of,
                  const struct texts *without, pattern_node *out)
{
    const char *type = json_string_value(json_object_get(of, "type"));
    if (!type)
        return refuse(s, ERR_INVALID, "a format must be an object with a type",
                      "");
    if (s->depth == NESTED_MAX)
        return refuse(s, ERR_RANGE, "formats are nested too deeply", "");
    s->depth++;
    int rc = by_type(s, of, type, without, out);
    s->depth--;
    return rc;
}

int pattern_structure(struct pattern *p, const struct tokenizer *tokenizer,
                      const json_t *of, struct why *why)
{
    static const char *const names[] = {
        "type", "format", "structures", "triggers", "at_least_one", NULL};
    struct structure s = {
        .p = p, .j = {.p = p}, .tokenizer = tokenizer, .why = why};
    const struct texts nothing = {.count = 0};
    pattern_node tree;
    uint32_t whole = pattern_rule(p);
    if (!json_is_object(of))
        return refuse(&s, ERR_INVALID, "an object is needed", "");
    int rc = only(&s, of, names);
    if (rc) return rc;
    rc = json_object_get(of, "structures")
             ? triggered(&s, of, "structures", &nothing, &tree)
             : format(&s, json_object_get(of, "format"), &nothing, &tree);
    if (!rc) pattern_define(p, whole, tree);
    return rc;
}
