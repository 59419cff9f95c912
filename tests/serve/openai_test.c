#include "tests/serve/rig.h"

#include <math.h>

/* ChatML in small: <role>text, one a line. */
static const char template[] =
    "{%- for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{%- if tools %}[{{ tools|length }} tools]{% endif %}"
    "{%- if quiet %}(quiet){% endif %}"
    "{%- if add_generation_prompt %}<assistant>{% endif %}";

static const struct server_setup chat = {.chat_template = template};

static void expect_prompt(const struct fake_request *r, const char *text)
{
    char got[65] = {0};
    for (uint32_t i = 0; i < r->token_count && i < 64; i++)
        got[i] = (char)r->tokens[i];
    assert_string_equal(got, text);
}

static struct engine_event with_logprob(struct engine_event event,
                                        struct token_logprob logprob)
{
    event.has_logprob = true;
    event.logprob = logprob;
    return event;
}

static void play_ab(struct server *s, uint64_t id)
{
    struct engine_event done = fake_done(FINISH_STOP_TEXT, 2);
    done.finish.stop_text = "\n";
    struct engine_event events[] = {fake_token('a', "a\"", 1),
                                    fake_token('b', "b", 2), done};
    fake_play(s->node, id, events, 3);
}

/* --- chat --- */

static void chat_answers_as_openai_does(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &chat);
    int fd = server_post(
        &s, "/v1/chat/completions",
        "{\"model\":\"m\",\"rid\":\"c1\",\"messages\":[{\"role\":\"system\","
        "\"content\":\"S\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\","
        "\"text\":\"x\"},{\"type\":\"text\",\"text\":\"y\"}]}],\"seed\":3,"
        "\"chat_template_kwargs\":{\"quiet\":true},\"stop\":\"\\n\","
        "\"logit_bias\":{\"3\":1},\"tools\":[{\"type\":\"function\","
        "\"function\":{\"name\":\"f\"}}]}");
    struct fake_request r = fake_next(s.node);
    expect_prompt(&r, "<system>S\n<user>x y\n[1 tools](quiet)<assistant>");
    assert_int_equal(r.sampling.max_new_tokens,
                     RIG_CONTEXT - r.token_count - 1);
    assert_true(r.sampling.seeded && r.sampling.seed == 3);
    assert_string_equal(r.stop, "\n");
    play_ab(&s, r.id);
    json_t *v = json_of(answer_ok(fd));
    expect_at(v, "id", "'c1'");
    expect_at(v, "object", "'chat.completion'");
    expect_at(v, "model", "'m'");
    expect_at(v, "choices",
              "[{'index':0,'message':{'role':'assistant','content':'a\\'b',"
              "'reasoning_content':null,'tool_calls':null},'logprobs':null,"
              "'finish_reason':'stop','matched_stop':'\\n'}]");
    expect_at(v, "usage",
              "{'prompt_tokens':2,'total_tokens':4,'completion_tokens':2,"
              "'prompt_tokens_details':null,'reasoning_tokens':0}");
    expect_at(v, "metadata", "{'weight_version':'default'}");
    json_decref(v);
    server_stop(&s);
}

/* A template that loops over content gets the client's list, one that asks for
 * none gets null: what transformers hands it (text/chat.h). */
static void chat_templates_get_the_content_they_take(void **state)
{
    (void)state;
    static const struct server_setup loops = {
        .chat_template =
            "{% for m in messages %}{% if m.content is none %}-{% else %}"
            "{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endif %}"
            "{% endfor %}"};
    struct server s;
    server_run(&s, &loops);
    int fd = server_post(
        &s, "/v1/chat/completions",
        "{\"messages\":[{\"role\":\"user\",\"content\":["
        "{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\","
        "\"text\":\"b\"}]},{\"role\":\"assistant\",\"content\":null}]}");
    struct fake_request r = fake_next(s.node);
    expect_prompt(&r, "[a][b]-");
    play_ab(&s, r.id);
    json_decref(json_of(answer_ok(fd)));
    server_stop(&s);
}

static void the_final_message_can_be_continued(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &chat);
    int fd = server_post(
        &s, "/v1/chat/completions",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":"
        "\"assistant\",\"content\":\"It is\"}],\"continue_final_message\":"
        "true,\"max_completion_tokens\":5,\"tools\":[{\"type\":"
        "\"function\",\"function\":{\"name\":\"f\"}}],\"tool_choice\":"
        "\"none\"}");
    struct fake_request r = fake_next(s.node);
    expect_prompt(&r, "<user>x\n<assistant>It is");
    assert_int_equal(r.sampling.max_new_tokens, 5);
    play_ab(&s, r.id);
    mem_free(answer_ok(fd));
    server_stop(&s);
}

