/* Values as text: str(), repr() and json.dumps as Python writes them. */
#include "text/jinja.h"
#include "text/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* Python's repr of a float: the fewest digits that read back the same. */
static void print_real(struct jinja *j, struct jinja_text *t, double f)
{
    char digits[40], out[64];
    int exponent, precision = 1;
    if (isnan(f) || isinf(f)) {
        jinja_adds(j, t, isnan(f) ? "nan" : f > 0 ? "inf" : "-inf");
        return;
    }
    do
        snprintf(digits, sizeof digits, "%.*e", precision - 1, f);
    while (strtod(digits, NULL) != f && precision++ < 17);
    exponent = atoi(strchr(digits, 'e') + 1);
    if (exponent >= -4 && exponent < 16) {
        int after = precision - 1 - exponent;
        snprintf(out, sizeof out, "%.*f", after > 1 ? after : 1, f);
        jinja_adds(j, t, out);
        return;
    }
    char *e = strchr(digits, 'e');
    jinja_add(j, t, digits, (size_t)(e - digits));
    snprintf(out, sizeof out, "e%c%02d", exponent < 0 ? '-' : '+',
             abs(exponent));
    jinja_adds(j, t, out);
}

void jinja_print(struct jinja *j, struct jinja_text *t, struct jinja_value v)
{
    switch (v.kind) {
    case JINJA_UNDEFINED: break;
    case JINJA_STR:
        jinja_work(j, v.len / 64);
        jinja_add(j, t, v.u.s, v.len);
        break;
    default: jinja_repr(j, t, v);
    }
}

struct jinja_value jinja_to_str(struct jinja *j, struct jinja_value v)
{
    struct jinja_text t = {0};
    if (v.kind == JINJA_STR) return v;
    jinja_print(j, &t, v);
    return jinja_str_of(j, &t);
}

static bool printable(uint32_t cp)
{
    if (cp == ' ') return true;
    const char *c = utf8proc_category_string((utf8proc_int32_t)cp);
    return c[0] != 'C' && c[0] != 'Z';
}

static void repr_char(struct jinja *j, struct jinja_text *t, const char *s,
                      size_t len, char quote)
{
    char out[16];
    size_t unused;
    uint32_t cp = utf8_get(s, &unused);
    if (cp == (unsigned char)quote || cp == '\\')
        snprintf(out, sizeof out, "\\%c", (char)cp);
    else if (cp == '\n' || cp == '\r' || cp == '\t')
        snprintf(out, sizeof out, "\\%c",
                 cp == '\n'   ? 'n'
                 : cp == '\r' ? 'r'
                              : 't');
    else if (printable(cp))
        snprintf(out, sizeof out, "%.*s", (int)len, s);
    else
        snprintf(out, sizeof out,
                 cp < 0x100     ? "\\x%02x"
                 : cp < 0x10000 ? "\\u%04x"
                                : "\\U%08x",
                 cp);
    jinja_adds(j, t, out);
}

static void repr_str(struct jinja *j, struct jinja_text *t,
                     struct jinja_value v)
{
    bool quotes =
        v.len && memchr(v.u.s, '\'', v.len) && !memchr(v.u.s, '"', v.len);
    char quote = quotes ? '"' : '\'';
    size_t len;
    jinja_work(j, v.len / 16);
    if (v.markup) jinja_not_for(j, "printing of marked up text", v);
    jinja_add(j, t, &quote, 1);
    for (size_t i = 0; i < v.len; i += len) {
        len = utf8_len((unsigned char)v.u.s[i]);
        repr_char(j, t, v.u.s + i, len, quote);
    }
    jinja_add(j, t, &quote, 1);
}

