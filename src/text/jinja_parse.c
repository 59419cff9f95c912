/* jinja2's statements, rule by rule. What is Jinja but not done here is told
 * apart from what is not Jinja. */
#include "text/jinja_parser.h"

#include <string.h>

static struct jinja_node *parse_body(struct jinja_parser *p,
                                     const char *const *ends);

static void expect_block_end(struct jinja_parser *p)
{
    if (p->t->kind != JINJA_BLOCK_END) jinja_parser_unexpected(p, "%}");
    p->t++;
}

/* A body after the tag's end, up to one of ends, whose name is next. */
static struct jinja_node *parse_inside(struct jinja_parser *p,
                                       const char *const *ends)
{
    jinja_parser_skip_op(p, ":");
    expect_block_end(p);
    return parse_body(p, ends);
}

#define ENDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static struct jinja_node *parse_target_part(struct jinja_parser *p)
{
    if (jinja_parser_skip_op(p, "(")) {
        struct jinja_node *n = jinja_parse_tuple(p, parse_target_part, true);
        jinja_parser_expect_op(p, ")");
        return n;
    }
    int line = p->t->line;
    if (p->t->kind != JINJA_NAME)
        jinja_parser_unexpected(p, "a name to assign to");
    if (jinja_parser_is_op(p->t + 1, ".")) {
        struct jinja_node *n = jinja_parser_make(p, JINJA_N_NSREF, line);
        n->name = jinja_parser_intern(p, p->t->s);
        p->t += 2;
        const struct jinja_token *attr = jinja_parser_expect_name(p);
        n->s = attr->s;
        n->n = attr->n;
        return n;
    }
    struct jinja_node *n = jinja_parse_name(p);
    if (n->kind != JINJA_N_NAME)
        jinja_parser_unexpected(p, "a name to assign to");
    return n;
}

static struct jinja_node *parse_target(struct jinja_parser *p)
{
    return jinja_parse_tuple(p, parse_target_part, false);
}

static struct jinja_node *parse_if(struct jinja_parser *p)
{
    int line = p->t->line;
    p->t++; /* if, elif */
    struct jinja_node *test = jinja_parse_tuple(p, jinja_parse_or, false);
    struct jinja_node *body = parse_inside(p, ENDS("elif", "else", "endif"));
    struct jinja_node *otherwise = NULL;
    if (jinja_parser_is_name(p->t, "elif")) {
        jinja_enter(p->j);
        otherwise = parse_if(p);
        jinja_leave(p->j);
        return jinja_parser_make3(p, JINJA_N_IF, line, test, body, otherwise);
    }
    if (jinja_parser_skip_name(p, "else"))
        otherwise = parse_inside(p, ENDS("endif"));
    p->t++;
    return jinja_parser_make3(p, JINJA_N_IF, line, test, body, otherwise);
}

static struct jinja_node *parse_for(struct jinja_parser *p)
{
    struct jinja_nodes kids = {0};
    int line = p->t->line;
    p->t++;
    jinja_parser_append(p, &kids, parse_target(p));
    if (!jinja_parser_skip_name(p, "in")) jinja_parser_unexpected(p, "in");
    jinja_parser_append(p, &kids, jinja_parse_tuple(p, jinja_parse_or, false));
    jinja_parser_append(
        p, &kids,
        jinja_parser_skip_name(p, "if") ? jinja_parse_expression(p) : NULL);
    if (jinja_parser_is_name(p->t, "recursive"))
        jinja_parser_refuse(p, line, "recursive loop", "");
    p->loops++;
    jinja_parser_append(p, &kids, parse_inside(p, ENDS("endfor", "else")));
    p->loops--;
    jinja_parser_append(p, &kids,
                        jinja_parser_skip_name(p, "else")
                            ? parse_inside(p, ENDS("endfor"))
                            : NULL);
    p->t++;
    return jinja_parser_make_kids(p, JINJA_N_FOR, line, kids);
}

static struct jinja_node *parse_set(struct jinja_parser *p)
{
    int line = p->t->line;
    p->t++;
    struct jinja_node *target = parse_target(p);
    if (jinja_parser_skip_op(p, "="))
        return jinja_parser_make2(
            p, JINJA_N_SET, line, target,
            jinja_parse_tuple(p, jinja_parse_expression, false));
    struct jinja_node *filter = jinja_parse_filters(p, NULL, false);
    struct jinja_node *body = parse_inside(p, ENDS("endset"));
    p->t++;
    return jinja_parser_make3(p, JINJA_N_SET_BLOCK, line, target, filter, body);
}

static struct jinja_node *parse_filter_block(struct jinja_parser *p)
{
    int line = p->t->line;
    p->t++;
    struct jinja_node *filter = jinja_parse_filters(p, NULL, true);
    struct jinja_node *body = parse_inside(p, ENDS("endfilter"));
    p->t++;
    return jinja_parser_make2(p, JINJA_N_FILTER_BLOCK, line, filter, body);
}

static struct jinja_node *parse_with(struct jinja_parser *p)
{
    struct jinja_nodes kids = {0};
    int line = p->t->line;
    p->t++;
    jinja_parser_append(p, &kids, NULL);
    while (p->t->kind != JINJA_BLOCK_END) {
        if (kids.count > 1) jinja_parser_expect_op(p, ",");
        jinja_parser_append(p, &kids, parse_target_part(p));
        jinja_parser_expect_op(p, "=");
        jinja_parser_append(p, &kids, jinja_parse_expression(p));
    }
    kids.items[0] = parse_inside(p, ENDS("endwith"));
    p->t++;
    return jinja_parser_make_kids(p, JINJA_N_WITH, line, kids);
}

