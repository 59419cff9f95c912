/* engine/picks.h - the tokens of a step's rows, drawn by all workers at once.
 *
 * A row's token depends on the row alone (engine/sample.h), so it does not
 * matter which worker draws it, or how many do together: rows are shared out
 * where there are as many as workers, else the parts of each. The engine thread
 * owns this and calls it; nothing is allocated after create. */
#ifndef BATON_ENGINE_PICKS_H
#define BATON_ENGINE_PICKS_H

#include "engine/sample.h"

struct pick {
    const float *logits; /* [vocab] */
    const struct sampling *sampling;
    struct sample_history history;
    int32_t token; /* the result: sample_pick's */
};

struct picks_options {
    uint32_t vocab, rows; /* rows: most picks of a step */
    int workers;          /* that share calls, below it  */
    struct share share;
};

struct picks;
int picks_create(struct picks **out, const struct picks_options *options,
                 struct why *why);
void picks_destroy(struct picks *picks); /* NULL is fine */

void picks_clear(struct picks *picks);
/* Adds one whose logits, sampling and history the caller fills; good until
 * picks_clear. */
struct pick *picks_add(struct picks *picks);
void picks_draw(struct picks *picks); /* sets all tokens */

/* The caller's own, for what is not drawn here; all workers take part. */
struct sampler *picks_sampler(struct picks *picks);

#endif
