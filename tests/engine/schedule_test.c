#include "tests/test.h"

#include "base/clock.h"
#include "base/mem.h"
#include "engine/schedule.h"

enum { SEQS = 400, LONGEST = 200 };

static struct seq seqs[SEQS];
static int32_t tokens[SEQS][LONGEST];
static kv_page pages[SEQS][LONGEST + 1];
static bool known_to_peer[SEQS]; /* RESERVED or role PREFILL with pages */
static uint32_t started[SEQS];   /* step of its first rows, 0: none */
static bool ended[SEQS];

static void *slab;
static struct kv_pool *pool;
static struct schedule *sched;
static struct schedule_options options;

static void init(const struct schedule_options *o, uint32_t page_tokens,
                 uint32_t page_count)
{
    struct kv_shape shape = {1, 1, 1, page_tokens, DTYPE_F16};
    slab = mem_must(kv_shape_slab_bytes(&shape, page_count + 1), 1);
    struct kv_pool_options po = {shape, page_count + 1, slab, NULL, NULL};
    assert_int_equal(kv_pool_create(&pool, &po, NULL), 0);
    options = *o;
    options.pool = pool;
    assert_int_equal(schedule_create(&sched, &options, NULL), 0);
    memset(known_to_peer, 0, sizeof known_to_peer);
    memset(started, 0, sizeof started);
    memset(ended, 0, sizeof ended);
}

static void fini(void)
{
    schedule_check(sched);
    schedule_destroy(sched);
    assert_int_equal(kv_pool_free_count(pool), kv_pool_page_count(pool) - 1);
    kv_pool_destroy(pool);
    mem_free(slab);
}

static struct seq *add(uint32_t i, enum request_role role, uint32_t prompt,
                       uint32_t output)
{
    struct seq *q = &seqs[i];
    *q = (struct seq){.role = role,
                      .tokens = tokens[i],
                      .pages = pages[i],
                      .prompt_tokens = prompt,
                      .known_tokens = prompt,
                      .limit_tokens = prompt + output,
                      .score_from = NO_SCORE};
    for (uint32_t j = 0; j < prompt; j++)
        tokens[i][j] = (int32_t)(j + i * 1000);
    schedule_add(sched, q);
    return q;
}

static uint32_t index_of(const struct seq *q)
{
    return (uint32_t)(q - seqs);
}

static uint32_t output_of(const struct seq *q)
{
    return q->known_tokens - q->prompt_tokens;
}

/* What a plan must keep, whatever the load. before: states before it. */
static void check_plan(const struct plan *plan, const enum seq_state *before,
                       uint32_t count)
{
    bool planned[SEQS] = {false};
    uint32_t decode = 0, prompt = 0, logits = 0;
    assert_in_range(plan->count, 0, options.max_running);
    for (uint32_t i = 0; i < plan->count; i++) {
        struct seq *q = plan->rows[i].seq;
        uint32_t rows = plan->rows[i].rows, end = q->done_tokens + rows;
        assert_false(planned[index_of(q)]);
        planned[index_of(q)] = true;
        assert_in_range(rows, 1, q->known_tokens - q->done_tokens);
        assert_true(end <= q->page_count * kv_pool_shape(pool)->page_tokens);
        assert_true(q->state == SEQ_RUNNING || q->state == SEQ_PREFILL);
        if (q->state == SEQ_RUNNING) {
            assert_int_equal(rows, 1);
            decode++;
        } else {
            prompt += rows;
        }
        for (uint32_t at = q->done_tokens; at < end; at++)
            logits += (at >= q->score_from && at + 1 < q->prompt_tokens) ||
                      at + 1 == q->known_tokens;
    }
    assert_int_equal(plan->tokens, decode + prompt);
    assert_in_range(prompt, 0, options.chunk_tokens);
    assert_in_range(logits, 0, options.logit_rows);

    uint32_t most_retracted = 0;
    bool retracted_waits = false;
    for (uint32_t i = 0; i < count; i++) {
        struct seq *q = &seqs[i];
        if (ended[i]) continue;
        if (q->state == SEQ_RUNNING)
            assert_true(planned[i]); /* none is left out */
        if (q->state != SEQ_QUEUED || !q->retractions) continue;
        retracted_waits = true;
        assert_int_equal(q->page_count, 0);
        assert_false(known_to_peer[i]);
        if (before[i] == SEQ_QUEUED) continue;
        if (output_of(q) > most_retracted) most_retracted = output_of(q);
    }
    for (uint32_t i = 0; i < count; i++) {
        struct seq *q = &seqs[i];
        if (ended[i]) continue;
        if (q->state == SEQ_RUNNING) /* it was ahead of who had to go */
            assert_true(output_of(q) >= most_retracted);
        if (before[i] == SEQ_QUEUED && q->state == SEQ_PREFILL &&
            !q->retractions)
            assert_false(retracted_waits);
    }
}

