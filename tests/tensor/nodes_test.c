/* Nodes of memory: what the kernel says of them, where workers run, and where
 * lies what they touched first. On a machine with one node the last two say
 * so and end; `make numa` runs them on an emulated one with two. */
#include "tests/temp.h"

#include "base/nodes.h"
#include "tensor/cpu/pool.h"
#include "tensor/device.h"
#include "tensor/device_ops.h"

#include <linux/mempolicy.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void node_write(const char *dir, const char *node, const char *cores)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, node);
    assert_int_equal(mkdir(path, 0755), 0);
    snprintf(path, sizeof path, "%s/cpulist", node);
    temp_write(dir, path, cores, strlen(cores));
}

static cpu_set_t cores(int from, int to)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int c = from; c <= to; c++)
        CPU_SET(c, &set);
    return set;
}

static void nodes_are_those_of_usable_cores(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct nodes nodes;
    cpu_set_t usable = cores(0, 11);
    nodes_read(&nodes, dir, &usable);
    assert_int_equal(nodes.count, 0); /* a kernel that does not say */

    node_write(dir, "node0", "0-3,8\n");
    node_write(dir, "node1", "4-7\n");
    node_write(dir, "node2", "\n"); /* memory alone */
    node_write(dir, "node7", "9,11-4000\n");
    nodes_read(&nodes, dir, &usable);
    assert_int_equal(nodes.count, 3);
    assert_int_equal(nodes.id[2], 7);
    assert_int_equal(CPU_COUNT(&nodes.cores[0]), 5);
    assert_true(CPU_ISSET(8, &nodes.cores[0]));
    assert_int_equal(CPU_COUNT(&nodes.cores[1]), 4);
    assert_int_equal(CPU_COUNT(&nodes.cores[2]), 2);
    assert_true(CPU_ISSET(11, &nodes.cores[2]));

    usable = cores(4, 5);
    nodes_read(&nodes, dir, &usable);
    assert_int_equal(nodes.count, 1);
    assert_int_equal(nodes.id[0], 1);
    assert_int_equal(CPU_COUNT(&nodes.cores[0]), 2);
    temp_remove(dir);
}

static void workers_fill_nodes_by_their_cores(void **state)
{
    (void)state;
    struct nodes nodes = {.count = 3,
                          .cores = {cores(0, 3), cores(4, 5), cores(6, 7)}};
    static const int all[8] = {0, 0, 0, 0, 1, 1, 2, 2};
    for (int i = 0; i < 8; i++)
        assert_int_equal(nodes_of_worker(&nodes, i, 8), all[i]);
    for (int i = 0; i < 4; i++) /* half as many workers as cores */
        assert_int_equal(nodes_of_worker(&nodes, i, 4), all[2 * i]);
    for (int i = 0; i < 16; i++)
        assert_int_equal(nodes_of_worker(&nodes, i, 16), all[i / 2]);
    assert_int_equal(nodes_of_worker(&nodes, 0, 1), 0);
    nodes.count = 1;
    assert_int_equal(nodes_of_worker(&nodes, 7, 8), 0);
}

/* --- this machine -------------------------------------------------------- */

static struct nodes here(void)
{
    struct nodes nodes;
    cpu_set_t usable;
    assert_int_equal(sched_getaffinity(0, sizeof usable, &usable), 0);
    nodes_read(&nodes, NODES_FOLDER, &usable);
    print_message("this machine has %d node%s\n", nodes.count,
                  nodes.count == 1 ? "" : "s");
    return nodes;
}

/* The node where a page that was touched lies, by the kernel's number. */
static int node_of_page(const void *at)
{
    int node = -1;
    unsigned long flags = MPOL_F_NODE | MPOL_F_ADDR;
    if (syscall(SYS_get_mempolicy, &node, NULL, 0ul, at, flags)) return -1;
    return node;
}

static char *untouched(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(at != MAP_FAILED);
    return at;
}

struct touch {
    pthread_barrier_t all; /* so that nobody takes another's chunk */
    char *memory;          /* a page for each chunk */
    cpu_set_t ran[8];      /* where the one who took a chunk may run */
};

static void touch(void *arg, size_t chunk, int worker)
{
    struct touch *t = arg;
    assert_int_equal(worker, chunk);
    pthread_barrier_wait(&t->all);
    t->memory[chunk * 4096] = 1;
    sched_getaffinity(0, sizeof t->ran[chunk], &t->ran[chunk]);
}

