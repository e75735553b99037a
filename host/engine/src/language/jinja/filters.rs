//! Filters that templates may use.

use std::cmp::Ordering;

use super::budget::Budget;
use super::functions::Given;
use super::parser::shortened;
use super::syntax::Operator;
use super::text::{JsonStyle, Writer};
use super::value::Value;
use super::{Cause, methods, operators, tests};

/// What a text is indented by where `tojson` is given `true`.
const INDENT: usize = 1;

pub(super) fn apply(name: &str, value: &Value, given: &Given, budget: &Budget) -> Result<Value, Cause> {
    match name {
        "abs" => absolute(value, given),
        "capitalize" | "lower" | "title" | "upper" => {
            methods::call(&Value::from(text(value, budget)?), name, given, budget)
        }
        "count" | "length" => {
            given.only(&[])?;
            length(value, budget)
        }
        "d" | "default" => {
            given.only(&["default_value", "boolean"])?;
            let is_missing = match value {
                Value::Undefined => true,
                value => given.is_true(1, "boolean") && !value.is_true(),
            };
            let empty = || Value::from("");
            Ok(if is_missing {
                given.get(0, "default_value").cloned().unwrap_or_else(empty)
            } else {
                value.clone()
            })
        }
        "dictsort" => dictsort(value, given, budget),
        "first" | "last" => {
            given.only(&[])?;
            let items = value.items(budget)?;
            let item = if name == "first" { items.first() } else { items.last() };
            Ok(item.cloned().unwrap_or(Value::Undefined))
        }
        "float" => {
            given.only(&["default"])?;
            let parsed = || value.text().and_then(|text| text.trim().parse().ok());
            let default = || given.get(0, "default").and_then(Value::float);
            Ok(Value::Float(value.float().or_else(parsed).or_else(default).unwrap_or(0.0)))
        }
        "indent" => indent(value, given, budget),
        "int" => integer(value, given, budget),
        "items" => {
            given.only(&[])?;
            if matches!(value, Value::Undefined) {
                return Value::list(Vec::new());
            }
            methods::call(value, "items", given, budget)
        }
        "join" => join(value, given, budget),
        "list" => {
            given.only(&[])?;
            Value::list(value.items(budget)?)
        }
        "map" => map(value, given, budget),
        "max" | "min" => extreme(name, value, given, budget),
        "reject" | "rejectattr" | "select" | "selectattr" => select(name, value, given, budget),
        "replace" => methods::call(&Value::from(text(value, budget)?), name, given, budget),
        "reverse" => {
            given.only(&[])?;
            methods::slice(value, [None, None, Some(-1)], budget)
        }
        "round" => round(value, given),
        "safe" => Ok(value.clone()),
        "sort" => sort(value, given, budget),
        "split" => methods::call(value, name, given, budget),
        "string" => {
            given.only(&[])?;
            Ok(match value {
                Value::Text(_) => value.clone(),
                value => Value::from(text(value, budget)?),
            })
        }
        "sum" => {
            given.only(&["attribute", "start"])?;
            let start = given.get(1, "start").cloned().unwrap_or(Value::Integer(0));
            value.items(budget)?.into_iter().try_fold(start, |sum, item| {
                let item = match given.get(0, "attribute") {
                    Some(attribute) => attribute_of(&item, attribute, budget)?,
                    None => item,
                };
                operators::apply(Operator::Add, &sum, &item, budget)
            })
        }
        "tojson" => json(value, given, budget),
        "trim" => methods::call(&Value::from(text(value, budget)?), "strip", given, budget),
        "unique" => unique(value, given, budget),
        _ => {
            let name = shortened(name);
            Err(Cause::Failed(format!("`{name}` is not allowed in chat templates; allowed: {ALLOWED}")))
        }
    }
}

/// All of the above, for messages.
const ALLOWED: &str = "abs, capitalize, count, default, dictsort, first, float, indent, int, items, join, last, length, \
                       list, lower, map, max, min, reject, rejectattr, replace, reverse, round, safe, select, selectattr, \
                       sort, split, string, sum, title, tojson, trim, unique, upper";

fn text(value: &Value, budget: &Budget) -> Result<String, Cause> {
    let mut text = Writer::new(budget);
    text.string(value)?;
    Ok(text.into_text())
}

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

fn absolute(value: &Value, given: &Given) -> Result<Value, Cause> {
    given.only(&[])?;
    match value {
        Value::Float(number) => Ok(Value::Float(number.abs())),
        other => (other.integer().and_then(i64::checked_abs).map(Value::Integer))
            .ok_or_else(|| Cause::Failed(format!("{}, expected a number", other.kind()))),
    }
}

fn integer(value: &Value, given: &Given, budget: &Budget) -> Result<Value, Cause> {
    given.only(&["default", "base"])?;
    let base = given.integer(1, "base")?.unwrap_or(10);
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
    Ok(Value::Integer(parsed.or(given.integer(0, "default")?).unwrap_or(0)))
}

