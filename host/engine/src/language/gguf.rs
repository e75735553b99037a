//! GGUF files: metadata by key, and tensors by name, every field checked.
//!
//! The format is described in ggml's `docs/gguf.md`. `header` walks the file first and bounds what
//! is read; candle-core then reads the metadata; what a tensor's entry says is compared with the
//! file before its bytes are given out.

mod header;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod write;

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;

use candle_core::quantized::gguf_file::{Content, Value};
use infer_kernels::WeightType;

use crate::text::{QUOTE_BYTES, excerpt};
use crate::weights::bytes::Bytes;

/// A GGUF file that was read and checked.
pub(crate) struct Gguf {
    bytes: Bytes,
    metadata: HashMap<String, Value>,
    /// In the file's order.
    tensors: Vec<Entry>,
    /// From a name to the tensor's position in `tensors`.
    positions: HashMap<String, usize>,
}

struct Entry {
    name: String,
    ty: WeightType,
    shape: Vec<usize>,
    /// Within the file.
    range: Range<usize>,
}

/// A tensor of a file.
#[derive(Clone, Debug)]
pub(crate) struct GgufTensor<'g> {
    /// Its name in the file.
    pub(crate) name: &'g str,
    /// The type of its elements.
    pub(crate) ty: WeightType,
    /// Its dimensions, rows first: `[rows, columns]`, or `[n]`.
    pub(crate) shape: Vec<usize>,
    /// Its rows one after the other, each `ty.row_bytes(columns)` bytes.
    pub(crate) data: &'g [u8],
}

/// A file that is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GgufError {
    /// The file as a whole.
    #[error("the GGUF file {0}")]
    File(String),
    /// A metadata key.
    #[error("key {key} {message}")]
    Key {
        /// The key, in backticks.
        key: String,
        /// What was found, what was expected.
        message: String,
    },
    /// A tensor.
    #[error("tensor {name} {message}")]
    Tensor {
        /// Its name, in backticks.
        name: String,
        /// What was found, what was expected.
        message: String,
    },
}

impl GgufError {
    pub(crate) fn key(key: &str, message: impl Into<String>) -> Self {
        GgufError::Key { key: quoted(key), message: message.into() }
    }

    pub(crate) fn tensor(name: &str, message: impl Into<String>) -> Self {
        GgufError::Tensor { name: quoted(name), message: message.into() }
    }
}

/// An excerpt of a name from a file, in backticks.
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", excerpt(name, QUOTE_BYTES))
}

impl Gguf {
    /// Read the header of `bytes` and check every tensor's entry against the file.
    ///
    /// # Errors
    ///
    /// When a field is damaged, missing, out of bounds or contradicts another; the error names the
    /// key or tensor.
    pub(crate) fn parse(bytes: Bytes) -> Result<Self, GgufError> {
        let header = header::walk(&bytes)?;
        let content = Content::read(&mut Cursor::new(header.bytes))
            .map_err(|error| GgufError::File(format!("cannot be read: {error}")))?;
        let alignment = header.alignment;
        let start = header.bytes.len().next_multiple_of(alignment);
        let mut tensors = Vec::with_capacity(header.tensors.len());
        for (name, ty) in header.tensors {
            let info = content.tensor_infos.get(name);
            let info = info.ok_or_else(|| GgufError::tensor(name, "is not read"))?;
            let shape = info.shape.dims().to_vec();
            let range = data_range(name, ty, &shape, info.offset, start, alignment, bytes.len())?;
            tensors.push(Entry { name: name.to_owned(), ty, shape, range });
        }
        refuse_overlap(&tensors)?;
        let positions =
            tensors.iter().enumerate().map(|(position, entry)| (entry.name.clone(), position)).collect();
        let metadata = content.metadata;
        Ok(Gguf { bytes, metadata, tensors, positions })
    }

    /// Let go of the memory that holds the data of tensor `name`, which was packed elsewhere; see
    /// [`Bytes::forget`].
    pub(crate) fn forget(&self, name: &str) {
        if let Some(position) = self.positions.get(name) {
            self.bytes.forget(self.tensors[*position].range.clone());
        }
    }

