#include "xfer/env.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { BATON = 1, MEMFABRIC = 2, MOONCAKE = 4 };

/* A number of lo..hi. */
static int number(const char *name, const char *text, long lo, long hi,
                  long *out, struct why *why)
{
    char *end;
    errno = 0;
    *out = strtol(text, &end, 10);
    if (errno || end == text || *end || *out < lo || *out > hi)
        return err_set(why, ERR_INVALID, "%s is \"%.60s\", not %ld to %ld",
                       name, text, lo, hi);
    return 0;
}

static int take_token(struct xfer_settings *s, const char *name,
                      const char *text, struct why *why)
{
    (void)name, (void)why;
    s->xfer.token = text;
    return 0;
}

static int take_via(struct xfer_settings *s, const char *name, const char *text,
                    struct why *why)
{
    s->xfer.via = 0;
    for (const char *at = text; *at;) {
        size_t n = strcspn(at, ","), way = 0;
        while (way < XFER_WAYS && (strlen(xfer_way_name(way)) != n ||
                                   strncmp(xfer_way_name(way), at, n) != 0))
            way++;
        if (way == XFER_WAYS)
            return err_set(why, ERR_INVALID,
                           "%s is \"%.60s\", not a list of self, memfd, cma, "
                           "unix, tcp, rdma, ucx",
                           name, text);
        s->xfer.via |= 1u << way;
        at += n;
        at += *at == ',';
    }
    return 0;
}

static int take_rdma_device(struct xfer_settings *s, const char *name,
                            const char *text, struct why *why)
{
    (void)name, (void)why;
    s->xfer.rdma_device = text;
    return 0;
}

/* The certificate, its key, the CA: names end in CERT, KEY, CA. */
static int take_tls(struct xfer_settings *s, const char *name, const char *text,
                    struct why *why)
{
    (void)why;
    const char *which = strrchr(name, '_') + 1;
    if (strcmp(which, "CERT") == 0) s->xfer.tls_cert = text;
    if (strcmp(which, "KEY") == 0) s->xfer.tls_key = text;
    if (strcmp(which, "CA") == 0) s->xfer.tls_ca = text;
    return 0;
}

static int take_bind(struct xfer_settings *s, const char *name,
                     const char *text, struct why *why)
{
    (void)name, (void)why;
    s->bind = text;
    return 0;
}

static int take_port_min(struct xfer_settings *s, const char *name,
                         const char *text, struct why *why)
{
    long n;
    int rc = number(name, text, 1, 65535, &n, why);
    if (!rc) s->port_min = (uint16_t)n;
    return rc;
}

static int take_port_max(struct xfer_settings *s, const char *name,
                         const char *text, struct why *why)
{
    long n;
    int rc = number(name, text, 1, 65535, &n, why);
    if (!rc) s->port_max = (uint16_t)n;
    return rc;
}

static int take_lanes(struct xfer_settings *s, const char *name,
                      const char *text, struct why *why)
{
    long n;
    int rc = number(name, text, 1, 1024, &n, why);
    if (!rc) s->xfer.lanes = n > 16 ? 16 : (unsigned)n;
    return rc;
}

static int take_connect(struct xfer_settings *s, const char *name,
                        const char *text, struct why *why)
{
    long n;
    int rc = number(name, text, 1, 3600, &n, why);
    if (!rc) s->xfer.connect_ms = (unsigned)n * 1000;
    return rc;
}

static int take_timeout(struct xfer_settings *s, const char *name,
                        const char *text, struct why *why)
{
    long n;
    int rc = number(name, text, 1, 1000000, &n, why);
    if (!rc) s->timeout_ms = (n < 5 ? 5 : (int)n) * 1000;
    return rc;
}

/* MemFabric's numbers and the words of others. */
static int take_log_level(struct xfer_settings *s, const char *name,
                          const char *text, struct why *why)
{
    static const char *const words[] = {"DEBUG", "INFO", "WARN", "ERROR"};
    (void)s;
    for (int level = 0; level < 4; level++)
        if ((text[0] == '0' + level && !text[1]) ||
            strncasecmp(text, words[level], strlen(words[level])) == 0)
            return xfer_log_level(level);
    if (strcasecmp(text, "TRACE") == 0) return xfer_log_level(0);
    return err_set(why, ERR_INVALID,
                   "%s is \"%.60s\", not 0 to 3 or debug, info, warn, error",
                   name, text);
}

struct row {
    const char *names; /* separated by spaces */
    unsigned worlds;
    int (*take)(struct xfer_settings *s, const char *name, const char *text,
                struct why *why);
    const char *why_not; /* without take */
};

