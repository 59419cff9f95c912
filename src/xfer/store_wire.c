#include "xfer/store_wire.h"

#include "xfer/core.h"
#include "xfer/hmac.h"

#include <string.h>

static const char magic[8] = {'B', 'A', 'T', 'O', 'N', 'K', 'V', '2'};
enum { REQUEST_FIXED = 16, ANSWER_FIXED = 16 };

int store_header_decode(struct store_header *h, const uint8_t *in,
                        struct why *why)
{
    h->body_bytes = (uint32_t)wire_get(in, 4);
    h->op = in[4];
    h->id = wire_get(in + 8, 8);
    bool known = h->op <= STORE_OP_ANSWER ||
                 (h->op >= STORE_OP_SET && h->op <= STORE_OP_BEAT);
    if (h->op == STORE_OP_BEAT && h->body_bytes) known = false;
    if (!known || wire_get(in + 5, 3) || h->body_bytes > STORE_BODY_MAX)
        return err_set(why, ERR_FORMAT,
                       "not a config store's frame (type %u, %u bytes)", h->op,
                       h->body_bytes);
    return 0;
}

int store_request_decode(struct store_request *r, enum store_op op,
                         const uint8_t *body, size_t n, struct why *why)
{
    *r = (struct store_request){0};
    if (n < REQUEST_FIXED) return err_set(why, ERR_FORMAT, "short request");
    r->number = (int64_t)wire_get(body, 8);
    r->value_bytes = wire_get(body + 8, 4);
    r->key_bytes = wire_get(body + 12, 2);
    n -= REQUEST_FIXED;
    if (wire_get(body + 14, 2) || r->key_bytes < 1 ||
        r->key_bytes > STORE_KEY_MAX || r->key_bytes > n ||
        r->value_bytes > n - r->key_bytes || r->value_bytes > STORE_VALUE_MAX)
        return err_set(why, ERR_FORMAT, "malformed request");
    r->second_bytes = n - r->key_bytes - r->value_bytes;
    if (r->second_bytes > STORE_VALUE_MAX ||
        (op != STORE_OP_CAS && r->second_bytes))
        return err_set(why, ERR_FORMAT, "request with too many bytes");
    r->key = (const char *)body + REQUEST_FIXED;
    r->value = r->key + r->key_bytes;
    r->second = r->value + r->value_bytes;
    if (memchr(r->key, 0, r->key_bytes))
        return err_set(why, ERR_FORMAT, "key with a 0 byte");
    return 0;
}

int store_answer_decode(struct store_answer *a, const uint8_t *body, size_t n,
                        struct why *why)
{
    if (n < ANSWER_FIXED) return err_set(why, ERR_FORMAT, "short answer");
    a->rc = (int32_t)wire_get(body, 4);
    a->number = (int64_t)wire_get(body + 8, 8);
    a->value = (const char *)body + ANSWER_FIXED;
    a->value_bytes = n - ANSWER_FIXED;
    if (a->rc > 0 || a->rc <= -ERR_COUNT_ || wire_get(body + 4, 4))
        return err_set(why, ERR_FORMAT, "malformed answer");
    return 0;
}

/* The header and room for the body; NULL when out is full. */
static uint8_t *frame_begin(struct buf *out, enum store_op op, uint64_t id,
                            size_t body_bytes)
{
    uint8_t *at = (uint8_t *)buf_grow(out, STORE_HEADER + body_bytes);
    if (!at) return NULL;
    out->len += STORE_HEADER + body_bytes;
    wire_put(at, body_bytes, 4);
    wire_put(at + 4, op, 4);
    wire_put(at + 8, id, 8);
    return at + STORE_HEADER;
}

static uint8_t *put_bytes(uint8_t *at, const void *bytes, size_t n)
{
    if (n) memcpy(at, bytes, n);
    return at + n;
}

void store_request_encode(struct buf *out, enum store_op op, uint64_t id,
                          const struct store_request *r)
{
    uint8_t *at = frame_begin(out, op, id,
                              REQUEST_FIXED + r->key_bytes + r->value_bytes +
                                  r->second_bytes);
    if (!at) return;
    wire_put(at, (uint64_t)r->number, 8);
    wire_put(at + 8, r->value_bytes, 4);
    wire_put(at + 12, r->key_bytes, 4);
    at = put_bytes(at + REQUEST_FIXED, r->key, r->key_bytes);
    at = put_bytes(at, r->value, r->value_bytes);
    put_bytes(at, r->second, r->second_bytes);
}

void store_answer_encode(struct buf *out, uint64_t id,
                         const struct store_answer *a)
{
    uint8_t *at =
        frame_begin(out, STORE_OP_ANSWER, id, ANSWER_FIXED + a->value_bytes);
    if (!at) return;
    wire_put(at, (uint64_t)(int64_t)a->rc, 4);
    wire_put(at + 4, 0, 4);
    wire_put(at + 8, (uint64_t)a->number, 8);
    put_bytes(at + ANSWER_FIXED, a->value, a->value_bytes);
}

void store_beat_encode(struct buf *out, uint64_t id)
{
    frame_begin(out, STORE_OP_BEAT, id, 0);
}

void store_greeting_encode(struct buf *out, const uint8_t *nonce)
{
    uint8_t *at = frame_begin(out, STORE_OP_GREETING, 0, STORE_GREETING);
    if (at) put_bytes(put_bytes(at, magic, 8), nonce, STORE_NONCE);
}

int store_greeting_decode(const struct store_header *h, const uint8_t *body,
                          uint8_t *nonce, struct why *why)
{
    if (h->op != STORE_OP_GREETING || h->body_bytes != STORE_GREETING ||
        memcmp(body, magic, 8) != 0)
        return err_set(why, ERR_FORMAT, "not a config store");
    memcpy(nonce, body + 8, STORE_NONCE);
    return 0;
}

void store_hello_encode(struct buf *out, uint64_t id, const uint8_t *nonce,
                        const uint8_t *mac)
{
    uint8_t *at = frame_begin(out, STORE_OP_HELLO, id, STORE_HELLO);
    if (!at) return;
    at = put_bytes(put_bytes(at, magic, 8), nonce, STORE_NONCE);
    put_bytes(at, mac, STORE_MAC);
}

int store_hello_decode(const struct store_header *h, const uint8_t *body,
                       uint8_t *nonce, uint8_t *mac, struct why *why)
{
    if (h->op != STORE_OP_HELLO || h->body_bytes != STORE_HELLO ||
        memcmp(body, magic, 8) != 0)
        return err_set(why, ERR_FORMAT, "not a config store's client");
    memcpy(nonce, body + 8, STORE_NONCE);
    memcpy(mac, body + 8 + STORE_NONCE, STORE_MAC);
    return 0;
}

void store_proof(const char *token, char role, const uint8_t *server_nonce,
                 const uint8_t *client_nonce, uint8_t *mac)
{
    struct hmac_piece pieces[] = {
        {&role, 1}, {server_nonce, STORE_NONCE}, {client_nonce, STORE_NONCE}};
    hmac_sha256(token, strlen(token), pieces, 3, mac);
}

int store_url_split(const char *url, char *host, uint16_t *port,
                    struct why *why)
{
    if (strncmp(url, "tcp://", 6) == 0 &&
        addr_split(url + 6, host, port, NULL) == 0)
        return 0;
    return err_set(why, ERR_INVALID,
                   "config store \"%.200s\" is not tcp://host:port", url);
}
