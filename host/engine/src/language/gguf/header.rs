//! A scan of a GGUF file's header that checks every length before anything is allocated.
//!
//! The reader that follows trusts lengths up to a gigabyte, keeps the last of two equal names,
//! divides by an alignment of 0, and names neither key nor tensor in its errors. After this scan,
//! it only meets a header that is complete, bounded and unambiguous.

use std::collections::HashSet;

use infer_kernels::WeightType;

use super::error::{GgufError, quoted};

/// Maximum bytes of the header; Qwen2's, with 151,936 tokens and 151,387 merges, takes 6 MB.
const MAX_HEADER_BYTES: usize = 256 << 20;
/// Maximum number of metadata keys; real files have about 30.
const MAX_KEYS: u64 = 1 << 14;
/// Maximum number of tensors; a model of 126 layers has about 1,200.
const MAX_TENSORS: u64 = 1 << 16;
/// Maximum bytes of a key or of a tensor's name; ggml permits 64 for a tensor.
const MAX_NAME_BYTES: u64 = 1 << 10;
/// Maximum bytes of one string; the longest in real files are chat templates of about 20 KB.
const MAX_TEXT_BYTES: u64 = 1 << 20;
/// Maximum elements of all arrays together: the reader keeps each as a value of about 30 bytes.
const MAX_ELEMENTS: u64 = 1 << 22;
/// Maximum dimensions of a tensor, as in ggml.
const MAX_DIMENSIONS: u32 = 4;

/// Maximum alignment of tensor data in bytes.
const MAX_ALIGNMENT: u32 = 1 << 16;
const ALIGNMENT: &str = "general.alignment";

/// The result of the scan.
pub(super) struct Header<'b> {
    /// The bytes up to the last tensor's entry.
    pub(super) bytes: &'b [u8],
    /// Name and type of each tensor, in the file's order.
    pub(super) tensors: Vec<(&'b str, WeightType)>,
    /// Alignment of tensor data in bytes.
    pub(super) alignment: usize,
}

/// Scans the header of `bytes`.
///
/// # Errors
///
/// If the file is not GGUF 2 or 3, ends within its header, exceeds a limit, repeats a key or
/// tensor, or holds a tensor of a type that the kernels do not support.
pub(super) fn walk(bytes: &[u8]) -> Result<Header<'_>, GgufError> {
    let mut walk = Walk { bytes: &bytes[..bytes.len().min(MAX_HEADER_BYTES)], at: 0, elements: 0 };
    let mut alignment = 32;
    if !bytes.starts_with(b"GGUF") {
        let found = bytes
            .get(..4)
            .map_or("fewer than four bytes".to_owned(), |magic| format!("`{}`", magic.escape_ascii()));
        let message = format!("starts with {found}; expected `GGUF`");
        return Err(GgufError::File(message));
    }
    walk.at = 4;
    let version = walk.u32("the version")?;
    if !(2..=3).contains(&version) {
        let hint = if (2..=3).contains(&version.swap_bytes()) { ", in big-endian order" } else { "" };
        let message =
            format!("is of version {version}{hint}; expected 2 or 3, little-endian: convert the model again");
        return Err(GgufError::File(message));
    }
    let tensors = walk.count("tensors", MAX_TENSORS)?;
    let keys = walk.count("keys", MAX_KEYS)?;

    let mut seen = HashSet::new();
    for index in 0..keys {
        let key = walk.name(&format!("the name of key {index}"))?;
        if !seen.insert(key) {
            return Err(GgufError::key(key, "occurs twice; expected each key once"));
        }
        if key == ALIGNMENT {
            alignment = walk.alignment()?;
        } else {
            walk.value(key)?;
        }
    }
    seen.clear();
    let mut entries = Vec::new();
    for index in 0..tensors {
        let name = walk.name(&format!("the name of tensor {index}"))?;
        if !seen.insert(name) {
            return Err(GgufError::tensor(name, "occurs twice; expected each tensor once"));
        }
        entries.push((name, walk.tensor(name)?));
    }
    Ok(Header { bytes: &bytes[..walk.at], tensors: entries, alignment })
}

struct Walk<'b> {
    bytes: &'b [u8],
    at: usize,
    /// Array elements seen so far.
    elements: u64,
}

