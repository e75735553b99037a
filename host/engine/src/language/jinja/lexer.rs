//! From text to tokens, with Jinja2's whitespace control as configured by Hugging Face: blocks and
//! comments also remove the remaining whitespace of their line (`trim_blocks`, `lstrip_blocks`).

use std::borrow::Cow;

use super::error::{Cause, Error};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Text between tags.
    Text(String),
    /// `{%`, `{{` and their ends.
    Block,
    Variable,
    EndBlock,
    EndVariable,
    Name(String),
    String(String),
    Integer(i64),
    Float(f64),
    /// An operator or a bracket.
    Sign(&'static str),
    /// End of the source.
    End,
}

/// A sign precedes its own prefixes.
const SIGNS: [&str; 25] = [
    "**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<", ">", "=", ".", ",", ":", "|", "(",
    ")", "[", "]", "{", "}",
];

/// Kind of a tag.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    Block,
    Variable,
    Comment,
}

/// The tokens of `source`, each with its line.
pub(super) fn tokens(source: &str) -> Result<Vec<(Token, u32)>, Error> {
    let mut source = normal(source);
    if source.ends_with('\n') {
        // Jinja2 removes the last newline.
        let shorter = source.len() - 1;
        source.to_mut().truncate(shorter);
    }
    Lexer {
        source: &source,
        at: 0,
        line: 1,
        tokens: Vec::new(),
        skips_whitespace: false,
        trims_newline: false,
    }
    .run()
}

fn normal(source: &str) -> Cow<'_, str> {
    if source.contains('\r') {
        Cow::Owned(source.replace("\r\n", "\n").replace('\r', "\n"))
    } else {
        Cow::Borrowed(source)
    }
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    line: u32,
    tokens: Vec<(Token, u32)>,
    /// Whitespace control of the last tag's end: `-%}` skips whitespace, `%}` a newline.
    skips_whitespace: bool,
    trims_newline: bool,
}

impl<'s> Lexer<'s> {
    fn run(mut self) -> Result<Vec<(Token, u32)>, Error> {
        while self.at < self.source.len() {
            let rest = &self.source[self.at..];
            let tag = first_tag(rest);
            let text = &rest[..tag.map_or(rest.len(), |(at, _)| at)];
            let sign = tag.and_then(|(at, _)| rest[at + 2..].chars().next());
            self.text(text, tag.map(|(_, tag)| tag), sign);
            let Some((_, tag)) = tag else { break };
            self.at += 2;
            if matches!(sign, Some('-' | '+')) {
                self.at += 1;
            }
            match tag {
                Tag::Comment => self.comment()?,
                Tag::Block if self.raw()? => {}
                Tag::Block => self.tag(Token::Block, Token::EndBlock, "%}")?,
                Tag::Variable => self.tag(Token::Variable, Token::EndVariable, "}}")?,
            }
        }
        self.push(Token::End);
        Ok(self.tokens)
    }

    fn push(&mut self, token: Token) {
        self.tokens.push((token, self.line));
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T, Error> {
        Err(Error { line: self.line, cause: Cause::failed(message) })
    }

    /// Advances by `bytes`, and counts their lines.
    fn skip(&mut self, bytes: usize) {
        let skipped = &self.source[self.at..self.at + bytes];
        self.line += skipped.bytes().filter(|&byte| byte == b'\n').count() as u32;
        self.at += bytes;
    }

    /// Pushes the text up to a tag, without the whitespace that this tag and the last one remove.
    fn text(&mut self, text: &str, tag: Option<Tag>, sign: Option<char>) {
        let starts_line = self.at == 0 || self.source[..self.at].ends_with('\n');
        let mut trimmed = text;
        let mut starts_line = starts_line;
        if self.skips_whitespace {
            trimmed = trimmed.trim_start();
            starts_line = false;
        } else if self.trims_newline && trimmed.starts_with('\n') {
            trimmed = &trimmed[1..];
            starts_line = true;
        }
        match (tag, sign) {
            (Some(_), Some('-')) => trimmed = trimmed.trim_end(),
            (Some(Tag::Variable) | None, _) | (_, Some('+')) => {}
            _ => {
                let line_start = trimmed.rfind('\n').map(|at| at + 1);
                if line_start.is_some() || starts_line {
                    let line_start = line_start.unwrap_or(0);
                    if trimmed[line_start..].bytes().all(|byte| matches!(byte, b' ' | b'\t')) {
                        trimmed = &trimmed[..line_start];
                    }
                }
            }
        }
        if !trimmed.is_empty() {
            self.push(Token::Text(trimmed.to_owned()));
        }
        self.skip(text.len());
        (self.skips_whitespace, self.trims_newline) = (false, false);
    }

    fn comment(&mut self) -> Result<(), Error> {
        let Some(end) = self.source[self.at..].find("#}") else {
            return self.fail("comment is not closed by `#}`");
        };
        let sign = self.source[..self.at + end].chars().next_back();
        let has_sign = end > 0;
        self.skip(end + 2);
        self.skips_whitespace = has_sign && sign == Some('-');
        self.trims_newline = !(has_sign && sign == Some('+'));
        Ok(())
    }

    /// Pushes the text between `{% raw %}` and `{% endraw %}`. Returns false if the block that
    /// begins here is not `raw`.
    fn raw(&mut self) -> Result<bool, Error> {
        let Some((is_trimmed, inner)) = after_lone(&self.source[self.at..], "raw") else { return Ok(false) };
        let start = self.at + inner;
        let rest = &self.source[start..];
        let end = rest.match_indices("{%").find_map(|(at, _)| {
            let after = &rest[at + 2..];
            let sign = after.chars().next().filter(|sign| matches!(sign, '-' | '+'));
            let signed = sign.map_or(0, char::len_utf8);
            after_lone(&after[signed..], "endraw")
                .map(|(trims, length)| (at, sign, trims, at + 2 + signed + length))
        });
        let Some((at, sign, trims, length)) = end else {
            return self.fail("`raw` is not closed by `endraw`");
        };
        self.skip(inner);
        (self.skips_whitespace, self.trims_newline) = (is_trimmed, !is_trimmed);
        self.text(&rest[..at], Some(Tag::Block), sign);
        self.skip(length - at);
        (self.skips_whitespace, self.trims_newline) = (trims, !trims);
        Ok(true)
    }

    /// Pushes the tokens of a tag.
    fn tag(&mut self, begin: Token, end: Token, closing: &str) -> Result<(), Error> {
        self.push(begin);
        let mut brackets = 0_usize;
        loop {
            let rest = &self.source[self.at..];
            let blank = rest.len() - rest.trim_start().len();
            self.skip(blank);
            let rest = &self.source[self.at..];
            let Some(first) = rest.chars().next() else {
                return self.fail(format!("tag is not closed by `{closing}`"));
            };
            if brackets == 0 {
                let signed = matches!(first, '-' | '+') && rest[1..].starts_with(closing);
                if signed || rest.starts_with(closing) {
                    self.at += closing.len() + usize::from(signed);
                    self.skips_whitespace = signed && first == '-';
                    self.trims_newline = closing == "%}" && !(signed && first == '+');
                    self.push(end);
                    return Ok(());
                }
            }
            if first.is_alphabetic() || first == '_' {
                let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
                self.push(Token::Name(rest[..length].to_owned()));
                self.at += length;
            } else if first.is_ascii_digit() {
                self.number(rest)?;
            } else if matches!(first, '"' | '\'') {
                self.string(rest, first)?;
            } else if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
                match sign {
                    "(" | "[" | "{" => brackets += 1,
                    ")" | "]" | "}" => brackets = brackets.saturating_sub(1),
                    _ => {}
                }
                self.push(Token::Sign(sign));
                self.at += sign.len();
            } else {
                return self.fail(format!("unexpected character `{}`", first.escape_debug()));
            }
        }
    }

