/* Walks the nodes. A scope holds what {% set %} and loops bind; it sees the
 * scopes around the place where it was written. What no scope binds is a
 * variable of the caller, converted from JSON when first asked for, then a
 * function of the environment, then undefined. */
#include "text/jinja.h"

#include <string.h>
#include <time.h>

typedef struct jinja_value value;
typedef struct jinja_node node;

struct binding {
    int name;
    value value;
};

struct scope {
    struct scope *parent;
    struct binding *bindings;
    size_t count, cap;
};

struct render {
    struct jinja *j;
    const struct jinja_names *names;
    const json_t *variables;
    value *known; /* by name; kind JINJA_UNDEFINED until asked */
    struct scope *scope;
    struct jinja_text *out;
    int loop_name; /* of "loop", -1 where the template has no such */
};

struct jinja_macro {
    const node *node;
    struct scope *scope; /* where it was written */
};

struct jinja_loop {
    const struct jinja_list *list;
    size_t at;
    value last_changed; /* what changed() saw, as a tuple */
    bool has_changed;
};

enum flow { GO_ON, BREAK, CONTINUE };

static value eval(struct render *r, const node *n);
static enum flow run(struct render *r, const node *n);

/* Scopes. */

static struct scope *push_scope(struct render *r, struct scope *parent)
{
    struct scope *old = r->scope, *s = jinja_alloc(r->j, 1, sizeof *s);
    s->parent = parent;
    r->scope = s;
    return old;
}

static void bind(struct render *r, int name, value v)
{
    struct scope *s = r->scope;
    for (size_t i = 0; i < s->count; i++)
        if (s->bindings[i].name == name) {
            s->bindings[i].value = v;
            return;
        }
    if (s->count == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 4;
        struct binding *more = jinja_alloc(r->j, cap, sizeof *more);
        if (s->count) memcpy(more, s->bindings, s->count * sizeof *more);
        s->bindings = more;
        s->cap = cap;
    }
    s->bindings[s->count++] = (struct binding){name, v};
}

static value lookup(struct render *r, int name)
{
    for (const struct scope *s = r->scope; s; s = s->parent)
        for (size_t i = 0; i < s->count; i++)
            if (s->bindings[i].name == name) return s->bindings[i].value;
    value *known = &r->known[name];
    const char *text = r->names->list[name];
    if (known->kind == JINJA_UNDEFINED && !known->u.s) {
        const json_t *json = json_object_get(r->variables, text);
        enum jinja_global global = jinja_global_find(text);
        if (json)
            *known = jinja_from_json(r->j, json);
        else if (global)
            *known = (value){.kind = JINJA_GLOBAL, .u.i = global};
        else
            *known = jinja_undefined(text, strlen(text));
    }
    return *known;
}

/* Calls. */

/* The arguments behind kid 0. */
static struct jinja_args eval_args(struct render *r, const node *n)
{
    size_t count = n->count - 1;
    value *items = jinja_alloc(r->j, count, sizeof *items);
    for (size_t i = 0; i < count; i++)
        items[i] = eval(r, n->kids[i + 1]);
    size_t plain = count - n->name_count;
    return (struct jinja_args){items, plain, n->names, items + plain,
                               n->name_count};
}

static value capture(struct render *r, const node *body)
{
    struct jinja_text text = {0}, *old = r->out;
    r->out = &text;
    run(r, body);
    r->out = old;
    return jinja_str_of(r->j, &text);
}

