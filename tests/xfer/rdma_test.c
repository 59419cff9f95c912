/* RDMA where something is missing or wrong; that it moves bytes is in
 * contract_test.c, that its peers may die in peer_test.c. All against the
 * stand-in (verbs_stand_in.c); and, where rdma-core's header is installed,
 * whether verbs.h says the same. */
#include "tests/test.h"

#include "tests/xfer/target.h"
#include "xfer/verbs.h"

#if __has_include(<infiniband/verbs.h>)
#include <infiniband/verbs.h>
#define HAVE_VERBS_H 1
#endif

enum { MS = 20000 };

static int try_open(const char *library, const char *device, struct why *why)
{
    struct xfer_options opt = {.via = XFER_VIA_ALL | XFER_VIA_RDMA,
                               .rdma_device = device};
    struct xfer *x;
    char kept[500];
    snprintf(kept, sizeof kept, "%s", getenv("BATON_RDMA_LIBRARY"));
    if (library) setenv("BATON_RDMA_LIBRARY", library, 1);
    memset(why, 0, sizeof *why);
    int rc = xfer_open(&x, &opt, why);
    xfer_close(x);
    setenv("BATON_RDMA_LIBRARY", kept, 1);
    return rc;
}

static void what_is_missing_is_named(void **state)
{
    (void)state;
    struct why why;
    assert_int_equal(try_open("/nowhere/libibverbs.so", NULL, &why),
                     ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "/nowhere/libibverbs.so"));
    assert_int_equal(try_open("libm.so.6", NULL, &why), ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "ibv_get_device_list"));
    assert_int_equal(try_open(NULL, "mlx5_7", &why), ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "mlx5_7"));
    assert_int_equal(try_open(NULL, "standin0:2", &why), ERR_UNSUPPORTED);
    assert_int_equal(try_open(NULL, "standin0:1:9", &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "GID 9"));
    assert_int_equal(try_open(NULL, "standin0:x", &why), ERR_INVALID);
    assert_int_equal(try_open(NULL, "standin0:1:1", &why), 0);
    assert_int_equal(try_open(NULL, "standin0", &why), 0);
}

/* A peer without it is reached over what is left, and we are told so. */
static void peer_without_rdma_is_reached_by_tcp(void **state)
{
    (void)state;
    struct xfer_options opt = {.via = XFER_VIA_RDMA | XFER_VIA_TCP};
    struct why why = {0};
    struct xfer *x;
    struct xfer_mem *mem;
    struct xfer_peer *peer;
    struct target t;
    char text[200];
    target_start(&t, XFER_VIA_ALL, 0, 1, "");
    assert_int_equal(xfer_open(&x, &opt, &why), 0);
    assert_int_equal(xfer_alloc(x, 4096, 0, &mem, &why), 0);
    assert_int_equal(xfer_peer_open(x, t.name, &peer, &why), 0);
    struct xfer_op op = {
        .local = xfer_mem_base(mem), .remote = t.own, .bytes = 4096};
    if (xfer_transfer(peer, &op, 1, MS, &why)) fail_msg("%s", why.text);
    xfer_peer_explain(peer, text, sizeof text);
    assert_memory_equal(text, "tcp", 3);
    assert_non_null(strstr(text, "no rdma: the peer"));
    xfer_close(x);
    target_end(&t, 0);
}

