/* jinja2's lexer: text up to a tag, whitespace control on both sides of it,
 * then the tag's tokens up to its end. */
#include "text/jinja.h"
#include "text/utf8.h"

#include <stdlib.h>
#include <string.h>

struct lexer {
    struct jinja *j;
    const char *s;
    size_t at, n;
    bool line_starting; /* the last tag took a newline along */
    int line;
    struct jinja_token *tokens;
    size_t count, cap;
    char open[JINJA_MAX_BRACKETS];
    int open_count;
};

static void push(struct lexer *x, struct jinja_token token)
{
    if (x->count == x->cap) {
        size_t cap = x->cap ? 2 * x->cap : 64;
        struct jinja_token *more = jinja_alloc(x->j, cap, sizeof *more);
        if (x->count) memcpy(more, x->tokens, x->count * sizeof *more);
        x->tokens = more;
        x->cap = cap;
    }
    token.line = x->line;
    x->tokens[x->count++] = token;
}

static void fail(struct lexer *x, const char *what)
{
    x->j->line = x->line;
    jinja_fail(x->j, ERR_FORMAT, "%s", what);
}

/* Moves on to `to`, counting lines. */
static void advance(struct lexer *x, size_t to)
{
    for (; x->at < to; x->at++)
        if (x->s[x->at] == '\n') x->line++;
}

static bool is_at(const struct lexer *x, size_t at, const char *text)
{
    size_t n = strlen(text);
    return n <= x->n - at && !memcmp(x->s + at, text, n);
}

static size_t spaces_to(const struct lexer *x, size_t at)
{
    size_t len;
    while (at < x->n && jinja_is_space(utf8_get(x->s + at, &len)))
        at += len;
    return at;
}

/* Python's str.rstrip(), down to from. */
static size_t rstrip_to(const struct lexer *x, size_t from, size_t end)
{
    size_t keep = from, len;
    for (size_t i = from; i < end; i += len)
        if (!jinja_is_space(utf8_get(x->s + i, &len))) keep = i + len;
    return keep;
}

/* The text before a tag, less what its sign and lstrip_blocks take. */
static void push_data(struct lexer *x, size_t from, size_t end, char sign,
                      bool variable)
{
    size_t keep = end;
    if (sign == '-') {
        keep = rstrip_to(x, from, end);
    } else if (sign != '+' && !variable) {
        size_t line = end;
        while (line > from && x->s[line - 1] != '\n')
            line--;
        if ((line > from || x->line_starting) && spaces_to(x, line) >= end)
            keep = line;
    }
    if (keep > from)
        push(x, (struct jinja_token){
                    .kind = JINJA_DATA, .s = x->s + from, .n = keep - from});
    advance(x, end);
}

/* Where the tag's end at `at` stops, 0 where there is none. */
static size_t end_of(const struct lexer *x, size_t at, const char *close)
{
    char signs[4] = {0, close[0], close[1], 0};
    signs[0] = '-';
    if (is_at(x, at, signs)) return spaces_to(x, at + 3);
    bool trims = close[0] != '}';
    signs[0] = '+';
    if (trims && is_at(x, at, signs)) return at + 3;
    if (!is_at(x, at, close)) return 0;
    at += 2;
    return trims && at < x->n && x->s[at] == '\n' ? at + 1 : at;
}

static void leave_tag(struct lexer *x, size_t to)
{
    advance(x, to);
    x->line_starting = x->s[to - 1] == '\n';
}

static void skip_comment(struct lexer *x, size_t at)
{
    size_t end = 0;
    while (at < x->n && !(end = end_of(x, at, "#}")))
        at++;
    if (!end) fail(x, "comment without an end");
    leave_tag(x, end);
}

static char sign_at(const struct lexer *x, size_t at)
{
    return at < x->n && (x->s[at] == '-' || x->s[at] == '+') ? x->s[at] : 0;
}

/* "{% raw %}" at the current tag: where its inside starts, else 0. */
static size_t raw_start(const struct lexer *x)
{
    size_t at = x->at + 2;
    if (sign_at(x, at)) at++;
    at = spaces_to(x, at);
    if (!is_at(x, at, "raw")) return 0;
    at = spaces_to(x, at + 3);
    if (is_at(x, at, "-%}")) return spaces_to(x, at + 3);
    return is_at(x, at, "%}") ? at + 2 : 0;
}

static void lex_raw(struct lexer *x, size_t start)
{
    leave_tag(x, start);
    for (size_t i = start; i + 2 <= x->n; i++) {
        if (!is_at(x, i, "{%")) continue;
        char sign = sign_at(x, i + 2);
        size_t at = spaces_to(x, i + 2 + (sign != 0));
        if (!is_at(x, at, "endraw")) continue;
        size_t end = end_of(x, spaces_to(x, at + 6), "%}");
        if (!end) continue;
        push_data(x, start, i, sign, false);
        leave_tag(x, end);
        return;
    }
    fail(x, "raw without endraw");
}

