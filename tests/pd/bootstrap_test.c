/* The bootstrap server by raw HTTP, and the lookup against it and against
 * servers that answer as stock SGLang does. */
#include "tests/pd/rig.h"

#include "base/mem.h"
#include "http/server.h"
#include "pd/bootstrap.h"
#include "pd/lookup.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#define W4_ALL                                                        \
    "/route?prefill_dp_rank=-1&prefill_cp_rank=-1&target_tp_rank=-1&" \
    "target_pp_rank=-1"
#define W4_RANK(dp, tp)                                                  \
    "/route?prefill_dp_rank=" dp "&prefill_cp_rank=0&target_tp_rank=" tp \
    "&target_pp_rank=0"
#define W2_ALL "/route?engine_rank=-1&target_dp_group=-1&target_pp_rank=-1"
#define W2_RANK(tp, dp) \
    "/route?engine_rank=" tp "&target_dp_group=" dp "&target_pp_rank=0"
#define LAYOUT                                                       \
    "baton=1 model=0000000000000007 layers=2 kv_heads=2 head_dim=4 " \
    "page=16 dtype=f32"

static void expect(struct rig *rig, uint16_t port, const char *method,
                   const char *path, const char *body, int status,
                   const char *text)
{
    struct reply reply;
    rig_http(rig, &reply, method, port, path, body);
    if (reply.status != status || !strstr(reply.body.data, text))
        fail_msg("%s %s: HTTP %d \"%s\", wanted %d \"%s\"", method, path,
                 reply.status, reply.body.data, status, text);
    assert_int_equal(strlen(reply.instance), 32);
    assert_string_equal(reply.layout, LAYOUT);
    buf_fini(&reply.body);
}

static void server_answers_both_generations(void **state)
{
    (void)state;
    struct rig rig;
    struct pd_bootstrap *b;
    struct why why = {0};
    rig_init(&rig);
    assert_int_equal(
        pd_bootstrap_open(&b, rig.loop, "127.0.0.1", 0, LAYOUT, &why), 0);
    uint16_t port = pd_bootstrap_port(b);

    expect(&rig, port, "GET", "/health", NULL, 200, "OK");
    expect(&rig, port, "GET", W4_ALL, NULL, 503, "not fully registered");
    expect(&rig, port, "GET", W2_ALL, NULL, 200,
           "\"prefill_attn_tp_size\":null");
    expect(&rig, port, "GET", "/route", NULL, 400,
           "Missing inputs for bootstrap server.");
    expect(&rig, port, "GET", "/route?engine_rank=x&target_dp_group=0", NULL,
           400, "Missing inputs for bootstrap server.");
    expect(&rig, port, "POST", "/route", "{}", 405, "Method not allowed");
    expect(&rig, port, "DELETE", "/route", NULL, 405, "Method not allowed");
    expect(&rig, port, "PUT", "/route", "{", 400, "");
    expect(&rig, port, "PUT", "/route", "{\"rank_ip\":\"h\"}", 400,
           "rank_port");

    const char *rank0 = "{\"role\":\"Prefill\",\"attn_tp_size\":2,"
                        "\"attn_tp_rank\":0,\"rank_ip\":\"10.0.0.1\","
                        "\"rank_port\":50001,\"page_size\":16,"
                        "\"kv_cache_dtype\":\"auto\"}";
    const char *rank1 = "{\"attn_tp_size\":2,\"attn_tp_rank\":1,"
                        "\"rank_ip\":\"10.0.0.2\",\"rank_port\":50002,"
                        "\"page_size\":16,\"kv_cache_dtype\":\"auto\"}";
    const char *other = "{\"attn_tp_size\":4,\"attn_tp_rank\":1,"
                        "\"rank_ip\":\"10.0.0.3\",\"rank_port\":50003}";
    expect(&rig, port, "PUT", "/route", rank0, 200, "OK");
    expect(&rig, port, "GET", W4_ALL, NULL, 503, "1 of 2");
    expect(&rig, port, "GET", W4_RANK("0", "0"), NULL, 503, "1 of 2");
    expect(&rig, port, "PUT", "/route", other, 400, "differ");
    expect(&rig, port, "PUT", "/route", rank1, 200, "OK");
    expect(&rig, port, "GET", W4_ALL, NULL, 200,
           "{\"attn_tp_size\":2,\"attn_cp_size\":1,\"dp_size\":1,"
           "\"pp_size\":1,\"page_size\":16,\"kv_cache_dtype\":\"auto\","
           "\"follow_bootstrap_room\":true,\"target_tp_rank\":null,"
           "\"target_tp_ranks\":null,\"target_cp_ranks\":null,"
           "\"target_pp_ranks\":null,\"required_dst_info_num\":null,"
           "\"required_prefill_response_num\":null}");
    expect(&rig, port, "GET", W2_ALL, NULL, 200,
           "{\"prefill_attn_tp_size\":2,\"prefill_dp_size\":1,"
           "\"prefill_pp_size\":1,\"prefill_page_size\":16}");
    expect(&rig, port, "GET", W4_RANK("0", "1"), NULL, 200,
           "{\"rank_ip\":\"10.0.0.2\",\"rank_port\":50002}");
    expect(&rig, port, "GET", W2_RANK("0", "0"), NULL, 200,
           "{\"rank_ip\":\"10.0.0.1\",\"rank_port\":50001}");
    expect(&rig, port, "GET", W4_RANK("1", "0"), NULL, 404, "not found");
    expect(&rig, port, "GET", W2_RANK("7", "0"), NULL, 500, "not found");

    expect(&rig, port, "POST", "/register_dp_rank",
           "{\"bootstrap_room\":9223372036854775807,\"dp_rank\":3}", 200, "OK");
    expect(&rig, port, "POST", "/register_dp_rank", "{\"dp_rank\":3}", 400,
           "wanted");
    expect(&rig, port, "POST", "/query_dp_ranks",
           "{\"bootstrap_rooms\":[5,9223372036854775807,\"x\"]}", 200,
           "{\"9223372036854775807\":3}");
    expect(&rig, port, "POST", "/query_dp_ranks", "[]", 400, "wanted");
    pd_bootstrap_close(b);
    rig_fini(&rig);
}

