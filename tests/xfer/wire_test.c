#include "tests/test.h"

#include "base/buf.h"
#include "xfer/hmac.h"
#include "xfer/store_wire.h"
#include "xfer/wire.h"

static void hex_equal(const uint8_t *got, const char *hex)
{
    char text[65] = "";
    for (int i = 0; i < 32; i++)
        snprintf(text + 2 * i, 3, "%02x", got[i]);
    assert_string_equal(text, hex);
}

/* FIPS 180-4 examples (NIST), and a length around each padding boundary. */
static void sha256_vectors(void **state)
{
    (void)state;
    static const struct {
        const char *text, *hash;
    } cases[] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb924"
             "27ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223"
                "b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039"
         "a33ce45964ff2167f6ecedd419db06c1"},
    };
    struct sha256 s;
    uint8_t out[32];
    for (size_t i = 0; i < 3; i++) {
        sha256_init(&s);
        sha256_add(&s, cases[i].text, strlen(cases[i].text));
        sha256_end(&s, out);
        hex_equal(out, cases[i].hash);
    }
    sha256_init(&s);
    for (int i = 0; i < 1000000; i += 1000) { /* a million times 'a' */
        char a[1000];
        memset(a, 'a', sizeof a);
        sha256_add(&s, a, 300);
        sha256_add(&s, a, 700);
    }
    sha256_end(&s, out);
    hex_equal(out, "cdc76e5c9914fb9281a1c7e284d73e67"
                   "f1809a48a497200e046d39ccc7112cd0");
}

/* RFC 4231, cases 1, 2, 3, 6 and 7. */
static void hmac_vectors(void **state)
{
    (void)state;
    uint8_t key[131], data[200], out[32];
    memset(key, 0x0b, 20);
    hmac_sha256(key, 20, &(struct hmac_piece){"Hi There", 8}, 1, out);
    hex_equal(out, "b0344c61d8db38535ca8afceaf0bf12b"
                   "881dc200c9833da726e9376c2e32cff7");
    struct hmac_piece parts[] = {{"what do ya want ", 16},
                                 {"for nothing?", 12}};
    hmac_sha256("Jefe", 4, parts, 2, out);
    hex_equal(out, "5bdcc146bf60754e6a042426089575c7"
                   "5a003f089d2739839dec58b964ec3843");
    memset(key, 0xaa, sizeof key);
    memset(data, 0xdd, 50);
    hmac_sha256(key, 20, &(struct hmac_piece){data, 50}, 1, out);
    hex_equal(out, "773ea91e36800e46854db8ebd09181a7"
                   "2959098b3ef8c122d9635514ced565fe");
    const char *six = "Test Using Larger Than Block-Size Key - Hash Key First";
    hmac_sha256(key, 131, &(struct hmac_piece){six, strlen(six)}, 1, out);
    hex_equal(out, "60e431591ee0b67f0d8a26aacbf5b77f"
                   "8e0bc6213728c5140546040f0ee37f54");
    const char *seven =
        "This is a test using a larger than block-size key and a larger than "
        "block-size data. The key needs to be hashed before being used by "
        "the HMAC algorithm.";
    hmac_sha256(key, 131, &(struct hmac_piece){seven, strlen(seven)}, 1, out);
    hex_equal(out, "9b09ffa71b942fcb27635fbcd5b0e944"
                   "bfdc63644f0713938a7f51535c3a35e2");
    uint8_t other[32];
    memcpy(other, out, 32);
    assert_true(hmac_equal(out, other));
    other[31] ^= 1;
    assert_false(hmac_equal(out, other));
}

static void headers_keep_their_values(void **state)
{
    (void)state;
    struct wire_header h = {.type = WIRE_WRITE,
                            .count = 3,
                            .id = 0x0123456789abcdefu,
                            .bytes = 4096,
                            .aux = UINT64_MAX},
                       got;
    uint8_t bytes[WIRE_HEADER];
    wire_header_encode(&h, bytes);
    assert_int_equal(bytes[8], 0xef); /* little-endian */
    assert_int_equal(wire_header_decode(&got, bytes, NULL), 0);
    assert_int_equal(got.type, h.type);
    assert_int_equal(got.count, h.count);
    assert_int_equal(got.id, h.id);
    assert_int_equal(got.bytes, h.bytes);
    assert_int_equal(got.aux, h.aux);
    assert_int_equal(wire_body_bytes(&got), 96);
}

static void header_limits(void **state)
{
    (void)state;
    static const struct wire_header wrong[] = {
        {.type = 0},
        {.type = 12},
        {.type = 21},
        {.type = WIRE_HELLO, .bytes = WIRE_HANDSHAKE_MAX + 1},
        {.type = WIRE_PROOF, .bytes = 31},
        {.type = WIRE_READY, .bytes = 0},
        {.type = WIRE_READY, .count = 1, .bytes = WIRE_TEXT_MAX + 1},
        {.type = WIRE_WRITE, .count = 0, .bytes = 1},
        {.type = WIRE_WRITE, .count = 1, .bytes = 0},
        {.type = WIRE_WRITE, .count = WIRE_DESCS_MAX + 1, .bytes = 1},
        {.type = WIRE_READ, .count = 1, .bytes = WIRE_PAYLOAD_MAX + 1},
        {.type = WIRE_DATA, .bytes = UINT64_MAX},
        {.type = WIRE_NOTE, .bytes = XFER_NOTE_MAX + 1},
        {.type = WIRE_REGION, .bytes = 2, .aux = UINT64_MAX - 1},
        {.type = WIRE_PING, .flags = WIRE_HAS_FD},
        {.type = WIRE_REGION, .bytes = 2, .flags = 2},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        uint8_t bytes[WIRE_HEADER];
        struct wire_header got;
        struct why why = {0};
        wire_header_encode(&wrong[i], bytes);
        if (wire_header_decode(&got, bytes, &why) != ERR_FORMAT)
            fail_msg("header %zu was taken", i);
        assert_int_equal(why.code, ERR_FORMAT);
    }
}

