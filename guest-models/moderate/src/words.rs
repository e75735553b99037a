//! Converts text to the ids of its words.
//!
//! ASCII is split by the rules of the Keras tokeniser that the model was trained with. Other
//! characters are converted to ASCII first, where Unicode defines an equivalent, so that they
//! cannot hide a word:
//!
//! - A word consists of letters, marks and digits (general categories L, M and N) and apostrophes.
//!   Everything else separates words: blanks, line ends, quotes, dashes, symbols, emoji.
//! - Compatibility forms are folded (NFKC, Unicode Standard Annex #15): fullwidth letters,
//!   ligatures, mathematical alphabets.
//! - Invisible characters (`Default_Ignorable_Code_Point`, and control characters other than
//!   blanks) are dropped.
//! - Typographic apostrophes are apostrophes.
//!
//! If a word may also be several words, both readings are tried, the longer first. A word may split
//! at a dropped invisible character, before an apostrophe (it may be a quote, or join words), at a
//! symbol that became letters (`™`), and where Latin letters meet others, which no blank separates
//! in Chinese or Thai. The model's vocabulary decides. A word outside of it is looked up without
//! its marks and without the apostrophes around it, then without a possessive `'s`, then as its
//! parts.

use guest_sdk::text::{is_invisible, is_mark};
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::decompose_compatible;

use crate::vocabulary::{self, Ascii};

/// Maximum length of a word that is looked up, in bytes: twice the longest of the vocabulary.
/// Longer ones are dropped.
const MAX_WORD: usize = 512;

/// Maximum number of marks kept on one letter: more than any word of the vocabulary has.
const MAX_MARKS: usize = 4;

/// Returns the ids of the known words in `text`, in order.
pub fn ids(text: &str) -> Vec<i32> {
    if text.bytes().all(|byte| matches!(vocabulary::ascii(byte), Ascii::Letter | Ascii::Separator)) {
        let text = text.to_ascii_lowercase();
        let mut ids = Vec::new();
        for word in text.as_bytes().split(|&byte| vocabulary::ascii(byte) == Ascii::Separator) {
            plain_ids(word, &mut ids);
        }
        return ids;
    }
    let mut words = Words::default();
    text.chars().for_each(|character| words.read(character));
    words.end();
    words.ids
}

/// Suffix of a possessive form.
const POSSESSIVE: &str = "'s";

/// Appends the ids of a word of ASCII in lower case, or of its parts.
fn plain_ids(word: &[u8], ids: &mut Vec<i32>) {
    let whole = plain_id(word).or_else(|| plain_id(word.strip_suffix(POSSESSIVE.as_bytes())?));
    if whole.is_some() || !word.contains(&b'\'') {
        return ids.extend(whole.map(i32::from));
    }
    let mut rest = word;
    while let Some((_, behind)) = rest.split_first() {
        let length = behind.iter().position(|&byte| byte == b'\'').map_or(rest.len(), |at| at + 1);
        let (part, others) = rest.split_at(length);
        // A single apostrophe is not a part of a word.
        if part != b"'" {
            ids.extend(plain_id(part).map(i32::from));
        }
        rest = others;
    }
}

/// Returns the id of a word of ASCII in lower case.
fn plain_id(word: &[u8]) -> Option<u16> {
    vocabulary::id(word).or_else(|| {
        let bare = without_apostrophes(word);
        (bare.len() < word.len()).then(|| vocabulary::id(bare))?
    })
}

fn without_apostrophes(mut word: &[u8]) -> &[u8] {
    while let [b'\'', rest @ ..] | [rest @ .., b'\''] = word {
        word = rest;
    }
    word
}

/// Returns the id of a word in any case, decomposed.
fn id(word: &str) -> Option<u16> {
    if word.is_ascii() {
        return plain_id(word.as_bytes());
    }
    let lower = word.to_lowercase();
    let composed: String = lower.nfc().collect();
    plain_id(composed.as_bytes()).or_else(|| {
        let bare: String = lower.chars().filter(|&character| !is_mark(character)).collect();
        (bare != composed).then(|| plain_id(bare.as_bytes()))?
    })
}

