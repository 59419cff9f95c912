/* jinja2's grammar, rule by rule and in its order of binding. What is Jinja
 * but not done here is told apart from what is not Jinja. */
#include "text/jinja.h"

#include <string.h>

struct parser {
    struct jinja *j;
    const struct jinja_token *t;
    struct jinja_names *names;
    int loops;  /* for bodies around: break and continue need one */
    int macros; /* macro bodies around */
};

typedef struct jinja_node node;

/* A list of nodes that grows. */
struct list {
    node **items;
    size_t count, cap;
};

static void append(struct parser *p, struct list *list, node *item)
{
    if (list->count == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 4;
        node **more = jinja_alloc(p->j, cap, sizeof *more);
        if (list->count) memcpy(more, list->items, list->count * sizeof *more);
        list->items = more;
        list->cap = cap;
    }
    list->items[list->count++] = item;
}

static node *make(struct parser *p, enum jinja_node_kind kind, int line)
{
    node *n = jinja_alloc(p->j, 1, sizeof *n);
    n->kind = kind;
    n->line = line;
    return n;
}

static node *make_kids(struct parser *p, enum jinja_node_kind kind, int line,
                       struct list kids)
{
    node *n = make(p, kind, line);
    n->kids = kids.items;
    n->count = kids.count;
    return n;
}

static node *make1(struct parser *p, enum jinja_node_kind kind, int line,
                   node *a)
{
    struct list kids = {0};
    append(p, &kids, a);
    return make_kids(p, kind, line, kids);
}

static node *make2(struct parser *p, enum jinja_node_kind kind, int line,
                   node *a, node *b)
{
    struct list kids = {0};
    append(p, &kids, a);
    append(p, &kids, b);
    return make_kids(p, kind, line, kids);
}

static node *make3(struct parser *p, enum jinja_node_kind kind, int line,
                   node *a, node *b, node *c)
{
    node *n = make2(p, kind, line, a, b);
    struct list kids = {n->kids, 2, 4};
    append(p, &kids, c);
    n->count = 3;
    return n;
}

/* Errors. */

_Noreturn static void refuse(struct parser *p, int line, const char *what,
                             const char *name)
{
    p->j->line = line;
    jinja_fail(p->j, ERR_UNSUPPORTED, "%s%s%s is not supported", what,
               *name ? " " : "", name);
}

static const char *describe(const struct jinja_token *t)
{
    switch (t->kind) {
    case JINJA_DATA: return "text";
    case JINJA_VAR_BEGIN: return "{{";
    case JINJA_VAR_END: return "}}";
    case JINJA_BLOCK_BEGIN: return "{%";
    case JINJA_BLOCK_END: return "%}";
    case JINJA_STRING: return "a string";
    case JINJA_INT:
    case JINJA_FLOAT: return "a number";
    case JINJA_END: return "the end of the template";
    default: return t->s;
    }
}

_Noreturn static void unexpected(struct parser *p, const char *wanted)
{
    p->j->line = p->t->line;
    jinja_fail(p->j, ERR_FORMAT, "expected %s, found %s", wanted,
               describe(p->t));
}

/* Looking at tokens. */

static bool is_op(const struct jinja_token *t, const char *op)
{
    return t->kind == JINJA_OP && !strcmp(t->s, op);
}

static bool is_name(const struct jinja_token *t, const char *name)
{
    return t->kind == JINJA_NAME && !strcmp(t->s, name);
}

static bool skip_op(struct parser *p, const char *op)
{
    if (!is_op(p->t, op)) return false;
    p->t++;
    return true;
}

static bool skip_name(struct parser *p, const char *name)
{
    if (!is_name(p->t, name)) return false;
    p->t++;
    return true;
}

static void expect_op(struct parser *p, const char *op)
{
    if (!skip_op(p, op)) unexpected(p, op);
}

static const struct jinja_token *expect_name(struct parser *p)
{
    if (p->t->kind != JINJA_NAME) unexpected(p, "a name");
    return p->t++;
}

