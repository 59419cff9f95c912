#include "text/pattern_regex.h"

#include "base/mem.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { SET_MAX = 256, NESTED_MAX = 100, REPEAT_MAX = 10000, LAST = 0x10ffff };

struct parser {
    struct pattern *p;
    const char *source, *at, *end;
    enum regex_place place;
    int depth;
    struct why *why;
};

/* A set of code points, ranges in no order. */
struct code_set {
    struct code_range ranges[SET_MAX];
    size_t count;
};

static int refuse(struct parser *r, int code, const char *what)
{
    return err_set(r->why, code, "regex at byte %zu: %s",
                   (size_t)(r->at - r->source), what);
}

static int set_add(struct parser *r, struct code_set *s, uint32_t lo,
                   uint32_t hi)
{
    if (s->count == SET_MAX)
        return refuse(r, ERR_RANGE, "the class has too many ranges");
    s->ranges[s->count++] = (struct code_range){lo, hi};
    return 0;
}

static int by_lo(const void *a, const void *b)
{
    const struct code_range *x = a, *y = b;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

/* All that is not in it; ascending, without overlaps. */
static int set_negate(struct parser *r, struct code_set *s)
{
    struct code_set out = {.count = 0};
    uint32_t from = 0;
    int rc = 0;
    qsort(s->ranges, s->count, sizeof *s->ranges, by_lo);
    for (size_t i = 0; i < s->count && !rc; i++) {
        if (s->ranges[i].lo > from)
            rc = set_add(r, &out, from, s->ranges[i].lo - 1);
        if (s->ranges[i].hi >= from) from = s->ranges[i].hi + 1;
    }
    if (from <= LAST && !rc) rc = set_add(r, &out, from, LAST);
    *s = out;
    return rc;
}

/* ---- sets as nodes ---- */

static const struct {
    uint8_t code;
    char letter;
} escapes[] = {{'"', '"'}, {'\\', '\\'}, {8, 'b'}, {12, 'f'},
               {10, 'n'},  {13, 'r'},    {9, 't'}};

static bool has(const struct code_set *s, uint32_t code)
{
    for (size_t i = 0; i < s->count; i++)
        if (s->ranges[i].lo <= code && s->ranges[i].hi >= code) return true;
    return false;
}

/* What of lo .. hi stands in a JSON string as it is. */
static void add_bare(struct code_set *out, uint32_t lo, uint32_t hi)
{
    static const struct code_range bare[] = {
        {0x20, 0x21}, {0x23, 0x5b}, {0x5d, LAST}};
    for (size_t i = 0; i < 3; i++) {
        uint32_t from = lo > bare[i].lo ? lo : bare[i].lo;
        uint32_t to = hi < bare[i].hi ? hi : bare[i].hi;
        if (from <= to && out->count < SET_MAX)
            out->ranges[out->count++] = (struct code_range){from, to};
    }
}

static pattern_node set_node(struct parser *r, const struct code_set *s)
{
    if (r->place == REGEX_WHOLE)
        return pattern_code_points(r->p, s->ranges, s->count);
    struct code_set bare = {.count = 0};
    for (size_t i = 0; i < s->count; i++)
        add_bare(&bare, s->ranges[i].lo, s->ranges[i].hi);
    pattern_node choice = pattern_code_points(r->p, bare.ranges, bare.count);
    for (size_t i = 0; i < sizeof escapes / sizeof *escapes; i++)
        if (has(s, escapes[i].code))
            pattern_add(
                r->p, choice,
                pattern_text(r->p, (const char[]){'\\', escapes[i].letter}, 2));
    return choice;
}

pattern_node pattern_json_char(struct pattern *p)
{
    struct parser r = {.p = p, .place = REGEX_JSON_STRING};
    struct code_set all = {.ranges = {{0, LAST}}, .count = 1};
    pattern_node choice = set_node(&r, &all);
    pattern_add(p, choice, pattern_text(p, "\\/", 2));
    pattern_node code = pattern_sequence(p), digit[4];
    pattern_add(p, code, pattern_text(p, "\\u", 2));
    for (int i = 0; i < 4; i++) {
        digit[i] = pattern_choice(p);
        pattern_add(p, digit[i], pattern_bytes(p, '0', '9'));
        pattern_add(p, digit[i], pattern_bytes(p, 'a', 'f'));
        pattern_add(p, digit[i], pattern_bytes(p, 'A', 'F'));
        pattern_add(p, code, digit[i]);
    }
    pattern_add(p, choice, code);
    return choice;
}

/* ---- reading ---- */

static bool next_is(const struct parser *r, char c)
{
    return r->at < r->end && *r->at == c;
}

static int read_code(struct parser *r, uint32_t *out)
{
    size_t len;
    *out = 0;
    int32_t code = utf8_scan(r->at, (size_t)(r->end - r->at), &len);
    if (code < 0) return refuse(r, ERR_INVALID, "no UTF-8");
    r->at += len;
    *out = (uint32_t)code;
    return 0;
}

static int read_hex(struct parser *r, int digits, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < digits; i++) {
        char c = r->at < r->end ? *r->at : 0;
        int v = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (v < 0) return refuse(r, ERR_INVALID, "a hex digit is missing");
        *out = *out * 16 + (uint32_t)v;
        r->at++;
    }
    return 0;
}

