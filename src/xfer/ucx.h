/* xfer/ucx.h - the inside of way UCX: ucx.c has the library, its objects and
 * the fabric's verbs, ucx_message.c what is said over them.
 *
 * All under f->lock. */
#ifndef BATON_XFER_UCX_H
#define BATON_XFER_UCX_H

#include "xfer/fabric.h"
#include "xfer/ucx_abi.h"

enum {
    UCX_MESSAGE = 0,           /* the number of our messages */
    UCX_SECRET = 8,            /* bytes, before everything that is said */
    UCX_PING_BYTES = 64 << 10, /* more than UCX puts into one fragment */
};

struct ucx_library {
    void *handle;
    ucx_status (*config_read)(const char *prefix, const char *file,
                              struct ucx_config **out);
    ucx_status (*config_modify)(struct ucx_config *config, const char *name,
                                const char *value);
    void (*config_release)(struct ucx_config *config);
    ucx_status (*init)(unsigned major, unsigned minor,
                       const struct ucx_params *params,
                       const struct ucx_config *config,
                       struct ucx_context **out);
    void (*cleanup)(struct ucx_context *context);
    const char *(*version)(void);
    ucx_status (*worker_create)(struct ucx_context *context,
                                const struct ucx_worker_params *params,
                                struct ucx_worker **out);
    void (*worker_destroy)(struct ucx_worker *worker);
    ucx_status (*worker_address)(struct ucx_worker *worker, void **out,
                                 size_t *n);
    void (*worker_release)(struct ucx_worker *worker, void *address);
    ucx_status (*worker_fd)(struct ucx_worker *worker, int *fd);
    ucx_status (*worker_arm)(struct ucx_worker *worker);
    unsigned (*worker_progress)(struct ucx_worker *worker);
    ucx_status (*worker_handler)(struct ucx_worker *worker,
                                 const struct ucx_handler *handler);
    ucx_status (*ep_create)(struct ucx_worker *worker,
                            const struct ucx_ep_params *params,
                            struct ucx_ep **out);
    void *(*ep_close)(struct ucx_ep *ep, const struct ucx_op *how);
    void *(*ep_flush)(struct ucx_ep *ep, const struct ucx_op *how);
    void *(*send)(struct ucx_ep *ep, unsigned id, const void *head,
                  size_t head_bytes, const void *data, size_t n,
                  const struct ucx_op *how);
    ucx_status (*request_status)(void *request);
    void (*request_free)(void *request);
    const char *(*status_text)(ucx_status status);
};

struct ucx {
    struct ucx_library lib;
    struct ucx_context *context;
    TAILQ_HEAD(, ucx_end) ends;
    int epoll;             /* of the ends' workers */
    uint8_t *ping_payload; /* [UCX_PING_BYTES] */
};

struct ucx_end {
    TAILQ_ENTRY(ucx_end) next;
    struct ucx *u;
    struct xfer *x;
    struct fabric_end *owner;
    bool target;
    struct ucx_worker *worker;
    int fd; /* of the worker, in u->epoll; or -1 */
    struct ucx_ep *ep;
    uint64_t secret, peer_secret;
    uint64_t serial;
    TAILQ_HEAD(, message) messages;            /* that we send */
    struct message *asking[FABRIC_POSTED_MAX]; /* by id % FABRIC_POSTED_MAX */
    unsigned answering, with_ucx;
    bool closed; /* nothing is reported any more */
};

/* What a call that returns a "status pointer" means. */
static inline bool ucx_is_request(const void *said)
{
    return (uintptr_t)said - 1 < (uintptr_t)UCX_LAST_ERROR - 1;
}

static inline ucx_status ucx_status_of(const void *said)
{
    return (ucx_status)(intptr_t)said;
}

int ucx_err(const struct ucx *u, struct why *why, int rc, ucx_status status,
            const char *what);

/* ucx_message.c. A worker's handler of messages; arg: the end. */
ucx_status ucx_message_in(void *arg, const void *head, size_t head_bytes,
                          void *data, size_t n, const struct ucx_received *how);
/* The next message of work, fabric_ops.send. */
int ucx_send(struct fabric *f, void *end, struct fabric_work *work,
             struct why *why);
/* The first word after the flush; its answer is the end of work. */
int ucx_ping(struct ucx_end *end, struct fabric_work *work, struct why *why);
/* The worker is gone. */
void ucx_messages_free(struct ucx_end *end);

#endif
