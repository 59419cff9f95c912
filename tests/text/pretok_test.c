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

static int note(void *arg, const struct pieces *p)
{
    struct cuts *c = arg;
    size_t at = c->count ? c->ends[c->count - 1] : 0;
    assert_ptr_equal(p->text, c->start + at);
    for (size_t i = 0; i < p->count; i++) {
        assert_true(c->count < 4096 && p->lens[i] > 0);
        c->ends[c->count++] = at += p->lens[i];
    }
    assert_true(p->end >= c->start + at);
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
    /* Letters are read eight at a time. */
    static const char edges[] = "@AZ[`az{";
    if (rng_next(seed) % 16) return;
    for (uint64_t n = rng_next(seed) % 24; n; n--)
        buf_putc(text, (char)('a' + rng_next(seed) % 26));
    buf_putc(text, edges[rng_next(seed) % (sizeof edges - 1)]);
}

/* An expression for PCRE2, matches apart from what lies between. */
static int add_plain(struct pretok *p, const char *regex)
{
    const struct pretok_split how = {.pattern = regex,
                                     .len = strlen(regex),
                                     .is_regex = true,
                                     .plain = true};
    return pretok_add_split(p, &how, NULL);
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
        pretok_add(scanner, (enum pretok_pattern)i, NULL);
        assert_int_equal(add_plain(regex, source), 0);
        for (int round = 0; round < 3000; round++) {
            buf_reset(&text);
            for (uint64_t n = 1 + rng_next(&seed) % 24; n; n--)
                add_hard_char(&text, &seed);
            fast = slow = (struct cuts){.start = text.data};
            pretok_split(scanner, text.data, text.len, PRETOK_START, note,
                         &fast);
            pretok_split(regex, text.data, text.len, PRETOK_START, note, &slow);
            assert_int_equal(fast.count, slow.count);
            assert_memory_equal(fast.ends, slow.ends,
                                fast.count * sizeof *fast.ends);
        }
        pretok_destroy(scanner);
        pretok_destroy(regex);
    }
    buf_fini(&text);
}

/* DeepSeek V3's three stages run as one scanner. */
static void add_deepseek(struct pretok *p, bool plain)
{
    static const enum pretok_pattern three[] = {PRETOK_NUMBERS3, PRETOK_CJK,
                                                PRETOK_DEEPSEEK3};
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(plain ? add_plain(p, pretok_regex(three[i]))
                               : pretok_add(p, three[i], NULL),
                         0);
}

static void three_expressions_in_one_pass_cut_as_one_after_another(void **state)
{
    (void)state;
    static struct cuts fast, slow;
    uint64_t seed = 43;
    struct buf text;
    struct pretok *one, *three;
    buf_init(&text, 1 << 16);
    pretok_create(&one);
    pretok_create(&three);
    add_deepseek(one, false);
    add_deepseek(three, true);
    for (int round = 0; round < 10000; round++) {
        static const uint32_t kana[] = {0x4e00, 0x3042, 0x30a0, 0x30fb, 0x3099,
                                        0x309b, 0x30ff, '\n',   ' ',    '1',
                                        'a',    '.',    0x301,  0x1};
        bool hard = round % 2;
        buf_reset(&text);
        for (uint64_t n = 1 + rng_next(&seed) % 24; n; n--) {
            if (hard)
                add_hard_char(&text, &seed);
            else
                utf8_add(&text, kana[rng_next(&seed) % 14]);
        }
        fast = slow = (struct cuts){.start = text.data};
        pretok_split(one, text.data, text.len, PRETOK_START, note, &fast);
        pretok_split(three, text.data, text.len, PRETOK_START, note, &slow);
        assert_int_equal(fast.count, slow.count);
        assert_memory_equal(fast.ends, slow.ends,
                            fast.count * sizeof *fast.ends);
    }
    pretok_destroy(one);
    pretok_destroy(three);
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
    pretok_add(scanner, PRETOK_DEEPSEEK3, NULL);
    assert_int_equal(add_plain(regex, source), 0);
    size_t different = 0;
    for (uint32_t cp = 1; cp < 0x30000; cp++) {
        char text[32] = "a";
        if (cp >= 0xd800 && cp < 0xe000) continue;
        size_t n = 1 + utf8_put(text + 1, cp);
        text[n++] = 'b';
        text[n++] = ' ';
        n += utf8_put(text + n, cp);
        fast = slow = (struct cuts){.start = text};
        pretok_split(scanner, text, n, PRETOK_START, note, &fast);
        pretok_split(regex, text, n, PRETOK_START, note, &slow);
        different +=
            fast.count != slow.count ||
            memcmp(fast.ends, slow.ends, fast.count * sizeof *fast.ends) != 0;
    }
    /* U+180E, and what Unicode 15 and 16 assigned after PCRE2's 14. */
    assert_true(different > 0 && different < 11000);
    pretok_destroy(scanner);
    pretok_destroy(regex);
}

