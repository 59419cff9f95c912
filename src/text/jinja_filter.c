/* jinja2's filters, those that chat templates use. */
#include "text/jinja.h"
#include "text/utf8.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct jinja_value value;
typedef struct jinja_args args;

static bool given(value v)
{
    return v.kind != JINJA_UNDEFINED;
}

static value text_of(struct jinja *j, value v)
{
    return jinja_to_str(j, v);
}

/* obj.a.0.b, as map(attribute=) and its like read it. */
static value attribute(struct jinja *j, value v, value path)
{
    if (path.kind != JINJA_STR) return jinja_item(j, v, path);
    size_t from = 0;
    while (from <= path.len) {
        const char *dot = memchr(path.u.s + from, '.', path.len - from);
        size_t end = dot ? (size_t)(dot - path.u.s) : path.len;
        value key = jinja_str(j, path.u.s + from, end - from);
        bool digits = key.len > 0 && key.len < 10;
        int64_t index = 0;
        for (size_t i = 0; i < key.len && digits; i++) {
            digits = key.u.s[i] >= '0' && key.u.s[i] <= '9';
            index = index * 10 + (key.u.s[i] - '0');
        }
        v = jinja_item(j, v, digits ? jinja_whole(index) : key);
        from = end + 1;
    }
    return v;
}

/* Strings. */

static value f_upper(struct jinja *j, value v, const args *a)
{
    jinja_bind(j, "upper", "", 0, a, NULL);
    return jinja_recase(j, text_of(j, v), JINJA_UPPER);
}

static value f_lower(struct jinja *j, value v, const args *a)
{
    jinja_bind(j, "lower", "", 0, a, NULL);
    return jinja_recase(j, text_of(j, v), JINJA_LOWER);
}

static value f_capitalize(struct jinja *j, value v, const args *a)
{
    jinja_bind(j, "capitalize", "", 0, a, NULL);
    return jinja_recase(j, text_of(j, v), JINJA_CAPITAL);
}

/* Words start after blanks, hyphens and opening brackets only. */
static value f_title(struct jinja *j, value v, const args *a)
{
    struct jinja_text t = {0};
    jinja_bind(j, "title", "", 0, a, NULL);
    v = text_of(j, v);
    size_t from = 0, len;
    for (size_t i = 0; i <= v.len; i += len) {
        bool end = i == v.len;
        len = end ? 1 : utf8_len((unsigned char)v.u.s[i]);
        bool breaks = !end && (jinja_is_space(utf8_get(v.u.s + i, &len)) ||
                               strchr("-({[<", v.u.s[i]));
        if (!end && !breaks) continue;
        value word = jinja_str(j, v.u.s + from, i - from);
        jinja_print(j, &t, jinja_recase(j, word, JINJA_CAPITAL));
        if (!end) jinja_add(j, &t, v.u.s + i, len);
        from = i + len;
    }
    return jinja_str_of(j, &t);
}

static value f_trim(struct jinja *j, value v, const args *a)
{
    value chars;
    jinja_bind(j, "trim", "chars", 0, a, &chars);
    bool has = given(chars) && chars.kind != JINJA_NONE;
    if (has && chars.kind != JINJA_STR)
        jinja_fail(j, ERR_INVALID, "trim wants a string");
    return jinja_strip(j, text_of(j, v), has ? &chars : NULL, 3);
}

static value f_string(struct jinja *j, value v, const args *a)
{
    jinja_bind(j, "string", "", 0, a, NULL);
    return text_of(j, v);
}

static value f_safe(struct jinja *j, value v, const args *a)
{
    jinja_bind(j, "safe", "", 0, a, NULL);
    v = text_of(j, v);
    v.markup = 1;
    return v;
}

static value f_escape(struct jinja *j, value v, const args *a)
{
    value empty = jinja_str(j, "", 0);
    jinja_bind(j, "escape", "", 0, a, NULL);
    empty.markup = 1;
    return jinja_plus(j, empty, text_of(j, v));
}

