#include "engine/sample.h"

#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "engine/row.h"
#include "text/grammar.h"

#include <assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

enum {
    PART = 32, /* blocks of a row that one worker takes at a time */
    FEW = 512  /* candidates that are sorted */
};

struct sampler {
    uint32_t vocab;
    float *row;              /* [vocab] adjusted logits */
    float *weights;          /* [whole blocks] of the row at hand */
    int32_t *ids;            /* [whole blocks] candidates for a cut */
    uint32_t *counts;        /* [vocab] zero between calls */
    uint32_t blocks;         /* of ROW_BLOCK, in a row */
    float *tops;             /* [blocks] of the row at hand */
    double *masses;          /* [blocks] likewise */
    struct row_above *above; /* [parts] likewise */
    uint32_t *found;         /* [parts] likewise */
    struct share share;
};

static uint32_t parts(const struct sampler *s)
{
    return (s->blocks + PART - 1) / PART;
}

int sampler_create(struct sampler **out, uint32_t vocab, struct why *why)
{
    *out = NULL;
    struct sampler *s = mem_must(1, sizeof *s);
    s->vocab = vocab;
    s->row = mem_try(vocab, sizeof *s->row, 0);
    s->blocks = (vocab + ROW_BLOCK - 1) / ROW_BLOCK;
    s->weights = mem_try(s->blocks, ROW_BLOCK * sizeof *s->weights, 0);
    s->ids = mem_try(s->blocks, ROW_BLOCK * sizeof *s->ids, 0);
    s->counts = mem_try(vocab, sizeof *s->counts, 0);
    s->tops = mem_try(s->blocks, sizeof *s->tops, 0);
    s->masses = mem_try(s->blocks, sizeof *s->masses, 0);
    s->above = mem_try(parts(s), sizeof *s->above, 0);
    s->found = mem_try(parts(s), sizeof *s->found, 0);
    if (!s->row || !s->weights || !s->ids || !s->counts || !s->tops ||
        !s->masses || !s->above || !s->found) {
        sampler_destroy(s);
        return err_set(why, ERR_NOMEM, "sampler: vocabulary of %u", vocab);
    }
    *out = s;
    return 0;
}

void sampler_destroy(struct sampler *s)
{
    if (!s) return;
    mem_free(s->row);
    mem_free(s->weights);
    mem_free(s->ids);
    mem_free(s->counts);
    mem_free(s->tops);
    mem_free(s->masses);
    mem_free(s->above);
    mem_free(s->found);
    mem_free(s);
}

void sampler_share(struct sampler *s, const struct share *share)
{
    s->share = *share;
}

bool sampling_is_greedy(const struct sampling *p)
{
    return p->temperature < 1e-6f || p->top_k == 1;
}

double sample_unit(uint64_t seed, uint32_t position)
{
    /* splitmix64 is a counter behind a hash: this is its output `position`
     * from a start that the seed scatters. */
    uint64_t state = hash_u64(seed) + position * 0x9e3779b97f4a7c15u;
    return rng_unit(&state);
}

/* Adjusting */

static bool changes(const struct sampling *p, const struct sample_history *h)
{
    bool penalties = p->frequency_penalty != 0 || p->presence_penalty != 0 ||
                     p->repetition_penalty != 1;
    return p->bias_count || h->output_count < p->min_new_tokens ||
           (penalties && h->output_count);
}

static float bounded(float x)
{
    return x > FLT_MAX ? FLT_MAX : x < -FLT_MAX ? -FLT_MAX : x;
}

static void penalize(struct sampler *s, const struct sampling *p,
                     const struct sample_history *h)
{
    for (uint32_t i = 0; i < h->output_count; i++)
        s->counts[h->output[i]]++;
    for (uint32_t i = 0; i < h->output_count; i++) {
        int32_t id = h->output[i];
        if (s->counts[id] == 0) continue; /* done at its first occurrence */
        float x = s->row[id];
        x -= p->frequency_penalty * (float)s->counts[id];
        x -= p->presence_penalty;
        x = x > 0 ? x / p->repetition_penalty : x * p->repetition_penalty;
        s->row[id] = bounded(x);
        s->counts[id] = 0;
    }
}

