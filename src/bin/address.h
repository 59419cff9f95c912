/* bin/address.h - an address of this machine that others may reach.
 *
 * Any thread. */
#ifndef BATON_BIN_ADDRESS_H
#define BATON_BIN_ADDRESS_H

#include <stddef.h>

/* Writes the first IPv4 address of an interface that is up and no loopback,
 * else the first such global IPv6 address, else 127.0.0.1. n >= 46. */
void address_find(char *out, size_t n);

#endif
