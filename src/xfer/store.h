/* xfer/store.h - a small key-value store at "tcp://host:port".
 *
 * The config store of the MemFabric world (ASCEND_MF_STORE_URL): one process
 * serves it, normally the first prefill; everybody else is a client. It keeps
 * a directory of who is where; data never passes it, and transfers work
 * without it. Nothing is persistent. docs/wire.md, "Config store", has the
 * frames.
 *
 * Threads: server and client run one thread each; all functions may be called
 * from any thread. Keys are text of 1..1024 bytes, values are any bytes, at
 * most 10 MiB. Errors name the store's url. */
#ifndef BATON_XFER_STORE_H
#define BATON_XFER_STORE_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct xfer_store;

/* By what a store and its clients know each other; alike on both sides. All
 * NULL, or no struct at all: whoever can connect may use the store. */
struct xfer_store_auth {
    const char *token; /* secret that both prove to have */
    /* TLS 1.3, where all three are given: PEM files of our certificate, its
     * key (or the key's own text), and the CAs (commas between files) that sign
     * the certificates of those who are let in. Needs libssl at run time. */
    const char *tls_cert, *tls_key, *tls_ca;
    const char *tls_password; /* of the key, if it has one */
};

/* What the environment says: BATON_TRANSFER_TOKEN, BATON_TLS_CERT,
 * BATON_TLS_KEY, BATON_TLS_CA. The strings lie there. */
void xfer_store_auth_env(struct xfer_store_auth *out);

/* Serves url on its own thread; port 0 takes any. auth is copied.
 * ERR_EXISTS: somebody serves there already: be a client. ERR_INVALID: url, a
 * file of auth; ERR_UNSUPPORTED: no libssl; ERR_IO. One silent or hostile
 * client delays nobody. */
int xfer_store_serve(const char *url, const struct xfer_store_auth *auth,
                     struct xfer_store **out, struct why *why);
/* The url that clients use, with the real port. Valid until stop. */
const char *xfer_store_url(const struct xfer_store *store);
void xfer_store_stop(struct xfer_store *store); /* NULL is fine */

struct xfer_store_client;

/* Begins to connect and returns at once; the server may start later. Calls
 * wait for it as long as they may. auth is copied. ERR_INVALID: url, a file of
 * auth; ERR_UNSUPPORTED: no libssl; ERR_IO. */
int xfer_store_open(const char *url, const struct xfer_store_auth *auth,
                    struct xfer_store_client **out, struct why *why);
/* Waits until it is connected. ERR_PEER: not within timeout_ms; it goes on
 * trying. ERR_AUTH: other token or certificate, or no TLS there. */
int xfer_store_wait(struct xfer_store_client *client, int timeout_ms,
                    struct why *why);
/* The same, but a first attempt is waited for to its end, 2 s more at most:
 * only then is it known whether token and certificate are those of there. */
int xfer_store_meet(struct xfer_store_client *client, int timeout_ms,
                    struct why *why);
/* Open, wait, and disconnect when that failed. A client whose server went away
 * connects anew by itself. ERR_PEER: "config store URL: connection refused";
 * ERR_AUTH: as above. */
int xfer_store_connect(const char *url, const struct xfer_store_auth *auth,
                       int timeout_ms, struct xfer_store_client **out,
                       struct why *why);
/* Watches get ERR_CANCELED first. NULL is fine. */
void xfer_store_disconnect(struct xfer_store_client *client);

/* Each call takes at most timeout_ms, the waiting of get included. ERR_PEER:
 * no server, or it went away meanwhile (a change may have been made);
 * ERR_TIMEOUT: it is there and did not answer, or (get) nobody set the key;
 * ERR_RANGE: key or value too long; ERR_NOMEM: the store is full; ERR_AGAIN:
 * too many requests of ours are unanswered. */
int xfer_store_set(struct xfer_store_client *client, const char *key,
                   const void *value, size_t n, int timeout_ms,
                   struct why *why);

/* Takes the value into *value (xfer_store_free it; a 0 follows) and *n. Waits
 * for the key until timeout_ms (-1: for ever) when wait, else ERR_NOT_FOUND. */
int xfer_store_get(struct xfer_store_client *client, const char *key, int wait,
                   int timeout_ms, char **value, size_t *n, struct why *why);

/* Adds to the number that is kept as decimal text (absent: 0); *now gets the
 * new one. ERR_FORMAT: the value is not a number. */
int xfer_store_add(struct xfer_store_client *client, const char *key,
                   int64_t delta, int timeout_ms, int64_t *now,
                   struct why *why);
int xfer_store_remove(struct xfer_store_client *client, const char *key,
                      int timeout_ms, struct why *why); /* ERR_NOT_FOUND */
/* *now gets the bytes after appending. */
int xfer_store_append(struct xfer_store_client *client, const char *key,
                      const void *value, size_t n, int timeout_ms,
                      uint64_t *now, struct why *why);

/* Puts n bytes at offset of the value, which is made longer with zeros where
 * needed. *now gets its bytes after that. Wakes nobody who waits for the key:
 * tables are filled so. */
int xfer_store_write(struct xfer_store_client *client, const char *key,
                     uint64_t offset, const void *value, size_t n,
                     int timeout_ms, uint64_t *now, struct why *why);

struct xfer_store_bytes {
    const void *bytes;
    size_t n;
};
/* Swaps expected for value; absent and empty are the same to it. *found (n
 * bytes, xfer_store_free it) is what was there: it was swapped when that equals
 * expected. */
int xfer_store_cas(struct xfer_store_client *client, const char *key,
                   struct xfer_store_bytes expected,
                   struct xfer_store_bytes value, int timeout_ms, char **found,
                   size_t *n, struct why *why);

/* Calls on_value once, on the client's thread, with the value as soon as the
 * key has one (rc 0), or with ERR_CANCELED at disconnect. It lives through a
 * restart of the server. on_value must not call the store. */
typedef void xfer_store_on_value(void *arg, int rc, const void *value,
                                 size_t n);
int xfer_store_watch(struct xfer_store_client *client, const char *key,
                     xfer_store_on_value *on_value, void *arg, struct why *why);

/* Sets key to value and keeps it so while this client is connected: it is set
 * again after a restart of the server, and removed when the client is gone
 * (disconnected, dead, or silent for 5 s). */
int xfer_store_announce(struct xfer_store_client *client, const char *key,
                        const void *value, size_t n, struct why *why);
/* Calls on_key, as on_value of a watch, with each announced key that begins
 * with prefix and goes away from now on because its client is gone; at last
 * with ERR_CANCELED. Who leaves while there is no server is not told. */
int xfer_store_watch_left(struct xfer_store_client *client, const char *prefix,
                          xfer_store_on_value *on_key, void *arg,
                          struct why *why);

/* Frees a value that get or cas handed out; NULL is fine. */
void xfer_store_free(char *value);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
