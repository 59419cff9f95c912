#include "http/client.h"
#include "base/buf.h"
#include "base/mem.h"
#include "http/dead_host.h"
#include "http/libcurl.h"
#include "http/loop.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* libcurl's callbacks only note what came: data goes into call->data, and the
 * call into the client's dirty list. deliver runs the holders' callbacks when
 * no libcurl frame is below us, so these may make and cancel calls freely
 * (inside libcurl's own callbacks both would be refused).
 *
 * Easy handles are not reused: in libcurl 7.88.1 one that was keeps a pointer
 * to its former answer's last header, which is freed, and follows it when the
 * next answer begins with a folded line (found by http_client_fuzz). The
 * connections live in the multi handle and are reused all the same. */

enum { HEADERS_MAX = 256 << 10, IDLE_CONNECTIONS = 4096 };

struct http_client {
    CURLM *multi;
    struct loop *loop;
    struct loop_timer *timer;
    struct http_call *calls; /* all in flight */
    struct http_call *dirty; /* have something for their holder */
    struct sock **socks;     /* by descriptor; NULL: not watched yet */
    size_t sock_cap;
};

struct http_call {
    struct http_client *client;
    CURL *easy;
    struct curl_slist *request_headers;
    struct http_call_options options; /* pointers into the caller: callbacks,
                                         arg and body only */
    char error[CURL_ERROR_SIZE];
    struct buf headers; /* "name\0value\0" pairs */
    struct buf data;    /* not delivered yet */
    int status;
    bool headers_whole, headers_delivered;
    bool in_dirty;
    bool *canceled; /* set while deliver holds the call */
    struct http_call *next, *prev, *next_dirty;
};

static void call_free(struct http_call *call)
{
    struct http_client *client = call->client;
    if (call->in_dirty) {
        struct http_call **at = &client->dirty;
        while (*at != call)
            at = &(*at)->next_dirty;
        *at = call->next_dirty;
    }
    if (call->next) call->next->prev = call->prev;
    *(call->prev ? &call->prev->next : &client->calls) = call->next;
    if (call->easy) {
        libcurl.multi_remove_handle(client->multi, call->easy);
        libcurl.easy_cleanup(call->easy);
    }
    libcurl.slist_free_all(call->request_headers);
    buf_fini(&call->headers);
    buf_fini(&call->data);
    mem_free(call);
}

void http_call_cancel(struct http_call *call)
{
    if (!call) return;
    if (call->canceled) *call->canceled = true;
    call_free(call);
}

static void mark_dirty(struct http_call *call)
{
    if (call->in_dirty) return;
    call->in_dirty = true;
    struct http_call **at = &call->client->dirty;
    while (*at)
        at = &(*at)->next_dirty;
    call->next_dirty = NULL;
    *at = call;
}

/* ------------------------------------------------------------------------ */

/* One line of the answer's head, "\r\n" included. A status line starts over:
 * what came before it was an interim answer. */
static size_t take_header(char *line, size_t size, size_t count, void *arg)
{
    struct http_call *call = arg;
    size_t n = size * count, end = n;
    while (end && (line[end - 1] == '\n' || line[end - 1] == '\r'))
        end--;
    if (end >= 5 && memcmp(line, "HTTP/", 5) == 0) {
        const char *space = memchr(line, ' ', end);
        buf_reset(&call->headers);
        call->status = 0;
        for (space = space ? space + 1 : line + end;
             space < line + end && *space >= '0' && *space <= '9'; space++)
            call->status = call->status * 10 + (*space - '0');
        return n;
    }
    if (end == 0) {
        if (call->status >= 200) {
            call->headers_whole = true;
            mark_dirty(call);
        }
        return n;
    }
    if (call->headers_whole) return n; /* a trailer */
    const char *colon = memchr(line, ':', end);
    if (!colon) return n;
    const char *value = colon + 1;
    while (value < line + end && (*value == ' ' || *value == '\t'))
        value++;
    while (line + end > value &&
           (line[end - 1] == ' ' || line[end - 1] == '\t'))
        end--;
    buf_add(&call->headers, line, (size_t)(colon - line));
    buf_putc(&call->headers, 0);
    buf_add(&call->headers, value, (size_t)(line + end - value));
    buf_putc(&call->headers, 0);
    return call->headers.failed ? 0 : n;
}

static size_t take_data(char *bytes, size_t size, size_t count, void *arg)
{
    struct http_call *call = arg;
    size_t n = size * count;
    if (!call->headers_whole) return 0; /* a body behind an interim head */
    if (call->options.on_data) {
        buf_add(&call->data, bytes, n);
        if (call->data.failed) return 0;
        mark_dirty(call);
    }
    return n;
}

/* Tells the holder what came. False: the call is gone. */
static bool deliver_call(struct http_call *call)
{
    bool canceled = false;
    const struct http_call_options *o = &call->options;
    call->canceled = &canceled;
    if (call->headers_whole && !call->headers_delivered) {
        call->headers_delivered = true;
        if (o->on_headers) o->on_headers(o->arg, call, call->status);
        if (canceled) return false;
    }
    if (call->data.len) {
        /* The holder reads from here while nothing can add to it. */
        o->on_data(o->arg, call, call->data.data, call->data.len);
        if (canceled) return false;
        buf_reset(&call->data);
    }
    call->canceled = NULL;
    return true;
}

static int result_code(CURLcode code)
{
    switch (code) {
    case CURLE_OK: return 0;
    case CURLE_OPERATION_TIMEDOUT: return ERR_TIMEOUT;
    case CURLE_URL_MALFORMAT:
    case CURLE_UNSUPPORTED_PROTOCOL: return ERR_INVALID;
    default: return ERR_PEER;
    }
}

static void finish_call(struct http_call *call, CURLcode code)
{
    curl_off_t us = 0; /* until the request could be sent; 0: never */
    libcurl.easy_getinfo(call->easy, CURLINFO_PRETRANSFER_TIME_T, &us);
    struct http_result result = {
        .rc = result_code(code),
        .status = call->headers_whole ? call->status : 0,
        .connected = us > 0,
        .text = !code            ? ""
                : call->error[0] ? call->error
                                 : libcurl.easy_strerror(code),
    };
    if (!code && !call->headers_whole) { /* libcurl takes half a head */
        result.rc = ERR_PEER;
        result.text = "the answer ended within its headers";
    }
    bool canceled = false;
    call->canceled = &canceled;
    if (call->options.on_done)
        call->options.on_done(call->options.arg, call, &result);
    if (!canceled) call_free(call);
}

static void deliver(struct http_client *client)
{
    for (struct http_call *call; (call = client->dirty);) {
        client->dirty = call->next_dirty;
        call->in_dirty = false;
        deliver_call(call);
    }
    int left;
    for (CURLMsg *m; (m = libcurl.multi_info_read(client->multi, &left));) {
        if (m->msg != CURLMSG_DONE) continue;
        struct http_call *call = NULL;
        CURLcode code = m->data.result;
        libcurl.easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&call);
        finish_call(call, code);
    }
}

