"""Texts to hold tokenizers against one another on, the same here and in
tests/text/golden_texts.h: text(i) is a pure function of i and of the words in
tests/golden/tokenizer/words.json, so that only hashes of what became of them
need to be kept.

Every kind of trouble has its turn: prose and code, all blocks of Unicode that
have characters, any scalar value, control characters, emoji joined and flagged,
stacks of marks, numbers of many scripts, quotes, long runs, words that look
like special tokens, and bytes that are no text at all (which both sides take as
U+FFFD for each maximal broken sequence).
"""
import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/golden/tokenizer"
TEXTS = 20_000        # in blocks of BLOCK
BLOCK = 250
DOCUMENTS = 2         # of 1 MB, numbered from TEXTS on
DOCUMENT_BYTES = 1 << 20
MASK = (1 << 64) - 1

# First code point and number of 128-character rows: where Unicode has characters.
ROWS = [(0x80, 431), (0xF900, 13), (0x10000, 64), (0x12000, 25), (0x13000, 37),
        (0x16000, 4), (0x16800, 16), (0x17000, 4), (0x18800, 8), (0x1AF00, 10),
        (0x1CC00, 36), (0x1E000, 64), (0x20000, 8), (0x2A600, 8), (0x2EB00, 10),
        (0x30000, 4), (0x31300, 4), (0xE0000, 4)]
SEASONING = " \n.,-'\"1 9_é中"
BLANKS = [0x20, 0x20, 0x20, 0x9, 0xA, 0xD, 0xB, 0xC, 0x1C, 0x1F, 0x85, 0xA0, 0x1680,
          0x180E, 0x2003, 0x2009, 0x200B, 0x2028, 0x2029, 0x202F, 0x205F, 0x2060,
          0x3000, 0xFEFF, 0x0, 0x1, 0x7, 0x8, 0x1B, 0x7F, 0x80, 0x9F, 0x2581, 0x61]
NUMBERS = [0x30, 0x31, 0x32, 0x35, 0x39, 0x2E, 0x2C, 0x20, 0x2D, 0xB2, 0xBD, 0x661, 0x6F5,
           0x967, 0x2167, 0x2460, 0x3007, 0x4E09, 0xFF11, 0x1D7D8, 0x10140, 0x1F101]
QUOTES = ["'", "'", "’", "s", "S", "t", "re", "VE", "ve", "ll", "LL", "m", "d", "D", " ",
          "ſ", "a", "'s", "K", "\u212a", "\"", "\n"]
MARKS = [0x300, 0x301, 0x308, 0x323, 0x327, 0x345, 0x5B0, 0x64B, 0x93C, 0x94D, 0xE38,
         0xF71, 0x1161, 0x11A8, 0x20D0, 0x3099, 0xFE0F, 0x302A, 0x1D165, 0x898]
BASES = "aeoAE u\u0915\u1100\uac00\u304b\u05d0\u0627\u00e9\u0344\u0958\u2126\ufb01"


class Rng:
    """splitmix64, as rng_next of src/base/clock.h."""

    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
        return (z ^ z >> 31) % n


WORDS = json.loads((OUT / "words.json").read_text())


def scalar(cp):
    """UTF-8; a surrogate becomes something that is none."""
    return chr(cp - 0x800 if 0xD800 <= cp < 0xE000 else cp).encode()


def row(r):
    n = r.below(sum(count for _, count in ROWS))
    for first, count in ROWS:
        if n < count:
            return first + 128 * n
        n -= count


def part(r, kind, base):
    """One bit of a text of that kind; base is the row that it is about."""
    if kind in (0, 1):
        return (r.below(4) and b" " or b"") + WORDS["prose"][r.below(len(WORDS["prose"]))].encode()
    if kind == 2:
        return WORDS["code"][r.below(len(WORDS["code"]))].encode()
    if kind == 3:
        return scalar(BLANKS[r.below(len(BLANKS))])
    if kind in (4, 5, 6):
        if r.below(5) == 0:
            return SEASONING[r.below(len(SEASONING))].encode()
        return scalar(base + r.below(128))
    if kind == 7:
        return scalar(r.below(0x110000))
    if kind == 8:
        return WORDS["emoji"][r.below(len(WORDS["emoji"]))].encode()
    if kind == 9:
        if r.below(3) == 0:
            return BASES[r.below(len(BASES))].encode()
        return scalar(MARKS[r.below(len(MARKS))])
    if kind == 10:
        return bytes([r.below(256) if r.below(2) else 0x20 + r.below(95)])
    if kind == 11:
        return scalar(NUMBERS[r.below(len(NUMBERS))])
    if kind == 12:
        return WORDS["special"][r.below(len(WORDS["special"]))].encode()
    if kind == 13:
        one = part(r, r.below(13), base)
        return one * (1 + r.below(12) * r.below(12))
    if kind == 14:
        return QUOTES[r.below(len(QUOTES))].encode()
    return part(r, r.below(15), base)


def text(i):
    """Bytes of text i."""
    if i >= TEXTS:
        return document(i - TEXTS)
    r = Rng(i + 1)
    kind, base, count = r.below(16), row(r), r.below(24)
    return b"".join(part(r, kind, base) for _ in range(count))


def document(k):
    """k = 0: texts one after another; 1: long runs, a hundred kilobytes each."""
    out, i = b"", 0
    if k == 1:
        return b"".join((s.encode() * 100_000)[:100_000 // len(s.encode()) * len(s.encode())]
                        for s in ("a", " ", "1", "中", "\n", ".", "é", "ab", "'s", "😀", "\u0301"))
    while len(out) < DOCUMENT_BYTES:
        out += text(i * 7 % TEXTS)
        i += 1
    return out


def hash_ids(h, ids):
    for i in ids:
        h = ((h ^ i) * 0x100000001B3) & MASK
    return ((h ^ MASK) * 0x100000001B3) & MASK


def hash_bytes(h, data):
    """Eight bytes at a time, the last ones filled up with zeros."""
    for at in range(0, len(data), 8):
        h = ((h ^ int.from_bytes(data[at:at + 8], "little")) * 0x100000001B3) & MASK
    return ((h ^ len(data)) * 0x100000001B3) & MASK


START = 0xCBF29CE484222325


def blocks():
    """First and number of the texts of each block."""
    return ([(at, BLOCK) for at in range(0, TEXTS, BLOCK)] +
            [(TEXTS + k, 1) for k in range(DOCUMENTS)])
