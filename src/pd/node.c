#include "pd/node.h"

#include "base/inbox.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/client.h"
#include "http/loop.h"
#include "pd/bootstrap.h"
#include "pd/core.h"
#include "pd/recv.h"
#include "pd/route.h"
#include "pd/send.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    SHARE = 256,        /* events or completions in one turn of the loop */
    PUT_FIRST_MS = 100, /* between tries to register; doubles */
    PUT_LAST_MS = 30000,
    PUT_TOTAL_MS = 5000,
};
#define FAKE_HOST "2.2.2.2" /* SGLang's FAKE_BOOTSTRAP_HOST */

struct flush {
    struct flush *next;
    uint64_t id;
    void (*on_done)(void *arg, int status);
    void *arg;
};

/* The rank's own entry in its bootstrap server. */
struct entry {
    struct http_client *client;
    struct loop_timer *timer;
    char url[320];
    char *body;
    uint32_t wait_ms;
};

struct pd_node {
    struct pd_core core;
    struct pd_bootstrap *bootstrap;
    struct entry entry;
    struct pd_send *send;
    struct pd_recv *recv;
    struct loop_watch *events, *transfers;
    struct flush *flushes;
    uint64_t last_id;
};

/* ---- events ------------------------------------------------------------- */

static void on_flushed(struct pd_node *node, const struct engine_event *event)
{
    struct flush **at = &node->flushes, *f;
    while ((f = *at) && f->id != event->id)
        at = &f->next;
    if (!f) return;
    *at = f->next;
    f->on_done(f->arg, event->status);
    mem_free(f);
}

/* True: a room keeps the event. */
static bool dispatch(struct pd_node *node, struct engine_event *event)
{
    if (event->kind == EVENT_FLUSHED) {
        on_flushed(node, event);
        return false;
    }
    struct pd_client *client = map_get(&node->core.clients, event->id);
    if (!client) return false;
    if (client->room && node->send) return pd_send_event(client->room, event);
    if (client->room)
        pd_recv_event(client->room, event);
    else
        pd_client_event(client, event);
    return false;
}

static void on_events(void *arg, unsigned ready)
{
    (void)ready;
    struct pd_node *node = arg;
    struct engine *engine = node->core.options.engine;
    struct engine_event *event;
    for (int i = 0; i < SHARE; i++) {
        event = inbox_take(engine_events(engine));
        if (!event) break;
        if (!dispatch(node, event)) engine_event_free(engine, event);
    }
}

static void on_transfers(void *arg, unsigned ready)
{
    (void)ready;
    struct pd_node *node = arg;
    struct xfer_done done[16];
    for (int i = 0; i < SHARE / 16; i++) {
        size_t n = xfer_poll(node->core.options.xfer, done, 16);
        for (size_t k = 0; k < n && node->send; k++)
            pd_send_done(node->send, &done[k]);
        if (n < 16) break;
    }
}

/* Delivers the DONE of clients that the engine never had. */
static void on_ended(void *arg)
{
    struct pd_core *core = arg;
    struct pd_client *client = core->ended;
    core->ended = NULL;
    core->ended_tail = &core->ended;
    while (client) {
        struct pd_client *next = client->next_ended;
        struct engine_event event = {.kind = EVENT_DONE, .id = client->id};
        event.finish = (struct finish){.kind = FINISH_ABORT,
                                       .status = client->status,
                                       .message = client->message};
        pd_client_event(client, &event);
        client = next;
    }
}

/* ---- messages ----------------------------------------------------------- */

static void on_message(void *arg, const struct pd_frame *frames, size_t count)
{
    struct pd_node *node = arg;
    struct pd_note note;
    struct why why = {0};
    int rc = node->send ? pd_prefill_decode(frames, count, &note, &why)
                        : pd_decode_decode(frames, count, &note, &why);
    if (rc)
        log_warn("pd", "message dropped: %s", why.text);
    else if (node->send)
        pd_send_message(node->send, &note);
    else
        pd_recv_message(node->recv, &note);
}

static void on_peer_lost(void *arg, const struct pd_address *address)
{
    struct pd_node *node = arg;
    if (node->send)
        pd_send_lost(node->send, address);
    else
        pd_recv_lost(node->recv, address);
}

/* ---- the rank's entry in the bootstrap server --------------------------- */

static void put_entry(void *arg);

