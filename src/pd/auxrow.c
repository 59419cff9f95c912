#include "pd/auxrow.h"

#include <assert.h>
#include <string.h>

static const uint16_t item_bytes[PD_AUX_ITEMS] = {
#define X(name, bytes) bytes,
    PD_AUX_LIST(X)
#undef X
};

size_t pd_aux_item_bytes(enum pd_aux_item item)
{
    return item_bytes[item];
}

size_t pd_aux_table_bytes(uint32_t rows)
{
    size_t row = 0;
    for (int i = 0; i < PD_AUX_ITEMS; i++)
        row += item_bytes[i];
    return row * rows;
}

void pd_aux_table_init(struct pd_aux_table *table, void *memory, uint32_t rows)
{
    char *at = memory;
    for (int i = 0; i < PD_AUX_ITEMS; i++) {
        table->items[i] = at;
        at += (size_t)item_bytes[i] * rows;
    }
    table->rows = rows;
}

void *pd_aux_at(const struct pd_aux_table *table, enum pd_aux_item item,
                uint32_t row)
{
    assert(row < table->rows);
    return table->items[item] + (size_t)item_bytes[item] * row;
}

void pd_aux_clear(struct pd_aux_table *table, uint32_t row)
{
    for (int i = 0; i < PD_AUX_ITEMS; i++)
        memset(pd_aux_at(table, i, row), 0, item_bytes[i]);
}

static void put(struct pd_aux_table *table, enum pd_aux_item item, uint32_t row,
                const void *bytes, size_t n)
{
    memcpy(pd_aux_at(table, item, row), bytes, n);
}

static void get(const struct pd_aux_table *table, enum pd_aux_item item,
                uint32_t row, void *bytes, size_t n)
{
    memcpy(bytes, pd_aux_at(table, item, row), n);
}

void pd_aux_write(struct pd_aux_table *table, uint32_t row,
                  const struct pd_aux_row *in)
{
    assert(in->top_count <= PD_TOP_MAX);
    /* Stock peers read the hit per kind of memory: all of ours is device. */
    const uint32_t cached[2] = {in->cached_tokens, in->cached_tokens};
    pd_aux_clear(table, row);
    put(table, PD_AUX_OUTPUT_IDS, row, &in->token, 4);
    put(table, PD_AUX_CACHED_TOKENS, row, cached, sizeof cached);
    put(table, PD_AUX_LOGPROB_VALUE, row, &in->logprob, 4);
    put(table, PD_AUX_LOGPROB_ID, row, &in->logprob_id, 4);
    put(table, PD_AUX_TOP_VALUES, row, in->top_values,
        in->top_count * sizeof(float));
    put(table, PD_AUX_TOP_IDS, row, in->top_ids,
        in->top_count * sizeof(int32_t));
    put(table, PD_AUX_BOOTSTRAP_ROOM, row, &in->room, 8);
}

void pd_aux_read(const struct pd_aux_table *table, uint32_t row,
                 struct pd_aux_row *out)
{
    assert(out->top_count <= PD_TOP_MAX);
    get(table, PD_AUX_OUTPUT_IDS, row, &out->token, 4);
    get(table, PD_AUX_CACHED_TOKENS, row, &out->cached_tokens, 4);
    get(table, PD_AUX_LOGPROB_VALUE, row, &out->logprob, 4);
    get(table, PD_AUX_LOGPROB_ID, row, &out->logprob_id, 4);
    get(table, PD_AUX_TOP_VALUES, row, out->top_values,
        out->top_count * sizeof(float));
    get(table, PD_AUX_TOP_IDS, row, out->top_ids,
        out->top_count * sizeof(int32_t));
    get(table, PD_AUX_BOOTSTRAP_ROOM, row, &out->room, 8);
}
