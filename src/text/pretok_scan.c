/* A scanner looks at the start of what is left of a piece and says how long the
 * next part is. Each is its expression read as a program: alternatives in
 * order, the first that matches wins, greedy inside; `gap` is what an
 * expression leaves unmatched. */
#include "text/pretok_scan.h"
#include "text/unicode.h"

#include <endian.h>
#include <string.h>

static const char *const regexes[PRETOK_PATTERNS] = {
    [PRETOK_GPT2] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| "
                    "?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    [PRETOK_QWEN2] =
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
        "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    [PRETOK_LLAMA3] =
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
        "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    [PRETOK_DEEPSEEK3] =
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}"
        "\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+"
        "|\\s+(?!\\S)|\\s+",
    [PRETOK_NUMBERS3] = "\\p{N}{1,3}",
    [PRETOK_CJK] = "[一-龥\u3040-ゟ゠-ヿ]+",
};

const char *pretok_regex(enum pretok_pattern pattern)
{
    return regexes[pattern];
}

enum {
    L = UNICODE_LETTER,
    N = UNICODE_NUMBER,
    M = UNICODE_MARK,
    PS = UNICODE_PUNCT | UNICODE_SYMBOL,
    WS = UNICODE_SPACE
};

static bool ascii_letter(char c)
{
    return (unsigned char)((c | 0x20) - 'a') < 26;
}

/* End of the run of characters that have one of the bits. */
static const char *run_of(const char *s, const char *end, unsigned bits)
{
    size_t len;
    while (s < end && (unicode_class(s, &len) & bits))
        s += len;
    return s;
}

/* The top bit of each byte that is no letter of ASCII. */
static inline uint64_t not_ascii_letters(uint64_t eight)
{
    const uint64_t each = 0x0101010101010101u;
    uint64_t low = (eight | 0x20 * each) & 0x7f * each;
    uint64_t from_a = low + (0x80 - 'a') * each;
    uint64_t past_z = low + (0x7f - 'z') * each;
    return (~from_a | past_z | eight) & 0x80 * each;
}

/* End of the run of ASCII letters, which is of eight bytes or less often. */
static inline const char *ascii_letters(const char *s, const char *end)
{
    for (; end - s >= 8; s += 8) {
        uint64_t eight;
        memcpy(&eight, s, 8);
        uint64_t others = not_ascii_letters(le64toh(eight));
        if (others) return s + __builtin_ctzll(others) / 8;
    }
    while (s < end && ascii_letter(*s))
        s++;
    return s;
}

/* End of the run of letters. */
static inline const char *letters(const char *s, const char *end)
{
    for (;;) {
        size_t len;
        s = ascii_letters(s, end);
        if (s == end || !((unsigned char)*s & 0x80)) return s;
        do {
            if (!(unicode_class(s, &len) & L)) return s;
            s += len;
        } while (s < end && (unsigned char)*s & 0x80);
    }
}

static const char *run_without(const char *s, const char *end, unsigned bits)
{
    size_t len;
    while (s < end && !(unicode_class(s, &len) & bits))
        s += len;
    return s;
}

static bool newline(char c)
{
    return c == '\r' || c == '\n';
}

static const char *newlines(const char *s, const char *end)
{
    while (s < end && newline(*s))
        s++;
    return s;
}

/* "\s*[\r\n]+|\s+(?!\S)|\s+", or without the first alternative. */
static size_t spaces(const char *s, const char *end, bool lines)
{
    const char *after = s, *last = s, *line = NULL;
    size_t len;
    for (; after < end && (unicode_class(after, &len) & WS); after += len) {
        last = after;
        if (newline(*after)) line = after + 1;
    }
    if (lines && line) return (size_t)(line - s);
    if (after == end || last == s) return (size_t)(after - s);
    return (size_t)(last - s);
}

/* "'s|'t|'re|'ve|'m|'ll|'d": its length at s, or 0. */
static size_t contraction(const char *s, const char *end, bool any_case)
{
    if (end - s < 2 || *s != '\'') return 0;
    unsigned char a = (unsigned char)s[1];
    unsigned char b = end - s > 2 ? (unsigned char)s[2] : 0;
    if (any_case) {
        if (a == 0xc5 && b == 0xbf) return 3; /* long s folds to s */
        if (a >= 'A' && a <= 'Z') a |= 0x20;
        if (b >= 'A' && b <= 'Z') b |= 0x20;
    }
    switch (a) {
    case 's':
    case 't':
    case 'm':
    case 'd': return 2;
    case 'r':
    case 'v': return b == 'e' ? 3 : 0;
    case 'l': return b == 'l' ? 3 : 0;
    default: return 0;
    }
}

