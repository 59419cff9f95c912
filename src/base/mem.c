#include "base/mem.h"

#include <malloc.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static atomic_size_t live;
static _Thread_local size_t fail_in;

static int must_fail(void)
{
    return fail_in && --fail_in == 0;
}

static void *get(size_t count, size_t size, size_t align)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) return NULL;
    if (bytes == 0) bytes = 1;
    void *p;
    if (align <= alignof(max_align_t)) {
        p = calloc(1, bytes);
    } else {
        p = bytes <= SIZE_MAX - align
                ? aligned_alloc(align, (bytes + align - 1) / align * align)
                : NULL;
        if (p) memset(p, 0, bytes);
    }
    if (p) atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    return p;
}

static void *or_die(void *p, size_t bytes)
{
    if (!p) {
        fprintf(stderr, "baton: out of memory for %zu bytes\n", bytes);
        abort();
    }
    return p;
}

void *mem_try(size_t count, size_t size, size_t align)
{
    return must_fail() ? NULL : get(count, size, align);
}

void *mem_must(size_t count, size_t size)
{
    return or_die(get(count, size, 0), count * size);
}

static void *grow(void *ptr, size_t bytes)
{
    void *p = realloc(ptr, bytes ? bytes : 1);
    if (p && !ptr) atomic_fetch_add_explicit(&live, 1, memory_order_relaxed);
    return p;
}

void *mem_retry(void *ptr, size_t bytes)
{
    return must_fail() ? NULL : grow(ptr, bytes);
}

void *mem_remust(void *ptr, size_t bytes)
{
    return or_die(grow(ptr, bytes), bytes);
}

char *mem_dup_n(const void *bytes, size_t n)
{
    char *copy = mem_must(n + 1, 1);
    if (n) memcpy(copy, bytes, n);
    return copy;
}

char *mem_dup(const char *text)
{
    return mem_dup_n(text, strlen(text));
}

void mem_free(void *ptr)
{
    if (!ptr) return;
    atomic_fetch_sub_explicit(&live, 1, memory_order_relaxed);
    free(ptr);
}

void mem_large_apart(void)
{
#ifdef M_MMAP_THRESHOLD
    mallopt(M_MMAP_THRESHOLD, 256 << 10);
    mallopt(M_TRIM_THRESHOLD, 1 << 20);
#endif
}

size_t mem_live(void)
{
    return atomic_load_explicit(&live, memory_order_relaxed);
}

void mem_fail_at(size_t n)
{
    fail_in = n;
}
