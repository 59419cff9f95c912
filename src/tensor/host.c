#include "tensor/device_ops.h"

#include "base/mem.h"

#include <string.h>
#include <sys/mman.h>

enum { ALIGN = 64, HUGE_BYTES = 2 << 20 };

/* What mem_try gave stands right before what the caller gets. mem_try leaves
 * large blocks to the kernel, which zeroes each page at its first touch. */
void *host_alloc(size_t bytes)
{
    size_t room;
    if (__builtin_add_overflow(bytes, 2 * ALIGN, &room)) return NULL;
    char *raw = mem_try(room, 1, 0);
    if (!raw) return NULL;
    uintptr_t at = ((uintptr_t)raw + 2 * ALIGN - 1) & -(uintptr_t)ALIGN;
    char *p = raw + (at - (uintptr_t)raw);
    memcpy(p - sizeof raw, &raw, sizeof raw);
    if (bytes >= 2 * HUGE_BYTES) {
        uintptr_t from = (at + HUGE_BYTES - 1) & -(uintptr_t)HUGE_BYTES;
        uintptr_t to = (at + bytes) & -(uintptr_t)HUGE_BYTES;
        madvise(p + (from - at), to - from, MADV_HUGEPAGE); /* a wish */
    }
    return p;
}

void host_free(void *ptr)
{
    if (!ptr) return;
    char *raw;
    memcpy(&raw, (char *)ptr - sizeof raw, sizeof raw);
    mem_free(raw);
}

int host_device_alloc(struct device *dev, void **out, size_t bytes,
                      struct why *why)
{
    (void)dev;
    *out = host_alloc(bytes);
    if (!*out)
        return err_set(why, ERR_NOMEM, "%zu bytes of activations", bytes);
    return 0;
}

void host_device_free(struct device *dev, void *ptr)
{
    (void)dev;
    host_free(ptr);
}

void host_device_write(struct device *dev, void *to, const void *host, size_t n)
{
    (void)dev;
    memcpy(to, host, n);
}

void host_device_read(struct device *dev, void *host, const void *from,
                      size_t n)
{
    (void)dev;
    memcpy(host, from, n);
}

int host_device_sync(struct device *dev, struct why *why)
{
    (void)dev;
    (void)why;
    return 0;
}
