//! Metadata values: types, conversions, and descriptions for messages.

use super::error::quoted;

/// A metadata value.
#[derive(Debug)]
pub(super) enum Value {
    Scalar(Scalar),
    Text(Box<str>),
    /// Elements of one type, none of them an array.
    Array(Vec<Value>),
}

/// A number or bool of the file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scalar {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Scalar {
    /// Size in bytes of a scalar of GGUF value type `kind`, or `None` if it is not one.
    pub(super) fn size(kind: u32) -> Option<usize> {
        match kind {
            0 | 1 | 7 => Some(1),
            2 | 3 => Some(2),
            4..=6 => Some(4),
            10..=12 => Some(8),
            _ => None,
        }
    }

    /// Reads a scalar of GGUF value type `kind`. Returns `None` for a bool other than 0 and 1, and
    /// if `bytes` has not the type's size.
    pub(super) fn read(kind: u32, bytes: &[u8]) -> Option<Self> {
        Some(match (kind, bytes) {
            (0, &[byte]) => Scalar::U8(byte),
            (1, &[byte]) => Scalar::I8(byte as i8),
            (2, _) => Scalar::U16(u16::from_le_bytes(bytes.try_into().ok()?)),
            (3, _) => Scalar::I16(i16::from_le_bytes(bytes.try_into().ok()?)),
            (4, _) => Scalar::U32(u32::from_le_bytes(bytes.try_into().ok()?)),
            (5, _) => Scalar::I32(i32::from_le_bytes(bytes.try_into().ok()?)),
            (6, _) => Scalar::F32(f32::from_le_bytes(bytes.try_into().ok()?)),
            (7, &[byte @ 0..=1]) => Scalar::Bool(byte == 1),
            (10, _) => Scalar::U64(u64::from_le_bytes(bytes.try_into().ok()?)),
            (11, _) => Scalar::I64(i64::from_le_bytes(bytes.try_into().ok()?)),
            (12, _) => Scalar::F64(f64::from_le_bytes(bytes.try_into().ok()?)),
            _ => return None,
        })
    }
}

pub(super) fn integer(value: &Value) -> Option<i128> {
    let Value::Scalar(scalar) = value else { return None };
    Some(match *scalar {
        Scalar::U8(value) => value.into(),
        Scalar::I8(value) => value.into(),
        Scalar::U16(value) => value.into(),
        Scalar::I16(value) => value.into(),
        Scalar::U32(value) => value.into(),
        Scalar::I32(value) => value.into(),
        Scalar::U64(value) => value.into(),
        Scalar::I64(value) => value.into(),
        Scalar::F32(_) | Scalar::F64(_) | Scalar::Bool(_) => return None,
    })
}

pub(super) fn float(value: &Value) -> Option<f32> {
    let value = match value {
        Value::Scalar(Scalar::F32(value)) => *value,
        Value::Scalar(Scalar::F64(value)) => *value as f32,
        value => integer(value)? as f32,
    };
    value.is_finite().then_some(value)
}

pub(super) fn bool(value: &Value) -> Option<bool> {
    match value {
        Value::Scalar(Scalar::Bool(value)) => Some(*value),
        _ => None,
    }
}

pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Text(value) => Some(value),
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
        Value::Text(value) => format!("the string {}", quoted(value)),
        Value::Array(values) => match values.first() {
            Some(first) => format!("an array of {}, the first {}", values.len(), describe_element(first)),
            None => "an empty array".to_owned(),
        },
        value => describe_element(value),
    }
}

fn describe_element(value: &Value) -> String {
    match value {
        Value::Text(value) => quoted(value),
        Value::Scalar(Scalar::Bool(value)) => format!("the bool {value}"),
        Value::Scalar(Scalar::F32(value)) => format!("the float {value}"),
        Value::Scalar(Scalar::F64(value)) => format!("the float {value}"),
        value => integer(value).map_or("an array".to_owned(), |value| format!("the integer {value}")),
    }
}
