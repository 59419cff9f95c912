#include "pd/decodes.h"

#include "base/log.h"
#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { DECODES_MAX = 1024 };

void pd_decode_drop(struct pd_decode *d)
{
    if (!d || --d->refs) return;
    xfer_peer_close(d->peer);
    mem_free(d->kv);
    mem_free(d->aux);
    mem_free(d);
}

struct pd_decode *pd_decodes_find(const struct pd_decodes *decodes,
                                  const char *session)
{
    struct pd_decode *d = decodes->first;
    while (d && strcmp(d->reg.session, session) != 0)
        d = d->next;
    return d;
}

static void remove_one(struct pd_decodes *decodes, struct pd_decode *d)
{
    struct pd_decode **at = &decodes->first;
    while (*at != d)
        at = &(*at)->next;
    *at = d->next;
    decodes->count--;
    pd_decode_drop(d);
}

void pd_decodes_forget(struct pd_decodes *decodes,
                       const struct pd_address *from)
{
    for (struct pd_decode *d = decodes->first, *next; d; d = next) {
        next = d->next;
        if (pd_address_same(&d->reg.from, from)) remove_one(decodes, d);
    }
}

void pd_decodes_fini(struct pd_decodes *decodes)
{
    while (decodes->first)
        remove_one(decodes, decodes->first);
}

/* The distance that all buffers have from their neighbours; 0: they differ. */
static uint64_t common_pitch(const struct pd_decode *d)
{
    uint32_t n = d->reg.kv_count;
    if (!d->reg.has_layout || n < 2 || d->kv[1] <= d->kv[0]) return 0;
    uint64_t pitch = d->kv[1] - d->kv[0];
    for (uint32_t i = 1; i < n; i++)
        if (d->kv[i] - d->kv[i - 1] != pitch) return 0;
    return pitch < d->reg.page_bytes ? 0 : pitch;
}

static int check(const struct pd_core *core, const struct pd_register *reg,
                 struct why *why)
{
    const struct kv_pool *pool = core->options.pool;
    char name[PD_NAME_MAX + 16];
    snprintf(name, sizeof name, "decode %s", reg->session);
    if (reg->has_layout) {
        int rc = pd_layout_check(&core->layout, &reg->layout, name, why);
        if (rc) return rc;
    }
    uint32_t buffers = kv_pool_buffer_count(pool);
    size_t page_bytes = kv_shape_page_bytes(kv_pool_shape(pool));
    if (reg->tp_size != 1)
        return err_set(why, ERR_UNSUPPORTED,
                       "%s does not fit: its attn_tp_size is %u, this prefill "
                       "needs 1",
                       name, reg->tp_size);
    if (reg->has_state)
        return err_set(why, ERR_UNSUPPORTED,
                       "%s does not fit: it has state buffers of a hybrid "
                       "model, ours has none",
                       name);
    if (reg->kv_count != buffers)
        return err_set(why, ERR_INVALID,
                       "%s does not fit: it has %u KV buffers, we have %u "
                       "(another model?)",
                       name, reg->kv_count, buffers);
    if (reg->page_bytes != page_bytes)
        return err_set(why, ERR_INVALID,
                       "%s does not fit: a page of its KV buffers has %" PRIu64
                       " bytes, ours has %zu (page size, KV cache type or "
                       "model differ)",
                       name, reg->page_bytes, page_bytes);
    if (reg->aux_count < PD_AUX_ITEMS_W2)
        return err_set(why, ERR_INVALID,
                       "%s does not fit: it has %u aux items, %d are needed",
                       name, reg->aux_count, PD_AUX_ITEMS_W2);
    return 0;
}

static uint64_t *u64s_copy(const void *array, uint32_t count)
{
    uint64_t *out = mem_must(count ? count : 1, sizeof *out);
    if (count) memcpy(out, array, count * sizeof *out);
    return out;
}

void pd_decodes_add(struct pd_decodes *decodes, struct pd_core *core,
                    const struct pd_register *reg)
{
    struct pd_decode *former = pd_decodes_find(decodes, reg->session);
    if (former) remove_one(decodes, former);
    pd_decodes_forget(decodes, &reg->from); /* its former sessions are over */
    if (decodes->count >= DECODES_MAX) {
        struct pd_decode *last = decodes->first;
        while (last->next)
            last = last->next;
        remove_one(decodes, last);
    }
    struct pd_decode *d = mem_must(1, sizeof *d);
    d->refs = 1;
    d->reg = *reg;
    d->reg.kv = d->kv = u64s_copy(reg->kv, reg->kv_count);
    d->reg.aux = d->aux = u64s_copy(reg->aux, reg->aux_count);
    d->pitch = common_pitch(d);
    d->next = decodes->first;
    decodes->first = d;
    decodes->count++;
    struct why why = {0};
    int rc = check(core, reg, &why);
    if (!rc)
        rc = xfer_peer_open(core->options.xfer, reg->session, &d->peer, &why);
    if (!rc) rc = pd_mail_connect(core->mail, &reg->from, &why);
    if (rc) {
        snprintf(d->bad, sizeof d->bad, "%s", why_text(&why, rc));
        log_error("pd", "%s", d->bad);
    } else
        log_info("pd", "decode %s registered: %s, messages to %s:%u",
                 reg->session, reg->has_layout ? "Baton" : "SGLang",
                 reg->from.host, reg->from.port);
}
