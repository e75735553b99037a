"""Write real vocabularies as tokenizer.json files into the cache folder, to compare with tokens.py.

- `minilm.json`: WordPiece, 30,522 entries; weights/moderation-encoder/tokenizer.json (Apache-2.0)
- `gpt-2.json`: byte-level BPE, 50,257 entries; ggml-vocab-gpt-2.gguf (GPT-2: MIT)
- `qwen2.json`: byte-level BPE, 151,646 entries; ggml-vocab-qwen2.gguf (Qwen2: Apache-2.0)
- `xlm-roberta.json`: Unigram, 250,002 entries; ggml-vocab-nomic-bert-moe.gguf, a model with the
  vocabulary of XLM-RoBERTa (MIT)
- `vectors.inp`: 47 texts for `tokens.py --split`; ggml-vocab-gpt-2.gguf.inp (llama.cpp: MIT)

The ggml files are in the PyPI source archive llama-cpp-python 0.3.16, pinned by its sha256.
None of this is part of the repository. The ids of the vectors are compared with those in the
archive, which llama.cpp's authors made with transformers.

    pip install -r requirements.txt gguf==0.19.0
    python vocabularies.py
"""

import argparse
import base64
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import gguf
from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parent.parent.parent
SDIST = "llama_cpp_python-0.3.16.tar.gz"
SDIST_SHA256 = "34ed0f9bd9431af045bb63d9324ae620ad0536653740e9bb163a2e1fcb973be6"
MODELS = "llama_cpp_python-0.3.16/vendor/llama.cpp/models/ggml-vocab-"
SEPARATOR = "\n__ggml_vocab_test__\n"
NORMAL, CONTROL = 1, 3
XLM_ROBERTA_SIZE = 250_002

QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)


def default_cache() -> Path:
    """Returns $INFER_CACHE (default: ~/.cache/infer)."""
    root = os.environ.get("INFER_CACHE")
    return Path(root) if root else Path.home() / ".cache" / "infer"


