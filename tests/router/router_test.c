/* A router between a client and scripted workers, all real HTTP on one loop of
 * this thread. A test scripts its workers, starts requests and runs the loop
 * until something it waits for has happened; nothing depends on time but the
 * tests of timeouts. */
#include "tests/test.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/client.h"
#include "http/loop.h"
#include "http/server.h"
#include "json/json.h"
#include "router/options.h"
#include "router/router.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHECK(x)                                                         \
    do {                                                                 \
        if (!(x)) fail_msg("%s:%d: not so: %s", __FILE__, __LINE__, #x); \
    } while (0)

/* What a worker does with a generation request. */
enum act {
    ANSWER, /* status and body at once */
    HOLD,   /* nothing, until the test does it */
    STREAM, /* 200 and SSE headers, and body as the first piece if any */
    DIE,    /* hangs up */
};

struct step {
    enum act act;
    int status;
    const char *body;
};

enum { WORKERS = 5, STEPS = 8 };

struct test;

struct worker_end {
    struct test *t;
    struct http_server *server;
    char url[64];
    int port;
    struct step steps[STEPS]; /* the last one repeats */
    int step_count;
    int asked, gone, others;  /* generation requests, abandoned ones, rest */
    int probes;               /* of /health: they come whenever they like */
    char bodies[STEPS][2048]; /* of the generation requests */
    char headers[2048];       /* of the last one */
    char other[512];          /* last other request: "METHOD path body" */
    int other_status;
    const char *other_body;
    struct http_request *held;
    bool deaf; /* takes what is not a generation request, and stays silent */
};

struct reply {
    struct test *t;
    struct http_call *call;
    int headers, status, done, rc;
    char type[128], request_id[128], all_headers[2048];
    struct buf data;
    int data_count;
};

/* A command line; the options borrow from it. */
struct words {
    char text[512];
    char *argv[32];
    int argc;
};

struct test {
    struct loop *loop;
    struct http_client *client;
    struct worker_end workers[WORKERS]; /* 0, 1: prefill; 2, 3: decode */
    struct router_options options;
    struct words words;
    struct router *router;
    char url[64];
    struct loop_timer *watchdog;
    const int *want; /* the loop stops when *want reaches want_value */
    int want_value;
    struct reply reply; /* of the common case: one client request */
};

enum { P0, P1, D0, D1, CLOSED };

static void look(struct test *t)
{
    if (t->want && *t->want >= t->want_value) loop_stop(t->loop);
}

static void stuck(void *arg)
{
    struct test *t = arg;
    fail_msg("stuck: asked %d %d, gone %d %d, data %s", t->workers[P0].asked,
             t->workers[D0].asked, t->workers[P0].gone, t->workers[D0].gone,
             t->reply.data.data ? t->reply.data.data : "");
}

/* Runs until the counter has the value. */
static void until(struct test *t, const int *counter, int value)
{
    if (*counter >= value) return;
    t->want = counter;
    t->want_value = value;
    loop_run(t->loop);
    t->want = NULL;
}

/* --- workers --------------------------------------------------------------- */

static void worker_left(void *arg, struct http_request *r, int rc)
{
    struct worker_end *w = arg;
    (void)rc;
    w->gone++;
    w->held = NULL;
    http_drop(r);
    look(w->t);
}

static void worker_generate(void *arg, struct http_request *r)
{
    struct worker_end *w = arg;
    size_t n;
    const char *body = http_request_body(r, &n);
    snprintf(w->bodies[w->asked % STEPS], sizeof w->bodies[0], "%.*s", (int)n,
             body);
    struct http_header h;
    w->headers[0] = 0;
    for (void *at = NULL; http_request_header_next(r, &at, &h);)
        snprintf(w->headers + strlen(w->headers),
                 sizeof w->headers - strlen(w->headers), "%s: %s\n", h.name,
                 h.value);
    int i = w->asked++;
    const struct step *s = &w->steps[i < w->step_count ? i : w->step_count - 1];
    const struct http_header extra[] = {
        {"X-Request-Id", "of-worker"}, {"Retry-After", "7"}, {NULL, NULL}};
    switch (s->act) {
    case ANSWER:
        http_reply(r, s->status, "application/json", extra, s->body,
                   strlen(s->body));
        break;
    case DIE: http_drop(r); break;
    case STREAM:
        http_stream_begin(r, 200, NULL, extra);
        if (s->body) http_stream_send(r, s->body, strlen(s->body));
        /* fall through */
    case HOLD: w->held = r; http_on_close(r, worker_left, w);
    }
    look(w->t);
}

static void asker_left(void *arg, struct http_request *r, int rc)
{
    (void)arg;
    (void)rc;
    http_drop(r);
}

static void worker_other(void *arg, struct http_request *r)
{
    struct worker_end *w = arg;
    if (w->deaf) {
        http_on_close(r, asker_left, w);
        return;
    }
    size_t n;
    const char *body = http_request_body(r, &n);
    bool probe = strcmp(http_request_path(r), "/health") == 0;
    if (!probe)
        snprintf(w->other, sizeof w->other, "%s %s %.*s",
                 http_request_method_name(r), http_request_path(r), (int)n,
                 body);
    http_reply(r, w->other_status, "application/json", NULL, w->other_body,
               strlen(w->other_body));
    *(probe ? &w->probes : &w->others) += 1;
    look(w->t);
}

static const struct http_route worker_routes[] = {
    {HTTP_POST, "/generate", worker_generate},
    {HTTP_POST, "/v1/chat/completions", worker_generate},
    {HTTP_POST, "/v1/completions", worker_generate},
    {HTTP_GET | HTTP_POST, "/*", worker_other},
};

static void worker_listen(struct worker_end *w)
{
    struct http_server_options o = {
        .port = w->port, .routes = worker_routes, .route_count = 4, .arg = w};
    struct why why = {0};
    if (http_server_open(&w->server, w->t->loop, &o, &why))
        fail_msg("%s", why.text);
}

/* A port where nobody listens: bound once, then let go. It lies below those
 * that the kernel hands out by itself. */
static int closed_port(void)
{
    int low = 32768;
    FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "r");
    if (f) {
        if (fscanf(f, "%d", &low) != 1) low = 32768;
        fclose(f);
    }
    uint64_t seed = random_u64();
    for (;;) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int port = low / 2 + (int)(rng_next(&seed) % (uint64_t)(low / 2));
        struct sockaddr_in at = {.sin_family = AF_INET,
                                 .sin_port = htons((uint16_t)port),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int rc = bind(fd, (struct sockaddr *)&at, sizeof at);
        close(fd);
        if (!rc) return port;
    }
}

static void script(struct worker_end *w, enum act act, int status,
                   const char *body)
{
    CHECK(w->step_count < STEPS);
    w->steps[w->step_count++] = (struct step){act, status, body};
}

