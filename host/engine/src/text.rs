//! Untrusted text, made safe for errors, logs and headers.
//!
//! A name, a path or a value from a client, a guest or a file may have any length and contain
//! control characters. All such text enters messages through [`excerpt`] or [`excerpt_of`]:
//! bounded, on one line, and marked where it was cut.

use std::borrow::Cow;
use std::fmt::{self, Display, Write as _};

/// Maximum bytes of one quoted item: a name, a path, a header's value, or a field of a log line.
pub const QUOTE_BYTES: usize = 256;

/// Maximum bytes of a whole message, however many items it quotes.
pub const MESSAGE_BYTES: usize = 1024;

/// Bytes of the longest mark: `… (18446744073709551615 bytes)`.
const MARK_BYTES: usize = 32;

/// Returns `text` in at most `max` bytes, with control characters escaped. Longer text is cut at a
/// character boundary and ends with a mark such as `… (10485760 bytes)`, which counts towards `max`
/// (at least 64).
#[must_use]
pub fn excerpt(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max && !has_controls(text) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(excerpt_of(text, max))
}

/// Message of a TOML file that cannot be parsed: lines that show the mistake, each cut, because an
/// untrusted file may have lines of any length.
pub(crate) fn toml_message(error: &toml::de::Error) -> String {
    let message = error.to_string();
    message.trim_end().lines().map(|line| excerpt(line, QUOTE_BYTES)).collect::<Vec<_>>().join("\n")
}

/// [`excerpt`] of the `Display` output of `value`. At most `max` bytes of it are held in memory.
#[must_use]
pub fn excerpt_of(value: impl Display, max: usize) -> String {
    let mut sink =
        Truncated { start: String::new(), max: max.max(2 * MARK_BYTES), end: 0, bytes: 0, is_full: false };
    // The sink does not fail. If the value fails to display, the text before the failure is shown.
    let _ = write!(sink, "{value}");
    if sink.is_full {
        sink.start.truncate(sink.end);
        let _ = write!(sink.start, "… ({} bytes)", sink.bytes);
    }
    sink.start
}

/// Returns `names` in backticks, separated by commas. They are shown as they are, so those from
/// outside need [`excerpt`] first.
#[must_use]
pub fn names<N: Display>(names: impl IntoIterator<Item = N>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// True if `text` has characters that end a line, control a terminal, or reorder the surrounding
/// text.
#[must_use]
pub fn has_controls(text: &str) -> bool {
    text.contains(is_escaped)
}

/// Returns `text` of any number of lines, safe for a terminal: line feeds and tabs stay, and other
/// control characters become `\uXXXX`, which is the same character in a JSON string.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_escaped = |character| is_escaped(character) && !matches!(character, '\n' | '\t');
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_escaped(character) {
            let _ = write!(escaped, "\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// A sink that stores the beginning of its input and counts the rest.
struct Truncated {
    start: String,
    max: usize,
    /// Last character boundary in `start` that leaves room for the mark.
    end: usize,
    bytes: usize,
    is_full: bool,
}

impl fmt::Write for Truncated {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes += text.len();
        if self.is_full {
            return Ok(());
        }
        for character in text.chars() {
            if is_escaped(character) {
                self.start.extend(character.escape_default());
            } else {
                self.start.push(character);
            }
            if self.start.len() <= self.max - MARK_BYTES {
                self.end = self.start.len();
            } else if self.start.len() > self.max {
                self.is_full = true;
                break;
            }
        }
        Ok(())
    }
}

/// True for characters that end a line, control a terminal, or reorder the surrounding text.
fn is_escaped(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_text_is_borrowed_unchanged() {
        for text in ["", "plain, ünïcode", "日本語", &"x".repeat(QUOTE_BYTES)] {
            assert!(matches!(excerpt(text, QUOTE_BYTES), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn long_text_is_cut_and_marked() {
        for (text, start) in
            [("x".repeat(10 << 20), 224), ("é".repeat(5 << 20), 224), ("日".repeat(1000), 222)]
        {
            let shown = excerpt(&text, QUOTE_BYTES);
            assert_eq!(*shown, format!("{}… ({} bytes)", &text[..start], text.len()));
            assert!(shown.len() <= QUOTE_BYTES);
            assert_eq!(excerpt(&shown, QUOTE_BYTES), shown, "an excerpt is its own excerpt");
        }
    }

    #[test]
    fn control_characters_are_escaped() {
        let cases = [
            ("a\nERROR forged\u{1b}[31m", "a\\nERROR forged\\u{1b}[31m"),
            ("\r\t\0\u{7f}\u{9b}", "\\r\\t\\u{0}\\u{7f}\\u{9b}"),
            ("abc\u{202e}cba\u{2066}\u{2028}", "abc\\u{202e}cba\\u{2066}\\u{2028}"),
        ];
        for (text, expected) in cases {
            assert_eq!(excerpt(text, QUOTE_BYTES), expected);
        }
        let escapes = "\0".repeat(1 << 20);
        assert!(excerpt(&escapes, QUOTE_BYTES).len() <= QUOTE_BYTES);
    }

    #[test]
    fn printable_text_keeps_its_lines() {
        let plain = "{\n\t\"a\": \"ü\\n\"\n}\n";
        assert!(matches!(printable(plain), Cow::Borrowed(same) if same == plain));
        let cases = [
            ("a\u{1b}]0;title\u{7}\n", "a\\u001b]0;title\\u0007\n"),
            ("\"\u{9b}31m\u{202e}\r\"", "\"\\u009b31m\\u202e\\u000d\""),
        ];
        for (text, expected) in cases {
            assert_eq!(printable(text), expected);
        }
    }

    #[test]
    fn display_output_is_cut_like_text() {
        let long = "é\n".repeat(1 << 20);
        assert_eq!(excerpt_of(format_args!("{long}"), MESSAGE_BYTES), excerpt(&long, MESSAGE_BYTES));
        assert_eq!(excerpt_of(17, QUOTE_BYTES), "17");
        assert!(excerpt_of(&long, 0).len() <= 64, "the mark itself always fits");
    }
}
