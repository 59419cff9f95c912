#include "tests/test.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/inbox.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/opt.h"

#include <pthread.h>
#include <stdbool.h>

static void error_text_is_kept_by_who_decided(void **state)
{
    (void)state;
    struct why why = {0};
    assert_int_equal(err_set(&why, ERR_FORMAT, "%s: no header", "x.gguf"),
                     ERR_FORMAT);
    assert_string_equal(why.text, "x.gguf: no header");
    assert_string_equal(err_name(ERR_FORMAT), "ERR_FORMAT");
    assert_int_equal(err_set(NULL, ERR_PEER, "nobody listens"), ERR_PEER);
    assert_string_equal(err_name(12345), "ERR_UNKNOWN");
}

static void mem_counts_and_fails_on_demand(void **state)
{
    (void)state;
    size_t before = mem_live();
    char *p = mem_try(10, 10, 64);
    assert_int_equal((uintptr_t)p % 64, 0);
    assert_int_equal(mem_live(), before + 1);
    assert_null(mem_try(SIZE_MAX, 2, 0));
    mem_fail_at(2);
    void *first = mem_try(1, 1, 0);
    assert_non_null(first);
    assert_null(mem_try(1, 1, 0));
    void *third = mem_try(1, 1, 0);
    assert_non_null(third);
    mem_free(first);
    mem_free(third);
    mem_free(p);
    assert_int_equal(mem_live(), before);
}

static void buf_keeps_its_maximum(void **state)
{
    (void)state;
    struct buf b;
    buf_init(&b, 8);
    buf_puts(&b, "12345678");
    assert_false(b.failed);
    buf_putc(&b, '9');
    assert_true(b.failed);
    assert_string_equal(b.data, "12345678");
    buf_fini(&b);
    buf_init(&b, 1000);
    buf_json(&b, "a\"\n\x01\xc3\xa9", 6);
    assert_string_equal(b.data, "a\\\"\\n\\u0001\xc3\xa9");
    buf_reset(&b);
    buf_printf(&b, "%0300d", 7);
    assert_int_equal(b.len, 300);
    buf_drop_front(&b, 299);
    assert_string_equal(b.data, "7");
    buf_fini(&b);
}

/* Against an array of what should be inside. */
static void map_agrees_with_an_array(void **state)
{
    (void)state;
    struct map m = {0};
    char values[512];
    bool in[512] = {false};
    size_t count = 0;
    uint64_t seed = 7;
    for (int i = 0; i < 20000; i++) {
        uint64_t key = rng_next(&seed) % 512;
        if (rng_next(&seed) & 1) {
            void *former = map_put(&m, key << 40, &values[key]);
            assert_ptr_equal(former, in[key] ? &values[key] : NULL);
            count += !in[key];
            in[key] = true;
        } else {
            void *former = map_remove(&m, key << 40);
            assert_ptr_equal(former, in[key] ? &values[key] : NULL);
            count -= in[key];
            in[key] = false;
        }
        assert_int_equal(m.count, count);
    }
    size_t at = 0, walked = 0;
    uint64_t key;
    for (void *v; (v = map_next(&m, &at, &key)); walked++)
        assert_true(in[key >> 40] && v == &values[key >> 40]);
    assert_int_equal(walked, count);
    map_fini(&m);
}

enum { MESSAGES = 20000 };

static void *producer(void *arg)
{
    for (uintptr_t i = 1; i <= MESSAGES; i++)
        while (inbox_put(arg, (void *)i) == ERR_AGAIN)
            sched_yield();
    return NULL;
}

static void inbox_keeps_order_between_threads(void **state)
{
    (void)state;
    struct inbox *in;
    assert_int_equal(inbox_create(&in, 64), 0);
    pthread_t t;
    pthread_create(&t, NULL, producer, in);
    for (uintptr_t i = 1; i <= MESSAGES;) {
        void *m = inbox_wait(in, 1000);
        if (!m) continue;
        assert_int_equal((uintptr_t)m, i);
        i++;
    }
    pthread_join(t, NULL);
    assert_null(inbox_take(in));
    inbox_destroy(in);
}

static void inbox_wakes_its_owner_without_a_message(void **state)
{
    (void)state;
    struct inbox *in;
    assert_int_equal(inbox_create(&in, 1), 0);
    inbox_wake(in);
    assert_null(inbox_wait(in, -1)); /* would block for ever */
    inbox_destroy(in);
}

struct settings {
    const char *host;
    const char *in, *out;
    int64_t port;
    double fraction;
    bool quiet;
    int pairs;
};

