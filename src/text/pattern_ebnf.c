#include "text/pattern_ebnf.h"

#include "base/buf.h"
#include "base/mem.h"
#include "text/pattern_regex.h"
#include "text/utf8.h"

#include <string.h>

enum { RULES_MAX = 1000, NESTED_MAX = 100, REPEAT_MAX = 10000 };

struct ebnf {
    struct pattern *p;
    const char *source, *at, *end;
    struct name { /* a rule, spoken of or defined */
        const char *text;
        size_t len;
        bool defined;
    } names[RULES_MAX]; /* by rule */
    uint32_t count;
    int depth;
    struct why *why;
};

/* what: with at most one %.*s, of text. */
static int refuse_at(struct ebnf *e, int code, const char *at, const char *what,
                     const char *text, size_t len)
{
    size_t line = 1;
    for (const char *s = e->source; s < at; s++)
        line += *s == '\n';
    return err_set(e->why, code, "ebnf, line %zu: %s%.*s", line, what,
                   (int)(len < 60 ? len : 60), text);
}

static int refuse(struct ebnf *e, int code, const char *what)
{
    return refuse_at(e, code, e->at, what, "", 0);
}

static bool next_is(const struct ebnf *e, char c)
{
    return e->at < e->end && *e->at == c;
}

/* Blanks, line ends, comments. */
static void skip(struct ebnf *e)
{
    while (e->at < e->end && *e->at && strchr(" \t\r\n#", *e->at))
        if (*e->at++ == '#')
            while (e->at < e->end && *e->at != '\n')
                e->at++;
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* The length of the name here; 0: none. */
static size_t name_here(const struct ebnf *e)
{
    const char *s = e->at;
    if (s == e->end || !is_letter(*s)) return 0;
    while (s < e->end && (is_letter(*s) || (*s >= '0' && *s <= '9') ||
                          *s == '-' || *s == '.'))
        s++;
    return (size_t)(s - e->at);
}

/* Whether a rule's definition begins here. */
static bool rule_begins(const struct ebnf *e)
{
    struct ebnf ahead = {.at = e->at, .end = e->end};
    size_t n = name_here(e);
    if (!n) return false;
    ahead.at += n;
    skip(&ahead);
    return ahead.end - ahead.at >= 3 && memcmp(ahead.at, "::=", 3) == 0;
}

static int find_rule(struct ebnf *e, size_t len, uint32_t *rule)
{
    for (*rule = 0; *rule < e->count; ++*rule) {
        const struct name *n = &e->names[*rule];
        if (n->len == len && memcmp(n->text, e->at, len) == 0) return 0;
    }
    if (e->count == RULES_MAX) return refuse(e, ERR_RANGE, "too many rules");
    e->names[e->count++] = (struct name){e->at, len, false};
    pattern_rule(e->p);
    return 0;
}

/* ---- texts and classes ---- */

static int read_hex(struct ebnf *e, int digits, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < digits; i++, e->at++) {
        char c = e->at < e->end ? *e->at : 0;
        int v = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (v < 0) return refuse(e, ERR_INVALID, "a hex digit is missing");
        *out = *out << 4 | (uint32_t)v;
    }
    if (*out > 0x10ffff || (*out >= 0xd800 && *out < 0xe000))
        return refuse(e, ERR_INVALID, "an escape of no character");
    return 0;
}

/* Behind a backslash. */
static int read_escape(struct ebnf *e, struct buf *out)
{
    static const char from[] = "nrt\\\"'", to[] = "\n\r\t\\\"'";
    char c = e->at < e->end ? *e->at++ : 0, utf8[4];
    const char *simple = c ? strchr(from, c) : NULL;
    if (simple) {
        buf_putc(out, to[simple - from]);
        return 0;
    }
    int digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    uint32_t code;
    if (!digits) return refuse(e, ERR_UNSUPPORTED, "an unknown escape");
    int rc = read_hex(e, digits, &code);
    if (!rc) buf_add(out, utf8, utf8_put(utf8, code));
    return rc;
}

