#include "pd/bootstrap.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/map.h"
#include "base/mem.h"
#include "http/server.h"
#include "pd/route.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROOM_KEEP_MS = 120000, /* SGLang's BOOTSTRAP_ENTRY_CLEANUP_INTERVAL */
    ROOMS_MAX = 65536,
    ASKED_MAX = 65536, /* rooms in one /query_dp_ranks */
};

/* The DP rank that serves a room; oldest first, so that forgetting is taking
 * from the front. */
struct room_entry {
    struct room_entry *next;
    uint64_t room, since_ms;
    uint32_t dp_rank;
};

/* A rank and which host said so: only that one may change it. */
struct rank_entry {
    struct pd_address address;
    char teller[64];
};

struct pd_bootstrap {
    struct http_server *server;
    char instance[33];
    struct http_header headers[3];
    char *layout;
    struct map ranks; /* rank_key -> struct rank_entry */
    struct pd_sizes sizes;
    uint32_t rank_total; /* 0: none has registered yet */
    struct map rooms;    /* room -> struct room_entry */
    struct room_entry *oldest, **newest;
};

static void answer(struct pd_bootstrap *b, struct http_request *request,
                   int status, const char *text)
{
    http_reply(request, status, "text/plain; charset=utf-8", b->headers, text,
               strlen(text));
}

static void answer_json(struct pd_bootstrap *b, struct http_request *request,
                        json_t *body)
{
    char *text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    if (!text) {
        answer(b, request, 500, "out of memory");
        return;
    }
    http_reply(request, 200, "application/json", b->headers, text,
               strlen(text));
    free(text);
}

static void on_health(void *arg, struct http_request *request)
{
    answer(arg, request, 200, "OK");
}

static void on_other(void *arg, struct http_request *request)
{
    answer(arg, request, 405, "Method not allowed");
}

/* The body as JSON, or NULL and a 400 was sent. */
static json_t *body_of(struct pd_bootstrap *b, struct http_request *request)
{
    size_t n;
    const char *bytes = http_request_body(request, &n);
    json_t *body;
    struct why why = {0};
    if (!json_parse(&body, bytes, n, &why)) return body;
    answer(b, request, 400, why.text);
    return NULL;
}

/* ---- ranks -------------------------------------------------------------- */

static uint64_t rank_key(uint32_t dp, uint32_t cp, uint32_t tp, uint32_t pp)
{
    return (uint64_t)dp << 48 | (uint64_t)cp << 32 | (uint64_t)tp << 16 | pp;
}

static struct pd_sizes sizes_of(const struct pd_rank *rank)
{
    struct pd_sizes s = {.generation = PD_W4,
                         .registered = true,
                         .tp = rank->tp.size,
                         .cp = rank->cp.size,
                         .dp = pd_rank_dp_size(rank),
                         .pp = rank->pp.size,
                         .page_size = rank->page_size,
                         .follow_room = rank->follow_room};
    memcpy(s.kv_cache_dtype, rank->kv_cache_dtype, sizeof s.kv_cache_dtype);
    return s;
}

static bool same_sizes(const struct pd_sizes *a, const struct pd_sizes *b)
{
    return a->tp == b->tp && a->cp == b->cp && a->dp == b->dp &&
           a->pp == b->pp && a->page_size == b->page_size &&
           !strcmp(a->kv_cache_dtype, b->kv_cache_dtype);
}

/* Enters the rank; an error is the HTTP status to answer with. */
static int enter_rank(struct pd_bootstrap *b, const struct pd_rank *rank,
                      const char *teller, struct why *why)
{
    struct pd_sizes sizes = sizes_of(rank);
    uint64_t key = rank_key(pd_rank_dp_group(rank), rank->cp.rank,
                            rank->tp.rank, rank->pp.rank);
    struct rank_entry *entry = map_get(&b->ranks, key);
    if (b->rank_total && !same_sizes(&sizes, &b->sizes)) {
        err_set(why, ERR_INVALID,
                "sizes, page_size or kv_cache_dtype differ from those of the "
                "ranks that registered before");
        return 400;
    }
    if (entry && !pd_address_same(&entry->address, &rank->address) &&
        strcmp(entry->teller, teller) != 0) {
        err_set(why, ERR_AUTH, "this rank was registered by another host");
        return 403;
    }
    if (!entry) {
        entry = mem_must(1, sizeof *entry);
        map_put(&b->ranks, key, entry);
    }
    entry->address = rank->address;
    snprintf(entry->teller, sizeof entry->teller, "%s", teller);
    b->sizes = sizes;
    b->rank_total = sizes.tp * sizes.cp * sizes.dp * sizes.pp;
    log_info("pd", "bootstrap: rank registered: tp %u/%u at %s:%u (%zu of %u)",
             rank->tp.rank, rank->tp.size, rank->address.host,
             rank->address.port, b->ranks.count, b->rank_total);
    return 200;
}

