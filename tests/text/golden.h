/* tests/text/golden.h - files under tests/golden, from the tests' working
 * folder, which is the repository's root. */
#ifndef BATON_TESTS_TEXT_GOLDEN_H
#define BATON_TESTS_TEXT_GOLDEN_H

#include "tests/test.h"
#include "base/buf.h"
#include "json/json.h"

static inline json_t *golden_json(const char *path)
{
    json_t *json = NULL;
    struct why why = {0};
    if (json_read(&json, path, 1 << 24, &why)) fail_msg("%s", why.text);
    return json;
}

/* Where real tokenizers lie; skips the test where they do not. */
static inline const char *golden_data(void)
{
    const char *dir = getenv("BATON_TEST_DATA");
    if (!dir) SKIP("BATON_TEST_DATA is not set: no real tokenizers");
    return dir;
}

#endif