static void expect_pieces(const struct pretok *p, const char *text,
                          enum pretok_place place, const char *want);

/* One stage on one text, its pieces joined by '|'. */
static void expect_split(struct pretok_split how, const char *text,
                         const char *want)
{
    struct pretok *p;
    struct why why = {0};
    how.len = strlen(how.pattern);
    pretok_create(&p);
    if (pretok_add_split(p, &how, &why)) fail_msg("%s", why.text);
    expect_pieces(p, text, PRETOK_START, want);
    pretok_destroy(p);
}

static int join(void *arg, const struct pieces *p)
{
    struct buf *out = arg;
    const char *piece = p->text;
    for (size_t i = 0; i < p->count; piece += p->lens[i++]) {
        assert_true(p->lens[i] > 0);
        if (out->len) buf_putc(out, '|');
        buf_add(out, piece, p->lens[i]);
    }
    return 0;
}

static void expect_pieces(const struct pretok *p, const char *text,
                          enum pretok_place place, const char *want)
{
    struct buf out;
    buf_init(&out, 1000);
    buf_puts(&out, "");
    assert_int_equal(pretok_split(p, text, strlen(text), place, join, &out), 0);
    assert_string_equal(out.data, want);
    buf_fini(&out);
}

static void matches_behave_as_told(void **state)
{
    (void)state;
    static const struct {
        enum pretok_behavior behavior;
        bool invert;
        const char *want;
    } cases[] = {{PRETOK_ISOLATED, false, "-|-|a|-|b|-|-"},
                 {PRETOK_REMOVED, false, "a|b"},
                 {PRETOK_REMOVED, true, "-|-|-|-|-"},
                 {PRETOK_MERGED_WITH_PREVIOUS, false, "-|-|a-|b-|-"},
                 {PRETOK_MERGED_WITH_NEXT, false, "-|-a|-b|-|-"},
                 {PRETOK_CONTIGUOUS, false, "--|a|-|b|--"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int regex = 0; regex < 2; regex++)
            expect_split((struct pretok_split){.pattern = "-",
                                               .is_regex = regex,
                                               .invert = cases[i].invert,
                                               .behavior = cases[i].behavior},
                         "--a-b--", cases[i].want);
}

static void known_expressions_get_a_scanner_that_does_the_same(void **state)
{
    (void)state;
    for (int i = 0; i < PRETOK_PATTERNS; i++) {
        struct pretok_split how = {.pattern =
                                       pretok_regex((enum pretok_pattern)i),
                                   .is_regex = true,
                                   .behavior = PRETOK_REMOVED,
                                   .invert = true};
        const char *text = "I'm 12345  ok, \u4e2d\u6587\n";
        struct buf plain;
        struct pretok *p;
        buf_init(&plain, 1000);
        buf_puts(&plain, "");
        how.len = strlen(how.pattern);
        how.plain = true;
        pretok_create(&p);
        pretok_add_split(p, &how, NULL);
        pretok_split(p, text, strlen(text), PRETOK_START, join, &plain);
        pretok_destroy(p);
        how.plain = false;
        expect_split(how, text, plain.data);
        buf_fini(&plain);
    }
}

static void marks_stand_for_spaces(void **state)
{
    (void)state;
    static const struct {
        enum pretok_prepend prepend;
        bool split;
        enum pretok_place place;
        const char *text, *want;
    } cases[] = {{PRETOK_ALWAYS, true, PRETOK_WITHIN, "a  b", "_a|_|_b"},
                 {PRETOK_ALWAYS, false, PRETOK_WITHIN, " a b", "_a_b"},
                 {PRETOK_FIRST, false, PRETOK_START, "a b", "_a_b"},
                 {PRETOK_FIRST, false, PRETOK_WITHIN, "a b", "a_b"},
                 {PRETOK_FIRST, false, PRETOK_START_CUT, "a b", "_a_b"},
                 {PRETOK_NEVER, true, PRETOK_START, "a b_c", "a|_b|_c"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pretok *p;
        pretok_create(&p);
        pretok_add_metaspace(p, "_", 1, cases[i].prepend, cases[i].split, NULL);
        expect_pieces(p, cases[i].text, cases[i].place, cases[i].want);
        pretok_destroy(p);
    }
}

static void stages_follow_one_another(void **state)
{
    (void)state;
    struct pretok *p;
    pretok_create(&p);
    pretok_add_whitespace_split(p, NULL);
    pretok_add_punct(p, PRETOK_ISOLATED, NULL);
    pretok_add_metaspace(p, "_", 1, PRETOK_FIRST, true, NULL);
    expect_pieces(p, "Hi, you! a1", PRETOK_START, "_Hi|,|you|!|a1");
    expect_pieces(p, "Hi you", PRETOK_START_CUT, "Hi|you");
    pretok_add_digits(p, true, NULL);
    expect_pieces(p, " a12", PRETOK_START, "a|1|2");
    pretok_destroy(p);
    pretok_create(&p);
    pretok_add_words(p, NULL);
    expect_pieces(p, "don't stop--now", PRETOK_START, "don|'|t|stop|--|now");
    pretok_destroy(p);
    pretok_create(&p);
    pretok_add_prefix_space(p, NULL);
    pretok_add(p, PRETOK_GPT2, NULL);
    expect_pieces(p, "a b", PRETOK_START, " a| b");
    for (int i = 2; i < 8; i++)
        assert_int_equal(pretok_add(p, PRETOK_GPT2, NULL), 0);
    assert_int_equal(pretok_add(p, PRETOK_GPT2, NULL), ERR_UNSUPPORTED);
    pretok_destroy(p);
}

static void unfit_expressions_are_refused(void **state)
{
    (void)state;
    struct pretok *p;
    struct why why = {0};
    size_t before = mem_live();
    pretok_create(&p);
    struct pretok_split how = {.pattern = "(", .len = 1, .is_regex = true};
    assert_int_equal(pretok_add_split(p, &how, &why), ERR_FORMAT);
    how.pattern = "a*";
    how.len = 2;
    assert_int_equal(pretok_add_split(p, &how, &why), ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "a*"));
    how.pattern = "\\Ca";
    how.len = 3;
    assert_int_equal(pretok_add_split(p, &how, &why), ERR_UNSUPPORTED);
    how.is_regex = false;
    how.len = 0;
    assert_int_equal(pretok_add_split(p, &how, &why), ERR_UNSUPPORTED);
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
    unicode_normalize(&out, UNICODE_NFC, parts, strlen(parts));
    assert_string_equal(out.data, "\u00e9q\u0323\u0307\ud55c");
    buf_puts(&marks, "a");
    for (int i = 0; i < 200000; i++)
        buf_puts(&marks, i % 2 ? "\u0323" : "\u0301");
    buf_reset(&out);
    unicode_normalize(&out, UNICODE_NFC, marks.data, marks.len);
    assert_int_equal(out.failed, 0);
    assert_memory_equal(out.data, "\u1ea1\u0323\u0323", 7);
    assert_int_equal(unicode_nfc_prefix("plain \u00e9", 8), 8);
    assert_int_equal(unicode_nfc_prefix("ab\u0301", 4), 1);
    buf_fini(&out);
    buf_fini(&marks);
}

TESTS(T(scanners_cut_as_their_expressions_do),
      T(three_expressions_in_one_pass_cut_as_one_after_another),
      T(every_character_is_cut_as_the_expressions_do),
      T(matches_behave_as_told),
      T(known_expressions_get_a_scanner_that_does_the_same),
      T(marks_stand_for_spaces), T(stages_follow_one_another),
      T(unfit_expressions_are_refused), T(nfc_composes_and_stays_linear))
