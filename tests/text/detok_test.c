#include "tests/text/vocab.h"

#include "base/clock.h"
#include "base/mem.h"
#include "text/detok.h"

static void characters_come_out_whole(void **state)
{
    (void)state;
    struct vocab v;
    struct detok d;
    struct buf out;
    vocab_init(&v);
    struct tokenizer *t = vocab_create(&v);
    detok_init(&d, t, true);
    buf_init(&out, 100);
    const unsigned char panda[] = {'a', 0xf0, 0x9f, 0x90, 0xbc, 'b'};
    const size_t want[] = {1, 1, 1, 1, 5, 6};
    for (size_t i = 0; i < sizeof panda; i++) {
        detok_feed(&d, panda[i], &out);
        assert_int_equal(out.len, want[i]);
    }
    assert_string_equal(out.data, "a\U0001f43cb");
    detok_feed(&d, 0xe4, &out);
    detok_feed(&d, 0xb8, &out);
    assert_int_equal(out.len, 6);
    detok_flush(&d, &out);
    assert_string_equal(out.data, "a\U0001f43cb\ufffd");
    detok_flush(&d, &out);
    assert_int_equal(out.len, 9);
    buf_fini(&out);
    tokenizer_destroy(t);
}

static void special_tokens_hide_when_asked(void **state)
{
    (void)state;
    struct vocab v;
    struct detok d;
    struct buf out;
    vocab_init(&v);
    int32_t end = vocab_add(&v, "<|end|>", TOKEN_CONTROL);
    int32_t think = vocab_add(&v, "<think>", TOKEN_USER_DEFINED);
    struct tokenizer *t = vocab_create(&v);
    for (int skip = 0; skip < 2; skip++) {
        buf_init(&out, 100);
        detok_init(&d, t, skip);
        detok_feed(&d, think, &out);
        detok_feed(&d, 'x', &out);
        detok_feed(&d, end, &out);
        detok_feed(&d, 100000, &out);
        detok_feed(&d, -1, &out);
        assert_string_equal(out.data, skip ? "<think>x" : "<think>x<|end|>");
        buf_fini(&out);
    }
    tokenizer_destroy(t);
}

/* Any bytes, in any parts, are what repairing them all at once gives. */
static void parts_put_together_are_the_whole(void **state)
{
    (void)state;
    static const unsigned char likely[] = {'a',  0x80, 0xbf, 0xc2, 0xe0, 0xa0,
                                           0xed, 0x9f, 0xf0, 0x90, 0xf4, 0x8f,
                                           0xe4, 0xb8, 0xad, 0xff, 0xc0, 0xf5};
    struct vocab v;
    uint64_t seed = 3;
    vocab_init(&v);
    struct tokenizer *t = vocab_create(&v);
    for (int round = 0; round < 4000; round++) {
        char bytes[24];
        struct buf parts, whole;
        struct detok d;
        buf_init(&parts, 200);
        buf_init(&whole, 200);
        detok_init(&d, t, false);
        for (size_t i = 0; i < sizeof bytes; i++) {
            bytes[i] = (char)likely[rng_next(&seed) % sizeof likely];
            detok_feed(&d, (unsigned char)bytes[i], &parts);
            assert_int_equal(
                utf8_valid(parts.data ? parts.data : "", parts.len), parts.len);
        }
        detok_flush(&d, &parts);
        utf8_repair(&whole, bytes, sizeof bytes);
        assert_int_equal(parts.len, whole.len);
        assert_memory_equal(parts.data, whole.data, whole.len);
        buf_fini(&parts);
        buf_fini(&whole);
    }
    tokenizer_destroy(t);
}

/* tests/golden's tiny_spm: ids 3 to 258 are the bytes. */
static void byte_tokens_make_characters(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *want;
    } cases[] = {{"\xe4\xb8\xad", "\u4e2d"},
                 {"\xe4\xb8", "\ufffd\ufffd"},
                 {"\xffz\xc3\xa9", "\ufffd\ufffd\ufffd\ufffd"},
                 {"a\xc3\xa9\xff", "a\u00e9\ufffd"}};
    struct tokenizer *t = NULL;
    struct why why = {0};
    if (tokenizer_open(&t, "tests/golden/tokenizer/tiny_spm.json", NULL, &why))
        fail_msg("%s", why.text);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct detok d;
        struct buf out;
        const char *bytes = cases[i].bytes;
        buf_init(&out, 100);
        buf_puts(&out, "");
        detok_init(&d, t, true);
        for (size_t k = 0; bytes[k]; k++) {
            detok_feed(&d, 3 + (unsigned char)bytes[k], &out);
            assert_int_equal(utf8_valid(out.data, out.len), out.len);
        }
        int32_t the = tokenizer_find(t, "\u2581the");
        assert_true(the > 258);
        detok_feed(&d, the, &out);
        detok_flush(&d, &out);
        assert_memory_equal(out.data, cases[i].want, strlen(cases[i].want));
        assert_string_equal(out.data + strlen(cases[i].want), " the");
        buf_fini(&out);
    }
    tokenizer_destroy(t);
}

static void only_a_whole_text_loses_its_first_space(void **state)
{
    (void)state;
    struct tokenizer *t = NULL;
    struct detok d;
    struct buf out;
    assert_int_equal(
        tokenizer_open(&t, "tests/golden/tokenizer/tiny_spm.json", NULL, NULL),
        0);
    int32_t the = tokenizer_find(t, "\u2581the");
    buf_init(&out, 100);
    detok_init(&d, t, true);
    detok_feed(&d, 1, &out); /* <s> is hidden and no start */
    detok_feed(&d, the, &out);
    detok_feed(&d, the, &out);
    assert_string_equal(out.data, "the the");
    buf_reset(&out);
    detok_init_within(&d, t, true);
    detok_feed(&d, the, &out);
    assert_string_equal(out.data, " the");
    buf_fini(&out);
    tokenizer_destroy(t);
}

TESTS(T(characters_come_out_whole), T(byte_tokens_make_characters),
      T(only_a_whole_text_loses_its_first_space),
      T(special_tokens_hide_when_asked), T(parts_put_together_are_the_whole))
