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

/// Sorts by keys. Comparisons are charged to the budget.
fn sorted(mut keyed: Vec<(Value, Value)>, is_reverse: bool, budget: &Budget) -> Result<Vec<Value>, Cause> {
    let mut failed = None;
    keyed.sort_by(|(one, _), (other, _)| {
        if failed.is_some() {
            return Ordering::Equal;
        }
        let order = operators::order(one, other, budget).unwrap_or_else(|cause| {
            failed = Some(cause);
            None
        });
        let order = order.unwrap_or(Ordering::Equal);
        if is_reverse { order.reverse() } else { order }
    });
    failed.map_or_else(|| Ok(keyed.into_iter().map(|(_, item)| item).collect()), Err)
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
