/* Which workers get a request, and those that come and go. */
#include "tests/router/rig.h"

static void policies_spread_requests(void **state)
{
    (void)state;
    static const char *const policies[] = {"round_robin", "power_of_two",
                                           "random", "cache_aware"};
    for (int i = 0; i < 4; i++) {
        struct test t;
        setup(&t);
        t.options.policy = policies[i];
        second_workers(&t);
        start(&t);
        for (int w = P0; w <= D1; w++)
            script(&t.workers[w], ANSWER, 200, w < D0 ? OK_P : OK_D);
        if (i == 1) { /* one decode worker is busy: the other is taken */
            for (int w = D0; w <= D1; w++)
                t.workers[w].steps[0] = (struct step){HOLD, 0, NULL};
            struct reply held = {0};
            ask(&t, &held, "/generate", "{}", NULL);
            while (!t.workers[D0].asked && !t.workers[D1].asked)
                metric(&t, "retries_total ");
            int busy = t.workers[D0].asked ? D0 : D1;
            int idle = busy == D0 ? D1 : D0;
            t.workers[idle].steps[0] = (struct step){ANSWER, 200, OK_D};
            for (int k = 0; k < 8; k++)
                run(&t, "/generate", "{}");
            assert_int_equal(t.workers[busy].asked, 1);
            assert_int_equal(t.workers[idle].asked, 8);
            reply_fini(&held);
        } else {
            for (int k = 0; k < 40; k++)
                run(&t, "/generate", "{}");
            int low = i == 0 ? 20 : 1;
            assert_true(t.workers[D0].asked >= low);
            assert_true(t.workers[D1].asked >= low);
            assert_int_equal(t.workers[D0].asked + t.workers[D1].asked, 40);
        }
        teardown(&t);
    }
}

/* Each turn of a conversation has all turns before it. */
static void turn_body(char *body, size_t n, int conversation, int turns)
{
    snprintf(body, n, "{\"messages\": [");
    for (int i = 0; i <= turns; i++)
        snprintf(body + strlen(body), n - strlen(body),
                 "%s{\"role\": \"user\", \"content\": \"%d %0150d\"}",
                 i ? ", " : "", conversation, i);
    snprintf(body + strlen(body), n - strlen(body), "]}");
}

/* Which of two workers took a turn. */
static int take_turn(struct test *t, int a, int conversation, int turns)
{
    char body[2048];
    int before = t->workers[a].asked;
    turn_body(body, sizeof body, conversation, turns);
    run(t, "/v1/chat/completions", body);
    assert_int_equal(t->reply.status, 200);
    return t->workers[a].asked > before ? a : a + 1;
}

static void conversations_stay_where_their_kv_is(void **state)
{
    (void)state;
    enum { CONVERSATIONS = 8, TURNS = 6 };
    struct test t;
    setup(&t);
    t.options.prefill_policy = "round_robin"; /* each pool has its own */
    t.options.decode_policy = "cache_aware";
    second_workers(&t);
    start(&t);
    for (int w = P0; w <= D1; w++)
        script(&t.workers[w], ANSWER, 200, w < D0 ? OK_P : OK_D);
    int home[CONVERSATIONS];
    for (int turn = 0; turn < TURNS; turn++)
        for (int c = 0; c < CONVERSATIONS; c++) {
            int taken = take_turn(&t, D0, c, turn);
            if (turn == 0)
                home[c] = taken;
            else
                assert_int_equal(taken, home[c]);
        }
    assert_int_equal(t.workers[D0].asked, t.workers[D1].asked);
    assert_int_equal(t.workers[P0].asked, t.workers[P1].asked);
    teardown(&t);
}

static void uneven_load_goes_before_the_cache(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.policy = "cache_aware";
    t.options.balance_abs_threshold = 2;
    second_workers(&t);
    start(&t);
    for (int w = P0; w <= P1; w++)
        script(&t.workers[w], ANSWER, 200, OK_P);
    for (int w = D0; w <= D1; w++)
        script(&t.workers[w], ANSWER, 200, OK_D);
    int home = take_turn(&t, D0, 1, 3), other = home == D0 ? D1 : D0;
    t.workers[home].steps[0] = (struct step){HOLD, 0, NULL};
    struct reply held[3] = {0};
    char body[2048];
    for (int i = 0; i < 3; i++) { /* three at its home, none at the other */
        turn_body(body, sizeof body, 1, 4 + i);
        ask(&t, &held[i], "/v1/chat/completions", body, NULL);
        until(&t, &t.workers[home].asked, 2 + i);
    }
    assert_int_equal(take_turn(&t, D0, 1, 7), other);
    for (int i = 0; i < 3; i++)
        reply_fini(&held[i]);
    until(&t, &t.workers[home].gone, 3);
    teardown(&t);
}

