/* Bindings: opening, peers by name, the process's settings. */
#include "xfer/binding_core.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PEER_IDLE_MS = 60000, LOOK_UP_MS = 1000 };

/* All bindings that are open: a pointer that is not in here is no binding. */
static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t all_idle = PTHREAD_COND_INITIALIZER;
static TAILQ_HEAD(, xfer_binding) all = TAILQ_HEAD_INITIALIZER(all);

static bool is_open(const struct xfer_binding *b)
{
    const struct xfer_binding *other;
    TAILQ_FOREACH(other, &all, next)
    if (other == b) return !other->closing && other->pid == getpid();
    return false;
}

int binding_enter(struct xfer_binding *b, struct why *why)
{
    pthread_mutex_lock(&all_lock);
    bool open = is_open(b);
    if (open) b->calls++;
    pthread_mutex_unlock(&all_lock);
    return open ? 0 : err_set(why, ERR_INVALID, "the engine is not open");
}

void binding_leave(struct xfer_binding *b)
{
    pthread_mutex_lock(&all_lock);
    if (--b->calls == 0 && b->closing) pthread_cond_broadcast(&all_idle);
    pthread_mutex_unlock(&all_lock);
}

/* ---- opening ---- */

/* "host:port", "[v6]:port", "host", "v6", each perhaps with ":npu_N". */
static int name_split(const char *name, char host[HOST_MAX], uint16_t *port,
                      struct why *why)
{
    char text[HOST_MAX + 32];
    const char *npu = strstr(name, ":npu_");
    size_t n = npu ? (size_t)(npu - name) : strlen(name);
    if (n == 0 || n >= sizeof text)
        return err_set(why, ERR_INVALID, "\"%.100s\" is no host name", name);
    memcpy(text, name, n);
    text[n] = 0;
    *port = 0;
    const char *colon = strchr(text, ':');
    bool bare = !colon || (text[0] != '[' && strchr(colon + 1, ':'));
    if (!bare && text[n - 1] != ']') return addr_split(text, host, port, why);
    size_t brackets = text[0] == '[';
    n -= 2 * brackets;
    if (n == 0 || n >= HOST_MAX)
        return err_set(why, ERR_INVALID, "\"%.100s\" is no host name", name);
    memcpy(host, text + brackets, n);
    host[n] = 0;
    return 0;
}

/* Whether host is an address of this machine, and one that only it reaches. */
static int host_look(const char *host, bool *ours, bool *loopback, int *family,
                     struct why *why)
{
    struct addr addr;
    int rc = addr_resolve(host, 0, &addr, why);
    if (rc) return rc;
    const struct sockaddr_in *v4 = (const void *)&addr.ss;
    const struct sockaddr_in6 *v6 = (const void *)&addr.ss;
    *family = addr.ss.ss_family;
    *loopback = *family == AF_INET ? ntohl(v4->sin_addr.s_addr) >> 24 == 127
                                   : IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
    int fd = socket(*family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return err_sys(why, ERR_IO, errno, "socket");
    *ours = !bind(fd, (const struct sockaddr *)&addr.ss, addr.bytes) ||
            errno != EADDRNOTAVAIL;
    close(fd);
    return 0;
}

static void warn_open(const char *host)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;
    if (!atomic_flag_test_and_set(&told))
        log_warn("xfer",
                 "whoever can connect to %s may read and write the memory "
                 "registered here: set BATON_TRANSFER_TOKEN, the same "
                 "everywhere, to prevent it",
                 host);
}

static int binding_start(struct xfer_binding *b, enum xfer_world world,
                         const char *name, struct why *why)
{
    char host[HOST_MAX];
    uint16_t port;
    bool ours = true, loopback = true;
    int family = AF_INET;
    int rc = xfer_env_read(&b->settings, world, why);
    if (!rc) rc = name_split(name, host, &port, why);
    if (!rc) rc = host_look(host, &ours, &loopback, &family, why);
    if (rc) return rc;
    struct xfer_settings *settings = &b->settings;
    settings->xfer.insecure = !settings->xfer.token;
    if (!settings->bind && !ours)
        settings->bind = family == AF_INET ? "0.0.0.0" : "::";
    if (settings->xfer.insecure && !loopback) warn_open(host);
    return xfer_env_open(&b->x, settings, host, port, why);
}