/* --- set-up ----------------------------------------------------------------- */

static int parse(struct router_options *o, struct words *w, const char *line,
                 struct why *why)
{
    snprintf(w->text, sizeof w->text, "x %s", line);
    w->argc = 0;
    for (char *save, *p = strtok_r(w->text, " ", &save); p;
         p = strtok_r(NULL, " ", &save))
        w->argv[w->argc++] = p;
    return router_options_parse(o, w->argc, w->argv, NULL, NULL, why);
}

static void drop_log(void *arg, enum log_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

static void setup(struct test *t)
{
    memset(t, 0, sizeof *t);
    log_sink(drop_log, NULL);
    CHECK(!loop_create(&t->loop, NULL));
    CHECK(!http_client_open(&t->client, t->loop, NULL));
    t->watchdog = loop_timer_create(t->loop, stuck, t);
    loop_timer_set(t->watchdog, 60 * 1000, 0);
    for (int i = 0; i < WORKERS; i++) {
        struct worker_end *w = &t->workers[i];
        w->t = t;
        w->other_status = 200;
        w->other_body = "{}";
        if (i == CLOSED)
            w->port = closed_port();
        else
            worker_listen(w);
        if (w->server) w->port = http_server_port(w->server);
        snprintf(w->url, sizeof w->url, "http://127.0.0.1:%d", w->port);
    }
    char line[512];
    snprintf(line, sizeof line,
             "--pd-disaggregation --mini-lb --host 127.0.0.1 --port=0 "
             "--prefill %s 6657 --decode %s --retry-initial-backoff-ms=1 "
             "--probe-ms=5 --health-check-interval-secs=0",
             t->workers[P0].url, t->workers[D0].url);
    struct why why = {0};
    if (parse(&t->options, &t->words, line, &why)) fail_msg("%s", why.text);
}

static void second_workers(struct test *t)
{
    t->options.prefill[t->options.prefill_count++] =
        (struct router_worker_option){t->workers[P1].url, -1};
    t->options.decode[t->options.decode_count++] =
        (struct router_worker_option){t->workers[D1].url, -1};
}

static void start(struct test *t)
{
    struct why why = {0};
    if (router_create(&t->router, t->loop, &t->options, &why))
        fail_msg("%s", why.text);
    snprintf(t->url, sizeof t->url, "http://127.0.0.1:%d",
             router_port(t->router));
}

static void reply_fini(struct reply *reply)
{
    http_call_cancel(reply->call);
    buf_fini(&reply->data);
    memset(reply, 0, sizeof *reply);
}

static void teardown(struct test *t)
{
    reply_fini(&t->reply);
    router_destroy(t->router);
    for (int i = 0; i < WORKERS; i++)
        http_server_close(t->workers[i].server);
    http_client_close(t->client);
    loop_timer_destroy(t->watchdog);
    loop_destroy(t->loop);
    log_sink(NULL, NULL);
}

/* --- the client -------------------------------------------------------------- */

static void on_headers(void *arg, struct http_call *call, int status)
{
    struct reply *r = arg;
    const char *type = http_call_header(call, "content-type");
    snprintf(r->type, sizeof r->type, "%s", type ? type : "");
    struct http_header h;
    for (size_t at = 0; http_call_header_next(call, &at, &h);)
        snprintf(r->all_headers + strlen(r->all_headers),
                 sizeof r->all_headers - strlen(r->all_headers), "%s: %s\n",
                 h.name, h.value);
    r->status = status;
    r->headers++;
    look(r->t);
}

static void on_data(void *arg, struct http_call *call, const void *bytes,
                    size_t n)
{
    (void)call;
    struct reply *r = arg;
    buf_add(&r->data, bytes, n);
    r->data_count++;
    look(r->t);
}

static void on_done(void *arg, struct http_call *call,
                    const struct http_result *result)
{
    (void)call;
    struct reply *r = arg;
    r->call = NULL;
    r->rc = result->rc;
    r->done++;
    look(r->t);
}

static void ask(struct test *t, struct reply *r, const char *path,
                const char *body, const struct http_header *headers)
{
    char url[256];
    snprintf(url, sizeof url, "%s%s", t->url, path);
    r->t = t;
    buf_init(&r->data, 1 << 24);
    buf_puts(&r->data, "");
    struct http_call_options o = {
        .url = url,
        .headers = headers,
        .body = body,
        .body_bytes = body ? strlen(body) : 0,
        .on_headers = on_headers,
        .on_data = on_data,
        .on_done = on_done,
        .arg = r,
    };
    CHECK(!http_call(t->client, &o, &r->call));
}

static void post(struct test *t, const char *path, const char *body)
{
    reply_fini(&t->reply);
    ask(t, &t->reply, path, body, NULL);
}

static void run(struct test *t, const char *path, const char *body)
{
    post(t, path, body);
    until(t, &t->reply.done, 1);
    assert_int_equal(t->reply.rc, 0);
}

static void send_piece(struct worker_end *w, const char *text)
{
    assert_int_equal(http_stream_send(w->held, text, strlen(text)), 0);
}

static void end_stream(struct worker_end *w)
{
    http_stream_end(w->held);
    w->held = NULL;
}

static void answer_held(struct worker_end *w, int status, const char *body)
{
    http_reply(w->held, status, "application/json", NULL, body, strlen(body));
    w->held = NULL;
}

static void has(const char *text, const char *part)
{
    if (!strstr(text, part)) fail_msg("no %s in: %s", part, text);
}

/* The value of a sample of GET /metrics whose line has this in it. */
static long metric(struct test *t, const char *part)
{
    struct reply r = {0};
    ask(t, &r, "/metrics", NULL, NULL);
    until(t, &r.done, 1);
    char *save, *at = NULL;
    for (char *line = strtok_r(r.data.data, "\n", &save); line && !at;
         line = strtok_r(NULL, "\n", &save))
        if (line[0] != '#') at = strstr(line, part);
    if (!at) fail_msg("no %s in /metrics", part);
    long value = strtol(at + strlen(part), NULL, 10);
    reply_fini(&r);
    return value;
}

static int64_t room_of(const char *body)
{
    json_t *json;
    struct why why = {0};
    if (json_parse(&json, body, strlen(body), &why)) fail_msg("%s", why.text);
    json_t *room = json_object_get(json, "bootstrap_room");
    int64_t value = json_integer_value(
        json_is_array(room) ? json_array_get(room, 0) : room);
    json_decref(json);
    return value;
}

/* ------------------------------------------------------------------------- */

#define OK_P "{\"text\": \"p\"}"
#define OK_D "{\"text\": \"d\", \"x\": 1.10}"
#define SSE  "data: {\"text\": \"a\"}\n\n"

static void both_legs_get_the_same_body_and_decode_answers(void **state)
{
    (void)state;
    size_t before = mem_live();
    struct test t;
    setup(&t);
    start(&t);
    script(&t.workers[P0], ANSWER, 200, OK_P);
    script(&t.workers[D0], ANSWER, 200, OK_D);
    run(&t, "/generate", "{\"text\": \"hi\", \"bootstrap_room\": 1}");
    assert_int_equal(t.reply.status, 200);
    assert_string_equal(t.reply.data.data, OK_D);
    assert_string_equal(t.reply.type, "application/json");
    until(&t, &t.workers[P0].asked, 1);
    assert_string_equal(t.workers[P0].bodies[0], t.workers[D0].bodies[0]);
    char want[256];
    snprintf(want, sizeof want,
             "{\"bootstrap_host\": \"127.0.0.1\", \"bootstrap_port\": 6657, "
             "\"bootstrap_room\": %lld, \"text\": \"hi\"}",
             (long long)room_of(t.workers[D0].bodies[0]));
    assert_string_equal(t.workers[D0].bodies[0], want);
    run(&t, "/v1/completions", "{\"prompt\": [\"a\", \"b\"]}");
    has(t.workers[D0].bodies[1], "\"bootstrap_port\": 6657, ");
    run(&t, "/v1/chat/completions", "{}");
    run(&t, "/generate", "{\"text\": [\"a\", \"b\"]}");
    has(t.workers[D0].bodies[3], "\"bootstrap_port\": [6657, 6657], ");
    assert_int_equal(metric(&t, "pd_responses_total{code=\"2xx\"} "), 4);
    teardown(&t);
    assert_int_equal(mem_live(), before);
}

static void decodes_bytes_do_not_wait_for_prefill(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.linger_ms = 1;
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL); /* never answers */
    script(&t.workers[D0], STREAM, 200, SSE);
    post(&t, "/generate", "{\"stream\": true}");
    until(&t, &t.reply.data_count, 1);
    assert_int_equal(t.reply.status, 200);
    assert_string_equal(t.reply.type, "text/event-stream; charset=utf-8");
    has(t.reply.all_headers, "Cache-Control: no-cache\n");
    send_piece(&t.workers[D0], "data: [DONE]\n\n");
    until(&t, &t.reply.data_count, 2);
    end_stream(&t.workers[D0]);
    until(&t, &t.reply.done, 1);
    assert_int_equal(t.reply.rc, 0);
    assert_string_equal(t.reply.data.data, SSE "data: [DONE]\n\n");
    until(&t, &t.workers[P0].gone, 1); /* it had its time */
    assert_int_equal(metric(&t, "ttft_seconds_count "), 1);
    teardown(&t);
}

