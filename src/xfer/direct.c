/* Same host: the DIRECT connection tells an initiator of the target's memory,
 * which it then maps (memfd) or writes and reads through the kernel (CMA).
 *
 * The fence page makes both safe to end: before each touch the initiator says
 * "busy", and looks whether it was shut out; a target that must be sure shuts
 * out, then waits for "busy" to end (docs/wire.md, Same host). */
#include "xfer/conn.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FENCE_BYTES = 4096 };

/* ---- the initiator's view: places ---- */

static struct xfer_place *place_below(struct xfer_link *link, uint64_t addr)
{
    size_t lo = 0, hi = link->place_count;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (link->places[mid]->base > addr)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo ? link->places[lo - 1] : NULL;
}

struct xfer_place *link_place(struct xfer_link *link, const struct xfer_op *op)
{
    struct xfer_place *place;
    uint64_t span = op_remote_span(op);
    if (link->self) {
        struct xfer_mem *mem = mem_at(link->x, op->remote, span);
        place = mem ? &mem->place : NULL;
    } else {
        place = place_below(link, op->remote);
    }
    if (!place || place->dropped) return NULL;
    uint64_t offset = op->remote - place->base;
    unsigned need =
        op->kind == XFER_WRITE ? XFER_REMOTE_WRITE : XFER_REMOTE_READ;
    bool inside = offset < place->bytes && span <= place->bytes - offset;
    bool allowed = place->access & need && (!op->key || op->key == place->key);
    return inside && allowed ? place : NULL;
}

void link_place_hold(struct xfer_place *place)
{
    place->users++;
}

void link_place_drop(struct xfer_place *place)
{
    if (--place->users || !place->dropped) return;
    struct xfer_link *link = place->link;
    struct conn *c = link->direct ? link->direct : link->control;
    if (c && !link->dead) conn_attend(c, ATTEND_PUMP);
}

static void place_free(struct xfer_place *place)
{
    if (place->map) munmap(place->map, place->bytes);
    mem_free(place);
}

void link_direct_close(struct xfer_link *link)
{
    while (link->place_count)
        place_free(link->places[--link->place_count]);
    mem_free(link->places);
    link->places = NULL;
    if (link->fence) munmap(link->fence, FENCE_BYTES);
    if (link->pidfd >= 0) close(link->pidfd);
    if (link->direct_fd >= 0) close(link->direct_fd);
}

int link_fence_enter(struct xfer_link *link, struct why *why)
{
    atomic_fetch_add(&link->fence->busy, 1);
    if (!atomic_load(&link->fence->revoked)) return 0;
    link_fence_leave(link);
    return err_set(why, ERR_PEER, "peer %s has shut us out", link->peer->name);
}

void link_fence_leave(struct xfer_link *link)
{
    atomic_fetch_sub(&link->fence->busy, 1);
}

/* ---- way CMA ---- */

static struct xfer_place *cma_find(struct xfer_link *link,
                                   const struct xfer_op *op)
{
    return link->cma ? link_place(link, op) : NULL;
}

/* Its number cannot be another process's yet: the pidfd tells of the end
 * before the number is free again. */
static bool process_lives(const struct xfer_link *link)
{
    struct pollfd p = {.fd = link->pidfd, .events = POLLIN};
    return poll(&p, 1, 0) == 0;
}

static int cma_move(struct xfer_chunk *chunk, const struct iovec *here,
                    const struct iovec *there, size_t n, struct why *why)
{
    const struct xfer_link *link = chunk->link;
    size_t want = 0;
    for (size_t i = 0; i < n; i++)
        want += here[i].iov_len;
    if (!process_lives(link))
        return err_set(why, ERR_PEER, "process of peer %s has ended",
                       link->peer->name);
    ssize_t did = chunk->kind == XFER_WRITE
                      ? process_vm_writev(link->pid, here, n, there, n, 0)
                      : process_vm_readv(link->pid, here, n, there, n, 0);
    if (did == (ssize_t)want) return 0;
    int e = did < 0 ? errno : 0;
    if ((e && e != EFAULT) || !process_lives(link))
        return err_sys(why, ERR_PEER, e ? e : ESRCH,
                       "copy to process %d of peer %s", link->pid,
                       link->peer->name);
    return err_set(
        why, ERR_RANGE, "peer %s: its memory at 0x%llx is not mapped",
        link->peer->name, (unsigned long long)(uintptr_t)there[0].iov_base);
}

