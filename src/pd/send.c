/* The prefill's side of a room.
 *
 *     submit ----> BOOTSTRAP --REQUEST--> COMPUTE --last CHUNK--> SEND
 *     REQUEST ---> ORPHAN ----submit------^  |                      |
 *                                            | each CHUNK:          | KV
 *                                            v pages written        v acked
 *                                          (xfer)                  AUX
 *                                                                   | acked
 *     any but ORPHAN --failure--> DRAIN --writes ended--> end       v
 *                                STATUS 0, ABORT_ACK      STATUS 4, TOKEN,
 *                                                         release -> DONE
 *
 * Who knows what when a room fails: the client is told at once (by the
 * engine's DONE, or ours when the engine never had it), the decode when the
 * last write has ended, since it reuses its pages then. The engine holds the
 * source pages until that moment too.
 *
 * A chunk's new whole pages go out in one batch while the next chunk is
 * computed; a page that is not full waits. KV batches of a room are unordered
 * among each other; its aux row is written only when all of them are acked.
 *
 * An ORPHAN may also be a mark: `canceled`, an ABORT came and the request that
 * it is for is refused; or `failed`, the request failed before its REQUEST
 * came, which is then answered by STATUS 0.
 *
 * Rooms keep the struct pd_decode that they began with (pd/decodes.h). */
#include "pd/send.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/loop.h"
#include "pd/decodes.h"
#include "pd/write.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { CANCELED_MS = 10000 }; /* an ABORT waits that long for its request */

struct send_room {
    struct pd_room base;
    struct pd_send *send;
    struct send_room *newer, *older; /* ORPHANs alone */
    uint64_t tag;                    /* of its batches */
    struct pd_client *client;  /* NULL: orphan, or it has no more to do here */
    struct request_spec *spec; /* until the engine has it */
    uint64_t id;               /* the engine's; 0: it does not have it */
    bool held;                 /* aborted there, pages kept for our writes */

    bool asked; /* a REQUEST came; its fields: */
    struct pd_decode *decode;
    struct pd_address from;
    uint32_t *dst; /* [dst_count] pages of the decode */
    uint32_t dst_count, aux_dst, prefix_tokens;
    bool is_baton;
    uint32_t check_tokens;
    uint64_t check_hash;

    uint32_t aux_row; /* ours */
    bool has_aux;
    uint32_t sent_pages; /* of the prompt, submitted */
    uint32_t writes;     /* batches in flight */
    uint64_t write_us;   /* since when */
    struct engine_event *last;

    bool canceled; /* an ABORT came, to be acked: */
    struct pd_address ack_to;
    bool failed; /* an ORPHAN: how it failed is below */
    int fail_status;
    char fail_text[PD_TEXT_MAX];
};

struct pd_send {
    struct pd_core *core;
    struct pd_decodes decodes;
    struct map rooms; /* number -> struct send_room */
    struct map tags;  /* tag -> struct send_room */
    uint64_t next_tag;
    struct send_room *oldest, *newest; /* ORPHANs */
    uint32_t orphan_count;
    struct pd_write write; /* of one batch after another */
};

static unsigned long long number_of(const struct send_room *r)
{
    return r->base.number;
}

/* ---- the end of a room -------------------------------------------------- */

static void tell_failure(struct pd_send *send, uint64_t number,
                         const struct pd_address *to, bool is_baton, int status,
                         const char *text)
{
    struct pd_status failed = {.room = number};
    if (is_baton) {
        failed.http_status = status;
        snprintf(failed.text, sizeof failed.text, "%s", text);
    }
    pd_status_encode(&send->core->message, &failed);
    pd_core_send(send->core, to);
}

static void tell_ack(struct pd_send *send, uint64_t number,
                     const struct pd_address *to)
{
    pd_abort_ack_encode(&send->core->message, number);
    pd_core_send(send->core, to);
}

static void orphan_link(struct send_room *r)
{
    struct pd_send *send = r->send;
    r->older = send->newest;
    *(r->older ? &r->older->newer : &send->oldest) = r;
    send->newest = r;
    send->orphan_count++;
}

static void orphan_unlink(struct send_room *r)
{
    struct pd_send *send = r->send;
    *(r->older ? &r->older->newer : &send->oldest) = r->newer;
    *(r->newer ? &r->newer->older : &send->newest) = r->older;
    r->older = r->newer = NULL;
    send->orphan_count--;
}

