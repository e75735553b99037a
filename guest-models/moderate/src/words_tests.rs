//! Words compared with an independent tokeniser, and pairs of texts that read alike.

use super::*;

fn golden() -> Vec<(String, Vec<i32>)> {
    let golden: serde_json::Value = serde_json::from_str(include_str!("../testdata/tokens.json")).unwrap();
    let case = |case: &serde_json::Value| {
        let row = case["row"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap() as i32);
        (case["text"].as_str().unwrap().to_owned(), row.collect())
    };
    golden.as_array().unwrap().iter().map(case).collect()
}

#[test]
fn ids_equal_the_reference() {
    let golden = golden();
    assert!(golden.len() >= 40);
    for (text, row) in golden {
        let ids = ids(&text);
        let last = &ids[ids.len().saturating_sub(100)..];
        assert_eq!(row[100 - last.len()..], *last, "{text:?}");
        assert!(row[..100 - last.len()].iter().all(|&id| id == 0), "{text:?}");
    }
}

#[test]
fn every_separator_splits_words() {
    let expected = ids("you idiot fool");
    assert_eq!(expected.len(), 3);
    let separators = concat!(
        "\t\n\r\u{b}\u{c} !\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~",
        "\u{85}\u{a0}\u{1680}\u{2000}\u{2007}\u{2009}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}",
        "“”„‟«»‹›「」『』〝〞＂",
        "‐‑‒–—―⸺−－",
        "…‥。、，．：；！？¡¿·•‧・",
        "（）［］｛｝【】〈〉《》〔〕",
        "😀❤☠🖕→►★©°§¶†‡№€£¥×÷∞♥☺🇺",
        "\u{fffc}\u{fffd}\u{2800}\u{e000}＿‿¯",
    );
    for separator in separators.chars() {
        let text = format!("{separator}you{separator}idiot{separator}{separator}fool{separator}");
        let found: Vec<_> = ids(&text).into_iter().filter(|id| expected.contains(id)).collect();
        assert_eq!(found, expected, "U+{:04X}", separator as u32);
    }
    for separator in ["\r\n", "❤\u{fe0f}", "👩\u{200d}💻", "👍🏽", "🏴\u{e0067}\u{e007f}", "™", "①", "…\u{a0}"]
    {
        let text = format!("you{separator}idiot{separator}fool");
        let found: Vec<_> = ids(&text).into_iter().filter(|id| expected.contains(id)).collect();
        assert_eq!(found, expected, "{separator:?}");
    }
}

#[test]
fn folded_words_equal_their_ascii_twins() {
    for (text, twin) in [
        ("ｙｏｕ　ｉｄｉｏｔ", "you idiot"),
        ("ⓨⓞⓤ 𝓲𝓭𝓲𝓸𝓽 𝐟𝐨𝐨𝐥", "you idiot fool"),
        ("ﬂag ﬁne", "flag fine"),
        ("don’t don‘t donʼt don＇t don´t don′t", "don't don't don't don't don't don't"),
        ("‘idiot’ ‚idiot‛ 'idiot' ''idiot''", "idiot idiot idiot idiot"),
        ("you‘idiot’fool’s", "you idiot fool 's"),
        ("fool’s ｆｏｏｌ＇ｓ", "fool fool"),
        ("ÍDÏÖT", "idiot"),
        ("i\u{301}d\u{334}\u{353}\u{34a}\u{301}\u{302}\u{303}io\u{489}t", "idiot"),
        ("JOSE\u{301} José", "josé josé"),
        ("İstanbul", "istanbul"),
        ("ſtupid", "stupid"),
        ("🄸🄳🄸🄾🅃", "idiot"),
    ] {
        assert_eq!(ids(text), ids(twin), "{text:?}");
        assert_eq!(ids(twin).len(), twin.split(' ').count(), "{twin}");
    }
}

