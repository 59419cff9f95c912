/* Bindings: memory by address. Regions are what was registered; the pool
 * hands out pieces of powers of two, cut from chunks of mappable memory. */
#include "xfer/binding_core.h"

#include "base/mem.h"

#include <string.h>

enum { STEP_MIN = 8 << 10, STEP_MAX = STEP_MIN << (POOL_STEPS - 1) };

/* ---- regions ---- */

/* Under the lock: the region that holds the whole range, or NULL. */
static struct region *region_around(struct xfer_binding *b, uint64_t addr,
                                    uint64_t bytes)
{
    struct region *r;
    for (size_t at = 0; (r = map_next(&b->regions, &at, NULL));)
        if (r->mem && addr >= r->addr && addr - r->addr < r->bytes &&
            bytes <= r->bytes - (addr - r->addr))
            return r;
    return NULL;
}

/* Under the lock. */
static int region_add(struct xfer_binding *b, uint64_t addr, uint64_t bytes,
                      const char *location, unsigned access, struct why *why)
{
    struct region *r = map_get(&b->regions, addr), *outer = NULL;
    if (r && bytes && bytes <= r->bytes) {
        r->refs++;
        return 0;
    }
    struct xfer_mem *mem = NULL;
    int rc = xfer_register(b->x, (void *)(uintptr_t)addr, bytes, location,
                           access, &mem, why);
    if (rc == ERR_EXISTS && !r) outer = region_around(b, addr, bytes);
    if (rc && !outer) return rc;
    if (outer) {
        outer->refs++;
        outer->inner++;
    }
    r = mem_must(1, sizeof *r);
    *r = (struct region){.addr = addr,
                         .bytes = bytes,
                         .serial = ++b->region_serial,
                         .mem = mem,
                         .within = outer,
                         .refs = 1};
    map_put(&b->regions, addr, r);
    return 0;
}

/* Under the lock, which is given up while somebody still uses the memory. */
static int region_drop(struct xfer_binding *b, uint64_t addr)
{
    struct region *r = map_get(&b->regions, addr), *outer;
    if (!r || r->refs == r->inner) return ERR_NOT_FOUND;
    for (; r && --r->refs == 0; r = outer) {
        struct xfer_mem *mem = r->mem;
        outer = r->within;
        if (outer) outer->inner--;
        map_remove(&b->regions, r->addr);
        mem_free(r);
        if (!mem) continue;
        pthread_mutex_unlock(&b->lock);
        xfer_deregister(mem);
        pthread_mutex_lock(&b->lock);
    }
    return 0;
}

uint64_t region_first(struct xfer_binding *b)
{
    struct region *r, *first = NULL;
    for (size_t at = 0; (r = map_next(&b->regions, &at, NULL));)
        if (!first || r->serial < first->serial) first = r;
    return first ? first->addr : 0;
}

int xfer_binding_register(struct xfer_binding *b, const uint64_t *addrs,
                          const uint64_t *bytes, size_t n, const char *location,
                          unsigned access, struct why *why)
{
    int rc = binding_enter(b, why);
    if (rc) return rc;
    size_t i = 0;
    pthread_mutex_lock(&b->lock);
    while (i < n && !rc) {
        rc = region_add(b, addrs[i], bytes[i], location, access, why);
        if (!rc) i++;
    }
    while (rc && i > 0)
        region_drop(b, addrs[--i]);
    pthread_mutex_unlock(&b->lock);
    binding_leave(b);
    return rc;
}

int xfer_binding_unregister(struct xfer_binding *b, const uint64_t *addrs,
                            size_t n, struct why *why)
{
    int rc = binding_enter(b, why);
    if (rc) return rc;
    pthread_mutex_lock(&b->lock);
    for (size_t i = 0; i < n; i++)
        if (region_drop(b, addrs[i]))
            rc = err_set(why, ERR_NOT_FOUND,
                         "nothing is registered that begins at 0x%llx",
                         (unsigned long long)addrs[i]);
    pthread_mutex_unlock(&b->lock);
    binding_leave(b);
    return rc;
}

/* ---- the pool ---- */

static int step_of(size_t bytes)
{
    int step = 0;
    while (step < POOL_STEPS && ((size_t)STEP_MIN << step) < bytes)
        step++;
    return step; /* POOL_STEPS: too big for the pool */
}

/* Under the lock: a new piece of the chunk. */
static void *cut(struct xfer_binding *b, size_t bytes, struct why *why)
{
    struct xfer_mem *mem;
    if (b->chunk_left < bytes) { /* what was left is given up */
        if (xfer_alloc(b->x, STEP_MAX, 0, &mem, why)) return NULL;
        b->chunk = xfer_mem_base(mem);
        b->chunk_left = STEP_MAX;
    }
    void *piece = b->chunk;
    b->chunk += bytes;
    b->chunk_left -= bytes;
    return piece;
}

/* Under the lock. In pooled: its step + 1 as a small number, or, for what is
 * larger than all steps, its memory. */
static void *pool_take(struct xfer_binding *b, size_t bytes, struct why *why)
{
    int step = step_of(bytes);
    void *piece, *note = (void *)(uintptr_t)(step + 1);
    if (step == POOL_STEPS) {
        struct xfer_mem *mem;
        if (xfer_alloc(b->x, bytes, 0, &mem, why)) return NULL;
        piece = xfer_mem_base(mem);
        note = mem;
    } else if (b->steps[step].count) {
        piece = b->steps[step].free[--b->steps[step].count];
        memset(piece, 0, bytes);
    } else {
        piece = cut(b, (size_t)STEP_MIN << step, why);
    }
    if (piece) map_put(&b->pooled, (uintptr_t)piece, note);
    return piece;
}

void *xfer_binding_alloc(struct xfer_binding *b, size_t bytes, struct why *why)
{
    if (binding_enter(b, why)) return NULL;
    pthread_mutex_lock(&b->lock);
    void *piece = pool_take(b, bytes, why);
    pthread_mutex_unlock(&b->lock);
    binding_leave(b);
    return piece;
}

/* Under the lock. Returns the memory that is to be deregistered, or NULL. */
static struct xfer_mem *pool_give(struct xfer_binding *b, void *addr,
                                  void *note)
{
    if ((uintptr_t)note > POOL_STEPS) return note;
    struct pool_step *s = &b->steps[(uintptr_t)note - 1];
    if (s->count == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 16;
        s->free = mem_remust(s->free, s->cap * sizeof *s->free);
    }
    s->free[s->count++] = addr;
    return NULL;
}

int xfer_binding_free(struct xfer_binding *b, void *addr, struct why *why)
{
    int rc = binding_enter(b, why);
    if (rc) return rc;
    struct xfer_mem *mem = NULL;
    pthread_mutex_lock(&b->lock);
    void *note = map_remove(&b->pooled, (uintptr_t)addr);
    if (note) mem = pool_give(b, addr, note);
    pthread_mutex_unlock(&b->lock);
    if (mem) xfer_deregister(mem);
    if (!note)
        rc = err_set(why, ERR_NOT_FOUND, "%p was not handed out here", addr);
    binding_leave(b);
    return rc;
}

void binding_memory_free(struct xfer_binding *b)
{
    struct region *r;
    for (size_t at = 0; (r = map_next(&b->regions, &at, NULL));)
        mem_free(r);
    map_fini(&b->regions);
    map_fini(&b->pooled);
    for (int i = 0; i < POOL_STEPS; i++)
        mem_free(b->steps[i].free);
}