/* Inside of a tag. */

static bool name_char(const struct lexer *x, size_t at, bool first)
{
    char c = x->s[at];
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           (!first && c >= '0' && c <= '9');
}

static bool digit(const struct lexer *x, size_t at)
{
    return at < x->n && x->s[at] >= '0' && x->s[at] <= '9';
}

/* "12", "1_000": where it ends. */
static size_t digits_to(const struct lexer *x, size_t at)
{
    while (digit(x, at) || (at < x->n && x->s[at] == '_' && digit(x, at + 1)))
        at++;
    return at;
}

static void lex_number(struct lexer *x)
{
    size_t end = digits_to(x, x->at), at;
    bool real = false;
    if (x->s[x->at] == '0' && end == x->at + 1 && end < x->n &&
        strchr("xXoObB", x->s[end]))
        fail(x, "number that is not decimal");
    if (end < x->n && x->s[end] == '.' && digit(x, end + 1)) {
        real = true;
        end = digits_to(x, end + 1);
    }
    if (end < x->n && (x->s[end] == 'e' || x->s[end] == 'E')) {
        at = end + 1;
        if (sign_at(x, at)) at++;
        if (digit(x, at)) {
            real = true;
            end = digits_to(x, at);
        }
    }
    char digits[400];
    size_t n = 0;
    for (at = x->at; at < end; at++) {
        if (n + 1 == sizeof digits) fail(x, "number too long");
        if (x->s[at] != '_') digits[n++] = x->s[at];
    }
    digits[n] = 0;
    struct jinja_token token = {.kind = real ? JINJA_FLOAT : JINJA_INT};
    if (real)
        token.f = strtod(digits, NULL);
    else if (n > 18 || (n > 1 && digits[0] == '0' && strspn(digits, "0") < n))
        fail(x, "number out of range");
    else
        token.i = strtoll(digits, NULL, 10);
    push(x, token);
    advance(x, end);
}

static uint32_t hex(struct lexer *x, size_t at, size_t n)
{
    uint32_t v = 0;
    for (size_t i = 0; i < n; i++, at++) {
        char c = at < x->n ? x->s[at] : 0;
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0) fail(x, "bad escape in a string");
        v = v << 4 | (uint32_t)d;
    }
    if (v > 0x10ffff || (v >= 0xd800 && v < 0xe000))
        fail(x, "escape in a string that is no character");
    return v;
}

static void add_char(struct lexer *x, struct jinja_text *t, uint32_t cp)
{
    char bytes[4];
    jinja_add(x->j, t, bytes, utf8_put(bytes, cp));
}

/* What follows a backslash at `at`; returns where it ends. */
static size_t escape(struct lexer *x, size_t at, struct jinja_text *t)
{
    static const char names[] = "\\'\"abfnrtv",
                      values[] = "\\'\"\a\b\f\n\r\t\v";
    char c = x->s[at];
    const char *name = c ? strchr(names, c) : NULL;
    if (name) {
        jinja_add(x->j, t, &values[name - names], 1);
        return at + 1;
    }
    size_t n = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (n) {
        add_char(x, t, hex(x, at + 1, n));
        return at + 1 + n;
    }
    if (c == 'N') fail(x, "\\N escape in a string");
    if (c == '\n') return at + 1;
    if (c >= '0' && c <= '7') {
        uint32_t v = 0;
        for (n = 0; n < 3 && at < x->n && x->s[at] >= '0' && x->s[at] <= '7';
             n++, at++)
            v = v * 8 + (uint32_t)(x->s[at] - '0');
        add_char(x, t, v);
        return at;
    }
    jinja_adds(x->j, t, "\\");
    return at;
}

static void lex_string(struct lexer *x)
{
    char quote = x->s[x->at];
    size_t at = x->at + 1;
    struct jinja_text text = {0};
    while (at < x->n && x->s[at] != quote) {
        size_t from = at;
        while (at < x->n && x->s[at] != quote && x->s[at] != '\\')
            at++;
        jinja_add(x->j, &text, x->s + from, at - from);
        if (at + 1 < x->n && x->s[at] == '\\')
            at = escape(x, at + 1, &text);
        else if (at < x->n && x->s[at] == '\\')
            at++;
    }
    if (at >= x->n) fail(x, "string without an end");
    push(x, (struct jinja_token){
                .kind = JINJA_STRING, .s = text.s ? text.s : "", .n = text.n});
    advance(x, at + 1);
}

