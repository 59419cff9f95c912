/* What the router does with requests: tests/router/rig.h. */
#include "tests/router/rig.h"

static void both_legs_get_the_same_body_and_decode_answers(void **state)
{
    (void)state;
    size_t before = mem_live();
    struct test t;
    setup(&t);
    start(&t);
    script(&t.workers[P0], ANSWER, 200, OK_P);
    script(&t.workers[D0], ANSWER, 200, OK_D);
    run(&t, "/generate", "{\"text\": \"hi\", \"bootstrap_room\": 1}");
    assert_int_equal(t.reply.status, 200);
    assert_string_equal(t.reply.data.data, OK_D);
    assert_string_equal(t.reply.type, "application/json");
    until(&t, &t.workers[P0].asked, 1);
    assert_string_equal(t.workers[P0].bodies[0], t.workers[D0].bodies[0]);
    char want[256];
    snprintf(want, sizeof want,
             "{\"bootstrap_host\": \"127.0.0.1\", \"bootstrap_port\": 6657, "
             "\"bootstrap_room\": %lld, \"text\": \"hi\"}",
             (long long)room_of(t.workers[D0].bodies[0]));
    assert_string_equal(t.workers[D0].bodies[0], want);
    run(&t, "/v1/completions", "{\"prompt\": [\"a\", \"b\"]}");
    has(t.workers[D0].bodies[1], "\"bootstrap_port\": 6657, ");
    run(&t, "/v1/chat/completions", "{}");
    run(&t, "/generate", "{\"text\": [\"a\", \"b\"]}");
    has(t.workers[D0].bodies[3], "\"bootstrap_port\": [6657, 6657], ");
    assert_int_equal(metric(&t, "pd_responses_total{code=\"2xx\"} "), 4);
    teardown(&t);
    assert_int_equal(mem_live(), before);
}

static void decodes_bytes_do_not_wait_for_prefill(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.linger_ms = 1;
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL); /* never answers */
    script(&t.workers[D0], STREAM, 200, SSE);
    post(&t, "/generate", "{\"stream\": true}");
    until(&t, &t.reply.data_count, 1);
    assert_int_equal(t.reply.status, 200);
    assert_string_equal(t.reply.type, "text/event-stream; charset=utf-8");
    has(t.reply.all_headers, "Cache-Control: no-cache\n");
    send_piece(&t.workers[D0], "data: [DONE]\n\n");
    until(&t, &t.reply.data_count, 2);
    end_stream(&t.workers[D0]);
    until(&t, &t.reply.done, 1);
    assert_int_equal(t.reply.rc, 0);
    assert_string_equal(t.reply.data.data, SSE "data: [DONE]\n\n");
    until(&t, &t.workers[P0].gone, 1); /* it had its time */
    assert_int_equal(metric(&t, "ttft_seconds_count "), 1);
    teardown(&t);
}

static void stream_headers_follow_prefills_good_end(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], STREAM, 200, NULL); /* headers, no byte yet */
    post(&t, "/generate", "{\"stream\": true}");
    until(&t, &t.workers[D0].asked, 1);
    until(&t, &t.workers[P0].asked, 1);
    assert_int_equal(t.reply.headers, 0);
    answer_held(&t.workers[P0], 200, OK_P);
    until(&t, &t.reply.headers, 1);
    send_piece(&t.workers[D0], SSE);
    until(&t, &t.reply.data_count, 1);
    end_stream(&t.workers[D0]);
    until(&t, &t.reply.done, 1);
    assert_string_equal(t.reply.data.data, SSE);
    teardown(&t);
}

/* Streaming or not, a worker's own error reaches the client as it is, and the
 * other worker is let go. */
static void worker_errors_reach_the_client(void **state)
{
    (void)state;
    static const char *const bodies[] = {"{}", "{\"stream\": true}"};
    static const char error[] = "{\"error\": {\"message\": \"too long\"}}";
    for (int stream = 0; stream < 2; stream++) {
        for (int from = P0; from <= D0; from += D0 - P0) {
            static const int statuses[] = {400, 413, 500, 504};
            for (int i = 0; i < 4; i++) {
                struct test t;
                setup(&t);
                t.options.verdict_ms = 1;
                start(&t);
                int other = from == P0 ? D0 : P0;
                script(&t.workers[from], ANSWER, statuses[i], error);
                script(&t.workers[other], HOLD, 0, NULL);
                run(&t, "/generate", bodies[stream]);
                assert_int_equal(t.reply.status, statuses[i]);
                assert_string_equal(t.reply.data.data, error);
                assert_string_equal(t.reply.type, "application/json");
                has(t.reply.all_headers, "X-Request-Id: of-worker\n");
                has(t.reply.all_headers, "Retry-After: 7\n");
                if (t.workers[other].asked)
                    until(&t, &t.workers[other].gone, 1);
                assert_int_equal(t.workers[from].asked, 1); /* no retry */
                teardown(&t);
            }
        }
    }
}

