//! The little JSON that guests need: text and lists out, known shapes in.
//!
//! A whole JSON library would make a small guest several times its size. Nesting is the caller's,
//! so no input can exhaust the stack.

use std::fmt;

/// Append `text` to `out` as a JSON string.
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

/// Append `items` to `out` as a JSON array; `push` writes each.
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

/// JSON that is not what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unexpected {
    /// Where, in bytes from the start.
    pub at: usize,
    /// What should be there.
    pub expected: &'static str,
}

impl fmt::Display for Unexpected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unexpected { at, expected } = self;
        write!(f, "expected {expected} at byte {at}")
    }
}

/// Reads a JSON text front to back: the caller says what comes next.
#[derive(Debug)]
pub struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    /// Begin at the start of `text`.
    pub fn new(text: &'t str) -> Self {
        Reader { text, at: 0 }
    }

    /// Read an array; `element` reads each of its elements.
    ///
    /// # Errors
    ///
    /// When there is no array, or what `element` says.
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

    /// Read an object; `member` is given each name and reads its value.
    ///
    /// # Errors
    ///
    /// When there is no object, or what `member` says.
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

    /// Read a string.
    ///
    /// # Errors
    ///
    /// When there is none, or it is not JSON's: a control character, an unknown escape, half a
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

    /// Read a number.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn number(&mut self) -> Result<f64, Unexpected> {
        self.space();
        let rest = &self.text[self.at..];
        let length = rest.bytes().take_while(|byte| b"+-.eE0123456789".contains(byte)).count();
        // Rust reads what JSON does not, such as `+1`, and no word passes the filter above: that is
        // no harm here.
        let number = rest[..length].parse().map_err(|_| self.expected("a number"))?;
        self.at += length;
        Ok(number)
    }

    /// Read `true` or `false`.
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

    /// Pass over a value of any kind. Of lists and objects only the brackets are counted.
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

    /// Make sure that nothing follows.
    ///
    /// # Errors
    ///
    /// When something does.
    pub fn end(&mut self) -> Result<(), Unexpected> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.expected("nothing more")) }
    }

    /// That something else was expected here.
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

    /// Four hexadecimal digits, or two times four that are a surrogate pair.
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