int xfer_binding_open(struct xfer_binding **out, enum xfer_world world,
                      const char *name, struct why *why)
{
    *out = NULL;
    if ((unsigned)world > XFER_WORLD_MOONCAKE || !name)
        return err_set(why, ERR_INVALID, "no such world, or no name");
    struct xfer_binding *b = mem_must(1, sizeof *b);
    pthread_mutex_init(&b->lock, NULL);
    atomic_init(&b->ids, 1);
    b->pid = getpid();
    int rc = binding_start(b, world, name, why);
    if (!rc) rc = listener_start(b, why);
    if (rc) {
        xfer_close(b->x);
        pthread_mutex_destroy(&b->lock);
        mem_free(b);
        return rc;
    }
    pthread_mutex_lock(&all_lock);
    TAILQ_INSERT_TAIL(&all, b, next);
    pthread_mutex_unlock(&all_lock);
    *out = b;
    return 0;
}

static void peers_free(struct xfer_binding *b)
{
    struct known *k, *after;
    for (size_t at = 0; (k = map_next(&b->peers, &at, NULL));)
        for (; k; k = after) {
            after = k->next;
            mem_free(k);
        }
    map_fini(&b->peers);
    map_fini(&b->running);
}

void xfer_binding_close(struct xfer_binding *b)
{
    pthread_mutex_lock(&all_lock);
    bool open = is_open(b);
    if (open) b->closing = true;
    pthread_mutex_unlock(&all_lock);
    if (!open) return;
    xfer_stop(b->x); /* running calls end */
    listener_stop(b);
    pthread_mutex_lock(&all_lock);
    while (b->calls)
        pthread_cond_wait(&all_idle, &all_lock);
    TAILQ_REMOVE(&all, b, next);
    pthread_mutex_unlock(&all_lock);
    listener_free(b);
    xfer_store_disconnect(b->store);
    xfer_close(b->x);
    peers_free(b);
    binding_memory_free(b);
    pthread_mutex_destroy(&b->lock);
    mem_free(b);
}

void xfer_binding_name(struct xfer_binding *b, char *out, size_t n)
{
    if (n) out[0] = 0;
    if (binding_enter(b, NULL)) return;
    snprintf(out, n, "%s", xfer_name(b->x));
    binding_leave(b);
}

int xfer_binding_port(struct xfer_binding *b)
{
    if (binding_enter(b, NULL)) return 0;
    int port = xfer_port(b->x);
    binding_leave(b);
    return port;
}

/* ---- the directory ---- */

static void session_key(const char *name, char *out, size_t n)
{
    snprintf(out, n, "baton/session/%s", name);
}

static int join(struct xfer_binding *b, const char *url, const char *name,
                int wait_ms, struct why *why)
{
    struct xfer_store_client *store;
    char key[STORE_KEY_MAX], value[WIRE_NAME_MAX + 40];
    int rc = binding_store_open(url, &store, why);
    if (rc) return rc;
    pthread_mutex_lock(&b->lock);
    bool second = b->store != NULL;
    if (!second) b->store = store;
    pthread_mutex_unlock(&b->lock);
    if (second) {
        xfer_store_disconnect(store);
        return err_set(why, ERR_EXISTS, "joined a config store before");
    }
    session_key(name, key, sizeof key);
    int n = snprintf(value, sizeof value, "%s", xfer_name(b->x));
    rc = xfer_store_announce(store, key, value, (size_t)n, why);
    return rc ? rc : xfer_store_meet(store, wait_ms, why);
}