static void prefills_error_event_is_an_error(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    start(&t);
    script(&t.workers[P0], STREAM, 200,
           "data: {\"error\": {\"message\": \"no\", \"code\": 400}}\n\n"
           "data: [DONE]\n\n");
    script(&t.workers[D0], STREAM, 200, NULL);
    post(&t, "/v1/chat/completions", "{\"stream\": true}");
    until(&t, &t.workers[P0].asked, 1);
    end_stream(&t.workers[P0]);
    until(&t, &t.reply.done, 1);
    assert_int_equal(t.reply.status, 400);
    assert_string_equal(t.reply.data.data,
                        "{\"error\": {\"message\": \"no\", \"code\": 400}}");
    until(&t, &t.workers[D0].gone, 1);
    teardown(&t);
}

/* Decode fails because prefill did; prefill's word is the better one. */
static void prefill_may_explain_decodes_failure(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.verdict_ms = 50 * 1000;
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], ANSWER, 500, "{\"message\": \"KVTransferError\"}");
    post(&t, "/generate", "{}");
    until(&t, &t.workers[P0].asked, 1);
    until(&t, &t.workers[D0].asked, 1);
    answer_held(&t.workers[P0], 400, "{\"message\": \"prompt too long\"}");
    until(&t, &t.reply.done, 1);
    assert_int_equal(t.reply.status, 400);
    has(t.reply.data.data, "prompt too long");
    /* and where prefill knows nothing, decode's stands */
    post(&t, "/generate", "{}");
    until(&t, &t.workers[P0].asked, 2);
    until(&t, &t.workers[D0].asked, 2);
    answer_held(&t.workers[P0], 200, OK_P);
    until(&t, &t.reply.done, 1);
    assert_int_equal(t.reply.status, 500);
    has(t.reply.data.data, "KVTransferError");
    teardown(&t);
}

static void leaving_client_cancels_both(void **state)
{
    (void)state;
    static const char *const bodies[] = {"{}", "{\"stream\": true}"};
    for (int i = 0; i < 3; i++) {
        struct test t;
        setup(&t);
        start(&t);
        script(&t.workers[P0], HOLD, 0, NULL);
        script(&t.workers[D0], i == 2 ? STREAM : HOLD, 200, SSE);
        post(&t, "/generate", bodies[i > 0]);
        until(&t, &t.workers[P0].asked, 1);
        until(&t, &t.workers[D0].asked, 1);
        if (i == 2) until(&t, &t.reply.data_count, 1);
        reply_fini(&t.reply); /* hangs up */
        until(&t, &t.workers[P0].gone, 1);
        until(&t, &t.workers[D0].gone, 1);
        assert_int_equal(metric(&t, "{kind=\"client_left\"} "), 1);
        assert_int_equal(metric(&t, "running_requests "), 0);
        assert_int_equal(metric(&t, "role=\"prefill\"} "), 1); /* healthy */
        teardown(&t);
    }
}

static void refused_worker_is_left_out_until_a_probe(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.policy = "round_robin";
    t.options.prefill[t.options.prefill_count++] =
        (struct router_worker_option){t.workers[CLOSED].url, -1};
    start(&t);
    script(&t.workers[P0], ANSWER, 200, OK_P);
    script(&t.workers[CLOSED], ANSWER, 200, OK_P);
    script(&t.workers[D0], HOLD, 0, NULL); /* answers after prefill */
    for (int i = 0; i < 4; i++) {
        post(&t, "/generate", "{}");
        until(&t, &t.workers[P0].asked, i + 1);
        while (!t.workers[D0].held)
            until(&t, &t.workers[D0].asked, t.workers[D0].asked + 1);
        answer_held(&t.workers[D0], 200, OK_D);
        until(&t, &t.reply.done, 1);
        assert_int_equal(t.reply.status, 200);
    }
    assert_int_equal(metric(&t, "retries_total "), 1);
    assert_int_equal(metric(&t, "{kind=\"refused\"} "), 0);
    char line[128];
    snprintf(line, sizeof line,
             "worker_health{worker=\"%s\",role=\"prefill\"} ",
             t.workers[CLOSED].url);
    assert_int_equal(metric(&t, line), 0);
    /* It comes to life: the next probe takes it back. */
    worker_listen(&t.workers[CLOSED]);
    until(&t, &t.workers[CLOSED].probes, 1);
    while (metric(&t, line) != 1)
        ;
    teardown(&t);
}

