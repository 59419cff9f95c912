/* Streams that another pair goes on with when their decode is lost. */
#include "tests/router/rig.h"

#include "router/watch.h"

#define GROUP(text, ids) \
    "data: {\"text\": \"" text "\"}\n\n: tokens " ids "\n\n"
#define LAST     "data: {\"text\": \"end\"}\n\ndata: [DONE]\n\n"
#define TWO      "data: {\"text\": \"a\"}\n\ndata: {\"text\": \"b\"}\n\n"
#define STREAMED "{\"stream\": true, \"n\": 1.0}"

static void begin(struct test *t)
{
    setup(t);
    second_workers(t);
    t->options.policy = "round_robin";
    for (int i = P0; i <= P1; i++)
        script(&t->workers[i], ANSWER, 200, OK_P);
    for (int i = D0; i <= D1; i++) {
        script(&t->workers[i], STREAM, 200, NULL);
        t->workers[i].marks = i == D0 ? "of-d0" : "of-d1";
    }
    start(t);
}

static void expect_end(struct test *t, const char *data)
{
    until(t, &t->reply.done, 1);
    assert_int_equal(t->reply.rc, 0);
    assert_int_equal(t->reply.status, 200);
    assert_string_equal(t->reply.data.data, data);
}

/* The client has had `n` bytes. */
static void until_bytes(struct test *t, size_t n)
{
    while (t->reply.data.len < n)
        until(t, &t->reply.data_count, t->reply.data_count + 1);
}

static void another_decode_goes_on_where_the_client_is(void **state)
{
    (void)state;
    struct test t;
    begin(&t);
    struct worker_end *d0 = &t.workers[D0], *d1 = &t.workers[D1];
    post(&t, "/generate", STREAMED);
    until(&t, &d0->asked, 1);
    has(d0->headers, RESUME_HEADER ": 1");
    assert_null(strstr(d0->bodies[0], RESUME_MEMBER));
    send_piece(d0, GROUP("a", "7,12") GROUP("b", "5"));
    /* No comment yet: these are nobody's. */
    send_piece(d0, "data: {\"text\": \"c\"}\n\ndata: {\"te");
    until_bytes(&t, sizeof TWO - 1);
    hang_up(d0);
    until(&t, &d1->asked, 1);
    has(d1->bodies[0], "\"resume_output_ids\": [7,12,5]");
    has(d1->bodies[0], "\"rid\": \"of-d0\"");
    has(d1->bodies[0], "\"n\": 1.0");
    assert_int_not_equal(room_of(d0->bodies[0]), room_of(d1->bodies[0]));
    send_piece(d1, GROUP("c", "1") ": tokens \n\n" LAST);
    end_stream(d1);
    expect_end(&t, TWO "data: {\"text\": \"c\"}\n\n" LAST);
    assert_null(strcasestr(t.reply.all_headers, RESUME_HEADER));
    assert_int_equal(metric(&t, "streams_resumed_total "), 1);
    assert_int_equal(metric(&t, "{code=\"2xx\"} "), 1);
    teardown(&t);
}

static void it_may_go_on_more_than_once_but_not_for_ever(void **state)
{
    (void)state;
    struct test t;
    begin(&t);
    post(&t, "/v1/completions", "{\"stream\": true, \"rid\": \"mine\"}");
    for (int i = 0; i < 5; i++) {
        struct worker_end *w = &t.workers[i % 2 ? D1 : D0];
        until(&t, &w->asked, i / 2 + 1);
        assert_null(strstr(w->bodies[i / 2], "of-d"));
        size_t before = t.reply.data.len;
        send_piece(w, GROUP("x", "3"));
        until_bytes(&t, before + 1);
        hang_up(w);
    }
    until(&t, &t.reply.done, 1);
    has(t.workers[D0].bodies[2], "\"resume_output_ids\": [3,3,3,3]");
    has(t.reply.data.data, "data: {\"error\": {\"message\": \"decode server");
    assert_int_equal(t.workers[D0].asked + t.workers[D1].asked, 5);
    assert_int_equal(metric(&t, "{kind=\"stream_broken\"} "), 1);
    teardown(&t);
}

static void nothing_told_yet_begins_from_the_beginning(void **state)
{
    (void)state;
    struct test t;
    begin(&t);
    post(&t, "/generate", STREAMED);
    until(&t, &t.reply.headers, 1); /* 200, as prefill ended well */
    send_piece(&t.workers[D0], "data: {\"text\": \"a\"}\n\n");
    hang_up(&t.workers[D0]);
    until(&t, &t.workers[D1].asked, 1);
    assert_null(strstr(t.workers[D1].bodies[0], RESUME_MEMBER));
    send_piece(&t.workers[D1], GROUP("a", "7") LAST);
    end_stream(&t.workers[D1]);
    expect_end(&t, "data: {\"text\": \"a\"}\n\n" LAST);
    teardown(&t);
}

/* A server that is shut down says so in its stream: that is a loss too. Other
 * errors are the request's own. */
