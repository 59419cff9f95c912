#include "tests/http/rig.h"

#include "base/buf.h"
#include "base/mem.h"

/* Handlers run in the loop's thread; arg is the rig. */

static void echo(void *arg, struct http_request *r)
{
    (void)arg;
    size_t n;
    const char *body = http_request_body(r, &n);
    const char *q = http_request_query(r, "q");
    const char *x = http_request_header(r, "x-a");
    struct buf b;
    buf_init(&b, 1 << 26);
    buf_printf(&b, "%s %s q=%s x=%s peer=%s n=%zu ",
               http_request_method_name(r), http_request_path(r), q ? q : "-",
               x ? x : "-", http_request_peer(r), n);
    buf_add(&b, body, n < 100 ? n : 100);
    const struct http_header headers[] = {{"X-Reply", "yes"}, {NULL, NULL}};
    http_reply(r, 200, "text/plain", headers, b.data, b.len);
    buf_fini(&b);
}

static struct http_request *held; /* of /hold, used in the loop only */

static void client_left(void *arg, struct http_request *r, int rc)
{
    struct rig *rig = arg;
    CHECK(r == held);
    CHECK(http_request_gone(r));
    CHECK(strcmp(http_request_path(r), "/hold") == 0); /* still valid */
    held = NULL;
    http_reply_text(r, 200, "to nobody");
    rig_say(rig, rc == ERR_PEER ? "left" : rc == ERR_RANGE ? "slow" : "closed");
}

static void hold(void *arg, struct http_request *r)
{
    held = r;
    http_on_close(r, client_left, arg);
    rig_say(arg, "held");
}

static void release(void *arg, struct http_request *r)
{
    (void)arg;
    struct http_request *other = held;
    held = NULL;
    http_reply_text(other, 200, "released");
    http_reply_text(r, 200, "done");
}

static void hold_forgotten(void *arg, struct http_request *r)
{
    held = r; /* nobody wants to know when the client leaves */
    rig_say(arg, "held");
}

static void stream_begin(void *arg, struct http_request *r)
{
    held = r;
    http_stream_begin(r, 200, NULL, NULL);
    CHECK(http_stream_send(r, "data: 1\n\n", 9) == 0);
    rig_say(arg, "begun");
}

static void stream_more(void *arg, struct http_request *r)
{
    (void)arg;
    if (held) CHECK(http_stream_send(held, "data: 2\n\n", 9) == 0);
    http_reply_text(r, 200, "sent");
}

static void stream_finish(void *arg, struct http_request *r)
{
    (void)arg;
    http_stream_end(held);
    held = NULL;
    http_reply_text(r, 200, "ended");
}

static void stream_break(void *arg, struct http_request *r)
{
    (void)arg;
    http_drop(held);
    held = NULL;
    http_reply_text(r, 200, "broken");
}

static void stalled(void *arg, struct http_request *r, int rc)
{
    CHECK(r == held && rc == ERR_PEER);
    http_drop(r);
    rig_say(arg, "stalled");
}

static void flood_closed(void *arg, struct http_request *r, int rc)
{
    http_stream_end(r);
    rig_say(arg, rc == ERR_RANGE ? "slow" : "other");
}

/* Sends more than the client's socket and ours hold, then meets the cap. */
static void flood(void *arg, struct http_request *r)
{
    static char piece[64 << 10];
    http_on_close(r, flood_closed, arg);
    http_stream_begin(r, 200, "application/octet-stream", NULL);
    size_t sent = 0;
    int rc = 0;
    while (!rc) {
        rc = http_stream_send(r, piece, sizeof piece);
        if (!rc) sent += sizeof piece;
        if (!rc) CHECK(http_stream_pending(r) >= sent);
    }
    CHECK(rc == ERR_RANGE);
    CHECK(sent == (1 << 20) - sizeof piece) /* and headers */;
    CHECK(http_stream_send(r, "x", 1) == ERR_PEER);
    rig_say(arg, "full");
}

/* More than the sockets' buffers hold, to a client that reads nothing. */
static void stall(void *arg, struct http_request *r)
{
    char *piece = mem_must(16 << 20, 1);
    held = r;
    http_on_close(r, stalled, arg);
    http_stream_begin(r, 200, "application/octet-stream", NULL);
    CHECK(http_stream_send(r, piece, 16 << 20) == 0);
    mem_free(piece);
}

static void big(void *arg, struct http_request *r)
{
    (void)arg;
    char *body = mem_must(3 << 20, 1);
    memset(body, 'b', 3 << 20);
    http_reply(r, 200, "text/plain", NULL, body, 3 << 20);
    mem_free(body);
}

