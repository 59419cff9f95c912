/* A library with libibverbs' binary interface and no card: BATON_RDMA_LIBRARY
 * names it in the tests of src/xfer/rdma.c.
 *
 * What a card does, threads do here. A queue pair has one, which carries out
 * what is posted, in order; a process has one per peer that reaches it, which
 * checks queue pair, key, range and access before it touches memory, like the
 * responder of a card, and unlike it is stopped when its process is. The
 * "cards" talk over unix sockets; the address of a port is its process. */
#include "xfer/core.h"
#include "xfer/verbs.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    FLUSHED = 5,
    REMOTE_ACCESS = 10,
    RETRIES_EXCEEDED = 12,
    CONTEXT_BYTES = 328,
    MR_MAX = 4096,
    QP_MAX = 1024,
};

struct job {
    TAILQ_ENTRY(job) next;
    struct verbs_wr wr;
    struct verbs_sge sge;
};

struct qp {
    struct verbs_qp pub;
    uint8_t room[128]; /* the real one is longer */
    struct verbs_qp_attr attr;
    int state, peer; /* peer: process */
    TAILQ_HEAD(, job) jobs;
    unsigned queued, max;
    bool quit;
    int fd;
    pthread_t thread;
    pthread_cond_t cond;
};

struct done {
    TAILQ_ENTRY(done) next;
    struct verbs_wc wc;
};

struct cq {
    struct verbs_cq pub;
    uint8_t room[128];
    TAILQ_HEAD(, done) all;
    bool armed;
};

struct request {
    uint32_t opcode, to_qp, from_qp, rkey;
    int32_t from;
    uint64_t addr, bytes;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct verbs_mr *mrs[MR_MAX];
static struct qp *qps[QP_MAX];
static uint32_t serial;
static bool serving;
static int served; /* the process whose socket listens */

/* ---- between processes ---- */

static bool move(int fd, void *at, size_t n, bool out)
{
    char *p = at;
    while (n) {
        ssize_t did = out ? send(fd, p, n, MSG_NOSIGNAL) : recv(fd, p, n, 0);
        if (did <= 0 && !(did < 0 && errno == EINTR)) return false;
        p += did > 0 ? did : 0;
        n -= did > 0 ? (size_t)did : 0;
    }
    return true;
}

static socklen_t card_addr(struct sockaddr_un *un, int pid)
{
    *un = (struct sockaddr_un){.sun_family = AF_UNIX};
    int n = snprintf(un->sun_path + 1, sizeof un->sun_path - 1,
                     "baton-verbs-stand-in-%d", pid);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static int card_dial(int pid)
{
    struct sockaddr_un un;
    socklen_t n = card_addr(&un, pid);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&un, n)) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* Under the lock: what a responder checks. */
static bool allowed(const struct request *r, unsigned access)
{
    const struct qp *qp = qps[r->to_qp % QP_MAX];
    const struct verbs_mr *mr = mrs[r->rkey % MR_MAX];
    if (!qp || qp->pub.qp_num != r->to_qp || qp->peer != r->from ||
        qp->attr.dest_qp_num != r->from_qp ||
        (qp->state != VERBS_QPS_RTR && qp->state != VERBS_QPS_RTS))
        return false;
    return mr && mr->rkey == r->rkey && mr->handle & access &&
           r->addr >= (uintptr_t)mr->addr && r->bytes <= mr->length &&
           r->addr - (uintptr_t)mr->addr <= mr->length - r->bytes;
}

static uint32_t respond(const struct request *r, char *data)
{
    bool write = r->opcode == VERBS_WRITE;
    void *there = (void *)(uintptr_t)r->addr;
    uint32_t status = REMOTE_ACCESS;
    pthread_mutex_lock(&lock);
    if (allowed(r, write ? VERBS_REMOTE_WRITE : VERBS_REMOTE_READ)) {
        FOREIGN_BEGIN();
        memcpy(write ? there : data, write ? data : there, r->bytes);
        FOREIGN_END();
        status = 0;
    }
    pthread_mutex_unlock(&lock);
    return status;
}

static void *responder_main(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char *data = calloc(XFER_CHUNK_BYTES, 1);
    struct request r;
    while (move(fd, &r, sizeof r, false) && r.bytes <= XFER_CHUNK_BYTES) {
        bool write = r.opcode == VERBS_WRITE;
        if (write && !move(fd, data, r.bytes, false)) break;
        uint32_t status = respond(&r, data);
        if (!move(fd, &status, sizeof status, true)) break;
        if (!write && !status && !move(fd, data, r.bytes, true)) break;
    }
    free(data);
    close(fd);
    return NULL;
}

static void *listener_main(void *arg)
{
    int listener = (int)(intptr_t)arg, fd;
    pthread_t thread;
    while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0)
        if (pthread_create(&thread, NULL, responder_main, (void *)(intptr_t)fd))
            close(fd);
        else
            pthread_detach(thread);
    return NULL;
}

