/* pd/recv.h - the decode's side of rooms; life cycle: recv.c.
 *
 * Everything belongs to the loop thread. */
#ifndef BATON_PD_RECV_H
#define BATON_PD_RECV_H

#include "pd/core.h"

struct pd_recv;
struct recv_room;

int pd_recv_open(struct pd_recv **out, struct pd_core *core, struct why *why);
void pd_recv_close(struct pd_recv *recv); /* tells the peers; NULL is fine */

/* Opens a room for client with the prefill whose bootstrap server is at host
 * and port. spec is copied. ERR_EXISTS, ERR_AGAIN, ERR_INVALID, ERR_NOMEM. */
int pd_recv_submit(struct pd_recv *recv, struct pd_client *client,
                   const struct request_spec *spec, const char *host,
                   uint16_t port, uint64_t number, struct why *why);
void pd_recv_abort(struct recv_room *room, int status, const char *message);

void pd_recv_event(struct recv_room *room, const struct engine_event *event);
void pd_recv_message(struct pd_recv *recv, const struct pd_note *note);
void pd_recv_lost(struct pd_recv *recv, const struct pd_address *prefill);

#endif
