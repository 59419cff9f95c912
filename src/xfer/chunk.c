/* Chunks: parts of a stream, cut to what one thread or frame moves at a time,
 * and given back when they are over. */
#include "xfer/core.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>

static struct xfer_chunk *chunk_new(struct xfer *x)
{
    struct xfer_chunk *chunk = x->free_chunks;
    if (chunk)
        x->free_chunks = chunk->next;
    else
        chunk = mem_retry(NULL, sizeof *chunk);
    return chunk;
}

static struct xfer_piece piece_of(const struct xfer_op *op, uint32_t row,
                                  uint64_t offset)
{
    return (struct xfer_piece){
        .local = (char *)op->local + row * op->local_pitch + offset,
        .remote = op->remote + row * op->remote_pitch + offset,
        .local_pitch = op->local_pitch,
        .remote_pitch = op->remote_pitch};
}

/* The next part of the operation that fits into room bytes, with the stream
 * moved behind it; rows == 0: better begin a new chunk with it. */
static struct xfer_piece stream_cut(struct stream *s, uint64_t room, bool fresh)
{
    const struct xfer_op *op = &s->ops[s->at];
    struct xfer_piece p = piece_of(op, s->row, s->offset);
    if (s->offset == 0 && op->bytes <= room) {
        uint64_t fit = room / op->bytes, left = op->rows - s->row;
        p.rows = (uint32_t)(fit < left ? fit : left);
        p.bytes = op->bytes;
        s->row += p.rows;
    } else if (fresh || op->bytes > XFER_CHUNK_BYTES) {
        uint64_t left = op->bytes - s->offset;
        p.rows = 1;
        p.bytes = room < left ? room : left;
        s->offset += p.bytes;
        if (s->offset == op->bytes) {
            s->offset = 0;
            s->row++;
        }
    } else {
        return p;
    }
    if (s->row == op->rows) {
        s->row = 0;
        s->at++;
    }
    return p;
}

static bool piece_merge(struct xfer_piece *last, const struct xfer_piece *p)
{
    if (last->rows != 1 || p->rows != 1 ||
        last->local + last->bytes != p->local ||
        last->remote + last->bytes != p->remote)
        return false;
    last->bytes += p->bytes;
    return true;
}

static void chunk_fill(struct xfer_chunk *chunk, struct stream *s,
                       uint64_t bytes_max)
{
    while (s->at < s->count && chunk->count < XFER_CHUNK_PIECES &&
           chunk->bytes < bytes_max) {
        const struct xfer_op *op = &s->ops[s->at];
        if (op->kind != chunk->kind || op->key != chunk->key ||
            s->way->find(chunk->link, op) != chunk->place)
            break;
        struct xfer_piece p =
            stream_cut(s, bytes_max - chunk->bytes, chunk->count == 0);
        if (!p.rows) break;
        chunk->bytes += p.bytes * p.rows;
        /* Frames do not see whether both lie in one registration there. */
        if (s->way->copy && chunk->count &&
            piece_merge(&chunk->pieces[chunk->count - 1], &p))
            continue;
        chunk->pieces[chunk->count++] = p;
    }
}

struct xfer_chunk *xfer_chunk_take(struct xfer_link *link,
                                   struct stream_list *queue,
                                   uint64_t bytes_max)
{
    struct stream *s;
    while ((s = TAILQ_FIRST(queue))) {
        struct batch *b = s->batch;
        const struct xfer_op *op = &s->ops[s->at];
        struct xfer_place *place = s->way->find(link, op);
        struct xfer_chunk *chunk = place ? chunk_new(link->x) : NULL;
        if (!chunk) {
            char text[120];
            snprintf(text, sizeof text, "0x%llx is not registered any more",
                     (unsigned long long)op->remote);
            batch_fail(b, place ? ERR_NOMEM : ERR_RANGE,
                       place ? "out of memory for a chunk" : text);
            continue;
        }
        chunk->batch = b;
        chunk->link = link;
        chunk->way = s->way;
        chunk->place = place;
        chunk->kind = op->kind;
        chunk->key = op->key;
        chunk->id = ++link->x->chunk_ids;
        chunk->bytes = chunk->count = 0;
        chunk->next = NULL;
        chunk_fill(chunk, s, bytes_max);
        if (s->way->hold) s->way->hold(place);
        link->refs++;
        b->chunks++;
        if (s->at == s->count) stream_unqueue(s);
        return chunk;
    }
    return NULL;
}

static void count_chunk(struct xfer *x, const struct xfer_chunk *chunk, int rc)
{
    int w = __builtin_ctz(chunk->way->via);
    x->stats.way[w].chunks++;
    if (rc) {
        x->stats.way[w].errors++;
        return;
    }
    x->stats.way[w].bytes += chunk->bytes;
    chunk->batch->bytes_done += chunk->bytes;
    if (chunk->kind == XFER_WRITE)
        x->stats.bytes_written += chunk->bytes;
    else
        x->stats.bytes_read += chunk->bytes;
}

void xfer_chunk_done(struct xfer_chunk *chunk, int rc, const char *text)
{
    struct xfer_link *link = chunk->link;
    struct xfer *x = link->x;
    struct batch *b = chunk->batch;
    count_chunk(x, chunk, rc);
    if (chunk->way->drop) chunk->way->drop(chunk->place);
    chunk->next = x->free_chunks;
    x->free_chunks = chunk;
    b->chunks--;
    if (b->hurry_ms && b->hurry_ms < clock_ms()) b->hurry_ms = clock_ms();
    if (rc)
        batch_fail(b, rc, text);
    else
        batch_settle(b);
    link_drop(link);
}