static int cma_pieces(struct xfer_chunk *chunk, struct why *why)
{
    struct iovec here[IOV_BATCH], there[IOV_BATCH];
    size_t n = 0;
    for (size_t i = 0; i < chunk->count; i++) {
        const struct xfer_piece *p = &chunk->pieces[i];
        for (uint64_t row = 0; row < p->rows; row++) {
            uintptr_t remote = p->remote + row * p->remote_pitch;
            here[n] = (struct iovec){p->local + row * p->local_pitch, p->bytes};
            there[n] = (struct iovec){(void *)remote, p->bytes};
            if (++n < IOV_BATCH) continue;
            int rc = cma_move(chunk, here, there, n, why);
            if (rc) return rc;
            n = 0;
        }
    }
    return n ? cma_move(chunk, here, there, n, why) : 0;
}

static int cma_copy(struct xfer_chunk *chunk, struct why *why)
{
    int rc = link_fence_enter(chunk->link, why);
    if (rc) return rc;
    rc = cma_pieces(chunk, why);
    link_fence_leave(chunk->link);
    return rc;
}

const struct xfer_way xfer_way_cma = {.name = "cma",
                                      .via = XFER_VIA_CMA,
                                      .find = cma_find,
                                      .hold = link_place_hold,
                                      .drop = link_place_drop,
                                      .copy = cma_copy};

/* ---- frames at the initiator ---- */

static int fd_take(struct conn *c)
{
    if (!c->fd_count) return -1;
    int fd = c->fds[0];
    memmove(c->fds, c->fds + 1, --c->fd_count * sizeof c->fds[0]);
    return fd;
}

/* Maps a sealed memfd of the peer; it cannot shrink under us. */
static void *sealed_map(int fd, size_t bytes, int prot)
{
    int seals = fcntl(fd, F_GET_SEALS);
    off_t size = lseek(fd, 0, SEEK_END);
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || size < 0 ||
        (uint64_t)size < bytes)
        return NULL;
    void *at = mmap(NULL, bytes, prot, MAP_SHARED | MAP_NORESERVE, fd, 0);
    return at == MAP_FAILED ? NULL : at;
}

/* Whether the kernel lets us into the peer's process, and it is the right one:
 * the secret number is where it says. */
static bool cma_try(int pid, uint64_t addr, uint64_t secret)
{
    uint64_t found = 0;
    struct iovec here = {&found, sizeof found};
    struct iovec there = {(void *)(uintptr_t)addr, sizeof found};
    return addr && pid > 0 &&
           process_vm_readv(pid, &here, 1, &there, 1, 0) == sizeof found &&
           found == secret;
}

static int fence_in(struct conn *c, const struct wire_header *h,
                    struct why *why)
{
    struct xfer_link *link = c->link;
    struct ucred who = {0};
    socklen_t n = sizeof who;
    int fd = h->flags ? fd_take(c) : -1;
    if (fd < 0 || link->fence) {
        if (fd >= 0) close(fd);
        return err_set(why, ERR_FORMAT, "fence without a descriptor");
    }
    struct fence *fence = sealed_map(fd, FENCE_BYTES, PROT_READ | PROT_WRITE);
    close(fd);
    if (!fence) return err_set(why, ERR_FORMAT, "fence that cannot be mapped");
    getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &who, &n);
    int pidfd = who.pid > 0 ? (int)syscall(SYS_pidfd_open, who.pid, 0) : -1;
    bool cma = link->x->opt.via & XFER_VIA_CMA && pidfd >= 0 &&
               cma_try(who.pid, h->aux, h->id);
    pthread_mutex_lock(&c->x->lock);
    link->fence = fence;
    link->pid = who.pid;
    link->pidfd = pidfd;
    link->cma = cma;
    pthread_mutex_unlock(&c->x->lock);
    return 0;
}

