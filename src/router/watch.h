/* router/watch.h - a stream that could go on elsewhere: what of it is the
 * client's, and which output tokens that is (http/resume.h).
 *
 * A worker closes each group of events by a comment with their tokens. A
 * group is passed on when its comment is there, never a part of one: what was
 * passed on and the ids kept always mean the same place. Loop thread. */
#ifndef BATON_ROUTER_WATCH_H
#define BATON_ROUTER_WATCH_H

#include "base/buf.h"

#include <stdbool.h>

struct watch {
    bool on;         /* this worker marks its groups */
    struct buf held; /* of the group that is not closed yet */
    size_t line;     /* where its first line without an end begins */
    struct buf ids;  /* "12,7": tokens of all that was passed on */
};

/* held_max: bytes of a group. */
void watch_init(struct watch *watch, size_t held_max);
void watch_fini(struct watch *watch);
/* Another worker goes on: the unfinished group is forgotten. */
void watch_restart(struct watch *watch);

/* Takes any piece of a stream; calls pass(arg, bytes, n) for each group that
 * it closes, without its comment. ERR_RANGE: a group is over held_max.
 * ERR_FORMAT: a comment names no ids. Feed no more then. */
int watch_feed(struct watch *watch, const char *bytes, size_t n,
               void (*pass)(void *arg, const char *bytes, size_t n), void *arg);

/* Whether the unfinished group says that its worker cannot go on (503, as a
 * server that is shut down says); then text is its message. */
bool watch_lost(const struct watch *watch, char *text, size_t size);

#endif
