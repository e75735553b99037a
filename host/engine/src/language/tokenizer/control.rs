//! Control tokens in a template's text, and protection against control tokens in callers' text.
//!
//! Templates mix control tokens with callers' content in one text. Before a template sees content,
//! a guard character is inserted after each character that could start a control token. A control
//! token only matches where it contains no guard, so that neither content, nor content joined to
//! the template's text, can form one. Guards are then removed.

use std::collections::{HashMap, HashSet};

/// First of the characters that serve as guards and marks.
const PRIVATE: char = '\u{f0000}';

/// Control tokens of a vocabulary, or its symbols, by their text.
#[derive(Default)]
pub(super) struct ControlTokens {
    ids: HashMap<String, u32>,
    /// The distinct lengths of the texts in bytes, longest first.
    lengths: Vec<usize>,
    /// First two bytes of the texts. Most characters that may start one do not.
    pairs: HashSet<[u8; 2]>,
    /// First characters of the texts.
    starts: Vec<char>,
    /// Possible continuations of a control token: each text without its first 1, 2, … characters.
    continuations: Vec<String>,
}

/// Characters that occur in none of the given texts.
pub(super) struct Guards {
    /// Prevents content from forming control tokens.
    pub(super) guard: char,
    /// Marks the end of the last content.
    pub(super) end: char,
    /// One mark for each content, in order.
    pub(super) marks: Vec<char>,
}

/// A part of a rendered template.
#[derive(Debug, PartialEq)]
pub(super) enum Piece<'t> {
    Text(&'t str),
    Control(u32),
}

impl ControlTokens {
    pub(super) fn new(tokens: impl Iterator<Item = (String, u32)>) -> Self {
        let mut control = ControlTokens::default();
        // Of equal texts, the first one is the token.
        for (text, id) in tokens {
            control.ids.entry(text).or_insert(id);
        }
        for text in control.ids.keys() {
            control.lengths.push(text.len());
            control.pairs.extend(text.as_bytes().first_chunk::<2>());
            control.starts.extend(text.chars().next());
            control.continuations.extend(text.char_indices().skip(1).map(|(at, _)| text[at..].to_owned()));
        }
        control.lengths.sort_unstable_by(|a, b| b.cmp(a));
        control.lengths.dedup();
        control.starts.sort_unstable();
        control.starts.dedup();
        control.continuations.sort_unstable();
        control.continuations.dedup();
        control
    }

    /// The id of the control token `text`.
    pub(super) fn get(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }

    /// `content` with guards inserted.
    pub(super) fn guarded(&self, content: &str, guard: char) -> String {
        let mut guarded = String::with_capacity(content.len() + 8);
        // Templates trim content, so its first visible character may follow spaces. A guard before
        // these would keep them.
        let trimmed = content.trim_start();
        let spaces = &content[..content.len() - trimmed.len()];
        if !spaces.is_empty() && (self.continues(content) || self.continues(content.trim_end())) {
            guarded.push(guard);
        }
        guarded.push_str(spaces);
        if self.continues(trimmed) || self.continues(trimmed.trim_end()) {
            guarded.push(guard);
        }
        for character in trimmed.chars() {
            guarded.push(character);
            if self.starts.binary_search(&character).is_ok() {
                guarded.push(guard);
            }
        }
        guarded
    }

    /// True if `content` may complete, or be inside of, a control token that the preceding text
    /// began.
    fn continues(&self, content: &str) -> bool {
        let from = |text: &str| self.continuations.partition_point(|rest| rest.as_str() < text);
        // A continuation that starts with the content sorts at the content's position; one that is
        // a prefix of the content sorts at the position of that prefix.
        let within = |at: usize| self.continuations.get(at).is_some_and(|rest| rest.starts_with(content));
        let longest = self.lengths.first().copied().unwrap_or(0);
        !content.is_empty()
            && (within(from(content))
                || content
                    .char_indices()
                    .map(|(at, character)| at + character.len_utf8())
                    .take_while(|end| *end <= longest)
                    .any(|end| {
                        self.continuations
                            .get(from(&content[..end]))
                            .is_some_and(|rest| rest == &content[..end])
                    }))
    }

    /// Splits `text` at control tokens; the longest one wins.
    pub(super) fn split<'t>(&self, text: &'t str) -> Vec<Piece<'t>> {
        let mut pieces = Vec::new();
        let (mut start, mut at) = (0, 0);
        while let Some(skipped) = text[at..].find(|character| self.starts.binary_search(&character).is_ok()) {
            at += skipped;
            let pair = text.as_bytes()[at..].first_chunk();
            let is_pair = pair.is_some_and(|pair| self.pairs.contains(pair));
            let mut lengths = self.lengths.iter().filter(|length| is_pair || **length == 1);
            let found = lengths.find_map(|length| {
                let end = at + length;
                Some((*self.ids.get(text.get(at..end)?)?, end))
            });
            match found {
                Some((id, end)) => {
                    if start < at {
                        pieces.push(Piece::Text(&text[start..at]));
                    }
                    pieces.push(Piece::Control(id));
                    (start, at) = (end, end);
                }
                None => at += text[at..].chars().next().map_or(1, char::len_utf8),
            }
        }
        if start < text.len() {
            pieces.push(Piece::Text(&text[start..]));
        }
        pieces
    }
}

