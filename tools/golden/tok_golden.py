#!/usr/bin/env python3
"""Writes tests/golden/tokenizer/: hard texts and what Hugging Face makes of them.

    BATON_TEST_DATA=DIR tools/golden/tok_golden.py [--train] [NAME ...]

needs the pip packages tokenizers, sentencepiece and gguf (VERSIONS says which made what is committed).
DIR holds the folders qwen3, llama3_1 and deepseek_v3 with a tokenizer.json each; those whose
file is not there are left as they are. smollm2 is rebuilt from the GGUF that tools/fetch-model
fetches. The tiny_* tokenizers are trained here, on the words of this file and of words.json,
with the settings of model families and with parts that no family of ours uses together: they
let the tests run where DIR is not. spm_bpe and spm_unigram are trained by
sentencepiece; the former encodes by itself, to which special tokens are ordinary text.
tok_models.py adds SentencePiece's own files. NAME limits the work to some.

A tokenizer that is there is used as it is, so that running this twice gives the same bytes:
Hugging Face's trainers come out differently each time, even on one thread. --train makes
new ones.

    texts.json        [text, ...]
    NAME.ids          one line of ids for each text, as HF encodes it with
                      add_special_tokens=False
    NAME.hashes       one line for each block of the texts of tok_texts.py: its first text, how
                      many, a hash of the ids and a hash of the ids decoded again
    tiny_NAME.json    a tokenizer.json of some hundred tokens
    spm_NAME.json     the arrays that a GGUF file has of such a model

tools/golden/tok_diff.py shows the ids where a hash differs.
"""
import importlib.metadata
import json
import os
import pathlib
import random
import subprocess
import sys
import types

import tok_models
import tok_texts
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


BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
BOS = ["<unk>", "<s>", "</s>"]
CORPUS = [__doc__, HAND] + [" ".join(tok_texts.WORDS[k][i:] + tok_texts.WORDS[k][:i])
                            for k in ("prose", "code") for i in range(0, 90, 30)]


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def byte_level(name):
    stages = {
        "qwen": [split(QWEN), BYTE_LEVEL],
        "llama": [split(LLAMA), BYTE_LEVEL],
        "deepseek": [split(p) for p in DEEPSEEK] + [BYTE_LEVEL],
        "smollm": [pre_tokenizers.Digits(individual_digits=True),
                   pre_tokenizers.ByteLevel(add_prefix_space=False)],
        "prefix": [pre_tokenizers.ByteLevel(add_prefix_space=True)],
        "other": [split(r"\d{1,2}|[A-Z]", "merged_with_previous"),
                  split(r"[.,;:]+", "contiguous"), split(QWEN, "removed", True), BYTE_LEVEL],
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


SPM_DECODER = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
               decoders.Strip(" ", 1, 0)]


def with_bytes(t):
    """The same with SentencePiece's 256 byte tokens behind the special ones."""
    spec = json.loads(t.to_str())
    model = spec["model"]
    names = [f"<0x{b:02X}>" for b in range(256)]
    if model["type"] == "BPE":
        old = sorted(model["vocab"], key=model["vocab"].get)
        order = old[:3] + names + [w for w in old[3:] if w not in names]
        model["vocab"] = {w: i for i, w in enumerate(order)}
    else:
        model["vocab"][3:3] = [[n, 0.0] for n in names]
    model["byte_fallback"] = True
    return Tokenizer.from_str(json.dumps(spec))


