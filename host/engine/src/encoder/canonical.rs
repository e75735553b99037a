//! The forms in which a text is read, so that Unicode cannot hide a word.
//!
//! Compatibility forms are folded (NFKC, Unicode Standard Annex #15): fullwidth letters, ligatures,
//! mathematical alphabets. Invisible and control characters are removed. Typographic apostrophes
//! become apostrophes.
//!
//! Some characters may or may not separate two words: an invisible one, a symbol that becomes
//! letters (`™`), an apostrophe that is no part of a contraction, and the border between Latin and
//! other letters, which no blank separates in Chinese or Thai. A text with such a border between
//! letters is read twice: with its words joined, and with its words split.

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::{decompose_compatible, is_combining_mark};

use super::evasion::undone;
use super::spelled::spelled;
use crate::card::{Emoji, Evasion};
use crate::limits::MAX_MARKS;

/// Endings behind an apostrophe that belong to the word before.
const ENDINGS: [&str; 7] = ["s", "t", "d", "m", "re", "ve", "ll"];

/// The readings of a text.
pub(super) struct Readings {
    /// The canonical form, and a second one if the borders of words are unclear.
    pub(super) canonical: Vec<String>,
    /// The text with evasive spellings undone, if it has any.
    pub(super) undone: Option<String>,
}

/// Returns the readings of `text`.
pub(super) fn readings(text: &str, emoji: Emoji, evasion: Evasion) -> Readings {
    let forms = |text: &str| match emoji {
        Emoji::Keep => folded(text),
        Emoji::Words => vec![spelled(text)],
    };
    let canonical = forms(text);
    let undone = match evasion {
        Evasion::Keep => None,
        Evasion::Undo => undone(text, &canonical[0], |text| forms(text).swap_remove(0)),
    };
    Readings { canonical, undone }
}

/// Returns the readings of `text` with its emoji: one, or two if the borders of its words are
/// unclear.
fn folded(text: &str) -> Vec<String> {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~' | b'\t'..=b'\r') && byte != b'\'';
    if text.bytes().all(is_plain) {
        return vec![text.to_owned()];
    }
    let mut reader = Reader::default();
    text.chars().for_each(|character| reader.read(character));
    reader.finish()
}

/// Reads a text character by character.
#[derive(Default)]
struct Reader {
    joined: String,
    split: String,
    /// True if the two readings differ.
    is_unclear: bool,
    /// True if a border precedes the next character.
    border: bool,
    /// Script of the last letter, true for Latin; `None` if the last character is no letter.
    latin: Option<bool>,
    /// Marks since the last letter.
    marks: usize,
}

impl Reader {
    fn read(&mut self, character: char) {
        if is_invisible(character) || (character.is_control() && !character.is_whitespace()) {
            self.border = true;
            return;
        }
        if is_apostrophe(character) {
            self.latin = None;
            return self.push('\'');
        }
        if is_combining_mark(character) {
            self.marks += 1;
            if self.marks <= MAX_MARKS {
                self.joined.push(character);
                self.split.push(character);
            }
            return;
        }
        self.marks = 0;
        // A symbol that becomes letters may or may not belong to the word beside it.
        let is_loose = !character.is_alphanumeric() && becomes_letters(character);
        self.border |= is_loose;
        if character.is_alphanumeric() || is_loose {
            let latin = is_latin(character) || is_loose;
            self.border |= self.latin.is_some_and(|before| before != latin) && character.is_alphabetic();
            if std::mem::take(&mut self.border) && self.split.ends_with(char::is_alphanumeric) {
                self.split.push(' ');
                self.is_unclear = true;
            }
            self.joined.push(character);
            // Of a symbol, the split reading has only the border that it may be.
            if is_loose {
                self.split.push(' ');
                self.is_unclear = true;
            } else {
                self.split.push(character);
            }
            self.latin = character.is_alphabetic().then_some(latin);
            self.border = is_loose;
        } else {
            (self.latin, self.border) = (None, false);
            self.push(character);
        }
    }

    fn push(&mut self, character: char) {
        self.joined.push(character);
        self.split.push(character);
    }

