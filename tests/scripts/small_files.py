"""Writes the small GGUF files of small_specs.py, with random weights and small vocabularies."""

import zlib
from pathlib import Path

import llamacpp
import numpy as np
from byte_level import byte_letters
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, TokenType
from small_specs import Spec

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "data" / "language"

VOCABULARY = 320
CONTEXT = 1024
ORIGINAL_CONTEXT = 256  # of the file with long factors: llama.cpp's smallest context

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
        if spec.experts:
            shapes.append((f"{block}.ffn_gate_inp", spec.experts, width, 2.0 * unit))
            shapes.append((f"{block}.ffn_gate_exps", spec.experts * hidden, width, unit))
            shapes.append((f"{block}.ffn_up_exps", spec.experts * hidden, width, unit))
        elif not spec.family.fused:
            shapes.append((f"{block}.ffn_gate", hidden, width, unit))
            shapes.append((f"{block}.ffn_up", hidden, width, unit))
        out_width = spec.heads * spec.value_dim
        shapes.append((f"{block}.attn_output", width, out_width, out_width**-0.5))
        down = (f"{block}.ffn_down_exps", spec.experts * width) if spec.experts else (f"{block}.ffn_down", width)
        shapes.append((*down, hidden, 1.5 * hidden**-0.5))
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
    if spec.experts:
        writer.add_expert_count(spec.experts)
        writer.add_expert_used_count(2)
        writer.add_expert_feed_forward_length(spec.hidden)
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
        kind = Type.F32 if name.endswith("gate_inp") else spec.kinds.get(name.split(".")[-1], spec.kinds[""])
        if kind == Type.F16:
            values = values.astype(np.float16)
        elif kind != Type.F32:
            values = llamacpp.quantize(kind.value, values)
        if name.endswith("_exps"):
            values = values.reshape(spec.experts, rows // spec.experts, -1)
        writer.add_tensor(f"{name}.weight", values, raw_dtype=None if kind in (Type.F32, Type.F16) else kind)
        if spec.family.biases and name.split(".")[-1] in ("attn_q", "attn_k", "attn_v"):
            writer.add_tensor(f"{name}.bias", (0.5 * random.standard_normal(rows)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
