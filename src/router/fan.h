/* router/fan.h - one client request asked of several workers at once.
 * All in the loop's thread. */
#ifndef BATON_ROUTER_FAN_H
#define BATON_ROUTER_FAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct fan;
struct http_client;
struct http_header;
struct http_request;
struct worker;

enum { FAN_ANSWER_MAX = 64 << 20 };

struct fan_answer {
    struct worker *worker;
    bool prefill;
    int status;       /* 0: none came */
    const char *type; /* content type, or NULL */
    const char *body; /* followed by a 0 byte; without an answer, why */
    size_t n;
};

struct fan_options {
    struct http_client *client;
    const char *method, *path;
    const struct http_header *headers; /* copied */
    bool with_body;                    /* send the client's body on */
    uint64_t timeout_ms;
    /* Must answer request; answers are borrowed during the call. */
    void (*finish)(struct http_request *request,
                   const struct fan_answer *answers, size_t count);
};

/* Asks prefill[0..] and decode[0..] and calls finish once when all answered
 * or failed. When the client leaves first, all are canceled and it is not
 * called. Nobody to ask (both counts 0): finish is called at once. */
void fan_start(struct http_request *request, const struct fan_options *options,
               struct worker **prefill, size_t prefill_count,
               struct worker **decode, size_t decode_count);

#endif