/* \d \w \s and their opposites; false: c is none of them. */
static bool add_kind(struct parser *r, struct code_set *s, uint32_t c, int *rc)
{
    struct code_set kind = {.count = 0};
    switch (c | 32) {
    case 'd': set_add(r, &kind, '0', '9'); break;
    case 'w':
        set_add(r, &kind, '0', '9');
        set_add(r, &kind, 'A', 'Z');
        set_add(r, &kind, '_', '_');
        set_add(r, &kind, 'a', 'z');
        break;
    case 's':
        set_add(r, &kind, 9, 13);
        set_add(r, &kind, ' ', ' ');
        break;
    default: return false;
    }
    *rc = c & 32 ? 0 : set_negate(r, &kind);
    for (size_t i = 0; i < kind.count && !*rc; i++)
        *rc = set_add(r, s, kind.ranges[i].lo, kind.ranges[i].hi);
    return true;
}

/* Behind a backslash: one code point, or a kind, which *kind says. */
static int read_escape(struct parser *r, struct code_set *s, uint32_t *code,
                       bool *kind)
{
    static const char letters[] = "nrtfv0", values[] = {10, 13, 9, 12, 11, 0};
    int rc;
    *kind = false;
    if (r->at == r->end) return refuse(r, ERR_INVALID, "ends behind a \\");
    if ((rc = read_code(r, code))) return rc;
    if (*code < 128 && add_kind(r, s, *code, &rc)) {
        *kind = true;
        return rc;
    }
    const char *letter =
        *code && *code < 128 ? strchr(letters, (int)*code) : NULL;
    if (letter)
        *code = (uint32_t)values[letter - letters];
    else if (*code == 'x')
        return read_hex(r, 2, code);
    else if (*code == 'u')
        return read_hex(r, 4, code);
    else if ((*code >= '0' && *code <= '9') || (*code | 32) - 'a' < 26)
        return refuse(r, ERR_UNSUPPORTED, "this escape is not supported");
    return 0;
}

static int read_class_item(struct parser *r, struct code_set *s)
{
    uint32_t lo, hi;
    bool kind = false;
    int rc = read_code(r, &lo);
    if (!rc && lo == '\\') rc = read_escape(r, s, &lo, &kind);
    if (rc || kind) return rc;
    hi = lo;
    if (r->end - r->at > 1 && r->at[0] == '-' && r->at[1] != ']') {
        r->at++;
        rc = read_code(r, &hi);
        if (!rc && hi == '\\') rc = read_escape(r, s, &hi, &kind);
        if (!rc && (kind || hi < lo))
            rc = refuse(r, ERR_INVALID, "no range of characters");
    }
    return rc ? rc : set_add(r, s, lo, hi);
}

static int read_class(struct parser *r, struct code_set *s)
{
    bool negate = next_is(r, '^');
    if (negate) r->at++;
    bool first = true;
    while (r->at < r->end && (*r->at != ']' || first)) {
        int rc = read_class_item(r, s);
        if (rc) return rc;
        first = false;
    }
    if (r->at == r->end) return refuse(r, ERR_INVALID, "] is missing");
    r->at++;
    int rc = negate ? set_negate(r, s) : 0;
    if (!rc && !s->count) rc = refuse(r, ERR_INVALID, "the class is empty");
    return rc;
}

static int read_choice(struct parser *r, pattern_node *out);

static int read_group(struct parser *r, pattern_node *out)
{
    if (next_is(r, '?')) {
        r->at++;
        if (next_is(r, 'P')) r->at++;
        bool named = r->end - r->at > 1 && r->at[0] == '<' && r->at[1] != '=' &&
                     r->at[1] != '!';
        while (named && r->at < r->end && *r->at != '>')
            r->at++;
        if (!named && !next_is(r, ':'))
            return refuse(r, ERR_UNSUPPORTED,
                          "this kind of group is not supported");
        if (r->at < r->end) r->at++;
    }
    if (++r->depth > NESTED_MAX)
        return refuse(r, ERR_RANGE, "groups are nested too deeply");
    int rc = read_choice(r, out);
    r->depth--;
    if (rc) return rc;
    if (!next_is(r, ')')) return refuse(r, ERR_INVALID, ") is missing");
    r->at++;
    return 0;
}