impl Guards {
    /// Private-use characters (planes 15 and 16) that occur in none of `texts`; `contents` of them
    /// are marks.
    ///
    /// `None` if the texts leave too few of the 131,068.
    pub(super) fn absent_from<'t>(texts: impl Iterator<Item = &'t str>, contents: usize) -> Option<Self> {
        let used: HashSet<char> = texts.flat_map(str::chars).filter(|c| *c >= PRIVATE).collect();
        let mut free =
            (PRIVATE..='\u{ffffd}').chain('\u{100000}'..='\u{10fffd}').filter(|c| !used.contains(c));
        let (guard, end) = (free.next()?, free.next()?);
        let marks: Vec<char> = free.take(contents).collect();
        (marks.len() == contents).then_some(Guards { guard, end, marks })
    }

    /// The guards and marks in `text`.
    pub(super) fn marks_in(&self, text: &str) -> HashSet<char> {
        text.chars().filter(|c| self.is_guard(*c)).collect()
    }

    /// `text` without guards and marks.
    pub(super) fn remove(&self, text: &str) -> String {
        text.chars().filter(|c| !self.is_guard(*c)).collect()
    }

    fn is_guard(&self, c: char) -> bool {
        c >= PRIVATE && (c == self.guard || c == self.end || self.marks.binary_search(&c).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(texts: &[&str]) -> ControlTokens {
        ControlTokens::new(texts.iter().enumerate().map(|(id, text)| ((*text).to_owned(), id as u32)))
    }

    #[test]
    fn split_prefers_longest_control_token() {
        let control = control(&["<|a|>", "<|a|>b", "[X]"]);
        use Piece::{Control, Text};
        let cases: [(&str, &[Piece<'_>]); 6] = [
            ("", &[]),
            ("none < here", &[Text("none < here")]),
            ("<|a|>", &[Control(0)]),
            ("<|a|>bc<|a|>[X]", &[Control(1), Text("c"), Control(0), Control(2)]),
            ("é<<|a|>é", &[Text("é<"), Control(0), Text("é")]),
            ("<|a|", &[Text("<|a|")]),
        ];
        for (text, expected) in cases {
            assert_eq!(control.split(text), expected, "{text}");
        }
    }

    #[test]
    fn content_never_forms_a_control_token() {
        let control = control(&["<|a|>", "<|b|>", "[X]"]);
        let guards = Guards::absent_from([].into_iter(), 0).unwrap();
        let fragments = ["<", "|", "a", "|>", ">", "<|a|>", "[", "X", "]", " ", "\n", "<|", "b|>", "é"];
        // Every text of up to three fragments, between all prefixes and suffixes of control tokens.
        let mut contents = vec![String::new()];
        for _ in 0..3 {
            let longer =
                contents.iter().flat_map(|text| fragments.map(|fragment| format!("{text}{fragment}")));
            contents = contents.iter().cloned().chain(longer).collect();
            contents.sort_unstable();
            contents.dedup();
        }
        for content in &contents {
            let guarded = control.guarded(content, guards.guard);
            assert_eq!(&guards.remove(&guarded), content);
            // If a content is empty after trimming, the template's text around it may form a token.
            for shown in [guarded.as_str(), guarded.trim()].into_iter().filter(|shown| !shown.is_empty()) {
                for before in ["", "<", "<|", "<|a", "<|b|", "[", "[X"] {
                    for after in ["", ">", "|>", "a|>", "|b|>", "]", "X]"] {
                        let text = format!("{before}{shown}{after}");
                        // A token that the template alone forms after the content is its own.
                        let pieces = control.split(&text);
                        assert!(
                            pieces.iter().all(|piece| matches!(piece, Piece::Text(_))),
                            "{before:?} {content:?} {after:?}: {pieces:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn benign_content_gets_no_guard() {
        let control = control(&["<|user|>", "<|end|>", "</s>"]);
        let guard = '\u{f0000}';
        for content in ["Is this toxic? You fool!", "2 > 1", " spaces ", "naïve 😀", ""] {
            assert_eq!(control.guarded(content, guard), content);
        }
        assert_eq!(control.guarded("a <b>", guard), "a <\u{f0000}b>");
        assert_eq!(control.guarded("> quoted", guard), "\u{f0000}> quoted");
    }

    #[test]
    fn guards_are_unused_characters() {
        let guards = Guards::absent_from(["\u{f0000}\u{f0002}", "\u{f0001}"].into_iter(), 1).unwrap();
        assert_eq!((guards.guard, guards.end, guards.marks[0]), ('\u{f0003}', '\u{f0004}', '\u{f0005}'));
        let all: String = ('\u{f0000}'..='\u{10fffd}').collect();
        assert!(Guards::absent_from([all.as_str()].into_iter(), 0).is_none());
    }
}
