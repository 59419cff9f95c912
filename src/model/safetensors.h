/* model/safetensors.h - reader of safetensors files, one or a folder's shards.
 *
 *     u64 header bytes, little-endian
 *     header: JSON {"name": {"dtype", "shape", "data_offsets": [begin, end]}}
 *     the tensors' bytes, without gaps
 *
 * The files are foreign: lengths, offsets, shapes and types are checked
 * against each other and against the file; tensors fill it without holes or
 * overlap (the format's own rule); names are unique across shards. An error
 * names file and tensor. Format: huggingface/safetensors, README "Format".
 *
 * An open set is immutable: any thread may read it. */
#ifndef BATON_MODEL_SAFETENSORS_H
#define BATON_MODEL_SAFETENSORS_H

#include "base/err.h"
#include "model/stored.h"

struct safetensors;

/* Maps model.safetensors.index.json's shards in folder, or, without an index,
 * model.safetensors; or the only index or file of another name (msmodelslim
 * writes quant_model_weight_w8a8.safetensors). ERR_NOT_FOUND, ERR_IO,
 * ERR_FORMAT, ERR_UNSUPPORTED (an element type of unknown size), ERR_NOMEM. */
int safetensors_open(struct safetensors **out, const char *folder,
                     struct why *why);
/* One file's n bytes, valid and unchanged until safetensors_close; name
 * stands for the path in errors. */
int safetensors_parse(struct safetensors **out, const char *name,
                      const void *bytes, size_t n, struct why *why);
void safetensors_close(struct safetensors *s); /* NULL is fine */

/* All tensors; one by name, NULL where absent. Borrowed. */
size_t safetensors_tensor_count(const struct safetensors *s);
const struct stored_tensor *safetensors_tensor(const struct safetensors *s,
                                               size_t index);
const struct stored_tensor *safetensors_find(const struct safetensors *s,
                                             const char *name);

#endif