int link_place_add(struct xfer_link *link, struct xfer_place *place)
{
    if (link->place_count == link->place_cap) {
        size_t cap = link->place_cap ? link->place_cap * 2 : 16;
        void *grown =
            mem_retry(link->places, cap * sizeof(struct xfer_place *));
        if (!grown) return ERR_NOMEM;
        link->places = grown;
        link->place_cap = cap;
    }
    size_t at = link->place_count++;
    for (; at && link->places[at - 1]->base > place->base; at--)
        link->places[at] = link->places[at - 1];
    link->places[at] = place;
    return 0;
}

static int region_in(struct conn *c, const struct wire_header *h,
                     const uint8_t *body, struct why *why)
{
    struct xfer_link *link = c->link;
    struct wire_region region;
    int fd = h->flags ? fd_take(c) : -1;
    int rc = wire_region_decode(&region, h, body, why);
    if (!rc && ((h->flags && fd < 0) || link->place_count >= REGIONS_MAX))
        rc = err_set(why, ERR_FORMAT, "region without a descriptor");
    struct xfer_place *place = rc ? NULL : mem_try(1, sizeof *place, 0);
    if (!rc && !place) rc = err_set(why, ERR_NOMEM, "out of memory");
    if (!rc) {
        *place = (struct xfer_place){.link = link,
                                     .id = h->id,
                                     .base = h->aux,
                                     .bytes = h->bytes,
                                     .key = region.key,
                                     .access = region.access};
        bool map = fd >= 0 && link->x->opt.via & XFER_VIA_MEMFD;
        int prot = region.access & XFER_REMOTE_WRITE ? PROT_READ | PROT_WRITE
                                                     : PROT_READ;
        if (map) place->map = sealed_map(fd, h->bytes, prot);
        pthread_mutex_lock(&c->x->lock);
        rc = link_place_add(link, place);
        pthread_mutex_unlock(&c->x->lock);
        if (rc) place_free(place);
    }
    if (fd >= 0) close(fd);
    return rc;
}

/* Lets go of dropped places that nobody uses any more, and says so. */
void link_places_reap(struct conn *c)
{
    struct xfer_link *link = c->link;
    pthread_mutex_lock(&c->x->lock);
    for (size_t i = link->place_count; i-- > 0;) {
        struct xfer_place *place = link->places[i];
        if (!place->dropped || place->users) continue;
        link->place_count--;
        memmove(link->places + i, link->places + i + 1,
                (link->place_count - i) * sizeof(struct xfer_place *));
        conn_send(c, &(struct wire_header){.type = WIRE_GONE, .id = place->id},
                  NULL, 0, -1, false);
        place_free(place);
    }
    pthread_mutex_unlock(&c->x->lock);
}

void link_place_dropped(struct conn *c, uint64_t id)
{
    struct xfer_link *link = c->link;
    pthread_mutex_lock(&c->x->lock);
    for (size_t i = 0; i < link->place_count; i++)
        if (link->places[i]->id == id) link->places[i]->dropped = true;
    pthread_mutex_unlock(&c->x->lock);
    link_places_reap(c);
}

/* ---- frames at the target ---- */