static int intern(struct parser *p, const char *name)
{
    struct jinja_names *all = p->names;
    for (size_t i = 0; i < all->count; i++)
        if (!strcmp(all->list[i], name)) return (int)i;
    if (all->count == all->cap) {
        size_t cap = all->cap ? 2 * all->cap : 32;
        const char **more = jinja_alloc(p->j, cap, sizeof *more);
        if (all->count) memcpy(more, all->list, all->count * sizeof *more);
        all->list = more;
        all->cap = cap;
    }
    all->list[all->count] = name;
    return (int)all->count++;
}

/* Expressions. */

static node *parse_expression(struct parser *p);
static node *parse_or(struct parser *p);
static node *parse_unary(struct parser *p, bool with_filter);
static node *parse_tuple(struct parser *p, node *(*part)(struct parser *p),
                         bool explicit_parens);
static node *parse_postfix(struct parser *p, node *n);

static node *constant(struct parser *p, struct jinja_value value)
{
    node *n = make(p, JINJA_N_CONST, p->t->line);
    n->value = value;
    return n;
}

static node *parse_string(struct parser *p)
{
    struct jinja_text text = {0};
    node *n = constant(p, jinja_none());
    for (; p->t->kind == JINJA_STRING; p->t++)
        jinja_add(p->j, &text, p->t->s, p->t->n);
    n->value = jinja_str_of(p->j, &text);
    return n;
}

/* Names that jinja2 gives a meaning that is not done here. */
static void check_name(struct parser *p, const struct jinja_token *t)
{
    static const char *const not_done[] = {"cycler", "joiner", "lipsum", "self",
                                           "super"};
    static const char *const in_macros[] = {"caller", "varargs", "kwargs"};
    for (size_t i = 0; i < sizeof not_done / sizeof *not_done; i++)
        if (!strcmp(t->s, not_done[i])) refuse(p, t->line, t->s, "");
    for (size_t i = 0; i < 3; i++)
        if (p->macros && !strcmp(t->s, in_macros[i]))
            refuse(p, t->line, t->s, "");
}

static node *parse_name(struct parser *p)
{
    const struct jinja_token *t = p->t;
    static const struct {
        const char *name;
        int value; /* 2: none */
    } constants[] = {{"true", 1},  {"True", 1}, {"false", 0},
                     {"False", 0}, {"none", 2}, {"None", 2}};
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        if (strcmp(t->s, constants[i].name)) continue;
        int v = constants[i].value;
        node *n = constant(p, v == 2 ? jinja_none() : jinja_bool(v));
        p->t++;
        return n;
    }
    check_name(p, t);
    node *n = make(p, JINJA_N_NAME, t->line);
    n->name = intern(p, t->s);
    n->s = t->s;
    n->n = t->n;
    p->t++;
    return n;
}

static node *parse_list(struct parser *p)
{
    struct list items = {0};
    int line = p->t->line;
    expect_op(p, "[");
    while (!is_op(p->t, "]")) {
        if (items.count) expect_op(p, ",");
        if (is_op(p->t, "]")) break;
        append(p, &items, parse_expression(p));
    }
    expect_op(p, "]");
    return make_kids(p, JINJA_N_LIST, line, items);
}

static node *parse_dict(struct parser *p)
{
    struct list items = {0};
    int line = p->t->line;
    expect_op(p, "{");
    while (!is_op(p->t, "}")) {
        if (items.count) expect_op(p, ",");
        if (is_op(p->t, "}")) break;
        append(p, &items, parse_expression(p));
        expect_op(p, ":");
        append(p, &items, parse_expression(p));
    }
    expect_op(p, "}");
    return make_kids(p, JINJA_N_DICT, line, items);
}

