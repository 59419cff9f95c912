/* The body of /generate. Fields: docs/api.md; source: SGLang's
 * GenerateReqInput (managers/io_struct.py). */
#include "base/mem.h"
#include "serve/ask.h"

/* Known there, not done here; asking for one is an error, never ignored. */
static const char *const refused[] = {
    "image_data",   "video_data",     "audio_data",
    "lora_path",    "session_params", "custom_logit_processor",
    "return_bytes", "return_entropy", "return_hidden_states",
};

static int take_texts(struct ask *ask, const struct ask_env *env,
                      const json_t *text, struct why *why)
{
    ask->batch = json_is_array(text);
    int rc = ask_set_prompts(ask, ask->batch ? json_array_size(text) : 1, why);
    for (uint32_t i = 0; !rc && i < ask->prompt_count; i++) {
        const json_t *v = ask->batch ? json_array_get(text, i) : text;
        if (!json_is_string(v))
            return err_set(why, ERR_FORMAT,
                           "text must be a string or a list of strings.");
        struct prompt *prompt = &ask->prompts[i];
        prompt->text = json_string_value(v);
        prompt->text_len = json_string_length(v);
        rc = ask_encode(env, prompt, prompt->text, prompt->text_len, true, why);
    }
    return rc;
}

static int take_input_ids(struct ask *ask, const struct ask_env *env,
                          const json_t *ids, struct why *why)
{
    if (!json_is_array(ids))
        return err_set(why, ERR_FORMAT,
                       "input_ids must be a list of token ids, or of lists.");
    if (json_array_size(ids) == 0)
        return err_set(why, ERR_INVALID, "input_ids cannot be empty.");
    ask->batch = json_is_array(json_array_get(ids, 0));
    int rc = ask_set_prompts(ask, ask->batch ? json_array_size(ids) : 1, why);
    for (uint32_t i = 0; !rc && i < ask->prompt_count; i++) {
        const json_t *v = ask->batch ? json_array_get(ids, i) : ids;
        if (!json_is_array(v))
            return err_set(why, ERR_FORMAT,
                           "input_ids mixes token ids and lists.");
        rc = ask_take_ids(env, &ask->prompts[i], v, why);
    }
    return rc;
}

static int take_input(struct ask *ask, const struct ask_env *env,
                      struct why *why)
{
    const json_t *text = ask_member(ask->body, "text");
    const json_t *ids = ask_member(ask->body, "input_ids");
    const json_t *embeds = ask_member(ask->body, "input_embeds");
    if ((!text && !ids && !embeds) || (text && ids && embeds))
        return err_set(why, ERR_INVALID,
                       "Either text, input_ids or input_embeds should be "
                       "provided.");
    if (text) return take_texts(ask, env, text, why);
    if (ids) return take_input_ids(ask, env, ids, why);
    return err_set(why, ERR_UNSUPPORTED,
                   "input_embeds is not supported by this server.");
}

static int option_bool(const struct ask *ask, const char *key, uint32_t i,
                       bool *out, struct why *why)
{
    const json_t *v;
    int rc = ask_option(ask, key, i, &v, why);
    if (rc || !v) return rc;
    if (!json_is_boolean(v))
        return err_set(why, ERR_FORMAT, "%s must be true or false.", key);
    *out = json_is_true(v);
    return 0;
}

static int option_int(const struct ask *ask, const char *key, uint32_t i,
                      int64_t min, int64_t max, int64_t *out, struct why *why)
{
    const json_t *v;
    int rc = ask_option(ask, key, i, &v, why);
    if (rc || !v) return rc;
    if (!json_is_integer(v))
        return err_set(why, ERR_FORMAT, "%s must be a whole number.", key);
    *out = json_integer_value(v);
    if (*out < min || *out > max)
        return err_set(why, ERR_INVALID,
                       "%s must be in [%lld, %lld], got %lld.", key,
                       (long long)min, (long long)max, (long long)*out);
    return 0;
}

/* token_ids_logprob: [int] for all, or a list of lists in a batch. */
static int take_logprob_ids(struct ask *ask, const struct ask_env *env,
                            uint32_t i, struct why *why)
{
    const json_t *v = ask_member(ask->body, "token_ids_logprob");
    if (!v) return 0;
    if (ask->batch && json_is_array(json_array_get(v, 0))) {
        int rc = ask_option(ask, "token_ids_logprob", i, &v, why);
        if (rc || !v) return rc;
    }
    if (!json_is_array(v))
        return err_set(why, ERR_FORMAT,
                       "token_ids_logprob must be a list of token ids.");
    struct prompt ids = {0}; /* the same checks as a prompt's ids */
    int rc = ask_take_ids(env, &ids, v, why);
    ask->prompts[i].logprob_ids = ids.tokens;
    ask->prompts[i].logprob_id_count = ids.token_count;
    return rc;
}

static int take_logprobs(struct ask *ask, const struct ask_env *env, uint32_t i,
                         struct why *why)
{
    struct prompt *prompt = &ask->prompts[i];
    int rc = option_bool(ask, "return_logprob", i, &prompt->want_logprobs, why);
    if (rc || !prompt->want_logprobs) return rc;
    int64_t start = -1, top = 0;
    rc = option_int(ask, "logprob_start_len", i, -1, INT32_MAX, &start, why);
    if (!rc) rc = option_int(ask, "top_logprobs_num", i, 0, 128, &top, why);
    if (!rc) rc = take_logprob_ids(ask, env, i, why);
    if (rc) return rc;
    if (start >= prompt->token_count)
        return err_set(why, ERR_INVALID,
                       "logprob_start_len (%lld) must be less than the number "
                       "of input tokens (%u).",
                       (long long)start, prompt->token_count);
    prompt->logprob_start = (int32_t)start;
    prompt->top_logprobs = (uint32_t)top;
    return 0;
}

static int take_options(struct ask *ask, const struct ask_env *env,
                        struct why *why)
{
    int rc = json_get_bool(ask->body, "stream", &ask->stream, why);
    if (!rc)
        rc = json_get_bool(ask->body, "return_text_in_logprobs",
                           &ask->text_in_logprobs, why);
    for (uint32_t i = 0; !rc && i < ask->prompt_count; i++) {
        const json_t *v;
        rc = ask_option(ask, "sampling_params", i, &v, why);
        if (!rc)
            rc = params_parse(&ask->prompts[i].params, v, LENGTH_DEFAULT,
                              env->vocab, why);
        if (!rc) rc = take_logprobs(ask, env, i, why);
    }
    return rc;
}

int ask_parse_generate(struct ask **out, const struct ask_env *env,
                       const char *body, size_t n, struct why *why)
{
    int rc = ask_create(out, body, n, why);
    if (rc) return rc;
    struct ask *ask = *out;
    rc = ask_refuse(ask->body, refused, sizeof refused / sizeof *refused, why);
    if (!rc) rc = take_input(ask, env, why);
    if (!rc) rc = take_options(ask, env, why);
    if (!rc) rc = ask_finish(ask, env, why);
    if (!rc) return 0;
    ask_destroy(ask);
    *out = NULL;
    return rc;
}
