"""Twenty ways to write a text so that people read it and a filter does not.

Each attack is a function of a word and a seeded random source. `attacked` rewrites the words of at
least three letters; words that start with `@` or `#`, and addresses, stay. None of the tables here
is taken from the server.
"""

import random
import re
from collections.abc import Callable

# Letters that look alike in Cyrillic, Greek and Armenian, as people find them in a character map.
CYRILLIC = dict(zip("aceopxyijshkmtbnuABCEHKMOPTXY", "асеорхуіјѕһкмтЬпцАВСЕНКМОРТХУ", strict=True))
GREEK = dict(zip("aioupvxtknmyABEHIKMNOPTXYZ", "αιουρνχτκηмγΑΒΕΗΙΚΜΝΟΡΤΧΥΖ", strict=True))
RARE = dict(zip("abcdefgijlnoqrstuwyz", "ɑЪᴄԁҽғɡіϳӏռօԛгѕᴛսԝყᴢ", strict=True))
DIGITS = dict(zip("aeiostbgz", "431057892", strict=True))
SYMBOLS = {
    "a": ["@", "4"],
    "c": ["(", "c"],
    "e": ["3", "€"],
    "i": ["!", "1", "|"],
    "l": ["|", "1"],
    "o": ["0", "()"],
    "s": ["$", "5"],
    "t": ["+", "7"],
}
ACCENTS = {
    "a": "áàâäãå",
    "c": "çćč",
    "e": "éèêëę",
    "i": "íìîï",
    "n": "ñń",
    "o": "óòôöõø",
    "s": "śš",
    "u": "úùûü",
    "y": "ýÿ",
    "z": "žź",
}
MARKS = [chr(code) for code in range(0x300, 0x36F)]
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
TURNED = dict(zip("abcdefghijklmnopqrstuvwxyz", "ɐqɔpǝɟƃɥᴉɾʞlɯuodbɹsʇnʌʍxʎz", strict=True))
SMALL = dict(zip("abcdefghijklmnoprtuvwyz", "ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀᴛᴜᴠᴡʏᴢ", strict=True))
VOWELS = "aeiou"

Attack = Callable[[str, random.Random], str]


def by_table(table: dict[str, str]) -> Attack:
    """Return an attack that replaces every letter of `table`."""
    return lambda word, _: "".join(table.get(c, table.get(c.lower(), c)) for c in word)


def moved(*starts: int) -> Attack:
    """Return an attack that writes letters in an alphabet of capitals and small letters."""

    def letter(c: str, start: int) -> str:
        if not c.isascii() or not c.isalpha():
            return c
        return chr(start + ord(c.lower()) - ord("a") + (0 if c.isupper() or len(starts) > 1 else 26))

    return lambda word, rng: "".join(letter(c, start) for start in [rng.choice(starts)] for c in word)


def fullwidth(word: str, _: random.Random) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in word)


def symbols(word: str, rng: random.Random) -> str:
    return "".join(rng.choice(SYMBOLS.get(c.lower(), [c])) for c in word)


def separated(word: str, rng: random.Random) -> str:
    return rng.choice(".-_*/'|,").join(word)


def repeated(word: str, rng: random.Random) -> str:
    at = rng.randrange(len(word))
    return word[:at] + word[at] * rng.randint(3, 6) + word[at + 1 :]


def inserted(characters: str, share: float = 0.0) -> Attack:
    """Return an attack that puts a character into a word, or behind a share of its letters."""

    def attack(word: str, rng: random.Random) -> str:
        if not share:
            at = rng.randrange(1, len(word))
            return word[:at] + rng.choice(characters) + word[at:]
        inner = [c + rng.choice(characters) if rng.random() < share else c for c in word[:-1]]
        return "".join(inner) + word[-1]

    return attack


def marked(word: str, rng: random.Random) -> str:
    return "".join(c + "".join(rng.choices(MARKS, k=rng.randint(1, 6))) for c in word)


def accented(word: str, rng: random.Random) -> str:
    return "".join(rng.choice(ACCENTS.get(c.lower(), c)) for c in word)


def masked(word: str, rng: random.Random) -> str:
    """Hide a vowel inside the word, or else a letter."""
    vowels = [at for at in range(1, len(word)) if word[at].lower() in VOWELS]
    at = rng.choice(vowels or range(1, len(word)))
    return word[:at] + rng.choice("*#-") + word[at + 1 :]


def exchanged(word: str, rng: random.Random) -> str:
    at = rng.randrange(len(word) - 1)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def dropped(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word))
    return word[:at] + word[at + 1 :]


WORDS: dict[str, Attack] = {
    "Cyrillic letters": by_table(CYRILLIC),
    "Greek letters": by_table(GREEK),
    "letters of rare scripts": by_table(RARE),
    "small capitals": by_table(SMALL),
    "leetspeak, digits": by_table(DIGITS),
    "leetspeak, symbols": symbols,
    "blanks between letters": lambda word, _: " ".join(word),
    "signs between letters": separated,
    "repeated letters": repeated,
    "a sign in a word": inserted(".-_*'~"),
    "a blank in a word": inserted(" "),
    "invisible characters": inserted(INVISIBLE, 0.5),
    "combining marks": marked,
    "accents": accented,
    "fullwidth and mathematical": lambda word, rng: rng.choice(
        [fullwidth, moved(0x1D400), moved(0x1D4D0), moved(0x1D56C)]
    )(word, rng),
    "letters in circles and squares": moved(0x24D0, 0x1F130, 0x1F170, 0x1F1E6),
    "turned letters": by_table(TURNED),
    "a hidden letter": masked,
    "exchanged letters": exchanged,
}
JOINED = "no blanks"
NAMES = [*WORDS, JOINED]
# Counted beside the twenty: nothing in the text says which letter is missing.
EXTRA = {"a dropped letter": dropped, "reversed words": lambda word, _: word[::-1]}

_TOKEN = re.compile(r"(?:@|#|https?:)\S+|&\S+;|[A-Za-z]{3,}")


def attacked(text: str, name: str, seed: int = 0, share: float = 1.0) -> str:
    """Return `text` with each of its words rewritten by the attack `name` with odds of `share`."""
    rng = random.Random(f"{seed}:{name}:{text}")
    if name == JOINED:
        return "".join(text.split())
    attack = WORDS.get(name) or EXTRA[name]

    def one(match: re.Match) -> str:
        word = match[0]
        if not word.isalpha() or rng.random() >= share:
            return word
        return attack(word, rng)

    return _TOKEN.sub(one, text)
