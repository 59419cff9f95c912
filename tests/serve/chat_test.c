/* Chats whose answers are taken apart: reasoning and calls of tools. */
#include "tests/serve/rig.h"

#include "text/reply.h"

/* Role by a letter; thinking is opened where asked for. */
static const char template[] =
    "{% for m in messages %}{{ m.role[0] }}{{ m.content }}"
    "{% for c in m.tool_calls %}({{ c.function.arguments.a }})"
    "{% endfor %};{% endfor %}"
    "{% if add_generation_prompt %}A{% if enable_thinking %}<think>\n{% endif "
    "%}"
    "{% endif %}";

#define PATH "/v1/chat/completions"
#define HI   "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"rid\":\"r\""
#define TOOLS \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"

static void run(struct server *s, const char *reasoning, const char *toolcall)
{
    struct server_setup setup = {.chat_template = template};
    if (reasoning) setup.options.reasoning = reasoning_find(reasoning);
    if (toolcall) setup.options.toolcall = toolcall_find(toolcall);
    server_run(s, &setup);
}

static void expect_prompt(const struct fake_request *r, const char *text)
{
    char got[65] = {0};
    for (uint32_t i = 0; i < r->token_count && i < 64; i++)
        got[i] = (char)r->tokens[i];
    assert_string_equal(got, text);
}

/* Gives text in tokens of n bytes, each in a turn of its own, then stops. */
static void play_text(struct server *s, uint64_t id, const char *text, size_t n)
{
    char part[64];
    uint32_t count = 0;
    for (; *text; text += strlen(part)) {
        snprintf(part, n + 1, "%s", text);
        struct engine_event event = fake_token('x', part, ++count);
        fake_play(s->node, id, &event, 1);
    }
    struct engine_event done = fake_done(FINISH_STOP_TOKEN, count);
    done.finish.stop_token = 256;
    fake_play(s->node, id, &done, 1);
}

static const char answer[] =
    "<think>\nhm\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"f\", "
    "\"arguments\": {\"a\": \"\\u00e9\"}}\n</tool_call>\n<tool_call>\n"
    "{\"name\": \"f\"}\n</tool_call>";

static void a_whole_answer_is_taken_apart(void **state)
{
    (void)state;
    struct server s;
    run(&s, "qwen3", "qwen25");
    int fd = server_post(&s, PATH, "{" HI "," TOOLS "}");
    struct fake_request r = fake_next(s.node);
    expect_prompt(&r, "ux;A");
    assert_true(r.sampling.skip_special_tokens);
    play_text(&s, r.id, answer, 5);
    json_t *v = json_of(answer_ok(fd));
    const json_t *calls = at_path(v, "choices.0.message.tool_calls");
    assert_int_equal(json_array_size(calls), 2);
    const char *ids[2];
    for (size_t i = 0; i < 2; i++) {
        json_t *id = json_object_get(json_array_get(calls, i), "id");
        ids[i] = json_string_value(id);
        assert_memory_equal(ids[i], "call_", 5);
        assert_int_equal(strspn(ids[i] + 5, "0123456789abcdef"), 24);
    }
    assert_string_not_equal(ids[0], ids[1]);
    for (size_t i = 0; i < 2; i++)
        json_object_del(json_array_get(calls, i), "id");
    expect_at(v, "choices.0",
              "{'index':0,'message':{'role':'assistant','content':'I look.',"
              "'reasoning_content':'hm','tool_calls':[{'index':0,'type':"
              "'function','function':{'name':'f','arguments':"
              "'{\\'a\\': \\'\\\\u00e9\\'}'}},{'index':1,'type':'function',"
              "'function':{'name':'f','arguments':'{}'}}]},'logprobs':null,"
              "'finish_reason':'tool_calls','matched_stop':null}");
    expect_at(v, "usage.reasoning_tokens", "3");
    json_decref(v);
    server_stop(&s);
}

/* The deltas of a stream put together; each may have one member. */
struct gathered {
    char content[256], reasoning[256], name[2][16], arguments[2][256];
    char finish[32];
    int roles, ids, chunks;
};

