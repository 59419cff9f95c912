/* The Python shims hand their arguments over untouched. /bin/echo stands in
 * for the program and prints what it was given. */
#include "tests/test.h"

static void shell(const char *environment, const char *command, char *out,
                  size_t n)
{
    char line[1024];
    snprintf(line, sizeof line, "PYTHONPATH=python %s python3 %s 2>&1",
             environment, command);
    FILE *pipe = popen(line, "r");
    assert_non_null(pipe);
    size_t got = fread(out, 1, n - 1, pipe);
    out[got] = 0;
    pclose(pipe);
}

static int need_python(void)
{
    return system("python3 -c 'import os' 2>/dev/null") == 0;
}

static void modules_become_commands(void **state)
{
    (void)state;
    if (!need_python()) SKIP("no python3 here");
    static const char *const cases[][2] = {
        {"-m sglang.launch_server --model-path '/a b' --tp-size 4",
         "launch_server --model-path /a b --tp-size 4\n"},
        {"-m sglang_router.launch_router --prefill http://h:1 6657",
         "launch_router --prefill http://h:1 6657\n"},
        {"-m sglang.srt.disaggregation.mini_lb --decode http://h:1",
         "launch_router --pd-disaggregation --mini-lb --decode http://h:1\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[1024];
        shell("BATON_BIN=/bin/echo", cases[i][0], out, sizeof out);
        assert_string_equal(out, cases[i][1]);
    }
}

static void missing_program_is_named(void **state)
{
    (void)state;
    if (!need_python()) SKIP("no python3 here");
    char out[1024];
    shell("BATON_BIN=/no/such/baton", "-m sglang.launch_server", out,
          sizeof out);
    assert_string_equal(out,
                        "baton: /no/such/baton: No such file or directory\n");
}

TESTS(T(modules_become_commands), T(missing_program_is_named))
