/* Opening models, good and bad, and what forward refuses. */
#include "tests/model/rig.h"
#include "tests/model/random_model.h"
#include "tests/temp.h"
#include "model/file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

static void join(char out[4096], const char *dir, const char *name)
{
    snprintf(out, 4096, "%s/%s", dir, name);
}

static json_t *read_json(const char *dir, const char *name)
{
    char path[4096];
    json_t *value;
    join(path, dir, name);
    assert_int_equal(json_read(&value, path, 1 << 20, NULL), 0);
    return value;
}

/* Replaces a member of a JSON file; value's reference is taken. */
static void change(const char *dir, const char *name, const char *key,
                   json_t *value)
{
    json_t *object = read_json(dir, name);
    json_object_set_new(object, key, value);
    char *text = json_dumps(object, 0);
    temp_write(dir, name, text, strlen(text));
    free(text);
    json_decref(object);
}

static char *folder(const char *name, unsigned shards)
{
    struct random_model *m = random_model_named(name);
    char *dir = temp_dir();
    random_model_write_folder(m, dir, shards);
    random_model_free(m);
    return dir;
}

static struct device *ref_device(void)
{
    struct device *dev;
    const struct device_options options = {.kind = "ref"};
    assert_int_equal(device_open(&dev, &options, NULL), 0);
    return dev;
}

/* Opening path fails with code and a text that has both words; nothing stays
 * behind. */
static void refuse(const char *path, int code, const char *word,
                   const char *other)
{
    struct device *dev = ref_device();
    const struct model_options options = {
        .path = path, .max_tokens = 4, .max_logits = 4};
    struct model *m;
    struct why why = {0};
    size_t live = mem_live();
    int rc = model_open(&m, dev, &options, &why);
    assert_null(m);
    assert_int_equal(mem_live(), live);
    if (rc != code || !strstr(why.text, word) || !strstr(why.text, other))
        fail_msg("%s \"%s\" lacks \"%s\" or \"%s\"", err_name(rc), why.text,
                 word, other);
    device_close(dev);
}

static void bad_paths_are_refused(void **state)
{
    (void)state;
    char *dir = temp_dir(), path[4096];
    refuse("/nowhere/at/all", ERR_NOT_FOUND, "/nowhere/at/all", "");
    refuse(dir, ERR_NOT_FOUND, dir, "config.json");
    temp_write(dir, "model.safetensors", "xxxxxxxx", 8);
    join(path, dir, "model.safetensors");
    refuse(path, ERR_FORMAT, path, "no GGUF file");
    temp_write(dir, "config.json", "{", 1);
    refuse(dir, ERR_FORMAT, "config.json", "line");
    temp_remove(dir);
}

static void bad_folders_are_refused(void **state)
{
    (void)state;
    char path[4096];
    char *dir = folder("llama-bias", 2);
    change(dir, "config.json", "num_hidden_layers", json_integer(3));
    refuse(dir, ERR_FORMAT, "model.layers.2.self_attn.q_proj.weight",
           "missing");
    change(dir, "config.json", "num_hidden_layers", json_integer(2));
    change(dir, "config.json", "intermediate_size", json_integer(64));
    refuse(dir, ERR_FORMAT, "model.layers.0.mlp.gate_proj.weight",
           "[128, 64], the config asks for [64, 64]");
    change(dir, "config.json", "intermediate_size", json_integer(128));
    change(dir, "config.json", "num_key_value_heads", json_integer(2));
    refuse(dir, ERR_FORMAT, "self_attn.k_proj.weight", "[32, 64]");
    change(dir, "config.json", "num_key_value_heads", json_integer(1));
    change(dir, "config.json", "attention_bias", json_false());
    change(dir, "config.json", "model_type", json_string("qwen3"));
    change(dir, "config.json", "architectures",
           json_pack("[s]", "Qwen3ForCausalLM"));
    refuse(dir, ERR_FORMAT, "q_norm.weight", "missing");
    temp_remove(dir);

    dir = folder("llama-plain", 3);
    join(path, dir, "model-00002-of-00003.safetensors");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size - 1), 0);
    refuse(dir, ERR_FORMAT, path, "cut short");
    assert_int_equal(unlink(path), 0);
    refuse(dir, ERR_NOT_FOUND, path, "");
    temp_remove(dir);

    dir = folder("llama-plain", 1);
    change(dir, "config.json", "tie_word_embeddings", json_false());
    refuse(dir, ERR_FORMAT, "lm_head.weight", "missing");
    temp_remove(dir);
}

