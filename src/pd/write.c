#include "pd/write.h"

#include "base/mem.h"

#include <string.h>

void pd_write_fini(struct pd_write *w)
{
    mem_free(w->ops);
}

void pd_write_begin(struct pd_write *w, struct pd_core *core,
                    const struct pd_decode *to)
{
    w->core = core;
    w->to = to;
    w->count = 0;
}

static int more(struct pd_write *w, size_t n, struct why *why)
{
    if (w->count + n <= w->cap) return 0;
    void *ops = mem_retry(w->ops, (w->count + n) * sizeof *w->ops);
    if (!ops) return err_set(why, ERR_NOMEM, "no memory for %zu writes", n);
    w->ops = ops;
    w->cap = w->count + n;
    return 0;
}

/* Consecutive pages from src on, to dst on, in all buffers: bytes of each. */
static void add_run(struct pd_write *w, kv_page src, uint32_t dst,
                    uint64_t bytes)
{
    const struct kv_pool *pool = w->core->options.pool;
    const struct pd_decode *d = w->to;
    uint64_t page_bytes = d->reg.page_bytes;
    uint32_t buffers = d->reg.kv_count;
    struct xfer_op op = {.kind = XFER_WRITE, .rows = 1, .bytes = bytes};
    if (d->pitch) {
        char *base = kv_pool_buffer(pool, 0);
        op.rows = buffers;
        op.local = base + src * page_bytes;
        op.remote = d->kv[0] + dst * page_bytes;
        op.local_pitch = (uint64_t)((char *)kv_pool_buffer(pool, 1) - base);
        op.remote_pitch = d->pitch;
        w->ops[w->count++] = op;
        return;
    }
    for (uint32_t b = 0; b < buffers; b++) {
        op.local = (char *)kv_pool_buffer(pool, b) + src * page_bytes;
        op.remote = d->kv[b] + dst * page_bytes;
        w->ops[w->count++] = op;
    }
}

int pd_write_pages(struct pd_write *w, const kv_page *src, const uint32_t *dst,
                   uint32_t count, uint32_t last_tokens, struct why *why)
{
    uint32_t page_tokens = w->core->layout.shape.page_tokens;
    uint64_t page_bytes = w->to->reg.page_bytes;
    uint64_t token_bytes = page_bytes / page_tokens;
    size_t per_run = w->to->pitch ? 1 : w->to->reg.kv_count;
    int rc = more(w, per_run * count, why);
    for (uint32_t p = 0, n; !rc && p < count; p += n) {
        n = 1;
        while (p + n < count && src[p + n] == src[p] + n &&
               dst[p + n] == dst[p] + n)
            n++;
        uint64_t bytes = n * page_bytes;
        if (p + n == count) bytes -= (page_tokens - last_tokens) * token_bytes;
        add_run(w, src[p], dst[p], bytes);
    }
    return rc;
}

int pd_write_aux(struct pd_write *w, uint32_t row, uint32_t to_row,
                 struct why *why)
{
    uint32_t items = w->to->reg.aux_count;
    if (items > PD_AUX_ITEMS) items = PD_AUX_ITEMS;
    int rc = more(w, items, why);
    for (uint32_t i = 0; !rc && i < items; i++) {
        uint64_t bytes = pd_aux_item_bytes(i);
        w->ops[w->count++] =
            (struct xfer_op){.kind = XFER_WRITE,
                             .rows = 1,
                             .local = pd_aux_at(&w->core->aux, i, row),
                             .remote = w->to->aux[i] + to_row * bytes,
                             .bytes = bytes};
    }
    return rc;
}

int pd_write_submit(struct pd_write *w, uint64_t tag, struct why *why)
{
    const struct pd_register *reg = &w->to->reg;
    struct xfer_epoch epoch;
    struct xfer_batch batch = {.ops = w->ops, .count = w->count, .tag = tag};
    if (reg->has_layout && reg->layout.has_epoch) {
        memcpy(epoch.bytes, reg->layout.epoch, sizeof epoch.bytes);
        batch.epoch = &epoch;
    }
    return xfer_submit_batch(w->to->peer, &batch, why);
}
