/* The engine in a simulated machine room (sim.h), seed by seed: an initiator
 * writes to and reads from a target while processes die, stop and come back,
 * the network is cut, connections are reset and batches are canceled.
 *
 * What must hold in each run:
 *   - each batch completes exactly once, in bounded time;
 *   - a completion with 0 means that the bytes are right, and no others;
 *   - after a completion nobody touches our memory any more; nor the target's,
 *     unless it was ERR_PEER, and then not after the target's xfer_expel;
 *   - what was or is submitted by a pass that is over is not done;
 *   - memory that was deregistered is not touched any more;
 *   - errors have a reason: nothing fails in a run in which nothing happens;
 *   - a target that is there works, at the latest seconds after it came back;
 *   - a closed engine leaves no memory, thread or descriptor behind.
 *
 * 10 000 seeds, 2000 under ASan, 500 on an emulated machine; BATON_SIM_SEEDS
 * says another number, BATON_SIM_SEED runs one of them alone, BATON_SIM_ABORT=1
 * aborts where it fails. sim_world.h has what memory should hold. */
#include "tests/test.h"

#include "base/clock.h"
#include "base/mem.h"
#include "tests/xfer/sim_world.h"
#include "xfer/xfer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PORT = 7000,
    HEARTBEAT_MS = 300,
    SETTLE_MS = 20000,
    WORKS_AGAIN_MS = 4000,
};

#if defined __SANITIZE_ADDRESS__ /* watches the memory of each process */
enum { SEEDS = 2000 };
#else
enum { SEEDS = 10000 };
#endif

/* ---- the target ---- */

static const char *target_host(void)
{
    return "10.0.0.1";
}

static const char *initiator_host(void)
{
    return w.same_host ? "10.0.0.1" : "10.0.0.2";
}

static bool has_order(void *arg)
{
    const struct life *l = arg;
    return l->expel || l->drop || l->close;
}

/* Memory that nobody else may touch any more: what we put there stays. */
static void reclaim(struct life *l, bool own_only)
{
    for (int s = 0; s < SLOTS; s++) {
        if (own_only && s % 2 == 0) continue;
        paint(there(l, s), w.slots[s].there);
        w.slots[s].unknown = false;
    }
    for (size_t i = 0; i < w.submitted && !own_only; i++)
        w.batches[i].shut_out |= w.batches[i].open;
}

/* Where the initiator knows the target by passes it has another one now. */
static void target_name(struct life *l)
{
    char name[XFER_NAME_MAX + 1]; /* the initiator looks at l's meanwhile */
    snprintf(name, sizeof name, "%s", xfer_name(l->x));
    if (w.by_pass) xfer_pass(l->x, name);
    memcpy(l->name, name, sizeof name);
}

static void target_obey(struct life *l)
{
    if (l->drop) {
        l->drop = false;
        l->dropped = true; /* no more of it from now on */
        xfer_deregister(l->own);
        l->reclaimed = true;
        reclaim(l, true);
    }
    if (l->expel) {
        w.pass_over |= w.by_pass;
        int rc = xfer_expel(l->x, w.by_pass ? l->name : l->initiator, 5000);
        if (rc && w.fault != STOP_INITIATOR)
            sim_fail("expel: %s", err_name(rc));
        if (!rc) reclaim(l, false);
        target_name(l);
        l->expelled = rc == 0;
        l->expel = false;
    }
}

static void target_main(void *arg)
{
    struct life *l = arg;
    struct why why = {0};
    struct xfer_options opt = {.host = target_host(),
                               .port = PORT,
                               .token = w.token ? "secret" : NULL,
                               .insecure = true,
                               .lanes = w.lanes,
                               .workers = 1,
                               .heartbeat_ms = HEARTBEAT_MS};
    size_t bytes = SLOTS / 2 * SLOT;
    unsigned char *own = w.own; /* where its former life had it, too */
    if (xfer_open(&l->x, &opt, &why) ||
        xfer_alloc(l->x, bytes, 0, &l->shared, &why) ||
        xfer_register(l->x, own, bytes, NULL, 0, &l->own, &why))
        sim_fail("target: %s", why.text);
    l->base[0] = xfer_mem_base(l->shared);
    l->base[1] = own;
    l->key[0] = xfer_mem_key(l->shared);
    l->key[1] = xfer_mem_key(l->own);
    l->epoch = xfer_epoch(l->x);
    target_name(l);
    for (int s = 0; s < SLOTS; s++) {
        paint(there(l, s), w.slots[s].there);
        w.slots[s].unknown = false;
    }
    l->up = true;
    w.life = l;
    while (!l->close) {
        sim_until(has_order, l, 1000000);
        target_obey(l);
    }
    l->up = false;
    w.life = NULL;
    xfer_close(l->x);
}

