#include "base/nodes.h"

#include <linux/mempolicy.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Adds the usable ones of the cores in a list like "0-3,8,10-11". */
static void list_read(FILE *f, const cpu_set_t *usable, cpu_set_t *out)
{
    int from, to;
    while (fscanf(f, "%d", &from) == 1) {
        if (fscanf(f, "-%d", &to) != 1) to = from;
        for (int c = from; c <= to && c < CPU_SETSIZE; c++)
            if (c >= 0 && CPU_ISSET(c, usable)) CPU_SET(c, out);
        if (fgetc(f) != ',') return;
    }
}

void nodes_read(struct nodes *out, const char *folder, const cpu_set_t *usable)
{
    memset(out, 0, sizeof *out);
    for (int id = 0; id < NODES_MAX; id++) {
        char path[512];
        snprintf(path, sizeof path, "%s/node%d/cpulist", folder, id);
        FILE *f = fopen(path, "r");
        if (!f) continue; /* numbers may be left out */
        cpu_set_t *cores = &out->cores[out->count];
        list_read(f, usable, cores);
        fclose(f);
        if (CPU_COUNT(cores)) out->id[out->count++] = id;
    }
}

int nodes_of_worker(const struct nodes *nodes, int i, int n)
{
    long cores = 0, before = 0;
    for (int k = 0; k < nodes->count; k++)
        cores += CPU_COUNT(&nodes->cores[k]);
    for (int k = 0; k < nodes->count - 1; k++) {
        before += CPU_COUNT(&nodes->cores[k]);
        if (i * cores < before * n) return k;
    }
    return nodes->count - 1;
}

void nodes_interleave(void *at, size_t bytes)
{
    struct nodes nodes;
    cpu_set_t usable;
    unsigned long mask = 0;
    if (sched_getaffinity(0, sizeof usable, &usable)) return;
    nodes_read(&nodes, NODES_FOLDER, &usable);
    if (nodes.count < 2) return;
    for (int k = 0; k < nodes.count; k++)
        mask |= 1ul << nodes.id[k];
    syscall(SYS_mbind, at, bytes, MPOL_INTERLEAVE, &mask, 8 * sizeof mask + 1,
            0u);
}
