/* pd/send.h - the prefill's side of rooms; life cycle: send.c.
 *
 * Everything belongs to the loop thread. */
#ifndef BATON_PD_SEND_H
#define BATON_PD_SEND_H

#include "pd/core.h"

struct pd_send;
struct send_room;

int pd_send_open(struct pd_send **out, struct pd_core *core, struct why *why);
void pd_send_close(struct pd_send *send); /* tells the peers; NULL is fine */

/* Opens a room for client. spec is copied. ERR_EXISTS, ERR_AGAIN, ERR_PEER
 * (the decode gave it up already), ERR_NOMEM. */
int pd_send_submit(struct pd_send *send, struct pd_client *client,
                   const struct request_spec *spec, uint64_t number,
                   struct why *why);
/* A request for that room was refused before it came here: the decode will be
 * told so. */
void pd_send_refuse(struct pd_send *send, uint64_t number, int status,
                    const char *message);
void pd_send_abort(struct send_room *room, int status, const char *message);

/* True: the event is kept and given back later. */
bool pd_send_event(struct send_room *room, struct engine_event *event);
void pd_send_message(struct pd_send *send, const struct pd_note *note);
void pd_send_lost(struct pd_send *send, const struct pd_address *decode);
void pd_send_done(struct pd_send *send, const struct xfer_done *done);

#endif
