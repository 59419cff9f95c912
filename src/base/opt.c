#include "base/opt.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Does name (n bytes) stand in the list "a|b|c"? */
static bool listed(const char *list, const char *name, size_t n)
{
    while (list) {
        size_t len = strcspn(list, "|");
        if (len == n && memcmp(list, name, n) == 0) return true;
        list = list[len] ? list + len + 1 : NULL;
    }
    return false;
}

size_t opt_distance(const char *a, const char *b)
{
    size_t row[65], n = strlen(b);
    if (n > 64) n = 64;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[n];
}

static int unknown(const struct opt *table, size_t count, const char *name,
                   struct why *why)
{
    char best[64] = "";
    size_t best_distance = SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        if (table[i].kind == OPT_WORD) continue;
        for (const char *s = table[i].name; s;) {
            size_t len = strcspn(s, "|");
            char one[64];
            snprintf(one, sizeof one, "%.*s", (int)len, s);
            size_t d = opt_distance(name, one);
            if (d < best_distance) {
                best_distance = d;
                snprintf(best, sizeof best, "%s", one);
            }
            s = s[len] ? s + len + 1 : NULL;
        }
    }
    if (best_distance <= 2 + strlen(name) / 3)
        return err_set(why, ERR_INVALID,
                       "unknown option --%s; did you mean --%s?", name, best);
    return err_set(why, ERR_INVALID,
                   "unknown option --%s; --help lists the known ones", name);
}

static int set(const struct opt *o, void *into, const char *text,
               struct why *why)
{
    char *field = (char *)into + o->offset, *end;
    int name_len = (int)strcspn(o->name, "|");
    switch (o->kind) {
    case OPT_WORD:
    case OPT_STRING: *(const char **)(void *)field = text; return 0;
    case OPT_CHOICE:
        if (!listed(o->choices, text, strlen(text)))
            return err_set(why, ERR_INVALID, "--%.*s %s: known are %s",
                           name_len, o->name, text, o->choices);
        *(const char **)(void *)field = text;
        return 0;
    case OPT_INT:
    case OPT_DOUBLE: {
        errno = 0;
        long long whole = 0;
        double value;
        if (o->kind == OPT_INT) {
            whole = strtoll(text, &end, 10);
            value = (double)whole;
        } else {
            value = strtod(text, &end);
        }
        if (errno || end == text || *end || !isfinite(value))
            return err_set(why, ERR_INVALID, "--%.*s %s: not a number",
                           name_len, o->name, text);
        if (o->min < o->max && (value < o->min || value > o->max))
            return err_set(why, ERR_INVALID, "--%.*s %s: must be %g to %g",
                           name_len, o->name, text, o->min, o->max);
        if (o->kind == OPT_INT)
            *(int64_t *)(void *)field = whole;
        else
            *(double *)(void *)field = value;
        return 0;
    }
    default: return 0;
    }
}

/* Values that follow argv[*at]: up to max, none of them an option. */
static int values_after(int argc, char **argv, int at, int max)
{
    int n = 0;
    while (n < max && at + n < argc && strncmp(argv[at + n], "--", 2) != 0)
        n++;
    return n;
}

/* The next word that the table has a place for, from *at on, or NULL. */
static const struct opt *next_word(const struct opt *table, size_t count,
                                   size_t *at)
{
    while (*at < count && table[*at].kind != OPT_WORD)
        ++*at;
    return *at < count ? &table[(*at)++] : NULL;
}

static const struct opt *named(const struct opt *table, size_t count,
                               const char *name, size_t n)
{
    for (size_t i = 0; i < count; i++)
        if (table[i].kind != OPT_WORD && listed(table[i].name, name, n))
            return &table[i];
    return NULL;
}

