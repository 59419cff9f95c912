/* UCX, over libucp: frames as its active messages, by whatever transports it
 * finds.
 *
 * For networks that UCX knows and we do not, and to measure ourselves against.
 * It was run over TCP alone (UCX 1.13), where it is slower than our lanes; not
 * over network cards.
 *
 * Why messages, where UCX has one-sided put and get: over TCP it emulates
 * those, in the target's process, without a look at the address, and ends that
 * process (ucs_fatal) when it answers a peer that has died. With messages the
 * target checks each range as it does for TCP lanes, its DONE says "applied",
 * and a dead peer is an error. The price is a copy at the target.
 *
 * Each end has a worker of its own: when that is destroyed nothing of the link
 * arrives any more, and endpoints of two links cannot be paired crosswise.
 *
 * The first word is a flush, which waits for UCX's connection, then a PING of
 * several fragments, for which UCX exchanges its own numbers. Nothing else is
 * sent before: UCX asserts when it has to give up an endpoint in the middle of
 * that exchange, on a connection that takes no more bytes.
 *
 * UCX_TLS, UCX_NET_DEVICES and the like mean what they mean to UCX. Where the
 * second is not set we name the interface that has the engine's own address,
 * so that UCX listens nowhere else; for cards ("mlx5_0:1") it has to be set.
 * Its shared memory is switched off, same-host ways are ours; and its cache of
 * registrations. Payload is copied into its buffers, in segments of 64 KiB over
 * TCP: where it is sent straight from our memory UCX 1.13 asserts (comp->count
 * > 0) if the peer goes while pieces of a message wait, 6 of 260 times; with
 * copies 0 of 1 120, and no slower. On cards UCX_ZCOPY_THRESH can say else.
 * BATON_UCX_LIBRARY names another library than libucp.so.0. */
#include "xfer/ucx.h"

#include "base/clock.h"
#include "base/mem.h"

#include <dlfcn.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum {
    STEPS_MAX = 64,     /* of progress, before others get their turn */
    CLOSE_STEPS = 1000, /* ... for canceled messages to come back */
};

/* ---- the library ---- */

/* Being loaded, UCX would patch mmap and its like in the whole process, for its
 * cache of registrations, and put its handlers in the place of the program's,
 * for crashes and SIGHUP. The first it is told not to, in the only way there
 * is at that time, the environment; the others are put back. What is set for
 * one transport has no other way in all versions either. */
static void *load_quietly(const char *name)
{
    const char *const settings[][2] = {{"UCX_MEM_EVENTS", "n"},
                                       {"UCX_ZCOPY_THRESH", "inf"},
                                       {"UCX_TCP_TX_SEG_SIZE", "64k"},
                                       {"UCX_TCP_RX_SEG_SIZE", "64k"}};
    struct sigaction was[NSIG];
    bool known[NSIG];
    stack_t stack;
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        setenv(settings[i][0], settings[i][1], 0);
    for (int sig = 1; sig < NSIG; sig++)
        known[sig] = !sigaction(sig, NULL, &was[sig]);
    sigaltstack(NULL, &stack);
    void *handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    for (int sig = 1; sig < NSIG; sig++)
        if (known[sig]) sigaction(sig, &was[sig], NULL);
    sigaltstack(&stack, NULL);
    return handle;
}

