//! Characters that stand for Latin letters: other scripts', and letters in another shape.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

use super::words::is_word;
use crate::encoder::spelled::{is_invisible, name};

/// Letters that characters resemble or are. tests/scripts/evasion_tables.py writes the file.
static LETTERS: LazyLock<HashMap<char, char>> = LazyLock::new(|| {
    let line = |line: &'static str| {
        let (letter, characters) = line.split_once('\t')?;
        let letter = letter.chars().next()?;
        Some(characters.chars().map(move |character| (character, letter)))
    };
    include_str!("lookalikes.tsv").lines().filter_map(line).flatten().collect()
});

/// Letters turned upside down.
const TURNED: [(char, char); 22] = [
    ('ɐ', 'a'),
    ('q', 'b'),
    ('ɔ', 'c'),
    ('p', 'd'),
    ('ǝ', 'e'),
    ('ɟ', 'f'),
    ('ƃ', 'g'),
    ('ɥ', 'h'),
    ('ᴉ', 'i'),
    ('ı', 'i'),
    ('ɾ', 'j'),
    ('ʞ', 'k'),
    ('ɯ', 'm'),
    ('u', 'n'),
    ('d', 'p'),
    ('b', 'q'),
    ('ɹ', 'r'),
    ('ʇ', 't'),
    ('n', 'u'),
    ('ʌ', 'v'),
    ('ʍ', 'w'),
    ('ʎ', 'y'),
];

/// Kinds of the words of a text.
#[derive(Default)]
struct Counts {
    /// Words of Latin letters alone.
    latin: usize,
    /// Words of letters of another script.
    foreign: usize,
    /// Of these, words that resemble a word of English.
    resembling: usize,
    /// Words that mix Latin letters with lookalikes.
    mixed: usize,
    /// Words with letters upside down.
    turned: usize,
}

/// Replaces characters that stand for Latin letters.
pub(super) fn latin(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut counts = Counts::default();
    pieces(text).for_each(|piece| counts.add(piece));
    Cow::Owned(pieces(text).map(|piece| counts.read(piece)).collect())
}

/// Splits a text before and behind each word.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let end = rest.find(|next| belongs(next) != belongs(first)).unwrap_or(rest.len());
        let (piece, behind) = rest.split_at(end);
        rest = behind;
        Some(piece)
    })
}

/// True for characters of words, except of scripts that have no blanks between words.
fn belongs(character: char) -> bool {
    let is_unspaced = matches!(
        character,
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{2e80}'..='\u{9fff}'
            | '\u{ac00}'..='\u{d7ff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}'
    );
    character.is_ascii_alphabetic()
        || (!character.is_ascii()
            && !is_unspaced
            && (character.is_alphabetic()
                || is_combining_mark(character)
                || is_invisible(character)
                || LETTERS.contains_key(&character)))
}

/// The letters of a word.
struct Shape {
    /// Letters of ASCII, with marks or in compatibility forms.
    latin: usize,
    /// Letters of the Latin script in another shape, such as small capitals, and signs.
    shaped: usize,
    /// Letters of other scripts that resemble Latin ones.
    similar: usize,
    /// All other letters.
    other: usize,
    /// Letters upside down that are no usual ones.
    turned: usize,
}

fn shape(word: &str) -> Shape {
    let mut shape = Shape { latin: 0, shaped: 0, similar: 0, other: 0, turned: 0 };
    for character in word.nfkd().filter(|character| !is_combining_mark(*character)) {
        match character {
            _ if character.is_ascii() => shape.latin += 1,
            _ if is_invisible(character) => {}
            _ if LETTERS.contains_key(&character) => {
                shape.turned += usize::from(TURNED.iter().any(|(turned, _)| *turned == character));
                if is_of_latin_shape(character) { shape.shaped += 1 } else { shape.similar += 1 }
            }
            _ => shape.other += 1,
        }
    }
    shape
}

