/* Any bytes that a server answers must end in exactly one on_done. */
#include "base/mem.h"
#include "http/client.h"
#include "http/loop.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct loop *loop;
static struct http_client *client;
static int listener;
static char url[64];
static const uint8_t *input;
static size_t input_size;
static int done, headers;

static void start(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&at, len) || listen(listener, 8) ||
        getsockname(listener, (struct sockaddr *)&at, &len) ||
        loop_create(&loop, NULL) || http_client_open(&client, loop, NULL))
        abort();
    snprintf(url, sizeof url, "http://127.0.0.1:%d/", ntohs(at.sin_port));
}

static struct loop_watch *asked;
static int peer;

/* Answers the whole input and hangs up. */
static void answer(void *arg, unsigned ready)
{
    (void)arg;
    (void)ready;
    char sink[1024];
    if (recv(peer, sink, sizeof sink, 0) < 0) abort();
    send(peer, input, input_size, MSG_NOSIGNAL);
    loop_watch_destroy(asked);
    close(peer);
}

static void accepted(void *arg, unsigned ready)
{
    (void)arg;
    (void)ready;
    peer = accept(listener, NULL, NULL);
    if (peer < 0 ||
        loop_watch_create(&asked, loop, peer, LOOP_READ, answer, NULL))
        abort();
}

static void on_headers(void *arg, struct http_call *call, int status)
{
    (void)arg;
    if (status < 200 || headers++) abort();
    struct http_header h;
    size_t total = 0;
    for (size_t at = 0; http_call_header_next(call, &at, &h);)
        total += strlen(h.name) + strlen(h.value);
    if (total > 1 << 20) abort();
}

static void on_data(void *arg, struct http_call *call, const void *bytes,
                    size_t n)
{
    (void)arg;
    (void)call;
    if (!headers || !n || !bytes) abort();
}

static void on_done(void *arg, struct http_call *call,
                    const struct http_result *result)
{
    (void)arg;
    (void)call;
    if (done++ || (result->rc == 0 && result->status < 200)) abort();
    loop_stop(loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!client) start();
    size_t before = mem_live();
    input = data;
    input_size = size > 32768 ? 32768 : size;
    done = headers = 0;
    struct loop_watch *watch;
    struct http_call_options o = {
        .url = url,
        .total_ms = 5000,
        .on_headers = on_headers,
        .on_data = on_data,
        .on_done = on_done,
    };
    if (loop_watch_create(&watch, loop, listener, LOOP_READ, accepted, NULL) ||
        http_call(client, &o, NULL))
        abort();
    loop_run(loop);
    loop_watch_destroy(watch);
    /* libcurl may keep a watch of an idle connection. */
    if (done != 1 || mem_live() > before + 2) abort();
    return 0;
}