static struct life *target_start(void)
{
    struct life *l = &w.lives[w.life_count++];
    l->proc = sim_start(target_host(), target_main, l);
    return l;
}

static bool is_up(void *arg)
{
    struct life *l = arg;
    return l->up;
}

static bool is_expelled(void *arg)
{
    struct life *l = arg;
    return !l->expel || !sim_alive(l->proc);
}

/* ---- the initiator ---- */

/* The target, by the name that it has for us now. */
static struct xfer_peer *peer_now(void)
{
    struct why why = {0};
    struct xfer_peer *peer = w.peer_count ? w.peers[w.peer_count - 1] : NULL;
    const struct life *l = w.life ? w.life : &w.lives[0];
    if (peer && (!w.life || !strcmp(xfer_peer_name(peer), l->name)))
        return peer;
    if (w.peer_count == PEERS) sim_fail("%d passes are not enough", PEERS);
    if (xfer_peer_open(w.x, l->name, &peer, &why)) sim_fail("%s", why.text);
    return w.peers[w.peer_count++] = peer;
}

static int slot_free(void)
{
    int slots = w.mems[1] ? SLOTS : SLOTS / 2;
    int first = (int)sim_random(SLOTS);
    for (int i = 0; i < SLOTS; i++) {
        int s = (first + i) % slots;
        if (!w.slots[s].busy && !w.slots[s].unknown) return s;
    }
    return -1;
}

static void batch_completed(const struct xfer_done *done)
{
    struct batch *b = &w.batches[done->tag];
    if (done->tag >= w.submitted || !b->open)
        sim_fail("batch %llu completes twice", (unsigned long long)done->tag);
    struct slot *s = &w.slots[b->slot];
    b->open = s->busy = false;
    w.open--;
    if (!has_reason(b, done->rc))
        sim_fail("batch %llu ends with %s: %s", (unsigned long long)done->tag,
                 err_name(done->rc), done->text);
    if (done->rc && !done->text[0]) sim_fail("an error without a text");
    bool lives = life_lives(b->life);
    bool taken_back = (b->life->dropped && b->slot % 2) || b->shut_out;
    if (done->rc == 0) {
        unsigned char kept[SLOT];
        sim_copy(kept, s->there, SLOT);
        for (int i = 0; i < b->count; i++)
            op_imagine(b, &b->ops[i]);
        bool reads = false;
        for (int i = 0; i < b->count; i++)
            reads |= b->ops[i].kind == XFER_READ;
        if (taken_back || !lives) { /* nobody can say what was read */
            sim_copy(s->there, kept, SLOT);
            if (reads) sim_copy(s->here, w.mine + b->slot * SLOT, SLOT);
            s->unknown |= !lives && b->life == w.life;
            /* it may have begun after that */
            s->unknown |= b->shut_out && !w.by_pass;
        }
        slot_verify(b->life, b->slot, "done");
        return;
    }
    paint(w.mine + b->slot * SLOT, s->here);
    bool surely = done->rc == ERR_PEER && !b->canceled && !w.lossy;
    if (b->shut_out && !w.by_pass && !surely) s->unknown = true;
    if (b->life != w.life || taken_back) return;
    if (done->rc == ERR_PEER)
        s->unknown = true;
    else if (lives)
        paint(there(b->life, b->slot), s->there);
}

/* One that is waited for, though not for long. */
static void batch_transfer(size_t index)
{
    struct batch *b = &w.batches[index];
    struct xfer_done done = {.tag = index};
    struct why why = {0};
    for (int i = 0; i < b->count; i++)
        b->ops[i].key = b->life->key[b->slot % 2];
    b->canceled = true;
    b->by_epoch = false;
    done.rc = xfer_transfer(peer_now(), b->ops, (size_t)b->count,
                            (int)sim_random(4), &why);
    /* Late: canceled, or cut off; which of them is not told. */
    if (done.rc == ERR_TIMEOUT)
        done.rc = has_reason(b, ERR_PEER) ? ERR_PEER : ERR_CANCELED;
    snprintf(done.text, sizeof done.text, "%.199s", why.text);
    batch_completed(&done);
}

