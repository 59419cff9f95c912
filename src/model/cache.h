/* model/cache.h - weights as a device keeps them, in a file that servers map
 * at start instead of packing (or rounding) a model's weights again. Internal
 * to model/.
 *
 *     head   struct cache_head, at 0
 *     data   each weight's bytes, at multiples of 4096
 *     index  text: what the file was made of (cache_source), filled up with
 *            zeros to a multiple of 8; then a struct cache_entry for each
 *
 * A file is written beside its final name and renamed once it is whole and on
 * disk, so that a reader sees none or all of it; a second writer steps back
 * (and would do no harm: the last one's file stays). It is of no use to another
 * machine (numbers are in host order) and never believed: head, index and every
 * weight have checksums that are checked before anything is used, and what it
 * was made of must be what there is now. It is mapped for reading, so servers
 * of one host share its pages. Who shortens a mapped file ends its readers
 * (file.h). */
#ifndef BATON_MODEL_CACHE_H
#define BATON_MODEL_CACHE_H

#include "model/files.h"
#include "tensor/device.h"

#include <stdatomic.h>

struct cache_head {
    char magic[8]; /* CACHE_MAGIC */
    uint64_t file_bytes;
    uint64_t index_at, index_bytes; /* to the file's end */
    uint64_t text_bytes;            /* of the source, without filling */
    uint64_t entries;
    uint64_t index_check; /* checksum64 of the index */
    uint64_t head_check;  /* of the members before   */
};
#define CACHE_MAGIC "BATONWC1"

struct cache_entry {
    char name[128]; /* of the matrix in the model's files, ends with 0 */
    uint32_t type;  /* enum dtype */
    uint32_t expert;
    uint64_t rows, cols;
    uint64_t at, bytes;
    uint64_t check; /* checksum64 of the checksums of its blocks */
};
enum { CACHE_BLOCK = 1 << 20, CACHE_ALIGN = 4096 };

struct cache_index {
    const struct cache_entry *entries;
    size_t count;
};

/* Checks size bytes of a file called name (aligned to 8): all but what the
 * weights' bytes are. source NULL: whatever it was made of. ERR_FORMAT: no
 * such file, or a broken one; ERR_STALE: made of something else. */
int cache_parse(struct cache_index *out, const char *name, const void *bytes,
                size_t size, const char *source, struct why *why);

/* What weights on dev would be made of: form, program, rounding, files with
 * their times and samples of all tensors. And the file of folder for it, whose
 * name tells models, forms and roundings apart. Both the caller's: mem_free. */
char *cache_source(const struct model_files *files,
                   const struct model_config *config,
                   const struct model_options *options,
                   const struct device *dev);
char *cache_path(const char *folder, const struct model_options *options,
                 const struct device *dev);

/* Maps the file and checks all of it, on dev's workers. As cache_parse;
 * ERR_NOT_FOUND: there is none; ERR_AUTH: somebody else may have written it. */
struct cache;
int cache_open(struct cache **out, const char *path, const char *source,
               struct device *dev, struct why *why);
void cache_close(struct cache *c); /* weights first; NULL is fine */
/* The bytes of the weight that looks like this one (at, bytes and check do not
 * count), as weight_map wants them; NULL: not there. Fastest in the order in
 * which they were added. */
const void *cache_find(struct cache *c, const struct cache_entry *like);

/* A new file for path. Every call but the first ends the writing when it
 * fails and leaves no file; so does drop. ERR_IO: disk full, ...;
 * ERR_EXISTS: another is writing one; ERR_CANCELED: stop became true. */
struct cache_writer;
int cache_writer_open(struct cache_writer **out, const char *path,
                      const char *source, const atomic_bool *stop,
                      struct why *why);
int cache_writer_add(struct cache_writer *w, const struct cache_entry *like,
                     const void *bytes, struct why *why);
int cache_writer_finish(struct cache_writer *w, struct why *why);
void cache_writer_drop(struct cache_writer *w);

/* A file of weights that are in use, written by a thread that gives way to
 * all others: what is added before it starts lives until close. path and
 * source are its own now. What becomes of it is noted (model.h), of failures
 * on that thread. NULL is fine but to add. */
struct cache_save;
struct weight;
struct cache_save *cache_save_create(char *path, char *source,
                                     void (*note)(void *arg, bool coped,
                                                  const char *text),
                                     void *arg);
void cache_save_add(struct cache_save *s, const struct cache_entry *e,
                    const struct weight *w);
void cache_save_start(struct cache_save *s); /* once */
void cache_save_wait(struct cache_save *s);
/* Breaks off what is not done; waits only for the disk, a few MiB. */
void cache_save_close(struct cache_save *s);

#endif
