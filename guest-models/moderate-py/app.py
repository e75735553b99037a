"""A moderator in Python.

It judges texts with the text models of its configuration, as the Rust guest (guest-models/moderate)
does, and reports images as gaps. The host tokenizes the texts.

This module runs when the component is built, and its state becomes part of the component.
"""

import array
import json
import math
import re
import struct
from dataclasses import dataclass, field

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.moderation import CategoryScore, Gap, Kinds, Part_Text, Tier, Verdict
from wit_world.imports import graph, spans, store
from wit_world.imports.spans import Span
from wit_world.imports.tensor import Tensor, TensorType
from wit_world.imports.types import Fault_Internal, Fault_InvalidInput, Fault_Model, ModelFailure

# OpenAI's categories, in the order of the verdict. They can be flagged even if no card has a
# threshold for them.
OPENAI = [
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
]  # fmt: skip
THRESHOLD = 0.5
# Kind of the parts that the models of each task judge.
KINDS = {"text-classification": "text", "token-classification": "text", "image-classification": "image"}
# Combinations of the scores of labels into one, in f32 as in every guest.
RULES = {
    "max": max,
    "min": min,
    "sum": lambda scores: total(scores),
    "not": lambda scores: single(1 - scores[0]),
}
# Numbers in the syntax of settings, as in every guest.
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


class Moderation(exports.Moderation):
    """The interface `infer:guest/moderation`."""

    def moderate(self, input):
        """Judges all parts together."""
        if not input:
            raise Err(Fault_InvalidInput("input: expected at least one part, found none"))
        settings = dict(store.get_all())
        texts = [Text(index, part.value) for index, part in enumerate(input) if isinstance(part, Part_Text)]
        classifiers = configured(settings)
        assignments = [assignment(settings, classifiers, name) for name in names(settings, classifiers)]
        judgements = {}
        for classifier in classifiers if texts else []:
            is_used = any(
                assigned.judge and assigned.judge.model == classifier.model for assigned in assignments
            )
            if classifier.kind == "text" and (is_used or classifier.task == "token-classification"):
                judgements[classifier.model] = judge(classifier, texts)
        has_model = any(classifier.kind == "text" for classifier in classifiers)
        unread = "no text model judges it" if has_model else "no text model is configured"
        return verdict(assignments, judgements, unread if texts else None, len(texts) < len(input))


@dataclass
class Text:
    """A text of the input, with its index among the parts."""

    part: int
    text: str


@dataclass
class Classifier:
    """A configured classifier."""

    model: str
    task: str
    labels: list[str]
    categories: dict[str, "Judge"] = field(default_factory=dict)

    @property
    def kind(self):
        """Kind of the parts that it judges."""
        return KINDS[self.task]


@dataclass
class Judge:
    """The computation of a category's score from a classifier's labels."""

    rule: str
    labels: list[str]
    threshold: float | None = None
    model: str | None = None

    def is_valid(self):
        """Returns True for a known rule that has its labels."""
        return self.rule in RULES and bool(self.labels) and (self.rule != "not" or len(self.labels) == 1)

    def score(self, row):
        """Returns the score of a row, or None if the model lacks the labels.

        `min` needs all of them, the other rules need one.
        """
        scores = [row[label] for label in self.labels if label in row]
        if not scores or (self.rule == "min" and len(scores) < len(self.labels)):
            return None
        return RULES[self.rule](scores)


@dataclass
class Assignment:
    """A category of the verdict; without a threshold it is only reported."""

    name: str
    threshold: float | None
    judge: Judge | None


@dataclass
class Judgement:
    """The scores of each text by label, and the reason if one was read in part."""

    rows: list[dict[str, float]]
    gap: str | None


def configured(settings):
    """Returns the configured classifiers, in the order of their names."""
    classifiers = []
    matches = (re.fullmatch(r"models\.([^.]+)\.task", key) for key in settings)
    for model in sorted(match[1] for match in matches if match):
        task = settings[f"models.{model}.task"]
        if task in KINDS:
            labels = settings.get(f"models.{model}.labels")
            classifier = Classifier(model, task, labels.split("\n") if labels else [])
            classifier.categories = categories(settings, model)
            classifiers.append(classifier)
    return classifiers


