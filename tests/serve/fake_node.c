#include "tests/serve/fake_node.h"
#include "tests/test.h"

#include "base/map.h"
#include "base/mem.h"
#include "http/loop.h"
#include "text/grammar.h"

#include <semaphore.h>

struct alive {
    void (*on_event)(void *arg, const struct engine_event *);
    void *arg;
};

struct pd_node {
    struct loop *loop;
    enum pd_mode mode;
    int refuse, flush_status;
    uint64_t last_id;
    struct map alive;
    struct inbox *requests, *aborts;
};

struct pd_node *fake_node_create(struct loop *loop, enum pd_mode mode,
                                 int refuse)
{
    struct pd_node *node = mem_must(1, sizeof *node);
    node->loop = loop;
    node->mode = mode;
    node->refuse = refuse;
    assert_int_equal(inbox_create(&node->requests, 8192), 0);
    assert_int_equal(inbox_create(&node->aborts, 8192), 0);
    return node;
}

static void drain(struct inbox *inbox)
{
    void *message;
    while ((message = inbox_take(inbox)))
        mem_free(message);
    inbox_destroy(inbox);
}

void fake_node_destroy(struct pd_node *node)
{
    size_t at = 0;
    struct alive *alive;
    while ((alive = map_next(&node->alive, &at, NULL)))
        mem_free(alive);
    map_fini(&node->alive);
    drain(node->requests);
    drain(node->aborts);
    mem_free(node);
}

void fake_set_flush(struct pd_node *node, int status)
{
    node->flush_status = status;
}

/* --- the contract of pd/node.h and what serve/ uses of the engine --- */

enum pd_mode pd_node_mode(const struct pd_node *node)
{
    return node->mode;
}

static void copy_sampling(struct fake_request *to, const struct sampling *s)
{
    to->sampling = *s;
    if (s->stop_count) snprintf(to->stop, sizeof to->stop, "%s", s->stops[0]);
    if (s->stop_id_count) to->stop_id = s->stop_ids[0];
    if (s->bias_count) to->bias_id = s->bias_ids[0];
    if (s->bias_count) to->bias = s->bias_values[0];
}

static void copy_grammar(struct fake_request *r,
                         const struct request_spec *spec)
{
    const int32_t end = 256;
    uint32_t vocab;
    size_t n = 0;
    r->has_grammar = spec->grammar;
    r->grammar_open = spec->grammar_open;
    r->grammar_after = spec->grammar_after;
    if (!spec->grammar) return;
    struct matcher *m = matcher_create(spec->grammar, &end, 1, -1, -1);
    const uint64_t *allowed = matcher_allowed(m, &vocab);
    for (int b = 1; b < 256 && n + 1 < sizeof r->begins; b++)
        if (allowed[b / 64] >> b % 64 & 1) r->begins[n++] = (char)b;
    matcher_destroy(m);
}

int pd_node_submit(struct pd_node *node, const struct request_spec *spec,
                   const struct pd_meeting *meeting,
                   void (*on_event)(void *arg, const struct engine_event *),
                   void *arg, uint64_t *id, struct why *why)
{
    if (node->refuse) return err_set(why, node->refuse, "refused by the test");
    struct fake_request *r = mem_must(1, sizeof *r);
    r->id = *id = ++node->last_id;
    r->token_count = spec->token_count;
    r->output_count = spec->output_count;
    for (uint32_t i = 0; i < spec->token_count && i < 64; i++)
        r->tokens[i] = spec->tokens[i];
    copy_sampling(r, &spec->sampling);
    r->want_logprobs = spec->want_logprobs;
    r->logprob_start = spec->logprob_start;
    r->top_logprobs = spec->top_logprobs;
    r->logprob_id_count = spec->logprob_id_count;
    r->cache_key = spec->cache_key;
    copy_grammar(r, spec);
    r->has_host = meeting->host != NULL;
    if (meeting->host) snprintf(r->host, sizeof r->host, "%s", meeting->host);
    r->port = meeting->port;
    r->has_room = meeting->has_room;
    r->room = meeting->room;
    struct alive *alive = mem_must(1, sizeof *alive);
    *alive = (struct alive){on_event, arg};
    map_put(&node->alive, *id, alive);
    if (inbox_put(node->requests, r)) abort();
    return 0;
}

