/* Two passes over the tensors of the input: the first plans what the output
 * will hold and in which file, since a safetensors file begins with its
 * header; the second writes. One matrix at a time is in memory. */
#include "model/quantize.h"
#include "model/file.h"
#include "model/files.h"
#include "model/spread.h"
#include "base/mem.h"
#include "json/json.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHARD_BYTES ((size_t)4 << 30)

enum { PARTS = 4 };

/* What one tensor of the input becomes. */
struct piece {
    const struct stored_tensor *from;
    uint32_t shard;
    bool rounded;
    struct {
        const char *suffix; /* instead of "weight"; NULL: the name as it is */
        const char *dtype;
        uint64_t shape[STORED_MAX_DIMS];
        uint32_t dims;
        size_t bytes;
    } parts[PARTS];
    uint32_t part_count;
};

struct job {
    const struct quantize_options *o;
    struct model_files files;
    struct model_config config;
    struct piece *pieces;
    size_t piece_count;
    uint32_t shard_count;
    enum dtype type; /* what matrices are rounded to */
    size_t done, total;
    struct why *why;
};

/* --- the plan ---------------------------------------------------------- */

static bool is_projection(const struct stored_tensor *t)
{
    static const char tail[] = "_proj.weight";
    size_t n = strlen(t->name), k = sizeof tail - 1;
    return n > k && !strcmp(t->name + n - k, tail) && t->dims == 2 &&
           t->type >= 0 && t->type <= DTYPE_BF16;
}

/* The largest groups that divide the columns of every projection. */
static enum dtype choose_type(const struct job *job)
{
    static const enum dtype int4[] = {DTYPE_INT4_G128, DTYPE_INT4_G64,
                                      DTYPE_INT4_G32};
    if (job->o->kind == QUANTIZE_W8A8_INT8) return DTYPE_INT8;
    if (job->o->kind == QUANTIZE_INT8) return DTYPE_INT8_G128;
    for (size_t k = 0; k < 3; k++) {
        bool all = true;
        for (size_t i = 0; i < model_files_count(&job->files); i++) {
            const struct stored_tensor *t = model_files_at(&job->files, i);
            if (is_projection(t) && !dtype_row_bytes(int4[k], t->shape[1]))
                all = false;
        }
        if (all) return int4[k];
    }
    return DTYPE_INT4_G32;
}

static void add_part(struct piece *p, const char *suffix, const char *dtype,
                     uint64_t rows, uint64_t cols, size_t element)
{
    uint32_t i = p->part_count++;
    p->parts[i].suffix = suffix;
    p->parts[i].dtype = dtype;
    p->parts[i].dims = cols ? 2 : 1;
    p->parts[i].shape[0] = rows;
    p->parts[i].shape[1] = cols;
    p->parts[i].bytes = rows * (cols ? cols : 1) * element;
}

static void plan_piece(const struct job *job, struct piece *p,
                       const struct stored_tensor *t)
{
    const uint64_t rows = t->shape[0], cols = t->shape[1];
    const size_t group = dtype_block_elems(job->type);
    p->from = t;
    p->rounded =
        is_projection(t) && dtype_row_bytes(job->type, cols) && rows % 8 == 0;
    if (!p->rounded) {
        p->part_count = 1;
        p->parts[0].dtype = t->type_name;
        p->parts[0].dims = t->dims;
        memcpy(p->parts[0].shape, t->shape, sizeof t->shape);
        p->parts[0].bytes = t->size;
    } else if (job->type == DTYPE_INT8) {
        add_part(p, "weight", "I8", rows, cols, 1);
        add_part(p, "weight_scale", "F32", rows, 1, 4);
    } else {
        bool bytes = job->type == DTYPE_INT8_G128;
        add_part(p, "weight_packed", "I32", rows, cols / (bytes ? 4 : 8), 4);
        add_part(p, "weight_scale", "F16", rows, cols / group, 2);
        add_part(p, "weight_shape", "I64", 2, 0, 8);
        if (!bytes)
            add_part(p, "weight_zero_point", "I32", rows / 8, cols / group, 4);
    }
}

static void plan(struct job *job)
{
    size_t in_shard = 0;
    job->type = choose_type(job);
    job->piece_count = model_files_count(&job->files);
    job->pieces = mem_must(job->piece_count, sizeof *job->pieces);
    job->shard_count = 1;
    for (size_t i = 0; i < job->piece_count; i++) {
        struct piece *p = &job->pieces[i];
        size_t bytes = 0;
        plan_piece(job, p, model_files_at(&job->files, i));
        for (uint32_t k = 0; k < p->part_count; k++)
            bytes += p->parts[k].bytes;
        if (in_shard && in_shard + bytes > SHARD_BYTES) {
            job->shard_count++;
            in_shard = 0;
        }
        in_shard += bytes;
        p->shard = job->shard_count - 1;
    }
}