int xfer_binding_join(struct xfer_binding *b, const char *url, const char *name,
                      int wait_ms, struct why *why)
{
    int rc = binding_enter(b, why);
    if (rc) return rc;
    rc = join(b, url, name, wait_ms, why);
    binding_leave(b);
    return rc;
}

/* The address of whoever is called name. */
static int address_of(struct xfer_binding *b, const char *name,
                      char out[WIRE_NAME_MAX + 1], struct why *why)
{
    char host[HOST_MAX], plain[WIRE_NAME_MAX + 1], key[STORE_KEY_MAX], *value;
    uint16_t port;
    const char *behind = name;
    uint64_t pass = addr_pass_take(&behind);
    int rc = name_split(behind, host, &port, why);
    if (!rc && port) {
        addr_join(host, port, plain, sizeof plain);
        addr_pass_put(pass, plain, out, WIRE_NAME_MAX + 1);
        return 0;
    }
    pthread_mutex_lock(&b->lock);
    struct xfer_store_client *store = b->store;
    pthread_mutex_unlock(&b->lock);
    if (!store)
        return err_set(why, ERR_NOT_FOUND,
                       "\"%.100s\" is not host:port, and there is no config "
                       "store to look it up in",
                       name);
    session_key(name, key, sizeof key);
    rc = xfer_store_get(store, key, 0, LOOK_UP_MS, &value, NULL, why);
    if (rc == ERR_NOT_FOUND)
        return err_set(why, rc,
                       "\"%.100s\" is not host:port, and nobody of "
                       "that name is in the config store",
                       name);
    if (rc) return rc;
    snprintf(out, WIRE_NAME_MAX + 1, "%.*s", (int)strcspn(value, " "), value);
    xfer_store_free(value);
    return 0;
}

/* ---- peers ---- */

static struct known *known_find(struct xfer_binding *b, const char *name,
                                uint64_t hash)
{
    struct known *k = map_get(&b->peers, hash);
    while (k && strcmp(k->name, name) != 0)
        k = k->next;
    return k;
}

static bool is_down(const struct known *k)
{
    return !k->uses && xfer_peer_state(k->peer, NULL) == XFER_DOWN;
}

/* Under the lock. */
static void known_forget(struct xfer_binding *b, struct known *k, uint64_t hash)
{
    struct known *head = map_get(&b->peers, hash), **to = &head;
    while (*to != k)
        to = &(*to)->next;
    *to = k->next;
    if (head)
        map_put(&b->peers, hash, head);
    else
        map_remove(&b->peers, hash);
    xfer_peer_close(k->peer);
    mem_free(k);
}

/* Under the lock: peers that went away under their old name are not dialled
 * for ever. */
static void peers_sweep(struct xfer_binding *b)
{
    uint64_t now = clock_ms(), hash;
    struct known *k;
    for (size_t at = 0; (k = map_next(&b->peers, &at, &hash));) {
        while (k && !(is_down(k) && now - k->used_ms > PEER_IDLE_MS))
            k = k->next;
        if (!k) continue;
        known_forget(b, k, hash);
        at = 0; /* the map changed */
    }
}

/* Under the lock. */
static struct known *known_use(struct known *k)
{
    k->uses++;
    k->used_ms = clock_ms();
    return k;
}

/* Under the lock: who is down may be at another address by now, where a store
 * can say so. *again: the name is to be looked up before it is used. */
static struct known *known_ready(struct xfer_binding *b, const char *name,
                                 uint64_t hash, bool *again)
{
    struct known *k = known_find(b, name, hash);
    *again = k && b->store && is_down(k);
    return k && !*again ? known_use(k) : NULL;
}

/* Under the lock: what a look-up said (rc, address) of a name that was down.
 * Without an answer of the store the old address has to do. */
static struct known *known_again(struct xfer_binding *b, const char *name,
                                 uint64_t hash, int rc, const char *address)
{
    struct known *k = known_find(b, name, hash);
    bool gone = rc == ERR_NOT_FOUND ||
                (!rc && k && strcmp(address, xfer_peer_name(k->peer)) != 0);
    if (k && gone && is_down(k)) {
        known_forget(b, k, hash);
        k = NULL;
    }
    return k ? known_use(k) : NULL;
}

