//! Filters that compare items.

use std::cmp::Ordering;

use super::attribute::attribute_of;
use crate::language::jinja::arguments::Args;
use crate::language::jinja::budget::Budget;
use crate::language::jinja::error::Cause;
use crate::language::jinja::operators;
use crate::language::jinja::value::Value;

/// Sort key of an item; in lower case, unless the comparison is case-sensitive.
fn key(item: &Value, args: &Args, attribute: Option<&Value>, budget: &Budget) -> Result<Value, Cause> {
    let key = match attribute {
        Some(attribute) => attribute_of(item, attribute, budget)?,
        None => item.clone(),
    };
    let is_exact = args.named.iter().any(|(name, value)| **name == *"case_sensitive" && value.is_true());
    match &key {
        Value::Text(text) if !is_exact => {
            budget.bytes(text.len())?;
            Ok(Value::from(text.to_lowercase()))
        }
        _ => Ok(key),
    }
}

/// Sorts by keys, with a stable merge sort. Comparisons are charged to the budget.
///
/// The standard library's sort may panic on keys without a total order, such as NaN.
fn sorted(keyed: Vec<(Value, Value)>, is_reverse: bool, budget: &Budget) -> Result<Vec<Value>, Cause> {
    let mut runs: Vec<Vec<(Value, Value)>> = keyed.into_iter().map(|item| vec![item]).collect();
    while runs.len() > 1 {
        let mut merged = Vec::with_capacity(runs.len().div_ceil(2));
        let mut rest = runs.into_iter();
        while let Some(first) = rest.next() {
            merged.push(match rest.next() {
                Some(second) => merge(first, second, is_reverse, budget)?,
                None => first,
            });
        }
        runs = merged;
    }
    Ok(runs.into_iter().flatten().map(|(_, item)| item).collect())
}

/// Merges two sorted runs. Of equal keys, those of `first` come first.
fn merge(
    first: Vec<(Value, Value)>,
    second: Vec<(Value, Value)>,
    is_reverse: bool,
    budget: &Budget,
) -> Result<Vec<(Value, Value)>, Cause> {
    let precedes = if is_reverse { Ordering::Greater } else { Ordering::Less };
    let mut merged = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter().peekable(), second.into_iter().peekable());
    while let (Some((one, _)), Some((other, _))) = (first.peek(), second.peek()) {
        let takes_second = operators::order(other, one, budget)? == Some(precedes);
        merged.extend(if takes_second { second.next() } else { first.next() });
    }
    merged.extend(first);
    merged.extend(second);
    Ok(merged)
}

pub(super) fn sort(value: &Value, args: &Args, budget: &Budget) -> Result<Value, Cause> {
    args.only(&["reverse", "case_sensitive", "attribute"])?;
    let items = value.items(budget)?;
    budget.values(items.len() * 2)?;
    let attribute = args.get(2, "attribute");
    let keyed = items.into_iter().map(|item| Ok((key(&item, args, attribute, budget)?, item)));
    Value::list(sorted(keyed.collect::<Result<_, Cause>>()?, args.is_true(0, "reverse"), budget)?)
}

pub(super) fn dictsort(value: &Value, args: &Args, budget: &Budget) -> Result<Value, Cause> {
    args.only(&["case_sensitive", "by", "reverse"])?;
    let Value::Map(map) = value else {
        return Err(Cause::Failed(format!("{}, expected a map", value.kind())));
    };
    let by_value = args.text(1, "by")? == Some("value");
    budget.values(map.entries.len() * 4)?;
    let mut keyed = Vec::with_capacity(map.entries.len());
    for (name, item) in &map.entries {
        let key = key(if by_value { item } else { name }, args, None, budget)?;
        keyed.push((key, Value::tuple(vec![name.clone(), item.clone()])?));
    }
    Value::list(sorted(keyed, args.is_true(2, "reverse"), budget)?)
}

pub(super) fn unique(value: &Value, args: &Args, budget: &Budget) -> Result<Value, Cause> {
    args.only(&["case_sensitive", "attribute"])?;
    let (mut keys, mut distinct) = (Vec::new(), Vec::new());
    for item in value.items(budget)? {
        let key = key(&item, args, args.get(1, "attribute"), budget)?;
        let mut is_known = false;
        for known in &keys {
            if key.equals(known, budget)? {
                is_known = true;
                break;
            }
        }
        if !is_known {
            budget.values(2)?;
            keys.push(key);
            distinct.push(item);
        }
    }
    Value::list(distinct)
}

pub(super) fn extreme(name: &str, value: &Value, args: &Args, budget: &Budget) -> Result<Value, Cause> {
    args.only(&["case_sensitive", "attribute"])?;
    let target = if name == "max" { Ordering::Greater } else { Ordering::Less };
    let mut best: Option<(Value, Value)> = None;
    for item in value.items(budget)? {
        let key = key(&item, args, args.get(1, "attribute"), budget)?;
        let is_better = match &best {
            Some((best, _)) => operators::order(&key, best, budget)? == Some(target),
            None => true,
        };
        if is_better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or(Value::Undefined, |(_, item)| item))
}
