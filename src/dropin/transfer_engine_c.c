/* Mooncake's C functions: segments and batches as numbers, over a binding. */
#include "dropin/transfer_engine_c.h"

#include "base/map.h"
#include "base/mem.h"
#include "xfer/binding.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { OPEN_MS = 5000, NOTIFY_MS = 5000, JOIN_MS = 200 };

struct group {    /* requests in a row that go as one */
    uint64_t id;  /* of the binding; 0: not submitted yet, or over */
    bool awaited; /* a thread waits for id and will say */
    int status;   /* when id is 0 */
};

struct task {
    size_t group;
    uint64_t length;
};

struct batch {
    size_t cap, count;
    unsigned users; /* calls that submit to it */
    struct task *tasks;
    struct group
        *group; /* cap of them; each has the number of its first task */
};

struct engine {
    struct xfer_binding *b;
    pthread_mutex_t lock; /* what follows */
    char **segments;      /* [0] is our own; NULL: closed */
    size_t segment_count;
    struct map batches; /* id -> struct batch */
    uint64_t ids;
};

static int code(int rc)
{
    switch (rc) {
    case 0: return 0;
    case ERR_NOMEM: return TE_MEMORY;
    case ERR_RANGE: return TE_ADDRESS_NOT_REGISTERED;
    case ERR_AGAIN: return TE_TOO_MANY_REQUESTS;
    case ERR_EXISTS: return TE_ADDRESS_OVERLAPPED;
    case ERR_AUTH: return TE_REJECT_HANDSHAKE;
    case ERR_NOT_FOUND: return TE_METADATA;
    case ERR_PEER:
    case ERR_STALE:
    case ERR_TIMEOUT:
    case ERR_IO: return TE_SOCKET;
    case ERR_UNSUPPORTED: return TE_NOT_IMPLEMENTED;
    default: return TE_INVALID_ARGUMENT;
    }
}

/* Mooncake's callers have a number alone: the log says why. */
static int failed(const char *what, int rc, const struct why *why)
{
    if (rc) xfer_log(2, what, why_text(why, rc));
    return code(rc);
}

/* ---- engines ---- */

/* A config store to join, a service that is not asked, or nothing. */
static void metadata_use(struct engine *e, const char *metadata,
                         const char *name)
{
    struct why why = {0};
    if (!metadata || !*metadata || !strcmp(metadata, "P2PHANDSHAKE")) return;
    if (strncmp(metadata, "tcp://", 6) != 0) {
        xfer_log(1, metadata, "is not asked: peers are dialled by their names");
        return;
    }
    int rc = xfer_binding_join(e->b, metadata, name, JOIN_MS, &why);
    if (rc) failed("createTransferEngine", rc, &why);
}

/* Takes the port (and what follows it) off a name. */
static void port_strip(char *name)
{
    char *npu = strstr(name, ":npu_"), *end = strchr(name, ']');
    if (npu) *npu = 0;
    char *colon = strchr(end ? end : name, ':');
    if (colon && (end || !strchr(colon + 1, ':'))) *colon = 0;
}

transfer_engine_t createTransferEngine(const char *metadata_conn_string,
                                       const char *local_server_name,
                                       const char *ip_or_host_name,
                                       uint64_t rpc_port, int auto_discover)
{
    (void)auto_discover;
    const char *host = ip_or_host_name && *ip_or_host_name ? ip_or_host_name
                                                           : local_server_name;
    struct why why = {0};
    struct xfer_binding *b;
    char name[300];
    if (!host || rpc_port > 65535 || strlen(host) >= 256) {
        failed("createTransferEngine", ERR_INVALID, &why);
        return NULL;
    }
    if (rpc_port && host == ip_or_host_name)
        snprintf(name, sizeof name, strchr(host, ':') ? "[%s]:%u" : "%s:%u",
                 host, (unsigned)rpc_port);
    else
        snprintf(name, sizeof name, "%s", host);
    int rc = xfer_binding_open(&b, XFER_WORLD_MOONCAKE, name, &why);
    if (rc == ERR_EXISTS) { /* as Mooncake does, and tells its real port */
        port_strip(name);
        rc = xfer_binding_open(&b, XFER_WORLD_MOONCAKE, name, &why);
    }
    if (rc) {
        failed("createTransferEngine", rc, &why);
        return NULL;
    }
    struct engine *e = mem_must(1, sizeof *e);
    e->b = b;
    pthread_mutex_init(&e->lock, NULL);
    xfer_binding_name(b, name, sizeof name);
    e->segments = mem_must(1, sizeof *e->segments);
    e->segments[0] = mem_dup(name);
    e->segment_count = 1;
    metadata_use(e, metadata_conn_string,
                 local_server_name && *local_server_name ? local_server_name
                                                         : name);
    return e;
}

