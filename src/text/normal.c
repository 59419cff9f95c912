#include "text/normal.h"
#include "base/mem.h"
#include "text/regex.h"

#include <string.h>

enum step_kind {
    FORM,
    LOWER,
    STRIP,
    PREPEND,
    REPLACE,
    REPLACE_REGEX,
    PRECOMPILED,
    SENTENCEPIECE
};

struct step {
    enum step_kind kind;
    enum unicode_form form;
    bool left, right;
    char *from, *to;
    size_t from_len, to_len;
    struct regex *regex;
    struct normal_sentencepiece spm; /* its map is PRECOMPILED's too */
};

enum { STEPS = 16 };
struct normal {
    struct step steps[STEPS];
    size_t count;
};

void normal_create(struct normal **out)
{
    unicode_init();
    *out = mem_must(1, sizeof **out);
}

static void step_free(struct step *s)
{
    mem_free(s->from);
    mem_free(s->to);
    regex_destroy(s->regex);
    charsmap_destroy(s->spm.map);
}

void normal_destroy(struct normal *n)
{
    if (!n) return;
    for (size_t i = 0; i < n->count; i++)
        step_free(&n->steps[i]);
    mem_free(n);
}

static int add(struct normal *n, struct step step, struct why *why)
{
    if (n->count == STEPS) {
        step_free(&step);
        return err_set(why, ERR_UNSUPPORTED, "normalizer of more than %d steps",
                       STEPS);
    }
    n->steps[n->count++] = step;
    return 0;
}

int normal_add_form(struct normal *n, enum unicode_form form, struct why *why)
{
    return add(n, (struct step){.kind = FORM, .form = form}, why);
}

int normal_add_lower(struct normal *n, struct why *why)
{
    return add(n, (struct step){.kind = LOWER}, why);
}

int normal_add_precompiled(struct normal *n, struct charsmap *map,
                           struct why *why)
{
    return add(n, (struct step){.kind = PRECOMPILED, .spm = {.map = map}}, why);
}

int normal_add_sentencepiece(struct normal *n,
                             const struct normal_sentencepiece *rules,
                             struct why *why)
{
    return add(n, (struct step){.kind = SENTENCEPIECE, .spm = *rules}, why);
}

int normal_add_strip(struct normal *n, bool left, bool right, struct why *why)
{
    return add(n, (struct step){.kind = STRIP, .left = left, .right = right},
               why);
}

int normal_add_prepend(struct normal *n, const char *text, size_t len,
                       struct why *why)
{
    return add(n,
               (struct step){
                   .kind = PREPEND, .to = mem_dup_n(text, len), .to_len = len},
               why);
}

int normal_add_replace(struct normal *n, const char *from, size_t from_len,
                       bool regex, const char *to, size_t to_len,
                       struct why *why)
{
    struct step step = {.kind = regex ? REPLACE_REGEX : REPLACE,
                        .to = mem_dup_n(to, to_len),
                        .to_len = to_len};
    int rc = 0;
    if (regex) {
        rc = regex_compile(&step.regex, from, from_len, why);
    } else if (from_len == 0) {
        rc = err_set(why, ERR_UNSUPPORTED, "Replace of nothing");
    } else {
        step.from = mem_dup_n(from, from_len);
        step.from_len = from_len;
    }
    if (!rc) return add(n, step, why);
    step_free(&step);
    return rc;
}

/* Steps that only narrow the text. */

static bool space_at(const char *s, size_t *len)
{
    return unicode_class(s, len) & UNICODE_SPACE;
}

static void strip(const struct step *step, const char **text, size_t *n)
{
    size_t len;
    while (step->left && *n && space_at(*text, &len)) {
        *text += len;
        *n -= len;
    }
    while (step->right && *n) {
        size_t last = *n - 1;
        while (((*text)[last] & 0xc0) == 0x80)
            last--;
        if (!space_at(*text + last, &len)) break;
        *n = last;
    }
}

/* Steps that write into out. */

