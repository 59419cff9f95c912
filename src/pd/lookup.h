/* pd/lookup.h - the prefills that a decode knows, and whether they live.
 *
 * A prefill is named by the address of its bootstrap server. Asking it takes
 * two GETs (W4 form first, W2 for an older server); the answer is kept while
 * heartbeats confirm it. Life of a prefill:
 *
 *     NEW -> ASKING -> KNOWN        found: on_known
 *               |        | heartbeat fails, another instance answers, or
 *               v        v pd_prefill_lost
 *              NEW <---- NEW        on_failed; on_lost
 *
 * While the server says that its ranks have not registered yet, the asking
 * goes on; who waits has a deadline of its own.
 *
 * Everything belongs to the loop thread. */
#ifndef BATON_PD_LOOKUP_H
#define BATON_PD_LOOKUP_H

#include "pd/route.h"

struct loop; /* http/loop.h */
struct pd_lookup;

/* One prefill; read-only but for data, valid while it is held. */
struct pd_prefill {
    struct pd_address bootstrap;
    bool known; /* the members below are set */
    enum pd_generation generation;
    struct pd_address rank; /* its ZeroMQ PULL socket */
    bool has_layout;        /* a Baton peer */
    struct pd_layout layout;
    bool registered; /* the owner's mark, cleared by it too when it
                      * forgot us; cleared when it is forgotten */
    void *session;   /* the owner's; on_freed is its end */
};

struct pd_lookup_options {
    struct loop *loop;
    const struct pd_layout *layout; /* ours; borrowed until close */
    const char *kv_cache_dtype;     /* ours; borrowed */
    uint32_t heartbeat_interval_ms; /* none of these is 0 */
    uint32_t heartbeat_max_failure;
    uint32_t retry_ms; /* between two askings */
    /* Inside close, or where an idle one makes way. */
    void (*on_freed)(void *arg, struct pd_prefill *prefill);
    /* None runs inside a call of this header but pd_prefill_lost. */
    void (*on_known)(void *arg, struct pd_prefill *prefill);
    void (*on_failed)(void *arg, struct pd_prefill *prefill, const char *text);
    void (*on_lost)(void *arg, struct pd_prefill *prefill, const char *text);
    void *arg;
};

int pd_lookup_open(struct pd_lookup **out,
                   const struct pd_lookup_options *options, struct why *why);
void pd_lookup_close(struct pd_lookup *lookup); /* NULL is fine */

/* The prefill of that address, held until pd_prefill_drop; it is asked for
 * unless it is known. host may be a name or "[v6]". ERR_INVALID: host is no
 * address; ERR_AGAIN: 256 prefills are held. */
int pd_prefill_take(struct pd_lookup *lookup, const char *host, uint16_t port,
                    struct pd_prefill **out, struct why *why);
void pd_prefill_drop(struct pd_prefill *prefill); /* NULL is fine */

/* Something else showed that it is gone: forgets it and calls on_lost. detail
 * may be "". */
void pd_prefill_lost(struct pd_prefill *prefill, const char *detail);
/* The known prefill whose rank listens there; NULL. */
struct pd_prefill *pd_lookup_find_rank(struct pd_lookup *lookup,
                                       const struct pd_address *rank);

#endif
