#include "http/dead_host.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

static void set(int fd, int level, int name, int value)
{
    setsockopt(fd, level, name, &value, sizeof value);
}

void dead_host_ask(int fd)
{
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, DEAD_HOST_QUIET_S);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, DEAD_HOST_ASK_S);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, DEAD_HOST_ASKS);
}

void dead_host_limit(int fd)
{
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, DEAD_HOST_SECONDS * 1000);
}