static void batch_free(struct batch *batch)
{
    mem_free(batch->tasks);
    mem_free(batch->group);
    mem_free(batch);
}

void destroyTransferEngine(transfer_engine_t engine)
{
    struct engine *e = engine;
    struct batch *batch;
    if (!e) return;
    xfer_binding_close(e->b);
    for (size_t at = 0; (batch = map_next(&e->batches, &at, NULL));)
        batch_free(batch);
    map_fini(&e->batches);
    for (size_t i = 0; i < e->segment_count; i++)
        mem_free(e->segments[i]);
    mem_free(e->segments);
    pthread_mutex_destroy(&e->lock);
    mem_free(e);
}

int getLocalIpAndPort(transfer_engine_t engine, char *buf_out, size_t buf_len)
{
    struct engine *e = engine;
    if (!e || !buf_out || !buf_len) return TE_INVALID_ARGUMENT;
    xfer_binding_name(e->b, buf_out, buf_len);
    return 0;
}

int discoverTopology(transfer_engine_t engine)
{
    return engine ? 0 : TE_INVALID_ARGUMENT;
}

transport_t installTransport(transfer_engine_t engine, const char *proto,
                             void **args)
{
    (void)proto, (void)args;
    return engine;
}

int uninstallTransport(transfer_engine_t engine, const char *proto)
{
    (void)proto;
    return engine ? 0 : TE_INVALID_ARGUMENT;
}

/* ---- segments ---- */

/* Under the lock: its number, or -1. */
static segment_id_t segment_find(const struct engine *e, const char *name)
{
    for (size_t i = 0; i < e->segment_count; i++)
        if (e->segments[i] && strcmp(e->segments[i], name) == 0)
            return (segment_id_t)i;
    return -1;
}

/* The name of a segment (mem_free it), or NULL. */
static char *segment_name(struct engine *e, int64_t id)
{
    pthread_mutex_lock(&e->lock);
    bool known = id >= 0 && (uint64_t)id < e->segment_count && e->segments[id];
    char *name = known ? mem_dup(e->segments[id]) : NULL;
    pthread_mutex_unlock(&e->lock);
    return name;
}

segment_id_t openSegmentNoCache(transfer_engine_t engine,
                                const char *name_of_segment)
{
    struct engine *e = engine;
    struct why why = {0};
    if (!e || !name_of_segment) return TE_INVALID_ARGUMENT;
    int rc = xfer_binding_probe(e->b, name_of_segment, OPEN_MS, &why);
    if (rc) return failed("openSegment", rc, &why);
    pthread_mutex_lock(&e->lock);
    segment_id_t id = segment_find(e, name_of_segment);
    if (id < 0) {
        id = (segment_id_t)e->segment_count++;
        e->segments =
            mem_remust(e->segments, e->segment_count * sizeof *e->segments);
        e->segments[id] = mem_dup(name_of_segment);
    }
    pthread_mutex_unlock(&e->lock);
    return id;
}

