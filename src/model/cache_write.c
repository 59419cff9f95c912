/* Writing, and what a file is made of. */
#include "model/cache.h"

#include "base/buf.h"
#include "base/checksum.h"
#include "base/map.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- what it is made of -------------------------------------------------- */

enum { TEXT_MAX = 1 << 24 };

static void add_file(struct buf *b, const char *path)
{
    struct stat st;
    if (stat(path, &st)) {
        buf_printf(b, "%s: %s\n", path, strerror(errno));
        return;
    }
    buf_printf(b, "%s: device %llu file %llu bytes %llu changed %lld.%09ld\n",
               path, (unsigned long long)st.st_dev,
               (unsigned long long)st.st_ino, (unsigned long long)st.st_size,
               (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

/* The files as they are mapped: a path may name another one by now. */
static uint64_t sample_hash(const struct model_files *files)
{
    enum { SAMPLE = 64 };
    uint64_t h = 1;
    for (size_t i = 0; i < model_files_count(files); i++) {
        const struct stored_tensor *t = model_files_at(files, i);
        size_t n = t->size < SAMPLE ? t->size : SAMPLE;
        h = hash_bytes(t->name, strlen(t->name), h);
        h = hash_bytes(t->type_name, strlen(t->type_name), h);
        h = hash_bytes(t->shape, sizeof t->shape, h);
        h = hash_bytes(t->bytes, n, h);
        h = hash_bytes(t->bytes + t->size - n, n, h);
    }
    return h;
}

/* How floats are rounded: another number once that changes. */
static uint64_t rounding_hash(void)
{
    static const enum dtype types[] = {DTYPE_INT8,     DTYPE_INT8_G128,
                                       DTYPE_Q8_0,     DTYPE_INT4_G32,
                                       DTYPE_INT4_G64, DTYPE_INT4_G128};
    enum { COLS = 128 };
    float values[COLS];
    uint8_t row[COLS * 4];
    uint64_t h = 1;
    for (int i = 0; i < COLS; i++)
        values[i] = (float)((i * 7919 % 257) - 100) / 31;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        dtype_encode(types[i], values, row, COLS);
        h = hash_bytes(row, dtype_row_bytes(types[i], COLS), h);
    }
    return h;
}

char *cache_source(const struct model_files *files,
                   const struct model_config *config,
                   const struct model_options *options,
                   const struct device *dev)
{
    struct buf b;
    buf_init(&b, TEXT_MAX);
    buf_printf(&b, "Baton %s\nform %s\nrounding %d %016llx\n", BATON_VERSION,
               device_layout(dev), (int)options->quantize,
               (unsigned long long)rounding_hash());
    buf_printf(&b, "stored %d %d %u %u rotary %u heads %u %u of %u\n",
               (int)config->quant.method, config->quant.zeros_as_is,
               config->quant.block_rows, config->quant.block_cols,
               config->rope.rotary, config->heads, config->kv_heads,
               config->head_dim);
    buf_printf(&b, "sample %016llx\n", (unsigned long long)sample_hash(files));
    const char *last = "";
    for (size_t i = 0; i < model_files_count(files); i++) {
        const char *file = model_files_at(files, i)->file;
        if (strcmp(file, last) != 0) add_file(&b, file);
        last = file;
    }
    return buf_detach(&b);
}

char *cache_path(const char *folder, const struct model_options *options,
                 const struct device *dev)
{
    char path[PATH_MAX + 64];
    char *real = realpath(options->path, NULL);
    const char *whole = real ? real : options->path;
    const char *slash = strrchr(whole, '/');
    uint64_t h = hash_bytes(whole, strlen(whole), 1);
    h = hash_bytes(device_layout(dev), strlen(device_layout(dev)), h);
    h = hash_bytes(&options->quantize, sizeof options->quantize, h);
    snprintf(path, sizeof path, "%s/%.100s-%016llx.weights", folder,
             slash ? slash + 1 : whole, (unsigned long long)h);
    free(real);
    return mem_dup(path);
}

/* --- writing ------------------------------------------------------------- */

struct cache_writer {
    char *path, *temp, *source;
    const atomic_bool *stop;
    int fd;
    uint64_t at, sent; /* the file up to sent is on its way to the disk */
    struct cache_entry *entries;
    size_t count, cap;
};

enum { TAIL = 7 }; /* ".XXXXXX" behind the final name, while it is written */

/* What writers left who were killed. Returns whether one lives: it holds a
 * lock on its file. */
static bool remove_dead(const char *path)
{
    bool living = false;
    char folder[PATH_MAX], other[PATH_MAX];
    const char *name = strrchr(path, '/') + 1;
    const size_t n = strlen(name);
    snprintf(folder, sizeof folder, "%.*s", (int)(name - path), path);
    DIR *dir = opendir(folder);
    if (!dir) return false;
    for (struct dirent *e; (e = readdir(dir));) {
        if (strlen(e->d_name) != n + TAIL || strncmp(e->d_name, name, n) != 0)
            continue;
        snprintf(other, sizeof other, "%s%s", folder, e->d_name);
        int fd = open(other, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0) continue;
        if (!flock(fd, LOCK_EX | LOCK_NB))
            unlink(other);
        else
            living = true;
        close(fd);
    }
    closedir(dir);
    return living;
}

static void writer_free(struct cache_writer *w)
{
    if (w->fd >= 0) close(w->fd);
    mem_free(w->path);
    mem_free(w->temp);
    mem_free(w->source);
    mem_free(w->entries);
    mem_free(w);
}

void cache_writer_drop(struct cache_writer *w)
{
    if (!w) return;
    if (w->fd >= 0) unlink(w->temp);
    writer_free(w);
}

static int write_failed(struct cache_writer *w, struct why *why)
{
    int error = errno;
    int rc = atomic_load(w->stop)
                 ? err_set(why, ERR_CANCELED, "%s: not finished", w->temp)
                 : err_sys(why, ERR_IO, error, "%s", w->temp);
    cache_writer_drop(w);
    return rc;
}

static bool write_at(int fd, const void *bytes, size_t n, uint64_t at)
{
    const char *p = bytes;
    while (n) {
        ssize_t done = pwrite(fd, p, n, (off_t)at);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return false;
        p += done;
        at += (uint64_t)done;
        n -= (size_t)done;
    }
    return true;
}

/* A locked file for this user alone, and its name. Before it has the lock
 * another may find it, take it for a dead writer's and remove it: then one
 * more. */
static int temp_create(char *temp, const char *path)
{
    for (;;) {
        struct stat st;
        sprintf(temp, "%s.XXXXXX", path);
        int fd = mkostemp(temp, O_CLOEXEC);
        if (fd < 0 || flock(fd, LOCK_EX) || fstat(fd, &st) || st.st_nlink)
            return fd;
        close(fd);
    }
}

int cache_writer_open(struct cache_writer **out, const char *path,
                      const char *source, const atomic_bool *stop,
                      struct why *why)
{
    *out = NULL;
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path),
             path);
    if (mkdir(folder, 0700) && errno != EEXIST)
        return err_sys(why, ERR_IO, errno, "%s", folder);
    if (remove_dead(path))
        return err_set(why, ERR_EXISTS,
                       "another is writing the weight cache %s", path);
    struct cache_writer *w = mem_must(1, sizeof *w);
    w->path = mem_dup(path);
    w->source = mem_dup(source);
    w->stop = stop;
    w->at = CACHE_ALIGN;
    w->temp = mem_must(strlen(path) + TAIL + 1, 1);
    w->fd = temp_create(w->temp, path);
    if (w->fd < 0) return write_failed(w, why);
    *out = w;
    return 0;
}

