/* Python's values, as far as templates see them: made, compared, walked,
 * printed. */
#include "text/jinja.h"
#include "text/utf8.h"

#include <math.h>
#include <string.h>

/* Making values. */

struct jinja_value jinja_none(void)
{
    return (struct jinja_value){.kind = JINJA_NONE};
}

struct jinja_value jinja_bool(bool b)
{
    return (struct jinja_value){.kind = JINJA_BOOL, .u.b = b};
}

struct jinja_value jinja_whole(int64_t i)
{
    return (struct jinja_value){.kind = JINJA_WHOLE, .u.i = i};
}

struct jinja_value jinja_real(double f)
{
    return (struct jinja_value){.kind = JINJA_REAL, .u.f = f};
}

struct jinja_value jinja_str(struct jinja *j, const char *s, size_t n)
{
    if (n > UINT32_MAX) jinja_fail(j, ERR_RANGE, "string too long");
    return (struct jinja_value){
        .kind = JINJA_STR, .len = (uint32_t)n, .u.s = s ? s : ""};
}

struct jinja_value jinja_str_of(struct jinja *j, const struct jinja_text *t)
{
    return jinja_str(j, t->s, t->n);
}

struct jinja_value jinja_undefined(const char *name, size_t n)
{
    return (struct jinja_value){
        .kind = JINJA_UNDEFINED, .len = (uint32_t)n, .u.s = name};
}

struct jinja_value jinja_list(struct jinja *j, size_t count,
                              enum jinja_list_kind kind)
{
    jinja_work(j, count);
    struct jinja_list *list = jinja_alloc(j, 1, sizeof *list);
    list->items = jinja_alloc(j, count, sizeof *list->items);
    list->count = count;
    list->kind = kind;
    return (struct jinja_value){.kind = JINJA_LIST, .u.list = list};
}

struct jinja_value jinja_dict(struct jinja *j)
{
    return (struct jinja_value){
        .kind = JINJA_DICT,
        .u.dict = jinja_alloc(j, 1, sizeof(struct jinja_dict))};
}

static struct jinja_value from_object(struct jinja *j, const json_t *json)
{
    struct jinja_value v = jinja_dict(j);
    struct jinja_dict *d = v.u.dict;
    d->cap = json_object_size(json);
    d->entries = jinja_alloc(j, d->cap, sizeof *d->entries);
    json_t *object; /* jansson's iterators want it writable, and do not write */
    memcpy(&object, &json, sizeof object);
    for (void *it = json_object_iter(object); it;
         it = json_object_iter_next(object, it)) {
        const char *key = json_object_iter_key(it);
        d->entries[d->count++] = (struct jinja_entry){
            jinja_str(j, key, strlen(key)),
            jinja_from_json(j, json_object_iter_value(it))};
    }
    return v;
}

struct jinja_value jinja_from_json(struct jinja *j, const json_t *json)
{
    struct jinja_value v = jinja_none();
    jinja_enter(j);
    jinja_work(j, 1);
    switch (json_typeof(json)) {
    case JSON_OBJECT: v = from_object(j, json); break;
    case JSON_ARRAY:
        v = jinja_list(j, json_array_size(json), JINJA_PLAIN);
        for (size_t i = 0; i < v.u.list->count; i++)
            v.u.list->items[i] = jinja_from_json(j, json_array_get(json, i));
        break;
    case JSON_STRING:
        v = jinja_str(j, json_string_value(json), json_string_length(json));
        break;
    case JSON_INTEGER: v = jinja_whole(json_integer_value(json)); break;
    case JSON_REAL: v = jinja_real(json_real_value(json)); break;
    case JSON_TRUE: v = jinja_bool(true); break;
    case JSON_FALSE: v = jinja_bool(false); break;
    case JSON_NULL: break;
    }
    jinja_leave(j);
    return v;
}

/* Asking values. */

