//! From tokens to a tree, by Jinja2's grammar.

use std::sync::Arc;

use super::lexer::{Token, tokens};
use super::syntax::{
    Arguments, Block, Call, Comparison, Expression, For, Macro, Name, Operator, Postfix, Statement,
    StatementKind, Target,
};
use super::value::Value;
use super::{Cause, Error};

/// Blocks and brackets within each other. Templates of models reach about 20.
const MAX_NESTED: usize = 100;

/// The tree of `source`.
pub(super) fn parse(source: &str) -> Result<Block, Error> {
    let tokens = tokens(source)?;
    let mut parser = Parser { tokens, at: 0, nested: 0 };
    let (body, end) = parser.block(&[])?;
    match end {
        None => Ok(body),
        Some(end) => parser.fail(format!("`{end}` without its beginning")),
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
        matches!(self.peek(), Token::Sign(is) if *is == sign)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Token::Name(is) if is == name)
    }

    /// Take `sign` if it comes next.
    fn takes(&mut self, sign: &str) -> bool {
        let takes = self.is_sign(sign);
        self.at += usize::from(takes);
        takes
    }

    fn takes_name(&mut self, name: &str) -> bool {
        let takes = self.is_name(name);
        self.at += usize::from(takes);
        takes
    }

    fn sign(&mut self, sign: &str) -> Parsed<()> {
        if self.takes(sign) { Ok(()) } else { self.expected(&format!("`{sign}`")) }
    }

    fn keyword(&mut self, name: &str) -> Parsed<()> {
        if self.takes_name(name) { Ok(()) } else { self.expected(&format!("`{name}`")) }
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

    /// Go one level deeper.
    fn within<T>(&mut self, parse: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        self.nested += 1;
        if self.nested > MAX_NESTED {
            return self.fail(format!("blocks and brackets are nested more than {MAX_NESTED} deep"));
        }
        let parsed = parse(self);
        self.nested -= 1;
        parsed
    }

    /// Statements up to a block with one of the names in `ends`, which is taken up to its
    /// arguments, or to the source's end.
    fn block(&mut self, ends: &[&str]) -> Parsed<(Block, Option<String>)> {
        self.within(|parser| {
            let mut body = Vec::new();
            loop {
                let line = parser.line();
                let kind = match parser.next() {
                    Token::End => {
                        let missing = ends.last().map(|end| format!("a block without its end `{end}`"));
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
                            return parser.fail(format!("`{}` without its beginning", shortened(&name)));
                        }
                        parser.statement()?
                    }
                    _ => return parser.fail("unexpected token"),
                };
                body.push(Statement { line, kind });
            }
        })
    }

    /// The statements of a block and the end of that block, `%}` included.
    fn body(&mut self, end: &str) -> Parsed<Block> {
        self.end_block()?;
        let (body, _) = self.block(&[end])?;
        // `endmacro name` is allowed.
        if let (Token::Name(_), "endmacro") = (self.peek(), end) {
            self.at += 1;
        }
        self.end_block()?;
        Ok(body)
    }

    fn statement(&mut self) -> Parsed<StatementKind> {
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
            // Marks what a model has said, which matters in training alone.
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
                    "tag `{other}` is not allowed in chat templates; allowed: if, for, set, macro, filter, with, do, break, \
                     continue, generation, raw"
                ));
            }
        })
    }

    fn conditional(&mut self) -> Parsed<StatementKind> {
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

    fn repeated(&mut self) -> Parsed<StatementKind> {
        let target = self.target()?;
        self.keyword("in")?;
        // Without `a if b else c`: an `if` here is the loop's own.
        let items = self.bare_tuple(Parser::either)?;
        let condition = if self.takes_name("if") { Some(self.expression()?) } else { None };
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

    fn target(&mut self) -> Parsed<Target> {
        let is_open = self.takes("(");
        let first = self.name()?;
        if !is_open && self.takes(".") {
            return Ok(Target::Attribute(first, self.name()?));
        }
        let mut names = vec![first];
        let mut is_many = false;
        while self.takes(",") {
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

    fn assignment(&mut self) -> Parsed<StatementKind> {
        let target = self.target()?;
        if self.takes("=") {
            let value = self.tuple()?;
            self.end_block()?;
            return Ok(StatementKind::Set(target, value));
        }
        let filters = if self.takes("|") { self.filters()? } else { Vec::new() };
        Ok(StatementKind::SetBlock(target, filters, self.body("endset")?))
    }

    fn definition(&mut self) -> Parsed<Macro> {
        let name = self.name()?;
        self.sign("(")?;
        let mut parameters = Vec::new();
        while !self.takes(")") {
            if !parameters.is_empty() {
                self.sign(",")?;
                if self.takes(")") {
                    break;
                }
            }
            let parameter = self.name()?;
            let default = if self.takes("=") { Some(self.expression()?) } else { None };
            parameters.push((parameter, default));
        }
        Ok(Macro { name, parameters, body: self.body("endmacro")? })
    }

    /// `a|b(1)|c`, of which the first name comes next.
    fn filters(&mut self) -> Parsed<Vec<Call>> {
        let mut filters = vec![self.called()?];
        while self.takes("|") {
            filters.push(self.called()?);
        }
        Ok(filters)
    }

    /// A name with arguments, if there are any.
    fn called(&mut self) -> Parsed<Call> {
        let name = self.name()?;
        let arguments = if self.takes("(") { self.arguments()? } else { Arguments::default() };
        Ok(Call { name, arguments })
    }

    /// An expression, or several with commas.
    fn tuple(&mut self) -> Parsed<Expression> {
        self.bare_tuple(Parser::expression)
    }

    fn bare_tuple(&mut self, part: fn(&mut Self) -> Parsed<Expression>) -> Parsed<Expression> {
        let first = part(self)?;
        if !self.is_sign(",") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.takes(",") {
            if matches!(self.peek(), Token::EndBlock | Token::EndVariable) || self.is_sign(")") {
                break;
            }
            parts.push(part(self)?);
        }
        Ok(Expression::Tuple(parts))
    }

    fn expression(&mut self) -> Parsed<Expression> {
        self.within(|parser| {
            let value = parser.either()?;
            if !parser.takes_name("if") {
                return Ok(value);
            }
            let condition = parser.either()?;
            let otherwise =
                if parser.takes_name("else") { Some(Box::new(parser.expression()?)) } else { None };
            Ok(Expression::Choice(Box::new(condition), Box::new(value), otherwise))
        })
    }

    fn either(&mut self) -> Parsed<Expression> {
        let first = self.both()?;
        let mut parts = vec![first];
        while self.takes_name("or") {
            parts.push(self.both()?);
        }
        Ok(single(parts, Expression::Or))
    }

    fn both(&mut self) -> Parsed<Expression> {
        let mut parts = vec![self.negated()?];
        while self.takes_name("and") {
            parts.push(self.negated()?);
        }
        Ok(single(parts, Expression::And))
    }

    fn negated(&mut self) -> Parsed<Expression> {
        if self.takes_name("not") {
            return self.within(|parser| Ok(Expression::Not(Box::new(parser.negated()?))));
        }
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let comparison = match self.peek() {
                Token::Sign("==") => Comparison::Equal,
                Token::Sign("!=") => Comparison::NotEqual,
                Token::Sign("<") => Comparison::Less,
                Token::Sign("<=") => Comparison::LessOrEqual,
                Token::Sign(">") => Comparison::Greater,
                Token::Sign(">=") => Comparison::GreaterOrEqual,
                Token::Name(name) if name == "in" => Comparison::In,
                Token::Name(name) if name == "not" => {
                    match self.tokens.get(self.at + 1) {
                        Some((Token::Name(next), _)) if next == "in" => self.at += 1,
                        _ => break,
                    }
                    Comparison::NotIn
                }
                _ => break,
            };
            self.at += 1;
            rest.push((comparison, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expression::Compare(Box::new(first), rest) })
    }

    /// Operators of one rank, whose operands `operand` reads.
    fn chain(
        &mut self,
        operand: fn(&mut Self) -> Parsed<Expression>,
        operators: &[(&str, Operator)],
    ) -> Parsed<Expression> {
        let first = operand(self)?;
        let mut rest = Vec::new();
        while let Some(&(_, operator)) = operators.iter().find(|(sign, _)| self.is_sign(sign)) {
            self.at += 1;
            rest.push((operator, operand(self)?));
        }
        Ok(if rest.is_empty() { first } else { Expression::Chain(Box::new(first), rest) })
    }

    fn sum(&mut self) -> Parsed<Expression> {
        self.chain(Parser::concatenation, &[("+", Operator::Add), ("-", Operator::Subtract)])
    }

    fn concatenation(&mut self) -> Parsed<Expression> {
        self.chain(Parser::product, &[("~", Operator::Concatenate)])
    }

    fn product(&mut self) -> Parsed<Expression> {
        let operators = [
            ("*", Operator::Multiply),
            ("/", Operator::Divide),
            ("//", Operator::FloorDivide),
            ("%", Operator::Remainder),
        ];
        self.chain(Parser::power, &operators)
    }

    fn power(&mut self) -> Parsed<Expression> {
        self.chain(|parser| parser.unary(true), &[("**", Operator::Power)])
    }

    fn unary(&mut self, takes_filters: bool) -> Parsed<Expression> {
        let value = if self.takes("-") {
            self.within(|parser| Ok(Expression::Negative(Box::new(parser.unary(false)?))))?
        } else if self.takes("+") {
            self.within(|parser| Ok(Expression::Positive(Box::new(parser.unary(false)?))))?
        } else {
            self.primary()?
        };
        let mut behind = Vec::new();
        loop {
            if self.takes(".") {
                behind.push(match self.peek() {
                    Token::Integer(index) => {
                        let index = Expression::Constant(Value::Integer(*index));
                        self.at += 1;
                        Postfix::Item(index)
                    }
                    _ => Postfix::Attribute(self.name()?),
                });
            } else if self.takes("[") {
                behind.push(self.within(Parser::item)?);
            } else if self.takes("(") {
                behind.push(Postfix::Call(self.arguments()?));
            } else if takes_filters && self.takes("|") {
                behind.push(Postfix::Filter(self.called()?));
            } else if takes_filters && self.takes_name("is") {
                let is_negated = self.takes_name("not");
                behind.push(Postfix::Test(self.test()?, is_negated));
            } else {
                break;
            }
        }
        Ok(if behind.is_empty() { value } else { Expression::Postfix(Box::new(value), behind) })
    }

    /// What is in brackets behind a value, the closing one included.
    fn item(&mut self) -> Parsed<Postfix> {
        let mut parts = [None, None, None];
        let mut colons = 0;
        loop {
            if !self.is_sign("]") && !self.is_sign(":") {
                parts[colons] = Some(self.expression()?);
            }
            if self.takes("]") {
                break;
            }
            if colons == 2 {
                return self.expected("`]`");
            }
            self.sign(":")?;
            colons += 1;
        }
        let [start, stop, step] = parts;
        match (colons, start) {
            (0, Some(index)) => Ok(Postfix::Item(index)),
            (0, None) => self.fail("nothing between `[` and `]`, expected an index"),
            (_, start) => Ok(Postfix::Slice(start, stop, step)),
        }
    }

    /// A test's name and arguments: in parentheses, or a single value behind it.
    fn test(&mut self) -> Parsed<Call> {
        let name = match self.peek() {
            // `x is in y`; names otherwise.
            Token::Sign(sign @ ("==" | "!=" | "<" | "<=" | ">" | ">=")) => {
                let name = Name::from(*sign);
                self.at += 1;
                name
            }
            _ => self.name()?,
        };
        let has_argument = match self.peek() {
            Token::Sign("(") => {
                self.at += 1;
                return Ok(Call { name, arguments: self.arguments()? });
            }
            Token::Sign("[" | "{") => true,
            Token::String(_) | Token::Integer(_) | Token::Float(_) => true,
            Token::Name(next) => {
                !matches!(next.as_str(), "else" | "or" | "and" | "is" | "if" | "not" | "in" | "recursive")
            }
            _ => false,
        };
        let mut arguments = Arguments::default();
        if has_argument {
            arguments.positional.push(self.within(|parser| parser.unary(false))?);
        }
        Ok(Call { name, arguments })
    }

    /// Arguments, and the parenthesis that closes them.
    fn arguments(&mut self) -> Parsed<Arguments> {
        self.within(|parser| {
            let mut arguments = Arguments::default();
            let mut is_first = true;
            while !parser.takes(")") {
                if !is_first {
                    parser.sign(",")?;
                    if parser.takes(")") {
                        break;
                    }
                }
                is_first = false;
                if parser.is_sign("*") || parser.is_sign("**") {
                    return parser
                        .fail("arguments that are unpacked by `*` are not allowed in chat templates");
                }
                let is_named = matches!(parser.peek(), Token::Name(_))
                    && matches!(parser.tokens.get(parser.at + 1), Some((Token::Sign("="), _)));
                if is_named {
                    let name = parser.name()?;
                    parser.sign("=")?;
                    arguments.named.push((name, parser.expression()?));
                } else if arguments.named.is_empty() {
                    arguments.positional.push(parser.expression()?);
                } else {
                    return parser.expected("a name and `=` behind other named arguments");
                }
            }
            Ok(arguments)
        })
    }

    fn primary(&mut self) -> Parsed<Expression> {
        Ok(match self.peek() {
            Token::Name(name) => {
                let constant = match name.as_str() {
                    "true" | "True" => Some(Value::Boolean(true)),
                    "false" | "False" => Some(Value::Boolean(false)),
                    "none" | "None" => Some(Value::None),
                    "and" | "or" | "in" | "is" | "else" | "elif" => return self.expected("a value"),
                    _ => None,
                };
                match constant {
                    Some(value) => {
                        self.at += 1;
                        Expression::Constant(value)
                    }
                    None => Expression::Variable(self.name()?),
                }
            }
            Token::Integer(number) => {
                let value = Value::Integer(*number);
                self.at += 1;
                Expression::Constant(value)
            }
            Token::Float(number) => {
                let value = Value::Float(*number);
                self.at += 1;
                Expression::Constant(value)
            }
            Token::String(_) => {
                let mut text = String::new();
                while matches!(self.peek(), Token::String(_)) {
                    if let Token::String(part) = self.next() {
                        text += &part;
                    }
                }
                Expression::Constant(Value::from(text))
            }
            Token::Sign("(") => {
                self.at += 1;
                if self.takes(")") {
                    return Ok(Expression::Tuple(Vec::new()));
                }
                let value = self.tuple()?;
                self.sign(")")?;
                value
            }
            Token::Sign("[") => {
                self.at += 1;
                Expression::List(self.items("]", Parser::expression)?)
            }
            Token::Sign("{") => {
                self.at += 1;
                Expression::Map(self.items("}", |parser| {
                    let key = parser.expression()?;
                    parser.sign(":")?;
                    Ok((key, parser.expression()?))
                })?)
            }
            _ => return self.expected("a value"),
        })
    }

    fn items<T>(&mut self, end: &str, item: fn(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        while !self.takes(end) {
            if !items.is_empty() {
                self.sign(",")?;
                if self.takes(end) {
                    break;
                }
            }
            items.push(item(self)?);
        }
        Ok(items)
    }
}

fn single(mut parts: Vec<Expression>, many: fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        last => {
            parts.extend(last);
            many(parts)
        }
    }
}

/// A name from the template as messages may show it.
pub(super) fn shortened(name: &str) -> &str {
    &name[..name.floor_char_boundary(40)]
}
