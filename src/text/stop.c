/* The states are the prefixes of all strings: a trie with, for each node, the
 * longest other prefix that its text ends with (fail). The node reached says
 * what is kept back: its depth. Failing steps are paid for by the steps down
 * that went before. */
#include "text/stop.h"
#include "base/mem.h"

#include <string.h>

struct node {
    uint16_t child, next; /* 0: none */
    uint16_t fail, depth;
    int16_t match; /* the string that ends here, or -1 */
    unsigned char byte;
};

struct stop {
    struct node *nodes;
    uint16_t count;
    uint16_t root[256];
    uint16_t lens[STOP_MAX_STRINGS];
};

static uint16_t child_of(const struct stop *stop, uint16_t node,
                         unsigned char byte)
{
    if (!node) return stop->root[byte];
    uint16_t c = stop->nodes[node].child;
    while (c && stop->nodes[c].byte != byte)
        c = stop->nodes[c].next;
    return c;
}

static uint16_t step(const struct stop *stop, uint16_t node, unsigned char byte)
{
    uint16_t to;
    while (!(to = child_of(stop, node, byte)) && node)
        node = stop->nodes[node].fail;
    return to;
}

static void add(struct stop *stop, int index, const char *s, size_t n)
{
    uint16_t at = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)s[i];
        uint16_t to = child_of(stop, at, byte);
        if (!to) {
            to = stop->count++;
            stop->nodes[to] = (struct node){
                .depth = (uint16_t)(i + 1), .match = -1, .byte = byte};
            if (at) {
                stop->nodes[to].next = stop->nodes[at].child;
                stop->nodes[at].child = to;
            } else {
                stop->root[byte] = to;
            }
        }
        at = to;
    }
    if (stop->nodes[at].match < 0) stop->nodes[at].match = (int16_t)index;
}

/* Breadth first, so that a shorter prefix has its fail when it is asked. */
static void link_fails(struct stop *stop)
{
    uint16_t queue[STOP_MAX_BYTES + 1], head = 0, tail = 0;
    for (int b = 0; b < 256; b++)
        if (stop->root[b]) queue[tail++] = stop->root[b];
    while (head < tail) {
        uint16_t at = queue[head++];
        struct node *node = &stop->nodes[at];
        if (node->match < 0) node->match = stop->nodes[node->fail].match;
        for (uint16_t c = node->child; c; c = stop->nodes[c].next) {
            stop->nodes[c].fail = step(stop, node->fail, stop->nodes[c].byte);
            queue[tail++] = c;
        }
    }
}

int stop_create(struct stop **out, const char *const *strings,
                const size_t *lens, size_t count, struct why *why)
{
    size_t bytes = 0;
    if (count > STOP_MAX_STRINGS)
        return err_set(why, ERR_INVALID, "%zu stop strings, at most %d", count,
                       STOP_MAX_STRINGS);
    for (size_t i = 0; i < count; i++) {
        if (lens[i] == 0)
            return err_set(why, ERR_INVALID, "stop string %zu is empty", i);
        if (lens[i] > STOP_MAX_BYTES - bytes)
            return err_set(why, ERR_INVALID,
                           "stop strings of more than %d bytes together",
                           STOP_MAX_BYTES);
        bytes += lens[i];
    }
    struct stop *stop = mem_must(1, sizeof *stop);
    stop->nodes = mem_must(bytes + 1, sizeof *stop->nodes);
    stop->nodes[0].match = -1;
    stop->count = 1;
    for (size_t i = 0; i < count; i++) {
        stop->lens[i] = (uint16_t)lens[i];
        add(stop, (int)i, strings[i], lens[i]);
    }
    link_fails(stop);
    *out = stop;
    return 0;
}

void stop_destroy(struct stop *stop)
{
    if (!stop) return;
    mem_free(stop->nodes);
    mem_free(stop);
}

size_t stop_held(const struct stop *stop, const struct stop_state *state)
{
    return stop->nodes[state->node].depth;
}

struct stop_result stop_feed(const struct stop *stop, struct stop_state *state,
                             const char *text, size_t n)
{
    size_t held = stop_held(stop, state);
    uint16_t at = (uint16_t)state->node;
    for (size_t i = 0; i < n; i++) {
        at = step(stop, at, (unsigned char)text[i]);
        int match = stop->nodes[at].match;
        if (match < 0) continue;
        state->node = 0;
        size_t len = stop->lens[match];
        return (struct stop_result){held + i + 1 - len, len, match};
    }
    state->node = at;
    return (struct stop_result){held + n - stop->nodes[at].depth, 0, -1};
}