static void room_free(struct send_room *r)
{
    struct pd_send *send = r->send;
    assert(!r->writes);
    if (r->base.state == PD_ORPHAN) orphan_unlink(r);
    if (r->client) r->client->room = NULL;
    if (r->last) engine_event_free(send->core->options.engine, r->last);
    if (r->has_aux) pd_aux_give(send->core, r->aux_row);
    map_remove(&send->rooms, r->base.number);
    map_remove(&send->tags, r->tag);
    pd_decode_drop(r->decode);
    mem_free(r->dst);
    request_free(r->spec);
    pd_room_fini(&r->base);
    mem_free(r);
}

/* No write is under way: the decode may have its pages back. */
static void drained(struct send_room *r)
{
    struct pd_send *send = r->send;
    if (r->held) engine_release(send->core->options.engine, r->id);
    if (r->canceled)
        tell_ack(send, r->base.number, &r->ack_to);
    else if (r->asked)
        tell_failure(send, r->base.number, &r->from, r->is_baton,
                     r->fail_status, r->fail_text);
    room_free(r);
}

static void orphan_room(struct pd_send *send);

static void become_failed(struct send_room *r)
{
    orphan_room(r->send);
    request_free(r->spec);
    r->spec = NULL;
    r->failed = true;
    pd_room_enter(&r->base, PD_ORPHAN);
    orphan_link(r);
}

/* Ends the room from any state; the engine's part is done by the caller where
 * the engine ended it itself (id 0). */
static void fail(struct send_room *r, int status, const char *text)
{
    struct pd_core *core = r->base.core;
    if (r->base.state == PD_DRAIN) return;
    log_debug("pd", "room %llu failed in state %s: %s", number_of(r),
              pd_state_name(r->base.state), text);
    r->fail_status = status;
    snprintf(r->fail_text, sizeof r->fail_text, "%s", text);
    struct pd_client *client = r->client;
    r->client = NULL;
    if (client) client->room = NULL;
    if (r->last) {
        engine_event_free(core->options.engine, r->last);
        r->last = NULL;
    }
    if (r->id) {
        r->held = r->writes > 0;
        engine_abort(core->options.engine, r->id, status, r->fail_text,
                     r->held);
    } else if (client && !client->engaged)
        pd_client_end(client, status, r->fail_text);
    bool early = r->base.state == PD_BOOTSTRAP && !r->asked && !r->canceled;
    if (early) { /* its REQUEST may still come */
        become_failed(r);
        return;
    }
    if (r->base.state == PD_ORPHAN) orphan_unlink(r);
    pd_room_enter(&r->base, PD_DRAIN);
    if (r->writes)
        xfer_cancel(core->options.xfer, r->tag);
    else
        drained(r);
}

/* An ORPHAN that nobody came for. */
static void orphan_end(struct send_room *r, const char *text)
{
    if (r->asked)
        fail(r, 500, text);
    else
        room_free(r);
}

/* One more ORPHAN is about to be: the oldest one makes way. */
static void orphan_room(struct pd_send *send)
{
    if (send->orphan_count >= 2 * send->core->options.max_requests)
        orphan_end(send->oldest, "too many rooms wait for their request");
}

/* With SGLang's words around the reason. */
static void fail_bootstrap(struct send_room *r, const char *reason)
{
    char text[PD_TEXT_MAX];
    r->base.core->stats.failed_bootstrap++;
    snprintf(text, sizeof text,
             "Prefill bootstrap failed for request bootstrap_room=%llu with "
             "exception %s",
             number_of(r), reason);
    log_warn("pd", "%s", text);
    fail(r, 500, text);
}

static void fail_transfer(struct send_room *r, const char *reason)
{
    char text[PD_TEXT_MAX];
    r->base.core->stats.failed_transfer++;
    snprintf(text, sizeof text,
             "Prefill transfer failed for request bootstrap_room=%llu with "
             "exception %s",
             number_of(r), reason);
    log_warn("pd", "%s", text);
    fail(r, 500, text);
}

/* ---- writing ------------------------------------------------------------ */

