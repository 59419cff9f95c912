/* pd/decodes.h - the decodes that registered with this prefill.
 *
 * A struct pd_decode is what one REGISTER said, checked against our own KV
 * cache: a decode that does not fit is kept too, with the reason, so that each
 * of its rooms can be told. It never changes; a later REGISTER of the same
 * session makes another, and rooms keep the one they began with.
 *
 * Everything belongs to the loop thread. */
#ifndef BATON_PD_DECODES_H
#define BATON_PD_DECODES_H

#include "pd/core.h"

struct pd_decode {
    struct pd_decode *next;
    uint32_t refs; /* rooms, and one of the table */
    struct pd_register reg;
    uint64_t *kv;  /* [reg.kv_count] */
    uint64_t *aux; /* [reg.aux_count] */
    struct xfer_peer *peer;
    uint64_t pitch; /* from one KV buffer to the next, where one operation may
                     * span them since they are one registration; else 0 */
    char bad[PD_TEXT_MAX]; /* why nothing can be written; "": all is fine */
};

struct pd_decodes { /* zeroed at first */
    struct pd_decode *first;
    uint32_t count; /* 1024 at most: the one that registered first makes way */
};
void pd_decodes_fini(struct pd_decodes *decodes);

void pd_decodes_add(struct pd_decodes *decodes, struct pd_core *core,
                    const struct pd_register *reg);
/* NULL: it has not registered. */
struct pd_decode *pd_decodes_find(const struct pd_decodes *decodes,
                                  const char *session);
/* Those whose messages come from there are gone. */
void pd_decodes_forget(struct pd_decodes *decodes,
                       const struct pd_address *from);

void pd_decode_drop(struct pd_decode *decode); /* a reference; NULL is fine */

#endif