/* The checksum of a weight, as cache.c checks it. */
static bool sum_all(const struct cache_writer *w, const uint8_t *bytes,
                    size_t size, uint64_t *out)
{
    size_t blocks = (size + CACHE_BLOCK - 1) / CACHE_BLOCK;
    uint64_t *sums = mem_must(blocks, sizeof *sums);
    size_t i = 0;
    for (; i < blocks && !atomic_load(w->stop); i++) {
        size_t at = i * CACHE_BLOCK, n = size - at;
        sums[i] = checksum64(bytes + at, n < CACHE_BLOCK ? n : CACHE_BLOCK);
    }
    *out = checksum64(sums, blocks * sizeof *sums);
    mem_free(sums);
    return i == blocks;
}

/* Sends what was written so far to the disk, and waits for what was sent the
 * time before: at the end little is left to wait for. */
static bool send_on(struct cache_writer *w, uint64_t to)
{
    enum { AT_A_TIME = 32 << 20 };
    if (to - w->sent < AT_A_TIME) return true;
    if (w->sent)
        sync_file_range(w->fd, 0, (off_t)w->sent, SYNC_FILE_RANGE_WAIT_BEFORE);
    sync_file_range(w->fd, (off_t)w->sent, (off_t)(to - w->sent),
                    SYNC_FILE_RANGE_WRITE);
    w->sent = to;
    return !atomic_load(w->stop);
}

