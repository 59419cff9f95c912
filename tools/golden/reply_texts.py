"""The answers of reply_golden.py: reasoning parser or None, whether the prompt
has opened the reasoning, tool-call parser or None, text. OURS has what Baton
makes of some of them against all of SGLang's outcomes, and why."""


def _object(**properties):
    return {"type": "object", "properties": properties}


TOOLS = [{"type": "function", "function": {"name": name, "parameters": parameters}}
         for name, parameters in (
             ("get_weather", _object(city={"type": "string"}, days={"type": "integer"},
                                     deep={"type": "object"})),
             ("now", _object()),
             ("note", _object(text={"type": "string"})))]

_CALLS, _CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
_CALL, _CALL_END, _SEP = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
TAGS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<|python_tag|>", "[TOOL_CALLS]",
        _CALLS, _CALLS_END, _CALL, _CALL_END, _SEP]


def _qwen(name, args, end="\n</tool_call>"):
    return '<tool_call>\n{"name": "%s", "arguments": %s}%s' % (name, args, end)


def _v3(*calls, end=_CALLS_END):
    return _CALLS + "\n".join("%sfunction%s%s\n```json\n%s\n```%s" % (_CALL, _SEP, name, args, _CALL_END)
                              for name, args in calls) + end


def _v31(*calls, end=_CALLS_END):
    return _CALLS + "".join(_CALL + name + _SEP + args + _CALL_END
                            for name, args in calls) + end


def _coder(name, **params):
    return "<tool_call>\n<function=%s>\n%s</function>\n</tool_call>" % (
        name, "".join("<parameter=%s>\n%s\n</parameter>\n" % p for p in params.items()))


