/* bin/doctor.c - baton doctor: what this machine can do, and what would bite.
 *
 * Each check asks the part that a server would use and says what it found in
 * one line: ok; a note, where something is slower or missing that not everybody
 * needs; a problem, where a server would not start or not work. Nothing is
 * measured and nothing is kept. */
#include "base/log.h"
#include "base/mem.h"
#include "base/opt.h"
#include "bin/address.h"
#include "bin/commands.h"
#include "base/cores.h"
#include "bin/kv_type.h"
#include "bin/memory.h"
#include "http/client.h"
#include "http/server.h"
#include "json/json.h"
#include "model/file.h"
#include "model/model.h"
#include "serve/assets.h"
#include "text/tokenizer.h"
#include "xfer/env.h"
#include "xfer/store.h"
#include "xfer/xfer.h"

#include <dirent.h>
#include <dlfcn.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct doctor {
    const char *model_path, *quantization, *host, *store_url;
    int64_t port, bootstrap_port;
    double mem_fraction;
    bool json;
    json_t *lines; /* of the report */
    int problems;
};

#define AT(f) offsetof(struct doctor, f)
static const struct opt options[] = {
    {"model-path|model", OPT_STRING, AT(model_path),
     .help = "a model: is it there, is it served here, does it fit"},
    {"quantization", OPT_STRING, AT(quantization), "none",
     .help = "as launch_server's"},
    {"mem-fraction-static", OPT_DOUBLE, AT(mem_fraction), "0.8", 0.01, 0.99,
     .help = "as launch_server's"},
    {"host", OPT_STRING, AT(host), "127.0.0.1", .help = "of the ports below"},
    {"port", OPT_INT, AT(port), "0", 0, 65535, .help = "is it free?"},
    {"disaggregation-bootstrap-port|bootstrap-port", OPT_INT,
     AT(bootstrap_port), "0", 0, 65535, .help = "likewise"},
    {"store-url", OPT_STRING, AT(store_url),
     .help = "a config store; ASCEND_MF_STORE_URL if not given"},
    {"json", OPT_FLAG, AT(json), .help = "one JSON object instead of lines"},
};
enum { OPTIONS = sizeof options / sizeof *options };

enum state { OK, NOTE, PROBLEM };
static const char *const state_names[] = {"ok", "note", "problem"};

/* A line of the report; advice may be NULL. */
static void say(struct doctor *d, enum state state, const char *what,
                const char *advice, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
static void say(struct doctor *d, enum state state, const char *what,
                const char *advice, const char *fmt, ...)
{
    char found[700];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(found, sizeof found, fmt, ap);
    va_end(ap);
    d->problems += state == PROBLEM;
    json_array_append_new(d->lines, json_pack("{ss ss ss ss?}", "what", what,
                                              "state", state_names[state],
                                              "found", found, "do", advice));
}

/* The first line of a file; "": there is none. */
static const char *read_line(const char *path, char *out, size_t n)
{
    FILE *f = fopen(path, "r");
    *out = 0;
    if (f && !fgets(out, (int)n, f)) *out = 0;
    if (f) fclose(f);
    out[strcspn(out, "\n")] = 0;
    return out;
}

/* --- processor and memory --- */

static void cpu_name(char *out, size_t n)
{
    FILE *f = fopen("/proc/cpuinfo", "r");
    char line[256];
    snprintf(out, n, "a processor");
    while (f && fgets(line, sizeof line, f)) {
        const char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !value) continue;
        snprintf(out, n, "%.*s", (int)strcspn(value + 2, "\n"), value + 2);
        break;
    }
    if (f) fclose(f);
}