static void part_name(char out[1100], const struct piece *p, uint32_t part)
{
    const char *suffix = p->parts[part].suffix;
    size_t n = strlen(p->from->name);
    if (suffix)
        snprintf(out, 1100, "%.*s%s", (int)(n - strlen("weight")),
                 p->from->name, suffix);
    else
        snprintf(out, 1100, "%s", p->from->name);
}

static void shard_name(const struct job *job, uint32_t shard, char out[64])
{
    if (job->shard_count == 1)
        snprintf(out, 64, "model.safetensors");
    else
        snprintf(out, 64, "model-%05u-of-%05u.safetensors", shard + 1,
                 job->shard_count);
}

/* --- one matrix -------------------------------------------------------- */

/* One encoded row into the parts of its piece, [rows, ...] each. */
static void split_row(const struct job *job, const struct piece *p, size_t row,
                      const uint8_t *in, uint8_t *const parts[PARTS])
{
    const size_t cols = p->from->shape[1];
    const size_t n = dtype_block_elems(job->type), groups = cols / n;
    if (job->type == DTYPE_INT8) {
        memcpy(parts[1] + 4 * row, in, 4);
        memcpy(parts[0] + cols * row, in + 4, cols);
        return;
    }
    for (size_t g = 0; g < groups; g++) {
        const uint8_t *block = in + g * dtype_block_bytes(job->type);
        memcpy(parts[1] + 2 * (row * groups + g), block, 2);
        if (job->type == DTYPE_INT8_G128) {
            for (size_t i = 0; i < n; i++)
                parts[0][row * cols + g * n + i] = block[2 + i] ^ 0x80;
            continue;
        }
        uint8_t *zero = parts[3] + 4 * (row / 8 * groups + g) + row % 8 / 2;
        *zero = (uint8_t)(*zero | block[2] << (row % 2 * 4));
        for (size_t i = 0; i < n; i++) {
            uint8_t byte = block[3 + i / 32 * 16 + i % 16];
            uint8_t *to = parts[0] + (row * cols + g * n + i) / 2;
            byte = i % 32 < 16 ? byte & 15 : byte >> 4;
            *to = (uint8_t)(i % 2 ? *to | byte << 4 : byte);
        }
    }
}

struct rounding {
    const struct job *job;
    const struct piece *p;
    uint8_t **parts;
};

static void round_rows(void *arg, size_t first, size_t end)
{
    const struct rounding *r = arg;
    const enum dtype type = r->job->type;
    const struct stored_tensor *t = r->p->from;
    const size_t cols = t->shape[1];
    const size_t stored = dtype_row_bytes((enum dtype)t->type, cols);
    float *values = mem_must(cols, sizeof *values);
    uint8_t *row = mem_must(dtype_row_bytes(type, cols), 1);
    for (size_t i = first; i < end; i++) {
        dtype_decode((enum dtype)t->type, t->bytes + i * stored, values, cols);
        dtype_encode(type, values, row, cols);
        split_row(r->job, r->p, i, row, r->parts);
    }
    mem_free(row);
    mem_free(values);
}

static void round_matrix(const struct job *job, const struct piece *p,
                         uint8_t *parts[PARTS])
{
    const uint64_t *shape = p->from->shape;
    struct rounding r = {job, p, parts};
    spread_rows(shape[0], round_rows, &r);
    if (job->type != DTYPE_INT8) {
        const int64_t both[2] = {(int64_t)shape[0], (int64_t)shape[1]};
        memcpy(parts[2], both, sizeof both);
    }
}

static int write_piece(struct job *job, const struct piece *p, FILE *f)
{
    uint8_t *parts[PARTS] = {NULL};
    int rc = 0;
    if (!p->rounded) {
        rc = fwrite(p->from->bytes, 1, p->from->size, f) != p->from->size;
        goto out;
    }
    for (uint32_t k = 0; k < p->part_count; k++)
        if (!(parts[k] = mem_try(p->parts[k].bytes, 1, 0))) {
            rc = err_set(job->why, ERR_NOMEM, "%s: %zu bytes", p->from->name,
                         p->parts[k].bytes);
            goto out;
        }
    round_matrix(job, p, parts);
    for (uint32_t k = 0; k < p->part_count && !rc; k++)
        rc = fwrite(parts[k], 1, p->parts[k].bytes, f) != p->parts[k].bytes;
out:
    for (uint32_t k = 0; k < PARTS; k++)
        mem_free(parts[k]);
    model_file_drop(p->from->bytes, p->from->size);
    job->done += p->from->size;
    if (job->o->progress) job->o->progress(job->o->arg, job->done, job->total);
    return rc > 0 ? err_sys(job->why, ERR_IO, errno, "%s", job->o->out) : rc;
}

