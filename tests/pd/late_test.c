/* A prefill that comes back when its pages are somebody else's. It writes by
 * what it was told, over each way; nobody stops it but the transfer engine. */
#include "tests/pd/stock.h"

static const unsigned vias[] = {XFER_VIA_TCP, XFER_VIA_UNIX | XFER_VIA_TCP,
                                XFER_VIA_CMA | XFER_VIA_TCP, XFER_VIA_ALL};

/* Until it has seen that it was shut out. */
static void refused(struct stock *s, struct xfer_peer *to)
{
    int rc = ERR_PEER;
    for (int tries = 0; rc == ERR_PEER && tries < 100; tries++)
        rc = late_write(s, to);
    assert_int_equal(rc, ERR_STALE);
}

static int32_t first_page(const struct letter *request)
{
    int32_t page;
    memcpy(&page, request->frame[4].bytes, 4);
    return page;
}

/* It answers no ABORT, or with an ACK that proves nothing: its quarantine ends
 * all the same. */
static void comes_back_too_late(unsigned via, bool w4)
{
    struct stock s;
    peer_via = via;
    stock_waiting_ms = w4 ? 0 : 2000; /* enough for room 2 */
    stock_open(&s, w4);
    uint32_t pages = side_engine(&s.side).pages_total;
    stock_asked(&s, 1, 20);
    stock_writes(&s, s.ask.want[0], 1); /* so its link is there */
    const struct letter old = s.peer.in;
    struct xfer_peer *by_old = s.to;
    pd_node_abort(s.side.node, s.leg.id, 499, "client left");
    UNTIL(&s.rig, side_engine(&s.side).quarantined == 1);
    assert_int_equal(side_engine(&s.side).pages_free, pages - 5);
    if (w4) {
        HEARS(&s.peer, "ABORT", "1", "127.0.0.1", NULL);
        const struct part ack[] = {text("ABORT_ACK"), text("1")};
        peer_says(&s.peer, ack, 2);
    }
    UNTIL(&s.rig, side_rooms(&s.side) == 0);
    UNTIL(&s.rig, side_engine(&s.side).pages_free == pages);
    /* The same pages for the next room, by another session. */
    stock_asked(&s, 2, 20);
    assert_int_equal(first_page(&s.peer.in), first_page(&old));
    assert_string_not_equal(s.peer.in.frame[3].bytes, old.frame[3].bytes);
    stock_writes(&s, s.ask.want[0], 2);
    refused(&s, by_old);
    stock_status(&s, "2", "4");
    UNTIL(&s.rig, s.leg.done);
    ask_answered(&s.ask, &s.leg);
    stock_close(&s);
    peer_via = stock_waiting_ms = 0;
}

static void a_prefill_that_comes_back_too_late(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof vias / sizeof *vias; i++)
        comes_back_too_late(vias[i], i != 0);
}

/* What a stock prefill knows of a room. */
struct known {
    struct letter reg, in;
    struct xfer_peer *to;
    struct ask ask;
};

static struct known known(const struct stock *s)
{
    return (struct known){s->reg, s->peer.in, s->to, s->ask};
}

static void turn_to(struct stock *s, const struct known *k)
{
    s->reg = k->reg;
    s->peer.in = k->in;
    s->to = k->to;
    s->ask = k->ask;
}

/* SGLang acks an ABORT in the middle of its write: no proof. The session ends,
 * but only when nobody waits for it any more. */
static void a_living_prefills_other_rooms_go_on(void **state)
{
    (void)state;
    struct stock s;
    struct leg waits, left, fails, later;
    stock_open(&s, true);
    stock_asked_by(&s, &waits, 1, 20);
    const struct known first = known(&s);
    stock_asked_by(&s, &left, 2, 20);
    const struct known second = known(&s);
    stock_asked_by(&s, &fails, 3, 20);
    pd_node_abort(s.side.node, left.id, 499, "client left");
    HEARS(&s.peer, "ABORT", "2", "127.0.0.1", NULL);
    const struct part ack[] = {text("ABORT_ACK"), text("2")};
    peer_says(&s.peer, ack, 2);
    stock_status(&s, "3", "0");
    UNTIL(&s.rig, left.done && fails.done); /* and so it has heard the ack */
    assert_int_equal(side_stats(&s.side).quarantined, 1);
    stock_asked_by(&s, &later, 4, 20);
    const struct known fourth = known(&s);
    assert_string_not_equal(fourth.in.frame[3].bytes, first.in.frame[3].bytes);
    turn_to(&s, &first);
    stock_writes(&s, s.ask.want[0], 1);
    stock_status(&s, "1", "4");
    UNTIL(&s.rig, waits.done);
    ask_answered(&s.ask, &waits);
    UNTIL(&s.rig, side_stats(&s.side).quarantined == 0);
    turn_to(&s, &second);
    refused(&s, s.to);
    turn_to(&s, &fourth);
    stock_writes(&s, s.ask.want[0], 4);
    stock_status(&s, "4", "4");
    UNTIL(&s.rig, later.done);
    ask_answered(&s.ask, &later);
    stock_close(&s);
}

TESTS(T(a_prefill_that_comes_back_too_late),
      T(a_living_prefills_other_rooms_go_on))