static void put_done(void *arg, struct http_call *call,
                     const struct http_result *result)
{
    (void)call;
    struct pd_node *node = arg;
    struct entry *e = &node->entry;
    if (!result->rc && result->status == 200) return;
    log_warn("pd", "%s: registering failed (%s, HTTP %d), again in %u ms",
             e->url, result->rc ? result->text : "refused", result->status,
             e->wait_ms);
    loop_timer_set(e->timer, e->wait_ms, 0);
    e->wait_ms = 2 * e->wait_ms < PUT_LAST_MS ? 2 * e->wait_ms : PUT_LAST_MS;
}

static void put_entry(void *arg)
{
    struct pd_node *node = arg;
    struct entry *e = &node->entry;
    static const struct http_header headers[] = {
        {"Content-Type", "application/json"}, {0}};
    const struct http_call_options call = {.method = "PUT",
                                           .url = e->url,
                                           .headers = headers,
                                           .body = e->body,
                                           .body_bytes = strlen(e->body),
                                           .total_ms = PUT_TOTAL_MS,
                                           .on_done = put_done,
                                           .arg = node};
    if (http_call(e->client, &call, NULL))
        loop_timer_set(e->timer, PUT_LAST_MS, 0);
}

static char *entry_body(const struct pd_core *core)
{
    struct pd_rank rank = {.tp = {0, 1},
                           .cp = {0, 1},
                           .dp = {0, 1},
                           .pp = {0, 1},
                           .system_dp = {0, 1},
                           .address = *pd_mail_address(core->mail),
                           .page_size = core->layout.shape.page_tokens,
                           .follow_room = true};
    snprintf(rank.kv_cache_dtype, sizeof rank.kv_cache_dtype, "%s",
             core->options.kv_cache_dtype);
    json_t *json = pd_rank_encode(&rank);
    char *text = json_dumps(json, JSON_COMPACT);
    char *body = text ? mem_dup(text) : NULL;
    free(text);
    json_decref(json);
    return body;
}

static int entry_open(struct pd_node *node, struct why *why)
{
    struct entry *e = &node->entry;
    const struct pd_options *o = &node->core.options;
    bool bare_v6 = strchr(o->bootstrap_host, ':') && *o->bootstrap_host != '[';
    snprintf(e->url, sizeof e->url, "http://%s%s%s:%u/route",
             bare_v6 ? "[" : "", o->bootstrap_host, bare_v6 ? "]" : "",
             pd_bootstrap_port(node->bootstrap));
    e->wait_ms = PUT_FIRST_MS;
    e->timer = loop_timer_create(o->loop, put_entry, node);
    e->body = entry_body(&node->core);
    if (!e->body) return err_set(why, ERR_NOMEM, "no memory");
    int rc = http_client_open(&e->client, o->loop, why);
    if (!rc) put_entry(node);
    return rc;
}

static void entry_close(struct entry *e)
{
    http_client_close(e->client);
    loop_timer_destroy(e->timer);
    mem_free(e->body);
}

/* ---- open and close ----------------------------------------------------- */

static uint32_t or_default(uint32_t value, uint32_t fallback)
{
    return value ? value : fallback;
}

static void fill_defaults(struct pd_options *o)
{
    if (!o->host) o->host = "127.0.0.1";
    if (!o->bootstrap_bind) o->bootstrap_bind = o->host;
    if (!o->bootstrap_host) o->bootstrap_host = o->host;
    if (!o->bootstrap_port) o->bootstrap_port = 8998;
    if (!o->kv_cache_dtype) o->kv_cache_dtype = "auto";
    o->max_requests = or_default(o->max_requests, 128);
    o->bootstrap_timeout_ms = or_default(o->bootstrap_timeout_ms, 300000);
    o->waiting_timeout_ms = or_default(o->waiting_timeout_ms, 300000);
    o->heartbeat_interval_ms = or_default(o->heartbeat_interval_ms, 5000);
    o->heartbeat_max_failure = or_default(o->heartbeat_max_failure, 2);
    o->retry_ms = or_default(o->retry_ms, 500);
}

static void describe(struct pd_core *core)
{
    const struct pd_options *o = &core->options;
    struct xfer_epoch epoch = xfer_epoch(o->xfer);
    core->layout.model = o->fingerprint;
    core->layout.shape = *kv_pool_shape(o->pool);
    snprintf(core->layout.xfer, sizeof core->layout.xfer, "%s",
             xfer_name(o->xfer));
    core->layout.has_epoch = true;
    memcpy(core->layout.epoch, epoch.bytes, sizeof core->layout.epoch);
}

