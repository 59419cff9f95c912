/* Registered memory: a table sorted by address, and memory that peers map. */
#include "xfer/core.h"

#include "base/clock.h"
#include "base/mem.h"
#include "xfer/fabric.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Index of the first registration that begins above addr. */
static size_t above(const struct xfer *x, uint64_t addr)
{
    size_t lo = 0, hi = x->mem_count;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if ((uintptr_t)x->mems[mid]->base > addr)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

static struct xfer_mem *mem_below(const struct xfer *x, uint64_t addr)
{
    size_t i = above(x, addr);
    return i ? x->mems[i - 1] : NULL;
}

struct xfer_mem *mem_at(struct xfer *x, uint64_t addr, uint64_t span)
{
    struct xfer_mem *mem = mem_below(x, addr);
    if (!mem || mem->closing) return NULL;
    uint64_t offset = addr - (uintptr_t)mem->base;
    return offset < mem->bytes && span <= mem->bytes - offset ? mem : NULL;
}

int mem_check(struct xfer *x, uint64_t addr, uint64_t span, unsigned access,
              uint64_t key, struct xfer_mem **out)
{
    *out = mem_at(x, addr, span);
    if (!*out || !((*out)->access & access)) return ERR_RANGE;
    return key && key != (*out)->key ? ERR_STALE : 0;
}

struct xfer_mem *mem_held_at(struct xfer *x, uint64_t addr)
{
    return mem_below(x, addr);
}

/* Puts mem into the table; its id orders registrations in time. */
static int table_add(struct xfer *x, struct xfer_mem *mem, struct why *why)
{
    uint64_t first = (uintptr_t)mem->base, last = first + mem->bytes - 1;
    struct xfer_mem *other = mem_below(x, last);
    if (other && (uintptr_t)other->base + other->bytes > first)
        return err_set(why, ERR_EXISTS, "%p + %zu overlaps %p + %zu",
                       (void *)mem->base, mem->bytes, (void *)other->base,
                       other->bytes);
    if (x->mem_count == x->mem_cap) {
        size_t cap = x->mem_cap ? x->mem_cap * 2 : 16;
        void *grown = mem_retry(x->mems, cap * sizeof(struct xfer_mem *));
        if (!grown) return err_set(why, ERR_NOMEM, "out of memory");
        x->mems = grown;
        x->mem_cap = cap;
    }
    size_t at = above(x, first);
    memmove(x->mems + at + 1, x->mems + at,
            (x->mem_count - at) * sizeof(struct xfer_mem *));
    x->mems[at] = mem;
    x->mem_count++;
    mem->id = ++x->mem_ids;
    return 0;
}

static void table_remove(struct xfer *x, const struct xfer_mem *mem)
{
    size_t at = above(x, (uintptr_t)mem->base) - 1;
    x->mem_count--;
    memmove(x->mems + at, x->mems + at + 1,
            (x->mem_count - at) * sizeof(struct xfer_mem *));
}

static void mem_release(struct xfer_mem *mem)
{
    fabric_mem_close(mem->x, mem);
    if (mem->fd >= 0) {
        if (mem->base) munmap(mem->base, mem->bytes);
        close(mem->fd);
    }
    mem_free(mem);
}

/* Same-host peers are told of the change. */
static void mems_tell(struct xfer *x)
{
    x->mems_changed = true;
    xfer_chores(x);
}

static int mem_add(struct xfer *x, struct xfer_mem *mem, unsigned access,
                   struct why *why)
{
    mem->x = x;
    mem->access = access ? access & ~(unsigned)XFER_LOCAL_ONLY
                         : XFER_REMOTE_READ | XFER_REMOTE_WRITE;
    while (mem->key == 0)
        mem->key = random_u64();
    mem->place = (struct xfer_place){.self = mem,
                                     .base = (uintptr_t)mem->base,
                                     .bytes = mem->bytes,
                                     .key = mem->key,
                                     .access = mem->access,
                                     .map = mem->base};
    int rc = fabric_mem_open(x, mem, why);
    if (rc) return rc;
    pthread_mutex_lock(&x->lock);
    rc = x->stopping ? err_set(why, ERR_CANCELED, "engine is closing")
                     : table_add(x, mem, why);
    if (!rc) mems_tell(x);
    pthread_mutex_unlock(&x->lock);
    return rc;
}

static int access_check(unsigned access, size_t bytes, struct why *why)
{
    if (bytes == 0) return err_set(why, ERR_INVALID, "memory of 0 bytes");
    if (access != XFER_LOCAL_ONLY &&
        access & ~(unsigned)(XFER_REMOTE_READ | XFER_REMOTE_WRITE))
        return err_set(why, ERR_INVALID, "unknown access 0x%x", access);
    return 0;
}

static int memfd_map(struct xfer_mem *mem, size_t bytes, struct why *why)
{
    mem->fd = memfd_create("baton-xfer", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (mem->fd < 0) return err_sys(why, ERR_IO, errno, "memfd_create");
    if (ftruncate(mem->fd, (off_t)bytes) ||
        fcntl(mem->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
        return err_sys(why, ERR_IO, errno, "memfd of %zu bytes", bytes);
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_NORESERVE, mem->fd, 0);
    if (at == MAP_FAILED)
        return err_sys(why, ERR_NOMEM, errno, "mapping %zu bytes", bytes);
    mem->base = at;
    mem->bytes = bytes;
    return 0;
}

int xfer_alloc(struct xfer *x, size_t bytes, unsigned access,
               struct xfer_mem **out, struct why *why)
{
    *out = NULL;
    int rc = access_check(access, bytes, why);
    if (rc) return rc;
    struct xfer_mem *mem = mem_try(1, sizeof *mem, 0);
    if (!mem) return err_set(why, ERR_NOMEM, "out of memory");
    rc = memfd_map(mem, bytes, why);
    if (!rc) rc = mem_add(x, mem, access, why);
    if (rc)
        mem_release(mem);
    else
        *out = mem;
    return rc;
}

static bool is_host_memory(const char *location)
{
    return !location || !*location || !strcmp(location, "*") ||
           !strcmp(location, "cpu") || !strncmp(location, "cpu:", 4);
}

int xfer_register(struct xfer *x, void *addr, size_t bytes,
                  const char *location, unsigned access, struct xfer_mem **out,
                  struct why *why)
{
    *out = NULL;
    int rc = access_check(access, bytes, why);
    if (rc) return rc;
    if (!addr || (uintptr_t)addr > UINTPTR_MAX - bytes)
        return err_set(why, ERR_INVALID, "memory at %p + %zu", addr, bytes);
    if (!is_host_memory(location))
        return err_set(why, ERR_UNSUPPORTED,
                       "memory at \"%s\": this build has no transport for it",
                       location);
    struct xfer_mem *mem = mem_try(1, sizeof *mem, 0);
    if (!mem) return err_set(why, ERR_NOMEM, "out of memory");
    mem->base = addr;
    mem->bytes = bytes;
    mem->fd = -1;
    rc = mem_add(x, mem, access, why);
    if (rc)
        mem_release(mem);
    else
        *out = mem;
    return rc;
}

void mem_user_drop(struct xfer_mem *mem)
{
    mem->users--;
    if (mem->closing && !mem->users)
        pthread_cond_broadcast(&mem->x->quiet_cond);
}

void xfer_deregister(struct xfer_mem *mem)
{
    struct xfer *x = mem->x;
    pthread_mutex_lock(&x->lock);
    mem->closing = true;
    mems_tell(x);
    while (mem->users || mem->announced)
        pthread_cond_wait(&x->quiet_cond, &x->lock);
    table_remove(x, mem);
    pthread_mutex_unlock(&x->lock);
    mem_release(mem);
}

void mem_free_all(struct xfer *x)
{
    while (x->mem_count)
        mem_release(x->mems[--x->mem_count]);
    mem_free(x->mems);
    x->mems = NULL;
}

struct xfer_mem *xfer_mem_find(struct xfer *x, const void *addr)
{
    pthread_mutex_lock(&x->lock);
    struct xfer_mem *mem = mem_at(x, (uintptr_t)addr, 1);
    if (mem && mem->base != addr) mem = NULL;
    pthread_mutex_unlock(&x->lock);
    return mem;
}

void *xfer_mem_base(const struct xfer_mem *mem)
{
    return mem->base;
}

size_t xfer_mem_bytes(const struct xfer_mem *mem)
{
    return mem->bytes;
}

uint64_t xfer_mem_key(const struct xfer_mem *mem)
{
    return mem->key;
}
