/* dropin/transfer_engine_c.h - Mooncake's transfer engine in C, over
 * xfer/binding.h. Link libtransfer_engine.so. The functions, types and numbers
 * are Mooncake's; what they do here:
 *
 * - A segment is an engine's memory, named "host:port". metadata P2PHANDSHAKE
 *   (or none): peers are dialled by that name. "tcp://host:port": a config
 *   store is asked for names that are no addresses. Other services (etcd,
 *   redis, http) are not asked; names that are addresses work all the same.
 * - The transports to install are no choice: the engine takes the best way to
 *   each peer. COMPLETED means that the bytes lie in the peer's memory.
 * - Strings are copied during the call. Any thread, but a handle must not be
 *   used while or after it is destroyed. */
#ifndef BATON_DROPIN_TRANSFER_ENGINE_C_H
#define BATON_DROPIN_TRANSFER_ENGINE_C_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

typedef void *transfer_engine_t;
typedef void *transport_t;
typedef int32_t segment_id_t;
typedef int32_t segment_handle_t;
typedef uint64_t batch_id_t;

#define LOCAL_SEGMENT    (0)
#define INVALID_BATCH    UINT64_MAX
#define OPCODE_READ      (0)
#define OPCODE_WRITE     (1)
#define STATUS_WAITING   (0)
#define STATUS_PENDING   (1)
#define STATUS_INVALID   (2)
#define STATUS_CANCELED  (3)
#define STATUS_COMPLETED (4)
#define STATUS_TIMEOUT   (5)
#define STATUS_FAILED    (6)

/* What int functions return besides 0. */
enum {
    TE_INVALID_ARGUMENT = -1,
    TE_TOO_MANY_REQUESTS = -2,
    TE_ADDRESS_NOT_REGISTERED = -3,
    TE_BATCH_BUSY = -4,
    TE_ADDRESS_OVERLAPPED = -7,
    TE_DNS = -101,
    TE_SOCKET = -102,
    TE_REJECT_HANDSHAKE = -104,
    TE_METADATA = -200,
    TE_MEMORY = -302,
    TE_NOT_IMPLEMENTED = -303,
};

struct transfer_request {
    int opcode;
    void *source; /* of the bytes to write, or where those read go */
    segment_id_t target_id;
    uint64_t target_offset; /* address in the peer */
    uint64_t length;
};
typedef struct transfer_request transfer_request_t;

struct transfer_status {
    int status;
    uint64_t transferred_bytes;
};
typedef struct transfer_status transfer_status_t;

struct notify_msg {
    char *name;
    char *msg;
};
typedef struct notify_msg notify_msg_t;

struct buffer_entry {
    void *addr;
    size_t length;
};
typedef struct buffer_entry buffer_entry_t;

struct nic_load_stat {
    char device_name[64];
    uint64_t inflight_bytes;
    double ewma_bandwidth_bps;
};
typedef struct nic_load_stat nic_load_stat_t;

/* ip_or_host_name: where peers reach us; rpc_port: 0 for any free one. When
 * ip_or_host_name is empty, local_server_name is taken. NULL on error; the log
 * says why. auto_discover is not looked at. */
transfer_engine_t createTransferEngine(const char *metadata_conn_string,
                                       const char *local_server_name,
                                       const char *ip_or_host_name,
                                       uint64_t rpc_port, int auto_discover);
void destroyTransferEngine(transfer_engine_t engine);
/* "host:port", cut to buf_len bytes with a closing 0. */
int getLocalIpAndPort(transfer_engine_t engine, char *buf_out, size_t buf_len);

/* These do nothing; a transport is never NULL. */
int discoverTopology(transfer_engine_t engine);
transport_t installTransport(transfer_engine_t engine, const char *proto,
                             void **args);
int uninstallTransport(transfer_engine_t engine, const char *proto);

/* Connects to the peer and waits for it, at most 5 s. NoCache does so even
 * when it was opened before. Negative: an error. */
segment_id_t openSegment(transfer_engine_t engine, const char *segment_name);
segment_id_t openSegmentNoCache(transfer_engine_t engine,
                                const char *segment_name);
int warmupEfaSegment(transfer_engine_t engine, const char *segment_name);
int closeSegment(transfer_engine_t engine, segment_id_t segment_id);
int removeLocalSegment(transfer_engine_t engine, const char *segment_name);
int syncSegmentCache(transfer_engine_t engine); /* nothing is cached */

/* remote_accessible 0: only for transfers that we start. */
int registerLocalMemory(transfer_engine_t engine, void *addr, size_t length,
                        const char *location, int remote_accessible);
/* Waits until no peer touches it. */
int unregisterLocalMemory(transfer_engine_t engine, void *addr);
/* All or none. */
int registerLocalMemoryBatch(transfer_engine_t engine,
                             buffer_entry_t *buffer_list, size_t buffer_len,
                             const char *location);
int unregisterLocalMemoryBatch(transfer_engine_t engine, void **addr_list,
                               size_t addr_len);

/* Room for batch_size requests; INVALID_BATCH on error. */
batch_id_t allocateBatchID(transfer_engine_t engine, size_t batch_size);
/* TE_BATCH_BUSY while a request is not over. */
int freeBatchID(transfer_engine_t engine, batch_id_t batch_id);
/* Requests of one target and opcode in a row share one fate. When this fails,
 * those of the call are not started or have FAILED. */
int submitTransfer(transfer_engine_t engine, batch_id_t batch_id,
                   struct transfer_request *entries, size_t count);
/* The message goes to the target of the first request once all have
 * completed. Waits for that when the requests have several targets. */
int submitTransferWithNotify(transfer_engine_t engine, batch_id_t batch_id,
                             struct transfer_request *entries, size_t count,
                             notify_msg_t notify_msg);
int getTransferStatus(transfer_engine_t engine, batch_id_t batch_id,
                      size_t task_id, struct transfer_status *status);

/* The messages that came, *size of them; freeNotifsMsgBuf takes them back. */
notify_msg_t *getNotifsFromEngine(transfer_engine_t engine, int *size);
int freeNotifsMsgBuf(notify_msg_t *msg, int size);
int genNotifyInEngine(transfer_engine_t engine, uint64_t target_id,
                      notify_msg_t notify_msg);

/* There are no NICs that the engine drives: *n becomes 0. */
int getNicLoadStats(transfer_engine_t engine, nic_load_stat_t *stats,
                    size_t *n);
void enableGracefulShutdown(transfer_engine_t engine); /* it always is */
/* Which way leads to each opened segment, as text lines or JSON. */
int showLinks(transfer_engine_t engine, char *buf, size_t len, int json);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
