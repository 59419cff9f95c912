#include "tests/http/rig.h"

#include "base/buf.h"
#include "base/mem.h"
#include "http/client.h"

/* Client and server share one loop in this thread: a test starts calls, runs
 * the loop, and the last callback stops it. */

struct test {
    struct loop *loop;
    struct http_server *server;
    struct http_client *client;
    char url[64];
    struct http_request *held; /* by /hold and /stream */
    struct loop_timer *timer;
    int connections, gone, running;
};

static void echo(void *arg, struct http_request *r)
{
    (void)arg;
    size_t n;
    const char *body = http_request_body(r, &n);
    struct http_header h;
    struct buf b;
    buf_init(&b, 1 << 26);
    buf_printf(&b, "%s\n", http_request_method_name(r));
    for (void *at = NULL; http_request_header_next(r, &at, &h);)
        buf_printf(&b, "%s: %s\n", h.name, h.value);
    buf_putc(&b, '\n');
    buf_add(&b, body, n);
    const struct http_header headers[] = {{"X-Reply", " spaced "}, {0}};
    http_reply(r, 201, "text/plain", headers, b.data, b.len);
    buf_fini(&b);
}

static void gone(void *arg, struct http_request *r, int rc)
{
    struct test *t = arg;
    CHECK(rc == ERR_PEER);
    t->gone++;
    if (r == t->held) t->held = NULL;
    http_drop(r);
    if (t->timer) loop_timer_set(t->timer, 0, 0);
    if (t->running == 0) loop_stop(t->loop);
}

static void hold(void *arg, struct http_request *r)
{
    struct test *t = arg;
    http_on_close(r, gone, t);
    t->held = r;
}

static void stream(void *arg, struct http_request *r)
{
    hold(arg, r);
    http_stream_begin(r, 200, NULL, NULL);
    http_stream_send(r, "one", 3);
}

static void die(void *arg, struct http_request *r)
{
    (void)arg;
    http_drop(r);
}

static const struct http_route routes[] = {
    {127, "/echo", echo},
    {HTTP_GET, "/hold", hold},
    {HTTP_GET, "/stream", stream},
    {HTTP_GET, "/die", die},
};

static void setup(struct test *t)
{
    memset(t, 0, sizeof *t);
    struct http_server_options options = {
        .routes = routes, .route_count = 4, .arg = t};
    assert_int_equal(loop_create(&t->loop, NULL), 0);
    assert_int_equal(http_server_open(&t->server, t->loop, &options, NULL), 0);
    assert_int_equal(http_client_open(&t->client, t->loop, NULL), 0);
    snprintf(t->url, sizeof t->url, "http://127.0.0.1:%d",
             http_server_port(t->server));
}

static void teardown(struct test *t)
{
    http_client_close(t->client);
    http_server_close(t->server);
    loop_destroy(t->loop);
}

/* What a call did. */
struct seen {
    struct test *t;
    struct http_call *call;
    struct buf data;
    int headers_status, done, pieces;
    struct http_result result;
    char text[256], reply[64];
    bool cancel_on_headers, cancel_on_data;
};

static void note_headers(void *arg, struct http_call *call, int status)
{
    struct seen *s = arg;
    CHECK(s->headers_status == 0 && s->data.len == 0);
    s->headers_status = status;
    const char *reply = http_call_header(call, "x-reply");
    snprintf(s->reply, sizeof s->reply, "%s", reply ? reply : "");
    if (s->cancel_on_headers) {
        s->t->running--;
        http_call_cancel(call);
    }
}

static void note_data(void *arg, struct http_call *call, const void *bytes,
                      size_t n)
{
    struct seen *s = arg;
    CHECK(s->headers_status && !s->done);
    buf_add(&s->data, bytes, n);
    s->pieces++;
    if (s->cancel_on_data) {
        s->t->running--;
        http_call_cancel(call);
    } else if (s->t->held && s->pieces == 1) {
        http_stream_send(s->t->held, "two", 3);
        http_stream_end(s->t->held);
        s->t->held = NULL;
    }
}

