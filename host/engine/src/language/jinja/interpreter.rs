//! An interpreter of the syntax tree.

mod calls;
mod expressions;
mod statements;

use super::budget::Budget;
use super::error::{Cause, Error};
use super::syntax::{Block, Name};
use super::value::{Function, Value};
use crate::limits::MAX_CALL_DEPTH;

/// Variables of a block.
type Scope = Vec<(Name, Value)>;

/// Control flow after a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

pub(super) struct Interpreter<'b> {
    budget: &'b Budget,
    /// The template's own scope first, then the scopes of the enclosing blocks.
    scopes: Vec<Scope>,
    /// The output of the template, then those of the enclosing blocks that capture their text.
    outputs: Vec<String>,
    max_output: usize,
    /// The time, in seconds after 1970 in UTC.
    now: i64,
    depth: usize,
}

impl<'b> Interpreter<'b> {
    pub(super) fn new(
        budget: &'b Budget,
        variables: Vec<(&str, Value)>,
        now: i64,
        max_output: usize,
    ) -> Self {
        let scope = variables.into_iter().map(|(name, value)| (name.into(), value)).collect();
        Interpreter { budget, scopes: vec![scope], outputs: vec![String::new()], max_output, now, depth: 0 }
    }

    pub(super) fn run(mut self, body: &Block) -> Result<String, Error> {
        self.block(body)?;
        Ok(self.outputs.swap_remove(0))
    }

    /// Runs a block in a new scope.
    fn scoped(&mut self, scope: Scope, body: &Block) -> Result<Flow, Error> {
        self.scopes.push(scope);
        let flow = self.block(body)?;
        self.scopes.pop();
        Ok(flow)
    }

    /// Runs a block, and returns its text.
    fn captured(&mut self, body: &Block) -> Result<Value, Error> {
        self.outputs.push(String::new());
        self.scoped(Scope::new(), body)?;
        Ok(Value::from(self.outputs.pop().unwrap_or_default()))
    }

    fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.depth += 1;
        if self.depth > MAX_CALL_DEPTH {
            return Err(Cause::Failed(format!(
                "macros and blocks are nested more than {MAX_CALL_DEPTH} deep"
            ))
            .into());
        }
        let result = run(self)?;
        self.depth -= 1;
        Ok(result)
    }

    fn write(&mut self, text: &str) -> Result<(), Cause> {
        self.budget.bytes(text.len())?;
        let is_last = self.outputs.len() == 1;
        if let Some(output) = self.outputs.last_mut() {
            if is_last && output.len() + text.len() > self.max_output {
                return Err(Cause::Unbounded(None));
            }
            output.push_str(text);
        }
        Ok(())
    }

    fn bind(&mut self, name: &Name, value: Value) -> Result<(), Cause> {
        let Some(scope) = self.scopes.last_mut() else { return Ok(()) };
        self.budget.reading(scope.len() * 8)?;
        match scope.iter_mut().find(|(entry, _)| entry == name) {
            Some((_, entry)) => *entry = value,
            None => {
                self.budget.values(1)?;
                scope.push((name.clone(), value));
            }
        }
        Ok(())
    }

    fn variable(&self, name: &str) -> Result<Value, Cause> {
        for scope in self.scopes.iter().rev() {
            self.budget.reading(scope.len() * 8)?;
            if let Some((_, value)) = scope.iter().find(|(entry, _)| **entry == *name) {
                return Ok(value.clone());
            }
        }
        Ok(Function::named(name).map_or(Value::Undefined, Value::Function))
    }
}