segment_id_t openSegment(transfer_engine_t engine, const char *name_of_segment)
{
    struct engine *e = engine;
    if (!e || !name_of_segment) return TE_INVALID_ARGUMENT;
    pthread_mutex_lock(&e->lock);
    segment_id_t id = segment_find(e, name_of_segment);
    pthread_mutex_unlock(&e->lock);
    return id >= 0 ? id : openSegmentNoCache(engine, name_of_segment);
}

int warmupEfaSegment(transfer_engine_t engine, const char *name_of_segment)
{
    segment_id_t id = openSegmentNoCache(engine, name_of_segment);
    return id < 0 ? id : 0;
}

int closeSegment(transfer_engine_t engine, segment_id_t segment_id)
{
    struct engine *e = engine;
    char *name = e ? segment_name(e, segment_id) : NULL;
    if (!name) return TE_INVALID_ARGUMENT;
    mem_free(name);
    if (segment_id == LOCAL_SEGMENT) return 0;
    pthread_mutex_lock(&e->lock);
    mem_free(e->segments[segment_id]);
    e->segments[segment_id] = NULL;
    pthread_mutex_unlock(&e->lock);
    return 0;
}

int removeLocalSegment(transfer_engine_t engine, const char *name_of_segment)
{
    return engine && name_of_segment ? 0 : TE_INVALID_ARGUMENT;
}

int syncSegmentCache(transfer_engine_t engine)
{
    return engine ? 0 : TE_INVALID_ARGUMENT;
}

/* ---- memory ---- */

int registerLocalMemory(transfer_engine_t engine, void *addr, size_t length,
                        const char *location, int remote_accessible)
{
    struct engine *e = engine;
    struct why why = {0};
    uint64_t at = (uintptr_t)addr, bytes = length;
    if (!e) return TE_INVALID_ARGUMENT;
    int rc =
        xfer_binding_register(e->b, &at, &bytes, 1, location,
                              remote_accessible ? 0 : XFER_LOCAL_ONLY, &why);
    return failed("registerLocalMemory", rc, &why);
}

int unregisterLocalMemory(transfer_engine_t engine, void *addr)
{
    return unregisterLocalMemoryBatch(engine, &addr, 1);
}

int registerLocalMemoryBatch(transfer_engine_t engine,
                             buffer_entry_t *buffer_list, size_t buffer_len,
                             const char *location)
{
    struct engine *e = engine;
    struct why why = {0};
    if (!e || (buffer_len && !buffer_list)) return TE_INVALID_ARGUMENT;
    uint64_t *lists = mem_try(buffer_len ? buffer_len : 1, 16, 0);
    if (!lists) return TE_MEMORY;
    for (size_t i = 0; i < buffer_len; i++) {
        lists[i] = (uintptr_t)buffer_list[i].addr;
        lists[buffer_len + i] = buffer_list[i].length;
    }
    int rc = xfer_binding_register(e->b, lists, lists + buffer_len, buffer_len,
                                   location, 0, &why);
    mem_free(lists);
    return failed("registerLocalMemoryBatch", rc, &why);
}

int unregisterLocalMemoryBatch(transfer_engine_t engine, void **addr_list,
                               size_t addr_len)
{
    struct engine *e = engine;
    struct why why = {0};
    if (!e || (addr_len && !addr_list)) return TE_INVALID_ARGUMENT;
    int rc = xfer_binding_unregister(e->b, (const uint64_t *)addr_list,
                                     addr_len, &why);
    return rc == ERR_NOT_FOUND ? TE_ADDRESS_NOT_REGISTERED : code(rc);
}

/* ---- batches ---- */

batch_id_t allocateBatchID(transfer_engine_t engine, size_t batch_size)
{
    struct engine *e = engine;
    if (!e || !batch_size) return INVALID_BATCH;
    struct batch *batch = mem_try(1, sizeof *batch, 0);
    if (!batch) return INVALID_BATCH;
    batch->cap = batch_size;
    batch->tasks = mem_try(batch_size, sizeof *batch->tasks, 0);
    batch->group = mem_try(batch_size, sizeof *batch->group, 0);
    if (!batch->tasks || !batch->group) {
        batch_free(batch);
        return INVALID_BATCH;
    }
    pthread_mutex_lock(&e->lock);
    uint64_t id = ++e->ids;
    map_put(&e->batches, id, batch);
    pthread_mutex_unlock(&e->lock);
    return id;
}

