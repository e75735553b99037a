//! The text model's words and their ids: a constant table in the component, made by the build
//! script.

use crate::hash;

mod table {
    use crate::vocabulary::Ascii;

    include!(concat!(env!("OUT_DIR"), "/table.rs"));
}

/// The SHA-256 of the vocabulary's file, in hexadecimal: what tells a model of other words.
pub(crate) fn sha256() -> &'static str {
    table::SHA256
}

/// The part that a byte plays in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ascii {
    /// Belongs to a word: letters, digits, the apostrophe.
    Letter,
    /// Stands between words.
    Separator,
    /// A control character that nobody sees, or no ASCII.
    Other,
}

/// The id of a word in lower case, from 1; none for a word that the model was not trained on.
pub(crate) fn id(word: &[u8]) -> Option<u16> {
    let hash = hash::hash(word);
    let mut at = hash::first_slot(hash);
    loop {
        let slot = table::SLOTS[at];
        if slot == 0 {
            return None;
        }
        let id = (slot & (hash::SLOTS as u32 - 1)) as u16;
        if slot == hash::slot(hash, id) && spelling(id) == Some(word) {
            return Some(id);
        }
        at = (at + 1) % hash::SLOTS;
    }
}

/// The part that `byte` plays in words.
pub(crate) fn ascii(byte: u8) -> Ascii {
    table::ASCII[usize::from(byte)]
}

fn spelling(id: u16) -> Option<&'static [u8]> {
    let [start, end] = [id.checked_sub(1)?, id].map(|at| table::STARTS.get(usize::from(at)));
    table::WORDS.as_bytes().get(*start? as usize..*end? as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_model_has_its_id() {
        let json = include_bytes!("../../../weights/toxic-bilstm/vocab.json");
        let json: serde_json::Value = serde_json::from_slice(json).unwrap();
        let words = json["vocab"].as_object().unwrap();
        assert_eq!(words.len(), 19_999);
        for (word, expected) in words {
            assert_eq!(id(word.as_bytes()).map(u64::from), expected.as_u64(), "`{word}`");
        }
    }

    #[test]
    fn other_words_have_none() {
        for word in ["", "The", "xyzzyplugh", "the ", "stupid!", "\u{1F600}"] {
            assert_eq!(id(word.as_bytes()), None, "`{word}`");
        }
        let unknown = (0..200_000).filter(|number| id(format!("#{number}").as_bytes()).is_some()).count();
        assert_eq!(unknown, 0);
    }
}
