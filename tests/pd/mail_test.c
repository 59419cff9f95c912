/* The ZeroMQ front door: order, limits, ends of connections. */
#include "tests/pd/rig.h"

#include "base/mem.h"
#include "pd/mail.h"

#include <zmq.h>

struct box {
    struct pd_mail *mail;
    int count, lost;
    uint64_t sum;
    size_t frames, bytes;
};

static void on_message(void *arg, const struct pd_frame *frames, size_t count)
{
    struct box *b = arg;
    b->count++;
    b->frames = count;
    b->bytes = frames[count - 1].len;
    if (count == 2 && frames[1].len == 8) {
        /* each tells its number: they come in order */
        uint64_t number;
        memcpy(&number, frames[1].data, 8);
        if (number != b->sum) abort();
        b->sum++;
    }
}

static void on_lost(void *arg, const struct pd_address *address)
{
    struct box *b = arg;
    (void)address;
    b->lost++;
}

static void box_open(struct rig *rig, struct box *b)
{
    struct why why = {0};
    memset(b, 0, sizeof *b);
    const struct pd_mail_options options = {.loop = rig->loop,
                                            .host = "127.0.0.1",
                                            .on_message = on_message,
                                            .on_lost = on_lost,
                                            .arg = b};
    if (pd_mail_open(&b->mail, &options, &why)) fail_msg("%s", why.text);
}

static int send_number(struct box *from, const struct pd_address *to,
                       uint64_t number)
{
    struct pd_message m;
    pd_message_init(&m);
    buf_add(&m.bytes, "n", 1);
    m.ends[m.count++] = 1;
    buf_add(&m.bytes, &number, 8);
    m.ends[m.count++] = 9;
    int rc = pd_mail_send(from->mail, to, &m, NULL);
    pd_message_fini(&m);
    return rc;
}

static void thousands_arrive_in_order(void **state)
{
    (void)state;
    struct rig rig;
    struct box a, b;
    rig_init(&rig);
    box_open(&rig, &a);
    box_open(&rig, &b);
    for (uint64_t i = 0; i < 5000; i++)
        assert_int_equal(send_number(&a, pd_mail_address(b.mail), i), 0);
    UNTIL(&rig, b.count == 5000);
    assert_int_equal(b.sum, 5000);
    assert_int_equal(b.frames, 2);
    pd_mail_close(a.mail);
    pd_mail_close(b.mail);
    rig_fini(&rig);
}

static void a_peer_that_ends_is_reported_once(void **state)
{
    (void)state;
    struct rig rig;
    struct box a, b;
    rig_init(&rig);
    box_open(&rig, &a);
    box_open(&rig, &b);
    struct pd_address to = *pd_mail_address(b.mail);
    assert_int_equal(pd_mail_connect(a.mail, &to, NULL), 0);
    assert_int_equal(send_number(&a, &to, 0), 0);
    UNTIL(&rig, b.count == 1);
    pd_mail_close(b.mail);
    UNTIL(&rig, a.lost);
    /* nobody there: also what never came about is reported */
    assert_int_equal(send_number(&a, &to, 1), 0);
    UNTIL(&rig, a.lost == 2);
    /* hung up by us: silence */
    box_open(&rig, &b);
    to = *pd_mail_address(b.mail);
    assert_int_equal(send_number(&a, &to, 0), 0);
    UNTIL(&rig, b.count == 1);
    pd_mail_hang_up(a.mail, &to);
    pd_mail_close(b.mail);
    rig_turn(&rig);
    rig_turn(&rig);
    assert_int_equal(a.lost, 2);
    pd_mail_close(a.mail);
    rig_fini(&rig);
}

static void strangers_cannot_break_the_door(void **state)
{
    (void)state;
    struct rig rig;
    struct box b;
    rig_init(&rig);
    box_open(&rig, &b);
    char to[64];
    snprintf(to, sizeof to, "tcp://127.0.0.1:%u",
             pd_mail_address(b.mail)->port);
    void *context = zmq_ctx_new(), *push = zmq_socket(context, ZMQ_PUSH);
    assert_int_equal(zmq_connect(push, to), 0);
    for (int i = 0; i < 40; i++) /* too many frames: dropped whole */
        zmq_send(push, "x", 1, i < 39 ? ZMQ_SNDMORE : 0);
    zmq_send(push, "", 0, 0); /* one empty frame */
    UNTIL(&rig, b.count == 1);
    assert_int_equal(b.frames, 1);
    assert_int_equal(b.bytes, 0);
    int linger = 0;
    zmq_setsockopt(push, ZMQ_LINGER, &linger, sizeof linger);
    zmq_close(push);
    zmq_ctx_term(context);
    pd_mail_close(b.mail);
    rig_fini(&rig);
}

static void bad_hosts_are_refused(void **state)
{
    (void)state;
    struct rig rig;
    rig_init(&rig);
    const char *hosts[] = {"0.0.0.0", "::", "no such host", "192.0.2.1"};
    for (size_t i = 0; i < 4; i++) {
        struct pd_mail *mail;
        struct why why = {0};
        const struct pd_mail_options options = {.loop = rig.loop,
                                                .host = hosts[i]};
        int rc = pd_mail_open(&mail, &options, &why);
        assert_true(rc == ERR_INVALID || rc == ERR_IO);
        assert_true(why.text[0]);
        assert_null(mail);
    }
    rig_fini(&rig);
}

static void nothing_leaks(void **state)
{
    (void)state;
    size_t before = mem_live();
    a_peer_that_ends_is_reported_once(NULL);
    assert_int_equal(mem_live(), before);
}

TESTS(T(thousands_arrive_in_order), T(a_peer_that_ends_is_reported_once),
      T(strangers_cannot_break_the_door), T(bad_hosts_are_refused),
      T(nothing_leaks))
