/* base/checksum.h - whether bytes are still those that were written.
 *
 * Eight lanes of 64 bits take a word in turn: x -> rotate((x ^ word) * odd),
 * one to one in either, so that no change of a single word goes unseen; of
 * others one in 2^64 does. As fast as memory on one core; no protection
 * against who means to deceive. Any thread. */
#ifndef BATON_BASE_CHECKSUM_H
#define BATON_BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

uint64_t checksum64(const void *bytes, size_t n);

#endif