def categories(settings, model):
    """Returns the categories of a model's card by name."""
    found = {}
    try:
        for name, fact in json.loads(settings.get(f"models.{model}.categories", "{}")).items():
            threshold = fact.get("threshold")
            threshold = None if threshold is None else single(threshold)
            found[name] = Judge(fact["rule"], fact["labels"], threshold, model)
            if not found[name].is_valid():
                raise ValueError("expected a rule with labels")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        message = f"model `{model}`: the fact `categories` is malformed: {error}"
        raise Err(Fault_Internal(message)) from None
    return found


def names(settings, classifiers):
    """Returns OpenAI's categories, then those of the cards, then those of the settings."""
    of_cards = [name for classifier in classifiers for name in classifier.categories]
    of_settings = [key.removeprefix("category.") for key in sorted(settings) if key.startswith("category.")]
    return dict.fromkeys([*OPENAI, *of_cards, *of_settings])


def assignment(settings, classifiers, name):
    """Assigns a category to the classifier that judges it in texts.

    Those for images count as well, so that one configuration is valid for every guest.
    """
    model, rule = choice(settings, name)
    if model is not None and all(classifier.model != model for classifier in classifiers):
        known = quoted(classifier.model for classifier in classifiers)
        raise unfit(name, f"no classifier `{model}`, expected one of {known}")
    text = judge_of(classifiers, name, "text", model, rule)
    image = judge_of(classifiers, name, "image", model, rule)
    if rule is not None and text is None and image is None:
        raise unfit(name, "no classifier has the labels of its rule")
    thresholds = [judge.threshold for judge in (text, image) if judge and judge.threshold is not None]
    default = THRESHOLD if name in OPENAI else None
    threshold = number(settings, f"threshold.{name}", thresholds[0] if thresholds else default)
    return Assignment(name, threshold, text)


def judge_of(classifiers, name, kind, model, rule):
    """Returns the judge of a category in the parts of a kind, or None.

    It is the operator's model, otherwise the first one that has the labels of the operator's rule,
    or whose card judges the category.
    """
    candidates = [classifier for classifier in classifiers if classifier.kind == kind]
    if model is None and rule is not None:
        fitting = [classifier for classifier in candidates if missing(classifier, rule) is None]
    else:
        fitting = [classifier for classifier in candidates if name in classifier.categories]
    classifier = next((own for own in candidates if own.model == model), next(iter(fitting), None))
    if classifier is None:
        return None
    own = classifier.categories.get(name)
    if rule is None or (model is not None and classifier.model != model):
        if own is None:
            raise unfit(name, f"the card of model `{classifier.model}` does not judge it; add a rule")
        return own
    label = missing(classifier, rule)
    if label is not None:
        known = quoted(classifier.labels)
        raise unfit(name, f"model `{classifier.model}` has no label `{label}`, expected one of {known}")
    return Judge(rule.rule, rule.labels, own and own.threshold, classifier.model)


def missing(classifier, rule):
    """Returns the first label of the rule that the classifier lacks, or None."""
    return next((label for label in rule.labels if label not in classifier.labels), None)


def choice(settings, name):
    """Returns the operator's model and rule for a category, each None if it is not chosen."""
    key = f"category.{name}"
    text = settings.get(key)
    if text is None:
        return None, None
    before, colon, behind = text.partition(":")
    has_rule = bool(colon) or "(" in text
    model = before.strip() if colon or not has_rule else None
    rule = parse_rule(behind if colon else text) if has_rule else None
    if model == "" or (has_rule and rule is None):
        expected = (
            "a model, a rule such as `max(toxic, insult)`, or `MODEL: RULE`; rules are max, min, sum, not"
        )
        raise Err(Fault_Internal(f"setting `{key}`: expected {expected}, found `{text}`"))
    return model, rule


def parse_rule(text):
    """Parses `max(toxic, insult)`. Returns None if it is malformed."""
    match = re.fullmatch(r"([^(]*)\((.*)\)", text.strip(), re.DOTALL)
    if match is None:
        return None
    labels = [label.strip() for label in match[2].split(",")]
    rule = Judge(match[1].strip(), [label for label in labels if label])
    return rule if rule.is_valid() else None


def quoted(names):
    """Returns the names for a message."""
    return f"`{'`, `'.join(names)}`"


def unfit(name, problem):
    """Returns the error for the setting of a category."""
    return Err(Fault_Internal(f"setting `category.{name}`: {problem}"))