static void all_refuse_is_502_then_503(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.prefill[0].url = t.workers[CLOSED].url;
    start(&t);
    script(&t.workers[D0], HOLD, 0, NULL);
    run(&t, "/generate", "{\"stream\": true}");
    assert_int_equal(t.reply.status, 503); /* after the first was refused */
    has(t.reply.data.data, "\"error\":{\"message\":\"No available servers");
    has(t.reply.data.data, "\"detail\":\"No available servers");
    run(&t, "/generate", "{}");
    assert_int_equal(t.reply.status, 503);
    assert_int_equal(metric(&t, "{kind=\"no_worker\"} "), 2);
    run(&t, "/readiness", NULL);
    assert_int_equal(t.reply.status, 503);
    run(&t, "/health", NULL);
    assert_int_equal(t.reply.status, 200);
    run(&t, "/get_model_info", NULL);
    assert_int_equal(t.reply.status, 503);
    teardown(&t);

    setup(&t);
    t.options.disable_retries = true;
    t.options.decode[0].url = t.workers[CLOSED].url;
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    run(&t, "/generate", "{}");
    assert_int_equal(t.reply.status, 502);
    has(t.reply.data.data, "decode server http://127.0.0.1:");
    assert_int_equal(metric(&t, "{kind=\"refused\"} "), 1);
    teardown(&t);
}

static void unready_workers_are_tried_again_with_new_rooms(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], DIE, 0, NULL);
    script(&t.workers[D0], ANSWER, 503, "{}");
    script(&t.workers[D0], ANSWER, 502, "{}");
    script(&t.workers[D0], ANSWER, 200, OK_D);
    run(&t, "/generate", "{}");
    assert_int_equal(t.reply.status, 200);
    assert_string_equal(t.reply.data.data, OK_D);
    assert_int_equal(t.workers[D0].asked, 4);
    assert_int_equal(metric(&t, "retries_total "), 3);
    for (int i = 1; i < 4; i++)
        assert_true(room_of(t.workers[D0].bodies[i]) !=
                    room_of(t.workers[D0].bodies[i - 1]));
    teardown(&t);

    setup(&t); /* but not for ever, and then the last answer stands */
    start(&t);
    script(&t.workers[P0], ANSWER, 503, "{\"detail\": \"starting\"}");
    script(&t.workers[D0], HOLD, 0, NULL);
    run(&t, "/generate", "{\"stream\": true}");
    assert_int_equal(t.reply.status, 503);
    assert_string_equal(t.reply.data.data, "{\"detail\": \"starting\"}");
    assert_int_equal(t.workers[P0].asked, 5);
    teardown(&t);

    setup(&t);
    t.options.disable_retries = true;
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], DIE, 0, NULL);
    run(&t, "/generate", "{}");
    assert_int_equal(t.reply.status, 502);
    assert_int_equal(t.workers[D0].asked, 1);
    assert_int_equal(metric(&t, "{kind=\"broken\"} "), 1);
    teardown(&t);
}

static void retry_takes_another_worker(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    second_workers(&t);
    start(&t);
    for (int i = P0; i <= P1; i++)
        script(&t.workers[i], HOLD, 0, NULL);
    script(&t.workers[D0], ANSWER, 503, "{}");
    script(&t.workers[D1], ANSWER, 200, OK_D);
    for (int i = 0; i < 10; i++) {
        run(&t, "/generate", "{}");
        assert_int_equal(t.reply.status, 200);
    }
    assert_int_equal(t.workers[D1].asked, 10); /* at most one retry each */
    assert_int_equal(metric(&t, "retries_total "), t.workers[D0].asked);
    teardown(&t);
}

static void ask_the_silent_early(struct test *t)
{
    t->options.silent_ms = 20;
    t->options.health_check_timeout_secs = 1;
    t->options.health_failure_threshold = 1;
}

