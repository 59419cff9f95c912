/* 20 000 texts and documents of 1 MB through every kind of tokenizer. */
#include "tests/text/golden_hashes.h"

#include "tests/text/golden_spec.h"

#include "base/mem.h"

static struct golden_all all;

static int make_texts(void **state)
{
    (void)state;
    golden_all_make(&all);
    return 0;
}

static int drop_texts(void **state)
{
    (void)state;
    buf_fini(&all.bytes);
    return 0;
}

static void expect_file(const char *path, const char *name)
{
    struct tokenizer *t = NULL;
    struct why why = {0};
    if (tokenizer_open(&t, path, NULL, &why)) fail_msg("%s", why.text);
    golden_expect_hashes(t, &all, 0, name);
    tokenizer_destroy(t);
}

static void expect_tiny(const char *const *names, size_t count)
{
    size_t before = mem_live();
    for (size_t i = 0; i < count; i++) {
        char path[200];
        snprintf(path, sizeof path, "tests/golden/tokenizer/%s.json", names[i]);
        expect_file(path, names[i]);
    }
    assert_int_equal(mem_live(), before);
}

#define EXPECT_TINY(...)                                     \
    expect_tiny((const char *const[]){__VA_ARGS__},          \
                sizeof((const char *const[]){__VA_ARGS__}) / \
                    sizeof(const char *))

static void byte_level_families(void **state)
{
    (void)state;
    EXPECT_TINY("tiny_qwen", "tiny_llama", "tiny_deepseek", "tiny_smollm");
}

static void byte_level_with_other_stages(void **state)
{
    (void)state;
    EXPECT_TINY("tiny_prefix", "tiny_other");
}

static void sentencepiece_merges(void **state)
{
    (void)state;
    EXPECT_TINY("tiny_spm", "tiny_metaspace", "tiny_joined");
}

static void unigrams(void **state)
{
    (void)state;
    EXPECT_TINY("tiny_unigram", "tiny_unigram_bytes", "tiny_precompiled");
}

static void every_other_part(void **state)
{
    (void)state;
    EXPECT_TINY("tiny_parts", "tiny_parts_more");
}

/* The first against sentencepiece itself, to which all text is ordinary. */
static void sentencepiece_from_arrays(void **state)
{
    (void)state;
    static const char *const names[] = {"spm_bpe", "spm_unigram"};
    for (int i = 0; i < 2; i++) {
        struct golden_spec g;
        struct tokenizer *t = NULL;
        struct why why = {0};
        golden_spec_open(&g, names[i]);
        if (tokenizer_create(&t, &g.spec, &why)) fail_msg("%s", why.text);
        golden_spec_close(&g);
        golden_expect_hashes(t, &all, TOKENIZER_PLAIN_SPECIAL, names[i]);
        tokenizer_destroy(t);
    }
}

/* Folders with tokenizer.model: against sentencepiece, and against transformers
 * where tokenizer_config.json names its class. */
static void expect_model(const char *name, unsigned flags)
{
    char model[200], config[200];
    struct tokenizer *t = NULL;
    struct why why = {0};
    snprintf(model, sizeof model, "tests/golden/tokenizer/%s/tokenizer.model",
             name);
    snprintf(config, sizeof config,
             "tests/golden/tokenizer/%s/tokenizer_config.json", name);
    const struct tokenizer_paths beside = {.config = config};
    if (tokenizer_open_model(&t, model, &beside, &why))
        fail_msg("%s", why.text);
    golden_expect_hashes(t, &all, flags, name);
    tokenizer_destroy(t);
}

static void sentencepiece_files(void **state)
{
    (void)state;
    size_t before = mem_live();
    expect_model("spm_own", TOKENIZER_PLAIN_SPECIAL);
    expect_model("spm_rules", TOKENIZER_PLAIN_SPECIAL);
    expect_model("spm_nfkc", TOKENIZER_PLAIN_SPECIAL);
    expect_model("spm_llama", 0);
    expect_model("spm_legacy", 0);
    assert_int_equal(mem_live(), before);
}

static void expect_real(const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s/tokenizer.json", golden_data(), name);
    expect_file(path, name);
}

static void qwen3(void **state)
{
    (void)state;
    expect_real("qwen3");
}

static void llama3_1(void **state)
{
    (void)state;
    expect_real("llama3_1");
}

static void deepseek_v3(void **state)
{
    (void)state;
    expect_real("deepseek_v3");
}

int main(void)
{
    const struct CMUnitTest tests[] = {T(byte_level_families),
                                       T(byte_level_with_other_stages),
                                       T(sentencepiece_merges),
                                       T(unigrams),
                                       T(every_other_part),
                                       T(sentencepiece_from_arrays),
                                       T(sentencepiece_files),
                                       T(qwen3),
                                       T(llama3_1),
                                       T(deepseek_v3)};
    return cmocka_run_group_tests(tests, make_texts, drop_texts);
}