def judge(classifier, texts):
    """Judges all texts in one run, and reports the spans that a token classifier labels."""
    model, labels = classifier.model, classifier.labels
    outputs = Outputs(model, [text.text for text in texts])
    scores = outputs.numbers("scores", [len(texts), len(labels)])
    facts = outputs.json("metadata")
    if classifier.task == "token-classification":
        spans.report(
            [
                Span(text.part, span["label"], span["score"], span["start"], span["end"])
                for text, found in zip(texts, outputs.json("spans"))
                for span in found
            ]
        )
    read_in_part = zip(texts, facts["tokens"], facts["truncated"])
    gaps = [
        f"part {text.part + 1}: model `{model}` read the beginning of {tokens} tokens"
        for text, tokens, is_truncated in read_in_part
        if is_truncated
    ]
    rows = [dict(zip(labels, scores[row * len(labels) :])) for row in range(len(texts))]
    return Judgement(rows, gaps[0] if gaps else None)


class Outputs:
    """The outputs of a text model for texts."""

    def __init__(self, model, texts):
        """Runs the model."""
        self.model = model
        data = json.dumps(texts, ensure_ascii=False).encode()
        try:
            context = graph.load_by_name(model).init_execution_context()
            self.tensors = dict(context.compute([("texts", Tensor([len(data)], TensorType.U8, data))]))
        except Err as error:
            raise self.unusable(error.value.data()) from None

    def numbers(self, name, shape):
        """Returns f32 values of a shape, row-major."""
        values = array.array("f", self.bytes(name, TensorType.FP32, shape))
        # A NaN is below every threshold and would pass as harmless.
        if not all(map(math.isfinite, values)):
            raise self.unusable(f"output `{name}` contains values that are not finite")
        return values

    def json(self, name):
        """Returns the value of a JSON document."""
        try:
            return json.loads(self.bytes(name, TensorType.U8))
        except ValueError as error:
            raise self.unusable(f"output `{name}`: {error}") from None

    def bytes(self, name, kind, shape=None):
        """Returns the data of an output of this type and shape."""
        tensor = self.tensors.get(name)
        if tensor is None:
            raise self.unusable(f"no output `{name}`; outputs: {', '.join(self.tensors)}")
        found, dimensions = tensor.ty(), list(tensor.dimensions())
        if found != kind or shape not in (None, dimensions):
            expected = kind.name if shape is None else f"{kind.name} of shape {shape}"
            message = f"output `{name}`: expected {expected}, found {found.name} of shape {dimensions}"
            raise self.unusable(message)
        return tensor.data()

    def unusable(self, message):
        """Returns the error for outputs that the guest cannot use."""
        return Err(Fault_Model(ModelFailure(self.model, message)))


def verdict(assignments, judgements, unread, has_image):
    """Returns the score of the worst text for each category, or the reasons of its gaps.

    `unread` is the reason for a category without a score, None if the input has no text. A category
    beyond OpenAI's that is only reported has no gaps.
    """
    verdict = Verdict(False, [], [])
    for assigned in assignments:
        judgement = judgements.get(assigned.judge.model) if assigned.judge else None
        scores = [assigned.judge.score(row) for row in judgement.rows] if judgement else []
        score = max((score for score in scores if score is not None), default=None)
        unjudged, reasons = Kinds(0), []
        if unread is not None and score is None:
            unjudged |= Kinds.TEXT
            reasons.append(unread)
        if has_image:
            unjudged |= Kinds.IMAGE
            reasons.append("this guest judges no images")
        if judgement and judgement.gap:
            unjudged |= Kinds.TEXT
            reasons.append(judgement.gap)
        if score is not None:
            flagged = assigned.threshold is not None and score >= assigned.threshold
            verdict.flagged |= flagged
            verdict.scores.append(CategoryScore(assigned.name, score, flagged, Kinds.TEXT, Tier.CLASSIFIER))
        if reasons and assigned.threshold is not None:
            verdict.gaps.append(Gap(assigned.name, unjudged, "; ".join(reasons)))
    return verdict


def total(scores):
    """Returns the sum of scores, at most 1."""
    sum = scores[0]
    for score in scores[1:]:
        sum = min(single(sum + score), 1.0)
    return sum


def single(value):
    """Rounds a number to f32, as in the interface."""
    return struct.unpack("f", struct.pack("f", value))[0]


def number(settings, key, default):
    """Returns a numeric setting, rounded to f32."""
    text = settings.get(key)
    if text is None:
        return default
    try:
        value = single(float(text)) if NUMBER.fullmatch(text) else math.nan
    except OverflowError:
        value = math.nan
    if not math.isfinite(value):
        raise Err(Fault_Internal(f"setting `{key}`: expected a finite number, found `{text}`"))
    return value