fn round(value: &Value, given: &Given) -> Result<Value, Cause> {
    given.only(&["precision", "method"])?;
    let number =
        value.float().ok_or_else(|| Cause::Failed(format!("{}, expected a number", value.kind())))?;
    let precision = given.integer(0, "precision")?.unwrap_or(0).clamp(-300, 300) as i32;
    let scale = 10_f64.powi(precision);
    let scaled = number * scale;
    let rounded = match given.text(1, "method")?.unwrap_or("common") {
        "ceil" => scaled.ceil(),
        "floor" => scaled.floor(),
        _ => scaled.round_ties_even(),
    };
    Ok(Value::Float(if scaled.is_finite() { rounded / scale } else { number }))
}

fn indent(value: &Value, given: &Given, budget: &Budget) -> Result<Value, Cause> {
    given.only(&["width", "first", "blank"])?;
    let (unit, count) = match given.get(0, "width") {
        None => (" ", 4),
        Some(Value::Text(unit)) => (&**unit, 1),
        Some(width) => {
            let width =
                width.integer().ok_or_else(|| Cause::Failed(format!("a width that is {}", width.kind())))?;
            (" ", usize::try_from(width.max(0)).unwrap_or(usize::MAX))
        }
    };
    let (first, blank) = (given.is_true(1, "first"), given.is_true(2, "blank"));
    let source = text(value, budget)?;
    let mut indented = Writer::new(budget);
    for (at, line) in source.split('\n').enumerate() {
        if at > 0 {
            indented.push("\n")?;
        }
        if (at > 0 || first) && (blank || !line.is_empty()) {
            indented.repeat(unit, count)?;
        }
        indented.push(line)?;
    }
    Ok(indented.value())
}

fn join(value: &Value, given: &Given, budget: &Budget) -> Result<Value, Cause> {
    given.only(&["d", "attribute"])?;
    let mut between = Writer::new(budget);
    between.string(given.get(0, "d").unwrap_or(&Value::Undefined))?;
    let between = between.into_text();
    let mut joined = Writer::new(budget);
    for (at, item) in value.items(budget)?.into_iter().enumerate() {
        if at > 0 {
            joined.push(&between)?;
        }
        match given.get(1, "attribute") {
            Some(attribute) => joined.string(&attribute_of(&item, attribute, budget)?)?,
            None => joined.string(&item)?,
        }
    }
    Ok(joined.value())
}

/// What is under a path of names and numbers with points between them.
fn attribute_of(item: &Value, attribute: &Value, budget: &Budget) -> Result<Value, Cause> {
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
        other => Err(Cause::Failed(format!("an attribute that is {}", other.kind()))),
    }
}

fn map(value: &Value, given: &Given, budget: &Budget) -> Result<Value, Cause> {
    let items = value.items(budget)?;
    budget.values(items.len())?;
    let named = |name: &str| given.named.iter().find(|(is, _)| **is == *name).map(|(_, value)| value);
    if let Some(attribute) = named("attribute") {
        let of = |item: Value| match (attribute_of(&item, attribute, budget)?, named("default")) {
            (Value::Undefined, Some(default)) => Ok(default.clone()),
            (value, _) => Ok(value),
        };
        return Value::list(items.into_iter().map(of).collect::<Result<_, Cause>>()?);
    }
    let filter = given.need(0, "filter")?;
    let filter = filter.text().ok_or_else(|| Cause::failed("a filter's name that is not a text"))?;
    if filter == "map" {
        return Err(Cause::failed("`map` within `map` is not allowed in chat templates"));
    }
    let rest = rest(given, 1, budget)?;
    let of = |item: Value| apply(filter, &item, &rest, budget);
    Value::list(items.into_iter().map(of).collect::<Result<_, Cause>>()?)
}

/// The arguments behind the first ones.
fn rest(given: &Given, first: usize, budget: &Budget) -> Result<Given, Cause> {
    budget.values(given.positional.len() + given.named.len())?;
    let positional = given.positional.get(first..).unwrap_or_default().to_vec();
    Ok(Given { positional, named: given.named.clone() })
}

fn select(name: &str, value: &Value, given: &Given, budget: &Budget) -> Result<Value, Cause> {
    let (of_attribute, keeps) = (name.ends_with("attr"), name.starts_with("select"));
    let first = usize::from(of_attribute);
    let test = given.positional.get(first);
    let test = match test {
        None => None,
        Some(test) => Some(test.text().ok_or_else(|| Cause::failed("a test's name that is not a text"))?),
    };
    let rest = rest(given, first + 1, budget)?;
    let mut kept = Vec::new();
    for item in value.items(budget)? {
        let tested = if of_attribute {
            attribute_of(&item, given.need(0, "attribute")?, budget)?
        } else {
            item.clone()
        };
        let holds = match test {
            None => tested.is_true(),
            Some(test) => tests::holds(test, &tested, &rest, budget)?,
        };
        if holds == keeps {
            kept.push(item);
        }
    }
    Value::list(kept)
}

