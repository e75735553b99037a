"""Sentences that the small tokenizers are trained on, and that scale the random heads.

Templates and lists of words make them, with a seed. They are harmless and belong to the project.
"""

import random

SEED = 21

PEOPLE = (
    "Ada Grace Alan Emmy José Zoë Łukasz Søren Noémie Иван Ольга 小明 さくら 민수 محمد ليلى".split()
)
PLACES = "Paris Lagos Kyoto Łódź São_Paulo Zürich Москва 北京 東京 서울 القاهرة Reykjavík".split()
THINGS = (
    "book garden bicycle kettle window letter river piano ticket umbrella lantern bridge teapot "
    "basket compass blanket ladder mirror notebook orchard picture saddle telescope violin wheel candle"
).split()
ADJECTIVES = (
    "red quiet broken friendly useful late early wonderful ordinary tiny enormous naïve café-like "
    "unbelievable reusable colourful disappointing international old new"
).split()
VERBS = (
    "reads paints carries repairs forgets finds opens closes counts returns measures describes"
).split()
EMOJI = "😀 😂 ❤️ 👍🏽 👩‍💻 🎉 🌍 ☕ 🚲".split()

TEMPLATES = [
    "{person} {verb} the {adjective} {thing} in {place}.",
    "Is the {thing} {adjective}, or is it only {adjective} today?",
    "{person} and {person} don't agree: the {thing} wasn't {adjective}!",
    "Please write to {lower}@example.com or call +1 555-{number} before {hour}:30.",
    "I've never seen such a {adjective} {thing} {emoji}",
    "The {number} {thing}s cost {number} euros; that's {adjective}.",
    "{emoji} {person} is coming to {place} on Monday, isn't it {adjective}? {emoji}",
    "Where did {person} put the {thing}? It is under the {thing}, she said.",
    "You are so {adjective}, thank you for the {thing}!!!",
    "this {thing} is {adjective} and the other {thing} is not {adjective}...",
    "{person} {verb} a {thing}, {verb} a {thing} and {verb} a {adjective} {thing}",
    "SELECT name FROM {thing} WHERE count > {number}; -- {adjective}",
    "https://example.org/{thing}/{number}?q={adjective}#{hour}",
    "Le {thing} de {person} est très élégant, déjà là-bas à {place}.",
    "Der {adjective} Schlüssel für {place} ist größer als das {thing}.",
    "El niño {verb} un {thing} pequeño en {place}, ¿no?",
    "Привет, {person}! Сегодня хорошая погода, и книга лежит на столе в {place}.",
    "Это {number} новых писем от {person}, спасибо.",
    "我喜欢这本书，{person}在{place}看书。",
    "今日は{place}で{thing}を買いました。とても{adjective}です。",
    "{person}님은 {place}에서 책을 읽습니다.",
    "مرحبا {person}، الكتاب على الطاولة في {place}.",
    "Η {person} διαβάζει ένα βιβλίο στην {place}.",
    "ﬁne ﬂags ｆｕｌｌ ｗｉｄｔｈ {number}½ №{hour} ™",
]


def sentences(count: int, seed: int = SEED) -> list[str]:
    """Returns `count` sentences, the same for the same seed."""
    source = random.Random(seed)

    def fill(template: str) -> str:
        parts = template.split("{")
        text = parts[0]
        for part in parts[1:]:
            field, rest = part.split("}", 1)
            text += value(field) + rest
        return text

    def value(field: str) -> str:
        lists = {
            "person": PEOPLE,
            "place": PLACES,
            "thing": THINGS,
            "adjective": ADJECTIVES,
            "verb": VERBS,
        }
        if field == "number":
            return str(source.randrange(10, 10_000))
        if field == "hour":
            return str(source.randrange(1, 13))
        if field == "lower":
            return source.choice([name for name in PEOPLE if name.isascii()]).lower()
        if field == "emoji":
            return source.choice(EMOJI)
        return source.choice(lists[field]).replace("_", " ")

    return [fill(TEMPLATES[index % len(TEMPLATES)]) for index in range(count)]
