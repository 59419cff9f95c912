"""SentencePiece's own files for tok_golden.py: tokenizers with a tokenizer.model and no
tokenizer.json, and a tokenizer.json with its table of replacements.

    spm_NAME/             a model folder: tokenizer.model, perhaps tokenizer_config.json
    tiny_precompiled.json a unigram of Hugging Face's behind the normalizer Precompiled

Each is trained here if it is not there yet. What is expected of them:

    spm_llama, spm_legacy   transformers' AutoTokenizer of the folder (its LlamaTokenizer)
    spm_own, spm_rules      sentencepiece itself, to which special tokens are ordinary text
    spm_nfkc                likewise, but a unigram's scores are summed in double precision, as
                            Hugging Face and llama.cpp do; where sentencepiece's sums in single
                            precision choose otherwise is counted and printed
"""
import io
import json
import sys
import tempfile
import types
import unicodedata

import sentencepiece
import tok_texts
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

OUT = tok_texts.OUT
SYMBOLS = ["<think>", "[INST]", "café!", "▁▁"]


def rules():
    """A table small enough to be kept: some of NFKC, and keys that are in one another's way."""
    table = {c: unicodedata.normalize("NFKC", c) for c in map(chr, [
        *range(0xA0, 0x600), *range(0x2000, 0x2070), *range(0x2460, 0x2474),
        *range(0x3000, 0x3040), *range(0xFB00, 0xFB07), *range(0xFF01, 0xFF5F), 0xFDFA])}
    for c in map(chr, range(0xC0, 0x250)):
        parts = unicodedata.normalize("NFD", c)
        if len(parts) == 2:
            table[parts] = c
    table |= {chr(c): "" for c in [*range(1, 9), 0x7F, 0x200B, 0xFEFF]}
    table |= {c: " " for c in "\t\n\x0b\x0c\r\x85\u00a0\u1680\u2028\u3000"}
    table |= {"\r\n": " ", "ab": "X", "abc": "Yy", "the ": "the ", "😀": ":)", "é!": "e"}
    return "".join(" ".join(f"{ord(c):X}" for c in a) + "\t" +
                   " ".join(f"{ord(c):X}" for c in b) + "\n"
                   for a, b in sorted(table.items()) if a != b)


def train(kind, corpus, **how):
    """Bytes of a tokenizer.model."""
    model = io.BytesIO()
    settings = dict(vocab_size=1000, byte_fallback=True, normalization_rule_name="identity",
                    remove_extra_whitespaces=False, character_coverage=0.98, minloglevel=2,
                    hard_vocab_limit=False, num_threads=1, unk_surface="<unk>",
                    user_defined_symbols=SYMBOLS)
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(corpus * 4),
                                             model_writer=model, model_type=kind,
                                             **settings | how)
    return model.getvalue()


def by_rules(kind, corpus, **how):
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as table:
        table.write(rules())
        table.flush()
        return train(kind, corpus, normalization_rule_name="", normalization_rule_tsv=table.name,
                     remove_extra_whitespaces=True, **how)


def proto(model):
    message = sentencepiece_model_pb2.ModelProto()
    message.ParseFromString(model)
    return message


