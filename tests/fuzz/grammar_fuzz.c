/* The first byte: a regular expression, a JSON Schema, EBNF, structural
 * tags or a description of calls
 * (also its tools alone), and how to go on; the rest is its text. What compiles
 * is followed: only allowed tokens, which must be taken, until it ends or is
 * long. */
#include "base/buf.h"
#include "base/clock.h"
#include "text/grammar.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { WORDS = 3 };
static int32_t end;

/* A byte in GPT-2's alphabet. */
static uint32_t letter(unsigned byte)
{
    unsigned other = 256;
    for (unsigned b = 0;; b++) {
        bool plain = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) ||
                     (b >= 0xae && b <= 0xff);
        if (b == byte) return plain ? b : other;
        if (!plain) other++;
    }
}

/* All bytes, some words, and the end token. */
static struct grammars *grammars_once(void)
{
    static struct grammars *all;
    static const char *const words[WORDS] = {"{\"", "\",", "12"};
    if (all) return all;
    char store[256][4];
    struct tokenizer_text tokens[256 + WORDS + 1];
    int32_t types[256 + WORDS + 1];
    for (unsigned b = 0; b < 256; b++)
        tokens[b] =
            (struct tokenizer_text){store[b], utf8_put(store[b], letter(b))};
    for (int i = 0; i < WORDS; i++)
        tokens[256 + i] = (struct tokenizer_text){words[i], strlen(words[i])};
    end = 256 + WORDS;
    tokens[end] = (struct tokenizer_text){"<end>", 5};
    for (int32_t i = 0; i <= end; i++)
        types[i] = i < end ? TOKEN_NORMAL : TOKEN_CONTROL;
    const struct tokenizer_spec spec = {.model = "gpt2",
                                        .tokens = tokens,
                                        .token_count = (size_t)end + 1,
                                        .types = types,
                                        .bos = -1,
                                        .eos = end,
                                        .eot = -1,
                                        .unk = -1,
                                        .add_bos = -1};
    struct tokenizer *t;
    if (tokenizer_create(&t, &spec, NULL)) abort();
    return all = grammars_create(t);
}

static void follow(struct grammar *g, uint64_t seed)
{
    struct matcher *m = matcher_create(g, &end, 1, -1, -1);
    for (int n = 0; n < 60 && !matcher_ended(m); n++) {
        uint32_t vocab;
        const uint64_t *allowed = matcher_allowed(m, &vocab);
        uint32_t from = (uint32_t)(rng_next(&seed) % vocab), t = from;
        while (!(allowed[t / 64] >> t % 64 & 1)) {
            t = (t + 1) % vocab;
            if (t == from) abort(); /* nothing can follow, not even the end */
        }
        if (!matcher_accept(m, (int32_t)t)) abort();
    }
    matcher_destroy(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const formats[] = {"qwen25",     "qwen3_coder",
                                          "llama3",     "mistral",
                                          "deepseekv3", "deepseekv31"};
    struct grammar *g;
    struct why why = {0};
    if (!size) return 0;
    unsigned how = data[0];
    enum grammar_kind kind = how & 64             ? GRAMMAR_CALLS
                             : (how & 144) == 144 ? GRAMMAR_STRUCTURE
                             : how & 128          ? GRAMMAR_EBNF
                             : how & 1            ? GRAMMAR_REGEX
                                                  : GRAMMAR_JSON_SCHEMA;
    bool tools = (how & 96) == 96;
    struct buf text;
    buf_init(&text, 1 << 20);
    if (tools)
        buf_printf(&text, "{\"format\":\"%s\",\"must\":%s,\"tools\":",
                   formats[(how & 31) % 6],
                   (how & 31) / 6 % 2 ? "true" : "false");
    buf_add(&text, (const char *)data + 1, size - 1);
    if (tools) buf_putc(&text, '}');
    int rc = grammars_get(grammars_once(), kind, text.data ? text.data : "",
                          text.len, &g, &why);
    buf_fini(&text);
    if (rc && why.code != rc) abort();
    if (rc) return 0;
    follow(g, data[0]);
    grammar_drop(g);
    return 0;
}
