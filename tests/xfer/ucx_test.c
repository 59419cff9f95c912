/* UCX where something is missing or wrong, against the real library; that it
 * moves bytes is in contract_test.c and matrix_test.c, that its peers may die
 * in death_test.c. And, where its header is installed, whether ucx_abi.h says
 * the same. */
#include "tests/test.h"

#include "tests/xfer/stranger.h"
#include "tests/xfer/target.h"
#include "xfer/ucx.h"

#include <dlfcn.h>

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

/* ---- somebody who uses UCX by hand ---- */

struct foreigner {
    struct ucx_library lib;
    struct ucx_context *context;
    struct ucx_worker *worker;
    struct ucx_ep *ep;
};

static ucx_status ignore(void *arg, const void *head, size_t head_bytes,
                         void *data, size_t n, const struct ucx_received *how)
{
    (void)arg, (void)head, (void)head_bytes, (void)data, (void)n, (void)how;
    return 0;
}

static void foreigner_library(struct ucx_library *lib)
{
    const struct {
        void *at;
        const char *name;
    } all[] = {
        {&lib->config_read, "ucp_config_read"},
        {&lib->config_modify, "ucp_config_modify"},
        {&lib->config_release, "ucp_config_release"},
        {&lib->init, "ucp_init_version"},
        {&lib->cleanup, "ucp_cleanup"},
        {&lib->worker_create, "ucp_worker_create"},
        {&lib->worker_destroy, "ucp_worker_destroy"},
        {&lib->worker_address, "ucp_worker_get_address"},
        {&lib->worker_release, "ucp_worker_release_address"},
        {&lib->worker_progress, "ucp_worker_progress"},
        {&lib->worker_handler, "ucp_worker_set_am_recv_handler"},
        {&lib->ep_create, "ucp_ep_create"},
        {&lib->ep_close, "ucp_ep_close_nbx"},
        {&lib->send, "ucp_am_send_nbx"},
        {&lib->request_status, "ucp_request_check_status"},
        {&lib->request_free, "ucp_request_free"},
    };
    lib->handle = dlopen("libucp.so.0", RTLD_NOW | RTLD_LOCAL);
    assert_non_null(lib->handle);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        void *found = dlsym(lib->handle, all[i].name);
        assert_non_null(found);
        memcpy(all[i].at, &found, sizeof found);
    }
}

static void foreigner_open(struct foreigner *f)
{
    struct ucx_params params = {.mask = UCX_PARAMS_FEATURES,
                                .features = UCX_FEATURE_MESSAGES};
    struct ucx_worker_params how = {.mask = UCX_WORKER_THREADS,
                                    .thread_mode = UCX_THREADS_SERIALIZED};
    struct ucx_handler handler = {.mask = UCX_HANDLER_ID | UCX_HANDLER_CALL,
                                  .id = UCX_MESSAGE,
                                  .call = ignore};
    struct ucx_config *config;
    *f = (struct foreigner){.context = NULL};
    foreigner_library(&f->lib);
    assert_int_equal(f->lib.config_read(NULL, NULL, &config), 0);
    f->lib.config_modify(config, "NET_DEVICES", "lo");
    f->lib.config_modify(config, "SHM_DEVICES", "");
    assert_int_equal(
        f->lib.init(UCX_API_MAJOR, UCX_API_MINOR, &params, config, &f->context),
        0);
    f->lib.config_release(config);
    assert_int_equal(f->lib.worker_create(f->context, &how, &f->worker), 0);
    assert_int_equal(f->lib.worker_handler(f->worker, &handler), 0);
}

static void foreigner_wait(struct foreigner *f, void *said)
{
    while (ucx_is_request(said) &&
           f->lib.request_status(said) == UCX_IN_PROGRESS)
        f->lib.worker_progress(f->worker);
    if (ucx_is_request(said)) f->lib.request_free(said);
}

static void foreigner_close(struct foreigner *f)
{
    struct ucx_op how = {.mask = UCX_OP_FLAGS, .flags = UCX_CLOSE_FORCE};
    if (f->ep) foreigner_wait(f, f->lib.ep_close(f->ep, &how));
    f->lib.worker_destroy(f->worker);
    f->lib.cleanup(f->context);
}

/* Offers the foreigner's worker on a control connection: the address of the
 * engine's end, behind its secret; returns how many bytes. */
