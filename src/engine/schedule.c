#include "engine/schedule.h"

#include "base/mem.h"

#include <assert.h>

struct list {
    struct seq *first, *last;
    uint32_t count;
};

struct schedule {
    struct kv_pool *pool;
    struct kv_radix *cache; /* NULL: off */
    uint32_t page_tokens;
    uint32_t max_running, chunk_tokens, logit_rows, reserved;
    struct list lists[SEQ_STATE_COUNT]; /* QUEUED: retracted ones first */
    uint64_t next_order;
    uint64_t retractions;
    kv_page *path; /* [page_count] scratch */
    struct plan plan;
    /* The sequence that found no room, and how much there was: it is not
     * tried again before there is more. */
    struct seq *blocked;
    uint32_t blocked_room;
};

int schedule_create(struct schedule **out, const struct schedule_options *o,
                    struct why *why)
{
    *out = NULL;
    assert(o->max_running && o->chunk_tokens);
    assert(o->logit_rows >= o->max_running);
    struct schedule *s = mem_must(1, sizeof *s);
    s->pool = o->pool;
    s->page_tokens = kv_pool_shape(o->pool)->page_tokens;
    s->max_running = o->max_running;
    s->chunk_tokens = o->chunk_tokens;
    s->logit_rows = o->logit_rows;
    s->reserved = o->reserved;
    s->plan.rows = mem_try(o->max_running, sizeof *s->plan.rows, 0);
    s->path = mem_try(kv_pool_page_count(o->pool), sizeof *s->path, 0);
    int rc = 0;
    if (!s->plan.rows || !s->path)
        rc = err_set(why, ERR_NOMEM, "scheduler: tables");
    else if (o->prefix_cache)
        rc = kv_radix_create(&s->cache, o->pool, why);
    if (rc) {
        schedule_destroy(s);
        return rc;
    }
    *out = s;
    return 0;
}

void schedule_destroy(struct schedule *s)
{
    if (!s) return;
    for (int i = 0; i < SEQ_STATE_COUNT; i++)
        assert(s->lists[i].count == 0);
    kv_radix_destroy(s->cache);
    mem_free(s->plan.rows);
    mem_free(s->path);
    mem_free(s);
}

/* Lists */

static void leave(struct schedule *s, struct seq *seq)
{
    struct list *l = &s->lists[seq->state];
    *(seq->prev ? &seq->prev->next : &l->first) = seq->next;
    *(seq->next ? &seq->next->prev : &l->last) = seq->prev;
    l->count--;
    if (s->blocked == seq) s->blocked = NULL;
}

/* Joins state's list before `before`, NULL: at the end. */
static void join(struct schedule *s, struct seq *seq, enum seq_state state,
                 struct seq *before)
{
    struct list *l = &s->lists[state];
    seq->state = state;
    seq->next = before;
    seq->prev = before ? before->prev : l->last;
    *(seq->prev ? &seq->prev->next : &l->first) = seq;
    *(seq->next ? &seq->next->prev : &l->last) = seq;
    l->count++;
}

static void move(struct schedule *s, struct seq *seq, enum seq_state state)
{
    leave(s, seq);
    join(s, seq, state, NULL);
}

static uint32_t count(const struct schedule *s, enum seq_state state)
{
    return s->lists[state].count;
}

/* Pages */

static uint32_t pages_of(const struct schedule *s, uint32_t tokens)
{
    return (uint32_t)(((uint64_t)tokens + s->page_tokens - 1) / s->page_tokens);
}

static int take(struct schedule *s, struct seq *seq, uint32_t n)
{
    while (kv_pool_take(s->pool, n, seq->pages + seq->page_count)) {
        uint32_t free_pages = kv_pool_free_count(s->pool);
        uint32_t lacking = n > free_pages ? n - free_pages : n;
        if (!s->cache || !kv_radix_evict(s->cache, lacking)) return ERR_AGAIN;
    }
    seq->page_count += n;
    return 0;
}

static void drop_pages(struct schedule *s, struct seq *seq)
{
    for (uint32_t i = 0; i < seq->page_count; i++)
        kv_pool_drop(s->pool, seq->pages[i]);
    if (seq->lock) kv_radix_unlock(s->cache, seq->lock);
    seq->lock = 0;
    seq->page_count = seq->done_tokens = 0;
}

/* Where the cache had a page already the sequence changes over to it, and
 * its own copy (the same bits) goes back: unless a peer knows its pages. */
