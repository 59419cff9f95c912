#include "serve/params.h"
#include "base/mem.h"

#include <math.h>
#include <string.h>

/* How each key is read. The special kinds have a function of their own. */
enum kind {
    U32,
    FLOAT,
    BOOL,
    TOP_K,
    LENGTH,
    SEED,
    IDS,
    STOPS,
    BIAS,
    TEXT,
    IGNORED,
    REFUSED
};

static const struct key {
    const char *name;
    enum kind kind;
    size_t offset; /* in struct params */
} keys[] = {
#define AT(field) offsetof(struct params, field)
    {"max_new_tokens", LENGTH, 0},
    {"min_new_tokens", U32, AT(sampling.min_new_tokens)},
    {"temperature", FLOAT, AT(sampling.temperature)},
    {"top_p", FLOAT, AT(sampling.top_p)},
    {"top_k", TOP_K, 0},
    {"min_p", FLOAT, AT(sampling.min_p)},
    {"frequency_penalty", FLOAT, AT(sampling.frequency_penalty)},
    {"presence_penalty", FLOAT, AT(sampling.presence_penalty)},
    {"repetition_penalty", FLOAT, AT(sampling.repetition_penalty)},
    {"stop", STOPS, 0},
    {"stop_token_ids", IDS, 0},
    {"ignore_eos", BOOL, AT(sampling.ignore_eos)},
    {"n", U32, AT(n)},
    {"skip_special_tokens", BOOL, AT(sampling.skip_special_tokens)},
    {"no_stop_trim", BOOL, AT(sampling.no_stop_trim)},
    {"logit_bias", BIAS, 0},
    {"sampling_seed", SEED, 0},
    {"stream_interval", U32, AT(stream_interval)},
    /* Only tells slow Python tokenizers where to put spaces. */
    {"spaces_between_special_tokens", IGNORED, 0},
    {"stop_regex", REFUSED, 0},
    {"json_schema", TEXT, AT(json_schema)},
    {"regex", TEXT, AT(regex)},
    {"ebnf", TEXT, AT(ebnf)},
    {"structural_tag", TEXT, AT(structural_tag)},
    {"custom_params", REFUSED, 0},
#undef AT
};

static int type_error(const char *name, const char *what, struct why *why)
{
    return err_set(why, ERR_INVALID, "%s must be %s.", name, what);
}

static int read_u32(uint32_t *out, const char *name, const json_t *v,
                    struct why *why)
{
    if (!json_is_integer(v)) return type_error(name, "a whole number", why);
    json_int_t x = json_integer_value(v);
    if (x < 0)
        return err_set(why, ERR_INVALID, "%s must be at least 0, got %lld.",
                       name, (long long)x);
    *out = x > UINT32_MAX ? UINT32_MAX : (uint32_t)x;
    return 0;
}

static int read_float(float *out, const char *name, const json_t *v,
                      struct why *why)
{
    if (!json_is_number(v)) return type_error(name, "a number", why);
    double x = json_number_value(v);
    if (!isfinite((float)x)) return type_error(name, "finite", why);
    *out = (float)x;
    return 0;
}

static int read_length(struct params *p, const json_t *v, struct why *why)
{
    p->length = LENGTH_GIVEN;
    return read_u32(&p->sampling.max_new_tokens, "max_new_tokens", v, why);
}

static int read_top_k(struct params *p, const json_t *v, struct why *why)
{
    if (!json_is_integer(v)) return type_error("top_k", "a whole number", why);
    json_int_t x = json_integer_value(v);
    if (x < -1 || x == 0)
        return err_set(why, ERR_INVALID,
                       "top_k must be -1 (disable) or at least 1, got %lld.",
                       (long long)x);
    p->sampling.top_k = x > INT32_MAX ? INT32_MAX : (int32_t)x;
    return 0;
}

static int read_seed(struct params *p, const json_t *v, struct why *why)
{
    if (!json_is_integer(v))
        return type_error("sampling_seed", "a whole number", why);
    p->sampling.seeded = true;
    p->sampling.seed = (uint64_t)json_integer_value(v);
    return 0;
}

static int read_id(int32_t *out, const char *name, json_int_t id,
                   uint32_t vocab, struct why *why)
{
    if (id < 0 || id >= vocab)
        return err_set(why, ERR_INVALID,
                       "%s: token id %lld is not in the vocabulary [0, %u).",
                       name, (long long)id, vocab);
    *out = (int32_t)id;
    return 0;
}

static int read_ids(struct params *p, const json_t *v, uint32_t vocab,
                    struct why *why)
{
    if (!json_is_array(v))
        return type_error("stop_token_ids", "a list of token ids", why);
    size_t count = json_array_size(v);
    p->stop_ids = mem_try(count + 1, sizeof *p->stop_ids, 0);
    if (!p->stop_ids) return err_set(why, ERR_NOMEM, "stop_token_ids");
    for (size_t i = 0; i < count; i++) {
        const json_t *id = json_array_get(v, i);
        if (!json_is_integer(id))
            return type_error("stop_token_ids", "a list of token ids", why);
        int rc = read_id(&p->stop_ids[i], "stop_token_ids",
                         json_integer_value(id), vocab, why);
        if (rc) return rc;
    }
    p->sampling.stop_ids = p->stop_ids;
    p->sampling.stop_id_count = (uint32_t)count;
    return 0;
}

