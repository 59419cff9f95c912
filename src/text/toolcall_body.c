/* Calls whose arguments are JSON, read a byte at a time: whether it is JSON at
 * all is the client's to find out, here only strings and brackets are told
 * apart. A model that forgets to close one is caught at the call's closing tag,
 * which cannot stand in JSON: outside of strings by its first character, and
 * in a string behind a line's end, which JSON would have escaped. */
#include "text/reply_impl.h"

enum { MAX_NAME = 512 };

/* --- a value --- */

enum value_end { VALUE_MORE, VALUE_DONE, VALUE_BROKEN };

/* In a string, at a line's end: does the call's closing tag follow? */
static enum reply_match closes(struct toolcall *t)
{
    const char *end = t->format->call_end;
    size_t at = t->at;
    if (!end) return REPLY_NO;
    t->at += reply_blanks(t->in.data + at, t->in.len - at);
    enum reply_match how = toolcall_starts(t, end);
    t->at = at;
    return how;
}

static void keep_byte(struct toolcall *t, char c)
{
    if (t->scan.string && (unsigned char)c < 0x20)
        buf_json(&t->args, &c, 1);
    else
        buf_putc(&t->args, c);
}

/* The byte at t->at of a string; true: it was the last. */
static bool string_byte(struct json_scan *s, char c)
{
    if (s->escape)
        s->escape = false;
    else if (c == '\\')
        s->escape = true;
    else if (c == '"')
        return true;
    return false;
}

/* A byte outside of strings; true: the value ended before it. */
static bool plain_byte(struct json_scan *s, char c)
{
    bool opens = c == '{' || c == '[', shuts = c == '}' || c == ']';
    if (s->depth == 0 && s->begun && (reply_blank(c) || c == ',')) return true;
    if (s->depth == 0 && shuts) return true;
    s->begun = true;
    s->string = c == '"';
    s->depth += opens;
    s->depth -= shuts;
    return false;
}

/* Goes on with the value at t->at; keep: into t->args. */
static enum value_end scan_value(struct toolcall *t, bool keep)
{
    struct json_scan *s = &t->scan;
    const char *end = t->format->call_end;
    for (; t->at < t->in.len; t->at++) {
        char c = t->in.data[t->at];
        if (s->string) {
            enum reply_match how = c == '\n' ? closes(t) : REPLY_NO;
            if (how != REPLY_NO)
                return how == REPLY_YES ? VALUE_BROKEN : VALUE_MORE;
            if (keep) keep_byte(t, c);
            if (!string_byte(s, c)) continue;
            s->string = false;
            if (s->depth) continue;
            t->at++;
            return VALUE_DONE;
        }
        if (!s->begun && reply_blank(c)) continue;
        if (end && c == *end) return VALUE_BROKEN;
        bool nested = s->depth > 0;
        if (plain_byte(s, c)) return VALUE_DONE;
        if (keep) buf_putc(&t->args, c);
        if (!nested || s->depth || s->string) continue;
        t->at++;
        return VALUE_DONE;
    }
    return VALUE_MORE;
}

static void skip_blanks(struct toolcall *t)
{
    size_t n; /* a call takes some at a time */
    while ((n = reply_blanks(t->in.data + t->at, t->in.len - t->at)))
        t->at += n;
}

/* --- {"name": "f", "arguments": {...}} --- */

static enum toolcall_found broken(const struct toolcall *t)
{
    return t->opened ? TOOLCALL_DONE : TOOLCALL_NONE;
}

static bool key_is(const struct toolcall *t, const char *name)
{
    return t->mark_len == strlen(name) &&
           memcmp(t->in.data + t->mark, name, t->mark_len) == 0;
}

/* The key's closing quote; false: not here yet. */
static bool end_key(struct toolcall *t)
{
    while (t->at < t->in.len) {
        char c = t->in.data[t->at];
        if (c == '"') {
            t->mark_len = t->at++ - t->mark;
            return true;
        }
        if (c == '\\' && t->at + 1 == t->in.len) return false;
        t->at += c == '\\' ? 2 : 1;
    }
    return false;
}