static void repr_list(struct jinja *j, struct jinja_text *t,
                      const struct jinja_list *list)
{
    bool tuple = list->kind == JINJA_TUPLE;
    jinja_adds(j, t, tuple ? "(" : "[");
    for (size_t i = 0; i < list->count; i++) {
        if (i) jinja_adds(j, t, ", ");
        jinja_repr(j, t, list->items[i]);
    }
    if (tuple && list->count == 1) jinja_adds(j, t, ",");
    jinja_adds(j, t, tuple ? ")" : "]");
}

static void repr_dict(struct jinja *j, struct jinja_text *t,
                      const struct jinja_dict *d)
{
    jinja_adds(j, t, "{");
    for (size_t i = 0; i < d->count; i++) {
        if (i) jinja_adds(j, t, ", ");
        jinja_repr(j, t, d->entries[i].key);
        jinja_adds(j, t, ": ");
        jinja_repr(j, t, d->entries[i].value);
    }
    jinja_adds(j, t, "}");
}

void jinja_repr(struct jinja *j, struct jinja_text *t, struct jinja_value v)
{
    char digits[32];
    jinja_work(j, 1);
    jinja_enter(j);
    switch (v.kind) {
    case JINJA_UNDEFINED: jinja_adds(j, t, "Undefined"); break;
    case JINJA_NONE: jinja_adds(j, t, "None"); break;
    case JINJA_BOOL: jinja_adds(j, t, v.u.b ? "True" : "False"); break;
    case JINJA_WHOLE:
        snprintf(digits, sizeof digits, "%lld", (long long)v.u.i);
        jinja_adds(j, t, digits);
        break;
    case JINJA_REAL: print_real(j, t, v.u.f); break;
    case JINJA_STR: repr_str(j, t, v); break;
    case JINJA_DICT: repr_dict(j, t, v.u.dict); break;
    case JINJA_LIST:
        if (v.u.list->kind <= JINJA_TUPLE) {
            repr_list(j, t, v.u.list);
            break;
        }
        /* fall through */
    default: jinja_not_for(j, "printing", v);
    }
    jinja_leave(j);
}

/* json.dumps. */

static void json_str(struct jinja *j, struct jinja_text *t,
                     struct jinja_value v, bool ascii)
{
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    size_t len, start = 0;
    char out[16];
    jinja_work(j, v.len / 16);
    jinja_adds(j, t, "\"");
    for (size_t i = 0; i < v.len; i += len) {
        uint32_t cp = utf8_get(v.u.s + i, &len);
        const char *named = cp && cp < 0x80 ? strchr(from, (int)cp) : NULL;
        if (!named && cp >= 0x20 && (!ascii || cp < 0x7f)) continue;
        if (named)
            snprintf(out, sizeof out, "\\%c", to[named - from]);
        else if (cp < 0x10000)
            snprintf(out, sizeof out, "\\u%04x", cp);
        else
            snprintf(out, sizeof out, "\\u%04x\\u%04x", 0xd7c0 + (cp >> 10),
                     0xdc00 + (cp & 0x3ff));
        jinja_add(j, t, v.u.s + start, i - start);
        jinja_adds(j, t, out);
        start = i + len;
    }
    jinja_add(j, t, v.u.s + start, v.len - start);
    jinja_adds(j, t, "\"");
}

struct dump {
    struct jinja *j;
    struct jinja_text *t;
    const struct jinja_json_style *style;
    size_t level;
};

static void dump(struct dump *d, struct jinja_value v);

/* Before an item, or the end of a list or dict that is not empty. */
static void dump_line(struct dump *d)
{
    if (!d->style->indent) return;
    jinja_adds(d->j, d->t, "\n");
    for (size_t i = 0; i < d->level; i++)
        jinja_add(d->j, d->t, d->style->indent, d->style->indent_len);
}

static void dump_list(struct dump *d, const struct jinja_list *list)
{
    jinja_adds(d->j, d->t, "[");
    d->level++;
    for (size_t i = 0; i < list->count; i++) {
        if (i) jinja_add(d->j, d->t, d->style->item, d->style->item_len);
        dump_line(d);
        dump(d, list->items[i]);
    }
    d->level--;
    if (list->count) dump_line(d);
    jinja_adds(d->j, d->t, "]");
}

