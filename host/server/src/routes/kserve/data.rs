//! Parses the elements of a JSON array, flat or nested, in row-major order.

use std::fmt;

use infer_engine::DType;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::limits::MAX_DEPTH;

/// Parses exactly `elements` elements of `values` into little-endian bytes.
///
/// # Errors
///
/// If the number of elements differs, an element is not a valid `dtype`, or JSON cannot represent
/// the type.
pub(super) fn read(dtype: DType, elements: usize, values: &RawValue) -> Result<Vec<u8>, String> {
    match dtype {
        DType::F32 => flat::<f32>(elements, values, |number, bytes| {
            bytes.extend((number.as_f64() as f32).to_le_bytes());
            Ok(())
        }),
        DType::F64 => flat::<f64>(elements, values, |number, bytes| {
            bytes.extend(number.as_f64().to_le_bytes());
            Ok(())
        }),
        DType::U8 => flat::<u8>(elements, values, |number, bytes| {
            bytes.extend(u8::try_from(number.as_i64()?).map_err(|_| "an integer of 0 to 255")?.to_le_bytes());
            Ok(())
        }),
        DType::I32 => flat::<i32>(elements, values, |number, bytes| {
            bytes.extend(i32::try_from(number.as_i64()?).map_err(|_| "an integer of 32 bits")?.to_le_bytes());
            Ok(())
        }),
        DType::I64 => flat::<i64>(elements, values, |number, bytes| {
            bytes.extend(number.as_i64()?.to_le_bytes());
            Ok(())
        }),
        DType::F16 | DType::BF16 => {
            Err("JSON cannot represent its datatype; send its bytes, with `binary_data_size`".to_owned())
        }
    }
}

/// A JSON number.
#[derive(Clone, Copy)]
enum Number {
    Integer(i64),
    Float(f64),
}

impl Number {
    fn as_f64(self) -> f64 {
        match self {
            Number::Integer(value) => value as f64,
            Number::Float(value) => value,
        }
    }

    fn as_i64(self) -> Result<i64, &'static str> {
        match self {
            Number::Integer(value) => Ok(value),
            Number::Float(_) => Err("an integer of 64 bits"),
        }
    }
}

type Push = fn(Number, &mut Vec<u8>) -> Result<(), &'static str>;

fn flat<T>(elements: usize, values: &RawValue, push: Push) -> Result<Vec<u8>, String> {
    let text = values.get();
    // A declared size reserves no memory: an element takes at least two bytes of JSON.
    let mut bytes = Vec::with_capacity(elements.min(text.len() / 2 + 1) * size_of::<T>());
    let mut missing = elements;
    let level = Level { bytes: &mut bytes, missing: &mut missing, depth: 0, push };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    level.deserialize(&mut deserializer).map_err(|error| format!("`data`: {error}"))?;
    if missing > 0 {
        return Err(format!("`data` has {} elements, its shape {elements}", elements - missing));
    }
    Ok(bytes)
}

/// An array at some depth, or a number in it.
struct Level<'a> {
    bytes: &'a mut Vec<u8>,
    /// Number of elements still expected.
    missing: &'a mut usize,
    depth: usize,
    push: Push,
}

impl Level<'_> {
    fn number<E: Error>(self, number: Number) -> Result<(), E> {
        if self.depth == 0 {
            return Err(E::custom("expected an array"));
        }
        *self.missing =
            self.missing.checked_sub(1).ok_or_else(|| E::custom("more elements than its shape has"))?;
        (self.push)(number, self.bytes).map_err(|expected| E::custom(format!("expected {expected}")))
    }
}

impl<'de> DeserializeSeed<'de> for Level<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers")
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.number(Number::Integer(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        let integer = i64::try_from(value).map(Number::Integer);
        self.number(integer.unwrap_or(Number::Float(value as f64)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.number(Number::Float(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        MAX_DEPTH.check_next(self.depth).map_err(A::Error::custom)?;
        let Level { bytes, missing, depth, push } = self;
        loop {
            let inner = Level { bytes: &mut *bytes, missing: &mut *missing, depth: depth + 1, push };
            if array.next_element_seed(inner)?.is_none() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(dtype: DType, elements: usize, text: &str) -> Result<Vec<u8>, String> {
        read(dtype, elements, &RawValue::from_string(text.to_owned()).unwrap())
    }

    #[test]
    fn flat_and_nested_arrays_are_read_in_order() {
        let expected: Vec<u8> = [1_i32, 2, -3, 4].iter().flat_map(|value| value.to_le_bytes()).collect();
        for text in ["[1,2,-3,4]", "[[1,2],[-3,4]]", "[[[1],[2]],[[-3],[4]]]"] {
            assert_eq!(read_text(DType::I32, 4, text), Ok(expected.clone()), "{text}");
        }
        assert_eq!(read_text(DType::F32, 1, "[2]"), Ok(2_f32.to_le_bytes().to_vec()));
        assert_eq!(read_text(DType::U8, 0, "[]"), Ok(Vec::new()));
    }

    #[test]
    fn invalid_data_is_rejected_with_reason() {
        let deep = format!("{}1{}", "[".repeat(17), "]".repeat(17));
        let cases = [
            (DType::I32, 3, "[1,2]", "`data` has 2 elements, its shape 3"),
            (DType::I32, 1, "[1,2]", "more elements than its shape has"),
            (DType::I32, 1, "7", "expected an array"),
            (DType::I32, 1, "[1.5]", "expected an integer"),
            (DType::U8, 1, "[256]", "expected an integer of 0 to 255"),
            (DType::I64, 1, "[18446744073709551615]", "expected an integer of 64 bits"),
            (DType::F32, 1, "[null]", "expected numbers"),
            (DType::F32, 1, &deep, "more than 16 nested arrays"),
            (DType::F16, 1, "[1]", "send its bytes"),
        ];
        for (dtype, elements, text, expected) in cases {
            let error = read_text(dtype, elements, text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