static void add(char *to, size_t n, const json_t *text)
{
    if (!json_is_string(text)) return;
    assert_true(strlen(to) + json_string_length(text) < n);
    strcat(to, json_string_value(text));
}

static void gather_delta(struct gathered *g, const json_t *choice)
{
    const json_t *delta = json_object_get(choice, "delta");
    const json_t *call =
        json_array_get(json_object_get(delta, "tool_calls"), 0);
    const json_t *function = json_object_get(call, "function");
    size_t i = (size_t)json_integer_value(json_object_get(call, "index"));
    assert_true(i < 2);
    g->chunks++;
    g->roles += json_is_string(json_object_get(delta, "role"));
    g->ids += json_is_string(json_object_get(call, "id"));
    add(g->content, sizeof g->content, json_object_get(delta, "content"));
    add(g->reasoning, sizeof g->reasoning,
        json_object_get(delta, "reasoning_content"));
    add(g->name[i], sizeof g->name[i], json_object_get(function, "name"));
    add(g->arguments[i], sizeof g->arguments[i],
        json_object_get(function, "arguments"));
    add(g->finish, sizeof g->finish, json_object_get(choice, "finish_reason"));
}

static void gather(struct gathered *g, char *body)
{
    memset(g, 0, sizeof *g);
    for (char *at = body, *end; (end = strstr(at, "\n\n")); at = end + 2) {
        *end = 0;
        assert_memory_equal(at, "data: ", 6);
        if (strcmp(at + 6, "[DONE]") == 0) break;
        json_t *v = json_of(mem_dup(at + 6));
        gather_delta(g, at_path(v, "choices.0"));
        json_decref(v);
    }
    mem_free(body);
}

static void a_stream_is_taken_apart_the_same_way(void **state)
{
    (void)state;
    struct server s;
    run(&s, "qwen3", "qwen25");
    for (size_t n = 1; n < 12; n++) {
        int fd = server_post(&s, PATH, "{" HI "," TOOLS ",\"stream\":true}");
        play_text(&s, fake_next(s.node).id, answer, n);
        struct gathered g;
        gather(&g, answer_ok(fd));
        assert_string_equal(g.content, "I look.");
        assert_string_equal(g.reasoning, "hm");
        assert_string_equal(g.name[0], "f");
        assert_string_equal(g.name[1], "f");
        assert_string_equal(g.arguments[0], "{\"a\": \"\\u00e9\"}");
        assert_string_equal(g.arguments[1], "{}");
        assert_string_equal(g.finish, "tool_calls");
        assert_int_equal(g.roles, 1);
        assert_int_equal(g.ids, 2);
    }
    server_stop(&s);
}

/* The chunks of one call, as OpenAI frames them. */
static void a_call_is_a_name_and_then_arguments(void **state)
{
    (void)state;
    struct server s;
    run(&s, NULL, "llama3");
    int fd = server_post(&s, PATH, "{" HI "," TOOLS ",\"stream\":true}");
    struct fake_request r = fake_next(s.node);
    assert_false(r.sampling.skip_special_tokens); /* its tags are special */
    struct engine_event name = fake_token('x', "{\"name\": \"f\",", 1);
    fake_play(s.node, r.id, &name, 1);
    raw_read(fd, "\"name\":\"f\",\"arguments\":\"\"}}]},\"logprobs\":null,"
                 "\"finish_reason\":null,\"matched_stop\":null}]");
    struct engine_event more = fake_token('x', "\"parameters\": {\"a\"", 2);
    fake_play(s.node, r.id, &more, 1);
    raw_read(fd,
             "{\"index\":0,\"delta\":{\"role\":null,\"content\":null,"
             "\"reasoning_content\":null,\"tool_calls\":[{\"id\":null,"
             "\"index\":0,\"type\":\"function\",\"function\":{\"name\":null,"
             "\"arguments\":\"{\\\"a\\\"\"}}]}");
    struct engine_event end[] = {fake_token('x', ":1}}", 3),
                                 fake_done(FINISH_LENGTH, 3)};
    fake_play(s.node, r.id, end, 2);
    const char *tail = raw_read(fd, NULL);
    close(fd);
    assert_non_null(strstr(tail, "\"arguments\":\":1}\"}}]}"));
    assert_non_null(strstr(tail, "\"finish_reason\":\"length\""));
    server_stop(&s);
}