def archive(packages: Path) -> Path:
    """Returns the source archive in `packages`; downloads it with pip if it is missing."""
    kept = packages / SDIST
    if not kept.is_file():
        packages.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += [
            "--no-binary",
            "llama-cpp-python",
            "--dest",
            packages,
            "llama-cpp-python==0.3.16",
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = hashlib.sha256(kept.read_bytes()).hexdigest()
    if found != SDIST_SHA256:
        raise ValueError(f"`{kept}`: expected sha256 {SDIST_SHA256}, found {found}; delete it")
    return kept


def fields(path: Path) -> dict:
    """Returns the metadata `tokenizer.ggml.*` of a GGUF file, by the last part of the name."""
    reader = gguf.GGUFReader(path)
    prefix = "tokenizer.ggml."
    return {
        key.removeprefix(prefix): field.contents()
        for key, field in reader.fields.items()
        if key.startswith(prefix)
    }


def document(**parts) -> dict:
    """Returns the JSON of a tokenizer.json, with null for the parts that are not given."""
    names = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    return {"version": "1.0", "added_tokens": []} | dict.fromkeys(names) | parts


def control_token(number: int, content: str) -> dict:
    """Returns the entry of `added_tokens` for a control token."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, **flags, "special": True}


def byte_level(meta: dict, words: str | None) -> dict:
    """Returns a byte-level BPE; `words` splits a text, by default as GPT-2 does."""
    pre_tokenizer = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": not words,
    }
    normalizer = None
    if words:
        normalizer = {"type": "NFC"}
        split = {
            "type": "Split",
            "pattern": {"Regex": words},
            "behavior": "Isolated",
            "invert": False,
        }
        pre_tokenizer = {"type": "Sequence", "pretokenizers": [split, pre_tokenizer]}
    tokens = list(enumerate(zip(meta["tokens"], meta["token_type"])))
    return document(
        added_tokens=[
            control_token(number, token) for number, (token, kind) in tokens if kind == CONTROL
        ],
        normalizer=normalizer,
        pre_tokenizer=pre_tokenizer,
        decoder={
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        model={
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: number for number, (token, kind) in tokens if kind == NORMAL},
            "merges": [merge.split(" ", 1) for merge in meta["merges"]],
        },
    )


def unigram(meta: dict) -> dict:
    """Returns XLM-RoBERTa's Unigram, with the parts of its published tokenizer.json.

    The file has unused entries at the end.
    """
    tokens = meta["tokens"][:XLM_ROBERTA_SIZE]
    charsmap = base64.b64encode(bytes(meta["precompiled_charsmap"])).decode()
    special = [0, 1, 2, 3, XLM_ROBERTA_SIZE - 1]
    added = [control_token(number, tokens[number]) for number in special]
    added[-1]["lstrip"] = True  # `<mask>`

    def token(content: str) -> dict:
        return {"SpecialToken": {"id": content, "type_id": 0}}

    def sequence(name: str) -> dict:
        return {"Sequence": {"id": name, "type_id": 0}}

    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return document(
        added_tokens=added,
        normalizer={"type": "Precompiled", "precompiled_charsmap": charsmap},
        pre_tokenizer={
            "type": "Sequence",
            "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace],
        },
        post_processor={
            "type": "TemplateProcessing",
            "single": [token("<s>"), sequence("A"), token("</s>")],
            "pair": [
                token("<s>"),
                sequence("A"),
                token("</s>"),
                token("</s>"),
                sequence("B"),
                token("</s>"),
            ],
            "special_tokens": {
                content: {"id": content, "ids": [number], "tokens": [content]}
                for content, number in (("<s>", 0), ("</s>", 2))
            },
        },
        decoder=metaspace,
        model={
            "type": "Unigram",
            "unk_id": 3,
            "vocab": [[content, float(score)] for content, score in zip(tokens, meta["scores"])],
            "byte_fallback": False,
        },
    )


def wordpiece() -> dict:
    """Returns MiniLM's tokenizer without its fixed padding and truncation."""
    tokenizer = json.loads((ROOT / "weights/moderation-encoder/tokenizer.json").read_text())
    return tokenizer | {"padding": None, "truncation": None}


def differences(file: Path, inputs: str, expected: str) -> list[str]:
    """Returns the texts of the vectors whose ids differ, without control tokens."""
    tokenizer = Tokenizer.from_file(str(file))
    # The last text is empty, and so is its line of ids.
    rows = [[int(number) for number in line.split()] for line in expected.split("\n")]
    pairs = zip(inputs.split(SEPARATOR), rows)
    return [
        text for text, row in pairs if tokenizer.encode(text, add_special_tokens=False).ids != row
    ]


def main() -> None:
    """Writes the files and compares the vectors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cache = default_cache()
    parser.add_argument(
        "--packages", type=Path, default=cache / "packages", help="default: %(default)s"
    )
    parser.add_argument(
        "--out", type=Path, default=cache / "tokenizers", help="default: %(default)s"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    with tarfile.open(archive(arguments.packages)) as tar, tempfile.TemporaryDirectory() as scratch:

        def member(name: str) -> bytes:
            return tar.extractfile(MODELS + name).read()

        def metadata(name: str) -> dict:
            path = Path(scratch) / name
            path.write_bytes(member(f"{name}.gguf"))
            return fields(path)

        # Each file with its vectors in the archive. XLM-RoBERTa has none there.
        files = {
            "minilm": (wordpiece(), "bert-bge"),
            "gpt-2": (byte_level(metadata("gpt-2"), None), "gpt-2"),
            "qwen2": (byte_level(metadata("qwen2"), QWEN2_WORDS), "qwen2"),
            "xlm-roberta": (unigram(metadata("nomic-bert-moe")), None),
        }
        (arguments.out / "vectors.inp").write_bytes(member("gpt-2.gguf.inp"))
        for name, (tokenizer, vectors) in files.items():
            file = arguments.out / f"{name}.json"
            file.write_text(json.dumps(tokenizer, ensure_ascii=False))
            summary = f"{file}: {file.stat().st_size:,} bytes"
            if vectors:
                inputs, expected = (
                    member(f"{vectors}.gguf.{kind}").decode() for kind in ("inp", "out")
                )
                differ = differences(file, inputs, expected)
                count = len(inputs.split(SEPARATOR))
                summary += f", {count - len(differ)} of {count} vectors equal"
                summary += "".join(f"\n    differs: {text!r}" for text in differ)
            print(summary)


if __name__ == "__main__":
    main()