static void chat_logprobs_name_tokens_and_bytes(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &chat);
    int fd = server_post(&s, "/v1/chat/completions",
                         "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"
                         ",\"logprobs\":true,\"top_logprobs\":2}");
    struct fake_request r = fake_next(s.node);
    assert_true(r.want_logprobs);
    assert_int_equal(r.logprob_start, -1);
    float tops[] = {-0.5f, -INFINITY};
    int32_t ids[] = {'a', 0xc3};
    struct engine_event events[] = {
        with_logprob(fake_token('a', "a", 1),
                     (struct token_logprob){-0.5f, 'a', 2, tops, ids, 0, NULL}),
        fake_done(FINISH_LENGTH, 1)};
    fake_play(s.node, r.id, events, 2);
    json_t *v = json_of(answer_ok(fd));
    expect_at(v, "choices.0.logprobs",
              "{'content':[{'token':'a','bytes':[97],'logprob':-0.5,"
              "'top_logprobs':[{'token':'a','bytes':[97],'logprob':-0.5},"
              "{'token':'\xef\xbf\xbd','bytes':[195],'logprob':-9999}]}]}");
    expect_at(v, "choices.0.finish_reason", "'length'");
    expect_at(v, "choices.0.matched_stop", "null");
    json_decref(v);
    server_stop(&s);
}

/* The events of a stream without ids and times, one a line. */
static void expect_events(char *body, const char *id_and_model,
                          const char *const *events, size_t count)
{
    char *at = body;
    for (size_t i = 0; i < count; i++) {
        char *end = strstr(at, "\n\n");
        assert_non_null(end);
        *end = 0;
        char *choices = strstr(at, "\"choices\"");
        char *event = choices ? choices : at;
        if (choices && !strstr(at, id_and_model))
            fail_msg("%s without %s", at, id_and_model);
        if (strcmp(event, events[i]) != 0)
            fail_msg("event %zu is %s, not %s", i, event, events[i]);
        at = end + 2;
    }
    assert_string_equal(at, "");
    mem_free(body);
}

static void chat_streams_chunks(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &chat);
    int fd = server_post(&s, "/v1/chat/completions",
                         "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"
                         ",\"stream\":true,\"rid\":\"r\",\"stream_options\":"
                         "{\"include_usage\":true}}");
    play_ab(&s, fake_next(s.node).id);
    char *body = answer_ok(fd);
    static const char *const events[] = {
        "\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\","
        "\"content\":\"\",\"reasoning_content\":null,\"tool_calls\":null},"
        "\"logprobs\":null,\"finish_reason\":null,\"matched_stop\":null}],"
        "\"usage\":null}",
        "\"choices\":[{\"index\":0,\"delta\":{\"role\":null,\"content\":"
        "\"a\\\"b\",\"reasoning_content\":null,\"tool_calls\":null},"
        "\"logprobs\":null,\"finish_reason\":null,\"matched_stop\":null}],"
        "\"usage\":null}",
        "\"choices\":[{\"index\":0,\"delta\":{\"role\":null,\"content\":null,"
        "\"reasoning_content\":null,\"tool_calls\":null},\"logprobs\":null,"
        "\"finish_reason\":\"stop\",\"matched_stop\":\"\\n\"}],\"usage\":null}",
        "\"choices\":[],\"usage\":{\"prompt_tokens\":2,\"total_tokens\":4,"
        "\"completion_tokens\":2,\"prompt_tokens_details\":null,"
        "\"reasoning_tokens\":0}}",
        "data: [DONE]"};
    expect_events(body,
                  "data: {\"id\":\"r\",\"object\":\"chat.completion.chunk\""
                  ",\"created\":",
                  events, 5);
    server_stop(&s);
}

static void samples_are_choices(void **state)
{
    (void)state;
    struct server_setup setup = chat;
    setup.options.enable_cache_report = true;
    struct server s;
    server_run(&s, &setup);
    int fd = server_post(&s, "/v1/chat/completions",
                         "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"
                         ",\"n\":2,\"rid\":\"r\",\"seed\":5}");
    struct fake_request a = fake_next(s.node), b = fake_next(s.node);
    assert_int_equal(a.sampling.seed, 5);
    assert_int_equal(b.sampling.seed, 6); /* else both would be the same */
    play_ab(&s, b.id);
    play_ab(&s, a.id);
    json_t *v = json_of(answer_ok(fd));
    expect_at(v, "id", "'r'");
    expect_at(v, "choices.1.index", "1");
    expect_at(v, "usage",
              "{'prompt_tokens':2,'total_tokens':6,'completion_tokens':4,"
              "'prompt_tokens_details':{'cached_tokens':1},"
              "'reasoning_tokens':0}");
    json_decref(v);
    server_stop(&s);
}

