//! Text forms of values: Python's `str` and `repr`, and JSON. Text is charged before it is written.

use super::arguments::Args;
use super::budget::Budget;
use super::error::{Cause, shortened};
use super::value::Value;

/// A text that grows within the budget.
pub(super) struct Writer<'b> {
    text: String,
    budget: &'b Budget,
}

impl<'b> Writer<'b> {
    pub(super) fn new(budget: &'b Budget) -> Self {
        Writer { text: String::new(), budget }
    }

    pub(super) fn push(&mut self, text: &str) -> Result<(), Cause> {
        self.budget.bytes(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    pub(super) fn repeat(&mut self, text: &str, count: usize) -> Result<(), Cause> {
        self.budget.bytes(text.len().saturating_mul(count))?;
        // Within the bytes that were just charged.
        self.text.extend(std::iter::repeat_n(text, count));
        Ok(())
    }

    pub(super) fn value(self) -> Value {
        Value::from(self.text)
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// Writes a value like `str`.
    pub(super) fn string(&mut self, value: &Value) -> Result<(), Cause> {
        match value {
            Value::Text(text) => self.push(text),
            other => self.representation(other),
        }
    }

    /// Writes a value like `repr`.
    fn representation(&mut self, value: &Value) -> Result<(), Cause> {
        match value {
            Value::Undefined => Ok(()),
            Value::None => self.push("None"),
            Value::Boolean(true) => self.push("True"),
            Value::Boolean(false) => self.push("False"),
            Value::Integer(number) => self.push(&number.to_string()),
            Value::Float(number) => self.push(&float(*number)),
            Value::Text(text) => self.quoted(text),
            Value::List(list) => {
                self.push(if list.is_tuple { "(" } else { "[" })?;
                for (at, item) in list.items.iter().enumerate() {
                    self.push(if at == 0 { "" } else { ", " })?;
                    self.representation(item)?;
                }
                self.push(match (list.is_tuple, list.items.len()) {
                    (true, 1) => ",)",
                    (true, _) => ")",
                    (false, _) => "]",
                })
            }
            Value::Map(map) => {
                self.push("{")?;
                for (at, (key, item)) in map.entries.iter().enumerate() {
                    self.push(if at == 0 { "" } else { ", " })?;
                    self.representation(key)?;
                    self.push(": ")?;
                    self.representation(item)?;
                }
                self.push("}")
            }
            Value::Namespace(_) => self.push("<Namespace>"),
            Value::Loop(iteration) => {
                self.push(&format!("<LoopContext {}/{}>", iteration.index + 1, iteration.length))
            }
            Value::Macro(definition) => self.push(&format!("<Macro {:?}>", definition.name)),
            Value::Function(_) => self.push("<function>"),
        }
    }

    fn quoted(&mut self, text: &str) -> Result<(), Cause> {
        let quote = if text.contains('\'') && !text.contains('"') { "\"" } else { "'" };
        self.push(quote)?;
        self.escaped(text, |character| {
            Some(match character {
                '\\' => "\\\\".to_owned(),
                '\n' => "\\n".to_owned(),
                '\r' => "\\r".to_owned(),
                '\t' => "\\t".to_owned(),
                '\'' if quote == "'" => "\\'".to_owned(),
                '\0'..=' ' if character != ' ' => format!("\\x{:02x}", character as u32),
                '\x7f' => "\\x7f".to_owned(),
                _ => return None,
            })
        })?;
        self.push(quote)
    }

    /// Writes `text`, replacing each character for which `spelling` returns an escape.
    fn escaped(&mut self, text: &str, spelling: impl Fn(char) -> Option<String>) -> Result<(), Cause> {
        let mut written = 0;
        for (at, character) in text.char_indices() {
            if let Some(spelling) = spelling(character) {
                self.push(&text[written..at])?;
                self.push(&spelling)?;
                written = at + character.len_utf8();
            }
        }
        self.push(&text[written..])
    }

    /// Writes a value like `json.dumps`.
    pub(super) fn json(&mut self, value: &Value, style: &JsonStyle, depth: usize) -> Result<(), Cause> {
        match value {
            Value::None => self.push("null"),
            Value::Boolean(true) => self.push("true"),
            Value::Boolean(false) => self.push("false"),
            Value::Integer(number) => self.push(&number.to_string()),
            Value::Float(number) if number.is_nan() => self.push("NaN"),
            Value::Float(number) if number.is_infinite() => {
                self.push(if *number > 0.0 { "Infinity" } else { "-Infinity" })
            }
            Value::Float(number) => self.push(&float(*number)),
            Value::Text(text) => self.json_text(text, style),
            Value::List(list) => {
                self.push("[")?;
                for (at, item) in list.items.iter().enumerate() {
                    self.json_gap(at, style, depth + 1)?;
                    self.json(item, style, depth + 1)?;
                }
                self.json_end("]", list.items.is_empty(), style, depth)
            }
            Value::Map(map) => {
                self.push("{")?;
                let mut entries: Vec<_> = map.entries.iter().collect();
                if style.sorts_keys {
                    self.budget.values(entries.len() * 2)?;
                    entries.sort_by(|(one, _), (other, _)| one.text().cmp(&other.text()));
                }
                for (at, (key, item)) in entries.into_iter().enumerate() {
                    self.json_gap(at, style, depth + 1)?;
                    match key {
                        Value::Text(key) => self.json_text(key, style)?,
                        key => {
                            self.push("\"")?;
                            self.json(key, style, depth + 1)?;
                            self.push("\"")?;
                        }
                    }
                    self.push(&style.colon)?;
                    self.json(item, style, depth + 1)?;
                }
                self.json_end("}", map.entries.is_empty(), style, depth)
            }
            other => Err(Cause::Failed(format!("{} cannot be written as JSON", other.kind()))),
        }
    }

    fn json_gap(&mut self, at: usize, style: &JsonStyle, depth: usize) -> Result<(), Cause> {
        if at > 0 {
            self.push(&style.comma)?;
        }
        self.json_line(style, depth)
    }

    fn json_end(&mut self, end: &str, is_empty: bool, style: &JsonStyle, depth: usize) -> Result<(), Cause> {
        if !is_empty {
            self.json_line(style, depth)?;
        }
        self.push(end)
    }

    fn json_line(&mut self, style: &JsonStyle, depth: usize) -> Result<(), Cause> {
        let Some((text, count)) = &style.indent else { return Ok(()) };
        self.push("\n")?;
        self.repeat(text, count.saturating_mul(depth))
    }

    fn json_text(&mut self, text: &str, style: &JsonStyle) -> Result<(), Cause> {
        self.push("\"")?;
        self.escaped(text, |character| {
            Some(match character {
                '"' => "\\\"".to_owned(),
                '\\' => "\\\\".to_owned(),
                '\n' => "\\n".to_owned(),
                '\r' => "\\r".to_owned(),
                '\t' => "\\t".to_owned(),
                '\u{8}' => "\\b".to_owned(),
                '\u{c}' => "\\f".to_owned(),
                '\0'..'\x20' => format!("\\u{:04x}", character as u32),
                '\x7f'.. if style.is_ascii && character != '\x7f' => {
                    character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
                }
                _ => return None,
            })
        })?;
        self.push("\"")
    }
}

/// Options of `tojson`.
pub(super) struct JsonStyle {
    /// Unit of indentation, and its repetitions for each level; `None` writes a single line.
    pub(super) indent: Option<(String, usize)>,
    pub(super) comma: String,
    pub(super) colon: String,
    pub(super) is_ascii: bool,
    pub(super) sorts_keys: bool,
}

/// A float as Python writes it.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let magnitude = number.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{number:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    let text = number.to_string();
    if text.contains('.') { text } else { text + ".0" }
}

/// The text of a value, like `str`.
pub(super) fn written(value: &Value, budget: &Budget) -> Result<String, Cause> {
    let mut text = Writer::new(budget);
    text.string(value)?;
    Ok(text.into_text())
}

/// Python's `str.format`, with the fields `{}`, `{0}` and `{name}`.
pub(super) fn format(text: &str, args: &Args, budget: &Budget) -> Result<Value, Cause> {
    let mut formatted = Writer::new(budget);
    let (mut rest, mut next, mut is_numbered) = (text, 0, None);
    while let Some(at) = rest.find(['{', '}']) {
        formatted.push(&rest[..at])?;
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            formatted.push(brace)?;
            rest = after;
            continue;
        }
        let field = rest.split_once('}').filter(|_| brace == "{");
        let Some((field, after)) = field else {
            return Err(Cause::failed("a single `{` or `}`, expected a field such as `{}`"));
        };
        rest = after;
        let place = if field.is_empty() {
            next += 1;
            Some(next - 1)
        } else {
            field.parse::<usize>().ok()
        };
        if place.is_some() && *is_numbered.get_or_insert(!field.is_empty()) == field.is_empty() {
            return Err(Cause::failed("both `{}` and `{0}`, expected one of them"));
        }
        let named = || args.named.iter().find(|(name, _)| **name == *field).map(|(_, value)| value);
        let value = place.map_or_else(named, |place| args.positional.get(place));
        let value =
            value.ok_or_else(|| Cause::Failed(format!("no argument for `{{{}}}`", shortened(field))))?;
        formatted.string(value)?;
    }
    formatted.push(rest)?;
    Ok(formatted.value())
}