static node *parse_primary(struct parser *p)
{
    node *n;
    switch (p->t->kind) {
    case JINJA_NAME: return parse_name(p);
    case JINJA_STRING: return parse_string(p);
    case JINJA_INT:
        n = constant(p, jinja_whole(p->t->i));
        p->t++;
        return n;
    case JINJA_FLOAT:
        n = constant(p, jinja_real(p->t->f));
        p->t++;
        return n;
    default: break;
    }
    if (is_op(p->t, "[")) return parse_list(p);
    if (is_op(p->t, "{")) return parse_dict(p);
    if (!skip_op(p, "(")) unexpected(p, "an expression");
    n = parse_tuple(p, parse_expression, true);
    expect_op(p, ")");
    return n;
}

static bool tuple_ends(const struct parser *p)
{
    return p->t->kind == JINJA_VAR_END || p->t->kind == JINJA_BLOCK_END ||
           is_op(p->t, ")") || is_name(p->t, "in");
}

static node *parse_tuple(struct parser *p, node *(*part)(struct parser *p),
                         bool explicit_parens)
{
    struct list items = {0};
    int line = p->t->line;
    bool tuple = false;
    for (;;) {
        if (items.count) expect_op(p, ",");
        if (tuple_ends(p)) break;
        append(p, &items, part(p));
        if (!is_op(p->t, ",")) break;
        tuple = true;
    }
    if (!tuple && items.count) return items.items[0];
    if (!tuple && !explicit_parens) unexpected(p, "an expression");
    return make_kids(p, JINJA_N_TUPLE, line, items);
}

/* "(a, b, name=c)" into n: kids behind those it has, and names. */
static void parse_args(struct parser *p, node *n)
{
    struct list kids = {n->kids, n->count, n->count};
    const char *names[32];
    expect_op(p, "(");
    while (!is_op(p->t, ")")) {
        if (is_op(p->t, "*") || is_op(p->t, "**"))
            refuse(p, p->t->line, "call with", p->t->s);
        if (p->t->kind == JINJA_NAME && is_op(p->t + 1, "=")) {
            if (n->name_count == 32)
                refuse(p, p->t->line, "call with so many names", "");
            names[n->name_count++] = p->t->s;
            p->t += 2;
        } else if (n->name_count) {
            unexpected(p, "a named argument");
        }
        append(p, &kids, parse_expression(p));
        if (!skip_op(p, ",")) break;
    }
    expect_op(p, ")");
    n->kids = kids.items;
    n->count = kids.count;
    if (n->name_count) {
        const char **copy = jinja_alloc(p->j, n->name_count, sizeof *copy);
        memcpy(copy, names, n->name_count * sizeof *copy);
        n->names = copy;
    }
}

static node *parse_call(struct parser *p, node *called)
{
    node *n = make1(p, JINJA_N_CALL, p->t->line, called);
    if (called->kind == JINJA_N_ATTR &&
        !jinja_method_known(called->s, called->n))
        refuse(p, p->t->line, "method", called->s);
    parse_args(p, n);
    return n;
}

/* Between brackets: an expression, or "a:b:c" as kids 1..3 of a slice. */
static node *parse_subscript(struct parser *p, node *of)
{
    int line = p->t->line;
    node *bounds[3] = {0};
    bool slice = false;
    expect_op(p, "[");
    if (!is_op(p->t, ":")) bounds[0] = parse_expression(p);
    for (int i = 1; i < 3 && skip_op(p, ":"); i++) {
        slice = true;
        if (!is_op(p->t, ":") && !is_op(p->t, "]"))
            bounds[i] = parse_expression(p);
    }
    if (is_op(p->t, ",")) refuse(p, line, "subscript with a comma", "");
    expect_op(p, "]");
    if (!slice) return make2(p, JINJA_N_ITEM, line, of, bounds[0]);
    struct list kids = {0};
    append(p, &kids, of);
    for (int i = 0; i < 3; i++)
        append(p, &kids, bounds[i]);
    return make_kids(p, JINJA_N_SLICE, line, kids);
}

