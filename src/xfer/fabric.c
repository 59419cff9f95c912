#include "xfer/fabric.h"

#include "base/mem.h"
#include "xfer/conn.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* Of a link (initiator) or an inlink (target), which it keeps alive. */
struct fabric_end {
    TAILQ_ENTRY(fabric_end) next;
    struct fabric *f;
    struct xfer_link *link;
    struct inlink *in;
    void *lib;
    bool closing; /* under x->lock; the thread does the rest */
    /* initiator, under x->lock: the first word is to be sent; it is through;
     * the target has told its registrations */
    bool to_prove, proven, told;
    TAILQ_HEAD(work_list, fabric_work) works; /* the thread's */
    unsigned posted;
    /* target: io 0 and the thread, under x->lock */
    TAILQ_HEAD(, announce) announces;
    uint64_t announced_to;
};

/* ---- the thread ---- */

/* f->lock, for others than the thread, which comes back to it at once. */
static void lock(struct fabric *f)
{
    atomic_fetch_add(&f->wanted, 1);
    pthread_mutex_lock(&f->lock);
    atomic_fetch_sub(&f->wanted, 1);
}

static void unlock_to_others(struct fabric *f)
{
    pthread_mutex_unlock(&f->lock);
    while (atomic_load(&f->wanted))
        sched_yield();
}

static void wake(struct fabric *f)
{
    uint64_t one = 1;
    if (!f->signaled) f->signaled = write(f->wake, &one, sizeof one) > 0;
}

void fabric_end_later(struct fabric_end *end)
{
    if (!end || end->closing) return;
    end->closing = true;
    wake(end->f);
}

void fabric_kick(struct xfer_link *link)
{
    if (link->end) wake(link->end->f);
}

struct xfer_place *fabric_find(struct xfer_link *link, const struct xfer_op *op)
{
    struct xfer_place *place = link->fabric_up ? link_place(link, op) : NULL;
    return place && place->fabric_key ? place : NULL;
}

/* Under the lock, as the next three. */
static void link_ready(struct xfer_link *link)
{
    struct fabric_end *end = link->end;
    if (!end || end->closing || !end->proven || !end->told) return;
    link->fabric_up = true;
    if (!link->up) link_up(link);
}

/* The link goes on without, and without its end. */
static void give_up(struct xfer_link *link, const char *text)
{
    snprintf(link->direct_text, sizeof link->direct_text, "no %s: %s",
             link->x->fabric->ops->way->name, text);
    fabric_end_later(link->end);
    if (!link->up) link_up(link);
}

bool fabric_late(struct xfer_link *link)
{
    struct fabric_end *end = link->end;
    if (!end || !end->told || end->closing) return false;
    give_up(link, "its address does not answer");
    return true;
}

static void work_over(struct fabric_work *w, int rc, const char *text)
{
    struct fabric_end *end = w->end;
    struct xfer *x = end->f->x;
    TAILQ_REMOVE(&end->works, w, next);
    pthread_mutex_lock(&x->lock);
    if (w->chunk) {
        xfer_chunk_done(w->chunk, rc, text);
    } else if (!rc) {
        end->proven = true;
        link_ready(end->link);
    }
    pthread_mutex_unlock(&x->lock);
    mem_free(w);
}

void fabric_broke(struct fabric_end *end, const char *text)
{
    struct xfer *x = end->f->x;
    struct xfer_link *link = end->link;
    pthread_mutex_lock(&x->lock);
    if (end->in)
        inlink_fail(x, end->in);
    else if (!end->proven && !link->dead)
        give_up(link, text);
    else
        link_fail(link, ERR_PEER, text);
    pthread_mutex_unlock(&x->lock);
}

void fabric_done(struct fabric_work *w, int rc, const char *text)
{
    struct fabric_end *end = w->end;
    end->posted--;
    w->left--;
    w->failed |= rc == ERR_PEER;
    if (rc == ERR_PEER)
        fabric_broke(end, text); /* end_over gives the chunk back */
    else if (rc)
        err_set(&w->refused, rc, "%s", text);
    if (w->posted && !w->left && !w->failed)
        work_over(w, w->refused.code, w->refused.text);
}

static struct fabric_work *work_take(struct fabric_end *end)
{
    struct xfer *x = end->f->x;
    struct fabric_work *w = NULL;
    pthread_mutex_lock(&x->lock);
    struct xfer_chunk *chunk =
        end->closing ? NULL
                     : xfer_chunk_take(end->link, &end->link->fabric_queue,
                                       XFER_CHUNK_BYTES);
    if (chunk) {
        w = mem_must(1, sizeof *w);
        w->end = end;
        w->lib = end->lib;
        w->chunk = chunk;
        for (size_t i = 0; i < chunk->count; i++)
            w->locals[i] = mem_held_at(x, (uintptr_t)chunk->pieces[i].local);
        TAILQ_INSERT_TAIL(&end->works, w, next);
    }
    pthread_mutex_unlock(&x->lock);
    return w;
}

