//! Metadata values: conversions, and descriptions for messages.

use candle_core::quantized::gguf_file::Value;

use super::error::quoted;

pub(super) fn integer(value: &Value) -> Option<i128> {
    Some(match value {
        Value::U8(value) => (*value).into(),
        Value::I8(value) => (*value).into(),
        Value::U16(value) => (*value).into(),
        Value::I16(value) => (*value).into(),
        Value::U32(value) => (*value).into(),
        Value::I32(value) => (*value).into(),
        Value::U64(value) => (*value).into(),
        Value::I64(value) => (*value).into(),
        _ => return None,
    })
}

pub(super) fn float(value: &Value) -> Option<f32> {
    let value = match value {
        Value::F32(value) => *value,
        Value::F64(value) => *value as f32,
        value => integer(value)? as f32,
    };
    value.is_finite().then_some(value)
}

pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::String(value) => Some(value),
        _ => None,
    }
}

pub(super) fn all<'v, T>(value: &'v Value, read: impl Fn(&'v Value) -> Option<T>) -> Option<Vec<T>> {
    match value {
        Value::Array(values) => values.iter().map(read).collect(),
        _ => None,
    }
}

/// A description for messages: the type, and the value if it is short.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::String(value) => format!("the string {}", quoted(value)),
        Value::Array(values) => match values.first() {
            Some(first) => format!("an array of {}, the first {}", values.len(), describe_element(first)),
            None => "an empty array".to_owned(),
        },
        value => describe_element(value),
    }
}

fn describe_element(value: &Value) -> String {
    match value {
        Value::String(value) => quoted(value),
        Value::Bool(value) => format!("the bool {value}"),
        Value::F32(value) => format!("the float {value}"),
        Value::F64(value) => format!("the float {value}"),
        value => integer(value).map_or("an array".to_owned(), |value| format!("the integer {value}")),
    }
}
