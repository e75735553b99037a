//! A minimal JSON writer and reader for guests.
//!
//! A complete JSON library would make a small guest several times its size. The reader never
//! recurses by itself, so no input can exhaust the stack.

use std::fmt;

/// Appends `text` to `out` as a JSON string.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\u{0}'..='\u{1f}' => {
                let digit = |value: u32| char::from_digit(value, 16).unwrap_or('0');
                out.push_str("\\u00");
                out.push(digit(character as u32 >> 4));
                out.push(digit(character as u32 & 15));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

/// Appends `items` to `out` as a JSON array; `push` writes each.
pub fn push_array<T>(
    out: &mut String,
    items: impl IntoIterator<Item = T>,
    mut push: impl FnMut(&mut String, T),
) {
    out.push('[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        push(out, item);
    }
    out.push(']');
}

/// JSON that differs from the expected form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unexpected {
    /// Position in bytes from the start.
    pub at: usize,
    /// Description of the expected token.
    pub expected: &'static str,
}

impl fmt::Display for Unexpected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unexpected { at, expected } = self;
        write!(f, "expected {expected} at byte {at}")
    }
}

/// Reads a JSON text front to back; the caller decides which type comes next.
#[derive(Debug)]
pub struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    /// Starts at the beginning of `text`.
    pub fn new(text: &'t str) -> Self {
        Reader { text, at: 0 }
    }

    /// Reads an array; `element` reads each of its elements.
    ///
    /// # Errors
    ///
    /// When there is no array, or an error of `element`.
    pub fn array(
        &mut self,
        element: &mut dyn FnMut(&mut Self) -> Result<(), Unexpected>,
    ) -> Result<(), Unexpected> {
        self.token(b'[', "an array")?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            element(self)?;
            if self.take(b']') {
                return Ok(());
            }
            self.token(b',', "`,` or `]`")?;
        }
    }

    /// Reads an object; `member` receives each name and reads its value.
    ///
    /// # Errors
    ///
    /// When there is no object, or an error of `member`.
    pub fn object(
        &mut self,
        member: &mut dyn FnMut(&mut Self, &str) -> Result<(), Unexpected>,
    ) -> Result<(), Unexpected> {
        self.token(b'{', "an object")?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let name = self.string()?;
            self.token(b':', "`:`")?;
            member(self, &name)?;
            if self.take(b'}') {
                return Ok(());
            }
            self.token(b',', "`,` or `}`")?;
        }
    }

    /// Reads a string.
    ///
    /// # Errors
    ///
    /// When there is no string, or it is invalid: a control character, an unknown escape, half a
    /// surrogate pair.
    pub fn string(&mut self) -> Result<String, Unexpected> {
        self.token(b'"', "a string")?;
        let mut string = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.find(|c: char| c == '"' || c == '\\' || c < ' ').unwrap_or(rest.len());
            string.push_str(&rest[..plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(string);
                }
                Some(b'\\') => {
                    self.at += 1;
                    string.push(self.escaped()?);
                }
                _ => return Err(self.expected("the rest of a string")),
            }
        }
    }

    /// Reads a number.
    ///
    /// # Errors
    ///
    /// When there is no number.
    pub fn number(&mut self) -> Result<f64, Unexpected> {
        self.space();
        let rest = &self.text[self.at..];
        let length = rest.bytes().take_while(|byte| b"+-.eE0123456789".contains(byte)).count();
        // Rust parses some numbers that are not JSON, such as `+1`, which is harmless here. The
        // filter above excludes words such as `nan`.
        let number = rest[..length].parse().map_err(|_| self.expected("a number"))?;
        self.at += length;
        Ok(number)
    }

    /// Reads `true` or `false`.
    ///
    /// # Errors
    ///
    /// When there is neither.
    pub fn boolean(&mut self) -> Result<bool, Unexpected> {
        self.space();
        for (word, value) in [("true", true), ("false", false)] {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.expected("`true` or `false`"))
    }

    /// Skips a value of any kind. Inside lists and objects only brackets are checked.
    ///
    /// # Errors
    ///
    /// When the text ends within it.
    pub fn skip(&mut self) -> Result<(), Unexpected> {
        let mut depth = 0_usize;
        loop {
            self.space();
            match self.peek() {
                Some(b'"') => drop(self.string()?),
                Some(b'[' | b'{') => {
                    depth += 1;
                    self.at += 1;
                }
                Some(b']' | b'}') if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                Some(b',' | b':') if depth > 0 => self.at += 1,
                Some(byte) if byte.is_ascii_alphanumeric() || byte == b'-' => {
                    let rest = self.text[self.at..].bytes();
                    self.at +=
                        rest.take_while(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)).count();
                }
                _ => return Err(self.expected("a value")),
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Checks that only white space follows.
    ///
    /// # Errors
    ///
    /// When something else follows.
    pub fn end(&mut self) -> Result<(), Unexpected> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.expected("nothing more")) }
    }

    /// Creates an error at the current position.
    pub fn expected(&self, expected: &'static str) -> Unexpected {
        Unexpected { at: self.at, expected }
    }

    fn escaped(&mut self) -> Result<char, Unexpected> {
        let escape = self.peek().ok_or_else(|| self.expected("an escape"))?;
        let character = match escape {
            b'"' | b'\\' | b'/' => char::from(escape),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                return self.code_point();
            }
            _ => return Err(self.expected("an escape")),
        };
        self.at += 1;
        Ok(character)
    }

    /// Reads four hexadecimal digits, or two groups of four that form a surrogate pair.
    fn code_point(&mut self) -> Result<char, Unexpected> {
        let first = self.hexadecimal()?;
        let code = match first {
            0xd800..0xdc00 if self.text[self.at..].starts_with("\\u") => {
                self.at += 2;
                let second = self.hexadecimal()?;
                if !(0xdc00..0xe000).contains(&second) {
                    return Err(self.expected("the second half of a surrogate pair"));
                }
                0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            other => other,
        };
        char::from_u32(code).ok_or_else(|| self.expected("a whole surrogate pair"))
    }

    fn hexadecimal(&mut self) -> Result<u32, Unexpected> {
        let digits = self
            .text
            .get(self.at..self.at + 4)
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let code = code.ok_or_else(|| self.expected("four hexadecimal digits"))?;
        self.at += 4;
        Ok(code)
    }

    fn token(&mut self, byte: u8, expected: &'static str) -> Result<(), Unexpected> {
        if self.take(byte) { Ok(()) } else { Err(self.expected(expected)) }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.space();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
