#include "base/cores.h"

#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* "QUOTA PERIOD" of version 2, cores' worth; 0: "max", or no such file. */
static double quota_at(const char *folder)
{
    char path[4200];
    double quota = 0, period = 0;
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", folder);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    int n = fscanf(f, "%lf %lf", &quota, &period);
    fclose(f);
    return n == 2 && quota > 0 && period > 0 ? quota / period : 0;
}

static double number_at(const char *path)
{
    double v = 0;
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    if (fscanf(f, "%lf", &v) != 1) v = 0;
    fclose(f);
    return v;
}

/* Our group of version 2, below /sys/fs/cgroup; "" for the root. */
static void group_find(char *out, size_t n)
{
    FILE *f = fopen("/proc/self/cgroup", "r");
    char line[4096];
    *out = 0;
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "0::/", 4) != 0) continue;
        line[strcspn(line, "\n")] = 0;
        snprintf(out, n, "%s", line[4] ? line + 3 : "");
    }
    if (f) fclose(f);
}

static double least(double a, double b)
{
    return a == 0 || (b != 0 && b < a) ? b : a;
}

static double quota_find(void)
{
    char group[4096];
    group_find(group, sizeof group);
    double quota = quota_at("");
    while (*group) { /* each group above it holds as well */
        quota = least(quota, quota_at(group));
        *strrchr(group, '/') = 0;
    }
    double v1 = number_at("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
    double period = number_at("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    return least(quota, v1 > 0 && period > 0 ? v1 / period : 0);
}

static int within(int bound, double quota)
{
    int cores = quota > 0 && quota < bound ? (int)ceil(quota) : bound;
    return cores < 1 ? 1 : cores;
}

void cores_read(struct cores *out)
{
    cpu_set_t set;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    out->online = online > 0 ? (int)online : 1;
    out->bound = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                             : out->online;
    out->quota = quota_find();
    out->usable = within(out->bound, out->quota);
}

int cores_within_quota(int bound)
{
    return within(bound, quota_find());
}
