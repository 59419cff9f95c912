#include "text/pretok.h"
#include "base/buf.h"
#include "base/mem.h"
#include "text/pretok_scan.h"
#include "text/regex.h"
#include "text/unicode.h"

#include <string.h>

enum stage_kind {
    SCAN,   /* a scanner: pieces without gaps */
    REGEX,  /* matches of an expression       */
    TEXT,   /* where a text occurs            */
    CHARS,  /* characters that a test takes   */
    META,   /* spaces to marks                */
    PREFIX, /* a space in front               */
};

struct stage {
    enum stage_kind kind;
    pretok_scanner *scan;
    struct regex *regex;
    char *text; /* TEXT, META */
    size_t len;
    bool (*test)(uint32_t cp);
    enum pretok_behavior behavior;
    bool invert;
    enum pretok_prepend prepend;
    bool split;
};

enum { STAGES = 8 };
struct pretok {
    struct stage stages[STAGES];
    size_t count;
};

/* Making one. */

void pretok_create(struct pretok **out)
{
    unicode_init();
    *out = mem_must(1, sizeof **out);
}

static void stage_free(struct stage *s)
{
    regex_destroy(s->regex);
    mem_free(s->text);
}

void pretok_destroy(struct pretok *p)
{
    if (!p) return;
    for (size_t i = 0; i < p->count; i++)
        stage_free(&p->stages[i]);
    mem_free(p);
}

static int add(struct pretok *p, struct stage stage, struct why *why)
{
    if (p->count == STAGES) {
        stage_free(&stage);
        return err_set(why, ERR_UNSUPPORTED,
                       "pre-tokenizer of more than %d stages", STAGES);
    }
    p->stages[p->count++] = stage;
    return 0;
}

/* Whether the last two stages are the first two of DeepSeek V3's. */
static bool begins_deepseek(const struct pretok *p)
{
    const struct stage *s = &p->stages[p->count];
    return p->count >= 2 && s[-2].kind == SCAN && s[-1].kind == SCAN &&
           s[-2].scan == pretok_scanner_of(PRETOK_NUMBERS3) &&
           s[-1].scan == pretok_scanner_of(PRETOK_CJK);
}

static int add_scanner(struct pretok *p, pretok_scanner *scan, struct why *why)
{
    if (scan == pretok_scanner_of(PRETOK_DEEPSEEK3) && begins_deepseek(p)) {
        p->count -= 2;
        scan = pretok_scan_deepseek;
    }
    return add(p, (struct stage){.kind = SCAN, .scan = scan}, why);
}

int pretok_add(struct pretok *p, enum pretok_pattern pattern, struct why *why)
{
    return add_scanner(p, pretok_scanner_of(pattern), why);
}

int pretok_add_digits(struct pretok *p, bool individual, struct why *why)
{
    return add_scanner(
        p, individual ? pretok_scan_digits : pretok_scan_digit_runs, why);
}

static int add_chars(struct pretok *p, bool (*test)(uint32_t cp),
                     enum pretok_behavior behavior, struct why *why)
{
    return add(
        p, (struct stage){.kind = CHARS, .test = test, .behavior = behavior},
        why);
}

int pretok_add_punct(struct pretok *p, enum pretok_behavior behavior,
                     struct why *why)
{
    return add_chars(p, unicode_is_punct, behavior, why);
}

static bool is_space(uint32_t cp)
{
    return unicode_class_wide(cp) & UNICODE_SPACE;
}

int pretok_add_whitespace_split(struct pretok *p, struct why *why)
{
    return add_chars(p, is_space, PRETOK_REMOVED, why);
}

/* "\w+|[^\w\s]+" is: white space goes, then word characters apart from
 * others. */
int pretok_add_words(struct pretok *p, struct why *why)
{
    int rc = pretok_add_whitespace_split(p, why);
    return rc ? rc : add_chars(p, unicode_is_word, PRETOK_CONTIGUOUS, why);
}

int pretok_add_metaspace(struct pretok *p, const char *mark, size_t len,
                         enum pretok_prepend prepend, bool split,
                         struct why *why)
{
    return add(p,
               (struct stage){.kind = META,
                              .text = mem_dup_n(mark, len),
                              .len = len,
                              .prepend = prepend,
                              .split = split},
               why);
}

int pretok_add_prefix_space(struct pretok *p, struct why *why)
{
    return add(p, (struct stage){.kind = PREFIX}, why);
}

/* The scanner of an expression. Whether matches or all pieces are kept is the
 * same only where they leave no gaps. */
