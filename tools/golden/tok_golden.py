#!/usr/bin/env python3
"""Writes tests/golden/tokenizer/: hard texts and what Hugging Face makes of them.

    BATON_TEST_DATA=DIR tools/golden/tok_golden.py

needs pip package tokenizers (0.23.3 made what is committed). DIR holds the folders
qwen3, llama3_1 and deepseek_v3 with a tokenizer.json each; those whose file is not
there are left as they are. The tiny_* tokenizers are trained here, on the
words of this file, with the settings of the four families: they let the
tests run where DIR is not.

    texts.json        [text, ...]
    FAMILY.ids        one line of ids for each text, as HF encodes it with
                      add_special_tokens=False
    tiny_FAMILY.json  a tokenizer.json of about 300 tokens
"""
import json
import os
import pathlib
import random

import tokenizers
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models,
                        normalizers, pre_tokenizers, processors, trainers)

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/golden/tokenizer"
FAMILIES = ("qwen3", "llama3_1", "deepseek_v3")

QWEN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA = QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
DEEPSEEK = (r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+",
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
            "[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|"
            "\\s*[\r\n]+|\\s+(?!\\S)|\\s+")

HAND = """
Hello, my dog is cute|The quick  brown   fox|I'm, you're, WE'LL, they'Ve 'tis 'S 'ſ|don't can't won't
int main(void) { return 0; }|for (i = 0; i < n; i++) a[i] += b[i] * 1.5e-3f;|def f(x):\\n\\treturn x**2  # ok\\n
1234567890|3.14159|0x1F600|1,234,567.89|12345 67 8|v1.2.3-rc4|²³½ⅧⅫ|٠١٢٣٤٥|१२३|𝟘𝟙𝟚|1️⃣2️⃣
    four spaces|\\t\\ttabs|line\\nline\\r\\nline\\rline|\\n\\n\\n|  \\n  \\n  x|trailing   |   |\\u00a0nbsp\\u00a0|\\u3000wide|\\u2028ls\\u2029ps|\\u0085nel|a\\u200bb\\ufeffc|\\x0b\\x0c\\x1c\\x1f
日本語のテキスト|中文字符，标点。|한국어 텍스트|العربية|עברית|हिन्दी पाठ|ไทยภาษา|Ελληνικά|Русский текст|Türkçe İıĞğ|Tiếng Việt|ქართული|አማርኛ|தமிழ்|ひらがなカタカナー漢字
café|cafe\\u0301|Å|\\u212b|ﬁ ﬂ ß ẞ|e\\u0301\\u0323|\\u1112\\u1161\\u11ab|각|\\u0344|q\\u0307\\u0323|\\u0958|\\u2126|\\u0374|a\\u0345\\u0898\\u0301|\\ufb1d|\\U0001d15e
😀|👩‍👩‍👧‍👦|🏳️‍🌈|👍🏽|🇩🇪🇫🇷|❤️|☺|🤷🏿‍♂️ shrug|→←↑↓|∑∫√∞|€£¥₹|①②③|█▓▒░|︎️
<|im_start|>user\\nhi<|im_end|>|<|begin_of_text|>x<|eot_id|>|<｜User｜>hi<｜Assistant｜>|<|im_start|<|im_end|>|<think>hm</think>|< |im_start|>|<|endoftext|><|endoftext|>|<|im_start|>  <|im_end|>|a<tool_call>b|<<|im_end|>>
https://example.com/a?b=c&d=e#f|user@example.org|C:\\\\path\\\\file.txt|/usr/bin/env|--flag=value|foo_bar|FooBarBaz|SCREAMING_SNAKE|$var ${x} %d {{y}}|<div class="a">&amp;</div>
...|!!!???|"quoted" 'single' `back`|——–-|«»„“”‘’|()[]{}<>|@#$%^&*|~~~~|====|----|____|\\\\n not newline|a.b.c,d;e:f
\\x00|\\x01\\x02|\\x7f|\\u0080\\u009f|\\ud7ff|\\ue000|\\uffff|\\U0010ffff|\\U000e0001|\\U0001f1e6|\\u00ad soft|\\u202ertl\\u202c|\\u180e|\\U00031350\\U0002ebf0\\U000105c0
x = 'it''s'|'''|'s's's|'S'T'RE|a's b't|'ll'll|'d've|’s ’t|O'Neill's|rock'n'roll|'|''|' s
"""


