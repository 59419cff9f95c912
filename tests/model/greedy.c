/* model-greedy MODEL [DEVICE]: for each line "COUNT id id ..." of stdin, the
 * COUNT tokens that the model finds most likely after the ids, one after the
 * other, as "id:gap" with the logits' distance to the second best. For
 * tools/golden/compare_llamacpp.py. */
#include "base/mem.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>

enum { TOKENS = 4096, PAGE = 16, PAGES = TOKENS / PAGE + 1 };

static struct model *model;
static struct kv_pool *pool;
static kv_page pages[PAGES - 1];

static void must(int rc, const struct why *why)
{
    if (!rc) return;
    fprintf(stderr, "model-greedy: %s\n", why_text(why, rc));
    exit(1);
}

static void print_best(const float *logits, int32_t *best)
{
    const uint32_t vocab = model_config(model)->vocab;
    uint32_t top = 0, second = 1;
    for (uint32_t i = 1; i < vocab; i++) {
        if (logits[i] > logits[top]) {
            second = top;
            top = i;
        } else if (second == top || logits[i] > logits[second]) {
            second = i;
        }
    }
    *best = (int32_t)top;
    printf("%u:%.5f ", top, (double)(logits[top] - logits[second]));
}

/* ids[from, n) get their KV; *best follows them. */
static void step(const int32_t *ids, uint32_t from, uint32_t n, int32_t *best)
{
    static uint32_t positions[TOKENS];
    const uint32_t rows = n - from, last = rows - 1;
    for (uint32_t i = 0; i < rows; i++)
        positions[i] = from + i;
    const struct op_seq seq = {0, rows, n, pages};
    const struct batch b = {rows, ids + from, positions, 1, &seq, 1, &last};
    const float *logits;
    struct why why = {0};
    must(model_forward(model, &b, pool, &logits, &why), &why);
    print_best(logits, best);
}

static void answer(char *line)
{
    static int32_t ids[TOKENS];
    char *end;
    uint32_t count = (uint32_t)strtoul(line, &end, 10), n = 0, from = 0;
    while (n < TOKENS && *end && *end != '\n')
        ids[n++] = (int32_t)strtol(end, &end, 10);
    if (n == 0 || n + count > TOKENS) exit(2);
    for (uint32_t i = 0; i < count; i++) {
        step(ids, from, n, &ids[n]);
        from = n++;
    }
    putchar('\n');
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: model-greedy MODEL [DEVICE]\n");
        return 2;
    }
    struct why why = {0};
    struct device *dev;
    const struct device_options kind = {.kind = argc > 2 ? argv[2] : "cpu"};
    const struct model_options options = {
        .path = argv[1], .max_tokens = TOKENS, .max_logits = 1};
    must(device_open(&dev, &kind, &why), &why);
    must(model_open(&model, dev, &options, &why), &why);
    const struct model_config *c = model_config(model);
    struct kv_pool_options kv = {
        .shape = {c->layers, c->kv_heads, c->head_dim, PAGE, DTYPE_F16},
        .page_count = PAGES};
    void *slab = mem_must(kv_shape_slab_bytes(&kv.shape, PAGES), 1);
    kv.slab = slab;
    must(kv_pool_create(&pool, &kv, &why), &why);
    must(kv_pool_take(pool, PAGES - 1, pages), NULL);
    fprintf(stderr, "%s, %zu bytes of %s\n", device_describe(dev),
            model_weight_bytes(model), dtype_name(c->dtype));
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, stdin) > 0)
        answer(line);
    free(line);
    kv_pool_destroy(pool);
    mem_free(slab);
    model_close(model);
    device_close(dev);
    return 0;
}
