/* bin/launch_server.c - one server, wired from the bottom up:
 *
 *   transfer engine -> device, model -> KV slab and pool -> engine
 *          -> loop -> node (pd) -> HTTP API (serve)
 *
 * the transfer engine first, since weights may take minutes to read, and wrong
 * certificates or a device that is not there need not wait for them.
 * server_open does it in that order and says each step once; server_close
 * undoes what was done. SIGINT and SIGTERM drain and end it. */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "bin/address.h"
#include "bin/commands.h"
#include "base/cores.h"
#include "bin/cpu_isa.h"
#include "bin/kv_type.h"
#include "bin/memory.h"
#include "bin/server_options.h"
#include "engine/engine.h"
#include "http/loop.h"
#include "http/server.h"
#include "pd/node.h"
#include "router/join.h"
#include "serve/assets.h"
#include "serve/serve.h"
#include "text/grammar.h"
#include "text/reply.h"
#include "text/tokenizer.h"
#include "xfer/env.h"
#include "xfer/store.h"
#include "xfer/xfer.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Rooms at once: a bound for a flood, far above what runs, so that requests
 * wait for their turn as they do in a colocated server. Each has an aux row of
 * about 1.5 KB, touched when used. */
enum { ROOMS = 8192 };

struct server {
    struct server_options o;
    enum pd_mode mode;
    uint64_t started_us;
    uint64_t available; /* bytes of memory, before the weights took theirs */
    struct device *device;
    struct model *model;
    struct xfer *xfer;
    struct xfer_store *store;
    struct xfer_store_client *store_client;
    void *slab; /* owned here only without xfer */
    size_t slab_bytes;
    struct kv_pool *pool;
    struct assets *assets;
    struct grammars *grammars;
    struct engine *engine;
    struct loop *loop;
    struct pd_node *node;
    struct serve *serve;
    struct join *join; /* with --pdlb-url, once it is ready */
    enum model_quantize quantize;
    uint64_t progress_us; /* of the last loading line */
    bool stopping, failed;
    char address[64]; /* found for a --host of all addresses */
    char *info;
};

static void on_progress(void *arg, size_t done, size_t total)
{
    struct server *s = arg;
    uint64_t now = clock_us();
    if (now - s->progress_us < 500000 || total == 0) return;
    s->progress_us = now;
    log_info("model", "loading %zu %% of %zu MB", done * 100 / total,
             total / 1000000);
}

static void on_note(void *arg, bool coped, const char *text)
{
    (void)arg;
    log_line(coped ? LOG_WARN : LOG_INFO, "model", "%s", text);
}

/* --- device and model --- */

/* Compute workers: as told, else as many as usable cores; --tp-size asks for
 * that many ranks elsewhere and means workers of one process here. */
static int worker_count(const struct server_options *o)
{
    struct cores usable;
    cores_read(&usable);
    const int cores = usable.usable;
    if (o->threads) return (int)o->threads;
    if (o->tp_size == 1) return cores;
    int n = o->tp_size < cores ? (int)o->tp_size : cores;
    log_info("device",
             "--tp-size %lld: one process with %d compute worker%s here, not "
             "%lld ranks (%d core%s)",
             (long long)o->tp_size, n, n == 1 ? "" : "s", (long long)o->tp_size,
             cores, cores == 1 ? "" : "s");
    return n;
}

/* Prompt tokens of a step. */
static uint32_t chunk_tokens(const struct server_options *o)
{
    return o->chunked_prefill_size > 0 ? (uint32_t)o->chunked_prefill_size
                                       : 8192;
}

/* One row of logits for each running request, and some for input logprobs. */
static uint32_t logit_rows(const struct server_options *o)
{
    return (uint32_t)(o->max_running_requests > 32 ? o->max_running_requests
                                                   : 32);
}

/* Refuses from the headers alone what could not run, before the weights are
 * read and packed: a model too large would end in the kernel's hands. */
