/* The engine over real kernels: whatever the batch, the chunks, the cache, the
 * retractions, and on one server or a pair, a request yields the same tokens
 * with the same logprobs, bit for bit. */
#include "tests/engine/rig.h"

#include "tests/model/random_model.h"
#include "tests/temp.h"

enum { N = 14, LONGEST = 90, MOST_NEW = 24 };

static struct asked asked[N + 1];
static struct seen alone[N + 1];
static struct rig rig, prefill;

static void ask(uint32_t vocab)
{
    uint64_t seed = 12;
    for (uint64_t id = 1; id <= N; id++) {
        asked_random(&asked[id], LONGEST, MOST_NEW, &seed);
        asked[id].spec.want_logprobs = true;
        for (uint32_t i = 0; i < asked[id].spec.token_count; i++)
            asked[id].prompt[i] %= (int32_t)vocab;
    }
}

static void run(const struct rig_options *o)
{
    rig_init(&rig, o);
    for (uint64_t id = 1; id <= N; id++) {
        asked[id].spec.role = ROLE_WHOLE;
        rig_submit(&rig, id, &asked[id].spec);
    }
    rig_until_done(&rig, N);
}

static void expect_the_same(void)
{
    for (uint64_t id = 1; id <= N; id++) {
        const struct seen *a = &alone[id], *b = &rig.seen[id];
        assert_true(a->count > 0);
        assert_int_equal(b->count, a->count);
        assert_int_equal(b->finish.kind, a->finish.kind);
        assert_memory_equal(b->tokens, a->tokens, a->count * sizeof(int32_t));
        assert_memory_equal(b->logprobs, a->logprobs, a->count * sizeof(float));
    }
}

static uint32_t sum_retractions(void)
{
    uint32_t sum = 0;
    for (uint64_t id = 1; id <= N; id++)
        sum += rig.seen[id].retractions;
    return sum;
}

static void same_everywhere(const char *name, enum dtype type, enum dtype kv)
{
    struct random_model *random = random_model_named(name);
    char *dir = temp_dir(), path[4096];
    snprintf(path, sizeof path, "%s/model.gguf", dir);
    random_model_write_gguf(random, path, type, false);
    random_model_free(random);

    struct why why = {0};
    struct device *dev;
    struct model *model = NULL;
    const struct device_options device = {.kind = "cpu", .threads = 2};
    const struct model_options options = {
        .path = path, .max_tokens = 300, .max_logits = 64};
    if (device_open(&dev, &device, &why) ||
        model_open(&model, dev, &options, &why))
        fail_msg("%s", why.text);
    ask(model_config(model)->vocab);

    struct rig_options o = rig_defaults();
    o.engine.model = model;
    o.kv = kv;
    o.engine.max_running = 1;
    o.engine.chunk_tokens = 200;
    o.engine.prefix_cache = false;
    run(&o);
    memcpy(alone, rig.seen, sizeof alone);
    rig_fini(&rig);

    static const uint32_t chunks[] = {5, 16, 200};
    for (int i = 0; i < 3; i++) {
        o.engine.max_running = 8;
        o.engine.chunk_tokens = chunks[i];
        o.engine.prefix_cache = i != 1;
        run(&o);
        expect_the_same();
        rig_fini(&rig);
    }

    o.pages = 35;
    o.engine.reserved_decode_tokens = 1;
    run(&o);
    expect_the_same();
    assert_true(sum_retractions() > 0);
    rig_fini(&rig);

    o = rig_defaults();
    o.engine.model = model;
    o.kv = kv;
    o.page_tokens = 16;
    rig_init(&prefill, &o);
    /* One engine thread at a time may call a model: decode has its own. */
    struct device *dev2;
    struct model *model2 = NULL;
    if (device_open(&dev2, &device, &why) ||
        model_open(&model2, dev2, &options, &why))
        fail_msg("%s", why.text);
    o.engine.model = model2;
    o.page_tokens = 4;
    rig_init(&rig, &o);
    for (uint64_t id = 1; id <= N; id++) {
        asked[id].spec.role = ROLE_DECODE;
        rig_submit(&rig, id, &asked[id].spec);
    }
    pair_run(&prefill, &rig, asked, N);
    expect_the_same();
    rig_fini(&rig);
    rig_fini(&prefill);
    model_close(model2);
    device_close(dev2);
    model_close(model);
    device_close(dev);
    temp_remove(dir);
}

static void qwen3_q8_0_with_f16_kv(void **state)
{
    (void)state;
    same_everywhere("qwen3-256", DTYPE_Q8_0, DTYPE_F16);
}

static void llama_f32_with_f32_kv(void **state)
{
    (void)state;
    same_everywhere("llama-plain", DTYPE_F32, DTYPE_F32);
}

static void llama_q4_1_with_bf16_kv(void **state)
{
    (void)state;
    same_everywhere("llama-256", DTYPE_Q4_1, DTYPE_BF16);
}

static void qwen3_q8_0_with_int8_kv(void **state)
{
    (void)state;
    same_everywhere("qwen3-256", DTYPE_Q8_0, DTYPE_KV8);
}

TESTS(T(qwen3_q8_0_with_f16_kv), T(qwen3_q8_0_with_int8_kv),
      T(llama_f32_with_f32_kv), T(llama_q4_1_with_bf16_kv))