static const struct http_route routes[] = {
    {HTTP_GET | HTTP_POST, "/echo", echo},
    {HTTP_GET, "/v1/models*", echo},
    {HTTP_GET, "/health", echo},
    {HTTP_GET, "/hold", hold},
    {HTTP_GET, "/forgotten", hold_forgotten},
    {HTTP_GET, "/release", release},
    {HTTP_GET, "/stream", stream_begin},
    {HTTP_GET, "/stream/more", stream_more},
    {HTTP_GET, "/stream/finish", stream_finish},
    {HTTP_GET, "/stream/break", stream_break},
    {HTTP_GET, "/flood", flood},
    {HTTP_GET, "/stall", stall},
    {HTTP_GET, "/big", big},
};

static void serve(struct rig *rig, struct http_server_options options)
{
    options.routes = routes;
    options.route_count = sizeof routes / sizeof *routes;
    options.arg = rig;
    held = NULL;
    rig_serve(rig, &options);
}

static struct http_server_options defaults(void)
{
    return (struct http_server_options){
        .limits = {.header_bytes = 8192,
                   .body_bytes = 1 << 20,
                   .stream_bytes = 1 << 20},
    };
}

#define CLOSE "Connection: close\r\n\r\n"

static void has(const char *text, const char *part)
{
    if (!strstr(text, part)) fail_msg("no \"%s\" in: %s", part, text);
}

/* A second connection's request, to make the loop do something. */
static void poke(struct rig *rig, const char *path, const char *answer)
{
    char request[128];
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\n" CLOSE, path);
    has(raw_ask(rig->port, request), answer);
}

static void requests_are_taken_apart_and_answered(void **state)
{
    (void)state;
    struct rig rig;
    serve(&rig, defaults());
    const char *a =
        raw_ask(rig.port, "POST /e%63ho?a=1&q=x%20y HTTP/1.1\r\n"
                          "X-A: 7\r\nContent-Length: 3\r\n" CLOSE "abc");
    has(a, "HTTP/1.1 200 OK\r\n");
    has(a, "Content-Type: text/plain\r\n");
    has(a, "X-Reply: yes\r\n");
    has(a, "POST /echo q=x y x=7 peer=127.0.0.1 n=3 abc");
    /* chunked bodies are put together */
    a = raw_ask(rig.port, "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked"
                          "\r\n" CLOSE "2\r\nab\r\n1\r\nc\r\n0\r\n\r\n");
    has(a, "n=3 abc");
    int fd = raw_connect(rig.port);
    raw_send(fd, "POST /echo HTTP/1.1\r\nContent-Length: 3\r\n"
                 "Expect: 100-continue\r\n" CLOSE);
    raw_read(fd, "HTTP/1.1 100 Continue\r\n\r\n");
    raw_send(fd, "abc");
    has(raw_read(fd, NULL), "n=3 abc");
    close(fd);
    a = raw_ask(rig.port, "HEAD /echo HTTP/1.1\r\n" CLOSE);
    has(a, "Content-Length: ");
    assert_null(strstr(a, "peer="));
    a = raw_ask(rig.port, "GET /v1/models/x HTTP/1.1\r\n" CLOSE);
    has(a, "GET /v1/models/x");
    a = raw_ask(rig.port, "GET http://x/echo HTTP/1.1\r\nHost: x\r\n" CLOSE);
    has(a, "GET /echo");
    rig_fini(&rig);
}

static void errors_are_json(void **state)
{
    (void)state;
    struct rig rig;
    serve(&rig, defaults());
    const char *a = raw_ask(rig.port, "GET /nope HTTP/1.1\r\n" CLOSE);
    has(a, "404 Not Found");
    has(a, "{\"error\":{\"message\":\"Not Found\"},\"detail\":\"Not Found\"}");
    a = raw_ask(rig.port, "DELETE /health HTTP/1.1\r\n" CLOSE);
    has(a, "405 Method Not Allowed");
    has(a, "Allow: GET, HEAD\r\n");
    has(a, "\"detail\":\"Method Not Allowed\"");
    a = raw_ask(rig.port, "BREW /health HTTP/1.1\r\n" CLOSE);
    has(a, "405");
    /* these two pages are evhttp's own, in HTML, and are rewritten */
    a = raw_ask(rig.port, "nonsense\r\n\r\n");
    has(a, "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n");
    has(a, "\"error\":{\"message\":\"malformed HTTP request");
    assert_null(strstr(a, "<"));
    rig_fini(&rig);
}

