/* The choice of experts, the same on every device that computes in host
 * memory. */
#include "tensor/device_ops.h"

#include <math.h>
#include <string.h>

/* Puts i into ids, which holds n in descending order of score. NaN is above
 * nothing, so ids is always full in the end. */
static uint32_t insert(uint32_t *ids, uint32_t n, uint32_t used,
                       const float *scores, uint32_t i)
{
    uint32_t at = n;
    while (at > 0 && scores[i] > scores[ids[at - 1]])
        at--; /* of equals the lower index stays before */
    if (at == used) return n;
    if (n == used) n--;
    memmove(ids + at + 1, ids + at, (n - at) * sizeof *ids);
    ids[at] = i;
    return n + 1;
}

static void sort(uint32_t *ids, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++)
        for (uint32_t j = i; j > 0 && ids[j] < ids[j - 1]; j--) {
            uint32_t swap = ids[j];
            ids[j] = ids[j - 1];
            ids[j - 1] = swap;
        }
}

static void choose(const struct experts *e, const float *scores, uint32_t *ids,
                   float *weights)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < e->count; i++)
        n = insert(ids, n, e->used, scores, i);
    double most = scores[ids[0]], total = 0, chosen = 0;
    for (uint32_t i = 0; i < e->count; i++)
        total += exp(scores[i] - most);
    sort(ids, n);
    for (uint32_t i = 0; i < n; i++)
        chosen += exp(scores[ids[i]] - most);
    if (!e->normed || isnan(total)) chosen = total;
    for (uint32_t i = 0; i < n; i++)
        weights[i] = (float)(exp(scores[ids[i]] - most) / chosen);
}

void experts_choose(const struct experts *e, const float *scores, size_t tokens,
                    uint32_t *ids, float *weights)
{
    for (size_t t = 0; t < tokens; t++)
        choose(e, scores + t * e->count, ids + t * e->used,
               weights + t * e->used);
}
