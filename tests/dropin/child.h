/* tests/dropin/child.h - the other process of a test: forked before the test
 * has threads, it offers memory, says where, and answers commands of one line
 * until its stdin ends. */
#ifndef BATON_TESTS_DROPIN_CHILD_H
#define BATON_TESTS_DROPIN_CHILD_H

#include "tests/port.h"
#include "tests/test.h"

#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILD_BYTES = 1 << 20 };

struct child {
    pid_t pid;
    FILE *to, *from;
    char name[300];
    unsigned long addr;
};

/* run(in, out) is the child's life; it begins by printing "name addr". */
static inline void child_start(struct child *c, void (*run)(FILE *, FILE *))
{
    int in[2], out[2];
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    fflush(stdout);
    c->pid = fork();
    if (c->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(in[1]);
        close(out[0]);
        run(fdopen(in[0], "r"), fdopen(out[1], "w"));
        _exit(0);
    }
    close(in[0]);
    close(out[1]);
    c->to = fdopen(in[1], "w");
    c->from = fdopen(out[0], "r");
    char line[400] = "";
    assert_non_null(fgets(line, sizeof line, c->from));
    assert_int_equal(sscanf(line, "%299s %lu", c->name, &c->addr), 2);
}

static inline void child_tell(struct child *c, const char *command)
{
    fprintf(c->to, "%s\n", command);
    fflush(c->to);
}

static inline long child_ask(struct child *c, const char *command)
{
    char line[100] = "";
    child_tell(c, command);
    assert_non_null(fgets(line, sizeof line, c->from));
    return atol(line);
}

static inline void child_end(struct child *c, int sig)
{
    if (sig) kill(c->pid, sig);
    fclose(c->to);
    fclose(c->from);
    int status = 0;
    waitpid(c->pid, &status, 0);
    if (!sig && status) fail_msg("the child ended with %d", status);
}

static inline long sum_of(const unsigned char *p, size_t n)
{
    long sum = 0;
    for (size_t i = 0; i < n; i++)
        sum = (sum * 31 + p[i]) % 1000003;
    return sum;
}

#endif
