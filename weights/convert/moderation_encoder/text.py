"""The canonical form of a text, and the variants of training rows.

`canonical` must equal the preprocessing of the service before its tokenizer. Its steps, in order:

1. HTML references: `&#NNN;`, `&#xHHH;`, and `&amp;` `&lt;` `&gt;` `&quot;` `&apos;` `&nbsp;`
   become their characters, once, left to right. A reference to a number that is not a Unicode
   scalar value stays unchanged.
2. Invisible characters are removed: general category Cf, and U+034F, U+115F, U+1160, U+17B4,
   U+17B5, U+180B to U+180F, U+3164, U+FE00 to U+FE0F, U+FFA0, U+E0000 to U+E0FFF. Category Cc
   becomes a space.
3. NFKC, then step 2 again, because NFKC can produce such characters.
4. Emoji as words: at each position the longest entry of emoji.tsv (two code points, else one) is
   replaced by a space, its name and a space. An entry that directly follows an equal entry is
   left out.
5. Runs of white space become one space; none stays at the ends.

The rest of this file makes training rows: evasion noise, exchanged identity terms, harmless
sentences.
"""

import random
import re
import unicodedata
from functools import cache
from pathlib import Path

REFERENCE = re.compile(r"&(?:#([0-9]{1,7})|#[xX]([0-9a-fA-F]{1,6})|(amp|lt|gt|quot|apos|nbsp));")
NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'", "nbsp": " "}
INVISIBLE = frozenset(
    [
        0x034F,
        0x115F,
        0x1160,
        0x17B4,
        0x17B5,
        *range(0x180B, 0x1810),
        0x3164,
        *range(0xFE00, 0xFE10),
        0xFFA0,
    ]
) | frozenset(range(0xE0000, 0xE1000))


@cache
def emoji_names() -> dict[str, str]:
    """Return the names by characters, from emoji.tsv."""
    lines = Path(__file__).with_name("emoji.tsv").read_text(encoding="utf-8").splitlines()
    return dict(line.split("\t") for line in lines)


def _reference(match: re.Match) -> str:
    decimal, hexadecimal, name = match.groups()
    if name:
        return NAMED[name]
    code = int(decimal) if decimal else int(hexadecimal, 16)
    return match[0] if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF or code == 0 else chr(code)


def _visible(text: str) -> str:
    out = []
    for c in text:
        if c.isascii() and c >= " ":
            out.append(" " if c == "\x7f" else c)
            continue
        category = unicodedata.category(c)
        if category == "Cc":
            out.append(" ")
        elif category != "Cf" and ord(c) not in INVISIBLE:
            out.append(c)
    return "".join(out)


def canonical(text: str) -> str:
    """Return the canonical form; see the top of this file."""
    text = REFERENCE.sub(_reference, text)
    if not text.isascii():
        text = _visible(unicodedata.normalize("NFKC", _visible(text)))
        names, out, position, last = emoji_names(), [], 0, None
        while position < len(text):
            entry = next(
                (e for e in (text[position : position + 2], text[position]) if e in names), None
            )
            if entry is None:
                out.append(text[position])
            elif entry != last:
                out.append(f" {names[entry]} ")
            last = entry
            position += len(entry or " ")
        text = "".join(out)
    else:
        text = _visible(text)
    return " ".join(text.split())


# ---- evasion noise
# -------------------------------------------------------------------------------------------

LEET = {"a": "4@", "e": "3", "i": "1!", "o": "0", "s": "5$", "t": "7", "b": "8", "g": "9"}
HOMOGLYPHS = dict(zip("aceopxyiskhmtbnu", "асеорхуіѕкһмтЬпц"))
HIDERS = "*#-_.'"


def _leet(word: str, rng: random.Random) -> str:
    return "".join(rng.choice(LEET[c]) if c in LEET and rng.random() < 0.6 else c for c in word)


def _homoglyph(word: str, rng: random.Random) -> str:
    return "".join(HOMOGLYPHS[c] if c in HOMOGLYPHS and rng.random() < 0.5 else c for c in word)


def _spaced(word: str, rng: random.Random) -> str:
    return rng.choice([" ", ".", "-", "_", "*"]).join(word)


def _dropped(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word))
    return word[:at] + word[at + 1 :]


