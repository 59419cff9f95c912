#include "tests/serve/rig.h"

#include <math.h>

static const struct server_setup plain;

static struct engine_event stopped_by(const char *text, uint32_t n)
{
    struct engine_event e = fake_done(FINISH_STOP_TEXT, n);
    e.finish.stop_text = text;
    return e;
}

static struct engine_event stopped_at(int32_t token, uint32_t n)
{
    struct engine_event e = fake_done(FINISH_STOP_TOKEN, n);
    e.finish.stop_token = token;
    return e;
}

static struct engine_event aborted(int status, const char *message)
{
    struct engine_event e = fake_done(FINISH_ABORT, 0);
    e.finish.status = status;
    e.finish.message = message;
    return e;
}

/* --- whole answers --- */

static void parameters_reach_the_node(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &plain);
    int fd = server_send(
        &s, "PUT", "/generate",
        "{\"text\":\"Hi\",\"unknown\":1,\"sampling_params\":"
        "{\"max_new_tokens\":7,\"temperature\":0.5,\"stop\":[\"END\",\"\"],"
        "\"stop_token_ids\":[9],\"logit_bias\":{\"65\":-1.5},"
        "\"sampling_seed\":11,\"ignore_eos\":true,\"top_p\":null,"
        "\"top_k\":40,\"min_new_tokens\":2,\"skip_special_tokens\":false}}");
    struct fake_request r = fake_next(s.node);
    assert_int_equal(r.token_count, 2);
    assert_int_equal(r.tokens[0], 'H');
    assert_int_equal(r.tokens[1], 'i');
    assert_int_equal(r.sampling.max_new_tokens, 7);
    assert_int_equal(r.sampling.min_new_tokens, 2);
    assert_true(r.sampling.temperature == 0.5f && r.sampling.top_p == 1);
    assert_int_equal(r.sampling.top_k, 40);
    assert_int_equal(r.sampling.stop_count, 1);
    assert_string_equal(r.stop, "END");
    assert_int_equal(r.stop_id, 9);
    assert_int_equal(r.bias_id, 65);
    assert_true(r.bias == -1.5f);
    assert_true(r.sampling.seeded && r.sampling.seed == 11);
    assert_true(r.sampling.ignore_eos && !r.sampling.skip_special_tokens);
    assert_false(r.has_host || r.has_room || r.want_logprobs);
    struct engine_event done = fake_done(FINISH_LENGTH, 0);
    fake_play(s.node, r.id, &done, 1);
    mem_free(answer_ok(fd));
    server_stop(&s);
}

static void one_prompt_is_one_object(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &plain);
    int fd =
        server_post(&s, "/generate", "{\"input_ids\":[72,105],\"rid\":\"r1\"}");
    struct fake_request r = fake_next(s.node);
    struct engine_event events[] = {
        fake_token('a', "a\"", 1), fake_token(0xc3, "", 2),
        fake_token(0xa9, "\xc3\xa9\n", 3), stopped_by("E\"", 3)};
    fake_play(s.node, r.id, events, 4);
    char *body = answer_ok(fd);
    assert_non_null(strstr(body,
                           "{\"text\":\"a\\\"\xc3\xa9\\n\",\"output_ids\""
                           ":[97,195,169],\"meta_info\":{\"id\":\"r1\","));
    json_t *v = json_of(body);
    expect_at(v, "meta_info.finish_reason",
              "{'type':'stop','matched':'E\\\"'}");
    expect_at(v, "meta_info.prompt_tokens", "2");
    expect_at(v, "meta_info.completion_tokens", "3");
    expect_at(v, "meta_info.cached_tokens", "1");
    expect_at(v, "meta_info.weight_version", "'default'");
    expect_at(v, "meta_info.total_retractions", "0");
    assert_true(json_is_real(at_path(v, "meta_info.e2e_latency")));
    assert_null(at_path(v, "meta_info.input_token_logprobs"));
    json_decref(v);
    server_stop(&s);
}

