"""A decoder in numpy, in f64: the independent reference of the language-model engine.

gguf-py's numpy dequantiser reads the weights of a GGUF file. The graph follows the papers and the
descriptions of the architectures, without optimisation. It uses no code of llama.cpp.

    RMSNorm        x / sqrt(mean(x^2) + epsilon) * weight
    RoPE           theta(position, i) = position * base^(-2i/dims) / factor(i); cos and sin times
                   the attention factor; llama rotates the pairs (2i, 2i + 1), phi3 and qwen2 the
                   halves (i, i + dims/2)
    attention      softmax(q k / sqrt(head_dim)) v over the last `window` positions, including the
                   query's own
    feed-forward   down(silu(gate x) * up x); phi3 stores gate and up as one matrix, in this order
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGUFReader, dequantize


@dataclass
class Case:
    """Options of a run: phi3's long or short factors, and its window or none."""

    long_factors: bool = False
    window: bool = True


class Tensors:
    """A file's tensors, dequantised to f32. Those of small files are cached."""

    MAX_CACHED = 1_000_000_000  # elements: 4 GB

    def __init__(self, reader: GGUFReader):
        self.stored = {tensor.name: tensor for tensor in reader.tensors}
        self.cached: dict[str, np.ndarray] | None = {}
        if sum(int(tensor.n_elements) for tensor in reader.tensors) > self.MAX_CACHED:
            self.cached = None

    def __contains__(self, name: str) -> bool:
        return name in self.stored

    def __getitem__(self, name: str) -> np.ndarray:
        if self.cached is not None and name in self.cached:
            return self.cached[name]
        values = dequantize(self.stored[name].data, self.stored[name].tensor_type).astype(np.float32)
        if self.cached is not None:
            self.cached[name] = values
        return values

    def get(self, name: str, default: np.ndarray | None = None) -> np.ndarray | None:
        """Returns the tensor, or the default if the file does not have it."""
        return self[name] if name in self else default


class Model:
    """A GGUF file."""

    def __init__(self, path: Path):
        reader = GGUFReader(path)
        self.tensors = Tensors(reader)
        self.fields = reader.fields
        self.architecture = self.fields["general.architecture"].contents()
        self.layers = self.key("block_count")
        self.heads = self.key("attention.head_count")
        self.kv_heads = self.key("attention.head_count_kv", self.heads)
        self.width = self.key("embedding_length")
        self.head_dim = self.width // self.heads
        self.rope_dims = self.key("rope.dimension_count", self.head_dim)
        self.base = self.key("rope.freq_base", 10000.0)
        self.attention_factor = self.key("rope.scaling.attn_factor", 1.0)
        self.epsilon = self.key("attention.layer_norm_rms_epsilon")
        self.window = self.key("attention.sliding_window", 0)

    def key(self, name: str, default: object = None) -> object:
        """Returns a hyper-parameter of the file's architecture."""
        field = self.fields.get(f"{self.architecture}.{name}")
        if field is None:
            if default is None:
                raise ValueError(f"`{self.architecture}.{name}`: the file has no such key")
            return default
        return field.contents()

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        """Returns W x + b, or W x if the file has no bias."""
        y = x @ self.tensors[f"{name}.weight"].T.astype(x.dtype)
        bias = self.tensors.get(f"{name}.bias")
        return y if bias is None else y + bias

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        """Returns the RMSNorm of each row."""
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.epsilon) * self.tensors[f"{name}.weight"]

    def rotate(self, x: np.ndarray, case: Case) -> np.ndarray:
        """Applies RoPE to (tokens, heads, head_dim); dimensions past `rope_dims` stay unchanged."""
        half = self.rope_dims // 2
        factors = self.tensors.get("rope_freqs.weight")
        if factors is None:
            factors = self.tensors.get(f"rope_factors_{'long' if case.long_factors else 'short'}.weight", np.ones(half))
        frequencies = self.base ** (-2.0 * np.arange(half) / self.rope_dims) / factors
        angles = np.arange(len(x))[:, None, None] * frequencies
        cos, sin = np.cos(angles) * self.attention_factor, np.sin(angles) * self.attention_factor
        if self.architecture == "llama":
            first, second = np.arange(half) * 2, np.arange(half) * 2 + 1
        else:
            first, second = np.arange(half), np.arange(half) + half
        out = x.copy()
        out[..., first] = x[..., first] * cos - x[..., second] * sin
        out[..., second] = x[..., first] * sin + x[..., second] * cos
        return out

    def attention(self, layer: int, x: np.ndarray, case: Case) -> np.ndarray:
        """Returns the causal self-attention of one layer, (tokens, width)."""
        tokens, block = len(x), f"blk.{layer}"
        if f"{block}.attn_qkv.weight" in self.tensors:
            kv_width = self.kv_heads * self.head_dim
            qkv = self.linear(f"{block}.attn_qkv", x)
            q, k, v = np.split(qkv, [self.width, self.width + kv_width], axis=1)
        else:
            q, k, v = (self.linear(f"{block}.attn_{name}", x) for name in "qkv")
        q = self.rotate(q.reshape(tokens, self.heads, self.head_dim), case)
        k = self.rotate(k.reshape(tokens, self.kv_heads, self.head_dim), case)
        v = v.reshape(tokens, self.kv_heads, self.head_dim)
        k, v = (np.repeat(each, self.heads // self.kv_heads, axis=1) for each in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(self.head_dim)
        behind = np.arange(tokens)[:, None] - np.arange(tokens)[None, :]
        hidden = behind < 0
        if case.window and self.window:
            hidden |= behind >= self.window
        scores = np.where(hidden, -np.inf, scores)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", weights, v).reshape(tokens, self.width)
        return self.linear(f"{block}.attn_output", mixed)

    def feed_forward(self, layer: int, x: np.ndarray) -> np.ndarray:
        """Returns the gated feed-forward of one layer, (tokens, width)."""
        block = f"blk.{layer}"
        up = self.linear(f"{block}.ffn_up", x)
        if f"{block}.ffn_gate.weight" in self.tensors:
            gate = self.linear(f"{block}.ffn_gate", x)
        else:
            gate, up = np.split(up, 2, axis=1)
        return self.linear(f"{block}.ffn_down", gate / (1.0 + np.exp(-gate)) * up)

    def logits(self, tokens: list[int], case: Case, first: int = 0) -> np.ndarray:
        """Returns logits f64 (tokens - first, vocabulary) from position `first`; -1 is the last."""
        x = self.tensors["token_embd.weight"][tokens].astype(np.float64)
        for layer in range(self.layers):
            x = x + self.attention(layer, self.norm(f"blk.{layer}.attn_norm", x), case)
            x = x + self.feed_forward(layer, self.norm(f"blk.{layer}.ffn_norm", x))
        head = "output" if "output.weight" in self.tensors else "token_embd"
        return self.linear(head, self.norm("output_norm", x[first:]))
