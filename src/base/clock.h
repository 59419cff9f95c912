/* base/clock.h - time and randomness. Any thread. */
#ifndef BATON_BASE_CLOCK_H
#define BATON_BASE_CLOCK_H

#include <stdint.h>
#include <stddef.h>

uint64_t clock_ns(void); /* monotonic */
uint64_t clock_us(void);
uint64_t clock_ms(void);
double clock_unix(void); /* seconds since 1970 */

/* Bytes from the system's generator; ends the process where it has none. */
void random_bytes(void *out, size_t n);
uint64_t random_u64(void);

/* A small seeded generator (splitmix64): the same sequence everywhere. */
uint64_t rng_next(uint64_t *state);
double rng_unit(uint64_t *state); /* [0, 1) */

#endif