/// What an item is ordered by: in lower case, unless case matters.
fn key(item: &Value, given: &Given, attribute: Option<&Value>, budget: &Budget) -> Result<Value, Cause> {
    let key = match attribute {
        Some(attribute) => attribute_of(item, attribute, budget)?,
        None => item.clone(),
    };
    let is_exact = given.named.iter().any(|(name, value)| **name == *"case_sensitive" && value.is_true());
    match &key {
        Value::Text(text) if !is_exact => {
            budget.bytes(text.len())?;
            Ok(Value::from(text.to_lowercase()))
        }
        _ => Ok(key),
    }
}

/// Sort by keys, which are compared at the budget's cost.
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

fn sort(value: &Value, given: &Given, budget: &Budget) -> Result<Value, Cause> {
    given.only(&["reverse", "case_sensitive", "attribute"])?;
    let items = value.items(budget)?;
    budget.values(items.len() * 2)?;
    let attribute = given.get(2, "attribute");
    let keyed = items.into_iter().map(|item| Ok((key(&item, given, attribute, budget)?, item)));
    Value::list(sorted(keyed.collect::<Result<_, Cause>>()?, given.is_true(0, "reverse"), budget)?)
}

fn dictsort(value: &Value, given: &Given, budget: &Budget) -> Result<Value, Cause> {
    given.only(&["case_sensitive", "by", "reverse"])?;
    let Value::Map(map) = value else {
        return Err(Cause::Failed(format!("{}, expected a map", value.kind())));
    };
    let by_value = given.text(1, "by")? == Some("value");
    budget.values(map.entries.len() * 4)?;
    let mut keyed = Vec::with_capacity(map.entries.len());
    for (name, item) in &map.entries {
        let key = key(if by_value { item } else { name }, given, None, budget)?;
        keyed.push((key, Value::tuple(vec![name.clone(), item.clone()])?));
    }
    Value::list(sorted(keyed, given.is_true(2, "reverse"), budget)?)
}

fn unique(value: &Value, given: &Given, budget: &Budget) -> Result<Value, Cause> {
    given.only(&["case_sensitive", "attribute"])?;
    let (mut keys, mut kept) = (Vec::new(), Vec::new());
    for item in value.items(budget)? {
        let key = key(&item, given, given.get(1, "attribute"), budget)?;
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
            kept.push(item);
        }
    }
    Value::list(kept)
}

fn extreme(name: &str, value: &Value, given: &Given, budget: &Budget) -> Result<Value, Cause> {
    given.only(&["case_sensitive", "attribute"])?;
    let wanted = if name == "max" { Ordering::Greater } else { Ordering::Less };
    let mut best: Option<(Value, Value)> = None;
    for item in value.items(budget)? {
        let key = key(&item, given, given.get(1, "attribute"), budget)?;
        let is_better = match &best {
            Some((best, _)) => operators::order(&key, best, budget)? == Some(wanted),
            None => true,
        };
        if is_better {
            best = Some((key, item));
        }
    }
    Ok(best.map_or(Value::Undefined, |(_, item)| item))
}

/// As Hugging Face's `tojson`, which is Python's `json.dumps` without the escapes of HTML.
fn json(value: &Value, given: &Given, budget: &Budget) -> Result<Value, Cause> {
    given.only(&["ensure_ascii", "indent", "separators", "sort_keys"])?;
    // Jinja2's own has `indent` first, and templates use either.
    let indent = match given.get(1, "indent") {
        None => given.positional.first().filter(|first| matches!(first, Value::Integer(_) | Value::Text(_))),
        indent => indent,
    };
    let indent = match indent {
        None | Some(Value::None | Value::Undefined | Value::Boolean(false)) => None,
        Some(Value::Boolean(true)) => Some((" ".to_owned(), INDENT)),
        Some(Value::Text(unit)) => {
            budget.bytes(unit.len())?;
            Some((unit.to_string(), 1))
        }
        Some(width) => {
            let width = width
                .integer()
                .ok_or_else(|| Cause::Failed(format!("an indent that is {}", width.kind())))?;
            Some((" ".to_owned(), usize::try_from(width.max(0)).unwrap_or(usize::MAX)))
        }
    };
    let (mut comma, mut colon) = (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned());
    if let Some(separators) = given.get(2, "separators")
        && !matches!(separators, Value::None)
    {
        let parts = separators.items(budget)?;
        let [first, second] = &parts[..] else {
            return Err(Cause::failed("`separators` that are not two texts"));
        };
        (comma, colon) = (text(first, budget)?, text(second, budget)?);
    }
    let is_ascii = matches!(given.get(0, "ensure_ascii"), Some(Value::Boolean(true)));
    let style = JsonStyle { indent, comma, colon, is_ascii, sorts_keys: given.is_true(3, "sort_keys") };
    let mut json = Writer::new(budget);
    json.json(value, &style, 0)?;
    Ok(json.value())
}
