/* text/pretok_scan.h - hand-written scanners, the inside of text/pretok.h. */
#ifndef BATON_TEXT_PRETOK_SCAN_H
#define BATON_TEXT_PRETOK_SCAN_H

#include "text/pretok.h"

/* The pieces from s on, PRETOK_SOME at most; valid text, s < end. Their bytes
 * go to lens; returns how many, at least 1. */
enum { PRETOK_SOME = 64 };
typedef size_t pretok_scanner(const char *s, const char *end,
                              size_t lens[PRETOK_SOME]);

pretok_scanner *pretok_scanner_of(enum pretok_pattern pattern);
/* Numbers by Rust's is_numeric, each alone or in runs, apart from the rest. */
pretok_scanner pretok_scan_digits, pretok_scan_digit_runs;

/* DeepSeek V3's three expressions, one stage after another, in one pass. */
pretok_scanner pretok_scan_deepseek;

#endif
