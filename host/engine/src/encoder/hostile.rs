//! Tokenizers' files of any bytes.

use super::request::Text;
use super::tokenizer::TextTokenizer;
use crate::card::TextSpec;

/// Texts that are hard to split, and a pair.
const TEXTS: [&str; 6] =
    ["", " \n\t", "Hello, world! 3.14", "naïve 日本語 👩\u{200d}💻", "''", "\0\u{fffd}[SEP]<s>"];

/// Reads `bytes` as a tokenizer's file. If it is valid, encodes texts with it and checks the
/// windows.
///
/// # Panics
///
/// When a window is longer than the card permits, or when its parts have different lengths.
pub(crate) fn exercise(bytes: &[u8]) {
    let spec: TextSpec = toml::from_str("max_tokens = 16\nstride = 4\nmax_windows = 8\ncanonical = true")
        .expect("a valid section");
    let Ok(tokenizer) = TextTokenizer::new(bytes, &spec) else { return };
    let long = "a1 ".repeat(200);
    let singles = TEXTS.iter().copied().chain([long.as_str()]).map(|text| Text::Single(text.to_owned()));
    let pair = Text::Pair("a query".to_owned(), long.clone());
    for text in singles.chain([pair, Text::Tokens(vec![0, 1, 2])]) {
        for offsets in [false, true] {
            let Ok(tokens) = tokenizer.encode(&text, offsets) else { continue };
            assert!(!tokens.windows.is_empty() && tokens.known <= tokens.count, "{tokens:?}");
            for window in &tokens.windows {
                assert!(window.ids.len() <= spec.max_tokens, "{window:?}");
                assert_eq!(window.ids.len(), window.types.len());
                assert_eq!(window.ids.len(), window.added.len());
            }
        }
    }
}
