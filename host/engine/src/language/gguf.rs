//! GGUF files: metadata by key, and tensors by name, with every field validated.
//!
//! The format is described in ggml's `docs/gguf.md`. `header` reads the metadata and the tensors'
//! entries within its limits; each entry is checked against the file before its bytes are used.

mod error;
mod header;
pub(crate) mod parts;
mod tensor;
#[cfg(test)]
mod tests;
mod value;
#[cfg(test)]
pub(crate) mod write;

use std::collections::HashMap;

use crate::limits::MAX_GGUF_TENSORS;
use crate::weights::bytes::Bytes;
pub(crate) use error::{GgufError, quoted};
use parts::Split;
pub(crate) use tensor::GgufTensor;
use tensor::{Entry, data_range, reject_overlap};
use value::{Value, all, bool, describe, float, integer, text};

/// Metadata key by which a file declares that its weights are random.
pub(crate) const DUMMY: &str = "infer.dummy";

/// A GGUF file, or all parts of one, read and validated.
pub(crate) struct Gguf {
    parts: Vec<Bytes>,
    metadata: HashMap<String, Value>,
    /// In the order of the files.
    tensors: Vec<Entry>,
    /// Index into `tensors` by name.
    positions: HashMap<String, usize>,
}

impl Gguf {
    /// Reads the header of `bytes`, the whole model, and checks every tensor entry against the
    /// file.
    ///
    /// # Errors
    ///
    /// If a field is damaged, missing, out of bounds or contradicts another. The error names the
    /// key or tensor.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn parse(bytes: Bytes) -> Result<Self, GgufError> {
        Gguf::parse_parts(vec![bytes])
    }

    /// Reads a model whose parts are `files`, in order; see [`parts`].
    ///
    /// # Errors
    ///
    /// As in [`Gguf::parse`], and if the files are not all parts of one model.
    pub(crate) fn parse_parts(files: Vec<Bytes>) -> Result<Self, GgufError> {
        let count = files.len();
        let mut whole: Option<Gguf> = None;
        for (index, bytes) in files.into_iter().enumerate() {
            let read = Gguf::parse_file(bytes).and_then(|part| {
                part.split()?.check(index, count)?;
                match &mut whole {
                    Some(whole) => whole.append(part)?,
                    None => whole = Some(part),
                }
                Ok(())
            });
            read.map_err(|error| error.in_part(index + 1, count))?;
        }
        let whole = whole.ok_or_else(|| GgufError::File("is missing".to_owned()))?;
        whole.split()?.check_tensors(whole.tensors.len())?;
        Ok(whole)
    }

    /// Adds the tensors of the next part of the model.
    fn append(&mut self, part: Gguf) -> Result<(), GgufError> {
        part.split()?.check_same(&self.split()?)?;
        let total = self.tensors.len() + part.tensors.len();
        if total > MAX_GGUF_TENSORS as usize {
            // `check_same` has rejected a stated number as large as this, so the two differ.
            self.split()?.check_tensors(total)?;
        }
        let index = self.parts.len();
        self.parts.extend(part.parts);
        for mut entry in part.tensors {
            if let Some(known) = self.positions.get(&entry.name) {
                let earlier = self.tensors[*known].part + 1;
                let message = format!("is in part {earlier} as well; expected each tensor once");
                return Err(GgufError::tensor(&entry.name, message));
            }
            entry.part = index;
            self.positions.insert(entry.name.clone(), self.tensors.len());
            self.tensors.push(entry);
        }
        Ok(())
    }

    /// The keys that relate this file to other parts.
    fn split(&self) -> Result<Split<'_>, GgufError> {
        Ok(Split {
            number: self.u32(parts::NUMBER)?,
            count: self.u32(parts::COUNT)?,
            tensors: self.u32(parts::TENSORS)?,
            architecture: self.str("general.architecture")?,
        })
    }

    fn parse_file(bytes: Bytes) -> Result<Self, GgufError> {
        let header = header::read(&bytes)?;
        let start = header.len.next_multiple_of(header.alignment);
        let mut tensors = Vec::with_capacity(header.tensors.len());
        for info in header.tensors {
            let range = data_range(&info, start, header.alignment, bytes.len())?;
            tensors.push(Entry { name: info.name, ty: info.ty, shape: info.shape, part: 0, range });
        }
        reject_overlap(&tensors)?;
        let positions =
            tensors.iter().enumerate().map(|(position, entry)| (entry.name.clone(), position)).collect();
        Ok(Gguf { parts: vec![bytes], metadata: header.metadata, tensors, positions })
    }

    /// Releases the memory of tensor `name`, which was packed elsewhere; see [`Bytes::forget`].
    pub(crate) fn forget(&self, name: &str) {
        if let Some(position) = self.positions.get(name) {
            let Entry { part, range, .. } = &self.tensors[*position];
            self.parts[*part].forget(range.clone());
        }
    }

    /// Checks that each file is still the one that was hashed; see [`Bytes::check_unchanged`].
    ///
    /// # Errors
    ///
    /// If it was written to since.
    pub(crate) fn check_unchanged(&self) -> Result<(), GgufError> {
        let changed = self.parts.iter().try_for_each(Bytes::check_unchanged);
        changed.map_err(|error| GgufError::File(format!("cannot be used: {error}")))
    }

    /// The architecture that the file declares, such as `llama`.
    ///
    /// # Errors
    ///
    /// If the key is missing or is not text.
    pub(crate) fn architecture(&self) -> Result<&str, GgufError> {
        self.require("general.architecture", "a string", self.str("general.architecture"))
    }

    /// The unsigned integer at `key`; any integer type is accepted if the value fits. As in the
    /// following getters, a missing key is `None`.
    ///
    /// # Errors
    ///
    /// If the value is not an integer, or is out of range.
    pub(crate) fn u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.get(key, "an integer of 0 to 4294967295", |value| integer(value)?.try_into().ok())
    }

    /// The unsigned integer at `key`.
    ///
    /// # Errors
    ///
    /// As in [`Gguf::u32`], and if the key is missing.
    pub(crate) fn require_u32(&self, key: &str) -> Result<u32, GgufError> {
        self.require(key, "an integer of 0 to 4294967295", self.u32(key))
    }

    /// The finite number at `key`; an integer is accepted too.
    pub(crate) fn f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.get(key, "a finite number", float)
    }

    /// The finite number at `key`, which is required.
    pub(crate) fn require_f32(&self, key: &str) -> Result<f32, GgufError> {
        self.require(key, "a finite number", self.f32(key))
    }

    /// The bool at `key`.
    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.get(key, "a bool", bool)
    }

    /// The bools at `key`.
    pub(crate) fn bools(&self, key: &str) -> Result<Option<Vec<bool>>, GgufError> {
        self.get(key, "an array of bools", |value| all(value, bool))
    }

    /// Returns true if the value at `key` is an array.
    pub(crate) fn is_array(&self, key: &str) -> bool {
        matches!(self.metadata.get(key), Some(Value::Array(_)))
    }

    /// The string at `key`.
    pub(crate) fn str(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.get(key, "a string", text)
    }

    /// The strings at `key`.
    pub(crate) fn strings(&self, key: &str) -> Result<Option<Vec<&str>>, GgufError> {
        self.get(key, "an array of strings", |value| all(value, text))
    }

    /// The finite numbers at `key`.
    pub(crate) fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>, GgufError> {
        self.get(key, "an array of finite numbers", |value| all(value, float))
    }

    /// The signed integers at `key`.
    #[cfg(test)]
    pub(crate) fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>, GgufError> {
        let expected = "an array of integers of -2147483648 to 2147483647";
        self.get(key, expected, |value| all(value, |value| integer(value)?.try_into().ok()))
    }

    /// The unsigned integers at `key`.
    pub(crate) fn u32s(&self, key: &str) -> Result<Option<Vec<u32>>, GgufError> {
        let expected = "an array of integers of 0 to 4294967295";
        self.get(key, expected, |value| all(value, |value| integer(value)?.try_into().ok()))
    }

    /// Types of the tensors, separated by commas, by descending total size.
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

    /// Names of the tensors, in the order of the files.
    pub(crate) fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(|entry| entry.name.as_str())
    }

    /// Bytes of all headers: up to the data of the first tensor of each file.
    pub(crate) fn header_bytes(&self) -> usize {
        let header = |(part, bytes): (usize, &Bytes)| {
            let tensors = self.tensors.iter().filter(|entry| entry.part == part);
            tensors.map(|entry| entry.range.start).min().unwrap_or(bytes.len())
        };
        self.parts.iter().enumerate().map(header).sum()
    }

    /// The tensor `name`, if the file has it.
    pub(crate) fn tensor(&self, name: &str) -> Option<GgufTensor<'_>> {
        let Entry { name, ty, shape, part, range } = &self.tensors[*self.positions.get(name)?];
        let data = &self.parts[*part][range.clone()];
        Some(GgufTensor { name, ty: *ty, shape: shape.clone(), data })
    }

    /// The tensor `name` of `shape`, rows first: `[rows, columns]`, or `[n]`.
    ///
    /// # Errors
    ///
    /// If the file has no such tensor, or has it with another shape.
    pub(crate) fn require_tensor(&self, name: &str, shape: &[usize]) -> Result<GgufTensor<'_>, GgufError> {
        let tensor = self.tensor(name).ok_or_else(|| {
            let message = format!("is missing; expected shape {shape:?}: use the complete model file");
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
        write!(f, "Gguf({:?}, {keys} keys, {tensors} tensors)", self.parts)
    }
}
