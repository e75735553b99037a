//! Words and columns of comments and Markdown.

/// Maximum columns of comments and of Markdown.
pub const MAX_COLUMNS: usize = 100;

/// Words that the project does not use, and what it says instead.
pub(crate) const WORDS: [(&str, &str); 3] = [
    ("told", "reported, logged or documented"),
    ("nobody", "no client, no request"),
    ("whoever", "any client"),
];

/// First words that do not open a documentation line.
const OPENINGS: [&str; 7] = ["What", "Whether", "How", "Who", "Where", "Why", "Which"];

/// The problems of one comment line, given without its slashes.
pub fn problems(text: &str) -> impl Iterator<Item = String> {
    let first = split(text).find(|word| !word.is_empty()).unwrap_or_default();
    // Openings count for sentences that begin a line: continuation lines begin in lower case.
    let opening = OPENINGS
        .contains(&first)
        .then(|| format!("begins with `{first}`; begin with a noun phrase or a verb in the third person"));
    opening.into_iter().chain(words(text))
}

/// The words of `text` that the project does not use.
pub fn words(text: &str) -> impl Iterator<Item = String> {
    let used = WORDS.iter().filter(|(word, _)| split(text).any(|found| found.eq_ignore_ascii_case(word)));
    used.map(|(word, instead)| format!("says `{word}`; say {instead}"))
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !character.is_alphanumeric() && character != '\'')
}

/// Lines that are wider than [`MAX_COLUMNS`], with their numbers.
pub fn too_wide<'l>(lines: impl Iterator<Item = (usize, &'l str)>) -> impl Iterator<Item = String> {
    lines.filter_map(|(index, line)| {
        let columns = line.chars().count();
        (columns > MAX_COLUMNS)
            .then(|| format!("{}: {columns} columns, expected at most {MAX_COLUMNS}", index + 1))
    })
}
