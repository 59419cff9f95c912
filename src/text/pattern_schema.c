#include "text/pattern_schema.h"

#include "base/mem.h"
#include "text/pattern_json.h"
#include "text/pattern_regex.h"

#include <stdlib.h>
#include <string.h>

enum { NESTED_MAX = 64, REFS_MAX = 1000, ITEMS_MAX = 4096 };

struct schema {
    struct pattern_json j;
    const json_t *root;
    struct ref { /* a schema somewhere in root, and its rule */
        const json_t *target;
        uint32_t rule;
    } * refs;
    size_t ref_count;
    const char *where; /* the innermost member's name */
    int depth;
    struct why *why;
};

static int refuse(struct schema *s, int code, const char *keyword,
                  const char *what)
{
    return err_set(s->why, code, "json_schema%s%.60s: %.40s %s",
                   s->where ? " at " : "", s->where ? s->where : "", keyword,
                   what);
}

/* ---- types ---- */

static int int_limit(struct schema *s, const json_t *schema, const char *key,
                     int64_t *out, bool *given)
{
    const json_t *v = json_object_get(schema, key);
    *given = v != NULL;
    if (!v) return 0;
    if (json_is_real(v) && json_real_value(v) > -1e15 &&
        json_real_value(v) < 1e15 &&
        json_real_value(v) == (double)(int64_t)json_real_value(v)) {
        *out = (int64_t)json_real_value(v);
        return 0;
    }
    if (!json_is_integer(v))
        return refuse(s, ERR_INVALID, key, "must be a whole number");
    *out = json_integer_value(v);
    return 0;
}

static int integer(struct schema *s, const json_t *schema, pattern_node *out)
{
    const int64_t most = 999999999999999999; /* JSON_DIGITS nines */
    int64_t lo = -most, hi = most, x = 0;
    bool any = false, given;
    int rc = int_limit(s, schema, "minimum", &x, &given);
    if (!rc && given) lo = x, any = true;
    if (!rc) rc = int_limit(s, schema, "exclusiveMinimum", &x, &given);
    if (!rc && given && x >= lo) lo = x < most ? x + 1 : x, any = true;
    if (!rc) rc = int_limit(s, schema, "maximum", &x, &given);
    if (!rc && given) hi = x, any = true;
    if (!rc) rc = int_limit(s, schema, "exclusiveMaximum", &x, &given);
    if (!rc && given && x <= hi) hi = x > -most ? x - 1 : x, any = true;
    if (rc) return rc;
    if (lo < -most) lo = -most;
    if (hi > most) hi = most;
    if (lo > hi)
        return refuse(s, ERR_INVALID, "integer", "has no value in its limits");
    if (!any) {
        *out = pattern_json_whole_number(&s->j);
        return 0;
    }
    *out = pattern_choice(s->j.p);
    if (lo < 0)
        pattern_json_add_naturals(&s->j, *out, "-", hi < 0 ? -hi : 1, -lo);
    if (hi >= 0)
        pattern_json_add_naturals(&s->j, *out, "", lo > 0 ? lo : 0, hi);
    return 0;
}

/* A bound of a length, min or max. */
static int length(struct schema *s, const json_t *schema, const char *key,
                  int *out)
{
    int64_t n = 0;
    bool given;
    int rc = int_limit(s, schema, key, &n, &given);
    if (rc || !given) return rc;
    if (n < 0) return refuse(s, ERR_INVALID, key, "must not be negative");
    if (n > ITEMS_MAX) return refuse(s, ERR_RANGE, key, "is too large");
    *out = (int)n;
    return 0;
}

static int lengths(struct schema *s, const json_t *schema, const char *min_key,
                   int *min, const char *max_key, int *max)
{
    *min = 0;
    *max = -1;
    int rc = length(s, schema, min_key, min);
    if (!rc) rc = length(s, schema, max_key, max);
    if (!rc && *max >= 0 && *max < *min)
        rc = refuse(s, ERR_INVALID, max_key, "is below the least");
    return rc;
}

