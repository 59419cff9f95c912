/* RDMA, over libibverbs: reliable connections, RDMA write and read.
 *
 * Nothing here has run on a network card: the machines it was made on have
 * none, and no kernel RDMA (soft-RoCE, siw). It runs in the tests against
 * tests/xfer/verbs_stand_in.c, which has libibverbs' binary interface and
 * moves bytes between processes; and its declarations (verbs.h) are compared
 * with rdma-core's header. Expect to tune it on hardware.
 *
 * One queue pair a link, and one completion queue an engine, on the first
 * device with an active port, or as xfer_options.rdma_device says; on Ethernet
 * (RoCE) with the first GID of type "RoCE v2" that holds an IPv4 address.
 * BATON_RDMA_LIBRARY names another library than libibverbs.so.1.
 *
 * Applied: a completion of RDMA WRITE says that the other card has the bytes,
 * not that they have left the PCIe bus. A READ pushes what was written before
 * it, so a chunk of writes ends with a READ of eight bytes that each end
 * offers for this; its completion is the chunk's.
 *
 * Who may touch what: the card checks queue pair, 32-bit key, range and access
 * of each operation; the 64-bit key and the epoch are checked by the initiator
 * and the handshake. A deregistered range is taken from the card before
 * xfer_deregister returns, a link's queue pair before the link is over. */
#include "xfer/fabric.h"

#include "base/clock.h"
#include "base/mem.h"
#include "xfer/verbs.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    CQ_ENTRIES = 4096,
    FLUSH_BYTES = 8,
    RETRY_TIMEOUT = 14, /* 4.096 us * 2^14 = 67 ms, then again */
    RETRIES = 7,
    HOPS = 64,
    READS = 16, /* RDMA reads under way at a time, at most */
};

struct library {
    void *handle;
    struct verbs_device **(*get_device_list)(int *count);
    void (*free_device_list)(struct verbs_device **list);
    const char *(*get_device_name)(struct verbs_device *device);
    struct verbs_ctx *(*open_device)(struct verbs_device *device);
    int (*close_device)(struct verbs_ctx *context);
    int (*query_port)(struct verbs_ctx *context, uint8_t port,
                      struct verbs_port *out);
    int (*query_gid)(struct verbs_ctx *context, uint8_t port, int index,
                     uint8_t out[16]);
    struct verbs_pd *(*alloc_pd)(struct verbs_ctx *context);
    int (*dealloc_pd)(struct verbs_pd *pd);
    struct verbs_mr *(*reg_mr)(struct verbs_pd *pd, void *addr, size_t n,
                               int access);
    int (*dereg_mr)(struct verbs_mr *mr);
    struct verbs_channel *(*create_comp_channel)(struct verbs_ctx *context);
    int (*destroy_comp_channel)(struct verbs_channel *channel);
    struct verbs_cq *(*create_cq)(struct verbs_ctx *context, int entries,
                                  void *arg, struct verbs_channel *channel,
                                  int vector);
    int (*destroy_cq)(struct verbs_cq *cq);
    int (*get_cq_event)(struct verbs_channel *channel, struct verbs_cq **cq,
                        void **arg);
    void (*ack_cq_events)(struct verbs_cq *cq, unsigned count);
    struct verbs_qp *(*create_qp)(struct verbs_pd *pd,
                                  struct verbs_qp_init *init);
    int (*modify_qp)(struct verbs_qp *qp, struct verbs_qp_attr *attr, int mask);
    int (*destroy_qp)(struct verbs_qp *qp);
    const char *(*wc_status_str)(int status);
};

struct rdma {
    struct library lib;
    struct verbs_ctx *context;
    struct verbs_pd *pd;
    struct verbs_channel *channel;
    struct verbs_cq *cq;
    struct verbs_port port;
    uint8_t port_num, gid[16];
    int gid_index;
    char device[64];
    uint64_t offered, pulled; /* read by peers; into here by us */
    struct verbs_mr *offered_mr, *pulled_mr;
};