static void stream_headers_follow_prefills_good_end(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], STREAM, 200, NULL); /* headers, no byte yet */
    post(&t, "/generate", "{\"stream\": true}");
    until(&t, &t.workers[D0].asked, 1);
    until(&t, &t.workers[P0].asked, 1);
    assert_int_equal(t.reply.headers, 0);
    answer_held(&t.workers[P0], 200, OK_P);
    until(&t, &t.reply.headers, 1);
    send_piece(&t.workers[D0], SSE);
    until(&t, &t.reply.data_count, 1);
    end_stream(&t.workers[D0]);
    until(&t, &t.reply.done, 1);
    assert_string_equal(t.reply.data.data, SSE);
    teardown(&t);
}

/* Streaming or not, a worker's own error reaches the client as it is, and the
 * other worker is let go. */
static void worker_errors_reach_the_client(void **state)
{
    (void)state;
    static const char *const bodies[] = {"{}", "{\"stream\": true}"};
    static const char error[] = "{\"error\": {\"message\": \"too long\"}}";
    for (int stream = 0; stream < 2; stream++) {
        for (int from = P0; from <= D0; from += D0 - P0) {
            static const int statuses[] = {400, 413, 500, 504};
            for (int i = 0; i < 4; i++) {
                struct test t;
                setup(&t);
                t.options.verdict_ms = 1;
                start(&t);
                int other = from == P0 ? D0 : P0;
                script(&t.workers[from], ANSWER, statuses[i], error);
                script(&t.workers[other], HOLD, 0, NULL);
                run(&t, "/generate", bodies[stream]);
                assert_int_equal(t.reply.status, statuses[i]);
                assert_string_equal(t.reply.data.data, error);
                assert_string_equal(t.reply.type, "application/json");
                has(t.reply.all_headers, "X-Request-Id: of-worker\n");
                has(t.reply.all_headers, "Retry-After: 7\n");
                if (t.workers[other].asked)
                    until(&t, &t.workers[other].gone, 1);
                assert_int_equal(t.workers[from].asked, 1); /* no retry */
                teardown(&t);
            }
        }
    }
}

static void prefills_error_event_is_an_error(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    start(&t);
    script(&t.workers[P0], STREAM, 200,
           "data: {\"error\": {\"message\": \"no\", \"code\": 400}}\n\n"
           "data: [DONE]\n\n");
    script(&t.workers[D0], STREAM, 200, NULL);
    post(&t, "/v1/chat/completions", "{\"stream\": true}");
    until(&t, &t.workers[P0].asked, 1);
    end_stream(&t.workers[P0]);
    until(&t, &t.reply.done, 1);
    assert_int_equal(t.reply.status, 400);
    assert_string_equal(t.reply.data.data,
                        "{\"error\": {\"message\": \"no\", \"code\": 400}}");
    until(&t, &t.workers[D0].gone, 1);
    teardown(&t);
}

/* Decode fails because prefill did; prefill's word is the better one. */
static void prefill_may_explain_decodes_failure(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.verdict_ms = 50 * 1000;
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], ANSWER, 500, "{\"message\": \"KVTransferError\"}");
    post(&t, "/generate", "{}");
    until(&t, &t.workers[P0].asked, 1);
    until(&t, &t.workers[D0].asked, 1);
    answer_held(&t.workers[P0], 400, "{\"message\": \"prompt too long\"}");
    until(&t, &t.reply.done, 1);
    assert_int_equal(t.reply.status, 400);
    has(t.reply.data.data, "prompt too long");
    /* and where prefill knows nothing, decode's stands */
    post(&t, "/generate", "{}");
    until(&t, &t.workers[P0].asked, 2);
    until(&t, &t.workers[D0].asked, 2);
    answer_held(&t.workers[P0], 200, OK_P);
    until(&t, &t.reply.done, 1);
    assert_int_equal(t.reply.status, 500);
    has(t.reply.data.data, "KVTransferError");
    teardown(&t);
}

