/* A weight cache of any bytes: refused with a text, or every weight's bytes lie
 * in it. Its checksums are made to fit, so that what they guard is reached. */
#include "base/checksum.h"
#include "base/mem.h"
#include "model/cache.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse(const uint8_t *bytes, size_t size)
{
    struct cache_index index;
    struct why why = {0};
    if (cache_parse(&index, "fuzz", bytes, size, NULL, &why)) {
        if (!why.text[0]) abort();
        return;
    }
    volatile uint8_t last = 0;
    for (size_t i = 0; i < index.count; i++) {
        const struct cache_entry *e = &index.entries[i];
        if (strlen(e->name) >= sizeof e->name) abort();
        last ^= bytes[e->at] ^ bytes[e->at + e->bytes - 1];
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = mem_must(size + 1, 1); /* aligned, as a mapping is */
    if (size) memcpy(copy, data, size);
    parse(copy, size);
    struct cache_head h;
    if (size >= sizeof h) {
        memcpy(&h, copy, sizeof h);
        h.file_bytes = size;
        if (h.index_at <= size && h.index_bytes <= size - h.index_at)
            h.index_check = checksum64(copy + h.index_at, h.index_bytes);
        h.head_check = checksum64(&h, offsetof(struct cache_head, head_check));
        memcpy(copy, &h, sizeof h);
        parse(copy, size);
    }
    mem_free(copy);
    return 0;
}