static int check_model(const struct server *s, struct why *why)
{
    const struct server_options *o = &s->o;
    struct model_survey survey;
    const struct model_options mo = {.path = o->model_path,
                                     .quantize = s->quantize};
    int rc = model_survey(&survey, &mo, why);
    if (rc) return rc;
    const size_t weights = survey.weight_bytes;
    double budget = (double)s->available * o->mem_fraction;
    if ((double)weights >= budget)
        return err_set(why, ERR_NOMEM,
                       "%s: %.2f GB of weights; --mem-fraction-static %g of "
                       "%.2f GB available is %.2f GB",
                       o->model_path, (double)weights * 1e-9, o->mem_fraction,
                       (double)s->available * 1e-9, budget * 1e-9);
    if (o->context_length > survey.config.context)
        return err_set(why, ERR_INVALID,
                       "--context-length %lld: the model was made for %u "
                       "positions",
                       (long long)o->context_length, survey.config.context);
    return 0;
}

/* Ports that somebody has are said before the weights are read. */
static int check_ports(const struct server *s, struct why *why)
{
    const struct server_options *o = &s->o;
    int rc = http_port_check(o->host, (int)o->port, why);
    if (!rc && s->mode == PD_PREFILL)
        rc = http_port_check(o->host, (int)o->bootstrap_port, why);
    return rc;
}

static int open_model(struct server *s, struct why *why)
{
    const struct server_options *o = &s->o;
    struct device_options dev = {.kind = o->device,
                                 .threads = worker_count(o),
                                 .isa = cpu_isa_limit(o->cpu_isa)};
    int rc = device_open(&s->device, &dev, why);
    if (rc) return rc;
    log_info("device", "%s", device_describe(s->device));
    if (strcmp(o->attention_backend, "ascend") == 0 &&
        !strstr(device_describe(s->device), "ascend"))
        log_info(
            "device",
            "--attention-backend ascend: no NPU here, so the CPU computes; "
            "pages keep Ascend's 128 tokens");
    uint64_t start = clock_us();
    struct model_options mo = {.path = o->model_path,
                               .max_tokens = chunk_tokens(o) +
                                             (uint32_t)o->max_running_requests,
                               .max_logits = logit_rows(o),
                               .quantize = s->quantize,
                               .weight_cache = o->weight_cache,
                               .pack_later = true,
                               .note = on_note,
                               .progress = on_progress,
                               .arg = s};
    rc = model_open(&s->model, s->device, &mo, why);
    if (rc) return rc;
    const struct model_config *c = model_config(s->model);
    log_info("model",
             "%s: %s, %u layers, hidden %u, vocabulary %u, %s, %zu MB, in "
             "%.2f s",
             o->model_path, c->arch, c->layers, c->hidden, c->vocab,
             dtype_name(model_weight_type(s->model)),
             model_weight_bytes(s->model) / 1000000,
             (double)(clock_us() - start) * 1e-6);
    return 0;
}

/* --- memory --- */

/* Pages that --mem-fraction-static of the available memory leaves beside the
 * weights, or as --max-total-tokens says. */