/* A stopped process still accepts connections. */
static void hung_worker_is_left_for_another_pair(void **state)
{
    (void)state;
    static const int hung[] = {P0, D0};
    for (int i = 0; i < 2; i++) {
        struct test t;
        setup(&t);
        second_workers(&t);
        t.options.policy = "round_robin"; /* the first of both come first */
        ask_the_silent_early(&t);
        start(&t);
        script(&t.workers[P0], HOLD, 0, NULL);
        script(&t.workers[D0], HOLD, 0, NULL);
        for (int p = P0; p <= P1; p++)
            script(&t.workers[p], ANSWER, 200, OK_P);
        for (int d = D0; d <= D1; d++)
            script(&t.workers[d], ANSWER, 200, OK_D);
        t.workers[hung[i]].deaf = true;
        run(&t, "/generate", "{}");
        assert_int_equal(t.reply.status, 200);
        assert_string_equal(t.reply.data.data, OK_D);
        until(&t, &t.workers[P0].gone, 1);
        until(&t, &t.workers[D0].gone, 1);
        assert_int_equal(metric(&t, "retries_total "), 1);
        run(&t, "/generate", "{}"); /* which is not tried first again */
        assert_int_equal(t.reply.status, 200);
        assert_int_equal(t.workers[hung[i]].asked, 1);
        teardown(&t);
    }
}

static void hung_decode_ends_its_streams(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    ask_the_silent_early(&t);
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], STREAM, 200, SSE);
    t.workers[D0].deaf = true;
    run(&t, "/generate", "{\"stream\": true}");
    assert_int_equal(t.reply.status, 200);
    has(t.reply.data.data, SSE "data: {\"error\": {\"message\": \"decode ");
    has(t.reply.data.data, "does not answer");
    has(t.reply.data.data, "data: [DONE]\n\n");
    until(&t, &t.workers[P0].gone, 1);
    teardown(&t);
}

static void quiet_workers_that_answer_may_go_on(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    ask_the_silent_early(&t);
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], HOLD, 0, NULL);
    post(&t, "/generate", "{}");
    until(&t, &t.workers[D0].others, 3);
    has(t.workers[D0].other, "GET /v1/models");
    answer_held(&t.workers[P0], 200, OK_P);
    answer_held(&t.workers[D0], 200, OK_D);
    until(&t, &t.reply.done, 1);
    assert_int_equal(t.reply.status, 200);
    teardown(&t);
}

static void client_may_leave_between_attempts(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.retry_initial_backoff_ms = 50 * 1000;
    t.options.retry_max_backoff_ms = 50 * 1000;
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], ANSWER, 503, "{}");
    post(&t, "/generate", "{}");
    until(&t, &t.workers[D0].asked, 1);
    while (metric(&t, "retries_total ") != 1)
        ;
    reply_fini(&t.reply);
    while (metric(&t, "running_requests ") != 0)
        ;
    assert_int_equal(metric(&t, "{kind=\"client_left\"} "), 1);
    teardown(&t);
}

static void broken_stream_ends_with_an_error_event(void **state)
{
    (void)state;
    static const char *const starts[] = {SSE, SSE "data: {\"te"};
    for (int i = 0; i < 2; i++) {
        struct test t;
        setup(&t);
        start(&t);
        script(&t.workers[P0], HOLD, 0, NULL);
        script(&t.workers[D0], STREAM, 200, starts[i]);
        post(&t, "/generate", "{\"stream\": true}");
        until(&t, &t.reply.data_count, 1);
        http_drop(t.workers[D0].held);
        until(&t, &t.reply.done, 1);
        assert_int_equal(t.reply.rc, 0);
        assert_int_equal(t.reply.status, 200);
        char want[256];
        snprintf(want, sizeof want,
                 "%s%sdata: {\"error\": {\"message\": \"decode server %s: ",
                 starts[i], i ? "\n\n" : "", t.workers[D0].url);
        has(t.reply.data.data, want);
        has(t.reply.data.data, "\"code\": 502}}\n\ndata: [DONE]\n\n");
        until(&t, &t.workers[P0].gone, 1);
        assert_int_equal(t.workers[D0].asked, 1); /* bytes are out */
        assert_int_equal(metric(&t, "{kind=\"stream_broken\"} "), 1);
        teardown(&t);
    }
}