_WEATHER = '{"city": "Zürich", "days": 3}'
_REASONING = [
    ("qwen3", False, "<think>\nThe user asks. 漢字 😀\n</think>\n\nFour."),
    ("qwen3", False, "Four."),
    ("qwen3", False, "<think>\n\n</think>\n\nFour."),
    ("qwen3", False, "<think>cut at its len"),
    ("qwen3", False, "<think>a < b </ c </thin d\n</think>\nx </think> y"),
    ("qwen3", False, "a <b> is no tag, nor is <thinking>"),
    ("qwen3", True, "It goes on.\n</think>\n\nFour."),
    ("qwen3", True, "<think>\nOnce more opened.\n</think>\n\nFour."),
    ("qwen3", True, "never closed, and ends in </thi"),
    ("qwen3-thinking", False, "It goes on.\n</think>\n\nFour."),
    ("deepseek-r1", True, "Let me see.\n</think>\n\nFour."),
    ("deepseek-r1", True, "<think>\nLet me see.\n</think>\n\nFour."),
    ("deepseek-r1", True, "never closed"),
    ("deepseek-r1", True, "</think>Four."),
    ("deepseek-v3", False, "<think>hm</think>Four."),
    ("glm45", False, "\n<think>hm</think>\nFour."),
    ("kimi", False, "◁think▷hm ◁b▷◁/think▷Four."),
    ("qwen3", False, "Use <think>this</think> tag."),
    ("qwen3", False, "no opening </think> tag"),
]
_CHAINED = [
    ("qwen3", False, "qwen25", "<think>\nI look.\n</think>\n\n" + _qwen("get_weather", _WEATHER)),
    ("qwen3", True, "qwen25", "I look.\n</think>\n\nA moment.\n" + _qwen("now", "{}")),
    ("qwen3", False, "qwen25", "<think>\nI look.\n" + _qwen("now", "{}")),
    ("qwen3", True, "qwen25", "I look.\n" + _qwen("get_weather", _WEATHER) + "\n" + _qwen("now", "{}")),
    ("qwen3", False, "qwen25", "<think>\nA <tool_call> it is.\n</think>\n\n" + _qwen("now", "{}")),
    ("qwen3", False, "qwen3_coder", "<think>\nI look.\n" + _coder("get_weather", city="Ulm")),
    ("deepseek-r1", True, "deepseekv3", "I look.\n</think>\n\n" + _v3(("now", "{}"))),
    ("deepseek-v3", False, "deepseekv31", "<think>I look.</think>" + _v31(("now", "{}"))),
    ("deepseek-r1", True, "qwen25", "I look.\n</think>\n\n" + _qwen("get_weather", _WEATHER)),
    ("deepseek-r1", True, "deepseekv3", "I look.\n" + _v3(("now", "{}"))),
]
_TOOLS = [
    ("qwen25", _qwen("get_weather", _WEATHER)),
    ("qwen25", "Let me look.\n" + _qwen("get_weather", _WEATHER)),
    ("qwen25", _qwen("get_weather", _WEATHER) + "\n" + _qwen("now", "{}")),
    ("qwen25", "Both.\n\n" + "\n".join(_qwen("note", '{"text": "%d"}' % i) for i in range(4))),
    ("qwen25", _qwen("note", r'{"text": "a\n\"b\" \\ }{ ]["}')),
    ("qwen25", _qwen("note", '{"text": "a <b> </tool> <tool_call> c"}')),
    ("qwen25", _qwen("note", '{"text": "not </tool_call> yet"}')),
    ("qwen25", _qwen("get_weather", '{"deep": {"a": [1, {"b": null}], "c": -1.5e3}}')),
    ("qwen25", '<tool_call>\n{"name":"now","arguments":{}}\n</tool_call>'),
    ("qwen25", '<tool_call>\n{"name": "now"}\n</tool_call>'),
    ("qwen25", '<tool_call>\n{"name": "note", "parameters": {"text": "x"}}\n</tool_call>'),
    ("qwen25", '<tool_call>\n{"arguments": {"text": "x"}, "name": "note"}\n</tool_call>'),
    ("qwen25", "No call at all, but a < b and <tool."),
    ("qwen25", "ends in a part of one <tool_ca"),
    ("qwen25", _qwen("now", "{}", end="</tool_call>")),
    ("qwen25", '<tool_call>{"name": "now", "arguments": {}}</tool_call>'),
    ("qwen25", _qwen("note", '{"text": "x"}') + "\nDone."),
    ("qwen25", _qwen("unknown", "{}")),
    ("qwen25", "Hm.\n" + _qwen("unknown", "{}") + "\n" + _qwen("now", "{}")),
    ("qwen25", "<tool_call>\nno JSON\n</tool_call>"),
    ("qwen25", '<tool_call>\n{"name": "note", "arguments": {"text": "cut of'),
    ("qwen25", '<tool_call>\n{"name": "note", "arguments": {"text": "x"}}'),
    ("qwen25", _qwen("now", "{}", end="\n</tool_c")),
    ("qwen25", '<tool_call>\n{"name": "note", "arguments": {"text": "two\nlines"}}\n</tool_call>'),
    ("llama3", '{"name": "get_weather", "parameters": ' + _WEATHER + "}"),
    ("llama3", '<|python_tag|>{"name": "get_weather", "parameters": ' + _WEATHER + "}"),
    ("llama3", '{"type": "function", "name": "now", "parameters": {}}'),
    ("llama3", '<|python_tag|>{"name": "now", "parameters": {}};{"name": "note", '
               '"parameters": {"text": "x"}}'),
    ("llama3", '<|python_tag|>{"name": "now", "parameters": {}}; {"name": "note", '
               '"parameters": {"text": "x"}}'),
    ("llama3", '{"name": "note", "arguments": {"text": "a;b}{"}}'),
    ("llama3", 'I look. <|python_tag|>{"name": "now", "parameters": {}}'),
    ("llama3", "It is sunny; {x} is no call."),
    ("llama3", '{"temperature": 3}'),
    ("llama3", '{"name": "unknown", "parameters": {}}'),
    ("llama3", "<|python_tag|>print(1)"),
    ("llama3", "{'name': 'note', 'parameters': {'text': 'x'}}"),
    ("llama3", ' {"name": "now", "parameters": {}}'),
    ("llama3", '{"name": "now", "parameters": {}} That is it.'),
    ("llama3", '{"name": "note", "parameters": {"text": "cut of'),
    ("deepseekv3", _v3(("get_weather", _WEATHER))),
    ("deepseekv3", "I look.\n" + _v3(("get_weather", _WEATHER))),
    ("deepseekv3", _v3(("get_weather", _WEATHER), ("now", "{}"))),
    ("deepseekv3", _v3(("note", '{"text": "```json in {it}"}'))),
    ("deepseekv3", _v3(("note", '{\n  "text": "x"\n}'), ("note", '{"text": "y"}'))),
    ("deepseekv3", "Here:\n```json\n{}\n```\nno call"),
    ("deepseekv3", _v3(("unknown", "{}"))),
    ("deepseekv3", _v3(("now", "no JSON"))),
    ("deepseekv3", _v3(("note", '{"text": "x"}'), end="")),
    ("deepseekv31", _v31(("get_weather", _WEATHER))),
    ("deepseekv31", "I look." + _v31(("get_weather", _WEATHER), ("now", "{}"))),
    ("deepseekv31", _v31(("note", '{"text": "x"}'), end="")),
    ("deepseekv31", _v31(("now", "{}"), end=_CALLS_END[:9])),
    ("deepseekv31", _v31(("unknown", "{}"))),
    ("qwen3_coder", _coder("get_weather", city="Zürich", days="3")),
    ("qwen3_coder", "I look.\n" + _coder("note", text='two\n"lines"')),
    ("qwen3_coder", _coder("now")),
    ("qwen3_coder", _coder("note", text="x") + "\n" + _coder("get_weather", deep='{"a": [1]}')),
    ("qwen3_coder", "no call <tool"),
    ("mistral", '[TOOL_CALLS] [{"name": "get_weather", "arguments": ' + _WEATHER + "}]"),
    ("mistral", '[TOOL_CALLS] [{"name": "now", "arguments": {}}, {"name": "note", '
                '"arguments": {"text": "a]b"}}]'),
    ("mistral", 'I look. [TOOL_CALLS] [{"name": "now", "arguments": {}}]'),
    ("mistral", "a [list] of [TOOL_ no calls"),
]
CASES = [dict(reasoning=r, inside=i, toolcall=None, text=t) for r, i, t in _REASONING]
CASES += [dict(reasoning=r, inside=i, toolcall=f, text=t) for r, i, f, t in _CHAINED]
CASES += [dict(reasoning=None, inside=False, toolcall=f, text=t) for f, t in _TOOLS]