static int submit(struct send_room *r, struct why *why)
{
    int rc = pd_write_submit(&r->send->write, r->tag, why);
    if (!rc && !r->writes++) r->write_us = clock_us();
    return rc;
}

/* What was not sent yet of the prompt's first `tokens` tokens: whole pages,
 * and behind the last chunk the tokens that the last page has. */
static int write_pages(struct send_room *r, const kv_page *src, uint32_t tokens,
                       bool last, struct why *why)
{
    struct pd_write *write = &r->send->write;
    uint32_t page_tokens = r->base.core->layout.shape.page_tokens;
    uint32_t upto = (tokens + (last ? page_tokens - 1 : 0)) / page_tokens;
    uint32_t prefix = r->prefix_tokens / page_tokens;
    uint32_t from = r->sent_pages > prefix ? r->sent_pages : prefix;
    if (from >= upto) return 0;
    uint32_t last_tokens =
        last ? tokens - (upto - 1) * page_tokens : page_tokens;
    pd_write_begin(write, r->base.core, r->decode);
    int rc = pd_write_pages(write, src + from, r->dst + from - prefix,
                            upto - from, last_tokens, why);
    if (rc) return rc;
    r->sent_pages = upto;
    return submit(r, why);
}

static void write_aux(struct send_room *r)
{
    struct pd_core *core = r->base.core;
    const struct token_logprob *lp = &r->last->logprob;
    struct pd_aux_row row = {.token = r->last->token,
                             .cached_tokens = r->last->cached_tokens,
                             .room = r->base.number};
    if (r->last->has_logprob) {
        row.logprob = lp->logprob;
        row.logprob_id = lp->token;
        row.top_count = lp->top_count < PD_TOP_MAX ? lp->top_count : PD_TOP_MAX;
        for (uint32_t i = 0; i < row.top_count; i++) {
            row.top_values[i] = lp->top_values[i];
            row.top_ids[i] = lp->top_ids[i];
        }
    }
    pd_aux_write(&core->aux, r->aux_row, &row);
    struct why why = {0};
    struct pd_write *write = &r->send->write;
    pd_write_begin(write, core, r->decode);
    int rc = pd_write_aux(write, r->aux_row, r->aux_dst, &why);
    pd_room_enter(&r->base, PD_AUX);
    if (!rc) rc = submit(r, &why);
    if (rc) fail_transfer(r, why_text(&why, rc));
}

/* All is written: the decode goes on, our client gets its one token. */
static void finish(struct send_room *r)
{
    struct pd_core *core = r->base.core;
    struct engine *engine = core->options.engine;
    struct engine_event *last = r->last;
    struct pd_client *client = r->client;
    uint64_t id = r->id;
    pd_status_encode(&core->message, &(struct pd_status){.room = r->base.number,
                                                         .success = true});
    pd_core_send(core, &r->from);
    log_debug("pd", "room %llu sent: pages %u us %llu", number_of(r),
              r->sent_pages,
              (unsigned long long)(clock_us() - last->queued_us));
    r->last = NULL;
    room_free(r); /* takes itself off the client */
    struct engine_event token = *last;
    token.kind = EVENT_TOKEN;
    token.pages = NULL;
    token.page_count = 0;
    pd_client_event(client, &token);
    engine_event_free(engine, last);
    engine_release(engine, id);
}

static void on_written(struct send_room *r)
{
    struct pd_core *core = r->base.core;
    core->stats.kv_us += clock_us() - r->write_us;
    xfer_peer_explain(r->decode->peer, core->stats.transport,
                      sizeof core->stats.transport);
    switch (r->base.state) {
    case PD_DRAIN: drained(r); break;
    case PD_SEND: write_aux(r); break;
    case PD_AUX: finish(r); break;
    default: break; /* more chunks come */
    }
}

void pd_send_done(struct pd_send *send, const struct xfer_done *done)
{
    struct send_room *r = map_get(&send->tags, done->tag);
    if (!r) return;
    r->writes--;
    send->core->stats.kv_bytes += done->bytes;
    if (done->rc && r->base.state != PD_DRAIN)
        fail_transfer(r, done->text[0] ? done->text : err_text(done->rc));
    else if (!r->writes)
        on_written(r);
}

