"""A decoder in numpy, in f64: the independent reference of the language-model engine.

gguf-py's numpy dequantiser reads the weights of a GGUF file. The graph follows the papers and the
descriptions of the architectures, without optimisation. It uses no code of llama.cpp.

    RMSNorm        x / sqrt(mean(x^2) + epsilon) * weight
    RoPE           theta(position, i) = position * base^(-2i/dims) / factor(i); cos and sin times
                   the attention factor; llama, smollm3 and granite rotate the pairs (2i, 2i + 1),
                   the others the halves (i, i + dims/2). smollm3 does not rotate every fourth
                   layer. Linear scaling divides frequencies; YaRN mixes f and f/scale by a ramp
                   over i
    attention      softmax(q k scale) v over the last `window` positions, including the query's own;
                   scale is 1 / sqrt(key size), or granite's; qwen3 and gemma3 normalise each head
                   of q and k before RoPE; gemma2 caps scores: cap tanh(score / cap)
    feed-forward   down(act(gate x) * up x); act is silu, or gelu (with tanh) in gemma; phi3 stores
                   gate and up as one matrix, in this order
    experts        the feed-forward of the best experts by the router's scores, weighted by the
                   softmax over their scores
    residual       x + branch(x); granite multiplies the branch, gemma applies another RMSNorm to it
    embeddings     times sqrt(width) in gemma, times a factor in granite
    logits         divided by granite's divisor; capped in gemma2
    windows        the last layer of each six (gemma3) or two (gemma2) attends to everything; the
                   other layers of gemma3 rotate with base 10000, unscaled
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


PAIRS = ("llama", "smollm3", "granite", "granitemoe")  # rotate neighbours
UNROTATED = {"smollm3": 4}  # every layer of this number
PERIODS = {"gemma2": 2, "gemma3": 6}  # the last layer of each has no window
CAPS = {"gemma2": (50.0, 30.0)}  # of scores and logits, by default


def cap(x: np.ndarray, limit: float) -> np.ndarray:
    """Returns limit * tanh(x / limit), or x if the limit is 0."""
    return limit * np.tanh(x / limit) if limit else x


def silu(x: np.ndarray) -> np.ndarray:
    """Returns x / (1 + e^-x)."""
    return x / (1.0 + np.exp(-x))


def gelu(x: np.ndarray) -> np.ndarray:
    """Returns GELU in its approximation by tanh."""
    return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))


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
        self.key_dim = self.key("attention.key_length", self.width // self.heads)
        self.value_dim = self.key("attention.value_length", self.width // self.heads)
        self.rope_dims = self.key("rope.dimension_count", self.key_dim)
        self.epsilon = self.key("attention.layer_norm_rms_epsilon")
        self.window = self.key("attention.sliding_window", 0)
        self.gemma = self.architecture.startswith("gemma")
        granite = self.architecture.startswith("granite")
        self.scale = (self.key("attention.scale", 0.0) if granite else 0.0) or self.key_dim**-0.5
        self.residual_scale = (self.key("residual_scale", 0.0) if granite else 0.0) or 1.0
        self.embedding_scale = (self.key("embedding_scale", 0.0) if granite else 0.0) or 1.0
        if self.gemma:
            self.embedding_scale = self.width**0.5
        self.logit_divisor = self.key("logit_scale") if granite else 1.0
        score_cap, logit_cap = CAPS.get(self.architecture, (0.0, 0.0))
        self.score_cap = self.key("attn_logit_softcapping", score_cap)
        self.logit_cap = self.key("final_logit_softcapping", logit_cap)

    def is_local(self, layer: int) -> bool:
        """Returns True if the layer attends to a window only."""
        pattern = self.key("attention.sliding_window_pattern", PERIODS.get(self.architecture, 0))
        if isinstance(pattern, list):
            return pattern[layer]
        return self.window > 0 and (pattern == 0 or (layer + 1) % pattern != 0)

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

    def frequencies(self, case: Case) -> tuple[np.ndarray, float]:
        """Returns the rotation of each pair per position, and the factor of cos and sin."""
        half = self.rope_dims // 2
        factors = self.tensors.get("rope_freqs.weight")
        if factors is None:
            factors = self.tensors.get(f"rope_factors_{'long' if case.long_factors else 'short'}.weight", np.ones(half))
        base = self.key("rope.freq_base", 10000.0)
        turns = base ** (-2.0 * np.arange(half) / self.rope_dims) / factors
        attention_factor = self.key("rope.scaling.attn_factor", 1.0)
        scaling, scale = self.key("rope.scaling.type", "none"), self.key("rope.scaling.factor", 1.0)
        if scaling == "linear":
            turns /= scale
        if scaling == "yarn":
            original = self.key("rope.scaling.original_context_length")

            def pair(rotations: float) -> float:
                """Returns the pair that turns this many times in the original context."""
                return self.rope_dims * np.log(original / (2 * np.pi * rotations)) / (2 * np.log(base))

            low = max(np.floor(pair(self.key("rope.scaling.yarn_beta_fast", 32.0))), 0)
            high = min(np.ceil(pair(self.key("rope.scaling.yarn_beta_slow", 1.0))), self.rope_dims - 1)
            ramp = np.clip((np.arange(half) - low) / max(high - low, 0.001), 0.0, 1.0)
            turns = turns / scale * ramp + turns * (1.0 - ramp)
            attention_factor *= 0.1 * np.log(scale) + 1.0
        return turns, attention_factor

    def rotate(self, layer: int, x: np.ndarray, case: Case) -> np.ndarray:
        """Applies RoPE to (tokens, heads, key size); dimensions past `rope_dims` stay unchanged."""
        if (layer + 1) % UNROTATED.get(self.architecture, self.layers + 1) == 0:
            return x
        half = self.rope_dims // 2
        frequencies, attention_factor = self.frequencies(case)
        if self.architecture == "gemma3" and self.is_local(layer):
            frequencies, attention_factor = 10000.0 ** (-2.0 * np.arange(half) / self.rope_dims), 1.0
        angles = np.arange(len(x))[:, None, None] * frequencies
        cos, sin = np.cos(angles) * attention_factor, np.sin(angles) * attention_factor
        if self.architecture in PAIRS:
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
            q_width, k_width = self.heads * self.key_dim, self.kv_heads * self.key_dim
            qkv = self.linear(f"{block}.attn_qkv", x)
            q, k, v = np.split(qkv, [q_width, q_width + k_width], axis=1)
        else:
            q, k, v = (self.linear(f"{block}.attn_{name}", x) for name in "qkv")
        q = q.reshape(tokens, self.heads, self.key_dim)
        k = k.reshape(tokens, self.kv_heads, self.key_dim)
        if f"{block}.attn_q_norm.weight" in self.tensors:
            q, k = self.norm(f"{block}.attn_q_norm", q), self.norm(f"{block}.attn_k_norm", k)
        q, k = self.rotate(layer, q, case), self.rotate(layer, k, case)
        v = v.reshape(tokens, self.kv_heads, self.value_dim)
        k, v = (np.repeat(each, self.heads // self.kv_heads, axis=1) for each in (k, v))
        scores = cap(np.einsum("qhd,khd->hqk", q, k) * self.scale, self.score_cap)
        behind = np.arange(tokens)[:, None] - np.arange(tokens)[None, :]
        hidden = behind < 0
        if case.window and self.is_local(layer):
            hidden |= behind >= self.window
        scores = np.where(hidden, -np.inf, scores)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.einsum("hqk,khd->qhd", weights, v).reshape(tokens, self.heads * self.value_dim)
        return self.linear(f"{block}.attn_output", mixed)

    def feed_forward(self, layer: int, x: np.ndarray) -> np.ndarray:
        """Returns the gated feed-forward of one layer, (tokens, width)."""
        block = f"blk.{layer}"
        up = self.linear(f"{block}.ffn_up", x)
        if f"{block}.ffn_gate.weight" in self.tensors:
            gate = self.linear(f"{block}.ffn_gate", x)
        else:
            gate, up = np.split(up, 2, axis=1)
        return self.linear(f"{block}.ffn_down", (gelu if self.gemma else silu)(gate) * up)

    def experts(self, layer: int, x: np.ndarray) -> np.ndarray:
        """Returns the results of each token's best experts, weighted by their softmax."""
        block, used = f"blk.{layer}", self.key("expert_used_count")
        gates, ups, downs = (self.tensors[f"{block}.ffn_{part}_exps.weight"] for part in ("gate", "up", "down"))
        out = np.zeros_like(x)
        for row, scores in enumerate(self.linear(f"{block}.ffn_gate_inp", x)):
            order = np.argsort(-scores, kind="stable")
            best = order[:used]
            self.router_lead = min(self.router_lead, scores[best[-1]] - scores[order[used]])
            weights = np.exp(scores[best] - scores[best].max())
            for expert, weight in zip(best, weights / weights.sum()):
                inner = silu(gates[expert].astype(x.dtype) @ x[row]) * (ups[expert].astype(x.dtype) @ x[row])
                out[row] += weight * (downs[expert].astype(x.dtype) @ inner)
        return out

    def branch(self, norm: str, result: np.ndarray) -> np.ndarray:
        """Returns the result of attention or of the feed-forward network as it is added."""
        if f"{norm}.weight" in self.tensors:
            result = self.norm(norm, result)
        return result * self.residual_scale

    def logits(self, tokens: list[int], case: Case, first: int = 0) -> np.ndarray:
        """Returns logits f64 (tokens - first, vocabulary) from position `first`; -1 is the last.

        Sets `router_lead`, the smallest lead of a chosen expert over the best other one.
        """
        self.router_lead = np.inf
        x = self.tensors["token_embd.weight"][tokens].astype(np.float64) * self.embedding_scale
        for layer in range(self.layers):
            block = f"blk.{layer}"
            attended = self.attention(layer, self.norm(f"{block}.attn_norm", x), case)
            x = x + self.branch(f"{block}.post_attention_norm", attended)
            has_experts = f"{block}.ffn_gate_inp.weight" in self.tensors
            feed_forward = self.experts if has_experts else self.feed_forward
            fed = feed_forward(layer, self.norm(f"{block}.ffn_norm", x))
            x = x + self.branch(f"{block}.post_ffw_norm", fed)
        head = "output" if "output.weight" in self.tensors else "token_embd"
        return cap(self.linear(head, self.norm("output_norm", x[first:])) / self.logit_divisor, self.logit_cap)
