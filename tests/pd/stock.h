/* tests/pd/stock.h - a peer that speaks raw frames as SGLang of generation W2
 * or W4 does (docs/wire.md), with no code of src/pd/; with it a prefill. */
#ifndef BATON_TESTS_PD_STOCK_H
#define BATON_TESTS_PD_STOCK_H

#include "tests/pd/pair.h"

#include "http/server.h"

#include <zmq.h>

enum { PAGE = 4, PAGES = 64, ROWS = 8, AUX_ITEMS = 10, FRAMES = 16 };
static const uint32_t aux_bytes[AUX_ITEMS] = {64,  64, 64,  64, 512,
                                              512, 64, 128, 64, 64};

/* A message received: the frames' bytes, each closed by a 0. */
struct letter {
    size_t count;
    struct {
        size_t len;
        char bytes[600];
    } frame[FRAMES];
};

struct peer {
    struct rig *rig;
    struct xfer *xfer;
    struct xfer_mem *kv[2]; /* each KV buffer a registration of its own */
    struct xfer_mem *aux[AUX_ITEMS];
    void *context, *pull, *push;
    uint16_t port;
    struct letter in;
    char session[XFER_NAME_MAX + 1]; /* of a decode: what it is known by */
};

/* The ways that the next peer's engine goes; 0: all. */
static unsigned peer_via;

static inline void *bytes_of(struct xfer_mem *mem)
{
    return xfer_mem_base(mem);
}

static inline void peer_open(struct peer *p, struct rig *rig)
{
    memset(p, 0, sizeof *p);
    p->rig = rig;
    const struct xfer_options xo = {.lanes = 1, .workers = 1, .via = peer_via};
    assert_int_equal(xfer_open(&p->xfer, &xo, NULL), 0);
    snprintf(p->session, sizeof p->session, "%s", xfer_name(p->xfer));
    for (int i = 0; i < 2; i++)
        assert_int_equal(
            xfer_alloc(p->xfer, PAGES * PAGE * 16, 0, &p->kv[i], NULL), 0);
    for (int i = 0; i < AUX_ITEMS; i++)
        assert_int_equal(
            xfer_alloc(p->xfer, ROWS * aux_bytes[i], 0, &p->aux[i], NULL), 0);
    p->context = zmq_ctx_new();
    p->pull = zmq_socket(p->context, ZMQ_PULL);
    assert_int_equal(zmq_bind(p->pull, "tcp://127.0.0.1:*"), 0);
    char name[64];
    size_t n = sizeof name;
    zmq_getsockopt(p->pull, ZMQ_LAST_ENDPOINT, name, &n);
    p->port = (uint16_t)atoi(strrchr(name, ':') + 1);
}

static inline void peer_connect(struct peer *p, uint16_t port)
{
    char to[64];
    snprintf(to, sizeof to, "tcp://127.0.0.1:%u", port);
    if (p->push) zmq_close(p->push);
    p->push = zmq_socket(p->context, ZMQ_PUSH);
    assert_int_equal(zmq_connect(p->push, to), 0);
}

static inline void peer_close(struct peer *p)
{
    int none = 0;
    if (p->push) {
        zmq_setsockopt(p->push, ZMQ_LINGER, &none, sizeof none);
        zmq_close(p->push);
    }
    if (p->pull) zmq_close(p->pull);
    zmq_ctx_term(p->context);
    xfer_close(p->xfer);
}

static inline bool peer_receive(struct peer *p)
{
    int more = 1;
    size_t size = sizeof more;
    for (p->in.count = 0; more; p->in.count++) {
        assert_true(p->in.count < FRAMES);
        char *bytes = p->in.frame[p->in.count].bytes;
        int n = zmq_recv(p->pull, bytes, 599, ZMQ_DONTWAIT);
        if (n < 0) return false;
        assert_true(n < 600);
        bytes[n] = 0;
        p->in.frame[p->in.count].len = (size_t)n;
        zmq_getsockopt(p->pull, ZMQ_RCVMORE, &more, &size);
    }
    return true;
}

/* The next message has these frames; NULL: any. */
static inline void peer_hears(struct peer *p, size_t count,
                              const char *const *want)
{
    UNTIL(p->rig, peer_receive(p));
    assert_int_equal(p->in.count, count);
    for (size_t i = 0; i < count; i++)
        if (want[i]) assert_string_equal(p->in.frame[i].bytes, want[i]);
}
#define HEARS(p, ...)                                                     \
    peer_hears(p, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *), \
               (const char *[]){__VA_ARGS__})

