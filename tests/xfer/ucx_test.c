/* UCX where something is missing or wrong, against the real library; that it
 * moves bytes is in contract_test.c and matrix_test.c, that its peers may die
 * in death_test.c. And, where its header is installed, whether ucx_abi.h says
 * the same. */
#include "tests/test.h"

#include "tests/xfer/target.h"
#include "xfer/ucx_abi.h"

#if __has_include(<ucp/api/ucp.h>)
#include <ucp/api/ucp.h>
#define HAVE_UCP_H 1
#endif

enum { MS = 20000, UCX = 6 };

static int try_open(const char *library, unsigned more_via, struct why *why)
{
    struct xfer_options opt = {.via = XFER_VIA_ALL | XFER_VIA_UCX | more_via};
    struct xfer *x;
    if (library) setenv("BATON_UCX_LIBRARY", library, 1);
    memset(why, 0, sizeof *why);
    int rc = xfer_open(&x, &opt, why);
    xfer_close(x);
    unsetenv("BATON_UCX_LIBRARY");
    return rc;
}

static void needs_ucx(void)
{
    struct why why;
    if (try_open(NULL, 0, &why) == ERR_UNSUPPORTED) SKIP("%s", why.text);
}

static void what_is_missing_is_named(void **state)
{
    (void)state;
    struct why why;
    assert_int_equal(try_open("/nowhere/libucp.so", 0, &why), ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "/nowhere/libucp.so"));
    assert_int_equal(try_open("libm.so.6", 0, &why), ERR_UNSUPPORTED);
    assert_non_null(strstr(why.text, "ucp_config_read"));
    needs_ucx();
    assert_int_equal(try_open(NULL, XFER_VIA_RDMA, &why), ERR_INVALID);
    assert_non_null(strstr(why.text, "not both"));
}

/* Crashes and hang-ups stay the program's. */
static void handlers_of_signals_stay(void **state)
{
    (void)state;
    static const int signals[] = {SIGHUP, SIGILL, SIGSEGV, SIGBUS, SIGFPE};
    struct sigaction was[5], now;
    struct why why;
    for (int i = 0; i < 5; i++)
        sigaction(signals[i], NULL, &was[i]);
    if (try_open(NULL, 0, &why) == ERR_UNSUPPORTED) SKIP("%s", why.text);
    for (int i = 0; i < 5; i++) {
        sigaction(signals[i], NULL, &now);
        assert_ptr_equal((void *)(uintptr_t)now.sa_handler,
                         (void *)(uintptr_t)was[i].sa_handler);
    }
}

struct pair {
    struct xfer *x;
    struct xfer_mem *mem;
    struct xfer_peer *peer;
    struct target t;
    char explained[200];
};

static void pair_start(struct pair *p, unsigned via, const char *transports)
{
    struct xfer_options opt = {.via = XFER_VIA_UCX | XFER_VIA_TCP};
    struct why why = {0};
    needs_ucx();
    if (transports) setenv("UCX_TLS", transports, 1);
    target_start(&p->t, via, 0, 1, "");
    if (transports) unsetenv("UCX_TLS");
    assert_int_equal(xfer_open(&p->x, &opt, &why), 0);
    assert_int_equal(xfer_alloc(p->x, TARGET_BYTES, 0, &p->mem, &why), 0);
    assert_int_equal(xfer_peer_open(p->x, p->t.name, &p->peer, &why), 0);
    if (xfer_peer_wait(p->peer, MS, &why)) fail_msg("%s", why.text);
    xfer_peer_explain(p->peer, p->explained, sizeof p->explained);
}

static void pair_end(struct pair *p)
{
    xfer_close(p->x);
    target_end(&p->t, 0);
}

static int move(struct pair *p, struct xfer_op op)
{
    struct why why = {0};
    op.local = xfer_mem_base(p->mem);
    return xfer_transfer(p->peer, &op, 1, MS, &why);
}

/* A peer without it is reached over what is left, and we are told so. */
static void peer_without_ucx_is_reached_by_tcp(void **state)
{
    (void)state;
    struct pair p;
    pair_start(&p, XFER_VIA_ALL, NULL);
    assert_memory_equal(p.explained, "tcp", 3);
    assert_non_null(strstr(p.explained, "no ucx: the peer"));
    struct xfer_op op = {.remote = p.t.own, .bytes = 4096};
    assert_int_equal(move(&p, op), 0);
    pair_end(&p);
}

/* Its UCX has a transport within a process, and no other. */
static void peer_out_of_reach_is_reached_by_tcp(void **state)
{
    (void)state;
    struct pair p;
    pair_start(&p, XFER_VIA_ALL | XFER_VIA_UCX, "self");
    assert_memory_equal(p.explained, "tcp", 3);
    assert_non_null(strstr(p.explained, "no ucx: "));
    struct xfer_op op = {.remote = p.t.own, .bytes = 4096};
    assert_int_equal(move(&p, op), 0);
    pair_end(&p);
}