def _exchanged(word: str, rng: random.Random) -> str:
    at = rng.randrange(0, len(word) - 1)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _stretched(word: str, rng: random.Random) -> str:
    at = rng.randrange(0, len(word))
    return word[:at] + word[at] * rng.randint(2, 4) + word[at + 1 :]


def _starred(word: str, rng: random.Random) -> str:
    star, inner = rng.choice(HIDERS), list(word)
    for at in rng.sample(range(1, len(word)), rng.randint(1, max(1, len(word) // 3))):
        inner[at] = star
    return "".join(inner)


def _split(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word))
    return word[:at] + rng.choice([" ", "-", ".", "_", "'"]) + word[at:]


NOISES = [_leet, _homoglyph, _spaced, _dropped, _exchanged, _stretched, _starred, _split]


def noisy(text: str, rng: random.Random) -> str:
    """Obfuscate some of the words of at least four letters, as if to evade a filter."""
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) >= 4 and word.isalpha()]
    if not long:
        return text
    share = rng.choice([0.1, 0.25, 0.5])
    noise = rng.choice(NOISES)
    for i in rng.sample(long, max(1, round(share * len(long)))):
        if rng.random() < 0.3:
            noise = rng.choice(NOISES)
        words[i] = noise(words[i].lower(), rng)
    if rng.random() < 0.1:
        at = rng.randrange(len(words))
        words[at : at + 2] = ["".join(words[at : at + 2])]
    return " ".join(words)


# ---- identity terms
# ------------------------------------------------------------------------------------------

PLURALS = """women, men, girls, black people, white people, asian people, muslims, jews, christians,
hindus, sikhs, buddhists, atheists, gay people, lesbians, gay men, bisexuals, trans
people, trans women, trans men, disabled people, blind people, deaf people, autistic
people, immigrants, migrants, refugees, asylum seekers, foreigners, mexicans, indians,
pakistanis, chinese people, arabs, africans, nigerians, romanians, poles, gypsies,
travellers, native americans, aboriginal people, latinos, black women, muslim women,
jewish people, old people, homeless people, working class people""".replace("\n", " ").split(", ")
SINGULARS = """woman, man, girl, black person, white person, asian person, muslim, jew, christian,
hindu, sikh, gay person, lesbian, gay man, trans person, trans woman, disabled person, blind
person, deaf person, autistic person, immigrant, migrant, refugee, foreigner, mexican,
indian, pakistani, chinese person, arab, african, nigerian, traveller, latino, black
woman, muslim woman, jewish person, homeless person""".replace("\n", " ").split(", ")
ADJECTIVES = """black, white, asian, muslim, jewish, christian, hindu, gay, lesbian, bisexual,
transgender, disabled, deaf, autistic, immigrant, mexican, indian, pakistani, chinese,
arab, african, latino, korean, polish, turkish""".replace("\n", " ").split(", ")
ALIASES = {  # recognised as a term of the class, never inserted
    "plural": [
        "blacks",
        "whites",
        "gays",
        "asians",
        "homosexuals",
        "females",
        "ladies",
        "trannies",
        "jewish people",
        "disabled folk",
        "black folk",
        "black folks",
        "white folk",
        "gay folk",
        "trans folk",
        "black men",
        "white women",
        "white men",
        "asian women",
    ],
    "singular": ["female", "lady"],
}
_TERMS = {
    **{term: "adjective" for term in ADJECTIVES},
    **{term: "singular" for term in SINGULARS + ALIASES["singular"]},
    **{term: "plural" for term in PLURALS + ALIASES["plural"]},
}
_WRITTEN = {"plural": PLURALS, "singular": SINGULARS, "adjective": ADJECTIVES}
_TERM = re.compile(
    r"\b(" + "|".join(sorted(map(re.escape, _TERMS), key=len, reverse=True)) + r")\b", re.IGNORECASE
)


def exchanged(text: str, rng: random.Random) -> str:
    """Replace each identity term by another of its class, the same one everywhere.

    A text without identity terms stays unchanged.
    """
    new = {}

    def another(match: re.Match) -> str:
        term = match[0].lower()
        if term not in new:
            new[term] = rng.choice(_WRITTEN[_TERMS[term]])
        return new[term]

    return _TERM.sub(another, text)


# ---- harmless sentences
# --------------------------------------------------------------------------------------