static value f_replace(struct jinja *j, value v, const args *a)
{
    value p[3];
    jinja_bind(j, "replace", "old new count", 2, a, p);
    int64_t limit = -1;
    if (given(p[2]) && p[2].kind != JINJA_NONE) {
        if (p[2].kind != JINJA_WHOLE)
            jinja_fail(j, ERR_INVALID, "replace wants a whole count");
        limit = p[2].u.i;
    }
    return jinja_replace(j, text_of(j, v), text_of(j, p[0]), text_of(j, p[1]),
                         limit);
}

static value indent_by(struct jinja *j, value width)
{
    if (!given(width)) return jinja_str(j, "    ", 4);
    if (width.kind == JINJA_STR) return width;
    return jinja_arith(j, "*", jinja_str(j, " ", 1), width);
}

static value f_indent(struct jinja *j, value v, const args *a)
{
    value p[3];
    struct jinja_text t = {0};
    jinja_bind(j, "indent", "width first blank", 0, a, p);
    bool first = jinja_truth(j, p[1]), blank = jinja_truth(j, p[2]);
    value by = indent_by(j, p[0]);
    value s = jinja_plus(j, v, jinja_str(j, "\n", 1)); /* no str(v) */
    const struct jinja_list *lines = jinja_splitlines(j, s).u.list;
    for (size_t i = 0; i < lines->count; i++) {
        if (i) jinja_adds(j, &t, "\n");
        if (i ? blank || lines->items[i].len > 0 : first)
            jinja_print(j, &t, by);
        jinja_print(j, &t, lines->items[i]);
    }
    return jinja_str_of(j, &t);
}

static value separators_of(struct jinja *j, value v, size_t i)
{
    if (v.kind != JINJA_LIST || v.u.list->count != 2 ||
        v.u.list->items[i].kind != JINJA_STR)
        jinja_fail(j, ERR_INVALID, "separators are two strings");
    return v.u.list->items[i];
}

static value f_tojson(struct jinja *j, value v, const args *a)
{
    value p[4];
    struct jinja_text t = {0};
    jinja_bind(j, "tojson", "ensure_ascii indent separators sort_keys", 0, a,
               p);
    struct jinja_json_style style = {.ascii = jinja_truth(j, p[0]),
                                     .sort_keys = jinja_truth(j, p[3]),
                                     .item = ", ",
                                     .key = ": ",
                                     .item_len = 2,
                                     .key_len = 2};
    if (given(p[1]) && p[1].kind != JINJA_NONE) {
        value indent = indent_by(j, p[1]);
        style.indent = indent.u.s;
        style.indent_len = indent.len;
        style.item_len = 1;
    }
    if (given(p[2]) && p[2].kind != JINJA_NONE) {
        value item = separators_of(j, p[2], 0), key = separators_of(j, p[2], 1);
        style.item = item.u.s;
        style.item_len = item.len;
        style.key = key.u.s;
        style.key_len = key.len;
    }
    jinja_tojson(j, &t, v, &style);
    return jinja_str_of(j, &t);
}

/* Numbers. */

/* Python's int() and float() of a string: blanks around, "_" between digits. */
static bool parse_number(struct jinja *j, value v, bool real, value *out)
{
    char digits[128];
    size_t n = 0;
    v = jinja_strip(j, v, NULL, 3);
    if (!v.len || v.len >= sizeof digits) return false;
    for (size_t i = 0; i < v.len; i++) {
        char c = v.u.s[i];
        bool digit = c >= '0' && c <= '9';
        if (c == '_') {
            bool between = i && i + 1 < v.len && v.u.s[i - 1] >= '0' &&
                           v.u.s[i - 1] <= '9' && v.u.s[i + 1] >= '0' &&
                           v.u.s[i + 1] <= '9';
            if (!between) return false;
            continue;
        }
        if (!digit && !(i == 0 && (c == '+' || c == '-')) &&
            !(real && strchr("+-.eEinfINFatyATY", c)))
            return false;
        digits[n++] = c;
    }
    digits[n] = 0;
    char *end;
    errno = 0;
    if (real)
        *out = jinja_real(strtod(digits, &end));
    else
        *out = jinja_whole(strtoll(digits, &end, 10));
    if (end == digits || *end || !n) return false;
    if (!real && errno == ERANGE)
        jinja_fail(j, ERR_RANGE, "whole number beyond 64 bits");
    return true;
}

