/* What the ends of way UCX say to each other: a chunk of a batch in messages of
 * at most DESCS_MAX pieces, each with an answer (docs/wire.md, UCX):
 *
 *     head = { u64 secret; wire header WRITE, READ, DATA, DONE, PING or PONG;
 *              descriptors of WRITE and READ },  data = payload
 *
 * The secret is that of the end it goes to, told on the control link, which
 * has the token: UCX itself asks nobody who he is. */
#include "xfer/ucx.h"

#include "base/mem.h"
#include "xfer/conn.h"

#include <stdio.h>
#include <string.h>

enum {
    DESCS_MAX = 64, /* in a message */
    HEAD = UCX_SECRET + WIRE_HEADER,
};

/* One that we send, until UCX has let go of it and, if it asks, its answer is
 * there. */
struct message {
    TAILQ_ENTRY(message) next;
    struct ucx_end *end;
    struct fabric_work *work; /* NULL: it is an answer, or has its answer */
    size_t first, count;      /* of work's pieces */
    uint64_t id, bytes;
    uint8_t *packed;      /* or NULL: data lies in registered memory */
    struct xfer_mem *mem; /* target: that one, held */
    bool with_ucx;
    uint8_t head[]; /* HEAD + descriptors */
};

/* ---- messages out ---- */

static struct message *message_new(struct ucx_end *end, size_t descs)
{
    struct message *m = mem_try(1, sizeof *m + HEAD + descs * WIRE_DESC, 0);
    if (!m) return NULL;
    m->end = end;
    TAILQ_INSERT_TAIL(&end->messages, m, next);
    return m;
}

static void message_free(struct message *m)
{
    struct ucx_end *end = m->end;
    if (m->mem) {
        pthread_mutex_lock(&end->x->lock);
        mem_user_drop(m->mem);
        pthread_mutex_unlock(&end->x->lock);
    }
    if (end->target) end->answering--;
    TAILQ_REMOVE(&end->messages, m, next);
    mem_free(m->packed);
    mem_free(m);
}

void ucx_messages_free(struct ucx_end *end)
{
    while (!TAILQ_EMPTY(&end->messages))
        message_free(TAILQ_FIRST(&end->messages));
}

static void let_go(void *request, ucx_status status, void *arg)
{
    struct message *m = arg;
    struct ucx_end *end = m->end;
    char text[120];
    end->u->lib.request_free(request);
    end->with_ucx--;
    m->with_ucx = false;
    if (status && !end->closed) {
        snprintf(text, sizeof text, "ucx: %s", end->u->lib.status_text(status));
        fabric_broke(end->owner, text);
    }
    if (!m->work) message_free(m);
}

/* Frees m when UCX has it no more and no answer is waited for. */
static int message_send(struct message *m, const struct wire_header *h,
                        size_t descs, const void *data, size_t n,
                        struct why *why)
{
    struct ucx_end *end = m->end;
    struct ucx_op how = {.mask = UCX_OP_DONE | UCX_OP_ARG | UCX_OP_FLAGS,
                         .flags = UCX_SEND_EAGER,
                         .done = let_go,
                         .arg = m};
    wire_put(m->head, end->peer_secret, UCX_SECRET);
    wire_header_encode(h, m->head + UCX_SECRET);
    void *said = end->u->lib.send(end->ep, UCX_MESSAGE, m->head,
                                  HEAD + descs * WIRE_DESC, data, n, &how);
    m->with_ucx = ucx_is_request(said);
    end->with_ucx += m->with_ucx;
    ucx_status status = m->with_ucx ? 0 : ucx_status_of(said);
    if (!m->with_ucx && !m->work) message_free(m);
    return status ? ucx_err(end->u, why, ERR_PEER, status, "send") : 0;
}

/* ---- initiator ---- */

/* A message whose answer ends a part of work; NULL: out of memory. */
static struct message *question(struct ucx_end *end, struct fabric_work *work,
                                size_t descs)
{
    struct message *m = message_new(end, descs);
    if (!m) return NULL;
    while (end->asking[end->serial % FABRIC_POSTED_MAX])
        end->serial++; /* fabric.c leaves room */
    m->work = work;
    m->id = end->serial++;
    end->asking[m->id % FABRIC_POSTED_MAX] = m;
    return m;
}

static struct cursor cursor_of(const struct message *m)
{
    return (struct cursor){.pieces = m->work->chunk->pieces + m->first,
                           .count = m->count};
}

/* Where the payload lies in one piece; else it is packed. NULL: no memory. */
static const void *payload(struct message *m, struct cursor at)
{
    const struct xfer_piece *p = at.pieces;
    if (at.count == 1 && p->rows == 1) return p->local;
    m->packed = mem_try(m->bytes, 1, 0);
    if (m->packed) cursor_copy(&at, m->packed, m->bytes, false);
    return m->packed;
}