static void prompts_open_the_reasoning(void **state)
{
    (void)state;
    struct server s;
    struct gathered g;
    run(&s, "qwen3", NULL);
    static const char *const bodies[] = {
        "{" HI ",\"chat_template_kwargs\":{\"enable_thinking\":true},"
        "\"stream\":true}",
        "{" HI ",\"chat_template_kwargs\":{\"enable_thinking\":true},"
        "\"stream\":true,\"stream_reasoning\":false}",
        "{" HI ",\"chat_template_kwargs\":{\"enable_thinking\":true},"
        "\"stream\":true,\"separate_reasoning\":false}"};
    for (int i = 0; i < 3; i++) {
        int fd = server_post(&s, PATH, bodies[i]);
        struct fake_request r = fake_next(s.node);
        expect_prompt(&r, "ux;A<think>\n");
        play_text(&s, r.id, "a b c d\n</think>\n\ne", 1);
        gather(&g, answer_ok(fd));
        assert_string_equal(g.reasoning, i == 2 ? "" : "a b c d");
        assert_string_equal(g.content, i == 2 ? "a b c d\n</think>\n\ne" : "e");
        assert_string_equal(g.finish, "stop");
        /* role, reasoning, content, finish */
        if (i == 1) assert_int_equal(g.chunks, 4);
    }
    int fd = server_post(&s, PATH, "{" HI "}");
    play_text(&s, fake_next(s.node).id, "plain", 2);
    json_t *v = json_of(answer_ok(fd));
    expect_at(v, "choices.0.message.content", "'plain'");
    expect_at(v, "choices.0.message.reasoning_content", "null");
    json_decref(v);
    server_stop(&s);
}