static void a_worker_that_was_down_is_a_stranger(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.policy = "cache_aware";
    second_workers(&t);
    start(&t);
    for (int w = P0; w <= P1; w++)
        script(&t.workers[w], ANSWER, 200, OK_P);
    for (int w = D0; w <= D1; w++)
        script(&t.workers[w], ANSWER, 200, OK_D);
    int home = take_turn(&t, D0, 1, 3), other = home == D0 ? D1 : D0;
    http_server_close(t.workers[home].server);
    t.workers[home].server = NULL;
    assert_int_equal(take_turn(&t, D0, 1, 4), other); /* after a refusal */
    int probes = t.workers[home].probes;
    worker_listen(&t.workers[home]);
    until(&t, &t.workers[home].probes, probes + 1);
    char line[128];
    snprintf(line, sizeof line, "worker_health{worker=\"%s\",role=\"decode\"} ",
             t.workers[home].url);
    while (metric(&t, line) != 1)
        ;
    assert_int_equal(take_turn(&t, D0, 1, 5), other);
    teardown(&t);
}

/* --- members ------------------------------------------------------------- */

static const struct http_header with_key[] = {{"Authorization", "Bearer k"},
                                              {NULL, NULL}};

/* A call with the router's key; waits for its status. */
static int call(struct test *t, const char *method, const char *path,
                const char *body)
{
    char url[256];
    reply_fini(&t->reply);
    snprintf(url, sizeof url, "%s%s", t->url, path);
    t->reply.t = t;
    buf_init(&t->reply.data, 1 << 24);
    buf_puts(&t->reply.data, "");
    struct http_call_options o = {
        .method = method,
        .url = url,
        .headers = with_key,
        .body = body,
        .body_bytes = body ? strlen(body) : 0,
        .on_headers = on_headers,
        .on_data = on_data,
        .on_done = on_done,
        .arg = &t->reply,
    };
    CHECK(!http_call(t->client, &o, &t->reply.call));
    until(t, &t->reply.done, 1);
    assert_int_equal(t->reply.rc, 0);
    return t->reply.status;
}

static int add(struct test *t, const char *url, const char *type)
{
    char body[256];
    snprintf(body, sizeof body,
             "{\"url\": \"%s/\", \"worker_type\": \"%s\", "
             "\"bootstrap_port\": 6657, \"priority\": 5}",
             url, type);
    return call(t, "POST", "/workers", body);
}

static int del(struct test *t, const char *url)
{
    char path[128];
    snprintf(path, sizeof path, "/workers/%s", url);
    return call(t, "DELETE", path, NULL);
}

static void workers_come_while_it_runs(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.api_key = "k";
    t.options.prefill_count = t.options.decode_count = 0;
    start(&t);
    script(&t.workers[P0], ANSWER, 200, OK_P);
    script(&t.workers[D0], ANSWER, 200, OK_D);
    assert_int_equal(call(&t, "POST", "/generate", "{}"), 503);
    has(t.reply.data.data, "No available servers");
    assert_int_equal(call(&t, "GET", "/readiness", NULL), 503);
    assert_int_equal(add(&t, t.workers[P0].url, "prefill"), 202);
    has(t.reply.data.data, "\"status\":\"accepted\"");
    assert_int_equal(add(&t, t.workers[D0].url, "decode"), 202);
    while (call(&t, "GET", "/readiness", NULL) != 200)
        ;
    assert_int_equal(call(&t, "POST", "/generate", "{}"), 200);
    has(t.workers[D0].bodies[0], "\"bootstrap_port\": 6657");
    assert_int_equal(call(&t, "GET", "/workers", NULL), 200);
    has(t.reply.data.data, "\"total\":2");
    has(t.reply.data.data, "\"prefill_count\":1");
    has(t.reply.data.data, t.workers[D0].url);
    /* One that does not answer gets nothing. */
    assert_int_equal(add(&t, t.workers[CLOSED].url, "decode"), 202);
    for (int i = 0; i < 6; i++)
        assert_int_equal(call(&t, "POST", "/generate", "{}"), 200);
    assert_int_equal(t.workers[D0].asked, 7);
    assert_int_equal(metric(&t, "retries_total "), 0);
    teardown(&t);
}

