//! Decodes `data:` URLs with base64 (RFC 2397) as clients write them: wrapped into lines, without
//! padding, percent-encoded, in the URL-safe alphabet, with parameters in the media type.
//!
//! White space, padding and unused bits follow the WHATWG's "forgiving-base64 decode". Every
//! spelling is decoded with a small buffer besides the result: a JSON string is unescaped as it is
//! read, not copied first.

use std::fmt;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::value::RawValue;

use crate::limits::MAX_MEDIA_TYPE_BYTES;
use crate::percent::decoded;

/// The standard alphabet, with or without padding. Unused bits of the last character are ignored.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Characters that are decoded at a time: complete groups of four.
const CHUNK: usize = 4 << 10;

/// Failure to decode a `data:` URL.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DataUrlError {
    /// The text is not a `data:` URL.
    #[error("expected a data: URL with the image in base64; the server fetches no remote images")]
    Scheme,
    /// No comma separates the media type from the data.
    #[error("the data: URL has no comma before its data; expected `data:image/png;base64,…`")]
    NoComma,
    /// The media type does not declare base64.
    #[error("the data: URL is not in base64; expected `data:image/png;base64,…`")]
    NotBase64,
    /// The base64 is invalid.
    #[error("invalid base64 in the data: URL: {0}")]
    Damaged(Damage),
}

/// A mistake in base64.
#[derive(Debug, PartialEq, Eq)]
pub enum Damage {
    /// A byte outside the alphabet, and its position in the data.
    Byte(u8, usize),
    /// A digit after the padding, and its position in the data.
    BehindPadding(usize),
    /// The last group has a single digit, which is less than a byte.
    Cut,
}

/// Returns true for a URL of the scheme `data`, valid or not.
pub fn is_data(url: &str) -> bool {
    starts_as_data(url.bytes())
}

/// Decodes the bytes of `url`.
///
/// # Errors
///
/// If it is not a `data:` URL in valid base64.
pub fn decode(url: &str) -> Result<Vec<u8>, DataUrlError> {
    if !is_data(url) {
        return Err(DataUrlError::Scheme);
    }
    let (head, data) = url.split_once(',').ok_or(DataUrlError::NoComma)?;
    check_head(head)?;
    decode_base64(data).map_err(DataUrlError::Damaged)
}

/// Decodes a `data:` URL from `json`, a JSON string as received.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_json(json: &RawValue) -> Result<Vec<u8>, DataUrlError> {
    let text = json.get();
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).ok_or(DataUrlError::Scheme)?;
    if !text.contains('\\') {
        return decode(text);
    }
    let mut bytes = Unescaped(text.bytes());
    if !starts_as_data(bytes.clone()) {
        return Err(DataUrlError::Scheme);
    }
    let mut head = Vec::new();
    loop {
        match bytes.next() {
            Some(b',') => break,
            Some(byte) if head.len() < MAX_MEDIA_TYPE_BYTES => head.push(byte),
            _ => return Err(DataUrlError::NoComma),
        }
    }
    check_head(&String::from_utf8_lossy(&head))?;
    let max = bytes.0.len();
    digit_by_digit(bytes, max).map_err(DataUrlError::Damaged)
}

/// Decodes `data`, base64 in any of the spellings that a `data:` URL may have.
///
/// # Errors
///
/// If it is not valid base64.
pub fn decode_base64(data: &str) -> Result<Vec<u8>, Damage> {
    match ENGINE.decode(data) {
        Ok(bytes) => Ok(bytes),
        Err(_) => digit_by_digit(data.bytes(), data.len()),
    }
}

/// Returns true if the scheme is `data`, in any case, after optional white space.
fn starts_as_data(bytes: impl Iterator<Item = u8>) -> bool {
    let start = bytes.skip_while(u8::is_ascii_whitespace).take(5).map(|byte| byte.to_ascii_lowercase());
    start.eq(*b"data:")
}

/// Checks that the media type has the parameter `base64`.
fn check_head(head: &str) -> Result<(), DataUrlError> {
    let mut parameters = head.split(';').skip(1);
    let is_base64 = parameters.any(|parameter| parameter.trim_ascii().eq_ignore_ascii_case("base64"));
    if is_base64 { Ok(()) } else { Err(DataUrlError::NotBase64) }
}

/// Decodes `bytes`, at most `max` of them; skips white space and padding.
fn digit_by_digit(bytes: impl Iterator<Item = u8> + Clone, max: usize) -> Result<Vec<u8>, Damage> {
    let mut decoded_bytes = Vec::with_capacity(max / 4 * 3 + 3);
    let mut digits = Vec::with_capacity(CHUNK);
    let mut padding = 0;
    for (at, byte) in decoded(bytes).enumerate() {
        let digit = match byte {
            b'\t' | b'\n' | b'\x0c' | b'\r' | b' ' => continue,
            b'=' if padding < 2 => {
                padding += 1;
                continue;
            }
            b'-' => b'+',
            b'_' => b'/',
            digit => digit,
        };
        if !digit.is_ascii_alphanumeric() && !b"+/".contains(&digit) {
            return Err(Damage::Byte(byte, at));
        }
        if padding > 0 {
            return Err(Damage::BehindPadding(at));
        }
        digits.push(digit);
        if digits.len() == CHUNK {
            ENGINE.decode_vec(&digits, &mut decoded_bytes).map_err(|_| Damage::Cut)?;
            digits.clear();
        }
    }
    // Every digit is valid, so only an incomplete last group can fail.
    ENGINE.decode_vec(&digits, &mut decoded_bytes).map_err(|_| Damage::Cut)?;
    Ok(decoded_bytes)
}

