//! Statements and expressions, run.

use std::sync::Arc;

use super::budget::Budget;
use super::functions::{Function, Given};
use super::parser::shortened;
use super::syntax::{
    Arguments, Block, Call, Expression, For, Macro, Name, Operator, Postfix, Statement, StatementKind, Target,
};
use super::text::Writer;
use super::value::{Loop, Value};
use super::{Cause, Error, filters, functions, methods, operators, tests};

/// Expressions, blocks and macros within each other while they run.
const MAX_DEPTH: usize = 300;

/// The line of an error that its statement fills in.
const UNKNOWN: u32 = 0;

impl From<Cause> for Error {
    fn from(cause: Cause) -> Self {
        Error { line: UNKNOWN, cause }
    }
}

/// Names and their values.
type Scope = Vec<(Name, Value)>;

/// What comes after a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

pub(super) struct Interpreter<'b> {
    budget: &'b Budget,
    /// The template's own first, then those of the blocks that are open.
    scopes: Vec<Scope>,
    /// What is written, and within it what blocks write that are set or filtered.
    outputs: Vec<String>,
    most_output: usize,
    depth: usize,
}

impl<'b> Interpreter<'b> {
    pub(super) fn new(budget: &'b Budget, variables: Vec<(&'static str, Value)>, most_output: usize) -> Self {
        let scope = variables.into_iter().map(|(name, value)| (name.into(), value)).collect();
        Interpreter { budget, scopes: vec![scope], outputs: vec![String::new()], most_output, depth: 0 }
    }

    pub(super) fn run(mut self, body: &Block) -> Result<String, Error> {
        self.block(body)?;
        Ok(self.outputs.swap_remove(0))
    }

    fn block(&mut self, body: &Block) -> Result<Flow, Error> {
        for statement in body {
            let flow = self.statement(statement).map_err(|mut error| {
                if error.line == UNKNOWN {
                    error.line = statement.line;
                }
                error
            })?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    /// A block with names of its own.
    fn scoped(&mut self, scope: Scope, body: &Block) -> Result<Flow, Error> {
        self.scopes.push(scope);
        let flow = self.block(body)?;
        self.scopes.pop();
        Ok(flow)
    }

    /// What a block writes.
    fn captured(&mut self, body: &Block) -> Result<Value, Error> {
        self.outputs.push(String::new());
        self.scoped(Scope::new(), body)?;
        Ok(Value::from(self.outputs.pop().unwrap_or_default()))
    }

    fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Cause::Failed(format!("macros and blocks run more than {MAX_DEPTH} deep")).into());
        }
        let result = run(self)?;
        self.depth -= 1;
        Ok(result)
    }

    fn write(&mut self, text: &str) -> Result<(), Cause> {
        self.budget.bytes(text.len())?;
        let is_last = self.outputs.len() == 1;
        if let Some(output) = self.outputs.last_mut() {
            if is_last && output.len() + text.len() > self.most_output {
                return Err(Cause::Unbounded(None));
            }
            output.push_str(text);
        }
        Ok(())
    }

    fn statement(&mut self, statement: &Statement) -> Result<Flow, Error> {
        self.budget.steps(1)?;
        match &statement.kind {
            StatementKind::Text(text) => self.write(text)?,
            StatementKind::Write(value) => match self.value(value)? {
                Value::Text(text) => self.write(&text)?,
                value => {
                    let mut text = Writer::new(self.budget);
                    text.string(&value)?;
                    self.write(&text.into_text())?;
                }
            },
            StatementKind::If(branches, otherwise) => {
                for (condition, body) in branches {
                    if self.value(condition)?.is_true() {
                        return self.deeper(|own| own.block(body));
                    }
                }
                return self.deeper(|own| own.block(otherwise));
            }
            StatementKind::For(repeated) => self.deeper(|own| own.repeated(repeated))?,
            StatementKind::Set(target, value) => {
                let value = self.value(value)?;
                self.assign(target, value)?;
            }
            StatementKind::SetBlock(target, filters, body) => {
                let text = self.deeper(|own| own.captured(body))?;
                let value = self.filtered(text, filters)?;
                self.assign(target, value)?;
            }
            StatementKind::FilterBlock(filters, body) => {
                let text = self.deeper(|own| own.captured(body))?;
                let mut written = Writer::new(self.budget);
                written.string(&self.filtered(text, filters)?)?;
                self.write(&written.into_text())?;
            }
            StatementKind::With(bound, body) => {
                let values: Vec<Value> =
                    bound.iter().map(|(_, value)| self.value(value)).collect::<Result<_, _>>()?;
                return self.deeper(|own| {
                    own.scopes.push(Scope::new());
                    for ((target, _), value) in bound.iter().zip(values) {
                        own.assign(target, value)?;
                    }
                    let flow = own.block(body)?;
                    own.scopes.pop();
                    Ok(flow)
                });
            }
            StatementKind::Macro(definition) => {
                self.bind(&definition.name, Value::Macro(definition.clone()))?;
            }
            StatementKind::Do(value) => {
                self.value(value)?;
            }
            StatementKind::Group(body) => return self.deeper(|own| own.block(body)),
            StatementKind::Break => return Ok(Flow::Break),
            StatementKind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn repeated(&mut self, repeated: &For) -> Result<(), Error> {
        let mut items = self.value(&repeated.items)?.items(self.budget)?;
        if let Some(condition) = &repeated.condition {
            let mut kept = Vec::new();
            for item in items {
                self.scopes.push(Scope::new());
                self.assign(&repeated.target, item.clone())?;
                if self.value(condition)?.is_true() {
                    kept.push(item);
                }
                self.scopes.pop();
            }
            items = kept;
        }
        if items.is_empty() {
            self.block(&repeated.otherwise)?;
            return Ok(());
        }
        for (index, item) in items.iter().enumerate() {
            self.budget.steps(1)?;
            let neighbour =
                |at: Option<usize>| at.and_then(|at| items.get(at)).cloned().unwrap_or(Value::Undefined);
            let turn = Loop {
                index,
                length: items.len(),
                previous: neighbour(index.checked_sub(1)),
                next: neighbour(Some(index + 1)),
            };
            self.scopes.push(vec![("loop".into(), Value::Loop(Arc::new(turn)))]);
            self.assign(&repeated.target, item.clone())?;
            let flow = self.block(&repeated.body)?;
            self.scopes.pop();
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    fn bind(&mut self, name: &Name, value: Value) -> Result<(), Cause> {
        let Some(scope) = self.scopes.last_mut() else { return Ok(()) };
        self.budget.reading(scope.len() * 8)?;
        match scope.iter_mut().find(|(is, _)| is == name) {
            Some((_, is)) => *is = value,
            None => {
                self.budget.values(1)?;
                scope.push((name.clone(), value));
            }
        }
        Ok(())
    }

    fn assign(&mut self, target: &Target, value: Value) -> Result<(), Cause> {
        match target {
            Target::Name(name) => self.bind(name, value),
            Target::Names(names) => {
                let parts = value.items(self.budget)?;
                if parts.len() != names.len() {
                    let (found, expected) = (parts.len(), names.len());
                    return Err(Cause::Failed(format!("{found} values for {expected} names")));
                }
                names.iter().zip(parts).try_for_each(|(name, part)| self.bind(name, part))
            }
            Target::Attribute(name, attribute) => match self.variable(name)? {
                Value::Namespace(namespace) => namespace.set(attribute, value, self.budget),
                other => {
                    let (name, kind) = (shortened(name), other.kind());
                    Err(Cause::Failed(format!("`{name}` is {kind}, expected a namespace")))
                }
            },
        }
    }

    fn variable(&self, name: &str) -> Result<Value, Cause> {
        for scope in self.scopes.iter().rev() {
            self.budget.reading(scope.len() * 8)?;
            if let Some((_, value)) = scope.iter().find(|(is, _)| **is == *name) {
                return Ok(value.clone());
            }
        }
        Ok(Function::named(name).map_or(Value::Undefined, Value::Function))
    }

    fn value(&mut self, expression: &Expression) -> Result<Value, Error> {
        self.budget.steps(1)?;
        match expression {
            Expression::Constant(value) => Ok(value.clone()),
            Expression::Variable(name) => Ok(self.variable(name)?),
            composed => self.deeper(|own| own.composed(composed)),
        }
    }

    fn values(&mut self, expressions: &[Expression]) -> Result<Vec<Value>, Error> {
        self.budget.values(expressions.len())?;
        expressions.iter().map(|expression| self.value(expression)).collect()
    }

    fn composed(&mut self, expression: &Expression) -> Result<Value, Error> {
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
                other => Err(Cause::Failed(format!("`+` before {}", other.kind())).into()),
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
            Expression::Postfix(base, behind) => self.postfix(base, behind),
        }
    }

    fn chain(&mut self, first: &Expression, rest: &[(Operator, Expression)]) -> Result<Value, Error> {
        let mut value = self.value(first)?;
        // Texts that are put together one after another are copied once.
        let mut together: Option<Writer<'b>> = None;
        for (operator, operand) in rest {
            let operand = self.value(operand)?;
            let is_text = together.is_some() || matches!(value, Value::Text(_));
            if is_text && *operator == Operator::Add && matches!(operand, Value::Text(_)) {
                let budget = self.budget;
                if together.is_none() {
                    together.insert(Writer::new(budget)).string(&value)?;
                }
                if let Some(together) = &mut together {
                    together.string(&operand)?;
                }
                continue;
            }
            if let Some(together) = together.take() {
                value = together.value();
            }
            value = operators::apply(*operator, &value, &operand, self.budget)?;
        }
        Ok(together.map_or(value, Writer::value))
    }

    /// The first value whose truth decides, or the last.
    fn until(&mut self, parts: &[Expression], decides: bool) -> Result<Value, Error> {
        let mut value = Value::Undefined;
        for part in parts {
            value = self.value(part)?;
            if value.is_true() == decides {
                break;
            }
        }
        Ok(value)
    }

    fn postfix(&mut self, base: &Expression, behind: &[Postfix]) -> Result<Value, Error> {
        let mut value = self.value(base)?;
        let mut name = match base {
            Expression::Variable(name) => Some(name),
            _ => None,
        };
        let mut behind = behind.iter().peekable();
        while let Some(postfix) = behind.next() {
            self.budget.steps(1)?;
            if matches!(value, Value::Undefined) && !matches!(postfix, Postfix::Filter(_) | Postfix::Test(..))
            {
                let name = name.map_or("a value", |name| shortened(name));
                let message = match postfix {
                    Postfix::Call(_) => format!(
                        "function `{name}` is not allowed in chat templates; allowed: {}",
                        functions::ALLOWED
                    ),
                    _ => format!("`{name}` is undefined, and nothing can be asked of it"),
                };
                return Err(Cause::Failed(message).into());
            }
            value = match postfix {
                Postfix::Attribute(attribute) => match behind.peek() {
                    Some(Postfix::Call(arguments)) => {
                        behind.next();
                        self.method(&value, attribute, arguments)?
                    }
                    _ => {
                        name = Some(attribute);
                        self.attribute(&value, attribute)?
                    }
                },
                Postfix::Item(key) => {
                    let key = self.value(key)?;
                    self.item(&value, &key)?
                }
                Postfix::Slice(start, stop, step) => {
                    let mut bounds = [None; 3];
                    for (bound, expression) in bounds.iter_mut().zip([start, stop, step]) {
                        let Some(expression) = expression else { continue };
                        *bound = match self.value(expression)? {
                            Value::None => None,
                            value => Some(value.integer().ok_or_else(|| {
                                Cause::Failed(format!("{} in a slice, expected an integer", value.kind()))
                            })?),
                        };
                    }
                    methods::slice(&value, bounds, self.budget)?
                }
                Postfix::Call(arguments) => {
                    let given = self.given(arguments)?;
                    self.call(&value, given)?
                }
                Postfix::Filter(filter) => self.filter(&value, filter)?,
                Postfix::Test(test, is_negated) => {
                    let given = self.given(&test.arguments)?;
                    let holds = tests::holds(&test.name, &value, &given, self.budget)
                        .map_err(|cause| cause.at(|| format!("test `{}`", shortened(&test.name))))?;
                    Value::Boolean(holds != *is_negated)
                }
            };
        }
        Ok(value)
    }

    fn given(&mut self, arguments: &Arguments) -> Result<Given, Error> {
        let positional = self.values(&arguments.positional)?;
        self.budget.values(arguments.named.len())?;
        let named = arguments.named.iter().map(|(name, value)| Ok((name.clone(), self.value(value)?)));
        Ok(Given { positional, named: named.collect::<Result<_, Error>>()? })
    }

    fn filter(&mut self, value: &Value, filter: &Call) -> Result<Value, Error> {
        let given = self.given(&filter.arguments)?;
        let filtered = filters::apply(&filter.name, value, &given, self.budget);
        Ok(filtered.map_err(|cause| cause.at(|| format!("filter `{}`", shortened(&filter.name))))?)
    }

    fn filtered(&mut self, value: Value, filters: &[Call]) -> Result<Value, Error> {
        filters.iter().try_fold(value, |value, filter| self.filter(&value, filter))
    }

    fn attribute(&self, value: &Value, name: &Name) -> Result<Value, Cause> {
        Ok(match value {
            Value::Map(map) => map.named(name, self.budget)?,
            Value::Namespace(namespace) => namespace.get(name),
            Value::Loop(turn) => methods::loop_attribute(turn, name),
            _ => None,
        }
        .unwrap_or(Value::Undefined))
    }

    fn item(&self, value: &Value, key: &Value) -> Result<Value, Cause> {
        Ok(match (value, key) {
            (Value::Map(map), key) => map.get(key, self.budget)?,
            (Value::List(list), key) => key
                .integer()
                .and_then(|index| list.items.get(methods::place(index, list.items.len())?).cloned()),
            (Value::Text(text), key) => {
                self.budget.reading(text.len())?;
                key.integer().and_then(|index| {
                    let place = methods::place(index, text.chars().count())?;
                    let character = text.chars().nth(place)?;
                    Some(Value::from(&*character.encode_utf8(&mut [0; 4])))
                })
            }
            (value, Value::Text(name)) => Some(self.attribute(value, name)?),
            _ => None,
        }
        .unwrap_or(Value::Undefined))
    }

    fn method(&mut self, value: &Value, name: &Name, arguments: &Arguments) -> Result<Value, Error> {
        let given = self.given(arguments)?;
        if let Value::Namespace(namespace) = value {
            let function = namespace.get(name).unwrap_or(Value::Undefined);
            return self.call(&function, given);
        }
        let result = methods::call(value, name, &given, self.budget);
        Ok(result.map_err(|cause| cause.at(|| format!("method `{}`", shortened(name))))?)
    }

    fn call(&mut self, function: &Value, given: Given) -> Result<Value, Error> {
        match function {
            Value::Macro(definition) => self.deeper(|own| own.expand(definition, given)),
            Value::Function(function) => {
                let result = functions::call(*function, &given, self.budget);
                Ok(result.map_err(|cause| cause.at(|| format!("function `{}`", function.name())))?)
            }
            other => {
                Err(Cause::Failed(format!("{} is called, expected a macro or a function", other.kind()))
                    .into())
            }
        }
    }

    /// What a macro writes. It sees the template's own names and its parameters.
    fn expand(&mut self, definition: &Macro, given: Given) -> Result<Value, Error> {
        let name = shortened(&definition.name);
        let Given { positional, mut named } = given;
        if positional.len() > definition.parameters.len() {
            let (found, most) = (positional.len(), definition.parameters.len());
            return Err(Cause::Failed(format!(
                "macro `{name}` is given {found} values, expected at most {most}"
            ))
            .into());
        }
        let hidden = self.scopes.split_off(1);
        self.scopes.push(Scope::new());
        let mut positional = positional.into_iter();
        for (parameter, default) in &definition.parameters {
            let value = match (positional.next(), named.iter().position(|(is, _)| is == parameter)) {
                (Some(value), None) => value,
                (None, Some(at)) => named.swap_remove(at).1,
                (None, None) => match default {
                    Some(default) => self.value(default)?,
                    None => Value::Undefined,
                },
                (Some(_), Some(_)) => {
                    let parameter = shortened(parameter);
                    return Err(Cause::Failed(format!("macro `{name}` is given `{parameter}` twice")).into());
                }
            };
            self.bind(parameter, value)?;
        }
        if let Some((unknown, _)) = named.first() {
            let unknown = shortened(unknown);
            return Err(Cause::Failed(format!("macro `{name}` has no parameter `{unknown}`")).into());
        }
        self.outputs.push(String::new());
        self.block(&definition.body)?;
        self.scopes.truncate(1);
        self.scopes.extend(hidden);
        Ok(Value::from(self.outputs.pop().unwrap_or_default()))
    }
}
