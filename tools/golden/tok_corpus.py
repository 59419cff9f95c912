#!/usr/bin/env python3
"""Writes texts to measure tokenizers on, from what a Debian 12 has installed.

    apt-get install manpages manpages-dev manpages-de manpages-fr manpages-es \\
        manpages-ru manpages-ja manpages-zh
    tools/golden/tok_corpus.py OUT_DIR

    english.txt  manual pages as prose, roff taken off
    code.txt     Python's library and C headers
    world.txt    manual pages in German, French, Spanish, Russian, Japanese, Chinese
    mixed.txt    half english, a quarter code, a quarter world, in turns of 16 KB

Each has 4 MB. They are not kept in the repository: a reading names the system.
"""
import gzip
import pathlib
import random
import re
import sys

SIZE = 4_000_000
TURN = 16_000


def prose(path):
    text = gzip.open(path, "rt", encoding="utf-8", errors="replace").read()
    lines = [line for line in text.split("\n") if line[:1] not in (".", "'")]
    text = "\n".join(lines).replace("\\-", "-").replace("\\&", "").replace("\\(aq", "'")
    return re.sub(r"\\f(\[\w*\]|.)|\\s[-+]?\d|\\[ec|^]", "", text)


def gather(paths, read):
    rng = random.Random(7)
    paths = sorted(paths)
    rng.shuffle(paths)
    parts, size = [], 0
    for path in paths:
        if path.is_symlink() or not path.is_file():
            continue
        text = read(path).strip() + "\n\n"
        parts.append(text)
        size += len(text.encode(errors="replace"))
        if size > SIZE:
            break
    return "".join(parts).encode(errors="replace")[:SIZE].decode(errors="ignore")


def plain(path):
    return path.read_text(encoding="utf-8", errors="replace")


def interleave(sources, weights):
    out, at = [], [0] * len(sources)
    while sum(map(len, out)) < SIZE:
        for i, weight in enumerate(weights):
            turn = TURN * weight // 4
            out.append(sources[i].encode()[at[i]:at[i] + turn])
            at[i] = (at[i] + turn) % (SIZE - TURN)
    return b"".join(out)[:SIZE].decode(errors="ignore")


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    man = pathlib.Path("/usr/share/man")
    english = gather(man.glob("man[1-8]/*.gz"), prose)
    code = gather([*pathlib.Path("/usr/lib/python3.11").rglob("*.py"),
                   *pathlib.Path("/usr/include").glob("*/*.h")], plain)
    world = "".join(gather(man.glob(f"{lang}/man[1-8]/*.gz"), prose)[:SIZE // 8]
                    for lang in ("de", "fr", "es", "ru", "ja", "zh_CN"))
    world = (world * 3).encode()[:SIZE].decode(errors="ignore")
    mixed = interleave([english, code, world], [2, 1, 1])
    for name, text in (("english", english), ("code", code), ("world", world),
                       ("mixed", mixed)):
        (out / f"{name}.txt").write_text(text)
        print(name, len(text.encode()))


main()
