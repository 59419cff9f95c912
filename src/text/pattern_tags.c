#include "text/pattern_tags.h"

#include "text/tokenizer.h"

#include <string.h>

enum { TAG_MAX = 64 };

/* The added token that text begins with, the longest; -1: none. */
static int32_t token_at(const struct tokenizer *t, const char *text,
                        size_t *len)
{
    char some[TAG_MAX + 1];
    size_t n = strnlen(text, TAG_MAX);
    for (*len = n; *len > 1; --*len) {
        memcpy(some, text, *len);
        some[*len] = 0;
        int32_t id = tokenizer_find(t, some);
        if (id >= 0 && tokenizer_is_added(t, id)) return id;
    }
    *len = 1;
    return -1;
}

pattern_node pattern_tags_written(struct pattern *p, const struct tokenizer *t,
                                  const char *text)
{
    pattern_node all = pattern_sequence(p);
    while (text && *text) {
        size_t n = 0, len = 0;
        int32_t id = -1;
        while (text[n] && (id = token_at(t, text + n, &len)) < 0)
            n += len;
        if (n) pattern_add(p, all, pattern_text(p, text, n));
        if (id >= 0) {
            pattern_add(p, all, pattern_token(p, id));
            n += len;
        }
        text += n;
    }
    return all;
}

/* Whether a tag stands in the token. */
static bool has_tag(const struct tokenizer *t, int32_t id,
                    const char *const *tags, size_t count)
{
    size_t n;
    const char *text = tokenizer_token_bytes(t, id, &n);
    for (size_t i = 0; i < count; i++)
        if (memmem(text, n, tags[i], strlen(tags[i]))) return true;
    return false;
}

/* Any added token but those with tags; in runs of ids that differ in their
 * last byte. */
static pattern_node other_tokens(struct pattern *p, const struct tokenizer *t,
                                 const char *const *tags, size_t count)
{
    pattern_node all = pattern_choice(p);
    int32_t vocab = (int32_t)tokenizer_vocab(t), lo, hi;
    bool any = false;
    for (lo = 0; lo < vocab; lo = hi + 1) {
        for (hi = lo; hi < vocab && hi >> 8 == lo >> 8 &&
                      tokenizer_is_added(t, hi) &&
                      !has_tag(t, hi, tags, count);)
            hi++;
        if (hi == lo) continue;
        uint8_t id[4];
        pattern_token_bytes(lo, id);
        pattern_node run = pattern_sequence(p);
        pattern_add(p, run, pattern_text(p, (const char *)id, 3));
        pattern_add(p, run, pattern_bytes(p, id[3], (uint8_t)(hi - 1)));
        pattern_add(p, all, run);
        any = true;
        hi--;
    }
    return any ? all : 0;
}

pattern_node pattern_tags_none(struct pattern *p, const struct tokenizer *t,
                               const char *const *tags, size_t count,
                               char first_not)
{
    pattern_node other = t ? other_tokens(p, t, tags, count) : 0;
    return pattern_without(p, tags, count, other, first_not);
}