/* Both post what there is room for. */
static int work_send(struct fabric_work *w, struct why *why)
{
    struct fabric_end *end = w->end;
    int rc = 0;
    while (!rc && !w->posted && end->posted + 1 < FABRIC_POSTED_MAX) {
        end->posted++;
        w->left++;
        rc = end->f->ops->send(end->f, end->lib, w, why);
    }
    return rc;
}

static int work_post(struct fabric_work *w, struct why *why)
{
    struct fabric_end *end = w->end;
    struct fabric *f = end->f;
    const struct xfer_chunk *chunk = w->chunk;
    while (w->piece < chunk->count) {
        const struct xfer_piece *p = &chunk->pieces[w->piece];
        if (end->posted + 1 >= FABRIC_POSTED_MAX) return 0;
        struct fabric_op op = {.kind = chunk->kind,
                               .local = p->local + w->row * p->local_pitch,
                               .remote = p->remote + w->row * p->remote_pitch,
                               .bytes = p->bytes,
                               .mem = w->locals[w->piece]->fabric,
                               .key = chunk->place->fabric_key,
                               .work = w};
        end->posted++;
        w->left++;
        bool last = ++w->row == p->rows;
        if (last) w->row = 0;
        w->piece += last;
        w->posted = w->piece == chunk->count && chunk->kind == XFER_READ;
        int rc = f->ops->post(f, end->lib, &op, why);
        if (rc) return rc;
        if (w->posted) return 0;
    }
    if (end->posted >= FABRIC_POSTED_MAX) return 0;
    end->posted++;
    w->left++;
    w->posted = true;
    return f->ops->finish(f, end->lib, w, why);
}

/* The first word. */
static int end_prove(struct fabric_end *end, struct why *why)
{
    struct fabric_work *w = mem_must(1, sizeof *w);
    *w = (struct fabric_work){
        .end = end, .lib = end->lib, .left = 1, .posted = true};
    TAILQ_INSERT_TAIL(&end->works, w, next);
    end->posted++;
    return end->f->ops->finish(end->f, end->lib, w, why);
}

static void end_post(struct fabric_end *end, bool prove)
{
    struct why why = {0};
    int rc = prove ? end_prove(end, &why) : 0;
    if (prove && !rc) return;
    while (!rc && end->posted < FABRIC_POSTED_MAX) {
        struct fabric_work *w = TAILQ_LAST(&end->works, work_list);
        if (!w || w->posted) w = work_take(end);
        if (!w) return;
        rc = end->f->ops->send ? work_send(w, &why) : work_post(w, &why);
        if (!rc && end->posted + 1 >= FABRIC_POSTED_MAX) return;
    }
    if (rc) fabric_broke(end, why_text(&why, rc));
}

/* Nothing of it moves bytes any more: what waited for that goes on. */
static void end_over(struct fabric_end *end)
{
    struct fabric *f = end->f;
    struct xfer *x = f->x;
    struct why why = {0};
    f->ops->end_close(f, end->lib);
    if (end->link) xfer_peer_state(end->link->peer, &why);
    for (struct fabric_work *w; (w = TAILQ_FIRST(&end->works));)
        work_over(w, ERR_PEER, why_text(&why, ERR_PEER));
    pthread_mutex_lock(&x->lock);
    TAILQ_REMOVE(&f->ends, end, next);
    if (end->link) {
        end->link->end = NULL;
        link_drop(end->link);
    } else {
        for (struct announce *a; (a = TAILQ_FIRST(&end->announces));) {
            TAILQ_REMOVE(&end->announces, a, next);
            a->mem->announced--;
            mem_free(a);
        }
        end->in->end = NULL;
        inlink_drop(x, end->in);
    }
    pthread_cond_broadcast(&x->quiet_cond);
    pthread_mutex_unlock(&x->lock);
    mem_free(end);
}

/* The next end to post for or to close, after the one that was given; the
 * list changes only by this thread and by those that add to its tail. */
static struct fabric_end *end_after(struct fabric *f, struct fabric_end *end)
{
    pthread_mutex_lock(&f->x->lock);
    end = end ? TAILQ_NEXT(end, next) : TAILQ_FIRST(&f->ends);
    pthread_mutex_unlock(&f->x->lock);
    return end;
}

