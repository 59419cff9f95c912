/* The decode's side of a room.
 *
 *     submit --> LOOKUP --prefill known--> RESERVE --RESERVED--> WAIT
 *                                            ^                   | STATUS 4,
 *       (prefill known already) -------------+                   v aux row fits
 *                                                  engine_admit: TOKEN.. DONE
 *     LOOKUP, RESERVE --failure--> end (ABORT)
 *     WAIT --STATUS 0--> end
 *     WAIT --failure, client left--> QUARANTINE --STATUS, a Baton's ABORT_ACK,
 *              (ABORT)                 or the session expelled--> end
 *
 * From REQUEST until the prefill's last word it may write into the pages and
 * the aux row that the REQUEST named. A room that fails on our side in between
 * ends for its client at once, but its pages stay with the engine (hold_pages)
 * and its row with us, until nothing can land there any more.
 *
 * A prefill that says no last word is taken it from: it reaches our memory by a
 * session alone, a pass (xfer_pass) that REGISTER tells it and REQUEST names.
 * When it is lost, or does not answer in time, the session is expelled: what it
 * submitted, submits later, or is still to read of us is refused by our
 * transfer engine. The next REGISTER has another session. Where the prefill
 * lives, rooms that wait for it keep the old one open until they are over, no
 * longer than their own deadline. */
#include "pd/recv.h"

#include "base/log.h"
#include "base/mem.h"
#include "http/loop.h"
#include "pd/lookup.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    EXPEL_MS = 5,          /* blocks the loop that long at most */
    EXPEL_RETRY_MS = 1000, /* while a stopped process sits on our memory */
};

struct session {
    uint32_t refs;              /* rooms that asked by it, and the prefill */
    bool is_baton;              /* who ABORT_ACKs behind its last write */
    bool tried;                 /* to expel it */
    char name[PD_NAME_MAX + 1]; /* our engine's pass */
};
_Static_assert((int)PD_NAME_MAX == (int)XFER_NAME_MAX, "a session is a name");

struct recv_room {
    struct pd_room base;
    struct pd_recv *recv;
    struct pd_client *client;  /* NULL in QUARANTINE */
    struct request_spec *spec; /* in LOOKUP */
    uint64_t id;               /* the engine's; 0: it does not have it */
    struct pd_prefill *prefill;
    uint32_t aux_row;
    bool has_aux;
    struct session
        *session; /* of its REQUEST: the prefill may write; or NULL */
    bool want_logprobs;
    uint32_t top_logprobs;
    uint32_t prompt_tokens;
    uint64_t prompt_hash;
};

struct pd_recv {
    struct pd_core *core;
    struct pd_lookup *lookup;
    struct map rooms; /* number -> struct recv_room */
    uint64_t *kv;     /* addresses of our KV buffers */
    uint64_t aux[PD_AUX_ITEMS];
};

static unsigned long long number_of(const struct recv_room *r)
{
    return r->base.number;
}

/* ---- sessions ------------------------------------------------------------ */

static struct session *session_create(struct pd_recv *recv, bool is_baton)
{
    struct session *s = mem_must(1, sizeof *s);
    s->refs = 1;
    s->is_baton = is_baton;
    xfer_pass(recv->core->options.xfer, s->name);
    return s;
}

static void session_drop(struct pd_recv *recv, struct session *s)
{
    if (!s || --s->refs) return;
    xfer_expel(recv->core->options.xfer, s->name, 0);
    mem_free(s);
}

/* Its next REGISTER has another one. */
static void session_retire(struct pd_recv *recv, struct pd_prefill *prefill)
{
    struct session *s = prefill->session;
    prefill->session = NULL;
    prefill->registered = false;
    session_drop(recv, s);
}

static bool session_is_waited_for(const struct pd_recv *recv,
                                  const struct session *s)
{
    size_t at = 0;
    uint64_t number;
    for (struct recv_room *r; (r = map_next(&recv->rooms, &at, &number));)
        if (r->session == s && r->base.state == PD_WAIT) return true;
    return false;
}