struct part {
    const void *bytes;
    size_t len;
};
static inline struct part text(const char *s)
{
    return (struct part){s, strlen(s)};
}

static inline void peer_says(struct peer *p, const struct part *parts,
                             size_t count)
{
    for (size_t i = 0; i < count; i++)
        assert_true(zmq_send(p->push, parts[i].bytes, parts[i].len,
                             i + 1 < count ? ZMQ_SNDMORE : 0) >= 0);
}

/* ---- what the toy's KV looks like --------------------------------------- */

static inline void kv_of(const struct ask *ask, uint32_t at, float k[4],
                         float v[4])
{
    uint64_t digest = 0;
    for (uint32_t i = 0; i <= at; i++)
        digest = toy_digest(digest, ask->prompt[i], i);
    memset(k, 0, 16);
    memset(v, 0, 16);
    k[0] = (float)ask->prompt[at];
    k[1] = (float)at;
    v[0] = (float)(digest >> 44);
}

/* ---- a fake prefill ----------------------------------------------------- */

struct stock {
    struct rig rig;
    struct side side; /* a decode */
    struct peer peer;
    struct http_server *server;
    bool w4;
    uint16_t port;
    struct ask ask;
    struct leg leg;
    char room[8];
    struct letter reg; /* the last REGISTER */
    struct xfer_peer *to;
};

static inline void stock_route(void *arg, struct http_request *request)
{
    struct stock *s = arg;
    const char *w4 = http_request_query(request, "prefill_dp_rank");
    const char *w2 = http_request_query(request, "engine_rank");
    char rank[64];
    snprintf(rank, sizeof rank, "{\"rank_ip\":\"127.0.0.1\",\"rank_port\":%u}",
             s->peer.port);
    if (w4 && !s->w4)
        http_reply_text(request, 400, "Missing inputs for bootstrap server.");
    else if (strcmp(w4 ? w4 : w2, "-1") != 0)
        http_reply_text(request, 200, rank);
    else if (w4)
        http_reply_text(request, 200,
                        "{\"attn_tp_size\":1,\"attn_cp_size\":1,\"dp_size\":1,"
                        "\"pp_size\":1,\"page_size\":4,"
                        "\"kv_cache_dtype\":\"auto\","
                        "\"follow_bootstrap_room\":true}");
    else
        http_reply_text(request, 200,
                        "{\"prefill_attn_tp_size\":1,\"prefill_dp_size\":1,"
                        "\"prefill_pp_size\":1}");
}

static inline void stock_health(void *arg, struct http_request *request)
{
    (void)arg;
    http_reply_text(request, 200, "OK");
}

static const struct http_route stock_routes[] = {
    {HTTP_GET, "/route", stock_route}, {HTTP_GET, "/health", stock_health}};

static uint32_t stock_waiting_ms; /* of the next decode; 0: the default */

static inline void stock_open(struct stock *s, bool w4)
{
    log_init(LOG_ERROR, "test");
    memset(s, 0, sizeof *s);
    s->w4 = w4;
    rig_init(&s->rig);
    struct side_options o = side_defaults(PD_DECODE);
    o.pd.heartbeat_interval_ms = 50;
    o.pd.waiting_timeout_ms = stock_waiting_ms;
    o.prefix_cache = true; /* a stock prefill sends all the same */
    side_open(&s->side, &s->rig, &o);
    peer_open(&s->peer, &s->rig);
    const struct http_server_options server = {
        .routes = stock_routes, .route_count = 2, .arg = s};
    assert_int_equal(http_server_open(&s->server, s->rig.loop, &server, NULL),
                     0);
    s->port = (uint16_t)http_server_port(s->server);
}

static inline void stock_close(struct stock *s)
{
    UNTIL(&s->rig, side_rooms(&s->side) == 0);
    side_close(&s->side);
    http_server_close(s->server);
    peer_close(&s->peer);
    rig_fini(&s->rig);
}

