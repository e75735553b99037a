"""Write tests/data/language/*.gguf, small decoders with random weights, and their golden.json.

The weights of a file come from a seed made of its name; ggml's quantiser makes the blocks. The
tokens are chosen so that the best logit leads by MIN_GAP at every position: a wrong graph changes
an argmax, rounding does not.

golden.json holds for each file its tokens, and for each case (phi3's long or short factors; its
window or none):
    argmax      best id at every position, by reference.py (numpy, f64, on the dequantised weights)
    last        logits at the last position, by reference.py
    gap         smallest lead of the best logit
    spread      standard deviation of the reference's logits, the unit of the figures below
    tolerance   maximum difference of an engine from `last`: `largest`, and `rms` (root mean square)
    llama_cpp   `argmax` and `last` by llama.cpp, its `context` in tokens, and its `largest` and
                `rms` difference from reference.py over all positions; null if llama.cpp cannot run
                the case

llama.cpp differs by at most 1e-5 with F32 weights, and by at most 0.005 of the spread with F16 (f16
activations, and a table of GELU in f16). With the other types its int8 activations cause an rms of
0.015 to 0.022 of the spread (0.03 with six layers and GELU), and at most 0.16 of it. The tolerances
are about twice that. Mistakes cost more (rms, of the
spread): a window of one more token 0.18, the other RoPE style 0.39 to 0.52, the other factors 0.37,
no factors 0.20, no attention factor 0.12, a RoPE base ten times as large 0.10 to 0.21, an epsilon
of 1e-6 0.07 to 0.13, no biases 0.88 or more; no norms of heads 0.25, a rotation in layers without
one 0.10, without granite's factor of scores 0.13, of embeddings 0.23, of residuals 0.33; SiLU for
GELU 0.23, no norms of results 0.43, no scaled embeddings 0.97, a window in all layers 0.14, the
global base in local layers 0.05 (against a tolerance of 0.002 with F16), no cap of scores 0.17, of
logits 0.29; no YaRN 0.27, linear scaling instead 0.36.

llama.cpp uses the long factors of a phi3 file if its context is longer than
rope.scaling.original_context_length, whatever the length of the prompt. It rounds the context up to
a multiple of 256 tokens. The attention factor applies in both cases. It ignores phi3's sliding
window (src/models/phi3.cpp sets it to 0), so that case has only reference.py;
`llama_cpp_without_window` is the difference between the two without the window.

    pip install -r tests/scripts/requirements-language.txt
    python tests/scripts/small_models.py                # write the files and golden.json
    python tests/scripts/small_models.py qwen3-f16      # write one file and its entry
    python tests/scripts/small_models.py --check        # compare; exit code 1 if they differ
"""

import argparse
import json
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import llamacpp
import numpy as np
import reference
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, TokenType
from reference import Case

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "data" / "language"
GOLDEN = FOLDER / "golden.json"

VOCABULARY = 320
TOKENS = 24
WINDOW = 8
CONTEXT = 1024
ORIGINAL_CONTEXT = 256  # of the file with long factors: llama.cpp's smallest context
TIED = 0.25  # deviation of tied embeddings: small, or each token would predict itself
MIN_GAP = 0.4
TOLERANCES = {Type.F32: (0.001, 0.0002), Type.F16: (0.01, 0.002)}  # of the spread: maximum difference, rms
INT8_TOLERANCE = (0.25, 0.04)
ROUNDING = 0.005  # of a logit, between processors: llama.cpp's int8 kernels differ with the instruction set
F64_ROUNDING = 1e-4  # golden.json keeps five decimals


@dataclass
class Family:
    """What all files of an architecture have in common. Epsilons are large, so that a test detects
    an engine that ignores them."""

    epsilon: float = 0.1
    rope_base: float = 1e5
    tied: bool = False
    fused: bool = False
    biases: bool = False
    head_norms: bool = False
    post_norms: bool = False
    root_embeddings: bool = False


FAMILIES = {
    "phi3": Family(rope_base=1e4, fused=True),
    "llama": Family(),
    "qwen2": Family(epsilon=0.01, rope_base=1e6, tied=True, biases=True),
    "qwen3": Family(rope_base=1e6, tied=True, head_norms=True),
    "smollm3": Family(tied=True),
    "granite": Family(),
    "gemma3": Family(rope_base=1e6, tied=True, head_norms=True, post_norms=True, root_embeddings=True),
    "gemma": Family(tied=True, root_embeddings=True),
    "gemma2": Family(tied=True, post_norms=True, root_embeddings=True),
}


