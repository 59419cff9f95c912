/* kv/radix.h - the prefix cache: which pages already hold which tokens.
 *
 * A radix tree whose edges are whole pages: a node is one cached page, its
 * label the page_tokens tokens whose KV the page holds, its path from the
 * root all tokens before them. Each namespace (cache_key) has its own root,
 * so that prompts of different keys never share pages.
 *
 *     root(key) --[t0 t1 t2 t3]--> page 7 --[t4 t5 t6 t7]--> page 9
 *                                        \--[t4 t5 u6 u7]--> page 4
 *
 * The tree holds one pool reference to each of its pages. Who uses a prefix
 * locks its path: what is locked, and so every ancestor of it, is never
 * evicted. Unlocked pages go least recently used first, leaves before their
 * parents; a page counts as used until its last unlock.
 *
 * Nodes are entries of tables sized by the pool, found by a hash of (parent,
 * tokens) and compared in full: match and insert cost O(tokens), eviction
 * O(1) a page, nothing is allocated after create and nothing recurses.
 *
 * The pool's thread owns it. Source: RadixAttention (Zheng et al., 2023) as
 * in SGLang, page-aligned; the flat page-per-node form is ours. */
#ifndef BATON_KV_RADIX_H
#define BATON_KV_RADIX_H

#include "kv/pool.h"

struct kv_radix;
typedef kv_page kv_lock; /* the end of a locked path; 0: nothing is locked */

/* pool is borrowed and outlives the tree. ERR_NOMEM. */
int kv_radix_create(struct kv_radix **out, struct kv_pool *pool,
                    struct why *why);
void kv_radix_destroy(struct kv_radix *tree); /* drops its references */

/* The longest cached prefix of tokens in whole pages. Writes its pages, each
 * with a reference that is the caller's to drop, locks the path (*lock), and
 * returns the number of pages: pages has room for count / page_tokens. */
uint32_t kv_radix_match(struct kv_radix *tree, uint64_t key,
                        const int32_t *tokens, uint32_t count, kv_page *pages,
                        kv_lock *lock);

/* Caches page_count pages that hold the KV of page_count * page_tokens
 * tokens. Where the tree has such a page already it keeps its own; of the
 * others it takes a reference. *lock, the caller's until now, moves to the
 * end of this path. Returns the number of pages that are new in the tree. */
uint32_t kv_radix_insert(struct kv_radix *tree, uint64_t key,
                         const int32_t *tokens, const kv_page *pages,
                         uint32_t page_count, kv_lock *lock);

/* The tree's pages along a locked path, first to last: [n], n its length. */
void kv_radix_path(const struct kv_radix *tree, kv_lock lock, kv_page *pages,
                   uint32_t n);
void kv_radix_unlock(struct kv_radix *tree, kv_lock lock);

/* Forgets up to n unlocked pages; returns how many. A page comes free unless
 * someone else holds a reference to it. */
uint32_t kv_radix_evict(struct kv_radix *tree, uint32_t n);

uint32_t kv_radix_cached(const struct kv_radix *tree); /* pages in the tree */
uint32_t kv_radix_evictable(const struct kv_radix *tree); /* unlocked ones  */

#endif