static void end_seq(struct seq *q)
{
    ended[index_of(q)] = true;
    known_to_peer[index_of(q)] = false;
    schedule_end(sched, q);
}

/* What the engine does with rows: output tokens until the limit. */
static void compute(const struct plan *plan, uint32_t step)
{
    for (uint32_t i = 0; i < plan->count; i++) {
        struct seq *q = plan->rows[i].seq;
        if (!started[index_of(q)]) started[index_of(q)] = step;
        if (q->role == ROLE_PREFILL) known_to_peer[index_of(q)] = true;
        uint32_t end = q->done_tokens + plan->rows[i].rows;
        if (q->score_from < end && end < q->prompt_tokens) q->score_from = end;
        schedule_advance(sched, q, plan->rows[i].rows);
        if (end < q->known_tokens || q->role == ROLE_PREFILL) continue;
        q->score_from = NO_SCORE;
        if (q->known_tokens < q->limit_tokens)
            q->tokens[q->known_tokens++] = (int32_t)(step % 5);
        if (q->known_tokens == q->limit_tokens) end_seq(q);
    }
}

static uint64_t kept; /* tokens that DECODE ones found in the cache */

static uint64_t random_load(uint64_t seed, uint32_t page_tokens,
                            uint32_t page_count, bool roles)
{
    uint32_t capacity = page_tokens * page_count, added = 0, left = SEQS;
    uint64_t retractions = 0;
    enum seq_state before[SEQS] = {0};
    uint32_t step = 0;
    for (; left > 0; step++) {
        assert_in_range(step, 0, 60000); /* nobody waits for ever */
        if (added < SEQS && rng_next(&seed) % 3 == 0) {
            uint32_t prompt = 1 + (uint32_t)(rng_next(&seed) % 60);
            uint32_t output = 1 + (uint32_t)(rng_next(&seed) % 60);
            if (prompt + output > capacity) output = capacity - prompt;
            enum request_role role =
                roles ? (enum request_role)(rng_next(&seed) % 3) : ROLE_WHOLE;
            if (role == ROLE_PREFILL) output = 1;
            struct seq *q = add(added, role, prompt, output);
            uint64_t family = rng_next(&seed) % 4;
            for (uint32_t j = 0; j < prompt; j++)
                q->tokens[j] = (int32_t)(j < 30 ? j * family : added + j);
            q->own_prefix = added % 2;
            if (rng_next(&seed) % 4 == 0 && prompt > 1)
                q->score_from = (uint32_t)(rng_next(&seed) % (prompt - 1));
            added++;
        }
        for (struct seq *q; (q = schedule_reserve(sched));) {
            known_to_peer[index_of(q)] = true;
            assert_int_equal(q->done_tokens % page_tokens, 0);
            assert_true(q->done_tokens < q->prompt_tokens);
            assert_true(q->own_prefix || q->done_tokens == 0);
            kept += q->done_tokens;
        }
        for (uint32_t i = 0; i < added; i++)
            before[i] = seqs[i].state;
        const struct plan *plan = schedule_plan(sched);
        assert_null(plan->stuck);
        check_plan(plan, before, added);
        compute(plan, step + 1);
        left = SEQS - added;
        for (uint32_t i = 0; i < added; i++) {
            struct seq *q = &seqs[i];
            if (ended[i]) continue;
            left++;
            uint64_t dice = rng_next(&seed);
            if (q->state == SEQ_HELD && dice % 4 == 0) {
                end_seq(q);
            } else if (q->state == SEQ_RESERVED && dice % 4 == 0) {
                known_to_peer[i] = false;
                schedule_admit(sched, q);
                q->tokens[q->known_tokens++] = 1;
                if (q->known_tokens == q->limit_tokens) end_seq(q);
            } else if (q->state == SEQ_QUARANTINED ? dice % 8 == 0
                                                   : dice % 500 == 0) {
                end_seq(q);
            } else if (q->page_count && dice % 500 == 1 &&
                       q->state != SEQ_QUARANTINED) {
                schedule_quarantine(sched, q);
                known_to_peer[i] = true;
            }
        }
        schedule_check(sched);
        struct schedule_counts n;
        schedule_count(sched, &n);
        retractions = n.retractions;
    }
    return retractions;
}