/* Under the lock: peer is called name from now on. */
static struct known *known_add(struct xfer_binding *b, const char *name,
                               uint64_t hash, struct xfer_peer *peer)
{
    peers_sweep(b);
    struct known *k = known_find(b, name, hash);
    if (k) { /* another thread was faster */
        xfer_peer_close(peer);
        return known_use(k);
    }
    size_t n = strlen(name) + 1;
    k = mem_must(1, sizeof *k + n);
    memcpy(k->name, name, n);
    k->peer = peer;
    k->next = map_get(&b->peers, hash);
    map_put(&b->peers, hash, k);
    return known_use(k);
}

struct known *known_take(struct xfer_binding *b, const char *name,
                         struct why *why)
{
    if (!name) {
        err_set(why, ERR_INVALID, "no name of a peer");
        return NULL;
    }
    uint64_t hash = hash_bytes(name, strlen(name), 0);
    char address[WIRE_NAME_MAX + 1];
    bool again;
    pthread_mutex_lock(&b->lock);
    struct known *k = known_ready(b, name, hash, &again);
    pthread_mutex_unlock(&b->lock);
    if (k) return k;
    int rc = address_of(b, name, address, why);
    if (again) {
        pthread_mutex_lock(&b->lock);
        k = known_again(b, name, hash, rc, address);
        pthread_mutex_unlock(&b->lock);
        if (k) return k;
    }
    struct xfer_peer *peer;
    if (rc || xfer_peer_open(b->x, address, &peer, why)) return NULL;
    pthread_mutex_lock(&b->lock);
    k = known_add(b, name, hash, peer);
    pthread_mutex_unlock(&b->lock);
    return k;
}

void known_drop(struct xfer_binding *b, struct known *k)
{
    pthread_mutex_lock(&b->lock);
    k->uses--;
    pthread_mutex_unlock(&b->lock);
}

int xfer_binding_probe(struct xfer_binding *b, const char *peer, int timeout_ms,
                       struct why *why)
{
    int rc = binding_enter(b, why);
    if (rc) return rc;
    struct why mine = {0};
    struct known *k = known_take(b, peer, &mine);
    rc = k ? xfer_peer_probe(k->peer, timeout_ms, NULL, &mine) : mine.code;
    if (k) known_drop(b, k);
    binding_leave(b);
    return rc ? err_set(why, rc, "%s", why_text(&mine, rc)) : 0;
}

int xfer_binding_explain(struct xfer_binding *b, const char *peer, char *out,
                         size_t n, struct why *why)
{
    if (n) out[0] = 0;
    int rc = binding_enter(b, why);
    if (rc) return rc;
    struct why mine = {0};
    struct known *k = known_take(b, peer, &mine);
    if (k) {
        xfer_peer_explain(k->peer, out, n);
        known_drop(b, k);
    }
    binding_leave(b);
    return k ? 0 : err_set(why, mine.code, "%s", mine.text);
}

/* ---- the process ---- */

int xfer_log_level(int level)
{
    if (level < 0 || level > 3) return ERR_INVALID;
    log_init((enum log_level)(LOG_DEBUG - level), "");
    return 0;
}

static void (*sink_of_user)(int level, const char *line);

static void on_line(void *arg, enum log_level level, const char *line)
{
    (void)arg;
    sink_of_user(LOG_DEBUG - (int)level, line);
}

void xfer_log_sink(void (*sink)(int level, const char *line))
{
    if (!sink) log_sink(NULL, NULL);
    sink_of_user = sink;
    if (sink) log_sink(on_line, NULL);
}

void xfer_log(int level, const char *subject, const char *text)
{
    if (level < 0 || level > 3) return;
    log_line((enum log_level)(LOG_DEBUG - level), subject, "%s", text);
}

const char *xfer_version(void)
{
    return BATON_VERSION;
}
