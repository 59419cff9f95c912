#include "bin/bench_rivals.h"

#include "base/buf.h"
#include "base/clock.h"
#include "json/json.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LIMIT_MS = 20000, TRIES = 40, TRY_MS = 50, OUTPUT_MAX = 1 << 20 };

/* ---- children ---- */

struct child {
    pid_t pid;
    int in, out; /* its stdin, its stdout */
};

/* ERR_NOT_FOUND: there is no such program. */
static int child_start(struct child *c, const char *const argv[],
                       struct why *why)
{
    int in[2], out[2], failed[2];
    *c = (struct child){.in = -1, .out = -1};
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) ||
        pipe2(failed, O_CLOEXEC))
        return err_sys(why, ERR_IO, errno, "pipe");
    c->pid = fork();
    if (c->pid == 0) {
        int null = open("/dev/null", O_WRONLY);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(in[0], 0);
        dup2(out[1], 1);
        dup2(null, 2);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        if (write(failed[1], "x", 1) != 1) _exit(126);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    close(failed[1]);
    char byte;
    bool none = c->pid < 0 || read(failed[0], &byte, 1) == 1;
    close(failed[0]);
    c->in = in[1];
    c->out = out[0];
    return none ? err_set(why, ERR_NOT_FOUND, "%s is not installed", argv[0])
                : 0;
}

/* Reads its output until until is in it or it ends. */
static int child_read(struct child *c, struct buf *text, const char *until)
{
    uint64_t deadline = clock_ms() + LIMIT_MS;
    buf_puts(text, ""); /* never NULL */
    for (;;) {
        if (until && text->len && strstr(text->data, until)) return 0;
        uint64_t now = clock_ms();
        struct pollfd pfd = {.fd = c->out, .events = POLLIN};
        if (now >= deadline || poll(&pfd, 1, (int)(deadline - now)) <= 0)
            return ERR_TIMEOUT;
        char part[4096];
        ssize_t n = read(c->out, part, sizeof part);
        if (n > 0) buf_add(text, part, (size_t)n);
        if (text->failed) return ERR_NOMEM;
        if (n <= 0) return until ? ERR_PEER : 0;
    }
}