static const char *format_regex(const json_t *format)
{
    static const struct {
        const char *name, *regex;
    } formats[] = {
#define DAY "[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
#define CLOCK                                                         \
    "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]" \
    "([01][0-9]|2[0-3]):[0-5][0-9])"
        {"date", "^" DAY "$"},
        {"time", "^" CLOCK "$"},
        {"date-time", "^" DAY "T" CLOCK "$"},
        {"uuid", "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-"
                 "[0-9a-f]{12}$"},
    };
    const char *name = json_string_value(format);
    for (size_t i = 0; name && i < sizeof formats / sizeof *formats; i++)
        if (strcmp(formats[i].name, name) == 0) return formats[i].regex;
    return NULL;
}

static int string(struct schema *s, const json_t *schema, pattern_node *out)
{
    const json_t *given = json_object_get(schema, "pattern");
    const char *regex = json_string_value(given);
    int min, max;
    int rc = lengths(s, schema, "minLength", &min, "maxLength", &max);
    if (rc) return rc;
    if (given && !regex)
        return refuse(s, ERR_INVALID, "pattern", "must be a string");
    if (!regex) regex = format_regex(json_object_get(schema, "format"));
    bool sized = min > 0 || max >= 0;
    if (regex && sized)
        return refuse(s, ERR_UNSUPPORTED, given ? "pattern" : "format",
                      "with a length is not supported");
    if (regex) {
        rc = pattern_regex(s->j.p, out, regex, strlen(regex), REGEX_JSON_STRING,
                           s->why);
        *out = pattern_json_quoted(&s->j, *out);
        return rc;
    }
    *out = sized ? pattern_json_quoted(
                       &s->j, pattern_repeat(s->j.p, pattern_json_char(s->j.p),
                                             min, max))
                 : pattern_json_call_string(&s->j);
    return 0;
}

static int compile(struct schema *s, const json_t *schema, pattern_node *out);

/* A schema as a rule, for places that have it more than once. */
static int as_rule(struct schema *s, const json_t *schema, uint32_t *rule)
{
    pattern_node tree;
    *rule = pattern_rule(s->j.p);
    int rc = compile(s, schema, &tree);
    if (!rc) pattern_define(s->j.p, *rule, tree);
    return rc;
}

/* items beyond the first `fixed`, between min and max in all. */
static int add_items(struct schema *s, const json_t *items, pattern_node all,
                     int fixed, int min, int max)
{
    uint32_t item;
    int least = min > fixed ? min - fixed : 0;
    int most = max < 0 ? -1 : max - fixed;
    if (most == 0) return 0;
    int rc = as_rule(s, items, &item);
    if (rc) return rc;
    pattern_node more = pattern_json_list(&s->j, pattern_json_comma(&s->j),
                                          pattern_call(s->j.p, item), 0);
    if (fixed) { /* something stands before them */
        pattern_add(s->j.p, all, pattern_repeat(s->j.p, more, least, most));
        return 0;
    }
    pattern_node rest =
        pattern_json_list(&s->j, pattern_call(s->j.p, item),
                          pattern_repeat(s->j.p, more, least ? least - 1 : 0,
                                         most < 0 ? -1 : most - 1),
                          0);
    pattern_add(s->j.p, all, least ? rest : pattern_repeat(s->j.p, rest, 0, 1));
    return 0;
}

static int array(struct schema *s, const json_t *schema, pattern_node *out)
{
    const json_t *items = json_object_get(schema, "items");
    const json_t *prefix = json_object_get(schema, "prefixItems");
    int min, max, fixed = (int)json_array_size(prefix);
    int rc = lengths(s, schema, "minItems", &min, "maxItems", &max);
    if (rc) return rc;
    if (prefix && !json_is_array(prefix))
        return refuse(s, ERR_INVALID, "prefixItems", "must be a list");
    if (fixed && ((min && min < fixed) || (max >= 0 && max < fixed)))
        return refuse(s, ERR_UNSUPPORTED, "minItems or maxItems",
                      "below the number of prefixItems is not supported");
    if (!items && !prefix && !min && max < 0) {
        *out = pattern_json_call_array(&s->j);
        return 0;
    }
    pattern_node all = pattern_sequence(s->j.p), one;
    for (int i = 0; i < fixed && !rc; i++) {
        rc = compile(s, json_array_get(prefix, (size_t)i), &one);
        if (!rc && i) pattern_add(s->j.p, all, pattern_json_comma(&s->j));
        if (!rc) pattern_add(s->j.p, all, one);
    }
    bool none = json_is_false(items) || (prefix && !items);
    if (none && (min > fixed))
        return refuse(s, ERR_INVALID, "minItems", "asks for more than items");
    if (!rc && !none)
        rc = add_items(s, items ? items : json_true(), all, fixed, min, max);
    *out = pattern_json_bracketed(&s->j, "[", all, "]");
    return rc;
}