@dataclass
class Spec:
    """One file."""

    name: str
    kinds: dict[str, Type]  # by the tensor's name in its layer; "" is the default
    width: int
    heads: int
    kv_heads: int
    hidden: int
    layers: int = 2
    pre: str = "default"  # "default": SentencePiece, as in llama; else byte-level BPE with this pre-tokenizer
    window: int = 0
    rope_dims: int = 0
    long_factors: bool = False
    rope_factors: bool = False
    cases: list[Case] = field(default_factory=lambda: [Case()])
    head_dim: int = 0  # 0: width / heads
    value_dim: int = 0  # 0: that of keys
    tied: bool | None = None  # None: as in the family
    logit_divisor: float = 1.0
    keys: dict[str, object] = field(default_factory=dict)  # further metadata
    peer: bool = True  # llama.cpp can run the file

    def __post_init__(self) -> None:
        self.head_dim = self.head_dim or self.width // self.heads
        self.value_dim = self.value_dim or self.head_dim
        self.tied = self.family.tied if self.tied is None else self.tied

    @property
    def family(self) -> Family:
        """The family of its architecture."""
        return FAMILIES[self.architecture]

    @property
    def embedding_deviation(self) -> float:
        """Standard deviation of the table of embeddings."""
        return TIED * (self.width**-0.5 if self.family.root_embeddings else 1.0) if self.tied else 1.0

    @property
    def architecture(self) -> str:
        """The first word of the name."""
        return self.name.split("-")[0]


MIX = {
    "": Type.Q4_K, "attn_v": Type.Q6_K, "attn_output": Type.Q5_0, "ffn_down": Type.Q6_K, "attn_k": Type.Q5_K,
    "token_embd": Type.Q8_0,
}  # fmt: skip

GRANITE = {"attention.scale": 0.4, "embedding_scale": 1.5, "residual_scale": 0.6}
EVERY_SECOND = {"attention.sliding_window_pattern": 2}
LISTED = {"attention.sliding_window_pattern": [True, False, True]}
LINEAR = {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0}
CAPPED = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0}
YARN = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 64}
# A type of each further encoding.
FEW_BITS = {
    "": Type.Q3_K, "attn_k": Type.BF16, "attn_v": Type.IQ4_XS, "attn_output": Type.Q5_1, "ffn_up": Type.MXFP4,
    "ffn_down": Type.Q2_K, "token_embd": Type.IQ4_NL,
}  # fmt: skip