/* A PUT from 127.0.0.2, which is another host to the server. */
static void put_from_elsewhere(struct rig *rig, uint16_t port, const char *body,
                               const char *want)
{
    struct sockaddr_in me = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1)};
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                             .sin_port = htons(port)};
    char text[1024], reply[1024];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&me, sizeof me), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    int n = snprintf(text, sizeof text,
                     "PUT /route HTTP/1.1\r\nHost: h\r\nContent-Length: %zu"
                     "\r\n\r\n%s",
                     strlen(body), body);
    assert_int_equal(send(fd, text, (size_t)n, 0), n);
    ssize_t got = 0;
    UNTIL(rig, (got = recv(fd, reply, sizeof reply - 1, MSG_DONTWAIT)) > 0);
    reply[got] = 0;
    if (!strstr(reply, want)) fail_msg("\"%s\" lacks \"%s\"", reply, want);
    close(fd);
}

static void a_rank_is_changed_only_by_its_host(void **state)
{
    (void)state;
    struct rig rig;
    struct pd_bootstrap *b;
    rig_init(&rig);
    assert_int_equal(
        pd_bootstrap_open(&b, rig.loop, "127.0.0.1", 0, LAYOUT, NULL), 0);
    uint16_t port = pd_bootstrap_port(b);
    const char *ours = "{\"rank_ip\":\"10.0.0.1\",\"rank_port\":1}";
    const char *moved = "{\"rank_ip\":\"10.0.0.1\",\"rank_port\":2}";
    const char *theirs = "{\"rank_ip\":\"10.6.6.6\",\"rank_port\":1}";
    expect(&rig, port, "PUT", "/route", ours, 200, "OK");
    put_from_elsewhere(&rig, port, theirs, "403");
    expect(&rig, port, "GET", W4_RANK("0", "0"), NULL, 200, "10.0.0.1");
    expect(&rig, port, "PUT", "/route", moved, 200, "OK");
    expect(&rig, port, "GET", W4_RANK("0", "0"), NULL, 200, "\"rank_port\":2");
    pd_bootstrap_close(b);
    rig_fini(&rig);
}