static void workers_leave_with_their_last_request(void **state)
{
    (void)state;
    size_t before = mem_live();
    struct test t;
    setup(&t);
    t.options.api_key = "k";
    second_workers(&t);
    t.options.policy = "round_robin"; /* the first of both come first */
    start(&t);
    script(&t.workers[P0], ANSWER, 200, OK_P);
    script(&t.workers[P1], ANSWER, 200, OK_P);
    script(&t.workers[D0], HOLD, 0, NULL);
    script(&t.workers[D1], ANSWER, 200, OK_D);
    struct reply held = {0};
    ask(&t, &held, "/generate", "{}", with_key);
    until(&t, &t.workers[D0].asked, 1);
    assert_int_equal(del(&t, t.workers[D0].url), 202);
    assert_int_equal(del(&t, t.workers[D0].url), 404);
    has(t.reply.data.data, "not found");
    for (int i = 0; i < 4; i++)
        assert_int_equal(call(&t, "POST", "/generate", "{}"), 200);
    assert_int_equal(t.workers[D0].asked, 1);
    assert_int_equal(call(&t, "GET", "/workers", NULL), 200);
    has(t.reply.data.data, "\"removed\":true");
    has(t.reply.data.data, "\"total\":3");
    /* The same URL may come back meanwhile. */
    assert_int_equal(add(&t, t.workers[D0].url, "decode"), 202);
    answer_held(&t.workers[D0], 200, OK_D);
    until(&t, &held.done, 1);
    assert_int_equal(held.status, 200);
    assert_int_equal(call(&t, "GET", "/workers", NULL), 200);
    assert_null(strstr(t.reply.data.data, "\"removed\":true"));
    /* Percent-encoded, as curl users write it. */
    char path[128];
    snprintf(path, sizeof path, "/workers/http%%3A%%2F%%2F127.0.0.1%%3A%d",
             t.workers[P1].port);
    assert_int_equal(call(&t, "GET", path, NULL), 200);
    has(t.reply.data.data, "\"worker_type\":\"prefill\"");
    assert_int_equal(call(&t, "DELETE", path, NULL), 202);
    reply_fini(&held);
    teardown(&t);
    assert_int_equal(mem_live(), before);
}

static void a_hung_worker_that_leaves_ends_its_requests(void **state)
{
    (void)state;
    struct test t;
    setup(&t);
    t.options.api_key = "k";
    t.options.disable_retries = true;
    t.options.silent_ms = 20;
    t.options.health_check_timeout_secs = 1;
    t.options.health_failure_threshold = 1;
    start(&t);
    script(&t.workers[P0], ANSWER, 200, OK_P);
    script(&t.workers[D0], HOLD, 0, NULL);
    struct reply held = {0};
    ask(&t, &held, "/generate", "{}", with_key);
    until(&t, &t.workers[D0].asked, 1);
    assert_int_equal(del(&t, t.workers[D0].url), 202);
    t.workers[D0].deaf = true;
    until(&t, &held.done, 1);
    assert_int_equal(held.status, 502);
    reply_fini(&held);
    teardown(&t);
}

static void who_may_change_members_and_how(void **state)
{
    (void)state;
    static const struct {
        const char *body, *text;
    } bad[] = {
        {"{", "JSON"},
        {"{\"worker_type\": \"decode\"}", "url is missing"},
        {"{\"url\": 5, \"worker_type\": \"decode\"}", "url"},
        {"{\"url\": \"http://a:1\"}", "worker_type must be"},
        {"{\"url\": \"http://a:1\", \"worker_type\": \"regular\"}",
         "worker_type must be"},
        {"{\"url\": \"a:1\", \"worker_type\": \"decode\"}", "not of the form"},
        {"{\"url\": \"http://a:1\", \"worker_type\": \"prefill\", "
         "\"bootstrap_port\": 70000}",
         "bootstrap_port"},
    };
    struct test t;
    setup(&t);
    start(&t); /* without a key */
    assert_int_equal(add(&t, "http://127.0.0.1:1", "decode"), 403);
    has(t.reply.data.data, "--api-key");
    assert_int_equal(del(&t, t.workers[D0].url), 403);
    assert_int_equal(call(&t, "GET", "/workers", NULL), 200);
    teardown(&t);
    setup(&t);
    t.options.api_key = "k";
    start(&t);
    run(&t, "/workers", "{}"); /* without showing it */
    assert_int_equal(t.reply.status, 401);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(call(&t, "POST", "/workers", bad[i].body), 400);
        has(t.reply.data.data, bad[i].text);
    }
    assert_int_equal(add(&t, t.workers[P0].url, "prefill"), 409);
    assert_int_equal(call(&t, "GET", "/workers/http://127.0.0.1:1", NULL), 404);
    teardown(&t);
}

TESTS(T(policies_spread_requests), T(conversations_stay_where_their_kv_is),
      T(uneven_load_goes_before_the_cache),
      T(a_worker_that_was_down_is_a_stranger), T(workers_come_while_it_runs),
      T(workers_leave_with_their_last_request),
      T(a_hung_worker_that_leaves_ends_its_requests),
      T(who_may_change_members_and_how))
