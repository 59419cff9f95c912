/* tensor/roofline.h - what this machine can do at most: the limits that
 * measured speeds are set against. */
#ifndef BATON_TENSOR_ROOFLINE_H
#define BATON_TENSOR_ROOFLINE_H

#include "base/err.h"

#include <stddef.h>

/* Rates of all threads together, the best of a few short runs each. */
struct roofline {
    int threads;
    char isa[32];        /* the instruction set measured, "avx512-vnni"    */
    size_t read_bytes;   /* of the memory that was read, beyond the caches
                           where there was room for that much             */
    double read_gb_s;    /* 1e9 bytes/s, several streams a thread          */
    double f32_gflop_s;  /* a multiplication and an addition are 2         */
    double int8_gop_s;   /* likewise, integers of 8 bits summed in 32      */
    double bf16_gflop_s; /* of instructions for pairs of bf16; 0: none    */
};

/* Measures for about a second with so many threads (0: as many as usable
 * cores) and no instructions above isa (as in device_options; NULL: the best),
 * on otherwise idle cores if the result is to mean anything.
 * ERR_INVALID, ERR_NOMEM, ERR_IO (no thread). */
int roofline_measure(int threads, const char *isa, struct roofline *out,
                     struct why *why);

/* Reads memory beside other work, a little at a time: what the machine reads
 * on average meanwhile, where other guests of its host come and go. One thread
 * calls it; it has workers of its own, and as much memory as roofline_measure,
 * until it is destroyed. */
struct reader;

/* Arguments and errors as of roofline_measure. */
int reader_create(struct reader **out, int threads, const char *isa,
                  struct why *why);
void reader_destroy(struct reader *reader); /* NULL is fine */

/* Reads a fourth of its memory, 64 MB or more, half of it as several streams
 * and half as one: for some ms. */
void reader_read(struct reader *reader);

/* 1e9 bytes/s of what was read since the last call, in the better way of the
 * two; 0: nothing was. */
double reader_rate(struct reader *reader);

#endif
