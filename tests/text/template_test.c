#include "tests/test.h"

#include "base/mem.h"
#include "text/template.h"

#include <time.h>

static int render(const char *source, const char *json, struct buf *out,
                  struct why *why)
{
    struct template *t = NULL;
    json_t *variables = NULL;
    assert_int_equal(json_parse(&variables, json, strlen(json), NULL), 0);
    int rc = template_compile(&t, source, strlen(source), why);
    if (!rc) rc = template_render(t, variables, out, why);
    template_destroy(t);
    json_decref(variables);
    return rc;
}

static void expect(const char *source, const char *json, const char *want)
{
    struct buf out;
    struct why why = {0};
    buf_init(&out, 1 << 20);
    buf_puts(&out, "");
    if (render(source, json, &out, &why)) fail_msg("%s: %s", source, why.text);
    assert_string_equal(out.data, want);
    buf_fini(&out);
}

static void refuse(const char *source, int code, const char *said)
{
    struct buf out;
    struct why why = {0};
    size_t before = mem_live();
    buf_init(&out, 1 << 20);
    assert_int_equal(render(source, "{\"x\": [1, 2]}", &out, &why), code);
    assert_int_equal(why.code, code);
    if (!strstr(why.text, said)) fail_msg("%s: %s", source, why.text);
    assert_int_equal(out.len, 0);
    buf_fini(&out);
    assert_int_equal(mem_live(), before);
}

static void what_is_not_done_is_named_with_its_line(void **state)
{
    (void)state;
    refuse("a\n{% include 'x' %}", ERR_UNSUPPORTED, "line 2: tag include");
    refuse("\n\n{{ x|groupby('a') }}", ERR_UNSUPPORTED,
           "line 3: filter groupby");
    refuse("{{ x is sameas x }}", ERR_UNSUPPORTED, "test sameas");
    refuse("{{ x.sort() }}", ERR_UNSUPPORTED, "method sort");
    refuse("{% call f() %}{% endcall %}", ERR_UNSUPPORTED, "tag call");
    refuse("{{ f(*x) }}", ERR_UNSUPPORTED, "call with *");
    refuse("{{ joiner() }}", ERR_UNSUPPORTED, "joiner");
    refuse("{% for a in x recursive %}{% endfor %}", ERR_UNSUPPORTED,
           "recursive");
    refuse("{{ '%s' % x }}", ERR_UNSUPPORTED, "strings");
}

static void what_is_not_jinja_is_refused(void **state)
{
    (void)state;
    refuse("{{ x", ERR_FORMAT, "without an end");
    refuse("{% if x %}", ERR_FORMAT, "end of the template");
    refuse("{% endif %}", ERR_FORMAT, "endif");
    refuse("{{ x ] }}", ERR_FORMAT, "brackets");
    refuse("{{ 'x }}", ERR_FORMAT, "string");
    refuse("{# x", ERR_FORMAT, "comment");
    refuse("{% raw %} x", ERR_FORMAT, "endraw");
    refuse("{{ x ? 1 }}", ERR_FORMAT, "\"?\"");
    refuse("{% break %}", ERR_FORMAT, "outside of a loop");
    refuse("\xff", ERR_FORMAT, "UTF-8");
}

static void errors_of_a_rendering_say_where(void **state)
{
    (void)state;
    refuse("{{ raise_exception('roles must alternate') }}", ERR_INVALID,
           "roles must alternate");
    refuse("\n{{ missing.role }}", ERR_INVALID,
           "line 2: 'missing' is undefined");
    refuse("{{ 1 + 'a' }}", ERR_INVALID, "int and str");
    refuse("{{ 1 // 0 }}", ERR_INVALID, "division by zero");
    refuse("\n{{ x.append(1) }}", ERR_INVALID, "line 2: a method that changes");
    refuse("{% set ns = namespace() %}{% set ns._x = 1 %}", ERR_INVALID, "_x");
}

