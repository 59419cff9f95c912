#include "bin/address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>

/* The text of a usable address of that family; 0 where a is none. */
static int usable(const struct ifaddrs *a, int family, char *out, size_t n)
{
    if (!a->ifa_addr || a->ifa_addr->sa_family != family) return 0;
    if (!(a->ifa_flags & IFF_UP) || a->ifa_flags & IFF_LOOPBACK) return 0;
    const void *bytes;
    if (family == AF_INET) {
        bytes =
            &((const struct sockaddr_in *)(const void *)a->ifa_addr)->sin_addr;
    } else {
        const struct sockaddr_in6 *v6 = (const void *)a->ifa_addr;
        if (IN6_IS_ADDR_LINKLOCAL(&v6->sin6_addr)) return 0;
        bytes = &v6->sin6_addr;
    }
    return inet_ntop(family, bytes, out, (socklen_t)n) != NULL;
}

void address_find(char *out, size_t n)
{
    static const int families[] = {AF_INET, AF_INET6};
    struct ifaddrs *all = NULL;
    snprintf(out, n, "127.0.0.1");
    if (getifaddrs(&all)) return;
    int found = 0;
    for (int f = 0; f < 2 && !found; f++)
        for (struct ifaddrs *a = all; a && !found; a = a->ifa_next)
            found = usable(a, families[f], out, n);
    freeifaddrs(all);
}
