/* text/jinja_parser.h - the parser inside: its place among the tokens
 * (jinja_tokens.c), expressions (jinja_expr.c), and statements with the way in
 * (jinja_parse.c). Errors leave by jinja_fail. One thread at a time. */
#ifndef BATON_TEXT_JINJA_PARSER_H
#define BATON_TEXT_JINJA_PARSER_H

#include "text/jinja.h"

struct jinja_parser {
    struct jinja *j;
    const struct jinja_token *t; /* the next one */
    struct jinja_names *names;
    int loops;  /* for bodies around: break and continue need one */
    int macros; /* macro bodies around */
};

/* A list of nodes that grows. */
struct jinja_nodes {
    struct jinja_node **items;
    size_t count, cap;
};
void jinja_parser_append(struct jinja_parser *p, struct jinja_nodes *list,
                         struct jinja_node *item);

/* Nodes, of no, listed, one, two or three kids. */
struct jinja_node *jinja_parser_make(struct jinja_parser *p,
                                     enum jinja_node_kind kind, int line);
struct jinja_node *jinja_parser_make_kids(struct jinja_parser *p,
                                          enum jinja_node_kind kind, int line,
                                          struct jinja_nodes kids);
struct jinja_node *jinja_parser_make1(struct jinja_parser *p,
                                      enum jinja_node_kind kind, int line,
                                      struct jinja_node *a);
struct jinja_node *jinja_parser_make2(struct jinja_parser *p,
                                      enum jinja_node_kind kind, int line,
                                      struct jinja_node *a,
                                      struct jinja_node *b);
struct jinja_node *jinja_parser_make3(struct jinja_parser *p,
                                      enum jinja_node_kind kind, int line,
                                      struct jinja_node *a,
                                      struct jinja_node *b,
                                      struct jinja_node *c);

/* Jinja that is not done here; no Jinja. */
_Noreturn void jinja_parser_refuse(struct jinja_parser *p, int line,
                                   const char *what, const char *name);
_Noreturn void jinja_parser_unexpected(struct jinja_parser *p,
                                       const char *wanted);

/* Looking at tokens; skip and expect go past what they find. */
bool jinja_parser_is_op(const struct jinja_token *t, const char *op);
bool jinja_parser_is_name(const struct jinja_token *t, const char *name);
bool jinja_parser_skip_op(struct jinja_parser *p, const char *op);
bool jinja_parser_skip_name(struct jinja_parser *p, const char *name);
void jinja_parser_expect_op(struct jinja_parser *p, const char *op);
const struct jinja_token *jinja_parser_expect_name(struct jinja_parser *p);
/* A name's place in the list of names. */
int jinja_parser_intern(struct jinja_parser *p, const char *name);

/* Expressions, by jinja2's names for them. A tuple is one part, or several with
 * commas; in brackets it may be empty. */
struct jinja_node *jinja_parse_expression(struct jinja_parser *p);
struct jinja_node *jinja_parse_filters(struct jinja_parser *p,
                                       struct jinja_node *n, bool first_named);
struct jinja_node *jinja_parse_name(struct jinja_parser *p);
struct jinja_node *jinja_parse_or(struct jinja_parser *p);
struct jinja_node *jinja_parse_tuple(
    struct jinja_parser *p, struct jinja_node *(*part)(struct jinja_parser *p),
    bool explicit_parens);

#endif