/* Starts a leg and takes its REQUEST, and a REGISTER before it. */
static inline void stock_asked_by(struct stock *s, struct leg *leg,
                                  uint64_t room, uint32_t tokens)
{
    snprintf(s->room, sizeof s->room, "%u", (unsigned)room);
    ask_init(&s->ask, tokens, 12, room);
    leg_start(leg, &s->side, &s->ask.spec, s->port, room);
    UNTIL(&s->rig, peer_receive(&s->peer));
    if (!strcmp(s->peer.in.frame[0].bytes, "None")) {
        s->reg = s->peer.in;
        assert_int_equal(s->reg.count, s->w4 ? 14 : 10);
        assert_int_equal(s->reg.frame[4].len, 16);
        assert_int_equal(s->reg.frame[5].len, s->w4 ? 80 : 72);
        assert_string_equal(s->reg.frame[9].bytes, "64");
        peer_connect(&s->peer, (uint16_t)atoi(s->reg.frame[2].bytes));
        assert_int_equal(
            xfer_peer_open(s->peer.xfer, s->reg.frame[3].bytes, &s->to, NULL),
            0);
        UNTIL(&s->rig, peer_receive(&s->peer));
    }
    assert_int_equal(s->peer.in.count, s->w4 ? 9 : 8);
    assert_string_equal(s->peer.in.frame[0].bytes, s->room);
    assert_int_equal(s->peer.in.frame[4].len, (tokens + PAGE - 1) / PAGE * 4);
    assert_string_equal(s->peer.in.frame[3].bytes, s->reg.frame[3].bytes);
    assert_string_equal(s->peer.in.frame[7].bytes, "1");
    if (s->w4) assert_string_equal(s->peer.in.frame[8].bytes, "0");
}

static inline uint64_t at_u64(const char *bytes, size_t i)
{
    uint64_t v;
    memcpy(&v, bytes + 8 * i, 8);
    return v;
}

static inline void put(struct stock *s, const void *local, uint64_t remote,
                       size_t n)
{
    const struct xfer_op op = {.kind = XFER_WRITE,
                               .rows = 1,
                               .local = (void *)(uintptr_t)local,
                               .remote = remote,
                               .bytes = n};
    struct why why = {0};
    if (xfer_transfer(s->to, &op, 1, 20000, &why)) fail_msg("%s", why.text);
}

static inline void stock_asked(struct stock *s, uint64_t room, uint32_t tokens)
{
    stock_asked_by(s, &s->leg, room, tokens);
}

/* A page's worth of what is not KV into the REQUEST's first page: the
 * result. */
static inline int late_write(struct stock *s, struct xfer_peer *to)
{
    int32_t page;
    memcpy(&page, s->peer.in.frame[4].bytes, 4);
    memset(bytes_of(s->peer.kv[0]), 0x99, 64);
    const struct xfer_op op = {.kind = XFER_WRITE,
                               .rows = 1,
                               .local = bytes_of(s->peer.kv[0]),
                               .remote = at_u64(s->reg.frame[4].bytes, 0) +
                                         (uint64_t)page * 64,
                               .bytes = 64};
    return xfer_transfer(to, &op, 1, 20000, NULL);
}

/* The KV of the prompt into the pages of the REQUEST, and the aux row. */
static inline void stock_writes(struct stock *s, int32_t token, uint64_t room)
{
    float *k = bytes_of(s->peer.kv[0]), *v = bytes_of(s->peer.kv[1]);
    uint32_t tokens = s->ask.spec.token_count;
    const char *pages = s->peer.in.frame[4].bytes;
    uint64_t row = (uint64_t)atoi(s->peer.in.frame[5].bytes);
    for (uint32_t at = 0; at < tokens; at++)
        kv_of(&s->ask, at, k + 4 * at, v + 4 * at);
    for (uint32_t i = 0; i < (tokens + PAGE - 1) / PAGE; i++) {
        int32_t page;
        memcpy(&page, pages + 4 * i, 4);
        assert_true(page > 0);
        uint64_t at = (uint64_t)page * 64;
        put(s, k + i * 16, at_u64(s->reg.frame[4].bytes, 0) + at, 64);
        put(s, v + i * 16, at_u64(s->reg.frame[4].bytes, 1) + at, 64);
    }
    memcpy(bytes_of(s->peer.aux[0]), &token, 4);
    memcpy(bytes_of(s->peer.aux[9]), &room, 8);
    for (size_t i = 0; i < (s->w4 ? 10 : 9); i++)
        put(s, bytes_of(s->peer.aux[i]),
            at_u64(s->reg.frame[5].bytes, i) + row * aux_bytes[i],
            aux_bytes[i]);
}

static inline void stock_status(struct stock *s, const char *room,
                                const char *status)
{
    const struct part parts[3] = {text(room), text(status), text("0")};
    peer_says(&s->peer, parts, 3);
}

#endif