    /// Check that the file is the one that was hashed, see [`Bytes::check_unchanged`].
    ///
    /// # Errors
    ///
    /// When it was written to since.
    pub(crate) fn check_unchanged(&self) -> Result<(), GgufError> {
        self.bytes.check_unchanged().map_err(|error| GgufError::File(format!("cannot be used: {error}")))
    }

    /// The architecture that the file says it is of, as `llama`.
    ///
    /// # Errors
    ///
    /// When the file does not say, or not in text.
    pub(crate) fn architecture(&self) -> Result<&str, GgufError> {
        self.require("general.architecture", "a text", self.str("general.architecture"))
    }

    /// The unsigned number at `key`; any integer type in range is taken.
    ///
    /// # Errors
    ///
    /// When the value is not an integer, or out of range. As for the following getters, a key that
    /// is not there is none.
    pub(crate) fn u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.get(key, "an integer of 0 to 4294967295", |value| integer(value)?.try_into().ok())
    }

    /// The unsigned number at `key`.
    ///
    /// # Errors
    ///
    /// As [`Gguf::u32`], and when the key is not there.
    pub(crate) fn require_u32(&self, key: &str) -> Result<u32, GgufError> {
        self.require(key, "an integer of 0 to 4294967295", self.u32(key))
    }

    /// The finite number at `key`; an integer is taken too.
    pub(crate) fn f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.get(key, "a finite number", float)
    }

    /// The finite number at `key`, which must be there.
    pub(crate) fn require_f32(&self, key: &str) -> Result<f32, GgufError> {
        self.require(key, "a finite number", self.f32(key))
    }

    /// The bool at `key`.
    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.get(key, "a bool", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }

    /// The text at `key`.
    pub(crate) fn str(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.get(key, "a text", text)
    }

    /// The texts at `key`.
    pub(crate) fn strings(&self, key: &str) -> Result<Option<Vec<&str>>, GgufError> {
        self.get(key, "an array of texts", |value| all(value, text))
    }

    /// The finite numbers at `key`.
    pub(crate) fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>, GgufError> {
        self.get(key, "an array of finite numbers", |value| all(value, float))
    }

    /// The signed numbers at `key`.
    #[cfg(test)]
    pub(crate) fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>, GgufError> {
        let expected = "an array of integers of -2147483648 to 2147483647";
        self.get(key, expected, |value| all(value, |value| integer(value)?.try_into().ok()))
    }

    /// The unsigned numbers at `key`.
    pub(crate) fn u32s(&self, key: &str) -> Result<Option<Vec<u32>>, GgufError> {
        let expected = "an array of integers of 0 to 4294967295";
        self.get(key, expected, |value| all(value, |value| integer(value)?.try_into().ok()))
    }

    /// The types of the tensors, those with most bytes first, with commas between them.
    pub(crate) fn weight_types(&self) -> String {
        let mut bytes: Vec<(String, usize)> = Vec::new();
        for Entry { ty, range, .. } in &self.tensors {
            let name = ty.to_string();
            match bytes.iter_mut().find(|(known, _)| *known == name) {
                Some((_, bytes)) => *bytes += range.len(),
                None => bytes.push((name, range.len())),
            }
        }
        bytes.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        bytes.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(", ")
    }

    /// The names of the tensors, in the file's order.
    pub(crate) fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|entry| entry.name.as_str())
    }

    /// Where the tensors begin, behind the header.
    pub(crate) fn data_start(&self) -> usize {
        self.tensors.iter().map(|entry| entry.range.start).min().unwrap_or(self.bytes.len())
    }

    /// The tensor `name`, if there is one.
    pub(crate) fn tensor(&self, name: &str) -> Option<GgufTensor<'_>> {
        let Entry { name, ty, shape, range } = &self.tensors[*self.positions.get(name)?];
        Some(GgufTensor { name, ty: *ty, shape: shape.clone(), data: &self.bytes[range.clone()] })
    }

    /// The tensor `name` of `shape`, rows first: `[rows, columns]`, or `[n]`.
    ///
    /// # Errors
    ///
    /// When the file has no such tensor, or of another shape.
    pub(crate) fn require_tensor(&self, name: &str, shape: &[usize]) -> Result<GgufTensor<'_>, GgufError> {
        let tensor = self.tensor(name).ok_or_else(|| {
            let message =
                format!("is missing; expected it with shape {shape:?}: take the whole model's file");
            GgufError::tensor(name, message)
        })?;
        if tensor.shape != shape {
            let message = format!("has shape {:?}; the metadata expects {shape:?}", tensor.shape);
            return Err(GgufError::tensor(name, message));
        }
        Ok(tensor)
    }

    fn get<'g, T>(
        &'g self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'g Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        let found = || GgufError::key(key, format!("is {}; expected {expected}", describe(value)));
        read(value).map(Some).ok_or_else(found)
    }

    fn require<T>(
        &self,
        key: &str,
        expected: &str,
        value: Result<Option<T>, GgufError>,
    ) -> Result<T, GgufError> {
        value?.ok_or_else(|| {
            GgufError::key(key, format!("is missing; expected {expected}: convert the model again"))
        })
    }
}