static int read_atom(struct parser *r, pattern_node *out)
{
    struct code_set s = {.count = 0};
    uint32_t code;
    bool kind = false;
    int rc = read_code(r, &code);
    if (rc) return rc;
    switch (code) {
    case '(': return read_group(r, out);
    case '[': rc = read_class(r, &s); break;
    case '.':
        set_add(r, &s, 0, 9);
        rc = set_add(r, &s, 11, LAST);
        break;
    case '\\':
        rc = read_escape(r, &s, &code, &kind);
        if (!rc && !kind) rc = set_add(r, &s, code, code);
        break;
    case '*':
    case '+':
    case '?':
    case '{': return refuse(r, ERR_INVALID, "nothing to repeat");
    case '^':
    case '$':
        return refuse(r, ERR_UNSUPPORTED,
                      "^ and $ only at the ends of an alternative");
    default: rc = set_add(r, &s, code, code);
    }
    if (!rc) *out = set_node(r, &s);
    return rc;
}

static int read_number(struct parser *r, int *out)
{
    int n = 0, digits = 0;
    for (; r->at < r->end && *r->at >= '0' && *r->at <= '9'; r->at++, digits++)
        if ((n = n * 10 + *r->at - '0') > REPEAT_MAX)
            return refuse(r, ERR_RANGE, "too many repetitions");
    if (!digits) return refuse(r, ERR_INVALID, "a number is missing in {}");
    *out = n;
    return 0;
}

static int read_bounds(struct parser *r, int *min, int *max)
{
    int rc = read_number(r, min);
    *max = *min;
    if (rc) return rc;
    if (next_is(r, ',')) {
        r->at++;
        *max = -1;
        if (!next_is(r, '}')) rc = read_number(r, max);
        if (rc) return rc;
    }
    if (!next_is(r, '}')) return refuse(r, ERR_INVALID, "} is missing");
    r->at++;
    if (*max >= 0 && *max < *min)
        return refuse(r, ERR_INVALID, "{m,n} with n below m");
    return 0;
}

static int read_repeated(struct parser *r, pattern_node *out)
{
    int rc = read_atom(r, out);
    while (!rc && r->at < r->end && memchr("*+?{", *r->at, 4)) {
        int min = *r->at == '+', max = *r->at == '?' ? 1 : -1;
        if (*r->at++ == '{') rc = read_bounds(r, &min, &max);
        if (rc) return rc;
        *out = pattern_repeat(r->p, *out, min, max);
        if (next_is(r, '?')) r->at++; /* lazy */
        if (next_is(r, '+'))
            return refuse(r, ERR_UNSUPPORTED,
                          "possessive repetition is not supported");
    }
    return rc;
}

/* What may stand at an end that is not anchored. */
static pattern_node anything(struct parser *r)
{
    return pattern_repeat(r->p, pattern_json_char(r->p), 0, -1);
}

static int read_sequence(struct parser *r, pattern_node *out)
{
    bool outer = r->depth == 0 && r->place == REGEX_JSON_STRING;
    bool from = r->depth == 0 && next_is(r, '^'), to = false;
    *out = pattern_sequence(r->p);
    if (from)
        r->at++;
    else if (outer)
        pattern_add(r->p, *out, anything(r));
    while (r->at < r->end && *r->at != '|' && *r->at != ')' && !to) {
        pattern_node one;
        bool last = r->end - r->at == 1 || r->at[1] == '|' || r->at[1] == ')';
        if (*r->at == '$' && last && r->depth == 0) {
            r->at++;
            to = true;
            break;
        }
        int rc = read_repeated(r, &one);
        if (rc) return rc;
        pattern_add(r->p, *out, one);
    }
    if (outer && !to) pattern_add(r->p, *out, anything(r));
    return 0;
}

static int read_choice(struct parser *r, pattern_node *out)
{
    pattern_node one;
    *out = pattern_choice(r->p);
    for (;;) {
        int rc = read_sequence(r, &one);
        if (rc) return rc;
        pattern_add(r->p, *out, one);
        if (!next_is(r, '|')) return 0;
        r->at++;
    }
}

int pattern_regex(struct pattern *p, pattern_node *out, const char *source,
                  size_t n, enum regex_place place, struct why *why)
{
    struct parser r = {.p = p,
                       .source = source,
                       .at = source,
                       .end = source + n,
                       .place = place,
                       .why = why};
    int rc = read_choice(&r, out);
    if (!rc && r.at < r.end) rc = refuse(&r, ERR_INVALID, "a ) too many");
    return rc;
}
