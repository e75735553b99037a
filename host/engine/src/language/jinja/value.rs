//! Values: the subset of Python's that chats need.
//!
//! Lists and maps are immutable and store their depth, so that none is too deep to be traversed or
//! dropped. A namespace is mutable, but cannot be part of another value, so that no value contains
//! itself.

use std::sync::{Arc, Mutex, PoisonError};

use super::budget::Budget;
use super::error::Cause;
use super::syntax::{Literal, Macro, Name};
use crate::limits::MAX_VALUE_DEPTH;

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// A variable or attribute that does not exist.
    Undefined,
    None,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(Arc<str>),
    List(Arc<List>),
    Map(Arc<Map>),
    Namespace(Arc<Namespace>),
    Loop(Arc<Loop>),
    Macro(Arc<Macro>),
    Function(Function),
}

/// A list, or a tuple.
#[derive(Debug)]
pub(crate) struct List {
    pub(super) items: Vec<Value>,
    pub(super) is_tuple: bool,
    depth: u16,
}

/// Keys and values in insertion order.
#[derive(Debug)]
pub(crate) struct Map {
    pub(super) entries: Vec<(Value, Value)>,
    depth: u16,
}

/// The result of `namespace()`: attributes that can be set.
#[derive(Debug)]
pub(crate) struct Namespace {
    attributes: Mutex<Vec<(Name, Value)>>,
}

/// The variable `loop` of one iteration.
#[derive(Debug)]
pub(crate) struct Loop {
    pub(super) index: usize,
    pub(super) length: usize,
    pub(super) previous: Value,
    pub(super) next: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    RaiseException,
    StrftimeNow,
    Namespace,
    Range,
    Dict,
}

impl Function {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "raise_exception" => Function::RaiseException,
            "strftime_now" => Function::StrftimeNow,
            "namespace" => Function::Namespace,
            "range" => Function::Range,
            "dict" => Function::Dict,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Function::RaiseException => "raise_exception",
            Function::StrftimeNow => "strftime_now",
            Function::Namespace => "namespace",
            Function::Range => "range",
            Function::Dict => "dict",
        }
    }
}

impl From<&Literal> for Value {
    fn from(literal: &Literal) -> Self {
        match literal {
            Literal::None => Value::None,
            Literal::Boolean(value) => Value::Boolean(*value),
            Literal::Integer(number) => Value::Integer(*number),
            Literal::Float(number) => Value::Float(*number),
            Literal::Text(text) => Value::Text(text.clone()),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text.into())
    }
}

impl Value {
    /// A list whose memory is already charged.
    pub(crate) fn list(items: Vec<Value>) -> Result<Self, Cause> {
        let depth = depth(items.iter())?;
        Ok(Value::List(Arc::new(List { items, is_tuple: false, depth })))
    }

    pub(super) fn tuple(items: Vec<Value>) -> Result<Self, Cause> {
        let depth = depth(items.iter())?;
        Ok(Value::List(Arc::new(List { items, is_tuple: true, depth })))
    }

