/* serve/internal.h - what the files of serve/ share. */
#ifndef BATON_SERVE_INTERNAL_H
#define BATON_SERVE_INTERNAL_H

#include "base/buf.h"
#include "http/loop.h"
#include "http/server.h"
#include "serve/ask.h"
#include "serve/call.h"
#include "serve/health.h"
#include "serve/metrics.h"
#include "serve/serve.h"

struct serve {
    struct serve_options opt;
    struct ask_env env;
    struct http_server *http;
    struct health *health;
    struct metrics *metrics;
    bool ready, draining, closing;
    json_t *info; /* options.server_info */
    double started_unix;
    struct call *calls, *dirty; /* dirty: oldest first */
    struct call **dirty_end;
    bool flush_posted;
    struct flush_waiter *flushes; /* admin.c: answers to /flush_cache */
    struct buf scratch;           /* of the flush and the answers */
};

/* Routes' handlers, one group a file. */
void generate_handle(void *serve, struct http_request *request);
void chat_handle(void *serve, struct http_request *request);
void completions_handle(void *serve, struct http_request *request);
void health_handle(void *serve, struct http_request *request);
void health_generate_handle(void *serve, struct http_request *request);
void models_handle(void *serve, struct http_request *request);
void model_handle(void *serve, struct http_request *request);
void model_info_handle(void *serve, struct http_request *request);
void server_info_handle(void *serve, struct http_request *request);
void load_handle(void *serve, struct http_request *request);
void flush_cache_handle(void *serve, struct http_request *request);
void flush_waiters_destroy(struct serve *serve);
void abort_handle(void *serve, struct http_request *request);
void metrics_handle(void *serve, struct http_request *request);
void weight_version_handle(void *serve, struct http_request *request);
void ping_handle(void *serve, struct http_request *request);
void tokenize_handle(void *serve, struct http_request *request);
void detokenize_handle(void *serve, struct http_request *request);

#endif
