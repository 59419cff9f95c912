#include "xfer/store_keys.h"

#include "base/clock.h"
#include "base/mem.h"

#include <string.h>

enum { TOTAL_MAX = 256 << 20 }; /* keys and values together */

uint64_t store_key_hash(const struct store_keys *s, const char *key, size_t n)
{
    return hash_bytes(key, n, s->seed);
}

struct store_key *store_key_find(struct store_keys *s, const char *key,
                                 size_t n)
{
    struct store_key *e = map_get(&s->map, store_key_hash(s, key, n));
    while (e && (e->key_bytes != n || memcmp(e->key, key, n)))
        e = e->next;
    return e;
}

static void entry_free(struct store_key *e)
{
    mem_free(e->key);
    mem_free(e->value);
    mem_free(e);
}

static struct store_key *entry_make(struct store_keys *s, const char *key,
                                    size_t n)
{
    struct store_key *e = store_key_find(s, key, n);
    if (e) return e;
    uint64_t hash = store_key_hash(s, key, n);
    e = mem_must(1, sizeof *e);
    e->key = mem_dup_n(key, n);
    e->key_bytes = n;
    e->next = map_get(&s->map, hash);
    map_put(&s->map, hash, e);
    s->bytes += n;
    return e;
}

void store_key_remove(struct store_keys *s, struct store_key *e)
{
    uint64_t hash = store_key_hash(s, e->key, e->key_bytes);
    struct store_key *head = map_get(&s->map, hash);
    if (head == e && e->next) {
        map_put(&s->map, hash, e->next);
    } else if (head == e) {
        map_remove(&s->map, hash);
    } else {
        while (head->next != e)
            head = head->next;
        head->next = e->next;
    }
    s->bytes -= e->key_bytes + e->value_bytes;
    entry_free(e);
}

int store_key_write(struct store_keys *s, const struct store_request *r,
                    const char *value, size_t n, size_t at,
                    struct store_key **out)
{
    struct store_key *e = store_key_find(s, r->key, r->key_bytes);
    size_t had = e ? e->value_bytes : 0;
    if (at > STORE_VALUE_MAX || n > STORE_VALUE_MAX - at) return ERR_RANGE;
    size_t end = at + n > had ? at + n : had;
    if (s->bytes - had + end + r->key_bytes > TOTAL_MAX) return ERR_NOMEM;
    char *grown = mem_retry(e ? e->value : NULL, end + 1);
    if (!grown) return ERR_NOMEM;
    if (at > had) memset(grown + had, 0, at - had);
    if (n) memcpy(grown + at, value, n);
    e = entry_make(s, r->key, r->key_bytes);
    e->value = grown;
    e->value_bytes = end;
    s->bytes += end - had;
    *out = e;
    return 0;
}

int store_key_set(struct store_keys *s, const struct store_request *r,
                  const char *value, size_t n, struct store_key **out)
{
    struct store_key *e = store_key_find(s, r->key, r->key_bytes);
    size_t had = e ? e->value_bytes : 0;
    if (n > STORE_VALUE_MAX) return ERR_RANGE;
    if (s->bytes - had + n + r->key_bytes > TOTAL_MAX) return ERR_NOMEM;
    char *fresh = mem_try(n + 1, 1, 0);
    if (!fresh) return ERR_NOMEM;
    if (n) memcpy(fresh, value, n);
    e = entry_make(s, r->key, r->key_bytes);
    mem_free(e->value);
    e->value = fresh;
    e->value_bytes = n;
    s->bytes += n - had;
    *out = e;
    return 0;
}

void store_keys_init(struct store_keys *s)
{
    *s = (struct store_keys){.seed = random_u64()};
}

void store_keys_fini(struct store_keys *s)
{
    struct store_key *e, *after;
    for (size_t at = 0; (e = map_next(&s->map, &at, NULL));)
        for (; e; e = after) {
            after = e->next;
            entry_free(e);
        }
    map_fini(&s->map);
}