static void a_batch_is_a_list_in_order(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &plain);
    int fd = server_post(&s, "/generate",
                         "{\"text\":[\"A\",\"B\"],\"rid\":\"q\","
                         "\"sampling_params\":[{\"n\":2},{\"n\":2,"
                         "\"temperature\":0}]}");
    struct fake_request r[4];
    for (int i = 0; i < 4; i++)
        r[i] = fake_next(s.node);
    assert_int_equal(r[1].tokens[0], 'A');
    assert_int_equal(r[2].tokens[0], 'B');
    assert_true(r[2].sampling.temperature == 0);
    static const char *const texts[] = {"0", "1", "2", "3"};
    for (int i = 3; i >= 0; i--) {
        struct engine_event events[] = {fake_token('0' + i, texts[i], 1),
                                        stopped_at(7, 1)};
        fake_play(s.node, r[i].id, events, 2);
    }
    json_t *v = json_of(answer_ok(fd));
    assert_int_equal(json_array_size(v), 4);
    expect_at(v, "0.text", "'0'");
    expect_at(v, "3.text", "'3'");
    expect_at(v, "1.meta_info.id", "'q_0_1'");
    expect_at(v, "2.meta_info.id", "'q_1_0'");
    expect_at(v, "2.meta_info.finish_reason", "{'type':'stop','matched':7}");
    json_decref(v);
    server_stop(&s);
}

static void logprobs_are_triples(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &plain);
    int fd = server_post(&s, "/generate",
                         "{\"text\":\"Hi\",\"return_logprob\":true,"
                         "\"logprob_start_len\":0,\"top_logprobs_num\":2,"
                         "\"token_ids_logprob\":[65,66],"
                         "\"return_text_in_logprobs\":true}");
    struct fake_request r = fake_next(s.node);
    assert_true(r.want_logprobs);
    assert_int_equal(r.logprob_start, 0);
    assert_int_equal(r.top_logprobs, 2);
    assert_int_equal(r.logprob_id_count, 2);
    float tops[] = {-0.25f, -2}, ids[] = {-3, -INFINITY};
    int32_t top_ids[] = {'a', 0xc3};
    struct token_logprob input[] = {{.logprob = NAN, .token = 'H'},
                                    {-1.5f, 'i', 2, tops, top_ids, 2, ids}};
    struct engine_event token = fake_token('a', "a", 1);
    token.has_logprob = true;
    token.logprob =
        (struct token_logprob){-0.25f, 'a', 2, tops, top_ids, 2, ids};
    token.input_logprobs = input;
    token.input_logprob_count = 2;
    struct engine_event events[] = {token, fake_done(FINISH_LENGTH, 1)};
    fake_play(s.node, r.id, events, 2);
    json_t *v = json_of(answer_ok(fd));
    const json_t *meta = at_path(v, "meta_info");
    expect_at(meta, "input_token_logprobs", "[[null,72,'H'],[-1.5,105,'i']]");
    expect_at(meta, "output_token_logprobs", "[[-0.25,97,'a']]");
    expect_at(meta, "input_top_logprobs",
              "[null,[[-0.25,97,'a'],[-2,195,'\xef\xbf\xbd']]]");
    expect_at(meta, "output_top_logprobs",
              "[[[-0.25,97,'a'],[-2,195,'\xef\xbf\xbd']]]");
    expect_at(meta, "output_token_ids_logprobs",
              "[[[-3,65,'A'],[null,66,'B']]]");
    expect_at(meta, "finish_reason", "{'type':'length','length':1}");
    json_decref(v);
    server_stop(&s);
}

/* --- streams --- */

static const char first_event[] =
    "data: {\"text\":\"a\",\"output_ids\":[97],\"meta_info\":{\"id\":\"r\","
    "\"finish_reason\":null,\"prompt_tokens\":2,\"weight_version\":\"default\","
    "\"total_retractions\":0,\"completion_tokens\":1,\"cached_tokens\":1}}\n\n";

static void a_stream_is_framed_to_the_byte(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &plain);
    int fd = server_post(&s, "/generate",
                         "{\"text\":\"Hi\",\"rid\":\"r\",\"stream\":true}");
    struct fake_request r = fake_next(s.node);
    struct engine_event a = fake_token('a', "a", 1);
    fake_play(s.node, r.id, &a, 1);
    const char *head = raw_read(fd, "}}\n\n");
    assert_non_null(strstr(head, " 200 OK\r\n"));
    assert_non_null(strstr(head, "text/event-stream"));
    assert_non_null(strstr(head, first_event));
    struct engine_event rest[] = {fake_token('b', "b", 2),
                                  fake_done(FINISH_LENGTH, 2)};
    fake_play(s.node, r.id, rest, 2);
    const char *tail = raw_read(fd, NULL);
    close(fd);
    /* Both events of one turn leave as one. */
    const char *last = strstr(tail, "data: {\"text\":\"ab\",\"output_ids\":"
                                    "[97,98],\"meta_info\":{\"id\":\"r\","
                                    "\"finish_reason\":{\"type\":\"length\","
                                    "\"length\":2},");
    assert_non_null(last);
    assert_non_null(strstr(last, "\"e2e_latency\":"));
    assert_non_null(strstr(last, "}}\n\ndata: [DONE]\n\n"));
    assert_null(strstr(last + 5, "data: {"));
    server_stop(&s);
}

