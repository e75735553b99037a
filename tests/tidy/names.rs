//! Words of identifiers and string literals, names of tests, and places of constants.

use crate::prose;
use crate::rust_source::RustSource;

/// Maximum number of words of a test's name.
pub const MAX_TEST_WORDS: usize = 8;

/// Words of identifiers that the project does not use beyond those of [`prose::WORDS`], and what it
/// says instead.
const WORDS: [(&str, &str); 4] =
    [("tell", "report"), ("tells", "reports"), ("asks", "requests or needs"), ("whose", "the owner")];

/// The problems of identifiers, each once per line.
pub fn in_identifiers(source: &RustSource) -> Vec<String> {
    let mut problems = Vec::new();
    for (index, line) in source.code.lines().enumerate() {
        let lower = line.to_lowercase();
        if !prose::WORDS.iter().chain(&WORDS).any(|(word, _)| lower.contains(word)) {
            continue;
        }
        let is_word = |character: char| character.is_alphanumeric() || character == '_';
        for identifier in line.split(|character| !is_word(character)) {
            let words = words(identifier);
            let found = prose::WORDS.iter().chain(&WORDS).find(|(word, _)| words.iter().any(|w| w == word));
            if let Some((word, instead)) = found {
                let line = index + 1;
                problems.push(format!("{line}: `{identifier}` contains `{word}`; say {instead}"));
            }
        }
    }
    problems
}

/// The problems of string literals.
pub fn in_strings(source: &RustSource) -> Vec<String> {
    let found = source.strings.iter().flat_map(|(line, text)| {
        prose::words(text).map(move |problem| format!("{line}: a string {problem}"))
    });
    found.collect()
}

/// Test functions whose names have more than [`MAX_TEST_WORDS`] words.
pub fn long_tests(source: &RustSource) -> Vec<String> {
    let mut problems = Vec::new();
    let mut is_test = false;
    for (index, line) in source.code.lines().map(str::trim_start).enumerate() {
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let Some((_, name)) = line.split_once("fn ").filter(|_| is_test) else { continue };
        is_test = false;
        let name = name.split('(').next().unwrap_or_default();
        let words = name.split('_').count();
        if words > MAX_TEST_WORDS {
            problems.push(format!(
                "{}: test `{name}` has {words} words, expected at most {MAX_TEST_WORDS}; state subject and outcome",
                index + 1
            ));
        }
    }
    problems
}

/// Declarations of `MAX_` and `MIN_` constants, which belong to the `limits.rs` of the crate.
pub fn limits(source: &RustSource) -> Vec<String> {
    let lines = source.code.lines().enumerate().filter_map(|(index, line)| {
        let (_, name) = line.split_once("const ")?;
        let name = name.split(':').next().unwrap_or_default();
        let is_limit = name.starts_with("MAX_") || name.starts_with("MIN_");
        is_limit.then(|| format!("{}: declare `{name}` in `limits.rs` of the crate", index + 1))
    });
    lines.collect()
}

/// The lower-case words of an identifier, from snake case or camel case.
fn words(identifier: &str) -> Vec<String> {
    let mut words = Vec::new();
    for part in identifier.split('_') {
        let mut word = String::new();
        let mut is_lower = false;
        for character in part.chars() {
            if character.is_uppercase() && is_lower {
                words.push(std::mem::take(&mut word));
            }
            is_lower = character.is_lowercase();
            word.extend(character.to_lowercase());
        }
        words.push(word);
    }
    words
}