static void leaving_client_cancels_both(void **state)
{
    (void)state;
    static const char *const bodies[] = {"{}", "{\"stream\": true}"};
    for (int i = 0; i < 3; i++) {
        struct test t;
        setup(&t);
        start(&t);
        script(&t.workers[P0], HOLD, 0, NULL);
        script(&t.workers[D0], i == 2 ? STREAM : HOLD, 200, SSE);
        post(&t, "/generate", bodies[i > 0]);
        until(&t, &t.workers[P0].asked, 1);
        until(&t, &t.workers[D0].asked, 1);
        if (i == 2) until(&t, &t.reply.data_count, 1);
        reply_fini(&t.reply); /* hangs up */
        until(&t, &t.workers[P0].gone, 1);
        until(&t, &t.workers[D0].gone, 1);
        assert_int_equal(metric(&t, "{kind=\"client_left\"} "), 1);
        assert_int_equal(metric(&t, "running_requests "), 0);
        assert_int_equal(metric(&t, "role=\"prefill\"} "), 1); /* healthy */
        teardown(&t);
    }
}

static void refused_worker_is_left_out_until_a_probe(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.policy = "round_robin";
    t.options.prefill[t.options.prefill_count++] =
        (struct router_worker_option){t.workers[CLOSED].url, -1};
    start(&t);
    script(&t.workers[P0], ANSWER, 200, OK_P);
    script(&t.workers[CLOSED], ANSWER, 200, OK_P);
    script(&t.workers[D0], HOLD, 0, NULL); /* answers after prefill */
    for (int i = 0; i < 4; i++) {
        post(&t, "/generate", "{}");
        until(&t, &t.workers[P0].asked, i + 1);
        while (!t.workers[D0].held)
            until(&t, &t.workers[D0].asked, t.workers[D0].asked + 1);
        answer_held(&t.workers[D0], 200, OK_D);
        until(&t, &t.reply.done, 1);
        assert_int_equal(t.reply.status, 200);
    }
    assert_int_equal(metric(&t, "retries_total "), 1);
    assert_int_equal(metric(&t, "{kind=\"refused\"} "), 0);
    char line[128];
    snprintf(line, sizeof line,
             "worker_health{worker=\"%s\",role=\"prefill\"} ",
             t.workers[CLOSED].url);
    assert_int_equal(metric(&t, line), 0);
    /* It comes to life: the next probe takes it back. */
    worker_listen(&t.workers[CLOSED]);
    until(&t, &t.workers[CLOSED].probes, 1);
    while (metric(&t, line) != 1)
        ;
    teardown(&t);
}

static void all_refuse_is_502_then_503(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.prefill[0].url = t.workers[CLOSED].url;
    start(&t);
    script(&t.workers[D0], HOLD, 0, NULL);
    run(&t, "/generate", "{\"stream\": true}");
    assert_int_equal(t.reply.status, 503); /* after the first was refused */
    has(t.reply.data.data, "\"error\":{\"message\":\"No available servers");
    has(t.reply.data.data, "\"detail\":\"No available servers");
    run(&t, "/generate", "{}");
    assert_int_equal(t.reply.status, 503);
    assert_int_equal(metric(&t, "{kind=\"no_worker\"} "), 2);
    run(&t, "/readiness", NULL);
    assert_int_equal(t.reply.status, 503);
    run(&t, "/health", NULL);
    assert_int_equal(t.reply.status, 200);
    run(&t, "/get_model_info", NULL);
    assert_int_equal(t.reply.status, 503);
    teardown(&t);

    setup(&t);
    t.options.disable_retries = true;
    t.options.decode[0].url = t.workers[CLOSED].url;
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    run(&t, "/generate", "{}");
    assert_int_equal(t.reply.status, 502);
    has(t.reply.data.data, "decode server http://127.0.0.1:");
    assert_int_equal(metric(&t, "{kind=\"refused\"} "), 1);
    teardown(&t);
}

static void unready_workers_are_tried_again_with_new_rooms(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], DIE, 0, NULL);
    script(&t.workers[D0], ANSWER, 503, "{}");
    script(&t.workers[D0], ANSWER, 502, "{}");
    script(&t.workers[D0], ANSWER, 200, OK_D);
    run(&t, "/generate", "{}");
    assert_int_equal(t.reply.status, 200);
    assert_string_equal(t.reply.data.data, OK_D);
    assert_int_equal(t.workers[D0].asked, 4);
    assert_int_equal(metric(&t, "retries_total "), 3);
    for (int i = 1; i < 4; i++)
        assert_true(room_of(t.workers[D0].bodies[i]) !=
                    room_of(t.workers[D0].bodies[i - 1]));
    teardown(&t);

    setup(&t); /* but not for ever, and then the last answer stands */
    start(&t);
    script(&t.workers[P0], ANSWER, 503, "{\"detail\": \"starting\"}");
    script(&t.workers[D0], HOLD, 0, NULL);
    run(&t, "/generate", "{\"stream\": true}");
    assert_int_equal(t.reply.status, 503);
    assert_string_equal(t.reply.data.data, "{\"detail\": \"starting\"}");
    assert_int_equal(t.workers[P0].asked, 5);
    teardown(&t);

    setup(&t);
    t.options.disable_retries = true;
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], DIE, 0, NULL);
    run(&t, "/generate", "{}");
    assert_int_equal(t.reply.status, 502);
    assert_int_equal(t.workers[D0].asked, 1);
    assert_int_equal(metric(&t, "{kind=\"broken\"} "), 1);
    teardown(&t);
}

static void retry_takes_another_worker(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    second_workers(&t);
    start(&t);
    for (int i = P0; i <= P1; i++)
        script(&t.workers[i], HOLD, 0, NULL);
    script(&t.workers[D0], ANSWER, 503, "{}");
    script(&t.workers[D1], ANSWER, 200, OK_D);
    for (int i = 0; i < 10; i++) {
        run(&t, "/generate", "{}");
        assert_int_equal(t.reply.status, 200);
    }
    assert_int_equal(t.workers[D1].asked, 10); /* at most one retry each */
    assert_int_equal(metric(&t, "retries_total "), t.workers[D0].asked);
    teardown(&t);
}

static void ask_the_silent_early(struct test *t)
{
    t->options.silent_ms = 20;
    t->options.health_check_timeout_secs = 1;
    t->options.health_failure_threshold = 1;
}