static void adopt(struct schedule *s, struct seq *seq, uint32_t n)
{
    kv_radix_path(s->cache, seq->lock, s->path, n);
    for (uint32_t i = 0; i < n; i++) {
        if (seq->pages[i] == s->path[i]) continue;
        kv_pool_ref(s->pool, s->path[i]);
        kv_pool_drop(s->pool, seq->pages[i]);
        seq->pages[i] = s->path[i];
    }
}

/* Puts its whole computed pages into the prefix cache. */
static void publish(struct schedule *s, struct seq *seq)
{
    uint32_t n = seq->done_tokens / s->page_tokens;
    if (!s->cache || n == 0) return;
    kv_radix_insert(s->cache, seq->cache_key, seq->tokens, seq->pages, n,
                    &seq->lock);
    if (seq->role != ROLE_PREFILL) adopt(s, seq, n);
}

/* Letting in */

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Pages it may want beyond those it has (or is about to take: have). */
static uint32_t growth(const struct schedule *s, const struct seq *seq,
                       uint32_t have)
{
    if (seq->role == ROLE_PREFILL) return 0;
    uint64_t tokens = (uint64_t)seq->known_tokens + s->reserved;
    if (tokens > seq->limit_tokens) tokens = seq->limit_tokens;
    uint32_t want = pages_of(s, (uint32_t)tokens);
    return want > have ? want - have : 0;
}

static const enum seq_state growing[] = {SEQ_PREFILL, SEQ_RUNNING, SEQ_RESERVED,
                                         SEQ_READY};

/* Free and evictable pages that nobody alive is going to grow into. */
static uint32_t room(const struct schedule *s)
{
    uint64_t have = kv_pool_free_count(s->pool);
    if (s->cache) have += kv_radix_evictable(s->cache);
    uint64_t promised = 0;
    for (size_t i = 0; i < sizeof growing / sizeof *growing; i++)
        for (struct seq *q = s->lists[growing[i]].first; q; q = q->next)
            promised += growth(s, q, q->page_count);
    return have > promised ? (uint32_t)(have - promised) : 0;
}

static bool nothing_holds_pages(const struct schedule *s)
{
    return count(s, SEQ_PREFILL) + count(s, SEQ_RUNNING) + count(s, SEQ_HELD) +
               count(s, SEQ_RESERVED) + count(s, SEQ_READY) +
               count(s, SEQ_QUARANTINED) ==
           0;
}

/* Takes the pages that seq lacks for `tokens` tokens, if it may be let in. */
static bool let_in(struct schedule *s, struct seq *seq, uint32_t tokens)
{
    uint32_t all = pages_of(s, tokens), lacking = all - seq->page_count;
    bool fits = (uint64_t)lacking + growth(s, seq, all) <= room(s);
    if (!fits && !nothing_holds_pages(s)) return false;
    return take(s, seq, lacking) == 0;
}

/* A blocked sequence is looked at again when there is more room than then,
 * or when it has become alone. */
static bool still_blocked(const struct schedule *s, const struct seq *seq)
{
    return s->blocked == seq && room(s) <= s->blocked_room &&
           !nothing_holds_pages(s);
}

/* Lets seq in with what the cache has of its first `reuse` tokens. */
static bool enter(struct schedule *s, struct seq *seq, uint32_t reuse,
                  enum seq_state state)
{
    if (still_blocked(s, seq)) return false;
    if (s->cache && reuse)
        seq->page_count = kv_radix_match(s->cache, seq->cache_key, seq->tokens,
                                         reuse, seq->pages, &seq->lock);
    uint32_t found = seq->page_count * s->page_tokens;
    if (!let_in(s, seq, seq->known_tokens)) {
        drop_pages(s, seq);
        s->blocked = seq;
        s->blocked_room = room(s);
        return false;
    }
    seq->done_tokens = found;
    if (seq->retractions == 0) seq->cached_tokens = found;
    move(s, seq, state);
    return true;
}

static bool start(struct schedule *s, struct seq *seq)
{
    /* The last token is computed in any case: its logits. */
    return enter(s, seq, least(seq->known_tokens - 1, seq->score_from),
                 SEQ_PREFILL);
}

void schedule_add(struct schedule *s, struct seq *seq)
{
    assert(seq->prompt_tokens >= 1);
    assert(seq->prompt_tokens <= seq->known_tokens);
    assert(seq->known_tokens <= seq->limit_tokens);
    seq->done_tokens = seq->page_count = seq->retractions = 0;
    seq->cached_tokens = 0;
    seq->lock = 0;
    seq->order = s->next_order++;
    join(s, seq, seq->role == ROLE_DECODE ? SEQ_RESERVING : SEQ_QUEUED, NULL);
}

