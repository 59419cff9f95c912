/* encode-ids TOKENIZER [plain]: ids of texts from stdin, for
 * tools/golden/tok_diff.py; plain: special tokens are ordinary text.
 * TOKENIZER is a tokenizer.json, a model folder or a GGUF file. A text comes as
 * four bytes of length, little-endian, and its bytes; out goes a line of ids,
 * and a line of what they decode to as a JSON string. */
#include "base/buf.h"
#include "serve/assets.h"
#include "text/detok.h"

#include <stdio.h>
#include <string.h>

static void answer(const struct tokenizer *t, const struct token_list *list)
{
    struct buf back, json;
    struct detok d;
    buf_init(&back, SIZE_MAX / 2);
    buf_init(&json, SIZE_MAX / 2);
    detok_init(&d, t, false);
    for (size_t i = 0; i < list->count; i++) {
        printf("%s%d", i ? " " : "", (int)list->ids[i]);
        detok_feed(&d, list->ids[i], &back);
    }
    detok_flush(&d, &back);
    buf_json(&json, back.data ? back.data : "", back.len);
    printf("\n\"%s\"\n", json.data ? json.data : "");
    buf_fini(&back);
    buf_fini(&json);
}

static int answer_all(const struct tokenizer *t, unsigned flags)
{
    unsigned char size[4];
    struct token_list list = {0};
    struct buf text;
    int rc = 0;
    buf_init(&text, SIZE_MAX / 2);
    while (!rc && fread(size, 1, 4, stdin) == 4) {
        size_t n = size[0] | (size_t)size[1] << 8 | (size_t)size[2] << 16 |
                   (size_t)size[3] << 24;
        buf_reset(&text);
        char *to = buf_grow(&text, n + 1);
        if (!to || fread(to, 1, n, stdin) != n) break;
        list.count = 0;
        rc = tokenizer_encode(t, to, n, flags, &list);
        if (!rc) answer(t, &list);
    }
    buf_fini(&text);
    token_list_fini(&list);
    return rc;
}

int main(int argc, char **argv)
{
    struct tokenizer *json = NULL;
    struct assets *assets = NULL;
    struct why why = {0};
    if (argc < 2 || argc > 3) return 2;
    unsigned flags = argc == 3 ? TOKENIZER_PLAIN_SPECIAL : 0;
    size_t n = strlen(argv[1]);
    bool is_json = n > 5 && strcmp(argv[1] + n - 5, ".json") == 0;
    int rc = is_json
                 ? tokenizer_open(&json, argv[1], NULL, &why)
                 : assets_open(&assets,
                               &(struct assets_options){.model_path = argv[1]},
                               &why);
    if (rc) fprintf(stderr, "encode-ids: %s\n", why_text(&why, rc));
    if (!rc) rc = answer_all(json ? json : assets_tokenizer(assets), flags);
    tokenizer_destroy(json);
    assets_close(assets);
    return rc ? 1 : 0;
}
