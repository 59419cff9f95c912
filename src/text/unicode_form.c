/* Normal forms and lower case, on utf8proc (Unicode 15.0) and short lists of
 * what Hugging Face's older normalizer does not know and its newer case table
 * does (tools/golden/tok_unicode.py). Canonical ordering is our own: utf8proc
 * sorts long runs of marks in quadratic time. */
#include "text/unicode.h"
#include "base/mem.h"

#include <string.h>
#include <utf8proc.h>

static const utf8proc_option_t options_of[] = {
    [UNICODE_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
    [UNICODE_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
    [UNICODE_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
    [UNICODE_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
};

static int ccc(utf8proc_int32_t cp)
{
    return utf8proc_get_property(cp)->combining_class;
}

/* Stable sort of marks by combining class, 1 to 255. */
static bool sort_marks(utf8proc_int32_t *marks, size_t n)
{
    if (n < 32) {
        for (size_t i = 1; i < n; i++) {
            utf8proc_int32_t mark = marks[i];
            size_t j = i;
            for (; j && ccc(marks[j - 1]) > ccc(mark); j--)
                marks[j] = marks[j - 1];
            marks[j] = mark;
        }
        return true;
    }
    utf8proc_int32_t *copy = mem_try(n, sizeof *copy, 0);
    if (!copy) return false;
    memcpy(copy, marks, n * sizeof *copy);
    size_t start[257] = {0};
    for (size_t i = 0; i < n; i++)
        start[ccc(copy[i]) + 1]++;
    for (int c = 1; c < 257; c++)
        start[c] += start[c - 1];
    for (size_t i = 0; i < n; i++)
        marks[start[ccc(copy[i])]++] = copy[i];
    mem_free(copy);
    return true;
}

static bool order(utf8proc_int32_t *cps, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t from = i;
        while (i < n && ccc(cps[i]))
            i++;
        if (i - from > 1 && !sort_marks(cps + from, i - from)) return false;
        if (i == from) i++;
    }
    return true;
}

/* The most code points that one character decomposes into: U+FDFA by NFKD. */
enum { EXPANSION = 18, WINDOW = 32 };

static void form_window(struct buf *out, utf8proc_option_t options,
                        const char *s, size_t n)
{
    utf8proc_int32_t small[WINDOW * EXPANSION], *cps = small;
    size_t count = 0, len;
    if (n > WINDOW) cps = mem_try(n, EXPANSION * sizeof *cps, 0);
    if (!cps) {
        out->failed = 1;
        return;
    }
    for (size_t i = 0; i < n; i += len) {
        int bound = 0;
        count += (size_t)utf8proc_decompose_char(
            (utf8proc_int32_t)utf8_get(s + i, &len), cps + count, EXPANSION,
            options, &bound);
    }
    if (!order(cps, count)) {
        out->failed = 1;
        count = 0;
    }
    if (options & UTF8PROC_COMPOSE)
        count = (size_t)utf8proc_normalize_utf32(cps, (utf8proc_ssize_t)count,
                                                 options);
    for (size_t i = 0; i < count; i++)
        utf8_add(out, (uint32_t)cps[i]);
    if (cps != small) mem_free(cps);
}

/* NFC works on windows: a window starts at the character before one that NFC
 * may touch and ends before the next that it surely leaves alone. Between
 * windows text is copied. */

/* Bytes up to the first character to check; *start: where its window starts. */
static size_t to_check(const char *s, size_t n, size_t *start)
{
    size_t i = 0, len;
    unsigned was = UNICODE_NFC_UNKNOWN;
    *start = 0;
    while (i < n) {
        size_t ascii = utf8_ascii(s + i, n - i);
        if (ascii) {
            i += ascii;
            *start = i - 1;
            was = 0;
            continue;
        }
        unsigned c = unicode_class(s + i, &len);
        if (c & UNICODE_NFC_CHECK) break;
        *start = i;
        was = c;
        i += len;
    }
    if (was & UNICODE_NFC_UNKNOWN) *start = i;
    return i;
}

size_t unicode_nfc_prefix(const char *s, size_t n)
{
    size_t i = 0, start;
    /* Below U+0300 nothing composes: its bytes are all below 0xcc. */
    while (i < n && (unsigned char)s[i] < 0xcc)
        i++;
    if (i == n) return n;
    size_t len = to_check(s, n, &start);
    return len == n ? n : start;
}

static void to_nfc(struct buf *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t start, check = to_check(s + i, n - i, &start), len;
        if (check == n - i) {
            buf_add(out, s + i, n - i);
            return;
        }
        size_t end = i + check;
        while (end < n && (unicode_class(s + end, &len) & UNICODE_NFC_CHECK))
            end += len;
        buf_add(out, s + i, start);
        form_window(out, options_of[UNICODE_NFC], s + i + start,
                    end - i - start);
        i = end;
    }
}

/* The other forms work on windows that start at a character which no form
 * changes or joins to its left. */

static bool unknown(uint32_t cp, utf8proc_option_t options)
{
    static const struct {
        uint32_t from, to;
    } compat[] = {{0x32ff, 0x32ff},   {0xa7f2, 0xa7f4},   {0xab69, 0xab69},
                  {0x10781, 0x10785}, {0x10787, 0x107b0}, {0x107b2, 0x107ba},
                  {0x1e030, 0x1e06d}, {0x1f16c, 0x1f16c}, {0x1fbf0, 0x1fbf9}};
    if (unicode_class_wide(cp) & UNICODE_NFC_UNKNOWN) return true;
    if (cp == 0x11938 && !(options & UTF8PROC_COMPOSE)) return true;
    if (!(options & UTF8PROC_COMPAT)) return false;
    for (size_t i = 0; i < sizeof compat / sizeof *compat; i++)
        if (cp >= compat[i].from && cp <= compat[i].to) return true;
    return false;
}

static bool stands_alone(uint32_t cp)
{
    if (cp < 0x80) return true;
    const utf8proc_property_t *p = utf8proc_get_property((utf8proc_int32_t)cp);
    bool hangul = cp >= 0xac00 && cp <= 0xd7a3; /* decomposed by arithmetic */
    return !p->combining_class && p->decomp_seqindex == UINT16_MAX && !hangul &&
           !(unicode_class_wide(cp) & UNICODE_NFC_CHECK);
}

static void to_form(struct buf *out, utf8proc_option_t options, const char *s,
                    size_t n)
{
    size_t from = 0, len;
    for (size_t i = 0; i < n; i += len) {
        uint32_t cp = utf8_get(s + i, &len);
        bool copied = unknown(cp, options);
        if (!copied && !stands_alone(cp)) continue;
        if (i > from) form_window(out, options, s + from, i - from);
        from = i;
        if (!copied) continue;
        buf_add(out, s + i, len);
        from = i + len;
    }
    if (n > from) form_window(out, options, s + from, n - from);
}

void unicode_normalize(struct buf *out, enum unicode_form form, const char *s,
                       size_t n)
{
    if (form == UNICODE_NFC)
        to_nfc(out, s, n);
    else
        to_form(out, options_of[form], s, n);
}

/* Rust's char::to_lowercase: Unicode 17, without regard to the word. */

static uint32_t lower(uint32_t cp)
{
    switch (cp) {
    case 0x1c89: return 0x1c8a;
    case 0xa7cb: return 0x264;
    case 0xa7dc: return 0x19b;
    case 0xa7cc:
    case 0xa7ce:
    case 0xa7d2:
    case 0xa7d4:
    case 0xa7da: return cp + 1;
    default: break;
    }
    if (cp >= 0x10d50 && cp <= 0x10d65) return cp + 0x20;
    if (cp >= 0x16ea0 && cp <= 0x16eb8) return cp + 0x1b;
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
}

void unicode_lower(struct buf *out, const char *s, size_t n)
{
    size_t len;
    for (size_t i = 0; i < n; i += len) {
        uint32_t cp = utf8_get(s + i, &len);
        utf8_add(out, lower(cp));
        if (cp == 0x130) utf8_add(out, 0x307);
    }
}
