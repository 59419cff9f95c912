#include "tests/xfer/sim_world.h"

#include "base/clock.h"

#include <string.h>

struct world w;

static uint64_t paint_seed;

void world_begin(uint64_t seed)
{
    memset(&w, 0, sizeof w);
    paint_seed = seed;
}

void paint(unsigned char *at, unsigned char *copy)
{
    uint64_t words[SLOT / 8], first = rng_next(&paint_seed);
    for (size_t i = 0; i < SLOT / 8; i++)
        words[i] = first = first * 0x9e3779b97f4a7c15u + 1;
    sim_copy(at, words, SLOT);
    sim_copy(copy, words, SLOT);
}

unsigned char *there(const struct life *l, int slot)
{
    return l->base[slot % 2] + slot / 2 * SLOT;
}

bool life_lives(const struct life *l)
{
    return l && l == w.life && l->up && sim_alive(l->proc);
}

void op_make(struct batch *b, int cell)
{
    struct xfer_op *op = &b->ops[cell];
    size_t at = (size_t)b->slot * SLOT + (size_t)(cell * CELL);
    uint64_t bytes = sim_chance(3) ? 1 + sim_random(CELL) : 1 + sim_random(90);
    uint64_t local_pitch = bytes + sim_random(20);
    uint64_t remote_pitch = bytes + sim_random(20);
    uint64_t widest = local_pitch > remote_pitch ? local_pitch : remote_pitch;
    uint64_t rows = sim_chance(2) ? 1 : 1 + sim_random(CELL / widest + 1);
    while (rows > 1 && rows * widest > CELL)
        rows--;
    uint64_t slack = CELL - (rows > 1 ? rows * widest : bytes);
    uint64_t shift = sim_random(slack + 1);
    *op = (struct xfer_op){.kind = sim_chance(3) ? XFER_READ : XFER_WRITE,
                           .rows = (uint32_t)rows,
                           .local = w.mine + at + shift,
                           .remote = (uintptr_t)there(b->life, b->slot) +
                                     (uint64_t)(cell * CELL) + (slack - shift),
                           .bytes = bytes,
                           .local_pitch = local_pitch,
                           .remote_pitch = remote_pitch,
                           .key = b->by_epoch ? 0 : b->life->key[b->slot % 2]};
}

void op_imagine(const struct batch *b, const struct xfer_op *op)
{
    struct slot *s = &w.slots[b->slot];
    size_t here =
        (size_t)((unsigned char *)op->local - w.mine) - (size_t)b->slot * SLOT;
    size_t far = op->remote - (uintptr_t)there(b->life, b->slot);
    for (uint32_t row = 0; row < op->rows; row++) {
        unsigned char *a = s->here + here + row * op->local_pitch;
        unsigned char *z = s->there + far + row * op->remote_pitch;
        if (op->kind == XFER_WRITE)
            sim_copy(z, a, op->bytes);
        else
            sim_copy(a, z, op->bytes);
    }
}

bool has_reason(const struct batch *b, int rc)
{
    bool network =
        w.lossy || w.fault == CUT || w.fault == RESET || w.fault == CHOKE;
    switch (rc) {
    case 0: return !b->bad && !b->late;
    case ERR_RANGE:
        return b->bad || b->life->dropped || (w.life_count > 1 && !b->by_epoch);
    case ERR_CANCELED: return b->canceled || w.stop_asked;
    case ERR_STALE: return w.life_count > 1 || w.pass_over;
    case ERR_PEER:
        return network ||
               (w.fault >= KILL_TARGET && w.fault <= STOP_INITIATOR) ||
               w.fault == EXPEL || w.stop_asked;
    default: return false;
    }
}

void slot_verify(const struct life *l, int s, const char *when)
{
    const struct slot *slot = &w.slots[s];
    const unsigned char *mine = w.mine + s * SLOT;
    bool known = !slot->unknown && life_lives(l) &&
                 (s % 2 == 0 || !l->dropped || l->reclaimed);
    if (memcmp(mine, slot->here, SLOT) != 0)
        sim_fail("%s: slot %d: bytes here are wrong", when, s);
    if (known && memcmp(there(l, s), slot->there, SLOT) != 0)
        sim_fail("%s: slot %d: bytes there are wrong", when, s);
}
