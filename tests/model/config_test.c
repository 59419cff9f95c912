#include "tests/test.h"
#include "tests/model/gguf_build.h"
#include "base/mem.h"
#include "model/config.h"

#include <math.h>

#define SIZES                                                        \
    "\"vocab_size\":100,\"hidden_size\":64,\"num_hidden_layers\":2," \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,"           \
    "\"intermediate_size\":96,\"max_position_embeddings\":512,"      \
    "\"rms_norm_eps\":1e-5,"
#define LLAMA "\"architectures\":[\"LlamaForCausalLM\"],"
#define MOE   "\"architectures\":[\"Qwen3MoeForCausalLM\"],"
#define QWEN2 "\"architectures\":[\"Qwen2ForCausalLM\"],"
#define QWEN3 "\"architectures\":[\"Qwen3ForCausalLM\"],"

static int read(struct model_config *c, const char *text,
                const char *generation, struct why *why)
{
    json_t *config, *gen = NULL;
    assert_int_equal(json_parse(&config, text, strlen(text), NULL), 0);
    if (generation)
        assert_int_equal(json_parse(&gen, generation, strlen(generation), NULL),
                         0);
    int rc = config_from_json(c, config, gen, "config.json", why);
    json_decref(config);
    json_decref(gen);
    return rc;
}

static void llama_reads(void **state)
{
    (void)state;
    struct model_config c;
    struct why why = {0};
    int rc = read(&c,
                  "{" LLAMA SIZES "\"rope_theta\":5e5,\"eos_token_id\":7,"
                  "\"bos_token_id\":3,\"tie_word_embeddings\":true,"
                  "\"torch_dtype\":\"bfloat16\",\"rope_scaling\":null,"
                  "\"hidden_act\":\"silu\",\"quantization_config\":null}",
                  "{\"eos_token_id\":[9,7]}", &why);
    assert_string_equal(why.text, "");
    assert_int_equal(rc, 0);
    assert_string_equal(c.arch, "llama");
    assert_int_equal(c.head_dim, 16);
    assert_int_equal(c.kv_heads, 2);
    assert_int_equal(c.rope.rotary, 16);
    assert_int_equal(c.rope.kind, ROPE_PLAIN);
    assert_true(c.rope.theta == 5e5);
    assert_true(c.tied && !c.qk_norm && !c.attention_bias);
    assert_int_equal(c.dtype, DTYPE_BF16);
    assert_int_equal(c.eos_count, 2);
    assert_int_equal(c.eos[0], 7);
    assert_int_equal(c.eos[1], 9);
    assert_int_equal(c.bos, 3);
}

static void qwen3_reads_and_defaults(void **state)
{
    (void)state;
    struct model_config c;
    assert_int_equal(
        read(&c,
             "{" QWEN3 SIZES "\"head_dim\":32,\"use_sliding_window\":false,"
             "\"sliding_window\":null,\"attention_bias\":true,"
             "\"layer_types\":[\"full_attention\",\"full_attention\"],"
             "\"rope_parameters\":{\"rope_type\":\"default\","
             "\"rope_theta\":1e6}}",
             NULL, NULL),
        0);
    assert_string_equal(c.arch, "qwen3");
    assert_true(c.qk_norm && c.attention_bias && c.output_bias && !c.tied);
    assert_int_equal(c.head_dim, 32);
    assert_true(c.rope.theta == 1e6);
    assert_int_equal(c.eos_count, 0);
    assert_int_equal(c.bos, -1);
    /* model_type stands in for architectures, 128 for head_dim */
    assert_int_equal(
        read(&c, "{\"model_type\":\"qwen3\"," SIZES "\"x\":0}", NULL, NULL), 0);
    assert_int_equal(c.head_dim, 128);
}

