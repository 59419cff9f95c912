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

struct target {
    pid_t pid;
    FILE *to, *from;
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

static inline int target_main(char **argv)
{
    struct xfer_options opt = {.via = (unsigned)atoi(argv[0]),
                               .port = (uint16_t)atoi(argv[1]),
                               .lanes = (unsigned)atoi(argv[2]),
                               .token = argv[3]};
    const char *pem = getenv("BATON_TEST_PEM"); /* pem.h's directory */
    char cert[100], key[100];
    if (pem) {
        snprintf(cert, sizeof cert, "%s/cert.pem", pem);
        snprintf(key, sizeof key, "%s/key.pem", pem);
        opt.tls_cert = opt.tls_ca = cert;
        opt.tls_key = key;
    }
    struct xfer *x;
    struct xfer_mem *shared, *own, *secret;
    struct why why = {0};
    void *memory = mmap(NULL, 2 * TARGET_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *second = (char *)memory + TARGET_BYTES;
    if (xfer_open(&x, &opt, &why) ||
        xfer_alloc(x, TARGET_BYTES, 0, &shared, &why) ||
        xfer_register(x, memory, TARGET_BYTES, "cpu:0", 0, &own, &why) ||
        xfer_register(x, second, TARGET_BYTES, "*", XFER_REMOTE_READ, &secret,
                      &why)) {
        fprintf(stderr, "target: %s\n", why.text);
        return 1;
    }
    printf("%s %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
           xfer_name(x), (uint64_t)(uintptr_t)xfer_mem_base(shared),
           xfer_mem_key(shared), (uint64_t)(uintptr_t)memory, xfer_mem_key(own),
           (uint64_t)(uintptr_t)second);
    fflush(stdout);
    char line[200], name[100];
    while (fgets(line, sizeof line, stdin)) {
        char answer[64] = "ok";
        uint64_t addr, bytes;
        unsigned count;
        if (sscanf(line, "hash %" SCNu64 " %" SCNu64, &addr, &bytes) == 2) {
            snprintf(answer, sizeof answer, "%" PRIu64,
                     target_hash((void *)(uintptr_t)addr, bytes));
        } else if (sscanf(line, "hammer %u %" SCNu64 " %99s", &count, &addr,
                          name) == 3) {
            target_hammer(count, addr, name);
            continue;
        } else if (sscanf(line, "notes %u", &count) == 1) {
            snprintf(answer, sizeof answer, "%u", target_notes(x, count));
        } else if (!strncmp(line, "drop shared", 11)) {
            xfer_deregister(shared);
        } else if (!strncmp(line, "drop own", 8)) {
            xfer_deregister(own);
            memset(memory, 0x5a, TARGET_BYTES);
        } else if (sscanf(line, "more %" SCNu64, &bytes) == 1) {
            struct xfer_mem *mem;
            xfer_alloc(x, bytes, 0, &mem, NULL);
            snprintf(answer, sizeof answer, "%" PRIu64,
                     (uint64_t)(uintptr_t)xfer_mem_base(mem));
        } else if (sscanf(line, "register %" SCNu64, &bytes) == 1) {
            struct xfer_mem *mem;
            void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            xfer_register(x, at, bytes, NULL, 0, &mem, NULL);
            snprintf(answer, sizeof answer, "%" PRIu64,
                     (uint64_t)(uintptr_t)at);
        } else if (sscanf(line, "halves %" SCNu64, &bytes) == 1) {
            struct xfer_mem *mem;
            char *at = mmap(NULL, 2 * bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            xfer_register(x, at, bytes, NULL, 0, &mem, NULL);
            xfer_register(x, at + bytes, bytes, NULL, 0, &mem, NULL);
            snprintf(answer, sizeof answer, "%" PRIu64,
                     (uint64_t)(uintptr_t)at);
        } else if (sscanf(line, "expel %99s", name) == 1) {
            snprintf(answer, sizeof answer, "%d", xfer_expel(x, name, 5000));
        } else if (!strncmp(line, "close", 5)) {
            xfer_close(x);
            child_say(answer);
            return 0;
        }
        child_say(answer);
    }
    _exit(0); /* as a process that is just gone */
}

/* ---- in the test ---- */

static inline void target_start(struct target *t, unsigned via, int port,
                                int lanes, const char *token)
{
    char via_text[16], port_text[16], lanes_text[16];
    int in[2], out[2];
    snprintf(via_text, sizeof via_text, "%u", via);
    snprintf(port_text, sizeof port_text, "%d", port);
    snprintf(lanes_text, sizeof lanes_text, "%d", lanes);
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
    assert_int_equal(sscanf(line,
                            "%63s %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64
                            " %" SCNu64,
                            t->name, &t->shared, &t->shared_key, &t->own,
                            &t->own_key, &t->secret),
                     6);
}

static inline void target_tell(struct target *t, const char *command)
{
    fprintf(t->to, "%s\n", command);
    fflush(t->to);
}

static inline uint64_t target_answer(struct target *t)
{
    char line[100] = "";
    assert_non_null(fgets(line, sizeof line, t->from));
    return strtoull(line, NULL, 10);
}

static inline uint64_t target_ask(struct target *t, const char *command)
{
    target_tell(t, command);
    return target_answer(t);
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
    if (!t->pid) return;
    if (sig) kill(t->pid, sig);
    fclose(t->to);
    fclose(t->from);
    waitpid(t->pid, NULL, 0);
    t->pid = 0;
}

#endif