static pretok_scanner *known(const struct pretok_split *how)
{
    bool pieces = how->behavior == PRETOK_ISOLATED;
    bool matches = how->behavior == PRETOK_REMOVED && how->invert;
    for (int i = 0; i < PRETOK_PATTERNS && !how->plain; i++) {
        const char *regex = pretok_regex((enum pretok_pattern)i);
        if (strlen(regex) != how->len || memcmp(regex, how->pattern, how->len))
            continue;
        bool gapless = i <= PRETOK_LLAMA3;
        if (pieces || (matches && gapless))
            return pretok_scanner_of((enum pretok_pattern)i);
    }
    return NULL;
}

int pretok_add_split(struct pretok *p, const struct pretok_split *how,
                     struct why *why)
{
    struct stage stage = {.kind = how->is_regex ? REGEX : TEXT,
                          .behavior = how->behavior,
                          .invert = how->invert};
    pretok_scanner *scan = how->is_regex ? known(how) : NULL;
    if (scan) return add_scanner(p, scan, why);
    int rc = 0;
    if (how->is_regex) {
        rc = regex_compile(&stage.regex, how->pattern, how->len, why);
    } else if (how->len == 0) {
        rc = err_set(why, ERR_UNSUPPORTED, "split at nothing");
    } else {
        stage.text = mem_dup_n(how->pattern, how->len);
        stage.len = how->len;
    }
    return rc ? rc : add(p, stage, why);
}

/* Splitting. */

struct split {
    const struct pretok *pretok;
    int (*sink)(void *arg, const struct pieces *pieces);
    void *arg;
    bool front_cut;
    struct buf texts[STAGES]; /* what stages that write have written */
};

static int split(struct split *job, size_t at, const char *s, size_t n,
                 bool first);

/* Spans of one piece in order, matches and what lies between, become pieces of
 * the next stage. A span that may yet grow is held back. */
struct cut {
    struct split *job;
    const struct stage *stage;
    size_t next; /* stage */
    const char *start;
    bool first; /* start is that of the whole text */
    const char *held;
    size_t held_len;
    bool was_match;
};

static bool is_first(const struct cut *c, const char *s)
{
    return c->first && s == c->start && !c->job->front_cut;
}

static int emit(struct cut *c, const char *s, size_t n)
{
    return n ? split(c->job, c->next, s, n, is_first(c, s)) : 0;
}

static int let_go(struct cut *c)
{
    size_t n = c->held_len;
    c->held_len = 0;
    return emit(c, c->held, n);
}

static int hold(struct cut *c, const char *s, size_t n)
{
    int rc = let_go(c);
    c->held = s;
    c->held_len = n;
    return rc;
}

static int span(struct cut *c, const char *s, size_t n, bool match)
{
    bool was = c->was_match, grows = false;
    if (!n) return 0;
    if (c->stage->invert) match = !match;
    c->was_match = match;
    switch (c->stage->behavior) {
    case PRETOK_ISOLATED: return emit(c, s, n);
    case PRETOK_REMOVED: return match ? 0 : emit(c, s, n);
    case PRETOK_CONTIGUOUS: grows = match == was; break;
    case PRETOK_MERGED_WITH_PREVIOUS: grows = match && !was; break;
    case PRETOK_MERGED_WITH_NEXT: grows = !match && was; break;
    }
    if (!grows || !c->held_len) return hold(c, s, n);
    c->held_len += n;
    return 0;
}

static int cut_regex(struct cut *c, const char *s, size_t n)
{
    struct regex_walk walk;
    size_t done = 0;
    int rc = regex_walk_begin(&walk, c->stage->regex, s, n), found = 0;
    if (rc) return rc;
    while (!rc && (found = regex_walk_next(&walk)) > 0) {
        rc = span(c, s + done, walk.from - done, false);
        if (!rc) rc = span(c, s + walk.from, walk.to - walk.from, true);
        done = walk.to;
    }
    regex_walk_end(&walk);
    if (!rc && found < 0) rc = found;
    return rc ? rc : span(c, s + done, n - done, false);
}

static int cut_text(struct cut *c, const char *s, size_t n)
{
    const char *end = s + n, *found;
    const struct stage *st = c->stage;
    int rc = 0;
    while (!rc && (found = memmem(s, (size_t)(end - s), st->text, st->len))) {
        rc = span(c, s, (size_t)(found - s), false);
        if (!rc) rc = span(c, found, st->len, true);
        s = found + st->len;
    }
    return rc ? rc : span(c, s, (size_t)(end - s), false);
}

