/* The second stage of text/reply.h: finds where calls begin and end. Formats:
 * the models' chat templates; names: SGLang's tool-call parsers. */
#include "text/reply_impl.h"

#define DS_SECTION "<｜tool▁calls▁begin｜>"
#define DS_CALL    "<｜tool▁call▁begin｜>"
#define DS_SEP     "<｜tool▁sep｜>"

#define DS_SECTION_END "<｜tool▁calls▁end｜>"
#define DS_CALL_END    "<｜tool▁call▁end｜>"

static const struct toolcall_format formats[] = {
    /* <tool_call>\n{"name": "f", "arguments": {...}}\n</tool_call> */
    {.names = "qwen|qwen25",
     .call = "<tool_call>",
     .call_end = "</tool_call>",
     .write = {.lead = "<tool_call>\n{\"name\": \"",
               .follow = "\", \"arguments\": ",
               .tail = "}\n</tool_call>",
               .joint = "\n"},
     .body = toolcall_body_object},
    /* <tool_call>\n<function=f>\n<parameter=p>\nv\n</parameter>\n</function>
     * \n</tool_call> */
    {.names = "qwen3_coder",
     .section = "<tool_call>",
     .section_end = "</tool_call>",
     .call = "<function=",
     .name_end = ">",
     .write = {.lead = "<tool_call>\n<function=",
               .follow = ">\n",
               .tail = "</function>\n</tool_call>",
               .joint = "\n"},
     .body = toolcall_body_xml},
    /* {"name": "f", "parameters": {...}}; ..., with or without the tag */
    {.names = "llama3",
     .section = "<|python_tag|>",
     .between = ";",
     .write = {.lead = "{\"name\": \"",
               .follow = "\", \"parameters\": ",
               .tail = "}",
               .joint = "; "},
     .body = toolcall_body_object,
     .bare = true,
     .special = true},
    /* [TOOL_CALLS] [{"name": "f", "arguments": {...}}, ...] */
    {.names = "mistral",
     .section = "[TOOL_CALLS]",
     .section_end = "]",
     .between = "[,",
     .write = {.begin = "[TOOL_CALLS] [",
               .lead = "{\"name\": \"",
               .follow = "\", \"arguments\": ",
               .tail = "}",
               .joint = ", ",
               .end = "]"},
     .body = toolcall_body_object,
     .special = true},
    /* ...function<sep>f\n```json\n{...}\n```<end> */
    {.names = "deepseekv3",
     .section = DS_SECTION,
     .section_end = DS_SECTION_END,
     .call = DS_CALL "function" DS_SEP,
     .call_end = "```" DS_CALL_END,
     .name_end = "```json",
     .write = {.begin = DS_SECTION,
               .lead = DS_CALL "function" DS_SEP,
               .follow = "\n```json\n",
               .tail = "\n```" DS_CALL_END,
               .joint = "\n",
               .end = DS_SECTION_END},
     .body = toolcall_body_header,
     .special = true},
    /* ...f<sep>{...}<end> */
    {.names = "deepseekv31",
     .section = DS_SECTION,
     .section_end = DS_SECTION_END,
     .call = DS_CALL,
     .call_end = DS_CALL_END,
     .name_end = DS_SEP,
     .write = {.begin = DS_SECTION,
               .lead = DS_CALL,
               .follow = DS_SEP,
               .tail = DS_CALL_END,
               .joint = "",
               .end = DS_SECTION_END},
     .body = toolcall_body_header,
     .special = true},
};
enum { FORMATS = sizeof formats / sizeof *formats };

const struct toolcall_format *toolcall_find(const char *name)
{
    for (size_t i = 0; i < FORMATS; i++)
        if (reply_is_named(formats[i].names, name)) return &formats[i];
    return NULL;
}

void toolcall_list(struct buf *out)
{
    for (size_t i = 0; i < FORMATS; i++)
        reply_add_names(out, formats[i].names);
}

bool toolcall_is_special(const struct toolcall_format *format)
{
    return format->special;
}

/* In a section, around calls. */
static bool may_stand_between(const struct toolcall_format *f, char c)
{
    return reply_blank(c) || (f->between && c && strchr(f->between, c));
}

