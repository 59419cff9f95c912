/* tests/standin/cmocka.h - the part of cmocka's interface that the tests of
 * base, xfer and dropin use, for builds where cmocka is not to be had: a cross
 * compiler's. One process, one thread asserts; a failed assertion ends its
 * test by longjmp. Same closing lines as cmocka. */
#ifndef BATON_TESTS_STANDIN_CMOCKA_H
#define BATON_TESTS_STANDIN_CMOCKA_H

#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static jmp_buf standin_end;
static int standin_armed; /* a test runs */

__attribute__((noreturn)) static inline void standin_leave(int how)
{
    if (!standin_armed) _exit(3); /* in a setup or teardown */
    longjmp(standin_end, how);
}

enum { STANDIN_FAILED = 1, STANDIN_SKIPPED = 2 };

#define fail_msg(...)                                   \
    do {                                                \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__); \
        fprintf(stderr, __VA_ARGS__);                   \
        fputc('\n', stderr);                            \
        standin_leave(STANDIN_FAILED);                  \
    } while (0)
#define skip() standin_leave(STANDIN_SKIPPED)

#define assert_true(fact)                             \
    do {                                              \
        if (!(fact)) fail_msg("not true: %s", #fact); \
    } while (0)
#define assert_false(fact) assert_true(!(fact))
#define assert_non_null(p) assert_true((p) != NULL)
#define assert_null(p)     assert_true((p) == NULL)
#define assert_ptr_equal(a, b) \
    assert_true((const void *)(a) == (const void *)(b))

/* Numbers as cmocka takes them: any integer, compared as 64 bits. */
#define standin_numbers(a, how, b)                                       \
    do {                                                                 \
        unsigned long long a_ = (unsigned long long)(a);                 \
        unsigned long long b_ = (unsigned long long)(b);                 \
        if (!(a_ how b_))                                                \
            fail_msg("%s is %lld, not " #how " %lld", #a, (long long)a_, \
                     (long long)b_);                                     \
    } while (0)
#define assert_int_equal(a, b)     standin_numbers(a, ==, b)
#define assert_int_not_equal(a, b) standin_numbers(a, !=, b)
#define assert_in_range(a, lo, hi)  \
    do {                            \
        standin_numbers(a, >=, lo); \
        standin_numbers(a, <=, hi); \
    } while (0)

#define assert_string_equal(a, b)                             \
    do {                                                      \
        const char *s_ = (a), *t_ = (b);                      \
        if (strcmp(s_, t_) != 0)                              \
            fail_msg("%s is \"%s\", not \"%s\"", #a, s_, t_); \
    } while (0)
#define assert_string_not_equal(a, b)    assert_true(strcmp(a, b) != 0)
#define assert_memory_equal(a, b, n)     assert_true(memcmp(a, b, n) == 0)
#define assert_memory_not_equal(a, b, n) assert_true(memcmp(a, b, n) != 0)

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
    int (*setup)(void **state), (*teardown)(void **state); /* not called */
    void *initial_state;
};
#define cmocka_unit_test(f)     \
    {                           \
#f, f, NULL, NULL, NULL \
    }

static inline int standin_run(const struct CMUnitTest *tests, size_t count,
                              int (*setup)(void **), int (*teardown)(void **))
{
    void *shared = NULL;
    volatile int failed = setup && setup(&shared), skipped = 0;
    for (volatile size_t i = 0; i < count; i++) {
        void *state = tests[i].initial_state ? tests[i].initial_state : shared;
        printf("[ RUN      ] %s\n", tests[i].name);
        fflush(stdout);
        standin_armed = 1;
        int how = setjmp(standin_end);
        if (how == 0) tests[i].run(&state);
        standin_armed = 0;
        failed += how == STANDIN_FAILED;
        skipped += how == STANDIN_SKIPPED;
        printf("[  %s ] %s\n",
               how == 0                ? "     OK"
               : how == STANDIN_FAILED ? "FAILED "
                                       : "SKIPPED",
               tests[i].name);
    }
    if (teardown) failed += teardown(&shared) != 0;
    printf("[  PASSED  ] %d test(s).\n", (int)count - failed - skipped);
    if (failed) printf("[  FAILED  ] %d test(s).\n", failed);
    if (skipped) printf("[  SKIPPED ] %d test(s).\n", skipped);
    return failed;
}
#define cmocka_run_group_tests(tests, setup, teardown) \
    standin_run(tests, sizeof(tests) / sizeof(tests)[0], setup, teardown)
#define cmocka_run_group_tests_name(name, tests, setup, teardown) \
    cmocka_run_group_tests(tests, setup, teardown)

#define _cmocka_run_group_tests(name, tests, count, setup, teardown) \
    standin_run(tests, count, setup, teardown)
#define print_message printf

#endif