static node *parse_dot(struct parser *p, node *of)
{
    int line = p->t->line;
    expect_op(p, ".");
    if (p->t->kind == JINJA_INT) {
        node *key = constant(p, jinja_whole(p->t->i));
        p->t++;
        return make2(p, JINJA_N_ITEM, line, of, key);
    }
    const struct jinja_token *name = expect_name(p);
    node *n = make1(p, JINJA_N_ATTR, line, of);
    n->s = name->s;
    n->n = name->n;
    return n;
}

static node *parse_postfix(struct parser *p, node *n)
{
    for (;;) {
        if (is_op(p->t, "."))
            n = parse_dot(p, n);
        else if (is_op(p->t, "["))
            n = parse_subscript(p, n);
        else if (is_op(p->t, "("))
            n = parse_call(p, n);
        else
            return n;
    }
}

/* "|a|b(c)" applied to n, which is NULL at the head of a filter block. */
static node *parse_filters(struct parser *p, node *n, bool first_named)
{
    while (first_named || skip_op(p, "|")) {
        first_named = false;
        const struct jinja_token *name = expect_name(p);
        node *f = make1(p, JINJA_N_FILTER, name->line, n);
        f->s = name->s;
        f->filter = jinja_filter_find(name->s, name->n);
        if (!f->filter) refuse(p, name->line, "filter", name->s);
        if (is_op(p->t, "(")) parse_args(p, f);
        n = f;
    }
    return n;
}

static bool starts_argument(const struct parser *p)
{
    switch (p->t->kind) {
    case JINJA_NAME:
        return !is_name(p->t, "else") && !is_name(p->t, "or") &&
               !is_name(p->t, "and");
    case JINJA_STRING:
    case JINJA_INT:
    case JINJA_FLOAT: return true;
    default: return is_op(p->t, "(") || is_op(p->t, "[") || is_op(p->t, "{");
    }
}

static node *parse_test(struct parser *p, node *of)
{
    int line = p->t->line;
    p->t++; /* is */
    bool negated = skip_name(p, "not");
    const struct jinja_token *name = expect_name(p);
    node *n = make1(p, JINJA_N_TEST, line, of);
    n->s = name->s;
    n->test = jinja_test_find(name->s, name->n);
    if (!n->test) refuse(p, line, "test", name->s);
    if (is_op(p->t, "(")) {
        parse_args(p, n);
    } else if (starts_argument(p)) {
        if (is_name(p->t, "is")) unexpected(p, "one test");
        struct list kids = {n->kids, 1, 4};
        append(p, &kids, parse_postfix(p, parse_primary(p)));
        n->count = 2;
        n->kids = kids.items;
    }
    return negated ? make1(p, JINJA_N_NOT, line, n) : n;
}

static node *parse_unary(struct parser *p, bool with_filter)
{
    int line = p->t->line;
    node *n;
    jinja_enter(p->j);
    if (skip_op(p, "-"))
        n = make1(p, JINJA_N_NEG, line, parse_unary(p, false));
    else if (skip_op(p, "+"))
        n = make1(p, JINJA_N_POS, line, parse_unary(p, false));
    else
        n = parse_primary(p);
    n = parse_postfix(p, n);
    while (with_filter) {
        if (is_op(p->t, "|"))
            n = parse_filters(p, n, false);
        else if (is_name(p->t, "is"))
            n = parse_test(p, n);
        else if (is_op(p->t, "("))
            n = parse_call(p, n);
        else
            break;
    }
    jinja_leave(p->j);
    return n;
}

static node *arith(struct parser *p, node *left, const char *op, int line,
                   node *right)
{
    node *n = make2(p, JINJA_N_ARITH, line, left, right);
    n->s = op;
    return n;
}

static node *parse_pow(struct parser *p)
{
    node *left = parse_unary(p, true);
    int line = p->t->line;
    while (skip_op(p, "**"))
        left = arith(p, left, "**", line, parse_unary(p, true));
    return left;
}

