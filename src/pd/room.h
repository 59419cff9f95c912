/* pd/room.h - what the two sides of a hand-over share: its states.
 *
 * The table is the one of docs/wire.md, "States of a room"; code, log and
 * metrics all read it. Each room has a timer that runs out with its state. */
#ifndef BATON_PD_ROOM_H
#define BATON_PD_ROOM_H

#include <stdint.h>

enum pd_deadline { PD_NEVER, PD_BOOTSTRAP_TIMEOUT, PD_WAITING_TIMEOUT };

#define PD_STATES(X)                                \
    /* of a prefill (pd/send.c) */                  \
    X(ORPHAN, "orphan", PD_BOOTSTRAP_TIMEOUT)       \
    X(BOOTSTRAP, "bootstrap", PD_BOOTSTRAP_TIMEOUT) \
    X(COMPUTE, "compute", PD_NEVER)                 \
    X(SEND, "send", PD_WAITING_TIMEOUT)             \
    X(AUX, "aux", PD_WAITING_TIMEOUT)               \
    X(DRAIN, "drain", PD_NEVER)                     \
    /* of a decode (pd/recv.c) */                   \
    X(LOOKUP, "lookup", PD_BOOTSTRAP_TIMEOUT)       \
    X(RESERVE, "reserve", PD_BOOTSTRAP_TIMEOUT)     \
    X(WAIT, "wait", PD_WAITING_TIMEOUT)             \
    X(QUARANTINE, "quarantine", PD_WAITING_TIMEOUT)

enum pd_state {
#define X(name, word, deadline) PD_##name,
    PD_STATES(X)
#undef X
        PD_STATE_COUNT
};
const char *pd_state_name(enum pd_state state); /* "orphan" ... */

/* The common beginning of struct send_room and struct recv_room. */
struct pd_core;
struct loop_timer;
struct pd_room {
    struct pd_core *core;
    uint64_t number; /* bootstrap_room */
    enum pd_state state;
    uint64_t since_ms; /* in this state */
    struct loop_timer *timer;
};

/* Counts the room in; on_deadline(arg) runs when a state has lasted too
 * long. fini counts it out. */
void pd_room_init(struct pd_room *room, struct pd_core *core, uint64_t number,
                  enum pd_state state, void (*on_deadline)(void *arg),
                  void *arg);
void pd_room_fini(struct pd_room *room);
void pd_room_enter(struct pd_room *room, enum pd_state state);
/* Deadline of the room's state; 0: none. */
uint32_t pd_room_limit_ms(const struct pd_room *room);

#endif
