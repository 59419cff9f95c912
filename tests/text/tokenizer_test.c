#include "tests/text/vocab.h"

#include "base/buf.h"
#include "base/mem.h"
#include "base/clock.h"

static void expect_n(const struct tokenizer *t, const char *text, size_t n,
                     unsigned flags, const int32_t *want, size_t count)
{
    struct token_list list = {0};
    assert_int_equal(tokenizer_encode(t, text, n, flags, &list), 0);
    assert_int_equal(list.count, count);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(list.ids[i], want[i]);
    token_list_fini(&list);
}

#define EXPECT(t, text, flags, ...)                                      \
    expect_n(t, text, sizeof(text) - 1, flags, (int32_t[]){__VA_ARGS__}, \
             sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void the_best_merge_goes_first_and_leftmost(void **state)
{
    (void)state;
    struct vocab v;
    vocab_init(&v);
    int32_t bc = vocab_merge(&v, "b", "c");
    int32_t ab = vocab_merge(&v, "a", "b");
    int32_t aa = vocab_merge(&v, "a", "a");
    int32_t abc = vocab_merge(&v, "ab", "c");
    struct tokenizer *t = vocab_create(&v);
    EXPECT(t, "abc", 0, 'a', bc); /* "abc" is a token merges never reach */
    EXPECT(t, "abx", 0, ab, 'x');
    EXPECT(t, "aaa", 0, aa, 'a');
    EXPECT(t, "a ab", 0, 'a', ' ', ab);
    expect_n(t, "", 0, 0, NULL, 0);
    assert_int_equal(tokenizer_find(t, "abc"), abc);
    assert_int_equal(tokenizer_find(t, "abcd"), -1);
    tokenizer_destroy(t);
    v.spec.pre = "llama-bpe"; /* whole words skip the merges there */
    t = vocab_create(&v);
    EXPECT(t, "abc", 0, abc);
    tokenizer_destroy(t);
}

static void added_tokens_are_cut_out_first(void **state)
{
    (void)state;
    struct vocab v;
    vocab_init(&v);
    int32_t s = vocab_add(&v, "<s>", TOKEN_CONTROL);
    int32_t ss = vocab_add(&v, "<s>>", TOKEN_USER_DEFINED);
    v.spec.bos = s;
    v.spec.add_bos = 1;
    struct tokenizer *t = vocab_create(&v);
    EXPECT(t, "a<s>b", 0, 'a', s, 'b');
    EXPECT(t, "a<s>>", TOKENIZER_ADD_SPECIAL, s, 'a', ss);
    EXPECT(t, "<s><s>>", TOKENIZER_PLAIN_SPECIAL, '<', 's', '>', ss);
    EXPECT(t, "<s", 0, '<', 's');
    assert_true(tokenizer_is_special(t, s));
    assert_false(tokenizer_is_special(t, ss));
    assert_true(tokenizer_is_added(t, ss));
    assert_true(tokenizer_adds_bos(t));
    assert_int_equal(tokenizer_bos(t), s);
    assert_string_equal(tokenizer_named_text(t, TOKENIZER_BOS), "<s>");
    assert_string_equal(tokenizer_named_text(t, TOKENIZER_EOS), "");
    assert_int_equal(tokenizer_find(t, "<s>"), s);
    size_t len;
    assert_memory_equal(tokenizer_token_bytes(t, ss, &len), "<s>>", 4);
    assert_int_equal(len, 4);
    assert_null(tokenizer_token_bytes(t, 100000, &len));
    assert_int_equal(len, 0);
    tokenizer_destroy(t);
}

static void broken_utf8_counts_as_the_replacement_character(void **state)
{
    (void)state;
    struct vocab v;
    vocab_init(&v);
    struct tokenizer *t = vocab_create(&v);
    EXPECT(t, "a\xff", 0, 'a', 0xef, 0xbf, 0xbd);
    EXPECT(t, "\xe4\xb8", 0, 0xef, 0xbf, 0xbd);
    tokenizer_destroy(t);
}

/* A long text goes through the memory of pieces seen, a short one does not. */
static void repeated_words_merge_alike(void **state)
{
    (void)state;
    struct vocab v;
    struct token_list once = {0}, many = {0};
    struct buf text;
    vocab_init(&v);
    vocab_merge(&v, "a", "b");
    vocab_merge(&v, " ", "ab");
    struct tokenizer *t = vocab_create(&v);
    const char *words = " abc abab cab aab bbb a b c abcabcabcabcabcabcabcabc";
    buf_init(&text, 1 << 20);
    for (int i = 0; i < 300; i++)
        buf_puts(&text, words);
    tokenizer_encode(t, words, strlen(words), 0, &once);
    tokenizer_encode(t, text.data, text.len, 0, &many);
    assert_int_equal(many.count, 300 * once.count);
    for (size_t i = 0; i < many.count; i++)
        assert_int_equal(many.ids[i], once.ids[i % once.count]);
    buf_fini(&text);
    token_list_fini(&once);
    token_list_fini(&many);
    tokenizer_destroy(t);
}

static void long_pieces_merge_as_short_ones(void **state)
{
    (void)state;
    struct vocab v;
    uint64_t seed = 11;
    vocab_init(&v);
    int32_t aa = vocab_merge(&v, "a", "a");
    vocab_merge(&v, "aa", "aa");
    vocab_merge(&v, "a", "b");
    vocab_merge(&v, "b", "aa");
    struct tokenizer *t = vocab_create(&v);
    /* 60 letters go the short way, ten times as many in one word the long. A
     * Q between the parts merges with nothing, so the parts stand alone. */
    char text[10 * 41];
    struct token_list whole = {0}, parts = {0};
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = i % 41 == 40 ? 'Q' : rng_next(&seed) % 3 ? 'a' : 'b';
    assert_int_equal(tokenizer_encode(t, text, sizeof text, 0, &whole), 0);
    for (size_t i = 0; i < sizeof text; i += 41)
        assert_int_equal(tokenizer_encode(t, text + i, 41, 0, &parts), 0);
    assert_int_equal(whole.count, parts.count);
    assert_memory_equal(whole.ids, parts.ids, parts.count * sizeof(int32_t));
    token_list_fini(&whole);
    token_list_fini(&parts);
    size_t n = 1 << 20;
    char *letters = mem_must(n, 1);
    memset(letters, 'a', n);
    assert_int_equal(tokenizer_encode(t, letters, n, 0, &whole), 0);
    assert_int_equal(whole.count, n / 4);
    whole.count = 0;
    whole.max = 10;
    assert_int_equal(tokenizer_encode(t, letters, n, 0, &whole), ERR_RANGE);
    assert_int_equal(whole.count, 10);
    assert_int_not_equal(whole.ids[0], aa);
    token_list_fini(&whole);
    mem_free(letters);
    tokenizer_destroy(t);
}

/* Encodes part over and over up to about n bytes; returns the steps a byte. */
static double work_per_byte(const struct tokenizer *t, const char *part,
                            size_t n)
{
    struct buf text;
    struct token_list list = {0};
    buf_init(&text, 2 * n);
    while (text.len < n)
        buf_puts(&text, part);
    assert_int_equal(tokenizer_encode(t, text.data, text.len, 0, &list), 0);
    double work = (double)list.work / (double)text.len;
    buf_fini(&text);
    token_list_fini(&list);
    return work;
}

/* Counted, not timed: thirty-two times the text may take a few more steps a
 * byte for the heap's depth, no more. */
static void expect_no_quadratic_text(const struct tokenizer *t)
{
    static const char *const parts[] = {
        "a",      " ",         "\n",           "1",
        "ab",     "\u4e2d",    "\u4e2d\u6587", "\u0301",
        "aab",    "abcabcaab", "\U0001f600",   "'",
        "\u2581", "e\u0301",   "the"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        double few = work_per_byte(t, parts[i], 1 << 12);
        double many = work_per_byte(t, parts[i], 1 << 17);
        if (many > 2 * few + 12)
            fail_msg("\"%s\": %.1f steps a byte grew to %.1f", parts[i], few,
                     many);
    }
}

static void work_grows_with_the_text_alone(void **state)
{
    (void)state;
    static const char *const files[] = {"tiny_qwen", "tiny_deepseek",
                                        "tiny_spm", "tiny_joined",
                                        "tiny_unigram_bytes"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[200];
        struct tokenizer *t = NULL;
        snprintf(path, sizeof path, "tests/golden/tokenizer/%s.json", files[i]);
        assert_int_equal(tokenizer_open(&t, path, NULL, NULL), 0);
        expect_no_quadratic_text(t);
        tokenizer_destroy(t);
    }
    /* Merges in the worst order: each brings one that should have been
     * first. */
    struct vocab v;
    vocab_init(&v);
    vocab_merge(&v, "aa", "b");
    vocab_merge(&v, "aab", "aab");
    vocab_merge(&v, "b", "a");
    vocab_merge(&v, "c", "aa");
    vocab_merge(&v, "a", "a");
    struct tokenizer *t = vocab_create(&v);
    expect_no_quadratic_text(t);
    tokenizer_destroy(t);
}

static void refusals_name_what_is_wrong(void **state)
{
    (void)state;
    struct vocab v;
    struct tokenizer *t = NULL;
    struct why why = {0};
    size_t before = mem_live();
    vocab_init(&v);
    v.spec.pre = "klingon";
    assert_int_equal(tokenizer_create(&t, &v.spec, &why), ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "klingon"));
    v.spec.pre = NULL;
    v.spec.model = "wordpiece";
    assert_int_equal(tokenizer_create(&t, &v.spec, &why), ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "wordpiece"));
    v.spec.model = "llama"; /* without scores */
    assert_int_equal(tokenizer_create(&t, &v.spec, &why), ERR_FORMAT);
    v.spec.model = "gpt2";
    v.spec.eos = 256;
    assert_int_equal(tokenizer_create(&t, &v.spec, &why), ERR_FORMAT);
    v.spec.eos = -1;
    v.merges[0] = (struct tokenizer_text){"a zz", 4};
    v.spec.merge_count = 1;
    assert_int_equal(tokenizer_create(&t, &v.spec, &why), ERR_FORMAT);
    assert_non_null(strstr(why.text, "zz"));
    v.spec.merge_count = 0;
    v.types[7] = TOKEN_BYTE;
    assert_int_equal(tokenizer_create(&t, &v.spec, &why), ERR_UNSUPPORTED);
    assert_null(t);
    assert_int_equal(mem_live(), before);
}

