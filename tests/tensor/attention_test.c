/* op_attention on every instruction set: close to "ref"; the same bits for a
 * prompt in one chunk, in several, or token by token, beside others or
 * alone, whatever the page size and the number of threads. */
#include "tests/tensor/ops_help.h"

/* One sequence of n tokens in a cache of its own with shuffled pages. */
struct cache {
    size_t n, heads, d;
    uint32_t window;
    struct op_kv kv;
    uint32_t *pages;
    float *q, *k, *v;        /* [n, heads, d], [n, g, d] */
    const struct turn *turn; /* of q; NULL: none */
};

static struct cache cache_make(size_t n, size_t heads, size_t g, size_t d,
                               enum dtype type, uint32_t page_tokens,
                               uint64_t *seed)
{
    struct cache c = {.n = n, .heads = heads, .d = d};
    size_t page_count = (n + page_tokens - 1) / page_tokens;
    size_t bytes =
        (page_count + 1) * page_tokens * op_kv_token_bytes(type, g, d);
    c.kv = (struct op_kv){mem_must(bytes, 1), mem_must(bytes, 1), type,
                          page_tokens,        (uint32_t)g,        (uint32_t)d};
    c.pages = mem_must(page_count, sizeof *c.pages);
    for (size_t i = 0; i < page_count; i++) {
        size_t j = rng_next(seed) % (i + 1);
        c.pages[i] = c.pages[j];
        c.pages[j] = (uint32_t)i + 1;
    }
    c.q = random_floats(n * heads * d, seed);
    c.k = random_floats(n * g * d, seed);
    c.v = random_floats(n * g * d, seed);
    return c;
}

static void cache_fini(struct cache *c)
{
    mem_free(c->kv.k), mem_free(c->kv.v), mem_free(c->pages);
    mem_free(c->q), mem_free(c->k), mem_free(c->v);
}

/* Writes and attends tokens [from, from + rows) of the sequence. */
static void step(struct device *dev, struct cache *c, size_t from, size_t rows,
                 float *out)
{
    size_t g = c->kv.kv_heads, row = c->heads * c->d;
    struct op_seq seq = {0, (uint32_t)rows, (uint32_t)(from + rows), c->pages};
    op_kv_write(dev, &c->kv, &seq, 1, c->k + from * g * c->d,
                c->v + from * g * c->d, NULL);
    struct turn turn = {0};
    if (c->turn) {
        turn = *c->turn;
        turn.positions += from;
    }
    const struct query q = {c->q + from * row, c->turn ? &turn : NULL, c->heads,
                            1 / sqrtf((float)c->d), c->window};
    op_attention(dev, out + from * row, &q, &c->kv, &seq, 1);
}

static const enum dtype types[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_KV8};
enum { TYPES = sizeof types / sizeof *types };

