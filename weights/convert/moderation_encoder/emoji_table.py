"""Write emoji.tsv, the table by which the moderation encoder replaces emoji with words.

Each line has the characters, a tab, and their name. An entry is one code point, or the two regional
indicators of a flag. Names are the CLDR short names in the package `emoji`, in lower case; a
pictograph without one (U+2600 to U+27BF, U+1F300 to U+1FAFF) has its Unicode name. The table has no
sequences with joiners. They are replaced part by part, so that unknown sequences work too.

    python emoji_table.py emoji.tsv        # needs: emoji
"""

import sys
import unicodedata
from pathlib import Path

import emoji

# U+1F3FB to U+1F3FF, in CLDR's words.
SKIN_TONES = ["light", "medium-light", "medium", "medium-dark", "dark"]


def is_flag(characters: str) -> bool:
    """Return True for two regional indicators."""
    return len(characters) == 2 and all("\U0001f1e6" <= c <= "\U0001f1ff" for c in characters)


def table() -> dict[str, str]:
    """Return names by characters, sorted by code point."""
    names = {}
    for sequence, entry in emoji.EMOJI_DATA.items():
        characters = sequence.replace("\ufe0f", "")
        # Digits, `#`, `*` and the signs of Latin-1 are emoji by property and text in practice.
        if is_flag(characters) or (len(characters) == 1 and characters > "\u2000"):
            names[characters] = entry["en"].strip(":").replace("_", " ").lower()
    for first, last in [(0x2600, 0x27BF), (0x1F300, 0x1FAFF)]:
        for code in range(first, last + 1):
            if unicodedata.category(chr(code)) in ("So", "Sk"):
                names.setdefault(chr(code), unicodedata.name(chr(code)).lower())
    for number, tone in enumerate(SKIN_TONES):
        names[chr(0x1F3FB + number)] = f"{tone} skin tone"
    # NFKC turns these into letters or punctuation before the table is read.
    return {c: n for c, n in sorted(names.items()) if unicodedata.normalize("NFKC", c) == c}


if __name__ == "__main__":
    lines = [f"{characters}\t{name}\n" for characters, name in table().items()]
    Path(sys.argv[1]).write_text("".join(lines), encoding="utf-8")
    print(f"{sys.argv[1]}: {len(lines)} entries")