static void on_chunk(struct send_room *r, struct engine_event *event)
{
    struct why why = {0};
    int rc = write_pages(r, event->pages, event->tokens, event->last, &why);
    if (event->last) {
        r->last = event;
        pd_room_enter(&r->base, PD_SEND);
    }
    if (rc)
        fail_transfer(r, why_text(&why, rc));
    else if (event->last && !r->writes)
        write_aux(r);
}

bool pd_send_event(struct send_room *r, struct engine_event *event)
{
    struct pd_client *client = r->client;
    if (event->kind == EVENT_CHUNK) {
        bool last = event->last; /* event may be gone behind on_chunk */
        on_chunk(r, event);
        return last;
    }
    if (event->kind != EVENT_DONE) return false;
    /* The engine ended it by itself. */
    r->id = 0;
    const struct finish *f = &event->finish;
    bool aborted = f->kind == FINISH_ABORT;
    fail(r, aborted ? f->status : 500,
         aborted && f->message ? f->message : "the engine ended the request");
    pd_client_event(client, event);
    return false;
}

/* ---- beginning ---------------------------------------------------------- */

/* Is what the decode asks for our prompt? */
static int check_request(const struct send_room *r, struct why *why)
{
    const struct request_spec *spec = r->spec;
    uint32_t page = r->base.core->layout.shape.page_tokens;
    uint32_t pages = (spec->token_count + page - 1) / page;
    if (r->decode->bad[0])
        return err_set(why, ERR_INVALID, "%s", r->decode->bad);
    if (r->is_baton &&
        (r->check_tokens != spec->token_count ||
         r->check_hash != pd_prompt_hash(spec->tokens, spec->token_count)))
        return err_set(why, ERR_INVALID,
                       "the decode's prompt (%u tokens) is not this one (%u "
                       "tokens): do both use the same tokenizer and template?",
                       r->check_tokens, spec->token_count);
    if (r->prefix_tokens % page || r->prefix_tokens > spec->token_count)
        return err_set(why, ERR_INVALID,
                       "decode_prefix_len %u is no number of whole pages",
                       r->prefix_tokens);
    if (r->dst_count != pages - r->prefix_tokens / page)
        return err_set(why, ERR_INVALID,
                       "the decode asks for %u pages, the prompt has %u",
                       r->dst_count, pages - r->prefix_tokens / page);
    return 0;
}

/* Both the client's request and the decode's REQUEST are there. */
static void begin(struct send_room *r)
{
    struct pd_core *core = r->base.core;
    struct why why = {0};
    int rc = check_request(r, &why);
    if (rc) {
        fail_bootstrap(r, why.text);
        return;
    }
    r->has_aux = pd_aux_take(core, &r->aux_row);
    if (!r->has_aux)
        rc = err_set(&why, ERR_AGAIN, "all %u aux rows are in use",
                     core->aux.rows);
    if (!rc)
        rc = engine_submit(core->options.engine, r->client->id, r->spec, &why);
    if (rc) {
        core->stats.failed_bootstrap++;
        fail(r, pd_http_status(rc), why_text(&why, rc));
        return;
    }
    r->id = r->client->id;
    r->client->engaged = true;
    request_free(r->spec);
    r->spec = NULL;
    pd_room_enter(&r->base, PD_COMPUTE);
}

static void on_deadline(void *arg)
{
    struct send_room *r = arg;
    char text[160];
    const char *state =
        r->base.state == PD_BOOTSTRAP ? "Bootstrapping" : "Transferring";
    snprintf(text, sizeof text,
             "Request %llu timed out after %.1fs in KVPoll.%s", number_of(r),
             pd_room_limit_ms(&r->base) / 1e3, state);
    if (r->base.state == PD_ORPHAN)
        orphan_end(r, "no request came for this room");
    else if (r->base.state == PD_BOOTSTRAP)
        fail_bootstrap(r, text);
    else
        fail_transfer(r, text);
}

static struct send_room *room_create(struct pd_send *send, uint64_t number,
                                     enum pd_state state)
{
    struct send_room *r = mem_must(1, sizeof *r);
    r->send = send;
    r->tag = ++send->next_tag;
    pd_room_init(&r->base, send->core, number, state, on_deadline, r);
    map_put(&send->rooms, number, r);
    map_put(&send->tags, r->tag, r);
    return r;
}

