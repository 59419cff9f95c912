/* text/pattern_regex.h - regular expressions as patterns.
 *
 * The part of the usual syntax that is regular: literals, ".", classes with
 * ranges and negation, \d \w \s (ASCII) and their opposites, \n \r \t \f \v \0
 * \xHH \uHHHH and escaped punctuation, groups (none captures), |, * + ? {m,n}
 * (lazy or not makes no difference), ^ at the beginning and $ at the end of an
 * alternative. Look-around, back references, \b and \p are refused. */
#ifndef BATON_TEXT_PATTERN_REGEX_H
#define BATON_TEXT_PATTERN_REGEX_H

#include "text/pattern.h"

enum regex_place {
    REGEX_WHOLE,      /* of a whole text, anchored or not                  */
    REGEX_JSON_STRING /* of the inside of a JSON string, which has it
                       * anywhere unless it is anchored; characters that
                       * JSON escapes appear escaped                       */
};

/* source is UTF-8. ERR_INVALID, ERR_UNSUPPORTED: with the place. */
int pattern_regex(struct pattern *p, pattern_node *out, const char *source,
                  size_t n, enum regex_place place, struct why *why);

/* Any character of a JSON string, escaped where it must be. */
pattern_node pattern_json_char(struct pattern *p);

#endif