/* A stopped process still accepts connections. */
static void hung_worker_is_left_for_another_pair(void **state)
{
    (void)state;
    static const int hung[] = {P0, D0};
    for (int i = 0; i < 2; i++) {
        struct test t;
        setup(&t);
        second_workers(&t);
        t.options.policy = "round_robin"; /* the first of both come first */
        ask_the_silent_early(&t);
        start(&t);
        script(&t.workers[P0], HOLD, 0, NULL);
        script(&t.workers[D0], HOLD, 0, NULL);
        for (int p = P0; p <= P1; p++)
            script(&t.workers[p], ANSWER, 200, OK_P);
        for (int d = D0; d <= D1; d++)
            script(&t.workers[d], ANSWER, 200, OK_D);
        t.workers[hung[i]].deaf = true;
        run(&t, "/generate", "{}");
        assert_int_equal(t.reply.status, 200);
        assert_string_equal(t.reply.data.data, OK_D);
        until(&t, &t.workers[P0].gone, 1);
        until(&t, &t.workers[D0].gone, 1);
        assert_int_equal(metric(&t, "retries_total "), 1);
        run(&t, "/generate", "{}"); /* which is not tried first again */
        assert_int_equal(t.reply.status, 200);
        assert_int_equal(t.workers[hung[i]].asked, 1);
        teardown(&t);
    }
}

static void hung_decode_ends_its_streams(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    ask_the_silent_early(&t);
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], STREAM, 200, SSE);
    t.workers[D0].deaf = true;
    run(&t, "/generate", "{\"stream\": true}");
    assert_int_equal(t.reply.status, 200);
    has(t.reply.data.data, SSE "data: {\"error\": {\"message\": \"decode ");
    has(t.reply.data.data, "does not answer");
    has(t.reply.data.data, "data: [DONE]\n\n");
    until(&t, &t.workers[P0].gone, 1);
    teardown(&t);
}

static void quiet_workers_that_answer_may_go_on(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    ask_the_silent_early(&t);
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], HOLD, 0, NULL);
    post(&t, "/generate", "{}");
    until(&t, &t.workers[D0].others, 3);
    has(t.workers[D0].other, "GET /v1/models");
    answer_held(&t.workers[P0], 200, OK_P);
    answer_held(&t.workers[D0], 200, OK_D);
    until(&t, &t.reply.done, 1);
    assert_int_equal(t.reply.status, 200);
    teardown(&t);
}

static void client_may_leave_between_attempts(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.retry_initial_backoff_ms = 50 * 1000;
    t.options.retry_max_backoff_ms = 50 * 1000;
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], ANSWER, 503, "{}");
    post(&t, "/generate", "{}");
    until(&t, &t.workers[D0].asked, 1);
    while (metric(&t, "retries_total ") != 1)
        ;
    reply_fini(&t.reply);
    while (metric(&t, "running_requests ") != 0)
        ;
    assert_int_equal(metric(&t, "{kind=\"client_left\"} "), 1);
    teardown(&t);
}

static void broken_stream_ends_with_an_error_event(void **state)
{
    (void)state;
    static const char *const starts[] = {SSE, SSE "data: {\"te"};
    for (int i = 0; i < 2; i++) {
        struct test t;
        setup(&t);
        start(&t);
        script(&t.workers[P0], HOLD, 0, NULL);
        script(&t.workers[D0], STREAM, 200, starts[i]);
        post(&t, "/generate", "{\"stream\": true}");
        until(&t, &t.reply.data_count, 1);
        http_drop(t.workers[D0].held);
        until(&t, &t.reply.done, 1);
        assert_int_equal(t.reply.rc, 0);
        assert_int_equal(t.reply.status, 200);
        char want[256];
        snprintf(want, sizeof want,
                 "%s%sdata: {\"error\": {\"message\": \"decode server %s: ",
                 starts[i], i ? "\n\n" : "", t.workers[D0].url);
        has(t.reply.data.data, want);
        has(t.reply.data.data, "\"code\": 502}}\n\ndata: [DONE]\n\n");
        until(&t, &t.workers[P0].gone, 1);
        assert_int_equal(t.workers[D0].asked, 1); /* bytes are out */
        assert_int_equal(metric(&t, "{kind=\"stream_broken\"} "), 1);
        teardown(&t);
    }
}

/* Once decode streams it has the KV cache: prefill may die. */
static void prefills_late_death_is_survived(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], STREAM, 200, SSE);
    post(&t, "/generate", "{\"stream\": true}");
    until(&t, &t.reply.data_count, 1);
    until(&t, &t.workers[P0].asked, 1);
    http_drop(t.workers[P0].held);
    while (metric(&t, "role=\"prefill\"} ") != 1)
        ;
    send_piece(&t.workers[D0], "data: [DONE]\n\n");
    until(&t, &t.reply.data_count, 2);
    end_stream(&t.workers[D0]);
    until(&t, &t.reply.done, 1);
    assert_string_equal(t.reply.data.data, SSE "data: [DONE]\n\n");
    teardown(&t);
}

static void silent_workers_end_in_504(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.request_timeout_secs = 1;
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], HOLD, 0, NULL);
    run(&t, "/generate", "{}");
    assert_int_equal(t.reply.status, 504);
    until(&t, &t.workers[P0].gone, 1);
    until(&t, &t.workers[D0].gone, 1);
    assert_int_equal(metric(&t, "{kind=\"timeout\"} "), 1);
    teardown(&t);
}

static void failing_worker_trips(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.cb_failure_threshold = 2;
    t.options.probe_ms = 50 * 1000;
    start(&t);
    script(&t.workers[P0], ANSWER, 500, "{}");
    script(&t.workers[D0], HOLD, 0, NULL);
    do { /* until the first probes came back: a good one ends a row */
        run(&t, "/readiness", NULL);
    } while (t.reply.status != 200);
    for (int i = 0; i < 2; i++) {
        run(&t, "/generate", "{}");
        assert_int_equal(t.reply.status, 500);
    }
    run(&t, "/generate", "{}");
    assert_int_equal(t.reply.status, 503);
    assert_int_equal(t.workers[P0].asked, 2);
    teardown(&t);
}

/* --- logprobs ---------------------------------------------------------------- */

#define LP(text, list)                                                         \
    "{\"text\": \"" text "\", \"meta_info\": {\"input_token_logprobs\": " list \
    "}"

