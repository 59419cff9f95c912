/* Weights of the cpu device: panels (kernels.h) that it packs, or that the
 * caller has from a file.
 *
 * Panels of many matrices share blocks of memory that begin where huge pages
 * do: in a block of its own a matrix of a few MiB would lie mostly in small
 * ones, and half of the time of packing would go to the kernel. A block is
 * large because what ends it, up to 2 MiB, is lost; what nobody touches of it
 * is not there. */
#include "tensor/cpu/cpu.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

enum {
    HUGE_BYTES = 2 << 20,
    BLOCK_BYTES = 512 << 20,
    LEAST_SHARED = 256 << 10, /* what is smaller has its own memory */
    PACK_PANELS = 16,         /* a worker's share at a time         */
};

struct panel_block {
    struct panel_block *next;
    char *raw;
    size_t at, end; /* of raw: not given away so far */
    size_t live;    /* weights in it */
};

static void block_drop(struct cpu *cpu, struct panel_block *b)
{
    if (--b->live) return;
    struct panel_block **at = &cpu->blocks;
    while (*at != b)
        at = &(*at)->next;
    *at = b->next;
    host_free(b->raw);
    mem_free(b);
}

/* Of at least so many bytes; a small machine gets no large one. NULL: no
 * memory. */
static struct panel_block *block_create(struct cpu *cpu, size_t least)
{
    size_t bytes = least > BLOCK_BYTES ? least : BLOCK_BYTES;
    char *raw;
    while (!(raw = host_alloc(bytes + HUGE_BYTES))) {
        if (bytes == least) return NULL;
        bytes = bytes / 2 > least ? bytes / 2 : least;
    }
    struct panel_block *b = mem_must(1, sizeof *b);
    b->raw = raw;
    b->at = -(uintptr_t)b->raw & (HUGE_BYTES - 1);
    b->end = b->at + bytes;
    b->next = cpu->blocks;
    return cpu->blocks = b;
}

/* Zeroed bytes (a multiple of 64) for w's panels; NULL: no memory. */
static char *panels_alloc(struct cpu *cpu, struct cpu_weight *w, size_t bytes)
{
    if (bytes < LEAST_SHARED) return w->own = host_alloc(bytes);
    struct panel_block *b = cpu->blocks;
    while (b && b->end - b->at < bytes) /* small ones go where large ended */
        b = b->next;
    if (!b) b = block_create(cpu, bytes);
    if (!b) return NULL;
    char *panels = b->raw + b->at;
    b->at += bytes;
    b->live++;
    w->block = b;
    return panels;
}

void cpu_weight_destroy(struct weight *plain)
{
    struct cpu_weight *w = (struct cpu_weight *)plain;
    pool_ahead_end(((struct cpu *)plain->dev)->pool);
    if (w->block) block_drop((struct cpu *)plain->dev, w->block);
    host_free(w->own);
    mem_free(w);
}

static struct cpu_weight *weight_plain(const struct weight *plain)
{
    struct cpu_weight *w = mem_must(1, sizeof *w);
    w->plain = *plain;
    w->panel_bytes = panel_bytes(plain->type, plain->cols);
    w->panel_count = (plain->rows + ROWS - 1) / ROWS;
    return w;
}

struct pack_job {
    const struct cpu *cpu;
    const struct cpu_weight *w;
    const struct weight_rows *from;
    char *panels;
    size_t first, end; /* panels */
    size_t chunk;      /* of them */
};

/* Where a worker has the rows of one panel, and behind them one as it comes:
 * small enough for its second level cache. */
static bool gather_bytes(const struct weight *w, const struct weight_rows *from,
                         size_t *out)
{
    size_t rows = w->rows < ROWS ? w->rows : ROWS;
    return !__builtin_add_overflow(rows * dtype_row_bytes(w->type, w->cols),
                                   dtype_row_bytes(from->type, w->cols), out);
}

/* Rows first .. of a panel, in the weight's type. */
static void rows_gather(const struct pack_job *job, size_t first, size_t rows,
                        char *room)
{
    const struct weight *w = &job->w->plain;
    const size_t bytes = dtype_row_bytes(w->type, w->cols);
    const bool same = job->from->type == w->type;
    char *one = room + rows * bytes;
    for (size_t r = 0; r < rows; r++, room += bytes) {
        const void *row =
            weight_row_at(job->from, first + r, w->cols, same ? room : one);
        if (!same)
            job->cpu->kernels->round(job->from->type, w->type, row, room,
                                     w->cols);
        else if (row != room)
            memcpy(room, row, bytes);
    }
}