/* ---- the end of a room -------------------------------------------------- */

static void room_free(struct recv_room *r)
{
    struct pd_recv *recv = r->recv;
    if (r->client) r->client->room = NULL;
    if (r->has_aux) pd_aux_give(recv->core, r->aux_row);
    map_remove(&recv->rooms, r->base.number);
    session_drop(recv, r->session);
    pd_prefill_drop(r->prefill);
    request_free(r->spec);
    pd_room_fini(&r->base);
    mem_free(r);
}

/* Only to those who understand it. */
static void tell_abort(struct pd_core *core, const struct pd_prefill *prefill,
                       uint64_t number)
{
    if (!prefill->known || prefill->generation < PD_W4) return;
    const struct pd_abort abort = {.room = number,
                                   .from = *pd_mail_address(core->mail)};
    pd_abort_encode(&core->message, &abort);
    pd_core_send(core, &prefill->rank);
}

/* Nothing can land in the pages any more. */
static void release(struct recv_room *r)
{
    engine_release(r->base.core->options.engine, r->id);
    room_free(r);
}

/* Ends a quarantine by force: no session, no write. */
static void expel(struct recv_room *r)
{
    struct xfer *x = r->base.core->options.xfer;
    struct session *s = r->session;
    if (r->prefill->session == s) {
        log_info("pd",
                 "prefill %s:%u has not said that it is done with room %llu: "
                 "session %s ends",
                 r->prefill->bootstrap.host, r->prefill->bootstrap.port,
                 number_of(r), s->name);
        session_retire(r->recv, r->prefill);
    }
    bool open = session_is_waited_for(r->recv, s);
    if (!open) {
        open = xfer_expel(x, s->name, s->tried ? 0 : EXPEL_MS) != 0;
        s->tried = true;
    }
    if (open)
        loop_timer_set(r->base.timer, EXPEL_RETRY_MS, 0);
    else
        release(r);
}

/* safe: the prefill writes no more, by its own word. */
static void fail(struct recv_room *r, int status, const char *text, bool safe)
{
    struct pd_core *core = r->base.core;
    struct pd_client *client = r->client;
    bool hold = r->session && !safe && r->id;
    if (r->base.state == PD_QUARANTINE) return;
    log_debug("pd", "room %llu failed in state %s: %s", number_of(r),
              pd_state_name(r->base.state), text);
    r->client = NULL;
    client->room = NULL;
    if (r->id)
        engine_abort(core->options.engine, r->id, status, text, hold);
    else if (!client->engaged)
        pd_client_end(client, status, text);
    if (!safe) tell_abort(core, r->prefill, r->base.number);
    if (!hold) {
        room_free(r);
        return;
    }
    pd_room_enter(&r->base, PD_QUARANTINE);
}

static void fail_handshake(struct recv_room *r, int status, const char *reason)
{
    char text[PD_TEXT_MAX];
    r->base.core->stats.failed_bootstrap++;
    snprintf(text, sizeof text,
             "Decode handshake failed for request bootstrap_room=%llu with "
             "exception %s",
             number_of(r), reason);
    log_warn("pd", "%s", text);
    fail(r, status, text, false);
}

static void fail_transfer(struct recv_room *r, const char *reason, bool safe)
{
    char text[PD_TEXT_MAX];
    r->base.core->stats.failed_transfer++;
    snprintf(text, sizeof text,
             "Decode transfer failed for request bootstrap_room=%llu%s%s",
             number_of(r), *reason ? " with exception " : "", reason);
    log_warn("pd", "%s", text);
    fail(r, 500, text, safe);
}

