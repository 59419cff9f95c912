/* Each case is fed whole, a byte at a time, and split at every byte and every
 * pair of bytes; what comes out must be the same. */
#include "tests/test.h"

#include "base/mem.h"
#include "text/reply.h"
#include "text/utf8.h"

static const char tools_text[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\","
    "\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":"
    "\"string\"},\"days\":{\"type\":\"integer\"},\"deep\":{\"type\":"
    "\"object\"},\"any\":{\"anyOf\":[]}}}}},"
    "{\"type\":\"function\",\"function\":{\"name\":\"now\"}}]";

/* Reasoning, content and calls as they grow. */
struct heard {
    struct buf reasoning, content, calls;
    uint32_t call_count;
};

static void hear(void *arg, const struct reply_event *event)
{
    struct heard *h = arg;
    assert_true(event->len > 0);
    assert_int_equal(utf8_valid(event->text, event->len), event->len);
    switch (event->kind) {
    case REPLY_REASONING:
        buf_add(&h->reasoning, event->text, event->len);
        break;
    case REPLY_CONTENT: buf_add(&h->content, event->text, event->len); break;
    case REPLY_CALL:
        assert_int_equal(event->call, h->call_count++);
        buf_printf(&h->calls, "|%.*s ", (int)event->len, event->text);
        break;
    case REPLY_ARGUMENTS:
        assert_int_equal(event->call + 1, h->call_count);
        buf_add(&h->calls, event->text, event->len);
        break;
    }
}

struct format {
    const char *reasoning, *toolcall;
    bool inside;
};

/* Feeds text in the parts that end at a, b and its end; or, with b past that,
 * in bytes. Into out: [reasoning]content|name arguments|name arguments */
static void take_apart(const struct format *f, const json_t *tools,
                       const char *text, size_t a, size_t b, struct buf *out)
{
    struct heard h = {0};
    size_t n = strlen(text);
    buf_init(&h.reasoning, 1 << 20);
    buf_init(&h.content, 1 << 20);
    buf_init(&h.calls, 1 << 20);
    struct reply_options o = {
        .reasoning = f->reasoning ? reasoning_find(f->reasoning) : NULL,
        .in_reasoning = f->inside,
        .toolcall = f->toolcall ? toolcall_find(f->toolcall) : NULL,
        .tools = tools,
        .sink = hear,
        .arg = &h};
    struct reply *reply = reply_create(&o);
    for (size_t i = 0; b > n && i < n; i++)
        reply_feed(reply, text + i, 1);
    if (b <= n) {
        reply_feed(reply, text, a);
        reply_feed(reply, text + a, b - a);
        reply_feed(reply, text + b, n - b);
    }
    reply_end(reply);
    assert_false(reply_failed(reply));
    reply_destroy(reply);
    buf_reset(out);
    if (h.reasoning.len) buf_printf(out, "[%s]", h.reasoning.data);
    buf_puts(out, h.content.len ? h.content.data : "");
    buf_puts(out, h.calls.len ? h.calls.data : "");
    buf_fini(&h.reasoning);
    buf_fini(&h.content);
    buf_fini(&h.calls);
}

static void expect(const struct format *f, const char *text, const char *want)
{
    json_t *tools;
    struct buf out;
    size_t n = strlen(text);
    assert_int_equal(
        json_parse(&tools, tools_text, sizeof tools_text - 1, NULL), 0);
    buf_init(&out, 1 << 20);
    for (size_t a = 0; a <= n; a++) {
        for (size_t b = a; b <= (n < 250 || a == 0 ? n : a); b++) {
            take_apart(f, tools, text, a, b, &out);
            if (strcmp(out.data, want) != 0)
                fail_msg("%s\nsplit at %zu and %zu\n got %s\nwant %s", text, a,
                         b, out.data, want);
        }
    }
    take_apart(f, tools, text, 0, n + 1, &out);
    if (strcmp(out.data, want) != 0)
        fail_msg("%s\nby bytes\n got %s\nwant %s", text, out.data, want);
    buf_fini(&out);
    json_decref(tools);
}

static void reasoning_is_what_stands_in_the_tags(void **state)
{
    (void)state;
    static const struct format qwen3 = {"qwen3", NULL, false},
                               open = {"qwen3", NULL, true},
                               r1 = {"deepseek-r1", NULL, true},
                               kimi = {"kimi", NULL, false};
    expect(&qwen3, "<think>\nIs é\n 漢 <b> it?\n</think>\n\nYes, 😀.\n",
           "[Is é\n 漢 <b> it?]Yes, 😀.\n");
    expect(&qwen3, "\n<think></think>a", "a");
    expect(&qwen3, "<think>\n\n</think>\n\nno thought", "no thought");
    expect(&qwen3, "  <thin air", "  <thin air");
    expect(&qwen3, "  <think", "  <think");
    expect(&qwen3, "a <think>b</think> c", "a <think>b</think> c");
    expect(&qwen3, "no tags </think>", "no tags </think>");
    expect(&qwen3, "<think>cut off </thi", "[cut off </thi]");
    expect(&qwen3, "<think>cut off \n", "[cut off]");
    expect(&qwen3, "<think>a</think>b<think>c</think>", "[a]b<think>c</think>");
    expect(&open, "so\n</think>\n\nAnswer", "[so]Answer");
    expect(&open, " <think>\nso</think>Answer", "[so]Answer");
    expect(&open, "</think>Answer", "Answer");
    expect(&r1, "all of it", "[all of it]");
    expect(&r1, "<th", "[<th]");
    expect(&kimi, "◁think▷hm◁/think▷ok", "[hm]ok");
}

static void objects_in_tags_are_calls(void **state)
{
    (void)state;
    static const struct format qwen = {NULL, "qwen25", false},
                               both = {"qwen3", "qwen", false};
    expect(&qwen,
           "Let me.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": "
           "{\"city\": \"Zürich\", \"deep\": [{}]}}\n</tool_call>",
           "Let me.|get_weather {\"city\": \"Zürich\", \"deep\": [{}]}");
    expect(&both,
           "<think>\nA <tool_call> it is\n</think>\n\n<tool_call>\n{\"name\": "
           "\"now\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n"
           "{\"arguments\": {\"a\": 1}, \"name\": \"now\"}\n</tool_call>\n",
           "[A <tool_call> it is]|now {}|now {\"a\": 1}");
    /* strings may hold anything */
    expect(&qwen,
           "<tool_call>{\"name\":\"now\",\"arguments\":{\"a\":\"}\\\"{ "
           "</tool_call>\"}}</tool_call> and\nmore",
           " and\nmore|now {\"a\":\"}\\\"{ </tool_call>\"}");
    expect(&qwen, "<tool_call>{\"name\": \"now\"}</tool_call>", "|now {}");
    expect(&qwen,
           "<tool_call>{\"id\": [1, {}], \"name\": \"no\\u0077\", "
           "\"arguments\": null }</tool_call>",
           "|now null");
    /* a line's end in a string is escaped */
    expect(&qwen,
           "<tool_call>{\"name\":\"now\",\"arguments\":{\"a\":\"x\n\ty\"}}\n",
           "|now {\"a\":\"x\\n\\ty\"}");
    /* brackets and quotes left open */
    expect(&qwen,
           "<tool_call>{\"name\":\"now\",\"arguments\":{\"a\":1}</tool_call>b",
           "b|now {\"a\":1}");
    expect(&qwen,
           "<tool_call>{\"name\":\"now\",\"arguments\":{\"a\":\"x}}\n"
           "</tool_call>b",
           "b|now {\"a\":\"x}}");
    expect(&qwen, "<tool_call>{\"name\":\"now\",\"arguments\":{\"a\":\"cut",
           "|now {\"a\":\"cut");
    /* no calls */
    expect(&qwen, "a < b <tool_cal", "a < b <tool_cal");
    expect(&qwen, "x <tool_call> words</tool_call>",
           "x <tool_call> words</tool_call>");
    expect(&qwen, "<tool_call>{\"name\":\"rm\",\"arguments\":{}}</tool_call>",
           "<tool_call>{\"name\":\"rm\",\"arguments\":{}}</tool_call>");
    expect(&qwen, "<tool_call>{\"name\":7}", "<tool_call>{\"name\":7}");
    expect(&qwen, "<tool_call>{\"arguments\":{\"a\":1}}</tool_call>",
           "<tool_call>{\"arguments\":{\"a\":1}}</tool_call>");
    expect(&qwen, " \n ", " \n ");
}

static void a_call_ends_reasoning(void **state)
{
    (void)state;
    static const struct format qwen = {"qwen3", "qwen25", true},
                               coder = {"qwen3", "qwen3_coder", true},
                               v3 = {"deepseek-r1", "deepseekv3", true},
                               mistral = {"qwen3", "mistral", true};
    expect(&qwen, "I look.\n<tool_call>\n {\"name\": \"now\"}\n</tool_call>",
           "[I look.]|now {}");
    expect(&qwen, "A <tool_call> it is</think>so", "[A <tool_call> it is]so");
    expect(&qwen, "A <tool_call>\n\n", "[A <tool_call>]");
    expect(&coder,
           "a <tool_call> b <tool_call>\n<function=now>\n</function>\n"
           "</tool_call>",
           "[a <tool_call> b]|now {}");
    expect(&v3,
           "a<｜tool▁calls▁begin｜>\n<｜tool▁call▁begin｜>function"
           "<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜>",
           "[a]|now {}");
    expect(&mistral, "a [TOOL_CALLS] [b] [TOOL_CALLS] [{\"name\": \"now\"}]",
           "[a [TOOL_CALLS] [b]]|now {}");
}

static void llamas_need_no_tag(void **state)
{
    (void)state;
    static const struct format llama = {NULL, "llama3", false};
    expect(&llama,
           "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"x\"}}",
           "|get_weather {\"city\": \"x\"}");
    expect(&llama,
           "<|python_tag|>{\"name\": \"now\", \"parameters\": {}}; "
           "{\"type\": \"function\", \"name\": \"now\", \"arguments\": "
           "{\"a\": \"b\"}}",
           "|now {}|now {\"a\": \"b\"}");
    expect(&llama, "Sure: {\"name\": \"now\", \"parameters\": {}}",
           "Sure: {\"name\": \"now\", \"parameters\": {}}");
    expect(&llama, "{\"name\": \"Bob\", \"age\": 3}",
           "{\"name\": \"Bob\", \"age\": 3}");
    expect(&llama, "{\"age\": 3, \"name\": \"now\"}",
           "{\"age\": 3, \"name\": \"now\"}");
    expect(&llama, "<|python_tag|>print(1)", "<|python_tag|>print(1)");
    expect(&llama, "{", "{");
}

static void lists_of_objects_are_calls(void **state)
{
    (void)state;
    static const struct format mistral = {NULL, "mistral", false};
    expect(&mistral,
           "[TOOL_CALLS] [{\"name\": \"now\", \"arguments\": {}}, {\"name\": "
           "\"get_weather\", \"arguments\": {\"days\": 2}}]",
           "|now {}|get_weather {\"days\": 2}");
    expect(&mistral, "[TOOL_", "[TOOL_");
    expect(&mistral, "[TOOL_CALLS] no", "[TOOL_CALLS] no");
}

static void names_may_be_headers(void **state)
{
    (void)state;
    static const struct format v3 = {NULL, "deepseekv3", false},
                               v31 = {NULL, "deepseekv31", false};
    expect(&v3,
           "Hm.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function"
           "<｜tool▁sep｜>now\n```json\n{\"a\": \"```\"}\n```"
           "<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function"
           "<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜>"
           "<｜tool▁calls▁end｜>",
           "Hm.|now {\"a\": \"```\"}|now {}");
    expect(&v31,
           "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now"
           "<｜tool▁sep｜>{\"a\": {}}<｜tool▁call▁end｜>"
           "<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
           "<｜tool▁call▁end｜><｜tool▁calls▁end｜>.",
           ".|now {\"a\": {}}|get_weather {}");
    expect(&v31,
           "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>rm"
           "<｜tool▁sep｜>{}",
           "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>rm<｜tool▁sep｜>{}");
    expect(&v3, "<｜tool▁calls▁be", "<｜tool▁calls▁be");
}

static void xml_becomes_json(void **state)
{
    (void)state;
    static const struct format coder = {NULL, "qwen3_coder", false};
    expect(&coder,
           "I look.\n<tool_call>\n<function=get_weather>\n<parameter=city>\n"
           "New \"York\"\nx\n</parameter>\n<parameter=days>\n3\n</parameter>\n"
           "</function>\n</tool_call>",
           "I look.|get_weather {\"city\": \"New \\\"York\\\"\\nx\", "
           "\"days\": 3}");
    expect(&coder,
           "<tool_call><function=get_weather><parameter=deep>{\"a\": [1]}"
           "</parameter><parameter=any>True</parameter><parameter=days>many"
           "</parameter><parameter=new>1</parameter></function></tool_call>"
           "<tool_call><function=now></function></tool_call>",
           "|get_weather {\"deep\": {\"a\": [1]}, \"any\": true, \"days\": "
           "\"many\", \"new\": \"1\"}|now {}");
    expect(&coder, "<function=now>\n</function>", "|now {}");
    expect(&coder, "<tool_call>\n<function=now>\n</tool_call>!", "!|now {}");
    expect(&coder, "<tool_call>\n<function=rm>\n</function>\n</tool_call>",
           "<tool_call>\n<function=rm>\n</function>\n</tool_call>");
    expect(&coder, "<tool_call> x", "<tool_call> x");
}

static void prompts_tell_whether_reasoning_has_begun(void **state)
{
    (void)state;
    const struct reasoning_format *qwen3 = reasoning_find("qwen3"),
                                  *r1 = reasoning_find("deepseek-r1");
    assert_true(reasoning_begins(qwen3, "a<think>\n", 9));
    assert_false(reasoning_begins(qwen3, "a<think>b", 9));
    assert_false(reasoning_begins(qwen3, "", 0));
    assert_true(reasoning_begins(r1, "assistant", 9));
    assert_false(reasoning_begins(r1, "<think>\n\n</think>\n\n", 19));
    assert_null(reasoning_find("none"));
    assert_null(toolcall_find("qwen2"));
    assert_null(toolcall_find("qwen|qwen25"));
    struct buf names;
    buf_init(&names, 1 << 10);
    toolcall_list(&names);
    assert_non_null(strstr(names.data, "qwen, qwen25, qwen3_coder, llama3"));
    buf_fini(&names);
}

/* Of a long run of blanks the last thousand and some may be held back. */
static void runs_of_blanks_end(void **state)
{
    (void)state;
    static const struct format all[] = {{"qwen3", "llama3", false},
                                        {"qwen3", "qwen25", true},
                                        {NULL, "llama3", false}};
    json_t *tools = json_array();
    struct buf text, whole, bytes;
    buf_init(&text, 1 << 20);
    buf_init(&whole, 1 << 20);
    buf_init(&bytes, 1 << 20);
    for (int i = 0; i < 3 * 3000; i++)
        buf_puts(&text, i == 3000 ? "<think>" : i == 6000 ? "</think>" : "\n");
    buf_puts(&text, "{<tool_call>");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        take_apart(&all[i], tools, text.data, 0, 0, &whole);
        take_apart(&all[i], tools, text.data, 0, text.len + 1, &bytes);
        assert_string_equal(whole.data, bytes.data);
    }
    buf_fini(&text);
    buf_fini(&whole);
    buf_fini(&bytes);
    json_decref(tools);
}

