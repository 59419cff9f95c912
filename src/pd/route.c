#include "pd/route.h"

#include "base/buf.h"

#include <inttypes.h>
#include <string.h>

enum { AXIS_MAX = 4096, RANKS_MAX = 65536 };

uint32_t pd_rank_dp_group(const struct pd_rank *rank)
{
    return rank->system_dp.size == 1 ? rank->dp.rank : rank->system_dp.rank;
}

uint32_t pd_rank_dp_size(const struct pd_rank *rank)
{
    return rank->system_dp.size == 1 ? rank->dp.size : rank->system_dp.size;
}

/* ---- writing ------------------------------------------------------------- */

static void set_number(json_t *to, const char *key, uint64_t value)
{
    json_object_set_new(to, key, json_integer((json_int_t)value));
}

/* 0 or "" is null: not told. */
static void set_page_and_dtype(json_t *to, uint32_t page, const char *dtype)
{
    json_object_set_new(to, "page_size",
                        page ? json_integer(page) : json_null());
    json_object_set_new(to, "kv_cache_dtype",
                        *dtype ? json_string(dtype) : json_null());
}

json_t *pd_rank_encode(const struct pd_rank *rank)
{
    json_t *to = json_object();
    json_object_set_new(to, "role", json_string("Prefill"));
    set_number(to, "attn_tp_size", rank->tp.size);
    set_number(to, "attn_tp_rank", rank->tp.rank);
    set_number(to, "attn_cp_size", rank->cp.size);
    set_number(to, "attn_cp_rank", rank->cp.rank);
    set_number(to, "attn_dp_size", rank->dp.size);
    set_number(to, "attn_dp_rank", rank->dp.rank);
    set_number(to, "pp_size", rank->pp.size);
    set_number(to, "pp_rank", rank->pp.rank);
    set_number(to, "system_dp_size", rank->system_dp.size);
    set_number(to, "system_dp_rank", rank->system_dp.rank);
    json_object_set_new(to, "rank_ip", json_string(rank->address.host));
    set_number(to, "rank_port", rank->address.port);
    set_page_and_dtype(to, rank->page_size, rank->kv_cache_dtype);
    json_object_set_new(
        to, "load_balance_method",
        json_string(rank->follow_room ? "follow_bootstrap_room" : "auto"));
    return to;
}

static json_t *sizes_encode_w2(const struct pd_sizes *sizes)
{
    json_t *to = json_object();
    const struct {
        const char *key;
        uint32_t value;
    } members[] = {{"prefill_attn_tp_size", sizes->tp},
                   {"prefill_dp_size", sizes->dp},
                   {"prefill_pp_size", sizes->pp},
                   {"prefill_page_size", sizes->page_size}}; /* late W2 */
    for (int i = 0; i < 4; i++)
        json_object_set_new(to, members[i].key,
                            sizes->registered && members[i].value
                                ? json_integer(members[i].value)
                                : json_null());
    return to;
}

json_t *pd_sizes_encode(const struct pd_sizes *sizes)
{
    /* Computed by a stock decode after it has parsed the answer; its
     * constructor wants them there. */
    static const char *const nulls[] = {
        "target_tp_rank",        "target_tp_ranks",
        "target_cp_ranks",       "target_pp_ranks",
        "required_dst_info_num", "required_prefill_response_num"};
    if (sizes->generation == PD_W2) return sizes_encode_w2(sizes);
    json_t *to = json_object();
    set_number(to, "attn_tp_size", sizes->tp);
    set_number(to, "attn_cp_size", sizes->cp);
    set_number(to, "dp_size", sizes->dp);
    set_number(to, "pp_size", sizes->pp);
    set_page_and_dtype(to, sizes->page_size, sizes->kv_cache_dtype);
    json_object_set_new(to, "follow_bootstrap_room",
                        json_boolean(sizes->follow_room));
    for (size_t i = 0; i < sizeof nulls / sizeof *nulls; i++)
        json_object_set_new(to, nulls[i], json_null());
    return to;
}

json_t *pd_address_encode(const struct pd_address *address)
{
    json_t *to = json_object();
    json_object_set_new(to, "rank_ip", json_string(address->host));
    set_number(to, "rank_port", address->port);
    return to;
}

/* ---- reading ------------------------------------------------------------ */

static int get_number(const json_t *from, const char *key, int64_t fallback,
                      int64_t min, int64_t max, uint32_t *out, struct why *why)
{
    int64_t n = fallback;
    int rc = json_get_int(from, key, &n, why);
    if (rc) return rc;
    if (n < min || n > max)
        return err_set(why, ERR_FORMAT,
                       "%s: %" PRId64 " is not in %" PRId64 " .. %" PRId64, key,
                       n, min, max);
    *out = (uint32_t)n;
    return 0;
}

static int get_word(const json_t *from, const char *key, char *out, size_t size,
                    struct why *why)
{
    const char *text = "";
    int rc = json_get_string(from, key, &text, why);
    if (rc) return rc;
    if (strlen(text) >= size)
        return err_set(why, ERR_FORMAT, "%s: longer than %zu bytes", key,
                       size - 1);
    memcpy(out, text, strlen(text) + 1);
    return 0;
}

