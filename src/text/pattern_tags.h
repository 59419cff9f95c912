/* text/pattern_tags.h - texts with tags, which are added tokens where a
 * tokenizer has them, and texts without. */
#ifndef BATON_TEXT_PATTERN_TAGS_H
#define BATON_TEXT_PATTERN_TAGS_H

#include "text/pattern.h"

struct tokenizer; /* text/tokenizer.h */

/* The text as a model writes it: added tokens for what is one. NULL: "". */
pattern_node pattern_tags_written(struct pattern *p,
                                  const struct tokenizer *tokenizer,
                                  const char *text);
/* Any text without the tags in it, as text or in an added token; others of
 * these may stand in it, unless tokenizer is NULL. first_not: as in
 * pattern_without. */
pattern_node pattern_tags_none(struct pattern *p,
                               const struct tokenizer *tokenizer,
                               const char *const *tags, size_t count,
                               char first_not);

#endif