const char *jinja_type(struct jinja_value v)
{
    static const char *const lists[] = {"list", "tuple", "range", "dict view",
                                        "generator"};
    static const char *const names[] = {
        [JINJA_UNDEFINED] = "Undefined", [JINJA_NONE] = "NoneType",
        [JINJA_BOOL] = "bool",           [JINJA_WHOLE] = "int",
        [JINJA_REAL] = "float",          [JINJA_STR] = "str",
        [JINJA_LIST] = "list",           [JINJA_DICT] = "dict",
        [JINJA_NAMESPACE] = "Namespace", [JINJA_MACRO] = "Macro",
        [JINJA_GLOBAL] = "function",     [JINJA_METHOD] = "method",
        [JINJA_LOOP] = "LoopContext"};
    return v.kind == JINJA_LIST ? lists[v.u.list->kind] : names[v.kind];
}

/* Any use of an undefined value but asking for it. */
static void need_defined(struct jinja *j, struct jinja_value v)
{
    if (v.kind == JINJA_UNDEFINED)
        jinja_fail(j, ERR_INVALID, "'%.*s' is undefined",
                   (int)(v.len < 200 ? v.len : 200), v.u.s ? v.u.s : "");
}

_Noreturn void jinja_not_for(struct jinja *j, const char *what,
                             struct jinja_value v)
{
    need_defined(j, v);
    jinja_fail(j, ERR_INVALID, "%s: not for %s", what, jinja_type(v));
}

static bool sized(struct jinja_value v)
{
    return v.kind == JINJA_LIST && v.u.list->kind != JINJA_GENERATOR;
}

bool jinja_truth(struct jinja *j, struct jinja_value v)
{
    (void)j;
    switch (v.kind) {
    case JINJA_UNDEFINED:
    case JINJA_NONE: return false;
    case JINJA_BOOL: return v.u.b;
    case JINJA_WHOLE: return v.u.i != 0;
    case JINJA_REAL: return v.u.f != 0;
    case JINJA_STR: return v.len > 0;
    case JINJA_LIST: return !sized(v) || v.u.list->count > 0;
    case JINJA_DICT: return v.u.dict->count > 0;
    default: return true;
    }
}

bool jinja_is_number(struct jinja_value v)
{
    return v.kind == JINJA_BOOL || v.kind == JINJA_WHOLE ||
           v.kind == JINJA_REAL;
}

static bool whole(struct jinja_value v, int64_t *i)
{
    if (v.kind == JINJA_BOOL) *i = v.u.b;
    if (v.kind == JINJA_WHOLE) *i = v.u.i;
    return v.kind == JINJA_BOOL || v.kind == JINJA_WHOLE;
}

static double real(struct jinja_value v)
{
    int64_t i = 0;
    return whole(v, &i) ? (double)i : v.u.f;
}

/* Exact for a whole number against a real one, as Python is. */
static int compare_numbers(struct jinja_value a, struct jinja_value b)
{
    int64_t x, y;
    if (whole(a, &x) && whole(b, &y)) return (x > y) - (x < y);
    long double f = whole(a, &x) ? (long double)x : (long double)a.u.f;
    long double g = whole(b, &y) ? (long double)y : (long double)b.u.f;
    return (f > g) - (f < g);
}

static bool is_nan(struct jinja_value v)
{
    return v.kind == JINJA_REAL && isnan(v.u.f);
}

static bool equal_lists(struct jinja *j, struct jinja_value a,
                        struct jinja_value b)
{
    const struct jinja_list *x = a.u.list, *y = b.u.list;
    if (x->kind != y->kind || x->kind >= JINJA_VIEW) return x == y;
    if (x->count != y->count) return false;
    for (size_t i = 0; i < x->count; i++)
        if (!jinja_equal(j, x->items[i], y->items[i])) return false;
    return true;
}

static bool equal_dicts(struct jinja *j, const struct jinja_dict *x,
                        const struct jinja_dict *y)
{
    if (x->count != y->count) return false;
    for (size_t i = 0; i < x->count; i++) {
        const struct jinja_value *v = jinja_dict_get(j, y, x->entries[i].key);
        if (!v || !jinja_equal(j, x->entries[i].value, *v)) return false;
    }
    return true;
}