struct end {
    struct rdma *r;
    struct verbs_qp *qp;
    uint32_t psn;
    uint64_t flush_addr; /* in the peer */
    uint32_t flush_key;
};

/* ---- the library and the device ---- */

static int library_open(struct library *lib, struct why *why)
{
    const char *name = getenv("BATON_RDMA_LIBRARY");
    if (!name || !*name) name = "libibverbs.so.1";
    lib->handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!lib->handle)
        return err_set(why, ERR_UNSUPPORTED, "rdma: %s", dlerror());
    const struct {
        void *at;
        const char *name;
    } all[] = {
        {&lib->get_device_list, "ibv_get_device_list"},
        {&lib->free_device_list, "ibv_free_device_list"},
        {&lib->get_device_name, "ibv_get_device_name"},
        {&lib->open_device, "ibv_open_device"},
        {&lib->close_device, "ibv_close_device"},
        {&lib->query_port, "ibv_query_port"},
        {&lib->query_gid, "ibv_query_gid"},
        {&lib->alloc_pd, "ibv_alloc_pd"},
        {&lib->dealloc_pd, "ibv_dealloc_pd"},
        {&lib->reg_mr, "ibv_reg_mr"},
        {&lib->dereg_mr, "ibv_dereg_mr"},
        {&lib->create_comp_channel, "ibv_create_comp_channel"},
        {&lib->destroy_comp_channel, "ibv_destroy_comp_channel"},
        {&lib->create_cq, "ibv_create_cq"},
        {&lib->destroy_cq, "ibv_destroy_cq"},
        {&lib->get_cq_event, "ibv_get_cq_event"},
        {&lib->ack_cq_events, "ibv_ack_cq_events"},
        {&lib->create_qp, "ibv_create_qp"},
        {&lib->modify_qp, "ibv_modify_qp"},
        {&lib->destroy_qp, "ibv_destroy_qp"},
        {&lib->wc_status_str, "ibv_wc_status_str"},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        /* Of two interfaces by that name, the newer. */
        void *found = dlvsym(lib->handle, all[i].name, "IBVERBS_1.1");
        if (!found) found = dlsym(lib->handle, all[i].name);
        if (!found)
            return err_set(why, ERR_UNSUPPORTED, "rdma: %s has no %s", name,
                           all[i].name);
        memcpy(all[i].at, &found, sizeof found);
    }
    return 0;
}

/* "name", "name:port", "name:port:gid index"; what is missing is 0, 0, -1. */
static int device_wanted(const char *text, char name[64], unsigned *port,
                         int *gid, struct why *why)
{
    *name = 0;
    *port = 0;
    *gid = -1;
    if (!text || !*text) return 0;
    char rest;
    int colons = 0, n = sscanf(text, "%63[^:]:%u:%d%c", name, port, gid, &rest);
    for (const char *p = text; *p; p++)
        colons += *p == ':';
    if (n == colons + 1 && n <= 3 && *port < 256 && *gid < 256) return 0;
    return err_set(why, ERR_INVALID, "\"%s\" is not name:port:gid", text);
}

static bool port_active(struct rdma *r, unsigned port)
{
    memset(&r->port, 0, sizeof r->port);
    if (r->lib.query_port(r->context, (uint8_t)port, &r->port) ||
        r->port.state != VERBS_PORT_ACTIVE)
        return false;
    r->port_num = (uint8_t)port;
    return true;
}

static bool device_try(struct rdma *r, struct verbs_device *device,
                       unsigned port)
{
    r->context = r->lib.open_device(device);
    if (!r->context) return false;
    for (unsigned n = port ? port : 1; n <= (port ? port : 2); n++)
        if (port_active(r, n)) return true;
    r->lib.close_device(r->context);
    r->context = NULL;
    return false;
}