static int descs(const struct wire_desc *d, size_t n, uint64_t *sum)
{
    uint8_t bytes[4 * WIRE_DESC] = {0};
    struct wire_desc got[4];
    for (size_t i = 0; i < n; i++)
        wire_desc_encode(&d[i], bytes + i * WIRE_DESC);
    int rc = wire_descs_decode(got, n, bytes, sum, NULL);
    for (size_t i = 0; i < n && !rc; i++) {
        assert_int_equal(got[i].addr, d[i].addr);
        assert_int_equal(got[i].bytes, d[i].bytes);
        assert_int_equal(got[i].pitch, d[i].pitch);
        assert_int_equal(got[i].rows, d[i].rows);
    }
    return rc;
}

static void descriptor_limits(void **state)
{
    (void)state;
    uint64_t sum, top = UINT64_MAX;
    struct wire_desc good[2] = {
        {.addr = 4096, .bytes = 10, .pitch = 16, .rows = 3},
        {.addr = top - 5, .bytes = 5, .rows = 1}};
    assert_int_equal(descs(good, 2, &sum), 0);
    assert_int_equal(sum, 35);
    assert_int_equal(wire_desc_span(&good[0]), 42);
    struct wire_desc wrong[] = {
        {.addr = 1, .bytes = 0, .rows = 1},
        {.addr = 1, .bytes = 1, .rows = 0},
        {.addr = 1, .bytes = 10, .pitch = 9, .rows = 2},
        {.addr = top - 4, .bytes = 5, .rows = 1},
        {.addr = 1, .bytes = 1, .pitch = top / 2, .rows = 4},
        {.addr = top / 2, .bytes = 8, .pitch = top / 4, .rows = 4},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (descs(&wrong[i], 1, &sum) != ERR_FORMAT)
            fail_msg("descriptor %zu was taken", i);
}

static void hellos_keep_their_values(void **state)
{
    (void)state;
    struct wire_hello h = {.version = 1,
                           .kind = WIRE_DIRECT,
                           .lane = 3,
                           .heartbeat_ms = 600,
                           .link = 77,
                           .name = "[::1]:4711"},
                      got;
    uint8_t bytes[WIRE_HELLO_MAX + 1];
    memset(h.epoch.bytes, 1, 16);
    memset(h.nonce, 2, sizeof h.nonce);
    size_t n = wire_hello_encode(&h, bytes);
    assert_int_equal(wire_hello_decode(&got, bytes, n, NULL), 0);
    assert_string_equal(got.name, h.name);
    assert_int_equal(got.link, 77);
    assert_int_equal(got.heartbeat_ms, 600);
    assert_int_equal(wire_hello_decode(&got, bytes, n - 1, NULL), ERR_FORMAT);
    assert_int_equal(wire_hello_decode(&got, bytes, n + 1, NULL), ERR_FORMAT);
    bytes[95] = '\n';
    assert_int_equal(wire_hello_decode(&got, bytes, n, NULL), ERR_FORMAT);
}

static void store_requests(void **state)
{
    (void)state;
    struct buf out;
    struct store_header h;
    struct store_request r = {.number = -5,
                              .key = "key",
                              .key_bytes = 3,
                              .value = "val",
                              .value_bytes = 3,
                              .second = "new!",
                              .second_bytes = 4},
                         got;
    buf_init(&out, 1000);
    store_request_encode(&out, STORE_OP_CAS, 9, &r);
    const uint8_t *bytes = (const uint8_t *)out.data;
    assert_int_equal(store_header_decode(&h, bytes, NULL), 0);
    assert_int_equal(h.id, 9);
    assert_int_equal(h.body_bytes + STORE_HEADER, out.len);
    const uint8_t *body = bytes + STORE_HEADER;
    assert_int_equal(
        store_request_decode(&got, STORE_OP_CAS, body, h.body_bytes, NULL), 0);
    assert_int_equal(got.number, -5);
    assert_memory_equal(got.key, "keyvalnew!", 10);
    assert_int_equal(got.second_bytes, 4);
    /* Only CAS has a second value; no key is nothing. */
    assert_int_equal(
        store_request_decode(&got, STORE_OP_SET, body, h.body_bytes, NULL),
        ERR_FORMAT);
    assert_int_equal(store_request_decode(&got, STORE_OP_CAS, body, 18, NULL),
                     ERR_FORMAT);
    buf_fini(&out);
}

TESTS(T(sha256_vectors), T(hmac_vectors), T(headers_keep_their_values),
      T(header_limits), T(descriptor_limits), T(hellos_keep_their_values),
      T(store_requests))
