/* model/load.h - files of either kind, and their tensors bound to a device.
 * Internal to model/. A struct load owns the mapped files and everything that
 * it made from them; load_close gives all of it back. */
#ifndef BATON_MODEL_LOAD_H
#define BATON_MODEL_LOAD_H

#include "model/arch.h"
#include "model/stored.h"

struct load;

/* Opens the files at path and reads their configuration: a folder with
 * config.json and safetensors, or a GGUF file. */
int load_open(struct load **out, struct model_config *config, const char *path,
              struct why *why);
void load_close(struct load *load); /* NULL is fine */

/* Of what was bound so far: its bytes; the type that most elements of matrices
 * have. */
size_t load_bound_bytes(const struct load *load);
enum dtype load_bound_type(const struct load *load);

/* Finds and checks every weight as load_bind does, binds none, and counts in
 * out what would be bound. */
int load_survey(struct load *load, const struct model_config *config,
                const struct model_options *options, struct model_survey *out,
                struct why *why);

/* Binds every weight of m->config to m->dev: fills embed, head, final_norm,
 * layers, rope and the fingerprint; then the files are closed, unless something
 * was put off, since the device has its own of them. ERR_FORMAT names the
 * tensor that is missing or has another shape, ERR_UNSUPPORTED one of another
 * type. */
int load_bind(struct load *load, struct model *m,
              const struct model_options *options, struct why *why);

/* Packs so many bytes more of what load_bind has put off (pack_later); false:
 * all is packed, and the files are closed. */
bool load_pack(struct load *load, size_t bytes);

/* What was bound without a weight cache that was asked for: writes one, on a
 * thread of its own until load_close (cache.h); waits for that. */
void load_save(struct load *load);
void load_saved(struct load *load);

#endif
