//! Filters.

mod attribute;
mod order;
mod writing;

use super::arguments::Args;
use super::budget::Budget;
use super::error::{Cause, shortened};
use super::syntax::Operator;
use super::text::written;
use super::value::Value;
use super::{methods, operators, tests};
use attribute::attribute_of;
use order::{dictsort, extreme, sort, unique};
use writing::{indent, join, json};

pub(super) fn apply(name: &str, value: &Value, args: &Args, budget: &Budget) -> Result<Value, Cause> {
    match name {
        "abs" => absolute(value, args),
        "capitalize" | "lower" | "title" | "upper" => {
            methods::call(&Value::from(written(value, budget)?), name, args, budget)
        }
        "count" | "length" => {
            args.only(&[])?;
            length(value, budget)
        }
        "d" | "default" => {
            args.only(&["default_value", "boolean"])?;
            let is_missing = match value {
                Value::Undefined => true,
                value => args.is_true(1, "boolean") && !value.is_true(),
            };
            let empty = || Value::from("");
            Ok(if is_missing {
                args.get(0, "default_value").cloned().unwrap_or_else(empty)
            } else {
                value.clone()
            })
        }
        "dictsort" => dictsort(value, args, budget),
        "first" | "last" => {
            args.only(&[])?;
            let items = value.items(budget)?;
            let item = if name == "first" { items.first() } else { items.last() };
            Ok(item.cloned().unwrap_or(Value::Undefined))
        }
        "float" => {
            args.only(&["default"])?;
            let parsed = || value.text().and_then(|text| text.trim().parse().ok());
            let default = || args.get(0, "default").and_then(Value::float);
            Ok(Value::Float(value.float().or_else(parsed).or_else(default).unwrap_or(0.0)))
        }
        "indent" => indent(value, args, budget),
        "int" => integer(value, args, budget),
        "items" => {
            args.only(&[])?;
            if matches!(value, Value::Undefined) {
                return Value::list(Vec::new());
            }
            methods::call(value, "items", args, budget)
        }
        "join" => join(value, args, budget),
        "list" => {
            args.only(&[])?;
            Value::list(value.items(budget)?)
        }
        "map" => map(value, args, budget),
        "max" | "min" => extreme(name, value, args, budget),
        "reject" | "rejectattr" | "select" | "selectattr" => select(name, value, args, budget),
        "replace" => methods::call(&Value::from(written(value, budget)?), name, args, budget),
        "reverse" => {
            args.only(&[])?;
            methods::slice(value, [None, None, Some(-1)], budget)
        }
        "round" => round(value, args),
        "safe" => Ok(value.clone()),
        "sort" => sort(value, args, budget),
        "split" => methods::call(value, name, args, budget),
        "string" => {
            args.only(&[])?;
            Ok(match value {
                Value::Text(_) => value.clone(),
                value => Value::from(written(value, budget)?),
            })
        }
        "sum" => {
            args.only(&["attribute", "start"])?;
            let start = args.get(1, "start").cloned().unwrap_or(Value::Integer(0));
            value.items(budget)?.into_iter().try_fold(start, |sum, item| {
                let item = match args.get(0, "attribute") {
                    Some(attribute) => attribute_of(&item, attribute, budget)?,
                    None => item,
                };
                operators::apply(Operator::Add, &sum, &item, budget)
            })
        }
        "tojson" => json(value, args, budget),
        "trim" => methods::call(&Value::from(written(value, budget)?), "strip", args, budget),
        "unique" => unique(value, args, budget),
        _ => {
            let name = shortened(name);
            Err(Cause::Failed(format!("`{name}` is not allowed in chat templates; allowed: {ALLOWED}")))
        }
    }
}

/// Names of all filters, for messages.
const ALLOWED: &str = "abs, capitalize, count, default, dictsort, first, float, indent, int, items, join, last, length, \
                       list, lower, map, max, min, reject, rejectattr, replace, reverse, round, safe, select, selectattr, \
                       sort, split, string, sum, title, tojson, trim, unique, upper";

pub(super) fn length(value: &Value, budget: &Budget) -> Result<Value, Cause> {
    let length = match value {
        Value::Undefined => 0,
        Value::Text(text) => {
            budget.reading(text.len())?;
            text.chars().count()
        }
        Value::List(list) => list.items.len(),
        Value::Map(map) => map.entries.len(),
        other => return Err(Cause::Failed(format!("{} has no length", other.kind()))),
    };
    Ok(Value::Integer(length as i64))
}