static const struct row rows[] = {
    {"BATON_TRANSFER_TOKEN", BATON, take_token, NULL},
    {"BATON_TRANSFER_VIA", BATON, take_via, NULL},
    {"BATON_RDMA_DEVICE", BATON, take_rdma_device, NULL},
    {"BATON_TLS_CERT BATON_TLS_KEY BATON_TLS_CA", BATON, take_tls, NULL},
    {"ASCEND_MF_LOG_LEVEL SHMEM_LOG_LEVEL", MEMFABRIC, take_log_level, NULL},
    {"MC_LOG_LEVEL", MOONCAKE, take_log_level, NULL},
    {"MC_TCP_BIND_ADDRESS", MOONCAKE, take_bind, NULL},
    {"MC_MIN_RPC_PORT MC_MIN_PRC_PORT", MOONCAKE, take_port_min, NULL},
    {"MC_MAX_RPC_PORT MC_MAX_PRC_PORT", MOONCAKE, take_port_max, NULL},
    {"MC_HANDSHAKE_CONNECT_TIMEOUT", MOONCAKE, take_connect, NULL},
    {"MC_TCP_LANES_PER_PEER MC_TCP_MAX_CONNECTIONS_PER_PEER", MOONCAKE,
     take_lanes, NULL},
    {"MC_TRANSFER_TIMEOUT", MOONCAKE, take_timeout, NULL},

    {"MC_FORCE_TCP", MOONCAKE, NULL,
     "RDMA is used only where BATON_TRANSFER_VIA has it; a value of tcp also "
     "turns the ways of one host off"},
    {"MC_USE_IPV6", MOONCAKE, NULL, "[v6]:port works without it"},
    {"MC_FORCE_HCA MC_FORCE_MNNVL MC_INTRANODE_NVLINK MC_USE_NVLINK_IPC",
     MOONCAKE, NULL,
     "this build has no transport for GPU memory, and RDMA only where "
     "BATON_TRANSFER_VIA has it"},
    {"MC_USE_TENT MC_USE_TEV1", MOONCAKE, NULL, "there is one engine here"},
    {"MC_RDMA_BIND_ADDRESS MC_NUM_QP_PER_EP MC_MAX_WR MC_MAX_SGE MC_MAX_INLINE "
     "MC_MTU MC_GID_INDEX MC_AUTO_GID_MAX_RETRIES MC_IB_PORT MC_IB_TC MC_IB_SL "
     "MC_PKEY_INDEX MC_IB_PCI_RELAXED_ORDERING MC_NUM_CQ_PER_CTX "
     "MC_MAX_CQE_PER_CTX MC_NUM_COMP_CHANNELS_PER_CTX MC_WORKERS_PER_CTX "
     "MC_MAX_EP_PER_CTX MC_ENDPOINT_STORE_TYPE MC_MLX5_QP_UDP_SPORTS "
     "MC_MLX5_QP_LAG_PORT_BALANCE MC_PATH_ROUNDROBIN MC_TE_FILTERS "
     "MC_ENABLE_DEST_DEVICE_AFFINITY MC_ENABLE_HCA_PEER_AFFINITY "
     "MC_NIC_PEER_AFFINITY MC_CUSTOM_TOPO_JSON MC_RDMA_RAIL_PAUSE_SECONDS",
     MOONCAKE, NULL,
     "it tunes Mooncake's RDMA; BATON_RDMA_DEVICE chooses device, port, GID"},
    {"MC_SLICE_SIZE MC_FRAGMENT_RATIO MC_TCP_SLICE_SIZE MC_TCP_PROTO "
     "MC_TCP_ENABLE_CONNECTION_POOL MC_TCP_MAX_QUEUED_TRANSFERS_PER_PEER "
     "MC_TCP_MAX_PENDING_ADMISSIONS_PER_PEER MC_TCP_ADMISSION_TIMEOUT_MS",
     MOONCAKE, NULL,
     "the engine cuts transfers by itself, keeps its connections and queues "
     "without a limit a peer"},
    {"MC_RETRY_CNT MC_SLICE_TIMEOUT MC_CONN_PAUSE_TTL_MS "
     "MC_TCP_STATUS_TIMEOUT_SEC",
     MOONCAKE, NULL,
     "a dead peer is seen by life signs within 2 s, and is tried again by the "
     "next transfer"},
    {"MC_ENABLE_PARALLEL_REG_MR MC_MAX_CONCURRENT_REG_MR MC_MAX_MR_SIZE "
     "MC_MIN_REG_SIZE",
     MOONCAKE, NULL, "registering costs microseconds here"},
    {"MC_METADATA_CLUSTER_ID MC_DISABLE_METACACHE "
     "MC_TE_METADATA_REFRESH_INTERVAL_SECONDS MC_REDIS_USERNAME "
     "MC_REDIS_PASSWORD MC_REDIS_DB_INDEX MC_HANDSHAKE_LISTEN_BACKLOG "
     "MC_HANDSHAKE_MAX_LENGTH MC_HANDSHAKE_PORT MC_LEGACY_RPC_PORT_BINDING",
     MOONCAKE, NULL, "peers are dialled by their name, without metadata"},
    {"MC_RPC_PROTOCOL MC_LOG_DIR MC_TE_METRIC MC_TE_METRIC_INTERVAL_SECONDS",
     MOONCAKE, NULL, "log and numbers come the way xfer.h says"},
    {"ASCEND_CONNECT_TIMEOUT ASCEND_TRANSFER_TIMEOUT ASCEND_AUTO_CONNECT "
     "ASCEND_BASE_PORT ASCEND_BUFFER_POOL ASCEND_USE_ASYNC_TRANSFER "
     "ASCEND_USE_SHORT_CONNECTION ASCEND_THREAD_POOL_SIZE ASCEND_RDMA_TC "
     "ASCEND_RDMA_SL ASCEND_LOCAL_COMM_RES "
     "ASCEND_TRANSPORT_TRANSFER_TIMEOUT "
     "ASCEND_TRANSPORT_TRANSFER_MAX_RETRY_COUNT "
     "ASCEND_TRANSPORT_TRANSFER_ENABLE_FAST_RECOVERY",
     MOONCAKE, NULL, "it tunes Mooncake's Ascend transport"},
    {"ASCEND_MF_TRANSFER_PROTOCOL MEMFABRIC_HYBRID_EXTEND_LIB_PATH "
     "ASCEND_MF_NIC",
     MEMFABRIC, NULL,
     "this build moves host memory, over shared memory, TCP, or RDMA where "
     "BATON_TRANSFER_VIA has it"},
};