static bool serve(void)
{
    struct sockaddr_un un;
    socklen_t n = card_addr(&un, getpid());
    pthread_t thread;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&un, n) || listen(fd, 64) ||
        pthread_create(&thread, NULL, listener_main, (void *)(intptr_t)fd))
        return false;
    pthread_detach(thread);
    served = getpid();
    return true;
}

/* ---- carrying out ---- */

static void complete(struct qp *qp, const struct job *job, uint32_t status)
{
    struct cq *cq = (struct cq *)qp->pub.send_cq;
    struct done *d = calloc(1, sizeof *d);
    d->wc = (struct verbs_wc){
        .wr_id = job->wr.wr_id, .status = status, .qp_num = qp->pub.qp_num};
    TAILQ_INSERT_TAIL(&cq->all, d, next);
    if (!cq->armed) return;
    uint64_t one = 1;
    cq->armed = false;
    if (write(cq->pub.channel->fd, &one, sizeof one) < 0) abort();
}

/* Without the lock. */
static uint32_t carry_out(struct qp *qp, const struct job *job)
{
    struct request r = {.opcode = job->wr.opcode,
                        .to_qp = qp->attr.dest_qp_num,
                        .from_qp = qp->pub.qp_num,
                        .from = getpid(),
                        .rkey = job->wr.rkey,
                        .addr = job->wr.remote_addr,
                        .bytes = job->sge.length};
    void *local = (void *)(uintptr_t)job->sge.addr;
    bool write = r.opcode == VERBS_WRITE;
    uint32_t status = RETRIES_EXCEEDED;
    bool good = move(qp->fd, &r, sizeof r, true) &&
                (!write || move(qp->fd, local, r.bytes, true)) &&
                move(qp->fd, &status, sizeof status, false);
    if (good && !write && !status) good = move(qp->fd, local, r.bytes, false);
    return good ? status : RETRIES_EXCEEDED;
}

static bool local_good(const struct job *job)
{
    const struct verbs_mr *mr = mrs[job->sge.lkey % MR_MAX];
    return mr && mr->lkey == job->sge.lkey &&
           job->sge.addr >= (uintptr_t)mr->addr &&
           job->sge.addr + job->sge.length <= (uintptr_t)mr->addr + mr->length;
}

