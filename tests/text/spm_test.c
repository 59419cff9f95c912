/* tokenizer.model: what is read, what is refused, what the files beside add.
 * The ids of many texts are golden_many_test's. */
#include "tests/test.h"
#include "tests/text/golden.h"

#include "base/buf.h"
#include "base/mem.h"
#include "text/charsmap.h"
#include "text/spm.h"

#include <string.h>

#define OWN "tests/golden/tokenizer/spm_own/tokenizer.model"

/* --- a writer of the message --- */

static void put_number(struct buf *b, unsigned field, uint64_t value)
{
    uint64_t parts[2] = {(uint64_t)field << 3, value};
    for (int i = 0; i < 2; i++) {
        for (; parts[i] > 127; parts[i] >>= 7)
            buf_putc(b, (char)(parts[i] | 128));
        buf_putc(b, (char)parts[i]);
    }
}

static void put_bytes(struct buf *b, unsigned field, const void *bytes,
                      size_t n)
{
    char tag = (char)(field << 3 | 2);
    buf_putc(b, tag);
    assert_true(n < 128);
    buf_putc(b, (char)n);
    buf_add(b, bytes, n);
}

static void put_piece(struct buf *b, const char *text, float score, int type)
{
    struct buf piece;
    buf_init(&piece, 200);
    put_bytes(&piece, 1, text, strlen(text));
    buf_putc(&piece, 2 << 3 | 5);
    buf_add(&piece, &score, sizeof score);
    put_number(&piece, 3, (uint64_t)type);
    put_bytes(b, 1, piece.data, piece.len);
    buf_fini(&piece);
}

/* <unk> <s> </s> and some letters; then fields of the trainer's and the
 * normalizer's message, 0 ends them. */
static void put_model(struct buf *b, const unsigned *trainer,
                      const unsigned *normalizer)
{
    struct buf spec;
    buf_init(b, 10000);
    buf_init(&spec, 200);
    put_piece(b, "<unk>", 0, TOKEN_UNKNOWN);
    put_piece(b, "<s>", 0, TOKEN_CONTROL);
    put_piece(b, "</s>", 0, TOKEN_CONTROL);
    put_piece(b, "a", -1, TOKEN_NORMAL);
    put_piece(b, "\xe2\x96\x81", -2, TOKEN_NORMAL);
    put_piece(b,
              "\xe2\x96\x81"
              "a",
              -3, TOKEN_NORMAL);
    for (; *trainer; trainer += 2)
        put_number(&spec, trainer[0], trainer[1]);
    put_bytes(b, 2, spec.data ? spec.data : "", spec.len);
    buf_reset(&spec);
    for (; *normalizer; normalizer += 2)
        put_number(&spec, normalizer[0], normalizer[1]);
    put_bytes(b, 3, spec.data ? spec.data : "", spec.len);
    buf_fini(&spec);
}

enum { TRAINER_TYPE = 3, TRAINER_SUFFIX = 24, TRAINER_BYTES = 35 };
enum { PREFIX = 3, SQUEEZE, ESCAPE };

static void expect_refused(const char *bytes, size_t n, int rc,
                           const char *text)
{
    struct spm m;
    struct why why = {0};
    assert_int_equal(spm_read(&m, bytes, n, &why), rc);
    if (!strstr(why.text, text)) fail_msg("%s\nhas no %s", why.text, text);
    spm_fini(&m);
}

static void fields_are_read(void **state)
{
    (void)state;
    struct buf b;
    struct spm m;
    put_model(&b, (unsigned[]){TRAINER_TYPE, 2, 0}, (unsigned[]){PREFIX, 0, 0});
    assert_int_equal(spm_read(&m, b.data, b.len, NULL), 0);
    assert_int_equal(m.count, 6);
    assert_int_equal(m.pieces[5].len, 4);
    assert_true(m.scores[5] == -3);
    assert_false(m.unigram);
    assert_false(m.dummy_prefix);
    assert_true(m.squeeze);
    assert_int_equal(m.unk, 0);
    assert_int_equal(m.bos, 1);
    assert_int_equal(m.eos, 2);
    spm_fini(&m);
    buf_fini(&b);
}

