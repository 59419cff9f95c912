#include "tests/test.h"

#include "base/clock.h"
#include "router/prefix.h"

enum { LONG = 64 * PREFIX_BLOCK };

static void fill(char *text, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++)
        text[i] = (char)('a' + rng_next(&seed) % 26);
}

static size_t match(struct prefix_table *t, const char *text, size_t n)
{
    struct prefix p;
    prefix_init(&p, text, n);
    size_t blocks = prefix_table_match(t, &p);
    prefix_fini(&p);
    return blocks;
}

static void note(struct prefix_table *t, const char *text, size_t n)
{
    struct prefix p;
    prefix_init(&p, text, n);
    assert_int_equal(p.count, n / PREFIX_BLOCK);
    prefix_table_note(t, &p);
    prefix_fini(&p);
}

static void beginnings_are_known_in_whole_blocks(void **state)
{
    (void)state;
    char a[LONG], b[LONG];
    struct prefix_table *t = prefix_table_create(1 << 20);
    fill(a, LONG, 1);
    assert_int_equal(match(t, a, LONG), 0);
    note(t, a, 0);
    note(t, a, PREFIX_BLOCK - 1);
    assert_int_equal(prefix_table_count(t), 0);
    note(t, a, 10 * PREFIX_BLOCK + 5);
    assert_int_equal(prefix_table_count(t), 10);
    assert_int_equal(match(t, a, LONG), 10);
    assert_int_equal(match(t, a, 4 * PREFIX_BLOCK), 4);
    /* One byte makes all behind it another's. */
    memcpy(b, a, LONG);
    b[3 * PREFIX_BLOCK + 7] ^= 1;
    assert_int_equal(match(t, b, LONG), 3);
    b[0] ^= 1;
    assert_int_equal(match(t, b, LONG), 0);
    note(t, a, LONG); /* the rest of it */
    note(t, a, LONG);
    assert_int_equal(prefix_table_count(t), 64);
    assert_int_equal(match(t, a, LONG), 64);
    prefix_table_clear(t);
    assert_int_equal(prefix_table_count(t), 0);
    assert_int_equal(match(t, a, LONG), 0);
    prefix_table_destroy(t);
    prefix_table_destroy(NULL);
}

static void what_was_not_seen_for_longest_is_forgotten(void **state)
{
    (void)state;
    enum { BLOCKS = 1024 };
    char hot[8 * PREFIX_BLOCK], text[LONG];
    struct prefix_table *t = prefix_table_create(BLOCKS * PREFIX_BLOCK);
    fill(hot, sizeof hot, 1);
    for (uint64_t i = 0; i < 200; i++) { /* 12 times what fits */
        note(t, hot, sizeof hot);
        fill(text, LONG, 100 + i);
        note(t, text, LONG);
        assert_int_equal(match(t, text, LONG), 64);
        assert_int_equal(match(t, hot, sizeof hot), 8);
        assert_true(prefix_table_count(t) <= BLOCKS);
    }
    assert_true(prefix_table_count(t) > BLOCKS / 2);
    fill(text, LONG, 100);
    assert_true(match(t, text, LONG) < 64);
    prefix_table_destroy(t);
}

TESTS(T(beginnings_are_known_in_whole_blocks),
      T(what_was_not_seen_for_longest_is_forgotten))