bool jinja_equal(struct jinja *j, struct jinja_value a, struct jinja_value b)
{
    jinja_work(j, 1);
    if (jinja_is_number(a) && jinja_is_number(b))
        return !is_nan(a) && !is_nan(b) && compare_numbers(a, b) == 0;
    if (a.kind != b.kind) return false;
    switch (a.kind) {
    case JINJA_UNDEFINED:
    case JINJA_NONE: return true;
    case JINJA_STR:
        jinja_work(j, a.len / 64);
        return a.len == b.len && !memcmp(a.u.s, b.u.s, a.len);
    case JINJA_LIST:
    case JINJA_DICT: break;
    case JINJA_GLOBAL: return a.u.i == b.u.i;
    default: return a.u.s == b.u.s; /* the same object */
    }
    jinja_enter(j);
    bool same = a.kind == JINJA_LIST ? equal_lists(j, a, b)
                                     : equal_dicts(j, a.u.dict, b.u.dict);
    jinja_leave(j);
    return same;
}

static int compare_lists(struct jinja *j, const struct jinja_list *x,
                         const struct jinja_list *y)
{
    for (size_t i = 0; i < x->count && i < y->count; i++)
        if (!jinja_equal(j, x->items[i], y->items[i]))
            return jinja_compare(j, x->items[i], y->items[i]);
    return (x->count > y->count) - (x->count < y->count);
}

int jinja_compare(struct jinja *j, struct jinja_value a, struct jinja_value b)
{
    jinja_work(j, 1);
    if (jinja_is_number(a) && jinja_is_number(b)) {
        if (is_nan(a) || is_nan(b)) jinja_not_for(j, "ordering nan", a);
        return compare_numbers(a, b);
    }
    if (a.kind == JINJA_STR && b.kind == JINJA_STR) {
        size_t n = a.len < b.len ? a.len : b.len;
        jinja_work(j, n / 64);
        int c = memcmp(a.u.s, b.u.s, n); /* UTF-8 sorts as code points do */
        return c ? c : (a.len > b.len) - (a.len < b.len);
    }
    if (a.kind == JINJA_LIST && b.kind == JINJA_LIST &&
        a.u.list->kind == b.u.list->kind && a.u.list->kind <= JINJA_TUPLE) {
        jinja_enter(j);
        int c = compare_lists(j, a.u.list, b.u.list);
        jinja_leave(j);
        return c;
    }
    need_defined(j, a);
    need_defined(j, b);
    jinja_fail(j, ERR_INVALID, "no order between %s and %s", jinja_type(a),
               jinja_type(b));
}

struct jinja_value *jinja_dict_get(struct jinja *j, const struct jinja_dict *d,
                                   struct jinja_value key)
{
    if (key.kind == JINJA_DICT ||
        (key.kind == JINJA_LIST && key.u.list->kind == JINJA_PLAIN))
        jinja_not_for(j, "a key", key);
    jinja_work(j, d->count / 8);
    for (size_t i = 0; i < d->count; i++) {
        struct jinja_entry *e = &d->entries[i];
        if (key.kind == JINJA_STR && e->key.kind == JINJA_STR) {
            if (key.len == e->key.len && !memcmp(key.u.s, e->key.u.s, key.len))
                return &e->value;
        } else if (jinja_equal(j, e->key, key)) {
            return &e->value;
        }
    }
    return NULL;
}

void jinja_dict_set(struct jinja *j, struct jinja_dict *d,
                    struct jinja_value key, struct jinja_value value)
{
    struct jinja_value *there = jinja_dict_get(j, d, key);
    if (there) {
        *there = value;
        return;
    }
    if (d->count == d->cap) {
        size_t cap = d->cap ? 2 * d->cap : 4;
        struct jinja_entry *more = jinja_alloc(j, cap, sizeof *more);
        if (d->count) memcpy(more, d->entries, d->count * sizeof *more);
        d->entries = more;
        d->cap = cap;
    }
    d->entries[d->count++] = (struct jinja_entry){key, value};
}