def hand_texts():
    texts = [""]
    for line in HAND.strip("\n").split("\n"):
        for cell in line.split("|"):
            texts.append(cell.encode("ascii", "backslashreplace").decode("unicode_escape"))
        if "<|" in line:
            texts.append(line)
    for letter in "a 1.é中\n'":
        texts += [letter * n for n in (2, 3, 7, 70, 300)]
    return texts


def random_texts(count):
    rng = random.Random(20240)
    pools = [[chr(c) for c in range(32, 127)], list("aeiou strnlAES'., "),
             list(" \t\n\r\u00a0\u2003\u3000"), list("0123456789٣४"),
             [chr(c) for c in range(0xa0, 0x250)],
             [chr(c) for c in range(0x300, 0x370)],
             [chr(c) for c in range(0x4e00, 0x4f00)],
             [chr(c) for c in range(0x0900, 0x0980)],
             [chr(c) for c in range(0x1f300, 0x1f650)] + ["\u200d", "\ufe0f"],
             ["<|im_start|>", "<|eot_id|>", "<｜User｜>", "<think>", "the", "ing"]]
    return ["".join(rng.choice(rng.choice(pools)) for _ in range(rng.randint(1, 30)))
            for _ in range(count)]


def tiny(name):
    def split(pattern):
        return pre_tokenizers.Split(Regex(pattern), "isolated")

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    stages = {
        "qwen": [split(QWEN), byte_level],
        "llama": [split(LLAMA), byte_level],
        "deepseek": [split(p) for p in DEEPSEEK] + [byte_level],
        "smollm": [pre_tokenizers.Digits(individual_digits=True),
                   pre_tokenizers.ByteLevel(add_prefix_space=False)],
    }[name]
    t = Tokenizer(models.BPE(ignore_merges=name == "llama"))
    if name == "qwen":
        t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre_tokenizers.Sequence(stages)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator([__doc__, HAND], trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False))
    t.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in
                          ("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<｜User｜>")])
    t.add_tokens([AddedToken("<think>", normalized=False),
                  AddedToken("caf\u00e9!", normalized=True),
                  AddedToken("word", single_word=True, normalized=False),
                  AddedToken("<m>", lstrip=True, rstrip=True, normalized=False)])
    if name == "llama":
        bos = t.token_to_id("<|im_start|>")
        t.post_processor = processors.Sequence([
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<|im_start|> $A",
                                          special_tokens=[("<|im_start|>", bos)])])
    return t


def write_ids(name, tokenizer, texts):
    lines = [" ".join(map(str, tokenizer.encode(t, add_special_tokens=False).ids))
             for t in texts]
    (OUT / f"{name}.ids").write_text("\n".join(lines) + "\n")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    texts = hand_texts() + random_texts(150)
    texts += ["a word b", "sword word", "words", "x <m> y", "<m><m>", "cafe\u0301!", "  <m>\n"]
    (OUT / "texts.json").write_text(json.dumps(texts, indent=0) + "\n")
    for name in ("qwen", "llama", "deepseek", "smollm"):
        t = tiny(name)
        (OUT / f"tiny_{name}.json").write_text(json.dumps(
            json.loads(t.to_str()), ensure_ascii=False, indent=None,
            separators=(",", ":")) + "\n")
        write_ids(f"tiny_{name}", t, texts)
    for family in FAMILIES:
        path = pathlib.Path(os.environ.get("BATON_TEST_DATA", "/nowhere"), family,
                            "tokenizer.json")
        if path.exists():
            write_ids(family, Tokenizer.from_file(str(path)), texts)
    (OUT / "VERSIONS").write_text(f"tokenizers {tokenizers.__version__}\n")


main()
