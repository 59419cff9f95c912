/* model/spread.h - the rows of a matrix over several threads, while a model is
 * quantized. Internal to model/. */
#ifndef BATON_MODEL_SPREAD_H
#define BATON_MODEL_SPREAD_H

#include <stddef.h>

/* Calls fn(arg, first, end) so that all rows 0 .. rows - 1 are done once, first
 * a multiple of 8, on as many threads as there are usable cores, and returns
 * when they are. Where a thread cannot be had its share is done by the
 * caller. */
void spread_rows(size_t rows, void (*fn)(void *arg, size_t first, size_t end),
                 void *arg);

#endif