static bool find_bytes(struct jinja *j, struct jinja_value in,
                       struct jinja_value what)
{
    jinja_work(j, in.len / 64);
    return memmem(in.u.s, in.len, what.u.s, what.len) != NULL;
}

bool jinja_contains(struct jinja *j, struct jinja_value in,
                    struct jinja_value what)
{
    switch (in.kind) {
    case JINJA_UNDEFINED: return false;
    case JINJA_STR:
        if (what.kind != JINJA_STR)
            jinja_not_for(j, "search in a string", what);
        return find_bytes(j, in, what);
    case JINJA_DICT: return jinja_dict_get(j, in.u.dict, what) != NULL;
    case JINJA_LIST: break;
    default: jinja_not_for(j, "in", in);
    }
    struct jinja_list *list = jinja_iterate(j, in);
    for (size_t i = 0; i < list->count; i++)
        if (jinja_equal(j, list->items[i], what)) return true;
    return false;
}

size_t jinja_length(struct jinja *j, struct jinja_value v)
{
    switch (v.kind) {
    case JINJA_UNDEFINED: return 0;
    case JINJA_STR: jinja_work(j, v.len / 64); return jinja_chars(v.u.s, v.len);
    case JINJA_DICT: return v.u.dict->count;
    case JINJA_LIST:
        if (sized(v)) return v.u.list->count;
        break;
    default: break;
    }
    jinja_not_for(j, "length", v);
}

static struct jinja_list *characters(struct jinja *j, struct jinja_value v)
{
    struct jinja_list *list =
        jinja_list(j, jinja_chars(v.u.s, v.len), JINJA_PLAIN).u.list;
    size_t at = 0, count = 0, len;
    for (; at < v.len; at += len) {
        len = utf8_len((unsigned char)v.u.s[at]);
        list->items[count++] = jinja_str(j, v.u.s + at, len);
    }
    return list;
}

struct jinja_list *jinja_iterate(struct jinja *j, struct jinja_value v)
{
    static struct jinja_list empty;
    struct jinja_list *list;
    switch (v.kind) {
    case JINJA_UNDEFINED: return &empty;
    case JINJA_STR: return characters(j, v);
    case JINJA_LIST:
        if (v.u.list->spent) return &empty;
        v.u.list->spent = v.u.list->kind == JINJA_GENERATOR;
        return v.u.list;
    case JINJA_DICT:
        list = jinja_list(j, v.u.dict->count, JINJA_PLAIN).u.list;
        for (size_t i = 0; i < list->count; i++)
            list->items[i] = v.u.dict->entries[i].key;
        return list;
    default: jinja_not_for(j, "iteration", v);
    }
}

/* obj[key]. */

static bool index_of(struct jinja_value key, size_t count, size_t *at)
{
    int64_t i;
    if (!whole(key, &i)) return false;
    if (i < 0) i += (int64_t)count;
    *at = (size_t)i;
    return i >= 0 && (size_t)i < count;
}

/* Byte offset of the character at index `at`. */
static size_t char_offset(const char *s, size_t n, size_t at)
{
    size_t i = 0;
    for (; at && i < n; at--)
        i += utf8_len((unsigned char)s[i]);
    return i;
}

struct jinja_value jinja_item(struct jinja *j, struct jinja_value v,
                              struct jinja_value key)
{
    size_t at;
    struct jinja_value *found;
    switch (v.kind) {
    case JINJA_UNDEFINED: need_defined(j, v); break;
    case JINJA_STR:
        if (!index_of(key, jinja_length(j, v), &at)) break;
        at = char_offset(v.u.s, v.len, at);
        return jinja_str(j, v.u.s + at, utf8_len((unsigned char)v.u.s[at]));
    case JINJA_LIST:
        if (v.u.list->kind >= JINJA_VIEW) break;
        if (index_of(key, v.u.list->count, &at)) return v.u.list->items[at];
        break;
    case JINJA_DICT:
    case JINJA_NAMESPACE:
        if (key.kind == JINJA_LIST || key.kind == JINJA_DICT) break;
        found = jinja_dict_get(j, v.u.dict, key);
        if (found) return *found;
        break;
    default: break;
    }
    return key.kind == JINJA_STR ? jinja_undefined(key.u.s, key.len)
                                 : jinja_undefined("item", 4);
}

