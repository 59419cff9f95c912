/* jinja2's tests, those that chat templates use. */
#include "text/jinja.h"

#include <string.h>

typedef struct jinja_value value;
typedef struct jinja_args args;

static bool given(value v)
{
    return v.kind != JINJA_UNDEFINED;
}

static value operand(struct jinja *j, const args *a)
{
    value v;
    jinja_bind(j, "test", "other", 1, a, &v);
    return v;
}

static void no_operand(struct jinja *j, const args *a)
{
    jinja_bind(j, "test", "", 0, a, NULL);
}

#define PLAIN_TEST(name, condition)                               \
    static bool t_##name(struct jinja *j, value v, const args *a) \
    {                                                             \
        no_operand(j, a);                                         \
        return condition;                                         \
    }

PLAIN_TEST(defined, given(v))
PLAIN_TEST(undefined, !given(v))
PLAIN_TEST(none, v.kind == JINJA_NONE)
PLAIN_TEST(string, v.kind == JINJA_STR)
PLAIN_TEST(number, jinja_is_number(v))
PLAIN_TEST(integer, v.kind == JINJA_WHOLE)
PLAIN_TEST(float, v.kind == JINJA_REAL)
PLAIN_TEST(boolean, v.kind == JINJA_BOOL)
PLAIN_TEST(true, v.kind == JINJA_BOOL && v.u.b)
PLAIN_TEST(false, v.kind == JINJA_BOOL && !v.u.b)
PLAIN_TEST(mapping, v.kind == JINJA_DICT)
PLAIN_TEST(iterable, v.kind == JINJA_LIST || v.kind == JINJA_STR ||
                         v.kind == JINJA_DICT || !given(v))
PLAIN_TEST(sequence, (v.kind == JINJA_LIST && v.u.list->kind < JINJA_VIEW) ||
                         v.kind == JINJA_STR || v.kind == JINJA_DICT ||
                         !given(v))
PLAIN_TEST(callable, v.kind == JINJA_MACRO || v.kind == JINJA_GLOBAL ||
                         v.kind == JINJA_METHOD)

static bool divides(struct jinja *j, value v, value by, int64_t rest)
{
    return jinja_equal(j, jinja_arith(j, "%", v, by), jinja_whole(rest));
}

PLAIN_TEST(odd, divides(j, v, jinja_whole(2), 1))
PLAIN_TEST(even, divides(j, v, jinja_whole(2), 0))

static bool t_divisibleby(struct jinja *j, value v, const args *a)
{
    return divides(j, v, operand(j, a), 0);
}

static bool t_eq(struct jinja *j, value v, const args *a)
{
    return jinja_equal(j, v, operand(j, a));
}

static bool t_ne(struct jinja *j, value v, const args *a)
{
    return !jinja_equal(j, v, operand(j, a));
}

static bool t_lt(struct jinja *j, value v, const args *a)
{
    return jinja_compare(j, v, operand(j, a)) < 0;
}

static bool t_le(struct jinja *j, value v, const args *a)
{
    return jinja_compare(j, v, operand(j, a)) <= 0;
}

static bool t_gt(struct jinja *j, value v, const args *a)
{
    return jinja_compare(j, v, operand(j, a)) > 0;
}

static bool t_ge(struct jinja *j, value v, const args *a)
{
    return jinja_compare(j, v, operand(j, a)) >= 0;
}

static bool t_in(struct jinja *j, value v, const args *a)
{
    return jinja_contains(j, operand(j, a), v);
}

static bool t_case(struct jinja *j, value v, const char *method)
{
    struct jinja_args none = {0};
    value m = jinja_method(j, jinja_to_str(j, v), method, 7);
    return jinja_method_call(j, m.u.method, &none).u.b;
}

PLAIN_TEST(upper, t_case(j, v, "isupper"))
PLAIN_TEST(lower, t_case(j, v, "islower"))

static const struct {
    const char *name;
    jinja_test *test;
} tests[] = {
    {"!=", t_ne},
    {"<", t_lt},
    {"<=", t_le},
    {"==", t_eq},
    {">", t_gt},
    {">=", t_ge},
    {"boolean", t_boolean},
    {"callable", t_callable},
    {"defined", t_defined},
    {"divisibleby", t_divisibleby},
    {"eq", t_eq},
    {"equalto", t_eq},
    {"even", t_even},
    {"false", t_false},
    {"float", t_float},
    {"ge", t_ge},
    {"greaterthan", t_gt},
    {"gt", t_gt},
    {"in", t_in},
    {"integer", t_integer},
    {"iterable", t_iterable},
    {"le", t_le},
    {"lessthan", t_lt},
    {"lower", t_lower},
    {"lt", t_lt},
    {"mapping", t_mapping},
    {"ne", t_ne},
    {"none", t_none},
    {"number", t_number},
    {"odd", t_odd},
    {"sequence", t_sequence},
    {"string", t_string},
    {"true", t_true},
    {"undefined", t_undefined},
    {"upper", t_upper},
};

static bool same(const char *name, const char *s, size_t n)
{
    return strlen(name) == n && !memcmp(name, s, n);
}

jinja_test *jinja_test_find(const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        if (same(tests[i].name, name, n)) return tests[i].test;
    return NULL;
}