static void bar(struct sampler *s, const int32_t *ids, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (ids[i] >= 0 && (uint32_t)ids[i] < s->vocab)
            s->row[ids[i]] = -INFINITY;
}

static void keep_allowed(struct sampler *s, struct matcher *matcher)
{
    uint32_t vocab;
    const uint64_t *allowed = matcher_allowed(matcher, &vocab);
    for (uint32_t id = 0; allowed && id < s->vocab; id++) {
        uint64_t word = id < vocab ? allowed[id / 64] : 0;
        if (word == UINT64_MAX && id + 63 < vocab)
            id += 63 - id % 64; /* all of them */
        else if (id >= vocab || !(word >> id % 64 & 1))
            s->row[id] = -INFINITY;
    }
}

const float *sample_adjust(struct sampler *s, const float *logits,
                           const struct sampling *p,
                           const struct sample_history *h)
{
    if (!changes(p, h) && !h->matcher) return logits;
    memcpy(s->row, logits, s->vocab * sizeof *logits);
    penalize(s, p, h);
    for (uint32_t i = 0; i < p->bias_count; i++) {
        float *x = &s->row[p->bias_ids[i]];
        *x = bounded(*x + p->bias_values[i]);
    }
    bool must_end = h->matcher && matcher_must_end(h->matcher);
    if (h->output_count < p->min_new_tokens && !must_end) {
        bar(s, p->stop_ids, p->stop_id_count);
        bar(s, h->end_ids, h->end_count);
    }
    if (h->matcher) keep_allowed(s, h->matcher);
    return s->row;
}

/* Passes over a row, part by part: what each block or part has is written down
 * and summed in their order, so nothing depends on who did it. */

/* Elements above value stay, and of those equal to it the ids up to last. */
struct cut {
    float value;
    int32_t last;
};
static const struct cut everything = {-INFINITY, -1};

struct pass {
    struct sampler *s;
    const float *logits;
    struct row_scale scale;
    const float *floors; /* of a split, descending     */
    float lo, hi;        /* candidates: in (lo, hi]    */
    struct cut cut;      /* what is kept: this, and    */
    float least;         /* of at least this weight    */
};

/* How many elements block b of a row has. */
static uint32_t block_size(const struct sampler *s, uint32_t b)
{
    uint32_t n = s->vocab - b * ROW_BLOCK;
    return n < ROW_BLOCK ? n : ROW_BLOCK;
}

static uint32_t part_end(const struct sampler *s, size_t part)
{
    uint32_t end = ((uint32_t)part + 1) * PART;
    return end < s->blocks ? end : s->blocks;
}

/* Elements of a part. */
static uint32_t part_size(const struct sampler *s, size_t part)
{
    uint32_t from = (uint32_t)part * PART * ROW_BLOCK;
    uint32_t to = part_end(s, part) * ROW_BLOCK;
    return (to < s->vocab ? to : s->vocab) - from;
}

