#include "tests/test.h"

#include "base/err.h"
#include "http/sse.h"

static void note(void *arg, const char *data, size_t n)
{
    struct buf *b = arg;
    assert_int_equal(data[n], 0);
    buf_puts(b, "[");
    buf_add(b, data, n);
    buf_puts(b, "]");
}

/* Fed in pieces of every size, the events are the same. */
static void check(const char *stream, const char *events)
{
    size_t n = strlen(stream);
    for (size_t step = 1; step <= n; step++) {
        struct sse_parser p;
        struct buf out;
        sse_init(&p, 1000);
        buf_init(&out, 10000);
        buf_puts(&out, "");
        for (size_t at = 0; at < n; at += step)
            assert_int_equal(sse_feed(&p, stream + at,
                                      at + step < n ? step : n - at, note,
                                      &out),
                             0);
        assert_string_equal(out.data, events);
        sse_fini(&p);
        buf_fini(&out);
    }
}

static void events_are_found_in_any_cut(void **state)
{
    (void)state;
    check("data: {\"a\": 1}\n\ndata: [DONE]\n\n", "[{\"a\": 1}][[DONE]]");
    check("data: a\r\ndata: b\r\n\r\ndata:c\r\rdata\n\n", "[a\nb][c][]");
    check(": ping\n\nevent: x\nid: 7\ndata:  two spaces\nretry: 1\n\n",
          "[ two spaces]");
    check("data: unfinished\n", "");
    check("\n\n\ndatum: no\n\ndata2: no\n\n", "");
}

static void writer_and_parser_agree(void **state)
{
    (void)state;
    static const char *const texts[] = {"x", "", "a\nb", "\n", "a\n\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct buf stream, out, want;
        struct sse_parser p;
        buf_init(&stream, 1000);
        buf_init(&out, 1000);
        buf_init(&want, 1000);
        sse_init(&p, 1000);
        sse_add(&stream, texts[i], strlen(texts[i]));
        assert_int_equal(sse_feed(&p, stream.data, stream.len, note, &out), 0);
        note(&want, texts[i], strlen(texts[i]));
        assert_string_equal(out.data, want.data);
        buf_fini(&stream);
        buf_fini(&out);
        buf_fini(&want);
        sse_fini(&p);
    }
}

static void long_events_are_refused(void **state)
{
    (void)state;
    struct sse_parser p;
    struct buf out;
    buf_init(&out, 1000);
    sse_init(&p, 16);
    assert_int_equal(sse_feed(&p, "data: 0123456789", 16, note, &out), 0);
    assert_int_equal(sse_feed(&p, "0", 1, note, &out), ERR_RANGE);
    sse_fini(&p);
    sse_init(&p, 16);
    int rc = 0;
    for (int i = 0; i < 10 && !rc; i++)
        rc = sse_feed(&p, "data: 01234\n", 12, note, &out);
    assert_int_equal(rc, ERR_RANGE);
    sse_fini(&p);
    buf_fini(&out);
}

TESTS(T(events_are_found_in_any_cut), T(writer_and_parser_agree),
      T(long_events_are_refused))
