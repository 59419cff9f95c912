/* JSON bodies of the bootstrap server and the layout header, by turns. */
#include "pd/route.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int ok)
{
    if (!ok) abort();
}

static void bodies(const json_t *body)
{
    struct pd_rank rank;
    struct pd_sizes sizes;
    struct pd_address address;
    struct why why = {0};
    if (!pd_rank_decode(body, &rank, &why)) {
        json_t *again = pd_rank_encode(&rank);
        struct pd_rank back;
        check(again && !pd_rank_decode(again, &back, NULL));
        check(pd_rank_dp_group(&rank) < pd_rank_dp_size(&rank));
        json_decref(again);
    }
    if (!pd_address_decode(body, &address, &why)) check(address.port > 0);
    for (int generation = PD_W2; generation <= PD_W4; generation += 2) {
        if (pd_sizes_decode(body, generation, &sizes, &why)) continue;
        json_t *again = pd_sizes_encode(&sizes);
        check(again && !pd_sizes_decode(again, generation, &sizes, NULL));
        json_decref(again);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct pd_layout layout, back;
    if (!pd_layout_decode(text, size, &layout, NULL)) {
        char out[PD_LAYOUT_TEXT];
        pd_layout_encode(&layout, out);
        check(!pd_layout_decode(out, strlen(out), &back, NULL));
        check(!pd_layout_check(&layout, &back, "peer", NULL));
    }
    json_t *body;
    if (json_parse(&body, text, size, NULL)) return 0;
    bodies(body);
    json_decref(body);
    return 0;
}
