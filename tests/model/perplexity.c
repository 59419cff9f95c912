/* model-perplexity MODEL TOKENIZER TEXT [DEVICE [QUANTIZATION [KV]]]: how well
 * a model foresees a text: prints exp(mean of -ln p) of its tokens, and how
 * far its distributions are from another run's, to tell what a quantization
 * costs. TOKENIZER is the folder or GGUF file that has it; DEVICE cpu;
 * QUANTIZATION none or as launch_server's; KV f32.
 *
 * The text is cut into windows of 512 tokens, each begun anew; the first token
 * of a window is given. With BATON_LOGPROBS=FILE the log probabilities of the
 * text's tokens are written there, or, where the file is there already, mean
 * |difference| from them is printed too. For tools/golden/perplexity.py. */
#include "base/mem.h"
#include "model/model.h"
#include "serve/assets.h"
#include "text/tokenizer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW = 512, PAGE = 16, PAGES = WINDOW / PAGE + 1 };

static struct model *model;
static struct kv_pool *pool;
static kv_page pages[PAGES - 1];

static void must(int rc, const struct why *why)
{
    if (!rc) return;
    fprintf(stderr, "model-perplexity: %s\n", why_text(why, rc));
    exit(1);
}

static struct token_list read_tokens(const char *tokenizer, const char *path)
{
    static char text[1 << 22];
    struct token_list list = {0};
    struct assets *assets;
    struct why why = {0};
    const struct assets_options options = {.model_path = tokenizer};
    must(assets_open(&assets, &options, &why), &why);
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(text, 1, sizeof text, f) : 0;
    if (!n) must(err_set(&why, ERR_IO, "%s: no text", path), &why);
    fclose(f);
    must(tokenizer_encode(assets_tokenizer(assets), text, n, 0, &list), NULL);
    assets_close(assets);
    return list;
}

static double log_prob(const float *logits, uint32_t vocab, int32_t id)
{
    double most = logits[0], sum = 0;
    for (uint32_t i = 1; i < vocab; i++)
        if (logits[i] > most) most = logits[i];
    for (uint32_t i = 0; i < vocab; i++)
        sum += exp(logits[i] - most);
    return logits[id] - most - log(sum);
}

/* ln p of ids[1 .. n) into out[1 .. n). */
static void run_window(const int32_t *ids, uint32_t n, double *out)
{
    static uint32_t positions[WINDOW];
    const uint32_t vocab = model_config(model)->vocab;
    const struct op_seq seq = {0, n, n, pages};
    for (uint32_t i = 0; i < n; i++)
        positions[i] = i;
    const struct batch b = {n, ids, positions, 1, &seq, n, positions};
    const float *logits;
    struct why why = {0};
    must(model_forward(model, &b, pool, &logits, &why), &why);
    for (uint32_t i = 1; i < n; i++)
        out[i] = log_prob(logits + (size_t)(i - 1) * vocab, vocab, ids[i]);
}

static void report(const double *p, size_t n)
{
    double sum = 0, apart = 0, *other = mem_must(n, sizeof *other);
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (i % WINDOW == 0) continue;
        sum -= p[i];
        count++;
    }
    printf("%.4f", exp(sum / (double)count));
    const char *path = getenv("BATON_LOGPROBS");
    FILE *f = path ? fopen(path, "rb") : NULL;
    if (f && fread(other, sizeof *other, n, f) == n) {
        for (size_t i = 0; i < n; i++)
            apart += fabs(p[i] - other[i]);
        printf(" %.5f", apart / (double)count);
    } else if (path && (f = fopen(path, "wb"))) {
        fwrite(p, sizeof *p, n, f);
    }
    if (f) fclose(f);
    printf("\n");
    mem_free(other);
}

static enum dtype kv_type(const char *text)
{
    if (!strcmp(text, "int8")) return DTYPE_KV8;
    for (enum dtype t = DTYPE_F32; t <= DTYPE_BF16; t++)
        if (!strcmp(text, dtype_name(t))) return t;
    return DTYPE_F32;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: model-perplexity MODEL TOKENIZER TEXT [DEVICE "
                        "[QUANTIZATION [KV]]]\n");
        return 2;
    }
    struct why why = {0};
    struct device *dev;
    const struct device_options kind = {.kind = argc > 4 ? argv[4] : "cpu"};
    struct model_options options = {
        .path = argv[1], .max_tokens = WINDOW, .max_logits = WINDOW};
    must(model_quantize_parse(&options.quantize, argc > 5 ? argv[5] : NULL,
                              &why),
         &why);
    must(device_open(&dev, &kind, &why), &why);
    must(model_open(&model, dev, &options, &why), &why);
    const struct model_config *c = model_config(model);
    struct kv_pool_options kv = {.shape = {c->layers, c->kv_heads, c->head_dim,
                                           PAGE,
                                           kv_type(argc > 6 ? argv[6] : "f32")},
                                 .page_count = PAGES};
    kv.slab = mem_must(kv_shape_slab_bytes(&kv.shape, PAGES), 1);
    must(kv_pool_create(&pool, &kv, &why), &why);
    must(kv_pool_take(pool, PAGES - 1, pages), NULL);
    struct token_list list = read_tokens(argv[2], argv[3]);
    double *p = mem_must(list.count, sizeof *p);
    for (size_t at = 0; at < list.count; at += WINDOW) {
        size_t n = list.count - at < WINDOW ? list.count - at : WINDOW;
        run_window(list.ids + at, (uint32_t)n, p + at);
    }
    fprintf(stderr, "%zu tokens, %.1f MB of weights\n", list.count,
            (double)model_weight_bytes(model) * 1e-6);
    report(p, list.count);
    mem_free(p);
    token_list_fini(&list);
    kv_pool_destroy(pool);
    mem_free(kv.slab);
    model_close(model);
    device_close(dev);
    return 0;
}
