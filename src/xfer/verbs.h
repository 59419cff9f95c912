/* xfer/verbs.h - the part of libibverbs' binary interface that rdma.c uses.
 *
 * Own declarations of the layouts of rdma-core's library, version 1 (soname
 * libibverbs.so.1, symbols IBVERBS_1.1), for 64-bit Linux: binaries need
 * neither its header nor the library until RDMA is asked for. Named by offset
 * are only the fields that are read or written here; tests/xfer/verbs_test.c
 * compares them with the real header where that is installed. Posting and
 * polling are no symbols of the library: they go through the table of
 * functions in the context. */
#ifndef BATON_XFER_VERBS_H
#define BATON_XFER_VERBS_H

#include <stdint.h>

struct verbs_device; /* opaque */
struct verbs_qp;
struct verbs_wr;
struct verbs_wc;
struct verbs_cq;

struct verbs_ctx {
    struct verbs_device *device;
    void *ops_before_poll[11];
    int (*poll_cq)(struct verbs_cq *cq, int count, struct verbs_wc *out);
    int (*req_notify_cq)(struct verbs_cq *cq, int solicited_only);
    void *ops_between[12];
    int (*post_send)(struct verbs_qp *qp, struct verbs_wr *first,
                     struct verbs_wr **bad);
    void *ops_after[6];
    int cmd_fd, async_fd, num_comp_vectors;
    /* more follows */
};

struct verbs_pd {
    struct verbs_ctx *context;
    uint32_t handle;
};

struct verbs_mr {
    struct verbs_ctx *context;
    struct verbs_pd *pd;
    void *addr;
    uint64_t length;
    uint32_t handle, lkey, rkey;
};

struct verbs_channel {
    struct verbs_ctx *context;
    int fd, refcnt;
};

struct verbs_cq {
    struct verbs_ctx *context;
    struct verbs_channel *channel;
    void *cq_context;
    /* more follows */
};

struct verbs_qp {
    struct verbs_ctx *context;
    void *qp_context;
    struct verbs_pd *pd;
    struct verbs_cq *send_cq, *recv_cq;
    void *srq;
    uint32_t handle, qp_num, state, type;
    /* more follows */
};

struct verbs_cap {
    uint32_t max_send_wr, max_recv_wr, max_send_sge, max_recv_sge;
    uint32_t max_inline_data;
};

struct verbs_qp_init {
    void *qp_context;
    struct verbs_cq *send_cq, *recv_cq;
    void *srq;
    struct verbs_cap cap;
    uint32_t type;
    int sq_sig_all;
};

struct verbs_path { /* address vector */
    uint8_t dgid[16];
    uint32_t flow_label;
    uint8_t sgid_index, hop_limit, traffic_class, zero;
    uint16_t dlid;
    uint8_t sl, src_path_bits, static_rate, is_global, port_num, pad;
};

struct verbs_qp_attr {
    uint32_t qp_state, cur_qp_state, path_mtu, path_mig_state, qkey;
    uint32_t rq_psn, sq_psn, dest_qp_num, access;
    struct verbs_cap cap;
    struct verbs_path path, alt_path;
    uint16_t pkey_index, alt_pkey_index;
    uint8_t en_sqd_async_notify, sq_draining, max_rd_atomic, max_dest_rd_atomic;
    uint8_t min_rnr_timer, port_num, timeout, retry_cnt, rnr_retry;
    uint8_t alt_port_num, alt_timeout;
    uint32_t rate_limit, pad;
};

struct verbs_sge {
    uint64_t addr;
    uint32_t length, lkey;
};

struct verbs_wr {
    uint64_t wr_id;
    struct verbs_wr *next;
    struct verbs_sge *sg_list;
    int num_sge;
    uint32_t opcode, flags, imm;
    uint64_t remote_addr;
    uint32_t rkey;
    uint8_t rest[76]; /* of other kinds */
};

struct verbs_wc {
    uint64_t wr_id;
    uint32_t status, opcode, vendor_err, byte_len, imm, qp_num;
    uint8_t rest[16];
};

struct verbs_port { /* the library fills at most 52 bytes */
    uint32_t state, max_mtu, active_mtu;
    int gid_tbl_len;
    uint8_t skipped[18];
    uint16_t lid;
    uint8_t skipped_too[10], link_layer, flags;
    uint8_t rest[16];
};

enum {
    VERBS_QPT_RC = 2,
    VERBS_QPS_INIT = 1,
    VERBS_QPS_RTR = 2,
    VERBS_QPS_RTS = 3,
    VERBS_QPS_ERR = 6,
    VERBS_WRITE = 0,
    VERBS_READ = 4,
    VERBS_SIGNALED = 2,
    VERBS_LOCAL_WRITE = 1,
    VERBS_REMOTE_WRITE = 2,
    VERBS_REMOTE_READ = 4,
    VERBS_PORT_ACTIVE = 4,
    VERBS_LINK_ETHERNET = 2,
    VERBS_WC_FLUSHED = 5,
    VERBS_WC_REMOTE_ACCESS = 10,
};
enum { /* which attributes a state change sets */
       VERBS_SET_STATE = 1,
       VERBS_SET_ACCESS = 8,
       VERBS_SET_PKEY = 0x10,
       VERBS_SET_PORT = 0x20,
       VERBS_SET_PATH = 0x80,
       VERBS_SET_MTU = 0x100,
       VERBS_SET_TIMEOUT = 0x200,
       VERBS_SET_RETRIES = 0x400,
       VERBS_SET_RNR_RETRIES = 0x800,
       VERBS_SET_RQ_PSN = 0x1000,
       VERBS_SET_READS = 0x2000,
       VERBS_SET_RNR_TIMER = 0x8000,
       VERBS_SET_SQ_PSN = 0x10000,
       VERBS_SET_READS_IN = 0x20000,
       VERBS_SET_DEST = 0x100000,
};

#endif