static void windows_and_experts_read(void **state)
{
    (void)state;
    struct model_config c;
    assert_int_equal(read(&c,
                          "{" QWEN2 SIZES "\"use_sliding_window\":true,"
                          "\"sliding_window\":33,\"max_window_layers\":1}",
                          NULL, NULL),
                     0);
    assert_true(c.attention_bias && !c.output_bias && !c.qk_norm);
    assert_int_equal(c.window, 33);
    assert_true(!layer_set_has(&c.sliding, 0) && layer_set_has(&c.sliding, 1));
    assert_int_equal(read(&c,
                          "{" QWEN2 SIZES "\"sliding_window\":33,"
                          "\"use_sliding_window\":false}",
                          NULL, NULL),
                     0);
    assert_int_equal(c.window, 0);
    static const char *const mistral[] = {"\"sliding_window\":8", "\"x\":0",
                                          "\"sliding_window\":null"};
    static const uint32_t windows[] = {8, 4096, 0};
    for (int i = 0; i < 3; i++) {
        char text[512];
        snprintf(text, sizeof text, "{\"model_type\":\"mistral\"," SIZES "%s}",
                 mistral[i]);
        assert_int_equal(read(&c, text, NULL, NULL), 0);
        assert_int_equal(c.window, windows[i]);
        assert_int_equal(layer_set_has(&c.sliding, 1), windows[i] != 0);
    }
    assert_int_equal(read(&c,
                          "{" MOE SIZES "\"num_experts\":16,"
                          "\"num_experts_per_tok\":4,\"norm_topk_prob\":true,"
                          "\"moe_intermediate_size\":48,"
                          "\"mlp_only_layers\":[0]}",
                          NULL, NULL),
                     0);
    assert_int_equal(c.experts.count, 16);
    assert_int_equal(c.experts.used, 4);
    assert_int_equal(c.experts.ffn, 48);
    assert_true(c.experts.normed && !layer_set_has(&c.experts.layers, 0) &&
                layer_set_has(&c.experts.layers, 1));
}

static void quantization_reads(void **state)
{
    (void)state;
    struct model_config c;
    assert_int_equal(read(&c,
                          "{" LLAMA SIZES "\"quantization_config\":{"
                          "\"quant_method\":\"fp8\",\"fmt\":\"e4m3\","
                          "\"weight_block_size\":[64,128]}}",
                          NULL, NULL),
                     0);
    assert_int_equal(c.quant.method, QUANT_FP8);
    assert_int_equal(c.quant.block_rows, 64);
    assert_int_equal(read(&c,
                          "{" LLAMA SIZES "\"quantization_config\":{"
                          "\"quant_method\":\"gptq\",\"bits\":4,"
                          "\"checkpoint_format\":\"gptq_v2\"}}",
                          NULL, NULL),
                     0);
    assert_true(c.quant.method == QUANT_GPTQ && c.quant.zeros_as_is);
}

/* Both spellings of each scaling give the same. */
static void scaling_reads(void **state)
{
    (void)state;
    struct model_config c;
    const char *old =
        "{" LLAMA SIZES "\"rope_theta\":5e5,\"rope_scaling\":{\"type\":"
        "\"linear\",\"factor\":4.0}}";
    const char *new = "{" LLAMA SIZES "\"rope_parameters\":{\"rope_theta\":5e5,"
                      "\"rope_type\":\"linear\",\"factor\":4.0}}";
    for (int i = 0; i < 2; i++) {
        assert_int_equal(read(&c, i ? new : old, NULL, NULL), 0);
        assert_int_equal(c.rope.kind, ROPE_LINEAR);
        assert_true(c.rope.factor == 4 && c.rope.theta == 5e5);
    }
    assert_int_equal(read(&c,
                          "{" LLAMA SIZES
                          "\"rope_scaling\":{\"rope_type\":\"llama3\","
                          "\"factor\":8.0,\"low_freq_factor\":1.0,"
                          "\"high_freq_factor\":4.0,"
                          "\"original_max_position_embeddings\":128}}",
                          NULL, NULL),
                     0);
    assert_int_equal(c.rope.kind, ROPE_LLAMA3);
    assert_int_equal(c.rope.original_context, 128);
    assert_int_equal(
        read(&c,
             "{" QWEN3 SIZES "\"rope_scaling\":{\"rope_type\":\"yarn\","
             "\"factor\":4.0,\"original_max_position_embeddings\":128}}",
             NULL, NULL),
        0);
    assert_int_equal(c.rope.kind, ROPE_YARN);
    assert_true(c.rope.beta_fast == 32 && c.rope.beta_slow == 1);
    assert_true(fabs(c.rope.attention_factor - (0.1 * log(4) + 1)) < 1e-12);
}

