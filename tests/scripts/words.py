"""The ids of a text's words: the reference for the guests' tokenisers. Python's standard library alone.

ASCII is split as Keras's tokeniser splits it: lower case, a separator for each of the vocabulary's filter characters, words
that the vocabulary lacks are dropped. Beyond that:

- A word is a run of letters, marks and digits (general categories L, M and N of its compatibility decomposition) and
  apostrophes; typographic apostrophes count as `'`. All else separates words.
- Default-ignorable code points, and control characters that are no blanks, are dropped. A word may fall apart where one was
  dropped, before an apostrophe, on both sides of a symbol or a digit outside ASCII that decomposes to a part of a word, and between a letter or
  digit of the Latin script and one of another. Where the vocabulary lacks the whole, the whole without a
  possessive `'s` is taken, and failing that its pieces, of which an apostrophe alone is none.
- A word is looked up composed (NFC) and in lower case; failing that without apostrophes around it; then the same without
  its marks.
"""

import re
import unicodedata

APOSTROPHES = "'\u00b4\u02b9\u02bb\u02bc\u02bd\u2018\u2019\u201b\u2032\uff07"
IGNORED = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
LATIN = re.compile("[\u0000-\u036f\u1d00-\u1dbf\u1e00-\u1eff\u2c60-\u2c7f\ua720-\ua7ff]")


def word_ids(text: str, vocabulary: dict) -> list[int]:
    """The ids of the words of `text` that `vocabulary`, the JSON of a Keras tokeniser, knows, in order."""
    words = vocabulary["vocab"]
    ids = []
    for pieces in split(text, vocabulary["filters"] + " \r\v\f"):
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
    """Words, each as the pieces that it may fall into."""
    # U+E000 stands for a separator, U+E001 for a place where a word may fall apart: neither is a letter.
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
    """Whether a decomposed character belongs to a word."""
    if character.isascii():
        return character not in separators
    return unicodedata.category(character)[0] in "LMN"


def scripts(word: str) -> list[str]:
    """The pieces of a word: cut where it is marked, and where Latin letters meet others. Marks belong to what is before."""
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
    """The id of a word, or of what remains of it without marks and the apostrophes around it."""
    lower = word.lower()
    bare = "".join(character for character in lower if unicodedata.category(character)[0] != "M")
    for form in (unicodedata.normalize("NFC", lower), bare):
        for candidate in (form, form.strip("'")):
            if candidate in words:
                return words[candidate]
    return None
