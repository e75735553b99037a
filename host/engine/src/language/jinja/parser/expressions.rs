//! Expressions, from the weakest operators to literals and arguments.

use super::{Parsed, Parser};
use crate::language::jinja::lexer::Token;
use crate::language::jinja::syntax::{
    Arguments, Call, Comparison, Expression, Literal, Name, Operator, Postfix,
};

impl Parser {
    /// Parses `a|b(1)|c`, from the first name.
    pub(super) fn filters(&mut self) -> Parsed<Vec<Call>> {
        let mut filters = vec![self.called()?];
        while self.accept("|") {
            filters.push(self.called()?);
        }
        Ok(filters)
    }

    /// Parses a name with optional arguments.
    pub(super) fn called(&mut self) -> Parsed<Call> {
        let name = self.name()?;
        let arguments = if self.accept("(") { self.arguments()? } else { Arguments::default() };
        Ok(Call { name, arguments })
    }

    /// Parses one expression, or several with commas.
    pub(super) fn tuple(&mut self) -> Parsed<Expression> {
        self.bare_tuple(Parser::expression)
    }

    pub(super) fn bare_tuple(&mut self, part: fn(&mut Self) -> Parsed<Expression>) -> Parsed<Expression> {
        let first = part(self)?;
        if !self.is_sign(",") {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.accept(",") {
            if matches!(self.peek(), Token::EndBlock | Token::EndVariable) || self.is_sign(")") {
                break;
            }
            parts.push(part(self)?);
        }
        Ok(Expression::Tuple(parts))
    }

    pub(super) fn expression(&mut self) -> Parsed<Expression> {
        self.within(|parser| {
            let value = parser.or_expression()?;
            if !parser.accept_name("if") {
                return Ok(value);
            }
            let condition = parser.or_expression()?;
            let otherwise =
                if parser.accept_name("else") { Some(Box::new(parser.expression()?)) } else { None };
            Ok(Expression::Choice(Box::new(condition), Box::new(value), otherwise))
        })
    }

    pub(super) fn or_expression(&mut self) -> Parsed<Expression> {
        let first = self.and_expression()?;
        let mut parts = vec![first];
        while self.accept_name("or") {
            parts.push(self.and_expression()?);
        }
        Ok(single(parts, Expression::Or))
    }

    pub(super) fn and_expression(&mut self) -> Parsed<Expression> {
        let mut parts = vec![self.not_expression()?];
        while self.accept_name("and") {
            parts.push(self.not_expression()?);
        }
        Ok(single(parts, Expression::And))
    }

    pub(super) fn not_expression(&mut self) -> Parsed<Expression> {
        if self.accept_name("not") {
            return self.within(|parser| Ok(Expression::Not(Box::new(parser.not_expression()?))));
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

    /// Parses operators of equal precedence, whose operands are parsed by `operand`.
    pub(super) fn chain(
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

    pub(super) fn sum(&mut self) -> Parsed<Expression> {
        self.chain(Parser::concatenation, &[("+", Operator::Add), ("-", Operator::Subtract)])
    }

    pub(super) fn concatenation(&mut self) -> Parsed<Expression> {
        self.chain(Parser::product, &[("~", Operator::Concatenate)])
    }

    pub(super) fn product(&mut self) -> Parsed<Expression> {
        let operators = [
            ("*", Operator::Multiply),
            ("/", Operator::Divide),
            ("//", Operator::FloorDivide),
            ("%", Operator::Remainder),
        ];
        self.chain(Parser::power, &operators)
    }

    pub(super) fn power(&mut self) -> Parsed<Expression> {
        self.chain(|parser| parser.unary(true), &[("**", Operator::Power)])
    }

    pub(super) fn unary(&mut self, takes_filters: bool) -> Parsed<Expression> {
        let value = if self.accept("-") {
            self.within(|parser| Ok(Expression::Negative(Box::new(parser.unary(false)?))))?
        } else if self.accept("+") {
            self.within(|parser| Ok(Expression::Positive(Box::new(parser.unary(false)?))))?
        } else {
            self.primary()?
        };
        let mut postfixes = Vec::new();
        loop {
            if self.accept(".") {
                postfixes.push(match self.peek() {
                    Token::Integer(index) => {
                        let index = Expression::Constant(Literal::Integer(*index));
                        self.at += 1;
                        Postfix::Item(index)
                    }
                    _ => Postfix::Attribute(self.name()?),
                });
            } else if self.accept("[") {
                postfixes.push(self.within(Parser::item)?);
            } else if self.accept("(") {
                postfixes.push(Postfix::Call(self.arguments()?));
            } else if takes_filters && self.accept("|") {
                postfixes.push(Postfix::Filter(self.called()?));
            } else if takes_filters && self.accept_name("is") {
                let is_negated = self.accept_name("not");
                postfixes.push(Postfix::Test(self.test()?, is_negated));
            } else {
                break;
            }
        }
        Ok(if postfixes.is_empty() { value } else { Expression::Postfix(Box::new(value), postfixes) })
    }

    /// Parses an index or a slice, up to and including the closing bracket.
    pub(super) fn item(&mut self) -> Parsed<Postfix> {
        let mut parts = [None, None, None];
        let mut colons = 0;
        loop {
            if !self.is_sign("]") && !self.is_sign(":") {
                parts[colons] = Some(self.expression()?);
            }
            if self.accept("]") {
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

    /// Parses a test's name and arguments: in parentheses, or a single value after the name.
    pub(super) fn test(&mut self) -> Parsed<Call> {
        let name = match self.peek() {
            // Operators as tests: `x is == y`.
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

    /// Parses arguments, up to and including the closing parenthesis.
    pub(super) fn arguments(&mut self) -> Parsed<Arguments> {
        self.within(|parser| {
            let mut arguments = Arguments::default();
            let mut is_first = true;
            while !parser.accept(")") {
                if !is_first {
                    parser.sign(",")?;
                    if parser.accept(")") {
                        break;
                    }
                }
                is_first = false;
                if parser.is_sign("*") || parser.is_sign("**") {
                    return parser.fail("unpacking arguments with `*` is not allowed in chat templates");
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
                    return parser.expected("a name and `=` after other named arguments");
                }
            }
            Ok(arguments)
        })
    }

    pub(super) fn primary(&mut self) -> Parsed<Expression> {
        Ok(match self.peek() {
            Token::Name(name) => {
                let constant = match name.as_str() {
                    "true" | "True" => Some(Literal::Boolean(true)),
                    "false" | "False" => Some(Literal::Boolean(false)),
                    "none" | "None" => Some(Literal::None),
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
                let value = Literal::Integer(*number);
                self.at += 1;
                Expression::Constant(value)
            }
            Token::Float(number) => {
                let value = Literal::Float(*number);
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
                Expression::Constant(Literal::Text(text.into()))
            }
            Token::Sign("(") => {
                self.at += 1;
                if self.accept(")") {
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

    pub(super) fn items<T>(&mut self, end: &str, item: fn(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        while !self.accept(end) {
            if !items.is_empty() {
                self.sign(",")?;
                if self.accept(end) {
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
