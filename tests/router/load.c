/* What a request costs the router: starts `baton launch_router` on one core,
 * plays both workers and its clients on another, and prints the requests a
 * second and the router's processor time for each.
 *
 *     router-load BATON [connections 64] [seconds 5] */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum kind { LISTENER, WORKER, CLIENT };

struct conn {
    int fd;
    enum kind kind;
    size_t n;
    char in[8192];
};

static const char request[] =
    "POST /generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    "Content-Length: 87\r\n\r\n{\"text\": \"The capital of France is\", "
    "\"sampling_params\": {\"max_new_tokens\": 16, \"n\": 1}}";
static const char answer[] =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 164"
    "\r\n\r\n{\"text\":\" "
    "Paris.\",\"output_ids\":[1,2,3],\"meta_info\":{\"id\":"
    "\"0123456789abcdef0123456789abcdef\",\"finish_reason\":{\"type\":"
    "\"length\",\"length\":16},\"prompt_tokens\":6, \"x\":1}}";

static int epoll;
static unsigned long done, failed;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void pin(int core)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    sched_setaffinity(0, sizeof set,
                      &set); /* one core only: stays where it is */
}

static void add(int fd, enum kind kind)
{
    int on = 1;
    struct conn *c = calloc(1, sizeof *c);
    if (!c) die("memory");
    c->fd = fd;
    c->kind = kind;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e)) die("epoll_ctl");
}

/* A socket on loopback, listening on a free port, which *port tells. */
static int listen_free(int *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(fd, (struct sockaddr *)&a, n) || listen(fd, 1024)) die("listen");
    if (getsockname(fd, (struct sockaddr *)&a, &n)) die("getsockname");
    *port = ntohs(a.sin_port);
    return fd;
}

static int dial(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0) return fd;
    close(fd);
    return -1;
}

static pid_t start_router(const char *baton, int port, int prefill, int decode)
{
    char ports[3][8], urls[2][64];
    int numbers[] = {port, prefill, decode};
    for (int i = 0; i < 3; i++)
        snprintf(ports[i], sizeof ports[i], "%d", numbers[i]);
    for (int i = 0; i < 2; i++)
        snprintf(urls[i], sizeof urls[i], "http://127.0.0.1:%s", ports[i + 1]);
    pid_t pid = fork();
    if (pid) return pid;
    pin(0);
    execl(baton, baton, "launch_router", "--pd-disaggregation", "--mini-lb",
          "--prefill", urls[0], "6657", "--decode", urls[1], "--host",
          "127.0.0.1", "--port", ports[0], "--log-level", "warning",
          (char *)NULL);
    die(baton);
    return 0;
}

static double cpu_seconds(pid_t pid)
{
    char path[64];
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (!f || fscanf(f,
                     "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u "
                     "%*u %lu %lu",
                     &user, &system) != 2)
        die(path);
    fclose(f);
    return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static void put(const struct conn *c, const char *text, size_t n)
{
    if (write(c->fd, text, n) != (ssize_t)n) die("write");
}

/* Bytes of the first whole message in c->in; 0: it is not whole yet. */
static size_t message(const struct conn *c)
{
    const char *end = strstr(c->in, "\r\n\r\n");
    if (!end) return 0;
    const char *length = strcasestr(c->in, "content-length:");
    size_t body = length && length < end ? strtoul(length + 15, NULL, 10) : 0;
    size_t all = (size_t)(end + 4 - c->in) + body;
    return all <= c->n ? all : 0;
}

static void serve(struct conn *c)
{
    if (c->kind == LISTENER) {
        int fd;
        while ((fd = accept(c->fd, NULL, NULL)) >= 0)
            add(fd, WORKER);
        return;
    }
    ssize_t n = read(c->fd, c->in + c->n, sizeof c->in - 1 - c->n);
    if (n <= 0) {
        failed += c->kind == CLIENT;
        close(c->fd);
        free(c);
        return;
    }
    c->n += (size_t)n;
    c->in[c->n] = 0;
    for (size_t all; (all = message(c)); c->in[c->n] = 0) {
        bool ok = strncmp(c->in, "HTTP/1.1 200", 12) == 0;
        c->n -= all;
        memmove(c->in, c->in + all, c->n);
        if (c->kind == WORKER) {
            put(c, answer, sizeof answer - 1);
            continue;
        }
        ok ? done++ : failed++;
        put(c, request, sizeof request - 1);
    }
}

static void run_until(double end)
{
    struct epoll_event ready[256];
    while (seconds() < end) {
        int n = epoll_wait(epoll, ready, 256, 20);
        for (int i = 0; i < n; i++)
            serve(ready[i].data.ptr);
    }
}

int main(int argc, char **argv)
{
    int connections = argc > 2 ? atoi(argv[2]) : 64, port, prefill, decode;
    double wanted = argc > 3 ? atof(argv[3]) : 5;
    if (argc < 2) {
        fputs("usage: router-load BATON [connections] [seconds]\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    close(listen_free(&port));
    add(listen_free(&prefill), LISTENER);
    add(listen_free(&decode), LISTENER);
    pid_t router = start_router(argv[1], port, prefill, decode);
    pin(1);
    run_until(seconds() + 1.5); /* it asks its workers how they are */
    for (int i = 0; i < connections; i++) {
        int fd = dial(port);
        if (fd < 0) die("the router");
        add(fd, CLIENT);
        if (write(fd, request, sizeof request - 1) < 0) die("write");
    }
    run_until(seconds() + 0.5);
    unsigned long before = done;
    double cpu = cpu_seconds(router), begin = seconds();
    run_until(begin + wanted);
    cpu = cpu_seconds(router) - cpu;
    double n = (double)(done - before), took = seconds() - begin;
    printf(
        "%.0f requests/s, %lu failed; %.1f us of the router's core for each: "
        "%.0f requests/s of one core\n",
        n / took, failed, cpu / n * 1e6, n / cpu);
    kill(router, SIGKILL);
    waitpid(router, NULL, 0);
    return failed != 0;
}