static void lex_name(struct lexer *x)
{
    size_t at = x->at;
    while (at < x->n && name_char(x, at, false))
        at++;
    if (at < x->n && (unsigned char)x->s[at] >= 0x80)
        fail(x, "name with other than ASCII letters");
    struct jinja_text name = {0};
    jinja_add(x->j, &name, x->s + x->at, at - x->at);
    push(x, (struct jinja_token){.kind = JINJA_NAME, .s = name.s, .n = name.n});
    advance(x, at);
}

static void balance(struct lexer *x, char c)
{
    static const char opens[] = "([{", closes[] = ")]}";
    if (strchr(opens, c)) {
        if (x->open_count == JINJA_MAX_BRACKETS)
            fail(x, "brackets nested too deep");
        x->open[x->open_count++] = closes[strchr(opens, c) - opens];
    } else if (strchr(closes, c)) {
        if (!x->open_count || x->open[--x->open_count] != c)
            fail(x, "brackets that do not match");
    }
}

static void lex_operator(struct lexer *x)
{
    static const char *const operators[] = {
        "**", "//", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (!is_at(x, x->at, operators[i])) continue;
        size_t n = strlen(operators[i]);
        if (n == 1) balance(x, operators[i][0]);
        push(x,
             (struct jinja_token){.kind = JINJA_OP, .s = operators[i], .n = n});
        advance(x, x->at + n);
        return;
    }
    x->j->line = x->line;
    jinja_fail(x->j, ERR_FORMAT, "unexpected character \"%.*s\"",
               (int)utf8_len((unsigned char)x->s[x->at]), x->s + x->at);
}

static void lex_tag(struct lexer *x, bool variable)
{
    const char *close = variable ? "}}" : "%}";
    x->open_count = 0;
    push(x, (struct jinja_token){.kind = variable ? JINJA_VAR_BEGIN
                                                  : JINJA_BLOCK_BEGIN});
    advance(x, x->at + 2 + (sign_at(x, x->at + 2) != 0));
    for (;;) {
        if (x->at >= x->n) fail(x, "tag without an end");
        size_t end = x->open_count ? 0 : end_of(x, x->at, close);
        if (end) {
            push(x, (struct jinja_token){.kind = variable ? JINJA_VAR_END
                                                          : JINJA_BLOCK_END});
            leave_tag(x, end);
            return;
        }
        size_t blank = spaces_to(x, x->at);
        if (blank > x->at)
            advance(x, blank);
        else if (digit(x, x->at))
            lex_number(x);
        else if (name_char(x, x->at, true))
            lex_name(x);
        else if (x->s[x->at] == '"' || x->s[x->at] == '\'')
            lex_string(x);
        else
            lex_operator(x);
    }
}

/* Newlines become \n; one at the very end goes. */
static void normalize(struct lexer *x, const char *source, size_t len)
{
    struct jinja_text text = {0};
    jinja_add(x->j, &text, "", 0);
    for (size_t i = 0, from = 0; i <= len; i++) {
        if (i < len && source[i] != '\r') continue;
        jinja_add(x->j, &text, source + from, i - from);
        if (i < len) jinja_add(x->j, &text, "\n", 1);
        if (i + 1 < len && source[i + 1] == '\n') i++;
        from = i + 1;
    }
    if (text.n && text.s[text.n - 1] == '\n') text.n--;
    x->s = text.s;
    x->n = text.n;
}

static size_t next_tag(const struct lexer *x)
{
    size_t at = x->at;
    for (; at + 1 < x->n; at++) {
        char c = x->s[at + 1];
        if (x->s[at] == '{' && (c == '{' || c == '%' || c == '#')) return at;
    }
    return x->n;
}

const struct jinja_token *jinja_lex(struct jinja *j, const char *source,
                                    size_t len)
{
    struct lexer x = {.j = j, .line = 1, .line_starting = true};
    if (utf8_valid(source, len) != len)
        jinja_fail(j, ERR_FORMAT, "template is not UTF-8");
    normalize(&x, source, len);
    while (x.at < x.n) {
        size_t from = x.at, tag = next_tag(&x);
        if (tag == x.n) {
            push(&x, (struct jinja_token){
                         .kind = JINJA_DATA, .s = x.s + from, .n = x.n - from});
            break;
        }
        char kind = x.s[tag + 1];
        push_data(&x, from, tag, sign_at(&x, tag + 2), kind == '{');
        size_t raw = kind == '%' ? raw_start(&x) : 0;
        if (raw)
            lex_raw(&x, raw);
        else if (kind == '#')
            skip_comment(&x, tag + 2 + (sign_at(&x, tag + 2) != 0));
        else
            lex_tag(&x, kind == '{');
    }
    push(&x, (struct jinja_token){.kind = JINJA_END});
    return x.tokens;
}