static const struct shape {
    size_t n, heads, g, d;
    enum dtype type;
    uint32_t page_tokens, window;
} shapes[] = {
    {1, 4, 4, 64, DTYPE_F32, 1, 0},      {37, 9, 3, 64, DTYPE_F16, 16, 0},
    {70, 4, 1, 80, DTYPE_BF16, 8, 0},    {301, 8, 1, 96, DTYPE_F16, 64, 0},
    {530, 2, 1, 128, DTYPE_BF16, 32, 0}, {260, 3, 3, 20, DTYPE_F32, 4, 0},
    {97, 16, 2, 16, DTYPE_F16, 2, 0},    {258, 2, 2, 256, DTYPE_F32, 64, 0},
    {90, 4, 2, 64, DTYPE_BF16, 16, 1},   {310, 9, 3, 64, DTYPE_F16, 16, 37},
    {700, 8, 1, 80, DTYPE_F32, 8, 300},  {530, 2, 2, 20, DTYPE_F16, 4, 256},
    {290, 16, 8, 64, DTYPE_BF16, 16, 0}, {75, 3, 1, 25, DTYPE_BF16, 8, 0},
    {530, 4, 2, 128, DTYPE_KV8, 16, 0},  {280, 30, 3, 32, DTYPE_KV8, 8, 0},
    {600, 6, 3, 96, DTYPE_KV8, 16, 299}, {77, 2, 2, 21, DTYPE_KV8, 4, 33},
    {280, 9, 3, 64, DTYPE_BF16, 16, 0},  {275, 6, 2, 64, DTYPE_KV8, 16, 41},
    {270, 14, 2, 64, DTYPE_BF16, 16, 0}, {261, 10, 2, 128, DTYPE_KV8, 8, 30},
    {262, 28, 4, 32, DTYPE_BF16, 16, 9},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* Too much for an emulator. */
static bool is_large(const struct shape *s)
{
    return left_out(1) && s->n * s->n * s->heads * s->d > 40000000;
}

/* What the contract allows beside 1e-5 of the result. */
static double tolerance(const struct cache *c, const char *isa)
{
    bool pairs = strstr(isa, "bf16") || strstr(isa, "int8") ||
                 strstr(isa, "i8mm"); /* instructions that take them */
    bool rounds =
        pairs && (c->kv.type == DTYPE_BF16 || c->kv.type == DTYPE_KV8);
    return (rounds ? 4.02e-3 : 2e-5) *
           largest(c->v, c->n * c->kv.kv_heads * c->d);
}

static struct cache shape_cache(const struct shape *s, uint64_t *seed)
{
    struct cache c =
        cache_make(s->n, s->heads, s->g, s->d, s->type, s->page_tokens, seed);
    c.window = s->window;
    return c;
}

static void attention_is_close_to_ref(void **state)
{
    (void)state;
    struct device *ref = open_ref();
    for (size_t s = 0; s < SHAPES; s++) {
        if (is_large(&shapes[s])) continue;
        uint64_t seed = 20 + s;
        struct cache c = shape_cache(&shapes[s], &seed);
        size_t n = c.n * c.heads * c.d;
        float *want = floats(n), *got = floats(n);
        step(ref, &c, 0, c.n, want);
        for (int i = 0; i < ISAS; i++) {
            struct device *cpu = open_cpu(i, 2);
            if (!cpu) continue;
            step(cpu, &c, 0, c.n, got);
            check_close(got, want, n, tolerance(&c, isas[i].isa), 1e-5);
            device_close(cpu);
        }
        cache_fini(&c);
        mem_free(want), mem_free(got);
    }
    device_close(ref);
}

static void chunks_and_threads_do_not_change_bits(void **state)
{
    (void)state;
    for (int i = 0; i < ISAS; i++) {
        struct device *one = open_cpu(i, 1);
        if (!one) continue;
        /* In turns: two workers share a token's heads otherwise than three. */
        struct device *more[] = {open_cpu(i, 2), open_cpu(i, 3)};
        for (size_t s = 0; s < SHAPES; s++) {
            if (is_large(&shapes[s])) continue;
            uint64_t seed = 40 + s;
            struct cache c = shape_cache(&shapes[s], &seed);
            size_t n = c.n * c.heads * c.d;
            float *want = floats(n), *got = floats(n);
            step(one, &c, 0, c.n, want);
            for (int split = 0; split < 3; split++) {
                memset(got, 0, n * sizeof *got);
                for (size_t t = 0, rows; t < c.n; t += rows) {
                    rows = split == 0 ? 1 : 1 + rng_next(&seed) % 60;
                    if (split == 2) rows = c.n;
                    if (rows > c.n - t) rows = c.n - t;
                    step(more[(t + (size_t)split + 1) % 2], &c, t, rows, got);
                }
                if (memcmp(got, want, n * sizeof *got) != 0)
                    fail_msg("%s: shape %zu split %d", device_describe(one), s,
                             split);
            }
            cache_fini(&c);
            mem_free(want), mem_free(got);
        }
        device_close(one);
        device_close(more[0]);
        device_close(more[1]);
    }
}

/* A batch of sequences in one cache: prefill, decode and nothing to do. */
static void a_batch_gives_what_each_alone_gives(void **state)
{
    (void)state;
    enum { G = 2, HEADS = 6, D = 64, PT = 16, PAGES = 60, SEQS = 5 };
    static const uint32_t lens[SEQS] = {40, 290, 1, 17, 300};
    static const uint32_t rows[SEQS] = {40, 1, 1, 0, 33};
    uint64_t seed = 60;
    uint32_t order[PAGES], next = 0;
    for (uint32_t i = 0; i < PAGES; i++) {
        size_t j = rng_next(&seed) % (i + 1);
        order[i] = order[j];
        order[j] = i;
    }
    struct op_seq seqs[SEQS];
    uint32_t first = 0;
    for (int s = 0; s < SEQS; s++) {
        seqs[s] = (struct op_seq){first, rows[s], lens[s], order + next};
        next += (lens[s] + PT - 1) / PT;
        first += rows[s];
    }
    assert_true(next <= PAGES);
    float *k = random_floats(PAGES * PT * G * D, &seed);
    float *v = random_floats(PAGES * PT * G * D, &seed);
    float *q = random_floats(first * HEADS * D, &seed);
    struct op_seq whole = {0, PAGES * PT, PAGES * PT, order};
    float *all = floats(first * HEADS * D), *one = floats(first * HEADS * D);
    for (int i = 0; i < TYPES * ISAS; i++) {
        struct device *cpu = open_cpu(i / TYPES, 2);
        if (!cpu) continue;
        struct op_kv kv = {floats(PAGES * PT * G * D),
                           floats(PAGES * PT * G * D),
                           types[i % TYPES],
                           PT,
                           G,
                           D};
        op_kv_write(cpu, &kv, &whole, 1, k, v, NULL);
        for (uint32_t window = 0; window < 60; window += 19) {
            if (left_out(window)) continue;
            const struct query query = {q, NULL, HEADS, 0.125f, window};
            op_attention(cpu, all, &query, &kv, seqs, SEQS);
            for (int s = 0; s < SEQS; s++)
                op_attention(cpu, one, &query, &kv, &seqs[s], 1);
            assert_memory_equal(all, one, first * HEADS * D * sizeof *all);
        }
        mem_free(kv.k), mem_free(kv.v);
        device_close(cpu);
    }
    mem_free(k), mem_free(v), mem_free(q), mem_free(all), mem_free(one);
}

/* Tokens that a row does not see may hold anything, also in its own chunk;
 * one that it sees makes it (and later rows) no number. */
static void rows_see_no_later_token(void **state)
{
    (void)state;
    for (int i = 0; i < ISAS; i++) {
        struct device *cpu = open_cpu(i, 2);
        if (!cpu) continue;
        for (int kind = 2; kind < 2 * TYPES; kind++) {
            if (left_out((size_t)kind - 2)) continue;
            uint64_t seed = 70;
            struct cache c =
                cache_make(300, 4, 2, 64, types[kind / 2], 16, &seed);
            int in_v = kind % 2;
            size_t row = c.heads * c.d, n = c.n * row, bad = 271;
            float *clean = floats(n), *got = floats(n);
            step(cpu, &c, 0, c.n, clean);
            (in_v ? c.v : c.k)[bad * 2 * c.d + 3] = NAN; /* kv head 0 */
            step(cpu, &c, 0, c.n, got);
            assert_memory_equal(got, clean, bad * row * sizeof *got);
            for (size_t t = bad; t < c.n; t++) {
                assert_true(isnan(got[t * row + 3]));
                assert_memory_equal(got + t * row + 2 * c.d,
                                    clean + t * row + 2 * c.d,
                                    2 * c.d * sizeof *got);
            }
            cache_fini(&c);
            mem_free(clean), mem_free(got);
        }
        device_close(cpu);
    }
}

/* A token that fell out of a row's window may hold anything. */
static void rows_see_no_token_before_their_window(void **state)
{
    (void)state;
    enum { WINDOW = 70, BAD = 271 };
    for (int i = 0; i < ISAS; i++) {
        struct device *cpu = open_cpu(i, 2);
        if (!cpu) continue;
        for (int kind = 2; kind < 2 * TYPES; kind++) {
            if (left_out((size_t)kind - 2)) continue;
            uint64_t seed = 75;
            struct cache c =
                cache_make(400, 4, 2, 64, types[kind / 2], 16, &seed);
            int in_v = kind % 2;
            c.window = WINDOW;
            size_t row = c.heads * c.d, n = c.n * row;
            float *clean = floats(n), *got = floats(n);
            step(cpu, &c, 0, c.n, clean);
            (in_v ? c.v : c.k)[BAD * 2 * c.d + 3] = NAN; /* kv head 0 */
            for (size_t t = 0; t < c.n; t += 57)
                step(cpu, &c, t, c.n - t < 57 ? c.n - t : 57, got);
            for (size_t t = 0; t < c.n; t++)
                if (t < BAD || t >= BAD + WINDOW)
                    assert_memory_equal(got + t * row, clean + t * row,
                                        row * sizeof *got);
                else
                    assert_true(isnan(got[t * row + 3]));
            cache_fini(&c);
            mem_free(clean), mem_free(got);
        }
        device_close(cpu);
    }
}

/* Scores far beyond what exp can take, and of -inf in a whole segment. */
static void large_scores_are_fine(void **state)
{
    (void)state;
    struct device *ref = open_ref();
    uint64_t seed = 80;
    struct cache c = cache_make(600, 1, 1, 16, DTYPE_F32, 32, &seed);
    size_t n = c.n * c.d;
    float *want = floats(n), *got = floats(n);
    for (size_t t = 0; t < c.n; t++) {
        c.q[t * 16] = 100;
        c.k[t * 16] = t < 300 ? -INFINITY : (float)(t % 50) * 30;
    }
    step(ref, &c, 0, c.n, want);
    for (int i = 0; i < ISAS; i++) {
        struct device *cpu = open_cpu(i, 2);
        if (!cpu) continue;
        step(cpu, &c, 0, c.n, got);
        for (size_t t = 0; t < 300; t++) /* all scores -inf: 0 / 0 */
            assert_true(isnan(got[t * 16]) && isnan(want[t * 16]));
        /* float32 scores of 40 000 are only good to 0.4 % after exp */
        check_close(got + 300 * 16, want + 300 * 16, 300 * 16, 1e-2, 1e-2);
        device_close(cpu);
    }
    cache_fini(&c);
    mem_free(want), mem_free(got);
    device_close(ref);
}

/* q [n, heads, d] turned before, as k is on its way into a cache. */
static void turned_before(struct device *dev, struct cache *c)
{
    size_t n = c->n * c->heads * c->d;
    float *q = floats(n), *v = floats(n);
    uint32_t *pages = mem_must(c->n, sizeof *pages);
    for (uint32_t t = 0; t < c->n; t++)
        pages[t] = t;
    const struct op_kv kv = {
        q, v, DTYPE_F32, 1, (uint32_t)c->heads, (uint32_t)c->d};
    const struct op_seq seq = {0, (uint32_t)c->n, (uint32_t)c->n, pages};
    op_kv_write(dev, &kv, &seq, 1, c->q, v, c->turn);
    memcpy(c->q, q, n * sizeof *q);
    c->turn = NULL;
    mem_free(q), mem_free(v), mem_free(pages);
}

/* Of n rows the last ones once more, token by token. */
static void turned_alike(struct device *dev, size_t n, enum dtype type,
                         const struct turn *turn)
{
    enum { D = 64, HEADS = 6 };
    uint64_t seed = 90;
    struct cache c = cache_make(n, HEADS, 2, D, type, 16, &seed);
    float *got = floats(n * HEADS * D), *want = floats(n * HEADS * D);
    c.turn = turn;
    step(dev, &c, 0, n, got);
    for (size_t t = n - 30; t < n; t++)
        step(dev, &c, t, 1, got);
    turned_before(dev, &c);
    step(dev, &c, 0, n, want);
    assert_memory_equal(got, want, n * HEADS * D * sizeof *got);
    cache_fini(&c);
    mem_free(got), mem_free(want);
}

static void q_is_turned_on_the_way(void **state)
{
    (void)state;
    enum { N = 530, D = 64 };
    uint64_t seed = 91;
    float freqs[D / 2], *gain = random_floats(D, &seed);
    uint32_t positions[N];
    for (int i = 0; i < D / 2; i++)
        freqs[i] = (float)pow(1e4, -2.0 * i / D);
    for (uint32_t i = 0; i < N; i++)
        positions[i] = i + 5;
    const struct rope rope = {freqs, D, 1};
    for (int i = -1; i < ISAS; i++) {
        struct device *dev = i < 0 ? open_ref() : open_cpu(i, 2);
        if (!dev) continue;
        for (size_t k = 0; k < 2 * TYPES; k++) {
            struct turn turn = {k % 2 ? gain : NULL, 1e-6f, &rope, positions};
            if (!left_out(k + 1))
                turned_alike(dev, i < 0 ? 40 : N, types[k / 2], &turn);
        }
        device_close(dev);
    }
    mem_free(gain);
}

/* More rows than a tile has, beside others: what one made ready of K and V
 * serves the next, and nobody else. */
static void kv_shared(struct device *dev, enum dtype type)
{
    enum { N = 620, D = 64, HEADS = 8, G = 2, SEQS = 3 };
    uint64_t seed = 95;
    struct cache c = cache_make(N, HEADS, G, D, type, 16, &seed);
    size_t row = HEADS * D, n = N * row;
    float *want = floats(n), *got = floats(SEQS * n), *q = floats(SEQS * n);
    for (size_t t = 0; t < N; t += 31)
        step(dev, &c, t, N - t < 31 ? N - t : 31, want);
    struct op_seq seqs[SEQS];
    for (uint32_t s = 0; s < SEQS; s++) {
        seqs[s] = (struct op_seq){s * N, N - s, N - s, c.pages};
        memcpy(q + s * n, c.q, n * sizeof *q);
    }
    const struct query query = {q, NULL, HEADS, 1 / sqrtf((float)D), 0};
    op_attention(dev, got, &query, &c.kv, seqs, SEQS);
    for (uint32_t s = 0; s < SEQS; s++)
        assert_memory_equal(got + s * n, want, (N - s) * row * sizeof *got);
    cache_fini(&c);
    mem_free(want), mem_free(got), mem_free(q);
}

static void tiles_of_a_head_share_its_kv(void **state)
{
    (void)state;
    static const int threads[] = {2, 5, 9}; /* the more, the smaller tiles */
    for (int i = 0; i < ISAS; i++)
        for (size_t n = 0; n < sizeof threads / sizeof *threads; n++) {
            struct device *dev = open_cpu(i, threads[n]);
            if (!dev) continue;
            for (size_t k = 0; k < TYPES; k++) /* under an emulator BF16 */
                if (!left_out(k + 6) && (n == 0 || types[k] == DTYPE_BF16))
                    kv_shared(dev, types[k]);
            device_close(dev);
        }
}

TESTS(T(attention_is_close_to_ref), T(chunks_and_threads_do_not_change_bits),
      T(a_batch_gives_what_each_alone_gives), T(rows_see_no_later_token),
      T(rows_see_no_token_before_their_window), T(large_scores_are_fine),
      T(q_is_turned_on_the_way), T(tiles_of_a_head_share_its_kv))
