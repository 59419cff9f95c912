/* The first byte chooses, the next two are a length: a tokenizer.model of that
 * length with a tokenizer_config.json behind it, whose ids of a text must
 * decode to whole characters; or a text of that length, with a table of
 * replacements ('c') that must make valid text of it. */
#include "base/buf.h"
#include "text/charsmap.h"
#include "text/detok.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

static void expect_valid(const struct buf *b)
{
    if (b->len && utf8_valid(b->data, b->len) != b->len) abort();
}

static void replace(const char *text, size_t n, const char *table, size_t size)
{
    struct charsmap *m;
    struct why why = {0};
    struct buf out;
    int rc = charsmap_create(&m, table, size, &why);
    if (rc && why.code != rc) abort();
    if (rc || utf8_valid(text, n) != n) {
        if (!rc) charsmap_destroy(m);
        return;
    }
    buf_init(&out, (size_t)1 << 28);
    charsmap_precompiled(m, &out, text, n);
    expect_valid(&out);
    for (int i = 0; i < 4; i++) {
        const struct charsmap_rules rules = {.map = m, .squeeze = i & 1};
        buf_reset(&out);
        charsmap_sentencepiece(&rules, i & 2, &out, text, n);
        expect_valid(&out);
    }
    buf_fini(&out);
    charsmap_destroy(m);
}

static void encode(const struct tokenizer *t, const char *text, size_t n)
{
    struct token_list list = {.max = 1 << 20};
    struct detok d;
    struct buf out;
    buf_init(&out, 1 << 24);
    int rc = tokenizer_encode(t, text, n, TOKENIZER_ADD_SPECIAL, &list);
    if (rc && rc != ERR_RANGE) abort();
    detok_init(&d, t, true);
    for (size_t i = 0; i < list.count; i++)
        detok_feed(&d, list.ids[i], &out);
    detok_flush(&d, &out);
    expect_valid(&out);
    buf_fini(&out);
    token_list_fini(&list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3) return 0;
    size_t n = data[1] | (size_t)data[2] << 8;
    const char *first = (const char *)data + 3;
    if (n > size - 3) n = size - 3;
    if (data[0] == 'c') {
        replace(first, n, first + n, size - 3 - n);
        return 0;
    }
    struct tokenizer *t = NULL;
    struct why why = {0};
    const struct tokenizer_text model = {first, n};
    const struct tokenizer_texts beside = {
        .config = {size - 3 > n ? first + n : NULL, size - 3 - n}};
    int rc = tokenizer_parse_model(&t, &model, &beside, &why);
    if (rc && why.code != rc) abort(); /* every refusal has a reason */
    if (!rc) {
        encode(t, first, size - 3);
        encode(t, "Hello  <s> [A] caf\xc3\xa9 \xef\xac\x81 ", 24);
    }
    tokenizer_destroy(t);
    return 0;
}
