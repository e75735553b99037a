//! Evaluation of expressions.

use super::Interpreter;
use crate::language::jinja::error::{Cause, Error};
use crate::language::jinja::operators;
use crate::language::jinja::syntax::{Expression, Operator};
use crate::language::jinja::text::Writer;
use crate::language::jinja::value::Value;

impl<'b> Interpreter<'b> {
    pub(super) fn value(&mut self, expression: &Expression) -> Result<Value, Error> {
        self.budget.steps(1)?;
        match expression {
            Expression::Constant(literal) => Ok(Value::from(literal)),
            Expression::Variable(name) => Ok(self.variable(name)?),
            composed => self.deeper(|interpreter| interpreter.composed(composed)),
        }
    }

    pub(super) fn values(&mut self, expressions: &[Expression]) -> Result<Vec<Value>, Error> {
        self.budget.values(expressions.len())?;
        expressions.iter().map(|expression| self.value(expression)).collect()
    }

    pub(super) fn composed(&mut self, expression: &Expression) -> Result<Value, Error> {
        match expression {
            Expression::Constant(_) | Expression::Variable(_) => self.value(expression),
            Expression::List(items) => Ok(Value::list(self.values(items)?)?),
            Expression::Tuple(items) => Ok(Value::tuple(self.values(items)?)?),
            Expression::Map(entries) => {
                self.budget.values(entries.len() * 2)?;
                let mut values = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    values.push((self.value(key)?, self.value(value)?));
                }
                Ok(Value::map(values, self.budget)?)
            }
            Expression::Not(value) => Ok(Value::Boolean(!self.value(value)?.is_true())),
            Expression::Negative(value) => Ok(operators::negative(&self.value(value)?)?),
            Expression::Positive(value) => match self.value(value)? {
                value if value.float().is_some() => Ok(value),
                other => Err(Cause::Failed(format!("unary `+` is not defined for {}", other.kind())).into()),
            },
            Expression::And(parts) => self.until(parts, false),
            Expression::Or(parts) => self.until(parts, true),
            Expression::Chain(first, rest) => self.chain(first, rest),
            Expression::Compare(first, rest) => {
                let mut left = self.value(first)?;
                for (comparison, right) in rest {
                    let right = self.value(right)?;
                    if !operators::compare(*comparison, &left, &right, self.budget)? {
                        return Ok(Value::Boolean(false));
                    }
                    left = right;
                }
                Ok(Value::Boolean(true))
            }
            Expression::Choice(condition, value, otherwise) => {
                if self.value(condition)?.is_true() {
                    self.value(value)
                } else {
                    otherwise.as_ref().map_or(Ok(Value::Undefined), |otherwise| self.value(otherwise))
                }
            }
            Expression::Postfix(base, postfixes) => self.postfix(base, postfixes),
        }
    }

    pub(super) fn chain(
        &mut self,
        first: &Expression,
        rest: &[(Operator, Expression)],
    ) -> Result<Value, Error> {
        let mut value = self.value(first)?;
        // Consecutive concatenations of text copy each part once.
        let mut joined: Option<Writer<'b>> = None;
        for (operator, operand) in rest {
            let operand = self.value(operand)?;
            let is_text = joined.is_some() || matches!(value, Value::Text(_));
            if is_text && *operator == Operator::Add && matches!(operand, Value::Text(_)) {
                let budget = self.budget;
                if joined.is_none() {
                    joined.insert(Writer::new(budget)).string(&value)?;
                }
                if let Some(joined) = &mut joined {
                    joined.string(&operand)?;
                }
                continue;
            }
            if let Some(joined) = joined.take() {
                value = joined.value();
            }
            value = operators::apply(*operator, &value, &operand, self.budget)?;
        }
        Ok(joined.map_or(value, Writer::value))
    }

    /// The first value whose truth equals `decides`, or else the last one.
    pub(super) fn until(&mut self, parts: &[Expression], decides: bool) -> Result<Value, Error> {
        let mut value = Value::Undefined;
        for part in parts {
            value = self.value(part)?;
            if value.is_true() == decides {
                break;
            }
        }
        Ok(value)
    }
}
