"""Token rows as Keras makes them: the reference for `tokens`. Writes tokens.json beside itself; needs Python alone."""
import json
from pathlib import Path

here = Path(__file__).parent
vocabulary = json.loads((here / "../../../weights/toxic-bilstm/vocab.json").read_text())
known = vocabulary["vocab"]
spaces = str.maketrans({character: vocabulary["split"] for character in vocabulary["filters"]})

TEXTS = [
    "",
    "   ",
    "You are so dumb and stupid!",
    "This is wonderful news.",
    "You're the WORST person ever!!!",
    "don't_do-this/at.home\tor\nhere\r\nplease",
    "Ünïcödé naïve café — “quoted” text… 日本語",
    "İstanbul ΑΣ ΟΔΥΣΣΕΥΣ. Σ",
    "xyzzyplugh unknownwordhere",
    "I will kill you and your family, " * 30,
    "the " * 100,
    "the " * 100 + "end",
    "a" * 5000,
]


def row(text):
    words = text.lower().translate(spaces).split(vocabulary["split"])
    ids = [known[word] for word in words if word in known][-100:]
    return [0] * (100 - len(ids)) + ids


cases = [json.dumps({"text": text, "row": row(text)}) for text in TEXTS]
(here / "tokens.json").write_text("[\n" + ",\n".join(cases) + "\n]\n")
