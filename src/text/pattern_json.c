#include "text/pattern_json.h"

#include "text/pattern_regex.h"

#include <stdio.h>
#include <string.h>

enum { BLANKS = 24, DECIMALS = 16 };

/* ---- parts of JSON ---- */

pattern_node pattern_json_text(struct pattern_json *j, const char *t)
{
    return pattern_text(j->p, t, strlen(t));
}

pattern_node pattern_json_list(struct pattern_json *j, pattern_node a,
                               pattern_node b, pattern_node c)
{
    pattern_node all = pattern_sequence(j->p);
    pattern_add(j->p, all, a);
    pattern_add(j->p, all, b);
    pattern_add(j->p, all, c);
    return all;
}

pattern_node pattern_json_space(struct pattern_json *j)
{
    pattern_node blank = pattern_choice(j->p), all = pattern_choice(j->p);
    pattern_add(j->p, blank, pattern_json_text(j, " "));
    pattern_add(j->p, blank, pattern_json_text(j, "\t"));
    pattern_add(j->p, all, 0);
    pattern_add(j->p, all, pattern_json_text(j, " "));
    pattern_add(j->p, all,
                pattern_json_list(j, pattern_json_text(j, "\n"),
                                  pattern_repeat(j->p, blank, 0, BLANKS), 0));
    return all;
}

pattern_node pattern_json_comma(struct pattern_json *j)
{
    return pattern_json_list(j, pattern_json_text(j, ","),
                             pattern_json_space(j), 0);
}

pattern_node pattern_json_pair(struct pattern_json *j, pattern_node key,
                               pattern_node value)
{
    pattern_node colon = pattern_json_list(
        j, pattern_json_text(j, ":"),
        pattern_repeat(j->p, pattern_json_text(j, " "), 0, 1), value);
    return pattern_json_list(j, key, colon, 0);
}

pattern_node pattern_json_quoted(struct pattern_json *j, pattern_node inside)
{
    return pattern_json_list(j, pattern_json_text(j, "\""), inside,
                             pattern_json_text(j, "\""));
}

pattern_node pattern_json_bracketed(struct pattern_json *j, const char *open,
                                    pattern_node inside, const char *close)
{
    return pattern_json_list(j,
                             pattern_json_list(j, pattern_json_text(j, open),
                                               pattern_json_space(j), 0),
                             inside,
                             pattern_json_list(j, pattern_json_space(j),
                                               pattern_json_text(j, close), 0));
}

static pattern_node digits(struct pattern_json *j, int min, int max)
{
    return pattern_repeat(j->p, pattern_bytes(j->p, '0', '9'), min, max);
}

pattern_node pattern_json_whole_number(struct pattern_json *j)
{
    pattern_node n = pattern_choice(j->p);
    pattern_add(j->p, n, pattern_json_text(j, "0"));
    pattern_add(j->p, n,
                pattern_json_list(j, pattern_bytes(j->p, '1', '9'),
                                  digits(j, 0, JSON_DIGITS - 1), 0));
    return pattern_json_list(
        j, pattern_repeat(j->p, pattern_json_text(j, "-"), 0, 1), n, 0);
}

pattern_node pattern_json_call_string(struct pattern_json *j)
{
    if (!j->string) {
        j->string = pattern_rule(j->p);
        pattern_define(
            j->p, j->string,
            pattern_json_quoted(
                j, pattern_repeat(j->p, pattern_json_char(j->p), 0, -1)));
    }
    return pattern_call(j->p, j->string);
}

pattern_node pattern_json_call_number(struct pattern_json *j)
{
    if (!j->number) {
        j->number = pattern_rule(j->p);
        pattern_node e = pattern_choice(j->p), sign = pattern_choice(j->p);
        pattern_add(j->p, e, pattern_json_text(j, "e"));
        pattern_add(j->p, e, pattern_json_text(j, "E"));
        pattern_add(j->p, sign, 0);
        pattern_add(j->p, sign, pattern_json_text(j, "+"));
        pattern_add(j->p, sign, pattern_json_text(j, "-"));
        pattern_node power = pattern_json_list(j, e, sign, digits(j, 1, 2));
        pattern_node part = pattern_json_list(j, pattern_json_text(j, "."),
                                              digits(j, 1, DECIMALS), 0);
        pattern_define(j->p, j->number,
                       pattern_json_list(j, pattern_json_whole_number(j),
                                         pattern_repeat(j->p, part, 0, 1),
                                         pattern_repeat(j->p, power, 0, 1)));
    }
    return pattern_call(j->p, j->number);
}

/* one, or many with commas between; one is built anew by make(j). */
static pattern_node many(struct pattern_json *j,
                         pattern_node (*make)(struct pattern_json *))
{
    pattern_node more = pattern_json_list(j, pattern_json_comma(j), make(j), 0);
    return pattern_json_list(j, make(j), pattern_repeat(j->p, more, 0, -1), 0);
}