static void bind_macro(struct render *r, const struct jinja_macro *m,
                       const struct jinja_args *a)
{
    const node *n = m->node;
    size_t defaults = n->count - 1, first = n->param_count - defaults;
    size_t used = 0;
    if (a->count > n->param_count)
        jinja_fail(r->j, ERR_INVALID, "macro %s takes %zu arguments, got %zu",
                   n->s, n->param_count, a->count);
    for (size_t i = 0; i < n->param_count; i++) {
        const char *name = r->names->list[n->params[i]];
        value v = jinja_undefined(name, strlen(name));
        bool has = i < a->count;
        if (has) v = a->items[i];
        for (size_t k = 0; k < a->named_count; k++) {
            if (strcmp(a->names[k], name)) continue;
            if (has)
                jinja_fail(r->j, ERR_INVALID, "macro %s: %s comes twice", n->s,
                           name);
            v = a->named[k];
            has = true;
            used++;
        }
        if (!has && i >= first) v = eval(r, n->kids[1 + i - first]);
        bind(r, n->params[i], v);
    }
    if (used < a->named_count)
        jinja_fail(r->j, ERR_INVALID, "macro %s: unknown argument", n->s);
}

static value call_macro(struct render *r, const struct jinja_macro *m,
                        const struct jinja_args *a)
{
    int line = r->j->line;
    struct scope *old = push_scope(r, m->scope);
    bind_macro(r, m, a);
    value text = capture(r, m->node->kids[0]);
    r->scope = old;
    r->j->line = line;
    return text;
}

enum { MAX_RANGE = 100000 }; /* the sandbox's */

static value call_range(struct jinja *j, const struct jinja_args *a)
{
    value v[3];
    int64_t n[3] = {0, 0, 1};
    jinja_bind(j, "range", "start stop step", 1, a, v);
    for (size_t i = 0; i < 3; i++) {
        if (i >= a->count) break;
        if (v[i].kind != JINJA_WHOLE && v[i].kind != JINJA_BOOL)
            jinja_fail(j, ERR_INVALID, "range of %s", jinja_type(v[i]));
        n[i] = v[i].kind == JINJA_BOOL ? v[i].u.b : v[i].u.i;
    }
    if (a->count == 1) {
        n[1] = n[0];
        n[0] = 0;
    }
    if (n[2] == 0) jinja_fail(j, ERR_INVALID, "range by steps of 0");
    __int128 span = n[2] > 0 ? (__int128)n[1] - n[0] : (__int128)n[0] - n[1];
    __int128 step = n[2] > 0 ? n[2] : -(__int128)n[2];
    __int128 count = span > 0 ? (span - 1) / step + 1 : 0;
    if (count > MAX_RANGE)
        jinja_fail(j, ERR_RANGE, "range of more than %d", MAX_RANGE);
    value out = jinja_list(j, (size_t)count, JINJA_RANGE);
    for (size_t i = 0; i < out.u.list->count; i++)
        out.u.list->items[i] = jinja_whole(n[0] + (int64_t)i * n[2]);
    return out;
}

static void check_attribute(struct jinja *j, const char *s, size_t n)
{
    if (n && *s == '_')
        jinja_fail(j, ERR_INVALID, "namespace attribute %.*s", (int)n, s);
}

/* dict(...) and namespace(...). */
static value call_dict(struct jinja *j, const struct jinja_args *a,
                       enum jinja_kind kind)
{
    value v = jinja_dict(j);
    if (a->count > 1 || (a->count && a->items[0].kind != JINJA_DICT))
        jinja_fail(j, ERR_UNSUPPORTED, "dict of other than a dict");
    for (size_t i = 0; a->count && i < a->items[0].u.dict->count; i++) {
        const struct jinja_entry *e = &a->items[0].u.dict->entries[i];
        jinja_dict_set(j, v.u.dict, e->key, e->value);
    }
    for (size_t i = 0; i < a->named_count; i++)
        jinja_dict_set(j, v.u.dict,
                       jinja_str(j, a->names[i], strlen(a->names[i])),
                       a->named[i]);
    for (size_t i = 0; kind == JINJA_NAMESPACE && i < v.u.dict->count; i++) {
        value key = v.u.dict->entries[i].key;
        if (key.kind == JINJA_STR) check_attribute(j, key.u.s, key.len);
    }
    v.kind = (unsigned char)kind;
    return v;
}