static int read_text(struct ebnf *e, pattern_node *out)
{
    struct buf text;
    int rc = 0;
    const char *begin = e->at++;
    buf_init(&text, (size_t)(e->end - begin));
    while (!rc && e->at < e->end && *e->at != '"' && *e->at != '\n') {
        char c = *e->at++;
        if (c == '\\')
            rc = read_escape(e, &text);
        else
            buf_putc(&text, c);
    }
    if (!rc && !next_is(e, '"'))
        rc = refuse_at(e, ERR_INVALID, begin, "a text without its end", "", 0);
    if (!rc) {
        e->at++;
        *out = pattern_text(e->p, text.data, text.len);
    }
    buf_fini(&text);
    return rc;
}

/* A class is one of a regular expression. */
static int read_class(struct ebnf *e, pattern_node *out)
{
    const char *begin = e->at;
    struct why inner = {0};
    while (e->at < e->end && *e->at != ']' && *e->at != '\n')
        e->at += *e->at == '\\' && e->at + 1 < e->end ? 2 : 1;
    if (!next_is(e, ']'))
        return refuse_at(e, ERR_INVALID, begin, "a class without its end", "",
                         0);
    size_t n = (size_t)(++e->at - begin);
    if (n == 2) return refuse(e, ERR_INVALID, "an empty class");
    int rc = pattern_regex(e->p, out, begin, n, REGEX_WHOLE, &inner);
    if (!rc) return 0;
    const char *text = why_text(&inner, rc);
    return refuse_at(e, rc, begin, "a class: ", text, strlen(text));
}

/* ---- expressions ---- */

static int read_choice(struct ebnf *e, pattern_node *out);

static int read_group(struct ebnf *e, pattern_node *out)
{
    const char *begin = e->at++;
    skip(e);
    if (next_is(e, '=') || next_is(e, '!'))
        return refuse(e, ERR_UNSUPPORTED, "look-ahead is not supported");
    if (++e->depth > NESTED_MAX)
        return refuse(e, ERR_RANGE, "groups are nested too deeply");
    int rc = read_choice(e, out);
    if (rc) return rc;
    e->depth--;
    if (!next_is(e, ')'))
        return refuse_at(e, ERR_INVALID, begin, "a group without its end", "",
                         0);
    e->at++;
    return 0;
}

static int read_name(struct ebnf *e, size_t len, pattern_node *out)
{
    uint32_t rule;
    int rc = find_rule(e, len, &rule);
    if (rc) return rc;
    e->at += len;
    *out = pattern_call(e->p, rule);
    return 0;
}

static int read_one(struct ebnf *e, pattern_node *out)
{
    static const char any[] = "[^\\n\\r]|[\\n\\r]";
    char c = *e->at;
    size_t name = name_here(e);
    if (name) return read_name(e, name, out);
    if (c == '"') return read_text(e, out);
    if (c == '[') return read_class(e, out);
    if (c == '(') return read_group(e, out);
    if (c != '.')
        return refuse_at(e, ERR_INVALID, e->at, "not expected: ", e->at, 1);
    e->at++;
    return pattern_regex(e->p, out, any, sizeof any - 1, REGEX_WHOLE, e->why);
}

static int read_number(struct ebnf *e, int *out)
{
    const char *begin = e->at;
    *out = 0;
    while (e->at < e->end && *e->at >= '0' && *e->at <= '9' &&
           *out <= REPEAT_MAX)
        *out = *out * 10 + (*e->at++ - '0');
    if (e->at == begin) return refuse(e, ERR_INVALID, "a number is missing");
    if (*out > REPEAT_MAX) return refuse(e, ERR_RANGE, "too many repetitions");
    return 0;
}