static void a_server_that_stops_is_left(void **state)
{
    (void)state;
    static const struct {
        const char *event;
        bool lost;
    } cases[] = {
        {"data: {\"error\": {\"message\": \"stopping\", \"code\": 503}}\n\n",
         true},
        {"data: {\"text\": \"\", \"meta_info\": {\"finish_reason\": {\"type\": "
         "\"abort\", \"message\": \"m\", \"status_code\": 503}}}\n\n",
         true},
        {"data: {\"error\": {\"message\": \"NaN\", \"code\": 500}}\n\n", false},
        {"data: {\"error\": \"503\"}\n\n", false},
        {"data: not json 503\n\n", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct test t;
        begin(&t);
        post(&t, "/generate", STREAMED);
        until(&t, &t.workers[D0].asked, 1);
        send_piece(&t.workers[D0], GROUP("a", "1"));
        send_piece(&t.workers[D0], cases[i].event);
        end_stream(&t.workers[D0]);
        if (cases[i].lost) {
            until(&t, &t.workers[D1].asked, 1);
            send_piece(&t.workers[D1], LAST);
            end_stream(&t.workers[D1]);
        }
        char want[512];
        snprintf(want, sizeof want, "data: {\"text\": \"a\"}\n\n%s",
                 cases[i].lost ? LAST : cases[i].event);
        expect_end(&t, want);
        teardown(&t);
    }
}

/* The next pair's errors come when the client has its 200. */
static void a_pair_that_cannot_go_on_is_an_error_event(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct test t;
        begin(&t);
        struct worker_end *d1 = &t.workers[D1];
        if (i == 0) d1->marks = NULL; /* of another make */
        if (i == 1) d1->steps[0] = (struct step){ANSWER, 400, "{\"no\": 1}"};
        if (i == 2) {
            for (int p = P0; p <= P1; p++) {
                script(&t.workers[p], ANSWER, 418, "{\"tea\": 1}");
                t.workers[p].steps[1] = t.workers[p].steps[0];
            }
        }
        post(&t, "/generate", STREAMED);
        until(&t, &t.workers[D0].asked, 1);
        until(&t, &t.reply.headers, 1);
        if (i == 2)
            for (int p = P0; p <= P1; p++)
                t.workers[p].steps[0] =
                    (struct step){ANSWER, 418, "{\"tea\": 1}"};
        send_piece(&t.workers[D0], GROUP("a", "1"));
        until_bytes(&t, 1);
        hang_up(&t.workers[D0]);
        until(&t, &t.reply.done, 1);
        has(t.reply.data.data, "data: {\"text\": \"a\"}\n\ndata: {\"error\": ");
        has(t.reply.data.data, i == 0   ? "cannot"
                               : i == 1 ? "does not go on with the stream: "
                                          "{\\\"no\\\": 1}"
                                        : "{\\\"tea\\\": 1}");
        has(t.reply.data.data, "data: [DONE]\n\n");
        teardown(&t);
    }
}

static void no_retries_no_going_on(void **state)
{
    (void)state;
    struct test t;
    begin(&t);
    router_destroy(t.router);
    t.options.disable_retries = true;
    start(&t);
    post(&t, "/generate", STREAMED);
    until(&t, &t.workers[D0].asked, 1);
    assert_null(strstr(t.workers[D0].headers, RESUME_HEADER));
    teardown(&t);
}

/* --- watch.h alone: any pieces ------------------------------------------- */

static void pass(void *arg, const char *bytes, size_t n)
{
    buf_add(arg, bytes, n);
}

static void pieces_of_any_size_are_the_same_groups(void **state)
{
    (void)state;
    static const char stream[] = GROUP("a", "1,2") ": a comment\n\n" GROUP(
        "b: tokens 5",
        "3") ": tokens \n\ndata: {\"text\": \"\\n: tokens 9\"}\n\n";
    static const char passed[] = "data: {\"text\": \"a\"}\n\n: a comment\n\n"
                                 "data: {\"text\": \"b: tokens 5\"}\n\n";
    for (size_t piece = 1; piece < sizeof stream; piece++) {
        struct watch w;
        struct buf got;
        buf_init(&got, 1 << 16);
        watch_init(&w, 1 << 16);
        for (size_t at = 0; at < sizeof stream - 1; at += piece) {
            size_t left = sizeof stream - 1 - at;
            assert_int_equal(watch_feed(&w, stream + at,
                                        left < piece ? left : piece, pass,
                                        &got),
                             0);
        }
        assert_string_equal(got.data, passed);
        assert_string_equal(w.ids.data, "1,2,3");
        assert_string_equal(w.held.data,
                            "data: {\"text\": \"\\n: tokens 9\"}\n\n");
        watch_restart(&w);
        assert_int_equal(w.held.len, 0);
        assert_string_equal(w.ids.data, "1,2,3");
        watch_fini(&w);
        buf_fini(&got);
    }
    struct watch wrong;
    watch_init(&wrong, 1 << 16);
    assert_int_equal(watch_feed(&wrong, ": tokens 1]\n\n", 13, pass, NULL),
                     ERR_FORMAT);
    watch_fini(&wrong);
    struct watch small;
    watch_init(&small, 8);
    assert_int_equal(watch_feed(&small, stream, 32, pass, NULL), ERR_RANGE);
    watch_fini(&small);
}

TESTS(T(another_decode_goes_on_where_the_client_is),
      T(it_may_go_on_more_than_once_but_not_for_ever),
      T(nothing_told_yet_begins_from_the_beginning),
      T(a_server_that_stops_is_left),
      T(a_pair_that_cannot_go_on_is_an_error_event), T(no_retries_no_going_on),
      T(pieces_of_any_size_are_the_same_groups))
