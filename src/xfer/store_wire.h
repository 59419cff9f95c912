/* xfer/store_wire.h - frames of the config store (docs/wire.md). Pure
 * functions; decoders take bytes of strangers. */
#ifndef BATON_XFER_STORE_WIRE_H
#define BATON_XFER_STORE_WIRE_H

#include "base/buf.h"
#include "base/err.h"
#include "xfer/xfer.h"

enum {
    STORE_HEADER = 16,
    STORE_NONCE = 32,
    STORE_MAC = 32,
    STORE_GREETING = 8 + STORE_NONCE,
    STORE_HELLO = 8 + STORE_NONCE + STORE_MAC,
    STORE_KEY_MAX = 1024,
    STORE_VALUE_MAX = 10 << 20,
    STORE_BODY_MAX = STORE_VALUE_MAX + 4096,
    STORE_BEAT_MS = 1000,    /* a client says something that often ... */
    STORE_SILENCE_MS = 5000, /* ... and who is silent that long is dead */
};
enum store_op {
    STORE_OP_GREETING,
    STORE_OP_HELLO,
    STORE_OP_ANSWER,
    STORE_OP_SET = 16,
    STORE_OP_GET,
    STORE_OP_ADD,
    STORE_OP_REMOVE,
    STORE_OP_APPEND,
    STORE_OP_CAS,
    STORE_OP_WRITE,
    STORE_OP_ANNOUNCE,
    STORE_OP_LEFT,
    STORE_OP_BEAT,
};

struct store_header {
    uint32_t body_bytes;
    uint8_t op;
    uint64_t id;
};
int store_header_decode(struct store_header *h, const uint8_t *in,
                        struct why *why);

struct store_request { /* pointers into the frame */
    int64_t number;
    const char *key, *value, *second;
    size_t key_bytes, value_bytes, second_bytes;
};
int store_request_decode(struct store_request *r, enum store_op op,
                         const uint8_t *body, size_t n, struct why *why);

struct store_answer {
    int rc;
    int64_t number;
    const char *value;
    size_t value_bytes;
};
int store_answer_decode(struct store_answer *a, const uint8_t *body, size_t n,
                        struct why *why);

/* Whole frames appended to out; out->failed when there is no room. */
void store_request_encode(struct buf *out, enum store_op op, uint64_t id,
                          const struct store_request *r);
void store_answer_encode(struct buf *out, uint64_t id,
                         const struct store_answer *a);
void store_beat_encode(struct buf *out, uint64_t id); /* no body */
void store_greeting_encode(struct buf *out, const uint8_t *nonce);
int store_greeting_decode(const struct store_header *h, const uint8_t *body,
                          uint8_t *nonce, struct why *why);
void store_hello_encode(struct buf *out, uint64_t id, const uint8_t *nonce,
                        const uint8_t *mac);
int store_hello_decode(const struct store_header *h, const uint8_t *body,
                       uint8_t *nonce, uint8_t *mac, struct why *why);

/* role 'I' or 'T' */
void store_proof(const char *token, char role, const uint8_t *server_nonce,
                 const uint8_t *client_nonce, uint8_t *mac);

/* "tcp://host:port" into its parts. */
int store_url_split(const char *url, char *host, uint16_t *port,
                    struct why *why);

#endif