/* An empty string stops nothing and is left out. */
static int read_stop(struct params *p, const json_t *v, struct why *why)
{
    if (!json_is_string(v))
        return type_error("stop", "a string or a list of strings", why);
    const char *text = json_string_value(v);
    if (strlen(text) != json_string_length(v))
        return type_error("stop", "text without NUL characters", why);
    if (!*text) return 0;
    if (p->sampling.stop_count == PARAMS_MAX_STOPS)
        return err_set(why, ERR_INVALID, "stop: at most %d strings.",
                       PARAMS_MAX_STOPS);
    p->stops[p->sampling.stop_count++] = text;
    return 0;
}

static int read_stops(struct params *p, const json_t *v, struct why *why)
{
    p->stops = mem_must(PARAMS_MAX_STOPS, sizeof *p->stops);
    p->sampling.stops = p->stops;
    if (!json_is_array(v)) return read_stop(p, v, why);
    int rc = 0;
    for (size_t i = 0; !rc && i < json_array_size(v); i++)
        rc = read_stop(p, json_array_get(v, i), why);
    return rc;
}

/* {"1234": -100.0, ...} */
static int read_bias(struct params *p, const json_t *v, uint32_t vocab,
                     struct why *why)
{
    if (!json_is_object(v))
        return type_error("logit_bias", "an object of token ids", why);
    size_t count = json_object_size(v);
    p->bias_ids = mem_try(count + 1, sizeof *p->bias_ids, 0);
    p->bias_values = mem_try(count + 1, sizeof *p->bias_values, 0);
    if (!p->bias_ids || !p->bias_values)
        return err_set(why, ERR_NOMEM, "logit_bias");
    uint32_t at = 0;
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)v, key, value) {
        char *end;
        long long id = strtoll(key, &end, 10);
        if (end == key || *end)
            return err_set(why, ERR_INVALID,
                           "logit_bias: \"%.40s\" is not a token id.", key);
        int rc = read_id(&p->bias_ids[at], "logit_bias", id, vocab, why);
        if (!rc)
            rc = read_float(&p->bias_values[at], "a logit_bias", value, why);
        if (rc) return rc;
        at++;
    }
    p->sampling.bias_ids = p->bias_ids;
    p->sampling.bias_values = p->bias_values;
    p->sampling.bias_count = at;
    return 0;
}

static int read_key(struct params *p, const struct key *key, const json_t *v,
                    uint32_t vocab, struct why *why)
{
    void *field = (char *)p + key->offset;
    switch (key->kind) {
    case U32: return read_u32(field, key->name, v, why);
    case FLOAT: return read_float(field, key->name, v, why);
    case BOOL:
        if (!json_is_boolean(v))
            return type_error(key->name, "true or false", why);
        *(bool *)field = json_is_true(v);
        return 0;
    case TOP_K: return read_top_k(p, v, why);
    case LENGTH: return read_length(p, v, why);
    case SEED: return read_seed(p, v, why);
    case IDS: return read_ids(p, v, vocab, why);
    case STOPS: return read_stops(p, v, why);
    case BIAS: return read_bias(p, v, vocab, why);
    case TEXT:
        if (!json_is_string(v) ||
            strlen(json_string_value(v)) != json_string_length(v))
            return type_error(key->name, "a string", why);
        *(const char **)field = json_string_value(v);
        return 0;
    case IGNORED: return 0;
    case REFUSED: break;
    }
    return err_set(why, ERR_UNSUPPORTED,
                   "The sampling parameter %s is not supported by this server.",
                   key->name);
}

static const struct key *find_key(const char *name)
{
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (strcmp(keys[i].name, name) == 0) return &keys[i];
    }
    return NULL;
}

int params_parse(struct params *out, const json_t *object,
                 enum params_length absent, uint32_t vocab, struct why *why)
{
    memset(out, 0, sizeof *out);
    sampling_init(&out->sampling);
    out->n = 1;
    out->length = absent;
    if (absent == LENGTH_CONTEXT) out->sampling.max_new_tokens = INT32_MAX;
    if (object && !json_is_object(object))
        return err_set(why, ERR_FORMAT, "sampling_params must be an object");
    const char *name;
    json_t *value;
    json_object_foreach ((json_t *)(uintptr_t)object, name, value) {
        const struct key *key = find_key(name);
        if (!key)
            return err_set(why, ERR_INVALID,
                           "Unknown sampling parameter \"%.64s\".", name);
        if (json_is_null(value)) continue;
        int rc = read_key(out, key, value, vocab, why);
        if (rc) return rc;
    }
    if (out->n < 1 || out->n > PARAMS_MAX_N)
        return err_set(why, ERR_INVALID, "n must be in [1, %d], got %u.",
                       PARAMS_MAX_N, out->n);
    if (!!out->json_schema + !!out->regex + !!out->ebnf +
            !!out->structural_tag >
        1)
        return err_set(why, ERR_INVALID,
                       "Only one of json_schema, regex, ebnf and "
                       "structural_tag can be set.");
    return sampling_check(&out->sampling, vocab, why);
}

void params_fini(struct params *p)
{
    mem_free(p->stop_ids);
    mem_free(p->bias_ids);
    mem_free(p->bias_values);
    mem_free(p->stops);
    memset(p, 0, sizeof *p);
}
