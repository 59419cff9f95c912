/* text/jread.h - walks JSON text without building it.
 *
 * A vocabulary is 150 000 strings that go into a table of our own: this reads
 * them where they are, several times faster than a tree of them is built.
 * After the first error all calls return false and `bad` says where it was.
 * Strings come as slices; one with escapes is unescaped into scratch. */
#ifndef BATON_TEXT_JREAD_H
#define BATON_TEXT_JREAD_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct jread {
    const char *at, *end;
    const char *bad; /* NULL: no error so far */
    int depth;       /* open objects and arrays */
};

struct jslice {
    const char *data;
    size_t len;
};

void jread_init(struct jread *r, const char *json, size_t n);

/* Enters an object or array if that comes next: c is '{' or '['. */
bool jread_open(struct jread *r, char c);
/* True: a member or element comes next; false: it ended (and was left), or an
 * error. first must be true before the first and is cleared. */
bool jread_more(struct jread *r, char c, bool *first);
/* A member's name with its colon; a string; a whole number >= 0; a number. The
 * slice is good until scratch is used again. */
bool jread_key(struct jread *r, struct buf *scratch, struct jslice *out);
bool jread_string(struct jread *r, struct buf *scratch, struct jslice *out);
bool jread_uint(struct jread *r, uint32_t *out);
bool jread_real(struct jread *r, double *out);
/* The next byte that is not blank, not consumed; 0 at the end. */
char jread_peek(struct jread *r);
/* Any value, its text in *out. Strings and nesting are looked at, the rest is
 * left to whoever parses the slice. */
bool jread_skip(struct jread *r, struct jslice *out);
/* Nothing but blanks is left. */
bool jread_end(struct jread *r);

#endif