/* A room that has no request yet. */
static struct send_room *orphan_create(struct pd_send *send, uint64_t number)
{
    orphan_room(send);
    struct send_room *r = room_create(send, number, PD_ORPHAN);
    orphan_link(r);
    return r;
}

void pd_send_refuse(struct pd_send *send, uint64_t number, int status,
                    const char *message)
{
    struct send_room *r = map_get(&send->rooms, number);
    if (r && r->base.state != PD_ORPHAN) return;
    if (r && r->asked) {
        fail(r, status, message);
        return;
    }
    if (!r) r = orphan_create(send, number);
    r->canceled = false;
    r->failed = true;
    r->fail_status = status;
    snprintf(r->fail_text, sizeof r->fail_text, "%s", message);
}

/* The ORPHAN of that number, where its REQUEST is there and waits. */
static int take_orphan(struct pd_send *send, uint64_t number,
                       struct send_room **out, struct why *why)
{
    struct send_room *r = map_get(&send->rooms, number);
    *out = NULL;
    if (!r) return 0;
    if (r->base.state != PD_ORPHAN)
        return err_set(why, ERR_EXISTS, "bootstrap_room %" PRIu64 " is in use",
                       number);
    bool canceled = r->canceled;
    if (r->asked)
        *out = r;
    else
        room_free(r);
    if (!canceled) return 0;
    return err_set(why, ERR_PEER, "the decode aborted the request");
}

int pd_send_submit(struct pd_send *send, struct pd_client *client,
                   const struct request_spec *spec, uint64_t number,
                   struct why *why)
{
    struct pd_core *core = send->core;
    struct send_room *r;
    int rc = take_orphan(send, number, &r, why);
    if (!rc) rc = engine_check(core->options.engine, spec, why);
    if (rc) return rc;
    if (core->stats.rooms - send->orphan_count >= core->aux.rows)
        return err_set(why, ERR_AGAIN, "%u rooms are open", core->aux.rows);
    struct request_spec *copy = request_copy(spec);
    if (!copy) return err_set(why, ERR_NOMEM, "no memory for the request");
    copy->role = ROLE_PREFILL;
    pd_one_token(copy);
    if (r) {
        orphan_unlink(r);
        pd_room_enter(&r->base, PD_BOOTSTRAP);
    } else
        r = room_create(send, number, PD_BOOTSTRAP);
    r->spec = copy;
    r->client = client;
    client->room = r;
    if (r->asked) begin(r);
    return 0;
}

void pd_send_abort(struct send_room *r, int status, const char *message)
{
    fail(r, status, message);
}

/* ---- messages ----------------------------------------------------------- */

static void refuse(struct pd_send *send, const struct pd_request *q, int status,
                   const char *text)
{
    log_warn("pd", "REQUEST of %s for room %" PRIu64 " refused: %s", q->session,
             q->room, text);
    tell_failure(send, q->room, &q->from, q->has_prompt, status, text);
}

/* What the REQUEST says becomes the room's; a former one is replaced. */
static bool attach(struct send_room *r, const struct pd_request *q,
                   struct pd_decode *decode)
{
    uint32_t *dst = mem_try(q->page_count ? q->page_count : 1, sizeof *dst, 0);
    if (!dst) return false;
    for (uint32_t i = 0; i < q->page_count; i++)
        dst[i] = (uint32_t)pd_i32_at(q->pages, i);
    mem_free(r->dst);
    pd_decode_drop(r->decode);
    decode->refs++;
    r->decode = decode;
    r->dst = dst;
    r->dst_count = q->page_count;
    r->aux_dst = q->aux_row;
    r->prefix_tokens = q->prefix_tokens;
    r->from = q->from;
    r->is_baton = q->has_prompt;
    r->check_tokens = q->prompt_tokens;
    r->check_hash = q->prompt_hash;
    r->asked = true;
    r->canceled = false;
    return true;
}

