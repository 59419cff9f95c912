/* tests/xfer/sim_world.h - what sim_test.c does to the engine, and what memory
 * should hold then: slots of the initiator's memory, each with one of the
 * target's, and batches of operations between the two. */
#ifndef BATON_TESTS_XFER_SIM_WORLD_H
#define BATON_TESTS_XFER_SIM_WORLD_H

#include "tests/xfer/sim.h"
#include "xfer/xfer.h"

enum {
    SLOTS = 16, /* even ones in xfer_alloc's memory, odd ones in our own */
    SLOT = 12000,
    CELLS = 8, /* of a slot; an operation stays in its own */
    CELL = SLOT / CELLS,
    BATCHES = 40,
    PEERS = 64,
};

enum fault {
    NOTHING,
    KILL_TARGET,
    RESTART_TARGET,
    CLOSE_TARGET,
    STOP_TARGET,
    STOP_INITIATOR,
    KILL_INITIATOR,
    CLOSE_INITIATOR,
    CUT,
    RESET,
    CHOKE,
    DROP_OWN,
    EXPEL,
    DROP_LOCAL,
    FAULTS
};

/* One life of the target. */
struct life {
    struct sim_proc *proc;
    struct xfer *x;
    struct xfer_mem *shared, *own;
    struct xfer_epoch epoch;
    unsigned char *base[2]; /* shared, own */
    uint64_t key[2];
    bool up;                 /* its memory is there */
    bool dropped, reclaimed; /* own is, was deregistered */
    bool expel, drop, close, expelled;
    char initiator[64];
    char name[XFER_NAME_MAX + 1]; /* by which it is opened; a pass of late */
};

struct slot {
    bool busy, unknown; /* unknown: what the target's side of it holds */
    unsigned char here[SLOT], there[SLOT]; /* what it should hold */
};

struct batch {
    bool open;
    int slot, count;
    struct life *life;
    bool canceled, bad, by_epoch;
    bool late;     /* meant for a life that was over */
    bool shut_out; /* it was open when the target expelled us */
    struct xfer_op ops[CELLS];
};

extern struct world {
    enum fault fault;
    bool same_host, lossy, fault_over, quiet, stop_asked;
    bool by_pass, pass_over; /* the target is known by passes; one was over */
    unsigned via, lanes, workers, token;
    unsigned char own[SLOTS / 2 * SLOT];
    struct life lives[4], *life; /* the present one, or NULL */
    size_t life_count;
    struct sim_proc *initiator;
    struct xfer *x;
    struct xfer_peer *peers[PEERS]; /* the last one is the present one */
    size_t peer_count;
    struct xfer_mem *mems[2]; /* of mine, halves of it */
    unsigned char *mine;
    struct slot slots[SLOTS];
    struct batch batches[BATCHES];
    size_t submitted, open;
    bool done;
} w;

void world_begin(uint64_t seed);
/* New bytes of a slot, in both places. */
void paint(unsigned char *at, unsigned char *copy);
/* The target's side of a slot. */
unsigned char *there(const struct life *l, int slot);
bool life_lives(const struct life *l);

/* Some operation in that cell of the batch's slot. */
void op_make(struct batch *b, int cell);
/* What memory holds once op is done, in the two images of its slot. */
void op_imagine(const struct batch *b, const struct xfer_op *op);
/* Whether a run like this one may end a batch so. */
bool has_reason(const struct batch *b, int rc);
/* Ends the run when memory is not what it should be. */
void slot_verify(const struct life *l, int s, const char *when);

#endif
