/* tests/pd/rig.h - a loop in the test's own thread, turned until something is
 * so. Whoever makes news in a callback need not say so: the loop is stopped at
 * each tick and the condition looked at again. */
#ifndef BATON_TESTS_PD_RIG_H
#define BATON_TESTS_PD_RIG_H

#include "tests/test.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/err.h"
#include "http/client.h"
#include "http/loop.h"

enum { RIG_WAIT_MS = 30000 }; /* a failure, never a pace */

struct rig {
    struct loop *loop;
    struct loop_timer *tick;
    struct http_client *http;
};

static inline void rig_tick(void *arg)
{
    loop_stop(arg);
}

static inline void rig_init(struct rig *rig)
{
    struct why why = {0};
    assert_int_equal(loop_create(&rig->loop, &why), 0);
    rig->tick = loop_timer_create(rig->loop, rig_tick, rig->loop);
    assert_int_equal(http_client_open(&rig->http, rig->loop, &why), 0);
}

static inline void rig_fini(struct rig *rig)
{
    http_client_close(rig->http);
    loop_timer_destroy(rig->tick);
    loop_destroy(rig->loop);
}

static inline void rig_turn(struct rig *rig)
{
    loop_timer_set(rig->tick, 1, 0);
    loop_run(rig->loop);
}

#define UNTIL(rig, condition)                               \
    do {                                                    \
        uint64_t until_ = clock_ms() + RIG_WAIT_MS;         \
        while (!(condition)) {                              \
            if (clock_ms() > until_)                        \
                fail_msg("waited in vain for " #condition); \
            rig_turn(rig);                                  \
        }                                                   \
    } while (0)

/* One HTTP call, waited for. */
struct reply {
    bool done;
    int rc, status;
    struct buf body;
    char instance[64], layout[512];
};

static inline void reply_data(void *arg, struct http_call *call,
                              const void *bytes, size_t n)
{
    struct reply *reply = arg;
    (void)call;
    buf_add(&reply->body, bytes, n);
}

static inline void reply_done(void *arg, struct http_call *call,
                              const struct http_result *result)
{
    struct reply *reply = arg;
    const char *id =
        http_call_header(call, "X-SGLang-Disaggregation-Instance-ID");
    const char *layout = http_call_header(call, "X-Baton-KV-Layout");
    snprintf(reply->instance, sizeof reply->instance, "%s", id ? id : "");
    snprintf(reply->layout, sizeof reply->layout, "%s", layout ? layout : "");
    reply->rc = result->rc;
    reply->status = result->status;
    reply->done = true;
}

static inline void rig_http(struct rig *rig, struct reply *reply,
                            const char *method, uint16_t port, const char *path,
                            const char *body)
{
    char url[512];
    snprintf(url, sizeof url, "http://127.0.0.1:%u%s", port, path);
    memset(reply, 0, sizeof *reply);
    buf_init(&reply->body, 1 << 20);
    const struct http_call_options call = {.method = method,
                                           .url = url,
                                           .body = body,
                                           .body_bytes =
                                               body ? strlen(body) : 0,
                                           .on_data = reply_data,
                                           .on_done = reply_done,
                                           .arg = reply};
    assert_int_equal(http_call(rig->http, &call, NULL), 0);
    UNTIL(rig, reply->done);
    buf_putc(&reply->body, 0);
}

#endif