static void need_value(struct jinja *j, value v)
{
    if (!given(v))
        jinja_fail(j, ERR_INVALID, "'%.*s' is undefined",
                   (int)(v.len < 200 ? v.len : 200), v.u.s);
}

static value f_int(struct jinja *j, value v, const args *a)
{
    value p[2], n;
    jinja_bind(j, "int", "default base", 0, a, p);
    if (given(p[1]) && !(p[1].kind == JINJA_WHOLE && p[1].u.i == 10))
        jinja_fail(j, ERR_UNSUPPORTED, "int with a base");
    value fallback = given(p[0]) ? p[0] : jinja_whole(0);
    need_value(j, v);
    if (v.kind == JINJA_BOOL) return jinja_whole(v.u.b);
    if (v.kind == JINJA_WHOLE) return v;
    if (v.kind == JINJA_STR) {
        if (parse_number(j, v, false, &n)) return n;
        if (!parse_number(j, v, true, &v)) return fallback;
    }
    if (v.kind != JINJA_REAL || !isfinite(v.u.f)) return fallback;
    if (fabs(v.u.f) >= 9e18)
        jinja_fail(j, ERR_RANGE, "whole number beyond 64 bits");
    return jinja_whole((int64_t)v.u.f);
}

static value f_float(struct jinja *j, value v, const args *a)
{
    value p, n;
    jinja_bind(j, "float", "default", 0, a, &p);
    need_value(j, v);
    if (v.kind == JINJA_REAL) return v;
    if (jinja_is_number(v)) return jinja_plus(j, v, jinja_real(0));
    if (v.kind == JINJA_STR && parse_number(j, v, true, &n)) return n;
    return given(p) ? p : jinja_real(0);
}

static value f_abs(struct jinja *j, value v, const args *a)
{
    jinja_bind(j, "abs", "", 0, a, NULL);
    if (v.kind == JINJA_REAL) return jinja_real(fabs(v.u.f));
    if (jinja_compare(j, v, jinja_whole(0)) >= 0)
        return jinja_plus(j, v, jinja_whole(0));
    return jinja_arith(j, "-", jinja_whole(0), v);
}

static value f_round(struct jinja *j, value v, const args *a)
{
    value p[2];
    jinja_bind(j, "round", "precision method", 0, a, p);
    if (given(p[1]) && !jinja_is(p[1], "common"))
        jinja_fail(j, ERR_UNSUPPORTED, "round by another method than common");
    int64_t digits = given(p[0]) && p[0].kind == JINJA_WHOLE ? p[0].u.i : 0;
    if (!jinja_is_number(v)) jinja_fail(j, ERR_INVALID, "round of no number");
    if (digits < 0 || digits > 15)
        jinja_fail(j, ERR_UNSUPPORTED, "round to %lld digits",
                   (long long)digits);
    if (v.kind != JINJA_REAL) return jinja_plus(j, v, jinja_whole(0));
    char text[400]; /* the nearest decimal, halves to even: as Python rounds */
    snprintf(text, sizeof text, "%.*f", (int)digits, v.u.f);
    return jinja_real(strtod(text, NULL));
}

/* Choosing. */

static value f_default(struct jinja *j, value v, const args *a)
{
    value p[2];
    jinja_bind(j, "default", "default_value boolean", 0, a, p);
    bool miss = !given(v) || (jinja_truth(j, p[1]) && !jinja_truth(j, v));
    if (!miss) return v;
    return a->count || a->named_count ? p[0] : jinja_str(j, "", 0);
}

static value f_length(struct jinja *j, value v, const args *a)
{
    jinja_bind(j, "length", "", 0, a, NULL);
    return jinja_whole((int64_t)jinja_length(j, v));
}

static value f_first(struct jinja *j, value v, const args *a)
{
    jinja_bind(j, "first", "", 0, a, NULL);
    const struct jinja_list *list = jinja_iterate(j, v);
    return list->count ? list->items[0] : jinja_undefined("first item", 10);
}

