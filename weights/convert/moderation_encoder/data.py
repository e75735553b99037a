"""The training and validation rows: the labels of each set for each head, and the rows left out.

A row has a target in 0..1 and a weight for each head; a weight of 0 masks the head. A row that is a
near-twin of a test or validation row is left out of training. Near-twins are equal after `key`,
which drops case, white space, ASCII punctuation, addresses, user names and a leading `RT`. The test
splits are read here only for that; only evaluate.py measures them.
"""

import csv
import random
import re
import string
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from text import canonical, exchanged, harmless, noisy, requests

HEADS = ["harassment", "hate", "hate/threatening", "sexism", "prompt-injection"]
# Heads without labels: toxic-bilstm's answers teach them, in the order of words.py's columns.
TAUGHT = ["toxicity", "severe-toxicity", "profanity", "threat", "insult"]
DAVIDSON_TEST_ROWS = 4000
DAVIDSON_DEV_EVERY = 10
VARIANTS = [
    "clean",
    "noisy",
    "exchanged",
    "exchanged again",
]  # the four of a row without an identity term differ only in noise

# Measurements on the rows of a split: the sets, the head, and the label that counts as 1.
VALIDATION = {
    "hatemoji hate": (["hatemoji"], "hate", "hate"),
    "stormfront hate": (["stormfront"], "hate", "hate"),
    "davidson hate": (["davidson"], "hate", "hate"),
    "davidson harassment": (["davidson"], "harassment", "offensive"),
    "edos sexism": (["edos"], "sexism", "sexist"),
    "edos hate": (["edos"], "hate", "sexist"),
    "threats hate/threatening": (["edos", "hatemoji"], "hate/threatening", "threat"),
    "slabs prompt-injection": (["slabs"], "prompt-injection", "injection"),
    "neuralchemy prompt-injection": (["neuralchemy"], "prompt-injection", "injection"),
}

