//! Percent-encoding (RFC 3986, section 2.1).

/// Replaces each `%XX` in `bytes` by its byte. A `%` without two hexadecimal digits after it is
/// copied.
pub fn decoded<I: Iterator<Item = u8> + Clone>(bytes: I) -> Decoded<I> {
    Decoded(bytes)
}

/// The iterator of [`decoded`].
#[derive(Clone)]
pub struct Decoded<I>(I);

impl<I: Iterator<Item = u8> + Clone> Iterator for Decoded<I> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let byte = self.0.next()?;
        if byte != b'%' {
            return Some(byte);
        }
        let mut ahead = self.0.clone();
        let mut digit = || char::from(ahead.next()?).to_digit(16);
        let (Some(high), Some(low)) = (digit(), digit()) else { return Some(byte) };
        self.0 = ahead;
        Some((high * 16 + low) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_other_bytes_copied() {
        let cases: [(&str, &[u8]); 6] = [
            ("/v2", b"/v2"),
            ("/%762", b"/v2"),
            ("%2F%2f%3d", b"//="),
            ("%ff", b"\xff"),
            ("%", b"%"),
            ("%4x%", b"%4x%"),
        ];
        for (text, expected) in cases {
            assert_eq!(decoded(text.bytes()).collect::<Vec<_>>(), expected, "{text}");
        }
    }
}