/* ---- lookup ------------------------------------------------------------- */

/* A server that speaks what the test puts in, and what it was asked. */
struct stock {
    struct http_server *server;
    bool speaks_w4;
    int sizes_status;
    const char *sizes, *rank, *layout, *instance;
    int health_status, asked_w4, asked_w2, beats;
};

static void stock_reply(struct stock *s, struct http_request *request,
                        int status, const char *text)
{
    struct http_header headers[3] = {{0}};
    int n = 0;
    if (s->layout)
        headers[n++] = (struct http_header){PD_HEADER_LAYOUT, s->layout};
    if (s->instance)
        headers[n++] = (struct http_header){PD_HEADER_INSTANCE, s->instance};
    http_reply(request, status, "application/json", headers, text,
               strlen(text));
}

static void stock_route(void *arg, struct http_request *request)
{
    struct stock *s = arg;
    const char *w4 = http_request_query(request, "prefill_dp_rank");
    const char *tp = http_request_query(request, "target_tp_rank");
    const char *w2 = http_request_query(request, "engine_rank");
    const char *at = w4 ? tp : w2;
    if (w4) s->asked_w4++;
    if (w2) s->asked_w2++;
    if (w4 && !s->speaks_w4)
        stock_reply(s, request, 400, "Missing inputs for bootstrap server.");
    else if (!strcmp(at, "-1"))
        stock_reply(s, request, s->sizes_status, s->sizes);
    else
        stock_reply(s, request, 200, s->rank);
}

static void stock_health(void *arg, struct http_request *request)
{
    struct stock *s = arg;
    s->beats++;
    stock_reply(s, request, s->health_status, "OK");
}

static const struct http_route stock_routes[] = {
    {HTTP_GET, "/route", stock_route}, {HTTP_GET, "/health", stock_health}};

#define SIZES_W2                                         \
    "{\"prefill_attn_tp_size\":1,\"prefill_dp_size\":1," \
    "\"prefill_pp_size\":1}"
#define SIZES_W4(page, dtype)                                             \
    "{\"attn_tp_size\":1,\"attn_cp_size\":1,\"dp_size\":1,\"pp_size\":1," \
    "\"page_size\":" page ",\"kv_cache_dtype\":" dtype                    \
    ",\"follow_bootstrap_room\":true}"

/* What the lookup said last. */
struct heard {
    int known, failed, lost, freed;
    char text[512];
    enum pd_generation generation;
};

static void on_known(void *arg, struct pd_prefill *prefill)
{
    struct heard *h = arg;
    h->known++;
    h->generation = prefill->generation;
}

static void on_failed(void *arg, struct pd_prefill *prefill, const char *text)
{
    struct heard *h = arg;
    (void)prefill;
    h->failed++;
    snprintf(h->text, sizeof h->text, "%s", text);
}

static void on_freed(void *arg, struct pd_prefill *prefill)
{
    struct heard *h = arg;
    (void)prefill;
    h->freed++;
}

static void on_lost(void *arg, struct pd_prefill *prefill, const char *text)
{
    struct heard *h = arg;
    (void)prefill;
    h->lost++;
    snprintf(h->text, sizeof h->text, "%s", text);
}

static const struct pd_layout ours = {.model = 7,
                                      .shape = {2, 2, 4, 16, DTYPE_F32}};

struct scene {
    struct rig rig;
    struct stock stock;
    struct heard heard;
    struct pd_lookup *lookup;
    struct pd_prefill *prefill;
    uint16_t port;
};