static int status_of(int rc)
{
    if (rc == 0) return STATUS_COMPLETED;
    if (rc == ERR_CANCELED) return STATUS_CANCELED;
    return rc == ERR_TIMEOUT ? STATUS_TIMEOUT : STATUS_FAILED;
}

static void group_over(struct group *g, int rc, const struct xfer_done *done)
{
    g->id = 0;
    g->status = status_of(rc ? rc : done->rc);
    if (!rc && done->rc) xfer_log(2, "transfer", done->text);
}

/* Under the lock: looks whether g is over. */
static int group_look(struct engine *e, struct group *g)
{
    struct xfer_done done;
    if (!g->id) return g->status;
    if (g->awaited) return STATUS_PENDING;
    int rc = xfer_binding_finish(e->b, g->id, 0, &done);
    if (rc == ERR_TIMEOUT) return STATUS_PENDING;
    group_over(g, rc, &done);
    return g->status;
}

/* Waits until g is over, without the lock; the caller is a user of its
 * batch. */
static int group_wait(struct engine *e, struct group *g)
{
    struct xfer_done done;
    pthread_mutex_lock(&e->lock);
    uint64_t id = g->id;
    g->awaited = true;
    pthread_mutex_unlock(&e->lock);
    int rc = id ? xfer_binding_finish(e->b, id, -1, &done) : 0;
    pthread_mutex_lock(&e->lock);
    if (id) group_over(g, rc, &done);
    int status = g->status;
    pthread_mutex_unlock(&e->lock);
    return status;
}

int freeBatchID(transfer_engine_t engine, batch_id_t batch_id)
{
    struct engine *e = engine;
    if (!e) return TE_INVALID_ARGUMENT;
    pthread_mutex_lock(&e->lock);
    struct batch *batch = map_get(&e->batches, batch_id);
    int rc = !batch ? TE_INVALID_ARGUMENT : batch->users ? TE_BATCH_BUSY : 0;
    for (size_t i = 0; !rc && i < batch->count; i++)
        if (group_look(e, &batch->group[batch->tasks[i].group]) ==
            STATUS_PENDING)
            rc = TE_BATCH_BUSY;
    if (!rc) map_remove(&e->batches, batch_id);
    pthread_mutex_unlock(&e->lock);
    if (!rc) batch_free(batch);
    return rc;
}

int getTransferStatus(transfer_engine_t engine, batch_id_t batch_id,
                      size_t task_id, struct transfer_status *status)
{
    struct engine *e = engine;
    if (!e || !status) return TE_INVALID_ARGUMENT;
    *status = (struct transfer_status){.status = STATUS_INVALID};
    pthread_mutex_lock(&e->lock);
    struct batch *batch = map_get(&e->batches, batch_id);
    bool known = batch && task_id < batch->count;
    if (known) {
        const struct task *task = &batch->tasks[task_id];
        status->status = group_look(e, &batch->group[task->group]);
        if (status->status == STATUS_COMPLETED)
            status->transferred_bytes = task->length;
    }
    pthread_mutex_unlock(&e->lock);
    return known ? 0 : TE_INVALID_ARGUMENT;
}

/* Requests from the first on that can go as one. */
static size_t alike(const struct transfer_request *r, size_t count)
{
    size_t n = 1;
    while (n < count && r[n].target_id == r->target_id &&
           r[n].opcode == r->opcode)
        n++;
    return n;
}

