/* text/pattern_structure.h - structural tags: text with parts of a given form
 * in it, as SGLang and xgrammar have them.
 *
 * {"structures": [{"begin", "schema", "end"}, ...], "triggers": [...]}, or
 * {"format": F} with F, by its type:
 *     const_string {value}, json_schema {json_schema}, regex {pattern},
 *     any_text
 *     sequence {elements}, or {elements}
 *     tag {begin, content, end: one or a list}
 *     triggered_tags {triggers, tags}: any text, in which the beginning of a
 *         trigger means one of the tags; tags_with_separator {tags, separator}:
 *         nothing else; both with at_least_one and stop_after_first
 * Others, and members that are not named here, are refused. Tags are added
 * tokens where the tokenizer has them. Inside of a tag no text has its end. */
#ifndef BATON_TEXT_PATTERN_STRUCTURE_H
#define BATON_TEXT_PATTERN_STRUCTURE_H

#include "json/json.h"
#include "text/pattern.h"

struct tokenizer; /* text/tokenizer.h */

/* Defines rule 0 of an empty pattern. ERR_INVALID, ERR_UNSUPPORTED,
 * ERR_RANGE. */
int pattern_structure(struct pattern *p, const struct tokenizer *tokenizer,
                      const json_t *of, struct why *why);

#endif
