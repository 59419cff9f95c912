/* Bindings: what applications tell each other, over the notes of xfer.h. A
 * thread takes notes in, keeps the words for the application, and answers the
 * one question that there is: what did you register first?
 *
 *   note     { u8 kind 0; u16 name_bytes; name; msg }
 *   question { u8 kind 1; u64 id }
 *   answer   { u8 kind 2; u64 id; u64 address, 0: nothing } */
#include "xfer/binding_core.h"

#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { WORD_FIXED = 3, WORDS_MAX = 65536, ANSWER_MS = 1000 };

int note_encode(const struct xfer_binding_note *note, uint8_t *out,
                size_t *bytes, struct why *why)
{
    const char *name = note->name ? note->name : "";
    const char *msg = note->msg ? note->msg : "";
    size_t n = strlen(name), m = strlen(msg);
    if (n + m > XFER_NOTE_MAX - WORD_FIXED)
        return err_set(why, ERR_RANGE, "note of %zu bytes, at most %d", n + m,
                       XFER_NOTE_MAX - WORD_FIXED);
    out[0] = NOTE_WORD;
    wire_put(out + 1, n, 2);
    memcpy(out + WORD_FIXED, name, n);
    memcpy(out + WORD_FIXED + n, msg, m);
    *bytes = WORD_FIXED + n + m;
    return 0;
}

int note_decode(struct note_view *out, const uint8_t *data, size_t bytes,
                struct why *why)
{
    *out = (struct note_view){.kind = bytes ? data[0] : NOTE_KINDS};
    if (out->kind == NOTE_WORD && bytes >= WORD_FIXED) {
        out->name = (const char *)data + WORD_FIXED;
        out->name_bytes = wire_get(data + 1, 2);
        out->msg = out->name + out->name_bytes;
        out->msg_bytes = bytes - WORD_FIXED - out->name_bytes;
        if (out->name_bytes <= bytes - WORD_FIXED) return 0;
    } else if ((out->kind == NOTE_QUESTION && bytes == 9) ||
               (out->kind == NOTE_ANSWER && bytes == 17)) {
        out->id = wire_get(data + 1, 8);
        if (out->kind == NOTE_ANSWER) out->addr = wire_get(data + 9, 8);
        return 0;
    }
    return err_set(why, ERR_FORMAT, "not a note of a binding");
}

/* ---- what comes in ---- */

static void word_keep(struct xfer_binding *b, const struct note_view *v)
{
    struct word *w = mem_must(1, sizeof *w + v->name_bytes + v->msg_bytes + 2);
    w->name_bytes = v->name_bytes;
    w->bytes = v->name_bytes + v->msg_bytes + 2;
    memcpy(w->text, v->name, v->name_bytes);
    memcpy(w->text + v->name_bytes + 1, v->msg, v->msg_bytes);
    pthread_mutex_lock(&b->lock);
    TAILQ_INSERT_TAIL(&b->words, w, next);
    b->word_count++;
    pthread_mutex_unlock(&b->lock);
}

/* Sends bytes to the engine called name and waits until they are taken. */
static int say(struct xfer_binding *b, const char *name, const uint8_t *bytes,
               size_t n, int timeout_ms, struct why *why)
{
    struct parcel p = {.tag = atomic_fetch_add(&b->ids, 1)};
    p.batch = (struct xfer_batch){.tag = p.tag, .note = bytes, .note_bytes = n};
    p.k = known_take(b, name, why);
    if (!p.k) return why->code;
    int rc = xfer_submit_batch(p.k->peer, &p.batch, why);
    if (!rc) rc = parcel_wait(b, &p, timeout_ms, why);
    known_drop(b, p.k);
    return rc;
}

static void question_answer(struct xfer_binding *b, const char *from,
                            uint64_t id)
{
    uint8_t answer[17] = {NOTE_ANSWER};
    struct why why = {0};
    wire_put(answer + 1, id, 8);
    pthread_mutex_lock(&b->lock);
    wire_put(answer + 9, region_first(b), 8);
    pthread_mutex_unlock(&b->lock);
    say(b, from, answer, sizeof answer, ANSWER_MS, &why);
}

static void answer_take(struct xfer_binding *b, const struct note_view *v)
{
    pthread_mutex_lock(&b->lock);
    struct question *q = map_remove(&b->questions, v->id);
    if (q) {
        q->addr = v->addr;
        q->answered = true;
        pthread_cond_broadcast(&b->heard);
    }
    pthread_mutex_unlock(&b->lock);
}

static void note_in(struct xfer_binding *b, const struct xfer_note *note)
{
    struct note_view v;
    if (note_decode(&v, note->data, note->bytes, NULL)) return;
    if (v.kind == NOTE_WORD) word_keep(b, &v);
    if (v.kind == NOTE_QUESTION) question_answer(b, note->from, v.id);
    if (v.kind == NOTE_ANSWER) answer_take(b, &v);
}

