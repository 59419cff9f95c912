/* tests/http/rig.h - a loop in a thread of its own, and raw sockets to talk to
 * what runs on it. Handlers report to the test through an inbox of words. */
#ifndef BATON_TESTS_HTTP_RIG_H
#define BATON_TESTS_HTTP_RIG_H

#include "tests/test.h"

#include "base/clock.h"
#include "base/inbox.h"
#include "http/loop.h"
#include "http/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

/* For the loop's thread, where cmocka's asserts cannot jump. */
#define CHECK(x)                                                            \
    do {                                                                    \
        if (!(x)) {                                                         \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #x); \
            abort();                                                        \
        }                                                                   \
    } while (0)

enum { RIG_WAIT_MS = 20000 }; /* a failure, never a pace */

struct rig {
    struct loop *loop;
    pthread_t thread;
    struct inbox *words; /* what handlers said: string literals */
    struct http_server *server;
    int port;
};

static inline void *rig_thread(void *arg)
{
    loop_run(arg);
    return NULL;
}

/* Before the thread starts nothing races: servers are opened in between. */
static inline void rig_init(struct rig *rig)
{
    memset(rig, 0, sizeof *rig);
    assert_int_equal(loop_create(&rig->loop, NULL), 0);
    assert_int_equal(inbox_create(&rig->words, 4096), 0);
}

static inline void rig_run(struct rig *rig)
{
    assert_int_equal(pthread_create(&rig->thread, NULL, rig_thread, rig->loop),
                     0);
}

static inline void rig_serve(struct rig *rig,
                             const struct http_server_options *options)
{
    struct why why = {0};
    rig_init(rig);
    if (http_server_open(&rig->server, rig->loop, options, &why))
        fail_msg("%s", why.text);
    rig->port = http_server_port(rig->server);
    rig_run(rig);
}

static inline void rig_join(struct rig *rig)
{
    loop_stop(rig->loop);
    pthread_join(rig->thread, NULL);
}

static inline void rig_fini(struct rig *rig)
{
    rig_join(rig);
    http_server_close(rig->server);
    loop_destroy(rig->loop);
    inbox_destroy(rig->words);
}

static inline void rig_say(struct rig *rig, const char *word)
{
    CHECK(inbox_put(rig->words, (void *)(uintptr_t)word) == 0);
}

static inline void rig_expect(struct rig *rig, const char *word)
{
    uint64_t until = clock_ms() + RIG_WAIT_MS;
    const char *said = NULL;
    while (!said && clock_ms() < until)
        said = inbox_wait(rig->words, 1000);
    if (!said) fail_msg("nothing said, expected %s", word);
    assert_string_equal(said, word);
}

/* --- raw sockets --- */

static inline int raw_connect(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&to, sizeof to))
        fail_msg("connect to %d: %s", port, strerror(errno));
    return fd;
}

static inline void raw_send(int fd, const char *text)
{
    size_t n = strlen(text);
    while (n) {
        ssize_t sent = send(fd, text, n, MSG_NOSIGNAL);
        assert_true(sent > 0);
        text += sent;
        n -= (size_t)sent;
    }
}

/* Reads until what came contains needle (NULL: until the peer closes).
 * Returns the text, valid until the next call. */
static inline const char *raw_read(int fd, const char *needle)
{
    static char text[1 << 20];
    size_t len = 0;
    for (;;) {
        text[len] = 0;
        if (needle && strstr(text, needle)) return text;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, RIG_WAIT_MS) <= 0)
            fail_msg("no \"%s\" in: %s", needle ? needle : "end", text);
        assert_true(len < sizeof text - 1);
        ssize_t n = recv(fd, text + len, sizeof text - 1 - len, 0);
        if (n <= 0) {
            if (needle) fail_msg("closed before \"%s\": %s", needle, text);
            return text;
        }
        len += (size_t)n;
    }
}

/* One request on a connection of its own, until the server closes. */
static inline const char *raw_ask(int port, const char *request)
{
    int fd = raw_connect(port);
    raw_send(fd, request);
    const char *answer = raw_read(fd, NULL);
    close(fd);
    return answer;
}

#endif
