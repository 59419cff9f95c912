/* Any bytes as a request and as two answers. What the skimmer accepts and
 * what jansson accepts differ only in numbers' ranges, UTF-8, lone surrogates
 * and duplicate keys (and a NUL at the end): what jansson takes, the skimmer
 * takes; what is built from a body that jansson takes, jansson takes. */
#include "json/json.h"
#include "router/body.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int jansson_takes(const char *text, size_t n)
{
    json_t *json = NULL;
    if (memchr(text, 0, n)) return 0;
    int rc = json_parse(&json, text, n, NULL);
    json_decref(json);
    return rc == 0;
}

/* Walks all of a value. */
static size_t walk(struct skim value)
{
    struct skim key, one;
    size_t sum = skim_true(value);
    for (size_t at = 0; skim_member_next(value, &at, &key, &one);)
        sum += skim_key_is(key, "bootstrap_room") + walk(one);
    for (size_t at = 0; skim_element_next(value, &at, &one);)
        sum += 1 + walk(one);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct body body;
    struct skim value;
    struct buf out;
    int taken = jansson_takes(text, size);
    int rc = skim_check(&value, text, size, NULL);
    if (taken && rc) abort();
    if (!rc) walk(value);
    buf_init(&out, 1 << 24);
    if (body_parse(&body, text, size, true, NULL) == 0) {
        if (body_build(&body, "[::1]", 6657, NULL, &out)) abort();
        if (taken && !jansson_takes(out.data, out.len)) abort();
        struct body again;
        if (body_parse(&again, out.data, out.len, true, NULL) ||
            again.batch != body.batch || again.stream != body.stream)
            abort();
    }
    buf_reset(&out);
    body_merge(text, size / 2, text + size / 2, size - size / 2, &out);
    buf_reset(&out);
    body_merge(text, size, text, size, &out);
    if (taken && !jansson_takes(out.data, out.len)) abort();
    buf_fini(&out);
    return 0;
}