/* What a peer has registered before we came goes by RDMA, all of it. */
static void bytes_go_by_rdma(void **state)
{
    (void)state;
    struct xfer_options opt = {.via = XFER_VIA_RDMA | XFER_VIA_TCP};
    struct why why = {0};
    struct xfer *x;
    struct xfer_mem *mem;
    struct xfer_peer *peer;
    struct xfer_stats stats;
    struct target t;
    target_start(&t, XFER_VIA_ALL | XFER_VIA_RDMA, 0, 1, "");
    assert_int_equal(xfer_open(&x, &opt, &why), 0);
    assert_int_equal(xfer_alloc(x, TARGET_BYTES, 0, &mem, &why), 0);
    assert_int_equal(xfer_peer_open(x, t.name, &peer, &why), 0);
    struct xfer_op ops[] = {{.kind = XFER_WRITE,
                             .local = xfer_mem_base(mem),
                             .remote = t.own,
                             .bytes = TARGET_BYTES},
                            {.kind = XFER_READ,
                             .rows = 3000, /* more than are posted at once */
                             .local = xfer_mem_base(mem),
                             .remote = t.shared,
                             .bytes = 7,
                             .local_pitch = 9,
                             .remote_pitch = 11}};
    for (int i = 0; i < 2; i++)
        if (xfer_transfer(peer, &ops[i], 1, MS, &why)) fail_msg("%s", why.text);
    xfer_stats_get(x, &stats);
    enum { RDMA = 5 };
    assert_string_equal(xfer_way_name(RDMA), "rdma");
    assert_int_equal(stats.way[RDMA].bytes, TARGET_BYTES + 21000);
    assert_int_equal(stats.way[RDMA].errors, 0);
    /* Registered with the card, read only: it refuses, and so do we. */
    struct xfer_op bad = {.kind = XFER_WRITE,
                          .local = xfer_mem_base(mem),
                          .remote = t.secret,
                          .bytes = 8};
    assert_int_equal(xfer_transfer(peer, &bad, 1, MS, &why), ERR_RANGE);
    xfer_close(x);
    target_end(&t, 0);
}

/* Most of what goes wrong with real queue pairs is an attribute that was not
 * set; the stand-in insists on those that the specification asks for. */