def sentencepiece(name):
    """Llama 2's file as older and newer releases write it, one without byte tokens."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    if name == "metaspace":
        t.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    else:
        t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"),
                                             normalizers.Replace(" ", "▁")])
    train = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    train.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always", split=name != "joined")
    train.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=500, special_tokens=BOS, limit_alphabet=200, show_progress=False))
    t.model = train.model
    t.add_special_tokens([AddedToken(s, normalized=False, special=True) for s in BOS])
    if name != "joined":
        t = with_bytes(t)
    t.decoder = decoders.Sequence(SPM_DECODER)
    t.add_tokens([AddedToken("<think>", normalized=False),
                  AddedToken("caf\u00e9!", normalized=True)])
    t.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return t


def unigram(name):
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always")
    t.train_from_iterator(CORPUS, trainers.UnigramTrainer(
        vocab_size=600, unk_token="<unk>", special_tokens=BOS, show_progress=False))
    if name == "unigram_bytes":
        t = with_bytes(t)
        t.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Prepend("▁")])
        t.pre_tokenizer = pre_tokenizers.Metaspace("▁", "never", split=False)
        t.decoder = decoders.Sequence(SPM_DECODER)
    else:
        t.decoder = decoders.Metaspace("▁", "always")
    return t


def parts(name):
    """Steps of every other kind, put together as nobody does."""
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=False))
    more = name == "parts_more"
    t.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.Replace("--", "—")] if more else
        [normalizers.Strip(), normalizers.Lowercase(),
         normalizers.Replace(Regex(r"[\x00-\x08]+"), "")])
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.CharDelimiterSplit("a"),
         pre_tokenizers.Split(".", "merged_with_next"),
         pre_tokenizers.Punctuation("merged_with_previous"), pre_tokenizers.Whitespace(),
         pre_tokenizers.Digits()] if more else
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("contiguous"),
         pre_tokenizers.Digits(individual_digits=True),
         pre_tokenizers.Metaspace("▁", "first")])
    t.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=400, special_tokens=BOS, limit_alphabet=150, show_progress=False))
    t.decoder = decoders.Metaspace("▁", "first")
    t.add_tokens([AddedToken("CAF\u00c9!", normalized=True),
                  AddedToken("word", single_word=True, normalized=True)])
    t.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1))
    return t


TINY = {"qwen": byte_level, "llama": byte_level, "deepseek": byte_level, "smollm": byte_level,
        "prefix": byte_level, "other": byte_level, "spm": sentencepiece,
        "metaspace": sentencepiece, "joined": sentencepiece, "unigram": unigram,
        "unigram_bytes": unigram, "parts": parts, "parts_more": parts}


def smollm2_path():
    return subprocess.run([ROOT / "tools/fetch-model"], check=True, stdout=subprocess.PIPE,
                          text=True).stdout.strip()


def smollm2():
    """SmolLM2's tokenizer as its GGUF and its split's name have it."""
    import gguf
    fields = gguf.GGUFReader(smollm2_path()).fields
    tokens, merges, kinds = (fields[f"tokenizer.ggml.{k}"].contents()
                             for k in ("tokens", "merges", "token_type"))
    t = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(tokens)},
                             merges=[tuple(m.split(" ")) for m in merges]))
    t.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False)])
    t.decoder = decoders.ByteLevel()
    t.add_special_tokens([AddedToken(w, normalized=False, special=True)
                          for w, kind in zip(tokens, kinds) if kind == 3])
    return t


class SentencePiece:
    """A model trained with the sentencepiece package, encoding by itself, with the face of a
    Tokenizer. Its arrays are those of a GGUF file."""

    def __init__(self, kind):
        import sentencepiece
        path = OUT / f"spm_{kind}.json"
        model = (self.from_arrays(json.loads(path.read_text())) if path.exists() and not TRAIN
                 else tok_models.train(kind, CORPUS, split_digits=kind == "bpe",
                                       user_defined_symbols=[]))
        self.kind, self.sp = kind, sentencepiece.SentencePieceProcessor(model_proto=model)

    @staticmethod
    def from_arrays(arrays):
        message = tok_models.sentencepiece_model_pb2.ModelProto()
        for piece, score, kind in zip(arrays["tokens"], arrays["scores"], arrays["types"]):
            message.pieces.add(piece=piece, score=score, type=kind)
        message.trainer_spec.model_type = {"t5": 1, "llama": 2}[arrays["model"]]
        message.trainer_spec.byte_fallback = True
        message.normalizer_spec.remove_extra_whitespaces = False
        return message.SerializeToString()

    def arrays(self):
        sp = self.sp
        types = [2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 6 if sp.is_byte(i) else 1
                 for i in range(len(sp))]
        return {"model": {"bpe": "llama", "unigram": "t5"}[self.kind],
                "bos": sp.bos_id(), "eos": sp.eos_id(), "unk": sp.unk_id(),
                "tokens": [sp.id_to_piece(i) for i in range(len(sp))], "types": types,
                "scores": [sp.get_score(i) for i in range(len(sp))]}

    def summed_in_doubles(self):
        """sentencepiece adds a unigram's scores in single precision, Hugging Face and llama.cpp
        in double: with sums so near to one another they part. We go with the latter, but not
        where Hugging Face takes "<s>" and "<0x0A>" in a text for those tokens."""
        a = self.arrays()
        vocab = [("\U0010fffe" * 9 + w if kind in (2, 3) else w, -200.0 if kind == 6 else score)
                 for w, kind, score in zip(a["tokens"], a["types"], a["scores"])]
        t = Tokenizer(models.Unigram(vocab, a["unk"], byte_fallback=True))
        t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"),
                                             normalizers.Replace(" ", "▁")])
        t.decoder = decoders.Sequence(SPM_DECODER)
        return t

    def encode(self, text, add_special_tokens=False):
        return types.SimpleNamespace(ids=self.sp.encode(text))

    def encode_batch(self, texts, add_special_tokens=False):
        return [self.encode(t) for t in texts]

    def decode_batch(self, ids, skip_special_tokens=False):
        return [self.sp.decode(i) for i in ids]


def write_hashes(name, tokenizer):
    lines = []
    for first, count in tok_texts.blocks():
        texts = [tok_texts.text(i).decode(errors="replace") for i in range(first, first + count)]
        ids = [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]
        back = tokenizer.decode_batch(ids, skip_special_tokens=False)
        id_hash = text_hash = tok_texts.START
        for some, text in zip(ids, back):
            id_hash = tok_texts.hash_ids(id_hash, some)
            text_hash = tok_texts.hash_bytes(text_hash, text.encode())
        lines.append(f"{first} {count} {id_hash:016x} {text_hash:016x}\n")
    (OUT / f"{name}.hashes").write_text("".join(lines))
    print(name, flush=True)


def write_ids(name, tokenizer, texts):
    lines = [" ".join(map(str, tokenizer.encode(t, add_special_tokens=False).ids))
             for t in texts]
    (OUT / f"{name}.ids").write_text("\n".join(lines) + "\n")


def real(family):
    path = pathlib.Path(os.environ.get("BATON_TEST_DATA", "/nowhere"), family, "tokenizer.json")
    return Tokenizer.from_file(str(path)) if path.exists() else None


TRAIN = "--train" in sys.argv


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in sys.argv[1:] if name != "--train"]
    texts = hand_texts() + random_texts(150)
    texts += ["a word b", "sword word", "words", "x <m> y", "<m><m>", "cafe\u0301!", "  <m>\n"]
    (OUT / "texts.json").write_text(json.dumps(texts, indent=0) + "\n")
    made = {f"tiny_{name}": lambda name=name, make=make: make(name) for name, make in TINY.items()}
    made |= {family: lambda family=family: real(family) for family in FAMILIES}
    made["smollm2"] = smollm2
    made |= {f"spm_{kind}": lambda kind=kind: SentencePiece(kind) for kind in ("bpe", "unigram")}
    made |= {name: lambda make=make: make(CORPUS) for name, make in tok_models.MADE.items()}
    for name, make in made.items():
        if wanted and name not in wanted:
            continue
        path = OUT / f"{name}.json"
        if name.startswith("tiny_") and (TRAIN or not path.exists()):
            path.write_text(json.dumps(json.loads(make().to_str()), ensure_ascii=False,
                                       indent=None, separators=(",", ":")) + "\n")
        t = Tokenizer.from_file(str(path)) if name.startswith("tiny_") else make()
        if t is None:
            continue
        if isinstance(t, SentencePiece):
            path.write_text(json.dumps(t.arrays(), ensure_ascii=False, separators=(",", ":")) +
                            "\n")
            t = t.summed_in_doubles() if t.kind == "unigram" else t
        if not isinstance(t, tok_models.Own):
            write_ids(name, t, texts)
        write_hashes(name, t)
        if isinstance(t, tok_models.InDoubles):
            print(f"{name}: {t.different} texts cut otherwise by sentencepiece's single precision")
    (OUT / "VERSIONS").write_text("".join(
        f"{package} {importlib.metadata.version(package)}\n"
        for package in ("tokenizers", "sentencepiece", "transformers", "gguf")))


if __name__ == "__main__":
    main()
