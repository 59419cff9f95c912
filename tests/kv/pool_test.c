#include "tests/test.h"

#include "base/clock.h"
#include "base/mem.h"
#include "kv/pool.h"

enum { PAGES = 9000 }; /* more than one summary word */

static const struct kv_shape shape = {2, 3, 8, 16, DTYPE_F16};
static char slab[2 * 2 * 3 * 8 * 16 * 2 * 40]; /* 40 pages of it */

static struct kv_pool *pool_of(uint32_t pages, bool (*may_grow)(void *, size_t),
                               void *arg)
{
    struct kv_pool *pool;
    struct kv_pool_options o = {shape, pages, slab, may_grow, arg};
    assert_int_equal(kv_pool_create(&pool, &o, NULL), 0);
    return pool;
}

static void shapes_have_sizes_or_none(void **state)
{
    (void)state;
    assert_int_equal(kv_shape_page_bytes(&shape), 3 * 8 * 16 * 2);
    assert_int_equal(kv_shape_slab_bytes(&shape, 40), sizeof slab);
    assert_int_equal(kv_shape_token_bytes(&shape), 2 * 2 * 3 * 8 * 2);
    /* a head's bytes and its float32 scale */
    struct kv_shape int8 = {2, 3, 8, 16, DTYPE_KV8};
    assert_int_equal(kv_shape_page_bytes(&int8), 16 * 3 * (8 + 4));
    const struct kv_shape bad[] = {
        {0, 3, 8, 16, DTYPE_F16},
        {2, 0, 8, 16, DTYPE_F16},
        {2, 3, 0, 16, DTYPE_F16},
        {2, 3, 8, 0, DTYPE_F16},
        {2, 3, 8, 12, DTYPE_F16},
        {2, 3, 8, 16, DTYPE_Q8_0},
        {UINT32_MAX, UINT32_MAX, UINT32_MAX, 1u << 31, DTYPE_F32},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct kv_pool *pool;
        struct why why = {0};
        struct kv_pool_options o = {bad[i], 40, slab, NULL, NULL};
        assert_int_equal(kv_shape_slab_bytes(&bad[i], 40), 0);
        assert_int_equal(kv_shape_token_bytes(&bad[i]), 0);
        assert_int_equal(kv_pool_create(&pool, &o, &why), ERR_INVALID);
        assert_non_null(strstr(why.text, "shape"));
        assert_null(pool);
    }
    struct kv_pool *pool;
    struct kv_pool_options o = {shape, 1, slab, NULL, NULL};
    assert_int_equal(kv_pool_create(&pool, &o, NULL), ERR_INVALID);
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    size_t before = mem_live();
    struct kv_pool *pool = NULL;
    struct kv_pool_options o = {shape, 40, slab, NULL, NULL};
    size_t tries = 0;
    while (!pool && tries < 100) {
        struct why why = {0};
        mem_fail_at(++tries);
        int rc = kv_pool_create(&pool, &o, &why);
        assert_int_equal(rc, pool ? 0 : ERR_NOMEM);
        assert_int_equal(why.code, rc);
        assert_true(pool || mem_live() == before);
    }
    mem_fail_at(0);
    assert_int_equal(tries, 4); /* three can fail */
    kv_pool_destroy(pool);
    assert_int_equal(mem_live(), before);
}

static void buffers_are_k_of_all_layers_then_v(void **state)
{
    (void)state;
    struct kv_pool *pool = pool_of(40, NULL, NULL);
    size_t bytes = kv_shape_page_bytes(&shape) * 40;
    assert_int_equal(kv_pool_buffer_count(pool), 4);
    for (uint32_t b = 0; b < 4; b++)
        assert_ptr_equal(kv_pool_buffer(pool, b), slab + b * bytes);
    struct op_kv kv = kv_pool_layer(pool, 1);
    assert_ptr_equal(kv.k, slab + bytes);
    assert_ptr_equal(kv.v, slab + 3 * bytes);
    assert_int_equal(kv.page_tokens, 16);
    assert_int_equal(kv.kv_heads, 3);
    assert_int_equal(kv.head_dim, 8);
    assert_int_equal(kv.type, DTYPE_F16);
    kv_pool_destroy(pool);
}

