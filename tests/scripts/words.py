"""The ids of a text's words: a reference of the text model's tokenizer.

Needs only the standard library: `weights/toxic-bilstm/tokenizer.json` provides the words, and not
the rules.

ASCII is split as in Keras's tokeniser: the text is lower-cased, each of the filter characters
separates words, and unknown words are dropped. For other text:

- A word is a run of apostrophes, letters, marks and digits (general categories L, M and N of its
  compatibility decomposition). Typographic apostrophes count as `'`. All other characters separate
  words.
- Default-ignorable code points are dropped, and control characters other than white space. A word
  can be divided into pieces where such a character was dropped; before an apostrophe; on both sides
  of a symbol or digit outside ASCII whose decomposition is part of a word; and between a letter or
  digit of the Latin script and one of another script. If the vocabulary lacks the word, the word
  without a possessive `'s` is used; failing that its pieces, except a lone apostrophe.
- A word is looked up composed (NFC) and in lower case; failing that without the apostrophes around
  it; failing that in both forms without its marks.
"""

import json
import re
import unicodedata
from pathlib import Path

FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'
APOSTROPHES = "'\u00b4\u02b9\u02bb\u02bc\u02bd\u2018\u2019\u201b\u2032\uff07"
IGNORED = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
LATIN = re.compile("[\u0000-\u036f\u1d00-\u1dbf\u1e00-\u1eff\u2c60-\u2c7f\ua720-\ua7ff]")


def vocabulary(path: Path) -> dict[str, int]:
    """Returns the ids of the words in a file of the library `tokenizers`."""
    words = json.loads(path.read_text(encoding="utf-8"))["model"]["vocab"]
    return {word: number for word, number in words.items() if word not in ("[PAD]", "[UNK]")}


def word_ids(text: str, words: dict[str, int]) -> list[int]:
    """Returns the ids of the known words of `text`, in order."""
    ids = []
    for pieces in split(text, FILTERS + " \r\v\f"):
        word = "".join(pieces)
        whole = lookup(word, words)
        if whole is None and word.lower().endswith("'s"):
            whole = lookup(word[:-2], words)
        found = [whole]
        if whole is None and len(pieces) > 1:
            found = [lookup(piece, words) for piece in pieces if piece != "'"]
        ids += [number for number in found if number is not None]
    return ids


def split(text: str, separators: str) -> list[list[str]]:
    """Returns the words, each as a list of its pieces."""
    # U+E000 marks a separator, U+E001 a boundary between pieces; neither is a letter.
    folded = []
    for character in text:
        category = unicodedata.category(character)
        if character in APOSTROPHES:
            folded.append("\ue001'")
        elif character in separators:
            folded.append("\ue000")
        elif character.isascii() and category != "Cc":
            folded.append(character)
        elif IGNORED.match(character) or (category == "Cc" and character != "\u0085"):
            folded.append("\ue001")
        else:
            parts = unicodedata.normalize("NFKD", character)
            parts = "".join(part if is_part(part, separators) else "\ue000" for part in parts)
            folded.append(parts if category[0] in "LM" else f"\ue001{parts}\ue001")
    text = "".join(folded)
    words = [[piece for piece in scripts(word) if piece] for word in text.split("\ue000")]
    return [pieces for pieces in words if pieces]


def is_part(character: str, separators: str) -> bool:
    """Returns True if a decomposed character belongs to a word."""
    if character.isascii():
        return character not in separators
    return unicodedata.category(character)[0] in "LMN"


def scripts(word: str) -> list[str]:
    """Returns the pieces of a word.

    It is cut at U+E001, and between Latin and other letters. A mark belongs to the character before
    it.
    """
    pieces = [""]
    latin = None
    for character in word:
        if character == "\ue001":
            pieces.append("")
        elif unicodedata.category(character)[0] == "M":
            pieces[-1] += character
        else:
            before, latin = latin, LATIN.match(character) is not None
            if before is not None and before != latin:
                pieces.append("")
            pieces[-1] += character
    return pieces


def lookup(word: str, words: dict) -> int | None:
    """Returns the id of a word, or of the word without marks and surrounding apostrophes."""
    lower = word.lower()
    bare = "".join(character for character in lower if unicodedata.category(character)[0] != "M")
    for form in (unicodedata.normalize("NFC", lower), bare):
        for candidate in (form, form.strip("'")):
            if candidate in words:
                return words[candidate]
    return None