static void dump_number(struct dump *d, struct jinja_value v)
{
    if (v.kind == JINJA_REAL && !isfinite(v.u.f))
        jinja_adds(d->j, d->t,
                   isnan(v.u.f) ? "NaN"
                   : v.u.f > 0  ? "Infinity"
                                : "-Infinity");
    else
        jinja_repr(d->j, d->t, v);
}

static void dump_key(struct dump *d, struct jinja_value key)
{
    if (key.kind == JINJA_STR) {
        json_str(d->j, d->t, key, d->style->ascii);
        return;
    }
    if (key.kind > JINJA_REAL || key.kind == JINJA_UNDEFINED)
        jinja_not_for(d->j, "a key of tojson", key);
    jinja_adds(d->j, d->t, "\"");
    dump(d, key);
    jinja_adds(d->j, d->t, "\"");
}

static int order_entries(struct jinja *j, void *arg,
                         const struct jinja_value *a,
                         const struct jinja_value *b)
{
    (void)arg;
    return jinja_compare(j, a->u.list->items[0], b->u.list->items[0]);
}

static struct jinja_dict *sorted(struct jinja *j, const struct jinja_dict *dict)
{
    struct jinja_value pairs = jinja_list(j, dict->count, JINJA_PLAIN);
    for (size_t i = 0; i < dict->count; i++) {
        struct jinja_value pair = jinja_list(j, 2, JINJA_TUPLE);
        pair.u.list->items[0] = dict->entries[i].key;
        pair.u.list->items[1] = dict->entries[i].value;
        pairs.u.list->items[i] = pair;
    }
    jinja_sort(j, pairs.u.list->items, dict->count, order_entries, NULL);
    struct jinja_dict *out = jinja_dict(j).u.dict;
    for (size_t i = 0; i < dict->count; i++)
        jinja_dict_set(j, out, pairs.u.list->items[i].u.list->items[0],
                       pairs.u.list->items[i].u.list->items[1]);
    return out;
}

static void dump_dict(struct dump *d, const struct jinja_dict *dict)
{
    if (d->style->sort_keys) dict = sorted(d->j, dict);
    jinja_adds(d->j, d->t, "{");
    d->level++;
    for (size_t i = 0; i < dict->count; i++) {
        if (i) jinja_add(d->j, d->t, d->style->item, d->style->item_len);
        dump_line(d);
        dump_key(d, dict->entries[i].key);
        jinja_add(d->j, d->t, d->style->key, d->style->key_len);
        dump(d, dict->entries[i].value);
    }
    d->level--;
    if (dict->count) dump_line(d);
    jinja_adds(d->j, d->t, "}");
}

static void dump(struct dump *d, struct jinja_value v)
{
    jinja_enter(d->j);
    jinja_work(d->j, 1);
    switch (v.kind) {
    case JINJA_NONE: jinja_adds(d->j, d->t, "null"); break;
    case JINJA_BOOL: jinja_adds(d->j, d->t, v.u.b ? "true" : "false"); break;
    case JINJA_WHOLE:
    case JINJA_REAL: dump_number(d, v); break;
    case JINJA_STR: json_str(d->j, d->t, v, d->style->ascii); break;
    case JINJA_DICT: dump_dict(d, v.u.dict); break;
    case JINJA_LIST:
        if (v.u.list->kind <= JINJA_TUPLE) {
            dump_list(d, v.u.list);
            break;
        }
        /* fall through */
    default: jinja_not_for(d->j, "tojson", v);
    }
    jinja_leave(d->j);
}

void jinja_tojson(struct jinja *j, struct jinja_text *t, struct jinja_value v,
                  const struct jinja_json_style *style)
{
    struct dump d = {j, t, style, 0};
    dump(&d, v);
}
