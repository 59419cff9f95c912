/* xfer/tls.h - TLS 1.3 around a connection, by OpenSSL's library loaded at run
 * time (libssl.so.3, or 1.1), so that nothing links it.
 *
 * Records go through memory here, never straight to the socket: what was
 * encrypted once is sent once, whatever else is queued meanwhile. tls_send and
 * tls_recv look like sendmsg and recvmsg to their callers. */
#ifndef BATON_XFER_TLS_H
#define BATON_XFER_TLS_H

#include "base/err.h"

#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

struct tls_setup; /* certificate, key, CA: of an engine; any thread */
struct tls;       /* of a connection; the thread that owns it */

/* What a side shows and whom it lets in; PEM. */
struct tls_files {
    const char *cert;     /* file: our certificate, and what leads to its CA */
    const char *key;      /* file: its key; or the key's own text            */
    const char *ca;       /* file, or several with commas between: the CAs whose
                           * certificates we accept of peers, whatever name
                           * they have                                       */
    const char *password; /* of the key, or NULL; nobody is asked for one    */
};

/* ERR_UNSUPPORTED: there is no libssl; ERR_INVALID: a file, named in the
 * text. */
int tls_setup_create(struct tls_setup **out, const struct tls_files *files,
                     struct why *why);
void tls_setup_destroy(struct tls_setup *setup); /* NULL is fine */

struct tls *tls_create(struct tls_setup *setup, int fd, bool inbound);
void tls_destroy(struct tls *t); /* NULL is fine */

/* Bytes taken; or -1 with EAGAIN (the socket or the handshake is not ready),
 * EPROTO (tls_text says why), or what the socket says. */
ssize_t tls_send(struct tls *t, const struct iovec *iov, int count);
/* Bytes of the peer, 0 at its end, or -1 as above. It may send, too. */
ssize_t tls_recv(struct tls *t, const struct iovec *iov, int count);
/* Whether the socket is to be watched for room, when want: there is something
 * to send. */
bool tls_wants_out(const struct tls *t, bool want);
const char *tls_text(const struct tls *t); /* why it failed; "" */

#endif
