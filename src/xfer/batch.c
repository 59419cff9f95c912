/* Batches: checked and copied at submit, routed over ways once the link is
 * up, taken in chunks, finished when the last chunk is back.
 *
 *     waiting (link NULL) -> routed: streams in the link's queues
 *       -> all taken -> all chunks back -> finished (x->done, or sync waiter)
 *
 * The first failure takes what is left out of the queues; the batch still
 * waits for its chunks, so that a completion always means quiet memory. */
#include "xfer/core.h"

#include "base/clock.h"
#include "base/mem.h"
#include "xfer/fabric.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { INLINE_BYTES = 64 << 10 }; /* a caller copies this much itself */

static void batch_free(struct batch *b)
{
    if (!b) return;
    mem_free(b->note_data);
    mem_free(b->locals);
    mem_free(b->sorted);
    mem_free(b->ops);
    mem_free(b);
}

/* ---- what the caller gave ---- */

/* Whether rows from at on do not overlap and stay in the address space. */
static bool span_fits(uint64_t at, uint64_t bytes, uint32_t rows,
                      uint64_t pitch)
{
    uint64_t last = 0, end;
    if (rows > 1 && (pitch < bytes ||
                     __builtin_mul_overflow(pitch, (uint64_t)rows - 1, &last)))
        return false;
    return !__builtin_add_overflow(last, bytes, &end) &&
           !__builtin_add_overflow(at, end, &end);
}

/* Rows that touch each other on both sides are one row. */
static int op_normalize(struct xfer_op *op, size_t index, struct why *why)
{
    uint64_t all;
    if (op->rows == 0) op->rows = 1;
    if (op->kind != XFER_WRITE && op->kind != XFER_READ)
        return err_set(why, ERR_INVALID, "operation %zu: kind %d", index,
                       (int)op->kind);
    if (!span_fits((uintptr_t)op->local, op->bytes, op->rows,
                   op->local_pitch) ||
        !span_fits(op->remote, op->bytes, op->rows, op->remote_pitch) ||
        __builtin_mul_overflow(op->bytes, (uint64_t)op->rows, &all))
        return err_set(why, ERR_INVALID,
                       "operation %zu: %u rows of %llu bytes, pitches %llu "
                       "and %llu",
                       index, op->rows, (unsigned long long)op->bytes,
                       (unsigned long long)op->local_pitch,
                       (unsigned long long)op->remote_pitch);
    if (op->rows > 1 && op->local_pitch == op->bytes &&
        op->remote_pitch == op->bytes) {
        op->bytes = all;
        op->rows = 1;
    }
    return 0;
}

static int note_copy(struct batch *b, const struct xfer_batch *from,
                     struct why *why)
{
    if (!from->note) return 0;
    if (from->note_bytes > XFER_NOTE_MAX)
        return err_set(why, ERR_INVALID, "note of %zu bytes", from->note_bytes);
    b->note_data = mem_retry(NULL, from->note_bytes + 1);
    if (!b->note_data) return err_set(why, ERR_NOMEM, "out of memory");
    memcpy(b->note_data, from->note, from->note_bytes);
    b->note_bytes = from->note_bytes;
    b->note = NOTE_LATER;
    return 0;
}

static int batch_create(struct batch **out, const struct xfer_batch *from,
                        struct why *why)
{
    *out = NULL;
    if (from->count && !from->ops)
        return err_set(why, ERR_INVALID, "no operations");
    struct batch *b = mem_try(1, sizeof *b, 0);
    if (!b) return err_set(why, ERR_NOMEM, "out of memory for a batch");
    size_t bytes;
    if (__builtin_mul_overflow(from->count, sizeof *b->ops, &bytes) ||
        !(b->ops = mem_retry(NULL, bytes))) {
        batch_free(b);
        return err_set(why, ERR_NOMEM, "out of memory for %zu operations",
                       from->count);
    }
    int rc = note_copy(b, from, why);
    if (rc) {
        batch_free(b);
        return rc;
    }
    b->tag = from->tag;
    if (from->epoch) {
        b->has_epoch = true;
        b->epoch = *from->epoch;
    }
    for (size_t i = 0; i < from->count; i++) {
        if (from->ops[i].bytes == 0) continue;
        struct xfer_op *op = &b->ops[b->count];
        *op = from->ops[i];
        rc = op_normalize(op, i, why);
        if (rc) {
            batch_free(b);
            return rc;
        }
        b->bytes += op->bytes * op->rows;
        b->count++;
    }
    *out = b;
    return 0;
}