static void on_request(struct pd_send *send, const struct pd_request *q)
{
    if (q->dummy) return;
    struct send_room *r = map_get(&send->rooms, q->room);
    bool waiting = r && r->base.state == PD_BOOTSTRAP;
    bool open = !r || waiting || r->base.state == PD_ORPHAN;
    struct pd_decode *decode = pd_decodes_find(&send->decodes, q->session);
    const char *wrong = NULL;
    if (r && r->failed) {
        refuse(send, q, r->fail_status, r->fail_text);
        room_free(r);
        return;
    }
    if (!open) {
        /* The same again is a duplicate, anything else somebody else's. */
        if (!r->decode || strcmp(r->decode->reg.session, q->session) != 0)
            refuse(send, q, 500, "the room is in use");
        return;
    }
    if (!decode)
        wrong = "the decode's session has not registered";
    else if (q->required_dst != 1)
        wrong = "required_dst_info_num is not 1: decodes of another TP size "
                "are not supported";
    else if (q->page_count >= kv_pool_page_count(send->core->options.pool))
        wrong = "the prompt has more pages than this prefill";
    if (wrong) {
        refuse(send, q, 500, wrong);
        if (waiting) fail_bootstrap(r, wrong);
        return;
    }
    if (!r) r = orphan_create(send, q->room);
    if (!attach(r, q, decode))
        refuse(send, q, 500, "out of memory");
    else if (waiting)
        begin(r);
}

static void on_abort(struct pd_send *send, const struct pd_abort *abort)
{
    struct send_room *r = map_get(&send->rooms, abort->room);
    bool orphan = !r || r->base.state == PD_ORPHAN;
    if (orphan) {
        /* Its request may still come: it is refused then. */
        if (r) room_free(r);
        r = orphan_create(send, abort->room);
        r->canceled = true;
        uint32_t limit = pd_room_limit_ms(&r->base);
        loop_timer_set(r->base.timer, limit < CANCELED_MS ? limit : CANCELED_MS,
                       0);
        tell_ack(send, abort->room, &abort->from);
        return;
    }
    r->canceled = true;
    r->ack_to = abort->from;
    fail(r, 500, "the decode aborted the request");
}

void pd_send_message(struct pd_send *send, const struct pd_note *note)
{
    if (note->kind == PD_REGISTER)
        pd_decodes_add(&send->decodes, send->core, &note->reg);
    if (note->kind == PD_REQUEST) on_request(send, &note->request);
    if (note->kind == PD_ABORT) on_abort(send, &note->abort);
}

/* ---- the decode is gone ------------------------------------------------- */

/* Failing a room may free it and change the map, never add to it: each round
 * begins anew. */
static struct send_room *room_of(struct pd_send *send,
                                 const struct pd_address *decode)
{
    size_t at = 0;
    uint64_t number;
    for (struct send_room *r; (r = map_next(&send->rooms, &at, &number));)
        if (r->asked && r->base.state != PD_DRAIN &&
            pd_address_same(&r->from, decode))
            return r;
    return NULL;
}

void pd_send_lost(struct pd_send *send, const struct pd_address *decode)
{
    char text[PD_HOST_MAX + 80];
    snprintf(text, sizeof text,
             "Losing connection with decode instance (%s:%u)", decode->host,
             decode->port);
    log_warn("pd", "%s", text);
    for (struct send_room *r; (r = room_of(send, decode));) {
        /* It is told all the same: it may be back, with this request. */
        if (r->base.state == PD_ORPHAN)
            orphan_end(r, text);
        else
            fail_transfer(r, text);
    }
    pd_decodes_forget(&send->decodes, decode);
}

/* ---- life --------------------------------------------------------------- */

int pd_send_open(struct pd_send **out, struct pd_core *core, struct why *why)
{
    (void)why;
    struct pd_send *send = mem_must(1, sizeof *send);
    send->core = core;
    *out = send;
    return 0;
}

void pd_send_close(struct pd_send *send)
{
    if (!send) return;
    size_t at = 0;
    uint64_t number;
    for (struct send_room *r; (r = map_next(&send->rooms, &at, &number));
         at = 0) {
        if (r->writes) xfer_cancel(send->core->options.xfer, r->tag);
        r->writes = 0; /* the pool and xfer outlive us */
        if (r->base.state == PD_DRAIN)
            drained(r);
        else
            fail(r, 503, "the prefill server is shutting down");
    }
    pd_decodes_fini(&send->decodes);
    map_fini(&send->rooms);
    map_fini(&send->tags);
    pd_write_fini(&send->write);
    mem_free(send);
}
