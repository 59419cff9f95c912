/* Text as Python sees it: code points, its blanks, its methods; and the
 * methods of lists, dicts and loops. */
#include "text/jinja.h"
#include "text/utf8.h"

#include <string.h>
#include <utf8proc.h>

typedef struct jinja_value value;

size_t jinja_chars(const char *s, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)s[i] & 0xc0) != 0x80;
    return count;
}

/* str.isspace, which is also \s of Python's re. */
bool jinja_is_space(uint32_t cp)
{
    if (cp < 0x80) return (cp >= 9 && cp <= 13) || (cp >= 0x1c && cp <= 0x20);
    return cp == 0x85 || cp == 0xa0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 || cp == 0x2029 ||
           cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

static bool strips(const char *s, size_t len, const value *chars)
{
    size_t unused;
    if (!chars) return jinja_is_space(utf8_get(s, &unused));
    for (size_t i = 0; i < chars->len;
         i += utf8_len((unsigned char)chars->u.s[i]))
        if (utf8_len((unsigned char)chars->u.s[i]) == len &&
            !memcmp(chars->u.s + i, s, len))
            return true;
    return false;
}

value jinja_strip(struct jinja *j, value s, const value *chars, int side)
{
    size_t from = 0, end = s.len;
    jinja_work(j, 1 + (chars ? chars->len / 16 : 0));
    while (side & 1 && from < end) {
        size_t len = utf8_len((unsigned char)s.u.s[from]);
        if (!strips(s.u.s + from, len, chars)) break;
        jinja_work(j, 1);
        from += len;
    }
    while (side & 2 && end > from) {
        size_t start = end - 1;
        while (((unsigned char)s.u.s[start] & 0xc0) == 0x80)
            start--;
        if (!strips(s.u.s + start, end - start, chars)) break;
        jinja_work(j, 1);
        end = start;
    }
    return jinja_str(j, s.u.s + from, end - from);
}

static utf8proc_int32_t recase(utf8proc_int32_t cp, enum jinja_case to,
                               bool first)
{
    if (to == JINJA_UPPER) return utf8proc_toupper(cp);
    if (to == JINJA_LOWER || !first) return utf8proc_tolower(cp);
    return utf8proc_totitle(cp);
}

static bool cased(utf8proc_int32_t cp)
{
    return utf8proc_isupper(cp) || utf8proc_islower(cp) ||
           utf8proc_category(cp) == UTF8PROC_CATEGORY_LT;
}

value jinja_recase(struct jinja *j, value s, enum jinja_case to)
{
    struct jinja_text t = {0};
    bool first = true;
    size_t len;
    jinja_work(j, s.len / 8);
    for (size_t i = 0; i < s.len; i += len) {
        utf8proc_int32_t cp = (utf8proc_int32_t)utf8_get(s.u.s + i, &len);
        char bytes[4];
        jinja_add(j, &t, bytes,
                  utf8_put(bytes, (uint32_t)recase(cp, to, first)));
        first = to == JINJA_TITLE && !cased(cp);
    }
    return jinja_str_of(j, &t);
}

static value str_arg(struct jinja *j, value v, const char *what)
{
    if (v.kind != JINJA_STR)
        jinja_fail(j, ERR_INVALID, "%s wants a string, not %s", what,
                   jinja_type(v));
    return v;
}

static int64_t int_arg(struct jinja *j, value v, int64_t fallback)
{
    if (v.kind == JINJA_UNDEFINED || v.kind == JINJA_NONE) return fallback;
    if (v.kind == JINJA_BOOL) return v.u.b;
    if (v.kind != JINJA_WHOLE)
        jinja_fail(j, ERR_INVALID, "whole number wanted, not %s",
                   jinja_type(v));
    return v.u.i;
}

/* The first `what` at or after from; s.len where there is none. */
static size_t find_from(struct jinja *j, value s, value what, size_t from)
{
    jinja_work(j, 1);
    const char *at =
        from <= s.len ? memmem(s.u.s + from, s.len - from, what.u.s, what.len)
                      : NULL;
    size_t found = at ? (size_t)(at - s.u.s) : s.len;
    jinja_work(j, (found - from) / 64);
    return found;
}

value jinja_replace(struct jinja *j, value s, value from, value to,
                    int64_t limit)
{
    struct jinja_text t = {0};
    size_t at = 0;
    int64_t count = 0;
    jinja_work(j, s.len / 64);
    while (limit < 0 || count < limit) {
        size_t found;
        if (from.len) {
            found = find_from(j, s, from, at);
            if (found + from.len > s.len) break;
        } else {
            if (at > s.len || (count && at == s.len)) break;
            jinja_work(j, 1);
            found = count ? at + utf8_len((unsigned char)s.u.s[at]) : 0;
        }
        jinja_add(j, &t, s.u.s + at, found - at);
        jinja_add(j, &t, to.u.s, to.len);
        at = found + from.len;
        count++;
    }
    if (!count) return s;
    jinja_add(j, &t, s.u.s + at, s.len - at);
    return jinja_str_of(j, &t);
}

/* A list of strings that grows. */
struct parts {
    value list;
    size_t cap;
};

static void add_part(struct jinja *j, struct parts *p, const char *s, size_t n)
{
    struct jinja_list *list = p->list.u.list;
    jinja_work(j, 1);
    if (list->count == p->cap) {
        p->cap = p->cap ? 2 * p->cap : 8;
        value *more = jinja_alloc(j, p->cap, sizeof *more);
        if (list->count) memcpy(more, list->items, list->count * sizeof *more);
        list->items = more;
    }
    list->items[list->count++] = jinja_str(j, s, n);
}

/* Length of the line end at s: str.splitlines knows eleven. */
static size_t line_end(const char *s, size_t n)
{
    size_t len;
    uint32_t cp = utf8_get(s, &len);
    if (cp == '\r' && n > 1 && s[1] == '\n') return 2;
    bool end = (cp >= 10 && cp <= 13) || (cp >= 0x1c && cp <= 0x1e) ||
               cp == 0x85 || cp == 0x2028 || cp == 0x2029;
    return end ? len : 0;
}

value jinja_splitlines(struct jinja *j, value s)
{
    struct parts p = {jinja_list(j, 0, JINJA_PLAIN), 0};
    size_t from = 0, len;
    jinja_work(j, s.len / 64);
    for (size_t i = 0; i < s.len;) {
        len = line_end(s.u.s + i, s.len - i);
        if (!len) {
            i += utf8_len((unsigned char)s.u.s[i]);
            continue;
        }
        add_part(j, &p, s.u.s + from, i - from);
        i += len;
        from = i;
    }
    if (from < s.len) add_part(j, &p, s.u.s + from, s.len - from);
    return p.list;
}

static value split_blank(struct jinja *j, value s, int64_t limit)
{
    struct parts p = {jinja_list(j, 0, JINJA_PLAIN), 0};
    jinja_work(j, s.len / 64);
    value rest = jinja_strip(j, s, NULL, 1);
    while (rest.len) {
        size_t i = 0, len = 0;
        if (limit == 0) i = rest.len;
        while (i < rest.len && !jinja_is_space(utf8_get(rest.u.s + i, &len)))
            i += len;
        add_part(j, &p, rest.u.s, i);
        limit--;
        rest =
            jinja_strip(j, jinja_str(j, rest.u.s + i, rest.len - i), NULL, 1);
    }
    return p.list;
}

static value split_by(struct jinja *j, value s, value by, int64_t limit)
{
    struct parts p = {jinja_list(j, 0, JINJA_PLAIN), 0};
    size_t at = 0;
    if (!by.len) jinja_fail(j, ERR_INVALID, "split by an empty string");
    for (; limit != 0; limit--) {
        size_t found = find_from(j, s, by, at);
        if (found + by.len > s.len) break;
        add_part(j, &p, s.u.s + at, found - at);
        at = found + by.len;
    }
    add_part(j, &p, s.u.s + at, s.len - at);
    return p.list;
}

/* Where the last `what` that ends at or before end starts; SIZE_MAX: none. */
static size_t find_last(struct jinja *j, value s, value what, size_t end)
{
    for (size_t at = end; what.len <= at; at--) {
        if (at % 16 == 0) jinja_work(j, 1);
        if (!memcmp(s.u.s + at - what.len, what.u.s, what.len))
            return at - what.len;
    }
    return SIZE_MAX;
}

static value rsplit_by(struct jinja *j, value s, value by, int64_t limit)
{
    struct parts p = {jinja_list(j, 0, JINJA_PLAIN), 0};
    size_t end = s.len, found;
    if (!by.len) jinja_fail(j, ERR_INVALID, "split by an empty string");
    for (; limit != 0 && (found = find_last(j, s, by, end)) != SIZE_MAX;
         limit--) {
        add_part(j, &p, s.u.s + found + by.len, end - found - by.len);
        end = found;
    }
    add_part(j, &p, s.u.s, end);
    struct jinja_list *list = p.list.u.list;
    for (size_t i = 0; i < list->count / 2; i++) {
        value swap = list->items[i];
        list->items[i] = list->items[list->count - 1 - i];
        list->items[list->count - 1 - i] = swap;
    }
    return p.list;
}

/* Methods: bind, then do. */

typedef struct jinja_args args;

static value m_case(struct jinja *j, value s, const args *a, enum jinja_case to)
{
    jinja_bind(j, "method", "", 0, a, NULL);
    return jinja_recase(j, s, to);
}

static value m_upper(struct jinja *j, value s, const args *a)
{
    return m_case(j, s, a, JINJA_UPPER);
}

static value m_lower(struct jinja *j, value s, const args *a)
{
    return m_case(j, s, a, JINJA_LOWER);
}

static value m_capitalize(struct jinja *j, value s, const args *a)
{
    return m_case(j, s, a, JINJA_CAPITAL);
}

static value m_title(struct jinja *j, value s, const args *a)
{
    return m_case(j, s, a, JINJA_TITLE);
}

static value strip(struct jinja *j, value s, const args *a, int side)
{
    value chars;
    jinja_bind(j, "strip", "chars", 0, a, &chars);
    if (chars.kind == JINJA_UNDEFINED || chars.kind == JINJA_NONE)
        return jinja_strip(j, s, NULL, side);
    chars = str_arg(j, chars, "strip");
    return jinja_strip(j, s, &chars, side);
}

static value m_strip(struct jinja *j, value s, const args *a)
{
    return strip(j, s, a, 3);
}

static value m_lstrip(struct jinja *j, value s, const args *a)
{
    return strip(j, s, a, 1);
}

static value m_rstrip(struct jinja *j, value s, const args *a)
{
    return strip(j, s, a, 2);
}

static value m_split(struct jinja *j, value s, const args *a)
{
    value v[2];
    jinja_bind(j, "split", "sep maxsplit", 0, a, v);
    int64_t limit = int_arg(j, v[1], -1);
    if (v[0].kind == JINJA_UNDEFINED || v[0].kind == JINJA_NONE)
        return split_blank(j, s, limit);
    return split_by(j, s, str_arg(j, v[0], "split"), limit);
}

static value m_rsplit(struct jinja *j, value s, const args *a)
{
    value v[2];
    jinja_bind(j, "rsplit", "sep maxsplit", 1, a, v);
    return rsplit_by(j, s, str_arg(j, v[0], "rsplit"), int_arg(j, v[1], -1));
}

static value m_splitlines(struct jinja *j, value s, const args *a)
{
    jinja_bind(j, "splitlines", "", 0, a, NULL);
    return jinja_splitlines(j, s);
}

/* Whether s starts (or ends) with what, or with one of a tuple. */
static bool has_end(struct jinja *j, value s, value what, bool at_start)
{
    if (what.kind == JINJA_LIST && what.u.list->kind == JINJA_TUPLE) {
        for (size_t i = 0; i < what.u.list->count; i++)
            if (has_end(j, s, str_arg(j, what.u.list->items[i], "startswith"),
                        at_start))
                return true;
        return false;
    }
    what = str_arg(j, what, at_start ? "startswith" : "endswith");
    size_t off = at_start ? 0 : s.len - what.len;
    return what.len <= s.len && !memcmp(s.u.s + off, what.u.s, what.len);
}

static value m_startswith(struct jinja *j, value s, const args *a)
{
    value v;
    jinja_bind(j, "startswith", "prefix", 1, a, &v);
    return jinja_bool(has_end(j, s, v, true));
}

static value m_endswith(struct jinja *j, value s, const args *a)
{
    value v;
    jinja_bind(j, "endswith", "suffix", 1, a, &v);
    return jinja_bool(has_end(j, s, v, false));
}

static value m_removeprefix(struct jinja *j, value s, const args *a)
{
    value v;
    jinja_bind(j, "removeprefix", "prefix", 1, a, &v);
    v = str_arg(j, v, "removeprefix");
    if (!has_end(j, s, v, true)) return s;
    return jinja_str(j, s.u.s + v.len, s.len - v.len);
}

static value m_removesuffix(struct jinja *j, value s, const args *a)
{
    value v;
    jinja_bind(j, "removesuffix", "suffix", 1, a, &v);
    v = str_arg(j, v, "removesuffix");
    return jinja_str(j, s.u.s, has_end(j, s, v, false) ? s.len - v.len : s.len);
}

static value m_replace(struct jinja *j, value s, const args *a)
{
    value v[3];
    jinja_bind(j, "replace", "old new count", 2, a, v);
    return jinja_replace(j, s, str_arg(j, v[0], "replace"),
                         str_arg(j, v[1], "replace"), int_arg(j, v[2], -1));
}

static value find(struct jinja *j, value s, const args *a, bool last)
{
    value v;
    jinja_bind(j, "find", "sub", 1, a, &v);
    v = str_arg(j, v, "find");
    size_t at = last ? find_last(j, s, v, s.len) : find_from(j, s, v, 0);
    if (at == SIZE_MAX || at + v.len > s.len) return jinja_whole(-1);
    return jinja_whole((int64_t)jinja_chars(s.u.s, at));
}

static value m_find(struct jinja *j, value s, const args *a)
{
    return find(j, s, a, false);
}

static value m_rfind(struct jinja *j, value s, const args *a)
{
    return find(j, s, a, true);
}

static value m_join(struct jinja *j, value s, const args *a)
{
    value v;
    struct jinja_text t = {0};
    jinja_bind(j, "join", "iterable", 1, a, &v);
    const struct jinja_list *list = jinja_iterate(j, v);
    for (size_t i = 0; i < list->count; i++) {
        value item = str_arg(j, list->items[i], "join");
        if (i) jinja_print(j, &t, s);
        jinja_print(j, &t, item);
    }
    return jinja_str_of(j, &t);
}

static value m_str_count(struct jinja *j, value s, const args *a)
{
    value v;
    int64_t count = 0;
    jinja_bind(j, "count", "sub", 1, a, &v);
    v = str_arg(j, v, "count");
    if (!v.len) return jinja_whole((int64_t)jinja_chars(s.u.s, s.len) + 1);
    for (size_t at = 0; (at = find_from(j, s, v, at)) + v.len <= s.len;
         at += v.len)
        count++;
    return jinja_whole(count);
}

/* "isdigit" and its like, for ASCII; of other text Python's answer hangs on
 * properties that are not at hand. */
static value is_all(struct jinja *j, value s, const args *a, const char *name)
{
    jinja_bind(j, name, "", 0, a, NULL);
    bool all = s.len > 0;
    jinja_work(j, s.len / 16);
    for (size_t i = 0; i < s.len; i++) {
        char c = s.u.s[i];
        if ((unsigned char)c >= 0x80)
            jinja_fail(j, ERR_UNSUPPORTED, "%s of other than ASCII", name);
        bool digit = c >= '0' && c <= '9';
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        all = all && ((letter && strcmp(name, "isdigit")) ||
                      (digit && strcmp(name, "isalpha")));
    }
    return jinja_bool(all);
}

static value m_isdigit(struct jinja *j, value s, const args *a)
{
    return is_all(j, s, a, "isdigit");
}

static value m_isalpha(struct jinja *j, value s, const args *a)
{
    return is_all(j, s, a, "isalpha");
}

static value m_isalnum(struct jinja *j, value s, const args *a)
{
    return is_all(j, s, a, "isalnum");
}

static value m_isspace(struct jinja *j, value s, const args *a)
{
    jinja_bind(j, "isspace", "", 0, a, NULL);
    return jinja_bool(s.len && !jinja_strip(j, s, NULL, 1).len);
}

static value is_cased(struct jinja *j, value s, const args *a, bool upper)
{
    bool any = false;
    size_t len;
    jinja_bind(j, "isupper", "", 0, a, NULL);
    jinja_work(j, s.len / 16);
    for (size_t i = 0; i < s.len; i += len) {
        utf8proc_int32_t cp = (utf8proc_int32_t)utf8_get(s.u.s + i, &len);
        if (!cased(cp)) continue;
        if (upper ? !utf8proc_isupper(cp) : !utf8proc_islower(cp))
            return jinja_bool(false);
        any = true;
    }
    return jinja_bool(any);
}

static value m_isupper(struct jinja *j, value s, const args *a)
{
    return is_cased(j, s, a, true);
}

static value m_islower(struct jinja *j, value s, const args *a)
{
    return is_cased(j, s, a, false);
}

/* Of lists. */

static value m_list_count(struct jinja *j, value l, const args *a)
{
    value v;
    int64_t count = 0;
    jinja_bind(j, "count", "value", 1, a, &v);
    for (size_t i = 0; i < l.u.list->count; i++)
        count += jinja_equal(j, l.u.list->items[i], v);
    return jinja_whole(count);
}

static value m_list_index(struct jinja *j, value l, const args *a)
{
    value v;
    jinja_bind(j, "index", "value", 1, a, &v);
    for (size_t i = 0; i < l.u.list->count; i++)
        if (jinja_equal(j, l.u.list->items[i], v))
            return jinja_whole((int64_t)i);
    jinja_fail(j, ERR_INVALID, "index: value is not in the list");
}

/* Of dicts. */

static value view(struct jinja *j, value d, const args *a, int what)
{
    const struct jinja_dict *dict = d.u.dict;
    value out = jinja_list(j, dict->count, JINJA_VIEW);
    jinja_bind(j, "method", "", 0, a, NULL);
    for (size_t i = 0; i < dict->count; i++) {
        value pair = what ? jinja_none() : jinja_list(j, 2, JINJA_TUPLE);
        if (!what) {
            pair.u.list->items[0] = dict->entries[i].key;
            pair.u.list->items[1] = dict->entries[i].value;
        }
        out.u.list->items[i] = what == 1   ? dict->entries[i].key
                               : what == 2 ? dict->entries[i].value
                                           : pair;
    }
    return out;
}

static value m_items(struct jinja *j, value d, const args *a)
{
    return view(j, d, a, 0);
}

static value m_keys(struct jinja *j, value d, const args *a)
{
    return view(j, d, a, 1);
}

static value m_values(struct jinja *j, value d, const args *a)
{
    return view(j, d, a, 2);
}

static value m_get(struct jinja *j, value d, const args *a)
{
    value v[2];
    jinja_bind(j, "get", "key default", 1, a, v);
    if (a->named_count) jinja_fail(j, ERR_INVALID, "get takes no named ones");
    const value *found = jinja_dict_get(j, d.u.dict, v[0]);
    if (found) return *found;
    return a->count < 2 ? jinja_none() : v[1];
}

/* The sandbox is immutable: calling one of these is an error of the rendering,
 * as in jinja2. */
static value m_mutator(struct jinja *j, value self, const args *a)
{
    (void)a;
    jinja_fail(j, ERR_INVALID, "a method that changes a %s is unsafe",
               jinja_type(self));
}

struct jinja_method_row {
    const char *name;
    enum jinja_kind kind;
    value (*call)(struct jinja *j, value self, const args *a);
};

static const struct jinja_method_row methods[] = {
    {"upper", JINJA_STR, m_upper},
    {"lower", JINJA_STR, m_lower},
    {"capitalize", JINJA_STR, m_capitalize},
    {"title", JINJA_STR, m_title},
    {"strip", JINJA_STR, m_strip},
    {"lstrip", JINJA_STR, m_lstrip},
    {"rstrip", JINJA_STR, m_rstrip},
    {"split", JINJA_STR, m_split},
    {"rsplit", JINJA_STR, m_rsplit},
    {"splitlines", JINJA_STR, m_splitlines},
    {"startswith", JINJA_STR, m_startswith},
    {"endswith", JINJA_STR, m_endswith},
    {"removeprefix", JINJA_STR, m_removeprefix},
    {"removesuffix", JINJA_STR, m_removesuffix},
    {"replace", JINJA_STR, m_replace},
    {"find", JINJA_STR, m_find},
    {"rfind", JINJA_STR, m_rfind},
    {"join", JINJA_STR, m_join},
    {"count", JINJA_STR, m_str_count},
    {"isdigit", JINJA_STR, m_isdigit},
    {"isalpha", JINJA_STR, m_isalpha},
    {"isalnum", JINJA_STR, m_isalnum},
    {"isspace", JINJA_STR, m_isspace},
    {"isupper", JINJA_STR, m_isupper},
    {"islower", JINJA_STR, m_islower},
    {"count", JINJA_LIST, m_list_count},
    {"index", JINJA_LIST, m_list_index},
    {"items", JINJA_DICT, m_items},
    {"keys", JINJA_DICT, m_keys},
    {"values", JINJA_DICT, m_values},
    {"get", JINJA_DICT, m_get},
    {"append", JINJA_LIST, m_mutator},
    {"extend", JINJA_LIST, m_mutator},
    {"insert", JINJA_LIST, m_mutator},
    {"pop", JINJA_LIST, m_mutator},
    {"remove", JINJA_LIST, m_mutator},
    {"pop", JINJA_DICT, m_mutator},
    {"update", JINJA_DICT, m_mutator},
    {"setdefault", JINJA_DICT, m_mutator},
};
enum { METHODS = sizeof methods / sizeof *methods };

static bool named(const char *name, const char *s, size_t n)
{
    return strlen(name) == n && !memcmp(name, s, n);
}

bool jinja_method_known(const char *name, size_t n)
{
    for (size_t i = 0; i < METHODS; i++)
        if (named(methods[i].name, name, n)) return true;
    return named("cycle", name, n) || named("changed", name, n);
}

value jinja_method(struct jinja *j, value v, const char *name, size_t n)
{
    for (size_t i = 0; i < METHODS; i++) {
        if (methods[i].kind != (enum jinja_kind)v.kind ||
            !named(methods[i].name, name, n))
            continue;
        if (v.kind == JINJA_LIST && v.u.list->kind > JINJA_TUPLE) continue;
        struct jinja_method *m = jinja_alloc(j, 1, sizeof *m);
        *m = (struct jinja_method){v, &methods[i]};
        return (value){.kind = JINJA_METHOD, .u.method = m};
    }
    return jinja_undefined(name, n);
}

value jinja_method_call(struct jinja *j, const struct jinja_method *m,
                        const args *a)
{
    return m->row->call(j, m->self, a);
}

/* The index of the parameter called name in "a b c", or -1. */
static int param_index(const char *params, const char *name)
{
    size_t n = strlen(name);
    for (int i = 0; *params; i++) {
        size_t len = strcspn(params, " ");
        if (len == n && !memcmp(params, name, n)) return i;
        params += len + (params[len] == ' ');
    }
    return -1;
}

void jinja_bind(struct jinja *j, const char *what, const char *params,
                size_t need, const args *a, value *into)
{
    size_t count = *params != 0;
    for (const char *p = params; *p; p++)
        count += *p == ' ';
    if (a->count > count)
        jinja_fail(j, ERR_INVALID, "%s takes %zu arguments, got %zu", what,
                   count, a->count);
    bool given[16] = {0};
    for (size_t i = 0; i < count; i++) {
        given[i] = i < a->count;
        into[i] = given[i] ? a->items[i] : jinja_undefined("argument", 8);
    }
    for (size_t i = 0; i < a->named_count; i++) {
        int at = param_index(params, a->names[i]);
        if (at < 0 || given[at])
            jinja_fail(j, ERR_INVALID, "%s: argument %s %s", what, a->names[i],
                       at < 0 ? "is unknown" : "comes twice");
        given[at] = true;
        into[at] = a->named[i];
    }
    for (size_t i = 0; i < need; i++)
        if (!given[i])
            jinja_fail(j, ERR_INVALID, "%s: argument %zu is missing", what,
                       i + 1);
}
