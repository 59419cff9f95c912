/* Notes: the words of a batch to the target's application, sent when its last
 * byte is acknowledged, on CONTROL; and, at the target, the queue of those
 * that came. */
#include "xfer/conn.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { NOTES_WINDOW = 64 }; /* sent and not yet answered, a link */

/* ---- target: the queue ---- */

static int note_take_in(struct xfer *x, const char *from,
                        const struct xfer_epoch *epoch, const void *data,
                        size_t n)
{
    struct note *note = NULL;
    int rc = ERR_AGAIN;
    if (x->note_count < x->opt.notes_max) {
        note = mem_try(1, sizeof *note + n, 0);
        rc = note ? 0 : ERR_NOMEM;
    }
    if (rc) {
        x->stats.notes_refused++;
        return rc;
    }
    snprintf(note->from, sizeof note->from, "%s", from);
    note->epoch = *epoch;
    note->bytes = n;
    if (n) memcpy(note->data, data, n);
    TAILQ_INSERT_TAIL(&x->notes, note, next);
    x->note_count++;
    x->stats.notes_in++;
    if (!x->note_signaled) {
        uint64_t one = 1;
        x->note_signaled = write(x->note_fd, &one, sizeof one) > 0;
    }
    return 0;
}

void note_in(struct conn *c, const struct wire_header *h, const uint8_t *body)
{
    struct xfer *x = c->x;
    pthread_mutex_lock(&x->lock);
    int rc = note_take_in(x, c->in->name, &c->in->epoch, body, h->bytes);
    pthread_mutex_unlock(&x->lock);
    conn_send(c,
              &(struct wire_header){
                  .type = WIRE_DONE, .count = (uint32_t)-rc, .id = h->id},
              NULL, 0, -1, false);
}

bool xfer_note_poll(struct xfer *x, struct xfer_note *out)
{
    pthread_mutex_lock(&x->lock);
    struct note *note = TAILQ_FIRST(&x->notes);
    if (note) {
        TAILQ_REMOVE(&x->notes, note, next);
        x->note_count--;
    }
    if (TAILQ_EMPTY(&x->notes) && x->note_signaled) {
        uint64_t drained;
        x->note_signaled = read(x->note_fd, &drained, sizeof drained) < 0;
    }
    pthread_mutex_unlock(&x->lock);
    if (!note) return false;
    memcpy(out->from, note->from, sizeof out->from);
    out->epoch = note->epoch;
    out->bytes = note->bytes;
    memcpy(out->data, note->data, note->bytes);
    mem_free(note);
    return true;
}

int xfer_note_fd(const struct xfer *x)
{
    return x->note_fd;
}

void notes_free(struct xfer *x)
{
    for (struct note *note; (note = TAILQ_FIRST(&x->notes));) {
        TAILQ_REMOVE(&x->notes, note, next);
        mem_free(note);
    }
}

/* ---- initiator: after the bytes ---- */

/* The note's fate is known. */
static void note_over(struct batch *b, int rc)
{
    char text[200];
    b->note = NOTE_NONE;
    if (!rc) {
        batch_settle(b);
        return;
    }
    snprintf(text, sizeof text, "peer %.100s: the bytes arrived, the note: %s",
             b->peer->name, err_text(rc));
    batch_fail(b, rc, text);
}

void note_post(struct batch *b)
{
    struct xfer_link *link = b->link;
    struct xfer *x = link->x;
    if (link->self) {
        note_over(b, note_take_in(x, x->name, &x->epoch, b->note_data,
                                  b->note_bytes));
        return;
    }
    b->note = NOTE_READY;
    TAILQ_INSERT_TAIL(&link->notes, b, noting);
    conn_attend(link->control, ATTEND_PUMP);
}

void note_forget(struct batch *b)
{
    struct xfer_link *link = b->link;
    if (b->note == NOTE_READY) TAILQ_REMOVE(&link->notes, b, noting);
    if (b->note == NOTE_SENT) {
        TAILQ_REMOVE(&link->notes_sent, b, noting);
        link->notes_in_flight--;
    }
    b->note = NOTE_NONE;
}

void notes_pump(struct conn *c)
{
    struct xfer_link *link = c->link;
    struct batch *b;
    pthread_mutex_lock(&c->x->lock);
    while (link->notes_in_flight < NOTES_WINDOW &&
           (b = TAILQ_FIRST(&link->notes))) {
        TAILQ_REMOVE(&link->notes, b, noting);
        TAILQ_INSERT_TAIL(&link->notes_sent, b, noting);
        link->notes_in_flight++;
        b->note = NOTE_SENT;
        conn_send(c,
                  &(struct wire_header){.type = WIRE_NOTE,
                                        .id = b->serial,
                                        .bytes = b->note_bytes},
                  b->note_data, b->note_bytes, -1, false);
    }
    pthread_mutex_unlock(&c->x->lock);
}

int note_done_in(struct conn *c, const struct wire_header *h, struct why *why)
{
    struct xfer_link *link = c->link;
    int rc = h->count < ERR_COUNT_ ? -(int)h->count : ERR_PEER;
    pthread_mutex_lock(&c->x->lock);
    struct batch *b = TAILQ_FIRST(&link->notes_sent);
    bool known = b && b->serial == h->id;
    if (known) {
        note_forget(b);
        note_over(b, rc);
    }
    bool more = !TAILQ_EMPTY(&link->notes);
    pthread_mutex_unlock(&c->x->lock);
    if (more) notes_pump(c);
    return known ? 0 : err_set(why, ERR_FORMAT, "answer to no note of ours");
}