static void batch_submit(void)
{
    struct why why = {0};
    int s = slot_free();
    struct life *life = w.life;
    if ((!life || w.life_count > 1) && sim_chance(4)) life = &w.lives[0];
    if (s < 0 || !life) return;
    size_t index = w.submitted;
    struct batch *b = &w.batches[index];
    *b = (struct batch){.open = true,
                        .slot = s,
                        .life = life,
                        .late = !sim_alive(life->proc),
                        .by_epoch = sim_chance(2)};
    paint(w.mine + s * SLOT, w.slots[s].here);
    for (int cell = 0; cell < CELLS; cell++)
        if (cell == 0 || sim_chance(2)) {
            op_make(b, cell);
            b->ops[b->count++] = b->ops[cell];
        }
    if (sim_chance(25)) {
        b->bad = true;
        b->ops[sim_random((uint64_t)b->count)].remote = 4096;
    }
    w.slots[s].busy = true;
    w.submitted++;
    w.open++;
    /* What was meant for a former life must not arrive: its epoch or its key
     * see to it. */
    struct xfer_batch batch = {.ops = b->ops,
                               .count = (size_t)b->count,
                               .tag = index,
                               .epoch = b->by_epoch ? &b->life->epoch : NULL};
    if (sim_chance(8)) {
        batch_transfer(index);
        return;
    }
    int rc = xfer_submit_batch(peer_now(), &batch, &why);
    if (rc) sim_fail("submit: %s", why.text);
}

static void completions_take(void)
{
    struct xfer_done done[4];
    size_t n;
    while ((n = xfer_poll(w.x, done, 1 + sim_random(4))) > 0)
        for (size_t i = 0; i < n; i++)
            batch_completed(&done[i]);
}

static void cancel(size_t tag, bool all)
{
    for (size_t i = 0; i < w.submitted; i++)
        if ((all || i == tag) && w.batches[i].open)
            w.batches[i].canceled = true;
    if (!all) xfer_cancel(w.x, tag);
    for (size_t i = 0; i < w.peer_count && all; i++)
        xfer_cancel_peer(w.peers[i]);
}

static void cancel_some(void)
{
    cancel(sim_random(w.submitted), sim_chance(8));
}

/* What nobody answers, on a link that lives, ends once it is canceled. */
static void settle(void)
{
    if (w.fault == CHOKE) cancel(0, true);
    uint64_t end = sim_ms() + SETTLE_MS;
    while (w.open) {
        completions_take();
        if (!w.open) break;
        if (sim_ms() > end) sim_fail("%zu batches do not complete", w.open);
        sim_sleep(5);
    }
}

/* Targets whose side of a slot is in doubt shut us out; then it is theirs. */
static void doubts_end(struct life *l)
{
    bool any = false;
    for (int s = 0; s < SLOTS; s++)
        any |= w.slots[s].unknown;
    if (!any || !life_lives(l)) return;
    snprintf(l->initiator, sizeof l->initiator, "%s", xfer_name(w.x));
    l->expel = true;
    sim_until(is_expelled, l, 100000);
}

/* The second half of our memory is taken back in the middle of everything. */
static void local_drop(void)
{
    xfer_deregister(w.mems[1]);
    w.mems[1] = NULL;
    completions_take();
    for (size_t i = 0; i < w.submitted; i++)
        if (w.batches[i].open && w.batches[i].slot >= SLOTS / 2)
            sim_fail("memory of batch %zu could be deregistered", i);
}

/* Once everything is as it should be, so are transfers, and soon. */
static void works_again(void)
{
    struct why why = {0};
    bool choked = w.fault == CHOKE; /* perhaps only now */
    uint64_t end = sim_ms() + WORKS_AGAIN_MS + (choked ? 12000 : 0);
    int rc = ERR_PEER, ms = choked ? 1000 : 20000;
    struct life *l = w.life;
    int s = slot_free();
    if (!l || s < 0) return;
    s &= ~1;
    if (w.slots[s].busy || w.slots[s].unknown) return;
    while (rc) {
        if (sim_ms() > end) sim_fail("does not work again: %s", why.text);
        struct batch b = {.slot = s, .life = l, .count = 1};
        paint(w.mine + s * SLOT, w.slots[s].here);
        op_make(&b, 0);
        rc = xfer_transfer(peer_now(), b.ops, 1, ms, &why);
        if (!life_lives(l)) return;
        if (rc != 0 && rc != ERR_PEER && rc != ERR_STALE &&
            !(choked && rc == ERR_TIMEOUT))
            sim_fail("works not: %s: %s", err_name(rc), why.text);
        if (rc == 0) op_imagine(&b, b.ops);
        /* What a failed one did is in doubt. */
        if (rc) {
            sim_copy(w.slots[s].here, w.mine + s * SLOT, SLOT);
            w.slots[s].unknown = true;
            doubts_end(l);
            if (w.slots[s].unknown) return;
        }
    }
    slot_verify(l, s, "works again");
}

