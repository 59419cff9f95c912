#include "tests/serve/rig.h"

#include "base/log.h"

#include <math.h>

static const struct server_setup plain;

static void health_waits_for_a_sign_of_life(void **state)
{
    (void)state;
    struct server_setup setup = {.mode = PD_DECODE};
    struct server s;
    server_run(&s, &setup);
    int one = server_send(&s, "GET", "/health", "");
    struct fake_request r = fake_next(s.node);
    assert_string_equal(r.host, "2.2.2.2");
    assert_true(r.has_room && r.room == 0);
    assert_int_equal(r.token_count, 1);
    assert_int_equal(r.sampling.max_new_tokens, 1);
    assert_true(r.sampling.temperature == 0);
    /* A second one shares the probe, and leaving does not harm it. */
    int two = server_send(&s, "GET", "/health_generate", "");
    int gone = server_send(&s, "GET", "/health_generate", "");
    close(gone);
    mem_free(server_ask(&s, "GET", "/ping", "", 200));
    struct engine_event events[] = {fake_token('a', "a", 1),
                                    fake_done(FINISH_LENGTH, 1)};
    fake_play(s.node, r.id, events, 2);
    char *body = answer_ok(one);
    assert_string_equal(body, "");
    mem_free(body);
    mem_free(answer_ok(two));
    server_stop(&s);
}

/* A busy engine is a healthy one: any event answers. */
static void others_events_answer_health(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &plain);
    int work = server_post(&s, "/generate", "{\"text\":\"A\"}");
    struct fake_request r = fake_next(s.node);
    int health = server_send(&s, "GET", "/health_generate", "");
    struct fake_request probe = fake_next(s.node);
    assert_false(probe.has_room);
    struct engine_event a = fake_token('a', "a", 1);
    fake_play(s.node, r.id, &a, 1);
    mem_free(answer_ok(health));
    close(work);
    assert_int_equal(fake_next_abort(s.node).id, r.id);
    server_stop(&s);
}

static void a_dead_engine_is_503(void **state)
{
    (void)state;
    struct server_setup setup = {.options.health_timeout_ms = 50};
    struct server s;
    server_run(&s, &setup);
    mem_free(server_ask(&s, "GET", "/health", "", 503));
    assert_int_equal(fake_next_abort(s.node).id, fake_next(s.node).id);
    server_stop(&s);
}

static void warm(void *arg, int rc)
{
    rig_say(arg, rc ? "cold" : "warm");
}

static void the_warm_up_makes_it_ready(void **state)
{
    (void)state;
    struct server_setup setup = {.options.plain_health = true,
                                 .mode = PD_PREFILL};
    struct server s;
    server_open(&s, &setup);
    serve_warm_up(s.serve, warm, &s.rig);
    rig_run(&s.rig);
    mem_free(server_ask(&s, "GET", "/health", "", 503));
    mem_free(server_ask(&s, "GET", "/health_generate", "", 503));
    struct fake_request r = fake_next(s.node);
    assert_int_equal(r.token_count, 4);
    assert_int_equal(r.tokens[3], 3);
    assert_int_equal(r.sampling.max_new_tokens, 8);
    assert_true(r.sampling.ignore_eos);
    assert_string_equal(r.host, "2.2.2.2");
    struct engine_event done = fake_done(FINISH_LENGTH, 1);
    fake_play(s.node, r.id, &done, 1);
    rig_expect(&s.rig, "warm");
    mem_free(server_ask(&s, "GET", "/health", "", 200));
    server_stop(&s);
}

static void a_failed_warm_up_is_told(void **state)
{
    (void)state;
    struct server_setup setup = {.refuse = ERR_INVALID};
    struct server s;
    server_open(&s, &setup);
    serve_warm_up(s.serve, warm, &s.rig);
    rig_expect(&s.rig, "cold");
    rig_run(&s.rig);
    mem_free(server_ask(&s, "GET", "/health", "", 503));
    server_stop(&s);
}

