/* text/jinja.h - the inside of text/template.h.
 *
 *     source --jinja_lex--> tokens --jinja_parse--> nodes --jinja_eval--> text
 *
 * All memory of a compilation, or of a rendering, is one arena that goes at
 * once. An error leaves by longjmp to the entry point, which owns the arena
 * and nothing else: no code between holds anything to give back. */
#ifndef BATON_TEXT_JINJA_H
#define BATON_TEXT_JINJA_H

#include "base/err.h"
#include "json/json.h"

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The arena and the way out. */

struct jinja_chunk;
struct jinja {
    jmp_buf out;
    int rc; /* what to return after a longjmp */
    struct why *why;
    struct jinja_chunk *chunks;
    size_t used, max;     /* bytes */
    int64_t steps;        /* left; a rendering's */
    int depth, max_depth; /* of nesting, now and at most */
    int line;             /* of what is being done */
};

_Noreturn void jinja_fail(struct jinja *j, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void *jinja_alloc(struct jinja *j, size_t count, size_t size); /* zeroed */
void jinja_free(struct jinja *j);
/* Counts n steps of work. */
void jinja_work(struct jinja *j, size_t n);
void jinja_enter(struct jinja *j);
void jinja_leave(struct jinja *j);

/* Bytes that grow in the arena. */
struct jinja_text {
    char *s;
    size_t n, cap;
};
void jinja_add(struct jinja *j, struct jinja_text *t, const char *s, size_t n);
void jinja_adds(struct jinja *j, struct jinja_text *t, const char *s);

/* Source to tokens. */

enum { JINJA_MAX_BRACKETS = 128 };

enum jinja_token_kind {
    JINJA_DATA,
    JINJA_VAR_BEGIN,
    JINJA_VAR_END,
    JINJA_BLOCK_BEGIN,
    JINJA_BLOCK_END,
    JINJA_NAME,
    JINJA_STRING,
    JINJA_INT,
    JINJA_FLOAT,
    JINJA_OP, /* s is the operator */
    JINJA_END,
};

struct jinja_token {
    enum jinja_token_kind kind;
    int line;
    const char *s; /* data, name, operator, string's value */
    size_t n;
    int64_t i;
    double f;
};

/* Ends with JINJA_END. */
const struct jinja_token *jinja_lex(struct jinja *j, const char *source,
                                    size_t len);

/* Values. */

enum jinja_kind {
    JINJA_UNDEFINED, /* u.s: what was asked for, len bytes */
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_WHOLE,
    JINJA_REAL,
    JINJA_STR, /* u.s, len bytes; not closed by 0 */
    JINJA_LIST,
    JINJA_DICT,
    JINJA_NAMESPACE, /* u.dict */
    JINJA_MACRO,
    JINJA_GLOBAL, /* a function of the environment: u.i */
    JINJA_METHOD, /* bound: u.method */
    JINJA_LOOP,
};

struct jinja_value {
    unsigned char kind;
    unsigned char markup; /* of JINJA_STR: the outcome of safe or escape */
    uint32_t len;
    union {
        bool b;
        int64_t i;
        double f;
        const char *s;
        struct jinja_list *list;
        struct jinja_dict *dict;
        const struct jinja_macro *macro;
        const struct jinja_method *method;
        struct jinja_loop *loop;
    } u;
};

/* Python's several things to walk over. A generator is walked once. */
enum jinja_list_kind {
    JINJA_PLAIN,
    JINJA_TUPLE,
    JINJA_RANGE,
    JINJA_VIEW,
    JINJA_GENERATOR
};
struct jinja_list {
    struct jinja_value *items;
    size_t count;
    enum jinja_list_kind kind;
    bool spent;
};

struct jinja_entry {
    struct jinja_value key, value;
};
struct jinja_dict {
    struct jinja_entry *entries;
    size_t count, cap;
};

struct jinja_method {
    struct jinja_value self;
    const struct jinja_method_row *row;
};

/* Arguments of a call, a filter or a test. */
struct jinja_args {
    const struct jinja_value *items;
    size_t count;
    const char *const *names; /* of the keyword arguments, after the others */
    const struct jinja_value *named;
    size_t named_count;
};

struct jinja_value jinja_none(void);
struct jinja_value jinja_bool(bool b);
struct jinja_value jinja_whole(int64_t i);
struct jinja_value jinja_real(double f);
struct jinja_value jinja_str(struct jinja *j, const char *s, size_t n);
struct jinja_value jinja_str_of(struct jinja *j, const struct jinja_text *t);
struct jinja_value jinja_undefined(const char *name, size_t n);
/* A list with room for count items, to be filled. */
struct jinja_value jinja_list(struct jinja *j, size_t count,
                              enum jinja_list_kind kind);
struct jinja_value jinja_dict(struct jinja *j);
struct jinja_value jinja_from_json(struct jinja *j, const json_t *json);

/* Fails: "WHAT: not for TYPE". */
_Noreturn void jinja_not_for(struct jinja *j, const char *what,
                             struct jinja_value v);
bool jinja_truth(struct jinja *j, struct jinja_value v);
const char *jinja_type(struct jinja_value v); /* Python's name for it */
bool jinja_is_number(struct jinja_value v);   /* bool too */
bool jinja_equal(struct jinja *j, struct jinja_value a, struct jinja_value b);
/* < 0, 0, > 0; fails for what Python does not order. */
int jinja_compare(struct jinja *j, struct jinja_value a, struct jinja_value b);
bool jinja_contains(struct jinja *j, struct jinja_value in,
                    struct jinja_value what);
/* len(); fails for what has none. */
size_t jinja_length(struct jinja *j, struct jinja_value v);
/* The items of anything Python iterates; fails for the rest. */
struct jinja_list *jinja_iterate(struct jinja *j, struct jinja_value v);
/* NULL: absent. */
struct jinja_value *jinja_dict_get(struct jinja *j, const struct jinja_dict *d,
                                   struct jinja_value key);
void jinja_dict_set(struct jinja *j, struct jinja_dict *d,
                    struct jinja_value key, struct jinja_value value);
/* str() and repr(). */
void jinja_print(struct jinja *j, struct jinja_text *t, struct jinja_value v);
void jinja_repr(struct jinja *j, struct jinja_text *t, struct jinja_value v);
struct jinja_value jinja_to_str(struct jinja *j, struct jinja_value v);
struct jinja_json_style {
    bool ascii, sort_keys;
    const char *item, *key; /* separators */
    size_t item_len, key_len;
    const char *indent; /* NULL: on one line */
    size_t indent_len;
};
void jinja_tojson(struct jinja *j, struct jinja_text *t, struct jinja_value v,
                  const struct jinja_json_style *style);
/* obj[key], and obj.name where no attribute is meant. */
struct jinja_value jinja_item(struct jinja *j, struct jinja_value v,
                              struct jinja_value key);
struct jinja_value jinja_slice(struct jinja *j, struct jinja_value v,
                               const struct jinja_value bounds[3]);
/* Stable. order gives the sign of a against b. */
void jinja_sort(struct jinja *j, struct jinja_value *items, size_t count,
                int (*order)(struct jinja *j, void *arg,
                             const struct jinja_value *a,
                             const struct jinja_value *b),
                void *arg);
bool jinja_is(struct jinja_value v, const char *text); /* a string, equal */
/* + of strings, lists and numbers; the rest of arithmetic: op is "-" "*"
 * "/" "//" "%" "**". */
struct jinja_value jinja_plus(struct jinja *j, struct jinja_value a,
                              struct jinja_value b);
struct jinja_value jinja_arith(struct jinja *j, const char *op,
                               struct jinja_value a, struct jinja_value b);

/* Text as Python sees it. */
size_t jinja_chars(const char *s, size_t n); /* code points */
bool jinja_is_space(uint32_t cp);
/* Trims chars, or blanks where chars is NULL; side: 1 left, 2 right, 3. */
struct jinja_value jinja_strip(struct jinja *j, struct jinja_value s,
                               const struct jinja_value *chars, int side);
enum jinja_case { JINJA_UPPER, JINJA_LOWER, JINJA_CAPITAL, JINJA_TITLE };
struct jinja_value jinja_recase(struct jinja *j, struct jinja_value s,
                                enum jinja_case to);
struct jinja_value jinja_replace(struct jinja *j, struct jinja_value s,
                                 struct jinja_value from, struct jinja_value to,
                                 int64_t limit);
struct jinja_value jinja_splitlines(struct jinja *j, struct jinja_value s);

/* Methods, filters and tests, by name. NULL: there is none. */

struct jinja_method_row;
bool jinja_method_known(const char *name, size_t n);
/* Undefined where v's type has no such method. */
struct jinja_value jinja_method(struct jinja *j, struct jinja_value v,
                                const char *name, size_t n);
struct jinja_value jinja_method_call(struct jinja *j,
                                     const struct jinja_method *m,
                                     const struct jinja_args *args);

typedef struct jinja_value jinja_filter(struct jinja *j, struct jinja_value v,
                                        const struct jinja_args *args);
jinja_filter *jinja_filter_find(const char *name, size_t n);
typedef bool jinja_test(struct jinja *j, struct jinja_value v,
                        const struct jinja_args *args);
jinja_test *jinja_test_find(const char *name, size_t n);

/* Binds args to parameters "a b c": into[i], or undefined where left out. Fails
 * for too many, twice, or unknown ones; need: how many must be there. */
void jinja_bind(struct jinja *j, const char *what, const char *params,
                size_t need, const struct jinja_args *args,
                struct jinja_value *into);

/* Nodes. */

enum jinja_node_kind {
    /* expressions */
    JINJA_N_CONST, /* value */
    JINJA_N_NAME,  /* name */
    JINJA_N_LIST,  /* kids */
    JINJA_N_TUPLE,
    JINJA_N_DICT,   /* kids: key, value, key, value */
    JINJA_N_ATTR,   /* kid 0, s */
    JINJA_N_ITEM,   /* kids 0 1 */
    JINJA_N_SLICE,  /* kids 0, 1..3 or NULL */
    JINJA_N_CALL,   /* kid 0 called with kids 1.., names of the last ones */
    JINJA_N_FILTER, /* the same, filter; kid 0 NULL in {% filter %} */
    JINJA_N_TEST,
    JINJA_N_NOT,
    JINJA_N_NEG,
    JINJA_N_POS,
    JINJA_N_AND,
    JINJA_N_OR,
    JINJA_N_IF_ELSE, /* kids: test, then, else or NULL */
    JINJA_N_COMPARE, /* kids; ops[i] between kids i and i + 1 */
    JINJA_N_CONCAT,
    JINJA_N_ARITH, /* kids 0 1, s */
    /* statements */
    JINJA_N_DATA,   /* s */
    JINJA_N_OUTPUT, /* kid 0 */
    JINJA_N_BODY,   /* kids in order */
    JINJA_N_IF,     /* kids: test, body, else body or NULL */
    JINJA_N_FOR,    /* kids: target, iter, filter or NULL, body, else or NULL */
    JINJA_N_SET,    /* kids: target, value */
    JINJA_N_SET_BLOCK,    /* kids: target, filter or NULL, body */
    JINJA_N_FILTER_BLOCK, /* kids: filter, body */
    JINJA_N_WITH,         /* kids: body, target, value, target, value ... */
    JINJA_N_MACRO,        /* kids: body, then defaults; name, params */
    JINJA_N_SCOPE,        /* kid 0 in a scope of its own */
    JINJA_N_BREAK,
    JINJA_N_CONTINUE,
    JINJA_N_NSREF, /* target: name, s */
};

struct jinja_node {
    enum jinja_node_kind kind;
    int line;
    struct jinja_node **kids;
    size_t count;
    const char *s; /* closed by 0 where it is a name */
    size_t n;
    int name; /* index of an interned name */
    struct jinja_value value;
    jinja_filter *filter;
    jinja_test *test;
    const char *const *names; /* of keyword arguments, or compare operators */
    size_t name_count;
    const int *params; /* of a macro: interned */
    size_t param_count;
};

/* Names that the template uses, each once: variables are told apart by
 * index. */
struct jinja_names {
    const char **list;
    size_t count, cap;
};

struct jinja_node *jinja_parse(struct jinja *j, const struct jinja_token *t,
                               struct jinja_names *names);

/* What {{ name }} finds when no variable has that name. */
enum jinja_global {
    JINJA_G_NONE,
    JINJA_G_RANGE,
    JINJA_G_NAMESPACE,
    JINJA_G_DICT,
    JINJA_G_RAISE,
    JINJA_G_STRFTIME,
};
enum jinja_global jinja_global_find(const char *name);

/* Renders body with the variables of an object. */
void jinja_eval(struct jinja *j, const struct jinja_node *body,
                const struct jinja_names *names, const json_t *variables,
                struct jinja_text *out);

#endif
