#include "engine/picks.h"

#include "base/mem.h"

#include <assert.h>

struct picks {
    struct picks_options options;
    struct sampler **samplers; /* [workers] */
    struct pick *list;         /* [rows] */
    uint32_t count;
};

int picks_create(struct picks **out, const struct picks_options *options,
                 struct why *why)
{
    *out = NULL;
    struct picks *picks = mem_must(1, sizeof *picks);
    picks->options = *options;
    if (!options->share.share) picks->options.workers = 1;
    int workers = picks->options.workers, rc = 0;
    picks->samplers = mem_must((size_t)workers, sizeof *picks->samplers);
    picks->list = mem_try(options->rows, sizeof *picks->list, 0);
    if (!picks->list)
        rc = err_set(why, ERR_NOMEM, "tokens of %u rows", options->rows);
    for (int i = 0; i < workers && !rc; i++)
        rc = sampler_create(&picks->samplers[i], options->vocab, why);
    if (rc) {
        picks_destroy(picks);
        return rc;
    }
    sampler_share(picks->samplers[0], &options->share);
    *out = picks;
    return 0;
}

void picks_destroy(struct picks *picks)
{
    if (!picks) return;
    for (int i = 0; i < picks->options.workers; i++)
        sampler_destroy(picks->samplers[i]);
    mem_free(picks->samplers);
    mem_free(picks->list);
    mem_free(picks);
}

void picks_clear(struct picks *picks)
{
    picks->count = 0;
}

struct pick *picks_add(struct picks *picks)
{
    assert(picks->count < picks->options.rows);
    return &picks->list[picks->count++];
}

static void draw(void *arg, size_t i, int worker)
{
    struct picks *picks = arg;
    struct sampler *sampler = picks->samplers[worker];
    struct pick *p = &picks->list[i];
    const float *row =
        sample_adjust(sampler, p->logits, p->sampling, &p->history);
    p->token = sample_pick(sampler, row, p->sampling, p->history.output_count);
}

void picks_draw(struct picks *picks)
{
    const struct picks_options *o = &picks->options;
    const struct share alone = {0};
    if (o->workers == 1 || picks->count < (uint32_t)o->workers) {
        for (uint32_t i = 0; i < picks->count; i++)
            draw(picks, i, 0);
        return;
    }
    sampler_share(picks->samplers[0], &alone);
    o->share.share(o->share.arg, draw, picks, picks->count);
    sampler_share(picks->samplers[0], &o->share);
}

struct sampler *picks_sampler(struct picks *picks)
{
    return picks->samplers[0];
}
