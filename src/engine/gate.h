/* engine/gate.h - where the owner's thread and the engine's meet.
 *
 * Commands go in and used events come back, both without a limit of their
 * own (who submits is limited, who returns had it), so that neither side can
 * ever block the other: base/inbox.h would refuse when full. The engine
 * sleeps here when it has nothing to do. */
#ifndef BATON_ENGINE_GATE_H
#define BATON_ENGINE_GATE_H

#include <stdbool.h>

struct link { /* first member of what passes through */
    struct link *next;
};
struct chain { /* first in, first out; zero is empty */
    struct link *first, *last;
};
void chain_add(struct chain *c, struct link *link);
struct link *chain_take(struct chain *c);                /* NULL: empty */
void chain_put_back(struct chain *c, struct link *link); /* what was taken */

struct gate;
struct gate *gate_create(void);
void gate_destroy(struct gate *gate); /* what is inside is the caller's */

/* Owner's side. */
void gate_post(struct gate *gate, struct link *command);
void gate_return(struct gate *gate, struct link *event);
void gate_quit(struct gate *gate);

/* Engine's side: moves all that came to the ends of commands and events;
 * false after gate_quit. Waits first for a command or the end; with
 * GATE_EVENTS for a returned event too, with GATE_POLL not at all. */
enum gate_wait { GATE_POLL, GATE_COMMANDS, GATE_EVENTS };
bool gate_take(struct gate *gate, enum gate_wait wait, struct chain *commands,
               struct chain *events);

#endif