/* Words are full: further notes stay in the engine, whose senders are told
 * to try again. */
static void wait_for_room(struct xfer_binding *b)
{
    pthread_mutex_lock(&b->lock);
    while (b->word_count >= WORDS_MAX && !b->deaf)
        pthread_cond_wait(&b->heard, &b->lock);
    pthread_mutex_unlock(&b->lock);
}

static void *listener_main(void *arg)
{
    struct xfer_binding *b = arg;
    struct xfer_note *note = mem_must(1, sizeof *note);
    struct pollfd p[2] = {{.fd = xfer_note_fd(b->x), .events = POLLIN},
                          {.fd = b->quit_fd, .events = POLLIN}};
    pthread_setname_np(pthread_self(), "xfer-notes");
    while (!p[1].revents) {
        if (poll(p, 2, -1) < 0) continue;
        wait_for_room(b);
        if (!p[1].revents && xfer_note_poll(b->x, note)) note_in(b, note);
    }
    mem_free(note);
    return NULL;
}

int listener_start(struct xfer_binding *b, struct why *why)
{
    b->quit_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (b->quit_fd < 0) return err_sys(why, ERR_IO, errno, "eventfd");
    TAILQ_INIT(&b->words);
    cond_init(&b->heard);
    int e = thread_start(&b->listener, listener_main, b);
    if (!e) return 0;
    close(b->quit_fd);
    pthread_cond_destroy(&b->heard);
    return err_sys(why, ERR_IO, e, "cannot start a thread");
}

void listener_stop(struct xfer_binding *b)
{
    uint64_t one = 1;
    pthread_mutex_lock(&b->lock);
    b->deaf = true;
    pthread_cond_broadcast(&b->heard);
    pthread_mutex_unlock(&b->lock);
    while (write(b->quit_fd, &one, sizeof one) < 0 && errno == EINTR) {
    }
    pthread_join(b->listener, NULL);
}

void listener_free(struct xfer_binding *b)
{
    struct word *w;
    close(b->quit_fd);
    while ((w = TAILQ_FIRST(&b->words))) {
        TAILQ_REMOVE(&b->words, w, next);
        mem_free(w);
    }
    pthread_cond_destroy(&b->heard);
    map_fini(&b->questions);
}

/* ---- calls ---- */

int xfer_binding_note_take(struct xfer_binding *b, char *out,
                           size_t *name_bytes)
{
    int rc = binding_enter(b, NULL);
    if (rc) return rc;
    pthread_mutex_lock(&b->lock);
    struct word *w = TAILQ_FIRST(&b->words);
    if (w) {
        TAILQ_REMOVE(&b->words, w, next);
        if (b->word_count-- == WORDS_MAX) pthread_cond_broadcast(&b->heard);
        memcpy(out, w->text, w->bytes);
        *name_bytes = w->name_bytes;
        mem_free(w);
        rc = 1;
    }
    pthread_mutex_unlock(&b->lock);
    binding_leave(b);
    return rc;
}

static int ask(struct xfer_binding *b, const char *peer, int timeout_ms,
               struct question *q, struct why *why)
{
    uint64_t id = atomic_fetch_add(&b->ids, 1);
    uint64_t deadline = deadline_after(timeout_ms);
    uint8_t bytes[9] = {NOTE_QUESTION};
    bool on_time = true;
    wire_put(bytes + 1, id, 8);
    pthread_mutex_lock(&b->lock);
    map_put(&b->questions, id, q);
    pthread_mutex_unlock(&b->lock);
    int rc = say(b, peer, bytes, sizeof bytes, timeout_ms, why);
    pthread_mutex_lock(&b->lock);
    while (!rc && !q->answered && !b->deaf && on_time)
        on_time = cond_until(&b->heard, &b->lock, deadline);
    map_remove(&b->questions, id);
    pthread_mutex_unlock(&b->lock);
    if (rc || q->answered) return rc;
    return err_set(why, ERR_TIMEOUT, "%s: no answer in %d ms", peer,
                   timeout_ms);
}

int xfer_binding_first(struct xfer_binding *b, const char *peer, int timeout_ms,
                       uint64_t *addr, struct why *why)
{
    struct question q = {0};
    struct why mine = {0};
    *addr = 0;
    int rc = binding_enter(b, why);
    if (rc) return rc;
    rc = ask(b, peer, timeout_ms, &q, &mine);
    if (!rc && !q.addr)
        rc = err_set(&mine, ERR_NOT_FOUND, "%s registered no memory", peer);
    if (!rc) *addr = q.addr;
    binding_leave(b);
    return rc ? err_set(why, rc, "%s", why_text(&mine, rc)) : 0;
}
