/* xfer/store_keys.h - the keys and values of a config store's server. One
 * thread. Changes: 0, ERR_RANGE (the value would be too long) or ERR_NOMEM
 * (the store is full), which leave all as it was. */
#ifndef BATON_XFER_STORE_KEYS_H
#define BATON_XFER_STORE_KEYS_H

#include "base/map.h"
#include "xfer/store_wire.h"

struct client;

struct store_key {
    struct store_key *next; /* of the same hash */
    size_t key_bytes, value_bytes;
    char *key, *value;
    struct client *owner; /* who announced it; it goes when he goes */
};

struct store_keys {
    struct map map; /* hash of the key -> struct store_key */
    uint64_t seed;
    size_t bytes; /* of all keys and values */
};

void store_keys_init(struct store_keys *s);
void store_keys_fini(struct store_keys *s);

uint64_t store_key_hash(const struct store_keys *s, const char *key, size_t n);
/* NULL: absent */
struct store_key *store_key_find(struct store_keys *s, const char *key,
                                 size_t n);
void store_key_remove(struct store_keys *s, struct store_key *e);

/* Replaces the whole value of r's key. */
int store_key_set(struct store_keys *s, const struct store_request *r,
                  const char *value, size_t n, struct store_key **out);
/* Puts n bytes at an offset of it; zeros fill what is between. */
int store_key_write(struct store_keys *s, const struct store_request *r,
                    const char *value, size_t n, size_t at,
                    struct store_key **out);

#endif
