"""Write tests/data/text-models/canonical.json: canonical forms of texts, by the training's code.

`texts` has pairs of a text and its form by `canonical` of
weights/convert/moderation_encoder/text.py. `removed` has the ranges of code points that the form
leaves out, `unassigned` those that are no characters yet in this Python's version of Unicode.

    python canonical.py
"""

import json
import random
import sys
import unicodedata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "weights/convert/moderation_encoder"))
from text import canonical, emoji_names  # noqa: E402

OUT = ROOT / "tests/data/text-models/canonical.json"
RANDOM_TEXTS = 500

TEXTS = [
    "",
    "   ",
    "plain  text,\t with\r\nlines ",
    "👍🏽 thumbs 👍🏿👍🏿👍 👍👍🏽",
    "👩\u200d💻 👩\u200d👩\u200d👧 🏳\ufe0f\u200d🌈 👨🏾\u200d🚀❤\ufe0f\u200d🔥",
    "🇩🇪🇫🇷 🇩🇩🇪 🇩 🇽🇽 🇬🇧🇬🇧a🇬🇧",
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f!",
    "1\ufe0f\u20e3 #\u20e3 *\ufe0f\u20e3 2\u20e3",
    "😂😂😂 😂 😂😭😂 a😂b😂",
    "☠idiot☠ ❤ ❤\ufe0f❤ ♥\ufe0e ✔✔",
    "😂 \u200b😂 😂\u200b😂 😂\x00😂",
    "&lt;b&gt; &amp;amp; &quot;x&apos;s&quot;&nbsp;&nbsp;y &copy; &AMP; &amp &;&#;",
    "&#128514;&#x1F602;&#X1f602;&#128514 &#0; &#55296; &#xD800; &#x110000; &#1114111; &#1114112;",
    "&#00000065; &#0000065; &#x000041; &#x0000041; &#-5; &#+65; &#x;&#8203;a&#173;b &#10;&#13;c",
    "&&amp;lt; &#38;#65; & amp; &amp;#128514;",
    "ｙｏｕ　ｉｄｉｏｔ ＆ａｍｐ；＆amp; ﬁne ﬂag Ⅳ Ǆ ½ ㎒ ﷺ … ™ № ㋿ ㊙ Ⓜ 🅰🆎",
    "𝓲𝓭𝓲𝓸𝓽 𝐢𝐝 ⓨⓞⓤ 🄸🄳🄸🄾🅃 🅸🅳 ℹ",
    "id\u200biot you\u00adidiot \u202eabc\u202c a\u2060b\ufeffc\u034fd \ufeff",
    "a\x00b\x07c\x1b[0m\x7fd\x85e\x93f",
    "you\u2028are\u2029a\u3000b\u00a0c\u1680d\u2007e\u202ff\u205fg\u180eh",
    "i\u0301d\u0334\u0353\u0335\u0336\u0337\u0338iot JOSE\u0301 A\u030a Å",
    "don’t ‘quoted’ it´s donʼt “x” — it′s",
    "Привет, мир 你好 こんにちは ｶﾞ ﾊﾟ 각 각 ᄒ\u115f\u1160 ㅤ ﾠx مرحبا नमस्ते",
    "✂️✂️ ↔️↔ ⬆️ 〰️ 〽 ⌚⏰ ▶️",
]


def ranges(codes: list[int]) -> list[list[int]]:
    """Return the first and the last code point of each run."""
    runs: list[list[int]] = []
    for code in codes:
        if runs and runs[-1][1] == code - 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return runs


def random_texts() -> list[str]:
    """Return texts of parts that interact, with a seed."""
    source = random.Random(23)
    emoji = sorted(emoji_names())
    parts = "a b Z 1 é \u0301 \u200d \ufe0f \u20e3 & &amp; &#x1F602; ; # \x00 \u00ad ﬁ ｗ 🏽 🇩 🇪"
    parts = [*parts.split(" "), " ", "\n", "\u3000", "😂", "😂"]
    texts = []
    for _ in range(RANDOM_TEXTS):
        count = source.randint(1, 12)
        texts.append(
            "".join(
                source.choice(emoji) if source.random() < 0.2 else source.choice(parts)
                for _ in range(count)
            )
        )
    return texts


def main() -> None:
    codes = [code for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF]
    removed = [code for code in codes if canonical(f"a{chr(code)}b") == "ab"]
    unassigned = [code for code in codes if unicodedata.category(chr(code)) == "Cn"]
    unassigned = sorted(set(unassigned) - set(removed))
    golden = {
        "unicode": unicodedata.unidata_version,
        "texts": [[text, canonical(text)] for text in TEXTS + random_texts()],
        "removed": ranges(removed),
        "unassigned": ranges(unassigned),
    }
    lines = [f"  {json.dumps(pair, ensure_ascii=False)}" for pair in golden["texts"]]
    OUT.write_text(
        f'{{"unicode": "{golden["unicode"]}",\n"texts": [\n' + ",\n".join(lines) + "\n],\n"
        f'"removed": {json.dumps(golden["removed"])},\n'
        f'"unassigned": {json.dumps(golden["unassigned"])}}}\n',
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