static void ends_turn(struct fabric *f)
{
    struct fabric_end *end = end_after(f, NULL);
    while (end) {
        struct fabric_end *next = end_after(f, end);
        pthread_mutex_lock(&f->x->lock);
        bool closing = end->closing, prove = end->to_prove;
        bool up = end->link && end->link->fabric_up;
        end->to_prove = false;
        pthread_mutex_unlock(&f->x->lock);
        if (closing)
            end_over(end);
        else if (up || prove)
            end_post(end, prove);
        end = next;
    }
}

static void *fabric_main(void *arg)
{
    struct fabric *f = arg;
    struct xfer *x = f->x;
    bool quit = false;
    pthread_setname_np(pthread_self(), "xfer-fabric");
    while (!quit) {
        uint64_t drained;
        pthread_mutex_lock(&x->lock);
        if (f->signaled) f->signaled = read(f->wake, &drained, 8) < 0;
        quit = f->quit && TAILQ_EMPTY(&f->ends);
        pthread_mutex_unlock(&x->lock);
        pthread_mutex_lock(&f->lock);
        ends_turn(f);
        bool busy = f->ops->progress(f);
        bool armed = !busy && f->ops->arm(f);
        unlock_to_others(f);
        struct pollfd fds[] = {{.fd = f->wake, .events = POLLIN},
                               {.fd = f->fd, .events = POLLIN}};
        if (armed && !quit) poll(fds, 2, -1);
    }
    return NULL;
}

/* ---- opening and closing ---- */

int fabric_open(struct xfer *x, struct why *why)
{
    static const struct fabric_ops *const all[] = {&fabric_rdma, &fabric_ucx};
    const struct fabric_ops *ops = NULL;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (!(x->opt.via & all[i]->way->via)) continue;
        if (ops)
            return err_set(why, ERR_INVALID, "an engine has %s or %s, not both",
                           ops->way->name, all[i]->way->name);
        ops = all[i];
    }
    if (!ops) return 0;
    struct fabric *f = x->fabric = mem_must(1, sizeof *f);
    f->x = x;
    f->ops = ops;
    f->fd = -1;
    TAILQ_INIT(&f->ends);
    pthread_mutex_init(&f->lock, NULL);
    f->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (f->wake < 0) return err_sys(why, ERR_IO, errno, "eventfd");
    int rc = ops->open(f, why);
    if (rc) return rc;
    int e = thread_start(&f->thread, fabric_main, f);
    if (e) return err_sys(why, ERR_IO, e, "cannot start a thread");
    f->running = true;
    return 0;
}

void fabric_close(struct xfer *x)
{
    struct fabric *f = x->fabric;
    if (!f) return;
    if (f->running) {
        pthread_mutex_lock(&x->lock);
        f->quit = true;
        wake(f);
        pthread_mutex_unlock(&x->lock);
        pthread_join(f->thread, NULL);
    }
    f->ops->close(f);
    if (f->wake >= 0) close(f->wake);
    pthread_mutex_destroy(&f->lock);
    mem_free(f);
    x->fabric = NULL;
}

int fabric_mem_open(struct xfer *x, struct xfer_mem *mem, struct why *why)
{
    struct fabric *f = x->fabric;
    if (!f || !f->ops->mem_open) return 0;
    struct fabric_mem *m = mem_must(1, sizeof *m);
    lock(f);
    int rc = f->ops->mem_open(f, mem, m, why);
    pthread_mutex_unlock(&f->lock);
    if (rc)
        mem_free(m);
    else
        mem->fabric = m;
    return rc;
}

void fabric_mem_close(struct xfer *x, struct xfer_mem *mem)
{
    if (!mem->fabric) return;
    struct fabric *f = x->fabric;
    lock(f);
    f->ops->mem_close(f, mem->fabric);
    pthread_mutex_unlock(&f->lock);
    mem_free(mem->fabric);
    mem->fabric = NULL;
}

/* ---- initiator ---- */

static struct fabric_end *end_create(struct fabric *f, bool target,
                                     uint8_t *addr, size_t *n, struct why *why)
{
    struct fabric_end *end = mem_must(1, sizeof *end);
    end->f = f;
    TAILQ_INIT(&end->works);
    TAILQ_INIT(&end->announces);
    lock(f);
    int rc = f->ops->end_open(f, end, target, &end->lib, addr, n, why);
    pthread_mutex_unlock(&f->lock);
    if (!rc) return end;
    mem_free(end);
    return NULL;
}