static inline size_t gpt2(const char *s, const char *end)
{
    size_t len = contraction(s, end, false);
    if (len) return len;
    const char *body = s;
    unsigned c = unicode_class(s, &len);
    if (*s == ' ' && end - s > 1) {
        unsigned next = unicode_class(s + 1, &len);
        if (!(next & WS)) {
            body = s + 1;
            c = next;
        }
    }
    if (c & WS) return spaces(s, end, false);
    const char *rest = body + len;
    if (c & L) return (size_t)(letters(rest, end) - s);
    if (c & N) return (size_t)(run_of(rest, end, N) - s);
    return (size_t)(run_without(rest, end, WS | L | N) - s);
}

static const char *up_to_3_numbers(const char *s, const char *end)
{
    size_t len;
    for (int i = 0; i < 3 && s < end && (unicode_class(s, &len) & N); i++)
        s += len;
    return s;
}

/* Llama 3's and Qwen's, which differ in how many numbers go together. */
static inline size_t scan_words(const char *s, const char *end, bool one_number)
{
    size_t len, next_len;
    const char *word = s + (*s == ' ');
    if (word < end && ascii_letter(*word)) /* most pieces are such words */
        return (size_t)(letters(word, end) - s);
    unsigned c = unicode_class(s, &len);
    if (c & L) return (size_t)(letters(s + len, end) - s);
    if (c & N) return one_number ? len : (size_t)(up_to_3_numbers(s, end) - s);
    if (*s == '\'') {
        size_t n = contraction(s, end, true);
        if (n) return n;
    }
    const char *next = s + len;
    unsigned d = next < end ? unicode_class(next, &next_len) : WS;
    if ((d & L) && !newline(*s))
        return (size_t)(letters(next + next_len, end) - s);
    if (!(c & WS) || (*s == ' ' && !(d & (WS | L | N))))
        return (size_t)(newlines(run_without(next, end, WS | L | N), end) - s);
    return spaces(s, end, true);
}

static inline size_t llama3(const char *s, const char *end)
{
    return scan_words(s, end, false);
}

static inline size_t qwen2(const char *s, const char *end)
{
    return scan_words(s, end, true);
}

static bool cjk(const char *s, size_t *len)
{
    if ((unsigned char)*s < 0xe3) {
        *len = utf8_len((unsigned char)*s);
        return false;
    }
    uint32_t cp = utf8_get(s, len);
    return (cp >= 0x4e00 && cp <= 0x9fa5) || (cp >= 0x3040 && cp <= 0x30ff);
}

/* DeepSeek V3 cuts at numbers, then at ideographs and kana, then what is left
 * by its third expression, which sees one part at a time: where that ends, its
 * text ends. */
enum part {
    ANY,   /* the text is one part */
    CJK,   /* ideographs and kana */
    OTHER, /* neither those nor numbers */
};

/* The class of the part's next character, OUT behind its last. */
enum { OUT = 256 };
static inline unsigned class_in(const char *s, const char *end, enum part part,
                                size_t *len)
{
    *len = 0;
    if (s == end) return OUT;
    unsigned char first = (unsigned char)*s;
    if (part != ANY && first >= 0xe3 && first <= 0xe9) {
        if (cjk(s, len) != (part == CJK)) return OUT;
    } else if (part == CJK) {
        return OUT;
    }
    unsigned c = unicode_class(s, len);
    return part == OTHER && (c & N) ? OUT : c;
}

static inline const char *run_in(const char *s, const char *end, unsigned bits,
                                 enum part part)
{
    size_t len;
    if (part != CJK && bits & L) s = ascii_letters(s, end);
    while (class_in(s, end, part, &len) & bits)
        s += len;
    return s;
}

static inline size_t spaces_in(const char *s, const char *end, enum part part)
{
    const char *to = run_in(s, end, WS, part);
    size_t len;
    if (class_in(to, end, part, &len) == OUT) end = to;
    return spaces(s, end, true);
}