static void a_failed_chat_stream_says_so(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &chat);
    int fd = server_post(&s, "/v1/chat/completions",
                         "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"
                         ",\"stream\":true}");
    uint64_t id = fake_next(s.node).id;
    struct engine_event a = fake_token('a', "a", 1);
    fake_play(s.node, id, &a, 1);
    raw_read(fd, "\"content\":\"a\"");
    struct engine_event e = fake_done(FINISH_ABORT, 1);
    e.finish.status = 500;
    e.finish.message = "lost";
    fake_play(s.node, id, &e, 1);
    const char *tail = raw_read(fd, NULL);
    close(fd);
    assert_non_null(
        strstr(tail, "data: {\"error\":{\"object\":\"error\",\"message\":"
                     "\"lost\",\"type\":\"InternalServerError\",\"param\":null,"
                     "\"code\":500}}\n\ndata: [DONE]\n\n"));
    server_stop(&s);
}

/* --- completions --- */

static void completions_echo_and_tell_logprobs(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &chat);
    int fd = server_post(&s, "/v1/completions",
                         "{\"prompt\":[72,105],\"echo\":true,\"logprobs\":2,"
                         "\"min_tokens\":1}");
    struct fake_request r = fake_next(s.node);
    assert_int_equal(r.sampling.max_new_tokens, 16);
    assert_int_equal(r.sampling.min_new_tokens, 1);
    assert_int_equal(r.logprob_start, 0);
    float tops[] = {-1, -2, -3};
    int32_t ids[] = {'a', 0xc3, 0xc4}; /* the last two read the same */
    struct token_logprob input[] = {{.logprob = NAN, .token = 'H'},
                                    {-1, 'i', 2, tops, ids, 0, NULL}};
    struct engine_event token =
        with_logprob(fake_token('a', "a", 1),
                     (struct token_logprob){-1, 'a', 3, tops, ids, 0, NULL});
    token.input_logprobs = input;
    token.input_logprob_count = 2;
    struct engine_event events[] = {token, fake_done(FINISH_LENGTH, 1)};
    fake_play(s.node, r.id, events, 2);
    json_t *v = json_of(answer_ok(fd));
    expect_at(v, "object", "'text_completion'");
    expect_at(v, "choices.0.text", "'Hia'");
    expect_at(v, "choices.0.logprobs",
              "{'text_offset':[0,1,2],'token_logprobs':[null,-1,-1],"
              "'tokens':['H','i','a'],'top_logprobs':[null,"
              "{'a':-1,'\xef\xbf\xbd':-2},{'a':-1,'\xef\xbf\xbd':-2}]}");
    json_decref(v);
    server_stop(&s);
}

static void completions_stream_a_batch(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &chat);
    int fd = server_post(&s, "/v1/completions",
                         "{\"prompt\":[\"A\",\"B\"],\"stream\":true,\"echo\":"
                         "true,\"max_tokens\":3,\"stream_options\":"
                         "{\"continuous_usage_stats\":true}}");
    struct fake_request a = fake_next(s.node), b = fake_next(s.node);
    struct engine_event x = fake_token('x', "x", 1);
    fake_play(s.node, b.id, &x, 1);
    raw_read(fd, "\"choices\":[{\"index\":1,\"text\":\"Bx\",\"logprobs\":null,"
                 "\"finish_reason\":null,\"matched_stop\":null}],\"usage\":"
                 "{\"prompt_tokens\":2,\"total_tokens\":3,"
                 "\"completion_tokens\":1,");
    struct engine_event done = fake_done(FINISH_LENGTH, 1);
    fake_play(s.node, b.id, &done, 1);
    raw_read(fd, "\"choices\":[{\"index\":1,\"text\":\"\",\"logprobs\":null,"
                 "\"finish_reason\":\"length\",\"matched_stop\":null}]");
    struct engine_event rest[] = {x, done};
    fake_play(s.node, a.id, rest, 2);
    const char *tail = raw_read(fd, NULL);
    close(fd);
    assert_non_null(strstr(tail, "\"index\":0,\"text\":\"Ax\""));
    assert_non_null(strstr(tail, "data: [DONE]\n\n"));
    server_stop(&s);
}

