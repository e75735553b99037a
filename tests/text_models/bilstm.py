"""Write tests/data/text-models/bilstm.json: ids of the shipped BiLSTM's tokenizer.json.

It uses no code of the server: Python's `tokenizers` answers. Each case has the text and the ids of
its known words, in order, without padding and truncation; the id of `[UNK]` is left out. `nfkc_ids`
are the ids of the text in the form NFKC, where they differ: a caller that folds the text first
loses the boundary between a word and a symbol that becomes letters (`fool™`).

The script also compares the ids with Keras's rule for these words on texts of ASCII: they are the
same if no unknown word has an apostrophe, and otherwise those of Keras are among them.

    pip install -r requirements.txt
    python bilstm.py
"""

import json
import random
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parent.parent.parent
WEIGHTS = ROOT / "weights" / "toxic-bilstm"
OUT = ROOT / "tests" / "data" / "text-models" / "bilstm.json"
# Keras's filters, and blanks of ASCII that Keras takes for letters.
SEPARATORS = ' \t\n\r\v\f!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~'
RANDOM_TEXTS = 60

TEXTS = [
    "",
    "   ",
    "'",
    "''",
    "You are so dumb and stupid!",
    "This is wonderful news.",
    "You're the WORST person ever!!!",
    "don't_do-this/at.home\tor\nhere\r\nplease",
    "you\r\nare\ran\x0bidiot\x0cfool",
    "don't O'BRIEN wikipedia's 80's 's 'em users' ol'",
    "'don't' ''don't'' 'the' 'image' ''image'' 'users'",
    "you'idiot you'are'an'idiot You complete idiot's xyzzyplugh' xyzzyplugh's",
    "idiot''fool idiot's' IDIOT'S fool's'idiot rock'n'roll don'ts y'all'll",
    "''''''''''idiot '''''''''''idiot ''''''''''''''''''''",
    "jesus's jesus' james' you'll've i'd've it'd",
    "Ünïcödé naïve café — “quoted” text… 日本語",
    "İstanbul ΑΣ ΟΔΥΣΣΕΥΣ. Σ",
    "xyzzyplugh unknownwordhere [PAD] [UNK] [CLS]",
    "you\u2014idiot\u2014shut up\u2026",
    "you\u2028are\u2029a\u0085complete\u3000idiot\u00a0fool\u1680fool\u2007fool\u202ffool\u205ffool",
    "idiot😀 ❤\ufe0fidiot❤\ufe0f 👩\u200d💻fool 👍🏽idiot🏴\U000e0067\U000e007ffool",
    "you‘idiot’fool’s don’t it´s don‛t don＇t donʼt don′t “idiot„ «fool»",
    "ｙｏｕ　ｉｄｉｏｔ 𝐢𝐝𝐢𝐨𝐭 𝓲𝓭𝓲𝓸𝓽 ⓘⓓⓘⓞⓣ 🄸🄳🄸🄾🅃",
    "id\u200biot you\u200bidiot i\u00add\u2060i\ufeffot \u202eidiot\u202c \U000e0041fool",
    "i\u0301d\u0334\u0353io\u0489t ÍDÏÖT josé JOSE\u0301 françois Francois pokémon",
    "你是idiot吗 Привет idiot이야 dαlus 連絡 тыidiot أنتidiot คุณidiotมาก м'я д'idiot",
    "idiot™ idiot① km² ½idiot №idiot ㎒ ﷺ fool²",
    "nul\x00byte you\x07idiot\x1b[0m \x93idiot\x94 del\x7fete",
    "ﬁne ﬂag ﬆupid ſtupid Ⅳ Ĳ Ǆ",
    "— … € ※ ＿ ‿ \ufffd \u2800 \ue000 ☠idiot☠ •idiot• £idiot§",
    "the " * 100 + "end",
    "a" * 600 + " idiot",
]


def keras_ids(text: str, words: dict[str, int]) -> list[int]:
    """Returns the ids by Keras's rule, with all blanks of ASCII as separators."""
    parts = text.lower().translate(str.maketrans(dict.fromkeys(SEPARATORS, " "))).split(" ")
    return [words[part] for part in parts if part in words]


def random_texts(words: dict[str, int]) -> list[str]:
    """Returns texts of ASCII: words, unknown words and separators, with a seed."""
    source = random.Random(21)
    known = sorted(word for word in words if word.isascii())
    with_apostrophe = [word for word in known if "'" in word]
    texts = []
    for _ in range(RANDOM_TEXTS):
        parts = []
        for _ in range(source.randrange(12)):
            word = source.choice(
                [source.choice(known), source.choice(with_apostrophe), "xyzzyplugh", "IDIOT", "'s"]
            )
            parts += [word, source.choice(SEPARATORS + "'")]
        texts.append("".join(parts))
    return texts


def is_subsequence(part: Iterable[int], whole: Iterable[int]) -> bool:
    """Returns True if `whole` contains the elements of `part` in their order."""
    rest = iter(whole)
    return all(element in rest for element in part)


def compare(text: str, ids: list[int], words: dict[str, int]) -> None:
    """Fails if the ids of a text of ASCII disagree with Keras's."""
    expected = keras_ids(text, words)
    assert is_subsequence(expected, ids), f"{text!r}: Keras has {expected}, found {ids}"
    parts = re.split(f"[{re.escape(SEPARATORS)}]", text.lower())
    if all(part in words or "'" not in part for part in parts):
        assert ids == expected, f"{text!r}: Keras has {expected}, found {ids}"


def main() -> None:
    """Writes the file."""
    tokenizer = Tokenizer.from_file(str(WEIGHTS / "tokenizer.json"))
    tokenizer.no_padding()
    unknown = tokenizer.token_to_id("[UNK]")
    words = tokenizer.get_vocab()
    del words["[PAD]"], words["[UNK]"]

    def ids_of(text: str) -> list[int]:
        return [number for number in tokenizer.encode(text).ids if number != unknown]

    cases = []
    for text in TEXTS + random_texts(words):
        case = {"text": text, "ids": ids_of(text)}
        if (folded := ids_of(unicodedata.normalize("NFKC", text))) != case["ids"]:
            case["nfkc_ids"] = folded
        if text.isascii() and not re.search(r"[\x00-\x08\x0e-\x1f\x7f]", text):
            compare(text, case["ids"], words)
        cases.append(json.dumps(case))
    OUT.write_text("[\n" + ",\n".join(cases) + "\n]\n")
    print(f"{OUT}: {OUT.stat().st_size:,} bytes, {len(cases)} texts")


if __name__ == "__main__":
    main()