static void oversized_requests_are_refused(void **state)
{
    (void)state;
    struct rig rig;
    serve(&rig, defaults());
    char *text = mem_must((2 << 20) + 200, 1);
    int n = sprintf(text, "POST /echo HTTP/1.1\r\nContent-Length: %d\r\n\r\n",
                    2 << 20);
    memset(text + n, 'a', 2 << 20);
    const char *a = raw_ask(rig.port, text);
    has(a, "413 Content Too Large");
    has(a, "request body is over 1048576 bytes");
    n = sprintf(text, "GET /echo HTTP/1.1\r\nX-A: ");
    memset(text + n, 'a', 10000);
    strcpy(text + n + 10000, "\r\n\r\n");
    has(raw_ask(rig.port, text), "400 Bad Request");
    /* a chunk that alone passes the limit */
    has(raw_ask(rig.port, "POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked"
                          "\r\n\r\nffffff\r\n"),
        "413 Content Too Large");
    poke(&rig, "/health", "200 OK");
    mem_free(text);
    rig_fini(&rig);
}

static void unsound_framing_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "POST /echo HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n"
        "\r\nabcd",
        "POST /echo HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n"
        "\r\nabc",
        "POST /echo HTTP/1.1\r\nContent-Length: 3\r\n"
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\nTransfer-Encoding: gzip, chunked, x\r\n\r\n"
        "3\r\nabc\r\n0\r\n\r\n",
        "GET /echo HTTP/1.1\r\nX-A : 1\r\n\r\n",
        "GET /echo HTTP/1.1\r\n: 1\r\n\r\n",
        "POST /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "GET /ec%00ho HTTP/1.1\r\n\r\n",
    };
    struct rig rig;
    serve(&rig, defaults());
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        has(raw_ask(rig.port, bad[i]), "HTTP/1.1 400 ");
    rig_fini(&rig);
}

static void connections_are_kept_and_pipelined(void **state)
{
    (void)state;
    struct rig rig;
    serve(&rig, defaults());
    int fd = raw_connect(rig.port);
    raw_send(fd, "GET /echo?q=1 HTTP/1.1\r\n\r\n");
    raw_read(fd, "q=1");
    raw_send(fd, "GET /echo?q=2 HTTP/1.1\r\n\r\nGET /echo?q=3 HTTP/1.1\r\n\r\n"
                 "GET /echo?q=4 HTTP/1.1\r\n" CLOSE);
    const char *a = raw_read(fd, NULL);
    assert_true(strstr(a, "q=2") < strstr(a, "q=3"));
    has(strstr(a, "q=3"), "q=4");
    close(fd);
    /* bytes that arrive while a request is held wait their turn */
    fd = raw_connect(rig.port);
    raw_send(fd, "GET /hold HTTP/1.1\r\n\r\n");
    rig_expect(&rig, "held");
    raw_send(fd, "GET /echo?q=5 HTTP/1.1\r\n" CLOSE);
    poke(&rig, "/release", "done");
    a = raw_read(fd, NULL);
    has(a, "released");
    has(strstr(a, "released"), "q=5");
    close(fd);
    rig_fini(&rig);
}

static void leaving_client_is_noticed_before_any_answer(void **state)
{
    (void)state;
    struct rig rig;
    serve(&rig, defaults());
    int fd = raw_connect(rig.port);
    raw_send(fd, "GET /hold HTTP/1.1\r\n\r\n");
    rig_expect(&rig, "held");
    close(fd);
    rig_expect(&rig, "left");
    /* nobody asked to be told: the late answer goes nowhere */
    fd = raw_connect(rig.port);
    raw_send(fd, "GET /forgotten HTTP/1.1\r\n\r\n");
    rig_expect(&rig, "held");
    close(fd);
    poke(&rig, "/release", "done");
    rig_fini(&rig);
}

