//! Attributes, items, filters, tests and calls.

use super::{Interpreter, Scope};
use crate::language::jinja::arguments::Args;
use crate::language::jinja::error::{Cause, Error, shortened};
use crate::language::jinja::syntax::{Arguments, Call, Expression, Macro, Name, Postfix};
use crate::language::jinja::value::Value;
use crate::language::jinja::{filters, functions, methods, tests};

impl Interpreter<'_> {
    pub(super) fn postfix(&mut self, base: &Expression, postfixes: &[Postfix]) -> Result<Value, Error> {
        let mut value = self.value(base)?;
        let mut name = match base {
            Expression::Variable(name) => Some(name),
            _ => None,
        };
        let mut postfixes = postfixes.iter().peekable();
        while let Some(postfix) = postfixes.next() {
            self.budget.steps(1)?;
            if matches!(value, Value::Undefined) && !matches!(postfix, Postfix::Filter(_) | Postfix::Test(..))
            {
                let name = name.map_or("a value", |name| shortened(name));
                let message = match postfix {
                    Postfix::Call(_) => format!(
                        "function `{name}` is not allowed in chat templates; allowed: {}",
                        functions::ALLOWED
                    ),
                    _ => format!("`{name}` is undefined and has no attributes"),
                };
                return Err(Cause::Failed(message).into());
            }
            value = match postfix {
                Postfix::Attribute(attribute) => match postfixes.peek() {
                    Some(Postfix::Call(arguments)) => {
                        postfixes.next();
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
                    let args = self.args(arguments)?;
                    self.call(&value, args)?
                }
                Postfix::Filter(filter) => self.filter(&value, filter)?,
                Postfix::Test(test, is_negated) => {
                    let args = self.args(&test.arguments)?;
                    let holds = tests::holds(&test.name, &value, &args, self.budget)
                        .map_err(|cause| cause.at(|| format!("test `{}`", shortened(&test.name))))?;
                    Value::Boolean(holds != *is_negated)
                }
            };
        }
        Ok(value)
    }

    pub(super) fn args(&mut self, arguments: &Arguments) -> Result<Args, Error> {
        let positional = self.values(&arguments.positional)?;
        self.budget.values(arguments.named.len())?;
        let named = arguments.named.iter().map(|(name, value)| Ok((name.clone(), self.value(value)?)));
        Ok(Args { positional, named: named.collect::<Result<_, Error>>()? })
    }

    pub(super) fn filter(&mut self, value: &Value, filter: &Call) -> Result<Value, Error> {
        let args = self.args(&filter.arguments)?;
        let filtered = filters::apply(&filter.name, value, &args, self.budget);
        Ok(filtered.map_err(|cause| cause.at(|| format!("filter `{}`", shortened(&filter.name))))?)
    }

    pub(super) fn filtered(&mut self, value: Value, filters: &[Call]) -> Result<Value, Error> {
        filters.iter().try_fold(value, |value, filter| self.filter(&value, filter))
    }

    pub(super) fn attribute(&self, value: &Value, name: &Name) -> Result<Value, Cause> {
        Ok(match value {
            Value::Map(map) => map.named(name, self.budget)?,
            Value::Namespace(namespace) => namespace.get(name),
            Value::Loop(iteration) => methods::loop_attribute(iteration, name),
            _ => None,
        }
        .unwrap_or(Value::Undefined))
    }

    pub(super) fn item(&self, value: &Value, key: &Value) -> Result<Value, Cause> {
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

    pub(super) fn method(
        &mut self,
        value: &Value,
        name: &Name,
        arguments: &Arguments,
    ) -> Result<Value, Error> {
        let args = self.args(arguments)?;
        if let Value::Namespace(namespace) = value {
            let function = namespace.get(name).unwrap_or(Value::Undefined);
            return self.call(&function, args);
        }
        let result = methods::call(value, name, &args, self.budget);
        Ok(result.map_err(|cause| cause.at(|| format!("method `{}`", shortened(name))))?)
    }

    pub(super) fn call(&mut self, function: &Value, args: Args) -> Result<Value, Error> {
        match function {
            Value::Macro(definition) => self.deeper(|interpreter| interpreter.expand(definition, args)),
            Value::Function(function) => {
                let result = functions::call(*function, &args, self.now, self.budget);
                Ok(result.map_err(|cause| cause.at(|| format!("function `{}`", function.name())))?)
            }
            other => {
                Err(Cause::Failed(format!("{} is called, expected a macro or a function", other.kind()))
                    .into())
            }
        }
    }

    /// Calls a macro, and returns its text. It sees the template's own scope and its parameters.
    pub(super) fn expand(&mut self, definition: &Macro, args: Args) -> Result<Value, Error> {
        let name = shortened(&definition.name);
        let Args { positional, mut named } = args;
        if positional.len() > definition.parameters.len() {
            let (found, max) = (positional.len(), definition.parameters.len());
            return Err(Cause::Failed(format!(
                "macro `{name}` is given {found} values, expected at most {max}"
            ))
            .into());
        }
        let hidden = self.scopes.split_off(1);
        self.scopes.push(Scope::new());
        let mut positional = positional.into_iter();
        for (parameter, default) in &definition.parameters {
            let value = match (positional.next(), named.iter().position(|(entry, _)| entry == parameter)) {
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