/* Python's slice.indices: start, stop and step for count items. */
static void slice_bounds(struct jinja *j, const struct jinja_value b[3],
                         int64_t count, int64_t out[3])
{
    int64_t given[3] = {0, 0, 1};
    bool has[3];
    for (int i = 0; i < 3; i++) {
        has[i] = b[i].kind != JINJA_NONE;
        if (has[i] && !whole(b[i], &given[i]))
            jinja_not_for(j, "a slice by", b[i]);
    }
    int64_t step = given[2];
    if (step == 0) jinja_fail(j, ERR_INVALID, "slice step cannot be zero");
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? count - 1 : count;
    for (int i = 0; i < 2; i++) {
        int64_t at = given[i];
        if (!has[i])
            at = (i == 0) == (step < 0) ? high : low;
        else if (at < 0)
            at = at + count < low ? low : at + count;
        else if (at > high)
            at = high;
        out[i] = at;
    }
    out[2] = step;
}

static size_t slice_count(const int64_t s[3])
{
    int64_t span = s[2] > 0 ? s[1] - s[0] : s[0] - s[1];
    if (span <= 0) return 0;
    uint64_t step = s[2] > 0 ? (uint64_t)s[2] : 0 - (uint64_t)s[2];
    return (size_t)(((uint64_t)span - 1) / step + 1);
}

struct jinja_value jinja_slice(struct jinja *j, struct jinja_value v,
                               const struct jinja_value bounds[3])
{
    int64_t s[3];
    need_defined(j, v);
    bool text = v.kind == JINJA_STR;
    bool list = v.kind == JINJA_LIST && v.u.list->kind < JINJA_VIEW;
    if (!text && !list) jinja_not_for(j, "a slice", v);
    slice_bounds(j, bounds, (int64_t)jinja_length(j, v), s);
    size_t count = slice_count(s);
    if (text && s[2] == 1) {
        size_t from = char_offset(v.u.s, v.len, (size_t)s[0]);
        size_t n = char_offset(v.u.s + from, v.len - from, count);
        return jinja_str(j, v.u.s + from, n);
    }
    const struct jinja_list *all = text ? characters(j, v) : v.u.list;
    struct jinja_value out =
        jinja_list(j, count, text ? JINJA_PLAIN : all->kind);
    for (size_t i = 0; i < count; i++)
        out.u.list->items[i] = all->items[s[0] + (int64_t)i * s[2]];
    if (!text) return out;
    struct jinja_text joined = {0};
    for (size_t i = 0; i < count; i++)
        jinja_add(j, &joined, out.u.list->items[i].u.s,
                  out.u.list->items[i].len);
    return jinja_str_of(j, &joined);
}

/* Arithmetic. */

_Noreturn static void no_operation(struct jinja *j, const char *op,
                                   struct jinja_value a, struct jinja_value b)
{
    need_defined(j, a);
    need_defined(j, b);
    jinja_fail(j, ERR_INVALID, "no %s between %s and %s", op, jinja_type(a),
               jinja_type(b));
}

_Noreturn static void overflow(struct jinja *j)
{
    jinja_fail(j, ERR_RANGE, "whole number beyond 64 bits");
}

/* What Markup does to a plain string that joins it. */
static void add_escaped(struct jinja *j, struct jinja_text *t,
                        struct jinja_value v)
{
    static const char chars[] = "&<>'\"";
    static const char *const escapes[] = {"&amp;", "&lt;", "&gt;", "&#39;",
                                          "&#34;"};
    for (size_t i = 0; i < v.len; i++) {
        const char *c = v.u.s[i] ? strchr(chars, v.u.s[i]) : NULL;
        if (c && !v.markup)
            jinja_adds(j, t, escapes[c - chars]);
        else
            jinja_add(j, t, v.u.s + i, 1);
    }
}

