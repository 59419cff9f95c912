#include "xfer/wire.h"

#include <string.h>

static const char magic[8] = {'B', 'A', 'T', 'O', 'N', 'X', 'F', 'R'};

void wire_put(uint8_t *out, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

uint64_t wire_get(const uint8_t *in, size_t bytes)
{
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value |= (uint64_t)in[i] << (8 * i);
    return value;
}

size_t wire_body_bytes(const struct wire_header *h)
{
    switch (h->type) {
    case WIRE_HELLO:
    case WIRE_WELCOME:
    case WIRE_PROOF:
    case WIRE_READY:
    case WIRE_OFFER:
    case WIRE_ACCEPT:
    case WIRE_NOTE: return h->bytes;
    case WIRE_WRITE:
    case WIRE_READ: return (size_t)h->count * WIRE_DESC;
    case WIRE_REGION: return WIRE_REGION_BODY;
    case WIRE_KEYS: return WIRE_REGION_BODY + (size_t)h->count;
    default: return 0;
    }
}

void wire_header_encode(const struct wire_header *h, uint8_t *out)
{
    out[0] = h->type;
    out[1] = h->flags;
    wire_put(out + 2, 0, 2);
    wire_put(out + 4, h->count, 4);
    wire_put(out + 8, h->id, 8);
    wire_put(out + 16, h->bytes, 8);
    wire_put(out + 24, h->aux, 8);
}

/* What each type may say; the sums are looked at with the body. */
static int header_check(const struct wire_header *h, struct why *why)
{
    bool good = true;
    switch (h->type) {
    case WIRE_HELLO:
    case WIRE_WELCOME: good = h->bytes <= WIRE_HANDSHAKE_MAX; break;
    case WIRE_PROOF: good = h->bytes == WIRE_MAC; break;
    case WIRE_READY:
        good = h->count ? h->bytes <= WIRE_TEXT_MAX : h->bytes == WIRE_MAC;
        break;
    case WIRE_WRITE:
    case WIRE_READ:
        good = h->count >= 1 && h->count <= WIRE_DESCS_MAX && h->bytes >= 1 &&
               h->bytes <= WIRE_PAYLOAD_MAX;
        break;
    case WIRE_NOTE: good = h->bytes <= XFER_NOTE_MAX; break;
    case WIRE_OFFER:
    case WIRE_ACCEPT: good = h->bytes <= WIRE_FABRIC_MAX; break;
    case WIRE_KEYS:
        good = h->bytes >= 1 && h->aux <= UINT64_MAX - h->bytes &&
               h->count <= WIRE_KEY_MAX;
        break;
    case WIRE_DATA: good = h->bytes >= 1 && h->bytes <= WIRE_PAYLOAD_MAX; break;
    case WIRE_REGION:
        good = h->bytes >= 1 && h->aux <= UINT64_MAX - h->bytes;
        break;
    case WIRE_PING:
    case WIRE_PONG:
    case WIRE_DONE:
    case WIRE_FENCE:
    case WIRE_REGIONS:
    case WIRE_DROP:
    case WIRE_GONE: break;
    default: return err_set(why, ERR_FORMAT, "frame of type %u", h->type);
    }
    if (good) return 0;
    return err_set(why, ERR_FORMAT,
                   "frame of type %u with count %u and %llu bytes", h->type,
                   h->count, (unsigned long long)h->bytes);
}

int wire_header_decode(struct wire_header *h, const uint8_t *in,
                       struct why *why)
{
    h->type = in[0];
    h->flags = in[1];
    h->count = (uint32_t)wire_get(in + 4, 4);
    h->id = wire_get(in + 8, 8);
    h->bytes = wire_get(in + 16, 8);
    h->aux = wire_get(in + 24, 8);
    bool may_carry = h->type == WIRE_FENCE || h->type == WIRE_REGION;
    if (wire_get(in + 2, 2) || h->flags & ~WIRE_HAS_FD ||
        (h->flags && !may_carry))
        return err_set(why, ERR_FORMAT, "frame header is damaged");
    return header_check(h, why);
}

void wire_desc_encode(const struct wire_desc *d, uint8_t *out)
{
    wire_put(out, d->addr, 8);
    wire_put(out + 8, d->bytes, 8);
    wire_put(out + 16, d->pitch, 8);
    wire_put(out + 24, d->rows, 4);
    wire_put(out + 28, 0, 4);
}

static int desc_check(const struct wire_desc *d)
{
    uint64_t last = 0, end;
    if (d->rows == 0 || d->bytes == 0) return ERR_FORMAT;
    if (d->rows > 1) {
        if (d->pitch < d->bytes) return ERR_FORMAT;
        if (__builtin_mul_overflow(d->pitch, (uint64_t)d->rows - 1, &last))
            return ERR_FORMAT;
    }
    if (__builtin_add_overflow(last, d->bytes, &end)) return ERR_FORMAT;
    return d->addr > UINT64_MAX - end ? ERR_FORMAT : 0;
}

uint64_t wire_desc_span(const struct wire_desc *d)
{
    return d->rows > 1 ? d->pitch * (d->rows - 1) + d->bytes : d->bytes;
}

int wire_descs_decode(struct wire_desc *out, size_t count, const uint8_t *in,
                      uint64_t *sum, struct why *why)
{
    *sum = 0;
    for (size_t i = 0; i < count; i++, in += WIRE_DESC) {
        out[i] = (struct wire_desc){.addr = wire_get(in, 8),
                                    .bytes = wire_get(in + 8, 8),
                                    .pitch = wire_get(in + 16, 8),
                                    .rows = (uint32_t)wire_get(in + 24, 4)};
        uint64_t bytes;
        if (desc_check(&out[i]) || wire_get(in + 28, 4) ||
            __builtin_mul_overflow(out[i].bytes, (uint64_t)out[i].rows,
                                   &bytes) ||
            __builtin_add_overflow(*sum, bytes, sum))
            return err_set(why, ERR_FORMAT, "descriptor %zu is malformed", i);
    }
    return 0;
}

void wire_want_set_pass(struct xfer_epoch *want, uint64_t pass)
{
    memset(want, 0, sizeof *want);
    wire_put(want->bytes, pass, 8);
}

uint64_t wire_want_pass(const struct xfer_epoch *want)
{
    return wire_get(want->bytes + 8, 8) ? 0 : wire_get(want->bytes, 8);
}

size_t wire_hello_encode(const struct wire_hello *h, uint8_t *out)
{
    size_t name_bytes = strlen(h->name);
    memcpy(out, magic, 8);
    wire_put(out + 8, h->version, 2);
    out[10] = h->kind;
    out[11] = h->lane;
    wire_put(out + 12, h->heartbeat_ms, 4);
    memcpy(out + 16, h->epoch.bytes, 16);
    memcpy(out + 32, h->want.bytes, 16);
    memcpy(out + 48, h->nonce, WIRE_NONCE);
    wire_put(out + 80, h->link, 8);
    wire_put(out + 88, name_bytes, 2);
    memcpy(out + 90, h->name, name_bytes);
    return 90 + name_bytes;
}

int wire_hello_decode(struct wire_hello *h, const uint8_t *in, size_t n,
                      struct why *why)
{
    if (n < 90 || memcmp(in, magic, 8) != 0)
        return err_set(why, ERR_FORMAT, "not a transfer engine's hello");
    size_t name_bytes = wire_get(in + 88, 2);
    h->version = (uint16_t)wire_get(in + 8, 2);
    h->kind = in[10];
    h->lane = in[11];
    h->heartbeat_ms = (uint32_t)wire_get(in + 12, 4);
    if (h->version < 1 || h->kind > WIRE_DIRECT || h->heartbeat_ms < 1 ||
        h->heartbeat_ms > 3600000 || name_bytes > WIRE_NAME_MAX ||
        name_bytes != n - 90)
        return err_set(why, ERR_FORMAT, "hello is malformed");
    memcpy(h->epoch.bytes, in + 16, 16);
    memcpy(h->want.bytes, in + 32, 16);
    memcpy(h->nonce, in + 48, WIRE_NONCE);
    h->link = wire_get(in + 80, 8);
    for (size_t i = 0; i < name_bytes; i++)
        if (in[90 + i] <= ' ' || in[90 + i] >= 127)
            return err_set(why, ERR_FORMAT, "hello with a malformed name");
    memcpy(h->name, in + 90, name_bytes);
    h->name[name_bytes] = 0;
    return 0;
}

void wire_welcome_encode(const struct wire_welcome *w, uint8_t *out)
{
    memcpy(out, magic, 8);
    wire_put(out + 8, w->version, 2);
    wire_put(out + 10, 0, 6);
    memcpy(out + 16, w->epoch.bytes, 16);
    memcpy(out + 32, w->nonce, WIRE_NONCE);
}

int wire_welcome_decode(struct wire_welcome *w, const uint8_t *in, size_t n,
                        struct why *why)
{
    if (n != WIRE_WELCOME_BODY || memcmp(in, magic, 8) != 0)
        return err_set(why, ERR_FORMAT, "not a transfer engine's welcome");
    w->version = (uint16_t)wire_get(in + 8, 2);
    memcpy(w->epoch.bytes, in + 16, 16);
    memcpy(w->nonce, in + 32, WIRE_NONCE);
    if (w->version != WIRE_VERSION)
        return err_set(why, ERR_UNSUPPORTED, "peer speaks version %u",
                       w->version);
    return 0;
}

void wire_region_encode(const struct wire_region *r, uint8_t *out)
{
    wire_put(out, r->key, 8);
    wire_put(out + 8, r->access, 4);
    wire_put(out + 12, 0, 4);
}

int wire_region_decode(struct wire_region *r, const struct wire_header *h,
                       const uint8_t *in, struct why *why)
{
    r->key = wire_get(in, 8);
    r->access = (uint32_t)wire_get(in + 8, 4);
    if (r->access & ~(uint32_t)(XFER_REMOTE_READ | XFER_REMOTE_WRITE) ||
        wire_get(in + 12, 4) || h->bytes > SIZE_MAX >> 1)
        return err_set(why, ERR_FORMAT, "region is malformed");
    return 0;
}

enum { RDMA_BYTES = 40 };

size_t wire_rdma_encode(const struct wire_rdma *a, uint8_t *out)
{
    wire_put(out, a->qp_num, 4);
    wire_put(out + 4, a->psn, 4);
    wire_put(out + 8, a->flush_key, 4);
    wire_put(out + 12, a->lid, 2);
    out[14] = a->mtu;
    out[15] = a->ethernet;
    wire_put(out + 16, a->flush_addr, 8);
    memcpy(out + 24, a->gid, sizeof a->gid);
    return RDMA_BYTES;
}

int wire_rdma_decode(struct wire_rdma *a, const uint8_t *in, size_t n,
                     struct why *why)
{
    if (n != RDMA_BYTES || in[14] < 1 || in[14] > 5 || in[15] > 1)
        return err_set(why, ERR_FORMAT, "RDMA address is malformed");
    a->qp_num = (uint32_t)wire_get(in, 4);
    a->psn = (uint32_t)wire_get(in + 4, 4);
    a->flush_key = (uint32_t)wire_get(in + 8, 4);
    a->lid = (uint16_t)wire_get(in + 12, 2);
    a->mtu = in[14];
    a->ethernet = in[15];
    a->flush_addr = wire_get(in + 16, 8);
    memcpy(a->gid, in + 24, sizeof a->gid);
    if (a->qp_num >> 24 || a->psn >> 24)
        return err_set(why, ERR_FORMAT, "RDMA address is malformed");
    return 0;
}