enum reply_match toolcall_begins(const struct toolcall_format *f, const char *s,
                                 size_t n)
{
    size_t at = 0;
    enum reply_match how;
    if (f->section) {
        how = reply_starts(s, n, f->section);
        if (how != REPLY_YES) return how;
        at = strlen(f->section);
        for (size_t i = 0; i < REPLY_MAX_BLANKS && at < n; i++, at++)
            if (!may_stand_between(f, s[at])) break;
    }
    if (f->call) {
        how = reply_starts(s + at, n - at, f->call);
        if (how != REPLY_YES) return how;
        at += strlen(f->call);
    }
    if (f->body != toolcall_body_object) return REPLY_YES;
    at += reply_blanks(s + at, n - at);
    if (at == n) return REPLY_PART;
    return s[at] == '{' ? REPLY_YES : REPLY_NO;
}

void toolcall_init(struct toolcall *t, const struct toolcall_format *format,
                   const json_t *tools, reply_sink *sink, void *arg)
{
    t->format = format;
    t->tools = tools;
    t->sink = sink;
    t->arg = arg;
    t->state = TOOLCALL_TEXT;
    buf_init(&t->in, REPLY_MAX_BYTES);
    buf_init(&t->args, REPLY_MAX_BYTES);
}

/* --- events --- */

static void tell(struct toolcall *t, enum reply_kind kind, const char *text,
                 size_t n)
{
    const struct reply_event event = {kind, t->calls ? t->calls - 1 : 0, text,
                                      n};
    if (n) t->sink(t->arg, &event);
}

/* The first n bytes are content. */
static void tell_content(struct toolcall *t, size_t n)
{
    if (reply_blanks(t->in.data, n) < n) t->said = true;
    tell(t, REPLY_CONTENT, t->in.data, n);
    buf_drop_front(&t->in, n);
    t->at = 0;
}

static void drop(struct toolcall *t, size_t n)
{
    buf_drop_front(&t->in, n);
    t->at = 0;
}

static const json_t *find_tool(const json_t *tools, const char *name, size_t n)
{
    size_t i;
    const json_t *tool;
    json_array_foreach (tools, i, tool) {
        const json_t *function = json_object_get(tool, "function");
        const json_t *text = json_object_get(function, "name");
        if (json_string_length(text) == n &&
            memcmp(json_string_value(text), name, n) == 0)
            return function;
    }
    return NULL;
}

bool toolcall_open(struct toolcall *t, const char *name, size_t n)
{
    t->tool = n ? find_tool(t->tools, name, n) : NULL;
    if (!t->tool) return false;
    t->opened = t->said = true;
    t->calls++;
    tell(t, REPLY_CALL, name, n);
    return true;
}

void toolcall_tell_args(struct toolcall *t)
{
    if (!t->opened) return;
    tell(t, REPLY_ARGUMENTS, t->args.data, t->args.len);
    buf_drop_front(&t->args, t->args.len);
}

/* --- states; each returns false where it needs more text --- */

enum reply_match toolcall_starts(const struct toolcall *t, const char *tag)
{
    if (!tag) return REPLY_NO;
    enum reply_match how =
        reply_starts(t->in.data + t->at, t->in.len - t->at, tag);
    return how == REPLY_PART && t->last ? REPLY_NO : how;
}

size_t toolcall_search(const struct toolcall *t, const char *tag,
                       enum reply_match *how)
{
    size_t at = reply_find(t->in.data, t->in.len, t->at, tag ? tag : "", how);
    if (*how != REPLY_PART || !t->last) return at;
    *how = REPLY_NO;
    return t->in.len;
}

static bool begin_body(struct toolcall *t)
{
    t->state = TOOLCALL_BODY;
    t->phase = BODY_OPEN;
    t->scan = (struct json_scan){0};
    t->opened = t->is_name = t->is_args = t->has_args = false;
    t->params = 0;
    buf_drop_front(&t->args, t->args.len);
    return true;
}

static bool step_text(struct toolcall *t)
{
    const struct toolcall_format *f = t->format;
    const char *s = t->in.data;
    if (f->bare && !t->said) {
        size_t blanks = reply_blanks(s, t->in.len);
        if (blanks == t->in.len) return false;
        t->at = blanks;
        if (s[blanks] == '{') return begin_body(t);
        t->at = 0;
        t->said = true;
    }
    enum reply_match how, other;
    size_t at = toolcall_search(t, f->section, &how);
    size_t call = toolcall_search(t, f->call, &other);
    bool section = at <= call && f->section && how != REPLY_NO;
    if (!section) {
        at = call;
        how = other;
    }
    size_t blanks = reply_last_blanks(s, at);
    tell_content(t, at - blanks);
    if (how != REPLY_YES) return false;
    t->at = blanks + strlen(section ? f->section : f->call);
    if (!section) return begin_body(t);
    t->state = TOOLCALL_SECTION;
    return true;
}