static void streams_arrive_piece_by_piece(void **state)
{
    (void)state;
    struct rig rig;
    serve(&rig, defaults());
    int fd = raw_connect(rig.port);
    raw_send(fd, "GET /stream HTTP/1.1\r\n\r\n");
    const char *a = raw_read(fd, "data: 1\n\n");
    has(a, "Content-Type: text/event-stream; charset=utf-8\r\n");
    has(a, "Transfer-Encoding: chunked\r\n");
    poke(&rig, "/stream/more", "sent");
    raw_read(fd, "9\r\ndata: 2\n\n\r\n");
    poke(&rig, "/stream/finish", "ended");
    raw_read(fd, "0\r\n\r\n");
    raw_send(fd, "GET /echo HTTP/1.1\r\n" CLOSE); /* kept alive */
    has(raw_read(fd, NULL), "200 OK");
    close(fd);
    /* HTTP/1.0 knows no chunks: the close ends it */
    fd = raw_connect(rig.port);
    raw_send(fd, "GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    a = raw_read(fd, "data: 1\n\n");
    assert_null(strstr(a, "chunked"));
    poke(&rig, "/stream/finish", "ended");
    raw_read(fd, NULL);
    close(fd);
    rig_fini(&rig);
}

static void broken_stream_has_no_last_chunk(void **state)
{
    (void)state;
    struct rig rig;
    serve(&rig, defaults());
    int fd = raw_connect(rig.port);
    raw_send(fd, "GET /stream HTTP/1.1\r\n\r\n");
    raw_read(fd, "data: 1\n\n");
    poke(&rig, "/stream/break", "broken");
    assert_null(strstr(raw_read(fd, NULL), "0\r\n\r\n"));
    close(fd);
    rig_fini(&rig);
}

static void slow_reader_meets_the_cap(void **state)
{
    (void)state;
    struct rig rig;
    serve(&rig, defaults());
    int fd = raw_connect(rig.port);
    raw_send(fd, "GET /flood HTTP/1.1\r\n\r\n");
    rig_expect(&rig, "full");
    rig_expect(&rig, "slow");
    close(fd);
    poke(&rig, "/health", "200 OK");
    rig_fini(&rig);
}

static void stalled_reader_is_hung_up_on(void **state)
{
    (void)state;
    struct rig rig;
    struct http_server_options options = defaults();
    options.limits.stream_bytes = 32 << 20;
    options.limits.write_ms = 50;
    serve(&rig, options);
    int fd = raw_connect(rig.port);
    raw_send(fd, "GET /stall HTTP/1.1\r\n\r\n");
    rig_expect(&rig, "stalled");
    close(fd);
    rig_fini(&rig);
}

static void large_answers_reach_slow_readers(void **state)
{
    (void)state;
    struct rig rig;
    serve(&rig, defaults());
    int fd = raw_connect(rig.port);
    raw_send(fd, "GET /big HTTP/1.1\r\n" CLOSE);
    poke(&rig, "/health", "200 OK"); /* others are served meanwhile */
    size_t total = 0;
    char piece[65536];
    for (ssize_t n; (n = recv(fd, piece, sizeof piece, 0)) > 0;)
        total += (size_t)n;
    assert_true(total > 3 << 20);
    close(fd);
    rig_fini(&rig);
}

/* A request over a connection of its own, of which needle is read. The server
 * may have closed it as idle before the request was sent: then again. */
static int ask_in_time(struct rig *rig, const char *path, const char *needle)
{
    char request[128], first;
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\n\r\n", path);
    for (int tries = 0; tries < 100; tries++) {
        int fd = raw_connect(rig->port);
        raw_send(fd, request);
        struct pollfd p = {.fd = fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, RIG_WAIT_MS), 1);
        if (recv(fd, &first, 1, MSG_PEEK) > 0) {
            raw_read(fd, needle);
            return fd;
        }
        close(fd);
    }
    fail_msg("%s: closed before it was sent, each time", path);
    return -1;
}

/* The read timeout closes a connection between requests and one that stops in
 * the middle of a request, but no quiet stream. */
static void quiet_connections_close_quiet_streams_live(void **state)
{
    (void)state;
    struct rig rig;
    struct http_server_options options = defaults();
    options.limits.idle_ms = 50;
    serve(&rig, options);
    int stream = ask_in_time(&rig, "/stream", "data: 1\n\n");
    for (int i = 0; i < 2; i++) { /* each waits out the idle time */
        int fd = raw_connect(rig.port);
        if (i) raw_send(fd, "POST /echo HTTP/1.1\r\nContent-Length: 9\r\n\r\n");
        assert_string_equal(raw_read(fd, NULL), "");
        close(fd);
    }
    /* the answer, then the idle close */
    close(ask_in_time(&rig, "/echo", NULL));
    close(ask_in_time(&rig, "/stream/more", "sent"));
    raw_read(stream, "data: 2\n\n");
    close(ask_in_time(&rig, "/stream/finish", "ended"));
    close(stream);
    rig_fini(&rig);
}

