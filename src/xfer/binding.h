/* xfer/binding.h - the engine of xfer.h for other languages and older
 * interfaces: names, addresses and numbers in place of handles.
 *
 * A binding is one engine with what a caller without C structs needs: peers
 * are named in each call and kept connected, memory is named by its address,
 * unfinished batches by a number, lists come as arrays of u64. Names of other
 * processes are "host:port", or any word under which one of them announced
 * itself in the config store that both joined.
 *
 * Threads: any, also close: a binding that was closed, or that a child got by
 * fork(), is ERR_INVALID to every call, never a crash. Calls that wait say so.
 * Errors: 0 or a negative ERR_ code; why may be NULL. */
#ifndef BATON_XFER_BINDING_H
#define BATON_XFER_BINDING_H

#include "xfer/xfer.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct xfer_binding;

/* Whose environment variables are read (xfer/env.h has them all); those of
 * Baton always are. */
enum xfer_world { XFER_WORLD_BATON, XFER_WORLD_MEMFABRIC, XFER_WORLD_MOONCAKE };

/* Opens an engine that others reach as name: "host:port", "[v6]:port", or a
 * host alone (any free port). A last part ":npu_N" is dropped. Where host is
 * no address of this machine (an address in front of it), all addresses are
 * bound and name is what is told. Without BATON_TRANSFER_TOKEN whoever can
 * connect may use what is registered, as with the libraries whose place this
 * takes; the log says so once when host is not loopback.
 * ERR_INVALID: name or an environment variable; ERR_EXISTS: the port is taken;
 * ERR_IO. */
int xfer_binding_open(struct xfer_binding **out, enum xfer_world world,
                      const char *name, struct why *why);
/* Ends everything; running calls return ERR_CANCELED first. Waits. */
void xfer_binding_close(struct xfer_binding *b);
/* "host:port" as it is reached; "" and 0 when b is closed. */
void xfer_binding_name(struct xfer_binding *b, char *out, size_t n);
int xfer_binding_port(struct xfer_binding *b);

/* Joins the config store at url and announces itself there as name, now and
 * after each restart of the store. The store may come later, or never: waits
 * up to wait_ms for it (as xfer_store_meet) and returns ERR_PEER when it is
 * not there yet, but keeps trying. ERR_INVALID: url; ERR_EXISTS: it joined one
 * before; ERR_AUTH: other token or certificate. */
int xfer_binding_join(struct xfer_binding *b, const char *url, const char *name,
                      int wait_ms, struct why *why);

/* ---- memory ---------------------------------------------------------- */

/* Registers n ranges, all or none. A range inside one that is registered is
 * counted and is fine; one that overlaps otherwise is ERR_EXISTS. location,
 * access: see xfer_register. */
int xfer_binding_register(struct xfer_binding *b, const uint64_t *addrs,
                          const uint64_t *bytes, size_t n, const char *location,
                          unsigned access, struct why *why);
/* Takes n ranges back by their starts; waits until nobody touches them.
 * ERR_NOT_FOUND (the others are taken back all the same). */
int xfer_binding_unregister(struct xfer_binding *b, const uint64_t *addrs,
                            size_t n, struct why *why);
/* Zeroed registered memory that peers of this host map, in steps of powers of
 * two from 8 KiB; NULL when there is none. */
void *xfer_binding_alloc(struct xfer_binding *b, size_t bytes, struct why *why);
int xfer_binding_free(struct xfer_binding *b, void *addr, struct why *why);

/* ---- transfers ------------------------------------------------------- */

/* Two texts for the peer's application, at most 4093 bytes together. */
struct xfer_binding_note {
    const char *name, *msg;
};

/* Moves n ranges local[i] <-> remote[i] of bytes[i] and waits: XFER_WRITE to
 * the peer, XFER_READ from it. timeout_ms -1: the default (30 s, or
 * MC_TRANSFER_TIMEOUT) plus 1 ns a byte; after it, ERR_TIMEOUT, and neither
 * side touches the memory any more. after, or NULL: a note that the peer gets
 * when all is in place; n may be 0 then. Codes: see struct xfer_done. */
int xfer_binding_transfer(struct xfer_binding *b, const char *peer,
                          enum xfer_kind kind, size_t n, const uint64_t *local,
                          const uint64_t *remote, const uint64_t *bytes,
                          const struct xfer_binding_note *after, int timeout_ms,
                          struct why *why);
/* The same without waiting; *id, never 0, is for xfer_binding_finish. */
int xfer_binding_submit(struct xfer_binding *b, const char *peer,
                        enum xfer_kind kind, size_t n, const uint64_t *local,
                        const uint64_t *remote, const uint64_t *bytes,
                        const struct xfer_binding_note *after, uint64_t *id,
                        struct why *why);
/* Takes the result of id, once: done->rc. ERR_TIMEOUT: it runs still after
 * timeout_ms (0: a test, -1: waits for ever); ERR_NOT_FOUND: no such id. */
int xfer_binding_finish(struct xfer_binding *b, uint64_t id, int timeout_ms,
                        struct xfer_done *done);
/* Ends id early; its result still has to be taken. */
void xfer_binding_cancel(struct xfer_binding *b, uint64_t id);

/* Takes the oldest note that came: name and msg, each with a closing 0, one
 * behind the other into out (XFER_NOTE_MAX bytes); *name_bytes is the length
 * of the first. Returns 1, 0 when there is none, or ERR_INVALID. */
int xfer_binding_note_take(struct xfer_binding *b, char *out,
                           size_t *name_bytes);

/* Connects to the peer and waits for a life sign of it. */
int xfer_binding_probe(struct xfer_binding *b, const char *peer, int timeout_ms,
                       struct why *why);
/* Asks the peer for the address of what it registered first (by a binding).
 * ERR_NOT_FOUND: it registered nothing. */
int xfer_binding_first(struct xfer_binding *b, const char *peer, int timeout_ms,
                       uint64_t *addr, struct why *why);
/* Which way leads to the peer, and why; see xfer_peer_explain. */
int xfer_binding_explain(struct xfer_binding *b, const char *peer, char *out,
                         size_t n, struct why *why);

/* ---- the process ----------------------------------------------------- */

/* Serves a config store in this process until it ends. 0 also when one is
 * served at url already (by whomever); then this process is a client of it.
 * Token and TLS: xfer_store_auth_env, or the following. */
int xfer_binding_serve_store(const char *url, struct why *why);
/* The certificates of stores that this process serves or joins from now on, in
 * MemFabric's words: "tlsCert: FILE; tlsPk: FILE; tlsCaPath: FOLDER; tlsCaFile:
 * NAME, NAME" in any order, all PEM; packagePath is not looked at, and without
 * tlsPk the key comes by the next call. NULL: what the environment says, as at
 * first. ERR_INVALID; ERR_UNSUPPORTED: tlsCrlFile, tlsPkPwd, no libssl. */
int xfer_binding_store_tls(const char *info, size_t bytes, struct why *why);
/* PEM text of the key, and its password (0 bytes: it has none). */
int xfer_binding_store_tls_key(const char *key, size_t key_bytes,
                               const char *password, size_t password_bytes,
                               struct why *why);
/* 0 debug, 1 info, 2 warn, 3 error: what goes to stderr, or to the sink. */
int xfer_log_level(int level);
/* Whole lines, without a newline; level as above. NULL: stderr again. sink
 * may be called on any thread and must not call the library. */
void xfer_log_sink(void (*sink)(int level, const char *line));
/* A line of ours: "subject: text". */
void xfer_log(int level, const char *subject, const char *text);
/* "0.1.0" */
const char *xfer_version(void);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