static void deltas_where_the_server_says_so(void **state)
{
    (void)state;
    struct server_setup setup = {.options.stream_output = true};
    struct server s;
    server_run(&s, &setup);
    int fd = server_post(&s, "/generate",
                         "{\"text\":\"Hi\",\"rid\":\"r\",\"stream\":true,"
                         "\"return_logprob\":true}");
    struct fake_request r = fake_next(s.node);
    struct engine_event a = fake_token('a', "a", 1);
    a.has_logprob = true;
    a.logprob = (struct token_logprob){.logprob = -1, .token = 'a'};
    fake_play(s.node, r.id, &a, 1);
    raw_read(fd, "\"output_token_logprobs\":[[-1,97,null]]");
    struct engine_event b = fake_token('b', "b", 2);
    b.has_logprob = true;
    b.logprob = (struct token_logprob){.logprob = -2, .token = 'b'};
    struct engine_event rest[] = {b, fake_done(FINISH_LENGTH, 2)};
    fake_play(s.node, r.id, rest, 2);
    const char *tail = raw_read(fd, NULL);
    close(fd);
    assert_non_null(strstr(tail, "data: {\"text\":\"b\",\"output_ids\":[98],"));
    assert_non_null(strstr(tail, "\"output_token_logprobs\":[[-2,98,null]],"));
    server_stop(&s);
}

static void batch_events_carry_their_index(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &plain);
    int fd = server_post(&s, "/generate",
                         "{\"text\":[\"A\",\"B\"],\"stream\":true,"
                         "\"sampling_params\":{\"stream_interval\":3}}");
    struct fake_request r[] = {fake_next(s.node), fake_next(s.node)};
    struct engine_event x[] = {fake_token('x', "x", 1)};
    fake_play(s.node, r[1].id, x, 1);
    raw_read(fd, "},\"index\":1}\n\n");
    struct engine_event more[] = {fake_token('y', "y", 2)};
    fake_play(s.node, r[1].id, more, 1); /* within the interval: held */
    struct engine_event rest[] = {fake_token('z', "z", 1),
                                  fake_done(FINISH_LENGTH, 1)};
    fake_play(s.node, r[0].id, rest, 2);
    const char *second = raw_read(fd, "},\"index\":0}\n\n");
    assert_null(strstr(second, "\"index\":1"));
    fake_play(s.node, r[1].id, rest + 1, 1);
    const char *tail = raw_read(fd, NULL);
    close(fd);
    assert_non_null(strstr(tail, "{\"text\":\"xy\""));
    assert_non_null(strstr(tail, "},\"index\":1}\n\ndata: [DONE]\n\n"));
    server_stop(&s);
}

/* --- errors --- */

