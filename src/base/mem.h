/* base/mem.h - the only malloc of the project.
 *
 * mem_try is for sizes that a config, a file or a peer chose: NULL is an
 * error path, and tests walk it with mem_fail_at. mem_must is for sizes that
 * the code chose: it never returns NULL and ends the process when memory is
 * gone. Both zero what they give; mem_free takes it back. Any thread. */
#ifndef BATON_BASE_MEM_H
#define BATON_BASE_MEM_H

#include <stddef.h>

/* count elements of size bytes, aligned to align (a power of two, 0 for
 * max_align_t). NULL when count * size overflows or memory is gone. */
void *mem_try(size_t count, size_t size, size_t align);
void *mem_must(size_t count, size_t size);

/* Grows or shrinks a block of either kind (NULL: makes one); new bytes are
 * not zeroed. mem_retry returns NULL and leaves ptr as it was on failure. */
void *mem_retry(void *ptr, size_t bytes);
void *mem_remust(void *ptr, size_t bytes);

/* Copies of a string; of n bytes and a closing 0. */
char *mem_dup(const char *text);
char *mem_dup_n(const void *bytes, size_t n);

void mem_free(void *ptr); /* NULL is fine */

/* From now on large blocks are the kernel's: zeroed page by page as they are
 * touched, and given back when freed. (glibc raises the bound with each that is
 * freed; then they come from a heap that keeps what was freed in it.) For
 * programs that stay; before there are threads. */
void mem_large_apart(void);

/* Blocks alive now: tests compare it before and after. */
size_t mem_live(void);
/* The n-th mem_try or mem_retry from now on this thread fails (1: the next);
 * 0 turns it off. Tests only. */
void mem_fail_at(size_t n);

#endif
