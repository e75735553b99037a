//! Python's methods of strings, lists and maps; indices and slices.

use super::arguments::Args;
use super::budget::Budget;
use super::error::{Cause, shortened};
use super::text::{Writer, format};
use super::value::{Loop, Value};

pub(super) fn call(value: &Value, name: &str, args: &Args, budget: &Budget) -> Result<Value, Cause> {
    match value {
        Value::Text(text) => of_text(text, name, args, budget),
        Value::Map(map) => match name {
            "get" => {
                args.only(&["key", "default"])?;
                let found = map.get(args.need(0, "key")?, budget)?;
                Ok(found.unwrap_or_else(|| args.get(1, "default").cloned().unwrap_or(Value::None)))
            }
            "items" => {
                args.only(&[])?;
                budget.values(map.entries.len() * 4)?;
                let pairs =
                    map.entries.iter().map(|(key, value)| Value::tuple(vec![key.clone(), value.clone()]));
                Value::list(pairs.collect::<Result<_, _>>()?)
            }
            "keys" | "values" => {
                args.only(&[])?;
                budget.values(map.entries.len())?;
                let part =
                    |(key, value): &(Value, Value)| if name == "keys" { key.clone() } else { value.clone() };
                Value::list(map.entries.iter().map(part).collect())
            }
            _ => unknown(value, name, "get, items, keys, values"),
        },
        Value::List(list) => match name {
            "count" | "index" => {
                args.only(&["value"])?;
                let needle = args.need(0, "value")?;
                let mut count = 0;
                for (at, item) in list.items.iter().enumerate() {
                    if item.equals(needle, budget)? {
                        if name == "index" {
                            return Ok(Value::Integer(at as i64));
                        }
                        count += 1;
                    }
                }
                if name == "index" { Err(Cause::failed("item not found")) } else { Ok(Value::Integer(count)) }
            }
            "append" | "extend" | "insert" | "pop" | "remove" | "clear" | "sort" | "reverse" => {
                Err(Cause::failed("lists are immutable in chat templates; use `+` and `set`"))
            }
            _ => unknown(value, name, "count, index"),
        },
        Value::Loop(iteration) if name == "cycle" => {
            let values = &args.positional;
            let value = iteration.index.checked_rem(values.len()).and_then(|at| values.get(at)).cloned();
            value.ok_or_else(|| Cause::failed("`cycle` needs at least one argument"))
        }
        other => unknown(other, name, "none"),
    }
}

fn unknown(value: &Value, name: &str, allowed: &str) -> Result<Value, Cause> {
    let (kind, name) = (value.kind(), shortened(name));
    Err(Cause::Failed(format!("`{name}` of {kind} is not allowed in chat templates; allowed: {allowed}")))
}

