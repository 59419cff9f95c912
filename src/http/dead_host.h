/* http/dead_host.h - seeing that the other side's host is gone.
 *
 * A killed process closes its sockets. A host without power or behind a cut
 * cable says nothing: a connection to it would be waited on for ever when it
 * is quiet, and for a quarter of an hour when bytes are under way. Internal to
 * http/. The kernel answers for a busy or stopped process: this judges hosts,
 * not programs. */
#ifndef BATON_HTTP_DEAD_HOST_H
#define BATON_HTTP_DEAD_HOST_H

enum {
    DEAD_HOST_QUIET_S = 3, /* without a byte, then it is asked */
    DEAD_HOST_ASK_S = 1,   /* between questions                */
    DEAD_HOST_ASKS = 3,    /* without an answer: gone          */
    DEAD_HOST_SECONDS = DEAD_HOST_QUIET_S + DEAD_HOST_ASK_S * DEAD_HOST_ASKS,
};

/* Asks a quiet peer for signs of life (TCP keepalive); a listening socket
 * passes it on to what it accepts. */
void dead_host_ask(int fd);
/* Ends the connection when sent bytes are not taken for DEAD_HOST_SECONDS
 * (TCP_USER_TIMEOUT). Also ends it on a peer that reads nothing for as long,
 * so it is for connections to servers, which always read. */
void dead_host_limit(int fd);

#endif