static struct jinja_node *parse_macro(struct jinja_parser *p)
{
    struct jinja_nodes kids = {0};
    int params[32], line = p->t->line;
    size_t count = 0;
    p->t++;
    const struct jinja_token *name = jinja_parser_expect_name(p);
    jinja_parser_append(p, &kids, NULL);
    jinja_parser_expect_op(p, "(");
    while (!jinja_parser_is_op(p->t, ")")) {
        if (count) jinja_parser_expect_op(p, ",");
        if (count == 32)
            jinja_parser_refuse(p, line, "macro with so many parameters", "");
        params[count++] =
            jinja_parser_intern(p, jinja_parser_expect_name(p)->s);
        if (jinja_parser_skip_op(p, "="))
            jinja_parser_append(p, &kids, jinja_parse_expression(p));
        else if (kids.count > 1)
            jinja_parser_unexpected(p, "a default, as the one before has");
    }
    jinja_parser_expect_op(p, ")");
    int loops = p->loops;
    p->loops = 0;
    p->macros++;
    kids.items[0] = parse_inside(p, ENDS("endmacro"));
    p->macros--;
    p->loops = loops;
    p->t++;
    struct jinja_node *n = jinja_parser_make_kids(p, JINJA_N_MACRO, line, kids);
    int *copy = jinja_alloc(p->j, count + 1, sizeof *copy);
    memcpy(copy, params, count * sizeof *copy);
    n->params = copy;
    n->param_count = count;
    n->name = jinja_parser_intern(p, name->s);
    n->s = name->s;
    return n;
}

/* {% generation %}: only marks what the model wrote. */
static struct jinja_node *parse_generation(struct jinja_parser *p)
{
    int line = p->t->line, loops = p->loops;
    p->t++;
    p->loops = 0;
    struct jinja_node *body = parse_inside(p, ENDS("endgeneration"));
    p->loops = loops;
    p->t++;
    return jinja_parser_make1(p, JINJA_N_SCOPE, line, body);
}

static struct jinja_node *parse_leave(struct jinja_parser *p)
{
    bool stop = jinja_parser_is_name(p->t, "break");
    if (!p->loops) {
        p->j->line = p->t->line;
        jinja_fail(p->j, ERR_FORMAT, "%s outside of a loop", p->t->s);
    }
    p->t++;
    return jinja_parser_make(p, stop ? JINJA_N_BREAK : JINJA_N_CONTINUE,
                             p->t->line);
}

static struct jinja_node *parse_statement(struct jinja_parser *p)
{
    static const struct {
        const char *name;
        struct jinja_node *(*parse)(struct jinja_parser *p);
    } tags[] = {{"if", parse_if},
                {"for", parse_for},
                {"set", parse_set},
                {"with", parse_with},
                {"macro", parse_macro},
                {"filter", parse_filter_block},
                {"generation", parse_generation},
                {"break", parse_leave},
                {"continue", parse_leave}};
    if (p->t->kind != JINJA_NAME) jinja_parser_unexpected(p, "a tag's name");
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        if (jinja_parser_is_name(p->t, tags[i].name)) return tags[i].parse(p);
    if (!strncmp(p->t->s, "end", 3) || !strncmp(p->t->s, "el", 2))
        jinja_parser_unexpected(p, "a tag that may stand here");
    jinja_parser_refuse(p, p->t->line, "tag", p->t->s);
}

static bool at_end(const struct jinja_parser *p, const char *const *ends)
{
    for (; ends && *ends; ends++)
        if (jinja_parser_is_name(p->t + 1, *ends)) return true;
    return false;
}

static struct jinja_node *parse_body(struct jinja_parser *p,
                                     const char *const *ends)
{
    struct jinja_nodes parts = {0};
    int line = p->t->line;
    jinja_enter(p->j);
    while (p->t->kind != JINJA_END) {
        if (p->t->kind == JINJA_DATA) {
            struct jinja_node *n =
                jinja_parser_make(p, JINJA_N_DATA, p->t->line);
            n->s = p->t->s;
            n->n = p->t++->n;
            jinja_parser_append(p, &parts, n);
        } else if (p->t->kind == JINJA_VAR_BEGIN) {
            int at = p->t++->line;
            struct jinja_node *n =
                jinja_parse_tuple(p, jinja_parse_expression, false);
            if (p->t->kind != JINJA_VAR_END) jinja_parser_unexpected(p, "}}");
            p->t++;
            jinja_parser_append(p, &parts,
                                jinja_parser_make1(p, JINJA_N_OUTPUT, at, n));
        } else {
            if (at_end(p, ends)) {
                p->t++;
                break;
            }
            p->t++;
            jinja_parser_append(p, &parts, parse_statement(p));
            expect_block_end(p);
        }
    }
    if (ends && p->t->kind == JINJA_END) jinja_parser_unexpected(p, *ends);
    jinja_leave(p->j);
    return jinja_parser_make_kids(p, JINJA_N_BODY, line, parts);
}

struct jinja_node *jinja_parse(struct jinja *j, const struct jinja_token *t,
                               struct jinja_names *names)
{
    struct jinja_parser p = {.j = j, .t = t, .names = names};
    return parse_body(&p, NULL);
}
