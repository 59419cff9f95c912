/* Reading and checking. */
#include "model/cache.h"

#include "base/checksum.h"
#include "base/mem.h"
#include "model/file.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#if !defined(MADV_POPULATE_READ)
#define MADV_POPULATE_READ 22
#endif

static int broken(struct why *why, const char *name, const char *what)
{
    return err_set(why, ERR_FORMAT, "%s: %s", name, what);
}

static int check_head(const struct cache_head *h, const char *name, size_t size,
                      struct why *why)
{
    if (memcmp(h->magic, CACHE_MAGIC, sizeof h->magic) != 0)
        return broken(why, name, "is no weight cache of this version");
    if (h->head_check != checksum64(h, offsetof(struct cache_head, head_check)))
        return broken(why, name, "its head is damaged");
    if (h->file_bytes != size) return broken(why, name, "is cut off");
    const uint64_t text = (h->text_bytes + 7) & ~(uint64_t)7;
    if (h->index_at < CACHE_ALIGN || h->index_at % 8 || h->index_at > size ||
        h->index_bytes != size - h->index_at ||
        h->text_bytes > h->index_bytes || text > h->index_bytes ||
        h->entries != (h->index_bytes - text) / sizeof(struct cache_entry) ||
        (h->index_bytes - text) % sizeof(struct cache_entry))
        return broken(why, name, "its head contradicts itself");
    return 0;
}

static bool entry_ok(const struct cache_entry *e, uint64_t data_end)
{
    return memchr(e->name, 0, sizeof e->name) && e->type < DTYPE_COUNT &&
           e->at >= CACHE_ALIGN && e->at % CACHE_ALIGN == 0 &&
           e->at <= data_end && e->bytes <= data_end - e->at && e->bytes > 0;
}

int cache_parse(struct cache_index *out, const char *name, const void *bytes,
                size_t size, const char *source, struct why *why)
{
    struct cache_head h;
    if (size < CACHE_ALIGN) return broken(why, name, "is too short");
    memcpy(&h, bytes, sizeof h);
    int rc = check_head(&h, name, size, why);
    if (rc) return rc;
    const char *text = (const char *)bytes + h.index_at;
    if (checksum64(text, h.index_bytes) != h.index_check)
        return broken(why, name, "its index is damaged");
    if (source && (strlen(source) != h.text_bytes ||
                   memcmp(source, text, h.text_bytes) != 0))
        return err_set(why, ERR_STALE,
                       "%s: was made of other files, or by another program",
                       name);
    *out = (struct cache_index){
        (const struct cache_entry *)(const void *)(text + ((h.text_bytes + 7) &
                                                           ~(uint64_t)7)),
        h.entries};
    for (size_t i = 0; i < out->count; i++)
        if (!entry_ok(&out->entries[i], h.index_at))
            return broken(why, name, "an entry points nowhere");
    return 0;
}

/* --- the whole file ------------------------------------------------------ */

struct cache {
    struct model_file file;
    struct cache_index index;
    size_t next; /* where the last one was found, and one */
};

/* A block of an entry, for a worker. */
struct block {
    const struct cache_entry *e;
    size_t at, bytes; /* in the file */
};

struct check_job {
    const uint8_t *file;
    const struct block *blocks;
    uint64_t *sums;
};

static void check_block(void *arg, size_t i, int worker)
{
    (void)worker;
    const struct check_job *job = arg;
    const struct block *b = &job->blocks[i];
    const uint8_t *p = job->file + b->at;
    /* All pages of it at once: a fault for each costs more than the check. */
    size_t whole = (b->bytes + CACHE_ALIGN - 1) & -(size_t)CACHE_ALIGN;
    madvise((void *)(uintptr_t)p, whole, MADV_POPULATE_READ);
    job->sums[i] = checksum64(p, b->bytes);
}

static size_t blocks_of(uint64_t bytes)
{
    return (bytes + CACHE_BLOCK - 1) / CACHE_BLOCK;
}

static size_t list_blocks(const struct cache_index *index, struct block *blocks)
{
    size_t n = 0;
    for (size_t i = 0; i < index->count; i++) {
        const struct cache_entry *e = &index->entries[i];
        for (uint64_t at = 0; at < e->bytes; at += CACHE_BLOCK, n++) {
            uint64_t left = e->bytes - at;
            if (blocks)
                blocks[n] = (struct block){
                    e, e->at + at, left < CACHE_BLOCK ? left : CACHE_BLOCK};
        }
    }
    return n;
}

static int check_data(const struct cache *c, const char *path,
                      struct device *dev, struct why *why)
{
    size_t n = list_blocks(&c->index, NULL);
    if (n > c->file.size / CACHE_ALIGN)
        return broken(why, path, "its entries share bytes");
    struct block *blocks = mem_must(n + 1, sizeof *blocks);
    uint64_t *sums = mem_must(n + 1, sizeof *sums);
    list_blocks(&c->index, blocks);
    struct check_job job = {c->file.bytes, blocks, sums};
    device_share(dev, check_block, &job, n);
    int rc = 0;
    for (size_t i = 0, k = 0; i < c->index.count && !rc; i++) {
        const struct cache_entry *e = &c->index.entries[i];
        size_t count = blocks_of(e->bytes);
        if (checksum64(sums + k, count * sizeof *sums) != e->check)
            rc = err_set(why, ERR_FORMAT, "%s: %s is damaged", path, e->name);
        k += count;
    }
    mem_free(blocks);
    mem_free(sums);
    return rc;
}

static int check_owner(const char *path, struct why *why)
{
    struct stat st;
    if (stat(path, &st)) return err_sys(why, ERR_IO, errno, "%s", path);
    if ((st.st_uid != geteuid() && st.st_uid != 0) || st.st_mode & 022)
        return err_set(why, ERR_AUTH, "%s: others may write it", path);
    return 0;
}

int cache_open(struct cache **out, const char *path, const char *source,
               struct device *dev, struct why *why)
{
    *out = NULL;
    struct cache *c = mem_must(1, sizeof *c);
    int rc = model_file_open(&c->file, path, why);
    if (!rc) rc = check_owner(path, why);
    if (!rc)
        rc = cache_parse(&c->index, path, c->file.bytes, c->file.size, source,
                         why);
    if (!rc) rc = check_data(c, path, dev, why);
    if (rc)
        cache_close(c);
    else
        *out = c;
    return rc;
}

void cache_close(struct cache *c)
{
    if (!c) return;
    model_file_close(&c->file);
    mem_free(c);
}

const void *cache_find(struct cache *c, const struct cache_entry *like)
{
    for (size_t n = 0; n < c->index.count; n++) {
        size_t i = (c->next + n) % c->index.count;
        const struct cache_entry *e = &c->index.entries[i];
        if (e->type != like->type || e->expert != like->expert ||
            e->rows != like->rows || e->cols != like->cols ||
            e->bytes != like->bytes || strcmp(e->name, like->name) != 0)
            continue;
        c->next = i + 1;
        return c->file.bytes + e->at;
    }
    return NULL;
}
