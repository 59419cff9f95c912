/* tests/port.h - ports that nobody has. */
#ifndef BATON_TESTS_PORT_H
#define BATON_TESTS_PORT_H

#include "base/clock.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>
#include <unistd.h>

/* A port that was free a moment ago, below those that the kernel hands out by
 * itself, which any process may get meanwhile. */
static inline uint16_t free_port(void)
{
    for (;;) {
        uint16_t port = (uint16_t)(16000 + random_u64() % 16000);
        struct sockaddr_in in = {.sin_family = AF_INET,
                                 .sin_port = htons(port),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int taken = bind(fd, (struct sockaddr *)&in, sizeof in);
        close(fd);
        if (!taken) return port;
    }
}

#endif
