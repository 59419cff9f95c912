/* text/template.h - chat templates: a strict subset of Jinja2, in C.
 *
 * What is accepted renders as in transformers: jinja2's sandboxed immutable
 * environment with trim_blocks, lstrip_blocks and loop controls, tojson without
 * HTML escapes, and raise_exception, strftime_now, namespace, dict and range.
 * What is not (a tag, filter, test, method or argument form) is refused when
 * the template is compiled, with its name and line.
 *
 * Known to differ: case changes of non-ASCII text map character by character
 * (Python's "ß" becomes "SS"); whole numbers are 64 bits, and leaving them is
 * an error; strftime formats in the C locale.
 *
 * A template may be hostile: steps, nesting, memory and output are bounded. A
 * compiled template is immutable; any number of threads may render it. */
#ifndef BATON_TEXT_TEMPLATE_H
#define BATON_TEXT_TEMPLATE_H

#include "base/buf.h"
#include "base/err.h"
#include "json/json.h"

struct template;

#define TEMPLATE_MAX_SOURCE  ((size_t)1 << 20)   /* bytes */
#define TEMPLATE_MAX_STEPS   5000000             /* of one rendering */
#define TEMPLATE_MAX_MEMORY  ((size_t)128 << 20) /* likewise, bytes */
#define TEMPLATE_MAX_DEPTH   200                 /* nesting of the source */
#define TEMPLATE_MAX_NESTING 1000 /* of a rendering: macros, values */

/* source is UTF-8. ERR_FORMAT: not Jinja; ERR_UNSUPPORTED: Jinja that is not
 * done here; ERR_RANGE, ERR_NOMEM. The text starts with the line. */
int template_compile(struct template **out, const char *source, size_t len,
                     struct why *why);
void template_destroy(struct template *t); /* NULL is fine */

/* Appends the rendered text. variables is an object, borrowed and unchanged.
 * ERR_INVALID: the template raised an exception or asked for what cannot be
 * (the text says it); ERR_RANGE: over a limit, or out->max; ERR_NOMEM. Nothing
 * is appended then. */
int template_render(const struct template *t, const json_t *variables,
                    struct buf *out, struct why *why);

/* Whether the template loops over a member of that name ({% for part in
 * message.content %}, or over a variable of that name), and whether it asks
 * {{ message.content is none }}. */
bool template_loops_over(const struct template *t, const char *member);
bool template_asks_none(const struct template *t, const char *member);

#endif
