/* Names of peers and the addresses behind them. */
#include "xfer/core.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

/* "host", "v4", "[v6]" before the last ':' and a port of 1..65535. */
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
    if (*end || n < 1 || n > 65535) goto bad;
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