/* --- grammars --- */

static void formats_become_grammars(void **state)
{
    (void)state;
    static const struct {
        const char *path, *more, *begins;
    } rows[] = {
        {"/v1/completions", "\"prompt\":\"x\"", NULL},
        {"/v1/completions", "\"prompt\":\"x\",\"regex\":\"[b-d]x|9\"", "9bcd"},
        {"/v1/completions",
         "\"prompt\":\"x\",\"response_format\":{\"type\":\"json_object\"}",
         "{"},
        {"/v1/completions",
         "\"prompt\":\"x\",\"response_format\":{\"type\":\"text\"}", NULL},
        {"/v1/completions",
         "\"prompt\":\"x\",\"response_format\":{\"type\":\"json_schema\","
         "\"json_schema\":{\"name\":\"n\",\"strict\":true,\"schema\":{\"type\":"
         "[\"array\",\"null\"]}}}",
         "[n"},
        {"/generate",
         "\"text\":\"x\",\"sampling_params\":{\"json_schema\":\"{\\\"type\\\":"
         "\\\"boolean\\\"}\"}",
         "ft"},
        {"/generate",
         "\"text\":\"x\",\"sampling_params\":{\"ebnf\":\"root ::= ws "
         "[x-z]\\nws ::= [!]*\"}",
         "!xyz"},
        {"/v1/completions",
         "\"prompt\":\"x\",\"response_format\":{\"type\":\"structural_tag\","
         "\"format\":{\"type\":\"const_string\",\"value\":\"so\"}}",
         "s"},
        {"/v1/completions", "\"prompt\":\"x\",\"ebnf\":\"root ::= \\\"b\\\"\"",
         "b"},
    };
    struct server s;
    server_run(&s, &(struct server_setup){0});
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char body[512];
        snprintf(body, sizeof body, "{\"stream\":true,%s}", rows[i].more);
        int fd = server_post(&s, rows[i].path, body);
        struct fake_request r = fake_next(s.node);
        assert_int_equal(r.has_grammar, rows[i].begins != NULL);
        if (rows[i].begins) assert_string_equal(r.begins, rows[i].begins);
        assert_int_equal(r.grammar_after, -1);
        struct engine_event done = fake_done(FINISH_LENGTH, 0);
        fake_play(s.node, r.id, &done, 1);
        close(fd);
    }
    server_stop(&s);
}

/* --- refusals --- */

#define F  "{\"type\":\"function\",\"function\":{\"name\":\"f\"}}"
#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"

