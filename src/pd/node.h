/* pd/node.h - one server's requests, colocated or one half of a pair.
 *
 * The node stands between the HTTP side and the engine on the loop thread.
 * In mode PD_NULL it passes events through. In PD_PREFILL it runs the
 * bootstrap server and the rooms of pd/send.c; in PD_DECODE those of
 * pd/recv.c. Whatever fails on either side of a room ends as an EVENT_DONE
 * with FINISH_ABORT on both (states, deadlines: docs/wire.md).
 *
 * The node takes all events of the engine and all completions of the transfer
 * engine (xfer_poll): nobody else may.
 *
 * Everything here belongs to the loop thread. */
#ifndef BATON_PD_NODE_H
#define BATON_PD_NODE_H

#include "engine/engine.h"
#include "pd/room.h"

struct loop; /* http/loop.h */
struct xfer; /* xfer/xfer.h */

enum pd_mode { PD_NULL, PD_PREFILL, PD_DECODE };

/* Times in ms; 0 takes the default behind it, SGLang's environment names. */
struct pd_options {
    enum pd_mode mode;
    struct loop *loop; /* borrowed, as all pointers here, until close  */
    struct engine *engine;
    struct kv_pool *pool; /* shape and buffers only; the engine owns it.
                           * In PD_PREFILL and PD_DECODE its slab lies in
                           * memory registered with xfer                   */
    struct xfer *xfer;    /* NULL in PD_NULL                              */
    const char *host;     /* address told to peers (ZeroMQ), no wildcard   */
    const char *bootstrap_bind;    /* address the bootstrap server binds      */
    uint16_t bootstrap_port;       /* 8998; decode: when a request has none   */
    const char *bootstrap_host;    /* prefill: where it registers itself      */
    uint64_t fingerprint;          /* model_fingerprint                       */
    const char *kv_cache_dtype;    /* as --kv-cache-dtype, for W4's answer    */
    uint32_t max_requests;         /* 128; rooms at once and aux rows: twice  */
    uint32_t bootstrap_timeout_ms; /* 300000 .._BOOTSTRAP_TIMEOUT (s)    */
    uint32_t waiting_timeout_ms;   /* 300000 .._WAITING_TIMEOUT (s)      */
    uint32_t heartbeat_interval_ms; /* 5000   .._HEARTBEAT_INTERVAL (s)   */
    uint32_t heartbeat_max_failure; /* 2      .._HEARTBEAT_MAX_FAILURE    */
    uint32_t retry_ms; /* 500, between two tries to reach a bootstrap server */
};

/* ERR_INVALID: host; ERR_IO: an address cannot be bound; ERR_NOMEM. */
struct pd_node;
int pd_node_open(struct pd_node **out, const struct pd_options *options,
                 struct why *why);
/* Ends what is alive: each request gets its DONE (abort, 503) before this
 * returns, peers are told. Transfers may still be under way: xfer_stop comes
 * before the pool's memory goes. Takes up to 100 ms. NULL is fine. */
void pd_node_close(struct pd_node *node);

/* Where the pair meets, from the request's bootstrap_ fields. host NULL: the
 * request had none (allowed in PD_NULL only). Host "2.2.2.2" is SGLang's fake
 * peer for warm-up and health: served without a peer. */
struct pd_meeting {
    const char *host;
    uint16_t port; /* 0: the node's own bootstrap_port */
    bool has_room;
    uint64_t room; /* < 2^63 */
};

/* Starts a request; spec->role is set by the node, everything is copied.
 * Events come to on_event on the loop thread, never inside this call:
 * TOKEN..., then exactly one DONE; borrowed for the call. A prefill's leg has
 * one TOKEN, when the decode has all. on_event may call everything here but
 * close.
 * Refused at once: ERR_INVALID, ERR_AGAIN, ERR_EXISTS (the room is in use),
 * ERR_PEER (the decode gave the room up already), ERR_NOMEM. */
int pd_node_submit(struct pd_node *node, const struct request_spec *spec,
                   const struct pd_meeting *meeting,
                   void (*on_event)(void *arg, const struct engine_event *),
                   void *arg, uint64_t *id, struct why *why);
/* A request for that room was refused before it came here (its body cannot
 * be): the decode hears so instead of waiting. Does nothing but in
 * PD_PREFILL. message is copied. */
void pd_node_refuse(struct pd_node *node, uint64_t room, int status,
                    const char *message);
/* Ends it (the client left, /abort_request): DONE still comes, later. Unknown
 * ids are ignored. message is copied. */
void pd_node_abort(struct pd_node *node, uint64_t id, int status,
                   const char *message);
/* on_done(arg, 0 or ERR_AGAIN) when the prefix cache was emptied or not;
 * never called when the node closes first. */
void pd_node_flush(struct pd_node *node, void (*on_done)(void *arg, int status),
                   void *arg);

struct pd_stats {
    uint32_t rooms;         /* alive, on this side                      */
    uint32_t bootstrapping; /* waiting for the peer's hand              */
    uint32_t transferring;
    uint32_t quarantined;              /* pages a peer may still write  */
    uint32_t by_state[PD_STATE_COUNT]; /* names: pd_state_name          */
    uint64_t kv_bytes, kv_us; /* moved since start (prefill), and the time
                               * that rooms had writes under way          */
    uint64_t failed_bootstrap, failed_transfer;
    char transport[64]; /* of the last peer, as xfer explains it    */
};
void pd_node_stats(const struct pd_node *node, struct pd_stats *out);

enum pd_mode pd_node_mode(const struct pd_node *node);

#endif
