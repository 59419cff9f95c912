#include "text/jinja_parser.h"

#include <string.h>

void jinja_parser_append(struct jinja_parser *p, struct jinja_nodes *list,
                         struct jinja_node *item)
{
    if (list->count == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 4;
        struct jinja_node **more = jinja_alloc(p->j, cap, sizeof *more);
        if (list->count) memcpy(more, list->items, list->count * sizeof *more);
        list->items = more;
        list->cap = cap;
    }
    list->items[list->count++] = item;
}

struct jinja_node *jinja_parser_make(struct jinja_parser *p,
                                     enum jinja_node_kind kind, int line)
{
    struct jinja_node *n = jinja_alloc(p->j, 1, sizeof *n);
    n->kind = kind;
    n->line = line;
    return n;
}

struct jinja_node *jinja_parser_make_kids(struct jinja_parser *p,
                                          enum jinja_node_kind kind, int line,
                                          struct jinja_nodes kids)
{
    struct jinja_node *n = jinja_parser_make(p, kind, line);
    n->kids = kids.items;
    n->count = kids.count;
    return n;
}

struct jinja_node *jinja_parser_make1(struct jinja_parser *p,
                                      enum jinja_node_kind kind, int line,
                                      struct jinja_node *a)
{
    struct jinja_nodes kids = {0};
    jinja_parser_append(p, &kids, a);
    return jinja_parser_make_kids(p, kind, line, kids);
}

struct jinja_node *jinja_parser_make2(struct jinja_parser *p,
                                      enum jinja_node_kind kind, int line,
                                      struct jinja_node *a,
                                      struct jinja_node *b)
{
    struct jinja_nodes kids = {0};
    jinja_parser_append(p, &kids, a);
    jinja_parser_append(p, &kids, b);
    return jinja_parser_make_kids(p, kind, line, kids);
}

struct jinja_node *jinja_parser_make3(struct jinja_parser *p,
                                      enum jinja_node_kind kind, int line,
                                      struct jinja_node *a,
                                      struct jinja_node *b,
                                      struct jinja_node *c)
{
    struct jinja_node *n = jinja_parser_make2(p, kind, line, a, b);
    struct jinja_nodes kids = {n->kids, 2, 4};
    jinja_parser_append(p, &kids, c);
    n->count = 3;
    return n;
}

/* Errors. */

_Noreturn void jinja_parser_refuse(struct jinja_parser *p, int line,
                                   const char *what, const char *name)
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

_Noreturn void jinja_parser_unexpected(struct jinja_parser *p,
                                       const char *wanted)
{
    p->j->line = p->t->line;
    jinja_fail(p->j, ERR_FORMAT, "expected %s, found %s", wanted,
               describe(p->t));
}

/* Looking at tokens. */

bool jinja_parser_is_op(const struct jinja_token *t, const char *op)
{
    return t->kind == JINJA_OP && !strcmp(t->s, op);
}

bool jinja_parser_is_name(const struct jinja_token *t, const char *name)
{
    return t->kind == JINJA_NAME && !strcmp(t->s, name);
}

bool jinja_parser_skip_op(struct jinja_parser *p, const char *op)
{
    if (!jinja_parser_is_op(p->t, op)) return false;
    p->t++;
    return true;
}

bool jinja_parser_skip_name(struct jinja_parser *p, const char *name)
{
    if (!jinja_parser_is_name(p->t, name)) return false;
    p->t++;
    return true;
}

void jinja_parser_expect_op(struct jinja_parser *p, const char *op)
{
    if (!jinja_parser_skip_op(p, op)) jinja_parser_unexpected(p, op);
}

const struct jinja_token *jinja_parser_expect_name(struct jinja_parser *p)
{
    if (p->t->kind != JINJA_NAME) jinja_parser_unexpected(p, "a name");
    return p->t++;
}

int jinja_parser_intern(struct jinja_parser *p, const char *name)
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
