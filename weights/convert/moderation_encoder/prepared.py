"""Rows as token ids, passes of an encoder over them, and the validation figures.

`SCORE` weighs the validation figures. It alone selects epochs, mixes and runs.
"""

import random
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional

import data
from data import HEADS, VALIDATION
from metrics import auroc
from model import Encoder

MAX_TOKENS = 128
# Weights of the validation figures in `score`, which selects epochs, mixes and runs.
SCORE = {
    "hatemoji hate": 0.3,
    "stormfront hate": 0.3,
    "davidson hate": 0.05,
    "davidson harassment": 0.1,
    "slabs prompt-injection": 0.075,
    "neuralchemy prompt-injection": 0.075,
    "threats hate/threatening": 0.05,
    "edos sexism": 0.05,
}


class Prepared:
    """All rows as token ids, on the host.

    A training row has one line of ids for each of data.VARIANTS.
    """

    def __init__(
        self, folder: Path, tokenizer_json: Path, limit: int | None, dev_only: bool = False
    ) -> None:
        rows, self.dropped = data.without_twins(data.read(folder))
        self.train = [r for r in rows if r.split == "train" and not dev_only]
        self.dev = [r for r in rows if r.split == "dev"]
        if limit:
            self.train = random.Random(0).sample(self.train, min(limit, len(self.train)))
            self.dev = random.Random(0).sample(self.dev, limit)
        tokenizer = Tokenizer.from_file(str(tokenizer_json))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MAX_TOKENS)
        texts = [
            text for number, row in enumerate(self.train) for text in data.variants(row, number)
        ]
        self.ids, self.lengths = self._encode(tokenizer, texts)
        self.dev_ids, self.dev_lengths = self._encode(tokenizer, [r.text for r in self.dev])
        self.sets = self._sets()

    @staticmethod
    def _encode(tokenizer: Tokenizer, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        ids, lengths = np.zeros((len(texts), MAX_TOKENS), np.int32), np.zeros(len(texts), np.int64)
        for i, encoding in enumerate(tokenizer.encode_batch(texts)):
            ids[i, : len(encoding.ids)], lengths[i] = encoding.ids, len(encoding.ids)
        return ids, lengths

    def _sets(self) -> dict[str, tuple[int, np.ndarray, np.ndarray]]:
        """Return head, rows and labels of each validation figure, by name."""
        out = {}
        for name, (sources, head, label) in VALIDATION.items():
            rows = np.array([i for i, r in enumerate(self.dev) if r.source in sources], np.int64)
            labels = np.array([self.dev[i].labels[label] for i in rows])
            out[name] = (HEADS.index(head), rows, labels)
        return out


class Device:
    """The token ids on the device, and passes over them without gradient."""

    def __init__(self, prepared: Prepared, device: str) -> None:
        self.device = device
        self.ids = torch.from_numpy(prepared.ids).to(device)
        self.tokens = torch.from_numpy(prepared.lengths).to(device)
        self.dev_ids = torch.from_numpy(prepared.dev_ids).to(device)
        self.dev_tokens = torch.from_numpy(prepared.dev_lengths).to(device)
        self.lengths, self.dev_lengths = prepared.lengths, prepared.dev_lengths

    def batch(self, lines: torch.Tensor, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids i64 and mask bool (N, L), with L rounded up to a multiple of 8."""
        length = min(MAX_TOKENS, -(-longest // 8) * 8)
        ids = self.ids[lines, :length].long()
        return ids, torch.arange(length, device=self.device) < self.tokens[lines, None]

    @torch.no_grad()
    def all(
        self, model: Encoder, what: str, lines: np.ndarray | None = None, bf16: bool = False
    ) -> torch.Tensor:
        """Return `embed` or `logits` of the validation rows, or of training lines, f32 (N, ...)."""
        ids, tokens, lengths = self.ids, self.tokens, self.lengths
        if lines is None:
            ids, tokens, lengths = self.dev_ids, self.dev_tokens, self.dev_lengths
            lines = np.arange(len(lengths))
        model.eval()
        order = lines[np.argsort(lengths[lines], kind="stable")]
        size, out = 512 if self.device == "cuda" else 64, []
        for start in range(0, len(order), size):
            some = order[start : start + size]
            length = min(MAX_TOKENS, -(-int(lengths[some[-1]]) // 8) * 8)
            at = torch.from_numpy(some).to(self.device)
            mask = torch.arange(length, device=self.device) < tokens[at, None]
            with torch.autocast(self.device, torch.bfloat16, enabled=bf16):
                out.append(model.embed(ids[at, :length].long(), mask))
        found = torch.cat(out)
        back = np.empty(len(lines), np.int64)
        back[np.argsort(lengths[lines], kind="stable")] = np.arange(len(lines))
        found = found[torch.from_numpy(back).to(self.device)]
        return (
            found
            if what == "embed"
            else functional.linear(found, model.head.weight, model.head.bias)
        )


def figures(prepared: Prepared, logits: np.ndarray) -> dict[str, float]:
    """Return the AUROC of each validation set, and `score`."""
    out = {
        name: round(auroc(y, logits[rows, head]), 5)
        for name, (head, rows, y) in prepared.sets.items()
    }
    out["score"] = round(sum(weight * out[name] for name, weight in SCORE.items()), 5)
    return out