static void the_server_tells_what_it_is(void **state)
{
    (void)state;
    struct server_setup setup = {.mode = PD_DECODE,
                                 .options = {.served_model_name = "tiny/one",
                                             .server_info = "{\"tp_size\":4}",
                                             .max_total_tokens = 32,
                                             .version = "1.2"}};
    struct server s;
    server_run(&s, &setup);
    json_t *v = json_of(server_ask(&s, "GET", "/v1/models", "", 200));
    expect_at(v, "object", "'list'");
    expect_at(v, "data.0.id", "'tiny/one'");
    expect_at(v, "data.0.max_model_len", "64");
    json_decref(v);
    v = json_of(server_ask(&s, "GET", "/v1/models/tiny/one", "", 200));
    expect_at(v, "root", "'tiny/one'");
    json_decref(v);
    v = json_of(server_ask(&s, "GET", "/v1/models/other", "", 404));
    expect_at(v, "error.code", "'model_not_found'");
    json_decref(v);
    v = json_of(server_ask(&s, "GET", "/get_model_info", "", 200));
    expect_at(v, "model_path", "'models/tiny'");
    expect_at(v, "tokenizer_path", "'models/tiny'");
    expect_at(v, "is_generation", "true");
    expect_at(v, "preferred_sampling_params", "null");
    json_decref(v);
    v = json_of(server_ask(&s, "GET", "/server_info", "", 200));
    expect_at(v, "tp_size", "4");
    expect_at(v, "status", "'ready'");
    expect_at(v, "max_total_num_tokens", "32");
    expect_at(v, "max_req_input_len", "26");
    expect_at(v, "version", "'1.2'");
    expect_at(v, "internal_states.0.tp_size", "4");
    expect_at(v, "internal_states.0.last_gen_throughput", "12.5");
    expect_at(v, "internal_states.0.memory_usage.token_capacity", "32");
    expect_at(v, "disaggregation.rooms", "3");
    json_decref(v);
    v = json_of(server_ask(&s, "GET", "/get_load", "", 200));
    expect_at(v, "0",
              "{'dp_rank':0,'num_reqs':3,'num_waiting_reqs':1,"
              "'num_tokens':8}");
    json_decref(v);
    v = json_of(server_ask(&s, "GET", "/get_weight_version", "", 200));
    expect_at(v, "weight_version", "'default'");
    json_decref(v);
    server_stop(&s);
}

static void the_key_guards_all_but_health_and_metrics(void **state)
{
    (void)state;
    struct server_setup setup = {.options = {.api_key = "secret",
                                             .plain_health = true,
                                             .enable_metrics = true}};
    struct server s;
    server_run(&s, &setup);
    mem_free(server_ask(&s, "GET", "/health", "", 200));
    mem_free(server_ask(&s, "GET", "/metrics", "", 200));
    char *body = server_ask(&s, "GET", "/v1/models", "", 401);
    assert_non_null(strstr(body, "Unauthorized"));
    mem_free(body);
    const char *answer =
        raw_ask(s.rig.port, "GET /v1/models HTTP/1.1\r\nHost: x\r\n"
                            "Connection: close\r\n"
                            "Authorization: Bearer secret\r\n\r\n");
    assert_non_null(strstr(answer, " 200 OK"));
    server_stop(&s);
}

static void the_cache_is_flushed_when_idle(void **state)
{
    (void)state;
    struct server s;
    server_open(&s, &plain);
    serve_set_ready(s.serve);
    fake_set_flush(s.node, ERR_AGAIN);
    rig_run(&s.rig);
    mem_free(server_ask(&s, "POST", "/flush_cache", "", 400));
    server_stop(&s);
    server_run(&s, &plain);
    char *body = server_ask(&s, "GET", "/flush_cache", "", 200);
    assert_string_equal(body, "Cache flushed.\n");
    mem_free(body);
    server_stop(&s);
}

static void text_and_tokens(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &plain);
    static const struct {
        const char *path, *request, *answer;
        int status;
    } cases[] = {
        {"/tokenize", "{\"prompt\":\"Hi\"}",
         "{\"tokens\":[72,105],\"count\":2,\"max_model_len\":64}", 200},
        {"/v1/tokenize", "{\"prompt\":[\"H\",\"\",\"<|end|>\"]}",
         "{\"tokens\":[[72],[],[256]],\"count\":[1,0,1],\"max_model_len\":64}",
         200},
        {"/detokenize", "{\"tokens\":[72,256,105,195]}",
         "{\"text\":\"Hi\xef\xbf\xbd\"}", 200},
        {"/v1/detokenize",
         "{\"tokens\":[[72],[256]],\"skip_special_tokens\":false}",
         "{\"text\":[\"H\",\"<|end|>\"]}", 200},
        {"/tokenize", "{\"prompt\":1}", NULL, 400},
        {"/detokenize", "{\"tokens\":[257]}", NULL, 400},
        {"/detokenize", "{\"tokens\":[[1],2]}", NULL, 400},
        {"/detokenize", "[1]", NULL, 400},
        {"/abort_request", "{\"rid\":5}", NULL, 400},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *body = server_ask(&s, "POST", cases[i].path, cases[i].request,
                                cases[i].status);
        if (cases[i].answer) assert_string_equal(body, cases[i].answer);
        mem_free(body);
    }
    server_stop(&s);
}

/* The value behind a line's start, e.g. "sglang:x{...}". */
static double metric(const char *text, const char *name, const char *label)
{
    for (const char *at = text; (at = strstr(at, name)); at++) {
        const char *end = strchr(at, '\n');
        const char *value = strstr(at, "} ");
        if (at != text && at[-1] != '\n') continue;
        if (!value || value > end || at[strlen(name)] != '{') continue;
        const char *found = strstr(at, label);
        if (found && found < value) return strtod(value + 2, NULL);
    }
    fail_msg("no %s with %s in %s", name, label, text);
    return NAN;
}