static value f_last(struct jinja *j, value v, const args *a)
{
    jinja_bind(j, "last", "", 0, a, NULL);
    jinja_length(j, v); /* what has no length cannot be walked backwards */
    const struct jinja_list *list = jinja_iterate(j, v);
    return list->count ? list->items[list->count - 1]
                       : jinja_undefined("last item", 9);
}

/* Lists. */

static value copy_list(struct jinja *j, const struct jinja_list *from,
                       enum jinja_list_kind kind)
{
    value out = jinja_list(j, from->count, kind);
    if (from->count)
        memcpy(out.u.list->items, from->items,
               from->count * sizeof *from->items);
    return out;
}

static value f_list(struct jinja *j, value v, const args *a)
{
    jinja_bind(j, "list", "", 0, a, NULL);
    return copy_list(j, jinja_iterate(j, v), JINJA_PLAIN);
}

static value f_items(struct jinja *j, value v, const args *a)
{
    struct jinja_args none = {0};
    jinja_bind(j, "items", "", 0, a, NULL);
    if (!given(v)) return jinja_list(j, 0, JINJA_GENERATOR);
    if (v.kind != JINJA_DICT)
        jinja_fail(j, ERR_INVALID, "items of %s", jinja_type(v));
    value m = jinja_method(j, v, "items", 5);
    value out = jinja_method_call(j, m.u.method, &none);
    out.u.list->kind = JINJA_GENERATOR;
    return out;
}

static value f_join(struct jinja *j, value v, const args *a)
{
    value p[2];
    struct jinja_text t = {0};
    jinja_bind(j, "join", "d attribute", 0, a, p);
    const struct jinja_list *list = jinja_iterate(j, v);
    for (size_t i = 0; i < list->count; i++) {
        value item = list->items[i];
        if (given(p[1]) && p[1].kind != JINJA_NONE)
            item = attribute(j, item, p[1]);
        if (i) jinja_print(j, &t, p[0]);
        jinja_print(j, &t, item);
    }
    return jinja_str_of(j, &t);
}

static value f_reverse(struct jinja *j, value v, const args *a)
{
    jinja_bind(j, "reverse", "", 0, a, NULL);
    if (v.kind == JINJA_STR) {
        value bounds[3] = {jinja_none(), jinja_none(), jinja_whole(-1)};
        return jinja_slice(j, v, bounds);
    }
    const struct jinja_list *list = jinja_iterate(j, v);
    value out = jinja_list(j, list->count, JINJA_GENERATOR);
    for (size_t i = 0; i < list->count; i++)
        out.u.list->items[i] = list->items[list->count - 1 - i];
    return out;
}

/* How sort, unique, min and max look at an item. */
struct key {
    value attribute;
    bool case_sensitive, reverse;
};

static value key_of(struct jinja *j, const struct key *k, value v)
{
    if (given(k->attribute) && k->attribute.kind != JINJA_NONE)
        v = attribute(j, v, k->attribute);
    if (v.kind == JINJA_STR && !k->case_sensitive)
        v = jinja_recase(j, v, JINJA_LOWER);
    return v;
}

static int by_key(struct jinja *j, void *arg, const value *a, const value *b)
{
    const struct key *k = arg;
    int order = jinja_compare(j, key_of(j, k, *a), key_of(j, k, *b));
    return k->reverse ? -order : order;
}

static bool has_comma(value v)
{
    return v.kind == JINJA_STR && memchr(v.u.s, ',', v.len);
}

static value f_sort(struct jinja *j, value v, const args *a)
{
    value p[3];
    jinja_bind(j, "sort", "reverse case_sensitive attribute", 0, a, p);
    if (has_comma(p[2]))
        jinja_fail(j, ERR_UNSUPPORTED, "sort by several attributes");
    struct key k = {p[2], jinja_truth(j, p[1]), jinja_truth(j, p[0])};
    value out = copy_list(j, jinja_iterate(j, v), JINJA_PLAIN);
    jinja_sort(j, out.u.list->items, out.u.list->count, by_key, &k);
    return out;
}

