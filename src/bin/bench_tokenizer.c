/* bin/bench_tokenizer.c - how fast text becomes tokens, on one core.
 *
 * Without --text the text is drawn from the vocabulary itself, low ids often
 * and high ids seldom, each character whole: every script and kind of word the
 * model knows, but put together as nobody writes. Real text is easier. */
#include "base/buf.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/opt.h"
#include "bin/commands.h"
#include "serve/assets.h"
#include "text/detok.h"
#include "text/tokenizer.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench {
    const char *model_path, *text_path;
    int64_t repeat, bytes;
    bool json;
};

#define AT(f) offsetof(struct bench, f)
static const struct opt options[] = {
    {"model|model-path", OPT_STRING, AT(model_path), .help = "GGUF or folder"},
    {"text", OPT_STRING, AT(text_path),
     .help = "file to encode; without it text is drawn from the vocabulary"},
    {"bytes", OPT_INT, AT(bytes), "8000000", 1, 1e9,
     .help = "of the text, at most"},
    {"repeat", OPT_INT, AT(repeat), "5", 1, 1000, .help = "runs, median kept"},
    {"json", OPT_FLAG, AT(json), .help = "one JSON object on stdout"},
};

struct result {
    double load_ms, encode_mb_s, spread, decode_mb_s;
    uint64_t hash; /* of the ids */
    size_t tokens;
};

static int read_text(struct buf *out, const struct bench *b, struct why *why)
{
    FILE *f = fopen(b->text_path, "rb");
    if (!f) return err_sys(why, ERR_IO, errno, "%s", b->text_path);
    char *to = buf_grow(out, (size_t)b->bytes);
    size_t n = to ? fread(to, 1, (size_t)b->bytes, f) : 0;
    bool broken = ferror(f);
    fclose(f);
    if (!to) return err_set(why, ERR_NOMEM, "text of %" PRId64, b->bytes);
    if (broken || !n) return err_set(why, ERR_IO, "%s: empty", b->text_path);
    out->len += n;
    return 0;
}

/* Zipf's law with a flat start: id r has a weight of 1 / (r + FLAT). */
static int draw_text(struct buf *out, const struct bench *b,
                     const struct tokenizer *t, struct why *why)
{
    enum { FLAT = 20 };
    uint64_t seed = 1;
    double span = log((double)tokenizer_vocab(t) / FLAT + 1);
    struct detok d;
    detok_init(&d, t, true);
    while (out->len < (size_t)b->bytes && !out->failed) {
        double r = FLAT * (exp(rng_unit(&seed) * span) - 1);
        detok_feed(&d, (int32_t)r, out);
    }
    detok_flush(&d, out);
    return out->failed ? err_set(why, ERR_NOMEM, "text of %" PRId64, b->bytes)
                       : 0;
}

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static double mb_per_s(size_t bytes, uint64_t ns)
{
    return (double)bytes * 1e3 / (double)(ns ? ns : 1);
}

static uint64_t hash_ids(const struct token_list *list)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < list->count; i++)
        h = (h ^ (uint32_t)list->ids[i]) * 0x100000001b3u;
    return h;
}

static int measure(const struct bench *b, const struct tokenizer *t,
                   const struct buf *text, struct result *r, struct why *why)
{
    struct token_list list = {0};
    struct buf out;
    struct detok d;
    double *rates = mem_must((size_t)b->repeat, sizeof *rates);
    int rc = 0;
    for (int64_t i = -1; i < b->repeat && !rc; i++) { /* -1: a warm-up */
        uint64_t start = clock_ns();
        list.count = 0;
        rc = tokenizer_encode(t, text->data, text->len, 0, &list);
        if (i >= 0) rates[i] = mb_per_s(text->len, clock_ns() - start);
    }
    if (rc) err_set(why, rc, "encoding failed");
    size_t n = (size_t)b->repeat;
    qsort(rates, n, sizeof *rates, by_value);
    r->encode_mb_s = rates[n / 2];
    r->spread = (rates[n - 1] - rates[0]) / rates[n / 2];
    r->tokens = list.count;
    r->hash = hash_ids(&list);
    buf_init(&out, SIZE_MAX / 2);
    uint64_t start = clock_ns();
    detok_init(&d, t, false);
    for (size_t i = 0; i < list.count; i++)
        detok_feed(&d, list.ids[i], &out);
    detok_flush(&d, &out);
    r->decode_mb_s = mb_per_s(out.len, clock_ns() - start);
    buf_fini(&out);
    token_list_fini(&list);
    mem_free(rates);
    return rc;
}

static void print(const struct bench *b, const struct buf *text,
                  const struct result *r)
{
    if (b->json) {
        struct buf out;
        buf_init(&out, (size_t)1 << 20);
        buf_puts(&out, "{\"model\": \"");
        buf_json(&out, b->model_path, strlen(b->model_path));
        buf_puts(&out, "\", \"text\": \"");
        if (b->text_path) buf_json(&out, b->text_path, strlen(b->text_path));
        printf("%s\", \"bytes\": %zu, \"tokens\": %zu, \"load_ms\": %.1f, "
               "\"encode_mb_s\": %.2f, \"spread\": %.3f, \"decode_mb_s\": "
               "%.1f, \"hash\": \"%016" PRIx64 "\"}\n",
               out.data ? out.data : "", text->len, r->tokens, r->load_ms,
               r->encode_mb_s, r->spread, r->decode_mb_s, r->hash);
        buf_fini(&out);
        return;
    }
    printf("%s, load with chat template %.1f ms\n", b->model_path, r->load_ms);
    printf("%s: %zu bytes, %zu tokens, ids %016" PRIx64 "\n",
           b->text_path ? b->text_path : "text drawn from the vocabulary",
           text->len, r->tokens, r->hash);
    printf("encode %7.1f MB/s  (spread %.0f %%)\n", r->encode_mb_s,
           100 * r->spread);
    printf("decode %7.1f MB/s\n", r->decode_mb_s);
}

static int run(const struct bench *b, struct why *why)
{
    struct assets *assets;
    struct buf text;
    struct result r = {0};
    uint64_t start = clock_ns();
    int rc = assets_open(
        &assets, &(struct assets_options){.model_path = b->model_path}, why);
    if (rc) return rc;
    r.load_ms = (double)(clock_ns() - start) / 1e6;
    const struct tokenizer *t = assets_tokenizer(assets);
    buf_init(&text, SIZE_MAX / 2);
    rc = b->text_path ? read_text(&text, b, why) : draw_text(&text, b, t, why);
    if (!rc) rc = measure(b, t, &text, &r, why);
    if (!rc) print(b, &text, &r);
    buf_fini(&text);
    assets_close(assets);
    return rc;
}

int bench_tokenizer_main(int argc, char **argv)
{
    struct bench b = {0};
    struct why why = {0};
    size_t count = sizeof options / sizeof *options;
    int rc = opt_parse(options, count, &b, argc, argv, NULL, NULL, &why);
    if (rc == 1) {
        opt_help(options, count,
                 "baton bench tokenizer --model M [--text FILE] [--json]");
        return 0;
    }
    bool usage = rc != 0 || !b.model_path;
    if (!rc && !b.model_path)
        rc = err_set(&why, ERR_INVALID, "--model is required");
    if (!rc) rc = run(&b, &why);
    if (rc) fprintf(stderr, "baton bench tokenizer: %s\n", why_text(&why, rc));
    return rc ? usage ? 2 : 1 : 0;
}