/* Ends it; true when it had ended well by itself. */
static bool child_end(struct child *c, bool wait_for_it)
{
    int status = -1;
    if (c->pid > 0) {
        if (!wait_for_it) kill(c->pid, SIGKILL);
        waitpid(c->pid, &status, 0);
    }
    if (c->in >= 0) close(c->in);
    if (c->out >= 0) close(c->out);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* A port that was free a moment ago. */
static void free_port(char out[8])
{
    struct sockaddr_in in = {.sin_family = AF_INET,
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (!bind(fd, (struct sockaddr *)&in, n))
        getsockname(fd, (struct sockaddr *)&in, &n);
    close(fd);
    snprintf(out, 8, "%d", ntohs(in.sin_port));
}

/* Runs server, then client until it finds the server; its output to text. */
static int pair_run(const char *const server[], const char *const client[],
                    struct buf *text, struct why *why)
{
    struct child s, c;
    struct pollfd none = {.fd = -1};
    int rc = child_start(&s, server, why);
    for (int i = 0; !rc; i++) {
        poll(&none, 0, TRY_MS);
        buf_reset(text);
        rc = child_start(&c, client, why);
        if (!rc) rc = child_read(&c, text, NULL);
        if (child_end(&c, rc == 0) || rc) break;
        if (i == TRIES) rc = err_set(why, ERR_PEER, "%s failed", client[0]);
    }
    child_end(&s, false);
    return rc;
}

/* ---- iperf3 ---- */

static int iperf3_run(const char *block, double *out, struct why *why)
{
    char port[8];
    struct buf text;
    json_t *all = NULL;
    free_port(port);
    const char *server[] = {"iperf3",    "-s", "-1", "-B",
                            "127.0.0.1", "-p", port, NULL};
    const char *client[] = {"iperf3", "-c", "127.0.0.1", "-p", port, "-t",
                            "1",      "-J", "-l",        NULL, NULL};
    client[9] = block;
    buf_init(&text, OUTPUT_MAX);
    int rc = pair_run(server, client, &text, why);
    if (!rc) rc = json_parse(&all, text.data, text.len, why);
    const json_t *end = json_object_get(all, "end");
    const json_t *sum = json_object_get(end, "sum_received");
    if (!rc) {
        *out = json_number_value(json_object_get(sum, "bits_per_second")) / 8e9;
        if (*out <= 0) rc = err_set(why, ERR_FORMAT, "iperf3 gave no rate");
    }
    json_decref(all);
    buf_fini(&text);
    return rc;
}

static int iperf3_default(const char *python, double *out, struct why *why)
{
    (void)python;
    return iperf3_run("128K", out, why);
}

static int iperf3_large(const char *python, double *out, struct why *why)
{
    (void)python;
    return iperf3_run("1M", out, why);
}

/* ---- ucx_perftest ---- */

/* Column of the last line that begins with a number (0: the first). */
static int ucx_run(const char *test, const char *size, const char *count,
                   int column, double *out, struct why *why)
{
    char port[8];
    struct buf text;
    free_port(port);
    const char *server[] = {
        "env", "UCX_TLS=tcp", "UCX_NET_DEVICES=lo", "ucx_perftest", "-p",
        port,  NULL};
    const char *client[] = {"env",          "UCX_TLS=tcp", "UCX_NET_DEVICES=lo",
                            "ucx_perftest", "-p",          port,
                            "127.0.0.1",    "-f",          "-w",
                            "20",           "-t",          test,
                            "-s",           NULL,          "-n",
                            NULL,           NULL};
    client[13] = size;
    client[15] = count;
    struct child probe;
    int rc =
        child_start(&probe, (const char *[]){"ucx_perftest", "-h", NULL}, why);
    child_end(&probe, rc == 0);
    buf_init(&text, OUTPUT_MAX);
    if (!rc) rc = pair_run(server, client, &text, why);
    double values[8] = {0};
    bool found = false;
    for (char *line = rc ? NULL : strtok(text.data, "\n"); line;
         line = strtok(NULL, "\n"))
        found |= sscanf(line, "%lf %lf %lf %lf %lf %lf", values, values + 1,
                        values + 2, values + 3, values + 4, values + 5) == 6;
    if (!rc && !found)
        rc = err_set(why, ERR_FORMAT, "ucx_perftest printed no figures");
    *out = values[column];
    buf_fini(&text);
    return rc;
}

static int ucx_put(const char *python, double *out, struct why *why)
{
    (void)python;
    int rc = ucx_run("ucp_put_bw", "1048576", "50", 5, out, why);
    *out *= 1048576e-9; /* its MB are MiB */
    return rc;
}

static int ucx_latency(const char *python, double *out, struct why *why)
{
    (void)python;
    return ucx_run("ucp_put_lat", "4096", "1000", 1, out, why);
}

/* ---- the stock mooncake wheel, over TCP ---- */

/* One write at a time, or DEPTH of them as a batch that is waited for, or DEPTH
 * that are submitted one by one and asked for after. */
static const char mooncake_script[] =
    "import ctypes, sys, time\n"
    "from mooncake.engine import TransferEngine\n"
    "size, pool, count = int(sys.argv[1]), 256 << 20, int(sys.argv[2])\n"
    "way, depth = sys.argv[3], 8\n"
    "engine = TransferEngine()\n"
    "assert engine.initialize('127.0.0.1', 'P2PHANDSHAKE', 'tcp', '') == 0\n"
    "memory = ctypes.create_string_buffer(pool)\n"
    "at = ctypes.addressof(memory)\n"
    "ctypes.memset(at, 1, pool)\n"
    "assert engine.register_memory(at, pool) == 0\n"
    "if len(sys.argv) == 4:\n"
    "    print('ready', engine.get_rpc_port(), at, '.', flush=True)\n"
    "    sys.stdin.read()\n"
    "    sys.exit()\n"
    "peer, to = '127.0.0.1:' + sys.argv[4], int(sys.argv[5])\n"
    "def one(offsets):\n"
    "    for o in offsets:\n"
    "        assert engine.transfer_sync_write(peer, at + o, to + o, size) == "
    "0\n"
    "def batch(offsets):\n"
    "    assert engine.batch_transfer_sync_write(peer,\n"
    "        [at + o for o in offsets], [to + o for o in offsets],\n"
    "        [size] * depth) == 0\n"
    "def submit(offsets):\n"
    "    ids = [engine.transfer_submit_write(peer, at + o, to + o, size)\n"
    "           for o in offsets]\n"
    "    for i in ids:\n"
    "        while not (done := engine.transfer_check_status(i)):\n"
    "            pass\n"
    "        assert done == 1\n"
    "write = {'one': one, 'batch': batch, 'async': submit}[way]\n"
    "def run(count):\n"
    "    for i in range(0, count, depth):\n"
    "        write([(i + k) * size % pool for k in range(depth)])\n"
    "run(pool // size if size > 65536 else 16)\n"
    "start = time.perf_counter()\n"
    "run(count)\n"
    "print('took', (time.perf_counter() - start) / count, '.')\n";

/* The output from word on; empty when it was not said. */
static const char *said(const struct buf *text, const char *word)
{
    const char *at = strstr(text->data, word);
    return at ? at : "";
}

/* Seconds that one write of size bytes takes; count of them, times of 8. */
static int mooncake_run(const char *python, const char *size, const char *count,
                        const char *way, double *out, struct why *why)
{
    struct child t = {.in = -1, .out = -1}, c = t;
    struct buf text;
    char port[24], addr[24];
    if (!python)
        return err_set(why, ERR_NOT_FOUND, "no --mooncake-python was given");
    const char *target[] = {python, "-c", mooncake_script, size, count,
                            way,    NULL};
    const char *client[] = {target[0], target[1], target[2],
                            target[3], target[4], target[5],
                            port,      addr,      NULL};
    buf_init(&text, OUTPUT_MAX);
    int rc = child_start(&t, target, why);
    if (!rc &&
        (child_read(&t, &text, " .\n") ||
         sscanf(said(&text, "ready"), "ready %23s %23s", port, addr) != 2))
        rc = err_set(why, ERR_NOT_FOUND, "%s cannot use mooncake.engine",
                     python);
    buf_reset(&text);
    if (!rc) rc = child_start(&c, client, why);
    if (!rc && (child_read(&c, &text, " .\n") ||
                sscanf(said(&text, "took"), "took %lf", out) != 1))
        rc = err_set(why, ERR_PEER, "the transfer with mooncake failed");
    child_end(&c, false);
    child_end(&t, false);
    buf_fini(&text);
    return rc;
}

static int mooncake_rate(const char *python, const char *way, double *out,
                         struct why *why)
{
    int rc = mooncake_run(python, "1048576", "304", way, out, why);
    *out = rc ? 0 : 1048576e-9 / *out;
    return rc;
}

static int mooncake_one(const char *python, double *out, struct why *why)
{
    return mooncake_rate(python, "one", out, why);
}

static int mooncake_batch(const char *python, double *out, struct why *why)
{
    return mooncake_rate(python, "batch", out, why);
}

static int mooncake_async(const char *python, double *out, struct why *why)
{
    return mooncake_rate(python, "async", out, why);
}

static int mooncake_latency(const char *python, double *out, struct why *why)
{
    int rc = mooncake_run(python, "4096", "1000", "one", out, why);
    *out *= 1e6;
    return rc;
}

const struct rival bench_rivals[] = {
    {"iperf3", "GB/s", "iperf3, blocks of 128 KiB, no acknowledgement",
     iperf3_default},
    {"iperf3_1m", "GB/s", "iperf3, blocks of 1 MiB, no acknowledgement",
     iperf3_large},
    {"ucx_put", "GB/s", "ucx_perftest ucp_put_bw over TCP, 1 MiB", ucx_put},
    {"ucx_put_4k", "us", "ucx_perftest ucp_put_lat over TCP, 4 KiB, spinning",
     ucx_latency},
    {"mooncake", "GB/s",
     "mooncake-transfer-engine over TCP, 1 MiB, one at a time", mooncake_one},
    {"mooncake_batch", "GB/s", "mooncake, batches of 8 that are waited for",
     mooncake_batch},
    {"mooncake_async", "GB/s", "mooncake, 8 submitted one by one, then awaited",
     mooncake_async},
    {"mooncake_4k", "us", "mooncake-transfer-engine over TCP, 4 KiB",
     mooncake_latency},
};
const int bench_rival_count = sizeof bench_rivals / sizeof *bench_rivals;
