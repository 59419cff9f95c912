/* bin/up.c - a whole prefill/decode cluster on this host, supervised.
 *
 * Starts prefill server, decode server and router with the flags and the
 * environment of SGLang's Ascend recipe, waits until the router can reach
 * both, and keeps them: a child that dies is started again after a growing
 * pause. With --demo it first sends two requests and shows the answers as
 * they stream; with --once it then stops everything and exits, 0 if all went
 * well. SIGINT and SIGTERM stop everything that was started. */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/opt.h"
#include "bin/commands.h"
#include "http/client.h"
#include "http/loop.h"
#include "http/server.h"
#include "http/sse.h"
#include "json/json.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PREFILL, DECODE, ROUTER, CHILDREN, ARGS = 48 };

struct child {
    const char *name;
    char *argv[ARGS];
    int argc;
    pid_t pid;
    uint64_t started_ms, pause_ms;
    struct loop_timer *restart;
    struct up *up;
};

struct up {
    const char *model, *weight_cache, *log_level;
    int64_t prefill_port, decode_port, router_port, bootstrap_port, store_port;
    int64_t threads;
    bool demo, once;

    struct loop *loop;
    struct http_client *client;
    struct child child[CHILDREN];
    struct loop_timer *poll;  /* until the router says ready */
    struct loop_timer *limit; /* of starting, of stopping    */
    struct http_call *probe;
    uint64_t started_ms;
    bool stopping;
    int status; /* of the program */

    /* The request that streams now. */
    int question;
    char *body;
    struct sse_parser events;
    uint64_t sent_us, first_us, last_us;
    size_t shown; /* bytes of text on screen */
    int64_t tokens;
    bool failed;
};

#define AT(f) offsetof(struct up, f)
static const struct opt options[] = {
    {"model-path|model", OPT_STRING, AT(model), .help = "GGUF file or folder"},
    {"prefill-port", OPT_INT, AT(prefill_port), "8000", 1, 65535,
     .help = "HTTP port of the prefill server"},
    {"decode-port", OPT_INT, AT(decode_port), "8001", 1, 65535,
     .help = "HTTP port of the decode server"},
    {"port|router-port", OPT_INT, AT(router_port), "5000", 1, 65535,
     .help = "HTTP port of the router"},
    {"bootstrap-port", OPT_INT, AT(bootstrap_port), "6657", 1, 65535,
     .help = "bootstrap port of the prefill server"},
    {"store-port", OPT_INT, AT(store_port), "6650", 1, 65535,
     .help = "port of the config store"},
    {"threads", OPT_INT, AT(threads), "0", 0, 1024,
     .help = "compute workers of each server, 0: one a core"},
    {"weight-cache", OPT_STRING, AT(weight_cache),
     .help = "folder for a file of packed weights that the servers share"},
    {"log-level", OPT_CHOICE, AT(log_level), "info",
     .choices = "error|warn|info|debug|trace", .help = "of the children"},
    {"demo", OPT_FLAG, AT(demo), .help = "send two requests, show the answers"},
    {"once", OPT_FLAG, AT(once), .help = "with --demo: stop after them"},
};

static void stop(struct up *u, int status);

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("up: ", stdout);
    vprintf(fmt, ap);
    putchar('\n');
    fflush(stdout);
    va_end(ap);
}

/* --- children --- */

