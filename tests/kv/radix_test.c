#include "tests/test.h"

#include "base/clock.h"
#include "base/mem.h"
#include "kv/radix.h"

enum { PAGES = 64, PT = 4, LONGEST = 12 };

static char slab[2 * PT * 2 * PAGES];

static struct kv_pool *new_pool(uint32_t pages)
{
    struct kv_pool *pool;
    struct kv_pool_options o = {
        {1, 1, 1, PT, DTYPE_F16}, pages, slab, NULL, NULL};
    assert_int_equal(kv_pool_create(&pool, &o, NULL), 0);
    return pool;
}

static struct kv_radix *new_tree(struct kv_pool *pool)
{
    struct kv_radix *tree;
    assert_int_equal(kv_radix_create(&tree, pool, NULL), 0);
    return tree;
}

/* Caches count fresh pages for tokens and gives all claims on them back. */
static void cache(struct kv_pool *pool, struct kv_radix *tree, uint64_t key,
                  const int32_t *tokens, uint32_t count)
{
    kv_page pages[LONGEST];
    kv_lock lock = 0;
    assert_int_equal(kv_pool_take(pool, count, pages), 0);
    kv_radix_insert(tree, key, tokens, pages, count, &lock);
    for (uint32_t i = 0; i < count; i++)
        kv_pool_drop(pool, pages[i]);
    kv_radix_unlock(tree, lock);
}

static uint32_t cached_prefix(struct kv_pool *pool, struct kv_radix *tree,
                              uint64_t key, const int32_t *tokens, uint32_t n)
{
    kv_page pages[LONGEST];
    kv_lock lock;
    uint32_t got = kv_radix_match(tree, key, tokens, n, pages, &lock);
    for (uint32_t i = 0; i < got; i++)
        kv_pool_drop(pool, pages[i]);
    kv_radix_unlock(tree, lock);
    return got;
}

