/* Each hand-written scanner against the expression it stands for, run by
 * PCRE2, on text chosen to hurt. */
#include "tests/test.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "text/pretok.h"
#include "text/unicode.h"

struct cuts {
    const char *start;
    size_t ends[4096], count;
};

static int note(void *arg, const char *piece, size_t n)
{
    struct cuts *c = arg;
    assert_true(c->count < 4096 && n > 0);
    assert_ptr_equal(piece, c->start + (c->count ? c->ends[c->count - 1] : 0));
    c->ends[c->count++] = (size_t)(piece - c->start) + n;
    return 0;
}

/* Characters of each class, and those that expressions name. PCRE2 10.42 is
 * Unicode 14 and counts U+180E as \s, so neither is here. */
static void add_hard_char(struct buf *text, uint64_t *seed)
{
    static const uint32_t chars[] = {
        ' ',    ' ',    ' ',    '\n',   '\r',   '\t',    'a',     'b',
        's',    't',    'S',    'T',    'r',    'e',     'R',     'E',
        'l',    'L',    'v',    'm',    'd',    '\'',    '\'',    '1',
        '2',    '9',    '.',    ',',    '-',    '$',     '_',     '<',
        0xa0,   0x85,   0x2003, 0x3000, 0x2028, 0x17f,   0xe9,    0x130,
        0x301,  0x345,  0x93e,  0x20dd, 0xb2,   0x661,   0x2167,  0x4e00,
        0x9fa5, 0x9fa6, 0x3040, 0x30ff, 0x3100, 0x3042,  0x20ac,  0x2014,
        0xfeff, 0x200d, 0x1,    0x7f,   0xe000, 0x1f600, 0x1d7d8, 0x20000};
    utf8_add(text, chars[rng_next(seed) % (sizeof chars / sizeof *chars)]);
}

static void scanners_cut_as_their_expressions_do(void **state)
{
    (void)state;
    static struct cuts fast, slow;
    uint64_t seed = 42;
    struct buf text;
    buf_init(&text, 1 << 16);
    for (int i = 0; i < PRETOK_PATTERNS; i++) {
        struct pretok *scanner, *regex;
        const char *source = pretok_regex((enum pretok_pattern)i);
        pretok_create(&scanner);
        pretok_create(&regex);
        pretok_add(scanner, (enum pretok_pattern)i);
        assert_int_equal(
            pretok_add_regex(regex, source, strlen(source), true, true, NULL),
            0);
        for (int round = 0; round < 3000; round++) {
            buf_reset(&text);
            for (uint64_t n = 1 + rng_next(&seed) % 24; n; n--)
                add_hard_char(&text, &seed);
            fast = slow = (struct cuts){.start = text.data};
            pretok_split(scanner, text.data, text.len, note, &fast);
            pretok_split(regex, text.data, text.len, note, &slow);
            assert_int_equal(fast.count, slow.count);
            assert_memory_equal(fast.ends, slow.ends,
                                fast.count * sizeof *fast.ends);
        }
        pretok_destroy(scanner);
        pretok_destroy(regex);
    }
    buf_fini(&text);
}

static void every_character_is_cut_as_the_expressions_do(void **state)
{
    (void)state;
    static struct cuts fast, slow;
    struct pretok *scanner, *regex;
    const char *source = pretok_regex(PRETOK_DEEPSEEK3);
    pretok_create(&scanner);
    pretok_create(&regex);
    pretok_add(scanner, PRETOK_DEEPSEEK3);
    assert_int_equal(
        pretok_add_regex(regex, source, strlen(source), true, true, NULL), 0);
    size_t different = 0;
    for (uint32_t cp = 1; cp < 0x30000; cp++) {
        char text[32] = "a";
        if (cp >= 0xd800 && cp < 0xe000) continue;
        size_t n = 1 + utf8_put(text + 1, cp);
        text[n++] = 'b';
        text[n++] = ' ';
        n += utf8_put(text + n, cp);
        fast = slow = (struct cuts){.start = text};
        pretok_split(scanner, text, n, note, &fast);
        pretok_split(regex, text, n, note, &slow);
        different +=
            fast.count != slow.count ||
            memcmp(fast.ends, slow.ends, fast.count * sizeof *fast.ends) != 0;
    }
    /* U+180E, and what Unicode 15 and 16 assigned after PCRE2's 14. */
    assert_true(different > 0 && different < 11000);
    pretok_destroy(scanner);
    pretok_destroy(regex);
}

static void gaps_are_kept_or_dropped(void **state)
{
    (void)state;
    struct pretok *p;
    struct cuts cuts = {.start = "ab12cd"};
    pretok_create(&p);
    assert_int_equal(pretok_add_regex(p, "[0-9]+", 6, true, false, NULL), 0);
    assert_int_equal(pretok_split(p, cuts.start, 6, note, &cuts), 0);
    assert_int_equal(cuts.count, 3);
    assert_int_equal(cuts.ends[1], 4);
    pretok_destroy(p);
    pretok_create(&p);
    assert_int_equal(pretok_add_regex(p, "[a-z0-9]", 8, false, false, NULL), 0);
    cuts = (struct cuts){.start = "ab12cd"};
    pretok_split(p, cuts.start, 6, note, &cuts);
    assert_int_equal(cuts.count, 6);
    pretok_destroy(p);
}

static void unfit_expressions_are_refused(void **state)
{
    (void)state;
    struct pretok *p;
    struct why why = {0};
    size_t before = mem_live();
    pretok_create(&p);
    assert_int_equal(pretok_add_regex(p, "(", 1, true, false, &why),
                     ERR_FORMAT);
    assert_int_equal(pretok_add_regex(p, "a*", 2, true, false, &why),
                     ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "a*"));
    assert_int_equal(pretok_add_regex(p, "\\Ca", 3, true, false, &why),
                     ERR_UNSUPPORTED);
    pretok_destroy(p);
    assert_int_equal(mem_live(), before);
}

/* utf8proc alone would sort the second text in quadratic time. */
static void nfc_composes_and_stays_linear(void **state)
{
    (void)state;
    struct buf out, marks;
    unicode_init();
    buf_init(&out, 1 << 22);
    buf_init(&marks, 1 << 22);
    const char *parts = "e\u0301q\u0323\u0307\u1112\u1161\u11ab";
    unicode_nfc(&out, parts, strlen(parts));
    assert_string_equal(out.data, "\u00e9q\u0323\u0307\ud55c");
    buf_puts(&marks, "a");
    for (int i = 0; i < 200000; i++)
        buf_puts(&marks, i % 2 ? "\u0323" : "\u0301");
    buf_reset(&out);
    unicode_nfc(&out, marks.data, marks.len);
    assert_int_equal(out.failed, 0);
    assert_memory_equal(out.data, "\u1ea1\u0323\u0323", 7);
    assert_int_equal(unicode_nfc_prefix("plain \u00e9", 8), 8);
    assert_int_equal(unicode_nfc_prefix("ab\u0301", 4), 1);
    buf_fini(&out);
    buf_fini(&marks);
}

TESTS(T(scanners_cut_as_their_expressions_do),
      T(every_character_is_cut_as_the_expressions_do),
      T(gaps_are_kept_or_dropped), T(unfit_expressions_are_refused),
      T(nfc_composes_and_stays_linear))