static bool fault_over(void *arg)
{
    (void)arg;
    return w.fault_over;
}

static void initiator_main(void *arg)
{
    (void)arg;
    struct why why = {0};
    size_t half = SLOTS / 2 * SLOT;
    struct xfer_options opt = {.host = initiator_host(),
                               .via = w.via,
                               .lanes = w.lanes,
                               .workers = w.workers,
                               .token = w.token ? "secret" : NULL,
                               .insecure = true,
                               .heartbeat_ms = HEARTBEAT_MS};
    w.mine = mem_must(SLOTS, SLOT);
    if (xfer_open(&w.x, &opt, &why) ||
        xfer_register(w.x, w.mine, half, NULL, 0, &w.mems[0], &why) ||
        xfer_register(w.x, w.mine + half, half, NULL, 0, &w.mems[1], &why))
        sim_fail("initiator: %s", why.text);
    for (int s = 0; s < SLOTS; s++)
        paint(w.mine + s * SLOT, w.slots[s].here);
    peer_now();
    while (w.submitted < BATCHES && !w.stop_asked) {
        batch_submit();
        if (w.submitted && sim_chance(6)) cancel_some();
        if (sim_chance(2)) sim_sleep(sim_random(3));
        if (sim_chance(3)) completions_take();
        if (!w.open && slot_free() < 0) doubts_end(w.life);
        if (!w.life && w.fault_over) break;
        if (w.fault == DROP_LOCAL && w.mems[1] && sim_chance(20)) local_drop();
    }
    if (!w.stop_asked) settle();
    if (w.stop_asked) {
        xfer_stop(w.x);
        completions_take();
        if (w.open) sim_fail("%zu batches survive xfer_stop", w.open);
    } else {
        sim_until(fault_over, NULL, 100000);
        struct life *l = w.life;
        if (l && life_lives(l)) {
            doubts_end(l);
            works_again();
        }
    }
    sim_sleep(3000);
    for (int s = 0; s < SLOTS; s++)
        slot_verify(w.life, s, "at the end");
    if (sim_chance(2)) xfer_peer_close(w.peers[0]);
    if (sim_chance(2) && !w.stop_asked) xfer_deregister(w.mems[0]);
    xfer_close(w.x);
    mem_free(w.mine);
    w.done = true;
}

/* ---- the director ---- */

static bool initiator_over(void *arg)
{
    (void)arg;
    return !sim_alive(w.initiator);
}

static bool target_over(void *arg)
{
    struct life *l = arg;
    return !sim_alive(l->proc);
}

static void no_trace(const struct sim_proc *p, const char *who)
{
    if (sim_blocks(p) || sim_files(p))
        sim_fail("%s leaves %zu blocks and %zu descriptors", who, sim_blocks(p),
                 sim_files(p));
}

static bool target_dies(void)
{
    return w.fault == KILL_TARGET || w.fault == RESTART_TARGET ||
           w.fault == CLOSE_TARGET;
}

static void target_again(struct life *l)
{
    if (w.fault == CLOSE_TARGET) {
        sim_sleep(sim_random(12));
        l->close = true;
    }
    if (!sim_until(target_over, l, 60000)) {
        if (w.fault == CLOSE_TARGET) sim_fail("the target does not close");
        sim_kill(l->proc); /* fewer calls than it was given */
    }
    if (w.fault == CLOSE_TARGET) no_trace(l->proc, "the target");
    w.life = NULL;
    if (w.fault == KILL_TARGET) return;
    sim_sleep(sim_random(2) ? 0 : sim_random(3000));
    struct life *next = target_start();
    sim_until(is_up, next, 10000);
}

static bool far_enough(void *arg)
{
    return w.submitted >= *(size_t *)arg;
}