static void on_put_route(void *arg, struct http_request *request)
{
    struct pd_bootstrap *b = arg;
    json_t *body = body_of(b, request);
    if (!body) return;
    struct pd_rank rank;
    struct why why = {.text = "OK"};
    int rc = pd_rank_decode(body, &rank, &why);
    json_decref(body);
    const char *teller = http_request_peer(request);
    int status = rc ? 400 : enter_rank(b, &rank, teller, &why);
    if (status != 200)
        log_warn("pd", "bootstrap: rank from %s refused: %s", teller, why.text);
    answer(b, request, status, why.text);
}

/* Four keys of W4 (dp cp tp pp) or three of W2 (tp dp pp), all present and
 * numbers; into is in W4's order. */
static bool query_numbers(struct http_request *request,
                          const char *const *names, int count, long *into)
{
    for (int i = 0; i < count; i++) {
        const char *text = http_request_query(request, names[i]);
        char *end;
        if (!text || !*text) return false;
        errno = 0;
        into[i] = strtol(text, &end, 10);
        if (*end || errno || into[i] < -1 || into[i] > UINT16_MAX) return false;
    }
    return true;
}

static void answer_rank(struct pd_bootstrap *b, struct http_request *request,
                        const long at[4], int missing_status)
{
    const struct rank_entry *entry = NULL;
    if (at[0] >= 0 && at[1] >= 0 && at[2] >= 0 && at[3] >= 0)
        entry = map_get(&b->ranks, rank_key((uint32_t)at[0], (uint32_t)at[1],
                                            (uint32_t)at[2], (uint32_t)at[3]));
    if (entry) {
        answer_json(b, request, pd_address_encode(&entry->address));
        return;
    }
    char text[160];
    snprintf(text, sizeof text,
             "Bootstrap info not found for dp_rank=%ld cp_rank=%ld tp_rank=%ld "
             "pp_rank=%ld",
             at[0], at[1], at[2], at[3]);
    answer(b, request, missing_status, text);
}

static void answer_sizes(struct pd_bootstrap *b, struct http_request *request,
                         enum pd_generation generation)
{
    struct pd_sizes sizes = b->sizes;
    sizes.generation = generation;
    answer_json(b, request, pd_sizes_encode(&sizes));
}

static void on_get_route(void *arg, struct http_request *request)
{
    static const char *const w4[] = {"prefill_dp_rank", "prefill_cp_rank",
                                     "target_tp_rank", "target_pp_rank"};
    static const char *const w2[] = {"target_dp_group", "engine_rank",
                                     "target_pp_rank"};
    struct pd_bootstrap *b = arg;
    long at[4];
    if (query_numbers(request, w4, 4, at)) {
        if (!b->rank_total || b->ranks.count < b->rank_total) {
            char text[96];
            snprintf(text, sizeof text,
                     "Prefill server not fully registered yet (%zu of %u "
                     "ranks)",
                     b->ranks.count, b->rank_total);
            answer(b, request, 503, text);
        } else if (at[0] == -1 && at[1] == -1 && at[2] == -1 && at[3] == -1)
            answer_sizes(b, request, PD_W4);
        else
            answer_rank(b, request, at, 404);
    } else if (query_numbers(request, w2, 3, at)) {
        if (at[0] == -1 && at[1] == -1 && at[2] == -1)
            answer_sizes(b, request, PD_W2);
        else
            answer_rank(b, request, (long[4]){at[0], 0, at[1], at[2]}, 500);
    } else
        answer(b, request, 400, "Missing inputs for bootstrap server.");
}

/* ---- rooms -------------------------------------------------------------- */

static void forget_oldest(struct pd_bootstrap *b)
{
    struct room_entry *entry = b->oldest;
    b->oldest = entry->next;
    if (!b->oldest) b->newest = &b->oldest;
    /* A newer entry of the same room may have taken its place. */
    if (map_get(&b->rooms, entry->room) == entry)
        map_remove(&b->rooms, entry->room);
    mem_free(entry);
}

