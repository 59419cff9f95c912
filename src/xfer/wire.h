/* xfer/wire.h - frames of the transfer protocol, encoded and decoded.
 *
 * Pure functions over bytes; docs/wire.md, "xfer frames", is the text. Every
 * decoder takes bytes of a stranger: it checks types, sums and limits, and
 * returns ERR_FORMAT for what no honest peer sends. */
#ifndef BATON_XFER_WIRE_H
#define BATON_XFER_WIRE_H

#include "base/err.h"
#include "xfer/xfer.h"

#include <stddef.h>
#include <stdint.h>

enum {
    WIRE_VERSION = 1,
    WIRE_HEADER = 32,
    WIRE_DESC = 32,
    WIRE_REGION_BODY = 16,
    WIRE_FABRIC_MAX = 4096, /* address of an end of a fabric */
    WIRE_KEY_MAX = 400,     /* a fabric's key of memory      */
    WIRE_MAC = 32,
    WIRE_NONCE = 32,
    WIRE_WELCOME_BODY = 64,
    WIRE_DESCS_MAX = 1024,
    WIRE_PAYLOAD_MAX = 16 << 20,
    WIRE_HANDSHAKE_MAX = 512,
    WIRE_TEXT_MAX = 400,
    WIRE_NAME_MAX = XFER_NAME_MAX,
    WIRE_HELLO_MAX = 90 + WIRE_NAME_MAX,
    WIRE_BODY_MAX = WIRE_DESCS_MAX * WIRE_DESC,
};

enum wire_type {
    WIRE_HELLO = 1,
    WIRE_WELCOME,
    WIRE_PROOF,
    WIRE_READY,
    WIRE_PING,
    WIRE_PONG,
    WIRE_WRITE,
    WIRE_READ,
    WIRE_DATA,
    WIRE_DONE,
    WIRE_NOTE,
    WIRE_FENCE = 16,
    WIRE_REGION,
    WIRE_REGIONS,
    WIRE_DROP,
    WIRE_GONE,
    WIRE_OFFER = 24,
    WIRE_ACCEPT,
    WIRE_KEYS,
};
enum { WIRE_HAS_FD = 1 }; /* flags */

struct wire_header {
    uint8_t type, flags;
    uint32_t count;
    uint64_t id, bytes, aux;
};

/* Bytes of descriptors or handshake body behind the header (0: none). */
size_t wire_body_bytes(const struct wire_header *h);
void wire_header_encode(const struct wire_header *h, uint8_t *out);
int wire_header_decode(struct wire_header *h, const uint8_t *in,
                       struct why *why);

struct wire_desc {
    uint64_t addr, bytes, pitch; /* bytes: of a row */
    uint32_t rows;
};
void wire_desc_encode(const struct wire_desc *d, uint8_t *out);
/* count descriptors; out has room for them, *sum gets the bytes of all rows. */
int wire_descs_decode(struct wire_desc *out, size_t count, const uint8_t *in,
                      uint64_t *sum, struct why *why);
/* From the first byte to behind the last. The descriptor was decoded. */
uint64_t wire_desc_span(const struct wire_desc *d);

enum wire_kind { WIRE_CONTROL, WIRE_DATA_LANE, WIRE_DIRECT };
struct wire_hello {
    uint16_t version;
    uint8_t kind, lane;
    uint32_t heartbeat_ms;
    struct xfer_epoch epoch, want;
    uint8_t nonce[WIRE_NONCE];
    uint64_t link;
    char name[WIRE_NAME_MAX + 1];
};
/* A pass in the place of an epoch: its number, then zeros. 0: there is none. */
void wire_want_set_pass(struct xfer_epoch *want, uint64_t pass);
uint64_t wire_want_pass(const struct xfer_epoch *want);
/* Returns the bytes written, at most WIRE_HELLO_MAX. */
size_t wire_hello_encode(const struct wire_hello *h, uint8_t *out);
int wire_hello_decode(struct wire_hello *h, const uint8_t *in, size_t n,
                      struct why *why);

struct wire_welcome {
    uint16_t version;
    struct xfer_epoch epoch;
    uint8_t nonce[WIRE_NONCE];
};
void wire_welcome_encode(const struct wire_welcome *w, uint8_t *out);
int wire_welcome_decode(struct wire_welcome *w, const uint8_t *in, size_t n,
                        struct why *why);

struct wire_region {
    uint64_t key;
    uint32_t access;
};
void wire_region_encode(const struct wire_region *r, uint8_t *out);
int wire_region_decode(struct wire_region *r, const struct wire_header *h,
                       const uint8_t *in, struct why *why);

/* Where one end of an RDMA connection is reached: queue pair, first packet
 * number, path, and eight bytes that may be read. */
struct wire_rdma {
    uint32_t qp_num, psn, flush_key;
    uint16_t lid;
    uint8_t mtu; /* 1 .. 5: 256 << (mtu - 1) bytes */
    bool ethernet;
    uint64_t flush_addr;
    uint8_t gid[16];
};
size_t wire_rdma_encode(const struct wire_rdma *a, uint8_t *out);
int wire_rdma_decode(struct wire_rdma *a, const uint8_t *in, size_t n,
                     struct why *why);

/* Little-endian numbers at any address. */
void wire_put(uint8_t *out, uint64_t value, size_t bytes);
uint64_t wire_get(const uint8_t *in, size_t bytes);

#endif