static void accepted_sockets_have_no_nagle(void **state)
{
    (void)state;
    struct rig rig;
    serve(&rig, defaults());
    int fd = raw_connect(rig.port);
    raw_send(fd, "GET /echo HTTP/1.1\r\n\r\n");
    raw_read(fd, "200 OK");
    /* The server's end is in this process: find it by its peer. */
    struct sockaddr_in mine, peer;
    socklen_t len = sizeof mine;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&mine, &len), 0);
    int found = 0;
    for (int other = 3; other < 256; other++) {
        len = sizeof peer;
        if (other == fd || getpeername(other, (struct sockaddr *)&peer, &len) ||
            peer.sin_family != AF_INET || peer.sin_port != mine.sin_port)
            continue;
        int on = 0;
        len = sizeof on;
        assert_int_equal(getsockopt(other, IPPROTO_TCP, TCP_NODELAY, &on, &len),
                         0);
        assert_true(on);
        found++;
    }
    assert_int_equal(found, 1);
    close(fd);
    rig_fini(&rig);
}

static void connections_over_the_limit_wait(void **state)
{
    (void)state;
    struct rig rig;
    struct http_server_options options = defaults();
    options.limits.connections = 2;
    serve(&rig, options);
    int a = raw_connect(rig.port), b = raw_connect(rig.port);
    raw_send(a, "GET /hold HTTP/1.1\r\n\r\n");
    rig_expect(&rig, "held");
    raw_send(b, "GET /echo HTTP/1.1\r\n\r\n");
    raw_read(b, "200 OK");
    int c = raw_connect(rig.port); /* in the listen queue */
    raw_send(c, "GET /echo?q=c HTTP/1.1\r\n\r\n");
    raw_send(b, "GET /echo?q=b HTTP/1.1\r\n\r\n");
    raw_read(b, "q=b");
    struct pollfd p = {.fd = c, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 0); /* not before one leaves */
    close(b);
    raw_read(c, "q=c");
    close(a);
    rig_expect(&rig, "left");
    close(c);
    rig_fini(&rig);
}

static void preflights_and_origins_are_allowed(void **state)
{
    (void)state;
    struct rig rig;
    struct http_server_options options = defaults();
    options.cors = true;
    options.api_key = "secret";
    serve(&rig, options);
    const char *a =
        raw_ask(rig.port, "OPTIONS /echo HTTP/1.1\r\nOrigin: http://x\r\n"
                          "Access-Control-Request-Method: POST\r\n"
                          "Access-Control-Request-Headers: a, b\r\n" CLOSE);
    has(a, "200 OK");
    has(a, "Access-Control-Allow-Origin: http://x\r\n");
    has(a, "Access-Control-Allow-Headers: a, b\r\n");
    has(a, "Access-Control-Allow-Methods: DELETE, GET");
    a = raw_ask(rig.port, "GET /echo HTTP/1.1\r\nOrigin: http://x\r\n"
                          "Authorization: Bearer secret\r\n" CLOSE);
    has(a, "200 OK");
    has(a, "Access-Control-Allow-Origin: *\r\n");
    rig_fini(&rig);
}

static void key_is_asked_for_where_it_matters(void **state)
{
    (void)state;
    struct rig rig;
    struct http_server_options options = defaults();
    options.api_key = "secret";
    serve(&rig, options);
    const char *a = raw_ask(rig.port, "GET /echo HTTP/1.1\r\n" CLOSE);
    has(a, "401 Unauthorized");
    has(a, "{\"error\": \"Unauthorized\"}");
    static const char *const wrong[] = {"Bearer secre", "Bearer secrets",
                                        "Bearer ", "Basic secret", "secret"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char request[200];
        snprintf(request, sizeof request,
                 "GET /echo HTTP/1.1\r\nAuthorization: %s\r\n" CLOSE, wrong[i]);
        has(raw_ask(rig.port, request), " 401 ");
    }
    has(raw_ask(rig.port, "GET /echo HTTP/1.1\r\nAuthorization: Bearer secret"
                          "\r\n" CLOSE),
        "200 OK");
    has(raw_ask(rig.port, "GET /health HTTP/1.1\r\n" CLOSE), "200 OK");
    rig_fini(&rig);
}

static void say_drained(void *arg)
{
    rig_say(arg, "drained");
}

static uint64_t drain_ms;

static void start_drain(void *arg)
{
    struct rig *rig = arg;
    http_server_drain(rig->server, drain_ms, say_drained, rig);
    rig_say(rig, "draining");
}