struct seq *schedule_reserve(struct schedule *s)
{
    /* SGLang's pre-allocation: twice as many again where slots are few. */
    uint32_t most = s->max_running <= 32 ? 3 * s->max_running : s->max_running;
    struct seq *seq = s->lists[SEQ_RESERVING].first;
    if (!seq || count(s, SEQ_QUEUED)) return NULL;
    if (count(s, SEQ_RESERVED) + count(s, SEQ_READY) + count(s, SEQ_RUNNING) +
            count(s, SEQ_PREFILL) >=
        most)
        return NULL;
    /* The peer sends one page at least. */
    uint32_t reuse = seq->own_prefix ? seq->known_tokens - 1 : 0;
    return enter(s, seq, reuse, SEQ_RESERVED) ? seq : NULL;
}

void schedule_admit(struct schedule *s, struct seq *seq)
{
    assert(seq->state == SEQ_RESERVED);
    seq->done_tokens = seq->known_tokens;
    move(s, seq, SEQ_READY);
}

/* Retraction */

static uint32_t output_of(const struct seq *seq)
{
    return seq->known_tokens - seq->prompt_tokens;
}

/* Whether a is retracted rather than b. */
static bool sooner(const struct seq *a, const struct seq *b)
{
    if (output_of(a) != output_of(b)) return output_of(a) < output_of(b);
    if (a->prompt_tokens != b->prompt_tokens)
        return a->prompt_tokens > b->prompt_tokens;
    return a->order > b->order;
}

static struct seq *victim(const struct schedule *s)
{
    struct seq *v = NULL;
    for (struct seq *q = s->lists[SEQ_PREFILL].first; q; q = q->next)
        if (q->role != ROLE_PREFILL && (!v || sooner(q, v))) v = q;
    for (struct seq *q = s->lists[SEQ_RUNNING].first; q; q = q->next)
        if (!v || sooner(q, v)) v = q;
    return v;
}

static void retract(struct schedule *s, struct seq *seq)
{
    publish(s, seq);
    drop_pages(s, seq);
    seq->retractions++;
    s->retractions++;
    struct seq *at = s->lists[SEQ_QUEUED].first;
    while (at && at->retractions && at->order < seq->order)
        at = at->next;
    leave(s, seq);
    join(s, seq, SEQ_QUEUED, at);
}

/* Gives every running sequence a page for its next token. */
static void grow(struct schedule *s)
{
    struct seq *q = s->lists[SEQ_RUNNING].first;
    while (q) {
        if (q->done_tokens < q->page_count * s->page_tokens ||
            take(s, q, 1) == 0) {
            q = q->next;
            continue;
        }
        retract(s, victim(s));
        q = s->lists[SEQ_RUNNING].first; /* q itself may have gone */
    }
}

/* Planning */

/* Logits wanted of the next rows: of scored prompt tokens, and the last. */
static uint32_t logits_of(const struct seq *seq, uint32_t rows)
{
    uint32_t end = seq->done_tokens + rows, wanted = end == seq->known_tokens;
    if (seq->score_from == NO_SCORE) return wanted;
    uint32_t from = seq->score_from, to = least(end, seq->prompt_tokens - 1);
    if (from < seq->done_tokens) from = seq->done_tokens;
    return wanted + (to > from ? to - from : 0);
}

/* The rows of a prompt within budget and logits, which is used up. */
static uint32_t chunk(const struct schedule *s, const struct seq *seq,
                      uint32_t budget, uint32_t *spare_logits)
{
    uint32_t rows = seq->known_tokens - seq->done_tokens;
    if (rows > budget) {
        uint32_t end = seq->done_tokens + budget;
        uint32_t aligned = end - end % s->page_tokens;
        rows = (aligned > seq->done_tokens ? aligned : end) - seq->done_tokens;
    }
    /* Each sequence has one row of logits of its own, the rest is shared. */
    uint32_t most = 1 + *spare_logits;
    if (logits_of(seq, rows) > most) {
        uint32_t from = seq->score_from > seq->done_tokens ? seq->score_from
                                                           : seq->done_tokens;
        rows = from + most - seq->done_tokens;
    }
    uint32_t used = logits_of(seq, rows);
    *spare_logits -= used > 1 ? used - 1 : 0;
    return rows;
}

