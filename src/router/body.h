/* router/body.h - what the router reads from and writes into bodies.
 *
 * Requests get bootstrap_host, bootstrap_port and bootstrap_room in front of
 * their members; answers of a decode worker get the prompt's logprobs of the
 * prefill worker. Everything else passes through byte by byte (router/skim.h).
 * Source: SGLang's mini_lb (generate, _generate_bootstrap..., the merging of
 * meta_info); docs/wire.md. */
#ifndef BATON_ROUTER_BODY_H
#define BATON_ROUTER_BODY_H

#include "base/buf.h"
#include "base/err.h"
#include "router/skim.h"

enum { BODY_BATCH_MAX = 65536 };

/* A checked request; borrows its text. */
struct body {
    struct skim object;
    bool stream;
    bool logprobs;      /* return_logprob */
    size_t batch;       /* 0: one request, scalars; else the lists' length */
    bool rid;           /* it names itself */
    struct skim prompt; /* text, prompt, messages or input_ids; n 0: none */
};

/* ERR_FORMAT: no JSON object. ERR_RANGE: more than BODY_BATCH_MAX prompts.
 * With lists, a text or input_ids of several prompts makes a batch (the native
 * /generate); the OpenAI routes always get scalars. */
int body_parse(struct body *out, const char *text, size_t n, bool lists,
               struct why *why);

/* For servers that go on with a stream (http/resume.h): its id, "" where the
 * body has it, and the output so far as "12,7". */
struct body_resume {
    const char *rid;
    const struct buf *ids;
};

/* Appends the request for a pair, with fresh rooms in [0, 2^63-1]. host as in
 * bootstrap_host; port -1: null; resume NULL: from the beginning. A client's
 * own bootstrap_ fields and output are left out. ERR_NOMEM: out is full. */
int body_build(const struct body *body, const char *host, int port,
               const struct body_resume *resume, struct buf *out);

/* Appends decode's answer with prefill's lists put before its own, in
 * meta_info: input_token_logprobs, input_top_logprobs,
 * input_token_ids_logprobs; arrays of answers pair by position. Either text
 * may be anything: what cannot be merged passes as decode wrote it. */
void body_merge(const char *prefill, size_t prefill_n, const char *decode,
                size_t decode_n, struct buf *out);

#endif