static value f_unique(struct jinja *j, value v, const args *a)
{
    value p[2];
    jinja_bind(j, "unique", "case_sensitive attribute", 0, a, p);
    struct key k = {p[1], jinja_truth(j, p[0]), false};
    const struct jinja_list *list = jinja_iterate(j, v);
    value out = jinja_list(j, list->count, JINJA_GENERATOR);
    struct jinja_dict *seen = jinja_dict(j).u.dict;
    out.u.list->count = 0;
    for (size_t i = 0; i < list->count; i++) {
        value key = key_of(j, &k, list->items[i]);
        if (jinja_dict_get(j, seen, key)) continue;
        jinja_dict_set(j, seen, key, jinja_none());
        out.u.list->items[out.u.list->count++] = list->items[i];
    }
    return out;
}

static value extreme(struct jinja *j, value v, const args *a, int sign)
{
    value p[2];
    jinja_bind(j, "min", "case_sensitive attribute", 0, a, p);
    struct key k = {p[1], jinja_truth(j, p[0]), false};
    const struct jinja_list *list = jinja_iterate(j, v);
    if (!list->count) return jinja_undefined("least item", 10);
    value best = list->items[0];
    for (size_t i = 1; i < list->count; i++)
        if (by_key(j, &k, &list->items[i], &best) * sign < 0)
            best = list->items[i];
    return best;
}

static value f_min(struct jinja *j, value v, const args *a)
{
    return extreme(j, v, a, 1);
}

static value f_max(struct jinja *j, value v, const args *a)
{
    return extreme(j, v, a, -1);
}

static value f_sum(struct jinja *j, value v, const args *a)
{
    value p[2];
    jinja_bind(j, "sum", "attribute start", 0, a, p);
    value sum = given(p[1]) ? p[1] : jinja_whole(0);
    const struct jinja_list *list = jinja_iterate(j, v);
    if (sum.kind == JINJA_STR) jinja_fail(j, ERR_INVALID, "sum of strings");
    for (size_t i = 0; i < list->count; i++) {
        value item = list->items[i];
        if (given(p[0]) && p[0].kind != JINJA_NONE)
            item = attribute(j, item, p[0]);
        sum = jinja_plus(j, sum, item);
    }
    return sum;
}

static value f_dictsort(struct jinja *j, value v, const args *a)
{
    value p[3];
    jinja_bind(j, "dictsort", "case_sensitive by reverse", 0, a, p);
    bool by_value = given(p[1]) && jinja_is(p[1], "value");
    if (given(p[1]) && !by_value && !jinja_is(p[1], "key"))
        jinja_fail(j, ERR_INVALID, "dictsort by other than key or value");
    struct key k = {jinja_whole(by_value), jinja_truth(j, p[0]),
                    jinja_truth(j, p[2])};
    struct jinja_args none = {0};
    if (v.kind != JINJA_DICT)
        jinja_fail(j, ERR_INVALID, "dictsort of %s", jinja_type(v));
    value out = f_items(j, v, &none);
    out.u.list->kind = JINJA_PLAIN;
    jinja_sort(j, out.u.list->items, out.u.list->count, by_key, &k);
    return out;
}

/* map, select and reject. */

static args rest_of(const args *a, size_t from)
{
    args rest = *a;
    rest.items += from;
    rest.count -= from;
    return rest;
}

static jinja_test *test_named(struct jinja *j, value name)
{
    jinja_test *test =
        name.kind == JINJA_STR ? jinja_test_find(name.u.s, name.len) : NULL;
    if (!test)
        jinja_fail(j, ERR_UNSUPPORTED, "test %.*s is not supported",
                   name.kind == JINJA_STR ? (int)name.len : 1,
                   name.kind == JINJA_STR ? name.u.s : "?");
    return test;
}

/* select, reject and map look at nothing else when there is nothing. */
static value none_chosen(struct jinja *j)
{
    return jinja_list(j, 0, JINJA_GENERATOR);
}