static bool weight_write(struct cache_writer *w, const uint8_t *bytes,
                         size_t size, uint64_t at)
{
    for (size_t i = 0; i < size; i += CACHE_BLOCK) {
        size_t n = size - i < CACHE_BLOCK ? size - i : CACHE_BLOCK;
        if (!write_at(w->fd, bytes + i, n, at + i) || !send_on(w, at + i + n))
            return false;
    }
    return true;
}

int cache_writer_add(struct cache_writer *w, const struct cache_entry *like,
                     const void *bytes, struct why *why)
{
    if (w->count == w->cap) {
        w->cap = w->cap ? 2 * w->cap : 256;
        w->entries = mem_remust(w->entries, w->cap * sizeof *w->entries);
    }
    struct cache_entry *e = &w->entries[w->count++];
    *e = *like;
    e->at = w->at;
    if (!sum_all(w, bytes, e->bytes, &e->check) ||
        !weight_write(w, bytes, e->bytes, e->at))
        return write_failed(w, why);
    w->at = (e->at + e->bytes + CACHE_ALIGN - 1) & -(uint64_t)CACHE_ALIGN;
    return 0;
}

/* The index, then the head: without it the rest is nothing. */
static bool write_ends(struct cache_writer *w)
{
    const size_t text = strlen(w->source), filled = (text + 7) & -(size_t)8;
    const size_t table = w->count * sizeof *w->entries;
    char *index = mem_must(filled + table, 1);
    memcpy(index, w->source, text);
    memcpy(index + filled, w->entries, table);
    struct cache_head h = {.file_bytes = w->at + filled + table,
                           .index_at = w->at,
                           .index_bytes = filled + table,
                           .text_bytes = text,
                           .entries = w->count};
    memcpy(h.magic, CACHE_MAGIC, sizeof h.magic);
    h.index_check = checksum64(index, h.index_bytes);
    h.head_check = checksum64(&h, offsetof(struct cache_head, head_check));
    bool ok = write_at(w->fd, index, h.index_bytes, h.index_at) &&
              write_at(w->fd, &h, sizeof h, 0);
    mem_free(index);
    return ok;
}

static void sync_folder(const char *path)
{
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path),
             path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd); /* the rename may be lost; a file is whole or not there */
    close(fd);
}

int cache_writer_finish(struct cache_writer *w, struct why *why)
{
    if (!write_ends(w) || fsync(w->fd) || rename(w->temp, w->path))
        return write_failed(w, why);
    sync_folder(w->path);
    writer_free(w);
    return 0;
}
