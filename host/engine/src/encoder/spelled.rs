//! The canonical form in which emoji are words.
//!
//! The shipped moderation encoder was trained on it: the steps equal `canonical` of
//! weights/convert/moderation_encoder/text.py, whose forms of many texts the tests compare. In
//! order:
//!
//! 1. References of HTML become their characters, once.
//! 2. Invisible characters are removed, and control characters become spaces.
//! 3. Compatibility forms are folded (NFKC), and step 2 follows again.
//! 4. Each emoji becomes its name between spaces, the longest of `emoji.tsv`. One that directly
//!    follows an equal one is left out.
//! 5. White space becomes one space, and none at the ends.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use unicode_normalization::UnicodeNormalization as _;

/// Emoji, of one code point or two, and their names.
static NAMES: LazyLock<HashMap<(char, Option<char>), &str>> = LazyLock::new(|| {
    let table = include_str!("../../../../weights/convert/moderation_encoder/emoji.tsv");
    table.lines().filter_map(entry).collect()
});

/// Characters of references by name.
const REFERENCES: [(&str, char); 6] =
    [("amp", '&'), ("lt", '<'), ("gt", '>'), ("quot", '"'), ("apos", '\''), ("nbsp", ' ')];

/// Returns the form of `text` in which emoji are words.
pub(super) fn spelled(text: &str) -> String {
    let text = references(text);
    let mut words = Words::with_capacity(text.len());
    if text.is_ascii() {
        text.chars().filter_map(visible).for_each(|character| words.push(character));
        return words.text;
    }
    let mut folded = text.chars().filter_map(visible).nfkc().filter_map(visible).peekable();
    let mut last = None;
    while let Some(character) = folded.next() {
        let pair = (character, folded.peek().copied());
        let found = if may_be_emoji(character) { name(pair) } else { None };
        match found {
            None => words.push(character),
            Some((emoji, name)) => {
                if emoji.1.is_some() {
                    folded.next();
                }
                if last != Some(emoji) {
                    words.push_word(name);
                }
            }
        }
        last = found.map(|(emoji, _)| emoji);
    }
    words.text
}

/// Text with one space for each run of white space.
struct Words {
    text: String,
    /// True if a space precedes the next character.
    space: bool,
}

impl Words {
    fn with_capacity(bytes: usize) -> Self {
        Words { text: String::with_capacity(bytes), space: false }
    }

    fn push(&mut self, character: char) {
        if character.is_whitespace() {
            self.space = !self.text.is_empty();
            return;
        }
        if std::mem::take(&mut self.space) {
            self.text.push(' ');
        }
        self.text.push(character);
    }

    /// Appends `word` between spaces.
    fn push_word(&mut self, word: &str) {
        self.push(' ');
        word.chars().for_each(|character| self.push(character));
        self.push(' ');
    }
}

/// A line of the table.
fn entry(line: &'static str) -> Option<((char, Option<char>), &'static str)> {
    let (emoji, name) = line.split_once('\t')?;
    let mut characters = emoji.chars();
    Some(((characters.next()?, characters.next()), name))
}

/// False for characters with which no emoji begins.
fn may_be_emoji(character: char) -> bool {
    matches!(character, '\u{2190}'..='\u{2bff}' | '\u{3030}'..='\u{303d}' | '\u{1f000}'..='\u{1ffff}')
}

/// The longest emoji at the beginning of `pair`, and its name.
pub(super) fn name(pair: (char, Option<char>)) -> Option<((char, Option<char>), &'static str)> {
    [pair, (pair.0, None)].into_iter().find_map(|emoji| Some((emoji, *NAMES.get(&emoji)?)))
}

/// Replaces references of HTML by their characters.
fn references(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('&') {
        replaced.push_str(before);
        match reference(behind) {
            Some((character, length)) => {
                replaced.push(character);
                rest = &behind[length..];
            }
            None => {
                replaced.push('&');
                rest = behind;
            }
        }
    }
    replaced.push_str(rest);
    Cow::Owned(replaced)
}

/// The character of the reference at the beginning of `text`, behind its `&`, and the reference's
/// length.
fn reference(text: &str) -> Option<(char, usize)> {
    // The longest is `#1114111;`.
    let end = text.bytes().take(9).position(|byte| byte == b';')?;
    let name = &text[..end];
    let number = |digits: &str, radix: u32, max: usize| {
        let is_number =
            (1..=max).contains(&digits.len()) && digits.chars().all(|digit| digit.is_digit(radix));
        let code = is_number.then(|| u32::from_str_radix(digits, radix).ok()).flatten()?;
        char::from_u32(code).filter(|character| *character != '\0')
    };
    let character = match name.strip_prefix('#') {
        Some(digits) => match digits.strip_prefix(['x', 'X']) {
            Some(digits) => number(digits, 16, 6)?,
            None => number(digits, 10, 7)?,
        },
        None => REFERENCES.iter().find(|(known, _)| *known == name)?.1,
    };
    Some((character, end + 1))
}

/// The character, a space for a control character, or nothing for an invisible one.
fn visible(character: char) -> Option<char> {
    match character {
        _ if character.is_control() => Some(' '),
        _ if is_invisible(character) => None,
        _ => Some(character),
    }
}

/// Returns true for the general category Cf (Unicode 15.1), and for characters that fonts draw as
/// nothing: joiners, fillers, variation selectors, tags.
pub(super) fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}'
            | '\u{34f}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2064}'
            | '\u{2066}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Forms by weights/convert/moderation_encoder/text.py, which tests/text_models/canonical.py
    /// wrote.
    fn golden() -> Value {
        serde_json::from_str(include_str!("../../../../tests/data/text-models/canonical.json")).unwrap()
    }

    #[test]
    fn forms_equal_the_reference() {
        let golden = golden();
        let cases = golden["texts"].as_array().unwrap();
        assert!(cases.len() > 500, "{}", cases.len());
        for case in cases {
            let text = case[0].as_str().unwrap();
            assert_eq!(spelled(text), case[1].as_str().unwrap(), "{text:?}");
        }
    }

    #[test]
    fn removed_characters_equal_the_reference() {
        let golden = golden();
        let range = |pair: &Value| pair[0].as_u64().unwrap()..=pair[1].as_u64().unwrap();
        let ranges = |name: &str| golden[name].as_array().unwrap().iter().map(range).collect::<Vec<_>>();
        let (removed, unassigned) = (ranges("removed"), ranges("unassigned"));
        for character in '\0'..=char::MAX {
            let code = u64::from(character);
            if !unassigned.iter().any(|range| range.contains(&code)) {
                let expected = removed.iter().any(|range| range.contains(&code));
                assert_eq!(spelled(&format!("a{character}b")) == "ab", expected, "{character:?}");
            }
        }
    }

    #[test]
    fn each_emoji_is_found() {
        assert!(NAMES.len() > 2_500);
        assert!(NAMES.keys().all(|(first, _)| may_be_emoji(*first)));
    }

    proptest! {
        #[test]
        fn form_is_bounded_and_has_single_spaces(text in any::<String>()) {
            let form = spelled(&text);
            // The longest growth is that of U+FDFA, by NFKC, or of a name.
            prop_assert!(form.len() <= 20 * text.len());
            prop_assert_eq!(form.split_whitespace().collect::<Vec<_>>().join(" "), form);
        }
    }
}
