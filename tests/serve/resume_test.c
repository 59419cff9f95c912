/* Streams that another server goes on with: http/resume.h, the server's
 * side. */
#include "tests/serve/rig.h"

#include "http/resume.h"
#include "text/reply.h"

#define WATCHED RESUME_HEADER ": 1700000000\r\n"

/* One stream: its route, its request without the closing brace, its text in
 * tokens of `n` bytes. */
struct talk {
    const char *path, *body, *text;
    size_t n;
};

static const char called[] =
    "<think>\nhm\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"f\", "
    "\"arguments\": {\"a\": \"\\u00e9\"}}\n</tool_call>\n<tool_call>\n"
    "{\"name\": \"f\"}\n</tool_call>";

#define CHAT                                                               \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"rid\":\"r\"," \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],"   \
    "\"stream\":true"

static const struct talk talks[] = {
    {"/generate", "{\"text\":\"Hi\",\"rid\":\"r\",\"stream\":true",
     "ab\"c\xc3\xa9 def", 1},
    {"/generate",
     "{\"text\":\"Hi\",\"rid\":\"r\",\"stream\":true,"
     "\"sampling_params\":{\"stream_interval\":3}",
     "abcdefghijk", 1},
    {"/v1/completions",
     "{\"prompt\":\"Hi\",\"rid\":\"r\",\"stream\":true,\"echo\":true,"
     "\"stream_options\":{\"include_usage\":true}",
     "abcd", 1},
    {"/v1/chat/completions", CHAT, called, 5},
    {"/v1/chat/completions",
     CHAT ",\"stream_reasoning\":false,\"stream_options\":"
          "{\"include_usage\":true,\"continuous_usage_stats\":true}",
     called, 3},
};

static void run(struct server *s)
{
    struct server_setup setup = {
        .chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"};
    setup.options.reasoning = reasoning_find("qwen3");
    setup.options.toolcall = toolcall_find("qwen25");
    server_run(s, &setup);
}

static int32_t id_of(uint32_t i)
{
    return 'a' + (int32_t)(i % 26);
}

/* Ids and times that differ from call to call. */
static void mask(char *text)
{
    for (char *p = text; (p = strstr(p, "call_")); p += 5)
        memset(p + 5, 'x', strspn(p + 5, "0123456789abcdef"));
    for (char *p = text; (p = strstr(p, "_latency\":")); p++)
        memset(p, '.', strcspn(p, "}"));
}

/* The stream of a talk whose first `from` tokens were told elsewhere. */
static char *stream_of(struct server *s, const struct talk *talk, uint32_t from,
                       const char *headers)
{
    struct buf body;
    buf_init(&body, 1 << 16);
    buf_puts(&body, talk->body);
    for (uint32_t i = 0; i < from; i++)
        buf_printf(&body, i ? ",%d" : ",\"" RESUME_MEMBER "\":[%d", id_of(i));
    buf_puts(&body, from ? "]}" : "}");
    int fd = server_send_with(s, "POST", talk->path, headers, body.data);
    buf_fini(&body);
    struct fake_request r = fake_next(s->node);
    assert_int_equal(r.output_count, from);
    for (uint32_t i = 0; i < from; i++)
        assert_int_equal(r.tokens[r.token_count - from + i], id_of(i));
    char part[256];
    uint32_t count = 0;
    const char *text = talk->text;
    if (from) {
        struct engine_event event = fake_token(0, part, count = from);
        snprintf(part, from * talk->n + 1, "%s", text);
        event.kind = EVENT_RESUMED;
        event.text_len = strlen(part);
        uint32_t ends[128];
        for (uint32_t i = 0; i < from; i++) { /* the last may be shorter */
            ends[i] = (i + 1) * (uint32_t)talk->n;
            if (ends[i] > event.text_len) ends[i] = event.text_len;
        }
        event.text_ends = ends;
        text += event.text_len;
        fake_play(s->node, r.id, &event, 1);
    }
    for (; *text; text += strlen(part)) {
        snprintf(part, talk->n + 1, "%s", text);
        struct engine_event event = fake_token(id_of(count), part, count + 1);
        count++;
        fake_play(s->node, r.id, &event, 1);
    }
    struct engine_event done = fake_done(FINISH_STOP_TOKEN, count);
    done.finish.stop_token = 256;
    fake_play(s->node, r.id, &done, 1);
    char *answer = answer_ok(fd);
    mask(answer);
    return answer;
}

/* A comment and its blank line taken out of text at `at`; the ids in it. */
static uint32_t take_comment(char *at, uint32_t seen)
{
    char *end = strstr(at, "\n\n");
    assert_non_null(end);
    for (char *id = at + strlen(RESUME_COMMENT); id < end; seen++) {
        assert_int_equal(strtol(id, &id, 10), id_of(seen));
        assert_true(id == end || *id++ == ',');
    }
    memmove(at, end + 2, strlen(end + 2) + 1);
    return seen;
}

static void a_stream_goes_on_behind_any_comment(void **state)
{
    (void)state;
    struct server s;
    run(&s);
    for (size_t i = 0; i < sizeof talks / sizeof *talks; i++) {
        const struct talk *talk = &talks[i];
        char *plain = stream_of(&s, talk, 0, "");
        char *watched = stream_of(&s, talk, 0, WATCHED);
        /* All but the time is as nobody watching would get it. */
        uint32_t seen = 0, comments = 0;
        for (char *at; (at = strstr(watched, RESUME_COMMENT)); comments++) {
            seen = take_comment(at, seen);
            char *rest = stream_of(&s, talk, seen, WATCHED);
            for (char *c; (c = strstr(rest, RESUME_COMMENT));)
                memmove(c, strstr(c, "\n\n") + 2,
                        strlen(strstr(c, "\n\n") + 2) + 1);
            char *later = mem_dup(at);
            for (char *c; (c = strstr(later, RESUME_COMMENT));)
                memmove(c, strstr(c, "\n\n") + 2,
                        strlen(strstr(c, "\n\n") + 2) + 1);
            assert_string_equal(rest, later);
            mem_free(rest);
            mem_free(later);
        }
        assert_true(comments > 2);
        assert_int_equal(strlen(plain), strlen(watched));
        mem_free(plain);
        mem_free(watched);
    }
    server_stop(&s);
}

static void only_streams_of_one_output_are_marked(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        bool marked;
    } cases[] = {
        {"{\"text\":\"Hi\",\"stream\":true}", true},
        {"{\"text\":\"Hi\",\"stream\":true,\"return_logprob\":true}", false},
        {"{\"text\":[\"Hi\"],\"stream\":true}", false},
        {"{\"text\":\"Hi\"}", false},
    };
    struct server s;
    run(&s);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd =
            server_send_with(&s, "POST", "/generate", WATCHED, cases[i].body);
        struct engine_event events[] = {fake_token('a', "a", 1),
                                        fake_done(FINISH_LENGTH, 1)};
        uint64_t id = fake_next(s.node).id;
        fake_play(s.node, id, events, 1);
        fake_play(s.node, id, events + 1, 1);
        const char *text = raw_read(fd, NULL);
        close(fd);
        const char *mark = strstr(text, RESUME_HEADER ": ");
        assert_int_equal(mark != NULL, cases[i].marked);
        if (mark) { /* the id that its events name */
            char rid[33], named[64];
            assert_int_equal(
                sscanf(mark, RESUME_HEADER ": %32[0-9a-f]\r\n", rid), 1);
            assert_int_equal(strlen(rid), 32);
            snprintf(named, sizeof named, "\"id\":\"%s\"", rid);
            assert_non_null(strstr(text, named));
        }
        assert_int_equal(strstr(text, RESUME_COMMENT) != NULL, cases[i].marked);
    }
    server_stop(&s);
}