int ucx_send(struct fabric *f, void *to, struct fabric_work *work,
             struct why *why)
{
    struct ucx_end *end = to;
    const struct xfer_chunk *chunk = work->chunk;
    size_t count = chunk->count - work->piece;
    (void)f;
    if (count > DESCS_MAX) count = DESCS_MAX;
    struct message *m = question(end, work, count);
    if (!m) return err_set(why, ERR_NOMEM, "out of memory for a message");
    m->first = work->piece;
    m->count = count;
    for (size_t i = 0; i < count; i++) {
        const struct xfer_piece *p = &chunk->pieces[m->first + i];
        m->bytes += p->bytes * p->rows;
        wire_desc_encode(&(struct wire_desc){.addr = p->remote,
                                             .bytes = p->bytes,
                                             .pitch = p->remote_pitch,
                                             .rows = p->rows},
                         m->head + HEAD + i * WIRE_DESC);
    }
    work->piece += count;
    work->posted = work->piece == chunk->count;
    bool write = chunk->kind == XFER_WRITE;
    const void *data = write ? payload(m, cursor_of(m)) : NULL;
    if (write && !data)
        return err_set(why, ERR_NOMEM, "out of memory for a message");
    struct wire_header h = {.type = write ? WIRE_WRITE : WIRE_READ,
                            .count = (uint32_t)count,
                            .id = m->id,
                            .bytes = m->bytes,
                            .aux = chunk->key};
    return message_send(m, &h, count, data, write ? m->bytes : 0, why);
}

int ucx_ping(struct ucx_end *end, struct fabric_work *work, struct why *why)
{
    struct message *m = question(end, work, 0);
    if (!m) return err_set(why, ERR_NOMEM, "out of memory for a message");
    struct wire_header h = {.type = WIRE_PING, .id = m->id};
    return message_send(m, &h, 0, end->u->ping_payload, UCX_PING_BYTES, why);
}

static bool answer_fits(const struct message *m, const struct wire_header *h,
                        size_t n)
{
    const struct xfer_chunk *chunk = m->work->chunk;
    if (!chunk) return h->type == WIRE_PONG;
    if (h->type == WIRE_DATA)
        return chunk->kind == XFER_READ && h->bytes == m->bytes &&
               n == m->bytes;
    return h->type == WIRE_DONE && (h->count || chunk->kind == XFER_WRITE);
}

/* DATA, DONE or PONG. */
static int answer_in(struct ucx_end *end, const struct wire_header *h,
                     void *data, size_t n, struct why *why)
{
    struct message *m = end->asking[h->id % FABRIC_POSTED_MAX];
    struct why said = {0};
    int rc = 0;
    if (!m || m->id != h->id)
        return err_set(why, ERR_FORMAT, "ucx: answer to nothing we asked");
    struct fabric_work *work = m->work;
    const struct xfer_chunk *chunk = work->chunk;
    bool fits = answer_fits(m, h, n);
    if (!fits) return err_set(why, ERR_FORMAT, "ucx: another answer");
    struct cursor at = {0};
    if (h->type == WIRE_DATA) {
        at = cursor_of(m);
        cursor_copy(&at, data, n, true);
    } else if (h->type == WIRE_DONE) {
        rc = frames_result(chunk->link, h, &said);
    }
    end->asking[m->id % FABRIC_POSTED_MAX] = NULL;
    m->work = NULL;
    if (!m->with_ucx) message_free(m);
    fabric_done(work, rc, said.text);
    return 0;
}

/* ---- target ---- */

static int answer(struct message *m, const struct wire_header *h,
                  const void *data, size_t n, struct why *why)
{
    m->end->answering++;
    return message_send(m, h, 0, data, n, why);
}

/* Under the lock: holds what all the descriptors name, or nothing. */
static int hold_all(struct xfer *x, const struct wire_desc *descs,
                    const struct wire_header *h, unsigned access,
                    struct xfer_mem **mems, struct wire_header *refused)
{
    for (size_t n = 0; n < h->count; n++) {
        uint64_t span = wire_desc_span(&descs[n]);
        int rc = mem_check(x, descs[n].addr, span, access, h->aux, &mems[n]);
        if (!rc) {
            mems[n]->users++;
            continue;
        }
        refused->count = (uint32_t)-rc;
        refused->aux = descs[n].addr;
        refused->bytes = span;
        x->stats.target_refused++;
        while (n)
            mem_user_drop(mems[--n]);
        return rc;
    }
    return 0;
}