/* Waits for some moment of the run. */
static void moment(void)
{
    size_t batches = sim_random(BATCHES);
    sim_until(far_enough, &batches, sim_random(15));
    if (sim_chance(3)) sim_sleep(sim_random(4));
}

static void fault_do(struct life *l)
{
    uint64_t calls = sim_random(sim_chance(3) ? 3000 : 600);
    uint64_t ms = sim_chance(2) ? sim_random(100) : sim_random(4000);
    switch (w.fault) {
    case KILL_TARGET:
    case RESTART_TARGET: sim_kill_later(l->proc, calls); break;
    case KILL_INITIATOR: sim_kill_later(w.initiator, calls); break;
    case STOP_TARGET: sim_stop_later(l->proc, calls, ms); break;
    case STOP_INITIATOR: sim_stop_later(w.initiator, calls, ms); break;
    case CUT:
        moment();
        sim_cut(ms);
        break;
    case RESET:
        for (int i = 0; i < 4; i++) {
            moment();
            sim_reset();
        }
        break;
    case CHOKE:
        moment();
        sim_choke();
        break;
    case CLOSE_INITIATOR:
        moment();
        w.stop_asked = true;
        break;
    case DROP_OWN:
        moment();
        l->drop = true;
        break;
    case EXPEL:
        moment();
        snprintf(l->initiator, sizeof l->initiator, "%s",
                 w.x ? xfer_name(w.x) : "10.0.0.2:1");
        l->expel = true;
        break;
    default: break;
    }
    if (target_dies()) target_again(l);
    if (w.fault == CUT || w.fault == STOP_TARGET || w.fault == STOP_INITIATOR)
        sim_sleep(ms + 400);
    w.fault_over = true;
}

static void director_main(void *arg)
{
    static const unsigned vias[] = {XFER_VIA_ALL, XFER_VIA_MEMFD | XFER_VIA_TCP,
                                    XFER_VIA_CMA | XFER_VIA_TCP,
                                    XFER_VIA_UNIX | XFER_VIA_TCP, XFER_VIA_TCP};
    static const uint64_t often[] = {2, 5, 20, 100};
    (void)arg;
    w.fault = sim_random(FAULTS);
    w.same_host = sim_chance(2);
    w.lossy = sim_chance(5);
    w.via = vias[sim_random(5)];
    w.lanes = 1 + (unsigned)sim_random(3);
    w.workers = 1 + (unsigned)sim_random(2);
    w.token = (unsigned)sim_random(2);
    w.by_pass = sim_chance(2);
    sim_switch_often(often[sim_random(4)]);
    sim_delay(sim_chance(3) ? 3000 : 100);
    if (w.lossy) sim_lose(30);
    if (getenv("BATON_SIM_SEED"))
        fprintf(stderr, "fault %d, %s, %s, via 0x%x, %u lanes, %u workers\n",
                w.fault, w.same_host ? "one host" : "two hosts",
                w.lossy ? "lossy" : "clean", w.via, w.lanes, w.workers);
    struct life *l = target_start();
    sim_until(is_up, l, 1000);
    w.initiator = sim_start(initiator_host(), initiator_main, NULL);
    fault_do(l);
    if (!sim_until(initiator_over, NULL, 200000))
        sim_fail("the initiator does not end");
    if (w.fault != KILL_INITIATOR) {
        if (!w.done) sim_fail("the initiator died");
        no_trace(w.initiator, "the initiator");
    }
    l = w.life;
    if (!l) return;
    l->close = true;
    if (!sim_until(target_over, l, 60000)) sim_fail("the target does not end");
    no_trace(l->proc, "the target");
}

static void seed_run(uint64_t seed)
{
    world_begin(seed);
    sim_run(seed, director_main, NULL);
}

static void every_seed_keeps_its_word(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__
    SKIP("fibers of one thread: nothing for the thread sanitizer to see");
#endif
    const char *one = getenv("BATON_SIM_SEED"), *n = getenv("BATON_SIM_SEEDS");
    uint64_t seeds = getenv("BATON_EMULATOR") ? SEEDS / 20 : SEEDS;
    if (n) seeds = strtoull(n, NULL, 10);
    if (one) {
        seed_run(strtoull(one, NULL, 10));
        return;
    }
    for (uint64_t seed = 1; seed <= seeds; seed++)
        seed_run(seed);
    printf("%llu seeds\n", (unsigned long long)seeds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_seed_keeps_its_word),
    };
    return cmocka_run_group_tests_name("sim", tests, NULL, NULL);
}