static int cut_chars(struct cut *c, const char *s, size_t n)
{
    const char *end = s + n, *from = s;
    size_t len;
    int rc = 0;
    for (; s < end && !rc; s += len) {
        if (!c->stage->test(utf8_get(s, &len))) continue;
        rc = span(c, from, (size_t)(s - from), false);
        if (!rc) rc = span(c, s, len, true);
        from = s + len;
    }
    return rc ? rc : span(c, from, (size_t)(end - from), false);
}

static int cut(struct split *job, size_t at, const char *s, size_t n,
               bool first)
{
    struct cut c = {.job = job,
                    .stage = &job->pretok->stages[at],
                    .next = at + 1,
                    .start = s,
                    .first = first};
    int rc = c.stage->kind == REGEX  ? cut_regex(&c, s, n)
             : c.stage->kind == TEXT ? cut_text(&c, s, n)
                                     : cut_chars(&c, s, n);
    return rc ? rc : let_go(&c);
}

static int scan(struct split *job, size_t at, const char *s, size_t n,
                bool first)
{
    pretok_scanner *scanner = job->pretok->stages[at].scan;
    const char *end = s + n;
    bool last = at + 1 == job->pretok->count;
    int rc = 0;
    first = first && !job->front_cut;
    while (s < end && !rc) {
        size_t lens[PRETOK_SOME];
        struct pieces p = {s, lens, scanner(s, end, lens), end};
        if (last) rc = job->sink(job->arg, &p);
        for (size_t i = 0; i < p.count && !rc; s += lens[i++], first = false)
            if (!last) rc = split(job, at + 1, s, lens[i], first);
    }
    return rc;
}

/* The mark, where the piece does not start with it, then the piece with marks
 * for spaces. */
static void write_marks(struct buf *out, const struct stage *st, const char *s,
                        size_t n, bool first)
{
    bool marked =
        s[0] == ' ' || (n >= st->len && !memcmp(s, st->text, st->len));
    const char *end = s + n, *space;
    if (!marked && (st->prepend == PRETOK_ALWAYS ||
                    (st->prepend == PRETOK_FIRST && first)))
        buf_add(out, st->text, st->len);
    while ((space = memchr(s, ' ', (size_t)(end - s)))) {
        buf_add(out, s, (size_t)(space - s));
        buf_add(out, st->text, st->len);
        s = space + 1;
    }
    buf_add(out, s, (size_t)(end - s));
}

static int meta(struct split *job, size_t at, const char *s, size_t n,
                bool first)
{
    const struct stage *st = &job->pretok->stages[at];
    struct buf *out = &job->texts[at];
    buf_reset(out);
    write_marks(out, st, s, n, first);
    if (out->failed) return ERR_NOMEM;
    if (!st->split) return split(job, at + 1, out->data, out->len, first);
    const struct stage before_marks = {
        .text = st->text, .len = st->len, .behavior = PRETOK_MERGED_WITH_NEXT};
    struct cut c = {.job = job,
                    .stage = &before_marks,
                    .next = at + 1,
                    .start = out->data,
                    .first = first};
    int rc = cut_text(&c, out->data, out->len);
    return rc ? rc : let_go(&c);
}

static int prefix(struct split *job, size_t at, const char *s, size_t n,
                  bool first)
{
    struct buf *out = &job->texts[at];
    if (*s == ' ') return split(job, at + 1, s, n, first);
    buf_reset(out);
    buf_putc(out, ' ');
    buf_add(out, s, n);
    if (out->failed) return ERR_NOMEM;
    return split(job, at + 1, out->data, out->len, first);
}

static int split(struct split *job, size_t at, const char *s, size_t n,
                 bool first)
{
    if (at == job->pretok->count)
        return job->sink(job->arg, &(struct pieces){s, &n, 1, s + n});
    switch (job->pretok->stages[at].kind) {
    case SCAN: return scan(job, at, s, n, first);
    case META: return meta(job, at, s, n, first);
    case PREFIX: return prefix(job, at, s, n, first);
    default: return cut(job, at, s, n, first);
    }
}

int pretok_split(const struct pretok *p, const char *text, size_t n,
                 enum pretok_place place,
                 int (*sink)(void *arg, const struct pieces *pieces), void *arg)
{
    struct split job = {.pretok = p,
                        .sink = sink,
                        .arg = arg,
                        .front_cut = place == PRETOK_START_CUT};
    for (size_t i = 0; i < p->count; i++)
        buf_init(&job.texts[i], SIZE_MAX / 2);
    int rc = n ? split(&job, 0, text, n, place != PRETOK_WITHIN) : 0;
    for (size_t i = 0; i < p->count; i++)
        buf_fini(&job.texts[i]);
    return rc;
}