int opt_parse(const struct opt *table, size_t count, void *into, int argc,
              char **argv, void (*ignored)(void *arg, const struct opt *),
              void *arg, struct why *why)
{
    for (size_t i = 0; i < count; i++) {
        int rc = table[i].fallback
                     ? set(&table[i], into, table[i].fallback, why)
                     : 0;
        if (rc) return rc;
    }
    bool seen[512] = {false};
    size_t words = 0;
    for (int at = 1; at < argc; at++) {
        const char *word = argv[at];
        if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) return 1;
        if (strncmp(word, "--", 2) != 0 || !word[2]) {
            const struct opt *o =
                *word == '-' ? NULL : next_word(table, count, &words);
            if (!o)
                return err_set(why, ERR_INVALID, "unexpected argument \"%s\"",
                               word);
            set(o, into, word, why);
            continue;
        }
        const char *name = word + 2;
        size_t n = strcspn(name, "=");
        const struct opt *o = named(table, count, name, n);
        if (!o) {
            char copy[64];
            snprintf(copy, sizeof copy, "%.*s", (int)n, name);
            return unknown(table, count, copy, why);
        }
        if (o->kind == OPT_REFUSED)
            return err_set(why, ERR_UNSUPPORTED, "--%.*s: %s", (int)n, name,
                           o->help);
        char *inl = name[n] == '=' ? argv[at] + 2 + n + 1 : NULL;
        if (o->kind == OPT_FLAG || o->kind == OPT_IGNORED_FLAG) {
            if (inl)
                return err_set(why, ERR_INVALID, "--%.*s takes no value",
                               (int)n, name);
            if (o->kind == OPT_FLAG) *(bool *)((char *)into + o->offset) = true;
        } else if (o->kind == OPT_CALL) {
            char *one[1] = {inl};
            int have = inl ? 1 : values_after(argc, argv, at + 1, (int)o->max);
            if (have < (int)o->min)
                return err_set(why, ERR_INVALID, "--%.*s needs %d value%s",
                               (int)n, name, (int)o->min,
                               o->min > 1 ? "s" : "");
            int rc = o->call(into, have, inl ? one : argv + at + 1, why);
            if (rc) return rc;
            if (!inl) at += have;
        } else {
            if (!inl && (++at >= argc || strncmp(argv[at], "--", 2) == 0))
                return err_set(why, ERR_INVALID, "--%.*s needs a value", (int)n,
                               name);
            int rc = set(o, into, inl ? inl : argv[at], why);
            if (rc) return rc;
        }
        size_t index = (size_t)(o - table);
        if (o->kind >= OPT_IGNORED_FLAG && ignored && index < 512 &&
            !seen[index]) {
            seen[index] = true;
            ignored(arg, o);
        }
    }
    return 0;
}

void opt_help(const struct opt *table, size_t count, const char *usage)
{
    printf("usage: %s\n\n", usage);
    for (size_t i = 0; i < count; i++) {
        const struct opt *o = &table[i];
        if (o->kind == OPT_REFUSED) continue;
        char left[96];
        int len = (int)strcspn(o->name, "|");
        static const char *const hints[] = {
            [OPT_STRING] = " TEXT", [OPT_INT] = " N",
            [OPT_DOUBLE] = " X",    [OPT_FLAG] = "",
            [OPT_CHOICE] = "",      [OPT_CALL] = " VALUE...",
            [OPT_WORD] = "",        [OPT_IGNORED_FLAG] = "",
            [OPT_REFUSED] = "",     [OPT_IGNORED_VALUE] = " VALUE",
        };
        snprintf(left, sizeof left, "  %s%.*s%s%s",
                 o->kind == OPT_WORD ? "" : "--", len, o->name,
                 o->kind == OPT_CHOICE ? " " : hints[o->kind],
                 o->kind == OPT_CHOICE ? o->choices : "");
        if (strlen(left) > 34)
            printf("%s\n%-36s", left, "");
        else
            printf("%-36s", left);
        printf("%s%s", o->kind >= OPT_IGNORED_FLAG ? "(no effect) " : "",
               o->help);
        if (o->fallback && o->fallback[0]) printf(" [%s]", o->fallback);
        putchar('\n');
    }
}
