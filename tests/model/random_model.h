/* tests/model/random_model.h - small models with random weights, made where a
 * test needs one, so that no weights are committed.
 *
 * A model is a JSON file {"seed": n, "config": {a Hugging Face config.json}},
 * tests/golden/model/NAME.json for example. Its weights are a function of the
 * seed and of each tensor's name, the same as in
 * tools/golden/make_checkpoints.py, where the function is written down. What
 * is written is complete: a byte-level tokenizer of 272 tokens (256 bytes, a
 * few merges, <|endoftext|>, <|im_start|>, <|im_end|>) and a chat template
 * come along, so that a server can run it. Everything here ends the process
 * with a message when it fails. */
#ifndef BATON_TESTS_MODEL_RANDOM_MODEL_H
#define BATON_TESTS_MODEL_RANDOM_MODEL_H

#include "json/json.h"
#include "tensor/tensor.h"

struct random_model;

/* From a file; or the named one of tests/golden/model/, looked up from the
 * source tree's root, where tests run. */
struct random_model *random_model_read(const char *path);
struct random_model *random_model_named(const char *name);
void random_model_free(struct random_model *m);

/* The whole JSON file; borrowed. */
const json_t *random_model_spec(const struct random_model *m);

/* Writes config.json, generation_config.json, tokenizer.json,
 * tokenizer_config.json and the weights, in as many shards, into folder,
 * which is there or is made. */
void random_model_write_folder(const struct random_model *m, const char *folder,
                               unsigned shards);

/* Writes a GGUF file with its matrices rounded to type (those whose rows are
 * no whole blocks, and vectors, to float32). K-quants are not rounded but
 * random blocks of their own. decoded: what type would hold, as float32. */
void random_model_write_gguf(const struct random_model *m, const char *path,
                             enum dtype type, bool decoded);

#endif
