#include "tests/test.h"

#include "json/json.h"

static int parse(const char *text, size_t n)
{
    json_t *value;
    struct why why = {0};
    int rc = json_parse(&value, text, n, &why);
    assert_int_equal(rc, why.code);
    assert_int_equal(rc == 0, value != NULL);
    json_decref(value);
    return rc;
}

#define PARSE(text) parse(text, sizeof text - 1)

static void foreign_json_is_strict(void **state)
{
    (void)state;
    assert_int_equal(PARSE("{\"a\": [1, 2.5, \"\\u0000\", null]}"), 0);
    assert_int_equal(PARSE(" 7 "), 0);
    assert_int_equal(PARSE(""), ERR_FORMAT);
    assert_int_equal(PARSE("{\"a\": 1} x"), ERR_FORMAT);
    assert_int_equal(PARSE("{\"a\": 1, \"a\": 2}"), ERR_FORMAT);
    assert_int_equal(PARSE("\"\xff\""), ERR_FORMAT);
    assert_int_equal(PARSE("7\0"), ERR_FORMAT);
    assert_int_equal(PARSE("\"a\0b\""), ERR_FORMAT);
    assert_int_equal(PARSE("[NaN]"), ERR_FORMAT);
}

static void getters_keep_the_default_and_name_the_key(void **state)
{
    (void)state;
    json_t *o;
    struct why why = {0};
    const char text[] = "{\"i\": 3, \"r\": 2, \"b\": true, \"s\": \"x\", "
                        "\"n\": null}";
    assert_int_equal(json_parse(&o, text, sizeof text - 1, &why), 0);
    int64_t i = -1;
    double r = -1;
    bool b = false;
    const char *s = "default";
    assert_int_equal(json_get_int(o, "i", &i, &why), 0);
    assert_int_equal(json_get_real(o, "r", &r, &why), 0);
    assert_int_equal(json_get_bool(o, "b", &b, &why), 0);
    assert_int_equal(json_get_string(o, "s", &s, &why), 0);
    assert_true(i == 3 && r == 2.0 && b);
    assert_string_equal(s, "x");
    assert_int_equal(json_get_int(o, "n", &i, &why), 0);
    assert_int_equal(json_get_int(o, "absent", &i, &why), 0);
    assert_int_equal(i, 3);
    assert_int_equal(json_get_int(o, "s", &i, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "s must be a whole number"));
    assert_int_equal(i, 3);
    json_decref(o);
}

TESTS(T(foreign_json_is_strict), T(getters_keep_the_default_and_name_the_key))