/* continue_final_message: what the client has of the answer counts. */
static void reasoning_goes_on_where_it_was(void **state)
{
    (void)state;
    static const char *const finals[] = {"<think>so", "<think>so</think>",
                                         "so"};
    struct server s;
    run(&s, "qwen3", NULL);
    for (int i = 0; i < 3; i++) {
        char body[300];
        snprintf(body, sizeof body,
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{"
                 "\"role\":\"assistant\",\"content\":\"%s\"}],"
                 "\"continue_final_message\":true}",
                 finals[i]);
        int fd = server_post(&s, PATH, body);
        play_text(&s, fake_next(s.node).id, "far </think>", 3);
        json_t *v = json_of(answer_ok(fd));
        expect_at(v, "choices.0.message.reasoning_content",
                  i == 0 ? "'far'" : "null");
        expect_at(v, "choices.0.message.content",
                  i == 0 ? "null" : "'far </think>'");
        json_decref(v);
    }
    server_stop(&s);
}

#define THINK "\"chat_template_kwargs\":{\"enable_thinking\":true}"
#define STRICT                                                         \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\","  \
    "\"strict\":true,\"parameters\":{\"type\":\"object\",\"properties" \
    "\":{\"a\":{\"type\":\"integer\"}},\"required\":[\"a\"]}}}]"

#define OFF(name) "\"chat_template_kwargs\":{\"" name "\":false}"
#define REGEX     "\"regex\":\"[ab]\""
#define FINAL(text)                                                        \
    "\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":"       \
    "\"assistant\",\"content\":\"" text "\"}],\"continue_final_message\":" \
    "true"

/* A form holds behind the reasoning; where that does not come, at once. */
static void forms_hold_behind_the_reasoning(void **state)
{
    (void)state;
    enum { ON = RIG_THINK, END = RIG_THINK_END };
    static const struct {
        const char *reasoning, *more;
        int32_t open, after;
    } rows[] = {
        {"qwen3", HI, ON, END}, /* it may think, or not */
        {"qwen3", HI "," THINK, -1, END},
        {"qwen3", HI "," OFF("enable_thinking"), -1, -1},
        {"deepseek-v3", HI "," OFF("thinking"), -1, -1},
        {"qwen3", HI ",\"separate_reasoning\":false", ON, END},
        {"qwen3", HI "," THINK ",\"separate_reasoning\":false", -1, END},
        {"deepseek-r1", HI, -1, END},
        {"qwen3", FINAL("<think>so"), -1, END},
        {"qwen3", FINAL("<think>so</think>"), -1, -1},
        {"qwen3", FINAL("a"), -1, -1}, /* it has begun */
        {"kimi", HI, -1, -1},          /* its tags are no tokens here */
        {NULL, HI, -1, -1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct server s;
        struct server_setup setup = {.chat_template = template, .thinks = true};
        if (rows[i].reasoning)
            setup.options.reasoning = reasoning_find(rows[i].reasoning);
        server_run(&s, &setup);
        for (int stream = 0; stream < 2; stream++) {
            char body[600];
            snprintf(body, sizeof body, "{%s," REGEX ",\"stream\":%s}",
                     rows[i].more, stream ? "true" : "false");
            int fd = server_post(&s, PATH, body);
            struct fake_request r = fake_next(s.node);
            assert_true(r.has_grammar);
            assert_string_equal(r.begins, "ab");
            assert_int_equal(r.grammar_open, rows[i].open);
            assert_int_equal(r.grammar_after, rows[i].after);
            play_text(&s, r.id, "a", 1);
            mem_free(answer_ok(fd));
        }
        server_stop(&s);
    }
}

/* Calls that must come, and strict ones, become a grammar. */
static void calls_are_held_to_their_form(void **state)
{
    (void)state;
    static const struct {
        const char *reasoning, *toolcall, *more, *prompt, *begins, *text;
    } rows[] = {
        {"qwen3", "qwen25", TOOLS ",\"tool_choice\":\"required\"," THINK,
         "ux;A<think>\n", "",
         "hm <tool_call>{\"</think>\n<tool_call>\n{\"name\": \"f\", "
         "\"arguments\": {}}\n</tool_call>"},
        {NULL, "qwen25", TOOLS ",\"tool_choice\":\"required\"," THINK,
         "ux;A<think>\n\n</think>\n\n", "<",
         "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>"},
        {NULL, "llama3",
         STRICT ",\"tool_choice\":{\"type\":\"function\",\"function\":{"
                "\"name\":\"f\"}},\"parallel_tool_calls\":false",
         "ux;A", "{", "{\"name\": \"f\", \"parameters\": {}}"},
        {"qwen3", "deepseekv31", STRICT, "ux;A", "",
         "so<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜"
         "tool▁call▁end｜><｜tool▁calls▁end｜>"},
        {NULL, "qwen25",
         STRICT ",\"response_format\":{\"type\":\"json_object\"}", "ux;A", "{",
         "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct server s;
        char body[600];
        run(&s, rows[i].reasoning, rows[i].toolcall);
        snprintf(body, sizeof body, "{" HI ",%s}", rows[i].more);
        int fd = server_post(&s, PATH, body);
        struct fake_request r = fake_next(s.node);
        expect_prompt(&r, rows[i].prompt);
        assert_true(r.has_grammar);
        assert_int_equal(r.grammar_open, -1);
        assert_int_equal(r.grammar_after, -1);
        if (*rows[i].begins)
            assert_string_equal(r.begins, rows[i].begins);
        else
            assert_true(strlen(r.begins) > 40);
        play_text(&s, r.id, rows[i].text, 4);
        json_t *v = json_of(answer_ok(fd));
        expect_at(v, "choices.0.message.tool_calls.0.function",
                  "{'name':'f','arguments':'{}'}");
        expect_at(v, "choices.0.message.tool_calls.1", "(absent)");
        expect_at(v, "choices.0.message.reasoning_content",
                  i == 0 ? "'hm <tool_call>{\\\"'" : "null");
        json_decref(v);
        server_stop(&s);
    }
}

static void calls_that_cannot_be_held_are_refused(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {TOOLS ",\"tool_choice\":\"required\",\"regex\":\"a\"",
         "exclude each other"},
        {"\"tools\":[{\"function\":{\"name\":\"f\",\"strict\":true,"
         "\"parameters\":{\"properties\":{\"a\":{\"not\":{}}}}}}]",
         "The function \\\"f\\\": json_schema at a: not"},
    };
    struct server s;
    run(&s, NULL, "qwen25");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char body[400], *got;
        snprintf(body, sizeof body, "{" HI ",%s}", rows[i][0]);
        assert_int_equal(answer_of(server_post(&s, PATH, body), &got), 400);
        if (!strstr(got, rows[i][1])) fail_msg("%s", got);
        mem_free(got);
    }
    server_stop(&s);
}

static void tool_results_go_into_the_prompt(void **state)
{
    (void)state;
    struct server s;
    run(&s, NULL, "qwen25");
    int fd = server_post(
        &s, PATH,
        "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":"
        "\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"call_1\","
        "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":"
        "\"{\\\"a\\\": 7}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"call_1\","
        "\"content\":\"ok\"}]," TOOLS "}");
    struct fake_request r = fake_next(s.node);
    expect_prompt(&r, "ux;a(7);tok;A");
    play_text(&s, r.id, "done", 4);
    json_t *v = json_of(answer_ok(fd));
    expect_at(v, "choices.0.message.content", "'done'");
    expect_at(v, "choices.0.message.tool_calls", "null");
    expect_at(v, "choices.0.finish_reason", "'stop'");
    json_decref(v);
    server_stop(&s);
}

/* Without tools, or with none to be called, what looks like a call is text. */
static void calls_need_tools(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{" HI "}", "{" HI "," TOOLS ",\"tool_choice\":\"none\"}"};
    struct server s;
    run(&s, NULL, "llama3");
    for (int i = 0; i < 2; i++) {
        int fd = server_post(&s, PATH, bodies[i]);
        struct fake_request r = fake_next(s.node);
        assert_true(r.sampling.skip_special_tokens);
        play_text(&s, r.id, "{\"name\":\"f\"}", 3);
        json_t *v = json_of(answer_ok(fd));
        expect_at(v, "choices.0.message.content", "'{\\'name\\':\\'f\\'}'");
        json_decref(v);
    }
    server_stop(&s);
}

/* Logprobs of tokens that the parser holds back are not lost. */
static void logprobs_come_with_what_is_held_back(void **state)
{
    (void)state;
    struct server s;
    run(&s, "qwen3", NULL);
    int fd =
        server_post(&s, PATH, "{" HI ",\"stream\":true,\"logprobs\":true}");
    uint64_t id = fake_next(s.node).id;
    for (uint32_t i = 1; i <= 3; i++) {
        struct engine_event event = fake_token('x', "<", i);
        event.has_logprob = true;
        event.logprob.token = 'x';
        fake_play(s.node, id, &event, 1);
    }
    struct engine_event done = fake_done(FINISH_LENGTH, 3);
    fake_play(s.node, id, &done, 1);
    char *body = answer_ok(fd);
    size_t count = 0;
    for (const char *at = body; (at = strstr(at, "\"token\":\"x\"")); at++)
        count++;
    assert_int_equal(count, 3);
    struct gathered g;
    gather(&g, body);
    assert_string_equal(g.content, "<<<");
    server_stop(&s);
}

TESTS(T(a_whole_answer_is_taken_apart), T(a_stream_is_taken_apart_the_same_way),
      T(a_call_is_a_name_and_then_arguments), T(prompts_open_the_reasoning),
      T(reasoning_goes_on_where_it_was), T(forms_hold_behind_the_reasoning),
      T(calls_are_held_to_their_form), T(calls_that_cannot_be_held_are_refused),
      T(tool_results_go_into_the_prompt), T(calls_need_tools),
      T(logprobs_come_with_what_is_held_back))