fn absolute(value: &Value, args: &Args) -> Result<Value, Cause> {
    args.only(&[])?;
    match value {
        Value::Float(number) => Ok(Value::Float(number.abs())),
        other => (other.integer().and_then(i64::checked_abs).map(Value::Integer))
            .ok_or_else(|| Cause::Failed(format!("{}, expected a number", other.kind()))),
    }
}

fn integer(value: &Value, args: &Args, budget: &Budget) -> Result<Value, Cause> {
    args.only(&["default", "base"])?;
    let base = args.integer(1, "base")?.unwrap_or(10);
    let Some(base) = u32::try_from(base).ok().filter(|base| (2..=36).contains(base)) else {
        return Err(Cause::Failed(format!("base {base}, expected 2 to 36")));
    };
    let parsed = match value {
        Value::Float(number) if number.is_finite() => Some(*number as i64),
        Value::Text(text) => {
            budget.reading(text.len())?;
            let text = text.trim();
            i64::from_str_radix(text, base)
                .ok()
                .or_else(|| text.parse::<f64>().ok().map(|number| number as i64))
        }
        other => other.integer(),
    };
    Ok(Value::Integer(parsed.or(args.integer(0, "default")?).unwrap_or(0)))
}

fn round(value: &Value, args: &Args) -> Result<Value, Cause> {
    args.only(&["precision", "method"])?;
    let number =
        value.float().ok_or_else(|| Cause::Failed(format!("{}, expected a number", value.kind())))?;
    let precision = args.integer(0, "precision")?.unwrap_or(0).clamp(-300, 300) as i32;
    let scale = 10_f64.powi(precision);
    let scaled = number * scale;
    let rounded = match args.text(1, "method")?.unwrap_or("common") {
        "ceil" => scaled.ceil(),
        "floor" => scaled.floor(),
        _ => scaled.round_ties_even(),
    };
    Ok(Value::Float(if scaled.is_finite() { rounded / scale } else { number }))
}

/// The items of a value that is true, as in Jinja2; others have none.
fn items(value: &Value, budget: &Budget) -> Result<Vec<Value>, Cause> {
    if value.is_true() { value.items(budget) } else { Ok(Vec::new()) }
}

fn map(value: &Value, args: &Args, budget: &Budget) -> Result<Value, Cause> {
    let items = items(value, budget)?;
    budget.values(items.len())?;
    let named = |name: &str| args.named.iter().find(|(entry, _)| **entry == *name).map(|(_, value)| value);
    if let Some(attribute) = named("attribute") {
        let of = |item: Value| match (attribute_of(&item, attribute, budget)?, named("default")) {
            (Value::Undefined, Some(default)) => Ok(default.clone()),
            (value, _) => Ok(value),
        };
        return Value::list(items.into_iter().map(of).collect::<Result<_, Cause>>()?);
    }
    let filter = args.need(0, "filter")?;
    let filter = filter.text().ok_or_else(|| Cause::failed("the name of the filter is not a string"))?;
    if filter == "map" {
        return Err(Cause::failed("`map` within `map` is not allowed in chat templates"));
    }
    let rest = rest(args, 1, budget)?;
    let of = |item: Value| apply(filter, &item, &rest, budget);
    Value::list(items.into_iter().map(of).collect::<Result<_, Cause>>()?)
}

/// The arguments after the first `first`.
fn rest(args: &Args, first: usize, budget: &Budget) -> Result<Args, Cause> {
    budget.values(args.positional.len() + args.named.len())?;
    let positional = args.positional.get(first..).unwrap_or_default().to_vec();
    Ok(Args { positional, named: args.named.clone() })
}

fn select(name: &str, value: &Value, args: &Args, budget: &Budget) -> Result<Value, Cause> {
    let (of_attribute, keeps) = (name.ends_with("attr"), name.starts_with("select"));
    let first = usize::from(of_attribute);
    let test = args.positional.get(first);
    let test = match test {
        None => None,
        Some(test) => Some(test.text().ok_or_else(|| Cause::failed("the name of the test is not a string"))?),
    };
    let rest = rest(args, first + 1, budget)?;
    let mut selected = Vec::new();
    for item in items(value, budget)? {
        let tested = if of_attribute {
            attribute_of(&item, args.need(0, "attribute")?, budget)?
        } else {
            item.clone()
        };
        let holds = match test {
            None => tested.is_true(),
            Some(test) => tests::holds(test, &tested, &rest, budget)?,
        };
        if holds == keeps {
            selected.push(item);
        }
    }
    Value::list(selected)
}