ABOUT_PEOPLE = """The new library has a reading group for {pl} on Thursday evenings.
A survey asked {pl} in the city about rents and bus routes.
My aunt organises cooking classes together with {pl} from our street.
The museum opens an exhibition of photographs taken by {pl}.
Two hundred {pl} ran the half marathon last weekend, and the weather was lovely.
Doctors want more {pl} to take part in the study of sleep.
The choir is looking for {pl} who like to sing, no experience needed.
Our company signed a promise to hire and promote {pl} fairly.
Today's podcast: how {pl} in small towns start their own firms.
I learned a lot from the {pl} I worked with at the hospital.
The documentary follows {pl} through a year at university.
Statistics show that {pl} are moving out of the capital.
We want {pl} to feel safe and at home in this club.
The mayor met {pl} to talk about the new park.
Is there a good novel about {pl} in the nineteenth century?
Several {pl} in my class won prizes for their maps.
Housing costs hit {pl} harder than the report expected.
The parade to celebrate {pl} starts at noon by the river.
The award for best short film went to a team of {pl}.
Voters, among them many {pl}, waited in line for an hour.""".splitlines()
ABOUT_ONE = """My neighbour is a {sg} and we play chess on Sundays.
As a {sg} I found the course on woodwork very useful.
The first {sg} to lead the orchestra starts in spring.
A {sg} from Leeds explained the recipe on the radio.
She married a {sg} she had met at a concert.
Our maths teacher, a {sg}, has written two books.
He interviewed a {sg} who repairs old clocks.
The story is told by a {sg} who runs a bakery.
I am a {sg} and this is my first post here, hello everyone.
A {sg} helped me carry the pram up the stairs, so kind.""".splitlines()
ABOUT_THINGS = """The {adj} community centre serves soup on Fridays.
I am reading a history of {adj} poetry and can recommend it.
There is a {adj} film festival at the harbour this month.
Two {adj} students built a radio telescope in the yard.
The {adj} families on our road planted a garden together.
Thanks to the {adj} nurse who looked after my dad.
A {adj} artist painted the wall by the station.
Which {adj} authors should I read over the summer?""".splitlines()


def harmless() -> list[str]:
    """Return harmless sentences that name an identity, in a fixed order."""
    return (
        [s.format(pl=term) for s in ABOUT_PEOPLE for term in PLURALS]
        + [s.format(sg=term) for s in ABOUT_ONE for term in SINGULARS]
        + [s.format(adj=term) for s in ABOUT_THINGS for term in ADJECTIVES]
    )


# ---- harmless requests to an assistant

TASKS = """Write {a} about {topic}.
Can you help me with {a} on {topic}?
Please check {a} I wrote about {topic} for mistakes.
I need {a} about {topic}, not longer than a page.
Turn these notes on {topic} into {a}.
Make {a} about {topic} that a child understands.
Improve {a} about {topic}, and tell me what you changed.""".splitlines()
QUESTIONS = """What should a beginner know about {topic}?
Why is {topic} so popular at the moment?
How do I start with {topic} on a small budget?
Which books about {topic} do you recommend?
Explain {topic} step by step, with an example.
What are common mistakes in {topic}?
Compare two approaches to {topic} in a table.
Give me three facts about {topic}.
How much time does {topic} take every week?
Act as a teacher and ask me five questions about {topic}.
From now on, answer in short sentences. First question: what is {topic}?
Forget my last question; I would rather talk about {topic}.""".splitlines()
FORMS = """a summary
an email
a letter
a short speech
an outline
a plan
a quiz
a poem
a story
a script
a function
a report""".splitlines()
TOPICS = """beekeeping
the tides
time management
linear regression
public transport
sourdough bread
the water cycle
database indexes
learning the piano
home insulation
password managers
the rules of chess
compound interest
photographing birds
unit tests
a job interview
first aid
system administration
access rights in a company
the history of printing""".splitlines()


def requests() -> list[str]:
    """Return harmless requests to an assistant, in a fixed order."""
    return [
        t.format(a=FORMS[(i + j) % len(FORMS)], topic=topic)
        for i, t in enumerate(TASKS)
        for j, topic in enumerate(TOPICS)
    ] + [q.format(topic=topic) for q in QUESTIONS for topic in TOPICS]