static value call_raise(struct jinja *j, const struct jinja_args *a)
{
    value v;
    jinja_bind(j, "raise_exception", "message", 1, a, &v);
    v = jinja_to_str(j, v);
    jinja_fail(j, ERR_INVALID, "%.*s", (int)(v.len < 350 ? v.len : 350), v.u.s);
}

static value call_strftime(struct jinja *j, const struct jinja_args *a)
{
    value v;
    char format[256], text[1024];
    jinja_bind(j, "strftime_now", "format", 1, a, &v);
    if (v.kind != JINJA_STR || v.len >= sizeof format ||
        memchr(v.u.s, 0, v.len))
        jinja_fail(j, ERR_INVALID, "strftime_now wants a short string");
    memcpy(format, v.u.s, v.len);
    format[v.len] = 0;
    time_t now = time(NULL);
    struct tm local;
    localtime_r(&now, &local);
    size_t n = strftime(text, sizeof text, format, &local);
    struct jinja_text out = {0};
    jinja_add(j, &out, text, n);
    return jinja_str_of(j, &out);
}

enum jinja_global jinja_global_find(const char *name)
{
    static const struct {
        const char *name;
        enum jinja_global global;
    } globals[] = {{"range", JINJA_G_RANGE},
                   {"namespace", JINJA_G_NAMESPACE},
                   {"dict", JINJA_G_DICT},
                   {"raise_exception", JINJA_G_RAISE},
                   {"strftime_now", JINJA_G_STRFTIME}};
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (!strcmp(globals[i].name, name)) return globals[i].global;
    return JINJA_G_NONE;
}

static value call_global(struct jinja *j, int64_t which,
                         const struct jinja_args *a)
{
    switch (which) {
    case JINJA_G_RANGE: return call_range(j, a);
    case JINJA_G_NAMESPACE: return call_dict(j, a, JINJA_NAMESPACE);
    case JINJA_G_DICT: return call_dict(j, a, JINJA_DICT);
    case JINJA_G_RAISE: return call_raise(j, a);
    default: return call_strftime(j, a);
    }
}

static value loop_cycle(struct jinja *j, const struct jinja_loop *loop,
                        const struct jinja_args *a)
{
    if (!a->count) jinja_fail(j, ERR_INVALID, "cycle of nothing");
    return a->items[loop->at % a->count];
}

static value loop_changed(struct jinja *j, struct jinja_loop *loop,
                          const struct jinja_args *a)
{
    value now = jinja_list(j, a->count, JINJA_TUPLE);
    for (size_t i = 0; i < a->count; i++)
        now.u.list->items[i] = a->items[i];
    bool changed =
        !loop->has_changed || !jinja_equal(j, loop->last_changed, now);
    loop->has_changed = true;
    loop->last_changed = now;
    return jinja_bool(changed);
}

/* loop.cycle(...) and loop.changed(...). */
static value call_loop(struct render *r, const node *n, struct jinja_loop *loop)
{
    struct jinja_args a = eval_args(r, n);
    const char *name = n->kids[0]->s;
    if (!strcmp(name, "cycle")) return loop_cycle(r->j, loop, &a);
    if (!strcmp(name, "changed")) return loop_changed(r->j, loop, &a);
    jinja_fail(r->j, ERR_INVALID, "loop has no %s to call", name);
}

static value eval_call(struct render *r, const node *n)
{
    const node *called = n->kids[0];
    if (called->kind == JINJA_N_ATTR) {
        const node *of = called->kids[0];
        if (of->kind == JINJA_N_NAME) {
            value loop = lookup(r, of->name);
            if (loop.kind == JINJA_LOOP) return call_loop(r, n, loop.u.loop);
        }
    }
    value f = eval(r, called);
    struct jinja_args a = eval_args(r, n);
    r->j->line = n->line;
    switch (f.kind) {
    case JINJA_MACRO: return call_macro(r, f.u.macro, &a);
    case JINJA_GLOBAL: return call_global(r->j, f.u.i, &a);
    case JINJA_METHOD: return jinja_method_call(r->j, f.u.method, &a);
    case JINJA_UNDEFINED:
        jinja_fail(r->j, ERR_INVALID, "'%.*s' is undefined", (int)f.len, f.u.s);
    default:
        jinja_fail(r->j, ERR_INVALID, "%s cannot be called", jinja_type(f));
    }
}