static bool is_required(const json_t *schema, const char *key)
{
    size_t i;
    const json_t *name;
    json_array_foreach (json_object_get(schema, "required"), i, name)
        if (json_is_string(name) && strcmp(json_string_value(name), key) == 0)
            return true;
    return false;
}

/* A JSON value as text, on one line. */
static pattern_node literal(struct schema *s, const json_t *value)
{
    char *t = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY |
                                    JSON_REAL_PRECISION(15));
    pattern_node node = pattern_json_text(&s->j, t ? t : "null");
    free(t);
    return node;
}

static int check_required(struct schema *s, const json_t *schema)
{
    const json_t *required = json_object_get(schema, "required");
    const json_t *properties = json_object_get(schema, "properties");
    size_t i;
    const json_t *name;
    if (required && !json_is_array(required))
        return refuse(s, ERR_INVALID, "required", "must be a list");
    json_array_foreach (required, i, name)
        if (!json_is_string(name) ||
            !json_object_get(properties, json_string_value(name)))
            return refuse(s, ERR_UNSUPPORTED, "required",
                          "names what properties does not");
    return 0;
}

/* Whatever else an object may have, as one item. */
static int add_others(struct schema *s, const json_t *schema,
                      pattern_node members)
{
    uint32_t rule;
    int rc = as_rule(s, schema, &rule);
    if (rc) return rc;
    pattern_node first = pattern_call(s->j.p, rule);
    pattern_node next = pattern_call(s->j.p, rule);
    pattern_node more = pattern_json_list(
        &s->j, pattern_json_comma(&s->j),
        pattern_json_pair(&s->j, pattern_json_call_string(&s->j), next), 0);
    pattern_add_optional(
        s->j.p, members,
        pattern_json_list(
            &s->j,
            pattern_json_pair(&s->j, pattern_json_call_string(&s->j), first),
            pattern_repeat(s->j.p, more, 0, -1), 0));
    return 0;
}

static int object(struct schema *s, const json_t *schema, pattern_node *out)
{
    const json_t *properties = json_object_get(schema, "properties");
    const json_t *others = json_object_get(schema, "additionalProperties");
    const char *key;
    json_t *value;
    if (properties && !json_is_object(properties))
        return refuse(s, ERR_INVALID, "properties", "must be an object");
    int rc = check_required(s, schema);
    if (!properties && (!others || json_is_true(others))) {
        *out = pattern_json_call_object(&s->j);
        return rc;
    }
    pattern_node members = pattern_joined(s->j.p, pattern_json_comma(&s->j)),
                 one;
    uint32_t rule;
    const char *outer = s->where;
    json_object_foreach ((json_t *)(uintptr_t)properties, key, value) {
        if (rc) return rc;
        s->where = key;
        rc = as_rule(s, value, &rule);
        s->where = outer;
        if (rc) return rc;
        one = pattern_call(s->j.p, rule);
        json_t *name = json_string(key);
        one = pattern_json_pair(&s->j, literal(s, name), one);
        json_decref(name);
        if (is_required(schema, key))
            pattern_add(s->j.p, members, one);
        else
            pattern_add_optional(s->j.p, members, one);
    }
    if (!rc && others && !json_is_false(others))
        rc = add_others(s, others, members);
    *out = pattern_json_bracketed(&s->j, "{", members, "}");
    return rc;
}

static int number(struct schema *s, const json_t *schema, pattern_node *out)
{
    static const char *const limits[] = {
        "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"};
    for (int i = 0; i < 4; i++)
        if (json_object_get(schema, limits[i]))
            return refuse(s, ERR_UNSUPPORTED, limits[i],
                          "of a number that is no integer is not supported");
    *out = pattern_json_call_number(&s->j);
    return 0;
}

