/* Request bodies of the generating routes. The first byte chooses the route
 * and the server's mode, the rest is the body. */
#include "pd/node.h"
#include "serve/ask.h"
#include "serve/assets.h"
#include "text/grammar.h"
#include "text/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char template[] =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls %}{{ c.function.arguments|tojson }}{% endfor %}\n"
    "{% endfor %}{% if tools %}{{ tools|tojson }}{% endif %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}";

static FILE *create(const char *dir, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f) abort();
    return f;
}

/* A byte-level vocabulary without merges: GPT-2's letter for each byte. */
static void write_tokenizer(const char *dir)
{
    FILE *f = create(dir, "tokenizer.json");
    fputs("{\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":{"
          "\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":"
          "true,\"use_regex\":true},\"post_processor\":null,\"decoder\":{"
          "\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":"
          "true,\"use_regex\":true},\"model\":{\"type\":\"BPE\",\"dropout\":"
          "null,\"unk_token\":null,\"continuing_subword_prefix\":null,"
          "\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":"
          "false,\"merges\":[],\"vocab\":{",
          f);
    uint32_t other = 256;
    for (uint32_t b = 0; b < 256; b++) {
        bool plain = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b != 0xad);
        char letter[5] = {0};
        utf8_put(letter, plain ? b : other++);
        bool escape = *letter == '"' || *letter == '\\';
        fprintf(f, "%s\"%s%s\":%u", b ? "," : "", escape ? "\\" : "", letter,
                b);
    }
    fputs("}}}", f);
    fclose(f);
}

static const struct assets *assets_once(void)
{
    static struct assets *assets;
    if (assets) return assets;
    char dir[] = "/tmp/baton-fuzz-XXXXXX";
    if (!mkdtemp(dir)) abort();
    write_tokenizer(dir);
    FILE *f = create(dir, "chat_template.jinja");
    fputs(template, f);
    fclose(f);
    struct assets_options options = {.model_path = dir};
    struct why why = {0};
    if (assets_open(&assets, &options, &why)) {
        fprintf(stderr, "%s\n", why.text);
        abort();
    }
    char path[256];
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/chat_template.jinja", dir);
    unlink(path);
    rmdir(dir);
    return assets;
}

/* What a parsed request promises to those who run it. */
static void check(const struct ask *ask, const struct ask_env *env)
{
    uint64_t outputs = (uint64_t)ask->prompt_count * ask->sample_count;
    if (!outputs || outputs > ASK_MAX_OUTPUTS) abort();
    if (outputs > 1 && !ask->batch) abort();
    for (uint32_t i = 0; i < ask->prompt_count; i++) {
        const struct prompt *p = &ask->prompts[i];
        if (!p->token_count || !p->rid || !*p->rid) abort();
        if (p->token_count + p->params.sampling.max_new_tokens >= env->context)
            abort();
        for (uint32_t t = 0; t < p->token_count; t++)
            if (p->tokens[t] < 0 || (uint32_t)p->tokens[t] >= env->vocab)
                abort();
        if (env->mode != PD_NULL &&
            (!p->meeting.has_room || p->meeting.room > INT64_MAX))
            abort();
        if (p->logprob_start >= (int32_t)p->token_count) abort();
        if (sampling_check(&p->params.sampling, env->vocab, NULL)) abort();
    }
}

static void feed(unsigned choice, const char *body, size_t n)
{
    static struct grammars *grammars;
    if (!grammars) grammars = grammars_create(assets_tokenizer(assets_once()));
    struct ask_env env = {.assets = assets_once(),
                          .grammars = grammars,
                          .mode = (enum pd_mode)(choice / 4 % 3),
                          .vocab = 256,
                          .context = 512,
                          .model_defaults = true,
                          .reasoning = reasoning_find("deepseek-r1"),
                          .toolcall = toolcall_find("qwen25")};
    struct ask *ask = NULL;
    struct why why = {0};
    int rc;
    switch (choice % 4) {
    case 0: rc = ask_parse_generate(&ask, &env, body, n, &why); break;
    case 1: rc = ask_parse_completion(&ask, &env, body, n, &why); break;
    default: rc = ask_parse_chat(&ask, &env, body, n, &why); break;
    }
    if (rc ? ask != NULL || !why.text[0] : ask == NULL) abort();
    if (ask) check(ask, &env);
    ask_destroy(ask);
}

/* Bytes that change break JSON's syntax and no more: so each value of a body
 * that is JSON is also replaced, in turn, by each of these. */
static const char *const others[] = {
    "null",  "true",       "-1",
    "0",     "1",          "2.5",
    "1e300", "4294967296", "9223372036854775807",
    "\"\"",  "\"x\"",      "\"\\u0000\"",
    "[]",    "[null]",     "[1]",
    "[[]]",  "[[1],[2]]",  "[\"x\",\"y\"]",
    "{}",    "{\"x\":1}",
};

static void feed_root(unsigned choice, const json_t *root)
{
    char *text = json_dumps(root, JSON_COMPACT);
    if (text) feed(choice, text, strlen(text));
    free(text);
}

static void vary(unsigned choice, const json_t *root, json_t *at);

/* Puts each other value into one place, then goes below that place. */
static void vary_place(unsigned choice, const json_t *root, json_t *in,
                       const char *key, size_t index)
{
    json_t *was = key ? json_object_get(in, key) : json_array_get(in, index);
    json_incref(was);
    for (size_t i = 0; i <= sizeof others / sizeof *others; i++) {
        bool last = i == sizeof others / sizeof *others;
        json_t *v = last ? json_incref(was)
                         : json_loads(others[i],
                                      JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        if (key)
            json_object_set_new(in, key, v);
        else
            json_array_set_new(in, index, v);
        if (!last) feed_root(choice, root);
    }
    vary(choice, root, was);
    json_decref(was);
}

static void vary(unsigned choice, const json_t *root, json_t *at)
{
    for (size_t i = 0; i < json_array_size(at); i++)
        vary_place(choice, root, at, NULL, i);
    const char *keys[64];
    size_t count = 0;
    const char *key;
    json_t *value;
    json_object_foreach (at, key, value) {
        if (count < 64) keys[count++] = key;
    }
    for (size_t i = 0; i < count; i++) {
        char *copy = strdup(keys[i]);
        vary_place(choice, root, at, copy, 0);
        free(copy);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    const char *body = (const char *)data + 1;
    feed(data[0], body, size - 1);
    json_t *root;
    if (size > 1024 || json_parse(&root, body, size - 1, NULL)) return 0;
    vary(data[0], root, root);
    json_decref(root);
    return 0;
}
