//! Standard output, safe for a terminal.

use std::borrow::Cow;
use std::io::{self, Write};

use infer_engine::text::{QUOTE_BYTES, excerpt, printable};

/// Returns a value of a card on one line, of bounded length.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    excerpt(text, QUOTE_BYTES)
}

/// A writer that escapes control characters as `\uXXXX`. Every subcommand prints names and texts
/// from files, servers and guests, and writes them through this.
pub(crate) struct Printed<W>(pub(crate) W);

impl<W: Write> Write for Printed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (text, taken) = match str::from_utf8(bytes) {
            Ok(text) => (text.into(), bytes.len()),
            // The last character is incomplete: leave it to the next call, unless there is nothing
            // else.
            Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
                let taken = error.valid_up_to();
                (String::from_utf8_lossy(&bytes[..taken]), taken)
            }
            Err(_) => (String::from_utf8_lossy(bytes), bytes.len()),
        };
        self.0.write_all(printable(&text).as_bytes())?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let mut out = Printed(Vec::new());
        let license = "MIT\u{1b}[2J\u{9b}1m\u{202e}\r";
        writeln!(out, "card\tü ({license})").unwrap();
        assert_eq!(out.0, "card\tü (MIT\\u001b[2J\\u009b1m\\u202e\\u000d)\n".as_bytes());
    }

    #[test]
    fn json_stays_the_same_value() {
        let value = "a\u{7f}\u{9b}\u{202e}\"\\\n";
        let mut out = Printed(Vec::new());
        serde_json::to_writer(&mut out, value).unwrap();
        assert!(out.0.is_ascii());
        assert_eq!(serde_json::from_slice::<String>(&out.0).unwrap(), value);
    }

    #[test]
    fn characters_in_two_pieces_stay_whole() {
        let mut out = Printed(Vec::new());
        let bytes = "aé".as_bytes();
        assert_eq!(out.write(&bytes[..2]).unwrap(), 1);
        out.write_all(&bytes[1..]).unwrap();
        assert_eq!(out.0, bytes);
    }
}
