#include "text/regex.h"
#include "base/mem.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdbool.h>

struct regex {
    pcre2_code *code;
    bool jit;
};

int regex_compile(struct regex **out, const char *source, size_t n,
                  struct why *why)
{
    int code;
    PCRE2_SIZE at;
    pcre2_code *compiled = pcre2_compile(
        (PCRE2_SPTR)source, n, PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
    if (!compiled) {
        PCRE2_UCHAR text[128];
        pcre2_get_error_message(code, text, sizeof text);
        return err_set(why, ERR_FORMAT, "regex at byte %zu: %s", (size_t)at,
                       (const char *)text);
    }
    uint32_t empty = 0, backslash_c = 0;
    pcre2_pattern_info(compiled, PCRE2_INFO_MATCHEMPTY, &empty);
    pcre2_pattern_info(compiled, PCRE2_INFO_HASBACKSLASHC, &backslash_c);
    if (empty || backslash_c) {
        pcre2_code_free(compiled);
        return err_set(why, ERR_UNSUPPORTED, "regex %s: %.*s",
                       empty ? "that matches nothing" : "with \\C", (int)n,
                       source);
    }
    struct regex *r = mem_must(1, sizeof *r);
    r->code = compiled;
    r->jit = pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE) == 0;
    *out = r;
    return 0;
}

void regex_destroy(struct regex *r)
{
    if (!r) return;
    pcre2_code_free(r->code);
    mem_free(r);
}

int regex_walk_begin(struct regex_walk *w, const struct regex *r,
                     const char *text, size_t n)
{
    *w = (struct regex_walk){.regex = r, .text = text, .len = n};
    w->match = pcre2_match_data_create_from_pattern(r->code, NULL);
    return w->match ? 0 : ERR_NOMEM;
}

int regex_walk_next(struct regex_walk *w)
{
    const struct regex *r = w->regex;
    PCRE2_SPTR text = (PCRE2_SPTR)w->text;
    if (w->to >= w->len) return 0;
    /* JIT trusts that the text is valid, as does NO_UTF_CHECK; without them
     * each call would check all that is left. */
    int found = r->jit ? pcre2_jit_match(r->code, text, w->len, w->to, 0,
                                         w->match, NULL)
                       : pcre2_match(r->code, text, w->len, w->to,
                                     PCRE2_NO_UTF_CHECK, w->match, NULL);
    if (found == PCRE2_ERROR_NOMATCH) return 0;
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(w->match);
    if (found < 0 || span[1] <= span[0] || span[0] < w->to) return ERR_RANGE;
    w->from = span[0];
    w->to = span[1];
    return 1;
}

void regex_walk_end(struct regex_walk *w)
{
    pcre2_match_data_free(w->match);
}