/* --- files ------------------------------------------------------------- */

static json_t *shard_header(const struct job *job, uint32_t shard)
{
    json_t *header = json_pack("{s{ss}}", "__metadata__", "format", "pt");
    uint64_t at = 0;
    for (size_t i = 0; i < job->piece_count; i++) {
        const struct piece *p = &job->pieces[i];
        for (uint32_t k = 0; k < p->part_count && p->shard == shard; k++) {
            char name[1100];
            json_t *shape = json_array();
            part_name(name, p, k);
            for (uint32_t d = 0; d < p->parts[k].dims; d++)
                json_array_append_new(
                    shape, json_integer((json_int_t)p->parts[k].shape[d]));
            json_object_set_new(
                header, name,
                json_pack("{ss so s[II]}", "dtype", p->parts[k].dtype, "shape",
                          shape, "data_offsets", (json_int_t)at,
                          (json_int_t)(at + p->parts[k].bytes)));
            at += p->parts[k].bytes;
        }
    }
    return header;
}

static int out_path(const struct job *job, const char *name, char path[4096])
{
    int n = snprintf(path, 4096, "%s/%s", job->o->out, name);
    return n < 4096 ? 0
                    : err_set(job->why, ERR_INVALID, "%s: too long a name",
                              job->o->out);
}

static int write_shard(struct job *job, uint32_t shard)
{
    char name[64], path[4096];
    shard_name(job, shard, name);
    int rc = out_path(job, name, path);
    if (rc) return rc;
    FILE *f = fopen(path, "wb");
    if (!f) return err_sys(job->why, ERR_IO, errno, "%s", path);
    json_t *header = shard_header(job, shard);
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    uint64_t n = (strlen(text) + 7) / 8 * 8;
    bool ok = fwrite(&n, 1, sizeof n, f) == sizeof n &&
              fprintf(f, "%-*s", (int)n, text) == (int)n;
    free(text);
    if (!ok) rc = err_sys(job->why, ERR_IO, errno, "%s", path);
    for (size_t i = 0; i < job->piece_count && !rc; i++)
        if (job->pieces[i].shard == shard)
            rc = write_piece(job, &job->pieces[i], f);
    if (fclose(f) && !rc) rc = err_sys(job->why, ERR_IO, errno, "%s", path);
    return rc;
}

static int write_json(struct job *job, const char *name, const json_t *value)
{
    char path[4096];
    int rc = out_path(job, name, path);
    if (rc) return rc;
    if (json_dump_file(value, path, JSON_INDENT(2)))
        return err_sys(job->why, ERR_IO, errno, "%s", path);
    return 0;
}

static int write_index(struct job *job)
{
    json_t *map = json_object();
    json_int_t total = 0;
    for (size_t i = 0; i < job->piece_count; i++)
        for (uint32_t k = 0; k < job->pieces[i].part_count; k++) {
            char name[1100], shard[64];
            part_name(name, &job->pieces[i], k);
            shard_name(job, job->pieces[i].shard, shard);
            json_object_set_new(map, name, json_string(shard));
            total += (json_int_t)job->pieces[i].parts[k].bytes;
        }
    json_t *index = json_pack("{s{sI} so}", "metadata", "total_size", total,
                              "weight_map", map);
    int rc = write_json(job, "model.safetensors.index.json", index);
    json_decref(index);
    return rc;
}

/* The words of compressed-tensors for what was done. */
static json_t *describe(const struct job *job)
{
    bool rows = job->type == DTYPE_INT8;
    int bits = rows || job->type == DTYPE_INT8_G128 ? 8 : 4;
    json_t *weights = json_pack("{si ss sb ss sb}", "num_bits", bits, "type",
                                "int", "symmetric", bits == 8, "strategy",
                                rows ? "channel" : "group", "dynamic", 0);
    if (!rows)
        json_object_set_new(
            weights, "group_size",
            json_integer((json_int_t)dtype_block_elems(job->type)));
    json_t *activations =
        rows ? json_pack("{si ss sb ss sb}", "num_bits", 8, "type", "int",
                         "symmetric", 1, "strategy", "token", "dynamic", 1)
             : json_null();
    json_t *ignore = json_array();
    for (size_t i = 0; i < job->piece_count; i++) {
        const struct stored_tensor *t = job->pieces[i].from;
        size_t n = strlen(t->name);
        if (job->pieces[i].rounded || t->dims != 2 || n < 7 ||
            strcmp(t->name + n - 7, ".weight") != 0 ||
            strstr(t->name, "embed_tokens"))
            continue;
        json_array_append_new(ignore, json_stringn(t->name, n - 7));
    }
    if (job->config.tied) json_array_append_new(ignore, json_string("lm_head"));
    return json_pack("{ss ss ss s{s{s[s] so so}} so}", "quant_method",
                     "compressed-tensors", "format",
                     rows ? "int-quantized" : "pack-quantized",
                     "quantization_status", "compressed", "config_groups",
                     "group_0", "targets", "Linear", "weights", weights,
                     "input_activations", activations, "ignore", ignore);
}