fn of_text(text: &str, name: &str, args: &Args, budget: &Budget) -> Result<Value, Cause> {
    budget.reading(text.len())?;
    // Charges for a part of the text.
    let part = |part: &str| -> Result<Value, Cause> {
        budget.bytes(part.len())?;
        Ok(Value::from(part))
    };
    match name {
        "lower" | "upper" | "title" | "capitalize" => {
            args.only(&[])?;
            // Changing the case of a letter results in at most three letters, of up to four bytes.
            budget.bytes(text.len().saturating_mul(3))?;
            Ok(Value::from(match name {
                "lower" => text.to_lowercase(),
                "upper" => text.to_uppercase(),
                "title" => title(text, char::is_alphabetic),
                _ => title(text, |_| true),
            }))
        }
        "strip" | "lstrip" | "rstrip" => {
            args.only(&["chars"])?;
            let stripped = args.text(0, "chars")?;
            // Each character of the text is compared with these.
            budget.steps(stripped.map_or(0, |chars| text.len() / 16 * (1 + chars.len() / 16)))?;
            let is_stripped = |c: char| stripped.map_or(c.is_whitespace(), |chars| chars.contains(c));
            part(match name {
                "strip" => text.trim_matches(is_stripped),
                "lstrip" => text.trim_start_matches(is_stripped),
                _ => text.trim_end_matches(is_stripped),
            })
        }
        "startswith" | "endswith" => {
            args.only(&["prefix"])?;
            let has = |affix: &Value| -> Result<bool, Cause> {
                let affix = affix
                    .text()
                    .ok_or_else(|| Cause::Failed(format!("{}, expected a string", affix.kind())))?;
                budget.reading(affix.len())?;
                Ok(if name == "startswith" { text.starts_with(affix) } else { text.ends_with(affix) })
            };
            match args.need(0, "prefix")? {
                Value::List(list) if list.is_tuple => {
                    for affix in &list.items {
                        if has(affix)? {
                            return Ok(Value::Boolean(true));
                        }
                    }
                    Ok(Value::Boolean(false))
                }
                affix => has(affix).map(Value::Boolean),
            }
        }
        "removeprefix" | "removesuffix" => {
            args.only(&["affix"])?;
            let affix = args.text(0, "affix")?.unwrap_or_default();
            let rest =
                if name == "removeprefix" { text.strip_prefix(affix) } else { text.strip_suffix(affix) };
            part(rest.unwrap_or(text))
        }
        "split" | "rsplit" => {
            args.only(&["sep", "maxsplit"])?;
            let max = args.integer(1, "maxsplit")?.and_then(|max| usize::try_from(max).ok());
            split(text, name, args.text(0, "sep")?, max, budget)
        }
        "splitlines" => {
            args.only(&["keepends"])?;
            let keeps = args.is_true(0, "keepends");
            let mut lines = Vec::new();
            for line in text.split_inclusive('\n') {
                budget.values(1)?;
                let bare =
                    line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
                lines.push(part(if keeps { line } else { bare })?);
            }
            Value::list(lines)
        }
        "replace" => {
            args.only(&["old", "new", "count"])?;
            let (old, new) =
                (args.text(0, "old")?.unwrap_or_default(), args.text(1, "new")?.unwrap_or_default());
            let max =
                args.integer(2, "count")?.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX);
            budget.reading(old.len())?;
            let mut replaced = Writer::new(budget);
            let mut written = 0;
            for (at, _) in text.match_indices(old).take(max) {
                budget.steps(1)?;
                replaced.push(&text[written..at])?;
                replaced.push(new)?;
                written = at + old.len();
            }
            replaced.push(&text[written..])?;
            Ok(replaced.value())
        }
        "find" | "rfind" | "index" | "count" => {
            args.only(&["sub"])?;
            let needle = args.text(0, "sub")?.unwrap_or_default();
            budget.reading(needle.len())?;
            let place = match name {
                "count" => return Ok(Value::Integer(text.matches(needle).count() as i64)),
                "rfind" => text.rfind(needle),
                _ => text.find(needle),
            };
            match place {
                Some(at) => Ok(Value::Integer(text[..at].chars().count() as i64)),
                None if name == "index" => Err(Cause::failed("substring not found")),
                None => Ok(Value::Integer(-1)),
            }
        }
        "format" => format(text, args, budget),
        "join" => {
            args.only(&["items"])?;
            let mut joined = Writer::new(budget);
            for (at, item) in args.need(0, "items")?.items(budget)?.iter().enumerate() {
                if at > 0 {
                    joined.push(text)?;
                }
                let item = item
                    .text()
                    .ok_or_else(|| Cause::Failed(format!("{}, expected a string", item.kind())))?;
                joined.push(item)?;
            }
            Ok(joined.value())
        }
        "isalnum" | "isalpha" | "isdigit" | "isnumeric" | "isspace" | "islower" | "isupper" | "isascii" => {
            args.only(&[])?;
            let all = |predicate: fn(char) -> bool| !text.is_empty() && text.chars().all(predicate);
            Ok(Value::Boolean(match name {
                "isalnum" => all(char::is_alphanumeric),
                "isalpha" => all(char::is_alphabetic),
                "isspace" => all(char::is_whitespace),
                "isascii" => text.is_ascii(),
                "islower" => text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase),
                "isupper" => text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase),
                _ => all(char::is_numeric),
            }))
        }
        _ => unknown(
            &Value::from(""),
            name,
            "capitalize, count, endswith, find, format, index, isalnum, isalpha, isascii, isdigit, islower, \
             isnumeric, isspace, isupper, join, lower, lstrip, removeprefix, removesuffix, replace, rfind, \
             rsplit, rstrip, split, splitlines, startswith, strip, title, upper",
        ),
    }
}

/// Converts each character to upper case if it starts a word, otherwise to lower case. `goes_on` is
/// true for a character that the next one continues.
fn title(text: &str, goes_on: impl Fn(char) -> bool) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut before = None;
    for character in text.chars() {
        if before.is_some_and(&goes_on) {
            titled.extend(character.to_lowercase());
        } else {
            titled.extend(character.to_uppercase());
        }
        before = Some(character);
    }
    titled
}