/* ------------------------------------------------------------------------ */

/* A socket that libcurl watches. Between two requests over a kept connection it
 * wants it watched no more, and then again; that would be two system calls for
 * each request, so the watch of a connection that was made, and waited for its
 * answer, stays until libcurl tells that the socket is closed. (Sockets of its
 * resolver, and of connections that were not made, it closes untold.) */
struct sock {
    struct http_client *client;
    struct loop_watch *watch; /* NULL: none yet */
    curl_socket_t fd;
    unsigned events;       /* that are watched for */
    bool connection, idle; /* idle: libcurl does not care at present */
};

static void sock_ready(void *arg, unsigned ready)
{
    struct sock *sock = arg;
    struct http_client *client = sock->client;
    if (sock->idle) { /* closed by its server: libcurl finds out when it asks */
        sock->events = 0;
        loop_watch_set(sock->watch, 0);
        return;
    }
    int running, action = (ready & LOOP_READ ? CURL_CSELECT_IN : 0) |
                          (ready & LOOP_WRITE ? CURL_CSELECT_OUT : 0);
    libcurl.multi_socket_action(client->multi, sock->fd, action, &running);
    deliver(client); /* sock may be gone */
}

/* The place of fd in the table. */
static struct sock **sock_at(struct http_client *client, curl_socket_t fd)
{
    size_t at = (size_t)fd, cap = client->sock_cap ? client->sock_cap : 64;
    if (at >= client->sock_cap) {
        while (cap <= at)
            cap *= 2;
        client->socks = mem_remust(client->socks, cap * sizeof(struct sock *));
        memset(client->socks + client->sock_cap, 0,
               (cap - client->sock_cap) * sizeof(struct sock *));
        client->sock_cap = cap;
    }
    return &client->socks[at];
}

static void sock_destroy(struct http_client *client, curl_socket_t fd)
{
    struct sock **at = sock_at(client, fd);
    if (!*at) return;
    loop_watch_destroy((*at)->watch);
    mem_free(*at);
    *at = NULL;
}

static struct sock *sock_create(struct http_client *client, curl_socket_t fd,
                                bool connection)
{
    struct sock *sock = mem_must(1, sizeof *sock);
    *sock = (struct sock){.client = client, .fd = fd, .connection = connection};
    sock_destroy(client, fd);
    return *sock_at(client, fd) = sock;
}

