"""Texts of the golden files: ordinary ones, and those that tokenizers treat differently."""

WORDS = (
    "the red book lies in the garden and Ada reads it while Søren repairs a broken bicycle near the "
    "river because nobody's telescope was useful in Kyoto yesterday"
).split()


def words(count: int) -> str:
    """Returns a text of `count` words that does not repeat within 300 words."""
    return " ".join(
        f"{WORDS[index % len(WORDS)]}{index if index % 7 == 3 else ''}" for index in range(count)
    )


TEXTS = [
    "",
    " ",
    " \t\n ",
    "Ada reads the red book in Paris.",
    "You are so unbelievable, thank you for the kettle!!!",
    "I don't agree: it wasn't DISAPPOINTING, isn't it?",
    "  two  spaces   and a trailing one ",
    "first line\r\nsecond line\rthird line\n\n\nlast",
    "tab\tvertical\x0bform\x0cfeed\u2028line\u2029paragraph\u00a0no-break\u3000ideographic",
    "café naïve Zoë Łódź São Paulo Größe",
    "cafe\u0301 nai\u0308ve Zoe\u0308 e\u0301\u0302\u0323\u0323\u0301",
    "İstanbul ΑΣ ΟΔΥΣΣΕΥΣ ß ẞ ſ",
    "😀",
    "😀😂 ❤️ 👍🏽 👩\u200d💻 🏳️\u200d🌈 🇫🇷 1️⃣",
    "zero\u200bwidth join\u200der non\u200cjoiner soft\u00adhyphen \ufeffmark \u202eright\u202c",
    "nul\x00byte bell\x07 escape\x1b[0m delete\x7f c1\x85\x93",
    "\x00",
    "مرحبا Ada، الكتاب على الطاولة في القاهرة.",
    "我喜欢这本书，小明在北京看书。",
    "今日は東京で本を買いました。とてもｆｕｌｌです。",
    "민수님은 서울에서 책을 읽습니다. \u1112\u1161\u11ab",
    "Привет, Иван! Сегодня хорошая погода в Москве.",
    "สวัสดี नमस्ते ኢትዮጵያ שלום",
    "𝓲𝓭𝓲𝓸𝓽 ⓨⓞⓤ ﬁne ﬂag ½ № ™ ① ㎒ ﷺ",
    "[CLS] text [SEP] and [PAD] [MASK] [UNK]",
    "[SEP]",
    "<s> text </s> and <pad> <mask> <unk>",
    "a<mask> b <mask>c  <mask>  d</s>",
    "<|endoftext|> <|im_start|>system [INST] ##ing ▁word Ġword",
    "!!!???...---___***@@@###$$$%%%^^^&&&((()))",
    "http://example.org/garden/42?q=red#7 ada@example.com +1 555-0173",
    "SELECT name FROM book WHERE count > 12; -- quiet",
    "1 12 123 1234567890 3.14 1,000,000 0x1f ١٢٣ １２３",
    "ALL CAPS AND CamelCaseWords snake_case_words kebab-case-words",
    "'quoted' \"double\" “curly” ‘single’ «guillemets» it’s don´t",
    "a" * 99,
    "a" * 101,
    "unbelievable" * 60,
    "é" * 300,
    "😀" * 200,
    "Call Grace on +1 555-4711 or write to grace@example.com before 9:30.",
    "x",
    words(300),
]

# Long texts for windows; the second one has no words at all.
LONG = [words(120), "我喜欢这本书，" * 30]

PAIRS = [
    ("where is the book", "Ada put the book under the teapot in Kyoto."),
    ("where is the book", "Der alte Schlüssel für Zürich ist größer als das piano."),
    ("", ""),
    ("red bicycle", ""),
    ("", "red bicycle"),
    ("Привет", "我喜欢这本书，小明在北京看书。"),
    ("[SEP] query", "document [SEP] [CLS]"),
    ("line\r\nbreak", "😀 ❤️ \u200b"),
    ("short query", words(200)),
    (words(200), "short document"),
    (words(100), words(90)),
]