static int of_type(struct schema *s, const json_t *schema, const char *type,
                   pattern_node *out)
{
    if (strcmp(type, "object") == 0) return object(s, schema, out);
    if (strcmp(type, "array") == 0) return array(s, schema, out);
    if (strcmp(type, "string") == 0) return string(s, schema, out);
    if (strcmp(type, "integer") == 0) return integer(s, schema, out);
    if (strcmp(type, "number") == 0) return number(s, schema, out);
    if (strcmp(type, "boolean") == 0)
        *out = pattern_json_boolean(&s->j);
    else if (strcmp(type, "null") == 0)
        *out = pattern_json_text(&s->j, "null");
    else
        return refuse(s, ERR_INVALID, type, "is no type");
    return 0;
}

/* ---- a schema ---- */

/* Keywords and the type that a schema without one then means. */
static const struct {
    const char *name, *type; /* "": none; NULL: says nothing */
} keywords[] = {
    {"type", ""},
    {"enum", ""},
    {"const", ""},
    {"anyOf", ""},
    {"oneOf", ""},
    {"allOf", ""},
    {"$ref", ""},
    {"properties", "object"},
    {"required", "object"},
    {"additionalProperties", "object"},
    {"items", "array"},
    {"prefixItems", "array"},
    {"minItems", "array"},
    {"maxItems", "array"},
    {"minLength", "string"},
    {"maxLength", "string"},
    {"pattern", "string"},
    {"minimum", "number"},
    {"maximum", "number"},
    {"exclusiveMinimum", "number"},
    {"exclusiveMaximum", "number"},
    {"format", NULL},
    {"title", NULL},
    {"description", NULL},
    {"default", NULL},
    {"example", NULL},
    {"examples", NULL},
    {"deprecated", NULL},
    {"readOnly", NULL},
    {"writeOnly", NULL},
    {"discriminator", NULL},
    {"$schema", NULL},
    {"$id", NULL},
    {"$comment", NULL},
    {"$defs", NULL},
    {"definitions", NULL},
};

/* How many keywords of a schema say something; *type as above. */
static int look(struct schema *s, const json_t *schema, size_t *says,
                const char **type)
{
    const char *key;
    json_t *value;
    *says = 0;
    *type = NULL;
    json_object_foreach ((json_t *)(uintptr_t)schema, key, value) {
        size_t i = 0, count = sizeof keywords / sizeof *keywords;
        while (i < count && strcmp(keywords[i].name, key) != 0)
            i++;
        if (i == count)
            return refuse(s, ERR_UNSUPPORTED, key, "is not supported");
        if (!keywords[i].type) continue;
        ++*says;
        if (!*keywords[i].type) continue;
        *type = keywords[i].type;
    }
    return 0;
}

static int choice_of(struct schema *s, const json_t *list_, const char *keyword,
                     bool literals, pattern_node *out)
{
    size_t i;
    const json_t *value;
    if (!json_is_array(list_) || !json_array_size(list_))
        return refuse(s, ERR_INVALID, keyword, "must be a list, not empty");
    *out = pattern_choice(s->j.p);
    json_array_foreach (list_, i, value) {
        pattern_node one;
        int rc = 0;
        if (literals)
            one = literal(s, value);
        else
            rc = compile(s, value, &one);
        if (rc) return rc;
        pattern_add(s->j.p, *out, one);
    }
    return 0;
}

/* The schema that "#/a/b" names; NULL: none. */
static const json_t *resolve(const json_t *root, const char *ref)
{
    char name[256];
    if (ref[0] != '#') return NULL;
    const json_t *at = root;
    for (ref++; at && *ref == '/';) {
        size_t n = 0;
        for (ref++; *ref && *ref != '/' && n + 1 < sizeof name; ref++) {
            char c = *ref;
            if (c == '~' && (ref[1] == '0' || ref[1] == '1'))
                c = *++ref == '0' ? '~' : '/';
            name[n++] = c;
        }
        name[n] = 0;
        at = json_is_array(at) ? json_array_get(at, strtoul(name, NULL, 10))
                               : json_object_get(at, name);
    }
    return *ref ? NULL : at;
}

