/* What long pieces become against what merging makes of them, on vocabularies
 * of all sorts: merges in any order, tokens that no merge reaches. */
#include "tests/test.h"

#include "base/clock.h"
#include "base/mem.h"
#include "text/bpe.h"
#include "text/utf8.h"

enum { TOKENS = 700, LETTERS = 3, PIECE = 300 };

struct two {
    struct lexicon *l;
    struct bpe *fast, *plain;
};

static void spell(char *out, unsigned byte)
{
    unsigned other = 256;
    for (unsigned b = 0; b < byte; b++)
        other += !((b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) ||
                   b >= 0xae);
    bool plain = (byte >= 0x21 && byte <= 0x7e) ||
                 (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    out[utf8_put(out, plain ? byte : other)] = 0;
}

/* Words of a few letters, each of two that are there; a part of them is named
 * by no merge. mixed: merges come in any order. */
static void make(struct two *t, uint64_t *seed, size_t tokens, bool mixed)
{
    static char words[TOKENS][64];
    static uint32_t left[TOKENS], right[TOKENS], order[TOKENS];
    struct why why = {0};
    size_t count = LETTERS, merges = 0;
    assert_int_equal(
        lexicon_create(&t->l, LEXICON_BYTES, 256 + TOKENS, 1 << 17, &why), 0);
    for (unsigned b = 0; b < 256; b++) {
        char text[8];
        spell(text, b);
        lexicon_add(t->l, b, text, strlen(text), true, &why);
    }
    for (size_t i = 0; i < LETTERS; i++)
        snprintf(words[i], sizeof words[i], "%c", (int)('a' + i));
    for (int tries = 0; count < tokens && tries < 20000; tries++) {
        uint32_t l = (uint32_t)(rng_next(seed) % count);
        uint32_t r = (uint32_t)(rng_next(seed) % count);
        if (strlen(words[l]) + strlen(words[r]) > 31) continue;
        char word[sizeof words[0]];
        snprintf(word, sizeof word, "%.31s%.31s", words[l], words[r]);
        memcpy(words[count], word, sizeof word);
        if (lexicon_find(t->l, word, strlen(word)) >= 0) continue;
        lexicon_add(t->l, (uint32_t)(256 + count), word, strlen(word), true,
                    &why);
        if (rng_next(seed) % 10) {
            left[merges] = l;
            right[merges] = r;
            order[merges] = (uint32_t)merges;
            merges++;
        }
        count++;
    }
    for (size_t i = merges; mixed && i-- > 1;) {
        size_t k = rng_next(seed) % (i + 1);
        uint32_t was = order[i];
        order[i] = order[k];
        order[k] = was;
    }
    struct bpe **both[] = {&t->fast, &t->plain};
    for (size_t k = 0; k < 2; k++) {
        assert_int_equal(bpe_create(both[k], t->l, merges, &why), 0);
        for (size_t i = 0; i < merges; i++) {
            const char *l = words[left[order[i]]], *r = words[right[order[i]]];
            assert_int_equal(
                bpe_add_merge(*both[k], l, strlen(l), r, strlen(r), &why), 0);
        }
        bpe_set_plain(*both[k], k == 1);
        assert_int_equal(bpe_finish(*both[k], &why), 0);
    }
}

static void unmake(struct two *t)
{
    bpe_destroy(t->fast);
    bpe_destroy(t->plain);
    lexicon_destroy(t->l);
}

static void compare(const struct two *t, struct bpe_scratch *s,
                    const char *piece, size_t n)
{
    static int32_t fast[(1 << 17) + BPE_SPARE], plain[(1 << 17) + BPE_SPARE];
    const struct pieces one = {piece, &n, 1, piece + n};
    int64_t got = bpe_merge(t->fast, &s[0], &one, fast);
    int64_t want = bpe_merge(t->plain, &s[1], &one, plain);
    assert_int_equal(got, want);
    if (memcmp(fast, plain, (size_t)want * sizeof *fast) != 0)
        fail_msg("\"%.*s\" differs", (int)n, piece);
}

static void begin(struct bpe_scratch s[2])
{
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(bpe_scratch_init(&s[i], 1 << 14), 0);
}

static void long_pieces_are_what_merging_makes_of_them(void **state)
{
    (void)state;
    uint64_t seed = 5;
    for (int round = 0; round < 60; round++) {
        struct two t;
        struct bpe_scratch s[2];
        make(&t, &seed, 6 + rng_next(&seed) % (TOKENS - 6), round % 2);
        begin(s);
        for (int i = 0; i < 300; i++) {
            char piece[PIECE];
            size_t n = 1 + rng_next(&seed) % PIECE;
            unsigned letters = 1 + (unsigned)(rng_next(&seed) % LETTERS);
            for (size_t k = 0; k < n; k++)
                piece[k] = (char)(rng_next(&seed) % 50
                                      ? 'a' + rng_next(&seed) % letters
                                      : rng_next(&seed) % 256);
            compare(&t, s, piece, n);
        }
        bpe_scratch_fini(&s[0]);
        bpe_scratch_fini(&s[1]);
        unmake(&t);
    }
}

/* Many pieces at once, of words that come again and again, against each piece
 * alone, merged by who has seen nothing before. */
static void repeated_pieces_become_what_they_became(void **state)
{
    (void)state;
    enum { PIECES = 40, LONGEST = 18 };
    uint64_t seed = 11;
    for (int round = 0; round < 100; round++) {
        struct two t;
        struct bpe_scratch s[2];
        make(&t, &seed, 6 + rng_next(&seed) % 60, round % 2);
        assert_int_equal(bpe_scratch_init(&s[0], round % 3 * 5000), 0);
        for (int i = 0; i < 40; i++) {
            char text[PIECES * LONGEST];
            size_t lens[PIECES], n = 0, at = 0;
            int32_t ids[sizeof text + BPE_SPARE], one[LONGEST + BPE_SPARE];
            for (size_t k = 0; k < PIECES; k++) {
                lens[k] = 1 + rng_next(&seed) % LONGEST;
                uint64_t word = rng_next(&seed) % 20;
                for (size_t c = 0; c < lens[k]; c++)
                    text[n++] = (char)('a' + rng_next(&word) % LETTERS);
            }
            const struct pieces all = {text, lens, PIECES, text + n};
            int64_t got = bpe_merge(t.fast, &s[0], &all, ids);
            int32_t *next = ids;
            for (size_t k = 0; k < PIECES; at += lens[k++]) {
                const struct pieces piece = {text + at, &lens[k], 1,
                                             text + at + lens[k]};
                assert_int_equal(bpe_scratch_init(&s[1], 0), 0);
                int64_t count = bpe_merge(t.plain, &s[1], &piece, one);
                bpe_scratch_fini(&s[1]);
                assert_memory_equal(next, one, (size_t)count * sizeof *one);
                next += count;
            }
            assert_int_equal(got, next - ids);
        }
        bpe_scratch_fini(&s[0]);
        unmake(&t);
    }
}

/* Steps of both: the search may not take more than its bound over merging. */
static void the_search_gives_up_in_time(void **state)
{
    (void)state;
    enum { LONG = 100000 };
    uint64_t seed = 9;
    char *piece = mem_must(LONG, 1);
    for (int round = 0; round < 16; round++) {
        struct two t;
        struct bpe_scratch s[2];
        make(&t, &seed, 40 + rng_next(&seed) % 200, round % 2);
        begin(s);
        size_t period = 1 + rng_next(&seed) % 7;
        for (size_t k = 0; k < LONG; k++)
            piece[k] = k < period ? (char)('a' + rng_next(&seed) % LETTERS)
                                  : piece[k - period];
        compare(&t, s, piece, LONG);
        assert_true(s[0].work <= s[1].work + 20 * (uint64_t)LONG + 50000);
        bpe_scratch_fini(&s[0]);
        bpe_scratch_fini(&s[1]);
        unmake(&t);
    }
    mem_free(piece);
}

TESTS(T(long_pieces_are_what_merging_makes_of_them),
      T(repeated_pieces_become_what_they_became),
      T(the_search_gives_up_in_time))