static node *parse_product(struct parser *p)
{
    node *left = parse_pow(p);
    while (is_op(p->t, "*") || is_op(p->t, "/") || is_op(p->t, "//") ||
           is_op(p->t, "%")) {
        const struct jinja_token *op = p->t++;
        left = arith(p, left, op->s, op->line, parse_pow(p));
    }
    return left;
}

static node *parse_concat(struct parser *p)
{
    node *first = parse_product(p);
    struct list parts = {0};
    int line = p->t->line;
    append(p, &parts, first);
    while (skip_op(p, "~"))
        append(p, &parts, parse_product(p));
    return parts.count == 1 ? first : make_kids(p, JINJA_N_CONCAT, line, parts);
}

static node *parse_sum(struct parser *p)
{
    node *left = parse_concat(p);
    while (is_op(p->t, "+") || is_op(p->t, "-")) {
        const struct jinja_token *op = p->t++;
        left = arith(p, left, op->s, op->line, parse_concat(p));
    }
    return left;
}

/* The comparison at the current token, which is consumed; NULL: none. */
static const char *compare_op(struct parser *p)
{
    static const char *const ops[] = {"==", "!=", ">", ">=", "<", "<="};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (skip_op(p, ops[i])) return ops[i];
    if (skip_name(p, "in")) return "in";
    if (!is_name(p->t, "not") || !is_name(p->t + 1, "in")) return NULL;
    p->t += 2;
    return "not in";
}

static node *parse_compare(struct parser *p)
{
    node *first = parse_sum(p);
    struct list parts = {0};
    const char *ops[32], *op;
    size_t count = 0;
    int line = p->t->line;
    append(p, &parts, first);
    while ((op = compare_op(p))) {
        if (count == 32) refuse(p, line, "comparison so long", "");
        ops[count++] = op;
        append(p, &parts, parse_sum(p));
    }
    if (!count) return first;
    node *n = make_kids(p, JINJA_N_COMPARE, line, parts);
    const char **copy = jinja_alloc(p->j, count, sizeof *copy);
    memcpy(copy, ops, count * sizeof *copy);
    n->names = copy;
    n->name_count = count;
    return n;
}

static node *parse_not(struct parser *p)
{
    int line = p->t->line;
    size_t count = 0;
    while (skip_name(p, "not"))
        count++;
    node *n = parse_compare(p);
    if (count) n = make1(p, JINJA_N_NOT, line, n);
    return count && count % 2 == 0 ? make1(p, JINJA_N_NOT, line, n) : n;
}

static node *parse_and(struct parser *p)
{
    node *left = parse_not(p);
    int line = p->t->line;
    while (skip_name(p, "and"))
        left = make2(p, JINJA_N_AND, line, left, parse_not(p));
    return left;
}

static node *parse_or(struct parser *p)
{
    node *left = parse_and(p);
    int line = p->t->line;
    while (skip_name(p, "or"))
        left = make2(p, JINJA_N_OR, line, left, parse_and(p));
    return left;
}

static node *parse_expression(struct parser *p)
{
    jinja_enter(p->j);
    int line = p->t->line;
    node *n = parse_or(p);
    while (skip_name(p, "if")) {
        node *test = parse_or(p);
        node *otherwise = skip_name(p, "else") ? parse_expression(p) : NULL;
        n = make3(p, JINJA_N_IF_ELSE, line, test, n, otherwise);
    }
    jinja_leave(p->j);
    return n;
}

/* Statements. */

static node *parse_body(struct parser *p, const char *const *ends);

static void expect_block_end(struct parser *p)
{
    if (p->t->kind != JINJA_BLOCK_END) unexpected(p, "%}");
    p->t++;
}

/* A body after the tag's end, up to one of ends, whose name is next. */
static node *parse_inside(struct parser *p, const char *const *ends)
{
    skip_op(p, ":");
    expect_block_end(p);
    return parse_body(p, ends);
}

