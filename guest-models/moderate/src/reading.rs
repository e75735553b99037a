//! Signs in a model's reading of texts that its scores may be wrong.

use guest_sdk::texts::TextFacts;

use crate::part::Text;

/// Minimum number of words of a text whose share of strange ones is looked at: in a shorter one, a
/// name decides it.
const MIN_WORDS: u32 = 4;

/// A text has strange words if it has more than this many tokens for each word.
const MAX_TOKENS_PER_WORD: f32 = 2.5;

/// A text has strange words if the model knows less than this share of its tokens, or of its words.
const MIN_KNOWN: f32 = 0.5;

/// Tokens of an emoji, which a text model may read as the words of its name.
const TOKENS_PER_EMOJI: u32 = 5;

/// A text with more tokens is long: the encoders were trained on shorter ones.
const MAX_TOKENS: u32 = 128;

/// The signs, of all texts of an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Many words are not in the vocabulary or split into many pieces, or the text is in a language
    /// for which the model was not trained.
    pub(crate) has_strange_words: bool,
    /// A text is long, or its end was not read.
    pub(crate) is_long: bool,
}

impl Reading {
    /// The signs in the reading of `texts`.
    pub(crate) fn of(texts: &[Text], facts: &[TextFacts]) -> Reading {
        let both = || texts.iter().map(|text| text.text.as_str()).zip(facts);
        Reading {
            has_strange_words: both().any(|(text, facts)| has_strange_words(text, facts)),
            is_long: both().any(|(_, facts)| facts.is_truncated || facts.tokens > MAX_TOKENS),
        }
    }
}

fn has_strange_words(text: &str, facts: &TextFacts) -> bool {
    let TextFacts { tokens, known, .. } = *facts;
    let (words, signs) = counts(text);
    if facts.foreign.is_some() {
        return true;
    }
    if words < MIN_WORDS {
        return false;
    }
    let is_split = tokens as f32 > MAX_TOKENS_PER_WORD * words as f32 + signs as f32;
    // Some models leave unknown words out, others count them.
    let is_unknown = (known as f32) < MIN_KNOWN * tokens.max(words) as f32;
    is_split || is_unknown
}

/// Numbers of words, and of tokens that other characters may take. A script without blanks has a
/// word for each character.
fn counts(text: &str) -> (u32, u32) {
    let (mut words, mut signs, mut is_within) = (0, 0, false);
    for character in text.chars() {
        let is_word = character.is_alphanumeric() || character == '\'' && is_within;
        if is_word && (!is_within || is_ideograph(character)) {
            words += 1;
        }
        if !is_word && !character.is_whitespace() {
            signs += if character.is_ascii() { 1 } else { TOKENS_PER_EMOJI };
        }
        is_within = is_word;
    }
    (words, signs)
}

fn is_ideograph(character: char) -> bool {
    matches!(character, '\u{3040}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_signs_are_counted() {
        for (text, expected) in [
            ("", (0, 0)),
            ("don't stop, please!", (3, 2)),
            ("good 😂 day", (2, 5)),
            ("日本語", (3, 0)),
            ("a1 b2\n--", (2, 2)),
        ] {
            assert_eq!(counts(text), expected, "{text}");
        }
    }

    #[test]
    fn unknown_and_split_words_are_strange() {
        let text = "we meet at the usual place";
        // Tokens, known tokens, language, and whether words are strange.
        for (tokens, known, foreign, expected) in [
            (6, 6, None, false),
            (8, 8, None, false),
            (16, 16, None, true),
            (6, 3, None, false),
            (6, 2, None, true),
            // A model that leaves unknown words out.
            (2, 2, None, true),
            (6, 6, Some("German"), true),
        ] {
            let foreign = foreign.map(str::to_owned);
            let facts = TextFacts { tokens, known, foreign, ..TextFacts::default() };
            assert_eq!(has_strange_words(text, &facts), expected, "{facts:?}");
        }
        let facts = TextFacts { tokens: 9, known: 9, ..TextFacts::default() };
        assert!(!has_strange_words("Xzqwrt Bvlkpf", &facts), "too few words to tell");
        let facts = TextFacts { tokens: 14, known: 14, ..TextFacts::default() };
        assert!(!has_strange_words("so nice to see 🌈🌈", &facts), "emoji are read as their names");
    }

    #[test]
    fn long_and_cut_texts_are_recognised() {
        let text = |text: &str| Text { part: 0, text: text.to_owned(), is_read: false };
        for (tokens, is_truncated, expected) in [(128, false, false), (129, false, true), (9, true, true)] {
            let facts = TextFacts { tokens, known: tokens, is_truncated, ..TextFacts::default() };
            let found = Reading::of(&[text("a b"), text("a b")], &[TextFacts::default(), facts]);
            assert_eq!(found.is_long, expected, "{tokens}");
        }
    }
}
