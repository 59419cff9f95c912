#include "router/fan.h"
#include "base/buf.h"
#include "base/mem.h"
#include "http/client.h"
#include "http/server.h"
#include "router/worker.h"

#include <stdio.h>
#include <string.h>

struct asked {
    struct fan *fan;
    struct worker *worker;
    struct http_call *call;
    bool prefill;
    int status;
    char *type;
    struct buf body;
};

struct fan {
    struct http_request *request;
    void (*finish)(struct http_request *request,
                   const struct fan_answer *answers, size_t count);
    size_t count, pending;
    struct asked *asked;
};

static void fan_free(struct fan *fan)
{
    for (size_t i = 0; i < fan->count; i++) {
        http_call_cancel(fan->asked[i].call);
        worker_drop(fan->asked[i].worker);
        mem_free(fan->asked[i].type);
        buf_fini(&fan->asked[i].body);
    }
    mem_free(fan->asked);
    mem_free(fan);
}

static void finish(struct fan *fan)
{
    struct fan_answer *answers =
        mem_must(fan->count ? fan->count : 1, sizeof *answers);
    for (size_t i = 0; i < fan->count; i++) {
        const struct asked *a = &fan->asked[i];
        answers[i] = (struct fan_answer){
            .worker = a->worker,
            .prefill = a->prefill,
            .status = a->status,
            .type = a->type,
            .body = a->body.data ? a->body.data : "",
            .n = a->body.len,
        };
    }
    http_on_close(fan->request, NULL, NULL);
    fan->finish(fan->request, answers, fan->count);
    mem_free(answers);
    fan_free(fan);
}

static void client_left(void *arg, struct http_request *request, int rc)
{
    (void)rc;
    http_drop(request);
    fan_free(arg);
}

static void take_type(void *arg, struct http_call *call, int status)
{
    (void)status;
    struct asked *a = arg;
    const char *type = http_call_header(call, "content-type");
    if (type) a->type = mem_dup(type);
}

static void take_data(void *arg, struct http_call *call, const void *bytes,
                      size_t n)
{
    (void)call;
    struct asked *a = arg;
    buf_add(&a->body, bytes, n);
}

static void done(void *arg, struct http_call *call,
                 const struct http_result *result)
{
    (void)call;
    struct asked *a = arg;
    struct fan *fan = a->fan;
    a->call = NULL;
    a->status = result->rc ? 0 : result->status;
    const char *text = result->text;
    if (a->body.failed) {
        a->status = 0;
        text = "the answer is too long";
    }
    if (!a->status) {
        buf_reset(&a->body);
        buf_puts(&a->body, text);
    }
    if (!result->rc)
        worker_answered(a->worker);
    else if (!result->connected)
        worker_refused(a->worker, result->text);
    if (--fan->pending == 0) finish(fan);
}

static void ask(struct asked *a, const struct fan_options *options,
                const void *body, size_t n)
{
    char url[2048];
    snprintf(url, sizeof url, "%s%s", a->worker->url, options->path);
    buf_init(&a->body, FAN_ANSWER_MAX);
    struct http_call_options o = {
        .method = options->method,
        .url = url,
        .headers = options->headers,
        .body = body,
        .body_bytes = n,
        .total_ms = options->timeout_ms,
        .on_headers = take_type,
        .on_data = take_data,
        .on_done = done,
        .arg = a,
    };
    if (http_call(options->client, &o, &a->call))
        buf_puts(&a->body, "out of memory");
    else
        a->fan->pending++;
}

void fan_start(struct http_request *request, const struct fan_options *options,
               struct worker **prefill, size_t prefill_count,
               struct worker **decode, size_t decode_count)
{
    struct fan *fan = mem_must(1, sizeof *fan);
    fan->request = request;
    fan->finish = options->finish;
    fan->count = prefill_count + decode_count;
    fan->asked = mem_must(fan->count ? fan->count : 1, sizeof *fan->asked);
    http_on_close(request, client_left, fan);
    size_t n = 0;
    const void *body =
        options->with_body ? http_request_body(request, &n) : NULL;
    for (size_t i = 0; i < fan->count; i++) {
        bool is_prefill = i < prefill_count;
        fan->asked[i] = (struct asked){
            .fan = fan,
            .worker = worker_take(is_prefill ? prefill[i]
                                             : decode[i - prefill_count]),
            .prefill = is_prefill,
        };
        ask(&fan->asked[i], options, body, n);
    }
    if (!fan->pending) finish(fan);
}
