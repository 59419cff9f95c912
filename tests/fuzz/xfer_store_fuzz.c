/* Frames of the config store of any bytes, from a client or a server. */
#include "xfer/store_wire.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool fact)
{
    if (!fact) abort();
}

/* Touches the bytes, so that the sanitizer sees where they lie. */
static size_t touch(const char *bytes, size_t n)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (unsigned char)bytes[i];
    return sum;
}

static void look_at(const struct store_header *h, const uint8_t *body)
{
    struct store_request r;
    struct store_answer a;
    uint8_t nonce[STORE_NONCE], mac[STORE_MAC];
    static volatile size_t sink;
    store_greeting_decode(h, body, nonce, NULL);
    store_hello_decode(h, body, nonce, mac, NULL);
    if (h->op >= STORE_OP_SET &&
        !store_request_decode(&r, h->op, body, h->body_bytes, NULL)) {
        must(r.key_bytes >= 1 && r.key_bytes <= STORE_KEY_MAX);
        sink = touch(r.key, r.key_bytes) + touch(r.value, r.value_bytes) +
               touch(r.second, r.second_bytes);
        struct buf out;
        buf_init(&out, STORE_HEADER + STORE_BODY_MAX);
        store_request_encode(&out, h->op, h->id, &r);
        must(!out.failed && out.len == STORE_HEADER + h->body_bytes);
        must(memcmp(out.data + STORE_HEADER, body, h->body_bytes) == 0);
        buf_fini(&out);
    }
    if (h->op == STORE_OP_ANSWER &&
        !store_answer_decode(&a, body, h->body_bytes, NULL)) {
        must(a.rc <= 0 && a.rc > -ERR_COUNT_);
        sink = touch(a.value, a.value_bytes);
    }
    (void)sink;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    while (size >= STORE_HEADER) {
        struct store_header h;
        struct why why = {0};
        if (store_header_decode(&h, data, &why)) {
            must(why.code == ERR_FORMAT && why.text[0]);
            return 0;
        }
        data += STORE_HEADER;
        size -= STORE_HEADER;
        if (size < h.body_bytes) return 0;
        look_at(&h, data);
        data += h.body_bytes;
        size -= h.body_bytes;
    }
    return 0;
}
