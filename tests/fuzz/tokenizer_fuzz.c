/* The first byte chooses: a tokenizer.json, a tokenizer_config.json (or names
 * alone) beside a small tokenizer.json, or text for a small tokenizer of one
 * kind, whose ids must decode to whole characters. */
#include "base/buf.h"
#include "text/detok.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

#define SMALL                                                                \
    "{\"added_tokens\":[{\"id\":9,\"content\":\"<s>\",\"special\":true}],"   \
    "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":" \
    "\"Digits\",\"individual_digits\":true},{\"type\":\"ByteLevel\","        \
    "\"add_prefix_space\":false}]},\"decoder\":{\"type\":\"ByteLevel\"},"    \
    "\"model\":{\"type\":\"BPE\",\"unk_token\":\"a\",\"vocab\":{\"a\":0,"    \
    "\"b\":1,\"\\u0120\":2,\"ab\":3,\"\\u0120a\":4,\"aa\":5},\"merges\":["   \
    "\"a b\",[\"\\u0120\",\"a\"],\"a a\"]}}"

#define TEXT(decoder, model)                                               \
    "{\"added_tokens\":[{\"id\":9,\"content\":\"<s>\",\"special\":true}]," \
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":"    \
    "\"NFKC\"},{\"type\":\"Prepend\",\"prepend\":\"_\"},{\"type\":"        \
    "\"Replace\",\"pattern\":{\"Regex\":\"[ x]+\"},\"content\":\"_\"}]},"  \
    "\"decoder\":" decoder ",\"model\":" model "}"
/* SentencePiece's merges, with two byte tokens; and a unigram. */
#define MERGES                                                          \
    TEXT("{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\","  \
         "\"pattern\":{\"String\":\"_\"},\"content\":\" \"},{\"type\":" \
         "\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\","   \
         "\"content\":\" \",\"start\":1,\"stop\":0}]}",                 \
         "{\"type\":\"BPE\",\"byte_fallback\":true,\"fuse_unk\":true,"  \
         "\"unk_token\":\"?\",\"vocab\":{\"?\":0,\"_\":1,\"a\":2,"      \
         "\"_a\":3,\"<0xC3>\":4,\"<0xA9>\":5},\"merges\":[\"_ a\"]}")
#define UNIGRAM                                                       \
    TEXT("{\"type\":\"Metaspace\",\"replacement\":\"_\"}",            \
         "{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"?\",0.0]," \
         "[\"_\",-1.5],[\"a\",-2],[\"_a\",-2.5],[\"aa\",-3e0]]}")

static const char *small(uint8_t which)
{
    return which == 'm' ? MERGES : which == 'u' ? UNIGRAM : SMALL;
}

static void encode(const struct tokenizer *t, const uint8_t *data, size_t size)
{
    struct token_list list = {.max = 1 << 20};
    struct detok d;
    struct buf out;
    buf_init(&out, 1 << 22);
    if (tokenizer_encode(t, (const char *)data, size, TOKENIZER_ADD_SPECIAL,
                         &list))
        abort();
    detok_init(&d, t, true);
    for (size_t i = 0; i < list.count; i++)
        detok_feed(&d, list.ids[i], &out);
    detok_flush(&d, &out);
    if (out.len && utf8_valid(out.data, out.len) != out.len) abort();
    buf_fini(&out);
    token_list_fini(&list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tokenizer *t = NULL;
    struct why why = {0};
    if (!size) return 0;
    const char *rest = (const char *)data + 1;
    int rc = 0;
    if (data[0] == 'j')
        rc = tokenizer_parse(&t, rest, size - 1, NULL, &why);
    else if (data[0] == 'c' || data[0] == 'n')
        rc = tokenizer_parse(
            &t, SMALL, sizeof SMALL - 1,
            &(struct tokenizer_texts){
                .config = {data[0] == 'c' ? rest : NULL, size - 1},
                .names = {rest, size - 1}},
            &why);
    else if (tokenizer_parse(&t, small(data[0]), strlen(small(data[0])), NULL,
                             &why))
        abort();
    if (rc && why.code != rc) abort(); /* every refusal has a reason */
    if (!rc) encode(t, data, size);
    tokenizer_destroy(t);
    return 0;
}