static const struct {
    const char *path, *request, *message, *type;
} refusals[] = {
    {"/v1/chat/completions", "{", "JSON line 1", "Bad Request"},
    {"/v1/chat/completions", "{\"messages\":[]}", "Messages cannot be empty.",
     "BadRequestError"},
    {"/v1/chat/completions", "{}", "messages must be a list", "Bad Request"},
    {"/v1/chat/completions",
     "{\"messages\":[{\"role\":\"king\",\"content\":\"x\"}]}", "role must be",
     "Bad Request"},
    {"/v1/chat/completions",
     "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}"
     "]}",
     "content of type \"image_url\" is not supported", "BadRequestError"},
    {"/v1/chat/completions",
     "{" HI ",\"response_format\":{\"type\":\"structural_tag\"}}",
     "a format must be an object", "BadRequestError"},
    {"/v1/chat/completions",
     "{" HI ",\"response_format\":{\"type\":\"json_schema\"}}",
     "needs json_schema.schema", "BadRequestError"},
    {"/v1/chat/completions",
     "{" HI ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":"
     "{\"name\":\"x\",\"schema\":{\"not\":{}}}}}",
     "json_schema: not is not supported", "BadRequestError"},
    {"/v1/chat/completions", "{" HI ",\"regex\":\"(a\"}",
     "regex at byte 2: ) is missing", "BadRequestError"},
    {"/v1/completions", "{\"prompt\":\"x\",\"regex\":5}",
     "regex must be a string", "BadRequestError"},
    {"/v1/chat/completions", "{" HI ",\"regex\":\"a\",\"json_schema\":\"{}\"}",
     "Only one of json_schema, regex, ebnf", "BadRequestError"},
    {"/v1/chat/completions", "{" HI ",\"ebnf\":\"r\"}", "a rule must begin",
     "BadRequestError"},
    {"/v1/chat/completions", "{" HI ",\"lora_path\":\"x\"}",
     "lora_path is not supported", "BadRequestError"},
    {"/v1/chat/completions",
     "{" HI ",\"tools\":[" F "],\"tool_choice\":\"required\"}",
     "needs a server with --tool-call-parser", "BadRequestError"},
    {"/v1/chat/completions", "{" HI ",\"tool_choice\":\"required\"}",
     "Tools cannot be empty", "BadRequestError"},
    {"/v1/chat/completions",
     "{" HI ",\"tools\":[" F "],\"tool_choice\":{\"type\":\"function\","
     "\"function\":{\"name\":\"g\"}}}",
     "no function \"g\" is among the tools", "BadRequestError"},
    {"/v1/chat/completions", "{" HI ",\"tools\":[" F "],\"tool_choice\":1}",
     "tool_choice must be", "Bad Request"},
    {"/v1/chat/completions", "{" HI ",\"tools\":[{}]}", "must have a function",
     "Bad Request"},
    {"/v1/chat/completions",
     "{" HI ",\"tools\":[{\"function\":{\"name\":\"f\",\"strict\":true}}]}",
     "strict functions need a server with --tool-call-parser",
     "BadRequestError"},
    {"/v1/chat/completions",
     "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{}]}]}",
     "A tool call must have a function", "Bad Request"},
    {"/v1/chat/completions", "{" HI ",\"top_logprobs\":2}",
     "top_logprobs needs logprobs", "BadRequestError"},
    {"/v1/chat/completions", "{" HI ",\"temperature\":-1}",
     "temperature must be non-negative", "BadRequestError"},
    {"/v1/chat/completions", "{" HI ",\"max_tokens\":64}",
     "exceeds the model's maximum context", "BadRequestError"},
    {"/v1/chat/completions", "{" HI ",\"stream\":1}",
     "stream must be true or false", "Bad Request"},
    {"/v1/completions", "{}", "prompt is missing.", "Bad Request"},
    {"/v1/completions", "{\"prompt\":7}", "prompt must be", "Bad Request"},
    {"/v1/completions", "{\"prompt\":[]}", "holds no prompt",
     "BadRequestError"},
    {"/v1/completions", "{\"prompt\":\"x\",\"best_of\":3}", "best_of",
     "BadRequestError"},
    {"/v1/completions", "{\"prompt\":\"x\",\"suffix\":\"y\"}",
     "suffix is not supported", "BadRequestError"},
    {"/v1/completions", "{\"prompt\":\"x\",\"logprobs\":-1}",
     "logprobs must be in", "BadRequestError"},
};

static void what_is_not_done_is_refused_by_name(void **state)
{
    (void)state;
    struct server s;
    server_run(&s, &chat);
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        json_t *v = json_of(
            server_ask(&s, "POST", refusals[i].path, refusals[i].request, 400));
        const char *message = json_string_value(at_path(v, "message"));
        const char *type = json_string_value(at_path(v, "type"));
        if (!message || !strstr(message, refusals[i].message) ||
            strcmp(type, refusals[i].type) != 0)
            fail_msg("%s: %s: %s", refusals[i].request, type, message);
        expect_at(v, "object", "'error'");
        expect_at(v, "param", "null");
        expect_at(v, "code", "400");
        json_decref(v);
    }
    const char *answer =
        raw_ask(s.rig.port, "POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
                            "Connection: close\r\nContent-Length: 2\r\n\r\n{}");
    assert_non_null(strstr(answer, " 400 "));
    assert_non_null(strstr(answer, "Only 'application/json' is allowed"));
    server_stop(&s);
}

static void a_model_without_template_says_so(void **state)
{
    (void)state;
    static const struct server_setup plain;
    struct server s;
    server_run(&s, &plain);
    char *body =
        server_ask(&s, "POST", "/v1/chat/completions", "{" HI "}", 400);
    assert_non_null(strstr(body, "has no chat template"));
    mem_free(body);
    server_stop(&s);
}

TESTS(T(chat_answers_as_openai_does),
      T(chat_templates_get_the_content_they_take),
      T(the_final_message_can_be_continued),
      T(chat_logprobs_name_tokens_and_bytes), T(chat_streams_chunks),
      T(samples_are_choices), T(a_failed_chat_stream_says_so),
      T(completions_echo_and_tell_logprobs), T(completions_stream_a_batch),
      T(formats_become_grammars), T(what_is_not_done_is_refused_by_name),
      T(a_model_without_template_says_so))
