#include "model/files.h"
#include "model/config.h"
#include "model/gguf.h"
#include "model/safetensors.h"
#include "base/mem.h"

#include <errno.h>
#include <sys/stat.h>

/* The type that most bytes of weights have. */
static enum dtype main_type(const struct model_files *f, enum dtype fallback)
{
    size_t bytes[DTYPE_COUNT] = {0}, most = 0;
    enum dtype best = fallback;
    for (size_t i = 0; i < model_files_count(f); i++) {
        const struct stored_tensor *t = model_files_at(f, i);
        if (t->type < 0) continue;
        bytes[t->type] += t->size;
        if (bytes[t->type] > most) {
            most = bytes[t->type];
            best = (enum dtype)t->type;
        }
    }
    return best;
}

static int open_either(struct model_files *f, struct model_config *config,
                       struct why *why)
{
    struct stat st;
    if (stat(f->path, &st))
        return err_sys(why, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, errno,
                       "%s", f->path);
    if (S_ISDIR(st.st_mode)) {
        int rc = config_from_folder(config, f->path, why);
        return rc ? rc : safetensors_open(&f->shards, f->path, why);
    }
    if (!gguf_is(f->path))
        return err_set(why, ERR_FORMAT,
                       "%s: is no GGUF file (for safetensors give the folder "
                       "that holds config.json)",
                       f->path);
    int rc = gguf_open(&f->gguf, f->path, why);
    return rc ? rc : config_from_gguf(config, f->gguf, f->path, why);
}

int model_files_open(struct model_files *files, struct model_config *config,
                     const char *path, struct why *why)
{
    *files = (struct model_files){.path = mem_dup(path)};
    int rc = open_either(files, config, why);
    if (rc)
        model_files_close(files);
    else
        config->dtype = main_type(files, config->dtype);
    return rc;
}

void model_files_close(struct model_files *files)
{
    gguf_close(files->gguf);
    safetensors_close(files->shards);
    mem_free(files->path);
    *files = (struct model_files){0};
}

size_t model_files_count(const struct model_files *files)
{
    return files->gguf ? gguf_tensor_count(files->gguf)
                       : safetensors_tensor_count(files->shards);
}

const struct stored_tensor *model_files_at(const struct model_files *files,
                                           size_t i)
{
    return files->gguf ? gguf_tensor(files->gguf, i)
                       : safetensors_tensor(files->shards, i);
}

const struct stored_tensor *model_files_find(const struct model_files *files,
                                             const char *name)
{
    return files->gguf ? gguf_find(files->gguf, name)
                       : safetensors_find(files->shards, name);
}

size_t model_files_bytes(const struct model_files *files)
{
    size_t bytes = 0;
    for (size_t i = 0; i < model_files_count(files); i++)
        bytes += model_files_at(files, i)->size;
    return bytes;
}