static void prompt_logprobs_are_merged(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], ANSWER, 200, LP("d", "[[-3.10, 3]]") "}");
    post(&t, "/generate", "{\"text\": \"a\", \"return_logprob\": true}");
    until(&t, &t.workers[P0].asked, 1);
    until(&t, &t.workers[D0].asked, 1);
    assert_int_equal(t.reply.headers, 0); /* waits for prefill's */
    answer_held(&t.workers[P0], 200, LP("p", "[[-1.0, 1], [-2.0, 2]]") "}");
    until(&t, &t.reply.done, 1);
    assert_string_equal(t.reply.data.data,
                        LP("d", "[[-1.0, 1], [-2.0, 2], [-3.10, 3]]") "}");
    teardown(&t);

    setup(&t); /* a batch */
    start(&t);
    script(&t.workers[P0], ANSWER, 200,
           "[" LP("p", "[1]") "}, " LP("q", "[2]") "}]");
    script(&t.workers[D0], ANSWER, 200,
           "[" LP("d", "[7]") "}, " LP("e", "[8]") "}]");
    run(&t, "/generate",
        "{\"text\": [\"a\", \"b\"], \"return_logprob\": true}");
    assert_string_equal(t.reply.data.data,
                        "[" LP("d", "[1, 7]") "}, " LP("e", "[2, 8]") "}]");
    /* the OpenAI routes have no such answer: nothing is waited for */
    script(&t.workers[P0], HOLD, 0, NULL);
    t.workers[P0].asked = 1;
    run(&t, "/v1/completions", "{\"return_logprob\": true}");
    assert_int_equal(t.reply.status, 200);
    teardown(&t);

    setup(&t); /* prefill fails: no half answer */
    start(&t);
    script(&t.workers[P0], ANSWER, 400, "{\"m\": 1}");
    script(&t.workers[D0], ANSWER, 200, LP("d", "[7]") "}");
    run(&t, "/generate", "{\"text\": \"a\", \"return_logprob\": true}");
    assert_int_equal(t.reply.status, 400);
    assert_string_equal(t.reply.data.data, "{\"m\": 1}");
    teardown(&t);
}

static void prompt_logprobs_are_merged_into_streams(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    start(&t);
    script(&t.workers[P0], STREAM, 200,
           "data: " LP("p",
                       "[1]") ", \"index\": 0}\n\n"
                              "data: " LP(
                                  "q",
                                  "[2]") ", \"index\": 1}\n\ndata: [DONE]\n\n");
    script(
        &t.workers[D0], STREAM, 200,
        "data: " LP("d", "[7]") ", \"index\": 0}\n\n"
                                "data: " LP("e", "null") ", \"index\": 1}\n\n");
    post(&t, "/generate", "{\"stream\": true, \"return_logprob\": true}");
    until(&t, &t.workers[P0].asked, 1);
    until(&t, &t.workers[D0].asked, 1);
    assert_int_equal(t.reply.headers, 0);
    end_stream(&t.workers[P0]);
    until(&t, &t.reply.data_count, 1);
    send_piece(&t.workers[D0], "data: {\"text\": \"f\"}\n\ndata: [DO");
    send_piece(&t.workers[D0], "NE]\n\n");
    end_stream(&t.workers[D0]);
    until(&t, &t.reply.done, 1);
    assert_string_equal(
        t.reply.data.data,
        "data: " LP(
            "d",
            "[1, 7]") ", \"index\": 0}\n\n"
                      "data: " LP(
                          "e",
                          "[2]") ", \"index\": 1}\n\n"
                                 "data: {\"text\": \"f\"}\n\ndata: [DONE]\n\n");
    teardown(&t);
}

/* --- headers, keys, limits ------------------------------------------------------ */

static void allowed_headers_pass_both_ways(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    start(&t);
    script(&t.workers[P0], ANSWER, 200, OK_P);
    script(&t.workers[D0], ANSWER, 200, OK_D);
    const struct http_header headers[] = {
        {"Authorization", "Bearer k"}, {"X-Request-ID", "r1"},
        {"traceparent", "00-ab"},      {"Cookie", "secret"},
        {"Accept-Encoding", "br"},     {"X-Request-Id-Extra", "e"},
        {"Origin", "http://page"},     {NULL, NULL}};
    ask(&t, &t.reply, "/generate", "{}", headers);
    until(&t, &t.reply.done, 1);
    until(&t, &t.workers[P0].asked, 1);
    for (int i = P0; i <= D0; i += D0 - P0) {
        const char *got = t.workers[i].headers;
        has(got, "Authorization: Bearer k\n");
        has(got, "X-Request-ID: r1\n");
        has(got, "X-Request-Id-Extra: e\n");
        has(got, "traceparent: 00-ab\n");
        has(got, "Content-Type: application/json\n");
        assert_null(strstr(got, "Cookie"));
        assert_null(strstr(got, "Accept-Encoding"));
    }
    has(t.reply.all_headers, "X-Request-Id: of-worker\n");
    has(t.reply.all_headers, "Access-Control-Allow-Origin: *\n");
    teardown(&t);
}

static void router_key_guards_and_is_shown_to_workers(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.api_key = "k";
    start(&t);
    script(&t.workers[P0], ANSWER, 200, OK_P);
    script(&t.workers[D0], ANSWER, 200, OK_D);
    run(&t, "/generate", "{}");
    assert_int_equal(t.reply.status, 401);
    assert_int_equal(t.workers[D0].asked, 0);
    run(&t, "/health", NULL);
    assert_int_equal(t.reply.status, 200);
    const struct http_header headers[] = {{"Authorization", "Bearer k"},
                                          {NULL, NULL}};
    reply_fini(&t.reply);
    ask(&t, &t.reply, "/generate", "{}", headers);
    until(&t, &t.reply.done, 1);
    assert_int_equal(t.reply.status, 200);
    has(t.workers[D0].headers, "Authorization: Bearer k\n");
    teardown(&t);
}

static void bad_requests_reach_no_worker(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.max_payload_size = 1000;
    start(&t);
    static const char *const bad[] = {"{", "[]", "", "{\"a\": 01}", "null"};
    for (int i = 0; i < 5; i++) {
        run(&t, "/generate", bad[i]);
        assert_int_equal(t.reply.status, 400);
        has(t.reply.data.data, "{\"error\":{\"message\":\"");
        has(t.reply.data.data, "\"detail\":\"");
    }
    char long_body[1200];
    memset(long_body, ' ', sizeof long_body);
    long_body[sizeof long_body - 1] = 0;
    run(&t, "/generate", long_body);
    assert_int_equal(t.reply.status, 413);
    run(&t, "/generate", NULL);
    assert_int_equal(t.reply.status, 405);
    run(&t, "/v1/embeddings", "{}");
    assert_int_equal(t.reply.status, 404);
    assert_int_equal(metric(&t, "{kind=\"bad_request\"} "), 5);
    assert_int_equal(t.workers[P0].asked + t.workers[D0].asked, 0);
    teardown(&t);
}

static void requests_over_the_limit_get_429(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.max_concurrent_requests = 1;
    start(&t);
    script(&t.workers[P0], ANSWER, 200, OK_P);
    script(&t.workers[D0], HOLD, 0, NULL);
    struct reply first = {0};
    ask(&t, &first, "/generate", "{}", NULL);
    until(&t, &t.workers[D0].asked, 1);
    run(&t, "/generate", "{}");
    assert_int_equal(t.reply.status, 429);
    answer_held(&t.workers[D0], 200, OK_D);
    until(&t, &first.done, 1);
    assert_int_equal(first.status, 200);
    reply_fini(&first);
    teardown(&t);
}

/* --- policies ---------------------------------------------------------------- */