impl<'b> Walk<'b> {
    fn take(&mut self, length: u64, what: &str) -> Result<&'b [u8], GgufError> {
        let rest = &self.bytes[self.at..];
        let taken = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        let taken = taken.ok_or_else(|| {
            let (at, left) = (self.at, rest.len());
            let message = if self.bytes.len() == MAX_HEADER_BYTES {
                format!("has a header of over {MAX_HEADER_BYTES} bytes, at {what}; expected a model file")
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
        if length > MAX_NAME_BYTES {
            let message =
                format!("is invalid: {what} takes {length} bytes; expected at most {MAX_NAME_BYTES}");
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

    fn text(&mut self, key: &str) -> Result<(), GgufError> {
        let what = format!("a string of key {}", quoted(key));
        let length = self.u64(&what)?;
        if length > MAX_TEXT_BYTES {
            let message = format!("holds a string of {length} bytes; expected at most {MAX_TEXT_BYTES}");
            return Err(GgufError::key(key, message));
        }
        let at = self.at;
        let bytes = self.take(length, &what)?;
        if std::str::from_utf8(bytes).is_err() {
            let message = format!("holds a string that is not UTF-8, at byte {at}; convert the model again");
            return Err(GgufError::key(key, message));
        }
        Ok(())
    }

    fn value(&mut self, key: &str) -> Result<(), GgufError> {
        let what = format!("the value of key {}", quoted(key));
        match self.u32(&what)? {
            TEXT => self.text(key),
            ARRAY => self.array(key, &what),
            kind => self.scalars(key, kind, 1, &what),
        }
    }

    /// Reads the alignment. The reader accepts other integer types too, and divides by any value.
    fn alignment(&mut self) -> Result<usize, GgufError> {
        let what = format!("the value of key `{ALIGNMENT}`");
        let kind = self.u32(&what)?;
        if kind != U32 {
            let message = format!("has value type {kind}; expected {U32}, a u32");
            return Err(GgufError::key(ALIGNMENT, message));
        }
        let alignment = self.u32(&what)?;
        if !alignment.is_power_of_two() || !(8..=MAX_ALIGNMENT).contains(&alignment) {
            let message = format!("is {alignment}; expected a power of two of 8 to {MAX_ALIGNMENT}");
            return Err(GgufError::key(ALIGNMENT, message));
        }
        Ok(alignment as usize)
    }

    fn array(&mut self, key: &str, what: &str) -> Result<(), GgufError> {
        let kind = self.u32(what)?;
        let length = self.u64(what)?;
        self.elements = self.elements.saturating_add(length);
        if self.elements > MAX_ELEMENTS {
            let message =
                format!("is an array of {length}; expected at most {MAX_ELEMENTS} elements in all arrays");
            return Err(GgufError::key(key, message));
        }
        match kind {
            TEXT => (0..length).try_for_each(|_| self.text(key)),
            ARRAY => Err(GgufError::key(key, "is an array of arrays; expected numbers, bools or strings")),
            kind => self.scalars(key, kind, length, what),
        }
    }

    fn scalars(&mut self, key: &str, kind: u32, count: u64, what: &str) -> Result<(), GgufError> {
        let Some(bytes) = scalar_bytes(kind) else {
            let message = format!("has value type {kind}; expected a GGUF type, 0 to 12");
            return Err(GgufError::key(key, message));
        };
        let values = self.take(bytes * count, what)?;
        if kind == BOOL
            && let Some(value) = values.iter().find(|value| **value > 1)
        {
            return Err(GgufError::key(key, format!("holds the bool {value}; expected 0 or 1")));
        }
        Ok(())
    }

    fn tensor(&mut self, name: &str) -> Result<WeightType, GgufError> {
        let what = format!("the entry of tensor {}", quoted(name));
        let dimensions = self.u32(&what)?;
        if !(1..=MAX_DIMENSIONS).contains(&dimensions) {
            let message = format!("has {dimensions} dimensions; expected 1 to {MAX_DIMENSIONS}");
            return Err(GgufError::tensor(name, message));
        }
        self.take(u64::from(dimensions) * 8, &what)?;
        let code = self.u32(&what)?;
        let ty = WeightType::from_ggml(code).ok_or_else(|| {
            let types = WeightType::ALL.map(|ty| ty.to_string()).join(", ");
            let found = ggml_name(code).map_or(format!("type {code}"), |name| format!("type {name}"));
            let message = format!("has {found}; expected one of {types}: use a file with these types");
            GgufError::tensor(name, message)
        })?;
        self.u64(&what)?;
        Ok(ty)
    }
}

const U32: u32 = 4;
const BOOL: u32 = 7;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// Size in bytes of a scalar of GGUF value type `kind`.
fn scalar_bytes(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | BOOL => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}

/// Name of a ggml type (`enum ggml_type` in ggml.h) that occurs in files but is not supported.
fn ggml_name(code: u32) -> Option<&'static str> {
    Some(match code {
        7 => "Q5_1",
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        30 => "BF16",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return None,
    })
}