SPECS = [
    Spec("phi3-f32", {"": Type.F32}, 64, 2, 2, 96),
    Spec("phi3-q4_0-head96", {"": Type.Q4_0}, 192, 2, 2, 192),
    Spec("phi3-q4_k", {"": Type.Q4_K}, 256, 4, 2, 256),
    Spec("phi3-q8_0-window", {"": Type.Q8_0}, 64, 2, 1, 128, window=WINDOW),
    Spec("phi3-q8_0-long", {"": Type.Q8_0}, 64, 2, 2, 128, long_factors=True, cases=[Case(), Case(long_factors=True)]),
    Spec("phi3-q8_0-partial", {"": Type.Q8_0}, 64, 2, 2, 128, rope_dims=24),
    Spec("llama-f16", {"": Type.F16}, 64, 4, 2, 96),
    Spec("llama-q4_1", {"": Type.Q4_1}, 128, 4, 2, 256, pre="smollm"),
    Spec("llama-q5_k", {"": Type.Q5_K}, 256, 4, 1, 256, rope_factors=True),
    Spec("qwen2-q5_0", {"": Type.Q5_0}, 128, 4, 2, 256, pre="qwen2"),
    Spec("qwen2-q6_k", {"": Type.Q6_K}, 256, 4, 2, 256, layers=1, pre="qwen2"),
    Spec("qwen2-mixed", MIX, 256, 4, 1, 256, layers=1, pre="qwen2"),
    Spec("qwen3-f16", {"": Type.F16}, 64, 4, 2, 96, head_dim=32, pre="qwen2"),
    Spec("qwen3-q8_0", {"": Type.Q8_0}, 64, 4, 2, 96, pre="qwen2"),
    Spec("qwen3-q4_0", {"": Type.Q4_0}, 128, 2, 1, 192, head_dim=128, pre="qwen2"),
    # Llama 3.2 has a tied head; Mistral Nemo has heads that are wider than width / heads.
    Spec("llama-q8_0-llama3", {"": Type.Q8_0}, 64, 4, 2, 96, rope_factors=True, tied=True, pre="smollm"),
    Spec("llama-q4_0-mistral", {"": Type.Q4_0}, 64, 4, 2, 96, head_dim=32),
    Spec("smollm3-f16", {"": Type.F16}, 64, 4, 2, 96, layers=4, pre="smollm"),
    Spec("smollm3-q8_0", {"": Type.Q8_0}, 64, 2, 1, 96, layers=5, pre="smollm"),
    Spec("smollm3-q4_0", {"": Type.Q4_0}, 64, 4, 4, 96, layers=4, pre="smollm"),
    Spec("granite-f16", {"": Type.F16}, 64, 4, 2, 96, pre="smollm", logit_divisor=4.0, keys=GRANITE),
    Spec("granite-q8_0", {"": Type.Q8_0}, 64, 4, 2, 96, tied=True, pre="smollm", logit_divisor=0.5, keys=GRANITE),
    Spec("granite-q5_0", {"": Type.Q5_0}, 64, 2, 2, 96, pre="smollm", logit_divisor=4.0),
    Spec("gemma3-f16", {"": Type.F16}, 64, 4, 2, 96, head_dim=32, window=WINDOW, keys=EVERY_SECOND | LINEAR),
    Spec("gemma3-q8_0", {"": Type.Q8_0}, 64, 4, 1, 96, layers=6, head_dim=32, window=WINDOW),
    Spec("gemma3-q4_0", {"": Type.Q4_0}, 64, 2, 2, 96, layers=3, window=WINDOW, keys=LISTED),
    Spec("phi3-q8_0-phi4", {"": Type.Q8_0}, 64, 2, 1, 128, rope_dims=24, tied=True, long_factors=True,
         cases=[Case(), Case(long_factors=True)]),
    Spec("gemma2-f16", {"": Type.F16}, 64, 4, 2, 96, head_dim=32, window=WINDOW, keys=CAPPED),
    Spec("gemma2-q8_0", {"": Type.Q8_0}, 64, 2, 1, 96, layers=4, window=WINDOW),
    Spec("gemma2-q5_0", {"": Type.Q5_0}, 64, 2, 2, 96, keys=CAPPED),
    Spec("gemma-f16", {"": Type.F16}, 64, 4, 1, 96, head_dim=32),
    Spec("gemma-q8_0", {"": Type.Q8_0}, 64, 4, 1, 96, layers=3),
    Spec("gemma-q4_0", {"": Type.Q4_0}, 64, 2, 2, 96),
    Spec("llama-q8_0-yarn", {"": Type.Q8_0}, 64, 2, 2, 96, keys=YARN),
    Spec("llama-f16-value", {"": Type.F16}, 64, 2, 1, 96, value_dim=16, peer=False),  # llama.cpp asserts equal sizes
    Spec("qwen2-few-bits", FEW_BITS, 256, 4, 1, 256, layers=1, pre="qwen2"),
]  # fmt: skip

PIECES = "in er an on re ou th he the st ing ed or al es ar le at it is".split()
PHI_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def merges_of(pieces: list[str]) -> list[tuple[str, str]]:
    """Returns one merge for each piece: of its front and last letter, or first letter and rest."""
    known, rules = set(), []
    for piece in pieces:
        cut = 1 if len(piece) > 2 and piece[:-1] not in known else len(piece) - 1
        rules.append((piece[:cut], piece[cut:]))
        known.add(piece)
    return rules


