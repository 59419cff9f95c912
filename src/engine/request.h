/* engine/request.h - what a caller asks of the engine, and what comes back.
 *
 * A request_spec is copied by engine_submit. Results arrive as events; all
 * that an event points to lives until engine_event_free.
 *
 * A request ends, in this order of tests (SGLang's), when it has
 * max_new_tokens (FINISH_LENGTH); when the token is in stop_ids or one of the
 * model's or tokenizer's end tokens, unless ignore_eos (FINISH_STOP_TOKEN);
 * when its text holds a stop string (FINISH_STOP_TEXT). The matched token or
 * string, and what follows it, is not in the text unless no_stop_trim. */
#ifndef BATON_ENGINE_REQUEST_H
#define BATON_ENGINE_REQUEST_H

#include "base/err.h"
#include "kv/pool.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct grammar; /* text/grammar.h */

/* Sampling, SGLang's names, ranges and defaults (docs/api.md). */
struct sampling {
    uint32_t max_new_tokens;  /* 128; 0: the prompt alone, no TOKEN         */
    uint32_t min_new_tokens;  /* 0: EOS and stop ids are barred before it   */
    float temperature;        /* 1; < 1e-6: greedy                          */
    float top_p, min_p;       /* 1, 0                                       */
    int32_t top_k;            /* -1: all                                    */
    float repetition_penalty; /* 1 */
    float frequency_penalty, presence_penalty; /* 0; all over the output  */
    bool ignore_eos;          /* no token stops generation, stop_ids neither */
    bool skip_special_tokens; /* true */
    bool no_stop_trim;        /* keep the matched stop in the text          */
    bool seeded;   /* seed was given; else engine_submit draws one          */
    uint64_t seed; /* a draw depends on it and the output position alone    */
    const int32_t *stop_ids;
    uint32_t stop_id_count;
    const char *const *stops; /* UTF-8 stop strings, none empty            */
    uint32_t stop_count;      /* <= 16 */
    const int32_t *bias_ids;  /* logit_bias */
    const float *bias_values;
    uint32_t bias_count;
};
void sampling_init(struct sampling *s); /* the defaults above */
/* ERR_INVALID with SGLang's message; vocab bounds stop and bias ids. */
int sampling_check(const struct sampling *s, uint32_t vocab, struct why *why);

enum request_role {
    ROLE_WHOLE,   /* prefill and decode here                               */
    ROLE_PREFILL, /* prefill here, hold the pages, one token               */
    ROLE_DECODE,  /* pages are reserved here, their KV comes from a peer   */
};

struct request_spec {
    enum request_role role;
    bool own_prefix;       /* ROLE_DECODE: the peer can leave out what the
                            * prefix cache here has                         */
    const int32_t *tokens; /* the prompt, and behind it: */
    uint32_t token_count;  /* > output_count */
    uint32_t output_count; /* output so far, of a request that goes on here
                            * after its server was lost. It may not have ended
                            * with it; no logprobs, no input ones either   */
    struct sampling sampling;
    bool want_logprobs;         /* of output tokens */
    int32_t logprob_start;      /* >= 0: input logprobs from here, < prompt
                                   length (the entry there has none, it is
                                   NaN, as SGLang); -1: none              */
    uint32_t top_logprobs;      /* 0 .. 128 */
    const int32_t *logprob_ids; /* token_ids_logprob */
    uint32_t logprob_id_count;
    struct grammar *grammar; /* text/grammar.h; NULL: any output. Whoever
                                 * copies the spec takes a reference        */
    /* With it: matcher_create's open and after. -1, -1: from the beginning */
    int32_t grammar_open, grammar_after;
    uint64_t cache_key; /* namespace of the prefix cache (extra_key hash)  */
};

/* logprob of one token at one position, with alternatives. Arrays are the
 * event's. */
struct token_logprob {
    float logprob; /* NaN: none (the first input token) */
    int32_t token;
    uint32_t top_count;
    const float *top_values;
    const int32_t *top_ids;
    uint32_t id_count; /* values for the asked logprob_ids */
    const float *id_values;
};

enum finish_kind {
    FINISH_NONE,
    FINISH_STOP_TOKEN,
    FINISH_STOP_TEXT,
    FINISH_LENGTH,
    FINISH_ABORT
};
struct finish {
    enum finish_kind kind;
    int32_t stop_token;    /* FINISH_STOP_TOKEN */
    const char *stop_text; /* FINISH_STOP_TEXT; the event's */
    int status;            /* FINISH_ABORT: HTTP status to answer with   */
    const char *message;   /* FINISH_ABORT; the event's */
};

/* One copy of a spec with all that it points to; NULL: no memory. */
struct request_spec *request_copy(const struct request_spec *spec);
void request_free(struct request_spec *copy); /* NULL is fine */

enum event_kind {
    EVENT_RESUMED,  /* the text of the output so far, before all others    */
    EVENT_RESERVED, /* ROLE_DECODE: pages are there, ask the peer          */
    EVENT_CHUNK,    /* ROLE_PREFILL: KV of more tokens is computed         */
    EVENT_TOKEN,    /* one output token, and text that became certain      */
    EVENT_DONE,     /* the last event of a request, just one               */
    EVENT_FLUSHED,  /* answer to engine_flush: status 0 or ERR_AGAIN       */
};

struct engine_event {
    enum event_kind kind;
    uint64_t id; /* the request's */

    /* RESERVED: destination pages of the whole prompt, in order; the first
     * cached_tokens tokens (whole pages; own_prefix) are in them already.
     * CHUNK: pages of the whole prompt; the first `tokens` tokens' KV is in
     * them now; last: tokens == prompt length, token and logprob are set and
     * the pages stay held until engine_release. */
    const kv_page *pages;
    uint32_t page_count;
    uint32_t tokens;
    bool last;

    /* TOKEN, and CHUNK with last. */
    int32_t token;
    bool has_logprob;
    struct token_logprob logprob;
    const char *text; /* RESUMED, TOKEN, DONE: more output text, whole
                       * characters                                       */
    size_t text_len;
    const uint32_t *text_ends; /* RESUMED: [output_tokens] where the text of
                                * each token ends in text                  */
    /* With the first TOKEN, the last CHUNK, or (max_new_tokens 0) DONE. */
    const struct token_logprob *input_logprobs;
    uint32_t input_logprob_count;

    /* RESUMED, RESERVED, TOKEN, DONE, last CHUNK: counts so far. */
    uint32_t prompt_tokens, cached_tokens, output_tokens, retractions;
    struct finish finish;                     /* DONE */
    int status;                               /* FLUSHED */
    uint64_t queued_us, started_us, event_us; /* clock_us of its life      */
};

#endif