static bool local_add(struct batch *b, struct xfer_mem *mem)
{
    if (mem->seen_by == b->serial) return true;
    if (b->local_count == b->local_cap) {
        size_t cap = b->local_cap ? b->local_cap * 2 : 4;
        void *grown = mem_retry(b->locals, cap * sizeof(struct xfer_mem *));
        if (!grown) return false;
        b->locals = grown;
        b->local_cap = cap;
    }
    mem->seen_by = b->serial;
    mem->users++;
    b->locals[b->local_count++] = mem;
    return true;
}

static void locals_drop(struct batch *b)
{
    while (b->local_count)
        mem_user_drop(b->locals[--b->local_count]);
}

/* Finds and holds the registration of each local range. */
static int locals_hold(struct xfer *x, struct batch *b, struct why *why)
{
    for (size_t i = 0; i < b->count; i++) {
        const struct xfer_op *op = &b->ops[i];
        uint64_t span = rows_span(op->bytes, op->rows, op->local_pitch);
        struct xfer_mem *mem = mem_at(x, (uintptr_t)op->local, span);
        int rc = 0;
        if (!mem)
            rc = err_set(why, ERR_RANGE,
                         "operation %zu: local memory %p + %llu is not "
                         "registered",
                         i, op->local, (unsigned long long)span);
        else if (!local_add(b, mem))
            rc = err_set(why, ERR_NOMEM, "out of memory for a batch");
        if (rc) {
            locals_drop(b);
            return rc;
        }
    }
    return 0;
}

/* ---- the end of a batch ---- */

void stream_unqueue(struct stream *s)
{
    if (!s->list) return;
    TAILQ_REMOVE(s->list, s, next);
    s->list = NULL;
}

static void batch_finish(struct batch *b)
{
    struct xfer *x = b->peer->x;
    TAILQ_REMOVE(&b->peer->batches, b, of_peer);
    if (TAILQ_EMPTY(&b->peer->batches) && !b->peer->refs) xfer_chores(x);
    locals_drop(b);
    x->batch_count--;
    x->stats.batches++;
    if (b->rc) x->stats.batches_failed++;
    b->finished = true;
    if (!b->sync) {
        TAILQ_INSERT_TAIL(&x->done, b, done);
        if (!x->done_signaled) {
            uint64_t one = 1;
            x->done_signaled = write(x->done_fd, &one, sizeof one) > 0;
        }
    }
    pthread_cond_broadcast(&x->done_cond);
}

void batch_settle(struct batch *b)
{
    if (b->chunks || b->finished) return;
    for (int i = 0; i < XFER_WAYS; i++)
        if (b->streams[i].list) return;
    if (b->note == NOTE_LATER)
        note_post(b);
    else if (b->note == NOTE_NONE)
        batch_finish(b);
}

/* A lost peer outranks a cancel: it says that the other side's memory may
 * still change. */
void batch_fail(struct batch *b, int rc, const char *text)
{
    note_forget(b);
    for (int i = 0; i < XFER_WAYS; i++)
        stream_unqueue(&b->streams[i]);
    if (!b->rc || (b->rc == ERR_CANCELED && rc != ERR_CANCELED)) {
        b->rc = rc;
        snprintf(b->text, sizeof b->text, "%s", text);
    }
    batch_settle(b);
}

void batches_fail_unrouted(struct xfer_peer *peer, int rc, const char *text)
{
    struct batch *b, *after;
    for (b = TAILQ_FIRST(&peer->batches); b; b = after) {
        after = TAILQ_NEXT(b, of_peer);
        if (!b->link) batch_fail(b, rc, text);
    }
}

void batches_fail_link(struct xfer_link *link, int rc, const char *text)
{
    struct batch *b, *after;
    for (b = TAILQ_FIRST(&link->peer->batches); b; b = after) {
        after = TAILQ_NEXT(b, of_peer);
        if (b->link == link) batch_fail(b, rc, text);
    }
}

