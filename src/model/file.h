/* model/file.h - a file mapped for reading.
 *
 * Pages come from the page cache as they are touched. Whoever shortens a
 * mapped file ends this process (SIGBUS): model files are replaced by
 * renaming, never by rewriting. Any thread. */
#ifndef BATON_MODEL_FILE_H
#define BATON_MODEL_FILE_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct model_file {
    const uint8_t *bytes;
    size_t size;
};

/* ERR_NOT_FOUND, ERR_IO, ERR_FORMAT (empty, or no regular file); the text
 * names path. */
int model_file_open(struct model_file *out, const char *path, struct why *why);
/* The part of a mapped file that has been read for now: its pages leave this
 * process, not the page cache, and come back when they are read again. */
void model_file_drop(const void *bytes, size_t size);
/* Bytes of that part of a mapped file that reading would have to wait for a
 * disk for, about: one page of each 256 KiB is looked for in the page cache.
 * The kernel calls every page cached to who neither owns the file nor may write
 * it (mincore(2)). */
size_t model_file_uncached(const void *bytes, size_t size);
void model_file_close(struct model_file *file); /* zeroed is fine */

#endif
