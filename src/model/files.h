/* model/files.h - the files of a model, of either kind, as one table of
 * tensors. Internal to model/. Immutable once open: any thread may read. */
#ifndef BATON_MODEL_FILES_H
#define BATON_MODEL_FILES_H

#include "model/model.h"
#include "model/stored.h"

struct gguf;
struct safetensors;

struct model_files {
    char *path;
    struct gguf *gguf; /* one of the two */
    struct safetensors *shards;
};

/* Opens what is at path and reads its configuration: a folder with
 * config.json and safetensors, or a GGUF file. Errors as model_open's. */
int model_files_open(struct model_files *files, struct model_config *config,
                     const char *path, struct why *why);
void model_files_close(struct model_files *files); /* zeroed is fine */

size_t model_files_count(const struct model_files *files);
const struct stored_tensor *model_files_at(const struct model_files *files,
                                           size_t i);
/* NULL where absent. */
const struct stored_tensor *model_files_find(const struct model_files *files,
                                             const char *name);
/* All tensors' bytes, those that nobody will bind included. */
size_t model_files_bytes(const struct model_files *files);

#endif
