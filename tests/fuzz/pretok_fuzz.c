/* Each hand-written scanner must cut any text as its expression does in PCRE2.
 * Characters that PCRE2's older Unicode has otherwise are taken out first. */
#include "base/buf.h"
#include "text/pretok.h"
#include "text/unicode.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct cuts {
    size_t ends[8192], count;
    const char *start;
};

static int note(void *arg, const struct pieces *p)
{
    struct cuts *c = arg;
    size_t at = (size_t)(p->text - c->start);
    for (size_t i = 0; i < p->count; i++)
        c->ends[c->count++] = at += p->lens[i];
    return 0;
}

/* PCRE2 10.42 is Unicode 14 and counts U+180E as \\s: only the BMP blocks that
 * were full by then, and a few others, are kept. */
static bool same_in_both(uint32_t cp)
{
    return cp < 0x870 || (cp >= 0x900 && cp < 0xa00) ||
           (cp >= 0x2000 && cp < 0x2100) || (cp >= 0x3000 && cp < 0x3100) ||
           (cp >= 0x4e00 && cp < 0x9fff) || (cp >= 0xac00 && cp < 0xd7a4) ||
           (cp >= 0x1f600 && cp < 0x1f650) || (cp >= 0x1d7ce && cp < 0x1d800);
}

static void compare(enum pretok_pattern pattern, const struct buf *text)
{
    static struct cuts fast, slow;
    struct pretok *scanner, *regex;
    const char *source = pretok_regex(pattern);
    const struct pretok_split how = {.pattern = source,
                                     .len = strlen(source),
                                     .is_regex = true,
                                     .plain = true};
    pretok_create(&scanner);
    pretok_create(&regex);
    if (pretok_add(scanner, pattern, NULL) ||
        pretok_add_split(regex, &how, NULL))
        abort();
    fast.start = slow.start = text->data;
    fast.count = slow.count = 0;
    if (pretok_split(scanner, text->data, text->len, PRETOK_START, note, &fast))
        abort();
    if (pretok_split(regex, text->data, text->len, PRETOK_START, note, &slow))
        abort();
    if (fast.count != slow.count ||
        memcmp(fast.ends, slow.ends, fast.count * sizeof *fast.ends) != 0)
        abort();
    pretok_destroy(scanner);
    pretok_destroy(regex);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf text;
    size_t len;
    if (size < 2 || size > 2000) return 0;
    buf_init(&text, 1 << 20);
    const char *s = (const char *)data + 1;
    for (size_t i = 0; i < size - 1; i += len) {
        int32_t cp = utf8_scan(s + i, size - 1 - i, &len);
        if (cp >= 0 && same_in_both((uint32_t)cp)) buf_add(&text, s + i, len);
    }
    if (text.len)
        compare((enum pretok_pattern)(data[0] % PRETOK_PATTERNS), &text);
    buf_fini(&text);
    return 0;
}
