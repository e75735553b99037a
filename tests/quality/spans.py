"""Measure how often deleting the top span lowers the score.

    python tests/quality/spans.py --data DATA_DIR --out spans.json

Starts the server with the built-in configuration, or with --config, and judges test rows of each
set with label 1 until --texts of them are flagged, with `explain: "spans"`. The span with the
highest contribution of each flagged text is deleted, and a separate request judges the rest: the
share of texts whose score in that category is lower, and the share that the category no longer
flags. A flagged text without a span counts as not lowered. Also the length of the spans, as a share
of the text's characters. Prints no texts. DATA_DIR is the folder that
weights/convert/moderation_encoder/README.md describes. Needs numpy.
"""

import json
import random
from pathlib import Path

import numpy as np
from measure import Server, data, parser

# Sets, and the label of their rows.
SETS = {"davidson": "offensive", "hatemoji": "hate", "edos": "sexist", "slabs": "injection"}
# Of sexist posts, few are flagged: the built-in configuration only reports the category.
THRESHOLDS = {"edos": {"sexism": 0.5}}
AT_ONCE = 4
# Longer words are cut in the answer, and control characters escaped.
MAX_TEXT_BYTES = 256


def judge(server: Server, texts: list[str], options: dict) -> dict:
    """Return the answer of the server to an array of texts."""
    return server.post(json.dumps({"input": texts, "infer": options}))


def scores(answer: dict, index: int) -> dict[str, tuple[float, bool]]:
    """Return score and flag of each category of one result."""
    result = answer["results"][index]
    own = {
        name: (score, result["categories"][name]) for name, score in result["category_scores"].items()
    }
    further = answer["infer"].get("categories") or [{}] * len(answer["results"])
    return own | {name: (found["score"], found["flagged"]) for name, found in further[index].items()}


def measured(server: Server, texts: list[str], thresholds: dict[str, float], count: int) -> dict:
    """Delete the top span of up to `count` flagged texts, and return the shares."""
    judged, flagged, spans, lowered, cleared, lengths = 0, 0, 0, 0, 0, []
    for start in range(0, len(texts), AT_ONCE):
        some = texts[start : start + AT_ONCE]
        answer = judge(server, some, {"explain": "spans", "thresholds": thresholds})
        judged += len(some)
        rest = []
        for index, text in enumerate(some):
            if not answer["results"][index]["flagged"] or flagged >= count:
                continue
            flagged += 1
            found = answer["infer"]["explanations"][index]["spans"]
            if not found:
                continue
            top = max(found, key=lambda span: span["contribution"])
            # Python's strings, as the API, count Unicode scalar values.
            words = text[top["start"] : top["end"]]
            is_plain = words.isprintable() and len(words.encode()) <= MAX_TEXT_BYTES
            if is_plain and words != top["text"]:
                raise RuntimeError("a span does not have the text that its positions have")
            before = scores(answer, index)[top["category"]][0]
            rest.append((text[: top["start"]] + text[top["end"] :], top["category"], before))
            lengths.append((top["end"] - top["start"]) / len(text))
        spans += len(rest)
        if rest:
            again = judge(server, [text for text, _, _ in rest], {"thresholds": thresholds})
            for index, (_, category, before) in enumerate(rest):
                after, flag = scores(again, index)[category]
                lowered += after < before
                cleared += not flag
        if flagged >= count:
            break
    return {
        "judged": judged,
        "flagged": flagged,
        "with_spans": spans,
        "lowered": round(lowered / max(1, flagged), 4),
        "no_longer_flagged": round(cleared / max(1, flagged), 4),
        "median_length": round(float(np.median(lengths)) if lengths else 0.0, 3),
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--config", type=Path, help="infer.toml (default: the built-in configuration)")
    options.add_argument("--texts", type=int, default=100, help="flagged texts of each set")
    arguments = options.parse_args()
    rows = data.read(arguments.data, raw=True)
    server = Server(arguments.infer, arguments.config)
    record = {}
    try:
        for name, label in SETS.items():
            chosen = [r for r in rows if r.source == name and r.split == "test" and r.labels[label]]
            texts = [r.text for r in chosen]
            random.Random(0).shuffle(texts)
            record[name] = measured(server, texts, THRESHOLDS.get(name, {}), arguments.texts)
            print(name, json.dumps(record[name]), flush=True)
    finally:
        server.stop()
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
