/* pd/core.h - what node.c, send.c and recv.c share inside pd.
 *
 * Everything belongs to the loop thread. */
#ifndef BATON_PD_CORE_H
#define BATON_PD_CORE_H

#include "base/map.h"
#include "pd/auxrow.h"
#include "pd/mail.h"
#include "pd/node.h"
#include "pd/wire.h"
#include "xfer/xfer.h"

struct pd_core;

/* Whoever submitted a request. It lives until its DONE was delivered; a room
 * that has nothing more to do with its events takes itself off. */
struct pd_client {
    struct pd_core *core;
    uint64_t id; /* the node's and the engine's */
    void (*on_event)(void *arg, const struct engine_event *event);
    void *arg;
    void *room;   /* struct send_room or recv_room; NULL: events pass */
    bool engaged; /* the engine has it and will say DONE */
    struct pd_client *next_ended;
    int status; /* of pd_client_end */
    char *message;
};

struct pd_core {
    struct pd_options options; /* with the defaults filled in */
    struct pd_layout layout;   /* ours */
    struct pd_mail *mail;
    struct pd_message message; /* to be encoded and sent at once */
    struct xfer_mem *aux_mem;
    struct pd_aux_table aux;
    uint32_t *aux_free; /* [aux.rows] stack of rows not in use */
    uint32_t aux_free_count;
    struct map clients; /* id -> struct pd_client */
    struct pd_client *ended, **ended_tail;
    struct loop_timer *ended_timer;
    struct pd_stats stats;
};

/* Passes a RESUMED, TOKEN or DONE on; a DONE frees the client. Others are
 * dropped. */
void pd_client_event(struct pd_client *client,
                     const struct engine_event *event);
/* The engine does not have it: DONE with FINISH_ABORT comes at the next turn
 * of the loop. */
void pd_client_end(struct pd_client *client, int status, const char *message);

/* A prefill draws one token of what it is asked for. */
void pd_one_token(struct request_spec *spec);

/* A row of the aux table, cleared; false: all are in use. */
bool pd_aux_take(struct pd_core *core, uint32_t *row);
void pd_aux_give(struct pd_core *core, uint32_t row);

/* Sends core->message; what cannot be sent shows as a lost peer. */
void pd_core_send(struct pd_core *core, const struct pd_address *to);

/* HTTP status for an error code of engine_submit. */
int pd_http_status(int rc);

#endif