static pattern_node any_pair(struct pattern_json *j)
{
    return pattern_json_pair(j, pattern_json_call_string(j),
                             pattern_json_call_any(j));
}

pattern_node pattern_json_call_object(struct pattern_json *j)
{
    if (!j->object) {
        j->object = pattern_rule(j->p);
        pattern_node all = pattern_repeat(j->p, many(j, any_pair), 0, 1);
        pattern_define(j->p, j->object,
                       pattern_json_bracketed(j, "{", all, "}"));
    }
    return pattern_call(j->p, j->object);
}

pattern_node pattern_json_call_array(struct pattern_json *j)
{
    if (!j->array) {
        j->array = pattern_rule(j->p);
        pattern_node all =
            pattern_repeat(j->p, many(j, pattern_json_call_any), 0, 1);
        pattern_define(j->p, j->array,
                       pattern_json_bracketed(j, "[", all, "]"));
    }
    return pattern_call(j->p, j->array);
}

pattern_node pattern_json_boolean(struct pattern_json *j)
{
    pattern_node b = pattern_choice(j->p);
    pattern_add(j->p, b, pattern_json_text(j, "true"));
    pattern_add(j->p, b, pattern_json_text(j, "false"));
    return b;
}

pattern_node pattern_json_call_any(struct pattern_json *j)
{
    if (!j->any) {
        j->any = pattern_rule(j->p);
        pattern_node v = pattern_choice(j->p);
        pattern_add(j->p, v, pattern_json_call_object(j));
        pattern_add(j->p, v, pattern_json_call_array(j));
        pattern_add(j->p, v, pattern_json_call_string(j));
        pattern_add(j->p, v, pattern_json_call_number(j));
        pattern_add(j->p, v, pattern_json_boolean(j));
        pattern_add(j->p, v, pattern_json_text(j, "null"));
        pattern_define(j->p, j->any, v);
    }
    return pattern_call(j->p, j->any);
}

/* ---- integers in a range ---- */

/* Texts of n digits that are at least from (or at most, up: false). */
static pattern_node beyond(struct pattern_json *j, const char *from, size_t n,
                           bool up)
{
    if (!n) return 0;
    pattern_node all = pattern_choice(j->p);
    pattern_add(j->p, all,
                pattern_json_list(j, pattern_text(j->p, from, 1),
                                  beyond(j, from + 1, n - 1, up), 0));
    char lo = up ? (char)(from[0] + 1) : '0';
    char hi = up ? '9' : (char)(from[0] - 1);
    if (lo <= hi)
        pattern_add(
            j->p, all,
            pattern_json_list(j, pattern_bytes(j->p, (uint8_t)lo, (uint8_t)hi),
                              digits(j, (int)n - 1, (int)n - 1), 0));
    return all;
}

/* Of n digits each, lo <= hi. */
static pattern_node between(struct pattern_json *j, const char *lo,
                            const char *hi, size_t n)
{
    if (!n) return 0;
    if (lo[0] == hi[0])
        return pattern_json_list(j, pattern_text(j->p, lo, 1),
                                 between(j, lo + 1, hi + 1, n - 1), 0);
    pattern_node all = pattern_choice(j->p);
    pattern_add(j->p, all,
                pattern_json_list(j, pattern_text(j->p, lo, 1),
                                  beyond(j, lo + 1, n - 1, true), 0));
    if (hi[0] - lo[0] > 1)
        pattern_add(j->p, all,
                    pattern_json_list(j,
                                      pattern_bytes(j->p, (uint8_t)(lo[0] + 1),
                                                    (uint8_t)(hi[0] - 1)),
                                      digits(j, (int)n - 1, (int)n - 1), 0));
    pattern_add(j->p, all,
                pattern_json_list(j, pattern_text(j->p, hi, 1),
                                  beyond(j, hi + 1, n - 1, false), 0));
    return all;
}

void pattern_json_add_naturals(struct pattern_json *j, pattern_node choice,
                               const char *sign, int64_t lo, int64_t hi)
{
    for (int64_t power = 10;; power *= 10) { /* numbers below it */
        int64_t to = hi < power - 1 ? hi : power - 1;
        if (lo <= to) {
            char a[24], b[24];
            int n = snprintf(a, sizeof a, "%lld", (long long)lo);
            snprintf(b, sizeof b, "%lld", (long long)to);
            pattern_add(j->p, choice,
                        pattern_json_list(j, pattern_json_text(j, sign),
                                          between(j, a, b, (size_t)n), 0));
            lo = to + 1;
        }
        if (to == hi) return;
    }
}
