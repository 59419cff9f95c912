#include "serve/assets.h"
#include "base/mem.h"
#include "model/file.h"
#include "model/gguf.h"
#include "text/chat.h"
#include "text/tokenizer.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES 4096

struct generation_defaults {
    json_t *params; /* under the names of sampling parameters */
};

struct assets {
    struct tokenizer *tokenizer;
    const char *source;
    struct chat *chat; /* NULL: none */
    struct generation_defaults defaults;
    bool has_defaults;
};

/* dir/name; NULL where no such file is. */
static const char *file_in(char out[PATH_BYTES], const char *dir,
                           const char *name)
{
    int n = snprintf(out, PATH_BYTES, "%s/%s", dir, name);
    return n > 0 && n < PATH_BYTES && access(out, R_OK) == 0 ? out : NULL;
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* --- tokenizer of a GGUF file --- */

struct gguf_vocab {
    struct gguf_string *tokens, *merges;
    int32_t *types;
    float *scores;
    struct tokenizer_text *token_texts, *merge_texts;
    char *charsmap;
};

static void vocab_free(struct gguf_vocab *v)
{
    mem_free(v->tokens);
    mem_free(v->merges);
    mem_free(v->types);
    mem_free(v->scores);
    mem_free(v->token_texts);
    mem_free(v->merge_texts);
    mem_free(v->charsmap);
}

static int texts_of(const struct gguf_string *strings, size_t count,
                    struct tokenizer_text **out, struct why *why)
{
    *out = mem_try(count + 1, sizeof **out, 0);
    if (!*out) return err_set(why, ERR_NOMEM, "vocabulary of %zu", count);
    for (size_t i = 0; i < count; i++)
        (*out)[i] = (struct tokenizer_text){strings[i].data, strings[i].len};
    return 0;
}

static int check_count(const char *key, size_t count, size_t tokens,
                       struct why *why)
{
    if (!count || count == tokens) return 0;
    return err_set(why, ERR_FORMAT,
                   "tokenizer.ggml.%s has %zu entries for %zu tokens", key,
                   count, tokens);
}

/* SentencePiece's table of replacements, a byte an entry. */
static int read_charsmap(const struct gguf *g, struct gguf_vocab *v,
                         struct tokenizer_spec *spec, struct why *why)
{
    static const char key[] = "tokenizer.ggml.precompiled_charsmap";
    int32_t *list;
    size_t count;
    int rc = gguf_get_int_array(g, key, &list, &count, why);
    if (rc || !count) return rc;
    v->charsmap = mem_try(count, 1, 0);
    if (!v->charsmap) rc = err_set(why, ERR_NOMEM, "%s", key);
    for (size_t i = 0; i < count && !rc; i++) {
        v->charsmap[i] = (char)list[i];
        if (list[i] < INT8_MIN || list[i] > UINT8_MAX)
            rc = err_set(why, ERR_FORMAT, "%s: entry %zu is no byte", key, i);
    }
    spec->charsmap = (struct tokenizer_text){v->charsmap, count};
    mem_free(list);
    return rc;
}

static int read_vocab(const struct gguf *g, struct gguf_vocab *v,
                      struct tokenizer_spec *spec, struct why *why)
{
    size_t type_count = 0, score_count = 0;
    int rc = gguf_get_string_array(g, "tokenizer.ggml.tokens", &v->tokens,
                                   &spec->token_count, why);
    if (!rc)
        rc = gguf_get_string_array(g, "tokenizer.ggml.merges", &v->merges,
                                   &spec->merge_count, why);
    if (!rc)
        rc = gguf_get_int_array(g, "tokenizer.ggml.token_type", &v->types,
                                &type_count, why);
    if (!rc)
        rc = gguf_get_f32_array(g, "tokenizer.ggml.scores", &v->scores,
                                &score_count, why);
    if (!rc) rc = check_count("token_type", type_count, spec->token_count, why);
    if (!rc) rc = check_count("scores", score_count, spec->token_count, why);
    if (!rc) rc = texts_of(v->tokens, spec->token_count, &v->token_texts, why);
    if (!rc) rc = texts_of(v->merges, spec->merge_count, &v->merge_texts, why);
    spec->tokens = v->token_texts;
    spec->merges = v->merge_texts;
    spec->types = type_count ? v->types : NULL;
    spec->scores = score_count ? v->scores : NULL;
    return rc ? rc : read_charsmap(g, v, spec, why);
}

static int get_id(const struct gguf *g, const char *key, int32_t *out,
                  struct why *why)
{
    uint64_t id = UINT32_MAX;
    int rc = gguf_get_uint(g, key, &id, why);
    *out = id <= INT32_MAX ? (int32_t)id : -1;
    return rc;
}

/* A switch of the tokenizer: 1, 0, or -1 where the file has none. */
static int get_switch(const struct gguf *g, const char *key, int *out,
                      struct why *why)
{
    bool on = false;
    int rc = gguf_get_bool(g, key, &on, why);
    *out = gguf_has(g, key) ? on : -1;
    return rc;
}

static int read_switches(const struct gguf *g, struct tokenizer_spec *spec,
                         struct why *why)
{
    int squeeze = -1;
    int rc = get_switch(g, "tokenizer.ggml.add_bos_token", &spec->add_bos, why);
    if (!rc)
        rc = get_switch(g, "tokenizer.ggml.add_eos_token", &spec->add_eos, why);
    if (!rc)
        rc = get_switch(g, "tokenizer.ggml.add_space_prefix",
                        &spec->add_space_prefix, why);
    if (!rc)
        rc = get_switch(g, "tokenizer.ggml.remove_extra_whitespaces", &squeeze,
                        why);
    spec->squeeze_spaces = squeeze == 1;
    return rc;
}

static int read_spec(const struct gguf *g, struct tokenizer_spec *spec,
                     struct why *why)
{
    int rc = gguf_get_string(g, "tokenizer.ggml.model", &spec->model, why);
    if (!rc) rc = gguf_get_string(g, "tokenizer.ggml.pre", &spec->pre, why);
    if (!rc) rc = get_id(g, "tokenizer.ggml.bos_token_id", &spec->bos, why);
    if (!rc) rc = get_id(g, "tokenizer.ggml.eos_token_id", &spec->eos, why);
    if (!rc) rc = get_id(g, "tokenizer.ggml.eot_token_id", &spec->eot, why);
    if (!rc) rc = get_id(g, "tokenizer.ggml.unknown_token_id", &spec->unk, why);
    if (!rc) rc = read_switches(g, spec, why);
    if (!rc)
        rc = gguf_get_string(g, "tokenizer.chat_template", &spec->chat_template,
                             why);
    return rc;
}

static int open_gguf(struct assets *assets, const char *path, struct why *why)
{
    struct gguf *g;
    int rc = gguf_open(&g, path, why);
    if (rc) return rc;
    assets->source = "GGUF";
    struct gguf_vocab vocab = {0};
    struct tokenizer_spec spec = {0};
    rc = read_vocab(g, &vocab, &spec, why);
    if (!rc) rc = read_spec(g, &spec, why);
    if (!rc && !spec.model)
        rc = err_set(why, ERR_FORMAT, "%s: no tokenizer in the file", path);
    if (!rc) rc = tokenizer_create(&assets->tokenizer, &spec, why);
    vocab_free(&vocab);
    gguf_close(g);
    return rc;
}

static int open_folder(struct assets *assets, const char *dir, struct why *why)
{
    char file[PATH_BYTES], config[PATH_BYTES], names[PATH_BYTES],
        added[PATH_BYTES];
    const struct tokenizer_paths beside = {
        .config = file_in(config, dir, "tokenizer_config.json"),
        .names = file_in(names, dir, "special_tokens_map.json"),
        .added = file_in(added, dir, "added_tokens.json")};
    assets->source = "tokenizer.json";
    if (file_in(file, dir, assets->source))
        return tokenizer_open(&assets->tokenizer, file, &beside, why);
    assets->source = "tokenizer.model";
    if (file_in(file, dir, assets->source))
        return tokenizer_open_model(&assets->tokenizer, file, &beside, why);
    return err_set(why, ERR_NOT_FOUND,
                   "%s: no tokenizer.json and no tokenizer.model", dir);
}

/* --- chat template --- */

static int compile(struct assets *assets, const char *name, const char *source,
                   struct why *why)
{
    struct why inner = {0};
    int rc = chat_create(&assets->chat, assets->tokenizer, source, &inner);
    if (rc) err_set(why, rc, "chat template of %s: %s", name, inner.text);
    return rc;
}

static int compile_file(struct assets *assets, const char *path,
                        struct why *why)
{
    struct model_file file;
    int rc = model_file_open(&file, path, why);
    if (rc) return rc;
    char *source = mem_dup_n(file.bytes, file.size);
    if (strlen(source) == file.size)
        rc = compile(assets, path, source, why);
    else
        rc = err_set(why, ERR_FORMAT, "chat template of %s: a NUL byte", path);
    model_file_close(&file);
    mem_free(source);
    return rc;
}

/* --chat-template, else chat_template.jinja, else what the tokenizer's files
 * hold: the order of SGLang and transformers. */
static int open_template(struct assets *assets, const char *given,
                         const char *path, struct why *why)
{
    char jinja[PATH_BYTES];
    if (given && access(given, R_OK) != 0)
        return err_set(why, ERR_NOT_FOUND,
                       "--chat-template %s: no such file (templates that are "
                       "known by a name only are not supported)",
                       given);
    if (given) return compile_file(assets, given, why);
    if (is_folder(path) && file_in(jinja, path, "chat_template.jinja"))
        return compile_file(assets, jinja, why);
    const char *source = tokenizer_chat_template(assets->tokenizer);
    if (!source) return 0;
    return compile(assets, path, source, why);
}

/* --- generation defaults --- */

/* Source: SGLang's ModelConfig.get_default_sampling_params. */
static int read_defaults(struct assets *assets, const char *model_path,
                         struct why *why)
{
    static const char *const names[] = {"temperature", "top_p", "top_k",
                                        "min_p", "repetition_penalty"};
    char path[PATH_BYTES];
    if (!is_folder(model_path) ||
        !file_in(path, model_path, "generation_config.json"))
        return 0;
    json_t *config;
    int rc = json_read(&config, path, (size_t)1 << 20, why);
    if (rc) return rc;
    assets->has_defaults = true;
    assets->defaults.params = json_object();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        json_t *v = json_object_get(config, names[i]);
        if (json_is_number(v))
            json_object_set(assets->defaults.params, names[i], v);
    }
    /* transformers writes 0 for "all", SGLang -1. */
    json_t *top_k = json_object_get(assets->defaults.params, "top_k");
    if (json_is_integer(top_k) && json_integer_value(top_k) == 0)
        json_integer_set(top_k, -1);
    json_decref(config);
    return 0;
}