/* A client's own id is in the body already, and no header's business. */
static void a_given_id_is_not_a_headers_value(void **state)
{
    (void)state;
    struct server s;
    run(&s);
    int fd = server_send_with(
        &s, "POST", "/generate", WATCHED,
        "{\"text\":\"Hi\",\"stream\":true,\"rid\":\"a\\r\\nB: c\"}");
    struct engine_event events[] = {fake_token('a', "a", 1),
                                    fake_done(FINISH_LENGTH, 1)};
    fake_play(s.node, fake_next(s.node).id, events, 2);
    const char *text = raw_read(fd, NULL);
    close(fd);
    assert_non_null(strstr(text, RESUME_HEADER ": 1\r\n"));
    assert_null(strstr(text, "\nB: c"));
    server_stop(&s);
}

static void what_cannot_be_resumed_is_refused(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{\"text\":\"Hi\",\"resume_output_ids\":[1]}",
        "{\"text\":[\"Hi\"],\"stream\":true,\"resume_output_ids\":[1]}",
        "{\"text\":\"Hi\",\"stream\":true,\"return_logprob\":true,"
        "\"resume_output_ids\":[1]}",
        "{\"text\":\"Hi\",\"stream\":true,\"resume_output_ids\":7}",
        "{\"text\":\"Hi\",\"stream\":true,\"resume_output_ids\":[257]}",
        "{\"text\":\"Hi\",\"stream\":true,\"resume_output_ids\":[-1]}",
        "{\"text\":\"Hi\",\"stream\":true,\"resume_output_ids\":[\"a\"]}",
    };
    struct server s;
    run(&s);
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        mem_free(server_ask(&s, "POST", "/generate", bodies[i], 400));
    struct buf long_one;
    buf_init(&long_one, 1 << 20);
    buf_puts(&long_one,
             "{\"text\":\"Hi\",\"stream\":true,\"resume_output_ids\":[1");
    for (int i = 0; i < RIG_CONTEXT; i++)
        buf_puts(&long_one, ",1");
    buf_puts(&long_one, "]}");
    mem_free(server_ask(&s, "POST", "/generate", long_one.data, 400));
    buf_fini(&long_one);
    server_stop(&s);
}

TESTS(T(a_stream_goes_on_behind_any_comment),
      T(only_streams_of_one_output_are_marked),
      T(a_given_id_is_not_a_headers_value),
      T(what_cannot_be_resumed_is_refused))