/* The third expression at s, or 0 where it matches nothing. */
static inline size_t match_deepseek3(const char *s, const char *end,
                                     enum part part)
{
    size_t len, next_len;
    unsigned c = class_in(s, end, part, &len);
    const char *next = s + len;
    if (c & (L | M)) return (size_t)(run_in(next, end, L | M, part) - s);
    if ((c & PS) && len == 1 && next < end && ascii_letter(*next))
        return (size_t)(ascii_letters(next, end) - s);
    unsigned d = class_in(next, end, part, &next_len);
    if ((d & (L | M)) && !(c & PS) && !newline(*s))
        return (size_t)(run_in(next + next_len, end, L | M, part) - s);
    if ((c & PS) || (*s == ' ' && (d & PS))) {
        const char *to = run_in(next, end, PS, part);
        return (size_t)((part == CJK ? to : newlines(to, end)) - s);
    }
    return c & WS ? spaces_in(s, end, part) : 0;
}

static inline size_t match_or_gap(const char *s, const char *end,
                                  enum part part)
{
    size_t len, n = match_deepseek3(s, end, part);
    if (n) return n;
    const char *gap = s;
    do
        gap += utf8_len((unsigned char)*gap);
    while (class_in(gap, end, part, &len) != OUT &&
           !match_deepseek3(gap, end, part));
    return (size_t)(gap - s);
}

static inline size_t deepseek3(const char *s, const char *end)
{
    return match_or_gap(s, end, ANY);
}

static inline size_t deepseek(const char *s, const char *end)
{
    size_t len;
    const char *word = s + (*s == ' ');
    if (word < end && ascii_letter(*word)) /* most pieces are such words */
        return (size_t)(run_in(word, end, L | M, OTHER) - s);
    if (unicode_class(s, &len) & N)
        return (size_t)(up_to_3_numbers(s, end) - s);
    return cjk(s, &len) ? match_or_gap(s, end, CJK)
                        : match_or_gap(s, end, OTHER);
}

static inline size_t numbers3(const char *s, const char *end)
{
    const char *to = up_to_3_numbers(s, end);
    if (to == s) to = run_without(s, end, N);
    return (size_t)(to - s);
}

static inline size_t cjk_runs(const char *s, const char *end)
{
    size_t len;
    bool inside = cjk(s, &len);
    const char *to = s + len;
    while (to < end && cjk(to, &len) == inside)
        to += len;
    return (size_t)(to - s);
}

static bool numeric(const char *s, size_t *len)
{
    return unicode_is_numeric(utf8_get(s, len));
}

static inline size_t digit_runs(const char *s, const char *end)
{
    size_t len;
    bool inside = numeric(s, &len);
    const char *to = s + len;
    while (to < end && numeric(to, &len) == inside)
        to += len;
    return (size_t)(to - s);
}

static inline size_t digits(const char *s, const char *end)
{
    size_t len;
    return numeric(s, &len) ? len : digit_runs(s, end);
}

/* All are written for one piece. */
static inline __attribute__((always_inline)) size_t many(
    size_t (*one)(const char *s, const char *end), const char *s,
    const char *end, size_t *lens)
{
    size_t count = 0;
    for (; s < end && count < PRETOK_SOME; s += lens[count++])
        lens[count] = one(s, end);
    return count;
}

#define MANY(name, one)                                       \
    size_t name(const char *s, const char *end, size_t *lens) \
    {                                                         \
        return many(one, s, end, lens);                       \
    }
static MANY(scan_gpt2, gpt2);
static MANY(scan_qwen2, qwen2);
static MANY(scan_llama3, llama3);
static MANY(scan_deepseek3, deepseek3);
static MANY(scan_numbers3, numbers3);
static MANY(scan_cjk, cjk_runs);
MANY(pretok_scan_deepseek, deepseek);
MANY(pretok_scan_digits, digits);
MANY(pretok_scan_digit_runs, digit_runs);

pretok_scanner *pretok_scanner_of(enum pretok_pattern pattern)
{
    static pretok_scanner *const scanners[PRETOK_PATTERNS] = {
        [PRETOK_GPT2] = scan_gpt2,         [PRETOK_QWEN2] = scan_qwen2,
        [PRETOK_LLAMA3] = scan_llama3,     [PRETOK_DEEPSEEK3] = scan_deepseek3,
        [PRETOK_NUMBERS3] = scan_numbers3, [PRETOK_CJK] = scan_cjk,
    };
    return scanners[pattern];
}