/* Everything is held: moves the bytes, lets go, answers. */
static int request_do(struct message *m, const struct wire_header *h,
                      struct cursor at, void *data, struct xfer_mem **mems,
                      struct why *why)
{
    struct xfer *x = m->end->x;
    struct wire_header says = {.type = WIRE_DONE, .id = h->id};
    const void *out = NULL;
    FOREIGN_BEGIN();
    if (h->type == WIRE_WRITE)
        cursor_copy(&at, data, m->bytes, true);
    else
        out = payload(m, at);
    FOREIGN_END();
    bool straight = out && !m->packed; /* from there; and held so long */
    if (straight) m->mem = mems[0];
    pthread_mutex_lock(&x->lock);
    for (size_t i = 0; i < h->count && !straight; i++)
        mem_user_drop(mems[i]);
    if (h->type == WIRE_WRITE) x->stats.target_bytes_in += m->bytes;
    if (out) x->stats.target_bytes_out += m->bytes;
    pthread_mutex_unlock(&x->lock);
    if (out) {
        says.type = WIRE_DATA;
        says.bytes = m->bytes;
    } else if (h->type == WIRE_READ) {
        says.count = (uint32_t)-ERR_NOMEM;
    }
    return answer(m, &says, out, out ? m->bytes : 0, why);
}

static int request_in(struct ucx_end *end, const struct wire_header *h,
                      const uint8_t *body, void *data, size_t n,
                      struct why *why)
{
    struct wire_desc descs[DESCS_MAX];
    struct xfer_piece pieces[DESCS_MAX];
    struct xfer_mem *mems[DESCS_MAX];
    struct wire_header refused = {.type = WIRE_DONE, .id = h->id};
    bool write = h->type == WIRE_WRITE;
    uint64_t sum;
    int rc = wire_descs_decode(descs, h->count, body, &sum, why);
    if (rc) return rc;
    if (sum != h->bytes || sum > XFER_CHUNK_BYTES || n != (write ? sum : 0))
        return err_set(why, ERR_FORMAT, "ucx: sums that do not fit");
    struct message *m = message_new(end, 0);
    if (!m) return err_set(why, ERR_NOMEM, "out of memory for an answer");
    m->bytes = sum;
    pthread_mutex_lock(&end->x->lock);
    rc = hold_all(end->x, descs, h,
                  write ? XFER_REMOTE_WRITE : XFER_REMOTE_READ, mems, &refused);
    pthread_mutex_unlock(&end->x->lock);
    if (rc) return answer(m, &refused, NULL, 0, why);
    for (size_t i = 0; i < h->count; i++)
        pieces[i] =
            (struct xfer_piece){.local = (char *)(uintptr_t)descs[i].addr,
                                .bytes = descs[i].bytes,
                                .local_pitch = descs[i].pitch,
                                .rows = descs[i].rows};
    struct cursor at = {.pieces = pieces, .count = h->count};
    return request_do(m, h, at, data, mems, why);
}

static int ping_in(struct ucx_end *end, const struct wire_header *h,
                   struct why *why)
{
    struct message *m = message_new(end, 0);
    if (!m) return err_set(why, ERR_NOMEM, "out of memory for an answer");
    return answer(m, &(struct wire_header){.type = WIRE_PONG, .id = h->id},
                  NULL, 0, why);
}

/* ---- messages in ---- */

static int frame_in(struct ucx_end *end, const uint8_t *head, size_t head_bytes,
                    void *data, size_t n, struct why *why)
{
    struct wire_header h;
    int rc = wire_header_decode(&h, head + UCX_SECRET, why);
    if (rc) return rc;
    bool asks = h.type == WIRE_WRITE || h.type == WIRE_READ;
    size_t descs = asks ? h.count : 0;
    if (descs > DESCS_MAX || head_bytes != HEAD + descs * WIRE_DESC)
        return err_set(why, ERR_FORMAT, "ucx: head of %zu bytes", head_bytes);
    if (!end->target) return answer_in(end, &h, data, n, why);
    if (end->answering >= 2 * FABRIC_POSTED_MAX)
        return err_set(why, ERR_FORMAT, "ucx: too many questions");
    if (asks) return request_in(end, &h, head + HEAD, data, n, why);
    if (h.type == WIRE_PING) return ping_in(end, &h, why);
    return err_set(why, ERR_FORMAT, "ucx: frame of type %u", h.type);
}

ucx_status ucx_message_in(void *arg, const void *head, size_t head_bytes,
                          void *data, size_t n, const struct ucx_received *how)
{
    struct ucx_end *end = arg;
    struct why why = {0};
    /* A stranger's is dropped: he is no concern of this link. */
    if (end->closed || !end->ep || head_bytes < HEAD ||
        how->flags & UCX_DATA_LATER ||
        wire_get(head, UCX_SECRET) != end->secret)
        return 0;
    if (frame_in(end, head, head_bytes, data, n, &why))
        fabric_broke(end->owner, why.text);
    return 0;
}
