/* A model from a weight cache is the model from its files; a cache that is
 * damaged, stale, foreign or lying is not used, and made anew. */
#include "tests/temp.h"
#include "tests/model/random_model.h"
#include "tests/model/rig.h"
#include "base/checksum.h"
#include "model/cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TOKENS = 24 };

/* What a start said of its cache. */
struct notes {
    int wrote, coped;
    char text[768]; /* the last one of the second kind */
};

static void take_note(void *arg, bool coped, const char *text)
{
    struct notes *n = arg;
    assert_true(coped || strstr(text, "writing the weight cache"));
    n->wrote += !coped;
    n->coped += coped;
    if (coped) snprintf(n->text, sizeof n->text, "%s", text);
}

/* A model's files and its caches, in a folder. */
struct place {
    char *dir, path[4096], caches[4096];
    enum model_quantize quantize;
    bool leave; /* start_once: close while it may be writing */
};

static void place_open(struct place *p, const char *name, enum dtype type)
{
    struct random_model *m = random_model_named(name);
    *p = (struct place){.dir = temp_dir()};
    snprintf(p->caches, sizeof p->caches, "%s/caches", p->dir);
    snprintf(p->path, sizeof p->path, "%s/model", p->dir);
    if (type == DTYPE_COUNT)
        random_model_write_folder(m, p->path, 2);
    else
        random_model_write_gguf(m, p->path, type, false);
    random_model_free(m);
}

/* The only file of the folder of caches, whole. */
static void place_cache(const struct place *p, char out[4096])
{
    DIR *dir = opendir(p->caches);
    int count = 0;
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.') continue;
        snprintf(out, 4096, "%s/%s", p->caches, e->d_name);
        count++;
    }
    closedir(dir);
    assert_int_equal(count, 1);
    assert_string_equal(out + strlen(out) - 8, ".weights");
}

/* Logits and fingerprint of a start with caches at folder (NULL: none). */
static float *start(const struct place *p, const char *folder,
                    const char *device, struct notes *notes, size_t *n,
                    uint64_t *fingerprint)
{
    static const uint32_t whole[] = {TOKENS};
    struct rig r;
    int32_t ids[TOKENS];
    *notes = (struct notes){0};
    const struct model_options o = {.path = p->path,
                                    .quantize = p->quantize,
                                    .weight_cache = folder,
                                    .pack_later = true,
                                    .note = take_note,
                                    .arg = notes};
    rig_open_with(&r, o, device, 16, DTYPE_F32);
    model_save_cache(r.model);
    model_wait_cache(r.model);
    for (int i = 0; i < TOKENS; i++)
        ids[i] = (i * 37 + 11) % (int)r.vocab;
    float *logits = rig_logits(&r, ids, TOKENS, whole, 1);
    *n = TOKENS * (size_t)r.vocab * sizeof *logits;
    *fingerprint = model_fingerprint(r.model);
    rig_close(&r);
    return logits;
}

/* Starts with the caches: writes one or not, says word or nothing, and is the
 * same model as without. */
static void expect(const struct place *p, const char *folder,
                   const char *device, int wrote, const char *word)
{
    struct notes notes, none;
    size_t n, m;
    uint64_t id, same;
    float *got = start(p, folder, device, &notes, &n, &id);
    float *want = start(p, NULL, device, &none, &m, &same);
    if (notes.wrote != wrote || notes.coped != (word != NULL) ||
        (word && !strstr(notes.text, word)))
        fail_msg("wrote %d, \"%s\" instead of %d, \"%s\"", notes.wrote,
                 notes.text, wrote, word ? word : "");
    assert_int_equal(none.wrote + none.coped, 0);
    assert_int_equal(n, m);
    assert_true(id == same);
    assert_memory_equal(got, want, n);
    mem_free(got);
    mem_free(want);
}