/* Attributes. */

static value loop_attr(struct jinja *j, const struct jinja_loop *loop,
                       const char *name)
{
    const struct jinja_list *list = loop->list;
    size_t at = loop->at, left = list->count - at;
    struct {
        const char *name;
        value value;
    } attributes[] = {
        {"index", jinja_whole((int64_t)at + 1)},
        {"index0", jinja_whole((int64_t)at)},
        {"revindex", jinja_whole((int64_t)left)},
        {"revindex0", jinja_whole((int64_t)left - 1)},
        {"first", jinja_bool(at == 0)},
        {"last", jinja_bool(left == 1)},
        {"length", jinja_whole((int64_t)list->count)},
        {"depth", jinja_whole(1)},
        {"depth0", jinja_whole(0)},
        {"previtem",
         at ? list->items[at - 1] : jinja_undefined("previous item", 13)},
        {"nextitem",
         left > 1 ? list->items[at + 1] : jinja_undefined("next item", 9)},
    };
    for (size_t i = 0; i < sizeof attributes / sizeof *attributes; i++)
        if (!strcmp(attributes[i].name, name)) return attributes[i].value;
    jinja_fail(j, ERR_UNSUPPORTED, "loop.%s is not supported", name);
}

/* What a dict of Python has besides its items, and this one has not. */
static void check_dict_attr(struct jinja *j, const char *name)
{
    static const char *const names[] = {"clear",   "copy",   "fromkeys",  "pop",
                                        "popitem", "update", "setdefault"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(names[i], name))
            jinja_fail(j, ERR_UNSUPPORTED, "dict.%s is not supported", name);
}

static value eval_attr(struct render *r, const node *n)
{
    value v = eval(r, n->kids[0]);
    r->j->line = n->line;
    if (v.kind == JINJA_LOOP) return loop_attr(r->j, v.u.loop, n->s);
    if (v.kind == JINJA_UNDEFINED)
        jinja_fail(r->j, ERR_INVALID, "'%.*s' is undefined",
                   (int)(v.len < 200 ? v.len : 200), v.u.s);
    if (v.kind == JINJA_DICT) check_dict_attr(r->j, n->s);
    value method = jinja_method(r->j, v, n->s, n->n);
    if (method.kind != JINJA_UNDEFINED) return method;
    return jinja_item(r->j, v, jinja_str(r->j, n->s, n->n));
}

static value eval_item(struct render *r, const node *n)
{
    value v = eval(r, n->kids[0]), key = eval(r, n->kids[1]);
    r->j->line = n->line;
    value item = jinja_item(r->j, v, key);
    if (item.kind != JINJA_UNDEFINED || key.kind != JINJA_STR) return item;
    return jinja_method(r->j, v, key.u.s, key.len);
}

static value eval_slice(struct render *r, const node *n)
{
    value v = eval(r, n->kids[0]), bounds[3];
    for (int i = 0; i < 3; i++)
        bounds[i] = n->kids[i + 1] ? eval(r, n->kids[i + 1]) : jinja_none();
    r->j->line = n->line;
    return jinja_slice(r->j, v, bounds);
}

/* Operators. */

static bool compare(struct jinja *j, const char *op, value a, value b)
{
    if (!strcmp(op, "==")) return jinja_equal(j, a, b);
    if (!strcmp(op, "!=")) return !jinja_equal(j, a, b);
    if (!strcmp(op, "in")) return jinja_contains(j, b, a);
    if (!strcmp(op, "not in")) return !jinja_contains(j, b, a);
    int order = jinja_compare(j, a, b);
    if (!strcmp(op, "<")) return order < 0;
    if (!strcmp(op, "<=")) return order <= 0;
    return !strcmp(op, ">") ? order > 0 : order >= 0;
}

