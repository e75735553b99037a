//! Operators, with the semantics of Python.

use std::cmp::Ordering;

use super::budget::Budget;
use super::error::Cause;
use super::syntax::{Comparison, Operator};
use super::text::Writer;
use super::value::Value;

pub(super) fn apply(
    operator: Operator,
    left: &Value,
    right: &Value,
    budget: &Budget,
) -> Result<Value, Cause> {
    match (operator, left, right) {
        (Operator::Concatenate, ..) => {
            let mut text = Writer::new(budget);
            text.string(left)?;
            text.string(right)?;
            Ok(text.value())
        }
        (Operator::Add, Value::List(one), Value::List(other)) if one.is_tuple == other.is_tuple => {
            budget.values(one.items.len() + other.items.len())?;
            let items = one.items.iter().chain(&other.items).cloned().collect();
            if one.is_tuple { Value::tuple(items) } else { Value::list(items) }
        }
        (Operator::Multiply, Value::Text(text), count) | (Operator::Multiply, count, Value::Text(text))
            if count.integer().is_some() =>
        {
            let mut repeated = Writer::new(budget);
            repeated.repeat(text, times(count))?;
            Ok(repeated.value())
        }
        (Operator::Multiply, Value::List(list), count) | (Operator::Multiply, count, Value::List(list))
            if count.integer().is_some() =>
        {
            let count = times(count);
            budget.values(list.items.len().saturating_mul(count))?;
            let count = if list.items.is_empty() { 0 } else { count };
            let items = std::iter::repeat_n(&list.items, count).flatten().cloned().collect();
            if list.is_tuple { Value::tuple(items) } else { Value::list(items) }
        }
        _ => arithmetic(operator, left, right),
    }
}

fn times(count: &Value) -> usize {
    usize::try_from(count.integer().unwrap_or(0).max(0)).unwrap_or(usize::MAX)
}

fn arithmetic(operator: Operator, left: &Value, right: &Value) -> Result<Value, Cause> {
    let sign = match operator {
        Operator::Add => "+",
        Operator::Subtract => "-",
        Operator::Multiply => "*",
        Operator::Divide => "/",
        Operator::FloorDivide => "//",
        Operator::Remainder => "%",
        Operator::Power => "**",
        Operator::Concatenate => "~",
    };
    let divides = matches!(operator, Operator::Divide | Operator::FloorDivide | Operator::Remainder);
    let (Some(one), Some(other)) = (left.float(), right.float()) else {
        return Err(Cause::Failed(format!(
            "`{sign}` is not defined for {} and {}",
            left.kind(),
            right.kind()
        )));
    };
    if divides && other == 0.0 {
        return Err(Cause::Failed(format!("`{sign}` divides by zero")));
    }
    if let (Some(one), Some(other)) = (left.integer(), right.integer())
        && operator != Operator::Divide
        && !(operator == Operator::Power && other < 0)
    {
        let result = match operator {
            Operator::Add => one.checked_add(other),
            Operator::Subtract => one.checked_sub(other),
            Operator::Multiply => one.checked_mul(other),
            Operator::FloorDivide => one.checked_div_euclid(other).and_then(|quotient| {
                // Python rounds down; the Euclidean remainder is never negative.
                let is_exact = one.checked_rem_euclid(other)? == 0;
                if other < 0 && !is_exact { quotient.checked_sub(1) } else { Some(quotient) }
            }),
            Operator::Remainder => one
                .checked_rem_euclid(other)
                .map(|rest| if other < 0 && rest != 0 { rest + other } else { rest }),
            _ => u32::try_from(other).ok().and_then(|other| one.checked_pow(other)),
        };
        return result
            .map(Value::Integer)
            .ok_or_else(|| Cause::Failed(format!("{one} {sign} {other} is larger than 64 bits")));
    }
    Ok(Value::Float(match operator {
        Operator::Add => one + other,
        Operator::Subtract => one - other,
        Operator::Multiply => one * other,
        Operator::Divide => one / other,
        Operator::FloorDivide => (one / other).floor(),
        Operator::Remainder => one - other * (one / other).floor(),
        _ => one.powf(other),
    }))
}

pub(super) fn negative(value: &Value) -> Result<Value, Cause> {
    match value {
        Value::Float(number) => Ok(Value::Float(-number)),
        other => (other.integer().and_then(i64::checked_neg).map(Value::Integer))
            .ok_or_else(|| Cause::Failed(format!("unary `-` is not defined for {}", other.kind()))),
    }
}

pub(super) fn compare(
    comparison: Comparison,
    left: &Value,
    right: &Value,
    budget: &Budget,
) -> Result<bool, Cause> {
    Ok(match comparison {
        Comparison::Equal => left.equals(right, budget)?,
        Comparison::NotEqual => !left.equals(right, budget)?,
        Comparison::In => contains(right, left, budget)?,
        Comparison::NotIn => !contains(right, left, budget)?,
        Comparison::Less => order(left, right, budget)?.is_some_and(Ordering::is_lt),
        Comparison::LessOrEqual => order(left, right, budget)?.is_some_and(Ordering::is_le),
        Comparison::Greater => order(left, right, budget)?.is_some_and(Ordering::is_gt),
        Comparison::GreaterOrEqual => order(left, right, budget)?.is_some_and(Ordering::is_ge),
    })
}

/// Compares two values. `None` if one of them is NaN.
pub(super) fn order(left: &Value, right: &Value, budget: &Budget) -> Result<Option<Ordering>, Cause> {
    budget.steps(1)?;
    Ok(match (left, right) {
        (Value::Text(one), Value::Text(other)) => {
            budget.reading(one.len().min(other.len()))?;
            Some(one.cmp(other))
        }
        (Value::List(one), Value::List(other)) if one.is_tuple == other.is_tuple => {
            for (one, other) in one.items.iter().zip(&other.items) {
                match order(one, other, budget)? {
                    Some(Ordering::Equal) => {}
                    decided => return Ok(decided),
                }
            }
            Some(one.items.len().cmp(&other.items.len()))
        }
        _ => match (left.integer(), right.integer()) {
            (Some(one), Some(other)) => Some(one.cmp(&other)),
            _ => match (left.float(), right.float()) {
                (Some(one), Some(other)) => one.partial_cmp(&other),
                _ => {
                    let (left, right) = (left.kind(), right.kind());
                    return Err(Cause::Failed(format!("{left} and {right} cannot be compared")));
                }
            },
        },
    })
}

pub(super) fn contains(container: &Value, item: &Value, budget: &Budget) -> Result<bool, Cause> {
    match (container, item) {
        (Value::Undefined, _) => Ok(false),
        (Value::Text(text), Value::Text(part)) => {
            budget.reading(text.len() + part.len())?;
            Ok(text.contains(&**part))
        }
        (Value::List(list), item) => {
            for entry in &list.items {
                if entry.equals(item, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (Value::Map(map), key) => Ok(map.get(key, budget)?.is_some()),
        (Value::Namespace(namespace), Value::Text(name)) => Ok(namespace.get(name).is_some()),
        (container, item) => {
            Err(Cause::Failed(format!("`in` is not defined for {} and {}", item.kind(), container.kind())))
        }
    }
}