static int get_axis(const json_t *from, const char *size_key,
                    const char *rank_key, struct pd_axis *out, struct why *why)
{
    int rc = get_number(from, size_key, 1, 1, AXIS_MAX, &out->size, why);
    if (rc) return rc;
    return get_number(from, rank_key, 0, 0, out->size - 1, &out->rank, why);
}

static int want_object(const json_t *body, struct why *why)
{
    if (json_is_object(body)) return 0;
    return err_set(why, ERR_FORMAT, "not a JSON object");
}

int pd_address_decode(const json_t *body, struct pd_address *out,
                      struct why *why)
{
    int rc = want_object(body, why);
    if (rc) return rc;
    const char *host = "";
    uint32_t port = 0;
    rc = json_get_string(body, "rank_ip", &host, why);
    if (!rc) rc = get_number(body, "rank_port", 0, 1, UINT16_MAX, &port, why);
    if (rc) return rc;
    size_t n = strlen(host);
    if (n > 2 && host[0] == '[' && host[n - 1] == ']') {
        host++;
        n -= 2;
    }
    if (!pd_host_valid(host, n))
        return err_set(why, ERR_FORMAT, "rank_ip: not an address");
    memcpy(out->host, host, n);
    out->host[n] = 0;
    out->port = (uint16_t)port;
    return 0;
}

int pd_rank_decode(const json_t *body, struct pd_rank *out, struct why *why)
{
    *out = (struct pd_rank){0};
    int rc = want_object(body, why);
    if (rc) return rc;
    const char *role = "Prefill", *method = "follow_bootstrap_room";
    rc = json_get_string(body, "role", &role, why);
    if (!rc && strcmp(role, "Prefill") != 0)
        rc = err_set(why, ERR_FORMAT, "role: only Prefill may register");
    if (!rc) rc = get_axis(body, "attn_tp_size", "attn_tp_rank", &out->tp, why);
    if (!rc) rc = get_axis(body, "attn_cp_size", "attn_cp_rank", &out->cp, why);
    if (!rc) rc = get_axis(body, "attn_dp_size", "attn_dp_rank", &out->dp, why);
    if (!rc) rc = get_axis(body, "pp_size", "pp_rank", &out->pp, why);
    if (!rc)
        rc = get_axis(body, "system_dp_size", "system_dp_rank", &out->system_dp,
                      why);
    if (!rc && (uint64_t)out->tp.size * out->cp.size * out->pp.size *
                       pd_rank_dp_size(out) >
                   RANKS_MAX)
        rc = err_set(why, ERR_FORMAT, "more than %d ranks", RANKS_MAX);
    if (!rc) rc = pd_address_decode(body, &out->address, why);
    if (!rc)
        rc = get_number(body, "page_size", 0, 0, 1 << 24, &out->page_size, why);
    if (!rc)
        rc = get_word(body, "kv_cache_dtype", out->kv_cache_dtype,
                      sizeof out->kv_cache_dtype, why);
    if (!rc) rc = json_get_string(body, "load_balance_method", &method, why);
    out->follow_room = !strcmp(method, "follow_bootstrap_room");
    return rc;
}

static int sizes_decode_w2(const json_t *body, struct pd_sizes *out,
                           struct why *why)
{
    const json_t *tp = json_object_get(body, "prefill_attn_tp_size");
    if (!tp) return err_set(why, ERR_FORMAT, "prefill_attn_tp_size: missing");
    out->cp = 1;
    out->follow_room = true;
    out->registered = !json_is_null(tp);
    if (!out->registered) return 0;
    int rc =
        get_number(body, "prefill_attn_tp_size", 0, 1, AXIS_MAX, &out->tp, why);
    if (!rc)
        rc = get_number(body, "prefill_dp_size", 0, 1, AXIS_MAX, &out->dp, why);
    if (!rc)
        rc = get_number(body, "prefill_pp_size", 0, 1, AXIS_MAX, &out->pp, why);
    if (!rc) /* late W2 */
        rc = get_number(body, "prefill_page_size", 0, 0, 1 << 24,
                        &out->page_size, why);
    return rc;
}

int pd_sizes_decode(const json_t *body, enum pd_generation generation,
                    struct pd_sizes *out, struct why *why)
{
    *out = (struct pd_sizes){.generation = generation};
    int rc = want_object(body, why);
    if (rc) return rc;
    if (generation == PD_W2) return sizes_decode_w2(body, out, why);
    out->registered = true;
    rc = get_number(body, "attn_tp_size", 0, 1, AXIS_MAX, &out->tp, why);
    if (!rc)
        rc = get_number(body, "attn_cp_size", 0, 1, AXIS_MAX, &out->cp, why);
    if (!rc) rc = get_number(body, "dp_size", 0, 1, AXIS_MAX, &out->dp, why);
    if (!rc) rc = get_number(body, "pp_size", 0, 1, AXIS_MAX, &out->pp, why);
    if (!rc)
        rc = get_number(body, "page_size", 0, 0, 1 << 24, &out->page_size, why);
    if (!rc)
        rc = get_word(body, "kv_cache_dtype", out->kv_cache_dtype,
                      sizeof out->kv_cache_dtype, why);
    if (!rc)
        rc = json_get_bool(body, "follow_bootstrap_room", &out->follow_room,
                           why);
    return rc;
}
