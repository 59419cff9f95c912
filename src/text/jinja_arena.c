/* The memory, the budget and the way out of a compilation or a rendering. */
#include "text/jinja.h"
#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct jinja_chunk {
    struct jinja_chunk *next;
    size_t used, cap;
    _Alignas(16) char bytes[];
};

void jinja_fail(struct jinja *j, int code, const char *fmt, ...)
{
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (j->line)
        j->rc = err_set(j->why, code, "line %d: %s", j->line, text);
    else
        j->rc = err_set(j->why, code, "%s", text);
    longjmp(j->out, 1);
}

static struct jinja_chunk *add_chunk(struct jinja *j, size_t bytes)
{
    enum { FIRST = 16384, LARGEST = 1 << 20 };
    size_t cap = j->chunks ? 2 * j->chunks->cap : FIRST;
    if (cap > LARGEST) cap = LARGEST;
    if (cap < bytes) cap = bytes;
    struct jinja_chunk *c = mem_try(1, sizeof *c + cap, 0);
    if (!c) jinja_fail(j, ERR_NOMEM, "out of memory");
    c->cap = cap;
    c->next = j->chunks;
    j->chunks = c;
    j->used += cap;
    return c;
}

void *jinja_alloc(struct jinja *j, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > j->max ||
        j->used > j->max - bytes)
        jinja_fail(j, ERR_RANGE, "template takes more than %zu bytes", j->max);
    bytes = (bytes + 15) / 16 * 16;
    struct jinja_chunk *c = j->chunks;
    if (!c || bytes > c->cap - c->used) c = add_chunk(j, bytes);
    void *p = c->bytes + c->used;
    c->used += bytes;
    return p; /* chunks come zeroed and are never used twice */
}

void jinja_free(struct jinja *j)
{
    while (j->chunks) {
        struct jinja_chunk *next = j->chunks->next;
        mem_free(j->chunks);
        j->chunks = next;
    }
}

void jinja_work(struct jinja *j, size_t n)
{
    j->steps -= (int64_t)n;
    if (j->steps < 0) jinja_fail(j, ERR_RANGE, "template takes too many steps");
}

void jinja_enter(struct jinja *j)
{
    if (++j->depth > j->max_depth)
        jinja_fail(j, ERR_RANGE, "nested more than %d deep", j->max_depth);
}

void jinja_leave(struct jinja *j)
{
    j->depth--;
}

void jinja_add(struct jinja *j, struct jinja_text *t, const char *s, size_t n)
{
    if (n > t->cap - t->n) {
        size_t cap = t->cap ? 2 * t->cap : 32;
        while (cap < t->n + n)
            cap *= 2;
        char *more = jinja_alloc(j, cap, 1);
        if (t->n) memcpy(more, t->s, t->n);
        t->s = more;
        t->cap = cap;
    }
    if (n) memcpy(t->s + t->n, s, n);
    t->n += n;
    if (t->n == t->cap) { /* a name made so is closed by 0 */
        size_t all = t->n;
        jinja_add(j, t, "\0", 1);
        t->n = all;
    }
}

void jinja_adds(struct jinja *j, struct jinja_text *t, const char *s)
{
    jinja_add(j, t, s, strlen(s));
}
