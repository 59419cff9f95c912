#include "engine/request.h"

#include "base/mem.h"
#include "text/grammar.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void sampling_init(struct sampling *s)
{
    *s = (struct sampling){
        .max_new_tokens = 128,
        .temperature = 1,
        .top_p = 1,
        .top_k = -1,
        .repetition_penalty = 1,
        .skip_special_tokens = true,
    };
}

/* As Python prints a float: the fewest digits that read back as the same. */
static const char *shown(float x, char text[32])
{
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, 32, "%.*g", digits, (double)x);
        if (strtof(text, NULL) == x) break;
    }
    if (isfinite(x) && !strpbrk(text, ".e")) strcat(text, ".0");
    return text;
}

static int check_ids(const int32_t *ids, uint32_t count, uint32_t vocab,
                     const char *what, struct why *why)
{
    for (uint32_t i = 0; i < count; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= vocab)
            return err_set(why, ERR_INVALID, "%s must be in [0, %u], got %d.",
                           what, vocab - 1, ids[i]);
    return 0;
}

int sampling_check(const struct sampling *s, uint32_t vocab, struct why *why)
{
    const struct {
        float value;
        bool fine;
        const char *rule;
    } floats[] = {
        {s->temperature, s->temperature >= 0 && isfinite(s->temperature),
         "temperature must be non-negative"},
        {s->top_p, s->top_p > 0 && s->top_p <= 1, "top_p must be in (0, 1]"},
        {s->min_p, s->min_p >= 0 && s->min_p <= 1, "min_p must be in [0, 1]"},
        {s->frequency_penalty,
         s->frequency_penalty >= -2 && s->frequency_penalty <= 2,
         "frequency_penalty must be in [-2, 2]"},
        {s->presence_penalty,
         s->presence_penalty >= -2 && s->presence_penalty <= 2,
         "presence_penalty must be in [-2, 2]"},
        {s->repetition_penalty,
         s->repetition_penalty >= 0 && s->repetition_penalty <= 2,
         "repetition_penalty must be in [0, 2]"},
    };
    char text[32];
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
        if (!floats[i].fine)
            return err_set(why, ERR_INVALID, "%s, got %s.", floats[i].rule,
                           shown(floats[i].value, text));
    if (s->top_k < -1 || s->top_k == 0)
        return err_set(why, ERR_INVALID,
                       "top_k must be -1 (disable) or at least 1, got %d.",
                       s->top_k);
    if (s->min_new_tokens > s->max_new_tokens)
        return err_set(why, ERR_INVALID,
                       "min_new_tokens must be in [0, max_new_tokens(%u)], "
                       "got %u.",
                       s->max_new_tokens, s->min_new_tokens);
    for (uint32_t i = 0; i < s->bias_count; i++)
        if (isnan(s->bias_values[i]))
            return err_set(why, ERR_INVALID,
                           "logit_bias must have numbers as values.");
    int rc =
        check_ids(s->bias_ids, s->bias_count, vocab, "logit_bias keys", why);
    if (rc) return rc;
    return check_ids(s->stop_ids, s->stop_id_count, vocab, "stop_token_ids",
                     why);
}

/* Copies bytes to *at, aligned for any element, and moves it on. With out
 * NULL it only counts. */
static void *put(char *out, size_t *at, const void *bytes, size_t n)
{
    void *to = out ? out + *at : NULL;
    if (to && n) memcpy(to, bytes, n);
    *at += (n + 7) & ~(size_t)7;
    return to;
}

/* Writes the spec and what it points to behind it; returns the bytes. */
static size_t spec_write(const struct request_spec *spec, char *out)
{
    struct request_spec copy = *spec;
    struct sampling *s = &copy.sampling;
    const struct sampling *from = &spec->sampling;
    size_t at = 0;
    put(out, &at, &copy, sizeof copy);
    copy.tokens = put(out, &at, spec->tokens, spec->token_count * 4ul);
    copy.logprob_ids =
        put(out, &at, spec->logprob_ids, spec->logprob_id_count * 4ul);
    s->stop_ids = put(out, &at, from->stop_ids, from->stop_id_count * 4ul);
    s->bias_ids = put(out, &at, from->bias_ids, from->bias_count * 4ul);
    s->bias_values = put(out, &at, from->bias_values, from->bias_count * 4ul);
    const char **stops =
        put(out, &at, from->stops, from->stop_count * sizeof *stops);
    for (uint32_t i = 0; i < from->stop_count; i++) {
        const char *stop =
            put(out, &at, from->stops[i], strlen(from->stops[i]) + 1);
        if (stops) stops[i] = stop;
    }
    s->stops = stops;
    if (out) memcpy(out, &copy, sizeof copy);
    return at;
}

struct request_spec *request_copy(const struct request_spec *spec)
{
    char *out = mem_try(1, spec_write(spec, NULL), 0);
    if (!out) return NULL;
    spec_write(spec, out);
    if (spec->grammar) grammar_take(spec->grammar);
    return (struct request_spec *)(void *)out;
}

void request_free(struct request_spec *copy)
{
    if (!copy) return;
    grammar_drop(copy->grammar);
    mem_free(copy);
}