static void workers_stay_where_their_memory_is(void **state)
{
    (void)state;
    struct nodes nodes = here();
    if (nodes.count < 2) return;
    int n = 2 * nodes.count < 8 ? 2 * nodes.count : 8;
    struct pool *pool;
    struct pool_options options = {.threads = n};
    assert_int_equal(pool_create(&pool, &options, NULL), 0);
    struct touch t = {.memory = untouched((size_t)n * 4096)};
    pthread_barrier_init(&t.all, NULL, (unsigned)n);
    cpu_set_t before, after;
    sched_getaffinity(0, sizeof before, &before);
    pool_run(pool, touch, &t, (size_t)n);
    for (int i = 0; i < n; i++) {
        int node = nodes_of_worker(&nodes, i, n);
        assert_true(CPU_EQUAL(&t.ran[i], &nodes.cores[node]));
        assert_int_equal(node_of_page(t.memory + i * 4096), nodes.id[node]);
    }
    assert_int_equal(pool_usable_cores(), CPU_COUNT(&before));
    pool_leave();
    sched_getaffinity(0, sizeof after, &after);
    assert_true(CPU_EQUAL(&before, &after));
    pthread_barrier_destroy(&t.all);
    pool_destroy(pool);
    munmap(t.memory, (size_t)n * 4096);
}

/* Of the pages of a part of memory, the share that lies on a node. */
static double share_on(const char *from, const char *to, int node)
{
    size_t pages = 0, there = 0;
    for (const char *p = from; p < to; p += 4096) {
        pages++;
        there += node_of_page(p) == node;
    }
    return (double)there / (double)pages;
}

static void packed_weights_lie_with_who_reads_them(void **state)
{
    (void)state;
    enum { SIDE = 2048 };
    struct nodes nodes = here();
    if (nodes.count < 2) return;
    struct device_options options = {.kind = "cpu", .threads = 2 * nodes.count};
    struct device *dev;
    struct why why = {0};
    assert_int_equal(device_open(&dev, &options, &why), 0);
    char text[40];
    snprintf(text, sizeof text, "on %d nodes", nodes.count);
    assert_non_null(strstr(device_describe(dev), text));
    float *rows = host_alloc((size_t)SIDE * SIDE * sizeof *rows);
    size_t bytes = weight_packed_bytes(dev, DTYPE_F32, SIDE, SIDE);
    for (int later = 0; later < 2; later++) {
        const struct weight_rows from = {
            .type = DTYPE_F32, .stay = later, .bytes = rows};
        struct weight *w;
        assert_int_equal(
            weight_create_from(&w, dev, DTYPE_F32, SIDE, SIDE, &from, &why), 0);
        assert_int_equal(weight_pack(w, 1), later ? bytes : 0);
        const char *at = weight_packed(w);
        for (int k = 0; k < nodes.count; k++) {
            size_t begin = bytes * (size_t)k / (size_t)nodes.count,
                   end = bytes * (size_t)(k + 1) / (size_t)nodes.count;
            double share = share_on(at + begin, at + end, nodes.id[k]);
            print_message("part %d of the weights: %.0f %% on node %d\n", k,
                          100 * share, nodes.id[k]);
            assert_true(share > 0.9); /* but the pages where parts meet */
        }
        weight_destroy(w);
    }
    device_close(dev);
    host_free(rows);
}

static void interleaved_memory_is_everywhere(void **state)
{
    (void)state;
    enum { BYTES = 64 * 4096 };
    struct nodes nodes = here();
    if (nodes.count < 2) return;
    char *at = untouched(BYTES);
    nodes_interleave(at, BYTES);
    memset(at, 1, BYTES);
    for (int k = 0; k < nodes.count; k++) {
        double share = share_on(at, at + BYTES, nodes.id[k]) * nodes.count;
        assert_true(share > 0.9 && share < 1.1);
    }
    munmap(at, BYTES);
}

TESTS(T(nodes_are_those_of_usable_cores), T(workers_fill_nodes_by_their_cores),
      T(workers_stay_where_their_memory_is),
      T(packed_weights_lie_with_who_reads_them),
      T(interleaved_memory_is_everywhere))