static void what_cannot_be_done_is_refused(void **state)
{
    (void)state;
    static const struct {
        unsigned trainer[3], normalizer[3];
        int rc;
        const char *text;
    } cases[] = {
        {{TRAINER_TYPE, 3}, {0}, ERR_UNSUPPORTED, "words"},
        {{TRAINER_TYPE, 4}, {0}, ERR_UNSUPPORTED, "characters"},
        {{TRAINER_TYPE, 9}, {0}, ERR_UNSUPPORTED, "unknown type"},
        {{TRAINER_SUFFIX, 1}, {0}, ERR_UNSUPPORTED, "as_suffix"},
        {{0}, {ESCAPE, 0}, ERR_UNSUPPORTED, "not escaped"},
        {{TRAINER_BYTES, 1}, {0}, ERR_FORMAT, "0 byte pieces"},
    };
    struct buf b;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_model(&b, cases[i].trainer, cases[i].normalizer);
        expect_refused(b.data, b.len, cases[i].rc, cases[i].text);
        buf_fini(&b);
    }
    put_model(&b, (unsigned[]){0}, (unsigned[]){0});
    put_piece(&b, "<unk2>", 0, TOKEN_UNKNOWN);
    expect_refused(b.data, b.len, ERR_FORMAT, "2 pieces of type unknown");
    buf_fini(&b);
    put_model(&b, (unsigned[]){0}, (unsigned[]){0});
    put_piece(&b, "", 0, TOKEN_NORMAL);
    expect_refused(b.data, b.len, ERR_FORMAT, "a piece without text at byte");
    buf_fini(&b);
    put_model(&b, (unsigned[]){0}, (unsigned[]){0});
    put_piece(&b, "b", 0, 7);
    expect_refused(b.data, b.len, ERR_FORMAT, "a piece of unknown type");
    buf_fini(&b);
}

static void broken_messages_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *text;
    } cases[] = {
        {"", 0, "0 pieces of type unknown"},
        {"\x0a", 1, "a number is cut off at byte 1"},
        {"\x0a\x05"
         "ab",
         4, "a field is cut off at byte 2"},
        {"\x00", 1, "a bad field"},
        {"\x0b", 1, "a field of unknown type"},
        {"\x08\x01", 2, "a field of another type"},
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 11, "64 bits"},
        {"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 10, "cut off"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_refused(cases[i].bytes, cases[i].n, ERR_FORMAT, cases[i].text);
}

/* --- the files beside --- */

static struct tokenizer_text own_model(struct buf *b)
{
    FILE *f = fopen(OWN, "rb");
    assert_non_null(f);
    buf_init(b, 1 << 20);
    b->len = fread(buf_grow(b, 1 << 19), 1, 1 << 19, f);
    fclose(f);
    return (struct tokenizer_text){b->data, b->len};
}

static struct tokenizer_text text_of(const char *s)
{
    return (struct tokenizer_text){s, s ? strlen(s) : 0};
}

static struct tokenizer *parse(const char *config, const char *added,
                               struct why *why)
{
    struct buf b;
    struct tokenizer *t = NULL;
    struct tokenizer_text model = own_model(&b);
    const struct tokenizer_texts beside = {.config = text_of(config),
                                           .added = text_of(added)};
    int rc = tokenizer_parse_model(&t, &model, &beside, why);
    assert_int_equal(rc == 0, t != NULL);
    assert_int_equal(why->code, rc);
    buf_fini(&b);
    return t;
}

static void expect_ids(const struct tokenizer *t, const char *text,
                       const int32_t *ids, size_t count)
{
    struct token_list list = {0};
    assert_int_equal(
        tokenizer_encode(t, text, strlen(text), TOKENIZER_ADD_SPECIAL, &list),
        0);
    assert_int_equal(list.count, count);
    assert_memory_equal(list.ids, ids, count * sizeof *ids);
    token_list_fini(&list);
}

#define DECODER(id)                                              \
    "\"added_tokens_decoder\":{\"" id "\":{\"content\":\"<m>\"," \
    "\"special\":true}}"

