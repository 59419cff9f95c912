/* text/pattern_impl.h - the tree of text/pattern.h, for automaton.c. */
#ifndef BATON_TEXT_PATTERN_IMPL_H
#define BATON_TEXT_PATTERN_IMPL_H

#include "text/pattern.h"

enum node_kind {
    NODE_TEXT,     /* texts[a], b bytes */
    NODE_BYTES,    /* a .. b            */
    NODE_WITHOUT,  /* a, b: the texts, each with its NUL; first: other */
    NODE_CALL,     /* rule a            */
    NODE_REPEAT,   /* first, a .. b times, b UINT32_MAX: without end */
    NODE_SEQUENCE, /* first, next, ...  */
    NODE_CHOICE,   /* first, next, ...  */
    NODE_JOINED,   /* first, next, ..., a between each two */
};

struct node {
    enum node_kind kind;
    uint32_t a, b;
    pattern_node first, last; /* 0: none */
    pattern_node next;
    bool optional;     /* in NODE_JOINED */
    uint8_t first_not; /* in NODE_WITHOUT */
};

struct pattern {
    struct node *nodes;
    uint32_t count, cap;
    char *texts;
    size_t text_bytes;
    pattern_node *rules;
    uint32_t rule_count;
};

#endif
