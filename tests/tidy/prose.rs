//! Words and columns of comments and Markdown.

/// Maximum columns of comments and of Markdown.
pub const MAX_COLUMNS: usize = 100;

/// Words that the project does not use, and what it says instead.
const WORDS: [(&str, &str); 9] = [
    ("told", "reported, logged or documented"),
    ("whose's", "of which"),
    ("nobody", "no client, no request"),
    ("whoever", "any client"),
    ("thereof", "of it"),
    ("whence", "from which"),
    ("hitherto", "before"),
    ("amidst", "among"),
    ("betwixt", "between"),
];

/// First words that do not open a documentation line.
const OPENINGS: [&str; 7] = ["What", "Whether", "How", "Who", "Where", "Why", "Which"];

/// The problems of one comment line, given without its slashes.
pub fn problems(text: &str) -> impl Iterator<Item = String> {
    let words: Vec<&str> =
        text.split(|character: char| !character.is_alphanumeric() && character != '\'').collect();
    let first = words.iter().find(|word| !word.is_empty()).copied().unwrap_or_default();
    // Openings count for sentences that begin a line: continuation lines begin in lower case.
    let opening = OPENINGS
        .contains(&first)
        .then(|| format!("begins with `{first}`; begin with a noun phrase or a verb in the third person"));
    let used: Vec<_> = WORDS
        .iter()
        .filter(|(word, _)| words.iter().any(|found| found.eq_ignore_ascii_case(word)))
        .map(|(word, instead)| format!("says `{word}`; say {instead}"))
        .collect();
    opening.into_iter().chain(used)
}

/// Lines that are wider than [`MAX_COLUMNS`], with their numbers.
pub fn too_wide<'l>(lines: impl Iterator<Item = (usize, &'l str)>) -> impl Iterator<Item = String> {
    lines.filter_map(|(index, line)| {
        let columns = line.chars().count();
        (columns > MAX_COLUMNS)
            .then(|| format!("{}: {columns} columns, expected at most {MAX_COLUMNS}", index + 1))
    })
}