/* All of it, and what the peer registers later; its engine counts them. */
static void bytes_go_by_ucx(void **state)
{
    (void)state;
    struct xfer_stats stats;
    struct pair p;
    pair_start(&p, XFER_VIA_ALL | XFER_VIA_UCX, NULL);
    struct xfer_op op = {.remote = p.t.own, .bytes = TARGET_BYTES};
    assert_int_equal(move(&p, op), 0);
    op = (struct xfer_op){.kind = XFER_READ,
                          .rows = 3000, /* more than one message has */
                          .remote = p.t.shared,
                          .bytes = 7,
                          .local_pitch = 9,
                          .remote_pitch = 11};
    assert_int_equal(move(&p, op), 0);
    xfer_stats_get(p.x, &stats);
    assert_string_equal(xfer_way_name(UCX), "ucx");
    assert_int_equal(stats.way[UCX].bytes, TARGET_BYTES + 21000);
    assert_int_equal(stats.way[UCX].errors, 0);
    op = (struct xfer_op){.remote = p.t.secret, .bytes = 8};
    assert_int_equal(move(&p, op), ERR_RANGE); /* may only be read */
    pair_end(&p);
}

#ifdef HAVE_UCP_H
#define SAME(ours, field, theirs, other)                      \
    assert_int_equal(offsetof(struct ucx_##ours, field),      \
                     offsetof(ucp_##theirs##_t, other));      \
    assert_int_equal(sizeof(((struct ucx_##ours *)0)->field), \
                     sizeof(((ucp_##theirs##_t *)0)->other))

static void header_says_the_same(void **state)
{
    (void)state;
    assert_int_equal(sizeof(ucx_status), sizeof(ucs_status_t));
    SAME(params, mask, params, field_mask);
    SAME(params, features, params, features);
    SAME(worker_params, mask, worker_params, field_mask);
    SAME(worker_params, thread_mode, worker_params, thread_mode);
    SAME(ep_params, mask, ep_params, field_mask);
    SAME(ep_params, address, ep_params, address);
    SAME(ep_params, error_mode, ep_params, err_mode);
    SAME(ep_params, on_error, ep_params, err_handler);
    SAME(ep_params, on_error.call, ep_params, err_handler.cb);
    SAME(ep_params, on_error.arg, ep_params, err_handler.arg);
    SAME(received, flags, am_recv_param, recv_attr);
    SAME(handler, mask, am_handler_param, field_mask);
    SAME(handler, id, am_handler_param, id);
    SAME(handler, flags, am_handler_param, flags);
    SAME(handler, call, am_handler_param, cb);
    SAME(handler, arg, am_handler_param, arg);
    SAME(op, mask, request_param, op_attr_mask);
    SAME(op, flags, request_param, flags);
    SAME(op, done, request_param, cb.send);
    SAME(op, arg, request_param, user_data);
    assert_int_equal(UCX_IN_PROGRESS, UCS_INPROGRESS);
    assert_int_equal(UCX_LAST_ERROR, UCS_ERR_LAST);
    assert_int_equal(UCX_FEATURE_WAKEUP, UCP_FEATURE_WAKEUP);
    assert_int_equal(UCX_FEATURE_MESSAGES, UCP_FEATURE_AM);
    assert_int_equal(UCX_THREADS_SERIALIZED, UCS_THREAD_MODE_SERIALIZED);
    assert_int_equal(UCX_ERRORS_PEER, UCP_ERR_HANDLING_MODE_PEER);
    assert_int_equal(UCX_CLOSE_FORCE, UCP_EP_CLOSE_FLAG_FORCE);
    assert_int_equal(UCX_SEND_EAGER, UCP_AM_SEND_FLAG_EAGER);
    assert_int_equal(UCX_WHOLE, UCP_AM_FLAG_WHOLE_MSG);
    assert_int_equal(UCX_DATA_LATER, UCP_AM_RECV_ATTR_FLAG_RNDV);
    assert_int_equal(UCX_PARAMS_FEATURES, UCP_PARAM_FIELD_FEATURES);
    assert_int_equal(UCX_WORKER_THREADS, UCP_WORKER_PARAM_FIELD_THREAD_MODE);
    assert_int_equal(UCX_EP_ADDRESS, UCP_EP_PARAM_FIELD_REMOTE_ADDRESS);
    assert_int_equal(UCX_EP_ERROR_MODE, UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE);
    assert_int_equal(UCX_EP_ON_ERROR, UCP_EP_PARAM_FIELD_ERR_HANDLER);
    assert_int_equal(UCX_HANDLER_ID, UCP_AM_HANDLER_PARAM_FIELD_ID);
    assert_int_equal(UCX_HANDLER_FLAGS, UCP_AM_HANDLER_PARAM_FIELD_FLAGS);
    assert_int_equal(UCX_HANDLER_CALL, UCP_AM_HANDLER_PARAM_FIELD_CB);
    assert_int_equal(UCX_HANDLER_ARG, UCP_AM_HANDLER_PARAM_FIELD_ARG);
    assert_int_equal(UCX_OP_DONE, UCP_OP_ATTR_FIELD_CALLBACK);
    assert_int_equal(UCX_OP_ARG, UCP_OP_ATTR_FIELD_USER_DATA);
    assert_int_equal(UCX_OP_FLAGS, UCP_OP_ATTR_FIELD_FLAGS);
}
#else
static void header_says_the_same(void **state)
{
    (void)state;
    SKIP("ucp/api/ucp.h is not installed");
}
#endif

int main(int argc, char **argv)
{
    if (argc == 6 && !strcmp(argv[1], "--target")) return target_main(argv + 2);
    const struct CMUnitTest tests[] = {
        T(handlers_of_signals_stay),
        T(what_is_missing_is_named),
        T(peer_without_ucx_is_reached_by_tcp),
        T(peer_out_of_reach_is_reached_by_tcp),
        T(bytes_go_by_ucx),
        T(header_says_the_same),
    };
    return cmocka_run_group_tests_name("ucx", tests, NULL, NULL);
}
