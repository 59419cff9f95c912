/* What keeps strangers out of memory: users, addresses, keys. Tokens, ranges
 * and garbage have their tests in peer_test.c and contract_test.c, parsers in
 * tests/fuzz/. */
#include "tests/test.h"

#include "xfer/wire.h"
#include "xfer/xfer.h"

#include <stddef.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

enum { NOBODY = 65534 };

/* The engine's socket for processes of its host. */
static int dial(const struct xfer *x)
{
    struct xfer_epoch epoch = xfer_epoch(x);
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t n = (size_t)snprintf(un.sun_path + 1, 40, "baton-xfer-");
    for (size_t i = 0; i < sizeof epoch.bytes; i++)
        n += (size_t)snprintf(un.sun_path + 1 + n, 3, "%02x", epoch.bytes[i]);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(
        connect(fd, (struct sockaddr *)&un,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n)),
        0);
    return fd;
}

/* The first frame that a well-meant HELLO of that kind is answered with. */
static struct wire_header ask(int fd, uint8_t kind,
                              char text[WIRE_TEXT_MAX + 1])
{
    struct wire_hello hello = {
        .version = WIRE_VERSION, .kind = kind, .heartbeat_ms = 600, .link = 7};
    uint8_t bytes[WIRE_HEADER + WIRE_HELLO_MAX], head[WIRE_HEADER];
    struct wire_header h;
    struct why why = {0};
    snprintf(hello.name, sizeof hello.name, "127.0.0.1:9");
    size_t n = wire_hello_encode(&hello, bytes + WIRE_HEADER);
    wire_header_encode(&(struct wire_header){.type = WIRE_HELLO, .bytes = n},
                       bytes);
    assert_int_equal(send(fd, bytes, WIRE_HEADER + n, 0), WIRE_HEADER + n);
    assert_int_equal(recv(fd, head, sizeof head, MSG_WAITALL), sizeof head);
    assert_int_equal(wire_header_decode(&h, head, &why), 0);
    memset(text, 0, WIRE_TEXT_MAX + 1);
    size_t body = wire_body_bytes(&h);
    assert_true(body <= WIRE_TEXT_MAX);
    assert_int_equal(recv(fd, text, body, MSG_WAITALL), body);
    return h;
}

/* The user that counts is this thread's, and libc would change all of them. */
static void become(unsigned uid)
{
    assert_int_equal(syscall(SYS_setresuid, -1, uid, -1), 0);
}

static void other_users_get_no_memory(void **state)
{
    (void)state;
    if (geteuid() != 0) SKIP("only root can be another user");
    static const uint8_t kinds[] = {WIRE_DIRECT, WIRE_DATA_LANE, WIRE_CONTROL};
    char text[WIRE_TEXT_MAX + 1];
    struct why why = {0};
    struct xfer *x;
    assert_int_equal(xfer_open(&x, NULL, &why), 0);
    for (size_t i = 0; i < sizeof kinds; i++) {
        become(NOBODY);
        int fd = dial(x);
        become(0);
        struct wire_header h = ask(fd, kinds[i], text);
        assert_int_equal(h.type, WIRE_READY);
        assert_int_equal(h.count, -ERR_AUTH);
        assert_string_equal(text, "process of another user");
        assert_int_equal(recv(fd, text, 1, 0), 0);
        close(fd);
        fd = dial(x); /* ourselves: on with the handshake */
        h = ask(fd, kinds[i], text);
        assert_int_equal(h.type, WIRE_WELCOME);
        close(fd);
    }
    xfer_close(x);
}

static void nothing_listens_on_every_address_by_itself(void **state)
{
    (void)state;
    struct why why = {0};
    struct xfer *x;
    assert_int_equal(xfer_open(&x, NULL, &why), 0);
    assert_memory_equal(xfer_name(x), "127.0.0.1:", 10);
    xfer_close(x);
    static const char *const wild[] = {"0.0.0.0", "::", "0"};
    for (size_t i = 0; i < sizeof wild / sizeof *wild; i++) {
        struct xfer_options opt = {.host = wild[i]};
        assert_int_equal(xfer_open(&x, &opt, &why), ERR_INVALID);
        assert_non_null(strstr(why.text, "needs the name"));
    }
}

static int by_value(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* New with each registration, of the same bytes too, and all 64 bits of it. */
static void keys_are_random(void **state)
{
    (void)state;
    enum { KEYS = 2000 };
    static char bytes[64];
    static uint64_t keys[KEYS];
    unsigned set[64] = {0};
    struct why why = {0};
    struct xfer *x;
    struct xfer_mem *mem;
    assert_int_equal(xfer_open(&x, NULL, &why), 0);
    for (int i = 0; i < KEYS; i++) {
        assert_int_equal(
            xfer_register(x, bytes, sizeof bytes, NULL, 0, &mem, &why), 0);
        keys[i] = xfer_mem_key(mem);
        xfer_deregister(mem);
        for (int bit = 0; bit < 64; bit++)
            set[bit] += keys[i] >> bit & 1;
    }
    qsort(keys, KEYS, sizeof *keys, by_value);
    assert_true(keys[0] != 0);
    for (int i = 1; i < KEYS; i++)
        assert_true(keys[i] != keys[i - 1]);
    for (int bit = 0; bit < 64; bit++) /* ten deviations: 22 each */
        assert_in_range(set[bit], KEYS / 2 - 224, KEYS / 2 + 224);
    xfer_close(x);
}

TESTS(T(other_users_get_no_memory),
      T(nothing_listens_on_every_address_by_itself), T(keys_are_random))