/// Reads a text character by character.
#[derive(Default)]
struct Words {
    ids: Vec<i32>,
    /// The current word, decomposed; its ASCII letters in lower case.
    word: String,
    /// Start of its last piece.
    start: usize,
    /// True if that piece is longer than any word.
    is_long: bool,
    /// Ids of the earlier pieces, if the word may split.
    pieces: Option<Vec<i32>>,
    /// True if the pieces together are longer than any word.
    is_long_together: bool,
    /// Script of the last letter, true for Latin; `None` at the beginning of a word.
    latin: Option<bool>,
    /// Marks since the last letter.
    marks: usize,
}

impl Words {
    fn read(&mut self, character: char) {
        if let Ok(byte) = u8::try_from(character)
            && byte.is_ascii()
        {
            return match vocabulary::ascii(byte) {
                Ascii::Letter => {
                    if byte == b'\'' {
                        self.seam();
                    }
                    self.push(character);
                }
                Ascii::Separator => self.end(),
                // An invisible control character.
                Ascii::Other => self.seam(),
            };
        }
        if is_apostrophe(character) {
            // An apostrophe in a word, or a quote beside one.
            self.seam();
            return self.push('\'');
        }
        if is_invisible(character) || (character.is_control() && !character.is_whitespace()) {
            return self.seam();
        }
        // A symbol that becomes letters, such as `™`, may or may not belong to the word beside it.
        let loose = !character.is_alphabetic() && !is_mark(character);
        if loose {
            self.seam();
        }
        decompose_compatible(character, |part| match u8::try_from(part).map(vocabulary::ascii) {
            Ok(Ascii::Letter) => self.push(part.to_ascii_lowercase()),
            Ok(Ascii::Separator) => self.end(),
            _ if is_mark(part) => self.mark(part),
            _ if is_invisible(part) => self.seam(),
            _ if part.is_alphanumeric() => self.push(part),
            _ => self.end(),
        });
        if loose {
            self.seam();
        }
    }

    fn push(&mut self, letter: char) {
        let latin = is_latin(letter);
        if self.latin.is_some_and(|before| before != latin) {
            self.seam();
        }
        self.latin = Some(latin);
        self.marks = 0;
        self.append(letter.to_ascii_lowercase());
    }

    fn mark(&mut self, mark: char) {
        self.marks += 1;
        if self.marks <= MAX_MARKS {
            self.append(mark);
        }
    }

    fn append(&mut self, character: char) {
        self.is_long |= self.word.len() - self.start >= MAX_WORD;
        if !self.is_long {
            self.word.push(character);
        }
    }

    /// Marks a place where the word may split.
    fn seam(&mut self) {
        if self.word.len() == self.start {
            return;
        }
        let known = self.last_piece();
        self.pieces.get_or_insert_default().extend(known);
        self.is_long_together |= std::mem::take(&mut self.is_long) || self.word.len() > MAX_WORD;
        if self.is_long_together {
            self.word.clear();
        }
        self.start = self.word.len();
    }

    fn end(&mut self) {
        match self.pieces.take() {
            None => self.ids.extend(id(&self.word).filter(|_| !self.is_long).map(i32::from)),
            Some(pieces) => {
                let is_long = self.is_long || self.is_long_together;
                let whole = || id(&self.word).or_else(|| id(self.word.strip_suffix(POSSESSIVE)?));
                match if is_long { None } else { whole() } {
                    Some(known) => self.ids.push(known.into()),
                    None => self.ids.extend(pieces.into_iter().chain(self.last_piece())),
                }
            }
        }
        self.word.clear();
        (self.start, self.latin, self.marks) = (0, None, 0);
        (self.is_long, self.is_long_together) = (false, false);
    }

    fn last_piece(&self) -> Option<i32> {
        let piece = &self.word[self.start..];
        id(piece).filter(|_| piece != "'" && !self.is_long).map(i32::from)
    }
}

/// Returns true for characters that represent an apostrophe, or that people type as one.
fn is_apostrophe(character: char) -> bool {
    matches!(
        character,
        '\u{b4}'
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

/// Returns true for decomposed letters and digits of the Latin script or of no script.
fn is_latin(letter: char) -> bool {
    matches!(letter, '\0'..='\u{36f}' | '\u{1d00}'..='\u{1dbf}' | '\u{1e00}'..='\u{1eff}' | '\u{2c60}'..='\u{2c7f}' | '\u{a720}'..='\u{a7ff}')
}

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;