static void blanks_within_a_call_are_no_matter(void **state)
{
    (void)state;
    static const struct {
        struct format format;
        const char *text; /* each ~ is 1500 blanks */
    } cases[] = {
        {{NULL, "qwen25", false},
         "<tool_call>~{~\"name\"~:~\"now\"~,~\"arguments\"~:~{\"a\": 1}~}~"
         "</tool_call>\n<tool_call>~{\"arguments\":~{\"a\": 1},\"name\":~"
         "\"now\"}~</tool_call>"},
        {{NULL, "llama3", false},
         "<|python_tag|>~{~\"name\":~\"now\"~,~\"parameters\":~{\"a\": 1}~}; "
         "{\"name\"~:\"now\",\"parameters\":{\"a\": 1}}"},
    };
    json_t *tools = json_pack("[{s:{s:s}}]", "function", "name", "now");
    struct buf text, out;
    buf_init(&text, 1 << 20);
    buf_init(&out, 1 << 20);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        buf_reset(&text);
        for (const char *c = cases[i].text; *c; c++)
            for (int k = 0; k < (*c == '~' ? 1500 : 1); k++)
                buf_putc(&text, *c != '~' ? *c : k % 3 ? ' ' : '\n');
        for (size_t a = 0; a <= text.len; a += 97) {
            take_apart(&cases[i].format, tools, text.data, a,
                       a < text.len / 2 ? 2 * a : text.len, &out);
            assert_string_equal(out.data, "|now {\"a\": 1}|now {\"a\": 1}");
        }
        take_apart(&cases[i].format, tools, text.data, 0, text.len + 1, &out);
        assert_string_equal(out.data, "|now {\"a\": 1}|now {\"a\": 1}");
    }
    buf_fini(&text);
    buf_fini(&out);
    json_decref(tools);
}