/* Its link is looked at when it got no answer for CANCEL_MS since then. */
static void batch_hurry(struct batch *b, uint64_t since_ms)
{
    struct xfer_link *link = b->link;
    if (!b->hurry_ms || since_ms < b->hurry_ms) b->hurry_ms = since_ms;
    if (b->finished || !link) return;
    uint64_t by = b->hurry_ms + CANCEL_MS;
    if (!link->stuck_ms || by < link->stuck_ms) link->stuck_ms = by;
}

bool batches_stuck(const struct xfer_link *link, uint64_t now, uint64_t *next)
{
    const struct batch *b;
    *next = 0;
    TAILQ_FOREACH(b, &link->peer->batches, of_peer)
    {
        if (b->link != link || !b->hurry_ms) continue;
        uint64_t by = b->hurry_ms + CANCEL_MS;
        if (now >= by) return true;
        if (!*next || by < *next) *next = by;
    }
    return false;
}

static bool something_left(const struct batch *b)
{
    if (!b->link || b->note == NOTE_LATER || b->note == NOTE_READY) return true;
    for (int i = 0; i < XFER_WAYS; i++)
        if (b->streams[i].list) return true;
    return false;
}

/* Ends it early if that can be. */
static void batch_cancel(struct batch *b)
{
    if (something_left(b)) batch_fail(b, ERR_CANCELED, "canceled");
    batch_hurry(b, clock_ms());
}

size_t batches_cancel(struct xfer_peer *peer, const uint64_t *tag)
{
    size_t asked = 0;
    struct batch *b, *after;
    for (b = TAILQ_FIRST(&peer->batches); b; b = after) {
        after = TAILQ_NEXT(b, of_peer);
        if (tag && (b->tag != *tag || b->sync)) continue;
        asked++;
        batch_cancel(b);
    }
    return asked;
}

/* ---- routing ---- */

static const struct xfer_way *way_of(struct xfer_link *link,
                                     const struct xfer_op *op)
{
    struct fabric *f = link->x->fabric;
    const struct xfer_way *ways[] = {&xfer_way_self, &xfer_way_memfd,
                                     &xfer_way_cma, f ? f->ops->way : NULL,
                                     link->frames};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (ways[i] && ways[i]->find(link, op)) return ways[i];
    return NULL;
}

static void stream_queue(struct xfer_link *link, struct batch *b,
                         const struct xfer_way *way, struct xfer_op *ops,
                         size_t count)
{
    struct stream *s = &b->streams[__builtin_ctz(way->via)];
    s->batch = b;
    s->way = way;
    s->ops = ops;
    s->count = count;
    s->list = way->copy             ? &link->copy_queue
              : way == link->frames ? &link->frame_queue
                                    : &link->fabric_queue;
    TAILQ_INSERT_TAIL(s->list, s, next);
}

/* Splits operations of several ways into one run of ops per way. */
static int batch_sort(struct xfer_link *link, struct batch *b)
{
    const struct xfer_way *ways[XFER_WAYS] = {NULL};
    size_t counts[XFER_WAYS] = {0}, at[XFER_WAYS], sum = 0;
    b->sorted = mem_retry(NULL, b->count * sizeof *b->sorted);
    if (!b->sorted) return ERR_NOMEM;
    for (size_t i = 0; i < b->count; i++) {
        const struct xfer_way *way = way_of(link, &b->ops[i]);
        ways[__builtin_ctz(way->via)] = way;
        counts[__builtin_ctz(way->via)]++;
    }
    for (int w = 0; w < XFER_WAYS; w++) {
        at[w] = sum;
        sum += counts[w];
    }
    for (size_t i = 0; i < b->count; i++) {
        int w = __builtin_ctz(way_of(link, &b->ops[i])->via);
        b->sorted[at[w]++] = b->ops[i];
    }
    for (int w = 0; w < XFER_WAYS; w++)
        if (counts[w])
            stream_queue(link, b, ways[w], b->sorted + at[w] - counts[w],
                         counts[w]);
    return 0;
}