static void scene_open(struct scene *s)
{
    struct why why = {0};
    memset(s, 0, sizeof *s);
    rig_init(&s->rig);
    s->stock = (struct stock){.sizes_status = 200,
                              .sizes = SIZES_W2,
                              .rank = "{\"rank_ip\":\"10.0.0.9\","
                                      "\"rank_port\":50009}",
                              .health_status = 200};
    const struct http_server_options server = {
        .routes = stock_routes, .route_count = 2, .arg = &s->stock};
    assert_int_equal(
        http_server_open(&s->stock.server, s->rig.loop, &server, &why), 0);
    s->port = (uint16_t)http_server_port(s->stock.server);
    const struct pd_lookup_options options = {.loop = s->rig.loop,
                                              .layout = &ours,
                                              .kv_cache_dtype = "auto",
                                              .heartbeat_interval_ms = 10,
                                              .heartbeat_max_failure = 2,
                                              .retry_ms = 5,
                                              .on_known = on_known,
                                              .on_failed = on_failed,
                                              .on_lost = on_lost,
                                              .on_freed = on_freed,
                                              .arg = &s->heard};
    assert_int_equal(pd_lookup_open(&s->lookup, &options, &why), 0);
}

static void scene_take(struct scene *s)
{
    struct why why = {0};
    assert_int_equal(
        pd_prefill_take(s->lookup, "127.0.0.1", s->port, &s->prefill, &why), 0);
}

static void scene_close(struct scene *s)
{
    pd_prefill_drop(s->prefill);
    pd_lookup_close(s->lookup);
    assert_int_equal(s->heard.freed, s->prefill != NULL);
    http_server_close(s->stock.server);
    rig_fini(&s->rig);
}

static void lookup_falls_back_to_w2(void **state)
{
    (void)state;
    struct scene s;
    scene_open(&s);
    scene_take(&s);
    UNTIL(&s.rig, s.heard.known);
    assert_int_equal(s.heard.generation, PD_W2);
    assert_int_equal(s.stock.asked_w4, 1);
    assert_int_equal(s.stock.asked_w2, 2);
    assert_string_equal(s.prefill->rank.host, "10.0.0.9");
    assert_int_equal(s.prefill->rank.port, 50009);
    assert_false(s.prefill->has_layout);
    /* kept: a second room asks nothing */
    struct pd_prefill *again;
    assert_int_equal(
        pd_prefill_take(s.lookup, "[127.0.0.1]", s.port, &again, NULL), 0);
    assert_ptr_equal(again, s.prefill);
    assert_true(again->known);
    assert_ptr_equal(pd_lookup_find_rank(s.lookup, &again->rank), again);
    pd_prefill_drop(again);
    assert_int_equal(s.stock.asked_w2, 2);
    scene_close(&s);
}

static void lookup_waits_for_ranks_to_register(void **state)
{
    (void)state;
    struct scene s;
    scene_open(&s);
    s.stock.speaks_w4 = true;
    s.stock.sizes_status = 503;
    s.stock.sizes = "not yet";
    scene_take(&s);
    UNTIL(&s.rig, s.stock.asked_w4 >= 6); /* more than the tries at no answer */
    assert_int_equal(s.heard.failed, 0);
    s.stock.sizes_status = 200;
    s.stock.sizes = SIZES_W4("16", "\"auto\"");
    UNTIL(&s.rig, s.heard.known);
    assert_int_equal(s.heard.generation, PD_W4);
    scene_close(&s);
}

static void refused(const char *sizes, const char *layout, const char *text)
{
    struct scene s;
    scene_open(&s);
    s.stock.speaks_w4 = true;
    s.stock.sizes = sizes;
    s.stock.layout = layout;
    scene_take(&s);
    UNTIL(&s.rig, s.heard.failed || s.heard.known);
    if (!s.heard.failed || !strstr(s.heard.text, text))
        fail_msg("\"%s\" lacks \"%s\"", s.heard.text, text);
    scene_close(&s);
}

