/* A trie over the bytes of all texts, walked from each byte that starts one.
 * Children of a node are a list: the tries are small and texts short. */
#include "text/added.h"
#include "base/mem.h"
#include "text/unicode.h"

#include <string.h>

struct node {
    uint32_t child, next; /* 0: none, as 0 is the root */
    int32_t token;        /* index of the token that ends here, or -1 */
    unsigned char byte;
};

struct added {
    struct added_token *tokens;
    size_t count, cap;
    struct node *nodes;
    uint32_t node_count;
    uint32_t root[256];  /* the root's child for a byte, or 0 */
    unsigned firsts;     /* bytes that have one */
    unsigned char first; /* one of them */
};

void added_create(struct added **out)
{
    unicode_init();
    *out = mem_must(1, sizeof **out);
}

void added_destroy(struct added *a)
{
    if (!a) return;
    for (size_t i = 0; i < a->count; i++) {
        char *text;
        memcpy(&text, &a->tokens[i].text, sizeof text);
        mem_free(text);
    }
    mem_free(a->tokens);
    mem_free(a->nodes);
    mem_free(a);
}

int added_add(struct added *a, const struct added_token *token, struct why *why)
{
    if (token->len == 0) return 0;
    if (a->count == a->cap) {
        size_t cap = a->cap ? 2 * a->cap : 64;
        struct added_token *more =
            mem_retry(a->tokens, cap * sizeof *a->tokens);
        if (!more) return err_set(why, ERR_NOMEM, "%zu added tokens", cap);
        a->tokens = more;
        a->cap = cap;
    }
    char *text = mem_try(token->len + 1, 1, 0);
    if (!text)
        return err_set(why, ERR_NOMEM, "added token of %zu bytes", token->len);
    memcpy(text, token->text, token->len);
    a->tokens[a->count] = *token;
    a->tokens[a->count++].text = text;
    return 0;
}

static uint32_t child_of(const struct added *a, uint32_t node,
                         unsigned char byte)
{
    uint32_t c = node ? a->nodes[node].child : a->root[byte];
    while (c && a->nodes[c].byte != byte)
        c = a->nodes[c].next;
    return c;
}

static uint32_t add_child(struct added *a, uint32_t node, unsigned char byte)
{
    uint32_t c = a->node_count++;
    a->nodes[c] = (struct node){0, 0, -1, byte};
    if (node) {
        a->nodes[c].next = a->nodes[node].child;
        a->nodes[node].child = c;
    } else {
        a->root[byte] = c;
        a->first = byte;
        a->firsts++;
    }
    return c;
}

int added_build(struct added *a, struct why *why)
{
    size_t bytes = 1;
    for (size_t i = 0; i < a->count; i++)
        bytes += a->tokens[i].len;
    a->nodes = bytes < UINT32_MAX ? mem_try(bytes, sizeof *a->nodes, 0) : NULL;
    if (!a->nodes)
        return err_set(why, ERR_NOMEM, "added tokens: %zu bytes", bytes);
    a->node_count = 1;
    for (size_t i = 0; i < a->count; i++) {
        const struct added_token *t = &a->tokens[i];
        uint32_t at = 0;
        for (size_t k = 0; k < t->len; k++) {
            unsigned char byte = (unsigned char)t->text[k];
            uint32_t c = child_of(a, at, byte);
            at = c ? c : add_child(a, at, byte);
        }
        if (a->nodes[at].token < 0) a->nodes[at].token = (int32_t)i;
    }
    return 0;
}

size_t added_count(const struct added *a)
{
    return a->count;
}

const struct added_token *added_at(const struct added *a, size_t index)
{
    return &a->tokens[index];
}

const struct added_token *added_longest(const struct added *a, const char *s,
                                        size_t n)
{
    int32_t found = -1;
    uint32_t at = 0;
    for (size_t i = 0; i < n; i++) {
        at = child_of(a, at, (unsigned char)s[i]);
        if (!at) break;
        if (a->nodes[at].token >= 0) found = a->nodes[at].token;
    }
    return found < 0 ? NULL : &a->tokens[found];
}

const struct added_token *added_find(const struct added *a, const char *text,
                                     size_t n)
{
    const struct added_token *t = added_longest(a, text, n);
    return t && t->len == n ? t : NULL;
}

/* The character that ends at s + n; n >= 1. */
static uint32_t last_char(const char *s, size_t n)
{
    size_t i = n - 1, len;
    while (((unsigned char)s[i] & 0xc0) == 0x80)
        i--;
    return utf8_get(s + i, &len);
}

static bool touches_word(const char *text, size_t n, size_t from, size_t to)
{
    size_t len;
    return (from > 0 && unicode_is_word(last_char(text, from))) ||
           (to < n && unicode_is_word(utf8_get(text + to, &len)));
}

static size_t strip_left(const char *text, size_t from)
{
    while (from > 0 &&
           (unicode_class_wide(last_char(text, from)) & UNICODE_SPACE)) {
        from--;
        while (((unsigned char)text[from] & 0xc0) == 0x80)
            from--;
    }
    return from;
}

static size_t strip_right(const char *text, size_t n, size_t to)
{
    size_t len;
    while (to < n && (unicode_class(text + to, &len) & UNICODE_SPACE))
        to += len;
    return to;
}

/* From a place on, the next one that a token may start at, or n. */
static size_t next_start(const struct added *a, const char *text, size_t n,
                         size_t i)
{
    if (a->firsts == 1) {
        const char *found = memchr(text + i, a->first, n - i);
        return found ? (size_t)(found - text) : n;
    }
    while (i < n && !a->root[(unsigned char)text[i]])
        i++;
    return i;
}

int added_split(const struct added *a, const char *text, size_t n,
                bool plain_special,
                int (*sink)(void *arg, const struct added_token *token,
                            const char *text, size_t n),
                void *arg)
{
    size_t done = 0; /* given to sink so far */
    int rc = 0;
    for (size_t i = 0; !rc && (i = next_start(a, text, n, i)) < n;) {
        const struct added_token *t = added_longest(a, text + i, n - i);
        if (!t) {
            i++;
            continue;
        }
        size_t from = i, to = i + t->len;
        i = to; /* a token that does not count still hides what is in it */
        if (t->special && plain_special) continue;
        if (t->single_word && touches_word(text, n, from, to)) continue;
        if (t->lstrip) from = strip_left(text, from);
        if (from < done) from = done;
        if (t->rstrip) to = strip_right(text, n, to);
        if (from > done) rc = sink(arg, NULL, text + done, from - done);
        if (!rc) rc = sink(arg, t, text + from, to - from);
        done = to;
    }
    if (!rc && done < n) rc = sink(arg, NULL, text + done, n - done);
    return rc;
}
