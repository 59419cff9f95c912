/* tests/engine/letters.h - text for the toy: a tokenizer of bytes, stop strings
 * and grammars over it, and what a request must then yield. */
#ifndef BATON_TESTS_ENGINE_LETTERS_H
#define BATON_TESTS_ENGINE_LETTERS_H

#include "tests/engine/rig.h"
#include "tests/text/vocab.h"

#include "text/detok.h"

static inline struct tokenizer *letters(void)
{
    static struct vocab v;
    vocab_init(&v);
    assert_int_equal(vocab_add(&v, "<end>", TOKEN_CONTROL), TOY_END);
    v.spec.eos = TOY_END;
    return vocab_create(&v);
}

static inline void decode(const struct tokenizer *t, const int32_t *ids,
                          uint32_t n, bool flush, struct buf *out)
{
    struct detok d;
    buf_reset(out);
    detok_init(&d, t, true);
    for (uint32_t i = 0; i < n; i++)
        detok_feed(&d, ids[i], out);
    if (flush) detok_flush(&d, out);
    buf_puts(out, "");
}

/* The stop string that ends first, of those the one that starts first. */
static inline int find_stop(const struct sampling *p, const char *text,
                            size_t *at)
{
    for (size_t end = 1; end <= strlen(text); end++) {
        int best = -1;
        for (uint32_t i = 0; i < p->stop_count; i++) {
            size_t n = strlen(p->stops[i]);
            if (n <= end && memcmp(text + end - n, p->stops[i], n) == 0 &&
                (best < 0 || n > strlen(p->stops[best])))
                best = (int)i;
        }
        if (best < 0) continue;
        *at = end - strlen(p->stops[best]);
        return best;
    }
    return -1;
}

/* The text and end that tokens and stop strings must give. */
static inline void check_text(const struct tokenizer *t, const struct asked *a,
                              const struct seen *s)
{
    const struct sampling *p = &a->spec.sampling;
    int32_t want[512];
    enum finish_kind finish;
    uint32_t n = toy_expect(&a->spec, want, &finish), cut = 1;
    struct buf text;
    buf_init(&text, 1 << 16);
    int stop = -1;
    size_t at = 0;
    for (; cut < n && stop < 0; cut++) {
        decode(t, want, cut, false, &text);
        stop = find_stop(p, text.data, &at);
    }
    if (stop >= 0) {
        n = cut - 1;
        finish = FINISH_STOP_TEXT;
        assert_string_equal(s->note, p->stops[stop]);
        decode(t, want, n, p->no_stop_trim, &text);
        if (!p->no_stop_trim) text.data[text.len = at] = 0;
    } else {
        bool trim = finish == FINISH_STOP_TOKEN && !p->no_stop_trim;
        decode(t, want, n - trim, true, &text);
    }
    assert_int_equal(s->count, n);
    assert_memory_equal(s->tokens, want, n * sizeof *want);
    assert_int_equal(s->finish.kind, finish);
    assert_string_equal(s->text.data ? s->text.data : "", text.data);
    buf_fini(&text);
}

static const char *const stops[] = {"ab", "bca", "a\xc3\xa9", "dd", "e"};

static inline void ask_with_stops(struct asked *a, uint64_t *seed)
{
    asked_random(a, 60, 60, seed);
    struct sampling *p = &a->spec.sampling;
    p->stops = stops + rng_next(seed) % 3;
    p->stop_count = (uint32_t)(rng_next(seed) % 4);
    p->stop_id_count = 0;
    p->bias_count = 0;
    p->no_stop_trim = rng_next(seed) % 4 == 0;
}

/* Grammars for the tokenizer of letters. */
static inline struct grammar *some_grammar(struct grammars *all, uint64_t i)
{
    static const struct {
        enum grammar_kind kind;
        const char *text;
    } list[] = {
        {GRAMMAR_REGEX, "(ab|c[d\xc3\xa9]){3,9}"},
        {GRAMMAR_REGEX, "[a-z]+( [a-z]+){0,40}"},
        {GRAMMAR_JSON_SCHEMA, "{\"type\": \"object\"}"},
        {GRAMMAR_JSON_SCHEMA,
         "{\"type\": \"array\", \"items\": {\"enum\": [true, 12]}}"},
    };
    struct grammar *g;
    struct why why = {0};
    const char *text = list[i % 4].text;
    if (grammars_get(all, list[i % 4].kind, text, strlen(text), &g, &why))
        fail_msg("%s", why.text);
    return g;
}

#endif