#define ENDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static node *parse_target_part(struct parser *p)
{
    if (skip_op(p, "(")) {
        node *n = parse_tuple(p, parse_target_part, true);
        expect_op(p, ")");
        return n;
    }
    int line = p->t->line;
    if (p->t->kind != JINJA_NAME) unexpected(p, "a name to assign to");
    if (is_op(p->t + 1, ".")) {
        node *n = make(p, JINJA_N_NSREF, line);
        n->name = intern(p, p->t->s);
        p->t += 2;
        const struct jinja_token *attr = expect_name(p);
        n->s = attr->s;
        n->n = attr->n;
        return n;
    }
    node *n = parse_name(p);
    if (n->kind != JINJA_N_NAME) unexpected(p, "a name to assign to");
    return n;
}

static node *parse_target(struct parser *p)
{
    return parse_tuple(p, parse_target_part, false);
}

static node *parse_if(struct parser *p)
{
    int line = p->t->line;
    p->t++; /* if, elif */
    node *test = parse_tuple(p, parse_or, false);
    node *body = parse_inside(p, ENDS("elif", "else", "endif"));
    node *otherwise = NULL;
    if (is_name(p->t, "elif")) {
        jinja_enter(p->j);
        otherwise = parse_if(p);
        jinja_leave(p->j);
        return make3(p, JINJA_N_IF, line, test, body, otherwise);
    }
    if (skip_name(p, "else")) otherwise = parse_inside(p, ENDS("endif"));
    p->t++;
    return make3(p, JINJA_N_IF, line, test, body, otherwise);
}

static node *parse_for(struct parser *p)
{
    struct list kids = {0};
    int line = p->t->line;
    p->t++;
    append(p, &kids, parse_target(p));
    if (!skip_name(p, "in")) unexpected(p, "in");
    append(p, &kids, parse_tuple(p, parse_or, false));
    append(p, &kids, skip_name(p, "if") ? parse_expression(p) : NULL);
    if (is_name(p->t, "recursive")) refuse(p, line, "recursive loop", "");
    p->loops++;
    append(p, &kids, parse_inside(p, ENDS("endfor", "else")));
    p->loops--;
    append(p, &kids,
           skip_name(p, "else") ? parse_inside(p, ENDS("endfor")) : NULL);
    p->t++;
    return make_kids(p, JINJA_N_FOR, line, kids);
}

static node *parse_set(struct parser *p)
{
    int line = p->t->line;
    p->t++;
    node *target = parse_target(p);
    if (skip_op(p, "="))
        return make2(p, JINJA_N_SET, line, target,
                     parse_tuple(p, parse_expression, false));
    node *filter = parse_filters(p, NULL, false);
    node *body = parse_inside(p, ENDS("endset"));
    p->t++;
    return make3(p, JINJA_N_SET_BLOCK, line, target, filter, body);
}

static node *parse_filter_block(struct parser *p)
{
    int line = p->t->line;
    p->t++;
    node *filter = parse_filters(p, NULL, true);
    node *body = parse_inside(p, ENDS("endfilter"));
    p->t++;
    return make2(p, JINJA_N_FILTER_BLOCK, line, filter, body);
}

static node *parse_with(struct parser *p)
{
    struct list kids = {0};
    int line = p->t->line;
    p->t++;
    append(p, &kids, NULL);
    while (p->t->kind != JINJA_BLOCK_END) {
        if (kids.count > 1) expect_op(p, ",");
        append(p, &kids, parse_target_part(p));
        expect_op(p, "=");
        append(p, &kids, parse_expression(p));
    }
    kids.items[0] = parse_inside(p, ENDS("endwith"));
    p->t++;
    return make_kids(p, JINJA_N_WITH, line, kids);
}