/* What the value of the key is for; false: no call has such a key. */
static bool take_key(struct toolcall *t)
{
    t->is_name = !t->opened && key_is(t, "name");
    t->is_args =
        !t->has_args && (key_is(t, "arguments") || key_is(t, "parameters"));
    t->has_args |= t->is_args;
    if (t->is_name || t->is_args || t->opened || !t->format->bare) return true;
    return t->has_args || key_is(t, "type") || key_is(t, "id");
}

static bool take_name(struct toolcall *t)
{
    json_t *name;
    if (json_parse(&name, t->in.data + t->value, t->at - t->value, NULL))
        return false;
    bool offered =
        json_is_string(name) &&
        toolcall_open(t, json_string_value(name), json_string_length(name));
    json_decref(name);
    return offered;
}

static enum toolcall_found end_object(struct toolcall *t)
{
    t->at++;
    if (t->opened && !t->has_args) buf_puts(&t->args, "{}");
    return broken(t);
}

enum toolcall_found toolcall_body_object(struct toolcall *t)
{
    for (;;) {
        if (t->phase != BODY_VALUE && t->phase != BODY_KEY_TEXT) skip_blanks(t);
        if (t->at == t->in.len) return TOOLCALL_MORE;
        char c = t->in.data[t->at];
        enum value_end end;
        switch (t->phase) {
        case BODY_OPEN:
            if (c != '{') return TOOLCALL_NONE;
            t->at++;
            t->phase = BODY_KEY;
            break;
        case BODY_KEY:
            if (c == '}') return end_object(t);
            if (c != ',' && c != '"') return broken(t);
            t->mark = ++t->at;
            if (c == '"') t->phase = BODY_KEY_TEXT;
            break;
        case BODY_KEY_TEXT:
            if (!end_key(t)) return TOOLCALL_MORE;
            if (!take_key(t)) return broken(t);
            t->phase = BODY_COLON;
            break;
        case BODY_COLON:
            if (c != ':') return broken(t);
            t->value = ++t->at;
            t->scan = (struct json_scan){0};
            t->phase = BODY_VALUE;
            break;
        case BODY_VALUE:
            end = scan_value(t, t->is_args);
            if (end == VALUE_MORE) return TOOLCALL_MORE;
            if (end == VALUE_BROKEN) return broken(t);
            if (t->is_name && !take_name(t)) return TOOLCALL_NONE;
            t->phase = BODY_KEY;
            break;
        }
    }
}

/* --- f, a separator, {...} --- */

/* Into mark: the name is of no use before what follows it is known. */
static enum toolcall_found read_name(struct toolcall *t)
{
    enum reply_match how;
    size_t end = toolcall_search(t, t->format->name_end, &how);
    if (end - t->at > MAX_NAME) return TOOLCALL_NONE;
    if (how != REPLY_YES) return TOOLCALL_MORE;
    skip_blanks(t);
    size_t n = end > t->at ? end - t->at : 0;
    t->mark = t->at;
    t->mark_len = n - reply_last_blanks(t->in.data + t->at, n);
    t->at = end + strlen(t->format->name_end);
    return TOOLCALL_DONE;
}

static bool open_named(struct toolcall *t)
{
    return toolcall_open(t, t->in.data + t->mark, t->mark_len);
}

enum toolcall_found toolcall_body_header(struct toolcall *t)
{
    if (t->phase == BODY_OPEN) {
        enum toolcall_found found = read_name(t);
        if (found != TOOLCALL_DONE) return found;
        t->phase = BODY_KEY;
    }
    if (t->phase == BODY_KEY) {
        skip_blanks(t);
        if (t->at == t->in.len) return TOOLCALL_MORE;
        char c = t->in.data[t->at]; /* an object, or none at all */
        if (c != '{' && c != *t->format->call_end) return TOOLCALL_NONE;
        if (!open_named(t)) return TOOLCALL_NONE;
        t->phase = BODY_VALUE;
    }
    if (scan_value(t, true) == VALUE_MORE) return TOOLCALL_MORE;
    if (!t->scan.begun) buf_puts(&t->args, "{}");
    return TOOLCALL_DONE;
}

/* --- f>, <parameter=p>, a text, </parameter>, ... </function> --- */