static void config_says_what_goes_around(void **state)
{
    (void)state;
    struct why why = {0};
    size_t before = mem_live();
    struct tokenizer *t = parse(NULL, NULL, &why);
    assert_false(tokenizer_adds_bos(t));
    assert_int_equal(tokenizer_bos(t), 1);
    assert_string_equal(tokenizer_named_text(t, TOKENIZER_EOS), "</s>");
    expect_ids(t, "<s><think>", (int32_t[]){1, 3}, 2);
    tokenizer_destroy(t);
    t = parse("{\"add_bos_token\":true,\"add_eos_token\":true,"
              "\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":\"<m>\","
              "\"chat_template\":\"{{ 1 }}\"," DECODER("1000") "}",
              NULL, &why);
    expect_ids(t, "<s>", (int32_t[]){1, 1, 1000}, 3);
    assert_string_equal(tokenizer_chat_template(t), "{{ 1 }}");
    assert_true(tokenizer_is_special(t, 1000));
    tokenizer_destroy(t);
    t = parse("{\"additional_special_tokens\":[\"<n>\"]}",
              "{\"<n>\":1001,\"<m>\":1000}", &why);
    expect_ids(t, "<m><n>", (int32_t[]){1000, 1001}, 2);
    assert_false(tokenizer_is_special(t, 1000));
    assert_true(tokenizer_is_special(t, 1001));
    tokenizer_destroy(t);
    assert_int_equal(mem_live(), before);
}

static void contradictions_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *config, *added, *text;
    } cases[] = {
        {"{" DECODER("1001") "}", NULL, "1001 where 1000 would be next"},
        {"{" DECODER("1") "}", NULL, "disagrees with the vocabulary"},
        {"{" DECODER("x1") "}", NULL, "added token \"x1\""},
        {"{" DECODER("99999999999999999999") "}", NULL, "added token \"9"},
        {"{\"added_tokens_decoder\":[]}", NULL, "no object"},
        {"{\"extra_special_tokens\":[\"<new>\"]}", NULL, "has no id"},
        {"{\"bos_token\":\"<none>\"}", NULL, "is no token"},
        {NULL, "{\"<m>\":-1}", "added_tokens: token"},
        {NULL, "[", "added_tokens: "},
        {"[", NULL, "tokenizer_config: "},
    };
    size_t before = mem_live();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct why why = {0};
        struct tokenizer *t = parse(cases[i].config, cases[i].added, &why);
        assert_null(t);
        if (!strstr(why.text, cases[i].text))
            fail_msg("%s\nhas no %s", why.text, cases[i].text);
    }
    assert_int_equal(mem_live(), before);
}

/* --- the table of replacements --- */

static void expect_table_refused(const char *table, size_t n, int rc,
                                 const char *text)
{
    struct charsmap *m;
    struct why why = {0};
    assert_int_equal(charsmap_create(&m, table, n, &why), rc);
    if (!strstr(why.text, text)) fail_msg("%s\nhas no %s", why.text, text);
}

static void broken_tables_are_refused(void **state)
{
    (void)state;
    struct charsmap *m;
    struct why why = {0};
    char big[8 + CHARSMAP_MAX_TEXT + 2] = {4};
    memset(big + 8, 'x', sizeof big - 8);
    expect_table_refused("", 0, ERR_FORMAT, "trie of 0 bytes in 0");
    expect_table_refused("\4\0\0\0\0\0\0", 7, ERR_FORMAT, "trie of 4 bytes");
    expect_table_refused("\3\0\0\0\0\0\0", 7, ERR_FORMAT, "trie of 3 bytes");
    expect_table_refused("\4\0\0\0\0\0\0\0a\xff", 10, ERR_FORMAT,
                         "not UTF-8 at byte 9");
    expect_table_refused(big, sizeof big, ERR_UNSUPPORTED, "a replacement of");
    assert_int_equal(charsmap_create_base64(&m, "BAAAAAAAAAA", 11, &why),
                     ERR_FORMAT);
    assert_int_equal(charsmap_create_base64(&m, "BAAAAAAAAA!=", 12, &why),
                     ERR_FORMAT);
    assert_int_equal(charsmap_create_base64(&m, "BAAAAAAAAAA=", 12, &why), 0);
    charsmap_destroy(m);
}

TESTS(T(fields_are_read), T(what_cannot_be_done_is_refused),
      T(broken_messages_are_refused), T(config_says_what_goes_around),
      T(contradictions_are_refused), T(broken_tables_are_refused))
