/* Expressions of jinja2's grammar, rule by rule and in its order of binding. */
#include "text/jinja_parser.h"

#include <string.h>

static struct jinja_node *parse_unary(struct jinja_parser *p, bool with_filter);
static struct jinja_node *parse_postfix(struct jinja_parser *p,
                                        struct jinja_node *n);

static struct jinja_node *constant(struct jinja_parser *p,
                                   struct jinja_value value)
{
    struct jinja_node *n = jinja_parser_make(p, JINJA_N_CONST, p->t->line);
    n->value = value;
    return n;
}

static struct jinja_node *parse_string(struct jinja_parser *p)
{
    struct jinja_text text = {0};
    struct jinja_node *n = constant(p, jinja_none());
    for (; p->t->kind == JINJA_STRING; p->t++)
        jinja_add(p->j, &text, p->t->s, p->t->n);
    n->value = jinja_str_of(p->j, &text);
    return n;
}

/* Names that jinja2 gives a meaning that is not done here. */
static void check_name(struct jinja_parser *p, const struct jinja_token *t)
{
    static const char *const not_done[] = {"cycler", "joiner", "lipsum", "self",
                                           "super"};
    static const char *const in_macros[] = {"caller", "varargs", "kwargs"};
    for (size_t i = 0; i < sizeof not_done / sizeof *not_done; i++)
        if (!strcmp(t->s, not_done[i]))
            jinja_parser_refuse(p, t->line, t->s, "");
    for (size_t i = 0; i < 3; i++)
        if (p->macros && !strcmp(t->s, in_macros[i]))
            jinja_parser_refuse(p, t->line, t->s, "");
}

struct jinja_node *jinja_parse_name(struct jinja_parser *p)
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
        struct jinja_node *n =
            constant(p, v == 2 ? jinja_none() : jinja_bool(v));
        p->t++;
        return n;
    }
    check_name(p, t);
    struct jinja_node *n = jinja_parser_make(p, JINJA_N_NAME, t->line);
    n->name = jinja_parser_intern(p, t->s);
    n->s = t->s;
    n->n = t->n;
    p->t++;
    return n;
}

static struct jinja_node *parse_list(struct jinja_parser *p)
{
    struct jinja_nodes items = {0};
    int line = p->t->line;
    jinja_parser_expect_op(p, "[");
    while (!jinja_parser_is_op(p->t, "]")) {
        if (items.count) jinja_parser_expect_op(p, ",");
        if (jinja_parser_is_op(p->t, "]")) break;
        jinja_parser_append(p, &items, jinja_parse_expression(p));
    }
    jinja_parser_expect_op(p, "]");
    return jinja_parser_make_kids(p, JINJA_N_LIST, line, items);
}

static struct jinja_node *parse_dict(struct jinja_parser *p)
{
    struct jinja_nodes items = {0};
    int line = p->t->line;
    jinja_parser_expect_op(p, "{");
    while (!jinja_parser_is_op(p->t, "}")) {
        if (items.count) jinja_parser_expect_op(p, ",");
        if (jinja_parser_is_op(p->t, "}")) break;
        jinja_parser_append(p, &items, jinja_parse_expression(p));
        jinja_parser_expect_op(p, ":");
        jinja_parser_append(p, &items, jinja_parse_expression(p));
    }
    jinja_parser_expect_op(p, "}");
    return jinja_parser_make_kids(p, JINJA_N_DICT, line, items);
}

