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
    {"ucx", XFER_VIA_UCX | XFER_VIA_TCP, 1, "ucx, libucp"},
    {"all", XFER_VIA_ALL, 0, "memfd mapping"},
};
enum { WAY_COUNT = sizeof ways / sizeof *ways };

/* What a target needs for an initiator that goes these ways. */
static inline unsigned target_via(unsigned via)
{
    return XFER_VIA_ALL | (via & (XFER_VIA_RDMA | XFER_VIA_UCX));
}

/* Takes those out whose library is not installed, with a line that says so;
 * returns how many are left. */
static inline size_t vias_here(unsigned *vias, size_t count)
{
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        struct xfer_options opt = {.via = vias[i]};
        struct why why = {0};
        struct xfer *x;
        int rc = xfer_open(&x, &opt, &why);
        xfer_close(x);
        if (rc == ERR_UNSUPPORTED)
            fprintf(stderr, "left out: %s\n", why.text);
        else
            vias[left++] = vias[i];
    }
    return left;
}

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
