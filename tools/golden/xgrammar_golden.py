#!/usr/bin/env python3
"""Writes tests/golden/xgrammar.json: grammars and structural tags, texts, and
which of them xgrammar, SGLang's grammar engine, takes.

    tools/golden/xgrammar_golden.py

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


_A = {"type": "json_schema", "json_schema": {
    "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}
_F = {"type": "tag", "begin": "<f>", "content": _A, "end": "</f>"}
_G = {"type": "tag", "begin": "<g=x>", "content": {"type": "any_text"}, "end": ["</g>", "<over>"]}
_ONE, _TWO = '<f>{"a": 1}</f>', '<f>{"a": 1}</f><g=x>hm </f> x</g>'
_TEXTS = ["", "hi", _ONE, _TWO, "so " + _ONE, _ONE + " more", "a" + _TWO + "b", "<f x", "<",
          '<f>{}</f>', 'x<f>{"a":1}', _ONE + "," + _ONE, _ONE + ",", "<g=x>y<over>", "<g=x>y<ov"]


def _triggered(**more):
    return dict(type="triggered_tags", triggers=["<f", "<g="], tags=[_F, _G], **more)


def _separated(**more):
    return dict(type="tags_with_separator", tags=[_F, _G], separator=",", **more)


FORMATS = [(f, _TEXTS) for f in (
    _F, _G, _triggered(), _triggered(at_least_one=True), _triggered(stop_after_first=True),
    _triggered(at_least_one=True, stop_after_first=True), _triggered(excludes=["hm"]),
    _separated(), _separated(at_least_one=True), _separated(stop_after_first=True),
    {"type": "or", "elements": [_F, {"type": "const_string", "value": "hi"}]},
    {"type": "sequence", "elements": [_G, {"type": "any_text"}]},
    {"type": "tag", "begin": "<t>", "content": _triggered(), "end": "</t>"},
)] + [
    ({"type": "sequence", "elements": [
        {"type": "regex", "pattern": "a+|b"}, {"type": "const_string", "value": "-"}, _A]},
     ['aa-{"a":1}', 'b-{"a": 2}', 'b-', '-{"a":1}']),
    ({"type": "tag", "begin": "<t>", "content": _triggered(), "end": "</t>"},
     ["<t></t>", "<t>x</t>", "<t>x" + _ONE + "y</t>", "<t>x</t>y", "<t><f</t>"]),
    ({"type": "triggered_tags", "triggers": ["<h"], "tags": [_F]}, None),
    ({"type": "nothing"}, None),
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
    for source, texts in GRAMMARS + FORMATS:
        ebnf = isinstance(source, str)
        try:
            if ebnf:
                grammar = xgrammar.Grammar.from_ebnf(source)
            else:
                source = {"type": "structural_tag", "format": source}
                grammar = xgrammar.Grammar.from_structural_tag(source)
                source = json.dumps(source)
            takes = [[t, bool(_is_grammar_accept_string(grammar, t))]
                     for t in drawn(source, texts or [""], rng)]
            cases.append({"ebnf": ebnf, "grammar": source, "texts": takes})
        except (RuntimeError, ValueError):
            source = source if ebnf else json.dumps(source)
            cases.append({"ebnf": ebnf, "grammar": source, "error": True})
    rows = ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases)
    (OUT / "xgrammar.json").write_text('{"version": "xgrammar %s",\n"cases": [\n%s]}\n' % (
        importlib.metadata.version("xgrammar"), rows))
    print(sum(len(c.get("texts", [])) for c in cases), "texts")


if __name__ == "__main__":
    main()
