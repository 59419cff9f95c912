/* tests/serve/rig.h - a server on loopback over a fake node, with a tokenizer
 * whose ids are bytes ("Hi" is 72, 105; 256 is the special <|end|>). */
#ifndef BATON_TESTS_SERVE_RIG_H
#define BATON_TESTS_SERVE_RIG_H

#include "tests/http/rig.h"
#include "tests/model/gguf_build.h"
#include "tests/serve/fake_node.h"
#include "tests/temp.h"
#include "tests/text/vocab.h"

#include "base/mem.h"
#include "json/json.h"
#include "model/model.h"
#include "serve/assets.h"
#include "serve/serve.h"
#include "text/grammar.h"

enum {
    RIG_VOCAB = 257, /* the bytes and <|end|> */
    RIG_THINK = RIG_VOCAB,
    RIG_THINK_END,
    RIG_CONTEXT = 64
};

struct server {
    struct rig rig;
    char *dir;
    struct pd_node *node;
    struct assets *assets;
    struct grammars *grammars;
    struct model_config config;
    struct serve *serve;
};

/* What a test may choose; zero is the plain case. */
struct server_setup {
    enum pd_mode mode;
    int refuse;
    struct serve_options options;
    const char *chat_template; /* source */
    bool thinks; /* <think> and </think> are tokens, RIG_THINK and its end */
};

static inline void rig_write_gguf(const char *dir, const char *template,
                                  bool thinks)
{
    enum { MAX = RIG_THINK_END + 1 };
    const int count = thinks ? MAX : RIG_VOCAB;
    static struct vocab v;
    vocab_init(&v);
    vocab_add(&v, "<|end|>", TOKEN_CONTROL);
    vocab_add(&v, "<think>", TOKEN_USER_DEFINED);
    vocab_add(&v, "</think>", TOKEN_USER_DEFINED);
    const char *tokens[MAX];
    int32_t types[MAX];
    static char store[MAX][16];
    for (int i = 0; i < count; i++) {
        snprintf(store[i], sizeof store[i], "%.*s", (int)v.tokens[i].len,
                 v.tokens[i].data);
        tokens[i] = store[i];
        types[i] = v.types[i];
    }
    struct gguf_build b;
    gguf_build_init(&b);
    gguf_build_string(&b, "tokenizer.ggml.model", "gpt2");
    gguf_build_strings(&b, "tokenizer.ggml.tokens", tokens, (size_t)count);
    gguf_build_strings(&b, "tokenizer.ggml.merges", NULL, 0);
    gguf_build_ints(&b, "tokenizer.ggml.token_type", types, (size_t)count);
    gguf_build_u32(&b, "tokenizer.ggml.eos_token_id", 256);
    gguf_build_bool(&b, "tokenizer.ggml.add_bos_token", false);
    if (template) gguf_build_string(&b, "tokenizer.chat_template", template);
    struct buf file;
    buf_init(&file, 1 << 20);
    gguf_build_finish(&b, 3, &file);
    temp_write(dir, "model.gguf", file.data, file.len);
    buf_fini(&file);
    gguf_build_fini(&b);
}

static inline void server_open(struct server *s,
                               const struct server_setup *setup)
{
    memset(s, 0, sizeof *s);
    rig_init(&s->rig);
    s->dir = temp_dir();
    rig_write_gguf(s->dir, setup->chat_template, setup->thinks);
    char path[256];
    snprintf(path, sizeof path, "%s/model.gguf", s->dir);
    struct why why = {0};
    struct assets_options ao = {.model_path = path};
    if (assets_open(&s->assets, &ao, &why)) fail_msg("%s", why.text);
    s->config =
        (struct model_config){.vocab = RIG_VOCAB, .context = RIG_CONTEXT};
    s->node = fake_node_create(s->rig.loop, setup->mode, setup->refuse);
    struct serve_options o = setup->options;
    o.loop = s->rig.loop;
    o.node = s->node;
    o.assets = s->assets;
    s->grammars = grammars_create(assets_tokenizer(s->assets));
    o.grammars = s->grammars;
    o.config = &s->config;
    o.model_path = "models/tiny";
    if (serve_open(&s->serve, &o, &why)) fail_msg("%s", why.text);
    s->rig.port = serve_port(s->serve);
}

