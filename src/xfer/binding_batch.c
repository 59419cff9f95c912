/* Bindings: transfers. */
#include "xfer/binding_core.h"

#include "base/mem.h"

#include <string.h>

static int ops_make(enum xfer_kind kind, size_t n, const uint64_t *local,
                    const uint64_t *remote, const uint64_t *bytes,
                    struct xfer_op **out, uint64_t *total, struct why *why)
{
    *out = NULL;
    *total = 0;
    if ((unsigned)kind > XFER_READ || (n && (!local || !remote || !bytes)))
        return err_set(why, ERR_INVALID, "no such kind, or no lists");
    struct xfer_op *ops = mem_try(n ? n : 1, sizeof *ops, 0);
    if (!ops) return err_set(why, ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < n; i++) {
        /* The numbers are addresses; that is what bindings have. */
        ops[i] = (struct xfer_op){.kind = kind,
                                  .local = (void *)(uintptr_t)local[i],
                                  .remote = remote[i],
                                  .bytes = bytes[i]};
        if (bytes[i] > UINT64_MAX / 2 - *total) {
            mem_free(ops);
            return err_set(why, ERR_INVALID, "range %zu of %llu bytes", i,
                           (unsigned long long)bytes[i]);
        }
        *total += bytes[i];
    }
    *out = ops;
    return 0;
}

static int timeout_of(const struct xfer_binding *b, const struct parcel *p,
                      int timeout_ms)
{
    uint64_t ms = (uint64_t)b->settings.timeout_ms + p->total / 1000000;
    if (timeout_ms >= 0) return timeout_ms;
    return ms > INT32_MAX ? INT32_MAX : (int)ms;
}

int parcel_wait(struct xfer_binding *b, const struct parcel *p, int timeout_ms,
                struct why *why)
{
    struct xfer_done done;
    timeout_ms = timeout_of(b, p, timeout_ms);
    if (xfer_wait(b->x, p->tag, timeout_ms, &done) != ERR_TIMEOUT)
        return done.rc ? err_set(why, done.rc, "%s", done.text) : 0;
    xfer_cancel(b->x, p->tag);
    xfer_wait(b->x, p->tag, -1, &done);
    if (!done.rc) return 0; /* just in time */
    return err_set(why, ERR_TIMEOUT, "%s: not done in %d ms", p->k->name,
                   timeout_ms);
}

static int parcel_pack(struct xfer_binding *b, struct parcel *p,
                       const char *peer, enum xfer_kind kind, size_t n,
                       const uint64_t *local, const uint64_t *remote,
                       const uint64_t *bytes,
                       const struct xfer_binding_note *after, struct why *why)
{
    p->k = NULL;
    p->tag = atomic_fetch_add(&b->ids, 1);
    int rc = ops_make(kind, n, local, remote, bytes, &p->ops, &p->total, why);
    if (rc) return rc;
    p->batch = (struct xfer_batch){.ops = p->ops, .count = n, .tag = p->tag};
    if (after) {
        rc = note_encode(after, p->note, &p->batch.note_bytes, why);
        p->batch.note = p->note;
    }
    if (rc) return rc;
    p->k = known_take(b, peer, why);
    return p->k ? 0 : why->code;
}

int xfer_binding_transfer(struct xfer_binding *b, const char *peer,
                          enum xfer_kind kind, size_t n, const uint64_t *local,
                          const uint64_t *remote, const uint64_t *bytes,
                          const struct xfer_binding_note *after, int timeout_ms,
                          struct why *why)
{
    struct parcel p;
    struct why mine = {0};
    int rc = binding_enter(b, why);
    if (rc) return rc;
    rc = parcel_pack(b, &p, peer, kind, n, local, remote, bytes, after, &mine);
    if (!rc && !after) { /* which the engine does best by this thread */
        rc = xfer_transfer(p.k->peer, p.ops, n, timeout_of(b, &p, timeout_ms),
                           &mine);
    } else if (!rc) {
        rc = xfer_submit_batch(p.k->peer, &p.batch, &mine);
        if (!rc) rc = parcel_wait(b, &p, timeout_ms, &mine);
    }
    if (p.k) known_drop(b, p.k);
    mem_free(p.ops);
    binding_leave(b);
    return rc ? err_set(why, rc, "%s", why_text(&mine, rc)) : 0;
}

static void running_set(struct xfer_binding *b, uint64_t tag, struct known *k)
{
    pthread_mutex_lock(&b->lock);
    if (k)
        map_put(&b->running, tag, k);
    else
        map_remove(&b->running, tag);
    pthread_mutex_unlock(&b->lock);
}

int xfer_binding_submit(struct xfer_binding *b, const char *peer,
                        enum xfer_kind kind, size_t n, const uint64_t *local,
                        const uint64_t *remote, const uint64_t *bytes,
                        const struct xfer_binding_note *after, uint64_t *id,
                        struct why *why)
{
    struct parcel p;
    struct why mine = {0};
    *id = 0;
    int rc = binding_enter(b, why);
    if (rc) return rc;
    rc = parcel_pack(b, &p, peer, kind, n, local, remote, bytes, after, &mine);
    if (!rc) {
        running_set(b, p.tag, p.k); /* before anybody can ask for it */
        rc = xfer_submit_batch(p.k->peer, &p.batch, &mine);
        if (rc) running_set(b, p.tag, NULL);
    }
    if (rc && p.k) known_drop(b, p.k);
    if (!rc) *id = p.tag;
    mem_free(p.ops);
    binding_leave(b);
    return rc ? err_set(why, rc, "%s", why_text(&mine, rc)) : 0;
}

int xfer_binding_finish(struct xfer_binding *b, uint64_t id, int timeout_ms,
                        struct xfer_done *done)
{
    int rc = binding_enter(b, NULL);
    if (rc) return rc;
    /* Who takes id out of the map is the one that waits for it. */
    pthread_mutex_lock(&b->lock);
    struct known *k = map_remove(&b->running, id);
    pthread_mutex_unlock(&b->lock);
    rc = k ? xfer_wait(b->x, id, timeout_ms, done) : ERR_NOT_FOUND;
    if (rc == ERR_TIMEOUT)
        running_set(b, id, k);
    else if (k)
        known_drop(b, k);
    binding_leave(b);
    return rc;
}

void xfer_binding_cancel(struct xfer_binding *b, uint64_t id)
{
    if (binding_enter(b, NULL)) return;
    xfer_cancel(b->x, id);
    binding_leave(b);
}