static const struct {
    const char *request;
    int status;
    const char *body;
} refusals[] = {
    {"{\"text\"", 400, "{\"object\":\"error\",\"message\":\"JSON line 1"},
    {"[]", 400,
     "{\"object\":\"error\",\"message\":\"The request body must be an "
     "object.\",\"type\":\"Bad Request\",\"param\":null,\"code\":400}"},
    {"{\"text\":5}", 400, "\"type\":\"Bad Request\""},
    {"{}", 400,
     "{\"error\":{\"message\":\"Either text, input_ids or input_embeds should "
     "be provided.\"}}"},
    {"{\"text\":\"a\",\"input_ids\":[1],\"input_embeds\":[[0.5]]}", 400,
     "{\"error\":{\"message\":\"Either text, input_ids or"},
    {"{\"input_ids\":[]}", 400,
     "{\"error\":{\"message\":\"input_ids cannot be empty.\"}}"},
    {"{\"input_ids\":[[1],2]}", 400, "\"type\":\"Bad Request\""},
    {"{\"input_ids\":[257]}", 400, "token id 257 is not in the vocabulary"},
    {"{\"input_ids\":[-1]}", 400, "token id -1 is not in the vocabulary"},
    {"{\"text\":\"\"}", 400, "The prompt is empty."},
    {"{\"text\":[]}", 400, "The batch holds no prompt."},
    {"{\"text\":\"a\",\"sampling_params\":{\"top_p\":2}}", 400,
     "{\"error\":{\"message\":\"top_p must be in (0, 1], got 2"},
    {"{\"text\":\"a\",\"sampling_params\":{\"top_k\":0}}", 400,
     "{\"error\":{\"message\":\"top_k must be -1"},
    {"{\"text\":\"a\",\"sampling_params\":{\"tempretature\":2}}", 400,
     "Unknown sampling parameter \\\"tempretature\\\"."},
    {"{\"text\":\"a\",\"sampling_params\":{\"stop_regex\":\"x\"}}", 400,
     "parameter stop_regex is not supported"},
    {"{\"text\":\"a\",\"sampling_params\":{\"regex\":\"x{2,1}\"}}", 400,
     "regex at byte 6: {m,n} with n below m"},
    {"{\"text\":\"a\",\"sampling_params\":{\"max_new_tokens\":-3}}", 400,
     "max_new_tokens must be at least 0, got -3."},
    {"{\"text\":\"a\",\"sampling_params\":{\"max_new_tokens\":\"3\"}}", 400,
     "max_new_tokens must be a whole number."},
    {"{\"text\":\"a\",\"sampling_params\":{\"stop_token_ids\":[999]}}", 400,
     "stop_token_ids: token id 999"},
    {"{\"text\":\"a\",\"sampling_params\":{\"n\":0}}", 400, "n must be in [1"},
    {"{\"text\":\"a\",\"sampling_params\":{\"max_new_tokens\":63}}", 400,
     "Requested token count exceeds the model's maximum context length of 64 "
     "tokens. You requested a total of 64 tokens: 1 tokens from the input "
     "messages and 63 tokens for the completion."},
    {"{\"text\":\"0123456789012345678901234567890123456789012345678901234567890"
     "123\"}",
     400,
     "{\"error\":{\"message\":\"The input (64 tokens) is longer than the "
     "model's context length (64 tokens).\"}}"},
    {"{\"text\":\"a\",\"image_data\":\"x.png\"}", 400,
     "image_data is not supported by this server."},
    {"{\"text\":\"a\",\"return_logprob\":true,\"logprob_start_len\":1}", 400,
     "logprob_start_len (1) must be less than"},
    {"{\"text\":[\"a\",\"b\"],\"rid\":[\"x\"]}", 400,
     "The length of rid should be equal to the batch size"},
    {"{\"text\":[\"a\",\"b\"],\"sampling_params\":[{\"n\":2},{}]}", 400,
     "The parallel_sample_num should be the same"},
};

static void bad_requests_say_what_is_wrong(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &plain);
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        char *body = server_ask(&s, "POST", "/generate", refusals[i].request,
                                refusals[i].status);
        if (!strstr(body, refusals[i].body))
            fail_msg("%s: %s", refusals[i].request, body);
        mem_free(body);
    }
    assert_null(inbox_take(s.rig.words));
    server_stop(&s);
}

/* A default length is cut to the room there is; a given one is not. */
static void a_default_length_fits_the_context(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &plain);
    int fd = server_post(&s, "/generate", "{\"text\":\"0123456789\"}");
    struct fake_request r = fake_next(s.node);
    assert_int_equal(r.sampling.max_new_tokens, RIG_CONTEXT - 10 - 1);
    struct engine_event done = fake_done(FINISH_LENGTH, 0);
    fake_play(s.node, r.id, &done, 1);
    mem_free(answer_ok(fd));
    server_stop(&s);
}

static void failures_have_their_status(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &plain);
    for (int stream = 0; stream < 2; stream++) {
        int fd = server_post(&s, "/generate",
                             stream ? "{\"text\":[\"A\",\"B\"],\"stream\":true}"
                                    : "{\"text\":[\"A\",\"B\"]}");
        struct fake_request a = fake_next(s.node), b = fake_next(s.node);
        struct engine_event e = aborted(500, "KVTransferError(1): gone");
        fake_play(s.node, a.id, &e, 1);
        char *body;
        assert_int_equal(answer_of(fd, &body), 500);
        assert_string_equal(body,
                            "{\"object\":\"error\",\"message\":"
                            "\"KVTransferError(1): gone\",\"type\":\"500\","
                            "\"param\":null,\"code\":500}");
        mem_free(body);
        assert_int_equal(fake_next_abort(s.node).id, b.id);
    }
    int fd = server_post(&s, "/generate", "{\"text\":\"A\"}");
    struct engine_event e = aborted(400, "too long");
    fake_play(s.node, fake_next(s.node).id, &e, 1);
    char *body;
    assert_int_equal(answer_of(fd, &body), 400);
    assert_string_equal(body, "{\"error\":{\"message\":\"too long\"}}");
    mem_free(body);
    server_stop(&s);
}