static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg,
                        void *sock_arg)
{
    (void)easy;
    (void)sock_arg;
    struct http_client *client = arg;
    struct sock *sock = *sock_at(client, fd);
    unsigned events = (what & CURL_POLL_IN ? LOOP_READ : 0u) |
                      (what & CURL_POLL_OUT ? LOOP_WRITE : 0u);
    if (what == CURL_POLL_REMOVE) {
        if (sock && sock->connection && sock->events == LOOP_READ)
            sock->idle = true;
        else
            sock_destroy(client, fd);
        return 0;
    }
    if (!sock) sock = sock_create(client, fd, false);
    sock->idle = false;
    if (sock->watch && sock->events != events)
        loop_watch_set(sock->watch, events);
    sock->events = events;
    if (sock->watch || !loop_watch_create(&sock->watch, client->loop, fd,
                                          events, sock_ready, sock))
        return 0;
    sock->watch = NULL;
    return -1;
}

/* A connection's socket, before it connects, and when it is over. */
static int open_socket(void *arg, curl_socket_t fd, curlsocktype purpose)
{
    (void)purpose;
    sock_create(arg, fd, true);
    dead_host_ask(fd);
    dead_host_limit(fd);
    return CURL_SOCKOPT_OK;
}

static int close_socket(void *arg, curl_socket_t fd)
{
    sock_destroy(arg, fd);
    return close(fd);
}

static int set_timer(CURLM *multi, long ms, void *arg)
{
    (void)multi;
    struct http_client *client = arg;
    if (ms < 0)
        loop_timer_unset(client->timer);
    else
        loop_timer_set(client->timer, (uint64_t)ms, 0);
    return 0;
}

static void timer_fired(void *arg)
{
    struct http_client *client = arg;
    int running;
    libcurl.multi_socket_action(client->multi, CURL_SOCKET_TIMEOUT, 0,
                                &running);
    deliver(client);
}

int http_client_open(struct http_client **out, struct loop *loop,
                     struct why *why)
{
    *out = NULL;
    int rc = libcurl_load(why);
    if (rc) return rc;
    CURLM *multi = libcurl.multi_init();
    if (!multi) return err_set(why, ERR_NOMEM, "HTTP client");
    struct http_client *client = mem_must(1, sizeof *client);
    client->multi = multi;
    client->loop = loop;
    client->timer = loop_timer_create(loop, timer_fired, client);
    libcurl.multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
    libcurl.multi_setopt(multi, CURLMOPT_SOCKETDATA, client);
    libcurl.multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_timer);
    libcurl.multi_setopt(multi, CURLMOPT_TIMERDATA, client);
    libcurl.multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long)IDLE_CONNECTIONS);
    libcurl.multi_setopt(multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    *out = client;
    return 0;
}

int http_client_check(struct why *why)
{
    return libcurl_load(why);
}

void http_client_close(struct http_client *client)
{
    if (!client) return;
    while (client->calls)
        http_call_cancel(client->calls);
    libcurl.multi_cleanup(client->multi); /* closes every socket */
    for (size_t fd = 0; fd < client->sock_cap; fd++)
        sock_destroy(client, (curl_socket_t)fd);
    mem_free(client->socks);
    loop_timer_destroy(client->timer);
    mem_free(client);
}

static int build_headers(struct http_call *call,
                         const struct http_header *headers)
{
    for (const struct http_header *h = headers; h && h->name; h++)
        if (strpbrk(h->name, "\r\n:") || strpbrk(h->value, "\r\n"))
            return ERR_INVALID;
    struct curl_slist *list = libcurl.slist_append(NULL, "Expect:");
    bool ok = list != NULL, has_type = false;
    for (; ok && headers && headers->name; headers++) {
        struct buf line;
        buf_init(&line, HEADERS_MAX);
        /* "Name;" is libcurl's way to say: with an empty value. */
        buf_puts(&line, headers->name);
        buf_puts(&line, headers->value[0] ? ": " : ";");
        buf_puts(&line, headers->value);
        has_type |= strcasecmp(headers->name, "Content-Type") == 0;
        struct curl_slist *longer =
            line.failed ? NULL : libcurl.slist_append(list, line.data);
        ok = longer != NULL;
        if (longer) list = longer;
        buf_fini(&line);
    }
    if (ok && !has_type)
        ok = libcurl.slist_append(list, "Content-Type:") != NULL;
    call->request_headers = list;
    return ok ? 0 : ERR_NOMEM;
}

static void set_method(CURL *easy, const struct http_call_options *o)
{
    const char *method = o->method ? o->method : o->body ? "POST" : "GET";
    if (o->body || strcmp(method, "POST") == 0) {
        libcurl.easy_setopt(easy, CURLOPT_POST, 1L);
        libcurl.easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                            (curl_off_t)o->body_bytes);
        libcurl.easy_setopt(easy, CURLOPT_POSTFIELDS, o->body ? o->body : "");
    }
    if (strcmp(method, "HEAD") == 0)
        libcurl.easy_setopt(easy, CURLOPT_NOBODY, 1L);
    else
        libcurl.easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
}

