//! Comments of scripts, manifests, WIT packages and the Makefile, and docstrings of Python.

/// File extensions, and the marker that begins a comment.
pub const MARKERS: [(&str, &str); 10] = [
    ("conf", "#"),
    ("js", "//"),
    ("lua", "--"),
    ("mjs", "//"),
    ("py", "#"),
    ("sh", "#"),
    ("toml", "#"),
    ("wat", ";;"),
    ("wit", "//"),
    ("yml", "#"),
];

/// Files without an extension that have comments with `#`.
pub const WITHOUT_EXTENSION: [&str; 2] = [".ci/run", "Makefile"];

const QUOTES: &str = "\"\"\"";

/// Comment lines of the file `name`, with their indices from 0.
///
/// A comment after code is not a comment line. In Python, docstrings count as comments; in the
/// Makefile, the help text after `##` does.
pub fn comments<'t>(name: &str, text: &'t str) -> Vec<(usize, &'t str)> {
    let (_, extension) = name.rsplit_once('.').unwrap_or_default();
    if extension == "py" {
        return python_comments(text);
    }
    let marker = MARKERS.iter().find(|(known, _)| *known == extension).map_or("#", |(_, marker)| marker);
    let lines = text.lines().enumerate().filter_map(|(index, line)| {
        let help = line.split_once(": ").and_then(|(_, rest)| rest.split_once("## "));
        match help.filter(|_| name == "Makefile") {
            Some((_, help)) => Some((index, help)),
            None => line.trim_start().starts_with(marker).then_some((index, line)),
        }
    });
    lines.collect()
}

/// Lines of comments and docstrings. Lines of other multi-line strings are data.
fn python_comments(text: &str) -> Vec<(usize, &str)> {
    let (mut found, mut previous) = (Vec::new(), "");
    let (mut in_docstring, mut in_data) = (false, false);
    for (index, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        let is_odd = line.matches(QUOTES).count() % 2 == 1;
        if in_docstring || in_data {
            if in_docstring {
                found.push((index, line));
            }
            (in_docstring, in_data) = (in_docstring && !is_odd, in_data && !is_odd);
        } else if trimmed.starts_with('#') {
            found.push((index, line));
            continue;
        } else if trimmed.starts_with(QUOTES) && (previous.is_empty() || previous.ends_with(':')) {
            found.push((index, line));
            in_docstring = is_odd;
        } else {
            in_data = is_odd;
        }
        if !trimmed.is_empty() {
            previous = trimmed;
        }
    }
    found
}