static value eval_compare(struct render *r, const node *n)
{
    value left = eval(r, n->kids[0]);
    for (size_t i = 0; i < n->name_count; i++) {
        value right = eval(r, n->kids[i + 1]);
        r->j->line = n->line;
        if (!compare(r->j, n->names[i], left, right)) return jinja_bool(false);
        left = right;
    }
    return jinja_bool(true);
}

static value eval_arith(struct render *r, const node *n)
{
    value a = eval(r, n->kids[0]), b = eval(r, n->kids[1]);
    r->j->line = n->line;
    if (n->s[0] == '+') return jinja_plus(r->j, a, b);
    if (n->s[0] == '%' && a.kind == JINJA_STR)
        jinja_fail(r->j, ERR_UNSUPPORTED, "%% of strings is not supported");
    return jinja_arith(r->j, n->s, a, b);
}

static value eval_concat(struct render *r, const node *n)
{
    struct jinja_text text = {0};
    for (size_t i = 0; i < n->count; i++) {
        value v = eval(r, n->kids[i]);
        r->j->line = n->line;
        jinja_print(r->j, &text, v);
    }
    return jinja_str_of(r->j, &text);
}

static value eval_sign(struct render *r, const node *n)
{
    value v = eval(r, n->kids[0]);
    r->j->line = n->line;
    if (!jinja_is_number(v))
        jinja_fail(r->j, ERR_INVALID, "sign before %s", jinja_type(v));
    if (n->kind == JINJA_N_POS) return jinja_plus(r->j, v, jinja_whole(0));
    if (v.kind == JINJA_REAL) return jinja_real(-v.u.f);
    return jinja_arith(r->j, "-", jinja_whole(0), v);
}

static value eval_sequence(struct render *r, const node *n)
{
    value v = jinja_list(r->j, n->count,
                         n->kind == JINJA_N_LIST ? JINJA_PLAIN : JINJA_TUPLE);
    for (size_t i = 0; i < n->count; i++)
        v.u.list->items[i] = eval(r, n->kids[i]);
    return v;
}

static value eval_dict(struct render *r, const node *n)
{
    value v = jinja_dict(r->j);
    for (size_t i = 0; i + 1 < n->count; i += 2) {
        value key = eval(r, n->kids[i]);
        jinja_dict_set(r->j, v.u.dict, key, eval(r, n->kids[i + 1]));
    }
    return v;
}

/* input is what a filter block holds; it goes in where kid 0 is NULL. */
static value apply_filter(struct render *r, const node *n, value input)
{
    value v = !n->kids[0] ? input
              : n->kids[0]->kind == JINJA_N_FILTER
                  ? apply_filter(r, n->kids[0], input)
                  : eval(r, n->kids[0]);
    struct jinja_args a = eval_args(r, n);
    r->j->line = n->line;
    return n->filter(r->j, v, &a);
}

static value eval_test(struct render *r, const node *n)
{
    value v = eval(r, n->kids[0]);
    struct jinja_args a = eval_args(r, n);
    r->j->line = n->line;
    return jinja_bool(n->test(r->j, v, &a));
}

static value eval_if_else(struct render *r, const node *n)
{
    if (jinja_truth(r->j, eval(r, n->kids[0]))) return eval(r, n->kids[1]);
    return n->kids[2] ? eval(r, n->kids[2])
                      : jinja_undefined("inline if without else", 22);
}