int http_call(struct http_client *client,
              const struct http_call_options *options, struct http_call **out)
{
    struct http_call *call = mem_must(1, sizeof *call);
    call->client = client;
    call->options = *options;
    buf_init(&call->headers, HEADERS_MAX);
    buf_init(&call->data, SIZE_MAX / 2);
    call->next = client->calls;
    if (call->next) call->next->prev = call;
    client->calls = call;
    CURL *easy = libcurl.easy_init();
    int rc = easy ? build_headers(call, options->headers) : ERR_NOMEM;
    if (rc) {
        if (easy) libcurl.easy_cleanup(easy);
        call_free(call);
        return rc;
    }
    call->easy = easy;
    libcurl.easy_setopt(easy, CURLOPT_URL, options->url);
    libcurl.easy_setopt(easy, CURLOPT_PRIVATE, call);
    libcurl.easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    libcurl.easy_setopt(easy, CURLOPT_NOPROXY, "*");
    libcurl.easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    libcurl.easy_setopt(easy, CURLOPT_HTTP_VERSION,
                        (long)CURL_HTTP_VERSION_1_1);
    libcurl.easy_setopt(easy, CURLOPT_HTTPHEADER, call->request_headers);
    libcurl.easy_setopt(easy, CURLOPT_ERRORBUFFER, call->error);
    libcurl.easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header);
    libcurl.easy_setopt(easy, CURLOPT_HEADERDATA, call);
    libcurl.easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_data);
    libcurl.easy_setopt(easy, CURLOPT_WRITEDATA, call);
    libcurl.easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, open_socket);
    libcurl.easy_setopt(easy, CURLOPT_SOCKOPTDATA, client);
    libcurl.easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
    libcurl.easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, client);
    libcurl.easy_setopt(
        easy, CURLOPT_CONNECTTIMEOUT_MS,
        (long)(options->connect_ms ? options->connect_ms : 10000));
    libcurl.easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)options->total_ms);
    set_method(easy, options);
    if (libcurl.multi_add_handle(client->multi, easy)) {
        call->easy = NULL;
        libcurl.easy_cleanup(easy);
        call_free(call);
        return ERR_NOMEM;
    }
    if (out) *out = call;
    return 0;
}

bool http_call_header_next(const struct http_call *call, size_t *at,
                           struct http_header *header)
{
    if (*at >= call->headers.len) return false;
    header->name = call->headers.data + *at;
    *at += strlen(header->name) + 1;
    header->value = call->headers.data + *at;
    *at += strlen(header->value) + 1;
    return true;
}

const char *http_call_header(const struct http_call *call, const char *name)
{
    struct http_header header;
    for (size_t at = 0; http_call_header_next(call, &at, &header);)
        if (strcasecmp(header.name, name) == 0) return header.value;
    return NULL;
}

/* ------------------------------------------------------------------------ */

struct fetch {
    struct loop *loop;
    struct buf *body;
    size_t limit;
    struct why *why;
    int rc;
};

static void fetch_data(void *arg, struct http_call *call, const void *bytes,
                       size_t n)
{
    struct fetch *f = arg;
    if (n <= f->limit) buf_add(f->body, bytes, n);
    if (n <= f->limit && !f->body->failed) {
        f->limit -= n;
        return;
    }
    f->rc = err_set(f->why, ERR_RANGE, "the answer is too long");
    http_call_cancel(call);
    loop_stop(f->loop);
}

static void fetch_done(void *arg, struct http_call *call,
                       const struct http_result *result)
{
    (void)call;
    struct fetch *f = arg;
    f->rc = result->rc ? err_set(f->why, result->rc, "%s", result->text)
                       : result->status;
    loop_stop(f->loop);
}

int http_fetch(const struct http_call_options *options, size_t max_bytes,
               struct buf *body, struct why *why)
{
    struct fetch f = {.body = body, .limit = max_bytes, .why = why};
    struct http_client *client = NULL;
    int rc = loop_create(&f.loop, why);
    if (!rc) rc = http_client_open(&client, f.loop, why);
    struct http_call_options o = *options;
    o.on_headers = NULL;
    o.on_data = fetch_data;
    o.on_done = fetch_done;
    o.arg = &f;
    if (!rc) rc = http_call(client, &o, NULL);
    if (!rc) {
        loop_run(f.loop);
        rc = f.rc;
    }
    http_client_close(client);
    loop_destroy(f.loop);
    return rc;
}