/* A type that no operation takes is named with its tensor. */
static void foreign_types_are_refused(void **state)
{
    (void)state;
    static const char header[] =
        "{\"model.embed_tokens.weight\":{\"dtype\":\"U8\","
        "\"shape\":[272,64],\"data_offsets\":[0,17408]}}  ";
    char *dir = folder("llama-plain", 1);
    char *file = mem_must(sizeof header - 1 + 8 + 17408, 1);
    uint64_t n = sizeof header - 1;
    memcpy(file, &n, 8);
    memcpy(file + 8, header, n);
    temp_write(dir, "model.safetensors", file, 8 + n + 17408);
    mem_free(file);
    refuse(dir, ERR_UNSUPPORTED, "model.embed_tokens.weight", "U8");
    temp_remove(dir);
}

static void bad_gguf_is_refused(void **state)
{
    (void)state;
    struct random_model *m = random_model_named("llama-odd");
    char *dir = temp_dir(), path[4096];
    struct stat st;
    join(path, dir, "m.gguf");
    random_model_write_gguf(m, path, DTYPE_F32, false);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size / 2), 0);
    refuse(path, ERR_FORMAT, path, "cut short");
    assert_int_equal(truncate(path, 2000), 0);
    refuse(path, ERR_FORMAT, path, "ends at byte 2000");
    random_model_free(m);
    temp_remove(dir);
}

static void a_survey_counts_what_open_binds(void **state)
{
    (void)state;
    char *dir = folder("qwen3-bf16", 2);
    struct model_survey s;
    struct why why = {0};
    struct rig r;
    const struct model_options options = {.path = dir};
    assert_int_equal(model_survey(&s, &options, &why), 0);
    assert_string_equal(s.config.arch, "qwen3");
    assert_int_equal(s.config.dtype, DTYPE_BF16);
    assert_int_equal(s.config.eos_count, 2);
    rig_open(&r, dir, "ref", 16, DTYPE_F32);
    assert_int_equal(s.weight_bytes, model_weight_bytes(r.model));
    assert_int_equal(s.step_bytes, model_step_bytes(r.model));
    assert_int_equal(s.types[DTYPE_BF16].bytes, s.weight_bytes);
    assert_memory_equal(s.config.eos, model_config(r.model)->eos,
                        sizeof s.config.eos);
    rig_close(&r);
    temp_remove(dir);
}

static enum dtype weight_type(const char *path, enum model_quantize quantize)
{
    struct device *dev;
    const struct device_options options = {.kind = "cpu", .threads = 1};
    const struct model_options mo = {
        .path = path, .max_tokens = 1, .max_logits = 1, .quantize = quantize};
    struct model *m;
    assert_int_equal(device_open(&dev, &options, NULL), 0);
    assert_int_equal(model_open(&m, dev, &mo, NULL), 0);
    enum dtype type = model_weight_type(m);
    model_close(m);
    device_close(dev);
    return type;
}

static void a_model_says_what_its_weights_are(void **state)
{
    (void)state;
    char *dir = folder("llama-256", 1);
    assert_int_equal(weight_type(dir, QUANTIZE_NONE), DTYPE_F32);
    assert_int_equal(weight_type(dir, QUANTIZE_W8A8_INT8), DTYPE_INT8);
    assert_int_equal(weight_type(dir, QUANTIZE_INT4), DTYPE_INT4_G128);
    temp_remove(dir);
}

