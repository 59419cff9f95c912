#!/usr/bin/env python3
"""Prints the tables of src/text/unicode.c and src/text/unicode_form.c.

Asks Hugging Face's tokenizers (pip install tokenizers) how it classes each code
point, and which marks its NFC does not know, and subtracts what utf8proc (the
system's libutf8proc.so.2) already says. Written for tokenizers 0.23.3 and
utf8proc 2.8.0; run it again when either changes.
"""
import ctypes
import string

from tokenizers import Regex, normalizers, pre_tokenizers

SCALARS = [c for c in range(1, 0x110000) if not 0xD800 <= c < 0xE000]
utf8proc = ctypes.CDLL("libutf8proc.so.2")
utf8proc.utf8proc_category_string.restype = ctypes.c_char_p
for name in ("utf8proc_NFC", "utf8proc_NFD"):
    getattr(utf8proc, name).restype = ctypes.c_void_p
libc = ctypes.CDLL(None)


def normal(form, text):
    p = getattr(utf8proc, form)(text.encode())
    out = ctypes.string_at(p).decode()
    libc.free(ctypes.c_void_p(p))
    return out


def matching(pattern):
    split = pre_tokenizers.Split(Regex(pattern), "removed")
    found = set()
    for i in range(0, len(SCALARS), 4096):
        some = SCALARS[i:i + 4096]
        kept = set()
        for piece, _ in split.pre_tokenize_str("".join(map(chr, some))):
            kept.update(piece)
        found.update(c for c in some if chr(c) not in kept)
    return found


def show(name, code_points):
    ranges = []
    for c in sorted(code_points):
        if ranges and ranges[-1][1] == c - 1:
            ranges[-1][1] = c
        else:
            ranges.append([c, c])
    print(name, ", ".join(f"{{{a:#x}, {b:#x}}}" for a, b in ranges))


for letter in "LNMPS":
    ours = {c for c in SCALARS
            if utf8proc.utf8proc_category_string(c)[:1] == letter.encode()}
    theirs = matching(rf"\p{{{letter}}}")
    show(f"{letter}: new", theirs - ours)
    show(f"{letter}: gone", ours - theirs)
show("white space:", matching(r"\s"))

nfc = normalizers.NFC().normalize_str
unknown = set()
for c in SCALARS:
    mark = chr(c)
    for text in ("a\u0301" + mark + "\u0323b", "a\u0345" + mark, mark):
        if nfc(text) != normal("utf8proc_NFC", text):
            unknown.add(c)
    parts = normal("utf8proc_NFD", mark)
    if parts != mark and nfc(parts) != normal("utf8proc_NFC", parts):
        unknown.add(ord(parts[-1]))
show("NFC: unknown", unknown)

# Characters that the normalizer's older Unicode does not take apart.
OPTIONS = {"NFD": 2 | 16, "NFKC": 2 | 8 | 4, "NFKD": 2 | 16 | 4}  # STABLE, (DE)COMPOSE, COMPAT
utf8proc.utf8proc_map.restype = ctypes.c_ssize_t
for form, options in OPTIONS.items():
    theirs = getattr(normalizers, form)().normalize_str
    found = set()
    for c in SCALARS:
        p, text = ctypes.c_void_p(), chr(c).encode()
        n = utf8proc.utf8proc_map(text, len(text), ctypes.byref(p), options)
        if ctypes.string_at(p, n).decode() != theirs(chr(c)):
            found.add(c)
        libc.free(p)
    show(f"{form}: unknown alone", found)

lower = normalizers.Lowercase().normalize_str
for c in SCALARS:
    if lower(chr(c)) != chr(utf8proc.utf8proc_tolower(c)):
        print(f"lower {c:#x}:", " ".join(f"{ord(x):#x}" for x in lower(chr(c))))

kept = set()
splitter = pre_tokenizers.Punctuation("removed")
for i in range(0, len(SCALARS), 4096):
    for piece, _ in splitter.pre_tokenize_str("".join(map(chr, SCALARS[i:i + 4096]))):
        kept.update(map(ord, piece))
ours = {c for c in SCALARS
        if utf8proc.utf8proc_category_string(c)[:1] == b"P" or chr(c) in string.punctuation}
show("Punctuation: unknown", ours & kept)
show("Punctuation: besides", set(SCALARS) - kept - ours)
