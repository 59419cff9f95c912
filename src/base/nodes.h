/* base/nodes.h - which memory is near to which cores (NUMA).
 *
 * A page lies where the thread ran that touched it first, so what a thread
 * reads often should have been touched by a thread of the same node. On a
 * machine with one node, or whose kernel does not say, there is nothing to
 * do and nothing is done. */
#ifndef BATON_BASE_NODES_H
#define BATON_BASE_NODES_H

#include <sched.h>
#include <stddef.h>

#define NODES_FOLDER "/sys/devices/system/node"

enum { NODES_MAX = 64 };

/* The nodes that have usable cores, in the order of their numbers. */
struct nodes {
    int count;
    int id[NODES_MAX];          /* the kernel's number of each */
    cpu_set_t cores[NODES_MAX]; /* its usable cores            */
};

/* folder is NODES_FOLDER but in tests. count is 0 where it says nothing of
 * any usable core. */
void nodes_read(struct nodes *out, const char *folder, const cpu_set_t *usable);

/* The node (an index) of worker i of n: neighbours together, and as many on
 * each node as it has cores. count must not be 0. */
int nodes_of_worker(const struct nodes *nodes, int i, int n);

/* Memory that some thread will touch first and all will read: its pages go in
 * turn to all nodes whose cores the calling thread may use. A wish; at is
 * the start of a page. */
void nodes_interleave(void *at, size_t bytes);

#endif
