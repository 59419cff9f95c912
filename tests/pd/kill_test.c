/* One side is another process, this program again, and is killed or stopped
 * while a room is open. The heartbeat is far too slow to have seen it. */
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

static void child_start(struct child *c, const char *role, uint16_t port,
                        unsigned via)
{
    char number[8], ways[8];
    int pipes[2];
    snprintf(number, sizeof number, "%u", port);
    snprintf(ways, sizeof ways, "%u", via);
    assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
    c->pid = fork();
    assert_true(c->pid >= 0);
    if (c->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(pipes[1], 1);
        execl("/proc/self/exe", "kill_test", role, number, ways, (char *)NULL);
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

static void on_go(int signal)
{
    (void)signal;
    brake_release();
}

/* The child: a side with its leg of the room, for ever. SIGUSR1 lets its
 * engine go on. */
static int be(enum pd_mode mode, uint16_t port, unsigned via)
{
    static struct rig rig;
    static struct side side;
    static struct leg leg;
    static struct ask ask;
    log_init(LOG_ERROR, "child");
    rig_init(&rig);
    struct side_options o = side_defaults(mode);
    o.before = brake_before;
    o.via = via;
    if (mode == PD_PREFILL) brake_pull();
    signal(SIGUSR1, on_go);
    side_open(&side, &rig, &o);
    ask_init(&ask, 60, 10, ROOM);
    leg_start(&leg, &side, &ask.spec, port, ROOM);
    if (mode == PD_PREFILL) {
        say(side.port);
        UNTIL(&rig, sem_trywait(&brake.reached) == 0);
    } else
        UNTIL(&rig, side_stats(&side).by_state[PD_WAIT] == 1);
    say(1);
    for (bool told = false;;) {
        rig_turn(&rig);
        if (leg.done && !told) say(2);
        told = leg.done;
    }
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
    child_start(&child, "prefill", 0, 0);
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

/* A decode, and a prefill that is stopped in the middle of computing until it
 * is taken for lost. */
struct stopped {
    struct side d;
    struct leg leg;
    struct child child;
};

static void stop(struct stopped *s, struct rig *rig, unsigned via)
{
    struct ask ask;
    int status;
    child_start(&s->child, "prefill", 0, via);
    struct side_options o = side_defaults(PD_DECODE);
    o.pd.heartbeat_interval_ms = 50;
    o.pd.heartbeat_max_failure = 1;
    side_open(&s->d, rig, &o);
    uint16_t port = (uint16_t)child_says(rig, &s->child);
    ask_init(&ask, 60, 10, ROOM);
    leg_start(&s->leg, &s->d, &ask.spec, port, ROOM);
    assert_int_equal(child_says(rig, &s->child), 1); /* it computes */
    kill(s->child.pid, SIGSTOP);
    assert_int_equal(waitpid(s->child.pid, &status, WUNTRACED), s->child.pid);
}

static uint64_t accepted(const struct stopped *s)
{
    struct xfer_stats stats;
    xfer_stats_get(s->d.xfer, &stats);
    return stats.accepted;
}

/* It has heard nothing, is connected again, and goes on with what it was told,
 * when the pages are somebody else's. */
static void go_on(struct stopped *s, struct rig *rig)
{
    UNTIL(rig, s->leg.done);
    leg_aborted(&s->leg, 500, "Losing connection with prefill instance");
    UNTIL(rig, side_rooms(&s->d) == 0);
    UNTIL(rig, side_engine(&s->d).pages_free == side_engine(&s->d).pages_total);
    size_t bytes = xfer_mem_bytes(s->d.slab);
    unsigned char *slab = xfer_mem_base(s->d.slab);
    memset(slab, 0x5c, bytes);
    uint64_t before = accepted(s);
    kill(s->child.pid, SIGCONT);
    UNTIL(rig, accepted(s) > before);
    kill(s->child.pid, SIGUSR1);
    assert_int_equal(child_says(rig, &s->child), 2); /* its leg is over */
    assert_int_equal(slab[0], 0x5c);
    assert_memory_equal(slab, slab + 1, bytes - 1);
    child_kill(&s->child);
    side_close(&s->d);
}

static void stopped_prefills(void **state)
{
    (void)state;
    struct rig rig;
    struct stopped mapped, tcp;
    log_init(LOG_ERROR, "test");
    rig_init(&rig);
    stop(&mapped, &rig, 0);
    stop(&tcp, &rig, XFER_VIA_TCP);
    go_on(&mapped, &rig);
    go_on(&tcp, &rig);
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
    child_start(&child, "decode", p.port, 0);
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
    if (argc == 4)
        return be(!strcmp(argv[1], "prefill") ? PD_PREFILL : PD_DECODE,
                  (uint16_t)atoi(argv[2]), (unsigned)atoi(argv[3]));
    const struct CMUnitTest tests[] = {T(a_killed_prefill), T(a_killed_decode),
                                       T(stopped_prefills)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