    fn number(&mut self, rest: &str) -> Result<(), Error> {
        let digits =
            |text: &str| text.find(|c: char| !(c.is_ascii_digit() || c == '_')).unwrap_or(text.len());
        let mut length = digits(rest);
        let mut is_float = false;
        if rest[length..].starts_with('.') && rest[length + 1..].starts_with(|c: char| c.is_ascii_digit()) {
            is_float = true;
            length += 1 + digits(&rest[length + 1..]);
        }
        if rest[length..].starts_with(['e', 'E']) {
            let signed = usize::from(rest[length + 1..].starts_with(['+', '-']));
            let exponent = digits(&rest[length + 1 + signed..]);
            if exponent > 0 {
                is_float = true;
                length += 1 + signed + exponent;
            }
        }
        let text = rest[..length].replace('_', "");
        let token = if is_float {
            text.parse().ok().map(Token::Float)
        } else {
            text.parse().ok().map(Token::Integer)
        };
        let Some(token) = token else {
            let shown = &rest[..length.min(40)];
            return self.fail(format!("number `{shown}` is larger than 64 bits"));
        };
        self.push(token);
        self.at += length;
        Ok(())
    }

    fn string(&mut self, rest: &str, quote: char) -> Result<(), Error> {
        let mut text = String::new();
        let mut characters = rest.char_indices().skip(1);
        while let Some((at, character)) = characters.next() {
            if character == quote {
                self.push(Token::String(text));
                self.skip(at + 1);
                return Ok(());
            }
            if character != '\\' {
                text.push(character);
                continue;
            }
            let Some((_, escape)) = characters.next() else { break };
            let digits = match escape {
                'x' => 2,
                'u' => 4,
                'U' => 8,
                _ => 0,
            };
            match escape {
                'n' => text.push('\n'),
                't' => text.push('\t'),
                'r' => text.push('\r'),
                'b' => text.push('\u{8}'),
                'f' => text.push('\u{c}'),
                'v' => text.push('\u{b}'),
                'a' => text.push('\u{7}'),
                '0' => text.push('\0'),
                '\\' | '\'' | '"' => text.push(escape),
                '\n' => {}
                'x' | 'u' | 'U' => {
                    let code =
                        rest.get(at + 2..at + 2 + digits).and_then(|code| u32::from_str_radix(code, 16).ok());
                    let Some(character) = code.and_then(char::from_u32) else {
                        return self.fail(format!(
                            "`\\{escape}` must be followed by {digits} hexadecimal digits of a character"
                        ));
                    };
                    text.push(character);
                    characters.nth(digits - 1);
                }
                other => text.extend(['\\', other]),
            }
        }
        self.fail("string without a closing quote")
    }
}

/// Offset and kind of the first tag in `text`.
fn first_tag(text: &str) -> Option<(usize, Tag)> {
    text.match_indices('{').find_map(|(at, _)| match text.as_bytes().get(at + 1)? {
        b'%' => Some((at, Tag::Block)),
        b'{' => Some((at, Tag::Variable)),
        b'#' => Some((at, Tag::Comment)),
        _ => None,
    })
}

/// Matches a block that contains only `name`. Returns true if it ends in `-%}`, and the number of
/// bytes up to the end of the block.
fn after_lone(inside: &str, name: &str) -> Option<(bool, usize)> {
    let rest = inside.trim_start().strip_prefix(name)?.trim_start();
    let (trims, rest) = match rest.strip_prefix("-%}") {
        Some(rest) => (true, rest),
        None => (false, rest.strip_prefix("%}")?),
    };
    Some((trims, inside.len() - rest.len()))
}
