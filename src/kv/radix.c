#include "kv/radix.h"

#include "base/map.h"
#include "base/mem.h"

#include <assert.h>
#include <string.h>

/* Node p is about page p. Unlocked nodes form one list, oldest first. A node
 * is appended after its children (unlock walks from the end of a path to its
 * root), so the oldest is always a leaf. */
struct node {
    uint64_t hash;
    uint64_t key;
    kv_page parent; /* 0: a root's child */
    kv_page chain;  /* next in its hash bucket */
    kv_page older, newer;
    uint32_t children;
    uint32_t locks; /* paths through here that are locked */
    bool cached;
};

struct kv_radix {
    struct kv_pool *pool;
    uint32_t page_tokens;
    struct node *nodes; /* [page_count]; 0 is the list's ends */
    int32_t *tokens;    /* [page_count, page_tokens] labels */
    kv_page *buckets;   /* [bucket_mask + 1] */
    uint32_t bucket_mask;
    uint32_t cached, evictable;
};

int kv_radix_create(struct kv_radix **out, struct kv_pool *pool,
                    struct why *why)
{
    *out = NULL;
    uint32_t pages = kv_pool_page_count(pool);
    uint32_t buckets = 1;
    while (buckets < pages && buckets < 1u << 31)
        buckets *= 2;

    struct kv_radix *tree = mem_must(1, sizeof *tree);
    tree->pool = pool;
    tree->page_tokens = kv_pool_shape(pool)->page_tokens;
    tree->bucket_mask = buckets - 1;
    tree->nodes = mem_try(pages, sizeof *tree->nodes, 0);
    tree->tokens = mem_try(pages, tree->page_tokens * sizeof(int32_t), 0);
    tree->buckets = mem_try(buckets, sizeof *tree->buckets, 0);
    if (!tree->nodes || !tree->tokens || !tree->buckets) {
        kv_radix_destroy(tree);
        return err_set(why, ERR_NOMEM, "prefix cache: tables of %u pages",
                       pages);
    }
    *out = tree;
    return 0;
}

void kv_radix_destroy(struct kv_radix *tree)
{
    if (!tree) return;
    uint32_t pages = kv_pool_page_count(tree->pool);
    for (kv_page p = 1; tree->nodes && p < pages; p++)
        if (tree->nodes[p].cached) kv_pool_drop(tree->pool, p);
    mem_free(tree->nodes);
    mem_free(tree->tokens);
    mem_free(tree->buckets);
    mem_free(tree);
}

static void list_append(struct kv_radix *tree, kv_page page)
{
    struct node *n = &tree->nodes[page], *ends = &tree->nodes[0];
    n->older = ends->older;
    n->newer = 0;
    tree->nodes[n->older].newer = page;
    ends->older = page;
    tree->evictable++;
}

static void list_remove(struct kv_radix *tree, kv_page page)
{
    struct node *n = &tree->nodes[page];
    tree->nodes[n->older].newer = n->newer;
    tree->nodes[n->newer].older = n->older;
    tree->evictable--;
}

static void lock_path(struct kv_radix *tree, kv_lock end)
{
    for (kv_page p = end; p; p = tree->nodes[p].parent)
        if (tree->nodes[p].locks++ == 0) list_remove(tree, p);
}

void kv_radix_unlock(struct kv_radix *tree, kv_lock lock)
{
    for (kv_page p = lock; p; p = tree->nodes[p].parent) {
        assert(tree->nodes[p].locks > 0);
        if (--tree->nodes[p].locks == 0) list_append(tree, p);
    }
}

static uint64_t label_hash(const struct kv_radix *tree, uint64_t key,
                           kv_page parent, const int32_t *label)
{
    uint64_t seed = parent ? hash_u64(parent) : hash_u64(~key);
    return hash_bytes(label, tree->page_tokens * sizeof *label, seed);
}

