/* One side is another process, this program again, and is killed while a room
 * is open. The heartbeat is far too slow to have seen it. */
#include "tests/pd/pair.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

struct child {
    pid_t pid;
    int out; /* what it says, a line a time */
};

static void child_start(struct child *c, const char *role, uint16_t port)
{
    char number[8];
    int pipes[2];
    snprintf(number, sizeof number, "%u", port);
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    c->pid = fork();
    assert_true(c->pid >= 0);
    if (c->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(pipes[1], 1);
        execl("/proc/self/exe", "kill_test", role, number, (char *)NULL);
        _exit(127);
    }
    close(pipes[1]);
    c->out = pipes[0];
}

static void child_kill(struct child *c)
{
    int status;
    kill(c->pid, SIGKILL);
    assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
    close(c->out);
}

/* The number that the child says next. */
static unsigned child_says(struct rig *rig, struct child *c)
{
    struct pollfd p = {.fd = c->out, .events = POLLIN};
    UNTIL(rig, poll(&p, 1, 0) == 1);
    unsigned number = 0;
    char digit;
    while (read(c->out, &digit, 1) == 1 && digit != '\n')
        number = number * 10 + (unsigned)(digit - '0');
    return number;
}

static void say(unsigned number)
{
    printf("%u\n", number);
    fflush(stdout);
}

enum { ROOM = 5 };

/* The child: a side with its leg of the room, for ever. */
static int be(enum pd_mode mode, uint16_t port)
{
    static struct rig rig;
    static struct side side;
    static struct leg leg;
    static struct ask ask;
    log_init(LOG_ERROR, "child");
    rig_init(&rig);
    struct side_options o = side_defaults(mode);
    o.before = brake_before;
    if (mode == PD_PREFILL) brake_pull();
    side_open(&side, &rig, &o);
    ask_init(&ask, 60, 10, ROOM);
    leg_start(&leg, &side, &ask.spec, port, ROOM);
    if (mode == PD_PREFILL) {
        say(side.port);
        UNTIL(&rig, sem_trywait(&brake.reached) == 0);
    } else
        UNTIL(&rig, side_stats(&side).by_state[PD_WAIT] == 1);
    say(1);
    for (;;)
        rig_turn(&rig);
    return 0;
}

static void a_killed_prefill(void **state)
{
    (void)state;
    struct rig rig;
    struct side d;
    struct leg leg;
    struct ask ask;
    struct child child;
    log_init(LOG_ERROR, "test");
    child_start(&child, "prefill", 0);
    rig_init(&rig);
    struct side_options o = side_defaults(PD_DECODE);
    side_open(&d, &rig, &o);
    uint16_t port = (uint16_t)child_says(&rig, &child);
    ask_init(&ask, 60, 10, ROOM);
    leg_start(&leg, &d, &ask.spec, port, ROOM);
    assert_int_equal(child_says(&rig, &child), 1); /* it computes */
    UNTIL(&rig, side_stats(&d).by_state[PD_WAIT] == 1);
    child_kill(&child);
    UNTIL(&rig, leg.done);
    leg_aborted(&leg, 500, "Losing connection with prefill instance");
    UNTIL(&rig, side_rooms(&d) == 0); /* nobody can write any more */
    UNTIL(&rig, side_engine(&d).pages_free == side_engine(&d).pages_total);
    side_close(&d);
    rig_fini(&rig);
}

static void a_killed_decode(void **state)
{
    (void)state;
    struct rig rig;
    struct side p;
    struct leg leg;
    struct ask ask;
    struct child child;
    log_init(LOG_ERROR, "test");
    rig_init(&rig);
    struct side_options o = side_defaults(PD_PREFILL);
    o.before = brake_before;
    brake_pull();
    side_open(&p, &rig, &o);
    child_start(&child, "decode", p.port);
    ask_init(&ask, 60, 10, ROOM);
    leg_start(&leg, &p, &ask.spec, 0, ROOM);
    UNTIL(&rig, sem_trywait(&brake.reached) == 0);
    assert_int_equal(child_says(&rig, &child), 1);
    child_kill(&child);
    UNTIL(&rig, side_rooms(&p) == 0);
    brake_release();
    UNTIL(&rig, leg.done);
    leg_aborted(&leg, 500, "Losing connection with decode instance");
    side_close(&p);
    rig_fini(&rig);
}

int main(int argc, char **argv)
{
    if (argc == 3)
        return be(!strcmp(argv[1], "prefill") ? PD_PREFILL : PD_DECODE,
                  (uint16_t)atoi(argv[2]));
    const struct CMUnitTest tests[] = {T(a_killed_prefill), T(a_killed_decode)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
