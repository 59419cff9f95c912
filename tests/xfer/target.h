/* tests/xfer/target.h - a target engine in a process of its own.
 *
 * The test program runs itself again with "--target ...": the child opens an
 * engine, offers two memories, prints where they are, then obeys commands on
 * its stdin, one line each, and answers on stdout, one line each. */
#ifndef BATON_TESTS_XFER_TARGET_H
#define BATON_TESTS_XFER_TARGET_H

#include "base/clock.h"
#include "base/map.h"
#include "xfer/xfer.h"

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TARGET_BYTES = 4 << 20 };

/* How commands reach a target that is no process: sim_target.h. */
struct target_line {
    void (*tell)(const char *command);
    void (*answer)(char *line, size_t n);
    void (*end)(void);
};

struct target {
    pid_t pid;
    FILE *to, *from;
    const struct target_line *line; /* or NULL */
    char name[64];
    uint64_t shared, shared_key; /* memory of xfer_alloc  */
    uint64_t own, own_key;       /* memory it registered  */
    uint64_t secret;             /* read only for others  */
};

static inline uint64_t target_hash(const void *p, size_t n)
{
    const uint64_t *words = p;
    uint64_t h = n;
    for (size_t i = 0; i < n / 8; i++)
        h = (h ^ words[i]) * 0x9e3779b97f4a7c15u + (h >> 29);
    return h;
}

/* What a note of the tests says: these bytes are what they should be. */
struct target_note {
    uint64_t addr, bytes, hash;
};

/* Waits for count notes, and looks at the memory they speak of as soon as they
 * are there; returns how many were right. */
static inline unsigned target_notes(struct xfer *x, unsigned count)
{
    struct xfer_note note;
    struct target_note says;
    unsigned good = 0;
    for (unsigned i = 0; i < count; i++) {
        struct pollfd pfd = {.fd = xfer_note_fd(x), .events = POLLIN};
        if (poll(&pfd, 1, 20000) != 1 || !xfer_note_poll(x, &note)) break;
        if (note.bytes != sizeof says || !strchr(note.from, ':')) continue;
        memcpy(&says, note.data, sizeof says);
        good +=
            says.hash == target_hash((void *)(uintptr_t)says.addr, says.bytes);
    }
    return xfer_note_poll(x, &note) ? 0 : good;
}

/* Writes to that memory of the engine called name, over and over; says "ok"
 * once the first write is through, then, when one fails, its result. */
static inline void target_hammer(unsigned via, uint64_t addr, const char *name)
{
    struct xfer_options opt = {.via = via, .heartbeat_ms = 150};
    struct xfer *x;
    struct xfer_mem *mem;
    struct xfer_peer *peer;
    int rc = xfer_open(&x, &opt, NULL);
    if (!rc) rc = xfer_alloc(x, TARGET_BYTES, 0, &mem, NULL);
    if (!rc) rc = xfer_peer_open(x, name, &peer, NULL);
    for (int i = 0; !rc; i++) {
        struct xfer_op op = {.local = xfer_mem_base(mem),
                             .remote = addr,
                             .bytes = TARGET_BYTES >> i % 4};
        rc = xfer_transfer(peer, &op, 1, -1, NULL);
        if (!i && !rc) puts("ok"), fflush(stdout);
    }
    printf("%d\n", rc);
    fflush(stdout);
    xfer_close(x);
}

/* ---- in the child ---- */

static inline void child_say(const char *text)
{
    puts(text);
    fflush(stdout);
}

/* An engine and the memories that it offers. */
struct target_side {
    struct xfer *x;
    struct xfer_mem *shared, *own, *secret;
    char *memory; /* [2 * TARGET_BYTES], of own and secret */
};