static struct jinja_value plus_str(struct jinja *j, struct jinja_value a,
                                   struct jinja_value b)
{
    struct jinja_text t = {0};
    jinja_work(j, ((size_t)a.len + b.len) / 64);
    if (a.markup || b.markup) {
        add_escaped(j, &t, a);
        add_escaped(j, &t, b);
    } else {
        if (b.len == 0) return a;
        if (a.len == 0) return b;
        t.s = jinja_alloc(j, (size_t)a.len + b.len, 1);
        t.cap = (size_t)a.len + b.len;
        memcpy(t.s, a.u.s, a.len);
        memcpy(t.s + a.len, b.u.s, b.len);
        t.n = t.cap;
    }
    struct jinja_value sum = jinja_str_of(j, &t);
    sum.markup = a.markup || b.markup;
    return sum;
}

static struct jinja_value plus_list(struct jinja *j, const struct jinja_list *a,
                                    const struct jinja_list *b)
{
    struct jinja_value sum = jinja_list(j, a->count + b->count, a->kind);
    memcpy(sum.u.list->items, a->items, a->count * sizeof *a->items);
    memcpy(sum.u.list->items + a->count, b->items, b->count * sizeof *b->items);
    return sum;
}

struct jinja_value jinja_plus(struct jinja *j, struct jinja_value a,
                              struct jinja_value b)
{
    int64_t x, y, sum;
    if (a.kind == JINJA_STR && b.kind == JINJA_STR) return plus_str(j, a, b);
    if (whole(a, &x) && whole(b, &y)) {
        if (__builtin_add_overflow(x, y, &sum)) overflow(j);
        return jinja_whole(sum);
    }
    if (jinja_is_number(a) && jinja_is_number(b))
        return jinja_real(real(a) + real(b));
    if (a.kind == JINJA_LIST && b.kind == JINJA_LIST &&
        a.u.list->kind == b.u.list->kind && a.u.list->kind <= JINJA_TUPLE)
        return plus_list(j, a.u.list, b.u.list);
    no_operation(j, "+", a, b);
}

static struct jinja_value repeat(struct jinja *j, struct jinja_value v,
                                 int64_t times)
{
    if (times < 0) times = 0;
    if (v.kind == JINJA_STR) {
        struct jinja_text t = {0};
        if (v.len && (uint64_t)times > j->max / v.len)
            jinja_fail(j, ERR_RANGE, "string too long");
        for (int64_t i = 0; i < times && v.len; i++) {
            jinja_work(j, 1);
            jinja_add(j, &t, v.u.s, v.len);
        }
        return jinja_str_of(j, &t);
    }
    size_t n = v.u.list->count;
    if (n && (uint64_t)times > j->max / n)
        jinja_fail(j, ERR_RANGE, "list too long");
    struct jinja_value out = jinja_list(j, n * (size_t)times, v.u.list->kind);
    for (size_t i = 0; i < out.u.list->count; i++)
        out.u.list->items[i] = v.u.list->items[i % n];
    return out;
}

static bool repeats(struct jinja_value v)
{
    return v.kind == JINJA_STR ||
           (v.kind == JINJA_LIST && v.u.list->kind <= JINJA_TUPLE);
}

static int64_t floor_div(struct jinja *j, int64_t x, int64_t y)
{
    if (x == INT64_MIN && y == -1) overflow(j);
    int64_t q = x / y;
    return q - (x % y != 0 && (x < 0) != (y < 0));
}