fn split(
    text: &str,
    name: &str,
    separator: Option<&str>,
    max: Option<usize>,
    budget: &Budget,
) -> Result<Value, Cause> {
    let mut parts = Vec::new();
    let mut push = |part: &str| -> Result<(), Cause> {
        budget.values(1)?;
        budget.bytes(part.len())?;
        parts.push(Value::from(part));
        Ok(())
    };
    let pieces = max.map_or(usize::MAX, |max| max.saturating_add(1));
    match separator {
        Some("") => return Err(Cause::failed("empty separator")),
        Some(separator) if name == "split" => text.splitn(pieces, separator).try_for_each(&mut push)?,
        Some(separator) => {
            text.rsplitn(pieces, separator).try_for_each(&mut push)?;
            parts.reverse();
        }
        None if max.is_none() => text.split_whitespace().try_for_each(&mut push)?,
        None => {
            let forward = name == "split";
            let mut rest = if forward { text.trim_start() } else { text.trim_end() };
            let mut left = pieces;
            while !rest.is_empty() {
                left -= 1;
                let cut =
                    if forward { rest.find(char::is_whitespace) } else { rest.rfind(char::is_whitespace) };
                let Some(at) = cut.filter(|_| left > 0) else {
                    // The remaining text keeps the whitespace at its other end.
                    push(rest)?;
                    break;
                };
                if forward {
                    push(&rest[..at])?;
                    rest = rest[at..].trim_start();
                } else {
                    push(rest[at..].trim_start())?;
                    rest = rest[..at].trim_end();
                }
            }
            if name == "rsplit" {
                parts.reverse();
            }
        }
    }
    Value::list(parts)
}

/// Position of an index in a list of `length` items. A negative index counts from the end.
pub(super) fn place(index: i64, length: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(i64::try_from(length).ok()?)? } else { index };
    usize::try_from(index).ok().filter(|&index| index < length)
}

/// Python's `value[start:stop:step]`.
pub(super) fn slice(
    value: &Value,
    [start, stop, step]: [Option<i64>; 3],
    budget: &Budget,
) -> Result<Value, Cause> {
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(Cause::failed("a slice with a step of 0"));
    }
    let places = |length: usize| -> Result<Vec<usize>, Cause> {
        let length = length as i128;
        let clamp = |bound: Option<i64>, default: i128| match bound {
            None => default,
            Some(bound) => {
                let bound = i128::from(bound);
                let bound = if bound < 0 { bound + length } else { bound };
                if step > 0 { bound.clamp(0, length) } else { bound.clamp(-1, length - 1) }
            }
        };
        let (first, end) = if step > 0 { (0, length) } else { (length - 1, -1) };
        let (first, end, step) = (clamp(start, first), clamp(stop, end), i128::from(step));
        let count = if step > 0 { (end - first + step - 1) / step } else { (end - first + step + 1) / step };
        let count = usize::try_from(count.max(0)).unwrap_or(0);
        budget.values(count)?;
        Ok((0..count as i128).map(|at| (first + at * step) as usize).collect())
    };
    match value {
        Value::Text(text) => {
            budget.bytes(text.len())?;
            if text.is_ascii() && step == 1 {
                let bound = |bound: Option<i64>, default: usize| match bound {
                    None => default,
                    Some(bound) if bound < 0 => text.len().saturating_sub(bound.unsigned_abs() as usize),
                    Some(bound) => (bound as usize).min(text.len()),
                };
                let (start, stop) = (bound(start, 0), bound(stop, text.len()));
                return Ok(Value::from(text.get(start..stop.max(start)).unwrap_or_default()));
            }
            budget.values(text.chars().count() / 8)?;
            let characters: Vec<char> = text.chars().collect();
            let places = places(characters.len())?;
            Ok(Value::from(places.into_iter().filter_map(|at| characters.get(at)).collect::<String>()))
        }
        Value::List(list) => {
            let places = places(list.items.len())?;
            let items = places.into_iter().filter_map(|at| list.items.get(at).cloned()).collect();
            if list.is_tuple { Value::tuple(items) } else { Value::list(items) }
        }
        other => Err(Cause::Failed(format!("{} cannot be sliced", other.kind()))),
    }
}

pub(super) fn loop_attribute(iteration: &Loop, name: &str) -> Option<Value> {
    let number = |number: usize| Some(Value::Integer(number as i64));
    match name {
        "index" => number(iteration.index + 1),
        "index0" => number(iteration.index),
        "revindex" => number(iteration.length - iteration.index),
        "revindex0" => number(iteration.length - iteration.index - 1),
        "first" => Some(Value::Boolean(iteration.index == 0)),
        "last" => Some(Value::Boolean(iteration.index + 1 == iteration.length)),
        "length" => number(iteration.length),
        // Only recursive loops are deeper.
        "depth" => number(1),
        "depth0" => number(0),
        "previtem" => Some(iteration.previous.clone()),
        "nextitem" => Some(iteration.next.clone()),
        _ => None,
    }
}