static void policies_spread_requests(void **state)
{
    (void)state;
    static const char *const policies[] = {"round_robin", "power_of_two",
                                           "random", "cache_aware"};
    for (int i = 0; i < 4; i++) {
        struct test t;
        setup(&t);
        t.options.policy = policies[i];
        second_workers(&t);
        start(&t);
        for (int w = P0; w <= D1; w++)
            script(&t.workers[w], ANSWER, 200, w < D0 ? OK_P : OK_D);
        if (i == 1) { /* one decode worker is busy: the other is taken */
            for (int w = D0; w <= D1; w++)
                t.workers[w].steps[0] = (struct step){HOLD, 0, NULL};
            struct reply held = {0};
            ask(&t, &held, "/generate", "{}", NULL);
            while (!t.workers[D0].asked && !t.workers[D1].asked)
                metric(&t, "retries_total ");
            int busy = t.workers[D0].asked ? D0 : D1;
            int idle = busy == D0 ? D1 : D0;
            t.workers[idle].steps[0] = (struct step){ANSWER, 200, OK_D};
            for (int k = 0; k < 8; k++)
                run(&t, "/generate", "{}");
            assert_int_equal(t.workers[busy].asked, 1);
            assert_int_equal(t.workers[idle].asked, 8);
            reply_fini(&held);
        } else {
            for (int k = 0; k < 40; k++)
                run(&t, "/generate", "{}");
            int low = i == 0 ? 20 : 1;
            assert_true(t.workers[D0].asked >= low);
            assert_true(t.workers[D1].asked >= low);
            assert_int_equal(t.workers[D0].asked + t.workers[D1].asked, 40);
        }
        teardown(&t);
    }
}

/* Each turn of a conversation has all turns before it. */
static void turn_body(char *body, size_t n, int conversation, int turns)
{
    snprintf(body, n, "{\"messages\": [");
    for (int i = 0; i <= turns; i++)
        snprintf(body + strlen(body), n - strlen(body),
                 "%s{\"role\": \"user\", \"content\": \"%d %0150d\"}",
                 i ? ", " : "", conversation, i);
    snprintf(body + strlen(body), n - strlen(body), "]}");
}

/* Which of two workers took a turn. */
static int take_turn(struct test *t, int a, int conversation, int turns)
{
    char body[2048];
    int before = t->workers[a].asked;
    turn_body(body, sizeof body, conversation, turns);
    run(t, "/v1/chat/completions", body);
    assert_int_equal(t->reply.status, 200);
    return t->workers[a].asked > before ? a : a + 1;
}

static void conversations_stay_where_their_kv_is(void **state)
{
    (void)state;
    enum { CONVERSATIONS = 8, TURNS = 6 };
    struct test t;
    setup(&t);
    t.options.prefill_policy = "round_robin"; /* each pool has its own */
    t.options.decode_policy = "cache_aware";
    second_workers(&t);
    start(&t);
    for (int w = P0; w <= D1; w++)
        script(&t.workers[w], ANSWER, 200, w < D0 ? OK_P : OK_D);
    int home[CONVERSATIONS];
    for (int turn = 0; turn < TURNS; turn++)
        for (int c = 0; c < CONVERSATIONS; c++) {
            int taken = take_turn(&t, D0, c, turn);
            if (turn == 0)
                home[c] = taken;
            else
                assert_int_equal(taken, home[c]);
        }
    assert_int_equal(t.workers[D0].asked, t.workers[D1].asked);
    assert_int_equal(t.workers[P0].asked, t.workers[P1].asked);
    teardown(&t);
}

static void uneven_load_goes_before_the_cache(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.policy = "cache_aware";
    t.options.balance_abs_threshold = 2;
    second_workers(&t);
    start(&t);
    for (int w = P0; w <= P1; w++)
        script(&t.workers[w], ANSWER, 200, OK_P);
    for (int w = D0; w <= D1; w++)
        script(&t.workers[w], ANSWER, 200, OK_D);
    int home = take_turn(&t, D0, 1, 3), other = home == D0 ? D1 : D0;
    t.workers[home].steps[0] = (struct step){HOLD, 0, NULL};
    struct reply held[3] = {0};
    char body[2048];
    for (int i = 0; i < 3; i++) { /* three at its home, none at the other */
        turn_body(body, sizeof body, 1, 4 + i);
        ask(&t, &held[i], "/v1/chat/completions", body, NULL);
        until(&t, &t.workers[home].asked, 2 + i);
    }
    assert_int_equal(take_turn(&t, D0, 1, 7), other);
    for (int i = 0; i < 3; i++)
        reply_fini(&held[i]);
    until(&t, &t.workers[home].gone, 3);
    teardown(&t);
}

static void a_worker_that_was_down_is_a_stranger(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.policy = "cache_aware";
    second_workers(&t);
    start(&t);
    for (int w = P0; w <= P1; w++)
        script(&t.workers[w], ANSWER, 200, OK_P);
    for (int w = D0; w <= D1; w++)
        script(&t.workers[w], ANSWER, 200, OK_D);
    int home = take_turn(&t, D0, 1, 3), other = home == D0 ? D1 : D0;
    http_server_close(t.workers[home].server);
    t.workers[home].server = NULL;
    assert_int_equal(take_turn(&t, D0, 1, 4), other); /* after a refusal */
    int probes = t.workers[home].probes;
    worker_listen(&t.workers[home]);
    until(&t, &t.workers[home].probes, probes + 1);
    char line[128];
    snprintf(line, sizeof line, "worker_health{worker=\"%s\",role=\"decode\"} ",
             t.workers[home].url);
    while (metric(&t, line) != 1)
        ;
    assert_int_equal(take_turn(&t, D0, 1, 5), other);
    teardown(&t);
}

/* --- the other endpoints ------------------------------------------------------ */

static void health_routes_tell_the_truth(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    second_workers(&t);
    start(&t);
    do /* ready once a probe of each role was answered, not before */
        run(&t, "/readiness", NULL);
    while (t.reply.status == 503);
    assert_int_equal(t.reply.status, 200);
    has(t.reply.data.data, "\"healthy_workers\": 4");
    run(&t, "/health_generate", NULL);
    assert_int_equal(t.reply.status, 200);
    assert_string_equal(t.workers[D1].other, "GET /health_generate ");
    t.workers[D0].other_status = 503;
    run(&t, "/health_generate", NULL);
    assert_int_equal(t.reply.status, 200); /* one decode is left */
    t.workers[D1].other_status = 503;
    run(&t, "/health_generate", NULL);
    assert_int_equal(t.reply.status, 503);
    has(t.reply.data.data, "\"role\": \"decode\", \"status\": 503");
    teardown(&t);
}

