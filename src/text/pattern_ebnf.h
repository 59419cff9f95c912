/* text/pattern_ebnf.h - grammars in the EBNF of llama.cpp (GBNF) and xgrammar.
 *
 *     root ::= "yes" | "no, " reason   # a comment
 *     reason ::= [a-z ]{1,40} ("." | "!")
 *
 * Rules in any order, `root` is the whole; recursive ones too, but not to the
 * left. Texts in quotes, classes, ".", rules' names, groups, |, * + ? {m} {m,}
 * {m,n}. A rule ends where the next begins; line ends mean nothing. Escapes: \n
 * \r \t \\ \" \' \xHH \uHHHH \UHHHHHHHH, in classes those of
 * text/pattern_regex.h. Look-ahead and xgrammar's macros are refused. */
#ifndef BATON_TEXT_PATTERN_EBNF_H
#define BATON_TEXT_PATTERN_EBNF_H

#include "text/pattern.h"

/* Defines the rules of an empty pattern. source is UTF-8. ERR_INVALID,
 * ERR_UNSUPPORTED, ERR_RANGE: with the line. */
int pattern_ebnf(struct pattern *p, const char *source, size_t n,
                 struct why *why);

#endif