/// Iterates over the bytes of a JSON string without its quotes. A character beyond ASCII becomes a
/// byte that no `data:` URL has.
#[derive(Clone)]
struct Unescaped<'a>(std::str::Bytes<'a>);

impl Iterator for Unescaped<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        let byte = self.0.next()?;
        if byte != b'\\' {
            return Some(byte);
        }
        Some(match self.0.next()? {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let digit = |_| char::from(self.0.next()?).to_digit(16);
                let digits: Option<Vec<u32>> = (0..4).map(digit).collect();
                let code = digits?.into_iter().fold(0, |code, digit| code * 16 + digit);
                u8::try_from(code).ok().filter(u8::is_ascii).unwrap_or(u8::MAX)
            }
            other => other,
        })
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Byte(byte, at) => {
                write!(f, "byte {at} is `{}`, which is not a base64 digit", byte.escape_ascii())
            }
            Damage::BehindPadding(at) => write!(f, "byte {at} follows the padding"),
            Damage::Cut => f.write_str("the end is missing"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `url` as plain text and as a JSON string.
    fn both(url: &str) -> [Result<Vec<u8>, DataUrlError>; 2] {
        let json = RawValue::from_string(serde_json::to_string(url).unwrap()).unwrap();
        [decode(url), decode_json(&json)]
    }

    #[test]
    fn base64_is_decoded_in_every_spelling() {
        let bytes = [0xfb, 0xff, 0xbe, 0x41];
        let cases = [
            "data:image/png;base64,+/++QQ==",
            "DATA:IMAGE/PNG;BASE64,+/++QQ==",
            " data:image/png; base64 ,+/++QQ==",
            "data:;base64,+/++QQ==",
            "data:image/png;name=a.png;base64,+/++QQ==",
            "data:image/png;charset=utf-8;name=\"a b\";base64,+/++QQ==",
            "data:image/png;base64,+/++QQ",
            "data:image/png;base64,+/++QQ=",
            "data:image/png;base64,+/++\r\nQQ==\r\n",
            "data:image/png;base64,+/\n++ Q\tQ= =",
            "data:image/png;base64,\n +/++QQ==",
            "data:image/png;base64,%2B%2f%2B%2BQQ%3D%3D",
            "data:image/png;base64,%2B/%0D%0A++QQ%3D%3d",
            "data:image/png;base64,-_--QQ==",
            "data:image/png;base64,-_--QQ",
            "data:image/png;base64,+/++QR==",
        ];
        for url in cases {
            for found in both(url) {
                assert_eq!(found.as_deref(), Ok(&bytes[..]), "{url}");
            }
        }
        // As PHP and others escape it.
        let json = r#""data:image\/png;base64,+\/\u002b+QQ\u003d=""#;
        assert_eq!(decode_json(&RawValue::from_string(json.to_owned()).unwrap()).as_deref(), Ok(&bytes[..]));
        for found in both("data:image/png;base64,") {
            assert_eq!(found, Ok(Vec::new()));
        }
    }

    #[test]
    fn long_base64_is_decoded_across_chunks() {
        let bytes: Vec<u8> = (0..3 * CHUNK).map(|at| (at * 7) as u8).collect();
        let text = ENGINE.encode(&bytes);
        for width in [1, 3, 64, 76, CHUNK - 1] {
            let lines: Vec<_> =
                text.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
            for found in both(&format!("data:;base64,{}", lines.join("\r\n"))) {
                assert_eq!(found.as_ref(), Ok(&bytes), "lines of {width}");
            }
        }
    }

    #[test]
    fn invalid_base64_is_reported_with_position() {
        let damaged = DataUrlError::Damaged;
        let cases = [
            ("https://example.org/a.png", DataUrlError::Scheme),
            ("", DataUrlError::Scheme),
            ("data", DataUrlError::Scheme),
            ("data:image/png;base64", DataUrlError::NoComma),
            ("data:image/png,AAAA", DataUrlError::NotBase64),
            ("data:image/png;base65,AAAA", DataUrlError::NotBase64),
            ("data:;base64,AA?A", damaged(Damage::Byte(b'?', 2))),
            ("data:;base64,AA\u{e9}A", damaged(Damage::Byte(0xc3, 2))),
            ("data:;base64,%zzAA", damaged(Damage::Byte(b'%', 0))),
            ("data:;base64,AA==AA==", damaged(Damage::BehindPadding(4))),
            ("data:;base64,AA===", damaged(Damage::Byte(b'=', 4))),
            ("data:;base64,AAAAA", damaged(Damage::Cut)),
            ("data:;base64,A", damaged(Damage::Cut)),
        ];
        for (url, expected) in cases {
            assert_eq!(decode(url), Err(expected), "{url}");
        }
        assert_eq!(
            decode("data:;base64,AA?A").unwrap_err().to_string(),
            "invalid base64 in the data: URL: byte 2 is `?`, which is not a base64 digit"
        );
    }
}