static void what_we_do_not_do_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *text, *word;
        int code;
    } cases[] = {
        {"{\"architectures\":[\"GPT2LMHeadModel\"]}", "GPT2LMHeadModel",
         ERR_UNSUPPORTED},
        {"{" SIZES "\"model_type\":\"gemma\"}", "gemma", ERR_UNSUPPORTED},
        {"{" LLAMA SIZES "\"use_sliding_window\":true}", "use_sliding_window",
         ERR_UNSUPPORTED},
        {"{" QWEN3 SIZES "\"layer_types\":[\"full_attention\","
         "\"sliding_attention\"]}",
         "layer_types[1]", ERR_UNSUPPORTED},
        {"{" LLAMA SIZES "\"hidden_act\":\"gelu\"}", "gelu", ERR_UNSUPPORTED},
        {"{" QWEN3 SIZES "\"layer_types\":[\"full_attention\"]}",
         "layer_types is no list of 2", ERR_FORMAT},
        {"{" LLAMA SIZES "\"quantization_config\":{}}",
         "quantization_config.quant_method", ERR_UNSUPPORTED},
        {"{" LLAMA SIZES "\"quantization_config\":{\"quant_method\":"
         "\"bitsandbytes\"}}",
         "bitsandbytes", ERR_UNSUPPORTED},
        {"{" LLAMA SIZES "\"quantization_config\":{\"quant_method\":\"awq\","
         "\"version\":\"gemv\"}}",
         "version \"gemv\"", ERR_UNSUPPORTED},
        {"{" LLAMA SIZES "\"quantization_config\":{\"quant_method\":"
         "\"gptq\",\"bits\":3}}",
         "bits 3", ERR_UNSUPPORTED},
        {"{" MOE SIZES "\"num_experts\":4,\"num_experts_per_tok\":5}",
         "5 of 4 experts", ERR_FORMAT},
        {"{" MOE SIZES "\"mlp_only_layers\":3}", "mlp_only_layers", ERR_FORMAT},
        {"{" LLAMA SIZES "\"partial_rotary_factor\":0.01}",
         "partial_rotary_factor", ERR_FORMAT},
        {"{" LLAMA SIZES "\"partial_rotary_factor\":0.45}", "7 rotated",
         ERR_FORMAT},
        {"{" LLAMA SIZES "\"rope_scaling\":{\"type\":\"dynamic\","
         "\"factor\":2}}",
         "dynamic", ERR_UNSUPPORTED},
        {"{" LLAMA SIZES "\"rope_parameters\":{\"full_attention\":{}}}",
         "rope_parameters", ERR_UNSUPPORTED},
        {"{" LLAMA SIZES "\"rope_scaling\":{\"type\":\"linear\"}}",
         "rope_scaling.factor is missing", ERR_FORMAT},
        {"{" LLAMA "\"vocab_size\":100}", "hidden_size is missing", ERR_FORMAT},
        {"{" LLAMA SIZES "\"head_dim\":\"16\"}", "head_dim", ERR_FORMAT},
        {"{" LLAMA SIZES "\"head_dim\":15}", "15 rotated", ERR_FORMAT},
        {"{" LLAMA SIZES "\"head_dim\":0}", "head_dim", ERR_FORMAT},
        {"{" LLAMA SIZES "\"head_dim\":512}", "head size 512", ERR_FORMAT},
        {"{" LLAMA SIZES "\"rope_theta\":-1}", "theta", ERR_FORMAT},
        {"{" LLAMA SIZES "\"eos_token_id\":\"2\"}", "eos_token_id", ERR_FORMAT},
        {"{" LLAMA SIZES "\"eos_token_id\":[1,2,3,4,5,6,7,8,9]}", "eos",
         ERR_UNSUPPORTED},
        {"[]", "no JSON object", ERR_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model_config c;
        struct why why = {0};
        int rc = read(&c, cases[i].text, NULL, &why);
        if (rc != cases[i].code || !strstr(why.text, cases[i].word) ||
            !strstr(why.text, "config.json"))
            fail_msg("case %zu: %s \"%s\" lacks \"%s\"", i, err_name(rc),
                     why.text, cases[i].word);
    }
}