static void plan_row(struct plan *plan, struct seq *seq, uint32_t rows)
{
    plan->rows[plan->count++] = (struct plan_row){seq, rows};
    plan->tokens += rows;
}

static uint32_t busy(const struct schedule *s)
{
    return count(s, SEQ_PREFILL) + count(s, SEQ_RUNNING);
}

const struct plan *schedule_plan(struct schedule *s)
{
    struct plan *plan = &s->plan;
    plan->count = plan->tokens = 0;
    plan->stuck = NULL;
    while (count(s, SEQ_READY) && busy(s) < s->max_running)
        move(s, s->lists[SEQ_READY].first, SEQ_RUNNING);
    grow(s);
    for (struct seq *q = s->lists[SEQ_RUNNING].first; q; q = q->next)
        plan_row(plan, q, 1);

    uint32_t budget = s->chunk_tokens;
    uint32_t spare_logits = s->logit_rows - s->max_running;
    for (struct seq *q = s->lists[SEQ_PREFILL].first;; q = q->next) {
        if (!q) { /* all begun ones have their share: begin another */
            struct seq *head = s->lists[SEQ_QUEUED].first;
            if (!head || !budget || busy(s) == s->max_running) break;
            if (!start(s, head)) break;
            q = head;
        }
        if (!budget) break;
        uint32_t rows = chunk(s, q, budget, &spare_logits);
        plan_row(plan, q, rows);
        budget -= rows;
    }
    if (plan->count == 0 && nothing_holds_pages(s)) plan->stuck = s->blocked;
    return plan;
}

void schedule_advance(struct schedule *s, struct seq *seq, uint32_t rows)
{
    seq->done_tokens += rows;
    assert(seq->done_tokens <= seq->known_tokens);
    assert(seq->done_tokens <= seq->page_count * s->page_tokens);
    if (seq->state != SEQ_PREFILL || seq->done_tokens < seq->known_tokens)
        return;
    publish(s, seq);
    move(s, seq, seq->role == ROLE_PREFILL ? SEQ_HELD : SEQ_RUNNING);
}

/* Ends */

void schedule_end(struct schedule *s, struct seq *seq)
{
    if (seq->state != SEQ_QUARANTINED) publish(s, seq);
    drop_pages(s, seq);
    leave(s, seq);
}

void schedule_quarantine(struct schedule *s, struct seq *seq)
{
    if (seq->lock) kv_radix_unlock(s->cache, seq->lock);
    seq->lock = 0;
    move(s, seq, SEQ_QUARANTINED);
}

static uint32_t alive(const struct schedule *s)
{
    uint32_t n = 0;
    for (int i = 0; i < SEQ_STATE_COUNT; i++)
        n += s->lists[i].count;
    return n - count(s, SEQ_QUARANTINED);
}

bool schedule_flush(struct schedule *s)
{
    if (alive(s)) return false;
    if (s->cache) kv_radix_evict(s->cache, UINT32_MAX);
    return true;
}

void schedule_count(const struct schedule *s, struct schedule_counts *out)
{
    *out = (struct schedule_counts){
        .pages_free = kv_pool_free_count(s->pool),
        .pages_cached = s->cache ? kv_radix_cached(s->cache) : 0,
        .retractions = s->retractions,
    };
    for (int i = 0; i < SEQ_STATE_COUNT; i++)
        out->state[i] = s->lists[i].count;
    struct seq *q = s->lists[SEQ_QUEUED].first;
    for (; q && q->retractions; q = q->next)
        out->retracted++;
}

void schedule_check(const struct schedule *s)
{
    uint64_t claims = s->cache ? kv_radix_cached(s->cache) : 0;
    uint32_t pages = kv_pool_page_count(s->pool) - 1;
    uint32_t used = pages - kv_pool_free_count(s->pool);
    if (nothing_holds_pages(s)) {
        assert(used == claims);
        return;
    }
    for (int i = 0; i < SEQ_STATE_COUNT; i++)
        for (struct seq *q = s->lists[i].first; q; q = q->next) {
            assert(q->done_tokens <= q->known_tokens);
            assert(q->known_tokens <= q->limit_tokens);
            assert(q->done_tokens <= q->page_count * s->page_tokens);
            claims += q->page_count;
        }
    uint64_t refs = 0;
    for (kv_page p = 1; p <= pages; p++) {
        uint32_t n = kv_pool_refs(s->pool, p);
        refs += n;
        used -= n > 0;
    }
    assert(refs == claims && used == 0);
}
