/* text/pieces.h - pieces of a text that lie one behind another: what a
 * pre-tokenizer cuts and a model encodes, many at a time. */
#ifndef BATON_TEXT_PIECES_H
#define BATON_TEXT_PIECES_H

#include <stddef.h>

struct pieces {
    const char *text;   /* where the first one starts  */
    const size_t *lens; /* bytes of each, at least 1   */
    size_t count;
    const char *end; /* of what may be read: of the last piece, or behind it */
};

#endif