static void replace(const struct step *step, struct buf *out, const char *s,
                    size_t n)
{
    const char *found;
    while (n && (found = memmem(s, n, step->from, step->from_len))) {
        size_t before = (size_t)(found - s);
        buf_add(out, s, before);
        buf_add(out, step->to, step->to_len);
        s = found + step->from_len;
        n -= before + step->from_len;
    }
    buf_add(out, s, n);
}

static int replace_regex(const struct step *step, struct buf *out,
                         const char *s, size_t n, bool *front_cut)
{
    struct regex_walk walk;
    size_t done = 0;
    int rc = regex_walk_begin(&walk, step->regex, s, n);
    if (rc) return rc;
    while ((rc = regex_walk_next(&walk)) > 0) {
        if (walk.from == 0 && !step->to_len) *front_cut = true;
        buf_add(out, s + done, walk.from - done);
        buf_add(out, step->to, step->to_len);
        done = walk.to;
    }
    regex_walk_end(&walk);
    buf_add(out, s + done, n - done);
    return rc;
}

static void sentencepiece(const struct step *step, struct buf *out, bool starts,
                          const char *s, size_t n)
{
    const struct charsmap_rules rules = {.map = step->spm.map,
                                         .symbols = step->spm.symbols,
                                         .squeeze = step->spm.squeeze};
    bool prefix = step->spm.prefix == NORMAL_EACH ||
                  (step->spm.prefix == NORMAL_FIRST && starts);
    charsmap_sentencepiece(&rules, prefix, out, s, n);
}

static int write_step(const struct step *step, struct buf *out, bool starts,
                      const char *s, size_t n, bool *front_cut)
{
    int rc = 0;
    buf_reset(out);
    switch (step->kind) {
    case FORM: unicode_normalize(out, step->form, s, n); break;
    case LOWER: unicode_lower(out, s, n); break;
    case REPLACE: replace(step, out, s, n); break;
    case REPLACE_REGEX: rc = replace_regex(step, out, s, n, front_cut); break;
    case PRECOMPILED: charsmap_precompiled(step->spm.map, out, s, n); break;
    case SENTENCEPIECE: sentencepiece(step, out, starts, s, n); break;
    case PREPEND:
        buf_add(out, step->to, step->to_len);
        buf_add(out, s, n);
        break;
    case STRIP: break;
    }
    return rc ? rc : out->failed ? ERR_NOMEM : 0;
}

static bool leaves_alone(const struct step *step, const char *s, size_t n)
{
    if (n == 0) return true;
    switch (step->kind) {
    case FORM:
        return step->form == UNICODE_NFC && unicode_nfc_prefix(s, n) == n;
    case REPLACE: return !memmem(s, n, step->from, step->from_len);
    default: return false;
    }
}

void normal_scratch_fini(struct normal_scratch *s)
{
    buf_fini(&s->bufs[0]);
    buf_fini(&s->bufs[1]);
}

static bool cuts_front(const struct step *step, const char *s, size_t n)
{
    return step->kind == REPLACE && !step->to_len && n >= step->from_len &&
           !memcmp(s, step->from, step->from_len);
}

int normal_run(const struct normal *n, struct normal_scratch *scratch,
               bool starts, const char **text, size_t *len)
{
    scratch->front_cut = false;
    for (size_t i = 0; i < n->count; i++) {
        const struct step *step = &n->steps[i];
        const char *was = *text;
        if (step->kind == STRIP) strip(step, text, len);
        if (*text != was || cuts_front(step, *text, *len))
            scratch->front_cut = true;
        if (step->kind == STRIP || leaves_alone(step, *text, *len)) continue;
        /* The one that the text does not lie in. */
        struct buf *out = &scratch->bufs[0];
        if (out->data && *text >= out->data && *text < out->data + out->cap)
            out = &scratch->bufs[1];
        if (!out->data) buf_init(out, SIZE_MAX / 2);
        int rc =
            write_step(step, out, starts, *text, *len, &scratch->front_cut);
        if (rc) return rc;
        *text = out->data ? out->data : "";
        *len = out->len;
    }
    return 0;
}
