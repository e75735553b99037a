//! Rust source text split into code and comments.

/// A source file whose code can be searched without finding comments or literals.
#[derive(Debug)]
pub struct RustSource {
    /// The code, with every comment and every string or character literal replaced by spaces.
    /// Line breaks are kept, so line numbers match the file.
    pub code: String,
    /// Each comment line with its number, from 1, and its text after the slashes.
    pub comments: Vec<(usize, String)>,
    /// Each string literal with the number of the line it begins on.
    pub strings: Vec<(usize, String)>,
}

impl RustSource {
    /// Parses `text`. Accepts anything; text that is not Rust gives code that is not Rust.
    pub fn parse(text: &str) -> RustSource {
        let mut source = RustSource { code: String::new(), comments: Vec::new(), strings: Vec::new() };
        let mut rest = text;
        let mut line = 1;
        while let Some(first) = rest.chars().next() {
            let (length, kind) = token(rest, source.code.chars().next_back());
            let taken = &rest[..length];
            match kind {
                Kind::Code => source.code.push_str(taken),
                Kind::Comment => {
                    let lines = taken.lines().enumerate();
                    source.comments.extend(lines.map(|(index, text)| {
                        (line + index, text.trim_start().trim_start_matches(['/', '!', '*']).to_owned())
                    }));
                    source.blank(taken);
                }
                Kind::Text => {
                    source.strings.push((line, taken.to_owned()));
                    source.blank(taken);
                }
                Kind::Character => source.blank(taken),
            }
            debug_assert!(length >= first.len_utf8());
            line += taken.matches('\n').count();
            rest = &rest[length..];
        }
        source
    }

    fn blank(&mut self, text: &str) {
        self.code.extend(text.chars().map(|character| if character == '\n' { '\n' } else { ' ' }));
    }
}

enum Kind {
    Code,
    Comment,
    Text,
    Character,
}

/// The length in bytes and the kind of the token at the beginning of `text`, which `before`
/// precedes.
fn token(text: &str, before: Option<char>) -> (usize, Kind) {
    let bytes = text.as_bytes();
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    if text.starts_with("//") {
        return (text.find('\n').unwrap_or(text.len()), Kind::Comment);
    }
    if text.starts_with("/*") {
        return (block_comment(text), Kind::Comment);
    }
    if !before.is_some_and(is_word) {
        let prefix = ["br", "cr", "r", "b", "c"].into_iter().find(|prefix| text.starts_with(prefix));
        let after = &text[prefix.map_or(0, str::len)..];
        let hashes = after.len() - after.trim_start_matches('#').len();
        let is_raw = prefix.is_some_and(|prefix| prefix.ends_with('r'));
        if after[hashes..].starts_with('"') && (hashes == 0 || is_raw) {
            let open = text.len() - after.len() + hashes + 1;
            return (open + closing_quote(&text[open..], is_raw, hashes), Kind::Text);
        }
    }
    if bytes[0] == b'\'' {
        // A lifetime has no closing quote after one character.
        let mut characters = text[1..].chars();
        match (characters.next(), characters.next()) {
            (Some('\\'), _) => {
                let end = text[3..].find('\'').map_or(text.len(), |at| at + 4);
                return (end, Kind::Character);
            }
            (Some(first), Some('\'')) => return (first.len_utf8() + 2, Kind::Character),
            _ => {}
        }
    }
    (text.chars().next().map_or(1, char::len_utf8), Kind::Code)
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The length of `text` up to and including the quote that ends a literal.
fn closing_quote(text: &str, is_raw: bool, hashes: usize) -> usize {
    if is_raw {
        let close = format!("\"{}", "#".repeat(hashes));
        return text.find(&close).map_or(text.len(), |at| at + close.len());
    }
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}
