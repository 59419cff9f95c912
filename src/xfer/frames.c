/* The framing ways: WRITE and READ over TCP lanes or a unix socket.
 *
 * Initiator: a lane takes chunks from the link's queue while its window has
 * room, sends each as one frame straight out of the caller's memory, and gives
 * it back when its DONE arrives; answers come in order, so the oldest chunk in
 * flight is the one that is meant. Several lanes share the queue, so a slow
 * one takes less.
 * Target: descriptors are checked as a whole, then each receive goes straight
 * into the registered memory, which is held for the length of the call. */
#include "xfer/conn.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

enum {
    FRAME_BYTES = 512 << 10, /* so that two lanes share a MiB */
    WINDOW_BYTES = 8 << 20,  /* sent and not yet answered, a lane */
    WINDOW_FRAMES = 64,
    UNSENT_BYTES = 2 << 20, /* of these not yet in the kernel */
};

/* ---- the ways ---- */

static struct xfer_place *frames_find(struct xfer_link *link,
                                      const struct xfer_op *op)
{
    static struct xfer_place anywhere; /* the target will look */
    (void)op;
    return link->frames ? &anywhere : NULL;
}

static void frames_kick(struct xfer_link *link)
{
    if (!link->lanes_wanted) {
        link->lanes_wanted = true;
        xfer_chores(link->x);
    }
    for (unsigned i = 0; i < link->lane_count; i++)
        conn_attend(link->lanes[i], ATTEND_PUMP);
}

const struct xfer_way xfer_way_unix = {.name = "unix",
                                       .via = XFER_VIA_UNIX,
                                       .find = frames_find,
                                       .kick = frames_kick,
                                       .ask = ask_run};
const struct xfer_way xfer_way_tcp = {.name = "tcp",
                                      .via = XFER_VIA_TCP,
                                      .find = frames_find,
                                      .kick = frames_kick,
                                      .ask = ask_run};

/* ---- initiator ---- */

void frames_encode(struct xfer_chunk *chunk)
{
    uint8_t *at = chunk->head + WIRE_HEADER;
    bool write = chunk->kind == XFER_WRITE;
    wire_header_encode(
        &(struct wire_header){.type = write ? WIRE_WRITE : WIRE_READ,
                              .count = (uint32_t)chunk->count,
                              .id = chunk->id,
                              .bytes = chunk->bytes,
                              .aux = chunk->key},
        chunk->head);
    for (size_t i = 0; i < chunk->count; i++, at += WIRE_DESC) {
        const struct xfer_piece *p = &chunk->pieces[i];
        wire_desc_encode(&(struct wire_desc){.addr = p->remote,
                                             .bytes = p->bytes,
                                             .pitch = p->remote_pitch,
                                             .rows = p->rows},
                         at);
    }
    chunk->txn = (struct txn){.head = chunk->head,
                              .head_bytes = (size_t)(at - chunk->head),
                              .fd = -1};
    if (!write) return;
    chunk->txn.payload =
        (struct cursor){.pieces = chunk->pieces, .count = chunk->count};
    chunk->txn.payload_left = chunk->bytes;
}

static bool window_open(const struct conn *c)
{
    return c->flight_count < WINDOW_FRAMES && c->flight_bytes < WINDOW_BYTES &&
           c->tx_bytes < UNSENT_BYTES;
}

void frames_pump(struct conn *c)
{
    while (window_open(c)) {
        pthread_mutex_lock(&c->x->lock);
        struct xfer_chunk *chunk =
            c->link->dead
                ? NULL
                : xfer_chunk_take(c->link, &c->link->frame_queue, FRAME_BYTES);
        pthread_mutex_unlock(&c->x->lock);
        if (!chunk) return;
        frames_encode(chunk);
        chunk->next = NULL;
        *c->flight_end = chunk;
        c->flight_end = &chunk->next;
        c->flight_count++;
        c->flight_bytes += chunk->bytes;
        conn_queue(c, &chunk->txn, false);
    }
}

static struct xfer_chunk *flight_take(struct conn *c)
{
    struct xfer_chunk *chunk = c->flight;
    c->flight = chunk->next;
    if (!c->flight) c->flight_end = &c->flight;
    c->flight_count--;
    c->flight_bytes -= chunk->bytes;
    return chunk;
}

void frames_give_back(struct conn *c, const char *text)
{
    while (c->flight)
        xfer_chunk_done(flight_take(c), ERR_PEER, text);
}