void fabric_offer(struct conn *c)
{
    struct fabric *f = c->x->fabric;
    struct xfer_link *link = c->link;
    uint8_t addr[FABRIC_ADDR_MAX];
    size_t n = 0;
    struct why why = {0};
    struct fabric_end *end = end_create(f, false, addr, &n, &why);
    pthread_mutex_lock(&c->x->lock);
    if (end) {
        end->link = link;
        link->refs++;
        link->end = end;
        TAILQ_INSERT_TAIL(&f->ends, end, next);
        if (link->dead) fabric_end_later(end);
    } else {
        give_up(link, why.text);
    }
    pthread_mutex_unlock(&c->x->lock);
    if (!end) return;
    conn_send(c,
              &(struct wire_header){
                  .type = WIRE_OFFER, .count = f->ops->number, .bytes = n},
              addr, n, -1, false);
}

/* Under f->lock, which keeps it. */
static struct fabric_end *end_of(struct xfer_link *link)
{
    pthread_mutex_lock(&link->x->lock);
    struct fabric_end *end = link->end;
    if (end && end->closing) end = NULL;
    pthread_mutex_unlock(&link->x->lock);
    return end;
}

static int accept_in(struct conn *c, const struct wire_header *h,
                     const uint8_t *body, struct why *why)
{
    struct fabric *f = c->x->fabric;
    char text[120];
    int rc = 0;
    if (h->count) {
        snprintf(text, sizeof text, "%.*s", (int)h->bytes, (const char *)body);
        pthread_mutex_lock(&c->x->lock);
        give_up(c->link, text);
        pthread_mutex_unlock(&c->x->lock);
        return 0;
    }
    lock(f);
    struct fabric_end *end = end_of(c->link);
    if (end)
        rc = f->ops->end_connect(f, end->lib, body, h->bytes, why);
    else
        rc = err_set(why, ERR_FORMAT, "an answer to no offer");
    pthread_mutex_lock(&c->x->lock);
    if (end && rc) give_up(c->link, why_text(why, rc));
    if (!rc) end->to_prove = true;
    wake(f);
    pthread_mutex_unlock(&c->x->lock);
    pthread_mutex_unlock(&f->lock);
    return end ? 0 : rc;
}

static int key_open(struct fabric_end *end, const uint8_t *key, size_t n,
                    uint64_t *out, struct why *why)
{
    *out = 1; /* messages need none */
    if (!end->f->ops->key_open) return 0;
    return end->f->ops->key_open(end->lib, key, n, out, why);
}

static int keys_in(struct conn *c, const struct wire_header *h,
                   const uint8_t *body, struct why *why)
{
    struct xfer_link *link = c->link;
    struct fabric *f = c->x->fabric;
    struct wire_region region;
    int rc = wire_region_decode(&region, h, body, why);
    if (rc) return rc;
    struct xfer_place *place = mem_try(1, sizeof *place, 0);
    if (!place) return err_set(why, ERR_NOMEM, "out of memory");
    *place = (struct xfer_place){.link = link,
                                 .id = h->id,
                                 .base = h->aux,
                                 .bytes = h->bytes,
                                 .key = region.key,
                                 .access = region.access};
    lock(f);
    struct fabric_end *end = end_of(link);
    if (link->place_count >= REGIONS_MAX)
        rc = err_set(why, ERR_FORMAT, "too many keys");
    if (!rc && end) /* else we gave it up, and only answer DROP */
        rc = key_open(end, body + WIRE_REGION_BODY, h->count,
                      &place->fabric_key, why);
    if (!rc) {
        pthread_mutex_lock(&c->x->lock);
        rc = link_place_add(link, place);
        pthread_mutex_unlock(&c->x->lock);
    }
    pthread_mutex_unlock(&f->lock);
    if (rc) mem_free(place);
    return rc;
}

/* ---- target ---- */

static void announce(struct conn *c, struct fabric_end *end,
                     struct xfer_mem *mem)
{
    uint8_t body[WIRE_REGION_BODY + FABRIC_KEY_MAX];
    struct announce *a = mem_must(1, sizeof *a);
    a->mem = mem;
    mem->announced++;
    TAILQ_INSERT_TAIL(&end->announces, a, next);
    wire_region_encode(
        &(struct wire_region){.key = mem->key, .access = mem->access}, body);
    size_t n = mem->fabric ? mem->fabric->key_bytes : 0;
    if (n) memcpy(body + WIRE_REGION_BODY, mem->fabric->key, n);
    conn_send(c,
              &(struct wire_header){.type = WIRE_KEYS,
                                    .count = (uint32_t)n,
                                    .id = mem->id,
                                    .bytes = mem->bytes,
                                    .aux = (uintptr_t)mem->base},
              body, WIRE_REGION_BODY + n, -1, false);
}

