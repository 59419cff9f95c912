/* tests/xfer/ways.h - the ways of the engine, as tests ask for them. */
#ifndef BATON_TESTS_XFER_WAYS_H
#define BATON_TESTS_XFER_WAYS_H

#include "xfer/xfer.h"

#include <sys/mman.h>

struct way {
    const char *name;
    unsigned via; /* of the initiator */
    int lanes;
    const char *explained; /* what xfer_peer_explain begins with */
};
static const struct way ways[] = {
    {"self", XFER_VIA_SELF, 1, "self"},
    {"memfd", XFER_VIA_MEMFD | XFER_VIA_TCP, 1, "memfd mapping"},
    {"cma", XFER_VIA_CMA | XFER_VIA_TCP, 1, "cma"},
    {"unix", XFER_VIA_UNIX, 2, "unix"},
    {"tcp", XFER_VIA_TCP, 1, "tcp, 1 lane"},
    {"lanes", XFER_VIA_TCP, 3, "tcp, 3 lanes"},
    {"rdma", XFER_VIA_RDMA | XFER_VIA_TCP, 1, "rdma, standin0 port 1"},
    {"all", XFER_VIA_ALL, 0, "memfd mapping"},
};
enum { WAY_COUNT = sizeof ways / sizeof *ways };

static inline char *bytes_new(size_t n)
{
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(p != MAP_FAILED);
    return p;
}

/* Random at first, then copies of it at an odd distance: quick to make. */
static inline void bytes_random(char *p, size_t n, uint64_t seed)
{
    enum { BLOCK = 16381 };
    for (size_t i = 0; i + 8 <= BLOCK + 8; i += 8) {
        uint64_t word = rng_next(&seed);
        memcpy(p + i, &word, 8);
    }
    for (size_t i = BLOCK; i < n; i += BLOCK)
        memcpy(p + i, p + i - BLOCK, n - i < BLOCK ? n - i : BLOCK);
}

#endif