static void a_cache_is_the_same_model(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        enum dtype type; /* DTYPE_COUNT: a folder of floats */
        enum model_quantize quantize;
    } cases[] = {{"qwen3-256", DTYPE_Q8_0, QUANTIZE_NONE},
                 {"llama-256", DTYPE_Q4_K, QUANTIZE_NONE},
                 {"llama-bias", DTYPE_F16, QUANTIZE_NONE},
                 {"llama-256", DTYPE_COUNT, QUANTIZE_NONE},
                 {"llama-256", DTYPE_COUNT, QUANTIZE_W8A8_INT8},
                 {"qwen3-256", DTYPE_COUNT, QUANTIZE_INT4},
                 {"qwen3moe-mixed", DTYPE_Q4_0, QUANTIZE_NONE},
                 {"qwen3moe-mixed", DTYPE_COUNT, QUANTIZE_INT8}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct place p;
        place_open(&p, cases[i].name, cases[i].type);
        p.quantize = cases[i].quantize;
        expect(&p, p.caches, "cpu", 1, NULL);
        expect(&p, p.caches, "cpu", 0, NULL);
        temp_remove(p.dir);
    }
}

static void what_is_asked_for_has_its_own_file(void **state)
{
    (void)state;
    struct place p;
    place_open(&p, "llama-256", DTYPE_COUNT);
    for (int round = 0; round < 2; round++)
        for (p.quantize = QUANTIZE_NONE; p.quantize <= QUANTIZE_INT4;
             p.quantize++)
            expect(&p, p.caches, "cpu", round == 0, NULL);
    temp_remove(p.dir);
}

/* --- damage -------------------------------------------------------------- */

static uint8_t *read_all(const char *path, size_t *size)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    uint8_t *bytes = mem_must((size_t)st.st_size, 1);
    int fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, bytes, (size_t)st.st_size), st.st_size);
    close(fd);
    *size = (size_t)st.st_size;
    return bytes;
}

static void write_all(const char *path, const void *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), size);
    close(fd);
}

static int open_code(const char *path, struct device *dev)
{
    struct cache *c;
    struct why why = {0};
    int rc = cache_open(&c, path, NULL, dev, &why);
    cache_close(c);
    assert_true(!rc || strstr(why.text, path));
    return rc;
}

/* One bit of a byte of the file, which is put back. */
static void flip(const char *path, struct device *dev, size_t at, uint8_t was)
{
    const uint8_t is = was ^ (uint8_t)(1 << at % 8);
    int fd = open(path, O_WRONLY);
    assert_int_equal(pwrite(fd, &is, 1, (off_t)at), 1);
    int rc = open_code(path, dev);
    if (rc != ERR_FORMAT) fail_msg("byte %zu: %s", at, err_name(rc));
    assert_int_equal(pwrite(fd, &was, 1, (off_t)at), 1);
    close(fd);
}

