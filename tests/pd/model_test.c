/* A pair over real kernels and several layers: tokens and logprobs are bit for
 * bit those of one server. */
#include "tests/pd/pair.h"

#include "tests/model/random_model.h"
#include "tests/temp.h"

enum { N = 10 };

struct loaded {
    struct device *dev;
    struct model *model;
};

static void load(struct loaded *l, const char *path)
{
    struct why why = {0};
    const struct device_options device = {.kind = "cpu", .threads = 1};
    const struct model_options options = {
        .path = path, .max_tokens = 300, .max_logits = 64};
    if (device_open(&l->dev, &device, &why) ||
        model_open(&l->model, l->dev, &options, &why))
        fail_msg("%s", why.text);
}

static void unload(struct loaded *l)
{
    model_close(l->model);
    device_close(l->dev);
}

static void ask_model(struct ask *ask, uint32_t vocab, uint64_t seed)
{
    ask_init(ask, 5 + (uint32_t)seed * 9, 16, seed);
    for (uint32_t i = 0; i < ask->spec.token_count; i++)
        ask->prompt[i] %= (int32_t)vocab;
    ask->spec.sampling.ignore_eos = true;
    ask->spec.want_logprobs = true;
}

static void pair_agrees_with_one(const char *name, enum dtype kv)
{
    static struct ask ask[N];
    static struct leg alone[N], p[N], d[N];
    char *dir = temp_dir(), path[4096];
    snprintf(path, sizeof path, "%s/model.gguf", dir);
    struct random_model *random = random_model_named(name);
    random_model_write_gguf(random, path, DTYPE_Q8_0, false);
    random_model_free(random);
    struct loaded lp, ld; /* one engine thread at a time may call a model */
    load(&lp, path);
    load(&ld, path);

    struct rig rig;
    struct side sp, sd;
    log_init(LOG_ERROR, "test");
    rig_init(&rig);
    struct side_options o = side_defaults(PD_NULL);
    o.model = ld.model;
    o.kv = kv;
    side_open(&sd, &rig, &o);
    for (uint64_t i = 0; i < N; i++) {
        alone[i] = (struct leg){0};
        ask_model(&ask[i], model_config(ld.model)->vocab, i);
        assert_int_equal(pd_node_submit(sd.node, &ask[i].spec, NULL, leg_event,
                                        &alone[i], &alone[i].id, NULL),
                         0);
    }
    for (int i = 0; i < N; i++)
        UNTIL(&rig, alone[i].done);
    side_close(&sd);

    o.pd.mode = PD_DECODE;
    o.prefix_cache = true;
    side_open(&sd, &rig, &o);
    o = side_defaults(PD_PREFILL);
    o.model = lp.model;
    o.kv = kv;
    o.prefix_cache = true;
    side_open(&sp, &rig, &o);
    for (uint64_t i = 0; i < N; i++) {
        leg_start(&p[i], &sp, &ask[i].spec, sp.port, i);
        leg_start(&d[i], &sd, &ask[i].spec, sp.port, i);
    }
    for (int i = 0; i < N; i++) {
        UNTIL(&rig, p[i].done && d[i].done);
        assert_int_equal(d[i].finish, FINISH_LENGTH);
        assert_int_equal(d[i].count, 16);
        assert_memory_equal(d[i].tokens, alone[i].tokens, 16 * 4);
        assert_memory_equal(&d[i].logprob, &alone[i].logprob, 4);
    }
    side_close(&sd);
    side_close(&sp);
    rig_fini(&rig);
    unload(&lp);
    unload(&ld);
    temp_remove(dir);
}

static void qwen3_apart_is_as_together(void **state)
{
    (void)state;
    pair_agrees_with_one("qwen3-256", DTYPE_BF16);
}

static void llama_apart_is_as_together(void **state)
{
    (void)state;
    pair_agrees_with_one("llama-256", DTYPE_F16);
}

static void int8_kv_apart_is_as_together(void **state)
{
    (void)state;
    pair_agrees_with_one("qwen3-256", DTYPE_KV8);
}

TESTS(T(int8_kv_apart_is_as_together), T(qwen3_apart_is_as_together),
      T(llama_apart_is_as_together))
