/* xfer/ucx_abi.h - the part of libucp's binary interface that we use.
 *
 * Own declarations, for 64-bit Linux, of the library with soname libucp.so.0,
 * version 1.10 and newer: binaries need neither its headers nor the library
 * until UCX is asked for. Each of its parameter structs begins with a mask of
 * the fields that are set, so they end here after the last one that we set;
 * tests/xfer/ucx_test.c compares them with the real header where that is
 * installed. */
#ifndef BATON_XFER_UCX_ABI_H
#define BATON_XFER_UCX_ABI_H

#include <stddef.h>
#include <stdint.h>

typedef signed char ucx_status; /* 0, UCX_IN_PROGRESS or an error below 0 */

enum {
    UCX_API_MAJOR = 1,
    UCX_API_MINOR = 10,
    UCX_IN_PROGRESS = 1,
    UCX_LAST_ERROR = -100,
    UCX_FEATURE_WAKEUP = 16,
    UCX_FEATURE_MESSAGES = 64,
    UCX_THREADS_SERIALIZED = 1,
    UCX_ERRORS_PEER = 1,
    UCX_CLOSE_FORCE = 1,
    UCX_SEND_EAGER = 2,
    UCX_WHOLE = 1,            /* a handler is not given parts of a message */
    UCX_DATA_LATER = 1 << 17, /* a message whose bytes are to be asked for */
};

struct ucx_config; /* opaque */
struct ucx_context;
struct ucx_worker;
struct ucx_ep;

struct ucx_params {
    uint64_t mask; /* UCX_PARAMS_ */
    uint64_t features;
};
enum { UCX_PARAMS_FEATURES = 1 };

struct ucx_worker_params {
    uint64_t mask;
    uint32_t thread_mode;
};
enum { UCX_WORKER_THREADS = 1 };

struct ucx_ep_params {
    uint64_t mask;
    const void *address;
    uint32_t error_mode;
    struct {
        void (*call)(void *arg, struct ucx_ep *ep, ucx_status status);
        void *arg;
    } on_error;
};
enum { UCX_EP_ADDRESS = 1, UCX_EP_ERROR_MODE = 2, UCX_EP_ON_ERROR = 4 };

struct ucx_received {
    uint64_t flags;
    struct ucx_ep *reply;
};
struct ucx_handler { /* of messages */
    uint64_t mask;
    uint32_t id, flags;
    ucx_status (*call)(void *arg, const void *head, size_t head_bytes,
                       void *data, size_t n, const struct ucx_received *how);
    void *arg;
};
enum {
    UCX_HANDLER_ID = 1,
    UCX_HANDLER_FLAGS = 2,
    UCX_HANDLER_CALL = 4,
    UCX_HANDLER_ARG = 8,
};

struct ucx_op { /* how an operation is to be done */
    uint32_t mask, flags;
    void *request;
    void (*done)(void *request, ucx_status status, void *arg);
    uint64_t datatype;
    void *arg;
};
enum { UCX_OP_DONE = 2, UCX_OP_ARG = 4, UCX_OP_FLAGS = 16 };

#endif