static int device_open(struct rdma *r, const char *name, unsigned port,
                       struct why *why)
{
    int count = 0;
    struct verbs_device **list = r->lib.get_device_list(&count);
    for (int i = 0; list && i < count && !r->context; i++) {
        const char *this = r->lib.get_device_name(list[i]);
        if (*name && strcmp(name, this) != 0) continue;
        if (device_try(r, list[i], port))
            snprintf(r->device, sizeof r->device, "%s", this);
    }
    if (list) r->lib.free_device_list(list);
    if (r->context) return 0;
    return err_set(why, ERR_UNSUPPORTED,
                   "rdma: no device%s%s with an active port among %d",
                   *name ? " " : "", name, count);
}

/* RoCE v2 carries IP; other types of GID do not leave the subnet. The kernel
 * tells the type; where it does not, any may do. */
static bool gid_is_v2(const struct rdma *r, int index)
{
    char path[160], type[16] = "";
    snprintf(path, sizeof path,
             "/sys/class/infiniband/%s/ports/%u/gid_attrs/types/%d", r->device,
             r->port_num, index);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return true;
    ssize_t n = read(fd, type, sizeof type - 1);
    close(fd);
    return n > 0 && !strncmp(type, "RoCE v2", 7);
}

static bool gid_is_v4(const uint8_t gid[16])
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    return !memcmp(gid, mapped, sizeof mapped);
}

static bool gid_good(struct rdma *r, int index, bool v4, uint8_t gid[16])
{
    static const uint8_t none[16];
    return !r->lib.query_gid(r->context, r->port_num, index, gid) &&
           memcmp(gid, none, sizeof none) != 0 && gid_is_v2(r, index) &&
           (!v4 || gid_is_v4(gid));
}

static int gid_choose(struct rdma *r, int wanted, struct why *why)
{
    int count = r->port.gid_tbl_len < 256 ? r->port.gid_tbl_len : 256;
    r->gid_index = wanted >= 0 ? wanted : 0;
    if (wanted >= 0 || r->port.link_layer != VERBS_LINK_ETHERNET) {
        if (!r->lib.query_gid(r->context, r->port_num, r->gid_index, r->gid))
            return 0;
        return err_set(why, ERR_INVALID, "rdma: %s has no GID %d", r->device,
                       r->gid_index);
    }
    for (int v4 = 1; v4 >= 0; v4--)
        for (int i = 0; i < count; i++)
            if (gid_good(r, i, v4, r->gid)) {
                r->gid_index = i;
                return 0;
            }
    return err_set(why, ERR_UNSUPPORTED, "rdma: %s has no RoCE v2 GID",
                   r->device);
}

static int queues_open(struct fabric *f, struct rdma *r, struct why *why)
{
    struct library *lib = &r->lib;
    r->pd = lib->alloc_pd(r->context);
    r->channel = r->pd ? lib->create_comp_channel(r->context) : NULL;
    if (r->channel)
        r->cq = lib->create_cq(r->context, CQ_ENTRIES, NULL, r->channel, 0);
    if (r->cq)
        r->offered_mr =
            lib->reg_mr(r->pd, &r->offered, FLUSH_BYTES, VERBS_REMOTE_READ);
    if (r->offered_mr)
        r->pulled_mr =
            lib->reg_mr(r->pd, &r->pulled, FLUSH_BYTES, VERBS_LOCAL_WRITE);
    if (!r->pulled_mr)
        return err_sys(why, ERR_IO, errno, "rdma: %s: cannot set up",
                       r->device);
    f->fd = r->channel->fd;
    int flags = fcntl(f->fd, F_GETFL);
    if (flags < 0 || fcntl(f->fd, F_SETFL, flags | O_NONBLOCK))
        return err_sys(why, ERR_IO, errno, "rdma: %s", r->device);
    return 0;
}

