//! From text to the ids of the words in it.
//!
//! ASCII is split as the Keras tokeniser that the model was trained with splits it. What lies
//! outside ASCII is brought to ASCII first, where Unicode says how, so that a character costs a
//! text no more than its ASCII twin does:
//!
//! - A word consists of letters, marks and digits (general categories L, M and N) and apostrophes.
//!   Everything else stands between words: blanks, line ends, quotes, dashes, symbols, emoji.
//! - Compatibility forms are folded (NFKC, Unicode Standard Annex #15): fullwidth letters,
//!   ligatures, mathematical alphabets.
//! - Characters that nobody sees (`Default_Ignorable_Code_Point`, and control characters other than
//!   blanks) are dropped.
//! - Typographic apostrophes are apostrophes.
//!
//! Two readings of a word are tried where both are possible, the longer first. A word may fall
//! apart where an unseen character was dropped, before a typographic apostrophe (it may be a
//! quote), at a symbol that became letters (`™`), and where Latin letters meet others, which no
//! blank separates in Chinese or Thai: the model's vocabulary decides. A word that it lacks is
//! looked up without its marks, and without the apostrophes around it.

use guest_sdk::text::{is_invisible, is_mark};
use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::decompose_compatible;

use crate::vocabulary::{self, Ascii};

/// The longest word that is looked up, in bytes: twice the longest of the vocabulary. A longer one
/// is not kept.
const MAX_WORD: usize = 512;

/// Marks on one letter that are kept: more than any word of the vocabulary has.
const MAX_MARKS: usize = 4;

/// The ids of the words in `text` that the model knows, in order.
pub fn ids(text: &str) -> Vec<i32> {
    if text.bytes().all(|byte| matches!(vocabulary::ascii(byte), Ascii::Letter | Ascii::Separator)) {
        let text = text.to_ascii_lowercase();
        let words = text.as_bytes().split(|&byte| vocabulary::ascii(byte) == Ascii::Separator);
        return words.filter_map(plain_id).map(i32::from).collect();
    }
    let mut words = Words::default();
    text.chars().for_each(|character| words.read(character));
    words.end();
    words.ids
}

/// The id of a word of ASCII in lower case.
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

/// The id of a word in any case, decomposed.
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
    /// The word so far, decomposed; its ASCII letters in lower case.
    word: String,
    /// Where its last piece begins.
    start: usize,
    /// That piece is longer than any word.
    is_long: bool,
    /// The ids of the pieces before, where it may fall apart.
    pieces: Option<Vec<i32>>,
    /// The pieces together are longer than any word.
    is_long_together: bool,
    /// The last letter was a Latin one; none at the beginning of a word.
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
                Ascii::Letter => self.push(character),
                Ascii::Separator => self.end(),
                // A control character that is no blank: nobody sees it.
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
        // A symbol that becomes letters, such as `™`, may belong to the word beside it or not.
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

    /// The word may fall apart here.
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
            None => self.ids.extend(self.last_piece()),
            Some(pieces) => {
                let is_long = self.is_long || self.is_long_together;
                match id(&self.word).filter(|_| !is_long) {
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
        id(&self.word[self.start..]).filter(|_| !self.is_long).map(i32::from)
    }
}

/// Characters that stand for an apostrophe, or are taken for one by people who type.
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

/// Whether a decomposed letter or digit is of the Latin script, or of no script.
fn is_latin(letter: char) -> bool {
    matches!(letter, '\0'..='\u{36f}' | '\u{1d00}'..='\u{1dbf}' | '\u{1e00}'..='\u{1eff}' | '\u{2c60}'..='\u{2c7f}' | '\u{a720}'..='\u{a7ff}')
}

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;
