/* bin/bench_turns.h - `baton bench engine --turns`: the model is open, and a
 * line of stdin asks for what is done next, until its end. The answer is a line
 * of stdout. First comes one of JSON: the type of the weights, the bytes that a
 * step reads (rig_step_bytes), the operations of its products and of a
 * prompt's.
 *
 *   steps N   one step of all sequences, then N more: the seconds of the N.
 *             They begin again behind the prompts where --gen has no room;
 *             N + 1 is at most --gen
 *   prompt    of the first sequence: its seconds
 *   read      some 64 MB of memory by all threads: GB/s
 *   limits    about a second: the rates of int8 and of bf16 (0: none), 1e9
 *             operations/s */
#ifndef BATON_BIN_BENCH_TURNS_H
#define BATON_BIN_BENCH_TURNS_H

#include "bin/bench_rig.h"

/* ERR_INVALID: a line that is none of these; else as of rig_prefill and
 * reader_create. */
int bench_turns_take(struct rig *r, const struct bench *b, struct why *why);

#endif