enum { ROWS = sizeof rows / sizeof rows[0], NAMES_MAX = 192 };

/* Calls visit for each name of the table that is set and of these worlds. */
static int each_set(unsigned worlds,
                    int (*visit)(void *arg, size_t number, const char *name,
                                 const char *text, const struct row *row,
                                 struct why *why),
                    void *arg, struct why *why)
{
    size_t count = 0;
    for (const struct row *row = rows; row < rows + ROWS; row++) {
        for (const char *at = row->names; *at; count++) {
            char name[64];
            size_t n = strcspn(at, " ");
            memcpy(name, at, n);
            name[n] = 0;
            at += n;
            at += *at == ' ';
            const char *text = getenv(name);
            if (!text || !*text || !(row->worlds & worlds)) continue;
            int rc = visit(arg, count, name, text, row, why);
            if (rc) return rc;
        }
    }
    return 0;
}

static int visit(void *arg, size_t number, const char *name, const char *text,
                 const struct row *row, struct why *why)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static bool told[NAMES_MAX];
    if (row->take) return row->take(arg, name, text, why);
    pthread_mutex_lock(&lock);
    bool tell = number < NAMES_MAX && !told[number];
    if (tell) told[number] = true;
    pthread_mutex_unlock(&lock);
    if (tell)
        log_info("xfer", "%s is set and not used: %s", name, row->why_not);
    return 0;
}

int xfer_env_read(struct xfer_settings *out, enum xfer_world world,
                  struct why *why)
{
    static const unsigned worlds[] = {BATON, BATON | MEMFABRIC,
                                      BATON | MOONCAKE};
    *out = (struct xfer_settings){.timeout_ms = 30000};
    int rc = each_set(worlds[world], visit, out, why);
    if (rc) return rc;
    if (out->port_min && !out->port_max) out->port_max = 65535;
    if (out->port_max && !out->port_min) out->port_min = 1024;
    if (out->port_min > out->port_max)
        return err_set(why, ERR_INVALID,
                       "MC_MIN_RPC_PORT %u is above MC_MAX_RPC_PORT %u",
                       out->port_min, out->port_max);
    return 0;
}

int xfer_env_open(struct xfer **out, const struct xfer_settings *s,
                  const char *host, uint16_t port, struct why *why)
{
    struct xfer_options opt = s->xfer;
    opt.advertise = host;
    opt.host = s->bind ? s->bind : host;
    bool ranged = !port && s->port_min;
    unsigned count = ranged ? s->port_max - s->port_min + 1u : 1;
    unsigned first = (unsigned)(random_u64() % count);
    int rc = ERR_EXISTS;
    for (unsigned i = 0; i < count && rc == ERR_EXISTS; i++) {
        opt.port =
            ranged ? (uint16_t)(s->port_min + (first + i) % count) : port;
        rc = xfer_open(out, &opt, why);
    }
    return rc;
}