static void on_deadline(void *arg)
{
    struct recv_room *r = arg;
    char text[160];
    bool waits = r->base.state == PD_WAIT;
    snprintf(text, sizeof text,
             "Request %llu timed out after %.1fs in KVPoll.%s", number_of(r),
             pd_room_limit_ms(&r->base) / 1e3,
             waits ? "WaitingForInput" : "Bootstrapping");
    if (r->base.state == PD_QUARANTINE)
        expel(r);
    else if (waits)
        fail_transfer(r, text, false);
    else
        fail_handshake(r, 500, text);
}

/* ---- asking the prefill ------------------------------------------------- */

static int send_register(struct pd_recv *recv, struct pd_prefill *prefill,
                         struct why *why)
{
    struct pd_core *core = recv->core;
    const struct kv_pool *pool = core->options.pool;
    bool w4 = prefill->generation == PD_W4;
    struct pd_register reg = {
        .generation = prefill->generation,
        .from = *pd_mail_address(core->mail),
        .kv = recv->kv,
        .kv_count = kv_pool_buffer_count(pool),
        .aux = recv->aux,
        .aux_count = w4 ? PD_AUX_ITEMS : PD_AUX_ITEMS_W2,
        .tp_size = 1,
        .page_bytes = kv_shape_page_bytes(kv_pool_shape(pool)),
        .has_layout = w4 && prefill->has_layout,
        .layout = core->layout,
    };
    if (!prefill->session)
        prefill->session = session_create(recv, reg.has_layout);
    const struct session *s = prefill->session;
    snprintf(reg.session, sizeof reg.session, "%s", s->name);
    pd_register_encode(&core->message, &reg);
    int rc = pd_mail_send(core->mail, &prefill->rank, &core->message, why);
    prefill->registered = !rc;
    return rc;
}

static int send_request(struct recv_room *r, const struct engine_event *event,
                        struct why *why)
{
    struct pd_core *core = r->base.core;
    struct pd_prefill *prefill = r->prefill;
    if (!prefill->registered) {
        int rc = send_register(r->recv, prefill, why);
        if (rc) return rc;
    }
    uint32_t kept = event->cached_tokens / core->layout.shape.page_tokens;
    struct pd_request q = {
        .generation = prefill->generation,
        .room = r->base.number,
        .from = *pd_mail_address(core->mail),
        .pages = event->pages + kept, /* page numbers fit an int32 */
        .page_count = event->page_count - kept,
        .prefix_tokens = event->cached_tokens,
        .aux_row = r->aux_row,
        .required_dst = 1,
        .has_prompt = prefill->generation == PD_W4 && prefill->has_layout,
        .prompt_tokens = r->prompt_tokens,
        .prompt_hash = r->prompt_hash,
    };
    struct session *s = prefill->session;
    snprintf(q.session, sizeof q.session, "%s", s->name);
    pd_request_encode(&core->message, &q);
    int rc = pd_mail_send(core->mail, &prefill->rank, &core->message, why);
    if (rc) return rc;
    r->session = s;
    s->refs++;
    return 0;
}

static void on_reserved(struct recv_room *r, const struct engine_event *event)
{
    struct why why = {0};
    int rc = 0;
    r->has_aux = pd_aux_take(r->base.core, &r->aux_row);
    if (!r->has_aux) rc = err_set(&why, ERR_AGAIN, "all aux rows are in use");
    if (!rc) rc = send_request(r, event, &why);
    if (rc) {
        fail_handshake(r, pd_http_status(rc), why_text(&why, rc));
        return;
    }
    pd_room_enter(&r->base, PD_WAIT);
}

static int reserve(struct recv_room *r, const struct request_spec *spec,
                   struct why *why)
{
    struct request_spec copy = *spec;
    if (spec->output_count && !r->prefill->has_layout)
        return err_set(why, ERR_UNSUPPORTED,
                       "This prefill server cannot resume a request.");
    copy.role = ROLE_DECODE;
    /* SGLang's knows frame 8 too, but not over every transfer backend. */
    copy.own_prefix = r->prefill->generation == PD_W4 && r->prefill->has_layout;
    int rc =
        engine_submit(r->base.core->options.engine, r->client->id, &copy, why);
    if (rc) return rc;
    r->id = r->client->id;
    r->client->engaged = true;
    pd_room_enter(&r->base, PD_RESERVE);
    return 0;
}

