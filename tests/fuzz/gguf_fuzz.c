/* A GGUF file of any bytes: read, or refused with a text; then everything
 * that the readers above take from it. */
#include "base/mem.h"
#include "model/config.h"
#include "model/gguf.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void look_at(const struct gguf *g)
{
    static const char *const keys[] = {
        "general.architecture",        "tokenizer.ggml.tokens",
        "tokenizer.ggml.token_type",   "tokenizer.ggml.merges",
        "tokenizer.ggml.eos_token_id", "llama.rope.freq_base",
        "tokenizer.chat_template",     "tokenizer.ggml.add_bos_token"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        uint64_t u;
        double d;
        bool b;
        const char *s = NULL;
        struct gguf_string *strings;
        int32_t *ints;
        float *floats;
        size_t n, bytes = 0;
        gguf_get_uint(g, keys[i], &u, NULL);
        gguf_get_real(g, keys[i], &d, NULL);
        gguf_get_bool(g, keys[i], &b, NULL);
        if (!gguf_get_string(g, keys[i], &s, NULL) && s) bytes += strlen(s);
        gguf_get_string_array(g, keys[i], &strings, &n, NULL);
        for (size_t k = 0; strings && k < n; k++)
            for (size_t at = 0; at < strings[k].len; at++)
                bytes += (unsigned char)strings[k].data[at];
        mem_free(strings);
        gguf_get_int_array(g, keys[i], &ints, &n, NULL);
        mem_free(ints);
        gguf_get_f32_array(g, keys[i], &floats, &n, NULL);
        mem_free(floats);
        if (bytes == (size_t)-1) abort(); /* so that the sum is needed */
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf *g;
    struct why why = {0};
    struct model_config config;
    int rc = gguf_parse(&g, "fuzz", data, size, &why);
    if (rc) {
        if (!why.text[0]) abort();
        return 0;
    }
    unsigned sum = 0;
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct stored_tensor *t = gguf_tensor(g, i);
        if (gguf_find(g, t->name) != t) abort();
        if (t->size) sum += t->bytes[0] + t->bytes[t->size - 1];
    }
    if (sum == 1u << 31) abort();
    look_at(g);
    if (config_from_gguf(&config, g, "fuzz", &why) && !why.text[0]) abort();
    gguf_close(g);
    return 0;
}