static inline char *target_memory(size_t bytes)
{
    return mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static inline int target_open(struct target_side *t,
                              const struct xfer_options *opt, struct why *why)
{
    t->memory = target_memory(2 * TARGET_BYTES);
    int rc = xfer_open(&t->x, opt, why);
    if (!rc) rc = xfer_alloc(t->x, TARGET_BYTES, 0, &t->shared, why);
    if (!rc)
        rc = xfer_register(t->x, t->memory, TARGET_BYTES, "cpu:0", 0, &t->own,
                           why);
    if (!rc)
        rc = xfer_register(t->x, t->memory + TARGET_BYTES, TARGET_BYTES, "*",
                           XFER_REMOTE_READ, &t->secret, why);
    return rc;
}

/* The first line: the name, and where the memories are. */
static inline void target_greet(const struct target_side *t, char *line,
                                size_t n)
{
    snprintf(
        line, n, "%s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64,
        xfer_name(t->x), (uint64_t)(uintptr_t)xfer_mem_base(t->shared),
        xfer_mem_key(t->shared), (uint64_t)(uintptr_t)t->memory,
        xfer_mem_key(t->own), (uint64_t)(uintptr_t)(t->memory + TARGET_BYTES));
}

static inline uint64_t target_more(struct xfer *x, bool alloc, size_t bytes,
                                   size_t count)
{
    struct xfer_mem *mem;
    if (alloc) {
        xfer_alloc(x, bytes, 0, &mem, NULL);
        return (uintptr_t)xfer_mem_base(mem);
    }
    char *at = target_memory(count * bytes);
    for (size_t i = 0; i < count; i++)
        xfer_register(x, at + i * bytes, bytes, NULL, 0, &mem, NULL);
    return (uintptr_t)at;
}

/* Does what a command says; false: it was the last one. */
static inline bool target_obey(struct target_side *t, const char *line,
                               char *answer, size_t n)
{
    char name[100];
    uint64_t addr, bytes;
    unsigned count;
    struct xfer *x = t->x;
    snprintf(answer, n, "ok");
    if (sscanf(line, "hash %" SCNu64 " %" SCNu64, &addr, &bytes) == 2) {
        snprintf(answer, n, "%" PRIu64,
                 target_hash((void *)(uintptr_t)addr, bytes));
    } else if (sscanf(line, "notes %u", &count) == 1) {
        snprintf(answer, n, "%u", target_notes(x, count));
    } else if (!strncmp(line, "drop shared", 11)) {
        xfer_deregister(t->shared);
    } else if (!strncmp(line, "drop own", 8)) {
        xfer_deregister(t->own);
        memset(t->memory, 0x5a, TARGET_BYTES);
    } else if (sscanf(line, "more %" SCNu64, &bytes) == 1) {
        snprintf(answer, n, "%" PRIu64, target_more(x, true, bytes, 1));
    } else if (sscanf(line, "register %" SCNu64, &bytes) == 1) {
        snprintf(answer, n, "%" PRIu64, target_more(x, false, bytes, 1));
    } else if (sscanf(line, "halves %" SCNu64, &bytes) == 1) {
        snprintf(answer, n, "%" PRIu64, target_more(x, false, bytes, 2));
    } else if (sscanf(line, "expel %99s", name) == 1) {
        snprintf(answer, n, "%d", xfer_expel(x, name, 5000));
    } else if (!strncmp(line, "pass", 4)) {
        char pass[XFER_NAME_MAX + 1];
        xfer_pass(x, pass);
        snprintf(answer, n, "%s", pass);
    } else if (sscanf(line, "fill %" SCNu64 " %" SCNu64 " %u", &addr, &bytes,
                      &count) == 3) {
        memset((void *)(uintptr_t)addr, (int)count, bytes);
        snprintf(answer, n, "%" PRIu64,
                 target_hash((void *)(uintptr_t)addr, bytes));
    } else if (!strncmp(line, "close", 5)) {
        xfer_close(x);
        return false;
    }
    return true;
}

static inline int target_main(char **argv)
{
    struct xfer_options opt = {.via = (unsigned)atoi(argv[0]),
                               .port = (uint16_t)atoi(argv[1]),
                               .lanes = (unsigned)atoi(argv[2]),
                               .token = argv[3]};
    const char *pem = getenv("BATON_TEST_PEM"); /* pem.h's directory */
    char cert[100], key[100], line[300], name[100], answer[64];
    if (pem) {
        snprintf(cert, sizeof cert, "%s/cert.pem", pem);
        snprintf(key, sizeof key, "%s/key.pem", pem);
        opt.tls_cert = opt.tls_ca = cert;
        opt.tls_key = key;
    }
    struct target_side t;
    struct why why = {0};
    if (target_open(&t, &opt, &why)) {
        fprintf(stderr, "target: %s\n", why.text);
        return 1;
    }
    target_greet(&t, line, sizeof line);
    child_say(line);
    while (fgets(line, sizeof line, stdin)) {
        uint64_t addr;
        unsigned via;
        if (sscanf(line, "hammer %u %" SCNu64 " %99s", &via, &addr, name) ==
            3) {
            target_hammer(via, addr, name);
            continue;
        }
        bool more = target_obey(&t, line, answer, sizeof answer);
        child_say(answer);
        if (!more) return 0;
    }
    _exit(0); /* as a process that is just gone */
}

/* ---- in the test ---- */

static inline void target_greeted(struct target *t, const char *line)
{
    assert_int_equal(sscanf(line,
                            "%63s %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
                            " %" SCNu64,
                            t->name, &t->shared, &t->shared_key, &t->own,
                            &t->own_key, &t->secret),
                     6);
}

static inline void target_start(struct target *t, unsigned via, int port,
                                int lanes, const char *token)
{
    char via_text[16], port_text[16], lanes_text[16];
    int in[2], out[2];
    snprintf(via_text, sizeof via_text, "%u", via);
    snprintf(port_text, sizeof port_text, "%d", port);
    snprintf(lanes_text, sizeof lanes_text, "%d", lanes);
    t->line = NULL;
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC)) abort();
    t->pid = fork();
    if (t->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* also when it is stopped */
        dup2(in[0], 0);
        dup2(out[1], 1);
        char self[4096] = "";
        if (readlink("/proc/self/exe", self, sizeof self - 1) < 0) _exit(127);
        /* A cross build's programs run in an emulator. */
        const char *emulator = getenv("BATON_EMULATOR");
        if (emulator && *emulator)
            execl("/bin/sh", "sh", "-c", "exec $BATON_EMULATOR \"$0\" \"$@\"",
                  self, "--target", via_text, port_text, lanes_text, token,
                  (char *)NULL);
        execl(self, "target", "--target", via_text, port_text, lanes_text,
              token, (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    t->to = fdopen(in[1], "w");
    t->from = fdopen(out[0], "r");
    char line[300] = "";
    assert_non_null(fgets(line, sizeof line, t->from));
    target_greeted(t, line);
}

static inline void target_tell(struct target *t, const char *command)
{
    if (t->line) {
        t->line->tell(command);
        return;
    }
    fprintf(t->to, "%s\n", command);
    fflush(t->to);
}

static inline uint64_t target_answer(struct target *t)
{
    char line[100] = "";
    if (t->line)
        t->line->answer(line, sizeof line);
    else
        assert_non_null(fgets(line, sizeof line, t->from));
    return strtoull(line, NULL, 10);
}

static inline uint64_t target_ask(struct target *t, const char *command)
{
    target_tell(t, command);
    return target_answer(t);
}

/* A pass of it, which is a process. */
static inline void target_pass(struct target *t, char out[100])
{
    target_tell(t, "pass");
    assert_non_null(fgets(out, 100, t->from));
    out[strcspn(out, "\n")] = 0;
}

static inline uint64_t target_hash_of(struct target *t, uint64_t addr)
{
    char line[100];
    snprintf(line, sizeof line, "hash %" PRIu64 " %d", addr, TARGET_BYTES);
    return target_ask(t, line);
}

/* Stops the child; when this returns no thread of it runs any more. */
static inline void target_stop(struct target *t)
{
    int status;
    kill(t->pid, SIGSTOP);
    assert_int_equal(waitpid(t->pid, &status, WUNTRACED), t->pid);
    assert_true(WIFSTOPPED(status));
}

/* Ends the child by the signal, or lets it end when 0. */
static inline void target_end(struct target *t, int sig)
{
    if (t->line) t->line->end();
    if (!t->pid) return;
    if (sig) kill(t->pid, sig);
    fclose(t->to);
    fclose(t->from);
    waitpid(t->pid, NULL, 0);
    t->pid = 0;
}

#endif