/* A megabyte in small parts, of what is held back longest. */
static void long_answers_take_linear_time(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "\n", "<", "\"", "<tool_call>", "{\"a\":", "\\", "<think>"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        struct heard h = {0};
        buf_init(&h.reasoning, 1 << 24);
        buf_init(&h.content, 1 << 24);
        buf_init(&h.calls, 1 << 24);
        struct reply_options o = {.reasoning = reasoning_find("qwen3"),
                                  .toolcall = toolcall_find("qwen25"),
                                  .tools = json_array(),
                                  .sink = hear,
                                  .arg = &h};
        struct reply *reply = reply_create(&o);
        reply_feed(reply, "x<tool_call>{\"b", 15);
        for (int k = 0; k < 100000; k++)
            reply_feed(reply, parts[i], strlen(parts[i]));
        reply_end(reply);
        assert_false(reply_failed(reply));
        assert_int_equal(h.content.len, 15 + 100000 * strlen(parts[i]));
        reply_destroy(reply);
        json_decref((json_t *)(uintptr_t)o.tools);
        buf_fini(&h.reasoning);
        buf_fini(&h.content);
        buf_fini(&h.calls);
    }
}

TESTS(T(reasoning_is_what_stands_in_the_tags), T(objects_in_tags_are_calls),
      T(a_call_ends_reasoning), T(llamas_need_no_tag),
      T(lists_of_objects_are_calls), T(names_may_be_headers),
      T(xml_becomes_json), T(prompts_tell_whether_reasoning_has_begun),
      T(runs_of_blanks_end), T(blanks_within_a_call_are_no_matter),
      T(long_answers_take_linear_time))
