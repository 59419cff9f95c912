/* tests/test.h - cmocka with the headers it wants, and its closing main. */
#ifndef BATON_TESTS_TEST_H
#define BATON_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Says why a test cannot run here, then skips it. */
#define SKIP(...)                     \
    do {                              \
        fprintf(stderr, "skipped: "); \
        fprintf(stderr, __VA_ARGS__); \
        fputc('\n', stderr);          \
        skip();                       \
    } while (0)

/* A list of functions `static void f(void **state)` as the whole program. */
#define TESTS(...)                                        \
    int main(void)                                        \
    {                                                     \
        const struct CMUnitTest tests[] = {__VA_ARGS__};  \
        return cmocka_run_group_tests(tests, NULL, NULL); \
    }
#define T(f) cmocka_unit_test(f)

#endif
