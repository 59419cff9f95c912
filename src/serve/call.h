/* serve/call.h - one API call at work: its outputs, their events, its answer.
 *
 *     ask -> call_start -> one pd_node request per output (struct output)
 *         -> events gather in each output, already in the answer's JSON
 *         -> streaming: once per loop turn what is new leaves as events
 *            else: when all outputs are done the answer leaves
 *
 * The text of an answer is escaped once, when it arrives; an event copies the
 * constant parts around it. A route says by a struct call_format how its
 * answer reads. Errors before the first byte of a stream are answered with
 * their HTTP status; later ones inside the stream.
 *
 * A client that leaves ends its requests at once. One that reads slowly gets
 * fewer, larger events; past the server's stream limit it is hung up on.
 *
 * All of it belongs to the loop thread. A call frees itself when its answer
 * is out and its last output is done. */
#ifndef BATON_SERVE_CALL_H
#define BATON_SERVE_CALL_H

#include "base/buf.h"
#include "serve/ask.h"
#include "serve/error.h"
#include "serve/parts.h"

struct call;
struct serve;
struct http_request;

/* Lists of rendered logprobs, items separated by ','. Who uses which is the
 * format's business. */
enum { OUTPUT_LISTS = 6 };

struct output {
    struct call *call;
    const struct prompt *prompt;
    uint32_t index; /* prompt * samples + sample: its place in the answer */
    uint32_t sample;
    uint64_t id; /* the node's, 0 before submit */
    char *rid;
    bool submitted, done;

    struct buf text;     /* escaped for JSON */
    struct parts *parts; /* what else is taken from it; NULL: nothing */
    struct buf ids;      /* "1,2,3" */
    struct buf lists[OUTPUT_LISTS];
    uint32_t text_chars; /* of logprobs: code points so far */
    struct {
        size_t text, ids, lists[OUTPUT_LISTS];
        uint32_t tokens;
        bool begun, done; /* an event left; the last one did */
    } sent;

    uint32_t tokens_seen; /* TOKEN events */
    uint32_t prompt_tokens, cached_tokens, output_tokens, retractions;
    struct finish finish;                /* done; its strings are owned here */
    uint64_t first_us, last_us, done_us; /* of tokens; clock_us */
};

struct call_format {
    enum api_style style;
    /* Renders a token's logprob, and the input's, into out->lists. */
    void (*logprobs)(struct output *out, const struct engine_event *event);
    /* Appends the events of what is new in out; all of it is then sent. */
    void (*event)(struct output *out, struct buf *to);
    /* Appends what goes between the last event and [DONE]; may be NULL. */
    void (*last)(struct call *call, struct buf *to);
    void (*answer)(struct call *call, struct buf *to);
};

struct call {
    struct serve *serve;
    struct http_request *request; /* NULL: answered, or the client left */
    struct ask *ask;
    const struct call_format *format;
    struct call *next, *prev, *next_dirty;
    bool dirty, begun; /* waits for its flush; stream headers are out */
    bool resumable;    /* http/resume.h */
    uint32_t guards;   /* functions on the stack that use it */
    uint32_t alive;    /* outputs whose DONE is to come */
    uint64_t created;  /* unix seconds */
    uint64_t start_us;
    struct buf head; /* formats: the constant start of an event */
    uint32_t output_count;
    struct output outputs[];
};

/* Starts the call; takes ask. Answers request in every case. */
void call_start(struct serve *serve, struct http_request *request,
                struct ask *ask, const struct call_format *format);

/* Answers a request whose body was refused with rc and why. On a prefill the
 * decode that waits for it is told, too: one room of a batch is enough. */
void call_refuse(struct serve *serve, struct http_request *request,
                 enum api_style style, int rc, const struct why *why);

/* Ends the outputs whose rid starts with prefix, in state "abort". */
void call_abort_rid(struct serve *serve, const char *prefix);

/* Frees what is left when a server closes; the node no longer knows it. */
void call_destroy_all(struct serve *serve);

/* For formats: the finish reason's word, "stop", "length" or "abort"; what
 * matched as JSON (null, an id, a string); seconds from start to its end. */
const char *output_finish_word(const struct output *out);
void output_matched(const struct output *out, struct buf *to);
double output_seconds(const struct output *out);

#endif
