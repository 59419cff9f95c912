/* serve/ask.h - what a client asks for: a request body, read and checked.
 *
 * All generating routes end in the same struct: some prompts as token ids,
 * each with its parameters, and how the answer shall look. What /generate and
 * the OpenAI routes call differently is gone behind this point; nothing of
 * the network is known here, so the fuzzers feed these functions directly.
 *
 * A body is refused with ERR_FORMAT (broken JSON, a field of a wrong type),
 * ERR_INVALID (a value out of its range), ERR_UNSUPPORTED (something this
 * server does not do; the text names the field), or ERR_NOMEM. Any thread. */
#ifndef BATON_SERVE_ASK_H
#define BATON_SERVE_ASK_H

#include "pd/node.h"
#include "serve/params.h"
#include "text/reply.h"

struct assets;   /* serve/assets.h */
struct grammars; /* text/grammar.h */
struct token_list;

/* Outputs (prompts x samples) of one request, at most. */
#define ASK_MAX_OUTPUTS 4096

/* What a body is checked against. All borrowed. */
struct ask_env {
    const struct assets *assets; /* tokenizer, template, defaults */
    struct grammars *grammars;   /* used by whoever parses; NULL: none can */
    enum pd_mode mode;
    uint32_t vocab;
    uint32_t context;    /* prompt + output stay below this */
    bool model_defaults; /* chat: generation_config.json applies      */
    const struct reasoning_format *reasoning; /* chat: NULL: none      */
    const struct toolcall_format *toolcall;   /* chat: NULL: none      */
};

/* The room of the request's sample: those of a pair must find the same ones
 * on both sides without asking, and no two samples may share one. */
uint64_t ask_room(uint64_t room, uint32_t sample, uint32_t prompt_count);

struct prompt {
    int32_t *tokens; /* owned: the prompt's, then the output's so far */
    uint32_t token_count;
    uint32_t output_count; /* http/resume.h */
    const char *text;      /* as the client sent it, for echo; NULL: ids came */
    size_t text_len;
    struct params params;
    bool want_logprobs;
    int32_t logprob_start; /* -1: none of the input */
    uint32_t top_logprobs;
    int32_t *logprob_ids; /* owned */
    uint32_t logprob_id_count;
    char *rid;                 /* owned */
    bool made_rid;             /* here: the client gave none */
    struct pd_meeting meeting; /* of sample 0 */
    uint64_t cache_key;
    struct grammar *grammar; /* owned reference; NULL: any output */
};

/* Chat: how the answer is taken apart (text/reply.h). */
struct ask_reply {
    const struct reasoning_format *reasoning; /* NULL: it is not */
    const struct toolcall_format *toolcall;   /* likewise */
    const json_t *tools;                      /* borrowed from the body */
    bool in_reasoning;                        /* it begins so */
    bool tag_ends_reasoning; /* and no call does: calls are constrained */
    bool whole_reasoning;    /* stream_reasoning false: sent when it is over */
    bool one_call;           /* parallel_tool_calls false */
};

struct ask {
    json_t *body;   /* owns the strings that prompts borrow */
    json_t *params; /* OpenAI routes: the sampling_params made of body */
    struct prompt *prompts;
    uint32_t prompt_count, sample_count;
    bool batch; /* the answer is a list */
    bool stream;
    bool text_in_logprobs; /* /generate: third element of a logprob triple */
    bool echo;             /* completions */
    bool usage_event, usage_always; /* stream_options */
    struct ask_reply reply;
    int32_t grammar_open, grammar_after; /* as in struct request_spec */
    const char *model;                   /* as the client named it */
};

/* body: n bytes of JSON, not kept. On success *out is the caller's. */
int ask_parse_generate(struct ask **out, const struct ask_env *env,
                       const char *body, size_t n, struct why *why);
int ask_parse_completion(struct ask **out, const struct ask_env *env,
                         const char *body, size_t n, struct why *why);
int ask_parse_chat(struct ask **out, const struct ask_env *env,
                   const char *body, size_t n, struct why *why);
void ask_destroy(struct ask *ask); /* NULL is fine */

/* The first room that a body names, also of one that was refused; false where
 * it names none or is no JSON. */
bool ask_first_room(const char *body, size_t n, uint64_t *room);

/* --- parts the parsers share --- */

/* Parses body as a JSON object into a new ask. */
int ask_create(struct ask **out, const char *body, size_t n, struct why *why);
/* Makes count prompts; ERR_INVALID where there are none or too many. */
int ask_set_prompts(struct ask *ask, size_t count, struct why *why);
/* The member, NULL where absent or null. */
const json_t *ask_member(const json_t *object, const char *key);
/* ERR_UNSUPPORTED, naming it, where one of the named members asks for
 * something: it is neither null, false, "", [] nor {}. */
int ask_refuse(const json_t *object, const char *const *names, size_t count,
               struct why *why);
/* The option `key` of prompt i: a list gives each prompt of a batch its own
 * (ERR_INVALID: of another length), anything else is for all. */
int ask_option(const struct ask *ask, const char *key, size_t i,
               const json_t **out, struct why *why);
/* Fills a prompt from text, or from a JSON list of ids. */
int ask_encode(const struct ask_env *env, struct prompt *prompt,
               const char *text, size_t n, bool add_special, struct why *why);
int ask_take_ids(const struct ask_env *env, struct prompt *prompt,
                 const json_t *ids, struct why *why);
/* What every route does after its prompts have tokens and parameters: rids,
 * rooms, cache keys, the common sample count and the length rules. */
int ask_finish(struct ask *ask, const struct ask_env *env, struct why *why);

#endif
