/* tests/xfer/sim_target.h - the contract test's target (target.h) as a process
 * of the simulated machine room (sim.h): the same commands, from one fiber to
 * another. */
#ifndef BATON_TESTS_XFER_SIM_TARGET_H
#define BATON_TESTS_XFER_SIM_TARGET_H

#include "tests/xfer/sim.h"
#include "tests/xfer/target.h"

#define SIM_TARGET_HOST "10.0.0.1"

static struct sim_target {
    struct sim_proc *proc;
    struct xfer_options opt;
    char commands[4][100], answers[4][300]; /* rings */
    unsigned told, obeyed, heard;
} sim_target;

static inline bool sim_target_told(void *arg)
{
    (void)arg;
    return sim_target.told != sim_target.obeyed;
}

static inline bool sim_target_answered(void *arg)
{
    (void)arg;
    return sim_target.obeyed != sim_target.heard;
}

static inline void sim_target_main(void *arg)
{
    struct sim_target *t = arg;
    struct target_side side;
    struct why why = {0};
    if (target_open(&side, &t->opt, &why)) sim_fail("target: %s", why.text);
    target_greet(&side, t->answers[0], sizeof t->answers[0]);
    t->told = t->obeyed = 1;
    for (bool more = true; more; t->obeyed++) {
        while (!sim_target_told(NULL))
            sim_until(sim_target_told, NULL, 1000000);
        more = target_obey(&side, t->commands[t->obeyed % 4],
                           t->answers[t->obeyed % 4], sizeof t->answers[0]);
    }
    munmap(side.memory, 2 * TARGET_BYTES);
}

static inline void sim_target_tell(const char *command)
{
    snprintf(sim_target.commands[sim_target.told++ % 4],
             sizeof sim_target.commands[0], "%s", command);
}

static inline void sim_target_answer(char *line, size_t n)
{
    if (!sim_until(sim_target_answered, NULL, 1000000))
        sim_fail("the target does not answer");
    snprintf(line, n, "%s", sim_target.answers[sim_target.heard++ % 4]);
}

static inline bool sim_target_over(void *arg)
{
    (void)arg;
    return !sim_alive(sim_target.proc);
}

/* It leaves nothing behind. */
static inline void sim_target_end(void)
{
    sim_target_tell("close");
    if (!sim_until(sim_target_over, NULL, 60000))
        sim_fail("the target does not end");
    if (sim_blocks(sim_target.proc) || sim_files(sim_target.proc))
        sim_fail("the target leaves %zu blocks and %zu descriptors",
                 sim_blocks(sim_target.proc), sim_files(sim_target.proc));
}

static inline void sim_target_start(struct target *t, unsigned via, int lanes,
                                    const char *token)
{
    static const struct target_line line = {sim_target_tell, sim_target_answer,
                                            sim_target_end};
    char greeting[300];
    sim_target = (struct sim_target){.opt = {.host = SIM_TARGET_HOST,
                                             .via = via,
                                             .lanes = (unsigned)lanes,
                                             .token = token}};
    sim_target.proc = sim_start(SIM_TARGET_HOST, sim_target_main, &sim_target);
    sim_target_answer(greeting, sizeof greeting);
    t->line = &line;
    target_greeted(t, greeting);
}

#endif