/* Submits n requests that are alike; lists: room for 3 n numbers. */
static int group_submit(struct engine *e, const struct transfer_request *r,
                        size_t n, uint64_t *lists,
                        const struct xfer_binding_note *after, uint64_t *id,
                        struct why *why)
{
    char *name = segment_name(e, r->target_id);
    bool sane = r->opcode == OPCODE_READ || r->opcode == OPCODE_WRITE;
    *id = 0;
    if (!name || !sane) {
        mem_free(name);
        snprintf(why->text, sizeof why->text, "no segment %d, or no opcode %d",
                 r->target_id, r->opcode);
        return ERR_INVALID;
    }
    for (size_t i = 0; i < n; i++) {
        lists[i] = (uintptr_t)r[i].source;
        lists[n + i] = r[i].target_offset;
        lists[2 * n + i] = r[i].length;
    }
    int rc = xfer_binding_submit(
        e->b, name, r->opcode == OPCODE_READ ? XFER_READ : XFER_WRITE, n, lists,
        lists + n, lists + 2 * n, after, id, why);
    mem_free(name);
    return rc;
}

/* Takes places for count requests, from *first on, and makes the caller a user
 * of the batch. */
static int batch_enter(struct engine *e, batch_id_t id,
                       const struct transfer_request *r, size_t count,
                       struct batch **out, size_t *first)
{
    pthread_mutex_lock(&e->lock);
    struct batch *batch = map_get(&e->batches, id);
    int rc = batch ? 0 : TE_INVALID_ARGUMENT;
    if (batch && count > batch->cap - batch->count) rc = TE_TOO_MANY_REQUESTS;
    if (!rc) {
        *out = batch;
        *first = batch->count;
        batch->users++;
        batch->count += count;
    }
    for (size_t i = 0, n; !rc && i < count; i += n) {
        n = alike(r + i, count - i);
        batch->group[*first + i] = (struct group){.status = STATUS_WAITING};
        for (size_t j = i; j < i + n; j++)
            batch->tasks[*first + j] =
                (struct task){.group = *first + i, .length = r[j].length};
    }
    pthread_mutex_unlock(&e->lock);
    return rc;
}

static void batch_leave(struct engine *e, struct batch *batch)
{
    pthread_mutex_lock(&e->lock);
    batch->users--;
    pthread_mutex_unlock(&e->lock);
}

/* Submits group after group; those after one that fails have failed too. */
static int groups_submit(struct engine *e, struct group *group,
                         const struct transfer_request *r, size_t count,
                         uint64_t *lists, const struct xfer_binding_note *after,
                         struct why *why)
{
    int rc = 0;
    for (size_t i = 0, n; i < count; i += n) {
        uint64_t id = 0;
        n = alike(r + i, count - i);
        if (!rc) rc = group_submit(e, r + i, n, lists, after, &id, why);
        pthread_mutex_lock(&e->lock);
        group[i] = (struct group){.id = id, .status = STATUS_FAILED};
        pthread_mutex_unlock(&e->lock);
    }
    return rc;
}

/* Waits for all groups, then tells the target of the first request. */
static int groups_tell(struct engine *e, struct group *group,
                       const struct transfer_request *r, size_t count,
                       const struct xfer_binding_note *after)
{
    for (size_t i = 0; i < count; i += alike(r + i, count - i))
        if (group_wait(e, &group[i]) != STATUS_COMPLETED)
            return 0; /* the status says so */
    return genNotifyInEngine(e, (uint64_t)r->target_id,
                             (notify_msg_t){(char *)(uintptr_t)after->name,
                                            (char *)(uintptr_t)after->msg});
}

static int submit(struct engine *e, batch_id_t batch_id,
                  const struct transfer_request *r, size_t count,
                  const struct xfer_binding_note *after)
{
    struct why why = {0};
    struct batch *batch;
    size_t first;
    if (!e || !r || !count) return TE_INVALID_ARGUMENT;
    uint64_t *lists = mem_try(count, 3 * sizeof *lists, 0);
    if (!lists) return TE_MEMORY;
    bool one = alike(r, count) == count;
    int rc = batch_enter(e, batch_id, r, count, &batch, &first);
    if (!rc) {
        struct group *group = batch->group + first;
        rc = failed(
            "submitTransfer",
            groups_submit(e, group, r, count, lists, one ? after : NULL, &why),
            &why);
        if (!rc && after && !one) rc = groups_tell(e, group, r, count, after);
        batch_leave(e, batch);
    }
    mem_free(lists);
    return rc;
}

