/* pd/mail.h - ZeroMQ between prefill and decode.
 *
 * One PULL socket that everybody may write to, and a PUSH socket for each
 * address we write to. PUSH sockets never reconnect by themselves: what a
 * connection lost cannot be told, so its end is reported and the rooms on it
 * fail at once; the next send connects anew.
 *
 * Everything belongs to the loop thread; libzmq has an I/O thread of its own
 * behind it. Messages and limits: docs/wire.md. */
#ifndef BATON_PD_MAIL_H
#define BATON_PD_MAIL_H

#include "pd/wire.h"

struct loop; /* http/loop.h */
struct pd_mail;

struct pd_mail_options {
    struct loop *loop;
    const char *host; /* numeric address or a name of this machine */
    /* A message came; frames are borrowed for the call. */
    void (*on_message)(void *arg, const struct pd_frame *frames, size_t count);
    /* The connection to an address ended or never came about; what was sent
     * may be lost. Not after pd_mail_hang_up. */
    void (*on_lost)(void *arg, const struct pd_address *address);
    void *arg;
};

/* ERR_INVALID: host is unknown or a wildcard; ERR_IO: it cannot be bound. */
int pd_mail_open(struct pd_mail **out, const struct pd_mail_options *options,
                 struct why *why);
/* Waits up to 100 ms for the last messages to leave. NULL is fine. */
void pd_mail_close(struct pd_mail *mail);

/* Where the PULL socket listens, host numeric. */
const struct pd_address *pd_mail_address(const struct pd_mail *mail);

/* Connects in the background, unless that was done: on_lost then watches over
 * the peer even before the first send. ERR_AGAIN: 512 peers are connected. */
int pd_mail_connect(struct pd_mail *mail, const struct pd_address *to,
                    struct why *why);
/* Sends in order; copied. ERR_PEER: it takes nothing; else as connect. */
int pd_mail_send(struct pd_mail *mail, const struct pd_address *to,
                 const struct pd_message *message, struct why *why);
/* Ends the connection, quietly. */
void pd_mail_hang_up(struct pd_mail *mail, const struct pd_address *to);

#endif