static value choose(struct jinja *j, value v, const args *a, bool by_attribute,
                    bool keep)
{
    if (!jinja_truth(j, v)) return none_chosen(j);
    value path = jinja_undefined("attribute", 9);
    args rest = *a;
    if (by_attribute) {
        if (!a->count)
            jinja_fail(j, ERR_INVALID, "an attribute's name is missing");
        path = a->items[0];
        rest = rest_of(a, 1);
    }
    jinja_test *test = NULL;
    if (rest.count) {
        test = test_named(j, rest.items[0]);
        rest = rest_of(&rest, 1);
    }
    const struct jinja_list *list = jinja_iterate(j, v);
    value out = jinja_list(j, list->count, JINJA_GENERATOR);
    out.u.list->count = 0;
    for (size_t i = 0; i < list->count; i++) {
        value item = list->items[i];
        if (by_attribute) item = attribute(j, item, path);
        bool yes = test ? test(j, item, &rest) : jinja_truth(j, item);
        if (yes == keep)
            out.u.list->items[out.u.list->count++] = list->items[i];
    }
    return out;
}

static value f_select(struct jinja *j, value v, const args *a)
{
    return choose(j, v, a, false, true);
}

static value f_reject(struct jinja *j, value v, const args *a)
{
    return choose(j, v, a, false, false);
}

static value f_selectattr(struct jinja *j, value v, const args *a)
{
    return choose(j, v, a, true, true);
}

static value f_rejectattr(struct jinja *j, value v, const args *a)
{
    return choose(j, v, a, true, false);
}

static value map_attribute(struct jinja *j, value v, const args *a)
{
    value p[2];
    jinja_bind(j, "map", "attribute default", 1, a, p);
    const struct jinja_list *list = jinja_iterate(j, v);
    value out = jinja_list(j, list->count, JINJA_GENERATOR);
    for (size_t i = 0; i < list->count; i++) {
        value item = attribute(j, list->items[i], p[0]);
        out.u.list->items[i] = given(item) || !given(p[1]) ? item : p[1];
    }
    return out;
}

static value f_map(struct jinja *j, value v, const args *a)
{
    if (!jinja_truth(j, v)) return none_chosen(j);
    if (!a->count) return map_attribute(j, v, a);
    value name = a->items[0];
    jinja_filter *f =
        name.kind == JINJA_STR ? jinja_filter_find(name.u.s, name.len) : NULL;
    if (!f) jinja_fail(j, ERR_UNSUPPORTED, "map by that filter");
    args rest = rest_of(a, 1);
    const struct jinja_list *list = jinja_iterate(j, v);
    value out = jinja_list(j, list->count, JINJA_GENERATOR);
    jinja_enter(j);
    for (size_t i = 0; i < list->count; i++)
        out.u.list->items[i] = f(j, list->items[i], &rest);
    jinja_leave(j);
    return out;
}

/* Names. */

static const struct {
    const char *name;
    jinja_filter *filter;
} filters[] = {
    {"abs", f_abs},
    {"capitalize", f_capitalize},
    {"count", f_length},
    {"d", f_default},
    {"default", f_default},
    {"dictsort", f_dictsort},
    {"e", f_escape},
    {"escape", f_escape},
    {"first", f_first},
    {"float", f_float},
    {"indent", f_indent},
    {"int", f_int},
    {"items", f_items},
    {"join", f_join},
    {"last", f_last},
    {"length", f_length},
    {"list", f_list},
    {"lower", f_lower},
    {"map", f_map},
    {"max", f_max},
    {"min", f_min},
    {"reject", f_reject},
    {"rejectattr", f_rejectattr},
    {"replace", f_replace},
    {"reverse", f_reverse},
    {"round", f_round},
    {"safe", f_safe},
    {"select", f_select},
    {"selectattr", f_selectattr},
    {"sort", f_sort},
    {"string", f_string},
    {"sum", f_sum},
    {"title", f_title},
    {"tojson", f_tojson},
    {"trim", f_trim},
    {"unique", f_unique},
    {"upper", f_upper},
};

static bool same(const char *name, const char *s, size_t n)
{
    return strlen(name) == n && !memcmp(name, s, n);
}

jinja_filter *jinja_filter_find(const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        if (same(filters[i].name, name, n)) return filters[i].filter;
    return NULL;
}
