/* serve/serve.h - the HTTP API of a worker.
 *
 *     http/server -> route -> ask (parse, check, tokenize) -> call
 *         -> pd/node ... events ... -> call -> JSON or server-sent events
 *
 * Routes, fields and bodies are SGLang's; docs/api.md lists them and where we
 * differ. An endpoint is a row in serve.c's table. Everything runs in the
 * loop's thread. */
#ifndef BATON_SERVE_SERVE_H
#define BATON_SERVE_SERVE_H

#include "pd/node.h"

struct serve;
struct loop;
struct assets;       /* serve/assets.h */
struct model_config; /* model/model.h */
struct reasoning_format;
struct toolcall_format;

/* Pointers are borrowed until serve_close. 0 and NULL take the default
 * behind them. */
struct serve_options {
    struct loop *loop;
    struct pd_node *node;
    struct engine *engine; /* statistics only */
    const struct assets *assets;
    struct grammars *grammars; /* text/grammar.h; outlives the engine */
    const struct model_config *config;
    const char *host; /* 127.0.0.1 */
    int port;         /* 0: any free one, serve_port tells */
    const char *api_key;
    const char *model_path, *tokenizer_path; /* as given, for /model_info */
    const char *served_model_name;           /* model_path                 */
    const char *server_info; /* JSON object: the options, for /server_info */
    const char *version;
    uint32_t context;          /* the config's */
    uint32_t max_total_tokens; /* KV tokens of the pool                    */
    uint64_t weight_bytes, kv_bytes; /* for /server_info                   */
    uint32_t stream_interval;        /* 1 */
    bool stream_output;       /* /generate streams deltas                  */
    bool enable_cache_report; /* usage.prompt_tokens_details               */
    bool enable_metrics;      /* GET /metrics                              */
    bool model_sampling;      /* --sampling-defaults model                 */
    const struct reasoning_format *reasoning; /* text/reply.h; NULL: none    */
    const struct toolcall_format *toolcall;   /* likewise                    */
    bool plain_health;          /* /health answers without generating        */
    uint32_t health_timeout_ms; /* 20000 */
    size_t max_body_bytes;      /* 64 MiB */
    size_t stream_bytes; /* unsent bytes of a stream, then hang-up: 8 MiB  */
};

/* Listens at once and answers /health with 503 until serve_set_ready.
 * ERR_IO (address), ERR_INVALID, ERR_FORMAT (server_info is no object). */
int serve_open(struct serve **out, const struct serve_options *options,
               struct why *why);
int serve_port(const struct serve *serve);
void serve_set_ready(struct serve *serve);

/* SGLang's warm-up: a short greedy request on tokens 0 to 3 through the node
 * (behind the fake peer in PD mode). Then the server is ready, says "The
 * server is fired up and ready to roll!", and done(arg, 0) is called; else
 * done(arg, ERR_IO) with the reason in the log. done may be NULL. */
void serve_warm_up(struct serve *serve, void (*done)(void *arg, int rc),
                   void *arg);

/* Graceful stop: new requests get 503, live ones finish, done(arg) is called
 * when none is left or after limit_ms. */
void serve_drain(struct serve *serve, uint64_t limit_ms,
                 void (*done)(void *arg), void *arg);
/* Hangs up on whoever is left. The loop must have stopped for good and the
 * node be closed (no event can come any more). NULL is fine. */
void serve_close(struct serve *serve);

#endif
