/* Passes, and whom a target shuts out. */
#include "xfer/core.h"

#include "base/clock.h"
#include "base/mem.h"

#include <string.h>

void xfer_pass(struct xfer *x, char out[XFER_NAME_MAX + 1])
{
    uint64_t pass = 0;
    while (!pass)
        pass = random_u64();
    addr_pass_put(pass, x->name, out, XFER_NAME_MAX + 1);
    pthread_mutex_lock(&x->lock);
    if (x->pass_count == x->pass_cap) {
        size_t cap = x->pass_cap ? x->pass_cap * 2 : 16;
        uint64_t *grown = mem_must(cap, sizeof *grown);
        if (x->pass_count)
            memcpy(grown, x->passes, x->pass_count * sizeof *grown);
        mem_free(x->passes);
        x->passes = grown;
        x->pass_cap = cap;
    }
    x->passes[x->pass_count++] = pass;
    pthread_mutex_unlock(&x->lock);
}

static uint64_t *pass_find(const struct xfer *x, uint64_t pass)
{
    for (size_t i = 0; i < x->pass_count; i++)
        if (x->passes[i] == pass) return &x->passes[i];
    return NULL;
}

bool want_is_known(const struct xfer *x, const struct xfer_epoch *want,
                   uint64_t *pass)
{
    static const struct xfer_epoch none;
    *pass = 0;
    if (!memcmp(want, &none, sizeof none) ||
        !memcmp(want, &x->epoch, sizeof x->epoch))
        return true;
    *pass = wire_want_pass(want);
    return *pass && pass_find(x, *pass);
}

static bool comes_by(const struct inlink *in, uint64_t pass, const char *name)
{
    return pass ? in->pass == pass : !strcmp(in->name, name);
}

static bool expelled(struct xfer *x, uint64_t pass, const char *name)
{
    struct inlink *in;
    TAILQ_FOREACH(in, &x->inlinks, next)
    if (in->down && comes_by(in, pass, name)) return false;
    return true;
}

int xfer_expel(struct xfer *x, const char *name, int timeout_ms)
{
    uint64_t deadline = deadline_after(timeout_ms);
    uint64_t pass = addr_pass_take(&name);
    struct inlink *in;
    int rc = 0;
    pthread_mutex_lock(&x->lock);
    uint64_t *valid = pass_find(x, pass);
    if (valid) *valid = x->passes[--x->pass_count];
    TAILQ_FOREACH(in, &x->inlinks, next)
    if (!in->down && comes_by(in, pass, name)) inlink_fail(x, in);
    while (!expelled(x, pass, name) && !rc)
        if (!cond_until(&x->quiet_cond, &x->lock, deadline)) rc = ERR_TIMEOUT;
    pthread_mutex_unlock(&x->lock);
    return rc;
}
