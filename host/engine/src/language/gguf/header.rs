//! Reads a GGUF file's header. Every length is checked before anything is allocated.

use std::collections::{HashMap, HashSet};

use infer_kernels::WeightType;

use super::error::{GgufError, quoted};
use super::value::{Scalar, Value, describe};
use crate::limits::{
    MAX_GGUF_ALIGNMENT_BYTES, MAX_GGUF_DIMENSIONS, MAX_GGUF_ELEMENTS, MAX_GGUF_HEADER_BYTES, MAX_GGUF_KEYS,
    MAX_GGUF_NAME_BYTES, MAX_GGUF_TENSORS, MAX_GGUF_TEXT_BYTES,
};

const ALIGNMENT: &str = "general.alignment";

/// A header: all metadata, and the entries of all tensors.
pub(super) struct Header {
    /// Number of bytes up to the end of the last tensor's entry.
    pub(super) len: usize,
    /// Values by key.
    pub(super) metadata: HashMap<String, Value>,
    /// In the file's order.
    pub(super) tensors: Vec<TensorInfo>,
    /// Alignment of tensor data in bytes.
    pub(super) alignment: usize,
}

/// A tensor's entry in the header.
pub(super) struct TensorInfo {
    pub(super) name: String,
    pub(super) ty: WeightType,
    /// Rows first: `[rows, columns]`, or `[n]`.
    pub(super) shape: Vec<usize>,
    /// Offset of its data from the first tensor's, in bytes.
    pub(super) offset: u64,
}

/// Reads the header of `bytes`.
///
/// # Errors
///
/// If the file is not GGUF 2 or 3, ends within its header, exceeds a limit, repeats a key or
/// tensor, or holds a tensor of a type that the kernels do not support.
pub(super) fn read(bytes: &[u8]) -> Result<Header, GgufError> {
    let mut reader = Reader { bytes: &bytes[..bytes.len().min(MAX_GGUF_HEADER_BYTES)], at: 0, elements: 0 };
    let mut alignment = 32;
    if !bytes.starts_with(b"GGUF") {
        let found = bytes
            .get(..4)
            .map_or("fewer than four bytes".to_owned(), |magic| format!("`{}`", magic.escape_ascii()));
        let message = format!("starts with {found}; expected `GGUF`");
        return Err(GgufError::File(message));
    }
    reader.at = 4;
    let version = reader.u32("the version")?;
    if !(2..=3).contains(&version) {
        let hint = if (2..=3).contains(&version.swap_bytes()) { ", in big-endian order" } else { "" };
        let message =
            format!("is of version {version}{hint}; expected 2 or 3, little-endian: convert the model again");
        return Err(GgufError::File(message));
    }
    let tensors = reader.count("tensors", MAX_GGUF_TENSORS)?;
    let keys = reader.count("keys", MAX_GGUF_KEYS)?;

    let mut metadata = HashMap::new();
    for index in 0..keys {
        let key = reader.name(&format!("the name of key {index}"))?;
        if metadata.contains_key(key) {
            return Err(GgufError::key(key, "occurs twice; expected each key once"));
        }
        let value = reader.value(key)?;
        if key == ALIGNMENT {
            alignment = check_alignment(&value)?;
        }
        metadata.insert(key.to_owned(), value);
    }
    let mut seen = HashSet::new();
    let mut infos = Vec::new();
    for index in 0..tensors {
        let name = reader.name(&format!("the name of tensor {index}"))?;
        if !seen.insert(name) {
            return Err(GgufError::tensor(name, "occurs twice; expected each tensor once"));
        }
        infos.push(reader.tensor(name)?);
    }
    Ok(Header { len: reader.at, metadata, tensors: infos, alignment })
}

/// Checks the value of `general.alignment`.
fn check_alignment(value: &Value) -> Result<usize, GgufError> {
    let Value::Scalar(Scalar::U32(alignment)) = value else {
        let message = format!("is {}; expected a u32", describe(value));
        return Err(GgufError::key(ALIGNMENT, message));
    };
    if !alignment.is_power_of_two() || !(8..=MAX_GGUF_ALIGNMENT_BYTES).contains(alignment) {
        let message = format!("is {alignment}; expected a power of two of 8 to {MAX_GGUF_ALIGNMENT_BYTES}");
        return Err(GgufError::key(ALIGNMENT, message));
    }
    Ok(*alignment as usize)
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
    /// Array elements seen so far.
    elements: u64,
}