static void heads_must_share_evenly(void **state)
{
    (void)state;
    struct model_config c;
    struct why why = {0};
    assert_int_equal(read(&c,
                          "{" LLAMA "\"vocab_size\":9,\"hidden_size\":60,"
                          "\"num_hidden_layers\":1,\"num_attention_heads\":6,"
                          "\"num_key_value_heads\":4,"
                          "\"intermediate_size\":8}",
                          NULL, &why),
                     ERR_FORMAT);
    assert_non_null(strstr(why.text, "6 heads cannot share 4"));
}

/* --- GGUF ------------------------------------------------------------- */

static void gguf_sizes(struct gguf_build *b, const char *arch)
{
    char key[64];
    static const struct {
        const char *key;
        uint32_t value;
    } counts[] = {{"embedding_length", 64},    {"block_count", 2},
                  {"attention.head_count", 4}, {"attention.head_count_kv", 2},
                  {"feed_forward_length", 96}, {"context_length", 512}};
    const uint64_t shape[] = {100, 64};
    static float table[6400];
    gguf_build_init(b);
    gguf_build_string(b, "general.architecture", arch);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        snprintf(key, sizeof key, "%s.%s", arch, counts[i].key);
        gguf_build_u32(b, key, counts[i].value);
    }
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", arch);
    gguf_build_f32(b, key, 1e-5f);
    gguf_build_tensor(b, "token_embd.weight", 0, 2, shape, table, sizeof table);
}

static int read_gguf(struct model_config *c, struct gguf_build *b,
                     struct why *why)
{
    struct buf file;
    struct gguf *g;
    buf_init(&file, 1 << 20);
    gguf_build_finish(b, 3, &file);
    gguf_build_fini(b);
    assert_int_equal(gguf_parse(&g, "m.gguf", file.data, file.len, NULL), 0);
    int rc = config_from_gguf(c, g, "m.gguf", why);
    gguf_close(g);
    buf_fini(&file);
    return rc;
}

static void gguf_reads(void **state)
{
    (void)state;
    struct gguf_build b;
    struct model_config c;
    struct why why = {0};
    const char *tokens[] = {"a", "<|im_end|>", "<|endoftext|>", "<|eot_id|>"};
    const int32_t types[] = {1, 3, 3, 1}; /* the last is no control token */
    gguf_sizes(&b, "llama");
    gguf_build_f32(&b, "llama.rope.freq_base", 5e5f);
    gguf_build_strings(&b, "tokenizer.ggml.tokens", tokens, 4);
    gguf_build_ints(&b, "tokenizer.ggml.token_type", types, 4);
    gguf_build_u32(&b, "tokenizer.ggml.eos_token_id", 1);
    gguf_build_u32(&b, "tokenizer.ggml.bos_token_id", 2);
    int rc = read_gguf(&c, &b, &why);
    assert_string_equal(why.text, "");
    assert_int_equal(rc, 0);
    assert_string_equal(c.arch, "llama");
    assert_int_equal(c.vocab, 100);
    assert_int_equal(c.head_dim, 16);
    assert_true(c.tied && !c.attention_bias && !c.qk_norm);
    assert_true(c.rope.theta == 5e5);
    assert_int_equal(c.eos_count, 2);
    assert_int_equal(c.eos[0], 1);
    assert_int_equal(c.eos[1], 2);
    assert_int_equal(c.bos, 2);

    const float divisors[8] = {1, 1, 1, 1, 2, 4, 8, 8};
    gguf_sizes(&b, "qwen3");
    gguf_build_u32(&b, "qwen3.attention.key_length", 32);
    gguf_build_u32(&b, "qwen3.attention.value_length", 32);
    gguf_build_tensor(&b, "rope_freqs.weight", 0, 1, (uint64_t[]){8}, divisors,
                      sizeof divisors);
    assert_int_equal(read_gguf(&c, &b, &why), 0);
    assert_int_equal(c.head_dim, 32);
    assert_true(c.qk_norm);
    assert_int_equal(c.rope.kind, ROPE_DIVISORS);
}