static void note_done(void *arg, struct http_call *call,
                      const struct http_result *result)
{
    struct seen *s = arg;
    CHECK(call == s->call && !s->done);
    s->done = 1;
    s->result = *result;
    snprintf(s->text, sizeof s->text, "%s", result->text);
    if (--s->t->running == 0) loop_stop(s->t->loop);
}

static void start(struct test *t, struct seen *s, const char *path,
                  struct http_call_options o)
{
    char url[256];
    snprintf(url, sizeof url, "%s%s", path[0] == '/' ? t->url : "", path);
    s->t = t;
    buf_init(&s->data, 1 << 26);
    o.url = url;
    o.on_headers = note_headers;
    o.on_data = note_data;
    o.on_done = note_done;
    o.arg = s;
    assert_int_equal(http_call(t->client, &o, &s->call), 0);
    t->running++;
}

static void run(struct test *t, struct seen *s, const char *path,
                struct http_call_options o)
{
    start(t, s, path, o);
    loop_run(t->loop);
}

static void calls_carry_method_headers_and_body(void **state)
{
    (void)state;
    size_t before = mem_live();
    struct test t;
    setup(&t);
    setenv("http_proxy", "http://127.0.0.1:1", 1); /* must not be used */
    struct seen s = {0};
    const struct http_header headers[] = {
        {"X-A", "1"}, {"X-Empty", ""}, {NULL, NULL}};
    run(&t, &s, "/echo",
        (struct http_call_options){
            .headers = headers, .body = "{}", .body_bytes = 2});
    unsetenv("http_proxy");
    assert_int_equal(s.result.rc, 0);
    assert_int_equal(s.result.status, 201);
    assert_int_equal(s.headers_status, 201);
    assert_string_equal(s.reply, "spaced");
    assert_non_null(strstr(s.data.data, "POST\n"));
    assert_non_null(strstr(s.data.data, "X-A: 1\n"));
    assert_non_null(strstr(s.data.data, "X-Empty: \n"));
    assert_non_null(strstr(s.data.data, "Content-Length: 2\n"));
    assert_non_null(strstr(s.data.data, "\n\n{}"));
    assert_null(strstr(s.data.data, "Expect"));
    assert_null(strstr(s.data.data, "Content-Type"));
    buf_fini(&s.data);

    struct seen put = {0}, head = {0}, get = {0};
    run(&t, &put, "/echo",
        (struct http_call_options){
            .method = "PUT", .body = "x", .body_bytes = 1});
    assert_memory_equal(put.data.data, "PUT\n", 4);
    run(&t, &head, "/echo", (struct http_call_options){.method = "HEAD"});
    assert_int_equal(head.result.status, 201);
    assert_int_equal(head.data.len, 0);
    run(&t, &get, "/echo", (struct http_call_options){0});
    assert_memory_equal(get.data.data, "GET\n", 4);
    buf_fini(&put.data);
    buf_fini(&get.data);
    teardown(&t);
    assert_int_equal(mem_live(), before);
}

static void large_bodies_pass_whole(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    size_t n = 5 << 20;
    char *body = mem_must(n, 1);
    for (size_t i = 0; i < n; i++)
        body[i] = (char)('a' + i % 23);
    struct seen s = {0};
    run(&t, &s, "/echo",
        (struct http_call_options){.body = body, .body_bytes = n});
    assert_int_equal(s.result.rc, 0);
    assert_true(s.data.len > n);
    assert_memory_equal(s.data.data + s.data.len - n, body, n);
    assert_true(s.pieces > 1);
    mem_free(body);
    buf_fini(&s.data);
    teardown(&t);
}

static void stream_pieces_arrive_as_they_come(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    struct seen s = {0};
    run(&t, &s, "/stream", (struct http_call_options){0});
    assert_int_equal(s.result.rc, 0);
    assert_int_equal(s.pieces, 2); /* the second was sent on the first */
    assert_string_equal(s.data.data, "onetwo");
    buf_fini(&s.data);
    teardown(&t);
}

static void many_calls_at_once_reuse_connections(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    enum { CALLS = 200 };
    static struct seen seen[CALLS];
    memset(seen, 0, sizeof seen);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < CALLS; i++)
            start(&t, &seen[i], "/echo", (struct http_call_options){0});
        loop_run(t.loop);
        for (int i = 0; i < CALLS; i++) {
            assert_int_equal(seen[i].result.status, 201);
            buf_fini(&seen[i].data);
            memset(&seen[i], 0, sizeof seen[i]);
        }
    }
    teardown(&t);
}