void fabric_attended(struct conn *c)
{
    struct xfer *x = c->x;
    struct announce *a;
    pthread_mutex_lock(&x->lock);
    struct fabric_end *end = c->in ? c->in->end : NULL;
    for (size_t i = 0; end && i < x->mem_count; i++)
        if (x->mems[i]->id > end->announced_to && x->mems[i]->access &&
            !x->mems[i]->closing)
            announce(c, end, x->mems[i]);
    if (end) {
        end->announced_to = x->mem_ids;
        TAILQ_FOREACH(a, &end->announces, next)
        {
            if (!a->mem->closing || a->drop_sent) continue;
            a->drop_sent = true;
            conn_send(
                c, &(struct wire_header){.type = WIRE_DROP, .id = a->mem->id},
                NULL, 0, -1, false);
        }
    }
    pthread_mutex_unlock(&x->lock);
}

static void refuse(struct conn *c, int rc, const char *text)
{
    size_t n = strlen(text);
    conn_send(
        c,
        &(struct wire_header){.type = WIRE_ACCEPT,
                              .count = (uint32_t)-rc,
                              .bytes = n < WIRE_TEXT_MAX ? n : WIRE_TEXT_MAX},
        text, n < WIRE_TEXT_MAX ? n : WIRE_TEXT_MAX, -1, false);
}

static void offer_in(struct conn *c, const struct wire_header *h,
                     const uint8_t *body)
{
    struct xfer *x = c->x;
    struct fabric *f = x->fabric;
    uint8_t addr[FABRIC_ADDR_MAX];
    size_t n = 0;
    struct why why = {0};
    if (!f || f->ops->number != h->count) {
        refuse(c, ERR_UNSUPPORTED, "the peer has it not switched on");
        return;
    }
    struct fabric_end *end = end_create(f, true, addr, &n, &why);
    if (!end) {
        refuse(c, ERR_IO, why.text);
        return;
    }
    /* Whatever breaks it from now on (fabric_broke, under f->lock) finds whose
     * it is. */
    lock(f);
    int rc = f->ops->end_connect(f, end->lib, body, h->bytes, &why);
    if (rc) {
        f->ops->end_close(f, end->lib);
    } else {
        pthread_mutex_lock(&x->lock);
        end->in = c->in;
        c->in->end = end;
        c->in->conns++;
        TAILQ_INSERT_TAIL(&f->ends, end, next);
        wake(f);
        if (c->in->down) fabric_end_later(end);
        pthread_mutex_unlock(&x->lock);
    }
    pthread_mutex_unlock(&f->lock);
    if (rc) {
        mem_free(end);
        refuse(c, ERR_IO, why_text(&why, rc));
        return;
    }
    conn_send(c, &(struct wire_header){.type = WIRE_ACCEPT, .bytes = n}, addr,
              n, -1, false);
    fabric_attended(c);
    conn_send(c, &(struct wire_header){.type = WIRE_REGIONS}, NULL, 0, -1,
              false);
}

static void gone_in(struct conn *c, uint64_t id)
{
    struct announce *a = NULL;
    pthread_mutex_lock(&c->x->lock);
    if (c->in->end) TAILQ_FOREACH(a, &c->in->end->announces, next)
    if (a->drop_sent && a->mem->id == id) break;
    if (a) {
        TAILQ_REMOVE(&c->in->end->announces, a, next);
        a->mem->announced--;
        mem_free(a);
        pthread_cond_broadcast(&c->x->quiet_cond);
    }
    pthread_mutex_unlock(&c->x->lock);
}

int fabric_in(struct conn *c, const struct wire_header *h, const uint8_t *body,
              struct why *why)
{
    if (c->inbound && h->type == WIRE_OFFER && !c->in->end) {
        offer_in(c, h, body);
        return 0;
    }
    if (c->inbound && h->type == WIRE_GONE) {
        gone_in(c, h->id);
        return 0;
    }
    bool offered = !c->inbound && c->x->fabric && c->link->offered;
    if (offered && h->type == WIRE_ACCEPT) return accept_in(c, h, body, why);
    if (offered && h->type == WIRE_KEYS) return keys_in(c, h, body, why);
    if (offered && h->type == WIRE_DROP) {
        link_place_dropped(c, h->id);
        return 0;
    }
    if (offered && h->type == WIRE_REGIONS) {
        pthread_mutex_lock(&c->x->lock);
        if (c->link->end) c->link->end->told = true;
        link_ready(c->link);
        pthread_mutex_unlock(&c->x->lock);
        return 0;
    }
    return err_set(why, ERR_FORMAT, "frame of type %u on a control connection",
                   h->type);
}