static void any_load_keeps_the_rules(void **state)
{
    (void)state;
    uint64_t retractions = 0;
    for (uint32_t i = 0; i < 24; i++) {
        struct schedule_options o = {
            .prefix_cache = i % 2,
            .max_running = i % 3 ? 6 : 40,
            .chunk_tokens = (uint32_t[]){16, 1, 100, 7}[i % 4],
            .reserved = i % 5 ? 4 : 40,
        };
        o.logit_rows = o.max_running + i % 3 * 5;
        uint32_t page_tokens = (uint32_t[]){4, 1, 16}[i % 3];
        init(&o, page_tokens, (i % 4 == 3 ? 1600 : 128) / page_tokens);
        retractions += random_load(
            i, page_tokens, (i % 4 == 3 ? 1600 : 128) / page_tokens, i >= 12);
        assert_true(schedule_flush(sched));
        fini();
    }
    assert_true(retractions > 500 && kept > 500);
}

static const struct schedule_options small = {
    .max_running = 4, .chunk_tokens = 10, .logit_rows = 4, .reserved = 4};

static void prompts_share_the_chunk_first_come_first_served(void **state)
{
    (void)state;
    init(&small, 4, 100);
    struct seq *a = add(0, ROLE_WHOLE, 13, 5), *b = add(1, ROLE_WHOLE, 9, 5);
    struct seq *c = add(2, ROLE_WHOLE, 2, 5);
    const struct plan *plan = schedule_plan(sched);
    assert_int_equal(plan->count, 2);
    assert_ptr_equal(plan->rows[0].seq, a); /* cut at a page's end */
    assert_int_equal(plan->rows[0].rows, 8);
    assert_ptr_equal(plan->rows[1].seq, b);
    assert_int_equal(plan->rows[1].rows, 2);
    compute(plan, 1);
    plan = schedule_plan(sched);
    assert_int_equal(plan->count, 3);
    assert_int_equal(plan->rows[0].rows, 5); /* a's prompt ends */
    assert_int_equal(plan->rows[1].rows, 2); /* b to its page's end */
    assert_ptr_equal(plan->rows[2].seq, c);  /* what is left */
    assert_int_equal(plan->rows[2].rows, 2);
    compute(plan, 2);
    plan = schedule_plan(sched);
    assert_int_equal(plan->count, 3);
    assert_ptr_equal(plan->rows[0].seq, a); /* decodes, as c does */
    assert_ptr_equal(plan->rows[1].seq, c);
    assert_ptr_equal(plan->rows[2].seq, b);
    assert_int_equal(plan->rows[2].rows, 5);
    compute(plan, 3);
    for (uint32_t i = 0; i < 3; i++)
        end_seq(&seqs[i]);
    fini();
}

static void room_to_grow_is_kept_when_another_is_let_in(void **state)
{
    (void)state;
    struct schedule_options o = small;
    o.reserved = 12; /* three pages each */
    init(&o, 4, 10);
    add(0, ROLE_WHOLE, 8, 30); /* 2 pages, may want 3 more */
    add(1, ROLE_WHOLE, 8, 30); /* the same: 10 in all */
    add(2, ROLE_WHOLE, 1, 1);
    compute(schedule_plan(sched), 1);
    compute(schedule_plan(sched), 2);
    assert_int_equal(seqs[0].state, SEQ_RUNNING);
    assert_int_equal(seqs[1].state, SEQ_RUNNING);
    assert_int_equal(seqs[2].state, SEQ_QUEUED);
    end_seq(&seqs[0]);
    compute(schedule_plan(sched), 3);
    assert_true(ended[2]);
    end_seq(&seqs[1]);

    /* Decode reserves by the same rule, in order: a small one behind a large
     * one waits with it. */
    started[1] = 0;
    add(3, ROLE_DECODE, 24, 4);
    add(4, ROLE_DECODE, 20, 4);
    add(5, ROLE_DECODE, 1, 1);
    assert_ptr_equal(schedule_reserve(sched), &seqs[3]);
    assert_null(schedule_reserve(sched));
    assert_int_equal(seqs[3].page_count, 6);
    end_seq(&seqs[3]);
    assert_ptr_equal(schedule_reserve(sched), &seqs[4]);
    assert_ptr_equal(schedule_reserve(sched), &seqs[5]);
    end_seq(&seqs[4]);
    end_seq(&seqs[5]);
    fini();
}