/* The schema's type of the parameter at t->mark; NULL: not one word. */
static const char *type_of(const struct toolcall *t, bool *known)
{
    const json_t *properties =
        json_object_get(json_object_get(t->tool, "parameters"), "properties");
    const json_t *p =
        json_object_getn(properties, t->in.data + t->mark, t->mark_len);
    *known = p != NULL;
    return json_string_value(json_object_get(p, "type"));
}

/* Python's words for JSON's. */
static const char *word_of(const char *s, size_t n)
{
    static const char *const words[][2] = {
        {"None", "null"}, {"True", "true"}, {"False", "false"}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strlen(words[i][0]) == n && memcmp(s, words[i][0], n) == 0)
            return words[i][1];
    return NULL;
}

/* A text as the value that the schema wants: a string as it is, anything else
 * as the JSON that it is, or, where it is none, a string again. */
static void add_value(struct toolcall *t, const char *s, size_t n)
{
    bool known;
    json_t *json = NULL;
    const char *type = type_of(t, &known), *word = word_of(s, n);
    bool text = !known || (type && strcmp(type, "string") == 0);
    if (!text && word) {
        buf_puts(&t->args, word);
    } else if (!text && n && !json_parse(&json, s, n, NULL)) {
        buf_add(&t->args, s, n);
        json_decref(json);
    } else {
        buf_putc(&t->args, '"');
        buf_json(&t->args, s, n);
        buf_putc(&t->args, '"');
    }
}

/* The parameter whose text ends before end. One line's end at each side belongs
 * to the tags. */
static void add_param(struct toolcall *t, size_t end)
{
    const char *s = t->in.data + t->value;
    size_t n = end - t->value;
    buf_puts(&t->args, t->params++ ? ", \"" : "{\"");
    buf_json(&t->args, t->in.data + t->mark, t->mark_len);
    buf_puts(&t->args, "\": ");
    if (n && *s == '\n') {
        s++;
        n--;
    }
    if (n && s[n - 1] == '\n') n--;
    add_value(t, s, n);
}

static enum toolcall_found end_xml(struct toolcall *t)
{
    buf_puts(&t->args, t->params ? "}" : "{}");
    return TOOLCALL_DONE;
}

/* Between parameters. TOOLCALL_NONE: one begins. */
static enum toolcall_found next_param(struct toolcall *t)
{
    static const char begin[] = "<parameter=", end[] = "</function>";
    skip_blanks(t);
    if (t->at == t->in.len) return TOOLCALL_MORE;
    enum reply_match param = toolcall_starts(t, begin),
                     over = toolcall_starts(t, end);
    if (param == REPLY_PART || over == REPLY_PART) return TOOLCALL_MORE;
    if (param == REPLY_YES) {
        t->mark = t->at += sizeof begin - 1;
        return TOOLCALL_NONE;
    }
    if (over == REPLY_YES) t->at += sizeof end - 1;
    return end_xml(t);
}

enum toolcall_found toolcall_body_xml(struct toolcall *t)
{
    static const char end[] = "</parameter>";
    enum toolcall_found found;
    enum reply_match how;
    size_t at;
    for (;;) {
        switch (t->phase) {
        case BODY_OPEN:
            found = read_name(t);
            if (found != TOOLCALL_DONE) return found;
            if (!open_named(t)) return TOOLCALL_NONE;
            t->phase = BODY_KEY;
            break;
        case BODY_KEY:
            found = next_param(t);
            if (found != TOOLCALL_NONE) return found;
            t->phase = BODY_KEY_TEXT;
            break;
        case BODY_KEY_TEXT:
            at = toolcall_search(t, ">", &how);
            if (at - t->mark > MAX_NAME) return end_xml(t);
            if (how != REPLY_YES) return TOOLCALL_MORE;
            t->mark_len = at - t->mark;
            t->value = t->at = at + 1;
            t->phase = BODY_VALUE;
            break;
        default:
            t->at = toolcall_search(t, end, &how);
            if (how != REPLY_YES) return TOOLCALL_MORE;
            add_param(t, t->at);
            t->at += sizeof end - 1;
            t->phase = BODY_KEY;
            break;
        }
    }
}
