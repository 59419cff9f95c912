/* tests/serve/fake_node.h - a pd_node that a test plays by hand.
 *
 * Linked into the tests of serve/ in front of pd/ and engine/, it stands for
 * both: it takes every request, tells the test through an inbox, and gives
 * the events that the test hands it, on the loop's thread. */
#ifndef BATON_TESTS_SERVE_FAKE_NODE_H
#define BATON_TESTS_SERVE_FAKE_NODE_H

#include "base/inbox.h"
#include "pd/node.h"

/* What serve/ submitted, or aborted; the test frees it. */
struct fake_request {
    uint64_t id;
    int32_t tokens[64];
    uint32_t token_count, output_count;
    struct sampling sampling; /* scalars, and the first of each list: */
    int32_t stop_id, bias_id;
    char stop[64];
    float bias;
    bool want_logprobs;
    int32_t logprob_start;
    uint32_t top_logprobs, logprob_id_count;
    uint64_t cache_key;
    bool has_grammar;
    int32_t grammar_open, grammar_after;
    char begins[64]; /* the bytes that an output may begin with, ascending */
    bool has_host, has_room;
    char host[64];
    uint16_t port;
    uint64_t room;
};
struct fake_abort {
    uint64_t id; /* of a refusal: the room */
    int status;
    char message[128];
};

/* refuse: an ERR_ code that every submit returns; 0: none. */
struct pd_node *fake_node_create(struct loop *loop, enum pd_mode mode,
                                 int refuse);
void fake_node_destroy(struct pd_node *node);

/* The next submit or abort; ends the test when none comes. */
struct fake_request fake_next(struct pd_node *node);
struct fake_abort fake_next_abort(struct pd_node *node);

/* Gives request id the count events, in one turn of the loop. Waits until
 * they were given; events of unknown requests are dropped. */
void fake_play(struct pd_node *node, uint64_t id,
               const struct engine_event *events, size_t count);

/* The n-th output token with its text; the last event. */
struct engine_event fake_token(int32_t token, const char *text, uint32_t n);
struct engine_event fake_done(enum finish_kind kind, uint32_t n);

/* What pd_node_flush answers, or that it does not. */
enum { FAKE_FLUSH_NEVER = 1 };
void fake_set_flush(struct pd_node *node, int status);

#endif