/* Once decode streams it has the KV cache: prefill may die. */
static void prefills_late_death_is_survived(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], STREAM, 200, SSE);
    post(&t, "/generate", "{\"stream\": true}");
    until(&t, &t.reply.data_count, 1);
    until(&t, &t.workers[P0].asked, 1);
    http_drop(t.workers[P0].held);
    while (metric(&t, "role=\"prefill\"} ") != 1)
        ;
    send_piece(&t.workers[D0], "data: [DONE]\n\n");
    until(&t, &t.reply.data_count, 2);
    end_stream(&t.workers[D0]);
    until(&t, &t.reply.done, 1);
    assert_string_equal(t.reply.data.data, SSE "data: [DONE]\n\n");
    teardown(&t);
}

static void silent_workers_end_in_504(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.request_timeout_secs = 1;
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], HOLD, 0, NULL);
    run(&t, "/generate", "{}");
    assert_int_equal(t.reply.status, 504);
    until(&t, &t.workers[P0].gone, 1);
    until(&t, &t.workers[D0].gone, 1);
    assert_int_equal(metric(&t, "{kind=\"timeout\"} "), 1);
    teardown(&t);
}

static void failing_worker_trips(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.cb_failure_threshold = 2;
    t.options.probe_ms = 50 * 1000;
    start(&t);
    script(&t.workers[P0], ANSWER, 500, "{}");
    script(&t.workers[D0], HOLD, 0, NULL);
    do { /* until the first probes came back: a good one ends a row */
        run(&t, "/readiness", NULL);
    } while (t.reply.status != 200);
    for (int i = 0; i < 2; i++) {
        run(&t, "/generate", "{}");
        assert_int_equal(t.reply.status, 500);
    }
    run(&t, "/generate", "{}");
    assert_int_equal(t.reply.status, 503);
    assert_int_equal(t.workers[P0].asked, 2);
    teardown(&t);
}

/* --- logprobs ------------------------------------------------------------ */

#define LP(text, list)                                                         \
    "{\"text\": \"" text "\", \"meta_info\": {\"input_token_logprobs\": " list \
    "}"

static void prompt_logprobs_are_merged(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], ANSWER, 200, LP("d", "[[-3.10, 3]]") "}");
    post(&t, "/generate", "{\"text\": \"a\", \"return_logprob\": true}");
    until(&t, &t.workers[P0].asked, 1);
    until(&t, &t.workers[D0].asked, 1);
    assert_int_equal(t.reply.headers, 0); /* waits for prefill's */
    answer_held(&t.workers[P0], 200, LP("p", "[[-1.0, 1], [-2.0, 2]]") "}");
    until(&t, &t.reply.done, 1);
    assert_string_equal(t.reply.data.data,
                        LP("d", "[[-1.0, 1], [-2.0, 2], [-3.10, 3]]") "}");
    teardown(&t);

    setup(&t); /* a batch */
    start(&t);
    script(&t.workers[P0], ANSWER, 200,
           "[" LP("p", "[1]") "}, " LP("q", "[2]") "}]");
    script(&t.workers[D0], ANSWER, 200,
           "[" LP("d", "[7]") "}, " LP("e", "[8]") "}]");
    run(&t, "/generate",
        "{\"text\": [\"a\", \"b\"], \"return_logprob\": true}");
    assert_string_equal(t.reply.data.data,
                        "[" LP("d", "[1, 7]") "}, " LP("e", "[2, 8]") "}]");
    /* the OpenAI routes have no such answer: nothing is waited for */
    script(&t.workers[P0], HOLD, 0, NULL);
    t.workers[P0].asked = 1;
    run(&t, "/v1/completions", "{\"return_logprob\": true}");
    assert_int_equal(t.reply.status, 200);
    teardown(&t);

    setup(&t); /* prefill fails: no half answer */
    start(&t);
    script(&t.workers[P0], ANSWER, 400, "{\"m\": 1}");
    script(&t.workers[D0], ANSWER, 200, LP("d", "[7]") "}");
    run(&t, "/generate", "{\"text\": \"a\", \"return_logprob\": true}");
    assert_int_equal(t.reply.status, 400);
    assert_string_equal(t.reply.data.data, "{\"m\": 1}");
    teardown(&t);
}

