//! Words and sentences of a text, as ranges of its bytes.

use std::ops::Range;

use guest_sdk::text::{is_invisible, is_mark};

use crate::limits::MAX_WORD_CHARACTERS;

/// Returns the words of `text`: what stands between blanks, without the punctuation around it. A
/// run of emoji and an ideograph are words of their own, and a long word is divided. No word begins
/// with a mark or an invisible character of the one before.
pub(crate) fn words(text: &str) -> Vec<Range<usize>> {
    let mut words = Vec::new();
    let mut open: Option<Open> = None;
    for (at, character) in text.char_indices() {
        if character.is_whitespace() {
            close(text, &mut open, at, &mut words);
            continue;
        }
        let continues = is_mark(character) || is_invisible(character);
        let kind =
            if continues { open.as_ref().map_or(Kind::Letters, |open| open.kind) } else { kind(character) };
        let fits = |open: &Open| {
            continues || open.kind == kind && kind != Kind::Ideograph && open.characters < MAX_WORD_CHARACTERS
        };
        match open.as_mut().filter(|open| fits(open)) {
            Some(open) => open.characters += 1,
            None => {
                close(text, &mut open, at, &mut words);
                open = Some(Open { start: at, kind, characters: 1 });
            }
        }
    }
    close(text, &mut open, text.len(), &mut words);
    words
}

/// A word whose end is not known yet.
struct Open {
    start: usize,
    kind: Kind,
    characters: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Letters, digits, and the signs between them.
    Letters,
    Emoji,
    /// A letter of a script that has no blanks between words.
    Ideograph,
}

fn kind(character: char) -> Kind {
    match character {
        '\u{2190}'..='\u{21ff}' | '\u{2300}'..='\u{23ff}' | '\u{25a0}'..='\u{27bf}' => Kind::Emoji,
        '\u{2b00}'..='\u{2bff}' | '\u{1f000}'..='\u{1faff}' => Kind::Emoji,
        '\u{2e80}'..='\u{a4cf}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}' => Kind::Ideograph,
        _ => Kind::Letters,
    }
}

/// Ends the open word at `end`, unless it is nothing but punctuation.
fn close(text: &str, open: &mut Option<Open>, end: usize, words: &mut Vec<Range<usize>>) {
    let Some(Open { start, .. }) = open.take() else { return };
    let word = &text[start..end];
    let bare = word.trim_start_matches(is_punctuation);
    let start = start + word.len() - bare.len();
    let bare = bare.trim_end_matches(is_punctuation);
    if bare.chars().any(|character| !is_invisible(character) && !is_mark(character)) {
        words.push(start..start + bare.len());
    }
}

/// True for the signs around a word that are no part of it. Signs that hide a letter (`a$$`) stay.
fn is_punctuation(character: char) -> bool {
    matches!(
        character,
        '.' | ',' | ';' | ':' | '!' | '?' | '"' | '\'' | '`' | '(' | ')' | '[' | ']' | '{' | '}' | '<' | '>'
    ) || matches!(character, '…' | '“' | '”' | '„' | '‘' | '’' | '«' | '»' | '¡' | '¿' | '—' | '–')
        || matches!(character, '。' | '、' | '，' | '！' | '？' | '：' | '；' | '「' | '」')
}

/// Returns the sentences of `text`, without the blanks around them. A sentence ends with a line, or
/// with a full stop, an exclamation or a question mark before a blank. One that continues in lower
/// case does not end.
pub(crate) fn sentences(text: &str) -> Vec<Range<usize>> {
    let mut sentences = Vec::new();
    let mut start = 0;
    let mut ends = false;
    for (at, character) in text.char_indices() {
        let next = at + character.len_utf8();
        if character == '\n' || (ends && character.is_whitespace() && begins(&text[next..])) {
            push(text, start..at, &mut sentences);
            start = next;
        }
        ends = match character {
            '.' | '!' | '?' | '…' => true,
            '。' | '！' | '？' => {
                push(text, start..next, &mut sentences);
                start = next;
                false
            }
            // Signs that close a sentence behind its full stop.
            '"' | '\'' | ')' | ']' | '”' | '’' | '»' => ends,
            _ => false,
        };
    }
    push(text, start..text.len(), &mut sentences);
    sentences
}

/// True if `rest` may begin a sentence.
fn begins(rest: &str) -> bool {
    rest.trim_start().chars().next().is_some_and(|character| !character.is_lowercase())
}

fn push(text: &str, range: Range<usize>, sentences: &mut Vec<Range<usize>>) {
    let sentence = &text[range.clone()];
    let trimmed = sentence.trim_start();
    let start = range.start + sentence.len() - trimmed.len();
    let trimmed = trimmed.trim_end();
    if !trimmed.is_empty() {
        sentences.push(start..start + trimmed.len());
    }
}