static value eval_kind(struct render *r, const node *n)
{
    value v;
    switch (n->kind) {
    case JINJA_N_CONST: return n->value;
    case JINJA_N_NAME: return lookup(r, n->name);
    case JINJA_N_LIST:
    case JINJA_N_TUPLE: return eval_sequence(r, n);
    case JINJA_N_DICT: return eval_dict(r, n);
    case JINJA_N_ATTR: return eval_attr(r, n);
    case JINJA_N_ITEM: return eval_item(r, n);
    case JINJA_N_SLICE: return eval_slice(r, n);
    case JINJA_N_CALL: return eval_call(r, n);
    case JINJA_N_FILTER: return apply_filter(r, n, jinja_none());
    case JINJA_N_TEST: return eval_test(r, n);
    case JINJA_N_NOT:
        return jinja_bool(!jinja_truth(r->j, eval(r, n->kids[0])));
    case JINJA_N_NEG:
    case JINJA_N_POS: return eval_sign(r, n);
    case JINJA_N_AND:
        v = eval(r, n->kids[0]);
        return jinja_truth(r->j, v) ? eval(r, n->kids[1]) : v;
    case JINJA_N_OR:
        v = eval(r, n->kids[0]);
        return jinja_truth(r->j, v) ? v : eval(r, n->kids[1]);
    case JINJA_N_IF_ELSE: return eval_if_else(r, n);
    case JINJA_N_COMPARE: return eval_compare(r, n);
    case JINJA_N_CONCAT: return eval_concat(r, n);
    default: return eval_arith(r, n);
    }
}

static value eval(struct render *r, const node *n)
{
    jinja_work(r->j, 1);
    jinja_enter(r->j);
    value v = eval_kind(r, n);
    jinja_leave(r->j);
    return v;
}

/* Statements. */

static void assign(struct render *r, const node *target, value v)
{
    r->j->line = target->line;
    if (target->kind == JINJA_N_NAME) {
        bind(r, target->name, v);
        return;
    }
    if (target->kind == JINJA_N_NSREF) {
        value ns = lookup(r, target->name);
        if (ns.kind != JINJA_NAMESPACE)
            jinja_fail(r->j, ERR_INVALID, "%s is no namespace",
                       r->names->list[target->name]);
        check_attribute(r->j, target->s, target->n);
        jinja_dict_set(r->j, ns.u.dict, jinja_str(r->j, target->s, target->n),
                       v);
        return;
    }
    const struct jinja_list *list = jinja_iterate(r->j, v);
    if (list->count != target->count)
        jinja_fail(r->j, ERR_INVALID, "%zu values for %zu names", list->count,
                   target->count);
    for (size_t i = 0; i < list->count; i++)
        assign(r, target->kids[i], list->items[i]);
}

/* The items that the loop's own if lets through. */
static const struct jinja_list *loop_items(struct render *r, const node *n,
                                           const struct jinja_list *all)
{
    if (!n->kids[2]) return all;
    struct jinja_list *some = jinja_list(r->j, all->count, JINJA_PLAIN).u.list;
    some->count = 0;
    for (size_t i = 0; i < all->count; i++) {
        struct scope *old = push_scope(r, r->scope);
        assign(r, n->kids[0], all->items[i]);
        bool keep = jinja_truth(r->j, eval(r, n->kids[2]));
        r->scope = old;
        if (keep) some->items[some->count++] = all->items[i];
    }
    return some;
}

static enum flow run_for(struct render *r, const node *n)
{
    value over = eval(r, n->kids[1]);
    r->j->line = n->line;
    struct jinja_loop *loop = jinja_alloc(r->j, 1, sizeof *loop);
    loop->list = loop_items(r, n, jinja_iterate(r->j, over));
    value self = {.kind = JINJA_LOOP, .u.loop = loop};
    enum flow flow = GO_ON;
    for (; loop->at < loop->list->count && flow != BREAK; loop->at++) {
        jinja_work(r->j, 1);
        struct scope *old = push_scope(r, r->scope);
        if (r->loop_name >= 0) bind(r, r->loop_name, self);
        assign(r, n->kids[0], loop->list->items[loop->at]);
        flow = run(r, n->kids[3]);
        r->scope = old;
    }
    if (loop->list->count || !n->kids[4]) return GO_ON;
    struct scope *old = push_scope(r, r->scope);
    flow = run(r, n->kids[4]);
    r->scope = old;
    return flow;
}