static void prompt_logprobs_are_merged_into_streams(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    start(&t);
    script(&t.workers[P0], STREAM, 200,
           "data: " LP("p",
                       "[1]") ", \"index\": 0}\n\n"
                              "data: " LP(
                                  "q",
                                  "[2]") ", \"index\": 1}\n\ndata: [DONE]\n\n");
    script(
        &t.workers[D0], STREAM, 200,
        "data: " LP("d", "[7]") ", \"index\": 0}\n\n"
                                "data: " LP("e", "null") ", \"index\": 1}\n\n");
    post(&t, "/generate", "{\"stream\": true, \"return_logprob\": true}");
    until(&t, &t.workers[P0].asked, 1);
    until(&t, &t.workers[D0].asked, 1);
    assert_int_equal(t.reply.headers, 0);
    end_stream(&t.workers[P0]);
    until(&t, &t.reply.data_count, 1);
    send_piece(&t.workers[D0], "data: {\"text\": \"f\"}\n\ndata: [DO");
    send_piece(&t.workers[D0], "NE]\n\n");
    end_stream(&t.workers[D0]);
    until(&t, &t.reply.done, 1);
    assert_string_equal(
        t.reply.data.data,
        "data: " LP(
            "d",
            "[1, 7]") ", \"index\": 0}\n\n"
                      "data: " LP(
                          "e",
                          "[2]") ", \"index\": 1}\n\n"
                                 "data: {\"text\": \"f\"}\n\ndata: [DONE]\n\n");
    teardown(&t);
}

/* --- headers, keys, limits ----------------------------------------------- */

static void allowed_headers_pass_both_ways(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    start(&t);
    script(&t.workers[P0], ANSWER, 200, OK_P);
    script(&t.workers[D0], ANSWER, 200, OK_D);
    const struct http_header headers[] = {
        {"Authorization", "Bearer k"}, {"X-Request-ID", "r1"},
        {"traceparent", "00-ab"},      {"Cookie", "secret"},
        {"Accept-Encoding", "br"},     {"X-Request-Id-Extra", "e"},
        {"Origin", "http://page"},     {NULL, NULL}};
    ask(&t, &t.reply, "/generate", "{}", headers);
    until(&t, &t.reply.done, 1);
    until(&t, &t.workers[P0].asked, 1);
    for (int i = P0; i <= D0; i += D0 - P0) {
        const char *got = t.workers[i].headers;
        has(got, "Authorization: Bearer k\n");
        has(got, "X-Request-ID: r1\n");
        has(got, "X-Request-Id-Extra: e\n");
        has(got, "traceparent: 00-ab\n");
        has(got, "Content-Type: application/json\n");
        assert_null(strstr(got, "Cookie"));
        assert_null(strstr(got, "Accept-Encoding"));
    }
    has(t.reply.all_headers, "X-Request-Id: of-worker\n");
    has(t.reply.all_headers, "Access-Control-Allow-Origin: *\n");
    teardown(&t);
}

static void router_key_guards_and_is_shown_to_workers(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.api_key = "k";
    start(&t);
    script(&t.workers[P0], ANSWER, 200, OK_P);
    script(&t.workers[D0], ANSWER, 200, OK_D);
    run(&t, "/generate", "{}");
    assert_int_equal(t.reply.status, 401);
    assert_int_equal(t.workers[D0].asked, 0);
    run(&t, "/health", NULL);
    assert_int_equal(t.reply.status, 200);
    const struct http_header headers[] = {{"Authorization", "Bearer k"},
                                          {NULL, NULL}};
    reply_fini(&t.reply);
    ask(&t, &t.reply, "/generate", "{}", headers);
    until(&t, &t.reply.done, 1);
    assert_int_equal(t.reply.status, 200);
    has(t.workers[D0].headers, "Authorization: Bearer k\n");
    teardown(&t);
}

static void bad_requests_reach_no_worker(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.max_payload_size = 1000;
    start(&t);
    static const char *const bad[] = {"{", "[]", "", "{\"a\": 01}", "null"};
    for (int i = 0; i < 5; i++) {
        run(&t, "/generate", bad[i]);
        assert_int_equal(t.reply.status, 400);
        has(t.reply.data.data, "{\"error\":{\"message\":\"");
        has(t.reply.data.data, "\"detail\":\"");
    }
    char long_body[1200];
    memset(long_body, ' ', sizeof long_body);
    long_body[sizeof long_body - 1] = 0;
    run(&t, "/generate", long_body);
    assert_int_equal(t.reply.status, 413);
    run(&t, "/generate", NULL);
    assert_int_equal(t.reply.status, 405);
    run(&t, "/v1/embeddings", "{}");
    assert_int_equal(t.reply.status, 404);
    assert_int_equal(metric(&t, "{kind=\"bad_request\"} "), 5);
    assert_int_equal(t.workers[P0].asked + t.workers[D0].asked, 0);
    teardown(&t);
}