static void take_is_all_or_nothing_and_lowest_first(void **state)
{
    (void)state;
    struct kv_pool *pool = pool_of(10, NULL, NULL);
    kv_page p[10];
    assert_int_equal(kv_pool_take(pool, 10, p), ERR_AGAIN);
    assert_int_equal(kv_pool_free_count(pool), 9);
    assert_int_equal(kv_pool_take(pool, 6, p), 0);
    for (kv_page i = 0; i < 6; i++)
        assert_int_equal(p[i], i + 1); /* never page 0 */
    kv_pool_drop(pool, 5);
    kv_pool_drop(pool, 2);
    assert_int_equal(kv_pool_take(pool, 6, p), ERR_AGAIN);
    assert_int_equal(kv_pool_take(pool, 4, p), 0);
    const kv_page want[] = {2, 5, 7, 8}; /* used ones before new ones */
    assert_memory_equal(p, want, sizeof want);
    assert_int_equal(kv_pool_free_count(pool), 1);
    kv_pool_destroy(pool);
}

struct budget {
    size_t bytes;
    int asked;
};

static bool within(void *arg, size_t bytes)
{
    struct budget *b = arg;
    b->asked++;
    if (bytes > b->bytes) return false;
    b->bytes -= bytes;
    return true;
}

static void growth_is_asked_for_once_per_new_page(void **state)
{
    (void)state;
    size_t page = kv_shape_page_bytes(&shape) * 4;
    struct budget b = {.bytes = 5 * page};
    struct kv_pool *pool = pool_of(40, within, &b);
    kv_page p[8];
    assert_int_equal(kv_pool_take(pool, 3, p), 0);
    assert_int_equal(b.bytes, 2 * page);
    kv_pool_drop(pool, p[1]);
    assert_int_equal(kv_pool_take(pool, 1, p + 1), 0);
    assert_int_equal(b.asked, 1); /* that one was touched before */
    assert_int_equal(kv_pool_take(pool, 3, p + 3), ERR_AGAIN);
    assert_int_equal(kv_pool_take(pool, 2, p + 3), 0);
    assert_int_equal(b.bytes, 0);
    kv_pool_drop(pool, p[0]);
    assert_int_equal(kv_pool_take(pool, 1, p), 0);
    kv_pool_destroy(pool);
}

/* Takes, references and drops at random, beside an array of counts. */
static void random_operations_agree_with_counts(void **state)
{
    (void)state;
    struct kv_pool *pool = pool_of(PAGES, NULL, NULL);
    static uint32_t counts[PAGES];
    memset(counts, 0, sizeof counts);
    uint32_t free_pages = PAGES - 1;
    uint64_t seed = 3;
    static kv_page got[600];
    for (int i = 0; i < 40000; i++) {
        kv_page at = 1 + (kv_page)(rng_next(&seed) % (PAGES - 1));
        uint32_t n = (uint32_t)(rng_next(&seed) % 600);
        switch (rng_next(&seed) % 8) {
        case 0:
            if (n > free_pages) {
                assert_int_equal(kv_pool_take(pool, n, got), ERR_AGAIN);
                break;
            }
            assert_int_equal(kv_pool_take(pool, n, got), 0);
            for (uint32_t j = 0; j < n; j++) {
                assert_in_range(got[j], 1, PAGES - 1);
                assert_int_equal(counts[got[j]]++, 0);
                assert_true(j == 0 || got[j] > got[j - 1]);
            }
            free_pages -= n;
            break;
        case 1:
            if (counts[at]) kv_pool_ref(pool, at), counts[at]++;
            break;
        default:
            for (uint32_t j = 0; j < n / 4; j++) {
                at = at + 1 < PAGES ? at + 1 : 1;
                if (!counts[at]) continue;
                kv_pool_drop(pool, at);
                free_pages += --counts[at] == 0;
            }
        }
        assert_int_equal(kv_pool_free_count(pool), free_pages);
    }
    for (kv_page p = 1; p < PAGES; p++)
        assert_int_equal(kv_pool_refs(pool, p), counts[p]);
    kv_pool_destroy(pool);
}

TESTS(T(shapes_have_sizes_or_none), T(create_survives_every_failed_allocation),
      T(buffers_are_k_of_all_layers_then_v),
      T(take_is_all_or_nothing_and_lowest_first),
      T(growth_is_asked_for_once_per_new_page),
      T(random_operations_agree_with_counts))