/* No way has the range (none of them asks the target). */
static void batch_unreachable(struct xfer_link *link, struct batch *b,
                              const struct xfer_op *op)
{
    char text[200];
    struct xfer_op any_key = *op;
    any_key.key = 0;
    bool stale = op->key && way_of(link, &any_key);
    snprintf(text, sizeof text, "peer %.100s: 0x%llx + %llu: %s",
             link->peer->name, (unsigned long long)op->remote,
             (unsigned long long)op_remote_span(op),
             stale ? err_text(ERR_STALE) : "not in its registered memory");
    batch_fail(b, stale ? ERR_STALE : ERR_RANGE, text);
}

static void batch_route(struct xfer_link *link, struct batch *b)
{
    const struct xfer_way *first = NULL;
    bool mixed = false;
    b->link = link;
    if (b->hurry_ms) batch_hurry(b, b->hurry_ms);
    if (b->has_epoch && memcmp(&b->epoch, &link->epoch, sizeof b->epoch)) {
        batch_fail(b, ERR_STALE, "the peer has restarted: another epoch");
        return;
    }
    for (size_t i = 0; i < b->count; i++) {
        const struct xfer_op *op = &b->ops[i];
        const struct xfer_way *way = way_of(link, op);
        if (!way) {
            batch_unreachable(link, b, op);
            return;
        }
        if (!first) first = way;
        mixed |= way != first;
    }
    if (!mixed && first)
        stream_queue(link, b, first, b->ops, b->count);
    else if (mixed && batch_sort(link, b))
        batch_fail(b, ERR_NOMEM, "out of memory for a batch");
    batch_settle(b); /* of no operations */
}

static void link_kick(struct xfer_link *link)
{
    struct stream *s = TAILQ_FIRST(&link->frame_queue);
    if (s) s->way->kick(link);
    if (!TAILQ_EMPTY(&link->fabric_queue)) fabric_kick(link);
    if (TAILQ_EMPTY(&link->copy_queue)) return;
    if (!link->in_copy_list) {
        link->in_copy_list = true;
        TAILQ_INSERT_TAIL(&link->x->copy_links, link, copying);
    }
    pthread_cond_broadcast(&link->x->work_cond);
}

void batches_route(struct xfer_peer *peer)
{
    struct batch *b, *after;
    for (b = TAILQ_FIRST(&peer->batches); b; b = after) {
        after = TAILQ_NEXT(b, of_peer);
        if (!b->link) batch_route(peer->link, b);
    }
    link_kick(peer->link);
}

/* ---- the front door ---- */

/* Small work is done by the caller: no thread wakes. */
static struct xfer_chunk *take_inline(struct xfer_link *link, struct batch *b)
{
    struct stream *s = TAILQ_FIRST(&link->copy_queue);
    if (!s) return ask_take(link, b);
    if (s->batch != b || b->bytes > INLINE_BYTES) return NULL;
    return xfer_chunk_take(link, &link->copy_queue, INLINE_BYTES);
}

/* Under the lock; the batch is accepted when it returns 0. */
static int batch_accept(struct xfer_peer *peer, struct batch *b,
                        struct xfer_chunk **own, struct why *why)
{
    struct xfer *x = peer->x;
    if (x->stopping) return err_set(why, ERR_CANCELED, "engine is closing");
    if (x->batch_count >= x->opt.batches_max)
        return err_set(why, ERR_AGAIN, "%zu batches are unfinished",
                       x->batch_count);
    b->peer = peer;
    b->serial = ++x->batch_serials;
    int rc = locals_hold(x, b, why);
    if (rc) return rc;
    x->batch_count++;
    x->stats.ops += b->count;
    TAILQ_INSERT_TAIL(&peer->batches, b, of_peer);
    if (peer->link && peer->link->up) {
        struct xfer_link *link = peer->link;
        batch_route(link, b);
        *own = take_inline(link, b);
        link_kick(link);
    } else if (peer->state == XFER_DOWN) {
        peer_dial_now(peer);
    }
    return 0;
}

static int submit(struct xfer_peer *peer, struct batch *b, struct why *why)
{
    struct xfer *x = peer->x;
    struct xfer_chunk *own = NULL;
    pthread_mutex_lock(&x->lock);
    int rc = batch_accept(peer, b, &own, why);
    pthread_mutex_unlock(&x->lock);
    if (rc)
        batch_free(b);
    else if (own)
        worker_run_one(x, own);
    return rc;
}

