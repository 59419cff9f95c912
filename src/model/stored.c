#include "model/stored.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int stored_reserve(struct stored_table *table, size_t count, struct why *why)
{
    size_t cap, bytes;
    if (__builtin_add_overflow(table->count, count, &cap) ||
        __builtin_mul_overflow(cap, sizeof *table->list, &bytes))
        return err_set(why, ERR_NOMEM, "a table of %zu tensors", count);
    void *list = mem_retry(table->list, bytes);
    if (!list) return err_set(why, ERR_NOMEM, "a table of %zu tensors", cap);
    table->list = list;
    table->cap = cap;
    return 0;
}

int stored_add(struct stored_table *table, const struct stored_tensor *tensor,
               const char *name, size_t n, const char *file, struct why *why)
{
    char *copy = mem_try(n + 1, 1, 0);
    if (!copy) return err_set(why, ERR_NOMEM, "%s: names of tensors", file);
    memcpy(copy, name, n);
    struct stored_tensor *t = &table->list[table->count++];
    *t = *tensor;
    t->name = copy;
    t->file = file;
    return 0;
}

static int name_order(const void *a, const void *b)
{
    const struct stored_tensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int place_order(const void *a, const void *b)
{
    const struct stored_tensor *const *x = a, *const *y = b;
    uintptr_t p = (uintptr_t)(*x)->bytes, q = (uintptr_t)(*y)->bytes;
    if (p != q) return p < q ? -1 : 1;
    return (*x)->size < (*y)->size ? -1 : (*x)->size > (*y)->size;
}

/* by_name holds all tensors in any order; it is sorted by place here. */
static int refuse_overlap(struct stored_table *table, struct why *why)
{
    qsort(table->by_name, table->count, sizeof *table->by_name, place_order);
    for (size_t i = 1; i < table->count; i++) {
        const struct stored_tensor *a = table->by_name[i - 1];
        const struct stored_tensor *b = table->by_name[i];
        if (a->bytes + a->size > b->bytes)
            return err_set(why, ERR_FORMAT, "%s: tensors %s and %s share bytes",
                           b->file, a->name, b->name);
    }
    return 0;
}

int stored_index(struct stored_table *table, struct why *why)
{
    mem_free(table->by_name);
    table->by_name = mem_try(table->count, sizeof *table->by_name, 0);
    if (!table->by_name)
        return err_set(why, ERR_NOMEM, "an index of %zu tensors", table->count);
    for (size_t i = 0; i < table->count; i++)
        table->by_name[i] = &table->list[i];
    int rc = refuse_overlap(table, why);
    if (rc) return rc;
    qsort(table->by_name, table->count, sizeof *table->by_name, name_order);
    for (size_t i = 1; i < table->count; i++) {
        const struct stored_tensor *t = table->by_name[i];
        if (!strcmp(table->by_name[i - 1]->name, t->name))
            return err_set(why, ERR_FORMAT, "%s: tensor %s comes twice",
                           t->file, t->name);
    }
    return 0;
}

const struct stored_tensor *stored_find(const struct stored_table *table,
                                        const char *name)
{
    size_t low = 0, high = table->by_name ? table->count : 0;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = strcmp(name, table->by_name[mid]->name);
        if (!order) return table->by_name[mid];
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

void stored_fini(struct stored_table *table)
{
    for (size_t i = 0; i < table->count; i++)
        mem_free((void *)(uintptr_t)table->list[i].name);
    mem_free(table->list);
    mem_free(table->by_name);
    *table = (struct stored_table){0};
}

char *stored_shape_text(const struct stored_tensor *t, char *text, size_t n)
{
    size_t at = 0;
    for (uint32_t i = 0; i < t->dims && at < n; i++)
        at += (size_t)snprintf(text + at, n - at, "%s%llu", i ? ", " : "[",
                               (unsigned long long)t->shape[i]);
    if (at < n) snprintf(text + at, n - at, t->dims ? "]" : "[]");
    return text;
}

int stored_elements(const uint64_t *shape, uint32_t dims, uint64_t *out)
{
    uint64_t n = 1;
    for (uint32_t i = 0; i < dims; i++)
        if (__builtin_mul_overflow(n, shape[i], &n) || n >> 62)
            return ERR_FORMAT;
    *out = n;
    return 0;
}

int stored_name_ok(const char *name, size_t n)
{
    if (n == 0 || n > 1024) return 0;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f) return 0;
    return 1;
}