static void pass_run(struct pass *p, void (*fn)(void *, size_t part, int))
{
    const struct share *share = &p->s->share;
    uint32_t count = parts(p->s);
    if (share->share && count > 1) {
        share->share(share->arg, fn, p, count);
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        fn(p, i, 0);
}

static void part_tops(void *arg, size_t part, int worker)
{
    (void)worker;
    struct pass *p = arg;
    size_t b = part * PART;
    row_tops(p->logits + b * ROW_BLOCK, part_size(p->s, part), p->s->tops + b);
}

/* Fills s->tops and scale.top; false: there is a NaN, or no finite largest. */
static bool find_top(struct pass *p)
{
    pass_run(p, part_tops);
    float top = -INFINITY;
    bool fine = true;
    for (uint32_t b = 0; b < p->s->blocks; b++) {
        fine &= p->s->tops[b] == p->s->tops[b];
        if (p->s->tops[b] > top) top = p->s->tops[b];
    }
    p->scale.top = top;
    return fine && isfinite(top);
}

static void part_weights(void *arg, size_t part, int worker)
{
    (void)worker;
    struct pass *p = arg;
    size_t b = part * PART;
    row_weigh(&p->scale, p->logits + b * ROW_BLOCK, part_size(p->s, part),
              p->s->weights + b * ROW_BLOCK, p->s->masses + b);
}

/* What all blocks weigh, or what is kept of them. */
static double mass_of(const struct sampler *s)
{
    double mass = 0;
    for (uint32_t b = 0; b < s->blocks; b++)
        mass += s->masses[b];
    return mass;
}
static bool worse(float a, int32_t a_id, float b, int32_t b_id)
{
    return a < b || (a == b && a_id > b_id);
}

static void swap(float *values, int32_t *ids, uint32_t i, uint32_t j)
{
    float value = values[i];
    values[i] = values[j];
    values[j] = value;
    int32_t id = ids[i];
    ids[i] = ids[j];
    ids[j] = id;
}

static void sink(float *values, int32_t *ids, uint32_t n, uint32_t i)
{
    for (;;) {
        uint32_t low = i, left = 2 * i + 1;
        for (uint32_t c = left; c < left + 2 && c < n; c++)
            if (worse(values[c], ids[c], values[low], ids[low])) low = c;
        if (low == i) return;
        swap(values, ids, i, low);
        i = low;
    }
}

/* Makes values, ids [n], 1 <= n <= vocab, a heap of the n largest logits;
 * s->tops are the row's. */
static void heap_of(const struct sampler *s, const float *logits, uint32_t n,
                    float *values, int32_t *ids)
{
    for (uint32_t i = 0; i < n; i++) {
        values[i] = logits[i];
        ids[i] = (int32_t)i;
    }
    for (uint32_t i = n / 2; i-- > 0;)
        sink(values, ids, n, i);
    for (uint32_t b = n / ROW_BLOCK; b < s->blocks; b++) {
        if (!(s->tops[b] > values[0])) continue;
        uint32_t i = b * ROW_BLOCK, end = i + block_size(s, b);
        for (i = i < n ? n : i; i < end; i++) {
            if (!(logits[i] > values[0])) continue; /* ids only get higher */
            values[0] = logits[i];
            ids[0] = (int32_t)i;
            sink(values, ids, n, 0);
        }
    }
}

/* A heap becomes a list, best first: the worst goes to the end. */
static void heap_sort(float *values, int32_t *ids, uint32_t n)
{
    while (n > 1) {
        swap(values, ids, 0, --n);
        sink(values, ids, n, 0);
    }
}

/* Cutting: where it lies is narrowed down to few elements or one value, which
 * are put in order. */

static void part_split(void *arg, size_t part, int worker)
{
    (void)worker;
    const struct pass *p = arg;
    const struct sampler *s = p->s;
    size_t at = part * PART * ROW_BLOCK;
    row_split(p->logits + at, s->weights + at, s->tops + part * PART,
              part_size(s, part), p->floors, &s->above[part]);
}

/* Elements above a value. */
struct above {
    uint32_t count;
    double mass;
};

static struct above above_of(const struct sampler *s, int floor)
{
    struct above all = {0};
    for (uint32_t part = 0; part < parts(s); part++) {
        all.count += s->above[part].count[floor];
        all.mass += s->above[part].mass[floor];
    }
    return all;
}

static bool beyond(const struct above *a, const struct above *limit)
{
    return a->count >= limit->count || a->mass > limit->mass;
}

/* The cut is one of the values in (lo, hi]. */
struct narrow {
    float lo, hi;
    struct above upto, before; /* above lo, above hi */
};

/* Splits at floors (descending, between lo and hi); false: the cut lies below
 * all of them. */
static bool narrow(struct pass *p, const float floors[ROW_FLOORS],
                   const struct above *limit, struct narrow *n)
{
    p->floors = floors;
    pass_run(p, part_split);
    for (int i = 0; i < ROW_FLOORS; i++) {
        struct above above = above_of(p->s, i);
        if (beyond(&above, limit)) {
            n->lo = floors[i];
            n->upto = above;
            return true;
        }
        n->hi = floors[i];
        n->before = above;
    }
    return false;
}

static void part_candidates(void *arg, size_t part, int worker)
{
    (void)worker;
    const struct pass *p = arg;
    const struct sampler *s = p->s;
    uint32_t n = 0, from = (uint32_t)part * PART * ROW_BLOCK;
    for (uint32_t b = (uint32_t)part * PART; b < part_end(s, part); b++) {
        uint32_t at = b * ROW_BLOCK;
        if (s->tops[b] > p->lo)
            n += row_between(p->logits + at, block_size(s, b), p->lo, p->hi,
                             (int32_t)at, s->ids + from + n);
    }
    s->found[part] = n;
}

/* The elements in (lo, hi], by id; returns how many. */
static uint32_t candidates(struct pass *p, float lo, float hi)
{
    struct sampler *s = p->s;
    uint32_t n = 0;
    p->lo = lo;
    p->hi = hi;
    pass_run(p, part_candidates);
    for (uint32_t part = 0; part < parts(s); part++) {
        memmove(s->ids + n, s->ids + part * PART * ROW_BLOCK,
                s->found[part] * sizeof *s->ids);
        n += s->found[part];
    }
    return n;
}

/* The last that stays of the candidates, where before come before them. */
static struct cut cut_among(const struct pass *p, uint32_t n,
                            struct above before, const struct above *limit)
{
    const struct sampler *s = p->s;
    struct cut cut = everything;
    float values[FEW];
    for (uint32_t i = 0; i < n && n <= FEW; i++)
        values[i] = p->logits[s->ids[i]];
    for (uint32_t i = n / 2; n <= FEW && i-- > 0;)
        sink(values, s->ids, n, i);
    if (n <= FEW) heap_sort(values, s->ids, n); /* else all are equal */
    for (uint32_t i = 0; i < n && !beyond(&before, limit); i++) {
        int32_t id = s->ids[i];
        cut = (struct cut){p->logits[id], id};
        before.count++;
        before.mass += (double)s->weights[id];
    }
    return cut;
}

/* Fewer than limit->count come before what stays, of at most limit->mass. */
static struct cut find_cut(struct pass *p, const struct above *limit)
{
    static const float near[ROW_FLOORS] = {0.25f, 0.5f, 1, 2, 4, 8, 16};
    static const float far[ROW_FLOORS] = {20, 26, 34, 44, 56, 70, 88};
    float top = p->scale.top, floors[ROW_FLOORS];
    struct narrow n = {.hi = top};
    for (int i = 0; i < ROW_FLOORS; i++)
        floors[i] = top - near[i] / p->scale.inverse;
    if (!narrow(p, floors, limit, &n)) {
        for (int i = 0; i < ROW_FLOORS; i++)
            floors[i] = top - far[i] / p->scale.inverse;
        float below = nextafterf(top, -INFINITY); /* a cold row's ties */
        floors[ROW_FLOORS - 1] = fminf(floors[ROW_FLOORS - 1], below);
        if (!narrow(p, floors, limit, &n))
            return everything; /* of any weight */
    }
    while (n.upto.count - n.before.count > FEW &&
           nextafterf(n.lo, n.hi) < n.hi) {
        float lo = n.lo, wide = n.hi - n.lo;
        for (int i = 0; i < ROW_FLOORS; i++)
            floors[i] = lo + wide * (float)(ROW_FLOORS - i) / (ROW_FLOORS + 1);
        narrow(p, floors, limit, &n);
    }
    return cut_among(p, candidates(p, n.lo, n.hi), n.before, limit);
}

/* Drawing */

static bool stays(const struct pass *p, uint32_t id)
{
    float x = p->logits[id], w = p->s->weights[id];
    return (x > p->cut.value ||
            (x == p->cut.value && (int32_t)id <= p->cut.last)) &&
           w >= p->least;
}

static void part_kept(void *arg, size_t part, int worker)
{
    (void)worker;
    const struct pass *p = arg;
    const struct sampler *s = p->s;
    const float value = p->cut.value;
    for (uint32_t b = (uint32_t)part * PART; b < part_end(s, part); b++) {
        uint32_t at = b * ROW_BLOCK, size = block_size(s, b);
        bool ties = (int32_t)at <= p->cut.last;
        bool all = (int32_t)(at + size) <= p->cut.last + 1;
        if (s->tops[b] < value || (s->tops[b] == value && !ties))
            s->masses[b] = 0;
        else
            s->masses[b] =
                row_kept(p->logits + at, s->weights + at, size,
                         all ? nextafterf(value, -INFINITY) : value, p->least);
        for (uint32_t i = at; ties && !all && i < at + size; i++)
            if (p->logits[i] == value && stays(p, i))
                s->masses[b] += (double)s->weights[i];
    }
}

/* Of what stays, that where the weights, by id, come to a share of all. */
static int32_t draw(const struct pass *p, double unit)
{
    const struct sampler *s = p->s;
    double target = unit * mass_of(s), sum = 0, before = 0;
    uint32_t at = 0; /* the block where the target lies */
    for (uint32_t b = 0; b < s->blocks && sum <= target; b++) {
        if (s->masses[b] == 0) continue;
        at = b;
        before = sum;
        sum += s->masses[b];
    }
    sum = before;
    int32_t best = -1; /* rounding may let it lie behind the last weight */
    uint32_t i = at * ROW_BLOCK, end = i + block_size(s, at);
    for (; i < end && sum <= target; i++) {
        if (s->weights[i] == 0 || !stays(p, i)) continue;
        best = (int32_t)i;
        sum += (double)s->weights[i];
    }
    return best;
}

/* The first place of the row's largest. */
static int32_t first_of(const struct sampler *s, const float *logits, float top)
{
    uint32_t b = 0;
    while (s->tops[b] != top)
        b++;
    uint32_t i = b * ROW_BLOCK;
    while (logits[i] != top)
        i++;
    return (int32_t)i;
}

int32_t sample_pick(struct sampler *s, const float *logits,
                    const struct sampling *sampling, uint32_t position)
{
    struct pass p = {.s = s, .logits = logits, .cut = everything};
    if (!find_top(&p)) return -1;
    if (sampling_is_greedy(sampling)) return first_of(s, logits, p.scale.top);

    p.scale.inverse = 1 / sampling->temperature;
    pass_run(&p, part_weights);
    struct above limit = {s->vocab + 1, INFINITY};
    bool by_count = sampling->top_k > 0, by_mass = sampling->top_p < 1;
    if (by_count) limit.count = (uint32_t)sampling->top_k;
    if (by_mass) limit.mass = (double)sampling->top_p * mass_of(s);
    if (by_count || by_mass) p.cut = find_cut(&p, &limit);
    p.least = sampling->min_p;
    if (by_count || by_mass || p.least > 0) pass_run(&p, part_kept);
    return draw(&p, sample_unit(sampling->seed, position));
}

/* Logprobs */

void sample_logprobs(struct sampler *s, const float *logits,
                     const struct logprob_ask *ask,
                     const struct logprob_room *room, struct token_logprob *out)
{
    struct pass p = {.s = s, .logits = logits};
    double base = NAN;
    p.scale.inverse = 1 / ask->temperature;
    if (find_top(&p)) {
        pass_run(&p, part_weights);
        base = log(mass_of(s));
    }
    const struct row_scale k = p.scale;
#define LOGPROB(x) (float)((double)((x)-k.top) * (double)k.inverse - base)
    uint32_t top = ask->top_count < s->vocab ? ask->top_count : s->vocab;
    assert(top <= SAMPLE_TOP_MAX);
    *out = (struct token_logprob){
        .logprob = LOGPROB(logits[ask->token]),
        .token = ask->token,
        .top_count = top,
        .top_values = room->top_values,
        .top_ids = room->top_ids,
        .id_count = ask->id_count,
        .id_values = room->id_values,
    };
    if (top) heap_of(s, logits, top, room->top_values, room->top_ids);
    heap_sort(room->top_values, room->top_ids, top);
    for (uint32_t i = 0; i < top; i++)
        room->top_values[i] = LOGPROB(room->top_values[i]);
    for (uint32_t i = 0; i < ask->id_count; i++)
        room->id_values[i] = LOGPROB(logits[ask->ids[i]]);
#undef LOGPROB
}
