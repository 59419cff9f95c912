/* serve/openai.h - what the two OpenAI routes share: reading their bodies, and
 * the frame of their answers. */
#ifndef BATON_SERVE_OPENAI_H
#define BATON_SERVE_OPENAI_H

#include "serve/ask.h"
#include "serve/call.h"

struct generation_defaults;

/* --- openai_ask.c: bodies --- */

/* Any body; read takes its members. */
int openai_parse(struct ask **out, const struct ask_env *env, const char *body,
                 size_t n, struct why *why,
                 int (*read)(struct ask *, const struct ask_env *,
                             struct why *));
/* model, stream, and what is refused by name. */
int openai_take_common(struct ask *ask, struct why *why);
/* Sampling parameters of all prompts. absent: what no max_tokens means;
 * LENGTH_GIVEN is /v1/completions, 16. */
int openai_take_params(struct ask *ask, const struct ask_env *env,
                       const struct generation_defaults *defaults,
                       enum params_length absent, struct why *why);
/* A count of alternatives in [0, max]. */
int openai_get_top(const json_t *body, const char *key, int64_t max,
                   int64_t *out, struct why *why);
void openai_set_logprobs(struct ask *ask, uint32_t top, bool input);

/* --- openai.c: answers --- */

const struct tokenizer *openai_tokenizer(const struct output *out);
/* OpenAI's logprob is a number always: -9999 stands for minus infinity. */
void openai_number(struct buf *to, float logprob);
/* {"id":..,"object":..,"created":..,"model":..,"choices":[ */
void openai_head(struct call *call, const char *object, struct buf *to);
/* Closes the choices of an event, of a whole answer. */
void openai_event_end(const struct output *out, struct buf *to);
void openai_answer_end(const struct call *call, struct buf *to);
/* The event with the usage, where stream_options asks for it. */
void openai_usage_event(struct call *call, const char *object, struct buf *to);
/* ,"finish_reason":..,"matched_stop":.. */
void openai_finish(const struct output *out, struct buf *to);
/* The output's text from a byte on. */
void openai_text_from(const struct output *out, size_t from, struct buf *to);

/* A handler: parses the body, starts the call. */
void openai_handle(struct serve *serve, struct http_request *request,
                   int (*parse)(struct ask **, const struct ask_env *,
                                const char *, size_t, struct why *),
                   const struct call_format *format);

#endif
