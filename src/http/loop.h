/* http/loop.h - the event loop of a process: timers, descriptors, signals and
 * calls from other threads, all served by the one thread in loop_run.
 *
 * Everything here belongs to that thread (before loop_run: to the one that
 * made the loop), except loop_post and loop_stop, which any thread may call.
 * Callbacks never run inside another call of this header; each may create,
 * change and destroy timers and watches, its own included. Built on libevent,
 * which nothing outside http/ needs to see. SIGPIPE is ignored from the first
 * loop on. */
#ifndef BATON_HTTP_LOOP_H
#define BATON_HTTP_LOOP_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct loop;
struct loop_timer;
struct loop_watch;

int loop_create(struct loop **out, struct why *why); /* ERR_NOMEM, ERR_IO */
/* Timers and watches of the loop must be gone. NULL is fine. */
void loop_destroy(struct loop *loop);

/* Serves events until loop_stop; may run again after it. */
void loop_run(struct loop *loop);
/* Makes loop_run return soon, or at once when it next starts. Any thread. */
void loop_stop(struct loop *loop);

/* Has the loop call fn(arg), in the order of the posts. ERR_AGAIN: too many
 * wait already (16384); nothing was posted. Any thread. */
int loop_post(struct loop *loop, void (*fn)(void *arg), void *arg);

/* A timer is made idle; fn runs after_ms after the set, then each period_ms
 * (0: once). A new set replaces the former. Resolution is about 4 ms. */
struct loop_timer *loop_timer_create(struct loop *loop, void (*fn)(void *arg),
                                     void *arg);
void loop_timer_set(struct loop_timer *timer, uint64_t after_ms,
                    uint64_t period_ms);
void loop_timer_unset(struct loop_timer *timer);
void loop_timer_destroy(struct loop_timer *timer); /* NULL is fine */

enum { LOOP_READ = 1, LOOP_WRITE = 2 };

/* Calls fn(arg, ready) while fd is ready for one of events (level triggered;
 * hang-up and error count as ready). The descriptor stays the caller's and is
 * closed only after the watch is destroyed. For descriptors that only tell
 * edges (ZeroMQ's), fn must drain. ERR_IO: fd is none. */
int loop_watch_create(struct loop_watch **out, struct loop *loop, int fd,
                      unsigned events, void (*fn)(void *arg, unsigned ready),
                      void *arg);
void loop_watch_set(struct loop_watch *watch, unsigned events); /* 0: none */
void loop_watch_destroy(struct loop_watch *watch);              /* NULL ok */

/* Blocks the count signals in this thread (so call it before others start:
 * they inherit that) and calls fn(arg, signal) in the loop when one arrives.
 * One call per loop; loop_destroy unblocks them. ERR_IO. */
int loop_signals(struct loop *loop, const int *signals, size_t count,
                 void (*fn)(void *arg, int signal), void *arg, struct why *why);

/* For http/ only. */
struct event_base;
struct event_base *loop_base(struct loop *loop);

#endif
