/* xfer/store_link.h - a connection of the config store, either end of it: a
 * socket that never blocks, perhaps with TLS around it. One thread each. */
#ifndef BATON_XFER_STORE_LINK_H
#define BATON_XFER_STORE_LINK_H

#include "xfer/store.h"

#include <stdbool.h>
#include <sys/types.h>

struct tls;
struct tls_setup;

struct store_link {
    int fd; /* -1: closed */
    struct tls *tls;
    bool unread; /* TLS may hold more of the peer, of which no event tells */
};

/* The TLS that auth (NULL is fine) asks for; *out NULL: none. */
int store_link_setup(struct tls_setup **out, const struct xfer_store_auth *auth,
                     struct why *why);

void store_link_open(struct store_link *l, int fd, struct tls_setup *setup,
                     bool inbound);
void store_link_close(struct store_link *l); /* closed already: fine */

/* Bytes; 0: not now; ERR_PEER: it ended; ERR_AUTH: TLS, and why says what. */
ssize_t store_link_recv(struct store_link *l, void *to, size_t n,
                        struct why *why);
/* Bytes that were taken, and are sent sooner or later; as above. n 0 goes on
 * with what was taken before. */
ssize_t store_link_send(struct store_link *l, const void *from, size_t n,
                        struct why *why);
/* Whether to watch for room; more: there is something to send. */
bool store_link_wants_out(const struct store_link *l, bool more);

#endif