static void requests_over_the_limit_get_429(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.max_concurrent_requests = 1;
    start(&t);
    script(&t.workers[P0], ANSWER, 200, OK_P);
    script(&t.workers[D0], HOLD, 0, NULL);
    struct reply first = {0};
    ask(&t, &first, "/generate", "{}", NULL);
    until(&t, &t.workers[D0].asked, 1);
    run(&t, "/generate", "{}");
    assert_int_equal(t.reply.status, 429);
    answer_held(&t.workers[D0], 200, OK_D);
    until(&t, &first.done, 1);
    assert_int_equal(first.status, 200);
    reply_fini(&first);
    teardown(&t);
}

/* --- the other endpoints ------------------------------------------------- */

static void health_routes_tell_the_truth(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    second_workers(&t);
    start(&t);
    do /* ready once a probe of each role was answered, not before */
        run(&t, "/readiness", NULL);
    while (t.reply.status == 503);
    assert_int_equal(t.reply.status, 200);
    has(t.reply.data.data, "\"healthy_workers\": 4");
    run(&t, "/health_generate", NULL);
    assert_int_equal(t.reply.status, 200);
    assert_string_equal(t.workers[D1].other, "GET /health_generate ");
    t.workers[D0].other_status = 503;
    run(&t, "/health_generate", NULL);
    assert_int_equal(t.reply.status, 200); /* one decode is left */
    t.workers[D1].other_status = 503;
    run(&t, "/health_generate", NULL);
    assert_int_equal(t.reply.status, 503);
    has(t.reply.data.data, "\"role\": \"decode\", \"status\": 503");
    teardown(&t);
}

static void admin_routes_reach_every_worker(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    second_workers(&t);
    start(&t);
    run(&t, "/flush_cache", "");
    assert_int_equal(t.reply.status, 200);
    for (int i = P0; i <= D1; i++)
        assert_string_equal(t.workers[i].other, "POST /flush_cache ");
    run(&t, "/abort_request", "{\"rid\": \"x\"}");
    assert_int_equal(t.reply.status, 200);
    for (int i = P0; i <= D1; i++)
        assert_string_equal(t.workers[i].other,
                            "POST /abort_request {\"rid\": \"x\"}");
    t.workers[P1].other_status = 400;
    t.workers[P1].other_body = "busy";
    run(&t, "/flush_cache", "");
    assert_int_equal(t.reply.status, 400);
    has(t.reply.data.data, "\"status\": 400, \"body\": \"busy\"");
    teardown(&t);
}

static void infos_are_collected_and_proxied(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    start(&t);
    t.workers[P0].other_body = "{\"model_path\": \"m\", \"v\": 1.10}";
    t.workers[D0].other_body = "{\"internal_states\": [{\"a\": 1}, 2]}";
    run(&t, "/get_server_info", NULL);
    assert_string_equal(t.reply.data.data,
                        "{\"internal_states\": [{\"a\": 1}, 2], \"prefill\": "
                        "[{\"model_path\": \"m\", \"v\": 1.10}], \"decode\": "
                        "[{\"internal_states\": [{\"a\": 1}, 2]}]}");
    t.workers[D0].other_body = "{}";
    run(&t, "/server_info", NULL);
    has(t.reply.data.data, "{\"internal_states\": [{\"last_gen_throughput\": "
                           "0.0, \"avg_spec_accept_length\": null}]");
    static const char *const paths[] = {"/get_model_info", "/model_info",
                                        "/v1/models", "/v1/models/m"};
    for (int i = 0; i < 4; i++) {
        char want[64];
        snprintf(want, sizeof want, "GET %s ", paths[i]);
        run(&t, paths[i], NULL);
        assert_int_equal(t.reply.status, 200);
        assert_string_equal(t.reply.data.data, t.workers[P0].other_body);
        assert_string_equal(t.workers[P0].other, want);
    }
    t.workers[P0].other_status = 418;
    run(&t, "/get_model_info", NULL);
    assert_int_equal(t.reply.status, 502);
    has(t.reply.data.data, "status 418: {\\\"model_path\\\"");
    run(&t, "/v1/models/absent", NULL);
    assert_int_equal(t.reply.status, 418);
    teardown(&t);
}