static int library_open(struct ucx_library *lib, struct why *why)
{
    const char *name = getenv("BATON_UCX_LIBRARY");
    if (!name || !*name) name = "libucp.so.0";
    lib->handle = load_quietly(name);
    if (!lib->handle)
        return err_set(why, ERR_UNSUPPORTED, "ucx: %s", dlerror());
    const struct {
        void *at;
        const char *name;
    } all[] = {
        {&lib->config_read, "ucp_config_read"},
        {&lib->config_modify, "ucp_config_modify"},
        {&lib->config_release, "ucp_config_release"},
        {&lib->init, "ucp_init_version"},
        {&lib->cleanup, "ucp_cleanup"},
        {&lib->version, "ucp_get_version_string"},
        {&lib->worker_create, "ucp_worker_create"},
        {&lib->worker_destroy, "ucp_worker_destroy"},
        {&lib->worker_address, "ucp_worker_get_address"},
        {&lib->worker_release, "ucp_worker_release_address"},
        {&lib->worker_fd, "ucp_worker_get_efd"},
        {&lib->worker_arm, "ucp_worker_arm"},
        {&lib->worker_progress, "ucp_worker_progress"},
        {&lib->worker_handler, "ucp_worker_set_am_recv_handler"},
        {&lib->ep_create, "ucp_ep_create"},
        {&lib->ep_close, "ucp_ep_close_nbx"},
        {&lib->ep_flush, "ucp_ep_flush_nbx"},
        {&lib->send, "ucp_am_send_nbx"},
        {&lib->request_status, "ucp_request_check_status"},
        {&lib->request_free, "ucp_request_free"},
        {&lib->status_text, "ucs_status_string"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        void *found = dlsym(lib->handle, all[i].name);
        if (!found)
            return err_set(why, ERR_UNSUPPORTED, "ucx: %s has no %s", name,
                           all[i].name);
        memcpy(all[i].at, &found, sizeof found);
    }
    return 0;
}

int ucx_err(const struct ucx *u, struct why *why, int rc, ucx_status status,
            const char *what)
{
    return err_set(why, rc, "ucx: %s: %s", what, u->lib.status_text(status));
}

/* ---- opening and closing ---- */

static bool same_address(const struct sockaddr *a, const struct sockaddr *b)
{
    if (!a || a->sa_family != b->sa_family) return false;
    if (a->sa_family == AF_INET)
        return !memcmp(&((const struct sockaddr_in *)(const void *)a)->sin_addr,
                       &((const struct sockaddr_in *)(const void *)b)->sin_addr,
                       4);
    return a->sa_family == AF_INET6 &&
           !memcmp(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr,
                   &((const struct sockaddr_in6 *)(const void *)b)->sin6_addr,
                   16);
}

/* The interface that has the address the engine listens at; false: none, as
 * of a wildcard. */
static bool own_interface(const struct xfer *x, char name[IF_NAMESIZE])
{
    struct addr own = {.bytes = sizeof own.ss};
    struct sockaddr *at = (struct sockaddr *)&own.ss;
    struct ifaddrs *all, *i;
    if (getsockname(x->listen_fd, at, &own.bytes) || getifaddrs(&all))
        return false;
    for (i = all; i && !same_address(i->ifa_addr, at); i = i->ifa_next) {
    }
    if (i) snprintf(name, IF_NAMESIZE, "%s", i->ifa_name);
    freeifaddrs(all);
    return i;
}

static int context_open(struct fabric *f, struct why *why)
{
    struct ucx *u = f->lib;
    struct ucx_config *config;
    struct ucx_params params = {.mask = UCX_PARAMS_FEATURES,
                                .features =
                                    UCX_FEATURE_MESSAGES | UCX_FEATURE_WAKEUP};
    const char *devices = getenv("UCX_NET_DEVICES");
    char own[IF_NAMESIZE];
    ucx_status status = u->lib.config_read(NULL, NULL, &config);
    if (status)
        return ucx_err(u, why, ERR_INVALID, status, "its configuration");
    if ((!devices || !*devices) && own_interface(f->x, own))
        u->lib.config_modify(config, "NET_DEVICES", own);
    u->lib.config_modify(config, "SHM_DEVICES", "");
    u->lib.config_modify(config, "RCACHE_ENABLE", "n");
    status =
        u->lib.init(UCX_API_MAJOR, UCX_API_MINOR, &params, config, &u->context);
    u->lib.config_release(config);
    if (!status) return 0;
    u->context = NULL;
    return ucx_err(u, why, ERR_UNSUPPORTED, status,
                   "no transport or device (UCX_TLS, UCX_NET_DEVICES)");
}

static void ucx_close(struct fabric *f)
{
    struct ucx *u = f->lib;
    if (!u) return;
    if (u->context) u->lib.cleanup(u->context);
    if (u->epoll >= 0) close(u->epoll);
    /* The library stays loaded: it has a thread. */
    mem_free(u->ping_payload);
    mem_free(u);
    f->lib = NULL;
}

static int ucx_open(struct fabric *f, struct why *why)
{
    struct ucx *u = f->lib = mem_must(1, sizeof *u);
    TAILQ_INIT(&u->ends);
    u->ping_payload = mem_must(UCX_PING_BYTES, 1);
    u->epoll = f->fd = epoll_create1(EPOLL_CLOEXEC);
    if (u->epoll < 0) return err_sys(why, ERR_IO, errno, "epoll");
    int rc = library_open(&u->lib, why);
    if (!rc) rc = context_open(f, why);
    if (!rc) snprintf(f->text, sizeof f->text, "libucp %s", u->lib.version());
    return rc;
}

/* ---- ends ---- */

static int worker_open(struct ucx_end *end, struct why *why)
{
    struct ucx *u = end->u;
    struct ucx_worker_params params = {.mask = UCX_WORKER_THREADS,
                                       .thread_mode = UCX_THREADS_SERIALIZED};
    struct ucx_handler handler = {.mask = UCX_HANDLER_ID | UCX_HANDLER_FLAGS |
                                          UCX_HANDLER_CALL | UCX_HANDLER_ARG,
                                  .id = UCX_MESSAGE,
                                  .flags = UCX_WHOLE,
                                  .call = ucx_message_in,
                                  .arg = end};
    struct epoll_event event = {.events = EPOLLIN};
    ucx_status status = u->lib.worker_create(u->context, &params, &end->worker);
    if (status) {
        end->worker = NULL;
        return ucx_err(u, why, ERR_IO, status, "worker");
    }
    status = u->lib.worker_handler(end->worker, &handler);
    if (!status) status = u->lib.worker_fd(end->worker, &end->fd);
    if (status)
        return ucx_err(u, why, ERR_UNSUPPORTED, status,
                       "transports without events");
    if (epoll_ctl(u->epoll, EPOLL_CTL_ADD, end->fd, &event))
        return err_sys(why, ERR_IO, errno, "epoll");
    return 0;
}

static int address_make(struct ucx_end *end, uint8_t *out, size_t *n,
                        struct why *why)
{
    struct ucx *u = end->u;
    void *address;
    ucx_status status = u->lib.worker_address(end->worker, &address, n);
    if (status) return ucx_err(u, why, ERR_IO, status, "address");
    bool fits = *n <= FABRIC_ADDR_MAX - UCX_SECRET;
    wire_put(out, end->secret, UCX_SECRET);
    if (fits) memcpy(out + UCX_SECRET, address, *n);
    u->lib.worker_release(end->worker, address);
    *n += UCX_SECRET;
    if (fits) return 0;
    return err_set(why, ERR_UNSUPPORTED,
                   "ucx: address of %zu bytes; name fewer devices in "
                   "UCX_NET_DEVICES",
                   *n);
}

static void ucx_end_close(struct fabric *f, void *to)
{
    struct ucx *u = f->lib;
    struct ucx_end *end = to;
    struct ucx_op how = {.mask = UCX_OP_FLAGS, .flags = UCX_CLOSE_FORCE};
    end->closed = true;
    if (end->ep) {
        void *said = u->lib.ep_close(end->ep, &how);
        while (ucx_is_request(said) &&
               u->lib.request_status(said) == UCX_IN_PROGRESS)
            u->lib.worker_progress(end->worker);
        if (ucx_is_request(said)) u->lib.request_free(said);
    }
    for (int i = 0; end->with_ucx && i < CLOSE_STEPS; i++)
        u->lib.worker_progress(end->worker);
    if (end->fd >= 0) epoll_ctl(u->epoll, EPOLL_CTL_DEL, end->fd, NULL);
    if (end->worker) u->lib.worker_destroy(end->worker);
    ucx_messages_free(end);
    TAILQ_REMOVE(&u->ends, end, next);
    mem_free(end);
}

static int ucx_end_open(struct fabric *f, struct fabric_end *owner, bool target,
                        void **out, uint8_t *addr, size_t *n, struct why *why)
{
    struct ucx *u = f->lib;
    struct ucx_end *end = mem_must(1, sizeof *end);
    end->u = u;
    end->x = f->x;
    end->owner = owner;
    end->target = target;
    end->secret = random_u64();
    end->fd = -1;
    TAILQ_INIT(&end->messages);
    TAILQ_INSERT_TAIL(&u->ends, end, next);
    int rc = worker_open(end, why);
    if (!rc) rc = address_make(end, addr, n, why);
    if (rc)
        ucx_end_close(f, end);
    else
        *out = end;
    return rc;
}

static void ep_failed(void *arg, struct ucx_ep *ep, ucx_status status)
{
    struct ucx_end *end = arg;
    char text[120];
    (void)ep;
    snprintf(text, sizeof text, "ucx: %s", end->u->lib.status_text(status));
    if (!end->closed) fabric_broke(end->owner, text);
}

static int ucx_end_connect(struct fabric *f, void *to, const uint8_t *addr,
                           size_t n, struct why *why)
{
    struct ucx *u = f->lib;
    struct ucx_end *end = to;
    if (end->ep || n <= UCX_SECRET)
        return err_set(why, ERR_FORMAT, "ucx: address of %zu bytes", n);
    struct ucx_ep_params params = {.mask = UCX_EP_ADDRESS | UCX_EP_ERROR_MODE |
                                           UCX_EP_ON_ERROR,
                                   .address = addr + UCX_SECRET,
                                   .error_mode = UCX_ERRORS_PEER,
                                   .on_error = {.call = ep_failed, .arg = end}};
    end->peer_secret = wire_get(addr, UCX_SECRET);
    ucx_status status = u->lib.ep_create(end->worker, &params, &end->ep);
    if (!status) return 0;
    end->ep = NULL;
    return ucx_err(u, why, ERR_IO, status, "cannot connect");
}

static void flushed(void *request, ucx_status status, void *arg)
{
    struct fabric_work *work = arg;
    struct ucx_end *end = work->lib;
    struct why why = {0};
    end->u->lib.request_free(request);
    end->with_ucx--;
    if (end->closed) return;
    if (status)
        ucx_err(end->u, &why, ERR_PEER, status, "cannot connect");
    else
        ucx_ping(end, work, &why);
    if (why.code) fabric_broke(end->owner, why.text);
}

static int ucx_finish(struct fabric *f, void *to, struct fabric_work *work,
                      struct why *why)
{
    struct ucx *u = f->lib;
    struct ucx_end *end = to;
    struct ucx_op how = {
        .mask = UCX_OP_DONE | UCX_OP_ARG, .done = flushed, .arg = work};
    void *said = u->lib.ep_flush(end->ep, &how);
    if (ucx_is_request(said)) {
        end->with_ucx++;
        return 0;
    }
    ucx_status status = ucx_status_of(said);
    if (status) return ucx_err(u, why, ERR_PEER, status, "cannot connect");
    return ucx_ping(end, work, why);
}

/* ---- the thread's turns ---- */

static bool ucx_progress(struct fabric *f)
{
    struct ucx *u = f->lib;
    struct ucx_end *end;
    bool any = false;
    TAILQ_FOREACH(end, &u->ends, next)
    for (int i = 0; i < STEPS_MAX && u->lib.worker_progress(end->worker); i++)
        any = true;
    return any;
}

static bool ucx_arm(struct fabric *f)
{
    struct ucx *u = f->lib;
    struct ucx_end *end;
    TAILQ_FOREACH(end, &u->ends, next)
    if (u->lib.worker_arm(end->worker)) return false;
    return true;
}

const struct xfer_way xfer_way_ucx = {.name = "ucx",
                                      .via = XFER_VIA_UCX,
                                      .find = fabric_find,
                                      .hold = link_place_hold,
                                      .drop = link_place_drop,
                                      .kick = fabric_kick};

const struct fabric_ops fabric_ucx = {.way = &xfer_way_ucx,
                                      .number = 2,
                                      .open = ucx_open,
                                      .close = ucx_close,
                                      .end_open = ucx_end_open,
                                      .end_connect = ucx_end_connect,
                                      .end_close = ucx_end_close,
                                      .send = ucx_send,
                                      .finish = ucx_finish,
                                      .progress = ucx_progress,
                                      .arm = ucx_arm};