impl std::fmt::Debug for Gguf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (keys, tensors) = (self.metadata.len(), self.tensors.len());
        write!(f, "Gguf({:?}, {keys} keys, {tensors} tensors)", self.bytes)
    }
}

/// Where the data of a tensor of `ty` and `shape` lies in a file of `file_bytes`, whose data begins
/// at `start`.
fn data_range(
    name: &str,
    ty: WeightType,
    shape: &[usize],
    offset: u64,
    start: usize,
    alignment: usize,
    file_bytes: usize,
) -> Result<Range<usize>, GgufError> {
    let size = shape.split_last().and_then(|(columns, rows)| {
        let rows = rows.iter().try_fold(1_usize, |product, rows| product.checked_mul(*rows))?;
        ty.row_bytes(*columns)?.checked_mul(rows).filter(|size| *size > 0)
    });
    let size = size.ok_or_else(|| {
        let message = format!(
            "has shape {shape:?}; expected rows of whole {ty} blocks ({} elements), not empty, of less than 2^64 bytes",
            ty.block_elements()
        );
        GgufError::tensor(name, message)
    })?;
    if !offset.is_multiple_of(alignment as u64) {
        let message = format!("lies at offset {offset}; expected a multiple of the alignment, {alignment}");
        return Err(GgufError::tensor(name, message));
    }
    let begin = usize::try_from(offset).ok().and_then(|offset| start.checked_add(offset));
    let range = begin.and_then(|begin| Some(begin..begin.checked_add(size)?));
    range.filter(|range| range.end <= file_bytes).ok_or_else(|| {
        let message = format!(
            "takes {size} bytes from offset {offset} of the data, which begins at byte {start}; \
             the file ends at {file_bytes}: fetch it again"
        );
        GgufError::tensor(name, message)
    })
}

fn refuse_overlap(tensors: &[Entry]) -> Result<(), GgufError> {
    let mut ordered: Vec<&Entry> = tensors.iter().collect();
    ordered.sort_by_key(|entry| entry.range.start);
    for pair in ordered.windows(2) {
        if pair[1].range.start < pair[0].range.end {
            let message =
                format!("overlaps tensor {}; expected each to have its own bytes", quoted(&pair[0].name));
            return Err(GgufError::tensor(&pair[1].name, message));
        }
    }
    Ok(())
}

fn integer(value: &Value) -> Option<i128> {
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

fn float(value: &Value) -> Option<f32> {
    let value = match value {
        Value::F32(value) => *value,
        Value::F64(value) => *value as f32,
        value => integer(value)? as f32,
    };
    value.is_finite().then_some(value)
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::String(value) => Some(value),
        _ => None,
    }
}

fn all<'v, T>(value: &'v Value, read: impl Fn(&'v Value) -> Option<T>) -> Option<Vec<T>> {
    match value {
        Value::Array(values) => values.iter().map(read).collect(),
        _ => None,
    }
}

/// A value for a message: what it is, and itself where it is short.
fn describe(value: &Value) -> String {
    match value {
        Value::String(value) => format!("the text {}", quoted(value)),
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