/* True when the frame answers the oldest chunk, which was sent whole. */
static bool answers(const struct conn *c, const struct wire_header *h)
{
    const struct xfer_chunk *chunk = c->flight;
    return chunk && chunk->id == h->id && !chunk->txn.payload_left &&
           chunk->txn.head_sent == chunk->txn.head_bytes;
}

int frames_result(const struct xfer_link *link, const struct wire_header *done,
                  struct why *why)
{
    int rc = done->count < ERR_COUNT_ ? -(int)done->count : ERR_PEER;
    if (!rc) return 0;
    return err_set(
        why, rc, "peer %.100s refused 0x%llx + %llu: %s", link->peer->name,
        (unsigned long long)done->aux, (unsigned long long)done->bytes,
        rc == ERR_RANGE ? "not in its registered memory" : err_text(rc));
}

static int done_in(struct conn *c, const struct wire_header *h, struct why *why)
{
    if (!answers(c, h))
        return err_set(why, ERR_FORMAT, "answer to nothing we asked");
    struct why said = {0};
    int rc = frames_result(c->link, h, &said);
    struct xfer_chunk *chunk = flight_take(c);
    pthread_mutex_lock(&c->x->lock);
    xfer_chunk_done(chunk, rc, said.text);
    pthread_mutex_unlock(&c->x->lock);
    return 0;
}

static int data_in(struct conn *c, const struct wire_header *h, struct why *why)
{
    struct xfer_chunk *chunk = c->flight;
    if (!answers(c, h) || chunk->kind != XFER_READ || h->bytes != chunk->bytes)
        return err_set(why, ERR_FORMAT, "data that we did not ask for");
    c->sink = SINK_CHUNK;
    c->sink_at =
        (struct cursor){.pieces = chunk->pieces, .count = chunk->count};
    c->sink_left = chunk->bytes;
    return 0;
}

/* ---- target ---- */

/* Under the lock. */
static int piece_check(struct xfer *x, const struct xfer_piece *p,
                       unsigned access, uint64_t key, struct xfer_mem **mem)
{
    uint64_t span = rows_span(p->bytes, p->rows, p->local_pitch);
    return mem_check(x, (uintptr_t)p->local, span, access, key, mem);
}

static void note_refused(struct conn *c, const struct xfer_piece *p)
{
    c->refused_addr = (uintptr_t)p->local;
    c->refused_bytes = rows_span(p->bytes, p->rows, p->local_pitch);
}

int frames_enter(struct conn *c, const struct xfer_piece *pieces, size_t count,
                 unsigned access, uint64_t key, struct held *held)
{
    struct xfer_mem *mem;
    int rc = 0;
    held->count = 0;
    pthread_mutex_lock(&c->x->lock);
    for (size_t i = 0; i < count && !rc; i++) {
        rc = piece_check(c->x, &pieces[i], access, key, &mem);
        if (rc) {
            note_refused(c, &pieces[i]);
        } else if (!held->count || held->mems[held->count - 1] != mem) {
            mem->users++;
            held->mems[held->count++] = mem;
        }
    }
    pthread_mutex_unlock(&c->x->lock);
    if (rc) frames_leave(c, held);
    return rc;
}

void frames_leave(struct conn *c, struct held *held)
{
    if (!held->count) return;
    pthread_mutex_lock(&c->x->lock);
    while (held->count)
        mem_user_drop(held->mems[--held->count]);
    pthread_mutex_unlock(&c->x->lock);
}

/* Descriptors into pieces, all checked before a byte is touched: *refused. */
static int request_decode(struct conn *c, const struct wire_header *h,
                          const uint8_t *body, struct xfer_piece *pieces,
                          unsigned access, int *refused, struct why *why)
{
    struct wire_desc descs[64];
    uint64_t sum = 0;
    *refused = 0;
    for (size_t from = 0; from < h->count; from += 64) {
        size_t n = h->count - from < 64 ? h->count - from : 64;
        uint64_t part;
        int rc =
            wire_descs_decode(descs, n, body + from * WIRE_DESC, &part, why);
        if (rc) return rc;
        if (__builtin_add_overflow(sum, part, &sum))
            return err_set(why, ERR_FORMAT, "descriptors overflow");
        for (size_t i = 0; i < n; i++)
            pieces[from + i] =
                (struct xfer_piece){.local = (char *)(uintptr_t)descs[i].addr,
                                    .bytes = descs[i].bytes,
                                    .local_pitch = descs[i].pitch,
                                    .rows = descs[i].rows};
    }
    if (sum != h->bytes)
        return err_set(why, ERR_FORMAT, "descriptors of %llu bytes for %llu",
                       (unsigned long long)sum, (unsigned long long)h->bytes);
    struct xfer_mem *mem;
    pthread_mutex_lock(&c->x->lock);
    for (size_t i = 0; i < h->count && !*refused; i++) {
        *refused = piece_check(c->x, &pieces[i], access, h->aux, &mem);
        if (*refused) note_refused(c, &pieces[i]);
    }
    if (*refused) c->x->stats.target_refused++;
    pthread_mutex_unlock(&c->x->lock);
    return 0;
}