impl<'b> Reader<'b> {
    fn take(&mut self, length: u64, what: &str) -> Result<&'b [u8], GgufError> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        let taken = taken.ok_or_else(|| {
            let (at, left) = (self.at, rest.len());
            let message = if self.bytes.len() == MAX_GGUF_HEADER_BYTES {
                format!(
                    "has a header of over {MAX_GGUF_HEADER_BYTES} bytes, at {what}; expected a model file"
                )
            } else {
                format!(
                    "ends within its header: {what} at byte {at} takes {length} bytes, but {left} remain; \
                     download the file again"
                )
            };
            GgufError::File(message)
        })?;
        self.at += taken.len();
        Ok(taken)
    }

    fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        let bytes = self.take(4, what)?;
        Ok(u32::from_le_bytes(bytes.try_into().expect("four bytes were taken")))
    }

    fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        let bytes = self.take(8, what)?;
        Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes were taken")))
    }

    fn count(&mut self, what: &str, max: u64) -> Result<u64, GgufError> {
        let count = self.u64(&format!("the number of {what}"))?;
        if count > max {
            return Err(GgufError::File(format!("declares {count} {what}; expected at most {max}")));
        }
        Ok(count)
    }

    fn name(&mut self, what: &str) -> Result<&'b str, GgufError> {
        let length = self.u64(what)?;
        if length > MAX_GGUF_NAME_BYTES {
            let message =
                format!("is invalid: {what} takes {length} bytes; expected at most {MAX_GGUF_NAME_BYTES}");
            return Err(GgufError::File(message));
        }
        let bytes = self.take(length, what)?;
        match std::str::from_utf8(bytes) {
            Ok(name) if !name.is_empty() && !name.contains('\0') => Ok(name),
            _ => {
                let message = format!(
                    "is invalid: {what} is `{}`; expected UTF-8 without NUL, not empty",
                    bytes.escape_ascii()
                );
                Err(GgufError::File(message))
            }
        }
    }

    fn text(&mut self, key: &str) -> Result<&'b str, GgufError> {
        let what = format!("a string of key {}", quoted(key));
        let length = self.u64(&what)?;
        if length > MAX_GGUF_TEXT_BYTES {
            let message = format!("holds a string of {length} bytes; expected at most {MAX_GGUF_TEXT_BYTES}");
            return Err(GgufError::key(key, message));
        }
        let at = self.at;
        let bytes = self.take(length, &what)?;
        std::str::from_utf8(bytes).map_err(|_| {
            let message = format!("holds a string that is not UTF-8, at byte {at}; convert the model again");
            GgufError::key(key, message)
        })
    }

    fn value(&mut self, key: &str) -> Result<Value, GgufError> {
        let what = format!("the value of key {}", quoted(key));
        match self.u32(&what)? {
            TEXT => Ok(Value::Text(self.text(key)?.into())),
            ARRAY => self.array(key, &what),
            kind => self.scalars(key, kind, 1, &what).map(|mut values| values.remove(0)),
        }
    }

    fn array(&mut self, key: &str, what: &str) -> Result<Value, GgufError> {
        let kind = self.u32(what)?;
        let length = self.u64(what)?;
        self.elements = self.elements.saturating_add(length);
        if self.elements > MAX_GGUF_ELEMENTS {
            let message = format!(
                "is an array of {length}; expected at most {MAX_GGUF_ELEMENTS} elements in all arrays"
            );
            return Err(GgufError::key(key, message));
        }
        let values = match kind {
            TEXT => (0..length).map(|_| Ok(Value::Text(self.text(key)?.into()))).collect::<Result<_, _>>()?,
            ARRAY => {
                let message = "is an array of arrays; expected numbers, bools or strings";
                return Err(GgufError::key(key, message));
            }
            kind => self.scalars(key, kind, length, what)?,
        };
        Ok(Value::Array(values))
    }

    fn scalars(&mut self, key: &str, kind: u32, count: u64, what: &str) -> Result<Vec<Value>, GgufError> {
        let Some(size) = Scalar::size(kind) else {
            let message = format!("has value type {kind}; expected a GGUF type, 0 to 12");
            return Err(GgufError::key(key, message));
        };
        let bytes = self.take(size as u64 * count, what)?;
        let scalar = |bytes: &[u8]| {
            let value = Scalar::read(kind, bytes).map(Value::Scalar);
            value.ok_or_else(|| GgufError::key(key, format!("holds the bool {}; expected 0 or 1", bytes[0])))
        };
        bytes.chunks_exact(size).map(scalar).collect()
    }

    fn tensor(&mut self, name: &str) -> Result<TensorInfo, GgufError> {
        let what = format!("the entry of tensor {}", quoted(name));
        let dimensions = self.u32(&what)?;
        if !(1..=MAX_GGUF_DIMENSIONS).contains(&dimensions) {
            let message = format!("has {dimensions} dimensions; expected 1 to {MAX_GGUF_DIMENSIONS}");
            return Err(GgufError::tensor(name, message));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let length = self.u64(&what)?;
            // A length beyond the address space: its product with the others overflows too.
            shape.push(usize::try_from(length).unwrap_or(usize::MAX));
        }
        // The file's order is columns first.
        shape.reverse();
        let code = self.u32(&what)?;
        let ty = WeightType::from_ggml(code).ok_or_else(|| {
            let types = WeightType::ALL.map(|ty| ty.to_string()).join(", ");
            let found = ggml_name(code).map_or(format!("type {code}"), |name| format!("type {name}"));
            let message = format!("has {found}; expected one of {types}: use a file with these types");
            GgufError::tensor(name, message)
        })?;
        let offset = self.u64(&what)?;
        Ok(TensorInfo { name: name.to_owned(), ty, shape, offset })
    }
}

const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// Name of a ggml type (`enum ggml_type` in ggml.h) that occurs in files but is not supported.
fn ggml_name(code: u32) -> Option<&'static str> {
    Some(match code {
        9 => "Q8_1",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        21 => "IQ3_S",
        22 => "IQ2_S",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        40 => "NVFP4",
        _ => return None,
    })
}