/* ---- the prefill's answer ----------------------------------------------- */

static uint32_t vocab_of(const struct engine *engine)
{
    const struct engine_options *o = engine_get_options(engine);
    return (o->runner ? o->runner->config : model_config(o->model))->vocab;
}

/* The row as the first token's event. Foreign bytes: only ids that the model
 * has may pass. */
static int read_row(const struct recv_room *r, struct pd_aux_row *row,
                    struct engine_event *first, struct why *why)
{
    struct pd_core *core = r->base.core;
    uint32_t vocab = vocab_of(core->options.engine);
    bool older = r->prefill->generation == PD_W2;
    row->top_count =
        r->top_logprobs < PD_TOP_MAX ? r->top_logprobs : PD_TOP_MAX;
    pd_aux_read(&core->aux, r->aux_row, row);
    if (row->room != r->base.number && !(older && row->room == 0))
        return err_set(why, ERR_FORMAT,
                       "Metadata corruption detected - bootstrap_room "
                       "mismatch: expected %" PRIu64 ", got %" PRIu64,
                       r->base.number, row->room);
    if (row->token < 0 || (uint32_t)row->token >= vocab)
        return err_set(why, ERR_FORMAT,
                       "Metadata corruption detected - first token %d is not "
                       "in the vocabulary of %u",
                       row->token, vocab);
    for (uint32_t i = 0; i < row->top_count; i++)
        if (row->top_ids[i] < 0 || (uint32_t)row->top_ids[i] >= vocab)
            row->top_count = i;
    *first = (struct engine_event){
        .id = r->id,
        .token = row->token,
        .cached_tokens = row->cached_tokens < r->prompt_tokens
                             ? row->cached_tokens
                             : r->prompt_tokens,
        .has_logprob = r->want_logprobs,
        .logprob = {.logprob = row->logprob,
                    .token = row->token,
                    .top_count = row->top_count,
                    .top_values = row->top_values,
                    .top_ids = row->top_ids},
    };
    return 0;
}

static void admit(struct recv_room *r)
{
    struct pd_aux_row row;
    struct engine_event first;
    struct why why = {0};
    if (read_row(r, &row, &first, &why)) {
        log_error("pd", "room %llu: %s", number_of(r), why.text);
        r->base.core->stats.failed_transfer++;
        fail(r, 500, why.text, true);
        return;
    }
    engine_admit(r->base.core->options.engine, r->id, &first);
    room_free(r); /* the client's events pass from here on */
}

static void on_status(struct pd_recv *recv, const struct pd_status *status)
{
    struct recv_room *r = map_get(&recv->rooms, status->room);
    if (!r || !r->session) return; /* of a room long gone */
    /* Perhaps it took us for lost and forgot us (SGLang's does not): the next
     * request says again who we are. */
    if (status->http_status) r->prefill->registered = false;
    if (r->base.state == PD_QUARANTINE)
        release(r);
    else if (status->success)
        admit(r);
    else if (status->http_status) {
        recv->core->stats.failed_transfer++;
        fail(r, status->http_status, status->text, true);
    } else
        fail_transfer(r, "", true);
}

static void on_ack(struct pd_recv *recv, uint64_t number)
{
    struct recv_room *r = map_get(&recv->rooms, number);
    if (!r || r->base.state != PD_QUARANTINE) return;
    if (r->session->is_baton)
        release(r);
    else
        expel(r); /* SGLang's may be in the middle of a write */
}