/// Divides `range` into at most `count` groups of nearly equal length.
pub(crate) fn groups(range: Range<usize>, count: usize) -> Vec<Range<usize>> {
    let (length, count) = (range.len(), count.clamp(1, range.len().max(1)));
    let border = |index: usize| range.start + length * index / count;
    (0..count).map(|index| border(index)..border(index + 1)).filter(|group| !group.is_empty()).collect()
}

/// Converts ranges of bytes to ranges of Unicode scalar values.
pub(crate) fn characters(text: &str, bytes: &Range<usize>) -> Range<u32> {
    let count = |text: &str| text.chars().count() as u32;
    let start = count(&text[..bytes.start]);
    start..start + count(&text[bytes.clone()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str, ranges: Vec<Range<usize>>) -> Vec<&str> {
        ranges.into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn words_are_bare_and_whole() {
        for (text, expected) in [
            ("", vec![]),
            (" \n\t", vec![]),
            ("... !!! ?", vec![]),
            ("You (idiot)!", vec!["You", "idiot"]),
            ("“don't” be an a$$, @you #fool", vec!["don't", "be", "an", "a$$", "@you", "#fool"]),
            ("id*ot i.d.i.o.t.", vec!["id*ot", "i.d.i.o.t"]),
            ("café cafe\u{301} ñandú", vec!["café", "cafe\u{301}", "ñandú"]),
            ("you🐷🐷are 👩🏽\u{200d}💻!", vec!["you", "🐷🐷", "are", "👩🏽\u{200d}💻"]),
            ("❤\u{fe0f}you", vec!["❤\u{fe0f}", "you"]),
            ("你是idiot吗", vec!["你", "是", "idiot", "吗"]),
            ("\u{200b}\u{feff} a\u{200b}b", vec!["a\u{200b}b"]),
            ("a\u{a0}b\u{3000}c\u{2028}d", vec!["a", "b", "c", "d"]),
        ] {
            assert_eq!(parts(text, words(text)), expected, "{text:?}");
        }
    }

    #[test]
    fn long_words_are_divided_between_characters() {
        let text = "é".repeat(MAX_WORD_CHARACTERS * 2 + 1);
        let lengths: Vec<_> = words(&text).into_iter().map(|word| word.len()).collect();
        assert_eq!(lengths, [MAX_WORD_CHARACTERS * 2, MAX_WORD_CHARACTERS * 2, 2]);
        // Marks never begin a word.
        let text = format!("{}{}", "a".repeat(MAX_WORD_CHARACTERS), "\u{301}".repeat(500));
        assert_eq!(parts(&text, words(&text)), [text.as_str()]);
    }

    #[test]
    fn sentences_end_with_marks_and_lines() {
        for (text, expected) in [
            ("", vec![]),
            ("  \n ", vec![]),
            ("no end", vec!["no end"]),
            ("One. Two! Three?", vec!["One.", "Two!", "Three?"]),
            ("He said \"No!\" Then he left.", vec!["He said \"No!\"", "Then he left."]),
            ("e.g. this one, 3.5 of them. ok", vec!["e.g. this one, 3.5 of them. ok"]),
            ("first\r\nsecond\n\nthird", vec!["first", "second", "third"]),
            ("你好。再见！Ok", vec!["你好。", "再见！", "Ok"]),
            ("Well... 🐷 is it. 🐷!", vec!["Well...", "🐷 is it.", "🐷!"]),
        ] {
            assert_eq!(parts(text, sentences(text)), expected, "{text:?}");
        }
    }

    #[test]
    fn groups_cover_the_range_evenly() {
        assert_eq!(groups(0..5, 2), [0..2, 2..5]);
        assert_eq!(groups(3..5, 64), [3..4, 4..5]);
        assert!(groups(7..7, 4).is_empty());
        for (length, count) in [(64, 64), (65, 64), (1_000, 64), (4_097, 64), (10, 3)] {
            let found = groups(10..10 + length, count);
            assert!(found.len() <= count);
            assert_eq!(found.iter().map(ExactSizeIterator::len).sum::<usize>(), length);
            let (min, max) = (
                found.iter().map(ExactSizeIterator::len).min(),
                found.iter().map(ExactSizeIterator::len).max(),
            );
            assert!(max.unwrap() - min.unwrap() <= 1);
        }
    }

    #[test]
    fn positions_count_characters() {
        let text = "é🐷 idiot";
        let words = words(text);
        let found: Vec<_> = words.iter().map(|word| characters(text, word)).collect();
        assert_eq!(found, [0..1, 1..2, 3..8]);
    }
}