static int fence_create(struct conn *c, struct why *why)
{
    c->fence_fd = memfd_create("baton-fence", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (c->fence_fd < 0 || ftruncate(c->fence_fd, FENCE_BYTES) ||
        fcntl(c->fence_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL))
        return err_sys(why, ERR_IO, errno, "fence page");
    c->fence = sealed_map(c->fence_fd, FENCE_BYTES, PROT_READ | PROT_WRITE);
    return c->fence ? 0 : err_sys(why, ERR_IO, errno, "fence page");
}

/* Remembers that the peer is told of mem. Under the lock. */
static void announce(struct conn *c, struct xfer_mem *mem)
{
    struct announce *a = mem_must(1, sizeof *a);
    a->mem = mem;
    mem->announced++;
    TAILQ_INSERT_TAIL(&c->announces, a, next);
    uint8_t body[WIRE_REGION_BODY];
    wire_region_encode(
        &(struct wire_region){.key = mem->key, .access = mem->access}, body);
    bool map = mem->fd >= 0 && c->x->opt.via & XFER_VIA_MEMFD;
    conn_send(c,
              &(struct wire_header){.type = WIRE_REGION,
                                    .flags = map ? WIRE_HAS_FD : 0,
                                    .id = mem->id,
                                    .bytes = mem->bytes,
                                    .aux = (uintptr_t)mem->base},
              body, sizeof body, map ? mem->fd : -1, false);
}

void direct_attended(struct conn *c)
{
    struct xfer *x = c->x;
    struct announce *a;
    if (!c->inbound) {
        link_places_reap(c);
        return;
    }
    pthread_mutex_lock(&x->lock);
    for (size_t i = 0; i < x->mem_count; i++)
        if (x->mems[i]->id > c->announced_to && x->mems[i]->access &&
            !x->mems[i]->closing)
            announce(c, x->mems[i]);
    c->announced_to = x->mem_ids;
    TAILQ_FOREACH(a, &c->announces, next)
    {
        if (!a->mem->closing || a->drop_sent) continue;
        a->drop_sent = true;
        conn_send(c, &(struct wire_header){.type = WIRE_DROP, .id = a->mem->id},
                  NULL, 0, -1, false);
    }
    pthread_mutex_unlock(&x->lock);
}

int direct_opened(struct conn *c, struct why *why)
{
    int rc = fence_create(c, why);
    if (rc) return rc;
    struct wire_header h = {.type = WIRE_FENCE, .flags = WIRE_HAS_FD};
    if (c->x->opt.via & XFER_VIA_CMA) {
        h.id = c->x->probe;
        h.aux = (uintptr_t)&c->x->probe;
    }
    conn_send(c, &h, NULL, 0, c->fence_fd, false);
    direct_attended(c);
    conn_send(c, &(struct wire_header){.type = WIRE_REGIONS}, NULL, 0, -1,
              false);
    return 0;
}

static void gone_in(struct conn *c, uint64_t id)
{
    struct announce *a;
    pthread_mutex_lock(&c->x->lock);
    TAILQ_FOREACH(a, &c->announces, next)
    if (a->drop_sent && a->mem->id == id) break;
    if (a) {
        TAILQ_REMOVE(&c->announces, a, next);
        a->mem->announced--;
        mem_free(a);
        pthread_cond_broadcast(&c->x->quiet_cond);
    }
    pthread_mutex_unlock(&c->x->lock);
}

void direct_revoke(struct conn *c)
{
    atomic_store(&c->fence->revoked, 1);
}

bool direct_quiet(const struct conn *c)
{
    return !c->fence || atomic_load(&c->fence->busy) == 0;
}

void direct_end(struct conn *c)
{
    for (struct announce *a; (a = TAILQ_FIRST(&c->announces));) {
        TAILQ_REMOVE(&c->announces, a, next);
        a->mem->announced--;
        mem_free(a);
    }
    if (c->fence) munmap(c->fence, FENCE_BYTES);
    c->fence = NULL;
}

int direct_in(struct conn *c, const struct wire_header *h, const uint8_t *body,
              struct why *why)
{
    if (c->inbound && h->type == WIRE_GONE) {
        gone_in(c, h->id);
        return 0;
    }
    if (!c->inbound && h->type == WIRE_FENCE) return fence_in(c, h, why);
    if (!c->inbound && h->type == WIRE_REGION)
        return region_in(c, h, body, why);
    if (!c->inbound && h->type == WIRE_DROP) {
        link_place_dropped(c, h->id);
        return 0;
    }
    if (!c->inbound && h->type == WIRE_REGIONS && c->link->fence) {
        pthread_mutex_lock(&c->x->lock);
        if (!c->link->up) link_up(c->link);
        pthread_mutex_unlock(&c->x->lock);
        return 0;
    }
    return err_set(why, ERR_FORMAT, "frame of type %u on a direct connection",
                   h->type);
}