static int rdma_open(struct fabric *f, struct why *why)
{
    struct rdma *r = f->lib = mem_must(1, sizeof *r);
    char name[64];
    unsigned port;
    int gid;
    int rc = device_wanted(f->x->opt.rdma_device, name, &port, &gid, why);
    if (!rc) rc = library_open(&r->lib, why);
    if (!rc) rc = device_open(r, name, port, why);
    if (!rc) rc = gid_choose(r, gid, why);
    if (!rc) rc = queues_open(f, r, why);
    snprintf(f->text, sizeof f->text, "%.40s port %u", r->device, r->port_num);
    return rc;
}

static void rdma_close(struct fabric *f)
{
    struct rdma *r = f->lib;
    if (!r) return;
    if (r->pulled_mr) r->lib.dereg_mr(r->pulled_mr);
    if (r->offered_mr) r->lib.dereg_mr(r->offered_mr);
    if (r->cq) r->lib.destroy_cq(r->cq);
    if (r->channel) r->lib.destroy_comp_channel(r->channel);
    if (r->pd) r->lib.dealloc_pd(r->pd);
    if (r->context) r->lib.close_device(r->context);
    /* The library stays loaded: its drivers do not like to be unloaded. */
    mem_free(r);
    f->lib = NULL;
}

/* ---- memory ---- */

static int rdma_mem_open(struct fabric *f, struct xfer_mem *mem,
                         struct fabric_mem *out, struct why *why)
{
    struct rdma *r = f->lib;
    int access = VERBS_LOCAL_WRITE;
    if (mem->access & XFER_REMOTE_READ) access |= VERBS_REMOTE_READ;
    if (mem->access & XFER_REMOTE_WRITE) access |= VERBS_REMOTE_WRITE;
    struct verbs_mr *mr = r->lib.reg_mr(r->pd, mem->base, mem->bytes, access);
    if (!mr)
        return err_sys(why, ERR_IO, errno,
                       "rdma: %s cannot register %zu bytes (ulimit -l?)",
                       r->device, mem->bytes);
    out->handle = mr;
    out->key_bytes = 4;
    wire_put(out->key, mr->rkey, 4);
    return 0;
}

static void rdma_mem_close(struct fabric *f, struct fabric_mem *mem)
{
    struct rdma *r = f->lib;
    r->lib.dereg_mr(mem->handle);
}

/* Moved off 0. */
static int rdma_key_open(void *end, const uint8_t *key, size_t n, uint64_t *out,
                         struct why *why)
{
    (void)end;
    if (n != 4) return err_set(why, ERR_FORMAT, "rdma: key of %zu bytes", n);
    *out = wire_get(key, 4) + ((uint64_t)1 << 32);
    return 0;
}

/* ---- ends ---- */

static int qp_to_init(struct rdma *r, struct verbs_qp *qp)
{
    struct verbs_qp_attr attr = {.qp_state = VERBS_QPS_INIT,
                                 .port_num = r->port_num,
                                 .access =
                                     VERBS_REMOTE_READ | VERBS_REMOTE_WRITE};
    return r->lib.modify_qp(qp, &attr,
                            VERBS_SET_STATE | VERBS_SET_PKEY | VERBS_SET_PORT |
                                VERBS_SET_ACCESS);
}

static int rdma_end_open(struct fabric *f, struct fabric_end *owner,
                         bool target, void **out, uint8_t *addr, size_t *n,
                         struct why *why)
{
    (void)owner, (void)target;
    struct rdma *r = f->lib;
    struct verbs_qp_init init = {.send_cq = r->cq,
                                 .recv_cq = r->cq,
                                 .type = VERBS_QPT_RC,
                                 .cap = {.max_send_wr = FABRIC_POSTED_MAX,
                                         .max_recv_wr = 1,
                                         .max_send_sge = 1,
                                         .max_recv_sge = 1}};
    struct verbs_qp *qp = r->lib.create_qp(r->pd, &init);
    if (!qp)
        return err_sys(why, ERR_IO, errno, "rdma: %s: queue pair", r->device);
    int e = qp_to_init(r, qp);
    if (e) {
        r->lib.destroy_qp(qp);
        return err_sys(why, ERR_IO, e, "rdma: %s: queue pair", r->device);
    }
    struct end *end = mem_must(1, sizeof *end);
    *end = (struct end){.r = r, .qp = qp, .psn = random_u64() & 0xffffff};
    struct wire_rdma a = {.qp_num = qp->qp_num,
                          .psn = end->psn,
                          .flush_key = r->offered_mr->rkey,
                          .flush_addr = (uintptr_t)&r->offered,
                          .lid = r->port.lid,
                          .mtu = (uint8_t)r->port.active_mtu,
                          .ethernet =
                              r->port.link_layer == VERBS_LINK_ETHERNET};
    memcpy(a.gid, r->gid, sizeof a.gid);
    *n = wire_rdma_encode(&a, addr);
    *out = end;
    return 0;
}

