//! API keys, and their hashes as a configuration stores them.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// Prefix of every key, by which scanners for leaked secrets recognise it.
const PREFIX: &str = "infer_";

/// SHA-256 of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash(pub [u8; 32]);

/// Generates a key; returns it with its hash.
///
/// # Errors
///
/// If the system provides no random numbers.
pub fn generate() -> Result<(String, KeyHash), getrandom::Error> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits)?;
    let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bits));
    let hash = KeyHash::of(&key);
    Ok((key, hash))
}

impl KeyHash {
    /// Hashes `key`.
    #[must_use]
    pub fn of(key: &str) -> Self {
        KeyHash(Sha256::digest(key).into())
    }
}

/// Text that is not a key's hash.
#[derive(Debug, thiserror::Error)]
#[error("expected `sha256:` and 64 hexadecimal digits")]
pub struct InvalidHash;

impl FromStr for KeyHash {
    type Err = InvalidHash;

    fn from_str(text: &str) -> Result<Self, InvalidHash> {
        let digits = text.strip_prefix("sha256:").filter(|digits| digits.len() == 64).ok_or(InvalidHash)?;
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16).ok_or(InvalidHash);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(KeyHash(hash))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_matches_sha256sum() {
        // printf abc | sha256sum
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(KeyHash::of("abc").to_string(), text);
        assert_eq!(text.parse::<KeyHash>().unwrap(), KeyHash::of("abc"));
        for wrong in ["", "sha256:", "ba7816bf", &text[..70], &text.replace('b', "g"), &format!("{text}0")] {
            assert!(wrong.parse::<KeyHash>().is_err(), "{wrong}");
        }
        assert!(format!("sha256:{}é", "0".repeat(62)).parse::<KeyHash>().is_err());
    }

    #[test]
    fn generated_keys_are_long_and_distinct() {
        let (one, hash) = generate().unwrap();
        let (other, _) = generate().unwrap();
        assert_ne!(one, other);
        assert_eq!(one.len(), "infer_".len() + 43);
        assert_eq!(hash, KeyHash::of(&one));
    }
}