static int plan_pages(struct server *s, const struct kv_shape *shape,
                      uint32_t *pages, struct why *why)
{
    const struct server_options *o = &s->o;
    uint64_t available = s->available;
    uint64_t weights = model_weight_bytes(s->model);
    uint64_t budget = (uint64_t)((double)available * o->mem_fraction);
    uint64_t page = kv_shape_slab_bytes(shape, 1);
    uint64_t count = budget > weights ? (budget - weights) / page : 0;
    if (o->max_total_tokens) {
        uint64_t asked = (uint64_t)o->max_total_tokens / shape->page_tokens + 1;
        if (asked > count)
            return err_set(
                why, ERR_NOMEM,
                "--max-total-tokens %lld needs %.2f GB of KV cache beside "
                "%.2f GB of weights; --mem-fraction-static %g of %.2f GB "
                "available is %.2f GB",
                (long long)o->max_total_tokens, (double)(asked * page) * 1e-9,
                (double)weights * 1e-9, o->mem_fraction,
                (double)available * 1e-9, (double)budget * 1e-9);
        count = asked;
    }
    if (count < 3)
        return err_set(why, ERR_NOMEM,
                       "weights of %.2f GB leave no room for a KV cache: "
                       "--mem-fraction-static %g of %.2f GB available is "
                       "%.2f GB",
                       (double)weights * 1e-9, o->mem_fraction,
                       (double)available * 1e-9, (double)budget * 1e-9);
    if (count > UINT32_MAX / 4) count = UINT32_MAX / 4;
    *pages = (uint32_t)count;
    return 0;
}

