//! Tensors: an element type, a shape, and the matching number of bytes.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

use crate::dtype::{DType, Element};
use crate::limits::MAX_AXES;
use crate::text::{MESSAGE_BYTES, excerpt_of};

// `wasi:nn` defines tensor data as little-endian, and elements are reinterpreted in place.
const _: () =
    assert!(cfg!(target_endian = "little"), "tensor data is little-endian, so the host must be as well");

/// A dense array, row-major.
///
/// Invariant: `data().len()` is the product of `shape()` times `dtype().size_bytes()`. A shape
/// without axes is a scalar, one element; an axis of 0 means no elements.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Vec<u8>,
}

/// The shape or the data of a tensor is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The tensor has too many axes.
    #[error("{found} axes, expected at most {MAX_AXES}")]
    Axes {
        /// Number of axes.
        found: usize,
    },
    /// The size in bytes overflows.
    #[error("shape {} is too large: its size in bytes overflows", shape_text(.shape))]
    Overflow {
        /// Shape of the tensor.
        shape: Vec<usize>,
    },
    /// The number of bytes does not match the shape and the type.
    #[error("shape {} of {dtype} takes {expected} bytes, found {found}", shape_text(.shape))]
    Length {
        /// Shape of the tensor.
        shape: Vec<usize>,
        /// Type of the elements.
        dtype: DType,
        /// Bytes according to the shape.
        expected: usize,
        /// Bytes of the data.
        found: usize,
    },
    /// The elements have another type than requested.
    #[error("elements are {found}, expected {expected}")]
    DType {
        /// Requested type.
        expected: DType,
        /// Type of the elements.
        found: DType,
    },
}

impl Tensor {
    /// Creates a tensor from `data`, row-major and little-endian.
    ///
    /// # Errors
    ///
    /// When the length of `data` does not match `shape` and `dtype`, when their product overflows,
    /// or when there are more than [`MAX_AXES`] axes.
    pub fn new(dtype: DType, shape: Vec<usize>, data: Vec<u8>) -> Result<Self, TensorError> {
        if shape.len() > MAX_AXES {
            return Err(TensorError::Axes { found: shape.len() });
        }
        let Some(expected) = size_bytes(dtype, &shape) else { return Err(TensorError::Overflow { shape }) };
        if data.len() != expected {
            return Err(TensorError::Length { shape, dtype, expected, found: data.len() });
        }
        Ok(Tensor { dtype, shape, data })
    }

    /// Creates a tensor from a copy of `values`, row-major.
    ///
    /// # Errors
    ///
    /// When `shape` does not have exactly `values.len()` elements.
    pub fn from_slice<T: Element>(shape: &[usize], values: &[T]) -> Result<Self, TensorError> {
        Tensor::new(T::DTYPE, shape.to_vec(), bytemuck::cast_slice(values).to_vec())
    }

    /// Creates a tensor of u8 with one axis, such as the bytes of UTF-8 text.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Tensor { dtype: DType::U8, shape: vec![bytes.len()], data: bytes }
    }

    /// Takes the bytes of the input `name` as text.
    ///
    /// # Errors
    ///
    /// A message with `name` when they are not u8, or not UTF-8.
    pub(crate) fn into_text(self, name: &str) -> Result<String, String> {
        if self.dtype != DType::U8 {
            return Err(format!("`{name}` is {}, expected u8: the bytes of UTF-8 text", self.dtype));
        }
        String::from_utf8(self.data).map_err(|error| {
            format!("`{name}` is not UTF-8: invalid byte at {}", error.utf8_error().valid_up_to())
        })
    }

    /// Reads the bytes of the input `name` as JSON.
    ///
    /// # Errors
    ///
    /// As [`into_text`](Self::into_text), and when they are not the JSON of a `T`.
    pub(crate) fn into_json<T: DeserializeOwned>(self, name: &str) -> Result<T, String> {
        serde_json::from_str(&self.into_text(name)?)
            .map_err(|error| format!("`{name}`: {}", excerpt_of(error, MESSAGE_BYTES)))
    }

    /// Type of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Size of each axis, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Bytes of the elements, row-major and little-endian.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Takes the bytes of the elements without a copy.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }

    /// Copies the elements.
    ///
    /// # Errors
    ///
    /// When their type is not `T`.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>, TensorError> {
        self.elements().map(Cow::into_owned)
    }

    /// Elements in place. They are copied if the bytes are not aligned for `T`.
    pub(crate) fn elements<T: Element>(&self) -> Result<Cow<'_, [T]>, TensorError> {
        if T::DTYPE != self.dtype {
            return Err(TensorError::DType { expected: T::DTYPE, found: self.dtype });
        }
        Ok(match bytemuck::try_cast_slice(&self.data) {
            Ok(values) => Cow::Borrowed(values),
            Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(&self.data)),
        })
    }
}