static void run_set_block(struct render *r, const node *n)
{
    struct scope *old = push_scope(r, r->scope);
    value v = capture(r, n->kids[2]);
    r->scope = old;
    if (n->kids[1]) v = apply_filter(r, n->kids[1], v);
    assign(r, n->kids[0], v);
}

static void run_filter_block(struct render *r, const node *n)
{
    struct scope *old = push_scope(r, r->scope);
    value v = capture(r, n->kids[1]);
    r->scope = old;
    jinja_print(r->j, r->out, apply_filter(r, n->kids[0], v));
}

/* Values are worked out outside of the scope that they go into. */
static enum flow run_with(struct render *r, const node *n)
{
    size_t count = (n->count - 1) / 2;
    value *values = jinja_alloc(r->j, count, sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = eval(r, n->kids[2 + 2 * i]);
    struct scope *old = push_scope(r, r->scope);
    for (size_t i = 0; i < count; i++)
        assign(r, n->kids[1 + 2 * i], values[i]);
    enum flow flow = run(r, n->kids[0]);
    r->scope = old;
    return flow;
}

static void define_macro(struct render *r, const node *n)
{
    struct jinja_macro *m = jinja_alloc(r->j, 1, sizeof *m);
    *m = (struct jinja_macro){n, r->scope};
    bind(r, n->name, (value){.kind = JINJA_MACRO, .u.macro = m});
}

static enum flow run_scope(struct render *r, const node *n)
{
    struct scope *old = push_scope(r, r->scope);
    enum flow flow = run(r, n->kids[0]);
    r->scope = old;
    return flow;
}

static enum flow run_body(struct render *r, const node *n)
{
    enum flow flow = GO_ON;
    for (size_t i = 0; i < n->count && flow == GO_ON; i++)
        flow = run(r, n->kids[i]);
    return flow;
}

static enum flow run_if(struct render *r, const node *n)
{
    if (jinja_truth(r->j, eval(r, n->kids[0]))) return run(r, n->kids[1]);
    return n->kids[2] ? run(r, n->kids[2]) : GO_ON;
}

static enum flow run_kind(struct render *r, const node *n)
{
    value v;
    switch (n->kind) {
    case JINJA_N_DATA: jinja_add(r->j, r->out, n->s, n->n); return GO_ON;
    case JINJA_N_OUTPUT:
        v = eval(r, n->kids[0]);
        r->j->line = n->line;
        jinja_print(r->j, r->out, v);
        return GO_ON;
    case JINJA_N_BODY: return run_body(r, n);
    case JINJA_N_IF: return run_if(r, n);
    case JINJA_N_FOR: return run_for(r, n);
    case JINJA_N_SET: assign(r, n->kids[0], eval(r, n->kids[1])); return GO_ON;
    case JINJA_N_SET_BLOCK: run_set_block(r, n); return GO_ON;
    case JINJA_N_FILTER_BLOCK: run_filter_block(r, n); return GO_ON;
    case JINJA_N_WITH: return run_with(r, n);
    case JINJA_N_MACRO: define_macro(r, n); return GO_ON;
    case JINJA_N_SCOPE: return run_scope(r, n);
    case JINJA_N_BREAK: return BREAK;
    default: return CONTINUE;
    }
}

static enum flow run(struct render *r, const node *n)
{
    jinja_work(r->j, 1);
    jinja_enter(r->j);
    enum flow flow = run_kind(r, n);
    jinja_leave(r->j);
    return flow;
}

void jinja_eval(struct jinja *j, const node *body,
                const struct jinja_names *names, const json_t *variables,
                struct jinja_text *out)
{
    struct render r = {.j = j,
                       .names = names,
                       .variables = variables,
                       .out = out,
                       .loop_name = -1};
    r.known = jinja_alloc(j, names->count, sizeof *r.known);
    for (size_t i = 0; i < names->count; i++)
        if (!strcmp(names->list[i], "loop")) r.loop_name = (int)i;
    push_scope(&r, NULL);
    run(&r, body);
}
