#include "engine/event.h"

#include "base/mem.h"

#include <string.h>

#define TEXT_USUAL 120 /* of one token */

struct events {
    struct inbox *inbox;
    struct event *all;
    struct chain spare, delayed;
    uint32_t out;
};

struct event *event_create(void)
{
    struct event *e = mem_must(1, sizeof *e);
    buf_init(&e->text, EVENT_TEXT_MAX);
    buf_init(&e->note, EVENT_TEXT_MAX);
    buf_grow(&e->text, TEXT_USUAL); /* now rather than in some later step */
    return e;
}

void event_destroy(struct event *e)
{
    if (!e) return;
    buf_fini(&e->text);
    buf_fini(&e->note);
    mem_free(e->pages);
    mem_free(e->values);
    mem_free(e->ids);
    score_destroy(e->score);
    mem_free(e->ends);
    mem_free(e);
}

int events_create(struct events **out, size_t capacity, struct why *why)
{
    *out = NULL;
    struct events *ev = mem_must(1, sizeof *ev);
    int rc = inbox_create(&ev->inbox, capacity);
    if (rc) {
        mem_free(ev);
        return err_set(why, rc, "engine: events inbox of %zu", capacity);
    }
    *out = ev;
    return 0;
}

void events_destroy(struct events *ev)
{
    if (!ev) return;
    for (struct event *e = ev->all, *next; e; e = next) {
        next = e->all;
        event_destroy(e);
    }
    inbox_destroy(ev->inbox);
    mem_free(ev);
}

struct inbox *events_inbox(struct events *ev)
{
    return ev->inbox;
}

static struct event *add(struct events *ev)
{
    struct event *e = event_create();
    e->all = ev->all;
    ev->all = e;
    return e;
}

struct event *events_new(struct events *ev, enum event_kind kind,
                         const struct live *live)
{
    struct link *link = chain_take(&ev->spare);
    struct event *e = link ? event_of(link) : add(ev);
    buf_reset(&e->text);
    buf_reset(&e->note);
    e->pub = (struct engine_event){.kind = kind, .text = ""};
    if (!live) return e;
    e->pub.id = live->id;
    e->pub.prompt_tokens = live->seq.prompt_tokens;
    e->pub.cached_tokens = live->cached_tokens;
    e->pub.output_tokens = live_output(live);
    e->pub.retractions = live->seq.retractions;
    e->pub.queued_us = live->queued_us;
    e->pub.started_us = live->started_us;
    return e;
}

void events_send(struct events *ev, struct event *e)
{
    ev->out++;
    chain_add(&ev->delayed, &e->link);
}

void events_drop(struct events *ev, struct event *e)
{
    chain_add(&ev->spare, &e->link);
}

void events_recycle(struct events *ev, struct chain *returned)
{
    for (struct link *link; (link = chain_take(returned));) {
        struct event *e = event_of(link);
        score_destroy(e->score);
        mem_free(e->ends);
        e->score = NULL;
        e->ends = NULL;
        chain_add(&ev->spare, link);
        ev->out--;
    }
}

void events_flush(struct events *ev)
{
    /* Once put, an event is the owner's, link and all: unlink it before. */
    for (struct link *link; (link = chain_take(&ev->delayed));)
        if (inbox_put(ev->inbox, &event_of(link)->pub)) {
            chain_put_back(&ev->delayed, link);
            break;
        }
}

uint32_t events_out(const struct events *ev)
{
    return ev->out;
}

bool events_delayed(const struct events *ev)
{
    return ev->delayed.first;
}

void event_set_pages(struct event *e, const struct seq *seq)
{
    if (e->page_cap < seq->page_count) {
        e->page_cap = seq->page_count;
        e->pages = mem_remust(e->pages, e->page_cap * sizeof *e->pages);
    }
    memcpy(e->pages, seq->pages, seq->page_count * sizeof *e->pages);
    e->pub.pages = e->pages;
    e->pub.page_count = seq->page_count;
}

void event_set_text(struct event *e)
{
    if (e->text.len == 0) return;
    e->pub.text = e->text.data;
    e->pub.text_len = e->text.len;
}

void event_set_finish(struct event *e, const struct finish *finish)
{
    e->pub.finish = *finish;
    e->pub.finish.stop_text = e->pub.finish.message = NULL;
    const char *note =
        finish->kind == FINISH_STOP_TEXT ? finish->stop_text : finish->message;
    if (!note) return;
    buf_puts(&e->note, note);
    note = e->note.len ? e->note.data : "";
    if (finish->kind == FINISH_STOP_TEXT)
        e->pub.finish.stop_text = note;
    else
        e->pub.finish.message = note;
}

struct logprob_room event_logprob_room(struct event *e, uint32_t tops,
                                       uint32_t ids)
{
    if (e->value_cap < tops + ids) {
        e->value_cap = tops + ids;
        e->values = mem_remust(e->values, e->value_cap * sizeof *e->values);
        e->ids = mem_remust(e->ids, e->value_cap * sizeof *e->ids);
    }
    return (struct logprob_room){e->values, e->ids,
                                 ids ? e->values + tops : NULL};
}

void event_copy_logprob(struct event *e, const struct token_logprob *from)
{
    uint32_t tops = from->top_count, ids = from->id_count;
    struct logprob_room room = event_logprob_room(e, tops, ids);
    if (tops) {
        memcpy(room.top_values, from->top_values, tops * sizeof(float));
        memcpy(room.top_ids, from->top_ids, tops * sizeof(int32_t));
    }
    if (ids) memcpy(room.id_values, from->id_values, ids * sizeof(float));
    e->pub.has_logprob = true;
    e->pub.logprob = *from;
    e->pub.logprob.top_values = room.top_values;
    e->pub.logprob.top_ids = room.top_ids;
    e->pub.logprob.id_values = room.id_values;
}

void event_take_score(struct event *e, struct live *live)
{
    if (!live->score) return;
    e->score = live->score;
    live->score = NULL;
    e->pub.input_logprobs = e->score->list;
    e->pub.input_logprob_count = e->score->count;
}