static void remember(struct pd_bootstrap *b, uint64_t room, uint32_t dp_rank)
{
    uint64_t now = clock_ms();
    while (b->oldest && (b->oldest->since_ms + ROOM_KEEP_MS < now ||
                         b->rooms.count >= ROOMS_MAX))
        forget_oldest(b);
    struct room_entry *entry = mem_must(1, sizeof *entry);
    *entry =
        (struct room_entry){.room = room, .since_ms = now, .dp_rank = dp_rank};
    *b->newest = entry;
    b->newest = &entry->next;
    map_put(&b->rooms, room, entry);
}

static void on_register_dp_rank(void *arg, struct http_request *request)
{
    struct pd_bootstrap *b = arg;
    json_t *body = body_of(b, request);
    if (!body) return;
    int64_t room = -1, dp_rank = -1;
    struct why why = {0};
    int rc = json_is_object(body) ? 0 : ERR_FORMAT;
    if (!rc) rc = json_get_int(body, "bootstrap_room", &room, &why);
    if (!rc) rc = json_get_int(body, "dp_rank", &dp_rank, &why);
    json_decref(body);
    if (rc || room < 0 || dp_rank < 0 || dp_rank > UINT16_MAX) {
        answer(b, request, 400, "bootstrap_room and dp_rank are wanted");
        return;
    }
    remember(b, (uint64_t)room, (uint32_t)dp_rank);
    answer(b, request, 200, "OK");
}

static void on_query_dp_ranks(void *arg, struct http_request *request)
{
    struct pd_bootstrap *b = arg;
    json_t *body = body_of(b, request);
    if (!body) return;
    json_t *rooms = json_object_get(body, "bootstrap_rooms"), *room;
    if (!json_is_array(rooms) || json_array_size(rooms) > ASKED_MAX) {
        json_decref(body);
        answer(b, request, 400, "bootstrap_rooms: a list of rooms is wanted");
        return;
    }
    json_t *found = json_object();
    size_t i;
    json_array_foreach (rooms, i, room) {
        if (!json_is_integer(room)) continue;
        struct room_entry *entry =
            map_get(&b->rooms, (uint64_t)json_integer_value(room));
        if (!entry || entry->since_ms + ROOM_KEEP_MS < clock_ms()) continue;
        char name[24];
        snprintf(name, sizeof name, "%" PRIu64, entry->room);
        json_object_set_new(found, name, json_integer(entry->dp_rank));
    }
    json_decref(body);
    answer_json(b, request, found);
}

/* ---- life --------------------------------------------------------------- */

static const struct http_route routes[] = {
    {HTTP_GET, "/health", on_health},
    {HTTP_GET, "/route", on_get_route},
    {HTTP_PUT, "/route", on_put_route},
    {HTTP_POST | HTTP_DELETE | HTTP_OPTIONS | HTTP_PATCH, "/route", on_other},
    {HTTP_POST, "/register_dp_rank", on_register_dp_rank},
    {HTTP_POST, "/query_dp_ranks", on_query_dp_ranks},
};

int pd_bootstrap_open(struct pd_bootstrap **out, struct loop *loop,
                      const char *bind, uint16_t port, const char *layout,
                      struct why *why)
{
    *out = NULL;
    struct pd_bootstrap *b = mem_must(1, sizeof *b);
    uint64_t id[2] = {random_u64(), random_u64()};
    snprintf(b->instance, sizeof b->instance, "%016" PRIx64 "%016" PRIx64,
             id[0], id[1]);
    b->layout = mem_dup(layout);
    b->headers[0] = (struct http_header){PD_HEADER_INSTANCE, b->instance};
    b->headers[1] = (struct http_header){PD_HEADER_LAYOUT, b->layout};
    b->newest = &b->oldest;
    struct http_server_options options = {
        .host = bind,
        .port = port,
        .routes = routes,
        .route_count = sizeof routes / sizeof *routes,
        .arg = b,
        .limits = {.body_bytes = 4 << 20},
    };
    int rc = http_server_open(&b->server, loop, &options, why);
    if (rc) {
        pd_bootstrap_close(b);
        return rc;
    }
    *out = b;
    return 0;
}

void pd_bootstrap_close(struct pd_bootstrap *b)
{
    if (!b) return;
    http_server_close(b->server);
    while (b->oldest)
        forget_oldest(b);
    size_t at = 0;
    for (void *rank; (rank = map_next(&b->ranks, &at, &(uint64_t){0}));)
        mem_free(rank);
    map_fini(&b->ranks);
    map_fini(&b->rooms);
    mem_free(b->layout);
    mem_free(b);
}

uint16_t pd_bootstrap_port(const struct pd_bootstrap *b)
{
    return (uint16_t)http_server_port(b->server);
}