static void give(struct pd_node *node, uint64_t id,
                 const struct engine_event *event)
{
    struct alive *alive = map_get(&node->alive, id);
    if (!alive) return;
    struct alive to = *alive;
    if (event->kind == EVENT_DONE) mem_free(map_remove(&node->alive, id));
    to.on_event(to.arg, event);
}

static void note_abort(struct pd_node *node, uint64_t id, int status,
                       const char *message)
{
    struct fake_abort *a = mem_must(1, sizeof *a);
    a->id = id;
    a->status = status;
    snprintf(a->message, sizeof a->message, "%s", message);
    if (inbox_put(node->aborts, a)) abort();
}

void pd_node_abort(struct pd_node *node, uint64_t id, int status,
                   const char *message)
{
    note_abort(node, id, status, message);
    struct engine_event done = {
        .kind = EVENT_DONE,
        .finish = {.kind = FINISH_ABORT, .status = status, .message = message}};
    give(node, id, &done);
}

/* A refusal comes to the test as an abort; its id is the room. */
void pd_node_refuse(struct pd_node *node, uint64_t room, int status,
                    const char *message)
{
    note_abort(node, room, status, message);
}

void pd_node_flush(struct pd_node *node, void (*on_done)(void *, int),
                   void *arg)
{
    if (node->flush_status != FAKE_FLUSH_NEVER)
        on_done(arg, node->flush_status);
}

void pd_node_stats(const struct pd_node *node, struct pd_stats *out)
{
    (void)node;
    *out = (struct pd_stats){.rooms = 3,
                             .transferring = 2,
                             .bootstrapping = 1,
                             .kv_bytes = 1000,
                             .kv_us = 10,
                             .transport = "memfd"};
}

void engine_stats_get(struct engine *engine, struct engine_stats *out)
{
    (void)engine;
    *out = (struct engine_stats){.running = 2,
                                 .queued = 1,
                                 .pages_total = 16,
                                 .pages_free = 10,
                                 .pages_cached = 2,
                                 .output_rate = 12.5};
}

/* --- the test's side --- */

static void *next(struct inbox *inbox, const char *what)
{
    void *message = inbox_wait(inbox, 20000);
    for (int i = 0; !message && i < 100; i++)
        message = inbox_wait(inbox, 200);
    if (!message) fail_msg("no %s came", what);
    return message;
}

struct fake_request fake_next(struct pd_node *node)
{
    struct fake_request *r = next(node->requests, "request");
    struct fake_request copy = *r;
    mem_free(r);
    return copy;
}

struct fake_abort fake_next_abort(struct pd_node *node)
{
    struct fake_abort *a = next(node->aborts, "abort");
    struct fake_abort copy = *a;
    mem_free(a);
    return copy;
}

struct play {
    struct pd_node *node;
    uint64_t id;
    const struct engine_event *events;
    size_t count;
    sem_t given;
};

static void play(void *arg)
{
    struct play *p = arg;
    for (size_t i = 0; i < p->count; i++)
        give(p->node, p->id, &p->events[i]);
    sem_post(&p->given);
}

void fake_play(struct pd_node *node, uint64_t id,
               const struct engine_event *events, size_t count)
{
    struct play p = {node, id, events, count, {{0}}};
    assert_int_equal(sem_init(&p.given, 0, 0), 0);
    assert_int_equal(loop_post(node->loop, play, &p), 0);
    while (sem_wait(&p.given)) {
    }
    sem_destroy(&p.given);
}

struct engine_event fake_token(int32_t token, const char *text, uint32_t n)
{
    return (struct engine_event){.kind = EVENT_TOKEN,
                                 .token = token,
                                 .text = text,
                                 .text_len = strlen(text),
                                 .prompt_tokens = 2,
                                 .cached_tokens = 1,
                                 .output_tokens = n};
}

struct engine_event fake_done(enum finish_kind kind, uint32_t n)
{
    return (struct engine_event){.kind = EVENT_DONE,
                                 .prompt_tokens = 2,
                                 .cached_tokens = 1,
                                 .output_tokens = n,
                                 .finish = {.kind = kind}};
}
