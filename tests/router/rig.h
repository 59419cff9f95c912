/* tests/router/rig.h - a router between a client and scripted workers, all
 * real HTTP on one loop of this thread. A test scripts its workers, starts
 * requests and runs the loop until something it waits for has happened; nothing
 * depends on time but the tests of timeouts. */
#ifndef BATON_TESTS_ROUTER_RIG_H
#define BATON_TESTS_ROUTER_RIG_H

#include "tests/test.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/client.h"
#include "http/loop.h"
#include "http/resume.h"
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
    const char *marks; /* RESUME_HEADER of its streams; NULL: none */
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

static inline void look(struct test *t)
{
    if (t->want && *t->want >= t->want_value) loop_stop(t->loop);
}

static inline void stuck(void *arg)
{
    struct test *t = arg;
    fail_msg("stuck: asked %d %d, gone %d %d, data %s", t->workers[P0].asked,
             t->workers[D0].asked, t->workers[P0].gone, t->workers[D0].gone,
             t->reply.data.data ? t->reply.data.data : "");
}

/* Runs until the counter has the value. */
static inline void until(struct test *t, const int *counter, int value)
{
    if (*counter >= value) return;
    t->want = counter;
    t->want_value = value;
    loop_run(t->loop);
    t->want = NULL;
}

/* --- workers ------------------------------------------------------------- */

static inline void worker_left(void *arg, struct http_request *r, int rc)
{
    struct worker_end *w = arg;
    (void)rc;
    w->gone++;
    w->held = NULL;
    http_drop(r);
    look(w->t);
}

static inline void worker_generate(void *arg, struct http_request *r)
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
        {"X-Request-Id", "of-worker"},
        {"Retry-After", "7"},
        {w->marks ? RESUME_HEADER : NULL, w->marks},
        {NULL, NULL}};
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

static inline void asker_left(void *arg, struct http_request *r, int rc)
{
    (void)arg;
    (void)rc;
    http_drop(r);
}

static inline void worker_other(void *arg, struct http_request *r)
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

static inline void worker_listen(struct worker_end *w)
{
    struct http_server_options o = {
        .port = w->port, .routes = worker_routes, .route_count = 4, .arg = w};
    struct why why = {0};
    if (http_server_open(&w->server, w->t->loop, &o, &why))
        fail_msg("%s", why.text);
}

/* A port where nobody listens: bound once, then let go. It lies below those
 * that the kernel hands out by itself. */
static inline int closed_port(void)
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

static inline void script(struct worker_end *w, enum act act, int status,
                          const char *body)
{
    CHECK(w->step_count < STEPS);
    w->steps[w->step_count++] = (struct step){act, status, body};
}

/* --- set-up -------------------------------------------------------------- */

static inline int parse(struct router_options *o, struct words *w,
                        const char *line, struct why *why)
{
    snprintf(w->text, sizeof w->text, "x %s", line);
    w->argc = 0;
    for (char *save, *p = strtok_r(w->text, " ", &save); p;
         p = strtok_r(NULL, " ", &save))
        w->argv[w->argc++] = p;
    return router_options_parse(o, w->argc, w->argv, NULL, NULL, why);
}

static inline void drop_log(void *arg, enum log_level level, const char *line)
{
    (void)arg;
    (void)level;
    (void)line;
}

static inline void setup(struct test *t)
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

static inline void second_workers(struct test *t)
{
    t->options.prefill[t->options.prefill_count++] =
        (struct router_worker_option){t->workers[P1].url, -1};
    t->options.decode[t->options.decode_count++] =
        (struct router_worker_option){t->workers[D1].url, -1};
}

static inline void start(struct test *t)
{
    struct why why = {0};
    if (router_create(&t->router, t->loop, &t->options, &why))
        fail_msg("%s", why.text);
    snprintf(t->url, sizeof t->url, "http://127.0.0.1:%d",
             router_port(t->router));
}

static inline void reply_fini(struct reply *reply)
{
    http_call_cancel(reply->call);
    buf_fini(&reply->data);
    memset(reply, 0, sizeof *reply);
}

static inline void teardown(struct test *t)
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

/* --- the client ---------------------------------------------------------- */

static inline void on_headers(void *arg, struct http_call *call, int status)
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

static inline void on_data(void *arg, struct http_call *call, const void *bytes,
                           size_t n)
{
    (void)call;
    struct reply *r = arg;
    buf_add(&r->data, bytes, n);
    r->data_count++;
    look(r->t);
}

static inline void on_done(void *arg, struct http_call *call,
                           const struct http_result *result)
{
    (void)call;
    struct reply *r = arg;
    r->call = NULL;
    r->rc = result->rc;
    r->done++;
    look(r->t);
}

static inline void ask(struct test *t, struct reply *r, const char *path,
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

static inline void post(struct test *t, const char *path, const char *body)
{
    reply_fini(&t->reply);
    ask(t, &t->reply, path, body, NULL);
}

static inline void run(struct test *t, const char *path, const char *body)
{
    post(t, path, body);
    until(t, &t->reply.done, 1);
    assert_int_equal(t->reply.rc, 0);
}

static inline void send_piece(struct worker_end *w, const char *text)
{
    assert_int_equal(http_stream_send(w->held, text, strlen(text)), 0);
}

static inline void end_stream(struct worker_end *w)
{
    http_stream_end(w->held);
    w->held = NULL;
}

/* Hangs up on whoever waits. */
static inline void hang_up(struct worker_end *w)
{
    http_drop(w->held);
    w->held = NULL;
}

static inline void answer_held(struct worker_end *w, int status,
                               const char *body)
{
    http_reply(w->held, status, "application/json", NULL, body, strlen(body));
    w->held = NULL;
}

static inline void has(const char *text, const char *part)
{
    if (!strstr(text, part)) fail_msg("no %s in: %s", part, text);
}

/* The value of a sample of GET /metrics whose line has this in it. */
static inline long metric(struct test *t, const char *part)
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

static inline int64_t room_of(const char *body)
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

#define OK_P "{\"text\": \"p\"}"
#define OK_D "{\"text\": \"d\", \"x\": 1.10}"
#define SSE  "data: {\"text\": \"a\"}\n\n"

#endif
