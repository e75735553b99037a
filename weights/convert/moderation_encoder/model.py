"""BERT and MPNet sentence encoders in PyTorch, read from a folder of safetensors, and their heads.

The encoder's output is the mean of the last hidden states over the mask, L2-normalised: f32 (N,
hidden). A head is one row of a matrix over it, so one product computes all heads of an encoder.
"""

import json
import math
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from torch import nn
from torch.nn import functional

POSITIONS = 512


def relative_buckets(length: int, buckets: int = 32, farthest: int = 128) -> np.ndarray:
    """Return MPNet's relative position buckets (bidirectional, as in T5): i64 (length, length)."""
    position = np.arange(length)
    relative = position[None, :] - position[:, None]
    half = buckets // 2
    distance, exact = np.abs(relative), half // 2
    far = exact + (
        np.log(np.maximum(distance, 1) / exact) / math.log(farthest / exact) * (half - exact)
    ).astype(int)
    return (relative > 0) * half + np.where(distance < exact, distance, np.minimum(far, half - 1))


class Layer(nn.Module):
    """One transformer block, normalised after each sum."""

    def __init__(self, config: dict) -> None:
        super().__init__()
        hidden, epsilon = config["hidden_size"], config["layer_norm_eps"]
        self.heads = config["num_attention_heads"]
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=epsilon)
        self.up = nn.Linear(hidden, config["intermediate_size"])
        self.down = nn.Linear(config["intermediate_size"], hidden)
        self.output_norm = nn.LayerNorm(hidden, eps=epsilon)

    def forward(self, x: torch.Tensor, bias: torch.Tensor, dropout: float) -> torch.Tensor:
        batch, length, hidden = x.shape

        def drop(t: torch.Tensor) -> torch.Tensor:
            return functional.dropout(t, dropout, self.training)

        q, k, v = (
            self.qkv(x)
            .view(batch, length, 3, self.heads, hidden // self.heads)
            .permute(2, 0, 3, 1, 4)
        )
        scores = q @ k.transpose(-1, -2) * (hidden // self.heads) ** -0.5 + bias
        mixed = drop(scores.softmax(-1)) @ v
        mixed = mixed.transpose(1, 2).reshape(batch, length, hidden)
        x = self.attention_norm(x + drop(self.out(mixed)))
        return self.output_norm(x + drop(self.down(functional.gelu(self.up(x)))))


# Names of a block's parts in the files, by architecture; `qkv` is stored as three.
BERT = {
    "qkv": ["attention.self.query", "attention.self.key", "attention.self.value"],
    "out": ["attention.output.dense"],
    "attention_norm": ["attention.output.LayerNorm"],
    "up": ["intermediate.dense"],
    "down": ["output.dense"],
    "output_norm": ["output.LayerNorm"],
}
MPNET = BERT | {
    "qkv": ["attention.attn.q", "attention.attn.k", "attention.attn.v"],
    "out": ["attention.attn.o"],
    "attention_norm": ["attention.LayerNorm"],
}


class Encoder(nn.Module):
    """The encoder of `folder` with a linear layer of `heads` outputs on its embedding."""

    def __init__(self, folder: Path, heads: int) -> None:
        super().__init__()
        self.config = config = json.loads((folder / "config.json").read_text())
        if config["model_type"] not in ("bert", "mpnet"):
            raise ValueError(
                f"`{folder}`: expected model_type bert or mpnet, found {config['model_type']}"
            )
        self.mpnet = config["model_type"] == "mpnet"
        self.parts = MPNET if self.mpnet else BERT
        stored = load_file(str(folder / "model.safetensors"))
        tensors = {
            n.removeprefix("mpnet."): torch.from_numpy(t).float()
            for n, t in stored.items()
            if t.dtype != np.int64
        }
        hidden = config["hidden_size"]
        self.words = nn.Parameter(tensors["embeddings.word_embeddings.weight"])
        positions = tensors["embeddings.position_embeddings.weight"][2 if self.mpnet else 0 :][
            :POSITIONS
        ]
        if not self.mpnet:
            positions = positions + tensors["embeddings.token_type_embeddings.weight"][0]
        self.positions = nn.Parameter(positions.clone())
        self.norm = nn.LayerNorm(hidden, eps=config["layer_norm_eps"])
        self.norm.weight.data = tensors["embeddings.LayerNorm.weight"]
        self.norm.bias.data = tensors["embeddings.LayerNorm.bias"]
        self.layers = nn.ModuleList(Layer(config) for _ in range(config["num_hidden_layers"]))
        for number, layer in enumerate(self.layers):
            for part, names in self.parts.items():
                for kind in ("weight", "bias"):
                    values = [tensors[f"encoder.layer.{number}.{name}.{kind}"] for name in names]
                    getattr(getattr(layer, part), kind).data = torch.cat(values)
        if self.mpnet:
            self.relative = nn.Parameter(tensors["encoder.relative_attention_bias.weight"])
            self.register_buffer(
                "buckets", torch.from_numpy(relative_buckets(POSITIONS)), persistent=False
            )
        self.head = nn.Linear(hidden, heads)
        self.has_heads = "head.weight" in tensors
        torch.nn.init.zeros_(self.head.weight)
        torch.nn.init.zeros_(self.head.bias)
        if self.has_heads:  # of the first labels; the file may have fewer
            count = len(tensors["head.bias"])
            self.head.weight.data[:count] = tensors["head.weight"]
            self.head.bias.data[:count] = tensors["head.bias"]

    @torch.no_grad()
    def shrink(
        self, layers: tuple[int, ...], inner: int, ids: torch.Tensor, mask: torch.Tensor
    ) -> None:
        """Keep only these layers, and of each the `inner` units that matter most for these texts.

        A unit matters by its mean absolute activation times the length of its output weights.
        """
        means, active = {}, []
        hooks = [
            layer.up.register_forward_hook(
                lambda _, __, out, number=number: means.__setitem__(
                    number, functional.gelu(out)[mask].abs().mean(0)
                )
            )
            for number, layer in enumerate(self.layers)
        ]
        self.embed(ids, mask)
        for hook in hooks:
            hook.remove()
        for number in layers:
            layer = self.layers[number]
            matter = means[number] * layer.down.weight.norm(dim=0)
            units = matter.topk(inner).indices.sort().values
            layer.up.weight.data = layer.up.weight[units].clone()
            layer.up.bias.data = layer.up.bias[units].clone()
            layer.down.weight.data = layer.down.weight[:, units].clone()
            active.append(layer)
        self.layers = nn.ModuleList(active)

    def embed(self, ids: torch.Tensor, mask: torch.Tensor, dropout: float = 0.0) -> torch.Tensor:
        """Map ids i64 (N, L) and mask bool (N, L) to unit vectors f32 (N, hidden)."""
        length = ids.shape[1]
        x = self.norm(functional.embedding(ids, self.words) + self.positions[:length])
        x = functional.dropout(x, dropout, self.training)
        bias = torch.zeros(mask.shape, dtype=x.dtype, device=x.device).masked_fill(~mask, -1e9)[
            :, None, None, :
        ]
        if self.mpnet:
            bias = bias + functional.embedding(
                self.buckets[:length, :length], self.relative
            ).permute(2, 0, 1)
        for layer in self.layers:
            x = layer(x, bias, dropout)
        weight = mask.to(torch.float32)[..., None]
        mean = (x.float() * weight).sum(1) / weight.sum(1)
        return functional.normalize(mean, dim=-1)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, dropout: float = 0.0) -> torch.Tensor:
        """Return logits f32 (N, heads)."""
        return functional.linear(self.embed(ids, mask, dropout), self.head.weight, self.head.bias)

    def tensors(self) -> dict[str, np.ndarray]:
        """Return f32 weights by the names of the source file, with `head.weight` and `head.bias`.

        BERT's token type is part of the positions, so its own table is zero.
        """
        out = {
            "embeddings.word_embeddings.weight": self.words,
            "embeddings.position_embeddings.weight": self.positions,
            "embeddings.LayerNorm.weight": self.norm.weight,
            "embeddings.LayerNorm.bias": self.norm.bias,
            "head.weight": self.head.weight,
            "head.bias": self.head.bias,
        }
        if self.mpnet:
            out["encoder.relative_attention_bias.weight"] = self.relative
        else:
            out["embeddings.token_type_embeddings.weight"] = torch.zeros(
                2, self.config["hidden_size"]
            )
        for number, layer in enumerate(self.layers):
            for part, names in self.parts.items():
                for kind in ("weight", "bias"):
                    for name, value in zip(
                        names, getattr(getattr(layer, part), kind).chunk(len(names))
                    ):
                        out[f"encoder.layer.{number}.{name}.{kind}"] = value
        return {n: np.ascontiguousarray(t.detach().float().cpu().numpy()) for n, t in out.items()}
