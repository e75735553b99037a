//! From tokens to a syntax tree, with the grammar of Jinja2.

mod expressions;
mod statements;

use super::error::{Cause, Error, shortened};
use super::lexer::{Token, tokens};
use super::syntax::{Block, Name};
use crate::limits::MAX_BLOCK_DEPTH;

/// Parses `source`.
pub(super) fn parse(source: &str) -> Result<Block, Error> {
    let tokens = tokens(source)?;
    let mut parser = Parser { tokens, at: 0, nested: 0 };
    let (body, end) = parser.block(&[])?;
    match end {
        None => Ok(body),
        Some(end) => parser.fail(format!("`{end}` without a matching block")),
    }
}

struct Parser {
    tokens: Vec<(Token, u32)>,
    at: usize,
    nested: usize,
}

type Parsed<T> = Result<T, Error>;

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.at).map_or(&Token::End, |(token, _)| token)
    }

    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |&(_, line)| line)
    }

    fn next(&mut self) -> Token {
        let token = self.tokens.get_mut(self.at).map(|(token, _)| std::mem::replace(token, Token::End));
        self.at += 1;
        token.unwrap_or(Token::End)
    }

    fn fail<T>(&self, message: impl Into<String>) -> Parsed<T> {
        Err(Error { line: self.line(), cause: Cause::failed(message) })
    }

    fn expected<T>(&self, what: &str) -> Parsed<T> {
        self.fail(format!("{}, expected {what}", self.found()))
    }

    fn found(&self) -> String {
        match self.peek() {
            Token::Text(_) => "text".to_owned(),
            Token::Block => "`{%`".to_owned(),
            Token::Variable => "`{{`".to_owned(),
            Token::EndBlock => "`%}`".to_owned(),
            Token::EndVariable => "`}}`".to_owned(),
            Token::Name(name) => format!("`{}`", shortened(name)),
            Token::String(_) => "a string".to_owned(),
            Token::Integer(number) => format!("`{number}`"),
            Token::Float(number) => format!("`{number}`"),
            Token::Sign(sign) => format!("`{sign}`"),
            Token::End => "the end".to_owned(),
        }
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(next) if *next == sign)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(next) if next == name)
    }

    /// Consumes `sign` if it is the next token.
    fn accept(&mut self, sign: &str) -> bool {
        let accept = self.is_sign(sign);
        self.at += usize::from(accept);
        accept
    }

    fn accept_name(&mut self, name: &str) -> bool {
        let accept = self.is_name(name);
        self.at += usize::from(accept);
        accept
    }

    fn sign(&mut self, sign: &str) -> Parsed<()> {
        if self.accept(sign) { Ok(()) } else { self.expected(&format!("`{sign}`")) }
    }

    fn keyword(&mut self, name: &str) -> Parsed<()> {
        if self.accept_name(name) { Ok(()) } else { self.expected(&format!("`{name}`")) }
    }

    fn name(&mut self) -> Parsed<Name> {
        match self.peek() {
            Token::Name(_) => match self.next() {
                Token::Name(name) => Ok(name.into()),
                _ => self.expected("a name"),
            },
            _ => self.expected("a name"),
        }
    }

    fn end_block(&mut self) -> Parsed<()> {
        match self.peek() {
            Token::EndBlock => {
                self.at += 1;
                Ok(())
            }
            _ => self.expected("`%}`"),
        }
    }

    /// Parses one level deeper.
    fn within<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.nested += 1;
        if self.nested > MAX_BLOCK_DEPTH {
            return self.fail(format!("blocks and brackets are nested more than {MAX_BLOCK_DEPTH} deep"));
        }
        let parsed = parse(self);
        self.nested -= 1;
        parsed
    }
}
