//! Reader of safetensors files, as in <https://huggingface.co/docs/safetensors>.
//!
//! The header is checked before any tensor is read: its tensors lie within the file and cover its
//! data without gaps or overlaps, and their sizes are those of their shapes.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, anyhow, bail};
use half::{bf16, f16};
use infer_engine::text::{QUOTE_BYTES, excerpt, excerpt_of};
use serde::Deserialize;
use serde_json::Value;

use crate::limits::{MAX_SAFETENSORS_HEADER_BYTES, MAX_TENSOR_AXES};

/// Bytes before the header, which have its length.
const LENGTH_BYTES: u64 = 8;

/// Size of the read buffer; a multiple of each element's size.
const PIECE_BYTES: usize = 1 << 20;

/// Entry of the header that describes the file instead of a tensor.
const METADATA: &str = "__metadata__";

/// A file of named tensors.
#[derive(Debug)]
pub(super) struct Safetensors<'f> {
    file: &'f File,
    tensors: BTreeMap<String, Tensor>,
    /// Position of the first tensor.
    start: u64,
}

/// A tensor in the file.
#[derive(Clone, Debug)]
struct Tensor {
    dtype: String,
    shape: Vec<usize>,
    /// First byte and end, from the first tensor of the file.
    range: (u64, u64),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

impl<'f> Safetensors<'f> {
    /// Reads and checks the header.
    ///
    /// # Errors
    ///
    /// If it is malformed, or does not fit the file.
    pub(super) fn read(file: &'f File) -> anyhow::Result<Self> {
        let bytes = file.metadata()?.len();
        let mut length = [0; LENGTH_BYTES as usize];
        file.read_exact_at(&mut length, 0).map_err(|_| anyhow!("it is {bytes} bytes, and has no header"))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_SAFETENSORS_HEADER_BYTES {
            bail!("its header is {length} bytes, expected at most {MAX_SAFETENSORS_HEADER_BYTES}");
        }
        let start = LENGTH_BYTES + length;
        let data = bytes.checked_sub(start);
        let data = data.with_context(|| format!("its header is {length} bytes, the whole file {bytes}"))?;
        let mut header = vec![0; length as usize];
        file.read_exact_at(&mut header, LENGTH_BYTES).context("cannot read its header")?;
        let header: BTreeMap<String, Value> = serde_json::from_slice(&header)
            .map_err(|error| anyhow!("its header is not valid: {}", excerpt_of(error, QUOTE_BYTES)))?;
        let mut tensors = BTreeMap::new();
        for (name, entry) in header {
            if name != METADATA {
                let tensor = tensor(entry).with_context(|| format!("tensor `{}`", shown(&name)))?;
                tensors.insert(name, tensor);
            }
        }
        check_cover(&tensors, data)?;
        Ok(Safetensors { file, tensors, start })
    }

    /// Names of the tensors, sorted.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Sizes of the axes of a tensor.
    ///
    /// # Errors
    ///
    /// If the file does not have it.
    pub(super) fn shape(&self, name: &str) -> anyhow::Result<&[usize]> {
        Ok(&self.tensor(name)?.shape)
    }

    /// Reads a tensor of `shape` as f32.
    ///
    /// # Errors
    ///
    /// If the file does not have it, or with another shape or type, or if a value is not finite.
    pub(super) fn floats(&self, name: &str, shape: &[usize]) -> anyhow::Result<Vec<f32>> {
        let tensor = self.tensor(name)?;
        let (name, dtype) = (shown(name), tensor.dtype.as_str());
        if tensor.shape != shape {
            bail!("tensor `{name}` has the shape {:?}, expected {shape:?}", tensor.shape);
        }
        let (begin, end) = tensor.range;
        let (mut at, mut piece) = (begin, vec![0; PIECE_BYTES]);
        let mut values = Vec::with_capacity(((end - begin) / size(dtype).unwrap_or(1)) as usize);
        while at < end {
            let piece = &mut piece[..(end - at).min(PIECE_BYTES as u64) as usize];
            let read = self.file.read_exact_at(piece, self.start + at);
            read.with_context(|| format!("cannot read tensor `{name}`"))?;
            match dtype {
                "F32" => values.extend(piece.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))),
                "F16" => values.extend(piece.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32())),
                "BF16" => values.extend(piece.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32())),
                _ => bail!("tensor `{name}` has the type {}, expected F32, F16 or BF16", shown(dtype)),
            }
            at += piece.len() as u64;
        }
        if let Some(place) = values.iter().position(|value| !value.is_finite()) {
            bail!("tensor `{name}` has {} at {place}, expected finite numbers", values[place]);
        }
        Ok(values)
    }

    fn tensor(&self, name: &str) -> anyhow::Result<&Tensor> {
        self.tensors.get(name).with_context(|| format!("it has no tensor `{}`", shown(name)))
    }
}

/// Checks an entry of the header.
fn tensor(entry: Value) -> anyhow::Result<Tensor> {
    let Entry { dtype, shape, data_offsets: (begin, end) } =
        Entry::deserialize(entry).map_err(|error| anyhow!("{}", excerpt_of(error, QUOTE_BYTES)))?;
    let size = size(&dtype).with_context(|| format!("has the unknown type `{}`", shown(&dtype)))?;
    if shape.len() > MAX_TENSOR_AXES {
        bail!("has {} axes, expected at most {MAX_TENSOR_AXES}", shape.len());
    }
    let elements = shape.iter().try_fold(1_u64, |elements, axis| elements.checked_mul(*axis as u64));
    let bytes = elements.and_then(|elements| elements.checked_mul(size));
    let found = end.checked_sub(begin);
    if bytes.is_none() || bytes != found {
        bail!("has the bytes {begin} to {end}, which do not fit the shape {shape:?} of {dtype}");
    }
    Ok(Tensor { dtype, shape, range: (begin, end) })
}

/// Size of an element in bytes.
fn size(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F64" | "I64" | "U64" => 8,
        "F32" | "I32" | "U32" => 4,
        "F16" | "BF16" | "I16" | "U16" => 2,
        "I8" | "U8" | "BOOL" => 1,
        _ => return None,
    })
}

/// Checks that the tensors cover `bytes` bytes of data, without gaps or overlaps.
fn check_cover(tensors: &BTreeMap<String, Tensor>, bytes: u64) -> anyhow::Result<()> {
    let mut ordered: Vec<_> = tensors.iter().map(|(name, tensor)| (tensor.range, name)).collect();
    ordered.sort_unstable();
    let mut covered = 0;
    for ((begin, end), name) in ordered {
        let name = shown(name);
        if end > bytes {
            bail!("tensor `{name}` ends at byte {end}, but the file has only {bytes} bytes of data");
        }
        if begin != covered {
            let kind = if begin < covered { "overlaps the tensor before it" } else { "follows a gap" };
            bail!("tensor `{name}` {kind}: it begins at byte {begin}, expected {covered}");
        }
        covered = end;
    }
    if covered != bytes {
        bail!("its tensors have {covered} bytes, but the file has {bytes} bytes of data");
    }
    Ok(())
}

fn shown(name: &str) -> String {
    excerpt(name, QUOTE_BYTES).into_owned()
}
