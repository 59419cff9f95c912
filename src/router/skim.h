/* router/skim.h - looking into JSON text without rebuilding it.
 *
 * A router changes a few members of what passes through and must not touch
 * the rest: no number may be rounded, no key reordered. So it checks the text
 * once and then works on spans of it. Strings are not unescaped, and their
 * UTF-8 is the worker's to judge. Spans are borrowed from the text. */
#ifndef BATON_ROUTER_SKIM_H
#define BATON_ROUTER_SKIM_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One value of checked text, without the space around it; n 0: absent. */
struct skim {
    const char *at;
    size_t n;
};

enum { SKIM_DEPTH_MAX = 2048 };

/* The one value that text is. ERR_FORMAT: no JSON (RFC 8259), or nested
 * deeper than SKIM_DEPTH_MAX; the text of why names the byte. */
int skim_check(struct skim *out, const char *text, size_t n, struct why *why);

/* First character of a value: '{' '[' '"' 't' 'f' 'n', a digit or '-'; 0 for
 * an absent one. */
char skim_kind(struct skim value);

/* Walk an object's members or an array's elements: *at begins as 0; false at
 * the end (also for values of another kind). key has its quotes. */
bool skim_member_next(struct skim object, size_t *at, struct skim *key,
                      struct skim *value);
bool skim_element_next(struct skim array, size_t *at, struct skim *value);

/* Is key, escapes resolved, this ASCII name? */
bool skim_key_is(struct skim key, const char *name);
/* The member of that name, the last where there are several (as Python's json
 * decides); absent: n is 0. */
struct skim skim_member(struct skim object, const char *name);

/* Truth as in Python: null, false, 0, "", [], {} and absent ones are false. */
bool skim_true(struct skim value);
/* A whole number in int64 range, otherwise fallback. */
int64_t skim_int(struct skim value, int64_t fallback);

#endif
