#!/usr/bin/env python3
"""Writes tests/golden/reply/cases.json: answers of chat models, and what
SGLang's reasoning and tool-call parsers make of them.

    tools/golden/reply_golden.py

needs pip packages orjson, partial-json-parser, pydantic, msgspec and regex. The parsers are
SGLang's own, of the packages of PyPI, an old version and a late one; what they
import of SGLang besides is stood in for. The answers are reply_texts.py's,
made up for this.

Each answer is given whole, and streamed: as tokens (tags in one piece, the rest
in random ones), by characters, and in two pieces cut at every place. A case
has, for each outcome, who came to it and of how many streams; blanks at the
ends of reasoning and content are cut off, arguments are JSON values. The late
version's answer to the whole is what Baton must give, whole and streamed, or
"ours", with the reason."""
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import random
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/golden/reply"
sys.path.insert(0, str(ROOT / "tools/interop"))
from stock_peer import StandIn, source  # noqa: E402
from reply_texts import CASES, OURS, TAGS, TOOLS  # noqa: E402

VERSIONS = ["0.5.6.post2", "0.5.23"]
TOKENS = 20  # streams of random pieces


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """The parsers and SGLang's environment are real, all else is not."""
    NAMES = ("sglang", "transformers", "openai_harmony", "xgrammar")
    REAL = ["sglang.srt.function_call.", "sglang.srt.parser.", "sglang.srt.environ"]

    def __init__(self, folder):
        self.folder = folder

    def find_spec(self, name, path, target=None):
        if name.split(".")[0] not in self.NAMES:
            return None
        file = os.path.join(self.folder, *name.split(".")) + ".py"
        if os.path.exists(file) and name.startswith(tuple(self.REAL)):
            return importlib.util.spec_from_file_location(name, file)
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return StandIn(spec.name)

    def exec_module(self, module):
        pass


class Value:
    """A JSON object's members as attributes, null where there is none."""

    def __init__(self, members):
        for key, value in members.items():
            setattr(self, key, Value(value) if key == "function" else value)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return None


class Answer:
    """SGLang's parsers of one answer, chained as its server chains them."""

    def __init__(self, case, ReasoningParser, FunctionCallParser):
        self.reasoning = self.content = ""
        self.calls = {}
        self.thinks = self.tools = None
        if case["reasoning"]:
            self.thinks = ReasoningParser(case["reasoning"], True, case["inside"])
        if case["toolcall"]:
            self.tools = FunctionCallParser([Value(t) for t in TOOLS], case["toolcall"])

    def take(self, reasoning, text, parse):
        self.reasoning += reasoning or ""
        text, calls = parse(text) if self.tools and text else (text, [])
        self.content += text or ""
        for call in calls:
            name, args = self.calls.get(call.tool_index, ("", ""))
            self.calls[call.tool_index] = (name + (call.name or ""), args + call.parameters)

    def whole(self, text):
        reasoning = ""
        if self.thinks:
            reasoning, text = self.thinks.parse_non_stream(text)
        found = []
        self.take(reasoning, text, lambda t: self.listed(t, found))
        return self.outcome(found)

    def listed(self, text, found):
        if self.tools.has_tool_call(text):
            text, calls = self.tools.parse_non_stream(text)
            found += [(c.name, c.parameters) for c in calls]
        return text, []

    def stream(self, pieces):
        for piece in pieces:
            reasoning = ""
            if self.thinks:
                reasoning, piece = self.thinks.parse_stream_chunk(piece)
            self.take(reasoning, piece, self.tools and self.tools.parse_stream_chunk)
        if self.thinks and hasattr(self.thinks, "parse_stream_end"):
            self.take(*self.thinks.parse_stream_end(),
                      self.tools and self.tools.parse_stream_chunk)
        if self.tools and hasattr(self.tools, "parse_stream_end"):
            self.take("", " ", lambda _: self.tools.parse_stream_end())
        self.rest()
        return self.outcome([self.calls[i] for i in sorted(self.calls)])

    def rest(self):
        """At a stream's end its server sends what is left of the last call."""
        detector = self.tools and self.tools.detector
        last = len(getattr(detector, "prev_tool_call_arr", None) or []) - 1
        sent = getattr(detector, "streamed_args_for_tool", None) or []
        if 0 <= last < len(sent):
            want = detector.prev_tool_call_arr[last].get("arguments", {})
            want = want if isinstance(want, str) else json.dumps(want, ensure_ascii=False)
            if want.startswith(sent[last]) and last in self.calls:
                name, args = self.calls[last]
                self.calls[last] = (name, args + want[len(sent[last]):])

    def outcome(self, calls):
        def value(args):
            try:
                return json.loads(args)
            except ValueError:
                return args
        return {"reasoning": self.reasoning.strip(), "content": self.content.strip(),
                "calls": [[name, value(args)] for name, args in calls]}


