#include "kv/pool.h"

#include "base/mem.h"

#include <assert.h>

/* Pages below `fresh` were given out at least once; the free ones among them
 * are bits in `words`, and a word that is not 0 is a bit in `summary`, so the
 * lowest free page is two short scans away. Pages from `fresh` up were never
 * touched and are all free. */
struct kv_pool {
    struct kv_shape shape;
    size_t page_bytes;
    uint32_t page_count;
    uint32_t fresh;
    uint32_t recycled; /* bits set in words */
    uint32_t *refs;    /* [page_count] */
    uint64_t *words;   /* [word_count] */
    uint64_t *summary; /* [summary_count] */
    uint32_t summary_count;
    unsigned char *slab;
    bool (*may_grow)(void *arg, size_t bytes);
    void *arg;
};

static bool type_fits(enum dtype type)
{
    return type == DTYPE_F32 || type == DTYPE_F16 || type == DTYPE_BF16 ||
           type == DTYPE_KV8;
}

/* a * b, 0 when it overflows (or one of them is 0). */
static size_t times(size_t a, size_t b)
{
    size_t product;
    return __builtin_mul_overflow(a, b, &product) ? 0 : product;
}

size_t kv_shape_page_bytes(const struct kv_shape *s)
{
    if (s->layers == 0 || (s->page_tokens & (s->page_tokens - 1))) return 0;
    if (!type_fits(s->type)) return 0;
    /* one head; cannot overflow as op_kv_token_bytes of all heads could */
    size_t head = s->head_dim ? op_kv_token_bytes(s->type, 1, s->head_dim) : 0;
    return times(times(head, s->kv_heads), s->page_tokens);
}

size_t kv_shape_slab_bytes(const struct kv_shape *s, uint32_t page_count)
{
    size_t page = times(kv_shape_page_bytes(s), times(2, s->layers));
    return times(page, page_count);
}

size_t kv_shape_token_bytes(const struct kv_shape *s)
{
    size_t page = kv_shape_page_bytes(s);
    return page ? times(page / s->page_tokens, times(2, s->layers)) : 0;
}

int kv_pool_create(struct kv_pool **out, const struct kv_pool_options *o,
                   struct why *why)
{
    *out = NULL;
    if (o->page_count < 2)
        return err_set(why, ERR_INVALID,
                       "kv pool: %u pages, needs the padding page and one more",
                       o->page_count);
    if (kv_shape_slab_bytes(&o->shape, o->page_count) == 0)
        return err_set(why, ERR_INVALID,
                       "kv pool: impossible shape (%u layers, %u kv heads of "
                       "%u, %u tokens a page, %u pages)",
                       o->shape.layers, o->shape.kv_heads, o->shape.head_dim,
                       o->shape.page_tokens, o->page_count);
    assert(o->slab);

    struct kv_pool *pool = mem_must(1, sizeof *pool);
    pool->shape = o->shape;
    pool->page_bytes = kv_shape_page_bytes(&o->shape);
    pool->page_count = o->page_count;
    pool->fresh = 1;
    pool->slab = o->slab;
    pool->may_grow = o->may_grow;
    pool->arg = o->arg;
    size_t word_count = o->page_count / 64 + 1;
    pool->summary_count = (uint32_t)(word_count / 64 + 1);
    pool->refs = mem_try(o->page_count, sizeof *pool->refs, 0);
    pool->words = mem_try(word_count, sizeof *pool->words, 0);
    pool->summary = mem_try(pool->summary_count, sizeof *pool->summary, 0);
    if (!pool->refs || !pool->words || !pool->summary) {
        kv_pool_destroy(pool);
        return err_set(why, ERR_NOMEM, "kv pool: tables of %u pages",
                       o->page_count);
    }
    *out = pool;
    return 0;
}

void kv_pool_destroy(struct kv_pool *pool)
{
    if (!pool) return;
    mem_free(pool->refs);
    mem_free(pool->words);
    mem_free(pool->summary);
    mem_free(pool);
}

/* The lowest recycled page at or above the summary word *at. */
static kv_page lowest(struct kv_pool *pool, uint32_t *at)
{
    while (pool->summary[*at] == 0)
        ++*at;
    uint32_t word = *at * 64 + (uint32_t)__builtin_ctzll(pool->summary[*at]);
    uint32_t bit = (uint32_t)__builtin_ctzll(pool->words[word]);
    pool->words[word] &= pool->words[word] - 1;
    if (pool->words[word] == 0) pool->summary[*at] &= pool->summary[*at] - 1;
    pool->recycled--;
    return word * 64 + bit;
}

int kv_pool_take(struct kv_pool *pool, uint32_t n, kv_page *pages)
{
    if (n > kv_pool_free_count(pool)) return ERR_AGAIN;
    uint32_t grow = n > pool->recycled ? n - pool->recycled : 0;
    size_t bytes = grow * pool->page_bytes * 2 * pool->shape.layers;
    if (grow && pool->may_grow && !pool->may_grow(pool->arg, bytes))
        return ERR_AGAIN;
    uint32_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        pages[i] = pool->recycled ? lowest(pool, &at) : pool->fresh++;
        pool->refs[pages[i]] = 1;
    }
    return 0;
}

void kv_pool_ref(struct kv_pool *pool, kv_page page)
{
    assert(page < pool->page_count && pool->refs[page] > 0);
    pool->refs[page]++;
}

void kv_pool_drop(struct kv_pool *pool, kv_page page)
{
    assert(page < pool->page_count && pool->refs[page] > 0);
    if (--pool->refs[page] > 0) return;
    pool->words[page / 64] |= 1ull << page % 64;
    pool->summary[page / 4096] |= 1ull << page / 64 % 64;
    pool->recycled++;
}

const struct kv_shape *kv_pool_shape(const struct kv_pool *pool)
{
    return &pool->shape;
}

uint32_t kv_pool_page_count(const struct kv_pool *pool)
{
    return pool->page_count;
}

uint32_t kv_pool_free_count(const struct kv_pool *pool)
{
    return pool->recycled + (pool->page_count - pool->fresh);
}

uint32_t kv_pool_refs(const struct kv_pool *pool, kv_page page)
{
    assert(page < pool->page_count);
    return pool->refs[page];
}

uint32_t kv_pool_buffer_count(const struct kv_pool *pool)
{
    return 2 * pool->shape.layers;
}

void *kv_pool_buffer(const struct kv_pool *pool, uint32_t buffer)
{
    assert(buffer < kv_pool_buffer_count(pool));
    return pool->slab + buffer * (pool->page_bytes * pool->page_count);
}

struct op_kv kv_pool_layer(const struct kv_pool *pool, uint32_t layer)
{
    return (struct op_kv){
        .k = kv_pool_buffer(pool, layer),
        .v = kv_pool_buffer(pool, pool->shape.layers + layer),
        .type = pool->shape.type,
        .page_tokens = pool->shape.page_tokens,
        .kv_heads = pool->shape.kv_heads,
        .head_dim = pool->shape.head_dim,
    };
}
