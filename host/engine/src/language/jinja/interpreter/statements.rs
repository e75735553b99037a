//! Execution of statements.

use std::sync::Arc;

use super::{Flow, Interpreter, Scope};
use crate::language::jinja::error::{Cause, Error, UNKNOWN_LINE, shortened};
use crate::language::jinja::syntax::{Block, For, Statement, StatementKind, Target};
use crate::language::jinja::text::Writer;
use crate::language::jinja::value::{Loop, Value};

impl Interpreter<'_> {
    pub(super) fn block(&mut self, body: &Block) -> Result<Flow, Error> {
        for statement in body {
            let flow = self.statement(statement).map_err(|mut error| {
                if error.line == UNKNOWN_LINE {
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

    pub(super) fn statement(&mut self, statement: &Statement) -> Result<Flow, Error> {
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
                        return self.deeper(|interpreter| interpreter.block(body));
                    }
                }
                return self.deeper(|interpreter| interpreter.block(otherwise));
            }
            StatementKind::For(for_loop) => self.deeper(|interpreter| interpreter.for_loop(for_loop))?,
            StatementKind::Set(target, value) => {
                let value = self.value(value)?;
                self.assign(target, value)?;
            }
            StatementKind::SetBlock(target, filters, body) => {
                let text = self.deeper(|interpreter| interpreter.captured(body))?;
                let value = self.filtered(text, filters)?;
                self.assign(target, value)?;
            }
            StatementKind::FilterBlock(filters, body) => {
                let text = self.deeper(|interpreter| interpreter.captured(body))?;
                let mut written = Writer::new(self.budget);
                written.string(&self.filtered(text, filters)?)?;
                self.write(&written.into_text())?;
            }
            StatementKind::With(bound, body) => {
                let values: Vec<Value> =
                    bound.iter().map(|(_, value)| self.value(value)).collect::<Result<_, _>>()?;
                return self.deeper(|interpreter| {
                    interpreter.scopes.push(Scope::new());
                    for ((target, _), value) in bound.iter().zip(values) {
                        interpreter.assign(target, value)?;
                    }
                    let flow = interpreter.block(body)?;
                    interpreter.scopes.pop();
                    Ok(flow)
                });
            }
            StatementKind::Macro(definition) => {
                self.bind(&definition.name, Value::Macro(definition.clone()))?;
            }
            StatementKind::Do(value) => {
                self.value(value)?;
            }
            StatementKind::Group(body) => return self.deeper(|interpreter| interpreter.block(body)),
            StatementKind::Break => return Ok(Flow::Break),
            StatementKind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    pub(super) fn for_loop(&mut self, for_loop: &For) -> Result<(), Error> {
        let mut items = self.value(&for_loop.items)?.items(self.budget)?;
        if let Some(condition) = &for_loop.condition {
            let mut selected = Vec::new();
            for item in items {
                self.scopes.push(Scope::new());
                self.assign(&for_loop.target, item.clone())?;
                if self.value(condition)?.is_true() {
                    selected.push(item);
                }
                self.scopes.pop();
            }
            items = selected;
        }
        if items.is_empty() {
            self.block(&for_loop.otherwise)?;
            return Ok(());
        }
        for (index, item) in items.iter().enumerate() {
            self.budget.steps(1)?;
            let neighbour =
                |at: Option<usize>| at.and_then(|at| items.get(at)).cloned().unwrap_or(Value::Undefined);
            let iteration = Loop {
                index,
                length: items.len(),
                previous: neighbour(index.checked_sub(1)),
                next: neighbour(Some(index + 1)),
            };
            self.scopes.push(vec![("loop".into(), Value::Loop(Arc::new(iteration)))]);
            self.assign(&for_loop.target, item.clone())?;
            let flow = self.block(&for_loop.body)?;
            self.scopes.pop();
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn assign(&mut self, target: &Target, value: Value) -> Result<(), Cause> {
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
}