def folder(name, model, config=None):
    """A model's folder and the model in it: the one that is there, or what model() trains."""
    to = OUT / name
    to.mkdir(exist_ok=True)
    if "--train" in sys.argv or not (to / "tokenizer.model").exists():
        (to / "tokenizer.model").write_bytes(model())
    if config:
        (to / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    return to, (to / "tokenizer.model").read_bytes()


class Own:
    """A model as sentencepiece encodes and decodes it."""

    def __init__(self, model):
        self.sp = sentencepiece.SentencePieceProcessor(model_proto=model)

    def encode(self, text, add_special_tokens=False):
        return types.SimpleNamespace(ids=self.sp.encode(text))

    def encode_batch(self, texts, add_special_tokens=False):
        return [self.encode(t) for t in texts]

    def decode_batch(self, ids, skip_special_tokens=False):
        return [self.sp.decode(i) for i in ids]


class InDoubles(Own):
    """The same with Hugging Face's unigram behind sentencepiece's normalizer."""

    def __init__(self, model):
        super().__init__(model)
        message = proto(model)
        # What sentencepiece never finds in a text gets a name that is in none.
        vocab = [("\U0010fffe" * 9 + p.piece if p.type in (2, 3, 4) else p.piece, p.score)
                 for p in message.pieces]
        self.symbols = {p.piece: i for i, p in enumerate(message.pieces) if p.type == 4}
        self.hf = Tokenizer(models.Unigram(vocab, message.trainer_spec.unk_id))
        self.hf.add_tokens(list(self.symbols))
        self.different = 0

    def encode(self, text, add_special_tokens=False):
        ids, rest = [], self.sp.normalize(text)
        own = self.sp.encode(text)
        while rest:
            at, symbol = min(((rest.find(s), -len(s), s) for s in self.symbols if s in rest),
                             default=(len(rest), 0, ""))[::2]
            ids += self.hf.encode(rest[:at], add_special_tokens=False).ids if at else []
            ids += [self.symbols[symbol]] if symbol else []
            rest = rest[at + len(symbol):]
        self.different += ids != own
        return types.SimpleNamespace(ids=ids)


class Transformers:
    """A model folder as transformers reads it."""

    def __init__(self, path):
        import transformers
        self.t = transformers.AutoTokenizer.from_pretrained(path)
        self.encode = self.t._tokenizer.encode
        self.encode_batch = self.t._tokenizer.encode_batch
        self.decode_batch = self.t._tokenizer.decode_batch


def llama(name, corpus, legacy):
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": legacy, "bos_token": "<s>",
              "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True,
              "add_eos_token": False,
              "added_tokens_decoder": {str(i): {
                  "content": text, "lstrip": False, "rstrip": text == "<m>",
                  "normalized": False, "single_word": text == "word", "special": i < 3}
                  for i, text in ((0, "<unk>"), (1, "<s>"), (2, "</s>"), (3, "<think>"),
                                  (4, "[INST]"), (5, "café!"), (6, "▁▁"),
                                  (1000, "<|im_end|>"), (1001, "word"), (1002, "<m>"))}}
    return Transformers(folder(name, lambda: train("bpe", corpus, split_digits=True), config)[0])


def one(name, kind):
    def make(corpus):
        def model():
            if name == "spm_nfkc":
                return train(kind, corpus, byte_fallback=False, remove_extra_whitespaces=True,
                             normalization_rule_name="nmt_nfkc")
            return by_rules(kind, corpus) if name == "spm_rules" else train(kind, corpus,
                                                                            split_digits=True)
        return (InDoubles if kind == "unigram" else Own)(folder(name, model)[1])
    return make


def precompiled(corpus):
    """As XLM-R's and T5's tokenizer.json, with the table of spm_rules."""
    table = proto(by_rules("unigram", corpus)).normalizer_spec.precompiled_charsmap
    t = Tokenizer(models.Unigram())
    t.normalizer = normalizers.Sequence([
        normalizers.Precompiled(table), normalizers.Strip(left=False, right=True),
        normalizers.Replace(Regex(" {2,}"), "▁")])
    t.pre_tokenizer = pre_tokenizers.Metaspace("▁", "always")
    t.train_from_iterator(corpus, trainers.UnigramTrainer(
        vocab_size=600, unk_token="<unk>", special_tokens=["<unk>", "<s>", "</s>"],
        show_progress=False))
    t.decoder = decoders.Metaspace("▁", "always")
    return t


MADE = {"tiny_precompiled": precompiled, "spm_own": one("spm_own", "bpe"),
        "spm_rules": one("spm_rules", "bpe"), "spm_nfkc": one("spm_nfkc", "unigram"),
        "spm_llama": lambda corpus: llama("spm_llama", corpus, False),
        "spm_legacy": lambda corpus: llama("spm_legacy", corpus, True)}