static void refuse_gguf(struct gguf_build *b, int code, const char *word)
{
    struct model_config c;
    struct why why = {0};
    int rc = read_gguf(&c, b, &why);
    if (rc != code || !strstr(why.text, word) || !strstr(why.text, "m.gguf"))
        fail_msg("%s \"%s\" lacks \"%s\"", err_name(rc), why.text, word);
}

static void gguf_refusals_name_the_key(void **state)
{
    (void)state;
    struct gguf_build b;
    gguf_sizes(&b, "gemma");
    refuse_gguf(&b, ERR_UNSUPPORTED, "gemma");
    gguf_sizes(&b, "llama");
    gguf_build_u32(&b, "llama.expert_count", 8);
    refuse_gguf(&b, ERR_UNSUPPORTED, "llama.expert_count");
    gguf_sizes(&b, "llama");
    gguf_build_u32(&b, "llama.attention.sliding_window", 4096);
    refuse_gguf(&b, ERR_UNSUPPORTED, "sliding_window");
    gguf_sizes(&b, "llama");
    gguf_build_u32(&b, "llama.rope.dimension_count", 32);
    refuse_gguf(&b, ERR_FORMAT, "32 rotated");
    gguf_sizes(&b, "qwen3moe");
    refuse_gguf(&b, ERR_FORMAT, "qwen3moe.expert_count");
    gguf_sizes(&b, "llama");
    gguf_build_string(&b, "llama.rope.scaling.type", "longrope");
    refuse_gguf(&b, ERR_UNSUPPORTED, "longrope");
    gguf_sizes(&b, "llama");
    gguf_build_f32(&b, "llama.attention.key_length", 16);
    refuse_gguf(&b, ERR_FORMAT, "llama.attention.key_length");
    gguf_build_init(&b);
    refuse_gguf(&b, ERR_FORMAT, "general.architecture");
    gguf_build_init(&b);
    gguf_build_string(&b, "general.architecture", "llama");
    refuse_gguf(&b, ERR_FORMAT, "llama.embedding_length");
}

/* --- rope ------------------------------------------------------------- */

/* Against the numbers that transformers 5.23.0 gives for head_dim 16 (its
 * ROPE_INIT_FUNCTIONS; tools/golden/rope_freqs.py prints them). */
static void frequencies_match_transformers(void **state)
{
    (void)state;
    static const struct {
        const char *rope;
        float freqs[8];
    } cases[] = {
#include "tests/golden/model/rope_freqs.inc"
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[1024];
        struct model_config c;
        float freqs[8];
        snprintf(text, sizeof text, "{%s%s\"rope_parameters\":%s}", LLAMA,
                 SIZES, cases[i].rope);
        assert_int_equal(read(&c, text, NULL, NULL), 0);
        config_rope_freqs(&c, NULL, freqs);
        for (int k = 0; k < 8; k++)
            assert_float_equal(freqs[k] / cases[i].freqs[k], 1, 1e-6);
    }
}

TESTS(T(llama_reads), T(qwen3_reads_and_defaults), T(windows_and_experts_read),
      T(quantization_reads), T(scaling_reads),
      T(what_we_do_not_do_is_refused_by_name), T(heads_must_share_evenly),
      T(gguf_reads), T(gguf_refusals_name_the_key),
      T(frequencies_match_transformers))
