#include "router/skim.h"

#include <string.h>

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static const char *skip_space(const char *p, const char *end)
{
    while (p < end && is_space(*p))
        p++;
    return p;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* --- checking: each takes p at the value's first byte and returns the byte
 * behind it; where it is not JSON, NULL with *bad at the offending byte --- */

struct checker {
    const char *end;
    const char *bad;
};

static const char *wrong(struct checker *c, const char *at)
{
    c->bad = at;
    return NULL;
}

static const char *check_string(struct checker *c, const char *p)
{
    for (p++; p < c->end; p++) {
        if (*p == '"') return p + 1;
        if ((unsigned char)*p < 0x20) break;
        if (*p != '\\') continue;
        if (++p >= c->end) break;
        if (*p == 'u') {
            for (int i = 0; i < 4; i++)
                if (++p >= c->end || hex_digit(*p) < 0) return wrong(c, p);
        } else if (!memchr("\"\\/bfnrt", *p, 8)) {
            break;
        }
    }
    return wrong(c, p);
}

static const char *check_digits(struct checker *c, const char *p)
{
    const char *from = p;
    while (p < c->end && *p >= '0' && *p <= '9')
        p++;
    return p > from ? p : wrong(c, p);
}

static const char *check_number(struct checker *c, const char *p)
{
    if (*p == '-') p++;
    if (p < c->end && *p == '0')
        p++;
    else
        p = check_digits(c, p);
    if (p && p < c->end && *p == '.') p = check_digits(c, p + 1);
    if (p && p < c->end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < c->end && (*p == '+' || *p == '-')) p++;
        p = check_digits(c, p);
    }
    return p;
}

static const char *check_word(struct checker *c, const char *p,
                              const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(c->end - p) < n || memcmp(p, word, n) != 0) return wrong(c, p);
    return p + n;
}

static const char *check_value(struct checker *c, const char *p, int depth);

/* An object's members or an array's elements, from behind the bracket. */
static const char *check_items(struct checker *c, const char *p, bool object,
                               int depth)
{
    char close = object ? '}' : ']';
    if (depth >= SKIM_DEPTH_MAX) return wrong(c, p);
    p = skip_space(p, c->end);
    if (p < c->end && *p == close) return p + 1;
    for (;;) {
        if (object) {
            if (p >= c->end || *p != '"') return wrong(c, p);
            if (!(p = check_string(c, p))) return NULL;
            p = skip_space(p, c->end);
            if (p >= c->end || *p != ':') return wrong(c, p);
            p = skip_space(p + 1, c->end);
        }
        if (!(p = check_value(c, p, depth + 1))) return NULL;
        p = skip_space(p, c->end);
        if (p < c->end && *p == close) return p + 1;
        if (p >= c->end || *p != ',') return wrong(c, p);
        p = skip_space(p + 1, c->end);
    }
}

static const char *check_value(struct checker *c, const char *p, int depth)
{
    if (p >= c->end) return wrong(c, p);
    switch (*p) {
    case '{': return check_items(c, p + 1, true, depth);
    case '[': return check_items(c, p + 1, false, depth);
    case '"': return check_string(c, p);
    case 't': return check_word(c, p, "true");
    case 'f': return check_word(c, p, "false");
    case 'n': return check_word(c, p, "null");
    default: return check_number(c, p);
    }
}

int skim_check(struct skim *out, const char *text, size_t n, struct why *why)
{
    struct checker c = {.end = text + n};
    const char *from = skip_space(text, c.end);
    const char *to = check_value(&c, from, 0);
    if (to) {
        const char *rest = skip_space(to, c.end);
        if (rest == c.end) {
            *out = (struct skim){from, (size_t)(to - from)};
            return 0;
        }
        c.bad = rest;
    }
    return err_set(why, ERR_FORMAT, "malformed JSON at byte %zu",
                   (size_t)(c.bad - text));
}

/* --- walking checked text: no errors are possible --- */

static const char *pass_string(const char *p)
{
    for (p++; *p != '"'; p++)
        if (*p == '\\') p++;
    return p + 1;
}

static const char *pass_value(const char *p, const char *end)
{
    if (*p == '"') return pass_string(p);
    if (*p == '{' || *p == '[') {
        int depth = 0;
        do {
            if (*p == '"') {
                p = pass_string(p);
                continue;
            }
            depth += (*p == '{' || *p == '[') - (*p == '}' || *p == ']');
            p++;
        } while (depth);
        return p;
    }
    while (p < end && !is_space(*p) && *p != ',' && *p != '}' && *p != ']')
        p++;
    return p;
}

char skim_kind(struct skim value)
{
    return value.n ? value.at[0] : 0;
}

/* The next item's first byte, or NULL at the end. */
static const char *next_item(struct skim list, size_t at)
{
    const char *end = list.at + list.n - 1; /* the closing bracket */
    const char *p = skip_space(list.at + (at ? at : 1), end);
    if (p < end && *p == ',') p = skip_space(p + 1, end);
    return p < end ? p : NULL;
}

bool skim_member_next(struct skim object, size_t *at, struct skim *key,
                      struct skim *value)
{
    if (skim_kind(object) != '{') return false;
    const char *end = object.at + object.n;
    const char *p = next_item(object, *at);
    if (!p) return false;
    const char *behind = pass_string(p);
    *key = (struct skim){p, (size_t)(behind - p)};
    p = skip_space(skip_space(behind, end) + 1, end);
    behind = pass_value(p, end);
    *value = (struct skim){p, (size_t)(behind - p)};
    *at = (size_t)(behind - object.at);
    return true;
}

bool skim_element_next(struct skim array, size_t *at, struct skim *value)
{
    if (skim_kind(array) != '[') return false;
    const char *p = next_item(array, *at);
    if (!p) return false;
    const char *behind = pass_value(p, array.at + array.n);
    *value = (struct skim){p, (size_t)(behind - p)};
    *at = (size_t)(behind - array.at);
    return true;
}

bool skim_key_is(struct skim key, const char *name)
{
    const char *p = key.at + 1, *end = key.at + key.n - 1;
    for (; p < end && *name; name++) {
        int c = (unsigned char)*p++;
        if (c == '\\') {
            c = (unsigned char)*p++;
            if (c == 'u') {
                c = 0;
                for (int i = 0; i < 4; i++)
                    c = c * 16 + hex_digit(*p++);
            }
        }
        if (c != (unsigned char)*name) return false;
    }
    return p == end && !*name;
}

struct skim skim_member(struct skim object, const char *name)
{
    struct skim key, value, found = {NULL, 0};
    for (size_t at = 0; skim_member_next(object, &at, &key, &value);)
        if (skim_key_is(key, name)) found = value;
    return found;
}

bool skim_true(struct skim value)
{
    switch (skim_kind(value)) {
    case 0:
    case 'n':
    case 'f': return false;
    case 't': return true;
    case '"': return value.n > 2;
    case '{':
    case '[': return next_item(value, 0) != NULL;
    default:
        for (size_t i = 0; i < value.n && (value.at[i] | 32) != 'e'; i++)
            if (value.at[i] >= '1' && value.at[i] <= '9') return true;
        return false;
    }
}

int64_t skim_int(struct skim value, int64_t fallback)
{
    size_t i = skim_kind(value) == '-';
    if (value.n <= i || value.n - i > 18) return fallback;
    int64_t x = 0;
    for (size_t k = i; k < value.n; k++) {
        if (value.at[k] < '0' || value.at[k] > '9') return fallback;
        x = x * 10 + (value.at[k] - '0');
    }
    return i ? -x : x;
}
