/* Frames of any bytes, as a peer would send them: each is refused, or says
 * nothing that the code behind it could be hurt by. */
#include "xfer/wire.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool fact)
{
    if (!fact) abort();
}

static void look_at_descs(const struct wire_header *h, const uint8_t *body)
{
    static struct wire_desc descs[WIRE_DESCS_MAX];
    uint64_t sum, rows_sum = 0;
    if (wire_descs_decode(descs, h->count, body, &sum, NULL)) return;
    for (uint32_t i = 0; i < h->count; i++) {
        must(descs[i].addr + wire_desc_span(&descs[i]) >= descs[i].addr);
        must(wire_desc_span(&descs[i]) >= descs[i].bytes);
        rows_sum += descs[i].bytes * descs[i].rows;
    }
    must(rows_sum == sum);
}

static void look_at(const struct wire_header *h, const uint8_t *body)
{
    struct why why = {0};
    struct wire_hello hello;
    struct wire_welcome welcome;
    struct wire_region region;
    struct wire_rdma rdma;
    uint8_t again[WIRE_HANDSHAKE_MAX];
    switch (h->type) {
    case WIRE_HELLO:
        if (wire_hello_decode(&hello, body, h->bytes, &why)) break;
        must(wire_hello_encode(&hello, again) == h->bytes);
        must(memcmp(again, body, h->bytes) == 0);
        break;
    case WIRE_WELCOME:
        wire_welcome_decode(&welcome, body, h->bytes, &why);
        break;
    case WIRE_KEYS:
    case WIRE_REGION: wire_region_decode(&region, h, body, &why); break;
    case WIRE_OFFER:
    case WIRE_ACCEPT:
        if (wire_rdma_decode(&rdma, body, h->bytes, &why)) break;
        must(wire_rdma_encode(&rdma, again) == h->bytes);
        must(memcmp(again, body, h->bytes) == 0);
        break;
    case WIRE_WRITE:
    case WIRE_READ: look_at_descs(h, body); break;
    default: break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    while (size >= WIRE_HEADER) {
        struct wire_header h;
        struct why why = {0};
        if (wire_header_decode(&h, data, &why)) {
            must(why.code == ERR_FORMAT && why.text[0]);
            return 0;
        }
        size_t body = wire_body_bytes(&h);
        must(body <= WIRE_BODY_MAX);
        data += WIRE_HEADER;
        size -= WIRE_HEADER;
        if (size < body) return 0;
        look_at(&h, data);
        data += body;
        size -= body;
        if (h.type != WIRE_WRITE && h.type != WIRE_DATA) continue;
        if (size < h.bytes) return 0;
        data += h.bytes;
        size -= h.bytes;
    }
    return 0;
}
