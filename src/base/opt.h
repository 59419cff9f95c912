/* base/opt.h - one table of options makes the command line and --help.
 *
 * Values come as "--name value" or "--name=value"; one that begins with "--"
 * only in the second way, so that a forgotten value is not the next option's
 * name. An unknown name is refused with the nearest known one. Options of the
 * programs that Baton replaces and that mean nothing here are in the table too
 * (OPT_IGNORED*): they are taken, and opt_parse reports each once, so that the
 * caller can log why. Those that would change results are refused by name
 * (OPT_REFUSED). */
#ifndef BATON_BASE_OPT_H
#define BATON_BASE_OPT_H

#include "base/err.h"

#include <stddef.h>

enum opt_kind {
    OPT_STRING,        /* const char *: points into argv or the default */
    OPT_INT,           /* int64_t within [min, max]                     */
    OPT_DOUBLE,        /* double within [min, max]                      */
    OPT_FLAG,          /* bool: present or not, no value                */
    OPT_CHOICE,        /* const char *: one of choices "a|b|c"          */
    OPT_CALL,          /* call(into, values...), min..max values        */
    OPT_WORD,          /* const char *: a word alone, in the order of the
                          table; name is its name in --help             */
    OPT_IGNORED_FLAG,  /* taken, no value, help says why it is ignored  */
    OPT_IGNORED_VALUE, /* taken with one value, likewise                */
    OPT_REFUSED,       /* known, but not done here: help says why       */
};

struct opt {
    const char *name; /* "tp-size|tensor-parallel-size": aliases by '|' */
    enum opt_kind kind;
    size_t offset;        /* of the field in the struct to fill */
    const char *fallback; /* default as text; NULL: field left as it was */
    double min, max;      /* min < max: checked */
    const char *choices;
    int (*call)(void *into, int count, char **values, struct why *why);
    const char *help;
};

/* Fills into from the defaults, then from argv[1..]; strings are borrowed.
 * ignored(arg, option) is called once for each OPT_IGNORED* option met.
 * Returns 0, 1 when --help was met, or ERR_INVALID. */
int opt_parse(const struct opt *table, size_t count, void *into, int argc,
              char **argv, void (*ignored)(void *arg, const struct opt *),
              void *arg, struct why *why);

/* Prints one line or two per option to stdout. */
void opt_help(const struct opt *table, size_t count, const char *usage);

/* Edit distance, for "did you mean": insertions, deletions, changes. */
size_t opt_distance(const char *a, const char *b);

#endif