static uint64_t fingerprint(const char *path)
{
    struct rig r;
    rig_open(&r, path, "ref", 16, DTYPE_F32);
    uint64_t f = model_fingerprint(r.model);
    rig_close(&r);
    return f;
}

static void fingerprints_tell_models_apart(void **state)
{
    (void)state;
    char *dir = folder("llama-plain", 1), *again = folder("llama-plain", 3);
    char path[4096], *bytes;
    uint64_t one = fingerprint(dir);
    assert_int_equal(fingerprint(again), one); /* however it is cut in files */
    change(again, "config.json", "rope_theta", json_real(20000));
    assert_int_not_equal(fingerprint(again), one);
    temp_remove(again);

    /* one byte of one weight, as a fine-tune would change many */
    join(path, dir, "model.safetensors");
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    size_t n = (size_t)ftell(f);
    rewind(f);
    bytes = mem_must(n, 1);
    assert_int_equal(fread(bytes, 1, n, f), n);
    fclose(f);
    bytes[n - 1] ^= 1;
    temp_write(dir, "model.safetensors", bytes, n);
    mem_free(bytes);
    assert_int_not_equal(fingerprint(dir), one);
    temp_remove(dir);
}

struct seen {
    size_t calls, last, total;
};

static void see(void *arg, size_t done, size_t total)
{
    struct seen *s = arg;
    assert_true(done > s->last && done <= total);
    *s = (struct seen){s->calls + 1, done, total};
}

static void progress_reaches_the_end(void **state)
{
    (void)state;
    char *dir = folder("llama-plain", 1);
    struct device *dev = ref_device();
    struct seen seen = {0};
    struct model *m;
    const struct model_options options = {.path = dir,
                                          .max_tokens = 4,
                                          .max_logits = 4,
                                          .progress = see,
                                          .arg = &seen};
    assert_int_equal(model_open(&m, dev, &options, NULL), 0);
    assert_true(seen.calls > 10);
    assert_int_equal(seen.last, seen.total);
    assert_int_equal(seen.last, model_weight_bytes(m));
    model_close(m);
    device_close(dev);
    temp_remove(dir);
}

static void open_survives_every_failed_allocation(void **state)
{
    (void)state;
    char *dir = folder("llama-plain", 1);
    struct device *dev = ref_device();
    const struct model_options options = {
        .path = dir, .max_tokens = 4, .max_logits = 4};
    struct model *m = NULL;
    size_t live = mem_live();
    int tries = 0;
    while (!m && tries < 1000) {
        struct why why = {0};
        mem_fail_at((size_t)++tries);
        int rc = model_open(&m, dev, &options, &why);
        assert_int_equal(rc, m ? 0 : ERR_NOMEM);
        assert_true(m || mem_live() == live);
    }
    mem_fail_at(0);
    assert_in_range(tries, 30, 999);
    model_close(m);
    assert_int_equal(mem_live(), live);
    device_close(dev);
    temp_remove(dir);
}

/* --- forward ---------------------------------------------------------- */

static void refuse_batch(struct rig *r, const struct batch *b, const char *word)
{
    const float *logits = NULL;
    struct why why = {0};
    assert_int_equal(model_forward(r->model, b, r->pool, &logits, &why),
                     ERR_INVALID);
    assert_null(logits);
    if (!strstr(why.text, word)) fail_msg("\"%s\" lacks %s", why.text, word);
}