void generation_defaults_apply(const struct generation_defaults *defaults,
                               json_t *params)
{
    json_object_update_missing(params, defaults->params);
}

const struct generation_defaults *assets_generation_defaults(
    const struct assets *assets)
{
    return assets->has_defaults ? &assets->defaults : NULL;
}

/* --- all --- */

int assets_open(struct assets **out, const struct assets_options *options,
                struct why *why)
{
    *out = NULL;
    struct assets *assets = mem_must(1, sizeof *assets);
    const char *path = options->tokenizer_path;
    if (!path) path = options->model_path;
    int rc = is_folder(path) ? open_folder(assets, path, why)
                             : open_gguf(assets, path, why);
    if (!rc) rc = open_template(assets, options->chat_template, path, why);
    if (!rc) rc = read_defaults(assets, options->model_path, why);
    if (rc)
        assets_close(assets);
    else
        *out = assets;
    return rc;
}

void assets_close(struct assets *assets)
{
    if (!assets) return;
    tokenizer_destroy(assets->tokenizer);
    chat_destroy(assets->chat);
    json_decref(assets->defaults.params);
    mem_free(assets);
}

const struct tokenizer *assets_tokenizer(const struct assets *assets)
{
    return assets->tokenizer;
}

const char *assets_tokenizer_source(const struct assets *assets)
{
    return assets->source;
}

bool assets_has_chat(const struct assets *assets)
{
    return assets->chat != NULL;
}

int assets_render_chat(const struct assets *assets, const json_t *messages,
                       const json_t *tools, const json_t *variables,
                       struct buf *out, struct why *why)
{
    if (!assets->chat)
        return err_set(why, ERR_INVALID,
                       "This model has no chat template: use /v1/completions, "
                       "or start the server with --chat-template FILE.");
    const struct chat_request request = {.messages = messages,
                                         .tools = tools,
                                         .kwargs = variables,
                                         .add_generation_prompt = true};
    return chat_render(assets->chat, &request, out, why);
}