static int open_aux(struct pd_core *core, struct why *why)
{
    if (core->options.max_requests > 1 << 20)
        return err_set(why, ERR_INVALID, "max_requests: %u is too many",
                       core->options.max_requests);
    uint32_t rows = 2 * core->options.max_requests;
    int rc = xfer_alloc(core->options.xfer, pd_aux_table_bytes(rows), 0,
                        &core->aux_mem, why);
    if (rc) return rc;
    pd_aux_table_init(&core->aux, xfer_mem_base(core->aux_mem), rows);
    core->aux_free = mem_try(rows, sizeof *core->aux_free, 0);
    if (!core->aux_free) return err_set(why, ERR_NOMEM, "%u aux rows", rows);
    for (uint32_t i = 0; i < rows; i++)
        pd_aux_give(core, rows - 1 - i);
    return 0;
}

static int open_prefill(struct pd_node *node, struct why *why)
{
    const struct pd_options *o = &node->core.options;
    char layout[PD_LAYOUT_TEXT];
    pd_layout_encode(&node->core.layout, layout);
    int rc = pd_send_open(&node->send, &node->core, why);
    if (!rc)
        rc = pd_bootstrap_open(&node->bootstrap, o->loop, o->bootstrap_bind,
                               o->bootstrap_port, layout, why);
    if (!rc) rc = entry_open(node, why);
    return rc;
}

static int open_pair(struct pd_node *node, struct why *why)
{
    struct pd_core *core = &node->core;
    const struct pd_options *o = &core->options;
    const struct pd_mail_options mail = {.loop = o->loop,
                                         .host = o->host,
                                         .on_message = on_message,
                                         .on_lost = on_peer_lost,
                                         .arg = node};
    describe(core);
    int rc = open_aux(core, why);
    if (!rc) rc = pd_mail_open(&core->mail, &mail, why);
    if (!rc && o->mode == PD_PREFILL) rc = open_prefill(node, why);
    if (!rc && o->mode == PD_DECODE) rc = pd_recv_open(&node->recv, core, why);
    if (!rc) {
        rc = loop_watch_create(&node->transfers, o->loop, xfer_fd(o->xfer),
                               LOOP_READ, on_transfers, node);
        if (rc) err_set(why, rc, "transfer completions cannot be watched");
    }
    return rc;
}

int pd_node_open(struct pd_node **out, const struct pd_options *options,
                 struct why *why)
{
    *out = NULL;
    struct pd_node *node = mem_must(1, sizeof *node);
    struct pd_core *core = &node->core;
    core->options = *options;
    fill_defaults(&core->options);
    core->ended_tail = &core->ended;
    core->ended_timer = loop_timer_create(options->loop, on_ended, core);
    pd_message_init(&core->message);
    int rc = 0;
    if (options->mode != PD_NULL) rc = open_pair(node, why);
    if (!rc) {
        rc = loop_watch_create(&node->events, options->loop,
                               inbox_fd(engine_events(options->engine)),
                               LOOP_READ, on_events, node);
        if (rc) err_set(why, rc, "engine events cannot be watched");
    }
    if (rc) {
        pd_node_close(node);
        return rc;
    }
    *out = node;
    return 0;
}

/* Who is still there gets a DONE from us: the engine's may never come. */
static void end_clients(struct pd_node *node)
{
    struct pd_core *core = &node->core;
    size_t at = 0;
    uint64_t id;
    on_ended(core);
    for (struct pd_client *c; (c = map_next(&core->clients, &at, &id));
         at = 0) {
        if (c->engaged)
            engine_abort(core->options.engine, id, 503, "shutting down", false);
        c->engaged = false;
        pd_client_end(c, 503, "the server is shutting down");
        on_ended(core);
    }
}

void pd_node_close(struct pd_node *node)
{
    if (!node) return;
    struct pd_core *core = &node->core;
    loop_watch_destroy(node->events);
    loop_watch_destroy(node->transfers);
    pd_send_close(node->send);
    pd_recv_close(node->recv);
    end_clients(node);
    entry_close(&node->entry);
    pd_bootstrap_close(node->bootstrap);
    pd_mail_close(core->mail);
    if (core->aux_mem) xfer_deregister(core->aux_mem);
    loop_timer_destroy(core->ended_timer);
    for (struct flush *f = node->flushes, *next; f; f = next) {
        next = f->next;
        mem_free(f);
    }
    pd_message_fini(&core->message);
    map_fini(&core->clients);
    mem_free(core->aux_free);
    mem_free(node);
}

/* ---- requests ----------------------------------------------------------- */