    fn finish(self) -> Vec<String> {
        let joined: String = self.joined.nfkc().collect();
        let split: String = self.split.nfkc().collect();
        let (split, has_quotes) = split_apostrophes(&split);
        if self.is_unclear || has_quotes { vec![joined, split] } else { vec![joined] }
    }
}

/// Replaces apostrophes between letters by spaces, except those of contractions. Returns true if
/// there are any.
fn split_apostrophes(text: &str) -> (String, bool) {
    let mut split = String::with_capacity(text.len());
    let mut found = false;
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('\'') {
        split.push_str(before);
        let ending = behind.find(|next: char| !next.is_alphanumeric()).map_or(behind, |end| &behind[..end]);
        let is_inside = split.ends_with(char::is_alphanumeric) && !ending.is_empty();
        let is_contraction = ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known));
        let is_border = is_inside && !is_contraction;
        split.push(if is_border { ' ' } else { '\'' });
        found |= is_border;
        rest = behind;
    }
    split.push_str(rest);
    (split, found)
}

/// Returns true for invisible characters: the property `Default_Ignorable_Code_Point` (Unicode
/// Standard Annex #44) and the marks of interlinear annotation.
fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Returns true for characters that represent an apostrophe, or that people type as one.
fn is_apostrophe(character: char) -> bool {
    matches!(
        character,
        '\'' | '\u{b4}'
            | '\u{2b9}'
            | '\u{2bb}'
            | '\u{2bc}'
            | '\u{2bd}'
            | '\u{2018}'
            | '\u{2019}'
            | '\u{201b}'
            | '\u{2032}'
            | '\u{ff07}'
    )
}

fn becomes_letters(character: char) -> bool {
    let mut has_letters = false;
    decompose_compatible(character, |part| has_letters |= part.is_alphanumeric());
    has_letters
}

/// Returns true for letters whose decomposition is in the Latin script.
fn is_latin(letter: char) -> bool {
    let mut latin = true;
    decompose_compatible(letter, |part| {
        latin &= matches!(part, '\0'..='\u{36f}' | '\u{1d00}'..='\u{1dbf}' | '\u{1e00}'..='\u{1eff}'
            | '\u{2c60}'..='\u{2c7f}' | '\u{a720}'..='\u{a7ff}');
    });
    latin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_text_has_one_reading() {
        for (text, expected) in [
            ("Plain text, \"quoted\"\r\n", "Plain text, \"quoted\"\r\n"),
            ("don't she'll I’m ‘quoted’", "don't she'll I'm 'quoted'"),
            ("ｙｏｕ　ｉｄｉｏｔ", "you idiot"),
            ("𝓲𝓭𝓲𝓸𝓽 ⓨⓞⓤ ﬂag", "idiot you flag"),
            ("cafe\u{301} JOSÉ", "café JOSÉ"),
            ("a\u{301}\u{301}\u{301}\u{301}\u{301}\u{301}", "á\u{301}\u{301}\u{301}"),
            ("❤\u{fe0f} 👩\u{200d}💻 ok", "❤ 👩💻 ok"),
            ("\u{feff}begin\u{200b}", "begin"),
            ("Привет мир, 你好", "Привет мир, 你好"),
            ("covid19 x2", "covid19 x2"),
        ] {
            assert_eq!(folded(text), [expected], "{text:?}");
        }
    }

    #[test]
    fn unclear_borders_are_read_twice() {
        for (text, joined, split) in [
            ("you\u{200b}idiot", "youidiot", "you idiot"),
            ("i\u{ad}d\0iot", "idiot", "i d iot"),
            ("你是idiot吗", "你是idiot吗", "你是 idiot 吗"),
            ("you™idiot", "youTMidiot", "you  idiot"),
            ("you'idiot", "you'idiot", "you idiot"),
            ("you’are’an’idiot", "you'are'an'idiot", "you are an idiot"),
            ("o'brien don't", "o'brien don't", "o brien don't"),
        ] {
            assert_eq!(folded(text), [joined, split], "{text:?}");
        }
    }
}
