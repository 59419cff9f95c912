/* router/join.h - a worker's side of router/members.h: it says that it is
 * there, again and again, so that a router that starts late or anew hears of
 * it, and says when it leaves. What fails is logged, once, and tried again.
 *
 * All in the loop's thread. */
#ifndef BATON_ROUTER_JOIN_H
#define BATON_ROUTER_JOIN_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

struct join;
struct loop;

struct join_options { /* strings are copied */
    struct loop *loop;
    const char *router;  /* http://host:port */
    const char *api_key; /* NULL or "": none is shown */
    const char *url;     /* where this worker's HTTP is reached */
    bool prefill;
    int bootstrap_port; /* prefill */
    uint32_t every_ms;  /* between two messages; 0: 2000 */
};

/* The first message leaves at once. ERR_NOMEM. */
int join_open(struct join **out, const struct join_options *options,
              struct why *why);
/* Takes the worker out; done(arg) when the router heard it or after a second.
 * Nothing is sent behind it. (A worker that is removed at the router alone
 * comes back with its next message.) */
void join_leave(struct join *join, void (*done)(void *arg), void *arg);
void join_close(struct join *join); /* NULL is fine */

#endif