static void check_cpu(struct doctor *d)
{
    char name[128];
    struct device *dev;
    struct why why = {0};
    cpu_name(name, sizeof name);
    int rc = device_open(&dev, &(struct device_options){.threads = 1}, &why);
    if (rc) {
        say(d, PROBLEM, "processor", NULL, "%s: %s", name, why_text(&why, rc));
        return;
    }
    char kernels[64];
    const char *text = device_describe(dev);
    size_t from = strncmp(text, "cpu ", 4) == 0 ? 4 : 0;
    snprintf(kernels, sizeof kernels, "%.*s", (int)strcspn(text + from, ",; "),
             text + from);
    bool slow = strcmp(kernels, "generic") == 0;
    say(d, slow ? NOTE : OK, "processor",
        slow ? "expect a small part of the usual speed: kernels want AVX2 or "
               "NEON"
             : NULL,
        "%s, kernels %s", name, kernels);
#if defined(__x86_64__)
    const char *refused = strstr(text, "AMX");
    if (refused)
        say(d, NOTE, "AMX",
            "a kernel (Linux 5.16 or newer) and a hypervisor that let "
            "processes use tiles make prompts faster",
            "%s", refused);
    else
        say(d, OK, "AMX", NULL, "%s",
            strncmp(kernels, "amx", 3) == 0 ? "used" : "not of this processor");
#endif
    device_close(dev);
}

static void check_cores(struct doctor *d)
{
    struct cores c;
    cores_read(&c);
    char quota[64] = "no quota";
    if (c.quota > 0) snprintf(quota, sizeof quota, "quota %.2f", c.quota);
    bool less = c.usable < c.online;
    bool part = c.quota > 0 && c.quota < c.usable;
    say(d, part ? NOTE : OK, "cores",
        part ? "a worker is stopped when the quota is used up, and the others "
               "wait for it: --threads below the quota is smoother"
             : NULL,
        "%d compute workers by default: %d cores online, bound to %d, %s%s",
        c.usable, c.online, c.bound, quota,
        less ? " (taskset, cpuset or control group)" : "");
}

static void check_memory(struct doctor *d)
{
    double available = (double)memory_available() * 1e-9;
    double total = (double)memory_total() * 1e-9;
    bool little = available < 1;
    say(d, little ? NOTE : OK, "memory",
        little ? "free some, or take a smaller model" : NULL,
        "%.1f GB available of %.1f", available, total);
    char line[128];
    if (strcmp(read_line("/proc/sys/vm/overcommit_memory", line, sizeof line),
               "2") == 0)
        say(d, NOTE, "overcommit",
            "give --max-total-tokens, so that the KV cache asks for no more "
            "than it will use",
            "vm.overcommit_memory is 2: reserving address space counts");
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        say(d, NOTE, "address space", "ulimit -v unlimited",
            "limited to %.1f GB, files that are mapped included",
            (double)limit.rlim_cur * 1e-9);
    read_line("/sys/kernel/mm/transparent_hugepage/enabled", line, sizeof line);
    bool wished = strstr(line, "[madvise]") || strstr(line, "[always]");
    say(d, wished ? OK : NOTE, "huge pages",
        wished ? NULL
               : "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled "
                 "makes packing and reading weights faster",
        "%s", *line ? line : "this kernel has no transparent ones");
    read_line("/sys/kernel/mm/transparent_hugepage/shmem_enabled", line,
              sizeof line);
    bool never = strstr(line, "[never]") || strstr(line, "[deny]") || !*line;
    say(d, never ? NOTE : OK, "huge pages, shared",
        never ? "echo advise > /sys/kernel/mm/transparent_hugepage/"
                "shmem_enabled makes decode behind long prompts faster where "
                "a KV cache is shared with a peer"
              : NULL,
        "%s", *line ? line : "this kernel has no transparent ones");
}

static void check_limits(struct doctor *d)
{
    struct rlimit files = {0};
    getrlimit(RLIMIT_NOFILE, &files);
    bool few = files.rlim_cur < 4096;
    say(d, few ? NOTE : OK, "open files",
        few ? "ulimit -n 65536: every connection of a client and of a peer "
              "takes one"
            : NULL,
        "%llu at a time", (unsigned long long)files.rlim_cur);
}

/* --- transfers --- */

/* What the other process is told, and what it answers. */
struct target {
    char name[XFER_NAME_MAX + 1];
    uint64_t mapped, plain; /* addresses */
};
struct outcome {
    int rc;
    int mapped_way, plain_way; /* of XFER_WAYS; -1: none */
    char text[200];
};
enum { TRY_BYTES = 1 << 16, TRY_MS = 3000 };