    /// A map of these entries. A later entry replaces an earlier one with an equal key.
    pub(super) fn map(entries: Vec<(Value, Value)>, budget: &Budget) -> Result<Self, Cause> {
        let mut unique: Vec<(Value, Value)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            if !matches!(
                key,
                Value::None | Value::Boolean(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_)
            ) {
                return Err(Cause::Failed(format!(
                    "map key is {}, expected a string or a number",
                    key.kind()
                )));
            }
            let mut place = None;
            for (at, (entry, _)) in unique.iter().enumerate() {
                if entry.equals(&key, budget)? {
                    place = Some(at);
                    break;
                }
            }
            match place {
                Some(at) => unique[at].1 = value,
                None => unique.push((key, value)),
            }
        }
        Value::distinct(unique)
    }

    /// A map of entries with distinct keys.
    pub(crate) fn distinct(entries: Vec<(Value, Value)>) -> Result<Self, Cause> {
        let depth = depth(entries.iter().map(|(_, value)| value))?;
        Ok(Value::Map(Arc::new(Map { entries, depth })))
    }

    pub(super) fn namespace(attributes: Vec<(Name, Value)>) -> Result<Self, Cause> {
        depth(attributes.iter().map(|(_, value)| value))?;
        Ok(Value::Namespace(Arc::new(Namespace { attributes: Mutex::new(attributes) })))
    }

    /// Name of the type for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Undefined => "undefined",
            Value::None => "none",
            Value::Boolean(_) => "a boolean",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Text(_) => "a string",
            Value::List(list) if list.is_tuple => "a tuple",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
            Value::Namespace(_) => "a namespace",
            Value::Loop(_) => "a loop",
            Value::Macro(_) => "a macro",
            Value::Function(_) => "a function",
        }
    }

    pub(super) fn is_true(&self) -> bool {
        match self {
            Value::Undefined | Value::None => false,
            Value::Boolean(value) => *value,
            Value::Integer(number) => *number != 0,
            Value::Float(number) => *number != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::List(list) => !list.items.is_empty(),
            Value::Map(map) => !map.entries.is_empty(),
            Value::Namespace(_) | Value::Loop(_) | Value::Macro(_) | Value::Function(_) => true,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value as an integer; a boolean is 0 or 1.
    pub(super) fn integer(&self) -> Option<i64> {
        match *self {
            Value::Integer(number) => Some(number),
            Value::Boolean(value) => Some(i64::from(value)),
            _ => None,
        }
    }

    pub(super) fn float(&self) -> Option<f64> {
        match *self {
            Value::Float(number) => Some(number),
            _ => self.integer().map(|number| number as f64),
        }
    }

    /// Compares with Python's `==`.
    pub(super) fn equals(&self, other: &Value, budget: &Budget) -> Result<bool, Cause> {
        budget.steps(1)?;
        Ok(match (self, other) {
            (Value::Undefined, Value::Undefined) | (Value::None, Value::None) => true,
            (Value::Text(one), Value::Text(other)) => {
                budget.reading(one.len().min(other.len()))?;
                one == other
            }
            (Value::List(one), Value::List(other)) => {
                if one.is_tuple != other.is_tuple || one.items.len() != other.items.len() {
                    return Ok(false);
                }
                for (one, other) in one.items.iter().zip(&other.items) {
                    if !one.equals(other, budget)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Map(one), Value::Map(other)) => {
                if one.entries.len() != other.entries.len() {
                    return Ok(false);
                }
                for (key, value) in &one.entries {
                    match other.get(key, budget)? {
                        Some(found) if value.equals(&found, budget)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            (Value::Namespace(one), Value::Namespace(other)) => Arc::ptr_eq(one, other),
            (Value::Macro(one), Value::Macro(other)) => Arc::ptr_eq(one, other),
            (Value::Function(one), Value::Function(other)) => one == other,
            (one, other) => match (one.integer(), other.integer()) {
                (Some(one), Some(other)) => one == other,
                _ => one.float().is_some_and(|one| other.float() == Some(one)),
            },
        })
    }

    /// The items of an iteration over the value, charged to the budget.
    pub(super) fn items(&self, budget: &Budget) -> Result<Vec<Value>, Cause> {
        match self {
            Value::Undefined => Ok(Vec::new()),
            Value::List(list) => {
                budget.values(list.items.len())?;
                Ok(list.items.clone())
            }
            Value::Map(map) => {
                budget.values(map.entries.len())?;
                Ok(map.entries.iter().map(|(key, _)| key.clone()).collect())
            }
            Value::Text(text) => {
                let mut items = Vec::new();
                for character in text.chars() {
                    budget.values(1)?;
                    items.push(Value::from(&*character.encode_utf8(&mut [0; 4])));
                }
                Ok(items)
            }
            other => Err(Cause::Failed(format!("{} has no items, expected a list", other.kind()))),
        }
    }
}

impl Map {
    pub(super) fn get(&self, key: &Value, budget: &Budget) -> Result<Option<Value>, Cause> {
        budget.steps(self.entries.len() / 8)?;
        for (entry, value) in &self.entries {
            let is_key = match (entry, key) {
                // Most keys differ in length; these comparisons are free.
                (Value::Text(entry), Value::Text(key)) if entry.len() != key.len() => false,
                (entry, key) => entry.equals(key, budget)?,
            };
            if is_key {
                return Ok(Some(value.clone()));
            }
        }
        Ok(None)
    }

    pub(super) fn named(&self, name: &str, budget: &Budget) -> Result<Option<Value>, Cause> {
        budget.reading(self.entries.len() * 8)?;
        let entry = self.entries.iter().find(|(key, _)| key.text() == Some(name));
        Ok(entry.map(|(_, value)| value.clone()))
    }
}

impl Namespace {
    pub(super) fn get(&self, name: &str) -> Option<Value> {
        let attributes = self.attributes.lock().unwrap_or_else(PoisonError::into_inner);
        attributes.iter().find(|(entry, _)| **entry == *name).map(|(_, value)| value.clone())
    }

    pub(super) fn set(&self, name: &Name, value: Value, budget: &Budget) -> Result<(), Cause> {
        depth([&value])?;
        let mut attributes = self.attributes.lock().unwrap_or_else(PoisonError::into_inner);
        budget.reading(attributes.len() * 8)?;
        match attributes.iter_mut().find(|(entry, _)| entry == name) {
            Some((_, entry)) => *entry = value,
            None => {
                budget.values(1)?;
                attributes.push((name.clone(), value));
            }
        }
        Ok(())
    }
}

/// Depth of a list of these values.
fn depth<'v>(items: impl IntoIterator<Item = &'v Value>) -> Result<u16, Cause> {
    let mut max = 0;
    for item in items {
        let depth = match item {
            Value::List(list) => list.depth,
            Value::Map(map) => map.depth,
            Value::Namespace(_) | Value::Loop(_) => {
                return Err(Cause::Failed(format!("{} cannot be part of another value", item.kind())));
            }
            _ => 0,
        };
        max = max.max(depth);
    }
    if max >= MAX_VALUE_DEPTH {
        return Err(Cause::Failed(format!("lists are nested more than {MAX_VALUE_DEPTH} deep")));
    }
    Ok(max + 1)
}