int submitTransfer(transfer_engine_t engine, batch_id_t batch_id,
                   struct transfer_request *entries, size_t count)
{
    return submit(engine, batch_id, entries, count, NULL);
}

int submitTransferWithNotify(transfer_engine_t engine, batch_id_t batch_id,
                             struct transfer_request *entries, size_t count,
                             notify_msg_t notify_msg)
{
    struct xfer_binding_note after = {notify_msg.name, notify_msg.msg};
    return submit(engine, batch_id, entries, count, &after);
}

/* ---- messages ---- */

notify_msg_t *getNotifsFromEngine(transfer_engine_t engine, int *size)
{
    struct engine *e = engine;
    notify_msg_t *list = NULL;
    char text[XFER_NOTE_MAX];
    size_t n;
    if (!size) return NULL;
    *size = 0;
    while (e && *size < INT16_MAX &&
           xfer_binding_note_take(e->b, text, &n) > 0) {
        list = mem_remust(list, (size_t)(*size + 1) * sizeof *list);
        list[(*size)++] =
            (notify_msg_t){.name = mem_dup(text), .msg = mem_dup(text + n + 1)};
    }
    return list;
}

int freeNotifsMsgBuf(notify_msg_t *msg, int size)
{
    for (int i = 0; msg && i < size; i++) {
        mem_free(msg[i].name);
        mem_free(msg[i].msg);
    }
    mem_free(msg);
    return 0;
}

int genNotifyInEngine(transfer_engine_t engine, uint64_t target_id,
                      notify_msg_t notify_msg)
{
    struct engine *e = engine;
    struct why why = {0};
    struct xfer_binding_note note = {notify_msg.name, notify_msg.msg};
    char *name = e && target_id <= INT32_MAX
                     ? segment_name(e, (int64_t)target_id)
                     : NULL;
    if (!name) return TE_INVALID_ARGUMENT;
    int rc = xfer_binding_transfer(e->b, name, XFER_WRITE, 0, NULL, NULL, NULL,
                                   &note, NOTIFY_MS, &why);
    mem_free(name);
    return failed("genNotifyInEngine", rc, &why);
}

/* ---- numbers ---- */

int getNicLoadStats(transfer_engine_t engine, nic_load_stat_t *stats, size_t *n)
{
    (void)stats;
    if (!engine || !n) return TE_INVALID_ARGUMENT;
    *n = 0;
    return 0;
}

void enableGracefulShutdown(transfer_engine_t engine)
{
    (void)engine;
}

int showLinks(transfer_engine_t engine, char *buf, size_t len, int json)
{
    struct engine *e = engine;
    size_t used = 0;
    if (!e || !buf || !len) return TE_INVALID_ARGUMENT;
    used += (size_t)snprintf(buf, len, "%s", json ? "[" : "");
    for (int64_t i = 1; used < len; i++) {
        char way[300], *name;
        pthread_mutex_lock(&e->lock);
        bool over = (uint64_t)i >= e->segment_count;
        pthread_mutex_unlock(&e->lock);
        if (over) break;
        if (!(name = segment_name(e, i))) continue;
        xfer_binding_explain(e->b, name, way, sizeof way, NULL);
        used += (size_t)snprintf(buf + used, len - used,
                                 json ? "%s{\"segment\":\"%s\",\"way\":\"%s\"}"
                                      : "%s%s: %s\n",
                                 json && used > 1 ? "," : "", name, way);
        mem_free(name);
    }
    if (json && used < len)
        used += (size_t)snprintf(buf + used, len - used, "]");
    return used < len ? 0 : TE_MEMORY;
}