/* The way that took bytes since the counters were was. */
static int way_since(struct xfer *x, const struct xfer_stats *was)
{
    struct xfer_stats now;
    xfer_stats_get(x, &now);
    for (int way = 0; way < XFER_WAYS; way++)
        if (now.way[way].bytes > was->way[way].bytes) return way;
    return -1;
}

static int write_to(struct xfer *x, struct xfer_peer *peer, void *from,
                    uint64_t to, int *way, struct why *why)
{
    struct xfer_stats was;
    xfer_stats_get(x, &was);
    const struct xfer_op op = {
        .kind = XFER_WRITE, .local = from, .remote = to, .bytes = TRY_BYTES};
    int rc = xfer_transfer(peer, &op, 1, TRY_MS, why);
    *way = rc ? -1 : way_since(x, &was);
    return rc;
}

/* The other process: writes into ours, as a prefill server does into decode.
 * It is no ancestor of ours, which is what ptrace's rules look at. */
static void other_process(int fd)
{
    struct target to;
    struct outcome out = {.mapped_way = -1, .plain_way = -1};
    struct why why = {0};
    struct xfer *x = NULL;
    struct xfer_mem *mem;
    struct xfer_peer *peer = NULL;
    if (read(fd, &to, sizeof to) != sizeof to) _exit(1);
    int rc = xfer_open(&x, NULL, &why);
    if (!rc) rc = xfer_alloc(x, TRY_BYTES, 0, &mem, &why);
    if (!rc) rc = xfer_peer_open(x, to.name, &peer, &why);
    if (!rc)
        rc = write_to(x, peer, xfer_mem_base(mem), to.mapped, &out.mapped_way,
                      &why);
    if (!rc)
        rc = write_to(x, peer, xfer_mem_base(mem), to.plain, &out.plain_way,
                      &why);
    out.rc = rc;
    snprintf(out.text, sizeof out.text, "%.199s", rc ? why_text(&why, rc) : "");
    ssize_t n = write(fd, &out, sizeof out);
    _exit(n == sizeof out ? 0 : 1);
}

/* Our part: memory for it to write into. */
static int be_written(int fd, struct outcome *out, struct why *why)
{
    struct target told = {.mapped = 0};
    struct xfer *x = NULL;
    struct xfer_mem *mem, *plain;
    void *own = mem_must(TRY_BYTES, 1);
    int rc = xfer_open(&x, NULL, why);
    if (!rc) rc = xfer_alloc(x, TRY_BYTES, 0, &mem, why);
    if (!rc) rc = xfer_register(x, own, TRY_BYTES, "cpu", 0, &plain, why);
    if (!rc) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        snprintf(told.name, sizeof told.name, "%s", xfer_name(x));
        told.mapped = (uintptr_t)xfer_mem_base(mem);
        told.plain = (uintptr_t)own;
        if (write(fd, &told, sizeof told) != sizeof told ||
            poll(&p, 1, 2 * TRY_MS) != 1 ||
            read(fd, out, sizeof *out) != sizeof *out)
            rc = err_set(why, ERR_PEER, "the other process did not answer");
    }
    xfer_close(x);
    mem_free(own);
    return rc;
}

static void say_ways(struct doctor *d, const struct outcome *o)
{
    char scope[64];
    if (o->mapped_way == 1)
        say(d, OK, "shared memory", NULL,
            "a memfd of another process is mapped and written: KV goes by "
            "memcpy between servers of this host");
    else
        say(d, NOTE, "shared memory",
            "same user and pid namespace for both servers, /proc mounted, "
            "memfd_create allowed (seccomp)",
            "KV between servers of this host goes by %s: a memfd of another "
            "process could not be mapped",
            xfer_way_name((size_t)o->mapped_way));
    read_line("/proc/sys/kernel/yama/ptrace_scope", scope, sizeof scope);
    if (o->plain_way == 2)
        say(d, OK, "process_vm_writev", NULL, "permitted (ptrace_scope %s)",
            *scope ? scope : "absent");
    else
        say(d, NOTE, "process_vm_writev",
            "only memory that others registered themselves goes that way "
            "(Mooncake and MemFabric programs): kernel.yama.ptrace_scope=0 or "
            "CAP_SYS_PTRACE for them",
            "not permitted (ptrace_scope %s): %s instead",
            *scope ? scope : "absent", xfer_way_name((size_t)o->plain_way));
}

