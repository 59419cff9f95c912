/* Memory of the simulated machine room: an arena that is never reused within a
 * run, so that a late touch is seen, with a gap before each block; and blocks
 * that the room itself borrows for bytes on their way, which are. */
#include "tests/xfer/sim_inside.h"
#include "tests/xfer/sim_real.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

enum {
    ARENA = 256 << 20,
    GAP = 32, /* between blocks; forbidden to touch where a sanitizer runs */
    SPLIT_FROM = 200, /* copies of so many bytes can be interrupted */
    CLASSES = 28,     /* of borrowed blocks: powers of two */
};

struct loan {
    struct loan *next; /* that is free */
    int class;
};

static struct {
    char *arena;
    size_t used;
    struct loan *free[CLASSES];
} mem;

void memory_begin(void)
{
    char *arena = mem.arena;
    if (!arena)
        arena = __real_mmap(NULL, ARENA, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED) abort();
    memset(&mem, 0, sizeof mem);
    mem.arena = arena;
}

struct block {
    size_t bytes;
    struct sim_proc *proc;
};

void *sim_alloc(size_t bytes)
{
    size_t all = (GAP + bytes + 15) / 16 * 16;
    if (mem.used + all > ARENA) sim_fail("the arena is full");
    char *at = mem.arena + mem.used;
    mem.used += all;
#if defined __SANITIZE_ADDRESS__
    ASAN_UNPOISON_MEMORY_REGION(at, all);
    struct block *b = (void *)(at + GAP - sizeof *b);
    *b = (struct block){bytes, sim_self()};
    ASAN_POISON_MEMORY_REGION(at, GAP);
    ASAN_POISON_MEMORY_REGION(at + GAP + bytes, all - GAP - bytes);
#else
    *(struct block *)(void *)(at + GAP - sizeof(struct block)) =
        (struct block){bytes, sim_self()};
#endif
    memset(at + GAP, 0, bytes);
    return at + GAP;
}

bool sim_owns(const void *p)
{
    const char *at = p;
    return mem.arena && at >= mem.arena && at < mem.arena + ARENA;
}

void *sim_borrow(size_t bytes)
{
    int class = 6;
    while ((size_t)1 << class < bytes)
        class ++;
    if (class >= CLASSES) sim_fail("a loan of %zu bytes", bytes);
    struct loan *l = mem.free[class];
    if (l)
        mem.free[class] = l->next;
    else
        l = sim_alloc(sizeof *l + ((size_t)1 << class));
    l->class = class;
    return l + 1;
}

void sim_return(void *p)
{
    struct loan *l = (struct loan *)p - 1;
    l->next = mem.free[l->class];
    mem.free[l->class] = l;
}

static struct block block_of(void *p)
{
    struct block *b = (struct block *)p - 1;
#if defined __SANITIZE_ADDRESS__
    ASAN_UNPOISON_MEMORY_REGION(b, sizeof *b);
#endif
    return *b;
}

void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_realloc(void *p, size_t bytes);
void *__wrap_aligned_alloc(size_t align, size_t bytes);
void __wrap_free(void *p);

void *__wrap_calloc(size_t count, size_t bytes)
{
    if (!sim_self()) return __real_calloc(count, bytes);
    sim_self()->blocks++;
    return sim_alloc(count * bytes);
}

void *__wrap_malloc(size_t bytes)
{
    return __wrap_calloc(1, bytes);
}

void *__wrap_aligned_alloc(size_t align, size_t bytes)
{
    char *at = __wrap_calloc(1, bytes + align);
    return at + (-(uintptr_t)at & (align - 1)); /* never freed */
}

void __wrap_free(void *p)
{
    if (!sim_owns(p)) {
        __real_free(p);
        return;
    }
    struct block b = block_of(p);
    if (!b.proc) sim_fail("memory is freed twice");
    b.proc->blocks--;
    ((struct block *)p - 1)->proc = NULL;
    memset(p, 0xdd, b.bytes);
#if defined __SANITIZE_ADDRESS__
    ASAN_POISON_MEMORY_REGION((struct block *)p - 1,
                              sizeof(struct block) + b.bytes);
#endif
}

void *__wrap_realloc(void *p, size_t bytes)
{
    if (!sim_self() || (p && !sim_owns(p))) return __real_realloc(p, bytes);
    void *grown = __wrap_calloc(1, bytes);
    if (!p) return grown;
    size_t had = block_of(p).bytes;
    __real_memcpy(grown, p, had < bytes ? had : bytes);
    __wrap_free(p);
    return grown;
}

void sim_copy(void *to, const void *from, size_t n)
{
    __real_memcpy(to, from, n);
}

void *__wrap_memcpy(void *to, const void *from, size_t n);
void *__wrap_memcpy(void *to, const void *from, size_t n)
{
    size_t half = 0;
    if (n >= SPLIT_FROM && sim_self()) {
        half = sim_random(n);
        __real_memcpy(to, from, half);
        sim_point();
    }
    __real_memcpy((char *)to + half, (const char *)from + half, n - half);
    return to;
}