static int qp_to_receive(struct rdma *r, struct verbs_qp *qp,
                         const struct wire_rdma *peer)
{
    bool ethernet = r->port.link_layer == VERBS_LINK_ETHERNET;
    uint32_t mtu = r->port.active_mtu;
    struct verbs_qp_attr attr = {.qp_state = VERBS_QPS_RTR,
                                 .path_mtu = peer->mtu < mtu ? peer->mtu : mtu,
                                 .dest_qp_num = peer->qp_num,
                                 .rq_psn = peer->psn,
                                 .max_dest_rd_atomic = READS,
                                 .min_rnr_timer = 12,
                                 .path = {.dlid = peer->lid,
                                          .port_num = r->port_num,
                                          .is_global = ethernet,
                                          .sgid_index = (uint8_t)r->gid_index,
                                          .hop_limit = HOPS}};
    memcpy(attr.path.dgid, peer->gid, sizeof attr.path.dgid);
    return r->lib.modify_qp(qp, &attr,
                            VERBS_SET_STATE | VERBS_SET_PATH | VERBS_SET_MTU |
                                VERBS_SET_DEST | VERBS_SET_RQ_PSN |
                                VERBS_SET_READS_IN | VERBS_SET_RNR_TIMER);
}

static int qp_to_send(struct rdma *r, struct verbs_qp *qp, uint32_t psn)
{
    struct verbs_qp_attr attr = {.qp_state = VERBS_QPS_RTS,
                                 .timeout = RETRY_TIMEOUT,
                                 .retry_cnt = RETRIES,
                                 .rnr_retry = RETRIES,
                                 .sq_psn = psn,
                                 .max_rd_atomic = READS};
    return r->lib.modify_qp(qp, &attr,
                            VERBS_SET_STATE | VERBS_SET_TIMEOUT |
                                VERBS_SET_RETRIES | VERBS_SET_RNR_RETRIES |
                                VERBS_SET_SQ_PSN | VERBS_SET_READS);
}

static int rdma_end_connect(struct fabric *f, void *to, const uint8_t *addr,
                            size_t n, struct why *why)
{
    struct rdma *r = f->lib;
    struct end *end = to;
    struct wire_rdma peer;
    int rc = wire_rdma_decode(&peer, addr, n, why);
    if (rc) return rc;
    if (peer.ethernet != (r->port.link_layer == VERBS_LINK_ETHERNET))
        return err_set(why, ERR_UNSUPPORTED,
                       "rdma: one side is InfiniBand, the other Ethernet");
    end->flush_addr = peer.flush_addr;
    end->flush_key = peer.flush_key;
    int e = qp_to_receive(r, end->qp, &peer);
    if (!e) e = qp_to_send(r, end->qp, end->psn);
    if (!e) return 0;
    return err_sys(why, ERR_IO, e, "rdma: %s cannot connect (GID %d)",
                   r->device, r->gid_index);
}