static void every_damage_is_seen(void **state)
{
    (void)state;
    struct place p;
    char path[4096];
    size_t size;
    struct device *dev;
    const struct device_options options = {.kind = "cpu", .threads = 2};
    assert_int_equal(device_open(&dev, &options, NULL), 0);
    place_open(&p, "llama-plain", DTYPE_F16);
    expect(&p, p.caches, "cpu", 1, NULL);
    place_cache(&p, path);
    uint8_t *bytes = read_all(path, &size);
    struct cache_head h;
    memcpy(&h, bytes, sizeof h);
    assert_int_equal(open_code(path, dev), 0);
    for (size_t at = 0; at < sizeof h; at++)
        flip(path, dev, at, bytes[at]);
    /* The text here and there, one entry whole, the others here and there. */
    const size_t entry = h.index_at + (h.text_bytes + 7) / 8 * 8;
    for (size_t at = h.index_at; at < size; at += 11)
        flip(path, dev, at, bytes[at]);
    for (size_t at = 0; at < sizeof(struct cache_entry); at++)
        flip(path, dev, entry + at, bytes[entry + at]);
    for (size_t i = 0; i < h.entries; i++) {
        struct cache_entry e;
        memcpy(&e, bytes + entry + i * sizeof e, sizeof e);
        const size_t places[] = {e.at, e.at + e.bytes / 2, e.at + e.bytes - 1};
        for (size_t k = 0; k < 3; k++)
            flip(path, dev, places[k], bytes[places[k]]);
    }
    for (size_t cut = 1; cut < size; cut += cut < 70 ? 1 : size / 7) {
        assert_int_equal(truncate(path, (off_t)(size - cut)), 0);
        assert_int_equal(open_code(path, dev), ERR_FORMAT);
        write_all(path, bytes, size);
    }
    write_all(path, bytes, size);
    assert_int_equal(open_code(path, dev), 0);
    device_close(dev);

    bytes[CACHE_ALIGN + 100] ^= 1;
    write_all(path, bytes, size);
    expect(&p, p.caches, "cpu", 1, "is damaged");
    expect(&p, p.caches, "cpu", 0, NULL);
    write_all(path, "", 0);
    expect(&p, p.caches, "cpu", 1, "is empty");
    expect(&p, p.caches, "cpu", 0, NULL);
    mem_free(bytes);
    temp_remove(p.dir);
}

/* --- lies ---------------------------------------------------------------- */

/* A cache whose checksums are right and whose contents are not. */
struct lie {
    uint8_t *bytes;
    size_t size;
    struct cache_head *head;
    struct cache_entry *entries;
};

static void lie_seal(struct lie *l)
{
    struct cache_head *h = l->head;
    h->index_check = checksum64(l->bytes + h->index_at, h->index_bytes);
    h->head_check = checksum64(h, offsetof(struct cache_head, head_check));
}

static int lie_told(struct lie *l)
{
    struct cache_index index;
    struct why why = {0};
    lie_seal(l);
    int rc = cache_parse(&index, "lie", l->bytes, l->size, NULL, &why);
    assert_true(!rc || strstr(why.text, "lie"));
    return rc;
}

static void lies_are_refused(void **state)
{
    (void)state;
    struct place p;
    char path[4096];
    struct lie l;
    place_open(&p, "llama-plain", DTYPE_Q8_0);
    expect(&p, p.caches, "cpu", 1, NULL);
    place_cache(&p, path);
    l.bytes = read_all(path, &l.size);
    l.head = (struct cache_head *)(void *)l.bytes;
    l.entries =
        (struct cache_entry *)(void *)(l.bytes + l.head->index_at +
                                       (l.head->text_bytes + 7) / 8 * 8);
    assert_int_equal(lie_told(&l), 0);
    struct cache_entry *e = &l.entries[l.head->entries - 1], was = *e;
    uint64_t *numbers[] = {&e->at, &e->bytes};
    const uint64_t wrong[] = {0,
                              1,
                              l.head->index_at,
                              l.size,
                              UINT64_MAX,
                              UINT64_MAX - 4095,
                              (uint64_t)1 << 63};
    for (size_t i = 0; i < 2; i++)
        for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
            *numbers[i] = wrong[k];
            if (i == 1 && wrong[k] == 1) continue; /* fits */
            assert_int_equal(lie_told(&l), ERR_FORMAT);
            *e = was;
        }
    e->type = DTYPE_COUNT;
    assert_int_equal(lie_told(&l), ERR_FORMAT);
    *e = was;
    memset(e->name, 'x', sizeof e->name);
    assert_int_equal(lie_told(&l), ERR_FORMAT);
    *e = was;
    struct cache_head head = *l.head;
    uint64_t *sizes[] = {&l.head->index_at, &l.head->index_bytes,
                         &l.head->text_bytes, &l.head->entries,
                         &l.head->file_bytes};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
            if (*sizes[i] == wrong[k]) continue;
            *sizes[i] = wrong[k];
            l.head->head_check =
                checksum64(l.head, offsetof(struct cache_head, head_check));
            struct cache_index index;
            assert_int_equal(
                cache_parse(&index, "lie", l.bytes, l.size, NULL, NULL),
                ERR_FORMAT);
            *l.head = head;
        }

    /* Another weight under this name: of the size asked for, or not there. */
    e->rows++;
    lie_seal(&l);
    write_all(path, l.bytes, l.size);
    expect(&p, p.caches, "cpu", 0, "lacks some matrices");
    mem_free(l.bytes);
    temp_remove(p.dir);
}

