/* base/cores.h - how many cores this process may use.
 *
 * What it is bound to, and what the quota of its control group (v2 or v1, or
 * one above it) allows. Any thread. */
#ifndef BATON_BASE_CORES_H
#define BATON_BASE_CORES_H

struct cores {
    int online;   /* of the machine */
    int bound;    /* that we may run on: taskset, cpuset */
    double quota; /* cores' worth of time; 0: no limit */
    int usable;   /* workers that make sense: the least of these, rounded up */
};

void cores_read(struct cores *out);
/* The usable ones of so many that we may run on: at least 1. */
int cores_within_quota(int bound);

#endif
