/* text/stop.h - stop strings in a stream of text.
 *
 * Feed text as it is generated; each feed says how many bytes are safe to
 * show. A tail that may be the start of a stop string is kept back until
 * the next bytes decide. All strings run through one automaton (Aho-Corasick),
 * in time linear in the text however many strings there are.
 *
 * struct stop is immutable and may be shared; struct stop_state is one
 * sequence's place in it. Feeding allocates nothing. */
#ifndef BATON_TEXT_STOP_H
#define BATON_TEXT_STOP_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STOP_MAX_STRINGS 16
#define STOP_MAX_BYTES   1024 /* all strings together */

struct stop;

/* Strings are copied. ERR_INVALID: more than STOP_MAX_STRINGS, more bytes than
 * STOP_MAX_BYTES, or an empty string. count 0 never matches. */
int stop_create(struct stop **out, const char *const *strings,
                const size_t *lens, size_t count, struct why *why);
void stop_destroy(struct stop *stop); /* NULL is fine */

struct stop_state {
    uint32_t node; /* 0: nothing kept back */
};

struct stop_result {
    size_t emit;   /* bytes that may be shown now: the first emit of
                    * (kept back before) + (fed now). When matched they end
                    * where the stop string starts. */
    size_t length; /* of the string that matched, else 0 */
    int matched;   /* its index, or -1. The string that ends first wins; of
                    * those, the one that starts first. */
};

/* Bytes kept back so far. */
size_t stop_held(const struct stop *stop, const struct stop_state *state);
/* Feeds text. After a match state is where it started, at nothing kept. */
struct stop_result stop_feed(const struct stop *stop, struct stop_state *state,
                             const char *text, size_t n);

#endif
