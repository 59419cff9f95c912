/* Any bytes sent by a client must neither end the server nor leave a request
 * or a connection behind; a handler reads all that it may ask for. */
#include "base/mem.h"
#include "http/loop.h"
#include "http/server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct loop *loop;
static struct http_server *server;

static void answer(void *arg, struct http_request *r)
{
    (void)arg;
    size_t n;
    const char *body = http_request_body(r, &n);
    const char *q = http_request_query(r, "q");
    http_authorized(r, "key");
    if (n && body[0] == 's') {
        http_stream_begin(r, 200, NULL, NULL);
        http_stream_send(r, body, n);
        http_stream_end(r);
    } else if (n && body[0] == 'd') {
        http_drop(r);
    } else {
        http_reply_error(r, 400, "%s %s", q ? q : "", http_request_path(r));
    }
}

static void start(void)
{
    static const struct http_route routes[] = {{127, "/*", answer}};
    struct http_server_options options = {
        .routes = routes,
        .route_count = 1,
        .cors = true,
        .limits = {.body_bytes = 4096, .header_bytes = 2048},
    };
    if (loop_create(&loop, NULL) ||
        http_server_open(&server, loop, &options, NULL))
        abort();
}

/* The client's end: reads until the server closes. */
static void client_ready(void *arg, unsigned ready)
{
    (void)ready;
    int fd = *(int *)arg;
    char sink[4096];
    ssize_t n = recv(fd, sink, sizeof sink, MSG_DONTWAIT);
    if (n <= 0) loop_stop(loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!server) start();
    size_t before = mem_live();
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port =
                                 htons((uint16_t)http_server_port(server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) abort();
    /* Small inputs fit into the socket's buffer. */
    if (size > 32768) size = 32768;
    if (size && send(fd, data, size, MSG_NOSIGNAL) != (ssize_t)size) abort();
    shutdown(fd, SHUT_WR);
    struct loop_watch *watch;
    if (loop_watch_create(&watch, loop, fd, LOOP_READ, client_ready, &fd))
        abort();
    loop_run(loop);
    loop_watch_destroy(watch);
    close(fd);
    if (http_server_live(server) || mem_live() > before + 2) abort();
    return 0;
}