/* --- times change -------------------------------------------------------- */

static void other_sources_are_seen(void **state)
{
    (void)state;
    struct place p;
    char path[4096];
    const struct timespec then[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    place_open(&p, "llama-plain", DTYPE_F32);
    expect(&p, p.caches, "cpu", 1, NULL);
    assert_int_equal(utimensat(AT_FDCWD, p.path, then, 0), 0);
    expect(&p, p.caches, "cpu", 1, "made of other files");
    expect(&p, p.caches, "cpu", 0, NULL);

    /* Other weights in a file of the same size and time. */
    struct random_model *m = random_model_named("llama-plain");
    size_t size;
    uint8_t *bytes = read_all(p.path, &size);
    bytes[size - 1] ^= 1; /* of the last tensor */
    write_all(p.path, bytes, size);
    assert_int_equal(utimensat(AT_FDCWD, p.path, then, 0), 0);
    expect(&p, p.caches, "cpu", 1, "made of other files");
    mem_free(bytes);
    random_model_free(m);

    place_cache(&p, path);
    assert_int_equal(chmod(path, 0666), 0);
    expect(&p, p.caches, "cpu", 1, "others may write it");
    expect(&p, p.caches, "cpu", 0, NULL);
    temp_remove(p.dir);
}

static void what_cannot_be_written_is_done_without(void **state)
{
    (void)state;
    struct place p;
    struct rlimit was, small;
    place_open(&p, "llama-plain", DTYPE_F32);
    expect(&p, "/proc/nowhere", "cpu", 1, "/proc/nowhere");
    expect(&p, p.path, "cpu", 0, "Not a directory");
    expect(&p, p.caches, "ref", 0, "keeps its own form");

    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    small = was;
    small.rlim_cur = 20000; /* as a full disk */
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    expect(&p, p.caches, "cpu", 1, "no weight cache");
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    assert_int_equal(rmdir(p.caches), 0); /* nothing stayed */
    temp_remove(p.dir);
}

static void dead_writers_leave_nothing(void **state)
{
    (void)state;
    struct place p;
    char path[4096], dead[4200], alive[4200];
    place_open(&p, "llama-plain", DTYPE_F32);
    expect(&p, p.caches, "cpu", 1, NULL);
    place_cache(&p, path);
    snprintf(dead, sizeof dead, "%s.abcdef", path);
    snprintf(alive, sizeof alive, "%s.ghijkl", path);
    write_all(dead, "x", 1);
    write_all(alive, "x", 1);
    int fd = open(alive, O_RDONLY);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(unlink(path), 0);
    expect(&p, p.caches, "cpu", 2, NULL); /* begins, and sees the other */
    assert_int_equal(access(dead, F_OK), -1);
    assert_int_equal(access(alive, F_OK), 0);
    assert_int_equal(access(path, F_OK), -1);
    close(fd);
    expect(&p, p.caches, "cpu", 1, NULL);
    assert_int_equal(access(alive, F_OK), -1);
    expect(&p, p.caches, "cpu", 0, NULL);
    temp_remove(p.dir);
}

/* Returns its argument where all went well. */
static void *start_once(void *arg)
{
    const struct place *p = arg;
    struct notes notes = {0};
    struct device *dev;
    struct model *m;
    const struct device_options options = {.kind = "cpu", .threads = 1};
    const struct model_options o = {.path = p->path,
                                    .max_tokens = 4,
                                    .max_logits = 4,
                                    .weight_cache = p->caches,
                                    .note = take_note,
                                    .arg = &notes};
    if (device_open(&dev, &options, NULL) || model_open(&m, dev, &o, NULL))
        return NULL;
    model_save_cache(m);
    if (p->leave) {
        model_close(m);
    } else {
        model_wait_cache(m);
        model_close(m);
    }
    device_close(dev);
    return notes.coped ? NULL : arg;
}

static void writers_do_not_disturb_each_other(void **state)
{
    (void)state;
    enum { WRITERS = 4 };
    struct place p;
    char path[4096];
    pthread_t threads[WRITERS];
    void *said;
    place_open(&p, "llama-256", DTYPE_Q8_0);
    for (int i = 0; i < WRITERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, start_once, &p), 0);
    for (int i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], &said);
        assert_ptr_equal(said, &p);
    }
    place_cache(&p, path);
    expect(&p, p.caches, "cpu", 0, NULL);
    temp_remove(p.dir);
}