/* --- life ---------------------------------------------------------------- */

static void drained(void *arg)
{
    struct test *t = arg;
    t->workers[P1].others++;
    look(t);
}

static void router_drains_and_closes_over_live_requests(void **state)
{
    (void)state;
    size_t before = mem_live();
    struct test t;
    setup(&t);
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], STREAM, 200, SSE);
    post(&t, "/generate", "{\"stream\": true}");
    until(&t, &t.reply.data_count, 1);
    router_drain(t.router, 60 * 1000, drained, &t);
    end_stream(&t.workers[D0]);
    until(&t, &t.reply.done, 1);
    until(&t, &t.workers[P1].others, 1);
    teardown(&t); /* prefill still lingers */
    setup(&t);
    start(&t);
    script(&t.workers[P0], HOLD, 0, NULL);
    script(&t.workers[D0], HOLD, 0, NULL);
    post(&t, "/generate", "{}");
    until(&t, &t.workers[D0].asked, 1);
    teardown(&t);
    assert_int_equal(mem_live(), before);
}

static void options_are_checked(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "--prefill http://a --decode http://b",
        "--pd-disaggregation --prefill http://a",
        "--pd-disaggregation --decode http://b",
        "--pd-disaggregation --prefill http://a 70000",
        "--pd-disaggregation --prefil http://a",
        "--policy best",
    };
    static const char *const texts[] = {"--pd-disaggregation",    "no --decode",
                                        "no --prefill",           "1 to 65535",
                                        "did you mean --prefill", "known are"};
    struct words words;
    struct router_options *o = mem_must(1, sizeof *o);
    for (int i = 0; i < 6; i++) {
        struct why why = {0};
        assert_int_equal(parse(o, &words, cases[i], &why), ERR_INVALID);
        has(why.text, texts[i]);
    }
    assert_int_equal(parse(o, &words,
                           "--pd-disaggregation --prefill http://a:1 none "
                           "--prefill http://b:2 6657 --decode http://c:3 "
                           "--dp-aware --cache-threshold 0.5",
                           NULL),
                     0);
    assert_string_equal(o->host, "0.0.0.0");
    assert_string_equal(o->policy, "cache_aware");
    assert_true(o->cache_threshold == 0.5 && o->balance_rel_threshold == 1.5);
    assert_int_equal(o->port, 30000);
    assert_int_equal(o->request_timeout_secs, 1800);
    assert_int_equal(o->prefill_count, 2);
    assert_int_equal(o->prefill[0].bootstrap_port, -1);
    assert_int_equal(o->prefill[1].bootstrap_port, 6657);
    /* a URL without a scheme cannot be asked */
    struct loop *loop;
    struct router *router;
    struct why why = {0};
    CHECK(!loop_create(&loop, NULL));
    o->decode[0].url = "c:3";
    assert_int_equal(router_create(&router, loop, o, &why), ERR_INVALID);
    has(why.text, "--decode c:3");
    loop_destroy(loop);
    mem_free(o);
}

TESTS(T(both_legs_get_the_same_body_and_decode_answers),
      T(decodes_bytes_do_not_wait_for_prefill),
      T(stream_headers_follow_prefills_good_end),
      T(worker_errors_reach_the_client), T(prefills_error_event_is_an_error),
      T(prefill_may_explain_decodes_failure), T(leaving_client_cancels_both),
      T(refused_worker_is_left_out_until_a_probe),
      T(all_refuse_is_502_then_503),
      T(unready_workers_are_tried_again_with_new_rooms),
      T(retry_takes_another_worker), T(hung_worker_is_left_for_another_pair),
      T(hung_decode_ends_its_streams), T(quiet_workers_that_answer_may_go_on),
      T(client_may_leave_between_attempts),
      T(broken_stream_ends_with_an_error_event),
      T(prefills_late_death_is_survived), T(silent_workers_end_in_504),
      T(failing_worker_trips), T(prompt_logprobs_are_merged),
      T(prompt_logprobs_are_merged_into_streams),
      T(allowed_headers_pass_both_ways),
      T(router_key_guards_and_is_shown_to_workers),
      T(bad_requests_reach_no_worker), T(requests_over_the_limit_get_429),
      T(health_routes_tell_the_truth), T(admin_routes_reach_every_worker),
      T(infos_are_collected_and_proxied),
      T(router_drains_and_closes_over_live_requests), T(options_are_checked))
