/* engine/event.h - events with their memory, used again and again.
 *
 * The engine fills one, sends it, and gets it back through the gate: its
 * buffers stay, so that a warm engine allocates nothing. What was sent goes
 * to the owner's inbox with the next flush, all at once, since waking the
 * owner for each costs more than the event; what does not fit waits here, in
 * order. Engine's thread. */
#ifndef BATON_ENGINE_EVENT_H
#define BATON_ENGINE_EVENT_H

#include "base/buf.h"
#include "base/inbox.h"
#include "engine/gate.h"
#include "engine/live.h"

struct event {
    struct engine_event pub; /* first: what the owner sees */
    struct link link;
    struct event *all; /* every event there is, for events_destroy */
    struct buf text, note;
    kv_page *pages;
    uint32_t page_cap;
    float *values; /* of the token's logprob: top, then ids */
    int32_t *ids;
    uint32_t value_cap;
    struct score *score;
    uint32_t *ends; /* RESUMED: owned */
};

/* A single one, of no pool: carries a first token from the owner. */
struct event *event_create(void);
void event_destroy(struct event *e);

struct events;
/* capacity: events in the owner's inbox. */
int events_create(struct events **out, size_t capacity, struct why *why);
void events_destroy(struct events *ev); /* all, the owner's too */
struct inbox *events_inbox(struct events *ev);

/* A cleared one for a request; live NULL: of none. */
struct event *events_new(struct events *ev, enum event_kind kind,
                         const struct live *live);
void events_send(struct events *ev, struct event *e);
void events_drop(struct events *ev, struct event *e); /* not sent after all */
void events_flush(struct events *ev);
/* Takes back what the owner returned. */
void events_recycle(struct events *ev, struct chain *returned);
uint32_t events_out(const struct events *ev); /* not yet returned */
bool events_delayed(const struct events *ev); /* some wait here   */

void event_set_pages(struct event *e, const struct seq *seq);
void event_set_text(struct event *e); /* pub's text from e->text */
void event_set_finish(struct event *e, const struct finish *finish);
/* Room for a logprob with so many values, the event's own. */
struct logprob_room event_logprob_room(struct event *e, uint32_t tops,
                                       uint32_t ids);
void event_copy_logprob(struct event *e, const struct token_logprob *from);
/* The live's score goes over to the event, if it has one. */
void event_take_score(struct event *e, struct live *live);

static inline struct event *event_of(struct link *link)
{
    return (struct event *)((char *)link - offsetof(struct event, link));
}

#endif