static void admin_routes_reach_every_worker(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    second_workers(&t);
    start(&t);
    run(&t, "/flush_cache", "");
    assert_int_equal(t.reply.status, 200);
    for (int i = P0; i <= D1; i++)
        assert_string_equal(t.workers[i].other, "POST /flush_cache ");
    run(&t, "/abort_request", "{\"rid\": \"x\"}");
    assert_int_equal(t.reply.status, 200);
    for (int i = P0; i <= D1; i++)
        assert_string_equal(t.workers[i].other,
                            "POST /abort_request {\"rid\": \"x\"}");
    t.workers[P1].other_status = 400;
    t.workers[P1].other_body = "busy";
    run(&t, "/flush_cache", "");
    assert_int_equal(t.reply.status, 400);
    has(t.reply.data.data, "\"status\": 400, \"body\": \"busy\"");
    teardown(&t);
}

static void infos_are_collected_and_proxied(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    start(&t);
    t.workers[P0].other_body = "{\"model_path\": \"m\", \"v\": 1.10}";
    t.workers[D0].other_body = "{\"internal_states\": [{\"a\": 1}, 2]}";
    run(&t, "/get_server_info", NULL);
    assert_string_equal(t.reply.data.data,
                        "{\"internal_states\": [{\"a\": 1}, 2], \"prefill\": "
                        "[{\"model_path\": \"m\", \"v\": 1.10}], \"decode\": "
                        "[{\"internal_states\": [{\"a\": 1}, 2]}]}");
    t.workers[D0].other_body = "{}";
    run(&t, "/server_info", NULL);
    has(t.reply.data.data, "{\"internal_states\": [{\"last_gen_throughput\": "
                           "0.0, \"avg_spec_accept_length\": null}]");
    static const char *const paths[] = {"/get_model_info", "/model_info",
                                        "/v1/models", "/v1/models/m"};
    for (int i = 0; i < 4; i++) {
        char want[64];
        snprintf(want, sizeof want, "GET %s ", paths[i]);
        run(&t, paths[i], NULL);
        assert_int_equal(t.reply.status, 200);
        assert_string_equal(t.reply.data.data, t.workers[P0].other_body);
        assert_string_equal(t.workers[P0].other, want);
    }
    t.workers[P0].other_status = 418;
    run(&t, "/get_model_info", NULL);
    assert_int_equal(t.reply.status, 502);
    has(t.reply.data.data, "status 418: {\\\"model_path\\\"");
    run(&t, "/v1/models/absent", NULL);
    assert_int_equal(t.reply.status, 418);
    teardown(&t);
}

/* --- life ---------------------------------------------------------------------- */

static void drained(void *arg)
{
    struct test *t = arg;
    t->workers[P1].others++;
    look(t);
}

static void router_drains_and_closes_over_live_requests(void **state)
{
    (void)state;
    size_t before = mem_live();
    struct test t;
    setup(&t);
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], STREAM, 200, SSE);
    post(&t, "/generate", "{\"stream\": true}");
    until(&t, &t.reply.data_count, 1);
    router_drain(t.router, 60 * 1000, drained, &t);
    end_stream(&t.workers[D0]);
    until(&t, &t.reply.done, 1);
    until(&t, &t.workers[P1].others, 1);
    teardown(&t); /* prefill still lingers */
    setup(&t);
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], HOLD, 0, NULL);
    post(&t, "/generate", "{}");
    until(&t, &t.workers[D0].asked, 1);
    teardown(&t);
    assert_int_equal(mem_live(), before);
}

static void options_are_checked(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "--prefill http://a --decode http://b",
        "--pd-disaggregation --prefill http://a",
        "--pd-disaggregation --decode http://b",
        "--pd-disaggregation --prefill http://a 70000",
        "--pd-disaggregation --prefil http://a",
        "--policy best",
    };
    static const char *const texts[] = {"--pd-disaggregation",    "no --decode",
                                        "no --prefill",           "1 to 65535",
                                        "did you mean --prefill", "known are"};
    struct words words;
    struct router_options *o = mem_must(1, sizeof *o);
    for (int i = 0; i < 6; i++) {
        struct why why = {0};
        assert_int_equal(parse(o, &words, cases[i], &why), ERR_INVALID);
        has(why.text, texts[i]);
    }
    assert_int_equal(parse(o, &words,
                           "--pd-disaggregation --prefill http://a:1 none "
                           "--prefill http://b:2 6657 --decode http://c:3 "
                           "--dp-aware --cache-threshold 0.5",
                           NULL),
                     0);
    assert_string_equal(o->host, "0.0.0.0");
    assert_string_equal(o->policy, "cache_aware");
    assert_true(o->cache_threshold == 0.5 && o->balance_rel_threshold == 1.5);
    assert_int_equal(o->port, 30000);
    assert_int_equal(o->request_timeout_secs, 1800);
    assert_int_equal(o->prefill_count, 2);
    assert_int_equal(o->prefill[0].bootstrap_port, -1);
    assert_int_equal(o->prefill[1].bootstrap_port, 6657);
    /* a URL without a scheme cannot be asked */
    struct loop *loop;
    struct router *router;
    struct why why = {0};
    CHECK(!loop_create(&loop, NULL));
    o->decode[0].url = "c:3";
    assert_int_equal(router_create(&router, loop, o, &why), ERR_INVALID);
    has(why.text, "--decode c:3");
    loop_destroy(loop);
    mem_free(o);
}

TESTS(T(both_legs_get_the_same_body_and_decode_answers),
      T(decodes_bytes_do_not_wait_for_prefill),
      T(stream_headers_follow_prefills_good_end),
      T(worker_errors_reach_the_client), T(prefills_error_event_is_an_error),
      T(prefill_may_explain_decodes_failure), T(leaving_client_cancels_both),
      T(refused_worker_is_left_out_until_a_probe),
      T(all_refuse_is_502_then_503),
      T(unready_workers_are_tried_again_with_new_rooms),
      T(retry_takes_another_worker), T(hung_worker_is_left_for_another_pair),
      T(hung_decode_ends_its_streams), T(quiet_workers_that_answer_may_go_on),
      T(client_may_leave_between_attempts),
      T(broken_stream_ends_with_an_error_event),
      T(prefills_late_death_is_survived), T(silent_workers_end_in_504),
      T(failing_worker_trips), T(prompt_logprobs_are_merged),
      T(prompt_logprobs_are_merged_into_streams),
      T(allowed_headers_pass_both_ways),
      T(router_key_guards_and_is_shown_to_workers),
      T(bad_requests_reach_no_worker), T(requests_over_the_limit_get_429),
      T(policies_spread_requests), T(conversations_stay_where_their_kv_is),
      T(uneven_load_goes_before_the_cache),
      T(a_worker_that_was_down_is_a_stranger), T(health_routes_tell_the_truth),
      T(admin_routes_reach_every_worker), T(infos_are_collected_and_proxied),
      T(router_drains_and_closes_over_live_requests), T(options_are_checked))