static int add_pair(void *into, int count, char **values, struct why *why)
{
    (void)why;
    struct settings *s = into;
    assert_true(count == 1 || count == 2);
    assert_string_equal(values[0], "http://a");
    s->pairs += count;
    return 0;
}

#define AT(f) offsetof(struct settings, f)
static const struct opt options[] = {
    {"host", OPT_STRING, AT(host), "127.0.0.1", .help = "address"},
    {"port|p-port", OPT_INT, AT(port), "30000", .min = 1, .max = 65535,
     .help = "port"},
    {"mem-fraction-static", OPT_DOUBLE, AT(fraction), "0.5", .min = 0, .max = 1,
     .help = "fraction"},
    {"quiet", OPT_FLAG, AT(quiet), .help = "no lines"},
    {"prefill", OPT_CALL, 0, .min = 1, .max = 2, .call = add_pair,
     .help = "URL [PORT]"},
    {"trust-remote-code", OPT_IGNORED_FLAG, 0, .help = "no Python here"},
    {"enable-lora", OPT_REFUSED, 0, .help = "adapters are not served"},
    {"IN", OPT_WORD, AT(in), .help = "what to read"},
    {"OUT", OPT_WORD, AT(out), .help = "what to write"},
};

static int parse(struct settings *s, struct why *why, int *ignored, ...)
{
    char *argv[16] = {(char[]){"x"}};
    int argc = 1;
    va_list ap;
    va_start(ap, ignored);
    for (char *w; (w = va_arg(ap, char *));)
        argv[argc++] = w;
    va_end(ap);
    return opt_parse(options, sizeof options / sizeof *options, s, argc, argv,
                     NULL, ignored, why);
}

static void options_come_from_one_table(void **state)
{
    (void)state;
    struct settings s = {0};
    struct why why = {0};
    int n = 0;
    assert_int_equal(parse(&s, &why, &n, "--p-port=81", "--quiet", "--prefill",
                           "http://a", "6657", "--prefill", "http://a",
                           "--trust-remote-code", NULL),
                     0);
    assert_string_equal(s.host, "127.0.0.1");
    assert_int_equal(s.port, 81);
    assert_true(s.quiet);
    assert_int_equal(s.pairs, 3);
    assert_int_equal(parse(&s, &why, &n, "--prot", "1", NULL), ERR_INVALID);
    assert_non_null(strstr(why.text, "did you mean --port"));
    assert_int_equal(parse(&s, &why, &n, "--port", "65536", NULL), ERR_INVALID);
    assert_int_equal(parse(&s, &why, &n, "--port", "12x", NULL), ERR_INVALID);
    assert_int_equal(parse(&s, &why, &n, "--port", NULL), ERR_INVALID);
    assert_int_equal(parse(&s, &why, &n, "--enable-lora", NULL),
                     ERR_UNSUPPORTED);
    assert_string_equal(why.text, "--enable-lora: adapters are not served");
    assert_int_equal(parse(&s, &why, &n, "--help", NULL), 1);
}

static void words_stand_anywhere(void **state)
{
    (void)state;
    struct settings s = {0};
    struct why why = {0};
    int n = 0;
    assert_int_equal(parse(&s, &why, &n, "a", "--port", "1", "b", NULL), 0);
    assert_string_equal(s.in, "a");
    assert_string_equal(s.out, "b");
    assert_int_equal(s.port, 1);
    assert_int_equal(parse(&s, &why, &n, "a", "b", "c", NULL), ERR_INVALID);
    assert_string_equal(why.text, "unexpected argument \"c\"");
    assert_int_equal(parse(&s, &why, &n, "-x", NULL), ERR_INVALID);
    assert_int_equal(parse(&s, &why, &n, "--IN", "a", NULL), ERR_INVALID);
}

static void a_forgotten_value_is_not_the_next_option(void **state)
{
    (void)state;
    struct settings s = {0};
    struct why why = {0};
    int n = 0;
    assert_int_equal(parse(&s, &why, &n, "--host", "--quiet", NULL),
                     ERR_INVALID);
    assert_string_equal(why.text, "--host needs a value");
    assert_int_equal(parse(&s, &why, &n, "--host=--quiet", NULL), 0);
    assert_string_equal(s.host, "--quiet");
}

TESTS(T(error_text_is_kept_by_who_decided), T(mem_counts_and_fails_on_demand),
      T(buf_keeps_its_maximum), T(map_agrees_with_an_array),
      T(inbox_keeps_order_between_threads),
      T(inbox_wakes_its_owner_without_a_message),
      T(options_come_from_one_table), T(words_stand_anywhere),
      T(a_forgotten_value_is_not_the_next_option))