/* {m}, {m,}, {m,n} */
static int read_bounds(struct ebnf *e, int *min, int *max)
{
    e->at++;
    skip(e);
    int rc = read_number(e, min);
    *max = *min;
    skip(e);
    if (!rc && next_is(e, ',')) {
        e->at++;
        skip(e);
        *max = -1;
        if (!next_is(e, '}')) rc = read_number(e, max);
        skip(e);
    }
    if (rc) return rc;
    if (!next_is(e, '}')) return refuse(e, ERR_INVALID, "} is missing");
    if (*max >= 0 && *max < *min)
        return refuse(e, ERR_INVALID, "n below m in {m,n}");
    e->at++;
    return 0;
}

static int read_repeats(struct ebnf *e, pattern_node *node)
{
    for (int times = 0; e->at < e->end; times++) {
        int min = 0, max = -1, rc = 0;
        skip(e);
        char c = e->at < e->end ? *e->at : 0;
        if (!c || !strchr("*+?{", c)) return 0;
        if (times == NESTED_MAX)
            return refuse(e, ERR_RANGE, "too many repetitions");
        if (c == '+') min = 1;
        if (c == '?') max = 1;
        if (c == '{')
            rc = read_bounds(e, &min, &max);
        else
            e->at++;
        if (rc) return rc;
        *node = pattern_repeat(e->p, *node, min, max);
    }
    return 0;
}

static int read_sequence(struct ebnf *e, pattern_node *out)
{
    *out = pattern_sequence(e->p);
    for (;;) {
        skip(e);
        if (e->at == e->end || *e->at == '|' || *e->at == ')' || rule_begins(e))
            return 0;
        pattern_node one;
        int rc = read_one(e, &one);
        if (!rc) rc = read_repeats(e, &one);
        if (rc) return rc;
        pattern_add(e->p, *out, one);
    }
}

static int read_choice(struct ebnf *e, pattern_node *out)
{
    *out = pattern_choice(e->p);
    for (;;) {
        pattern_node one;
        int rc = read_sequence(e, &one);
        if (rc) return rc;
        pattern_add(e->p, *out, one);
        if (!next_is(e, '|')) return 0;
        e->at++;
    }
}

static int read_rule(struct ebnf *e)
{
    uint32_t rule;
    pattern_node tree;
    if (!rule_begins(e))
        return refuse(e, ERR_INVALID, "a rule must begin: name ::= ...");
    size_t len = name_here(e);
    int rc = find_rule(e, len, &rule);
    if (rc) return rc;
    if (e->names[rule].defined)
        return refuse_at(e, ERR_INVALID, e->at, "defined twice: ", e->at, len);
    e->names[rule].defined = true;
    e->at += len;
    skip(e);
    e->at += 3;
    rc = read_choice(e, &tree);
    if (!rc) pattern_define(e->p, rule, tree);
    return rc;
}

static int read_rules(struct ebnf *e)
{
    static const char root[] = "root";
    e->names[e->count++] = (struct name){root, 4, false};
    pattern_rule(e->p);
    int rc = 0;
    for (skip(e); !rc && e->at < e->end; skip(e))
        rc = read_rule(e);
    for (uint32_t i = 0; i < e->count && !rc; i++)
        if (!e->names[i].defined)
            rc = refuse_at(e, ERR_INVALID, i ? e->names[i].text : e->at,
                           "there is no rule ", e->names[i].text,
                           e->names[i].len);
    return rc;
}

int pattern_ebnf(struct pattern *p, const char *source, size_t n,
                 struct why *why)
{
    if (utf8_valid(source, n) != n)
        return err_set(why, ERR_INVALID, "ebnf: no UTF-8");
    struct ebnf *e = mem_must(1, sizeof *e);
    *e = (struct ebnf){
        .p = p, .source = source, .at = source, .end = source + n, .why = why};
    int rc = read_rules(e);
    mem_free(e);
    return rc;
}