def llama_vocabulary(writer: GGUFWriter) -> None:
    """Adds a SentencePiece vocabulary: special tokens, bytes, letters, pieces, control tokens."""
    control = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
    letters = ["\u2581", *"abcdefghijklmnopqrstuvwxyz"]
    pieces = [*PIECES, *(f"\u2581{letter}" for letter in "taoiswh"), "\u2581the"]
    tokens = [("<unk>", TokenType.UNKNOWN), ("<s>", TokenType.CONTROL), ("</s>", TokenType.CONTROL)]
    tokens += [(f"<0x{byte:02X}>", TokenType.BYTE) for byte in range(256)]
    tokens += [(text, TokenType.NORMAL) for text in pieces + letters]
    tokens += [(text, TokenType.CONTROL) for text in control]
    tokens += [(f"<unused{number}>", TokenType.UNUSED) for number in range(VOCABULARY - len(tokens))]
    scores = [0.0 if kind != TokenType.NORMAL else 259.0 - index for index, (_, kind) in enumerate(tokens)]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([text for text, _ in tokens])
    writer.add_token_scores(scores)
    writer.add_token_types([kind for _, kind in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_chat_template(PHI_TEMPLATE)


def byte_letters() -> list[str]:
    """Returns GPT-2's letters of bytes: printable bytes are themselves, others follow U+0100."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) if byte in plain else chr(0x100 + others.index(byte)) for byte in range(256)]


def byte_level_vocabulary(writer: GGUFWriter, pre: str) -> None:
    """Adds a byte-level BPE vocabulary: bytes, pieces, control tokens."""
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    pieces = [*PIECES, *(f"\u0120{letter}" for letter in "taoiswh"), "\u0120the"]
    tokens = byte_letters() + pieces
    unused = VOCABULARY - len(tokens) - len(control)
    kinds = [TokenType.NORMAL] * len(tokens) + [TokenType.CONTROL] * len(control) + [TokenType.UNUSED] * unused
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens + control + [f"<unused{number}>" for number in range(unused)])
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(rule) for rule in merges_of(pieces)])
    writer.add_bos_token_id(len(tokens) + (0 if pre == "qwen2" else 1))
    writer.add_eos_token_id(len(tokens) + 2)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHATML_TEMPLATE)


def matrices(spec: Spec) -> list[tuple[str, int, int, float]]:
    """Returns name, rows, columns and standard deviation of every matrix.

    Those of queries and keys are large enough for peaked attention.
    """
    width, hidden, q_width = spec.width, spec.hidden, spec.heads * spec.head_dim
    k_width, v_width = spec.kv_heads * spec.head_dim, spec.kv_heads * spec.value_dim
    unit = width**-0.5
    shapes = [("token_embd", VOCABULARY, width, spec.embedding_deviation)]
    for layer in range(spec.layers):
        block = f"blk.{layer}"
        if spec.family.fused:
            shapes.append((f"{block}.attn_qkv", q_width + k_width + v_width, width, 1.2 * unit))
            shapes.append((f"{block}.ffn_up", 2 * hidden, width, unit))
        else:
            shapes.append((f"{block}.attn_q", q_width, width, 1.2 * unit))
            shapes.append((f"{block}.attn_k", k_width, width, 1.2 * unit))
            shapes.append((f"{block}.attn_v", v_width, width, 1.2 * unit))
            shapes.append((f"{block}.ffn_gate", hidden, width, unit))
            shapes.append((f"{block}.ffn_up", hidden, width, unit))
        out_width = spec.heads * spec.value_dim
        shapes.append((f"{block}.attn_output", width, out_width, out_width**-0.5))
        shapes.append((f"{block}.ffn_down", width, hidden, 1.5 * hidden**-0.5))
    if not spec.tied:
        shapes.append(("output", VOCABULARY, width, 3.0 * unit * spec.logit_divisor))
    return shapes


def norms(spec: Spec) -> list[tuple[str, int]]:
    """Returns name and length of every norm."""
    found = [("output_norm", spec.width)]
    for layer in range(spec.layers):
        names = ["attn_norm", "ffn_norm"]
        names += ["post_attention_norm", "post_ffw_norm"] if spec.family.post_norms else []
        found += [(f"blk.{layer}.{name}", spec.width) for name in names]
        heads = ["attn_q_norm", "attn_k_norm"] if spec.family.head_norms else []
        found += [(f"blk.{layer}.{name}", spec.head_dim) for name in heads]
    return found


def add_keys(writer: GGUFWriter, architecture: str, keys: dict[str, object]) -> None:
    """Adds hyper-parameters of an architecture."""
    add = {
        bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string,
        list: writer.add_array,
    }  # fmt: skip
    for name, value in keys.items():
        add[type(value)](f"{architecture}.{name}", value)


def write(spec: Spec) -> None:
    """Writes the file of a spec."""
    random = np.random.default_rng(zlib.crc32(spec.name.encode()))
    writer = GGUFWriter(FOLDER / f"{spec.name}.gguf", spec.architecture)
    writer.add_name(f"{spec.name}, random weights")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(spec.width)
    writer.add_feed_forward_length(spec.hidden)
    writer.add_block_count(spec.layers)
    writer.add_head_count(spec.heads)
    writer.add_head_count_kv(spec.kv_heads)
    writer.add_layer_norm_rms_eps(spec.family.epsilon)
    writer.add_rope_dimension_count(spec.rope_dims or spec.head_dim)
    writer.add_rope_freq_base(spec.family.rope_base)
    writer.add_vocab_size(VOCABULARY)
    if spec.architecture == "phi3":
        writer.add_sliding_window(spec.window)
        writer.add_rope_scaling_orig_ctx_len(ORIGINAL_CONTEXT if spec.long_factors else CONTEXT)
    elif spec.window:
        writer.add_sliding_window(spec.window)
    if spec.head_dim * spec.heads != spec.width or spec.value_dim != spec.head_dim:
        writer.add_key_length(spec.head_dim)
        writer.add_value_length(spec.value_dim)
    if spec.logit_divisor != 1.0:
        writer.add_logit_scale(spec.logit_divisor)
    add_keys(writer, spec.architecture, spec.keys)
    if spec.pre == "default":
        llama_vocabulary(writer)
    else:
        byte_level_vocabulary(writer, spec.pre)

    half = (spec.rope_dims or spec.head_dim) // 2
    if spec.long_factors:
        scale = CONTEXT / ORIGINAL_CONTEXT
        writer.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(scale) / np.log(ORIGINAL_CONTEXT))))
        writer.add_tensor("rope_factors_short.weight", np.linspace(1.0, 1.5, half, dtype=np.float32))
        writer.add_tensor("rope_factors_long.weight", np.linspace(1.2, 8.0, half, dtype=np.float32))
    if spec.rope_factors:
        writer.add_tensor("rope_freqs.weight", np.linspace(1.0, 8.0, half, dtype=np.float32))

    for name, columns in norms(spec):
        weight = 1.0 + 0.2 * random.standard_normal(columns)
        if name == "output_norm" and spec.tied:
            weight *= 3.0 * spec.width**-0.5 / spec.embedding_deviation * spec.logit_divisor
        writer.add_tensor(f"{name}.weight", weight.astype(np.float32))
    for name, rows, columns, deviation in matrices(spec):
        values = (random.standard_normal((rows, columns)) * deviation).astype(np.float32)
        kind = spec.kinds.get(name.split(".")[-1], spec.kinds[""])
        if kind == Type.F32:
            writer.add_tensor(f"{name}.weight", values)
        elif kind == Type.F16:
            writer.add_tensor(f"{name}.weight", values.astype(np.float16))
        else:
            writer.add_tensor(f"{name}.weight", llamacpp.quantize(kind.value, values), raw_dtype=kind)
        if spec.family.biases and name.split(".")[-1] in ("attn_q", "attn_k", "attn_v"):
            writer.add_tensor(f"{name}.bias", (0.5 * random.standard_normal(rows)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gap(row: np.ndarray) -> float:
    """Returns the lead of the best logit."""
    second, first = np.sort(row)[-2:]
    return float(first - second)


def choose_tokens(spec: Spec, model: reference.Model) -> list[int]:
    """Returns tokens after each of which the best logit leads by MIN_GAP, in every case."""
    random = np.random.default_rng(zlib.crc32(spec.name.encode()) + 1)
    tokens: list[int] = []
    while len(tokens) < TOKENS:
        for candidate in random.permutation(VOCABULARY):
            attempt = [*tokens, int(candidate)]
            if min(gap(model.logits(attempt, case)[-1]) for case in spec.cases) >= MIN_GAP:
                tokens = attempt
                break
        else:
            raise ValueError(f"`{spec.name}`: no token leads by {MIN_GAP} at position {len(tokens)}")
    return tokens


def rounded(row: np.ndarray) -> list[float]:
    """Rounds to five decimals."""
    return [round(float(value), 5) for value in row]


def answer(spec: Spec, tokens: list[int]) -> dict:
    """Returns a file's entry in golden.json."""
    path = FOLDER / f"{spec.name}.gguf"
    model = reference.Model(path)
    cases = []
    for case in spec.cases:
        logits = model.logits(tokens, case)
        largest, rms = TOLERANCES.get(spec.kinds[""], INT8_TOLERANCE)
        entry = {
            "factors": ("long" if case.long_factors else "short") if spec.long_factors else None,
            "window": spec.window or None,
            "argmax": logits.argmax(-1).tolist(),
            "gap": round(min(gap(row) for row in logits), 5),
            "spread": round(float(logits.std()), 5),
            "tolerance": {
                "largest": round(float(logits.std()) * largest, 5),
                "rms": round(float(logits.std()) * rms, 5),
            },
            "last": rounded(logits[-1]),
        }
        cases.append(entry)
        if not spec.peer:
            entry["llama_cpp"] = None
            continue
        context = 2 * ORIGINAL_CONTEXT if case.long_factors else ORIGINAL_CONTEXT
        with llamacpp.Model(path, context) as peer:
            theirs = peer.append(tokens, every=True)
        has_window = spec.architecture != "phi3"
        ours = model.logits(tokens, Case(case.long_factors, has_window))
        entry["llama_cpp"] = {
            "context": context,
            "largest": round(float(np.abs(theirs - ours).max()), 5),
            "rms": round(float(np.sqrt(((theirs - ours) ** 2).mean())), 5),
            "argmax": theirs.argmax(-1).tolist(),
            "last": rounded(theirs[-1]),
        }
        if spec.window and not has_window:
            entry["llama_cpp_without_window"] = {
                key: entry["llama_cpp"][key] for key in ("context", "largest", "rms")
            }
            entry["llama_cpp"] = None
    return {"file": path.name, "architecture": spec.architecture, "tokens": tokens, "cases": cases}


def numbers(value: object) -> list[float]:
    """Returns every number of a JSON value, in order."""
    if isinstance(value, dict):
        return [each for inner in value.values() for each in numbers(inner)]
    if isinstance(value, list):
        return [each for inner in value for each in numbers(inner)]
    return [value] if isinstance(value, int | float) else []


def differences(stored: dict, now: dict) -> list[str]:
    """Returns the differences between two entries of a file that exceed rounding."""
    found = []
    for old, new in zip(stored["cases"], now["cases"], strict=True):
        where = f"`{stored['file']}`, factors {old['factors']}, window {old['window']}"
        for key, limit in [("argmax", 0), ("last", F64_ROUNDING), ("spread", F64_ROUNDING), ("llama_cpp", ROUNDING)]:
            worst = max((abs(a - b) for a, b in zip(numbers(old[key]), numbers(new[key]), strict=True)), default=0)
            if worst > limit:
                found.append(f"{where}: `{key}` differs by {worst:.5f}, expected at most {limit}")
    return found


def main() -> int:
    """Writes or compares the files. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with golden.json instead of writing")
    parser.add_argument("names", nargs="*", help="files without their suffix (default: all)")
    arguments = parser.parse_args()
    check, names = arguments.check, arguments.names or [spec.name for spec in SPECS]
    if unknown := set(names) - {spec.name for spec in SPECS}:
        parser.error(f"no file is named {', '.join(sorted(unknown))}")
    stored = {}
    if check or arguments.names:
        stored = {entry["file"]: entry for entry in json.loads(GOLDEN.read_text())["files"]}
    entries, found = [], []
    FOLDER.mkdir(parents=True, exist_ok=True)
    for spec in SPECS:
        old = stored.get(f"{spec.name}.gguf")
        if spec.name not in names:
            entries += [old] if old else []
            continue
        if check:
            entries.append(answer(spec, old["tokens"]))
            found += differences(old, entries[-1])
        else:
            write(spec)
            entries.append(answer(spec, choose_tokens(spec, reference.Model(FOLDER / f"{spec.name}.gguf"))))
        for case in entries[-1]["cases"]:
            peer = case["llama_cpp"] or case.get("llama_cpp_without_window")
            if not peer:
                print(f"{spec.name:20} spread {case['spread']:.3f} gap {case['gap']:.3f}, not compared with llama.cpp")
                continue
            same = case["llama_cpp"] and case["llama_cpp"]["argmax"] == case["argmax"]
            print(
                f"{spec.name:20} factors {case['factors'] or '-':5} window {case['window'] or '-'!s:2} "
                f"spread {case['spread']:.3f} gap {case['gap']:.3f} llama.cpp differs by {peer['largest']:.5f} "
                f"({peer['largest'] / case['spread']:.4f} of the spread), "
                f"rms {peer['rms'] / case['spread']:.4f} of it, argmax {'equal' if same else same}"
            )
    if check:
        print("\n".join(found) or "golden.json agrees")
        return 1 if found else 0
    text = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in entries)
    GOLDEN.write_text(f'{{"files":[\n{text}\n]}}\n')
    return 0


if __name__ == "__main__":
    sys.exit(main())
