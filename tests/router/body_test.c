#include "tests/test.h"

#include "json/json.h"
#include "router/body.h"

static struct skim checked(const char *text)
{
    struct skim s;
    struct why why = {0};
    if (skim_check(&s, text, strlen(text), &why))
        fail_msg("%s: %s", text, why.text);
    return s;
}

static void json_and_nothing_else_passes(void **state)
{
    (void)state;
    static const char *const good[] = {
        "{}",
        "[]",
        " null ",
        "true",
        "-0",
        "-1.5e+10",
        "1E5",
        "0.0",
        "123456789012345678901234567890",
        "1e999",
        "\"\"",
        "\"\\u00e9\\n\"",
        "{\"a\": [1, {\"b\": null}], \"a\": 2}\n",
        "[[[]]]",
        "\"\x7f\""};
    static const char *const bad[] = {
        "",        " ",        "{",       "}",           "[1,]",   "{,}",
        "{\"a\"}", "{\"a\":}", "{a: 1}",  "{\"a\": 1,}", "01",     "1.",
        ".5",      "1e",       "+1",      "-",           "nul",    "True",
        "NaN",     "\"",       "\"\\x\"", "\"\\u12g4\"", "\"\n\"", "[1 2]",
        "{} {}",   "'a'",      "[1]]",    "\"\\",        "\"\\u",  "{\"a\" 1}"};
    struct skim s;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        checked(good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (skim_check(&s, bad[i], strlen(bad[i]), NULL) != ERR_FORMAT)
            fail_msg("accepted: %s", bad[i]);
    struct why why = {0};
    assert_int_equal(skim_check(&s, "[1, x]", 6, &why), ERR_FORMAT);
    assert_string_equal(why.text, "malformed JSON at byte 4");
    char deep[2 * SKIM_DEPTH_MAX + 2];
    for (int depth = SKIM_DEPTH_MAX; depth <= SKIM_DEPTH_MAX + 1; depth++) {
        memset(deep, '[', (size_t)depth);
        memset(deep + depth, ']', (size_t)depth);
        assert_int_equal(skim_check(&s, deep, (size_t)depth * 2, NULL),
                         depth > SKIM_DEPTH_MAX ? ERR_FORMAT : 0);
    }
}

static void members_are_found_under_any_spelling(void **state)
{
    (void)state;
    struct skim o = checked("{\"x\": {\"room\": 1}, \"r\\u006fom\" : [2 , 3],"
                            " \"roo\": 4, \"rooms\": \"}\\\"{\", \"n\": -7}");
    struct skim room = skim_member(o, "room"), one;
    assert_int_equal(room.n, 7);
    assert_memory_equal(room.at, "[2 , 3]", 7);
    size_t at = 0;
    assert_true(skim_element_next(room, &at, &one));
    assert_int_equal(skim_int(one, 0), 2);
    assert_true(skim_element_next(room, &at, &one));
    assert_int_equal(skim_int(one, 0), 3);
    assert_false(skim_element_next(room, &at, &one));
    assert_int_equal(skim_member(o, "absent").n, 0);
    assert_int_equal(skim_int(skim_member(o, "n"), 0), -7);
    assert_int_equal(skim_int(checked("99999999999999999999"), 5), 5);
    assert_int_equal(skim_int(checked("1.0"), 5), 5);
    assert_int_equal(skim_int(checked("\"1\""), 5), 5);
    assert_int_equal(skim_kind(skim_member(room, "a")), 0);
}

static void truth_is_pythons(void **state)
{
    (void)state;
    static const char *const yes[] = {"true", "1",          "-0.01", "\"a\"",
                                      "[0]",  "{\"a\": 0}", "1e-5",  "10e0"};
    static const char *const no[] = {"false", "null", "0",   "-0.0",
                                     "\"\"",  "[]",   "{ }", "0e9"};
    for (size_t i = 0; i < 8; i++) {
        assert_true(skim_true(checked(yes[i])));
        assert_false(skim_true(checked(no[i])));
    }
    assert_false(skim_true((struct skim){NULL, 0}));
}

/* Builds for a worker and parses what came out. */
static json_t *build(const char *text, bool lists, const char *host, int port,
                     struct buf *out)
{
    struct body body;
    struct why why = {0};
    if (body_parse(&body, text, strlen(text), lists, &why))
        fail_msg("%s: %s", text, why.text);
    buf_init(out, 1 << 20);
    assert_int_equal(body_build(&body, host, port, NULL, out), 0);
    json_t *json;
    if (json_parse(&json, out->data, out->len, &why))
        fail_msg("%s: %s", out->data, why.text);
    return json;
}

static void nothing_else_is_touched(void **state)
{
    (void)state;
    static const char text[] =
        "{ \"text\" : \"\\u00e9\", \"seed\": 99999999999999999999,\n"
        " \"t\": 0.10, \"big\": 1e400 , \"a\": {\"bootstrap_room\": 1} }";
    struct body body;
    struct buf out;
    buf_init(&out, 1 << 20);
    assert_int_equal(body_parse(&body, text, strlen(text), true, NULL), 0);
    assert_int_equal(body_build(&body, "h", 1, NULL, &out), 0);
    assert_non_null(strstr(
        out.data, ", \"text\" : \"\\u00e9\", \"seed\": 99999999999999999999,\n"
                  " \"t\": 0.10, \"big\": 1e400 , \"a\": {\"bootstrap_room\": "
                  "1}}"));
    buf_fini(&out);
}

static void the_prompt_is_found(void **state)
{
    (void)state;
    static const struct {
        const char *text, *prompt;
    } rows[] = {
        {"{\"text\": \"a\"}", "\"a\""},
        {"{\"input_ids\": [1, 2], \"x\": 1}", "[1, 2]"},
        {"{\"input_ids\": [1], \"text\": [\"a\", \"b\"]}", "[\"a\", \"b\"]"},
        {"{\"text\": null, \"input_ids\": [[1]]}", "[[1]]"},
        {"{\"prompt\": \"b\"}", "\"b\""},
        {"{\"model\": \"m\", \"messages\": [{}]}", "[{}]"},
        {"{\"model\": \"m\"}", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct body body;
        assert_int_equal(
            body_parse(&body, rows[i].text, strlen(rows[i].text), true, NULL),
            0);
        assert_int_equal(body.prompt.n, strlen(rows[i].prompt));
        assert_memory_equal(body.prompt.at, rows[i].prompt, body.prompt.n);
    }
}

static void clients_own_bootstrap_fields_are_dropped(void **state)
{
    (void)state;
    static const char *const texts[] = {
        ("{\"bootstrap_room\": 5, \"a\": 1, \"bootstrap_host\": \"evil\", "
         "\"b\": 2, \"bootstrap_port\": [1]}"),
        "{\"a\": 1, \"\\u0062ootstrap_room\": 5, \"b\": 2}",
        "{\"a\": 1, \"b\": 2, \"bootstrap_room\": 5}",
        "{\"a\": 1,\"bootstrap_room\": 5,\"bootstrap_room\": 6,\"b\": 2}"};
    for (size_t i = 0; i < 4; i++) {
        struct buf out;
        json_t *json = build(texts[i], true, "h", 7, &out);
        assert_int_equal(json_object_size(json), 5);
        assert_string_equal(
            json_string_value(json_object_get(json, "bootstrap_host")), "h");
        assert_int_equal(
            json_integer_value(json_object_get(json, "bootstrap_port")), 7);
        assert_int_equal(json_integer_value(json_object_get(json, "b")), 2);
        json_decref(json);
        buf_fini(&out);
    }
    struct buf out;
    json_t *json = build("{\"bootstrap_room\": 1}", true, "h", -1, &out);
    assert_int_equal(json_object_size(json), 3);
    assert_true(json_is_null(json_object_get(json, "bootstrap_port")));
    json_decref(json);
    buf_fini(&out);
    json = build("{}", true, "[::1]", 1, &out);
    assert_string_equal(
        json_string_value(json_object_get(json, "bootstrap_host")), "[::1]");
    json_decref(json);
    buf_fini(&out);
}

static void batches_get_lists_of_their_length(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool lists;
        size_t batch; /* 0: scalars */
    } cases[] = {
        {"{\"text\": [\"a\", \"b\", \"c\"]}", true, 3},
        {"{\"text\": [\"a\"]}", true, 1},
        {"{\"text\": \"a\", \"input_ids\": [[1], [2]]}", true, 0},
        {"{\"text\": null, \"input_ids\": [[1], [2]]}", true, 2},
        {"{\"input_ids\": [[1, 2], [3]]}", true, 2},
        {"{\"input_ids\": [1, 2]}", true, 0},
        {"{\"text\": []}", true, 0},
        {"{\"prompt\": [\"a\", \"b\"]}", false, 0},
        {"{\"text\": [\"a\", \"b\"]}", false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf out;
        json_t *json = build(cases[i].text, cases[i].lists, "h", 9, &out);
        json_t *rooms = json_object_get(json, "bootstrap_room");
        json_t *hosts = json_object_get(json, "bootstrap_host");
        json_t *ports = json_object_get(json, "bootstrap_port");
        if (!cases[i].batch) {
            assert_true(json_is_integer(rooms));
            assert_true(json_integer_value(rooms) >= 0);
            assert_true(json_is_string(hosts) && json_is_integer(ports));
        } else {
            assert_int_equal(json_array_size(rooms), cases[i].batch);
            assert_int_equal(json_array_size(hosts), cases[i].batch);
            assert_int_equal(json_array_size(ports), cases[i].batch);
            for (size_t k = 1; k < cases[i].batch; k++)
                assert_true(json_integer_value(json_array_get(rooms, k)) !=
                            json_integer_value(json_array_get(rooms, 0)));
        }
        json_decref(json);
        buf_fini(&out);
    }
    struct buf big;
    buf_init(&big, 1 << 20);
    buf_puts(&big, "{\"text\": [0");
    for (int i = 0; i < BODY_BATCH_MAX; i++)
        buf_puts(&big, ",0");
    buf_puts(&big, "]}");
    struct body body;
    assert_int_equal(body_parse(&body, big.data, big.len, true, NULL),
                     ERR_RANGE);
    buf_fini(&big);
}

static void flags_of_a_request_are_read(void **state)
{
    (void)state;
    struct body b;
    const char *text = "{\"stream\": false, \"stream\": true, "
                       "\"return_logprob\": 1}";
    assert_int_equal(body_parse(&b, text, strlen(text), true, NULL), 0);
    assert_true(b.stream && b.logprobs);
    assert_int_equal(body_parse(&b, "{}", 2, true, NULL), 0);
    assert_false(b.stream || b.logprobs);
    assert_int_equal(body_parse(&b, "[]", 2, true, NULL), ERR_FORMAT);
    assert_int_equal(body_parse(&b, "", 0, true, NULL), ERR_FORMAT);
}

static void merges(const char *prefill, const char *decode, const char *want)
{
    struct buf out;
    buf_init(&out, 1 << 16);
    body_merge(prefill, strlen(prefill), decode, strlen(decode), &out);
    assert_string_equal(out.data, want);
    buf_fini(&out);
}

#define META(inner) "{\"text\": \"t\", \"meta_info\": {" inner "}, \"z\": 1.50}"

static void logprobs_of_the_prompt_come_first(void **state)
{
    (void)state;
    merges(META("\"input_token_logprobs\": [[-0.10, 1], [ null,2 ]]"),
           META("\"id\": \"d\",\"input_token_logprobs\":[[3]]"),
           META("\"id\": \"d\", \"input_token_logprobs\": [[-0.10, 1], [ "
                "null,2 ], [3]]"));
    merges(META("\"input_token_logprobs\": [1], \"input_top_logprobs\": [2], "
                "\"input_token_ids_logprobs\": null, \"id\": \"p\""),
           META("\"input_token_logprobs\": [], \"input_top_logprobs\": null, "
                "\"input_token_ids_logprobs\": [5], \"id\": \"d\""),
           META("\"input_token_logprobs\": [1], \"input_top_logprobs\": [2], "
                "\"input_token_ids_logprobs\": [5], \"id\": \"d\""));
    /* what decode does not have, it gets */
    merges(META("\"input_token_logprobs\": [1]"), META(""),
           META("\"input_token_logprobs\": [1]"));
    /* by position in a batch; decode's surplus stays as it is */
    merges("[" META("\"input_token_logprobs\": [1]") ", " META(
               "\"input_token_logprobs\": [2]") "]",
           "[" META("\"input_token_logprobs\": [7]") ", " META(
               "\"input_token_logprobs\": [8]") ", 9]",
           "[" META("\"input_token_logprobs\": [1, 7]") ", " META(
               "\"input_token_logprobs\": [2, 8]") ", 9]");
    /* nothing to merge */
    merges("{}", META("\"a\": 1"), META("\"a\": 1"));
    merges("garbage", "{ }", "{ }");
    merges("{}", "garbage", "garbage");
    merges("[]", "{\"a\": 1}", "{\"a\": 1}");
}

TESTS(T(json_and_nothing_else_passes), T(members_are_found_under_any_spelling),
      T(truth_is_pythons), T(nothing_else_is_touched), T(the_prompt_is_found),
      T(clients_own_bootstrap_fields_are_dropped),
      T(batches_get_lists_of_their_length), T(flags_of_a_request_are_read),
      T(logprobs_of_the_prompt_come_first))
