/* Writing a cache file behind a model that is in use. */
#include "model/cache.h"

#include "base/mem.h"
#include "tensor/ops.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>

struct saved {
    struct cache_entry entry;
    const struct weight *weight;
};

struct cache_save {
    char *path, *source;
    void (*note)(void *arg, bool coped, const char *text);
    void *arg;
    struct saved *weights;
    size_t count, cap;
    bool started;
    atomic_bool stop;
    pthread_t thread;
};

struct cache_save *cache_save_create(char *path, char *source,
                                     void (*note)(void *arg, bool coped,
                                                  const char *text),
                                     void *arg)
{
    struct cache_save *s = mem_must(1, sizeof *s);
    s->path = path;
    s->source = source;
    s->note = note;
    s->arg = arg;
    return s;
}

void cache_save_add(struct cache_save *s, const struct cache_entry *e,
                    const struct weight *w)
{
    if (s->count == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 256;
        s->weights = mem_remust(s->weights, s->cap * sizeof *s->weights);
    }
    s->weights[s->count++] = (struct saved){*e, w};
}

static void say(const struct cache_save *s, bool coped, const char *fmt,
                const char *text)
{
    char line[768];
    snprintf(line, sizeof line, fmt, text);
    if (s->note) s->note(s->arg, coped, line);
}

static int write_all(struct cache_save *s, struct why *why)
{
    struct cache_writer *w;
    int rc = cache_writer_open(&w, s->path, s->source, &s->stop, why);
    for (size_t i = 0; i < s->count && !rc; i++)
        rc = cache_writer_add(w, &s->weights[i].entry,
                              weight_packed(s->weights[i].weight), why);
    return rc ? rc : cache_writer_finish(w, why);
}

static void *run(void *arg)
{
    struct cache_save *s = arg;
    struct why why = {0};
    const struct sched_param none = {0};
    sched_setscheduler(0, SCHED_IDLE, &none); /* of this thread; a wish */
    int rc = write_all(s, &why);
    if (rc == ERR_EXISTS)
        say(s, false, "%s", why_text(&why, rc));
    else if (rc && rc != ERR_CANCELED)
        say(s, true, "no weight cache: %s", why_text(&why, rc));
    return NULL;
}

void cache_save_start(struct cache_save *s)
{
    if (!s || s->started) return;
    say(s, false, "writing the weight cache %s", s->path);
    s->started = !pthread_create(&s->thread, NULL, run, s);
    if (!s->started) say(s, true, "no weight cache: %s", "no thread for it");
}

void cache_save_wait(struct cache_save *s)
{
    if (!s || !s->started) return;
    pthread_join(s->thread, NULL);
    s->started = false;
    s->count = 0;
}

void cache_save_close(struct cache_save *s)
{
    if (!s) return;
    atomic_store(&s->stop, true);
    cache_save_wait(s);
    mem_free(s->weights);
    mem_free(s->path);
    mem_free(s->source);
    mem_free(s);
}