static void metrics_count_what_happened(void **state)
{
    (void)state;
    struct server_setup setup = {.mode = PD_DECODE,
                                 .options = {.enable_metrics = true,
                                             .max_total_tokens = 32,
                                             .served_model_name = "a\"b"}};
    struct server s;
    server_run(&s, &setup);
    int fd = server_post(&s, "/generate",
                         "{\"text\":\"Hi\",\"bootstrap_host\":\"h\","
                         "\"bootstrap_room\":1}");
    struct fake_request r = fake_next(s.node);
    struct engine_event done = fake_done(FINISH_LENGTH, 2);
    done.queued_us = 1000;
    done.started_us = 3000;
    struct engine_event events[] = {fake_token('a', "a", 1),
                                    fake_token('b', "b", 2), done};
    fake_play(s.node, r.id, events, 3);
    mem_free(answer_ok(fd));
    char *m = server_ask(&s, "GET", "/metrics", "", 200);
    const char *labels = "model_name=\"a\\\"b\",engine_type=\"decode\","
                         "tp_rank=\"0\",pp_rank=\"0\"";
    assert_non_null(strstr(m, "# TYPE sglang:num_running_reqs gauge\n"));
    assert_true(metric(m, "sglang:num_running_reqs", labels) == 2);
    assert_true(metric(m, "sglang:num_used_tokens", labels) == 8);
    assert_true(metric(m, "sglang:token_usage", labels) == 0.25);
    assert_true(metric(m, "sglang:prompt_tokens_total", labels) == 2);
    assert_true(metric(m, "sglang:generation_tokens_total", labels) == 2);
    assert_true(metric(m, "sglang:cached_tokens_total", labels) == 1);
    assert_true(metric(m, "sglang:num_requests_total", labels) == 1);
    assert_true(metric(m, "sglang:num_aborted_requests_total", labels) == 0);
    assert_true(metric(m, "sglang:num_decode_transfer_queue_reqs", labels) ==
                2);
    assert_null(strstr(m, "num_prefill"));
    assert_true(metric(m, "sglang:kv_transfer_speed_gb_s", labels) == 0.1);
    assert_true(metric(m, "sglang:time_to_first_token_seconds_count", labels) ==
                1);
    assert_true(metric(m, "sglang:inter_token_latency_seconds_bucket",
                       "le=\"+Inf\"") == 1);
    assert_true(metric(m, "sglang:queue_time_seconds_bucket", "le=\"0.001\"") ==
                0);
    assert_true(metric(m, "sglang:queue_time_seconds_bucket", "le=\"0.005\"") ==
                1);
    assert_true(metric(m, "sglang:queue_time_seconds_sum", labels) == 0.002);
    mem_free(m);
    server_stop(&s);
    server_run(&s, &plain);
    mem_free(server_ask(&s, "GET", "/metrics", "", 404));
    server_stop(&s);
}

static void drained(void *arg)
{
    rig_say(arg, "drained");
}

static void drain(void *arg)
{
    struct server *s = arg;
    serve_drain(s->serve, 20000, drained, &s->rig);
}

static void draining_lets_requests_finish(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &plain);
    int fd = server_post(&s, "/generate", "{\"text\":\"A\"}");
    struct fake_request r = fake_next(s.node);
    assert_int_equal(loop_post(s.rig.loop, drain, &s), 0);
    struct engine_event events[] = {fake_token('a', "a", 1),
                                    fake_done(FINISH_LENGTH, 1)};
    fake_play(s.node, r.id, events, 2);
    mem_free(answer_ok(fd));
    rig_expect(&s.rig, "drained");
    server_stop(&s);
}

/* Closing with requests alive frees all of them. */
static void closing_hangs_up(void **state)
{
    (void)state;
    size_t before = mem_live();
    struct server s;
    server_open(&s, &plain);
    serve_set_ready(s.serve);
    fake_set_flush(s.node, FAKE_FLUSH_NEVER);
    rig_run(&s.rig);
    int flush = server_post(&s, "/flush_cache", "");
    int one = server_post(&s, "/generate", "{\"text\":[\"A\",\"B\"]}");
    fake_next(s.node);
    fake_next(s.node);
    int two = server_send(&s, "GET", "/health", "");
    fake_next(s.node);
    server_stop(&s);
    close(flush);
    close(one);
    close(two);
    assert_int_equal(mem_live(), before);
}

TESTS(T(health_waits_for_a_sign_of_life), T(others_events_answer_health),
      T(a_dead_engine_is_503), T(the_warm_up_makes_it_ready),
      T(a_failed_warm_up_is_told), T(the_server_tells_what_it_is),
      T(the_key_guards_all_but_health_and_metrics),
      T(the_cache_is_flushed_when_idle), T(text_and_tokens),
      T(metrics_count_what_happened), T(draining_lets_requests_finish),
      T(closing_hangs_up))