int xfer_submit_batch(struct xfer_peer *peer, const struct xfer_batch *batch,
                      struct why *why)
{
    struct batch *b;
    int rc = batch_create(&b, batch, why);
    return rc ? rc : submit(peer, b, why);
}

int xfer_submit(struct xfer_peer *peer, const struct xfer_op *ops, size_t n,
                uint64_t tag, struct why *why)
{
    return xfer_submit_batch(
        peer, &(struct xfer_batch){.ops = ops, .count = n, .tag = tag}, why);
}

int xfer_transfer(struct xfer_peer *peer, const struct xfer_op *ops, size_t n,
                  int timeout_ms, struct why *why)
{
    struct xfer *x = peer->x;
    struct batch *b;
    uint64_t deadline = deadline_after(timeout_ms);
    int rc =
        batch_create(&b, &(struct xfer_batch){.ops = ops, .count = n}, why);
    if (rc) return rc;
    b->sync = true;
    if (deadline != UINT64_MAX) b->hurry_ms = deadline;
    rc = submit(peer, b, why);
    if (rc) return rc;
    bool late = false;
    pthread_mutex_lock(&x->lock);
    while (!b->finished) {
        if (cond_until(&x->done_cond, &x->lock, deadline)) continue;
        late = true;
        deadline = UINT64_MAX;
        batch_cancel(b);
    }
    pthread_mutex_unlock(&x->lock);
    rc = b->rc;
    if (rc && late)
        rc = err_set(why, ERR_TIMEOUT, "transfer with %s: not done in %d ms",
                     xfer_peer_name(peer), timeout_ms);
    else if (rc)
        err_set(why, rc, "%s", b->text);
    batch_free(b);
    return rc;
}

static void done_fill(struct xfer_done *out, const struct batch *b)
{
    out->tag = b->tag;
    out->rc = b->rc;
    out->bytes = b->bytes_done;
    snprintf(out->text, sizeof out->text, "%s", b->text);
}

/* Under the lock: b leaves the list of completions. */
static void done_take(struct xfer *x, struct batch *b)
{
    TAILQ_REMOVE(&x->done, b, done);
    if (!TAILQ_EMPTY(&x->done) || !x->done_signaled) return;
    uint64_t drained;
    x->done_signaled = read(x->done_fd, &drained, sizeof drained) < 0;
}

size_t xfer_poll(struct xfer *x, struct xfer_done *done, size_t cap)
{
    size_t n = 0;
    while (n < cap) {
        pthread_mutex_lock(&x->lock);
        struct batch *b = TAILQ_FIRST(&x->done);
        if (b) done_take(x, b);
        pthread_mutex_unlock(&x->lock);
        if (!b) break;
        done_fill(&done[n++], b);
        batch_free(b);
    }
    return n;
}

int xfer_wait(struct xfer *x, uint64_t tag, int timeout_ms,
              struct xfer_done *done)
{
    uint64_t deadline = deadline_after(timeout_ms);
    struct batch *b;
    pthread_mutex_lock(&x->lock);
    for (;;) {
        TAILQ_FOREACH(b, &x->done, done)
        if (b->tag == tag) break;
        if (b) {
            done_take(x, b);
            break;
        }
        if (!cond_until(&x->done_cond, &x->lock, deadline)) break;
    }
    pthread_mutex_unlock(&x->lock);
    if (!b) return ERR_TIMEOUT;
    done_fill(done, b);
    batch_free(b);
    return 0;
}

int xfer_fd(const struct xfer *x)
{
    return x->done_fd;
}

size_t xfer_cancel(struct xfer *x, uint64_t tag)
{
    size_t asked = 0;
    struct xfer_peer *peer;
    pthread_mutex_lock(&x->lock);
    TAILQ_FOREACH(peer, &x->peers, next)
    asked += batches_cancel(peer, &tag);
    pthread_mutex_unlock(&x->lock);
    return asked;
}

size_t xfer_cancel_peer(struct xfer_peer *peer)
{
    pthread_mutex_lock(&peer->x->lock);
    size_t asked = batches_cancel(peer, NULL);
    pthread_mutex_unlock(&peer->x->lock);
    return asked;
}