static void a_failure_inside_a_stream_is_an_event(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &plain);
    int fd = server_post(&s, "/generate", "{\"text\":\"A\",\"stream\":true}");
    struct fake_request r = fake_next(s.node);
    struct engine_event a = fake_token('a', "a", 1);
    fake_play(s.node, r.id, &a, 1);
    raw_read(fd, "}}\n\n");
    struct engine_event e = aborted(503, "lost");
    fake_play(s.node, r.id, &e, 1);
    const char *tail = raw_read(fd, NULL);
    close(fd);
    assert_non_null(strstr(tail, "\"finish_reason\":{\"type\":\"abort\","
                                 "\"message\":\"lost\",\"status_code\":503,"
                                 "\"err_type\":null}"));
    assert_non_null(strstr(tail, "data: [DONE]\n\n"));
    server_stop(&s);
}

static void a_full_queue_is_503(void **state)
{
    (void)state;
    struct server_setup setup = {.refuse = ERR_AGAIN};
    struct server s;
    server_run(&s, &setup);
    char *body = server_ask(&s, "POST", "/generate",
                            "{\"text\":\"A\",\"stream\":true}", 503);
    assert_non_null(strstr(body, "refused by the test"));
    mem_free(body);
    server_stop(&s);
}

/* --- pairs --- */

static void pairs_need_a_room(void **state)
{
    (void)state;
    struct server_setup setup = {.mode = PD_PREFILL};
    struct server s;
    server_run(&s, &setup);
    char *body = server_ask(&s, "POST", "/generate",
                            "{\"text\":\"A\",\"rid\":\"x\"}", 400);
    assert_string_equal(body,
                        "{\"error\":{\"message\":\"Invalid request: "
                        "Disaggregated request received without boostrap room "
                        "id. req.rid='x'\"}}");
    mem_free(body);
    int fd = server_post(&s, "/generate",
                         "{\"text\":\"A\",\"bootstrap_host\":\"10.0.0.1\","
                         "\"bootstrap_port\":6657,"
                         "\"bootstrap_room\":9223372036854775807}");
    struct fake_request r = fake_next(s.node);
    assert_string_equal(r.host, "10.0.0.1");
    assert_int_equal(r.port, 6657);
    assert_true(r.has_room && r.room == INT64_MAX);
    struct engine_event events[] = {fake_token('a', "", 0),
                                    fake_done(FINISH_LENGTH, 0)};
    fake_play(s.node, r.id, events, 2);
    json_t *v = json_of(answer_ok(fd));
    expect_at(v, "text", "'a'");
    expect_at(v, "output_ids", "[97]");
    expect_at(v, "meta_info.completion_tokens", "1");
    expect_at(v, "meta_info.finish_reason", "{'type':'length','length':0}");
    json_decref(v);
    server_stop(&s);
}

/* The decode that waits for a body which its prefill refuses is told. */
static void a_refused_body_is_told_to_the_pair(void **state)
{
    (void)state;
    struct server_setup setup = {.mode = PD_PREFILL};
    struct server s;
    server_run(&s, &setup);
    mem_free(server_ask(&s, "POST", "/generate",
                        "{\"text\":5,\"bootstrap_room\":[77,78]}", 400));
    struct fake_abort told = fake_next_abort(s.node);
    assert_int_equal(told.id, 77);
    assert_int_equal(told.status, 400);
    assert_string_equal(told.message,
                        "text must be a string or a list of strings.");
    mem_free(server_ask(&s, "POST", "/v1/completions", "{\"bootstrap_room\":5}",
                        400));
    assert_int_equal(fake_next_abort(s.node).id, 5);
    server_stop(&s);
}

