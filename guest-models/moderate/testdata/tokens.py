"""Writes tokens.json: token rows by tests/scripts/words.py, the reference for `words`."""
import json
import sys
from pathlib import Path

here = Path(__file__).parent
sys.path.insert(0, str(here / "../../../tests/scripts"))
from words import word_ids  # noqa: E402

vocabulary = json.loads((here / "../../../weights/toxic-bilstm/vocab.json").read_text())

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
    "you\r\nare an\u00a0\u201cidiot\u201d",
    "you\u2014idiot\u2014shut up\u2026",
    "you\u2028are\u2029a\u0085complete\u3000idiot",
    "idiot\U0001f600 \u2764\ufe0fidiot\u2764\ufe0f \U0001f469\u200d\U0001f4bbfool",
    "you\u2018idiot\u2019fool\u2019s",
    "don\u2019t it\u00b4s \u2018idiot\u2019 'idiot' ''fool'' users\u2019",
    "you'idiot you'are'an'idiot You complete idiot's xyzzyplugh' don't o'brien",
    "\uff59\uff4f\uff55\u3000\uff49\uff44\uff49\uff4f\uff54 \U0001d422\U0001d41d\U0001d422\U0001d428\U0001d42d \u24d8\u24d3\u24d8\u24de\u24e3",
    "id\u200biot you\u200bidiot i\u00add\u2060i\ufeffot \u202eidiot\u202c \U000e0041fool",
    "i\u0301d\u0334\u0353io\u0489t \u00cdD\u00cf\u00d6T jos\u00e9 JOSE\u0301 caf\u00e9",
    "\u4f60\u662fidiot\u5417 \u041f\u0440\u0438\u0432\u0435\u0442 idiot\uc774\uc57c d\u03b1lus \u9023\u7d61",
    "idiot\u2122 idiot\u2460 km\u00b2 \u00bdidiot \u2116idiot \u3392 \ufdfa",
    "nul\u0000byte you\u0007idiot\u001b[0m \u0093idiot\u0094 del\u007fete",
    "\u0645\u0631\u062d\u0628\u0627 \u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \ud55c\uad6d\uc5b4 idiot",
    "\ufb01ne \ufb02ag \ufb06upid \u017ftupid \u2163 \u0132 \u01c4",
]
SEPARATORS = "\r\v\f\x85\xa0\u1680\u2007\u2028\u202f\u3000\u201c\u00ab\u300c\u2010\u2013\u2212\u2025\u3002\uff0c\u00b7\u2022\uff5c\u20ac\u2800\U0001f595"
TEXTS += [f"you{separator}idiot{separator}" for separator in SEPARATORS]


def row(text):
    ids = word_ids(text, vocabulary)[-100:]
    return [0] * (100 - len(ids)) + ids


cases = [json.dumps({"text": text, "row": row(text)}) for text in TEXTS]
(here / "tokens.json").write_text("[\n" + ",\n".join(cases) + "\n]\n")
