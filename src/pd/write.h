/* pd/write.h - a batch of one-sided writes into a decode's memory: pages of
 * its KV buffers, an aux row. Built up, then submitted as one.
 *
 * Belongs to the loop thread. */
#ifndef BATON_PD_WRITE_H
#define BATON_PD_WRITE_H

#include "pd/decodes.h"

struct pd_write { /* zeroed at first; used for one batch after another */
    struct pd_core *core;
    const struct pd_decode *to;
    struct xfer_op *ops;
    size_t count, cap;
};
void pd_write_fini(struct pd_write *write);

/* Forgets what was built. to is borrowed until submit. */
void pd_write_begin(struct pd_write *write, struct pd_core *core,
                    const struct pd_decode *to);

/* Pages src[0 .. count - 1] of ours into dst[..] of the decode's, in all KV
 * buffers; of the last page its first last_tokens tokens (a page is token by
 * token). Neighbours on both sides go as one. ERR_NOMEM. */
int pd_write_pages(struct pd_write *write, const kv_page *src,
                   const uint32_t *dst, uint32_t count, uint32_t last_tokens,
                   struct why *why);
/* Our aux row into the decode's. ERR_NOMEM. */
int pd_write_aux(struct pd_write *write, uint32_t row, uint32_t to_row,
                 struct why *why);

/* Errors: those of xfer_submit_batch. Its end comes by xfer_poll, with tag. */
int pd_write_submit(struct pd_write *write, uint64_t tag, struct why *why);

#endif