static void arg(struct child *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void arg(struct child *c, const char *fmt, ...)
{
    char text[4200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (c->argc < ARGS - 1) c->argv[c->argc++] = mem_dup(text);
}

/* The flags of the recipe, one by one. */
static void server_args(struct up *u, struct child *c, bool prefill)
{
    c->name = prefill ? "prefill" : "decode";
    static const char *const fixed[] = {"--trust-remote-code",
                                        "--attention-backend",
                                        "ascend",
                                        "--model-impl",
                                        "mindspore",
                                        "--mem-fraction-static",
                                        "0.8",
                                        "--tp-size",
                                        "4",
                                        "--dp-size",
                                        "1",
                                        "--nnodes",
                                        "1",
                                        "--node-rank",
                                        "0",
                                        "--disaggregation-transfer-backend",
                                        "ascend",
                                        "--dist-init-addr",
                                        "127.0.0.1:6688",
                                        "--host",
                                        "127.0.0.1"};
    arg(c, "baton");
    arg(c, "launch_server");
    arg(c, "--model-path");
    arg(c, "%s", u->model);
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        arg(c, "%s", fixed[i]);
    if (u->weight_cache) {
        arg(c, "--weight-cache");
        arg(c, "%s", u->weight_cache);
    }
    arg(c, "--disaggregation-mode");
    arg(c, "%s", c->name);
    if (prefill) {
        arg(c, "--disaggregation-bootstrap-port");
        arg(c, "%lld", (long long)u->bootstrap_port);
    }
    arg(c, "--port");
    arg(c, "%lld", (long long)(prefill ? u->prefill_port : u->decode_port));
    arg(c, "--log-level");
    arg(c, "%s", u->log_level);
    if (u->threads) {
        arg(c, "--threads");
        arg(c, "%lld", (long long)u->threads);
    }
}

static void router_args(struct up *u, struct child *c)
{
    c->name = "router";
    arg(c, "baton");
    arg(c, "launch_router");
    arg(c, "--pd-disaggregation");
    arg(c, "--mini-lb");
    arg(c, "--prefill");
    arg(c, "http://127.0.0.1:%lld", (long long)u->prefill_port);
    arg(c, "%lld", (long long)u->bootstrap_port);
    arg(c, "--decode");
    arg(c, "http://127.0.0.1:%lld", (long long)u->decode_port);
    arg(c, "--host");
    arg(c, "127.0.0.1");
    arg(c, "--port");
    arg(c, "%lld", (long long)u->router_port);
    arg(c, "--log-level");
    arg(c, "%s", u->log_level);
}

static void set_recipe_environment(const struct up *u)
{
    char url[64];
    snprintf(url, sizeof url, "tcp://127.0.0.1:%lld", (long long)u->store_port);
    setenv("ASCEND_MF_STORE_URL", url, 1);
    setenv("ASCEND_MF_TRANSFER_PROTOCOL", "device_rdma", 1);
    setenv("PYTORCH_NPU_ALLOC_CONF", "expandable_segments:True", 1);
    setenv("HCCL_BUFFSIZE", "200", 1);
}

static int start_child(struct child *c)
{
    pid_t parent = getpid();
    c->pid = fork();
    if (c->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != parent) _exit(1);
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        setpgid(0, 0); /* Ctrl-C reaches us alone; we end them in order */
        execv("/proc/self/exe", c->argv);
        perror("up: exec");
        _exit(127);
    }
    if (c->pid < 0) {
        say("cannot start %s: %s", c->name, strerror(errno));
        return ERR_IO;
    }
    c->started_ms = clock_ms();
    return 0;
}

static void on_restart(void *arg_)
{
    struct child *c = arg_;
    if (!c->up->stopping && start_child(c)) stop(c->up, 1);
}

static void child_ended(struct up *u, struct child *c, int how)
{
    char text[64];
    if (WIFSIGNALED(how))
        snprintf(text, sizeof text, "killed by signal %d", WTERMSIG(how));
    else
        snprintf(text, sizeof text, "exit status %d", WEXITSTATUS(how));
    c->pid = 0;
    if (u->stopping) return;
    if (u->poll || u->once) {
        say("%s ended (%s) before the cluster was done; its last lines above "
            "say why",
            c->name, text);
        stop(u, 1);
        return;
    }
    bool lived = clock_ms() - c->started_ms > 60000;
    c->pause_ms = lived || !c->pause_ms ? 500 : c->pause_ms * 2;
    if (c->pause_ms > 30000) c->pause_ms = 30000;
    say("%s ended (%s); starting it again in %.1f s", c->name, text,
        (double)c->pause_ms / 1000);
    loop_timer_set(c->restart, c->pause_ms, 0);
}

static void reap(struct up *u)
{
    bool alive = false;
    for (int i = 0; i < CHILDREN; i++) {
        struct child *c = &u->child[i];
        int how;
        if (c->pid > 0 && waitpid(c->pid, &how, WNOHANG) == c->pid)
            child_ended(u, c, how);
        alive |= c->pid > 0;
    }
    if (u->stopping && !alive) loop_stop(u->loop);
}

static void on_stop_limit(void *arg_)
{
    struct up *u = arg_;
    for (int i = 0; i < CHILDREN; i++) {
        if (u->child[i].pid <= 0) continue;
        say("%s does not end, killing it", u->child[i].name);
        kill(u->child[i].pid, SIGKILL);
    }
}

static void stop(struct up *u, int status)
{
    if (u->stopping) return;
    u->stopping = true;
    u->status = status;
    http_call_cancel(u->probe);
    u->probe = NULL;
    loop_timer_destroy(u->poll);
    u->poll = NULL;
    loop_timer_destroy(u->limit);
    u->limit = loop_timer_create(u->loop, on_stop_limit, u);
    loop_timer_set(u->limit, 8000, 0);
    for (int i = CHILDREN - 1; i >= 0; i--)
        if (u->child[i].pid > 0) kill(u->child[i].pid, SIGTERM);
    reap(u);
}

static void on_signal(void *arg_, int signal)
{
    struct up *u = arg_;
    if (signal == SIGCHLD) {
        reap(u);
        return;
    }
    if (u->stopping) return;
    say("stopping");
    stop(u, u->once ? 1 : 0);
}

/* --- the demo --- */

static const char seed_text[] =
    "You are a helpful assistant.<｜User｜>Classify the text as neutral, "
    "negative or positive. \nText: I think this vacation is okay. "
    "\nSentiment:<｜Assistant｜><think>\n";
static const char chat_text[] = "Why is the sky blue? Answer in two sentences.";

static void show_text(struct up *u, const char *text, size_t n)
{
    if (n <= u->shown) return;
    fwrite(text + u->shown, 1, n - u->shown, stdout);
    fflush(stdout);
    u->shown = n;
}

/* /generate streams the text so far, with the counts in meta_info. */
static void show_generate(struct up *u, const json_t *event)
{
    const json_t *text = json_object_get(event, "text");
    const json_t *meta = json_object_get(event, "meta_info");
    if (!json_is_string(text)) return;
    show_text(u, json_string_value(text), json_string_length(text));
    u->tokens = json_integer_value(json_object_get(meta, "completion_tokens"));
}

/* Chat streams deltas; the last event carries usage. */
static void show_chat(struct up *u, const json_t *event)
{
    const json_t *choice = json_array_get(json_object_get(event, "choices"), 0);
    const json_t *content =
        json_object_get(json_object_get(choice, "delta"), "content");
    if (json_is_string(content)) {
        fwrite(json_string_value(content), 1, json_string_length(content),
               stdout);
        fflush(stdout);
    }
    const json_t *usage = json_object_get(event, "usage");
    if (json_is_object(usage))
        u->tokens =
            json_integer_value(json_object_get(usage, "completion_tokens"));
}

static void on_event(void *arg_, const char *data, size_t n)
{
    struct up *u = arg_;
    if (strcmp(data, "[DONE]") == 0) return;
    json_t *event;
    struct why why = {0};
    if (json_parse(&event, data, n, &why)) {
        printf("\nnot an event: %.200s\n", data);
        u->failed = true;
        return;
    }
    const json_t *error = json_object_get(event, "error");
    if (json_is_object(error)) {
        const char *m = json_string_value(json_object_get(error, "message"));
        printf("\nerror: %s\n", m ? m : data);
        u->failed = true;
    } else {
        u->last_us = clock_us();
        if (!u->first_us) u->first_us = u->last_us;
        if (u->question == 0)
            show_generate(u, event);
        else
            show_chat(u, event);
    }
    json_decref(event);
}

static void on_data(void *arg_, struct http_call *call, const void *bytes,
                    size_t n)
{
    (void)call;
    struct up *u = arg_;
    if (sse_feed(&u->events, bytes, n, on_event, u)) u->failed = true;
}

static void on_headers(void *arg_, struct http_call *call, int status)
{
    (void)call;
    struct up *u = arg_;
    if (status != 200) {
        say("the router answered %d", status);
        u->failed = true;
    }
}

/* KV moved and by which way, as the prefill server tells. */
static void show_transfer(const struct up *u)
{
    char url[128];
    snprintf(url, sizeof url, "http://127.0.0.1:%lld/get_server_info",
             (long long)u->prefill_port);
    struct http_call_options o = {.url = url, .total_ms = 5000};
    struct buf body;
    struct why why = {0};
    json_t *info = NULL;
    buf_init(&body, 1 << 20);
    int status = http_fetch(&o, 1 << 20, &body, &why);
    if (status == 200) json_parse(&info, body.data, body.len, &why);
    const json_t *kv = json_object_get(info, "disaggregation");
    double bytes = json_number_value(json_object_get(kv, "kv_bytes"));
    double us = json_number_value(json_object_get(kv, "kv_us"));
    const char *way = json_string_value(json_object_get(kv, "transport"));
    if (kv)
        say("KV moved: %.0f bytes in %.2f ms by %s", bytes, us / 1000,
            way && *way ? way : "nothing yet");
    else
        say("no transfer figures: %s", why_text(&why, 0));
    json_decref(info);
    buf_fini(&body);
}

static void ask(struct up *u);

static void on_answered(void *arg_, struct http_call *call,
                        const struct http_result *result)
{
    (void)call;
    struct up *u = arg_;
    sse_fini(&u->events);
    mem_free(u->body);
    u->body = NULL;
    putchar('\n');
    if (u->stopping) return;
    if (result->rc) say("request failed: %s", result->text);
    if (result->rc || u->failed || !u->tokens) {
        say("no answer; the log lines above say why");
        stop(u, 1);
        return;
    }
    double ttft = (double)(u->first_us - u->sent_us) * 1e-6;
    double rest = (double)(u->last_us - u->first_us) * 1e-6;
    say("TTFT %.3f s, %lld tokens, %.1f tokens/s after the first", ttft,
        (long long)u->tokens, rest > 0 ? (double)(u->tokens - 1) / rest : 0.0);
    show_transfer(u);
    if (++u->question < 2) {
        ask(u);
    } else if (u->once) {
        say("done, stopping");
        stop(u, 0);
    } else {
        say("serving on http://127.0.0.1:%lld until Ctrl-C",
            (long long)u->router_port);
    }
}

static void ask(struct up *u)
{
    bool chat = u->question == 1;
    const char *path = chat ? "/v1/chat/completions" : "/generate";
    json_t *body =
        chat ? json_pack("{s:[{s:s,s:s}],s:b,s:i,s:{s:b}}", "messages", "role",
                         "user", "content", chat_text, "stream", 1,
                         "max_tokens", 96, "stream_options", "include_usage", 1)
             : json_pack("{s:s,s:b}", "text", seed_text, "stream", 1);
    char *text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    u->body = mem_dup(text);
    free(text);
    char url[128];
    snprintf(url, sizeof url, "http://127.0.0.1:%lld%s",
             (long long)u->router_port, path);
    say("POST %s %s", url, u->body);
    sse_init(&u->events, 1 << 22);
    u->first_us = u->last_us = 0;
    u->shown = 0;
    u->tokens = 0;
    u->failed = false;
    u->sent_us = clock_us();
    static const struct http_header headers[] = {
        {"Content-Type", "application/json"}, {NULL, NULL}};
    struct http_call_options o = {.url = url,
                                  .headers = headers,
                                  .body = u->body,
                                  .body_bytes = strlen(u->body),
                                  .on_headers = on_headers,
                                  .on_data = on_data,
                                  .on_done = on_answered,
                                  .arg = u};
    if (http_call(u->client, &o, NULL)) stop(u, 1);
}

/* --- readiness --- */

static void on_probed(void *arg_, struct http_call *call,
                      const struct http_result *result)
{
    (void)call;
    struct up *u = arg_;
    u->probe = NULL;
    if (u->stopping || result->rc || result->status != 200) return;
    loop_timer_destroy(u->poll);
    u->poll = NULL;
    loop_timer_unset(u->limit);
    say("prefill, decode and router are ready after %.2f s",
        (double)(clock_ms() - u->started_ms) / 1000);
    if (u->demo)
        ask(u);
    else
        say("serving on http://127.0.0.1:%lld until Ctrl-C",
            (long long)u->router_port);
}

static void on_poll(void *arg_)
{
    struct up *u = arg_;
    if (u->probe) return;
    char url[128];
    snprintf(url, sizeof url, "http://127.0.0.1:%lld/readiness",
             (long long)u->router_port);
    struct http_call_options o = {
        .url = url, .total_ms = 2000, .on_done = on_probed, .arg = u};
    if (http_call(u->client, &o, &u->probe)) u->probe = NULL;
}

static void on_start_limit(void *arg_)
{
    say("the cluster was not ready within 10 minutes");
    stop(arg_, 1);
}

/* A clear word before three children stumble over a taken port. */
static int check_ports(const struct up *u)
{
    const struct {
        int64_t port;
        const char *option;
    } ports[] = {{u->prefill_port, "--prefill-port"},
                 {u->decode_port, "--decode-port"},
                 {u->router_port, "--port"},
                 {u->bootstrap_port, "--bootstrap-port"},
                 {u->store_port, "--store-port"}};
    for (size_t i = 0; i < sizeof ports / sizeof *ports; i++) {
        struct why why = {0};
        int rc = http_port_check("127.0.0.1", (int)ports[i].port, &why);
        if (rc == 0) continue;
        fprintf(stderr, "baton up: %s; free it or take another with %s\n",
                why_text(&why, rc), ports[i].option);
        return rc;
    }
    return 0;
}

static int run(struct up *u, struct why *why)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGCHLD};
    int rc = loop_create(&u->loop, why);
    if (!rc) rc = loop_signals(u->loop, signals, 3, on_signal, u, why);
    if (!rc) rc = http_client_open(&u->client, u->loop, why);
    if (rc) return rc;
    server_args(u, &u->child[PREFILL], true);
    server_args(u, &u->child[DECODE], false);
    router_args(u, &u->child[ROUTER]);
    set_recipe_environment(u);
    u->started_ms = clock_ms();
    u->limit = loop_timer_create(u->loop, on_start_limit, u);
    loop_timer_set(u->limit, 600000, 0);
    u->poll = loop_timer_create(u->loop, on_poll, u);
    loop_timer_set(u->poll, 20, 20);
    for (int i = 0; i < CHILDREN; i++) {
        struct child *c = &u->child[i];
        c->up = u;
        c->restart = loop_timer_create(u->loop, on_restart, c);
        printf("up: starting");
        for (int a = 0; a < c->argc; a++)
            printf(" %s", c->argv[a]);
        putchar('\n');
        fflush(stdout);
        if (start_child(c)) stop(u, 1);
    }
    loop_run(u->loop);
    return 0;
}

