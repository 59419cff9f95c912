/* serve/params.h - sampling parameters from JSON, the one parser of them.
 *
 * /generate hands its sampling_params here as they came; the OpenAI routes
 * first write theirs into an object of the same names. Names, ranges and
 * defaults are SGLang's (docs/api.md, "Sampling parameters"); null means the
 * default. An unknown key is refused by name, and so is a known one that this
 * server does not serve. Any thread. */
#ifndef BATON_SERVE_PARAMS_H
#define BATON_SERVE_PARAMS_H

#include "engine/request.h"
#include "json/json.h"

enum params_length {
    LENGTH_DEFAULT, /* 128, cut to what the context leaves          */
    LENGTH_GIVEN,   /* refused when the context cannot hold it      */
    LENGTH_CONTEXT, /* as many as the context leaves (null, chat)   */
};

#define PARAMS_MAX_N     1024
#define PARAMS_MAX_STOPS 16 /* as struct sampling says */

struct params {
    struct sampling sampling; /* its arrays are owned here, its stop
                               * strings borrowed from the JSON */
    enum params_length length;
    uint32_t n;               /* samples of each prompt, >= 1    */
    uint32_t stream_interval; /* tokens an event; 0: the server's */
    int32_t *stop_ids, *bias_ids;
    float *bias_values;
    const char **stops;
    /* Borrowed; NULL: not given; one at most. */
    const char *json_schema, *regex, *ebnf, *structural_tag;
};

/* object: a JSON object, borrowed as long as out lives, or NULL for all
 * defaults. absent: what no max_new_tokens means. vocab bounds token ids.
 * ERR_INVALID, ERR_FORMAT (no object), ERR_UNSUPPORTED, ERR_NOMEM; fini takes
 * back what a failed parse left, too. */
int params_parse(struct params *out, const json_t *object,
                 enum params_length absent, uint32_t vocab, struct why *why);
void params_fini(struct params *params);

#endif
