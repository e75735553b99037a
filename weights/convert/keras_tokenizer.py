"""Convert the words of a Keras tokenizer to a tokenizer.json of the library `tokenizers`.

The model is WordLevel. Ids are those of Keras: 0 is `[PAD]`, the number of words is the id of
`[UNK]`. The embedding table has no row for `[UNK]`: drop unknown words, as Keras does.

On ASCII the words are those of Keras, except for apostrophes. Keras treats an apostrophe as a
letter, so that `idiot'fool` and `idiot's` are unknown. Here an apostrophe separates words, and a
possessive `'s` is dropped, except in the words of the vocabulary that contain one (`don't`). Such
a word is found between other letters only if it has no apostrophe at its ends; otherwise it must
stand alone.

Other characters, where Keras knows only blanks of ASCII as separators:

- A word consists of letters, marks and digits (general categories L, M and N). All other characters
  separate words, and so does the boundary between letters of the Latin script and of another.
- Typographic apostrophes are apostrophes.
- Symbols and digits that decompose to letters or digits of ASCII (`™`, `½`) separate words.
  Letters in circles and squares are letters.
- Invisible characters are dropped: `Default_Ignorable_Code_Point`, marks of interlinear annotation,
  and control characters other than blanks.
- Compatibility forms are folded (NFKD), all marks are dropped, and letters are in lower case.

Each regular expression means the same in Oniguruma, which Python's `tokenizers` uses, and in the
Rust crate fancy-regex. A match of fancy-regex ends with an error after a million steps back, and
`tokenizers` then ignores the rest of the text. The first pattern therefore needs no look-around
(fancy-regex hands it to the crate regex, which takes linear time), and the second one sees single
runs of letters and at most ten apostrophes in a row.
"""

import json
import re
import unicodedata
from collections.abc import Iterable

PADDING = "[PAD]"
UNKNOWN = "[UNK]"

# Characters that people type as an apostrophe. The last one is U+00B4 after NFKC.
APOSTROPHES = "[\u00b4\u02b9\u02bb\u02bc\u02bd\u2018\u2019\u201b\u2032\uff07]| \u0301"
# Symbols and digits other than letters in circles and squares.
SYMBOLS = "[[\\p{So}\\p{No}]&&[^\u24b6-\u24e9\U0001f12b-\U0001f14f]]"
INVISIBLE = (
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]|[\\p{Cc}&&[^\\s]]"
)
LETTERS = "\\p{L}\\p{M}\\p{N}"
LATIN = "\\p{Latin}0-9"
# The longest run of apostrophes in the vocabulary has ten.
SEPARATORS = f"[^{LETTERS}']+|'{{11,}}"


def is_latin(character: str) -> bool:
    """Return True for letters of `LATIN`. The vocabulary has no Latin letters beyond these."""
    return character < "\u0250"


def stripped(word: str) -> str:
    """Return the word as the normalizer leaves it: compatibility forms folded, without marks."""
    folded = unicodedata.normalize("NFKD", word)
    return "".join(part for part in folded if unicodedata.category(part)[0] != "M").lower()


def ids_of(words: dict[str, int]) -> dict[str, int]:
    """Return the ids of the words that a text can contain after the normalizer.

    Words with separators or symbols cannot occur (`km²` becomes `km`). A word whose marks are
    dropped is found without them, unless that is a word of its own.
    """
    known = {}
    for word, number in words.items():
        categories = {unicodedata.category(part) for part in word.replace("'", "")}
        if all(category[0] in "LMN" and category != "No" for category in categories):
            known.setdefault(stripped(word), number)
    return known | {word: number for word, number in words.items() if word in known}


def alternatives(words: Iterable[str]) -> str:
    """Return a regular expression for any of the words, as a tree of prefixes, longest first."""
    tree = {}
    for word in words:
        node = tree
        for character in word:
            node = node.setdefault(character, {})
        node[""] = {}
    return _alternatives(tree)


def _alternatives(node: dict) -> str:
    branches = [re.escape(first) + _alternatives(rest) for first, rest in node.items() if first]
    if not branches:
        return ""
    group = branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"
    return f"(?:{group})?" if "" in node else group


def words_pattern(words: Iterable[str]) -> str:
    """Return the pattern of the words in a run of letters and apostrophes."""
    whole = [word for word in words if word[0] == "'" or word[-1] == "'"]
    has_parts = [
        word
        for word in words
        if word not in whole and ("'" in word or len({is_latin(part) for part in word}) > 1)
    ]
    possessive = f"(?<=[{LETTERS}]')s(?![{LETTERS}])"
    return "|".join(
        [
            f"\\A(?:{alternatives(whole)})\\z",
            f"(?<![{LETTERS}])(?:{alternatives(has_parts)})(?![{LETTERS}])",
            f"(?!{possessive})[{LATIN}]+",
            f"[[{LETTERS}]&&[^{LATIN}]]+",
        ]
    )


def tokenizer_text(words: dict[str, int], num_words: int, max_tokens: int) -> str:
    """Return the JSON of tokenizer.json for the words of a Keras tokenizer.

    Ids are below `num_words`. The network reads `max_tokens` ids.
    """
    known = ids_of(words)

    def replace(pattern: str, content: str) -> dict:
        return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}

    def split(pattern: str, invert: bool) -> dict:
        return {
            "type": "Split",
            "pattern": {"Regex": pattern},
            "behavior": "Removed",
            "invert": invert,
        }

    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": {
            "strategy": {"Fixed": max_tokens},
            "direction": "Left",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": PADDING,
        },
        "added_tokens": [],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                replace(APOSTROPHES, "'"),
                replace(SYMBOLS, " "),
                replace(INVISIBLE, ""),
                {"type": "NFKD"},
                {"type": "StripAccents"},
                {"type": "Lowercase"},
            ],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [split(SEPARATORS, False), split(words_pattern(known), True)],
        },
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {PADDING: 0} | known | {UNKNOWN: num_words},
            "unk_token": UNKNOWN,
        },
    }
    return json.dumps(tokenizer, indent=0) + "\n"
