//! Evasive spellings, texts that have none, and any text.

use proptest::prelude::*;

use super::undone;
use crate::encoder::spelled::spelled;

fn second(text: &str) -> Option<String> {
    undone(text, &spelled(text), spelled)
}

#[test]
fn evasive_spellings_are_undone() {
    for (text, expected) in [
        ("you are an іdіоt", "you are an idiot"),
        ("уоц are a ѕтυріԁ fool", "you are a stupid fool"),
        ("ʏᴏᴜ ɪᴅɪᴏᴛ", "you idiot"),
        ("you are an 🅸🅳🅸🅾🆃 🇮🇩🇮🇴🇹 🅱️itch", "you are an idiot idiot bitch"),
        ("ʎon ɐɹǝ ɐu ᴉpᴉoʇ", "you are an idiot"),
        ("you 1d10t, @ss and $tup1d f00l!", "you idiot, ass and stupid fool!"),
        ("you are |d|()+ | dumb", "you are idiot | dumb"),
        (
            "you are an i d i o t, i.d.i.o.t i-d-i-o-t i_d_i_o_t i*d*i*o*t",
            "you are an idiot, idiot idiot idiot idiot",
        ),
        ("y o u a r e a f o o l", "you are a fool"),
        ("you are so d u m b and so s 7 u p 1 d", "you are so dumb and so stupid"),
        ("1 d 1 0 t you are", "idiot you are"),
        ("idioooot, youuuu are stuuupid", "idiot, you are stupid"),
        ("you id.iot and stu-pid fo~ol", "you idiot and stupid fool"),
        ("you are an id*ot and a st#pid lia*", "you are an idiot and a stupid liar"),
        ("you id iot and stu pid man", "you idiot and stupid man"),
        ("you are an iidot and a sutpid man", "you are an idiot and a stupid man"),
        ("youareanidiotandafool", "you are an idiot and a fool"),
        ("you are an toidi", "you are an idiot"),
        ("you\u{200b}idiot", "you idiot"),
    ] {
        assert_eq!(second(text).as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn texts_without_evasion_have_no_second_reading() {
    for text in [
        "",
        "...",
        "I'd say we'll meet at 10:30, won't we? It costs $5.00 or 12€; call 555-1234 by 2024-05-01.",
        "Version v1.2.3 of 0xdeadbeef ran on port 8080 at 3pm for 4k users.",
        "Ask @some_user or mail a.user@example.com about #buildthebridge, see https://example.com/a1b2c3",
        "A, B and C; a b test of x1 and y2.",
        "It is a well-known fact, and/or a long-term plan.",
        "Γεια σου κόσμε, τι κάνεις σήμερα; Το όνομά μου είναι Άννα.",
        "Привет, как дела? Он купил сок, рис и новый iPhone, а она рот открыла.",
        "Тут нет ни одного слова по-английски, только хор, рот, нос и мир.",
        "你好，世界。我今天很高兴 iPhone",
        "こんにちは、元気ですか。",
        "안녕하세요 세계",
        "สวัสดีชาวโลก",
        "مرحبا بالعالم كيف حالك اليوم",
        "नमस्ते दुनिया आप कैसे हैं",
        "שלום עולם",
        "Die Straße nach Łódź ist heute gesperrt, und der Zug fährt nicht.",
        "Le garçon a mangé une crème brûlée près de la fenêtre hier soir.",
        "El niño comió una manzana en la montaña con su abuela ayer.",
        "Smørrebrød på bordet, og børnene leger i haven.",
        "Türkçe konuşmayı öğreniyorum, ışık ve gölge.",
        "🇩🇪🇫🇷 🇬🇧 👍🏽 1️⃣",
    ] {
        assert_eq!(second(text), None, "{text}");
    }
}

#[test]
fn long_texts_of_any_kind_are_read() {
    for unit in ["a", "1", "1 ", "a ", "a.", "4a", "і", "ɐ", "🅰", "🇩", "ab ", "a*b ", "youidiot", "\u{301}"]
    {
        let text = unit.repeat((256 << 10) / unit.len());
        let length = second(&text).map_or(0, |reading| reading.len());
        assert!(length <= 20 * text.len(), "{unit}: {length}");
    }
}

proptest! {
    #[test]
    fn reading_is_bounded_and_new(text in "[a-zA-Z0-9@$|!*# .іоɐᴛ🅰\u{1f1e6}\u{1f1fa}\u{301}\u{200b}-]{0,80}") {
        let first = spelled(&text);
        if let Some(second) = second(&text) {
            prop_assert!(second.len() <= 20 * text.len() && second != first);
        }
    }

    #[test]
    fn any_text_is_read(text in any::<String>()) {
        let _ = second(&text);
    }
}
