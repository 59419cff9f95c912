#include "bin/memory.h"

#include "base/nodes.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* The number in a one-line file; UINT64_MAX for "max" or when unreadable. */
static uint64_t read_number(const char *path)
{
    unsigned long long v;
    FILE *f = fopen(path, "r");
    if (!f) return UINT64_MAX;
    int n = fscanf(f, "%llu", &v);
    fclose(f);
    return n == 1 ? v : UINT64_MAX;
}

/* The value of a line "name   123 [kB]" or "name 123"; UINT64_MAX without. */
static uint64_t read_field(const char *path, const char *name)
{
    uint64_t found = UINT64_MAX;
    FILE *f = fopen(path, "r");
    if (!f) return found;
    char line[256];
    size_t n = strlen(name);
    while (fgets(line, sizeof line, f)) {
        unsigned long long v;
        if (strncmp(line, name, n) == 0 && sscanf(line + n, " %llu", &v) == 1) {
            found = v;
            break;
        }
    }
    fclose(f);
    return found;
}

/* What a control group leaves: its limit less what it uses, where clean file
 * pages count as free, since the kernel drops them under pressure. */
static uint64_t group_left(const char *limit, const char *usage,
                           const char *stat, const char *file_pages)
{
    uint64_t max = read_number(limit), used = read_number(usage);
    if (max == UINT64_MAX || used == UINT64_MAX) return UINT64_MAX;
    uint64_t clean = read_field(stat, file_pages);
    if (clean != UINT64_MAX) used = used > clean ? used - clean : 0;
    return max > used ? max - used : 0;
}

uint64_t memory_available(void)
{
    uint64_t free_kb = read_field("/proc/meminfo", "MemAvailable:");
    uint64_t best = free_kb == UINT64_MAX ? UINT64_MAX : free_kb * 1024;
    uint64_t v2 =
        group_left("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current",
                   "/sys/fs/cgroup/memory.stat", "inactive_file");
    uint64_t v1 =
        group_left("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                   "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                   "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file");
    if (v2 < best) best = v2;
    if (v1 < best) best = v1;
    return best == UINT64_MAX ? 0 : best;
}

uint64_t memory_total(void)
{
    uint64_t kb = read_field("/proc/meminfo", "MemTotal:");
    uint64_t v2 = read_number("/sys/fs/cgroup/memory.max");
    uint64_t total = kb == UINT64_MAX ? UINT64_MAX : kb * 1024;
    if (v2 < total) total = v2;
    return total == UINT64_MAX ? 0 : total;
}

bool memory_may_grow(void *unused, size_t bytes)
{
    (void)unused;
    uint64_t left = memory_available(), keep = memory_total() / 16;
    if (keep > (uint64_t)1 << 30) keep = (uint64_t)1 << 30;
    return left == 0 || left > keep + bytes;
}

void memory_wish(void *slab, size_t bytes)
{
    nodes_interleave(slab, bytes);
    madvise(slab, bytes, MADV_HUGEPAGE);
}