static int open_pool(struct server *s, struct why *why)
{
    const struct model_config *c = model_config(s->model);
    struct kv_pool_options po = {.shape = {c->layers, c->kv_heads, c->head_dim,
                                           (uint32_t)s->o.page_size,
                                           kv_type_of(s->o.kv_cache_dtype, c)},
                                 .may_grow = memory_may_grow};
    int rc = plan_pages(s, &po.shape, &po.page_count, why);
    if (rc) return rc;
    s->slab_bytes = kv_shape_slab_bytes(&po.shape, po.page_count);
    if (s->xfer) {
        struct xfer_mem *mem;
        rc = xfer_alloc(s->xfer, s->slab_bytes, 0, &mem, why);
        if (rc) return rc;
        po.slab = xfer_mem_base(mem);
    } else {
        s->slab = mmap(NULL, s->slab_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (s->slab == MAP_FAILED) {
            s->slab = NULL;
            return err_set(why, ERR_NOMEM, "KV cache of %zu bytes",
                           s->slab_bytes);
        }
        po.slab = s->slab;
    }
    memory_wish(po.slab, s->slab_bytes);
    rc = kv_pool_create(&s->pool, &po, why);
    if (rc) return rc;
    log_info("kv",
             "%llu tokens: %u pages of %u, %s, %zu bytes a token, at most "
             "%.2f GB (touched as used)",
             (unsigned long long)(po.page_count - 1) * po.shape.page_tokens,
             po.page_count - 1, po.shape.page_tokens, dtype_name(po.shape.type),
             kv_shape_token_bytes(&po.shape), (double)s->slab_bytes * 1e-9);
    return 0;
}

/* --- transfer --- */

/* The address that peers are told and that transfers and ZeroMQ bind: as the
 * environment says, else --host, else, where that is every address, one of
 * this machine's own. */
static const char *advertised(struct server *s)
{
    const char *host = s->o.host_ip ? s->o.host_ip : s->o.host;
    if (strcmp(host, "0.0.0.0") != 0 && strcmp(host, "::") != 0) return host;
    if (!s->address[0]) {
        address_find(s->address, sizeof s->address);
        log_info("xfer",
                 "--host %s: peers are told %s (SGLANG_HOST_IP chooses "
                 "another)",
                 host, s->address);
    }
    return s->address;
}

/* The config store of the MemFabric-shaped backend: the first prefill starts
 * it, everybody says there where he is. Peers are dialled by their session
 * name, so a store that is away costs a warning, not the service. */
static int open_store(struct server *s, struct why *why)
{
    const char *url = s->o.store_url;
    if (!s->xfer || !url || strcmp(s->o.transfer_backend, "ascend") != 0)
        return 0;
    struct xfer_store_auth auth;
    xfer_store_auth_env(&auth);
    if (s->mode == PD_PREFILL) {
        int rc = xfer_store_serve(url, &auth, &s->store, why);
        if (rc == 0)
            log_info("store", "config store at %s", url);
        else if (rc != ERR_EXISTS)
            log_info("store", "%s is another host's to serve: %s", url,
                     why->text);
    }
    *why = (struct why){0};
    int rc = xfer_store_open(url, &auth, &s->store_client, why);
    if (!rc) {
        char key[300];
        const char *name = xfer_name(s->xfer);
        snprintf(key, sizeof key, "baton/session/%s", name);
        rc = xfer_store_announce(s->store_client, key, name, strlen(name), why);
    }
    if (!rc) rc = xfer_store_wait(s->store_client, 1000, why);
    if (rc)
        log_warn("store", "%s; peers are dialled directly", why_text(why, rc));
    *why = (struct why){0};
    return 0;
}

/* What the environment says, and over it the command line. */
static int transfer_settings(const struct server_options *o,
                             struct xfer_settings *out, struct why *why)
{
    bool ascend = strcmp(o->transfer_backend, "ascend") == 0;
    int rc = xfer_env_read(
        out, ascend ? XFER_WORLD_MEMFABRIC : XFER_WORLD_MOONCAKE, why);
    if (rc) return rc;
    struct xfer_options *x = &out->xfer;
    x->insecure = !x->token;
    for (size_t way = 0; way < XFER_WAYS; way++)
        if (strcmp(o->transfer_way, xfer_way_name(way)) == 0)
            x->via = 1u << way;
    if (!o->rdma_device) return 0;
    x->rdma_device = o->rdma_device;
    x->via = (x->via ? x->via : XFER_VIA_ALL) | XFER_VIA_RDMA;
    return 0;
}

static int open_xfer(struct server *s, struct why *why)
{
    if (s->mode == PD_NULL) return 0;
    const struct server_options *o = &s->o;
    struct xfer_settings settings;
    int rc = transfer_settings(o, &settings, why);
    if (rc) return rc;
    const struct xfer_options *x = &settings.xfer;
    const char *host = advertised(s);
    rc = xfer_env_open(&s->xfer, &settings, host, 0, why);
    if (rc) return rc;
    char ways[64] = "";
    for (size_t way = 0; way < XFER_WAYS; way++)
        if ((x->via ? x->via : XFER_VIA_ALL) & 1u << way)
            snprintf(ways + strlen(ways), sizeof ways - strlen(ways), " %s",
                     xfer_way_name(way));
    log_info("xfer", "session %s, backend %s, by the best of:%s%s",
             xfer_name(s->xfer), o->transfer_backend, ways,
             x->tls_cert ? "; TLS 1.3 on tcp" : "");
    if (x->insecure && strncmp(host, "127.", 4) != 0 &&
        strcmp(host, "localhost") != 0)
        log_warn("xfer",
                 "whoever reaches %s may write KV pages; set the same "
                 "BATON_TRANSFER_TOKEN on both sides to allow only each other",
                 xfer_name(s->xfer));
    return 0;
}

/* --- engine, node, HTTP --- */

static int open_engine(struct server *s, struct why *why)
{
    const struct server_options *o = &s->o;
    struct assets_options ao = {.model_path = o->model_path,
                                .tokenizer_path = o->tokenizer_path,
                                .chat_template = o->chat_template};
    int rc = assets_open(&s->assets, &ao, why);
    if (rc) return rc;
    s->grammars = grammars_create(assets_tokenizer(s->assets));
    const struct model_config *c = model_config(s->model);
    uint32_t context =
        o->context_length ? (uint32_t)o->context_length : c->context;
    bool cache =
        s->mode == PD_DECODE ? o->decode_radix_cache : !o->disable_radix_cache;
    struct engine_options eo = {
        .model = s->model,
        .pool = s->pool,
        .tokenizer = assets_tokenizer(s->assets),
        .max_running = (uint32_t)o->max_running_requests,
        .max_queued = (uint32_t)o->max_queued_requests,
        .chunk_tokens = chunk_tokens(o),
        .logit_rows = logit_rows(o),
        .context = context,
        .reserved_decode_tokens = (uint32_t)o->num_reserved_decode_tokens,
        .prefix_cache = cache};
    return engine_create(&s->engine, &eo, why);
}

/* Where decode finds the bootstrap server: SGLang takes --dist-init-addr's
 * host, else --host. */
static const char *bootstrap_host(struct server *s, char *buf, size_t n)
{
    if (!s->o.dist_init_addr) return advertised(s);
    snprintf(buf, n, "%s", s->o.dist_init_addr);
    char *colon = strrchr(buf, ':');
    if (colon && colon > buf && (buf[0] != '[' || colon[-1] == ']')) *colon = 0;
    return buf;
}

static int open_node(struct server *s, struct why *why)
{
    const struct server_options *o = &s->o;
    char host[256];
    struct pd_options po = {
        .mode = s->mode,
        .loop = s->loop,
        .engine = s->engine,
        .pool = s->pool,
        .xfer = s->xfer,
        .host = advertised(s),
        .bootstrap_bind = o->host,
        .bootstrap_port = (uint16_t)o->bootstrap_port,
        .bootstrap_host = bootstrap_host(s, host, sizeof host),
        .fingerprint = model_fingerprint(s->model),
        .kv_cache_dtype = o->kv_cache_dtype,
        .max_requests = ROOMS / 2,
        .bootstrap_timeout_ms = (uint32_t)o->bootstrap_timeout_ms,
        .waiting_timeout_ms = (uint32_t)o->waiting_timeout_ms,
        .heartbeat_interval_ms = (uint32_t)o->heartbeat_interval_ms,
        .heartbeat_max_failure = (uint32_t)o->heartbeat_max_failure};
    return pd_node_open(&s->node, &po, why);
}

static int open_serve(struct server *s, struct why *why)
{
    const struct server_options *o = &s->o;
    const struct kv_shape *shape = kv_pool_shape(s->pool);
    s->info = server_options_json(o);
    struct serve_options so = {
        .loop = s->loop,
        .node = s->node,
        .engine = s->engine,
        .assets = s->assets,
        .grammars = s->grammars,
        .config = model_config(s->model),
        .host = o->host,
        .port = (int)o->port,
        .api_key = o->api_key,
        .reasoning =
            o->reasoning_parser ? reasoning_find(o->reasoning_parser) : NULL,
        .toolcall =
            o->tool_call_parser ? toolcall_find(o->tool_call_parser) : NULL,
        .model_path = o->model_path,
        .tokenizer_path = o->tokenizer_path,
        .served_model_name = o->served_model_name,
        .server_info = s->info,
        .version = BATON_VERSION,
        .context = engine_get_options(s->engine)->context,
        .max_total_tokens =
            (kv_pool_page_count(s->pool) - 1) * shape->page_tokens,
        .weight_bytes = model_weight_bytes(s->model),
        .kv_bytes = s->slab_bytes,
        .stream_interval = (uint32_t)o->stream_interval,
        .stream_output = o->stream_output,
        .enable_cache_report = o->enable_cache_report,
        .enable_metrics = true,
        .model_sampling = strcmp(o->sampling_defaults, "model") == 0,
        .plain_health = o->plain_health,
        .health_timeout_ms = (uint32_t)o->health_timeout_ms};
    int rc = serve_open(&s->serve, &so, why);
    if (rc) return rc;
    log_info("serve", "http://%s:%d, up after %.2f s", o->host,
             serve_port(s->serve), (double)(clock_us() - s->started_us) * 1e-6);
    model_save_cache(s->model);
    return 0;
}

/* --- life --- */

static void on_drained(void *arg)
{
    struct server *s = arg;
    loop_stop(s->loop);
}

static void drain(void *arg)
{
    struct server *s = arg;
    serve_drain(s->serve, 5000, on_drained, s);
}

static void on_signal(void *arg, int signal)
{
    struct server *s = arg;
    if (s->stopping || !s->serve) {
        loop_stop(s->loop);
        return;
    }
    s->stopping = true;
    log_info("serve", "signal %d: finishing live requests, 5 s at most",
             signal);
    if (s->join)
        join_leave(s->join, drain, s);
    else
        drain(s);
}

/* Tells the router of --pdlb-url that this server takes requests. */
static int join_router(struct server *s, struct why *why)
{
    const struct server_options *o = &s->o;
    const char *host = advertised(s);
    bool bare = strchr(host, ':') && host[0] != '[';
    char url[320];
    if (!o->pdlb_url) return 0;
    snprintf(url, sizeof url, "http://%s%s%s:%d", bare ? "[" : "", host,
             bare ? "]" : "", serve_port(s->serve));
    const struct join_options jo = {.loop = s->loop,
                                    .router = o->pdlb_url,
                                    .api_key = o->api_key,
                                    .url = url,
                                    .prefill = s->mode == PD_PREFILL,
                                    .bootstrap_port = (int)o->bootstrap_port};
    return join_open(&s->join, &jo, why);
}

static void on_warm(void *arg, int rc)
{
    struct server *s = arg;
    struct why why = {0};
    if (s->stopping) return;
    if (rc == 0) rc = join_router(s, &why);
    if (rc == 0) return;
    if (why.text[0]) log_error("join", "%s", why.text);
    s->failed = true;
    loop_stop(s->loop);
}

static int server_open(struct server *s, struct why *why)
{
    static const int signals[] = {SIGINT, SIGTERM};
    static int (*const steps[])(struct server *, struct why *) = {
        open_xfer,   open_model, open_store, open_pool,
        open_engine, open_node,  open_serve};
    s->available = memory_available();
    int rc = model_quantize_parse(&s->quantize, s->o.quantization, why);
    if (!rc) rc = check_model(s, why);
    if (!rc) rc = check_ports(s, why);
    if (!rc) rc = loop_create(&s->loop, why);
    if (!rc) rc = loop_signals(s->loop, signals, 2, on_signal, s, why);
    for (size_t i = 0; i < sizeof steps / sizeof *steps && !rc; i++)
        rc = steps[i](s, why);
    return rc;
}

/* Upside down: what may still call goes before what it calls. */
static void server_close(struct server *s)
{
    join_close(s->join);
    pd_node_close(s->node);
    serve_close(s->serve);
    engine_destroy(s->engine);
    grammars_destroy(s->grammars);
    assets_close(s->assets);
    model_close(s->model);
    kv_pool_destroy(s->pool);
    xfer_store_disconnect(s->store_client);
    xfer_store_stop(s->store);
    xfer_close(s->xfer);
    if (s->slab) munmap(s->slab, s->slab_bytes);
    device_close(s->device);
    loop_destroy(s->loop);
    mem_free(s->info);
}

int launch_server_main(int argc, char **argv)
{
    static struct server s;
    struct why why = {0};
    s.started_us = clock_us();
    mem_large_apart();
    int rc = server_options_read(&s.o, argc, argv, &why);
    if (rc == 1) return 0;
    if (rc) {
        fprintf(stderr, "baton launch_server: %s\n", why_text(&why, rc));
        return 2;
    }
    bool prefill = strcmp(s.o.mode, "prefill") == 0;
    bool decode = strcmp(s.o.mode, "decode") == 0;
    s.mode = prefill ? PD_PREFILL : decode ? PD_DECODE : PD_NULL;
    rc = server_open(&s, &why);
    if (rc) {
        log_error("start", "%s", why_text(&why, rc));
    } else {
        if (s.o.skip_warmup) {
            serve_set_ready(s.serve);
            on_warm(&s, 0);
        } else {
            serve_warm_up(s.serve, on_warm, &s);
        }
        loop_run(s.loop);
        log_info("serve", "ended");
    }
    server_close(&s);
    return rc || s.failed ? 1 : 0;
}