static void done_send(struct conn *c, uint64_t id, int rc, bool in_front)
{
    struct wire_header h = {
        .type = WIRE_DONE, .count = (uint32_t)-rc, .id = id};
    if (rc) {
        h.aux = c->refused_addr;
        h.bytes = c->refused_bytes;
    }
    conn_send(c, &h, NULL, 0, -1, in_front);
}

static int write_in(struct conn *c, const struct wire_header *h,
                    const uint8_t *body, struct why *why)
{
    if (!c->pieces) c->pieces = mem_must(WIRE_DESCS_MAX, sizeof *c->pieces);
    int rc = request_decode(c, h, body, c->pieces, XFER_REMOTE_WRITE,
                            &c->refused, why);
    if (rc) return rc;
    c->sink = c->refused ? SINK_DISCARD : SINK_WRITE;
    c->sink_at = (struct cursor){.pieces = c->pieces, .count = h->count};
    c->sink_left = h->bytes;
    return 0;
}

static int read_in(struct conn *c, const struct wire_header *h,
                   const uint8_t *body, struct why *why)
{
    struct txn *t = mem_try(
        1, sizeof *t + WIRE_HEADER + h->count * sizeof(struct xfer_piece), 0);
    if (!t) return err_set(why, ERR_NOMEM, "out of memory for a read");
    struct xfer_piece *pieces = (struct xfer_piece *)(t + 1);
    int refused;
    int rc =
        request_decode(c, h, body, pieces, XFER_REMOTE_READ, &refused, why);
    if (rc || refused) {
        mem_free(t);
        if (!rc) done_send(c, h->id, refused, false);
        return rc;
    }
    t->heap = t->reply = true;
    t->fd = -1;
    t->id = h->id;
    t->key = h->aux;
    t->head = (uint8_t *)(pieces + h->count);
    t->head_bytes = WIRE_HEADER;
    t->payload = (struct cursor){.pieces = pieces, .count = h->count};
    t->payload_left = h->bytes;
    wire_header_encode(&(struct wire_header){.type = WIRE_DATA,
                                             .id = h->id,
                                             .bytes = h->bytes},
                       t->head);
    conn_queue(c, t, false);
    c->replies++;
    return 0;
}

void frames_reply_sent(struct conn *c, struct txn *t)
{
    const struct xfer_piece *pieces = t->payload.pieces;
    uint64_t bytes = 0;
    for (size_t i = 0; i < t->payload.count; i++)
        bytes += pieces[i].bytes * pieces[i].rows;
    pthread_mutex_lock(&c->x->lock);
    if (t->status)
        c->x->stats.target_refused++;
    else
        c->x->stats.target_bytes_out += bytes;
    pthread_mutex_unlock(&c->x->lock);
    done_send(c, t->id, t->status, true);
    c->replies--;
}

void frames_sink_end(struct conn *c)
{
    enum sink was = c->sink;
    c->sink = SINK_NONE;
    if (was == SINK_CHUNK) return; /* DONE follows */
    if (!c->refused) {
        pthread_mutex_lock(&c->x->lock);
        c->x->stats.target_bytes_in += c->h.bytes;
        pthread_mutex_unlock(&c->x->lock);
    }
    done_send(c, c->h.id, c->refused, false);
}

int frames_in(struct conn *c, const struct wire_header *h, const uint8_t *body,
              struct why *why)
{
    if (c->inbound && h->type == WIRE_WRITE) return write_in(c, h, body, why);
    if (c->inbound && h->type == WIRE_READ) return read_in(c, h, body, why);
    if (!c->inbound && h->type == WIRE_DONE) return done_in(c, h, why);
    if (!c->inbound && h->type == WIRE_DATA) return data_in(c, h, why);
    return err_set(why, ERR_FORMAT, "frame of type %u on a data lane", h->type);
}
