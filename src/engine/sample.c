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
    BUCKETS = 1 << 11, /* of one pass of the radix select */
    HEAP_MAX = 1024    /* a top_k up to here is found by a heap where few tokens
                     * are near the first */
};
/* exp(-NEAR) bounds a candidate's weight: what is lighter is looked at only
 * when the cut lies beyond (1e-6 of the first token's). */
#define NEAR 14.0f

struct sampler {
    uint32_t vocab;
    float *row;       /* [vocab] adjusted logits */
    float *weights;   /* [vocab] of the candidates */
    int32_t *ids;     /* [vocab] candidates, ascending */
    int32_t *members; /* [vocab] indexes into ids, of one bucket */
    uint32_t *counts; /* [vocab] zero between calls */
    uint32_t blocks;  /* of ROW_BLOCK, in a row */
    float *tops;      /* [blocks] of the row at hand */
    double *masses;   /* [blocks] likewise */
    uint32_t bucket_count[BUCKETS];
    double bucket_mass[BUCKETS];
};

int sampler_create(struct sampler **out, uint32_t vocab, struct why *why)
{
    *out = NULL;
    struct sampler *s = mem_must(1, sizeof *s);
    s->vocab = vocab;
    s->row = mem_try(vocab, sizeof *s->row, 0);
    s->weights = mem_try(vocab, sizeof *s->weights, 0);
    s->ids = mem_try(vocab, sizeof *s->ids, 0);
    s->members = mem_try(vocab, sizeof *s->members, 0);
    s->counts = mem_try(vocab, sizeof *s->counts, 0);
    s->blocks = (vocab + ROW_BLOCK - 1) / ROW_BLOCK;
    s->tops = mem_try(s->blocks, sizeof *s->tops, 0);
    s->masses = mem_try(s->blocks, sizeof *s->masses, 0);
    if (!s->row || !s->weights || !s->ids || !s->members || !s->counts ||
        !s->tops || !s->masses) {
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
    mem_free(s->members);
    mem_free(s->counts);
    mem_free(s->tops);
    mem_free(s->masses);
    mem_free(s);
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
    for (uint32_t id = 0; allowed && id < s->vocab; id++)
        if (id >= vocab || !(allowed[id / 64] >> id % 64 & 1))
            s->row[id] = -INFINITY;
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

/* The best of a row, by a heap whose root is the worst of them. */

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

/* How many elements block b of a row has. */
static uint32_t block_size(const struct sampler *s, uint32_t b)
{
    uint32_t n = s->vocab - b * ROW_BLOCK;
    return n < ROW_BLOCK ? n : ROW_BLOCK;
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

/* Cutting */

/* Order-preserving bits of a float. */
static uint32_t order_key(float x)
{
    uint32_t bits;
    x += 0.0f; /* -0 and 0 are equal */
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* All logits at or above floor, with their weights. */
static uint32_t gather(struct sampler *s, const struct row_scale *k,
                       const float *logits, float floor, double *mass)
{
    uint32_t n = 0;
    float weights[ROW_BLOCK];
    *mass = 0;
    for (uint32_t b = 0; b < s->blocks; b++) {
        if (!(s->tops[b] >= floor)) continue;
        const float *x = logits + (size_t)b * ROW_BLOCK;
        uint32_t size = block_size(s, b);
        row_weights(k, x, size, weights);
        for (uint32_t i = 0; i < size; i++) {
            if (!(x[i] >= floor)) continue;
            s->ids[n] = (int32_t)(b * ROW_BLOCK + i);
            *mass += (double)weights[i];
            s->weights[n++] = weights[i];
        }
    }
    return n;
}

/* Where the draw ends: keys above key stay, and of those equal to it the
 * first `ties` by id. */
struct cut {
    uint32_t key, ties;
};

/* The candidates before which fewer than count come, of at most mass. */
static struct cut find_cut(struct sampler *s, const float *logits, uint32_t n,
                           uint32_t count, double mass)
{
    static const uint8_t shifts[] = {21, 10, 0};
    uint32_t member_count = n, before = 0;
    double before_mass = 0;
    for (uint32_t i = 0; i < n; i++)
        s->members[i] = (int32_t)i;
    for (int pass = 0;; pass++) {
        uint32_t shift = shifts[pass], mask = pass == 2 ? 1023 : BUCKETS - 1;
        memset(s->bucket_count, 0, sizeof s->bucket_count);
        memset(s->bucket_mass, 0, sizeof s->bucket_mass);
        for (uint32_t i = 0; i < member_count; i++) {
            int32_t m = s->members[i];
            uint32_t b = order_key(logits[s->ids[m]]) >> shift & mask;
            s->bucket_count[b]++;
            s->bucket_mass[b] += (double)s->weights[m];
        }
        uint32_t b = mask; /* the caller knows that the cut is in here */
        while (b > 0 && before + s->bucket_count[b] < count &&
               before_mass + s->bucket_mass[b] <= mass) {
            before += s->bucket_count[b];
            before_mass += s->bucket_mass[b--];
        }
        uint32_t kept = 0;
        for (uint32_t i = 0; i < member_count; i++) {
            int32_t m = s->members[i];
            if ((order_key(logits[s->ids[m]]) >> shift & mask) == b)
                s->members[kept++] = m;
        }
        member_count = kept;
        if (pass < 2) continue;
        struct cut cut = {0};
        for (uint32_t i = 0; i < member_count; i++) {
            int32_t m = s->members[i];
            cut.key = order_key(logits[s->ids[m]]);
            if (before >= count || before_mass > mass) break;
            before++;
            before_mass += (double)s->weights[m];
            cut.ties++;
        }
        return cut;
    }
}

/* Keeps the candidates inside the cut; returns how many. */
static uint32_t apply_cut(struct sampler *s, const float *logits, uint32_t n,
                          struct cut cut)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t key = order_key(logits[s->ids[i]]);
        if (key < cut.key || (key == cut.key && cut.ties == 0)) continue;
        cut.ties -= key == cut.key;
        s->ids[kept] = s->ids[i];
        s->weights[kept++] = s->weights[i];
    }
    return kept;
}

static int32_t draw_all(struct sampler *s, const struct row_scale *k,
                        const float *logits, double unit)
{
    double target = unit * row_masses(k, logits, s->vocab, s->masses);
    double sum = 0, before = 0;
    uint32_t at = 0; /* the block where the target lies */
    for (uint32_t b = 0; b < s->blocks && sum <= target; b++) {
        if (s->masses[b] == 0) continue;
        at = b;
        before = sum;
        sum += s->masses[b];
    }
    sum = before;
    float weights[ROW_BLOCK];
    row_weights(k, logits + (size_t)at * ROW_BLOCK, block_size(s, at), weights);
    int32_t best = 0; /* rounding may let it lie behind the last weight */
    for (uint32_t i = 0; i < block_size(s, at); i++) {
        if (weights[i] == 0) continue;
        best = (int32_t)(at * ROW_BLOCK + i);
        sum += (double)weights[i];
        if (sum > target) break;
    }
    return best;
}

static int32_t draw_kept(const struct sampler *s, uint32_t n, float min_p,
                         double unit)
{
    double mass = 0, sum = 0;
    for (uint32_t i = 0; i < n; i++)
        if (s->weights[i] >= min_p) mass += (double)s->weights[i];
    int32_t best = -1;
    for (uint32_t i = 0; i < n; i++) {
        if (s->weights[i] < min_p || s->weights[i] == 0) continue;
        best = s->ids[i];
        sum += (double)s->weights[i];
        if (sum > unit * mass) break;
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
                    const struct sampling *p, uint32_t position)
{
    struct row_scale k = {.inverse = 1};
    if (!row_tops(logits, s->vocab, s->tops, &k.top)) return -1;
    if (sampling_is_greedy(p)) return first_of(s, logits, k.top);

    k.inverse = 1 / p->temperature;
    double unit = sample_unit(p->seed, position);
    bool by_count = p->top_k > 0 && (uint32_t)p->top_k < s->vocab;
    bool by_mass = p->top_p < 1;
    if (!by_count && !by_mass && !(p->min_p > 0))
        return draw_all(s, &k, logits, unit);

    uint32_t count = by_count ? (uint32_t)p->top_k : s->vocab;
    double mass = INFINITY, near_mass;
    if (by_mass)
        mass = (double)p->top_p * row_masses(&k, logits, s->vocab, s->masses);
    float floor = k.top - NEAR * p->temperature;
    uint32_t n = gather(s, &k, logits, floor, &near_mass);
    bool enough = n >= count || near_mass > mass || p->min_p > 1e-5f;
    if (!enough) {
        floor = -INFINITY;
        if (count <= HEAP_MAX) {
            heap_of(s, logits, count, s->weights, s->ids);
            floor = s->weights[0];
        }
        n = gather(s, &k, logits, floor, &near_mass);
    }
    if (n > count || near_mass > mass)
        n = apply_cut(s, logits, n, find_cut(s, logits, n, count, mass));
    return draw_kept(s, n, p->min_p, unit);
}

/* Logprobs */

void sample_logprobs(struct sampler *s, const float *logits,
                     const struct logprob_ask *ask,
                     const struct logprob_room *room, struct token_logprob *out)
{
    struct row_scale k = {.inverse = 1 / ask->temperature};
    double base = NAN;
    if (row_tops(logits, s->vocab, s->tops, &k.top))
        base = log(row_masses(&k, logits, s->vocab, s->masses));
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