/* Each of these would run, or grow, for ever or nearly so. */
static void hostile_templates_are_stopped(void **state)
{
    (void)state;
    refuse("{% set a = range(1000)|list %}{% set b = range(1000)|list %}"
           "{% for i in range(90000) %}{% if a == b %}{% endif %}{% endfor %}",
           ERR_RANGE, "steps");
    refuse("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", ERR_RANGE,
           "deep");
    refuse("{{ 'x' * 1000000000000 }}", ERR_RANGE, "too long");
    refuse("{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(60) %}"
           "{% set ns.s = ns.s + ns.s %}{% endfor %}",
           ERR_RANGE, "bytes");
    refuse("{{ range(1000000000) }}", ERR_RANGE, "range");
    refuse("{{ 9 ** 99 }}", ERR_RANGE, "64 bits");
    refuse("{% set ns = namespace(l=[]) %}{% for i in range(5000) %}"
           "{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
           ERR_RANGE, "deep");
    refuse("{{ x * 100000000 }}", ERR_RANGE, "");
    struct buf deep;
    buf_init(&deep, 1 << 20);
    buf_puts(&deep, "{{ ");
    for (int i = 0; i < 120; i++)
        buf_puts(&deep, "(");
    refuse(deep.data, ERR_FORMAT, "");
    buf_reset(&deep);
    buf_puts(&deep, "{{ 1");
    for (int i = 0; i < 20000; i++)
        buf_puts(&deep, "+1");
    buf_puts(&deep, " }}");
    refuse(deep.data, ERR_RANGE, "deep");
    buf_fini(&deep);
}

static void output_keeps_to_the_callers_maximum(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, 10);
    buf_puts(&out, "abc");
    assert_int_equal(render("{{ 'x' * 8 }}", "{}", &out, NULL), ERR_RANGE);
    assert_string_equal(out.data, "abc");
    assert_int_equal(render("{{ 'x' * 7 }}", "{}", &out, NULL), 0);
    assert_string_equal(out.data, "abcxxxxxxx");
    buf_fini(&out);
}

static void time_is_told_in_the_callers_form(void **state)
{
    (void)state;
    char want[32];
    time_t now = time(NULL);
    struct tm local;
    localtime_r(&now, &local);
    strftime(want, sizeof want, "%Y", &local);
    expect("{{ strftime_now('%Y') }}", "{}", want);
}

static void scopes_are_as_in_jinja(void **state)
{
    (void)state;
    expect("{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = 5 %}{{ x }}"
           "{% endfor %}{{ x }}",
           "{}", "15151");
    expect("{% set ns = namespace(n=0) %}{% for i in [1, 2] %}"
           "{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}",
           "{}", "3");
    expect("{% if true %}{% set x = 2 %}{% endif %}{{ x }}", "{\"x\": 1}", "2");
}

static void rendering_survives_every_failed_allocation(void **state)
{
    (void)state;
    json_t *variables = json_object();
    struct template *t = NULL;
    struct buf out;
    size_t before, tries;
    const char *source = "{% for i in range(3000) %}{{ i|string * 9 }}"
                         "{% endfor %}";
    int rc = ERR_NOMEM;
    buf_init(&out, 1 << 20);
    before = mem_live();
    for (tries = 1; rc && tries < 100; tries++) {
        mem_fail_at(tries);
        rc = template_compile(&t, source, strlen(source), NULL);
        mem_fail_at(0);
        assert_true(!rc || (rc == ERR_NOMEM && mem_live() == before));
    }
    assert_int_equal(rc, 0);
    rc = ERR_NOMEM;
    before = mem_live();
    for (tries = 1; rc && tries < 100; tries++) {
        buf_reset(&out);
        mem_fail_at(tries);
        rc = template_render(t, variables, &out, NULL);
        mem_fail_at(0);
        assert_true(!rc || (rc == ERR_NOMEM && mem_live() == before));
    }
    assert_true(tries > 4);
    assert_int_equal(rc, 0);
    buf_fini(&out);
    template_destroy(t);
    json_decref(variables);
}

TESTS(T(what_is_not_done_is_named_with_its_line),
      T(what_is_not_jinja_is_refused), T(errors_of_a_rendering_say_where),
      T(hostile_templates_are_stopped), T(output_keeps_to_the_callers_maximum),
      T(time_is_told_in_the_callers_form), T(scopes_are_as_in_jinja),
      T(rendering_survives_every_failed_allocation))