static void bad_batches_are_refused(void **state)
{
    (void)state;
    char *dir = folder("llama-plain", 1);
    struct rig r;
    rig_open(&r, dir, "ref", 16, DTYPE_F32);
    kv_page pages[2];
    assert_int_equal(kv_pool_take(r.pool, 1, pages), 0);
    int32_t ids[3] = {1, 2, 3};
    uint32_t positions[3] = {0, 1, 2}, row = 2;
    struct op_seq seq = {0, 3, 3, pages};
    struct batch b = {3, ids, positions, 1, &seq, 1, &row};
    const float *logits;
    assert_int_equal(model_forward(r.model, &b, r.pool, &logits, NULL), 0);

    ids[1] = 272;
    refuse_batch(&r, &b, "token id 272");
    ids[1] = -1;
    refuse_batch(&r, &b, "token id -1");
    ids[1] = 2;
    positions[2] = 512;
    refuse_batch(&r, &b, "position 512");
    positions[2] = 2;
    row = 3;
    refuse_batch(&r, &b, "logit row 3");
    row = 2;
    seq.rows = 2;
    refuse_batch(&r, &b, "1 of 3 rows");
    seq.rows = 4;
    refuse_batch(&r, &b, "sequence 0");
    seq.rows = 3;
    seq.kv_len = 2;
    refuse_batch(&r, &b, "sequence 0");
    seq.kv_len = 3;
    pages[0] = 0;
    refuse_batch(&r, &b, "page 0");
    pages[0] = RIG_PAGES;
    refuse_batch(&r, &b, "page 400");
    b.tokens = RIG_TOKENS + 1;
    refuse_batch(&r, &b, "161 tokens");

    /* a pool of another model */
    struct rig other;
    char *dir2 = folder("qwen3-odd", 1);
    rig_open(&other, dir2, "ref", 16, DTYPE_F32);
    b.tokens = 3;
    struct kv_pool *own = r.pool;
    r.pool = other.pool;
    refuse_batch(&r, &b, "kv heads");
    r.pool = own;
    rig_close(&other);
    rig_close(&r);
    temp_remove(dir);
    temp_remove(dir2);
}

static void forward_allocates_nothing(void **state)
{
    (void)state;
    char *dir = folder("qwen3-odd", 1);
    const int32_t ids[40] = {5, 9, 200, 3};
    struct rig r;
    struct rig_seq s, *list[] = {&s};
    rig_open(&r, dir, "cpu", 16, DTYPE_F16);
    rig_seq_open(&r, &s, ids, 40);
    uint32_t rows = 20;
    size_t live = mem_live();
    mem_fail_at(1); /* a mem_try would fail, a mem_must would stay */
    rig_step(&r, list, &rows, 1);
    for (rows = 1; s.done < 40;)
        rig_step(&r, list, &rows, 1);
    mem_fail_at(0);
    assert_int_equal(mem_live(), live);
    mem_free(s.logits);
    rig_close(&r);
    temp_remove(dir);
}

/* Only the asked rows, in the asked order. */
static void logit_rows_are_chosen(void **state)
{
    (void)state;
    char *dir = folder("llama-plain", 1);
    const int32_t ids[5] = {7, 8, 9, 10, 11};
    const uint32_t positions[5] = {0, 1, 2, 3, 4}, rows[3] = {4, 0, 4};
    const uint32_t five[] = {5};
    struct rig r;
    kv_page page;
    rig_open(&r, dir, "ref", 16, DTYPE_F32);
    float *all = rig_logits(&r, ids, 5, five, 1);
    assert_int_equal(kv_pool_take(r.pool, 1, &page), 0);
    const struct op_seq seq = {0, 5, 5, &page};
    const struct batch b = {5, ids, positions, 1, &seq, 3, rows};
    const float *logits;
    assert_int_equal(model_forward(r.model, &b, r.pool, &logits, NULL), 0);
    for (size_t i = 0; i < 3; i++)
        assert_memory_equal(logits + i * r.vocab, all + rows[i] * r.vocab,
                            r.vocab * sizeof *all);
    const struct batch none = {5, ids, positions, 1, &seq, 0, NULL};
    assert_int_equal(model_forward(r.model, &none, r.pool, &logits, NULL), 0);
    mem_free(all);
    rig_close(&r);
    temp_remove(dir);
}

static void take_note(void *arg, bool coped, const char *text)
{
    assert_false(coped);
    assert_non_null(strstr(text, "packed"));
    ++*(int *)arg;
}

