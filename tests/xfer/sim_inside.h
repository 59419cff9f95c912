/* tests/xfer/sim_inside.h - between sim.c (fibers, clock, threads),
 * sim_memory.c and sim_files.c (descriptors). */
#ifndef BATON_TESTS_XFER_SIM_INSIDE_H
#define BATON_TESTS_XFER_SIM_INSIDE_H

#include "tests/xfer/sim.h"

#include <sys/queue.h>

struct sim_proc {
    TAILQ_ENTRY(sim_proc) next;
    int pid;
    char host[32];
    bool dead;
    uint64_t calls, kill_at, stop_at, stop_ns, stopped_until;
    size_t blocks, files;
};

enum { US = 1000, MS = 1000000 };

/* The process that runs now; NULL outside of a simulation. */
struct sim_proc *sim_self(void);
struct sim_proc *sim_proc_of(int pid);
uint64_t sim_now(void); /* ns */
/* A call of the program: others may run, we may die. */
void sim_point(void);
/* Waits until ready(arg) or the time; false: it was the time. */
bool sim_block(bool (*ready)(void *), void *arg, uint64_t until_ns);

/* Memory of the run; addresses are the same for the same seed. */
void *sim_alloc(size_t bytes);
bool sim_owns(const void *p);
void memory_begin(void);
/* Memory that the room itself needs for a while, not zeroed. */
void *sim_borrow(size_t bytes);
void sim_return(void *p);

/* sim_files.c */
void files_begin(void);
void files_end_of(struct sim_proc *p); /* it died or ended */
uint64_t files_next_ns(void);          /* when something arrives; UINT64_MAX */
void files_cut(uint64_t until_ns);
void files_delay(uint64_t ns);
void files_lose(uint64_t one_in);

#endif
