//! Attributes that a filter looks up by name.

use crate::language::jinja::budget::Budget;
use crate::language::jinja::error::Cause;
use crate::language::jinja::value::Value;

/// Looks up a path of names and indices that are separated by dots.
pub(super) fn attribute_of(item: &Value, attribute: &Value, budget: &Budget) -> Result<Value, Cause> {
    let step = |value: &Value, name: &str| -> Result<Value, Cause> {
        budget.steps(1)?;
        Ok(match value {
            Value::Map(map) => map.named(name, budget)?,
            Value::List(list) => name.parse::<usize>().ok().and_then(|at| list.items.get(at).cloned()),
            Value::Namespace(namespace) => namespace.get(name),
            _ => None,
        }
        .unwrap_or(Value::Undefined))
    };
    match attribute {
        Value::Text(path) => path.split('.').try_fold(item.clone(), |value, name| step(&value, name)),
        Value::Integer(at) => step(item, &at.to_string()),
        other => Err(Cause::Failed(format!("attribute is {}, expected a name or an index", other.kind()))),
    }
}