static void only_whole_pages_of_the_same_key_match(void **state)
{
    (void)state;
    struct kv_pool *pool = new_pool(PAGES);
    struct kv_radix *tree = new_tree(pool);
    const int32_t a[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    cache(pool, tree, 0, a, 3);
    assert_int_equal(cached_prefix(pool, tree, 0, a, 12), 3);
    assert_int_equal(cached_prefix(pool, tree, 0, a, 11), 2);
    assert_int_equal(cached_prefix(pool, tree, 0, a, 3), 0);
    assert_int_equal(cached_prefix(pool, tree, 1, a, 12), 0);
    const int32_t b[12] = {1, 2, 3, 4, 5, 6, 7, 9, 9, 10, 11, 12};
    assert_int_equal(cached_prefix(pool, tree, 0, b, 12), 1);
    assert_int_equal(cached_prefix(pool, tree, 0, a + 4, 8), 0);
    kv_radix_destroy(tree);
    assert_int_equal(kv_pool_free_count(pool), PAGES - 1);
    kv_pool_destroy(pool);
}

static void insert_keeps_the_older_page(void **state)
{
    (void)state;
    struct kv_pool *pool = new_pool(PAGES);
    struct kv_radix *tree = new_tree(pool);
    const int32_t a[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    kv_page first[2], second[2], path[2];
    kv_lock l1 = 0, l2 = 0;
    kv_pool_take(pool, 2, first);
    kv_pool_take(pool, 2, second);
    assert_int_equal(kv_radix_insert(tree, 7, a, first, 1, &l1), 1);
    assert_int_equal(kv_radix_insert(tree, 7, a, second, 2, &l2), 1);
    kv_radix_path(tree, l2, path, 2);
    assert_int_equal(path[0], first[0]);
    assert_int_equal(path[1], second[1]);
    assert_int_equal(kv_pool_refs(pool, second[0]), 1); /* ours alone */
    assert_int_equal(kv_pool_refs(pool, second[1]), 2);
    assert_int_equal(kv_radix_evictable(tree), 0);
    assert_int_equal(kv_radix_evict(tree, 9), 0);
    kv_radix_unlock(tree, l2);
    assert_int_equal(kv_radix_evict(tree, 9), 1); /* l1 keeps the parent */
    kv_radix_unlock(tree, l1);
    assert_int_equal(kv_radix_evict(tree, 9), 1);
    kv_radix_destroy(tree);
    kv_pool_destroy(pool);
}

static void eviction_takes_the_least_recently_used_leaf(void **state)
{
    (void)state;
    struct kv_pool *pool = new_pool(PAGES);
    struct kv_radix *tree = new_tree(pool);
    const int32_t a[12] = {1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3};
    const int32_t b[12] = {1, 1, 1, 1, 4, 4, 4, 4, 5, 5, 5, 5};
    cache(pool, tree, 0, a, 3);
    cache(pool, tree, 0, b, 3);
    assert_int_equal(cached_prefix(pool, tree, 0, a, 12), 3); /* a is newer */
    assert_int_equal(kv_radix_cached(tree), 5);
    assert_int_equal(kv_radix_evict(tree, 1), 1);
    assert_int_equal(cached_prefix(pool, tree, 0, b, 12), 2);
    assert_int_equal(cached_prefix(pool, tree, 0, a, 12), 3);
    assert_int_equal(kv_radix_evict(tree, 2), 2); /* b's 2nd, a's 3rd */
    assert_int_equal(cached_prefix(pool, tree, 0, b, 12), 1);
    assert_int_equal(cached_prefix(pool, tree, 0, a, 12), 2);
    assert_int_equal(kv_radix_evict(tree, 100), 2);
    assert_int_equal(kv_radix_cached(tree), 0);
    assert_int_equal(kv_pool_free_count(pool), PAGES - 1);
    kv_radix_destroy(tree);
    kv_pool_destroy(pool);
}

static void a_path_of_thousands_of_pages_is_fine(void **state)
{
    (void)state;
    enum { DEEP = 50000 };
    char *big = mem_must(DEEP + 1, 2 * PT * 2);
    struct kv_pool *pool;
    struct kv_pool_options o = {
        {1, 1, 1, PT, DTYPE_F16}, DEEP + 1, big, NULL, NULL};
    assert_int_equal(kv_pool_create(&pool, &o, NULL), 0);
    struct kv_radix *tree = new_tree(pool);
    int32_t *tokens = mem_must(DEEP, PT * sizeof *tokens);
    kv_page *pages = mem_must(DEEP, sizeof *pages);
    kv_lock lock = 0;
    for (uint32_t i = 0; i < DEEP * PT; i++)
        tokens[i] = (int32_t)(i % 7);
    kv_pool_take(pool, DEEP, pages);
    assert_int_equal(kv_radix_insert(tree, 0, tokens, pages, DEEP, &lock),
                     DEEP);
    kv_radix_unlock(tree, lock);
    for (uint32_t i = 0; i < DEEP; i++)
        kv_pool_drop(pool, pages[i]);
    assert_int_equal(kv_radix_match(tree, 0, tokens, DEEP * PT, pages, &lock),
                     DEEP);
    kv_radix_unlock(tree, lock);
    for (uint32_t i = 0; i < DEEP; i++)
        kv_pool_drop(pool, pages[i]);
    assert_int_equal(kv_radix_evict(tree, DEEP), DEEP);
    assert_int_equal(kv_pool_free_count(pool), DEEP);
    kv_radix_destroy(tree);
    kv_pool_destroy(pool);
    mem_free(pages);
    mem_free(tokens);
    mem_free(big);
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    struct kv_pool *pool = new_pool(PAGES);
    size_t before = mem_live();
    struct kv_radix *tree = NULL;
    size_t tries = 0;
    while (!tree && tries < 100) {
        struct why why = {0};
        mem_fail_at(++tries);
        int rc = kv_radix_create(&tree, pool, &why);
        assert_int_equal(rc, tree ? 0 : ERR_NOMEM);
        assert_int_equal(why.code, rc);
        assert_true(tree || mem_live() == before);
    }
    mem_fail_at(0);
    assert_int_equal(tries, 4);
    kv_radix_destroy(tree);
    assert_int_equal(mem_live(), before);
    kv_pool_destroy(pool);
}

/* The model: for every cached page, the key and all tokens up to its end,
 * and when it was last used. Match is a linear scan over all of them. */
struct entry {
    uint64_t key;
    int32_t tokens[LONGEST * PT];
    uint32_t depth; /* pages, this one included; 0: not cached */
    uint64_t used;  /* order of its last unlock */
    uint32_t locks;
};
static struct entry model[PAGES];

static kv_page model_find(uint64_t key, const int32_t *tokens, uint32_t depth)
{
    for (kv_page p = 1; p < PAGES; p++)
        if (model[p].depth == depth && model[p].key == key &&
            memcmp(model[p].tokens, tokens, depth * PT * sizeof *tokens) == 0)
            return p;
    return 0;
}

static uint32_t model_match(uint64_t key, const int32_t *tokens, uint32_t max,
                            kv_page *pages)
{
    uint32_t n = 0;
    while (n < max && (pages[n] = model_find(key, tokens, n + 1)))
        n++;
    return n;
}

static bool model_is_leaf(kv_page p)
{
    for (kv_page q = 1; q < PAGES; q++)
        if (model[q].depth == model[p].depth + 1 &&
            model[q].key == model[p].key &&
            memcmp(model[q].tokens, model[p].tokens,
                   model[p].depth * PT * sizeof(int32_t)) == 0)
            return false;
    return true;
}

static kv_page model_oldest(void)
{
    kv_page oldest = 0;
    for (kv_page p = 1; p < PAGES; p++)
        if (model[p].depth && !model[p].locks && model_is_leaf(p) &&
            (!oldest || model[p].used < model[oldest].used))
            oldest = p;
    return oldest;
}

/* A user of a prefix: pages it holds references to, path it has locked. */
struct user {
    uint64_t key;
    int32_t tokens[LONGEST * PT];
    kv_page pages[LONGEST];
    uint32_t count;
    kv_lock lock;
    uint32_t locked; /* pages of its locked path */
};

static void model_lock(const struct user *u, int by, uint64_t *clock)
{
    for (uint32_t d = u->locked; d > 0; d--) {
        kv_page p = model_find(u->key, u->tokens, d);
        assert_true(p);
        model[p].locks += (uint32_t)by;
        if (by < 0 && !model[p].locks) model[p].used = ++*clock;
    }
}

static void random_users_agree_with_a_linear_scan(void **state)
{
    (void)state;
    enum { USERS = 6 };
    struct kv_pool *pool = new_pool(PAGES);
    struct kv_radix *tree = new_tree(pool);
    struct user users[USERS] = {0};
    uint64_t seed = 11, clock = 0;
    memset(model, 0, sizeof model);
    uint32_t hits = 0, evicted = 0;
    for (int step = 0; step < 30000; step++) {
        struct user *u = &users[rng_next(&seed) % USERS];
        switch (rng_next(&seed) % 4) {
        case 0: { /* finds a prefix, takes pages for the rest */
            if (u->count) break;
            uint32_t length = 1 + (uint32_t)(rng_next(&seed) % LONGEST);
            u->key = rng_next(&seed) % 2;
            for (uint32_t i = 0; i < length * PT; i++)
                u->tokens[i] = rng_next(&seed) % 16 == 0;
            kv_page want[LONGEST];
            u->locked = model_match(u->key, u->tokens, length, want);
            assert_int_equal(kv_radix_match(tree, u->key, u->tokens,
                                            length * PT, u->pages, &u->lock),
                             u->locked);
            assert_memory_equal(u->pages, want, u->locked * sizeof *want);
            model_lock(u, 1, &clock);
            hits += u->locked;
            u->count = u->locked;
            uint32_t more = length - u->locked;
            if (kv_pool_take(pool, more, u->pages + u->count) == 0)
                u->count += more;
            break;
        }
        case 1: { /* caches what it has */
            kv_page have[LONGEST];
            uint32_t n = model_match(u->key, u->tokens, u->count, have);
            for (uint32_t d = n; d < u->count; d++) {
                struct entry *e = &model[u->pages[d]];
                assert_int_equal(e->depth, 0);
                *e = (struct entry){.key = u->key, .depth = d + 1};
                memcpy(e->tokens, u->tokens, sizeof e->tokens);
            }
            assert_int_equal(kv_radix_insert(tree, u->key, u->tokens, u->pages,
                                             u->count, &u->lock),
                             u->count - n);
            struct user grown = *u;
            grown.locked = u->count;
            model_lock(&grown, 1, &clock);
            model_lock(u, -1, &clock);
            u->locked = u->count;
            kv_page path[LONGEST];
            model_match(u->key, u->tokens, u->count, have);
            kv_radix_path(tree, u->lock, path, u->count);
            assert_memory_equal(path, have, u->count * sizeof *path);
            break;
        }
        case 2: /* goes */
            kv_radix_unlock(tree, u->lock);
            model_lock(u, -1, &clock);
            for (uint32_t i = 0; i < u->count; i++)
                kv_pool_drop(pool, u->pages[i]);
            *u = (struct user){0};
            break;
        default: {
            uint32_t n = (uint32_t)(rng_next(&seed) % 4);
            uint32_t got = kv_radix_evict(tree, n);
            for (uint32_t i = 0; i < n; i++) {
                kv_page oldest = model_oldest();
                assert_int_equal(i < got, oldest != 0);
                if (oldest) model[oldest].depth = 0;
            }
            evicted += got;
            break;
        }
        }
        uint32_t cached = 0, evictable = 0;
        for (kv_page p = 1; p < PAGES; p++) {
            uint32_t refs = model[p].depth != 0;
            cached += refs;
            evictable += refs && !model[p].locks;
            for (int i = 0; i < USERS; i++)
                for (uint32_t j = 0; j < users[i].count; j++)
                    refs += users[i].pages[j] == p;
            assert_int_equal(kv_pool_refs(pool, p), refs);
        }
        assert_int_equal(kv_radix_cached(tree), cached);
        assert_int_equal(kv_radix_evictable(tree), evictable);
    }
    assert_true(hits > 1000 && evicted > 1000);
    for (int i = 0; i < USERS; i++)
        for (uint32_t j = 0; j < users[i].count; j++)
            kv_pool_drop(pool, users[i].pages[j]);
    kv_radix_destroy(tree);
    assert_int_equal(kv_pool_free_count(pool), PAGES - 1);
    kv_pool_destroy(pool);
}

TESTS(T(only_whole_pages_of_the_same_key_match), T(insert_keeps_the_older_page),
      T(eviction_takes_the_least_recently_used_leaf),
      T(a_path_of_thousands_of_pages_is_fine),
      T(create_survives_every_failed_allocation),
      T(random_users_agree_with_a_linear_scan))
