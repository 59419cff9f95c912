/* Names of peers and the addresses behind them. */
#include "xfer/core.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

enum { LISTEN_BACKLOG = 128 };

/* "host", "v4", "[v6]" before the last ':' and a port of 0..65535. */
int addr_split(const char *name, char host[HOST_MAX], uint16_t *port,
               struct why *why)
{
    const char *colon = strrchr(name, ':');
    const char *from = name, *to = colon;
    if (!colon) goto bad;
    if (*name == '[') {
        from = name + 1;
        to = colon - 1;
        if (to < from || *to != ']') goto bad;
    } else if (memchr(name, ':', (size_t)(colon - name))) {
        goto bad; /* an IPv6 address without brackets */
    }
    if (to == from || to - from >= HOST_MAX) goto bad;
    for (const char *p = from; p < to; p++)
        if (*p <= ' ' || *p >= 127 || *p == '[' || *p == ']') goto bad;
    char *end;
    if (colon[1] < '0' || colon[1] > '9') goto bad;
    unsigned long n = strtoul(colon + 1, &end, 10);
    if (*end || n > 65535) goto bad;
    memcpy(host, from, (size_t)(to - from));
    host[to - from] = 0;
    *port = (uint16_t)n;
    return 0;
bad:
    return err_set(why, ERR_INVALID, "\"%.100s\" is not host:port or [v6]:port",
                   name);
}

void addr_join(const char *host, uint16_t port, char *out, size_t n)
{
    snprintf(out, n, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
}

enum { PASS_DIGITS = 16 };

uint64_t addr_pass_take(const char **name)
{
    uint64_t pass = 0;
    for (int i = 0; i < PASS_DIGITS; i++) {
        char c = (*name)[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                           : -1;
        if (digit < 0) return 0;
        pass = pass << 4 | (uint64_t)digit;
    }
    if ((*name)[PASS_DIGITS] != '@') return 0;
    *name += PASS_DIGITS + 1;
    return pass;
}

void addr_pass_put(uint64_t pass, const char *name, char *out, size_t n)
{
    if (pass)
        snprintf(out, n, "%0*llx@%s", PASS_DIGITS, (unsigned long long)pass,
                 name);
    else
        snprintf(out, n, "%s", name);
}

static int resolve(const char *host, uint16_t port, int flags, struct addr *out)
{
    char service[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV | flags};
    struct addrinfo *list;
    snprintf(service, sizeof service, "%u", port);
    int e = getaddrinfo(host, service, &hints, &list);
    if (e) return e;
    memcpy(&out->ss, list->ai_addr, list->ai_addrlen);
    out->bytes = list->ai_addrlen;
    freeaddrinfo(list);
    return 0;
}

int addr_numeric(const char *host, uint16_t port, struct addr *out)
{
    return resolve(host, port, AI_NUMERICHOST, out) ? ERR_NOT_FOUND : 0;
}

int addr_resolve(const char *host, uint16_t port, struct addr *out,
                 struct why *why)
{
    int e = resolve(host, port, 0, out);
    if (!e) return 0;
    return err_set(why, ERR_NOT_FOUND, "host \"%s\": %s", host,
                   gai_strerror(e));
}

void addr_unix(const struct xfer_epoch *epoch, struct addr *out)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int n = snprintf(un.sun_path + 1, sizeof un.sun_path - 1, "baton-xfer-");
    for (size_t i = 0; i < sizeof epoch->bytes; i++)
        n += snprintf(un.sun_path + 1 + n, 3, "%02x", epoch->bytes[i]);
    memcpy(&out->ss, &un, sizeof un);
    out->bytes =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

int addr_listen(const struct addr *addr, const char *what, struct why *why)
{
    int one = 1;
    int fd = socket(addr->ss.ss_family,
                    SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return err_sys(why, ERR_IO, errno, "socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (const struct sockaddr *)&addr->ss, addr->bytes) ||
        listen(fd, LISTEN_BACKLOG)) {
        int rc = errno == EADDRINUSE ? ERR_EXISTS : ERR_IO;
        err_sys(why, rc, errno, "cannot listen on %s", what);
        close(fd);
        return rc;
    }
    return fd;
}

uint16_t addr_port_of(int fd)
{
    struct sockaddr_storage ss = {0};
    socklen_t n = sizeof ss;
    getsockname(fd, (struct sockaddr *)&ss, &n);
    return ntohs(ss.ss_family == AF_INET
                     ? ((struct sockaddr_in *)&ss)->sin_port
                     : ((struct sockaddr_in6 *)&ss)->sin6_port);
}