static struct pd_client *client_create(
    struct pd_node *node,
    void (*on_event)(void *arg, const struct engine_event *), void *arg)
{
    struct pd_client *client = mem_must(1, sizeof *client);
    client->core = &node->core;
    client->id = ++node->last_id;
    client->on_event = on_event;
    client->arg = arg;
    map_put(&node->core.clients, client->id, client);
    return client;
}

/* No peer: the engine does it all, and its events pass. */
static int submit_alone(struct pd_node *node, struct pd_client *client,
                        const struct request_spec *spec, struct why *why)
{
    struct request_spec copy = *spec;
    copy.role = ROLE_WHOLE;
    if (node->send) pd_one_token(&copy);
    int rc = engine_submit(node->core.options.engine, client->id, &copy, why);
    client->engaged = !rc;
    return rc;
}

static int check_meeting(const struct pd_meeting *meeting, struct why *why)
{
    if (!meeting->host)
        return err_set(why, ERR_INVALID,
                       "Invalid request: Disaggregated request received "
                       "without bootstrap host.");
    if (!meeting->has_room) /* sic */
        return err_set(why, ERR_INVALID,
                       "Invalid request: Disaggregated request received "
                       "without boostrap room id.");
    if (meeting->room > INT64_MAX)
        return err_set(why, ERR_INVALID,
                       "bootstrap_room %" PRIu64 " is not below 2^63",
                       meeting->room);
    return 0;
}

static int submit_pair(struct pd_node *node, struct pd_client *client,
                       const struct request_spec *spec,
                       const struct pd_meeting *meeting, struct why *why)
{
    int rc = check_meeting(meeting, why);
    if (rc) return rc;
    uint16_t port =
        meeting->port ? meeting->port : node->core.options.bootstrap_port;
    if (node->recv)
        return pd_recv_submit(node->recv, client, spec, meeting->host, port,
                              meeting->room, why);
    rc = pd_send_submit(node->send, client, spec, meeting->room, why);
    if (rc && rc != ERR_EXISTS && rc != ERR_PEER)
        pd_send_refuse(node->send, meeting->room, pd_http_status(rc),
                       why_text(why, rc));
    return rc;
}

int pd_node_submit(struct pd_node *node, const struct request_spec *spec,
                   const struct pd_meeting *meeting,
                   void (*on_event)(void *arg, const struct engine_event *),
                   void *arg, uint64_t *id, struct why *why)
{
    struct why own = {0};
    if (!why) why = &own;
    struct pd_client *client = client_create(node, on_event, arg);
    bool alone =
        node->core.options.mode == PD_NULL ||
        (meeting && meeting->host && !strcmp(meeting->host, FAKE_HOST));
    static const struct pd_meeting nowhere;
    int rc = alone ? submit_alone(node, client, spec, why)
                   : submit_pair(node, client, spec,
                                 meeting ? meeting : &nowhere, why);
    if (rc) {
        map_remove(&node->core.clients, client->id);
        mem_free(client);
        return rc;
    }
    *id = client->id;
    return 0;
}

void pd_node_refuse(struct pd_node *node, uint64_t room, int status,
                    const char *message)
{
    if (node->send) pd_send_refuse(node->send, room, status, message);
}

void pd_node_abort(struct pd_node *node, uint64_t id, int status,
                   const char *message)
{
    struct pd_client *client = map_get(&node->core.clients, id);
    if (!client) return;
    if (client->room && node->send)
        pd_send_abort(client->room, status, message);
    else if (client->room)
        pd_recv_abort(client->room, status, message);
    else if (client->engaged)
        engine_abort(node->core.options.engine, id, status, message, false);
}

void pd_node_flush(struct pd_node *node, void (*on_done)(void *arg, int status),
                   void *arg)
{
    struct flush *f = mem_must(1, sizeof *f);
    *f = (struct flush){node->flushes, ++node->last_id, on_done, arg};
    node->flushes = f;
    engine_flush(node->core.options.engine, f->id);
}

void pd_node_stats(const struct pd_node *node, struct pd_stats *out)
{
    *out = node->core.stats;
    const uint32_t *by = out->by_state;
    out->bootstrapping = by[PD_BOOTSTRAP] + by[PD_LOOKUP] + by[PD_RESERVE];
    out->transferring = by[PD_COMPUTE] + by[PD_SEND] + by[PD_AUX] + by[PD_WAIT];
    out->quarantined = by[PD_QUARANTINE];
}

enum pd_mode pd_node_mode(const struct pd_node *node)
{
    return node->core.options.mode;
}
