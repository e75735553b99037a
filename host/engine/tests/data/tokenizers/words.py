"""Make words.json: texts split into words by each pre-tokenizer, and their ids.

    pip install regex==2026.11.19 tokenizers==0.23.3 gguf==0.19.0
    words.py VECTORS.inp

VECTORS.inp is phi-3.inp in this folder. The other texts are random, from fixed seeds.

The words come from the `regex` package with the patterns that the models' own tokenizer.json files
and mistral-common's tekken files contain. The ids come from Hugging Face's Python `tokenizers`,
which matches patterns with Oniguruma, on the vocabulary of qwen2.gguf; the vocabulary matters
little for a test of words. Each pre-tokenizer has an entry: for each line of `lines` the lengths of
its words in characters, and for each text of `texts` the ids.
"""

import json
import pathlib
import random
import sys

import gguf
import regex
import tokenizers

HERE = pathlib.Path(__file__).parent
LINES = 2400

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CAPITALS, SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def by_case(contraction, digits):
    before = r"[^\r\n\p{L}\p{N}]?"
    return (
        f"{before}{CAPITALS}*{SMALL}+{contraction}|{before}{CAPITALS}+{SMALL}*{contraction}|{digits}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


# The pattern, and whether a word that is a token is kept whole.
PATTERNS = {
    "qwen2": (LLAMA.replace("{1,3}", ""), False),
    "llama-bpe": (LLAMA, True),
    "smaug-bpe": (LLAMA, False),
    "gpt-4o": (by_case(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?", r"\p{N}{1,3}"), False),
    "tekken": (by_case("", r"\p{N}"), True),
    "smollm": (GPT2, False),
}

# Parts of random lines. Every character has been in Unicode for a decade.
PARTS = [
    *"aZéßÄΩяЖдعहิข中文のカ한ǅʰªⅫ٣५1234567890",
    *" \t\n\r.,;:!?'\"/\\()[]{}<>|@#$%^&*-_=+~`",
    "  ", "   ", "\n\n", "\r\n", "\n \n", " \n", "\u00a0", "\u2003", "\u3000", "\u200d", "\ufeff", "\x00",
    "'s", "'S", "'t", "'RE", "'ve", "'m", "'Ll", "'d", "’s", "'ſ",
    "hello", "World", "HTTPServer", "camelCase", "ALLCAPS", "naïve", "e\u0301", "A\u030a", "क्षि", "สวัสดี",
    "你好世界", "こんにちは", "안녕", "привет", "Ελλάδα", "שָׁלוֹם", "مَرْحَبًا", "😀", "👩‍👩‍👧", "🇨🇭", "½", "②",
    "3.14", "1,000,000", "2024-07-26", "0x1F", "://", "</", "//\n", "...", "--", "**", "->", "```", "\u0301", "ﬁ", "ǅungla",
]


def random_lines():
    lines = set()
    for seed in range(LINES):
        source = random.Random(seed)
        lines.add("".join(source.choice(PARTS) for _ in range(source.randint(1, 12))))
    return sorted(lines)


def words(pattern, text, digits_first):
    """The words of a text, with what no match covers."""
    if digits_first:
        parts = [part for part in regex.split(r"(\p{N})", text) if part]
        return [word for part in parts for word in words(pattern, part, False)]
    found, end = [], 0
    for match in regex.finditer(pattern, text):
        found += [text[end : match.start()]] * (match.start() > end) + [match[0]] * (match.end() > match.start())
        end = match.end()
    return found + [text[end:]] * (end < len(text))


def encoder(name, meta):
    """Hugging Face's tokenizer with the pattern of `name`, on the vocabulary of `meta`."""
    pattern, keeps = PATTERNS[name]
    tokens, types, merges = (meta["tokenizer.ggml." + key] for key in ("tokens", "token_type", "merges"))
    vocabulary = {token: i for i, (token, kind) in enumerate(zip(tokens, types)) if kind == 1}
    bpe = tokenizers.models.BPE(vocabulary, [tuple(merge.split(" ")) for merge in merges], ignore_merges=keeps)
    tokenizer = tokenizers.Tokenizer(bpe)
    pre = tokenizers.pre_tokenizers
    split = pre.Digits(True) if name == "smollm" else pre.Split(tokenizers.Regex(pattern), "isolated")
    tokenizer.pre_tokenizer = pre.Sequence([split, pre.ByteLevel(False, use_regex=name == "smollm")])
    if name == "qwen2":
        tokenizer.normalizer = tokenizers.normalizers.NFC()
    return tokenizer


def main():
    (vectors,) = sys.argv[1:]
    texts = pathlib.Path(vectors).read_bytes().decode().split("\n__ggml_vocab_test__\n")
    reader = gguf.GGUFReader(HERE / "qwen2.gguf")
    meta = {key: field.contents() for key, field in reader.fields.items()}
    lines = random_lines()
    result = {"lines": lines, "texts": texts, "pre": {}}
    for name, (pattern, _) in PATTERNS.items():
        split = [words(pattern, line, name == "smollm") for line in lines]
        if wrong := [line for line, parts in zip(lines, split) if "".join(parts) != line]:
            sys.exit(f"{name}: the words of {wrong[0]!r} are not the text")
        encode = encoder(name, meta).encode
        result["pre"][name] = {
            "words": [[len(word) for word in parts] for parts in split],
            "ids": [encode(text).ids for text in texts],
        }
    text = json.dumps(result, ensure_ascii=True, separators=(",", ":"))
    (HERE / "words.json").write_text(text + "\n")
    print(len(lines), "lines", len(texts), "texts", len(PATTERNS), "pre-tokenizers")


if __name__ == "__main__":
    main()