static bool step_section(struct toolcall *t)
{
    const struct toolcall_format *f = t->format;
    const char *s = t->in.data;
    while (t->at < t->in.len && may_stand_between(f, s[t->at]))
        t->at++;
    if (t->at == t->in.len) return false;
    enum reply_match call = toolcall_starts(t, f->call),
                     end = toolcall_starts(t, f->section_end);
    if (!f->call && s[t->at] == '{') return begin_body(t);
    if (call == REPLY_YES) {
        t->at += strlen(f->call);
        return begin_body(t);
    }
    if (end == REPLY_YES) {
        drop(t, t->at + strlen(f->section_end));
        t->state = TOOLCALL_TEXT;
        return true;
    }
    if (call == REPLY_PART || end == REPLY_PART) return false;
    tell_content(t, t->at);
    t->said = true;
    t->state = TOOLCALL_TEXT;
    return true;
}

static bool step_body(struct toolcall *t)
{
    enum toolcall_found found = t->format->body(t);
    toolcall_tell_args(t);
    if (found == TOOLCALL_MORE) return false;
    if (found == TOOLCALL_DONE) {
        t->state = TOOLCALL_CLOSE;
        t->mark = t->at;
    } else {
        tell_content(t, t->at);
        t->said = true;
        t->state = TOOLCALL_TEXT;
    }
    return true;
}

/* The call's closing tag, which may be missing. */
static bool step_close(struct toolcall *t)
{
    const struct toolcall_format *f = t->format;
    if (f->call_end) {
        size_t begin = t->at, n;
        t->at = t->mark; /* blanks up to there were seen before */
        while ((n = reply_blanks(t->in.data + t->at, t->in.len - t->at)))
            t->at += n;
        t->mark = t->at;
        enum reply_match how = toolcall_starts(t, f->call_end);
        if (how == REPLY_PART) {
            t->at = begin;
            return false;
        }
        t->at = how == REPLY_YES ? t->at + strlen(f->call_end) : begin;
    }
    drop(t, t->at);
    t->state = f->section ? TOOLCALL_SECTION : TOOLCALL_TEXT;
    return true;
}

static void run(struct toolcall *t)
{
    bool more = true;
    while (more && (t->in.len || t->state == TOOLCALL_CLOSE)) {
        switch (t->state) {
        case TOOLCALL_TEXT: more = step_text(t); break;
        case TOOLCALL_SECTION: more = step_section(t); break;
        case TOOLCALL_BODY: more = step_body(t); break;
        case TOOLCALL_CLOSE: more = step_close(t); break;
        }
    }
}

void toolcall_feed(struct toolcall *t, const char *text, size_t n)
{
    buf_add(&t->in, text, n);
    run(t);
}

/* Behind a call, a tag that the answer's end cuts is none of its text. */
static bool ends_in_tag(const struct toolcall *t)
{
    const struct toolcall_format *f = t->format;
    const char *s = t->in.data + t->at;
    size_t n = t->in.len - t->at, blanks;
    bool close = t->state == TOOLCALL_CLOSE;
    if (!t->calls || (!close && t->state != TOOLCALL_SECTION)) return false;
    for (; (blanks = reply_blanks(s, n)); n -= blanks)
        s += blanks;
    const char *const tags[] = {close ? f->call_end : f->section_end,
                                close ? NULL : f->call};
    for (int i = 0; i < 2; i++)
        if (tags[i] && reply_starts(s, n, tags[i]) == REPLY_PART) return true;
    return false;
}

void toolcall_end(struct toolcall *t)
{
    if (ends_in_tag(t)) return;
    t->last = true;
    run(t);
    if (t->state == TOOLCALL_BODY && t->opened) return;
    bool blank = reply_blanks(t->in.data, t->in.len) == t->in.len;
    if (!blank || !t->calls) tell_content(t, t->in.len);
}
