/* bin/memory.h - how much memory this process may still take, and what kind
 * is wished for.
 *
 * What is left is the least of what the machine reports as available and what
 * the control group (v2 or v1) leaves. Any thread. */
#ifndef BATON_BIN_MEMORY_H
#define BATON_BIN_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint64_t memory_available(void); /* bytes; 0 when the system does not say */
uint64_t memory_total(void);

/* For kv_pool_options.may_grow: may bytes more be touched? No, when less than
 * a sixteenth of the machine (at most 1 GiB) would be left: a server that
 * shares its host refuses or evicts before the kernel kills somebody. */
bool memory_may_grow(void *unused, size_t bytes);

/* Where the pages of a KV cache should lie, before any is touched: on all
 * nodes in turn (base/nodes.h), and in huge ones, since a token's K and V are
 * far apart. Shared memory has those where the kernel's shmem_enabled says
 * "advise". A wish; slab is the start of a page. */
void memory_wish(void *slab, size_t bytes);

#endif
