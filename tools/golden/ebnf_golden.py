#!/usr/bin/env python3
"""Writes tests/golden/ebnf.json: grammars, texts, and which of them xgrammar,
SGLang's grammar engine, takes.

    tools/golden/ebnf_golden.py

needs pip package xgrammar (and torch, which that imports). The grammars were
written for this; texts are drawn from a grammar's own letters beside those that
stand here. A grammar that xgrammar refuses has "error": true."""
import importlib.metadata
import json
import pathlib
import random

import xgrammar
from xgrammar.testing import _is_grammar_accept_string

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden"
GRAMMARS = [
    ('root ::= "yes" | "no"', ["yes", "no", "yesno", "n"]),
    ('root ::= greeting ", " name "!"\ngreeting ::= "Hello" | "Hi"\nname ::= [A-Z] [a-z]*',
     ["Hello, Ann!", "Hi, B!", "Hi, ann!", "Hello Ann!"]),
    ('# arithmetic\nroot ::= term (("+" | "-") term)*  # left to right\n'
     'term ::= factor ([*/] factor)*\nfactor ::= [0-9]+ | "(" root ")"',
     ["1+2*(3-4)", "((7))", "1+", "()", "12*3"]),
    ('root ::= list\nlist ::= "[" "]" | "[" item ("," item)* "]"\nitem ::= [a-c] | list',
     ["[]", "[a,[b,[]],c]", "[a,]", "[[[[a]]]]", "[a"]),
    ('root ::= "a"{2} "b"{1,3} "c"{2,}', ["aabcc", "aabbbccc", "abcc", "aabbbbcc", "aabc"]),
    ('root ::= "a"? ("b" | "c")+ "d"*', ["b", "acbdd", "a", "add"]),
    ('root ::= [^0-9\\n]+', ["abc", "a1", "é漢", "a\nb", ""]),
    ('root ::= "\\"" [^"\\\\]* "\\""', ['"abc"', '"a"b"', '""', '"']),
    ('root ::= "\\n\\t\\x41\\u00e9"', ["\n\tAé", "ntA"]),
    ('root ::= [\\x41-\\x43\\-\\]]+', ["ABC", "A-]", "D"]),
    ('root ::=\n  "x" |\n  "y"\n  rest\nrest ::= "z"', ["x", "yz", "y", "xz"]),
    ('root ::= word | word " " root\nword ::= [a-z]{1,4}', ["a b cd", "abcde", "a  b", "a "]),
    ('root ::= "" | "a" root "b"', ["", "ab", "aabb", "aab", "ba"]),
    ('root ::= ("a" | ("b" "c"?)){2}', ["ab", "bcb", "a", "bcbc", "aaa"]),
    ('root ::= "漢字" [ぁ-ん]+', ["漢字ひら", "漢字", "漢ひ"]),
    ('root ::= "{" ws (pair ("," ws pair)*)? "}"\npair ::= key ":" ws [0-9]+ ws\n'
     'key ::= "\\"" [a-z]* "\\""\nws ::= [ \\n]*',
     ["{}", '{ "a": 1}', '{"a":1,\n"":22 }', '{"a":1,}', '{"a" :1}']),
    ('root ::= a b a\na ::= "x"*\nb ::= "y"? a', ["", "xx", "xyx", "yy"]),
    ('root ::= "a', None), ('root ::= [a-z', None), ('root ::= ("a"', None),
    ('root ::= missing', None), ('start ::= "a"', None), ('root ::= "a" {3,1}', None),
]


def drawn(grammar, texts, rng):
    """Texts like those: letters of them changed, doubled, left out."""
    out = list(texts)
    letters = sorted(set("".join(texts)) | set("a1"))
    for text in texts:
        for _ in range(6):
            t = list(text)
            for _ in range(rng.randint(1, 2)):
                i = rng.randint(0, len(t))
                t[i:i + rng.randint(0, 1)] = rng.choice([[], [rng.choice(letters)]])
            out.append("".join(t))
    return sorted(set(out))


def main():
    rng, cases = random.Random(1), []
    for source, texts in GRAMMARS:
        try:
            grammar = xgrammar.Grammar.from_ebnf(source)
            takes = [[t, bool(_is_grammar_accept_string(grammar, t))]
                     for t in drawn(source, texts or [""], rng)]
            cases.append({"grammar": source, "texts": takes})
        except RuntimeError:
            cases.append({"grammar": source, "error": True})
    body = {"version": "xgrammar " + importlib.metadata.version("xgrammar"), "cases": cases}
    (OUT / "ebnf.json").write_text(json.dumps(body, ensure_ascii=False, indent=1) + "\n")
    print(sum(len(c.get("texts", [])) for c in cases), "texts")


if __name__ == "__main__":
    main()