static void *qp_main(void *arg)
{
    struct qp *qp = arg;
    pthread_mutex_lock(&lock);
    while (!qp->quit) {
        struct job *job = TAILQ_FIRST(&qp->jobs);
        if (!job) {
            pthread_cond_wait(&qp->cond, &lock);
            continue;
        }
        TAILQ_REMOVE(&qp->jobs, job, next);
        qp->queued--;
        uint32_t status = FLUSHED;
        if (qp->state == VERBS_QPS_RTS && !local_good(job)) status = 4;
        if (qp->state == VERBS_QPS_RTS && status != 4) {
            pthread_mutex_unlock(&lock);
            status = carry_out(qp, job);
            pthread_mutex_lock(&lock);
        }
        if (status) qp->state = VERBS_QPS_ERR;
        complete(qp, job, status);
        free(job);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* ---- the interface ---- */

struct verbs_device **ibv_get_device_list(int *count);
void ibv_free_device_list(struct verbs_device **list);
const char *ibv_get_device_name(struct verbs_device *device);
struct verbs_ctx *ibv_open_device(struct verbs_device *device);
int ibv_close_device(struct verbs_ctx *context);
int ibv_query_port(struct verbs_ctx *context, uint8_t port,
                   struct verbs_port *out);
int ibv_query_gid(struct verbs_ctx *context, uint8_t port, int index,
                  uint8_t out[16]);
struct verbs_pd *ibv_alloc_pd(struct verbs_ctx *context);
int ibv_dealloc_pd(struct verbs_pd *pd);
struct verbs_mr *ibv_reg_mr(struct verbs_pd *pd, void *addr, size_t n,
                            int access);
int ibv_dereg_mr(struct verbs_mr *mr);
struct verbs_channel *ibv_create_comp_channel(struct verbs_ctx *context);
int ibv_destroy_comp_channel(struct verbs_channel *channel);
struct verbs_cq *ibv_create_cq(struct verbs_ctx *context, int entries,
                               void *arg, struct verbs_channel *channel,
                               int vector);
int ibv_destroy_cq(struct verbs_cq *cq);
int ibv_get_cq_event(struct verbs_channel *channel, struct verbs_cq **cq,
                     void **arg);
void ibv_ack_cq_events(struct verbs_cq *cq, unsigned count);
struct verbs_qp *ibv_create_qp(struct verbs_pd *pd, struct verbs_qp_init *init);
int ibv_modify_qp(struct verbs_qp *qp, struct verbs_qp_attr *attr, int mask);
int ibv_destroy_qp(struct verbs_qp *qp);
const char *ibv_wc_status_str(int status);

static char device; /* its address is the only one */

struct verbs_device **ibv_get_device_list(int *count)
{
    struct verbs_device **list = calloc(2, sizeof *list);
    list[0] = (struct verbs_device *)&device;
    *count = 1;
    return list;
}

void ibv_free_device_list(struct verbs_device **list)
{
    free(list);
}

const char *ibv_get_device_name(struct verbs_device *d)
{
    (void)d;
    return "standin0";
}

static int poll_cq(struct verbs_cq *pub, int count, struct verbs_wc *out)
{
    struct cq *cq = (struct cq *)pub;
    struct done *d;
    int n = 0;
    pthread_mutex_lock(&lock);
    for (; n < count && (d = TAILQ_FIRST(&cq->all)); n++) {
        TAILQ_REMOVE(&cq->all, d, next);
        out[n] = d->wc;
        free(d);
    }
    pthread_mutex_unlock(&lock);
    return n;
}

static int req_notify_cq(struct verbs_cq *pub, int solicited_only)
{
    (void)solicited_only;
    pthread_mutex_lock(&lock);
    ((struct cq *)pub)->armed = true;
    pthread_mutex_unlock(&lock);
    return 0;
}

static int post_send(struct verbs_qp *pub, struct verbs_wr *first,
                     struct verbs_wr **bad)
{
    struct qp *qp = (struct qp *)pub;
    int e = 0;
    pthread_mutex_lock(&lock);
    for (struct verbs_wr *wr = first; wr && !e; wr = wr->next) {
        *bad = wr;
        if (qp->state < VERBS_QPS_RTS || wr->num_sge != 1) e = EINVAL;
        if (qp->queued == qp->max) e = ENOMEM;
        if (e) break;
        struct job *job = calloc(1, sizeof *job);
        job->wr = *wr;
        job->sge = wr->sg_list[0];
        TAILQ_INSERT_TAIL(&qp->jobs, job, next);
        qp->queued++;
    }
    pthread_cond_broadcast(&qp->cond);
    pthread_mutex_unlock(&lock);
    return e;
}

struct verbs_ctx *ibv_open_device(struct verbs_device *d)
{
    struct verbs_ctx *context = calloc(1, CONTEXT_BYTES);
    context->device = d;
    context->poll_cq = poll_cq;
    context->req_notify_cq = req_notify_cq;
    context->post_send = post_send;
    pthread_mutex_lock(&lock);
    if (!serving || served != getpid()) serving = serve();
    pthread_mutex_unlock(&lock);
    return context;
}

int ibv_close_device(struct verbs_ctx *context)
{
    free(context);
    return 0;
}

int ibv_query_port(struct verbs_ctx *context, uint8_t port,
                   struct verbs_port *out)
{
    (void)context;
    if (port != 1) return EINVAL;
    out->state = VERBS_PORT_ACTIVE;
    out->max_mtu = out->active_mtu = 5;
    out->gid_tbl_len = 3;
    out->link_layer = VERBS_LINK_ETHERNET;
    return 0;
}

/* As cards have it: link-local first, then the one with an IPv4 address. */
int ibv_query_gid(struct verbs_ctx *context, uint8_t port, int index,
                  uint8_t out[16])
{
    (void)context;
    uint32_t pid = (uint32_t)getpid();
    if (port != 1 || index < 0 || index > 2) return -1;
    memset(out, 0, 16);
    if (index == 0) {
        out[0] = 0xfe;
        out[1] = 0x80;
    } else if (index == 1) {
        out[10] = out[11] = 0xff;
    }
    if (index < 2) memcpy(out + 12, &pid, 4);
    return 0;
}

struct verbs_pd *ibv_alloc_pd(struct verbs_ctx *context)
{
    struct verbs_pd *pd = calloc(1, sizeof *pd);
    pd->context = context;
    return pd;
}

int ibv_dealloc_pd(struct verbs_pd *pd)
{
    free(pd);
    return 0;
}

struct verbs_mr *ibv_reg_mr(struct verbs_pd *pd, void *addr, size_t n,
                            int access)
{
    struct verbs_mr *mr = calloc(1, sizeof *mr);
    *mr = (struct verbs_mr){.context = pd->context,
                            .pd = pd,
                            .addr = addr,
                            .length = n,
                            .handle = (uint32_t)access};
    pthread_mutex_lock(&lock);
    for (int tries = 0; tries < MR_MAX && mr; tries++) {
        mr->lkey = mr->rkey = ++serial;
        if (mrs[mr->rkey % MR_MAX]) continue;
        mrs[mr->rkey % MR_MAX] = mr;
        pthread_mutex_unlock(&lock);
        return mr;
    }
    pthread_mutex_unlock(&lock);
    free(mr);
    errno = ENOMEM;
    return NULL;
}

int ibv_dereg_mr(struct verbs_mr *mr)
{
    pthread_mutex_lock(&lock);
    mrs[mr->rkey % MR_MAX] = NULL;
    pthread_mutex_unlock(&lock);
    free(mr);
    return 0;
}

struct verbs_channel *ibv_create_comp_channel(struct verbs_ctx *context)
{
    struct verbs_channel *channel = calloc(1, sizeof *channel);
    channel->context = context;
    channel->fd = eventfd(0, EFD_CLOEXEC);
    return channel;
}

int ibv_destroy_comp_channel(struct verbs_channel *channel)
{
    close(channel->fd);
    free(channel);
    return 0;
}

struct verbs_cq *ibv_create_cq(struct verbs_ctx *context, int entries,
                               void *arg, struct verbs_channel *channel,
                               int vector)
{
    (void)entries;
    (void)vector;
    struct cq *cq = calloc(1, sizeof *cq);
    cq->pub = (struct verbs_cq){context, channel, arg};
    TAILQ_INIT(&cq->all);
    return &cq->pub;
}

int ibv_destroy_cq(struct verbs_cq *pub)
{
    struct cq *cq = (struct cq *)pub;
    for (struct done *d; (d = TAILQ_FIRST(&cq->all));) {
        TAILQ_REMOVE(&cq->all, d, next);
        free(d);
    }
    free(cq);
    return 0;
}

int ibv_get_cq_event(struct verbs_channel *channel, struct verbs_cq **cq,
                     void **arg)
{
    uint64_t count;
    *cq = NULL;
    *arg = NULL;
    return read(channel->fd, &count, sizeof count) == sizeof count ? 0 : -1;
}

void ibv_ack_cq_events(struct verbs_cq *cq, unsigned count)
{
    (void)cq;
    (void)count;
}

struct verbs_qp *ibv_create_qp(struct verbs_pd *pd, struct verbs_qp_init *init)
{
    struct qp *qp = calloc(1, sizeof *qp);
    qp->pub.context = pd->context;
    qp->pub.pd = pd;
    qp->pub.send_cq = init->send_cq;
    qp->pub.recv_cq = init->recv_cq;
    qp->max = init->cap.max_send_wr;
    qp->fd = -1;
    TAILQ_INIT(&qp->jobs);
    pthread_cond_init(&qp->cond, NULL);
    pthread_mutex_lock(&lock);
    do
        qp->pub.qp_num = ++serial & 0xffffff;
    while (qps[qp->pub.qp_num % QP_MAX]);
    qps[qp->pub.qp_num % QP_MAX] = qp;
    pthread_mutex_unlock(&lock);
    if (init->type == VERBS_QPT_RC &&
        !pthread_create(&qp->thread, NULL, qp_main, qp))
        return &qp->pub;
    pthread_mutex_lock(&lock);
    qps[qp->pub.qp_num % QP_MAX] = NULL;
    pthread_mutex_unlock(&lock);
    free(qp);
    errno = EINVAL;
    return NULL;
}

/* What each state must be told, as the specification has it. */
static bool told_enough(uint32_t to, int mask)
{
    int init = VERBS_SET_PKEY | VERBS_SET_PORT | VERBS_SET_ACCESS;
    int rtr = VERBS_SET_PATH | VERBS_SET_MTU | VERBS_SET_DEST |
              VERBS_SET_RQ_PSN | VERBS_SET_READS_IN | VERBS_SET_RNR_TIMER;
    int rts = VERBS_SET_TIMEOUT | VERBS_SET_RETRIES | VERBS_SET_RNR_RETRIES |
              VERBS_SET_SQ_PSN | VERBS_SET_READS;
    int need = to == VERBS_QPS_INIT  ? init
               : to == VERBS_QPS_RTR ? rtr
               : to == VERBS_QPS_RTS ? rts
                                     : 0;
    return mask == (need | VERBS_SET_STATE);
}

int ibv_modify_qp(struct verbs_qp *pub, struct verbs_qp_attr *attr, int mask)
{
    struct qp *qp = (struct qp *)pub;
    uint32_t to = attr->qp_state;
    int fd = -1;
    if (!told_enough(to, mask)) return EINVAL;
    if (to == VERBS_QPS_RTR) {
        int peer;
        memcpy(&peer, attr->path.dgid + 12, sizeof peer);
        fd = card_dial(peer);
        if (fd < 0) return ENETUNREACH;
        qp->peer = peer;
    }
    pthread_mutex_lock(&lock);
    bool good = to == VERBS_QPS_ERR || (int)to == qp->state + 1;
    if (good) {
        qp->state = (int)to;
        if (to == VERBS_QPS_RTR) {
            qp->attr = *attr;
            qp->fd = fd;
        }
        if (to == VERBS_QPS_ERR && qp->fd >= 0) shutdown(qp->fd, SHUT_RDWR);
    }
    pthread_mutex_unlock(&lock);
    return good ? 0 : EINVAL;
}

int ibv_destroy_qp(struct verbs_qp *pub)
{
    struct qp *qp = (struct qp *)pub;
    struct cq *cq = (struct cq *)qp->pub.send_cq;
    struct done *d, *after;
    pthread_mutex_lock(&lock);
    qp->quit = true;
    qp->state = VERBS_QPS_ERR;
    if (qp->fd >= 0) shutdown(qp->fd, SHUT_RDWR);
    pthread_cond_broadcast(&qp->cond);
    pthread_mutex_unlock(&lock);
    pthread_join(qp->thread, NULL);
    pthread_mutex_lock(&lock);
    qps[qp->pub.qp_num % QP_MAX] = NULL;
    for (d = TAILQ_FIRST(&cq->all); d; d = after) {
        after = TAILQ_NEXT(d, next);
        if (d->wc.qp_num != qp->pub.qp_num) continue;
        TAILQ_REMOVE(&cq->all, d, next);
        free(d);
    }
    pthread_mutex_unlock(&lock);
    for (struct job *job; (job = TAILQ_FIRST(&qp->jobs));) {
        TAILQ_REMOVE(&qp->jobs, job, next);
        free(job);
    }
    if (qp->fd >= 0) close(qp->fd);
    pthread_cond_destroy(&qp->cond);
    free(qp);
    return 0;
}

const char *ibv_wc_status_str(int status)
{
    switch (status) {
    case FLUSHED: return "flushed";
    case REMOTE_ACCESS: return "remote access error";
    case RETRIES_EXCEEDED: return "retries exceeded";
    default: return "local protection error";
    }
}
