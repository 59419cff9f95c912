/* tests/xfer/sim.h - a simulated machine room: processes, threads, clock,
 * sockets and memory, all of it decided by one seed.
 *
 * The engine under test is the real one, with all its ways; the linker puts
 * this file's functions in the place of what it asks of libc (--wrap, in
 * tests/CMakeLists.txt). Threads become fibers that are switched at locks,
 * waits and system calls, and in the middle of copies; time is a number that
 * jumps to the next thing that happens; bytes arrive late, in pieces, or only
 * after the network heals; any process can die at any of its calls. The same
 * seed gives the same run, to the byte.
 *
 * Everything below is called from fibers, but for sim_run. */
#ifndef BATON_TESTS_XFER_SIM_H
#define BATON_TESTS_XFER_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sim_proc;

/* Runs main(arg) and whatever it starts until all of it has ended. Ends the
 * program with the seed and a reason when something is wrong. */
void sim_run(uint64_t seed, void (*main)(void *), void *arg);
void sim_fail(const char *fmt, ...)
    __attribute__((format(printf, 1, 2), noreturn));
#define SIM_CHECK(what) \
    ((what) ? (void)0 : sim_fail("%s:%d: %s", __FILE__, __LINE__, #what))

uint64_t sim_random(uint64_t n); /* 0 .. n - 1 */
bool sim_chance(uint64_t one_in);

/* A process on that host (an address such as "10.0.0.1"). The handle is good
 * for the whole run. */
struct sim_proc *sim_start(const char *host, void (*main)(void *), void *arg);
bool sim_alive(const struct sim_proc *p);
void sim_kill(struct sim_proc *p);
/* Kills it, or stops it for a while, at the calls-th of its calls from now. */
void sim_kill_later(struct sim_proc *p, uint64_t calls);
void sim_stop_later(struct sim_proc *p, uint64_t calls, uint64_t ms);
uint64_t sim_calls(const struct sim_proc *p);
/* Blocks of memory and descriptors that it has now; of a process that ended
 * by itself: that it left. */
size_t sim_blocks(const struct sim_proc *p);
size_t sim_files(const struct sim_proc *p);

void sim_copy(void *to, const void *from, size_t n); /* uninterrupted */
uint64_t sim_ms(void);
void sim_sleep(uint64_t ms);
/* Waits until what(arg); false: not within ms. */
bool sim_until(bool (*what)(void *), void *arg, uint64_t ms);

/* From now on, for the rest of the run. */
void sim_switch_often(uint64_t one_in); /* calls that switch fibers */
void sim_delay(uint64_t us);            /* most that bytes take */
void sim_lose(uint64_t one_in);         /* packets sent again; 0: none */
/* Nothing passes between hosts for so long. */
void sim_cut(uint64_t ms);
/* Resets some TCP connection, as a middle box does; false: there is none. */
bool sim_reset(void);
/* What is sent from now on over some TCP connection does not arrive, and no
 * side is told: as if the program at its other end forgot it. */
bool sim_choke(void);

#endif