void pd_recv_message(struct pd_recv *recv, const struct pd_note *note)
{
    if (note->kind == PD_STATUS) on_status(recv, &note->status);
    if (note->kind == PD_ABORT_ACK) on_ack(recv, note->acked_room);
}

void pd_recv_event(struct recv_room *r, const struct engine_event *event)
{
    struct pd_client *client = r->client;
    if (event->kind == EVENT_RESERVED) on_reserved(r, event);
    if (event->kind == EVENT_RESUMED) pd_client_event(client, event);
    if (event->kind != EVENT_DONE) return;
    /* The engine ended it by itself, its pages are gone. */
    r->id = 0;
    fail(r, 500, "the engine ended the request", false);
    pd_client_event(client, event);
}

/* ---- what becomes of prefills ------------------------------------------- */

/* Calls fn for each room of prefill. fn may free the room and change the map,
 * but adds no room: the walk begins anew, behind those that fn kept. */
static void each_room(struct pd_recv *recv, const struct pd_prefill *prefill,
                      void (*fn)(struct recv_room *r, const char *text),
                      const char *text)
{
    uint64_t *numbers = mem_must(recv->rooms.count + 1, sizeof *numbers);
    size_t at = 0, count = 0;
    uint64_t number;
    for (struct recv_room *r; (r = map_next(&recv->rooms, &at, &number));)
        if (r->prefill == prefill) numbers[count++] = number;
    for (size_t i = 0; i < count; i++) {
        struct recv_room *r = map_get(&recv->rooms, numbers[i]);
        if (r) fn(r, text);
    }
    mem_free(numbers);
}

static void room_known(struct recv_room *r, const char *text)
{
    (void)text;
    if (r->base.state != PD_LOOKUP) return;
    struct why why = {0};
    int rc = reserve(r, r->spec, &why);
    request_free(r->spec);
    r->spec = NULL;
    if (rc) fail(r, pd_http_status(rc), why_text(&why, rc), false);
}

static void room_failed(struct recv_room *r, const char *text)
{
    if (r->base.state == PD_LOOKUP) fail_handshake(r, 500, text);
}

static void room_lost(struct recv_room *r, const char *text)
{
    if (r->base.state == PD_RESERVE || r->base.state == PD_WAIT)
        fail_transfer(r, text, false);
}

static void room_shut(struct recv_room *r, const char *text)
{
    (void)text;
    if (r->base.state == PD_QUARANTINE) expel(r);
}

static void on_known(void *arg, struct pd_prefill *prefill)
{
    log_info("pd", "prefill %s:%u known: %s%s, messages to %s:%u",
             prefill->bootstrap.host, prefill->bootstrap.port,
             prefill->generation == PD_W4 ? "W4" : "W2",
             prefill->has_layout ? ", Baton" : "", prefill->rank.host,
             prefill->rank.port);
    each_room(arg, prefill, room_known, NULL);
}

static void on_failed(void *arg, struct pd_prefill *prefill, const char *text)
{
    log_error("pd", "%s", text);
    each_room(arg, prefill, room_failed, text);
}

static void on_lost(void *arg, struct pd_prefill *prefill, const char *text)
{
    struct pd_recv *recv = arg;
    log_warn("pd", "%s", text);
    pd_mail_hang_up(recv->core->mail, &prefill->rank);
    each_room(recv, prefill, room_lost, text);
    session_retire(recv, prefill);
    each_room(recv, prefill, room_shut, text);
}

static void on_freed(void *arg, struct pd_prefill *prefill)
{
    session_retire(arg, prefill);
}

void pd_recv_lost(struct pd_recv *recv, const struct pd_address *prefill)
{
    struct pd_prefill *p = pd_lookup_find_rank(recv->lookup, prefill);
    if (p) pd_prefill_lost(p, "connection closed");
}

/* ---- submit ------------------------------------------------------------- */