/* Some of them at least, as GGUF files and folders have them; the rest, and
 * what is rounded, at once. */
static void packed_later_is_the_same_model(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool gguf;
        enum model_quantize quantize;
    } cases[] = {{"llama-256", true, QUANTIZE_NONE},
                 {"qwen3-256", true, QUANTIZE_NONE},
                 {"qwen3-256", false, QUANTIZE_INT8},
                 {"qwen3moe-mixed", false, QUANTIZE_NONE}};
    enum { TOKENS = 40 };
    static const uint32_t parts[] = {20, 1, 12, 7};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *dir = temp_dir(), path[4096];
        snprintf(path, sizeof path, "%s/model", dir);
        struct random_model *m = random_model_named(cases[i].name);
        if (cases[i].gguf)
            random_model_write_gguf(m, path, DTYPE_Q8_0, false);
        else
            random_model_write_folder(m, path, 2);
        random_model_free(m);
        int notes = 0;
        struct model_options o = {.path = path,
                                  .quantize = cases[i].quantize,
                                  .note = take_note,
                                  .arg = &notes};
        struct rig now, later;
        rig_open_with(&now, o, "cpu", 16, DTYPE_F32);
        assert_false(model_pack(now.model, false));
        o.pack_later = true;
        rig_open_with(&later, o, "cpu", 16, DTYPE_F32);
        int32_t ids[TOKENS];
        for (int k = 0; k < TOKENS; k++)
            ids[k] = (k * 31 + 7) % (int)now.vocab;
        float *want = rig_logits(&now, ids, TOKENS, parts, 4);
        for (int half = 0; half < 2; half++) {
            float *got = rig_logits(&later, ids, TOKENS, parts, 4);
            assert_memory_equal(got, want,
                                TOKENS * (size_t)now.vocab * sizeof *got);
            mem_free(got);
            assert_int_equal(notes, half);
            while (model_pack(later.model, half)) {
            }
            assert_int_equal(notes, 1);
        }
        assert_true(model_fingerprint(now.model) ==
                    model_fingerprint(later.model));
        mem_free(want);
        rig_close(&now);
        rig_close(&later);
        temp_remove(dir);
    }
}

/* Of a file that was written just now all is in the page cache; of one that is
 * on a disk little is, once the kernel was told to forget it. */
static void files_know_what_is_cached(void **state)
{
    (void)state;
    enum { BYTES = (5 << 20) + 100 };
    char *dir = temp_dir(), path[4096];
    snprintf(path, sizeof path, "%s/file", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, BYTES), 0);
    char *all = mem_must(BYTES, 1);
    assert_int_equal(pwrite(fd, all, BYTES, 0), BYTES);
    mem_free(all);
    struct model_file f;
    assert_int_equal(model_file_open(&f, path, NULL), 0);
    assert_int_equal(model_file_uncached(f.bytes, f.size), 0);
    assert_int_equal(model_file_uncached(f.bytes + 5000, 1 << 20), 0);
    struct statfs fs;
    assert_int_equal(fstatfs(fd, &fs), 0);
    if (fs.f_type != EXT4_SUPER_MAGIC) {
        print_message("not on ext4: it may not leave the page cache\n");
    } else {
        assert_int_equal(fsync(fd), 0);
        assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
        assert_in_range(model_file_uncached(f.bytes, f.size), 1 << 20, BYTES);
    }
    model_file_close(&f);
    close(fd);
    temp_remove(dir);
}

TESTS(T(files_know_what_is_cached), T(packed_later_is_the_same_model),
      T(bad_paths_are_refused), T(bad_folders_are_refused),
      T(foreign_types_are_refused), T(bad_gguf_is_refused),
      T(a_survey_counts_what_open_binds), T(a_model_says_what_its_weights_are),
      T(fingerprints_tell_models_apart), T(progress_reaches_the_end),
      T(open_survives_every_failed_allocation), T(bad_batches_are_refused),
      T(forward_allocates_nothing), T(logit_rows_are_chosen))
