#include "text/pattern_impl.h"

#include "base/mem.h"
#include "text/utf8.h"

#include <assert.h>
#include <string.h>

struct pattern *pattern_create(void)
{
    struct pattern *p = mem_must(1, sizeof *p);
    p->cap = 64;
    p->nodes = mem_must(p->cap, sizeof *p->nodes);
    p->count = 1; /* node 0: the text "" */
    p->nodes[0].kind = NODE_TEXT;
    return p;
}

void pattern_destroy(struct pattern *p)
{
    if (!p) return;
    mem_free(p->nodes);
    mem_free(p->texts);
    mem_free(p->rules);
    mem_free(p);
}

uint32_t pattern_rule(struct pattern *p)
{
    p->rules = mem_remust(p->rules, (p->rule_count + 1) * sizeof *p->rules);
    p->rules[p->rule_count] = 0;
    return p->rule_count++;
}

void pattern_define(struct pattern *p, uint32_t rule, pattern_node tree)
{
    p->rules[rule] = tree;
}

static pattern_node add(struct pattern *p, const struct node *node)
{
    if (p->count == p->cap) {
        p->cap *= 2;
        p->nodes = mem_remust(p->nodes, p->cap * sizeof *p->nodes);
    }
    p->nodes[p->count] = *node;
    return p->count++;
}

pattern_node pattern_bytes(struct pattern *p, uint8_t lo, uint8_t hi)
{
    assert(lo <= hi);
    return add(p, &(struct node){.kind = NODE_BYTES, .a = lo, .b = hi});
}

pattern_node pattern_text(struct pattern *p, const char *text, size_t n)
{
    if (!n) return add(p, &(struct node){.kind = NODE_TEXT});
    p->texts = mem_remust(p->texts, p->text_bytes + n);
    memcpy(p->texts + p->text_bytes, text, n);
    uint32_t at = (uint32_t)p->text_bytes;
    p->text_bytes += n;
    return add(p, &(struct node){.kind = NODE_TEXT, .a = at, .b = (uint32_t)n});
}

void pattern_token_bytes(int32_t id, uint8_t out[4])
{
    out[0] = PATTERN_TOKEN;
    out[1] = (uint8_t)(id >> 16);
    out[2] = (uint8_t)(id >> 8);
    out[3] = (uint8_t)id;
}

pattern_node pattern_token(struct pattern *p, int32_t id)
{
    uint8_t bytes[4];
    pattern_token_bytes(id, bytes);
    return pattern_text(p, (const char *)bytes, sizeof bytes);
}

pattern_node pattern_without(struct pattern *p, const char *const *texts,
                             size_t count, pattern_node other, char first_not)
{
    struct node node = {.kind = NODE_WITHOUT,
                        .a = (uint32_t)p->text_bytes,
                        .first = other,
                        .first_not = (uint8_t)first_not};
    for (size_t i = 0; i < count; i++) {
        assert(*texts[i]);
        pattern_text(p, texts[i], strlen(texts[i]) + 1);
    }
    node.b = (uint32_t)p->text_bytes - node.a;
    return add(p, &node);
}

pattern_node pattern_call(struct pattern *p, uint32_t rule)
{
    return add(p, &(struct node){.kind = NODE_CALL, .a = rule});
}

pattern_node pattern_repeat(struct pattern *p, pattern_node what, int min,
                            int max)
{
    assert(min >= 0 && (max < 0 || min <= max));
    return add(p, &(struct node){.kind = NODE_REPEAT,
                                 .first = what,
                                 .a = (uint32_t)min,
                                 .b = (uint32_t)max});
}

pattern_node pattern_sequence(struct pattern *p)
{
    return add(p, &(struct node){.kind = NODE_SEQUENCE});
}

pattern_node pattern_choice(struct pattern *p)
{
    return add(p, &(struct node){.kind = NODE_CHOICE});
}

pattern_node pattern_joined(struct pattern *p, pattern_node between)
{
    return add(p, &(struct node){.kind = NODE_JOINED, .a = between});
}

/* Items hang in a list; node 0, the empty text, may be in many places and
 * gets a copy. */
void pattern_add(struct pattern *p, pattern_node list, pattern_node item)
{
    if (!item) item = pattern_text(p, "", 0);
    struct node *l = &p->nodes[list];
    *(l->last ? &p->nodes[l->last].next : &l->first) = item;
    l->last = item;
}

void pattern_add_optional(struct pattern *p, pattern_node list,
                          pattern_node item)
{
    pattern_add(p, list, item);
    p->nodes[p->nodes[list].last].optional = true;
}

/* ---- UTF-8 ---- */

/* lo and hi have the same length and differ so that all bytes between theirs
 * may follow each other freely. */
static void add_square(struct pattern *p, pattern_node choice, uint32_t lo,
                       uint32_t hi)
{
    char from[4], to[4];
    size_t n = utf8_put(from, lo);
    utf8_put(to, hi);
    pattern_node bytes = pattern_sequence(p);
    for (size_t i = 0; i < n; i++)
        pattern_add(p, bytes,
                    pattern_bytes(p, (uint8_t)from[i], (uint8_t)to[i]));
    pattern_add(p, choice, bytes);
}

static void add_range(struct pattern *p, pattern_node choice, uint32_t lo,
                      uint32_t hi)
{
    static const uint32_t ends[] = {0x7f, 0x7ff, 0xd7ff, 0xdfff, 0xffff};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        if (lo <= ends[i] && hi > ends[i]) {
            add_range(p, choice, lo, ends[i]);
            add_range(p, choice, ends[i] + 1, hi);
            return;
        }
    if (lo >= 0xd800 && hi <= 0xdfff) return; /* surrogates */
    if (hi > 0x7f)
        for (uint32_t low = 0x3f; low <= 0x3ffff; low = low << 6 | 0x3f) {
            if ((lo | low) == (hi | low)) break;
            uint32_t cut = lo & low            ? (lo | low) + 1
                           : (hi & low) != low ? hi & ~low
                                               : 0;
            if (!cut) continue;
            add_range(p, choice, lo, cut - 1);
            add_range(p, choice, cut, hi);
            return;
        }
    add_square(p, choice, lo, hi);
}

pattern_node pattern_code_points(struct pattern *p,
                                 const struct code_range *ranges, size_t count)
{
    pattern_node choice = pattern_choice(p);
    for (size_t i = 0; i < count; i++)
        add_range(p, choice, ranges[i].lo, ranges[i].hi);
    return choice;
}