static void making_survives_every_failed_allocation(void **state)
{
    (void)state;
    static struct vocab v;
    struct tokenizer *t = NULL;
    size_t before = mem_live();
    vocab_init(&v);
    vocab_merge(&v, "a", "a");
    vocab_add(&v, "<s>", TOKEN_CONTROL);
    int rc = ERR_NOMEM;
    size_t tries = 0;
    while (rc && tries < 100) {
        mem_fail_at(++tries);
        rc = tokenizer_create(&t, &v.spec, NULL);
        assert_int_equal(rc, t ? 0 : ERR_NOMEM);
        assert_true(t || mem_live() == before);
    }
    mem_fail_at(0);
    assert_true(tries > 5 && tries < 100);
    struct token_list list = {0};
    char word[200];
    memset(word, 'a', sizeof word);
    rc = ERR_NOMEM;
    for (tries = 1; rc && tries < 100; tries++) {
        mem_fail_at(tries);
        rc = tokenizer_encode(t, word, sizeof word, 0, &list);
        if (rc) token_list_fini(&list);
    }
    mem_fail_at(0);
    assert_int_equal(list.count, 100);
    token_list_fini(&list);
    tokenizer_destroy(t);
    assert_int_equal(mem_live(), before);
}

TESTS(T(the_best_merge_goes_first_and_leftmost),
      T(added_tokens_are_cut_out_first),
      T(broken_utf8_counts_as_the_replacement_character),
      T(repeated_words_merge_alike), T(long_pieces_merge_as_short_ones),
      T(work_grows_with_the_text_alone), T(refusals_name_what_is_wrong),
      T(making_survives_every_failed_allocation))
