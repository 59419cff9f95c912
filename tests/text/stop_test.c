#include "tests/test.h"

#include "base/clock.h"
#include "base/mem.h"
#include "text/stop.h"

static struct stop *make(size_t count, const char **strings)
{
    size_t lens[STOP_MAX_STRINGS] = {0};
    struct stop *stop = NULL;
    for (size_t i = 0; i < count; i++)
        lens[i] = strlen(strings[i]);
    assert_int_equal(stop_create(&stop, strings, lens, count, NULL), 0);
    return stop;
}

static void nothing_to_stop_at_holds_nothing(void **state)
{
    (void)state;
    struct stop *stop = make(0, NULL);
    struct stop_state at = {0};
    struct stop_result r = stop_feed(stop, &at, "hello", 5);
    assert_int_equal(r.emit, 5);
    assert_int_equal(r.matched, -1);
    stop_destroy(stop);
    stop_destroy(NULL);
}

static void a_tail_that_may_start_a_string_is_kept(void **state)
{
    (void)state;
    struct stop *stop = make(2, (const char *[]){"</s>", "END"});
    struct stop_state at = {0};
    struct stop_result r = stop_feed(stop, &at, "ab<", 3);
    assert_int_equal(r.emit, 2);
    assert_int_equal(stop_held(stop, &at), 1);
    r = stop_feed(stop, &at, "/", 1);
    assert_int_equal(r.emit, 0);
    r = stop_feed(stop, &at, "x", 1); /* "</x" was not it */
    assert_int_equal(r.emit, 3);
    r = stop_feed(stop, &at, "12<", 3);
    assert_int_equal(r.emit, 2);
    r = stop_feed(stop, &at, "/s>tail", 7);
    assert_int_equal(r.matched, 0);
    assert_int_equal(r.emit, 0);
    assert_int_equal(r.length, 4);
    r = stop_feed(stop, &at, "xEND", 4); /* starts afresh */
    assert_int_equal(r.matched, 1);
    assert_int_equal(r.emit, 1);
    stop_destroy(stop);
}

static void the_first_to_end_wins_then_the_first_to_start(void **state)
{
    (void)state;
    struct stop *stop = make(3, (const char *[]){"abcd", "bc", "xbc"});
    struct stop_state at = {0};
    struct stop_result r = stop_feed(stop, &at, "zabcd", 5);
    assert_int_equal(r.matched, 1);
    assert_int_equal(r.emit, 2);
    r = stop_feed(stop, &at, "xbc", 3);
    assert_int_equal(r.matched, 2);
    assert_int_equal(r.emit, 0);
    stop_destroy(stop);
}

/* The plain definition, over the whole text. */
static struct stop_result plain(const char *text, size_t n, size_t count,
                                const char **strings)
{
    for (size_t end = 1; end <= n; end++) {
        struct stop_result best = {0, 0, -1};
        for (size_t k = 0; k < count; k++) {
            size_t len = strlen(strings[k]);
            if (len > end || memcmp(text + end - len, strings[k], len))
                continue;
            if (len > best.length)
                best = (struct stop_result){end - len, len, (int)k};
        }
        if (best.matched >= 0) return best;
    }
    return (struct stop_result){n, 0, -1};
}

static void random_texts_agree_with_the_plain_definition(void **state)
{
    (void)state;
    uint64_t seed = 7;
    for (int round = 0; round < 3000; round++) {
        char strings[4][6], text[40];
        const char *list[4];
        size_t count = 1 + rng_next(&seed) % 4;
        for (size_t k = 0; k < count; k++) {
            size_t len = 1 + rng_next(&seed) % 5;
            for (size_t i = 0; i < len; i++)
                strings[k][i] = (char)('a' + rng_next(&seed) % 2);
            strings[k][len] = 0;
            list[k] = strings[k];
        }
        for (size_t i = 0; i < sizeof text; i++)
            text[i] = (char)('a' + rng_next(&seed) % 3);
        struct stop *stop = make(count, list);
        struct stop_state at = {0};
        struct stop_result want = plain(text, sizeof text, count, list), r;
        size_t fed = 0, shown = 0;
        do {
            size_t n = 1 + rng_next(&seed) % 4;
            if (n > sizeof text - fed) n = sizeof text - fed;
            r = stop_feed(stop, &at, text + fed, n);
            fed += n;
            shown += r.emit;
        } while (r.matched < 0 && fed < sizeof text);
        assert_int_equal(r.matched, want.matched);
        if (r.matched >= 0)
            assert_int_equal(shown, want.emit);
        else
            assert_int_equal(shown + stop_held(stop, &at), sizeof text);
        stop_destroy(stop);
    }
}

static void limits_are_refused(void **state)
{
    (void)state;
    const char *strings[STOP_MAX_STRINGS + 1];
    size_t lens[STOP_MAX_STRINGS + 1], before = mem_live();
    struct stop *stop = NULL;
    struct why why = {0};
    for (size_t i = 0; i <= STOP_MAX_STRINGS; i++) {
        strings[i] = "x";
        lens[i] = 1;
    }
    assert_int_equal(stop_create(&stop, strings, lens, 17, &why), ERR_INVALID);
    lens[1] = 0;
    assert_int_equal(stop_create(&stop, strings, lens, 2, &why), ERR_INVALID);
    lens[0] = STOP_MAX_BYTES + 1;
    assert_int_equal(stop_create(&stop, strings, lens, 1, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "bytes"));
    assert_int_equal(mem_live(), before);
}

TESTS(T(nothing_to_stop_at_holds_nothing),
      T(a_tail_that_may_start_a_string_is_kept),
      T(the_first_to_end_wins_then_the_first_to_start),
      T(random_texts_agree_with_the_plain_definition), T(limits_are_refused))
