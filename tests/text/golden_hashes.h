/* tests/text/golden_hashes.h - a tokenizer against NAME.hashes, which
 * tools/golden/tok_golden.py made with Hugging Face's tokenizers: the ids of
 * 20 000 texts and two documents of 1 MB, and those ids decoded again. Where a
 * hash differs, tools/golden/tok_diff.py NAME shows the ids. */
#ifndef BATON_TESTS_TEXT_GOLDEN_HASHES_H
#define BATON_TESTS_TEXT_GOLDEN_HASHES_H

#include "tests/text/golden_texts.h"
#include "text/detok.h"

/* The texts, made once for all tokenizers of a test. */
struct golden_all {
    struct buf bytes;
    size_t ends[GOLDEN_TEXTS + 8], count;
};

static inline void golden_all_make(struct golden_all *all)
{
    struct golden_texts g;
    buf_init(&all->bytes, (size_t)1 << 30);
    golden_texts_open(&g);
    for (all->count = 0; all->count < GOLDEN_TEXTS + 2; all->count++) {
        golden_text(&g, &all->bytes, all->count);
        all->ends[all->count] = all->bytes.len;
    }
    assert_false(all->bytes.failed);
    json_decref(g.words);
}

/* Under a sanitizer, ten times slower, every tenth block has to do. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { GOLDEN_STEP = 10 };
#else
enum { GOLDEN_STEP = 1 };
#endif

struct golden_pair {
    uint64_t ids, text;
};

/* Adds text i's ids, and what they decode to, to the hashes. */
static inline void golden_add(struct golden_pair *hash,
                              const struct tokenizer *t,
                              const struct golden_all *all, size_t i,
                              unsigned flags, struct token_list *list,
                              struct buf *back)
{
    size_t from = i ? all->ends[i - 1] : 0, n = all->ends[i] - from;
    struct detok d;
    list->count = 0;
    assert_int_equal(
        tokenizer_encode(t, all->bytes.data + from, n, flags, list), 0);
    hash->ids = golden_hash_ids(hash->ids, list->ids, list->count);
    buf_reset(back);
    detok_init(&d, t, false);
    for (size_t k = 0; k < list->count; k++) {
        size_t had = back->len;
        detok_feed(&d, list->ids[k], back);
        /* Never half a character. */
        assert_int_equal(utf8_valid(back->data + had, back->len - had),
                         back->len - had);
    }
    detok_flush(&d, back);
    hash->text = golden_hash_bytes(hash->text, back->data, back->len);
}

static inline void golden_expect_hashes(const struct tokenizer *t,
                                        const struct golden_all *all,
                                        unsigned flags, const char *name)
{
    char path[200], line[200];
    size_t first, count, seen = 0, block = 0;
    struct golden_pair want;
    struct token_list list = {0};
    struct buf back;
    buf_init(&back, (size_t)1 << 30);
    buf_puts(&back, "");
    snprintf(path, sizeof path, "tests/golden/tokenizer/%s.hashes", name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        struct golden_pair got = {GOLDEN_HASH_START, GOLDEN_HASH_START};
        assert_int_equal(sscanf(line, "%zu %zu %lx %lx", &first, &count,
                                &want.ids, &want.text),
                         4);
        assert_int_equal(first, seen);
        assert_true(first + count <= all->count);
        if (block++ % GOLDEN_STEP) {
            seen = first + count;
            continue;
        }
        for (; seen < first + count; seen++)
            golden_add(&got, t, all, seen, flags, &list, &back);
        if (got.ids != want.ids || got.text != want.text)
            fail_msg("%s: %s of texts %zu to %zu differ; see "
                     "tools/golden/tok_diff.py",
                     name, got.ids != want.ids ? "ids" : "decoded ids", first,
                     seen - 1);
    }
    assert_int_equal(seen, all->count);
    fclose(f);
    buf_fini(&back);
    token_list_fini(&list);
}

#endif
