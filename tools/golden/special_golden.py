#!/usr/bin/env python3
"""Writes tests/golden/template/special.json: which special tokens a folder's files name.

    tools/golden/special_golden.py

needs the pip package transformers (5.23.0 made what is committed). Each case has the
contents of a folder's tokenizer_config.json and special_tokens_map.json, beside
tests/golden/tokenizer/tiny_qwen.json as tokenizer.json, and what transformers makes of
them: the text of TEMPLATE, and the ids of bos and eos (-1: none).
"""
import json
import pathlib
import shutil
import tempfile

from transformers import PreTrainedTokenizerFast

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
TEMPLATE = "".join("%s={{ %s_token }};" % (n, n) for n in NAMES)

START, END, EOT, USER, THINK = ("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<｜User｜>",
                                "<think>")


def token(content, **more):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False,
            "single_word": False, **more}


def typed(content):
    return {"__type": "AddedToken", **token(content)}


DECODER = {"320": token(START, special=True)}
CASES = [
    ({"bos_token": START, "eos_token": END, "pad_token": EOT}, None),
    ({"bos_token": None, "eos_token": typed(END), "unk_token": None}, None),
    # the map is read where the config does not describe the added tokens,
    ({"bos_token": START, "eos_token": END}, {"eos_token": EOT, "pad_token": USER}),
    ({"eos_token": END}, {"eos_token": token(EOT), "bos_token": token(START, lstrip=True)}),
    ({"bos_token": START, "eos_token": END}, {"eos_token": None, "bos_token": EOT}),
    (None, {"bos_token": START, "eos_token": token(END), "additional_special_tokens": [EOT]}),
    ({}, {"unk_token": START, "sep_token": END, "pad_token": EOT, "cls_token": USER,
          "mask_token": token(THINK)}),
    # and otherwise not
    ({"eos_token": END, "added_tokens_decoder": DECODER},
     {"eos_token": EOT, "pad_token": EOT}),
    ({"eos_token": END, "pad_token": EOT, "added_tokens_decoder": {}},
     {"eos_token": EOT, "pad_token": USER}),
    ({"bos_token": typed(START), "added_tokens_decoder": DECODER}, {"bos_token": EOT}),
    (None, {}),
    ({}, None),
]


def run(config, names):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        shutil.copy(ROOT / "tests/golden/tokenizer/tiny_qwen.json", folder / "tokenizer.json")
        if config is not None:
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
        if names is not None:
            (folder / "special_tokens_map.json").write_text(json.dumps(names))
        t = PreTrainedTokenizerFast.from_pretrained(str(folder))
        text = t.apply_chat_template([{"role": "user", "content": "hi"}],
                                     chat_template=TEMPLATE, tokenize=False)
        ids = [-1 if i is None else i for i in (t.bos_token_id, t.eos_token_id)]
        return {"config": config, "map": names, "text": text, "bos": ids[0],
                "eos": ids[1]}


def main():
    cases = [run(*case) for case in CASES]
    out = ROOT / "tests/golden/template/special.json"
    out.write_text(json.dumps({"template": TEMPLATE, "cases": cases}, indent=1,
                              ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