static int reference(struct schema *s, const json_t *ref, pattern_node *out)
{
    const char *name = json_string_value(ref);
    const json_t *target = name ? resolve(s->root, name) : NULL;
    if (!target)
        return refuse(s, ERR_INVALID, name ? name : "$ref",
                      "names nothing in the schema");
    for (size_t i = 0; i < s->ref_count; i++)
        if (s->refs[i].target == target) {
            *out = pattern_call(s->j.p, s->refs[i].rule);
            return 0;
        }
    if (s->ref_count == REFS_MAX)
        return refuse(s, ERR_RANGE, "$ref", "names too many schemas");
    uint32_t rule = pattern_rule(s->j.p);
    s->refs[s->ref_count++] = (struct ref){target, rule};
    pattern_node tree;
    int rc = compile(s, target, &tree);
    if (rc) return rc;
    pattern_define(s->j.p, rule, tree);
    *out = pattern_call(s->j.p, rule);
    return 0;
}

static int alone(struct schema *s, size_t says, const char *keyword)
{
    if (says == 1) return 0;
    return refuse(s, ERR_UNSUPPORTED, keyword,
                  "beside other keywords is not supported");
}

static int of_types(struct schema *s, const json_t *schema, const json_t *type,
                    pattern_node *out)
{
    size_t i;
    const json_t *name;
    if (json_is_string(type))
        return of_type(s, schema, json_string_value(type), out);
    if (!json_is_array(type) || !json_array_size(type))
        return refuse(s, ERR_INVALID, "type", "must be a string or a list");
    *out = pattern_choice(s->j.p);
    json_array_foreach (type, i, name) {
        pattern_node one;
        if (!json_is_string(name))
            return refuse(s, ERR_INVALID, "type", "must name types");
        int rc = of_type(s, schema, json_string_value(name), &one);
        if (rc) return rc;
        pattern_add(s->j.p, *out, one);
    }
    return 0;
}

static int compile_object(struct schema *s, const json_t *schema,
                          pattern_node *out)
{
    static const char *const unions[] = {"anyOf", "oneOf"};
    const char *implied;
    size_t says;
    int rc = look(s, schema, &says, &implied);
    if (rc) return rc;
    const json_t *v = json_object_get(schema, "$ref");
    if (v) {
        rc = alone(s, says, "$ref");
        return rc ? rc : reference(s, v, out);
    }
    for (int i = 0; i < 2; i++)
        if ((v = json_object_get(schema, unions[i]))) {
            rc = alone(s, says, unions[i]);
            return rc ? rc : choice_of(s, v, unions[i], false, out);
        }
    if ((v = json_object_get(schema, "allOf"))) {
        if (says > 1 || json_array_size(v) != 1)
            return refuse(s, ERR_UNSUPPORTED, "allOf",
                          "of more than one is not supported");
        return compile(s, json_array_get(v, 0), out);
    }
    if ((v = json_object_get(schema, "const"))) {
        *out = literal(s, v);
        return 0;
    }
    if ((v = json_object_get(schema, "enum")))
        return choice_of(s, v, "enum", true, out);
    if ((v = json_object_get(schema, "type")))
        return of_types(s, schema, v, out);
    if (implied) return of_type(s, schema, implied, out);
    *out = pattern_json_call_any(&s->j);
    return 0;
}

static int compile(struct schema *s, const json_t *schema, pattern_node *out)
{
    *out = 0;
    if (json_is_true(schema)) {
        *out = pattern_json_call_any(&s->j);
        return 0;
    }
    if (!json_is_object(schema))
        return refuse(s, ERR_INVALID, "a schema", "must be an object, or true");
    if (s->depth == NESTED_MAX)
        return refuse(s, ERR_RANGE, "the schema", "is nested too deeply");
    s->depth++;
    int rc = compile_object(s, schema, out);
    s->depth--;
    return rc;
}

int pattern_schema_part(struct pattern_json *j, const json_t *root,
                        const json_t *schema, pattern_node *out,
                        struct why *why)
{
    struct schema s = {.j = *j, .root = root, .why = why};
    s.refs = mem_must(REFS_MAX, sizeof *s.refs);
    int rc = compile(&s, schema, out);
    mem_free(s.refs);
    *j = s.j;
    return rc;
}

int pattern_schema(struct pattern *p, const json_t *schema, struct why *why)
{
    struct pattern_json j = {.p = p};
    pattern_node tree;
    uint32_t whole = pattern_rule(p);
    int rc = pattern_schema_part(&j, schema, schema, &tree, why);
    if (!rc) pattern_define(p, whole, tree);
    return rc;
}