_LOST = "text would be lost"
_UNKNOWN = "a call of an unknown function is content"
_LINE = "the tags' line ends may be missing"
_CUT = "a call that is cut off is a call, as in their stream"


def _verbatim(text, why=_UNKNOWN):
    return {text: (why, "", text.strip(), [])}


OURS = {
    "\n<think>hm</think>\nFour.": ("blanks before the tag are none, as in their stream",
                                   "hm", "Four.", []),
    _qwen("now", "{}", end="</tool_call>"): (_LINE, "", "", [["now", {}]]),
    '<tool_call>{"name": "now", "arguments": {}}</tool_call>': (_LINE, "", "", [["now", {}]]),
    _qwen("note", '{"text": "x"}') + "\nDone.": (_LOST, "", "Done.", [["note", {"text": "x"}]]),
    "Hm.\n" + _qwen("unknown", "{}") + "\n" + _qwen("now", "{}"):
        (_UNKNOWN, "", "Hm.\n" + _qwen("unknown", "{}"), [["now", {}]]),
    '<tool_call>\n{"name": "note", "arguments": {"text": "cut of':
        (_CUT, "", "", [["note", '{"text": "cut of']]),
    '{"name": "note", "parameters": {"text": "cut of':
        (_CUT, "", "", [["note", '{"text": "cut of']]),
    '<tool_call>\n{"name": "note", "arguments": {"text": "x"}}':
        (_CUT, "", "", [["note", {"text": "x"}]]),
    '<tool_call>\n{"name": "note", "arguments": {"text": "two\nlines"}}\n</tool_call>':
        ("a line's end in a string is escaped", "", "", [["note", {"text": "two\nlines"}]]),
    ' {"name": "now", "parameters": {}}': ("blanks before a call are none", "", "", [["now", {}]]),
    "I look.\n" + _v3(("now", "{}")): ("a call ends the reasoning", "I look.", "", [["now", {}]]),
    _qwen("now", "{}", end="\n</tool_c"): (_CUT, "", "", [["now", {}]]),
    **_verbatim("Use <think>this</think> tag.", "a tag within the answer is content"),
    **_verbatim(_qwen("unknown", "{}")),
    **_verbatim("<tool_call>\nno JSON\n</tool_call>", _LOST),
    **_verbatim('{"temperature": 3}', _LOST),
    **_verbatim('{"name": "unknown", "parameters": {}}'),
    **_verbatim("<|python_tag|>print(1)", "a tag without a call is content"),
    **_verbatim("{'name': 'note', 'parameters': {'text': 'x'}}", "a Python dict is no call"),
    **_verbatim(_v3(("unknown", "{}"))),
    **_verbatim(_v31(("unknown", "{}"))),
}