/* A server that ends leaves a whole file or none. */
static void a_writer_that_is_broken_off_leaves_nothing(void **state)
{
    (void)state;
    struct place p;
    place_open(&p, "llama-256", DTYPE_Q8_0);
    p.leave = true;
    for (int i = 0; i < 8; i++) {
        int files = 0;
        assert_ptr_equal(start_once(&p), &p);
        DIR *dir = opendir(p.caches);
        for (struct dirent *e; dir && (e = readdir(dir));) {
            if (e->d_name[0] == '.') continue;
            assert_string_equal(e->d_name + strlen(e->d_name) - 8, ".weights");
            files++;
        }
        if (dir) closedir(dir);
        assert_in_range(files, 0, 1);
    }
    p.leave = false;
    assert_ptr_equal(start_once(&p), &p);
    expect(&p, p.caches, "cpu", 0, NULL);
    temp_remove(p.dir);
}

struct looking {
    const char *path;
    atomic_bool stop;
};

static void *look_for_dead(void *arg)
{
    struct looking *l = arg;
    static const atomic_bool never;
    while (!l->stop) {
        struct cache_writer *w;
        if (cache_writer_open(&w, l->path, "other", &never, NULL) == 0)
            cache_writer_drop(w);
    }
    return NULL;
}

/* Who begins is not yet locked, and looks dead, for a moment. */
static void a_beginning_writer_keeps_its_file(void **state)
{
    (void)state;
    enum { ROUNDS = 200 };
    static const atomic_bool never;
    static const char bytes[64];
    const struct cache_entry e = {.name = "a", .bytes = sizeof bytes};
    char *dir = temp_dir(), path[4096];
    snprintf(path, sizeof path, "%s/a.weights", dir);
    struct looking l = {.path = path};
    pthread_t thread;
    int written = 0;
    assert_int_equal(pthread_create(&thread, NULL, look_for_dead, &l), 0);
    while (written < ROUNDS) {
        struct why why = {0};
        struct cache_writer *w;
        int rc = cache_writer_open(&w, path, "own", &never, &why);
        if (!rc) rc = cache_writer_add(w, &e, bytes, &why);
        if (!rc) rc = cache_writer_finish(w, &why);
        if (rc && rc != ERR_EXISTS) fail_msg("%s", why.text);
        written += !rc;
    }
    l.stop = true;
    pthread_join(thread, NULL);
    temp_remove(dir);
}

TESTS(T(a_beginning_writer_keeps_its_file), T(a_cache_is_the_same_model),
      T(what_is_asked_for_has_its_own_file), T(every_damage_is_seen),
      T(lies_are_refused), T(other_sources_are_seen),
      T(what_cannot_be_written_is_done_without), T(dead_writers_leave_nothing),
      T(writers_do_not_disturb_each_other),
      T(a_writer_that_is_broken_off_leaves_nothing))
