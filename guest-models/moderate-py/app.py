"""A moderator in Python.

It judges text with the model `text` as in the Rust guest, and reports images as gaps.

This module runs when the component is built, and its state becomes part of the component, including
the vocabulary (vocabulary.py, which `make guests-py` writes).
"""

import array
import math
import re
import struct
import unicodedata

from componentize_py_types import Err
from vocabulary import SHA256, VOCABULARY
from wit_world import exports
from wit_world.exports.moderation import CategoryScore, Gap, Kinds, Part_Text, Tier, Verdict
from wit_world.imports import graph, store
from wit_world.imports.tensor import Tensor, TensorType
from wit_world.imports.types import Fault_Internal, Fault_InvalidInput, Fault_Model, Fault_TooLarge, ModelFailure

SEPARATORS = re.compile(r"""[ !"#$%&()*+,\-./:;<=>?@\[\\\]^_`{|}~\t\n\r\v\f]+""")
CONTROL = re.compile(r"[\0-\x08\x0e-\x1f\x7f]")
APOSTROPHES = re.compile("['\u00b4\u02b9\u02bb\u02bc\u02bd\u2018\u2019\u201b\u2032\uff07]")
UNSEEN = re.compile(
    "[\u0080-\u0084\u0086-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
PARTS = re.compile("(?=')")
LATIN = re.compile("[\0-\u036f\u1d00-\u1dbf\u1e00-\u1eff\u2c60-\u2c7f\ua720-\ua7ff]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)  # the syntax of every guest
MAX_WINDOWS = 64
JUDGED = {
    # OpenAI's category: default threshold, rule and labels of the Jigsaw challenge.
    "harassment": (0.7, max, ["toxic", "severe_toxic", "insult", "obscene"]),
    "harassment/threatening": (0.2, max, ["threat"]),
    "hate": (0.25, max, ["identity_hate"]),
    "hate/threatening": (0.2, min, ["identity_hate", "threat"]),
}
UNJUDGED = [
    "illicit", "illicit/violent", "self-harm", "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence",
    "violence/graphic",
]  # fmt: skip


class Moderation(exports.Moderation):
    """The interface `infer:guest/moderation`."""

    def moderate(self, input):
        """Judges all parts together."""
        if not input:
            raise Err(Fault_InvalidInput("input: expected at least one part, found none"))
        settings = dict(store.get_all())
        texts = [part.value for part in input if isinstance(part, Part_Text)]
        has_image = len(texts) < len(input)
        rows = judge(settings, texts) if texts and "models.text.task" in settings else None
        verdict = Verdict(False, [], [])
        for category in [*JUDGED, *UNJUDGED]:
            default, rule, labels = JUDGED.get(category, (0.5, max, []))
            threshold = single(number(settings, f"threshold.{category}", default))
            score = worst(rows or [], rule, labels)
            reasons = []
            if texts and score is None:
                reasons.append("no text model is configured" if rows is None else "no text model judges it")
            if has_image:
                reasons.append("this guest judges no images")
            if score is not None:
                flagged = score >= threshold
                verdict.flagged |= flagged
                verdict.scores.append(CategoryScore(category, score, flagged, Kinds.TEXT, Tier.CLASSIFIER))
            if reasons:
                unjudged = Kinds.TEXT if texts and score is None else Kinds(0)
                if has_image:
                    unjudged |= Kinds.IMAGE
                verdict.gaps.append(Gap(category, unjudged, "; ".join(reasons)))
        return verdict


def judge(settings, texts):
    """Runs the model on windows of the texts. Returns the scores of each window by label."""

    def card(key, default=None):
        return settings.get(f"models.text.{key}", default)

    if card("input.dtype") != "i32" or card("input.text.pad", "left") != "left":
        found = f"{card('input.dtype')} on the {card('input.text.pad')}"
        raise Err(Fault_Internal(f"model `text`: expected i32 token ids padded on the left, found {found}"))
    if card("input.text.vocabulary.sha256", SHA256) != SHA256:
        message = "model `text`: its vocabulary is not the one that this guest was built with; build the guest for it"
        raise Err(Fault_Internal(message))
    size = at_least_one(settings, "models.text.input.text.max_tokens", 100)
    max_windows = at_least_one(settings, "text.max_windows", MAX_WINDOWS)
    windows = []
    for text in texts:
        windows.extend(cut(ids(text), size))
        if len(windows) > max_windows:
            message = f"text: more than {max_windows} windows of {size} words; send it in pieces, or raise `text.max_windows`"
            raise Err(Fault_TooLarge(message))
    rows = array.array("i")
    for window in windows:
        rows.extend([0] * (size - len(window)))
        rows.extend(window)
    labels = card("labels").split("\n")
    try:
        context = graph.load_by_name("text").init_execution_context()
        tensor = Tensor([len(windows), size], TensorType.I32, rows.tobytes())
        outputs = dict(context.compute([(card("input.name"), tensor)]))
        scores = array.array("f", outputs[card("output.name")].data())
    except Err as error:
        raise Err(Fault_Model(ModelFailure("text", error.value.data()))) from None
    if len(scores) != len(windows) * len(labels):
        message = f"model `text`: expected {len(windows) * len(labels)} scores, found {len(scores)}"
        raise Err(Fault_Internal(message))
    return [dict(zip(labels, scores[first:])) for first in range(0, len(scores), len(labels))]


def ids(text):
    """Returns the ids of the known words, in order, by the rules of moderate/src/words.rs."""
    found = []
    if text.isascii() and not CONTROL.search(text):
        for word in SEPARATORS.split(text.lower()):
            number = known(word)
            found.extend([number] if number is not None or "'" not in word else readings(PARTS.split(word)))
    else:
        for word in SEPARATORS.split(folded(text)):
            found.extend(readings(word.split("\0")))
    return [number for number in found if number is not None]


def readings(pieces):
    """Returns the ids of a word of these pieces.

    They are those of the whole word, of the word without a possessive `'s`, or of the pieces.
    """
    pieces = [piece for piece in pieces if piece]
    word = "".join(pieces)
    whole = id_of(word)
    if whole is None and word.lower().endswith("'s"):
        whole = id_of(word[:-2])
    if whole is None and len(pieces) > 1:
        return [id_of(piece) for piece in pieces if piece != "'"]
    return [whole]


def folded(text):
    """Folds the text into compatibility forms.

    A blank separates words, and a NUL separates the pieces of a word.
    """
    folded = []
    latin = None
    for character in text:
        if UNSEEN.match(character) or CONTROL.match(character):
            folded.append("\0")
            continue
        if APOSTROPHES.match(character):
            folded.append("\0")
            character = "'"
        loose = not character.isascii() and unicodedata.category(character)[0] not in "LM"
        if loose:
            folded.append("\0")
        for part in unicodedata.normalize("NFKD", character):
            kind = unicodedata.category(part)[0]
            if part.isascii() and SEPARATORS.match(part) or not part.isascii() and kind not in "LMN":
                part, latin = " ", None
            elif kind != "M":
                before, latin = latin, LATIN.match(part) is not None
                if before is not None and before != latin:
                    folded.append("\0")
            folded.append(part)
        if loose:
            folded.append("\0")
    return "".join(folded)


def id_of(word):
    """Returns the id of a word, with or without its marks."""
    lower = word.lower()
    number = known(unicodedata.normalize("NFC", lower))
    if number is None:
        number = known("".join(character for character in lower if unicodedata.category(character)[0] != "M"))
    return number


def known(word):
    """Returns the id of a word, with or without the apostrophes around it."""
    number = VOCABULARY.get(word)
    return VOCABULARY.get(word.strip("'")) if number is None else number


def cut(ids, size):
    """Cuts windows of at most `size` ids, half a window apart; the last ends with the text."""
    last = len(ids) - size
    if last < 0:
        return [ids]
    return [ids[first : first + size] for first in range(0, last, -(-size // 2))] + [ids[last:]]


def worst(rows, rule, labels):
    """Returns the largest score of a row by the rule, or None if the model lacks its labels."""
    scores = []
    for row in rows:
        values = [row[label] for label in labels if label in row]
        if values and (rule is max or len(values) == len(labels)):
            scores.append(rule(values))
    return max(scores, default=None)


def single(value):
    """Rounds a number to f32, as in the interface."""
    return struct.unpack("f", struct.pack("f", value))[0]


def number(settings, key, default):
    """Returns a numeric setting."""
    text = settings.get(key)
    value = default
    if text is not None:
        value = float(text) if NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise Err(Fault_Internal(f"setting `{key}`: expected a finite number, found `{text}`"))
    return value


def at_least_one(settings, key, default):
    """Returns a setting that is a positive integer."""
    text = settings.get(key, str(default))
    if not re.fullmatch(r"\+?\d+", text, re.ASCII) or not 1 <= int(text) <= 0xFFFFFFFF:
        raise Err(Fault_Internal(f"setting `{key}`: expected a whole number from 1 on, found `{text}`"))
    return int(text)
