/* Copying ways: rows from here to there, and the threads that do it. */
#include "xfer/core.h"

#include "base/mem.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum {
    /* A batch from this size on is not kept in the writer's cache: stores
     * that bypass it save reading the destination (18.6 -> 22.5 GB/s for MiBs
     * on a Zen 5). Not for short rows: 4 KiB ones get slower, 14.5 -> 9. */
    STREAM_BATCH = 1 << 20,
    STREAM_ROW = 16 << 10,
};

#ifdef __SSE2__
static void copy_stream(char *to, const char *from, size_t n)
{
    size_t lead = -(uintptr_t)to & 63;
    memcpy(to, from, lead);
    to += lead;
    from += lead;
    for (n -= lead; n >= 64; n -= 64, to += 64, from += 64) {
        __m128i a = _mm_loadu_si128((const __m128i *)(const void *)from);
        __m128i b = _mm_loadu_si128((const __m128i *)(const void *)from + 1);
        __m128i c = _mm_loadu_si128((const __m128i *)(const void *)from + 2);
        __m128i d = _mm_loadu_si128((const __m128i *)(const void *)from + 3);
        _mm_stream_si128((__m128i *)(void *)to, a);
        _mm_stream_si128((__m128i *)(void *)to + 1, b);
        _mm_stream_si128((__m128i *)(void *)to + 2, c);
        _mm_stream_si128((__m128i *)(void *)to + 3, d);
    }
    memcpy(to, from, n);
}

static void stream_end(void)
{
    _mm_sfence();
}
#else
static void copy_stream(char *to, const char *from, size_t n)
{
    memcpy(to, from, n);
}

static void stream_end(void)
{
}
#endif

/* Copies rows between two spans; stream: past the cache, until stream_end. */
static void copy_rows(char *to, uint64_t to_pitch, const char *from,
                      uint64_t from_pitch, uint64_t bytes, uint64_t rows,
                      bool stream)
{
    stream = stream && bytes >= STREAM_ROW;
    for (; rows; rows--, to += to_pitch, from += from_pitch) {
        if (stream)
            copy_stream(to, from, bytes);
        else
            memcpy(to, from, bytes);
    }
}

/* ---- way self: registrations of our own ---- */

static struct xfer_place *self_find(struct xfer_link *link,
                                    const struct xfer_op *op)
{
    return link->self ? link_place(link, op) : NULL;
}

static void self_hold(struct xfer_place *place)
{
    place->self->users++;
}

static void self_drop(struct xfer_place *place)
{
    mem_user_drop(place->self);
}

static void pieces_copy(struct xfer_chunk *chunk, char *map, uint64_t base)
{
    bool stream = chunk->batch->bytes >= STREAM_BATCH;
    for (size_t i = 0; i < chunk->count; i++) {
        const struct xfer_piece *p = &chunk->pieces[i];
        char *remote = map + (p->remote - base);
        if (chunk->kind == XFER_WRITE)
            copy_rows(remote, p->remote_pitch, p->local, p->local_pitch,
                      p->bytes, p->rows, stream);
        else
            copy_rows(p->local, p->local_pitch, remote, p->remote_pitch,
                      p->bytes, p->rows, stream);
    }
    if (stream) stream_end();
}

static int self_copy(struct xfer_chunk *chunk, struct why *why)
{
    (void)why;
    pieces_copy(chunk, chunk->place->self->base, chunk->place->base);
    return 0;
}

const struct xfer_way xfer_way_self = {.name = "self",
                                       .via = XFER_VIA_SELF,
                                       .find = self_find,
                                       .hold = self_hold,
                                       .drop = self_drop,
                                       .copy = self_copy};

/* ---- way memfd: the peer's memory, mapped ---- */

static struct xfer_place *memfd_find(struct xfer_link *link,
                                     const struct xfer_op *op)
{
    if (!(link->x->opt.via & XFER_VIA_MEMFD) || !link->fence) return NULL;
    struct xfer_place *place = link_place(link, op);
    return place && place->map ? place : NULL;
}

static int memfd_copy(struct xfer_chunk *chunk, struct why *why)
{
    int rc = link_fence_enter(chunk->link, why);
    if (rc) return rc;
    pieces_copy(chunk, chunk->place->map, chunk->place->base);
    link_fence_leave(chunk->link);
    return 0;
}

const struct xfer_way xfer_way_memfd = {.name = "memfd",
                                        .via = XFER_VIA_MEMFD,
                                        .find = memfd_find,
                                        .hold = link_place_hold,
                                        .drop = link_place_drop,
                                        .copy = memfd_copy};

/* ---- workers ---- */

void worker_run_one(struct xfer *x, struct xfer_chunk *chunk)
{
    struct why why = {0};
    bool copies = chunk->way->copy != NULL;
    int rc =
        copies ? chunk->way->copy(chunk, &why) : chunk->way->ask(chunk, &why);
    pthread_mutex_lock(&x->lock);
    if (!copies) chunk->link->ask_busy = false;
    if (rc == ERR_PEER) link_fail(chunk->link, rc, why.text);
    xfer_chunk_done(chunk, rc, why.text);
    pthread_mutex_unlock(&x->lock);
}

/* The next chunk of any link, links in turn. Under the lock. */
static struct xfer_chunk *take_any(struct xfer *x)
{
    struct xfer_link *link;
    while ((link = TAILQ_FIRST(&x->copy_links))) {
        struct xfer_chunk *chunk =
            xfer_chunk_take(link, &link->copy_queue, XFER_CHUNK_BYTES);
        TAILQ_REMOVE(&x->copy_links, link, copying);
        link->in_copy_list = !TAILQ_EMPTY(&link->copy_queue);
        if (link->in_copy_list)
            TAILQ_INSERT_TAIL(&x->copy_links, link, copying);
        if (chunk) return chunk;
    }
    return NULL;
}

static void *worker_main(void *arg)
{
    struct xfer *x = arg;
    pthread_setname_np(pthread_self(), "xfer-copy");
    pthread_mutex_lock(&x->lock);
    while (!x->workers_quit) {
        struct xfer_chunk *chunk = take_any(x);
        if (!chunk) {
            pthread_cond_wait(&x->work_cond, &x->lock);
            continue;
        }
        pthread_mutex_unlock(&x->lock);
        worker_run_one(x, chunk);
        pthread_mutex_lock(&x->lock);
    }
    pthread_mutex_unlock(&x->lock);
    return NULL;
}

int workers_start(struct xfer *x, struct why *why)
{
    for (; x->worker_count < x->opt.workers; x->worker_count++) {
        int e = thread_start(&x->workers[x->worker_count], worker_main, x);
        if (e) return err_sys(why, ERR_IO, e, "cannot start a copy thread");
    }
    return 0;
}

void workers_stop(struct xfer *x)
{
    pthread_mutex_lock(&x->lock);
    x->workers_quit = true;
    pthread_cond_broadcast(&x->work_cond);
    pthread_mutex_unlock(&x->lock);
    while (x->worker_count)
        pthread_join(x->workers[--x->worker_count], NULL);
}