/* Takes what the queue holds, of all ends. */
static bool reap(struct fabric *f)
{
    struct rdma *r = f->lib;
    struct verbs_wc wc[32];
    bool any = false;
    int n;
    while ((n = r->context->poll_cq(r->cq, 32, wc)) > 0) {
        any = true;
        for (int i = 0; i < n; i++) {
            int status = (int)wc[i].status;
            char text[120];
            snprintf(text, sizeof text, "rdma: %s",
                     status ? r->lib.wc_status_str(status) : "");
            fabric_done((struct fabric_work *)(uintptr_t)wc[i].wr_id,
                        status ? ERR_PEER : 0, text);
        }
    }
    return any;
}

static void rdma_end_close(struct fabric *f, void *to)
{
    struct rdma *r = f->lib;
    struct end *end = to;
    struct verbs_qp_attr attr = {.qp_state = VERBS_QPS_ERR};
    r->lib.modify_qp(end->qp, &attr, VERBS_SET_STATE);
    /* Destroying takes what is left of it out of the queue. */
    reap(f);
    r->lib.destroy_qp(end->qp);
    mem_free(end);
}

/* ---- moving ---- */

static int post(struct end *end, struct verbs_wr *wr, struct fabric_work *work,
                struct why *why)
{
    struct rdma *r = end->r;
    struct verbs_wr *bad;
    wr->wr_id = (uintptr_t)work;
    wr->num_sge = 1;
    wr->flags = VERBS_SIGNALED;
    int e = r->context->post_send(end->qp, wr, &bad);
    return e ? err_sys(why, ERR_PEER, e, "rdma: %s: post", r->device) : 0;
}

static int rdma_post(struct fabric *f, void *to, const struct fabric_op *op,
                     struct why *why)
{
    (void)f;
    const struct verbs_mr *mr = op->mem->handle;
    struct verbs_sge sge = {.addr = (uintptr_t)op->local,
                            .length = (uint32_t)op->bytes,
                            .lkey = mr->lkey};
    struct verbs_wr wr = {.sg_list = &sge,
                          .opcode =
                              op->kind == XFER_WRITE ? VERBS_WRITE : VERBS_READ,
                          .remote_addr = op->remote,
                          .rkey = (uint32_t)op->key};
    return post(to, &wr, op->work, why);
}

static int rdma_finish(struct fabric *f, void *to, struct fabric_work *work,
                       struct why *why)
{
    struct rdma *r = f->lib;
    struct end *end = to;
    struct verbs_sge sge = {.addr = (uintptr_t)&r->pulled,
                            .length = FLUSH_BYTES,
                            .lkey = r->pulled_mr->lkey};
    struct verbs_wr wr = {.sg_list = &sge,
                          .opcode = VERBS_READ,
                          .remote_addr = end->flush_addr,
                          .rkey = end->flush_key};
    return post(end, &wr, work, why);
}

static bool rdma_arm(struct fabric *f)
{
    struct rdma *r = f->lib;
    struct verbs_cq *cq;
    void *arg;
    unsigned events = 0;
    while (!r->lib.get_cq_event(r->channel, &cq, &arg))
        events++;
    if (events) r->lib.ack_cq_events(r->cq, events);
    r->context->req_notify_cq(r->cq, 0);
    return !reap(f);
}

const struct xfer_way xfer_way_rdma = {.name = "rdma",
                                       .via = XFER_VIA_RDMA,
                                       .find = fabric_find,
                                       .hold = link_place_hold,
                                       .drop = link_place_drop,
                                       .kick = fabric_kick};

const struct fabric_ops fabric_rdma = {.way = &xfer_way_rdma,
                                       .number = 1,
                                       .open = rdma_open,
                                       .close = rdma_close,
                                       .mem_open = rdma_mem_open,
                                       .mem_close = rdma_mem_close,
                                       .end_open = rdma_end_open,
                                       .end_connect = rdma_end_connect,
                                       .end_close = rdma_end_close,
                                       .key_open = rdma_key_open,
                                       .post = rdma_post,
                                       .finish = rdma_finish,
                                       .progress = reap,
                                       .arm = rdma_arm};
