//! Statements: text, tags, and the blocks between them.

use std::sync::Arc;

use super::{Parsed, Parser};
use crate::language::jinja::error::shortened;
use crate::language::jinja::lexer::Token;
use crate::language::jinja::syntax::{Block, For, Macro, Statement, StatementKind, Target};

impl Parser {
    /// Parses statements up to the end of the source, or up to a block with one of the names in
    /// `ends`. That block is consumed up to its arguments.
    pub(super) fn block(&mut self, ends: &[&str]) -> Parsed<(Block, Option<String>)> {
        self.within(|parser| {
            let mut body = Vec::new();
            loop {
                let line = parser.line();
                let kind = match parser.next() {
                    Token::End => {
                        let missing = ends.last().map(|end| format!("block is not closed by `{end}`"));
                        return missing.map_or(Ok((body, None)), |message| parser.fail(message));
                    }
                    Token::Text(text) => StatementKind::Text(text.into()),
                    Token::Variable => {
                        let value = parser.tuple()?;
                        match parser.peek() {
                            Token::EndVariable => parser.at += 1,
                            _ => return parser.expected("`}}`"),
                        }
                        StatementKind::Write(value)
                    }
                    Token::Block => {
                        if let Token::Name(name) = parser.peek()
                            && (ends.contains(&name.as_str())
                                || name.starts_with("end")
                                || name.starts_with("el"))
                        {
                            let name = name.clone();
                            if ends.contains(&name.as_str()) {
                                parser.at += 1;
                                return Ok((body, Some(name)));
                            }
                            return parser.fail(format!("`{}` without a matching block", shortened(&name)));
                        }
                        parser.statement()?
                    }
                    _ => return parser.fail("unexpected token"),
                };
                body.push(Statement { line, kind });
            }
        })
    }

    /// Parses the statements of a block and the end of that block, including `%}`.
    pub(super) fn body(&mut self, end: &str) -> Parsed<Block> {
        self.end_block()?;
        let (body, _) = self.block(&[end])?;
        // `endmacro name` is allowed.
        if let (Token::Name(_), "endmacro") = (self.peek(), end) {
            self.at += 1;
        }
        self.end_block()?;
        Ok(body)
    }

    pub(super) fn statement(&mut self) -> Parsed<StatementKind> {
        let name = self.name()?;
        Ok(match &*name {
            "if" => return self.conditional(),
            "for" => return self.repeated(),
            "set" => return self.assignment(),
            "macro" => StatementKind::Macro(Arc::new(self.definition()?)),
            "filter" => {
                let filters = self.filters()?;
                StatementKind::FilterBlock(filters, self.body("endfilter")?)
            }
            "with" => {
                let mut bound = Vec::new();
                while !matches!(self.peek(), Token::EndBlock) {
                    if !bound.is_empty() {
                        self.sign(",")?;
                    }
                    let target = self.target()?;
                    self.sign("=")?;
                    bound.push((target, self.expression()?));
                }
                StatementKind::With(bound, self.body("endwith")?)
            }
            // Marks the model's turns; only training needs it.
            "generation" => StatementKind::Group(self.body("endgeneration")?),
            "do" => {
                let value = self.tuple()?;
                self.end_block()?;
                StatementKind::Do(value)
            }
            "break" | "continue" => {
                self.end_block()?;
                if &*name == "break" { StatementKind::Break } else { StatementKind::Continue }
            }
            other => {
                let other = shortened(other);
                return self.fail(format!(
                    "tag `{other}` is not allowed in chat templates; allowed: if, for, set, macro, filter, \
                     with, do, break, continue, generation, raw"
                ));
            }
        })
    }

    pub(super) fn conditional(&mut self) -> Parsed<StatementKind> {
        let mut branches = Vec::new();
        let mut condition = self.tuple()?;
        loop {
            self.end_block()?;
            let (body, end) = self.block(&["elif", "else", "endif"])?;
            branches.push((condition, body));
            match end.as_deref() {
                Some("elif") => condition = self.tuple()?,
                Some("else") => {
                    let otherwise = self.body("endif")?;
                    return Ok(StatementKind::If(branches, otherwise));
                }
                _ => {
                    self.end_block()?;
                    return Ok(StatementKind::If(branches, Vec::new()));
                }
            }
        }
    }

    pub(super) fn repeated(&mut self) -> Parsed<StatementKind> {
        let target = self.target()?;
        self.keyword("in")?;
        // Without `a if b else c`: an `if` here belongs to the loop.
        let items = self.bare_tuple(Parser::or_expression)?;
        let condition = if self.accept_name("if") { Some(self.expression()?) } else { None };
        if self.is_name("recursive") {
            return self.fail("recursive loops are not allowed in chat templates; use a macro");
        }
        self.end_block()?;
        let (body, end) = self.block(&["else", "endfor"])?;
        let otherwise = if end.as_deref() == Some("else") {
            self.body("endfor")?
        } else {
            self.end_block()?;
            Vec::new()
        };
        Ok(StatementKind::For(Box::new(For { target, items, condition, body, otherwise })))
    }

    pub(super) fn target(&mut self) -> Parsed<Target> {
        let is_open = self.accept("(");
        let first = self.name()?;
        if !is_open && self.accept(".") {
            return Ok(Target::Attribute(first, self.name()?));
        }
        let mut names = vec![first];
        let mut is_many = false;
        while self.accept(",") {
            is_many = true;
            if !matches!(self.peek(), Token::Name(_)) || self.is_name("in") {
                break;
            }
            names.push(self.name()?);
        }
        if is_open {
            self.sign(")")?;
        }
        Ok(match (is_many, names.pop()) {
            (false, Some(name)) => Target::Name(name),
            (_, last) => {
                names.extend(last);
                Target::Names(names)
            }
        })
    }

    pub(super) fn assignment(&mut self) -> Parsed<StatementKind> {
        let target = self.target()?;
        if self.accept("=") {
            let value = self.tuple()?;
            self.end_block()?;
            return Ok(StatementKind::Set(target, value));
        }
        let filters = if self.accept("|") { self.filters()? } else { Vec::new() };
        Ok(StatementKind::SetBlock(target, filters, self.body("endset")?))
    }

    pub(super) fn definition(&mut self) -> Parsed<Macro> {
        let name = self.name()?;
        self.sign("(")?;
        let mut parameters = Vec::new();
        while !self.accept(")") {
            if !parameters.is_empty() {
                self.sign(",")?;
                if self.accept(")") {
                    break;
                }
            }
            let parameter = self.name()?;
            let default = if self.accept("=") { Some(self.expression()?) } else { None };
            parameters.push((parameter, default));
        }
        Ok(Macro { name, parameters, body: self.body("endmacro")? })
    }
}