#ifdef HAVE_VERBS_H
#define SAME(ours, field, theirs, other)                        \
    assert_int_equal(offsetof(struct verbs_##ours, field),      \
                     offsetof(struct ibv_##theirs, other));     \
    assert_int_equal(sizeof(((struct verbs_##ours *)0)->field), \
                     sizeof(((struct ibv_##theirs *)0)->other))
#define SAME_SIZE(ours, theirs) \
    assert_int_equal(sizeof(struct verbs_##ours), sizeof(struct ibv_##theirs))

static void header_says_the_same(void **state)
{
    (void)state;
    SAME(ctx, device, context, device);
    SAME(ctx, poll_cq, context, ops.poll_cq);
    SAME(ctx, req_notify_cq, context, ops.req_notify_cq);
    SAME(ctx, post_send, context, ops.post_send);
    SAME(ctx, async_fd, context, async_fd);
    SAME(mr, lkey, mr, lkey);
    SAME(mr, rkey, mr, rkey);
    SAME_SIZE(mr, mr);
    SAME(channel, fd, comp_channel, fd);
    SAME(qp, qp_num, qp, qp_num);
    SAME(qp_init, send_cq, qp_init_attr, send_cq);
    SAME(qp_init, recv_cq, qp_init_attr, recv_cq);
    SAME(qp_init, cap, qp_init_attr, cap);
    SAME(qp_init, type, qp_init_attr, qp_type);
    SAME(qp_init, sq_sig_all, qp_init_attr, sq_sig_all);
    SAME_SIZE(qp_init, qp_init_attr);
    SAME(cap, max_send_wr, qp_cap, max_send_wr);
    SAME(cap, max_send_sge, qp_cap, max_send_sge);
    SAME_SIZE(cap, qp_cap);
    SAME(qp_attr, qp_state, qp_attr, qp_state);
    SAME(qp_attr, path_mtu, qp_attr, path_mtu);
    SAME(qp_attr, rq_psn, qp_attr, rq_psn);
    SAME(qp_attr, sq_psn, qp_attr, sq_psn);
    SAME(qp_attr, dest_qp_num, qp_attr, dest_qp_num);
    SAME(qp_attr, access, qp_attr, qp_access_flags);
    SAME(qp_attr, path, qp_attr, ah_attr);
    SAME(qp_attr, pkey_index, qp_attr, pkey_index);
    SAME(qp_attr, max_rd_atomic, qp_attr, max_rd_atomic);
    SAME(qp_attr, max_dest_rd_atomic, qp_attr, max_dest_rd_atomic);
    SAME(qp_attr, min_rnr_timer, qp_attr, min_rnr_timer);
    SAME(qp_attr, port_num, qp_attr, port_num);
    SAME(qp_attr, timeout, qp_attr, timeout);
    SAME(qp_attr, retry_cnt, qp_attr, retry_cnt);
    SAME(qp_attr, rnr_retry, qp_attr, rnr_retry);
    SAME_SIZE(qp_attr, qp_attr);
    SAME(path, dgid, ah_attr, grh.dgid);
    SAME(path, sgid_index, ah_attr, grh.sgid_index);
    SAME(path, hop_limit, ah_attr, grh.hop_limit);
    SAME(path, dlid, ah_attr, dlid);
    SAME(path, is_global, ah_attr, is_global);
    SAME(path, port_num, ah_attr, port_num);
    SAME(sge, lkey, sge, lkey);
    SAME_SIZE(sge, sge);
    SAME(wr, next, send_wr, next);
    SAME(wr, sg_list, send_wr, sg_list);
    SAME(wr, num_sge, send_wr, num_sge);
    SAME(wr, opcode, send_wr, opcode);
    SAME(wr, flags, send_wr, send_flags);
    SAME(wr, remote_addr, send_wr, wr.rdma.remote_addr);
    SAME(wr, rkey, send_wr, wr.rdma.rkey);
    SAME_SIZE(wr, send_wr);
    SAME(wc, wr_id, wc, wr_id);
    SAME(wc, status, wc, status);
    SAME(wc, qp_num, wc, qp_num);
    SAME_SIZE(wc, wc);
    SAME(port, state, port_attr, state);
    SAME(port, active_mtu, port_attr, active_mtu);
    SAME(port, gid_tbl_len, port_attr, gid_tbl_len);
    SAME(port, lid, port_attr, lid);
    SAME(port, link_layer, port_attr, link_layer);
    assert_true(sizeof(struct verbs_port) >= sizeof(struct ibv_port_attr));
    assert_int_equal(VERBS_QPT_RC, IBV_QPT_RC);
    assert_int_equal(VERBS_QPS_RTR, IBV_QPS_RTR);
    assert_int_equal(VERBS_QPS_RTS, IBV_QPS_RTS);
    assert_int_equal(VERBS_QPS_ERR, IBV_QPS_ERR);
    assert_int_equal(VERBS_WRITE, IBV_WR_RDMA_WRITE);
    assert_int_equal(VERBS_READ, IBV_WR_RDMA_READ);
    assert_int_equal(VERBS_SIGNALED, IBV_SEND_SIGNALED);
    assert_int_equal(VERBS_REMOTE_WRITE, IBV_ACCESS_REMOTE_WRITE);
    assert_int_equal(VERBS_REMOTE_READ, IBV_ACCESS_REMOTE_READ);
    assert_int_equal(VERBS_PORT_ACTIVE, IBV_PORT_ACTIVE);
    assert_int_equal(VERBS_LINK_ETHERNET, IBV_LINK_LAYER_ETHERNET);
    assert_int_equal(VERBS_SET_PATH, IBV_QP_AV);
    assert_int_equal(VERBS_SET_DEST, IBV_QP_DEST_QPN);
    assert_int_equal(VERBS_SET_READS_IN, IBV_QP_MAX_DEST_RD_ATOMIC);
    assert_int_equal(VERBS_SET_READS, IBV_QP_MAX_QP_RD_ATOMIC);
    assert_int_equal(VERBS_SET_RNR_TIMER, IBV_QP_MIN_RNR_TIMER);
    assert_int_equal(VERBS_SET_RNR_RETRIES, IBV_QP_RNR_RETRY);
    assert_int_equal(VERBS_SET_SQ_PSN, IBV_QP_SQ_PSN);
    assert_int_equal(VERBS_SET_RQ_PSN, IBV_QP_RQ_PSN);
}
#else
static void header_says_the_same(void **state)
{
    (void)state;
    SKIP("infiniband/verbs.h is not installed");
}
#endif

int main(int argc, char **argv)
{
    if (argc == 6 && !strcmp(argv[1], "--target")) return target_main(argv + 2);
    const struct CMUnitTest tests[] = {
        T(what_is_missing_is_named),
        T(peer_without_rdma_is_reached_by_tcp),
        T(bytes_go_by_rdma),
        T(header_says_the_same),
    };
    return cmocka_run_group_tests_name("rdma", tests, NULL, NULL);
}