/* Before any thread of ours: the other process is a fork. */
static void check_ways(struct doctor *d)
{
    int pair[2];
    struct outcome out;
    struct why why = {0};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
        say(d, PROBLEM, "transfers", NULL, "no unix sockets");
        return;
    }
    pid_t pid = fork();
    if (pid == 0) {
        close(pair[0]);
        other_process(pair[1]);
    }
    close(pair[1]);
    int rc = pid > 0 ? be_written(pair[0], &out, &why)
                     : err_set(&why, ERR_IO, "no second process");
    close(pair[0]);
    if (pid > 0) {
        if (rc) kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    if (rc || out.rc)
        say(d, PROBLEM, "transfers",
            "two servers of this host could not hand over KV", "%s",
            rc ? why_text(&why, rc) : out.text);
    else
        say_ways(d, &out);
}

/* What the environment asks for, opened as a server does. */
static void check_environment(struct doctor *d)
{
    struct xfer_settings settings;
    struct xfer *x = NULL;
    struct why why = {0};
    const char *host = getenv("SGLANG_HOST_IP");
    char found[64];
    if (!host) host = getenv("HOST_IP");
    if (!host) {
        address_find(found, sizeof found);
        host = found;
    }
    enum xfer_world world = getenv("ASCEND_MF_STORE_URL") ? XFER_WORLD_MEMFABRIC
                                                          : XFER_WORLD_MOONCAKE;
    int rc = xfer_env_read(&settings, world, &why);
    settings.xfer.insecure = !settings.xfer.token;
    if (!rc) rc = xfer_env_open(&x, &settings, host, 0, &why);
    if (rc)
        say(d, PROBLEM, "transfer engine",
            "the environment (docs/xfer.md) or SGLANG_HOST_IP asks for what "
            "cannot be had here",
            "%s", why_text(&why, rc));
    else
        say(d, OK, "transfer engine", NULL, "peers would be told %s%s%s",
            xfer_name(x), settings.xfer.token ? ", with a token" : "",
            settings.xfer.tls_cert ? ", TLS 1.3 on tcp" : "");
    xfer_close(x);
}

static void check_fabric(struct doctor *d, unsigned via, const char *what,
                         const char *advice)
{
    struct xfer *x = NULL;
    struct why why = {0};
    struct rlimit lock = {0};
    const struct xfer_options o = {.via = XFER_VIA_ALL | via};
    int rc = xfer_open(&x, &o, &why);
    xfer_close(x);
    if (rc) {
        say(d, NOTE, what, advice, "%s", why_text(&why, rc));
        return;
    }
    getrlimit(RLIMIT_MEMLOCK, &lock);
    bool less = via == XFER_VIA_RDMA && lock.rlim_cur < memory_total();
    say(d, less ? NOTE : OK, what,
        less ? "ulimit -l unlimited: what a card reads and writes is locked"
             : NULL,
        "it opens%s",
        less ? ", but RLIMIT_MEMLOCK is less than the memory" : "");
}

/* --- accelerators --- */

static void check_accelerator(struct doctor *d, const char *what,
                              const char *node, const char *library)
{
    void *lib = dlopen(library, RTLD_LAZY | RTLD_LOCAL);
    bool there = access(node, F_OK) == 0;
    if (there || lib)
        say(d, NOTE, what, "this build computes on the processor",
            "%s%s%s, which this build does not use", there ? node : "",
            there && lib ? " and " : "", lib ? library : "");
    else
        say(d, OK, what, NULL, "none (no %s, no %s)", node, library);
    if (lib) dlclose(lib);
}

/* --- others: asked, listened to, the store --- */