static node *parse_macro(struct parser *p)
{
    struct list kids = {0};
    int params[32], line = p->t->line;
    size_t count = 0;
    p->t++;
    const struct jinja_token *name = expect_name(p);
    append(p, &kids, NULL);
    expect_op(p, "(");
    while (!is_op(p->t, ")")) {
        if (count) expect_op(p, ",");
        if (count == 32) refuse(p, line, "macro with so many parameters", "");
        params[count++] = intern(p, expect_name(p)->s);
        if (skip_op(p, "="))
            append(p, &kids, parse_expression(p));
        else if (kids.count > 1)
            unexpected(p, "a default, as the one before has");
    }
    expect_op(p, ")");
    int loops = p->loops;
    p->loops = 0;
    p->macros++;
    kids.items[0] = parse_inside(p, ENDS("endmacro"));
    p->macros--;
    p->loops = loops;
    p->t++;
    node *n = make_kids(p, JINJA_N_MACRO, line, kids);
    int *copy = jinja_alloc(p->j, count + 1, sizeof *copy);
    memcpy(copy, params, count * sizeof *copy);
    n->params = copy;
    n->param_count = count;
    n->name = intern(p, name->s);
    n->s = name->s;
    return n;
}

/* {% generation %}: only marks what the model wrote. */
static node *parse_generation(struct parser *p)
{
    int line = p->t->line, loops = p->loops;
    p->t++;
    p->loops = 0;
    node *body = parse_inside(p, ENDS("endgeneration"));
    p->loops = loops;
    p->t++;
    return make1(p, JINJA_N_SCOPE, line, body);
}

static node *parse_leave(struct parser *p)
{
    bool stop = is_name(p->t, "break");
    if (!p->loops) {
        p->j->line = p->t->line;
        jinja_fail(p->j, ERR_FORMAT, "%s outside of a loop", p->t->s);
    }
    p->t++;
    return make(p, stop ? JINJA_N_BREAK : JINJA_N_CONTINUE, p->t->line);
}

static node *parse_statement(struct parser *p)
{
    static const struct {
        const char *name;
        node *(*parse)(struct parser *p);
    } tags[] = {{"if", parse_if},
                {"for", parse_for},
                {"set", parse_set},
                {"with", parse_with},
                {"macro", parse_macro},
                {"filter", parse_filter_block},
                {"generation", parse_generation},
                {"break", parse_leave},
                {"continue", parse_leave}};
    if (p->t->kind != JINJA_NAME) unexpected(p, "a tag's name");
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        if (is_name(p->t, tags[i].name)) return tags[i].parse(p);
    if (!strncmp(p->t->s, "end", 3) || !strncmp(p->t->s, "el", 2))
        unexpected(p, "a tag that may stand here");
    refuse(p, p->t->line, "tag", p->t->s);
}

static bool at_end(const struct parser *p, const char *const *ends)
{
    for (; ends && *ends; ends++)
        if (is_name(p->t + 1, *ends)) return true;
    return false;
}

static node *parse_body(struct parser *p, const char *const *ends)
{
    struct list parts = {0};
    int line = p->t->line;
    jinja_enter(p->j);
    while (p->t->kind != JINJA_END) {
        if (p->t->kind == JINJA_DATA) {
            node *n = make(p, JINJA_N_DATA, p->t->line);
            n->s = p->t->s;
            n->n = p->t++->n;
            append(p, &parts, n);
        } else if (p->t->kind == JINJA_VAR_BEGIN) {
            int at = p->t++->line;
            node *n = parse_tuple(p, parse_expression, false);
            if (p->t->kind != JINJA_VAR_END) unexpected(p, "}}");
            p->t++;
            append(p, &parts, make1(p, JINJA_N_OUTPUT, at, n));
        } else {
            if (at_end(p, ends)) {
                p->t++;
                break;
            }
            p->t++;
            append(p, &parts, parse_statement(p));
            expect_block_end(p);
        }
    }
    if (ends && p->t->kind == JINJA_END) unexpected(p, *ends);
    jinja_leave(p->j);
    return make_kids(p, JINJA_N_BODY, line, parts);
}

node *jinja_parse(struct jinja *j, const struct jinja_token *t,
                  struct jinja_names *names)
{
    struct parser p = {.j = j, .t = t, .names = names};
    return parse_body(&p, NULL);
}