_DROPPED = str.maketrans("", "", string.whitespace + string.punctuation)
_HANDLES = re.compile(r"https?://\S+|@\w+|^\W*rt\b|\[user\]|\[url\]", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """One text of a set, in its canonical form, with the labels of the set."""

    source: str
    split: str  # train, dev or test
    text: str
    labels: dict[str, int] = field(
        hash=False
    )  # labels of the set: offensive, hate, threat, sexist, injection


def key(text: str) -> str:
    """Return the key that near-twins share."""
    return _HANDLES.sub(" ", text).casefold().translate(_DROPPED)


def _csv(path: Path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _threat_keys(path: Path, column: str, prefix: str) -> set[str]:
    """Return the keys of the texts that a publisher's file marks as threats."""
    return {key(canonical(row["text"])) for row in _csv(path) if row[column].startswith(prefix)}


def read(folder: Path, raw: bool = False) -> list[Row]:
    """Return all rows of all sets in `folder`, in a fixed order.

    The texts are in their canonical form, or with `raw` as published.
    """
    form = str if raw else canonical
    rows = []
    for number, row in enumerate(_csv(folder / "davidson_labeled_data.csv")):
        split = "train"
        if number < DAVIDSON_TEST_ROWS:
            split = "test"
        elif number % DAVIDSON_DEV_EVERY == 0:
            split = "dev"
        kind = int(row["class"])
        rows.append(
            Row(
                "davidson",
                split,
                form(row["tweet"]),
                {"offensive": int(kind != 2), "hate": int(kind == 0)},
            )
        )

    threats = {"hatemoji": set(), "edos": set()}
    for part in ("train", "validation", "test"):
        file = folder / f"hatemoji_{part}_types.csv"
        threats["hatemoji"] |= _threat_keys(file, "type", "threatening")
    threats["edos"] = _threat_keys(folder / "edos_labelled_aggregated.csv", "label_category", "1.")

    for source, name, label in [
        ("hatemoji", "hatemoji_build.csv", "hate"),
        ("edos", "edos.csv", "sexist"),
        ("slabs", "injection_slabs.csv", "injection"),
        ("neuralchemy", "injection_neuralchemy.csv", "injection"),
        ("stormfront", "stormfront_validation_only.csv", "hate"),
    ]:
        for row in _csv(folder / name):
            text = form(row["text"])
            labels = {label: int(row["label"])}
            if source in threats:
                labels["threat"] = int(key(canonical(text)) in threats[source])
            split = (
                "train" if row["split"] == "train" else "test" if row["split"] == "test" else "dev"
            )
            rows.append(Row(source, split, text, labels))
    rows += [Row("harmless", "train", canonical(text), {}) for text in harmless()]
    rows += [Row("requests", "train", canonical(text), {}) for text in requests()]
    return rows


def without_twins(rows: list[Row]) -> tuple[list[Row], dict[str, int]]:
    """Return the rows without near-twins, and the number left out for each source.

    A training row is left out if it is a near-twin of a validation or test row, a validation row if
    it is one of a test row.
    """
    test = {key(r.text) for r in rows if r.split == "test"}
    held_out = test | {key(r.text) for r in rows if r.split == "dev"}
    kept, dropped = [], {}
    for row in rows:
        twin = (row.split == "train" and key(row.text) in held_out) or (
            row.split == "dev" and key(row.text) in test
        )
        if twin:
            name = f"{row.source} {row.split}"
            dropped[name] = dropped.get(name, 0) + 1
        else:
            kept.append(row)
    return kept, dropped


def variants(row: Row, number: int) -> list[str]:
    """Return the texts of a row in training, one for each of VARIANTS.

    The row's number is the seed.
    """
    rng = random.Random(number)
    first, second = exchanged(row.text, rng), exchanged(row.text, rng)
    return [row.text, noisy(row.text, rng), first, second]


def measurements(rows: list[Row]) -> dict[str, tuple[str, np.ndarray, np.ndarray]]:
    """Return head, places among `rows`, and labels of each measurement that has rows."""
    out = {}
    for name, (sources, head, label) in VALIDATION.items():
        places = np.array([i for i, r in enumerate(rows) if r.source in sources], np.int64)
        if len(places):
            out[name] = (head, places, np.array([rows[i].labels[label] for i in places]))
    return out


@dataclass(frozen=True)
class Mix:
    """The weight of each set for each head; 0 masks the head."""

    davidson_hate: float = 0.0  # class 0 against 1 and 2, for `hate`
    edos_hate: float = 0.0  # sexist posts as `hate`; posts that are not sexist stay masked
    edos_not_hate: float = 0.0  # posts that are not sexist as not `hate`
    posts_not_injection: float = 0.3  # posts as not `prompt-injection`
    prompts_not_hate: float = (
        0.3  # harmless prompts as not `harassment`, `hate`, `hate/threatening`
    )
    harmless: float = 0.0  # harmless sentences as negatives of every head
    requests: float = 0.0  # harmless requests to an assistant likewise
    repeat_hatemoji: int = 3  # times that an epoch contains a row of HatemojiBuild
    share_davidson: float = 1.0  # share of Davidson's rows in an epoch; the next two likewise
    share_edos: float = 1.0
    share_slabs: float = 1.0


def targets(rows: list[Row], mix: Mix) -> tuple[np.ndarray, np.ndarray]:
    """Return targets and weights, f32 (rows, heads)."""
    y, w = np.zeros((2, len(rows), len(HEADS)), np.float32)
    column = {name: i for i, name in enumerate(HEADS)}

    def put(i: int, head: str, label: int, weight: float) -> None:
        y[i, column[head]], w[i, column[head]] = label, weight

    for i, row in enumerate(rows):
        labels = row.labels
        if row.source == "davidson":
            put(i, "harassment", labels["offensive"], 1)
            put(i, "hate", labels["hate"], mix.davidson_hate)
        elif row.source in ("hatemoji", "stormfront"):
            put(i, "hate", labels["hate"], 1)
        elif row.source == "edos":
            put(i, "sexism", labels["sexist"], 1)
            put(
                i,
                "hate",
                labels["sexist"],
                mix.edos_hate if labels["sexist"] else mix.edos_not_hate,
            )
        elif row.source in ("slabs", "neuralchemy"):
            put(i, "prompt-injection", labels["injection"], 1)
            if not labels["injection"]:
                for head in HEADS[:4]:
                    put(i, head, 0, mix.prompts_not_hate)
        else:
            for head in HEADS:
                put(i, head, 0, mix.harmless if row.source == "harmless" else mix.requests)
        if "threat" in labels:
            put(i, "hate/threatening", labels["threat"], 1)
        if row.source in ("davidson", "hatemoji", "edos"):
            put(i, "prompt-injection", 0, mix.posts_not_injection)
    return y, w