static void panels_pack(void *arg, size_t chunk, int worker)
{
    const struct pack_job *job = arg;
    const struct cpu_weight *w = job->w;
    char *room = cpu_scratch(job->cpu, worker);
    size_t p = job->first + chunk * job->chunk, end = p + job->chunk;
    for (; p < end && p < job->end; p++) {
        struct weight rows = w->plain;
        size_t first = p * ROWS;
        char *panel = job->panels + p * w->panel_bytes;
        if (job->from->bytes && job->from->type == rows.type) {
            rows.bytes = job->from->bytes;
            panel_pack(job->cpu->kernels, &rows, first, panel);
            continue;
        }
        rows.rows = rows.rows - first < ROWS ? rows.rows - first : ROWS;
        rows.bytes = room;
        rows_gather(job, first, rows.rows, room);
        panel_pack(job->cpu->kernels, &rows, 0, panel);
    }
}

static void job_run(struct pack_job *job)
{
    size_t panels = job->end - job->first;
    size_t each = panels / (4 * (size_t)job->cpu->device.threads);
    job->chunk = each < 1 ? 1 : each < PACK_PANELS ? each : PACK_PANELS;
    pool_run_near(job->cpu->pool, panels_pack, job,
                  (panels + job->chunk - 1) / job->chunk);
}

/* Room for w's panels and what making them takes. */
static int weight_reserve(struct cpu *cpu, struct cpu_weight *w, bool later,
                          const struct weight_rows *from, struct why *why)
{
    const struct weight *plain = &w->plain;
    size_t bytes, room;
    if (gather_bytes(plain, from, &room) &&
        !__builtin_mul_overflow(w->panel_count, w->panel_bytes, &bytes)) {
        if (later) room = linear_later_bytes(w);
        int rc = cpu_scratch_reserve(cpu, room, why);
        if (rc) return rc;
        w->panels = panels_alloc(cpu, w, bytes);
    }
    if (w->panels) return 0;
    return err_set(why, ERR_NOMEM, "a matrix of %zu x %zu in %s", plain->rows,
                   plain->cols, dtype_name(plain->type));
}

int cpu_weight_create(struct weight **out, const struct weight *plain,
                      const struct weight_rows *from, struct why *why)
{
    struct cpu *cpu = (struct cpu *)plain->dev;
    struct cpu_weight *w = weight_plain(plain);
    bool later = from->stay && from->bytes && from->type == plain->type;
    int rc = weight_reserve(cpu, w, later, from, why);
    if (rc) {
        mem_free(w);
        return rc;
    }
    if (later) {
        w->plain.bytes = from->bytes;
    } else {
        struct pack_job job = {.cpu = cpu,
                               .w = w,
                               .from = from,
                               .panels = (char *)(uintptr_t)w->panels,
                               .end = w->panel_count};
        job_run(&job);
        pool_leave(); /* who loads a model goes on to other things */
        w->packed = w->panel_count;
    }
    *out = &w->plain;
    return 0;
}

/* --- packed later --------------------------------------------------------- */

/* On several nodes all at once: which panels are whose is a matter of the whole
 * matrix. */
size_t cpu_weight_pack(struct weight *plain, size_t bytes)
{
    struct cpu_weight *w = (struct cpu_weight *)plain;
    struct cpu *cpu = (struct cpu *)plain->dev;
    size_t n = w->panel_count - w->packed;
    if (!n) return 0;
    if (pool_nodes(cpu->pool) == 1 && bytes / w->panel_bytes < n)
        n = bytes / w->panel_bytes + 1;
    const struct weight_rows from = {.type = plain->type,
                                     .bytes = plain->bytes};
    struct pack_job job = {.cpu = cpu,
                           .w = w,
                           .from = &from,
                           .panels = (char *)(uintptr_t)w->panels,
                           .first = w->packed,
                           .end = w->packed + n};
    job_run(&job);
    w->packed += n;
    if (w->packed == w->panel_count) plain->bytes = NULL;
    return n * w->panel_bytes;
}

void cpu_panels_pack(const struct cpu *cpu, const struct cpu_weight *w,
                     size_t first, size_t count, char *to)
{
    memset(to, 0, count * w->panel_bytes);
    for (size_t p = 0; p < count; p++)
        panel_pack(cpu->kernels, &w->plain, (first + p) * ROWS,
                   to + p * w->panel_bytes);
}

/* --- from a file --------------------------------------------------------- */

size_t cpu_packed_bytes(enum dtype type, size_t rows, size_t cols)
{
    return (rows + ROWS - 1) / ROWS * panel_bytes(type, cols);
}

const void *cpu_packed(const struct weight *w)
{
    return ((const struct cpu_weight *)w)->panels;
}

int cpu_weight_map(struct weight **out, const struct weight *plain,
                   const void *packed, struct why *why)
{
    (void)why;
    struct cpu_weight *w = weight_plain(plain);
    w->panels = packed;
    w->packed = w->panel_count;
    *out = &w->plain;
    return 0;
}

void cpu_layout(const struct cpu *cpu, char *text, size_t n)
{
    snprintf(text, n, "%s panels %016llx", cpu->kernels->name,
             (unsigned long long)panel_layout());
}
