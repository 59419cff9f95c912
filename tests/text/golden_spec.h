/* tests/text/golden_spec.h - arrays as a GGUF file has them, from a NAME.json
 * that tools/golden/tok_golden.py made of a sentencepiece model. */
#ifndef BATON_TESTS_TEXT_GOLDEN_SPEC_H
#define BATON_TESTS_TEXT_GOLDEN_SPEC_H

#include "tests/text/golden.h"
#include "text/tokenizer.h"

enum { GOLDEN_SPEC_MAX = 2000 };

struct golden_spec {
    struct tokenizer_spec spec;
    json_t *json;
    struct tokenizer_text tokens[GOLDEN_SPEC_MAX];
    int32_t types[GOLDEN_SPEC_MAX];
    float scores[GOLDEN_SPEC_MAX];
};

static inline int32_t golden_spec_id(const struct golden_spec *g,
                                     const char *key)
{
    return (int32_t)json_integer_value(json_object_get(g->json, key));
}

static inline void golden_spec_open(struct golden_spec *g, const char *name)
{
    char path[200];
    snprintf(path, sizeof path, "tests/golden/tokenizer/%s.json", name);
    g->json = golden_json(path);
    const json_t *tokens = json_object_get(g->json, "tokens");
    const json_t *types = json_object_get(g->json, "types");
    const json_t *scores = json_object_get(g->json, "scores");
    size_t count = json_array_size(tokens);
    assert_true(count > 256 && count <= GOLDEN_SPEC_MAX);
    for (size_t i = 0; i < count; i++) {
        const json_t *text = json_array_get(tokens, i);
        g->tokens[i] = (struct tokenizer_text){json_string_value(text),
                                               json_string_length(text)};
        g->types[i] = (int32_t)json_integer_value(json_array_get(types, i));
        g->scores[i] = (float)json_number_value(json_array_get(scores, i));
    }
    g->spec = (struct tokenizer_spec){
        .model = json_string_value(json_object_get(g->json, "model")),
        .tokens = g->tokens,
        .token_count = count,
        .types = g->types,
        .scores = g->scores,
        .bos = golden_spec_id(g, "bos"),
        .eos = golden_spec_id(g, "eos"),
        .eot = -1,
        .unk = golden_spec_id(g, "unk"),
        .add_bos = -1,
        .add_space_prefix = -1};
}

static inline void golden_spec_close(struct golden_spec *g)
{
    json_decref(g->json);
}

#endif
