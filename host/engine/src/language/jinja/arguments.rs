//! The arguments of a call, evaluated.

use super::error::{Cause, shortened};
use super::syntax::Name;
use super::value::Value;

/// The arguments of a call.
#[derive(Debug, Default)]
pub(super) struct Args {
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(Name, Value)>,
}

impl Args {
    /// An argument by its place or its name; none where it is not args.
    pub(super) fn get(&self, place: usize, name: &str) -> Option<&Value> {
        let named = || self.named.iter().find(|(is, _)| **is == *name).map(|(_, value)| value);
        self.positional.get(place).or_else(named)
    }

    /// An argument that must be there.
    pub(super) fn need(&self, place: usize, name: &str) -> Result<&Value, Cause> {
        self.get(place, name).ok_or_else(|| Cause::Failed(format!("argument `{name}` is missing")))
    }

    pub(super) fn text(&self, place: usize, name: &str) -> Result<Option<&str>, Cause> {
        match self.get(place, name) {
            None | Some(Value::None | Value::Undefined) => Ok(None),
            Some(value) => value.text().map(Some).ok_or_else(|| {
                Cause::Failed(format!("argument `{name}` is {}, expected a text", value.kind()))
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

    /// # Errors
    ///
    /// When there are arguments by no place and no name of these.
    pub(super) fn only(&self, names: &[&str]) -> Result<(), Cause> {
        let (found, most) = (self.positional.len(), names.len());
        if found > most {
            return Err(Cause::Failed(format!("{found} arguments, expected at most {most}")));
        }
        match self.named.iter().find(|(name, _)| !names.contains(&&**name)) {
            Some((unknown, _)) => Err(Cause::Failed(format!("no argument `{}`", shortened(unknown)))),
            None => Ok(()),
        }
    }
}
