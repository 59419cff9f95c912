#!/usr/bin/env python3
"""Writes tests/golden/template/cases.json: templates and what jinja2 makes of them.

    tools/golden/tmpl_golden.py

needs pip packages jinja2 (3.1.6 made what is committed). The environment is set
up as transformers sets it up for chat templates. Each case is {"template": ...,
"text": ...}, or "error": true where jinja2 raises; all see the same variables, in
variables.json. The templates are lines of snippets.txt and the files *.jinja
beside it, written for this test. Templates of real
models: tmpl_models.py.
"""
import json
import pathlib

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/template"


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        call = self.call_method("_inside")
        return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _inside(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True,
        extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env


def case(env, template, variables):
    try:
        return {"template": template, "text": env.from_string(template).render(**variables)}
    except Exception:
        return {"template": template, "error": True}


def main():
    variables = json.loads((OUT / "variables.json").read_text())
    templates = [line for line in (OUT / "snippets.txt").read_text().split("\n") if line]
    templates += [path.read_bytes().decode() for path in sorted(OUT.glob("*.jinja"))]
    env = environment()
    cases = [case(env, t, variables) for t in templates]
    (OUT / "cases.json").write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n")
    (OUT / "VERSIONS").write_text(f"jinja2 {jinja2.__version__}\n")


if __name__ == "__main__":
    main()