static void lookup_refuses_what_does_not_fit(void **state)
{
    (void)state;
    refused(SIZES_W4("128", "\"auto\""), NULL,
            "its page size is 128, ours is 16");
    refused(SIZES_W4("16", "\"fp8_e5m2\""), NULL,
            "its kv_cache_dtype is fp8_e5m2, ours is auto");
    refused("{\"attn_tp_size\":4,\"attn_cp_size\":1,\"dp_size\":1,"
            "\"pp_size\":1}",
            NULL, "its attn_tp_size is 4, this decode needs 1");
    refused(SIZES_W4("16", "\"auto\""),
            "baton=1 model=0000000000000008 layers=2 kv_heads=2 head_dim=4 "
            "page=16 dtype=f32",
            "serves another model");
    refused(SIZES_W4("16", "\"auto\""),
            "baton=1 model=0000000000000007 layers=2 kv_heads=2 head_dim=4 "
            "page=32 dtype=f32",
            "its page size is 32, ours is 16");
    refused(SIZES_W4("16", "\"auto\""), "baton=1", "required word is missing");
    refused("[1]", NULL, "not a JSON object");
    refused("{{{", NULL, "");
}

static void lookup_gives_up_on_silence(void **state)
{
    (void)state;
    struct scene s;
    scene_open(&s);
    http_server_close(s.stock.server); /* the port is nobody's now */
    s.stock.server = NULL;
    scene_take(&s);
    UNTIL(&s.rig, s.heard.failed);
    assert_non_null(
        strstr(s.heard.text, "Could not fetch prefill parallel info"));
    scene_close(&s);
}

static void failed_heartbeats_lose_the_prefill(void **state)
{
    (void)state;
    struct scene s;
    scene_open(&s);
    scene_take(&s);
    UNTIL(&s.rig, s.heard.known && s.stock.beats >= 2);
    s.stock.health_status = 500;
    UNTIL(&s.rig, s.heard.lost);
    char text[128];
    snprintf(text, sizeof text,
             "Losing connection with prefill instance (bootstrap_addr: "
             "127.0.0.1:%u)",
             s.port);
    assert_non_null(strstr(s.heard.text, text));
    assert_false(s.prefill->known);
    /* the next room asks anew */
    s.stock.health_status = 200;
    pd_prefill_drop(s.prefill);
    scene_take(&s);
    UNTIL(&s.rig, s.heard.known == 2);
    scene_close(&s);
}

static void another_instance_behind_the_address_is_noticed(void **state)
{
    (void)state;
    struct scene s;
    scene_open(&s);
    s.stock.instance = "first";
    scene_take(&s);
    UNTIL(&s.rig, s.heard.known && s.stock.beats >= 1);
    s.stock.instance = "second";
    UNTIL(&s.rig, s.heard.lost);
    assert_non_null(strstr(s.heard.text, "replaced"));
    scene_close(&s);
}

static void bad_addresses_are_refused(void **state)
{
    (void)state;
    struct scene s;
    struct why why = {0};
    scene_open(&s);
    assert_int_equal(pd_prefill_take(s.lookup, "a b", 1, &s.prefill, &why),
                     ERR_INVALID);
    assert_int_equal(pd_prefill_take(s.lookup, "h", 0, &s.prefill, &why),
                     ERR_INVALID);
    assert_int_equal(pd_prefill_take(s.lookup, "h/?", 1, &s.prefill, &why),
                     ERR_INVALID);
    assert_int_equal(pd_prefill_take(s.lookup, "", 1, &s.prefill, &why),
                     ERR_INVALID);
    s.prefill = NULL;
    scene_close(&s);
}

static void nothing_leaks(void **state)
{
    (void)state;
    size_t before = mem_live();
    lookup_falls_back_to_w2(NULL);
    server_answers_both_generations(NULL);
    assert_int_equal(mem_live(), before);
}

TESTS(T(server_answers_both_generations), T(a_rank_is_changed_only_by_its_host),
      T(lookup_falls_back_to_w2), T(lookup_waits_for_ranks_to_register),
      T(lookup_refuses_what_does_not_fit), T(lookup_gives_up_on_silence),
      T(failed_heartbeats_lose_the_prefill),
      T(another_instance_behind_the_address_is_noticed),
      T(bad_addresses_are_refused), T(nothing_leaks))
