/* text/added.h - tokens that are found in text before anything else is done
 * to it: "<|im_start|>" and its like. The leftmost wins, of those the longest.
 * Immutable after added_build; any thread searches. */
#ifndef BATON_TEXT_ADDED_H
#define BATON_TEXT_ADDED_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct added_token {
    const char *text; /* owned by the set */
    size_t len;
    int32_t id;
    bool special;
    bool single_word;    /* only where no word character touches it */
    bool lstrip, rstrip; /* takes the blanks beside it along */
};

struct added;

void added_create(struct added **out);
void added_destroy(struct added *a); /* NULL is fine */
/* Copies. An empty text is dropped, as is a second token of the same text.
 * ERR_NOMEM. */
int added_add(struct added *a, const struct added_token *token,
              struct why *why);
/* After the last add. */
int added_build(struct added *a, struct why *why);

size_t added_count(const struct added *a);
const struct added_token *added_at(const struct added *a, size_t index);
const struct added_token *added_find(const struct added *a, const char *text,
                                     size_t n); /* NULL: none */
/* The longest token at the start of s; NULL: none. */
const struct added_token *added_longest(const struct added *a, const char *s,
                                        size_t n);

/* Cuts valid text: sink gets each stretch with the token it is, or NULL for
 * text between. Special tokens stay text with plain_special. Stops at the
 * first code other than 0 and returns it. */
int added_split(const struct added *a, const char *text, size_t n,
                bool plain_special,
                int (*sink)(void *arg, const struct added_token *token,
                            const char *text, size_t n),
                void *arg);

#endif