static void drain_waits_for_live_requests(void **state)
{
    (void)state;
    struct rig rig;
    serve(&rig, defaults());
    int kept = raw_connect(rig.port), stream = raw_connect(rig.port);
    raw_send(kept, "GET /echo HTTP/1.1\r\n\r\n");
    raw_read(kept, "200 OK");
    raw_send(stream, "GET /stream HTTP/1.1\r\n\r\n");
    raw_read(stream, "data: 1\n\n");
    rig_expect(&rig, "begun");
    drain_ms = RIG_WAIT_MS;
    loop_post(rig.loop, start_drain, &rig);
    rig_expect(&rig, "draining");
    raw_send(kept, "GET /echo HTTP/1.1\r\n\r\n");
    const char *a = raw_read(kept, NULL);
    has(a, "503");
    has(a, "Connection: close");
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)rig.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), -1);
    close(fd);
    assert_null(inbox_take(rig.words)); /* the stream still lives */
    close(stream);                      /* held, nobody listens: */
    loop_post(rig.loop, (void (*)(void *))http_stream_end, held);
    rig_expect(&rig, "drained");
    close(kept);
    rig_fini(&rig);
}

static void drain_has_a_limit_and_close_tells_holders(void **state)
{
    (void)state;
    size_t before = mem_live();
    struct rig rig;
    serve(&rig, defaults());
    int fd = raw_connect(rig.port);
    raw_send(fd, "GET /hold HTTP/1.1\r\n\r\n");
    rig_expect(&rig, "held");
    drain_ms = 1;
    loop_post(rig.loop, start_drain, &rig);
    rig_expect(&rig, "draining");
    rig_expect(&rig, "drained");
    rig_join(&rig);
    assert_int_equal(http_server_live(rig.server), 1);
    http_server_close(rig.server);
    rig_expect(&rig, "closed");
    assert_string_equal(raw_read(fd, NULL), "");
    close(fd);
    loop_destroy(rig.loop);
    inbox_destroy(rig.words);
    assert_int_equal(mem_live(), before);
}

static void request_may_outlive_its_server(void **state)
{
    (void)state;
    size_t before = mem_live();
    struct rig rig;
    serve(&rig, defaults());
    int fd = raw_connect(rig.port);
    raw_send(fd, "GET /forgotten?q=1 HTTP/1.1\r\nX-A: 1\r\n\r\n");
    rig_expect(&rig, "held");
    rig_fini(&rig);
    assert_true(http_request_gone(held));
    assert_string_equal(http_request_header(held, "x-a"), "1");
    assert_string_equal(http_request_query(held, "q"), "1");
    http_reply_text(held, 200, "late");
    close(fd);
    assert_int_equal(mem_live(), before);
}

static void addresses_are_checked(void **state)
{
    (void)state;
    struct rig rig;
    serve(&rig, defaults());
    struct http_server_options o = defaults();
    struct http_server *other = NULL;
    struct why why = {0};
    rig_join(&rig);
    o.port = rig.port;
    assert_int_equal(http_server_open(&other, rig.loop, &o, &why), ERR_IO);
    assert_non_null(strstr(why.text, "Address already in use"));
    assert_null(other);
    o.port = 0;
    o.host = "no.such.host.invalid";
    assert_int_equal(http_server_open(&other, rig.loop, &o, &why), ERR_INVALID);
    o.host = "[::1]";
    int rc = http_server_open(&other, rig.loop, &o, &why);
    if (rc)
        print_message("no IPv6 here: %s\n", why.text);
    else
        assert_true(http_server_port(other) > 0);
    http_server_close(other);
    rig_run(&rig);
    rig_fini(&rig);
}

TESTS(T(requests_are_taken_apart_and_answered), T(errors_are_json),
      T(oversized_requests_are_refused), T(unsound_framing_is_refused),
      T(connections_are_kept_and_pipelined),
      T(leaving_client_is_noticed_before_any_answer),
      T(streams_arrive_piece_by_piece), T(broken_stream_has_no_last_chunk),
      T(slow_reader_meets_the_cap), T(stalled_reader_is_hung_up_on),
      T(large_answers_reach_slow_readers),
      T(quiet_connections_close_quiet_streams_live),
      T(accepted_sockets_have_no_nagle), T(connections_over_the_limit_wait),
      T(preflights_and_origins_are_allowed),
      T(key_is_asked_for_where_it_matters), T(drain_waits_for_live_requests),
      T(drain_has_a_limit_and_close_tells_holders),
      T(request_may_outlive_its_server), T(addresses_are_checked))