static void failures_tell_what_happened(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    struct seen refused = {0}, died = {0}, slow = {0}, bad = {0};
    /* A port that nobody has: bound and never listened on. */
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    assert_int_equal(bind(fd, (struct sockaddr *)&at, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &len), 0);
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/", ntohs(at.sin_port));
    run(&t, &refused, url, (struct http_call_options){0});
    assert_int_equal(refused.result.rc, ERR_PEER);
    assert_false(refused.result.connected);
    assert_non_null(strstr(refused.text, "onnect"));
    close(fd);
    run(&t, &died, "/die", (struct http_call_options){0});
    assert_int_equal(died.result.rc, ERR_PEER);
    assert_true(died.result.connected);
    assert_int_equal(died.result.status, 0);
    start(&t, &slow, "/hold", (struct http_call_options){.total_ms = 30});
    loop_run(t.loop);
    assert_int_equal(slow.result.rc, ERR_TIMEOUT);
    assert_true(slow.result.connected);
    if (!t.gone) loop_run(t.loop); /* its server sees it leave */
    assert_int_equal(t.gone, 1);
    run(&t, &bad, "gopher://x", (struct http_call_options){0});
    assert_int_equal(bad.result.rc, ERR_INVALID);
    const struct http_header broken[] = {{"X", "a\r\nY: b"}, {NULL, NULL}};
    struct http_call_options o = {.url = t.url, .headers = broken};
    assert_int_equal(http_call(t.client, &o, NULL), ERR_INVALID);
    teardown(&t);
}

static void cancel_is_seen_by_the_server_and_final(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    struct seen on_headers = {.cancel_on_headers = true};
    run(&t, &on_headers, "/stream", (struct http_call_options){0});
    assert_int_equal(t.gone, 1);
    assert_int_equal(on_headers.done, 0);
    struct seen on_data = {.cancel_on_data = true};
    run(&t, &on_data, "/stream", (struct http_call_options){0});
    assert_int_equal(t.gone, 2);
    assert_int_equal(on_data.done, 0);
    assert_int_equal(on_data.pieces, 1);
    buf_fini(&on_data.data);
    struct seen never = {0}; /* before anything was sent */
    start(&t, &never, "/echo", (struct http_call_options){0});
    http_call_cancel(never.call);
    t.running--;
    struct seen after = {0};
    run(&t, &after, "/echo", (struct http_call_options){0});
    assert_int_equal(after.result.status, 201);
    assert_int_equal(never.headers_status, 0);
    buf_fini(&after.data);
    struct seen open = {0}; /* closing the client cancels it */
    start(&t, &open, "/hold", (struct http_call_options){0});
    teardown(&t);
    assert_int_equal(open.done, 0);
}

static void fetch_blocks_for_tools(void **state)
{
    (void)state;
    struct rig rig;
    struct http_server_options options = {.routes = routes, .route_count = 1};
    rig_serve(&rig, &options);
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%d/echo", rig.port);
    struct buf body;
    buf_init(&body, 1 << 20);
    struct why why = {0};
    struct http_call_options o = {.url = url};
    assert_int_equal(http_fetch(&o, 1 << 20, &body, &why), 201);
    assert_memory_equal(body.data, "GET\n", 4);
    buf_reset(&body);
    assert_int_equal(http_fetch(&o, 4, &body, &why), ERR_RANGE);
    o.url = "http://127.0.0.1:1/";
    assert_int_equal(http_fetch(&o, 1 << 20, &body, &why), ERR_PEER);
    assert_non_null(strstr(why.text, "onnect"));
    buf_fini(&body);
    rig_fini(&rig);
}

TESTS(T(calls_carry_method_headers_and_body), T(large_bodies_pass_whole),
      T(stream_pieces_arrive_as_they_come),
      T(many_calls_at_once_reuse_connections), T(failures_tell_what_happened),
      T(cancel_is_seen_by_the_server_and_final), T(fetch_blocks_for_tools))
