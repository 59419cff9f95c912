#include "text/template.h"
#include "base/mem.h"
#include "text/jinja.h"

#include <string.h>

struct template
{
    struct jinja compiled; /* owns all that body and names point to */
    const struct jinja_node *body;
    struct jinja_names names;
};

static int compile(struct template *t, const char *source, size_t len)
{
    struct jinja *j = &t->compiled;
    if (setjmp(j->out)) return j->rc;
    t->body = jinja_parse(j, jinja_lex(j, source, len), &t->names);
    return 0;
}

int template_compile(struct template **out, const char *source, size_t len,
                     struct why *why)
{
    if (len > TEMPLATE_MAX_SOURCE)
        return err_set(why, ERR_RANGE, "template of %zu bytes", len);
    struct template *t = mem_must(1, sizeof *t);
    t->compiled.why = why;
    t->compiled.max = TEMPLATE_MAX_MEMORY;
    t->compiled.max_depth = TEMPLATE_MAX_DEPTH;
    int rc = compile(t, source, len);
    t->compiled.why = NULL; /* the caller's, and not needed again */
    if (rc)
        template_destroy(t);
    else
        *out = t;
    return rc;
}

void template_destroy(struct template *t)
{
    if (!t) return;
    jinja_free(&t->compiled);
    mem_free(t);
}

/* Apart from its caller, so that what changes after setjmp is not a local of
 * the function that setjmp returns to. */
static int render(struct jinja *j, const struct template *t,
                  const json_t *variables, struct buf *out)
{
    if (setjmp(j->out)) return j->rc;
    struct jinja_text text = {0};
    jinja_eval(j, t->body, &t->names, variables, &text);
    j->line = 0;
    if (text.n > out->max - out->len)
        jinja_fail(j, ERR_RANGE, "prompt of %zu bytes", text.n);
    if (!buf_grow(out, text.n))
        jinja_fail(j, ERR_NOMEM, "prompt of %zu bytes", text.n);
    buf_add(out, text.s, text.n);
    return 0;
}

int template_render(const struct template *t, const json_t *variables,
                    struct buf *out, struct why *why)
{
    struct jinja j = {.why = why,
                      .max = TEMPLATE_MAX_MEMORY,
                      .max_depth = TEMPLATE_MAX_NESTING,
                      .steps = TEMPLATE_MAX_STEPS};
    int rc = render(&j, t, variables, out);
    jinja_free(&j);
    return rc;
}

/* Asking the source. */

static bool is_member(const struct jinja_node *n, const char *name)
{
    while (n && n->kind == JINJA_N_FILTER)
        n = n->kids[0];
    if (!n) return false;
    if (n->kind == JINJA_N_NAME || n->kind == JINJA_N_ATTR)
        return !strcmp(n->s, name);
    return n->kind == JINJA_N_ITEM && n->kids[1]->kind == JINJA_N_CONST &&
           jinja_is(n->kids[1]->value, name);
}

static bool loops_over(const struct jinja_node *n, const char *name)
{
    return n->kind == JINJA_N_FOR && is_member(n->kids[1], name);
}

static bool asks_none(const struct jinja_node *n, const char *name)
{
    return n->kind == JINJA_N_TEST && !strcmp(n->s, "none") &&
           is_member(n->kids[0], name);
}

/* Whether some node below n, or n, is so. What is nested deeper than a
 * rendering may go is not looked at: it cannot be reached. */
static bool any(const struct jinja_node *n, const char *name, int depth,
                bool (*is)(const struct jinja_node *n, const char *name))
{
    if (!n || depth > TEMPLATE_MAX_NESTING) return false;
    if (is(n, name)) return true;
    for (size_t i = 0; i < n->count; i++)
        if (any(n->kids[i], name, depth + 1, is)) return true;
    return false;
}

bool template_loops_over(const struct template *t, const char *member)
{
    return any(t->body, member, 0, loops_over);
}

bool template_asks_none(const struct template *t, const char *member)
{
    return any(t->body, member, 0, asks_none);
}
