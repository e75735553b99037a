//! The arguments of a call, evaluated.

use super::error::{Cause, shortened};
use super::syntax::Name;
use super::value::Value;

/// The evaluated arguments of a call.
#[derive(Debug, Default)]
pub(super) struct Args {
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(Name, Value)>,
}

impl Args {
    /// The argument at `place` or with `name`, if the call has it.
    pub(super) fn get(&self, place: usize, name: &str) -> Option<&Value> {
        let named = || self.named.iter().find(|(entry, _)| **entry == *name).map(|(_, value)| value);
        self.positional.get(place).or_else(named)
    }

    /// A required argument.
    pub(super) fn need(&self, place: usize, name: &str) -> Result<&Value, Cause> {
        self.get(place, name).ok_or_else(|| Cause::Failed(format!("argument `{name}` is missing")))
    }

    pub(super) fn text(&self, place: usize, name: &str) -> Result<Option<&str>, Cause> {
        match self.get(place, name) {
            None | Some(Value::None | Value::Undefined) => Ok(None),
            Some(value) => value.text().map(Some).ok_or_else(|| {
                Cause::Failed(format!("argument `{name}` is {}, expected a string", value.kind()))
            }),
        }
    }

    pub(super) fn integer(&self, place: usize, name: &str) -> Result<Option<i64>, Cause> {
        match self.get(place, name) {
            None | Some(Value::None | Value::Undefined) => Ok(None),
            Some(value) => value.integer().map(Some).ok_or_else(|| {
                Cause::Failed(format!("argument `{name}` is {}, expected an integer", value.kind()))
            }),
        }
    }

    pub(super) fn is_true(&self, place: usize, name: &str) -> bool {
        self.get(place, name).is_some_and(Value::is_true)
    }

    /// Checks that every argument has one of these names, or a place among them.
    ///
    /// # Errors
    ///
    /// If there are too many arguments, or one has another name.
    pub(super) fn only(&self, names: &[&str]) -> Result<(), Cause> {
        let (found, max) = (self.positional.len(), names.len());
        if found > max {
            return Err(Cause::Failed(format!("{found} arguments, expected at most {max}")));
        }
        match self.named.iter().find(|(name, _)| !names.contains(&&**name)) {
            Some((unknown, _)) => Err(Cause::Failed(format!("no argument `{}`", shortened(unknown)))),
            None => Ok(()),
        }
    }
}
