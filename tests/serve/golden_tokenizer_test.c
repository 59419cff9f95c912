/* Tokenizers from GGUF files: SmolLM2's on 20 000 texts (tools/fetch-model puts
 * the file where this looks; it does not fetch by itself), and SentencePiece's
 * from files made here. */
#include "tests/model/gguf_build.h"
#include "tests/temp.h"
#include "tests/text/golden_hashes.h"
#include "tests/text/golden_spec.h"

#include "base/mem.h"
#include "serve/assets.h"

#include <unistd.h>

static void model_path(char out[4096])
{
    static const char name[] = "SmolLM2-135M-Instruct.Q4_1.gguf";
    const char *dir = getenv("BATON_CACHE"), *home = getenv("HOME");
    const char *xdg = getenv("XDG_CACHE_HOME");
    if (dir)
        snprintf(out, 4096, "%s/%s", dir, name);
    else if (xdg)
        snprintf(out, 4096, "%s/baton/%s", xdg, name);
    else
        snprintf(out, 4096, "%s/.cache/baton/%s", home ? home : "", name);
}

static void smollm2_as_hugging_face(void **state)
{
    (void)state;
    static struct golden_all all;
    char path[4096];
    struct assets *assets;
    struct why why = {0};
    model_path(path);
    if (access(path, R_OK) != 0)
        SKIP("no %s: tools/fetch-model fetches it", path);
    const struct assets_options options = {.model_path = path};
    if (assets_open(&assets, &options, &why)) fail_msg("%s", why.text);
    golden_all_make(&all);
    golden_expect_hashes(assets_tokenizer(assets), &all, 0, "smollm2");
    buf_fini(&all.bytes);
    assets_close(assets);
}

static void build_gguf(const struct golden_spec *g, struct buf *out)
{
    struct gguf_build b;
    const char *texts[GOLDEN_SPEC_MAX];
    size_t n = g->spec.token_count;
    for (size_t i = 0; i < n; i++)
        texts[i] = g->tokens[i].data;
    gguf_build_init(&b);
    gguf_build_string(&b, "tokenizer.ggml.model", g->spec.model);
    gguf_build_strings(&b, "tokenizer.ggml.tokens", texts, n);
    gguf_build_ints(&b, "tokenizer.ggml.token_type", g->types, n);
    gguf_build_floats(&b, "tokenizer.ggml.scores", g->scores, n);
    gguf_build_u32(&b, "tokenizer.ggml.bos_token_id", (uint32_t)g->spec.bos);
    gguf_build_u32(&b, "tokenizer.ggml.eos_token_id", (uint32_t)g->spec.eos);
    gguf_build_u32(&b, "tokenizer.ggml.unknown_token_id",
                   (uint32_t)g->spec.unk);
    gguf_build_bool(&b, "tokenizer.ggml.add_eos_token", true);
    gguf_build_finish(&b, 3, out);
    gguf_build_fini(&b);
}

static void sentencepiece_from_gguf(void **state)
{
    (void)state;
    static const char *const names[] = {"spm_bpe", "spm_unigram"};
    for (int i = 0; i < 2; i++) {
        struct golden_spec g;
        struct buf file;
        struct assets *assets;
        struct why why = {0};
        struct tokenizer *direct = NULL;
        struct token_list want = {0}, got = {0};
        char *dir = temp_dir(), path[4096];
        const char text[] = "Hello, hot \u4f60\u597d\n  <s>don't";
        snprintf(path, sizeof path, "%s/m.gguf", dir);
        golden_spec_open(&g, names[i]);
        g.spec.add_eos = 1;
        buf_init(&file, 1 << 20);
        build_gguf(&g, &file);
        temp_write(dir, "m.gguf", file.data, file.len);
        const struct assets_options options = {.model_path = path};
        if (assets_open(&assets, &options, &why)) fail_msg("%s", why.text);
        if (tokenizer_create(&direct, &g.spec, &why)) fail_msg("%s", why.text);
        const struct tokenizer *t = assets_tokenizer(assets);
        assert_int_equal(tokenizer_adds_bos(t), i == 0);
        tokenizer_encode(t, text, sizeof text - 1, TOKENIZER_ADD_SPECIAL, &got);
        tokenizer_encode(direct, text, sizeof text - 1, TOKENIZER_ADD_SPECIAL,
                         &want);
        assert_int_equal(got.ids[got.count - 1], g.spec.eos);
        assert_int_equal(got.count, want.count);
        assert_memory_equal(got.ids, want.ids, got.count * sizeof *got.ids);
        token_list_fini(&got);
        token_list_fini(&want);
        tokenizer_destroy(direct);
        assets_close(assets);
        buf_fini(&file);
        golden_spec_close(&g);
        temp_remove(dir);
    }
}

TESTS(T(smollm2_as_hugging_face), T(sentencepiece_from_gguf))