/* The child of parent (0: of key's root) with this label, 0 if none. */
static kv_page child(const struct kv_radix *tree, uint64_t key, kv_page parent,
                     const int32_t *label, uint64_t hash)
{
    kv_page p = tree->buckets[hash & tree->bucket_mask];
    for (; p; p = tree->nodes[p].chain) {
        const struct node *n = &tree->nodes[p];
        if (n->hash == hash && n->key == key && n->parent == parent &&
            memcmp(tree->tokens + (size_t)p * tree->page_tokens, label,
                   tree->page_tokens * sizeof *label) == 0)
            return p;
    }
    return 0;
}

uint32_t kv_radix_match(struct kv_radix *tree, uint64_t key,
                        const int32_t *tokens, uint32_t count, kv_page *pages,
                        kv_lock *lock)
{
    uint32_t n = 0;
    kv_page end = 0;
    for (; n < count / tree->page_tokens; n++) {
        const int32_t *label = tokens + (size_t)n * tree->page_tokens;
        uint64_t hash = label_hash(tree, key, end, label);
        kv_page next = child(tree, key, end, label, hash);
        if (!next) break;
        kv_pool_ref(tree->pool, next);
        pages[n] = end = next;
    }
    lock_path(tree, end);
    *lock = end;
    return n;
}

static void add(struct kv_radix *tree, uint64_t key, kv_page parent,
                const int32_t *label, uint64_t hash, kv_page page)
{
    struct node *n = &tree->nodes[page];
    assert(page && !n->cached);
    kv_page *bucket = &tree->buckets[hash & tree->bucket_mask];
    *n = (struct node){.hash = hash,
                       .key = key,
                       .parent = parent,
                       .chain = *bucket,
                       .cached = true};
    *bucket = page;
    memcpy(tree->tokens + (size_t)page * tree->page_tokens, label,
           tree->page_tokens * sizeof *label);
    if (parent) tree->nodes[parent].children++;
    tree->cached++;
    kv_pool_ref(tree->pool, page);
    list_append(tree, page);
}

uint32_t kv_radix_insert(struct kv_radix *tree, uint64_t key,
                         const int32_t *tokens, const kv_page *pages,
                         uint32_t page_count, kv_lock *lock)
{
    uint32_t before = tree->cached;
    kv_page end = 0;
    for (uint32_t i = 0; i < page_count; i++) {
        const int32_t *label = tokens + (size_t)i * tree->page_tokens;
        uint64_t hash = label_hash(tree, key, end, label);
        kv_page next = child(tree, key, end, label, hash);
        if (!next) {
            next = pages[i];
            add(tree, key, end, label, hash, next);
        }
        end = next;
    }
    lock_path(tree, end); /* before the unlock, so that nothing ages */
    kv_radix_unlock(tree, *lock);
    *lock = end;
    return tree->cached - before;
}

void kv_radix_path(const struct kv_radix *tree, kv_lock lock, kv_page *pages,
                   uint32_t n)
{
    for (kv_page p = lock; p; p = tree->nodes[p].parent) {
        assert(n > 0);
        pages[--n] = p;
    }
    assert(n == 0);
}

static void forget(struct kv_radix *tree, kv_page page)
{
    struct node *n = &tree->nodes[page];
    assert(n->children == 0 && n->locks == 0);
    kv_page *at = &tree->buckets[n->hash & tree->bucket_mask];
    while (*at != page)
        at = &tree->nodes[*at].chain;
    *at = n->chain;
    if (n->parent) tree->nodes[n->parent].children--;
    list_remove(tree, page);
    n->cached = false;
    tree->cached--;
    kv_pool_drop(tree->pool, page);
}

uint32_t kv_radix_evict(struct kv_radix *tree, uint32_t n)
{
    uint32_t done = 0;
    for (; done < n && tree->evictable; done++)
        forget(tree, tree->nodes[0].newer);
    return done;
}

uint32_t kv_radix_cached(const struct kv_radix *tree)
{
    return tree->cached;
}

uint32_t kv_radix_evictable(const struct kv_radix *tree)
{
    return tree->evictable;
}
