//! Element types of tensors: the seven types of `wasi:nn`.

use std::fmt;
use std::str::FromStr;

use half::{bf16, f16};
use serde::Deserialize;

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum DType {
    /// IEEE 754 half precision.
    F16,
    /// The upper half of an `f32`.
    BF16,
    /// IEEE 754 single precision.
    F32,
    /// IEEE 754 double precision.
    F64,
    /// Unsigned byte.
    U8,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
}

impl DType {
    /// Every type, in the order of `wasi:nn`.
    pub const ALL: [DType; 7] =
        [DType::F16, DType::F32, DType::F64, DType::BF16, DType::U8, DType::I32, DType::I64];

    /// Size of one element in bytes.
    pub fn size_bytes(self) -> usize {
        match self {
            DType::U8 => 1,
            DType::F16 | DType::BF16 => 2,
            DType::F32 | DType::I32 => 4,
            DType::F64 | DType::I64 => 8,
        }
    }

    /// Name in cards and messages, such as `f32`.
    pub fn name(self) -> &'static str {
        match self {
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::U8 => "u8",
            DType::I32 => "i32",
            DType::I64 => "i64",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The name is not an element type.
#[derive(Debug, thiserror::Error)]
#[error("unknown dtype `{0}`, expected one of f16, f32, f64, bf16, u8, i32, i64")]
pub struct UnknownDType(String);

impl FromStr for DType {
    type Err = UnknownDType;

    fn from_str(name: &str) -> Result<Self, UnknownDType> {
        let found = DType::ALL.into_iter().find(|dtype| dtype.name() == name);
        found.ok_or_else(|| UnknownDType(name.to_owned()))
    }
}

impl TryFrom<String> for DType {
    type Error = UnknownDType;

    fn try_from(name: String) -> Result<Self, UnknownDType> {
        name.parse()
    }
}

/// A Rust type that can be the element type of a tensor.
pub trait Element: bytemuck::Pod {
    /// The corresponding element type.
    const DTYPE: DType;
}

macro_rules! element {
    ($($rust:ty => $dtype:ident),+) => { $(impl Element for $rust { const DTYPE: DType = DType::$dtype; })+ };
}

element!(f16 => F16, bf16 => BF16, f32 => F32, f64 => F64, u8 => U8, i32 => I32, i64 => I64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for dtype in DType::ALL {
            assert_eq!(dtype.to_string().parse::<DType>().unwrap(), dtype);
        }
        let error = "int8".parse::<DType>().unwrap_err().to_string();
        assert_eq!(error, "unknown dtype `int8`, expected one of f16, f32, f64, bf16, u8, i32, i64");
    }

    #[test]
    fn sizes_match_rust_types() {
        fn agrees<T: Element>() {
            assert_eq!(T::DTYPE.size_bytes(), size_of::<T>(), "{}", T::DTYPE);
        }
        agrees::<f16>();
        agrees::<bf16>();
        agrees::<f32>();
        agrees::<f64>();
        agrees::<u8>();
        agrees::<i32>();
        agrees::<i64>();
    }
}
