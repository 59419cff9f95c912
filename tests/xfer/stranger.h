/* tests/xfer/stranger.h - somebody who dials a server of ours by hand. */
#ifndef BATON_TESTS_XFER_STRANGER_H
#define BATON_TESTS_XFER_STRANGER_H

#include "xfer/hmac.h"
#include "xfer/wire.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

static inline int stranger_dial(int port)
{
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof in), 0);
    return fd;
}

/* Waits until the other side has closed, whatever it says before. */
static inline void stranger_expect_closed(int fd)
{
    char bytes[256];
    while (recv(fd, bytes, sizeof bytes, 0) > 0) {
    }
    close(fd);
}

static inline void send_header(int fd, struct wire_header h)
{
    uint8_t bytes[WIRE_HEADER];
    wire_header_encode(&h, bytes);
    assert_int_equal(send(fd, bytes, sizeof bytes, MSG_NOSIGNAL), WIRE_HEADER);
}

static inline void recv_all(int fd, void *bytes, size_t n)
{
    assert_int_equal(recv(fd, bytes, n, MSG_WAITALL), n);
}

/* A connection of that kind with its handshake done, spoken by hand. The
 * header that READY had goes to *ready. */
static inline int speak(int port, enum wire_kind kind, uint64_t link,
                        struct wire_header *ready)
{
    struct wire_hello hello = {.version = 1,
                               .kind = (uint8_t)kind,
                               .heartbeat_ms = 60000,
                               .link = link,
                               .name = "by:1"};
    uint8_t body[WIRE_HELLO_MAX], welcome[WIRE_WELCOME_BODY], mac[WIRE_MAC];
    uint8_t header[WIRE_HEADER];
    int fd = stranger_dial(port);
    size_t n = wire_hello_encode(&hello, body);
    send_header(fd, (struct wire_header){.type = WIRE_HELLO, .bytes = n});
    assert_int_equal(send(fd, body, n, MSG_NOSIGNAL), n);
    recv_all(fd, header, sizeof header);
    recv_all(fd, welcome, sizeof welcome);
    struct hmac_piece pieces[] = {
        {"I", 1}, {body, n}, {welcome, sizeof welcome}};
    hmac_sha256("", 0, pieces, 3, mac);
    send_header(fd,
                (struct wire_header){.type = WIRE_PROOF, .bytes = WIRE_MAC});
    assert_int_equal(send(fd, mac, sizeof mac, MSG_NOSIGNAL), WIRE_MAC);
    recv_all(fd, header, sizeof header);
    assert_int_equal(wire_header_decode(ready, header, NULL), 0);
    if (ready->count == 0) recv_all(fd, mac, sizeof mac);
    return fd;
}

#endif