/* Both halves of a pair count rooms in the same way, none is used twice. */
static void every_sample_has_its_room(void **state)
{
    (void)state;
    struct server_setup setup = {.mode = PD_DECODE};
    struct server s;
    server_run(&s, &setup);
    static const struct {
        const char *rooms;
        uint64_t expected[4];
    } cases[] = {
        {"\"bootstrap_host\":\"h\",\"bootstrap_port\":null,\"bootstrap_room\":"
         "9223372036854775806",
         {INT64_MAX - 1, 0, INT64_MAX, 1}},
        {"\"bootstrap_host\":[\"h\",\"h\"],\"bootstrap_port\":[1,null],"
         "\"bootstrap_room\":[500,7]",
         {500, 502, 7, 9}},
    };
    for (int c = 0; c < 2; c++) {
        char body[512];
        snprintf(body, sizeof body,
                 "{\"text\":[\"A\",\"B\"],\"sampling_params\":{\"n\":2},%s}",
                 cases[c].rooms);
        int fd = server_post(&s, "/generate", body);
        for (int i = 0; i < 4; i++) {
            struct fake_request r = fake_next(s.node);
            assert_string_equal(r.host, "h");
            assert_int_equal(r.port, c == 1 && i < 2);
            assert_int_equal(r.room, cases[c].expected[i]);
            struct engine_event done = fake_done(FINISH_LENGTH, 0);
            fake_play(s.node, r.id, &done, 1);
        }
        mem_free(answer_ok(fd));
    }
    server_stop(&s);
}

/* --- clients that leave --- */

static void a_client_that_leaves_ends_its_requests(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &plain);
    int quiet = server_post(&s, "/generate", "{\"text\":[\"A\",\"B\"]}");
    struct fake_request a = fake_next(s.node), b = fake_next(s.node);
    close(quiet);
    assert_int_equal(fake_next_abort(s.node).id, a.id);
    assert_int_equal(fake_next_abort(s.node).id, b.id);
    int reading =
        server_post(&s, "/generate", "{\"text\":\"A\",\"stream\":true}");
    struct fake_request c = fake_next(s.node);
    struct engine_event event = fake_token('a', "a", 1);
    fake_play(s.node, c.id, &event, 1);
    raw_read(reading, "}}\n\n");
    close(reading);
    assert_int_equal(fake_next_abort(s.node).id, c.id);
    server_stop(&s);
}

/* A reader that takes nothing is hung up on once its stream is too long. */
static void a_reader_that_stands_still_is_left(void **state)
{
    (void)state;
    struct server_setup setup = {.options.stream_bytes = 1 << 20};
    struct server s;
    server_run(&s, &setup);
    int fd = server_post(&s, "/generate", "{\"text\":\"A\",\"stream\":true}");
    struct fake_request r = fake_next(s.node);
    size_t n = (size_t)16 << 20; /* more than the kernel's buffers take */
    char *text = mem_must(n + 1, 1);
    memset(text, 'x', n);
    struct engine_event event = fake_token('a', text, 1);
    fake_play(s.node, r.id, &event, 1);
    assert_int_equal(fake_next_abort(s.node).id, r.id);
    mem_free(text);
    close(fd);
    server_stop(&s);
}

static void abort_request_ends_by_prefix(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &plain);
    int one =
        server_post(&s, "/generate", "{\"text\":\"A\",\"rid\":\"user-7-x\"}");
    struct fake_request a = fake_next(s.node);
    int two =
        server_post(&s, "/generate", "{\"text\":\"A\",\"rid\":\"other\"}");
    struct fake_request b = fake_next(s.node);
    mem_free(server_ask(&s, "POST", "/abort_request", "{\"rid\":\"\"}", 200));
    mem_free(
        server_ask(&s, "POST", "/abort_request", "{\"rid\":\"user-7\"}", 200));
    assert_int_equal(fake_next_abort(s.node).id, a.id);
    char *body = answer_ok(one);
    assert_non_null(strstr(body, "\"finish_reason\":{\"type\":\"abort\","
                                 "\"message\":\"Aborted\","
                                 "\"status_code\":null,\"err_type\":null}"));
    mem_free(body);
    mem_free(
        server_ask(&s, "POST", "/abort_request", "{\"abort_all\":true}", 200));
    assert_int_equal(fake_next_abort(s.node).id, b.id);
    mem_free(answer_ok(two));
    server_stop(&s);
}

TESTS(T(parameters_reach_the_node), T(one_prompt_is_one_object),
      T(a_batch_is_a_list_in_order), T(logprobs_are_triples),
      T(a_stream_is_framed_to_the_byte), T(deltas_where_the_server_says_so),
      T(batch_events_carry_their_index), T(bad_requests_say_what_is_wrong),
      T(a_default_length_fits_the_context), T(failures_have_their_status),
      T(a_failure_inside_a_stream_is_an_event), T(a_full_queue_is_503),
      T(pairs_need_a_room), T(a_refused_body_is_told_to_the_pair),
      T(every_sample_has_its_room), T(a_client_that_leaves_ends_its_requests),
      T(a_reader_that_stands_still_is_left), T(abort_request_ends_by_prefix))
