/* pd/route.h - the JSON bodies of the bootstrap server.
 *
 * Pure functions between structs and the bodies of docs/wire.md, "Bootstrap
 * HTTP". Decoders take foreign JSON: ERR_FORMAT names the member that is
 * wrong. Any thread. */
#ifndef BATON_PD_ROUTE_H
#define BATON_PD_ROUTE_H

#include "json/json.h"
#include "pd/wire.h"

/* A dimension of the prefill's ranks: this rank's place and the size. */
struct pd_axis {
    uint32_t rank, size;
};

/* Body of PUT /route. */
struct pd_rank {
    struct pd_axis tp, cp, dp, pp, system_dp;
    struct pd_address address;
    uint32_t page_size;      /* 0: not told */
    char kv_cache_dtype[32]; /* "": not told */
    bool follow_room;        /* load_balance_method */
};
uint32_t pd_rank_dp_group(const struct pd_rank *rank);
uint32_t pd_rank_dp_size(const struct pd_rank *rank);
json_t *pd_rank_encode(const struct pd_rank *rank);
int pd_rank_decode(const json_t *body, struct pd_rank *out, struct why *why);

/* Answer to GET /route with all keys -1. */
struct pd_sizes {
    enum pd_generation generation;
    bool registered; /* false: W2's nulls */
    uint32_t tp, cp, dp, pp;
    uint32_t page_size;      /* 0: not told */
    char kv_cache_dtype[32]; /* "": not told */
    bool follow_room;
};
json_t *pd_sizes_encode(const struct pd_sizes *sizes);
int pd_sizes_decode(const json_t *body, enum pd_generation generation,
                    struct pd_sizes *out, struct why *why);

/* Answer to GET /route of one rank. */
json_t *pd_address_encode(const struct pd_address *address);
int pd_address_decode(const json_t *body, struct pd_address *out,
                      struct why *why);

#endif