static struct jinja_value power(struct jinja *j, int64_t x, int64_t n)
{
    if (n < 0) {
        if (x == 0) jinja_fail(j, ERR_INVALID, "division by zero");
        return jinja_real(pow((double)x, (double)n));
    }
    int64_t result = 1;
    for (; n; n >>= 1) {
        if (n & 1 && __builtin_mul_overflow(result, x, &result)) overflow(j);
        if (n > 1 && __builtin_mul_overflow(x, x, &x)) overflow(j);
    }
    return jinja_whole(result);
}

static struct jinja_value arith_whole(struct jinja *j, const char *op,
                                      int64_t x, int64_t y)
{
    int64_t out;
    if (op[0] == '-') {
        if (__builtin_sub_overflow(x, y, &out)) overflow(j);
        return jinja_whole(out);
    }
    if (!strcmp(op, "**")) return power(j, x, y);
    if (op[0] == '*') {
        if (__builtin_mul_overflow(x, y, &out)) overflow(j);
        return jinja_whole(out);
    }
    if (y == 0) jinja_fail(j, ERR_INVALID, "division by zero");
    if (!strcmp(op, "/")) return jinja_real((double)x / (double)y);
    if (!strcmp(op, "//")) return jinja_whole(floor_div(j, x, y));
    if (y == -1) return jinja_whole(0);
    out = x % y;
    return jinja_whole(out && (out < 0) != (y < 0) ? out + y : out);
}

static struct jinja_value arith_real(struct jinja *j, const char *op, double x,
                                     double y)
{
    if (op[0] == '-') return jinja_real(x - y);
    if (!strcmp(op, "**")) {
        if ((x == 0 && y < 0) || (x < 0 && y != floor(y)))
            jinja_fail(j, ERR_INVALID, "power that is no real number");
        return jinja_real(pow(x, y));
    }
    if (op[0] == '*') return jinja_real(x * y);
    if (y == 0) jinja_fail(j, ERR_INVALID, "division by zero");
    if (!strcmp(op, "/")) return jinja_real(x / y);
    double mod = fmod(x, y);
    if (mod != 0 && (mod < 0) != (y < 0)) mod += y;
    if (mod == 0) mod = copysign(0, y);
    if (op[0] == '%') return jinja_real(mod);
    double div = (x - mod) / y, down = floor(div);
    return jinja_real(down + (div - down > 0.5));
}

struct jinja_value jinja_arith(struct jinja *j, const char *op,
                               struct jinja_value a, struct jinja_value b)
{
    int64_t x = 0, y = 0;
    bool wa = whole(a, &x), wb = whole(b, &y);
    if (wa && wb) return arith_whole(j, op, x, y);
    if (jinja_is_number(a) && jinja_is_number(b))
        return arith_real(j, op, real(a), real(b));
    if (!strcmp(op, "*") && repeats(a) && wb) return repeat(j, a, y);
    if (!strcmp(op, "*") && repeats(b) && wa) return repeat(j, b, x);
    no_operation(j, op, a, b);
}

/* Sorting: merges, bottom up. */

void jinja_sort(struct jinja *j, struct jinja_value *items, size_t count,
                int (*order)(struct jinja *j, void *arg,
                             const struct jinja_value *a,
                             const struct jinja_value *b),
                void *arg)
{
    struct jinja_value *from = items, *to = jinja_alloc(j, count, sizeof *to);
    for (size_t width = 1; width < count; width *= 2) {
        for (size_t start = 0; start < count; start += 2 * width) {
            size_t mid = start + width < count ? start + width : count;
            size_t end = mid + width < count ? mid + width : count;
            size_t a = start, b = mid;
            for (size_t i = start; i < end; i++) {
                bool left = a < mid && (b >= end ||
                                        order(j, arg, &from[a], &from[b]) <= 0);
                to[i] = left ? from[a++] : from[b++];
            }
        }
        struct jinja_value *swap = from;
        from = to;
        to = swap;
    }
    if (from != items) memcpy(items, from, count * sizeof *items);
}

bool jinja_is(struct jinja_value v, const char *text)
{
    return v.kind == JINJA_STR && v.len == strlen(text) &&
           !memcmp(v.u.s, text, v.len);
}