/// True for letters of the Latin script and for signs.
fn is_of_latin_shape(character: char) -> bool {
    matches!(character, '\u{a1}'..='\u{2af}' | '\u{1d00}'..='\u{1dbf}' | '\u{1e00}'..='\u{1eff}'
        | '\u{2000}'..='\u{2bff}' | '\u{2c60}'..='\u{2c7f}' | '\u{a720}'..='\u{a7ff}'
        | '\u{ab30}'..='\u{ab6f}' | '\u{1f100}'..='\u{1f1ff}')
}

/// `word` in ASCII letters, with `change` of each character.
fn spell(word: &str, change: impl Fn(char) -> char) -> String {
    let plain = |character: &char| !is_combining_mark(*character) && !is_invisible(*character);
    word.nfkd().filter(plain).map(change).collect()
}

fn letter(character: char) -> char {
    LETTERS.get(&character).copied().unwrap_or(character)
}

fn turned(character: char) -> char {
    let character = character.to_ascii_lowercase();
    let found = TURNED.iter().find(|(turned, _)| *turned == character);
    found.map_or_else(|| letter(character), |(_, upright)| *upright)
}

/// Flags of countries, and no letters.
fn is_flags(word: &str) -> bool {
    let letters: Vec<_> = word.chars().filter(|character| !is_invisible(*character)).collect();
    letters.chunks(2).all(|pair| match pair {
        [first, second] => name((*first, Some(*second))).is_some_and(|(emoji, _)| emoji.1.is_some()),
        _ => false,
    })
}

impl Counts {
    fn add(&mut self, word: &str) {
        if !word.starts_with(belongs) {
            return;
        }
        let shape = shape(word);
        self.turned += usize::from(shape.turned > 0);
        if shape.similar == 0 && shape.other == 0 {
            self.latin += 1;
        } else if shape.latin + shape.shaped == 0 {
            self.foreign += 1;
            let resembles = shape.other == 0 && is_word(&spell(word, letter).to_lowercase());
            self.resembling += usize::from(resembles);
        } else if shape.other == 0 {
            self.mixed += 1;
        }
    }

    fn read<'t>(&self, word: &'t str) -> Cow<'t, str> {
        if word.is_ascii() && self.turned == 0 || !word.starts_with(belongs) {
            return Cow::Borrowed(word);
        }
        let shape = shape(word);
        if self.turned > 0 && shape.similar + shape.other == 0 {
            let is_mostly_turned = self.turned * 2 >= self.latin;
            if shape.turned > 0 || (is_mostly_turned && !is_word(&word.to_lowercase())) {
                let upright = spell(word, turned);
                let backwards: String = upright.chars().rev().collect();
                if is_word(&upright) || is_word(&backwards) || (is_mostly_turned && shape.turned > 0) {
                    return Cow::Owned(upright);
                }
            }
        }
        if shape.shaped + shape.similar == 0 || shape.other > 0 || is_flags(word) {
            return Cow::Borrowed(word);
        }
        let mut spelled = spell(word, letter);
        // The same strokes are an i or an l.
        let other = |character| if letter(character) == 'i' { 'l' } else { letter(character) };
        let as_l = spell(word, |character| if character.is_ascii() { character } else { other(character) });
        if is_word(&as_l.to_lowercase()) && !is_word(&spelled.to_lowercase()) {
            spelled = as_l;
        }
        let letters = shape.latin + shape.shaped + shape.similar;
        let is_meant = if shape.similar == 0 {
            letters > 1 && (shape.shaped * 2 >= letters || is_word(&spelled.to_lowercase()))
        } else if shape.latin + shape.shaped > 0 {
            self.mixed * 4 >= self.foreign || self.latin >= self.foreign
        } else {
            let is_disguised = self.mixed * 4 >= self.foreign && self.mixed > 0
                || self.latin > self.foreign
                || (self.resembling > 2 && self.resembling * 5 >= self.foreign * 4);
            is_disguised && is_word(&spelled.to_lowercase())
        };
        if is_meant { Cow::Owned(spelled) } else { Cow::Borrowed(word) }
    }
}