static void check_port(struct doctor *d, const char *host, int64_t port)
{
    struct why why = {0};
    char what[32];
    snprintf(what, sizeof what, port ? "port %d" : "loopback", (int)port);
    int rc = http_port_check(host, (int)port, &why);
    if (rc)
        say(d, PROBLEM, what, "free it, or take another", "%s",
            why_text(&why, rc));
    else
        say(d, OK, what, NULL, port ? "free at %s" : "%s can be listened at",
            host);
}

static void check_client(struct doctor *d)
{
    struct why why = {0};
    int rc = http_client_check(&why);
    if (rc)
        say(d, PROBLEM, "HTTP client",
            "libcurl4: a router and servers of pairs ask others by it", "%s",
            why_text(&why, rc));
    else
        say(d, OK, "HTTP client", NULL, "libcurl opens");
}

static void check_store(struct doctor *d)
{
    const char *url =
        d->store_url ? d->store_url : getenv("ASCEND_MF_STORE_URL");
    if (!url) return;
    struct xfer_store_auth auth;
    struct xfer_store_client *client = NULL;
    struct why why = {0};
    xfer_store_auth_env(&auth);
    int rc = xfer_store_connect(url, &auth, 500, &client, &why);
    if (rc)
        say(d, rc == ERR_PEER ? NOTE : PROBLEM, "config store",
            rc == ERR_PEER ? "a prefill server with this url starts it, or "
                             "baton store; without it peers are dialled "
                             "directly"
                           : "the same url, BATON_TRANSFER_TOKEN and "
                             "certificates on both sides",
            "%s", why_text(&why, rc));
    else
        say(d, OK, "config store", NULL, "%s answers", url);
    xfer_store_disconnect(client);
}

/* --- the model --- */

/* Adds what of a file is in the page cache. */
static void file_cached(const char *path, size_t *cached, size_t *all)
{
    struct model_file file;
    if (model_file_open(&file, path, NULL)) return;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t pages = (file.size + page - 1) / page, in = 0;
    unsigned char *vec = mem_try(pages, 1, 0);
    if (vec && mincore((void *)(uintptr_t)file.bytes, file.size, vec) == 0)
        for (size_t i = 0; i < pages; i++)
            in += vec[i] & 1;
    mem_free(vec);
    *cached += in * page < file.size ? in * page : file.size;
    *all += file.size;
    model_file_close(&file);
}

static void model_cached(const char *path, size_t *cached, size_t *all)
{
    DIR *dir = opendir(path);
    if (!dir) {
        file_cached(path, cached, all);
        return;
    }
    for (struct dirent *e; (e = readdir(dir));) {
        char file[4096];
        const char *end = strrchr(e->d_name, '.');
        if (!end || strcmp(end, ".safetensors") != 0) continue;
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        file_cached(file, cached, all);
    }
    closedir(dir);
}

static void check_size(struct doctor *d, const struct model_survey *s)
{
    double budget = (double)memory_available() * d->mem_fraction;
    const struct model_config *c = &s->config;
    const struct kv_shape kv = {c->layers, c->kv_heads, c->head_dim, 1,
                                kv_type_of("auto", c)};
    double left = budget - (double)s->weight_bytes;
    double tokens = left / (double)kv_shape_token_bytes(&kv);
    if (left <= 0)
        say(d, PROBLEM, "model's memory",
            "a smaller model or --quantization int4, more memory, or a larger "
            "--mem-fraction-static",
            "%.2f GB of weights, %.2f GB are for them and the KV cache "
            "(--mem-fraction-static %g)",
            (double)s->weight_bytes * 1e-9, budget * 1e-9, d->mem_fraction);
    else
        say(d, tokens < c->context ? NOTE : OK, "model's memory",
            tokens < c->context ? "--kv-cache-dtype int8 holds nearly twice "
                                  "as many"
                                : NULL,
            "%.2f GB of weights, room for %.0f tokens of KV in %s (its "
            "context: %u)",
            (double)s->weight_bytes * 1e-9, tokens, dtype_name(kv.type),
            c->context);
}