static struct recv_room *room_create(struct pd_recv *recv,
                                     struct pd_client *client,
                                     const struct request_spec *spec,
                                     uint64_t number)
{
    struct recv_room *r = mem_must(1, sizeof *r);
    r->recv = recv;
    r->client = client;
    r->want_logprobs = spec->want_logprobs;
    r->top_logprobs = spec->top_logprobs;
    r->prompt_tokens = spec->token_count;
    r->prompt_hash = pd_prompt_hash(spec->tokens, spec->token_count);
    pd_room_init(&r->base, recv->core, number, PD_LOOKUP, on_deadline, r);
    map_put(&recv->rooms, number, r);
    client->room = r;
    return r;
}

int pd_recv_submit(struct pd_recv *recv, struct pd_client *client,
                   const struct request_spec *spec, const char *host,
                   uint16_t port, uint64_t number, struct why *why)
{
    struct pd_core *core = recv->core;
    if (map_get(&recv->rooms, number))
        return err_set(why, ERR_EXISTS, "bootstrap_room %" PRIu64 " is in use",
                       number);
    struct pd_prefill *prefill;
    int rc = pd_prefill_take(recv->lookup, host, port, &prefill, why);
    if (rc) return rc;
    rc = engine_check(core->options.engine, spec, why);
    if (!rc && core->stats.rooms >= core->aux.rows)
        rc = err_set(why, ERR_AGAIN, "%u rooms are open", core->aux.rows);
    if (rc) {
        tell_abort(core, prefill, number);
        pd_prefill_drop(prefill);
        return rc;
    }
    struct recv_room *r = room_create(recv, client, spec, number);
    r->prefill = prefill;
    if (prefill->known)
        rc = reserve(r, spec, why);
    else if (!(r->spec = request_copy(spec)))
        rc = err_set(why, ERR_NOMEM, "no memory for the request");
    if (!rc) return 0;
    tell_abort(core, prefill, number);
    room_free(r);
    return rc;
}

void pd_recv_abort(struct recv_room *r, int status, const char *message)
{
    fail(r, status, message, false);
}

/* ---- life --------------------------------------------------------------- */

int pd_recv_open(struct pd_recv **out, struct pd_core *core, struct why *why)
{
    *out = NULL;
    const struct pd_options *o = &core->options;
    struct pd_recv *recv = mem_must(1, sizeof *recv);
    const struct pd_lookup_options lookup = {
        .loop = o->loop,
        .layout = &core->layout,
        .kv_cache_dtype = o->kv_cache_dtype,
        .heartbeat_interval_ms = o->heartbeat_interval_ms,
        .heartbeat_max_failure = o->heartbeat_max_failure,
        .retry_ms = o->retry_ms,
        .on_known = on_known,
        .on_failed = on_failed,
        .on_lost = on_lost,
        .on_freed = on_freed,
        .arg = recv,
    };
    recv->core = core;
    uint32_t buffers = kv_pool_buffer_count(o->pool);
    recv->kv = mem_must(buffers, sizeof *recv->kv);
    for (uint32_t i = 0; i < buffers; i++)
        recv->kv[i] = (uintptr_t)kv_pool_buffer(o->pool, i);
    for (int i = 0; i < PD_AUX_ITEMS; i++)
        recv->aux[i] = (uintptr_t)core->aux.items[i];
    int rc = pd_lookup_open(&recv->lookup, &lookup, why);
    if (rc) {
        pd_recv_close(recv);
        return rc;
    }
    *out = recv;
    return 0;
}

void pd_recv_close(struct pd_recv *recv)
{
    if (!recv) return;
    size_t at = 0;
    uint64_t number;
    for (struct recv_room *r; (r = map_next(&recv->rooms, &at, &number));
         at = 0)
        if (r->base.state == PD_QUARANTINE)
            release(r);
        else
            fail(r, 503, "the decode server is shutting down", false);
    pd_lookup_close(recv->lookup);
    map_fini(&recv->rooms);
    mem_free(recv->kv);
    mem_free(recv);
}