static struct jinja_node *parse_primary(struct jinja_parser *p)
{
    struct jinja_node *n;
    switch (p->t->kind) {
    case JINJA_NAME: return jinja_parse_name(p);
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
    if (jinja_parser_is_op(p->t, "[")) return parse_list(p);
    if (jinja_parser_is_op(p->t, "{")) return parse_dict(p);
    if (!jinja_parser_skip_op(p, "("))
        jinja_parser_unexpected(p, "an expression");
    n = jinja_parse_tuple(p, jinja_parse_expression, true);
    jinja_parser_expect_op(p, ")");
    return n;
}

static bool tuple_ends(const struct jinja_parser *p)
{
    return p->t->kind == JINJA_VAR_END || p->t->kind == JINJA_BLOCK_END ||
           jinja_parser_is_op(p->t, ")") || jinja_parser_is_name(p->t, "in");
}

struct jinja_node *jinja_parse_tuple(
    struct jinja_parser *p, struct jinja_node *(*part)(struct jinja_parser *p),
    bool explicit_parens)
{
    struct jinja_nodes items = {0};
    int line = p->t->line;
    bool tuple = false;
    for (;;) {
        if (items.count) jinja_parser_expect_op(p, ",");
        if (tuple_ends(p)) break;
        jinja_parser_append(p, &items, part(p));
        if (!jinja_parser_is_op(p->t, ",")) break;
        tuple = true;
    }
    if (!tuple && items.count) return items.items[0];
    if (!tuple && !explicit_parens) jinja_parser_unexpected(p, "an expression");
    return jinja_parser_make_kids(p, JINJA_N_TUPLE, line, items);
}

/* "(a, b, name=c)" into n: kids behind those it has, and names. */
static void parse_args(struct jinja_parser *p, struct jinja_node *n)
{
    struct jinja_nodes kids = {n->kids, n->count, n->count};
    const char *names[32];
    jinja_parser_expect_op(p, "(");
    while (!jinja_parser_is_op(p->t, ")")) {
        if (jinja_parser_is_op(p->t, "*") || jinja_parser_is_op(p->t, "**"))
            jinja_parser_refuse(p, p->t->line, "call with", p->t->s);
        if (p->t->kind == JINJA_NAME && jinja_parser_is_op(p->t + 1, "=")) {
            if (n->name_count == 32)
                jinja_parser_refuse(p, p->t->line, "call with so many names",
                                    "");
            names[n->name_count++] = p->t->s;
            p->t += 2;
        } else if (n->name_count) {
            jinja_parser_unexpected(p, "a named argument");
        }
        jinja_parser_append(p, &kids, jinja_parse_expression(p));
        if (!jinja_parser_skip_op(p, ",")) break;
    }
    jinja_parser_expect_op(p, ")");
    n->kids = kids.items;
    n->count = kids.count;
    if (n->name_count) {
        const char **copy = jinja_alloc(p->j, n->name_count, sizeof *copy);
        memcpy(copy, names, n->name_count * sizeof *copy);
        n->names = copy;
    }
}

static struct jinja_node *parse_call(struct jinja_parser *p,
                                     struct jinja_node *called)
{
    struct jinja_node *n =
        jinja_parser_make1(p, JINJA_N_CALL, p->t->line, called);
    if (called->kind == JINJA_N_ATTR &&
        !jinja_method_known(called->s, called->n))
        jinja_parser_refuse(p, p->t->line, "method", called->s);
    parse_args(p, n);
    return n;
}

/* Between brackets: an expression, or "a:b:c" as kids 1..3 of a slice. */
static struct jinja_node *parse_subscript(struct jinja_parser *p,
                                          struct jinja_node *of)
{
    int line = p->t->line;
    struct jinja_node *bounds[3] = {0};
    bool slice = false;
    jinja_parser_expect_op(p, "[");
    if (!jinja_parser_is_op(p->t, ":")) bounds[0] = jinja_parse_expression(p);
    for (int i = 1; i < 3 && jinja_parser_skip_op(p, ":"); i++) {
        slice = true;
        if (!jinja_parser_is_op(p->t, ":") && !jinja_parser_is_op(p->t, "]"))
            bounds[i] = jinja_parse_expression(p);
    }
    if (jinja_parser_is_op(p->t, ","))
        jinja_parser_refuse(p, line, "subscript with a comma", "");
    jinja_parser_expect_op(p, "]");
    if (!slice) return jinja_parser_make2(p, JINJA_N_ITEM, line, of, bounds[0]);
    struct jinja_nodes kids = {0};
    jinja_parser_append(p, &kids, of);
    for (int i = 0; i < 3; i++)
        jinja_parser_append(p, &kids, bounds[i]);
    return jinja_parser_make_kids(p, JINJA_N_SLICE, line, kids);
}

static struct jinja_node *parse_dot(struct jinja_parser *p,
                                    struct jinja_node *of)
{
    int line = p->t->line;
    jinja_parser_expect_op(p, ".");
    if (p->t->kind == JINJA_INT) {
        struct jinja_node *key = constant(p, jinja_whole(p->t->i));
        p->t++;
        return jinja_parser_make2(p, JINJA_N_ITEM, line, of, key);
    }
    const struct jinja_token *name = jinja_parser_expect_name(p);
    struct jinja_node *n = jinja_parser_make1(p, JINJA_N_ATTR, line, of);
    n->s = name->s;
    n->n = name->n;
    return n;
}

static struct jinja_node *parse_postfix(struct jinja_parser *p,
                                        struct jinja_node *n)
{
    for (;;) {
        if (jinja_parser_is_op(p->t, "."))
            n = parse_dot(p, n);
        else if (jinja_parser_is_op(p->t, "["))
            n = parse_subscript(p, n);
        else if (jinja_parser_is_op(p->t, "("))
            n = parse_call(p, n);
        else
            return n;
    }
}

/* "|a|b(c)" applied to n, which is NULL at the head of a filter block. */
struct jinja_node *jinja_parse_filters(struct jinja_parser *p,
                                       struct jinja_node *n, bool first_named)
{
    while (first_named || jinja_parser_skip_op(p, "|")) {
        first_named = false;
        const struct jinja_token *name = jinja_parser_expect_name(p);
        struct jinja_node *f =
            jinja_parser_make1(p, JINJA_N_FILTER, name->line, n);
        f->s = name->s;
        f->filter = jinja_filter_find(name->s, name->n);
        if (!f->filter) jinja_parser_refuse(p, name->line, "filter", name->s);
        if (jinja_parser_is_op(p->t, "(")) parse_args(p, f);
        n = f;
    }
    return n;
}

static bool starts_argument(const struct jinja_parser *p)
{
    switch (p->t->kind) {
    case JINJA_NAME:
        return !jinja_parser_is_name(p->t, "else") &&
               !jinja_parser_is_name(p->t, "or") &&
               !jinja_parser_is_name(p->t, "and");
    case JINJA_STRING:
    case JINJA_INT:
    case JINJA_FLOAT: return true;
    default:
        return jinja_parser_is_op(p->t, "(") || jinja_parser_is_op(p->t, "[") ||
               jinja_parser_is_op(p->t, "{");
    }
}

static struct jinja_node *parse_test(struct jinja_parser *p,
                                     struct jinja_node *of)
{
    int line = p->t->line;
    p->t++; /* is */
    bool negated = jinja_parser_skip_name(p, "not");
    const struct jinja_token *name = jinja_parser_expect_name(p);
    struct jinja_node *n = jinja_parser_make1(p, JINJA_N_TEST, line, of);
    n->s = name->s;
    n->test = jinja_test_find(name->s, name->n);
    if (!n->test) jinja_parser_refuse(p, line, "test", name->s);
    if (jinja_parser_is_op(p->t, "(")) {
        parse_args(p, n);
    } else if (starts_argument(p)) {
        if (jinja_parser_is_name(p->t, "is"))
            jinja_parser_unexpected(p, "one test");
        struct jinja_nodes kids = {n->kids, 1, 4};
        jinja_parser_append(p, &kids, parse_postfix(p, parse_primary(p)));
        n->count = 2;
        n->kids = kids.items;
    }
    return negated ? jinja_parser_make1(p, JINJA_N_NOT, line, n) : n;
}

static struct jinja_node *parse_unary(struct jinja_parser *p, bool with_filter)
{
    int line = p->t->line;
    struct jinja_node *n;
    jinja_enter(p->j);
    if (jinja_parser_skip_op(p, "-"))
        n = jinja_parser_make1(p, JINJA_N_NEG, line, parse_unary(p, false));
    else if (jinja_parser_skip_op(p, "+"))
        n = jinja_parser_make1(p, JINJA_N_POS, line, parse_unary(p, false));
    else
        n = parse_primary(p);
    n = parse_postfix(p, n);
    while (with_filter) {
        if (jinja_parser_is_op(p->t, "|"))
            n = jinja_parse_filters(p, n, false);
        else if (jinja_parser_is_name(p->t, "is"))
            n = parse_test(p, n);
        else if (jinja_parser_is_op(p->t, "("))
            n = parse_call(p, n);
        else
            break;
    }
    jinja_leave(p->j);
    return n;
}

static struct jinja_node *arith(struct jinja_parser *p, struct jinja_node *left,
                                const char *op, int line,
                                struct jinja_node *right)
{
    struct jinja_node *n =
        jinja_parser_make2(p, JINJA_N_ARITH, line, left, right);
    n->s = op;
    return n;
}

static struct jinja_node *parse_pow(struct jinja_parser *p)
{
    struct jinja_node *left = parse_unary(p, true);
    int line = p->t->line;
    while (jinja_parser_skip_op(p, "**"))
        left = arith(p, left, "**", line, parse_unary(p, true));
    return left;
}

static struct jinja_node *parse_product(struct jinja_parser *p)
{
    struct jinja_node *left = parse_pow(p);
    while (jinja_parser_is_op(p->t, "*") || jinja_parser_is_op(p->t, "/") ||
           jinja_parser_is_op(p->t, "//") || jinja_parser_is_op(p->t, "%")) {
        const struct jinja_token *op = p->t++;
        left = arith(p, left, op->s, op->line, parse_pow(p));
    }
    return left;
}

static struct jinja_node *parse_concat(struct jinja_parser *p)
{
    struct jinja_node *first = parse_product(p);
    struct jinja_nodes parts = {0};
    int line = p->t->line;
    jinja_parser_append(p, &parts, first);
    while (jinja_parser_skip_op(p, "~"))
        jinja_parser_append(p, &parts, parse_product(p));
    return parts.count == 1
               ? first
               : jinja_parser_make_kids(p, JINJA_N_CONCAT, line, parts);
}

static struct jinja_node *parse_sum(struct jinja_parser *p)
{
    struct jinja_node *left = parse_concat(p);
    while (jinja_parser_is_op(p->t, "+") || jinja_parser_is_op(p->t, "-")) {
        const struct jinja_token *op = p->t++;
        left = arith(p, left, op->s, op->line, parse_concat(p));
    }
    return left;
}

/* The comparison at the current token, which is consumed; NULL: none. */
static const char *compare_op(struct jinja_parser *p)
{
    static const char *const ops[] = {"==", "!=", ">", ">=", "<", "<="};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (jinja_parser_skip_op(p, ops[i])) return ops[i];
    if (jinja_parser_skip_name(p, "in")) return "in";
    if (!jinja_parser_is_name(p->t, "not") ||
        !jinja_parser_is_name(p->t + 1, "in"))
        return NULL;
    p->t += 2;
    return "not in";
}

static struct jinja_node *parse_compare(struct jinja_parser *p)
{
    struct jinja_node *first = parse_sum(p);
    struct jinja_nodes parts = {0};
    const char *ops[32], *op;
    size_t count = 0;
    int line = p->t->line;
    jinja_parser_append(p, &parts, first);
    while ((op = compare_op(p))) {
        if (count == 32) jinja_parser_refuse(p, line, "comparison so long", "");
        ops[count++] = op;
        jinja_parser_append(p, &parts, parse_sum(p));
    }
    if (!count) return first;
    struct jinja_node *n =
        jinja_parser_make_kids(p, JINJA_N_COMPARE, line, parts);
    const char **copy = jinja_alloc(p->j, count, sizeof *copy);
    memcpy(copy, ops, count * sizeof *copy);
    n->names = copy;
    n->name_count = count;
    return n;
}

static struct jinja_node *parse_not(struct jinja_parser *p)
{
    int line = p->t->line;
    size_t count = 0;
    while (jinja_parser_skip_name(p, "not"))
        count++;
    struct jinja_node *n = parse_compare(p);
    if (count) n = jinja_parser_make1(p, JINJA_N_NOT, line, n);
    return count && count % 2 == 0 ? jinja_parser_make1(p, JINJA_N_NOT, line, n)
                                   : n;
}

static struct jinja_node *parse_and(struct jinja_parser *p)
{
    struct jinja_node *left = parse_not(p);
    int line = p->t->line;
    while (jinja_parser_skip_name(p, "and"))
        left = jinja_parser_make2(p, JINJA_N_AND, line, left, parse_not(p));
    return left;
}

struct jinja_node *jinja_parse_or(struct jinja_parser *p)
{
    struct jinja_node *left = parse_and(p);
    int line = p->t->line;
    while (jinja_parser_skip_name(p, "or"))
        left = jinja_parser_make2(p, JINJA_N_OR, line, left, parse_and(p));
    return left;
}

struct jinja_node *jinja_parse_expression(struct jinja_parser *p)
{
    jinja_enter(p->j);
    int line = p->t->line;
    struct jinja_node *n = jinja_parse_or(p);
    while (jinja_parser_skip_name(p, "if")) {
        struct jinja_node *test = jinja_parse_or(p);
        struct jinja_node *otherwise = jinja_parser_skip_name(p, "else")
                                           ? jinja_parse_expression(p)
                                           : NULL;
        n = jinja_parser_make3(p, JINJA_N_IF_ELSE, line, test, n, otherwise);
    }
    jinja_leave(p->j);
    return n;
}