/// Size of a tensor in bytes; `None` if it overflows.
pub(crate) fn size_bytes(dtype: DType, shape: &[usize]) -> Option<usize> {
    // A product of positive axes may overflow before a 0 is reached. Rejecting such a shape as well
    // is simpler than permitting it.
    shape.iter().try_fold(dtype.size_bytes(), |product, &size| product.checked_mul(size))
}

/// Shape as shown in messages: `(1, 3, 224, 224)`. A shape with too many axes is cut and ends with
/// their number.
pub(crate) fn shape_text<T: ToString>(shape: &[T]) -> String {
    let axes: Vec<_> = shape.iter().take(MAX_AXES).map(ToString::to_string).collect();
    match shape.len() {
        few if few <= MAX_AXES => format!("({})", axes.join(", ")),
        many => format!("({}, … {many} axes)", axes.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn data_length_must_match_shape_and_type() {
        struct Case(DType, &'static [usize], usize, Result<(), &'static str>);
        let cases = [
            Case(DType::F32, &[2, 3], 24, Ok(())),
            Case(DType::U8, &[], 1, Ok(())),
            Case(DType::I64, &[4], 32, Ok(())),
            Case(DType::BF16, &[0, 3], 0, Ok(())),
            Case(DType::F32, &[2, 3], 23, Err("shape (2, 3) of f32 takes 24 bytes, found 23")),
            Case(DType::F16, &[2, 3], 24, Err("shape (2, 3) of f16 takes 12 bytes, found 24")),
            Case(DType::F64, &[], 0, Err("shape () of f64 takes 8 bytes, found 0")),
            Case(DType::U8, &[0], 1, Err("shape (0) of u8 takes 0 bytes, found 1")),
            Case(DType::U8, &[1; 8], 1, Ok(())),
            Case(DType::U8, &[1; 9], 1, Err("9 axes, expected at most 8")),
            Case(
                DType::U8,
                &[usize::MAX, 2],
                0,
                Err("shape (18446744073709551615, 2) is too large: its size in bytes overflows"),
            ),
            Case(
                DType::I32,
                &[usize::MAX / 2],
                0,
                Err("shape (9223372036854775807) is too large: its size in bytes overflows"),
            ),
        ];
        for Case(dtype, shape, bytes, expected) in cases {
            let made = Tensor::new(dtype, shape.to_vec(), vec![0; bytes]);
            assert_eq!(made.map(|_| ()).map_err(|error| error.to_string()), expected.map_err(str::to_owned));
        }
    }

    #[test]
    fn elements_round_trip() {
        fn round_trip<T: Element + PartialEq + std::fmt::Debug>(values: [T; 4]) {
            let tensor = Tensor::from_slice(&[2, 2], &values).unwrap();
            assert_eq!(tensor.dtype(), T::DTYPE);
            assert_eq!(tensor.to_vec::<T>().unwrap(), values);
            let moved = Tensor::new(T::DTYPE, vec![4], tensor.into_data()).unwrap();
            assert_eq!(moved.to_vec::<T>().unwrap(), values);
        }
        round_trip([0.5f32, -1.0, f32::MAX, 0.0]);
        round_trip([0.5f64, -1.0, f64::MIN, 0.0]);
        round_trip([0u8, 1, 128, 255]);
        round_trip([0i32, -1, i32::MIN, i32::MAX]);
        round_trip([0i64, -1, i64::MIN, i64::MAX]);
        round_trip([0.5, -1.0, 65504.0, 0.0].map(f16::from_f32));
        round_trip([0.5, -1.0, 1e30, 0.0].map(bf16::from_f32));
    }

    #[test]
    fn elements_of_another_type_are_an_error() {
        let tensor = Tensor::from_slice(&[1], &[1i32]).unwrap();
        let error = tensor.to_vec::<f32>().unwrap_err();
        assert_eq!(error.to_string(), "elements are i32, expected f32");
    }
}
