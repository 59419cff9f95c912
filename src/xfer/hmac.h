/* xfer/hmac.h - SHA-256 (FIPS 180-4) and HMAC (RFC 2104), for the handshake's
 * proof. libc has neither. Pure functions. */
#ifndef BATON_XFER_HMAC_H
#define BATON_XFER_HMAC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sha256 {
    uint32_t state[8];
    uint64_t bytes;
    uint8_t block[64];
};
void sha256_init(struct sha256 *s);
void sha256_add(struct sha256 *s, const void *bytes, size_t n);
void sha256_end(struct sha256 *s, uint8_t out[32]);

/* HMAC-SHA256 of several pieces as if they were one. */
struct hmac_piece {
    const void *bytes;
    size_t n;
};
void hmac_sha256(const void *key, size_t key_bytes,
                 const struct hmac_piece *pieces, size_t count,
                 uint8_t out[32]);

/* Compares in a time that does not tell where they differ. */
bool hmac_equal(const uint8_t a[32], const uint8_t b[32]);

#endif
