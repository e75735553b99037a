//! Tests: the names that may follow `is`.

use super::arguments::Args;
use super::budget::Budget;
use super::error::{Cause, shortened};
use super::operators;
use super::syntax::Comparison;
use super::value::Value;

pub(super) fn holds(name: &str, value: &Value, args: &Args, budget: &Budget) -> Result<bool, Cause> {
    let comparison = match name {
        "==" | "eq" | "equalto" => Some(Comparison::Equal),
        "!=" | "ne" => Some(Comparison::NotEqual),
        "<" | "lt" | "lessthan" => Some(Comparison::Less),
        "<=" | "le" => Some(Comparison::LessOrEqual),
        ">" | "gt" | "greaterthan" => Some(Comparison::Greater),
        ">=" | "ge" => Some(Comparison::GreaterOrEqual),
        "in" => Some(Comparison::In),
        _ => None,
    };
    if let Some(comparison) = comparison {
        args.only(&["other"])?;
        return operators::compare(comparison, value, args.need(0, "other")?, budget);
    }
    if name == "divisibleby" {
        args.only(&["num"])?;
        let divisor = args.need(0, "num")?.integer().filter(|&divisor| divisor != 0);
        let (Some(number), Some(divisor)) = (value.integer(), divisor) else {
            return Err(Cause::failed("value and divisor must be integers, and the divisor not 0"));
        };
        return Ok(number.checked_rem(divisor).unwrap_or(0) == 0);
    }
    if name == "sameas" {
        args.only(&["other"])?;
        let other = args.need(0, "other")?;
        return Ok(value.kind() == other.kind() && value.equals(other, budget)?);
    }
    args.only(&[])?;
    Ok(match name {
        "boolean" => matches!(value, Value::Boolean(_)),
        "callable" => matches!(value, Value::Macro(_) | Value::Function(_)),
        "defined" => !matches!(value, Value::Undefined),
        "even" => value.integer().is_some_and(|number| number % 2 == 0),
        "false" => matches!(value, Value::Boolean(false)),
        "float" => matches!(value, Value::Float(_)),
        "integer" => matches!(value, Value::Integer(_)),
        "iterable" => matches!(value, Value::Text(_) | Value::List(_) | Value::Map(_) | Value::Undefined),
        "lower" | "upper" => {
            let text = value.text().unwrap_or_default();
            budget.reading(text.len())?;
            let is_other = |character: char| {
                if name == "lower" { character.is_uppercase() } else { character.is_lowercase() }
            };
            text.chars().any(char::is_alphabetic) && !text.chars().any(is_other)
        }
        "mapping" => matches!(value, Value::Map(_)),
        "none" => matches!(value, Value::None),
        "number" => value.float().is_some(),
        "odd" => value.integer().is_some_and(|number| number % 2 != 0),
        // Python's strings and maps have a length and items too.
        "sequence" => matches!(value, Value::Text(_) | Value::List(_) | Value::Map(_) | Value::Undefined),
        "string" => matches!(value, Value::Text(_)),
        "true" => matches!(value, Value::Boolean(true)),
        "undefined" => matches!(value, Value::Undefined),
        _ => {
            let name = shortened(name);
            return Err(Cause::Failed(format!(
                "`{name}` is not allowed in chat templates; allowed: {ALLOWED}"
            )));
        }
    })
}

/// Names of all tests, for messages.
const ALLOWED: &str = "boolean, callable, defined, divisibleby, eq, even, false, float, ge, gt, in, integer, iterable, le, \
                       lower, lt, mapping, ne, none, number, odd, sameas, sequence, string, true, undefined, upper";