static int write_config(struct job *job)
{
    char path[4096];
    json_t *config;
    snprintf(path, sizeof path, "%s/config.json", job->o->in);
    int rc = json_read(&config, path, (size_t)16 << 20, job->why);
    if (rc) return rc;
    json_object_set_new(config, "quantization_config", describe(job));
    rc = write_json(job, "config.json", config);
    json_decref(config);
    return rc;
}

static bool ends_in(const char *name, const char *tail)
{
    size_t n = strlen(name), k = strlen(tail);
    return n >= k && !strcmp(name + n - k, tail);
}

static int copy_file(struct job *job, const char *name)
{
    char from[4096], to[4096], block[65536];
    int rc = out_path(job, name, to);
    if (rc) return rc;
    snprintf(from, sizeof from, "%s/%s", job->o->in, name);
    FILE *in = fopen(from, "rb"), *out = in ? fopen(to, "wb") : NULL;
    size_t n;
    bool ok = in && out;
    while (ok && (n = fread(block, 1, sizeof block, in)) > 0)
        ok = fwrite(block, 1, n, out) == n;
    if (in && ferror(in)) ok = false;
    if (in) fclose(in);
    if (out && fclose(out)) ok = false;
    return ok ? 0 : err_sys(job->why, ERR_IO, errno, "%s", to);
}

/* Tokenizer, templates, licence: all but weights and the config. */
static int copy_others(struct job *job)
{
    static const char *const weights[] = {
        ".safetensors", ".safetensors.index.json",
        ".bin",         ".bin.index.json",
        ".pt",          ".pth",
        ".gguf",        ".onnx"};
    DIR *dir = opendir(job->o->in);
    int rc = 0;
    if (!dir) return err_sys(job->why, ERR_IO, errno, "%s", job->o->in);
    for (struct dirent *e; !rc && (e = readdir(dir));) {
        char path[4096];
        struct stat st;
        bool skip = !strcmp(e->d_name, "config.json");
        for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
            skip = skip || ends_in(e->d_name, weights[i]);
        snprintf(path, sizeof path, "%s/%s", job->o->in, e->d_name);
        if (skip || stat(path, &st) || !S_ISREG(st.st_mode)) continue;
        rc = copy_file(job, e->d_name);
    }
    closedir(dir);
    return rc;
}

static int make_folder(struct job *job)
{
    char path[4096];
    if (mkdir(job->o->out, 0777) && errno != EEXIST)
        return err_sys(job->why, ERR_IO, errno, "%s", job->o->out);
    int rc = out_path(job, "config.json", path);
    if (!rc && access(path, F_OK) == 0)
        rc = err_set(job->why, ERR_EXISTS, "%s: is there already", path);
    return rc;
}

static int check_plan(const struct job *job)
{
    for (size_t i = 0; i < job->piece_count; i++)
        if (job->pieces[i].rounded) return 0;
    return err_set(job->why, ERR_UNSUPPORTED,
                   "%s: no projection has columns in whole groups of %zu",
                   job->o->in, dtype_block_elems(job->type));
}

static int check_input(const struct job *job)
{
    struct model_survey survey;
    const struct model_options options = {.path = job->o->in};
    if (!job->files.shards)
        return err_set(job->why, ERR_INVALID,
                       "%s: is a GGUF file; give a Hugging Face folder",
                       job->o->in);
    if (job->config.quant.method != QUANT_NONE)
        return err_set(job->why, ERR_INVALID,
                       "%s: is quantized already; give the float weights",
                       job->o->in);
    if (job->o->kind == QUANTIZE_NONE)
        return err_set(job->why, ERR_INVALID, "no quantization was named");
    return model_survey(&survey, &options, job->why);
}

int model_quantize(const struct quantize_options *options, struct why *why)
{
    struct job job = {.o = options, .why = why};
    int rc = model_files_open(&job.files, &job.config, options->in, why);
    if (!rc) job.total = model_files_bytes(&job.files);
    if (rc) return rc;
    rc = check_input(&job);
    if (!rc) {
        plan(&job);
        rc = check_plan(&job);
    }
    if (!rc) rc = make_folder(&job);
    for (uint32_t i = 0; i < job.shard_count && !rc; i++)
        rc = write_shard(&job, i);
    if (!rc && job.shard_count > 1) rc = write_index(&job);
    if (!rc) rc = copy_others(&job);
    if (!rc) rc = write_config(&job);
    mem_free(job.pieces);
    model_files_close(&job.files);
    return rc;
}