static size_t foreigner_offer(struct foreigner *f, int control,
                              uint8_t out[WIRE_FABRIC_MAX])
{
    struct wire_header h = {
        .type = WIRE_OFFER, .count = fabric_ucx.number, .bytes = UCX_SECRET};
    uint8_t bytes[WIRE_HEADER], secret[UCX_SECRET] = {7};
    size_t n;
    void *address;
    assert_int_equal(f->lib.worker_address(f->worker, &address, &n), 0);
    h.bytes += n;
    send_header(control, h);
    assert_int_equal(send(control, secret, sizeof secret, MSG_NOSIGNAL),
                     sizeof secret);
    assert_int_equal(send(control, address, n, MSG_NOSIGNAL), n);
    f->lib.worker_release(f->worker, address);
    recv_all(control, bytes, sizeof bytes);
    assert_int_equal(wire_header_decode(&h, bytes, NULL), 0);
    assert_int_equal(h.type, WIRE_ACCEPT);
    assert_int_equal(h.count, 0);
    assert_in_range(h.bytes, UCX_SECRET + 1, WIRE_FABRIC_MAX);
    recv_all(control, out, h.bytes);
    return h.bytes;
}

/* A WRITE of eight bytes to addr; its head, which begins with the secret, is
 * sent from skip on. */
static void foreigner_write(struct foreigner *f, uint64_t secret, size_t skip,
                            uint64_t addr, uint64_t value)
{
    uint8_t head[UCX_SECRET + WIRE_HEADER + WIRE_DESC];
    struct wire_header h = {
        .type = WIRE_WRITE, .count = 1, .bytes = sizeof value};
    struct wire_desc d = {.addr = addr, .bytes = sizeof value, .rows = 1};
    struct ucx_op how = {.mask = UCX_OP_FLAGS, .flags = UCX_SEND_EAGER};
    wire_put(head, secret, UCX_SECRET);
    wire_header_encode(&h, head + UCX_SECRET);
    wire_desc_encode(&d, head + UCX_SECRET + WIRE_HEADER);
    foreigner_wait(f,
                   f->lib.send(f->ep, UCX_MESSAGE, head + skip,
                               sizeof head - skip, &value, sizeof value, &how));
}

/* Whoever finds the port of UCX, and does not know the link's secret, writes
 * nothing; the same message with it is applied, so it was the secret. */
static void a_foreign_worker_touches_nothing(void **state)
{
    (void)state;
    enum { BYTES = 4096 };
    struct xfer_options opt = {.via = XFER_VIA_UCX | XFER_VIA_TCP};
    struct xfer *x;
    struct xfer_mem *mem;
    struct wire_header ready;
    struct foreigner friend, foreigner;
    struct ucx_ep_params to = {.mask = UCX_EP_ADDRESS};
    uint8_t told[WIRE_FABRIC_MAX];
    struct why why = {0};
    needs_ucx();
    assert_int_equal(xfer_open(&x, &opt, &why), 0);
    assert_int_equal(xfer_alloc(x, BYTES, 0, &mem, &why), 0);
    char *bytes = xfer_mem_base(mem);
    uint64_t base = (uintptr_t)bytes;
    memset(bytes, 0x11, BYTES);
    int control = speak(xfer_port(x), WIRE_CONTROL, 5, &ready);
    foreigner_open(&friend);
    foreigner_open(&foreigner);
    foreigner_offer(&friend, control, told);
    uint64_t secret = wire_get(told, UCX_SECRET);
    to.address = told + UCX_SECRET;
    assert_int_equal(
        foreigner.lib.ep_create(foreigner.worker, &to, &foreigner.ep), 0);
    foreigner_write(&foreigner, secret ^ 1, 0, base, 1);
    foreigner_write(&foreigner, 0, 0, base + 8, 2);
    foreigner_write(&foreigner, secret, UCX_SECRET, base + 16, 3); /* none */
    foreigner_write(&foreigner, secret, UCX_SECRET + WIRE_HEADER, base, 4);
    foreigner_write(&foreigner, secret, 0, base + 64, 5);
    /* Messages of one end arrive in their order. */
    const _Atomic uint64_t *last = (void *)(bytes + 64);
    for (uint64_t start = clock_ms(); *last != 5;) {
        if (clock_ms() - start > MS) fail_msg("the secret is not enough");
        foreigner.lib.worker_progress(foreigner.worker);
        friend.lib.worker_progress(friend.worker);
    }
    for (int i = 0; i < BYTES; i++)
        if (bytes[i] != 0x11 && (i < 64 || i >= 72))
            fail_msg("byte %d was written", i);
    foreigner_close(&foreigner);
    close(control);
    foreigner_close(&friend);
    xfer_close(x);
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
        T(a_foreign_worker_touches_nothing),
        T(header_says_the_same),
    };
    return cmocka_run_group_tests_name("ucx", tests, NULL, NULL);
}
