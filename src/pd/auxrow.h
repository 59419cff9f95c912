/* pd/auxrow.h - the row beside the KV that carries the first token.
 *
 * Layout and meaning: docs/wire.md, "Aux rows". Pure functions over memory of
 * the caller; any thread. */
#ifndef BATON_PD_AUXROW_H
#define BATON_PD_AUXROW_H

#include <stddef.h>
#include <stdint.h>

enum { PD_TOP_MAX = 128 }; /* top logprobs in a row */

/* name, bytes of a row; append only, the order is the wire's. */
#define PD_AUX_LIST(X)   \
    X(OUTPUT_IDS, 64)    \
    X(CACHED_TOKENS, 64) \
    X(LOGPROB_VALUE, 64) \
    X(LOGPROB_ID, 64)    \
    X(TOP_VALUES, 512)   \
    X(TOP_IDS, 512)      \
    X(SPEC_P, 64)        \
    X(SPEC_INDEX, 128)   \
    X(HIDDEN_STATES, 64) \
    X(BOOTSTRAP_ROOM, 64)
enum pd_aux_item {
#define X(name, bytes) PD_AUX_##name,
    PD_AUX_LIST(X)
#undef X
        PD_AUX_ITEMS
};
enum { PD_AUX_ITEMS_W2 = PD_AUX_BOOTSTRAP_ROOM };

struct pd_aux_row {
    int32_t token; /* the first output token */
    uint32_t cached_tokens;
    float logprob;
    int32_t logprob_id;
    uint32_t top_count; /* write: how many; read: how many to take */
    float top_values[PD_TOP_MAX];
    int32_t top_ids[PD_TOP_MAX];
    uint64_t room; /* 0: nothing landed */
};

/* A table of rows in memory of pd_aux_table_bytes, one column an item. */
struct pd_aux_table {
    char *items[PD_AUX_ITEMS];
    uint32_t rows;
};
size_t pd_aux_item_bytes(enum pd_aux_item item);
size_t pd_aux_table_bytes(uint32_t rows);
void pd_aux_table_init(struct pd_aux_table *table, void *memory, uint32_t rows);
/* Bytes of item i of a row. */
void *pd_aux_at(const struct pd_aux_table *table, enum pd_aux_item item,
                uint32_t row);
void pd_aux_clear(struct pd_aux_table *table, uint32_t row);
void pd_aux_write(struct pd_aux_table *table, uint32_t row,
                  const struct pd_aux_row *in);
/* in and out: out->top_count values are read. */
void pd_aux_read(const struct pd_aux_table *table, uint32_t row,
                 struct pd_aux_row *out);

#endif