static void a_decode_keeps_what_the_cache_has(void **state)
{
    (void)state;
    struct schedule_options o = small;
    o.prefix_cache = true;
    init(&o, 4, 20);
    for (uint32_t i = 0; i < 4; i++) {
        struct seq *q = add(i, ROLE_DECODE, 12, 2);
        for (int32_t at = 0; at < 12; at++)
            q->tokens[at] = at; /* all the same */
        q->own_prefix = i != 1;
        assert_ptr_equal(schedule_reserve(sched), q);
        /* The last page is the peer's to send, though it is cached too. */
        assert_int_equal(q->done_tokens, i < 2 ? 0 : 8);
        assert_int_equal(q->page_count, 3);
        for (int page = 0; page < 3; page++)
            assert_int_equal(q->pages[page] == seqs[0].pages[page],
                             i == 0 || (i >= 2 && page < 2));
        if (i == 3) break;
        schedule_admit(sched, q);
        if (i == 1) continue;
        end_seq(q); /* its three pages are cached */
    }
    /* A peer that may still write blocks its own pages alone. */
    schedule_quarantine(sched, &seqs[3]);
    end_seq(&seqs[1]);
    assert_true(schedule_flush(sched));
    assert_int_equal(kv_pool_free_count(pool), 17);
    end_seq(&seqs[3]);
    fini();
}

static void the_fewest_outputs_go_first_and_come_back_first(void **state)
{
    (void)state;
    init(&small, 1, 30);
    add(0, ROLE_WHOLE, 4, 20); /* far ahead */
    compute(schedule_plan(sched), 1);
    compute(schedule_plan(sched), 2);
    compute(schedule_plan(sched), 3);
    add(1, ROLE_WHOLE, 3, 20);
    add(2, ROLE_WHOLE, 4, 20); /* the same output as 1, a longer prompt */
    uint32_t step = 4;
    while (!seqs[2].retractions)
        compute(schedule_plan(sched), step++);
    add(3, ROLE_WHOLE, 1, 1); /* would fit, but 2 was there before */
    assert_int_equal(seqs[1].retractions, 0);
    while (!ended[0]) {
        compute(schedule_plan(sched), step++);
        if (ended[0]) break;
        assert_int_equal(seqs[3].state, SEQ_QUEUED);
    }
    while (!ended[3])
        compute(schedule_plan(sched), step++);
    assert_true(started[3] > 0 && seqs[2].state != SEQ_QUEUED);
    while (!ended[1] || !ended[2])
        compute(schedule_plan(sched), step++);
    assert_int_equal(seqs[0].retractions, 0);
    fini();
}

static void equal_prompts_end_up_on_the_same_pages(void **state)
{
    (void)state;
    struct schedule_options o = small;
    o.prefix_cache = true;
    o.chunk_tokens = 100;
    init(&o, 4, 50);
    for (uint32_t i = 0; i < 2; i++) {
        add(i, i ? ROLE_PREFILL : ROLE_WHOLE, 16, i ? 1 : 9);
        for (int32_t j = 0; j < 16; j++)
            tokens[i][j] = j;
    }
    struct seq *third = add(2, ROLE_WHOLE, 16, 9);
    memcpy(tokens[2], tokens[0], sizeof tokens[0]);
    compute(schedule_plan(sched), 1); /* all at once: no hit yet */
    assert_int_equal(third->cached_tokens, 0);
    assert_memory_equal(pages[2], pages[0], 4 * sizeof(kv_page));
    for (int i = 0; i < 4; i++) /* but a peer was told of these */
        assert_int_not_equal(pages[1][i], pages[0][i]);
    assert_int_equal(kv_pool_free_count(pool), 50 - 4 - 4);
    for (uint32_t i = 0; i < 3; i++)
        end_seq(&seqs[i]);
    assert_int_equal(kv_pool_free_count(pool), 50 - 4);
    assert_true(schedule_flush(sched));
    assert_int_equal(kv_pool_free_count(pool), 50);
    fini();
}

static void create_survives_every_failed_allocation(void **state)
{
    (void)state;
    init(&small, 4, 10);
    struct schedule_options o = options;
    o.prefix_cache = true;
    struct schedule *s = NULL;
    size_t before = mem_live(), tries = 0;
    while (!s && tries < 100) {
        mem_fail_at(++tries);
        int rc = schedule_create(&s, &o, NULL);
        assert_int_equal(rc, s ? 0 : ERR_NOMEM);
        assert_true(s || mem_live() == before);
    }
    mem_fail_at(0);
    assert_int_equal(tries, 6);
    schedule_destroy(s);
    fini();
}

TESTS(T(any_load_keeps_the_rules),
      T(prompts_share_the_chunk_first_come_first_served),
      T(room_to_grow_is_kept_when_another_is_let_in),
      T(a_decode_keeps_what_the_cache_has),
      T(the_fewest_outputs_go_first_and_come_back_first),
      T(equal_prompts_end_up_on_the_same_pages),
      T(create_survives_every_failed_allocation))