static void finish(struct up *u)
{
    loop_timer_destroy(u->poll);
    loop_timer_destroy(u->limit);
    http_client_close(u->client);
    if (u->body) sse_fini(&u->events);
    mem_free(u->body);
    for (int i = 0; i < CHILDREN; i++) {
        loop_timer_destroy(u->child[i].restart);
        for (int a = 0; a < u->child[i].argc; a++)
            mem_free(u->child[i].argv[a]);
    }
    loop_destroy(u->loop);
}

int up_main(int argc, char **argv)
{
    static struct up u;
    struct why why = {0};
    size_t count = sizeof options / sizeof *options;
    int rc = opt_parse(options, count, &u, argc, argv, NULL, NULL, &why);
    if (rc == 1) {
        opt_help(options, count, "baton up --model-path PATH [--demo]");
        return 0;
    }
    if (!rc && !u.model)
        rc = err_set(&why, ERR_INVALID, "--model-path is required");
    if (!rc && access(u.model, R_OK))
        rc = err_sys(&why, ERR_IO, errno, "%s", u.model);
    if (rc) {
        fprintf(stderr, "baton up: %s\n", why_text(&why, rc));
        return 2;
    }
    log_init(LOG_INFO, "up");
    if (check_ports(&u)) return 1;
    rc = run(&u, &why);
    finish(&u);
    if (rc) fprintf(stderr, "baton up: %s\n", why_text(&why, rc));
    return rc ? 1 : u.status;
}
