//! Text that others have written, made fit for errors, logs and headers.
//!
//! A name, a path or a value that a client, a guest or a file has chosen may have any length and
//! hold control characters. [`excerpt`] and [`excerpt_of`] are the one way in which such text gets
//! into a message: bounded, on one line, and marked where something was left out.

use std::borrow::Cow;
use std::fmt::{self, Display, Write as _};

/// Bytes of one quoted piece: a name, a path, a header's value, a field of a log line.
pub const QUOTE_BYTES: usize = 256;

/// Bytes of a whole message, however many pieces it quotes.
pub const MESSAGE_BYTES: usize = 1024;

/// Bytes of the longest mark: `… (18446744073709551615 bytes)`.
const MARK_BYTES: usize = 32;

/// As much of `text` as fits into `most` bytes, control characters escaped. Where the text does not
/// fit, it is cut at a character boundary and ends with a mark such as `… (10485760 bytes)`, which
/// is within `most` (at least 64).
#[must_use]
pub fn excerpt(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most && !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(excerpt_of(text, most))
}

/// [`excerpt`] of what `value` displays, of which no more than `most` bytes are held at any time.
#[must_use]
pub fn excerpt_of(value: impl Display, most: usize) -> String {
    let mut cut =
        Cut { kept: String::new(), most: most.max(2 * MARK_BYTES), end: 0, bytes: 0, is_full: false };
    // The sink itself does not fail; a value that fails to display is shown as far as it came.
    let _ = write!(cut, "{value}");
    if cut.is_full {
        cut.kept.truncate(cut.end);
        let _ = write!(cut.kept, "… ({} bytes)", cut.bytes);
    }
    cut.kept
}

/// A sink that keeps the beginning of what is written and counts the rest.
struct Cut {
    kept: String,
    most: usize,
    /// The last character boundary of `kept` that leaves room for the mark.
    end: usize,
    bytes: usize,
    is_full: bool,
}

impl fmt::Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes += text.len();
        if self.is_full {
            return Ok(());
        }
        for character in text.chars() {
            if is_escaped(character) {
                self.kept.extend(character.escape_default());
            } else {
                self.kept.push(character);
            }
            if self.kept.len() <= self.most - MARK_BYTES {
                self.end = self.kept.len();
            } else if self.kept.len() > self.most {
                self.is_full = true;
                break;
            }
        }
        Ok(())
    }
}

/// Characters that would end a line, steer a terminal, or reorder what surrounds them.
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
        for (text, kept) in
            [("x".repeat(10 << 20), 224), ("é".repeat(5 << 20), 224), ("日".repeat(1000), 222)]
        {
            let shown = excerpt(&text, QUOTE_BYTES);
            assert_eq!(*shown, format!("{}… ({} bytes)", &text[..kept], text.len()));
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
    fn display_is_cut_as_text_is() {
        let long = "é\n".repeat(1 << 20);
        assert_eq!(excerpt_of(format_args!("{long}"), MESSAGE_BYTES), excerpt(&long, MESSAGE_BYTES));
        assert_eq!(excerpt_of(17, QUOTE_BYTES), "17");
        assert!(excerpt_of(&long, 0).len() <= 64, "the mark itself always fits");
    }
}