static void check_model(struct doctor *d)
{
    struct why why = {0};
    struct model_survey survey;
    struct model_options o = {.path = d->model_path};
    size_t cached = 0, all = 0;
    if (!o.path) return;
    int rc = model_quantize_parse(&o.quantize, d->quantization, &why);
    if (!rc) rc = model_survey(&survey, &o, &why);
    if (rc) {
        say(d, PROBLEM, "model",
            "docs/models/ says which models and forms of weights are served",
            "%s", why_text(&why, rc));
        return;
    }
    say(d, OK, "model", NULL, "%s: %s, %u layers", o.path, survey.config.arch,
        survey.config.layers);
    check_size(d, &survey);
    model_cached(o.path, &cached, &all);
    bool cold = cached < all / 2;
    say(d, cold ? NOTE : OK, "model's files",
        cold ? "the first start reads them from the disk" : NULL,
        "%.2f GB, %.0f %% of it in the page cache", (double)all * 1e-9,
        all ? 100.0 * (double)cached / (double)all : 100.0);
    struct assets *assets;
    const struct assets_options ao = {.model_path = o.path};
    rc = assets_open(&assets, &ao, &why);
    if (rc) {
        say(d, PROBLEM, "tokenizer",
            "launch_server's --tokenizer-path and --chat-template name others",
            "%s", why_text(&why, rc));
        return;
    }
    say(d, assets_has_chat(assets) ? OK : NOTE, "tokenizer",
        assets_has_chat(assets)
            ? NULL
            : "for /v1/chat/completions give launch_server --chat-template",
        "%s, %zu tokens, %s", assets_tokenizer_source(assets),
        tokenizer_vocab(assets_tokenizer(assets)),
        assets_has_chat(assets) ? "chat template" : "no chat template");
    assets_close(assets);
}

/* --- all --- */

static void print_lines(const struct doctor *d)
{
    size_t i;
    json_t *line;
    json_array_foreach (d->lines, i, line) {
        const char *advice = json_string_value(json_object_get(line, "do"));
        printf("%-8s %-18s %s\n",
               json_string_value(json_object_get(line, "state")),
               json_string_value(json_object_get(line, "what")),
               json_string_value(json_object_get(line, "found")));
        if (advice) printf("%-27s -> %s\n", "", advice);
    }
    if (d->problems)
        printf("%d problem%s\n", d->problems, d->problems > 1 ? "s" : "");
    else
        printf("no problems\n");
}

int doctor_main(int argc, char **argv)
{
    struct doctor d = {0};
    struct why why = {0};
    int rc = opt_parse(options, OPTIONS, &d, argc, argv, NULL, NULL, &why);
    if (rc == 1) {
        opt_help(options, OPTIONS,
                 "baton doctor [--model-path MODEL] [--port N ...] [--json]");
        return 0;
    }
    if (rc) {
        fprintf(stderr, "baton doctor: %s\n", why_text(&why, rc));
        return 2;
    }
    log_init(LOG_ERROR, "doctor");
    d.lines = json_array();
    check_ways(&d); /* first: it forks */
    check_environment(&d);
    check_fabric(&d, XFER_VIA_RDMA, "RDMA",
                 "libibverbs1 and a card, for KV between hosts by RDMA "
                 "(--disaggregation-ib-device); else it goes by TCP");
    check_fabric(&d, XFER_VIA_UCX, "UCX",
                 "libucx0, for KV between hosts by UCX; else it goes by TCP");
    check_cpu(&d);
    check_cores(&d);
    check_memory(&d);
    check_limits(&d);
    check_accelerator(&d, "NVIDIA GPU", "/dev/nvidiactl", "libcuda.so.1");
    check_accelerator(&d, "Ascend NPU", "/dev/davinci_manager",
                      "libascendcl.so");
    check_client(&d);
    check_port(&d, "127.0.0.1", 0);
    if (d.port) check_port(&d, d.host, d.port);
    if (d.bootstrap_port) check_port(&d, d.host, d.bootstrap_port);
    check_store(&d);
    check_model(&d);
    if (d.json) {
        json_t *all =
            json_pack("{so si}", "checks", d.lines, "problems", d.problems);
        json_dumpf(all, stdout, JSON_INDENT(1));
        putchar('\n');
        json_decref(all);
    } else {
        print_lines(&d);
        json_decref(d.lines);
    }
    return d.problems ? 1 : 0;
}
