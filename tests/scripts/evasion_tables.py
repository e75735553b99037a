"""Write the tables of host/engine/src/encoder/evasion: lookalikes.tsv and words.txt.

lookalikes.tsv has a line for each Latin letter, with the characters that resemble it or are it in
another shape: the confusables of Unicode Technical Standard #39 (in the package
confusable_homoglyphs, MIT) that are single letters of a script with such letters; letters whose
names in Unicode say so ("LATIN LETTER SMALL CAPITAL T"); and a few by eye. Characters that NFKC
turns into Latin letters are left out, except those that are emoji.

words.txt has English words, frequent ones first: the words of weights/toxic-bilstm/tokenizer.json,
which are in the order of their frequency in comments of Wikipedia, and those that occur at least
three times in the training rows of the sets of DATA (weights/convert/moderation_encoder/README.md).
Words of one and two letters are those of a list here, since most others are abbreviations.

    pip install confusable_homoglyphs==3.3.1
    python evasion_tables.py DATA
"""

import collections
import csv
import importlib.resources
import json
import re
import sys
import unicodedata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
OUT = ROOT / "host/engine/src/encoder/evasion"
SCRIPTS = """ARMENIAN CANADIAN CARIAN CHEROKEE COPTIC CYRILLIC DESERET ELBASAN GEORGIAN GOTHIC GREEK LATIN LISU
LYCIAN LYDIAN MODIFIER NEGATIVE OLD OSAGE REGIONAL ROMAN SCRIPT TIFINAGH VAI""".split()
LETTER = re.compile(
    r"(?:NEGATIVE (?:CIRCLED|SQUARED) |CROSSED NEGATIVE SQUARED )?LATIN (?:CAPITAL |SMALL )?LETTER "
    r"(?:SMALL CAPITAL |CAPITAL |TURNED |REVERSED |SIDEWAYS |SCRIPT |OPEN |DOTLESS |INSULAR "
    r"|STRETCHED |SMALL |TOP HALF |BOTTOM HALF |BARRED |LONG |CLOSED |TAILLESS |VOICED |MIDDLE-WELSH )*([A-Z])"
    r"(?: WITH .*)?|REGIONAL INDICATOR SYMBOL LETTER ([A-Z])"
)
BY_EYE = {
    "a": "αλаΛДд",
    "b": "ββвВЬъЪьЫы",
    "e": "εξэəєЄ∑€",
    "f": "ƒғ",
    "h": "нЊњ",
    "i": "ι",
    "j": "ј",
    "k": "κкЌќκ",
    "l": "ℓӏ",
    "m": "мμ",
    "n": "ηпиИйЙПлЛπ",
    "o": "θФфϴ",
    "r": "гГяЯ",
    "s": "ѕ",
    "t": "τтΤ†",
    "u": "υцЦμ",
    "v": "νѵ",
    "w": "ωшШщЩѡ",
    "x": "χхжЖ",
    "y": "γуУўЎұ",
    "z": "ζ",
    "c": "ςс¢",
    "d": "ԁδ",
    "g": "ɡ",
    "p": "ρр",
    "q": "ԛ",
}
SHORT = """a i u r am an as at be by do go he hi if in is it me my no of oh ok on or so to up us we im ur
id ya yo""".split()
MIN_COUNT = 3


def by_name(character: str) -> str | None:
    """Return the letter that the character's name has."""
    match = LETTER.fullmatch(unicodedata.name(character, ""))
    return (match[1] or match[2]).lower() if match else None


def single(letter: str) -> str | None:
    return letter.lower() if len(letter) == 1 and letter.isascii() and letter.isalpha() else None


def lookalikes() -> dict[str, str]:
    """Return the letter of each character."""
    file = importlib.resources.files("confusable_homoglyphs") / "confusables.json"
    near = {
        key: [entry["c"] for entry in entries]
        for key, entries in json.loads(file.read_text(encoding="utf-8")).items()
        if len(key) == 1
    }
    found = {}
    for code in range(0xA1, sys.maxunicode + 1):
        character = chr(code)
        if unicodedata.name(character, " ").split(" ")[0] not in SCRIPTS:
            continue
        folded = unicodedata.normalize("NFKD", character)
        if folded != character and folded[:1].isascii() and not 0x1F150 <= code < 0x1F200:
            continue
        letters = {single(c) for c in near.get(character, [])} - {None}
        # Both I and l resemble the same strokes; a capital is an i.
        if letters & {"i", "l"}:
            letters = {"i"} if character.isupper() else letters - {"i"} or {"i"}
        through = {by_name(c) for c in near.get(character, []) if len(c) == 1} - {None}
        letter = by_name(character) or min(letters, default=None) or min(through, default=None)
        if letter:
            found[character] = letter
    for letter, characters in BY_EYE.items():
        found.update(dict.fromkeys(characters, letter))
    return found


def rows(folder: Path) -> list[str]:
    """Return the texts of the training rows."""

    def read(name: str) -> list[dict]:
        with open(folder / name, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    sets = ("edos.csv", "hatemoji_build.csv")
    texts = [r["text"] for name in sets for r in read(name) if r["split"] == "train"]
    tweets = enumerate(read("davidson_labeled_data.csv"))
    return texts + [r["tweet"] for number, r in tweets if number >= 4000 and number % 10 != 0]


def words(folder: Path) -> list[str]:
    """Return the words, frequent ones first."""
    file = ROOT / "weights/toxic-bilstm/tokenizer.json"
    order = json.loads(file.read_text(encoding="utf-8"))["model"]["vocab"]
    weights: dict[str, float] = collections.Counter()
    for word, rank in order.items():
        if re.fullmatch("[a-z]{3,24}", word):
            weights[word] = 0.1 / (rank + 1)
    counts: collections.Counter = collections.Counter()
    for text in rows(folder):
        text = re.sub(r"&\w+;|(?:@|https?:)\S+|'\w+", " ", text.lower())
        counts.update(re.findall(r"(?<![a-z])[a-z]{3,24}(?![a-z])", text))
    total = sum(counts.values())
    for word, count in counts.items():
        if count >= MIN_COUNT:
            weights[word] += count / total
    short = {word: 0.1 / (order.get(word, 2000) + 1) for word in SHORT}
    weights.update(short)
    return sorted(weights, key=lambda word: (-weights[word], word))


def main(folder: Path) -> None:
    table = collections.defaultdict(list)
    for character, letter in lookalikes().items():
        table[letter].append(character)
    lines = [f"{letter}\t{''.join(sorted(set(table[letter])))}\n" for letter in sorted(table)]
    (OUT / "lookalikes.tsv").write_text("".join(lines), encoding="utf-8")
    (OUT / "words.txt").write_text("".join(f"{word}\n" for word in words(folder)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