static inline void server_run(struct server *s,
                              const struct server_setup *setup)
{
    server_open(s, setup);
    serve_set_ready(s->serve);
    rig_run(&s->rig);
}

static inline void server_stop(struct server *s)
{
    rig_join(&s->rig);
    serve_close(s->serve);
    fake_node_destroy(s->node);
    grammars_destroy(s->grammars);
    assets_close(s->assets);
    loop_destroy(s->rig.loop);
    inbox_destroy(s->rig.words);
    temp_remove(s->dir);
}

/* Sends one request on a connection of its own, with headers ("A: b\r\n" each)
 * of the test's; raw_read gets the answer. */
static inline int server_send_with(const struct server *s, const char *method,
                                   const char *path, const char *headers,
                                   const char *body)
{
    char head[512];
    int fd = raw_connect(s->rig.port);
    snprintf(head, sizeof head,
             "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s"
             "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
             method, path, headers, strlen(body));
    raw_send(fd, head);
    raw_send(fd, body);
    return fd;
}

static inline int server_send(const struct server *s, const char *method,
                              const char *path, const char *body)
{
    return server_send_with(s, method, path, "", body);
}

static inline int server_post(const struct server *s, const char *path,
                              const char *body)
{
    return server_send(s, "POST", path, body);
}

/* The whole answer: its status, and its body with chunks put together. */
static inline int answer_of(int fd, char **body)
{
    const char *text = raw_read(fd, NULL);
    close(fd);
    int status = 0;
    assert_int_equal(sscanf(text, "HTTP/1.1 %d", &status), 1);
    const char *at = strstr(text, "\r\n\r\n");
    assert_non_null(at);
    bool chunked = strcasestr(text, "transfer-encoding: chunked") &&
                   strcasestr(text, "transfer-encoding: chunked") < at;
    at += 4;
    struct buf out;
    buf_init(&out, 1 << 24);
    buf_puts(&out, "");
    while (chunked) {
        char *end;
        size_t n = strtoul(at, &end, 16);
        if (n == 0) break;
        buf_add(&out, end + 2, n);
        at = end + 2 + n + 2;
    }
    if (!chunked) buf_puts(&out, at);
    *body = out.data ? buf_detach(&out) : mem_dup("");
    return status;
}

/* The body of an answer that has to be 200; the caller's (mem_free). */
static inline char *answer_ok(int fd)
{
    char *body;
    int status = answer_of(fd, &body);
    if (status != 200) fail_msg("%d: %s", status, body);
    return body;
}

/* Asks and expects this status; the body is the caller's (mem_free). */
static inline char *server_ask(const struct server *s, const char *method,
                               const char *path, const char *request,
                               int status)
{
    char *body;
    int got = answer_of(server_send(s, method, path, request), &body);
    if (got != status)
        fail_msg("%s: %d instead of %d: %s", path, got, status, body);
    return body;
}

static inline json_t *json_of(char *text)
{
    json_t *v;
    struct why why = {0};
    if (json_parse(&v, text, strlen(text), &why))
        fail_msg("%s in %s", why.text, text);
    mem_free(text);
    return v;
}

/* The value at a path like "choices.0.text". */
static inline const json_t *at_path(const json_t *v, const char *path)
{
    char name[128];
    while (*path) {
        size_t n = strcspn(path, ".");
        snprintf(name, sizeof name, "%.*s", (int)n, path);
        v = json_is_array(v) ? json_array_get(v, strtoul(name, NULL, 10))
                             : json_object_get(v, name);
        path += n + (path[n] == '.');
    }
    return v;
}

/* Compares the member at path with JSON text, ' for ". */
static inline void expect_at(const json_t *v, const char *path,
                             const char *expected)
{
    char text[4096];
    snprintf(text, sizeof text, "%s", expected);
    for (char *p = text; *p; p++)
        if (*p == '\'') *p = '"';
    const json_t *found = at_path(v, path);
    char *got = found ? json_dumps(found, JSON_COMPACT | JSON_ENCODE_ANY)
                      : strdup("(absent)");
    if (strcmp(got, text) != 0) fail_msg("%s is %s, not %s", path, got, text);
    free(got);
}

#endif