#[test]
fn apostrophes_do_not_hide_words() {
    for (text, twin) in [
        ("you'idiot", "you idiot"),
        ("you'are'an'idiot", "you are an idiot"),
        ("You complete idiot's", "you complete idiot"),
        ("IDIOT'S", "idiot"),
        ("idiot''fool", "idiot fool"),
        ("xyzzyplugh' 'xyzzyplugh '''''''''", ""),
        ("xyzzyplugh's", "'s"),
        // Words of the vocabulary stay whole.
        ("don't o'brien wikipedia's 80's 's", "don't o'brien wikipedia's 80's 's"),
    ] {
        let known = |word: &str| vocabulary::id(word.as_bytes()).map(i32::from);
        let expected: Vec<_> = twin.split_whitespace().filter_map(known).collect();
        assert_eq!(expected.len(), twin.split_whitespace().count(), "{twin}");
        assert_eq!(ids(text), expected, "{text:?}");
        // Texts that are not only ASCII have the same ids, and so have typographic apostrophes.
        assert_eq!(ids(&format!("{text}\u{3000}")), expected, "{text:?}");
        assert_eq!(ids(&text.replace('\'', "\u{2019}")), expected, "{text:?}");
    }
}

#[test]
fn invisible_characters_neither_hide_nor_join_words() {
    let unseen = concat!(
        "\u{ad}\u{34f}\u{61c}\u{115f}\u{17b4}\u{180e}\u{200b}\u{200c}\u{200d}\u{200e}\u{200f}\u{202a}\u{202e}",
        "\u{2060}\u{2063}\u{2066}\u{2069}\u{3164}\u{fe0e}\u{fe0f}\u{feff}\u{ffa0}\u{fff9}\u{e0001}\u{e0061}\u{e0100}",
        "\0\u{7}\u{1b}\u{7f}\u{80}\u{9f}",
    );
    for unseen in unseen.chars() {
        let (inside, between) = (format!("you i{unseen}d{unseen}iot"), format!("you{unseen}idiot"));
        for text in [inside, between] {
            assert_eq!(ids(&text), ids("you idiot"), "U+{:04X}: {text:?}", unseen as u32);
        }
    }
}

#[test]
fn latin_words_are_found_inside_other_scripts() {
    for text in ["你是idiot吗", "きみはidiotだ", "너는idiot이야", "คุณidiotมาก", "тыidiot", "أنتidiot"]
    {
        assert_eq!(ids(text), ids("idiot"), "{text}");
    }
    assert_eq!(ids("dαlus"), ids("dαlus!"));
    assert_eq!(ids("dαlus").len(), 1, "a word of the vocabulary in two scripts");
}

#[test]
fn ascii_splits_as_keras_does() {
    // Texts of ASCII from a simple generator: the ids are those of Keras, and those that
    // apostrophes hid.
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as usize
    };
    let words = ["you", "IDIOT", "don't", "Fool", "xyzzyplugh", "wikipedia's", "the", "'", "80's"];
    for _ in 0..2_000 {
        let text: String = (0..next() % 12)
            .flat_map(|_| {
                let separators = " \t\n!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~";
                [words[next() % words.len()], &separators[next() % separators.len()..][..1]]
            })
            .collect();
        let keras: Vec<_> = text
            .to_lowercase()
            .split(|c: char| " \t\n!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~".contains(c))
            .filter_map(|word| vocabulary::id(word.as_bytes()))
            .map(i32::from)
            .collect();
        assert_eq!(ids(&text), keras, "{text:?}");
        // The path for texts beyond ASCII has the same result.
        assert_eq!(ids(&format!("{text}\u{3000}")), keras, "{text:?}");
    }
}

#[test]
fn endless_words_are_dropped() {
    let long = "a".repeat(100_000);
    for text in [
        format!("{long}\u{200b}idiot"),
        format!("idiot\u{200b}{long}"),
        format!("idiot\u{3000}{long}"),
        format!("{}idiot", "xqzzt\u{200b}".repeat(50_000)),
        format!("idiot{}", "\u{301}".repeat(100_000)),
        format!("idiot {}", "ﷺ".repeat(10_000)),
    ] {
        assert_eq!(ids(&text), ids("idiot"), "{} bytes", text.len());
    }
}