def tokens(text, rng):
    for part in re.split("(" + "|".join(map(re.escape, TAGS)) + ")", text):
        while part and part not in TAGS:
            n = rng.randint(1, 7)
            yield part[:n]
            part = part[n:]
        if part:
            yield part


def ways(text):
    rng = random.Random(len(text))
    yield "whole", None
    for _ in range(TOKENS):
        yield "tokens", list(tokens(text, rng))
    yield "characters", list(text)
    for i in range(1, len(text)):
        yield "cuts", [text[:i], text[i:]]


def outcomes(version, case, parsers):
    """[[version, by which ways, outcome]]; of cuts only how many are as the
    whole: the others are many ways of losing something."""
    found = {}
    for how, pieces in ways(case["text"]):
        try:
            answer = Answer(case, *parsers)
            out = answer.whole(case["text"]) if how == "whole" else answer.stream(pieces)
        except Exception as e:  # what its server answers with 500
            out = {"raises": type(e).__name__}
        key = json.dumps(out, sort_keys=True)
        found.setdefault(key, [out, {}])[1].setdefault(how, 0)
        found[key][1][how] += 1
    cuts = len(case["text"]) - 1
    return [[version, ", ".join(
        how if how in ("whole", "characters") else
        "%d of %d %s" % (n, TOKENS if how == "tokens" else cuts, how)
        for how, n in by.items()), out] for out, by in found.values()
        if list(by) != ["cuts"]]


def child(version):
    import logging
    logging.disable(logging.CRITICAL)
    sys.meta_path.insert(0, Finder(source(version)))
    from sglang.srt.function_call.function_call_parser import FunctionCallParser
    from sglang.srt.parser.reasoning_parser import ReasoningParser
    parsers = ReasoningParser, FunctionCallParser
    cases = [outcomes(version, case, parsers) for case in CASES]
    json.dump(cases, sys.stdout)


def main():
    if len(sys.argv) == 2:
        return child(sys.argv[1])
    for version in VERSIONS:
        source(version)
    found = [json.loads(subprocess.run([sys.executable, __file__, v], check=True,
                                       stdout=subprocess.PIPE).stdout) for v in VERSIONS]
    cases = []
    for case, *of in zip(CASES, *found):
        merged = {}
        for version, how, out in sum(of, []):
            key = json.dumps(out, sort_keys=True)
            merged.setdefault(key, {**out, "by": {}})["by"][version] = how
        case = dict(case, sglang=list(merged.values()))
        if case["text"] in OURS:
            case["ours"] = dict(zip(["why", "reasoning", "content", "calls"],
                                    OURS[case["text"]]))
        cases.append(case)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "VERSIONS").write_text("".join("sglang %s\n" % v for v in VERSIONS))
    body = json.dumps({"tools": TOOLS, "cases": cases}, ensure_ascii=False, indent=1)
    (OUT / "cases.json").write_text(body + "\n")
    print("%d answers" % len(cases))


if __name__ == "__main__":
    main()
