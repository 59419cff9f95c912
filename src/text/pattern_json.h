/* text/pattern_json.h - the pieces that patterns of JSON texts are made of.
 *
 * Between tokens stands nothing, a space, or a new line and up to 24 blanks;
 * numbers have at most JSON_DIGITS digits before the point, 16 behind, 2 in a
 * power: no model can write blanks or digits for ever. */
#ifndef BATON_TEXT_PATTERN_JSON_H
#define BATON_TEXT_PATTERN_JSON_H

#include "text/pattern.h"

enum { JSON_DIGITS = 18 };

/* Zeroed, but for the pattern: rules that many places call, made when they are
 * first wanted. */
struct pattern_json {
    struct pattern *p;
    uint32_t any, object, array, string, number;
};

pattern_node pattern_json_text(struct pattern_json *j, const char *text);
/* One behind the other; 0 is the text "". */
pattern_node pattern_json_list(struct pattern_json *j, pattern_node a,
                               pattern_node b, pattern_node c);
pattern_node pattern_json_space(struct pattern_json *j);
pattern_node pattern_json_comma(
    struct pattern_json *j); /* and space behind it */
pattern_node pattern_json_pair(struct pattern_json *j, pattern_node key,
                               pattern_node value);
pattern_node pattern_json_quoted(struct pattern_json *j, pattern_node inside);
/* With space inside of the brackets. */
pattern_node pattern_json_bracketed(struct pattern_json *j, const char *open,
                                    pattern_node inside, const char *close);

pattern_node pattern_json_boolean(struct pattern_json *j);
pattern_node pattern_json_whole_number(struct pattern_json *j);
pattern_node pattern_json_call_number(struct pattern_json *j);
pattern_node pattern_json_call_string(struct pattern_json *j);
/* Of any values: an array, an object; a value. */
pattern_node pattern_json_call_array(struct pattern_json *j);
pattern_node pattern_json_call_object(struct pattern_json *j);
pattern_node pattern_json_call_any(struct pattern_json *j);

/* Adds to a choice the numbers lo .. hi with sign in front, 0 <= lo <= hi, of
 * at most JSON_DIGITS digits. */
void pattern_json_add_naturals(struct pattern_json *j, pattern_node choice,
                               const char *sign, int64_t lo, int64_t hi);

#endif
