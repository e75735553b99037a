//! Filters that produce text: `indent`, `join` and `tojson`.

use super::attribute::attribute_of;
use crate::language::jinja::arguments::Args;
use crate::language::jinja::budget::Budget;
use crate::language::jinja::error::Cause;
use crate::language::jinja::text::{JsonStyle, Writer, written};
use crate::language::jinja::value::Value;

/// Indentation of `tojson` with `indent=true`.
const INDENT: usize = 1;

pub(super) fn indent(value: &Value, args: &Args, budget: &Budget) -> Result<Value, Cause> {
    args.only(&["width", "first", "blank"])?;
    let (unit, count) = match args.get(0, "width") {
        None => (" ", 4),
        Some(Value::Text(unit)) => (&**unit, 1),
        Some(width) => {
            let width = width.integer().ok_or_else(|| {
                Cause::Failed(format!("width is {}, expected an integer or a string", width.kind()))
            })?;
            (" ", usize::try_from(width.max(0)).unwrap_or(usize::MAX))
        }
    };
    let (first, blank) = (args.is_true(1, "first"), args.is_true(2, "blank"));
    let source = written(value, budget)?;
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

pub(super) fn join(value: &Value, args: &Args, budget: &Budget) -> Result<Value, Cause> {
    args.only(&["d", "attribute"])?;
    let mut between = Writer::new(budget);
    between.string(args.get(0, "d").unwrap_or(&Value::Undefined))?;
    let between = between.into_text();
    let mut joined = Writer::new(budget);
    for (at, item) in value.items(budget)?.into_iter().enumerate() {
        if at > 0 {
            joined.push(&between)?;
        }
        match args.get(1, "attribute") {
            Some(attribute) => joined.string(&attribute_of(&item, attribute, budget)?)?,
            None => joined.string(&item)?,
        }
    }
    Ok(joined.value())
}

/// Follows the `tojson` of Hugging Face, which is Python's `json.dumps` without HTML escapes.
pub(super) fn json(value: &Value, args: &Args, budget: &Budget) -> Result<Value, Cause> {
    args.only(&["ensure_ascii", "indent", "separators", "sort_keys"])?;
    // Jinja2's own `tojson` takes `indent` first, and templates use both.
    let indent = match args.get(1, "indent") {
        None => args.positional.first().filter(|first| matches!(first, Value::Integer(_) | Value::Text(_))),
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
            let width = width.integer().ok_or_else(|| {
                Cause::Failed(format!("indent is {}, expected an integer or a string", width.kind()))
            })?;
            Some((" ".to_owned(), usize::try_from(width.max(0)).unwrap_or(usize::MAX)))
        }
    };
    let (mut comma, mut colon) = (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned());
    if let Some(separators) = args.get(2, "separators")
        && !matches!(separators, Value::None)
    {
        let parts = separators.items(budget)?;
        let [first, second] = &parts[..] else {
            return Err(Cause::failed("`separators` must be two strings"));
        };
        (comma, colon) = (written(first, budget)?, written(second, budget)?);
    }
    let is_ascii = matches!(args.get(0, "ensure_ascii"), Some(Value::Boolean(true)));
    let style = JsonStyle { indent, comma, colon, is_ascii, sorts_keys: args.is_true(3, "sort_keys") };
    let mut json = Writer::new(budget);
    json.json(value, &style, 0)?;
    Ok(json.value())
}
